"""The sum of the gradients of all threads, and its clipping, compiled by Numba."""

import math

import numpy as np

from fastrnn.kernels import CLIP_NORM, CLIP_VALUE
from fastrnn.kernels.numba_kernels.elementary import add, clamp, copy, scale, sum_of_squares
from fastrnn.kernels.numba_kernels.jit import kernel, ready

PIECE = 1024  # elements of a gradient that are in the first cache while they are summed


@kernel
def _reduce(parts, clip, threshold, out):
    """`reduce_gradients`."""
    count, n = parts.shape
    # out = sum of parts, and the sum of its squares, piece by piece: `out` is read and written once, not P times
    squares = 0.0
    for first in range(0, n, PIECE):
        piece = out[first : first + PIECE]
        copy(piece, parts[0, first : first + PIECE])
        for part in range(1, count):
            add(piece, piece, parts[part, first : first + PIECE])
        squares += np.float64(sum_of_squares(piece))
    norm = math.sqrt(squares)
    if norm == math.inf:  # squares may be beyond the largest number where their root is not
        squares = 0.0
        for i in range(n):
            x = np.float64(out[i]) * 2.0**-600
            squares += x * x
        norm = math.sqrt(squares) * 2.0**600
    if clip == CLIP_VALUE:
        clamp(out, out, threshold)
    # g = g threshold / max(threshold, ||g||)  (eq. 15); a norm that is NaN goes to all of them
    if clip == CLIP_NORM and not norm <= threshold:
        scale(out, out, threshold / norm)
    return norm


def reduce_gradients(parts, clip, threshold, out, threads=1):
    """Add up ``parts (P,n)``, clip the sum by its entries or by its norm (eq. 15), and write it to ``out (n)``.

    Returns the norm before the clipping.
    """
    return _reduce(ready(parts), clip, float(threshold), out)
