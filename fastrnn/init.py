"""First values of weights, filled into arrays in place, under the names of ``torch.nn.init``.

Each function fills a writable array of float32 or float64, or a view of one, and returns it.  Numbers are
computed in float64 and then rounded; they come from `rng`, never from NumPy's global stream.

Examples
--------
>>> from fastrnn import RNN, init
>>> rnn = RNN(2, 100, nonlinearity="relu", rng=0)
>>> W = init.eye_(rnn.parameters["weight_hh_l0"])  # a state stays as it is until an input changes it
>>> float(W.sum())
100.0
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import check_number, check_rng

if TYPE_CHECKING:
    from fastrnn.hints import Seed

__all__ = ["eye_", "normal_", "orthogonal_", "spectral_radius_", "uniform_"]


def __dir__() -> list[str]:
    return sorted(__all__)


def uniform_(array: np.ndarray, a: float = 0.0, b: float = 1.0, rng: Seed = None) -> np.ndarray:
    """Fill an array with draws from a uniform distribution.

    Parameters
    ----------
    array : ndarray of float32 or float64, any shape
        Filled in place.
    a, b : float, default 0.0 and 1.0
        Where the draws begin and end; `b` is at least `a`.
    rng : numpy.random.Generator, int or None
        An int is a seed; None for a fresh stream.

    Returns
    -------
    ndarray
        `array`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or `array` is read-only; nothing is changed then.

    Examples
    --------
    >>> W = uniform_(np.empty((2, 3)), -0.5, 0.5, rng=0)
    >>> W.shape, bool((abs(W) <= 0.5).all())
    ((2, 3), True)
    """
    _check(array)
    low, high = _number(a, "a", array), _number(b, "b", array)
    if low > high:
        raise ValueError(f"a must be at most b, got {low} and {high}")
    if math.isinf(high - low):
        raise ValueError(f"a and b must not be farther apart than float64 holds, got {low} and {high}")
    array[...] = _generator(rng).uniform(low, high, array.shape)
    return array


def normal_(array: np.ndarray, mean: float = 0.0, std: float = 1.0, rng: Seed = None) -> np.ndarray:
    """Fill an array with draws from a normal distribution.

    Parameters
    ----------
    array : ndarray of float32 or float64, any shape
        Filled in place.
    mean : float, default 0.0
    std : float, default 1.0
        Standard deviation, at least 0.
    rng : numpy.random.Generator, int or None
        An int is a seed; None for a fresh stream.

    Returns
    -------
    ndarray
        `array`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or `array` is read-only; nothing is changed then.

    Examples
    --------
    >>> W = normal_(np.empty((100, 100)), std=0.01, rng=0)
    >>> round(float(W.std()), 3)
    0.01
    """
    _check(array)
    mean, std = _number(mean, "mean", array), _number(std, "std", array)
    if std < 0:
        raise ValueError(f"std must be at least 0, got {std}")
    array[...] = _generator(rng).normal(mean, std, array.shape)
    return array


def eye_(array: np.ndarray) -> np.ndarray:
    """Fill a matrix with the identity: ones on the diagonal, zeros elsewhere.

    As recurrent weights it lets a state pass from step to step unchanged: with ``nonlinearity="relu"`` and
    biases of zero that is the IRNN [1]_, which learns over more steps than small random weights do.

    Parameters
    ----------
    array : ndarray of float32 or float64, shape (m, n)
        Filled in place.  It need not be square: as many ones as its shorter side has entries.

    Returns
    -------
    ndarray
        `array`.

    Raises
    ------
    TypeError, ValueError
        If `array` is not as above, or read-only; it is not changed then.

    References
    ----------
    .. [1] Le, Jaitly, Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units",
           2015, https://arxiv.org/abs/1504.00941

    Examples
    --------
    >>> eye_(np.empty((2, 3)))
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    _check(array)
    if array.ndim != 2:
        raise ValueError(f"array must have shape (m, n), got {array.shape}")
    array[...] = np.eye(*array.shape)
    return array


def orthogonal_(array: np.ndarray, gain: float = 1.0, rng: Seed = None) -> np.ndarray:
    """Fill a matrix with a random orthogonal one.

    Rows or columns, whichever are fewer, have length 1 and are at right angles; of all such matrices each is
    as likely (Haar measure).  As recurrent weights it turns a state and keeps its length.

    Parameters
    ----------
    array : ndarray of float32 or float64, shape (m, n), or with more axes
        Filled in place; axes after the first are taken as one.
    gain : float, default 1.0
        What the matrix is multiplied by.
    rng : numpy.random.Generator, int or None
        An int is a seed; None for a fresh stream.

    Returns
    -------
    ndarray
        `array`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or `array` is read-only; nothing is changed then.

    Examples
    --------
    >>> W = orthogonal_(np.empty((2, 3)), rng=0)
    >>> bool(np.allclose(W @ W.T, np.eye(2)))
    True

    A gate of an LSTM at a time:

    >>> from fastrnn import LSTM
    >>> lstm = LSTM(3, 8, rng=0)
    >>> for gate in np.split(lstm.parameters["weight_hh_l0"], 4):
    ...     _ = orthogonal_(gate, rng=lstm.rng)
    """
    _check(array)
    if array.ndim < 2:
        raise ValueError(f"array must have at least two dimensions, got shape {array.shape}")
    gain = _number(gain, "gain", array)
    generator = _generator(rng)
    if not array.size:
        return array
    rows, columns = len(array), math.prod(array.shape[1:])
    draws = generator.normal(size=(rows, columns))
    Q, R = np.linalg.qr(draws.T if rows < columns else draws)
    Q *= np.where(np.diagonal(R) < 0, -gain, gain)  # else their signs would be those of the algorithm
    array[...] = (Q.T if rows < columns else Q).reshape(array.shape)
    return array


