"""States of a net: arrays one for each kind of state, which users see as an array or, of an LSTM, as a pair.

A public state is an array h, or the pair (h, c); inside there is a tuple of arrays whatever the cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastrnn.checks import check_real_array, describe

if TYPE_CHECKING:
    from fastrnn.layout import Shape

__all__ = ["State", "States", "check_state", "map_state", "parts_of", "public"]

#: As users see it.
State: TypeAlias = np.ndarray | tuple[np.ndarray, ...]


def public(arrays: Sequence[np.ndarray]) -> Any:
    """`arrays` of each kind of state as users see them: the only one, or a tuple."""
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def parts_of(state: Any) -> tuple[Any, ...]:
    """The arrays of a public state."""
    return tuple(state) if isinstance(state, (tuple, list)) else (state,)


def map_state(function: Callable[[np.ndarray], np.ndarray], state: Any) -> Any:
    """A public state whose arrays are those that `function` makes of the arrays of `state`."""
    return public([function(array) for array in parts_of(state)])


def check_state(
    value: Any, name: str, dtype: np.dtype, names: Sequence[str], *shapes: Shape, optional: bool = False
) -> tuple[np.ndarray, ...]:
    """The arrays of a public state as kernels take them.

    Parameters
    ----------
    value : object
        What the user gave.
    name : str
        Its name in errors.
    dtype : dtype
    names : sequence of str
        Of the kinds of state.
    *shapes : tuple of int
        One of these each array must have.
    optional : bool
        Whether an array of a pair may be None; it is then an array without elements.

    Raises
    ------
    TypeError, ValueError
        If it is not a state.
    """
    if len(names) == 1:
        return (check_real_array(value, name, dtype, *shapes),)
    wanted = f"the {'pair' if len(names) == 2 else 'tuple'} ({', '.join(names)}), an array of shape {shapes[0]} each"
    if isinstance(value, np.ndarray) and value.ndim != len(shapes[0]) + 1:
        raise TypeError(f"{name} must be {wanted}, got an array of shape {value.shape}")
    try:
        given = tuple(value)
    except TypeError:
        raise TypeError(f"{name} must be {wanted}, got {describe(value)}") from None
    if len(given) != len(names):
        raise ValueError(f"{name} must be {wanted}, got {len(given)} of them")
    return tuple(
        np.empty((0, 0), dtype)
        if optional and array is None
        else check_real_array(array, f"{name}[{i}]", dtype, *shapes)
        for i, array in enumerate(given)
    )


class States:
    """The states of every place of a net, for N sequences.

    Parameters
    ----------
    arrays : iterable of ndarray, shape (places, N, h)
        One for each kind of state.

    Attributes
    ----------
    arrays : tuple of ndarray
    places : list of tuple of ndarray, shape (N, h)
        Those of each place, as kernels take them: views.
    """

    __slots__ = ("arrays", "places")

    def __init__(self, arrays: Iterable[np.ndarray]) -> None:
        self.arrays = tuple(arrays)
        self.places = list(zip(*self.arrays, strict=True))

    def put(self, arrays: Sequence[np.ndarray]) -> None:
        """Copy other states here."""
        for own, given in zip(self.arrays, arrays, strict=True):
            own[...] = given

    def clear(self) -> None:
        """Make them zeros."""
        for array in self.arrays:
            array.fill(0)

    @property
    def public(self) -> Any:
        """These very arrays, as users see them."""
        return public(self.arrays)

    def copy(self) -> Any:
        """Copies of them, as users see them."""
        return public([array.copy() for array in self.arrays])
