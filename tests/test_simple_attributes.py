"""`SimpleRNN` is a class as the notes' own: its weights and sizes are instance attributes, which people save,
copy, regularise and subclass."""

import copy
import inspect
import io
import pickle

import numpy as np
import pytest
from support import PARAMETERS, assert_all_close, assert_close, bits, pair, parameters, sequence

import fastrnn
from fastrnn import ReferenceRNN, SimpleRNN

SIZES = {"input_size": 4, "hidden_size": 9, "output_size": 5}
SHAPES = {"Wxh": (9, 4), "Whh": (9, 9), "Why": (5, 9), "bh": (9, 1), "by": (5, 1)}
names = pytest.mark.parametrize("name", PARAMETERS)


def update(rnn, args):
    d, h, q = (getattr(rnn, name, 1) for name in SIZES)
    rnn.update_weights([np.full(shape, 0.5) for shape in ((h, d), (h, h), (q, h), (h, 1), (q, 1))])
    return rnn.by


CALLS = {
    "forward": lambda rnn, args: rnn.forward(args[0], args[2])[2].array,
    "loss_and_grads": lambda rnn, args: rnn.loss_and_grads(*args)[1][0],
    "train_step": lambda rnn, args: rnn.train_step(*args)[1],
    "sample": lambda rnn, args: np.array(rnn.sample(args[2], 0, 5, rng=0)),
    "update_weights": update,
}


def model(backend, dtype=np.float64):
    rnn, reference = pair(4, 9, 5, backend=backend, dtype=dtype)
    return rnn, reference, sequence(12, 4, 9, 5, dtype=dtype)


def square(backend, cls, *, dtype=np.float64):
    """Models of a subclass whose output can be fed back, and arguments for them."""
    return cls(5, 9, 5, backend=backend, dtype=dtype), sequence(12, 5, 9, 5, dtype=dtype)


# -- what vars holds -------------------------------------------------------------------------------


def test_vars_are_those_of_the_notes_class(dtype, backend):
    rnn, reference, args = model(backend, dtype)
    for call in (*CALLS.values(), lambda rnn, args: repr(rnn), lambda rnn, args: rnn.num_parameters):
        if call is not CALLS["sample"]:
            call(rnn, args)
        assert list(vars(rnn)) == [*SIZES, *PARAMETERS] == list(vars(reference))
    assert {name: vars(rnn)[name] for name in SIZES} == SIZES
    assert all(vars(rnn)[name] is getattr(rnn, name) for name in PARAMETERS)
    assert sum(v.size for v in vars(rnn).values() if isinstance(v, np.ndarray)) == rnn.num_parameters
    rnn.note = "mine"
    assert list(vars(rnn)) == [*SIZES, *PARAMETERS, "note"]
    del rnn.note
    assert not hasattr(rnn, "note")
    assert str(inspect.signature(SimpleRNN)).startswith("(input_size: 'int', hidden_size: 'int', output_size")


def test_regularised_by_vars(backend):
    rnn, reference, args = model(backend)
    for network in (rnn, reference):
        network.train_step(*args)
        for name, W in vars(network).items():
            if isinstance(W, np.ndarray) and name.startswith("W"):
                W -= 0.1 * W
        network.train_step(*args)
    assert_all_close(parameters(rnn), parameters(reference))


def test_saved_and_loaded_by_vars(dtype, backend):
    rnn, _, args = model(backend, dtype)
    file = io.BytesIO()
    np.savez(file, **vars(rnn))
    file.seek(0)
    saved = np.load(file)
    assert sorted(saved) == sorted([*SIZES, *PARAMETERS])
    wanted = bits(*rnn.loss_and_grads(*args)[1])
    one, two, three = (SimpleRNN(4, 9, 5, dtype=dtype, backend=backend) for _ in range(3))
    for name in saved:
        setattr(one, name, saved[name])
    vars(two).update(saved)
    three.__dict__ = dict(saved)
    bare = SimpleRNN.__new__(SimpleRNN)
    vars(bare).update(saved)
    for other in (one, two, three, bare):
        with fastrnn.use_backend(backend):
            assert bits(*other.loss_and_grads(*args)[1]) == wanted
        assert (other.dtype, other.num_parameters) == (dtype, rnn.num_parameters)
        other.train_step(*args)
        assert bits(*parameters(other)) != bits(*parameters(rnn))
    assert all(type(vars(one)[name]) is int for name in SIZES)


# -- what is put into vars --------------------------------------------------------------------------