def spectral_radius_(array: np.ndarray, radius: float = 1.0, rng: Seed = None) -> np.ndarray:
    """Scale a square matrix to a spectral radius: its largest absolute eigenvalue.

    With `rng`, the matrix is drawn first: the recurrent weights of an echo-state network [1]_, which are not
    trained.

    Parameters
    ----------
    array : ndarray of float32 or float64, shape (n, n)
        Scaled in place.
    radius : float, default 1.0
        The largest absolute eigenvalue that it is to have, positive.
    rng : numpy.random.Generator, int or None
        With one of the first two (an int is a seed), `array` is filled with draws from a normal distribution
        before it is scaled, and what it held is not read.  None scales what it holds.

    Returns
    -------
    ndarray
        `array`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or `array` is read-only, holds NaN or infinity, has no eigenvalue but
        0 (to within rounding), or does not hold what it would be scaled to; nothing is changed then.

    References
    ----------
    .. [1] Jaeger, "The 'echo state' approach to analysing and training recurrent neural networks", 2001

    Examples
    --------
    >>> spectral_radius_(np.array([[0.0, 2.0], [-2.0, 0.0]]), 0.5)
    array([[ 0. ,  0.5],
           [-0.5,  0. ]])
    >>> reservoir = spectral_radius_(np.empty((50, 50)), 0.9, rng=0)
    >>> round(float(abs(np.linalg.eigvals(reservoir)).max()), 6)
    0.9
    """
    _check(array)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(f"array must be a square matrix (n, n), got shape {array.shape}")
    radius = _number(radius, "radius", array, positive=True)
    generator = check_rng(rng)
    if not array.size:
        return array
    if generator is None:
        W = array.astype(np.float64)
        if not np.isfinite(W).all():
            raise ValueError("array holds NaN or infinity, and has no spectral radius")
    else:
        before = generator.bit_generator.state
        W = generator.normal(size=array.shape)
    largest = np.abs(W).max()
    if largest:
        W /= largest
    found = 0.0 if _is_nilpotent(W) else float(np.abs(np.linalg.eigvals(W)).max())
    if not found:
        raise ValueError(
            "array must have an eigenvalue that is not 0 to be scaled, but has none, to within rounding"
        )
    with np.errstate(all="ignore"):
        scaled = (W * (radius / found)).astype(array.dtype)
    if not (np.isfinite(scaled).all() and scaled.any()):
        if generator is not None:
            generator.bit_generator.state = before
        raise ValueError(f"radius {radius} would need numbers that {array.dtype.name} does not hold")
    array[...] = scaled
    return array


def _is_nilpotent(W: np.ndarray) -> bool:
    """Whether a power of a matrix is zero, to within rounding: sums that cancel out.

    Eigenvalues do not tell: those of such a matrix are computed as large as the n-th root of a rounding.
    """
    power, exponent = W, 1
    rounding = 100 * len(W) * np.finfo(np.float64).eps
    while exponent < len(W):  # the n-th power would be zero
        squared = power @ power
        size = np.linalg.norm(squared)
        if size <= rounding * np.linalg.norm(np.abs(power) @ np.abs(power)):
            return True
        power, exponent = squared / size, 2 * exponent
    return False


# ---- checks ----------------------------------------------------------------------------------------


def _check(array: Any) -> None:
    """Refuse what cannot be filled."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"array must be an ndarray, which is filled in place, got {type(array).__name__}")
    if array.dtype.newbyteorder("=") not in (np.float32, np.float64):
        raise TypeError(f"array must be of dtype float32 or float64, got {array.dtype}")
    if not array.flags.writeable:
        raise ValueError("array is read-only, and would be filled in place")


def _number(value: Any, name: str, array: np.ndarray, *, positive: bool = False) -> float:
    """A number that the array can hold."""
    number = check_number(value, name, positive=positive)
    if abs(number) > float(np.finfo(array.dtype).max):
        raise ValueError(f"{name} must be a number that {array.dtype.name} holds, got {number}")
    return number


def _generator(rng: Any) -> np.random.Generator:
    generator = check_rng(rng)
    return np.random.default_rng() if generator is None else generator
