"""One step of live data at a call: at two sizes in the short selection, at all of them with --all."""

import step_contenders
from sizes import DTYPES

SMALL = (32, 256)


def pytest_generate_tests(metafunc):
    wanted = metafunc.config.getoption("contender") or step_contenders.CONTENDERS
    cases = [
        (h, dtype, contender)
        for h in (step_contenders.HIDDEN if metafunc.config.getoption("all_sizes") else SMALL)
        for dtype in DTYPES
        for contender in step_contenders.contenders_of(dtype)
        if contender in wanted
    ]
    labels = [f"{contender.replace(' ', '-')}-h{h}-{dtype}" for h, dtype, contender in cases]
    metafunc.parametrize(("h", "dtype", "contender"), cases, ids=labels)


def test_step(benchmark, needs, h, dtype, contender):
    needs(contender)
    call = step_contenders.checked_call(contender, h, dtype)
    benchmark.group = f"step h{h}-{dtype}"
    benchmark.extra_info.update(step_contenders.describe(contender, h, dtype) | {"suite": "steps grid"})
    benchmark.pedantic(call, rounds=50, iterations=20, warmup_rounds=2)
