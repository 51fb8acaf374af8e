"""Time batches: fastrnn on each backend, PyTorch and JAX, taking turns, and the machine's GEMM rate.

    python benchmarks/batched.py --json batched.json
    python benchmarks/batched.py --operation train_step --threads 2 --contender cython --contender jax

Each number of threads has a process of its own, bound to as many cores before any library is loaded:
XLA cannot be limited to a number of threads in another way.  Inside it everybody takes turns, and every
result is checked before.  In a process of several cores fastrnn runs on one thread as well, and samples
one stream beside the many.  The GEMM rate is that of the faster BLAS at hand, NumPy's or PyTorch's, on
the same threads in the same dtype, taking turns with the contenders.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sizes import BATCH_OPERATIONS, BATCHES, DTYPES, GEMM_SIZE
from thread_limits import CORES, bind_to_cores, limit_threads

#: A turn: long enough for the threads of the one before to have gone to sleep, or two calls.
BLOCK_SECONDS = 0.03

#: Seconds for each operation, size, dtype and number of threads.
SECONDS, SHORT_SECONDS = 5.0, 1.5

#: How many times more characters a single stream draws than each of many: else a call's own time would count.
LONGER = 16


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.process is not None:
        limit_threads(options.process)
        bind_to_cores(options.process)
        return measure_here(options)
    given = list(sys.argv[1:] if arguments is None else arguments)
    documents = []
    with tempfile.TemporaryDirectory() as folder:
        for threads in options.threads or sorted({1, CORES}):
            part = Path(folder) / f"{threads}.json"
            command = [sys.executable, __file__, *given, "--process", str(threads), "--json", str(part)]
            code = subprocess.run(command).returncode
            if code:
                return code
            documents.append(json.loads(part.read_text(encoding="utf-8")))
    if options.json:
        whole = documents[0] | {"benchmarks": [row for part in documents for row in part["benchmarks"]]}
        options.json.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--json", type=Path, help="write the results here")
    made.add_argument("--short", action="store_true", help=f"{SHORT_SECONDS:g} seconds for each case")
    made.add_argument("--seconds", type=float, help=f"for each case (default {SECONDS:g})")
    made.add_argument(
        "--operation", action="append", choices=BATCH_OPERATIONS, help="only this (may be repeated)"
    )
    made.add_argument("--dtype", action="append", choices=DTYPES, help="likewise")
    made.add_argument("--hidden", action="append", type=int, metavar="H", help="likewise, by hidden size")
    made.add_argument("--contender", action="append", metavar="NAME", help="likewise")
    made.add_argument(
        "--threads", action="append", type=int, metavar="N", help="likewise (default: 1, and all cores)"
    )
    made.add_argument("--process", type=int, help=argparse.SUPPRESS)
    return made


def measure_here(options: argparse.Namespace) -> int:
    """Measure in this process, which is limited to ``options.process`` threads."""
    import batch_contenders  # loads the numerical libraries
    from installed import why_unavailable
    from problems import Batch
    from records import write_json

    cores = options.process
    wanted = options.contender or batch_contenders.CONTENDERS
    for name in wanted:
        if name not in batch_contenders.CONTENDERS:
            print(
                f"error: no contender {name!r}; there are: {', '.join(batch_contenders.CONTENDERS)}",
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
    for operation in options.operation or BATCH_OPERATIONS:
        for dtype in options.dtype or DTYPES:
            for h, T, N in BATCHES:
                if options.hidden and h not in options.hidden:
                    continue
                batch = Batch(h, T, N, dtype)
                found = list(measure(batch, operation, wanted, cores, seconds))
                records += found
                print(line(batch, operation, cores, found), flush=True)
    if options.json:
        write_json(options.json, records)
    return 0


def measure(
    batch: Any, operation: str, wanted: list[str], cores: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """One benchmark record for each contender that is installed, and one for the GEMM rate."""
    import batch_contenders
    from installed import BACKEND_NAMES, why_unavailable
    from problems import Batch
    from records import record
    from timing import time_alternately

    cases = []
    for name in batch_contenders.contenders_of(operation):
        if name in wanted and why_unavailable(name) is None:
            cases.append((name, batch, cores))
            if name in BACKEND_NAMES:
                if cores > 1:
                    cases.append((name, batch, 1))
                if operation == "sample":
                    cases.append((name, Batch(batch.h, LONGER * batch.T, 1, batch.dtype), cores))
    calls = {case: batch_contenders.checked_call(case[0], operation, *case[1:]) for case in cases}
    infos = {
        case: batch_contenders.describe(operation, case[1], case[0], threads=case[2], cores=cores)
        for case in cases
    }
    if operation != "sample":
        library, product = gemm(batch.dtype, cores)
        case = (library, batch, cores)
        calls[case] = product
        infos[case] = batch_contenders.describe(operation, batch, library, cores, cores) | {
            "suite": "batched gemm",
            "kind": "gemm",
        }
    for case, times in time_alternately(calls, seconds, BLOCK_SECONDS).items():
        name, which, threads = case
        yield record(
            f"{operation}[{name}-{which.label}-threads{threads}-cores{cores}]",
            infos[case],
            times,
            group=f"batched: {operation} {batch.label} cores{cores}",
        )


_products: dict[tuple[str, int], tuple[str, Callable[[], Any]]] = {}


def gemm(dtype: str, threads: int) -> tuple[str, Callable[[], Any]]:
    """Name and call of the faster of NumPy's and PyTorch's product of two large matrices."""
    import numpy as np
    from installed import why_unavailable
    from timing import time_alternately

    if (dtype, threads) not in _products:
        A = np.random.default_rng(0).standard_normal((GEMM_SIZE, GEMM_SIZE)).astype(dtype)
        out = np.empty_like(A)
        calls: dict[str, Callable[[], Any]] = {"gemm, numpy": lambda: np.matmul(A, A, out=out)}
        if why_unavailable("torch") is None:
            import torch

            torch.set_num_threads(threads)
            B, other = torch.from_numpy(A), torch.empty(A.shape, dtype=getattr(torch, dtype))
            calls["gemm, torch"] = lambda: torch.matmul(B, B, out=other)
        for call in calls.values():
            call()
        times = time_alternately(calls, 0.0)
        fastest = min(times, key=lambda name: min(times[name]))
        _products[dtype, threads] = fastest, calls[fastest]
    return _products[dtype, threads]


def line(batch: Any, operation: str, cores: int, found: list[dict[str, Any]]) -> str:
    """Microseconds a time step of the whole batch, of a stream where it is one; the rate of GEMM."""
    texts = []
    for row in found:
        info, shortest = row["extra_info"], row["stats"]["min"]
        name = info["contender"]
        if info["kind"] == "gemm":
            texts.append(f"{name} {2 * GEMM_SIZE**3 / shortest / 1e9:.0f} GFLOP/s")
            continue
        if info["threads"] != cores:
            name += f" on {info['threads']}"
        if info["N"] != batch.N:
            name += f" N={info['N']}"
        texts.append(f"{name} {shortest / info['T'] * 1e6:.1f}")
    return f"{operation:<10} {batch.label:<22} {cores} threads, us/step: {'  '.join(texts)}"


if __name__ == "__main__":
    sys.exit(main())
