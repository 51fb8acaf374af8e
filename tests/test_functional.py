"""The functions for people who bring their own loop: against scalar loops and central differences."""

import math
from functools import partial

import numpy as np
import oracle
import pytest
from functional_support import Layer, batch, gradients, normal
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from support import TOLERANCE, assert_close, bits, central_differences, run_python, stream_state

import fastrnn
from fastrnn import functional as F

SHAPES = [(5,), (1,), (3, 7), (4, 1), (2, 3, 9), (1, 17, 2), (2, 2, 2, 33)]


# ---- softmax ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_softmax(shape, dtype):
    for axis in range(-len(shape), len(shape)):
        x = normal(shape, dtype)
        before = bits(x)
        p, logs = F.softmax(x, axis), F.log_softmax(x, axis)
        assert bits(x) == before
        assert p.dtype == logs.dtype == dtype
        rows = np.moveaxis(x, axis, -1).reshape(-1, shape[axis])
        wanted = np.array([oracle.softmax(row.tolist()) for row in rows])
        got = np.moveaxis(p, axis, -1).reshape(wanted.shape)
        assert_close(got, wanted)
        got = np.moveaxis(logs, axis, -1).reshape(wanted.shape)
        if shape[axis] > 1:
            assert_close(got, np.log(wanted))
        else:
            assert (got == 0).all()


def test_softmax_takes_large_and_missing_logits(dtype):
    x = np.array([[1e30, 0, -1e30], [-np.inf, 0, 0], [700, 700, 700 - 1000]], dtype)
    assert F.softmax(x).tolist() == [[1, 0, 0], [0, 0.5, 0.5], [0.5, 0.5, 0]]
    logs = F.log_softmax(x)
    assert logs[0, 0] == 0
    assert logs[0, 1] == dtype(-1e30)
    assert logs[1, 0] == -np.inf
    assert logs[2, 2] == pytest.approx(-1000 - math.log(2), rel=1e-6)


@pytest.mark.parametrize("function", [F.softmax, F.log_softmax])
def test_softmax_of_no_numbers(function, dtype):
    x = np.array([[0, math.nan, 1], [math.inf, 0, 0], [-math.inf] * 3, [1, 2, 3]], dtype)
    got = function(x)
    assert np.isnan(got[:3]).any(axis=1).all()
    assert np.isfinite(got[3]).all()


def test_softmax_dtypes():
    for x, wanted in [
        ([1, 2], np.float64), (np.array([1, 2], np.int8), np.float64), (np.ones(2, np.float16), np.float64),
        (np.ones(2, ">f4"), np.float32), (np.ones(2, np.float32)[::-1], np.float32), (np.ones(2, "g"), np.float64),
    ]:  # fmt: skip
        assert F.softmax(x).dtype == wanted
        assert F.softmax(x).dtype.isnative
    assert F.softmax(np.empty((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("function", [F.softmax, F.log_softmax])
@pytest.mark.parametrize(
    ("x", "axis", "error", "match"),
    [
        ("logits", -1, TypeError, "x must hold real numbers, got str"),
        ([True, False], -1, TypeError, "x must hold real numbers, got list of dtype bool"),
        ([1j], -1, TypeError, "x must hold real numbers.*complex128"),
        ([[1.0], [1.0, 2.0]], -1, ValueError, "x cannot be made an array"),
        (3.0, -1, ValueError, "x must have at least one dimension"),
        ([1.0], 1, ValueError, r"axis must be in \[-1, 1\), got 1 for x of shape \(1,\)"),
        ([1.0], -2, ValueError, r"axis must be in \[-1, 1\), got -2"),
        ([1.0], 0.0, TypeError, "axis must be an integer, got float"),
        ([1.0], True, TypeError, "axis must be an integer, got bool"),
        ([1.0], None, TypeError, "axis must be an integer, got NoneType"),
        ([], -1, ValueError, r"x must hold at least one class along axis -1, got shape \(0,\)"),
        (np.empty((3, 0)), 1, ValueError, r"x must hold at least one class along axis 1"),
    ],
)
def test_softmax_refuses(function, x, axis, error, match):
    refused(partial(function, x, axis), error, match=match, x=x)


# ---- cross-entropy ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy(shape, dtype):
    logits, targets = batch(shape, dtype)
    before = bits(logits, targets)
    rows = logits.reshape(-1, shape[-1])
    nats = [
        -math.log(oracle.softmax(row.tolist())[t]) for row, t in zip(rows, targets.reshape(-1), strict=True)
    ]
    each = F.cross_entropy(logits, targets, "none")
    assert each.dtype == dtype
    assert each.shape == shape[:-1]
    tolerance = TOLERANCE[np.dtype(dtype)]
    assert np.allclose(each.reshape(-1), nats, rtol=tolerance, atol=10 * tolerance)
    total = F.cross_entropy(logits, targets, "sum")
    assert type(total) is float
    assert total == pytest.approx(math.fsum(nats), rel=tolerance, abs=10 * tolerance)
    mean = F.cross_entropy(logits, targets)
    assert mean == F.cross_entropy(logits, targets, "mean") == pytest.approx(total / len(nats), rel=1e-12)
    assert bits(logits, targets) == before


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 4)])
def test_cross_entropy_backward_by_central_differences(shape, reduction):
    logits, targets = batch(shape, np.float64, 3)
    weight = normal(shape[:-1], seed=4) if reduction == "none" else 1.7

    def goal():
        return np.sum(weight * F.cross_entropy(logits, targets, reduction))

    got = F.cross_entropy_backward(logits, targets, reduction, grad_output=weight)
    assert_close(got, central_differences(goal, logits), 1e-8)


