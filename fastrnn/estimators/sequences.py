"""What users give as X and y, as sequences side by side in one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn.checks import describe

__all__ = ["Sequences", "check_table", "is_list_of_arrays", "is_table", "read_sequences", "read_steps"]

#: More than an array has in any NumPy.
_MOST_AXES = 64


class Sequences:
    """Sequences of vectors, one after the other.

    Parameters
    ----------
    flat : ndarray, shape (steps of all, d)
    lengths : ndarray of int, shape (n,)
        Steps of each.
    as_list : bool
        Whether they came as a list, and what is said of each step goes back as one.

    Attributes
    ----------
    same_length : bool
        Whether all are as long.
    """

    def __init__(self, flat: np.ndarray, lengths: np.ndarray, *, as_list: bool = False) -> None:
        self.flat, self.lengths, self.as_list = flat, lengths, as_list
        self.starts = np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64)
        self.same_length = bool((lengths == lengths[0]).all()) if len(lengths) else True

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Rows of `flat`, shape (T, N), that are the steps of the chosen sequences side by side, and their lengths.

        Beyond the end of a sequence its last step comes again.  The lengths are None where all are the same.
        """
        lengths = self.lengths[chosen]
        steps = np.arange(lengths.max(initial=1))[:, None]
        if self.same_length:
            return self.starts[chosen] + steps, None
        return self.starts[chosen] + np.minimum(steps, lengths - 1), lengths

    def steps_of(self, chosen: np.ndarray) -> np.ndarray:
        """Rows of `flat` that belong to the chosen sequences."""
        mine = np.zeros(len(self), bool)
        mine[chosen] = True
        return np.flatnonzero(np.repeat(mine, self.lengths))

    def by_sequence(self, steps: np.ndarray) -> Any:
        """What there is of each step, shape (steps of all, ...), as an array (n, T, ...) or a list of arrays."""
        if self.as_list:
            return np.split(steps, self.starts[1:])
        return steps.reshape(len(self), -1, *steps.shape[1:])


def is_table(X: Any) -> bool:
    """Whether X is 2-D input, a row for each sequence, and so scikit-learn's to check."""
    if isinstance(X, (list, tuple)):
        shapes = [np.shape(row) if not isinstance(row, (list, tuple)) else _shape_of(row) for row in X]
        return not any(len(shape) > 1 for shape in shapes) and len(set(shapes)) < 2
    shape = _shape(X)
    of_objects = isinstance(X, np.ndarray) and X.dtype.kind == "O"
    if of_objects and len(shape) == 1 and any(np.ndim(row) for row in X):
        raise ValueError("X must be a list of sequences, not an array of them: list(X) is one")
    return len(shape) < 3


