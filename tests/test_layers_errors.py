"""Every bad argument of `RNN`: an error that names it and what came, and nothing modified."""

import math
from functools import partial

import bad_arguments as bad
import numpy as np
import pytest
from refusals import (
    Calls,
    Changed,
    New,
    assert_unchanged,
    cases,
    changed,
    refused,
    snapshot,
    without,
    wrong_calls,
)
from support import bits

from fastrnn import RNN

T, N = bad.BATCH
D, H, L = 4, 6, 2
NEW = New(RNN, input_size=D, hidden_size=H)


class Box(Calls):
    """A layer after a forward and a backward pass, good arguments, and calls with some of them replaced."""

    def __init__(self, backend, dtype=np.float32, **options):
        self.rnn = RNN(D, H, L, dropout=0.2, dtype=dtype, rng=3, backend=backend, **options)
        directions = 1 + self.rnn.bidirectional
        rng = np.random.default_rng(0)
        steps = (N, T) if self.rnn.batch_first else (T, N)
        self.good = {
            "x": rng.normal(size=(*steps, D)), "h0": rng.normal(size=(L * directions, N, H)),
            "lengths": np.array([5, 1, 3]), "grad_output": rng.normal(size=(*steps, directions * H)),
            "grad_h_n": rng.normal(size=(L * directions, N, H)), "strict": True,
            "state_dict": {name: W + 1 for name, W in self.rnn.state_dict().items()},
        }  # fmt: skip
        self.call("forward")
        self.call("backward")

    def call(self, method, **bad):
        a = self.good | bad
        return {
            "forward": lambda: self.rnn.forward(a["x"], a["h0"], lengths=a["lengths"]),
            "backward": lambda: self.rnn.backward(a["grad_output"], a["grad_h_n"]),
            "load_state_dict": lambda: self.rnn.load_state_dict(a["state_dict"], strict=a["strict"]),
        }[method]()

    def watched(self):
        rnn = self.rnn
        return {**self.good, "parameters": rnn.parameters, "grads": rnn.grads, "rng": rnn.rng,
                "training": rnn.training}  # fmt: skip

    def refuses(self, *args, **bad):
        """As everywhere; and what `backward` knows of the forward pass before is still there."""
        before = snapshot(self.watched())
        text = super().refuses(*args, **bad)
        self.call("backward")
        assert_unchanged(before, self.watched(), "in what backward knows of the forward pass")
        return text


@pytest.fixture
def box(backend):
    return Box(backend)


test_bad_inputs = wrong_calls("forward", "x", [
    (np.zeros((T, N, D + 1)), ValueError, [f"(T, N, {D})", f"(T, {D})", f"({T}, {N}, {D + 1})"]),
    (np.zeros((T, N, D, 1)), ValueError, [f"({T}, {N}, {D}, 1)"]),
    (np.zeros((0, N, D)), ValueError, ["at least one time step", f"(0, {N}, {D})"]),
    (np.zeros((0, 0, D)), ValueError, ["at least one time step", f"(0, 0, {D})"]),
    (np.zeros((T, N, 0)), ValueError, [f"({T}, {N}, 0)"]),
    (np.zeros((T, N)), ValueError, [f"({T}, {N})"]),
    (np.zeros((0, D)), ValueError, ["at least one time step", f"(0, {D})"]),
    (np.zeros(D), ValueError, [f"({D},)"]),
    ([], ValueError, ["(0,)"]),
    (1.5, ValueError, ["()"]),
    (3, ValueError, ["int 3"]),
    (None, TypeError, ["None"]),
    ("0120", TypeError, ["str"]),
    ({}, TypeError, ["dict"]),
    (object(), TypeError, ["object"]),
    (np.zeros((T, N, D), complex), TypeError, ["complex128"]),
    (np.zeros((T, N, D), bool), TypeError, ["real numbers, or integers as class indices", "got ndarray of dtype bool",
                                            "give one-hot vectors as floats, x.astype(float)"]),
    (np.zeros((T, N), bool), TypeError, ["bool", "x.astype(float)"]),
    (np.zeros(T, bool), TypeError, ["bool", "x.astype(float)"]),
    ([[True] * D] * T, TypeError, ["list of dtype bool", "x.astype(float)"]),
    (np.zeros((T, N, D), object), TypeError, ["object"]),
    (np.zeros((T, N, D), "M8[s]"), TypeError, ["datetime64"]),
    ([[["a"] * D] * N] * T, TypeError, ["<U1"]),
    (np.zeros((0, N), int), ValueError, ["at least one time step", f"(0, {N})"]),
    (np.zeros((0, 0), int), ValueError, ["at least one time step", "(0, 0)"]),
    (np.zeros(0, int), ValueError, ["at least one time step", "(0,)"]),
    (np.zeros((T, N, D + 1), int), ValueError, [f"({T}, {N}, {D + 1})"]),
    ([[0, 1], [2]], ValueError, ["array"]),
])  # fmt: skip


