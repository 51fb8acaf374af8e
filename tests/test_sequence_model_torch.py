"""`SequenceModel` against PyTorch's layers, a linear layer and PyTorch's losses, by its autograd."""

import math

import numpy as np
import pytest
from support import assert_close
from torch_support import (
    AGREEMENT,
    assert_agrees,
    random_state_dict,
    sizes_around_vectors,
    to_torch,
    torch_dtype,
    torch_forward,
    torch_input,
    torch_leaf,
)

from fastrnn import SequenceModel, optim

CELLS = {"tanh": {}, "relu": {"nonlinearity": "relu"}, "gru": {"cell": "gru"}, "lstm": {"cell": "lstm"}}
HEADS = ["each", "last", "mean"]
LOSSES = ["mse", "cross_entropy", "gaussian"]


class TorchSequenceModel:
    """PyTorch's modules with the weights of ours, put together as a user of PyTorch does."""

    def __init__(self, sm, loss):
        import torch

        self.torch, self.loss_name, self.head, self.dtype = torch, loss, sm.head, sm.dtype
        self.d, self.directions = sm.input_size, 1 + sm.bidirectional
        options = {"nonlinearity": sm.nonlinearity} if sm.cell == "rnn" else {}
        options |= {"bidirectional": sm.bidirectional, "dtype": torch_dtype(sm.dtype)}
        self.rnn = getattr(torch.nn, sm.cell.upper())(sm.input_size, sm.hidden_size, sm.num_layers, **options)
        k = sm.output_size * (2 if loss == "gaussian" else 1)
        self.out = torch.nn.Linear(sm.hidden_size * self.directions, k, dtype=torch_dtype(sm.dtype))
        weights = to_torch(sm.state_dict())
        self.out.load_state_dict({"weight": weights.pop("weight_out"), "bias": weights.pop("bias_out")})
        self.rnn.load_state_dict(weights)

    @property
    def parameters(self):
        named = dict(self.rnn.named_parameters())
        return named | {"weight_out": self.out.weight, "bias_out": self.out.bias}

    def forward(self, x, h0=None, lengths=None):
        torch = self.torch
        states, h_n = torch_forward(self.rnn, torch_input(x, self.d, self.dtype), torch_leaf(h0), lengths)
        if self.head == "last":
            last = h_n[0] if isinstance(h_n, tuple) else h_n
            states = torch.cat(list(last[-self.directions :]), dim=1)
        elif self.head == "mean":
            count = len(x) if lengths is None else torch.from_numpy(lengths)[:, None]
            states = states.sum(dim=0) / count
        return self.out(states), h_n

    def loss(self, x, y, h0=None, lengths=None, weights=None, reduction="mean"):
        torch, F = self.torch, self.torch.nn.functional
        outputs, h_n = self.forward(x, h0, lengths)
        rows = outputs.shape[:-1]
        factors = torch.ones(rows, dtype=outputs.dtype)
        if weights is not None:
            factors = factors * torch.from_numpy(weights)
        if lengths is not None and self.head == "each":
            factors = factors * (torch.arange(len(x))[:, None] < torch.from_numpy(lengths))
        target = torch.from_numpy(y)
        if self.loss_name == "cross_entropy":
            values = F.cross_entropy(
                outputs.reshape(-1, outputs.shape[-1]), target.reshape(-1), reduction="none"
            )
            values, factors = values.reshape(rows), factors * (target != -100)
        elif self.loss_name == "mse":
            values = F.mse_loss(outputs, target, reduction="none")
        else:
            mean, log_variance = outputs.chunk(2, dim=-1)
            values = F.gaussian_nll_loss(
                mean, target, log_variance.exp(), full=True, eps=1e-300, reduction="none"
            )
        if values.ndim > len(rows):
            factors = factors[..., None].expand(values.shape)
        total = (values * factors).sum()
        return (total / factors.sum() if reduction == "mean" else total), h_n

    def backward(self, loss):
        for W in self.parameters.values():
            W.grad = None
        loss.backward()
        return {name: W.grad for name, W in self.parameters.items()}


