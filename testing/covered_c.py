"""Which lines of the C code the tests reach, by gcov.

The kernels are built for it, and their tests run once at each instruction set of the processor.  One header is
compiled for each instruction set and dtype: a line counts as reached where any of them ran it.  What the compiler was not given,
as what is for Windows, does not count; neither does the C code that Cython writes.
"""

from __future__ import annotations

import collections
import json
import shutil
import subprocess
import sys
from pathlib import Path

from copied import Copy, copy_sources, install
from covered_files import Reached

#: Run at every instruction set.
KERNELS = ("test_batched_kernels.py", "test_kernels.py")

#: Run at the widest alone: threads, optimizers, and what copies or checks what users give.
REST = (
    "test_optim.py", "test_optim_rmsprop.py", "test_one_sequence_threads.py", "test_contract.py",
    "test_sequence_model.py", "test_language_model.py", "test_threads.py", "test_simple_random.py",
    "test_cython_wake_times.py", "test_divergence.py", "test_gated.py",
)  # fmt: skip

#: Every line keeps its code.
FLAGS = "-O0 --coverage"


def build(made: Copy) -> None:
    """Compile the kernels in the copy, and put the package together with them."""
    if shutil.which("gcc") is None or shutil.which("gcov") is None:
        raise SystemExit("GCC and its gcov are needed")
    environment = made.environment(CC="gcc", FASTRNN_CYTHON="1", FASTRNN_CFLAGS=FLAGS)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(
        command,
        cwd=made.tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the kernels were not built:\n{done.stdout}")
    install(made, made.tree / "kernels")


def levels(made: Copy) -> list[str]:
    """Instruction sets of this processor, the widest last."""
    code = "from fastrnn.kernels import cython_kernels; print(*cython_kernels.simd_levels())"
    command = [sys.executable, "-c", code]
    shown = subprocess.run(
        command, cwd=made.folder, env=made.environment(), capture_output=True, text=True, check=True
    )
    return shown.stdout.split()


def run_tests(made: Copy, names: tuple[str, ...], level: str) -> str:
    """Run these tests of the Cython kernels; the last line of what pytest says, after the names of what failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "cython or simd"]
    done = subprocess.run(
        [*command, *(f"tests/{name}" for name in names if (made.tree / "tests" / name).exists())],
        cwd=made.tree, env=made.environment(FASTRNN_SIMD=level), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    return "\n".join([line for line in lines if line.startswith(("FAILED", "ERROR"))] + lines[-1:])


def counts(made: Copy) -> dict[str, dict[int, int]]:
    """File -> line -> how often it ran, in the build that ran it most often."""
    found: dict[str, dict[int, int]] = collections.defaultdict(lambda: collections.defaultdict(int))
    for data in made.tree.glob("build/**/csrc/*.gcda"):
        command = ["gcov", "--json-format", "--stdout", str(data)]
        shown = subprocess.run(command, cwd=made.tree, capture_output=True, text=True, check=True)
        for file in (file for line in shown.stdout.splitlines() for file in json.loads(line)["files"]):
            place = Path(file["file"])
            if place.parent.name != "csrc":
                continue
            for line in file["lines"]:
                number = line["line_number"]
                found[place.name][number] = max(found[place.name][number], line["count"])
    return found


def reached(name: str, lines: dict[int, int]) -> Reached:
    missing = sorted(number for number, count in lines.items() if not count)
    return Reached(f"kernels/csrc/{name}", len(lines), len(lines) - len(missing), missing)


def measure(folder: Path) -> list[Reached]:
    """Build the kernels in `folder`, run their tests and say what they reached."""
    made = copy_sources(folder)
    build(made)
    there = levels(made)
    for level in there:
        asked = "" if level == there[-1] else level  # the widest is chosen by itself
        print(f"the kernels with {level}:", run_tests(made, KERNELS, asked), flush=True)
    print(f"threads and optimizers with {there[-1]}:", run_tests(made, REST, ""), flush=True)
    return [reached(name, lines) for name, lines in sorted(counts(made).items())]
