"""`RNN`, `GRU` and `LSTM` against PyTorch's under autograd: values, gradients, weights to and fro, dropout."""

import numpy as np
import pytest
from support import assert_close, bits
from torch_support import (
    Case,
    assert_agrees,
    random_state_dict,
    torch_dtype,
    torch_forward,
    torch_input,
    torch_leaf,
    torch_rnn,
)

import fastrnn
from fastrnn import RNN

every_layer = pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])


def parts(state):
    """The arrays or tensors of a state."""
    return state if isinstance(state, tuple) else (state,)


def agree_on(rnn, module, x, h0, lengths, grad_output, grad_h_n, what=""):
    """Both run forward and backward; every value and gradient agrees."""
    import torch

    theirs_x = torch_input(x, rnn.input_size, rnn.dtype)
    theirs_h0 = torch_leaf(h0)
    want_output, want_h_n = torch_forward(module, theirs_x, theirs_h0, lengths)
    output, h_n = rnn.forward(x, h0, lengths=lengths)
    assert_agrees(output, want_output, f"{what} output")
    assert_agrees(h_n, want_h_n, f"{what} h_n")

    goal = (want_output * torch.from_numpy(grad_output)).sum()
    if grad_h_n is not None:
        for want, grad in zip(parts(want_h_n), parts(grad_h_n), strict=True):
            goal = goal + (want * torch.from_numpy(grad)).sum()
    module.zero_grad()
    goal.backward()
    grad_x, grad_h0 = rnn.backward(grad_output, grad_h_n)
    if x.dtype.kind in "iu":
        assert grad_x is None
    else:
        assert_agrees(grad_x, theirs_x.grad, f"{what} grad_x")
    if h0 is not None:
        for got, leaf in zip(parts(grad_h0), parts(theirs_h0), strict=True):
            assert_agrees(got, leaf.grad, f"{what} grad_h0")
    assert [g.shape for g in parts(grad_h0)] == [h.shape for h in parts(h_n)]
    wanted = dict(module.named_parameters())
    assert list(rnn.grads) == list(wanted)
    for name, parameter in wanted.items():
        assert_agrees(rnn.grads[name], parameter.grad, f"{what} {name}")


@pytest.mark.parametrize("seed", range(150))
@every_layer
def test_values_and_gradients(kind, seed, dtype, backend, torch):
    case = Case(seed, dtype, kind)
    layers = getattr(fastrnn, kind)
    rnn = layers(case.input_size, case.hidden_size, **case.options, dtype=dtype, rng=seed, backend=backend)
    shapes = {name: W.shape for name, W in rnn.state_dict().items()}
    rnn.load_state_dict(random_state_dict(shapes, np.random.default_rng(seed), dtype, 1.3))
    states = *parts(case.h0), *parts(case.grad_h_n)
    given = [a for a in (case.x, case.lengths, case.grad_output, *states) if a is not None]
    before = bits(*given)
    agree_on(rnn, torch_rnn(rnn), case.x, case.h0, case.lengths, case.grad_output, case.grad_h_n, repr(case))
    assert bits(*given) == before


def test_the_random_cases_cover_the_options():
    """Each value of each option, and each pair of them, is among them."""
    flags = []
    for seed in range(150):
        case = Case(seed, np.float64)
        flags.append([
            case.options["nonlinearity"] == "relu", case.options["bias"], case.options["batch_first"],
            case.options["bidirectional"], case.options["num_layers"] > 1, case.x.dtype.kind == "i",
            case.lengths is not None, case.h0 is None, case.grad_h_n is None, case.T > 1, case.N > 8,
        ])  # fmt: skip
    flags = np.array(flags)
    for a in range(flags.shape[1]):
        for b in range(a):
            for wanted in ((0, 0), (0, 1), (1, 0), (1, 1)):
                if {a, b} & {9} and wanted[0 if a == 9 else 1] == 0:
                    continue  # a single step is rare enough to be left to the tests of shapes
                assert (flags[:, [a, b]] == wanted).all(axis=1).any(), (a, b, wanted)
    assert {Case(seed, np.float64).x.shape[1:] == () for seed in range(150)} == {False, True}


