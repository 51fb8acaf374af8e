"""Time training steps that ranks of MPI share, beside one process over the same batch, and what they exchange.

    python benchmarks/scaling.py                          # print the tables
    python benchmarks/scaling.py --json s.json --write    # and put them into docs/scaling.md
    python benchmarks/scaling.py --quick                  # rows that take no time, to see that all works

Every rank has one thread.  One process and the ranks take turns in one run, and their losses over 100 steps must agree
before anything is timed.  What more machines would give is computed from the steps that were measured here, and a
network's bandwidth and latency: see `report_scaling.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thread_limits import CORES, limit_threads

#: Cell, hidden size, and time steps; sequences of a batch; classes.
CASES = [("rnn", 100, 64), ("rnn", 256, 64), ("rnn", 512, 64), ("lstm", 256, 64)]
N, CLASSES = 64, 65

#: Nets that are too small, and as large as this package is for: measured on this machine only.
CORNERS = [("rnn", 8, 64), ("rnn", 1024, 64)]

#: Ranks on this machine.
RANKS = (2, 4)

#: Sequences that one process of a network would have, of which steps are measured.
SHARES = (8, 16, 32, 64, 128, 256, 512, 1024)

#: Turns of a comparison, and seconds of each.
TURNS, SECONDS = 60, 0.1

#: Largest relative difference of the losses of 100 steps in float64.
AGREE = 1e-5


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--json", type=Path, help="write the results here")
    made.add_argument("--write", action="store_true", help="write the tables into docs/scaling.md")
    made.add_argument("--quick", action="store_true", help="rows that take no time, to see that all works")
    made.add_argument("--as-rank", help=argparse.SUPPRESS)
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    limit_threads(1)  # before the numerical libraries are loaded
    if options.as_rank:
        return as_rank(json.loads(options.as_rank))
    from installed import why_unavailable
    from records import record, write_json
    from report_scaling import tables, write
    from results import read, row_of

    missing = why_unavailable("mpi4py")
    if missing is not None:
        print(f"error: mpi4py: {missing}: pip install 'fastrnn[mpi]'", file=sys.stderr)
        return 1
    cases, ranks, shares = [*CASES, *CORNERS], RANKS, SHARES
    turns, seconds = TURNS, SECONDS
    if options.quick:
        cases, ranks, shares, turns, seconds = [("rnn", 16, 8)], (2,), (8, 16), 2, 0.01
    records = []
    for cell, h, T in cases:
        for n in ranks:
            fewer = turns // 5 if h > 1000 else turns  # of steps that take long
            case = {"cell": cell, "h": h, "T": T, "turns": fewer, "seconds": seconds}
            for name, times, more in started(n, case | {"do": "ranks"}):
                info = {
                    "suite": "scaling",
                    "contender": name,
                    "cell": cell,
                    "h": h,
                    "T": T,
                    "N": N,
                    "threads": n,
                } | more
                records.append(record(f"{name}-{cell}-{h}-{n}", info, times))
                print(f"{cell} h={h}, {n} ranks, {name}: {min(times) * 1e3:.3g} ms", flush=True)
        if (cell, h, T) in CORNERS:
            continue
        case = {"cell": cell, "h": h, "T": T, "turns": turns, "seconds": seconds, "shares": shares}
        for name, times, more in started(1, case | {"do": "shares"}):
            info = {
                "suite": "scaling share",
                "contender": name,
                "cell": cell,
                "h": h,
                "T": T,
                "threads": CORES,
            } | more
            records.append(record(f"{name}-{cell}-{h}-{more['N']}", info, times))
    rows = [row_of(row) for row in records]
    print(f"\n{tables(rows)}\n")
    with tempfile.TemporaryDirectory() as folder:
        results = options.json or Path(folder, "scaling.json")
        write_json(results, records)
        if options.write:
            write(read([results]))
    return 0


def started(ranks: int, case: dict[str, Any]) -> list[Any]:
    """What the ranks of a case have measured."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    mpiexec = shutil.which("mpiexec", path=places)
    if mpiexec is None:
        raise SystemExit("error: there is no mpiexec: pip install 'fastrnn[mpi]'")
    command = [mpiexec, "-n", str(ranks), sys.executable, __file__, "--as-rank", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)}:\n{done.stderr}")
    found: list[Any] = json.loads(done.stdout)
    return found


