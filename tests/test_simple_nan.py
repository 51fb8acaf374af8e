"""NaN, infinity and overflow follow NumPy's result: the reference's pattern, no crash, no hang, no
warning.  A product of zero and NaN counts, so one bad column of Wxh reaches every one-hot input."""

import math
import warnings

import numpy as np
import pytest
from support import PARAMETERS, assert_same_steps, pair, sequence

D, H, Q = 5, 19, 6
reals = pytest.mark.parametrize("real", [False, True], ids=["indices", "vectors"])


def assert_same_pattern(got, want, what):
    """NaN and infinity where the reference has them, numbers close to its numbers elsewhere."""
    got, want = np.asarray(got, np.float64), np.asarray(want)
    assert np.array_equal(np.isnan(got), np.isnan(want)), f"{what}: NaN in other places"
    assert np.array_equal(np.where(np.isinf(got), got, 0), np.where(np.isinf(want), want, 0)), what
    finite = np.isfinite(want)
    assert np.allclose(got[finite], want[finite], rtol=1e-4, atol=1e-4), what


def compare(rnn, reference, args, clips=("step", "value", "norm", None)):
    with np.errstate(all="ignore"):
        rxs, rhs, rps = reference.forward(args[0], args[2])
        wanted = {clip: reference.loss_and_grads(*args, clip=clip) for clip in clips}
        wanted_backward = reference.backward(rxs, rhs, rps, args[1])
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        xs, hs, ps = rnn.forward(args[0], args[2])
        results = {clip: rnn.loss_and_grads(*args, clip=clip) for clip in clips}
        backward = rnn.backward(xs, hs, ps, args[1])
    for t in rhs:
        assert_same_pattern(hs[t], rhs[t], f"hs[{t}]")
    for t in rps:
        assert_same_pattern(ps[t], rps[t], f"ps[{t}]")
    for clip, (loss, grads, h_last) in wanted.items():
        got_loss, got, got_h = results[clip]
        assert_same_pattern(got_loss, loss, f"clip={clip} loss")
        assert_same_pattern(got_h, h_last, f"clip={clip} h_last")
        for name, g, w in zip(PARAMETERS, got, grads, strict=True):
            assert_same_pattern(g, w, f"clip={clip} d{name}")
    for name, g, w in zip(PARAMETERS, backward, wanted_backward, strict=True):
        assert_same_pattern(g, w, f"backward d{name}")


@reals
@pytest.mark.parametrize("T", [3, 10, 70])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", PARAMETERS)
def test_one_bad_weight(name, bad, T, real, dtype, backend):
    rnn, reference = pair(D, H, Q, backend=backend, dtype=dtype)
    args = sequence(T, D, H, Q, dtype=dtype, real=real)
    for place in [(0, 0), (-1, -1)]:
        for model in (rnn, reference):
            getattr(model, name)[place] = bad
        compare(rnn, reference, args)


@pytest.mark.parametrize("T", [3, 10, 70])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_column_that_no_input_looks_up(bad, T, dtype, backend):
    rnn, reference = pair(D, H, Q, backend=backend, dtype=dtype)
    _, targets, h_prev = sequence(T, D, H, Q, dtype=dtype)
    for model in (rnn, reference):
        model.Wxh[7, 3] = bad
    compare(rnn, reference, (np.arange(T) % 3, targets, h_prev))


@reals
@pytest.mark.parametrize("T", [3, 10, 70])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_first_state(bad, T, real, dtype, backend):
    rnn, reference = pair(D, H, Q, backend=backend, dtype=dtype)
    inputs, targets, h_prev = sequence(T, D, H, Q, dtype=dtype, real=real)
    h_prev[4] = bad
    compare(rnn, reference, (inputs, targets, h_prev))


