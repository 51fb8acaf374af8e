"""Arguments that are not as they must be."""

from __future__ import annotations

import datetime
import fractions
import sys

import numpy as np

from fuzz.values import IGNORED

#: Made anew each time: a call might change them.
JUNK = [
    lambda: None, lambda: True, lambda: "text", lambda: b"bytes", lambda: float("nan"), lambda: 1j, object,
    list, dict, tuple, set, lambda: np.array(1.0), lambda: np.array(2), lambda: np.float32(0.5), lambda: -1,
    lambda: 0, lambda: 2**80, lambda: 10**400, lambda: -(2**63), lambda: np.zeros(0), lambda: np.zeros((0, 0, 0)),
    lambda: [[1.0], [1.0, 2.0]], lambda: [None, 1], lambda: ["a", "b"], lambda: [[["0"]]], lambda: [2**70],
    lambda: len, lambda: int, lambda: datetime.date(2000, 1, 1), lambda: fractions.Fraction(1, 2),
    lambda: np.array("2000-01-01", "M8[D]"), lambda: np.zeros(3, [("a", "f4"), ("b", "i8")]),
    lambda: np.array(["a", "bc"]), lambda: np.array([b"a", b"bc"]), lambda: np.array([object(), None]),
    lambda: (None, None), lambda: (np.zeros(2), None), lambda: float("inf"), lambda: np.bool_(True),
    lambda: np.broadcast_to(np.float32(0), (2**10, 2**11)), lambda: np.broadcast_to(0, (2**20,)),
    lambda: np.zeros((1,) * 30), lambda: np.ma.masked_array([1.0, 2.0], [True, False]), lambda: range(3),
    lambda: slice(3), lambda: Ellipsis, lambda: np.random.default_rng(0), lambda: Loud(), lambda: Nested.make(),
    lambda: "z" * 5000, lambda: np.arange(900.0), lambda: ["z" * 5000, "b"], lambda: {"z" * 5000: 1.0},
]  # fmt: skip