def test_cross_entropy_of_certain_and_impossible_targets(dtype):
    logits = np.array([[1000, -1000], [0, -np.inf]], dtype)
    assert F.cross_entropy(logits, [0, 0], "none").tolist() == [0, 0]
    assert math.copysign(1, F.cross_entropy(logits, [0, 0])) == 1
    assert F.cross_entropy(logits, [1, 1], "none").tolist() == [2000, math.inf]
    assert F.cross_entropy(logits, [1, 1]) == math.inf
    assert math.isnan(F.cross_entropy(np.array([[0, math.nan]], dtype), [0]))
    gradient = F.cross_entropy_backward(np.array([[0, math.nan], [1, 1]], dtype), [0, 0], "sum")
    assert np.isnan(gradient[0]).all()
    assert gradient[1].tolist() == [-0.5, 0.5]


def test_mean_of_many_is_summed_in_float64():
    """A running sum of a million float32 numbers of 2.3 would be wrong in the fourth digit."""
    logits = np.zeros((1_000_000, 10), np.float32)
    targets = np.zeros(1_000_000, int)
    assert F.cross_entropy(logits, targets) == pytest.approx(math.log(10), rel=1e-7)
    assert F.cross_entropy(logits, targets, "sum") == pytest.approx(1e6 * math.log(10), rel=1e-7)


def test_cross_entropy_of_no_rows():
    logits, targets = np.empty((0, 3)), np.empty(0, int)
    for reduction in ("mean", "sum"):
        assert F.cross_entropy(logits, targets, reduction) == 0
        assert F.cross_entropy(logits, [], reduction) == 0
        assert F.cross_entropy_backward(logits, targets, reduction).shape == (0, 3)
    assert F.cross_entropy(logits, targets, "none").shape == (0,)


HALF = math.log(2)  # the loss of one of two equal logits


@pytest.mark.parametrize(
    ("targets", "options", "none", "mean"),
    [
        ([0, -100, 1], {}, [HALF, 0, HALF], HALF),
        ([0, 1, 0], {"ignore_index": 0}, [0, HALF, 0], HALF),
        ([1, 5, -7], {"ignore_index": 5}, IndexError, None),
        ([0, 255, 1], {"ignore_index": 255}, [HALF, 0, HALF], HALF),
        ([0, 1, 1], {"weight": [1, 3]}, [HALF, 3 * HALF, 3 * HALF], HALF),
        ([0, 0, 1], {"weight": [0, 2]}, [0, 0, 2 * HALF], HALF),
        ([0, 0, 0], {"weight": [0, 2]}, [0, 0, 0], 0),
        ([-100] * 3, {}, [0, 0, 0], 0),
        ([-100] * 3, {"weight": [1, 2], "label_smoothing": 0.5}, [0, 0, 0], 0),
        # A row's own target weighs half, and each class a quarter.
        ([0, 1, -100], {"weight": [1, 3], "label_smoothing": 0.5}, [1.5 * HALF, 2.5 * HALF, 0], HALF),
    ],
)
def test_cross_entropy_by_hand(targets, options, none, mean, dtype):
    logits = np.full((3, 2), 7, dtype)
    if none is IndexError:
        with pytest.raises(IndexError, match=r"targets\[2\] is -7, outside \[0, 2\); 5 marks"):
            F.cross_entropy(logits, targets, **options)
        return
    assert F.cross_entropy(logits, targets, "none", **options) == pytest.approx(none, rel=1e-6)
    assert F.cross_entropy(logits, targets, "sum", **options) == pytest.approx(sum(none), rel=1e-6)
    assert F.cross_entropy(logits, targets, **options) == pytest.approx(mean, rel=1e-6)
    assert type(F.cross_entropy(logits, targets, **options)) is float
    gradient = F.cross_entropy_backward(logits, targets, **options)
    assert gradient.dtype == dtype
    assert gradient.any() == (mean > 0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignore_index", [-100, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_of_every_option_by_central_differences(weighted, smoothing, ignore_index, reduction):
    logits, targets = batch((9, 5), np.float64, 3)
    targets[::3] = ignore_index
    options = {"ignore_index": ignore_index, "label_smoothing": smoothing}
    if weighted:
        options["weight"] = [0.5, 2, 0, 1, 3]
    upstream = normal((9,), seed=4) if reduction == "none" else 1.7
    given = bits(logits, targets)

    def goal():
        return np.sum(upstream * F.cross_entropy(logits, targets, reduction, **options))

    got = F.cross_entropy_backward(logits, targets, reduction, grad_output=upstream, **options)
    assert_close(got, central_differences(goal, logits), 1e-8)
    assert not got[::3].any()
    assert bits(logits, targets) == given


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("end", ["least", "largest", "mixed"])
def test_a_mean_does_not_depend_on_the_unit_of_the_weights(end, smoothing, dtype):
    """The reciprocal of the least number of a dtype is infinite, and so is the sum of its largest."""
    logits, targets = batch((9, 5), dtype, 3)
    info, options = np.finfo(dtype), {"label_smoothing": smoothing}
    unit, kinds = {
        "least": (info.smallest_subnormal, [4, 2, 0, 1, 3]),
        "largest": (info.max / 4, [4, 2, 0, 1, 3]),
        "mixed": (info.smallest_subnormal, [1, 0, 0, 0, 0]),  # that of a class which is no target is ordinary
    }[end]
    weight = np.array(kinds, dtype)
    if end == "mixed":
        targets[...] = 0
    loss = F.cross_entropy(logits, targets, weight=weight, **options)
    gradient = F.cross_entropy_backward(logits, targets, weight=weight, **options)
    assert loss > 0
    assert gradient.any()
    scaled = weight * unit
    if end == "mixed" and not smoothing:
        scaled[1:] = 1
    assert F.cross_entropy(logits, targets, weight=scaled, **options) == pytest.approx(loss, rel=1e-6)
    assert_close(F.cross_entropy_backward(logits, targets, weight=scaled, **options), gradient, 1e-6)


def test_smoothing_over_weights_of_other_sizes():
    """The class of the target counts next to nothing beside the other one, and its quotients are large numbers."""
    logits, options = np.array([[1, 2]], np.float32), {"label_smoothing": 0.1}
    for weight in ([1e-36, 1e3], [1e-30, 1e6], [1e3, 1e-36]):
        wide = np.float32(weight).astype(np.float64)
        loss = F.cross_entropy(logits, [0], weight=np.float32(weight), **options)
        assert loss == pytest.approx(
            F.cross_entropy(logits.astype(float), [0], weight=wide, **options), rel=1e-5
        )
        got = F.cross_entropy_backward(logits, [0], weight=np.float32(weight), **options)
        want = F.cross_entropy_backward(logits.astype(float), [0], weight=wide, **options)
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_what_does_not_count_may_be_anything(dtype):
    """Rows of NaN and infinity, whose target says that they do not count."""
    logits = np.array([[0, 0], [math.nan, 1], [math.inf, -math.inf]], dtype)
    for options in ({}, {"weight": [1, 1]}, {"label_smoothing": 0.2}):
        assert F.cross_entropy(logits, [1, -100, -100], **options) == pytest.approx(HALF, rel=1e-6)
        gradient = F.cross_entropy_backward(logits, [1, -100, -100], **options)
        assert np.isfinite(gradient).all()
        assert gradient[0].any()
        assert not gradient[1:].any()


@pytest.mark.parametrize("function", [F.cross_entropy, F.cross_entropy_backward])
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"weight": [1.0, 1.0]}, ValueError, r"weight must have shape \(3,\), got \(2,\)"),
        ({"weight": [[1.0, 1.0, 1.0]]}, ValueError, r"weight must have shape \(3,\), got \(1, 3\)"),
        ({"weight": 1.0}, ValueError, r"weight must have shape \(3,\), got \(\)"),
        ({"weight": "abc"}, TypeError, "weight must hold real numbers"),
        ({"weight": [True, False, True]}, TypeError, "weight must hold real numbers.*bool"),
        ({"ignore_index": None}, TypeError, "ignore_index must be an integer, got NoneType"),
        ({"ignore_index": 1.0}, TypeError, "ignore_index must be an integer, got float"),
        ({"ignore_index": True}, TypeError, "ignore_index must be an integer, got bool"),
        ({"label_smoothing": -0.1}, ValueError, r"label_smoothing must be from 0 to 1, got -0\.1"),
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must be from 0 to 1, got 1\.5"),
        ({"label_smoothing": math.nan}, ValueError, "label_smoothing must be a finite number"),
        ({"label_smoothing": "0.1"}, TypeError, "label_smoothing must be a real number"),
    ],
)
def test_options_of_cross_entropy_that_are_refused(function, options, error, match):
    refused(partial(function, np.zeros((2, 3)), [0, 1], **options), error, match=match, options=options)
    with pytest.raises(TypeError, match="positional"):
        function(np.zeros((2, 3)), [0, 1], "mean", np.ones(3))


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.uint64, np.int64, ">i2"])
def test_an_ignored_index_that_the_targets_cannot_hold(kind):
    targets = np.array([0, 1], kind)
    for ignored in (-100, 300, 2**40, 2**63, -(2**70)):
        assert F.cross_entropy(np.zeros((2, 2)), targets, ignore_index=ignored) == pytest.approx(HALF)
    assert F.cross_entropy(np.zeros((2, 2)), targets, "sum", ignore_index=np.int8(1)) == pytest.approx(HALF)


