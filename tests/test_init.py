"""First values of weights: what is filled in, from which stream, and into which memory."""

import math
from functools import partial

import numpy as np
import pytest
from refusals import refused
from support import bits, run_python, stream_state

import fastrnn
from fastrnn import GRU, LSTM, RNN, init

#: Name -> a call that draws with good arguments.
DRAWS = {
    "uniform_": lambda array, rng: init.uniform_(array, -2.0, 3.0, rng=rng),
    "normal_": lambda array, rng: init.normal_(array, 0.5, 2.0, rng=rng),
    "orthogonal_": lambda array, rng: init.orthogonal_(array, 1.5, rng=rng),
    "spectral_radius_": lambda array, rng: init.spectral_radius_(array, 0.7, rng=rng),
}
FILLS = DRAWS | {"eye_": lambda array, rng: init.eye_(array)}

#: Name -> the function and the keywords of its good call.
FUNCTIONS = {name: getattr(init, name) for name in FILLS}


def radius(array):
    return float(np.abs(np.linalg.eigvals(array.astype(np.float64))).max())


#: Shape, memory order and byte order of an array, and which part of it is a matrix of five rows.
MEMORIES = [
    ((5, 5), "C", "=", lambda whole: whole),
    ((5, 5), "F", "=", lambda whole: whole),
    ((5, 5), "C", "=", lambda whole: whole.T),
    ((5, 5), "C", "S", lambda whole: whole),
    ((20, 5), "C", "=", lambda whole: whole[5:10]),
    ((7, 15), "C", "=", lambda whole: whole[1:-1, 1::3]),
    ((7, 5), "F", "S", lambda whole: whole[-2::-1, ::-1][:5]),
]


# ---- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", MEMORIES, ids=map(str, range(len(MEMORIES))))
@pytest.mark.parametrize("name", FILLS)
def test_fills_in_place_whatever_the_memory(name, memory, dtype):
    shape, order, byte_order, part_of = memory
    wanted = FILLS[name](np.full((5, 5), 9, dtype), 3)
    whole = np.full(shape, 9, np.dtype(dtype).newbyteorder(byte_order), order)
    outside = np.ones(shape, bool)
    part_of(outside)[...] = False
    part = part_of(whole)
    assert FILLS[name](part, 3) is part
    assert np.array_equal(part_of(whole), wanted)
    assert not (wanted == 9).any()
    assert (whole[outside] == 9).all()


@pytest.mark.parametrize("name", DRAWS)
def test_streams(name, dtype):
    """The same seed, the same numbers; a generator goes on; None is a fresh stream, never NumPy's own."""
    draw = DRAWS[name]
    before = stream_state()
    first = draw(np.empty((6, 6), dtype), 7).copy()
    assert np.array_equal(draw(np.empty((6, 6), dtype), np.int64(7)), first)
    generator = np.random.default_rng(7)
    assert np.array_equal(draw(np.empty((6, 6), dtype), generator), first)
    assert not np.array_equal(draw(np.empty((6, 6), dtype), generator), first)
    assert not np.array_equal(draw(np.empty((6, 6), dtype), 8), first)
    if name != "spectral_radius_":
        a, b = draw(np.empty((6, 6), dtype), None), draw(np.empty((6, 6), dtype), None)
        assert not np.array_equal(a, b)
    assert stream_state() == before


@pytest.mark.parametrize("name", FILLS)
def test_float32_is_float64_rounded(name):
    wanted = FILLS[name](np.empty((17, 17)), 5)
    got = FILLS[name](np.empty((17, 17), np.float32), 5)
    assert bits(got) == bits(wanted.astype(np.float32))


@pytest.mark.parametrize("name", FILLS)
def test_nothing_to_fill(name, dtype):
    shapes = [(0, 0)] if name == "spectral_radius_" else [(0, 0), (0, 3), (3, 0)]
    for shape in shapes:
        array = np.empty(shape, dtype)
        assert FILLS[name](array, 0) is array
        assert array.shape == shape