@names
@pytest.mark.parametrize("call", CALLS)
def test_what_is_put_into_vars_is_seen(call, name, dtype, backend):
    (rnn, args), (other, _) = (square(backend, SimpleRNN, dtype=dtype) for _ in range(2))
    shape = getattr(rnn, name).shape
    for network in (rnn, other):
        for known in PARAMETERS:
            setattr(network, known, np.full(getattr(rnn, known).shape, 0.25))
    call = CALLS[call]
    call(rnn, args), call(other, args)
    W = (np.random.default_rng(3).normal(size=shape) * 0.3).astype(dtype)
    for value in (W.copy(), W.tolist(), W.astype(np.longdouble), np.ma.asarray(W)):
        vars(rnn)[name] = value
        setattr(other, name, W.copy())
        assert bits(call(rnn, args)) == bits(call(other, args))
        assert type(getattr(rnn, name)) is np.ndarray
        assert getattr(rnn, name).dtype == dtype
        assert bits(*parameters(rnn)) == bits(*parameters(other))


@names
def test_an_array_put_into_vars_stays_the_users(name, backend):
    rnn, reference, args = model(backend)
    mine = getattr(rnn, name).copy()
    rnn.__dict__[name] = mine
    rnn.train_step(*args)
    reference.train_step(*args)
    assert getattr(rnn, name) is mine
    assert_all_close(parameters(rnn), parameters(reference))
    mine[:] = 0
    assert rnn.loss_and_grads(*args)[0] != reference.loss_and_grads(*args)[0]


JUNK = {
    "transposed": lambda s: np.zeros((s[1], s[0] + 1)),
    "flat": lambda s: np.zeros(s[0] * s[1]),
    "a number": lambda s: 1.0,
    "none": lambda s: None,
    "a string": lambda s: "weights",
    "complex": lambda s: np.zeros(s, complex),
    "objects": lambda s: np.zeros(s, object),
}


@names
@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("call", CALLS)
def test_junk_in_vars_never_reaches_a_kernel(call, junk, name, backend):
    rnn, args = square(backend, SimpleRNN)
    good = getattr(rnn, name)
    before = bits(*parameters(rnn))
    vars(rnn)[name] = JUNK[junk](good.shape)
    for _ in range(2):
        with pytest.raises((ValueError, TypeError), match=f"^{name} must"):
            CALLS[call](rnn, args)
    vars(rnn)[name] = good
    assert bits(*parameters(rnn)) == before
    rnn.train_step(*args)


@names
def test_a_deleted_weight_is_missing(name, backend):
    rnn, _, args = model(backend)
    W = getattr(rnn, name)
    delattr(rnn, name)
    with pytest.raises(AttributeError, match=name):
        rnn.train_step(*args)
    setattr(rnn, name, W)
    rnn.train_step(*args)
    vars(rnn).clear()
    with pytest.raises(AttributeError, match="Wxh"):
        rnn.forward(args[0], args[2])


@names
def test_a_column_of_one_element_is_told_from_an_equal_one(name, backend):
    """Arrays are known by what they are, not by what they hold."""
    rnn = SimpleRNN(1, 1, 1, rng=0, backend=backend)
    args = ([0, 0], [0, 0], np.ones((1, 1)))
    rnn.forward(args[0], args[2])
    twin = vars(rnn)[name] = getattr(rnn, name).copy()
    rnn.forward(args[0], args[2])
    twin += 2.0
    other = SimpleRNN(1, 1, 1, rng=0, backend=backend)
    setattr(other, name, twin.copy())
    assert bits(*other.loss_and_grads(*args)[1]) == bits(*rnn.loss_and_grads(*args)[1])


# -- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_sizes_may_be_assigned_their_own_value(name, backend):
    rnn, _, args = model(backend)
    wanted = rnn.loss_and_grads(*args)[0]
    for value in (SIZES[name], np.int32(SIZES[name]), np.array(SIZES[name])):
        setattr(rnn, name, value)
        assert type(getattr(rnn, name)) is int
        assert getattr(rnn, name) == SIZES[name]
    for bad, error, words in [
        (SIZES[name] + 1, ValueError, f"{name} is {SIZES[name]} and stays so, .* got {SIZES[name] + 1}"),
        (0, ValueError, f"{name} must be at least 1, got 0"),
        (float(SIZES[name]), TypeError, f"{name} must be an integer"),
        (None, TypeError, f"{name} must be an integer"),
        (True, TypeError, f"{name} must be an integer"),
    ]:
        with pytest.raises(error, match=words):
            setattr(rnn, name, bad)
        assert getattr(rnn, name) == SIZES[name]
    assert rnn.loss_and_grads(*args)[0] == wanted


