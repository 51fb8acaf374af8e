"""Time one call, or several of them alternately, so that a ratio compares neighbours in time.

On a machine whose speed changes from one second to the next, a benchmark that finishes one contender
before it begins the next compares different machines.  Here each pass gives every contender a short
block of calls; the shortest call of all passes is its time.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeVar

#: A pass gives each contender this many seconds, or two calls if they take longer.
BLOCK_SECONDS = 0.01

Key = TypeVar("Key", bound=Hashable)


class Clocked:
    """A call that is timed where it runs, in another process; `time_alternately` asks it for its times."""

    def shortest_of_block(self, block: float) -> float:
        """What `shortest_of_block` gives there."""
        raise NotImplementedError


def clock(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and what it returned."""
    began = time.perf_counter()
    returned = call()
    return time.perf_counter() - began, returned


def time_alternately(
    calls: Mapping[Key, Callable[[], Any] | Clocked], seconds: float, block: float = BLOCK_SECONDS
) -> dict[Key, list[float]]:
    """Time `calls` in passes, each of which gives every call a block.

    Parameters
    ----------
    calls : mapping of callables
        Warm: each has run before.
    seconds : float
        For which the passes are repeated; three are made in any case.
    block : float
        Seconds that a pass gives each of them.

    Returns
    -------
    dict of list of float
        Seconds of the shortest call of each pass.
    """
    shortest: dict[Key, list[float]] = {key: [] for key in calls}
    end = time.perf_counter() + seconds
    passes = 0
    with _no_garbage_collected():
        while passes < 3 or time.perf_counter() < end:
            for key, call in calls.items():
                if isinstance(call, Clocked):
                    shortest[key].append(call.shortest_of_block(block))
                else:
                    shortest[key].append(shortest_of_block(call, block))
            gc.collect()
            passes += 1
    return shortest


def time_every_call(calls: Mapping[Key, Callable[[], Any]], seconds: float) -> dict[Key, list[float]]:
    """Time `calls` one by one in turns, after a turn without a clock: for where the sum of the times counts.

    Parameters
    ----------
    calls : mapping of callables
        Warm: each has run before.
    seconds : float
        For which the turns are repeated; four are made in any case.

    Returns
    -------
    dict of list of float
        Seconds of each call; every other turn goes backwards, so that nobody always follows the same one.
    """
    taken: dict[Key, list[float]] = {key: [] for key in calls}
    order = list(calls.items())
    turns = 0
    end = time.perf_counter() + seconds
    with _no_garbage_collected():
        for call in calls.values():
            call()
        while turns < 4 or turns % 2 or time.perf_counter() < end:
            for key, call in order:
                began = time.perf_counter()
                call()
                taken[key].append(time.perf_counter() - began)
            order.reverse()
            turns += 1
    return taken


@contextlib.contextmanager
def _no_garbage_collected() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def shortest_of_block(call: Callable[[], Any], block: float) -> float:
    """Seconds of the shortest of as many calls as `block` seconds have room for, two at least."""
    best = float("inf")
    block_end = time.perf_counter() + block
    count = 0
    while count < 2 or time.perf_counter() < block_end:
        began = time.perf_counter()
        call()  # what it returns is freed while the clock runs, which `clock` would leave out
        best = min(best, time.perf_counter() - began)
        count += 1
    return best