def a_batch(sm, loss, rng, T, N, *, classes, ragged, weighted):
    rows = (T, N) if sm.head == "each" else (N,)
    x = rng.integers(sm.input_size, size=(T, N)) if classes else rng.normal(size=(T, N, sm.input_size))
    if loss == "cross_entropy":
        y = rng.integers(sm.output_size, size=rows)
        y[rng.random(rows) < 0.3] = -100
        y.flat[0] = 0
    else:
        y = rng.normal(size=(*rows, sm.output_size)).astype(sm.dtype)
    h0 = [
        rng.normal(size=(sm.num_layers * (1 + sm.bidirectional), N, sm.hidden_size)).astype(sm.dtype)
        for _ in range(2)
    ]
    return {
        "x": x if classes else x.astype(sm.dtype), "y": y, "h0": tuple(h0) if sm.cell == "lstm" else h0[0],
        "lengths": rng.integers(1, T + 1, N) if ragged else None,
        "weights": rng.uniform(0.1, 2, rows).astype(sm.dtype) if weighted else None,
    }  # fmt: skip


def assert_same(sm, loss, reduction, **given):
    module = TorchSequenceModel(sm, loss)
    want, want_h_n = module.loss(**given, reduction=reduction)
    within = AGREEMENT[sm.dtype]
    value, grads, h_n = sm.loss_and_grads(**given, reduction=reduction)
    assert value == pytest.approx(float(want.detach()), rel=within, abs=within)
    assert_agrees(h_n, want_h_n, "h_n")
    wanted = module.backward(want)
    assert list(grads) == list(wanted)
    # In float32 a gradient that has come a long way down is as exact as those that it came from.
    largest = max(wanted.values(), key=lambda g: float(g.abs().max())).numpy()
    for name, g in grads.items():
        assert g.any(), name
        assert g.dtype == sm.dtype
        assert_close(g, wanted[name].numpy(), within, name, of=largest if sm.dtype == np.float32 else None)
    outputs, _ = sm.forward(given["x"], given["h0"], lengths=given["lengths"])
    expected = module.forward(given["x"], given["h0"], given["lengths"])[0].detach().numpy()
    if given["lengths"] is not None and sm.head == "each":  # PyTorch's linear layer gives its bias there
        expected = expected * (np.arange(len(expected))[:, None] < given["lengths"])[..., None]
    assert outputs.dtype == expected.dtype
    assert np.abs(outputs - expected).max() <= within * np.abs(expected).max()


@pytest.mark.many(500)
@pytest.mark.few(40)
@pytest.mark.parametrize("kind", ["plain", "ragged", "weighted", "ragged, weighted, classes"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_losses_and_gradients(cell, num_layers, bidirectional, head, loss, kind, backend, torch):
    """In float64 to 1e-9."""
    rng = np.random.default_rng([len(kind), num_layers, bidirectional])
    sm = SequenceModel(
        4, 9, 3, num_layers, bidirectional=bidirectional, head=head, loss=loss, dtype=np.float64, rng=1,
        backend=backend, **CELLS[cell],
    )  # fmt: skip
    given = a_batch(
        sm, loss, rng, 6, 7, classes="classes" in kind, ragged="ragged" in kind, weighted="weighted" in kind
    )
    for reduction in ("mean", "sum"):
        assert_same(sm, loss, reduction, **given)


@pytest.mark.parametrize("seed", range(60))
def test_random_models(seed, dtype, backend, torch):
    rng = np.random.default_rng(seed)
    cell = [*CELLS][seed % 4]
    head, loss = HEADS[rng.integers(3)], LOSSES[rng.integers(3)]
    d, h = sizes_around_vectors(rng, 40), sizes_around_vectors(rng, 40)
    size = int(rng.integers(2, 20))
    bidirectional = bool(rng.random() < 0.5)
    sm = SequenceModel(
        d, h, size, int(rng.integers(1, 4)), bidirectional=bidirectional, head=head, loss=loss, dtype=dtype,
        rng=seed, backend=backend, recompute_every=None if bidirectional or seed % 2 else int(rng.integers(1, 9)),
        **CELLS[cell],
    )  # fmt: skip
    sm.load_state_dict(
        random_state_dict({name: W.shape for name, W in sm.parameters.items()}, rng, dtype, 1.3)
    )
    T = int(rng.integers(1, 13))
    yes = rng.random(3) < [0.3, 0.6, 0.4]
    given = a_batch(
        sm, loss, rng, T, sizes_around_vectors(rng, 35), classes=yes[0] and d > 1, ragged=yes[1], weighted=yes[2]
    )  # fmt: skip
    if yes[0] and given["x"].ndim == 2 and given["x"].shape[1] == d:
        given["x"][0] = 0  # no row that looks like a one-hot vector
    assert_same(sm, loss, ("mean", "sum")[seed % 2], **given)


@pytest.mark.few(9)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_twenty_steps_of_adam(cell, head, loss, backend, torch):
    """Clipped by their norm, ragged, the last state carried on: PyTorch's losses, norms and parameters."""
    rng = np.random.default_rng(3)
    sm = SequenceModel(
        4, 9, 3, 2, bidirectional=head == "mean", head=head, loss=loss, dtype=np.float64, rng=1, backend=backend,
        **CELLS[cell],
    )  # fmt: skip
    module = TorchSequenceModel(sm, loss)
    adam, theirs = (
        optim.Adam(0.02, backend=backend),
        torch.optim.Adam(module.parameters.values(), lr=0.02),
    )
    state = their_state = None
    clipped = losses = 0
    for _ in range(20):
        given = a_batch(sm, loss, rng, 5, 8, classes=False, ragged=True, weighted=True)
        del given["h0"]
        want, their_state = module.loss(**given, h0=their_state)
        grads = module.backward(want).values()
        norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads])))
        if norm > 0.1:
            for g in grads:
                g *= 0.1 / norm
        clipped += norm > 0.1
        theirs.step()
        detached = tuple if isinstance(their_state, tuple) else next
        their_state = detached(
            s.detach().numpy().copy()
            for s in (their_state if isinstance(their_state, tuple) else (their_state,))
        )
        loss_, state = sm.train_step(
            given["x"], given["y"], state, adam, lengths=given["lengths"], weights=given["weights"],
            clip_threshold=0.1,
        )  # fmt: skip
        assert loss_ == pytest.approx(float(want.detach()), rel=1e-8)
        assert sm.grad_norm == pytest.approx(norm, rel=1e-8)
        assert_agrees(state, torch_leaf(their_state), "h_n", 1e-8)
        losses += loss_
    assert clipped > 0
    assert math.isfinite(losses)
    for name, W in sm.parameters.items():
        assert_agrees(W, module.parameters[name], name, 1e-7)


