"""Every bad argument of `LanguageModel`: an error that names it and what came, and nothing modified."""

import copy
import math
import re

import numpy as np
import pytest
from support import bits, stream_state

from fastrnn import LanguageModel, optim

T, N, Q, H, L = 5, 3, 4, 6, 2


class Box:
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
            "top_p": None, "rng": np.random.default_rng(5), "state_dict": self.lm.state_dict(), "N": 3,
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

    def state(self):
        lm, good = self.lm, self.good
        momentum = [W for slot in self.optimizer.state_dict()["state"].values() for W in slot.values()]
        arrays = [value for value in good.values() if type(value) is np.ndarray]
        return (
            bits(*lm.parameters.values(), *lm.grads.values(), *momentum, *arrays, lm.grad_norm),
            [id(W) for W in lm.parameters.values()],
            copy.deepcopy(lm.rng.bit_generator.state),
            copy.deepcopy(good["rng"].bit_generator.state),
            stream_state(),
            lm.training,
            self.optimizer.state_dict()["step"],
        )

    def refuses(self, method, error, words, **bad):
        """The call raises `error` whose text holds all `words`, and leaves everything as it was."""
        before = self.state()
        kept = {k: v.copy() for k, v in bad.items() if type(v) is np.ndarray}
        with pytest.raises(error) as caught:
            self.call(method, **bad)
        assert caught.type is error
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
    (None, Exception, ["None"]),
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


@pytest.mark.parametrize("method", WITH_BATCH)
@cases(BAD_BATCHES)
def test_bad_inputs(case, method, box):
    value, error, words = case
    if value is None:
        error = ValueError
    text = box.refuses(method, error, words, x=value)
    assert text.startswith("x ")


@pytest.mark.parametrize("method", WITH_TARGETS)
@cases(BAD_BATCHES)
def test_bad_targets(case, method, box):
    value, error, words = case
    if value is None:
        error = TypeError
    text = box.refuses(method, error, words, y=value)
    assert text.startswith("y ")


def with_index(value, t, n, dtype=np.int64):
    out = np.zeros((T, N), dtype)
    out[t, n] = value
    return out


@pytest.mark.parametrize("method", WITH_BATCH)
@pytest.mark.parametrize("name", ["x", "y"])
@cases([
    (with_index(Q, 0, 0), "[0, 0]", str(Q)),
    (with_index(-Q - 1, 2, 1), "[2, 1]", str(-Q - 1)),
    (with_index(200, 4, 2, np.uint8), "[4, 2]", "200"),
    (with_index(2**63 - 1, 1, 2), "[1, 2]", str(2**63 - 1)),
    (with_index(-(2**63), 1, 2), "[1, 2]", str(-(2**63))),
    (with_index(2**64 - 1, 3, 1, np.uint64), "[3, 1]", str(2**64 - 1)),
    (with_index(2**64 - 1, 3, 1, ">u8"), "[3, 1]", str(2**64 - 1)),
    (with_index(2**63, 3, 1, np.uint64), "[3, 1]", str(2**63)),
    (with_index(300, 3, 0, ">i2"), "[3, 0]", "300"),
    (np.asfortranarray(with_index(9, 0, 2)), "[0, 2]", "9"),
    (with_index(9, 1, 2).tolist(), "[1, 2]", "9"),
])  # fmt: skip
def test_indices_out_of_bounds(case, name, method, box):
    if name == "y" and method == "forward":
        return
    value, place, shown = case
    bounds = f"[-{Q}, {Q})" if name == "x" else f"[0, {Q}); -100 marks what does not count"
    text = box.refuses(method, IndexError, [f"{name}{place}", shown, bounds], **{name: value})
    assert text.startswith(f"{name}{place} is {shown}")


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
    before = box.state()
    with pytest.raises((IndexError, TypeError), match=r"^x"):
        box.call(method, x=x)
    assert box.state() == before


