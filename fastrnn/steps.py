"""What `SimpleRNN.forward` returns: mappings from time step to column vector that do what the notes' dicts
do, but are laid over one contiguous array each for as long as nobody changes which vector a key has."""

from __future__ import annotations

import operator
from collections.abc import ItemsView, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from typing import Any

import numpy as np

from fastrnn.checks import as_array, own_arrays

__all__ = ["OneHotSteps", "Steps"]


class Steps(MutableMapping[int, np.ndarray]):
    """Column vectors by time step, each a view on one array.

    It does what a dict of these vectors does.  Assigning, adding or deleting a key changes what the mapping
    holds, not the array: from then on it is a plain dict inside.

    Parameters
    ----------
    array : ndarray, shape (steps, n)
        Row ``t - first`` is the vector of time step ``t``.
    first : int
        Key of the first row: 0, or -1 where the state before the first input comes first.

    Attributes
    ----------
    array : ndarray, shape (steps, n)
        What the mapping shows; writing to a vector writes here.  Once a key was assigned, added or deleted:
        a read-only copy of the vectors, in the order of their time steps.

    Examples
    --------
    >>> steps = Steps(np.arange(6.0).reshape(3, 2), first=-1)
    >>> list(steps), steps[-1].shape
    ([-1, 0, 1], (2, 1))
    >>> steps[1][0, 0] = 7.0
    >>> steps.array[2]
    array([7., 5.])
    >>> steps[0], steps[1] = steps[1], steps[0]
    >>> steps.array[2]
    array([2., 3.])
    """

    __slots__ = ("_array", "_first", "_vectors")

    def __init__(self, array: np.ndarray, first: int = 0) -> None:
        self._array = array
        self._first = first
        #: What the mapping holds, once that is not the rows of the array.
        self._vectors: dict[Any, Any] | None = None

    @property
    def array(self) -> np.ndarray:
        if self._vectors is None:
            return self._filled()
        keys = range(self._first, self._first + len(self))
        if any(t not in self._vectors for t in keys):
            raise ValueError(
                f"there is an array of time steps {keys[0]} to {keys[-1]} only, and not of {self!r}"
            )
        gathered = np.empty((len(keys), self.width), self._array.dtype)
        for row, t in zip(gathered, keys, strict=True):
            row[:] = self._checked(t, self._vectors[t])[:, 0]
        gathered.flags.writeable = False
        return gathered

    def _filled(self) -> np.ndarray:
        """The array whose rows are the vectors, which exists from now on."""
        return self._array

    @property
    def width(self) -> int:
        """Length n of each vector."""
        return int(self._array.shape[1])

    @property
    def time_steps(self) -> range | None:
        """Keys of the mapping; None once one was assigned, added or deleted."""
        return None if self._vectors is not None else range(self._first, self._first + len(self._array))

    @property
    def _keys(self) -> range | dict[Any, Any]:
        steps = self.time_steps
        return self._edited() if steps is None else steps

    def _row(self, t: Any) -> int:
        """Row of a key, -1 where there is none.  As in a dict, equal keys are one, whatever their types."""
        if type(t) is not int:
            hash(t)  # a dict's TypeError
            try:
                t = operator.index(t)
            except TypeError:
                keys = self._keys
                return list(keys).index(t) if t in keys else -1
        row: int = t - self._first
        return row if 0 <= row < len(self._array) else -1

    def _edited(self) -> dict[Any, Any]:
        """The vectors by time step; what is done to this dict is done to the mapping."""
        if self._vectors is None:
            array = self._filled()
            self._vectors = {self._first + i: row[:, None] for i, row in enumerate(array)}
            self._array = array[:0]
        return self._vectors

    def _checked(self, t: Any, vector: Any) -> np.ndarray:
        checked: np.ndarray = as_array(vector, f"step {t}")
        if checked.shape != (self.width, 1):
            raise ValueError(f"step {t} has shape {(self.width, 1)}, got a value of shape {checked.shape}")
        return checked

    # -- as a dict -------------------------------------------------------------------------------

    def __getitem__(self, t: int) -> np.ndarray:
        vector: np.ndarray
        if self._vectors is not None:
            vector = self._vectors[t]
        else:
            row = self._row(t)
            if row < 0:
                raise KeyError(t)
            vector = self._filled()[row, :, None]
        return vector

    def __contains__(self, t: object) -> bool:
        return self._row(t) >= 0 if self._vectors is None else t in self._vectors

    def __setitem__(self, t: int, vector: Any) -> None:
        if t in self:
            own = self[t]
            if getattr(own, "shape", None) == (self.width, 1):
                vector = self._checked(t, vector)
            if _is_same(own, vector):  # ``steps[t] -= 1`` has changed the vector, and puts it back
                return
        self._edited()[t] = vector

    def __delitem__(self, t: int) -> None:
        if t not in self:
            raise KeyError(t)
        del self._edited()[t]

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __reversed__(self) -> Iterator[int]:
        return reversed(self._keys)

    def __len__(self) -> int:
        return len(self._array if self._vectors is None else self._vectors)

    def keys(self) -> KeysView[int]:
        return _Keys(self)

    def values(self) -> ValuesView[np.ndarray]:
        return _Values(self)

    def items(self) -> ItemsView[int, np.ndarray]:
        return _Items(self)

    def popitem(self) -> tuple[int, np.ndarray]:
        """Take out the last key and its vector."""
        return self._edited().popitem()

    def clear(self) -> None:
        self._edited().clear()

    def copy(self) -> Steps:
        """Another mapping that holds the same vectors."""
        other = Steps(self._filled(), self._first)
        if self._vectors is not None:
            other._vectors = self._vectors.copy()
        return other

    def __copy__(self) -> Steps:
        return self.copy()

    def __or__(self, other: Any) -> dict[Any, Any]:
        return {**self, **other} if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return {**other, **self} if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Steps:
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        """As of dicts: where keys are equal and vectors not the same, NumPy refuses to say whether arrays are."""
        if not isinstance(other, Mapping):
            return NotImplemented
        mine, theirs = dict(self), dict(other)
        return mine == {t: mine[t] if t in mine and _is_same(mine[t], v) else v for t, v in theirs.items()}

    __hash__ = None  # type: ignore[assignment]

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        self._vectors = None  # older pickles have none
        for name, value in own_arrays(state)[1].items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        first, last = self._first, self._first + len(self) - 1
        kept = list(self._keys) == list(range(first, last + 1))
        steps = f"time steps {first}..{last}" if kept and len(self) else f"{len(self)} keys"
        return f"<{type(self).__name__}: {steps}, vectors {(self.width, 1)}>"


