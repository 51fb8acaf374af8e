"""Losses of real values: squared errors, and the likelihood of a normal distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from fastrnn.checks import check_choice
from fastrnn.functional.softmax import _REDUCTIONS, _real

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import Reduction

__all__ = ["gaussian_nll_loss", "gaussian_nll_loss_backward", "mse_loss", "mse_loss_backward"]


# ---- squared errors --------------------------------------------------------------------------------


@overload
def mse_loss(input: ArrayLike, target: ArrayLike, reduction: Reduction = "mean") -> float: ...
@overload
def mse_loss(input: ArrayLike, target: ArrayLike, reduction: Literal["none"]) -> np.ndarray: ...


def mse_loss(
    input: ArrayLike,  # noqa: A002 - PyTorch's name
    target: ArrayLike,
    reduction: Reduction | Literal["none"] = "mean",
) -> float | np.ndarray:
    r"""Squared error, :math:`(input - target)^2`, as that of PyTorch.

    Parameters
    ----------
    input : array of real numbers, any shape
        What is predicted; not modified.
    target : array of real numbers, in the same shape
        What it should be; cast to the dtype of `input`.
    reduction : {"mean", "sum", "none"}, default "mean"
        Over all entries.

    Returns
    -------
    float, or ndarray in the shape of `input`
        Summed in float64.  An array for ``"none"``, float32 if `input` is, else float64.  A mean over
        nothing is 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.  The shapes must be equal: nothing is broadcast.

    Examples
    --------
    >>> mse_loss([1.0, 2.0, 3.0], [1.0, 2.0, 6.0])
    3.0
    >>> mse_loss([1.0, 2.0, 3.0], [1.0, 2.0, 6.0], "none")
    array([0., 0., 9.])
    """
    check_choice(reduction, "reduction", _REDUCTIONS)
    given = _real(input, "input")
    wanted = _same_shape(target, "target", given, "input")
    with np.errstate(all="ignore"):
        error = np.asarray(given - wanted)
        return _reduced(np.asarray(error * error), reduction)


def mse_loss_backward(
    input: ArrayLike,  # noqa: A002 - PyTorch's name
    target: ArrayLike,
    reduction: Reduction | Literal["none"] = "mean",
    *,
    grad_output: ArrayLike = 1.0,
) -> np.ndarray:
    r"""Gradient of `mse_loss` for the input, :math:`2 (input - target)`; that for the target is its negative.

    Parameters
    ----------
    input : array of real numbers, any shape
        Not modified.
    target : array of real numbers, in the same shape
        Cast to the dtype of `input`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As given to `mse_loss`.
    grad_output : float, or array in the shape of `input` for ``"none"``, default 1.0
        Gradient of what comes after the loss.

    Returns
    -------
    ndarray in the shape of `input`
        float32 if `input` is, else float64.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.  The shapes must be equal: nothing is broadcast.

    Examples
    --------
    >>> mse_loss_backward([1.0, 2.0, 3.0], [1.0, 2.0, 6.0])
    array([ 0.,  0., -2.])
    """
    check_choice(reduction, "reduction", _REDUCTIONS)
    given = _real(input, "input")
    wanted = _same_shape(target, "target", given, "input")
    scale = _scale(grad_output, reduction, given)
    with np.errstate(all="ignore"):
        error = given - wanted
        return np.asarray((error + error) * scale)


# ---- a normal distribution -------------------------------------------------------------------------


@overload
def gaussian_nll_loss(
    mean: ArrayLike, log_variance: ArrayLike, target: ArrayLike, reduction: Reduction = "mean"
) -> float: ...
@overload
def gaussian_nll_loss(
    mean: ArrayLike, log_variance: ArrayLike, target: ArrayLike, reduction: Literal["none"]
) -> np.ndarray: ...


def gaussian_nll_loss(
    mean: ArrayLike,
    log_variance: ArrayLike,
    target: ArrayLike,
    reduction: Reduction | Literal["none"] = "mean",
) -> float | np.ndarray:
    r"""Negative log-likelihood of a normal distribution of each entry, its constant included.

    .. math:: \tfrac12 \left(\log 2\pi + \log\sigma^2 + (target - mean)^2 / \sigma^2\right)

    It is ``torch.nn.functional.gaussian_nll_loss(mean, target, exp(log_variance), full=True)``, without its
    least variance: any real number is a log-variance, so a model's output may be one as it is.

    Parameters
    ----------
    mean : array of real numbers, any shape
        Means of the distributions; not modified.
    log_variance : array of real numbers, in the same shape
        Natural logarithms of their variances, :math:`\log\sigma^2`; cast to the dtype of `mean`.
    target : array of real numbers, in the same shape
        What was observed; cast to the dtype of `mean`.
    reduction : {"mean", "sum", "none"}, default "mean"
        Over all entries.

    Returns
    -------
    float, or ndarray in the shape of `mean`
        In nats; summed in float64.  An array for ``"none"``, float32 if `mean` is, else float64.  A mean
        over nothing is 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.  The shapes must be equal: nothing is broadcast.

    Examples
    --------
    >>> round(gaussian_nll_loss([0.0], [0.0], [0.0]), 4)  # log(2 pi) / 2
    0.9189
    >>> gaussian_nll_loss([0.0, 0.0], [0.0, 2.0], [3.0, 3.0], "none").round(4)
    array([5.4189, 2.5279])
    """
    check_choice(reduction, "reduction", _REDUCTIONS)
    given = _Normal(mean, log_variance, target)
    with np.errstate(all="ignore"):
        nats = (math.log(2 * math.pi) + given.log_variance + given.error * given.error) / 2
        return _reduced(np.asarray(nats), reduction)


def gaussian_nll_loss_backward(
    mean: ArrayLike,
    log_variance: ArrayLike,
    target: ArrayLike,
    reduction: Reduction | Literal["none"] = "mean",
    *,
    grad_output: ArrayLike = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Gradients of `gaussian_nll_loss`, :math:`(mean - target) / \sigma^2` and
    :math:`\tfrac12 (1 - (target - mean)^2 / \sigma^2)`.

    Parameters
    ----------
    mean : array of real numbers, any shape
        Not modified.
    log_variance, target : array of real numbers, in the same shape
        Cast to the dtype of `mean`.
    reduction : {"mean", "sum", "none"}, default "mean"
        As given to `gaussian_nll_loss`.
    grad_output : float, or array in the shape of `mean` for ``"none"``, default 1.0
        Gradient of what comes after the loss.

    Returns
    -------
    grad_mean : ndarray in the shape of `mean`
        That for the target is its negative.
    grad_log_variance : ndarray in the shape of `mean`
        Both are float32 if `mean` is, else float64.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.  The shapes must be equal: nothing is broadcast.

    Examples
    --------
    >>> grad_mean, grad_log_variance = gaussian_nll_loss_backward([0.0, 0.0], [0.0, 0.0], [0.0, 3.0], "sum")
    >>> grad_mean, grad_log_variance
    (array([ 0., -3.]), array([ 0.5, -4. ]))
    """
    check_choice(reduction, "reduction", _REDUCTIONS)
    given = _Normal(mean, log_variance, target)
    scale = _scale(grad_output, reduction, given.mean)
    with np.errstate(all="ignore"):
        grad_mean = _times(given.error, given.precision) * scale
        grad_log_variance = (1 - given.error * given.error) / 2 * scale
    return np.asarray(grad_mean), np.asarray(grad_log_variance)


