"""Where a text comes from, and the class indices of its characters."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import hashlib
import importlib.machinery
import io
import itertools
import mmap
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import INDEX, describe, warn_user
from fastrnn.errors import TextError
from fastrnn.text.vocabulary import (
    Vocabulary,
    check_newline,
    check_unknown,
    code_points,
    surrogate,
    with_newlines,
)

if TYPE_CHECKING:
    from fastrnn.hints import NewLine, Text

__all__ = [
    "IndexedText", "TextError", "index_text", "named_file", "parts_of", "read_text", "standard_library_source",
]  # fmt: skip


def read_text(path: str, limit: int | None = None, newline: NewLine | None = None) -> tuple[str, bool]:
    r"""Read a UTF-8 text as it is: line ends and every other character are kept.

    Only a byte order mark at the very start, which is no character of the text, is left out.

    Parameters
    ----------
    path : str
        A file, or ``"-"`` for standard input.
    limit : int or None
        Read at most this many bytes; a character that the limit cuts in two is left out.
    newline : {"universal"} or None
        ``"universal"`` reads ``\r\n`` and ``\r`` as ``\n``.

    Returns
    -------
    text : str
    whole : bool
        False if there was more than `limit`.

    Raises
    ------
    TextError
        If the file cannot be read, or is not UTF-8; the message names the byte offset, and says how to
        convert UTF-16, UTF-32 and compressed files.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(delete=False) as file:
    ...     _ = file.write("naïve\r\n".encode())
    >>> read_text(file.name)
    ('naïve\r\n', True)
    >>> read_text(file.name, 3)
    ('na', False)
    >>> read_text(file.name, newline="universal")
    ('naïve\n', True)
    """
    check_newline(newline)
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
    head, content = content[:HEAD], content if whole else content[:limit]
    letters = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(letters, whole)
    except UnicodeDecodeError as error:
        raise _not_utf8(name, error, head, len(content) - len(letters)) from None
    _warn_of_nulls(name, head)
    return with_newlines(text, newline), whole


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

#: A str of more characters names no file.
LONGEST_NAME = 4095

#: First bytes of a file by which it is recognised.
HEAD = 16

#: First bytes of files that are not UTF-8, what such files are, and how to convert them to UTF-8.
_KINDS = (
    (codecs.BOM_UTF32_LE, "UTF-32 text", "convert it with: iconv -f UTF-32 -t UTF-8 IN > OUT"),
    (codecs.BOM_UTF32_BE, "UTF-32 text", "convert it with: iconv -f UTF-32 -t UTF-8 IN > OUT"),
    (codecs.BOM_UTF16_LE, "UTF-16 text", "convert it with: iconv -f UTF-16 -t UTF-8 IN > OUT"),
    (codecs.BOM_UTF16_BE, "UTF-16 text", "convert it with: iconv -f UTF-16 -t UTF-8 IN > OUT"),
    (b"\x1f\x8b", "a gzip file", "unpack it with: gunzip -c IN > OUT"),
    (b"BZh", "a bzip2 file", "unpack it with: bunzip2 -c IN > OUT"),
    (b"\xfd7zXZ\0", "an xz file", "unpack it with: xz -dc IN > OUT"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it with: zstd -dc IN > OUT"),
    (b"PK\x03\x04", "a zip file (so are .docx, .odt and .epub)", "take the text out of it first"),
    (b"%PDF-", "a PDF document", "take the text out of it with: pdftotext -enc UTF-8 IN OUT"),
)

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
        Hexadecimal SHA-256 of the text in UTF-8, as it was read: without byte order marks, with its line
        ends as `newline` makes them, and with its unknown characters.
    """

    indices: np.ndarray
    vocabulary: Vocabulary
    sha256: str


