"""The batched kernels of each backend, called directly: against sequences taken one by one, against the
NumPy ones, and for what they must leave alone."""

import itertools
import math
import os
import subprocess
import sys

import cells_by_hand
import numpy as np
import oracle
import pytest
from guarded import Guarded
from support import TOLERANCE, assert_close, bits, central_differences

import fastrnn.kernels as fastrnn_kernels
from fastrnn.kernels import (
    CLIP_NONE,
    CLIP_NORM,
    CLIP_VALUE,
    CROSS_ENTROPY,
    GATES,
    GAUSSIAN,
    GRU,
    KEPT,
    LSTM,
    RELU,
    SQUARED_ERROR,
    STATES,
    TANH,
    numpy_kernels,
)

SEQUENCES = (1, 2, 7, 16, 17, 33)
HIDDEN = (1, 5, 16, 24, 33, 64, 100)
STEPS = (1, 2, 3, 9, 40)
CELLS = {"tanh": TANH, "relu": RELU, "gru": GRU, "lstm": LSTM}
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def uses_blas(backend):
    """BLAS chooses its own order of sums; Numba's kernels use it where they are interpreted."""
    interpreted = os.environ.get("NUMBA_DISABLE_JIT", "") not in ("", "0")
    return backend == "numpy" or (backend == "numba" and interpreted)


@pytest.fixture(params=[True, False], ids=["packed", "unpacked"])
def packs(request):
    """Whether layers are given packed weights, or none: then they use the weights as they are."""
    return request.param


