"""The sum of the gradients of all threads, and its clipping, compiled by Numba."""

import math

import numpy as np

from fastrnn.kernels import CLIP_NORM, CLIP_VALUE
from fastrnn.kernels.numba_kernels.elementary import add, clamp, copy, scale, sum_of_squares
from fastrnn.kernels.numba_kernels.jit import inlined, kernel, ready

PIECE = 1024  # elements of a gradient that are in the first cache while they are summed


@inlined
def is_ordinary(squares, like):
    """Whether a sum of squares is one that the dtype holds: numbers beyond, or far below, have squares that are lost."""
    return squares > (1e-30 if like.itemsize == 4 else 1e-290) and squares < math.inf


@inlined
def unit_of(squares, like):
    """By which numbers are multiplied before float64 holds their squares, of which a sum in their dtype is not ordinary."""
    return 1.0 if like.itemsize == 4 else 2.0**-600 if squares > 1 else 2.0**600


@inlined
def squares_in_unit(x, unit):
    """Sum of squares, in float64."""
    squares = 0.0
    for number in x.flat:
        scaled = np.float64(number) * unit
        squares += scaled * scaled
    return squares


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
    if not is_ordinary(squares, out):
        unit = unit_of(squares, out)
        norm = math.sqrt(squares_in_unit(out, unit)) / unit
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
