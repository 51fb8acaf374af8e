"""`SimpleRNN` against the notes' loop: every clip mode, both kinds of input, sizes across the edges of
the kernels (short sequences, blocks of time steps, SIMD tails), clamps that bind and that do not."""

import functools
import math

import numpy as np
import pytest
from support import assert_all_close, assert_close, assert_same_steps, bits, pair, parameters, sequence

LENGTHS = (1, 2, 3, 7, 8, 9, 16, 63, 64, 65, 100, 200)
HIDDEN = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 130)
CLIPS = ("step", "value", "norm", None)

#: Odd and even input and output sizes, cycled through the grid.
WIDTHS = ((1, 1), (3, 5), (5, 3), (17, 9), (8, 16), (65, 65), (33, 31), (2, 7))

reals = pytest.mark.parametrize("real", [False, True], ids=["indices", "vectors"])


def case(T, h):
    """The sizes and clip settings of one cell of the grid."""
    place = LENGTHS.index(T) * 5 + HIDDEN.index(h)
    d, q = WIDTHS[place % len(WIDTHS)]
    return d, q, place


@functools.cache
def wanted(T, h, dtype, real, clip):
    """What the reference makes of one cell: the same for every backend."""
    d, q, place = case(T, h)
    _, reference = pair(d, h, q, backend="numpy", dtype=dtype, seed=place)
    inputs, targets, h_prev = sequence(T, d, h, q, dtype=dtype, real=real, seed=place, h_scale=1.5)
    threshold = 5.0 if clip is None else (0.5, 5.0)[place % 2]
    loss, grads, h_last = reference.loss_and_grads(
        inputs, targets, h_prev.astype(np.float64), clip=clip, clip_threshold=threshold
    )
    return (inputs, targets, h_prev, threshold), (loss, grads, h_last)


@reals
@pytest.mark.parametrize("h", HIDDEN)
@pytest.mark.parametrize("T", LENGTHS)
def test_loss_and_grads(T, h, real, dtype, backend):
    d, q, place = case(T, h)
    rnn, _ = pair(d, h, q, backend=backend, dtype=dtype, seed=place)
    for clip in CLIPS:
        (inputs, targets, h_prev, threshold), (loss, grads, h_last) = wanted(T, h, dtype, real, clip)
        got = rnn.loss_and_grads(inputs, targets, h_prev, clip=clip, clip_threshold=threshold)
        assert type(got[0]) is float
        assert got[2].dtype == dtype
        assert all(g.dtype == dtype for g in got[1])
        assert got[0] == pytest.approx(loss, rel=1e-12 if dtype == np.float64 else 1e-5, abs=1e-300)
        assert_all_close(got[1], grads, what=f"clip={clip}")
        assert_close(got[2], h_last)


@reals
@pytest.mark.parametrize("T", LENGTHS)
def test_forward_then_backward(T, real, dtype, backend):
    for h in HIDDEN[T % 3 :: 3]:
        d, q, place = case(T, h)
        rnn, reference = pair(d, h, q, backend=backend, dtype=dtype, seed=place)
        inputs, targets, h_prev = sequence(T, d, h, q, dtype=dtype, real=real, h_scale=1.5)
        xs, hs, ps = rnn.forward(inputs, h_prev)
        rxs, rhs, rps = reference.forward(inputs, h_prev.astype(np.float64))
        assert_same_steps(hs, rhs, what=f"hs, h={h}")
        assert_same_steps(ps, rps, what=f"ps, h={h}")
        grads = rnn.backward(xs, hs, ps, targets)
        assert all(g.dtype == dtype for g in grads)
        assert_all_close(grads, reference.backward(rxs, rhs, rps, targets), what=f"h={h}")
        assert_same_steps(xs, rxs, 0, what=f"xs, h={h}")


