"""A linear layer and the losses of real values: against scalar loops and central differences."""

import math
from functools import partial

import numpy as np
import pytest
from functional_support import normal
from refusals import refused
from support import TOLERANCE, assert_close, bits, central_differences

import fastrnn
from fastrnn import functional as F

SHAPES = [(), (1,), (7,), (3, 5), (2, 3, 4)]
REDUCTIONS = ["mean", "sum", "none"]


def layouts(array):
    """The same numbers in other memory: strided, in Fortran order, read-only, the other byte order."""
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    yield wide[..., ::2]
    yield np.asfortranarray(array)
    frozen = array.copy()
    frozen.flags.writeable = False
    yield frozen
    yield array.astype(array.dtype.newbyteorder())


# ---- linear ----------------------------------------------------------------------------------------


def layer(outer, m, n, dtype, seed=0):
    """x, weight, bias and a gradient for the output."""
    shapes = [(*outer, n), (m, n), (m,), (*outer, m)]
    return [normal(shape, dtype, 10 * seed + i, 1.0) for i, shape in enumerate(shapes)]


def scalar_linear(x, weight, bias):
    rows = x.astype(np.float64).reshape(-1, x.shape[-1])
    output = np.empty((len(rows), len(weight)))
    for r, row in enumerate(rows.tolist()):
        for i, w in enumerate(weight.tolist()):
            terms = [a * b for a, b in zip(row, w, strict=True)]
            output[r, i] = math.fsum([*terms, 0.0 if bias is None else float(bias[i])])
    return output.reshape(*x.shape[:-1], len(weight))


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 1), (1, 4), (5, 17)])
@pytest.mark.parametrize("outer", [(), (1,), (6,), (2, 3), (2, 1, 3)])
def test_linear(outer, sizes, with_bias, dtype):
    x, weight, bias, _ = layer(outer, *sizes, dtype)
    bias = bias if with_bias else None
    before = bits(x, weight, bias)
    output = F.linear(x, weight, bias)
    assert output.dtype == dtype
    assert bits(x, weight, bias) == before
    wanted = scalar_linear(x, weight, bias)
    assert output.shape == wanted.shape
    terms = np.abs(x).max() * np.abs(weight).max() * sizes[1] + 3
    assert np.abs(output - wanted).max() <= TOLERANCE[np.dtype(dtype)] * terms
    assert np.abs(wanted).max() > 1e-3 * terms


def test_linear_by_hand(dtype):
    x, weight, bias = (
        np.array(a, dtype) for a in ([[1, 2], [3, 4]], [[1, 10], [100, 1000], [0, 0]], [1, 2, 3])
    )
    assert F.linear(x, weight, bias).tolist() == [[22, 2102, 3], [44, 4302, 3]]
    assert F.linear(x[0], weight).tolist() == [21, 2100, 0]
    grad_x, grad_weight, grad_bias = F.linear_backward(np.array([[1, 0, 5], [0, 2, 7]], dtype), x, weight)
    assert grad_x.tolist() == [[1, 10], [200, 2000]]
    assert grad_weight.tolist() == [[1, 2], [6, 8], [26, 38]]
    assert grad_bias.tolist() == [1, 2, 12]
    assert grad_x.dtype == grad_weight.dtype == grad_bias.dtype == dtype


@pytest.mark.parametrize("outer", [(), (6,), (2, 3)])
def test_linear_backward_by_central_differences(outer):
    x, weight, bias, grad_output = layer(outer, 3, 4, np.float64, 2)
    given = bits(x, weight, bias, grad_output)

    def goal():
        return np.sum(grad_output * F.linear(x, weight, bias))

    got = F.linear_backward(grad_output, x, weight)
    assert bits(x, weight, bias, grad_output) == given
    for gradient, array in zip(got, (x, weight, bias), strict=True):
        assert_close(gradient, central_differences(goal, array), 1e-8)


