"""A batch on several cores: its parts, and the threads that share them.

Parts are whole sequences, so no part waits for another.  They depend on the batch's size alone, and
what they give is put together in their order: the results are the same bits on any number of threads.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from fastrnn.cores import usable_cores
from fastrnn.kernels import MOST_PARTS, MOST_THREADS

__all__ = [
    "Trial",
    "allowed",
    "at_most",
    "grid",
    "one_blas_thread",
    "parts",
    "run",
    "sweep",
    "team",
    "usable_cores",
    "workers",
]

#: Sequences of a part: enough to fill the registers of a matrix product with a part's rows.
ROWS = 16

#: Multiply-adds below which a batch stays on the calling thread.  Measured on two cores: in float32 training
#: steps of 7 million (0.25 ms) take as long on both, of 20 million a fifth less, of 60 million two fifths.
SMALL = 10_000_000

#: What of a time step a member of a team must have for itself to pay for the meeting after the step, and a whole
#: call, for a team to form: in weights that are read, see `cost`.  A first estimate, which `Trial` puts right.
SHARE = 25_000
SHORT = 500_000

#: Elements that pay for a thread of a pass over arrays: about 10 us.
SWEEP = 32_000

#: Whether teams are tried against the calling thread alone; and calls after which the slower way is tried again.
TRIED = True
AGAIN = 32


@lru_cache(maxsize=64)
def parts(N: int) -> tuple[tuple[int, int], ...]:
    """Bounds ``(start, stop)`` of the parts of a batch of `N` sequences.

    Their number is a power of two, so that 2, 4 or 8 threads get equal shares; they are of 8 sequences
    or multiples of that but for the last one, the larger ones first.

    Parameters
    ----------
    N : int
        At least 1.

    Returns
    -------
    tuple of (int, int)

    Examples
    --------
    >>> parts(1), parts(50)
    (((0, 1),), ((0, 16), (16, 32), (32, 40), (40, 50)))
    >>> {stop - start for start, stop in parts(256)}
    {16}
    """
    count = 1
    while count < MOST_PARTS and count * ROWS < N:
        count *= 2
    eights, rest = divmod(N, 8)
    each, larger = divmod(eights, count)
    bounds, start = [], 0
    for part in range(count):
        stop = start + 8 * (each + (part < larger)) + (rest if part == count - 1 else 0)
        bounds.append((start, stop))
        start = stop
    return tuple(bounds)


def workers(count: int, multiply_adds: float, num_threads: int | None) -> int:
    """Number of threads for `count` parts of work.

    Parameters
    ----------
    count : int
    multiply_adds : float
        An estimate, of all parts together.
    num_threads : int or None
        The most that are wanted; None for `usable_cores`.

    Returns
    -------
    int
        1, the calling thread, where another one would not pay.

    Examples
    --------
    >>> workers(4, 1e9, 2), workers(4, 1e9, 8), workers(4, 1e3, 8), workers(1, 1e9, 8)
    (2, 4, 1, 1)
    """
    if count == 1 or multiply_adds < SMALL:
        return 1
    return min(count, usable_cores() if num_threads is None else num_threads)


def cost(weights: float, rows: int) -> float:
    """What the products of a time step cost, in weights that are read: about 25 000 in a microsecond.

    A product with one vector takes as long as its weights take to come from the cache; one with many takes the
    time of its multiply-adds, at 2.5 times the rate.

    Parameters
    ----------
    weights : float
        Elements of the matrices.
    rows : int
        Sequences.

    Returns
    -------
    float

    Examples
    --------
    >>> cost(1000, 1), cost(1000, 2), cost(1000, 16)
    (1000.0, 1000.0, 6400.0)
    """
    return weights * max(1.0, 0.4 * rows)


def team(step: float, steps: int, num_threads: int | None, count: int = 1) -> int:
    """Number of threads that share each time step of a part.

    Parameters
    ----------
    step : float
        What a time step of one part costs: see `cost`.
    steps : int
    num_threads : int or None
        The most that are wanted; None for `usable_cores`.
    count : int, default 1
        Parts that run at the same time.

    Returns
    -------
    int
        1 where a second one would not pay.

    Examples
    --------
    >>> team(1e6, 50, 2), team(1e6, 50, 8), team(1e6, 50, 8, count=2), team(6e4, 50, 8), team(1e3, 50, 8)
    (2, 8, 4, 2, 1)
    """
    if step < 2 * SHARE or step * steps < SHORT:
        return 1
    cores = usable_cores() if num_threads is None else num_threads
    return int(max(1, min(cores // count, step // SHARE, MOST_THREADS)))


def grid(count: int, work: float, step: float, steps: int, num_threads: int | None) -> int:
    """Number of threads that share `count` parts, in one call of a kernel.

    Up to one for each part they take whole parts.  More of them, where a time step of a part is worth it, share
    each part in turn.

    Parameters
    ----------
    count : int
    work : float
        Multiply-adds of the call.
    step : float
        What a time step of one part costs: see `cost`.
    steps : int
    num_threads : int or None
        The most that are wanted; None for `usable_cores`.

    Returns
    -------
    int

    Examples
    --------
    >>> grid(4, 1e9, 1e6, 50, 2), grid(4, 1e9, 1e6, 50, 16), grid(4, 1e7, 6e4, 50, 16), grid(4, 1e5, 1e3, 25, 2)
    (2, 16, 4, 1)
    """
    if work < SHORT:
        return 1
    cores = usable_cores() if num_threads is None else num_threads
    shared = team(step, steps, cores)
    return shared if 2 * shared >= 3 * count else min(cores, count)


class Trial:
    """Whether a team pays, by the clock: for calls of one kind, one at a time.

    How long it takes for what one core has written to reach another differs by a factor of four between machines,
    and on a virtual one from minute to minute.  The bits do not depend on the team, so both ways are tried, the faster
    one is taken, and the other is tried again: soon at first, and then after `AGAIN` calls, or four times as many where
    it is by far the slower one.

    Examples
    --------
    >>> trial = Trial()
    >>> trial.begin(2), trial.end(1.0), trial.begin(1), trial.end(1.0)
    (2, None, 1, None)
    """

    __slots__ = ("_alone", "_calls", "_members", "_since", "_together", "_until", "_wait")

    def __init__(self) -> None:
        self._calls = 0
        self._alone = self._together = 0.0
        #: Calls until the slower way is tried again, and between such tries.
        self._until = self._wait = 1

    def begin(self, most: int) -> int:
        """How many threads the call is to have: 1 or `most`."""
        members = most
        if most > 1 and TRIED:
            self._calls += 1
            if self._calls == 3:  # of the first two the first warms up
                members = 1
            elif self._calls > 3:
                alone, together = self._alone, self._together
                members = 1 if alone < together else most
                self._until -= 1
                if self._until < 0:
                    members = most if members == 1 else 1
                    clear = max(alone, together) > 1.5 * min(alone, together)
                    self._wait = min(2 * self._wait, AGAIN * 4 if clear else AGAIN)
                    self._until = self._wait
        self._members = members
        self._since = time.perf_counter()
        return members

    def end(self, work: float) -> None:
        """Note how long the call took for `work`, in any unit."""
        taken = (time.perf_counter() - self._since) / work
        if self._members == 1:
            self._alone = self._mean(self._alone, taken)
        else:
            self._together = self._mean(self._together, taken)

    def _mean(self, before: float, taken: float) -> float:
        if not before or self._calls <= 2:
            return taken
        return before + (min(taken, 2 * before) - before) / 4  # one that was held up does not decide


def sweep(size: int, num_threads: int | None) -> int:
    """Number of threads that share a pass over arrays.

    Parameters
    ----------
    size : int
        Elements.
    num_threads : int or None
        The most that are wanted; None for `usable_cores`.

    Returns
    -------
    int
        1 where a second one would not pay.

    Examples
    --------
    >>> sweep(1000, 8), sweep(10**6, 2)
    (1, 2)
    """
    if size < 2 * SWEEP:
        return 1
    return min(usable_cores() if num_threads is None else num_threads, size // SWEEP, MOST_THREADS)


class _Allowance(threading.local):
    """What the call that this thread is in may use."""

    num_threads: int | None = None


_allowance = _Allowance()


def allowed() -> int | None:
    """The most threads that the call of `at_most` around this one wants."""
    return _allowance.num_threads


def at_most(num_threads: int | None, function: Callable[..., object], *arguments: Any) -> None:
    """Call a function, an optimizer's step for one, that is to use the threads of a model and no more.

    Examples
    --------
    >>> at_most(3, lambda: print(allowed()))
    3
    """
    before = _allowance.num_threads
    _allowance.num_threads = num_threads
    try:
        function(*arguments)
    finally:
        _allowance.num_threads = before


def run(function: Callable[[int, int], object], count: int, threads: int) -> None:
    """Call ``function(part, slot)`` for each part in ``range(count)``, on at most `threads` threads.

    The calling thread takes part; it does all of it where no other thread starts in time.  Parts are
    taken one after the other by whoever is free, so their order of execution is open.

    Parameters
    ----------
    function : callable
        `slot` is below `threads`, and no two calls with the same one run at the same time.
    count : int
    threads : int

    Raises
    ------
    BaseException
        The first that a call raised, after all calls that had begun have ended; no further ones begin.

    Examples
    --------
    >>> squares = [0] * 5
    >>> def square(part, slot):
    ...     squares[part] = part * part
    >>> run(square, 5, 2)
    >>> squares
    [0, 1, 4, 9, 16]
    """
    if threads == 1:
        for part in range(count):
            function(part, 0)
        return
    job = _Job(function, count)
    try:
        _offer(job, threads - 1)
        job.work(0)
    finally:
        job.close()
    if job.errors:
        try:
            raise job.errors[0]
        finally:
            job.errors.clear()  # an error that its own traceback leads to is a cycle


class _Job:
    """Parts to be taken by several threads."""

    __slots__ = ("closed", "entered", "errors", "function", "left", "news", "remaining")

    def __init__(self, function: Callable[[int, int], object], count: int) -> None:
        self.function = function
        self.remaining = list(range(count - 1, -1, -1))  # to take one is atomic
        self.errors: list[BaseException] = []
        #: Helpers that have begun, as slot and thread, and slots of those that have ended.  These lists
        #: alone say who may still write to the caller's arrays: they stay right wherever an interrupt
        #: comes between two statements, and a helper that dies in between is known by its thread.
        self.entered: list[tuple[int, threading.Thread]] = []
        self.left: list[int] = []
        self.closed = False
        self.news: queue.SimpleQueue[None] = queue.SimpleQueue()

    def work(self, slot: int) -> None:
        """Take parts until none is left."""
        try:
            while True:
                try:
                    part = self.remaining.pop()
                except IndexError:
                    return
                self.function(part, slot)
        except BaseException as error:  # noqa: BLE001 - `run` raises it
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)
        self.remaining.clear()

    def help(self, slot: int, thread: threading.Thread) -> None:
        """What a helper does, which runs on `thread`."""
        self.entered.append((slot, thread))
        try:
            if not self.closed:
                self.work(slot)
        finally:
            self.left.append(slot)
            self.news.put(None)

    def close(self) -> None:
        """Return when no helper works on it; none will begin."""
        while True:
            try:
                self.closed = True
                # Not a loop that looks again and again: it would keep the others from taking the GIL.
                while any(self._is_inside(*helper) for helper in self.entered):
                    with contextlib.suppress(queue.Empty):
                        self.news.get(timeout=1)
                if len(self.left) < len(self.entered):
                    self.fail(RuntimeError("a thread that helped was ended in the middle of its work"))
                return
            except BaseException as error:  # noqa: BLE001 - an interrupt, or what a handler of another signal raises
                self.fail(error)

    def _is_inside(self, slot: int, thread: threading.Thread) -> bool:
        return slot not in self.left and thread.is_alive()


# -- the threads of this process -----------------------------------------------------------------
#
# Not those of concurrent.futures: to submit to them and to wait for the result was measured at 50 to
# 100 us, beside training steps of 500; this takes 40 to 70.

_lock = threading.Lock()
_offers: queue.SimpleQueue[tuple[_Job, int]] = queue.SimpleQueue()
_helpers: list[threading.Thread] = []


def _help(offers: queue.SimpleQueue[tuple[_Job, int]]) -> None:
    thread = threading.current_thread()
    while True:
        job, slot = offers.get()
        try:
            job.help(slot, thread)
        except BaseException as error:  # noqa: BLE001 - one that came between two statements; `run` raises it
            job.fail(error)
            return  # whatever was noted of this thread, it does not work on the job any more
        del job  # and with it the caller's arrays


def _offer(job: _Job, count: int) -> None:
    """Offer a job to `count` helpers; to fewer where no more threads can be started."""
    helpers = _helpers
    if len(helpers) < count or not all(map(threading.Thread.is_alive, helpers)):
        with _lock, contextlib.suppress(RuntimeError):  # at the interpreter's or the system's end
            # Somebody may end a thread of ours, as debuggers and time limits of web servers do.
            helpers[:] = filter(threading.Thread.is_alive, helpers)
            while len(helpers) < count:
                # A daemon: it waits for offers when the program ends.
                thread = threading.Thread(
                    target=_help, args=(_offers,), name=f"fastrnn-{len(helpers)}", daemon=True
                )
                thread.start()
                helpers.append(thread)
    for slot in range(1, min(count, len(helpers)) + 1):
        _offers.put((job, slot))


# -- BLAS ----------------------------------------------------------------------------------------

_blas_lock = threading.Lock()


class _BlasUser:
    """Who asked for one thread of BLAS, for as long as this lives."""


#: These two stay right wherever an interrupt comes between two statements: a user that it kept from
#: leaving is gone with its frame, and what it kept from being restored is so after the next one.
_blas_users: weakref.WeakSet[_BlasUser] = weakref.WeakSet()
#: Libraries and their threads before the first user, while there is one.
_blas_before: list[tuple[Any, int]] | None = None


#: BLAS libraries of this process, and the number of modules when they were looked for.
_blas_found: tuple[int | None, list[Any]] = (None, [])


def _blas_libraries() -> list[Any]:
    """Controllers of the BLAS libraries that this process has loaded so far.

    To look for them takes 1 ms, so it is done only when a module was imported since: SciPy, for one, brings
    a BLAS of its own.  (The loader's own count, which `dl_iterate_phdr` tells, is no way: that calls back
    with a lock held, and waits for the GIL of a thread that loads a library and waits for the lock.)
    """
    global _blas_found
    imported = len(sys.modules)
    if _blas_found[0] != imported:
        from threadpoolctl import ThreadpoolController  # needed by the NumPy kernels alone

        # `imported` was taken first: what comes meanwhile is looked for the next time.
        _blas_found = (imported, ThreadpoolController().select(user_api="blas").lib_controllers)
    return _blas_found[1]


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread, in the whole process, until the last of all who asked for it is done.

    Several threads that each ask BLAS for all cores get in each other's way.

    Examples
    --------
    >>> import numpy as np
    >>> with one_blas_thread():
    ...     product = np.eye(2) @ np.eye(2)
    """
    user = _BlasUser()
    try:
        with _blas_lock:
            _blas_users.add(user)
            _limit_blas()
        yield
    finally:
        try:
            _leave_blas(user)
        except BaseException:
            _leave_blas(user)  # an interrupt may have come in the middle of it
            raise


