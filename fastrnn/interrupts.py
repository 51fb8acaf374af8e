"""Ctrl-C and other signals that end a training, noted until a step is done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["ENDING_SIGNALS", "interrupt", "interruption", "interrupts_noted"]

#: Signals that are to end a training as Ctrl-C does, those of them that the system has: asked to end, and
#: a terminal that was closed.
ENDING_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if name in signal.Signals.__members__
)


def interrupt(signal_number: int, frame: Any) -> None:
    """Handler of a signal that is to end a training as Ctrl-C does; the exception holds its number."""
    raise KeyboardInterrupt(signal_number)


def interruption(signal_number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt(*([] if signal_number == signal.SIGINT else [signal_number]))


@contextlib.contextmanager
def interrupts_noted() -> Iterator[list[int]]:
    """Have Ctrl-C noted in a list in place of an exception in the middle of an update; and those of
    `ENDING_SIGNALS` that `interrupt` handles.

    A second Ctrl-C is an exception.  The others often come twice, from the system and from the shell, and
    do not hasten anything.  Nothing changes in other threads than the main one, which never get any, and
    where the program has a handler of its own.
    """
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(signal_number: int, frame: Any) -> None:
        if noted and signal_number == signal.SIGINT:
            raise interruption(signal_number)
        noted.append(signal_number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING_SIGNALS)}
    taken = [n for n, handler in before.items() if handler in (signal.default_int_handler, interrupt)]
    try:
        for number in taken:
            signal.signal(number, note)
        yield noted
    finally:
        for number in taken:
            signal.signal(number, before[number])
