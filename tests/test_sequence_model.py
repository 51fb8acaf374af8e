"""`SequenceModel` against the equations one sequence at a time, central differences, and itself called another way."""

import copy
import itertools
import math
import re

import numpy as np
import pytest
import sequence_by_hand
from hypothesis import assume, given
from hypothesis import strategies as st
from support import assert_close, bits, central_differences, tolerance

from fastrnn import GRU, LSTM, RNN, LanguageModel, SequenceModel, functional, optim

CELLS = {"tanh": {}, "relu": {"nonlinearity": "relu"}, "gru": {"cell": "gru"}, "lstm": {"cell": "lstm"}}
HEADS = ["each", "last", "mean"]
LOSSES = ["mse", "cross_entropy", "gaussian"]


def model(d=3, h=7, size=3, num_layers=1, *, seed=0, **options):
    """A model with weights and biases of entries of 0.7 or so divided by sqrt(h)."""
    sm = SequenceModel(d, h, size, num_layers, rng=seed, **options)
    rng = np.random.default_rng(seed)
    for W in sm.parameters.values():
        W[...] = rng.normal(size=W.shape) * 0.7 / math.sqrt(h)
    return sm


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def batch(sm, T, N, seed=1, *, classes=False, ragged=False, weighted="", ignored=False):
    """x, y and a dict of h0, lengths and weights; targets beyond a sequence's end are like the others."""
    rng, d, size = np.random.default_rng(seed), sm.input_size, sm.output_size
    rows = (T, N) if sm.head == "each" else (N,)
    x = rng.integers(d, size=(T, N)) if classes else rng.normal(size=(T, N, d)).astype(sm.dtype)
    if takes_classes(sm):
        y = rng.integers(size, size=rows)
        if ignored:
            y[rng.random(rows) < 0.4] = -100
    else:
        y = rng.normal(size=(*rows, size)).astype(sm.dtype)
    places = sm.num_layers * (1 + sm.bidirectional)
    h0 = tuple(
        (rng.normal(size=(places, N, sm.hidden_size)) * 0.5).astype(sm.dtype)
        for _ in range(1 + (sm.cell == "lstm"))
    )
    more = {"h0": h0 if sm.cell == "lstm" else h0[0]}
    if ragged:
        lengths = rng.integers(1, T + 1, N)
        lengths[rng.integers(N)] = T
        more["lengths"] = lengths
    if weighted:
        shape = (N,) if weighted == "sequences" else rows
        more["weights"] = rng.choice([0, 0.25, 1, 1, 3.5], size=shape).astype(sm.dtype)
    return x, y, more


def takes_classes(sm):
    return "'cross_entropy'" in repr(sm)


def of_forward(more):
    return {name: value for name, value in more.items() if name != "weights"}


def everything(sm, x, y, reduction="mean", **more):
    """Bits of all that the calls return."""
    loss, grads, h_n = sm.loss_and_grads(x, y, reduction=reduction, **more)
    value, same_h_n = sm.loss(x, y, reduction=reduction, **more)
    outputs, last_h_n = sm.forward(x, **of_forward(more))
    states = [*parts(h_n), *parts(same_h_n), *parts(last_h_n)]
    return bits(loss, value, outputs, *states, *grads.values())


def assert_by_hand(sm, x, y, *, reduction="mean", **more):
    """Everything against the equations."""
    want = sequence_by_hand.run(sm, x, y, reduction=reduction, **more)
    within = tolerance(sm.dtype) * 10
    loss, grads, h_n = sm.loss_and_grads(x, y, reduction=reduction, **more)
    assert type(loss) is float
    assert loss == pytest.approx(want.loss, rel=within, abs=within)
    assert list(grads) == list(sm.parameters)
    largest = max(np.abs(g).max() for g in want.grads.values())
    for name, g in grads.items():
        assert g.dtype == sm.dtype
        assert g.shape == sm.parameters[name].shape
        assert np.abs(g - want.grads[name]).max() <= within * max(largest, 1e-3), name
    assert sm.grads is grads
    value, value_h_n = sm.loss(x, y, reduction=reduction, **more)
    assert value == loss
    outputs, outputs_h_n = sm.forward(x, **of_forward(more))
    assert outputs.dtype == sm.dtype
    assert outputs.shape == want.outputs.shape
    assert np.abs(outputs - want.outputs).max() <= within * max(1, np.abs(want.outputs).max())
    for state in (h_n, value_h_n, outputs_h_n):
        assert isinstance(state, tuple) == (sm.cell == "lstm")
        for got, wanted in zip(parts(state), want.h_n, strict=True):
            assert got.dtype == sm.dtype
            assert np.abs(got - wanted).max() <= within * max(1, np.abs(wanted).max())
    return want


# Values and gradients


