"""The kernels of each backend, called directly: same functions, nothing written beside an output,
nothing read from work space or outputs that was not written before."""

import inspect
import math
import os

import numpy as np
import pytest
from guarded import Guarded
from support import PARAMETERS, TOLERANCE, assert_all_close, assert_close, pair, sequence

from fastrnn import BackendUnavailable, backends
from fastrnn.kernels import CLIP_NONE, CLIP_NORM, CLIP_STEP, CLIP_VALUE, numpy_kernels

FUNCTIONS = [n for n, f in vars(numpy_kernels).items() if inspect.isfunction(f) and not n.startswith("_")]
CLIPS = {"step": CLIP_STEP, "value": CLIP_VALUE, "norm": CLIP_NORM, None: CLIP_NONE}
SIZES = [(1, 1, 1, 1), (3, 5, 7, 2), (8, 3, 16, 9), (9, 70, 17, 33), (65, 4, 31, 5), (130, 9, 8, 65)]


def test_the_same_functions(kernels):
    assert {
        "forward",
        "backward",
        "loss_and_grads",
        "update",
        "sample",
        "copy_targets",
        "wrap_indices",
        "workspace_size",
    } <= set(FUNCTIONS)
    for name in FUNCTIONS:
        function = getattr(kernels, name)
        function = getattr(function, "py_func", function)
        wanted = list(inspect.signature(getattr(numpy_kernels, name)).parameters)
        try:
            got = list(inspect.signature(function).parameters)
        except ValueError:  # a compiled function that keeps its signature to itself
            continue
        assert got == wanted, name


@pytest.mark.parametrize("real", [False, True], ids=["indices", "vectors"])
@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("fill", [math.nan, 1e30, 0.0])
@pytest.mark.parametrize(("T", "d", "h", "q"), SIZES)
def test_guards_and_poisoned_buffers(T, d, h, q, fill, offset, real, dtype, kernels, backend):
    rnn, reference = pair(d, h, q, backend=backend, dtype=dtype)
    inputs, targets, h_prev = sequence(T, d, h, q, dtype=dtype, real=real)
    targets = targets % q
    guarded = Guarded(dtype, offset, fill)
    weights = [getattr(rnn, name) for name in PARAMETERS]
    params = tuple(guarded.new(W.shape, W) for W in weights)
    grads = tuple(guarded.new(W.shape) for W in weights)
    indices = guarded.given([] if real else inputs % d, np.int64)
    x = guarded.given(inputs if real else np.empty((0, d)))
    hs, ps = guarded.new((T + 1, h)), guarded.new((T, q))
    hs[0] = h_prev[:, 0]
    classes = guarded.given(targets, np.int64)
    work = guarded.new((kernels.workspace_size(T, d, h, q),))

    kernels.forward(params, (indices, x), hs, ps, work)
    guarded.check(hs, ps)
    _, rhs, rps = reference.forward(inputs, h_prev)
    assert_close(hs, np.hstack([rhs[t] for t in range(-1, T)]).T)
    assert_close(ps, np.hstack([rps[t] for t in range(T)]).T)
    for clip, code in CLIPS.items():
        for threshold in (0.25, 5.0):
            guarded.poison(work, ps, hs[1:], *grads)
            loss = kernels.loss_and_grads(
                params, (indices, x), classes, hs, ps, (code, threshold), grads, work
            )
            guarded.check(hs, *grads)
            wanted, wanted_grads, h_last = reference.loss_and_grads(
                inputs, targets, h_prev, clip=clip, clip_threshold=threshold
            )
            assert type(loss) is float
            assert loss == pytest.approx(wanted, rel=TOLERANCE[np.dtype(dtype)], abs=1e-300)
            assert_close(hs[T], h_last[:, 0])
            assert_all_close(grads, wanted_grads, what=f"clip={clip}")
    kernels.forward(params, (indices, x), hs, ps, work)
    for limit in (0.25, 5.0, math.inf):
        guarded.poison(work, *grads)
        kernels.backward(params, (indices, x), classes, hs, ps, limit, grads, work)
        guarded.check(*grads)
        steps = [{t: a[i][:, None].astype(np.float64) for i, t in enumerate(range(first, T))}
                 for a, first in ((hs, -1), (ps, 0))]  # fmt: skip
        xs, _, _ = reference.forward(inputs, h_prev)
        assert_all_close(grads, reference._bptt(xs, *steps, targets, limit), what=f"limit={limit}")
    for W, kept in zip(params, weights, strict=True):
        assert np.array_equal(W, kept)
    kernels.update(params, grads, 0.5)
    guarded.check()
    for W, kept, g in zip(params, weights, grads, strict=True):
        assert_close(W, kept.astype(np.float64) - 0.5 * g.astype(np.float64))


