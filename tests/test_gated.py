"""GRU and LSTM, and what is made of them: beside PyTorch (`test_layers_torch`), ONNX (`test_gated_onnx`)
and the kernels' own tests."""

import copy
import inspect
import math
import pickle

import cells_by_hand
import numpy as np
import pytest
from support import assert_close, bits, central_differences

from fastrnn import (
    GRU,
    LSTM,
    RNN,
    CharRNN,
    CheckpointError,
    LanguageModel,
    ReferenceGRU,
    ReferenceLSTM,
    functional,
    optim,
)
from fastrnn.checkpoint import read_checkpoint, write_checkpoint
from fastrnn.kernels import GRU as GRU_CODE
from fastrnn.kernels import LSTM as LSTM_CODE

LAYERS = {"gru": GRU, "lstm": LSTM}
REFERENCES = {"gru": ReferenceGRU, "lstm": ReferenceLSTM}
FUNCTIONS = {
    "gru": (functional.gru_forward, functional.gru_backward),
    "lstm": (functional.lstm_forward, functional.lstm_backward),
}
every_cell = pytest.mark.parametrize("cell", LAYERS)
TEXT = "the cat sat on the mat, and the dog sat on the cat. " * 40


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def state_of(cell, shape, rng, dtype=np.float64, size=0.5):
    """A random state, an array or a pair."""
    arrays = [(rng.normal(size=shape) * size).astype(dtype) for _ in range(1 + (cell == "lstm"))]
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


# ---- the sigmoid ------------------------------------------------------------------------------------


def test_sigmoid_over_the_whole_range(dtype, kernels):
    """At most 2.5 units in the last place, down to denormal numbers; NaN stays."""
    limits, rng = np.finfo(dtype), np.random.default_rng(0)
    lowest = math.log(float(limits.smallest_subnormal)) - 2
    x = np.concatenate(
        [
            np.linspace(lowest, 40, 200_001),
            rng.normal(size=50_000),
            rng.normal(size=50_000) * 1e-3,
            [0.0, -0.0],
        ]
    ).astype(dtype)
    y = x.copy()
    kernels.sigmoid(y)
    wide = x.astype(np.longdouble)
    e = np.exp(-np.abs(wide))
    want = np.where(wide < 0, e, 1) / (1 + e)
    spacing = np.spacing(np.maximum(want.astype(dtype), limits.smallest_subnormal)).astype(np.longdouble)
    assert float((np.abs(y - want) / spacing).max()) <= 2.5
    ends = np.array([-np.inf, np.inf, np.nan, -1e38, 1e38], dtype)
    kernels.sigmoid(ends)
    assert ends[[0, 1, 3, 4]].tolist() == [0, 1, 0, 1]
    assert np.isnan(ends[2])
    assert len(x) % 8, "the last vector is not whole"


# ---- references -------------------------------------------------------------------------------------


@every_cell
@pytest.mark.parametrize(("T", "d", "h"), [(1, 1, 1), (6, 5, 7), (20, 3, 33)])
@pytest.mark.parametrize("classes", [False, True], ids=["vectors", "classes"])
def test_the_plain_loops(classes, T, d, h, cell, backend, dtype):
    """The fast layers do as the loops do, and both have the same weights from the same seed."""
    rng = np.random.default_rng(T)
    plain = REFERENCES[cell](d, h, rng=3, dtype=dtype)
    fast = LAYERS[cell](d, h, rng=3, dtype=dtype, backend=backend)
    assert list(plain.parameters) == list(fast.parameters)
    assert bits(*plain.parameters.values()) == bits(*fast.parameters.values())
    assert plain.num_parameters == fast.num_parameters
    x = rng.integers(d, size=T) if classes else rng.normal(size=(T, d)).astype(dtype)
    h0, grad_h_n = state_of(cell, (1, h), rng, dtype), state_of(cell, (1, h), rng, dtype)
    grad_output = rng.normal(size=(T, h)).astype(dtype)
    for first, last in ((h0, grad_h_n), (None, None)):
        results = []
        for model in (plain, fast):
            output, h_n = model.forward(x, first)
            grad_x, grad_h0 = model.backward(grad_output, last)
            found = [output, *parts(h_n), *parts(grad_h0), *model.grads.values()]
            results.append(found + ([] if classes else [grad_x]))
        for got, want in zip(*reversed(results), strict=True):
            assert got.shape == want.shape
            assert_close(got, want)


