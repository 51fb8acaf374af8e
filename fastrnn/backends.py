"""Which kernels run: the one place that chooses a backend.

A backend is a module of `fastrnn.kernels`.  One that is asked for by name and is missing raises
`BackendUnavailable`; only when nobody asked is each tried in turn.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING

from fastrnn.errors import BackendUnavailable, brief

if TYPE_CHECKING:
    from fastrnn.hints import BackendName

__all__ = ["backend", "set_backend", "use_backend"]

#: Environment variable that names the backend to use.
ENVIRONMENT_VARIABLE = "FASTRNN_BACKEND"

#: Environment variable that names the instruction set of the Cython kernels.
SIMD_VARIABLE = "FASTRNN_SIMD"

#: The instruction set of Cython kernels that a compiler without vector extensions built.
SCALAR = "scalar"

#: Backend name -> (module, how to get it), in the order in which they are tried when none is named.
BACKENDS = {
    "cython": (
        "fastrnn.kernels.cython_kernels",
        "it is built at install time when a C compiler is there: install one, then "
        "'FASTRNN_CYTHON=1 pip install --force-reinstall --no-deps fastrnn' shows why it fails",
    ),
    "numba": ("fastrnn.kernels.numba_kernels", "'pip install numba'"),
    "numpy": ("fastrnn.kernels.numpy_kernels", "'pip install numpy'"),
}

_loaded: dict[str, ModuleType] = {}
_process_wide: ModuleType | None = None
_in_context: ContextVar[ModuleType | None] = ContextVar("fastrnn_backend", default=None)


def load(name: BackendName | str) -> ModuleType:
    """Import the kernels of the backend called `name`.

    Parameters
    ----------
    name : {"cython", "numba", "numpy"}

    Returns
    -------
    module

    Raises
    ------
    ValueError
        If no backend has that name.
    BackendUnavailable
        If it exists but cannot be imported here.
    """
    module = _loaded.get(name) if isinstance(name, str) else None
    if module is None:
        if not isinstance(name, str) or name not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))}, got {brief(name)}")
        path, remedy = BACKENDS[name]
        try:
            module = importlib.import_module(path)
        except ImportError as error:
            raise BackendUnavailable(
                f"backend {name!r} is not available ({error}); how to get it: {remedy}"
            ) from error
        _loaded[name] = module
    return module


def kernels(name: str | None = None) -> ModuleType:
    """Kernels of the backend called `name`, or of the one in use when `name` is None."""
    if name is not None:
        return load(name)
    return _in_context.get() or _process_wide or _choose()


def _choose() -> ModuleType:
    """Take the backend that the environment names, else the first that can be imported."""
    asked = os.environ.get(ENVIRONMENT_VARIABLE)
    if asked:
        try:
            chosen = load(asked)
        except ValueError as error:
            raise ValueError(f"environment variable {ENVIRONMENT_VARIABLE}: {error}") from None
    else:
        chosen = _first_available()
    global _process_wide
    _process_wide = chosen
    return chosen


def _first_available() -> ModuleType:
    """The first that can be imported; but Numba's kernels before Cython kernels without vectors."""
    simd_asked = bool(os.environ.get(SIMD_VARIABLE))  # an instruction set, which only Cython's kernels have
    reasons = []
    scalar = None
    for name in BACKENDS:
        if scalar is not None and name != "numba":
            continue
        try:
            module = load(name)
        except BackendUnavailable as error:
            if name == "cython" and simd_asked:
                raise
            reasons.append(str(error))
            continue
        if name == "cython" and not simd_asked and module.simd_level() == SCALAR:
            scalar = module
        else:
            return module
    if scalar is not None:
        return scalar
    raise BackendUnavailable("; ".join(reasons))


def backend() -> BackendName:
    """Name of the backend in use.

    Returns
    -------
    {"cython", "numba", "numpy"}
        In this order: the one of the innermost `use_backend`, the one given to `set_backend`, the
        one in the environment variable ``FASTRNN_BACKEND``, the first of ``"cython"``,
        ``"numba"``, ``"numpy"`` that can be imported.  Where a compiler without vector extensions
        built the Cython kernels (`fastrnn.show_config` says so), ``"numba"`` comes first.

    Raises
    ------
    BackendUnavailable
        If the environment names one that is not available.

    Examples
    --------
    >>> import fastrnn
    >>> with fastrnn.use_backend("numpy"):
    ...     fastrnn.backend()
    'numpy'
    """
    name: BackendName = kernels().NAME
    return name


def set_backend(name: BackendName | None) -> None:
    """Use the backend called `name` from now on, in every thread of this process.

    Parameters
    ----------
    name : {"cython", "numba", "numpy"} or None
        None returns to the environment's or the default choice.

    Raises
    ------
    ValueError
        If no backend has that name.
    BackendUnavailable
        If it is not available; the backend in use stays as it was.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.set_backend("numpy")
    >>> fastrnn.backend()
    'numpy'
    >>> fastrnn.set_backend(None)
    """
    global _process_wide
    _process_wide = None if name is None else load(name)


@contextlib.contextmanager
def use_backend(name: BackendName) -> Iterator[None]:
    """Use the backend called `name` inside a ``with`` block, in this thread only.

    Parameters
    ----------
    name : {"cython", "numba", "numpy"}

    Yields
    ------
    None
        Until the block ends, which brings back the backend that was in use before it.

    Raises
    ------
    ValueError
        If no backend has that name.
    BackendUnavailable
        If it is not available.

    Examples
    --------
    >>> import fastrnn
    >>> with fastrnn.use_backend("numpy"):
    ...     rnn = fastrnn.SimpleRNN(4, 8, 4)
    """
    token = _in_context.set(load(name))
    try:
        yield
    finally:
        _in_context.reset(token)
