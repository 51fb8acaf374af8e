"""Put one fault at a time into a copy of fastrnn, and see that the program which is there for it finds it.

    python testing/planted.py                 # all of them; those in C are compiled first, minutes each
    python testing/planted.py --only fsync    # those with this word in their name
    python testing/planted.py --write         # and the table into docs/testing.md

Ends with status 1 when a fault was not found: when the program passes, or fails without a line that only this fault
brings.  A program that fails anyway finds nothing, so each is run without a fault first.
"""

from __future__ import annotations

import re
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
FUZZ_API = (*SANITIZED, "testing/fuzz_api.py", "--seconds", "45", "--backend", "cython")
FUZZ_FILES = (sys.executable, "testing/fuzz_files.py")
KILL_WRITES = (sys.executable, "testing/kill_writes.py")
ULPS = (sys.executable, "testing/ulps.py", "--quick", "--backend", "numba")
TEAMS = (
    sys.executable,
    "-m",
    "pytest",
    "-q",
    "-x",
    "--all-cases",
    "tests/test_team.py",
    "-k",
    "hard_driven and sanitized",
)


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
    says : str
        A pattern that only this fault brings into what the command prints.
    """

    name: str
    file: str
    right: str
    wrong: str
    command: tuple[str, ...]
    step: str
    says: str


FAULTS = (
    Fault(
        "a kernel's tail writes one element too many",
        "kernels/csrc/products.h",
        "for (ptrdiff_t j = 0; j < n; j++) out[j] += *x * w[j];",
        "for (ptrdiff_t j = 0; j <= n; j++) out[j] += *x * w[j];",
        KERNEL_TESTS,
        "sanitizers",
        r"ERROR: AddressSanitizer|written after an array",
    ),
    Fault(
        "a target may be one too large",
        "kernels/csrc/dispatch.c",
        "if (counts && (targets[i] < 0 || targets[i] >= bound)) return -1 - i;",
        "if (counts && (targets[i] < 0 || targets[i] > bound)) return -1 - i;",
        FUZZ_API,
        "sanitizers",
        r"AddressSanitizer|was accepted|other than",
    ),
    Fault(
        "a data race: flags of threads are read without an order",
        "kernels/csrc/waiting.h",
        "return __atomic_load_n(word, __ATOMIC_ACQUIRE);",
        "return __atomic_load_n(word, __ATOMIC_RELAXED);",
        TEAMS,
        "tests",
        r"ThreadSanitizer: data race",
    ),
    Fault(
        "two threads get one work space",
        "fastrnn/passes.py",
        "            return free.pop()",
        "            return free[-1]",
        (*FUZZ_API, "--only", "threaded"),
        "sanitizers",
        r"beside other threads|bits afterwards|raised ValueError|ended with status",
    ),
    Fault(
        "a model may be read while it is changed",
        "fastrnn/sharing.py",
        "            if all(other == thread for other in tuple(self.changes.values())):\n                return\n",
        "            return\n",
        (*FUZZ_API, "--only", "threaded"),
        "sanitizers",
        r"beside other threads",
    ),
    Fault(
        "a measurement leaves its own gradients in the model",
        "fastrnn/diagnostics/gradient_check.py",
        "_no_dropout(m.model), kept(), np.errstate",
        "_no_dropout(m.model), np.errstate",
        (*FUZZ_API, "--only", "diagnosed"),
        "sanitizers",
        r"gradcheck modified",
    ),
    Fault(
        "a header check: brackets in each other without end are not caught",
        "fastrnn/checkpoint.py",
        '    except (ValueError, RecursionError) as error:\n        raise CheckpointError(f"is damaged: its header',
        '    except ValueError as error:\n        raise CheckpointError(f"is damaged: its header',
        FUZZ_FILES,
        "files",
        r"RecursionError",
    ),
    Fault(
        "a header check: a name from a file is shown as it is",
        "fastrnn/checkpoint.py",
        "the header's entry of array {brief(name)} makes no sense",
        "the header's entry of array {name} makes no sense",
        FUZZ_FILES,
        "files",
        r"said .*x1b",
    ),
    Fault(
        "the digest does not cover names, dtypes and shapes",
        "fastrnn/checkpoint.py",
        '        digest.update(f"\\0{name}\\0{array.dtype.str}\\0{array.shape}\\0".encode())\n',
        "",
        FUZZ_FILES,
        "files",
        r"a change of .* was accepted",
    ),
    Fault(
        "a missing fsync of the file",
        "fastrnn/checkpoint.py",
        "            os.fchmod(file.fileno(), mode)\n    os.fsync(file.fileno())\n",
        "            os.fchmod(file.fileno(), mode)\n",
        KILL_WRITES,
        "files",
        r"power cut after .* cannot be loaded",
    ),
    Fault(
        "a missing fsync of the folder",
        "fastrnn/checkpoint.py",
        "        temporary.replace(place)\n        _force_to_disk(place.parent)\n",
        "        temporary.replace(place)\n",
        KILL_WRITES,
        "files",
        r"the save had returned, and",
    ),
    Fault(
        "a save that writes in place",
        "fastrnn/checkpoint.py",
        "        with _create(temporary, before) as file:\n            file.write(serialized)\n            _finish(file, before)\n        _keep_previous(place, before)\n        temporary.replace(place)\n",
        '        _keep_previous(place, before)\n        with open(place, "wb") as file:\n            file.write(serialized)\n            _finish(file, before)\n',
        KILL_WRITES,
        "files",
        r"cannot be loaded",
    ),
    Fault(
        "a coefficient of tanh that is off in its fifth digit",
        "kernels/numba_kernels/elementary.py",
        '"0x1.5555555a7c16bp-3"',
        '"0x1.5556555a7c16bp-3"',
        ULPS,
        "numbers",
        r"FAULT: .*the limit is",
    ),
)


def run(made: Copy, command: tuple[str, ...]) -> tuple[int, float, str]:
    """Status, seconds, and what was printed by a program in the copy."""
    environment = made.environment(NUMBA_CACHE_DIR=str(made.folder / "cache"))
    began = time.monotonic()
    words = [word.replace("{installed}", str(made.installed)) for word in command]
    ran = subprocess.run(words, cwd=made.tree, env=environment, capture_output=True, text=True, check=False)
    return ran.returncode, time.monotonic() - began, ran.stdout + ran.stderr


def install_for(made: Copy, command: tuple[str, ...]) -> None:
    """What the command runs: the package, or one that it has to be built for."""
    if command[:2] != SANITIZED[:2]:
        install(made)
        return
    status, _, output = run(made, SANITIZED[:3])
    if status:
        raise SystemExit(f"it cannot be built\n{output}")


def passes_without(command: tuple[str, ...]) -> None:
    """What fails anyway finds nothing."""
    with tempfile.TemporaryDirectory() as folder:
        made = copy_sources(Path(folder))
        install_for(made, command)
        status, _, output = run(made, command)
    if status:
        raise SystemExit(f"{program_of(command)} fails without a fault:\n{output[-3000:]}")


def plant(fault: Fault, folder: Path) -> tuple[str, float]:
    """The line that tells the fault, "" where there is none, and after how many seconds."""
    made = copy_sources(folder)
    file = made.tree / fault.file
    text = file.read_text(encoding="utf-8")
    if text.count(fault.right) != 1:
        raise SystemExit(f"{fault.name}: {fault.file} does not have {fault.right!r} once")
    file.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
    install_for(made, fault.command)
    status, seconds, output = run(made, fault.command)
    told = [line.strip() for line in output.splitlines() if re.search(fault.says, line)]
    return (told[0][:200] if status and told else ""), seconds


def program_of(command: tuple[str, ...]) -> str:
    return next(
        word
        for word in command
        if (word.startswith("testing/") and "sanitized" not in word) or "tests/" in word
    )


def main() -> int:
    parser = page.parser(__doc__)
    parser.add_argument("--only", default="", metavar="WORD", help="faults with this in their name")
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if options.only in fault.name]
    for command in dict.fromkeys(fault.command for fault in chosen):
        passes_without(command)
        print(f"passes without a fault: {program_of(command)}", flush=True)
    rows, missed = [], 0
    for fault in chosen:
        with tempfile.TemporaryDirectory() as made:
            told, seconds = plant(fault, Path(made))
        missed += not told
        program = program_of(fault.command)
        how = f"found in {seconds:.0f} s" if told else "MISSED"
        print(f"{how}: {fault.name} ({program}): {told}", flush=True)
        rows.append(
            [fault.name, f"`{program}`", f"`{fault.step}`", f"{seconds:.0f} s" if told else "**not found**"]
        )
    if options.write:
        page.write("planted", page.table(["fault", "found by", "step of `.ci/run`", "in"], rows, left=3))
    return missed > 0 or not rows


if __name__ == "__main__":
    sys.exit(main())