@every_cell
def test_the_gradients_of_the_plain_loops(cell):
    """Central differences."""
    rng = np.random.default_rng(1)
    model = REFERENCES[cell](3, 4, rng=0)
    x, weight = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    h0, last = state_of(cell, (1, 4), rng), state_of(cell, (1, 4), rng)

    def goal():
        output, h_n = model.forward(x, h0)
        return float(
            np.vdot(output, weight) + sum(np.vdot(a, b) for a, b in zip(parts(h_n), parts(last), strict=True))
        )

    goal()
    grad_x, grad_h0 = model.backward(weight, last)
    assert_close(grad_x, central_differences(goal, x), 1e-8)
    for got, state in zip(parts(grad_h0), parts(h0), strict=True):
        assert_close(got, central_differences(goal, state), 1e-8)
    for name, W in model.parameters.items():
        assert_close(model.grads[name], central_differences(goal, W), 1e-8)


@every_cell
def test_the_plain_loops_with_sums_of_any_size(cell, dtype):
    """Gates that are shut or wide open, as the fast layers have them, without a warning."""
    for size in (80, 1e4, 1e30):
        x = np.array([[size, -size], [-size, size]], dtype)
        plain = REFERENCES[cell](2, 9, rng=0, dtype=dtype)
        output, h_n = plain.forward(x)
        want, want_h_n = LAYERS[cell](2, 9, rng=0, dtype=dtype).forward(x)
        assert np.isfinite(output).all()
        assert_close(output, want)
        for got, wanted in zip(parts(h_n), parts(want_h_n), strict=True):
            assert_close(got, wanted)
        assert all(
            np.isfinite(g).all() for g in (plain.backward(np.ones_like(output))[0], *plain.grads.values())
        )


@every_cell
def test_the_plain_loops_keep_what_they_were_given(cell, dtype):
    """Results have the dtype of the weights; the states stay the caller's, and may change before backward."""
    rng = np.random.default_rng(0)
    x, h0, grad_output = rng.normal(size=(4, 3)), state_of(cell, (1, 5), rng), rng.normal(size=(4, 5))
    last = state_of(cell, (1, 5), rng)
    found = []
    for change in (False, True):
        plain = REFERENCES[cell](3, 5, rng=0, dtype=dtype)
        first = tuple(a.astype(dtype) for a in parts(h0))
        before = bits(x, *first, grad_output, *parts(last))
        output, h_n = plain.forward(x, first if cell == "lstm" else first[0])
        if change:
            for a in first:
                a[...] = 7
        grad_x, grad_h0 = plain.backward(grad_output, last)
        results = [output, *parts(h_n), grad_x, *parts(grad_h0), *plain.grads.values()]
        assert {a.dtype for a in results} == {np.dtype(dtype)}
        assert change or bits(x, *first, grad_output, *parts(last)) == before
        found.append(bits(*results))
    assert found[0] == found[1]


# ---- layers -----------------------------------------------------------------------------------------


@every_cell
def test_what_a_layer_says_of_itself(cell):
    layer = LAYERS[cell](3, 8, 2, bidirectional=True, dropout=0.5, rng=0)
    G = {"gru": 3, "lstm": 4}[cell]
    assert repr(layer) == (
        f"{cell.upper()}(3, 8, 2, bias=True, batch_first=False, dropout=0.5, bidirectional=True, dtype=float32)"
    )
    assert layer.parameters["weight_ih_l1_reverse"].shape == (G * 8, 16)
    assert not hasattr(layer, "nonlinearity")
    assert layer.num_parameters == sum(W.size for W in layer.parameters.values())
    assert cell.upper() in layer._repr_html_()
    ours = list(inspect.signature(LAYERS[cell]).parameters)
    assert ours == [name for name in inspect.signature(RNN).parameters if name != "nonlinearity"]


