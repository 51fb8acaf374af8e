"""The array functions that the classes are made of, for people who bring their own training loop.

Nothing here keeps state.  Arrays of float32 give float32 results; all other real numbers are taken as
float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, overload

import numpy as np

from fastrnn.checks import check_choice, check_number, check_rng, check_size, show_integer
from fastrnn.random_stream import UniformDraws

__all__ = [
    "clip_grad_norm",
    "clip_grad_value",
    "cross_entropy",
    "cross_entropy_backward",
    "log_softmax",
    "sample",
    "softmax",
]

_REDUCTIONS = ("mean", "sum", "none")

# -- softmax and cross-entropy ---------------------------------------------------------------------


def softmax(x: Any, axis: int = -1) -> np.ndarray:
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


def log_softmax(x: Any, axis: int = -1) -> np.ndarray:
    r"""Logarithm of `softmax`, :math:`x_i - \log \sum_j e^{x_j}`, finite where that underflows.

    Parameters
    ----------
    x : array of real numbers
        Logits; not modified.
    axis : int, default -1

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
def cross_entropy(logits: Any, targets: Any, reduction: Literal["mean", "sum"] = "mean") -> float: ...
@overload
def cross_entropy(logits: Any, targets: Any, reduction: Literal["none"]) -> np.ndarray: ...


def cross_entropy(logits: Any, targets: Any, reduction: str = "mean") -> float | np.ndarray:
    r"""Softmax cross-entropy, :math:`-\log p_{target}` (eqs. 5, 6).

    Parameters
    ----------
    logits : array of real numbers, shape (..., q)
        Not modified.
    targets : array of int, shape (...)
        Class of each row, in ``[-q, q)``.
    reduction : {"mean", "sum", "none"}, default "mean"
        Over all rows.

    Returns
    -------
    float, or ndarray of shape (...)
        In nats; summed in float64.  An array for ``"none"``.

    Raises
    ------
    IndexError
        If a target is out of bounds.
    TypeError, ValueError
        If an argument has the wrong type or shape, or the mean is over nothing.

    Examples
    --------
    >>> round(cross_entropy(np.zeros((3, 10)), [0, 1, 2]), 4)
    2.3026
    """
    check_choice(reduction, "reduction", _REDUCTIONS)
    rows, _ = _logits(logits, "logits", -1)
    classes = _classes(targets, rows)
    _refuse_empty_mean(reduction, classes)
    with np.errstate(all="ignore"):
        chosen = np.take_along_axis(log_softmax(rows), classes[..., None], axis=-1)[..., 0]
        nats: np.ndarray = rows.dtype.type(0) - chosen  # not -0 where the loss is 0
        if reduction == "none":
            return nats
        return float(nats.mean(dtype=np.float64) if reduction == "mean" else nats.sum(dtype=np.float64))


def cross_entropy_backward(
    logits: Any, targets: Any, reduction: str = "mean", *, grad_output: Any = 1.0
) -> np.ndarray:
    r"""Gradient of `cross_entropy` for the logits, :math:`p - y` (eq. 7), y the one-hot targets.

    Parameters
    ----------
    logits : array of real numbers, shape (..., q)
        Not modified.
    targets : array of int, shape (...)
        Class of each row, in ``[-q, q)``.
    reduction : {"mean", "sum", "none"}, default "mean"
        As given to `cross_entropy`; the mean divides by the number of rows.
    grad_output : float, or array of shape (...) for ``"none"``, default 1.0
        Gradient of what comes after the loss.

    Returns
    -------
    ndarray, shape (..., q)

    Raises
    ------
    IndexError
        If a target is out of bounds.
    TypeError, ValueError
        If an argument has the wrong type or shape, or the mean is over nothing.

    Examples
    --------
    >>> cross_entropy_backward([[0.0, 0.0], [0.0, 0.0]], [0, 1])
    array([[-0.25,  0.25],
           [ 0.25, -0.25]])
    """
    check_choice(reduction, "reduction", _REDUCTIONS)
    rows, _ = _logits(logits, "logits", -1)
    classes = _classes(targets, rows)
    _refuse_empty_mean(reduction, classes)
    scale = _real(grad_output, "grad_output").astype(rows.dtype)
    if scale.shape and not (reduction == "none" and scale.shape == classes.shape):
        wanted = f"() or {classes.shape}" if reduction == "none" else "()"
        raise ValueError(f"grad_output must have shape {wanted}, got {scale.shape}")
    with np.errstate(all="ignore"):
        dlogits = softmax(rows)
        chosen = classes[..., None]
        np.put_along_axis(dlogits, chosen, np.take_along_axis(dlogits, chosen, axis=-1) - 1, axis=-1)
        if reduction == "mean":
            scale = scale / rows.dtype.type(classes.size)
        dlogits *= scale[..., None]
    return dlogits