@pytest.mark.parametrize("function", [F.cross_entropy, F.cross_entropy_backward])
@pytest.mark.parametrize(
    ("logits", "targets", "reduction", "error", "match"),
    [
        (np.zeros((2, 3)), [0, 3], "mean", IndexError, r"targets\[1\] is 3, outside \[0, 3\); -100 marks"),
        (np.zeros((2, 3)), [-1, 0], "mean", IndexError, r"targets\[0\] is -1, outside \[0, 3\); -100 marks"),
        (np.zeros((2, 200)), [-101, 0], "none", IndexError, r"targets\[0\] is -101, outside \[0, 200\)"),
        (np.zeros(3), 3, "sum", IndexError, r"targets is 3, outside \[0, 3\)"),
        (np.zeros((2, 2, 3)), [[0, 0], [0, 9]], "sum", IndexError, r"targets\[1, 1\] is 9"),
        (np.zeros((1, 3)), np.array([2**64 - 1], np.uint64), "sum", IndexError, "18446744073709551615"),
        (np.zeros((2, 3)), [0], "mean", ValueError, r"targets must have shape \(2,\), one.*got \(1,\)"),
        (np.zeros((2, 3)), [[0], [0]], "mean", ValueError, r"targets must have shape \(2,\)"),
        (np.zeros((2, 3)), [0.0, 1.0], "mean", TypeError, "targets must hold integers.*float64"),
        (np.zeros((2, 3)), [True, False], "mean", TypeError, "targets must hold integers.*bool"),
        (np.zeros((2, 3)), ["a", "b"], "mean", TypeError, "targets must hold integers"),
        (np.zeros((2, 3)), [[0], [0, 1]], "mean", ValueError, "targets cannot be made an array"),
        (np.zeros((2, 0)), [0, 0], "mean", ValueError, "logits must hold at least one class"),
        (np.float64(3), 0, "mean", ValueError, "logits must have at least one dimension"),
        ([["a"]], [0], "mean", TypeError, "logits must hold real numbers"),
        (np.zeros((2, 3)), [0, 0], "average", ValueError, "reduction must be one of 'mean', 'sum', 'none'"),
        (np.zeros((2, 3)), [0, 0], None, ValueError, "reduction must be one of"),
    ],
)
def test_cross_entropy_refuses(function, logits, targets, reduction, error, match):
    refused(partial(function, logits, targets, reduction), error, match=match, given=(logits, targets))


