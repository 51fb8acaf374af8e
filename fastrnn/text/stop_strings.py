"""Strings that end a sample, found in pieces of it as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

__all__ = ["StopStrings", "check_stop"]


def check_stop(stop: Any) -> tuple[str, ...]:
    """Return `stop`, which is None, a str or a sequence of these, as a tuple of strings.

    Examples
    --------
    >>> check_stop(None), check_stop("end"), check_stop(["end", "fin"])
    ((), ('end',), ('end', 'fin'))
    """
    if stop is None:
        return ()
    if isinstance(stop, str):
        named = [("stop", stop)]
    elif isinstance(stop, Sequence) and not isinstance(stop, (bytes, bytearray, memoryview)):
        named = [(f"stop[{i}]", string) for i, string in enumerate(stop)]
    else:
        raise TypeError(f"stop must be a str, a sequence of str or None, got {type(stop).__name__}")
    for name, string in named:
        if not isinstance(string, str):
            raise TypeError(f"{name} must be a str, got {type(string).__name__}")
        if not string:
            raise ValueError(f"{name} must not be empty: a sample would end before it began")
    return tuple(string for _, string in named)


class StopStrings:
    """Ends one sample before the first of some strings that is complete in it.

    Parameters
    ----------
    strings : tuple of str
        None of them empty.  Of those that are complete at the same character, the longest counts.

    Attributes
    ----------
    found : bool
        Whether the sample has ended.

    Examples
    --------
    >>> stop = StopStrings(("end",))
    >>> stop.take("the e"), stop.take("nemy en"), stop.take("ds here"), stop.found
    ('the ', 'enemy ', '', True)
    """

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = strings
        self._held = ""
        self.found = False

    def take(self, piece: str) -> str:
        """What is sure to belong to the sample, after another piece of it.

        Held back is what a string may begin with, and no more.
        """
        if self.found:
            return ""
        text = self._held + piece
        # Where each of them that is there ends and begins.
        places = [
            (begin + len(string), begin) for string in self._strings if (begin := text.find(string)) >= 0
        ]
        if places:
            self._held, self.found = "", True
            return text[: min(places)[1]]
        decided = min((_undecided(text, string) for string in self._strings), default=len(text))
        self._held = text[decided:]
        return text[:decided]

    def rest(self) -> str:
        """What was held back of a sample that ends without any of them."""
        held, self._held = self._held, ""
        return held

    def cut(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces of a whole sample, as far as it goes; no piece is asked for after its end."""
        for piece in pieces:
            yield self.take(piece)
            if self.found:
                return
        yield self.rest()


def _undecided(text: str, string: str) -> int:
    """Where the longest end of a text that a string begins with begins; the string itself is not there."""
    place = text.find(string[0], max(0, len(text) - len(string) + 1))
    while place >= 0 and not string.startswith(text[place:]):
        place = text.find(string[0], place + 1)
    return len(text) if place < 0 else place
