"""What runs here and why: `show_config`; and `warmup`, which pays the first use's price at once."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from fastrnn import backends
from fastrnn._version import __version__
from fastrnn.checks import check_choice, check_dtype
from fastrnn.cores import usable_cores
from fastrnn.errors import BackendUnavailable

if TYPE_CHECKING:
    from fastrnn.hints import BackendName, Dtype, ShowMode

__all__ = ["show_config", "usable_cores", "warmup"]

#: Variables that change what runs, or on how many threads; shown when they are set.
_VARIABLES = (
    backends.ENVIRONMENT_VARIABLE,
    "FASTRNN_SIMD",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_CACHE_DIR",
    "NUMBA_DISABLE_JIT",
)

_DTYPES: tuple[Dtype, ...] = ("float64", "float32")


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dict"]) -> dict[str, Any]: ...
def show_config(mode: ShowMode = "stdout") -> dict[str, Any] | None:
    """Print versions, backends and why one is missing, instruction set, cores, BLAS, cache folder.

    Parameters
    ----------
    mode : {"stdout", "dict"}, default "stdout"
        Print the configuration, or return it.

    Returns
    -------
    dict or None
        None when it was printed.  Else a dict with the keys ``"versions"`` (name -> version or
        None), ``"backends"`` (name -> dict with ``"available"`` and ``"detail"``),
        ``"backend"`` (the one in use, or None when none can be used), ``"backend_error"``,
        ``"build"`` (the record of the Cython build), ``"simd"`` (their instruction set, or None;
        ``"scalar"`` where the compiler had no vector extensions), ``"cores"``, ``"blas"``,
        ``"numba_cache"`` and ``"environment"``.

    Raises
    ------
    TypeError, ValueError
        If `mode` is neither of the two.

    Notes
    -----
    Numba is not imported to be shown when the Cython kernels are in use: "found" then means that it
    is installed, not that it was tried.

    Examples
    --------
    >>> import fastrnn
    >>> config = fastrnn.show_config(mode="dict")
    >>> config["backends"]["numpy"]["available"]
    True
    >>> config["backend"] == fastrnn.backend()
    True
    """
    check_choice(mode, "mode", ("stdout", "dict"))
    config = _collect()
    if mode == "dict":
        return config
    print("\n".join(_lines(config)))
    return None


def warmup(dtype: Dtype | None = None, *, backend: BackendName | None = None, verbose: bool = False) -> None:
    """Compile every kernel now, or load it from the cache, so that no later call waits for it.

    Only Numba's kernels are compiled at first use; with the other backends this takes next to no
    time.  NumPy's global random stream is left as it is.

    Parameters
    ----------
    dtype : {float64, float32} or None
        The dtype to get ready; None for both.
    backend : {"cython", "numba", "numpy"} or None
        None is the one in use, see `fastrnn.backend`.
    verbose : bool, default False
        Show a progress bar on standard error.

    Raises
    ------
    TypeError, ValueError
        If `dtype` or `backend` is not one of the above.
    BackendUnavailable
        If the backend that was named is missing.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.warmup("float32", backend="numpy")
    """
    dtypes: tuple[Any, ...] = _DTYPES if dtype is None else (check_dtype(dtype).name,)
    kernels = backends.kernels(backend)
    steps = [step for name in dtypes for step in _warmup_steps(name, kernels.NAME)]
    if not verbose:
        for _, run in steps:
            run()
        return
    from tqdm import tqdm

    from fastrnn.terminal import for_progress

    with tqdm(steps, desc=f"warm-up ({kernels.NAME})", unit="kernel", file=for_progress(sys.stderr)) as bar:
        for label, run in bar:
            bar.set_postfix_str(label)
            run()


def _warmup_steps(dtype: Dtype, backend: BackendName) -> list[tuple[str, Callable[[], object]]]:
    """Label and call of each public operation, on a model so small that only compiling takes time."""
    from fastrnn import optim
    from fastrnn.gated import LSTM
    from fastrnn.language_model import LanguageModel
    from fastrnn.layers import RNN
    from fastrnn.simple import SimpleRNN

    rnn = SimpleRNN(2, 2, 2, dtype=dtype, rng=0, backend=backend)
    h = np.zeros((2, 1), dtype)
    indices, targets = [0, 1], [1, 0]
    vectors = np.eye(2, dtype=dtype)

    def notes_loop(inputs: Any) -> None:
        rnn.update_weights(rnn.backward(*rnn.forward(inputs, h), targets))

    layer = RNN(2, 2, dtype=dtype, rng=0, backend=backend)
    model = LanguageModel(2, 2, dtype=dtype, rng=0, backend=backend)
    gated = LSTM(2, 2, dtype=dtype, rng=0, backend=backend)  # whose kernels are those of a GRU too
    gated_model = LanguageModel(2, 2, cell="lstm", dtype=dtype, rng=0, backend=backend)
    batch = np.zeros((2, 2), np.int64)
    optimizers = [
        kind(lr=0.1, backend=backend) for kind in optim.OPTIMIZERS.values() if isinstance(kind, type)
    ]

    return [
        (f"forward, {dtype}", lambda: rnn.forward(indices, h)),
        (f"forward of vectors, {dtype}", lambda: rnn.forward(vectors, h)),
        (f"backward, {dtype}", lambda: notes_loop(indices)),
        (f"backward of vectors, {dtype}", lambda: notes_loop(vectors)),
        *[
            (
                f"train_step, clip={clip}, {dtype}",
                lambda clip=clip: rnn.train_step(indices, targets, h, clip=clip),
            )
            for clip in ("step", "value", "norm", None)
        ],
        (f"train_step of vectors, {dtype}", lambda: rnn.train_step(vectors, targets, h)),
        (f"sample, {dtype}", lambda: rnn.sample(h, 0, 2, rng=0)),
        *[
            (
                f"RNN, {T} steps of {N}, {dtype}",
                lambda T=T, N=N: layer.backward(layer.forward(np.zeros((T, N, 2), dtype))[0]),
            )
            for T, N in ((1, 1), (8, 1), (8, 2))
        ],
        *[
            (
                f"LanguageModel.train_step, {type(optimizer).__name__}, {dtype}",
                lambda optimizer=optimizer: model.train_step(batch, batch, None, optimizer),
            )
            for optimizer in optimizers
        ],
        (f"LanguageModel.sample, {dtype}", lambda: model.sample(None, [0, 1], 2, rng=0)),
        (
            f"gates, {dtype}",
            lambda: gated.backward(gated.forward(np.zeros((8, 2, 2), dtype))[0]),
        ),
        (f"sample with gates, {dtype}", lambda: gated_model.sample(None, [0, 1], 2, rng=0)),
    ]


# -- what show_config collects -------------------------------------------------------------------


def _collect() -> dict[str, Any]:
    try:
        in_use, error = backends.backend(), None
    except (BackendUnavailable, ValueError) as raised:
        in_use, error = None, str(raised)
    build = _build_record()
    cython = _loaded("cython")
    return {
        "versions": {
            "fastrnn": __version__,
            "Python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.platform()})",
            **{name: _version(name) for name in ("numpy", "numba", "scipy")},
        },
        "backends": {name: _found(name, in_use, build) for name in backends.BACKENDS},
        "backend": in_use,
        "backend_error": error,
        "build": build,
        "simd": cython.simd_level() if cython is not None else None,
        "cores": {"usable": usable_cores(), "machine": os.cpu_count()},
        "blas": _blas(),
        "numba_cache": _numba_cache(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _loaded(name: str) -> Any:
    """Kernels of a backend, or None where it is missing."""
    try:
        return backends.load(name)
    except BackendUnavailable:
        return None


def _found(name: str, in_use: str | None, build: dict[str, Any]) -> dict[str, Any]:
    """Whether a backend is there, and what is known about it."""
    if name == "numba" and in_use == "cython" and not _numba_kernels():
        if importlib.util.find_spec("numba") is None:
            return {"available": False, "detail": "Numba is not installed"}
        return {"available": True, "detail": "found, not loaded"}
    try:
        backends.load(name)
    except BackendUnavailable as error:
        reason = build["reason"] if name == "cython" and not build["built"] else None
        return {"available": False, "detail": reason or str(error)}
    if name == "cython":
        return {"available": True, "detail": _how_built(build)}
    return {"available": True, "detail": ""}


def _how_built(build: dict[str, Any]) -> str:
    if not build["built"]:
        return "built by hand: there is no record of how"
    return f"{build['compiler']}, {' '.join(build['flags'])}, Cython {build['cython']}"


def _build_record() -> dict[str, Any]:
    """What setup.py wrote beside the kernels when they were installed."""
    from fastrnn import kernels

    file = Path(kernels.__file__).parent / "build_info.json"
    record: dict[str, Any] = {"built": False, "compiler": None, "flags": [], "cython": None}
    try:
        loaded = json.loads(file.read_text(encoding="utf-8"))
        return {name: loaded[name] for name in (*record, "reason")}
    except FileNotFoundError:
        reason = (
            f"fastrnn was imported from {file.parents[1]}, where it was not built: install it there "
            f"with 'pip install -e .', or start from another folder to use an installed copy"
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"the record of the build, {file}, cannot be read: {error!r}"
    return {**record, "reason": reason}


def _blas() -> str | None:
    """BLAS that NumPy was built with."""
    try:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}"
    except (KeyError, TypeError):
        return None


def _numba_kernels() -> dict[str, Any]:
    """What the module of the Numba kernels holds; nothing when it is not loaded."""
    module = sys.modules.get(backends.BACKENDS["numba"][0])
    return {} if module is None else vars(module)


def _numba_cache() -> str | None:
    """Where Numba keeps the compiled kernels; None when it is not loaded or keeps them nowhere."""
    cache_folder = _numba_kernels().get("cache_folder")
    return None if cache_folder is None else cache_folder()


def _lines(config: dict[str, Any]) -> list[str]:
    """The configuration as people read it."""
    versions = [(name, version or "not installed") for name, version in config["versions"].items()]
    found = [
        (name, ("available" if info["available"] else "missing") + (info["detail"] and f": {info['detail']}"))
        for name, info in config["backends"].items()
    ]
    cores = config["cores"]
    facts = [
        ("backend in use", config["backend"] or f"none: {config['backend_error']}"),
        ("SIMD level", _simd_text(config["simd"])),
        ("cores", f"{cores['usable']} usable by this process, {cores['machine']} in the machine"),
        ("NumPy's BLAS", config["blas"] or "unknown"),
        ("Numba's cache", config["numba_cache"] or _no_cache()),
        *config["environment"].items(),
    ]
    width = max(len(name) for name, _ in [*versions, *found, *facts])
    return [
        *(f"{name:<{width}}  {text}" for name, text in versions),
        "",
        *(f"{name:<{width}}  {text}" for name, text in found),
        "",
        *(f"{name:<{width}}  {text}" for name, text in facts),
    ]


def _simd_text(level: str | None) -> str:
    if level == backends.SCALAR:
        return "scalar: built by a compiler without vector extensions (such as MSVC); Numba is preferred"
    return level or "chosen by Numba or NumPy"


def _no_cache() -> str:
    if _numba_kernels():
        return "none: nothing was compiled yet, or no folder is writable"
    return "not looked at: Numba's kernels are not loaded"