@pytest.mark.parametrize(
    ("T", "N", "d", "h"), [(1, 1, 1, 1), (1, 5, 3, 8), (30, 64, 65, 64), (9, 33, 130, 70), (3, 40, 300, 257)]
)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["tanh", "relu", "GRU", "LSTM"])
def test_shapes(T, N, d, h, bidirectional, kind, dtype, backend, torch):
    rng = np.random.default_rng(h)
    options = {"bidirectional": bidirectional, "dtype": dtype, "rng": 1, "backend": backend}
    if kind in ("GRU", "LSTM"):
        rnn = getattr(fastrnn, kind)(d, h, **options)
    else:
        rnn = RNN(d, h, nonlinearity=kind, **options)
    D = 1 + bidirectional
    h0, grad_h_n = rng.normal(size=(2, D, N, h)).astype(dtype)
    if kind == "LSTM":
        h0, grad_h_n = (h0, np.tanh(grad_h_n)), (grad_h_n, h0)
    grad_output = rng.normal(size=(T, N, D * h)).astype(dtype)
    module = torch_rnn(rnn)
    lengths = rng.integers(1, T + 1, N)
    for x in (rng.normal(size=(T, N, d)).astype(dtype), rng.integers(d, size=(T, N))):
        agree_on(rnn, module, x, h0, None, grad_output, grad_h_n)
        agree_on(rnn, module, x, h0, lengths, grad_output, grad_h_n, "ragged")


@pytest.mark.parametrize("lengths", [[1], [4], [6, 1, 1], [1, 6, 3], [6, 6, 6], [2, 2, 2]])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@every_layer
def test_lengths(kind, lengths, bidirectional, batch_first, dtype, backend, torch):
    """What stands past a sequence's end (NaN here) reaches nothing."""
    T, N, d, h = 6, len(lengths), 5, 9
    rng = np.random.default_rng(len(lengths))
    D = 1 + bidirectional
    rnn = getattr(fastrnn, kind)(
        d, h, 2, batch_first=batch_first, bidirectional=bidirectional, dtype=dtype, rng=3, backend=backend
    )
    ended = np.arange(T)[:, None] >= np.array(lengths)
    x = rng.normal(size=(T, N, d)).astype(dtype)
    grad_output = rng.normal(size=(T, N, D * h)).astype(dtype)
    if batch_first:
        ended, x, grad_output = ended.T, x.swapaxes(0, 1).copy(), grad_output.swapaxes(0, 1).copy()
    grad_h_n = rng.normal(size=(2 * D, N, h)).astype(dtype)
    if kind == "LSTM":
        grad_h_n = grad_h_n, np.tanh(grad_h_n)
    agree_on(rnn, torch_rnn(rnn), x, None, np.array(lengths), grad_output, grad_h_n)

    def all_bits(output, h_n, grad_x, grad_h0):
        return bits(output, *parts(h_n), grad_x, *parts(grad_h0), *rnn.grads.values())

    clean = all_bits(*rnn.forward(x, lengths=lengths), *rnn.backward(grad_output, grad_h_n))
    x[ended] = np.nan
    grad_output[ended] = np.nan
    output, h_n = rnn.forward(x, lengths=lengths)
    assert not output[ended].any()
    grad_x, grad_h0 = rnn.backward(grad_output, grad_h_n)
    assert not grad_x[ended].any()
    assert all_bits(output, h_n, grad_x, grad_h0) == clean


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("with_h0", [False, True])
@every_layer
def test_no_sequences(kind, with_h0, bidirectional, batch_first, dtype, backend, torch):
    """Shapes, dtypes and the parameters' gradients of zeros."""
    rnn = getattr(fastrnn, kind)(
        3, 4, 2, bidirectional=bidirectional, batch_first=batch_first, dtype=dtype, rng=0, backend=backend
    )
    module = torch_rnn(rnn)
    x = np.empty((0, 5, 3) if batch_first else (5, 0, 3), dtype)
    leaf, h0 = torch_leaf(x), np.empty((2 + 2 * bidirectional, 0, 4), dtype) if with_h0 else None
    if kind == "LSTM" and with_h0:
        h0 = h0, h0.copy()
    theirs, theirs_h_n = module(leaf, torch_leaf(h0))
    sum(t.sum() for t in (theirs, *parts(theirs_h_n))).backward()
    ours, h_n = rnn(x, h0)
    ones = tuple(map(np.ones_like, parts(h_n)))
    grad_x, grad_h0 = rnn.backward(np.ones_like(ours), ones if kind == "LSTM" else ones[0])
    got_arrays = ours, *parts(h_n), grad_x, *parts(grad_h0)
    wanted = theirs, *parts(theirs_h_n), leaf.grad, *parts(theirs_h_n)
    for got, want in zip(got_arrays, wanted, strict=True):
        assert got.shape == tuple(want.shape)
        assert got.dtype == want.detach().numpy().dtype
    for name, parameter in module.named_parameters():
        assert np.array_equal(rnn.grads[name], parameter.grad.numpy())


