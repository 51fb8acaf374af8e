"""Every bad input: an error that names the argument and what came, and nothing modified."""

import copy
import math
import re
import sys
from fractions import Fraction

import numpy as np
import pytest
from support import bits, pair, parameters, sequence, stream_state

import fastrnn
from fastrnn import SimpleRNN

T, D, H, Q = 9, 4, 11, 3


class Box:
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

    def state(self):
        good = self.good
        steps = [s.array for s in (good["hs"], good["ps"])] + [good["xs"].indices]
        return (
            bits(
                *parameters(self.rnn), *steps, *good["grads"], good["inputs"], good["targets"], good["h_prev"]
            ),
            [id(W) for W in parameters(self.rnn)],
            stream_state(),
        )

    def refuses(self, method, error, words, **bad):
        """The call raises `error` whose text holds all `words`, and leaves everything as it was."""
        before = self.state()
        kept = {k: v.copy() for k, v in bad.items() if type(v) is np.ndarray}
        with pytest.raises(error) as caught:
            self.call(method, **bad)
        text = str(caught.value)
        for word in words:
            assert word in text, f"{word!r} is not in {text!r}"
        assert len(text) < 500
        assert self.state() == before
        for k, v in kept.items():
            assert bits(v) == bits(bad[k])
        return text


@pytest.fixture
def box(backend):
    return Box(backend)


def cases(table):
    return pytest.mark.parametrize("case", table, ids=[str(i) for i in range(len(table))])


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


@pytest.mark.parametrize("method", ["forward", "loss_and_grads", "train_step"])
@cases(BAD_SEQUENCES)
def test_bad_inputs(case, method, box):
    value, error, words = case
    box.refuses(method, error, ["inputs", *words], inputs=value)


@pytest.mark.parametrize("method", ["forward", "loss_and_grads", "train_step"])
@cases(BAD_INDICES)
def test_input_indices_out_of_bounds(case, method, box):
    value, position, shown = case
    words = ["inputs["] if position is None else [f"inputs[{position}] is {shown}"]
    box.refuses(method, IndexError, [*words, f"[-{D}, {D})"], inputs=value)


@pytest.mark.parametrize("method", ["backward", "loss_and_grads", "train_step"])
@cases(BAD_SEQUENCES)
def test_bad_targets(case, method, box):
    value, error, words = case
    box.refuses(method, error, ["targets", *words], targets=value)


@pytest.mark.parametrize("method", ["loss_and_grads", "train_step"])
@cases(BAD_INDICES)
def test_targets_out_of_bounds(case, method, box):
    value, position, shown = case
    words = ["targets["] if position is None else [f"targets[{position}] is {shown}"]
    box.refuses(method, IndexError, [*words, f"[-{Q}, {Q})"], targets=value, inputs=[0] * len(value))


def marks(*counts):
    """One-hot bools that mark so many classes at each time step."""
    return np.arange(Q) < np.array(counts)[:, None]


@pytest.mark.parametrize("method", ["backward", "loss_and_grads", "train_step"])
@cases([
    (marks(*[1] * (T - 1), 2), ValueError, ["mark one class each", f"targets[{T - 1}] marks 2"]),
    (marks(1, 0, *[1] * (T - 2)), ValueError, ["targets[1] marks 0"]),
    (marks(*[1] * T)[:, :, None][:, :, [0, 0]], ValueError, ["of bools", f"(T, {Q}, 1)", f"({T}, {Q}, 2)"]),
    (np.ones((T, Q + 1), bool), ValueError, [f"(T, {Q})", f"({T}, {Q + 1})"]),
    (marks(*[1] * (T - 1)), ValueError, [f"length {T}", f"got {T - 1}"]),
    (np.zeros((0, Q), bool), ValueError, [f"(0, {Q})"]),
])  # fmt: skip
def test_bad_one_hot_targets(case, method, box):
    value, error, words = case
    box.refuses(method, error, ["targets", *words], targets=value)


def test_target_bounds_are_the_outputs_in_backward(box):
    targets = [0] * T
    targets[6] = Q
    box.refuses("backward", IndexError, [f"targets[6] is {Q}", f"[-{Q}, {Q})"], targets=targets)
    targets[6] = -Q
    box.call("backward", targets=targets)


@pytest.mark.parametrize("method", ["backward", "loss_and_grads", "train_step"])
@pytest.mark.parametrize("length", [1, T - 1, T + 1])
def test_targets_of_another_length(length, method, box):
    box.refuses(method, ValueError, ["targets", f"length {T}", f"got {length}"], targets=[0] * length)


