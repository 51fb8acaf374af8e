"""The linear layer and the losses of real values against PyTorch's functions, gradients by autograd."""

import numpy as np
import pytest
import torch_support  # noqa: F401 - skips this module where PyTorch is missing
from functional_support import normal

from fastrnn import functional as F

SHAPES = [(), (1,), (7,), (3, 5), (2, 3, 4), (40, 30)]


def agree(ours, tensor, dtype):
    """Within 1e-12 of the largest entry."""
    theirs = tensor.detach().numpy()
    assert ours.dtype == theirs.dtype == dtype
    assert ours.shape == theirs.shape
    tolerance = 1e-12 if dtype == np.float64 else 2e-6
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()
    assert theirs.any()


def leaves(torch, *arrays):
    return [torch.from_numpy(np.array(array)).requires_grad_() for array in arrays]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("outer", [(), (1,), (6,), (2, 3), (2, 1, 30)])
def test_linear(outer, with_bias, dtype, torch):
    m, n = 5, 9
    x, weight, bias, grad = (
        normal(shape, dtype, i, 1.0) for i, shape in enumerate([(*outer, n), (m, n), (m,), (*outer, m)])
    )
    tensors = leaves(torch, x, weight, bias)
    theirs = torch.nn.functional.linear(*tensors[: 2 + with_bias])
    (theirs * torch.from_numpy(grad)).sum().backward()
    agree(F.linear(x, weight, bias if with_bias else None), theirs, dtype)
    gradients = F.linear_backward(grad, x, weight)
    for ours, leaf in zip(gradients[: 2 + with_bias], tensors, strict=False):
        agree(ours, leaf.grad, dtype)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_mse_loss(shape, reduction, dtype, torch):
    given, target = normal(shape, dtype, 0), normal(shape, dtype, 1)
    grad = normal(shape if reduction == "none" else (), dtype, 2)
    leaf, wanted = leaves(torch, given, target)
    theirs = torch.nn.functional.mse_loss(leaf, wanted, reduction=reduction)
    (theirs * torch.from_numpy(grad)).sum().backward()
    agree(np.asarray(F.mse_loss(given, target, reduction), dtype), theirs, dtype)
    ours = F.mse_loss_backward(given, target, reduction, grad_output=grad)
    agree(ours, leaf.grad, dtype)
    agree(-ours, wanted.grad, dtype)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gaussian_nll_loss(shape, reduction, dtype, torch):
    mean, log_variance, target = (normal(shape, dtype, i, 1.0) for i in range(3))
    grad = normal(shape if reduction == "none" else (), dtype, 3)
    m, v, t = leaves(torch, mean, log_variance, target)
    theirs = torch.nn.functional.gaussian_nll_loss(m, t, v.exp(), full=True, eps=1e-30, reduction=reduction)
    (theirs * torch.from_numpy(grad)).sum().backward()
    agree(np.asarray(F.gaussian_nll_loss(mean, log_variance, target, reduction), dtype), theirs, dtype)
    grad_mean, grad_log_variance = F.gaussian_nll_loss_backward(
        mean, log_variance, target, reduction, grad_output=grad
    )
    agree(grad_mean, m.grad, dtype)
    agree(-grad_mean, t.grad, dtype)
    agree(grad_log_variance, v.grad, dtype)


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_sums_over_nothing(shape, torch):
    """Their mean over nothing is NaN, ours 0; the sums are the same."""
    empty = np.empty(shape)
    theirs = torch.from_numpy(empty)
    assert F.mse_loss(empty, empty, "sum") == float(
        torch.nn.functional.mse_loss(theirs, theirs, reduction="sum")
    )
    assert np.isnan(float(torch.nn.functional.mse_loss(theirs, theirs)))
    assert F.mse_loss(empty, empty) == 0