def test_linear_in_other_memory(dtype):
    x, weight, _, grad_output = layer((4,), 3, 6, dtype)
    output, grads = F.linear(x, weight), F.linear_backward(grad_output, x, weight)
    for x_, weight_, grad_ in zip(layouts(x), layouts(weight), layouts(grad_output), strict=True):
        before = bits(x_, weight_, grad_)
        got = F.linear(x_, weight_)
        assert got.dtype == dtype
        assert got.dtype.isnative
        assert_close(got, output)
        for ours, wanted in zip(F.linear_backward(grad_, x_, weight_), grads, strict=True):
            assert ours.dtype == dtype
            assert_close(ours, wanted)
        assert bits(x_, weight_, grad_) == before


def test_linear_takes_the_dtype_of_its_weight():
    W = np.ones((2, 3))
    for x, weight, wanted in [
        (np.ones(3), W.astype(np.float32), np.float32), (np.ones(3, np.float32), W, np.float64),
        ([1, 2, 3], W.astype(np.float32), np.float32), (np.ones(3, np.float32), W.astype(int), np.float64),
        (np.ones(3, np.float16), W.astype(np.float16), np.float64), ([1, 2, 3], W.tolist(), np.float64),
    ]:  # fmt: skip
        assert F.linear(x, weight, [1, 1]).dtype == wanted
        assert {g.dtype for g in F.linear_backward([1, 1], x, weight)} == {np.dtype(wanted)}


def test_linear_returns_arrays_of_its_own(dtype):
    """With one row and one column nothing is left to compute, and still nothing is shared."""
    x, weight, grad = np.ones((1, 1), dtype), np.ones((1, 1), dtype), np.ones((1, 1), dtype)
    for result in (F.linear(x, weight), *F.linear_backward(grad, x, weight)):
        assert not any(np.shares_memory(result, given) for given in (x, weight, grad))


@pytest.mark.parametrize(
    ("outer", "m", "n"), [((0,), 3, 2), ((2, 0), 3, 2), ((4,), 0, 2), ((4,), 3, 0), ((), 0, 0)]
)
def test_linear_of_nothing(outer, m, n, dtype):
    x, weight, bias, grad_output = layer(outer, m, n, dtype)
    output = F.linear(x, weight, bias)
    assert output.shape == (*outer, m)
    assert output.dtype == dtype
    if output.size:  # of no inputs
        assert (output == bias).all()
    assert not F.linear(x, weight).any()
    grad_x, grad_weight, grad_bias = F.linear_backward(grad_output, x, weight)
    assert (grad_x.shape, grad_weight.shape, grad_bias.shape) == (x.shape, weight.shape, bias.shape)
    assert not grad_x.any()
    assert not grad_weight.any()
    assert_close(np.append(grad_bias, 1), np.append(grad_output.sum(axis=tuple(range(len(outer)))), 1))


def test_gradient_of_a_bias_is_summed_in_float64():
    grad = np.full((1_000_000, 1), 0.1, np.float32)
    _, _, grad_bias = F.linear_backward(
        grad, np.zeros((1_000_000, 1), np.float32), np.ones((1, 1), np.float32)
    )
    assert grad_bias[0] == np.float32(1e6 * float(np.float32(0.1)))


@pytest.mark.filterwarnings("error")
def test_linear_of_no_numbers(dtype):
    largest = np.finfo(dtype).max
    x = np.array([[math.nan, 1], [math.inf, 0], [largest, largest], [1, 2]], dtype)
    output = F.linear(x, np.array([[1, 1]], dtype))
    assert np.array_equal(output[:, 0], [math.nan, math.inf, math.inf, 3], equal_nan=True)
    F.linear_backward(output, x, np.array([[1, 1]], dtype))


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        ({"x": np.ones((2, 4))}, ValueError, r"x must have shape \(\.\.\., 3\), as weight of shape \(2, 3\).*got \(2, 4\)"),
        ({"x": 1.0}, ValueError, r"x must have shape \(\.\.\., 3\).*got \(\)"),
        ({"x": "abc"}, TypeError, "x must hold real numbers, got str"),
        ({"x": [[1.0], [1.0, 2.0]]}, ValueError, "x cannot be made an array"),
        ({"x": np.ones(3, complex)}, TypeError, "x must hold real numbers.*complex128"),
        ({"weight": np.ones(3)}, ValueError, r"weight must have shape \(m, n\), got \(3,\)"),
        ({"weight": np.ones((1, 2, 3))}, ValueError, r"weight must have shape \(m, n\), got \(1, 2, 3\)"),
        ({"weight": None}, TypeError, "weight must hold real numbers"),
        ({"weight": np.ones((2, 3), bool)}, TypeError, "weight must hold real numbers.*bool"),
    ],
)  # fmt: skip
def test_linear_refuses(bad, error, match):
    good = {"x": np.ones((4, 3)), "weight": np.ones((2, 3))} | bad
    grad = np.ones((4, 2))
    refused(partial(F.linear, **good), error, match=match, good=good)
    refused(partial(F.linear_backward, grad, **good), error, match=match, good=good, grad=grad)


