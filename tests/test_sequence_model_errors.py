"""Every bad argument of `SequenceModel`: an error that names it and what came, and nothing modified."""

import math
from functools import partial

import bad_arguments as bad
import numpy as np
import pytest
from refusals import Calls, Changed, New, cases, changed, refused, rows, without, wrong_calls
from support import bits

from fastrnn import SequenceModel, optim

T, N = bad.BATCH
D, Q, H, L = 4, 3, 6, 2
NEW = New(SequenceModel, input_size=D, hidden_size=H, output_size=Q)


class Box(Calls):
    """A model with good arguments, and calls of every method with some of them replaced."""

    def __init__(self, backend, dtype=np.float32, *, head="each", loss="mse", cell="rnn", classes=False):
        self.sm = SequenceModel(
            D, H, Q, L, cell=cell, dropout=0.2, head=head, loss=loss, dtype=dtype, rng=3, backend=backend
        )
        rng = np.random.default_rng(0)
        shape = (T, N) if head == "each" else (N,)
        x = rng.integers(-D, D, size=(T, N)) if classes else rng.normal(size=(T, N, D)).astype(dtype)
        y = rng.normal(size=(*shape, Q)).astype(dtype)
        if loss == "cross_entropy":
            y = rng.integers(Q, size=shape)
            y.flat[1] = -100
        h0 = [rng.normal(size=(L, N, H)).astype(dtype) for _ in range(2)]
        self.optimizer = optim.SGD(0.1, momentum=0.5, backend=backend)
        h0 = tuple(h0) if cell == "lstm" else h0[0]
        self.sm.train_step(x, y, h0, self.optimizer)
        self.good = {
            "x": x, "y": y, "h0": h0, "lengths": np.array([T, 1, 3]), "weights": np.ones(shape, dtype),
            "reduction": "mean", "optimizer": self.optimizer, "clip": "norm", "clip_threshold": 5.0, "N": 3,
            "state_dict": {name: W + 1 for name, W in self.sm.state_dict().items()},
        }  # fmt: skip

    def call(self, method, **bad):
        a, sm = self.good | bad, self.sm
        which = {"lengths": a["lengths"], "weights": a["weights"]}
        clip = {"clip": a["clip"], "clip_threshold": a["clip_threshold"]}
        return {
            "loss_and_grads": lambda: sm.loss_and_grads(
                a["x"], a["y"], a["h0"], **which, reduction=a["reduction"]
            ),
            "train_step": lambda: sm.train_step(a["x"], a["y"], a["h0"], a["optimizer"], **which, **clip),
            "loss": lambda: sm.loss(a["x"], a["y"], a["h0"], **which, reduction=a["reduction"]),
            "forward": lambda: sm.forward(a["x"], a["h0"], lengths=a["lengths"]),
            "load_state_dict": lambda: sm.load_state_dict(a["state_dict"]),
            "initial_state": lambda: sm.initial_state(a["N"]),
        }[method]()

    def watched(self):
        sm = self.sm
        return {**self.good, "parameters": sm.parameters, "grads": sm.grads, "sm.rng": sm.rng,
                "grad_norm": sm.grad_norm, "training": sm.training}  # fmt: skip


@pytest.fixture
def box(backend):
    return Box(backend)


@pytest.fixture
def classes(backend):
    """Classes in and out, an output for each step."""
    return Box(backend, loss="cross_entropy", classes=True)


@pytest.fixture
def last(backend):
    """A value for each sequence."""
    return Box(backend, head="last")


@pytest.fixture
def label(backend):
    """A class for each sequence."""
    return Box(backend, head="mean", loss="cross_entropy")


WITH_BATCH = ["loss_and_grads", "train_step", "loss", "forward"]
WITH_TARGETS = WITH_BATCH[:3]

