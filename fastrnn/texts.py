"""Where a text comes from, and the class indices of its characters."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import hashlib
import importlib.machinery
import io
import mmap
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.checks import INDEX
from fastrnn.errors import TextError
from fastrnn.vocabulary import Vocabulary, check_unknown, code_points, surrogate

__all__ = ["IndexedText", "TextError", "index_text", "read_text", "standard_library_source"]


def read_text(path: str, limit: int | None = None) -> tuple[str, bool]:
    r"""Read a UTF-8 text as it is: line ends and every other character are kept.

    Parameters
    ----------
    path : str
        A file, or ``"-"`` for standard input.
    limit : int or None
        Read at most this many bytes; a character that the limit cuts in two is left out.

    Returns
    -------
    text : str
    whole : bool
        False if there was more than `limit`.

    Raises
    ------
    TextError
        If the file cannot be read, or is not UTF-8; the message names the byte offset.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(delete=False) as file:
    ...     _ = file.write("naïve\r\n".encode())
    >>> read_text(file.name)
    ('naïve\r\n', True)
    >>> read_text(file.name, 3)
    ('na', False)
    """
    name = "standard input" if path == "-" else repr(path)
    wanted = -1 if limit is None else limit + 1
    try:
        if path == "-":
            content = sys.stdin.buffer.read(wanted)
        else:
            with Path(path).open("rb") as file:
                content = file.read(wanted)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise _cannot_read(name, error) from None
    whole = limit is None or len(content) <= limit
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(content if whole else content[:limit], whole)
    except UnicodeDecodeError as error:
        raise _not_utf8(name, error) from None
    return text, whole


def standard_library_source(limit: int = 1_000_000) -> str:
    """Source code of this Python's standard library: a real text that is there without a download.

    Whole modules in alphabetical order, those that are pure ASCII and whose names begin with a
    letter, as long as they fit into `limit`.  Modules are read, from folders or from a zip file, and
    not imported.

    Parameters
    ----------
    limit : int, default 1_000_000
        Characters to return at most.

    Returns
    -------
    str

    Raises
    ------
    TextError
        If this Python came without its sources.

    Examples
    --------
    >>> source = standard_library_source(200_000)
    >>> 50_000 < len(source) <= 200_000 and "import" in source
    True
    """
    sources = []
    room = limit
    for source in _module_sources():
        if len(source) > room:
            break
        sources.append(source)
        room -= len(source)
    if not sources:
        raise TextError(
            "this Python came without the source code of its standard library "
            f"(looked in {' and '.join(_library_paths())}); name a text file instead"
        )
    return "".join(sources)


def _library_paths() -> list[str]:
    """The standard library's folder, and the zip file that embedded Pythons have in its place."""
    folder = sysconfig.get_path("stdlib")
    zipped = Path(folder).parent / f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    return [folder, *(p for p in sys.path if Path(p).name == zipped.name)]


def _module_sources() -> Iterator[str]:
    paths = _library_paths()
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_"):
            continue
        # Loaders raise either error for a source that is not there or is not Python; zipimport does
        # so when it is only asked for the spec.
        with contextlib.suppress(ImportError, SyntaxError):
            spec = importlib.machinery.PathFinder.find_spec(name, paths)
            get_source = getattr(spec and spec.loader, "get_source", None)
            source = get_source(name) if get_source is not None else None
            if source and source.isascii():
                yield source


# -- long texts, indexed in chunks -----------------------------------------------------------------

#: Bytes or characters that are read at a time: what a level-two cache holds.
CHUNK = 1 << 20

#: An index of more bytes than this goes to a temporary file.
SPILL = 1 << 25

#: Place of a code point that was not met yet, and of one that is left out.
_NEW, _LEFT_OUT = -1, -2


@dataclasses.dataclass(frozen=True)
class IndexedText:
    """A text as class indices, as `index_text` makes it.

    Attributes
    ----------
    indices : ndarray of uint8, uint16 or uint32, shape (number of characters,)
        In the smallest type that holds them; memory-mapped when it is long.  Read-only.
    vocabulary : Vocabulary
    sha256 : str
        Hexadecimal SHA-256 of the text in UTF-8.
    """

    indices: np.ndarray
    vocabulary: Vocabulary
    sha256: str