class _Normal:
    """Checked arguments of `gaussian_nll_loss`.

    Attributes
    ----------
    mean, log_variance : ndarray
    precision : ndarray
        The reciprocal of the standard deviation, whose range is wider than that of its square.
    error : ndarray
        (mean - target) times that.
    """

    def __init__(self, mean: Any, log_variance: Any, target: Any) -> None:
        self.mean = _real(mean, "mean")
        self.log_variance = _same_shape(log_variance, "log_variance", self.mean, "mean")
        wanted = _same_shape(target, "target", self.mean, "mean")
        with np.errstate(all="ignore"):
            self.precision = np.asarray(np.exp(self.log_variance / -2))
            self.error = _times(np.asarray(self.mean - wanted), self.precision)


def _times(error: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Their product; no error is none, however large the precision."""
    product = np.asarray(error * precision)
    product[(error == 0) & (precision == np.inf)] = 0
    return product


# ---- both ------------------------------------------------------------------------------------------


def _same_shape(value: Any, name: str, like: np.ndarray, argument: str) -> np.ndarray:
    """`value` as real numbers in the shape and dtype of `like`, which is another argument."""
    array = _real(value, name)
    if array.shape != like.shape:
        raise ValueError(
            f"{name} must have the shape of {argument}, {like.shape} (nothing is broadcast), got {array.shape}"
        )
    with np.errstate(over="ignore"):  # what float32 does not hold is infinity
        return array.astype(like.dtype, copy=False)


def _scale(grad_output: Any, reduction: str, like: np.ndarray) -> np.ndarray:
    """What the gradient of each entry is multiplied by, in the dtype of `like`."""
    scale = _real(grad_output, "grad_output")
    if scale.shape and not (reduction == "none" and scale.shape == like.shape):
        wanted = f"() or {like.shape}" if reduction == "none" and like.ndim else "()"
        raise ValueError(f"grad_output must have shape {wanted}, got {scale.shape}")
    with np.errstate(over="ignore"):
        scale = scale.astype(like.dtype)
    return np.asarray(scale / (like.size or 1)) if reduction == "mean" else scale


def _reduced(each: np.ndarray, reduction: str) -> float | np.ndarray:
    if reduction == "none":
        return each
    total = float(each.sum(dtype=np.float64))
    return total if reduction == "sum" else total / (each.size or 1)