@pytest.mark.many(500)
@pytest.mark.few(18)
@pytest.mark.parametrize("kind", ["plain", "ragged", "ragged, weighted", "classes, weighted by sequence"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_against_the_equations(cell, num_layers, bidirectional, head, loss, kind, dtype, backend):
    sm = model(
        num_layers=num_layers, bidirectional=bidirectional, head=head, loss=loss, dtype=dtype, backend=backend,
        **CELLS[cell],
    )  # fmt: skip
    x, y, more = batch(
        sm, 5, 6, classes="classes" in kind, ragged="ragged" in kind, ignored="ragged" in kind,
        weighted="sequences" if "by sequence" in kind else "rows" if "weighted" in kind else "",
    )  # fmt: skip
    for reduction in ("mean", "sum"):
        want = assert_by_hand(sm, x, y, reduction=reduction, **more)
        assert all(g.any() for g in want.grads.values())


@given(
    T=st.integers(1, 7), N=st.sampled_from([1, 2, 3, 8, 9, 17, 20]), d=st.integers(1, 5),
    h=st.sampled_from([1, 2, 3, 7, 8, 9, 16, 17]), size=st.integers(1, 4), num_layers=st.integers(1, 4),
    cell=st.sampled_from([*CELLS]), bidirectional=st.booleans(), head=st.sampled_from(HEADS),
    loss=st.sampled_from(LOSSES), classes=st.booleans(), ragged=st.booleans(), ignored=st.booleans(),
    weighted=st.sampled_from(["", "rows", "sequences"]), reduction=st.sampled_from(["mean", "sum"]),
    recompute_every=st.none() | st.integers(1, 8), num_threads=st.integers(1, 2), with_h0=st.booleans(),
    seed=st.integers(0, 2**31),
)  # fmt: skip
def test_random_shapes(
    backend, T, N, d, h, size, num_layers, cell, bidirectional, head, loss, classes, ragged, ignored, weighted,
    reduction, recompute_every, num_threads, with_h0, seed,
):  # fmt: skip
    assume(not (bidirectional and recompute_every))
    sm = model(
        d, h, size, num_layers, seed=seed, bidirectional=bidirectional, head=head, loss=loss, dtype=np.float64,
        backend=backend, recompute_every=recompute_every, num_threads=num_threads, **CELLS[cell],
    )  # fmt: skip
    for call in range(2):  # the second one finds what the first one has left in the work space
        x, y, more = batch(
            sm, T, N, seed + call, classes=classes, ragged=ragged == (call == 0), weighted=weighted, ignored=ignored
        )  # fmt: skip
        assume(not classes or not looks_one_hot(x, d))
        more["h0"] = more["h0"] if with_h0 else None
        before = bits(x, y, *(a for value in more.values() if value is not None for a in parts(value)))
        assert_by_hand(sm, x, y, reduction=reduction, **more)
        assert (
            bits(x, y, *(a for value in more.values() if value is not None for a in parts(value))) == before
        )


def looks_one_hot(x, d):
    return x.shape[1] == d > 1 and (np.count_nonzero(x, axis=1) == 1).all()


@pytest.mark.few(4)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_every_entry_of_every_gradient(cell, bidirectional, head, loss, backend):
    """Central differences, of ragged weighted batches through dropout, whose stream is set back before each run."""
    sm = model(
        2, 3, 2, 2, dropout=0.3, bidirectional=bidirectional, head=head, loss=loss, dtype=np.float64, backend=backend,
        **CELLS[cell],
    )  # fmt: skip
    x, y, more = batch(sm, 4, 3, ragged=True, weighted="rows", ignored=True, seed=3)
    more["weights"] += 0.5
    state = sm.rng.bit_generator.state

    def goal():
        sm.rng.bit_generator.state = state
        return sm.loss_and_grads(x, y, **more)[0]

    goal()
    grads = {name: g.copy() for name, g in sm.grads.items()}
    for name, W in sm.parameters.items():
        slopes = central_differences(goal, W, 1e-6)
        assert np.abs(slopes).max() > 1e-4, name
        assert_close(grads[name], slopes, 1e-6, name)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_layer_and_an_output_layer(bidirectional, cell, dtype, backend):
    """`RNN`, `GRU` or `LSTM`, NumPy's product and mean, and the layer's own backward pass."""
    options = {"bidirectional": bidirectional, "dtype": dtype, "backend": backend}
    sm = model(4, 9, 2, 2, head="mean", **options, **CELLS[cell])
    x, y, more = batch(sm, 6, 5, ragged=True)
    kind, layer_options = {"gru": GRU, "lstm": LSTM}.get(cell, RNN), {}
    if cell == "relu":
        layer_options["nonlinearity"] = "relu"
    layers = kind(4, 9, 2, **options, **layer_options, rng=0)
    layers.load_state_dict(sm.state_dict(), strict=False)
    states, h_n = layers.forward(x, more["h0"], lengths=more["lengths"])
    lengths = more["lengths"][:, None].astype(dtype)
    means = states.sum(axis=0) / lengths
    outputs = means @ sm.parameters["weight_out"].T + sm.parameters["bias_out"]
    got, got_h_n = sm.forward(x, **more)
    assert_close(got, outputs, tolerance(dtype))
    for a, b in zip(parts(got_h_n), parts(h_n), strict=True):
        assert_close(a, b, tolerance(dtype))
    d_outputs = 2 * (outputs - y) / y.size
    d_means = d_outputs @ sm.parameters["weight_out"] / lengths
    layers.backward(np.broadcast_to(d_means, states.shape))
    _, grads, _ = sm.loss_and_grads(x, y, **more)
    for name, g in layers.grads.items():
        assert_close(grads[name], g, 10 * tolerance(dtype), name)
    assert_close(grads["weight_out"], d_outputs.T @ means, 10 * tolerance(dtype))


def test_a_language_model_is_one(dtype, backend):
    """With classes in and out, each step its own: the same parameters give the same bits."""
    sm = model(6, 11, 6, 2, loss="cross_entropy", dtype=dtype, backend=backend)
    lm = LanguageModel(6, 11, 2, rng=0, dtype=dtype, backend=backend)
    assert lm.load_state_dict(sm.state_dict()) == ([], [])
    x, y, more = batch(sm, 7, 20, classes=True, ragged=True, ignored=True)
    assert everything(sm, x, y, **more) == everything(lm, x, y, **more)
    adams = [optim.Adam(0.01, backend=backend) for _ in range(2)]
    for _ in range(3):
        got, want = (m.train_step(x, y, None, adam)[0] for m, adam in zip((sm, lm), adams, strict=True))
        assert got == want
    assert bits(*sm.parameters.values()) == bits(*lm.parameters.values())


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("head", ["last", "mean"])
def test_heads_agree_where_there_is_one_step(head, bidirectional, dtype, backend):
    options = {"bidirectional": bidirectional, "dtype": dtype, "backend": backend, "loss": "gaussian"}
    one, other = model(**options), model(head=head, **options)
    x, y, more = batch(other, 1, 20)
    got, want = other.loss_and_grads(x, y, **more), one.loss_and_grads(x, y[None], **more)
    assert got[0] == pytest.approx(want[0], rel=tolerance(dtype))
    for name, g in got[1].items():
        assert_close(g, want[1][name], tolerance(dtype), name)
    assert_close(other.forward(x)[0], one.forward(x)[0][0], tolerance(dtype))


# What counts


@pytest.mark.few(24)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS)
def test_weights_say_how_often(head, loss, dtype, backend):
    """Whole numbers against a batch with the sequences as often; fractions against those times four."""
    sm = model(head=head, loss=loss, dtype=dtype, backend=backend)
    x, y, _ = batch(sm, 4, 5, ignored=True)
    times = np.array([1, 0, 3, 2, 1])
    repeated = np.repeat(np.arange(5), times)
    y_of = (lambda n: y[:, n]) if head == "each" else (lambda n: y[n])
    for scale, reduction in itertools.product((1, 0.25), ("mean", "sum")):
        got = sm.loss_and_grads(x, y, weights=times * scale, reduction=reduction)
        want = sm.loss_and_grads(x[:, repeated], y_of(repeated), reduction=reduction)
        factor = scale if reduction == "sum" else 1
        assert got[0] == pytest.approx(want[0] * factor, rel=tolerance(dtype))
        for name, g in got[1].items():
            assert_close(g, want[1][name] * dtype(factor), 4 * tolerance(dtype), name)
    ones = np.ones(5)
    assert sm.loss(x, y, weights=ones)[0] == pytest.approx(sm.loss(x, y)[0], rel=tolerance(dtype))
    if head == "each":
        by_step = np.tile(times, (4, 1))
        assert everything(sm, x, y, weights=by_step) == everything(sm, x, y, weights=times)


SIZES = {
    np.float32: [1e-44, 1e-38, 1e-20, 2.0**80, 1e37, 3e38],
    np.float64: [1e-322, 1e-308, 2.0**500, 1e307, 1.7e308],
}


@pytest.mark.few(24)
@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS)
def test_weights_of_any_size(head, loss, which, dtype, backend):
    """A mean is that of any multiple of the weights, next to zero and next to infinity; and there are no warnings."""
    sm = model(head=head, loss=loss, dtype=dtype, backend=backend)
    x, y, more = batch(sm, 4, 6, ragged=True, ignored=True)
    size = SIZES[dtype][which % len(SIZES[dtype])]
    want = sm.loss_and_grads(x, y, **more, weights=np.ones(6))
    got = sm.loss_and_grads(x, y, **more, weights=np.full(6, size))
    assert got[0] == pytest.approx(want[0], rel=tolerance(dtype))
    assert sm.loss(x, y, **more, weights=np.full(6, size))[0] == got[0]
    for name, g in got[1].items():
        assert_close(g, want[1][name], tolerance(dtype), name)
    if math.frexp(size)[0] == 0.5:  # nothing is rounded then
        assert bits(got[0], *got[1].values()) == bits(want[0], *want[1].values())
    # One that is next to nothing beside another.
    one = np.eye(6)[2] * size + size * 1e-10
    got = sm.loss(x, y, **more, weights=one)[0]
    assert got == pytest.approx(sm.loss(x, y, **more, weights=np.eye(6)[2])[0], rel=1e-6)
    total = sm.loss(x, y, **more, weights=np.full(6, 2.0**-30), reduction="sum")[0]
    assert total == pytest.approx(sm.loss(x, y, **more, reduction="sum")[0] * 2.0**-30, rel=tolerance(dtype))


