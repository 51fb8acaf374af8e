"""Put one fault at a time into a copy of fastrnn, and see that the program which is there for it finds it.

    python testing/planted.py                 # all of them; those in C are compiled first, minutes each
    python testing/planted.py --only fsync    # those with this word in their name
    python testing/planted.py --write         # and the table into docs/testing.md

Ends with status 1 when a fault was not found.  A program that fails without the fault finds nothing: it is run on the
copy as it is at first.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import page
from copied import Copy, copy_sources, install

SANITIZED = (sys.executable, "testing/sanitized.py", "{installed}", sys.executable)
KERNEL_TESTS = (*SANITIZED, "-m", "pytest", "-q", "-x", "tests/test_batched_kernels.py", "-k", "cython")
FUZZ_API = (*SANITIZED, "testing/fuzz_api.py", "--seconds", "300", "--backend", "cython")
FUZZ_FILES = (sys.executable, "testing/fuzz_files.py")
KILL_WRITES = (sys.executable, "testing/kill_writes.py")
ULPS = (sys.executable, "testing/ulps.py", "--quick", "--backend", "numba")
TEAMS = (sys.executable, "-m", "pytest", "-q", "-x", "tests/test_team.py", "-k", "hard_driven and sanitized")


@dataclass(frozen=True)
class Fault:
    """A fault, and who is there for it.

    Attributes
    ----------
    name : str
    file : str
    right, wrong : str
        A piece of the file that is there once, and what takes its place.
    command : tuple of str
        Run in the copy; must fail.
    step : str
        Of ``.ci/run``, that runs this.
    """

    name: str
    file: str
    right: str
    wrong: str
    command: tuple[str, ...]
    step: str


FAULTS = (
    Fault(
        "a kernel's tail writes one element too many",
        "kernels/csrc/rows.h",
        "ALWAYS_INLINE void FN(store_first)(REAL *dst, V x, ptrdiff_t n) {\n    if (n == VL) {",
        "ALWAYS_INLINE void FN(store_first)(REAL *dst, V x, ptrdiff_t n) {\n    if (n >= VL - 1) {",
        KERNEL_TESTS,
        "sanitizers",
    ),
    Fault(
        "a target may be one too large",
        "kernels/csrc/dispatch.c",
        "if (counts && (targets[i] < 0 || targets[i] >= bound)) return -1 - i;",
        "if (counts && (targets[i] < 0 || targets[i] > bound)) return -1 - i;",
        FUZZ_API,
        "sanitizers",
    ),
    Fault(
        "a data race: flags of threads are read without an order",
        "kernels/csrc/waiting.h",
        "return __atomic_load_n(word, __ATOMIC_ACQUIRE);",
        "return __atomic_load_n(word, __ATOMIC_RELAXED);",
        TEAMS,
        "tests",
    ),
    Fault(
        "a header check: brackets in each other without end are not caught",
        "fastrnn/checkpoint.py",
        '    except (ValueError, RecursionError) as error:\n        raise CheckpointError(f"is damaged: its header',
        '    except ValueError as error:\n        raise CheckpointError(f"is damaged: its header',
        FUZZ_FILES,
        "files",
    ),
    Fault(
        "a header check: a name from a file is shown as it is",
        "fastrnn/checkpoint.py",
        "the header's entry of array {brief(name)} makes no sense",
        "the header's entry of array {name} makes no sense",
        FUZZ_FILES,
        "files",
    ),
    Fault(
        "the digest does not cover names, dtypes and shapes",
        "fastrnn/checkpoint.py",
        '        digest.update(f"\\0{name}\\0{array.dtype.str}\\0{array.shape}\\0".encode())\n',
        "",
        FUZZ_FILES,
        "files",
    ),
    Fault(
        "a missing fsync of the file",
        "fastrnn/checkpoint.py",
        "            os.fchmod(file.fileno(), mode)\n    os.fsync(file.fileno())\n",
        "            os.fchmod(file.fileno(), mode)\n",
        KILL_WRITES,
        "files",
    ),
    Fault(
        "a missing fsync of the folder",
        "fastrnn/checkpoint.py",
        "        temporary.replace(place)\n        _force_to_disk(place.parent)\n",
        "        temporary.replace(place)\n",
        KILL_WRITES,
        "files",
    ),
    Fault(
        "a save that writes in place",
        "fastrnn/checkpoint.py",
        "        with _create(temporary, before) as file:\n            file.write(serialized)\n            _finish(file, before)\n        _keep_previous(place, before)\n        temporary.replace(place)\n",
        '        _keep_previous(place, before)\n        with open(place, "wb") as file:\n            file.write(serialized)\n            _finish(file, before)\n',
        KILL_WRITES,
        "files",
    ),
    Fault(
        "a coefficient of tanh that is off in its sixth digit",
        "kernels/numba_kernels/elementary.py",
        '"0x1.5555555a7c16bp-3"',
        '"0x1.5555655a7c16bp-3"',
        ULPS,
        "numbers",
    ),
)


def run(made: Copy, command: tuple[str, ...]) -> tuple[int, float, str]:
    """Status, seconds, and what was printed by a program in the copy."""
    environment = made.environment(NUMBA_CACHE_DIR=str(made.folder / "cache"))
    began = time.monotonic()
    words = [word.replace("{installed}", str(made.installed)) for word in command]
    ran = subprocess.run(words, cwd=made.tree, env=environment, capture_output=True, text=True, check=False)
    return ran.returncode, time.monotonic() - began, ran.stdout + ran.stderr


def said(output: str) -> str:
    """The line that tells the fault."""
    telling = (
        "ERROR: AddressSanitizer",
        "runtime error",
        "WARNING: ThreadSanitizer",
        "seed ",
        " wrong",
        "ulp",
        "FAILED",
        ": ",
    )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for word in telling:
        for line in lines:
            if word in line:
                return line[:160]
    return lines[-1][:160] if lines else ""


def plant(fault: Fault, folder: Path) -> tuple[bool, float, str]:
    """Whether it was found, in how many seconds, and what was said."""
    made = copy_sources(folder)
    file = made.tree / fault.file
    text = file.read_text(encoding="utf-8")
    if text.count(fault.right) != 1:
        raise SystemExit(f"{fault.name}: {fault.file} does not have {fault.right!r} once")
    file.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
    if fault.command[:2] == SANITIZED[:2]:
        status, _, output = run(made, SANITIZED[:3])
        if status:
            raise SystemExit(f"{fault.name}: it cannot be built\n{output}")
    else:
        install(made)
    status, seconds, output = run(made, fault.command)
    return status != 0, seconds, said(output)


def main() -> int:
    parser = page.parser(__doc__)
    parser.add_argument("--only", default="", metavar="WORD", help="faults with this in their name")
    options = parser.parse_args()
    rows, missed = [], 0
    for fault in FAULTS:
        if options.only not in fault.name:
            continue
        with tempfile.TemporaryDirectory() as made:
            found, seconds, words = plant(fault, Path(made))
        missed += not found
        program = next(
            word
            for word in fault.command[3 if fault.command[:2] == SANITIZED[:2] else 1 :]
            if "/" in word and word != sys.executable
        )
        print(
            f"{'found' if found else 'MISSED'} in {seconds:.0f} s: {fault.name} ({program}): {words}",
            flush=True,
        )
        rows.append(
            [fault.name, f"`{program}`", f"`{fault.step}`", f"{seconds:.0f} s" if found else "**not found**"]
        )
    if options.write:
        page.write("planted", page.table(["fault", "found by", "step of `.ci/run`", "in"], rows, left=3))
    return missed > 0 or not rows


if __name__ == "__main__":
    sys.exit(main())
