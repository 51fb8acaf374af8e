"""Every backend has what `fastrnn.kernels.CONTRACT` says, and computes what the NumPy kernels compute."""

import inspect
import math

import numpy as np
import pytest
from support import TOLERANCE, assert_close

from fastrnn.kernels import (
    CLIP_NONE,
    CLIP_NORM,
    CLIP_STEP,
    CLIP_VALUE,
    CONTRACT,
    CROSS_ENTROPY,
    GATES,
    GAUSSIAN,
    GRU,
    KEPT,
    LSTM,
    RELU,
    STATES,
    STEP_KERNEL,
    TANH,
    numpy_kernels,
)
from fastrnn.kernels.numpy_kernels.optimizers import OPTIMIZERS

#: What a backend may have beside it.
OWN = {
    "cache_folder", "simd_level", "simd_levels", "team_bare_wake_time", "team_numbers", "team_settings", "team_wake_time",
}  # fmt: skip


def test_a_backend_has_the_functions_of_the_contract_and_no_others(kernels):
    public = {
        name
        for name, value in vars(kernels).items()
        if callable(value) and not name.startswith("_") and not inspect.isclass(value)
    }
    assert public - OWN == set(CONTRACT)
    assert kernels.NAME in ("cython", "numba", "numpy")
    assert type(kernels.USES_BLAS) is bool
    assert type(kernels.PACK_ROWS_FROM) is int


@pytest.mark.parametrize("name", CONTRACT)
def test_the_arguments_of_the_contract(name, kernels):
    assert tuple(inspect.signature(getattr(kernels, name)).parameters) == CONTRACT[name]


@pytest.mark.parametrize("name", STEP_KERNEL)
def test_the_class_of_steps_and_its_methods(name, kernels):
    method = getattr(kernels.StepKernel, name)
    assert tuple(inspect.signature(method).parameters)[1:] == STEP_KERNEL[name]


# ---- results ---------------------------------------------------------------------------------------