def _shape(X: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = X.shape if hasattr(X, "dtype") or hasattr(X, "iloc") else np.asarray(X).shape
    return shape


def check_table(X: Any) -> None:
    """Refuse, in fewer words than scikit-learn, what has no rows: one array of numbers, or one number."""
    is_list = isinstance(X, (list, tuple))
    if is_list and X and np.ndim(X[0]):
        return
    shape = (len(X),) if is_list else _shape(X)
    if len(shape) < 2:
        got = f"shape {shape}" if shape else describe(X)
        raise ValueError(
            f"X must be a table (n, T), an array (n, T, d) or a list of sequences, got {got}. Reshape your data: "
            f"X.reshape(-1, 1) has sequences of one step, X.reshape(1, -1) is one sequence"
        )


def is_list_of_arrays(X: Any) -> bool:
    """Whether X is a list of sequences however long they are, and never a table written row by row."""
    return isinstance(X, (list, tuple)) and any(isinstance(row, np.ndarray) and row.ndim for row in X)


def _shape_of(row: Sequence[Any]) -> tuple[int, ...]:
    """Shape of nested lists, by their first members: they may be ragged.

    Of a list that holds itself it has more axes than an array can have.
    """
    shape: list[int] = []
    inner: Any = row
    while isinstance(inner, (list, tuple)) and len(shape) <= _MOST_AXES:
        shape.append(len(inner))
        if not inner:
            break
        inner = inner[0]
    return (*shape, *np.shape(inner)) if not isinstance(inner, (list, tuple)) else tuple(shape)


def read_sequences(X: Any, name: str = "X") -> Sequences:
    """X that is (n, T, d), or a list of arrays (T_i, d), or of arrays (T_i,) of one channel."""
    if not isinstance(X, (list, tuple)):
        array = _reals(X, name)
        if array.ndim != 3 or not all(array.shape):
            raise ValueError(f"{name} must have shape (n, T, d) with at least one of each, got {array.shape}")
        n, T, d = array.shape
        flat, lengths, as_list = array.reshape(n * T, d), np.full(n, T), False
    else:
        arrays = [_one_sequence(row, f"{name}[{i}]") for i, row in enumerate(X)]
        if not arrays:
            raise ValueError(f"{name} must hold at least one sequence, got an empty {type(X).__name__}")
        d = arrays[0].shape[1]
        for i, array in enumerate(arrays):
            if array.shape[1] != d:
                raise ValueError(f"{name}[{i}] must have shape (T, {d}), as {name}[0] has, got {array.shape}")
        flat, lengths, as_list = np.concatenate(arrays), np.array([len(array) for array in arrays]), True
    sequences = Sequences(np.ascontiguousarray(flat), lengths, as_list=as_list)
    check_finite(sequences, flat, name)
    return sequences


def _one_sequence(value: Any, name: str) -> np.ndarray:
    array = _reals(value, name)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not all(array.shape):
        raise ValueError(
            f"{name} must have shape (T, d) or (T,), with at least one time step, got {array.shape}"
        )
    return array


def _reals(value: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be made an array: {error}") from None
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must hold real numbers: {error}") from None
    if array.dtype.kind not in "bfiu":
        raise ValueError(f"{name} must hold real numbers, got {describe(value, array)}")
    return np.asarray(array, np.float64)


def check_finite(sequences: Sequences, steps: np.ndarray, name: str) -> None:
    """Refuse NaN and infinity in what there is of each step, with the place where they are."""
    if steps.dtype.kind != "f":
        return
    bad = ~np.isfinite(steps.reshape(len(steps), -1)).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        n = int(np.searchsorted(sequences.starts, row, side="right")) - 1
        value = steps[row][~np.isfinite(steps[row])][0] if steps[row].ndim else steps[row]
        raise ValueError(
            f"{name} must be finite, and {name}[{n}] holds {value} at step {row - sequences.starts[n]}"
        )


def check_finite_rows(values: np.ndarray, name: str) -> None:
    """Refuse NaN and infinity in what there is of each sequence, with the place where they are."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        place = tuple(map(int, np.argwhere(~np.isfinite(values))[0]))
        raise ValueError(
            f"{name} must be finite, and {name}[{', '.join(map(str, place))}] is {values[place]}"
        )


def read_steps(y: Any, lengths: np.ndarray, name: str = "y") -> np.ndarray:
    """Targets of each step, as one array (steps of all, ...): y (n, T) or (n, T, k), or a list of arrays."""
    rows = y if isinstance(y, (list, tuple)) else np.asarray(y)
    if isinstance(rows, np.ndarray) and not rows.ndim:
        raise ValueError(f"{name} must be an array or a list with targets for each step, got {describe(y)}")
    arrays = [np.asarray(row) for row in rows]
    if len(arrays) != len(lengths):
        raise ValueError(f"{name} must have an entry for each of {len(lengths)} sequences, got {len(arrays)}")
    for i, (array, T) in enumerate(zip(arrays, lengths, strict=True)):
        if not array.ndim or len(array) != T or array.shape[1:] != arrays[0].shape[1:]:
            wanted = (int(T), *arrays[0].shape[1:])
            raise ValueError(
                f"{name}[{i}] must have shape {wanted}, one target for each step, got {array.shape}"
            )
    return np.concatenate(arrays)