@pytest.mark.parametrize(
    ("bias", "error", "match"),
    [
        (np.ones(3), ValueError, r"bias must have shape \(2,\), got \(3,\)"),
        (np.ones((2, 1)), ValueError, r"bias must have shape \(2,\), got \(2, 1\)"),
        (1.0, ValueError, r"bias must have shape \(2,\), got \(\)"),
        (True, TypeError, "bias must hold real numbers"),
    ],
)
def test_linear_refuses_a_bias(bias, error, match):
    refused(partial(F.linear, np.ones((4, 3)), np.ones((2, 3)), bias), error, match=match, bias=bias)


@pytest.mark.parametrize(
    ("grad", "error", "match"),
    [
        (np.ones((4, 3)), ValueError, r"grad_output must have shape \(\.\.\., 2\), as weight.*2 rows, got \(4, 3\)"),
        (np.ones((3, 2)), ValueError, r"grad_output must have shape \(4, 2\), that of the output.*got \(3, 2\)"),
        (np.ones((2, 2, 2)), ValueError, r"grad_output must have shape \(4, 2\).*got \(2, 2, 2\)"),
        (np.ones(2), ValueError, r"grad_output must have shape \(4, 2\).*got \(2,\)"),
        (1.0, ValueError, r"grad_output must have shape \(\.\.\., 2\)"),
        (None, TypeError, "grad_output must hold real numbers"),
    ],
)  # fmt: skip
def test_linear_backward_refuses_a_gradient(grad, error, match):
    refused(partial(F.linear_backward, grad, np.ones((4, 3)), np.ones((2, 3))), error, match=match, grad=grad)


# ---- squared errors --------------------------------------------------------------------------------


def scalar_mse(predicted, target):
    return [(a - b) ** 2 for a, b in zip(predicted.ravel().tolist(), target.ravel().tolist(), strict=True)]


def scalar_nll(mean, log_variance, target):
    """By the density of a normal distribution."""
    nats = []
    for m, v, t in zip(*(a.ravel().tolist() for a in (mean, log_variance, target)), strict=True):
        variance = math.exp(v)
        nats.append(-math.log(math.exp(-((t - m) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)))
    return nats


#: Function, its backward, scalar loop, names of its arguments; the last of them has no gradient.
LOSSES = {
    "mse": (F.mse_loss, F.mse_loss_backward, scalar_mse, ("input", "target")),
    "gaussian": (
        F.gaussian_nll_loss, F.gaussian_nll_loss_backward, scalar_nll, ("mean", "log_variance", "target"),
    ),
}  # fmt: skip


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]


def values(names, shape, dtype, seed=0):
    return [normal(shape, dtype, 10 * seed + i, 1.0) for i in range(len(names))]


def tupled(gradients):
    return gradients if type(gradients) is tuple else (gradients,)