@pytest.mark.parametrize("head", HEADS)
def test_a_target_that_does_not_count_has_no_weight(head, dtype, backend):
    """However large the weight is that is given for it."""
    sm = model(head=head, loss="cross_entropy", dtype=dtype, backend=backend)
    x, y, _ = batch(sm, 3, 4)
    y[..., 1] = -100
    large, small = (1e30, 1e-20) if dtype is np.float32 else (1e300, 1e-200)
    weights = np.full(4, small)
    want = sm.loss_and_grads(x, y, weights=weights)
    weights[1] = large
    got = sm.loss_and_grads(x, y, weights=weights)
    assert got[0] == pytest.approx(want[0], rel=tolerance(dtype))
    for name, g in got[1].items():
        assert_close(g, want[1][name], tolerance(dtype), name)


@pytest.mark.few(24)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS)
def test_a_mask_is_weights(head, loss, dtype, backend):
    sm = model(head=head, loss=loss, dtype=dtype, backend=backend)
    x, y, more = batch(sm, 4, 6, ragged=True, ignored=True)
    rng = np.random.default_rng(0)
    for mask in (np.array([1, 0, 1, 1, 0, 1], bool), rng.random((4, 6) if head == "each" else 6) < 0.6):
        wanted = everything(sm, x, y, **more, weights=mask.astype(dtype))
        for given_ in (
            mask,
            mask.tolist(),
            mask.astype(np.int8),
            mask.astype(np.float16),
            np.asfortranarray(mask),
        ):
            assert everything(sm, x, y, **more, weights=given_) == wanted


@pytest.mark.few(24)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_where_nothing_counts_all_is_zero(bidirectional, head, loss, dtype, backend):
    sm = model(num_layers=2, bidirectional=bidirectional, head=head, loss=loss, dtype=dtype, backend=backend)
    x, y, more = batch(sm, 4, 18, ragged=True)
    ways = [(y, {"weights": np.zeros(18)}), (y, {"weights": np.zeros(y.shape[: 2 if head == "each" else 1])})]
    if loss == "cross_entropy":
        ways += [(np.full_like(y, -100), {}), (np.full_like(y, -100), {"weights": np.ones(18)})]
    for targets, how in ways:
        for reduction in ("mean", "sum"):
            assert sm.loss_and_grads(x, y, **more)[0] > 0.01  # something to be left over
            loss_, grads, h_n = sm.loss_and_grads(x, targets, **more, **how, reduction=reduction)
            assert loss_ == sm.loss(x, targets, **more, **how, reduction=reduction)[0] == 0
            assert not any(g.any() for g in grads.values())
            assert all(np.isfinite(g).all() for g in grads.values())
            assert np.array_equal(h_n, sm.forward(x, **more)[1])
    before = bits(*sm.parameters.values())
    assert sm.train_step(x, ways[-1][0], None, optim.SGD(0.1, backend=backend), **ways[-1][1])[0] == 0
    assert sm.grad_norm == 0
    assert bits(*sm.parameters.values()) == before


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", ["mse", "gaussian"])
def test_targets_of_no_weight_are_not_read(loss, head, dtype, backend):
    """NaN where a value is missing, and zero as its weight."""
    sm = model(head=head, loss=loss, dtype=dtype, backend=backend)
    x, y, more = batch(sm, 4, 6, weighted="rows")
    more["weights"].flat[0] = 0
    missing = y.copy()
    missing[more["weights"] == 0] = np.nan
    assert np.isnan(missing).any()
    assert np.isfinite(sm.loss(x, missing, **more)[0])
    assert everything(sm, x, missing, **more) == everything(sm, x, y, **more)


