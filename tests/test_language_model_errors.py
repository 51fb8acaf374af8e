"""Every bad argument of `LanguageModel`: an error that names it and what came, and nothing modified."""

import math
from functools import partial

import bad_arguments as bad
import numpy as np
import pytest
from refusals import Calls, Changed, New, cases, changed, refused, rows, without, wrong_calls
from support import bits

from fastrnn import LanguageModel, optim

T, N = bad.BATCH
Q, H, L = 4, 6, 2
NEW = New(LanguageModel, vocab_size=Q, hidden_size=H)


class Box(Calls):
    """A model with good arguments, and calls of every method with some of them replaced."""

    def __init__(self, backend, dtype=np.float32):
        self.lm = LanguageModel(Q, H, L, dropout=0.2, dtype=dtype, rng=3, backend=backend)
        rng = np.random.default_rng(0)
        x, y = rng.integers(-Q, Q, size=(2, T, N))
        y[y < 0] = -100
        h0 = rng.normal(size=(L, N, H)).astype(dtype)
        self.optimizer = optim.SGD(0.1, momentum=0.5, backend=backend)
        self.lm.train_step(x, y, h0, self.optimizer)
        self.good = {
            "x": x, "y": y, "h0": h0, "reduction": "mean", "optimizer": self.optimizer, "clip": "norm",
            "clip_threshold": 5.0, "h": h0, "start": x[0].copy(), "n": 4, "temperature": 1.0, "top_k": None,
            "top_p": None, "rng": np.random.default_rng(5), "N": 3,
            "state_dict": {name: W + 1 for name, W in self.lm.state_dict().items()},
        }  # fmt: skip

    def call(self, method, **bad):
        a, lm = self.good | bad, self.lm
        reduction = {"reduction": a["reduction"]}
        clip = {"clip": a["clip"], "clip_threshold": a["clip_threshold"]}
        choice = {name: a[name] for name in ("temperature", "top_k", "top_p", "rng")}
        return {
            "loss_and_grads": lambda: lm.loss_and_grads(a["x"], a["y"], a["h0"], **reduction),
            "train_step": lambda: lm.train_step(a["x"], a["y"], a["h0"], a["optimizer"], **clip),
            "loss": lambda: lm.loss(a["x"], a["y"], a["h0"], **reduction),
            "forward": lambda: lm.forward(a["x"], a["h0"]),
            "sample": lambda: lm.sample(a["h"], a["start"], a["n"], **choice),
            "load_state_dict": lambda: lm.load_state_dict(a["state_dict"]),
            "initial_state": lambda: lm.initial_state(a["N"]),
        }[method]()

    def watched(self):
        lm = self.lm
        return {**self.good, "parameters": lm.parameters, "grads": lm.grads, "lm.rng": lm.rng,
                "grad_norm": lm.grad_norm, "training": lm.training}  # fmt: skip


@pytest.fixture
def box(backend):
    return Box(backend)


WITH_BATCH = ["loss_and_grads", "train_step", "loss", "forward"]
WITH_TARGETS = WITH_BATCH[:3]

# (what comes, error, words of the message besides the argument's name)
BAD_BATCHES = [
    ([], ValueError, ["(T, N)", "(0,)"]),
    (np.empty((0, N), int), ValueError, ["at least one", f"(0, {N})"]),
    (np.empty((T, 0), int), ValueError, ["at least one", f"({T}, 0)"]),
    (np.zeros(T, int), ValueError, ["(T, N)", f"({T},)"]),
    (np.zeros((T, N, 1), int), ValueError, ["(T, N)", f"({T}, {N}, 1)"]),
    (np.zeros((T, N, Q), np.float32), ValueError, [f"({T}, {N}, {Q})"]),
    (3, ValueError, ["int 3"]),
    ("0120", ValueError, ["str '0120'"]),
    ({}, ValueError, ["dict"]),
    (object(), ValueError, ["object"]),
    (np.zeros((T, N)), TypeError, ["integers", "float64"]),
    (np.zeros((T, N), bool), TypeError, ["bool"]),
    (np.zeros((T, N), complex), TypeError, ["complex128"]),
    (np.zeros((T, N), object), TypeError, ["object"]),
    ([["a"] * N] * T, TypeError, ["<U1"]),
    ([[0.5] * N] * T, TypeError, ["float64"]),
    (np.zeros((T, N), "m8[s]"), TypeError, ["timedelta64"]),
    ([[0, 1], [2]], ValueError, ["array"]),
]


