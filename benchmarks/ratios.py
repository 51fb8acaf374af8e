"""Time all contenders in turn, again and again, so that a ratio compares neighbours in time.

    python benchmarks/ratios.py --json ratios.json
    python benchmarks/ratios.py --operation train_step --contender reference --contender numba

Each pass gives every contender a short block of calls (timing.py says why).  The JSON has
pytest-benchmark's shape.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thread_limits import limit_threads

limit_threads()

import contenders
from agreement import WrongResult
from installed import Unavailable, why_unavailable
from problems import Problem
from programs import COLD, PROCESSES, REFERENCE_HELLO, Runner
from records import record, write_json
from sizes import DTYPES, OPERATIONS, SIZES
from timing import time_alternately


def measure(problem: Problem, operation: str, names: list[str], seconds: float) -> Iterator[dict[str, Any]]:
    """One benchmark record for each contender that is installed."""
    calls = {}
    for name in names:
        try:
            calls[name] = contenders.checked_call(name, operation, problem)
        except Unavailable:
            continue
    for name, times in time_alternately(calls, seconds).items():
        info = contenders.describe("ratios", operation, problem, name)
        group = f"ratios: {operation} {problem.label}"
        yield record(f"{operation}[{name}-{problem.label}]", info, times, group=group)


def measure_processes(seconds: float) -> Iterator[dict[str, Any]]:
    """One benchmark record for each whole program that compiles nothing.

    Raises
    ------
    WrongResult
        If a "hello" program does not print what the reference's prints.
    """
    with tempfile.TemporaryDirectory() as folder:
        expected = Runner(REFERENCE_HELLO, None, None, Path(folder))()
        runs = {}
        for label, (program, backend, cache) in PROCESSES.items():
            if cache == COLD or (backend and why_unavailable(backend)):
                continue
            run = runs[label] = Runner(program, backend, cache, Path(folder))
            printed = run()
            if label.startswith("hello") and printed != expected:
                raise WrongResult(f"{label}: the program does not print what the reference's prints")
        for label, times in time_alternately(runs, seconds).items():
            info = {"suite": "process turns", "contender": label}
            yield record(label, info, times, group="ratios: whole process")


def cases(operations: list[str]) -> list[tuple[str, Problem]]:
    """Operations and problems of the report's tables."""
    found = [(op, Problem(h, T, dtype)) for op in operations for dtype in DTYPES for h, T in SIZES]
    binding = [op for op in operations if op in ("backward", "train_step")]
    return found + [(op, Problem(100, 100, dtype, binding=True)) for op in binding for dtype in DTYPES]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each operation and size (default 3)")
    parser.add_argument(
        "--operation", action="append", choices=OPERATIONS, help="only this (may be repeated)"
    )
    parser.add_argument("--contender", action="append", choices=contenders.CONTENDERS, help="likewise")
    options = parser.parse_args(arguments)
    wanted = options.contender or contenders.CONTENDERS
    for name in wanted:
        reason = why_unavailable(name)
        if reason is not None:
            print(f"left out: {name}: {reason}", file=sys.stderr)
    records = []
    for operation, problem in cases(options.operation or list(OPERATIONS)):
        names = [name for name in contenders.contenders_of(operation, problem) if name in wanted]
        found = list(measure(problem, operation, names, options.seconds))
        records += found
        times = "  ".join(
            f"{row['extra_info']['contender']} {row['stats']['min'] / problem.T * 1e6:.2f}" for row in found
        )
        print(f"{operation:<10} {problem.label:<26} us/step: {times}", flush=True)
    if options.operation is None and options.contender is None:
        found = list(measure_processes(10 * options.seconds))
        records += found
        for row in found:
            print(f"{row['name']:<26} {row['stats']['min'] * 1e3:.1f} ms")
    if options.json:
        write_json(options.json, records)
    return 0


if __name__ == "__main__":
    sys.exit(main())
