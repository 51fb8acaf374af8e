"""The recurrent part of `forward`, logits and softmax taken off, beside the least it can cost: a bare
matrix-vector product in C and the tanh of its result, compiled for this machine (floor.c)."""

import ctypes
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from contenders import describe
from problems import Problem
from sizes import DTYPES

from fastrnn import backends

HIDDEN, STEPS = (32, 100, 256, 512), 100
ROUNDS = 40
#: Seconds of the fastest round are what counts, so each round is long enough for the clock.
SECONDS_A_ROUND = 2e-3


MACROS = {
    "float64": ["-DREAL=double", "-DINT=int64_t", "-DREAL_BITS=64", "-DSIGN_BIT=INT64_MIN", "-DSUFFIX=f64"],
    "float32": ["-DREAL=float", "-DINT=int32_t", "-DREAL_BITS=32", "-DSIGN_BIT=INT32_MIN", "-DSUFFIX=f32"],
}


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """floor.c as a library for each dtype."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no C compiler {compiler[0]!r} to build the floor with")
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"the floor is written for x86-64, this is {platform.machine()}")
    folder, source = tmp_path_factory.mktemp("floor"), Path(__file__).with_name("floor.c")
    options = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-w", "-shared", "-fPIC"]
    libraries = {}
    for dtype, macros in MACROS.items():
        library = folder / f"floor_{dtype}.so"
        include = source.parent.parent / "kernels" / "csrc"
        subprocess.run(
            [*compiler, *options, *macros, f"-I{include}", "-o", str(library), str(source)], check=True
        )
        libraries[dtype] = ctypes.CDLL(str(library))
        libraries[dtype].lanes.restype = ctypes.c_ssize_t
        libraries[dtype].recurrent_steps.argtypes = [ctypes.c_ssize_t] * 2 + [ctypes.c_void_p] * 3
    return libraries


def panels(W, lanes):
    """The transposed matrix, cut into panels of 8, 4, 2 and 1 vectors; each starts at a cache line."""
    h = len(W)
    padded = np.zeros((h, -(-h // lanes) * lanes), W.dtype)
    padded[:, :h] = W.T
    pieces, done = [], 0
    for width in (8 * lanes, 4 * lanes, 2 * lanes, lanes):
        while padded.shape[1] - done >= width:
            pieces.append(padded[:, done : done + width].ravel())
            done += width
    out = aligned(padded.size, W.dtype)
    out[:] = np.concatenate(pieces)
    return out


def aligned(shape, dtype):
    """Zeros that start at a cache line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def weights(h, dtype):
    return (np.random.default_rng(0).standard_normal((h, h)) / np.sqrt(h)).astype(dtype)


def expected(W, start, steps):
    state = start.astype(np.float64)
    for _ in range(steps):
        state = np.tanh(W.astype(np.float64) @ state)
    return state


def record(benchmark, call, h, dtype, contender, kind):
    benchmark.group = f"floor: h{h}-{dtype}"
    benchmark.extra_info.update(describe("floor", "recurrent step", Problem(h, STEPS, dtype), contender))
    benchmark.extra_info["kind"] = kind
    call()
    benchmark.pedantic(call, rounds=ROUNDS, iterations=max(1, int(SECONDS_A_ROUND / (STEPS * h * h * 1e-10))))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("h", HIDDEN)
def test_bare_product_and_tanh(benchmark, bare, h, dtype):
    W, library = weights(h, dtype), bare[dtype]
    lanes = library.lanes()
    packed, state, scratch = panels(W, lanes), aligned(h + lanes, dtype), aligned(h + lanes, dtype)
    addresses = (packed.ctypes.data, state.ctypes.data, scratch.ctypes.data)
    state[:h] = 0.5
    library.recurrent_steps(4, h, *addresses)
    np.testing.assert_allclose(state[:h], expected(W, np.full(h, 0.5), 4), rtol=0, atol=1e-5)
    record(benchmark, lambda: library.recurrent_steps(STEPS, h, *addresses), h, dtype, "bare C", "floor")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("h", HIDDEN)
def test_recurrent_part(benchmark, needs, backend, h, dtype):
    needs(backend)
    if not hasattr(backends.load(backend), "recurrence"):
        pytest.skip(f"backend {backend} has no recurrent part of its own")
    kernels, W = backends.load(backend), weights(h, dtype)
    params = (
        np.zeros((h, 1), dtype),
        W,
        np.zeros((1, h), dtype),
        np.zeros((h, 1), dtype),
        np.zeros((1, 1), dtype),
    )
    hs = np.zeros((STEPS + 1, h), dtype)
    work = np.empty(kernels.workspace_size(STEPS, 1, h, 1), dtype)
    hs[0] = 0.5
    kernels.recurrence(params, hs, work)
    np.testing.assert_allclose(hs[3], expected(W, np.full(h, 0.5), 3), rtol=0, atol=1e-5)
    record(benchmark, lambda: kernels.recurrence(params, hs, work), h, dtype, backend, "backend")
