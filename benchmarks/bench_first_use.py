"""What the first use costs: whole processes from start to end, and the compilation by itself."""

import pytest
from programs import CACHED, COLD, PROCESSES, REFERENCE_HELLO, WARM_UP, WARM_UPS, Runner

#: By the state of the cache; compiling from nothing takes long.
ROUNDS = {COLD: 3, CACHED: 9, None: 15}
SHORT_ROUNDS = {COLD: 1, CACHED: 3, None: 5}


@pytest.fixture(scope="session")
def warm_folder(tmp_path_factory):
    """Shared by the programs that are to find what an earlier one compiled."""
    return tmp_path_factory.mktemp("warm")


@pytest.fixture
def make_runner(tmp_path, warm_folder, needs):
    def make(program, backend, cache):
        needs(backend)
        return Runner(program, backend, cache, warm_folder if cache == CACHED else tmp_path)

    return make


@pytest.fixture
def rounds(request):
    """Rounds for a state of the cache."""
    return ROUNDS if request.config.getoption("all_sizes") else SHORT_ROUNDS


@pytest.fixture(scope="session")
def expected_hello(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    return Runner(REFERENCE_HELLO, None, None, folder)()


@pytest.mark.parametrize("label", PROCESSES)
def test_process(benchmark, make_runner, rounds, expected_hello, label):
    program, backend, cache = PROCESSES[label]
    run = make_runner(program, backend, cache)
    if cache == CACHED:
        run()
    benchmark.group = "first use: whole process"
    benchmark.extra_info.update({"suite": "process", "contender": label})
    printed = benchmark.pedantic(run, setup=run.setup, rounds=rounds[cache])
    if label.startswith("hello"):
        assert printed == expected_hello
    assert bool(run.compiled_files()) == (cache is not None)


@pytest.mark.parametrize("label", WARM_UPS)
def test_warmup(request, benchmark, make_runner, rounds, label):
    backend, cache = WARM_UPS[label]
    if cache == COLD and not request.config.getoption("all_sizes"):
        pytest.skip("compiles everything: --all runs it")
    run = make_runner(WARM_UP.format(backend=backend), backend, cache)
    run()
    assert bool(run.compiled_files()) == (cache is not None)
    seconds = []
    benchmark.group = "first use: every kernel of one dtype"
    benchmark.pedantic(lambda: seconds.append(float(run())), setup=run.setup, rounds=rounds[cache])
    # What counts is the time inside the process, beyond its imports.
    benchmark.extra_info.update({"suite": "warmup", "contender": label, "seconds": min(seconds)})
