"""Every bad input: an error that names the argument and what came, and nothing modified."""

import copy
import math
import sys
from fractions import Fraction

import bad_arguments as bad
import numpy as np
import pytest
from refusals import Calls, Changed, New, cases, refused, rows, wrong_calls
from support import PARAMETERS, bits, pair, parameters, sequence

import fastrnn
from fastrnn import SimpleRNN

T, D, H, Q = 9, 4, 11, 3
NEW = New(SimpleRNN, input_size=2, hidden_size=3, output_size=2)


class Box(Calls):
    """A model with good arguments, and calls of every method with some of them replaced."""

    def __init__(self, backend, dtype=np.float64):
        self.rnn, _ = pair(D, H, Q, backend=backend, dtype=dtype)
        inputs, targets, h_prev = sequence(T, D, H, Q, dtype=dtype)
        xs, hs, ps = self.rnn.forward(inputs, h_prev)
        self.good = {
            "inputs": inputs, "targets": targets, "h_prev": h_prev, "xs": xs, "hs": hs, "ps": ps,
            "grads": self.rnn.backward(xs, hs, ps, targets), "lr": 0.1, "clip": "step", "clip_threshold": 5.0,
            "h": h_prev, "start_index": 0, "n": 5, "rng": None,
        }  # fmt: skip

    def call(self, method, **bad):
        a = self.good | bad
        clip = {"clip": a["clip"], "clip_threshold": a["clip_threshold"]}
        rnn = self.rnn
        return {
            "forward": lambda: rnn.forward(a["inputs"], a["h_prev"]),
            "backward": lambda: rnn.backward(a["xs"], a["hs"], a["ps"], a["targets"]),
            "update_weights": lambda: rnn.update_weights(a["grads"], a["lr"]),
            "loss_and_grads": lambda: rnn.loss_and_grads(a["inputs"], a["targets"], a["h_prev"], **clip),
            "train_step": lambda: rnn.train_step(a["inputs"], a["targets"], a["h_prev"], a["lr"], **clip),
            "sample": lambda: rnn.sample(a["h"], a["start_index"], a["n"], rng=a["rng"]),
        }[method]()

    def watched(self):
        steps = [self.good["hs"].array, self.good["ps"].array, self.good["xs"].indices]
        return self.good | {name: getattr(self.rnn, name) for name in PARAMETERS} | {"steps": steps}


@pytest.fixture
def box(backend):
    return Box(backend)


def recursive():
    out = []
    out.append(out)
    return out


# (what comes, error, words of the message besides the argument's name)
BAD_SEQUENCES = [
    ([], ValueError, ["at least one", "empty"]),
    ((), ValueError, ["empty"]),
    (np.empty(0, np.int64), ValueError, ["empty"]),
    (range(0), ValueError, ["empty"]),
    ("0120", ValueError, ["str '0120'", "one-dimensional"]),
    (b"", ValueError, ["at least one", "empty"]),
    (bytearray(), ValueError, ["at least one", "empty"]),
    (memoryview(b"ab").cast("c"), TypeError, ["integers", "memoryview"]),
    (None, ValueError, ["NoneType None"]),
    (3, ValueError, ["int 3", "one-dimensional"]),
    (np.array(3), ValueError, ["array(3)", "one-dimensional"]),
    (np.int64(3), ValueError, ["one-dimensional"]),
    (1.5, ValueError, ["float 1.5"]),
    ({0: 1}, ValueError, ["dict {0: 1}"]),
    ({0, 1}, ValueError, ["set"]),
    ((i for i in [0, 1]), ValueError, ["generator"]),
    (object(), ValueError, ["object"]),
    (len, ValueError, ["builtin_function"]),
    (["a", "b"], TypeError, ["integers", "<U1"]),
    ([None, 0], TypeError, ["object"]),
    ([0.0, 1.0], TypeError, ["integers", "list of dtype float64"]),
    (np.array([0.0, 1.0]), TypeError, ["ndarray of dtype float64"]),
    (np.array([0.5], np.float16), TypeError, ["float16"]),
    ([math.nan], TypeError, ["float64"]),
    ([1j, 0], TypeError, ["complex128"]),
    ([True, False], TypeError, ["integers", "bool"]),
    (np.array([True]), TypeError, ["bool"]),
    (np.array([0, 1.0], object), TypeError, ["integers", "ndarray of dtype object"]),
    (np.array([0, True], object), TypeError, ["integers", "object"]),
    (np.array([0, np.False_], object), TypeError, ["integers", "object"]),
    (np.array([0, "1"], object), TypeError, ["integers", "object"]),
    (np.array([0, np.array([1])], object), TypeError, ["integers", "object"]),
    ([np.uint64(1), -0.5], TypeError, ["integers", "list of dtype float64"]),
    (np.array(["0"]), TypeError, ["<U1"]),
    (np.array([0, 1], "m8[s]"), TypeError, ["timedelta64"]),
    (np.array(["2020-01-01"], "M8[D]"), TypeError, ["datetime64"]),
    (np.zeros(2, [("a", "i8")]), TypeError, ["integers"]),
    ([Fraction(1), 0], TypeError, ["object"]),
    ([[0, 1], [2]], ValueError, ["array"]),
    ([0, [1, 2]], ValueError, ["array"]),
    (recursive(), ValueError, ["array"]),
    ([1.5, 10**400], TypeError, ["object"]),
]