@pytest.mark.parametrize("n", [0, 1, 7, 8, 70])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("fill", [math.nan, 1e30])
@pytest.mark.parametrize(("d", "h"), [(1, 1), (5, 7), (33, 17), (65, 32)])
def test_sample_guards(d, h, fill, offset, n, dtype, kernels, backend):
    rnn, reference = pair(d, h, d, backend=backend, dtype=dtype)
    guarded = Guarded(dtype, offset, fill)
    params = tuple(guarded.given(getattr(rnn, name)) for name in PARAMETERS)
    state = guarded.new((h, 1), 0.3)
    uniforms = guarded.given(np.random.default_rng(6).random(n), np.float64)
    out = guarded.new((n,), -1, np.int64)
    work = guarded.new((kernels.workspace_size(n, d, h, d),))
    assert kernels.sample(params, state, 0, uniforms, out, work) == n
    guarded.check()
    h0 = np.full((h, 1), dtype(0.3), np.float64)
    assert out.tolist() == reference.sample(h0, 0, n, rng=np.random.default_rng(6))


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 9, 100])
def test_wrap_indices(n, kernels):
    rng = np.random.default_rng(n)
    for bound in (1, 2, 300):
        guarded = Guarded(np.int64)
        indices, out = guarded.given(rng.integers(-bound, bound, n)), guarded.new((n,))
        assert kernels.wrap_indices(indices, bound, out) == -1
        guarded.check()
        assert np.array_equal(out, indices % bound)
        for position in range(n):
            for bad in (bound, -bound - 1, 2**63 - 1, -(2**63)):
                spoiled = indices.copy()
                spoiled[position:] = bad
                assert kernels.wrap_indices(spoiled, bound, out) == position


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 9, 100])
def test_copy_targets(n, kernels):
    rng = np.random.default_rng(n)
    for bound, ignored in ((1, -100), (300, -100), (3, -1), (4, 2), (5, 2**62)):
        targets = rng.integers(0, bound, n)
        for share in (0, 0.4, 1):
            targets[rng.random(n) < share] = ignored
            guarded = Guarded(np.int64)
            out = guarded.new((n,))
            assert kernels.copy_targets(targets, bound, ignored, out) == (targets != ignored).sum()
            guarded.check()
            assert np.array_equal(out, np.where(targets == ignored, -1, targets))
            for position in range(n):
                for bad in {bound, -1, -100, 2**63 - 1, -(2**63)} - {ignored}:
                    spoiled = targets.copy()
                    spoiled[position:] = bad
                    assert kernels.copy_targets(spoiled, bound, ignored, out) == -1 - position


@pytest.mark.parametrize("lr", [0.1, -2.0, 0.0])
def test_update(lr, dtype, kernels):
    rng = np.random.default_rng(0)
    shapes = [(7, 3), (7, 7), (33, 7), (7, 1), (33, 1)]
    params = tuple(rng.normal(size=s).astype(dtype) for s in shapes)
    grads = tuple(rng.normal(size=s).astype(dtype) for s in shapes)
    kept, wanted = [g.copy() for g in grads], [W - dtype(lr) * g for W, g in zip(params, grads, strict=True)]
    kernels.update(params, grads, lr)
    for W, w in zip(params, wanted, strict=True):
        assert_close(W, w, 1e-15 if dtype == np.float64 else 1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(grads, kept, strict=True))


def test_workspace_does_not_grow_with_long_sequences(kernels):
    """O(T (h + q)) and nothing else: what is kept besides the states has a bound of its own."""
    sizes = [kernels.workspace_size(T, 10, 32, 10) for T in (1, 10, 100, 1000, 100_000)]
    assert all(type(s) is int and s >= 0 for s in sizes)
    assert sizes[-1] <= 100_000 * (32 + 10) + sizes[0] + 100_000


def test_backends_agree(backend, dtype):
    """Every backend against the NumPy one, whose code is the plainest."""
    args = sequence(90, 9, 50, 11, dtype=dtype)
    ours, _ = pair(9, 50, 11, backend=backend, dtype=dtype)
    plain, _ = pair(9, 50, 11, backend="numpy", dtype=dtype)
    loss, grads, h_last = plain.loss_and_grads(*args)
    got_loss, got, got_h = ours.loss_and_grads(*args)
    assert got_loss == pytest.approx(loss, rel=TOLERANCE[np.dtype(dtype)])
    assert_all_close(got, [g.astype(np.float64) for g in grads])
    assert_close(got_h, h_last.astype(np.float64))


def test_simd_level_is_the_one_that_was_forced():
    """When the environment forces an instruction set, the compiled kernels run at that one."""
    try:
        kernels = backends.load("cython")
    except BackendUnavailable as error:
        pytest.skip(str(error))
    asked = os.environ.get("FASTRNN_SIMD")
    assert kernels.simd_level() == (asked or kernels.simd_levels()[-1])
