"""Checkpoints: arrays and what else a model is, in one safetensors file that is whole or not there.

The file is one that any safetensors reader opens.  Its metadata hold

- ``format``: ``"fastrnn"``;
- ``format_version``: a whole number, `FORMAT_VERSION` as written here;
- ``content``: JSON of everything that is no array;
- ``sha256``: hexadecimal digest over all of the above and every array.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastrnn._version import __version__
from fastrnn.errors import CheckpointError, brief

__all__ = [
    "CheckpointError", "all_finite", "check_is_no_text", "check_writable", "content_of", "is_finite",
    "only_writer", "previous_of", "read_checkpoint", "write_checkpoint",
]  # fmt: skip

FORMAT = "fastrnn"
FORMAT_VERSION = 1

#: Ends the name of the checkpoint that was there before the last one.
PREVIOUS = ".previous"

#: Longest header that safetensors allows.
_HEADER_LIMIT = 100_000_000

#: Types of numbers in safetensors' words.
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}

#: Arrays of a file at most: a model of 1000 layers and Adam has 16 000.  Each takes some 50 microseconds.
MOST_ARRAYS = 20_000

#: Lists and dicts within each other at most.
_DEEPEST = 64

#: Dimensions of an array at most; no model has more than three.
_MOST_DIMENSIONS = 8

_SURROGATE = re.compile("[\ud800-\udfff]")

#: Seconds after which a temporary file is one that a killed process left.
_STALE = 600


def write_checkpoint(
    path: str | os.PathLike[str], content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a checkpoint whole or not at all.

    The file is written beside its place under another name, forced to the disk, and moved there.  A
    checkpoint that was there is kept as ``<path>.previous``.  Whenever the process is killed, `path`
    names a complete file, the old or the new one, if it named one before.

    A file that is replaced passes its permissions on, and its owner and group where that is allowed.  NaN
    and infinity never take the place of finite numbers: not those of `path`, which is an error, nor those
    of ``<path>.previous``, which then stays.

    Parameters
    ----------
    path : str or path
    content : mapping
        What JSON can hold; NaN and infinity are allowed.
    arrays : mapping of str to ndarray of float32 or float64

    Raises
    ------
    OSError
        If it cannot be written; what was there is as it was.
    CheckpointError
        If `arrays` hold NaN or infinity, and `path` is a checkpoint that holds neither.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_checkpoint(f"{folder}/model", {"step": 3}, {"W": np.ones((2, 3))})
    ...     content, arrays = read_checkpoint(f"{folder}/model")
    >>> content, arrays["W"].shape
    ({'step': 3}, (2, 3))
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "content": text,
        "sha256": _digest(text, arrays),
    }
    # A link stays a link: what it points to is replaced.
    place = Path(os.path.realpath(path))
    if not all_finite(arrays.values()) and is_finite(place):
        raise CheckpointError(
            f"{os.fsdecode(path)!r} holds a model of finite numbers, and is not replaced by one that "
            f"holds NaN or infinity: choose another name"
        )
    with _saying_what_failed(path), _temporary_file(place) as temporary:
        if len(arrays) > MOST_ARRAYS:
            raise OSError(errno.EFBIG, f"{len(arrays)} arrays, and a file takes {MOST_ARRAYS}")
        try:
            serialized = save(arrays, metadata)
        except SafetensorError as error:
            raise OSError(errno.EFBIG, f"what is no array takes {len(text)} characters ({error})") from None
        before = _check_place(place)
        with _create(temporary, before) as file:
            file.write(serialized)
            _finish(file, before)
        _keep_previous(place, before)
        temporary.replace(place)
        _force_to_disk(place.parent)
    _remove_stale(place)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise the `OSError` now that `write_checkpoint` would raise after hours of work."""
    place = Path(os.path.realpath(path))
    with _saying_what_failed(path), _temporary_file(place) as temporary:
        before = _check_place(place, to_be_replaced=True)
        _create(temporary, before).close()


