"""What `SequenceModel` allocates and keeps: nothing on later training steps, nothing of the caller's."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from support import bits
from test_language_model_memory import OBJECTS, compiled, growth

from fastrnn import LanguageModel, SequenceModel, optim, passes
from fastrnn.passes import KEPT_SHAPES, MOST_SHAPES

__all__ = ["compiled"]  # a fixture

HEADS = ["each", "last", "mean"]

#: The same with NumPy's buffers, where a batch is ragged or weighted.  The smallest array over the time steps that is
#: tested then takes 490 000.
BUFFERS = 200_000

#: The same where a mean is multiplied by a column.
OBJECTS_OF_A_MEAN = 60_000


def batch(sm, T, N, seed=0):
    rng = np.random.default_rng(seed)
    rows = (T, N) if sm.head == "each" else (N,)
    x = rng.normal(size=(T, N, sm.input_size)).astype(sm.dtype)
    if "'cross_entropy'" in repr(sm):
        return x, rng.integers(sm.output_size, size=rows)
    return x, rng.normal(size=(*rows, sm.output_size)).astype(sm.dtype)


def steps_of(sm, T, N, kind, backend):
    """A function that trains some steps."""
    adam, (x, y) = optim.Adam(1e-3, backend=backend), batch(sm, T, N)
    rng, more = np.random.default_rng(1), {}
    if "ragged" in kind:
        more["lengths"] = rng.integers(1, T + 1, N)
    if "weighted" in kind:
        more["weights"] = rng.random((T, N) if sm.head == "each" else N).astype(sm.dtype)
    state = sm.initial_state(N)

    def calls():
        nonlocal state
        for clip in ("norm", "value", None):
            for _ in range(2):
                _, state = sm.train_step(x, y, state, adam, clip=clip, **more)

    return calls


@pytest.mark.many(60)
@pytest.mark.few(6)
@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": True}, {"num_layers": 2, "dropout": 0.3}, {"num_layers": 2, "recompute_every": 10},
     {"cell": "lstm"}, {"cell": "gru", "bidirectional": True}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "gaussian"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("T", "N"), [(50, 1), (30, 24)])
def test_a_training_step_allocates_nothing(T, N, head, loss, options, dtype, compiled):
    sm = SequenceModel(
        20, 64, 6, head=head, loss=loss, rng=0, dtype=dtype, num_threads=2, backend=compiled, **options
    )
    calls = steps_of(sm, T, N, "whole", compiled)
    calls()
    peak, kept = growth(calls)
    assert peak < (OBJECTS_OF_A_MEAN if head == "mean" else OBJECTS), "a buffer was allocated"
    assert kept < OBJECTS, "memory was kept"


@pytest.mark.many(60)
@pytest.mark.few(3)
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 3, "bidirectional": True, "dropout": 0.3}, {"num_layers": 2, "recompute_every": 16},
                {"cell": "lstm", "num_layers": 2}], ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["whole", "ragged", "ragged, weighted"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "gaussian"])
@pytest.mark.parametrize("head", HEADS)
def test_a_ragged_training_step_allocates_no_array_over_time(head, loss, kind, options, dtype, compiled):
    sm = SequenceModel(
        48, 48, 6, head=head, loss=loss, rng=0, dtype=dtype, num_threads=2, backend=compiled, **options
    )
    calls = steps_of(sm, 64, 40, kind, compiled)
    calls()
    peak, kept = growth(calls)
    assert peak < (OBJECTS_OF_A_MEAN if kind == "whole" else BUFFERS), "a buffer was allocated"
    assert kept < OBJECTS, "memory was kept"


@pytest.mark.few(2)
@pytest.mark.parametrize("head", HEADS)
def test_the_measure_sees_arrays(head, compiled):
    sm = SequenceModel(20, 48, 6, head=head, rng=0, backend=compiled)
    x, y = batch(sm, 25, 2)
    sm.loss_and_grads(x, y)
    peak, _ = growth(lambda: sm.loss_and_grads(x, y))
    assert peak > sm.num_parameters * 4


@pytest.mark.few(3)
@pytest.mark.parametrize("head", HEADS)
def test_batches_whose_lengths_take_turns(head, compiled):
    """Ragged and not, weighted and not, classes and vectors: all in the memory of their shape."""
    sm = SequenceModel(20, 40, 6, head=head, loss="cross_entropy", rng=0, backend=compiled)
    sgd, (x, y) = optim.SGD(0.1, backend=compiled), batch(sm, 200, 40)
    classes = np.random.default_rng(0).integers(20, size=(200, 40))
    lengths, weights = np.arange(161, 201), np.ones(40, np.float32)

    def calls():
        for given in (x, classes):
            sm.train_step(given, y, None, sgd)
            sm.train_step(given, y, None, sgd, lengths=lengths)
            sm.train_step(given, y, None, sgd, lengths=lengths[::-1], weights=weights)
            sm.train_step(given, y, None, sgd, weights=weights)

    calls()
    assert len(sm._spaces) == 2
    peak, kept = growth(calls)
    assert peak < BUFFERS
    assert kept < OBJECTS


@pytest.mark.few(5)
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("call", ["train_step", "loss_and_grads", "loss", "forward", "refused"])
def test_what_the_caller_gives_is_not_held(call, head, ragged, backend):
    """x, y, h0, lengths and weights go when the caller lets go of them; after an error as well."""
    sm = SequenceModel(4, 6, 3, head=head, rng=0, backend=backend)
    x, y = batch(sm, 30, 5)
    h0 = np.zeros((1, 5, 6), np.float32)
    lengths, weights = np.arange(26, 31), np.ones(5, np.float32)
    refs = [weakref.ref(a) for a in (x, y, h0, lengths, weights)]
    more = {"lengths": lengths} if ragged else {}
    if call == "train_step":
        sm.train_step(x, y, h0, optim.SGD(0.1, backend=backend), weights=weights, **more)
    elif call == "forward":
        sm.forward(x, h0, **more)
    elif call == "refused":
        with pytest.raises(ValueError, match="weights"):
            sm.loss_and_grads(x, y, h0, weights=-weights, **more)
    else:
        getattr(sm, call)(x, y, h0, weights=weights, **more)
    del x, y, h0, lengths, weights, more
    gc.collect()
    assert [
        name for name, ref in zip(("x", "y", "h0", "lengths", "weights"), refs, strict=True) if ref()
    ] == []


@pytest.mark.few(2)
@pytest.mark.parametrize("kept_bytes", [0, passes.KEPT_BYTES])
def test_what_is_kept_does_not_grow_with_the_number_of_shapes(backend, kept_bytes, monkeypatch):
    monkeypatch.setattr(passes, "KEPT_BYTES", kept_bytes)
    sm = SequenceModel(4, 8, 2, bidirectional=True, head="mean", rng=0, backend=backend)
    sgd, held = optim.SGD(0.1, backend=backend), []
    tracemalloc.start()
    try:
        for round_ in range(4):
            for T in range(3, 23):
                x, y = batch(sm, T, 3)
                sm.train_step(x, y, None, sgd, lengths=[T, 1, 2])
                sm.loss(x, y)
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
            assert len(sm._spaces) <= (MOST_SHAPES if kept_bytes else KEPT_SHAPES), round_
    finally:
        tracemalloc.stop()
    assert held[-1] - held[1] < 40_000  # a space of each shape takes 300 000


@pytest.mark.few(3)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("ragged", [False, True])
def test_no_old_space_is_held_while_a_new_one_is_made(ragged, head, backend, monkeypatch):
    """The peak of a step of a new shape is two spaces, not three; none waits for the garbage collector."""
    monkeypatch.setattr(passes, "KEPT_BYTES", 0)
    sm = SequenceModel(4, 32, 2, bidirectional=True, head=head, rng=0, backend=backend)
    sgd = optim.SGD(0.1, backend=backend)
    sm.train_step(*batch(sm, 20, 2), None, sgd)
    batches = [batch(sm, T, 16) for T in (100, 101, 102, 103)]
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        peaks = []
        for x, y in batches:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            sm.train_step(x, y, None, sgd, lengths=np.full(16, 70) if ragged else None)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
        gc.enable()
    assert max(peaks[2:]) < 0.6 * peaks[0]


@pytest.mark.few(3)
@pytest.mark.parametrize("head", HEADS)
def test_recomputation_takes_less(head, backend):
    """Of 2000 steps, those of 50: states of one chunk, and one for each."""
    peaks = []
    for every in (None, 50):
        sm = SequenceModel(2, 24, 1, head=head, rng=0, backend=backend, recompute_every=every)
        sgd = optim.SGD(1e-3, backend=backend)
        sm.train_step(*batch(sm, 3, 2), None, sgd)
        x, y = batch(sm, 2000, 2)
        tracemalloc.start()
        try:
            sm.train_step(x, y, None, sgd)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[0] > 2000 * 2 * 24 * 4
    assert peaks[1] < 0.35 * peaks[0]


@pytest.mark.parametrize("kind", [LanguageModel, SequenceModel])
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_h_n_is_one_of_two_arrays_that_take_turns(cell, kind, backend):
    if kind is LanguageModel:
        model = LanguageModel(10, 16, 2, cell=cell, rng=0, backend=backend)
        x = np.random.default_rng(0).integers(10, size=(6, 3))
        y = x
    else:
        model = SequenceModel(4, 16, 2, 2, cell=cell, head="last", rng=0, backend=backend)
        x, y = batch(model, 6, 3)
    sgd = optim.SGD(0.1, backend=backend)
    parts = (lambda state: state) if cell == "lstm" else (lambda state: (state,))
    _, first = model.train_step(x, y, None, sgd, lengths=[6, 2, 3])
    kept = bits(*parts(first))
    _, second = model.train_step(x, y, first, sgd, lengths=[1, 2, 3])
    assert bits(*parts(first)) == kept
    assert not any(np.shares_memory(a, b) for a, b in zip(parts(first), parts(second), strict=True))
    _, third = model.train_step(x, y, second, sgd)
    assert all(a is b for a, b in zip(parts(third), parts(first), strict=True))


def test_all_that_is_kept_is_counted(backend):
    """The padded inputs of ragged batches are, which are much larger than the states where inputs are wide."""
    sm = SequenceModel(2000, 8, 1, head="last", loss="mse", rng=0, backend=backend)
    sgd, rng = optim.SGD(0.1, backend=backend), np.random.default_rng(0)
    tracemalloc.start()
    try:
        for T in range(3, 30):
            x, lengths = rng.normal(size=(T, 32, 2000)).astype(np.float32), rng.integers(1, T + 1, 32)
            lengths[0] = T
            sm.train_step(x, np.zeros((32, 1), np.float32), None, sgd, lengths=lengths)
        del x
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    counted = sum(space.nbytes for spaces in sm._spaces._free.values() for space in spaces)
    assert held == pytest.approx(counted, rel=0.05, abs=200_000)
    assert held < passes.KEPT_BYTES * 1.3
