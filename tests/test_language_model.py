"""`LanguageModel` against the drop-in class, `RNN`, central differences and a naive sampler; threads,
kinds of arrays, training."""

import copy
import math

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import assert_close, bits, central_differences, stream_state, tolerance

from fastrnn import LanguageModel, ReferenceRNN, SimpleRNN, optim

sizes = st.one_of(st.integers(1, 6), st.sampled_from([7, 8, 9, 15, 16, 17, 31, 32, 33]), st.integers(1, 70))


def model(q, h, num_layers=1, *, seed=0, gain=1.0, **options):
    """A model with weights and biases of entries of 0.6 or so divided by sqrt(h); `gain` for the output."""
    lm = LanguageModel(q, h, num_layers, rng=seed, **options)
    rng = np.random.default_rng(seed)
    for name, W in lm.parameters.items():
        W[...] = rng.normal(size=W.shape) * (gain if name.endswith("out") else 0.6) / math.sqrt(h)
    return lm


def batch(lm, T, N, seed=1):
    """Inputs, targets, and a first state that is not zero."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(lm.vocab_size, size=(2, T, N))
    return x, y, (rng.normal(size=(lm.num_layers, N, lm.hidden_size)) * 0.5).astype(lm.dtype)


def drop_in(lm, kind, dtype):
    """A `SimpleRNN` or `ReferenceRNN` with the weights of a model of one layer."""
    W = {name: value.astype(dtype) for name, value in lm.parameters.items()}
    rnn = kind(lm.vocab_size, lm.hidden_size, lm.vocab_size, dtype=dtype, rng=0)
    rnn.Wxh, rnn.Whh, rnn.Why = W["weight_ih_l0"], W["weight_hh_l0"], W["weight_out"]
    rnn.bh = (W["bias_ih_l0"] + W["bias_hh_l0"])[:, None]
    rnn.by = W["bias_out"][:, None]
    return rnn


#: Parameters of the drop-in class, each with those of the model whose gradient is the same.
SAME_GRADIENTS = (
    ["weight_ih_l0"],
    ["weight_hh_l0"],
    ["weight_out"],
    ["bias_ih_l0", "bias_hh_l0"],
    ["bias_out"],
)


@pytest.mark.parametrize("N", [1, 5, 24])
@pytest.mark.parametrize("kind", [SimpleRNN, ReferenceRNN])
def test_one_layer_is_the_drop_in_class(kind, N, dtype, backend):
    """Losses, states and gradients of each sequence, added up."""
    T = 14
    lm = model(19, 22, dtype=dtype, backend=backend)
    x, y, h0 = batch(lm, T, N)
    other = drop_in(lm, kind, np.float64)
    want, total = 0.0, [np.zeros(W.shape) for W in (other.Wxh, other.Whh, other.Why, other.bh, other.by)]
    states = np.empty((1, N, 22))
    for n in range(N):
        loss, grads, h_last = other.loss_and_grads(x[:, n], y[:, n], h0[0, n][:, None], clip=None)
        want += loss
        states[0, n] = h_last[:, 0]
        for g, addend in zip(total, grads, strict=True):
            g += addend
    for reduction, scale in (("sum", 1), ("mean", 1 / (T * N))):
        loss, grads, h_n = lm.loss_and_grads(x, y, h0, reduction=reduction)
        assert loss == pytest.approx(want * scale, rel=1e-12 if dtype is np.float64 else 1e-5)
        assert_close(h_n, states, tolerance(dtype))
        for names, g in zip(SAME_GRADIENTS, total, strict=True):
            for name in names:
                assert_close(grads[name], (g * scale).reshape(grads[name].shape), tolerance(dtype), name)


@pytest.mark.parametrize("clip", ["value", "norm", None])
def test_train_step_is_the_drop_in_class(clip, dtype, backend):
    """A sequence alone, plain gradient descent: several steps give the same weights.

    The mean over T steps at T times the rate is the sum; two biases move twice as fast as one.
    """
    T, lr, threshold = 9, 0.05, 0.7
    lm = model(7, 12, dtype=dtype, backend=backend)
    other = drop_in(lm, SimpleRNN, np.float64)
    x, y, h0 = batch(lm, T, 1)
    h, state = h0[0].T.astype(np.float64), h0
    lm.parameters["bias_hh_l0"][:] = 0
    other.bh = lm.parameters["bias_ih_l0"].astype(np.float64)[:, None]
    descent = optim.SGD(lr * T, backend=backend)
    for _ in range(6):
        want, grads, h = other.loss_and_grads(x[:, 0], y[:, 0], h, clip=None)
        if clip == "value":
            for g in grads:
                np.clip(g, -threshold * T, threshold * T, out=g)
        elif clip == "norm":  # the norm of the model counts both biases
            norm = math.sqrt(sum((g * g).sum() for g in (*grads, grads[3]))) / T
            for g in grads:
                g *= min(1.0, threshold / norm)
        other.update_weights(grads, lr)
        other.bh -= lr * grads[3]
        loss, state = lm.train_step(x, y, state, descent, clip=clip, clip_threshold=threshold)
        assert loss * T == pytest.approx(want, rel=1e-10 if dtype is np.float64 else 1e-4)
    for names, W in zip(SAME_GRADIENTS, (other.Wxh, other.Whh, other.Why), strict=False):
        assert_close(lm.parameters[names[0]], W, 1e-10 if dtype is np.float64 else 1e-4)
    both = lm.parameters["bias_ih_l0"] + lm.parameters["bias_hh_l0"]
    assert_close(both, other.bh[:, 0], 1e-10 if dtype is np.float64 else 1e-4)


def by_the_formulas(lm, x, y, h0, scale):
    """Loss, gradients, logits and last states in float64: eqs. 1, 2 and 5 to 13 for a batch."""
    W = {name: value.astype(np.float64) for name, value in lm.parameters.items()}
    (T, N), q, L = x.shape, lm.vocab_size, lm.num_layers
    relu = lm.nonlinearity == "relu"
    below = np.eye(q)[x]
    inputs, states = [], []
    for layer in range(L):
        h = np.zeros((N, lm.hidden_size)) if h0 is None else h0[layer].astype(np.float64)
        hs = [h]
        for t in range(T):
            z = below[t] @ W[f"weight_ih_l{layer}"].T + W[f"bias_ih_l{layer}"]
            z += hs[-1] @ W[f"weight_hh_l{layer}"].T + W[f"bias_hh_l{layer}"]
            hs.append(np.maximum(z, 0) if relu else np.tanh(z))
        inputs.append(below)
        states.append(np.array(hs))
        below = states[-1][1:]
    logits = below @ W["weight_out"].T + W["bias_out"]
    log_p = logits - logits.max(axis=2, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=2, keepdims=True))
    p = np.exp(log_p)
    loss = -np.take_along_axis(log_p, y[:, :, None], 2).sum() * scale
    dy = (p - np.eye(q)[y]) * scale
    grads = {"weight_out": np.einsum("tnq,tnh->qh", dy, below), "bias_out": dy.sum(axis=(0, 1))}
    dh = dy @ W["weight_out"]
    for layer in range(L - 1, -1, -1):
        hs, dz, carry = states[layer], np.empty(dh.shape), 0.0
        for t in range(T - 1, -1, -1):
            dz[t] = (dh[t] + carry) * ((hs[t + 1] > 0) if relu else 1 - hs[t + 1] ** 2)
            carry = dz[t] @ W[f"weight_hh_l{layer}"]
        grads[f"weight_ih_l{layer}"] = np.einsum("tnh,tnd->hd", dz, inputs[layer])
        grads[f"weight_hh_l{layer}"] = np.einsum("tnh,tnk->hk", dz, hs[:-1])
        grads[f"bias_ih_l{layer}"] = grads[f"bias_hh_l{layer}"] = dz.sum(axis=(0, 1))
        dh = dz @ W[f"weight_ih_l{layer}"]
    return loss, grads, logits, np.array([hs[-1] for hs in states])


@given(
    T=st.one_of(st.integers(1, 4), st.integers(1, 40)),
    N=st.one_of(st.integers(1, 4), st.sampled_from([7, 8, 9, 15, 16, 17, 24, 31, 33, 40])), q=sizes, h=sizes,
    num_layers=st.integers(1, 3), nonlinearity=st.sampled_from(["tanh", "relu"]), single=st.booleans(),
    with_h0=st.booleans(), reduction=st.sampled_from(["mean", "sum"]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_random_shapes(backend, T, N, q, h, num_layers, nonlinearity, single, with_h0, reduction, seed):
    """Loss, gradients, logits and states against the equations written out in float64."""
    dtype = np.dtype(np.float32 if single else np.float64)
    lm = model(q, h, num_layers, seed=seed, nonlinearity=nonlinearity, dtype=dtype, backend=backend)
    for layer in range(num_layers):  # states of a ReLU network may grow with every step
        W = lm.parameters[f"weight_hh_l{layer}"]
        W *= min(1.0, 0.95 / np.linalg.norm(W, 2))
    x, y, h0 = batch(lm, T, N, seed)
    h0 = h0 if with_h0 else None
    given = [a for a in (x, y, h0) if a is not None]
    before = bits(*given)
    scale = 1 / (T * N) if reduction == "mean" else 1.0
    want, wanted, want_logits, want_h_n = by_the_formulas(lm, x, y, h0, scale)

    tolerance = 1e-4 if single else 1e-11
    loss, grads, h_n = lm.loss_and_grads(x, y, h0, reduction=reduction)
    assert loss == pytest.approx(want, rel=tolerance, abs=tolerance)
    one = max(1.0, np.abs(want_h_n).max())
    assert np.abs(h_n - want_h_n).max() <= tolerance * one
    largest = max(np.abs(g).max() for g in wanted.values())
    for name, g in grads.items():
        assert g.dtype == dtype
        assert g.shape == lm.parameters[name].shape
        # Sums of T*N terms of at most 1 that may cancel, as those of a single class do.
        assert np.abs(g - wanted[name]).max() <= tolerance * largest + tolerance * 1e-2 * scale * T * N, name
    logits, _ = lm.forward(x, h0)
    assert np.abs(logits - want_logits).max() <= tolerance * max(1.0, np.abs(want_logits).max())
    assert lm.loss(x, y, h0, reduction=reduction)[0] == pytest.approx(want, rel=tolerance, abs=tolerance)
    assert bits(*given) == before


@pytest.mark.few(8)
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_entry_of_every_gradient(reduction, dropout, nonlinearity, backend):
    """Central differences; with dropout the Generator's state is set back before each run."""
    lm = model(5, 6, 3, nonlinearity=nonlinearity, dropout=dropout, dtype=np.float64, backend=backend)
    x, y, h0 = batch(lm, 6, 4)
    state = lm.rng.bit_generator.state

    def goal():
        lm.rng.bit_generator.state = state
        return lm.loss_and_grads(x, y, h0, reduction=reduction)[0]

    goal()
    grads = {name: g.copy() for name, g in lm.grads.items()}
    for name, W in lm.parameters.items():
        slopes = central_differences(goal, W, 1e-6)
        assert np.abs(slopes).max() > 1e-4
        assert_close(grads[name], slopes, 1e-6, name)