test_bad_inputs = wrong_calls(WITH_BATCH, "x", [*BAD_BATCHES, (None, ValueError, ["None"])])


test_bad_targets = wrong_calls(WITH_TARGETS, "y", [*BAD_BATCHES, (None, TypeError, ["None"])])


@pytest.mark.parametrize(
    ("method", "name"), [(method, "x") for method in WITH_BATCH] + [(method, "y") for method in WITH_TARGETS]
)
@cases(bad.indices(Q), ("value", "place", "shown"))
def test_indices_out_of_bounds(value, place, shown, name, method, box):
    bounds = f"[-{Q}, {Q})" if name == "x" else f"[0, {Q}); -100 marks what does not count"
    box.refuses(method, IndexError, [bounds], begins=f"{name}{place} is {shown}", **{name: value})


@pytest.mark.parametrize("method", WITH_TARGETS)
@pytest.mark.parametrize("value", [-1, -Q, -99, -101])
@pytest.mark.parametrize("kind", [np.int8, np.int64, ">i4", list])
def test_negative_targets(kind, value, method, box):
    """They do not count from the end: that would train another class."""
    y = np.where(np.arange(T * N).reshape(T, N) % 2, -100, 0)
    y[3, 1] = value
    y = y.tolist() if kind is list else y.astype(kind)
    box.refuses(method, IndexError, [f"y[3, 1] is {value}, outside [0, {Q}); -100 marks"], y=y)


@pytest.mark.parametrize("method", WITH_BATCH)
@pytest.mark.parametrize("value", [2**63, 2**64, -(2**70)])
def test_huge_python_integers(value, method, box):
    """Not what int64 holds: refused as out of bounds or as no integers, never taken for another number."""
    x = [[0] * N, [0, value, 0]] + [[0] * N] * (T - 2)
    box.refuses(method, (IndexError, TypeError), begins="x", x=x)


test_targets_of_another_shape = wrong_calls(
    WITH_TARGETS, "y",
    [(np.zeros(shape, int), ValueError, [f"({T}, {N})", str(shape)])
     for shape in ((T, 1), (1, N), (N, T), (T + 1, N), (T, N + 1))],
    begins="y must have ",
)  # fmt: skip


BAD_STATES = bad.states(L, N, H)
test_bad_states = wrong_calls(WITH_BATCH, "h0", BAD_STATES)
test_bad_states_to_sample_from = wrong_calls("sample", "h", BAD_STATES)


test_bad_reductions = wrong_calls(
    ["loss_and_grads", "loss"], "reduction",
    rows(ValueError, ["", "Mean", "none", "average", b"mean", 0, 1, True, None, [], {}, ["sum"]],
         "must be one of", "'mean', 'sum'", "{!r}"),
)  # fmt: skip


test_bad_clip_modes = wrong_calls(
    "train_step", "clip",
    rows(ValueError, ["", "step", "Norm", "none", "global", b"norm", 0, 1, True, False, [], {}, ["norm"], 5.0],
         "must be one of", "'norm'", "'value'", "{!r}"),
)  # fmt: skip


def test_clip_names_of_any_string_type(box):
    box.call("train_step", clip=np.str_("value"))