@pytest.mark.parametrize("shape", SHAPES)
def test_losses(loss, shape, dtype):
    function, _, scalar, names = loss
    arguments = values(names, shape, dtype)
    before = bits(*arguments)
    wanted = scalar(*arguments)
    each = function(*arguments, "none")
    assert type(each) is np.ndarray
    assert each.dtype == dtype
    assert each.shape == shape
    tolerance = 10 * TOLERANCE[np.dtype(dtype)]
    assert np.allclose(each.ravel(), wanted, rtol=tolerance, atol=tolerance)
    total = function(*arguments, "sum")
    assert type(total) is float
    assert total == pytest.approx(math.fsum(wanted), rel=tolerance)
    mean = function(**dict(zip(names, arguments, strict=True)))
    assert type(mean) is float
    assert mean == function(*arguments, reduction="mean") == pytest.approx(total / len(wanted), rel=1e-12)
    assert total > 0.01
    assert bits(*arguments) == before


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_losses_by_central_differences(loss, shape, reduction):
    function, backward, _, names = loss
    arguments = values(names, shape, np.float64, 3)
    upstream = normal(shape, seed=99) if reduction == "none" else 1.7
    given = bits(*arguments)

    def goal():
        return np.sum(upstream * function(*arguments, reduction))

    got = tupled(backward(*arguments, reduction, grad_output=upstream))
    assert bits(*arguments) == given
    for gradient, array in zip(got, arguments[:-1], strict=True):
        assert type(gradient) is np.ndarray
        assert_close(gradient, central_differences(goal, array), 1e-8)


def test_mse_by_hand(dtype):
    a, b = np.array([[1, 2], [3, -1]], dtype), np.array([[1, 0], [6, -2]], dtype)
    assert F.mse_loss(a, b, "none").tolist() == [[0, 4], [9, 1]]
    assert F.mse_loss(a, b, "sum") == 14
    assert F.mse_loss(a, b) == 3.5
    assert F.mse_loss_backward(a, b).tolist() == [[0, 1], [-1.5, 0.5]]
    assert F.mse_loss_backward(a, b, "sum").tolist() == [[0, 4], [-6, 2]]
    assert F.mse_loss_backward(a, b, "sum", grad_output=3).tolist() == [[0, 12], [-18, 6]]
    assert F.mse_loss_backward(a, b, "none", grad_output=[[1, 2], [0, -1]]).tolist() == [[0, 8], [0, -2]]
    assert F.mse_loss_backward(a, b).dtype == dtype
    large = 0.9 * float(np.finfo(dtype).max)
    assert F.mse_loss_backward(a, a, "sum", grad_output=large).tolist() == [[0, 0], [0, 0]]


def test_gaussian_by_hand(dtype):
    log4 = dtype(math.log(4))
    mean, log_variance, target = np.array([1, 1], dtype), np.array([0, log4], dtype), np.array([4, 4], dtype)
    constant = math.log(2 * math.pi)
    wanted = [(constant + 9) / 2, (constant + math.log(4) + 9 / 4) / 2]
    assert F.gaussian_nll_loss(mean, log_variance, target, "none") == pytest.approx(wanted, rel=1e-6)
    assert F.gaussian_nll_loss(mean, log_variance, target) == pytest.approx(sum(wanted) / 2, rel=1e-6)
    grad_mean, grad_log_variance = F.gaussian_nll_loss_backward(mean, log_variance, target, "sum")
    assert grad_mean == pytest.approx([-3, -3 / 4], rel=1e-6)
    assert grad_log_variance == pytest.approx([(1 - 9) / 2, (1 - 9 / 4) / 2], rel=1e-6)
    assert grad_mean.dtype == grad_log_variance.dtype == dtype
    grad_mean, _ = F.gaussian_nll_loss_backward(mean, log_variance, target, grad_output=10)
    assert grad_mean == pytest.approx([-15, -15 / 4], rel=1e-6)


def test_losses_are_summed_in_float64():
    """A running sum of a million float32 numbers would be wrong in the fourth digit."""
    zeros, error = np.zeros(1_000_000, np.float32), np.full(1_000_000, 0.3, np.float32)
    squared = float(np.float32(0.3) * np.float32(0.3))
    assert F.mse_loss(error, zeros, "sum") == pytest.approx(1e6 * squared, rel=1e-9)
    assert F.mse_loss(error, zeros) == pytest.approx(squared, rel=1e-9)
    nats = (math.log(2 * math.pi) + squared) / 2
    assert F.gaussian_nll_loss(error, zeros, zeros) == pytest.approx(nats, rel=2e-7)
    assert F.gaussian_nll_loss(error, zeros, zeros, "sum") == pytest.approx(1e6 * nats, rel=2e-7)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2, 3)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_of_nothing(loss, shape, reduction, dtype):
    function, backward, _, names = loss
    arguments = [np.empty(shape, dtype) for _ in names]
    value = function(*arguments, reduction)
    if reduction == "none":
        assert value.shape == shape
        assert value.dtype == dtype
    else:
        assert type(value) is float
        assert value == 0
    for gradient in tupled(backward(*arguments, reduction)):
        assert gradient.shape == shape
        assert gradient.dtype == dtype


