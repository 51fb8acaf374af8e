"""Build fastrnn with the sanitizers of addresses and of undefined behaviour, and run a program with it.

    python testing/sanitized.py FOLDER                              # build it there, unless it is there already
    python testing/sanitized.py FOLDER python -m pytest tests -k cython

The compiled kernels then check every access to memory.  Python takes its memory from the C library, so that arrays
lie between zones that belong to nobody; what is found ends the process with a report.  FASTRNN_SIMD chooses the
instruction set as always.  Linux, with GCC.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import page

#: Not optimised: the faults are those of the source, and with -O1 it takes four minutes to compile.
FLAGS = "-O0 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"

#: What Python keeps until its end is no leak; a report of undefined behaviour has to say where.  (Not with
#: detect_stack_use_after_return: GCC before 13.3 misaligns wide vectors then, its bug 110027.)
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def compiler() -> str:
    found = shutil.which(os.environ.get("CC", "gcc"))
    if not sys.platform.startswith("linux") or found is None:
        raise SystemExit("this takes Linux and GCC")
    return found


def build(folder: Path) -> None:
    """Install the package alone into a folder."""
    environment = {**os.environ, "FASTRNN_CYTHON": "1", "FASTRNN_CFLAGS": FLAGS}
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(folder),
        str(page.ROOT),
    ]
    subprocess.run(command, env=environment, check=True)


def environment(folder: Path) -> dict[str, str]:
    """That of a program which uses it."""
    library = subprocess.run(
        [compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(library).is_absolute():
        raise SystemExit("the compiler has no libasan.so")
    return {
        **os.environ,
        **OPTIONS,
        "LD_PRELOAD": library,
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(folder),
        "FASTRNN_BACKEND": "cython",
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    folder = options.folder.resolve()
    if not (folder / "fastrnn").exists():
        build(folder)
    if not options.command:
        return 0
    return subprocess.run(options.command, env=environment(folder), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
