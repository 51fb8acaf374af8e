"""Random options and arrays of the optimizers, and comparisons."""

import numpy as np
from support import TOLERANCE, assert_close

from fastrnn.optim import SGD, Adagrad, Adam, AdamW, RMSprop

CLASSES = {"sgd": SGD, "adagrad": Adagrad, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}
#: Around the vectors' lengths, and the shapes of a model.
SHAPES = {"matrix": (17, 9), "wide": (3, 40), "vector": (33,), "single": (1,), "number": (), "none": (0, 4)}
STEPS = 25


def options_of(kind, seed):
    """A random set of options, each one switched on or off; PyTorch takes them under the same names."""
    rng = np.random.default_rng([seed, *map(ord, kind)])
    on = (rng.random(8) < 0.5).tolist()
    options = {"lr": float(10 ** rng.uniform(-3, -1.5))}
    if on[0]:
        options["weight_decay"] = float(rng.uniform(0.01, 0.3))
    if kind == "sgd" and on[1]:
        options["momentum"] = float(rng.uniform(0.1, 0.95))
        if on[2]:
            options["nesterov"] = True
        elif on[3]:
            options["dampening"] = float(rng.uniform(0.1, 0.9))
    if kind == "adagrad":
        if on[1]:
            options["lr_decay"] = float(rng.uniform(0.01, 0.5))
        if on[2]:
            options["initial_accumulator_value"] = float(rng.uniform(0.01, 1))
        if on[3]:
            options["eps"] = 1e-3
    if kind == "rmsprop":
        if on[1]:
            options["alpha"] = float(rng.uniform(0.6, 0.99))
        if on[2]:
            options["momentum"] = float(rng.uniform(0.1, 0.9))
        if on[3]:
            options["centered"] = True
        if on[4]:
            options["eps"] = 1e-3
    if kind in ("adam", "adamw"):
        if on[3]:
            options["amsgrad"] = True
        if on[1]:
            options["betas"] = (float(rng.uniform(0, 0.95)), float(rng.uniform(0.5, 0.999)))
        if on[2]:
            options["eps"] = 1e-3
    return options


def problem(dtype, seed, shapes=SHAPES, steps=STEPS):
    """Parameters, and a gradient of them for each step."""
    rng = np.random.default_rng(seed)
    parameters = {name: np.array(rng.normal(size=shape), dtype) for name, shape in shapes.items()}
    gradients = [
        {name: np.array(rng.normal(size=shape), dtype) for name, shape in shapes.items()}
        for _ in range(steps)
    ]
    return parameters, gradients


def assert_parameters(got, want, dtype, what=""):
    for name, W in want.items():
        if W.size:
            assert_close(got[name], W, TOLERANCE[np.dtype(dtype)], f"{what} {name}")


def assert_moved(got, start):
    """Far enough that parameters which stay would fail every comparison here."""
    moved = np.abs(got["matrix"] - start["matrix"]).max()
    assert moved > 20 * TOLERANCE[got["matrix"].dtype] * np.abs(start["matrix"]).max()