# (what comes, error, words of the message besides the argument's name)
test_bad_inputs = wrong_calls(WITH_BATCH, "x", [
    ([], ValueError, ["(T, N, 4)", "(0,)"]),
    (np.empty((0, N, D)), ValueError, ["at least one time step", f"(0, {N}, {D})"]),
    (np.empty((0, N), int), ValueError, ["at least one time step", f"(0, {N})"]),
    (np.zeros((T, D)), ValueError, ["(T, N, 4)", f"({T}, {D})"]),
    (np.zeros((T, N, D + 1)), ValueError, ["(T, N, 4)", f"({T}, {N}, {D + 1})"]),
    (np.zeros((T, N, D, 1)), ValueError, ["(T, N, 4)", f"({T}, {N}, {D}, 1)"]),
    (np.zeros((T, N, D + 1), int), ValueError, ["(T, N, 4)", f"({T}, {N}, {D + 1})"]),
    (np.zeros((T, 0, D + 1)), ValueError, [f"({T}, 0, {D + 1})"]),
    (np.zeros(T, int), ValueError, ["(T, N)", f"({T},)"]),
    (3, ValueError, ["int 3"]),
    (np.zeros((T, N, D), bool), TypeError, ["bool", "floats"]),
    (np.zeros((T, N), bool), TypeError, ["bool"]),
    (np.zeros((T, N, D), complex), TypeError, ["complex128"]),
    (np.zeros((T, N, D), object), TypeError, ["object"]),
    (np.zeros((T, N, D), "m8[s]"), TypeError, ["timedelta64"]),
    ("0120", TypeError, ["str '0120'"]),
    ({}, TypeError, ["dict"]),
    (object(), TypeError, ["object"]),
    (None, TypeError, ["None"]),
    ([[["a"] * D] * N] * T, TypeError, ["<U1"]),
    ([[[0.0] * D] * N, [[0.0]] * N], ValueError, ["array"]),
])  # fmt: skip


@pytest.mark.parametrize("method", WITH_BATCH)
@cases(bad.indices(D), ("value", "place", "shown"))
def test_inputs_out_of_bounds(value, place, shown, method, box):
    words = [f"[-{D}, {D})"]
    box.refuses(method, IndexError, words, begins=f"x{place} is {shown}", x=value, lengths=None)
    lengths = [T] * (N - 1) + [T - 1]  # not those beyond the end
    if place != "[4, 2]":
        box.refuses(method, IndexError, words, begins=f"x{place} is {shown}", x=value, lengths=lengths)
    else:
        box.call(method, x=value, lengths=lengths)


@pytest.mark.parametrize("method", WITH_TARGETS)
@cases(bad.indices(Q), ("value", "place", "shown"))
def test_targets_out_of_bounds(value, place, shown, method, classes):
    words = [f"[0, {Q}); -100 marks what does not count"]
    for lengths in (None, [T] * (N - 1) + [T - 1]):
        if lengths is None or place != "[4, 2]":
            classes.refuses(
                method, IndexError, words, begins=f"y{place} is {shown}", y=value, lengths=lengths
            )
        else:
            classes.call(method, y=value, lengths=lengths)


@pytest.mark.parametrize("method", WITH_TARGETS)
@pytest.mark.parametrize("value", [-1, -Q, Q, -99, -101, 2**40])
@pytest.mark.parametrize("kind", [np.int64, ">i8", list])
def test_labels_out_of_bounds(kind, value, method, label):
    y = [0, -100, value]
    y = y if kind is list else np.array(y, kind)
    label.refuses(method, IndexError, [f"[0, {Q}); -100"], begins=f"y[2] is {value}", y=y)


BAD_VALUES = [
    (None, TypeError, ["None"]),
    ("ab", TypeError, ["str 'ab'"]),
    ({}, TypeError, ["dict"]),
    ([], ValueError, ["(0,)"]),
    (0.0, ValueError, ["()"]),
]
test_bad_values = wrong_calls(WITH_TARGETS, "y", [
    *BAD_VALUES,
    *[(np.zeros(shape), ValueError, [f"({T}, {N}, {Q})", str(shape)])
      for shape in ((T, N), (N, Q), (T, N, Q + 1), (T, N, 2 * Q), (N, T, Q), (T + 1, N, Q), (T, N, Q, 1), (0, N, Q))],
    *[(np.zeros((T, N, Q), kind), TypeError, [kind]) for kind in ("bool", "complex128", "object")],
])  # fmt: skip


