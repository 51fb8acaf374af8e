"""The mappings that `forward` returns: they behave as the notes' dicts, over one array each."""

import copy
import pickle
import sys
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from support import assert_all_close, bits, pair, sequence

from fastrnn.steps import OneHotSteps, Steps

T, D, H, Q = 9, 4, 11, 5
reals = pytest.mark.parametrize("real", [False, True], ids=["indices", "vectors"])


def run(backend, real=False, dtype=np.float64):
    rnn, reference = pair(D, H, Q, backend=backend, dtype=dtype)
    inputs, targets, h_prev = sequence(T, D, H, Q, real=real, dtype=dtype)
    return rnn, reference, inputs, targets, h_prev, rnn.forward(inputs, h_prev)


@reals
def test_keys_shapes_and_order(real, dtype, backend):
    _, _, _, _, _, (xs, hs, ps) = run(backend, real, dtype)
    for steps, keys, n in ((xs, range(T), D), (hs, range(-1, T), H), (ps, range(T), Q)):
        assert len(steps) == len(keys)
        assert list(steps) == list(steps.keys()) == list(keys)
        assert all(t in steps for t in keys)
        assert keys[0] - 1 not in steps
        assert T not in steps
        assert all(steps[t].shape == (n, 1) and steps[t].dtype == dtype for t in keys)
        assert [t for t, _ in steps.items()] == list(keys)
        assert all(np.array_equal(v, steps[t]) for t, v in steps.items())
        assert len(list(steps.values())) == len(keys)
        assert steps.array.shape == (len(keys), n)
        assert steps.array.flags.c_contiguous
        assert steps.get(T) is None
        assert steps.get(0) is not None


@pytest.mark.parametrize("key", [T, -2, T + 10**30, "0", None, 0.5, float("nan"), float("inf"), (0,), 1j])
def test_missing_keys(key, backend):
    _, _, _, _, _, (xs, hs, ps) = run(backend)
    for steps in (xs, hs, ps):
        assert key not in steps
        for attempt in (steps.__getitem__, steps.__delitem__, steps.pop):
            with pytest.raises(KeyError):
                attempt(key)
        assert steps.pop(key, "none") == "none"
        assert steps.time_steps is not None  # nothing was changed
    for steps in (xs, ps):
        assert -1 not in steps


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.uint64, float, np.float32])
def test_keys_that_equal_integers(kind, backend):
    """As in a dict: equal keys find the same vector, of whatever type they are."""
    _, _, _, _, _, (xs, hs, ps) = run(backend)
    for steps in (xs, hs, ps):
        assert np.array_equal(steps[kind(3)], steps[3])
        assert kind(0) in steps


def test_odd_keys_are_those_of_a_dict():
    """Also those that equal an integer but are none, and those that cannot be hashed."""
    for edit in (False, True):
        steps = Steps(np.arange(6.0).reshape(3, 2), first=-1)
        plain = dict(steps)
        if edit:
            steps[1] = plain[1] = np.zeros((2, 1))
        for key in (True, False, np.True_, 1 + 0j, Fraction(1), Decimal(-1), np.array(1)[()], -1.0):
            assert key in steps
            assert np.array_equal(steps[key], plain[key])
        for key in ([], {}, np.zeros(2), slice(0, 1, None) if sys.version_info < (3, 12) else []):
            for attempt in (steps.__getitem__, steps.__contains__, steps.__delitem__, steps.pop, steps.get):
                with pytest.raises(TypeError, match="unhashable"):
                    attempt(key)
            with pytest.raises(TypeError, match="unhashable"):
                steps[key] = np.zeros((2, 1))


def test_narrow_keys_do_not_overflow():
    steps = Steps(np.arange(130.0)[:, None], first=-1)
    assert steps[np.int8(127)] == 128
    assert steps[np.uint8(0)] == 1
    assert steps[np.int8(-1)] == 0


@reals
def test_vectors_are_views_on_the_array(real, backend):
    _, _, _, _, _, mappings = run(backend, real)
    for steps in mappings:
        first = next(iter(steps))
        assert steps.array is steps.array
        for t in steps:
            assert np.shares_memory(steps[t], steps.array)
            assert np.array_equal(steps[t][:, 0], steps.array[t - first])
        steps[2][1] = 0.625
        assert steps.array[2 - first, 1] == 0.625
        steps.array[2 - first, 0] = 0.5
        assert steps[2][0, 0] == 0.5


