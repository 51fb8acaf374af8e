"""What is installed here: fastrnn's backends, other libraries, their versions, and the processor."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import platform
import sys
from pathlib import Path
from typing import Any

from thread_limits import CORES

from fastrnn import BackendUnavailable
from fastrnn.backends import BACKENDS, load

BACKEND_NAMES = tuple(BACKENDS)
LIBRARIES = ("torch", "jax", "onnxruntime")


class Unavailable(Exception):
    """A contender that is not installed here; the message says why."""


def library_of(contender: str) -> str:
    """A library that has several forms takes part with each: "jax, own backward" needs jax."""
    return contender.partition(",")[0]


def kind_of(contender: str) -> str:
    """What a row of results calls it."""
    if contender in BACKEND_NAMES:
        return "backend"
    return "peer" if library_of(contender) in LIBRARIES else "reference"


@functools.cache
def why_unavailable(contender: str) -> str | None:
    """Why `contender` cannot run here, or None when it can."""
    library = library_of(contender)
    try:
        if contender in BACKEND_NAMES:
            load(contender)
        elif library in LIBRARIES:
            for module in (library, "onnx") if library == "onnxruntime" else (library,):
                importlib.import_module(module)
    except (BackendUnavailable, ImportError) as error:
        return str(error)
    return None


def require(contender: str) -> None:
    """Refuse a contender that cannot run here.

    Raises
    ------
    Unavailable
    """
    reason = why_unavailable(contender)
    if reason is not None:
        raise Unavailable(f"{contender}: {reason}")


def machine() -> dict[str, Any]:
    """The processor and the versions, for the report."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("numpy", "numba", "scipy", "cython", "scikit-learn", *LIBRARIES):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"cpu": _cpu_model(), "cores": CORES, "versions": versions}


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in text.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    name = fields.get("model name", platform.machine())
    widest = [flag for flag in ("avx512f", "avx2") if flag in fields.get("flags", "").split()]
    return f"{name} ({widest[0]})" if widest else name