def frozen(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("name", FILLS)
@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        ([[1.0, 2.0], [3.0, 4.0]], TypeError, "array must be an ndarray, which is filled in place, got list"),
        (None, TypeError, "array must be an ndarray.*got NoneType"),
        (1.0, TypeError, "array must be an ndarray.*got float"),
        (np.float64(1), TypeError, "array must be an ndarray.*got float64"),
        (np.ones((2, 2), int), TypeError, "array must be of dtype float32 or float64, got int64"),
        (np.ones((2, 2), np.float16), TypeError, "array must be of dtype float32 or float64, got float16"),
        (np.ones((2, 2), complex), TypeError, "array must be of dtype float32 or float64, got complex128"),
        (np.ones((2, 2), bool), TypeError, "array must be of dtype float32 or float64, got bool"),
        (np.ones((2, 2), object), TypeError, "array must be of dtype float32 or float64, got object"),
        (frozen(np.ones((2, 2))), ValueError, "array is read-only, and would be filled in place"),
        (np.broadcast_to(1.0, (2, 2)), ValueError, "array is read-only"),
    ],
)  # fmt: skip
def test_refuses_what_it_cannot_fill(name, bad, error, match):
    generator = np.random.default_rng(0)
    refused(partial(FILLS[name], bad, generator), error, match=match, bad=bad, generator=generator)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize(
    ("rng", "error", "match"),
    [
        (-1, ValueError, "rng must be a seed of at least 0, got -1"),
        (0.0, TypeError, "rng must be a numpy.random.Generator, an int or None, got float"),
        (True, TypeError, "rng must be .*, got bool"),
        (np.random.RandomState(0), TypeError, "rng must be .*, got RandomState"),
    ],
)
def test_refuses_a_stream(name, rng, error, match):
    array = np.full((3, 3), 9.0)
    refused(partial(DRAWS[name], array, rng), error, match=match, array=array)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "match"),
    [
        ("uniform_", (1.0, 0.0), ValueError, r"a must be at most b, got 1\.0 and 0\.0"),
        ("uniform_", (math.nan, 0.0), ValueError, "a must be a finite number, got nan"),
        ("uniform_", (0.0, math.inf), ValueError, "b must be a finite number, got inf"),
        ("uniform_", ("0", 1.0), TypeError, "a must be a real number, got str '0'"),
        ("uniform_", (0.0, [1.0]), TypeError, "b must be a real number, got list"),
        ("uniform_", (0.0, True), TypeError, "b must be a real number, got bool"),
        ("uniform_", (-1.7e308, 1.7e308), ValueError, "a and b must not be farther apart than float64 holds"),
        ("normal_", (math.inf, 1.0), ValueError, "mean must be a finite number, got inf"),
        ("normal_", (0.0, -1.0), ValueError, r"std must be at least 0, got -1\.0"),
        ("normal_", (0.0, math.nan), ValueError, "std must be a finite number, got nan"),
        ("normal_", (None,), TypeError, "mean must be a real number, got NoneType"),
        ("normal_", (0.0, 1j), TypeError, "std must be a real number, got complex"),
        ("orthogonal_", (math.nan,), ValueError, "gain must be a finite number, got nan"),
        ("orthogonal_", ("relu",), TypeError, "gain must be a real number, got str 'relu'"),
        ("spectral_radius_", (0.0,), ValueError, r"radius must be a finite positive number, got 0\.0"),
        ("spectral_radius_", (-1.0,), ValueError, r"radius must be .*positive number, got -1\.0"),
        ("spectral_radius_", (math.inf,), ValueError, "radius must be a finite positive number, got inf"),
        ("spectral_radius_", (None,), TypeError, "radius must be a real number, got NoneType"),
    ],
)  # fmt: skip
def test_refuses_numbers(name, arguments, error, match):
    array, generator = np.full((3, 3), 9.0), np.random.default_rng(0)
    refused(
        partial(FUNCTIONS[name], array, *arguments, rng=generator), error, match=match, array=array,
        generator=generator,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("uniform_", (-1e300, 0.0), r"a must be a number that float32 holds, got -1e\+300"),
        ("uniform_", (0.0, 1e300), "b must be a number that float32 holds"),
        ("normal_", (1e39,), "mean must be a number that float32 holds"),
        ("normal_", (0.0, 1e39), "std must be a number that float32 holds"),
        ("orthogonal_", (1e39,), "gain must be a number that float32 holds"),
        ("spectral_radius_", (1e39,), "radius must be a number that float32 holds"),
        ("spectral_radius_", (1e-60,), "radius 1e-60 would need numbers that float32 does not hold"),
    ],
)
def test_refuses_what_float32_does_not_hold(name, arguments, match):
    array, generator = np.full((3, 3), 9, np.float32), np.random.default_rng(0)
    call = partial(FUNCTIONS[name], array, *arguments, rng=generator)
    refused(call, ValueError, match=match, array=array, generator=generator)
    assert FUNCTIONS[name](array.astype(np.float64), *arguments, rng=generator).any()


