"""Every kind of sequence and array that NumPy code may hold as inputs, targets and states."""

import array
import collections
import math

import numpy as np
import pytest
from support import assert_all_close, assert_close, assert_same_steps, bits, pair, parameters, sequence

T, D, H, Q = 70, 6, 13, 5
CLASSES = np.random.default_rng(8).integers(0, 5, T)


def results(rnn, inputs, targets, h_prev):
    """Everything that depends on the arguments, as one list of arrays."""
    xs, hs, ps = rnn.forward(inputs, h_prev)
    loss, grads, h_last = rnn.loss_and_grads(inputs, targets, h_prev)
    return [xs.array, hs.array, ps.array, *rnn.backward(xs, hs, ps, targets), *grads, np.array(loss), h_last]


class Sequence(collections.abc.Sequence):
    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, t):
        return self.values[t]


class Array:
    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


def strided(a):
    out = np.zeros((2 * len(a) + 1, *a.shape[1:]), a.dtype)
    out[1::2] = a
    return out[1::2]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def objects(kind):
    def convert(classes):
        out = np.empty(len(classes), object)
        for t, c in enumerate(classes):
            out[t] = kind(c)
        return out

    return convert


INDEX_KINDS = {
    "list": lambda c: c.tolist(),
    "tuple": lambda c: tuple(c.tolist()),
    "list of NumPy integers": list,
    "list of 0-d arrays": lambda c: [np.array(i) for i in c],
    "deque": lambda c: collections.deque(c.tolist()),
    "array.array": lambda c: array.array("h", c.tolist()),
    "memoryview": lambda c: memoryview(c.astype(np.int32)),
    "bytes": lambda c: bytes(c.tolist()),
    "bytearray": lambda c: bytearray(c.tolist()),
    "memoryview of bytes": lambda c: memoryview(bytes(c.tolist())),
    "objects": lambda c: c.astype(object),
    "objects of NumPy integers": objects(np.uint8),
    "objects of 0-d arrays": objects(np.array),
    "list with unsigned integers": lambda c: [*map(np.uint64, c[:3]), *c[3:].tolist()],
    "sequence class": lambda c: Sequence(c.tolist()),
    "__array__": Array,
    "strided": strided,
    "reversed": lambda c: c[::-1].copy()[::-1],
    "read-only": read_only,
    "masked": np.ma.asarray,
    "negative": lambda c: c - 5,
    **{
        np.dtype(k).name + order: lambda c, k=k, order=order: c.astype(np.dtype(k).newbyteorder(order))
        for k in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
        for order in ("<", ">")
    },
}


@pytest.mark.parametrize("kind", INDEX_KINDS)
def test_index_sequences(kind, dtype, backend):
    rnn, _ = pair(5, H, 5, backend=backend, dtype=dtype)
    h_prev = np.full((H, 1), 0.2, dtype)
    wanted = results(rnn, CLASSES, CLASSES[::-1].copy(), h_prev)
    inputs, targets = INDEX_KINDS[kind](CLASSES), INDEX_KINDS[kind](CLASSES[::-1].copy())
    assert bits(*results(rnn, inputs, targets, h_prev)) == bits(*wanted)
    assert [int(i) % 5 for i in np.asarray(inputs if kind != "bytes" else list(inputs))] == CLASSES.tolist()
    assert [int(i) % 5 for i in np.asarray(targets if kind != "bytes" else list(targets))] == list(
        CLASSES[::-1]
    )


def test_ranges(backend):
    rnn, _ = pair(5, H, 5, backend=backend)
    h_prev = np.zeros((H, 1))
    assert bits(*results(rnn, range(5), range(4, -1, -1), h_prev)) == bits(
        *results(rnn, [0, 1, 2, 3, 4], [4, 3, 2, 1, 0], h_prev)
    )


def test_negative_indices_wrap(backend):
    rnn, reference = pair(D, H, Q, backend=backend)
    h_prev = np.zeros((H, 1))
    inputs, targets = [-1, -D, 0, D - 1], [-1, -Q, 0, Q - 1]
    _, grads, _ = rnn.loss_and_grads(inputs, targets, h_prev)
    assert_all_close(grads, reference.loss_and_grads(inputs, targets, h_prev)[1])
    xs, _, _ = rnn.forward(inputs, h_prev)
    assert [int(xs[t].argmax()) for t in xs] == [D - 1, 0, 0, D - 1]


VECTOR_KINDS = {
    "column vectors": lambda x: x[:, :, None],
    "lists": lambda x: x.tolist(),
    "tuples": lambda x: tuple(map(tuple, x.tolist())),
    "list of rows": list,
    "list of columns": lambda x: list(x[:, :, None]),
    "memoryview": memoryview,
    "sequence class": lambda x: Sequence(x.tolist()),
    "__array__": Array,
    "strided": strided,
    "every second column": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "Fortran": np.asfortranarray,
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": read_only,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "misaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
    "masked": np.ma.asarray,
    "long double": lambda x: x.astype(np.longdouble),
}


