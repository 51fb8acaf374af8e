"""Shapes and values that hypothesis thinks of, against the reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import assert_close, pair, sequence, stream_state


def largest(arrays):
    return max(np.abs(a).max() for a in arrays)


def assert_together(got, want, single, before_clipping):
    """One scale for all five arrays, as a saturated unit's 1 - h^2 has lost its digits, plus roundings of
    sums that were larger before they were clipped.  Zeros fail."""
    tolerance, rounding = (1e-4, 2e-6) if single else (1e-10, 1e-13)
    for g, w in zip(got, want, strict=True):
        assert np.abs(g - w).max() <= tolerance * largest(want) + rounding * before_clipping


sizes = st.one_of(st.integers(1, 6), st.integers(1, 70))


@given(
    T=st.one_of(st.integers(1, 12), st.integers(1, 140)), d=sizes, h=sizes, q=sizes,
    seed=st.integers(0, 2**31), real=st.booleans(), single=st.booleans(),
    scale=st.floats(0, 0.9), gain=st.sampled_from([0.01, 1.0, 10.0]),
    clip=st.sampled_from(["step", "value", "norm", None]), threshold=st.floats(1e-3, 1e3),
)  # fmt: skip
def test_loss_and_gradients(backend, T, d, h, q, seed, real, single, scale, gain, clip, threshold):
    dtype = np.float32 if single else np.float64

    def prepare(weights):
        weights["Why"] *= gain

    rnn, reference = pair(d, h, q, backend=backend, dtype=dtype, seed=seed, scale=scale, prepare=prepare)
    args = sequence(T, d, h, q, dtype=dtype, real=real, seed=seed)
    with np.errstate(all="ignore"):
        loss, grads, h_last = reference.loss_and_grads(*args, clip=clip, clip_threshold=threshold)
    got_loss, got, got_h = rnn.loss_and_grads(*args, clip=clip, clip_threshold=threshold)
    tolerance = 1e-4 if single else 1e-10  # the worst of many random models, not the usual one
    assert got_loss == pytest.approx(loss, rel=tolerance, abs=1e-4 if single else 1e-12)
    assert_close(got_h, h_last, tolerance)
    # With one class all gradients are zero but for roundings of probabilities.
    unclipped = 1.0 + largest(reference.loss_and_grads(*args, clip=None)[1])
    assert_together(got, grads, single, unclipped)
    steps = rnn.forward(args[0], args[2])
    assert_together(rnn.backward(*steps, args[1]), reference.backward(*steps, args[1]), single, unclipped)


@given(
    d=st.integers(1, 40), h=sizes, n=st.integers(0, 150), seed=st.integers(0, 2**31),
    gain=st.sampled_from([0.0, 1.0, 30.0]),
)  # fmt: skip
def test_samples(backend, d, h, n, seed, gain):
    def prepare(weights):
        weights["Why"] *= gain

    rnn, reference = pair(d, h, d, backend=backend, seed=seed, prepare=prepare)
    before = np.random.get_state()
    state = np.random.default_rng(seed).normal(size=(h, 1))
    try:
        np.random.seed(seed)
        wanted = reference.sample(state, seed % d, n)
        left = stream_state()
        np.random.seed(seed)
        assert rnn.sample(state, seed % d, n) == wanted
        assert stream_state() == left
    finally:
        np.random.set_state(before)


@given(
    q=st.integers(1, 300), seed=st.integers(0, 2**31), spread=st.sampled_from([0.0, 1e-12, 1.0, 50.0, 800.0]),
    shift=st.floats(-1e6, 1e6),
)  # fmt: skip
def test_probabilities(backend, q, seed, spread, shift):
    rnn, reference = pair(2, 3, q, backend=backend, seed=seed)
    by = np.random.default_rng(seed).normal(size=(q, 1)) * spread + shift
    for model in (rnn, reference):
        model.by = by.copy()
    h = np.zeros((3, 1))
    _, _, ps = rnn.forward([0, 1, 0], h)
    assert (ps.array >= 0).all()
    assert np.abs(ps.array.sum(axis=1) - 1).max() < 1e-13
    _, _, wanted = reference.forward([0, 1, 0], h)
    # The logits have roundings of 1e-16 times their size, and exp carries them on.
    assert_close(ps[2], wanted[2], 1e-13 + 1e-15 * (abs(shift) + spread))


@given(data=st.data())
def test_indices_of_any_integer(backend, data):
    """In bounds: NumPy's meaning. Out of bounds: IndexError with the first bad one. Nothing else."""
    d = data.draw(st.integers(1, 300))
    near = st.integers(-d - 2, d + 1)
    indices = data.draw(st.lists(st.one_of(near, near, near, st.integers()), min_size=1, max_size=20))
    rnn, _ = pair(d, 2, 2, backend=backend)
    bad = [(t, i) for t, i in enumerate(indices) if not -d <= i < d]
    if bad:
        with pytest.raises(IndexError) as caught:
            rnn.forward(indices, np.zeros((2, 1)))
        assert f"inputs[{bad[0][0]}] is {bad[0][1]}," in str(caught.value) or abs(bad[0][1]) > 10**39
    else:
        xs, _, _ = rnn.forward(indices, np.zeros((2, 1)))
        assert [int(xs[t].argmax()) for t in xs] == [i % d for i in indices]
