"""`Vocabulary`: the characters that a model knows, and their class indices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, AnyStr

import numpy as np

from fastrnn.checks import INDEX, as_array, check_choice
from fastrnn.errors import TextError, brief

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import NewLine

__all__ = ["Vocabulary", "check_newline", "check_unknown", "with_newlines"]

#: How many unknown characters an error names.
NAMED = 10


class Vocabulary:
    """The characters that a model knows; the class index of each is its place.

    Parameters
    ----------
    characters : str
        Different characters.  Their order does not matter: they are kept in that of their code points.

    Raises
    ------
    TypeError, TextError
        If it is not a str, holds a character twice, half of a surrogate pair, or fewer than two.

    Examples
    --------
    >>> from fastrnn.text.vocabulary import Vocabulary
    >>> vocabulary = Vocabulary("helo")
    >>> vocabulary.characters, len(vocabulary), vocabulary[0], "x" in vocabulary
    ('ehlo', 4, 'e', False)
    >>> vocabulary.encode("hello")
    array([1, 0, 2, 2, 3])
    >>> vocabulary.decode([1, 0, 2, 2, 3])
    'hello'
    """

    __slots__ = ("_codes", "characters")

    #: Every character once, in the order of their code points.
    characters: str

    def __init__(self, characters: str) -> None:
        if not isinstance(characters, str):
            raise TypeError(f"a vocabulary must be a str, got {type(characters).__name__}")
        codes = np.sort(code_points(characters, "the vocabulary"))
        twice = codes[1:][codes[1:] == codes[:-1]]
        if len(twice):
            raise TextError(f"the vocabulary holds {chr(twice[0])!r} more than once")
        if len(codes) < 2:
            raise TextError(f"a vocabulary needs at least two characters, got {characters!r}")
        self._codes = codes
        self.characters = "".join(map(chr, codes.tolist()))

    def encode(self, text: str, unknown: str | None = None, newline: NewLine | None = None) -> np.ndarray:
        r"""Class indices of a text.

        Parameters
        ----------
        text : str
        unknown : str or None
            What to do with characters that are not in the vocabulary: None refuses them, ``"skip"``
            leaves them out, a character of the vocabulary takes their place.
        newline : {"universal"} or None
            ``"universal"`` reads ``\r\n`` and ``\r`` as ``\n``.

        Returns
        -------
        ndarray of int64, shape (number of characters,)

        Raises
        ------
        TextError
            If `text` holds unknown characters and `unknown` is None; the message names them.

        Examples
        --------
        >>> vocabulary = Vocabulary("ab ")
        >>> vocabulary.encode("a-b")
        Traceback (most recent call last):
            ...
        fastrnn.errors.TextError: not in the vocabulary of 3 characters: '-'; unknown="skip" leaves such characters out
        >>> vocabulary.decode(vocabulary.encode("a-b", unknown=" "))
        'a b'
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, got {type(text).__name__}")
        codes = code_points(with_newlines(text, check_newline(newline)), "the text")
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        known = self._codes[places] == codes
        if not known.all():
            unknown = check_unknown(unknown, self)
            if unknown is None:
                raise self.unknown_characters(np.unique(codes[~known]))
            if unknown == "skip":
                places = places[known]
            else:
                places[~known] = self.characters.index(unknown)
        return places.astype(INDEX, copy=False)

    def decode(self, indices: ArrayLike) -> str:
        """Text of class indices.

        Parameters
        ----------
        indices : sequence of int
            In ``[0, len(self))``.

        Returns
        -------
        str

        Raises
        ------
        IndexError
            If one is out of bounds.
        """
        places = as_array(indices, "indices").astype(INDEX)
        if places.size and places.min() < 0:
            raise IndexError(f"class index {places.min()} is negative")
        text: str = self._codes[places].tobytes().decode("utf-32-le")
        return text

    def unknown_characters(self, codes: np.ndarray) -> TextError:
        """Error that names characters, given by their different code points, as unknown."""
        shown = ", ".join(repr(chr(code)) for code in codes[:NAMED].tolist())
        more = f" and {len(codes) - NAMED} more" if len(codes) > NAMED else ""
        settings = [("unknown", "skip", "leaves such characters out")]
        if ord("\r") in codes and "\n" in self:
            settings.insert(0, ("newline", "universal", r"reads '\r\n' and '\r' as '\n'"))
        return TextError(f"not in the vocabulary of {len(self)} characters: {shown}{more}", *settings)

    def __len__(self) -> int:
        return len(self.characters)

    def __getitem__(self, index: int) -> str:
        return self.characters[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.characters)

    def __contains__(self, character: object) -> bool:
        return isinstance(character, str) and len(character) == 1 and character in self.characters

    def __eq__(self, other: object) -> bool:
        return self.characters == other.characters if isinstance(other, Vocabulary) else NotImplemented

    def __hash__(self) -> int:
        return hash((Vocabulary, self.characters))

    def __reduce__(self) -> tuple[Any, ...]:
        return Vocabulary, (self.characters,)

    def __repr__(self) -> str:
        return f"Vocabulary({self.characters!r})"


def code_points(text: str, what: str) -> np.ndarray:
    """Code points of a text as little-endian uint32, lone surrogates refused."""
    try:
        return np.frombuffer(text.encode("utf-32-le"), "<u4")
    except UnicodeEncodeError as error:
        raise surrogate(text, error.start, what) from None


def surrogate(text: str, position: int, what: str, before: int = 0) -> TextError:
    """Error about the half of a surrogate pair at a position of `text`, which `before` characters precede."""
    return TextError(
        f"{what} holds U+{ord(text[position]):04X} at position {before + position}: "
        f"half of a surrogate pair, which is no character"
    )


def check_unknown(unknown: Any, vocabulary: Vocabulary | None = None) -> str | None:
    """Return `unknown` if it is None, ``"skip"`` or a character (of `vocabulary`)."""
    if unknown is None or (isinstance(unknown, str) and unknown == "skip"):
        return unknown
    if not isinstance(unknown, str) or len(unknown) != 1:
        raise ValueError(f'unknown must be None, "skip" or one character, got {brief(unknown)}')
    if vocabulary is not None and unknown not in vocabulary:
        raise ValueError(f"unknown must be a character of the vocabulary, and {unknown!r} is not")
    return unknown


def check_newline(newline: Any) -> NewLine | None:
    """Return `newline` if it is ``"universal"`` or None."""
    chosen: NewLine | None = check_choice(newline, "newline", ("universal", None))
    return chosen


def with_newlines(text: AnyStr, newline: NewLine | None) -> AnyStr:
    r"""A str, or bytes of UTF-8, with the line ends that `newline` asks for.

    Examples
    --------
    >>> with_newlines("one\r\ntwo\r", "universal")
    'one\ntwo\n'
    """
    if newline is None:
        return text
    if isinstance(text, bytes):
        return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
