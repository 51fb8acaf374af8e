"""Time layers of GRU and LSTM: fastrnn on each backend, PyTorch, JAX and ONNX Runtime, and the machine's GEMM rate.

    python benchmarks/gated.py --json gated.json
    python benchmarks/gated.py --cell lstm --hidden 256 --dtype float32 --contender cython --contender torch

Everybody may use as many threads as ``--threads`` says, all cores by default, takes turns with the others, and is
checked before.  The last column is the share of the machine's GEMM rate, measured in the same turns, that the
arithmetic of the products comes to.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sizes import DTYPES, GEMM_SIZE
from thread_limits import CORES, bind_to_cores, limit_threads

SECONDS, SHORT_SECONDS = 6.0, 1.0

#: A turn: long enough for the threads of the one before to have gone to sleep, or two calls.
BLOCK_SECONDS = 0.05


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--json", type=Path, help="write the results here")
    made.add_argument("--short", action="store_true", help=f"{SHORT_SECONDS:g} second for each case")
    made.add_argument("--seconds", type=float, help=f"for each case (default {SECONDS:g})")
    made.add_argument("--threads", type=int, default=CORES, help=f"of everybody (default {CORES}, all cores)")
    made.add_argument("--cell", action="append", choices=("gru", "lstm"), help="only this (may be repeated)")
    made.add_argument(
        "--operation", action="append", choices=("forward", "forward and backward"), help="likewise"
    )
    made.add_argument("--dtype", action="append", choices=DTYPES, help="likewise")
    made.add_argument("--hidden", action="append", type=int, metavar="H", help="likewise, by hidden size")
    made.add_argument("--contender", action="append", metavar="NAME", help="likewise")
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if not 1 <= options.threads <= CORES:
        parser().error(f"--threads must be 1 to {CORES}, the cores of this process, got {options.threads}")
    limit_threads(options.threads)  # before the numerical libraries are loaded
    bind_to_cores(options.threads)
    import gated_contenders
    from installed import why_unavailable
    from records import write_json
    from report_gated import comparison
    from results import row_of

    wanted = options.contender or gated_contenders.CONTENDERS
    for name in wanted:
        if name not in gated_contenders.CONTENDERS:
            print(
                f"error: no contender {name!r}; there are: {', '.join(gated_contenders.CONTENDERS)}",
                file=sys.stderr,
            )
            return 2
        reason = why_unavailable(name)
        if reason is not None:
            print(f"left out: {name}: {reason}", file=sys.stderr)
    seconds = options.seconds
    if seconds is None:
        seconds = SHORT_SECONDS if options.short else SECONDS
    records = []
    for operation in options.operation or gated_contenders.OPERATIONS:
        for cell in options.cell or gated_contenders.CELLS:
            for dtype in options.dtype or DTYPES:
                for h, T, N in gated_contenders.SHAPES:
                    if options.hidden and h not in options.hidden:
                        continue
                    problem = gated_contenders.Problem(cell, h, T, N, dtype)
                    found = list(measure(problem, operation, wanted, options.threads, seconds))
                    records += found
                    shown = "  ".join(
                        f"{row['extra_info']['contender']} {row['stats']['min'] / T * 1e6:.1f}"
                        for row in found[:-1]
                    )
                    rate = 2 * GEMM_SIZE**3 / found[-1]["stats"]["min"] / 1e9
                    print(
                        f"{operation:<20} {cell:<5} h={h} T={T} N={N} {dtype:<8} us/step: {shown}  "
                        f"GEMM {rate:.0f} GFLOP/s",
                        flush=True,
                    )
    print(f"\n{comparison([row_of(row) for row in records])}\n", flush=True)
    if options.json:
        write_json(options.json, records)
    return 0


def measure(
    problem: Any, operation: str, wanted: Any, threads: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """One benchmark record for each contender that is installed, and at last one for the GEMM rate."""
    import gated_contenders
    from batched import gemm
    from installed import why_unavailable
    from records import record
    from timing import time_alternately

    calls = {
        name: gated_contenders.checked_call(name, operation, problem, threads)
        for name in gated_contenders.contenders_of(operation, problem.dtype)
        if name in wanted and why_unavailable(name) is None
    }
    library, product = gemm(problem.dtype, threads)
    calls[library] = product
    for name, times in time_alternately(calls, seconds, BLOCK_SECONDS).items():
        info = gated_contenders.describe(name, operation, problem, threads)
        if name == library:
            info |= {"suite": "gated gemm", "kind": "gemm"}
        label = f"{operation}[{name}-{problem.cell}-h{problem.h}-T{problem.T}-N{problem.N}-{problem.dtype}]"
        yield record(
            label, info, times, group=f"gated: {operation} {problem.cell} h{problem.h}-{problem.dtype}"
        )


if __name__ == "__main__":
    sys.exit(main())
