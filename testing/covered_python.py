"""Which lines and branches of the Python code the tests reach, by coverage.py.

Two runs are added up: the tests as ``make test`` runs them, on two processes where pytest-xdist is there; and those of
the kernels with ``NUMBA_DISABLE_JIT=1``, where Numba's loops are Python and the NumPy formula of each routine stands in
for the instructions that it emits.  (The code that emits them runs at compile time, in the first run: it
starts without machine code on disk.)  Processes that tests start count too.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from copied import Copy, copy_sources, install
from covered_files import Reached

#: Tests that reach every loop of Numba's kernels with sizes that are small enough for Python.
INTERPRETED = (
    "test_batched_kernels.py", "test_kernels.py", "test_optim.py", "test_optim_rmsprop.py", "test_steps.py",
    "test_recompute.py", "test_numba_code.py", "test_simple_random.py", "test_one_sequence_threads.py",
)  # fmt: skip

#: Of these, without those that run for minutes in Python and reach nothing more.
CHOSEN = "numba and not allocated and not many_steps"

#: Tests that cannot pass while lines are traced: an exception that is thrown into a thread has CPython 3.11 run in
#: circles there, and coverage.py takes memory, which does not go with a thread, imports modules, and opens files.
UNTRACED = (
    "helper_that_dies", "exception_thrown_into_a_helper", "work_space_goes_with_its_thread", "allocates_nothing",
    "imports_nothing", "is_imported_when", "test_numba_cache.py and full_disk",
)  # fmt: skip

#: What is left out, and why.
EXCLUDED = (
    # Windows only: nothing else runs it
    r"^\s*if (sys\.platform == .win32.|os\.name == .nt.|os\.name != .posix.):",
    # for type checkers, which is not run
    r"^\s*if _?TYPE_CHECKING:",
    r"^\s*@overload",
    r"^\s*(def .*: )?\.\.\.$",
    # methods that a subclass must have
    r"^\s*raise NotImplementedError$",
)

#: Processes that tests start write nothing of coverage.py's to their standard error, which tests read.
SETTINGS = """\
[run]
branch = true
parallel = true
source = {source}
data_file = {data}
patch = subprocess, _exit, fork
disable_warnings =
    no-data-collected
    module-not-imported
    module-not-measured
    already-imported
    couldnt-parse
[report]
exclude_also =
    {excluded}
"""


def write_settings(made: Copy) -> Path:
    """The configuration of coverage.py."""
    file = made.folder / "coverage.ini"
    excluded = "\n    ".join(EXCLUDED)
    (made.folder / "data").mkdir()
    file.write_text(
        SETTINGS.format(source=made.package, data=made.folder / "data/.coverage", excluded=excluded)
    )
    return file


def run_tests(made: Copy, settings: Path, arguments: list[str], **environment: str) -> str:
    """Run pytest under coverage.py; its last line, with the names of what failed before it."""
    command = [
        sys.executable,
        "-m",
        "coverage",
        "run",
        f"--rcfile={settings}",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, *arguments], cwd=made.tree, env=made.environment(**environment), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    return "\n".join([line for line in lines if line.startswith(("FAILED", "ERROR"))] + lines[-1:])


def report(made: Copy, settings: Path) -> dict[str, Any]:
    """What coverage.py says of each file."""
    said = made.folder / "coverage.json"
    for arguments in (["combine", "-q"], ["json", "-q", "-o", str(said)]):
        command = [sys.executable, "-m", "coverage", *arguments, f"--rcfile={settings}"]
        subprocess.run(command, cwd=made.tree, env=made.environment(), check=True)
    files: dict[str, Any] = json.loads(said.read_text())["files"]
    return files


def spoken(start: int, end: int) -> str:
    """A branch; coverage.py has negative numbers for the end of a function."""
    return f"{start}->{end if end > 0 else 'exit'}"


def reached(file: str, said: dict[str, Any], made: Copy) -> Reached:
    name = (made.tree / file).resolve().relative_to(made.package.resolve())
    shown = str(name) if name.parts[0] == "kernels" else f"fastrnn/{name.as_posix()}"
    summary, lines = said["summary"], set(said["missing_lines"])
    branches = [b for b in said["missing_branches"] if b[0] not in lines and b[1] not in lines]
    return Reached(
        shown,
        summary["num_statements"] + summary["num_branches"],
        summary["covered_lines"] + summary["covered_branches"],
        sorted(lines),
        [spoken(*branch) for branch in branches],
    )


def measure(folder: Path, jobs: int) -> list[Reached]:
    """Run the tests in `folder` and say what they reached."""
    made = copy_sources(folder)
    install(made)
    settings = write_settings(made)
    shared = (
        ["-n", str(jobs), "--dist", "worksteal"] if jobs > 1 and importlib.util.find_spec("xdist") else []
    )
    traced = " and ".join(f"not ({name})" for name in UNTRACED)
    print(
        "the tests:",
        run_tests(made, settings, [*shared, "-k", traced, "tests"], NUMBA_CACHE_DIR=str(folder / "numba")),
        flush=True,
    )
    kernels = [f"tests/{name}" for name in INTERPRETED]
    print(
        "Numba's kernels interpreted:",
        run_tests(made, settings, [*kernels, "-k", CHOSEN], NUMBA_DISABLE_JIT="1"),
        flush=True,
    )
    return [reached(file, said, made) for file, said in report(made, settings).items()]