@pytest.mark.parametrize("T", [3, 10, 70])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_input_vector(bad, T, dtype, backend):
    rnn, reference = pair(D, H, Q, backend=backend, dtype=dtype)
    inputs, targets, h_prev = sequence(T, D, H, Q, dtype=dtype, real=True)
    inputs[T // 2, 1] = bad
    compare(rnn, reference, (inputs, targets, h_prev))


@reals
@pytest.mark.parametrize("T", [3, 10, 70])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["hs", "ps"])
def test_bad_values_written_into_the_mappings(which, bad, T, real, dtype, backend):
    rnn, reference = pair(D, H, Q, backend=backend, dtype=dtype)
    inputs, targets, h_prev = sequence(T, D, H, Q, dtype=dtype, real=real)
    xs, hs, ps = rnn.forward(inputs, h_prev)
    {"hs": hs, "ps": ps}[which][T // 2][2] = bad
    with np.errstate(all="ignore"):
        wanted = reference.backward(*({t: s[t].astype(np.float64) for t in s} for s in (xs, hs, ps)), targets)
    for name, g, w in zip(PARAMETERS, rnn.backward(xs, hs, ps, targets), wanted, strict=True):
        assert_same_pattern(g, w, f"d{name}")


@reals
def test_everything_bad(real, dtype, backend):
    rnn, reference = pair(D, H, Q, backend=backend, dtype=dtype)
    args = sequence(10, D, H, Q, dtype=dtype, real=real)
    for bad in (math.nan, math.inf, -math.inf):
        for model in (rnn, reference):
            for name in PARAMETERS:
                getattr(model, name)[...] = bad
        compare(rnn, reference, args)


def test_an_impossible_target_costs_infinity(dtype, backend):
    rnn, _ = pair(D, H, Q, backend=backend, dtype=dtype)
    rnn.by[2] = -1e4
    loss, grads, _ = rnn.loss_and_grads([0, 1], [2, 2], np.zeros((H, 1)))
    assert loss == math.inf
    assert all(np.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("lr", [1e300, -1e300])
def test_updates_that_overflow(lr, backend):
    rnn, reference = pair(D, H, Q, backend=backend)
    grads = [np.full_like(getattr(rnn, name), 1e200) for name in PARAMETERS]
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        rnn.update_weights(grads, lr)
    with np.errstate(all="ignore"):
        reference.update_weights(grads, lr)
    for name in PARAMETERS:
        assert np.array_equal(getattr(rnn, name), getattr(reference, name))
        assert np.isinf(getattr(rnn, name)).all()


def test_training_that_diverged_goes_on_without_a_crash(dtype, backend):
    rnn, _ = pair(D, H, Q, backend=backend, dtype=dtype)
    args = sequence(20, D, H, Q, dtype=dtype)
    for _ in range(20):
        loss, h_last = rnn.train_step(*args, lr=1e30, clip=None)
    assert not np.isfinite(loss)
    assert h_last.shape == (H, 1)


def test_tiny_and_denormal_numbers(backend):
    rnn, reference = pair(D, H, Q, backend=backend)
    for model in (rnn, reference):
        model.Whh *= 1e-310
        model.Wxh *= 1e-310
        model.bh *= 1e-310
    args = sequence(10, D, H, Q)
    _, hs, _ = rnn.forward(args[0], args[2])
    _, rhs, _ = reference.forward(args[0], args[2])
    assert_same_steps(hs, rhs, 1e-12)
    assert 0 < np.abs(hs[9]).max() < 1e-300
    compare(rnn, reference, args)


@pytest.mark.parametrize("T", [3, 10, 70, 140])
@pytest.mark.parametrize("place", ["xs", "hs"])
def test_clamps_hold_beside_nan(T, place, backend):
    """What is NaN in a step must not hide from the bound what is large in it."""
    rnn, reference = pair(40, H, Q, backend=backend)
    x, targets, h_prev = sequence(T, 40, H, Q, real=True)
    xs, hs, ps = rnn.forward(x, h_prev)
    edited = xs[T - 1] if place == "xs" else hs[-1]
    edited[1:8] = np.nan
    edited[9:16] = 1e6
    with np.errstate(all="ignore"):
        want = reference.backward(dict(xs), dict(hs), dict(ps), targets)
    for name, got, expected in zip(PARAMETERS, rnn.backward(xs, hs, ps, targets), want, strict=True):
        assert_same_pattern(got, expected, name)
        assert np.nanmax(np.abs(got)) <= 5


@pytest.mark.parametrize("seed", range(10))
def test_clamps_hold_in_blocks_before_one_with_nan(seed, backend):
    rnn, reference = pair(5, H, Q, backend=backend, seed=seed)
    x, targets, h_prev = sequence(130, 5, H, Q, real=True, seed=seed)
    xs, hs, ps = rnn.forward(x * 30, h_prev)
    xs[129][2] = np.nan
    with np.errstate(all="ignore"):
        want = reference.backward(dict(xs), dict(hs), dict(ps), targets)
    for name, got, expected in zip(PARAMETERS, rnn.backward(xs, hs, ps, targets), want, strict=True):
        assert_same_pattern(got, expected, name)
