"""Limit the numerical libraries to a number of threads.  Nothing else, and nothing that loads them."""

from __future__ import annotations

import os
import sys

#: Cores that this process may run on, before `bind_to_cores`.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(count: int = 1) -> None:
    """Set the variables that the numerical libraries read when they are loaded.

    Every program here begins with it, before it imports anything that loads NumPy.

    Parameters
    ----------
    count : int
        Threads of each library.

    Raises
    ------
    RuntimeError
        If it is too late.
    """
    variables = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(count)
    )
    if "numpy" in sys.modules and any(os.environ.get(k) != v for k, v in list(variables.items())[:2]):
        raise RuntimeError(
            f"NumPy was loaded before the benchmarks could limit it to {count} threads; set "
            f"OMP_NUM_THREADS={count} OPENBLAS_NUM_THREADS={count} in the environment"
        )
    if count == 1:
        # More than one: XLA takes the cores that the process is bound to.
        variables["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    os.environ.update(variables)


def bind_to_cores(count: int) -> None:
    """Let this process run on `count` of its cores only, where the system can do that.

    It is what keeps XLA to a number of threads, and it limits everybody.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