class Loud:
    """Whose conversions all fail."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("no array")

    def __float__(self):
        raise TypeError("no number")

    __index__ = __iter__ = __len__ = __float__


class Nested:
    """A list that holds itself."""

    @staticmethod
    def make():
        inner = []
        inner.append(inner)
        return inner


DTYPES = (object, complex, str, "M8[s]", "m8[s]", bool, "S3", np.int64, np.float64, np.uint64, [("a", "f4")])

WHOLE = (0, -1, True, None, float("nan"), "3", 1.5, 2**62, 2**80, 10**400, sys.maxsize, [3], np.array([3]),
         np.array(3), np.int8(2), np.uint64(2**63), -(2**63), np.True_, 1.0, b"3", 1j)  # fmt: skip
NUMBERS = (0, -1, True, None, float("nan"), float("inf"), -float("inf"), "0.1", 1e308, -1e308, 5e-324, 1e-30,
           2**70, 10**400, [0.1], np.array(0.1), np.array([0.1]), 0.1j, np.float32("nan"), np.float16(0.5), b"1",
           2.0, -0.0, np.longdouble(0.1))  # fmt: skip
CHOICES = (
    "",
    "Tanh",
    "none",
    b"mean",
    0,
    True,
    None,
    [],
    3,
    "sum",
    "norm",
    "step",
    "value",
    np.tanh,
    "\0",
    "a" * 300,
)
FLAGS = (None, 0, 1, "True", [], 1.0, np.True_, np.array(True), float("nan"))
SEEDS = (
    -1,
    1.5,
    "seed",
    True,
    [1, 2],
    np.random.RandomState(0),
    np.random,
    np.random.PCG64(0),
    -(10**50),
    2**200,
)
NAN, INF = float("nan"), float("inf")


def shape(draw, a):
    """Another shape."""
    way = draw.integer(0, 7)
    if a.ndim and way <= 3:
        axis = draw.integer(0, a.ndim - 1)
        if way == 0:
            return np.delete(a, 0, axis) if a.shape[axis] else a[None]
        if way == 1:
            return np.concatenate([a, a[(slice(None),) * axis + (slice(0, 1),)]], axis)
        if way == 2:
            return a[(slice(None),) * axis + (slice(0, 0),)]
        return np.asarray(a.take(0, axis)) if a.shape[axis] else a[None]
    if way == 4:
        return a[None]
    if way == 5:
        return a[..., None]
    if way == 6:
        return a.reshape(-1)
    return a.T if a.ndim > 1 else a.reshape(-1, 1)


def dtype(draw, a):
    """Another dtype."""
    if a.dtype.kind not in "fiub":  # it is spoilt already
        return draw.pick(JUNK)()
    kind = draw.pick(DTYPES)
    if isinstance(kind, list) or (isinstance(kind, str) and kind[0] in "mMS"):
        return np.zeros(a.shape, kind)
    return a.astype(kind)


def numbers(draw, a):
    """Numbers at the edges of what a float is: all of them, or one."""
    if a.dtype.kind != "f":
        return draw.pick(JUNK)()
    a = a.copy()
    top, tiny = np.finfo(a.dtype).max, np.finfo(a.dtype).smallest_subnormal
    value = draw.pick((NAN, INF, -INF, top, -top, tiny, -tiny * 7, 1e30, 1e6, 0.0, -0.0))
    if draw.chance(0.2):
        a[...] = value
    elif a.size:
        a.reshape(-1)[draw.integer(0, a.size - 1)] = value
    return a


def indices(draw, a, bound):
    """One index that is out of bounds, or may be."""
    a = np.array(a, draw.pick((np.int64, np.int64, np.uint64, np.int32, object)))
    value = draw.pick((bound, bound, bound + 1, -1, -bound - 1, -bound, 2**31, 2**31 - 1, 2**32, 2**63 - 1,
                       -(2**63), IGNORED, 2**64 - 1, 127, 255))  # fmt: skip
    if a.dtype != object:
        info = np.iinfo(a.dtype)
        value = min(max(value, info.min), info.max)
    if a.size:
        a.reshape(-1)[draw.integer(0, a.size - 1)] = value
    return a if draw.chance(0.8) else a.tolist()


def lengths(draw, a, T):
    """Lengths that are no lengths."""
    a = np.array(a)
    if a.size and draw.chance(0.6):
        a[draw.integer(0, a.size - 1)] = draw.pick((0, -1, T + 1, 2**31, 2**63 - 1, -(2**63)))
        return a
    return draw.pick((a.astype(float), a.astype(bool), a[:-1], np.append(a, 1), a[None], a.tolist() + [None], T,
                      0, -1, a.astype(object), a.astype(str), [], a + 0.5))  # fmt: skip


def spoil(draw, value, kind, bound=None):
    """Something else in the place of `value`."""
    if kind in ("fixed", "rng"):
        return draw.pick(SEEDS) if kind == "rng" else value
    if draw.chance(0.12) or (value is None and kind not in ("size", "number", "choice", "flag")):
        return draw.pick(JUNK)()
    if isinstance(value, tuple) and value:
        at, parts = draw.integer(0, len(value) - 1), list(value)
        if draw.chance(0.2):
            return draw.pick((parts[0], tuple(parts[:-1]), (*parts, parts[0]), tuple(parts[::-1])))
        parts[at] = spoil(draw, parts[at], kind, bound)
        return tuple(parts)
    if isinstance(value, dict) and value:
        return mapping(draw, value)
    scalars = {"size": WHOLE, "number": NUMBERS, "choice": CHOICES, "flag": FLAGS}
    if kind in scalars:
        return draw.pick(scalars[kind])
    if not isinstance(value, np.ndarray):
        return draw.pick(JUNK)()
    if draw.chance(0.3):
        return shape(draw, value)
    if kind == "lengths":
        return lengths(draw, value, bound)
    if draw.chance(0.2):
        return dtype(draw, value)
    if value.dtype.kind == "i" and bound is not None:
        return indices(draw, value, bound)
    return numbers(draw, value)


def mapping(draw, value):
    """A dict with an entry that is missing, one too many, or a wrong one."""
    changed, name = dict(value), draw.pick(list(value))
    way = draw.integer(0, 4)
    if way == 0:
        del changed[name]
    elif way == 1:
        changed[draw.pick(("other", 3, None, ("a",)))] = changed[name]
    elif way == 2:
        changed = draw.pick((list(changed.items()), list(changed.values()), list(changed)))
    elif way == 3 and len(changed) > 1:
        names = list(changed)
        changed[names[0]], changed[names[-1]] = changed[names[-1]], changed[names[0]]
    else:
        changed[name] = spoil(draw, changed[name], "real")
    return changed