def test_losses_take_the_dtype_of_what_is_predicted(loss):
    function, backward, _, names = loss
    others = [np.array([0.25, 0.5], np.float64), [1, 2]][-(len(names) - 1) :]
    for first, wanted in [
        (np.ones(2, np.float32), np.float32), (np.ones(2), np.float64), ([1, 2], np.float64),
        (np.ones(2, np.float16), np.float64), (np.ones(2, np.uint8), np.float64), (np.ones(2, "g"), np.float64),
    ]:  # fmt: skip
        assert function(first, *others, "none").dtype == wanted
        assert {g.dtype for g in tupled(backward(first, *others))} == {np.dtype(wanted)}
    assert F.mse_loss(np.array([1], np.uint8), np.array([3], np.uint8)) == 4  # 1 - 3 is not 254


def test_losses_in_other_memory(loss, dtype):
    function, backward, _, names = loss
    arguments = values(names, (4, 6), dtype)
    each, grads = function(*arguments, "none"), tupled(backward(*arguments))
    for others in zip(*map(layouts, arguments), strict=True):
        before = bits(*others)
        got = function(*others, "none")
        assert got.dtype == dtype
        assert got.dtype.isnative
        assert np.array_equal(got, each)
        for ours, wanted in zip(tupled(backward(*others)), grads, strict=True):
            assert ours.dtype.isnative
            assert np.array_equal(ours, wanted)
        assert bits(*others) == before


@pytest.mark.filterwarnings("error")
def test_losses_of_no_numbers(dtype):
    bad = np.array([math.nan, math.inf, np.finfo(dtype).max, 1], dtype)
    zeros = np.zeros(4, dtype)
    assert np.array_equal(F.mse_loss(bad, zeros, "none"), [math.nan, math.inf, math.inf, 1], equal_nan=True)
    assert math.isnan(F.mse_loss(bad, zeros))
    assert np.isnan(F.mse_loss_backward(bad, zeros)[0])
    for place in range(3):
        arguments = [zeros] * place + [bad] + [zeros] * (2 - place)
        assert math.isnan(F.gaussian_nll_loss(*arguments, "none")[0])
        assert np.isfinite(F.gaussian_nll_loss(*arguments, "none")[3])
        grad_mean, grad_log_variance = F.gaussian_nll_loss_backward(*arguments)
        assert np.isnan([grad_mean[0], grad_log_variance[0]]).all()
        assert np.isfinite([grad_mean[3], grad_log_variance[3]]).all()
    # What float32 does not hold is infinity in it.
    assert F.mse_loss(np.zeros(1, np.float32), [1e300]) == math.inf