# -- on a rank -------------------------------------------------------------------------------------


def as_rank(case: dict[str, Any]) -> int:
    """Measure a case; rank 0 prints it."""
    from fastrnn import distributed

    comm = distributed.mpi()
    found = {"ranks": compare, "shares": measure_shares}[case["do"]](comm, case)
    if comm.rank == 0:
        json.dump(found, sys.stdout)
    return 0


def compare(comm: Any, case: dict[str, Any]) -> list[Any]:
    """Seconds of steps: one process, the ranks, and the exchange by itself."""
    import numpy as np

    from fastrnn import backends

    check_losses(comm, case)
    whole = trainer(case, N, None, np.float32)
    shared = trainer(case, N, comm, np.float32)
    replica, kernels = shared.model._replica, backends.kernels(None)
    parts = {
        "one process": (lambda: whole(), True),
        "ranks": (lambda: shared(), False),
        "exchange": (lambda: replica._summed(kernels, 1), False),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    count = {}
    for name, (function, alone) in parts.items():
        calls(comm, function, alone, 3)
        taken = comm.each(calls(comm, function, alone, 3))[0]
        count[name] = max(3, int(case["seconds"] / taken))
    for _ in range(case["turns"]):
        for name, (function, alone) in parts.items():
            times[name].append(calls(comm, function, alone, count[name]))
    bytes_sent = replica.flat.nbytes
    return [[name, each, {"multiply_adds": bytes_sent}] for name, each in times.items()]


def check_losses(comm: Any, case: dict[str, Any]) -> None:
    """Fail unless the ranks learn what one process learns."""
    import numpy as np

    steps = 100 if case["seconds"] > 0.1 else 5
    one, many = trainer(case, N, None, np.float64), trainer(case, N, comm, np.float64)
    for _ in range(steps):
        a, b = one(), many()
        if abs(a - b) > AGREE * abs(a):
            raise SystemExit(f"the ranks' loss is {b!r}, that of one process {a!r}")


def trainer(case: dict[str, Any], sequences: int, comm: Any, dtype: Any, threads: int = 1) -> Any:
    """A function that takes a training step, and its `model`."""
    import numpy as np

    from fastrnn import LanguageModel
    from fastrnn.optim import Adam

    random = np.random.default_rng(0)
    X = random.integers(0, CLASSES, (case["T"] + 1, sequences))
    start, stop = (0, sequences) if comm is None else comm.share(sequences)
    x, y = np.ascontiguousarray(X[:-1, start:stop]), np.ascontiguousarray(X[1:, start:stop])
    model = LanguageModel(CLASSES, case["h"], cell=case["cell"], dtype=dtype, rng=0, num_threads=threads)
    adam = Adam(lr=1e-3)

    def step() -> float:
        return model.train_step(x, y, None, adam, comm=comm)[0]

    step.model = model  # type: ignore[attr-defined]
    step()
    return step


def calls(comm: Any, function: Callable[[], object], alone: bool, count: int) -> float:
    """Seconds of a call, which rank 0 makes alone while the others sleep, or all together."""
    taken = 0.0
    if not alone or comm.rank == 0:
        if not alone:
            comm.each(0)
        begin = time.perf_counter()
        for _ in range(count):
            function()
        taken = (time.perf_counter() - begin) / count
    if alone:  # not a barrier, whose waiting ranks take the cores
        request = comm._comm.Ibarrier()
        while not request.Test():
            time.sleep(0.001)
    return taken


def measure_shares(comm: Any, case: dict[str, Any]) -> list[Any]:
    """Seconds of a step over so many sequences, on all cores."""
    import numpy as np

    steps = {share: trainer(case, share, None, np.float32, CORES) for share in case["shares"]}
    size = sum(W.size for W in next(iter(steps.values())).model.parameters.values())
    count, times = {}, {share: [] for share in steps}  # type: ignore[var-annotated]
    for share, step in steps.items():
        count[share] = max(1, int(case["seconds"] / calls(comm, step, False, 2)))
    for _ in range(case["turns"] // 2):
        for share, step in steps.items():
            times[share].append(calls(comm, step, False, count[share]))
    return [["share", each, {"N": share, "multiply_adds": 4 * size}] for share, each in times.items()]


if __name__ == "__main__":
    sys.exit(main())