@pytest.mark.parametrize("recompute_every", [1, 3, 7, 20, 100])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputation_changes_nothing(dropout, recompute_every, dtype, backend):
    """States that are computed twice: the same loss, gradients, states and draws."""
    T, N = 20, 18
    plain = model(9, 14, 2, dropout=dropout, dtype=dtype, backend=backend)
    other = model(9, 14, 2, dropout=dropout, dtype=dtype, backend=backend, recompute_every=recompute_every)
    x, y, h0 = batch(plain, T, N)
    for lm in (plain, other):
        lm.rng = np.random.default_rng(4) if dropout else lm.rng
    want, grads, want_h_n = plain.loss_and_grads(x, y, h0)
    loss, got, h_n = other.loss_and_grads(x, y, h0)
    assert loss == pytest.approx(want, rel=tolerance(dtype))
    assert_close(h_n, want_h_n, tolerance(dtype))
    for name, g in grads.items():
        assert_close(got[name], g, tolerance(dtype), name)


# Threads


@pytest.mark.few(12)
@pytest.mark.parametrize("N", [1, 7, 16, 33, 64])
@pytest.mark.parametrize("clip", ["norm", "value"])
def test_the_same_bits_whatever_the_number_of_threads(
    clip, N, dtype, backend, small_work_shared, threads_used
):
    def results(num_threads):
        lm = model(15, 18, 2, dropout=0.2, dtype=dtype, backend=backend, num_threads=num_threads)
        x, y, h0 = batch(lm, 11, N)
        out = bits(*lm.forward(x, h0), *lm.loss(x, y, h0))
        loss, grads, h_n = lm.loss_and_grads(x, y, h0)
        out += bits(loss, h_n, *grads.values())
        optimizer = optim.Adam(0.01, backend=backend)
        for _ in range(3):
            loss, h0 = lm.train_step(x, y, h0, optimizer, clip=clip, clip_threshold=0.01)
            out += bits(loss, h0, lm.grad_norm, *lm.parameters.values())
        drawn, h_n = lm.sample(h0, x[0], 25, rng=3)
        out += bits(drawn, h_n)
        return out

    wanted = results(1)
    assert set(threads_used) <= {1}
    for num_threads in (2, 3, 5):
        threads_used.clear()
        assert results(num_threads) == wanted, f"{num_threads} threads"
        if N > 16:
            assert max(threads_used) > 1, "no threads were at work"
    assert results(None) == wanted