@pytest.mark.parametrize("clip", ["value", "norm", None])
@cases([*bad.NUMBERS, bad.NONE, (0, ValueError, ["positive", "0.0"]), (-5.0, ValueError, ["positive", "-5.0"]),
        (-math.inf, ValueError, ["positive"])])  # fmt: skip
def test_bad_thresholds(value, error, words, clip, box):
    box.refuses("train_step", error, words, begins="clip_threshold must be", clip_threshold=value, clip=clip)


test_bad_optimizers = wrong_calls(
    "train_step", "optimizer",
    [(value, TypeError, ["step", type(value).__name__]) for value in (None, "adam", 0.1, object(), {}, optim, range(3))],
)  # fmt: skip


def test_an_optimizer_that_refuses_leaves_the_parameters(box):
    """One that belongs to another model: its error comes through, no parameter moves."""
    other = LanguageModel(Q, H + 1, L, rng=0, backend=box.lm._backend)
    used = optim.SGD(0.1, momentum=0.9)
    other.train_step(box.good["x"], box.good["y"], None, used)
    refused(partial(box.call, "train_step", optimizer=used), (TypeError, ValueError), ["weight_ih_l0"],
            parameters=box.lm.parameters, used=used)  # fmt: skip


# Sampling


test_bad_starts = wrong_calls("sample", "start", [
    ([], ValueError, ["empty"]),
    (np.empty(0, int), ValueError, ["empty"]),
    (0, ValueError, ["one-dimensional", "int 0"]),
    (np.zeros((N, 1), int), ValueError, [f"({N}, 1)"]),
    (None, ValueError, ["NoneType"]),
    ("012", ValueError, ["str"]),
    (np.zeros(N), TypeError, ["integers", "float64"]),
    ([True] * N, TypeError, ["bool"]),
    ([0, None, 1], TypeError, ["object"]),
    (["a"] * N, TypeError, ["<U1"]),
    ([0, [1], 2], ValueError, ["array"]),
])  # fmt: skip


@cases([
    ([0, Q, 0], 1, str(Q)), ([0, 0, -Q - 1], 2, str(-Q - 1)), (np.array([0, 0, 2**64 - 1], np.uint64), 2,
     str(2**64 - 1)), ([2**70, 0, 0], 0, str(2**70)),
], ("value", "position", "shown"))  # fmt: skip
def test_starts_out_of_bounds(value, position, shown, box):
    box.refuses("sample", IndexError, [f"start[{position}] is {shown}", f"[-{Q}, {Q})"], start=value)


@pytest.mark.parametrize("count", [1, N - 1, N + 1])
def test_starts_and_states_of_different_batches(count, box):
    words = [f"({L}, {count}, {H})", f"({L}, {N}, {H})"]
    box.refuses("sample", ValueError, words, begins="h ", start=[0] * count)


test_bad_numbers_of_draws = wrong_calls(
    "sample", "n",
    [*bad.INTEGERS, bad.NONE, (-1, ValueError, ["at least 0", "-1"]), (2**80, ValueError, ["at most"])],
)  # fmt: skip


test_bad_temperatures = wrong_calls("sample", "temperature", [
    *bad.NUMBERS, bad.NONE, (-0.1, ValueError, ["at least 0", "-0.1"]), (math.inf, ValueError, ["finite"]),
    (-math.inf, ValueError, ["inf"]),
])  # fmt: skip


test_bad_top_k = wrong_calls("sample", "top_k", bad.COUNTS)


test_bad_top_p = wrong_calls("sample", "top_p", [
    *bad.NUMBERS, (0.0, ValueError, ["positive", "0.0"]), (-0.5, ValueError, ["positive", "-0.5"]),
    (1.01, ValueError, ["at most 1", "1.01"]), (math.inf, ValueError, ["inf"]),
])  # fmt: skip


test_bad_rngs = wrong_calls("sample", "rng", bad.RNGS)
test_bad_rngs_of_a_new_one = wrong_calls("new", "rng", bad.RNGS, of=NEW)