class Case:
    """Random values of a layer and of an output layer, and the kernels of a backend to run on them."""

    def __init__(
        self, kernels, dtype, seed=0, *, T=5, N=7, d=6, h=16, q=9, one_hot=True, cell=TANH, reverse=False,
        ragged=False, with_dx=True, with_dh_all=True, with_dh_n=True, offset=0, fill=math.nan, packs=True,
        loss=CROSS_ENTROPY, weighted=False,
    ):  # fmt: skip
        self.kernels, self.T, self.N, self.d, self.h, self.q = kernels, T, N, d, h, q
        self.cell, self.reverse, self.packs, self.keeps = cell, reverse, packs, KEPT[cell] > 0
        G, self.has_c = GATES[cell], STATES[cell] > 1
        self.rng = rng = np.random.default_rng(seed)
        self.memory = m = Guarded(dtype, offset, fill)
        self.layer = tuple(
            m.given(rng.normal(size=shape) * size)
            for shape, size in (
                ((G * h, d), 0.5),
                ((G * h, h), 0.7 / math.sqrt(h)),
                ((G * h,), 0.3),
                ((G * h,), 0.3),
            )
        )
        self.output = tuple(
            m.given(rng.normal(size=shape) * size)
            for shape, size in (((q, h), 1 / math.sqrt(h)), ((q,), 0.3))
        )
        self.one_hot = one_hot
        self.indices = m.given(rng.integers(0, d, (T, N) if one_hot else (0, N)), np.int64)
        self.x = m.given(rng.normal(size=(0, N, d) if one_hot else (T, N, d)))
        self.lengths = m.given(rng.integers(1, T + 1, N if ragged else 0), np.int64)
        self.batch = self.indices, self.x, self.lengths, reverse
        self.targets = m.given(rng.integers(0, q, (T, N)), np.int64)
        self.code, classes = loss, loss == CROSS_ENTROPY
        self.values = m.given(rng.normal(size=(0 if classes else T, N, q // 2 if loss == GAUSSIAN else q)))
        self.weights = m.given(rng.choice([0, 0.25, 1, 1, 3], size=(T if weighted else 0, N)))
        self.goal = loss, self.targets if classes else np.empty((0, 0), np.int64), self.values, self.weights
        self.h0 = m.given(rng.normal(size=(N, h)) * 0.5)
        self.dhs = m.given(rng.normal(size=(T, N, h)))
        self.dh_n = m.given(rng.normal(size=(N, h) if with_dh_n else (0, h)))
        self.with_dx, self.with_dh_all = with_dx and not one_hot, with_dh_all
        self.c0 = m.given(rng.normal(size=(N, h)) * 0.5)
        self.dc_n = m.given(rng.normal(size=(N, h) if with_dh_n else (0, h)))
        self.new_results()

    def new_results(self):
        m, T, N, d, h, q = self.memory, self.T, self.N, self.d, self.h, self.q
        self.hs, self.h_n, self.dh0 = m.new((T, N, h)), m.new((N, h)), m.new((N, h))
        self.dx = m.new((T, N, d) if self.with_dx else (0, N, d))
        self.dh_all = m.new((T, N, h) if self.with_dh_all else (0, N, h))
        self.dc_all = m.new((T, N, h) if self.with_dh_all else (0, N, h))
        self.c_n, self.dc0 = m.new((N, h)), m.new((N, h))
        self.kept = m.new((T, N, KEPT[self.cell], h) if self.keeps else (0, N, 0, h))
        self.grads = tuple(m.new(W.shape) for W in self.layer)
        self.output_grads = tuple(m.new(W.shape) for W in self.output)
        self.logits, self.output_dhs = m.new((T, N, q)), m.new((T, N, h))

    def states(self, h, c):
        """One or two of the attributes of these names, as the cell has states."""
        return tuple(getattr(self, name) for name in (h, c)[: STATES[self.cell]])

    def widened(self, *names):
        """Attributes in double precision."""
        return [
            tuple(a.astype(np.float64) for a in value) if isinstance(value, tuple)
            else value if value.dtype == np.int64 else value.astype(np.float64)
            for value in (getattr(self, name) for name in names)
        ]  # fmt: skip

    def forward(self, start=0, stop=None, most=None):
        stop = self.N if stop is None else stop
        k, m = self.kernels, self.memory
        packed, work = k.layer_sizes(self.T, self.N, most or stop - start, self.d, self.h, self.cell)
        self.packed, self.work = m.new((packed if self.packs else 0,)), m.new((work,))
        m.keep()
        if self.packs:
            k.pack_layer(self.layer, self.N, self.one_hot, self.cell, self.packed)
        k.layer_forward(
            self.layer, self.packed, self.batch, self.states("h0", "c0"), self.hs, self.kept,
            self.states("h_n", "c_n"), (start, stop), self.cell, self.work,
        )  # fmt: skip

    def backward(self, start=0, stop=None, accumulate=False):
        """After `forward`, which has packed the weights where it was to."""
        self.memory.keep()
        self.memory.poison(self.work)
        self.kernels.layer_backward(
            self.layer, self.packed, self.batch, (self.states("h0", "c0"), self.hs, self.kept),
            (self.dhs, self.states("dh_n", "dc_n")),
            (self.dx, self.states("dh0", "dc0"), self.states("dh_all", "dc_all")), self.grads, accumulate,
            (start, self.N if stop is None else stop), self.cell, self.work,
        )  # fmt: skip

    def loss(self, start=0, stop=None, scale=1.0, accumulate=False, with_grads=True, with_logits=True):
        stop = self.N if stop is None else stop
        k, m = self.kernels, self.memory
        packed, work = k.output_sizes(self.T, self.N, stop - start, self.h, self.q)
        packed, work = m.new((packed,)), m.new((work,))
        m.keep()
        k.pack_output(self.output, self.N, packed)
        if with_logits:
            k.output_logits(self.output, packed, self.hs, self.logits, (start, stop), work)
            m.poison(work)
        dhs = self.output_dhs if with_grads else m.new((0, self.N, self.h))
        return k.output_loss(
            self.output, packed, self.hs, self.goal, scale, dhs, self.output_grads, accumulate,
            (start, stop), work,
        )  # fmt: skip


def layer_one_by_one(case, start, stop):
    """What the layer's kernels are to give, from the equations, each sequence alone and cut to its length."""
    (W_ih, W_hh, b_ih, b_hh), x, h0, hs, dhs, dh_n = case.widened("layer", "x", "h0", "hs", "dhs", "dh_n")
    c0, dc_n = case.widened("c0", "dc_n")
    count = STATES[case.cell]
    out = {
        name: np.zeros_like(a)
        for names, a in ((("hs",), hs), (("h_n", "c_n", "dh0", "dc0"), h0), (("dh_all", "dc_all"), dhs))
        for name in names
    }
    out["dx"] = np.zeros((case.T, case.N, case.d))
    out["grads"] = [np.zeros_like(W) for W in (W_ih, W_hh, b_ih, b_hh)]
    for n in range(start, stop):
        T = int(case.lengths[n]) if len(case.lengths) else case.T
        order = list(range(T))[::-1] if case.reverse else list(range(T))
        inputs = {t: np.eye(case.d)[case.indices[t, n]] if case.one_hot else x[t, n] for t in order}
        before, parts, states = {}, {}, (h0[n], c0[n])[:count]
        for t in order:
            before[t], parts[t] = states, (W_ih @ inputs[t] + b_ih, W_hh @ states[0] + b_hh)
            states = cells_by_hand.step(case.cell, *parts[t], states)
            out["hs"][t, n] = states[0]
        for name, state in zip(("h_n", "c_n"), states, strict=False):
            out[name][n] = state
        carry = [last[n] if len(last) else np.zeros(case.h) for last in (dh_n, dc_n)[:count]]
        for t in reversed(order):
            d_after = [dhs[t, n] + carry[0], *carry[1:]]
            for name, d_state in zip(("dh_all", "dc_all"), d_after, strict=False):
                out[name][t, n] = d_state
            di, dr, direct = cells_by_hand.back(case.cell, *parts[t], before[t], d_after)
            out["dx"][t, n] = W_ih.T @ di
            for g, term in zip(
                out["grads"], (np.outer(di, inputs[t]), np.outer(dr, before[t][0]), di, dr), strict=True
            ):
                g += term
            carry = [W_hh.T @ dr + direct[0], *direct[1:]]
        for name, d_state in zip(("dh0", "dc0"), carry, strict=False):
            out[name][n] = d_state
    return out


def random_options(seed):
    """Sizes and options of a case, and a range of its sequences."""
    rng = np.random.default_rng([seed, 77])
    one_hot = bool(rng.integers(2))
    options = {
        "T": int(rng.choice(STEPS)), "N": int(rng.choice(SEQUENCES)), "h": int(rng.choice(HIDDEN)),
        "d": int(rng.choice((1, 3, 8, 30, 65))), "q": int(rng.choice((1, 2, 9, 65))), "one_hot": one_hot,
        "offset": int(rng.choice((0, 1, 3))), "fill": float(rng.choice((math.nan, 1e30, 0.0))),
    }  # fmt: skip
    options["cell"] = int(rng.integers(4))
    for name in ("reverse", "ragged", "with_dx", "with_dh_all", "with_dh_n"):
        options[name] = bool(rng.integers(2))
    start, stop = sorted(int(n) for n in rng.choice(options["N"] + 1, 2, replace=False))
    if rng.integers(3):
        start, stop = 0, options["N"]
    return options, start, stop, bool(rng.integers(2))


def assert_rows(got, want, start, stop, memory, what, of=None):
    """Equal in the sequences from start to stop, beside `want` or `of` as well; as it was filled in the others."""
    of = want if of is None else of
    assert_close(got[..., start:stop, :], want[..., start:stop, :], what=what, of=of[..., start:stop, :])
    for others in (got[..., :start, :], got[..., stop:, :]):
        assert memory.untouched(others), f"{what}: other sequences"


@pytest.mark.parametrize("seed", range(60))
def test_layer(seed, packs, kernels, dtype):
    options, start, stop, accumulate = random_options(seed)
    case = Case(kernels, dtype, seed, packs=packs, **options)
    case.forward(start, stop)
    wanted = layer_one_by_one(case, start, stop)
    assert_rows(case.hs, wanted["hs"], start, stop, case.memory, "hs")
    assert_rows(case.h_n, wanted["h_n"], start, stop, case.memory, "h_n")
    if case.has_c:
        assert_rows(case.c_n, wanted["c_n"], start, stop, case.memory, "c_n")
    if len(case.lengths):
        for n in range(start, stop):
            assert not case.hs[case.lengths[n] :, n].any(), "states after the end"

    before = [case.rng.normal(size=g.shape) if accumulate else np.zeros(g.shape) for g in case.grads]
    if accumulate:
        for g, b in zip(case.grads, before, strict=True):
            b[...] = g[...] = b
    case.backward(start, stop, accumulate)
    case.memory.check()
    # ReLU's derivative jumps: take it from the same states.
    reference = Case(numpy_kernels, np.float64, seed, **options | {"fill": 0.0})
    for name in ("layer", "x", "h0", "c0", "hs", "kept", "dhs", "dh_n", "dc_n"):
        setattr(reference, name, case.widened(name)[0])
    reference.packed = reference.work = np.empty(0)
    reference.backward(start, stop)
    assert_rows(case.dh0, reference.dh0, start, stop, case.memory, "dh0")
    if case.has_c:
        # Beside the gradient of the whole state: with one unit, c's may be a small difference of large terms.
        assert_rows(case.dc0, reference.dc0, start, stop, case.memory, "dc0", of=reference.dh0)
    if case.with_dx:
        assert_rows(case.dx, reference.dx, start, stop, case.memory, "dx")
    if case.with_dh_all:
        assert_rows(case.dh_all, reference.dh_all, start, stop, case.memory, "dh_all")
        if case.has_c:
            assert_rows(case.dc_all, reference.dc_all, start, stop, case.memory, "dc_all")
    for name, g, want, b in zip(
        ("W_ih", "W_hh", "b_ih", "b_hh"), case.grads, reference.grads, before, strict=True
    ):
        assert_close(g, want + b, what=f"d{name}")


@pytest.mark.few(4)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("one_hot", [False, True], ids=["vectors", "indices"])
@pytest.mark.parametrize("N", [1, 4])
@every_cell
def test_layer_gradients_one_by_one(cell, N, one_hot, ragged, reverse, packs, kernels, dtype):
    case = Case(
        kernels,
        dtype,
        3,
        T=6,
        N=N,
        d=5,
        h=7,
        one_hot=one_hot,
        ragged=ragged,
        reverse=reverse,
        packs=packs,
        cell=cell,
    )
    case.forward()
    case.backward()
    wanted = layer_one_by_one(case, 0, N)
    names = ("hs", "h_n", "dh0", "dh_all") + (("c_n", "dc0", "dc_all") if case.has_c else ())
    for name in names + (() if one_hot else ("dx",)):
        assert_close(getattr(case, name), wanted[name], what=name)
    for g, want in zip(case.grads, wanted["grads"], strict=True):
        assert_close(g, want)
    # Without gradients of the weights the rest is the same.
    rest = [bits(case.dh0, case.dh_all, case.dx)]
    for a in (case.dh0, case.dh_all, case.dx):
        a[...] = math.nan
    case.grads = ()
    case.backward()
    case.memory.check()
    assert [bits(case.dh0, case.dh_all, case.dx)] == rest


@pytest.mark.few(3)
@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@every_cell
def test_states_may_be_overwritten(cell, reverse, ragged, N, packs, kernels, dtype):
    """The same array for h0 and h_n, and for dh_n and dh0, and so for those of c."""
    case = Case(kernels, dtype, 5, T=4, N=N, reverse=reverse, ragged=ragged, packs=packs, cell=cell)
    case.forward()
    case.backward()
    last, d_first = ([a.copy() for a in case.states(*names)] for names in (("h_n", "c_n"), ("dh0", "dc0")))
    h0, c0, dh_n = case.h0.copy(), case.c0.copy(), case.dh_n.copy()
    case.h_n, case.c_n = case.h0, case.c0
    case.forward()
    assert bits(*case.states("h0", "c0")) == bits(*last)
    case.h0, case.c0 = h0, c0
    case.dh0, case.dc0 = case.dh_n, case.dc_n
    case.backward()
    assert bits(*case.states("dh_n", "dc_n")) == bits(*d_first)
    assert not np.array_equal(dh_n, d_first[0])


@pytest.mark.parametrize("cell", [GRU, LSTM], ids=["gru", "lstm"])
def test_nothing_is_kept_where_no_backward_comes(cell, packs, kernels, dtype):
    for N in (1, 5):
        case = Case(kernels, dtype, 5, T=9, N=N, h=19, cell=cell, packs=packs, ragged=N > 1)
        case.forward()
        wanted = bits(case.hs, *case.states("h_n", "c_n"))
        case.keeps = False
        case.new_results()
        case.forward()
        case.memory.check()
        assert bits(case.hs, *case.states("h_n", "c_n")) == wanted


@pytest.mark.parametrize("one_hot", [False, True], ids=["vectors", "indices"])
@pytest.mark.parametrize(("T", "N", "h"), [(3, 7, 33), (40, 33, 24), (9, 2, 100), (2, 300, 8)])
@pytest.mark.parametrize("cell", [TANH, GRU, LSTM], ids=["tanh", "gru", "lstm"])
def test_sequences_do_not_depend_on_the_range(cell, T, N, h, one_hot, packs, kernels, backend, dtype):
    """Bit for bit, except that BLAS chooses its own order in the NumPy kernels."""
    options = {"T": T, "N": N, "h": h, "d": 11, "q": 13, "one_hot": one_hot, "ragged": N == 33, "cell": cell}
    case = Case(kernels, dtype, 9, packs=packs, **options)
    case.forward()
    case.backward()
    loss = case.loss()
    names = ["hs", "h_n", "dh0", "dh_all", "dx", "logits", "output_dhs", "kept"]
    names += ["c_n", "dc0", "dc_all"] if case.has_c else []
    names = (
        names if not case.lengths.size else [name for name in names if name != "kept"]
    )  # beyond an end: anything
    whole = [getattr(case, name).copy() for name in names]
    sums = [g.copy() for g in (*case.grads, *case.output_grads)]
    for cuts in ([0, 1, N], [0, N // 2, N // 2 + 1, N] if N > 2 else [0, N]):
        case.new_results()
        parts_of_loss = []
        for i, (start, stop) in enumerate(itertools.pairwise(cuts)):
            case.forward(start, stop, most=N)
            case.backward(start, stop, accumulate=i > 0)
            parts_of_loss.append(case.loss(start, stop, accumulate=i > 0))
        case.memory.check()
        for name, want in zip(names, whole, strict=True):
            got = getattr(case, name)
            if uses_blas(backend):
                assert_close(got, want, what=name) if got.size else None
            else:
                assert bits(got) == bits(want), name
        for got, want in zip((*case.grads, *case.output_grads), sums, strict=True):  # terms of both signs
            assert_close(got, want, 20 * TOLERANCE[np.dtype(dtype)])
        assert sum(parts_of_loss) == pytest.approx(loss, rel=TOLERANCE[np.dtype(dtype)])


def loss_by_hand(code, y, target):
    """The loss of the outputs y of one step, and its gradient, from the equations."""
    if code == SQUARED_ERROR:
        return float(((y - target) ** 2).sum()), 2 * (y - target)
    if code == GAUSSIAN:
        mean, log_variance = np.split(y, 2)
        variance = np.exp(log_variance)
        error = target - mean
        log_likelihood = -(error**2) / (2 * variance) - np.log(np.sqrt(2 * math.pi * variance))
        d_variance = (1 / variance - error**2 / variance**2) / 2
        return -float(log_likelihood.sum()), np.concatenate((-error / variance, d_variance * variance))
    top = y.max()
    log_p = y - top - math.log(sum(math.exp(v - top) for v in y))
    return -log_p[target], np.exp(log_p) - np.eye(len(y))[target]


def output_one_by_one(case, start, stop, scale):
    (W, b), hs, values, weights = case.widened("output", "hs", "values", "weights")
    logits, dhs = np.zeros((case.T, case.N, case.q)), np.zeros_like(hs)
    dW, db, loss = np.zeros_like(W), np.zeros_like(b), 0.0
    for t in range(case.T):
        for n in range(start, stop):
            y = logits[t, n] = W @ hs[t, n] + b
            weight = weights[t, n] if len(weights) else 1
            if weight == 0 or (case.code == CROSS_ENTROPY and case.targets[t, n] < 0):
                continue
            target = case.targets[t, n] if case.code == CROSS_ENTROPY else values[t, n]
            own, dy = loss_by_hand(case.code, y, target)
            loss += weight * own
            dy *= weight * scale
            dhs[t, n] = W.T @ dy
            dW += np.outer(dy, hs[t, n])
            db += dy
    return loss, logits, dhs, dW, db


@pytest.mark.parametrize(
    "loss", [CROSS_ENTROPY, SQUARED_ERROR, GAUSSIAN], ids=["classes", "squares", "gaussian"]
)
@pytest.mark.parametrize("seed", range(30))
def test_output(seed, loss, kernels, dtype):
    options, start, stop, accumulate = random_options(seed + 1000)
    if loss == GAUSSIAN:
        options["q"] *= 2
    case = Case(kernels, dtype, seed, **options, loss=loss, weighted=seed % 2 > 0)
    if len(case.weights) and loss != CROSS_ENTROPY:
        case.values[case.weights == 0] = math.nan  # which is not read
    case.hs[...] = case.rng.normal(size=case.hs.shape)
    # None of the targets, half of them, all of them count for nothing.
    case.targets[case.rng.random(case.targets.shape) < (seed % 3) / 2] = -1
    scale = float(case.rng.choice([1.0, 0.01, -3.0]))
    before = [case.rng.normal(size=g.shape) if accumulate else np.zeros(g.shape) for g in case.output_grads]
    if accumulate:
        for g, b in zip(case.output_grads, before, strict=True):
            b[...] = g[...] = b
    hs = bits(case.hs)
    loss = case.loss(start, stop, scale, accumulate)
    case.memory.check()
    wanted, logits, dhs, *grads = output_one_by_one(case, start, stop, scale)
    tolerance = TOLERANCE[np.dtype(dtype)]
    assert type(loss) is float
    assert loss == pytest.approx(wanted, rel=tolerance, abs=tolerance)
    assert_rows(case.logits, logits, start, stop, case.memory, "logits")
    if case.q > 1:
        assert_rows(case.output_dhs, dhs, start, stop, case.memory, "dhs")
        for g, want, b in zip(case.output_grads, grads, before, strict=True):
            assert_close(g, want + b)
    kept = bits(case.output_dhs, *case.output_grads)
    alone = case.loss(start, stop, scale, accumulate, with_grads=False)
    assert alone == pytest.approx(loss, rel=tolerance, abs=tolerance)
    assert bits(case.output_dhs, *case.output_grads) == kept
    assert bits(case.hs) == hs
    case.memory.check()


def test_loss_of_what_has_no_probability(kernels, dtype):
    """The logarithm of the sum of exponentials, not of a probability that is zero in floating point."""
    case = Case(kernels, dtype, 2, T=3, N=2, h=4, q=5)
    case.hs[...] = 1
    case.output[0][...] = 0
    case.output[1][...] = [0, -5000, 3, 1, 2]
    case.targets[...] = 1
    log_total = 3 + math.log(sum(math.exp(v - 3) for v in (0, 3, 1, 2)))
    assert case.loss() == pytest.approx(6 * (5000 + log_total), rel=1e-6)
    case.targets[...] = 2
    assert case.loss(with_grads=False) == pytest.approx(6 * (log_total - 3), rel=1e-6)


def test_a_certain_error_is_an_infinite_loss_and_no_more(kernels, dtype):
    """A variance that underflows, and outputs that are infinite: what NumPy makes of them."""
    for loss, bias in ((GAUSSIAN, (0.0, -1e4)), (SQUARED_ERROR, (math.inf,))):
        case = Case(kernels, dtype, 3, T=2, N=3, h=4, q=len(bias), loss=loss)
        case.hs[...] = 0
        case.output[1][...] = bias
        case.values[...] = 1
        assert case.loss() == math.inf
        case.values[1, 2] = math.nan
        assert math.isnan(case.loss())
        case.memory.check()


def test_long_batch_takes_more_than_one_logarithm(kernels, dtype):
    case = Case(kernels, dtype, 4, T=200, N=3, h=2, q=65)
    case.hs[...] = 0
    case.output[1][...] = 0
    assert case.loss() == pytest.approx(600 * math.log(65), rel=1e-6)


@pytest.mark.parametrize("one_hot", [False, True], ids=["vectors", "indices"])
@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("cell", [TANH, GRU, LSTM], ids=["tanh", "gru", "lstm"])
def test_central_differences(cell, N, one_hot, packs, kernels):
    """The loss as a function of every parameter, of the inputs and of the first state."""
    case = Case(kernels, np.float64, 8, T=4, N=N, d=3, h=5, q=4, one_hot=one_hot, ragged=not one_hot,
                with_dh_n=False, packs=packs, cell=cell)  # fmt: skip
    if case.lengths.size:
        case.lengths[0] = 2

    def loss(**options):
        case.forward()
        return case.loss(**options)

    loss()
    case.dhs = case.output_dhs
    case.backward()
    pairs = [*zip(case.layer + case.output, case.grads + case.output_grads, strict=True), (case.h0, case.dh0)]
    if case.has_c:
        pairs.append((case.c0, case.dc0))
    if not one_hot:
        pairs.append((case.x, case.dx))
    for W, gradient in pairs:
        assert_close(gradient.copy(), central_differences(lambda: loss(with_grads=False), W), 1e-7)


@pytest.mark.few(5)
@pytest.mark.parametrize("what", ["layer", "output", "h0", "dhs"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
@every_cell
@pytest.mark.parametrize("N", [1, 5])
def test_what_is_not_finite(N, cell, value, what, packs, kernels, dtype):
    """Runs through, writes nothing beside the arrays, and shows."""
    arrays = {"layer": range(4), "output": range(2), "h0": [None], "dhs": [None]}[what]
    for which in arrays:
        for ragged in (False, True):
            case = Case(
                kernels, dtype, 6, N=N, cell=cell, ragged=ragged, one_hot=ragged, offset=1, packs=packs
            )
            target = getattr(case, what)
            (target if which is None else target[which])[...] = value
            case.forward()
            loss = case.loss()
            case.backward()
            more = [case.c_n, case.dc0, case.dc_all] if case.has_c else []
            more += [] if ragged else [case.kept]
            case.memory.check(case.h_n, case.dh0, case.dx, case.output_dhs, *more)
            shows = [case.hs, case.logits, case.dh_all, np.float64(loss), *case.grads, *case.output_grads]
            case.memory.check(*(a for a in shows if a.ndim))
            if math.isnan(value):
                assert any(np.isnan(a).any() for a in shows)
            n = 3
            out = case.memory.new((N, n), -1, np.int64)
            case.d = case.q
            drawn = sample(case, out, np.full((N, n), 0.5))
            assert 0 <= drawn <= n
            assert ((out[:, :drawn] >= 0) & (out[:, :drawn] < case.q)).all()
            if math.isnan(value) and (what == "output" or (what == "layer" and which > 0)):
                assert drawn == 0  # (sampling has its own W_ih)
            case.memory.check()


# ---- the sum of gradients ---------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [CLIP_NONE, CLIP_VALUE, CLIP_NORM], ids=["none", "value", "norm"])
@pytest.mark.parametrize("n", [1, 7, 64, 1025, 5000])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_reduce_gradients(parts, n, clip, kernels, dtype):
    memory = Guarded(dtype, 1)
    given = memory.given(np.random.default_rng(n).normal(size=(parts, n)))
    total = given.astype(np.float64).sum(axis=0)
    norm = math.sqrt((total**2).sum())
    for threshold in (0.5, 0.5 * norm, 2 * norm):
        out = memory.new((n,))
        got = kernels.reduce_gradients(given, clip, threshold, out)
        memory.check(out)
        assert type(got) is float
        assert got == pytest.approx(norm, rel=TOLERANCE[np.dtype(dtype)])
        want = total
        if clip == CLIP_VALUE:
            want = np.clip(total, -threshold, threshold)
        if clip == CLIP_NORM:
            want = total * min(1, threshold / norm)
        assert_close(out, want)


@pytest.mark.parametrize("clip", [CLIP_NONE, CLIP_VALUE, CLIP_NORM], ids=["none", "value", "norm"])
@pytest.mark.parametrize("n", [1, 5, 700, 5000])
@pytest.mark.parametrize("power", [-0.95, -0.75, -0.5, -0.4, 0.4, 0.49, 0.5, 0.51, 0.7, 0.9])
def test_reduce_where_squares_leave_the_range(power, n, clip, kernels, dtype):
    """Numbers whose squares overflow, or vanish, or some of them."""
    size = float(np.finfo(dtype).max) ** power
    parts = (np.random.default_rng(n).normal(size=(2, n)) * size).astype(dtype)
    total = parts.sum(axis=0) / size
    norm = float(np.linalg.norm(total.astype(np.float64)))
    for threshold in (0.5 * norm, 2 * norm):
        out = np.empty(n, dtype)
        got = kernels.reduce_gradients(parts, clip, threshold * size, out)
        assert got / size == pytest.approx(norm, rel=1e-5)
        want = total
        if clip == CLIP_VALUE:
            want = np.clip(total, -threshold, threshold)
        if clip == CLIP_NORM:
            want = total * min(1, threshold / norm)
        assert_close(out / dtype(size), want, 1e-5)


@pytest.mark.parametrize("n", [0, 9])
def test_reduce_zeros(n, kernels, dtype):
    out = np.ones(n, dtype)
    assert kernels.reduce_gradients(np.zeros((2, n), dtype), CLIP_NORM, 1.0, out) == 0
    assert not out.any()


@pytest.mark.parametrize("clip", [CLIP_NONE, CLIP_VALUE, CLIP_NORM], ids=["none", "value", "norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_reduce_what_is_not_finite(value, clip, kernels, dtype):
    parts = np.ones((2, 100), dtype)
    parts[1, 70] = value
    out = np.empty(100, dtype)
    norm = kernels.reduce_gradients(parts, clip, 5.0, out)
    assert not math.isfinite(norm)
    assert np.isnan(norm) == np.isnan(value)
    plain = np.empty(100, dtype)
    numpy_kernels.reduce_gradients(parts, clip, 5.0, plain)
    assert np.array_equal(out, plain, equal_nan=True)


# ---- sampling ---------------------------------------------------------------------------------------


def sample(
    case, out, uniforms, start=0, stop=None, layers=1, temperature=1.0, top_k=0, top_p=1.0, first=None
):
    """Draw with as many layers of equal recurrent weights; `case.sampled` are the states."""
    stop = case.N if stop is None else stop
    k, m, N, h, q = case.kernels, case.memory, case.N, case.h, case.q
    rows = GATES[case.cell] * h
    case.bottom = (m.new((rows, q), np.random.default_rng(1).normal(size=(rows, q)) * 0.5), *case.layer[1:])
    above = (
        m.new((rows, h), np.random.default_rng(2).normal(size=(rows, h)) / math.sqrt(h)),
        *case.layer[1:],
    )
    case.layers = [case.bottom] + [above] * (layers - 1)
    packed = []
    for i, layer in enumerate(case.layers):
        size, _ = k.layer_sizes(1, N, stop - start, q if i == 0 else h, h, case.cell)
        packed.append(m.new((size,)))
        k.pack_layer(layer, N, i == 0, case.cell, packed[-1])
    size, _ = k.output_sizes(1, N, stop - start, h, q)
    packed_output = m.new((size,))
    k.pack_output(case.output, N, packed_output)
    case.sampled = tuple(
        m.new((layers, N, h), np.broadcast_to(first, (layers, N, h))) for first in case.states("h0", "c0")
    )
    case.first = np.arange(N) % q if first is None else first
    m.keep()
    work = m.new((k.sample_size(N, stop - start, q, h, q, case.cell),))
    return k.sample_batch(
        (tuple(case.layers), tuple(packed)), (case.output, packed_output), case.sampled, (case.first, uniforms),
        (temperature, top_k, top_p), out, (start, stop), case.cell, work,
    )  # fmt: skip


def allowed(y, temperature, top_k, top_p, slack):
    """Intervals of u for which each class may be drawn, a little wider than they are."""
    p = oracle.probabilities(y.tolist(), temperature, top_k, top_p)
    cdf = np.cumsum([0, *p])
    return [(a - slack, b + slack) if q else (2, -1)
            for q, a, b in zip(p, cdf[:-1], cdf[1:], strict=True)]  # fmt: skip


@pytest.mark.few(4)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 4, 1.0), (1.0, 0, 0.8), (0.7, 5, 0.6), (1.0, 1, 1.0), (1.0, 99, 0.0),
     (0.0, 0, 1.0), (1e-30, 0, 1.0)],
)  # fmt: skip
@pytest.mark.parametrize(
    ("N", "h", "q", "cell"),
    [(1, 24, 30, TANH), (6, 33, 9, RELU), (17, 16, 65, TANH), (1, 20, 30, GRU), (7, 33, 9, GRU), (1, 33, 9, LSTM),
     (17, 16, 30, LSTM)],
)  # fmt: skip
def test_samples_along_their_own_way(N, h, q, cell, temperature, top_k, top_p, layers, kernels, dtype):
    """Every draw lies where the probabilities say that come from all draws before it."""
    case = Case(kernels, dtype, 12, T=1, N=N, d=q, h=h, q=q, cell=cell, offset=1)
    n, start, stop = 12, (1 if N > 6 else 0), N - (2 if N > 6 else 0)
    uniforms = case.rng.random((N, n))
    uniforms[:, 3], uniforms[:, 4] = 0.0, math.nextafter(1, 0)
    out = case.memory.new((N, n), -1, np.int64)
    options = {"layers": layers, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    assert sample(case, out, uniforms, start, stop, **options) == n
    case.memory.check()
    assert (out[:start] == -1).all()
    assert (out[stop:] == -1).all()
    slack = 1e-10 if dtype is np.float64 else 2e-5
    W, b = case.widened("output")[0]
    every = [tuple(a.astype(np.float64) for a in layer) for layer in case.layers]
    for r in range(start, stop):
        states = [tuple(a[r].astype(np.float64) for a in case.states("h0", "c0")) for _ in range(layers)]
        index = case.first[r]
        for i in range(n):
            x = np.eye(q)[index]
            for layer, (W_ih, W_hh, b_ih, b_hh) in enumerate(every):
                parts = W_ih @ x + b_ih, W_hh @ states[layer][0] + b_hh
                states[layer] = cells_by_hand.step(cell, *parts, states[layer])
                x = states[layer][0]
            y, index = W @ x + b, out[r, i]
            if temperature == 0:
                assert y[index] >= y.max() - slack * abs(y.max())
                continue
            low, high = allowed(y, temperature, top_k, top_p, slack)[index]
            assert low <= uniforms[r, i] <= high
        for kind, sampled in enumerate(case.sampled):
            assert_close(sampled[:, r], np.array([state[kind] for state in states]))
    for others in (slice(start), slice(stop, None)):
        for sampled, first in zip(case.sampled, case.states("h0", "c0"), strict=True):
            for state in sampled[:, others]:
                assert np.array_equal(state, first[others])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({"temperature": 0.0}, {0}), ({"top_k": 3}, {0, 1, 2}), ({"top_p": 0.5}, {0, 1, 2, 3}), ({}, set(range(8))),
     ({"top_p": 0.0}, {0}), ({"top_k": 2, "top_p": 0.99}, {0, 1})],
)  # fmt: skip
def test_lower_index_wins_a_tie(options, wanted, kernels, dtype):
    case = Case(kernels, dtype, 0, T=1, N=4, d=8, h=3, q=8)
    case.output[0][...] = 0
    case.output[1][...] = 1.5
    out = case.memory.new((4, 50), -1, np.int64)
    assert sample(case, out, case.rng.random((4, 50)), **options) == 50
    assert set(out.ravel().tolist()) == wanted


def test_sampling_stops_where_probabilities_are_no_numbers(kernels, dtype):
    """Class 2 leads into NaN; whoever meets it makes the whole batch stop before the next step."""
    case = Case(kernels, dtype, 0, T=1, N=3, d=4, h=3, q=4)
    case.layer[0][...] = 0
    case.output[0][...] = 0
    case.output[1][...] = 0
    uniforms = np.full((3, 6), 0.1)
    uniforms[1, 2] = 0.6  # class 2, of four that are equally probable
    out = case.memory.new((3, 6), -1, np.int64)
    kept = sample(case, out, uniforms)
    assert kept == 6
    assert out[1, 2] == 2
    case.layer[1][...] = math.nan
    assert sample(case, out, uniforms) == 0
    case.layer[1][...] = 0
    for bad in (math.nan, math.inf):
        case.output[1][1] = bad
        for temperature in (0.0, 0.5, 1.0):
            assert sample(case, out, uniforms, temperature=temperature, top_k=2) == 0
    case.output[1][1] = -math.inf
    assert sample(case, out, uniforms) == 6
    assert not (out == 1).any()
    case.memory.check()


@pytest.mark.parametrize("N", [1, 5, 40])
def test_samples_do_not_depend_on_the_range(N, kernels, backend, dtype):
    case = Case(kernels, dtype, 3, T=1, N=N, d=30, h=24, q=30)
    uniforms = case.rng.random((N, 20))
    whole, parts = (case.memory.new((N, 20), -1, np.int64) for _ in range(2))
    sample(case, whole, uniforms, layers=2)
    (states,) = (sampled.copy() for sampled in case.sampled)
    for start in range(N):
        sample(case, parts, uniforms, start, start + 1, layers=2)
        assert_close(case.sampled[0][:, start], states[:, start])
        if not uses_blas(backend):
            assert bits(case.sampled[0][:, start]) == bits(states[:, start])
    assert np.array_equal(whole, parts)


def test_sizes_are_integers_that_do_not_grow_with_time(kernels):
    for name, sizes in (
        ("layer_sizes", (8, 8, 65, 128, TANH)),
        ("layer_sizes", (8, 8, 65, 128, LSTM)),
        ("output_sizes", (8, 8, 128, 65)),
    ):
        short, long = (getattr(kernels, name)(T, *sizes) for T in (200, 100_000))
        assert short == long
        assert all(type(size) is int and size >= 0 for size in short)
    assert type(kernels.sample_size(8, 8, 65, 128, 65, GRU)) is int


def test_no_time_steps_are_refused_where_memory_is_not_checked(kernels, dtype):
    """The compiled kernels' last line of defence: blocks of no steps would be a division by zero."""
    if kernels.NAME != "cython":
        pytest.skip("NumPy and Numba index Python's arrays")
    case = Case(kernels, dtype, 0, T=1, N=2, d=4, h=3, q=4)
    states, packed = np.empty((0, 2, 3), dtype), np.empty(100_000, dtype)
    inputs, none, rows = np.empty((0, 2, 4), dtype), np.empty((0, 0, 0), dtype), np.ones((2, 3), dtype)
    no_indices, nothing = np.empty((0, 0), np.int64), np.empty((0, 2, 0, 3), dtype)
    layer, batch = tuple(case.layer), (no_indices, inputs, np.empty(0, np.int64), False)
    output = tuple(case.output), packed, states
    with pytest.raises(ValueError, match="at least one time step, got 0"):
        kernels.layer_forward(layer, packed, batch, (rows,), states, nothing, (rows,), (0, 2), TANH, packed)
    with pytest.raises(ValueError, match="at least one time step, got 0"):
        kernels.layer_backward(
            layer, packed, batch, ((rows,), states, nothing), (states, (none,)), (none, (rows,), (none,)), (), False,
            (0, 2), TANH, packed,
        )  # fmt: skip
    with pytest.raises(ValueError, match="at least one time step, got 0"):
        kernels.output_logits(*output, np.empty((0, 2, 4), dtype), (0, 2), packed)
    with pytest.raises(ValueError, match="at least one time step, got 0"):
        kernels.output_loss(
            *output, (CROSS_ENTROPY, no_indices, none, none), 1.0, none, (), False, (0, 2), packed
        )


@pytest.mark.parametrize("one_hot", [False, True], ids=["vectors", "indices"])
@every_cell
@pytest.mark.parametrize(("T", "N"), [(1, 1), (1, 3), (3, 1), (2, 3), (7, 1)])
@pytest.mark.parametrize("h", [1, 7, 16, 17, 31, 40, 100, 129])
def test_few_rows_packed_and_unpacked(h, T, N, cell, one_hot, kernels, dtype):
    """What packing changes is in the last digits."""
    found = []
    for packs in (True, False):
        case = Case(kernels, dtype, h, T=T, N=N, h=h, d=h + 3, one_hot=one_hot, cell=cell, packs=packs)
        case.forward()
        hs = case.hs.copy()
        case.hs[...] = found[0][0] if found else hs  # ReLU's slope jumps
        case.backward()
        more = [case.c_n, case.dc0, case.dc_all] if case.has_c else []
        case.memory.check(case.hs, case.h_n, case.dh0, case.dx, case.dh_all, case.kept, *more, *case.grads)
        found.append([hs, case.h_n, case.dh0, case.dx, case.dh_all, case.kept, *more, *case.grads])
    for packed, unpacked in zip(*found, strict=True):
        assert_close(unpacked, packed) if packed.size else None


def test_what_the_compiled_kernels_refuse(kernels, dtype):
    """Packed weights of the wrong size, none where there must be some, and a cell that they do not know."""
    if kernels.NAME != "cython":
        pytest.skip("NumPy and Numba index Python's arrays")
    case = Case(kernels, dtype, 0, T=2, N=2, d=4, h=3, q=4)
    case.forward()
    given, case.packed = case.packed, np.empty(1, dtype)
    with pytest.raises(ValueError, match="C-contiguous arrays of one dtype and at least"):
        case.backward()
    kernels.pack_layer(case.layer, case.N, case.one_hot, case.cell, np.empty(0, dtype))  # has nothing to do
    case.packed = given
    for cell in (-1, 4):
        arguments = (
            case.layer,
            case.packed,
            case.batch,
            (case.h0,),
            case.hs,
            case.kept,
            (case.h_n,),
            (0, 2),
            cell,
        )
        with pytest.raises(ValueError, match=f"kernels know cells 0 to 3, got {cell}"):
            kernels.layer_forward(*arguments, case.work)
    for cell, count in ((GRU, 1), (LSTM, 2)):
        gated = Case(kernels, dtype, 0, T=2, N=2, d=4, h=3, q=4, cell=cell)
        gated.forward()
        gated.kept = gated.kept[:0]
        with pytest.raises(
            ValueError, match="kernels take what was kept of the steps of a cell with gates, got none"
        ):
            gated.backward()
        gated.states = lambda *names, count=count: (case.h0,) * (3 - count)
        with pytest.raises(
            ValueError, match=f"kernels take {count} arrays of states for this cell, got {3 - count}"
        ):
            gated.forward()
    output = case.output, np.empty(kernels.output_sizes(1, 2, 2, 3, 4)[0], dtype)
    draws = np.zeros(2, np.int64), np.zeros((2, 1))
    for cell, packed, message in (
        (TANH, np.empty(0, dtype), "kernels that sample take packed weights, got none"),
        (4, given, "kernels know cells 0 to 3, got 4"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.sample_batch(
                ((case.layer,), (packed,)), output, (case.h0[None].copy(),), draws, (1.0, 0, 1.0),
                np.empty((2, 1), np.int64), (0, 2), cell, case.work,
            )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["CLIP_NONE", "CLIP_STEP", "CLIP_VALUE", "CLIP_NORM", "TANH", "RELU", "GRU", "LSTM", "PACK_FROM"],
)
def test_compiled_kernels_for_other_numbers_are_refused(name, backend):
    """They were built from other sources than Python's; a subprocess, since here they are loaded."""
    if backend != "cython":
        pytest.skip("the other backends read the numbers where they stand")
    code = f"import fastrnn.kernels as k; k.{name} = 77; import fastrnn.kernels.cython_kernels"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode
    assert "ImportError: the compiled kernels are not those of fastrnn.kernels" in done.stderr
    assert f"{name} is 77 there and {getattr(fastrnn_kernels, name)} here" in done.stderr


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("cell", [TANH, GRU, LSTM], ids=["tanh", "gru", "lstm"])
def test_nothing_comes_back_to_the_last_step_of_a_shorter_sequence(cell, bad, reverse, dtype, kernels):
    """Not even zero times an infinite weight: in the order of the layer, it is the first one that BPTT meets."""
    T, N, d, h, G, S = 5, 3, 2, 4, GATES[cell], STATES[cell]
    rng = np.random.default_rng(0)
    layer = tuple(
        rng.normal(size=shape).astype(dtype) for shape in ((G * h, d), (G * h, h), (G * h,), (G * h,))
    )
    layer[1][...] = bad
    x, hs, dhs = (rng.uniform(0.1, 0.9, (T, N, n)).astype(dtype) for n in (d, h, h))
    kept = rng.uniform(0.1, 0.9, (T, N, KEPT[cell], h)).astype(dtype)
    lengths = np.array([5, 3, 1])
    first, last = ((np.zeros((N, h), dtype),) * S, tuple(np.ones((N, h), dtype) for _ in range(S)))
    states, upstream = (first, hs, kept), (dhs, last)
    dx, dh0, d_states = (
        np.zeros_like(x),
        tuple(np.zeros((N, h), dtype) for _ in range(S)),
        tuple(np.zeros_like(hs) for _ in range(S)),
    )
    dh_all = d_states[0]
    packed, work = (np.zeros(size, dtype) for size in kernels.layer_sizes(T, N, N, d, h, cell))
    for some in (packed, packed[:0]):
        kernels.pack_layer(layer, N, False, cell, some)
        kernels.layer_backward(
            layer, some, (np.empty((0, N), np.int64), x, lengths, reverse), states, upstream, (dx, dh0, d_states), (),
            False, (0, N), cell, work,
        )  # fmt: skip
        for n, length in enumerate(lengths):
            first = 0 if reverse else length - 1
            np.testing.assert_allclose(dh_all[first, n], dhs[first, n] + 1, rtol=1e-6)
            assert np.isfinite(dx[first, n]).all()
            assert not dh_all[length:, n].any()
            assert not dx[length:, n].any()


def test_what_the_compiled_kernels_refuse_of_several_parts(kernels, dtype):
    """Bounds, work space and gradients, of which there must be one for each part or thread."""
    if kernels.NAME != "cython":
        pytest.skip("only these run several parts in a call")
    case = Case(kernels, dtype, 0, T=2, N=20, d=4, h=3, q=4)
    case.forward()
    rows, work, none = ((0, 8), (8, 20)), [case.work, case.work.copy()], np.empty((0, 0, 0), dtype)
    arguments = case.layer, case.packed, case.batch, (case.h0,), case.hs, case.kept, (case.h_n,)
    kernels.layer_forward(*arguments, rows, TANH, work, 2)
    for bad_rows, bad_work, threads, message in (
        ((), work, 2, "1 to 16 parts, got 0"),
        (((0, 8),) * 17, work, 2, "1 to 16 parts, got 17"),
        (((0, 8), (8, 21)), work, 2, "got 8 to 21 of 20"),
        (rows, work[:1], 2, "work space for each of 2 threads, got 1"),
        (rows, [case.work, case.work[:3]], 2, "at least"),
        (rows, work, 0, "1 to 64 threads, got 0"),
        (rows, work, 65, "1 to 64 threads, got 65"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.layer_forward(*arguments, bad_rows, TANH, bad_work, threads)
    states, grads = ((case.h0,), case.hs, case.kept), tuple(map(np.zeros_like, case.layer))
    for given in ((), (grads,), (grads,) * 3):
        with pytest.raises(ValueError, match=f"the gradients of each of 2 parts, got {len(given)}"):
            kernels.layer_backward(
                case.layer, case.packed, case.batch, states, (case.hs, (none,)), (none, (case.h_n,), (none,)), given,
                False, rows, TANH, work, 2,
            )  # fmt: skip
    output, goal = case.output, (CROSS_ENTROPY, np.zeros((2, 20), np.int64), none, none)
    packed = np.empty(kernels.output_sizes(2, 20, 20, 3, 4)[0], dtype)
    kernels.pack_output(output, 20, packed)
    with pytest.raises(ValueError, match="the gradients of each of 2 parts, got 1"):
        kernels.output_loss(
            output, packed, case.hs, goal, 1.0, case.hs.copy(), (tuple(map(np.zeros_like, output)),), False, rows,
            [np.empty(kernels.output_sizes(2, 20, 20, 3, 4)[1], dtype) for _ in range(2)], 2,
        )  # fmt: skip


def test_the_compiled_kernels_refuse_numbers_of_threads(kernels, dtype):
    if kernels.NAME != "cython":
        pytest.skip("the others have no teams")
    w = np.ones(3, dtype)
    for threads in (-3, 0, 65):
        for call in (
            lambda n: kernels.optimize("sgd", (w,), (w.copy(),), ((),), (0.1, 0.0, 0.0, 0.0, 0.0), n),
            lambda n: kernels.reduce_gradients(w[None].copy(), CLIP_NONE, 1.0, w, n),
            lambda n: kernels.copy_steps(w[None, None], w.reshape(1, 1, 3), n),
        ):
            with pytest.raises(ValueError, match=f"1 to 64 threads, got {threads}"):
                call(threads)
    assert w.tolist() == [1, 1, 1]