def test_cross_entropy_backward_refuses_a_gradient_of_another_shape():
    logits, targets = np.zeros((2, 3)), [0, 1]
    for reduction, bad in [("mean", [1.0, 1.0]), ("sum", [1.0]), ("none", [1.0]), ("none", np.ones((2, 1)))]:
        with pytest.raises(ValueError, match="grad_output must have shape"):
            F.cross_entropy_backward(logits, targets, reduction, grad_output=bad)
    with pytest.raises(TypeError, match="grad_output must hold real numbers"):
        F.cross_entropy_backward(logits, targets, grad_output="1")
    one = F.cross_entropy_backward(logits, targets, "none", grad_output=[2.0, 2.0])
    assert np.array_equal(one, F.cross_entropy_backward(logits, targets, "none", grad_output=2))


# ---- clipping --------------------------------------------------------------------------------------


def scalar_norm(grads):
    return math.sqrt(math.fsum(float(x) ** 2 for g in grads.values() for x in g.reshape(-1)))


@pytest.mark.parametrize("max_norm", [0.01, 1.0, 5.0, 1000.0, math.inf])
@pytest.mark.parametrize("seed", range(5))
def test_clip_grad_norm(seed, max_norm, dtype):
    grads = gradients(dtype, seed)
    before = {name: g.copy() for name, g in grads.items()}
    norm = F.clip_grad_norm(grads, max_norm)
    assert type(norm) is float
    assert norm == pytest.approx(scalar_norm(before), rel=1e-12)
    if norm <= max_norm:
        assert bits(*grads.values()) == bits(*before.values())
        return
    assert scalar_norm(grads) == pytest.approx(max_norm, rel=1e-6 if dtype == np.float32 else 1e-12)
    for name, g in grads.items():
        wanted = before[name].astype(np.float64) * (max_norm / max(max_norm, norm))  # eq. 15
        if g.size:
            assert_close(g, wanted)


def test_norms_at_the_ends_of_the_range(dtype):
    """Squares that overflow or underflow, and a float32 sum that would."""
    largest, smallest = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)
    for number, wanted in [(largest / 4, largest / 2), (smallest, 2 * smallest), (0.0, 0.0)]:
        grads = {"a": np.full(2, number, dtype), "b": np.full((2, 1), number, dtype)}
        assert F.clip_grad_norm(grads, math.inf) == pytest.approx(wanted, rel=1e-12)
    grads = {"a": np.full(4, largest / 4, dtype)}
    F.clip_grad_norm(grads, 1.0)
    assert_close(grads["a"], np.full(4, 0.5))
    many = {"a": np.full(1000, 1e18, np.float32)}
    assert F.clip_grad_norm(many, 1.0) == pytest.approx(float(np.float32(1e18)) * math.sqrt(1000))


def test_norm_that_is_no_number(dtype):
    grads = {"a": np.array([1, math.nan], dtype), "b": np.ones(3, dtype)}
    assert math.isnan(F.clip_grad_norm(grads, 5.0))
    assert all(np.isnan(g).all() for g in grads.values())
    grads = {"a": np.array([1, math.inf], dtype), "b": np.ones(3, dtype)}
    assert F.clip_grad_norm(grads, 5.0) == math.inf
    assert grads["a"][0] == 0
    assert np.isnan(grads["a"][1])
    assert (grads["b"] == 0).all()
    grads = {"a": np.array([math.nan, math.inf], dtype)}
    assert math.isnan(F.clip_grad_norm(grads, 5.0))


def test_one_array_under_two_names(dtype):
    """The gradients of the two biases are equal; eq. 15 counts both, and the array is rescaled once."""
    g = np.array([3.0, 4.0], dtype)
    assert F.clip_grad_norm({"bias_ih": g, "bias_hh": g}, 1.0) == pytest.approx(math.sqrt(50))
    assert_close(g, np.array([3.0, 4.0]) / math.sqrt(50))


@pytest.mark.parametrize("seed", range(5))
def test_clip_grad_value(seed, dtype):
    grads = gradients(dtype, seed, 3.0)
    grads["b"][[0, 1, 2]] = math.nan, math.inf, -math.inf
    before = {name: g.copy() for name, g in grads.items()}
    assert F.clip_grad_value(grads, 1.5) is None
    for name, g in grads.items():
        wanted = [x if math.isnan(x) else min(max(x, -1.5), 1.5) for x in before[name].reshape(-1).tolist()]
        assert np.array_equal(g.reshape(-1), wanted, equal_nan=True)
        assert g.dtype == dtype
    assert np.abs(grads["W"]).max() == 1.5
    F.clip_grad_value(before, 1e300)  # more than float32 holds
    F.clip_grad_value(before, math.inf)
    assert before["b"][1] in (math.inf, 1e300)


def test_clipping_takes_any_layout(dtype):
    """Views, Fortran order and the other byte order are clipped where they lie."""
    memory = np.full((4, 6), 2, dtype)
    grads = {"view": memory[1:3, ::2], "fortran": np.full((3, 2), 2, dtype, order="F")}
    assert F.clip_grad_norm(grads, 1.0) == pytest.approx(math.sqrt(48))
    assert memory[0, 0] == 2
    assert memory[1, 1] == 2
    assert memory[1, 0] == pytest.approx(2 / math.sqrt(48))
    F.clip_grad_value(grads, 0.1)
    assert memory[1, 0] == dtype(0.1)
    assert memory[0, 0] == 2