test_bad_batch_sizes = wrong_calls("initial_state", "N", [*bad.COUNTS, bad.NONE])


# Weights


# Names and shapes are looked at before anything is copied.
test_bad_state_dicts = wrong_calls("load_state_dict", "state_dict", [
    (without("weight_out"), ValueError, ["missing: weight_out"]),
    (without("bias_hh_l0", "bias_out"), ValueError, ["missing: bias_hh_l0, bias_out"]),
    (Changed(lambda good: {}), ValueError, ["missing: weight_ih_l0"]),
    (changed(weight_ih_l2=np.zeros((H, H))), ValueError, ["unexpected: 'weight_ih_l2'"]),
    (changed(extra=None), ValueError, ["unexpected: 'extra'"]),
    (Changed(lambda good: {f"rnn.{name}": W for name, W in good.items()}), ValueError, ["missing", "unexpected"]),
    (changed(weight_out=np.zeros((H, Q))), ValueError, ["weight_out", f"({Q}, {H})", f"({H}, {Q})"]),
    (changed(bias_out=np.zeros((Q, 1))), ValueError, ["bias_out", f"({Q},)", f"({Q}, 1)"]),
    (changed(bias_hh_l1=0.0), ValueError, ["bias_hh_l1", "()"]),
    (changed(weight_hh_l0=np.zeros((H, H + 1))), ValueError, ["weight_hh_l0", f"({H}, {H})"]),
    (changed(weight_hh_l0=np.zeros((H, H), complex)), TypeError, ["weight_hh_l0", "complex128"]),
    (changed(weight_hh_l0=np.zeros((H, H), bool)), TypeError, ["weight_hh_l0", "bool"]),
    (changed(weight_hh_l0=np.zeros((H, H), object)), TypeError, ["weight_hh_l0", "object"]),
    (changed(weight_out=None), TypeError, ["weight_out", "NoneType"]),
    (changed(weight_out="abc"), TypeError, ["weight_out", "str"]),
    (changed(weight_out=[[0.0], [0.0, 1.0]]), TypeError, ["weight_out", "array"]),
    (Changed(lambda good: None), TypeError, ["mapping", "NoneType"]),
    (Changed(lambda good: list(good.values())), TypeError, ["mapping", "list"]),
    (Changed(lambda good: "abc"), TypeError, ["mapping", "str"]),
], begins="state_dict")  # fmt: skip


@pytest.mark.parametrize("method", [*WITH_BATCH, "sample"])
@cases([
    ("weight_ih_l0", np.zeros((H, Q)), TypeError, ["float32", "float64"]),
    ("weight_hh_l1", np.zeros((H, H + 1), np.float32), ValueError, [f"({H}, {H})", f"({H}, {H + 1})"]),
    ("bias_out", np.zeros((Q, 1), np.float32), ValueError, [f"({Q},)"]),
    ("weight_out", None, TypeError, ["NoneType"]),
    ("weight_out", [[0.0] * H] * Q, TypeError, ["ndarray", "list"]),
], ("name", "value", "error", "words"))  # fmt: skip
def test_bad_parameters(name, value, error, words, method, box):
    """What users put into `parameters` is looked at again in every call."""
    good = box.lm.parameters[name]
    box.lm.parameters[name] = value
    refused(partial(box.call, method), error, [f"parameters[{name!r}]", *words], good=box.good)
    box.lm.parameters[name] = good
    box.call(method)


@pytest.mark.parametrize("method", [*WITH_BATCH, "sample"])
def test_missing_and_unexpected_parameters(method, box):
    good = box.lm.parameters.pop("bias_out")
    refused(partial(box.call, method), ValueError, ["bias_out"], good=box.good)
    box.lm.parameters |= {"bias_out": good, "extra": good}
    refused(partial(box.call, method), ValueError, ["unexpected: 'extra'"], good=box.good)


