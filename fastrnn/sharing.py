"""Models that several threads share: who reads one, and who changes it.

Any number of calls read a model at once; a call that changes it has it to itself.  Nobody waits: the
later comer is refused, as what it would get after a wait is another model than the one that it asked.

A call is known by an object of its own, which a ``finally`` takes away: whatever ends the call, and
wherever an interrupt comes, nothing of it is left.  A reader takes no lock.  It enters its name first
and looks for changing calls then; those look for readers after they have entered theirs.  So at least
one of two that meet sees the other, and which of them goes on is decided under a lock.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

__all__ = ["Shared", "being_read", "changed", "changing", "changing_model", "reading", "reading_model"]

P = ParamSpec("P")
R = TypeVar("R")
Model = TypeVar("Model", bound="Shared")

#: Held for the moment in which it is decided who goes on.  A handler of a signal may come in between, and use a
#: model on the same thread.
_lock = threading.RLock()


class Sharing:
    """Calls that are under way, and the thread of each."""

    __slots__ = ("__weakref__", "changes", "reads")

    def __init__(self) -> None:
        self.reads: dict[object, int] = {}
        self.changes: dict[object, int] = {}
        _all.add(self)

    def check_change(self, call: object, model: object, name: str) -> None:
        """Refuse a changing call that has entered, if another thread is in.  Needs the lock."""
        thread = self.changes[call]
        threads = [*self.reads.values(), *self.changes.values()]
        # A thread that changes the model may go in again: readers that look in then are refused.
        if list(self.changes.values()).count(thread) == 1 and threads.count(thread) < len(threads):
            del self.changes[call]
            raise RuntimeError(
                f"this {type(model).__name__} is in use by another thread, and {name} changes it: wait until "
                f"the others are done, or give each thread a copy"
            )

    def check_read(self, model: object, name: str) -> None:
        """Refuse a reader that another thread's changing call came before."""
        thread = get_ident()
        with _lock:  # a change that is refused is out again
            if all(other == thread for other in tuple(self.changes.values())):
                return
        raise RuntimeError(
            f"this {type(model).__name__} is being changed by another thread, and {name} reads it: wait until "
            f"that is done, or read a copy that was made before"
        )

    def keep_own(self) -> None:
        """Forget the calls of other threads."""
        thread = get_ident()
        for calls in (self.reads, self.changes):
            for call in [call for call, other in calls.items() if other != thread]:
                del calls[call]


_all: weakref.WeakSet[Sharing] = weakref.WeakSet()


class Shared:
    """A model that several threads may use.  What is noted of their calls is in no copy and no pickle."""

    __slots__ = ("_sharing",)

    _sharing: Sharing

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        model = super().__new__(cls)
        object.__setattr__(model, "_sharing", Sharing())
        return model


def reading(method: Callable[Concatenate[Model, P], R]) -> Callable[Concatenate[Model, P], R]:
    """A method that reads a model.

    Raises
    ------
    RuntimeError
        If another thread changes the model.
    """
    name = method.__name__

    @functools.wraps(method)
    def read(self: Model, /, *args: P.args, **kwargs: P.kwargs) -> R:
        sharing, call = self._sharing, object()
        reads = sharing.reads
        try:
            reads[call] = get_ident()
            if sharing.changes:
                sharing.check_read(self, name)
            return method(self, *args, **kwargs)
        finally:
            reads.pop(call, None)

    return read


def changing(method: Callable[Concatenate[Model, P], R]) -> Callable[Concatenate[Model, P], R]:
    """A method that changes a model, and has it to itself.

    The thread of a changing call may call others of the model's methods meanwhile.

    Raises
    ------
    RuntimeError
        If another thread reads or changes the model; nothing is changed then.
    """
    name = method.__name__

    @functools.wraps(method)
    def change(self: Model, /, *args: P.args, **kwargs: P.kwargs) -> R:
        sharing, call = self._sharing, object()
        changes = sharing.changes
        try:
            with _lock:
                changes[call] = get_ident()  # before the look at the readers, who enter and look for changes
                if sharing.reads or len(changes) > 1:
                    sharing.check_change(call, self, name)
            return method(self, *args, **kwargs)
        finally:
            changes.pop(call, None)

    return change


@contextlib.contextmanager
def being_read(model: Shared, name: str) -> Iterator[None]:
    """Read a model for the length of a ``with`` block, as a reading method called `name` does.

    Raises
    ------
    RuntimeError
        If another thread changes the model.
    """
    sharing, call = model._sharing, object()
    try:
        sharing.reads[call] = get_ident()
        if sharing.changes:
            sharing.check_read(model, name)
        yield
    finally:
        sharing.reads.pop(call, None)


@contextlib.contextmanager
def changed(model: Shared, name: str) -> Iterator[None]:
    """Have a model to oneself for the length of a ``with`` block, as a changing method called `name` has.

    Raises
    ------
    RuntimeError
        If another thread reads or changes the model.
    """
    sharing, call = model._sharing, object()
    try:
        with _lock:
            sharing.changes[call] = get_ident()
            sharing.check_change(call, model, name)
        yield
    finally:
        sharing.changes.pop(call, None)


def reading_model(function: Callable[P, R]) -> Callable[P, R]:
    """A function that reads the model that is its first argument, if that is one that threads share.

    Raises
    ------
    RuntimeError
        If another thread changes the model.
    """
    return _within(being_read, function)


def changing_model(function: Callable[P, R]) -> Callable[P, R]:
    """A function that moves the weights of the model that is its first argument, as a changing method does.

    Raises
    ------
    RuntimeError
        If another thread reads or changes the model; nothing is changed then.
    """
    return _within(changed, function)


def _within(
    block: Callable[[Shared, str], contextlib.AbstractContextManager[None]], function: Callable[P, R]
) -> Callable[P, R]:
    """A function within a ``with`` block for its model, and for the network inside of that."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        model = args[0] if args else kwargs.get("model")
        with contextlib.ExitStack() as blocks:
            for one in (model, getattr(model, "model_", None)):
                if isinstance(one, Shared):
                    blocks.enter_context(block(one, function.__name__))
            return function(*args, **kwargs)

    return call


def _start_anew() -> None:
    """In a forked child: the other threads are gone, and with them their calls."""
    global _lock
    _lock = threading.RLock()
    for sharing in list(_all):
        sharing.keep_own()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