def test_the_vars_of_a_model_of_other_sizes(backend):
    rnn, _, args = model(backend)
    before = dict(vars(rnn))
    vars(rnn).update(vars(SimpleRNN(4, 10, 5)))
    with pytest.raises(ValueError, match="hidden_size is 9 and stays so"):
        rnn.train_step(*args)
    vars(rnn)["hidden_size"] = 9
    with pytest.raises(ValueError, match=r"Wxh must have shape \(9, 4\), got \(10, 4\)"):
        rnn.train_step(*args)
    vars(rnn).update(before)
    rnn.train_step(*args)


def test_a_model_may_be_made_anew(backend):
    rnn, _, _ = model(backend)
    rnn.mine = 1
    rnn.__init__(3, 7, 3, dtype=np.float32, rng=0, backend=backend)
    other = SimpleRNN(3, 7, 3, dtype=np.float32, rng=0, backend=backend)
    assert bits(*parameters(rnn)) == bits(*parameters(other))
    assert rnn.train_step([0], [1], np.zeros((7, 1)))[0] == other.train_step([0], [1], np.zeros((7, 1)))[0]
    assert (rnn.hidden_size, rnn.mine) == (7, 1)


# -- subclasses ---------------------------------------------------------------------------------------


class Before(SimpleRNN):
    def __init__(self, input_size, hidden_size, output_size, **options):
        self.hidden_size = hidden_size
        self.Whh = None
        self.history = []
        super().__init__(input_size, hidden_size, output_size, **options)


class After(SimpleRNN):
    def __init__(self, input_size, hidden_size, output_size, **options):
        super().__init__(input_size, hidden_size, output_size, **options)
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, output_size
        self.Whh = np.eye(hidden_size) * 0.5
        self.history = [np.zeros(3)]


class Own(SimpleRNN):
    """As the notes print ``__init__``, with another draw; the base class's is not called."""

    def __init__(self, input_size, hidden_size, output_size, dtype=np.float64, **options):
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = output_size
        draw = np.random.default_rng(0).normal
        self.Wxh = draw(size=(hidden_size, input_size)).astype(dtype) * 0.1
        self.Whh = draw(size=(hidden_size, hidden_size)).astype(dtype) * 0.1
        self.Why = draw(size=(output_size, hidden_size)).astype(dtype) * 0.1
        self.bh = np.zeros((hidden_size, 1), dtype)
        self.by = np.zeros((output_size, 1), dtype)
        self.history = []


class Masked(SimpleRNN):
    """A weight that is computed of another one, and written through to it."""

    def __init__(self, *sizes, **options):
        self.mask = np.tri(sizes[1])
        super().__init__(*sizes, **options)

    @property
    def Whh(self):
        return self.raw * self.mask

    @Whh.setter
    def Whh(self, value):
        self.raw = value * self.mask


class MaskedReference(ReferenceRNN):
    Whh = Masked.Whh

    def __init__(self, *sizes):
        self.mask = np.tri(sizes[1])
        super().__init__(*sizes)


def reference_of(rnn):
    reference = ReferenceRNN(rnn.input_size, rnn.hidden_size, rnn.output_size, rng=0)
    for name in PARAMETERS:
        setattr(reference, name, getattr(rnn, name).astype(np.float64))
    return reference


@pytest.mark.parametrize("cls", [Before, After, Own])
def test_subclasses_set_attributes_before_and_after(cls, dtype, backend):
    rnn, args = square(backend, cls, dtype=dtype)
    reference = reference_of(rnn)
    for name in ("forward", "loss_and_grads", "sample"):
        assert_close(CALLS[name](rnn, args), of_reference(name, reference, args), 1e-4)
    for _ in range(3):
        rnn.train_step(*args)
        reference.train_step(*args)
    assert_all_close(parameters(rnn), parameters(reference), 1e-12 if dtype == np.float64 else 1e-4)
    assert (rnn.dtype, rnn.num_parameters, rnn.hidden_size) == (dtype, reference.num_parameters, 9)
    assert "SimpleRNN(5, 9, 5" in repr(rnn)
    with pytest.raises(ValueError, match="hidden_size is 9 and stays so"):
        rnn.hidden_size = 10
    with pytest.raises(ValueError, match="Whh must have shape"):
        rnn.Whh = np.zeros((3, 3))


