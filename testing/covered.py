"""How much of the code the tests reach: branches of the Python code, lines of the C code.

    python testing/covered.py                     # both, on a copy of the sources
    python testing/covered.py --parts c --missing # the C code, with the lines that were not reached

Needs coverage.py, 7.10 or later, for the one, and GCC with gcov for the other.  Ends with status 1 where less than 95%
of the package, of the kernels in Python or of those in C was reached.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import covered_c
import covered_python
import page
from covered_files import Reached, totals

GOAL = 95.0


def parts_of(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= {"python", "c"}:
        raise ValueError(text)
    return names


def measure(parts: list[str], jobs: int) -> list[Reached]:
    """Run the tests of each part in a folder of its own."""
    files: list[Reached] = []
    with tempfile.TemporaryDirectory(prefix="covered-") as folder:
        for part in parts:
            start = time.perf_counter()
            place = Path(folder, part).resolve()
            files += covered_python.measure(place, jobs) if part == "python" else covered_c.measure(place)
            print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)
    return files


def show(files: list[Reached], missing: bool) -> None:
    """A line for each file and each total, then what was not reached."""
    for one in [*sorted(files, key=lambda one: one.file), *totals(files)]:
        name, count, percent = one.row()
        print(f"{name:44}{count:7}{percent:>8}%")
    if missing:
        print("\nnot reached:")
        for one in files:
            if one.missing():
                print(f"{one.file}: {one.missing()}")


def figures(files: list[Reached]) -> str:
    """The totals, and the files below the goal."""
    head = ["", "Lines and branches", "Reached, %"]
    text = page.table(head, [one.row() for one in totals(files)])
    low = [one for one in files if one.percent < GOAL]
    if low:
        text += f"\n\nFiles below {GOAL:.0f}%:\n\n" + page.table(head, [one.row() for one in low])
    return text


def main() -> int:
    parser = page.parser(__doc__)
    parser.add_argument("--parts", type=parts_of, default=["python", "c"], help="python, c or python,c")
    parser.add_argument("--missing", action="store_true", help="show what was not reached")
    parser.add_argument("--jobs", type=int, default=2, help="processes that share the tests (2)")
    arguments = parser.parse_args()
    files = measure(arguments.parts, arguments.jobs)
    show(files, arguments.missing)
    if arguments.write:
        page.write("covered", figures(files))
    sums = totals(files)
    return int(
        len(sums) < 2 * ("python" in arguments.parts) + ("c" in arguments.parts)
        or any(one.percent < GOAL for one in sums)
    )


if __name__ == "__main__":
    sys.exit(main())