@pytest.mark.parametrize("method", WITH_TARGETS)
@pytest.mark.parametrize("shape", [(T, 1), (1, N), (N, T), (T + 1, N), (T, N + 1)])
def test_targets_of_another_shape(shape, method, box):
    box.refuses(method, ValueError, ["y must have", f"({T}, {N})", str(shape)], y=np.zeros(shape, int))


BAD_STATES = [
    (np.zeros((L, N), np.float32), ValueError, [f"({L}, {N}, {H})", f"({L}, {N})"]),
    (np.zeros((N, H), np.float32), ValueError, [f"({N}, {H})"]),
    (np.zeros((1, N, H), np.float32), ValueError, [f"(1, {N}, {H})"]),
    (np.zeros((L + 1, N, H), np.float32), ValueError, [f"({L + 1}, {N}, {H})"]),
    (np.zeros((L, N + 1, H), np.float32), ValueError, [f"({L}, {N + 1}, {H})"]),
    (np.zeros((L, 1, H), np.float32), ValueError, [f"({L}, 1, {H})"]),
    (np.zeros((L, N, H - 1), np.float32), ValueError, [f"({L}, {N}, {H - 1})"]),
    (np.zeros((L, H, N), np.float32), ValueError, [f"({L}, {H}, {N})"]),
    (np.zeros((L, N, H, 1), np.float32), ValueError, [f"({L}, {N}, {H}, 1)"]),
    (np.zeros((0, N, H), np.float32), ValueError, [f"(0, {N}, {H})"]),
    (0.0, ValueError, ["()"]),
    ([], ValueError, ["(0,)"]),
    (np.zeros((L, N, H), complex), TypeError, ["complex128"]),
    (np.zeros((L, N, H), bool), TypeError, ["bool"]),
    (np.zeros((L, N, H), object), TypeError, ["object"]),
    ("state", TypeError, ["str 'state'"]),
    ({}, TypeError, ["dict"]),
    ([[["0"] * H] * N] * L, TypeError, ["<U1"]),
    ([[[0.0] * H] * N, [[0.0] * H] * (N - 1)], ValueError, ["array"]),
]


@pytest.mark.parametrize("method", [*WITH_BATCH, "sample"])
@cases(BAD_STATES)
def test_bad_states(case, method, box):
    value, error, words = case
    name = "h" if method == "sample" else "h0"
    text = box.refuses(method, error, words, **{name: value})
    assert text.startswith(f"{name} ")


@pytest.mark.parametrize("method", ["loss_and_grads", "loss"])
@pytest.mark.parametrize(
    "reduction", ["", "Mean", "none", "average", b"mean", 0, 1, True, None, [], {}, ["sum"]]
)
def test_bad_reductions(reduction, method, box):
    box.refuses(method, ValueError, ["reduction must be one of", "'mean', 'sum'", repr(reduction)],
                reduction=reduction)  # fmt: skip


@pytest.mark.parametrize(
    "clip", ["", "step", "Norm", "none", "global", b"norm", 0, 1, True, False, [], {}, ["norm"], 5.0]
)
def test_bad_clip_modes(clip, box):
    box.refuses("train_step", ValueError, ["clip must be one of", "'norm'", "'value'", repr(clip)], clip=clip)


def test_clip_names_of_any_string_type(box):
    box.call("train_step", clip=np.str_("value"))


BAD_NUMBERS = [
    (math.nan, ValueError, ["nan"]),
    (np.float32("nan"), ValueError, ["nan"]),
    ("0.1", TypeError, ["str '0.1'"]),
    (True, TypeError, ["bool"]),
    (np.True_, TypeError, ["number"]),
    (0.1j, TypeError, ["complex"]),
    ([0.1], TypeError, ["list [0.1]"]),
    (np.array([0.1]), TypeError, ["array([0.1])"]),
    ({}, TypeError, ["dict"]),
]
NONE = (None, TypeError, ["NoneType"])


