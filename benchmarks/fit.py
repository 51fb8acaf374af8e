"""Time `fit` of the estimators beside a plain PyTorch loop with the same net, data and settings, and training steps alone.

    python benchmarks/fit.py --json fit.json
    python benchmarks/fit.py --only fit --data digits --cell gru --dtype float32
    python benchmarks/report_fit.py fit.json

Everybody may use as many threads as ``--threads`` says, two by default, and takes turns with the others; PyTorch runs on
one thread as well, in the same turns, where that may be faster.  Before, both train in float64 from the same weights
over the same batches, and their losses must agree.  Scores are accuracies on a test part, or coefficients of
determination.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sizes import DTYPES
from thread_limits import CORES, bind_to_cores, limit_threads

THREADS = min(2, CORES)

#: Seconds for each case; three turns are made in any case.
SECONDS = {"fit": 10.0, "step": 4.0}
SHORT_SECONDS = {"fit": 1.0, "step": 1.0}

#: A turn: long enough for the threads of the one before to have gone to sleep, or two calls.
BLOCK_SECONDS = 0.05

#: Hidden size and time steps up to which --quick measures steps by themselves.
QUICK_HIDDEN, QUICK_STEPS = 64, 8


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--json", type=Path, help="write the results here")
    made.add_argument("--short", action="store_true", help=f"{SHORT_SECONDS['fit']:g} second for each case")
    made.add_argument("--quick", action="store_true", help="rows that take no time, to see that all works")
    made.add_argument(
        "--seconds",
        type=float,
        help=f"for each case (default {SECONDS['fit']:g}, of a step {SECONDS['step']:g})",
    )
    made.add_argument("--threads", type=int, default=THREADS, help=f"of everybody (default {THREADS})")
    made.add_argument("--backend", help="of fastrnn (default: the fastest that is there)")
    made.add_argument("--only", choices=SECONDS, help="one of the two parts")
    made.add_argument(
        "--data", action="append", choices=("digits", "prefixes", "regression", "tagging"),
        help="only this, and no steps (may be repeated)",
    )  # fmt: skip
    made.add_argument("--cell", action="append", choices=("rnn", "gru", "lstm"), help="likewise")
    made.add_argument("--dtype", action="append", choices=DTYPES, help="likewise")
    made.add_argument("--hidden", action="append", type=int, metavar="H", help="likewise, by hidden size")
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if not 1 <= options.threads <= CORES:
        parser().error(f"--threads must be 1 to {CORES}, the cores of this process, got {options.threads}")
    limit_threads(options.threads)  # before the numerical libraries are loaded
    bind_to_cores(options.threads)
    from installed import BACKEND_NAMES, why_unavailable
    from records import write_json
    from report_fit import comparison
    from results import row_of

    import fastrnn

    backend = options.backend or fastrnn.backend()
    if backend not in BACKEND_NAMES:
        parser().error(f"--backend must be one of {', '.join(BACKEND_NAMES)}, got {backend}")
    missing = why_unavailable(backend)
    if missing is not None:
        print(f"error: {backend}: {missing}", file=sys.stderr)
        return 1
    with_torch = why_unavailable("torch") is None
    if not with_torch:
        print(f"left out: torch: {why_unavailable('torch')}; nothing is checked", file=sys.stderr)
    parts: dict[str, Any] = {"fit": fits(options), "step": steps(options)}
    records = []
    for part, cases in parts.items():
        if options.only in (None, part):
            for case in cases:
                found = list(measure(case, options.threads, backend, seconds_of(options, part), with_torch))
                records += found
                print(line(case, found), flush=True)
    if not records:
        print("error: there is no such case", file=sys.stderr)
        return 2
    print(f"\n{comparison([row_of(row) for row in records])}\n", flush=True)
    if options.json:
        write_json(options.json, records)
    return 0


def seconds_of(options: argparse.Namespace, part: str) -> float:
    """For each case."""
    if options.seconds is not None:
        return float(options.seconds)
    return 0.0 if options.quick else (SHORT_SECONDS if options.short else SECONDS)[part]


def fits(options: argparse.Namespace) -> Iterator[Any]:
    """The trainings that the options ask for."""
    from fit_contenders import FITS, quick

    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        print(f"left out: fit: {error}", file=sys.stderr)
        return
    chosen = [case for case in FITS if asked(options, case) and case.data in (options.data or [case.data])]
    yield from dict.fromkeys(map(quick, chosen)) if options.quick else chosen


def steps(options: argparse.Namespace) -> Iterator[Any]:
    """The steps that the options ask for."""
    from fit_contenders import STEPS

    if options.data:
        return
    for case in STEPS:
        small = case.h <= QUICK_HIDDEN and case.T <= QUICK_STEPS
        if asked(options, case) and (small or not options.quick):
            yield case


def asked(options: argparse.Namespace, case: Any) -> bool:
    """Whether the options ask for a case."""
    return all(
        not wanted or value in wanted
        for wanted, value in (
            (options.cell, case.cell),
            (options.dtype, case.dtype),
            (options.hidden, case.h),
        )
    )


def measure(
    case: Any, threads: int, backend: str, seconds: float, with_torch: bool = True
) -> Iterator[dict[str, Any]]:
    """One benchmark record for each contender."""
    import fit_contenders
    from fit_contenders import Fit, describe, in_turns
    from records import record
    from timing import time_alternately

    suite, more, scores, loop, theirs = "fit step", {}, {}, None, None
    if isinstance(case, Fit):
        suite = "fit"
        if with_torch:
            mine, other, loop = fit_contenders.checked_fits(case, threads, backend)
            scores = {backend: mine.score, "torch": other.score, fit_contenders.ONE_THREAD: other.score}
            theirs = loop.fit
        else:
            mine, _ = fit_contenders.train_ours(case, threads, backend)
            scores = {backend: mine.score}
        data = fit_contenders.data_of(case.data)
        X, y = data.X[: case.count], data.y[: case.count]
        more = {"text": case.text, "steps": case.epochs * -(-len(y) // case.N)}

        def ours() -> Any:
            return fit_contenders.estimator(case, threads, backend).fit(X, y)

    elif with_torch:
        ours, theirs = fit_contenders.checked_steps(case, threads, backend)
    else:
        ours = fit_contenders.our_step(case, fit_contenders.Batch(case), threads, backend)
    calls = in_turns(ours, theirs, threads, backend)
    for name, times in time_alternately(calls, seconds, BLOCK_SECONDS).items():
        info = describe(suite, case, name, threads, **more)
        if name in scores:
            info["score"] = scores[name]
        yield record(f"{suite}[{name}-{case.label}]", info, times, group=f"{suite}: {case.label}")


def line(case: Any, found: list[dict[str, Any]]) -> str:
    """Milliseconds of each, the shortest and the median, and the scores."""
    texts = []
    for row in found:
        info, stats = row["extra_info"], row["stats"]
        shown = f"{info['contender']} {stats['min'] * 1e3:.4g} (median {stats['median'] * 1e3:.4g})"
        if "score" in info:
            shown += f" score {info['score']:.4f}"
        texts.append(shown)
    return f"{found[0]['extra_info']['suite']:<8} {case.label}  ms: {'  '.join(texts)}"


if __name__ == "__main__":
    sys.exit(main())
