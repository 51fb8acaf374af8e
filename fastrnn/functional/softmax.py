"""Softmax over classes, the cross-entropy of its result, and draws from it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from fastrnn.checks import (
    IGNORED,
    as_array,
    check_choice,
    check_number,
    check_real_array,
    check_rng,
    check_size,
    describe,
    show_integer,
    target_error,
)
from fastrnn.random_stream import UniformDraws

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import Reduction, Seed

__all__ = ["cross_entropy", "cross_entropy_backward", "log_softmax", "sample", "softmax"]


_REDUCTIONS = ("mean", "sum", "none")

#: Powers of two between the largest factor of a class and the largest number: sums of products with losses need them.
_ROOM = 30


def softmax(x: ArrayLike, axis: int = -1) -> np.ndarray:
    r"""Probabilities from logits, :math:`p_i = e^{x_i} / \sum_j e^{x_j}` (eqs. 16, 17).

    Parameters
    ----------
    x : array of real numbers
        Logits; not modified.
    axis : int, default -1
        Along which the probabilities sum to 1.

    Returns
    -------
    ndarray
        In the shape of `x`.  Minus infinity has the probability 0; rows that hold NaN or infinity, or
        nothing but minus infinity, are NaN.

    Raises
    ------
    TypeError, ValueError
        If `x` does not hold real numbers, or has no such axis, or nothing along it.

    Examples
    --------
    >>> softmax([0.0, 0.0, -np.inf])
    array([0.5, 0.5, 0. ])
    """
    logits, axis = _logits(x, "x", axis)
    with np.errstate(all="ignore"):
        p: np.ndarray = np.exp(logits - logits.max(axis=axis, keepdims=True))
        p /= p.sum(axis=axis, keepdims=True)
    return p


def log_softmax(x: ArrayLike, axis: int = -1) -> np.ndarray:
    r"""Logarithm of `softmax`, :math:`x_i - \log \sum_j e^{x_j}`, finite where that underflows.

    Parameters
    ----------
    x : array of real numbers
        Logits; not modified.
    axis : int, default -1
        Along which the probabilities sum to 1.

    Returns
    -------
    ndarray
        In the shape of `x`, in nats.

    Raises
    ------
    TypeError, ValueError
        As `softmax`.

    Examples
    --------
    >>> log_softmax([0.0, -1000.0])
    array([    0., -1000.])
    """
    logits, axis = _logits(x, "x", axis)
    with np.errstate(all="ignore"):
        shifted: np.ndarray = logits - logits.max(axis=axis, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return shifted


@overload
def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    reduction: Reduction = "mean",
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = IGNORED,
    label_smoothing: float = 0.0,
) -> float: ...
@overload
def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    reduction: Literal["none"],
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = IGNORED,
    label_smoothing: float = 0.0,
) -> np.ndarray: ...


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    reduction: Reduction | Literal["none"] = "mean",
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = IGNORED,
    label_smoothing: float = 0.0,
) -> float | np.ndarray:
    r"""Softmax cross-entropy, :math:`-\log p_{target}` (eqs. 5, 6), as that of PyTorch.

    Parameters
    ----------
    logits : array of real numbers, shape (..., q)
        Not modified.  The classes are along the last axis.
    targets : array of int, shape (...)
        Class of each row, in ``[0, q)``, or `ignore_index`.
    reduction : {"mean", "sum", "none"}, default "mean"
        Over all rows that count.
    weight : array of real numbers, shape (q,), or None
        Factor of each class; the mean divides by the sum of the targets' factors.  None for ones.
    ignore_index : int, default -100
        A row with this target counts for nothing, whether it is a class or not.
    label_smoothing : float, default 0.0
        From 0 to 1: a row's loss is that share of the mean over all classes taken as the target, and
        the rest that of its own target.

    Returns
    -------
    float, or ndarray of shape (...)
        In nats; summed in float64.  An array for ``"none"``, 0 where a row does not count.  A mean over
        nothing, or over factors that sum to 0, is 0.

    Raises
    ------
    IndexError
        If a target is out of bounds.
    TypeError, ValueError
        If an argument has the wrong type, shape or range.

    Examples
    --------
    >>> round(cross_entropy(np.zeros((3, 10)), [0, 1, 2]), 4)
    2.3026
    >>> cross_entropy(np.log([[0.5, 0.5], [0.1, 0.9]]), [0, -100], "none").round(4)
    array([0.6931, 0.    ])
    """
    given = _Targets(logits, targets, reduction, weight, ignore_index, label_smoothing)
    rows, classes, dtype = given.rows, given.classes, given.rows.dtype.type
    with np.errstate(all="ignore"):
        logs = log_softmax(rows)
        chosen = np.take_along_axis(logs, classes[..., None], axis=-1)[..., 0]
        nats = np.asarray(dtype(0) - chosen)  # not -0 where the loss is 0
        if given.factors is not None:
            nats *= given.factors[classes]
        if given.smoothing:
            nats *= dtype(1 - given.smoothing)
            if given.factors is not None:
                logs *= given.factors
            nats -= logs.sum(axis=-1) * dtype(given.smoothing / rows.shape[-1])
        nats[~given.counts] = 0  # whatever the logits are
        if reduction == "none":
            each: np.ndarray = nats[()]
            return each
        total = float(nats.sum(dtype=np.float64))
        return total if reduction == "sum" else total / given.divisor if given.divisor else 0.0


def cross_entropy_backward(
    logits: ArrayLike,
    targets: ArrayLike,
    reduction: Reduction | Literal["none"] = "mean",
    *,
    grad_output: ArrayLike = 1.0,
    weight: ArrayLike | None = None,
    ignore_index: int = IGNORED,
    label_smoothing: float = 0.0,
) -> np.ndarray:
    r"""Gradient of `cross_entropy` for the logits, :math:`p - y` (eq. 7), y the one-hot targets.

    Parameters
    ----------
    logits : array of real numbers, shape (..., q)
        Not modified.
    targets : array of int, shape (...)
        Class of each row, in ``[0, q)``, or `ignore_index`.
    reduction, weight, ignore_index, label_smoothing
        As given to `cross_entropy`.
    grad_output : float, or array of shape (...) for ``"none"``, default 1.0
        Gradient of what comes after the loss.

    Returns
    -------
    ndarray, shape (..., q)
        0 in rows that do not count.

    Raises
    ------
    IndexError
        If a target is out of bounds.
    TypeError, ValueError
        If an argument has the wrong type, shape or range.

    Examples
    --------
    >>> cross_entropy_backward([[0.0, 0.0], [0.0, 0.0]], [0, 1])
    array([[-0.25,  0.25],
           [ 0.25, -0.25]])
    """
    given = _Targets(logits, targets, reduction, weight, ignore_index, label_smoothing)
    rows, classes, dtype = given.rows, given.classes, given.rows.dtype.type
    scale = _real(grad_output, "grad_output").astype(dtype)
    if scale.shape and not (reduction == "none" and scale.shape == classes.shape):
        wanted = f"() or {classes.shape}" if reduction == "none" else "()"
        raise ValueError(f"grad_output must have shape {wanted}, got {scale.shape}")
    with np.errstate(all="ignore"):
        dlogits = softmax(rows)
        chosen = classes[..., None]
        smooth = None
        if given.smoothing:
            factors = np.ones(rows.shape[-1], dtype) if given.factors is None else given.factors
            smooth = (dlogits * factors.sum() - factors) * dtype(given.smoothing / rows.shape[-1])
        np.put_along_axis(dlogits, chosen, np.take_along_axis(dlogits, chosen, axis=-1) - 1, axis=-1)
        if given.factors is not None:
            dlogits *= given.factors[chosen]
        if smooth is not None:
            dlogits *= dtype(1 - given.smoothing)
            dlogits += smooth
        if reduction == "mean":
            scale = scale / dtype(given.divisor or 1)
        dlogits *= scale[..., None]
        dlogits[... if reduction == "mean" and not given.divisor else ~given.counts] = 0
    return dlogits


class _Targets:
    """Checked arguments of `cross_entropy`.

    Attributes
    ----------
    rows : ndarray, shape (..., q)
        The logits.
    classes : ndarray of int64, shape (...)
        In [0, q); 0 where a row does not count.
    counts : ndarray of bool, shape (...)
    factors : ndarray, shape (q,), or None
        In the dtype of the logits.  For a mean, in units of the largest that a target has (of a power of two near
        it): only their ratios matter then, and a sum of tiny ones would have an infinite reciprocal.
    smoothing : float
    divisor : float
        What the mean divides by, in the same units.
    """

    def __init__(
        self, logits: Any, targets: Any, reduction: Any, weight: Any, ignore_index: Any, label_smoothing: Any
    ) -> None:
        check_choice(reduction, "reduction", _REDUCTIONS)
        self.rows, _ = _logits(logits, "logits", -1)
        q = self.rows.shape[-1]
        if isinstance(ignore_index, (bool, np.bool_)) or not isinstance(ignore_index, (int, np.integer)):
            raise TypeError(f"ignore_index must be an integer, got {describe(ignore_index)}")
        array = as_array(targets, "targets")
        if array.dtype.kind not in "iu" and array.size:
            raise TypeError(f"targets must hold integers (class indices), got {describe(targets, array)}")
        if array.shape != self.rows.shape[:-1]:
            raise ValueError(
                f"targets must have shape {self.rows.shape[:-1]}, one for each row of logits, got {array.shape}"
            )
        self.counts = np.asarray(array != int(ignore_index))
        bad = self.counts & ((array < 0) | (array >= q))
        if bad.any():
            place = np.unravel_index(int(bad.argmax()), bad.shape)
            raise target_error("targets", place, array[place], q, int(ignore_index))
        self.classes = np.where(self.counts, array, 0).astype(np.int64)
        self.factors = None
        if weight is not None:
            self.factors = check_real_array(weight, "weight", self.rows.dtype, (q,))
        self.smoothing = check_number(label_smoothing, "label_smoothing")
        if not 0 <= self.smoothing <= 1:
            raise ValueError(f"label_smoothing must be from 0 to 1, got {self.smoothing}")
        if self.factors is None:
            self.divisor = float(np.count_nonzero(self.counts))
        else:
            with np.errstate(all="ignore"):
                if reduction == "mean":
                    sizes = np.abs(self.factors)
                    power = -np.frexp(sizes[self.classes[self.counts]].max(initial=0))[1]
                    if self.smoothing:  # which takes those of all classes
                        most = np.finfo(sizes.dtype).maxexp - _ROOM
                        power = min(power, most - np.frexp(sizes.max())[1])
                    self.factors = np.ldexp(self.factors, power)
                self.divisor = float(self.factors[self.classes[self.counts]].sum(dtype=np.float64))


def sample(
    logits: ArrayLike,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: Seed = None,
) -> np.ndarray:
    r"""Draw a class from each row of logits, with the probabilities ``softmax(logits / temperature)``.

    Parameters
    ----------
    logits : array of real numbers, shape (..., q)
        Not modified.  For probabilities give their logarithm.
    temperature : float, default 1.0
        At least 0; the logits are divided by it.  Below 1 the draws play safe, above 1 they dare more; 0
        always takes the most probable class.
    top_k : int or None
        Draw from the `top_k` most probable classes only.
    top_p : float or None
        Draw only from the fewest most probable classes whose probabilities sum to at least `top_p`, in
        (0, 1]; of those that `top_k` left, if both are given.
    rng : numpy.random.Generator, int or None
        An int is a seed; None draws from NumPy's global stream.  One uniform number is drawn for each
        row, whatever the other arguments are.

    Returns
    -------
    ndarray of int64, shape (...)
        Class indices in ``[0, q)``.  Of classes of equal probability, the lower index is the more probable
        one for `top_k`, `top_p` and temperature 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or a row holds NaN or infinity or nothing but minus infinity; the
        random stream is left as it was.

    Examples
    --------
    >>> sample(np.log([[0.25, 0.75], [1e-30, 1.0]]), rng=0)
    array([1, 1])
    >>> sample([1.0, 3.0, 2.0], temperature=0)
    array(1)
    """
    rows, _ = _logits(logits, "logits", -1)
    temperature = check_number(temperature, "temperature")
    if temperature < 0:
        raise ValueError(f"temperature must be at least 0, got {temperature}")
    q = rows.shape[-1]
    kept = q if top_k is None else min(check_size(top_k, "top_k"), q)
    mass = 1.0 if top_p is None else check_number(top_p, "top_p", positive=True)
    if mass > 1:
        raise ValueError(f"top_p must be in (0, 1], got {mass}")
    generator = check_rng(rng)
    shape = rows.shape[:-1]
    rows = rows.reshape(math.prod(shape), q)
    top = rows.max(axis=1, keepdims=True)
    bad = ~np.isfinite(top[:, 0])  # NaN in a row is its largest entry
    if bad.any():
        at = np.unravel_index(int(bad.argmax()), shape)
        raise ValueError(
            f"logits{[int(i) for i in at] if shape else ''} make no probabilities: they hold NaN or "
            f"infinity, or nothing but minus infinity"
        )
    uniforms = UniformDraws(generator, len(rows)).values
    if temperature == 0:
        return np.asarray(rows.argmax(axis=1), np.int64).reshape(shape)
    with np.errstate(all="ignore"):
        p = np.exp((rows.astype(np.float64) - top) / temperature)
    if kept < q or mass < 1:
        _keep_most_probable(p, rows, kept, mass)
    cdf = np.cumsum(p, axis=1)
    cdf /= cdf[:, -1:]
    # The first whose cumulative probability is greater: as searchsorted(side="right") in each row.
    drawn: np.ndarray = (cdf <= uniforms[:, None]).sum(axis=1, dtype=np.int64)
    np.minimum(drawn, q - 1, out=drawn)
    return drawn.reshape(shape)


def _keep_most_probable(p: np.ndarray, logits: np.ndarray, top_k: int, top_p: float) -> None:
    """Set to 0, in each row, what is not among the `top_k` and of these not needed to reach `top_p`."""
    order = np.argsort(-logits, axis=1, kind="stable")  # probabilities may be equal by rounding
    cumulative = np.cumsum(np.take_along_axis(p, order[:, :top_k], axis=1), axis=1)
    # One is needed while those before it have not reached the mass.
    needed = np.ones(cumulative.shape, bool)
    if top_p < 1:
        needed[:, 1:] = cumulative[:, :-1] < top_p * cumulative[:, -1:]
    keep = np.zeros(p.shape, bool)
    np.put_along_axis(keep, order[:, :top_k], needed, axis=1)
    p[~keep] = 0


def _real(value: Any, name: str) -> np.ndarray:
    """`value` as an array of float32, if it is one, or float64."""
    array = as_array(value, name)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got {describe(value, array)}")
    single = array.dtype.newbyteorder("=") == np.float32
    converted: np.ndarray = array.astype(np.float32 if single else np.float64, copy=False)
    return converted


def _logits(value: Any, name: str, axis: Any) -> tuple[np.ndarray, int]:
    """`value` as real numbers with something along the axis, and that counted from the start."""
    array = _real(value, name)
    if isinstance(axis, (bool, np.bool_)) or not isinstance(axis, (int, np.integer)):
        raise TypeError(f"axis must be an integer, got {type(axis).__name__}")
    if not array.ndim:
        raise ValueError(f"{name} must have at least one dimension, got a single number")
    if not -array.ndim <= axis < array.ndim:
        raise ValueError(
            f"axis must be in [-{array.ndim}, {array.ndim}), got {show_integer(int(axis))} for {name} of "
            f"shape {array.shape}"
        )
    if not array.shape[axis]:
        raise ValueError(f"{name} must hold at least one class along axis {axis}, got shape {array.shape}")
    return array, int(axis) % array.ndim
