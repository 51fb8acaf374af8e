"""The losses of one step of one sequence, compiled by Numba.

The equations are those of `fastrnn.kernels.numpy_kernels.losses`.  Each function takes a padded row y, of which the
first q elements are the outputs, and what was wanted; it returns the loss, and makes of y its gradient, multiplied by
`factor`.
"""

import math

import numpy as np

from fastrnn.kernels.numba_kernels.elementary import exponentials, fill, largest, scale
from fastrnn.kernels.numba_kernels.jit import inlined


@inlined
def cross_entropy(y, wanted, factor):
    """``l = top - y[wanted] + log total`` with ``top = max y, total = sum exp(y - top)`` (eqs. 16, 17).

    Returns the first two terms, and the total: many rows take one logarithm.  The padding is minus infinity, and becomes 0.
    """
    chosen, top = y[wanted], largest(y)
    total = exponentials(y, top)
    scale(y, y, factor / total)
    y[wanted] -= factor  # eq. 7
    return np.float64(top) - np.float64(chosen), np.float64(total)


@inlined
def squared_error(y, q, values, factor):
    """``l = sum (y - v)^2,  dy = 2 (y - v)``."""
    loss = 0.0
    for j in range(q):
        error = y[j] - values[j]
        loss += np.float64(error * error)
        y[j] = factor * (error + error)
    fill(y[q:], 0.0)
    return loss


@inlined
def gaussian(y, q, values, factor):
    """``l = sum (log 2 pi + s + r^2) / 2,  dm = r p,  ds = (1 - r^2) / 2``, with ``r = (m - v) p`` and ``p = exp(-s / 2)``.

    p is finite: no error is none.
    """
    half, loss, most = q // 2, 0.0, np.finfo(y.dtype).max
    for j in range(half):
        log_variance = y[half + j]
        by = np.exp(y.dtype.type(-0.5) * log_variance)
        if by > most:
            by = most
        error = (y[j] - values[j]) * by
        square = error * error
        loss += np.float64(log_variance) + np.float64(square)
        y[j] = factor * (error * by)
        y[half + j] = factor * (y.dtype.type(0.5) - y.dtype.type(0.5) * square)
    fill(y[q:], 0.0)
    return 0.5 * (loss + half * math.log(2.0 * math.pi))