def test_one_hot_vectors(backend):
    _, _, inputs, _, _, (xs, _, _) = run(backend)
    for t in range(T):
        wanted = np.zeros((D, 1))
        wanted[inputs[t]] = 1
        assert np.array_equal(xs[t], wanted)


def test_first_state_is_a_copy(backend):
    rnn, _, inputs, _, h_prev, (_, hs, _) = run(backend)
    assert np.array_equal(hs[-1], h_prev)
    assert not np.shares_memory(hs[-1], h_prev)
    kept = hs[-1].copy()
    h_prev[:] = 9
    assert np.array_equal(hs[-1], kept)
    h = np.full((H, 1), 0.25)
    _, hs, _ = rnn.forward(inputs, h)
    hs[-1][:] = 4
    assert (h == 0.25).all()


@reals
def test_results_of_later_calls_do_not_touch_earlier_ones(real, backend):
    rnn, _, inputs, targets, h_prev, mappings = run(backend, real)
    kept = bits(*(steps.array for steps in mappings))
    rnn.forward(inputs[::-1], h_prev * 2)
    rnn.loss_and_grads(inputs, targets, h_prev)
    rnn.train_step(inputs, targets, h_prev)
    assert bits(*(steps.array for steps in mappings)) == kept


@pytest.mark.parametrize("as_array", [False, True])
def test_inputs_are_kept_as_they_were(as_array, backend):
    """What the caller does to its inputs after forward does not change backward."""
    rnn, _, inputs, targets, h_prev, _ = run(backend, real=True)
    wanted = rnn.backward(*rnn.forward(inputs, h_prev), targets)
    for shaped in (inputs.copy(), inputs.copy()[:, :, None], memoryview(inputs.copy())):
        if not as_array:
            shaped = np.asarray(shaped).tolist()
        steps = rnn.forward(shaped, h_prev)
        if as_array:
            np.asarray(shaped)[...] = 0
        assert_all_close(rnn.backward(*steps, targets), wanted, 0)


@reals
@pytest.mark.parametrize("which", ["xs", "hs", "ps"])
def test_what_is_written_is_what_backward_reads(which, real, dtype, backend):
    rnn, reference, _, targets, _, mappings = run(backend, real, dtype)
    xs, hs, ps = mappings
    before = rnn.backward(xs, hs, ps, targets)
    steps = {"xs": xs, "hs": hs, "ps": ps}[which]
    steps[4][1, 0] = 0.75
    steps[5] = np.linspace(0.1, 0.9, steps.width)[:, None]
    after = rnn.backward(xs, hs, ps, targets)
    assert bits(*after) != bits(*before)
    wanted = reference.backward(*({t: s[t].astype(np.float64) for t in s} for s in mappings), targets)
    assert_all_close(after, wanted)


@reals
@pytest.mark.parametrize("plain", ["xs", "hs", "ps", "xs hs ps"])
def test_plain_dicts_and_mixtures(plain, real, dtype, backend):
    rnn, _, _, targets, _, mappings = run(backend, real, dtype)
    wanted = rnn.backward(*mappings, targets)
    mixed = [
        {t: steps[t] for t in steps} if name in plain.split() else steps
        for name, steps in zip(("xs", "hs", "ps"), mappings, strict=True)
    ]
    assert_all_close(rnn.backward(*mixed, targets), [w.astype(np.float64) for w in wanted])


def test_dicts_of_the_reference(backend):
    """The notes' forward and this backward, on dicts in any order and with more keys than steps."""
    rnn, reference, inputs, targets, h_prev, _ = run(backend)
    xs, hs, ps = reference.forward(inputs, h_prev)
    wanted = reference.backward(xs, hs, ps, targets)
    shuffled = {t: hs[t] for t in [4, -1, *range(8, 4, -1), 0, 1, 2, 3]} | {99: None}
    assert_all_close(rnn.backward(xs, shuffled, ps, targets), wanted)


def test_reference_takes_the_mappings(backend):
    _, reference, _, targets, _, mappings = run(backend)
    dicts = [{t: steps[t] for t in steps} for steps in mappings]
    assert_all_close(reference.backward(*mappings, targets), reference.backward(*dicts, targets), 0)


def test_assignment_checks_the_shape():
    steps = Steps(np.zeros((3, 2)))
    for wrong in (np.ones((2, 2)), np.ones(2), 1.0, [[1.0], [2.0], [3.0]]):
        with pytest.raises(ValueError, match=r"step 1 has shape \(2, 1\), got a value of shape"):
            steps[1] = wrong
    assert not steps.array.any()
    steps[1] = [[3], [4]]
    assert steps.array.tolist() == [[0, 0], [3, 4], [0, 0]]


