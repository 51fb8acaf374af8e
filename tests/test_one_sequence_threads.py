"""One sequence, and few streams of samples, on several threads: the same bits as on one."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

import fastrnn.threads
from fastrnn import SimpleRNN
from fastrnn.kernels import (
    CLIP_NONE,
    CLIP_NORM,
    CLIP_STEP,
    CLIP_VALUE,
    GATES,
    GRU,
    LSTM,
    RELU,
    STATES,
    TANH,
    numpy_kernels,
)

pytestmark = pytest.mark.parametrize("backend", ["cython"], indirect=True)  # the others have no teams

THREADS = 2, 3, 5
WIDTH = 37
#: Limits that some sums reach and others do not, and for the plain products one that is never reached.
CLIPS = (CLIP_NONE, 1.0), (CLIP_STEP, 0.5), (CLIP_STEP, 100.0), (CLIP_VALUE, 0.2), (CLIP_NORM, 1.0)


#: Microseconds, of team.c.
WATCH, LATE = 50.0, 200.0


@pytest.fixture
def compiled(kernels):
    """The kernels, whose teams stay together however late a member is."""
    kernels.team_settings(1.0, -1.0)  # more threads than cores are late all the time
    yield kernels
    kernels.team_settings(WATCH, LATE)


def assert_same(got, wanted, what):
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b, strict=True, err_msg=str(what))


class Sequence:
    """One problem: its calls return all that they write."""

    def __init__(self, kernels, h, T, dtype, one_hot, d=WIDTH, q=WIDTH):
        rng = np.random.default_rng([h, T, one_hot])
        self.kernels, self.shape = kernels, (T, d, h, q)

        def normal(*shape, size=0.3):
            return (rng.normal(size=shape) * size).astype(dtype)

        self.params = (
            normal(h, d), normal(h, h, size=1 / math.sqrt(h)), normal(q, h), normal(h, 1), normal(q, 1)
        )  # fmt: skip
        self.inputs = rng.integers(0, d, T if one_hot else 0), normal(0 if one_hot else T, d)
        self.targets, self.uniforms = rng.integers(0, q, T), rng.random(T)
        self.states, self.dtype = normal(T + 1, h), dtype

    def space(self):
        T, d, h, q = self.shape
        work = np.full(self.kernels.workspace_size(T, d, h, q), math.nan, self.dtype)
        return self.states.copy(), np.zeros((T, q), self.dtype), work

    def forward(self, threads):
        hs, ps, work = self.space()
        self.kernels.forward(self.params, self.inputs, hs, ps, work, threads)
        return hs, ps

    def recurrence(self, threads):
        hs, _, work = self.space()
        self.kernels.recurrence(self.params, hs, work, threads)
        return (hs,)

    def backward(self, threads, clip):
        hs, ps, work = self.space()
        grads = tuple(np.zeros_like(W) for W in self.params)
        self.kernels.forward(self.params, self.inputs, hs, ps, work)
        self.kernels.backward(self.params, self.inputs, self.targets, hs, ps, clip[1], grads, work, threads)
        return grads

    def loss_and_grads(self, threads, clip):
        hs, ps, work = self.space()
        grads = tuple(np.zeros_like(W) for W in self.params)
        loss = self.kernels.loss_and_grads(
            self.params, self.inputs, self.targets, hs, ps, clip, grads, work, threads
        )
        return np.float64(loss), hs, ps, *grads

    def train_step(self, threads, clip):
        hs, ps, work = self.space()
        params, grads = tuple(W.copy() for W in self.params), tuple(np.zeros_like(W) for W in self.params)
        loss = self.kernels.train_step(
            params, self.inputs, self.targets, hs, ps, clip, 0.1, grads, work, threads
        )
        return np.float64(loss), hs, ps, *params

    def sample(self, threads):
        hs, _, work = self.space()
        out, state = np.full(self.shape[0], -1), hs[0].reshape(-1, 1)
        drawn = self.kernels.sample(self.params, state, 3, self.uniforms, out, work, threads)
        return np.float64(drawn), out, state


def check(problem, T):
    """Compare all functions on 2, 3 and 5 threads, in turn, with those on one."""
    calls = [(name,) for name in ("forward", "recurrence", "sample")]
    calls += [(name, clip) for clip in CLIPS for name in ("loss_and_grads", "train_step")]
    calls += [("backward", clip) for clip in CLIPS[:3]]
    for i, (name, *more) in enumerate(calls):
        alone = getattr(problem, name)(1, *more)
        for threads in THREADS if T == 25 else THREADS[i % 3 :][:1]:
            assert_same(getattr(problem, name)(threads, *more), alone, (name, *more, threads))


@pytest.mark.parametrize("one_hot", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("T", [1, 7, 25, 130])
@pytest.mark.parametrize("h", [8, 100, 256, 515])
def test_the_bits_do_not_depend_on_the_threads(compiled, h, T, dtype, one_hot):
    check(Sequence(compiled, h, T, dtype, one_hot), T)


@pytest.mark.parametrize("T", [25, 65])
def test_more_classes_than_are_looked_at(compiled, T):
    # Columns of Wxh are then used where they are.
    check(Sequence(compiled, 130, T, np.float64, one_hot=True, d=701), T)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("where", ["Wxh", "Whh", "Why", "state"])
def test_what_is_not_finite(compiled, where, threads):
    problem = Sequence(compiled, 100, 70, np.float64, one_hot=True)
    place = {
        "Wxh": problem.params[0],
        "Whh": problem.params[1],
        "Why": problem.params[2],
        "state": problem.states,
    }
    place[where][0, 5] = math.inf
    for name, *more in [("forward",), ("sample",), ("loss_and_grads", CLIPS[1]), ("train_step", CLIPS[0])]:
        assert_same(getattr(problem, name)(threads, *more), getattr(problem, name)(1, *more), name)


def test_sampling_ends_where_probabilities_are_no_numbers(compiled):
    problem = Sequence(compiled, 100, 40, np.float64, one_hot=True)
    problem.params[0][:] *= 50
    alone = problem.sample(1)
    came = alone[1][20]
    before = list(alone[1]).index(came)
    problem.params[0][:, came] = 1e308  # its column: the state stays finite, as tanh does
    problem.params[2][:] *= 1e308
    alone = problem.sample(1)
    assert alone[0] <= before + 1
    for threads in THREADS:
        assert_same(problem.sample(threads), alone, threads)


def samples(kernels, threads, N, rows, layers, h, cell, dtype, choice, broken=False):
    rng = np.random.default_rng([N, layers, h, cell])
    q, n, gates = WIDTH, 12, GATES[cell] * h

    def normal(*shape, size=0.3):
        return (rng.normal(size=shape) * size).astype(dtype)

    stack, packed = [], []
    for layer in range(layers):
        d = h if layer else q
        stack.append(
            (
                normal(gates, d, size=0.5),
                normal(gates, h, size=1 / math.sqrt(h)),
                normal(gates),
                normal(gates),
            )
        )
        packed.append(np.full(kernels.layer_sizes(1, N, N, d, h, cell)[0], math.nan, dtype))
        kernels.pack_layer(stack[-1], N, layer == 0, cell, packed[-1])
    output = normal(q, h, size=2.0), normal(q)
    if broken:
        output[0][3] *= math.inf
    packed_output = np.full(kernels.output_sizes(1, N, N, h, q)[0], math.nan, dtype)
    kernels.pack_output(output, N, packed_output)
    states = tuple(normal(layers, N, h) for _ in range(STATES[cell]))
    out = np.full((N, n), -1)
    work = np.full(kernels.sample_size(N, rows[1] - rows[0], q, h, q, cell), math.nan, dtype)
    drawn = kernels.sample_batch(
        (tuple(stack), tuple(packed)), (output, packed_output), states,
        (rng.integers(0, q, N), rng.random((N, n))), choice, out, rows, cell, work, threads,
    )  # fmt: skip
    return np.float64(drawn), out, *states


@pytest.mark.parametrize("cell", [TANH, RELU, GRU, LSTM])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("N", "rows"), [(1, (0, 1)), (3, (0, 3)), (17, (0, 17)), (20, (3, 12))])
@pytest.mark.parametrize("h", [8, 101, 256])
def test_streams_of_samples(compiled, h, N, rows, dtype, cell):
    for layers, choice in ((1, (1.0, 0, 1.0)), (2, (0.7, 9, 0.8))):
        for broken in (False, True):
            case = N, rows, layers, h, cell, dtype, choice, broken
            alone = samples(compiled, 1, *case)
            for threads in THREADS:
                assert_same(samples(compiled, threads, *case), alone, threads)


def test_simple_rnn_hands_the_threads_on(compiled, monkeypatch):
    asked = []

    def team(step, steps, num_threads, count=1):
        asked.append((step, steps, num_threads))
        return members[0]

    results, members = [], [1]
    monkeypatch.setattr(fastrnn.threads, "team", team)
    for members[0] in (1, 3):
        rnn = SimpleRNN(5, 64, 5, rng=0, backend="cython")
        x, y, h = np.arange(20) % 5, np.arange(20) % 5, np.zeros((64, 1))
        steps = rnn.forward(x, h)
        loss, grads, last = rnn.loss_and_grads(np.eye(5)[x], y, h)
        results.append([
            steps[2].array, *rnn.backward(*steps, y), np.float64(loss), *grads, last, rnn.train_step(x, y, h)[1],
            rnn.Whh, np.array(rnn.sample(h, 0, 9, rng=0)),
        ])  # fmt: skip
    assert_same(*results, "SimpleRNN")
    per_class, per_vector = 64 * (64 + 5), 64 * (64 + 5 + 5)
    wanted = [
        (per_class, 20, None),
        (per_vector, 20, None),
        (per_class, 20, None),
        (per_class, 20, None),
        (per_class, 9, None),
    ]
    assert asked == 2 * wanted


def test_threads_that_there_cannot_be(compiled):
    problem = Sequence(compiled, 8, 9, np.float64, one_hot=True)
    for threads in (0, -1, 65):
        with pytest.raises(ValueError, match=f"kernels take 1 to 64 threads, got {threads}"):
            problem.forward(threads)


def test_kernels_without_teams_are_told_one_thread(compiled, monkeypatch):
    monkeypatch.setattr(fastrnn.threads, "team", lambda *a: 7)
    rnn = SimpleRNN(5, 64, 5)
    space = rnn._take_space()
    assert rnn._members(space, compiled, "forward", 100) == 7
    assert rnn._members(space, SimpleNamespace(HAS_TEAMS=False), "forward", 100) == 1


@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize(("T", "d"), [(10, 70), (70, 70), (40, 7)])
def test_matrices_of_several_pieces(T, d, clip, compiled):
    """Larger than what one task goes through: what NumPy's kernels compute, on any number of threads."""
    sizes = {"one_hot": True, "d": d, "q": 70}
    wanted, got = (Sequence(kernels, 520, T, np.float64, **sizes) for kernels in (numpy_kernels, compiled))
    for call in ("backward", "loss_and_grads", "train_step"):
        expected = getattr(wanted, call)(1, clip)
        for threads in (1, 2):
            for a, b in zip(getattr(got, call)(threads, clip), expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=f"{call}, {threads} threads")