def _limit_blas() -> None:
    global _blas_before
    if _blas_before is None:
        _blas_before = []
    held = {library.filepath for library, _ in _blas_before}
    for library in _blas_libraries():
        if library.filepath not in held:  # every one at the first user, what came since at a later one
            _blas_before.append((library, library.get_num_threads()))
    for library, _ in _blas_before:
        _set_threads(library, 1)


def _leave_blas(user: _BlasUser) -> None:
    with _blas_lock:
        _blas_users.discard(user)
        if not _blas_users:
            _release_blas()


def _release_blas() -> None:
    global _blas_before
    for library, before in _blas_before or ():  # none in a child that was forked in the block
        _set_threads(library, before)
    _blas_before = None


def _set_threads(library: Any, count: int) -> None:
    """Tell a library its number of threads, whichever thread of ours told it the last time.

    threadpoolctl lets one thread at a time do so for OpenBLAS, the first that came, until that ends; what
    others ask for it drops.  Here the first to come and the last to leave may be two.
    """
    library.set_num_threads(count)
    if library.get_num_threads() != count and hasattr(library, "clear_controlling_thread"):
        library.clear_controlling_thread(force=True)
        library.set_num_threads(count)


def _start_anew() -> None:
    """In a forked child: the other threads are gone, and with them what they held."""
    global _lock, _offers, _helpers, _blas_lock, _blas_users
    _lock, _offers, _helpers = threading.Lock(), queue.SimpleQueue(), []
    _blas_lock = threading.Lock()
    _blas_users = weakref.WeakSet()
    _release_blas()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
