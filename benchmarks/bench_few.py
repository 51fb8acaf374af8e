"""A few sequences of a large net: two small rows in the short selection, all of the tables with --all.  Everybody on one
thread, fastrnn on two as well; `few.py` measures on every core."""

import few_contenders
from installed import BACKEND_NAMES
from sizes import DTYPES, FEW_HIDDEN, FEW_OPERATIONS, FEW_SEQUENCES

SMALL = ((96, 1, 8), (96, 3, 8))


def pytest_generate_tests(metafunc):
    wanted = metafunc.config.getoption("contender") or few_contenders.CONTENDERS
    sizes = [(h, N) for h in FEW_HIDDEN for N in FEW_SEQUENCES]
    cases = [
        (few_contenders.Case(operation, h, N, dtype, *T), contender, threads)
        for operation in FEW_OPERATIONS
        for h, N, *T in (sizes if metafunc.config.getoption("all_sizes") else SMALL)
        for dtype in DTYPES
        for contender in few_contenders.contenders_of(operation)
        for threads in ((1, 2) if contender in BACKEND_NAMES else (1,))
        if contender in wanted
    ]
    labels = [
        f"{contender.replace(', ', '-').replace(' ', '-')}-{case.label}-threads{threads}"
        for case, contender, threads in cases
    ]
    metafunc.parametrize(("case", "contender", "threads"), cases, ids=labels)


def test_few(benchmark, needs, case, contender, threads):
    needs(contender)
    call = few_contenders.checked_call(contender, case, threads)
    benchmark.group = f"few: {case.label}"
    info = few_contenders.describe(contender, case, threads, cores=1)
    benchmark.extra_info.update(info | {"suite": "few grid"})
    benchmark.pedantic(call, rounds=5, iterations=1, warmup_rounds=1)
