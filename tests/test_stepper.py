"""Steppers: the same as `forward`, step by step; what they take and refuse; weights that they share; threads."""

import copy
import gc
import inspect
import math
import os
import pickle
import sys
import threading
import tracemalloc

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from support import bits, growth

import fastrnn
from fastrnn import GRU, RNN, CharRNN, LanguageModel, SequenceModel, SimpleRNN, stepper
from fastrnn import threads as blas_threads
from fastrnn.sharing import changed

#: Of states and outputs, which are of size 1 or so, over 20 steps of a contractive net.
CLOSE = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1e-14}

BATCHES = [None, 1, 3, 17]

MODELS = {
    "RNN": lambda **options: RNN(5, 33, 2, **options),
    "one layer": lambda **options: RNN(8, 100, **options),
    "relu": lambda **options: RNN(5, 16, 3, "relu", **options),
    "no bias": lambda **options: RNN(5, 17, bias=False, batch_first=True, **options),
    "GRU": lambda **options: GRU(5, 33, 2, **options),
    "LanguageModel": lambda **options: LanguageModel(11, 40, 2, **options),
    "LanguageModel of a GRU": lambda **options: LanguageModel(11, 24, cell="gru", **options),
    "SequenceModel": lambda **options: SequenceModel(6, 33, 4, 2, **options),
    "SequenceModel of the last steps": lambda **options: SequenceModel(
        6, 24, 3, cell="gru", head="last", loss="gaussian", **options
    ),
    "SimpleRNN": lambda **options: SimpleRNN(7, 30, 6, **options),
}


def make(name, seed=0, **options):
    """A contractive net with biases."""
    model, rng = MODELS[name](rng=seed, **options), np.random.default_rng(seed + 1)
    for W in weights(model):
        W[...] = rng.normal(size=W.shape) * (0.4 / math.sqrt(W.shape[-1]) if min(W.shape) > 1 else 0.2)
    return model


def weights(model):
    if isinstance(model, SimpleRNN):
        return [model.Wxh, model.Whh, model.Why, model.bh, model.by]
    return list(model.parameters.values())


def sizes(model):
    """Inputs, and shape of the state of one sequence."""
    if isinstance(model, SimpleRNN):
        return model.input_size, (model.hidden_size,)
    d = model.vocab_size if isinstance(model, LanguageModel) else model.input_size
    return d, (model.num_layers, model.hidden_size)


def inputs(model, T, N, classes, seed=0):
    """Of each step, as `step` takes it."""
    rng, (d, _) = np.random.default_rng(seed), sizes(model)
    shape = (T,) if N is None else (T, N)
    if classes:
        drawn = rng.integers(-d, d, shape)
        return drawn.tolist() if N is None else list(drawn)
    return list(rng.normal(size=(*shape, d)).astype(dtype_of(model)))


def dtype_of(model):
    return weights(model)[0].dtype


def state_shape(model, N):
    *layers, h = sizes(model)[1]
    return (*layers, h) if N is None else (*layers, N, h)


def states(model, N, seed=5):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, state_shape(model, N)).astype(dtype_of(model))


def forward(model, xs, state, N):
    """Outputs and the last state by `forward`, shaped as a stepper's."""
    classes = np.ndim(xs[0]) == (0 if N is None else 1)
    d = sizes(model)[0]
    x = np.stack(xs) if N is not None else np.stack(xs)[:, None]  # (T, N) or (T, N, d)
    if isinstance(model, SimpleRNN):
        outputs, last = [], []
        for n in range(x.shape[1]):
            before = (state if N is None else state[n])[:, None]
            _, hs, ps = model.forward(x[:, n], before)
            outputs.append(ps.array)
            last.append(hs.array[-1])
        y, last = np.stack(outputs, 1), np.stack(last)
        return (y[:, 0], last[0]) if N is None else (y, last)
    h0 = state[:, None] if N is None else state
    if isinstance(model, LanguageModel):
        if not classes:
            layers = RNN if model.cell == "rnn" else GRU
            net = layers(d, model.hidden_size, model.num_layers, dtype=dtype_of(model), rng=0)
            net.load_state_dict(model.parameters, strict=False)
            h, h_n = net.forward(x, h0)
            y = h @ model.parameters["weight_out"].T + model.parameters["bias_out"]
        else:
            y, h_n = model.forward(x, h0)
    elif isinstance(model, SequenceModel):
        # What a sequence of one step more would have as its output, at each step.
        y, h_n = model.forward(x, h0)
        if model.head == "last":
            y = np.stack([model.forward(x[: t + 1], h0)[0] for t in range(len(x))])
    else:
        if model.batch_first:
            x = x.swapaxes(0, 1)
        y, h_n = model.forward(x, h0)
        if model.batch_first:
            y = y.swapaxes(0, 1)
    return (y[:, 0], h_n[:, 0]) if N is None else (y, h_n)


