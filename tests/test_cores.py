"""`fastrnn.cores`: how many cores a process may use, and who says so."""

import os
import sys
import types

import numpy as np
import pytest

from fastrnn import cores


@pytest.fixture
def eight(monkeypatch):
    """A process of its own on a machine of eight cores."""
    monkeypatch.setattr(cores, "_quota", lambda: np.inf)
    monkeypatch.setattr(cores, "_of_joblib", lambda: np.inf)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def control_groups(root, groups, **quotas):
    """A file system as Linux shows control groups: /proc/self/cgroup and files of quotas."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for file, content in quotas.items():
        place = (
            root / "sys/fs/cgroup" / file.replace("__", "/").replace("_max", ".max").replace("_cfs", ".cfs")
        )
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    return cores._quota.__wrapped__(root)


@pytest.mark.parametrize(
    ("groups", "quotas", "number"),
    [
        ("0::/\n", {"cpu_max": "150000 100000\n"}, 1.5),  # Docker with --cpus 1.5
        ("0::/\n", {"cpu_max": "max 100000\n"}, np.inf),
        ("0::/\n", {}, np.inf),  # the root of the machine has none
        ("0::/a/b\n", {"a__cpu_max": "50000 100000", "a__b__cpu_max": "200000 100000"}, 0.5),
        ("0::/not/seen/from/inside\n", {"cpu_max": "300000 100000"}, 3),
        ("9:cpu,cpuacct:/d\n1:name=systemd:/\n", {"cpu,cpuacct__d__cpu_cfs_quota_us": "250000",
         "cpu,cpuacct__d__cpu_cfs_period_us": "100000"}, 2.5),
        ("1:cpu:/\n0::/\n", {"cpu__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_period_us": "100000"}, np.inf),
        ("0::/\n", {"cpu_max": "nonsense"}, np.inf),
        ("0::/\n", {"cpu_max": ""}, np.inf),
    ],
)  # fmt: skip
def test_quotas_of_containers(groups, quotas, number, tmp_path):
    assert control_groups(tmp_path, groups, **quotas) == number


@pytest.mark.parametrize("groups", [b"0::/\xff\n", b"no control group\n0::/\n", b"0::/a\x85b\n"])
def test_names_of_control_groups_may_be_any_bytes(groups, tmp_path):
    root = tmp_path / "root"
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_bytes(groups)
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n")
    assert cores._quota.__wrapped__(root) == 1.5


def test_no_quota_where_there_are_no_control_groups(tmp_path):
    assert cores._quota.__wrapped__(tmp_path) == np.inf


@pytest.mark.parametrize(("quota", "wanted"), [(0.1, 1), (1.5, 2), (2, 2), (100.0, 8), (np.inf, 8)])
def test_usable_cores_are_within_the_quota(quota, wanted, eight, monkeypatch):
    monkeypatch.setattr(cores, "_quota", lambda: quota)
    assert cores.usable_cores() == wanted


@pytest.mark.parametrize(("ranks", "wanted"), [(1, 8), (2, 4), (3, 2), (8, 1), (100, 1)])
def test_ranks_share_the_cores(ranks, wanted, eight, monkeypatch):
    monkeypatch.setattr(cores, "_ranks", 1)  # put back at the end
    cores.share_cores(ranks)
    assert cores.usable_cores() == wanted


# `_of_joblib`


class LokyProcess:
    pass


@pytest.mark.parametrize(
    ("process", "threads", "wanted"),
    [(LokyProcess, "3", 3), (LokyProcess, "0", 1), (LokyProcess, "many", np.inf), (LokyProcess, None, np.inf), (object, "3", np.inf)],
)  # fmt: skip
def test_what_joblib_leaves_to_a_worker(process, threads, wanted, monkeypatch):
    monkeypatch.setitem(
        sys.modules, "multiprocessing.process", types.SimpleNamespace(current_process=process)
    )
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert cores._of_joblib.__wrapped__() == wanted


# `_of_dask`


@pytest.mark.parametrize(
    ("threads", "tasks", "wanted"), [(1, 1, 1), (4, 1, 4), (4, 2, 2), (4, 9, 1), (16, 1, 8), (4, 0, 4)]
)
def test_what_a_dask_worker_leaves_to_a_task(threads, tasks, wanted, eight, monkeypatch):
    worker = types.SimpleNamespace(state=types.SimpleNamespace(nthreads=threads, executing_count=tasks))
    state = types.SimpleNamespace(execution_state={"worker": worker})
    monkeypatch.setitem(sys.modules, "distributed.worker", types.SimpleNamespace(thread_state=state))
    assert cores.usable_cores() == wanted


@pytest.mark.parametrize("state", [{}, {"execution_state": {}}, {"execution_state": {"worker": None}}])
def test_no_task_of_a_dask_worker(state, eight, monkeypatch):
    other = types.SimpleNamespace(thread_state=types.SimpleNamespace(**state))
    monkeypatch.setitem(sys.modules, "distributed.worker", other)
    assert cores.usable_cores() == 8