@pytest.mark.many(300)
@pytest.mark.few(48)
@pytest.mark.parametrize("recompute_every", [None, 2])
@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_what_lies_beyond_the_lengths_has_no_influence(
    cell, bidirectional, head, loss, classes, recompute_every, dtype, backend
):
    """To the bit: NaN, infinity and what is no class."""
    sm = model(
        num_layers=2, bidirectional=bidirectional, head=head, loss=loss, dtype=dtype, backend=backend,
        recompute_every=None if bidirectional else recompute_every, **CELLS[cell],
    )  # fmt: skip
    x, y, more = batch(sm, 7, 18, classes=classes, ragged=True, weighted="rows", ignored=True)
    beyond = np.arange(7)[:, None] >= more["lengths"]
    others = []
    for wild, wilder in ((np.nan, -7), (np.inf, 10**15), (-1e30, -(2**63))):
        x_, y_ = x.copy(), y.copy()
        x_[beyond] = wilder if classes else wild
        if head == "each":
            y_[beyond] = wilder if y.dtype.kind == "i" else wild
        others.append((x_, y_))
    wanted = everything(sm, x, y, **more)
    for (x_, y_), weight in zip(others, (np.nan, -1.0, np.inf), strict=True):
        if head == "each":
            more["weights"] = np.where(beyond, weight, more["weights"])
        assert everything(sm, x_, y_, **more) == wanted
    if head == "each":
        outputs = sm.forward(x, lengths=more["lengths"])[0]
        assert not outputs[beyond].any()
        assert outputs[~beyond].all()
    twins = [copy.deepcopy(sm) for _ in range(2)]
    for twin, (x_, y_) in zip(twins, ((x, y), others[0]), strict=True):
        twin.train_step(x_, y_, None, optim.SGD(0.1, backend=backend), lengths=more["lengths"])
    assert bits(*twins[0].parameters.values()) == bits(*twins[1].parameters.values())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_lengths_of_all_steps_are_none(cell, head, dtype, backend):
    sm = model(num_layers=2, bidirectional=True, head=head, dtype=dtype, backend=backend, **CELLS[cell])
    x, y, more = batch(sm, 5, 6)
    wanted = everything(sm, x, y, **more)
    everything(sm, x, y, **more, lengths=[1, 2, 3, 4, 5, 1])  # is not remembered
    for lengths in (None, [5] * 6, np.full(6, 5, np.uint8)):
        assert everything(sm, x, y, **more, lengths=lengths) == wanted


@pytest.mark.parametrize("kind", [list, tuple, np.uint8, np.int64, ">i2", np.uint64])
def test_lengths_of_every_kind(kind, backend):
    sm = model(head="mean", bidirectional=True, backend=backend)
    x, y, _ = batch(sm, 5, 4)
    lengths = [3, 5, 1, 2]
    given = kind(lengths) if kind in (list, tuple) else np.array(lengths, kind)
    assert everything(sm, x, y, lengths=given) == everything(sm, x, y, lengths=np.array(lengths))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS)
def test_a_batch_of_no_sequences(head, loss, bidirectional, dtype, backend):
    sm = model(num_layers=2, bidirectional=bidirectional, head=head, loss=loss, dtype=dtype, backend=backend)
    rows = (4, 0) if head == "each" else (0,)
    y = np.zeros(rows if loss == "cross_entropy" else (*rows, 3), int)
    before = bits(*sm.parameters.values())
    for x in (np.zeros((4, 0, 3)), np.zeros((4, 0), int)):
        for more in (
            {},
            {"lengths": [], "weights": np.ones(0)},
            {"h0": np.zeros((2 + 2 * bidirectional, 0, 7))},
        ):
            value, grads, h_n = sm.loss_and_grads(x, y, **more)
            assert value == sm.loss(x, y, **more)[0] == 0
            assert list(grads) == list(sm.parameters)
            assert not any(g.any() for g in grads.values())
            assert h_n.shape == (2 + 2 * bidirectional, 0, 7)
            outputs, _ = sm.forward(x, **of_forward(more))
            assert outputs.shape == (*rows, 6 if loss == "gaussian" else 3)
            assert outputs.dtype == dtype
            if loss == "cross_entropy":
                assert sm.loss(x, y.tolist())[0] == 0
        assert sm.train_step(x, y, None, optim.SGD(0.1, backend=backend))[0] == sm.grad_norm == 0
    assert bits(*sm.parameters.values()) == before


# Kinds of arrays


def strided(a):
    return np.repeat(a, 2, axis=-1)[..., ::2]


def unaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)[1:]
    array = memory.view(a.dtype).reshape(a.shape)
    array[...] = a
    return array


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


ORDERS = {
    "Fortran": np.asfortranarray, "strided": strided, "unaligned": unaligned, "read-only": read_only,
    "reversed": lambda a: a[::-1].copy()[::-1], "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "list": lambda a: a.tolist(), "float16": lambda a: a.astype(np.float16) if a.dtype.kind == "f" else a,
    "float64": lambda a: a.astype(np.float64) if a.dtype.kind == "f" else a.astype(np.int16),
    "int8": lambda a: a.astype(np.int8),
}  # fmt: skip


@pytest.mark.many(200)
@pytest.mark.few(48)
@pytest.mark.parametrize("kind", ORDERS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("loss", "classes"), [("mse", False), ("cross_entropy", True), ("gaussian", False)])
def test_arrays_of_every_kind(loss, classes, head, kind, dtype, backend):
    """The same bits, of whole numbers that every dtype holds, and nothing modified."""
    sm = model(num_layers=2, head=head, loss=loss, dtype=dtype, backend=backend)
    x, y, more = batch(sm, 5, 4, classes=classes, weighted="rows")
    plain = {"x": x, "y": y, **more}
    plain = {name: np.round(a * 2).astype(a.dtype) for name, a in plain.items()}
    if classes:
        plain["x"], plain["y"] = plain["x"] // 2, plain["y"] // 2
    made = {name: ORDERS[kind](a) for name, a in plain.items()}
    before = bits(*made.values())
    for ragged in ({}, {"lengths": np.array([2, 5, 1, 4])}):
        assert everything(sm, **made, **ragged) == everything(sm, **plain, **ragged)
    assert bits(*made.values()) == before
    results = []
    for arrays in (made, plain):
        twin = copy.deepcopy(sm)
        loss_, h_n = twin.train_step(**arrays, optimizer=optim.SGD(0.1, backend=backend))
        results.append(bits(loss_, h_n, *twin.parameters.values()))
    assert results[0] == results[1]
    assert bits(*made.values()) == before


def test_classes_are_one_hot_vectors_and_count_from_the_end(dtype, backend):
    sm = model(5, 9, 2, 2, bidirectional=True, head="mean", dtype=dtype, backend=backend)
    x, y, more = batch(sm, 6, 4, classes=True, ragged=True)
    wanted = everything(sm, x, y, **more)
    assert everything(sm, x - 5, y, **more) == wanted
    vectors = np.eye(5, dtype=dtype)[x]
    got, want = sm.loss_and_grads(vectors, y, **more), sm.loss_and_grads(x, y, **more)
    assert got[0] == pytest.approx(want[0], rel=tolerance(dtype))
    for name, g in got[1].items():
        assert_close(g, want[1][name], tolerance(dtype), name)


