"""Sums of gradients: over the parts of a batch, clipped."""

import math

import numpy as np

from fastrnn.kernels import CLIP_NORM, CLIP_VALUE


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
        norm = _norm(out)
        if clip == CLIP_VALUE:
            np.clip(out, -threshold, threshold, out=out)
        elif clip == CLIP_NORM and not norm <= threshold:
            out *= out.dtype.type(threshold / norm)
    return norm


def _norm(x):
    """Euclidean norm, also where a square is beyond the largest number."""
    squares = float(np.dot(x, x))
    if math.isfinite(squares) or not np.isfinite(x).all():
        return math.sqrt(squares)
    largest = float(np.abs(x).max())
    scaled = x / x.dtype.type(largest)
    return largest * math.sqrt(np.dot(scaled, scaled))
