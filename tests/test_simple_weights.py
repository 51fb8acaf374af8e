"""Weights are plain arrays that users read, mutate, assign; copies, pickles, attributes."""

import copy
import pickle

import numpy as np
import pytest
from support import PARAMETERS, assert_all_close, assert_close, bits, pair, parameters, sequence

from fastrnn import ReferenceRNN, SimpleRNN

SHAPES = {"Wxh": (9, 4), "Whh": (9, 9), "Why": (5, 9), "bh": (9, 1), "by": (5, 1)}
names = pytest.mark.parametrize("name", PARAMETERS)


def model(backend, dtype=np.float64, **options):
    rnn, reference = pair(4, 9, 5, backend=backend, dtype=dtype, **options)
    return rnn, reference, sequence(12, 4, 9, 5, dtype=dtype)


@pytest.mark.parametrize(("d", "h", "q", "count"), [(26, 100, 26, 15326), (1, 1, 1, 5), (4, 9, 5, 176)])
def test_num_parameters(d, h, q, count):
    rnn = SimpleRNN(d, h, q)
    assert rnn.num_parameters == count == sum(W.size for W in parameters(rnn))
    assert ReferenceRNN(d, h, q).num_parameters == count
    assert type(rnn.num_parameters) is int
    assert (rnn.input_size, rnn.hidden_size, rnn.output_size) == (d, h, q)


def test_attributes():
    rnn = SimpleRNN(np.int32(4), np.uint8(9), 5, dtype="float32")
    assert repr(rnn) == "SimpleRNN(4, 9, 5, dtype=float32)"
    assert rnn.dtype == np.float32
    assert type(rnn.hidden_size) is int
    assert {name: getattr(rnn, name).shape for name in PARAMETERS} == SHAPES


@names
def test_mutation_in_place_is_seen(name, dtype, backend):
    rnn, reference, args = model(backend, dtype)
    rnn.loss_and_grads(*args)
    for model_ in (rnn, reference):
        W = getattr(model_, name)
        W *= 1.5
        W[0, 0] = 0.75
    loss, grads, h_last = reference.loss_and_grads(*args)
    got_loss, got, got_h = rnn.loss_and_grads(*args)
    assert got_loss == pytest.approx(loss, rel=1e-5)
    assert_all_close(got, grads)
    assert_close(got_h, h_last)


def fortran(W):
    return np.asfortranarray(W)


def strided(W):
    out = np.full((2 * W.shape[0], 3 * W.shape[1]), np.nan, W.dtype)[::2, ::3]
    out[...] = W
    return out


def backwards(W):
    return W[::-1, ::-1].copy()[::-1, ::-1]


def read_only(W):
    W = W.copy()
    W.flags.writeable = False
    return W


def big_endian(W):
    return W.astype(W.dtype.newbyteorder(">"))


def misaligned(W):
    buffer = np.zeros(W.nbytes + 1, np.uint8)[1:]
    out = buffer.view(W.dtype).reshape(W.shape)
    out[...] = W
    return out


LAYOUTS = [
    np.copy, fortran, strided, backwards, read_only, big_endian, misaligned, np.ndarray.tolist, np.asmatrix,
    np.ma.asarray, lambda W: W.astype(np.longdouble), lambda W: tuple(map(tuple, W.tolist())),
]  # fmt: skip


@names
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_assignment_of_any_layout(layout, name, dtype, backend):
    rnn, reference, args = model(backend, dtype)
    W = (np.random.default_rng(3).normal(size=SHAPES[name]) * 0.3).astype(dtype)
    value = layout(W)
    setattr(rnn, name, value)
    setattr(reference, name, W.astype(np.float64))
    got = getattr(rnn, name)
    assert type(got) is np.ndarray
    assert got.dtype == dtype
    assert np.array_equal(got, W)
    loss, grads, _ = reference.loss_and_grads(*args)
    got_loss, got_grads, _ = rnn.loss_and_grads(*args)
    assert got_loss == pytest.approx(loss, rel=1e-5)
    assert_all_close(got_grads, grads)
    assert_all_close(rnn.backward(*rnn.forward(args[0], args[2]), args[1]), grads)
    assert np.array_equal(np.asarray(value), W)


@names
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int8, np.uint64])
def test_assignment_of_any_real_dtype(kind, name, dtype, backend):
    rnn, _, args = model(backend, dtype)
    W = (np.arange(np.prod(SHAPES[name])).reshape(SHAPES[name]) % 3).astype(kind)
    setattr(rnn, name, W)
    assert getattr(rnn, name).dtype == dtype
    assert np.array_equal(getattr(rnn, name), W)
    before = W.copy()
    rnn.train_step(*args)
    assert kind == dtype or np.array_equal(W, before)