@pytest.mark.parametrize("method", WITH_TARGETS)
@cases([
    *BAD_VALUES,
    *[(np.zeros(shape), ValueError, [f"({N}, {Q})", str(shape)])
      for shape in ((N,), (T, N, Q), (1, N, Q), (N, Q + 1), (N, 1), (N + 1, Q), (1, Q))],
    (np.zeros((N, Q), bool), TypeError, ["bool"]),
])  # fmt: skip
def test_bad_values_of_sequences(value, error, words, method, last):
    last.refuses(method, error, words, begins="y ", y=value)


@pytest.mark.parametrize("method", WITH_TARGETS)
@cases([
    (None, TypeError, ["None"]), (0, ValueError, [f"({N},)", "int 0"]), ([], ValueError, [f"({N},)", "(0,)"]),
    *[(np.zeros(shape, int), ValueError, [f"({N},)", str(shape)]) for shape in ((N, 1), (1, N), (T, N), (N + 1,))],
    (np.zeros(N), TypeError, ["integers", "float64"]), ([0.0] * N, TypeError, ["integers", "float64"]),
    ([True] * N, TypeError, ["bool"]), (["a"] * N, TypeError, ["<U1"]), ([0, None, 1], TypeError, ["object"]),
    ([0, [1], 2], ValueError, ["array"]), ("abc", ValueError, ["str 'abc'"]), ({}, ValueError, ["dict"]),
])  # fmt: skip
def test_bad_labels(value, error, words, method, label):
    label.refuses(method, error, words, begins="y ", y=value)


@pytest.mark.parametrize("method", WITH_TARGETS)
@cases([
    (None, TypeError, ["None"]),
    *[(np.zeros(shape, int), ValueError, [str(shape)]) for shape in ((N,), (T, N, 1), (T, 1), (N, T), (T + 1, N))],
    (np.zeros((T, N)), TypeError, ["integers", "float64"]), (np.zeros((T, N), bool), TypeError, ["bool"]),
])  # fmt: skip
def test_bad_classes(value, error, words, method, classes):
    classes.refuses(method, error, words, begins="y ", y=value)


test_bad_states = wrong_calls(WITH_BATCH, "h0", bad.states(L, N, H))


@pytest.mark.parametrize("method", WITH_BATCH)
@cases([
    (np.zeros((L, N, H)), TypeError, ["pair (h, c)", f"({L}, {N}, {H})"]),
    ((np.zeros((L, N, H)),), ValueError, ["pair", "1"]),
    ((np.zeros((L, N, H)), None), TypeError, ["NoneType"]),
    ((np.zeros((L, N, H)), np.zeros((1, N, H))), ValueError, [f"(1, {N}, {H})"]),
])  # fmt: skip
def test_bad_states_of_an_lstm(value, error, words, method, backend):
    Box(backend, cell="lstm").refuses(method, error, words, begins="h0", h0=value)


def test_states_of_two_directions(backend):
    sm = SequenceModel(D, H, Q, L, bidirectional=True, rng=0, backend=backend)
    with pytest.raises(
        ValueError, match=rf"^h0 must have shape \({2 * L}, {N}, {H}\), got \({L}, {N}, {H}\)"
    ):
        sm.forward(np.zeros((T, N, D)), np.zeros((L, N, H)))