def test_large_work_uses_threads_and_small_does_not(backend, threads_used):
    lm = LanguageModel(20, 64, rng=0, backend=backend, num_threads=2)
    rng = np.random.default_rng(0)
    lm.loss_and_grads(*rng.integers(20, size=(2, 3, 2)))
    assert set(threads_used) <= {1}
    lm.loss_and_grads(*rng.integers(20, size=(2, 64, 64)))
    assert max(threads_used) == 2


# Sampling


def naive_sample(lm, h, start, uniforms, temperature, top_k, top_p):
    """Draws of one stream after another, from the logits of `forward`, by the definition."""
    drawn = np.empty(uniforms.shape, np.int64)
    h_n = np.empty_like(h)
    for r in range(len(start)):
        state, index = h[:, r : r + 1], start[r]
        for i in range(uniforms.shape[1]):
            logits, state = lm.forward(np.array([[index]]), state)
            p = oracle.probabilities(logits[0, 0].tolist(), temperature, top_k, top_p)
            cdf = np.cumsum(p)
            index = int(np.searchsorted(cdf / cdf[-1], uniforms[r, i], side="right"))
            drawn[r, i] = index
        h_n[:, r] = state[:, 0]
    return drawn, h_n


SETTINGS = [
    {}, {"temperature": 0.5}, {"temperature": 3.0}, {"top_k": 3}, {"top_k": 1}, {"top_k": 1000}, {"top_p": 0.7},
    {"top_p": 1.0}, {"top_k": 5, "top_p": 0.8}, {"temperature": 0.7, "top_k": 6, "top_p": 0.9},
    {"temperature": 0}, {"temperature": 0.0, "top_k": 4},
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_samples_by_the_definition(num_layers, settings, backend):
    q, h, N, n = 23, 17, 9, 30
    lm = model(q, h, num_layers, gain=3.0, dtype=np.float64, backend=backend)
    _, _, h0 = batch(lm, 1, N)
    start = np.arange(N) * 2
    before = bits(h0, start)
    drawn, h_n = lm.sample(h0, start, n, rng=8, **settings)
    assert drawn.shape == (N, n)
    assert drawn.dtype.kind == "i"
    assert bits(h0, start) == before
    given = {"temperature": 1.0, "top_k": None, "top_p": None} | settings
    want, want_h_n = naive_sample(lm, h0, start, np.random.default_rng(8).random((n, N)).T, **given)
    assert np.array_equal(drawn, want)
    assert_close(h_n, want_h_n, 1e-12)
    if given["temperature"] != 0 and given["top_k"] != 1:
        assert len(np.unique(drawn)) > 5


def test_sample_state_is_that_after_the_last_draw(dtype, backend):
    """The last index drawn has not been fed back: a second call goes on from it."""
    lm = model(11, 14, 2, gain=3.0, dtype=dtype, backend=backend)
    _, _, h0 = batch(lm, 1, 6)
    start = np.arange(6)
    drawn, h_n = lm.sample(h0, start, 12, rng=1)
    fed = np.concatenate([start[:, None], drawn[:, :-1]], axis=1).T
    assert_close(h_n, lm.forward(fed, h0)[1], tolerance(dtype))
    nothing, same = lm.sample(h0, start, 0, rng=1)
    assert nothing.shape == (6, 0)
    assert np.array_equal(same, h0)
    greedy, _ = lm.sample(h0, start, 12, temperature=0)
    first, middle = lm.sample(h0, start, 5, temperature=0)
    second, _ = lm.sample(middle, first[:, -1], 7, temperature=0)
    assert np.array_equal(np.concatenate([first, second], axis=1), greedy)


def test_greedy_in_every_way(dtype, backend):
    lm = model(30, 16, gain=2.0, dtype=dtype, backend=backend)
    _, _, h0 = batch(lm, 1, 17)
    start = np.arange(17)
    greedy, h_n = lm.sample(h0, start, 40, temperature=0)
    for settings in ({"top_k": 1}, {"top_p": 1e-12}, {"temperature": 1e-6}, {"temperature": 0, "top_p": 0.5}):
        drawn, state = lm.sample(h0, start, 40, rng=5, **settings)
        assert np.array_equal(drawn, greedy), settings
        assert np.array_equal(state, h_n)
    for r in range(17):
        logits, _ = lm.forward(np.concatenate([start[r : r + 1], greedy[r, :-1]])[:, None], h0[:, r : r + 1])
        assert np.array_equal(logits[:, 0].argmax(axis=1), greedy[r])


def test_greedy_takes_the_lower_index_of_equals(dtype, backend):
    lm = model(6, 4, dtype=dtype, backend=backend)
    lm.parameters["weight_out"][...] = 0
    lm.parameters["bias_out"][...] = [0, 1, 3, 3, 3, 2]
    for settings in ({"temperature": 0}, {"top_k": 1}, {"top_p": 0.01}):
        assert (lm.sample(lm.initial_state(3), [0, 1, 2], 4, rng=0, **settings)[0] == 2).all()
    assert set(lm.sample(lm.initial_state(20), [0] * 20, 40, rng=0, top_k=2)[0].ravel()) == {2, 3}


@pytest.mark.few(4)
@pytest.mark.parametrize("settings", SETTINGS[:10], ids=str)
def test_distribution(settings, dtype, backend):
    """Chi-square of 9600 draws against the softmax of forward's logits."""
    q, N, n = 7, 60, 160
    lm = model(q, 6, gain=1.5, dtype=dtype, backend=backend)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        lm.parameters[name][...] = 0  # so that every draw has the same distribution
    logits, _ = lm.forward([[0]])
    given = {"temperature": 1.0, "top_k": None, "top_p": None} | settings
    p = np.array(oracle.probabilities(logits[0, 0].tolist(), **given))
    drawn, _ = lm.sample(lm.initial_state(N), np.zeros(N, int), n, rng=2, **settings)
    counts = np.bincount(drawn.ravel(), minlength=q)
    possible = p > 0
    assert counts[~possible].sum() == 0
    expected = p[possible] * N * n
    assert expected.min() > 5
    degrees = possible.sum() - 1
    chi_square = ((counts[possible] - expected) ** 2 / expected).sum()
    assert chi_square <= degrees + 4.5 * math.sqrt(2 * degrees)
    # Independent from draw to draw: counts of pairs as well.
    pairs = np.bincount((drawn[:, :-1] * q + drawn[:, 1:]).ravel(), minlength=q * q)
    expected = np.outer(p, p).ravel() * N * (n - 1)
    enough = expected > 5
    chi_square = ((pairs - expected)[enough] ** 2 / expected[enough]).sum()
    assert chi_square <= enough.sum() + 4.5 * math.sqrt(2 * enough.sum())


class GivenUniforms(np.random.Generator):
    """A Generator whose uniforms are given."""

    def __init__(self, values):
        super().__init__(np.random.PCG64(0))
        self.values = values

    def random(self, n):
        assert n == len(self.values)
        return self.values


@pytest.mark.parametrize("N", [2, 9, 33])
def test_a_stream_does_not_depend_on_the_others(N, dtype, backend):
    """Stream r of N, given its column of the uniforms, alone."""
    n = 20
    lm = model(21, 13, 2, gain=2.0, dtype=dtype, backend=backend)
    _, _, h0 = batch(lm, 1, N)
    start = np.arange(N) % 21
    settings = {"temperature": 0.9, "top_p": 0.95}
    together, h_n = lm.sample(h0, start, n, rng=6, **settings)
    uniforms = np.random.default_rng(6).random((n, N))
    for r in range(N):
        one = slice(r, r + 1)
        drawn, state = lm.sample(
            h0[:, one], start[one], n, rng=GivenUniforms(uniforms[:, r].copy()), **settings
        )
        assert np.array_equal(drawn[0], together[r])
        assert_close(state[:, 0], h_n[:, r], tolerance(dtype))
    # A batch of half the streams as well.
    half, _ = lm.sample(h0[:, ::2], start[::2], n, rng=GivenUniforms(uniforms[:, ::2].ravel()), **settings)
    assert np.array_equal(half, together[::2])


def test_more_draws_go_on_where_fewer_ended(dtype, backend):
    """n and then m draws from one Generator are n + m draws, state and last index carried."""
    lm = model(21, 13, 2, gain=2.0, dtype=dtype, backend=backend)
    _, _, h0 = batch(lm, 1, 5)
    start = np.arange(5)
    whole, h_n = lm.sample(h0, start, 20, rng=6)
    rng = np.random.default_rng(6)
    first, h = lm.sample(h0, start, 7, rng=rng)
    second, h = lm.sample(h, first[:, -1], 13, rng=rng)
    assert np.array_equal(np.concatenate([first, second], axis=1), whole)
    assert_close(h, h_n, tolerance(dtype))


def test_backends_draw_the_same(dtype, backend):
    q, h, N = 40, 24, 20
    mine, theirs = (model(q, h, 2, gain=2.0, dtype=dtype, backend=name) for name in (backend, "numpy"))
    _, _, h0 = batch(mine, 1, N)
    for settings in SETTINGS:
        drawn, h_n = mine.sample(h0, np.arange(N), 30, rng=5, **settings)
        want, want_h_n = theirs.sample(h0, np.arange(N), 30, rng=5, **settings)
        assert np.array_equal(drawn, want), settings
        assert_close(h_n, want_h_n, tolerance(dtype))


def test_sample_is_the_drop_in_classs(backend):
    """One stream: the same uniforms, the same indices, the stream of random numbers left alike."""
    lm = model(26, 30, gain=2.0, dtype=np.float64, backend=backend)
    rnn = drop_in(lm, SimpleRNN, np.float64)
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    drawn, _ = lm.sample(lm.initial_state(1), [4], 200, rng=rng)
    assert drawn[0].tolist() == rnn.sample(np.zeros((30, 1)), 4, 200, rng=other)
    assert rng.bit_generator.state == other.bit_generator.state


def test_rng_of_sample(dtype, backend):
    lm = model(26, 12, gain=2.0, dtype=dtype, backend=backend)
    h, start = lm.initial_state(3), [0, 1, 2]
    wanted, _ = lm.sample(h, start, 30, rng=4)
    assert np.array_equal(lm.sample(h, start, 30, rng=np.random.default_rng(4))[0], wanted)
    assert not np.array_equal(lm.sample(h, start, 30, rng=5)[0], wanted)
    own, before = copy.deepcopy(lm.rng.bit_generator.state), stream_state()
    lm.sample(h, start, 30, rng=4)
    assert lm.rng.bit_generator.state == own
    lm.rng = np.random.default_rng(4)  # None takes the model's own
    assert np.array_equal(lm.sample(h, start, 30)[0], wanted)
    assert not np.array_equal(lm.sample(h, start, 30)[0], wanted)
    assert stream_state() == before


def test_sample_has_no_dropout(backend):
    lm = model(12, 10, 2, gain=2.0, dropout=0.5, dtype=np.float64, backend=backend)
    assert lm.training
    drawn, h_n = lm.sample(lm.initial_state(4), [0, 1, 2, 3], 20, rng=4)
    lm.eval()
    again, h_again = lm.sample(lm.initial_state(4), [0, 1, 2, 3], 20, rng=4)
    assert np.array_equal(drawn, again)
    assert np.array_equal(h_n, h_again)


# Dropout


@pytest.mark.parametrize("dropout", [0.25, 0.8])
def test_dropout_keeps_the_right_share(dropout, dtype, backend):
    """A ReLU layer of ones below one that passes its input through: h_n is the last step's mask."""
    h, N = 60, 200
    lm = LanguageModel(5, h, 2, nonlinearity="relu", dropout=dropout, dtype=dtype, rng=0, backend=backend)
    for W in lm.parameters.values():
        W[...] = 0
    lm.parameters["bias_ih_l0"][:] = 1
    lm.parameters["weight_ih_l1"][...] = np.eye(h)
    x = np.zeros((2, N), int)
    state = copy.deepcopy(lm.rng.bit_generator.state)
    mask = lm.loss_and_grads(x, x)[2][1].copy()
    assert_close(np.unique(mask), [0, 1 / (1 - dropout)], 1e-6)
    share = (mask > 0).mean()
    assert abs(share - (1 - dropout)) < 4.5 * math.sqrt(dropout * (1 - dropout) / mask.size)
    assert not np.array_equal(lm.loss_and_grads(x, x)[2][1], mask)
    # Neither forward nor loss drops anything, in either mode.
    assert_close(lm.forward(x)[1], np.ones((2, N, h)))
    assert_close(lm.loss(x, x)[1], np.ones((2, N, h)))
    lm.rng.bit_generator.state = state
    assert np.array_equal(lm.loss_and_grads(x, x)[2][1], mask)
    lm.rng.bit_generator.state = state
    _, h_n = lm.train_step(x, x, None, optim.SGD(0.0, backend=backend))
    assert np.array_equal(h_n[1], mask)
    lm.eval()
    state = copy.deepcopy(lm.rng.bit_generator.state)
    assert_close(lm.loss_and_grads(x, x)[2], np.ones((2, N, h)))
    assert lm.rng.bit_generator.state == state


def test_dropout_draws_the_same_on_every_backend(dtype, backend):
    mine, theirs = (model(9, 14, 3, dropout=0.5, dtype=dtype, backend=name) for name in (backend, "numpy"))
    x, y, h0 = batch(mine, 7, 20)
    for _ in range(2):
        loss, grads, _ = mine.loss_and_grads(x, y, h0)
        want, wanted, _ = theirs.loss_and_grads(x, y, h0)
        assert loss == pytest.approx(want, rel=tolerance(dtype))
        for name, g in grads.items():
            assert_close(g, wanted[name], 10 * tolerance(dtype), name)


# Kinds of arrays, work space, the object itself


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", ">i4", "uint64", "list", "Fortran", "strided",
                                  "read-only", "negative", "range"])  # fmt: skip
