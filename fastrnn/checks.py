"""Checks of what users pass in, made before anything is modified.  Each error names the argument,
what came and what is wanted."""

from __future__ import annotations

import functools
import math
import numbers
import operator
import sys
import warnings
from types import FrameType, ModuleType
from typing import Any

import numpy as np

from fastrnn.errors import brief
from fastrnn.kernels import CLIP_NONE, CLIP_NORM, CLIP_STEP, CLIP_VALUE

__all__ = [
    "IGNORED",
    "OwnsArrays",
    "as_array",
    "check_choice",
    "check_dtype",
    "check_flag",
    "check_index",
    "check_index_batch",
    "check_indices",
    "check_inputs",
    "check_lengths",
    "check_number",
    "check_real_array",
    "check_rng",
    "check_sequence_targets",
    "check_size",
    "check_steps",
    "check_targets",
    "describe",
    "index_batch",
    "is_ours",
    "kernel_array",
    "own_arrays",
    "show_integer",
    "target_error",
    "warn_user",
]

INDEX = np.dtype(np.int64)

#: The target that counts for nothing, as in PyTorch.
IGNORED = -100

#: What kernels take where inputs are vectors, and where all sequences are as long as the batch.
NO_INDICES, NO_LENGTHS = np.empty((0, 0), INDEX), np.empty(0, INDEX)

#: More than any memory holds; beyond it NumPy's own errors name no argument.
LARGEST_SIZE = 2**48


def check_size(value: Any, name: str, minimum: int = 1) -> int:
    """Return `value` as an int from `minimum` to `LARGEST_SIZE`."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        size = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None
    if size < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {show_integer(size)}")
    if size > LARGEST_SIZE:
        raise ValueError(f"{name} must be at most {LARGEST_SIZE}, got {show_integer(size)}")
    return size


def check_index(value: Any, name: str, bound: int) -> int:
    """Return one class index as an int in [0, bound), a negative one counted from the end."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer (a class index), got {value!r}")
    try:
        index = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer (a class index), got {describe(value)}") from None
    if not -bound <= index < bound:
        raise IndexError(f"{name} is {show_integer(index)}, outside [-{bound}, {bound})")
    return index % bound


def show_integer(n: int) -> str:
    """`n` in digits; Python refuses to print the longest ones."""
    return f"{n}" if -(10**40) < n < 10**40 else f"an integer of {int(n).bit_length()} bits"


def check_number(value: Any, name: str, *, positive: bool = False, finite: bool = True) -> float:
    """Return `value` as a float; `positive` refuses zero and less, NaN is always refused."""
    if type(value) is float and math.isfinite(value) and (value > 0 or not positive):
        return value
    is_number = isinstance(value, (numbers.Real, np.ndarray)) and not isinstance(value, (bool, np.bool_))
    if not is_number or np.ndim(value) != 0 or np.asarray(value).dtype.kind not in "iuf":
        raise TypeError(f"{name} must be a real number, got {describe(value)}")
    number = float(value)
    if math.isnan(number) or (finite and math.isinf(number)) or (positive and number <= 0):
        wanted = f"a {'finite ' if finite else ''}{'positive ' if positive else ''}number"
        raise ValueError(f"{name} must be {wanted}, got {number}")
    return number


def check_choice(value: Any, name: str, choices: tuple[Any, ...]) -> Any:
    """Return `value` if it is one of `choices`."""
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        named = getattr(value if isinstance(value, type) else type(value), "__name__", "").lower()
        instead = f": give its name, {named!r}" if named in choices else ""
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, choices))}, got {brief(value)}{instead}"
        )
    return value


def check_flag(value: Any, name: str) -> bool:
    """Return `value` if it is a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a bool, got {describe(value)}")
    return bool(value)


def check_dtype(dtype: Any) -> np.dtype:
    """Return `dtype` as NumPy's float32 or float64."""
    try:
        wanted = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):  # the last of a text that is nearly one
        raise TypeError(f"dtype must be float32 or float64, got {brief(dtype)}") from None
    for supported in (np.dtype(np.float64), np.dtype(np.float32)):
        if dtype is not None and wanted == supported:
            return supported
    raise TypeError(f"dtype must be float32 or float64, got {brief(dtype)}")


