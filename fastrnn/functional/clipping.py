"""Clipping of gradients by their norm or their entries (eq. 15)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import check_number
from fastrnn.errors import brief
from fastrnn.functional.norms import norm_in_float64

if TYPE_CHECKING:
    pass

__all__ = ["clip_grad_norm", "clip_grad_value"]


def clip_grad_norm(grads: Mapping[Any, np.ndarray] | Sequence[np.ndarray], max_norm: float) -> float:
    r"""Rescale gradients by their global norm, in place: :math:`g \tau / \max(\tau, \|g\|)` (eq. 15).

    Parameters
    ----------
    grads : dict of name to ndarray, float32 or float64
        Writable, in any memory order; modified in place.  Or a tuple or list of such arrays.  An array
        that stands there under several names counts for each, and is rescaled once.
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
    norms = [norm_in_float64(g) for g in arrays]
    norm = math.nan if any(map(math.isnan, norms)) else math.hypot(*norms)
    if not norm <= max_norm:
        with np.errstate(all="ignore"):
            for g in {id(g): g for g in arrays}.values():
                g *= max_norm / norm
    return norm


def clip_grad_value(grads: Mapping[Any, np.ndarray] | Sequence[np.ndarray], threshold: float) -> None:
    r"""Clamp every entry of the gradients to :math:`[-\tau, \tau]`, in place.

    Parameters
    ----------
    grads : dict of name to ndarray, float32 or float64
        Writable, in any memory order; modified in place.  NaN stays.  Or a tuple or list of such arrays.
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


def _gradients(grads: Any) -> list[np.ndarray]:
    """Arrays of a dict, tuple or list, which may be modified in place."""
    if not isinstance(grads, (Mapping, tuple, list)):
        raise TypeError(
            f"grads must be a mapping from name to array, or a tuple or list of arrays, got "
            f"{type(grads).__name__}"
        )
    arrays = grads if isinstance(grads, Mapping) else dict(enumerate(grads))
    for name, g in arrays.items():
        if not isinstance(g, np.ndarray):
            raise TypeError(f"grads[{brief(name)}] must be an ndarray, got {type(g).__name__}")
        if g.dtype not in (np.float32, np.float64):
            raise TypeError(f"grads[{brief(name)}] must be of dtype float32 or float64, got {g.dtype}")
        if not g.flags.writeable:
            raise ValueError(f"grads[{brief(name)}] is read-only, and would be clipped in place")
    return list(arrays.values())
