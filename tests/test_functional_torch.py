"""`fastrnn.functional` against PyTorch's functions, gradients by autograd."""

import itertools

import numpy as np
import pytest
import torch_support  # noqa: F401 - skips this module where PyTorch is missing
from functional_support import Layer, gradients, normal
from support import assert_close

from fastrnn import functional as F


class Loss:
    """Random arguments of `cross_entropy`."""

    def __init__(self, seed, dtype):
        rng = np.random.default_rng(seed)
        self.shape = [(7,), (1, 1), (3, 7), (20, 65), (2, 3, 4)][rng.integers(5)]
        q, rows = self.shape[-1], self.shape[:-1]
        self.reduction = ["mean", "sum", "none"][rng.integers(3)]
        self.logits = normal(self.shape, dtype, seed)
        self.targets = np.asarray(rng.integers(q, size=rows))
        self.options = {"label_smoothing": float(rng.choice([0, 0, 0.1, 0.7, 1]))}
        if rng.random() < 0.6:
            # One that is no class, or one that is.
            ignored = self.options["ignore_index"] = int(rng.choice([-100, -1, 300, q // 2]))
            self.targets = np.where(rng.random(rows) < rng.choice([0.3, 1]), ignored, self.targets)
        if rng.random() < 0.5:
            self.options["weight"] = rng.random(q).astype(dtype) * (rng.random(q) < 0.9)
        self.grad = normal(rows if self.reduction == "none" else (), dtype, seed)

    def options_of_torch(self, torch):
        weight = self.options.get("weight")
        return self.options | {"weight": None if weight is None else torch.from_numpy(weight)}


@pytest.mark.parametrize("seed", range(200))
def test_cross_entropy(seed, dtype, torch):
    case = Loss(seed, dtype)
    leaf = torch.from_numpy(case.logits.copy()).requires_grad_()
    theirs = torch.nn.functional.cross_entropy(
        leaf.reshape(-1, case.shape[-1]), torch.from_numpy(case.targets.reshape(-1)),
        reduction=case.reduction, **case.options_of_torch(torch),
    ).reshape(case.grad.shape)  # fmt: skip
    (theirs * torch.from_numpy(case.grad)).sum().backward()
    loss = F.cross_entropy(case.logits, case.targets, case.reduction, **case.options)
    gradient = F.cross_entropy_backward(
        case.logits, case.targets, case.reduction, grad_output=case.grad, **case.options
    )
    assert gradient.dtype == dtype
    assert gradient.shape == case.shape
    if torch.isnan(theirs).any():  # their mean over nothing
        assert loss == 0
        assert not gradient.any()
        return
    tolerance = 1e-12 if dtype == np.float64 else 2e-5
    assert np.allclose(loss, theirs.detach().numpy(), rtol=tolerance, atol=tolerance)
    assert np.allclose(gradient, leaf.grad.numpy(), rtol=tolerance, atol=tolerance)
    assert np.array_equal(gradient.any(axis=-1), leaf.grad.numpy().any(axis=-1)) or case.shape[-1] == 1


def test_the_random_cases_cover_the_options():
    """Each value of each option, and each pair of them, is among them."""
    flags = []
    for seed in range(200):
        case = Loss(seed, np.float64)
        ignored = case.options.get("ignore_index", -100)
        flags.append([
            case.reduction == "mean", case.reduction == "none", case.options["label_smoothing"] > 0,
            "weight" in case.options, bool((case.targets == ignored).any()), 0 <= ignored < case.shape[-1],
        ])  # fmt: skip
    flags = np.array(flags)
    for a, b in itertools.combinations(range(flags.shape[1]), 2):
        for wanted in itertools.product((False, True), repeat=2):
            if (a, b, *wanted) != (0, 1, True, True):
                assert (flags[:, [a, b]] == wanted).all(axis=1).any(), (a, b, wanted)


@pytest.mark.parametrize("seed", range(5))
def test_softmax(seed, dtype, torch):
    x = normal((4, 33, 3), dtype, seed)
    for axis in (-1, 0, 1):
        for ours, theirs in ((F.softmax, torch.softmax), (F.log_softmax, torch.log_softmax)):
            assert_close(ours(x, axis), theirs(torch.from_numpy(x), axis).numpy())


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
@pytest.mark.parametrize("seed", range(10))
def test_clip_grad_norm(seed, max_norm, dtype, torch):
    """Theirs divides by the norm plus 1e-6."""
    grads = {"W": normal((7, 5), dtype, seed, 1.0), "number": normal((), dtype, seed + 1, 1.0)}
    tensors = [torch.nn.Parameter(torch.zeros(g.shape, dtype=getattr(torch, np.dtype(dtype).name))) for g in
               grads.values()]  # fmt: skip
    for tensor, g in zip(tensors, grads.values(), strict=True):
        tensor.grad = torch.from_numpy(g.copy())
    theirs = float(torch.nn.utils.clip_grad_norm_(tensors, max_norm))
    norm = F.clip_grad_norm(grads, max_norm)
    assert norm == pytest.approx(theirs, rel=1e-12 if dtype == np.float64 else 1e-5)
    expected = (norm + 1e-6) / norm if norm > max_norm else 1.0
    for tensor, g in zip(tensors, grads.values(), strict=True):
        assert_close(g, tensor.grad.numpy().astype(np.float64) * expected)


@pytest.mark.parametrize("seed", range(10))
def test_rnn(seed, dtype, torch):
    """Under autograd, the reverse direction as that of a bidirectional layer."""
    case = Layer(300 + seed, dtype)
    case.options["lengths"] = None
    size = getattr(torch, np.dtype(dtype).name)
    x = np.eye(case.d, dtype=dtype)[case.x] if case.one_hot else case.x
    x = torch.from_numpy(x.copy()).requires_grad_()
    h0 = torch.zeros(case.N, case.h, dtype=size) if case.h0 is None else torch.from_numpy(case.h0.copy())
    h0.requires_grad_()
    parameters = {name: torch.from_numpy(W.copy()).requires_grad_() for name, W in case.parameters.items()}
    bias = [parameters.get(name, torch.zeros(case.h, dtype=size)) for name in ("bias_ih", "bias_hh")]
    cell = {"tanh": torch.rnn_tanh_cell, "relu": torch.rnn_relu_cell}[case.options["nonlinearity"]]
    states, state = [None] * case.T, h0
    for t in reversed(range(case.T)) if case.options["reverse"] else range(case.T):
        state = states[t] = cell(x[t], state, parameters["weight_ih"], parameters["weight_hh"], *bias)
    loss = (torch.stack(states) * torch.from_numpy(case.grad_output)).sum()
    if case.grad_h_n is not None:
        loss = loss + (state * torch.from_numpy(case.grad_h_n)).sum()
    loss.backward()
    output, h_n = case.forward()
    tolerance = 1e-9 if dtype == np.float64 else 1e-4
    assert_close(output, torch.stack(states).detach().numpy(), tolerance)
    assert_close(h_n, state.detach().numpy(), tolerance)
    grad_x, grad_h0, grads = case.backward(output)
    if grad_x is not None:
        assert_close(grad_x, x.grad.numpy(), tolerance)
    assert_close(grad_h0, h0.grad.numpy(), tolerance)
    for name, W in parameters.items():
        assert_close(grads[name], W.grad.numpy(), tolerance, name)


@pytest.mark.parametrize("seed", range(3))
def test_torch_clip_grad_value(seed, dtype, torch):
    grads = gradients(dtype, seed, 3.0)
    tensors = [torch.nn.Parameter(torch.zeros(g.shape, dtype=getattr(torch, np.dtype(dtype).name))) for g in
               grads.values()]  # fmt: skip
    for tensor, g in zip(tensors, grads.values(), strict=True):
        tensor.grad = torch.from_numpy(g.copy())
    torch.nn.utils.clip_grad_value_(tensors, 1.5)
    F.clip_grad_value(grads, 1.5)
    for tensor, g in zip(tensors, grads.values(), strict=True):
        assert np.array_equal(tensor.grad.numpy(), g)