#: Out of bounds wherever the bound is at most 4: position and index as the message shows them.
BAD_INDICES = [
    ([0, 4], 1, "4"),
    ([0, 1, -5], 2, "-5"),
    ([99], 0, "99"),
    (np.array([0, 1, 200], np.uint8), 2, "200"),
    (np.array([0, -128], np.int8), 1, "-128"),
    (np.array([0, 2**63 - 1]), 1, str(2**63 - 1)),
    (np.array([-(2**63)]), 0, str(-(2**63))),
    (np.array([1, 2**64 - 1], np.uint64), 1, str(2**64 - 1)),
    (np.array([1, 2**64 - 1], ">u8"), 1, str(2**64 - 1)),
    (np.array([1, 2**63], np.uint64), 1, str(2**63)),
    (np.array([1, 300], ">i2"), 1, "300"),
    ([2**63], 0, str(2**63)),
    ([0, 2**64], 1, str(2**64)),
    ([0, -(2**70)], 1, str(-(2**70))),
    ([2**63, -1], 0, str(2**63)),
    ([0, 10**5000], 1, "an integer of 16610 bits"),
    (range(20), None, None),
    ([7, 99, 5], 0, "7"),
    (b"\x00\x04", 1, "4"),
    (b"0120", 0, "48"),
    (bytearray(b"\x01\xff"), 1, "255"),
    (np.array([0, 1, -5], object), 2, "-5"),
    (np.array([0, 10**30], object), 1, str(10**30)),
    ([np.uint64(2**64 - 1), -1], 0, str(2**64 - 1)),
]


test_bad_inputs = wrong_calls(
    ["forward", "loss_and_grads", "train_step"], "inputs", BAD_SEQUENCES, begins="inputs"
)


@pytest.mark.parametrize("method", ["forward", "loss_and_grads", "train_step"])
@cases(BAD_INDICES, ("value", "position", "shown"))
def test_input_indices_out_of_bounds(value, position, shown, method, box):
    words = ["inputs["] if position is None else [f"inputs[{position}] is {shown}"]
    box.refuses(method, IndexError, [*words, f"[-{D}, {D})"], inputs=value)


test_bad_targets = wrong_calls(
    ["backward", "loss_and_grads", "train_step"], "targets", BAD_SEQUENCES, begins="targets"
)


@pytest.mark.parametrize("method", ["loss_and_grads", "train_step"])
@cases(BAD_INDICES, ("value", "position", "shown"))
def test_targets_out_of_bounds(value, position, shown, method, box):
    words = ["targets["] if position is None else [f"targets[{position}] is {shown}"]
    box.refuses(method, IndexError, [*words, f"[-{Q}, {Q})"], targets=value, inputs=[0] * len(value))


def marks(*counts):
    """One-hot bools that mark so many classes at each time step."""
    return np.arange(Q) < np.array(counts)[:, None]