def test_package_brings_the_module():
    done = run_python("-c", "import sys, fastrnn, fastrnn.char_rnn; assert 'fastrnn.init' not in sys.modules\n"
                            "import numpy\n"
                            "print(fastrnn.init.eye_(numpy.empty((1, 2))).tolist(), 'init' in dir(fastrnn))")  # fmt: skip
    assert done.stdout == "[[1.0, 0.0]] True\n", done.stderr
    assert fastrnn.init is init
    assert dir(init) == sorted(init.__all__)


# ---- draws entry by entry --------------------------------------------------------------------------


def test_uniform(dtype):
    array = init.uniform_(np.empty((200, 3, 100), dtype), -2, 5, rng=0)
    assert -2 <= array.min() < -1.99
    assert 4.99 < array.max() <= 5
    assert np.histogram(array, 7, (-2, 5))[0] == pytest.approx([60_000 / 7] * 7, rel=0.05)
    array = init.uniform_(np.empty(1000, dtype), rng=0)
    assert 0 <= array.min() < 0.01
    assert 0.99 < array.max() <= 1
    assert (init.uniform_(np.empty(3, dtype), 2, 2) == 2).all()
    assert 0 <= init.uniform_(np.empty((), dtype)) <= 1


def test_normal(dtype):
    array = init.normal_(np.empty((200, 3, 100), dtype), 3, 0.5, rng=0)
    z = (array.astype(np.float64) - 3) / 0.5
    assert [z.mean(), z.std(), (z**3).mean(), (z**4).mean()] == pytest.approx([0, 1, 0, 3], abs=0.1)
    array = init.normal_(np.empty(60_000, dtype), rng=0)
    assert [array.mean(), array.std()] == pytest.approx([0, 1], abs=0.02)
    assert (init.normal_(np.empty(3, dtype), 2, 0) == 2).all()


# ---- identity --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (2, 5), (5, 2), (1, 3)])
def test_eye(shape, dtype):
    got = init.eye_(np.full(shape, math.nan, dtype))
    assert got.dtype == dtype
    assert got.tolist() == [[float(i == j) for j in range(shape[1])] for i in range(shape[0])]


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2)])
def test_eye_refuses_a_shape(shape):
    array = np.full(shape, 9.0)
    refused(partial(init.eye_, array), ValueError, match=r"array must have shape \(m, n\), got", array=array)


