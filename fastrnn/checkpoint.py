"""Checkpoints: arrays and what else a model is, in one safetensors file that is whole or not there.

The file is one that any safetensors reader opens.  Its metadata hold

- ``format``: ``"fastrnn"``;
- ``format_version``: a whole number, `FORMAT_VERSION` as written here;
- ``content``: JSON of everything that is no array;
- ``sha256``: hexadecimal digest over all of the above and every array.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn
from fastrnn.errors import CheckpointError

__all__ = ["CheckpointError", "check_writable", "read_checkpoint", "write_checkpoint"]

FORMAT = "fastrnn"
FORMAT_VERSION = 1

#: Ends the name of the checkpoint that was there before the last one.
PREVIOUS = ".previous"

#: Longest header that safetensors allows.
_HEADER_LIMIT = 100_000_000

#: Bytes of each type of number in safetensors' words.
_ITEM_SIZES = {"F32": 4, "F64": 8}

#: Dimensions of an array at most; no model has more than three.
_MOST_DIMENSIONS = 8

#: Seconds after which a temporary file is one that a killed process left.
_STALE = 600


def write_checkpoint(
    path: str | os.PathLike[str], content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a checkpoint whole or not at all.

    The file is written beside its place under another name, forced to the disk, and moved there.  A
    checkpoint that was there is kept as ``<path>.previous``.  Whenever the process is killed, `path`
    names a complete file, the old or the new one, if it named one before.

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
    with _saying_what_failed(path), _temporary_file(place) as temporary:
        try:
            serialized = save(arrays, metadata)
        except SafetensorError as error:
            raise OSError(errno.EFBIG, f"what is no array takes {len(text)} characters ({error})") from None
        _check_place(place)
        with temporary.open("xb") as file:
            file.write(serialized)
            file.flush()
            os.fsync(file.fileno())
        _keep_previous(place)
        temporary.replace(place)
        _force_to_disk(place.parent)
    _remove_stale(place)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise the `OSError` now that `write_checkpoint` would raise after hours of work."""
    place = Path(os.path.realpath(path))
    with _saying_what_failed(path), _temporary_file(place) as temporary:
        _check_place(place)
        temporary.open("xb").close()


def _check_place(place: Path) -> None:
    """Refuse to put a file in the place of what is none, such as a device."""
    if place.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if place.exists() and not place.is_file():
        raise OSError(errno.EINVAL, "it is there, and is not a regular file")


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


def _keep_previous(place: Path) -> None:
    """Give the file at `place`, which stays there, a second name."""
    if not place.exists():
        return
    with _temporary_file(place) as temporary:
        try:
            os.link(place, temporary)
        except OSError:  # a file system without hard links
            import shutil

            shutil.copyfile(place, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(place.with_name(place.name + PREVIOUS))


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
        previous = os.path.realpath(name) + PREVIOUS if Path(name).is_symlink() else name + PREVIOUS
        if Path(previous).exists():
            message += f"; the one before it is {previous!r}"
        raise CheckpointError(message) from None
    except OSError as error:
        raise OSError(error.errno, f"cannot read checkpoint {name!r}: {error.strerror or error}") from None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """`read_checkpoint`, whose messages lack the name of the file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(9)
        if not start:
            raise CheckpointError("is empty")
        length = int.from_bytes(start[:8], "little")
        if len(start) < 9 or start[8:] != b"{" or length > _HEADER_LIMIT:
            raise CheckpointError("is not a checkpoint of fastrnn (not a safetensors file)")
        if length > size - 8:
            raise CheckpointError(f"is truncated: its header takes {length} bytes and {size - 8} are there")
        header = b"{" + file.read(length - 1)
        metadata = _check_header(header, size - 8 - length)
        serialized = start[:8] + header + file.read(size - 8 - length)
    if len(serialized) != size:
        raise CheckpointError("changed while it was read")
    try:
        arrays = load(serialized)
    except SafetensorError as error:
        raise CheckpointError(f"is damaged: {error}") from None
    if _digest(metadata["content"], arrays) != metadata["sha256"]:
        raise CheckpointError("was altered or damaged: its SHA-256 does not agree with what it holds")
    content = _parse(metadata["content"])
    if not isinstance(content, dict):
        raise CheckpointError("is damaged: its content is not a JSON object")
    return content, arrays


def _parse(text: str | bytes) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"is damaged: its header is not JSON ({error})") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name comes twice")
    return members


def _check_header(header: bytes, size: int) -> dict[str, str]:
    """Check a header against the `size` of the data that follow it; return the metadata."""
    entries = _parse(header)
    metadata = entries.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise CheckpointError("is a safetensors file, but not a checkpoint of fastrnn")
    version = metadata.get("format_version")
    if not isinstance(version, str) or not version.isascii() or not version.isdigit() or len(version) > 9:
        raise CheckpointError("is damaged: it has no format version")
    if int(version) > FORMAT_VERSION:
        raise CheckpointError(
            f"has format {version}, and fastrnn {fastrnn.__version__} reads up to {FORMAT_VERSION}: "
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
    return metadata


def _extent(name: str, entry: Any) -> tuple[int, int]:
    """First byte of an array and the one after its last."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(stop)]} if (
            dtype in _ITEM_SIZES
            and len(shape) <= _MOST_DIMENSIONS
            and all(type(n) is int and n >= 0 for n in shape)
            # NumPy's bound, of empty arrays too.
            and math.prod(n or 1 for n in shape) * _ITEM_SIZES[dtype] < 2**63
            and type(begin) is type(stop) is int
            and stop - begin == math.prod(shape) * _ITEM_SIZES[dtype]
        ):
            return begin, stop
    raise CheckpointError(f"is damaged: the header's entry of array {name!r} makes no sense")