test_bad_one_hot_targets = wrong_calls(["backward", "loss_and_grads", "train_step"], "targets", [
    (marks(*[1] * (T - 1), 2), ValueError, ["mark one class each", f"targets[{T - 1}] marks 2"]),
    (marks(1, 0, *[1] * (T - 2)), ValueError, ["targets[1] marks 0"]),
    (marks(*[1] * T)[:, :, None][:, :, [0, 0]], ValueError, ["of bools", f"(T, {Q}, 1)", f"({T}, {Q}, 2)"]),
    (np.ones((T, Q + 1), bool), ValueError, [f"(T, {Q})", f"({T}, {Q + 1})"]),
    (marks(*[1] * (T - 1)), ValueError, [f"length {T}", f"got {T - 1}"]),
    (np.zeros((0, Q), bool), ValueError, [f"(0, {Q})"]),
], begins="targets")  # fmt: skip


def test_target_bounds_are_the_outputs_in_backward(box):
    targets = [0] * T
    targets[6] = Q
    box.refuses("backward", IndexError, [f"targets[6] is {Q}", f"[-{Q}, {Q})"], targets=targets)
    targets[6] = -Q
    box.call("backward", targets=targets)


test_targets_of_another_length = wrong_calls(
    ["backward", "loss_and_grads", "train_step"], "targets",
    [([0] * n, ValueError, [f"length {T}", f"got {n}"]) for n in (1, T - 1, T + 1)],
)  # fmt: skip


test_bad_input_vectors = wrong_calls(["forward", "loss_and_grads", "train_step"], "inputs", [
    (np.zeros((T, D + 1)), ValueError, [f"(T, {D})", f"(T, {D}, 1)", f"({T}, {D + 1})"]),
    (np.zeros((T, D - 1, 1)), ValueError, [f"({T}, {D - 1}, 1)"]),
    (np.zeros((T, D, 2)), ValueError, [f"({T}, {D}, 2)"]),
    (np.zeros((T, 1, D)), ValueError, [f"({T}, 1, {D})"]),
    (np.zeros((T, D, 1, 1)), ValueError, [f"({T}, {D}, 1, 1)"]),
    (np.zeros((0, D)), ValueError, [f"(0, {D})"]),
    (np.zeros((0, D, 1)), ValueError, [f"(0, {D}, 1)"]),
    (np.zeros((T, 0)), ValueError, [f"({T}, 0)"]),
    ([[]], ValueError, ["(1, 0)"]),
    (np.zeros((T, D), complex), TypeError, ["real numbers", "complex128"]),
    (np.zeros((T, D + 1), bool), ValueError, [f"(T, {D})", f"({T}, {D + 1})"]),
    (np.zeros((T, D), object), TypeError, ["object"]),
    ([["a"] * D] * T, TypeError, ["list of dtype <U1"]),
    (np.zeros((T, D), "M8[s]"), TypeError, ["datetime64"]),
    ([[0.0] * D, [0.0] * (D + 1)], ValueError, ["array"]),
])  # fmt: skip


BAD_STATES = [
    (np.zeros(H), ValueError, [f"({H}, 1)", f"({H},)"]),
    (np.zeros((1, H)), ValueError, [f"(1, {H})"]),
    (np.zeros((H + 1, 1)), ValueError, [f"({H + 1}, 1)"]),
    (np.zeros((H, 2)), ValueError, [f"({H}, 2)"]),
    (np.zeros((H, 1, 1)), ValueError, [f"({H}, 1, 1)"]),
    (np.zeros((0, 1)), ValueError, ["(0, 1)"]),
    (0.0, ValueError, ["()"]),
    ([], ValueError, ["(0,)"]),
    (None, TypeError, ["real numbers", "NoneType None"]),
    ("state", TypeError, ["str 'state'"]),
    ({}, TypeError, ["dict"]),
    ((x for x in [0.0]), TypeError, ["generator"]),
    (np.zeros((H, 1), complex), TypeError, ["complex128"]),
    (np.zeros((H, 1), bool), TypeError, ["bool"]),
    (np.zeros((H, 1), object), TypeError, ["object"]),
    ([["0"]] * H, TypeError, ["<U1"]),
    ([[0.0]] * (H - 1) + [[0.0, 1.0]], ValueError, ["array"]),
]