test_bad_lengths = wrong_calls(WITH_BATCH, "lengths", [
    *[(value, ValueError, [f"({N},)", str(np.shape(value))])
      for value in ([], [1], [1] * (N + 1), [[1] * N], np.ones((N, 1), int), 3, "abc", {1, 2, 3})],
    ([1.0] * N, TypeError, ["integers", "float64"]), ([True] * N, TypeError, ["bool"]),
    ([1, None, 2], TypeError, ["object"]), (["1"] * N, TypeError, ["<U1"]), ([1j] * N, TypeError, ["complex128"]),
    ([1, [2], 3], ValueError, ["array"]), (np.ones(N, "m8[s]"), TypeError, ["timedelta64"]),
])  # fmt: skip


@pytest.mark.parametrize("method", WITH_BATCH)
@pytest.mark.parametrize("value", [0, -1, T + 1, 2**40])
def test_lengths_out_of_bounds(value, method, box):
    box.refuses(method, ValueError, [f"[1, {T}]"], begins=f"lengths[1] is {value}", lengths=[T, value, 0])


def test_lengths_of_unsigned_integers(box):
    lengths = np.array([1, 2**64 - 1, 1], np.uint64)
    box.refuses("loss", ValueError, [f"[1, {T}]"], begins=f"lengths[1] is {2**64 - 1}", lengths=lengths)


test_bad_weights = wrong_calls(WITH_TARGETS, "weights", [
    *[(np.ones(shape), ValueError, [f"({N},) or ({T}, {N})", str(shape)])
      for shape in ((T,), (N + 1,), (N, T), (T, N, 1), (1, N), (T, 1), (T, N, Q))],
    (1.0, ValueError, ["()"]), ([], ValueError, ["(0,)"]),
    (np.ones((T, N), complex), TypeError, ["complex128"]), (np.ones((T, N), object), TypeError, ["object"]),
    ("abc", TypeError, ["str 'abc'"]), ({}, TypeError, ["dict"]), ([[1.0], [1.0, 2.0]], ValueError, ["array"]),
])  # fmt: skip


@pytest.mark.parametrize("method", WITH_TARGETS)
@pytest.mark.parametrize("value", [-1.0, -0.25, math.nan, math.inf, -math.inf])
def test_weights_that_are_none(value, method, box, last):
    weights = np.ones((T, N))
    weights[0, 1] = value
    for kind in (np.float32, np.float64, list):
        given = weights.tolist() if kind is list else weights.astype(kind)
        shown = float(value) if kind is not np.float32 else np.float32(value)
        box.refuses(method, ValueError, ["finite", "at least 0", str(shown)], begins="weights[0, 1] must be",
                    weights=given)  # fmt: skip
        by_sequence = given[0]
        for one in (box, last):
            one.refuses(method, ValueError, [str(shown)], begins="weights[1] must be", weights=by_sequence)


@pytest.mark.parametrize("method", WITH_TARGETS)
@pytest.mark.parametrize("shape", [(T, N), (T,), (N, 1), (N, Q)])
def test_weights_of_sequences(shape, method, last):
    last.refuses(
        method, ValueError, [f"({N},)", str(shape)], begins="weights must have shape", weights=np.ones(shape)
    )


test_bad_reductions = wrong_calls(
    ["loss_and_grads", "loss"], "reduction",
    rows(ValueError, ["", "Mean", "none", b"mean", 0, True, None, [], {}], "must be one of", "'mean', 'sum'", "{!r}"),
)  # fmt: skip
test_bad_clip_modes = wrong_calls(
    "train_step", "clip",
    rows(ValueError, ["", "step", "Norm", b"norm", 0, True, [], 5.0], "must be one of", "'norm'", "'value'", "{!r}"),
)  # fmt: skip
test_bad_thresholds = wrong_calls(
    "train_step", "clip_threshold",
    [*bad.NUMBERS, bad.NONE, (0, ValueError, ["positive", "0.0"]), (-5.0, ValueError, ["positive", "-5.0"])],
)  # fmt: skip
test_bad_optimizers = wrong_calls(
    "train_step", "optimizer",
    [(value, TypeError, ["step", type(value).__name__]) for value in (None, "adam", 0.1, object(), {}, optim)],
)  # fmt: skip
test_bad_batch_sizes = wrong_calls("initial_state", "N", [*bad.COUNTS, bad.NONE])

