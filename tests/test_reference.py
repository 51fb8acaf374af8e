"""`ReferenceRNN`, the truth of all other tests, against the equations themselves."""

import numpy as np
import oracle
import pytest
from support import assert_all_close, assert_close, parameters, sequence

from fastrnn import ReferenceRNN


def model(d=4, h=5, q=3, seed=0, scale=1.0):
    rnn = ReferenceRNN(d, h, q, rng=seed)
    rng = np.random.default_rng(seed)
    for W in parameters(rnn):
        W[...] = rng.normal(size=W.shape) * scale
    return rnn


def oracle_run(rnn, xs, targets, h_prev, limit=np.inf):
    Wxh, Whh, Why, bh, by = (W.tolist() for W in parameters(rnn))
    bh, by = [b for (b,) in bh], [b for (b,) in by]
    targets = [int(c) % rnn.output_size for c in targets]
    hs, ps = oracle.forward(Wxh, Whh, Why, bh, by, xs, h_prev.ravel().tolist())
    grads = oracle.backward(Wxh, Whh, Why, xs, hs, ps, targets, limit)
    return hs, ps, oracle.loss(ps, targets), grads


def shaped(grads):
    return [np.array(g).reshape(len(g), -1) for g in grads]


@pytest.mark.parametrize("real", [False, True], ids=["indices", "vectors"])
@pytest.mark.parametrize(("clip", "limit"), [("step", 0.3), (None, np.inf)])
def test_agrees_with_the_scalar_oracle(real, clip, limit):
    rnn = model()
    inputs, targets, h_prev = sequence(12, 4, 5, 3, real=real)
    xs = inputs.tolist() if real else [oracle.one_hot(i, 4) for i in inputs]
    hs, ps, loss, grads = oracle_run(rnn, xs, targets, h_prev, limit)
    got_xs, got_hs, got_ps = rnn.forward(inputs, h_prev)
    assert_close(np.hstack([got_xs[t] for t in range(12)]).T, xs, 1e-15)
    assert_close(np.hstack([got_hs[t] for t in range(-1, 12)]).T, hs, 1e-13)
    assert_close(np.hstack([got_ps[t] for t in range(12)]).T, ps, 1e-13)
    got_loss, got_grads, h_last = rnn.loss_and_grads(inputs, targets, h_prev, clip=clip, clip_threshold=0.3)
    assert got_loss == pytest.approx(loss, rel=1e-13)
    assert_all_close(got_grads, shaped(grads), 1e-12)
    assert_close(h_last, got_hs[11], 0)


def test_step_clamp_is_not_the_clamp_after_the_loop():
    rnn = model(scale=2.0)
    args = sequence(30, 4, 5, 3)
    _, step, _ = rnn.loss_and_grads(*args, clip="step", clip_threshold=0.2)
    _, value, _ = rnn.loss_and_grads(*args, clip="value", clip_threshold=0.2)
    assert any(not np.allclose(a, b) for a, b in zip(step, value, strict=True))


def test_backward_clamps_at_five():
    rnn = model(scale=3.0)
    inputs, targets, h_prev = sequence(40, 4, 5, 3)
    grads = rnn.backward(*rnn.forward(inputs, h_prev), targets)
    _, _, _, wanted = oracle_run(rnn, [oracle.one_hot(i, 4) for i in inputs], targets, h_prev, 5.0)
    assert max(np.abs(g).max() for g in grads) == 5.0
    assert_all_close(grads, shaped(wanted), 1e-10)


@pytest.mark.parametrize("threshold", [1e-3, 1.0, 1e6])
def test_norm_is_equation_15(threshold):
    rnn = model()
    args = sequence(12, 4, 5, 3)
    _, plain, _ = rnn.loss_and_grads(*args, clip=None)
    _, clipped, _ = rnn.loss_and_grads(*args, clip="norm", clip_threshold=threshold)
    norm = oracle.norm([g.tolist() for g in plain])
    assert_all_close(clipped, [g * threshold / max(threshold, norm) for g in plain], 1e-13)


def test_weights_are_the_notes_draws():
    np.random.seed(7)
    rnn = ReferenceRNN(3, 4, 5)
    after = np.random.random()
    np.random.seed(7)
    for W, (rows, columns) in zip((rnn.Wxh, rnn.Whh, rnn.Why), ((4, 3), (4, 4), (5, 4)), strict=True):
        assert np.array_equal(W, np.random.randn(rows, columns) * 0.01)
    assert after == np.random.random()
    assert not rnn.bh.any()
    assert not rnn.by.any()


def test_train_step_is_gradient_descent():
    rnn, other = model(), model()
    args = sequence(9, 4, 5, 3)
    loss, h_last = rnn.train_step(*args, lr=0.3)
    other_loss, grads, other_h = other.loss_and_grads(*args)
    assert loss == other_loss
    assert np.array_equal(h_last, other_h)
    for W, old, g in zip(parameters(rnn), parameters(other), grads, strict=True):
        assert np.array_equal(W, old - 0.3 * g)


def test_sample_is_choice_on_the_probabilities_of_forward():
    rnn = model(d=4, q=4)
    h = np.random.default_rng(1).normal(size=(5, 1))
    np.random.seed(3)
    drawn = rnn.sample(h, 2, 20)
    _, _, ps = rnn.forward([2, *drawn[:-1]], h)
    np.random.seed(3)
    assert drawn == [np.random.choice(range(4), p=ps[t].ravel()) for t in range(20)]