@pytest.mark.parametrize("shape", [(N, 0, D), (0, 0, D)])
def test_the_axis_without_time_steps_with_batch_first(shape, backend):
    box = Box(backend, batch_first=True)
    words = ["x must have at least one time step", str(shape)]
    box.refuses("forward", ValueError, words, x=np.zeros(shape))
    box.refuses("forward", ValueError, ["at least one time step", str(shape[:2])], x=np.zeros(shape[:2], int))


def test_an_empty_batch_has_empty_states_and_lengths(box):
    for x in (np.zeros((T, 0, D)), np.zeros((T, 0), int)):
        box.refuses("forward", ValueError, [f"h0 must have shape ({L}, 0, {H})"], x=x, lengths=None)
        box.refuses("forward", ValueError, ["lengths must have shape (0,)"], x=x, h0=None)


def test_two_names_of_the_first_state(box):
    x, h0 = box.good["x"], box.good["h0"]
    for call in (box.rnn.forward, box.rnn):
        refused(partial(call, x, h0, hx=h0), TypeError, watched=box.watched,
                begins="h0 and hx are two names of one argument: give one of them")  # fmt: skip
        refused(partial(call, x, hx=h0[:1]), ValueError, begins="h0 must have shape", watched=box.watched)


def test_the_shape_that_is_wanted_is_that_of_the_option(backend):
    box = Box(backend, batch_first=True, bidirectional=True)
    box.refuses("forward", ValueError, [f"(N, T, {D})", f"({N}, {T}, {D + 1})"], x=np.zeros((N, T, D + 1)))
    box.refuses("forward", ValueError, ["h0", f"({2 * L}, {N}, {H})"], h0=np.zeros((L, N, H)))
    box.refuses("backward", ValueError, ["grad_output", f"({N}, {T}, {2 * H})"],
                grad_output=np.zeros((T, N, 2 * H)))  # fmt: skip
    box.refuses("backward", ValueError, ["grad_h_n", f"({2 * L}, {N}, {H})"], grad_h_n=np.zeros((L, N, H)))


@cases([
    *bad.indices(D),
    (np.array([0, 1, 4, 9]), "[2]", "4"),
    ([0, -9], "[1]", "-9"),
], ("value", "place", "shown"))  # fmt: skip
def test_indices_out_of_bounds(value, place, shown, box):
    """The place is that in the user's own array."""
    h0 = None if np.ndim(value) == 1 else box.good["h0"]
    words = [f"x{place} is {shown}", f"[-{D}, {D})"]
    box.refuses("forward", IndexError, words, x=value, h0=h0, lengths=None)


def test_the_place_of_an_index_with_batch_first(backend):
    box = Box(backend, batch_first=True)
    words = [f"x[2, 4] is 99, outside [-{D}, {D})"]
    box.refuses("forward", IndexError, words, x=bad.with_index(99, 4, 2).T, lengths=None)