test_bad_sizes = wrong_calls(
    "new",
    ["vocab_size", "hidden_size", "num_layers", "num_threads", "recompute_every"],
    bad.COUNTS,
    of=NEW,
)


test_bad_dropout = wrong_calls(
    "new",
    "dropout",
    [*bad.NUMBERS, bad.NONE, (-0.1, ValueError, ["-0.1"]), (1.5, ValueError, ["1.5"])],
    of=NEW,
)


test_bad_nonlinearities = wrong_calls("new", "nonlinearity", bad.NONLINEARITIES, of=NEW)


test_bad_dtypes = wrong_calls("new", "dtype", bad.DTYPES, of=NEW)


test_bad_backends = wrong_calls("new", "backend", bad.BACKENDS, of=NEW)


@pytest.mark.parametrize(
    ("name", "value"), [("vocab_size", 5), ("hidden_size", 5), ("num_layers", 2), ("nonlinearity", "relu"),
                        ("dropout", 0.5), ("dtype", np.float64)]
)  # fmt: skip
def test_what_is_fixed_cannot_be_assigned(name, value):
    lm = LanguageModel(Q, H, rng=0)
    with pytest.raises(AttributeError):
        setattr(lm, name, value)


@pytest.mark.parametrize("mode", [None, 1, "True", []])
def test_bad_modes(mode):
    lm = LanguageModel(Q, H, rng=0)
    with pytest.raises(TypeError, match=f"^mode must be a bool, got {type(mode).__name__}"):
        lm.train(mode)
    assert lm.training


def test_keyword_only_arguments(box):
    a = box.good
    with pytest.raises(TypeError):
        LanguageModel(Q, H, 1, "tanh")
    with pytest.raises(TypeError):
        box.lm.loss_and_grads(a["x"], a["y"], a["h0"], "sum")
    with pytest.raises(TypeError):
        box.lm.train_step(a["x"], a["y"], a["h0"], a["optimizer"], "norm")
    with pytest.raises(TypeError):
        box.lm.sample(a["h"], a["start"], 3, 1.0)


# After an error


def test_a_call_after_an_error_is_as_good_as_any(backend):
    """Also of a shape that the work space has not seen, or has seen in another call."""
    box, other = Box(backend), Box(backend)
    for wrong in (
        {"x": []}, {"y": bad.with_index(Q, T - 1, N - 1)}, {"h0": np.zeros(3)}, {"clip": "x"}, {"optimizer": None},
        {"x": np.zeros((T + 1, N), int)}, {"clip_threshold": 0},
    ):  # fmt: skip
        with pytest.raises((ValueError, IndexError, TypeError)):
            box.call("train_step", **wrong)
    for method in ("train_step", "loss_and_grads", "sample", "train_step"):
        got, want = box.call(method), other.call(method)
        assert bits(got[0], got[-1]) == bits(want[0], want[-1])
    assert bits(*box.lm.parameters.values()) == bits(*other.lm.parameters.values())


def test_a_state_is_not_lost_to_an_error(box):
    """The buffers that h_n takes turns with are not turned by a call that fails."""
    _, h = box.call("train_step")
    kept = h.copy()
    for wrong in ({"y": bad.with_index(Q, 0, 0)}, {"clip": "x"}, {"h0": np.zeros(3)}, {"clip_threshold": -1}):
        with pytest.raises((ValueError, IndexError)):
            box.call("train_step", **wrong)
        assert bits(h) == bits(kept)
    box.call("train_step", h0=h)
    assert bits(h) == bits(kept)


def test_nan_in_the_state_is_the_callers_business(box):
    """NumPy's result in training; where a draw has no probabilities, an error and nothing drawn."""
    state = np.full((L, N, H), np.nan, np.float32)
    assert math.isnan(box.call("loss", h0=state)[0])
    box.refuses("sample", ValueError, ["index 0 of 4", "not numbers", "NaN"], h=state)