test_bad_states = wrong_calls(["forward", "loss_and_grads", "train_step"], "h_prev", BAD_STATES)
test_bad_states_to_sample_from = wrong_calls("sample", "h", BAD_STATES)


test_bad_learning_rates = wrong_calls(
    ["update_weights", "train_step"], "lr",
    [*bad.NUMBERS, bad.NONE, (math.inf, ValueError, ["finite", "inf"]), (-math.inf, ValueError, ["-inf"])],
    begins="lr must be ",
)  # fmt: skip


@pytest.mark.parametrize("method", ["update_weights", "train_step"])
def test_a_learning_rate_that_float32_cannot_hold(method, backend):
    text = Box(backend, np.float32).refuses(method, ValueError, lr=1e39)
    assert text == "lr must be at most 3.4e+38, the largest float32, got 1e+39"


@pytest.mark.parametrize("method", ["loss_and_grads", "train_step"])
@pytest.mark.parametrize("clip", ["step", "value", "norm", None])
@cases([*bad.NUMBERS, bad.NONE, (0, ValueError, ["positive", "0.0"]), (-5.0, ValueError, ["positive", "-5.0"]),
        (-math.inf, ValueError, ["positive"])])  # fmt: skip
def test_bad_thresholds(value, error, words, clip, method, box):
    box.refuses(method, error, words, begins="clip_threshold must be ", clip_threshold=value, clip=clip)


test_bad_clip_modes = wrong_calls(
    ["loss_and_grads", "train_step"], "clip",
    rows(ValueError, ["", "Step", "none", "global", b"step", 0, 1, True, False, [], {}, ["step"], 5.0],
         "'step', 'value', 'norm'", "{!r}"),
    begins="clip must be one of ",
)  # fmt: skip


def test_clip_names_of_any_string_type(box):
    box.call("train_step", clip=np.str_("value"))


def broken(place, value):
    """The good gradients with one of them replaced."""
    return Changed(lambda good: tuple(value if i == place else g for i, g in enumerate(good)))


test_bad_gradients = wrong_calls("update_weights", "grads", [
    (Changed(lambda good: good[:4]), ValueError, ["grads", "5", "got 4"]),
    (Changed(lambda good: (*good, good[0])), ValueError, ["got 6"]),
    (Changed(lambda good: ()), ValueError, ["got 0"]),
    (Changed(lambda good: None), TypeError, ["NoneType"]),
    (Changed(lambda good: 1.0), TypeError, ["float"]),
    (Changed(lambda good: "abcde"), TypeError, ["str"]),
    (Changed(lambda good: dict(enumerate(good))), TypeError, ["dict"]),
    (Changed(lambda good: set("abcde")), TypeError, ["set"]),
    (Changed(lambda good: (g for g in good)), TypeError, ["generator"]),
    (Changed(lambda good: np.zeros((5, 3))), TypeError, ["ndarray"]),
    (Changed(lambda good: good[::-1]), ValueError, ["grads[0] (dWxh)", f"({H}, {D})"]),
    (broken(0, np.zeros((H, D + 1))), ValueError, ["grads[0] (dWxh)", f"({H}, {D})", f"({H}, {D + 1})"]),
    (broken(1, np.zeros(H * H)), ValueError, ["grads[1] (dWhh)", f"({H * H},)"]),
    (broken(2, np.zeros((H, Q))), ValueError, ["grads[2] (dWhy)", f"({Q}, {H})"]),
    (broken(3, np.zeros(H)), ValueError, ["grads[3] (dbh)", f"({H}, 1)"]),
    (broken(4, np.zeros((1, Q))), ValueError, ["grads[4] (dby)", f"({Q}, 1)"]),
    (broken(4, 0.0), ValueError, ["grads[4] (dby)"]),
    (broken(4, None), TypeError, ["grads[4] (dby)", "NoneType"]),
    (broken(4, np.zeros((Q, 1), complex)), TypeError, ["grads[4] (dby)", "complex128"]),
    (broken(4, np.zeros((Q, 1), bool)), TypeError, ["bool"]),
    (broken(4, np.zeros((Q, 1), object)), TypeError, ["object"]),
    (broken(4, "a"), TypeError, ["str 'a'"]),
    (broken(2, [[0.0], [0.0, 1.0]]), ValueError, ["grads[2] (dWhy)"]),
], begins="grads")  # fmt: skip


