"""Numba's options, each with its reason, and where compiled kernels are kept on disk.

Numba's own cache does not do here: its stamp covers one source file, so an edit of a helper would go
unnoticed; its files are numbered, so that two processes that start at once can take one another's; and
decorating raises an exception where no folder is writable.

The files are pickles, and to read one is to run it.  So they lie in a folder of their own that nobody
else can enter, whatever the umask says, and one that somebody else owns or may write to is not read.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import stat
import sys
import uuid
from pathlib import Path

import llvmlite
import numba
import numpy as np
from numba.core import config
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.extending import register_jitable
from numba.misc.appdirs import AppDirs

OPTIONS = {
    "nogil": True,  # threads that each run a sequence must not wait for each other
    "error_model": "numpy",  # a check for division by zero keeps loops from being vectorised
    # A multiplication and an addition may be fused.  Not "nnan" or "ninf": NaN must show; not
    # "reassoc": sums would depend on how the compiler unrolls.
    "fastmath": {"contract", "nsz"},
    "boundscheck": False,  # only checked arguments come here
    "no_cfunc_wrapper": True,  # nobody calls them from C; it would be compiled for nothing
    "_nrt": False,  # nothing is allocated: no references are counted when a loop takes a row
    # Never "parallel": its threading layers abort the process or kill a forked child.
}

_KERNELS = Path(__file__).parents[1]
_DIGEST_SIZE = hashlib.sha256().digest_size

#: Flags of `os.open`; systems that lack them do without.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)

#: Users who share the folder above have one each below it.
_USER = f"-{os.geteuid()}" if os.name == "posix" else ""


def kernel(function):
    """Compile at first use for each dtype, and keep the machine code on disk."""
    if config.DISABLE_JIT:  # machine code raises no floating-point warnings
        return np.errstate(all="ignore")(function)
    dispatcher = numba.njit(**OPTIONS)(function)
    dispatcher._cache = _KernelCache(function)
    return dispatcher


#: For helpers: compiled as a part of the kernel that calls them, and only there.
inlined = numba.njit(inline="always", **OPTIONS)

#: The same, for those that Python calls as well: there they stay as they are.
inlined_and_python = register_jitable(inline="always")


def ready(array):
    """An input as the compiled functions know it; a read-only one would have them all compiled once more."""
    flags = array.flags
    return array if flags.writeable and flags.c_contiguous else np.array(array, order="C")


def all_ready(arrays):
    """A tuple of them.  (Made of a list: one made of an iterator leaves its memory to Python at every call.)"""
    return tuple([ready(array) for array in arrays])


@functools.cache
def _source_hash():
    """Of all kernels and of what compiles them: an edit or an upgrade never meets old machine code."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    sources = sorted(_KERNELS.rglob("*.py"))
    if not sources:
        raise FileNotFoundError(f"no sources in {_KERNELS}")
    for path in sources:
        digest.update(path.relative_to(_KERNELS).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


@functools.cache
def _folders():
    """Where to look for machine code and to put it, the best place first."""
    if config.CACHE_DIR:
        roots = [Path(config.CACHE_DIR).absolute()]
    else:
        roots = [_KERNELS / "__pycache__", Path(AppDirs(appname="numba", appauthor=False).user_cache_dir)]
    try:
        # A relative one is a "~" that nobody could expand.
        return [root / f"fastrnn-{_source_hash()}{_USER}" for root in roots if root.is_absolute()]
    except OSError:  # no sources to read, as in a zip file: nothing to tell versions apart by
        return []


def cache_folder():
    """Folder in which compiled kernels are kept, or None where there is none that can be written."""
    if config.DISABLE_JIT:
        return None
    for folder in _folders():
        existing = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
        if existing == folder and not _is_ours(folder.lstat(), stat.S_IFDIR):
            continue
        if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
            return str(folder)
    return None


def _is_ours(status, kind):
    """Whether a file or folder is of that kind (so no link), and nobody but this user can have changed it.

    Windows keeps others out of a user's folders by lists of rights, which modes do not show.
    """
    if os.name != "posix":
        return stat.S_IFMT(status.st_mode) == kind
    others = stat.S_IWGRP | stat.S_IWOTH
    return (
        stat.S_IFMT(status.st_mode) == kind and status.st_uid == os.geteuid() and not status.st_mode & others
    )


def _read(folder, name):
    """Content of a file in a folder, both ours; raises OSError where they are not there or not ours."""
    if not _is_ours(folder.lstat(), stat.S_IFDIR):
        raise PermissionError(f"{folder} may be changed by others")
    # Not through a link, and not waiting for a pipe's other end.
    with os.fdopen(os.open(folder / name, os.O_RDONLY | _NO_LINK | _BINARY), "rb") as file:
        if not _is_ours(os.fstat(file.fileno()), stat.S_IFREG):
            raise PermissionError(f"{folder / name} may be changed by others")
        return file.read()


class _KernelCache(_Cache):
    """A file for each function, signature and processor, which is either whole or not there.

    What cannot be read, or is damaged, is compiled anew; what cannot be written is not kept.
    """

    def __init__(self, function):
        self._function = function
        self._enabled = True

    @property
    def cache_path(self):
        return cache_folder()

    def enable(self):
        self._enabled = True

    def disable(self):
        self._enabled = False

    def flush(self):
        for folder in _folders():
            for path in folder.glob(f"{self._function.__name__}-*"):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _name(self, signature, codegen):
        function = self._function
        key = repr((function.__module__, function.__qualname__, signature, codegen.magic_tuple()))
        digest = hashlib.sha256(key.encode()).hexdigest()[:20]
        return f"{function.__name__}-{sys.implementation.cache_tag}-{digest}.nbc"

    def load_overload(self, signature, target_context):
        target_context.refresh()
        if not self._enabled:
            return None
        name = self._name(signature, target_context.codegen())
        for folder in _folders():
            try:
                content = _read(folder, name)
            except OSError:
                continue
            digest, data = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
            if hashlib.sha256(data).digest() == digest:
                payload = pickle.loads(data)  # noqa: S301 - written by `save_overload`; nobody else can
                return CompileResult._rebuild(target_context, *payload)
        return None

    def save_overload(self, signature, result):
        if not self._enabled or result.library.has_dynamic_globals:
            return
        name = self._name(signature, result.codegen)
        data = dumps(result._reduce())
        content = hashlib.sha256(data).digest() + data
        for folder in _folders():
            try:
                _write(folder, name, content)
            except OSError:  # read-only, or full: the next place, or none
                continue
            return


def _write(folder, name, content):
    """Put a file in place whole, whoever else writes or reads it at the same time."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)  # a umask may have taken more away
    if not _is_ours(folder.lstat(), stat.S_IFDIR):
        raise PermissionError(f"{folder} may be changed by others")
    temporary = folder / f"{name}.{uuid.uuid4().hex}"
    try:
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600), "wb"
        ) as file:
            temporary.chmod(0o600)
            file.write(content)
        temporary.replace(folder / name)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
