"""Sums of gradients: over the parts of a batch, clipped."""

import math

import numpy as np

from fastrnn.kernels import CLIP_NORM, CLIP_VALUE

#: By dtype: below it, squares may have lost what they summed up.
LEAST_SQUARES = {"f": 1e-30, "d": 1e-290}


def put(grads, values, accumulate):
    """Write the values to `grads`, or add them there where `accumulate`."""
    for gradient, value in zip(grads, values, strict=True):
        if accumulate:
            gradient += value
        else:
            gradient[...] = value


def reduce_gradients(parts, clip, threshold, out, threads=1):
    """Add up ``parts (P,n)``, clip the sum by its entries or by its norm (eq. 15), and write it to ``out (n)``.

    Returns the norm before the clipping.
    """
    with np.errstate(all="ignore"):
        out[:] = parts[0]
        for part in parts[1:]:
            out += part
        norm = norm_of(out)
        if clip == CLIP_VALUE:
            np.clip(out, -threshold, threshold, out=out)
        elif clip == CLIP_NORM and not norm <= threshold:
            out *= out.dtype.type(threshold / norm)
    return norm


def norm_of(x):
    """Euclidean norm, also where squares are beyond the largest number, or below the least."""
    squares = float(np.dot(x, x))
    if LEAST_SQUARES[x.dtype.char] < squares < math.inf or not np.isfinite(x).all():
        return math.sqrt(squares)
    largest = float(np.abs(x).max(initial=0))
    scaled = x / x.dtype.type(largest or 1)
    return largest * math.sqrt(np.dot(scaled, scaled))
