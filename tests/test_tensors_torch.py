"""Tensors in place of arrays: those that require grad are refused by name, all others are taken."""

import numpy as np
import pytest
import torch_support  # noqa: F401 - skips this module where PyTorch is missing
from support import bits
from tensor_support import ARGUMENTS, refuses

from fastrnn import RNN, LanguageModel


@pytest.mark.parametrize("argument", ARGUMENTS, ids=[f"{a[0]}-{a[1]}" for a in ARGUMENTS])
@pytest.mark.parametrize("kind", ["alone", "list", "numbers"])
def test_tensors_that_require_grad(kind, argument, torch):
    leaf = torch.ones(2, requires_grad=True)
    refuses(argument, {"alone": leaf, "list": [leaf, leaf], "numbers": list(leaf)}[kind])


def test_tensors_that_do_not(dtype, backend, torch):
    rnn = RNN(3, 4, dtype=dtype, rng=0, backend=backend)
    x, h0 = torch.randn(5, 2, 3, requires_grad=True).detach(), torch.randn(1, 2, 4)
    assert bits(*rnn(x, h0)) == bits(*rnn(x.numpy(), h0.numpy()))
    lm = LanguageModel(3, 4, dtype=dtype, rng=0, backend=backend)
    x, y = torch.randint(3, (2, 5, 2))
    y[0, 0] = -100
    assert lm.loss(x, y)[0] == lm.loss(x.numpy(), y.numpy())[0]


def test_load_state_dict_detaches(torch):
    module, rnn = torch.nn.RNN(3, 4), RNN(3, 4, rng=0)
    rnn.load_state_dict(dict(module.named_parameters()))
    for name, W in module.named_parameters():
        assert W.requires_grad
        assert np.array_equal(rnn.parameters[name], W.detach().numpy())