@pytest.mark.parametrize("clip", ["value", "norm", None])
@cases([*BAD_NUMBERS, NONE, (0, ValueError, ["positive", "0.0"]), (-5.0, ValueError, ["positive", "-5.0"]),
        (-math.inf, ValueError, ["positive"])])  # fmt: skip
def test_bad_thresholds(case, clip, box):
    value, error, words = case
    box.refuses("train_step", error, ["clip_threshold must be", *words], clip_threshold=value, clip=clip)


@pytest.mark.parametrize("optimizer", [None, "adam", 0.1, object(), {}, optim])
def test_bad_optimizers(optimizer, box):
    box.refuses("train_step", TypeError, ["optimizer", "step", type(optimizer).__name__], optimizer=optimizer)


def test_an_optimizer_that_refuses_leaves_the_parameters(box):
    """One that belongs to another model: its error comes through, no parameter moves."""
    other = LanguageModel(Q, H + 1, L, rng=0, backend=box.lm._backend)
    used = optim.SGD(0.1, momentum=0.9)
    other.train_step(box.good["x"], box.good["y"], None, used)
    before = bits(*box.lm.parameters.values())
    with pytest.raises((TypeError, ValueError), match="weight_ih_l0"):
        box.call("train_step", optimizer=used)
    assert bits(*box.lm.parameters.values()) == before


# Sampling


