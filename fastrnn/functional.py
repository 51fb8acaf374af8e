"""The array functions that the classes are made of, for people who bring their own training loop.

Nothing here keeps state.  Arrays of float32 give float32 results; all other real numbers are taken as
float64.  Equation numbers are those of ``docs/notes.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from fastrnn import backends
from fastrnn.checks import (
    IGNORED,
    INDEX,
    NO_INDICES,
    as_array,
    check_choice,
    check_flag,
    check_index_batch,
    check_lengths,
    check_number,
    check_real_array,
    check_rng,
    check_size,
    check_steps,
    describe,
    show_integer,
    target_error,
)
from fastrnn.kernels import CLIP_NONE
from fastrnn.layout import Layout, aligned
from fastrnn.norms import norm_in_float64
from fastrnn.passes import Call, Gradients, Net, Space
from fastrnn.random_stream import UniformDraws

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import BackendName, Nonlinearity, Reduction, Seed

__all__ = [
    "clip_grad_norm",
    "clip_grad_value",
    "cross_entropy",
    "cross_entropy_backward",
    "log_softmax",
    "rnn_backward",
    "rnn_forward",
    "sample",
    "softmax",
]


def __dir__() -> list[str]:
    return sorted(__all__)


_REDUCTIONS = ("mean", "sum", "none")

# -- softmax and cross-entropy ---------------------------------------------------------------------


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
        In the dtype of the logits.
    smoothing : float
    divisor : float
        What the mean divides by.
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
            self.divisor = float(self.factors[self.classes[self.counts]].sum(dtype=np.float64))


# -- gradient clipping -----------------------------------------------------------------------------


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


# -- sampling --------------------------------------------------------------------------------------


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


# -- one recurrent layer ---------------------------------------------------------------------------


def rnn_forward(
    x: ArrayLike,
    h0: ArrayLike | None,
    parameters: Mapping[str, np.ndarray],
    *,
    nonlinearity: Nonlinearity = "tanh",
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    backend: BackendName | None = None,
    num_threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""States of a layer over a batch, :math:`h_t = f(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})` (eq. 1).

    Parameters
    ----------
    x : array, shape (T, N, d), or of int, shape (T, N)
        Inputs; integers are class indices in ``[-d, d)``, taken as one-hot vectors.  There may be no
        sequences.
    h0 : array, shape (N, h), or None
        State before the first input; None for zeros.
    parameters : dict of str to ndarray, all float32 or all float64
        ``weight_ih`` (h, d), ``weight_hh`` (h, h) and, both or none, ``bias_ih`` (h,) and ``bias_hh`` (h,).
    nonlinearity : {"tanh", "relu"}, default "tanh"
        f.
    lengths : sequence of N int, or None
        Time steps of each sequence, from 1 to T; what follows them in `x` is not read.  None for T.
    reverse : bool, default False
        Begin with the last time step of each sequence.
    backend : {"cython", "numba", "numpy"} or None
        None is the one in use, see `fastrnn.backend`.
    num_threads : int or None
        Most threads that share the batch; None for the cores that the process may run on.  Results are the
        same bits on any number.

    Returns
    -------
    output : ndarray, shape (T, N, h)
        State after each input, zero beyond the length of a sequence.
    h_n : ndarray, shape (N, h)
        State after the last input of each sequence; the first one where it runs in reverse.

    Raises
    ------
    IndexError
        If a class index is out of bounds.
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range, or there is no time step.
    BackendUnavailable
        If the backend that was named is missing.

    Warns
    -----
    UserWarning
        If `x` is of integers that look like the one-hot vectors of one sequence.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> parameters = {"weight_ih": rng.normal(size=(4, 3)), "weight_hh": rng.normal(size=(4, 4)) * 0.1}
    >>> output, h_n = rnn_forward(rng.normal(size=(5, 2, 3)), None, parameters)
    >>> output.shape, bool((output[-1] == h_n).all())
    ((5, 2, 4), True)
    """
    layer = _Layer(x, h0, parameters, nonlinearity, lengths, reverse, backend, num_threads)
    space, call = layer.begin()
    h_n = np.empty((space.N, space.net.h), space.net.dtype)
    span = space.span(space.T)

    def part(number: int, slot: int) -> None:
        call.forward(span, layer.indices, layer.x, [layer.h0], [h_n], number, slot)

    call.run(part, space.multiply_adds, layer.num_threads)
    return space.hs[0], h_n