def check_rng(rng: Any) -> np.random.Generator | None:
    """Return `rng` as a Generator; an int is a seed, None (NumPy's global stream) stays None."""
    if rng is None or isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, (bool, np.bool_)):
        if rng < 0:
            raise ValueError(f"rng must be a seed of at least 0, got {show_integer(int(rng))}")
        return np.random.default_rng(rng)
    raise TypeError(f"rng must be a numpy.random.Generator, an int or None, got {type(rng).__name__}")


def kernel_array(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return `array` as kernels take it: native `dtype`, C-contiguous, aligned, writable."""
    if array.dtype is dtype and array.flags.carray:
        return array
    converted = np.ascontiguousarray(array, dtype)
    # ascontiguousarray makes 0-d arrays 1-d and may return a read-only original.
    return converted.reshape(array.shape) if converted.flags.carray else converted.copy()


def own_arrays(state: Any) -> Any:
    """`state`, of an object that was unpickled, with writable copies of what came read-only in it: arrays that
    are mapped from a file, or lie in the memory of another object.

    Looks into dicts, lists and tuples.  An array that is in several places stays one.
    """
    return _own_arrays(state, {})


class OwnsArrays:
    """What can be pickled as it is, but that its arrays are writable on arrival: see `own_arrays`."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(own_arrays(state))


def _own_arrays(value: Any, seen: dict[int, Any]) -> Any:
    kind = type(value)
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, np.ndarray):
        owned = value if kind is not np.memmap else np.asarray(value)
        if not value.flags.writeable:
            owned = np.array(owned, subok=True)
        seen[id(value)] = owned
        return owned
    if kind not in (dict, list, tuple):
        return value
    seen[id(value)] = value  # a list may hold itself
    entries = value.values() if kind is dict else value
    owned_entries = [_own_arrays(entry, seen) for entry in entries]
    if not all(map(operator.is_, entries, owned_entries)):
        seen[id(value)] = (
            kind(zip(value, owned_entries, strict=True)) if kind is dict else kind(owned_entries)
        )
    return seen[id(value)]


def check_real_array(value: Any, name: str, dtype: np.dtype, *shapes: tuple[int | str, ...]) -> np.ndarray:
    """Return `value` as a kernel array of real numbers in one of `shapes`.

    A letter in a shape stands for any length from 1 on.
    """
    if type(value) is np.ndarray and value.dtype is dtype and value.shape == shapes[0] and value.flags.carray:
        return value
    return _real_array(value, as_array(value, name), name, dtype, shapes)


def _real_array(
    value: Any, array: np.ndarray, name: str, dtype: np.dtype, shapes: tuple[tuple[int | str, ...], ...]
) -> np.ndarray:
    """`check_real_array` of `array`, which was made of `value`."""
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got {describe(value, array)}")
    if not any(_fits(array.shape, shape) for shape in shapes):
        for shape in shapes:
            _refuse_zero_length(array.shape, name, shape)
        wanted = " or ".join(_shape(shape) for shape in shapes)
        raise ValueError(f"{name} must have shape {wanted}, got {_shape(array.shape)}")
    return kernel_array(array, dtype)


def check_lengths(lengths: Any, T: int, N: int) -> np.ndarray:
    """Return the lengths of N sequences as kernels take them: int64, no elements where all are T."""
    if lengths is None:
        return NO_LENGTHS
    array = as_array(lengths, "lengths")
    if array.shape != (N,):
        raise ValueError(f"lengths must have shape ({N},), one for each sequence, got {array.shape}")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"lengths must hold integers, got {describe(lengths, array)}")
    bad = (array < 1) | (array > T)
    if bad.any():
        n = int(bad.argmax())
        raise ValueError(f"lengths[{n}] is {array[n]}, outside [1, {T}]")
    return NO_LENGTHS if (array == T).all() else array.astype(INDEX)