def test_indices_of_every_kind(kind, dtype, backend):
    lm = model(7, 9, 2, dtype=dtype, backend=backend)
    x, y, h0 = batch(lm, 6, 4)

    def make(a):
        if kind == "list":
            return a.tolist()
        if kind == "range":
            return [range(4)] * 6
        if kind == "Fortran":
            return np.asfortranarray(a)
        if kind == "strided":
            return np.repeat(a, 3, axis=1)[:, ::3]
        if kind == "negative":
            return np.where(a > 3, a - 7, a)
        a = a.astype(a.dtype if kind == "read-only" else kind)
        a.flags.writeable = False
        return a

    if kind == "range":
        x = y = np.array([range(4)] * 6)
    x_, y_ = make(x), y if kind == "negative" else make(y)  # targets don't count from the end
    before = bits(x_, y_)
    want, grads, h_n = lm.loss_and_grads(x, y, h0)
    wanted = bits(want, h_n, *grads.values(), *lm.forward(x, h0), *lm.sample(h0, x[0], 9, rng=0))
    loss, grads, h_n = lm.loss_and_grads(x_, y_, h0)
    got = bits(loss, h_n, *grads.values(), *lm.forward(x_, h0), *lm.sample(h0, x_[0], 9, rng=0))
    assert got == wanted
    assert lm.loss(x_, y_, h0)[0] == lm.loss(x, y, h0)[0]
    assert bits(x_, y_) == before