def test_indices_past_the_end_are_not_read(box):
    """Padding may be any integer; one step earlier it is out of bounds."""
    padded = bad.with_index(77, 3, 2)
    padded[1:, 1] = -100
    padded[3:, 2] = np.iinfo(np.int64).min
    kept = padded.copy()
    box.rnn.eval()
    output, h_n = box.call("forward", x=padded)
    assert np.array_equal(padded, kept)
    assert bits(output, h_n) == bits(*box.call("forward", x=np.where(np.abs(padded) > D, 1, padded)))
    box.call("backward")
    padded[2, 2] = 77
    box.refuses("forward", IndexError, ["x[2, 2] is 77"], x=padded)


BAD_STATES = bad.states(L, N, H)
test_bad_states = wrong_calls("forward", "h0", BAD_STATES)
test_bad_gradients_of_states = wrong_calls("backward", "grad_h_n", BAD_STATES)


test_bad_gradients_of_the_output = wrong_calls("backward", "grad_output", [
    (np.zeros((T, N)), ValueError, [f"({T}, {N}, {H})", f"({T}, {N})"]),
    (np.zeros((N, T, H)), ValueError, [f"({N}, {T}, {H})"]),
    (np.zeros((T + 1, N, H)), ValueError, [f"({T + 1}, {N}, {H})"]),
    (np.zeros((T, N, 2 * H)), ValueError, [f"({T}, {N}, {2 * H})"]),
    (np.zeros((1, 1, 1)), ValueError, ["(1, 1, 1)"]),
    (1.0, ValueError, ["()"]),
    (np.zeros((T, N, H), complex), TypeError, ["complex128"]),
    (np.zeros((T, N, H), bool), TypeError, ["bool"]),
    ("grad", TypeError, ["str"]),
])  # fmt: skip


test_bad_lengths = wrong_calls("forward", "lengths", [
    ([5, 1], ValueError, [f"({N},)", "(2,)"]),
    ([5, 1, 1, 1], ValueError, ["(4,)"]),
    ([[5, 1, 1]], ValueError, ["(1, 3)"]),
    (5, ValueError, ["()"]),
    ([], ValueError, ["(0,)"]),
    ([5, 0, 3], ValueError, ["lengths[1] is 0", f"[1, {T}]"]),
    ([5, 1, -3], ValueError, ["lengths[2] is -3", f"[1, {T}]"]),
    ([T + 1, 1, 3], ValueError, [f"lengths[0] is {T + 1}", f"[1, {T}]"]),
    (np.array([1, 2**64 - 1, 1], np.uint64), ValueError, [f"lengths[1] is {2**64 - 1}"]),
    (np.array([1, 2, -128], np.int8), ValueError, ["lengths[2] is -128"]),
    ([5.0, 1.0, 3.0], TypeError, ["integers", "float64"]),
    ([True, True, True], TypeError, ["bool"]),
    (["5", "1", "3"], TypeError, ["<U1"]),
    ([None, 1, 1], TypeError, ["object"]),
    ([[5], [1, 2], [3]], ValueError, ["array"]),
    ("511", ValueError, ["()"]),
], begins="lengths")  # fmt: skip


def test_one_sequence_has_no_lengths(box):
    box.refuses("forward", ValueError, begins="lengths ", x=np.zeros((T, D)), h0=None, lengths=[T])


@pytest.mark.parametrize("shape", [(L, 1, H), (L, N, H), (L + 1, H), (L, H + 1), (H,)])
def test_the_state_of_one_sequence_has_no_batch(shape, box):
    box.refuses("forward", ValueError, [f"({L}, {H})"], begins="h0 ", x=np.zeros((T, D)), h0=np.zeros(shape),
                lengths=None)  # fmt: skip


def test_gradients_of_one_sequence_have_no_batch(box):
    box.call("forward", x=np.zeros((T, D)), h0=None, lengths=None)
    good = {"grad_output": np.zeros((T, H)), "grad_h_n": np.zeros((L, H))}
    box.good |= good
    box.call("backward")
    for name, g in good.items():
        box.refuses("backward", ValueError, begins=f"{name} must have shape {g.shape}", **{name: g[:, None]})


def test_backward_before_forward(backend):
    rnn = RNN(D, H, rng=0, backend=backend)
    with pytest.raises(RuntimeError, match="forward"):
        rnn.backward(np.zeros((T, N, H)))
    assert rnn.grads == {}
    with pytest.raises(ValueError, match=r"^x "):
        rnn.forward(np.zeros(3))
    with pytest.raises(RuntimeError, match="forward"):
        rnn.backward(np.zeros((T, N, H)))