def test_a_vector_that_was_changed_in_place_is_put_back():
    """``steps[t] -= 1`` assigns the vector to itself: the mapping stays a view of its array."""
    steps = Steps(np.arange(6.0).reshape(3, 2))
    array = steps.array
    steps[1] -= 1
    steps[2] = steps[2]
    steps |= {0: steps[0]}
    assert steps.array is array
    assert array.tolist() == [[0, 1], [1, 2], [4, 5]]


def a_change(rng, width):
    """A random change of a mapping, as a function of the mapping."""
    t, u = (int(k) for k in (rng.integers(-2, T + 2, 2) if rng.random() < 0.3 else rng.integers(0, T, 2)))
    numbers = rng.normal(size=(width, 1))

    def new():
        return numbers.copy()

    def assign_both(m):
        m[t] = m[u] = new()

    def swap(m):
        m[t], m[u] = m[u], m[t]

    def restore(m):
        kept = m[t]
        m[t] = new()
        m[u] = kept

    def change_later(m):
        mine = new()
        m[t] = mine
        mine[0] = 0.75

    def in_place(m):
        m[t][0] = 0.25

    def augmented(m):
        m[t] *= 0.5

    rare = [
        lambda m: m.__delitem__(t), lambda m: m.pop(t), lambda m: m.pop(t, None), lambda m: m.popitem() and None,
        lambda m: m.setdefault(t), lambda m: m.get(t),
    ]  # fmt: skip
    usual = [
        assign_both, swap, restore, change_later, in_place, augmented, lambda m: m.__setitem__(t, new()),
        lambda m: m.update({t: new(), u: new()}), lambda m: m.setdefault(t, new()),
        lambda m: m.update([(t, new())]), lambda m: m.__ior__({t: new()}) and None,
    ]  # fmt: skip
    changes = rare if rng.random() < 0.1 else usual
    return changes[rng.integers(len(changes))]


def outcome(function, *arguments):
    """What a call returns, or the kind of what it raises."""
    try:
        return function(*arguments)
    except (KeyError, TypeError, AttributeError) as error:
        return type(error)


def same(a, b):
    return a.shape == b.shape and np.array_equal(a, b) if isinstance(a, np.ndarray) else a is b


@reals
@pytest.mark.parametrize("seed", range(40))
def test_random_programs_do_what_they_do_to_dicts(seed, real, backend):
    """Each change is made to the mapping and to a dict; then both are read by ``backward``."""
    rng = np.random.default_rng(seed)
    rnn, reference, _, targets, _, mappings = run(backend, real)
    dicts = [{t: v.copy() for t, v in steps.items()} for steps in mappings]
    copies = []
    for _ in range(rng.integers(1, 9)):
        which = int(rng.integers(3))
        steps, plain = mappings[which], dicts[which]
        if rng.random() < 0.2:
            copies.append((steps.copy(), plain.copy()))
        change = a_change(rng, steps.width)
        got, wanted = outcome(change, steps), outcome(change, plain)
        assert same(got, wanted), (got, wanted)
        for mine, theirs in ((steps, plain), *copies):
            assert list(mine) == list(theirs)
            assert list(reversed(mine)) == list(reversed(theirs))
            assert all(same(mine[t], theirs[t]) for t in theirs)
            assert all(same(v, w) for v, w in zip(mine.values(), theirs.values(), strict=True))
    targets = np.resize(targets, len(dicts[0]))
    try:
        wanted = reference.backward(*dicts, targets)
    except (LookupError, TypeError, AttributeError):  # one that is missing, or is None
        with pytest.raises((ValueError, TypeError), match=r"must hold .*(is missing|NoneType)"):
            rnn.backward(*mappings, targets)
    else:
        assert_all_close(rnn.backward(*mappings, targets), wanted)