def previous_of(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoint is kept that was there before the last one."""
    link = os.path.islink(path)  # noqa: PTH114  (that of pathlib raises where a name is too long)
    name = os.path.realpath(path) if link else os.fsdecode(path)
    return Path(name + PREVIOUS)


def _check_place(place: Path, *, to_be_replaced: bool = False) -> os.stat_result | None:
    """Refuse to put a file in the place of what is none, such as a device; return what is known of the
    one that is there.  If it will be replaced, it has to go somewhere as well."""
    before = None
    if place.exists():
        before = place.stat()
        if stat.S_ISDIR(before.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, "it is there, and is not a regular file")
    previous = place.parent / (place.name + PREVIOUS)
    if (to_be_replaced or before is not None) and os.path.lexists(previous):
        mode = previous.lstat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(number, f"the one before it is kept as {str(previous)!r}, which is {kind}")
    return before


def _create(file: Path, like: os.stat_result | None) -> IO[bytes]:
    """Open a new file, for this user alone until `_finish` if it is to be like another one."""
    if like is None:
        return file.open("xb")
    return open(file, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


def _finish(file: IO[bytes], like: os.stat_result | None) -> None:
    """Force what was written to the disk, with the permissions, owner and group of `like`."""
    file.flush()
    if like is not None and sys.platform != "win32":
        mode = stat.S_IMODE(like.st_mode) & 0o777
        if not _give_to(file.fileno(), like):
            # Another group is not to be allowed more than everybody.
            mode = mode & 0o707 | (mode & 0o007) << 3
        with contextlib.suppress(OSError):  # a file system without permissions
            os.fchmod(file.fileno(), mode)
    os.fsync(file.fileno())


if sys.platform != "win32":

    def _give_to(descriptor: int, like: os.stat_result) -> bool:
        """Give a file the owner and group of another where that is allowed; return whether its group fits."""
        mine = os.fstat(descriptor)
        if mine.st_uid != like.st_uid:
            with contextlib.suppress(OSError):
                os.fchown(descriptor, like.st_uid, -1)
        if mine.st_gid != like.st_gid:
            try:
                os.fchown(descriptor, -1, like.st_gid)
            except OSError:
                return False
        return True


@contextlib.contextmanager
def _saying_what_failed(path: Any) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # The class of error that belongs to the number, and the number, stay.
        raise OSError(
            error.errno, f"cannot write checkpoint {os.fsdecode(path)!r}: {error.strerror or error}"
        ) from None


@contextlib.contextmanager
def _temporary_file(place: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Name of a file beside `place` that no other process uses; it is removed if it is still there."""
    temporary = place.parent / f".{place.name}.{secrets.token_hex(8)}{suffix}"  # of a root, too
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _keep_previous(place: Path, status: os.stat_result | None) -> None:
    """Give the file at `place`, which stays there, a second name."""
    if status is None:
        return
    previous = place.parent / (place.name + PREVIOUS)
    if is_finite(place) is False and is_finite(previous):
        return
    with _temporary_file(place) as temporary:
        try:
            os.link(place, temporary)
        except OSError:  # a file system without hard links
            with place.open("rb") as source, _create(temporary, status) as copy:
                shutil.copyfileobj(source, copy)
                _finish(copy, status)
        temporary.replace(previous)


def _force_to_disk(folder: Path) -> None:
    """Make a change of names in `folder` outlive a loss of power, where the system can."""
    if os.name == "nt":
        return
    # The file is in its place already.  Some network file systems know no fsync of a folder, and a
    # folder may be one that can be written and not be read.
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def _remove_stale(place: Path) -> None:
    """Remove what processes left that were killed while they wrote this checkpoint."""
    prefix = f".{place.name}."
    with contextlib.suppress(OSError):
        for file in place.parent.iterdir():
            middle = file.name[len(prefix) : -len(".tmp")]
            if file.name == f"{prefix}{middle}.tmp" and len(middle) == 16:
                with contextlib.suppress(OSError):
                    if time.time() - file.stat().st_mtime > _STALE:
                        file.unlink()


def _digest(content: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(f"{FORMAT} {FORMAT_VERSION}\0{content}".encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


# -- one run at a time -----------------------------------------------------------------------------


class _OpenLock:
    """The open file of a lock; it is closed, and with that unlocked, when nobody knows it any more."""

    _descriptor = -1

    def __init__(self, lock: Path, flags: int) -> None:
        self._descriptor = os.open(lock, flags, 0o666)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close


@dataclasses.dataclass(eq=False, weakref_slot=True, slots=True)
class _Held:
    """A lock that a thread of this process has."""

    thread: int
    #: None where files cannot be locked.
    file: _OpenLock | None


#: Locks of this process by the names of their files.  They live in the frames of `only_writer` alone: one
#: that an interrupt kept from giving up its lock is gone with it.
_held: weakref.WeakValueDictionary[str, _Held] = weakref.WeakValueDictionary()
_guard = threading.Lock()


@contextlib.contextmanager
def only_writer(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep every other run from writing a checkpoint, in this process or another one.

    A file beside it, ``.<name>.lock``, is locked and at last removed.  The lock goes with its process,
    however that ends.  Where files cannot be locked, or none can be made, only the threads of this
    process are kept out.  The thread that holds it may take it once more.

    Parameters
    ----------
    path : str or path
        ``<path>.previous``, which the same run writes, is held with it.

    Raises
    ------
    OSError
        If another run holds it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, only_writer(f"{folder}/model"):
    ...     write_checkpoint(f"{folder}/model", {"step": 3}, {})
    """
    place = Path(os.path.realpath(path))
    name = place.name
    while name.removesuffix(PREVIOUS) not in ("", name):
        name = name.removesuffix(PREVIOUS)
    lock = place.parent / f".{name}.lock"
    key = os.path.normcase(lock)
    thread = threading.get_ident()
    own = None
    with _saying_what_failed(path), _guard:
        held = _held.get(key)
        if held is None:
            own = held = _held[key] = _Held(thread, _lock(lock))
        elif held.thread != thread:
            raise _busy()
    try:
        yield
    finally:
        with _guard:
            # One that was held before is given up there; a child that was forked meanwhile has none.
            if own is not None and _held.get(key) is own:
                del _held[key]
                _unlock(lock, own.file)


def _busy() -> OSError:
    return OSError(errno.EBUSY, "another run that is going on writes it; wait for its end, or choose another")


def _lock(lock: Path) -> _OpenLock | None:
    """A file that is locked now, or None where that cannot be."""
    for _ in range(100):
        file = _open_lock(lock)
        if file is None:
            return None
        try:
            _take(file.fileno())
        except OSError as error:
            file.close()
            # Windows and network file systems have numbers of their own for a lock that is taken.
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise _busy() from None
            with contextlib.suppress(OSError):
                lock.unlink()
            return None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        # The run before has removed it since it was opened here.
        file.close()
    return None


def _open_lock(lock: Path) -> _OpenLock | None:
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    with contextlib.suppress(OSError):
        return _OpenLock(lock, flags | os.O_RDWR | os.O_CREAT)
    # That of a run of another user may be there to be read only.
    with contextlib.suppress(OSError):
        return _OpenLock(lock, flags | os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    return None


if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(lock: Path, file: _OpenLock | None) -> None:
        if file is not None:
            file.close()
            with contextlib.suppress(OSError):  # another run has it open
                lock.unlink()

else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(lock: Path, file: _OpenLock | None) -> None:
        if file is not None:
            with contextlib.suppress(OSError):  # a folder that may no longer be written
                lock.unlink()
            # A child that was forked has the same lock, which would stay with it.
            with contextlib.suppress(OSError):  # of a network file system; what was written is whole
                fcntl.flock(file.fileno(), fcntl.LOCK_UN)
            with contextlib.suppress(OSError):
                file.close()


def _forget_locks() -> None:
    """In a forked child: they are its parent's."""
    global _guard
    _guard = threading.Lock()
    for held in list(_held.values()):
        if held.file is not None:
            held.file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def check_is_no_text(path: str | os.PathLike[str], texts: Iterable[Any]) -> None:
    """Refuse to write a checkpoint to where a text is read from, by whatever name.

    Parameters
    ----------
    path : str or path
    texts : iterable
        Of paths, open files, and what is neither.

    Raises
    ------
    ValueError
        If one of `texts` is the file at `path`, or at ``<path>.previous``.

    Examples
    --------
    >>> check_is_no_text("model", ["a text", Path("book.txt")])
    """
    statuses = [(text, status) for text in texts if (status := _status(text)) is not None]
    for file in (Path(path), previous_of(path)):
        there = _status(file)
        for text, status in statuses:
            if there is not None and os.path.samestat(there, status):
                name = os.fsdecode(text) if isinstance(text, os.PathLike) else getattr(text, "name", "text")
                kept = "" if file == Path(path) else f" (the one before it is kept as {str(file)!r})"
                raise ValueError(
                    f"checkpoint {os.fsdecode(path)!r}{kept} would replace the text {name!r}: choose another "
                    f"file"
                )


def _status(file: Any) -> os.stat_result | None:
    """What tells a path or an open file from others; None if there is no such file."""
    with contextlib.suppress(OSError, ValueError):
        if isinstance(file, os.PathLike):
            return os.stat(file)  # noqa: PTH116  (not only of pathlib's)
        if callable(getattr(file, "fileno", None)):
            return os.fstat(file.fileno())
    return None


# -- reading ---------------------------------------------------------------------------------------


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a checkpoint that `write_checkpoint` wrote.

    What the file claims is compared with its size before memory is taken for it, and its digest is
    checked before anything in it is used.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    content : dict
    arrays : dict of str to ndarray of float32 or float64

    Raises
    ------
    CheckpointError
        If the file is truncated, altered, of a newer format, or no checkpoint; the message says which.
    OSError
        If it cannot be read.
    """
    name = os.fsdecode(path)
    try:
        return _read(Path(name))
    except CheckpointError as error:
        message = f"{name!r} {error}"
        previous = previous_of(name)
        if previous.exists():
            message += f"; the one before it is {str(previous)!r}"
        raise CheckpointError(message) from None
    except OSError as error:
        raise OSError(error.errno, f"cannot read checkpoint {name!r}: {error.strerror or error}") from None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """`read_checkpoint`, whose messages lack the name of the file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with _open(path) as file:
        metadata, _, start, size = _read_header(file)
        serialized = start + file.read(size)
    if len(serialized) != len(start) + size:
        raise CheckpointError("changed while it was read")
    try:
        arrays = load(serialized)
    except SafetensorError as error:
        raise CheckpointError(f"is damaged: {brief(str(error), 200)}") from None
    if _digest(metadata["content"], arrays) != metadata["sha256"]:
        raise CheckpointError("was altered or damaged: its SHA-256 does not agree with what it holds")
    content = _parse(metadata["content"])
    if not isinstance(content, dict):
        raise CheckpointError("is damaged: its content is not a JSON object")
    _check_json(content)
    return content, arrays


def is_finite(path: str | os.PathLike[str]) -> bool | None:
    """Whether all numbers in the arrays of a checkpoint are finite; None if there is none to be read.

    The digest is not looked at.
    """
    try:
        with _open(Path(path)) as file:
            _, entries, start, _ = _read_header(file)
            for entry in entries.values():
                begin, stop = entry["data_offsets"]
                file.seek(len(start) + begin)
                array = np.frombuffer(file.read(stop - begin), _DTYPES[entry["dtype"]])
                if not all_finite([array]):
                    return False
    except (CheckpointError, OSError, ValueError):
        return None
    return True


def content_of(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What a checkpoint holds beside its arrays, which are not read; None if there is none to be read.

    The digest is not looked at: this tells who is to read the file, and nothing more.
    """
    try:
        with _open(Path(path)) as file:
            content = _parse(_read_header(file)[0]["content"])
    except (CheckpointError, OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def all_finite(arrays: Iterable[np.ndarray]) -> bool:
    """Whether no number in arrays is NaN or infinite."""
    return all(bool(np.isfinite(array).all()) for array in arrays)


def _open(path: Path) -> IO[bytes]:
    """Open a file; a pipe, which would be waited for, and devices are refused."""
    _check_regular(path.stat())
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    file = open(path, "rb", opener=lambda name, usual: os.open(name, usual | flags))  # noqa: SIM115
    try:
        _check_regular(os.fstat(file.fileno()))  # another one may be there by now
    except OSError:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")


def _read_header(file: IO[bytes]) -> tuple[dict[str, str], dict[str, Any], bytes, int]:
    """Metadata, entries of arrays, the bytes up to the data, and how many of data there are."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(9)
    if not start:
        raise CheckpointError("is empty")
    length = int.from_bytes(start[:8], "little")
    if len(start) < 9 or start[8:] != b"{" or not 2 <= length <= _HEADER_LIMIT:
        raise CheckpointError("is not a checkpoint of fastrnn (not a safetensors file)")
    if length > size - 8:
        raise CheckpointError(f"is truncated: its header takes {length} bytes and {size - 8} are there")
    file.seek(8)
    header = file.read(length)
    metadata, entries = _check_header(header, size - 8 - length)
    return metadata, entries, start[:8] + header, size - 8 - length


def _parse(text: str | bytes) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"is damaged: its header is not JSON ({error})") from None


def _check_json(value: Any, depth: int = 0) -> None:
    """Refuse what JSON may hold and a later `write_checkpoint` would stumble over."""
    if isinstance(value, str):
        if not value.isascii() and (half := _SURROGATE.search(value)):
            raise CheckpointError(f"is damaged: it holds U+{ord(half[0]):04X}, half of a surrogate pair")
    elif isinstance(value, (dict, list)):
        if depth == _DEEPEST:
            raise CheckpointError(f"is damaged: it holds more than {_DEEPEST} lists within each other")
        for member in value:
            _check_json(member, depth + 1)
        for member in value.values() if isinstance(value, dict) else ():
            _check_json(member, depth + 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name comes twice")
    return members


def _check_header(header: bytes, size: int) -> tuple[dict[str, str], dict[str, Any]]:
    """Check a header against the `size` of the data that follow it; return the metadata and the rest."""
    too_many = CheckpointError(f"is damaged: its header names more than {MOST_ARRAYS} arrays")
    if header.count(b'"data_offsets"') > MOST_ARRAYS:  # before objects are made of them, which takes a while
        raise too_many
    entries = _parse(header)
    metadata = entries.pop("__metadata__", None)
    if len(entries) > MOST_ARRAYS:
        raise too_many
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise CheckpointError("is a safetensors file, but not a checkpoint of fastrnn")
    version = metadata.get("format_version")
    if not isinstance(version, str) or not version.isascii() or not version.isdigit() or len(version) > 9:
        raise CheckpointError("is damaged: it has no format version")
    if int(version) > FORMAT_VERSION:
        raise CheckpointError(
            f"has format {version}, and fastrnn {__version__} reads up to {FORMAT_VERSION}: "
            f"a newer fastrnn wrote it"
        )
    if version != str(FORMAT_VERSION):
        raise CheckpointError(f"has format {version}, which does not exist")
    for key in ("content", "sha256"):
        if not isinstance(metadata.get(key), str):
            raise CheckpointError(f"is damaged: its metadata lack {key!r}")
    end = 0
    for begin, stop in sorted(_extent(name, entry) for name, entry in entries.items()):
        if begin != end:
            raise CheckpointError(f"is damaged: its arrays leave a gap or overlap at byte {min(begin, end)}")
        end = stop
    if end > size:
        raise CheckpointError(f"is truncated: its arrays take {end} bytes and {size} are there")
    if end < size:
        raise CheckpointError(f"is damaged: {size - end} bytes follow its arrays")
    return metadata, entries


def _extent(name: str, entry: Any) -> tuple[int, int]:
    """First byte of an array and the one after its last."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(stop)]} if (
            dtype in _DTYPES
            and len(shape) <= _MOST_DIMENSIONS
            and all(type(n) is int and n >= 0 for n in shape)
            # NumPy's bound, of empty arrays too.
            and math.prod(n or 1 for n in shape) * _DTYPES[dtype].itemsize < 2**63
            and type(begin) is type(stop) is int
            and stop - begin == math.prod(shape) * _DTYPES[dtype].itemsize
        ):
            return begin, stop
    raise CheckpointError(f"is damaged: the header's entry of array {brief(name)} makes no sense")