def assert_near(got, want):
    np.testing.assert_allclose(got, want, atol=CLOSE[got.dtype], rtol=0)


@pytest.mark.parametrize("classes", [False, True], ids=["vectors", "classes"])
@pytest.mark.parametrize("N", BATCHES)
@pytest.mark.parametrize("name", MODELS)
def test_steps_are_those_of_forward(name, N, classes, dtype, backend):
    model = make(name, dtype=dtype, backend=backend)
    state, xs = states(model, N), inputs(model, 20, N, classes)
    steps = model.stepper(N, state)
    ys = [steps.step(x) for x in xs]
    want, last = forward(model, xs, state, N)
    assert ys[0].dtype == dtype
    assert_near(np.stack(ys), want)
    assert_near(steps.state, last)
    steps.reset()
    again = np.stack([steps.step(x) for x in xs])
    assert_near(again, forward(model, xs, np.zeros_like(state), N)[0])


@pytest.mark.parametrize("h", [1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 65, 129, 257])
@pytest.mark.parametrize("N", BATCHES)
def test_any_number_of_units(h, N, dtype, backend):
    rnn = RNN(3, h, dtype=dtype, rng=1, backend=backend)
    for W in rnn.parameters.values():
        W *= 0.5
    state, xs = states(rnn, N), inputs(rnn, 6, N, classes=False)
    steps = rnn.stepper(N, state)
    assert_near(np.stack([steps.step(x) for x in xs]), forward(rnn, xs, state, N)[0])


def test_a_vector_and_a_class_after_each_other(backend):
    model = make("RNN", backend=backend, dtype=np.float64)
    steps, eye = model.stepper(), np.eye(5)
    other = steps.copy()
    for k in (3, 0, 4, 4, -1):
        assert_near(steps.step(k), other.step(eye[k]))


# ---- what a step takes -------------------------------------------------------------------------