def test_numbers_that_are_whole_are_vectors_where_there_are_three_axes(dtype, backend):
    sm = model(dtype=dtype, backend=backend)
    x = np.arange(24).reshape(4, 2, 3) % 5
    y = np.arange(24).reshape(4, 2, 3) % 2
    assert everything(sm, x, y) == everything(sm, x.astype(dtype), y.astype(dtype))


@pytest.mark.parametrize("head", HEADS)
def test_results_are_the_callers(head, dtype, backend):
    """New arrays, that no later call writes to; and they may be written to."""
    sm = model(num_layers=2, bidirectional=True, head=head, dtype=dtype, backend=backend)
    x, y, more = batch(sm, 5, 20, ragged=True)
    loss, grads, h_n = sm.loss_and_grads(x, y, **more)
    results = [h_n, *grads.values(), *sm.forward(x, **more), sm.loss(x, y, **more)[1]]
    before = bits(*results)
    wanted = everything(sm, x, y, **more)
    for other in (-x, x[:, ::-1]):
        everything(sm, other, -y, h0=-more["h0"])
        sm.train_step(other, y, None, optim.SGD(0.0, backend=backend))
    assert bits(*results) == before
    for array in results:
        array[...] = 7
    assert everything(sm, x, y, **more) == wanted


# States


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cell", CELLS)
def test_two_halves_are_one_run(cell, head, dtype, backend):
    """The last state goes on; of ragged sequences too, where those of the first half are whole."""
    sm = model(num_layers=2, head=head, dtype=dtype, backend=backend, **CELLS[cell])
    x, y, more = batch(sm, 9, 6)
    for lengths in (None, np.array([9, 5, 7, 6, 9, 5])):
        outputs, h_n = sm.forward(x, more["h0"], lengths=lengths)
        middle = sm.forward(x[:4], more["h0"])
        later = sm.forward(x[4:], middle[1], lengths=None if lengths is None else lengths - 4)
        for got, want in zip(parts(later[1]), parts(h_n), strict=True):
            assert_close(got, want, tolerance(dtype))
        if head == "each":
            assert_close(np.concatenate([middle[0], later[0]]), outputs, tolerance(dtype))
        elif head == "last":
            assert_close(later[0], outputs, tolerance(dtype))
    assert_close(
        parts(sm.forward(x)[1])[0], parts(sm.forward(x, sm.initial_state(6))[1])[0], tolerance(dtype)
    )


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_a_state_that_train_step_returned_may_be_given_back(cell, bidirectional, dtype, backend):
    options = {"head": "last", "dtype": dtype, "backend": backend, "bidirectional": bidirectional}
    mine, theirs = (model(num_layers=2, **options, **CELLS[cell]) for _ in range(2))
    x, y, more = batch(mine, 6, 4, ragged=True)
    descents = [optim.SGD(0.1, backend=backend) for _ in range(2)]
    h = g = more.pop("h0")
    previous = None
    for _ in range(5):
        loss, h = mine.train_step(x, y, h, descents[0], **more)
        want, g = theirs.train_step(x, y, g, descents[1], **more)
        g = copy.deepcopy(g)
        assert (loss, bits(*parts(h))) == (want, bits(*parts(g)))
        if previous is not None:
            assert bits(*parts(previous[0])) == bits(*parts(previous[1])), (
                "the state of the call before is whole"
            )
        previous = h, copy.deepcopy(h)


# Recomputation


@pytest.mark.many(400)
@pytest.mark.few(48)
@pytest.mark.parametrize("k", [1, 2, 3, 6, 7, 100])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_recomputation_changes_nothing(cell, num_layers, head, loss, k, dtype, backend):
    """Ragged and weighted, many sequences ended before the last chunks; dropout draws the same."""
    options = {"head": head, "loss": loss, "dtype": dtype, "backend": backend, **CELLS[cell]}
    options["dropout"] = 0.3 if num_layers > 1 else 0.0
    plain, other = (model(num_layers=num_layers, **options, recompute_every=every) for every in (None, k))
    assert (plain.recompute_every, other.recompute_every) == (None, k)
    x, y, more = batch(plain, 7, 18, ragged=True, weighted="rows", ignored=True)
    more["lengths"][:9] = 1
    within = 5 * tolerance(dtype)
    for ragged in (more, {name: value for name, value in more.items() if name != "lengths"}, more):
        for sm in (plain, other):
            sm.rng = np.random.default_rng(4)
        want, grads, want_h_n = plain.loss_and_grads(x, y, **ragged)
        loss_, got, h_n = other.loss_and_grads(x, y, **ragged)
        assert loss_ == pytest.approx(want, rel=within)
        for a, b in zip(parts(h_n), parts(want_h_n), strict=True):
            assert_close(a, b, within)
        largest = max(np.abs(g).max() for g in grads.values())
        for name, g in grads.items():
            assert np.abs(got[name] - g).max() <= within * largest, name
            assert g.any(), name
        assert other.rng.bit_generator.state == plain.rng.bit_generator.state
        assert_close(
            other.forward(x, **of_forward(ragged))[0], plain.forward(x, **of_forward(ragged))[0], within
        )
        assert other.loss(x, y, **ragged)[0] == pytest.approx(plain.loss(x, y, **ragged)[0], rel=within)


# Training steps


@pytest.mark.few(24)
@pytest.mark.parametrize("clip", ["norm", "value", None])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", LOSSES)
def test_train_step_is_gradients_clipping_and_a_step(loss, head, clip, dtype, backend):
    mine, theirs = (model(num_layers=2, head=head, loss=loss, dtype=dtype, backend=backend) for _ in range(2))
    x, y, more = batch(mine, 6, 18, ragged=True, weighted="rows", ignored=True)
    h0, threshold = more.pop("h0"), {"norm": 0.05, "value": 0.01}.get(clip, 5.0)
    assert math.isnan(mine.grad_norm)
    adams = [optim.Adam(0.02, backend=backend) for _ in range(2)]
    for _ in range(3):
        loss_, h_n = mine.train_step(x, y, h0, adams[0], clip=clip, clip_threshold=threshold, **more)
        want, grads, want_h_n = theirs.loss_and_grads(x, y, h0, **more)
        norm = math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))
        if clip == "value":
            assert max(np.abs(g).max() for g in grads.values()) > threshold
            grads = {name: np.clip(g, -threshold, threshold) for name, g in grads.items()}
        elif clip == "norm":
            assert norm > threshold
            grads = {name: g * dtype(threshold / norm) for name, g in grads.items()}
        within = 1e-11 if dtype is np.float64 else 1e-4
        for name, g in grads.items():
            assert_close(mine.grads[name], g, within, name)
        adams[1].step(theirs.parameters, grads)
        assert loss_ == pytest.approx(want, rel=within)
        assert mine.grad_norm == pytest.approx(norm, rel=within)
        assert_close(h_n, want_h_n, within)
        for name, W in theirs.parameters.items():
            assert_close(mine.parameters[name], W, 10 * within, name)


