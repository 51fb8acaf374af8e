"""Settings that change between the steps, against `torch.optim` with the same changes of its groups."""

import numpy as np
import pytest
import torch_support  # noqa: F401 - skips this module where PyTorch is missing
from support import TOLERANCE, assert_close

from fastrnn.optim import SGD, Adagrad, Adam, RMSprop

#: What is set before each of the steps.
SCHEDULES = [
    (SGD, {"lr": 0.1}, {2: {"weight_decay": 0.3}, 4: {"lr": 0.02}}),
    (SGD, {"lr": 0.1, "dampening": 0.25}, {3: {"momentum": 0.9}, 6: {"momentum": 0.0}, 8: {"momentum": 0.5}}),
    (SGD, {"lr": 0.1, "momentum": 0.9}, {3: {"nesterov": True}, 6: {"nesterov": False, "dampening": 0.5}}),
    (Adagrad, {"lr": 0.1}, {2: {"lr_decay": 0.3}, 4: {"eps": 0.1, "weight_decay": 0.2}}),
    (RMSprop, {"lr": 0.1}, {3: {"alpha": 0.6}, 5: {"eps": 0.1, "weight_decay": 0.2}}),
    (RMSprop, {"lr": 0.1, "momentum": 0.9, "centered": True}, {2: {"momentum": 0.5}, 5: {"centered": False}}),
    (RMSprop, {"lr": 0.1, "momentum": 0.9}, {2: {"momentum": 0.0}, 5: {"momentum": 0.7}}),
    (Adam, {"lr": 0.1}, {3: {"betas": (0.5, 0.8)}, 6: {"eps": 0.1, "weight_decay": 0.2}}),
]


@pytest.mark.parametrize("case", range(len(SCHEDULES)))
def test_settings_that_change(case, dtype, backend, torch):
    kind, options, changes = SCHEDULES[case]
    rng = np.random.default_rng(case)
    W = rng.normal(size=(6, 5)).astype(dtype)
    tensor = torch.nn.Parameter(torch.from_numpy(W.copy()))
    ours = kind(**options, backend=backend)
    theirs = getattr(torch.optim, kind.__name__)([tensor], **options)
    for step in range(10):
        for name, value in changes.get(step, {}).items():
            setattr(ours, name, value)
            theirs.param_groups[0][name] = value
        g = rng.normal(size=(6, 5)).astype(dtype)
        tensor.grad = torch.from_numpy(g.copy())
        theirs.step()
        ours.step({"W": W}, {"W": g})
        assert_close(W, tensor.detach().numpy(), 4 * TOLERANCE[W.dtype], f"step {step}")