def rnn_backward(
    grad_output: ArrayLike | None,
    grad_h_n: ArrayLike | None,
    x: ArrayLike,
    h0: ArrayLike | None,
    output: ArrayLike,
    parameters: Mapping[str, np.ndarray],
    *,
    nonlinearity: Nonlinearity = "tanh",
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    backend: BackendName | None = None,
    num_threads: int | None = None,
) -> tuple[np.ndarray | None, np.ndarray, dict[str, np.ndarray]]:
    """Gradients of `rnn_forward` by BPTT (eqs. 9 to 13).

    Parameters
    ----------
    grad_output : array, shape (T, N, h), or None
        Gradient of the loss with respect to `output`; None for zeros.  What lies beyond the length of a
        sequence is not read.
    grad_h_n : array, shape (N, h), or None
        Gradient with respect to `h_n`; None for zeros.
    x, h0, parameters, nonlinearity, lengths, reverse, backend, num_threads
        As given to `rnn_forward`.
    output : array, shape (T, N, h)
        As returned by it.

    Returns
    -------
    grad_x : ndarray, shape (T, N, d), or None
        None where `x` holds class indices.
    grad_h0 : ndarray, shape (N, h)
    grads : dict of str to ndarray
        Gradients of the parameters, under their names.

    Raises
    ------
    IndexError, TypeError, ValueError, BackendUnavailable
        As `rnn_forward`.

    Examples
    --------
    >>> parameters = {"weight_ih": np.ones((1, 2)), "weight_hh": np.ones((1, 1))}
    >>> x = np.zeros((3, 1, 2))
    >>> output, h_n = rnn_forward(x, None, parameters)
    >>> grad_x, grad_h0, grads = rnn_backward(np.ones((3, 1, 1)), None, x, None, output, parameters)
    >>> grad_x[:, 0, 0], grad_h0, list(grads)
    (array([3., 2., 1.]), array([[3.]]), ['weight_ih', 'weight_hh'])
    """
    layer = _Layer(x, h0, parameters, nonlinearity, lengths, reverse, backend, num_threads)
    dtype, shape = layer.net.dtype, (layer.T, layer.N, layer.net.h)
    states = check_real_array(output, "output", dtype, shape)
    if grad_output is None:
        grad_output = np.zeros(shape, dtype)
    dout = check_real_array(grad_output, "grad_output", dtype, shape)
    dh_n = np.empty((0, 0), dtype)
    if grad_h_n is not None:
        dh_n = check_real_array(grad_h_n, "grad_h_n", dtype, shape[1:])
    space, call = layer.begin([states])
    space.prepare_backward(dout)
    grad_x = None if space.one_hot else np.empty(layer.x.shape, dtype)
    dx = [space.none if grad_x is None else grad_x]
    grad_h0 = np.empty(shape[1:], dtype)
    layout = Layout({name: W.shape for name, W in zip(_PARAMETERS, layer.arrays, strict=True)}, dtype)
    gradients = Gradients(layout, [_PARAMETERS], (), len(space.bounds))
    span = space.span(space.T)

    def part(number: int, slot: int) -> None:
        call.backward(
            span, layer.indices, layer.x, [layer.h0], [dh_n], [grad_h0], dx, gradients.layers[number], number,
            slot,
        )  # fmt: skip

    call.run(part, 2 * space.multiply_adds, layer.num_threads)
    flat = aligned((layout.size,), dtype)
    space.kernels.reduce_gradients(gradients.sums, CLIP_NONE, math.inf, flat)
    views = layout.views(flat)
    return grad_x, grad_h0, {name: views[name] for name in parameters}