def bind_some_rows(weights):
    """Three kinds of hidden unit: gradients far beyond the clamp, near it, far below it."""
    h = len(weights["Whh"])
    weights["Whh"] *= 0.1
    weights["Wxh"] *= 0.2
    weights["Why"] *= np.resize([20.0, 1.0, 0.01], h)


@reals
@pytest.mark.parametrize("threshold", [0.05, 1.0, 5.0, 1e9, math.inf])
@pytest.mark.parametrize(("T", "h"), [(3, 9), (8, 16), (65, 33), (130, 20), (200, 7)])
def test_step_clamp_binds_in_some_rows(T, h, threshold, real, dtype, backend):
    d, q = 7, 9
    rnn, reference = pair(d, h, q, backend=backend, dtype=dtype, prepare=bind_some_rows)
    inputs, targets, h_prev = sequence(T, d, h, q, dtype=dtype, real=real)
    targets = np.where(np.arange(T) % 3, targets, 0)  # a drift, so that sums reach the clamp
    args = inputs, targets, h_prev
    loss, grads, _ = reference.loss_and_grads(*args, clip="step", clip_threshold=threshold)
    _, free, _ = reference.loss_and_grads(*args, clip=None)
    binds = any(not np.array_equal(a, b) for a, b in zip(grads, free, strict=True))
    assert binds == (threshold <= 5.0)
    got_loss, got, _ = rnn.loss_and_grads(*args, clip="step", clip_threshold=threshold)
    assert got_loss == pytest.approx(loss, rel=1e-5)
    assert_all_close(got, grads)


@reals
@pytest.mark.parametrize("window", [(0, 6), (60, 68), (100, 110), (190, 200), (0, 200)])
def test_step_clamp_binds_in_some_time_blocks(window, real, dtype, backend):
    T, d, h, q = 200, 5, 19, 6

    def prepare(weights):
        bind_some_rows(weights)
        weights["Why"] *= 0.3
        weights["by"][0] = 12.0  # class 0 is nearly sure: no gradient where it is the target

    rnn, reference = pair(d, h, q, backend=backend, dtype=dtype, prepare=prepare)
    inputs, targets, h_prev = sequence(T, d, h, q, dtype=dtype, real=real)
    t = np.arange(T)
    targets = np.where((window[0] <= t) & (t < window[1]), targets, 0)
    _, grads, _ = reference.loss_and_grads(inputs, targets, h_prev, clip_threshold=0.8)
    _, free, _ = reference.loss_and_grads(inputs, targets, h_prev, clip=None)
    assert not np.allclose(grads[4], free[4])
    assert_all_close(rnn.loss_and_grads(inputs, targets, h_prev, clip_threshold=0.8)[1], grads)


