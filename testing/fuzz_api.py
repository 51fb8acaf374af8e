"""Fuzz the public API: random objects, random calls with right, disguised and spoilt arguments.

Case K of seed S depends on these two numbers alone (but for when threads come, and what is trained without a seed).  Right calls are compared with NumPy's kernels in
float64, disguised ones (the same values in other memory) must give the same bits, and spoilt ones must return
or be refused with everything left as it was.  The cases run in a child process, so that a crash is reported
with its case.

    python testing/fuzz_api.py --seconds 60
    python testing/fuzz_api.py --seed 1 --case 234 --backend cython    # one case again
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import page
from fuzz import (
    commands,
    diagnosed,
    functional,
    layers,
    models,
    optimizers,
    resumed,
    simple,
    steppers,
    texts,
    threaded,
)
from fuzz.case import SANITIZED, Case
from fuzz.compare import Failure
from fuzz.values import Draw

import fastrnn

#: Name -> calls of a case, and how often it is drawn.
SCENARIOS = {
    "layers": (layers.run, 26), "models": (models.run, 28), "simple": (simple.run, 16),
    "steppers": (steppers.run, 12), "functional": (functional.run, 12), "optimizers": (optimizers.run, 10),
    "diagnosed": (diagnosed.run, 8), "threaded": (threaded.run, 3), "texts": (texts.run, 0.5),
    "resumed": (resumed.run, 0.8), "commands": (commands.run, 0.8),
}  # fmt: skip
WEIGHTS = np.cumsum([weight for _, weight in SCENARIOS.values()])

#: What is counted of each scenario; the file that the processes share has the case before these.
COUNTED = ("cases", "calls", "refused", "compared", "failures")

#: Seconds after which a case has hung; Numba compiles for a minute and more.
PATIENCE = {"numba": 600.0}
USUAL_PATIENCE = 120.0

#: With which a child ends that has reported what it found.  AddressSanitizer ends with 1.
FOUND = 3

#: After the text of the last call, in the file that has it when a child dies.
END = b"\0\n"

#: Bytes of memory that no case comes near, AddressSanitizer's own included.
MEMORY = 4 << 30


def main():
    options = parser().parse_args()
    if options.shared:
        return run(options)
    with tempfile.TemporaryDirectory() as folder:
        return watch(options, Path(folder) / "case")


def parser():
    made = page.parser(__doc__)
    made.add_argument("--seconds", type=float, default=60.0, help="how long (default 60)")
    made.add_argument("--cases", type=int, help="how many cases, however long they take")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--case", type=int, help="this case alone")
    made.add_argument("--first", type=int, default=0, help="the case to begin with")
    made.add_argument("--backend", default="cython", choices=("cython", "numba", "numpy"))
    made.add_argument("--only", choices=tuple(SCENARIOS), help="cases of this scenario")
    made.add_argument("--keep-going", action="store_true", help="go on after a failure")
    made.add_argument("--shared", help=argparse.SUPPRESS)
    return made


# -- the parent: it knows the case when a child dies ---------------------------------------------------


def watch(options, path):
    """Run children until time or cases are over; the status that the program ends with."""
    shared = np.memmap(path, np.int64, "w+", shape=1 + len(SCENARIOS) * len(COUNTED))
    last = path.with_suffix(".call")
    last.touch()
    begin, first, crashes = time.monotonic(), options.first, 0
    while True:
        rest = options.seconds - (time.monotonic() - begin)
        if crashes and options.cases is None and rest <= 0:
            break
        command = [sys.executable, __file__, "--shared", str(path), "--seed", str(options.seed), "--backend",
                   options.backend, "--first", str(first), f"--seconds={rest}"]  # fmt: skip
        command += ["--case", str(options.case)] if options.case is not None else []
        command += ["--only", options.only] if options.only else []
        command += ["--keep-going"] if options.keep_going else []
        if options.cases is not None:
            left = options.first + options.cases - first
            if left <= 0:
                break
            command += ["--cases", str(left)]
        try:
            status = follow(command, shared, PATIENCE.get(options.backend, USUAL_PATIENCE))
        except KeyboardInterrupt:
            break
        if status in (0, FOUND):
            break
        case = int(shared[0])
        crashes += 1
        print(f"\nFAILED seed {options.seed} case {case}: the process ended with status {status}")
        print(f"  {last.read_bytes().partition(END)[0].decode(errors='replace')}")
        print(f"repeat: {again(options, case)}", flush=True)
        if not options.keep_going or options.case is not None:
            break
        first = case + 1
    failures = crashes + int(counts(shared)[:, -1].sum())
    report(options, shared, failures, time.monotonic() - begin)
    if options.write:
        write(counts(shared))
    return 1 if failures or not counts(shared)[:, 0].sum() else 0


def follow(command, shared, patience):
    """Wait for a child, and stop it where one case takes too long or too much; its status.

    Ctrl-C comes to this process alone: cases have signals of their own."""
    child = subprocess.Popen(command, start_new_session=True)
    try:
        return followed(child, shared, patience)
    finally:
        child.kill()
        child.wait()


def followed(child, shared, patience):
    case, since = -1, time.monotonic()
    while True:
        try:
            return child.wait(1.0)
        except subprocess.TimeoutExpired:
            if shared[0] != case:
                case, since = int(shared[0]), time.monotonic()
            wrong = ""
            if time.monotonic() - since > patience:
                wrong = f"a case has taken {patience:.0f} s"
            elif resident(child.pid) > MEMORY:
                wrong = f"a case has taken {MEMORY >> 30} GB"
            if wrong:
                print(wrong, flush=True)
                child.send_signal(signal.SIGABRT)  # faulthandler shows where it is
                return child.wait()


def resident(pid):
    """Bytes of memory that a process has, 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def again(options, case):
    only = f" --only {options.only}" if options.only else ""
    return f"{before()}python testing/fuzz_api.py --seed {options.seed} --case {case} --backend {options.backend}{only}"