@names
@pytest.mark.parametrize(
    "layout", [np.copy, fortran, strided, backwards, misaligned], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("update", ["update_weights", "train_step"])
def test_updates_write_through_to_the_users_own_array(update, layout, name, dtype, backend):
    rnn, reference, args = model(backend, dtype)
    mine = layout(getattr(rnn, name))
    setattr(rnn, name, mine)
    assert getattr(rnn, name) is mine
    if update == "train_step":
        rnn.train_step(*args, 0.2)
    else:
        rnn.update_weights(rnn.loss_and_grads(*args)[1], 0.2)
    reference.train_step(*args, 0.2)
    assert_close(mine, getattr(reference, name))
    assert getattr(rnn, name) is mine
    mine[...] = 0
    assert not getattr(rnn, name).any()


@names
def test_augmented_assignment(name, backend):
    rnn, _, _ = model(backend)
    mine = getattr(rnn, name)
    kept = mine.copy()
    exec(f"rnn.{name} -= 0.25")
    assert getattr(rnn, name) is mine
    assert np.array_equal(mine, kept - 0.25)


@names
def test_read_only_weights_compute_but_do_not_train(name, dtype, backend):
    rnn, reference, args = model(backend, dtype)
    getattr(rnn, name).flags.writeable = False
    loss, grads, _ = rnn.loss_and_grads(*args)
    assert_all_close(grads, reference.loss_and_grads(*args)[1])
    before = bits(*parameters(rnn))
    with pytest.raises(ValueError, match=f"{name} is read-only"):
        rnn.train_step(*args)
    with pytest.raises(ValueError, match=f"{name} is read-only"):
        rnn.update_weights(grads)
    assert bits(*parameters(rnn)) == before
    getattr(rnn, name).flags.writeable = True
    assert rnn.train_step(*args)[0] == loss


WRONG_WEIGHTS = {
    "a row short": lambda s: np.zeros((s[0] - 1, s[1])),
    "a column more": lambda s: np.zeros((s[0], s[1] + 1)),
    "transposed": lambda s: np.zeros((s[1], s[0] + 1)),
    "flat": lambda s: np.zeros(s[0] * s[1]),
    "three-dimensional": lambda s: np.zeros((*s, 1)),
    "a number": lambda s: 1.0,
    "empty": lambda s: np.zeros((0, s[1])),
    "none": lambda s: None,
    "a string": lambda s: "weights",
    "ragged": lambda s: [[0.0] * s[1]] * (s[0] - 1) + [[0.0] * (s[1] + 1)],
    "complex": lambda s: np.zeros(s, complex),
    "bool": lambda s: np.zeros(s, bool),
    "object": lambda s: np.zeros(s, object),
    "strings": lambda s: np.full(s, "0"),
    "dict": lambda s: {},
    "generator": lambda s: (x for x in []),
}


@names
@pytest.mark.parametrize("wrong", WRONG_WEIGHTS)
def test_wrong_assignment_raises_and_leaves(wrong, name, backend):
    rnn, _, args = model(backend)
    arrays, before = parameters(rnn), bits(*parameters(rnn))
    rows, columns = SHAPES[name]
    with pytest.raises((ValueError, TypeError), match=name) as caught:
        setattr(rnn, name, WRONG_WEIGHTS[wrong](SHAPES[name]))
    if caught.type is ValueError and wrong != "ragged":
        assert f"({rows}, {columns})" in str(caught.value)
    assert all(a is b for a, b in zip(parameters(rnn), arrays, strict=True))
    assert bits(*parameters(rnn)) == before
    rnn.train_step(*args)


@names
def test_in_place_reshapes_are_caught(name, backend):
    rnn, _, (inputs, targets, h_prev) = model(backend)
    steps = rnn.forward(inputs, h_prev)
    grads = rnn.backward(*steps, targets)
    W = getattr(rnn, name)
    kept = W.tobytes()

    def spoil(change):
        change()
        for attempt in (
            lambda: rnn.forward(inputs, h_prev),
            lambda: rnn.backward(*steps, targets),
            lambda: rnn.loss_and_grads(inputs, targets, h_prev),
            lambda: rnn.train_step(inputs, targets, h_prev),
            lambda: rnn.update_weights(grads),
        ):
            with pytest.raises(ValueError, match=f"{name} must have shape"):
                attempt()
        assert W.tobytes() == kept

    shape = W.shape
    spoil(lambda: _set(W, "shape", (W.size,)))
    _set(W, "shape", shape)
    spoil(lambda: _set(W, "dtype", np.dtype(np.int64)))
    _set(W, "dtype", np.dtype(np.float64))
    rnn.loss_and_grads(inputs, targets, h_prev)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def _set(array, attribute, value):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        setattr(array, attribute, value)


def test_in_place_resize_is_caught(backend):
    rnn, _, args = model(backend)
    rnn.Why = np.zeros((5, 9))
    rnn.Why.resize((2, 3), refcheck=False)
    with pytest.raises(ValueError, match="Why must have shape"):
        rnn.loss_and_grads(*args)


def test_one_array_as_two_weights(backend):
    """h = d = q: one matrix in three places is updated three times, as in the notes."""
    rnn, reference = pair(6, 6, 6, backend=backend)
    args = sequence(8, 6, 6, 6)
    for model_ in (rnn, reference):
        shared = np.eye(6) * 0.3
        model_.Wxh = model_.Whh = model_.Why = shared
    rnn.train_step(*args)
    reference.train_step(*args)
    assert rnn.Wxh is rnn.Whh is rnn.Why
    assert_close(rnn.Whh, reference.Whh)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, *(lambda r, p=p: pickle.loads(pickle.dumps(r, p)) for p in range(2, 6))]
)
def test_copies_are_independent_and_equal(duplicate, dtype, backend):
    rnn, _, args = model(backend, dtype)
    rnn.train_step(*args)  # so that there are buffers
    other = duplicate(rnn)
    assert repr(other) == repr(rnn)
    assert bits(*parameters(other)) == bits(*parameters(rnn))
    assert bits(*other.loss_and_grads(*args)[1]) == bits(*rnn.loss_and_grads(*args)[1])
    kept = bits(*parameters(rnn))
    other.train_step(*args)
    assert bits(*parameters(rnn)) == kept
    assert bits(*parameters(other)) != kept
    rnn.train_step(*args)
    assert bits(*parameters(other)) == bits(*parameters(rnn))