class _Keys(KeysView[int]):
    __slots__ = ()
    _mapping: Steps

    def __reversed__(self) -> Iterator[int]:
        return reversed(self._mapping)


class _Values(ValuesView[np.ndarray]):
    __slots__ = ()
    _mapping: Steps

    def __reversed__(self) -> Iterator[np.ndarray]:
        return (self._mapping[t] for t in reversed(self._mapping))


class _Items(ItemsView[int, np.ndarray]):
    __slots__ = ()
    _mapping: Steps

    def __reversed__(self) -> Iterator[tuple[int, np.ndarray]]:
        return ((t, self._mapping[t]) for t in reversed(self._mapping))


def _is_same(a: Any, b: Any) -> bool:
    """Whether two values are one object; or views of the same numbers, which are made at each look."""
    if a is b or not (type(a) is type(b) is np.ndarray):
        return a is b
    return a.dtype == b.dtype and a.__array_interface__ == b.__array_interface__


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

    __slots__ = ("_dtype", "_indices", "_looked_at", "_size")

    def __init__(self, indices: np.ndarray, size: int, dtype: np.dtype) -> None:
        self._array = indices
        self._first = 0
        self._vectors = None
        self._indices: np.ndarray | None = indices
        #: The array, once it exists; shared with the copies, which hold the same vectors.
        self._looked_at: list[np.ndarray] = []
        self._size = size
        self._dtype = dtype

    @property
    def indices(self) -> np.ndarray | None:
        return None if self._looked_at else self._indices

    @indices.setter
    def indices(self, value: Any) -> None:
        self._indices = value

    def _filled(self) -> np.ndarray:
        if not self._looked_at:
            if self._indices is None:
                return self._array
            one_hot = np.zeros((len(self._indices), self._size), self._dtype)
            one_hot[np.arange(len(self._indices)), self._indices] = 1
            self._looked_at.append(one_hot)
        return self._looked_at[0]

    @property
    def width(self) -> int:
        return self._size

    def copy(self) -> Steps:
        if self._vectors is not None:
            return super().copy()
        other = OneHotSteps(self._array, self._size, self._dtype)
        other._indices, other._looked_at = self._indices, self._looked_at
        return other

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        self._looked_at = []
        super().__setstate__(state)
        if self._indices is None and not self._looked_at:  # looked at, and of an older version
            self._looked_at.append(self._array)
