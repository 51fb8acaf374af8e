"""What people get to see: strings that command no terminal, and standard streams that may be gone.

A program may be started with standard streams that are closed, full or missing, and a file may hold
strings that move the cursor or hide what is written.  The command line runs in `standard_streams`, and
so whatever a command writes has no control characters; messages that cannot be shown are dropped, and
results that cannot be written raise an `OSError`.  Library calls, which must leave the streams of a
program alone, show their progress with `for_progress`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["Shown", "decimals", "for_progress", "printable", "standard_streams"]

#: From here on a number is shown in scientific notation.
LARGE = 1e6


def printable(text: str, keep: str = "\n\t") -> str:
    r"""Control characters as escapes, so that a text cannot command the terminal.

    That is whatever `str.isprintable` refuses: the control characters of ASCII and Latin-1, those that
    turn the direction of writing, halves of surrogate pairs, characters that Unicode does not know.

    Parameters
    ----------
    text : str
    keep : str
        Characters that stay all the same.

    Returns
    -------
    str

    Examples
    --------
    >>> print(printable("a\x1b[2J\u202eb"))
    a\x1b[2J\u202eb
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def decimals(value: float, places: int) -> str:
    """A number with `places` decimals, a large one in scientific notation.

    Parameters
    ----------
    value : float
    places : int

    Returns
    -------
    str

    Examples
    --------
    >>> decimals(2.5, 4), decimals(4.2e17, 4), decimals(math.inf, 4)
    ('2.5000', '4.2e+17', 'inf')
    """
    return f"{value:.{places}f}" if abs(value) < LARGE or not math.isfinite(value) else f"{value:.4g}"


class Shown:
    r"""A stream that people look at: it gets no control characters, and escapes for what it cannot encode.

    Parameters
    ----------
    stream : object or None
        What has a `write` method; None is a stream that the program was started without.
    optional : bool
        Drop what cannot be written.  Otherwise that is an error.

    Examples
    --------
    >>> out = io.StringIO()
    >>> _ = Shown(out, optional=False).write("a\x1b[2J\n")
    >>> out.getvalue()
    'a\\x1b[2J\n'
    >>> Shown(None, optional=True).write("nobody sees it")
    14
    """

    #: There is no character that it does not take.  (Where this is no ASCII, and there is no `fileno`,
    #: click writes here and not to the file below.)
    encoding: Any = "utf-8"
    errors = "backslashreplace"

    def __init__(self, stream: Any, *, optional: bool) -> None:
        self.stream: Any = stream.stream if isinstance(stream, Shown) else stream
        self._optional = optional

    @property
    def is_missing(self) -> bool:
        """Whether the program was started without it, or it was closed."""
        return self.stream is None or bool(getattr(self.stream, "closed", False))

    @property
    def buffer(self) -> Any:
        """The stream of bytes below, for what is written exactly; None if there is none."""
        return getattr(self.stream, "buffer", None)

    def write(self, text: str) -> int:
        """Write a text; return its length.

        Raises
        ------
        TypeError
            If it is not a str.
        OSError, ValueError
            If it cannot be written and is not optional.
        """
        if not isinstance(text, str):
            raise TypeError(f"a str is needed, got {type(text).__name__}")
        try:
            self._check_there()
            encoding = getattr(self.stream, "encoding", None)
            shown = self._escaped(text)
            if isinstance(encoding, str):
                shown = shown.encode(encoding, self.errors).decode(encoding)
            self.stream.write(shown)
        except Exception:
            # The stream may be anybody's object, which may raise anything.
            if not self._optional:
                raise
        return len(text)

    def write_exactly(self, text: str) -> None:
        """Write a text as it is, in UTF-8; control characters and line ends too.

        Raises
        ------
        OSError, ValueError
            If it cannot be written.
        """
        self._check_there()
        if self.buffer is None:  # an object of this program that takes texts
            self.stream.write(text)
            return
        content = memoryview(text.encode())
        while content:  # an unbuffered file may take less at a time
            content = content[self.buffer.write(content) :]

    def flush(self) -> None:
        try:
            if hasattr(self.stream, "flush"):
                self.stream.flush()
        except Exception:
            if not self._optional:
                raise

    def isatty(self) -> bool:
        try:
            return bool(self.stream.isatty())
        except (AttributeError, ValueError):  # it has no such method, or is closed
            return False

    def _escaped(self, text: str) -> str:
        return printable(text)

    def _check_there(self) -> None:
        if self.is_missing:
            raise OSError(errno.EBADF, "standard output is closed")


class _ForProgress(Shown):
    """One for messages that move back at a carriage return."""

    @property
    def encoding(self) -> Any:  # tqdm draws with what it has
        return getattr(self.stream, "encoding", None)

    def fileno(self) -> int:
        """Number of the file.

        Raises
        ------
        io.UnsupportedOperation
            If it has none.
        """
        try:
            return int(self.stream.fileno())
        except (AttributeError, OSError, ValueError):
            raise io.UnsupportedOperation("fileno") from None

    def _escaped(self, text: str) -> str:
        return text


def for_progress(stream: Any) -> _ForProgress:
    """A stream for progress: what cannot be shown there stops nothing.

    Parameters
    ----------
    stream : object or None
        As of `Shown`.

    Examples
    --------
    >>> for_progress(None).write("50%")
    3
    """
    return _ForProgress(stream, optional=True)


# -- the three streams of the command line -----------------------------------------------------------


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Let a command write to `sys.stdout` and `sys.stderr`, and read `sys.stdin`, whatever they are.

    For the command line alone: it opens the null device under the numbers of standard streams that are
    closed, for otherwise a file of the program's would get the number, and what a library writes to
    standard error would be written into a model.  Where the program ends, what is left in the buffer of
    a full stream is thrown away: Python would try to write it again, and end with another status.
    """
    _reserve_numbers()
    before = sys.stdin, sys.stdout, sys.stderr
    streams: Any = sys
    if before[0] is None:
        streams.stdin = _NoInput()
    streams.stdout, streams.stderr = Shown(before[1], optional=False), Shown(before[2], optional=True)
    try:
        yield
    except SystemExit:
        _let_go(before[1])
        _let_go(before[2])
        raise
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


class _NoInput:
    """In place of a standard input that is closed."""

    encoding, errors = "utf-8", "strict"

    @property
    def buffer(self) -> _NoInput:
        return self

    def isatty(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        raise OSError(errno.EBADF, "it is closed")


def _reserve_numbers() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number, inheritable=False)
                os.close(opened)


def _let_go(stream: Any) -> None:
    """Have what cannot be written from a stream's buffer go nowhere."""
    if stream is None:
        return
    try:
        stream.flush()
    except Exception:  # noqa: BLE001 - it may be anybody's object
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
