"""Training on several processes and machines, over MPI: `mpi`, and the `comm` that it returns.

It needs mpi4py: ``pip install 'fastrnn[mpi]'``, which brings an MPI with it.

Examples
--------
>>> from fastrnn import distributed
>>> distributed.__all__
['DistributedError', 'Communicator', 'mpi']
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from fastrnn import cores
from fastrnn.checks import check_size
from fastrnn.errors import DistributedError
from fastrnn.group import Group

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

__all__ = ["DistributedError", "Communicator", "mpi"]  # noqa: RUF022 - as `mpi` is read about

T = TypeVar("T")

#: Seconds that other ranks than the first wait for its word before they say themselves what went wrong.
#: Longer where it is bound to come, as it has the same error.
PATIENCE, LONG_PATIENCE = 2.0, 60.0


class Communicator(Group):
    """The processes, called ranks, that share a training: what `mpi` returns.

    `CharRNN`, the estimators and ``train_step`` take it as ``comm=``.  It belongs to this run of these processes: it is
    in no file, a copy of it is the same one, and from a pickle comes None.  One thread at a time may use it.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        How many there are.
    sync_every : int
        Steps from one exchange to the next.
    """

    def __init__(self, comm: Intracomm, sync_every: int) -> None:
        #: Of mpi4py.
        self._comm: Any = comm
        self.rank, self.size, self.sync_every = comm.rank, comm.size, sync_every
        self._ending = False
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        every = f", sync_every={self.sync_every}" if self.sync_every > 1 else ""
        return f"<Communicator: rank {self.rank} of {self.size}{every}>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> Any:
        return _alone, ()  # elsewhere there are no such ranks

    # -- what a training asks of it --------------------------------------------------------------

    def together(self, function: Callable[[], T]) -> T:
        """Call a function on every rank; if it raises on one, all of them raise.

        Raises
        ------
        DistributedError
            On the ranks where it did not: it says which did, and what.  KeyboardInterrupt where that was one.
        """
        own, result = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - is raised below, when the others know
            own = error
        self.check_all(own)
        return result  # type: ignore[return-value]

    def of_root(self, function: Callable[[], T]) -> T:
        """What a function returns that rank 0 calls; what it raises, all of them raise."""
        result = self.together(function if self.rank == 0 else lambda: None)
        received = self._comm.bcast(result)
        return result if self.rank == 0 else received  # type: ignore[return-value]

    def each(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        return self._comm.allgather(value)  # type: ignore[no-any-return]

    def exchange(self, numbers: np.ndarray, everyone: np.ndarray) -> None:
        """Fill an array (size, n) with the n numbers of each rank."""
        self._comm.Allgather(numbers, everyone)

    def transpose(self, sent: np.ndarray, received: np.ndarray) -> None:
        """Send row r of an array (size, n) to rank r, and receive the rows that the others send here."""
        self._comm.Alltoall(sent, received)

    # -- errors ----------------------------------------------------------------------------------

    def check_all(self, own: BaseException | None) -> None:
        """Raise, if any rank has an error: its own, or one that says whose it is."""
        if not self._comm.allreduce(int(own is not None)):
            return
        told = None
        if own is not None:
            interrupt = isinstance(own, KeyboardInterrupt)
            said = "".join(traceback.format_exception_only(own)).strip()
            told = interrupt, own.args if interrupt else (), said
        errors = self._comm.allgather(told)
        if own is not None:
            raise self.shared(own)
        rank, (interrupt, arguments, said) = next((r, e) for r, e in enumerate(errors) if e is not None)
        if interrupt:
            raise self.shared(KeyboardInterrupt(*arguments))
        raise self.shared(DistributedError(f"rank {rank} of {self.size} ended: {said}"))

    def shared(self, error: BaseException) -> BaseException:
        """Note an error that all ranks raise, each its own; returns it."""
        self._error = error
        return error

    def is_shared(self, error: BaseException) -> bool:
        """Whether all ranks have raised it at the same place."""
        return error is self._error

    def end_all_at_exit(self, status: int, error: BaseException) -> None:
        """Have all ranks end, with this exit status, when this process does; others than the first wait before.

        So it is the first that says what went wrong, if it has anything to say, and the others are ended meanwhile.
        """
        if self._ending or self.size == 1:
            return
        from mpi4py.run import set_abort_status

        self._ending = True
        set_abort_status(status)
        if self.rank:
            time.sleep(LONG_PATIENCE if self.is_shared(error) else PATIENCE)


def _alone() -> None:
    """What comes out of a pickle of a `Communicator`."""


def mpi(comm: Intracomm | None = None, *, sync_every: int = 1) -> Communicator:
    """The ranks that this process was started with, to train together.

    Every rank calls it, and every other function or method that takes the result, at the same place of the program::

        mpiexec -n 4 python train.py

    A program that is started without ``mpiexec`` is a rank of one, and trains as without `comm`.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm or None
        The processes; None for all.
    sync_every : int, default 1
        1 sums the gradients of all ranks in each step, which gives what one process gives for the whole batch.  A
        larger number is for slow networks: each rank steps for itself, with a loss of its own, and weights and the
        optimizer's state are averaged after so many steps.

    Returns
    -------
    Communicator

    Raises
    ------
    ImportError
        Without mpi4py, or an MPI for it.
    TypeError, ValueError
        If `sync_every` is not a positive integer, or `comm` not a communicator.

    Notes
    -----
    If several ranks share a machine, ``num_threads=None`` gives each its share of the cores from now on.  An exception
    that nothing catches on one of several ranks ends all of them; else the others would wait for it for ever.

    Examples
    --------
    >>> from fastrnn import distributed
    >>> comm = distributed.mpi()  # doctest: +SKIP
    >>> comm  # doctest: +SKIP
    <Communicator: rank 0 of 4>
    """
    every = check_size(sync_every, "sync_every")
    # mpi4py tells the caller of Abort what it knows; MPICH repeats it in words of its own, and for each rank.
    os.environ.setdefault("MPIR_CVAR_SUPPRESS_ABORT_MESSAGE", "1")
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter where there is no MPI for it
        raise ImportError(
            f"fastrnn.distributed needs mpi4py and an MPI ({error}): pip install 'fastrnn[mpi]'"
        ) from error
    if comm is None:
        comm = MPI.COMM_WORLD
    if not isinstance(comm, MPI.Intracomm):
        raise TypeError(f"comm must be an mpi4py.MPI.Intracomm or None, got {type(comm).__name__}")
    group = Communicator(_duplicate(comm, MPI), every)
    if group.size > 1:
        cores.share_cores(_sharers(comm, MPI))
        _end_all_on_errors(group)
    return group


#: Under which a communicator of MPI keeps its duplicate.
_keys: list[int] = []


def _duplicate(comm: Any, MPI: Any) -> Any:
    """A communicator of the same ranks for messages of our own, made once."""
    if not _keys:
        _keys.append(MPI.Comm.Create_keyval())
    duplicate = comm.Get_attr(_keys[0])
    if duplicate is None:
        duplicate = comm.Dup()
        comm.Set_attr(_keys[0], duplicate)
    return duplicate


def _sharers(comm: Any, MPI: Any) -> int:
    """Ranks that may use the same cores as this one, itself included."""
    here = comm.Split_type(MPI.COMM_TYPE_SHARED)
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    try:
        return int(here.allgather(mine).count(mine))
    finally:
        here.Free()


def _end_all_on_errors(group: Communicator) -> None:
    """Have all ranks end when an exception that nothing catches ends this one."""
    if isinstance(sys.excepthook, _Hook):
        sys.excepthook.group = group
    else:
        sys.excepthook = _Hook(group, sys.excepthook)


class _Hook:
    """Shows an exception as before, and ends all ranks."""

    def __init__(self, group: Communicator, before: Callable[..., object]) -> None:
        self.group, self.before = group, before

    def __call__(self, kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        self.group.end_all_at_exit(130 if issubclass(kind, KeyboardInterrupt) else 1, error)
        self.before(kind, error, where)