@pytest.mark.filterwarnings("error")
def test_variances_at_the_ends_of_the_range():
    """Where the reciprocal of a variance overflows, no error is none, and a small one is what it is."""
    constant = math.log(2 * math.pi)
    got = F.gaussian_nll_loss([1.0, 1.0], [-2000.0, 800.0], [1.0, 3.0], "none")
    assert got == pytest.approx([(constant - 2000) / 2, (constant + 800) / 2])
    grad_mean, grad_log_variance = F.gaussian_nll_loss_backward(
        [1.0, 1.0], [-2000.0, 2000.0], [1.0, 3.0], "sum"
    )
    assert grad_mean.tolist() == [0, 0]
    assert grad_log_variance.tolist() == [0.5, 0.5]
    # exp(100) is more than float32 holds, its root is not.
    error = np.array([1e-20], np.float32)
    got = F.gaussian_nll_loss(error, np.array([-100], np.float32), np.zeros(1, np.float32), "none")
    assert got == pytest.approx([(constant - 100 + 1e-40 * math.exp(100)) / 2], rel=1e-6)


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (
            np.ones(3),
            ValueError,
            r"{} must have the shape of {}, \(2, 3\) \(nothing is broadcast\), got \(3,\)",
        ),
        (np.ones((2, 1)), ValueError, r"{} must have the shape of {}, \(2, 3\).*got \(2, 1\)"),
        (np.ones((1, 2, 3)), ValueError, r"{} must have the shape of {}, \(2, 3\).*got \(1, 2, 3\)"),
        (0.5, ValueError, r"{} must have the shape of {}, \(2, 3\).*got \(\)"),
        ("abc", TypeError, "{} must hold real numbers, got str"),
        (np.ones((2, 3), bool), TypeError, "{} must hold real numbers, got ndarray of dtype bool"),
        (np.ones((2, 3), complex), TypeError, "{} must hold real numbers.*complex128"),
        (None, TypeError, "{} must hold real numbers, got NoneType"),
        ([[1.0], [1.0, 2.0]], ValueError, "{} cannot be made an array"),
    ],
)
def test_losses_refuse(loss, bad, error, match):
    function, backward, _, names = loss
    for place, name in enumerate(names):
        arguments = [np.ones((2, 3)) for _ in names]
        arguments[place] = bad
        if place == 0 and "shape of" in match:
            continue  # then the next one is of another shape
        for call in (function, backward):
            refused(
                partial(call, *arguments),
                error,
                match="^" + match.format(name, names[0]),
                arguments=arguments,
            )


@pytest.mark.parametrize("reduction", ["average", None, "", 1])
def test_losses_refuse_a_reduction(loss, reduction):
    function, backward, _, names = loss
    arguments = [np.ones(3) for _ in names]
    for call in (function, backward):
        refused(
            partial(call, *arguments, reduction),
            ValueError,
            match="reduction must be one of 'mean', 'sum', 'none'",
        )


def test_losses_refuse_a_gradient_of_another_shape(loss):
    _, backward, _, names = loss
    arguments = [np.ones((2, 3)) for _ in names]
    for reduction, bad, wanted in [
        ("mean", np.ones((2, 3)), r"\(\)"), ("sum", [1.0], r"\(\)"), ("none", np.ones(3), r"\(\) or \(2, 3\)"),
        ("none", np.ones((2, 1)), r"\(\) or \(2, 3\)"),
    ]:  # fmt: skip
        refused(
            partial(backward, *arguments, reduction, grad_output=bad), ValueError,
            match=f"grad_output must have shape {wanted}, got", arguments=arguments,
        )  # fmt: skip
    refused(
        partial(backward, *arguments, grad_output="1"), TypeError, match="grad_output must hold real numbers"
    )
    with pytest.raises(TypeError, match="positional"):
        backward(*arguments, "mean", 1.0)
    ones = tupled(backward(*arguments, "none", grad_output=np.full((2, 3), 2.0)))
    for a, b in zip(ones, tupled(backward(*arguments, "none", grad_output=2)), strict=True):
        assert np.array_equal(a, b)


# ---- a loop of one's own ---------------------------------------------------------------------------


def test_a_loop_that_learns_a_mean_and_a_variance():
    """Noise of a known size around a line: what a linear layer learns is the line and the noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 1))
    target = 3 * x + 1 + 0.5 * rng.normal(size=(2000, 1))
    parameters = {"weight": np.zeros((2, 1)), "bias": np.zeros(2)}
    optimizer = fastrnn.optim.Adam(0.05)
    for _ in range(300):
        mean, log_variance = np.split(F.linear(x, **parameters), 2, axis=-1)
        dmean, dlog_variance = F.gaussian_nll_loss_backward(mean, log_variance, target)
        grads = F.linear_backward(np.hstack([dmean, dlog_variance]), x, parameters["weight"])
        optimizer.step(parameters, dict(zip(("weight", "bias"), grads[1:], strict=True)))
    assert parameters["weight"][:, 0] == pytest.approx([3, 0], abs=0.05)
    assert parameters["bias"] == pytest.approx([1, math.log(0.25)], abs=0.1)
    assert F.gaussian_nll_loss(mean, log_variance, target) == pytest.approx(
        (math.log(2 * math.pi * 0.25) + 1) / 2, abs=0.05
    )
    assert F.mse_loss(mean, target) == pytest.approx(0.25, abs=0.03)