# Weights


# Names and shapes are looked at before anything is copied.
test_bad_state_dicts = wrong_calls("load_state_dict", "state_dict", [
    (without("weight_hh_l1"), ValueError, ["missing: weight_hh_l1"]),
    (without("bias_hh_l0", "bias_ih_l1"), ValueError, ["missing: bias_hh_l0, bias_ih_l1"]),
    (Changed(lambda good: {}), ValueError, ["missing: weight_ih_l0"]),
    (changed(weight_ih_l2=np.zeros((H, H))), ValueError, ["unexpected: 'weight_ih_l2'"]),
    (changed(weight_ih_l0_reverse=np.zeros((H, D))), ValueError, ["unexpected: 'weight_ih_l0_reverse'"]),
    (changed(weight_ih_l0=np.zeros((D, H))), ValueError, ["weight_ih_l0", f"({H}, {D})", f"({D}, {H})"]),
    (changed(bias_ih_l1=np.zeros((H, 1))), ValueError, ["bias_ih_l1", f"({H},)", f"({H}, 1)"]),
    (changed(bias_hh_l1=0.0), ValueError, ["bias_hh_l1", "()"]),
    (changed(weight_hh_l1=np.zeros((H, H), complex)), TypeError, ["weight_hh_l1", "complex128"]),
    (changed(weight_hh_l1=np.zeros((H, H), bool)), TypeError, ["weight_hh_l1", "bool"]),
    (changed(weight_hh_l1=None), TypeError, ["weight_hh_l1", "NoneType"]),
    (changed(weight_hh_l1=[[0.0], [0.0, 1.0]]), TypeError, ["weight_hh_l1", "array"]),
    (Changed(lambda good: None), TypeError, ["mapping", "NoneType"]),
    (Changed(lambda good: list(good.values())), TypeError, ["mapping", "list"]),
], begins="state_dict")  # fmt: skip


test_bad_state_dicts_that_need_not_be_complete = wrong_calls("load_state_dict", "state_dict", [
    (changed(weight_ih_l0=np.zeros((D, H))), ValueError, ["weight_ih_l0", f"({H}, {D})", f"({D}, {H})"]),
    (Changed(lambda good: {"bias_hh_l1": np.zeros((H, 1))}), ValueError, ["bias_hh_l1", f"({H}, 1)"]),
    (Changed(lambda good: {"bias_hh_l1": None, "other": 1}), TypeError, ["bias_hh_l1", "NoneType"]),
    (Changed(lambda good: list(good.values())), TypeError, ["mapping", "list"]),
], begins="", strict=False)  # fmt: skip


def test_a_strict_that_is_no_bool(box):
    box.refuses("load_state_dict", TypeError, begins="strict must be a bool, got", strict=None)


def test_a_state_dict_of_other_options(backend):
    """Biases for a layer without, one direction for a layer of two, and so on."""
    plain = RNN(D, H, rng=0, backend=backend)
    for options in ({"bias": False}, {"bidirectional": True}, {"num_layers": 2}):
        other = RNN(D, H, rng=0, backend=backend, **options)
        for target, source in ((plain, other), (other, plain)):
            given = {name: W + 1 for name, W in source.state_dict().items()}
            refused(
                partial(target.load_state_dict, given), ValueError, match="missing|unexpected", target=target
            )


