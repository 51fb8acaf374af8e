"""What `LanguageModel` allocates and keeps: nothing on later training steps, two shapes at most."""

import gc
import tracemalloc

import numpy as np
import pytest
from support import bits, growth

from fastrnn import LanguageModel, backends, optim, passes
from fastrnn.layout import ALIGNMENT
from fastrnn.passes import KEPT_SHAPES, MOST_SHAPES

#: Transient Python objects: tuples, views, what Numba makes of its arguments, and what helper threads have
#: not yet looked at.  The smallest array over time steps that is tested takes 12 800.
OBJECTS = 12_000


@pytest.fixture(params=["cython", "numba"])
def compiled(request):
    """The backends whose kernels allocate nothing themselves."""
    try:
        backends.load(request.param)
    except backends.BackendUnavailable as error:
        pytest.skip(str(error))
    return request.param


def batch(q, T, N, seed=0):
    x = np.random.default_rng(seed).integers(q, size=(T, N))
    return x, np.roll(x, -1, axis=0)


@pytest.mark.few(6)
@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam, optim.RMSprop])
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "dropout": 0.3}, {"num_layers": 2, "recompute_every": 10}]
)
@pytest.mark.parametrize(("T", "N"), [(50, 1), (30, 24), (64, 40)])
def test_a_training_step_allocates_nothing(T, N, options, optimizer, dtype, compiled):
    q, h = 40, 64
    lm = LanguageModel(q, h, rng=0, dtype=dtype, num_threads=2, backend=compiled, **options)
    optimizer = optimizer(lr=1e-3, backend=compiled)
    x, y = batch(q, T, N)
    state = lm.initial_state(N)

    def calls():
        nonlocal state
        for clip in ("norm", "value", None):
            for _ in range(3):
                _, state = lm.train_step(x, y, state, optimizer, clip=clip)

    calls()
    peak, kept = growth(calls)
    assert peak < OBJECTS, "a buffer was allocated"
    assert kept < OBJECTS, "memory was kept"


def test_the_measure_sees_arrays(compiled):
    """`loss_and_grads` returns new arrays, so it must fail the test above."""
    lm = LanguageModel(40, 64, rng=0, backend=compiled)
    x, y = batch(40, 25, 1)
    lm.loss_and_grads(x, y)
    peak, _ = growth(lambda: lm.loss_and_grads(x, y))
    assert peak > lm.num_parameters * 4


def test_training_and_validation_take_turns(compiled):
    """Two shapes and both kinds of call, without allocating anew."""
    lm = LanguageModel(40, 64, rng=0, backend=compiled)
    sgd, (x, y), (u, v) = optim.SGD(0.1, backend=compiled), batch(40, 25, 4), batch(40, 50, 2)

    def calls():
        for _ in range(3):
            lm.train_step(x, y, None, sgd)
            lm.loss(u, v)

    calls()
    assert growth(calls)[0] < OBJECTS


@pytest.mark.few(2)
@pytest.mark.parametrize("kept_bytes", [0, passes.KEPT_BYTES])
def test_what_is_kept_does_not_grow_with_the_number_of_shapes(backend, kept_bytes, monkeypatch):
    monkeypatch.setattr(passes, "KEPT_BYTES", kept_bytes)
    lm = LanguageModel(10, 16, rng=0, backend=backend)
    sgd, held = optim.SGD(0.1, backend=backend), []
    tracemalloc.start()
    try:
        for round_ in range(4):
            for T in range(20, 40):
                lm.train_step(*batch(10, T, 3), None, sgd)
                lm.loss(*batch(10, T, 3))
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
            assert len(lm._spaces) <= (MOST_SHAPES if kept_bytes else KEPT_SHAPES), round_
    finally:
        tracemalloc.stop()
    assert held[-1] - held[1] < 40_000  # a space of each shape takes 300 000