def index_batch(
    value: Any, name: str, axes: tuple[str, str] = ("T", "N"), may_be_empty: str = ""
) -> np.ndarray:
    """Return `value` as a (T, N) kernel array of int64 class indices, their range not yet checked.

    `may_be_empty` names the axis that may have no length.
    """
    array = as_array(value, name)
    if array.ndim != 2:
        came = f"shape {_shape(array.shape)}" if array.ndim else describe(value)
        raise ValueError(
            f"{name} must have shape {_shape(axes)}, a class index for each time step, got {came}"
        )
    _refuse_zero_length(array.shape, name, axes, may_be_empty)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers (class indices), got {describe(value, array)}")
    return _signed(array, np.iinfo(np.int64).max)


def check_steps(
    value: Any, name: str, d: int, dtype: np.dtype, *, batch_first: bool = False, one: bool = True
) -> tuple[np.ndarray, bool, bool]:
    """Return the inputs of a layer, whether they are class indices, and whether they are a batch.

    They are (T, N, d), or (N, T, d) where `batch_first`, or where `one` sequence will do (T, d), and come
    back as (T, N, d) of `dtype`; class indices are integers without the last axis, and come back as (T, N)
    of int64, their range not yet checked.  There may be no sequences.
    """
    plain = type(value) is np.ndarray and value.dtype is dtype and value.ndim == 3 and value.flags.carray
    if plain and value.shape[2] == d and value.size:
        # As most inputs are; the checks below take longer than a short call's kernel.
        return value.swapaxes(0, 1) if batch_first else value, False, True
    array = as_array(value, name)
    axes = ("N", "T") if batch_first else ("T", "N")
    if array.dtype.kind == "b":
        raise TypeError(
            f"{name} must hold real numbers, or integers as class indices, got {describe(value, array)}: give "
            f"one-hot vectors as floats, {name}.astype(float)"
        )
    classes = array.dtype.kind in "iu" and array.ndim < 3
    if classes:
        if not array.ndim and one:
            raise ValueError(f"{name} must have a time step at least, got {describe(value)}")
        batched = array.ndim == 2 or not one
        if batched:
            array = index_batch(array if array.ndim else value, name, axes, "N")
            _warn_of_one_hots(array, name, d, axes)
        else:
            _refuse_zero_length(array.shape, name, ("T",))
            array = index_batch(array[:, None], name)
    else:
        shapes: list[tuple[int | str, ...]] = [(*axes, d)]
        if array.ndim == 3 and not array.shape[axes.index("N")]:
            shapes = [tuple(0 if letter == "N" else letter for letter in shapes[0])]
        elif one:
            shapes.append(("T", d))
        array = _real_array(value, array, name, dtype, tuple(shapes))
        batched = array.ndim == 3
        if not batched:
            array = array[:, None]
    return array.swapaxes(0, 1) if batch_first and batched else array, classes, batched


def _warn_of_one_hots(array: np.ndarray, name: str, d: int, axes: tuple[str, str]) -> None:
    """Warn where a batch of class indices looks like one-hot vectors (T, d) of integers."""
    # Of true classes, the first row hardly ever looks so: the rest is not read.
    if array.shape[1] != d or d < 2 or not len(array) or np.count_nonzero(array[0]) != 1:
        return
    if (np.count_nonzero(array, axis=1) == 1).all() and array.min() == 0 and array.max() == 1:
        warn_user(
            f"{name} of shape {_shape(array.shape)} holds integers, so it is read as class indices "
            f"{_shape(axes)}, but looks like one-hot vectors: give those as floats, {name}.astype(float)"
        )


