"""Random arguments of the functions for people who bring their own loop."""

import math

import numpy as np

from fastrnn import functional as F


def normal(shape, dtype=np.float64, seed=0, scale=3.0):
    return np.asarray(np.random.default_rng(seed).normal(size=shape) * scale, dtype)


def batch(shape, dtype, seed=0):
    """Logits and targets."""
    rng = np.random.default_rng(seed)
    return normal(shape, dtype, seed), rng.integers(shape[-1], size=shape[:-1])


def gradients(dtype, seed=0, scale=1.0):
    shapes = {"W": (7, 5), "b": (33,), "one": (1,), "number": (), "none": (0, 3)}
    return {name: normal(shape, dtype, seed + i, scale) for i, (name, shape) in enumerate(shapes.items())}


class Layer:
    """Random arguments of `rnn_forward` and `rnn_backward`."""

    def __init__(self, seed, dtype, T=None, N=None):
        rng = np.random.default_rng(seed)
        on = (rng.random(7) < 0.5).tolist()
        d, h = (int(rng.choice([1, 2, 5, 8, 17, 33])) for _ in range(2))
        self.T, self.N = T or int(rng.integers(1, 12)), N or int(rng.choice([1, 2, 7, 16, 20, 35]))
        self.d, self.h = d, h
        shapes = {"weight_ih": (h, d), "weight_hh": (h, h)}
        if on[0]:
            shapes |= {"bias_ih": (h,), "bias_hh": (h,)}
        self.parameters = {
            name: (rng.normal(size=s) * 0.6 / math.sqrt(h)).astype(dtype) for name, s in shapes.items()
        }
        self.one_hot = on[1]
        if self.one_hot:
            self.x = rng.integers(-d, d, (self.T, self.N))
        else:
            self.x = rng.normal(size=(self.T, self.N, d)).astype(dtype)
        self.h0 = rng.normal(size=(self.N, h)).astype(dtype) if on[2] else None
        self.options = {
            "nonlinearity": "tanh" if on[3] else "relu",
            "lengths": rng.integers(1, self.T + 1, self.N) if on[4] else None,
            "reverse": on[5],
        }
        self.grad_output = rng.normal(size=(self.T, self.N, h)).astype(dtype)
        self.grad_h_n = rng.normal(size=(self.N, h)).astype(dtype) if on[6] else None

    def forward(self, **changed):
        return F.rnn_forward(self.x, self.h0, self.parameters, **{**self.options, **changed})

    def backward(self, output, **changed):
        return F.rnn_backward(
            self.grad_output, self.grad_h_n, self.x, self.h0, output, self.parameters,
            **{**self.options, **changed},
        )  # fmt: skip

    def arrays(self):
        given = [
            self.x,
            self.h0,
            self.grad_output,
            self.grad_h_n,
            self.options["lengths"],
            *self.parameters.values(),
        ]
        return [a for a in given if a is not None]