@pytest.mark.parametrize("function", [F.clip_grad_norm, F.clip_grad_value])
@pytest.mark.parametrize(
    ("bad", "threshold", "error", "match"),
    [
        (np.ones(3), 5.0, TypeError, "grads must be a mapping from name to array, or a tuple or list .*ndarray"),
        ([np.ones(3), [1.0]], 5.0, TypeError, r"grads\[1\] must be an ndarray, got list"),
        ((np.ones(3), np.broadcast_to(9.0, 3)), 5.0, ValueError, r"grads\[1\] is read-only"),
        ((np.ones(3),), -1, ValueError, "must be a positive number, got -1.0"),
        ({"a": [1.0]}, 5.0, TypeError, r"grads\['a'\] must be an ndarray, got list"),
        ({"a": np.ones(3, int)}, 5.0, TypeError, r"grads\['a'\] must be of dtype float32 or float64, got int64"),
        ({"a": np.ones(3, np.float16)}, 5.0, TypeError, "float16"),
        ({"a": np.broadcast_to(9.0, 3)}, 5.0, ValueError, r"grads\['a'\] is read-only"),
        ({}, 0.0, ValueError, "must be a positive number, got 0.0"),
        ({}, -1, ValueError, "must be a positive number, got -1.0"),
        ({}, math.nan, ValueError, "must be a positive number, got nan"),
        ({}, "5", TypeError, "must be a real number, got str '5'"),
        ({}, None, TypeError, "must be a real number, got NoneType"),
        ({}, True, TypeError, "must be a real number, got bool"),
    ],
)  # fmt: skip
def test_clipping_refuses(function, bad, threshold, error, match):
    grads = {"first": np.full(3, 100.0), **bad} if isinstance(bad, dict) else bad
    refused(partial(function, grads, threshold), error, match=match, grads=grads)


@pytest.mark.parametrize("container", [tuple, list])
def test_clipping_takes_sequences(container, dtype):
    """What `SimpleRNN.loss_and_grads` returns, and any other tuple or list: as the dict of these arrays."""
    for clip, threshold in ((F.clip_grad_norm, 2.0), (F.clip_grad_value, 0.5)):
        grads, same = gradients(dtype, 1, 3.0), gradients(dtype, 1, 3.0)
        before = bits(*grads.values())
        assert clip(container(grads.values()), threshold) == clip(same, threshold)
        assert bits(*grads.values()) == bits(*same.values()) != before
    shared = np.ones(4, dtype)
    assert F.clip_grad_norm([shared, shared], 1.0) == pytest.approx(math.sqrt(8))
    assert shared[0] == pytest.approx(1 / math.sqrt(8))


def test_nothing_to_clip():
    for nothing in ({}, (), []):
        assert F.clip_grad_norm(nothing, 5.0) == 0
        F.clip_grad_value(nothing, 5.0)


# ---- sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 3, 7, 50])
@pytest.mark.parametrize("top_p", [None, 0.05, 0.5, 0.9, 1.0])
def test_sample(temperature, top_k, top_p, dtype):
    logits = normal((40, 7), dtype, 5)
    before = bits(logits)
    got = F.sample(logits, temperature=temperature, top_k=top_k, top_p=top_p, rng=3)
    assert got.dtype == np.int64
    uniforms = np.random.default_rng(3).random(40)
    wanted = [
        np.searchsorted(np.cumsum(oracle.probabilities(row, temperature, top_k, top_p)), u, side="right")
        for row, u in zip(logits.tolist(), uniforms, strict=True)
    ]
    assert got.tolist() == wanted
    assert bits(logits) == before


def test_sample_is_numpys_choice():
    """The same uniforms as `Generator.choice` and `np.random.choice` take, and the same classes."""
    p = F.softmax(normal((30, 9)))
    generator = np.random.default_rng(8)
    wanted = [int(generator.choice(9, p=row)) for row in p]
    assert F.sample(np.log(p), rng=8).tolist() == wanted
    np.random.seed(8)
    wanted = [int(np.random.choice(range(9), p=row)) for row in p]
    after = stream_state()
    np.random.seed(8)
    assert F.sample(np.log(p)).tolist() == wanted
    assert stream_state() == after


def test_sample_draws_with_the_probabilities():
    """Within five standard deviations of a binomial."""
    p = np.array([0.5, 0.3, 0.15, 0.05])
    n = 200_000
    for options, wanted in [
        ({}, p),
        ({"temperature": 0.5}, p**2 / (p**2).sum()),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.9}, np.array([0.5, 0.3, 0.15, 0]) / 0.95),
        ({"top_k": 3, "top_p": 0.8}, [0.625, 0.375, 0, 0]),
    ]:
        drawn = F.sample(np.broadcast_to(np.log(p), (n, 4)), rng=0, **options)
        counts = np.bincount(drawn, minlength=4)
        wanted = np.asarray(wanted)
        assert (np.abs(counts - n * wanted) <= 5 * np.sqrt(n * wanted * (1 - wanted))).all(), options


def test_ties_go_to_the_lower_index():
    logits = np.zeros((1000, 5))
    assert set(F.sample(logits, top_k=2, rng=0).tolist()) == {0, 1}
    assert set(F.sample(logits, top_p=0.5, rng=0).tolist()) == {0, 1, 2}
    assert set(F.sample(logits, temperature=0).tolist()) == {0}


@pytest.mark.parametrize("shape", [(4,), (1, 4), (2, 3, 4), (0, 4), (3, 1)])
def test_sample_shapes(shape):
    drawn = F.sample(normal(shape), rng=0)
    assert drawn.shape == shape[:-1]
    assert ((drawn >= 0) & (drawn < shape[-1])).all()
    assert int(F.sample(np.array([-np.inf, 5.0]), rng=0)) == 1