@pytest.mark.parametrize("kind", VECTOR_KINDS)
def test_input_vectors(kind, dtype, backend):
    rnn, _ = pair(D, H, Q, backend=backend, dtype=dtype)
    x, targets, h_prev = sequence(T, D, H, Q, dtype=dtype, real=True)
    wanted = results(rnn, x, targets, h_prev)
    value = VECTOR_KINDS[kind](x)
    assert bits(*results(rnn, value, targets, h_prev)) == bits(*wanted)
    assert np.array_equal(np.asarray(value).reshape(x.shape), x)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f2", ">f4", ">f8", "i1", "u2", "i8", "u8", ">i4"])
def test_input_vectors_of_other_dtypes(kind, dtype, backend):
    rnn, reference = pair(D, H, Q, backend=backend, dtype=dtype)
    _, targets, h_prev = sequence(T, D, H, Q, dtype=dtype)
    x = np.random.default_rng(0).integers(0, 3, (T, D)).astype(kind)
    kept = x.copy()
    loss, grads, _ = rnn.loss_and_grads(x, targets, h_prev)
    wanted_loss, wanted, _ = reference.loss_and_grads(x, targets, h_prev)
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    assert_all_close(grads, wanted)
    assert bits(x) == bits(kept)


def test_indices_and_one_hot_vectors_agree(dtype, backend):
    rnn, _ = pair(D, H, Q, backend=backend, dtype=dtype)
    inputs, targets, h_prev = sequence(T, D, H, Q, dtype=dtype)
    for one_hot in (np.eye(D, dtype=dtype)[inputs], np.eye(D, dtype=np.int8)[inputs]):
        for got, want in zip(
            results(rnn, one_hot, targets, h_prev), results(rnn, inputs, targets, h_prev), strict=True
        ):
            assert_close(got.astype(dtype), want)


ONE_HOT_KINDS = {
    "rows": lambda m: m,
    "columns": lambda m: m[:, :, None],
    "lists": lambda m: m.tolist(),
    "list of rows": list,
    "list of columns": lambda m: list(m[:, :, None]),
    "Fortran": np.asfortranarray,
    "read-only": read_only,
}


def listing(network, inputs, targets, h_prev):
    """The notes' loop as it is printed, with what it makes of an input or target that is no integer."""
    xs, hs, ps = {}, {-1: np.copy(h_prev)}, {}
    for t in range(len(inputs)):
        xs[t] = np.zeros((network.input_size, 1))
        xs[t][inputs[t]] = 1
        hs[t] = np.tanh(np.dot(network.Wxh, xs[t]) + np.dot(network.Whh, hs[t - 1]) + network.bh)
        y = np.dot(network.Why, hs[t]) + network.by
        exp_y = np.exp(y - np.max(y))
        ps[t] = exp_y / np.sum(exp_y)
    return xs, hs, ps, network.backward(xs, hs, ps, targets)


@pytest.mark.parametrize("kind", ONE_HOT_KINDS)
def test_one_hot_bools_are_what_the_listing_makes_of_them(kind, dtype, backend):
    rnn, reference = pair(D, H, Q, backend=backend, dtype=dtype)
    rng = np.random.default_rng(4)
    inputs = rng.random((T, D)) < 0.3  # with rows of no and of many
    targets = np.eye(Q, dtype=bool)[rng.integers(0, Q, T)]
    h_prev = np.full((H, 1), 0.2, dtype)
    *steps, grads = listing(reference, ONE_HOT_KINDS[kind](inputs), ONE_HOT_KINDS[kind](targets), h_prev)
    mine = rnn.forward(ONE_HOT_KINDS[kind](inputs), h_prev)
    for got, wanted in zip(mine, steps, strict=True):
        assert_same_steps(got, wanted)
    assert_all_close(rnn.backward(*mine, ONE_HOT_KINDS[kind](targets)), grads)
    loss, fused, h_last = rnn.loss_and_grads(
        ONE_HOT_KINDS[kind](inputs), ONE_HOT_KINDS[kind](targets), h_prev
    )
    assert_all_close(fused, grads)
    classes = targets.argmax(axis=1)
    assert loss == pytest.approx(-sum(math.log(steps[2][t][c, 0]) for t, c in enumerate(classes)), rel=1e-5)
    assert rnn.train_step(ONE_HOT_KINDS[kind](inputs), ONE_HOT_KINDS[kind](targets), h_prev)[0] == loss
    assert_close(h_last, steps[1][T - 1])


STATE_KINDS = {
    "lists": lambda h: h.tolist(),
    "list of rows": list,
    "strided": strided,
    "row, transposed": lambda h: h.T.copy().T,
    "read-only": read_only,
    "big-endian": lambda h: h.astype(h.dtype.newbyteorder(">")),
    "misaligned": lambda h: np.frombuffer(b"\0" + h.tobytes(), h.dtype, offset=1).reshape(h.shape),
    "memoryview": memoryview,
    "float64": lambda h: h.astype(np.float64),
    "long double": lambda h: h.astype(np.longdouble),
    "masked": np.ma.asarray,
    "column of a matrix": lambda h: np.tile(h, (1, 7))[:, 3:4],
}


