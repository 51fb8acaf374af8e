"""GRU and LSTM over a batch: a small one in the short selection, all sizes of the tables with --all.  Everybody on one
thread; `gated.py` measures on every core."""

import gated_contenders
from sizes import DTYPES

SMALL = ((32, 10, 4),)


def pytest_generate_tests(metafunc):
    wanted = metafunc.config.getoption("contender") or gated_contenders.CONTENDERS
    cases = [
        (operation, cell, shape, dtype, contender)
        for operation in gated_contenders.OPERATIONS
        for cell in gated_contenders.CELLS
        for shape in (gated_contenders.SHAPES if metafunc.config.getoption("all_sizes") else SMALL)
        for dtype in DTYPES
        for contender in gated_contenders.contenders_of(operation, dtype)
        if contender in wanted
    ]
    labels = [
        f"{contender}-{operation.replace(' ', '-')}-{cell}-h{h}-T{T}-N{N}-{dtype}"
        for operation, cell, (h, T, N), dtype, contender in cases
    ]
    metafunc.parametrize(("operation", "cell", "shape", "dtype", "contender"), cases, ids=labels)


def test_gated(benchmark, needs, operation, cell, shape, dtype, contender):
    needs(contender)
    problem = gated_contenders.Problem(cell, *shape, dtype)
    call = gated_contenders.checked_call(contender, operation, problem, 1)
    h, T, N = shape
    benchmark.group = f"{operation} {cell} h{h}-T{T}-N{N}-{dtype}"
    info = gated_contenders.describe(contender, operation, problem, 1)
    benchmark.extra_info.update(info | {"suite": "gated grid"})
    benchmark.pedantic(call, rounds=5, iterations=1, warmup_rounds=1)
