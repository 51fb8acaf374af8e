"""The mappings that `forward` returns: they behave as the notes' dicts, over one array each."""

import copy
import pickle

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
        with pytest.raises(KeyError):
            steps[key]
        with pytest.raises(KeyError):
            steps[key] = np.zeros((steps.width, 1))
    for steps in (xs, ps):
        assert -1 not in steps


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.uint64, float, np.float32])
def test_keys_that_equal_integers(kind, backend):
    """As in a dict: equal keys find the same vector, of whatever type they are."""
    _, _, _, _, _, (xs, hs, ps) = run(backend)
    for steps in (xs, hs, ps):
        assert np.array_equal(steps[kind(3)], steps[3])
        assert kind(0) in steps


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


def test_steps_cannot_be_deleted():
    steps = Steps(np.ones((3, 2)))
    for attempt in (lambda: steps.pop(0), steps.popitem, steps.clear, lambda: steps.__delitem__(0)):
        with pytest.raises(TypeError, match="cannot be deleted"):
            attempt()
    assert len(steps) == 3


def test_repr():
    assert repr(Steps(np.zeros((3, 2)), -1)) == "<Steps: time steps -1..1, vectors (2, 1)>"
    one_hot = OneHotSteps(np.array([0, 1]), 5, np.dtype(np.float64))
    assert repr(one_hot) == "<OneHotSteps: time steps 0..1, vectors (5, 1)>"
    assert one_hot.indices is not None  # looking at it did not make the array


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies(duplicate, backend):
    rnn, _, _, targets, _, mappings = run(backend)
    wanted = rnn.backward(*mappings, targets)
    assert_all_close(rnn.backward(*map(duplicate, mappings), targets), wanted, 0)


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
