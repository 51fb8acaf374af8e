"""Time a few sequences of a large net: fastrnn on all threads and on one, PyTorch and JAX, taking turns.

    python benchmarks/few.py --json few.json
    python benchmarks/few.py --hidden 512 --sequences 1 --only train --contender cython --contender jax
    python benchmarks/few.py --before ../fastrnn-of-before
    python benchmarks/few.py --busy --json few_busy.json

Everybody may use as many threads as ``--threads`` says, all cores by default, takes turns with the others, and is
checked before.  fastrnn runs on one thread as well, in the same turns, so that a ratio compares neighbours in time;
so does another copy of it, that of ``--before``, in a process of its own.  At the end the compiled kernels say how long
they wait for a helper, and how long the system takes for a bare wake.

With ``--busy`` another process keeps a core busy meanwhile.  fastrnn alone is timed, on all threads and on one, one call
after the other in turns, and all the time that the calls took counts, not the shortest.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizes import DTYPES, FEW_HIDDEN, FEW_OPERATIONS, FEW_SEQUENCES, FEW_STEPS, PERCENTILES
from thread_limits import CORES, bind_to_cores, limit_threads

if TYPE_CHECKING:
    from elsewhere import Elsewhere
    from few_contenders import Case

#: Seconds for each row: of turns, and beside a busy process.
SECONDS, BUSY_SECONDS, SHORT_SECONDS = 6.0, 3.0, 1.0

#: A turn: long enough for the threads of the one before to have gone to sleep, or two calls.
BLOCK_SECONDS = 0.05

#: Microseconds of pause before a helper is woken, and how often each is measured.
PAUSES, WAKES, SHORT_WAKES = (0, 50, 1000), 1000, 200

#: What --quick measures.
QUICK_HIDDEN, QUICK_SEQUENCES, QUICK_STEPS, QUICK_WAKES = (24,), (1, 3), 6, 20

ONLY = {"forward": "forward", "train": "train_step"}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--json", type=Path, help="write the results here")
    made.add_argument("--busy", action="store_true", help="beside a process that keeps a core busy")
    made.add_argument(
        "--before", type=Path, metavar="FOLDER", help="another copy of fastrnn, to compare with"
    )
    made.add_argument("--short", action="store_true", help=f"{SHORT_SECONDS:g} second for each case")
    made.add_argument("--quick", action="store_true", help="rows that take no time, to see that all works")
    made.add_argument(
        "--seconds", type=float, help=f"for each case (default {SECONDS:g}, or {BUSY_SECONDS:g} with --busy)"
    )
    made.add_argument("--threads", type=int, default=CORES, help=f"of everybody (default {CORES}, all cores)")
    made.add_argument("--only", choices=ONLY, help="one of the two operations")
    made.add_argument("--dtype", action="append", choices=DTYPES, help="only this (may be repeated)")
    made.add_argument(
        "--hidden", action="append", type=int, metavar="H", help="likewise, by hidden size, of any"
    )
    made.add_argument(
        "--sequences", action="append", type=int, metavar="N", help="likewise, by number of sequences"
    )
    made.add_argument("--contender", action="append", metavar="NAME", help="likewise")
    made.add_argument(
        "--no-waking", action="store_true", help="do not measure how long a helper takes to wake"
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if not 1 <= options.threads <= CORES:
        parser().error(f"--threads must be 1 to {CORES}, the cores of this process, got {options.threads}")
    for name in ("hidden", "sequences"):
        if any(size < 1 for size in getattr(options, name) or ()):
            parser().error(f"--{name} must be positive")
    if options.busy and options.before:
        parser().error("--before has no place beside --busy, which compares one and all threads")
    limit_threads(options.threads)  # before the numerical libraries are loaded
    bind_to_cores(options.threads)
    import few_contenders
    from elsewhere import Elsewhere, ElsewhereError
    from installed import why_unavailable
    from records import write_json
    from report_few import comparison, verdict
    from results import row_of

    wanted = options.contender or few_contenders.CONTENDERS
    for name in wanted:
        if name not in few_contenders.CONTENDERS:
            print(
                f"error: no contender {name!r}; there are: {', '.join(few_contenders.CONTENDERS)}",
                file=sys.stderr,
            )
            return 2
        reason = why_unavailable(name)
        if reason is not None:
            print(f"left out: {name}: {reason}", file=sys.stderr)
    records = []
    try:
        with Elsewhere(options.before) if options.before else contextlib.nullcontext() as before:
            for case in cases(options):
                if options.busy:
                    found = list(measure_busy(case, wanted, options.threads, seconds_of(options)))
                else:
                    found = list(measure(case, wanted, options.threads, seconds_of(options), before))
                records += found
                print(line(case, found), flush=True)
    except ElsewhereError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not options.busy and not options.no_waking and options.threads > 1:
        count = QUICK_WAKES if options.quick else SHORT_WAKES if options.short else WAKES
        records += measure_waking(count)
    rows = [row_of(row) for row in records]
    print("", *filter(None, [comparison(rows), verdict(rows)]), "", sep="\n\n", flush=True)
    if options.json:
        write_json(options.json, records)
    return 0


def seconds_of(options: argparse.Namespace) -> float:
    """For each case."""
    if options.seconds is not None:
        return float(options.seconds)
    if options.quick:
        return 0.0
    return SHORT_SECONDS if options.short else BUSY_SECONDS if options.busy else SECONDS


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """What the options ask for; both dtypes of a size one after the other, which share what is expected."""
    from few_contenders import Case

    steps = QUICK_STEPS if options.quick else FEW_STEPS
    for operation in [ONLY[options.only]] if options.only else FEW_OPERATIONS:
        for h in options.hidden or (QUICK_HIDDEN if options.quick else FEW_HIDDEN):
            for N in options.sequences or (QUICK_SEQUENCES if options.quick else FEW_SEQUENCES):
                for dtype in options.dtype or DTYPES:
                    yield Case(operation, h, N, dtype, steps)


def backends(case: Case, wanted: Any) -> list[str]:
    """Those of ours that are wanted and installed."""
    from installed import BACKEND_NAMES

    return [name for name in contenders(case, wanted) if name in BACKEND_NAMES]


def contenders(case: Case, wanted: Any) -> list[str]:
    """Those that are wanted, installed, and do the operation."""
    import few_contenders
    from installed import why_unavailable

    names = few_contenders.contenders_of(case.operation)
    return [name for name in names if name in wanted and why_unavailable(name) is None]


def measure(
    case: Case, wanted: Any, cores: int, seconds: float, before: Elsewhere | None = None
) -> Iterator[dict[str, Any]]:
    """One benchmark record for each contender that is installed, two for each of ours; of `before`, the same backend
    as the first of ours."""
    import few_contenders
    from records import record
    from timing import time_alternately

    expected = few_contenders.expected_of(case)
    ours = backends(case, wanted)
    counts = sorted({1, cores}, reverse=True)
    calls: dict[tuple[str, int], Any] = {}
    infos = {}
    for name in contenders(case, wanted):
        for threads in counts if name in ours else [cores]:
            calls[name, threads] = few_contenders.checked_call(name, case, threads, expected)
            infos[name, threads] = few_contenders.describe(name, case, threads, cores)
    if before is not None and ours:
        before.forget()
        name = f"{ours[0]}, before"
        for threads in counts:
            calls[name, threads] = before.checked_call(ours[0], case, threads, expected)
            info = few_contenders.describe(name, case, threads, cores)
            infos[name, threads] = info | {"kind": "before"}
    for key, times in time_alternately(calls, seconds, BLOCK_SECONDS).items():
        name, threads = key
        yield record(f"{case.label}[{name}-threads{threads}]", infos[key], times, group=f"few: {case.label}")


def measure_busy(case: Case, wanted: Any, cores: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Two benchmark records for each of our backends: the mean time of a call on all threads and on one, beside a
    process that keeps a core busy."""
    import few_contenders
    from neighbour import busy_neighbour
    from records import record
    from timing import time_every_call

    expected = few_contenders.expected_of(case)
    for name in backends(case, wanted):
        calls = {
            threads: few_contenders.checked_call(name, case, threads, expected)
            for threads in sorted({1, cores}, reverse=True)
        }
        with busy_neighbour():
            taken = time_every_call(calls, seconds)
        for threads, times in taken.items():
            info = few_contenders.describe(name, case, threads, cores)
            info |= {"suite": "few busy", "seconds": sum(times) / len(times)}
            yield record(
                f"{case.label}[{name}-threads{threads}-busy]", info, times, group=f"few busy: {case.label}"
            )