# -- gradient clipping -----------------------------------------------------------------------------


def clip_grad_norm(grads: Mapping[Any, np.ndarray], max_norm: float) -> float:
    r"""Rescale gradients by their global norm, in place: :math:`g \tau / \max(\tau, \|g\|)` (eq. 15).

    Parameters
    ----------
    grads : dict of name to ndarray, float32 or float64
        Writable; modified in place.  An array that stands there under several names counts for each, and
        is rescaled once.
    max_norm : float
        The largest norm :math:`\tau` that stays as it is, positive; infinity clips nothing.

    Returns
    -------
    float
        Euclidean norm over all entries of all arrays before clipping, in float64.

    Raises
    ------
    TypeError, ValueError
        If `grads` or an array in it is not as above, or `max_norm` is not a positive number; nothing is
        modified then.

    Notes
    -----
    `torch.nn.utils.clip_grad_norm_` divides by the norm plus 1e-6; here the norm is just `max_norm`
    afterwards, as eq. 15 has it.  As there, a norm that is NaN makes all gradients NaN, and an infinite
    one makes the finite entries 0.

    Examples
    --------
    >>> grads = {"W": np.array([6.0, 8.0])}
    >>> clip_grad_norm(grads, 5.0)
    10.0
    >>> grads["W"]
    array([3., 4.])
    """
    arrays = _gradients(grads)
    max_norm = check_number(max_norm, "max_norm", positive=True, finite=False)
    norms = [_norm(g) for g in arrays]
    norm = math.nan if any(map(math.isnan, norms)) else math.hypot(*norms)
    if not norm <= max_norm:
        with np.errstate(all="ignore"):
            for g in {id(g): g for g in arrays}.values():
                g *= max_norm / norm
    return norm


def clip_grad_value(grads: Mapping[Any, np.ndarray], threshold: float) -> None:
    r"""Clamp every entry of the gradients to :math:`[-\tau, \tau]`, in place.

    Parameters
    ----------
    grads : dict of name to ndarray, float32 or float64
        Writable; modified in place.  NaN stays.
    threshold : float
        The largest magnitude :math:`\tau`, positive; infinity clips nothing.

    Raises
    ------
    TypeError, ValueError
        If `grads` or an array in it is not as above, or `threshold` is not a positive number; nothing is
        modified then.

    Examples
    --------
    >>> grads = {"W": np.array([-7.0, 2.0])}
    >>> clip_grad_value(grads, 5.0)
    >>> grads["W"]
    array([-5.,  2.])
    """
    arrays = _gradients(grads)
    threshold = check_number(threshold, "threshold", positive=True, finite=False)
    with np.errstate(over="ignore"):  # a threshold beyond float32 is infinity
        for g in arrays:
            np.clip(g, -threshold, threshold, out=g)


# -- sampling --------------------------------------------------------------------------------------