def test_what_a_dict_can_do():
    steps = Steps(np.arange(6.0).reshape(3, 2), first=-1)
    assert isinstance(steps, Mapping)
    assert bool(steps)
    assert steps.keys() == {-1: 0, 0: 0, 1: 0}.keys()
    assert {-1: 0, 0: 0, 1: 0}.keys() == steps.keys()
    assert steps.keys() != {0: 0}.keys()
    assert steps.keys() & {0, 5} == {0}
    for view, reverse in ((steps, [1, 0, -1]), (steps.keys(), [1, 0, -1])):
        assert list(reversed(view)) == reverse
    assert [v[0, 0] for v in reversed(steps.values())] == [4, 2, 0]
    assert [(t, v[0, 0]) for t, v in reversed(steps.items())] == [(1, 4), (0, 2), (-1, 0)]
    for plain in (dict(steps), {**steps}, dict(steps.items()), steps | {}, {} | steps):
        assert type(plain) is dict
        assert list(plain) == [-1, 0, 1]
        assert all(np.shares_memory(plain[t], steps.array) for t in plain)
    more = np.ones((2, 1))
    assert (steps | {0: more, 7: more})[0] is more
    assert ({0: more, 7: more} | steps)[0] is not more
    assert list({7: more} | steps) == [7, -1, 0, 1]
    assert list(steps | {7: more}) == [-1, 0, 1, 7]
    with pytest.raises(TypeError):
        steps | [(0, more)]
    with pytest.raises(TypeError):
        hash(steps)
    plain = {7: more}
    plain |= steps
    assert list(plain) == [7, -1, 0, 1]
    other = steps
    other |= [(7, more)]
    assert other is steps
    assert list(steps) == [-1, 0, 1, 7]
    steps["note"] = "mine"
    steps["note"] = ["another"]
    assert steps.popitem() == ("note", ["another"])
    steps.clear()
    assert not steps
    assert list(steps) == []
    with pytest.raises(KeyError):
        steps.popitem()
    assert {}.keys() == steps.keys()
    assert steps == {}
    steps.update({2: more}, note=3)
    assert list(steps) == [2, "note"]


def test_equality_is_that_of_dicts(backend):
    _, _, inputs, _, h_prev, (xs, hs, ps) = run(backend)
    for steps in (xs, hs, ps):
        plain = dict(steps)
        assert steps == steps
        assert steps == steps.copy() == plain == steps
        assert steps != {}
        assert steps != {t: v for t, v in plain.items() if t != 2}
        assert steps != [*plain]
        assert steps != None  # noqa: E711
        with pytest.raises(ValueError, match="truth value"):  # as of two dicts of arrays
            steps == {t: v.copy() for t, v in plain.items()}  # noqa: B015
        steps[2] = plain[2].copy()
        with pytest.raises(ValueError, match="truth value"):
            steps == plain  # noqa: B015
        del steps[2], plain[2]
        assert steps == plain
    numbers = Steps(np.arange(3.0)[:, None])
    assert numbers == {0: np.array([[0.0]]), 1: 1.0, 2: 2}
    assert numbers != {0: 0, 1: 1, 2: 3}


def test_a_copy_holds_the_same_vectors(backend):
    """What is written into a vector is seen in both; what is assigned to a key is not."""
    _, _, _, _, _, mappings = run(backend)
    for steps in mappings:
        for duplicate in (lambda s: s.copy(), copy.copy):
            other = duplicate(steps)
            other[2][1] = 0.125
            assert steps[2][1] == 0.125
            kept = steps[3].copy()
            other[3] = np.full((steps.width, 1), 7.0)
            del other[4]
            other[T + 5] = 1
            assert np.array_equal(steps[3], kept)
            assert list(steps) == list(steps.time_steps)
            again = duplicate(other)
            del again[2]
            assert list(other) == [t for t in steps if t != 4] + [T + 5]
            other[5][0] = 0.375
            assert again[5][0] == steps[5][0] == 0.375


def test_the_array_of_an_edited_mapping():
    """It is a copy that may not be written to, as what is written would be lost."""
    steps = Steps(np.arange(6.0, dtype=np.float32).reshape(3, 2), first=-1)
    array = steps.array
    steps[0] = [[7], [8]]
    assert array.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert steps.array.tolist() == [[0, 1], [7, 8], [4, 5]]
    assert steps.array.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        steps.array[0] = 1
    steps[1][1] = 9  # the other vectors are what they were
    assert array[2, 1] == steps.array[2, 1] == 9
    vector = steps.pop(-1)
    with pytest.raises(ValueError, match=r"array of time steps -1 to 0 only, and not of <Steps: 2 keys"):
        steps.array  # noqa: B018
    steps[-1] = vector  # in another order
    assert list(steps) == [0, 1, -1]
    assert steps.array.tolist() == [[0, 1], [7, 8], [4, 9]]
    steps[2] = None
    with pytest.raises(ValueError, match=r"step 2 has shape \(2, 1\), got a value of shape \(\)"):
        steps.array  # noqa: B018


