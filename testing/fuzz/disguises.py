"""The same values in another memory, or as another type."""

from __future__ import annotations

import numpy as np


class Derived(np.ndarray):
    """A subclass, which kernels know nothing of."""


class Interface:
    """What makes an array of itself, and is none."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype)

    def __repr__(self):
        return f"Interface({self.array.dtype} {self.array.shape})"


def fortran(draw, a):
    return np.asfortranarray(a) if a.ndim else a


def backwards(draw, a):
    flip = (*(slice(None, None, draw.pick((1, -1))) for _ in a.shape), ...)  # of no axes still an array
    return a[flip].copy()[flip]


def gaps(draw, a):
    steps = [draw.pick((1, 2, 3)) for _ in a.shape]
    poison = np.nan if a.dtype.kind == "f" else np.iinfo(a.dtype).max
    spread = np.full([n * step for n, step in zip(a.shape, steps, strict=True)], poison, a.dtype)
    view = spread[(*(slice(step - 1, None, step) for step in steps), ...)]
    view[...] = a
    return view


def permuted(draw, a):
    order = draw.rng.permutation(a.ndim)
    return np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order)) if a.ndim else a


def offset(draw, a):
    first = draw.pick((1, 2, 3, 5, 7))
    poison = np.nan if a.dtype.kind == "f" else np.iinfo(a.dtype).max
    buffer = np.full(a.size + first, poison, a.dtype)
    view = buffer[first:].reshape(a.shape)
    view[...] = a
    return view


def misaligned(draw, a):
    first = draw.integer(1, max(1, a.itemsize - 1))
    view = np.zeros(a.nbytes + first, np.uint8)[first:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(draw, a):
    copy = a.copy()
    copy.flags.writeable = False
    return copy


def derived(draw, a):
    return a.copy().view(Derived)


def big_endian(draw, a):
    return a.astype(a.dtype.newbyteorder(">"))


def as_list(draw, a):
    return a.tolist() if a.size else a


def as_tuple(draw, a):
    return tuple(a.tolist()) if a.size and a.ndim else a


def as_buffer(draw, a):
    return memoryview(a.copy()) if a.size and a.ndim else a


def as_interface(draw, a):
    return Interface(a)


def converted(draw, a):
    """Another dtype that holds the same values."""
    if a.dtype.kind == "f":
        kinds = [np.float16, np.float32, np.float64, np.longdouble]
    else:
        kinds = [
            np.int8,
            np.int16,
            np.int32,
            np.int64,
            np.uint8,
            np.uint16,
            np.uint32,
            np.uint64,
            ">i2",
            ">u8",
        ]
    there = a.astype(draw.pick(kinds))
    return there if (there.astype(a.dtype) == a).all() and ((there < 0) == (a < 0)).all() else a


def whole(draw, a):
    """Integers, where the values are."""
    there = a.astype(draw.pick([np.int8, np.int64, np.int32, ">i4"]))
    return there if a.dtype.kind == "f" and (there == a).all() and not np.signbit(a[a == 0]).any() else a


#: Those that may be written to, then with the same dtype, then with any.
IN_PLACE = [fortran, backwards, gaps, permuted, offset, misaligned, derived]
LAYOUTS = [*IN_PLACE, read_only]
ANY = [
    *LAYOUTS,
    big_endian,
    as_list,
    as_tuple,
    as_buffer,
    as_interface,
    converted,
    converted,
    converted,
    whole,
]


def disguise(draw, value, kind):
    """`value` of an argument of this kind in another memory; what has no other is returned as it is."""
    if isinstance(value, tuple):
        pair = [disguise(draw, part, kind) for part in value]
        return tuple(pair) if draw.chance(0.8) else pair
    if isinstance(value, dict) and kind in ("parameters", "mapping"):
        ways = LAYOUTS if kind == "parameters" else ANY
        return {name: draw.pick(ways)(draw, part) for name, part in value.items()}
    if not isinstance(value, np.ndarray):
        return value
    if kind == "array":  # its dtype is that of the results
        return draw.pick([*LAYOUTS, big_endian])(draw, value)
    if kind not in ("real", "inputs", "classes", "targets", "lengths", "weights"):
        return value
    changed = draw.pick(ANY)
    if changed is whole and (kind == "inputs" and value.ndim < 3):
        changed = fortran  # integers would be classes
    there = changed(draw, value)
    if (
        isinstance(there, np.ndarray)
        and there.dtype.kind != "O"
        and draw.chance(0.3)
        and type(there) is np.ndarray
    ):
        there = draw.pick(LAYOUTS)(draw, there)
    return there