def test_pickles_do_not_carry_buffers(backend):
    rnn, _, (_, _, h_prev) = model(backend)
    small = len(pickle.dumps(rnn))
    rnn.train_step([0] * 5000, [0] * 5000, h_prev)
    assert len(pickle.dumps(rnn)) == small


def test_a_subclass(backend):
    class Mine(SimpleRNN):
        def forward(self, inputs, h_prev):
            return super().forward([i + 1 for i in inputs], h_prev)

    rnn = Mine(4, 9, 5, rng=0, backend=backend)
    xs, _, _ = rnn.forward([0, 1], np.zeros((9, 1)))
    assert xs[0][1] == 1


@pytest.mark.parametrize("method", ["train_step", "update_weights"])
def test_tied_weights_take_both_steps(method, dtype, backend):
    rnn, reference = pair(6, 9, 6, backend=backend, dtype=dtype)
    for network in (rnn, reference):
        network.Why = network.Wxh.T
    args = sequence(12, 6, 9, 6, dtype=dtype)
    for network in (rnn, reference):
        if method == "train_step":
            network.train_step(*args, lr=0.1)
        else:
            network.update_weights(network.loss_and_grads(*args)[1], lr=0.1)
    assert np.shares_memory(rnn.Why, rnn.Wxh)
    assert_all_close(parameters(rnn), parameters(reference))


def test_an_unpickled_array_stays_the_users(dtype, backend):
    rnn, _, args = model(backend, dtype)
    mine = pickle.loads(pickle.dumps(np.zeros((9, 4), dtype)))
    rnn.Wxh = mine
    before = rnn.loss_and_grads(*args)[0]
    mine[:] = np.arange(36).reshape(9, 4)
    assert rnn.loss_and_grads(*args)[0] != before
    rnn.train_step(*args)
    assert bits(rnn.Wxh) == bits(mine)


def test_a_call_after_a_failed_allocation_starts_afresh(monkeypatch, backend):
    rnn, reference, args = model(backend)
    empty = np.empty

    def fail_for_probabilities(shape, *rest, **options):
        if shape == (12, 5):
            raise MemoryError("not now")
        return empty(shape, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", fail_for_probabilities)
        with pytest.raises(MemoryError, match="not now"):
            rnn.train_step(*args)
    assert_close(rnn.train_step(*args)[0], reference.train_step(*args)[0])
