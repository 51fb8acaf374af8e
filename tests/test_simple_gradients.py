"""Gradients of `SimpleRNN` against central differences and the scalar oracle; clip modes against their
definitions."""

import math

import numpy as np
import oracle
import pytest
from support import assert_all_close, assert_close, bits, central_differences, pair, parameters, sequence

reals = pytest.mark.parametrize("real", [False, True], ids=["indices", "vectors"])


@reals
@pytest.mark.parametrize(("T", "d", "h", "q"), [(1, 1, 1, 1), (3, 2, 5, 3), (10, 4, 9, 3), (66, 3, 4, 5)])
def test_central_differences(T, d, h, q, real, backend):
    rnn, _ = pair(d, h, q, backend=backend)
    args = sequence(T, d, h, q, real=real)
    _, grads, _ = rnn.loss_and_grads(*args, clip=None)
    for W, g in zip(parameters(rnn), grads, strict=True):
        numeric = central_differences(lambda: rnn.loss_and_grads(*args)[0], W)
        # The error of central differences is of the order step^2, and of roundings / step.
        assert np.abs(numeric - g).max() < 1e-6
        assert q == 1 or np.abs(numeric).max() > 1e-2  # so zeros would fail


@reals
@pytest.mark.parametrize("limit", [0.25, 5.0])
@pytest.mark.parametrize("T", [1, 5, 20])
def test_scalar_oracle(T, limit, real, backend):
    d, h, q = 3, 4, 5
    rnn, _ = pair(d, h, q, backend=backend, scale=1.5)
    inputs, targets, h_prev = sequence(T, d, h, q, real=real)
    xs = inputs.tolist() if real else [oracle.one_hot(i, d) for i in inputs]
    Wxh, Whh, Why, bh, by = (W.tolist() for W in parameters(rnn))
    bh, by, classes = [b for (b,) in bh], [b for (b,) in by], [int(c) % q for c in targets]
    hs, ps = oracle.forward(Wxh, Whh, Why, bh, by, xs, h_prev.ravel().tolist())
    grads = oracle.backward(Wxh, Whh, Why, xs, hs, ps, classes, limit)
    loss, got, h_last = rnn.loss_and_grads(inputs, targets, h_prev, clip_threshold=limit)
    assert loss == pytest.approx(oracle.loss(ps, classes), rel=1e-13)
    assert_all_close(got, [np.array(g).reshape(len(g), -1) for g in grads], 1e-12)
    assert_close(h_last.ravel(), hs[-1], 1e-13)


@reals
@pytest.mark.parametrize("T", [4, 90])
def test_value_clips_each_entry_once(T, real, dtype, backend):
    rnn, _ = pair(5, 21, 6, backend=backend, dtype=dtype)
    args = sequence(T, 5, 21, 6, dtype=dtype, real=real)
    _, plain, _ = rnn.loss_and_grads(*args, clip=None)
    _, clipped, _ = rnn.loss_and_grads(*args, clip="value", clip_threshold=0.125)
    assert bits(*clipped) == bits(*(np.clip(g, -0.125, 0.125) for g in plain))
    assert max(np.abs(g).max() for g in plain) > 0.125


@reals
@pytest.mark.parametrize("threshold", [1e-3, 0.5, 1e6])
def test_norm_rescales_all_five_together(threshold, real, dtype, backend):
    rnn, _ = pair(5, 21, 6, backend=backend, dtype=dtype)
    args = sequence(30, 5, 21, 6, dtype=dtype, real=real)
    _, plain, _ = rnn.loss_and_grads(*args, clip=None)
    _, clipped, _ = rnn.loss_and_grads(*args, clip="norm", clip_threshold=threshold)
    norm = oracle.norm([g.astype(np.float64).tolist() for g in plain])
    assert_all_close(clipped, [g.astype(np.float64) * threshold / max(threshold, norm) for g in plain])
    got = oracle.norm([g.astype(np.float64).tolist() for g in clipped])
    assert got == pytest.approx(min(norm, threshold), rel=1e-12 if dtype == np.float64 else 1e-5)


@pytest.mark.parametrize("power", [0.4, 0.51, 0.75])
def test_norm_rescales_gradients_whose_squares_overflow(power, dtype, backend):
    """Large inputs behind small weights: states as ever, and a gradient for the weights as large as the inputs."""
    size = float(np.finfo(dtype).max) ** power
    rnn, _ = pair(5, 21, 6, backend=backend, dtype=dtype)
    inputs, targets, h_prev = sequence(30, 5, 21, 6, dtype=dtype, real=True)
    inputs *= size
    rnn.Wxh /= dtype(size)
    _, plain, _ = rnn.loss_and_grads(inputs, targets, h_prev, clip=None)
    _, clipped, _ = rnn.loss_and_grads(inputs, targets, h_prev, clip="norm", clip_threshold=0.5)
    scaled = [g.astype(np.float64) / size for g in plain]
    norm = oracle.norm([g.tolist() for g in scaled])
    assert norm > 1e-3
    assert_all_close(clipped, [g * 0.5 / norm for g in scaled], 1e-10 if dtype == np.float64 else 1e-4)


@pytest.mark.parametrize("clip", ["step", "value", "norm"])
def test_a_threshold_out_of_reach_changes_nothing(clip, dtype, backend):
    rnn, _ = pair(5, 21, 6, backend=backend, dtype=dtype)
    args = sequence(70, 5, 21, 6, dtype=dtype)
    _, plain, _ = rnn.loss_and_grads(*args, clip=None)
    for threshold in (1e12, math.inf):
        _, clipped, _ = rnn.loss_and_grads(*args, clip=clip, clip_threshold=threshold)
        assert_all_close(clipped, [g.astype(np.float64) for g in plain])
    assert_all_close(rnn.loss_and_grads(*args, clip=clip, clip_threshold=math.inf)[1], plain, 0)


def test_loss_does_not_depend_on_clipping(backend):
    rnn, _ = pair(5, 21, 6, backend=backend)
    args = sequence(40, 5, 21, 6)
    losses = {
        rnn.loss_and_grads(*args, clip=c, clip_threshold=0.1)[0] for c in ("step", "value", "norm", None)
    }
    assert len(losses) == 1


def test_gradients_of_the_listing_shrink_the_loss(dtype, backend):
    rnn, _ = pair(5, 21, 6, backend=backend, dtype=dtype)
    inputs, targets, h_prev = sequence(20, 5, 21, 6, dtype=dtype)
    before, grads, _ = rnn.loss_and_grads(inputs, targets, h_prev)
    rnn.update_weights(grads, lr=1e-3)
    after, _, _ = rnn.loss_and_grads(inputs, targets, h_prev)
    squares = sum(float((g.astype(np.float64) ** 2).sum()) for g in grads)
    assert before - after == pytest.approx(1e-3 * squares, rel=0.2)
