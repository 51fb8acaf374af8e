"""`ReferenceGRU` and `ReferenceLSTM` against PyTorch's layers under autograd."""

import numpy as np
import pytest
from torch_support import assert_agrees, torch_dtype, torch_input, torch_leaf

from fastrnn import ReferenceGRU, ReferenceLSTM


@pytest.mark.parametrize(("T", "d", "h"), [(1, 1, 1), (1, 4, 3), (5, 1, 8), (12, 7, 1), (9, 5, 17)])
@pytest.mark.parametrize("with_states", [False, True], ids=["zeros", "states"])
@pytest.mark.parametrize("classes", [False, True], ids=["vectors", "classes"])
@pytest.mark.parametrize("reference", [ReferenceGRU, ReferenceLSTM])
def test_values_and_gradients(reference, classes, with_states, T, d, h, dtype, torch):
    rng = np.random.default_rng(T)

    def state():
        arrays = rng.normal(size=(2, 1, h)).astype(dtype)
        return tuple(arrays) if reference is ReferenceLSTM else arrays[0]

    plain = reference(d, h, rng=0, dtype=dtype)
    for W in plain.parameters.values():
        W *= 2
    x = rng.integers(d, size=T) if classes else rng.normal(size=(T, d)).astype(dtype)
    h0, grad_h_n = (state(), state()) if with_states else (None, None)
    grad_output = rng.normal(size=(T, h)).astype(dtype)

    layers = torch.nn.LSTM if reference is ReferenceLSTM else torch.nn.GRU
    module = layers(d, h, dtype=torch_dtype(dtype))
    module.load_state_dict({name: torch.from_numpy(W) for name, W in plain.parameters.items()})
    theirs_x, theirs_h0 = torch_input(x, d, dtype).requires_grad_(), torch_leaf(h0)
    want_output, want_h_n = module(theirs_x, theirs_h0)
    output, h_n = plain.forward(x, h0)
    assert_agrees(output, want_output, "output")
    assert_agrees(h_n, want_h_n, "h_n")

    goal = (want_output * torch.from_numpy(grad_output)).sum()
    if with_states:
        pairs = zip(want_h_n, grad_h_n, strict=True) if layers is torch.nn.LSTM else [(want_h_n, grad_h_n)]
        goal = goal + sum((last * torch.from_numpy(grad)).sum() for last, grad in pairs)
    goal.backward()
    grad_x, grad_h0 = plain.backward(grad_output, grad_h_n)
    assert_agrees(grad_x, theirs_x.grad, "grad_x")
    if with_states:
        leaves = theirs_h0 if layers is torch.nn.LSTM else (theirs_h0,)
        for got, leaf in zip(grad_h0 if layers is torch.nn.LSTM else (grad_h0,), leaves, strict=True):
            assert_agrees(got, leaf.grad, "grad_h0")
    for name, W in module.named_parameters():
        assert_agrees(plain.grads[name], W.grad, name)