def test_shapes_that_fit_a_budget_are_kept_together(compiled, monkeypatch):
    """Batches of many lengths, in any order, have their memory after the first round."""
    lm = LanguageModel(10, 16, rng=0, backend=compiled)
    sgd, batches = optim.SGD(0.1, backend=compiled), [batch(10, T, 3) for T in range(20, 30)]

    def calls():
        for x, y in batches:
            lm.train_step(x, y, None, sgd)

    calls()
    assert len(lm._spaces) == len(batches)
    assert growth(calls)[0] < OBJECTS
    spaces = [space for kept in lm._spaces._free.values() for space in kept]
    monkeypatch.setattr(passes, "KEPT_BYTES", sum(space.nbytes for space in spaces[-5:]))
    lm.train_step(*batch(10, 40, 3), None, sgd)
    assert len(lm._spaces) == 6, "the five that fit, and the new one"


def test_no_old_space_is_held_while_a_new_one_is_made(backend, monkeypatch):
    """The peak of a step of a new shape is two spaces, not three."""
    monkeypatch.setattr(passes, "KEPT_BYTES", 0)
    lm = LanguageModel(10, 32, rng=0, backend=backend)
    sgd = optim.SGD(0.1, backend=backend)
    lm.train_step(*batch(10, 20, 2), None, sgd)
    tracemalloc.start()
    try:
        batches = [batch(10, T, 16) for T in (500, 501, 502, 503)]
        peaks = []
        for x, y in batches:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            lm.train_step(x, y, None, sgd)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert max(peaks[2:]) < 0.6 * peaks[0]


def test_h_n_is_one_of_two_arrays_that_take_turns(backend):
    lm = LanguageModel(10, 16, 2, rng=0, backend=backend)
    sgd, (x, y) = optim.SGD(0.1, backend=backend), batch(10, 6, 3)
    _, first = lm.train_step(x, y, None, sgd)
    kept = first.copy()
    _, second = lm.train_step(x, y, first, sgd)
    assert not np.shares_memory(first, second)
    assert bits(first) == bits(kept), "the state before the last one is still there"
    _, third = lm.train_step(x, y, second, sgd)
    assert third is first


def test_a_state_may_be_the_buffer_that_is_written_next(backend):
    """h0 is read before h_n is written, whichever of the two it is."""
    results = []
    for copied in (False, True):
        lm = LanguageModel(10, 16, 2, rng=0, dtype=np.float64, backend=backend)
        sgd, (x, y) = optim.SGD(0.1, backend=backend), batch(10, 6, 3)
        _, first = lm.train_step(x, y, None, sgd)
        lm.train_step(x, y, None, sgd)
        loss, h_n = lm.train_step(x, y, first.copy() if copied else first, sgd)
        results.append(bits(loss, h_n, *lm.parameters.values()))
    assert results[0] == results[1]


def test_results_are_the_callers(backend):
    """Of everything but `train_step`."""
    lm = LanguageModel(10, 16, 2, rng=0, backend=backend)
    x, y = batch(10, 6, 3)
    loss, grads, h_n = lm.loss_and_grads(x, y)
    assert lm.grads is grads
    results = [*grads.values(), h_n, *lm.forward(x), lm.loss(x, y)[1], *lm.sample(h_n, x[0], 4)]
    before = bits(*results)
    lm.train_step(y, x, h_n, optim.SGD(0.1, backend=backend))
    lm.loss_and_grads(y, x, h_n)
    lm.forward(y, h_n)
    lm.loss(y, x, h_n)
    lm.sample(h_n, y[0], 4)
    assert bits(*results) == before


def test_buffers_begin_at_cache_lines(dtype, backend):
    lm = LanguageModel(7, 5, 2, rng=0, dtype=dtype, backend=backend)
    _, grads, _ = lm.loss_and_grads(*batch(7, 3, 17))
    ((space,),) = lm._spaces._free.values()
    for array in (
        *grads.values(),
        *space.hs,
        *space.douts,
        *space.packed,
        space.gradients.sums,
        *space.works,
    ):
        assert array.flags.carray
        assert not array.size or array.ctypes.data % ALIGNMENT == 0
