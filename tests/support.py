"""Models with equal weights, comparisons that zeros fail, and snapshots."""

import gc
import math
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn import ReferenceRNN, SimpleRNN

#: Where it runs is meant to have everything: what is missing is an error, not a skip.
IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

PARAMETERS = ("Wxh", "Whh", "Why", "bh", "by")

#: Largest error, relative to the largest entry of an array.  float64: some hundred roundings of 1e-16,
#: amplified a little by the recurrence.  float32 is measured against float64 arithmetic on the same
#: weights: the same count of roundings of 6e-8.
TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-5}


def pair(d, h, q, *, backend, dtype=np.float64, seed=0, scale=None, prepare=None):
    """A `SimpleRNN` and a float64 `ReferenceRNN` with the same weights, biases not zero.

    `scale` is the standard deviation of Whh times sqrt(h); `prepare` may change the dict of weights.
    """
    rng = np.random.default_rng(seed)
    scale = 0.7 if scale is None else scale
    weights = {
        "Wxh": rng.normal(size=(h, d)) * 0.5,
        "Whh": rng.normal(size=(h, h)) * scale / math.sqrt(h),
        "Why": rng.normal(size=(q, h)) / math.sqrt(h),
        "bh": rng.normal(size=(h, 1)) * 0.3,
        "by": rng.normal(size=(q, 1)) * 0.3,
    }
    if prepare is not None:
        prepare(weights)
    rnn = SimpleRNN(d, h, q, dtype=dtype, rng=0, backend=backend)
    reference = ReferenceRNN(d, h, q, rng=0)
    for name, W in weights.items():
        W = W.astype(dtype)
        setattr(rnn, name, W)
        setattr(reference, name, W.astype(np.float64))
    return rnn, reference


def sequence(T, d, h, q, *, dtype=np.float64, seed=1, real=False, h_scale=0.5):
    """Inputs (indices, or vectors when `real`), targets and a first state."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(T, d)).astype(dtype) if real else rng.integers(-d, d, T)
    targets = rng.integers(-q, q, T)
    h_prev = (rng.normal(size=(h, 1)) * h_scale).astype(dtype)
    return inputs, targets, h_prev


def parameters(rnn):
    return tuple(getattr(rnn, name) for name in PARAMETERS)


def assert_close(got, want, tolerance=None, what="", of=None):
    """`got` is within `tolerance` (by dtype when None) times the largest entry of `want`, or of `of` as well."""
    want = np.asarray(want, np.float64)
    got = np.asarray(got)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, wanted {want.shape}"
    if tolerance is None:
        tolerance = TOLERANCE[got.dtype]
    largest = max(np.abs(part).max() for part in (want, want if of is None else of))
    error = np.abs(got.astype(np.float64) - want).max()
    assert error <= tolerance * largest, (
        f"{what}: error {error:.3g} at entries up to {largest:.3g}, allowed {tolerance:.3g} of it"
    )


def assert_all_close(got, want, tolerance=None, what=""):
    assert len(got) == len(want)
    for name, g, w in zip(PARAMETERS, got, want, strict=True):
        assert_close(g, w, tolerance, f"{what} d{name}")


def tolerance(dtype):
    """Of results of whole batches: sums of more terms than `TOLERANCE` is for."""
    return 1e-12 if dtype == np.float64 else 2e-5


def central_differences(goal, array, step=1e-5):
    """The slopes of `goal()` along every entry of an array that it reads; the entries are put back."""
    slopes = np.empty(array.shape)
    for place in np.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + step
        above = goal()
        array[place] = kept - step
        slopes[place] = (above - goal()) / (2 * step)
        array[place] = kept
    return slopes


def assert_same_steps(steps, wanted, tolerance=None, what=""):
    """A mapping of `SimpleRNN` against a dict of the reference."""
    assert list(steps) == sorted(wanted)
    for_all = np.hstack([steps[t] for t in steps])
    assert_close(for_all, np.hstack([wanted[t] for t in sorted(wanted)]), tolerance, what)


def stream_state():
    """State of NumPy's global stream, comparable with ``==``."""
    state = np.random.get_state(legacy=False)
    return (state["bit_generator"], state["state"]["key"].tobytes(), state["state"]["pos"],
            state["has_gauss"], state["gauss"])  # fmt: skip


def bits(*arrays):
    """Bytes of arrays, comparable with ``==`` where NaN is to equal NaN."""
    return [(a.shape, a.dtype.str, a.tobytes()) for a in map(np.asarray, arrays)]


def run_python(*arguments, cwd=None, **environment):
    """Run this Python on `arguments` with the package under test importable; return what it did."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=package_environment(**environment),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def package_environment(**environment):
    """Environment of a process that finds the package under test."""
    env = {k: v for k, v in os.environ.items() if k not in ("FASTRNN_BACKEND",)}
    root = str(Path(fastrnn.__file__).resolve().parent.parent)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH")]))
    return env | environment


def growth(calls):
    """Bytes beyond those held before, at the worst moment of `calls`, and those held after: the least of three times.

    What another thread takes comes and goes (a helper of the package, or pytest-xdist's, which is told what to run);
    a buffer comes every time.
    """
    gc.collect()
    gc.disable()
    tracemalloc.start()
    peaks, kept = [], []
    try:
        calls()
        for _ in range(3):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            calls()
            after, peak = tracemalloc.get_traced_memory()
            peaks.append(peak - before)
            kept.append(after - before)
    finally:
        tracemalloc.stop()
        gc.enable()
    return min(peaks), min(kept)