def test_the_threshold_is_five_and_the_norm_what_is_clipped(backend):
    sm = model(head="last", dtype=np.float64, backend=backend)
    x, y, _ = batch(sm, 6, 5)
    sm.train_step(x, y + 1000, None, optim.SGD(0.0, backend=backend))
    assert sm.grad_norm > 100
    assert math.sqrt(sum((g**2).sum() for g in sm.grads.values())) == pytest.approx(5, rel=1e-12)


@pytest.mark.few(6)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_sum_is_learned(loss, head, dtype, backend):
    """Of all steps so far, of all, or their mean; those of new sequences are predicted as well."""
    sm = SequenceModel(
        1, 12, 1 + (loss == "cross_entropy"), cell="gru", bidirectional=head == "mean", head=head, loss=loss,
        dtype=dtype, rng=0, backend=backend,
    )  # fmt: skip
    rng, made = np.random.default_rng(0), {"each": np.cumsum, "last": np.sum, "mean": np.mean}[head]

    def new(N):
        x = rng.normal(size=(3, N, 1)).astype(dtype)
        sums = made(x[..., 0], axis=0)
        return x, (sums > 0).astype(int) if loss == "cross_entropy" else sums[..., None]

    adam, (x, y) = optim.Adam(0.02, backend=backend), new(64)
    before = sm.loss(x, y)[0]
    for _ in range(150):
        sm.train_step(x, y, None, adam)
    after = sm.loss(x, y)[0]
    assert after < (before - 0.7 if loss == "gaussian" else 0.4 * before)
    x, y = new(200)
    outputs, _ = sm.forward(x)
    if loss == "cross_entropy":
        assert (outputs.argmax(axis=-1) == y).mean() > 0.88
    else:
        assert np.corrcoef(outputs[..., 0].ravel(), y.ravel())[0, 1] > 0.95


def test_variances_are_learned(backend):
    """Noise of standard deviations that the input tells."""
    rng = np.random.default_rng(0)
    sm = SequenceModel(1, 8, 1, loss="gaussian", dtype=np.float64, rng=0, backend=backend)
    x = rng.choice([-1.0, 1.0], size=(1, 1000, 1))
    y = rng.normal(size=x.shape) * np.where(x > 0, 2.0, 0.5) + 3 * x
    adam = optim.Adam(0.05, backend=backend)
    for _ in range(200):
        sm.train_step(x, y, None, adam)
    outputs, _ = sm.forward(np.array([[[-1.0], [1.0]]]))
    assert outputs[0, :, 0] == pytest.approx([-3, 3], abs=0.2)
    assert np.exp(outputs[0, :, 1] / 2) == pytest.approx([0.5, 2], rel=0.1)
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    assert sm.loss(x, y)[0] == pytest.approx(entropy, abs=0.05)  # log 2 and log 1/2 cancel


# Dropout


@pytest.mark.few(12)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_dropout(head, bidirectional, dtype, backend):
    """Over many masks the states of a net of sums have the mean of those without; and who says when and which."""
    h, N, p = 12, 400, 0.4
    sm = SequenceModel(
        2, h, 1, 2, nonlinearity="relu", dropout=p, head=head, bidirectional=bidirectional, dtype=dtype, rng=5,
        backend=backend,
    )  # fmt: skip
    for name, W in sm.parameters.items():
        W[...] = 0 if "hh" in name else np.abs(W)
    x = np.ones((3, N, 2))
    outputs, plain = sm.forward(x)
    y = np.zeros(outputs.shape)
    off = pytest.approx(float(outputs.flat[0]) ** 2, rel=1e-5)
    assert sm.loss(x, y)[0] == off
    state = copy.deepcopy(sm.rng.bit_generator.state)
    loss, _, h_n = sm.loss_and_grads(x, y)
    assert loss != off
    share = h_n[-1] / plain[-1, 0]  # of each unit of the second layer, sums over those masks
    assert 0.05 < share.std() < 0.5
    assert share.mean(axis=0) == pytest.approx(np.ones(h), abs=5 * 0.5 / math.sqrt(N))
    assert sm.loss_and_grads(x, y)[0] not in (loss, off)
    sm.rng.bit_generator.state = state
    assert sm.loss_and_grads(x, y)[0] == loss
    sm.rng.bit_generator.state = state
    assert sm.train_step(x, y, None, optim.SGD(0.0, backend=backend))[0] == loss
    sm.eval()
    state = copy.deepcopy(sm.rng.bit_generator.state)
    assert sm.loss_and_grads(x, y)[0] == off
    assert sm.rng.bit_generator.state == state
    assert sm.train().loss_and_grads(x, y)[0] != off


def test_all_is_dropped(dtype, backend):
    sm = model(num_layers=2, dropout=1.0, head="mean", bidirectional=True, dtype=dtype, backend=backend)
    x, y, _ = batch(sm, 4, 5)
    _, grads, _ = sm.loss_and_grads(x, y)
    assert not grads["weight_ih_l1"].any()
    assert not grads["weight_ih_l0_reverse"].any()
    assert grads["weight_hh_l1"].any()


def test_dropout_draws_the_same_on_every_backend(dtype, backend):
    mine, theirs = (
        model(
            num_layers=3, dropout=0.5, bidirectional=True, cell="lstm", head="last", dtype=dtype, backend=name
        )
        for name in (backend, "numpy")
    )
    x, y, more = batch(mine, 7, 20, ragged=True)
    for _ in range(2):
        loss, grads, _ = mine.loss_and_grads(x, y, **more)
        want, wanted, _ = theirs.loss_and_grads(x, y, **more)
        assert loss == pytest.approx(want, rel=10 * tolerance(dtype))
        for name, g in grads.items():
            assert_close(g, wanted[name], 20 * tolerance(dtype), name)


# Threads


def results(num_threads, h, N, *, T=7, num_layers=1, **options):
    sm = model(5, h, 3, num_layers, num_threads=num_threads, **options)
    x, y, more = batch(sm, T, N, ragged=True, weighted="rows", ignored=True)
    got = everything(sm, x, y, **more)
    adam, h_n = optim.Adam(0.01, backend=options["backend"]), more.pop("h0")
    for _ in range(2):
        loss, h_n = sm.train_step(x, y, h_n, adam, clip_threshold=0.01, **more)
        got += bits(loss, sm.grad_norm, *parts(h_n), *sm.parameters.values())
    return got


