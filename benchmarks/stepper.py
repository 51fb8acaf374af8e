"""Time single steps: a stepper on each backend, NumPy's line, PyTorch and ONNX Runtime.

    python benchmarks/stepper.py --json stepper.json
    python benchmarks/stepper.py --hidden 32 --contender cython --steps 1000000

On one thread; every contender is checked before it is timed.  First the contenders take turns, and the shortest
time of a step counts; a table says how many times faster each backend is than the others.  Then each of many steps
is timed by itself, one contender after the other, for their distribution: the clock's own time is in it.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thread_limits import limit_threads

limit_threads()

import numpy as np
import step_contenders
from gated_contenders import GATES
from installed import why_unavailable
from records import record, write_json
from report_stepper import comparison
from results import row_of
from sizes import DTYPES, PERCENTILES
from timing import time_alternately

#: Steps between two looks at the clock, which takes a part of the time of a short one.
STEPS = 50

#: Sizes whose distribution is looked at, and where, in percent.
SINGLE_HIDDEN = (32, 256)


def measure(
    h: int, dtype: str, wanted: list[str], seconds: float, cell: str = "rnn"
) -> Iterator[dict[str, Any]]:
    """One benchmark record for each contender that is installed."""
    names = [name for name in step_contenders.contenders_of(dtype) if name in wanted]
    calls = {
        name: step_contenders.checked_call(name, h, dtype, STEPS, cell)
        for name in names
        if why_unavailable(name) is None
    }
    for name, times in time_alternately(calls, seconds).items():
        info = step_contenders.describe(name, h, dtype, cell)
        if cell != "rnn":
            info["suite"] = "gated steps"
        label = f"{cell}-h{h}-{dtype}"
        yield record(f"step[{name}-{label}]", info, [taken / STEPS for taken in times], group=f"step {label}")


def distribution(contender: str, h: int, dtype: str, steps: int) -> np.ndarray:
    """Nanoseconds of each of `steps` steps, the clock's included."""
    step, x = step_contenders.checked_step(contender, h, dtype)
    taken, now = np.empty(steps, np.int64), time.perf_counter_ns
    for _ in range(min(steps, 10_000)):
        step(x)
    gc.collect()
    gc.disable()
    try:
        for i in range(steps):
            began = now()
            step(x)
            taken[i] = now() - began
    finally:
        gc.enable()
    return taken


def clock_alone() -> float:
    """Seconds that the clock itself takes, the median."""
    now = time.perf_counter_ns
    return float(np.median([-(now() - now()) for _ in range(100_000)])) / 1e9


def measure_single(
    h: int, dtype: str, wanted: list[str], steps: int, clock: float
) -> Iterator[dict[str, Any]]:
    """One benchmark record for each contender that is installed, with the distribution of its steps."""
    for name in step_contenders.contenders_of(dtype):
        if name not in wanted or why_unavailable(name) is not None:
            continue
        taken = distribution(name, h, dtype, steps) / 1e9
        info = step_contenders.describe(name, h, dtype) | {
            "suite": "single steps", "steps": steps, "clock": clock,
        }  # fmt: skip
        info["percentiles"] = [float(t) for t in np.percentile(taken, PERCENTILES)]
        yield record(f"single step[{name}-h{h}-{dtype}]", info, [float(np.median(taken))])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="of turns, for each size and dtype (default 2)"
    )
    parser.add_argument(
        "--steps", type=int, default=1_000_000, help="timed each by itself (default a million; 0 for none)"
    )
    parser.add_argument(
        "--hidden", action="append", type=int, metavar="H", help="only this hidden size (may be repeated)"
    )
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="likewise")
    parser.add_argument("--contender", action="append", choices=step_contenders.CONTENDERS, help="likewise")
    parser.add_argument("--cell", action="append", choices=tuple(GATES), help="likewise")
    options = parser.parse_args(arguments)
    if options.steps < 0:
        parser.error(f"--steps must not be negative, got {options.steps}")
    wanted = options.contender or list(step_contenders.CONTENDERS)
    for name in wanted:
        reason = why_unavailable(name)
        if reason is not None:
            print(f"left out: {name}: {reason}", file=sys.stderr)
    records = []
    cells = options.cell or list(GATES)
    for cell in cells:
        of_cell = []
        for dtype in options.dtype or (DTYPES if cell == "rnn" else ("float32",)):
            for h in options.hidden or (
                step_contenders.HIDDEN if cell == "rnn" else step_contenders.GATED_HIDDEN
            ):
                found = list(measure(h, dtype, wanted, options.seconds, cell))
                of_cell += found
                times = "  ".join(
                    f"{row['extra_info']['contender']} {row['stats']['min'] * 1e6:.2f}" for row in found
                )
                print(f"step {cell:<4} h={h:<5} {dtype:<8} us: {times}", flush=True)
        records += of_cell
        compared = comparison([row_of(row) for row in of_cell])
        if compared:
            print(f"\n{cell}: how many times faster each backend is:\n\n{compared}\n", flush=True)
    clock = clock_alone()
    if "rnn" not in cells:
        options.steps = 0
    if options.steps:
        print(f"single steps, the clock's {clock * 1e9:.0f} ns included:")
    for dtype in options.dtype or DTYPES:
        for h in options.hidden or SINGLE_HIDDEN:
            for row in measure_single(h, dtype, wanted, options.steps, clock) if options.steps else ():
                records.append(row)
                shown = "  ".join(
                    f"{p:g}% {t * 1e6:.2f}"
                    for p, t in zip(PERCENTILES, row["extra_info"]["percentiles"], strict=True)
                )
                print(f"h={h:<5} {dtype:<8} {row['extra_info']['contender']:<12} us: {shown}", flush=True)
    if options.json:
        write_json(options.json, records)
    return 0


if __name__ == "__main__":
    sys.exit(main())
