"""Euclidean norms, right also where squares leave the range of the numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import numpy as np

__all__ = ["global_norm", "norm", "norm_in_float64", "norms_of"]


def norms_of(vectors: np.ndarray) -> np.ndarray:
    """Norm of all that is in each entry of the first axis, in float64."""
    flat = vectors.reshape(len(vectors), -1)
    with np.errstate(all="ignore"):
        norms: np.ndarray = np.sqrt(np.einsum("ti,ti->t", flat, flat).astype(np.float64))
        ordinary = (norms > _smallest_norm(vectors.dtype)) & (norms < np.inf)
        if not ordinary.all():  # squares leave the range of the dtype before the values do
            outside = np.flatnonzero(~ordinary)
            norms[outside] = [_scaled_norm(row) for row in flat[outside]]
    return norms


@functools.lru_cache(maxsize=2)
def _smallest_norm(dtype: np.dtype) -> float:
    info = np.finfo(dtype)
    return math.sqrt(float(info.tiny) / float(info.eps))


def _scaled_norm(row: np.ndarray) -> float:
    largest = float(np.abs(row).max())
    if not 0 < largest < np.inf:
        return largest
    row = row.astype(np.float64) / largest
    return largest * math.sqrt(float(np.einsum("i,i->", row, row)))


def norm(array: np.ndarray) -> float:
    """Norm of all numbers of an array, summed in their dtype."""
    return float(norms_of(array.reshape(1, -1))[0])


def global_norm(arrays: Iterable[np.ndarray]) -> float:
    """Norm of all numbers of several arrays together (eq. 15)."""
    norms = [norm(array) for array in arrays]
    return math.nan if any(map(math.isnan, norms)) else math.hypot(*norms)


def norm_in_float64(g: np.ndarray) -> float:
    """Norm of all numbers of an array, summed in float64."""
    wide = g.astype(np.float64, copy=False).reshape(-1)
    with np.errstate(all="ignore"):
        squares = float(np.vdot(wide, wide))
        if 1e-280 < squares < math.inf:
            return math.sqrt(squares)
        largest = float(np.abs(wide).max(initial=0.0))
        if largest == 0 or not math.isfinite(largest):
            return largest
        return largest * float(np.linalg.norm(wide / largest))