@pytest.mark.parametrize(
    "kind", ["float16", "float64", ">f4", "int", "list", "Fortran", "strided", "read-only"]
)
def test_states_of_every_kind(kind, dtype, backend):
    lm = model(7, 9, 2, dtype=dtype, backend=backend)
    x, y, _ = batch(lm, 6, 4)
    h0 = np.random.default_rng(0).integers(-3, 4, size=(2, 4, 9))
    exact = h0.astype(dtype)

    def make():
        if kind == "list":
            return h0.tolist()
        if kind == "Fortran":
            return np.asfortranarray(exact)
        if kind == "strided":
            return np.repeat(exact, 2, axis=2)[:, :, ::2]
        if kind == "read-only":
            a = exact.copy()
            a.flags.writeable = False
            return a
        return h0.astype(kind)

    def run(h):
        lm = model(7, 9, 2, dtype=dtype, backend=backend)
        loss, grads, h_n = lm.loss_and_grads(x, y, h)
        out = bits(loss, h_n, *grads.values(), *lm.forward(x, h), *lm.loss(x, y, h))
        out += bits(*lm.sample(h, x[0], 9, rng=0))
        return out + bits(*lm.train_step(x, y, h, optim.SGD(0.1, backend=backend)), *lm.parameters.values())

    given = make()
    before = bits(given)
    assert run(given) == run(exact)
    assert bits(given) == before