test_bad_state_dicts = wrong_calls("load_state_dict", "state_dict", [
    (without("weight_out"), ValueError, ["missing: weight_out"]),
    (changed(weight_ih_l0_reverse=np.zeros((H, D))), ValueError, ["unexpected: 'weight_ih_l0_reverse'"]),
    (changed(weight_out=np.zeros((H, Q))), ValueError, ["weight_out", f"({Q}, {H})", f"({H}, {Q})"]),
    (changed(weight_hh_l0=np.zeros((H, H), complex)), TypeError, ["weight_hh_l0", "complex128"]),
    (Changed(lambda good: None), TypeError, ["mapping", "NoneType"]),
], begins="state_dict")  # fmt: skip


@pytest.mark.parametrize("method", WITH_BATCH)
@cases([
    ("weight_ih_l0", np.zeros((H, D)), TypeError, ["float32", "float64"]),
    ("weight_hh_l1", np.zeros((H, H + 1), np.float32), ValueError, [f"({H}, {H})", f"({H}, {H + 1})"]),
    ("bias_out", np.zeros((Q, 1), np.float32), ValueError, [f"({Q},)"]),
    ("weight_out", None, TypeError, ["NoneType"]),
], ("name", "value", "error", "words"))  # fmt: skip
def test_bad_parameters(name, value, error, words, method, box):
    good = box.sm.parameters[name]
    box.sm.parameters[name] = value
    refused(partial(box.call, method), error, [f"parameters[{name!r}]", *words], good=box.good)
    box.sm.parameters[name] = good
    box.call(method)


# The object itself


test_bad_sizes = wrong_calls(
    "new",
    ["input_size", "hidden_size", "output_size", "num_layers", "num_threads", "recompute_every"],
    bad.COUNTS,
    of=NEW,
)
test_bad_heads = wrong_calls(
    "new", "head", rows(ValueError, ["", "Last", "first", "all", None, 1, b"last", ["last"]], "must be one of",
                        "'each', 'last', 'mean'", "{!r}"), of=NEW,
)  # fmt: skip
test_bad_losses = wrong_calls(
    "new", "loss", rows(ValueError, ["", "MSE", "mae", None, 0, b"mse", ["mse"], max], "must be one of",
                        "'mse', 'cross_entropy', 'gaussian'", "{!r}"), of=NEW,
)  # fmt: skip
test_bad_cells = wrong_calls(
    "new", "cell", rows(ValueError, ["", "RNN", "tanh", None, 0, b"gru", ["gru"]], "must be one of",
                        "'rnn', 'gru', 'lstm'", "{!r}"), of=NEW,
)  # fmt: skip
test_bad_flags = wrong_calls("new", "bidirectional", bad.FLAGS, of=NEW)
test_bad_dropout = wrong_calls(
    "new", "dropout", [*bad.NUMBERS, bad.NONE, (-0.1, ValueError, ["-0.1"]), (1.5, ValueError, ["1.5"])], of=NEW
)  # fmt: skip
test_bad_nonlinearities = wrong_calls("new", "nonlinearity", bad.NONLINEARITIES, of=NEW)
test_bad_dtypes = wrong_calls("new", "dtype", bad.DTYPES, of=NEW)
test_bad_backends = wrong_calls("new", "backend", bad.BACKENDS, of=NEW)
test_bad_rngs = wrong_calls("new", "rng", bad.RNGS, of=NEW)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_nonlinearity_for_gates(cell):
    NEW.refuses(
        "new", ValueError, [f"cell={cell!r}", "'relu'"], begins="nonlinearity", cell=cell, nonlinearity="relu"
    )