@every_cell
@pytest.mark.parametrize("option", [{"nonlinearity": "relu"}, {"proj_size": 2}])
def test_options_that_it_has_not(option, cell):
    with pytest.raises(TypeError, match=next(iter(option))):
        LAYERS[cell](3, 8, **option)


@every_cell
def test_copies_and_pickles(cell, backend):
    layer = LAYERS[cell](3, 8, 2, rng=0, backend=backend)
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    want = layer.forward(x)[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(other) == repr(layer)
        assert bits(other.forward(x)[0]) == bits(want)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (
            np.zeros((1, 2, 4)),
            TypeError,
            "h0 must be the pair (h, c), an array of shape (1, 2, 4) each, got an array",
        ),
        (5, TypeError, "h0 must be the pair (h, c), an array of shape (1, 2, 4) each, got int 5"),
        (
            (np.zeros((1, 2, 4)),),
            ValueError,
            "h0 must be the pair (h, c), an array of shape (1, 2, 4) each, got 1 of",
        ),
        (
            (np.zeros((1, 2, 4)), np.zeros((1, 2, 3))),
            ValueError,
            "h0[1] must have shape (1, 2, 4), got (1, 2, 3)",
        ),
        ((np.zeros((1, 2, 4)), None), TypeError, "h0[1] must hold real numbers"),
        (("a", np.zeros((1, 2, 4))), TypeError, "h0[0] must hold real numbers"),
    ],
)
def test_a_pair_that_is_none(value, error, words, backend):
    lstm = LSTM(3, 4, rng=0, backend=backend)
    before = bits(*lstm.parameters.values())
    with pytest.raises(error) as caught:
        lstm.forward(np.zeros((5, 2, 3)), value)
    assert words in str(caught.value)
    assert bits(*lstm.parameters.values()) == before
    stepper = lstm.stepper(2)
    with pytest.raises(error):
        stepper.reset(value)
    assert not any(state.any() for state in stepper.state)


def test_one_of_the_gradients_of_a_pair(backend, dtype):
    """Each of them may be None."""
    rng = np.random.default_rng(0)
    lstm = LSTM(3, 9, 2, rng=0, dtype=dtype, backend=backend)
    x, (dh, dc) = rng.normal(size=(4, 5, 3)), rng.normal(size=(2, 2, 5, 9))

    def gradients(last):
        lstm.forward(x)
        grad_x, grad_h0 = lstm.backward(None, last)
        return [grad_x, *grad_h0, *(g.copy() for g in lstm.grads.values())]

    zeros = np.zeros_like(dh)
    for given, wanted in (
        ((dh, None), (dh, zeros)),
        ((None, dc), (zeros, dc)),
        ([None, None], (zeros, zeros)),
    ):
        assert bits(*gradients(given)) == bits(*gradients(wanted))


@every_cell
@pytest.mark.parametrize("N", [3, 70])
def test_the_same_bits_on_any_number_of_threads(N, cell, backend, dtype, small_work_shared):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(7, N, 5)), rng.normal(size=(7, N, 66))
    lengths = rng.integers(1, 8, N)
    found = []
    for num_threads in (1, 2, 3, 5):
        layer = LAYERS[cell](
            5, 33, 2, bidirectional=True, rng=0, dtype=dtype, backend=backend, num_threads=num_threads
        )
        output, h_n = layer.forward(x, lengths=lengths)
        grad_x, grad_h0 = layer.backward(weight)
        found.append(bits(output, *parts(h_n), grad_x, *parts(grad_h0), *layer.grads.values()))
    assert len(set(map(str, found))) == 1


@every_cell
def test_dropout_is_repeated_and_ends_with_eval(cell, backend):
    layer = LAYERS[cell](3, 8, 2, dropout=0.5, rng=0, backend=backend)
    x = np.random.default_rng(0).normal(size=(4, 20, 3))
    one, other = layer.forward(x)[0], layer.forward(x)[0]
    assert bits(one) != bits(other)
    layer.eval()
    assert bits(layer.forward(x)[0]) == bits(layer.forward(x)[0])


