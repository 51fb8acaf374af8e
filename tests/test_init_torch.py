"""`fastrnn.init` against ``torch.nn.init``: names, arguments, and what they make of a matrix."""

import inspect
import math

import numpy as np
import pytest
import torch_support  # noqa: F401 - skips this module where PyTorch is missing

from fastrnn import init

NAMES = ["uniform_", "normal_", "eye_", "orthogonal_"]


@pytest.mark.parametrize("name", NAMES)
def test_the_arguments_are_theirs(name, torch):
    ours = dict(inspect.signature(getattr(init, name)).parameters)
    theirs = dict(inspect.signature(getattr(torch.nn.init, name)).parameters)
    theirs["array"], theirs["rng"] = theirs.pop("tensor"), theirs.pop("generator", None)
    assert {n: p.default for n, p in ours.items()} == {
        n: theirs[n].default if theirs[n] else None for n in ours
    }
    assert set(theirs) - set(ours) <= {"rng"}


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (2, 5), (5, 2), (0, 3)])
def test_eye(shape, dtype, torch):
    wanted = torch.nn.init.eye_(torch.full(shape, 9.0)).numpy()
    assert np.array_equal(init.eye_(np.full(shape, 9, dtype)), wanted)


@pytest.mark.parametrize("gain", [1.0, -0.5, math.sqrt(2)])
@pytest.mark.parametrize("shape", [(1, 1), (6, 6), (3, 8), (8, 3), (2, 3, 4), (0, 3)])
def test_orthogonal(shape, gain, torch, monkeypatch):
    """Theirs, of the same draws: theirs are drawn in the shape that is decomposed or its transpose."""
    draws = np.random.default_rng(2).normal(size=(shape[0], math.prod(shape[1:])))
    monkeypatch.setattr(
        torch.Tensor, "normal_", lambda tensor, *_, **__: tensor.copy_(torch.from_numpy(draws))
    )
    theirs = torch.nn.init.orthogonal_(torch.empty(shape, dtype=torch.float64), gain).numpy()
    ours = init.orthogonal_(np.empty(shape), gain, rng=2)
    assert np.abs(ours - theirs).max(initial=0) <= 1e-12
    assert ours.any() == (ours.size > 0)


@pytest.mark.parametrize(("name", "shape"), [("eye_", (3,)), ("eye_", (2, 2, 2)), ("orthogonal_", (3,))])
def test_shapes_that_both_refuse(name, shape, torch):
    for module, array in ((init, np.ones(shape)), (torch.nn.init, torch.ones(shape))):
        with pytest.raises(ValueError, match=r"dimensions|shape"):
            getattr(module, name)(array)
