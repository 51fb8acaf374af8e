"""Batches through `LanguageModel`, and through PyTorch and JAX: a small one in the short selection, all
of them with --all.  Everybody on one thread, fastrnn on two as well; `batched.py` measures on every core."""

import batch_contenders
from installed import BACKEND_NAMES
from problems import Batch
from sizes import BATCH_OPERATIONS, BATCHES, DTYPES

SMALL = (64, 25, 16)


def pytest_generate_tests(metafunc):
    wanted = metafunc.config.getoption("contender") or batch_contenders.CONTENDERS
    sizes = (SMALL, *BATCHES) if metafunc.config.getoption("all_sizes") else (SMALL,)
    cases = [
        (operation, Batch(*size, dtype), contender, threads)
        for operation in BATCH_OPERATIONS
        for dtype in DTYPES
        for size in sizes
        for contender in batch_contenders.contenders_of(operation)
        for threads in ((1, 2) if contender in BACKEND_NAMES else (1,))
        if contender in wanted
    ]
    labels = [
        f"{operation}-{contender.replace(', ', '-').replace(' ', '-')}-{batch.label}-threads{threads}"
        for operation, batch, contender, threads in cases
    ]
    metafunc.parametrize(("operation", "batch", "contender", "threads"), cases, ids=labels)


def test_batched(request, benchmark, needs, operation, batch, contender, threads):
    needs(contender)
    call = batch_contenders.checked_call(contender, operation, batch, threads)
    benchmark.group = f"batched: {operation} {batch.label}"
    info = batch_contenders.describe(operation, batch, contender, threads, cores=1)
    benchmark.extra_info.update(info | {"suite": "batched grid"})
    benchmark.pedantic(call, rounds=30 if request.config.getoption("all_sizes") else 5)
