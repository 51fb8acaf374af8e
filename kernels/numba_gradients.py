"""The sum of the gradients of all threads, and its clipping, compiled by Numba."""

import math

import numpy as np

from fastrnn.kernels import CLIP_NORM, CLIP_VALUE
from fastrnn.kernels.elementary import add, clamp, copy, scale, sum_of_squares
from fastrnn.kernels.jit import flat, kernel

PIECE = 1024  # elements of a gradient that are in the first cache while they are summed


@kernel
def _reduce(parts, count, n, clip, threshold, out):
    """Sum of `count` gradients of n elements; returns its norm."""
    squares = 0.0
    for first in range(0, n, PIECE):
        m = min(PIECE, n - first)
        copy(m, out, first, parts, first)
        for part in range(1, count):
            add(m, out, first, out, first, parts, part * n + first)
        squares += np.float64(sum_of_squares(m, out, first))
    norm = math.sqrt(squares)
    if norm == math.inf:  # squares may be beyond the largest number where their root is not
        squares = 0.0
        for i in range(n):
            x = np.float64(out[i]) * 2.0**-600
            squares += x * x
        norm = math.sqrt(squares) * 2.0**600
    if clip == CLIP_VALUE:
        clamp(n, out, 0, out, 0, threshold)
    if clip == CLIP_NORM and not norm <= threshold:
        scale(n, out, 0, out, 0, threshold / norm)
    return norm


def reduce_gradients(parts, clip, threshold, out):
    """Add up ``parts (P,n)``, clip the sum by its entries or by its norm (eq. 15), and write it to ``out (n)``.

    Returns the norm before the clipping.
    """
    count, n = parts.shape
    return _reduce(flat(parts), count, n, clip, float(threshold), out)