@given(
    st.lists(st.floats(-700, 700), min_size=1, max_size=9),
    st.floats(0, 50),
    st.one_of(st.none(), st.integers(1, 10)),
    st.one_of(st.none(), st.floats(1e-9, 1)),
    st.integers(0, 2**32),
)
def test_sample_never_leaves_what_it_may_draw(row, temperature, top_k, top_p, seed):
    drawn = int(F.sample(row, temperature=temperature, top_k=top_k, top_p=top_p, rng=seed))
    order = sorted(range(len(row)), key=lambda j: (-row[j], j))
    assert drawn in order[: top_k or len(row)]
    if temperature == 0 or top_k == 1:
        assert drawn == order[0]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"logits": [0.0, math.nan]}, ValueError, "logits make no probabilities"),
        ({"logits": [[0.0, 1.0], [math.inf, 0.0]]}, ValueError, r"logits\[1\] make no probabilities"),
        ({"logits": [[[0.0]], [[-math.inf]]]}, ValueError, r"logits\[1, 0\] make no probabilities"),
        ({"logits": [math.nan], "temperature": 0}, ValueError, "logits make no probabilities"),
        ({"logits": 3.0}, ValueError, "logits must have at least one dimension"),
        ({"logits": np.empty((2, 0))}, ValueError, "logits must hold at least one class"),
        ({"logits": ["a"]}, TypeError, "logits must hold real numbers"),
        ({"temperature": -0.1}, ValueError, "temperature must be at least 0, got -0.1"),
        ({"temperature": math.nan}, ValueError, "temperature"),
        ({"temperature": math.inf}, ValueError, "temperature"),
        ({"temperature": None}, TypeError, "temperature must be a real number"),
        ({"top_k": 0}, ValueError, "top_k must be at least 1, got 0"),
        ({"top_k": 1.0}, TypeError, "top_k must be an integer, got float"),
        ({"top_k": True}, TypeError, "top_k must be an integer"),
        ({"top_p": 0.0}, ValueError, "top_p must be a finite positive number, got 0.0"),
        ({"top_p": 1.01}, ValueError, r"top_p must be in \(0, 1\], got 1.01"),
        ({"top_p": "half"}, TypeError, "top_p must be a real number"),
        ({"rng": "seed"}, TypeError, "rng must be"),
        ({"rng": -1}, ValueError, "rng must be a seed"),
    ],
)
def test_sample_refuses(arguments, error, match):
    arguments = {"logits": np.zeros((2, 3)), **arguments}
    refused(partial(F.sample, **arguments), error, match=match, arguments=arguments)


# ---- one recurrent layer ---------------------------------------------------------------------------


def scalar_layer(case):
    """The states, one sequence and one unit at a time, in Python's arithmetic."""
    W = {name: w.astype(np.float64) for name, w in case.parameters.items()}
    zeros = np.zeros(case.h)
    output, h_n = np.zeros((case.T, case.N, case.h)), np.zeros((case.N, case.h))
    for n in range(case.N):
        state = zeros if case.h0 is None else case.h0[n].astype(np.float64)
        length = case.T if case.options["lengths"] is None else int(case.options["lengths"][n])
        for t in reversed(range(length)) if case.options["reverse"] else range(length):
            x = np.eye(case.d)[case.x[t, n]] if case.one_hot else case.x[t, n].astype(np.float64)
            z = (
                W["weight_ih"] @ x
                + W["weight_hh"] @ state
                + W.get("bias_ih", zeros)
                + W.get("bias_hh", zeros)
            )
            state = np.array(
                [math.tanh(v) if case.options["nonlinearity"] == "tanh" else max(v, 0.0) for v in z]
            )
            output[t, n] = state
        h_n[n] = state
    return output, h_n


@pytest.mark.parametrize("seed", range(30))
def test_rnn_forward(seed, dtype, backend):
    case = Layer(seed, dtype)
    before = bits(*case.arrays())
    output, h_n = case.forward(backend=backend)
    assert output.dtype == h_n.dtype == dtype
    wanted, wanted_h_n = scalar_layer(case)
    assert_close(output, wanted)
    assert_close(h_n, wanted_h_n)
    assert bits(*case.arrays()) == before


@pytest.mark.parametrize("seed", range(12))
def test_rnn_backward_by_central_differences(seed, backend):
    case = Layer(100 + seed, np.float64, T=4, N=3)
    case.options["nonlinearity"] = "tanh"  # the corner of ReLU has no derivative
    output, _ = case.forward(backend=backend)
    before = bits(*case.arrays(), output)
    grad_x, grad_h0, grads = case.backward(output, backend=backend)
    assert bits(*case.arrays(), output) == before
    assert list(grads) == list(case.parameters)
    assert (grad_x is None) == case.one_hot

    def goal():
        states, h_n = case.forward(backend="numpy")
        total = (states * case.grad_output).sum()
        return total if case.grad_h_n is None else total + (h_n * case.grad_h_n).sum()

    for name, W in case.parameters.items():
        assert_close(grads[name], central_differences(goal, W), 1e-7, name)
    if grad_x is not None:
        assert_close(grad_x, central_differences(goal, case.x), 1e-7, "x")
    if case.h0 is not None:
        assert_close(grad_h0, central_differences(goal, case.h0), 1e-7, "h0")


@pytest.mark.parametrize("seed", range(20))
def test_rnn_is_that_of_the_class(seed, dtype, backend):
    """The same bits as `RNN`, which is tested against PyTorch, forward and backward."""
    case = Layer(200 + seed, dtype)
    case.options["reverse"] = False
    rnn = fastrnn.RNN(
        case.d, case.h, nonlinearity=case.options["nonlinearity"], bias="bias_ih" in case.parameters,
        dtype=dtype, backend=backend,
    )  # fmt: skip
    rnn.load_state_dict({f"{name}_l0": W for name, W in case.parameters.items()})
    output, h_n = case.forward(backend=backend)
    theirs = rnn.forward(case.x, None if case.h0 is None else case.h0[None], lengths=case.options["lengths"])
    assert bits(output, h_n[None]) == bits(*theirs)
    grad_x, grad_h0, grads = case.backward(output, backend=backend)
    their_x, their_h0 = rnn.backward(case.grad_output, None if case.grad_h_n is None else case.grad_h_n[None])
    assert bits(grad_h0[None]) == bits(their_h0)
    assert (grad_x is None and their_x is None) or bits(grad_x) == bits(their_x)
    assert bits(*grads.values()) == bits(*rnn.grads.values())
    assert any(g.any() for g in grads.values())


