"""Results: their leaves, their bits, how far two are apart, and pictures of what must not change."""

from __future__ import annotations

import math

import numpy as np

#: Largest error relative to an array's largest entry: some hundred roundings, amplified by the recurrence.
TOLERANCE = {np.dtype(np.float32): 3e-5, np.dtype(np.float64): 3e-12}

#: Numbers that are sums, and may cancel out, are compared with this at least.
FLOOR = 1e-2


class Failure(Exception):
    """What a case has found."""


def leaves(result, path=""):
    """(path, value) of all that is in dicts, tuples and lists."""
    if isinstance(result, dict):
        for key, value in result.items():
            yield from leaves(value, f"{path}[{key!r}]")
    elif isinstance(result, (tuple, list)):
        for i, value in enumerate(result):
            yield from leaves(value, f"{path}[{i}]")
    else:
        yield path, result


def bits(result):
    """Comparable with ``==``, where NaN equals NaN."""
    found = []
    for path, value in leaves(result):
        if isinstance(value, (np.ndarray, np.generic, float)):
            array = np.asarray(value)
            found.append((path, array.shape, array.dtype.str, array.tobytes()))
        else:
            found.append((path, value))
    return found


def picture(value):
    """What must not change in an argument, a container or a state: comparable with ``==``."""
    kind = type(value)
    if isinstance(value, np.ndarray):
        if not value.flags.owndata and 0 in value.strides and value.nbytes > 1 << 20:
            return value.shape, value.strides  # a broadcast of one number
        if value.dtype.kind == "O":
            return value.shape, [picture(v) if v is not value else None for v in value.reshape(-1).tolist()]
        root = value
        while isinstance(root.base, np.ndarray):
            root = root.base
        return (
            value.shape,
            value.dtype.str,
            value.strides,
            value.flags.writeable,
            value.tobytes(),
            root.tobytes(),
        )
    if kind is dict:
        return [(repr(key), picture(v)) for key, v in value.items()]
    if kind in (list, tuple):
        return kind, len(value), [picture(v) if v is not value else None for v in value]
    if kind in (float, complex):
        return repr(value)
    if kind in (int, str, bool, bytes, type(None)):
        return value
    if isinstance(value, np.generic):
        return value.dtype.str, value.tobytes()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if kind is memoryview:
        return value.tobytes()
    return id(value)


def error_of(got, want):
    """Largest difference of two arrays, infinite where only one is finite there or the kinds differ."""
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        return math.inf
    if not got.size:
        return 0.0
    same = (got == want) | ((got != got) & (want != want))
    if same.all():
        return 0.0
    off = np.abs(got.astype(np.float64) - want.astype(np.float64))[~same]
    return float(off.max()) if np.isfinite(off).all() else math.inf


def mismatches(got, want, dtype, tolerance):
    """(path, error, allowed) of results that are further from the wanted ones than rounding takes them."""
    got, want = list(leaves(got)), list(leaves(want))
    if [path for path, _ in got] != [path for path, _ in want]:
        raise Failure(f"results {[p for p, _ in got]}, wanted {[p for p, _ in want]}")
    bad = []
    for (path, g), (_, w) in zip(got, want, strict=True):
        if w is None or isinstance(w, (str, bool, np.dtype, tuple)):
            if g is not w and g != w:
                raise Failure(f"result{path} is {g!r}, wanted {w!r}")
            continue
        ga, wa = np.asarray(g), np.asarray(w)
        if ga.shape != wa.shape:
            raise Failure(f"result{path} has shape {ga.shape}, wanted {wa.shape}")
        if ga.dtype.kind != wa.dtype.kind:
            raise Failure(f"result{path} has dtype {ga.dtype}, wanted {wa.dtype}")
        if isinstance(g, np.ndarray) and ga.dtype.kind == "f" and ga.dtype != dtype:
            raise Failure(f"result{path} has dtype {ga.dtype}, wanted {dtype}")
        error = error_of(ga, wa)
        if not error:
            continue
        allowed = 0.0
        if wa.dtype.kind == "f":
            finite = np.abs(wa[np.isfinite(wa)])
            allowed = tolerance * max(float(finite.max(initial=0)), 0.0 if wa.ndim else FLOOR)
        if not error <= allowed:
            bad.append((path, error, allowed))
    return bad
