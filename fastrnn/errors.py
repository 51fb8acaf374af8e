"""The errors that are fastrnn's own; everything else raises Python's `ValueError`, `TypeError` and
`IndexError`."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = [
    "BackendUnavailable", "CheckpointError", "DistributedError", "NotFittedError", "TextError", "brief",
    "brief_names", "briefly", "not_fitted",
]  # fmt: skip


#: Characters that are kept at each end of a message of another library.
_KEPT = 240


class BackendUnavailable(RuntimeError):
    """A backend that was asked for by name cannot be used here; the message says how to get it."""


class CheckpointError(ValueError):
    """A file that is not a checkpoint, is damaged, or does not fit; the message says what is wrong."""


class DistributedError(RuntimeError):
    """Another rank of a training that is shared has failed; the message says which one, and how."""


class NotFittedError(ValueError, AttributeError):
    """A model was used before it was fitted.

    Where scikit-learn is loaded, what is raised is its ``sklearn.exceptions.NotFittedError`` as well.
    """


class TextError(ValueError):
    """A text that cannot be read or cannot be learned; the message says why.

    Parameters
    ----------
    message : str
    *settings : tuple of three str
        Settings that would help, told after the message: name, value, and what it does.

    Examples
    --------
    >>> error = TextError("'x' is not known", ("unknown", "skip", "leaves it out"))
    >>> print(error)
    'x' is not known; unknown="skip" leaves it out
    >>> print(error.with_options())
    'x' is not known; --unknown skip leaves it out
    """

    def __init__(self, message: str = "", *settings: tuple[str, str, str]) -> None:
        super().__init__(message, *settings)
        self.message = message
        self.settings = settings

    def __str__(self) -> str:
        return self._told('{}="{}"'.format)

    def with_options(self) -> str:
        """The message in the words of the command line.

        Returns
        -------
        str

        Examples
        --------
        >>> TextError("'x' is not known", ("unknown", "skip", "leaves it out")).with_options()
        "'x' is not known; --unknown skip leaves it out"
        """
        return self._told("--{} {}".format)

    def _told(self, spell: Callable[[str, str], str]) -> str:
        return "; ".join(
            [self.message, *(f"{spell(name, value)} {does}" for name, value, does in self.settings)]
        )


def not_fitted(message: str) -> NotFittedError:
    """Make a `NotFittedError`, which is scikit-learn's as well where that is loaded.

    Examples
    --------
    >>> isinstance(not_fitted("call fit first"), ValueError)
    True
    """
    # A program that can catch theirs has loaded the module that it is in.
    theirs = getattr(sys.modules.get("sklearn.exceptions"), "NotFittedError", None)
    return NotFittedError(message) if theirs is None else _both(theirs)(message)


@functools.lru_cache(maxsize=1)
def _both(theirs: type[Exception]) -> Any:
    """Class of errors that are ours and scikit-learn's; pickles are made again where they arrive."""
    members = {
        "__doc__": NotFittedError.__doc__,
        "__module__": __name__,
        "__reduce__": lambda self: (not_fitted, self.args),
    }
    return type("NotFittedError", (NotFittedError, theirs), members)


def brief(value: Any, most: int = 60) -> str:
    """What was given, for a message: its `repr`, on one line, of some `most` characters.

    Examples
    --------
    >>> brief("\\n" + "ab" * 100, 5)
    "'\\\\nabab'..."
    >>> brief(list(range(1000)), 12)
    '[0, 1, 2, 3,...'
    """
    if isinstance(value, str):
        return str.__repr__(value) if len(value) <= most else f"{value[:most]!r}..."
    try:
        lines = repr(value).splitlines()
    except ValueError:  # integers of more than some thousand digits
        return "(too long to print)"
    text = " ".join(line.strip() for line in lines)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:most])
    return shown if len(text) <= most else f"{shown}..."


def brief_names(names: Iterable[Any], most: int = 12) -> str:
    """Names that were given, for a message: the first `most` of them.

    Examples
    --------
    >>> brief_names(["weight", "bias", "gain"], 2)
    "'weight', 'bias' and 1 more"
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(brief, names[:most])) + more


@contextlib.contextmanager
def briefly() -> Iterator[None]:
    """Within it, another library's message that repeats all of an argument is cut in its middle.

    Examples
    --------
    >>> try:
    ...     with briefly():
    ...         float("ab" * 1000)
    ... except ValueError as error:
    ...     print(len(str(error)))
    485
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        message = str(error)
        if type(error) not in (TypeError, ValueError) or len(message) <= 3 * _KEPT:
            raise
        brief_error = type(error)(f"{message[:_KEPT]} ... {message[-_KEPT:]}")
        raise brief_error.with_traceback(error.__traceback__) from None