def is_ours(frame: FrameType | None) -> bool:
    """Whether a frame is one of this package's own."""
    return frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "fastrnn"


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, at the line outside of this package that led here."""
    level, frame = 2, sys._getframe(1)
    while is_ours(frame) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


#: Ways of clipping -> their codes for the kernels; those of a batch, whose steps are summed at once.
CLIP_MODES = {None: CLIP_NONE, "step": CLIP_STEP, "value": CLIP_VALUE, "norm": CLIP_NORM}
BATCH_CLIP_MODES = {mode: code for mode, code in CLIP_MODES.items() if mode != "step"}


def check_clip(clip: Any, clip_threshold: Any, modes: dict[str | None, int]) -> tuple[int, float]:
    """Return the code of a way of clipping, and its threshold; an infinite one clips nothing."""
    try:
        mode = modes[clip]
    except (KeyError, TypeError):
        mode = modes[check_choice(clip, "clip", tuple(modes))]
    threshold = check_number(clip_threshold, "clip_threshold", positive=True, finite=False)
    return (CLIP_NONE if threshold == math.inf else mode), threshold


def check_index_batch(
    array: np.ndarray, name: str, bound: int, kernels: ModuleType, out: np.ndarray, given: Any,
    batch_first: bool = False,
) -> None:  # fmt: skip
    """Copy an `index_batch` to the flat `out`, in [0, bound), negative ones counted from the end.

    `given` is what it was made of: (T, N), (N, T) where `batch_first`, or one sequence (T,).
    """
    bad = kernels.wrap_indices(array.reshape(-1), bound, out)
    if bad >= 0:
        t, n = divmod(int(bad), array.shape[1])
        values = as_array(given, name)
        place = (t,) if values.ndim == 1 else (n, t) if batch_first else (t, n)
        shown = ", ".join(map(str, place))
        raise IndexError(f"{name}[{shown}] is {values[place]}, outside [-{bound}, {bound})")


def check_targets(
    array: np.ndarray, name: str, bound: int, kernels: ModuleType, out: np.ndarray, given: Any
) -> int:
    """Copy an `index_batch` of targets to the flat `out`: in [0, bound), or -1 where they are `IGNORED`.

    `given` is what it was made of: (T, N), or one sequence (T,).  Returns how many count.
    """
    counted: int = kernels.copy_targets(array.reshape(-1), bound, IGNORED, out)
    if counted < 0:
        values = as_array(given, name)
        place = np.unravel_index(-1 - counted, values.shape)
        raise target_error(name, place, values[place], bound, IGNORED)
    return counted


def target_error(name: str, place: tuple[Any, ...], value: Any, bound: int, ignored: int) -> IndexError:
    """What is said of a target that is neither a class nor the one that does not count."""
    shown = f"[{', '.join(map(str, place))}]" if place else ""
    return IndexError(
        f"{name}{shown} is {value}, outside [0, {bound}); {show_integer(ignored)} marks what does not count"
    )


def check_indices(
    value: Any, name: str, bound: int, kernels: ModuleType, *, length: int | None = None
) -> np.ndarray:
    """Return a sequence of class indices as int64 in [0, bound), negative ones counted from the end."""
    return _indices(value, as_array(value, name), name, bound, kernels, length)


def _indices(
    value: Any, array: np.ndarray, name: str, bound: int, kernels: ModuleType, length: int | None
) -> np.ndarray:
    """`check_indices` of `array`, which was made of `value`."""
    if array.ndim != 1:
        if not isinstance(value, bytes):
            came = f"shape {_shape(array.shape)}" if array.ndim else describe(value)
            raise ValueError(f"{name} must be a one-dimensional sequence of class indices, got {came}")
        array = np.array(memoryview(value))  # the integers that bytes are a sequence of
    if not len(array):
        raise ValueError(f"{name} must hold at least one class index, got an empty sequence")
    if array.dtype.kind not in "iu":
        array = _whole_numbers(value, array, name, bound)
    if length is not None and len(array) != length:
        raise ValueError(f"{name} must have length {length}, one for each time step, got {len(array)}")
    out = np.empty(len(array), INDEX)
    bad = kernels.wrap_indices(_signed(array, bound), bound, out)
    if bad >= 0:
        raise _index_error(name, array[bad], int(bad), bound)
    return out


def _signed(array: np.ndarray, bound: int) -> np.ndarray:
    """Integers as a kernel array of int64: what that cannot hold is out of bounds, not negative."""
    if array.dtype.kind == "u" and array.dtype.itemsize >= 8:
        array = np.minimum(array, np.uint64(bound))
    return kernel_array(array, INDEX)


def check_inputs(value: Any, d: int, dtype: np.dtype, kernels: ModuleType) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs as ``indices (T,)`` and ``x (T, d)``; the one of the two that is not used has no rows."""
    array = as_array(value, "inputs")
    if array.ndim >= 2:
        if array.dtype.kind == "b":  # one-hot: the notes' ``xs[t][inputs[t]] = 1`` sets what is True
            array = array.astype(np.uint8)
        x = _real_array(value, array, "inputs", dtype, (("T", d), ("T", d, 1)))
        return _NO_SEQUENCE, x.reshape(len(x), d)
    return _indices(value, array, "inputs", d, kernels, None), _no_vectors(d, dtype)