# ---- orthogonal ------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1.0, 2.5, -1.0, 0.0])
@pytest.mark.parametrize(
    "shape", [(1, 1), (8, 8), (3, 9), (9, 3), (1, 5), (5, 1), (100, 100), (4, 2, 3), (3, 2, 5)]
)
def test_orthogonal(shape, gain, dtype):
    got = init.orthogonal_(np.full(shape, math.nan, dtype), gain, rng=1)
    assert got.shape == shape
    assert got.dtype == dtype
    W = got.astype(np.float64).reshape(shape[0], -1)
    fewer = W @ W.T if W.shape[0] < W.shape[1] else W.T @ W
    tolerance = 1e-14 if dtype == np.float64 else 1e-6
    assert np.abs(fewer - gain**2 * np.eye(len(fewer))).max() <= 10 * tolerance * gain**2


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2)])
def test_orthogonal_is_uniform(shape):
    """The signs of LAPACK's factors would always be the same: of the first entry, of the determinant."""
    generator, n = np.random.default_rng(0), 4000
    drawn = np.array([init.orthogonal_(np.empty(shape), rng=generator) for _ in range(n)])
    assert np.abs((drawn > 0).mean(axis=0) - 0.5).max() < 5 * 0.5 / math.sqrt(n)
    # Each entry is one of a unit vector that points anywhere, of as many dimensions as the longer side has.
    assert (drawn**2).mean(axis=0) == pytest.approx(np.full(shape, 1 / max(shape)), abs=0.03)
    if shape == (2, 2):
        assert (np.linalg.det(drawn) > 0).mean() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(n))
        angles = np.arctan2(drawn[:, 1, 0], drawn[:, 0, 0])
        assert np.histogram(angles, 8, (-math.pi, math.pi))[0] == pytest.approx([n / 8] * 8, rel=0.25)
        assert (drawn[:, 0, 0] * drawn[:, 1, 1]).mean() == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_orthogonal_refuses_a_shape(shape):
    array, generator = np.full(shape, 9.0), np.random.default_rng(0)
    refused(
        partial(init.orthogonal_, array, rng=generator), ValueError,
        match="array must have at least two dimensions, got shape", array=array, generator=generator,
    )  # fmt: skip


# ---- spectral radius -------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [1e-20, 0.9, 1.0, 25.0])
@pytest.mark.parametrize("n", [1, 2, 5, 60])
def test_spectral_radius_of_what_is_there(n, wanted, dtype):
    array = np.random.default_rng(n).normal(size=(n, n)).astype(dtype)
    before = array.astype(np.float64)
    init.spectral_radius_(array, wanted)
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    assert radius(array) == pytest.approx(wanted, rel=tolerance)
    factors = array / before
    assert factors == pytest.approx(np.full((n, n), wanted / radius(before)), rel=tolerance)


def test_spectral_radius_by_hand(dtype):
    turned = np.array([[0, 2], [-2, 0]], dtype)  # eigenvalues 2i and -2i
    assert init.spectral_radius_(turned, 0.5).tolist() == [[0, 0.5], [-0.5, 0]]
    assert init.spectral_radius_(np.diag([1, -4, 2]).astype(dtype)).tolist() == [
        [0.25, 0, 0],
        [0, -1, 0],
        [0, 0, 0.5],
    ]
    assert init.spectral_radius_(np.array([[-3]], dtype), 2) == [[-2]]
    # A delay line that forgets, all of whose eigenvalues are 0.25: far from a matrix that cannot be scaled.
    line = np.diag(np.full(20, 0.25, dtype)) + np.eye(20, k=1, dtype=dtype)
    assert init.spectral_radius_(line, 0.5)[:2, :2].tolist() == [[0.5, 2], [0, 0.5]]


@pytest.mark.parametrize("wanted", [0.9, 1.0, 25.0])
@pytest.mark.parametrize("n", [1, 2, 50])
def test_spectral_radius_of_what_is_drawn(n, wanted, dtype):
    array = np.full((n, n), math.nan, dtype)
    init.spectral_radius_(array, wanted, rng=4)
    assert radius(array) == pytest.approx(wanted, rel=1e-12 if dtype == np.float64 else 1e-5)
    drawn = np.random.default_rng(4).normal(size=(n, n))
    tolerance = 1e-10 if dtype == np.float64 else 1e-5
    assert array == pytest.approx(drawn * (wanted / radius(drawn)), rel=tolerance)


def test_range_of_the_numbers(dtype):
    info = np.finfo(dtype)
    for size in (info.max, info.tiny, info.smallest_subnormal):
        array = np.array([[0, size], [-size, 0]], dtype)
        assert init.spectral_radius_(array, 0.5).tolist() == [[0, 0.5], [-0.5, 0]]


