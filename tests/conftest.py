"""What the whole suite shares: one fixture that yields each backend, one for the dtypes, options."""

import collections
import contextlib
import gc
import importlib
import importlib.util
import os
import random
import signal
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))  # the tests import support.py and oracle.py beside them


def find_the_installed_package():
    """Take the checkout's root off `sys.path` when fastrnn is installed elsewhere.

    ``python -m pytest`` puts it there, and ./fastrnn would be tested in place of the installed copy,
    which is the one that has the compiled kernels.
    """
    root = Path(__file__).resolve().parent.parent
    kept = [folder for folder in sys.path if Path(folder or os.curdir).resolve() != root]
    before, sys.path[:] = sys.path[:], kept
    if importlib.util.find_spec("fastrnn") is None:
        sys.path[:] = before


find_the_installed_package()

import support

import fastrnn
from fastrnn import backends, passes, threads

IN_CI = support.IN_CI
REQUIRE_ALL = IN_CI or os.environ.get("FASTRNN_REQUIRE_ALL_BACKENDS") == "1"

#: What runs without --all-cases: random cases of a test (values of its parameter ``seed``), and cases of it
#: altogether unless its mark ``few`` names another number.
FEW_SEEDS, FEW = 2, 10

hypothesis.settings.register_profile("few", deadline=None, max_examples=10)
hypothesis.settings.register_profile("all", deadline=None, max_examples=30, derandomize=IN_CI)
hypothesis.settings.register_profile("slow", deadline=None, max_examples=500)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the long soaks, and every case")
    parser.addoption(
        "--all-cases",
        action="store_true",
        help="run every case, not a few of each test; of huge products, many",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: a long soak, run with --slow only")
    config.addinivalue_line(
        "markers", "few(n): takes long, so n of its cases run without --all-cases; it may be none"
    )
    config.addinivalue_line(
        "markers", "many(n): a huge product, of which --all-cases runs n and --slow runs all"
    )
    # In the background, or under nohup, these are ignored, as they would be by the programs that tests start; a
    # handler is not handed on to them.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    slow, every = config.getoption("--slow"), config.getoption("--all-cases")
    hypothesis.settings.load_profile("slow" if slow else "all" if every else "few")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="a long soak: --slow runs it"))
    named = any("::" in argument for argument in config.args)
    if not named:
        kept = set(many(items) if config.getoption("--all-cases") else a_few(items))
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]


def a_few(items):
    """Some cases of each test: the same ones each time, from all over its parameters."""
    tests = collections.defaultdict(list)
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is None or callspec.indices.get("seed", 0) < FEW_SEEDS:
            tests[item.nodeid.partition("[")[0]].append(item)
    for name, cases in tests.items():
        mark = cases[0].get_closest_marker("few")
        number = FEW if mark is None else mark.args[0]
        yield from cases if len(cases) <= number else random.Random(name).sample(cases, number)


def many(items):
    """Every case of each test, but for those that are marked."""
    tests = collections.defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    for name, cases in tests.items():
        mark = cases[0].get_closest_marker("many")
        number = len(cases) if mark is None else min(mark.args[0], len(cases))
        yield from cases if number == len(cases) else random.Random(name).sample(cases, number)


def pytest_collection_finish(session):
    # Twenty thousand tests stay until the end: what collects garbage need not look at them each time.
    gc.freeze()


@pytest.fixture(scope="session", params=list(backends.BACKENDS))
def backend(request):
    """Name of each backend in turn; one that is missing is an error in CI, a skip elsewhere."""
    try:
        backends.load(request.param)
    except fastrnn.BackendUnavailable as error:
        if REQUIRE_ALL:
            pytest.fail(f"every backend is required here: {error}", pytrace=False)
        pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="session", params=[np.float64, np.float32], ids=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.fixture
def kernels(backend):
    """The kernels of each backend in turn."""
    return backends.load(backend)


@pytest.fixture
def small_work_shared(monkeypatch):
    """However small the work is, threads share it, and go on together however late one of them is."""
    for name, value in (("SMALL", 0), ("SHORT", 0), ("SHARE", 1), ("SWEEP", 1), ("TRIED", False)):
        monkeypatch.setattr(threads, name, value)
    with teams_for_certain():
        yield


@contextlib.contextmanager
def teams_for_certain():
    """Teams of threads that are not dissolved for lateness, as on a machine with more cores and no neighbours."""
    try:
        kernels = backends.load("cython")
    except fastrnn.BackendUnavailable:
        yield
        return
    kernels.team_settings(50.0, -1.0)
    try:
        yield
    finally:
        kernels.team_settings(50.0, 200.0)


@pytest.fixture
def threads_used(monkeypatch):
    """The numbers of threads that were at work, one for each time that work could be shared."""
    used, run, members = [], threads.run, passes.Space.members

    def recording(function, count, number):
        used.append(number)
        return run(function, count, number)

    def recording_members(space, *arguments):
        used.append(members(space, *arguments))
        return used[-1]

    monkeypatch.setattr(threads, "run", recording)
    monkeypatch.setattr(passes.Space, "members", recording_members)
    return used


@pytest.fixture
def import_benchmark(monkeypatch):
    """A function that imports a module of benchmarks/; all of them are forgotten afterwards."""
    folder = Path(__file__).resolve().parent.parent / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for file in folder.glob("*.py"):
        if file.stem != "conftest":
            sys.modules.pop(file.stem, None)


@pytest.fixture(scope="session")
def torch():
    """PyTorch, for tests in modules that import `torch_support`, which skips them where it is missing."""
    import torch

    torch.set_num_threads(1)
    return torch