def of_reference(name, reference, args):
    if name == "forward":
        _, _, ps = reference.forward(args[0], args[2])
        return np.hstack([ps[t] for t in range(12)]).T
    if name == "sample":
        return np.array(reference.sample(args[2], 0, 5, rng=np.random.default_rng(0)))
    return reference.loss_and_grads(*args)[1][0]


def test_a_class_with_an_init_of_its_own_says_what_is_missing(backend):
    rnn = Own.__new__(Own)
    assert "Own object" in repr(rnn)
    rnn.Wxh = np.zeros((9, 5))
    rnn.by = np.zeros((5, 1))
    for call in (*CALLS, "num_parameters", "dtype"):
        with pytest.raises(AttributeError, match=r"has no Whh, Why, bh yet: call super\(\).__init__"):
            getattr(rnn, call) if call in ("num_parameters", "dtype") else CALLS[call](rnn, [[0], [0], 0])
    rnn.Whh, rnn.Why, rnn.bh = np.zeros((9, 9)), np.zeros((5, 8)), np.zeros((9, 1))
    args = ([0, 1], [1, 2], np.zeros((9, 1)))
    with pytest.raises(ValueError, match=r"Why must have shape \(5, 9\), got \(5, 8\)"):
        rnn.train_step(*args)
    rnn.Why = np.zeros(5)
    with pytest.raises(ValueError, match=r"Why must be a matrix, got shape \(5,\)"):
        rnn.train_step(*args)
    rnn.Why = [[0.5] * 9] * 5
    for junk in (None, "x", np.zeros((9, 9), complex)):
        rnn.Whh = junk
        with pytest.raises(TypeError, match="Whh must hold real numbers"):
            rnn.train_step(*args)
    rnn.Whh = np.zeros((9, 9))
    rnn.train_step(*args)
    assert (rnn.input_size, rnn.hidden_size, rnn.output_size) == (5, 9, 5)


@pytest.mark.parametrize("update", ["train_step", "update_weights"])
def test_a_weight_that_a_subclass_computes(update, dtype, backend):
    rnn, args = square(backend, Masked, dtype=dtype)
    reference = MaskedReference(5, 9, 5)
    for name in PARAMETERS:
        setattr(reference, name, getattr(rnn, name).astype(np.float64))
    for _ in range(3):
        for network in (rnn, reference):
            if update == "train_step":
                network.train_step(*args, 0.5)
            else:
                network.update_weights(network.backward(*network.forward(args[0], args[2]), args[1]), 0.5)
    assert_all_close(parameters(rnn), parameters(reference), 1e-12 if dtype == np.float64 else 1e-4)
    assert ((rnn.Whh != 0) == (np.tri(9) != 0)).all()
    assert "Whh" not in vars(rnn)


# -- copies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [SimpleRNN, Before, After, Own, Masked])
@pytest.mark.parametrize("way", ["copy", "deepcopy", *range(2, 6)])
def test_copies_of_subclasses(way, cls, dtype, backend):
    rnn, args = square(backend, cls, dtype=dtype)
    rnn.train_step(*args)
    rnn.history = [np.ones(2)]
    rnn.history.append(rnn.history)
    if way == "copy":
        other = copy.copy(rnn)
    elif way == "deepcopy":
        other = copy.deepcopy(rnn)
    else:
        other = pickle.loads(pickle.dumps(rnn, way))
    assert type(other) is cls
    assert list(vars(other)) == list(vars(rnn))
    assert (other.dtype, repr(other)) == (rnn.dtype, repr(rnn))
    assert bits(*parameters(other)) == bits(*parameters(rnn))
    assert other.history[1] is other.history
    assert (other.history is rnn.history) == (way == "copy")
    assert np.shares_memory(other.Wxh, rnn.Wxh) == (way == "copy")
    if way != "copy":
        wanted = rnn.train_step(*args)
        got = other.train_step(*args)
        assert got[0] == wanted[0]
        assert bits(*parameters(other)) == bits(*parameters(rnn))
    with pytest.raises(ValueError, match="Wxh must have shape"):
        other.Wxh = np.zeros((2, 2))


class Stateful(SimpleRNN):
    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "cache"}


def test_a_subclass_with_a_state_of_its_own(dtype, backend):
    rnn, args = square(backend, Stateful, dtype=dtype)
    rnn.cache = 1
    other = pickle.loads(pickle.dumps(rnn))
    assert not hasattr(other, "cache")
    assert other.dtype == dtype
    assert_all_close(
        other.loss_and_grads(*args)[1], rnn.loss_and_grads(*args)[1], 1e-12 if dtype == np.float64 else 1e-4
    )