@cases([
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
def test_bad_starts(case, box):
    value, error, words = case
    text = box.refuses("sample", error, words, start=value)
    assert text.startswith("start ")


@cases([
    ([0, Q, 0], 1, str(Q)), ([0, 0, -Q - 1], 2, str(-Q - 1)), (np.array([0, 0, 2**64 - 1], np.uint64), 2,
     str(2**64 - 1)), ([2**70, 0, 0], 0, str(2**70)),
])  # fmt: skip
def test_starts_out_of_bounds(case, box):
    value, position, shown = case
    box.refuses("sample", IndexError, [f"start[{position}] is {shown}", f"[-{Q}, {Q})"], start=value)


@pytest.mark.parametrize("count", [1, N - 1, N + 1])
def test_starts_and_states_of_different_batches(count, box):
    text = box.refuses("sample", ValueError, [f"({L}, {count}, {H})", f"({L}, {N}, {H})"], start=[0] * count)
    assert text.startswith("h ")


BAD_COUNTS = [
    (1.0, TypeError, ["integer", "float"]),
    ("3", TypeError, ["str"]),
    (True, TypeError, ["True"]),
    ([3], TypeError, ["list"]),
    (np.array([3]), TypeError, ["ndarray"]),
]


@cases([*BAD_COUNTS, NONE, (-1, ValueError, ["at least 0", "-1"]), (2**80, ValueError, ["at most"])])
def test_bad_numbers_of_draws(case, box):
    value, error, words = case
    text = box.refuses("sample", error, words, n=value)
    assert text.startswith("n ")


@cases([*BAD_NUMBERS, NONE, (-0.1, ValueError, ["at least 0", "-0.1"]), (math.inf, ValueError, ["finite"]),
        (-math.inf, ValueError, ["inf"])])  # fmt: skip
def test_bad_temperatures(case, box):
    value, error, words = case
    text = box.refuses("sample", error, words, temperature=value)
    assert text.startswith("temperature ")


@cases([*BAD_COUNTS, (0, ValueError, ["at least 1", "0"]), (-3, ValueError, ["at least 1", "-3"])])
def test_bad_top_k(case, box):
    value, error, words = case
    text = box.refuses("sample", error, words, top_k=value)
    assert text.startswith("top_k ")


@cases([*BAD_NUMBERS, (0.0, ValueError, ["positive", "0.0"]), (-0.5, ValueError, ["positive", "-0.5"]),
        (1.01, ValueError, ["at most 1", "1.01"]), (math.inf, ValueError, ["inf"])])  # fmt: skip
def test_bad_top_p(case, box):
    value, error, words = case
    text = box.refuses("sample", error, words, top_p=value)
    assert text.startswith("top_p ")


@cases([
    (-1, ValueError, ["seed of at least 0", "-1"]), (1.0, TypeError, ["float"]), ("7", TypeError, ["str"]),
    (True, TypeError, ["bool"]), (np.random.RandomState(0), TypeError, ["RandomState"]),
    (np.random.PCG64(0), TypeError, ["PCG64"]),
])  # fmt: skip
def test_bad_rngs(case, box):
    value, error, words = case
    text = box.refuses("sample", error, words, rng=value)
    assert text.startswith("rng ")
    with pytest.raises(error, match=r"^rng "):
        LanguageModel(Q, H, rng=value)


@cases([*BAD_COUNTS, NONE, (0, ValueError, ["at least 1"]), (-1, ValueError, ["at least 1"])])
def test_bad_batch_sizes(case, box):
    value, error, words = case
    text = box.refuses("initial_state", error, words, N=value)
    assert text.startswith("N ")


# Weights


def changed(**new):
    return lambda good: good | new


def without(*names):
    return lambda good: {name: W for name, W in good.items() if name not in names}


@cases([
    (without("weight_out"), ValueError, ["missing: weight_out"]),
    (without("bias_hh_l0", "bias_out"), ValueError, ["missing: bias_hh_l0, bias_out"]),
    (lambda good: {}, ValueError, ["missing: weight_ih_l0"]),
    (changed(weight_ih_l2=np.zeros((H, H))), ValueError, ["unexpected: weight_ih_l2"]),
    (changed(extra=None), ValueError, ["unexpected: extra"]),
    (lambda good: {f"rnn.{name}": W for name, W in good.items()}, ValueError, ["missing", "unexpected"]),
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
    (lambda good: None, TypeError, ["mapping", "NoneType"]),
    (lambda good: list(good.values()), TypeError, ["mapping", "list"]),
    (lambda good: "abc", TypeError, ["mapping", "str"]),
])  # fmt: skip
def test_bad_state_dicts(case, box):
    """Names and shapes are looked at before anything is copied: the model is as it was."""
    make, error, words = case
    given = make({name: W + 1 for name, W in box.good["state_dict"].items()})
    box.refuses("load_state_dict", error, ["state_dict", *words], state_dict=given)


@pytest.mark.parametrize("method", [*WITH_BATCH, "sample"])
@cases([
    ("weight_ih_l0", np.zeros((H, Q)), TypeError, ["float32", "float64"]),
    ("weight_hh_l1", np.zeros((H, H + 1), np.float32), ValueError, [f"({H}, {H})", f"({H}, {H + 1})"]),
    ("bias_out", np.zeros((Q, 1), np.float32), ValueError, [f"({Q},)"]),
    ("weight_out", None, TypeError, ["NoneType"]),
    ("weight_out", [[0.0] * H] * Q, TypeError, ["ndarray", "list"]),
])  # fmt: skip
def test_bad_parameters(case, method, box):
    """What users put into `parameters` is looked at again in every call."""
    name, value, error, words = case
    good = box.lm.parameters[name]
    box.lm.parameters[name] = value
    with pytest.raises(error) as caught:
        box.call(method)
    assert f"parameters[{name!r}]" in str(caught.value)
    assert all(word in str(caught.value) for word in words)
    box.lm.parameters[name] = good
    box.call(method)


@pytest.mark.parametrize("method", [*WITH_BATCH, "sample"])
def test_missing_and_unexpected_parameters(method, box):
    good = box.lm.parameters.pop("bias_out")
    with pytest.raises(ValueError, match="bias_out"):
        box.call(method)
    box.lm.parameters["bias_out"] = good
    box.lm.parameters["extra"] = good
    with pytest.raises(ValueError, match="unexpected: extra"):
        box.call(method)


# Construction

GOOD = {"vocab_size": Q, "hidden_size": H}


@pytest.mark.parametrize(
    "name", ["vocab_size", "hidden_size", "num_layers", "num_threads", "recompute_every"]
)
@cases([*BAD_COUNTS, (0, ValueError, ["at least 1", "0"]), (-2, ValueError, ["at least 1", "-2"]),
        (2**80, ValueError, ["at most"])])  # fmt: skip
def test_bad_sizes(case, name):
    value, error, words = case
    rng = np.random.default_rng(0)
    before, mine = stream_state(), rng.bit_generator.state
    with pytest.raises(error) as caught:
        LanguageModel(**(GOOD | {name: value}), rng=rng)
    assert str(caught.value).startswith(f"{name} ")
    assert all(word in str(caught.value) for word in words)
    assert stream_state() == before
    assert rng.bit_generator.state == mine


@cases([*BAD_NUMBERS, NONE, (-0.1, ValueError, ["-0.1"]), (1.5, ValueError, ["1.5"])])
def test_bad_dropout(case):
    value, error, words = case
    rng = np.random.default_rng(0)
    mine = rng.bit_generator.state
    with pytest.raises(error) as caught:
        LanguageModel(Q, H, dropout=value, rng=rng)
    assert str(caught.value).startswith("dropout ")
    assert all(word in str(caught.value) for word in words)
    assert rng.bit_generator.state == mine


@pytest.mark.parametrize("nonlinearity", ["", "Tanh", "sigmoid", b"tanh", 0, None, True, [], np.tanh])
def test_bad_nonlinearities(nonlinearity):
    words = f"nonlinearity must be one of 'tanh', 'relu', got {nonlinearity!r}"
    with pytest.raises(ValueError, match=re.escape(words)):
        LanguageModel(Q, H, nonlinearity=nonlinearity)


@pytest.mark.parametrize("dtype", [None, "float16", int, complex, bool, object, "foo", ">f4", []])
def test_bad_dtypes(dtype):
    with pytest.raises(TypeError, match=re.escape(f"dtype must be float32 or float64, got {dtype!r}")):
        LanguageModel(Q, H, dtype=dtype)


@pytest.mark.parametrize("name", ["", "Numba", "cuda", 3, b"numpy", []])
def test_bad_backends(name):
    with pytest.raises(ValueError, match=re.escape(f"got {name!r}")) as caught:
        LanguageModel(Q, H, backend=name)
    assert all(known in str(caught.value) for known in ("'cython'", "'numba'", "'numpy'"))


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
    for bad in (
        {"x": []}, {"y": with_index(Q, T - 1, N - 1)}, {"h0": np.zeros(3)}, {"clip": "x"}, {"optimizer": None},
        {"x": np.zeros((T + 1, N), int)}, {"clip_threshold": 0},
    ):  # fmt: skip
        with pytest.raises((ValueError, IndexError, TypeError)):
            box.call("train_step", **bad)
    for method in ("train_step", "loss_and_grads", "sample", "train_step"):
        got, want = box.call(method), other.call(method)
        assert bits(got[0], got[-1]) == bits(want[0], want[-1])
    assert bits(*box.lm.parameters.values()) == bits(*other.lm.parameters.values())


def test_a_state_is_not_lost_to_an_error(box):
    """The buffers that h_n takes turns with are not turned by a call that fails."""
    _, h = box.call("train_step")
    kept = h.copy()
    for bad in ({"y": with_index(Q, 0, 0)}, {"clip": "x"}, {"h0": np.zeros(3)}, {"clip_threshold": -1}):
        with pytest.raises((ValueError, IndexError)):
            box.call("train_step", **bad)
        assert bits(h) == bits(kept)
    box.call("train_step", h0=h)
    assert bits(h) == bits(kept)


def test_nan_in_the_state_is_the_callers_business(box):
    """NumPy's result in training; where a draw has no probabilities, an error and nothing drawn."""
    bad = np.full((L, N, H), np.nan, np.float32)
    assert math.isnan(box.call("loss", h0=bad)[0])
    text = box.refuses("sample", ValueError, ["index 0 of 4", "not numbers"], h=bad)
    assert "NaN" in text