@pytest.mark.parametrize("method", ["forward", "loss_and_grads", "train_step"])
@cases([
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
def test_bad_input_vectors(case, method, box):
    value, error, words = case
    box.refuses(method, error, ["inputs", *words], inputs=value)


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


@pytest.mark.parametrize("method", ["forward", "loss_and_grads", "train_step", "sample"])
@cases(BAD_STATES)
def test_bad_states(case, method, box):
    value, error, words = case
    name = "h" if method == "sample" else "h_prev"
    text = box.refuses(method, error, words, **{name: value})
    assert text.startswith(f"{name} ")


BAD_NUMBERS = [
    (math.nan, ValueError, ["nan"]),
    (np.float32("nan"), ValueError, ["nan"]),
    (None, TypeError, ["NoneType"]),
    ("0.1", TypeError, ["str '0.1'"]),
    (True, TypeError, ["bool"]),
    (np.True_, TypeError, ["number"]),
    (0.1j, TypeError, ["complex"]),
    ([0.1], TypeError, ["list [0.1]"]),
    (np.array([0.1]), TypeError, ["array([0.1])"]),
    (np.array(0.1j), TypeError, ["number"]),
    ({}, TypeError, ["dict"]),
    (10**400, TypeError, ["int"]),
    (10**5000, TypeError, ["int"]),
    (Fraction(1, 10), TypeError, ["Fraction"]),
]


@pytest.mark.parametrize("method", ["update_weights", "train_step"])
@cases([*BAD_NUMBERS, (math.inf, ValueError, ["finite", "inf"]), (-math.inf, ValueError, ["-inf"])])
def test_bad_learning_rates(case, method, box):
    value, error, words = case
    box.refuses(method, error, ["lr must be", *words], lr=value)


@pytest.mark.parametrize("method", ["update_weights", "train_step"])
def test_a_learning_rate_that_float32_cannot_hold(method, backend):
    rnn = SimpleRNN(3, 4, 3, dtype=np.float32, rng=0, backend=backend)
    before = bits(*parameters(rnn))
    args = ([0, 1], [1, 2], np.zeros((4, 1)))
    if method == "update_weights":
        args = (rnn.loss_and_grads(*args)[1],)
    with pytest.raises(ValueError, match=r"lr must be at most 3\.4e\+38, the largest float32, got 1e\+39"):
        getattr(rnn, method)(*args, lr=1e39)
    assert bits(*parameters(rnn)) == before


@pytest.mark.parametrize("method", ["loss_and_grads", "train_step"])
@pytest.mark.parametrize("clip", ["step", "value", "norm", None])
@cases([*BAD_NUMBERS, (0, ValueError, ["positive", "0.0"]), (-5.0, ValueError, ["positive", "-5.0"]),
        (-math.inf, ValueError, ["positive"])])  # fmt: skip
def test_bad_thresholds(case, clip, method, box):
    value, error, words = case
    box.refuses(method, error, ["clip_threshold must be", *words], clip_threshold=value, clip=clip)


@pytest.mark.parametrize("method", ["loss_and_grads", "train_step"])
@pytest.mark.parametrize(
    "clip", ["", "Step", "none", "global", b"step", 0, 1, True, False, [], {}, ["step"], 5.0]
)
def test_bad_clip_modes(clip, method, box):
    box.refuses(method, ValueError, ["clip must be one of", "'step', 'value', 'norm'", repr(clip)], clip=clip)


def test_clip_names_of_any_string_type(box):
    box.call("train_step", clip=np.str_("value"))


def broken(place, value):
    """The good gradients with one of them replaced."""
    return lambda good: tuple(value if i == place else g for i, g in enumerate(good))


@cases([
    (lambda good: good[:4], ValueError, ["grads", "5", "got 4"]),
    (lambda good: (*good, good[0]), ValueError, ["got 6"]),
    (lambda good: (), ValueError, ["got 0"]),
    (lambda good: None, TypeError, ["NoneType"]),
    (lambda good: 1.0, TypeError, ["float"]),
    (lambda good: "abcde", TypeError, ["str"]),
    (lambda good: dict(enumerate(good)), TypeError, ["dict"]),
    (lambda good: set("abcde"), TypeError, ["set"]),
    (lambda good: (g for g in good), TypeError, ["generator"]),
    (lambda good: np.zeros((5, 3)), TypeError, ["ndarray"]),
    (lambda good: good[::-1], ValueError, ["grads[0] (dWxh)", f"({H}, {D})"]),
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
])  # fmt: skip
def test_bad_gradients(case, box):
    make, error, words = case
    box.refuses("update_weights", error, words, grads=make(box.good["grads"]))


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
])  # fmt: skip
def test_bad_mappings(case, name, box):
    change, error, words = case
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


