"""The output layer in batches: outputs, loss and gradients, in plain NumPy::

    y_t = W h_t + b,  L = sum of the losses of `losses`, and dy_t                       (2)
    dW = sum dy_t h_t',  db = sum dy_t,  d output_t = W' dy_t                           (8), (9)

``output = (W (q,h), b (q))``, its gradients alike; for the other arrays see `layer`.
"""

import numpy as np

from fastrnn.kernels import CROSS_ENTROPY
from fastrnn.kernels.numpy_kernels.gradients import put
from fastrnn.kernels.numpy_kernels.losses import LOSSES


def output_sizes(T, N, rows, h, q):
    """Elements of `packed` and of `work` for an output layer, N sequences, at most `rows` at once."""
    return 0, 0


def pack_output(output, N, packed, threads=1):
    """Bring the weights of an output layer into the order in which N sequences will read them."""


def output_logits(output, packed, hs, logits, rows, work, threads=1):
    """Outputs ``y_t = W h_t + b`` (eq. 2), written to ``logits (T,N,q)``."""
    W, b = output
    rows = slice(*rows)
    with np.errstate(all="ignore"):
        np.matmul(hs[:, rows], W.T, out=logits[:, rows])
        logits[:, rows] += b


def output_loss(output, packed, hs, goal, scale, dhs, grads, accumulate, rows, work, threads=1):
    """The loss, summed over steps and sequences, and its gradients (eqs. 8, 9).

    ``goal = (loss, classes, values, weights)``: a code, and what is wanted of the outputs.  For CROSS_ENTROPY
    ``classes (T,N)`` are indices in [0,q), or negative where nothing counts; for the others ``values`` are ``(T,N,q)``,
    of GAUSSIAN ``(T,N,q/2)``.  What is not read has no elements.  ``weights (T,N)`` are the factors of the steps'
    losses, without elements ones.  Where a step counts for nothing, there is no loss, zeros are the gradient of its
    outputs, and its values are not read.

    Gradients are multiplied by `scale`: writes ``dhs (T,N,h)``, and the sums over ``start <= n < stop`` to `grads`, or
    adds them there where `accumulate`.  A `dhs` without elements asks for the loss alone.  Returns the loss, not scaled.
    """
    W, b = output
    h = W.shape[1]
    start, stop = rows
    loss, classes, values, weights = goal
    with np.errstate(all="ignore"):
        states = hs[:, start:stop].reshape(-1, h)
        wanted = classes if loss == CROSS_ENTROPY else values
        wanted = wanted[:, start:stop].reshape(len(states), *wanted.shape[2:])
        factors = weights[:, start:stop].reshape(-1) if weights.size else np.ones(len(states), hs.dtype)
        losses, dy = LOSSES[loss](states @ W.T + b, wanted)
        ignored = factors == 0
        if loss == CROSS_ENTROPY:
            ignored |= wanted < 0
        losses *= factors
        losses[ignored] = 0
        if dhs.size:
            dy *= scale
            if weights.size:
                dy *= factors[:, None]
            dy[ignored] = 0
            dhs[:, start:stop] = (dy @ W).reshape(len(hs), stop - start, h)
            put(grads, (dy.T @ states, dy.sum(axis=0)), accumulate)
    return float(losses.sum())