def index_text(text: Any, *, vocabulary: Vocabulary | None = None, unknown: str | None = None) -> IndexedText:
    r"""Class indices of a text of any length, made in chunks.

    A file is read once and is never held as a string; an index of more than 32 MiB goes to a
    temporary file that has no name, so that the memory in use does not grow with the text.

    Parameters
    ----------
    text : str, path, binary file, or sequence of these
        A str is the text itself.  A `pathlib.Path` names a UTF-8 file, an object with a ``read``
        method is one that is open.  A sequence is read as one text, end to end.
    vocabulary : Vocabulary or None
        None takes every character of the text.
    unknown : str or None
        What to do with characters that are not in `vocabulary`: None refuses them, ``"skip"`` leaves
        them out, a character of the vocabulary takes their place.

    Returns
    -------
    IndexedText

    Raises
    ------
    TextError
        If a file cannot be read or is not UTF-8 (the message names the byte offset), a str holds half
        of a surrogate pair, there are unknown characters that `unknown` does not allow, or `vocabulary`
        is None and there are fewer than two different characters.
    TypeError
        If `text` is none of the above.
    OSError
        If the temporary file cannot be written.

    Examples
    --------
    >>> text = index_text("hello")
    >>> text.vocabulary, text.indices
    (Vocabulary('ehlo'), array([1, 0, 2, 2, 3], dtype=uint8))
    >>> index_text(["hel", "p"], vocabulary=text.vocabulary, unknown="skip").indices
    array([1, 0, 2], dtype=uint8)
    """
    if vocabulary is not None:
        check_unknown(unknown, vocabulary)
    indexer = _Indexer(vocabulary, unknown)
    for part in _parts(text):
        pieces = _pieces_of_str(part) if isinstance(part, str) else _pieces_of_file(part)
        for utf8, piece in pieces:
            indexer.add(utf8, piece)
    return indexer.finish()


def _parts(text: Any) -> Iterator[Any]:
    """The texts and files that `text` is made of."""
    if isinstance(text, str) or _is_file(text):
        yield text
        return
    if (
        isinstance(text, (bytes, bytearray, memoryview))
        or not isinstance(text, (Sequence, np.ndarray))
        or (isinstance(text, np.ndarray) and not text.ndim)
    ):
        raise TypeError(
            f"text must be a str, a pathlib.Path, a binary file or a sequence of these, "
            f"got {type(text).__name__}"
        )
    for i, part in enumerate(text):
        if not isinstance(part, str) and not _is_file(part):
            raise TypeError(
                f"text[{i}] must be a str, a pathlib.Path or a binary file, got {type(part).__name__}"
            )
        yield part


def _is_file(part: Any) -> bool:
    return isinstance(part, os.PathLike) or callable(getattr(part, "read", None))


def _pieces_of_str(text: str) -> Iterator[tuple[bytes, str]]:
    for start in range(0, len(text), CHUNK):
        piece = text[start : start + CHUNK]
        try:
            yield piece.encode(), piece
        except UnicodeEncodeError as error:
            raise surrogate(piece, error.start, "the text", start) from None


def _pieces_of_file(part: Any) -> Iterator[tuple[bytes, str | None]]:
    """Bytes of a file, each with its text, or with None when they are ASCII and stand for themselves."""
    if isinstance(part, os.PathLike):
        name = repr(os.fspath(part))
        try:
            opened: Any = Path(part).open("rb", buffering=0)  # noqa: SIM115  (closed below)
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            raise _cannot_read(name, error) from None
    else:
        name = repr(getattr(part, "name", None) or "the file")
        opened = contextlib.nullcontext(part)
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with opened as file:
        while True:
            try:
                content = file.read(CHUNK)
            except OSError as error:
                raise _cannot_read(name, error) from None
            if not isinstance(content, bytes):
                raise TypeError(f"{name} must be opened in binary mode: it gave {type(content).__name__}")
            cut = decoder.getstate()[0]  # first bytes of a character that the last chunk ended in
            if content and not cut and content.isascii():
                yield content, None
            else:
                try:
                    piece = decoder.decode(content, final=not content)
                except UnicodeDecodeError as error:
                    raise _not_utf8(name, error, offset - len(cut)) from None
                yield content, piece
            if not content:
                return
            offset += len(content)


def _cannot_read(name: str, error: Exception) -> TextError:
    return TextError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}")


def _not_utf8(name: str, error: UnicodeDecodeError, before: int = 0) -> TextError:
    """Error about the byte at ``error.start`` of a chunk that `before` bytes precede."""
    return TextError(
        f"{name} is not UTF-8 text: byte 0x{error.object[error.start]:02x} at offset "
        f"{before + error.start} ({error.reason})"
    )