class Random:
    """Random sizes and arrays of one case, the same for every backend and dtype."""

    def __init__(self, seed, dtype):
        self.rng, self.dtype = np.random.default_rng(seed), np.dtype(dtype)
        choice = self.rng.choice
        self.T, self.N = int(choice([1, 2, 7, 8, 13, 65])), int(choice([1, 2, 5, 17]))
        self.d, self.h, self.q = (int(n) for n in choice([1, 2, 5, 8, 16, 17, 33], 3))
        self.one_hot, self.cell = bool(self.rng.integers(2)), int(choice([TANH, RELU, GRU, LSTM]))
        self.clip = int(choice([CLIP_NONE, CLIP_STEP, CLIP_VALUE, CLIP_NORM])), float(choice([0.1, 5.0]))

    def reals(self, *shape, size=0.5):
        # Of few digits: what float32 holds just so.
        return (np.round(self.rng.normal(size=shape) * size * 1024) / 1024).astype(self.dtype)

    def recurrent(self, rows=None):
        # A larger matrix is chaotic: what float32 rounds would be another sequence in the end.
        return self.reals(rows or self.h, self.h, size=0.5 / math.sqrt(self.h))

    def states(self, *shape):
        """A tuple of arrays, one for each state of the cell."""
        return tuple(self.reals(*shape) for _ in range(STATES[self.cell]))

    def indices(self, bound, *shape):
        return self.rng.integers(0, bound, shape)

    def yes(self):
        return bool(self.rng.integers(2))

    # -- one sequence

    def sequence(self, kernels):
        """Arguments that its functions share, with room for states, probabilities and gradients."""
        T, d, h, q = self.T, self.d, self.h, self.q
        shapes = (h, d), (h, h), (q, h), (h, 1), (q, 1)
        params = tuple(self.recurrent() if i == 1 else self.reals(*shape) for i, shape in enumerate(shapes))
        indices = self.indices(d, T if self.one_hot else 0)
        inputs = indices, self.reals(0 if self.one_hot else T, d)
        hs, ps = self.reals(T + 1, h), np.zeros((T, q), self.dtype)
        grads = tuple(np.zeros(shape, self.dtype) for shape in shapes)
        work = np.full(kernels.workspace_size(T, d, h, q), math.nan, self.dtype)
        return params, inputs, self.indices(q, T), hs, ps, grads, work

    def forward(self, kernels):
        params, inputs, _, hs, ps, _, work = self.sequence(kernels)
        kernels.forward(params, inputs, hs, ps, work)
        return hs, ps

    def backward(self, kernels):
        params, inputs, targets, hs, ps, grads, work = self.sequence(kernels)
        numpy_kernels.forward(params, inputs, hs, ps, work)
        kernels.backward(params, inputs, targets, hs, ps, self.clip[1], grads, work)
        return grads

    def loss_and_grads(self, kernels):
        params, inputs, targets, hs, ps, grads, work = self.sequence(kernels)
        loss = kernels.loss_and_grads(params, inputs, targets, hs, ps, self.clip, grads, work)
        return loss, hs, *grads

    def train_step(self, kernels):
        params, inputs, targets, hs, ps, grads, work = self.sequence(kernels)
        loss = kernels.train_step(params, inputs, targets, hs, ps, self.clip, 0.1, grads, work)
        return loss, hs, *params

    def update(self, kernels):
        params, grads = self.sequence(kernels)[0], tuple(map(np.ones_like, self.sequence(kernels)[0]))
        kernels.update(params, grads, 0.25)
        return params

    def recurrence(self, kernels):
        params, _, _, hs, _, _, work = self.sequence(kernels)
        kernels.recurrence(params, hs, work)
        return (hs,)

    def sample(self, kernels):
        params, _, _, hs, _, _, _ = self.sequence(kernels)
        params = (self.reals(self.h, self.q), *params[1:])
        out, state = np.full(self.T, -1), hs[0].reshape(-1, 1).copy()
        work = np.full(kernels.workspace_size(self.T, self.q, self.h, self.q), math.nan, self.dtype)
        drawn = kernels.sample(params, state, 0, self.rng.random(self.T), out, work)
        return np.float64(drawn), out, state

    # -- a batch

    def batch(self):
        T, N, d, h = self.T, self.N, self.d, self.h
        rows = GATES[self.cell] * h
        layer = self.reals(rows, d), self.recurrent(rows), self.reals(rows), self.reals(rows)
        indices = self.indices(d, *((T, N) if self.one_hot else (0, N)))
        x = self.reals(*((0, N, d) if self.one_hot else (T, N, d)))
        lengths = self.rng.integers(1, T + 1, N if self.yes() else 0)
        start = int(self.rng.integers(N))
        rows = start, int(self.rng.integers(start + 1, N + 1))
        return layer, (indices, x, lengths, self.yes()), rows

    def layer_forward(self, kernels):
        layer, batch, rows = self.batch()
        first, hs = self.states(self.N, self.h), np.zeros((self.T, self.N, self.h), self.dtype)
        kept, last = self.run_layer(kernels, layer, batch, rows, first, hs)
        lengths = batch[2]
        if lengths.size:  # beyond a sequence's end is anything
            kept[np.arange(self.T)[:, None] >= lengths] = 0
        return hs, kept, *last

    def run_layer(self, kernels, layer, batch, rows, h0, hs):
        h_n = tuple(np.zeros_like(state) for state in h0)
        kept = np.zeros((self.T, self.N, KEPT[self.cell], self.h), self.dtype)
        packed, work = kernels.layer_sizes(self.T, self.N, self.N, self.d, self.h, self.cell)
        packs = not kernels.PACK_ROWS_FROM or self.yes()
        self.packed = np.full(packed if packs else 0, math.nan, self.dtype)
        self.work = np.full(work, math.nan, self.dtype)
        if packs:
            kernels.pack_layer(layer, self.N, self.one_hot, self.cell, self.packed)
        kernels.layer_forward(layer, self.packed, batch, h0, hs, kept, h_n, rows, self.cell, self.work)
        return kept, h_n

    def layer_backward(self, kernels):
        layer, batch, rows = self.batch()
        T, N, d, h, dtype = self.T, self.N, self.d, self.h, self.dtype
        upstream = self.reals(T, N, h), self.states(N if self.yes() else 0, h)
        grads = tuple(self.reals(*W.shape) for W in layer) if self.yes() else ()
        wanted = (
            np.zeros((0 if self.one_hot or self.yes() else T, N, d), dtype),
            tuple(np.zeros_like(a) for a in self.states(N, h)),
            tuple(np.zeros_like(a) for a in self.states(T if self.yes() else 0, N, h)),
        )
        accumulate = self.yes()
        first, hs = self.states(N, h), np.zeros((T, N, h), dtype)
        kept, _ = self.run_layer(kernels, layer, batch, rows, first, hs)
        states = first, hs, kept
        kernels.layer_backward(
            layer, self.packed, batch, states, upstream, wanted, grads, accumulate, rows, self.cell, self.work
        )  # fmt: skip
        return wanted[0], *wanted[1], *wanted[2], *grads

    pack_layer = layer_forward

    def output(self, kernels):
        output, hs = (self.reals(self.q, self.h), self.reals(self.q)), self.reals(self.T, self.N, self.h)
        packed, work = kernels.output_sizes(self.T, self.N, self.N, self.h, self.q)
        packed, work = (np.full(n, math.nan, self.dtype) for n in (packed, work))
        kernels.pack_output(output, self.N, packed)
        start = int(self.rng.integers(self.N))
        return output, packed, hs, (start, int(self.rng.integers(start + 1, self.N + 1))), work

    def output_logits(self, kernels):
        output, packed, hs, rows, work = self.output(kernels)
        logits = np.zeros((self.T, self.N, self.q), self.dtype)
        kernels.output_logits(output, packed, hs, logits, rows, work)
        return (logits,)

    pack_output = output_logits

    def output_loss(self, kernels):
        output, packed, hs, rows, work = self.output(kernels)
        loss = int(self.rng.integers(2 if self.q % 2 else 3))
        classes, values, weights = np.empty((0, 0), np.int64), self.reals(0, 0, 0), self.reals(0, 0)
        if loss == CROSS_ENTROPY:
            classes = self.rng.integers(-1, self.q, (self.T, self.N))
        else:
            values = self.reals(self.T, self.N, self.q // 2 if loss == GAUSSIAN else self.q)
        if self.yes():
            weights = self.rng.integers(0, 3, (self.T, self.N)).astype(self.dtype)
        goal = loss, classes, values, weights
        dhs = np.zeros((self.T if self.yes() else 0, self.N, self.h), self.dtype)
        grads = tuple(self.reals(*W.shape) for W in output) if dhs.size else ()
        loss = kernels.output_loss(output, packed, hs, goal, 0.5, dhs, grads, self.yes(), rows, work)
        return loss, dhs, *grads

    def sample_batch(self, kernels):
        N, h, q, L, n = self.N, self.h, self.q, int(self.rng.integers(1, 4)), 9
        rows = GATES[self.cell] * h
        layers = tuple(
            (
                self.reals(rows, q if i == 0 else h, size=0.2),
                self.recurrent(rows),
                self.reals(rows),
                self.reals(rows),
            )
            for i in range(L)
        )
        packed = []
        for i, layer in enumerate(layers):
            size, _ = kernels.layer_sizes(n, N, N, q if i == 0 else h, h, self.cell)
            packed.append(np.full(size, math.nan, self.dtype))
            kernels.pack_layer(layer, N, i == 0, self.cell, packed[-1])
        output, (size, _) = (self.reals(q, h), self.reals(q)), kernels.output_sizes(n, N, N, h, q)
        packed_output = np.full(size, math.nan, self.dtype)
        kernels.pack_output(output, N, packed_output)
        draws = self.indices(q, N), self.rng.random((N, n))
        choice = (
            float(self.rng.choice([0.0, 0.7, 1.0])),
            int(self.rng.choice([0, 3])),
            float(self.rng.choice([0.8, 1.0])),
        )
        states, out = self.states(L, N, h), np.full((N, n), -1)
        work = np.full(kernels.sample_size(N, N, q, h, q, self.cell), math.nan, self.dtype)
        drawn = kernels.sample_batch(
            (layers, tuple(packed)), (output, packed_output), states, draws, choice, out, (0, N), self.cell, work
        )  # fmt: skip
        return np.float64(drawn), out, *states

    # -- gradients, optimizers, and the rest

    def reduce_gradients(self, kernels):
        out = np.zeros(self.T * self.h, self.dtype)
        how, threshold = self.clip
        how = CLIP_NONE if how == CLIP_STEP else how
        norm = kernels.reduce_gradients(self.reals(3, out.size), how, threshold, out)
        return norm, out

    def optimize(self, kernels):
        # The states that a formula needs, those that settings turn on, and numbers with flags at their places.
        settings = {
            "sgd": ((False,), (0.1, 0.9, 0.5, 0.01 * self.yes(), float(self.yes()))),
            "adagrad": ((True,), (0.1, 1e-3, 0.01 * self.yes())),
            "rmsprop": ((True, False, False), (0.1, 0.9, 0.1, 0.5, 1e-3, 0.01 * self.yes())),
            "adam": (
                (True, True, False),
                (0.1, 0.9, 0.1, 0.99, 0.01, 2.0, 1e-3, 0.01 * self.yes(), 0.5 * self.yes()),
            ),
        }
        assert set(settings) == set(OPTIMIZERS)
        name = str(self.rng.choice(sorted(settings)))
        needed, numbers = settings[name]
        shapes = self.T * self.h, self.q
        params, grads = (tuple(self.reals(n) for n in shapes) for _ in range(2))
        # Means are 0, else a centered variance would be below 0.
        states = tuple(
            tuple(np.abs(self.reals(n)) * (name != "rmsprop" or i < 2) for n in shapes)
            if wanted or self.yes()
            else ()
            for i, wanted in enumerate(needed)
        )
        kernels.optimize(name, params, grads, states, numbers)
        return *params, *(a for arrays in states for a in arrays)

    def wrap_indices(self, kernels):
        indices = self.rng.integers(-self.q, self.q + self.yes(), self.T)
        out = np.zeros(self.T, np.int64)
        bad = kernels.wrap_indices(indices, self.q, out)
        return np.float64(bad), out[: bad if bad >= 0 else None]

    def copy_targets(self, kernels):
        targets = self.rng.integers(-1, self.q + self.yes(), self.T)
        out = np.zeros(self.T, np.int64)
        counted = kernels.copy_targets(targets, self.q, -1, out)
        return np.float64(counted), out[: -1 - counted if counted < 0 else None]

    def copy_steps(self, kernels):
        source = self.reals(self.T, self.N, self.h + 2)[:, :, 1:-1]
        out = np.zeros((self.N, self.T, self.h), self.dtype).swapaxes(0, 1)
        other = np.zeros((self.T, self.N, self.h), self.dtype)
        kernels.copy_steps(source, out, 2)
        kernels.copy_steps(out, other, 2)
        assert np.array_equal(out, source)
        return (other,)

    def tanh(self, kernels):
        x = self.reals(self.T * self.h, size=3.0)
        kernels.tanh(x)
        return (x,)

    def exp(self, kernels):
        x = self.reals(self.T * self.h, size=3.0)
        kernels.exp(x)
        return (x,)

    def sigmoid(self, kernels):
        x = self.reals(self.T * self.h, size=3.0)
        kernels.sigmoid(x)
        return (x,)


SIZES = {name for name in CONTRACT if name.endswith(("_size", "_sizes"))}


def test_an_optimizer_that_is_not_there_or_misses_something(kernels):
    w, g = (np.ones(3),), (np.ones(3),)
    for name, states, numbers in (
        ("newton", ((),), (1.0,)),
        ("sgd", ((),), (0.1,)),
        ("adam", ((),), (0.1,) * 9),
    ):
        with pytest.raises(ValueError, match=name):
            kernels.optimize(name, w, g, states, numbers)
    assert w[0].tolist() == [1, 1, 1]


def test_every_function_is_compared():
    assert {name for name in CONTRACT if hasattr(Random, name)} == set(CONTRACT) - SIZES


@pytest.mark.parametrize("name", sorted(set(CONTRACT) - SIZES))
@pytest.mark.parametrize("seed", range(30))
@pytest.mark.few(2)
def test_the_results_of_the_numpy_kernels(name, seed, dtype, kernels):
    case, plain = Random(seed, dtype), Random(seed, np.float64)
    got, wanted = getattr(case, name)(kernels), getattr(plain, name)(numpy_kernels)
    assert len(got) == len(wanted)
    about = f"{name} of {kernels.NAME}, {np.dtype(dtype)}, seed {seed}: T={case.T} N={case.N} d={case.d} h={case.h} q={case.q}"
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape, about
        if a.size:
            assert_close(a, b, 40 * TOLERANCE[np.dtype(dtype)], what=f"{about}, result {i}")