# ---- functions --------------------------------------------------------------------------------------


@every_cell
@pytest.mark.parametrize("seed", range(12))
def test_functions(seed, cell, backend, dtype):
    """They are the layer's."""
    rng = np.random.default_rng(seed)
    T, N, d, h = 6, int(rng.choice([1, 4, 17])), 5, int(rng.choice([3, 16, 33]))
    layer = LAYERS[cell](d, h, bias=bool(rng.integers(2)), rng=seed, dtype=dtype, backend=backend)
    parameters = {name.removesuffix("_l0"): W for name, W in layer.parameters.items()}
    x = rng.integers(d, size=(T, N)) if rng.integers(2) else rng.normal(size=(T, N, d)).astype(dtype)
    options = {"lengths": rng.integers(1, T + 1, N) if rng.integers(2) else None}
    h0 = state_of(cell, (N, h), rng, dtype) if rng.integers(2) else None
    last = state_of(cell, (N, h), rng, dtype) if rng.integers(2) else None
    grad_output = rng.normal(size=(T, N, h)).astype(dtype)

    def stacked(state):
        if state is None:
            return None
        return tuple(a[None] for a in state) if cell == "lstm" else state[None]

    forward, backward = FUNCTIONS[cell]
    output, h_n = forward(x, h0, parameters, **options, backend=backend)
    grad_x, grad_h0, grads = backward(
        grad_output, last, x, h0, output, parameters, **options, backend=backend
    )
    want, want_h_n = layer.forward(x, stacked(h0), **options)
    want_x, want_h0 = layer.backward(grad_output, stacked(last))
    pairs = [(output, want), *zip(parts(h_n), (a[0] for a in parts(want_h_n)), strict=True)]
    pairs += [*zip(parts(grad_h0), (a[0] for a in parts(want_h0)), strict=True)]
    pairs += [(grads[name.removesuffix("_l0")], g) for name, g in layer.grads.items()]
    if want_x is None:
        assert grad_x is None
    else:
        pairs.append((grad_x, want_x))
    for got, wanted in pairs:
        assert bits(got) == bits(wanted)
    reverse, _ = forward(x, h0, parameters, **options, reverse=True, backend=backend)
    if N == 1 and options["lengths"] is None:
        assert_close(reverse[::-1], forward(x[::-1], h0, parameters, backend=backend)[0])


@every_cell
def test_functions_refuse_weights_of_another_cell(cell, backend):
    forward, _ = FUNCTIONS[cell]
    rows = {"gru": 12, "lstm": 16}[cell]
    good = {"weight_ih": np.zeros((rows, 3)), "weight_hh": np.zeros((rows, 4))}
    forward(np.zeros((2, 1, 3)), None, good, backend=backend)
    for name, shape in (("weight_hh", (4, 4)), ("weight_ih", (4, 3)), ("weight_hh", (rows + 1, 4))):
        with pytest.raises(
            ValueError, match=f"parameters\\['weight_{'i' if 'ih' in name else '[ih]'}h'\\] must have shape"
        ):
            forward(np.zeros((2, 1, 3)), None, good | {name: np.zeros(shape)}, backend=backend)


# ---- models -----------------------------------------------------------------------------------------