@reals
def test_sum_returns_from_the_clamp(real, dtype, backend):
    """A running sum that reaches the clamp and comes back differs from the clamped total."""
    T, d, h, q = 160, 3, 10, 2
    rnn, reference = pair(d, h, q, backend=backend, dtype=dtype)
    inputs, _, h_prev = sequence(T, d, h, q, dtype=dtype, real=real)
    targets = np.repeat([0, 1], T // 2)
    _, grads, _ = reference.loss_and_grads(inputs, targets, h_prev, clip_threshold=2.0)
    _, value, _ = reference.loss_and_grads(inputs, targets, h_prev, clip="value", clip_threshold=2.0)
    assert np.abs(grads[4] - value[4]).max() > 0.5
    assert_all_close(rnn.loss_and_grads(inputs, targets, h_prev, clip_threshold=2.0)[1], grads)


@pytest.mark.parametrize("T", [3, 70])
def test_repeated_and_single_classes(T, dtype, backend):
    """One column of dWxh takes every gradient, the others stay zero."""
    rnn, reference = pair(6, 12, 4, backend=backend, dtype=dtype)
    _, targets, h_prev = sequence(T, 6, 12, 4, dtype=dtype)
    args = [3] * T, targets, h_prev
    _, grads, _ = rnn.loss_and_grads(*args)
    assert_all_close(grads, reference.loss_and_grads(*args)[1])
    assert not grads[0][:, [0, 1, 2, 4, 5]].any()
    assert grads[0][:, 3].any()


@reals
@pytest.mark.parametrize("scale", [1.5, 5.0])
def test_saturated_states(scale, real, backend):
    """Large recurrent weights: roundings grow along the sequence, so T is short and 1e-9 is asked."""
    rnn, reference = pair(5, 40, 6, backend=backend, scale=scale)
    args = sequence(12, 5, 40, 6, real=real)
    loss, grads, h_last = reference.loss_and_grads(*args)
    got_loss, got, got_h = rnn.loss_and_grads(*args)
    assert got_loss == pytest.approx(loss, rel=1e-10)
    assert_close(got_h, h_last, 1e-9)
    assert_all_close(got, grads, 1e-9)


@pytest.mark.parametrize("size", [1e3, 1e10, 1e30, 1e150])
def test_huge_weights_saturate_as_in_numpy(size, backend):
    def prepare(weights):
        for W in weights.values():
            W *= size

    rnn, reference = pair(5, 9, 6, backend=backend, prepare=prepare)
    inputs, targets, h_prev = sequence(20, 5, 9, 6)
    with np.errstate(all="ignore"):
        loss, grads, h_last = reference.loss_and_grads(inputs, targets, h_prev)
        _, rhs, rps = reference.forward(inputs, h_prev)
    assert loss == math.inf
    got_loss, got, got_h = rnn.loss_and_grads(inputs, targets, h_prev)
    assert got_loss == loss
    assert np.array_equal(got_h, h_last)
    _, hs, ps = rnn.forward(inputs, h_prev)
    assert_same_steps(hs, rhs, 1e-14)
    assert_same_steps(ps, rps, 1e-14)
    for g, w in zip(got, grads, strict=True):
        assert np.array_equal(np.isnan(g), np.isnan(w))
        assert np.allclose(g, w, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("gap", [30.0, 300.0, 700.0, 735.0])
def test_probabilities_down_to_the_smallest_number(gap, backend):
    """The loss of an unlikely class is its logit's distance, until NumPy's exp gives zero."""
    rnn, reference = pair(2, 3, 3, backend=backend)
    for model in (rnn, reference):
        model.by[:] = [[gap], [0.0], [0.0]]
        model.Why[:] = 0
    h = np.zeros((3, 1))
    loss, _, _ = reference.loss_and_grads([0, 1], [1, 2], h)
    assert loss == pytest.approx(2 * gap, rel=1e-3)
    assert rnn.loss_and_grads([0, 1], [1, 2], h)[0] == pytest.approx(loss, rel=1e-12)
    _, _, ps = rnn.forward([0, 1], h)
    assert_close(ps[0][1:], reference.forward([0, 1], h)[2][0][1:], 1e-12 if gap < 708 else 1e-3)


def test_equal_and_shifted_logits(dtype, backend):
    rnn, _ = pair(3, 4, 7, backend=backend, dtype=dtype)
    rnn.Why[:] = 0
    for shift in (0.0, 1e4, -1e4):
        rnn.by[:] = shift
        _, _, ps = rnn.forward([0, 1, 2], np.zeros((4, 1)))
        assert_close(ps.array, np.full((3, 7), 1 / 7), 1e-6 if dtype == np.float32 else 1e-15)


@reals
@pytest.mark.parametrize("T", [2, 9, 64, 130])
def test_user_written_states_and_probabilities(T, real, dtype, backend):
    """backward takes what the mappings hold, states beyond 1 and any probabilities as well."""
    d, h, q = 5, 18, 7
    rnn, reference = pair(d, h, q, backend=backend, dtype=dtype, scale=0.3)
    inputs, targets, h_prev = sequence(T, d, h, q, dtype=dtype, real=real)
    xs, hs, ps = rnn.forward(inputs, h_prev)
    hs.array[...] *= 2.5
    ps.array[...] = np.random.default_rng(5).normal(size=ps.array.shape)
    hs[T - 1][0] = 30.0
    wanted = reference.backward(*({t: s[t].astype(np.float64) for t in s} for s in (xs, hs, ps)), targets)
    # Slopes 1 - h^2 of -5 let gradients grow from step to step, and roundings with them.
    assert_all_close(rnn.backward(xs, hs, ps, targets), wanted, 1e-9 if dtype == np.float64 else 1e-3)


@reals
@pytest.mark.parametrize("clip", CLIPS)
def test_train_step_is_loss_and_grads_and_update(clip, real, dtype, backend):
    rnn, reference = pair(5, 33, 6, backend=backend, dtype=dtype)
    other, _ = pair(5, 33, 6, backend=backend, dtype=dtype)
    args = sequence(30, 5, 33, 6, dtype=dtype, real=real)
    loss, h_last = rnn.train_step(*args, 0.05, clip=clip, clip_threshold=0.7)
    other_loss, grads, other_h = other.loss_and_grads(*args, clip=clip, clip_threshold=0.7)
    other.update_weights(grads, lr=0.05)
    assert loss == other_loss
    assert bits(h_last, *parameters(rnn)) == bits(other_h, *parameters(other))
    before = [W.copy() for W in parameters(reference)]
    reference.train_step(*args, 0.05, clip=clip, clip_threshold=0.7)
    for name, W, wanted, old in zip(
        ["Wxh", "Whh", "Why", "bh", "by"], parameters(rnn), parameters(reference), before, strict=True
    ):
        assert_close(W, wanted, what=name)
        assert_close(W - old, wanted - old, 1e-11 if dtype == np.float64 else 1e-3, f"step of {name}")


def test_defaults_are_the_listings(backend):
    """No clip named: clamped at 5 after every step; no lr named: 0.1."""
    rnn, reference = pair(4, 20, 4, backend=backend, prepare=bind_some_rows)
    args = [1] * 150, [0] * 150, np.zeros((20, 1))
    _, grads, _ = rnn.loss_and_grads(*args)
    assert max(np.abs(g).max() for g in grads) == 5.0
    assert_all_close(grads, reference.backward(*reference.forward(args[0], args[2]), args[1]))
    before = [W.copy() for W in parameters(rnn)]
    rnn.train_step(*args)
    for W, old, g in zip(parameters(rnn), before, grads, strict=True):
        assert_close(W, old - 0.1 * g, 1e-15)


def test_fused_call_agrees_with_the_two_calls(dtype, backend):
    rnn, _ = pair(6, 24, 5, backend=backend, dtype=dtype)
    inputs, targets, h_prev = sequence(80, 6, 24, 5, dtype=dtype)
    xs, hs, ps = rnn.forward(inputs, h_prev)
    loss, grads, h_last = rnn.loss_and_grads(inputs, targets, h_prev)
    assert_all_close(grads, [g.astype(np.float64) for g in rnn.backward(xs, hs, ps, targets)])
    assert_close(h_last, hs[79])
    by_hand = -sum(math.log(ps[t][targets[t], 0]) for t in range(80))
    assert loss == pytest.approx(by_hand, rel=1e-12 if dtype == np.float64 else 1e-5)


@pytest.mark.slow
@reals
@pytest.mark.parametrize("h", [100, 256, 512])
def test_long_and_wide(h, real, dtype, backend):
    rnn, reference = pair(65, h, 65, backend=backend, dtype=dtype)
    args = sequence(1000, 65, h, 65, dtype=dtype, real=real)
    for clip in CLIPS:
        loss, grads, h_last = reference.loss_and_grads(*args, clip=clip)
        got_loss, got, got_h = rnn.loss_and_grads(*args, clip=clip)
        assert got_loss == pytest.approx(loss, rel=1e-5)
        assert_all_close(got, grads, what=f"clip={clip}")
        assert_close(got_h, h_last)