@pytest.mark.many(400)
@pytest.mark.few(24)
@pytest.mark.parametrize("how", ["one", "two directions", "recomputed", "dropout"])
@pytest.mark.parametrize("N", [1, 3, 16, 33, 64])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("cell", CELLS)
def test_the_same_bits_whatever_the_number_of_threads(
    cell, loss, head, N, how, dtype, backend, small_work_shared, threads_used
):
    options = {
        "one": {}, "two directions": {"bidirectional": True, "num_layers": 2}, "recomputed": {"recompute_every": 3},
        "dropout": {"dropout": 0.4, "num_layers": 3},
    }[how]  # fmt: skip
    options |= {"head": head, "loss": loss, "dtype": dtype, "backend": backend, **CELLS[cell]}
    wanted = results(1, 18, N, **options)
    assert set(threads_used) <= {1}
    for num_threads in (2, 3):
        threads_used.clear()
        assert results(num_threads, 18, N, **options) == wanted, f"{num_threads} threads"
        if N > 16:
            assert max(threads_used) > 1, "no threads were at work"
    assert results(None, 18, N, **options) == wanted


@pytest.mark.few(5)
@pytest.mark.parametrize("N", [1, 2, 3, 64])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_large_sizes_on_any_number_of_threads(cell, head, N, dtype, backend, small_work_shared):
    options = {"head": head, "dtype": dtype, "backend": backend, "T": 5, **CELLS[cell]}
    options |= {"bidirectional": True} if head == "mean" else {}
    wanted = results(1, 256, N, **options)
    for num_threads in (2, 3):
        assert results(num_threads, 256, N, **options) == wanted, f"{num_threads} threads"


@pytest.mark.few(8)
@pytest.mark.parametrize(("h", "size", "N"), [(256, 150, 64), (190, 4, 2), (130, 300, 33)])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", LOSSES)
def test_weights_larger_than_a_cache(loss, head, h, size, N, dtype, backend):
    """Matrices that come in blocks: what NumPy's kernels compute."""
    options = {"head": head, "loss": loss, "dtype": dtype, "bidirectional": head == "last"}
    mine, theirs = (model(h // 2, h, size, 1, backend=name, **options) for name in (backend, "numpy"))
    assert max(W.size for W in mine.parameters.values()) > 32768
    x, y, more = batch(mine, 4, N, ragged=True)
    got, want = mine.loss_and_grads(x, y, **more), theirs.loss_and_grads(x, y, **more)
    assert got[0] == pytest.approx(want[0], rel=20 * tolerance(dtype))
    for name, g in got[1].items():
        assert_close(g, want[1][name], 20 * tolerance(dtype), name)
    outputs, wanted = (sm.forward(x, **more)[0] for sm in (mine, theirs))
    assert_close(outputs, wanted, 20 * tolerance(dtype))


# Work space, parameters, the object itself


def test_nothing_is_left_in_the_work_space(dtype, backend):
    """Calls of many shapes in any order, ragged, weighted and not."""
    sm = model(num_layers=3, head="last", dtype=dtype, backend=backend, recompute_every=4)
    shapes = [(5, 3), (1, 1), (9, 33), (5, 33), (9, 3), (5, 3)]
    batches = [
        batch(sm, T, N, seed=i, ragged=i % 2 == 0, weighted="rows" if i % 3 else "")
        for i, (T, N) in enumerate(shapes)
    ]
    first = [everything(sm, x, y, **more) for x, y, more in batches]
    for i in (4, 0, 5, 2, 1, 0, 3, 5):
        x, y, more = batches[i]
        assert everything(sm, x, y, **more) == first[i]


def test_parameters_that_were_changed_are_seen(dtype, backend):
    sm, other = (model(num_layers=2, head="mean", dtype=dtype, backend=backend, seed=seed) for seed in (0, 1))
    x, y, more = batch(sm, 5, 6, ragged=True)
    wanted = everything(other, x, y, **more)
    assert everything(sm, x, y, **more) != wanted
    for i, (name, W) in enumerate(other.parameters.items()):
        if i % 3 == 0:
            sm.parameters[name][...] = W  # in place
        else:
            sm.parameters[name] = (
                np.asfortranarray(W) if i % 3 == 1 else read_only(W)
            )  # by one in another order
    assert everything(sm, x, y, **more) == wanted


def test_state_dicts_load_in_place(dtype, backend):
    sm, other = (
        model(num_layers=2, bidirectional=True, dtype=dtype, backend=backend, seed=s) for s in (0, 1)
    )
    held = dict(sm.parameters)
    assert sm.load_state_dict(other.state_dict()) == ([], [])
    assert all(sm.parameters[name] is W for name, W in held.items())
    x, y, more = batch(sm, 5, 6)
    assert everything(sm, x, y, **more) == everything(other, x, y, **more)


def test_attributes(dtype):
    sm = SequenceModel(
        5, 8, 3, 2, cell="lstm", bidirectional=True, dropout=0.25, head="last", loss="gaussian", dtype=dtype, rng=0
    )  # fmt: skip
    assert (sm.input_size, sm.hidden_size, sm.output_size, sm.num_layers, sm.cell) == (5, 8, 3, 2, "lstm")
    assert (sm.bidirectional, sm.dropout, sm.head, sm.recompute_every) == (True, 0.25, "last", None)
    assert sm.dtype == dtype
    assert sm.training
    with pytest.raises(AttributeError, match="cell 'rnn' only"):
        _ = sm.nonlinearity
    shapes = {}
    for layer, suffix in itertools.product((0, 1), ("", "_reverse")):
        widths = {
            "weight_ih": (32, 16 if layer else 5),
            "weight_hh": (32, 8),
            "bias_ih": (32,),
            "bias_hh": (32,),
        }
        shapes |= {f"{kind}_l{layer}{suffix}": shape for kind, shape in widths.items()}
    shapes |= {"weight_out": (6, 16), "bias_out": (6,)}
    assert {name: W.shape for name, W in sm.parameters.items()} == shapes
    assert list(sm.parameters) == list(shapes)
    assert sm.num_parameters == sum(W.size for W in sm.parameters.values())
    states = sm.initial_state(4)
    assert [state.shape for state in states] == [(4, 4, 8)] * 2
    assert all(state.dtype == dtype and not state.any() for state in states)
    plain = SequenceModel(5, 8, 3, rng=0)
    assert (plain.cell, plain.nonlinearity, plain.bidirectional, plain.head) == (
        "rnn",
        "tanh",
        False,
        "each",
    )
    assert plain.dtype == np.float32
    assert plain.parameters["weight_out"].shape == (3, 8)


def test_initial_values_are_those_of_the_layers(dtype):
    """From one seed the layers of an `RNN` begin alike; the output layer is drawn after them."""
    sm = SequenceModel(40, 64, 30, 2, bidirectional=True, dtype=dtype, rng=3)
    rnn = RNN(40, 64, 2, bidirectional=True, dtype=dtype, rng=3)
    for name, W in rnn.parameters.items():
        assert np.array_equal(sm.parameters[name], W), name
    for name in ("weight_out", "bias_out"):
        assert 0.7 / 8 < np.abs(sm.parameters[name]).max() <= 1 / 8 * (1 + 1e-6)


def test_repr_makes_an_equal_model():
    for options in ({}, {"cell": "gru", "head": "last", "loss": "gaussian", "bidirectional": True}):
        sm = SequenceModel(3, 4, 2, 2, dropout=0.5, **options)
        text = re.sub(r"dtype=(\w+)", r"dtype=np.\1", repr(sm))
        again = eval(text, {"SequenceModel": SequenceModel, "np": np})  # noqa: S307
        assert repr(again) == repr(sm)
        assert {name: W.shape for name, W in again.parameters.items()} == {
            name: W.shape for name, W in sm.parameters.items()
        }


def test_calling_it_is_forward(dtype, backend):
    sm = model(head="mean", dtype=dtype, backend=backend)
    x, _, more = batch(sm, 5, 6, ragged=True)
    assert bits(*sm(x, **more)) == bits(*sm.forward(x, **more))


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "weight_out", "bias_out"])
@pytest.mark.parametrize("loss", LOSSES)
def test_nan_weights(loss, name, dtype, backend):
    """NumPy's result: no crash, no hang, no warning."""
    sm = model(head="last", loss=loss, dtype=dtype, backend=backend)
    sm.parameters[name][...] = np.nan
    x, y, _ = batch(sm, 4, 5)
    assert math.isnan(sm.loss_and_grads(x, y)[0])
    assert math.isnan(sm.loss(x, y)[0])
    assert math.isnan(sm.train_step(x, y, None, optim.SGD(0.1, backend=backend))[0])
    assert math.isnan(sm.grad_norm)