@every_cell
@pytest.mark.parametrize("layers", [1, 3])
def test_recomputed_states_give_the_same_gradients(layers, cell, backend, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.integers(9, size=(2, 13, 20))
    found = []
    for every in (None, 1, 4, 13, 50):
        lm = LanguageModel(
            9, 21, layers, cell=cell, rng=0, dtype=dtype, backend=backend, recompute_every=every
        )
        h0 = state_of(cell, (layers, 20, 21), np.random.default_rng(1), dtype)
        loss, grads, h_n = lm.loss_and_grads(x, y, h0)
        found.append([np.float64(loss), *parts(h_n), *(grads[name] for name in sorted(grads))])
    for other in found[1:]:
        for got, want in zip(other, found[0], strict=True):
            assert_close(got, want)


@every_cell
def test_the_state_of_a_training_step_is_carried_on(cell, backend):
    """As two calls that go on, or one; and the arrays take turns."""
    lm = LanguageModel(9, 21, 2, cell=cell, rng=0, dtype="float64", backend=backend)
    x = np.random.default_rng(0).integers(9, size=(10, 5))
    adam = optim.SGD(lr=0.0)
    _, first = lm.train_step(x[:5], x[:5], None, adam)
    first_copy = [a.copy() for a in parts(first)]
    _, second = lm.train_step(x[5:], x[5:], first, adam)
    assert bits(*parts(first)) == bits(*first_copy)
    _, whole = lm.train_step(x, x, None, adam)
    for got, want in zip(parts(second), parts(whole), strict=True):
        assert_close(got, want)
    for state in parts(lm.initial_state(3)):
        assert state.shape == (2, 3, 21)
        assert not state.any()


def test_the_cell_of_a_model():
    for cell in ("rnn", "gru", "lstm"):
        assert LanguageModel(5, 4, cell=cell, rng=0).cell == cell
    with pytest.raises(ValueError, match="cell must be one of 'rnn', 'gru', 'lstm', got 'GRU'"):
        LanguageModel(5, 4, cell="GRU")
    with pytest.raises(ValueError, match="nonlinearity is for cell='rnn'"):
        LanguageModel(5, 4, cell="gru", nonlinearity="relu")
    with pytest.raises(AttributeError, match="nonlinearity is of the cell 'rnn' only"):
        LanguageModel(5, 4, cell="gru").nonlinearity  # noqa: B018
    with pytest.raises(ValueError, match="cell must be one of"):
        CharRNN(8, cell="vanilla", verbose=0).fit(TEXT)


@every_cell
def test_steps_with_a_state(cell, backend, dtype):
    """An LSTM's stepper has a pair; those of a GRU are in `test_stepper`, with every model's."""
    rng = np.random.default_rng(0)
    for model in (LAYERS[cell](3, 9, 2, rng=0, dtype=dtype, backend=backend),
                  LanguageModel(7, 9, 2, cell=cell, rng=0, dtype=dtype, backend=backend)):  # fmt: skip
        for N in (None, 1, 6):
            h0 = state_of(cell, (2, 9) if N is None else (2, N, 9), rng, dtype)
            batched = h0 if N else tuple(a[:, None] for a in h0) if cell == "lstm" else h0[:, None]
            layer = isinstance(model, (GRU, LSTM))
            x = rng.normal(size=(8, N or 1, 3)).astype(dtype) if layer else rng.integers(7, size=(8, N or 1))
            want, last = model.forward(x, batched)
            xs = list(x) if N else [x_t[0] if layer else int(x_t[0]) for x_t in x]
            stepper = model.stepper(N, h0)
            got = [stepper.step(x_t) for x_t in xs[:5]]
            other = stepper.copy()
            stepper.step(xs[0])
            assert_close(np.stack(got), want[:5] if N else want[:5, 0])
            out = np.empty_like(got[0])
            got += [other.step(x_t, out=out).copy() for x_t in xs[5:]]
            assert_close(np.stack(got), want if N else want[:, 0])
            for state, wanted in zip(parts(other.state), parts(last), strict=True):
                assert_close(state, wanted if N else wanted[:, 0])
            other.state = h0
            assert bits(*parts(other.state)) == bits(*parts(h0))
            other.reset()
            assert not any(state.any() for state in parts(other.state))


@every_cell
def test_a_text_and_its_file(cell, backend, tmp_path):
    """fit, save, load, and a run that goes on with the same bits."""
    options = {
        "seq_len": 8,
        "batch_size": 4,
        "random_state": 0,
        "verbose": 0,
        "backend": backend,
        "cell": cell,
    }
    path = tmp_path / "model.safetensors"
    whole = CharRNN(16, 2, dropout=0.2, max_steps=40, validate_every=10, **options).fit(TEXT)
    CharRNN(16, 2, dropout=0.2, max_steps=20, validate_every=10, checkpoint=path, **options).fit(TEXT)
    going_on = CharRNN.load(path, checkpoint=path).set_params(max_steps=40).fit(TEXT, resume=True)
    assert going_on.cell == cell
    for name, W in whole.model_.parameters.items():
        assert bits(going_on.model_.parameters[name]) == bits(W)
    saved = tmp_path / "saved.safetensors"
    whole.save(saved)
    again = CharRNN.load(saved, backend=backend)
    assert again.generate(30, prompt="the ", random_state=1) == whole.generate(
        30, prompt="the ", random_state=1
    )
    assert again.score(TEXT) == whole.score(TEXT)
    assert [a.shape for a in parts(again.start_state_)] == [(2, 1, 16)] * (1 + (cell == "lstm"))
    assert len(again.generate(5, prompt="a", num_samples=3)) == 3
    with pytest.raises(ValueError, match="cell"):
        again.set_params(cell="rnn").fit(TEXT, resume=True)


def test_files_of_vanilla_models_are_as_they_were(tmp_path):
    """The version before reads them: nothing in them speaks of cells."""
    model = CharRNN(8, seq_len=8, batch_size=2, max_steps=3, verbose=0, random_state=0).fit(TEXT)
    model.save(tmp_path / "a.safetensors")
    content, arrays = read_checkpoint(tmp_path / "a.safetensors")
    assert "cell" not in content["params"]
    assert {name for name in arrays if "state" in name or "start" in name} == {
        "state",
        "start.last",
        "start.best",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "the hidden state is missing or has another shape"),
        ("shape", "array 'start.last_c' of shape"),
        ("cell", "is not one of this model's"),
        ("no cell", "cell must be one of"),
        ("more", "array 'state_d' of shape"),
    ],
)
def test_a_file_whose_state_does_not_fit(change, message, tmp_path):
    model = CharRNN(8, seq_len=8, batch_size=2, max_steps=3, verbose=0, random_state=0, cell="lstm").fit(TEXT)
    path = tmp_path / "a.safetensors"
    model.save(path)
    content, arrays = read_checkpoint(path)
    arrays = dict(arrays)
    if change == "missing":
        del arrays["state_c"]
    elif change == "shape":
        arrays["start.last_c"] = arrays["start.last_c"][..., :-1].copy()
    elif change == "more":
        arrays["state_d"] = arrays["state_c"].copy()
    else:
        content["params"]["cell"] = "gru" if change == "cell" else "transformer"
    write_checkpoint(path, content, arrays)
    with pytest.raises(CheckpointError, match=message):
        CharRNN.load(path)