@pytest.mark.parametrize("value", [1, 5])
def test_recomputation_in_two_directions(value):
    words = ["one direction", "bidirectional=True", f"got {value}"]
    NEW.refuses("new", ValueError, words, begins="recompute_every", bidirectional=True, recompute_every=value)


def test_weights_that_fit_in_no_memory():
    text = NEW.refuses("new", (MemoryError, ValueError), ["do not fit in memory"], output_size=2**48)
    assert text is None or "SequenceModel" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [("input_size", 5), ("hidden_size", 5), ("output_size", 2), ("num_layers", 2), ("head", "last"),
     ("bidirectional", True), ("nonlinearity", "relu"), ("cell", "gru"), ("dropout", 0.5), ("dtype", np.float64),
     ("recompute_every", 3)],
)  # fmt: skip
def test_what_is_fixed_cannot_be_assigned(name, value):
    with pytest.raises(AttributeError):
        setattr(SequenceModel(D, H, Q, rng=0), name, value)


def test_keyword_only_arguments(box):
    a, sm = box.good, box.sm
    for call in (
        lambda: SequenceModel(D, H, Q, 1, "gru"), lambda: sm.forward(a["x"], a["h0"], a["lengths"]),
        lambda: sm.loss_and_grads(a["x"], a["y"], a["h0"], a["lengths"]), lambda: sm.loss(a["x"], a["y"], None, "sum"),
        lambda: sm.train_step(a["x"], a["y"], a["h0"], a["optimizer"], "norm"),
        lambda: sm.train_step(a["x"], a["y"], optimizer=a["optimizer"]),
    ):  # fmt: skip
        refused(call, TypeError, ["argument"], watched=box.watched)


def test_a_weight_is_no_argument_of_a_language_model(box):
    from fastrnn import LanguageModel

    lm = LanguageModel(4, 6, rng=0)
    with pytest.raises(TypeError, match="weights"):
        lm.loss([[0]], [[1]], weights=[1.0])


# After an error


@pytest.mark.few(8)
@pytest.mark.parametrize("head", ["each", "last", "mean"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "gaussian"])
def test_a_call_after_an_error_is_as_good_as_any(loss, head, backend):
    """Nothing of what was refused is left in the work space."""
    box, other = (Box(backend, head=head, loss=loss) for _ in range(2))
    kept = box.good["weights"][0].copy()
    nothing = np.full_like(box.good["weights"], np.nan)
    for wrong in (
        {"x": []}, {"x": np.zeros((T, N, D + 1))}, {"y": None}, {"y": 1.5}, {"h0": np.zeros(3)}, {"lengths": [0] * N},
        {"weights": nothing}, {"weights": -kept}, {"clip": "x"}, {"clip_threshold": 0}, {"optimizer": None},
        {"lengths": [1] * N, "weights": nothing}, {"lengths": [1] * N, "h0": "abc"}, {"lengths": [1] * N, "y": []},
    ):  # fmt: skip
        with pytest.raises((ValueError, IndexError, TypeError)):
            box.call("train_step", **wrong)
    for method in ("train_step", "loss_and_grads", "loss", "forward", "train_step"):
        for how in ({}, {"lengths": None, "weights": None}):
            got, want = box.call(method, **how), other.call(method, **how)
            assert bits(got[0], got[-1]) == bits(want[0], want[-1])
    assert bits(*box.sm.parameters.values()) == bits(*other.sm.parameters.values())


def test_a_state_is_not_lost_to_an_error(box):
    """The buffers that h_n takes turns with are not turned by a call that fails."""
    _, h = box.call("train_step")
    kept = h.copy()
    for wrong in (
        {"y": None},
        {"clip": "x"},
        {"h0": np.zeros(3)},
        {"weights": np.full(N, -1.0)},
        {"lengths": [9] * N},
    ):
        with pytest.raises((ValueError, TypeError)):
            box.call("train_step", **wrong)
        assert bits(h) == bits(kept)
    box.call("train_step", h0=h)
    assert bits(h) == bits(kept)
