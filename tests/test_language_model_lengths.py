"""`LanguageModel` on sequences of different lengths: each alone, cut to its own, is what it is to be."""

import copy

import numpy as np
import pytest
import sequence_by_hand
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from support import assert_close, bits, tolerance

from fastrnn import LanguageModel, optim

CELLS = {"tanh": {}, "relu": {"nonlinearity": "relu"}, "gru": {"cell": "gru"}, "lstm": {"cell": "lstm"}}
LENGTHS = np.array([3, 9, 1, 5, 9, 2, 8, 1, 4] * 2)
T, N = 9, len(LENGTHS)


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def batch(lm, T=T, N=N, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(lm.vocab_size, size=(2, T, N))
    y[rng.random((T, N)) < 0.2] = -100
    h0 = tuple(
        (rng.normal(size=(lm.num_layers, N, lm.hidden_size)) * 0.5).astype(lm.dtype)
        for _ in range(1 + (lm.cell == "lstm"))
    )
    return x, y, h0 if lm.cell == "lstm" else h0[0]


def of(h0, n):
    """The state of one sequence."""
    one = [state[:, n : n + 1] for state in parts(h0)]
    return tuple(one) if isinstance(h0, tuple) else one[0]


def results(lm, x, y, h0, **options):
    loss, grads, h_n = lm.loss_and_grads(x, y, h0, **options)
    lengths = options.get("lengths")
    return bits(
        loss, *grads.values(), *parts(h_n), lm.loss(x, y, h0, **options)[0],
        *(a for part in lm.forward(x, h0, lengths=lengths) for a in parts(part)),
    )  # fmt: skip


@pytest.mark.few(24)
@pytest.mark.parametrize("recompute_every", [None, 2])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_each_sequence_alone(cell, num_layers, recompute_every, dtype, backend):
    lm = LanguageModel(
        7, 11, num_layers, rng=0, dtype=dtype, backend=backend, recompute_every=recompute_every, **CELLS[cell]
    )
    x, y, h0 = batch(lm)
    within = 5 * tolerance(dtype)
    loss, grads, h_n = lm.loss_and_grads(x, y, h0, lengths=LENGTHS, reduction="sum")
    logits, _ = lm.forward(x, h0, lengths=LENGTHS)
    alone = LanguageModel(7, 11, num_layers, rng=1, dtype=dtype, backend=backend, **CELLS[cell])
    alone.load_state_dict(lm.state_dict())
    total, sums, counted = 0.0, {name: np.zeros(W.shape) for name, W in lm.parameters.items()}, 0
    for n, length in enumerate(LENGTHS):
        own = x[:length, n : n + 1], y[:length, n : n + 1], of(h0, n)
        value, its_grads, last = alone.loss_and_grads(*own, reduction="sum")
        total += value
        counted += (own[1] >= 0).sum()
        for name, g in its_grads.items():
            sums[name] += g
        for got, want in zip(parts(of(h_n, n)), parts(last), strict=True):
            assert_close(got, want, within)
        assert_close(logits[:length, n : n + 1], alone.forward(own[0], own[2])[0], within)
        assert not logits[length:, n].any()
    assert loss == pytest.approx(total, rel=within)
    for name, g in sums.items():
        assert_close(grads[name], g, within, name)
    assert lm.loss(x, y, h0, lengths=LENGTHS, reduction="sum")[0] == pytest.approx(total, rel=within)
    mean, grads, _ = lm.loss_and_grads(x, y, h0, lengths=LENGTHS)
    assert mean == pytest.approx(total / counted, rel=within)
    for name, g in sums.items():
        assert_close(grads[name], g / counted, within, name)


@given(
    T=st.integers(1, 9), N=st.sampled_from([1, 2, 3, 9, 17, 33]), q=st.integers(2, 9),
    h=st.sampled_from([1, 3, 8, 17]), num_layers=st.integers(1, 3), cell=st.sampled_from([*CELLS]),
    recompute_every=st.none() | st.integers(1, 10), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_random_shapes(backend, T, N, q, h, num_layers, cell, recompute_every, seed):
    lm = LanguageModel(
        q, h, num_layers, rng=seed, dtype=np.float64, backend=backend, recompute_every=recompute_every, **CELLS[cell]
    )  # fmt: skip
    x, y, h0 = batch(lm, T, N, seed)
    lengths = np.random.default_rng(seed).integers(1, T + 1, N)
    want = sequence_by_hand.run(lm, x, y, h0, lengths=lengths, head="each", loss="cross_entropy")
    loss, grads, h_n = lm.loss_and_grads(x, y, h0, lengths=lengths)
    assert loss == pytest.approx(want.loss, rel=1e-11, abs=1e-12)
    for name, g in grads.items():
        assert np.abs(g - want.grads[name]).max() <= 1e-11, name
    for got, wanted in zip(parts(h_n), want.h_n, strict=True):
        assert np.abs(got - wanted).max() <= 1e-11 * max(1, np.abs(wanted).max())


@pytest.mark.few(24)
@pytest.mark.parametrize("recompute_every", [None, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_what_lies_beyond_has_no_influence(cell, recompute_every, dtype, backend):
    lm = LanguageModel(
        7, 11, 2, rng=0, dtype=dtype, backend=backend, recompute_every=recompute_every, **CELLS[cell]
    )
    x, y, h0 = batch(lm)
    wanted = results(lm, x, y, h0, lengths=LENGTHS)
    assert results(lm, x, y, h0) != wanted
    beyond = np.arange(T)[:, None] >= LENGTHS
    for wild in (7, -8, -(2**63), 2**63 - 1, -1):
        x_, y_ = np.where(beyond, wild, x), np.where(beyond, wild, y)
        before = bits(x_, y_)
        assert results(lm, x_, y_, h0, lengths=LENGTHS) == wanted
        assert bits(x_, y_) == before
    twins = [copy.deepcopy(lm) for _ in range(2)]
    for twin, given_ in zip(twins, ((x, y), (x_, y_)), strict=True):
        twin.train_step(*given_, h0, optim.SGD(0.1, backend=backend), lengths=LENGTHS)
    assert bits(*twins[0].parameters.values()) == bits(*twins[1].parameters.values())


def test_targets_that_do_not_count_say_the_same(dtype, backend):
    """But for the last state, padding whose targets are -100 is as good as lengths."""
    lm = LanguageModel(7, 11, 2, rng=0, dtype=dtype, backend=backend)
    x, y, h0 = batch(lm)
    padded = np.where(np.arange(T)[:, None] >= LENGTHS, -100, y)
    got, want = lm.loss_and_grads(x, y, h0, lengths=LENGTHS), lm.loss_and_grads(x, padded, h0)
    assert got[0] == pytest.approx(want[0], rel=tolerance(dtype))
    for name, g in got[1].items():
        assert_close(g, want[1][name], tolerance(dtype), name)


@pytest.mark.parametrize("lengths", [[T] * N, np.full(N, T, np.int8), None])
def test_lengths_of_all_steps_are_none(lengths, dtype, backend):
    lm = LanguageModel(7, 11, 2, rng=0, dtype=dtype, backend=backend)
    x, y, h0 = batch(lm)
    wanted = results(lm, x, y, h0)
    results(lm, x, y, h0, lengths=LENGTHS)
    assert results(lm, x, y, h0, lengths=lengths) == wanted


def test_a_batch_of_which_nothing_counts(dtype, backend):
    lm = LanguageModel(7, 11, rng=0, dtype=dtype, backend=backend)
    x, y, h0 = batch(lm)
    y[:] = np.where(np.arange(T)[:, None] < LENGTHS, -100, y)
    loss, grads, _ = lm.loss_and_grads(x, y, h0, lengths=LENGTHS)
    assert loss == 0
    assert not any(g.any() for g in grads.values())


@pytest.mark.parametrize("recompute_every", [None, 4])
def test_dropout_draws_the_same(recompute_every, dtype, backend):
    """As without lengths, where all targets beyond do not count."""
    lm = LanguageModel(
        7, 11, 3, dropout=0.4, rng=0, dtype=dtype, backend=backend, recompute_every=recompute_every
    )
    x, y, h0 = batch(lm)
    padded = np.where(np.arange(T)[:, None] >= LENGTHS, -100, y)
    state = lm.rng.bit_generator.state
    want, grads, _ = lm.loss_and_grads(x, padded, h0)
    lm.rng.bit_generator.state = state
    loss, got, _ = lm.loss_and_grads(x, y, h0, lengths=LENGTHS)
    assert loss == pytest.approx(want, rel=tolerance(dtype))
    for name, g in got.items():
        assert_close(g, grads[name], 2 * tolerance(dtype), name)


def test_samples_go_on_from_each_sequences_own_end(dtype, backend):
    """And are as before: `sample` takes the last states, and knows of no lengths."""
    lm = LanguageModel(7, 11, 2, rng=0, dtype=dtype, backend=backend)
    x, y, _ = batch(lm)
    wanted = bits(*lm.sample(None, x[0], 20, rng=1))
    _, h_n = lm.forward(x, lengths=LENGTHS)
    start = y[LENGTHS - 1, np.arange(N)] % 7
    together, _ = lm.sample(h_n, start, 12, temperature=0)
    for n, length in enumerate(LENGTHS):
        _, own = lm.forward(x[:length, n : n + 1])
        assert np.array_equal(lm.sample(own, start[n : n + 1], 12, temperature=0)[0][0], together[n])
    lm.loss(x, y, lengths=LENGTHS)
    assert bits(*lm.sample(None, x[0], 20, rng=1)) == wanted
    with pytest.raises(TypeError, match="lengths"):
        lm.sample(None, x[0], 5, lengths=LENGTHS)


@pytest.mark.few(12)
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
@pytest.mark.parametrize("recompute_every", [None, 4])
def test_the_same_bits_whatever_the_number_of_threads(
    cell, recompute_every, dtype, backend, small_work_shared
):
    def trained(num_threads):
        lm = LanguageModel(
            7, 18, 2, dropout=0.2, rng=0, dtype=dtype, backend=backend, num_threads=num_threads,
            recompute_every=recompute_every, **CELLS[cell],
        )  # fmt: skip
        x, y, h0 = batch(lm)
        got, adam = results(lm, x, y, h0, lengths=LENGTHS), optim.Adam(0.01, backend=backend)
        for lengths in (LENGTHS, LENGTHS[::-1], None):
            loss, h0 = lm.train_step(x, y, h0, adam, lengths=lengths)
            got += bits(loss, lm.grad_norm, *parts(h0), *lm.parameters.values())
        return got

    wanted = trained(1)
    assert trained(2) == wanted
    assert trained(3) == wanted


def test_sentences_of_many_lengths_are_learned(backend):
    """Padding that would teach something else, if it were read."""
    sentences = [[1, 2, 3, 4, 0], [2, 4, 0], [3, 1, 0], [4, 4, 4, 2, 1, 0]]
    lengths = np.array([len(s) for s in sentences])
    x = np.full((6, 4), 4)
    y = np.full((6, 4), 1)
    for n, sentence in enumerate(sentences):
        x[: len(sentence), n] = [0, *sentence[:-1]]
        y[: len(sentence), n] = sentence
    lm = LanguageModel(5, 16, cell="gru", rng=0, backend=backend)
    adam = optim.Adam(0.03, backend=backend)
    for _ in range(150):
        lm.train_step(x, y, None, adam, lengths=lengths)
    # The first word is one of four, all others but one follow from those before.
    assert lm.loss(x, y, lengths=lengths, reduction="sum")[0] == pytest.approx(4 * np.log(4), rel=0.1)
    drawn, _ = lm.sample(None, [0] * 200, 6, rng=0)
    written = {tuple(row[: list(row).index(0) + 1]) if 0 in row else tuple(row) for row in drawn.tolist()}
    assert written >= set(map(tuple, sentences))


@pytest.mark.parametrize("method", ["loss_and_grads", "loss", "forward", "train_step"])
@pytest.mark.parametrize(
    ("lengths", "error", "text"),
    [
        ([1] * (N - 1), ValueError, f"lengths must have shape ({N},), one for each sequence, got ({N - 1},)"),
        (3, ValueError, f"lengths must have shape ({N},)"), ([[1] * N], ValueError, f"lengths must have shape ({N},)"),
        ([1.0] * N, TypeError, "lengths must hold integers, got list of dtype float64"),
        ([True] * N, TypeError, "lengths must hold integers"),
        ([1, 0] + [1] * (N - 2), ValueError, f"lengths[1] is 0, outside [1, {T}]"),
        ([1] * (N - 1) + [T + 1], ValueError, f"lengths[{N - 1}] is {T + 1}, outside [1, {T}]"),
        ([-1] * N, ValueError, f"lengths[0] is -1, outside [1, {T}]"),
    ],
)  # fmt: skip
def test_bad_lengths(lengths, error, text, method, backend):
    lm = LanguageModel(7, 11, 2, dropout=0.3, rng=0, backend=backend)
    x, y, h0 = batch(lm)
    arguments = {"forward": (x, h0), "train_step": (x, y, h0, optim.SGD(0.1))}.get(method, (x, y, h0))
    refused(
        lambda: getattr(lm, method)(*arguments, lengths=lengths), error, begins=text,
        watched=lambda: {"x": x, "y": y, "h0": h0, "lengths": lengths, "W": lm.parameters, "rng": lm.rng},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["x", "y"])
def test_an_index_out_of_bounds_within_the_lengths(name, backend):
    lm = LanguageModel(7, 11, rng=0, backend=backend)
    x, y, _ = batch(lm)
    given_ = {"x": x, "y": y}
    for value, kind in ((7, np.int64), (2**64 - 1, np.uint64), (200, np.uint8)):
        given_[name] = np.zeros((T, N), kind)
        given_[name][2, 0] = given_[name][6, 0] = given_[name][8, 1] = value  # of 3 and of 9 steps
        with pytest.raises(IndexError, match=rf"^{name}\[2, 0\] is {value}, outside \["):
            lm.loss(**given_, lengths=LENGTHS)
        given_[name][2, 0] = 0
        with pytest.raises(IndexError, match=rf"^{name}\[8, 1\] is {value}, outside \["):
            lm.loss(**given_, lengths=LENGTHS)
        given_[name][8, 1] = 0
        lm.loss(**given_, lengths=LENGTHS)