@pytest.mark.parametrize("kind", STATE_KINDS)
def test_states(kind, dtype, backend):
    rnn, _ = pair(5, H, 5, backend=backend, dtype=dtype)
    h = (np.random.default_rng(0).normal(size=(H, 1)) * 3).astype(dtype)
    value = STATE_KINDS[kind](h)
    assert bits(*results(rnn, CLASSES, CLASSES, value)) == bits(*results(rnn, CLASSES, CLASSES, h))
    assert rnn.sample(value, 0, 20, rng=3) == rnn.sample(h, 0, 20, rng=3)
    assert np.array_equal(np.asarray(value), h)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float16, np.float32])
def test_states_of_other_dtypes(kind, dtype, backend):
    rnn, _ = pair(5, H, 5, backend=backend, dtype=dtype)
    h = np.arange(H)[:, None] % 2
    assert bits(*results(rnn, CLASSES, CLASSES, h.astype(kind))) == bits(
        *results(rnn, CLASSES, CLASSES, h.astype(dtype))
    )


@pytest.mark.parametrize("layout", [np.asfortranarray, strided, read_only, np.ndarray.tolist])
@pytest.mark.parametrize("container", [tuple, list])
def test_gradients_of_any_layout(layout, container, dtype, backend):
    rnn, _ = pair(D, H, Q, backend=backend, dtype=dtype)
    other, _ = pair(D, H, Q, backend=backend, dtype=dtype)
    _, grads, _ = rnn.loss_and_grads(*sequence(T, D, H, Q, dtype=dtype))
    rnn.update_weights(grads, lr=0.3)
    other.update_weights(container(layout(g) for g in grads), lr=0.3)
    assert bits(*parameters(rnn)) == bits(*parameters(other))


@pytest.mark.parametrize(
    "lr", [1, 0, -0.5, np.float32(0.5), np.float64(0.1), np.int8(1), np.array(0.25), True + 1]
)
def test_learning_rates(lr, dtype, backend):
    rnn, reference = pair(D, H, Q, backend=backend, dtype=dtype)
    args = sequence(20, D, H, Q, dtype=dtype)
    rnn.train_step(*args, lr)
    reference.train_step(*args, float(lr))
    assert_all_close(parameters(rnn), parameters(reference))


@pytest.mark.parametrize("real", [False, True])
def test_arguments_are_unmodified(real, dtype, backend):
    rnn, _ = pair(D, D, D, backend=backend, dtype=dtype)
    inputs, targets, h_prev = sequence(T, D, D, D, dtype=dtype, real=real)
    kept = bits(inputs, targets, h_prev)
    xs, hs, ps = rnn.forward(inputs, h_prev)
    steps = bits(xs.array, hs.array, ps.array)
    grads = rnn.backward(xs, hs, ps, targets)
    rnn.loss_and_grads(inputs, targets, h_prev)
    weights = bits(*parameters(rnn))
    rnn.sample(h_prev, 0, 20, rng=0)
    assert bits(*parameters(rnn)) == weights
    mine = bits(*grads)
    rnn.update_weights(grads)
    rnn.train_step(inputs, targets, h_prev)
    assert bits(inputs, targets, h_prev) == kept
    assert bits(xs.array, hs.array, ps.array) == steps
    assert bits(*grads) == mine


def test_results_belong_to_the_caller(backend):
    """What is returned may be written to, and is not written to by later calls."""
    rnn, _ = pair(D, H, Q, backend=backend)
    args = sequence(T, D, H, Q)
    _, grads, h_last = rnn.loss_and_grads(*args)
    kept = bits(*grads, h_last)
    _, h_trained = rnn.train_step(*args)
    trained = bits(h_trained)
    rnn.train_step(*args)
    rnn.loss_and_grads(*args)
    assert bits(*grads, h_last) == kept
    assert bits(h_trained) == trained
    for a in (*grads, h_last, h_trained):
        a[...] = np.nan
    assert np.isfinite(rnn.train_step(*args)[0])


def test_a_state_goes_from_chunk_to_chunk(dtype, backend):
    """h_last of one chunk as h_prev of the next is one long sequence."""
    rnn, _ = pair(D, H, Q, backend=backend, dtype=dtype)
    inputs, targets, h = sequence(60, D, H, Q, dtype=dtype)
    whole, _, h_end = rnn.loss_and_grads(inputs, targets, h)
    total = 0.0
    for start in range(0, 60, 20):
        loss, _, h = rnn.loss_and_grads(inputs[start : start + 20], targets[start : start + 20], h)
        total += loss
    assert total == pytest.approx(whole, rel=1e-12 if dtype == np.float64 else 1e-5)
    assert_close(h, h_end)
