"""Numba's options, each with its reason, and where compiled kernels are kept on disk.

Numba's own cache does not do here: its stamp covers one source file, so an edit of a helper would go
unnoticed; its files are numbered, so that two processes that start at once can take one another's; and
decorating raises an exception where no folder is writable.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import sys
import uuid
from pathlib import Path

import llvmlite
import numba
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
    # Never "parallel": its threading layers abort the process or kill a forked child.
}

_HERE = Path(__file__).parent
_DIGEST_SIZE = hashlib.sha256().digest_size


def kernel(function):
    """Compile at first use for each dtype, and keep the machine code on disk."""
    dispatcher = numba.njit(**OPTIONS)(function)
    if not config.DISABLE_JIT:
        dispatcher._cache = _KernelCache(function)
    return dispatcher


#: For helpers: compiled as a part of the kernel that calls them, and only there.
inlined = numba.njit(inline="always", **OPTIONS)

#: The same, for those that Python calls as well: there they stay as they are.
inlined_and_python = register_jitable(inline="always")


@functools.cache
def _source_hash():
    """Of all kernels and of what compiles them: an edit or an upgrade never meets old machine code."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    sources = sorted(_HERE.glob("*.py"))
    if not sources:
        raise FileNotFoundError(f"no sources in {_HERE}")
    for path in sources:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


@functools.cache
def _folders():
    """Where to look for machine code and to put it, the best place first."""
    if config.CACHE_DIR:
        roots = [Path(config.CACHE_DIR).absolute()]
    else:
        roots = [_HERE / "__pycache__", Path(AppDirs(appname="numba", appauthor=False).user_cache_dir)]
    try:
        # A relative one is a "~" that nobody could expand.
        return [root / f"fastrnn-{_source_hash()}" for root in roots if root.is_absolute()]
    except OSError:  # no sources to read, as in a zip file: nothing to tell versions apart by
        return []


def cache_folder():
    """Folder in which compiled kernels are kept, or None where there is none that can be written."""
    for folder in _folders():
        existing = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
        if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
            return str(folder)
    return None


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
        key = repr((self._function.__qualname__, signature, codegen.magic_tuple()))
        digest = hashlib.sha256(key.encode()).hexdigest()[:20]
        return f"{self._function.__name__}-{sys.implementation.cache_tag}-{digest}.nbc"

    def load_overload(self, signature, target_context):
        target_context.refresh()
        if not self._enabled:
            return None
        name = self._name(signature, target_context.codegen())
        for folder in _folders():
            try:
                content = (folder / name).read_bytes()
            except OSError:
                continue
            digest, data = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
            if hashlib.sha256(data).digest() == digest:
                payload = pickle.loads(data)  # noqa: S301 - written by `save_overload`, in the user's own folder
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
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{name}.{uuid.uuid4().hex}"
    try:
        temporary.write_bytes(content)
        temporary.replace(folder / name)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