class _Indexer:
    """Gives each character an index as it comes; at the end they are put in order of code points."""

    def __init__(self, vocabulary: Vocabulary | None, unknown: str | None) -> None:
        self._vocabulary = vocabulary
        self._unknown = unknown
        self._hash = hashlib.sha256()
        self._places = np.full(0x110000, _NEW, np.int32)
        self._codes = np.empty(0, np.uint32)
        # ASCII goes through `bytes.translate`: 1 ns a character for finding new ones and looking up.
        self._met = b""
        self._left_out = b""
        self._table = bytes(256)
        self._store = _Store()
        if vocabulary is not None:
            self._meet(code_points(vocabulary.characters, "the vocabulary"))

    def add(self, utf8: bytes, piece: str | None) -> None:
        """Index a piece of text, which `utf8` spells when the piece is None."""
        self._hash.update(utf8)
        if piece is not None:
            if not piece.isascii():
                self._add_codes(code_points(piece, "the text"))
                return
            utf8 = piece.encode()
        new = utf8.translate(None, self._met)
        if new:
            self._learn(np.unique(np.frombuffer(new, np.uint8)))
        if self._store.itemsize == 1:
            self._store.write(utf8.translate(self._table, self._left_out))
        else:
            self._add_codes(np.frombuffer(utf8, np.uint8))

    def finish(self) -> IndexedText:
        vocabulary = self._vocabulary
        if vocabulary is None:
            if len(self._codes) < 2:
                n = self._store.size // self._store.itemsize
                what = f"only {chr(self._codes[0])!r}, {n} times" if n else "it is empty"
                raise TextError(f"a text of at least two different characters is needed, but {what}")
            order = np.argsort(self._codes)
            final = np.empty(len(order), INDEX)
            final[order] = np.arange(len(order))
            self._store.replace(final)
            vocabulary = Vocabulary("".join(map(chr, self._codes.tolist())))
        return IndexedText(self._store.array(), vocabulary, self._hash.hexdigest())

    def _add_codes(self, codes: np.ndarray) -> None:
        places = self._places[codes]
        if places.min(initial=0) < 0:
            new = places == _NEW
            if new.any():
                self._learn(np.unique(codes[new]))
                places = self._places[codes]
            if self._unknown == "skip":
                places = places[places != _LEFT_OUT]
        self._store.write(places.astype(self._store.dtype))

    def _learn(self, codes: np.ndarray) -> None:
        """Give places to code points that were not met yet."""
        if self._vocabulary is None:
            self._meet(codes)
            return
        if self._unknown is None:
            raise self._vocabulary.unknown_characters(codes)
        self._places[codes] = (
            _LEFT_OUT if self._unknown == "skip" else self._vocabulary.characters.index(self._unknown)
        )
        self._update_tables()

    def _meet(self, codes: np.ndarray) -> None:
        n = len(self._codes)
        self._places[codes] = np.arange(n, n + len(codes))
        self._codes = np.concatenate([self._codes, codes.astype(np.uint32)])
        self._store.widen(len(self._codes))
        self._update_tables()

    def _update_tables(self) -> None:
        places = self._places[:128]
        self._met = bytes(np.flatnonzero(places != _NEW).tolist())
        self._left_out = bytes(np.flatnonzero(places == _LEFT_OUT).tolist())
        self._table = (places & 0xFF).astype(np.uint8).tobytes() + bytes(128)


class _Store:
    """Indices in memory, or in a temporary file from `SPILL` bytes on."""

    def __init__(self) -> None:
        self._file: Any = io.BytesIO()
        self._in_memory = True
        self.size = 0
        self.itemsize = 1

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(f"u{self.itemsize}")

    def write(self, content: Any) -> None:
        content = memoryview(content).cast("B")
        with self._naming_the_folder():
            if self._in_memory and self.size + len(content) > SPILL:
                import tempfile  # which takes a while, and a prompt needs none

                file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed by `array`)
                _write_all(file, self._file.getbuffer())
                self._file, self._in_memory = file, False
            _write_all(self._file, content)
        self.size += len(content)

    def widen(self, characters: int) -> None:
        """Take a type that holds indices of so many characters; what is there is copied."""
        needed = next(size for size in (1, 2, 4) if characters <= 256**size)
        if needed == self.itemsize:
            return
        wider = _Store()
        wider.itemsize = needed
        for block in self._blocks():
            wider.write(block.astype(wider.dtype))
        self._file.close()
        self._file, self._in_memory = wider._file, wider._in_memory
        self.size, self.itemsize = wider.size, needed

    def replace(self, table: np.ndarray) -> None:
        """Look every index up in a table."""
        if (table == np.arange(len(table))).all():
            return
        table = table.astype(self.dtype)
        translation = table.tobytes().ljust(256, b"\0") if self.itemsize == 1 else b""
        position = 0
        with self._naming_the_folder():
            for block in self._blocks():
                self._file.seek(position)
                _write_all(
                    self._file, block.tobytes().translate(translation) if translation else table[block]
                )
                position += block.nbytes

    def array(self) -> np.ndarray:
        if self._in_memory:
            indices = np.frombuffer(self._file.getbuffer(), self.dtype)
            indices.flags.writeable = False
            return indices
        with self._file as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, self.dtype)

    def _blocks(self) -> Iterator[np.ndarray]:
        for position in range(0, self.size, CHUNK):
            self._file.seek(position)
            yield np.frombuffer(self._file.read(CHUNK), self.dtype)

    @contextlib.contextmanager
    def _naming_the_folder(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot write the index of the text to the folder for temporary files, which the "
                f"environment variable TMPDIR names: {error.strerror or error}",
            ) from None


def _write_all(file: Any, content: Any) -> None:
    """Write everything to an unbuffered file, which may take less at a time."""
    content = memoryview(content).cast("B")
    while content:
        content = content[file.write(content) :]
