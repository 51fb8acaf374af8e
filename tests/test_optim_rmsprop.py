"""RMSprop with each of its settings on and off: every combination has a loop of its own in the compiled kernels."""

import itertools

import numpy as np
import pytest
from support import TOLERANCE

from fastrnn import optim

LR, ALPHA, EPS = 0.05, 0.9, 1e-6


def by_hand(w, gradients, decay, momentum, centered):
    """One number under the equations."""
    square = mean = buffer = 0.0
    for g in gradients:
        x = g + decay * w
        square = ALPHA * square + (1 - ALPHA) * x * x
        mean = ALPHA * mean + (1 - ALPHA) * x
        root = np.sqrt(square - mean**2 if centered else square)
        buffer = momentum * buffer + x / (root + EPS)
        w -= LR * buffer
    return w


@pytest.mark.few(96)
@pytest.mark.parametrize("n", [1, 37])
@pytest.mark.parametrize(
    ("decay", "momentum", "centered"), list(itertools.product([0.0, 0.3], [0.0, 0.8], [False, True]))
)
def test_each_combination_of_settings(decay, momentum, centered, n, backend, dtype):
    rng = np.random.default_rng(n)
    w, gradients = rng.normal(size=n).astype(dtype), rng.normal(size=(6, n)).astype(dtype)
    wanted = by_hand(w.astype(float), gradients.astype(float), decay, momentum, centered)
    optimizer = optim.RMSprop(
        LR, alpha=ALPHA, eps=EPS, momentum=momentum, centered=centered, weight_decay=decay, backend=backend
    )
    for g in gradients:
        optimizer.step({"w": w}, {"w": g})
    # A centred square is a difference, which loses digits.
    np.testing.assert_allclose(w, wanted, rtol=0, atol=100 * TOLERANCE[np.dtype(dtype)])