def test_a_state_that_train_step_returned_may_be_given_back(dtype, backend):
    """The two buffers take turns, so the state just returned is read while the other is written."""
    mine, theirs = (model(7, 9, 2, dtype=dtype, backend=backend) for _ in range(2))
    x, y, h0 = batch(mine, 6, 4)
    ours, copied = (optim.SGD(0.1, backend=backend) for _ in range(2))
    h = g = h0
    previous = None
    for _ in range(5):
        loss, h = mine.train_step(x, y, h, ours)
        want, g = theirs.train_step(x, y, g.copy(), copied)
        g = g.copy()
        assert (loss, bits(h)) == (want, bits(g))
        if previous is not None:
            assert bits(previous[0]) == bits(previous[1]), "the state of the call before is still whole"
        previous = h, h.copy()
    assert np.array_equal(h0, batch(mine, 6, 4)[2])


def test_train_step_is_gradients_and_a_step(dtype, backend):
    """`train_step` leaves the gradients it used, and does what `loss_and_grads` and `step` do."""
    mine, theirs = (model(7, 9, 2, dtype=dtype, backend=backend) for _ in range(2))
    x, y, h0 = batch(mine, 6, 20)
    optimizer = optim.SGD(0.5, backend=backend)
    want, grads, want_h_n = theirs.loss_and_grads(x, y, h0)
    before = theirs.state_dict()
    optimizer.step(theirs.parameters, grads)
    loss, h_n = mine.train_step(x, y, h0, optim.SGD(0.5, backend=backend), clip=None)
    assert loss == pytest.approx(want, rel=tolerance(dtype))
    assert_close(h_n, want_h_n, tolerance(dtype))
    norm = math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))
    assert mine.grad_norm == pytest.approx(norm, rel=1e-12 if dtype is np.float64 else 1e-5)
    for name, W in mine.parameters.items():
        assert_close(mine.grads[name], grads[name], tolerance(dtype), name)
        assert_close(W - before[name], theirs.parameters[name] - before[name], 100 * tolerance(dtype), name)