@pytest.mark.parametrize("cell", CELLS)
def test_a_module_of_pytorch_loads(cell, dtype, backend, torch):
    """Its state_dict, under the names of the layers; tensors that require grad and other dtypes."""
    kind, options = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}.get(cell, torch.nn.RNN), {}
    if cell == "relu":
        options["nonlinearity"] = "relu"
    rnn = kind(5, 8, 2, bidirectional=True, dtype=torch.float64, **options)
    out = torch.nn.Linear(16, 3, dtype=torch.float64)
    sm = SequenceModel(
        5, 8, 3, 2, bidirectional=True, head="mean", dtype=dtype, rng=0, backend=backend, **CELLS[cell]
    )  # fmt: skip
    for weights in (rnn.state_dict(), dict(rnn.named_parameters())):
        assert sm.load_state_dict(weights | {"weight_out": out.weight, "bias_out": out.bias}) == ([], [])
    x = np.random.default_rng(0).normal(size=(6, 4, 5)).astype(dtype)
    with torch.no_grad():
        states, _ = rnn(torch.from_numpy(x.astype(np.float64)))
        want = out(states.mean(dim=0)).numpy()
    got, _ = sm.forward(torch.from_numpy(x))
    assert got.dtype == dtype
    assert np.abs(got - want).max() <= AGREEMENT[np.dtype(dtype)] * np.abs(want).max()
    assert not any(
        np.shares_memory(sm.parameters[name], W.detach().numpy()) for name, W in rnn.named_parameters()
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_the_losses_of_pytorch_as_they_are(loss, dtype, backend, torch):
    """Their own means, also of targets that do not count; the Gaussian with its constant."""
    F = torch.nn.functional
    sm = SequenceModel(4, 9, 3, loss=loss, dtype=dtype, rng=1, backend=backend)
    given = a_batch(sm, loss, np.random.default_rng(0), 6, 7, classes=False, ragged=False, weighted=False)
    outputs = torch.from_numpy(sm.forward(given["x"])[0])
    y = torch.from_numpy(given["y"])
    want = {
        "mse": lambda: F.mse_loss(outputs, y),
        "cross_entropy": lambda: F.cross_entropy(outputs.flatten(0, 1), y.flatten()),
        "gaussian": lambda: F.gaussian_nll_loss(outputs[..., :3], y, outputs[..., 3:].exp(), full=True),
    }[loss]()
    assert sm.loss(given["x"], given["y"])[0] == pytest.approx(float(want), rel=AGREEMENT[np.dtype(dtype)])