def index_text(
    text: Text,
    *,
    vocabulary: Vocabulary | None = None,
    unknown: str | None = None,
    newline: NewLine | None = None,
) -> IndexedText:
    r"""Class indices of a text of any length, made in chunks.

    A file is read once and is never held as a string; an index of more than 32 MiB goes to a
    temporary file that has no name, so that the memory in use does not grow with the text.

    Parameters
    ----------
    text : str, bytes, path, binary file, or sequence of these
        A str is the text itself; bytes are one in UTF-8.  A `pathlib.Path` names a UTF-8 file, an object
        with a ``read`` method is one that is open.  A sequence, or a column of a table such as a
        ``pandas.Series``, is read as one text, end to end.  A byte order mark at the start of a file or
        of bytes is left out; one at the start of a str is a character as any other.
    vocabulary : Vocabulary or None
        None takes every character of the text.
    unknown : str or None
        What to do with characters that are not in `vocabulary`: None refuses them, ``"skip"`` leaves
        them out, a character of the vocabulary takes their place.
    newline : {"universal"} or None
        ``"universal"`` reads ``\r\n`` and ``\r`` as ``\n``.

    Returns
    -------
    IndexedText

    Raises
    ------
    TextError
        If a file cannot be read or is not UTF-8 (the message names the byte offset, and says how to
        convert UTF-16, UTF-32 and compressed files), a str holds half of a surrogate pair, there are
        unknown characters that `unknown` does not allow, or `vocabulary` is None and there are fewer than
        two different characters.
    TypeError
        If `text` is none of the above.
    OSError
        If the temporary file cannot be written.

    Warns
    -----
    UserWarning
        If a file looks like UTF-16 without a byte order mark: every other byte at its start is 0.

    Examples
    --------
    >>> text = index_text("hello")
    >>> text.vocabulary, text.indices
    (Vocabulary('ehlo'), array([1, 0, 2, 2, 3], dtype=uint8))
    >>> index_text(["hel", b"p"], vocabulary=text.vocabulary, unknown="skip").indices
    array([1, 0, 2], dtype=uint8)
    """
    if vocabulary is not None:
        check_unknown(unknown, vocabulary)
    newlines = _Newlines(check_newline(newline))
    indexer = _Indexer(vocabulary, unknown)
    for name, part in parts_of(text):
        for utf8, piece in _pieces(name, part):
            indexer.add(*newlines.translate(utf8, piece))
    return indexer.finish()


def read_indexed(
    text: Any, newline: NewLine | None, vocabulary: Vocabulary | None = None, unknown: str | None = None
) -> IndexedText:
    """`index_text` for a model: of at least two characters, and a name of a file is warned of.

    `unknown` is what becomes of characters that a given `vocabulary` has not.
    """
    name = named_file(text)
    asked = "" if name is None else f"there is a file of that name: did you mean pathlib.Path({name!r})?"
    try:
        indexed = index_text(
            text, vocabulary=vocabulary, unknown=None if vocabulary is None else unknown, newline=newline
        )
        if len(indexed.indices) < 2:
            raise TextError(f"a text of at least two characters is needed, got {len(indexed.indices)}")
    except TextError as error:
        if not asked:
            raise
        raise TextError(f"{error}; {asked}") from None
    if asked:
        warn_user(
            f"the text {'is' if isinstance(text, str) else 'begins with'} the characters {name!r}, and {asked}",
        )
    return indexed


def named_file(text: Any) -> str | None:
    """The name of a file that a text looks like: a short str, or the first of a sequence, that names one.

    Examples
    --------
    >>> named_file("no file has this name")
    """
    if not _is_text(text) and _is_sequence(text):
        text = next(iter(text), None)
    if (
        not isinstance(text, str)
        or len(text) > LONGEST_NAME
        or any(c in text for c in "\0\n\r")
        or text.startswith(("\\\\", "//"))  # asking for it might ask another machine
    ):
        return None
    return text if os.path.isfile(text) else None  # noqa: PTH113  (a Path raises for names that are too long)


def parts_of(text: Any) -> Iterator[tuple[str, Any]]:
    """The texts and files that `text` is made of, each with what errors call it."""
    wanted = "a str, bytes, a pathlib.Path, a binary file"
    if _is_text(text):
        yield "the text", text
        return
    if not _is_sequence(text):
        shape = getattr(text, "shape", None)
        of_shape = f" of shape {shape}" if isinstance(shape, tuple) else ""
        raise TypeError(f"text must be {wanted} or a sequence of these, got {type(text).__name__}{of_shape}")
    for i, part in enumerate(text):
        if not _is_text(part):
            raise TypeError(
                f"text[{i}] must be {wanted.replace(', a binary', ' or a binary')}, got {describe(part)}"
            )
        yield f"text[{i}]", part


def _is_text(part: Any) -> bool:
    return isinstance(part, (str, bytes, bytearray, memoryview)) or _is_file(part)


def _is_file(part: Any) -> bool:
    return isinstance(part, os.PathLike) or callable(getattr(part, "read", None))


def _is_sequence(text: Any) -> bool:
    """Whether it is a sequence, an array, or a column of a table, such as a Series of pandas or polars."""
    shape = getattr(text, "shape", None)
    if isinstance(shape, tuple):
        return len(shape) == 1 and hasattr(text, "__iter__")
    return isinstance(text, Sequence)


