"""Those who share a training: one process alone, or the ranks of `fastrnn.distributed`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

__all__ = ["ALONE", "Group", "check_same", "group_of", "next_look"]

#: Seconds between two looks at the clock.
LOOK_SECONDS = 0.05

T = TypeVar("T")


class Group:
    """A process that trains alone: a group of one.

    Attributes
    ----------
    rank, size : int
        Which of how many this process is.
    sync_every : int
        Steps from one exchange to the next.

    Notes
    -----
    All methods but `share` are called by every rank at the same place of the training.

    Examples
    --------
    >>> ALONE.share(10), ALONE.each("a"), ALONE.of_root(lambda: 1)
    ((0, 10), ['a'], 1)
    """

    rank = 0
    size = 1
    sync_every = 1

    def share(self, N: int) -> tuple[int, int]:
        """Bounds of the sequences, of `N`, that this rank takes: those of all are as many, or one more."""
        return N * self.rank // self.size, N * (self.rank + 1) // self.size

    def together(self, function: Callable[[], T]) -> T:
        """Call a function on every rank; if it raises on one, all of them raise."""
        return function()

    def of_root(self, function: Callable[[], T]) -> T:
        """What a function returns that rank 0 calls; what it raises, all of them raise."""
        return function()

    def each(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        return [value]

    def shared(self, error: BaseException) -> BaseException:
        """Note an error that all ranks raise, each its own; returns it."""
        return error

    def is_shared(self, error: BaseException) -> bool:
        """Whether all ranks have raised it at the same place; so they are all where they were."""
        return True

    def joined(self, array: np.ndarray, axis: int) -> np.ndarray:
        """The arrays of all ranks as one, a copy."""
        return np.concatenate(self.each(array), axis)


def next_look(stride: int, passed: float) -> int:
    """Steps until the next look at the clock, where `passed` seconds went by with the last `stride` ones.

    Examples
    --------
    >>> next_look(8, 0.001), next_look(8, 0.4)
    (16, 1)
    """
    # Twice as many at most, so that one fast step does not make it look away for long.
    return max(1, int(stride * min(2.0, LOOK_SECONDS / max(passed, 1e-9))))


#: The group of a process that is in no other.
ALONE = Group()


def group_of(comm: Any) -> Group:
    """The group that is given as `comm`; None is for a process alone.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if comm is None:
        return ALONE
    if not isinstance(comm, Group):
        raise TypeError(
            f"comm must be what fastrnn.distributed.mpi() returns, or None, got {type(comm).__name__}"
        )
    return comm


def check_same(group: Group, said: dict[str, Any]) -> None:
    """Refuse ranks that are not at the same thing: `said` names what must be the same.

    Raises
    ------
    ValueError
        On every rank.
    """
    everyone = group.each(said)
    for rank, other in enumerate(everyone):
        for name, first in everyone[0].items():
            if other[name] != first:
                raise ValueError(
                    f"ranks must train the same: {name} is {first!s:.200} on rank 0, and {other[name]!s:.200} on rank "
                    f"{rank}"
                )