def without(key):
    return lambda steps: {t: steps[t] for t in steps if t != key}


def with_value(key, value):
    return lambda steps: {t: value if t == key else steps[t] for t in steps}


@pytest.mark.parametrize("name", ["xs", "hs", "ps"])
@cases([
    (lambda s: None, TypeError, ["mapping", "NoneType"]),
    (lambda s: [s[t] for t in s], TypeError, ["mapping", "list"]),
    (lambda s: s.array, TypeError, ["mapping", "ndarray"]),
    (lambda s: "abc", TypeError, ["mapping", "str"]),
    (lambda s: {}, ValueError, ["time step"]),
    (without(0), ValueError, ["missing"]),
    (without(3), ValueError, ["time step"]),
    (with_value(3, None), TypeError, ["[3]", "NoneType"]),
    (with_value(3, 0.5), ValueError, ["[3]", "()"]),
    (with_value(3, np.zeros((2, 2))), ValueError, ["[3]", "(2, 2)"]),
    (with_value(3, np.zeros(5)), ValueError, ["[3]", "(5,)"]),
    (with_value(3, np.zeros((5, 1), complex)), TypeError, ["[3]", "complex128"]),
    (with_value(3, np.array([[True]])), TypeError, ["[3]", "bool"]),
    (with_value(3, "x"), TypeError, ["[3]", "str"]),
    (with_value(3, [[1.0], [2.0, 3.0]]), ValueError, ["[3]"]),
], ("change", "error", "words"))  # fmt: skip
def test_bad_mappings(change, error, words, name, box):
    if name == "xs" and change(box.good["xs"]) is not None and isinstance(change(box.good["xs"]), dict):
        box.good["targets"] = box.good["targets"][: len(change(box.good["xs"])) or T]
    box.good["xs"] = box.rnn.forward(box.good["inputs"], box.good["h_prev"])[0]
    box.refuses("backward", error, [name, *words], **{name: change(copy.copy(box.good[name]))})


def test_mappings_swapped_or_of_another_run(box):
    a = box.good
    assert a["xs"].array.shape == (T, D)  # the one-hot array exists from here on
    box.refuses("backward", ValueError, ["hs must hold time steps -1"], hs=a["ps"], ps=a["hs"])
    box.refuses("backward", ValueError, ["xs must have shape"], xs=a["ps"])
    box.refuses("backward", ValueError, ["ps must have shape"], ps=a["xs"])
    xs, hs, ps = box.rnn.forward([0, 1], a["h_prev"])
    box.refuses("backward", ValueError, [f"hs must hold time steps -1 to {T - 1}", "-1..1"], hs=hs)
    box.refuses("backward", ValueError, [f"ps must hold time steps 0 to {T - 1}", "0..1"], ps=ps)
    box.refuses("backward", ValueError, ["hs must hold time steps -1 to 1"], xs=xs)
    other = SimpleRNN(D + 1, H + 1, Q + 1, rng=0).forward(a["inputs"], np.zeros((H + 1, 1)))
    for name, steps in zip(("xs", "hs", "ps"), other, strict=True):
        box.refuses("backward", ValueError, [f"{name} must have shape"], **{name: steps})


test_bad_start_indices = wrong_calls("sample", "start_index", [
    (D, IndexError, [f"start_index is {D}", f"[-{D}, {D})"]),
    (-D - 1, IndexError, [f"start_index is {-D - 1}"]),
    (2**63, IndexError, [str(2**63)]),
    (-(2**70), IndexError, [str(-(2**70))]),
    (10**5000, IndexError, ["16610 bits"]),
    (-(10**5000), IndexError, ["16610 bits"]),
    (np.uint64(2**64 - 1), IndexError, [str(2**64 - 1)]),
    (1.0, TypeError, ["integer", "float 1.0"]),
    (np.array([1]), TypeError, ["integer"]),
    (np.array(1.0), TypeError, ["integer"]),
    ("h", TypeError, ["str 'h'"]),
    (None, TypeError, ["NoneType"]),
    (True, TypeError, ["True"]),
    (np.False_, TypeError, ["False"]),
    ([0], TypeError, ["list"]),
    (1j, TypeError, ["complex"]),
])  # fmt: skip