def _pieces(name: str, part: Any) -> Iterator[tuple[bytes, str | None]]:
    """UTF-8 of a part, each piece with its text, or with None when it is ASCII and stands for itself."""
    if isinstance(part, str):
        return _pieces_of_str(name, part)
    if isinstance(part, (bytes, bytearray, memoryview)):
        return _pieces_of_file(name, io.BytesIO(part))
    if isinstance(part, os.PathLike):
        name = repr(os.fspath(part))
        try:
            file = Path(part).open("rb", buffering=0)  # noqa: SIM115  (closed there)
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            raise _cannot_read(name, error) from None
        return _pieces_of_file(name, file)
    return _pieces_of_file(repr(getattr(part, "name", None) or "the file"), contextlib.nullcontext(part))


def _pieces_of_str(name: str, text: str) -> Iterator[tuple[bytes, str]]:
    for start in range(0, len(text), CHUNK):
        piece = text[start : start + CHUNK]
        try:
            yield piece.encode(), piece
        except UnicodeEncodeError as error:
            raise surrogate(piece, error.start, name, start) from None


def _pieces_of_file(name: str, opened: Any) -> Iterator[tuple[bytes, str | None]]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with opened as file:
        chunks = iter(lambda: _read(name, file), b"")
        head = b""
        for chunk in chunks:
            head += chunk
            if len(head) >= HEAD:
                break
        offset = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
        for content in itertools.chain([head[offset:]], chunks, [b""]):
            cut = decoder.getstate()[0]  # first bytes of a character that the last chunk ended in
            if content and not cut and content.isascii():
                yield content, None
            else:
                try:
                    piece = decoder.decode(content, final=not content)
                except UnicodeDecodeError as error:
                    raise _not_utf8(name, error, head[:HEAD], offset - len(cut)) from None
                yield content, piece
            offset += len(content)
    _warn_of_nulls(name, head[:HEAD])


def _read(name: str, file: Any) -> bytes:
    """The next bytes of a file, none at its end."""
    try:
        content = file.read(CHUNK)
    except OSError as error:
        raise _cannot_read(name, error) from None
    if not isinstance(content, bytes):
        raise TypeError(f"{name} must be opened in binary mode: it gave {type(content).__name__}")
    return content


def _cannot_read(name: str, error: Exception) -> TextError:
    return TextError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}")


def _not_utf8(name: str, error: UnicodeDecodeError, head: bytes, before: int) -> TextError:
    """Error about the byte at ``error.start`` of a chunk that `before` bytes precede.

    Only here is it asked what kind of file it is: valid UTF-8 may begin as it likes.
    """
    kinds = [(kind, how) for magic, kind, how in _KINDS if head.startswith(magic)]
    utf16 = _utf16_without_mark(head)
    if utf16 is not None:
        kinds.append((f"{utf16} text", f"convert it with: iconv -f {utf16} -t UTF-8 IN > OUT"))
    if kinds:
        advice = "it looks like {}: {}".format(*kinds[0])
    else:
        advice = "text in another encoding is converted with: iconv -f WINDOWS-1252 -t UTF-8 IN > OUT"
    return TextError(
        f"{name} is not UTF-8 text: byte 0x{error.object[error.start]:02x} at offset "
        f"{before + error.start} ({error.reason}); {advice}"
    )


def _utf16_without_mark(head: bytes) -> str | None:
    """Which UTF-16 it is, if every other byte is 0 and no byte between them."""
    even, odd = head[::2], head[1::2]
    if len(head) < HEAD or any(even) == any(odd):
        return None
    if 0 in (even if any(even) else odd):
        return None
    return "UTF-16LE" if any(even) else "UTF-16BE"


def _warn_of_nulls(name: str, head: bytes) -> None:
    utf16 = _utf16_without_mark(head)
    if utf16 is not None:
        warn_user(
            f"{name} is read as UTF-8, and every other character is '\\0': it looks like {utf16} text; "
            f"convert it with: iconv -f {utf16} -t UTF-8 IN > OUT",
        )


class _Newlines:
    """Line ends of the pieces of a text, of which one may end in the middle of ``\\r\\n``."""

    def __init__(self, newline: NewLine | None) -> None:
        self._newline = newline
        self._after_cr = False

    def translate(self, utf8: bytes, piece: str | None) -> tuple[bytes, str | None]:
        if self._newline is None or not utf8:
            return utf8, piece
        after_cr, self._after_cr = self._after_cr, utf8.endswith(b"\r")
        if after_cr:  # which was read as a line end; a character that is cut in two is not after one
            utf8 = utf8.removeprefix(b"\n")
            piece = None if piece is None else piece.removeprefix("\n")
        translated = None if piece is None else with_newlines(piece, self._newline)
        return with_newlines(utf8, self._newline), translated


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
        """Take a type that holds the indices of this many characters; earlier ones are copied to it."""
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