def nilpotent(n):
    """A full matrix whose n-th power is zero; its eigenvalues are computed as far from it as 1e-16**(1/n)."""
    P = np.random.default_rng(n).normal(size=(n, n))
    return P @ np.eye(n, k=1) @ np.linalg.inv(P)


@pytest.mark.parametrize(
    "W",
    [
        np.zeros((1, 1)),
        np.zeros((3, 3)),
        np.eye(4, k=1),
        np.triu(np.ones((5, 5)), 1),
        np.tril(np.ones((6, 6)), -1) * 1e200,
        np.array([[1.0, -1.0], [1.0, -1.0]]),
        np.array([[2.0, -1.0], [4.0, -2.0]]) * 1e-30,
        np.array([[5.0, -3.0, 2.0], [15.0, -9.0, 6.0], [10.0, -6.0, 4.0]]),
        nilpotent(3),
        nilpotent(6),
    ],
)
def test_a_matrix_without_an_eigenvalue_cannot_be_scaled(W):
    refused(
        partial(init.spectral_radius_, W),
        ValueError,
        match="array must have an eigenvalue that is not 0",
        W=W,
    )
    assert init.spectral_radius_(W, rng=0).any()  # what it holds is not read then


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_spectral_radius_refuses_what_is_no_number(bad, dtype):
    array = np.ones((3, 3), dtype)
    array[1, 2] = bad
    refused(
        partial(init.spectral_radius_, array), ValueError, match="array holds NaN or infinity", array=array
    )
    init.spectral_radius_(array, 0.5, rng=0)
    assert np.isfinite(array).all()


def test_spectral_radius_refuses_what_would_overflow():
    array = np.array([[1e-3, 1e30], [0, 1e-3]], np.float32)
    refused(
        partial(init.spectral_radius_, array, 1e7), ValueError, array=array,
        match=r"radius 10000000\.0 would need numbers that float32 does not hold",
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (3, 2), (2, 2, 2), (0, 3)])
def test_spectral_radius_refuses_a_shape(shape):
    array, generator = np.full(shape, 9.0), np.random.default_rng(0)
    for rng in (generator, None):
        refused(
            partial(init.spectral_radius_, array, rng=rng), ValueError,
            match=r"array must be a square matrix \(n, n\), got shape", array=array, generator=generator,
        )  # fmt: skip


# ---- in layers -------------------------------------------------------------------------------------


def test_a_layer_computes_with_what_it_was_filled_with(dtype, backend):
    """The identity keeps a state; an orthogonal matrix keeps its length."""
    rnn = RNN(1, 5, nonlinearity="relu", dtype=dtype, rng=0, backend=backend)
    init.eye_(rnn.parameters["weight_hh_l0"])
    for name in ("bias_ih_l0", "bias_hh_l0"):
        rnn.parameters[name][:] = 0
    h0 = np.arange(5, dtype=dtype).reshape(1, 1, 5)
    _, h_n = rnn.forward(np.zeros((30, 1, 1), dtype), h0)
    assert np.array_equal(h_n, h0)
    init.spectral_radius_(rnn.parameters["weight_hh_l0"], 0.5)
    assert np.array_equal(rnn.forward(np.zeros((2, 1, 1), dtype), h0)[1], h0 / 4)


@pytest.mark.parametrize(("kind", "gates"), [(GRU, 3), (LSTM, 4)])
def test_gates_are_views(kind, gates, dtype):
    layer = kind(2, 6, dtype=dtype, rng=0)
    W = layer.parameters["weight_hh_l0"]
    last = W[(gates - 1) * 6 :].copy()
    for gate in range(gates - 1):
        init.orthogonal_(W[gate * 6 : (gate + 1) * 6], rng=layer.rng)
    for gate in range(gates - 1):
        part = W[gate * 6 : (gate + 1) * 6].astype(np.float64)
        assert part @ part.T == pytest.approx(np.eye(6), abs=1e-6)
    assert np.array_equal(W[-6:], last)
    assert layer.parameters["weight_hh_l0"] is W
