"""`LanguageModel` with `recompute_every`: the same results in bounded memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import assert_close, bits, tolerance

from fastrnn import LanguageModel, optim


def batch(lm, T, N, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-lm.vocab_size, lm.vocab_size, size=(2, T, N))
    y = np.where(y < 0, np.where(y % 3, y + lm.vocab_size, -100), y)  # some count for nothing
    return x, y, (rng.normal(size=(lm.num_layers, N, lm.hidden_size)) * 0.5).astype(lm.dtype)


def assert_same(T, N, k, dtype, backend, *, q=9, h=10, num_layers=2, **options):
    """Two steps with and without recomputation, from the same parameters and random stream."""
    options = {"dtype": dtype, "rng": 3, "backend": backend, **options}
    lm = LanguageModel(q, h, num_layers, recompute_every=k, **options)
    all_kept = LanguageModel(q, h, num_layers, **options)
    assert lm.recompute_every == k
    x, y, h0 = batch(lm, T, N)
    for reduction in ("mean", "sum"):
        loss, grads, h_n = lm.loss_and_grads(x, y, h0, reduction=reduction)
        wanted, wanted_grads, wanted_h_n = all_kept.loss_and_grads(x, y, h0, reduction=reduction)
        assert loss == pytest.approx(wanted, rel=tolerance(dtype))
        assert_close(h_n, wanted_h_n, tolerance(dtype))
        for name, gradient in wanted_grads.items():
            assert_close(grads[name], gradient, tolerance(dtype), name)
            assert gradient.any(), name
        assert lm.rng.bit_generator.state == all_kept.rng.bit_generator.state
    assert_close(lm.forward(x, h0)[0], all_kept.forward(x, h0)[0], tolerance(dtype))
    assert lm.loss(x, y, h0)[0] == pytest.approx(all_kept.loss(x, y, h0)[0], rel=tolerance(dtype))


@pytest.mark.parametrize("options", [{}, {"dropout": 0.4}, {"nonlinearity": "relu", "num_layers": 3}])
@pytest.mark.parametrize("k", [1, 2, 5, 12, 13, 14, 1000])
def test_same_loss_states_and_gradients(k, options, dtype, backend):
    assert_same(13, 5, k, dtype, backend, **options)


@given(
    T=st.integers(1, 30), N=st.integers(1, 40), k=st.integers(1, 35), num_layers=st.integers(1, 3),
    q=st.integers(2, 20), h=st.integers(1, 20), dropout=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_random_shapes(T, N, k, num_layers, q, h, dropout, seed, backend):
    dropout *= num_layers > 1
    lm = LanguageModel(q, h, num_layers, dropout=dropout, dtype=np.float64, rng=seed, backend=backend)
    other = LanguageModel(
        q, h, num_layers, dropout=dropout, dtype=np.float64, rng=seed, backend=backend, recompute_every=k
    )
    x, y, h0 = batch(lm, T, N, seed)
    loss, grads, h_n = other.loss_and_grads(x, y, h0)
    wanted, wanted_grads, wanted_h_n = lm.loss_and_grads(x, y, h0)
    assert loss == pytest.approx(wanted, rel=1e-12)
    assert_close(h_n, wanted_h_n, 1e-12)
    for name, gradient in wanted_grads.items():
        # Where dropout has shut a path all but for the roundings of the other terms, compare with those.
        largest = max(np.abs(gradient).max(), 1e-3)
        assert np.abs(grads[name] - gradient).max() <= 1e-11 * largest, name


def test_training_goes_the_same_way(backend):
    models = [
        LanguageModel(9, 16, 2, dropout=0.2, dtype=np.float64, rng=1, backend=backend, recompute_every=k)
        for k in (None, 4)
    ]
    losses = []
    for lm in models:
        adam, h = optim.Adam(0.02, backend=backend), None
        x, y, _ = batch(lm, 15, 6)
        for _ in range(60):
            loss, h = lm.train_step(x, y, h, adam)
        losses.append(loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] < 1.5 < np.log(9)


@pytest.mark.parametrize("N", [5, 50])
def test_the_same_bits_on_any_number_of_threads(N, dtype, backend, small_work_shared):
    results = []
    for num_threads in (1, 2, 4):
        lm = LanguageModel(
            9,
            10,
            2,
            dropout=0.2,
            dtype=dtype,
            rng=0,
            backend=backend,
            recompute_every=4,
            num_threads=num_threads,
        )
        loss, grads, h_n = lm.loss_and_grads(*batch(lm, 11, N))
        results.append(bits(loss, h_n, *grads.values()))
    assert results[0] == results[1] == results[2]


def peak_of_a_step(lm, T, N):
    """Bytes that the first training step of a shape takes at most, its own arrays included."""
    x, y, h0 = batch(lm, 2, N)
    sgd = optim.SGD(1e-3, backend="numpy")
    lm.train_step(x, y, h0, sgd)  # what is loaded or compiled at first use
    x, y, h0 = batch(lm, T, N)
    tracemalloc.start()
    try:
        lm.train_step(x, y, h0, sgd)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.few(1)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_memory_is_bounded(num_layers, backend):
    """O(k N (h + q) + T/k N h) and the batch itself, against O(T N (h + q))."""
    T, N, h, q, k = 6400, 2, 24, 24, 80
    size = np.dtype(np.float32).itemsize
    peaks = [
        peak_of_a_step(LanguageModel(q, h, num_layers, rng=0, backend=backend, recompute_every=every), T, N)
        for every in (None, k)
    ]
    indices = 2 * 8 * T * N
    assert peaks[0] >= num_layers * T * N * h * size
    states = (T / k) * num_layers * N * (h * size + 256)  # one array for each chunk, with its head
    assert peaks[1] <= indices + states + 20 * k * N * (h + q) * size + 200_000
    assert peaks[1] - indices < 0.35 * (peaks[0] - indices)


@pytest.mark.few(0)
def test_a_very_long_sequence_trains(backend):
    """100 000 time steps, which would keep 25.6 MB of states, in a twentieth of that."""
    T, h, k = 100_000, 32, 320
    if backend == "numpy":
        T = 20_000  # at some microseconds a time step
    lm = LanguageModel(8, h, rng=0, dtype=np.float64, backend=backend, recompute_every=k)
    adam = optim.Adam(0.01, backend=backend)
    x = np.random.default_rng(0).integers(8, size=(T, 1))
    lm.train_step(x[:10], x[:10], None, adam)
    tracemalloc.start()
    try:
        losses = [lm.train_step(x, x, None, adam)[0] for _ in range(4)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - 2 * 8 * T < 0.25 * T * h * 8
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("bad", "error"),
    [(0, ValueError), (-3, ValueError), (2.5, TypeError), ("4", TypeError), (True, TypeError)],
)
def test_bad_values(bad, error):
    with pytest.raises(error, match="recompute_every"):
        LanguageModel(4, 5, recompute_every=bad)