@cases([
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
def test_bad_start_indices(case, box):
    value, error, words = case
    box.refuses("sample", error, ["start_index", *words], start_index=value)


@cases([
    (-1, ValueError, ["at least 0", "-1"]),
    (-(10**5000), ValueError, ["at least 0", "bits"]),
    (2**63, ValueError, ["at most"]),
    (10**5000, ValueError, ["at most", "bits"]),
    (2.0, TypeError, ["integer", "float"]),
    ("4", TypeError, ["str"]),
    (None, TypeError, ["NoneType"]),
    (True, TypeError, ["True"]),
    ([4], TypeError, ["list"]),
])  # fmt: skip
def test_bad_counts(case, box):
    value, error, words = case
    text = box.refuses("sample", error, words, n=value)
    assert text.startswith("n must be")


def test_counts_beyond_memory_leave_the_streams(box):
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    for stream in (None, rng):
        box.refuses("sample", MemoryError, [], n=2**47, rng=stream)
    assert rng.bit_generator.state == before


BAD_RNGS = [
    (-1, ValueError, ["at least 0", "-1"]),
    (-(10**5000), ValueError, ["bits"]),
    (1.5, TypeError, ["float"]),
    ("seed", TypeError, ["str"]),
    (True, TypeError, ["bool"]),
    ([1, 2], TypeError, ["list"]),
    (np.random.RandomState(0), TypeError, ["RandomState"]),
    (np.random, TypeError, ["module"]),
    (np.random.PCG64(0), TypeError, ["PCG64"]),
]


@cases(BAD_RNGS)
def test_bad_rngs(case, box):
    value, error, words = case
    box.refuses("sample", error, ["rng must be", *words], rng=value)
    before = stream_state()
    with pytest.raises(error, match="rng must be"):
        SimpleRNN(2, 3, 2, rng=value)
    assert stream_state() == before


def test_more_outputs_than_inputs_cannot_be_fed_back(backend):
    rnn = SimpleRNN(3, 4, 5, rng=0, backend=backend)
    before = stream_state()
    with pytest.raises(ValueError, match=r"output_size must be at most input_size = 3, got 5"):
        rnn.sample(np.zeros((4, 1)), 0, 2)
    assert stream_state() == before


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "output_size"])
@cases([
    (0, ValueError, ["at least 1", "got 0"]),
    (-3, ValueError, ["got -3"]),
    (2**62, ValueError, ["at most"]),
    (10**5000, ValueError, ["at most", "bits"]),
    (2.0, TypeError, ["integer", "float"]),
    ("4", TypeError, ["str"]),
    (None, TypeError, ["NoneType"]),
    (True, TypeError, ["True"]),
    (np.True_, TypeError, ["True"]),
    ([4], TypeError, ["list"]),
    (np.array([4]), TypeError, ["ndarray"]),
])  # fmt: skip
def test_bad_sizes(case, name):
    value, error, words = case
    before = stream_state()
    with pytest.raises(error) as caught:
        SimpleRNN(**({"input_size": 2, "hidden_size": 3, "output_size": 2} | {name: value}))
    assert all(word in str(caught.value) for word in [f"{name} must be", *words])
    assert stream_state() == before


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
@pytest.mark.parametrize(
    "sizes", [(1, 2**22, 1), (1, 2**40, 1), (2**47, 1, 1), (1, 1, 2**47), (2**40, 2**40, 1)]
)
@pytest.mark.skipif(sys.maxsize < 2**60, reason="sizes for 64-bit systems")
def test_weights_beyond_memory_leave_the_streams(sizes, rng):
    before = stream_state()
    mine = rng and rng.bit_generator.state
    with pytest.raises((MemoryError, ValueError), match="do not fit in memory"):
        SimpleRNN(*sizes, rng=rng)
    assert stream_state() == before
    assert mine == (rng and rng.bit_generator.state)


@pytest.mark.parametrize(
    "dtype",
    [None, "float16", int, np.int64, complex, bool, object, "foo", 3, ">f8", ">f4", np.longdouble, [], {"a": 1},
     [("a", "f8")], "f8,f8"],
)  # fmt: skip
def test_bad_dtypes(dtype):
    if dtype is np.longdouble and np.dtype(np.longdouble) == np.float64:
        pytest.skip("long double is float64 here")
    before = stream_state()
    with pytest.raises(TypeError, match=re.escape(f"dtype must be float32 or float64, got {dtype!r}")):
        SimpleRNN(2, 3, 2, dtype=dtype)
    assert stream_state() == before


@pytest.mark.parametrize("name", ["", "Numba", "cuda", 3, b"numpy", [], True])
def test_bad_backends(name):
    before = stream_state()
    with pytest.raises(ValueError, match=re.escape(f"got {name!r}")) as caught:
        SimpleRNN(2, 3, 2, backend=name)
    assert all(known in str(caught.value) for known in ("'cython'", "'numba'", "'numpy'"))
    assert stream_state() == before


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
    for bad in ({"inputs": []}, {"targets": [Q] * T}, {"h_prev": None}, {"lr": math.nan}, {"clip": "x"}):
        with pytest.raises((ValueError, IndexError, TypeError)):
            box.call("train_step", **bad)
    assert box.call("train_step")[0] == other.call("train_step")[0]
    assert bits(*parameters(box.rnn)) == bits(*parameters(other.rnn))


def test_the_package_error_is_public():
    assert issubclass(fastrnn.BackendUnavailable, RuntimeError)
