"""Cores that a process may use: of the machine, of its container, and of those who share them out among processes."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from functools import lru_cache
from pathlib import Path

__all__ = ["share_cores", "usable_cores"]


def usable_cores() -> int:
    """Cores that this process may use: what ``num_threads=None`` takes.

    Returns
    -------
    int
        At least 1, and fewer than the machine has

        - when the process is bound to some of them;
        - when a container (a control group of Linux) has a quota of processor time: that of 1.5 cores counts as 2.
          The quota is read once;
        - in a process that joblib started: its ``inner_max_num_threads``, or what joblib takes for it;
        - in a task of a Dask worker: the worker's threads, shared out among the tasks that it runs just now;
        - in one of several ranks of MPI on a machine: its share of the cores that they have together.

    Examples
    --------
    >>> usable_cores() >= 1
    True
    """
    cores: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(cores, _quota(), _of_joblib())
    if _ranks > 1:
        cores = cores // _ranks
    if "distributed.worker" in sys.modules:
        cores = min(cores, _of_dask())
    return max(1, math.ceil(cores))


#: Ranks that share the cores of this process with it, itself included.
_ranks = 1


def share_cores(ranks: int) -> None:
    """Note that so many processes, this one among them, share the cores that it may use."""
    global _ranks
    _ranks = ranks


@lru_cache(maxsize=1)
def _of_joblib() -> float:
    """Threads that joblib leaves to a worker process of its own; infinity elsewhere.

    joblib says it in variables that are set before the process starts, and that elsewhere are about other libraries.
    """
    process = sys.modules.get("multiprocessing.process")
    if process is not None and type(process.current_process()).__name__ == "LokyProcess":
        with contextlib.suppress(KeyError, ValueError):
            return max(1, int(os.environ["OMP_NUM_THREADS"]))
    return math.inf


def _of_dask() -> float:
    """Threads for a task of a Dask worker; infinity outside of one."""
    state = getattr(sys.modules["distributed.worker"], "thread_state", None)
    execution = getattr(state, "execution_state", None)  # of this thread
    try:
        worker = execution["worker"].state  # type: ignore[index]
        return max(1, int(worker.nthreads) // max(1, int(worker.executing_count)))
    except (AttributeError, KeyError, TypeError):  # no task, or a Dask that keeps it elsewhere
        return math.inf


@lru_cache(maxsize=1)
def _quota(root: Path = Path("/")) -> float:
    """Cores' worth of processor time that the control groups of this process allow; infinity for any.

    A group cannot have more than those around it.  Inside a container the group of the process, which
    /proc names as the machine sees it, often is not there, and the root folder is its own.
    """
    quotas = [math.inf]
    try:
        groups = (root / "proc/self/cgroup").read_bytes().splitlines()
    except OSError:  # not Linux
        return math.inf
    for line in groups:
        number, _, rest = os.fsdecode(line).partition(":")  # names may be any bytes
        controllers, _, name = rest.partition(":")
        if number == "0":
            mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            mounts = [root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup/cpu"]
        else:
            continue
        for mount in mounts:
            group = mount / name.lstrip("/")
            while group.is_relative_to(mount):
                quotas.append(_quota_of(group))
                group = group.parent
    return min(quotas)


def _quota_of(group: Path) -> float:
    """Quota of one control group, of version 2 or 1, in cores."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota = (group / "cpu.cfs_quota_us").read_text(encoding="utf-8")
        period = (group / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_of_joblib.cache_clear)