test_bad_counts = wrong_calls("sample", "n", [
    (-1, ValueError, ["at least 0", "-1"]),
    (-(10**5000), ValueError, ["at least 0", "bits"]),
    (2**63, ValueError, ["at most"]),
    (10**5000, ValueError, ["at most", "bits"]),
    (2.0, TypeError, ["integer", "float"]),
    ("4", TypeError, ["str"]),
    (None, TypeError, ["NoneType"]),
    (True, TypeError, ["True"]),
    ([4], TypeError, ["list"]),
], begins="n must be")  # fmt: skip


def test_counts_beyond_memory_leave_the_streams(box):
    for stream in (None, np.random.default_rng(0)):
        box.refuses("sample", MemoryError, n=2**47, rng=stream)


test_bad_rngs = wrong_calls("sample", "rng", bad.RNGS, begins="rng must be ")
test_bad_rngs_of_a_new_one = wrong_calls("new", "rng", bad.RNGS, begins="rng must be ", of=NEW)


def test_more_outputs_than_inputs_cannot_be_fed_back(backend):
    rnn = SimpleRNN(3, 4, 5, rng=0, backend=backend)
    words = ["output_size must be at most input_size = 3, got 5"]
    refused(lambda: rnn.sample(np.zeros((4, 1)), 0, 2), ValueError, words)


test_bad_sizes = wrong_calls(
    "new", ["input_size", "hidden_size", "output_size"], [*bad.COUNTS, bad.NONE], of=NEW
)


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
@pytest.mark.parametrize(
    "sizes", [(1, 2**22, 1), (1, 2**40, 1), (2**47, 1, 1), (1, 1, 2**47), (2**40, 2**40, 1)]
)
@pytest.mark.skipif(sys.maxsize < 2**60, reason="sizes for 64-bit systems")
def test_weights_beyond_memory_leave_the_streams(sizes, rng):
    refused(lambda: SimpleRNN(*sizes, rng=rng), (MemoryError, ValueError), ["do not fit in memory"], rng=rng)


test_bad_dtypes = wrong_calls("new", "dtype", bad.DTYPES, of=NEW)


test_bad_backends = wrong_calls("new", "backend", bad.BACKENDS, of=NEW)


def test_keyword_only_arguments(box):
    with pytest.raises(TypeError):
        SimpleRNN(2, 3, 2, np.float32)
    a = box.good
    with pytest.raises(TypeError):
        box.rnn.loss_and_grads(a["inputs"], a["targets"], a["h_prev"], "step")
    with pytest.raises(TypeError):
        box.rnn.sample(a["h"], 0, 3, np.random.default_rng(0))


def test_the_first_bad_argument_stops_everything(box):
    """A bad last argument is found before anything is computed or updated."""
    box.refuses("train_step", ValueError, ["h_prev"], h_prev=np.zeros((H, 2)), lr=1e3)
    box.refuses("train_step", IndexError, ["targets[8]"], targets=[0] * (T - 1) + [Q])
    box.refuses("update_weights", ValueError, ["grads[4]"],
                grads=(*box.good["grads"][:4], np.zeros((Q + 1, 1))))  # fmt: skip


def test_a_call_after_an_error_is_as_good_as_any(backend, dtype):
    box, other = Box(backend, dtype), Box(backend, dtype)
    for wrong in ({"inputs": []}, {"targets": [Q] * T}, {"h_prev": None}, {"lr": math.nan}, {"clip": "x"}):
        with pytest.raises((ValueError, IndexError, TypeError)):
            box.call("train_step", **wrong)
    assert box.call("train_step")[0] == other.call("train_step")[0]
    assert bits(*parameters(box.rnn)) == bits(*parameters(other.rnn))


def test_the_package_error_is_public():
    assert issubclass(fastrnn.BackendUnavailable, RuntimeError)