def test_the_last_steps_may_be_taken_out(backend, dtype):
    """The notes' loop runs over ``len(xs)`` steps, and reads those of the other mappings."""
    rnn, reference, _, targets, _, mappings = run(backend, dtype=dtype)
    xs, hs, ps = mappings
    del xs[T - 1]
    dicts = [{t: v.astype(np.float64) for t, v in steps.items()} for steps in mappings]
    assert_all_close(rnn.backward(xs, hs, ps, targets[:-1]), reference.backward(*dicts, targets[:-1]))
    assert_all_close(rnn.backward(dicts[0], hs, ps, targets[:-1]), reference.backward(*dicts, targets[:-1]))
    with pytest.raises(ValueError, match=f"length {T - 1}"):
        rnn.backward(xs, hs, ps, targets)


def test_what_is_missing_is_named(backend):
    for name, t in (("xs", 0), ("hs", -1), ("hs", 4), ("ps", T - 1)):
        rnn, _, _, targets, _, mappings = run(backend)
        steps = dict(zip(("xs", "hs", "ps"), mappings, strict=True))
        del steps[name][t]
        targets = targets[: len(steps["xs"])]
        with pytest.raises(ValueError, match=rf"{name} must hold time steps -?\d to \d, {t} is missing"):
            rnn.backward(**steps, targets=targets)
    rnn, _, _, targets, _, (xs, hs, ps) = run(backend)
    xs[T] = xs[0]
    with pytest.raises(ValueError, match=f"hs must hold time steps -1 to {T}, {T} is missing"):
        rnn.backward(xs, hs, ps, [*targets, 0])
    hs[T], ps[T] = hs[0], ps[0]
    rnn.backward(xs, hs, ps, [*targets, 0])
    ps[2] = np.zeros((Q, 1), complex)
    with pytest.raises(TypeError, match=r"ps\[2\] must hold real numbers"):
        rnn.backward(xs, hs, ps, [*targets, 0])
    xs.clear()
    with pytest.raises(ValueError, match="xs must hold at least one time step"):
        rnn.backward(xs, hs, ps, [])


def test_repr():
    steps = Steps(np.zeros((3, 2)), -1)
    assert repr(steps) == "<Steps: time steps -1..1, vectors (2, 1)>"
    steps[0] = np.ones((2, 1))
    assert repr(steps) == "<Steps: time steps -1..1, vectors (2, 1)>"
    del steps[0]
    assert repr(steps) == "<Steps: 2 keys, vectors (2, 1)>"
    one_hot = OneHotSteps(np.array([0, 1]), 5, np.dtype(np.float64))
    assert repr(one_hot) == "<OneHotSteps: time steps 0..1, vectors (5, 1)>"
    assert one_hot.indices is not None  # looking at it did not make the array


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize("edited", [False, True])
def test_copies(duplicate, edited, backend):
    rnn, _, _, targets, _, mappings = run(backend)
    if edited:
        for steps in mappings:
            steps[2], steps[3] = steps[3], steps[2]
            steps["note"] = [1]
            del steps["note"]
            steps[T + 3] = None
        del mappings[0][T + 3]
    wanted = rnn.backward(*mappings, targets)
    copies = [*map(duplicate, mappings)]
    assert [list(c) for c in copies] == [list(steps) for steps in mappings]
    assert_all_close(rnn.backward(*copies, targets), wanted, 0)
    for looked in copies:
        looked[0][0] = 9
    again = [*map(duplicate, copies)]
    assert all(c[0][0] == 9 for c in again)
    assert_all_close(rnn.backward(*again, targets), rnn.backward(*copies, targets), 0)


@pytest.mark.parametrize("tampered", [[99] * T, [-99] * T, [2**62] * T, [0] * (T - 1), [], [0.5] * T, None])
def test_tampered_indices_never_reach_the_kernels(tampered, backend):
    """`indices` is open to whoever holds the mapping; what is written there is checked."""
    rnn, _, _, targets, _, (xs, hs, ps) = run(backend)
    before = bits(*(getattr(rnn, n) for n in ("Wxh", "Whh", "Why", "bh", "by")))
    xs.indices = None if tampered is None else np.array(tampered)
    with pytest.raises((IndexError, ValueError, TypeError)):
        rnn.backward(xs, hs, ps, targets)
    assert bits(*(getattr(rnn, n) for n in ("Wxh", "Whh", "Why", "bh", "by"))) == before


def test_indices_written_in_place_are_read(backend):
    rnn, _, inputs, targets, h_prev, (xs, hs, ps) = run(backend)
    xs.indices[:] = 2
    wanted = rnn.backward({t: np.eye(D)[:, [2]] for t in range(T)}, hs, ps, targets)
    assert_all_close(rnn.backward(xs, hs, ps, targets), wanted)
