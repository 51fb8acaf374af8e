"""One step of live data at a call: at two sizes in the short selection, at all of them with --all."""

import step_contenders
from gated_contenders import GATES
from sizes import DTYPES

SMALL = (32, 256)


def pytest_generate_tests(metafunc):
    wanted = metafunc.config.getoption("contender") or step_contenders.CONTENDERS
    cases = [
        (cell, h, dtype, contender)
        for cell in GATES
        for h in (step_contenders.HIDDEN if metafunc.config.getoption("all_sizes") else SMALL)
        for dtype in DTYPES
        for contender in step_contenders.contenders_of(dtype)
        if contender in wanted
    ]
    labels = [f"{contender.replace(' ', '-')}-{cell}-h{h}-{dtype}" for cell, h, dtype, contender in cases]
    metafunc.parametrize(("cell", "h", "dtype", "contender"), cases, ids=labels)


def test_step(benchmark, needs, cell, h, dtype, contender):
    needs(contender)
    call = step_contenders.checked_call(contender, h, dtype, cell=cell)
    benchmark.group = f"step {cell} h{h}-{dtype}"
    benchmark.extra_info.update(step_contenders.describe(contender, h, dtype, cell) | {"suite": "steps grid"})
    benchmark.pedantic(call, rounds=50, iterations=20, warmup_rounds=2)