def check_sequence_targets(value: Any, q: int, kernels: ModuleType, length: int | None = None) -> np.ndarray:
    """`check_indices` of targets; one-hot bools ``(T, q)`` or ``(T, q, 1)`` are read as their classes, as in
    the notes' ``dy[targets[t]] -= 1``."""
    array = as_array(value, "targets")
    if array.ndim >= 2 and array.dtype.kind == "b":
        if not (_fits(array.shape, ("T", q)) or _fits(array.shape, ("T", q, 1))):
            wanted = f"(T, {q}) or (T, {q}, 1)"
            raise ValueError(f"targets of bools must have shape {wanted}, got {_shape(array.shape)}")
        marked = array.reshape(len(array), q)
        counts = marked.sum(axis=1)
        if (counts != 1).any():
            t = int((counts != 1).argmax())
            raise ValueError(f"targets of bools must mark one class each, targets[{t}] marks {counts[t]}")
        value = array = marked.argmax(axis=1)
    return _indices(value, array, "targets", q, kernels, length)


_NO_SEQUENCE = np.empty(0, INDEX)


@functools.lru_cache(maxsize=64)
def _no_vectors(d: int, dtype: np.dtype) -> np.ndarray:
    return np.empty((0, d), dtype)


def as_array(value: Any, name: str) -> np.ndarray:
    """`value` as a plain array (kernels know no subclasses), ragged values refused."""
    if type(value) is np.ndarray:
        return value
    try:
        return np.asarray(value)
    except RuntimeError as error:  # how PyTorch refuses
        raise TypeError(
            f"{name} cannot be made an array; call .detach() if it is a tensor that requires grad: {error}"
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(
            f"{name} cannot be made an array: {error}"
        ) from None


def _whole_numbers(value: Any, array: np.ndarray, name: str, bound: int) -> np.ndarray:
    """Class indices that NumPy made no array of integers of: objects, and lists of Python's integers and
    unsigned ones, or of integers beyond int64."""
    indices = []
    if array.dtype.kind == "O" or (array.dtype.kind == "f" and not isinstance(value, np.ndarray)):
        for position, element in enumerate(array if array.dtype.kind == "O" else value):
            if isinstance(element, (bool, np.bool_)) or not hasattr(element, "__index__"):
                break
            try:
                index = operator.index(element)
            except TypeError:  # an array of more than one element
                break
            if not -bound <= index < bound:
                raise _index_error(name, index, position, bound)
            indices.append(index)
        else:
            return np.array(indices, INDEX)
    raise TypeError(f"{name} must hold integers (class indices), got {describe(value, array)}")


def _index_error(name: str, index: Any, position: int, bound: int) -> IndexError:
    return IndexError(f"{name}[{position}] is {show_integer(index)}, outside [-{bound}, {bound})")


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        n >= 1 if isinstance(m, str) else n == m for n, m in zip(shape, wanted, strict=True)
    )


#: What the lengths that letters stand for are numbers of.
_LETTERS = {"T": "time step", "N": "sequence", "d": "input", "h": "hidden unit"}


def _refuse_zero_length(
    shape: tuple[int, ...], name: str, wanted: tuple[int | str, ...], may_be_empty: str = ""
) -> None:
    """Say so where a shape would be as wanted but for a length of zero."""
    if len(shape) == len(wanted) and all(
        isinstance(m, str) or n == m for n, m in zip(shape, wanted, strict=True)
    ):
        for n, letter in zip(shape, wanted, strict=True):
            if n == 0 and isinstance(letter, str) and letter not in may_be_empty:
                raise ValueError(
                    f"{name} must have at least one {_LETTERS[letter.lstrip('0123456789')]}, got shape {_shape(shape)}"
                )


def _shape(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def describe(value: Any, array: np.ndarray | None = None) -> str:
    if array is not None and array.ndim:
        return f"{type(value).__name__} of dtype {array.dtype}"
    return f"{type(value).__name__} {brief(value)}"