def test_rnn_on_several_threads(dtype, backend):
    """The same bits on any number, for a batch that is large enough to be shared."""
    case = Layer(3, dtype, T=20, N=100)
    h = 96
    rng = np.random.default_rng(0)
    case.x = rng.integers(0, 10, (20, 100))
    case.h0 = case.grad_h_n = None
    case.options["lengths"] = rng.integers(1, 21, 100)
    case.parameters = {
        "weight_ih": rng.normal(size=(h, 10)).astype(dtype), "weight_hh": (rng.normal(size=(h, h)) / h).astype(dtype)
    }  # fmt: skip
    case.grad_output = rng.normal(size=(20, 100, h)).astype(dtype)
    results = []
    for num_threads in (1, 2, 3, 8):
        output, h_n = case.forward(backend=backend, num_threads=num_threads)
        _, grad_h0, grads = case.backward(output, backend=backend, num_threads=num_threads)
        results.append(bits(output, h_n, grad_h0, *grads.values()))
    assert all(result == results[0] for result in results)


def test_rnn_does_not_read_beyond_a_length(dtype, backend):
    """NaN, and indices out of bounds, where a sequence has ended."""
    for one_hot in (False, True):
        case = next(c for seed in range(100) if (c := Layer(seed, dtype, T=6, N=5)).one_hot == one_hot)
        case.options["lengths"] = np.array([6, 1, 3, 5, 2])
        output, h_n = case.forward(backend=backend)
        clean = bits(output, h_n, *case.backward(output, backend=backend)[2].values())
        ended = np.arange(6)[:, None] >= case.options["lengths"]
        case.x[ended] = 1000 if one_hot else math.nan
        case.grad_output[ended] = math.nan
        output, h_n = case.forward(backend=backend)
        grad_x, grad_h0, grads = case.backward(output, backend=backend)
        assert bits(output, h_n, *grads.values()) == clean
        assert not output[ended].any()
        assert one_hot or not grad_x[ended].any()


GOOD = {
    "x": np.ones((4, 2, 3)), "h0": np.zeros((2, 5)), "output": np.zeros((4, 2, 5)),
    "grad_output": np.zeros((4, 2, 5)), "grad_h_n": np.zeros((2, 5)),
    "parameters": {"weight_ih": np.ones((5, 3)), "weight_hh": np.ones((5, 5)), "bias_ih": np.ones(5), "bias_hh": np.ones(5)},
}  # fmt: skip


def parameters(**changed):
    merged = {**GOOD["parameters"], **changed}
    return {name: W for name, W in merged.items() if W is not ...}


BAD_LAYERS = [
    ({"x": np.ones((4, 3))}, ValueError, r"x must have shape \(T, N, 3\), got \(4, 3\)"),
    ({"x": np.ones((4, 2, 4))}, ValueError, r"x must have shape \(T, N, 3\), got \(4, 2, 4\)"),
    ({"x": np.ones((0, 2, 3))}, ValueError, r"x must have at least one time step, got shape \(0, 2, 3\)"),
    ({"x": np.ones((0, 2), int)}, ValueError, r"x must have at least one time step, got shape \(0, 2\)"),
    ({"x": np.ones((4, 2, 3), bool)}, TypeError, r"dtype bool: give one-hot vectors as floats, x\.astype"),
    ({"parameters": parameters(weight_ih=np.ones((5, 0)))}, ValueError, r"\['weight_ih'\] must have at least one input"),
    ({"x": [["a"]]}, TypeError, "x must hold real numbers"),
    ({"x": np.array([[0, 1], [2, 3]])}, IndexError, r"x\[1, 1\] is 3, outside \[-3, 3\)"),
    ({"x": np.array([0, 1])}, ValueError, r"x must have shape \(T, N\)"),
    ({"h0": np.zeros((1, 2, 5))}, ValueError, r"h0 must have shape \(2, 5\), got \(1, 2, 5\)"),
    ({"h0": "zero"}, TypeError, "h0 must hold real numbers"),
    ({"parameters": [1]}, TypeError, "parameters must be a mapping from name to array, got list"),
    ({"parameters": {}}, ValueError, "parameters must hold weight_ih, weight_hh.*; got none"),
    ({"parameters": parameters(bias_ih=...)}, ValueError, "biases both or neither; got 'weight_ih', 'weight_hh', 'bias_hh'"),
    ({"parameters": parameters(weight_ih_l0=np.ones(1))}, ValueError, "got .*weight_ih_l0"),
    ({"parameters": parameters(weight_ih=[[1.0]])}, TypeError, r"parameters\['weight_ih'\] must be an ndarray, got list"),
    ({"parameters": parameters(weight_ih=np.ones((5, 3), int))}, TypeError, r"\['weight_ih'\].*float32 or float64, got int64"),
    ({"parameters": parameters(weight_ih=np.ones((4, 3)))}, ValueError, r"\['weight_ih'\] must have shape \(5, d\), got \(4, 3\)"),
    ({"parameters": parameters(weight_hh=np.ones((5, 4)))}, ValueError, r"\['weight_hh'\] must have shape \(5, 5\), got \(5, 4\)"),
    ({"parameters": parameters(weight_hh=np.ones((0, 0)))}, ValueError, r"\['weight_hh'\] must have at least one hidden unit"),
    ({"parameters": parameters(weight_hh=np.ones(5))}, ValueError, r"\['weight_hh'\] must have shape \(h, h\), got \(5,\)"),
    ({"parameters": parameters(bias_hh=np.ones(4))}, ValueError, r"\['bias_hh'\] must have shape \(5,\), got \(4,\)"),
    ({"parameters": parameters(bias_hh=np.ones(5, np.float32))}, TypeError, r"\['bias_hh'\] must have dtype float64, as weight_ih, got float32"),
    ({"nonlinearity": "sigmoid"}, ValueError, "nonlinearity must be one of 'tanh', 'relu', got 'sigmoid'"),
    ({"reverse": 1}, TypeError, "reverse must be a bool, got int 1"),
    ({"lengths": [4]}, ValueError, r"lengths must have shape \(2,\), one for each sequence, got \(1,\)"),
    ({"lengths": [4, 5]}, ValueError, r"lengths\[1\] is 5, outside \[1, 4\]"),
    ({"lengths": [0, 4]}, ValueError, r"lengths\[0\] is 0, outside \[1, 4\]"),
    ({"lengths": [1.0, 4.0]}, TypeError, "lengths must hold integers"),
    ({"num_threads": 0}, ValueError, "num_threads must be at least 1, got 0"),
    ({"backend": "cuda"}, ValueError, "backend must be one of"),
]  # fmt: skip