_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _Layer:
    """Checked arguments of one layer over a batch."""

    def __init__(
        self, x: Any, h0: Any, parameters: Any, nonlinearity: Any, lengths: Any, reverse: Any,
        backend: str | None, num_threads: Any,
    ) -> None:  # fmt: skip
        self.kernels = backends.kernels(backend)
        relu = check_choice(nonlinearity, "nonlinearity", ("tanh", "relu")) == "relu"
        reverse = check_flag(reverse, "reverse")
        self.num_threads = None if num_threads is None else check_size(num_threads, "num_threads")
        self.arrays = _layer_parameters(parameters)
        h, d = self.arrays[0].shape
        dtype = self.arrays[0].dtype
        self.net = Net(dtype, relu, d, h, reverse=(reverse,))
        steps, self.classes, _ = check_steps(x, "x", d, dtype, one=False)
        self.T, self.N = T, N = steps.shape[:2]
        self.lengths = check_lengths(lengths, T, N)
        if self.lengths.size:  # what is not to be read must not be out of bounds, nor meet a zero as NaN
            ended = np.arange(T)[:, None] >= self.lengths
            steps = np.where(ended if self.classes else ended[:, :, None], steps.dtype.type(0), steps)
        self.indices, self.x = NO_INDICES, steps
        if self.classes:
            self.indices = np.empty((T, N), INDEX)
            check_index_batch(steps, "x", d, self.kernels, self.indices.reshape(-1), x)
            self.x = np.empty((0, 0, 0), dtype)
        self.h0 = np.zeros((N, h), dtype) if h0 is None else check_real_array(h0, "h0", dtype, (N, h))

    def begin(self, hs: list[np.ndarray] | None = None) -> tuple[Space, Call]:
        """A work space, with the states `hs` if they are there already, and the call."""
        space = Space(self.kernels, self.net, self.T, self.N, self.classes, hs=hs)
        return space, Call(space, [self.arrays], lengths=self.lengths)


def _layer_parameters(parameters: Any) -> tuple[np.ndarray, ...]:
    """The four arrays of a layer as kernels take them, zeros for biases that are not there."""
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters must be a mapping from name to array, got {type(parameters).__name__}")
    names = set(parameters)
    if names not in (set(_PARAMETERS), set(_PARAMETERS[:2])):
        raise ValueError(
            f"parameters must hold {', '.join(_PARAMETERS)}, the biases both or neither; got "
            f"{', '.join(map(str, parameters)) or 'none'}"
        )
    for name, W in parameters.items():
        if not isinstance(W, np.ndarray):
            raise TypeError(f"parameters[{name!r}] must be an ndarray, got {type(W).__name__}")
    dtype = np.dtype(parameters["weight_ih"].dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"parameters['weight_ih'] must be of dtype float32 or float64, got {dtype}")
    weight_hh = parameters["weight_hh"]
    h = len(check_real_array(weight_hh, "parameters['weight_hh']", dtype, ("h", "h")))
    shapes: tuple[tuple[int | str, ...], ...] = ((h, "d"), (h, h), (h,), (h,))
    arrays = []
    for name, shape in zip(_PARAMETERS, shapes, strict=True):
        W = parameters.get(name)
        if W is None:
            arrays.append(np.zeros(h, dtype))
        elif W.dtype != dtype:
            raise TypeError(f"parameters[{name!r}] must have dtype {dtype}, as weight_ih, got {W.dtype}")
        else:
            arrays.append(check_real_array(W, f"parameters[{name!r}]", dtype, shape))
    return tuple(arrays)


# -- checks ----------------------------------------------------------------------------------------


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
            raise TypeError(f"grads[{name!r}] must be an ndarray, got {type(g).__name__}")
        if g.dtype not in (np.float32, np.float64):
            raise TypeError(f"grads[{name!r}] must be of dtype float32 or float64, got {g.dtype}")
        if not g.flags.writeable:
            raise ValueError(f"grads[{name!r}] is read-only, and would be clipped in place")
    return list(arrays.values())
