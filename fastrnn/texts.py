"""Where a text comes from, and the class indices of its characters."""

from __future__ import annotations

import codecs
import contextlib
import importlib.machinery
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fastrnn.checks import INDEX

__all__ = ["TextError", "encode", "read_text", "standard_library_source"]


class TextError(ValueError):
    """A text that cannot be read or cannot be learned; the message says why."""


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
        raise TextError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from None
    whole = limit is None or len(content) <= limit
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(content if whole else content[:limit], whole)
    except UnicodeDecodeError as error:
        raise TextError(
            f"{name} is not UTF-8 text: byte 0x{content[error.start]:02x} at offset {error.start} "
            f"({error.reason})"
        ) from None
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


def encode(text: str) -> tuple[str, np.ndarray]:
    """The different characters of a text, and the text as indices into them.

    Parameters
    ----------
    text : str

    Returns
    -------
    vocabulary : str
        Each character once, in the order of their code points.
    indices : ndarray of int64, shape (len(text),)

    Raises
    ------
    TextError
        If there are fewer than two different characters: there is nothing to predict then.

    Examples
    --------
    >>> encode("hello")
    ('ehlo', array([1, 0, 2, 2, 3]))
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    # A table over the code points, in place of sorting the text.
    present = np.zeros(int(codes.max(initial=0)) + 1, bool)
    present[codes] = True
    different = np.flatnonzero(present)
    if len(different) < 2:
        what = f"only {text[0]!r}, {len(text)} times" if text else "it is empty"
        raise TextError(f"a text of at least two different characters is needed, but {what}")
    indices = (np.cumsum(present, dtype=INDEX) - 1)[codes]
    return "".join(map(chr, different.tolist())), indices