@pytest.mark.parametrize("lengths", [None, []])
@pytest.mark.parametrize("one_hot", [False, True])
def test_rnn_of_no_sequences(one_hot, lengths, dtype, backend):
    """Empty results, as those of the class, which are PyTorch's."""
    W = {name: value.astype(dtype) for name, value in GOOD["parameters"].items()}
    x = np.empty((4, 0), int) if one_hot else np.empty((4, 0, 3))
    options = {"lengths": lengths, "backend": backend}
    for h0 in (None, np.empty((0, 5))):
        output, h_n = F.rnn_forward(x, h0, W, **options)
        assert (output.shape, h_n.shape) == ((4, 0, 5), (0, 5))
        for grad_h_n in (None, h_n):
            grad_x, grad_h0, grads = F.rnn_backward(output, grad_h_n, x, h0, output, W, **options)
            assert (grad_x is None) if one_hot else grad_x.shape == (4, 0, 3)
            assert grad_h0.shape == (0, 5)
            assert not any(g.any() for g in grads.values())
        assert {a.dtype for a in (output, h_n, grad_h0, *grads.values())} == {np.dtype(dtype)}


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("bad", "error", "match"), BAD_LAYERS)
def test_rnn_refuses(bad, error, match, backward):
    arguments = {**GOOD, **bad}
    gradients = {name: arguments.pop(name) for name in ("grad_output", "grad_h_n", "output")}
    call = (
        partial(F.rnn_backward, **gradients, **arguments) if backward else partial(F.rnn_forward, **arguments)
    )
    refused(call, error, match=match, given=(arguments, gradients))


@pytest.mark.parametrize("name", ["output", "grad_output", "grad_h_n"])
def test_rnn_backward_refuses(name):
    for bad, error, match in [
        (GOOD[name][:1], ValueError, f"{name} must have shape"),
        ("zeros", TypeError, f"{name} must hold real numbers"),
        (GOOD[name].astype(complex), TypeError, f"{name} must hold real numbers"),
    ]:
        arguments = {**GOOD, name: bad}
        refused(partial(F.rnn_backward, **arguments), error, match=match, arguments=arguments)
    grad_x, grad_h0, grads = F.rnn_backward(**GOOD | {"grad_output": None, "grad_h_n": None})
    assert not any(g.any() for g in (grad_x, grad_h0, *grads.values()))


# ---- a loop of one's own ---------------------------------------------------------------------------


def test_a_training_loop(backend, dtype):
    """A softmax regression from these functions and an optimizer learns what can be learned."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6)).astype(dtype)
    classes = (x @ rng.normal(size=(6, 4))).argmax(axis=1)
    parameters = {"W": np.zeros((4, 6), dtype), "b": np.zeros(4, dtype)}
    optimizer = fastrnn.optim.Adam(0.1, backend=backend)
    losses = []
    for _ in range(150):
        logits = x @ parameters["W"].T + parameters["b"]
        losses.append(F.cross_entropy(logits, classes))
        dlogits = F.cross_entropy_backward(logits, classes)
        grads = {"W": dlogits.T @ x, "b": dlogits.sum(axis=0)}
        F.clip_grad_norm(grads, 1.0)
        optimizer.step(parameters, grads)
    assert losses[0] == pytest.approx(math.log(4))
    assert losses[-1] < 0.2
    assert parameters["W"].dtype == dtype


def test_a_recurrent_training_loop(backend):
    """A layer and a softmax learn to say what came two steps before."""
    rng = np.random.default_rng(0)
    h, q, N = 24, 4, 32
    parameters = {
        "weight_ih": rng.normal(size=(h, q)) * 0.4, "weight_hh": rng.normal(size=(h, h)) * 0.2,
        "bias_ih": np.zeros(h), "bias_hh": np.zeros(h),
    }  # fmt: skip
    weight_out = rng.normal(size=(q, h)) * 0.2
    optimizer = fastrnn.optim.Adam(0.02, backend=backend)
    losses = []
    for _ in range(120):
        x = rng.integers(q, size=(12, N))
        output, _ = F.rnn_forward(x, None, parameters, backend=backend)
        logits = output[2:] @ weight_out.T
        losses.append(F.cross_entropy(logits, x[:-2]))
        dlogits = F.cross_entropy_backward(logits, x[:-2])
        grad_output = np.concatenate([np.zeros((2, N, h)), dlogits @ weight_out])
        _, _, grads = F.rnn_backward(grad_output, None, x, None, output, parameters, backend=backend)
        grads["weight_out"] = np.einsum("tnq,tnh->qh", dlogits, output[2:])
        F.clip_grad_norm(grads, 1.0)
        optimizer.step(parameters | {"weight_out": weight_out}, grads)
    assert losses[0] > 1.2
    assert losses[-1] < 0.2


def test_package_brings_the_module():
    done = run_python("-c", "import sys, fastrnn; assert 'fastrnn.functional' not in sys.modules\n"
                            "print(fastrnn.functional.softmax([0.0, 0.0]).tolist())")  # fmt: skip
    assert done.stdout == "[0.5, 0.5]\n", done.stderr
    assert fastrnn.functional is F