@pytest.mark.parametrize("method", ["forward", "backward"])
@cases([
    ("weight_ih_l0", np.zeros((H, D)), TypeError, ["float32", "float64"]),
    ("weight_hh_l1", np.zeros((H, H + 1), np.float32), ValueError, [f"({H}, {H})", f"({H}, {H + 1})"]),
    ("bias_hh_l1", None, TypeError, ["NoneType"]),
], ("name", "value", "error", "words"))  # fmt: skip
def test_bad_parameters(name, value, error, words, method, box):
    """What users put into `parameters` is looked at again in every call."""
    parameters, good = box.rnn.parameters, box.rnn.parameters[name]

    def refuses(error, words):
        refused(lambda: box.call(method), error, words, x=box.good["x"], grads=box.rnn.grads, rng=box.rnn.rng)

    parameters[name] = value
    refuses(error, [f"parameters[{name!r}]", *words])
    parameters[name] = good
    gradients = bits(*box.rnn.grads.values())
    box.call("backward")
    assert bits(*box.rnn.grads.values()) == gradients
    del parameters[name]
    refuses(ValueError, [name])
    parameters |= {name: good, "extra": good}
    refuses(ValueError, ["unexpected: 'extra'"])


test_bad_sizes = wrong_calls(
    "new", ["input_size", "hidden_size", "num_layers", "num_threads"], bad.COUNTS, of=NEW
)


test_bad_flags = wrong_calls("new", ["bias", "batch_first", "bidirectional"], bad.FLAGS, of=NEW)


test_bad_dropout = wrong_calls(
    "new",
    "dropout",
    [
        *bad.NUMBERS,
        bad.NONE,
        (-0.1, ValueError, ["-0.1"]),
        (1.5, ValueError, ["1.5"]),
        (math.inf, ValueError, ["inf"]),
    ],
    of=NEW,
)


test_bad_nonlinearities = wrong_calls("new", "nonlinearity", bad.NONLINEARITIES, of=NEW)


test_bad_dtypes = wrong_calls("new", "dtype", bad.DTYPES, of=NEW)


test_bad_backends = wrong_calls("new", "backend", bad.BACKENDS, of=NEW)


test_bad_rngs = wrong_calls("new", "rng", bad.RNGS, of=NEW)


@pytest.mark.parametrize("sizes", [(2**40, 2**40), (1, 2**48), (2**48, 1), (10, 2**47)], ids=str)
def test_weights_that_do_not_fit_in_memory(sizes):
    rng = np.random.default_rng(0)
    refused(lambda: RNN(*sizes, rng=rng), (MemoryError, ValueError), ["do not fit in memory"], rng=rng)


@pytest.mark.parametrize(
    ("name", "value"),
    [("input_size", 5), ("hidden_size", 5), ("num_layers", 2), ("nonlinearity", "relu"), ("bias", False),
     ("batch_first", True), ("bidirectional", True), ("dropout", 0.5), ("dtype", np.float64)],
)  # fmt: skip
def test_what_is_fixed_cannot_be_assigned(name, value):
    rnn = RNN(D, H, rng=0)
    with pytest.raises(AttributeError):
        setattr(rnn, name, value)


def test_num_threads_may_be_changed():
    rnn = RNN(D, H, rng=0)
    rnn.num_threads = 3
    for wrong in (0, 1.0, "2", True):
        with pytest.raises((TypeError, ValueError), match=r"^num_threads "):
            rnn.num_threads = wrong
        assert rnn.num_threads == 3
    rnn.num_threads = None


def test_keyword_only_arguments(box):
    with pytest.raises(TypeError):
        RNN(D, H, 1, "tanh", True, False, 0.0, False, np.float32)
    with pytest.raises(TypeError):
        box.rnn.forward(box.good["x"], box.good["h0"], [T] * N)


def test_a_call_after_an_error_is_as_good_as_any(backend):
    box, other = Box(backend), Box(backend)
    for wrong in ({"x": []}, {"x": bad.with_index(D, 0, N - 1)}, {"h0": np.zeros(3)}, {"lengths": [0] * N},
                {"x": np.zeros((T + 1, N, D + 1))}, {"x": np.zeros((T, D))}):  # fmt: skip
        with pytest.raises((ValueError, IndexError, TypeError)):
            box.call("forward", **wrong)
    with pytest.raises(ValueError, match="grad_output"):
        box.call("backward", grad_output=np.zeros(3))
    assert bits(*box.call("forward")) == bits(*other.call("forward"))
    assert bits(*box.call("backward")) == bits(*other.call("backward"))
    assert bits(*box.rnn.grads.values()) == bits(*other.rnn.grads.values())