def sample(
    logits: Any,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: np.random.Generator | int | None = None,
) -> np.ndarray:
    r"""Draw a class from each row of logits, with the probabilities ``softmax(logits / temperature)``.

    Parameters
    ----------
    logits : array of real numbers, shape (..., q)
        Not modified.  For probabilities give their logarithm.
    temperature : float, default 1.0
        At least 0.  Lower is more predictable; 0 takes the most probable class.
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
        most_probable: np.ndarray = rows.argmax(axis=1).astype(np.int64)
        return most_probable.reshape(shape)
    with np.errstate(all="ignore"):
        p = np.exp((rows.astype(np.float64) - top) / temperature)
    if kept < q or mass < 1:
        _keep_most_probable(p, kept, mass)
    cdf = np.cumsum(p, axis=1)
    cdf /= cdf[:, -1:]
    # The first whose cumulative probability is greater: as searchsorted(side="right") in each row.
    drawn: np.ndarray = (cdf <= uniforms[:, None]).sum(axis=1, dtype=np.int64)
    return np.minimum(drawn, q - 1, out=drawn).reshape(shape)


def _keep_most_probable(p: np.ndarray, top_k: int, top_p: float) -> None:
    """Set to 0, in each row, what is not among the `top_k` and of these not needed to reach `top_p`."""
    order = np.argsort(-p, axis=1, kind="stable")
    cumulative = np.cumsum(np.take_along_axis(p, order[:, :top_k], axis=1), axis=1)
    # One is needed while those before it have not reached the mass.
    needed = np.ones(cumulative.shape, bool)
    if top_p < 1:
        needed[:, 1:] = cumulative[:, :-1] < top_p * cumulative[:, -1:]
    keep = np.zeros(p.shape, bool)
    np.put_along_axis(keep, order[:, :top_k], needed, axis=1)
    p[~keep] = 0


# -- checks ----------------------------------------------------------------------------------------


def _real(value: Any, name: str) -> np.ndarray:
    """`value` as an array of float32, if it is one, or float64."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(
            f"{name} cannot be made an array: {error}"
        ) from None
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got {type(value).__name__} of dtype {array.dtype}")
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


def _classes(targets: Any, rows: np.ndarray) -> np.ndarray:
    """Targets of the rows as int64 in [0, q)."""
    try:
        array = np.asarray(targets)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"targets cannot be made an array: {error}") from None
    q = rows.shape[-1]
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(
            f"targets must hold integers (class indices), got {type(targets).__name__} of dtype {array.dtype}"
        )
    if array.shape != rows.shape[:-1]:
        raise ValueError(
            f"targets must have shape {rows.shape[:-1]}, one for each row of logits, got {array.shape}"
        )
    bad = (array < -q) | (array >= q)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise IndexError(f"targets{list(at) if at else ''} is {array[at]}, outside [-{q}, {q})")
    classes = array.astype(np.int64)
    return np.where(classes < 0, classes + q, classes)


def _refuse_empty_mean(reduction: str, classes: np.ndarray) -> None:
    if reduction == "mean" and not classes.size:
        raise ValueError(f"the mean needs at least one target, got targets of shape {classes.shape}")


def _gradients(grads: Any) -> list[np.ndarray]:
    """Arrays of a dict, which may be modified in place."""
    if not isinstance(grads, Mapping):
        raise TypeError(f"grads must be a mapping from name to array, got {type(grads).__name__}")
    for name, g in grads.items():
        if not isinstance(g, np.ndarray):
            raise TypeError(f"grads[{name!r}] must be an ndarray, got {type(g).__name__}")
        if g.dtype not in (np.float32, np.float64):
            raise TypeError(f"grads[{name!r}] must be of dtype float32 or float64, got {g.dtype}")
        if not g.flags.writeable:
            raise ValueError(f"grads[{name!r}] is read-only, and would be clipped in place")
    return list(grads.values())


def _norm(g: np.ndarray) -> float:
    """Euclidean norm, where a sum of squares would overflow or underflow too."""
    wide = g.astype(np.float64, copy=False).reshape(-1)
    with np.errstate(all="ignore"):
        squares = float(np.vdot(wide, wide))
        if 1e-280 < squares < math.inf:
            return math.sqrt(squares)
        largest = float(np.abs(wide).max(initial=0.0))
        if largest == 0 or not math.isfinite(largest):
            return largest
        return largest * float(np.linalg.norm(wide / largest))