def counts(shared):
    return np.asarray(shared[1:]).reshape(len(SCENARIOS), len(COUNTED))


def report(options, shared, failures, seconds):
    """What was done, by scenario."""
    print("scenario   " + "".join(f"{name:>10}" for name in COUNTED))
    for name, row in zip(SCENARIOS, counts(shared), strict=True):
        print(f"{name:11}" + "".join(f"{n:10}" for n in row))
    total = counts(shared).sum(axis=0)
    print(f"{'together':11}" + "".join(f"{n:10}" for n in total))
    print(
        f"backend {options.backend}, seed {options.seed}, last case {int(shared[0])}, {seconds:.1f} s, "
        f"{total[0] / max(seconds, 1e-9):.0f} cases a second, {failures} failures"
    )


def before():
    """What is typed before the command: an instruction set, and the sanitizers."""
    level = os.environ.get("FASTRNN_SIMD", "")
    return f"FASTRNN_SIMD={level} " * bool(level) + "python testing/sanitized.py FOLDER " * SANITIZED


def write(counted):
    """Put what was done into the page, under the name of the instruction set."""
    rows = zip((*SCENARIOS, "**all**"), (*counted, counted.sum(axis=0)), strict=True)
    figures = page.table(["", *COUNTED], [[name, *row] for name, row in rows])
    page.write(f"fuzz_api {os.environ.get('FASTRNN_SIMD', '')}".strip(), figures, before=before())


# -- the child ----------------------------------------------------------------------------------------


def run(options):
    """Run cases one after the other; the number of the one that runs is in the shared file."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    shared = np.memmap(options.shared, np.int64, "r+")
    table = shared[1:].reshape(len(SCENARIOS), len(COUNTED))
    last = os.open(Path(options.shared).with_suffix(".call"), os.O_WRONLY)
    fastrnn.set_backend(options.backend)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background; some cases are interrupted
        signal.signal(signal.SIGINT, signal.default_int_handler)
    parent = os.getppid()
    end = time.monotonic() + options.seconds
    case, status = options.first if options.case is None else options.case, 0
    stop = case + (1 if options.case is not None else options.cases or 2**62)
    counted = options.cases is not None or options.case is not None
    with np.errstate(all="ignore"):
        while case < stop and (counted or time.monotonic() < end) and os.getppid() == parent:
            shared[0] = case
            if not one(
                options, case, table, lambda text: os.pwrite(last, text.encode(errors="replace") + END, 0)
            ):
                status = FOUND
                if not options.keep_going:
                    break
            case += 1
    return status


def one(options, number, table, tell=str):
    """Run a case; whether nothing was found."""
    draw = Draw(np.random.default_rng([options.seed, number]))
    at = int(np.searchsorted(WEIGHTS, draw.rng.random() * WEIGHTS[-1], side="right"))
    name = list(SCENARIOS)[at]
    if options.only and name != options.only:
        return True
    case = Case(draw, options.backend, tell=tell)
    case.tell(name)
    np.random.seed([options.seed % 2**32, number % 2**32])
    found = None
    try:
        SCENARIOS[name][0](case)
    except Failure as failure:
        found = str(failure)
    except Exception:
        found = traceback.format_exc()
    table[at] += [1, case.counts.calls, case.counts.refused, case.counts.compared, found is not None]
    if found is None:
        return True
    pair = getattr(case, "pair", None)
    try:
        subject = repr(pair)
    except Exception as error:
        subject = f"(no repr: {error!r})"
    lines = [f"\nFAILED seed {options.seed} case {number}: {name}, {subject}"]
    if pair is not None:
        lines.append(
            f"dtype {pair.dtype}, backend {options.backend}, {os.environ.get('FASTRNN_SIMD', 'best')} level"
        )
    lines += [f"  {text}" for text in case.history[-8:]]
    print("\n".join([*lines, found.rstrip(), f"repeat: {again(options, number)}"]), flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