def test_an_optimizer_may_replace_what_is_in_grads(dtype, backend):
    """The arrays that one step has put there are not the gradients of the next."""

    class Halves:
        def step(self, parameters, grads):
            for name in grads:
                grads[name] = grads[name] * 0.5
                parameters[name] -= grads[name]

    mine, theirs = (model(7, 9, 2, dtype=dtype, backend=backend) for _ in range(2))
    x, y, h0 = batch(mine, 6, 4)
    for _ in range(3):
        mine.train_step(x, y, h0, Halves(), clip=None)
        theirs.train_step(x, y, h0, optim.SGD(0.5, backend=backend), clip=None)
    for name, W in mine.parameters.items():
        assert_close(W, theirs.parameters[name], tolerance(dtype), name)


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-45, 1e39, 1e300])
def test_temperatures_beyond_the_numbers_of_the_dtype(temperature, dtype, backend):
    """Next to 0 only the most probable class is drawn, next to infinity all of them are."""
    lm = model(5, 9, dtype=dtype, backend=backend)
    out, _ = lm.sample(None, [0, 3], 200, temperature=temperature, rng=0)
    if temperature < 1:
        assert np.array_equal(out, lm.sample(None, [0, 3], 200, temperature=0)[0])
    else:
        assert (np.bincount(out.ravel(), minlength=5) > 40).all()


def test_nothing_is_left_in_the_work_space(dtype, backend):
    lm = model(9, 14, 2, dtype=dtype, backend=backend)

    def run(T, N):
        x, y, h0 = batch(lm, T, N, seed=T)
        loss, grads, h_n = lm.loss_and_grads(x, y, h0)
        out = bits(loss, h_n, *grads.values(), *lm.forward(x, h0))
        return out + bits(*lm.sample(h0, x[0], T, rng=0, top_k=3))

    shapes = [(5, 3), (1, 1), (30, 33), (5, 33), (30, 3)]
    first = [run(*shape) for shape in shapes]
    for i in (4, 0, 2, 1, 3, 0):
        assert run(*shapes[i]) == first[i]


def test_results_are_the_callers(dtype, backend):
    lm = model(9, 14, dtype=dtype, backend=backend)
    x, y, h0 = batch(lm, 5, 3)
    results = [*lm.forward(x, h0), lm.loss(x, y, h0)[1], *lm.sample(h0, x[0], 4, rng=0)]
    before = bits(*results)
    lm.forward(y, -h0)
    lm.loss(y, x, -h0)
    lm.sample(-h0, y[0], 4, rng=1)
    lm.loss_and_grads(y, x, -h0)
    assert bits(*results) == before