@pytest.mark.parametrize("loss", LOSSES)
def test_outputs_of_any_size(loss, dtype, backend):
    """Errors that overflow, variances of exp(1000): infinities as of the formula, and no warnings."""
    sm = model(1, 3, 2, loss=loss, dtype=dtype, backend=backend, head="mean")
    sm.parameters["weight_out"][...] = 0
    x = np.zeros((2, 1, 1))
    if loss == "cross_entropy":
        sm.parameters["bias_out"][:] = [5000, -5000]
        assert sm.loss_and_grads(x, [1])[0] == pytest.approx(10000)
    elif loss == "mse":
        sm.parameters["bias_out"][:] = [1e30, -1e30]
        got = sm.loss_and_grads(x, [[0, 0]])[0]
        assert got == pytest.approx(1e60) or (got == math.inf and dtype is np.float32)
    else:
        sm.parameters["bias_out"][:] = [0, 0, 1000, -1000]
        value = (math.log(2 * math.pi) + 1000) / 2
        got = sm.loss_and_grads(x, [[1, 1]])[0]
        assert got == math.inf
        got = sm.loss_and_grads(x, [[1, 0]])[0]
        assert got == pytest.approx(value - 500)


@pytest.mark.parametrize(
    ("mean", "log_variance", "target", "only"),
    [
        (0, -100, 0, None), (1, -100, 1, None), (1e-25, -100, 0, None), (1e25, 200, 0, None), (1e30, 80, 0, None),
        (0, -5e37, 0, None), (0, -800, 0, np.float64), (1e160, 400, 0, np.float64), (-1e150, 600, 2e150, np.float64),
    ],
)  # fmt: skip
def test_a_gaussian_of_any_width(mean, log_variance, target, only, dtype, backend):
    """What can be represented is not lost on the way, and is what `functional` says."""
    if only not in (None, dtype):
        pytest.skip("beyond what float32 holds")
    sm = model(1, 3, 1, loss="gaussian", dtype=dtype, backend=backend, head="last")
    for W in sm.parameters.values():
        W[...] = 0
    sm.parameters["bias_out"][:] = mean, log_variance
    got, grads, _ = sm.loss_and_grads(np.zeros((2, 1, 1)), [[target]])
    given = [np.array([value], np.float64) for value in (mean, log_variance, target)]
    assert got == pytest.approx(functional.gaussian_nll_loss(*given), rel=tolerance(dtype))
    wanted = functional.gaussian_nll_loss_backward(*given)
    # Where the deviation's reciprocal is denormal, it has few digits.
    rel = 0.05 if dtype is np.float32 and log_variance > 170 else 1e-4 if dtype is np.float32 else 1e-9
    assert grads["bias_out"] == pytest.approx(np.concatenate(wanted), rel=rel, abs=1e-30)


def test_an_error_of_zero_with_a_weight_next_to_infinity(dtype, backend):
    sm = model(1, 3, 2, loss="mse", dtype=dtype, backend=backend, head="last")
    sm.parameters["weight_out"][...] = 0
    sm.parameters["bias_out"][...] = 0
    weight = 0.9 * float(np.finfo(dtype).max)
    grads = sm.loss_and_grads(np.zeros((2, 1, 1)), [[0, 1e-3]], weights=[weight], reduction="sum")[1]
    assert grads["bias_out"] == pytest.approx([0, -2e-3 * weight], rel=1e-5)


@pytest.mark.parametrize("recompute_every", [None, 1000])
def test_the_mean_of_a_long_sequence(recompute_every, backend):
    """In float32 as good as one step: a plain sum of 100 000 terms has an error of 6e-4."""
    sm = model(
        1, 4, 1, head="mean", loss="mse", dtype=np.float32, backend=backend, recompute_every=recompute_every
    )
    x = np.full((100_000, 1, 1), 0.7, np.float32)
    wide = SequenceModel(1, 4, 1, head="mean", loss="mse", dtype=np.float64, rng=0, backend=backend)
    wide.load_state_dict(sm.parameters)
    assert sm.forward(x)[0] == pytest.approx(wide.forward(x)[0], rel=2e-6)
