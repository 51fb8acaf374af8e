"""A copy of the sources to work on, and the package in it as it would be installed.

The copy has what Git would take.  `installed` is put first on ``PYTHONPATH``: the tests, and the processes that they
start, import the package from there, however it is installed in the environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from page import ROOT


@dataclass(frozen=True)
class Copy:
    """Folders below one that is removed at the end."""

    folder: Path

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def installed(self) -> Path:
        return self.folder / "installed"

    @property
    def package(self) -> Path:
        return self.installed / "fastrnn"

    def environment(self, **more: str) -> dict[str, str]:
        """Of a process that imports the package from here; what chooses kernels or threads is not taken over."""
        chosen = ("FASTRNN_BACKEND", "FASTRNN_SIMD", "NUMBA_DISABLE_JIT", "NUMBA_CACHE_DIR", "CI")
        kept = {name: value for name, value in os.environ.items() if name not in chosen}
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        return {**kept, **alone, "PYTHONPATH": str(self.installed), **more}


def listed() -> list[str]:
    """Files that Git has or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in shown.stdout.split("\0") if name and (ROOT / name).is_file()]


def copy_sources(folder: Path) -> Copy:
    """Copy them, without anything that was built."""
    made = Copy(folder)
    for name in listed():
        place = made.tree / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place)
    return made


def install(made: Copy, kernels: Path | None = None) -> None:
    """Put the package together, with the compiled kernels that lie in a folder, by default those that are installed."""
    if kernels is None:
        import fastrnn.kernels

        kernels = Path(fastrnn.kernels.__file__).parent
    shutil.copytree(made.tree / "fastrnn", made.package)
    shutil.copytree(
        made.tree / "kernels", made.package / "kernels", ignore=shutil.ignore_patterns("csrc", "*.px?")
    )
    built = [*kernels.glob("cython_kernels*.so"), *kernels.glob("cython_kernels*.pyd")]
    if not built:
        raise SystemExit(f"{kernels} has no compiled kernels: run 'make build'")
    for file in [*built, *kernels.glob("build_info.json")]:
        shutil.copy2(file, made.package / "kernels")