def measure_waking(count: int) -> Iterator[dict[str, Any]]:
    """One benchmark record for each pause after which a helper of the compiled kernels, or a thread of the system
    without anything around it, is woken; nothing where these kernels cannot say."""
    import numpy as np
    from installed import why_unavailable
    from records import record

    reason = why_unavailable("cython")
    wakes: dict[str, Callable[[], float]] = {}
    if reason is None:
        from fastrnn.kernels import cython_kernels

        for label, name in (("a helper", "team_wake_time"), ("a bare wake", "team_bare_wake_time")):
            if hasattr(cython_kernels, name):
                wakes[label] = getattr(cython_kernels, name)
            else:
                reason = f"these kernels have no {name}"
    if reason is not None:
        print(f"left out: waking: {reason}", file=sys.stderr)
        return
    for pause in PAUSES:
        found: dict[str, list[float]] = {label: [] for label in wakes}
        for _ in range(count):
            for label, wake in wakes.items():
                wake()
                _look_at_the_clock(pause / 1e6)
                nanoseconds = wake()
                if nanoseconds >= 0:  # else there is no helper to be had
                    found[label].append(max(nanoseconds, 1) / 1e9)
        for label, times in found.items():
            if not times:
                print(f"left out: waking: {label}, which there is none of", file=sys.stderr)
                continue
            info = {
                "suite": "few waking", "kind": "backend" if label == "a helper" else "floor", "contender": label,
                "operation": "wake", "pause": pause, "steps": len(times), "seconds": float(np.median(times)),
                "percentiles": [float(t) for t in np.percentile(times, PERCENTILES)],
            }  # fmt: skip
            yield record(f"wake[{label}-{pause}us]", info, times, group=f"few waking: {pause} us")


def _look_at_the_clock(seconds: float) -> None:
    """Pause as one who computes in between does: this core stays awake."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def line(case: Case, found: list[dict[str, Any]]) -> str:
    """Microseconds a time step of all sequences."""
    texts = []
    for row in found:
        info = row["extra_info"]
        name = info["contender"]
        if info["threads"] != info["cores"]:
            name += f" on {info['threads']}"
        texts.append(f"{name} {info.get('seconds', row['stats']['min']) / case.T * 1e6:.1f}")
    return f"{case.operation:<10} h={case.h} N={case.N} {case.dtype:<8} us/step: {'  '.join(texts)}"


if __name__ == "__main__":
    sys.exit(main())