def test_what_is_called_as_in_torch(torch):
    """A call, `hx`, what `load_state_dict` returns, and the warning of dropout that has no effect."""
    rnn = RNN(3, 4, 2, rng=0)
    module = torch_rnn(rnn)
    x, h0 = np.random.default_rng(0).normal(size=(2, 2, 2, 4)).astype(np.float32)
    x = x[..., :3]
    given = torch.from_numpy(x.copy()), torch.from_numpy(h0)
    assert_agrees(rnn(x, h0)[0], module(*given)[0])
    assert_agrees(rnn(x, hx=h0)[0], module(given[0], hx=given[1])[0])
    for state in ({}, {"weight_hh_l0": torch.ones(4, 4), "other": torch.ones(1)}, module.state_dict()):
        ours, theirs = rnn.load_state_dict(state, strict=False), module.load_state_dict(state, strict=False)
        assert tuple(ours) == tuple(theirs)
        assert repr(ours) == repr(theirs).removeprefix("_")
    for kind in (RNN, torch.nn.RNN):
        with pytest.warns(UserWarning, match=r"(?s)dropout=0\.5 .*num_layers=1"):
            kind(3, 4, dropout=0.5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
@every_layer
def test_weights_of_torch_and_back(kind, num_layers, bidirectional, bias, dtype, backend, torch):
    options = {"num_layers": num_layers, "bias": bias, "bidirectional": bidirectional}
    torch.manual_seed(5)
    module = getattr(torch.nn, kind)(6, 7, **options, dtype=torch_dtype(dtype))
    rnn = getattr(fastrnn, kind)(6, 7, **options, dtype=dtype, rng=0, backend=backend)
    rnn.load_state_dict(module.state_dict())
    ours, theirs = rnn.state_dict(), module.state_dict()
    assert list(ours) == list(theirs)
    for name, W in ours.items():
        assert W.dtype == dtype
        assert np.array_equal(W, theirs[name].numpy())
    before = bits(*ours.values())
    with torch.no_grad():
        for W in module.parameters():
            W.zero_()
    assert bits(*rnn.state_dict().values()) == before, "the tensors' memory was taken, not copied"
    module.load_state_dict({name: torch.from_numpy(W) for name, W in ours.items()})
    x = np.random.default_rng(0).normal(size=(4, 3, 6)).astype(dtype)
    assert_agrees(rnn.forward(x)[0], module(torch.from_numpy(x))[0])


@pytest.mark.parametrize("kind", ["parameters", "requires_grad", "other dtype", "OrderedDict", "strided"])
def test_tensors_of_every_kind(kind, dtype, backend, torch):
    module = torch.nn.RNN(4, 5, 2, dtype=torch_dtype(dtype))
    mapping = dict(
        module.named_parameters() if kind in ("parameters", "requires_grad") else module.state_dict()
    )
    if kind == "other dtype":
        other = np.float32 if dtype is np.float64 else np.float64
        mapping = {name: W.to(torch_dtype(other)) for name, W in mapping.items()}
    if kind == "strided":
        mapping = {
            name: torch.stack([W, W], dim=-1)[..., 1] if W.ndim == 1 else W.t().contiguous().t()
            for name, W in mapping.items()
        }
    rnn = RNN(4, 5, 2, dtype=dtype, rng=0, backend=backend)
    rnn.load_state_dict(mapping)
    for name, W in rnn.parameters.items():
        assert W.dtype == dtype
        assert np.array_equal(W, mapping[name].detach().numpy().astype(dtype))


def test_integer_vectors_are_not_torchs_business(backend, torch):
    """Class indices give what the same classes as one-hot vectors give, gradients of the weights included."""
    rnn = RNN(5, 6, 2, bidirectional=True, dtype=np.float64, rng=0, backend=backend)
    x = np.random.default_rng(0).integers(5, size=(7, 3))
    grad = np.random.default_rng(1).normal(size=(7, 3, 12))
    output, h_n = rnn.forward(x)
    assert rnn.backward(grad)[0] is None
    grads = {name: g.copy() for name, g in rnn.grads.items()}
    dense, dense_h_n = rnn.forward(np.eye(5)[x])
    assert rnn.backward(grad)[0].shape == (7, 3, 5)
    assert_close(output, dense, 1e-13)
    assert_close(h_n, dense_h_n, 1e-13)
    for name, g in grads.items():
        assert_close(g, rnn.grads[name], 1e-13, name)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@every_layer
def test_dropout_in_eval_mode_is_torchs(kind, num_layers, dtype, backend, torch):
    rng = np.random.default_rng(2)
    dropout = 0.4 if num_layers > 1 else 0.0
    rnn = getattr(fastrnn, kind)(6, 9, num_layers, dropout=dropout, dtype=dtype, rng=0, backend=backend)
    rnn.eval()
    module = torch_rnn(rnn)
    module.eval()
    x = rng.normal(size=(5, 4, 6)).astype(dtype)
    grad_output = rng.normal(size=(5, 4, 9)).astype(dtype)
    agree_on(rnn, module, x, None, None, grad_output, None)


def mask_of(rnn, state, x):
    """Dropout's factors on the input of the second of two layers, for a state of its Generator.

    The first layer gives no zeros; the second gives zeros where its input has them, and remembers nothing.
    """
    probe = {name: np.zeros_like(W) for name, W in rnn.state_dict().items()}
    h, gated = rnn.hidden_size, not isinstance(rnn, RNN)
    for half, direction in enumerate(("", "_reverse")[: 1 + rnn.bidirectional]):
        probe[f"bias_ih_l0{direction}"][:] = 1
        probe[f"weight_ih_l1{direction}"][2 * h * gated :][:h, half * h : (half + 1) * h] = np.eye(
            h
        )  # n or g
        if gated:
            probe[f"bias_ih_l1{direction}"][h : 2 * h] = -1000  # z or f, shut
    kept = rnn.state_dict()
    rnn.load_state_dict(probe)
    rnn.rng.bit_generator.state = state
    output, _ = rnn.forward(x)
    rnn.load_state_dict(kept)
    return np.where(output == 0, 0, 1 / (1 - rnn.dropout)).astype(output.dtype)


@pytest.mark.parametrize("dropout", [0.25, 0.6])
@pytest.mark.parametrize("bidirectional", [False, True])
@every_layer
def test_dropout_between_layers_by_its_mask(kind, bidirectional, dropout, dtype, backend, torch):
    """Two modules of torch with the mask of our Generator's state between them: values and gradients."""
    d, h, T, N, D = 5, 12, 7, 20, 1 + bidirectional
    rng = np.random.default_rng(3)
    options = {"nonlinearity": "relu"} if kind == "RNN" else {}
    rnn = getattr(fastrnn, kind)(
        d, h, 2, **options, dropout=dropout, bidirectional=bidirectional, dtype=dtype, rng=7, backend=backend
    )
    x = rng.normal(size=(T, N, d)).astype(dtype)
    h0, grad_h_n = rng.normal(size=(2, 2 * D, N, h)).astype(dtype)
    if kind == "LSTM":
        h0, grad_h_n = (h0, np.tanh(grad_h_n)), (grad_h_n, h0)
    grad_output = rng.normal(size=(T, N, D * h)).astype(dtype)
    state = rnn.rng.bit_generator.state
    mask = mask_of(rnn, state, x)
    assert 0.5 * dropout < np.mean(mask == 0) < 1.5 * dropout

    def module(layer, size):
        layers = getattr(torch.nn, kind)
        single = layers(size, h, **options, bidirectional=bidirectional, dtype=torch_dtype(dtype))
        single.load_state_dict({
            name.replace(f"_l{layer}", "_l0"): torch.from_numpy(W)
            for name, W in rnn.state_dict().items() if f"_l{layer}" in name
        })  # fmt: skip
        return single

    first, second = module(0, d), module(1, D * h)
    theirs_x, theirs_h0 = torch_leaf(x), torch_leaf(h0)

    def states_of(rows):
        taken = tuple(leaf[rows] for leaf in parts(theirs_h0))
        return taken if kind == "LSTM" else taken[0]

    below, h_n_first = first(theirs_x, states_of(slice(D)))
    want_output, h_n_second = second(below * torch.from_numpy(mask), states_of(slice(D, None)))
    want_h_n = tuple(map(torch.cat, zip(parts(h_n_first), parts(h_n_second), strict=True)))
    goal = (want_output * torch.from_numpy(grad_output)).sum()
    for want, grad in zip(want_h_n, parts(grad_h_n), strict=True):
        goal = goal + (want * torch.from_numpy(grad)).sum()
    goal.backward()

    rnn.rng.bit_generator.state = state
    output, h_n = rnn.forward(x, h0)
    assert_agrees(output, want_output)
    assert_agrees(parts(h_n), want_h_n)
    grad_x, grad_h0 = rnn.backward(grad_output, grad_h_n)
    assert_agrees(grad_x, theirs_x.grad, "grad_x")
    for got, leaf in zip(parts(grad_h0), parts(theirs_h0), strict=True):
        assert_agrees(got, leaf.grad, "grad_h0")
    for layer, single in enumerate((first, second)):
        for name, W in single.named_parameters():
            ours = name.replace("_l0", f"_l{layer}")
            assert_agrees(rnn.grads[ours], W.grad, ours)