def test_attributes(dtype):
    lm = LanguageModel(26, 100, dtype=dtype, rng=0)
    assert (lm.vocab_size, lm.hidden_size, lm.num_layers, lm.nonlinearity, lm.dropout) == (
        26,
        100,
        1,
        "tanh",
        0,
    )
    assert lm.dtype == dtype
    assert lm.training
    # Eq. 3 and a second bias.
    assert lm.num_parameters == sum(W.size for W in lm.parameters.values()) == 15326 + 100
    assert {name: W.shape for name, W in lm.parameters.items()} == {
        "weight_ih_l0": (100, 26), "weight_hh_l0": (100, 100), "bias_ih_l0": (100,), "bias_hh_l0": (100,),
        "weight_out": (26, 100), "bias_out": (26,),
    }  # fmt: skip
    two = LanguageModel(5, 7, 2, rng=0)
    assert list(two.parameters) == [
        *(f"{kind}_l{layer}" for layer in (0, 1) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        "weight_out", "bias_out",
    ]  # fmt: skip
    assert two.initial_state(3).shape == (2, 3, 7)
    assert two.initial_state(3).dtype == np.float32
    assert not two.initial_state(3).any()
    assert two.initial_state(3) is not two.initial_state(3)


def test_initial_values(dtype):
    lm = LanguageModel(120, 64, 2, dtype=dtype, rng=3)
    bound = 1 / 8
    for name, W in lm.parameters.items():
        assert np.abs(W).max() <= bound * (1 + 1e-6), name
        assert np.abs(W).max() > 0.9 * bound, name
        assert np.std(W) == pytest.approx(bound / math.sqrt(3), rel=0.35 if W.ndim == 1 else 0.05)
    before = stream_state()
    again = LanguageModel(120, 64, 2, dtype=dtype, rng=np.random.default_rng(3))
    assert bits(*again.parameters.values()) == bits(*lm.parameters.values())
    other = LanguageModel(120, 64, 2, dtype=dtype, rng=4)
    assert bits(*other.parameters.values()) != bits(*lm.parameters.values())
    assert stream_state() == before


def test_state_dict_is_a_copy_and_loads_in_place(dtype, backend):
    lm = model(5, 6, 2, dtype=dtype, backend=backend)
    before = bits(*lm.parameters.values())
    kept, held = lm.state_dict(), dict(lm.parameters)
    for W in kept.values():
        W += 1
    assert bits(*lm.parameters.values()) == before
    lm.load_state_dict(kept)
    assert bits(*lm.parameters.values()) == bits(*kept.values())
    assert all(lm.parameters[name] is W for name, W in held.items())
    x, y, h0 = batch(lm, 3, 2)
    other = LanguageModel(5, 6, 2, dtype=dtype, rng=9, backend=backend)
    other.load_state_dict(lm.state_dict())
    assert lm.loss(x, y, h0)[0] == other.loss(x, y, h0)[0]


def test_train_and_eval_return_the_model():
    lm = LanguageModel(3, 4, rng=0)
    assert lm.eval() is lm
    assert not lm.training
    assert lm.train() is lm
    assert lm.training


# Values that are not numbers


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l1", "weight_out", "bias_out"])
@pytest.mark.parametrize("n", [1, 30])
def test_sample_on_nan_weights(name, n, dtype, backend):
    """An error, after which the stream of random numbers stands where it stood."""
    lm = model(6, 10, 2, dtype=dtype, backend=backend)
    lm.parameters[name][...] = np.nan
    h, rng = np.ones((2, 4, 10), dtype), np.random.default_rng(4)
    before = bits(h, *lm.parameters.values()), copy.deepcopy(rng.bit_generator.state), stream_state()
    for settings in ({}, {"temperature": 0}, {"top_k": 2}):
        with pytest.raises(ValueError, match="not numbers"):
            lm.sample(h, [0, 1, 2, 3], n, rng=rng, **settings)
        assert (bits(h, *lm.parameters.values()), rng.bit_generator.state, stream_state()) == before


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_out"])
def test_training_on_nan_weights(name, dtype, backend):
    lm = model(6, 10, 2, dtype=dtype, backend=backend)
    lm.parameters[name][...] = np.nan
    x, y, h0 = batch(lm, 5, 3)
    loss, _, _ = lm.loss_and_grads(x, y, h0)
    assert math.isnan(loss)
    assert math.isnan(lm.loss(x, y, h0)[0])
    loss, _ = lm.train_step(x, y, h0, optim.SGD(0.1, backend=backend))
    assert math.isnan(loss)
    assert math.isnan(lm.grad_norm)
    assert np.isnan(lm.parameters["weight_out"]).all()


def test_logits_of_any_size(dtype, backend):
    """Softmax subtracts the largest logit: thousands do not overflow."""
    lm = model(5, 4, dtype=dtype, backend=backend)
    lm.parameters["weight_out"][...] = 0
    lm.parameters["bias_out"][...] = [-4000, 3000, -3000, 2990, -10000]
    x = np.zeros((1, 3), int)
    loss, _, _ = lm.loss_and_grads(x, np.array([[1, 0, 3]]), reduction="sum")
    assert loss == pytest.approx(7000 + 10 + 3 * math.log1p(math.exp(-10)), rel=1e-6)
    assert (lm.sample(lm.initial_state(3), [0] * 3, 5, rng=0, top_k=1)[0] == 1).all()


# Training


@pytest.mark.few(8)
@pytest.mark.parametrize(("optimizer", "settings"), [
    ("SGD", {"lr": 0.5, "momentum": 0.9}), ("Adagrad", {"lr": 0.1}), ("RMSprop", {"lr": 0.01}),
    ("Adam", {"lr": 0.02}),
])  # fmt: skip
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_periodic_text_is_learned(num_layers, optimizer, settings, dtype, backend):
    """Truncated BPTT with the state carried along; what is sampled afterwards is the text."""
    text = "the cat sat. "
    letters = sorted(set(text))
    N, T = 8, 13
    data = np.array([letters.index(c) for c in text * 40])
    streams = np.stack([data[3 * n : 3 * n + 20 * T + 1] for n in range(N)], axis=1)
    lm = LanguageModel(len(letters), 24, num_layers, dtype=dtype, rng=1, backend=backend)
    descent = getattr(optim, optimizer)(**settings, backend=backend)
    x, y = streams[:-1], streams[1:]
    before, _ = lm.loss(x, y)
    assert before == pytest.approx(math.log(len(letters)), abs=0.3)
    for _ in range(12):
        h = lm.initial_state(N)
        for t in range(0, 20 * T, T):
            loss, h = lm.train_step(x[t : t + T], y[t : t + T], h, descent)
    after, h = lm.loss(x, y)
    assert loss < 0.05
    assert after < 0.05
    drawn, _ = lm.sample(h, x[-1], 2 * T, temperature=0)
    first = int(y[-1, 0])
    wanted = (text * 4)[text.index(letters[first]) :]
    written = "".join(letters[i] for i in drawn[0])
    assert written in text * 4, f"{written!r} is not {wanted[: 2 * T]!r}"