class Sequence:
    """Something that NumPy makes an array of."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


class Subclass(np.ndarray):
    pass


def strided(x):
    wide = np.zeros((*x.shape, 2), x.dtype)
    wide[..., 0] = x
    return wide[..., 0]


def unaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)[1:]
    array = memory.view(x.dtype).reshape(x.shape)
    array[...] = x
    return array


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "as_given",
    [
        list,
        lambda x: x.tolist(),
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.float32),
        lambda x: x.astype(np.int8),
        lambda x: x.astype(np.uint64),
        lambda x: x.astype(bool),
        lambda x: x.astype(x.dtype.newbyteorder()),
        np.asfortranarray,
        strided,
        unaligned,
        read_only,
        lambda x: x.view(Subclass),
        Sequence,
    ],
)
@pytest.mark.parametrize("N", [None, 4])
def test_any_array_of_numbers(as_given, N, dtype, backend):
    model = make("RNN", dtype=dtype, backend=backend)
    x = np.random.default_rng(0).integers(0, 2, (5,) if N is None else (N, 5)).astype(dtype)
    steps, other = model.stepper(N), model.stepper(N)
    given = as_given(x)
    got = steps.step(given)
    assert bits(got) == bits(other.step(x))
    assert type(got) is np.ndarray
    assert bits(steps.state) == bits(other.state)


@pytest.mark.parametrize(
    "as_given",
    [
        lambda k: k - 5,
        np.int64,
        np.uint8,
        np.int16,
        lambda k: np.array(k),
        lambda k: type("Index", (), {"__index__": lambda self: k})(),
    ],
)
def test_any_whole_number_is_a_class(as_given, backend):
    steps = make("RNN", backend=backend).stepper()
    other = steps.copy()
    for k in range(5):
        assert bits(steps.step(as_given(k))) == bits(other.step(k))


@pytest.mark.parametrize(
    "as_given", [list, lambda x: x - 5, np.uint8, np.uint64, np.int16, strided, read_only, tuple]
)
def test_any_batch_of_whole_numbers_are_classes(as_given, backend):
    steps = make("RNN", backend=backend).stepper(4)
    other = steps.copy()
    x = np.array([3, 0, 4, 1])
    assert bits(steps.step(as_given(x))) == bits(other.step(x))


def test_integers_with_the_axis_of_the_inputs_are_numbers(backend):
    steps = make("RNN", backend=backend).stepper(5)
    other = steps.copy()
    x = np.arange(25).reshape(5, 5) % 3
    assert bits(steps.step(x)) == bits(other.step(x.astype(np.float32)))


def test_a_column_of_the_notes(backend):
    model = make("SimpleRNN", backend=backend)
    h0, x = states(model, None), np.eye(7)[2]
    steps = model.stepper(h0=h0[:, None])
    assert bits(steps.state) == bits(h0)
    y = steps.step(x[:, None])
    steps.state = h0[:, None]
    assert bits(steps.step(x)) == bits(y)
    assert bits(make("SimpleRNN", backend=backend).stepper(h0=h0).step(x)) == bits(y)
    with pytest.raises(ValueError, match=r"x must have shape \(5,\), got \(5, 1\)"):
        make("RNN", backend=backend).stepper().step(np.zeros((5, 1)))


def test_tensors(torch_or_skip, backend):
    torch = torch_or_skip
    steps = make("RNN", backend=backend).stepper()
    other = steps.copy()
    x = np.linspace(-1, 1, 5).astype(np.float32)
    assert bits(steps.step(torch.from_numpy(x))) == bits(other.step(x))
    assert bits(steps.step(torch.tensor(3))) == bits(other.step(3))
    with pytest.raises(TypeError, match=r"\.detach\(\)"):
        steps.step(torch.zeros(5, requires_grad=True))


@pytest.fixture
def torch_or_skip():
    return pytest.importorskip("torch")


NAN = math.nan

#: What comes, for one sequence of an `RNN` of 5 inputs; the error and what it says.
BAD_X = [
    (np.zeros(4), ValueError, r"x must have shape \(5,\), got \(4,\)"),
    (np.zeros((1, 5)), ValueError, r"x must have shape \(5,\), got \(1, 5\)"),
    (np.zeros(0), ValueError, r"x must have shape \(5,\), got \(0,\)"),
    ([1.0, 2.0], ValueError, r"x must have shape \(5,\)"),
    ([[1.0], [2.0, 3.0]], ValueError, "x cannot be made an array"),
    (np.zeros(5, complex), TypeError, "x must hold real numbers"),
    (["a"] * 5, TypeError, "x must hold real numbers"),
    (np.array([None] * 5), TypeError, "x must hold real numbers"),
    (0.5, TypeError, r"x must be an array \(5,\) or a whole number, got float 0.5"),
    (None, TypeError, "x must be an array"),
    ("a", TypeError, "x must be an array"),
    (np.float32(1), TypeError, "x must be an array"),
    (np.array(0.5), TypeError, "x must be an integer"),
    (True, TypeError, "x must be an integer"),
    (np.True_, TypeError, "x must be "),
    (5, IndexError, r"x is 5, outside \[-5, 5\)"),
    (-6, IndexError, r"x is -6, outside \[-5, 5\)"),
    (np.int64(7), IndexError, r"x is 7, outside \[-5, 5\)"),
    (2**63, IndexError, r"x is 9223372036854775808, outside"),
    (-(2**80), IndexError, r"outside \[-5, 5\)"),
]

#: The same for 3 sequences.
BAD_X_OF_A_BATCH = [
    (np.zeros(5), ValueError, r"x must have shape \(3, 5\), got \(5,\)"),
    (np.zeros((5, 3)), ValueError, r"x must have shape \(3, 5\), got \(5, 3\)"),
    (np.zeros((1, 3, 5)), ValueError, r"x must have shape \(3, 5\)"),
    (np.zeros((4, 5)), ValueError, r"x must have shape \(3, 5\), got \(4, 5\)"),
    (np.zeros((0, 5)), ValueError, r"x must have shape \(3, 5\)"),
    (np.zeros(4, int), ValueError, r"be 3 class indices, got shape \(4,\)"),
    (3, ValueError, r"x must have shape \(3, 5\), got \(\)"),
    (np.zeros(3, bool), ValueError, r"x must have shape \(3, 5\)"),
    (np.zeros(3), ValueError, r"x must have shape \(3, 5\)"),
    ([0, 5, 0], IndexError, r"x\[1\] is 5, outside \[-5, 5\)"),
    (np.array([0, 0, -6]), IndexError, r"x\[2\] is -6, outside \[-5, 5\)"),
    (np.array([0, 0, 255], np.uint8), IndexError, r"x\[2\] is 255, outside"),
    (np.array([0, 2**64 - 1, 0], np.uint64), IndexError, r"x\[1\] is 18446744073709551615, outside"),
    (np.array([0, -128, 0], np.int8), IndexError, r"x\[1\] is -128, outside"),
    (np.zeros((3, 5), "M8[s]"), TypeError, "x must hold real numbers"),
]


@pytest.mark.parametrize(
    ("N", "x", "error", "message"),
    [(None, *case) for case in BAD_X] + [(3, *case) for case in BAD_X_OF_A_BATCH],
)
@pytest.mark.few(200)
def test_a_bad_input_says_what_is_wrong_and_changes_nothing(N, x, error, message, backend):
    steps = make("RNN", backend=backend).stepper(N)
    steps.step(np.ones(5) if N is None else np.ones((3, 5)))
    before = bits(steps.state)
    with pytest.raises(error, match=message):
        steps.step(x)
    out = np.full((33,) if N is None else (3, 33), 7, np.float32)
    with pytest.raises(error, match=message):
        steps.step(x, out)
    assert (out == 7).all()
    assert bits(steps.state) == before
    steps.step(np.ones(5) if N is None else np.ones((3, 5)))  # and it goes on


def test_nan_goes_through(dtype, backend):
    model = make("RNN", dtype=dtype, backend=backend)
    steps = model.stepper(3)
    x = np.zeros((3, 5), dtype)
    x[1, 2] = NAN
    y = steps.step(x)
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[[0, 2]]).all()
    steps.state = np.full((2, 3, 33), math.inf)
    steps.step(x)
    simple = make("SimpleRNN", dtype=dtype, backend=backend).stepper(h0=np.full(30, NAN))
    assert np.isnan(simple.step(0)).all()


# ---- out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("N", BATCHES)
@pytest.mark.parametrize("name", MODELS)
def test_out_takes_the_outputs(name, N, dtype, backend):
    model = make(name, dtype=dtype, backend=backend)
    steps, other = model.stepper(N), model.stepper(N)
    out = None
    for x in inputs(model, 5, N, classes=True):
        y = other.step(x)
        out = np.full_like(y, NAN) if out is None else out
        assert steps.step(x, out) is out
        assert bits(out) == bits(y)
        assert steps.step(x, out=out) is out
        assert bits(other.step(x)) == bits(out)


@pytest.mark.parametrize("N", [None, 3, 40])
def test_out_may_be_x(N, dtype, backend):
    rnn = RNN(16, 16, 2, dtype=dtype, rng=0, backend=backend)
    steps, other = rnn.stepper(N), rnn.stepper(N)
    x = np.random.default_rng(0).normal(size=(16,) if N is None else (N, 16)).astype(dtype)
    for _ in range(4):
        want = other.step(x.copy())
        assert steps.step(x, out=x) is x
        assert bits(x) == bits(want)


BAD_OUT = [
    (np.zeros(33).tolist(), TypeError, "out must be an ndarray, got list"),
    (np.zeros(33, np.float32).view(Subclass), TypeError, "out must be an ndarray, got Subclass"),
    (np.zeros(33), TypeError, "out must have dtype float32, got float64"),
    (np.zeros(33, ">f4"), TypeError, "out must have dtype float32, got >f4"),
    (np.zeros(32, np.float32), ValueError, r"out must have shape \(33,\), got \(32,\)"),
    (np.zeros((1, 33), np.float32), ValueError, r"out must have shape \(33,\), got \(1, 33\)"),
    (strided(np.zeros(33, np.float32)), ValueError, "not contiguous"),
    (read_only(np.zeros(33, np.float32)), ValueError, "read-only"),
    (unaligned(np.zeros(33, np.float32)), ValueError, "not aligned"),
]


@pytest.mark.parametrize(("out", "error", "message"), BAD_OUT)
@pytest.mark.few(40)
def test_a_bad_out_is_not_written_to(out, error, message, backend):
    steps = make("RNN", backend=backend).stepper(h0=np.full((2, 33), 0.25))
    with pytest.raises(error, match=message):
        steps.step(np.ones(5), out)
    assert (steps.state == 0.25).all()
    assert not np.any(out)


def test_out_of_a_batch_in_another_order(backend):
    steps = make("RNN", backend=backend).stepper(3)
    with pytest.raises(ValueError, match="not contiguous"):
        steps.step(np.ones((3, 5)), np.zeros((33, 3), np.float32).T)
    with pytest.raises(ValueError, match=r"out must have shape \(3, 33\), got \(33, 3\)"):
        steps.step(np.ones((3, 5)), np.zeros((33, 3), np.float32))


def test_a_result_is_a_new_array_each_time(backend):
    steps = make("RNN", backend=backend).stepper()
    x = np.ones(5, np.float32)
    y = steps.step(x)
    before = bits(y)
    steps.step(-x)
    assert bits(y) == before
    y[...] = 9
    assert (np.abs(steps.state) < 1).all()
    assert (x == 1).all()


# ---- states ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("N", BATCHES)
@pytest.mark.parametrize("name", MODELS)
def test_the_state_is_a_copy_that_may_be_assigned(name, N, backend):
    model = make(name, backend=backend)
    steps, state = model.stepper(N), states(model, N)
    assert steps.state.shape == state_shape(model, N)
    assert not steps.state.any()
    steps.state = state
    assert bits(steps.state) == bits(state)
    steps.state[...] = 9
    assert bits(steps.state) == bits(state)
    steps.state = state.tolist()
    state[...] = 9
    assert (np.abs(steps.state) < 1).all()
    x = inputs(model, 1, N, classes=True)[0]
    steps.reset(steps.state)
    y, after = steps.step(x), steps.state
    steps.reset()
    assert not steps.state.any()
    steps.state = after
    assert bits(steps.step(x)) != bits(y)


@pytest.mark.parametrize(
    ("name", "N", "shape"),
    [
        ("RNN", None, (33,)),
        ("RNN", None, (2, 1, 33)),
        ("RNN", 3, (2, 33)),
        ("RNN", 3, (3, 33)),
        ("SimpleRNN", None, (1, 30)),
        ("SimpleRNN", 3, (3, 30, 1)),
        ("SimpleRNN", 3, (1, 3, 30)),
        ("LanguageModel", 1, (2, 40)),
    ],
)
def test_a_state_of_another_shape(name, N, shape, backend):
    model = make(name, backend=backend)
    steps, state = model.stepper(N), states(model, N)
    steps.state = state
    with pytest.raises(ValueError, match=r"^state must have shape "):
        steps.state = np.zeros(shape)
    with pytest.raises(ValueError, match=r"^h0 must have shape "):
        steps.reset(np.zeros(shape))
    with pytest.raises(ValueError, match=r"^h0 must have shape "):
        model.stepper(N, np.zeros(shape))
    with pytest.raises(TypeError, match=r"^state must hold real numbers"):
        steps.state = np.zeros(state.shape, complex)
    assert bits(steps.state) == bits(state)


@pytest.mark.parametrize(
    ("batch_size", "error"),
    [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError), ("2", TypeError)],
)
def test_a_batch_size_that_is_none(batch_size, error, backend):
    with pytest.raises(error, match="batch_size must be"):
        make("RNN", backend=backend).stepper(batch_size)


def test_two_directions_have_no_steps(backend):
    with pytest.raises(ValueError, match="a bidirectional model has no stepper: its second direction begins"):
        RNN(3, 4, bidirectional=True, rng=0, backend=backend).stepper()


@pytest.mark.parametrize("head", ["each", "last", "mean"])
def test_sequence_models_that_have_no_steps(head, backend):
    """One of two directions, and one of the mean over all steps; the error says why, and what has some."""
    both = SequenceModel(3, 4, 2, bidirectional=True, head=head, rng=0, backend=backend)
    with pytest.raises(
        ValueError, match=r"^a bidirectional model has no stepper|^a model with head='mean' has no"
    ):
        both.stepper()
    model = SequenceModel(3, 4, 2, head=head, rng=0, backend=backend)
    if head == "mean":
        with pytest.raises(
            ValueError, match=r"^a model with head='mean' has no stepper: .*head='last' have one"
        ):
            model.stepper()
        with pytest.raises(ValueError, match=r"^a model with head='mean' has no stepper"):
            model.stepper(3)
    else:
        assert model.stepper(3).step([0, 1, 2]).shape == (3, 2)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "gaussian"])
def test_steps_of_an_lstm_with_any_loss(loss, dtype, backend):
    model = SequenceModel(
        3, 9, 2, 2, cell="lstm", head="last", loss=loss, rng=0, dtype=dtype, backend=backend
    )
    x = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(dtype)
    steps = model.stepper(4)
    for t in range(6):
        y = steps.step(x[t])
        want, (h_n, c_n) = model.forward(x[: t + 1])
        assert y.shape == (4, 4 if loss == "gaussian" else 2)
        assert_near(y, want)
        assert_near(steps.state[0], h_n)
        assert_near(steps.state[1], c_n)


@pytest.mark.parametrize("kind", [RNN, SequenceModel])
def test_dropout_is_off(kind, backend):
    sizes_ = (3, 8, 2) if kind is RNN else (3, 8, 2, 2)
    model = kind(*sizes_, dropout=0.9, rng=0, backend=backend).train()
    plain = kind(*sizes_, rng=1, backend=backend)
    plain.load_state_dict(model.state_dict())
    before = model.rng.bit_generator.state
    assert bits(model.stepper().step(np.ones(3))) == bits(plain.stepper().step(np.ones(3)))
    assert model.rng.bit_generator.state == before


@pytest.mark.few(1)
def test_the_net_of_a_fitted_model(backend):
    text = "the quick brown fox jumps over the lazy dog. " * 4
    model = CharRNN(16, epochs=1, seq_len=8, batch_size=4, random_state=0, verbose=0, backend=backend).fit(
        text
    )
    logits = model.model_.stepper().step(2)
    assert logits.shape == (len(model.vocabulary_),)


# ---- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_those_of_the_beginning_until_refresh(name, backend):
    model = make(name, backend=backend)
    steps, old = model.stepper(), model.stepper()
    xs = inputs(model, 6, None, classes=True)
    for x in xs[:3]:
        assert bits(steps.step(x)) == bits(old.step(x))
    for W in weights(model):
        W *= 0.5
    assert bits(steps.step(xs[3])) == bits(old.step(xs[3]))
    state = steps.state
    steps.refresh()
    assert bits(steps.state) == bits(state)
    new = model.stepper(h0=state)
    assert bits(steps.step(xs[4])) == bits(new.step(xs[4]))
    assert bits(old.step(xs[4])) != bits(new.step(xs[4]))
    old.refresh()
    old.state = new.state
    assert bits(old.step(xs[5])) == bits(new.step(xs[5]))


def test_a_weight_that_was_assigned(backend):
    model = make("SimpleRNN", backend=backend)
    steps = model.stepper()
    y = steps.step(1)
    model.by = model.by + 1.0
    model.Why = model.Why * 2
    steps.reset()
    assert bits(steps.step(1)) == bits(y)
    steps.refresh()
    steps.reset()
    assert_near(steps.step(1), model.forward([1], np.zeros((30, 1)))[2][0][:, 0])


def test_weights_that_are_not_in_order(backend):
    model = make("RNN", backend=backend)
    model.parameters["weight_hh_l0"] = np.asfortranarray(model.parameters["weight_hh_l0"])
    xs = inputs(model, 3, None, classes=False)
    steps = model.stepper()
    want = forward(model, xs, np.zeros((2, 33), np.float32), None)[0]
    assert_near(np.stack([steps.step(x) for x in xs]), want)


def test_a_weight_of_another_shape_is_refused_and_the_stepper_goes_on(backend):
    model = make("RNN", backend=backend)
    steps, other = model.stepper(), model.stepper()
    model.parameters["weight_hh_l0"] = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match="weight_hh_l0"):
        steps.refresh()
    assert bits(steps.step(1)) == bits(other.step(1))


def test_refresh_takes_the_backend_in_use(backend):
    model = make("RNN", dtype=np.float64)
    with fastrnn.use_backend("numpy"):
        steps = model.stepper()
        steps.step(1)
    state = steps.state
    with fastrnn.use_backend(backend):
        steps.refresh()
        assert bits(steps.state) == bits(state)
        assert bits(steps.step(2)) == bits(model.stepper(h0=state).step(2))


def test_copies_go_their_own_way(backend):
    for made in (lambda s: s.copy(), copy.copy, copy.deepcopy):
        steps = make("RNN", backend=backend).stepper(h0=np.full((2, 33), 0.1))
        steps.step(1)
        other = made(steps)
        assert bits(other.state) == bits(steps.state)
        assert bits(other.step(2)) == bits(steps.step(2))
        state = steps.state
        other.step(3)
        assert bits(steps.state) == bits(state)
        other.refresh()
        other.reset()
        assert bits(steps.state) == bits(state)
        assert type(other) is type(steps)


def test_a_stepper_is_not_pickled(backend):
    with pytest.raises(TypeError, match=r"model\.stepper\(h0=state\)"):
        pickle.dumps(make("RNN", backend=backend).stepper())


def test_models_are_copied_without_their_steppers(backend):
    for name in MODELS:
        model = make(name, backend=backend)
        without = vars(copy.deepcopy(model)).keys()
        steps = model.stepper()
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert bits(other.stepper().step(1)) == bits(steps.copy().step(1))
            assert vars(other).keys() == without


def living(kind):
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


@pytest.mark.parametrize("name", ["RNN", "LanguageModel", "SequenceModel", "SimpleRNN"])
@pytest.mark.few(2)
def test_a_thousand_users_share_the_weights(name, backend):
    before = living(stepper.StepWeights)
    model = make(name, backend=backend)
    first = model.stepper()
    first.step(1)
    tracemalloc.start()
    try:
        users = [model.stepper() for _ in range(1000)]
        for user in users:
            user.step(1)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert living(stepper.StepWeights) == before + 1
    state = first.state.nbytes
    assert taken < 1000 * (2 * state + 4096)
    assert bits(users[0].state) == bits(users[-1].state) == bits(first.state)
    weights(model)[1][0, 0] = NAN
    fresh = [model.stepper(), model.stepper()]
    assert living(stepper.StepWeights) == before + 2  # NaN is the same as NaN
    del users, first, fresh, model, user
    assert living(stepper.StepWeights) == before


def test_steps_leave_no_memory_to_python(backend):
    model = make("RNN", backend=backend)
    steps, x, out = model.stepper(), np.ones(5, np.float32), np.empty(33, np.float32)
    for _ in range(50):
        steps.step(x, out)
        steps.step(2, out)
    gc.collect()
    blocks = sys.getallocatedblocks()
    for _ in range(500):
        steps.step(x, out)
        steps.step(2, out)
        steps.step(x)
    assert abs(sys.getallocatedblocks() - blocks) < 30


def test_a_compiled_step_allocates_nothing_but_its_result():
    kernels = pytest.importorskip("fastrnn.kernels.cython_kernels")
    model = make("RNN", backend=kernels.NAME)
    steps, x, out = model.stepper(), np.ones(5, np.float32), np.empty(33, np.float32)
    batch, xs, outs = model.stepper(3), np.ones((3, 5), np.float32), np.empty((3, 33), np.float32)

    def calls():
        for _ in range(100):
            steps.step(x, out)
            batch.step(xs, outs)

    peak, _ = growth(calls)
    assert peak < 1000


# ---- threads ---------------------------------------------------------------------------------------


def counting(h, N, backend):
    """A stepper whose states are the number of its steps, each of which takes a while."""
    rnn = RNN(1, h, nonlinearity="relu", rng=0, backend=backend)
    for W in rnn.parameters.values():
        W[...] = 0
    rnn.parameters["weight_hh_l0"][...] = np.eye(h)
    rnn.parameters["bias_ih_l0"][...] = 1
    return rnn.stepper(N)


def test_one_thread_at_a_time(backend):
    steps, x = counting(512, 64, backend), np.zeros((64, 1), np.float32)
    steps.step(x)
    done, refused = [1], []
    together, enough = threading.Barrier(2), threading.Event()

    def work():
        together.wait(30)
        for _ in range(3000):
            try:
                steps.step(x)
                done.append(1)
            except RuntimeError as error:
                refused.append(str(error))
                if len(refused) > 3:
                    enough.set()
            if enough.is_set():
                return

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused
    assert all("in use by another thread" in message for message in refused)
    assert (steps.state == len(done)).all()


def test_many_threads_that_pack_the_same_weights_at_once(backend):
    model = RNN(64, 256, 2, rng=0, backend=backend)
    want = model.stepper().step(3)
    del model
    for _ in range(5):
        model = RNN(64, 256, 2, rng=0, backend=backend)
        users, together, got = [model.stepper() for _ in range(8)], threading.Barrier(8), []

        def first(user, together=together, got=got):
            together.wait(30)
            got.append(user.step(3))

        threads = [threading.Thread(target=first, args=(user,)) for user in users]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [bits(y) for y in got] == [bits(want)] * 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_in_the_middle_of_a_step(backend):
    steps, x = counting(512, 64, backend), np.zeros((64, 1), np.float32)
    steps.step(x)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            steps.step(x)

    thread = threading.Thread(target=work)
    # A fork while BLAS shares a product among its threads is what OpenBLAS does not bear.
    with blas_threads.one_blas_thread():
        thread.start()
        forks(10, steps, x, stop, thread)
    assert (steps.state == steps.state[0, 0, 0]).all()


def forks(times, steps, x, stop, thread):
    try:
        for _ in range(times):
            child = os.fork()
            if not child:
                code = 1
                try:
                    before = steps.state
                    after = steps.step(x)
                    code = 0 if (before == before[0, 0, 0]).all() and (after == before[0] + 1).all() else 2
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_another_thread_changes_is_not_read(name, backend):
    model = make(name, backend=backend)
    steps = model.stepper()
    other = []

    def call(function):
        try:
            function()
        except RuntimeError as error:
            other.append(str(error))

    with changed(model, "train_step"):
        for function in (model.stepper, steps.refresh, lambda: steps.step(1)):
            thread = threading.Thread(target=call, args=(function,))
            thread.start()
            thread.join()
    assert len(other) == 2  # steps have weights of their own
    assert all("is being changed by another thread" in message for message in other)


def test_what_is_told_of_it(backend):
    steps = make("RNN", backend=backend).stepper(3)
    assert repr(steps).startswith("Stepper(RNN(5, 33, 2")
    assert repr(steps).endswith("batch_size=3)")
    assert list(inspect.signature(stepper.Stepper.step).parameters) == ["self", "x", "out"]
    assert list(inspect.signature(steps.step).parameters)[-2:] == ["x", "out"]
    with pytest.raises(TypeError):
        steps.step()
    with pytest.raises(TypeError):
        steps.step(np.zeros((3, 5)), None, 1)


# ---- any order of calls ----------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Steppers of one model, each beside a plain one that is made anew from weights and states for each step."""

    steppers = Bundle("steppers")
    backend = dtype = name = N = None

    @initialize(target=steppers)
    def begin(self):
        self.model = make(self.name, dtype=self.dtype, backend=self.backend)
        self.known = {}
        return self.remember(
            self.model.stepper(self.N), self.model, np.zeros(state_shape(self.model, self.N))
        )

    def remember(self, steps, model, state):
        self.known[id(steps)] = [steps, copy.deepcopy(model), state.astype(self.dtype)]
        return steps

    @rule(steps=steppers, seed=st.integers(0, 99), classes=st.booleans(), into=st.booleans())
    def step(self, steps, seed, classes, into):
        entry = self.known[id(steps)]
        x = inputs(self.model, 1, self.N, classes, seed)
        want, after = forward(entry[1], x, entry[2], self.N)
        out = np.empty_like(want[0]) if into else None
        assert_near(steps.step(x[0], out), want[0])
        entry[2] = after

    @rule(steps=steppers, seed=st.integers(0, 99))
    def fail(self, steps, seed):
        d = sizes(self.model)[0]
        with pytest.raises(IndexError):
            steps.step(d + seed if self.N is None else [d + seed] * self.N)

    @rule(steps=steppers, seed=st.integers(0, 99) | st.none(), assign=st.booleans())
    def reset(self, steps, seed, assign):
        state = np.zeros_like(self.known[id(steps)][2]) if seed is None else states(self.model, self.N, seed)
        if assign:
            steps.state = state
        else:
            steps.reset(None if seed is None else state)
        self.known[id(steps)][2] = state

    @rule(target=steppers, steps=steppers)
    def copied(self, steps):
        if len(self.known) > 5:
            return multiple()
        _, model, state = self.known[id(steps)]
        return self.remember(steps.copy(), model, state)

    @rule(target=steppers, seed=st.integers(0, 99))
    def another(self, seed):
        if len(self.known) > 5:
            return multiple()
        state = states(self.model, self.N, seed)
        return self.remember(self.model.stepper(self.N, state), self.model, state)

    @rule(which=st.integers(0, 4), seed=st.integers(0, 99), assign=st.booleans())
    def change_a_weight(self, which, seed, assign):
        W = weights(self.model)[which % len(weights(self.model))]
        new = (np.random.default_rng(seed).normal(size=W.shape) * 0.3 / math.sqrt(max(W.shape))).astype(
            self.dtype
        )
        if not assign:
            W[...] = new
        elif isinstance(self.model, SimpleRNN):
            setattr(self.model, ["Wxh", "Whh", "Why", "bh", "by"][which], new)
        else:
            self.model.parameters[list(self.model.parameters)[which]] = new

    @rule(steps=steppers)
    def refresh(self, steps):
        steps.refresh()
        self.known[id(steps)][1] = copy.deepcopy(self.model)

    @invariant()
    def states_are_those_of_the_plain_ones(self):
        for steps, _, state in getattr(self, "known", {}).values():
            assert_near(steps.state, state)


@pytest.mark.parametrize("N", [None, 3])
@pytest.mark.parametrize("name", ["RNN", "LanguageModel", "SequenceModel", "SimpleRNN"])
@pytest.mark.few(12)
def test_calls_in_any_order(name, N, dtype, backend):
    machine = type("Machine", (AnyOrder,), {"backend": backend, "dtype": dtype, "name": name, "N": N})
    hypothesis.stateful.run_state_machine_as_test(
        machine, settings=hypothesis.settings(stateful_step_count=20, deadline=None)
    )
