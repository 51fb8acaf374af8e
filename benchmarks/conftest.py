"""Benchmarks, under pytest-benchmark: one file an operation, grouped by operation and size.

    pytest benchmarks                        # a short selection, about 2 minutes
    pytest benchmarks --all                  # every size, about half an hour
    pytest benchmarks --contender numba --contender reference -k "h100 and T100"

Every result is compared with the reference loop's before it is timed, compilation and first touch
happen in that check, and everything runs on one thread.  A contender that is not installed is
skipped with its reason.  `report.py` makes the tables of docs/benchmarks.md from the same cases.
"""

import fnmatch
import importlib.util
import os
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def set_up_path():
    """Let the files here import each other, and the installed fastrnn rather than ./fastrnn."""
    others = [folder for folder in sys.path if Path(folder or os.curdir).resolve() != HERE.parent]
    before, sys.path[:] = sys.path[:], others
    if importlib.util.find_spec("fastrnn") is None:
        sys.path[:] = before
    sys.path.insert(0, str(HERE))


set_up_path()

from thread_limits import limit_threads

limit_threads()

import batch_contenders
import contenders
import few_contenders
import gated_contenders
import sizes
import step_contenders
from installed import BACKEND_NAMES, machine, why_unavailable
from problems import Problem
from timing import clock

#: Seconds for which one case is repeated.
SHORT_SECONDS, ALL_SECONDS = 0.05, 0.15

REQUIRE_ALL = os.environ.get("FASTRNN_REQUIRE_ALL_BACKENDS") == "1"


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", dest="all_sizes", help="benchmark every size")
    parser.addoption(
        "--contender",
        action="append",
        choices=dict.fromkeys(
            (
                *contenders.CONTENDERS,
                *batch_contenders.CONTENDERS,
                *step_contenders.CONTENDERS,
                *gated_contenders.CONTENDERS,
                *few_contenders.CONTENDERS,
            )
        ),
        help="benchmark only this one (may be repeated)",
    )


def pytest_configure(config):
    # The peers' own warnings are not this project's to mend.
    config.addinivalue_line("filterwarnings", "default")


def pytest_collect_file(file_path, parent):
    """Collect bench_*.py, which pytest's own pattern leaves out."""
    if parent.session.isinitpath(file_path):
        return None  # named on the command line: pytest takes it by itself
    usual = any(fnmatch.fnmatch(file_path.name, p) for p in parent.config.getini("python_files"))
    if usual or not fnmatch.fnmatch(file_path.name, "bench_*.py"):
        return None
    return pytest.Module.from_parent(parent, path=file_path)


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["fastrnn"] = machine()


def pytest_generate_tests(metafunc):
    """A `problem` for each size and dtype, and a `contender` that has the module's OPERATION."""
    wanted = metafunc.config.getoption("contender") or contenders.CONTENDERS
    if "problem" in metafunc.fixturenames:
        operation = metafunc.module.OPERATION
        cases = [
            (problem, contender)
            for problem in problems(operation, metafunc.config.getoption("all_sizes"))
            for contender in contenders.contenders_of(operation, problem)
            if contender in wanted
        ]
        metafunc.parametrize(("problem", "contender"), cases, ids=[f"{c}-{p.label}" for p, c in cases])
    elif "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", [b for b in BACKEND_NAMES if b in wanted])


def problems(operation, all_sizes):
    """The problems of the short selection, or of the whole grid."""
    chosen = list(sizes.SIZES)
    if all_sizes:
        grid = [(h, T) for h in sizes.ALL_H for T in sizes.ALL_T]
        chosen = grid + [size for size in chosen if size not in grid]
    found = [Problem(h, T, dtype) for dtype in sizes.DTYPES for h, T in chosen]
    if operation in ("backward", "train_step"):
        found += [Problem(100, 100, dtype, binding=True) for dtype in sizes.DTYPES]
    return found


@pytest.fixture
def needs(request):
    """A function that skips the test when a contender is not wanted or not installed."""
    wanted = request.config.getoption("contender")

    def skip_without(contender):
        if contender is None:
            return
        if wanted and contender not in wanted:
            pytest.skip(f"{contender} is not among the contenders asked for")
        reason = why_unavailable(contender)
        if reason is not None:
            if REQUIRE_ALL and contender in BACKEND_NAMES:
                pytest.fail(f"every backend is required here: {reason}", pytrace=False)
            pytest.skip(reason)

    return skip_without


@pytest.fixture
def time_it(request, benchmark, needs):
    """A function that checks one contender's result for a problem, then times it."""
    seconds = ALL_SECONDS if request.config.getoption("all_sizes") else SHORT_SECONDS

    def check_and_time(operation, problem, contender, suite="operations"):
        needs(contender)
        benchmark.group = f"{suite}: {operation} {problem.label}"
        benchmark.extra_info.update(contenders.describe(suite, operation, problem, contender))
        began = time.perf_counter()
        call = contenders.checked_call(contender, operation, problem)
        rounds = 1
        if time.perf_counter() - began < 5:  # else one call alone takes long: it is warm, time one
            once, _ = clock(call)
            rounds = max(3, min(1000, int(seconds / once)))
        benchmark.pedantic(call, rounds=rounds)

    return check_and_time
