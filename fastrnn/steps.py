"""What `SimpleRNN.forward` returns: mappings from time step to column vector, as in the notes, but
laid over one contiguous array each."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import numpy as np

from fastrnn.checks import as_array

__all__ = ["OneHotSteps", "Steps"]


class Steps(MutableMapping[int, np.ndarray]):
    """Column vectors by time step, each a view on one array.

    Parameters
    ----------
    array : ndarray, shape (steps, n)
        Row ``t - first`` is the vector of time step ``t``.
    first : int
        Key of the first row: 0, or -1 where the state before the first input comes first.

    Attributes
    ----------
    array : ndarray, shape (steps, n)
        What the mapping shows; writing to a vector writes here.

    Examples
    --------
    >>> steps = Steps(np.arange(6.0).reshape(3, 2), first=-1)
    >>> list(steps), steps[-1].shape
    ([-1, 0, 1], (2, 1))
    >>> steps[1][0, 0] = 7.0
    >>> steps.array[2]
    array([7., 5.])
    """

    __slots__ = ("_array", "_first")

    def __init__(self, array: np.ndarray, first: int = 0) -> None:
        self._array = array
        self._first = first

    @property
    def array(self) -> np.ndarray:
        return self._array

    @property
    def width(self) -> int:
        """Length n of each vector."""
        return int(self._array.shape[1])

    @property
    def time_steps(self) -> range:
        """Keys of the mapping, in their order."""
        return range(self._first, self._first + len(self._array))

    def _row(self, t: Any) -> int:
        try:
            step = int(t)
            if step == t and 0 <= step - self._first < len(self):
                return step - self._first
        except (TypeError, ValueError, OverflowError):
            pass
        raise KeyError(t)

    def __getitem__(self, t: int) -> np.ndarray:
        return self.array[self._row(t), :, None]

    def __setitem__(self, t: int, vector: Any) -> None:
        row = self._row(t)
        vector = as_array(vector, f"step {t}")
        wanted = (self.width, 1)
        if vector.shape != wanted:
            raise ValueError(f"step {t} has shape {wanted}, got a value of shape {vector.shape}")
        self.array[row, :, None] = vector

    def __delitem__(self, t: int) -> None:
        raise TypeError("time steps cannot be deleted: the mapping shows one contiguous array")

    def __iter__(self) -> Iterator[int]:
        return iter(self.time_steps)

    def __len__(self) -> int:
        return len(self._array)

    def __repr__(self) -> str:
        steps = f"{self._first}..{self._first + len(self) - 1}"
        return f"<{type(self).__name__}: time steps {steps}, vectors {(self.width, 1)}>"


class OneHotSteps(Steps):
    """One-hot inputs by time step, kept as class indices until somebody looks at a vector.

    From the first look on they are an ordinary array of shape (T, d), which may be written to.

    Parameters
    ----------
    indices : ndarray of int64, shape (T,)
        Class of each time step, in ``[0, size)``.
    size : int
        Length d of a one-hot vector.
    dtype : dtype
        Of the vectors.

    Attributes
    ----------
    indices : ndarray of int64, shape (T,), or None
        None once the array exists, as it may since have been changed.

    Examples
    --------
    >>> steps = OneHotSteps(np.array([2, 0]), 3, np.float64)
    >>> steps[0].ravel()
    array([0., 0., 1.])
    """

    __slots__ = ("_dtype", "_size", "indices")

    def __init__(self, indices: np.ndarray, size: int, dtype: np.dtype) -> None:
        super().__init__(indices)
        self.indices: np.ndarray | None = indices
        self._size = size
        self._dtype = dtype

    @property
    def array(self) -> np.ndarray:
        if self.indices is not None:
            one_hot = np.zeros((len(self.indices), self._size), self._dtype)
            one_hot[np.arange(len(self.indices)), self.indices] = 1
            self._array, self.indices = one_hot, None
        return self._array

    @property
    def width(self) -> int:
        return self._size