# ---- the cells by hand ------------------------------------------------------------------------------


def test_the_cells_by_hand_are_the_references():
    """What the kernels' tests compare with, against the loops that are compared with PyTorch."""
    rng = np.random.default_rng(0)
    for cell, code in (("gru", GRU_CODE), ("lstm", LSTM_CODE)):
        plain, x = REFERENCES[cell](3, 5, rng=0), rng.normal(size=3)
        h0 = state_of(cell, (1, 5), rng)
        p, first = plain.parameters, tuple(a[0] for a in parts(h0))
        after = cells_by_hand.step(
            code,
            p["weight_ih_l0"] @ x + p["bias_ih_l0"],
            p["weight_hh_l0"] @ first[0] + p["bias_hh_l0"],
            first,
        )
        _, h_n = plain.forward(x[None], h0)
        for got, want in zip(after, parts(h_n), strict=True):
            assert_close(got, want[0])


@pytest.mark.parametrize("name", ["gru_forward", "lstm_forward"])
def test_functions_refuse_no_hidden_units(name):
    weights = {"weight_ih": np.zeros((0, 3)), "weight_hh": np.zeros((0, 0))}
    with pytest.raises(ValueError, match=r"weight_hh'\] must have at least one hidden unit"):
        getattr(functional, name)(np.zeros((2, 1, 3)), None, weights)
