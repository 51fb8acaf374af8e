"""A linear layer, forward and backward."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import check_real_array
from fastrnn.functional.softmax import _real

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["linear", "linear_backward"]


def linear(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> np.ndarray:
    r"""Output of a linear layer, :math:`x W^T + b`, as that of PyTorch.

    Parameters
    ----------
    x : array of real numbers, shape (..., n)
        Not modified.  Any number of axes before the last one, none as well.
    weight : array of real numbers, shape (m, n)
        W.
    bias : array of real numbers, shape (m,), or None
        b; None for zeros.

    Returns
    -------
    ndarray, shape (..., m)
        float32 if `weight` is, else float64; the other arguments are cast to that.

    Raises
    ------
    TypeError, ValueError
        If an argument does not hold real numbers, or its shape does not fit.

    Examples
    --------
    >>> linear([[1.0, 2.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 1.0], [0.0, 3.0]], [0.0, 0.5, 0.0])
    array([[1. , 3.5, 6. ],
           [0. , 1.5, 3. ]])
    """
    W = _weight(weight)
    m, n = W.shape
    with np.errstate(all="ignore"):
        rows, shape = _rows(x, "x", n, "columns", W)
        b = None if bias is None else check_real_array(bias, "bias", W.dtype, (m,))
        output: np.ndarray = rows @ W.T
        if b is not None:
            output += b
    return output.reshape(*shape, m)


def linear_backward(
    grad_output: ArrayLike, x: ArrayLike, weight: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Gradients of `linear`: with :math:`g` for the output, :math:`g W`, :math:`g^T x` and the sum of `g`.

    Parameters
    ----------
    grad_output : array of real numbers, shape (..., m)
        Gradient of the loss with respect to the output; not modified.
    x, weight
        As given to `linear`, shapes (..., n) and (m, n).

    Returns
    -------
    grad_x : ndarray, shape (..., n)
    grad_weight : ndarray, shape (m, n)
        Summed over all axes of `x` before the last one.
    grad_bias : ndarray, shape (m,)
        The same, for a bias if there was one.  All three are float32 if `weight` is, else float64.

    Raises
    ------
    TypeError, ValueError
        If an argument does not hold real numbers, or its shape does not fit.

    Examples
    --------
    >>> x, weight = [[1.0, 2.0], [0.0, 1.0]], [[1.0, 3.0]]
    >>> grad_x, grad_weight, grad_bias = linear_backward([[1.0], [10.0]], x, weight)
    >>> grad_x
    array([[ 1.,  3.],
           [10., 30.]])
    >>> grad_weight, grad_bias
    (array([[ 1., 12.]]), array([11.]))
    """
    W = _weight(weight)
    m, n = W.shape
    with np.errstate(all="ignore"):
        rows, shape = _rows(x, "x", n, "columns", W)
        grads, outer = _rows(grad_output, "grad_output", m, "rows", W)
        if outer != shape:
            raise ValueError(
                f"grad_output must have shape {(*shape, m)}, that of the output for x of shape {(*shape, n)}, got "
                f"{(*outer, m)}"
            )
        grad_bias = grads.sum(axis=0, dtype=np.float64).astype(W.dtype)
        return (grads @ W).reshape(*shape, n), grads.T @ rows, grad_bias


def _weight(value: Any) -> np.ndarray:
    W = _real(value, "weight")
    if W.ndim != 2:
        raise ValueError(f"weight must have shape (m, n), got {W.shape}")
    return W


def _rows(value: Any, name: str, width: int, what: str, W: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """`value` as a matrix of `width` columns in the dtype of W, and the shape of what the rows are."""
    array = _real(value, name)
    if array.shape[-1:] != (width,):
        raise ValueError(
            f"{name} must have shape (..., {width}), as weight of shape {W.shape} has {width} {what}, got {array.shape}"
        )
    shape = array.shape[:-1]
    return array.astype(W.dtype, copy=False).reshape(math.prod(shape), width), shape
