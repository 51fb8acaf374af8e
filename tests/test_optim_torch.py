"""The optimizers against PyTorch's."""

import pytest
import torch_support  # noqa: F401 - skips this module where PyTorch is missing
from optim_support import CLASSES, assert_moved, assert_parameters, options_of, problem


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", CLASSES)
def test_torch(kind, seed, dtype, backend, torch):
    """The same dtype on both sides; the learning rate changes on the way."""
    options = options_of(kind, 1000 + seed)
    parameters, gradients = problem(dtype, seed)
    start = {name: W.copy() for name, W in parameters.items()}
    tensors = {name: torch.nn.Parameter(torch.from_numpy(W.copy())) for name, W in parameters.items()}
    theirs = {"sgd": "SGD", "adagrad": "Adagrad", "rmsprop": "RMSprop", "adam": "Adam", "adamw": "AdamW"}[
        kind
    ]
    theirs = getattr(torch.optim, theirs)(tensors.values(), **options)
    ours = CLASSES[kind](**options, backend=backend)
    for step, g in enumerate(gradients):
        if step == 12:
            ours.lr *= 0.5
            theirs.param_groups[0]["lr"] *= 0.5
        for name, tensor in tensors.items():
            tensor.grad = torch.from_numpy(g[name].copy())
        theirs.step()
        ours.step(parameters, g)
    wanted = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    assert_parameters(parameters, wanted, dtype, f"{kind} {options}")
    assert_moved(parameters, start)
    for slot, arrays in ours.state_dict()["state"].items():
        state = {name: theirs.state[tensor][slot].numpy() for name, tensor in tensors.items()}
        assert_parameters(arrays, state, dtype, f"{kind} {options} {slot}")


@pytest.mark.parametrize("kind", CLASSES)
def test_torch_defaults(kind, torch, dtype, backend):
    """The learning rate alone, or nothing, means what it means there."""
    arguments = () if kind != "sgd" else (0.05,)
    parameters, gradients = problem(dtype, 5)
    tensors = {name: torch.nn.Parameter(torch.from_numpy(W.copy())) for name, W in parameters.items()}
    theirs = {"sgd": "SGD", "adagrad": "Adagrad", "rmsprop": "RMSprop", "adam": "Adam", "adamw": "AdamW"}[
        kind
    ]
    theirs = getattr(torch.optim, theirs)(tensors.values(), *arguments)
    ours = CLASSES[kind](*arguments, backend=backend)
    assert ours.lr == theirs.defaults["lr"]
    for g in gradients:
        for name, tensor in tensors.items():
            tensor.grad = torch.from_numpy(g[name].copy())
        theirs.step()
        ours.step(parameters, g)
    wanted = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    assert_parameters(parameters, wanted, dtype, kind)
