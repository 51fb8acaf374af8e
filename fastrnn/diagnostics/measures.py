"""What `fastrnn.diagnostics` measures: a function and a result each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import check_choice, check_number, check_real_array, check_size
from fastrnn.diagnostics import sentences
from fastrnn.diagnostics.unroll import (
    Batch,
    OpenModel,
    Unrolled,
    backward,
    check_layer,
    forward,
    norms_of,
    open_batch,
    open_model,
    output_gradient,
    term_norms,
)
from fastrnn.shown import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from fastrnn.hints import Model, NormMethod, RadiusMethod, Reduction, Seed, StepClip, Targets

__all__ = [
    "ClipReport",
    "GradCheck",
    "GradientFlow",
    "HiddenStates",
    "JacobianNorms",
    "ParameterCheck",
    "Saturation",
    "Spectrum",
    "clip_report",
    "gradcheck",
    "gradient_flow",
    "hidden_states",
    "jacobian_norms",
    "saturation",
    "singular_values",
    "spectral_radius",
    "spectrum",
    "training_summary",
]

#: A unit whose state is beyond this is called saturated: its derivative is below 2%.
SATURATED = 0.99

#: A unit whose derivative is below this is called dead at that step: no gradient gets through.
DEAD_SLOPE = 1e-3

#: Up to this hidden size the product of Jacobians is formed and its singular values are exact.
EXACT_UP_TO = 64

#: Vectors that the power iteration keeps, the residual at which it has converged (the error of the
#: norm is about its square), and how often it starts again at most.
SPAN, CONVERGED, MOST_RESTARTS = 16, 1e-5, 100


def _about(m: OpenModel, layer: int, direction: int, batch: Batch | None = None) -> dict[str, str]:
    """What the pictures and the sentences of a result say of the model, and of what it read."""
    name = "CharRNN" if m.vocabulary is not None else type(m.model).__name__
    count = len(m.layers)
    model = f"{name}, {m.hidden_size} {_nonlinearity(m)} units"
    if count > 1:
        model += f", top of {count} layers" if layer == count - 1 else f", layer {layer} (from 0) of {count}"
    if direction:
        model += ", read backwards"
    if batch is None:
        return {"model": model}
    T, N = batch.shape
    read = f"{T:,} {'time step' if m.vocabulary is None else 'character'}{'s' * (T != 1)}"
    return {"model": model, "read": read if N == 1 else f"{N:,} sequences of {read}"}


def _nonlinearity(m: OpenModel) -> str:
    return "relu" if m.relu else "tanh"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _Measured(Shown):
    """What was measured in what, in words, for titles; empty where that is not known."""

    model: str = ""
    read: str = ""


# -- gradients along time ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class GradientFlow(_Measured):
    """Result of `gradient_flow`.  Norms are Euclidean, over the units and the sequences of a batch.

    Attributes
    ----------
    total : ndarray, shape (T,)
        Norm of dL/dh_t, L the whole loss (eqs. 9, 12): through the output of step t and through all
        later states.
    from_last_step : ndarray, shape (T,)
        The same for the loss of the last time step alone.
    share : ndarray, shape (T,)
        `from_last_step` divided by its last value: how much of the final loss's gradient reaches
        each step.  1 at the last step; beyond 1 it has grown on its way.  NaN where the last step's
        loss has no gradient, as when none of its targets count.
    dWhh_terms : ndarray, shape (T,)
        Norm of each time step's term ``dz_t h_{t-1}'`` of dW_hh (eqs. 11, 13); the terms' sum is
        the gradient.
    dWhh_norm : float
        Norm of that sum.
    loss : float
        In nats, summed or averaged as `reduction` says; NaN for an `RNN`, which has no loss.
    reduction : {"sum", "mean"}
    layer, direction : int
    model, read : str
        What was measured in what, in words, for titles.  Empty where that is not known.
    """

    total: np.ndarray
    from_last_step: np.ndarray
    share: np.ndarray
    dWhh_terms: np.ndarray
    dWhh_norm: float
    loss: float
    reduction: str
    layer: int
    direction: int

    def _sentences(self) -> list[str]:
        return sentences.gradient_flow(self)

    def _size(self) -> str:
        return f"{len(self.total)} time steps, layer {self.layer}, direction {self.direction}"

    @property
    def reach(self) -> int:
        """Steps back from the last one to where the share first falls below 1%, or T if it never does."""
        shares = self.share if self.direction else self.share[::-1]
        below = np.flatnonzero(~(shares >= 0.01))
        return int(below[0]) if len(below) else len(shares)

    def plot(self, ax: Any = None) -> Figure:
        """`fastrnn.figures.plot_gradient_flow` of this result."""
        from fastrnn.diagnostics.figures import plot_gradient_flow

        return plot_gradient_flow(self, ax=ax)


def gradient_flow(
    model: Model,
    inputs: ArrayLike,
    targets: Targets = None,
    h0: ArrayLike | None = None,
    *,
    layer: int = -1,
    direction: int = 0,
    reduction: Reduction | None = None,
) -> GradientFlow:
    """How strong the gradient of the loss is at every time step (eqs. 9 to 14).

    Parameters
    ----------
    model : SimpleRNN, RNN, LanguageModel or fitted CharRNN
    inputs : array
        As the model takes them: ``(T,)`` or ``(T, d)`` for a `SimpleRNN`, ``(T, N)`` for a
        `LanguageModel` (``(T,)`` is one sequence), as `RNN.forward` takes them for an `RNN`, and for a
        `CharRNN` also a text.
    targets : array or callable
        Class indices in the shape of the inputs, for a `LanguageModel` -100 where nothing counts; a
        text as inputs has its next characters as targets when none are given.  For an `RNN`, whose
        loss is the user's, the gradient of the loss by the outputs, in their shape, or a function that
        makes it of the outputs.
    h0 : array or None
        First states as the model takes them; None means zeros.
    layer : int, default -1
        Which layer's states, the top one by default.
    direction : {0, 1}, default 0
        1 for the reverse direction of a bidirectional `RNN`.  Its last step is time step 0.
    reduction : {"sum", "mean"} or None
        Of the cross-entropy over steps and sequences; None means the model's own: the sum for a
        `SimpleRNN`, the mean for a `LanguageModel`.

    Returns
    -------
    GradientFlow

    Raises
    ------
    IndexError, TypeError, ValueError
        If an argument is not as above.

    Notes
    -----
    Gradients are not clipped.  Beside a forward and a backward pass this costs a second backward pass
    without gradients of weights, for the loss of the last step: 1.4 to 2 times ``loss_and_grads``, and
    about three times where that takes no more than 0.1 ms (benchmarks/bench_diagnostics.py).

    Examples
    --------
    >>> from fastrnn import SimpleRNN
    >>> rnn = SimpleRNN(4, 16, 4, rng=0)
    >>> rnn.Whh *= 40
    >>> flow = gradient_flow(rnn, [1, 0, 2, 2], [0, 2, 2, 3])
    >>> float(flow.share[-1]), flow.reduction
    (1.0, 'sum')
    >>> bool(flow.dWhh_norm <= flow.dWhh_terms.sum())
    True
    """
    m = open_model(model)
    number = check_layer(m, layer)
    direction = _check_direction(m, direction)
    over: str = m.reduction if reduction is None else check_choice(reduction, "reduction", ("sum", "mean"))
    batch = open_batch(m, inputs, targets, h0)
    with np.errstate(all="ignore"):  # what explodes is reported as infinity or NaN
        u = forward(m, batch, more=2)
        loss, d_outputs, _ = _loss_gradient(u, targets, over)
        place = number, direction
        reached = backward(u, d_outputs, number, {place}, {place})[place]
        total = norms_of(reached.states)
        terms = term_norms(u, place, reached.states)
        from_last = _from_last_step(u, d_outputs, place, reached.states)
        share = from_last / from_last[0 if direction else -1]
        norm = _norm(reached.grads[1])
    return GradientFlow(
        total, from_last, share, terms, norm, loss, over, number, direction,
        **_about(m, number, direction, batch),
    )  # fmt: skip


def _from_last_step(
    u: Unrolled, d_outputs: np.ndarray, place: tuple[int, int], out: np.ndarray | None = None
) -> np.ndarray:
    """Norms of the gradient by each state of a layer, of the loss of its last time step alone.

    Clears `d_outputs` but for that step.
    """
    number, direction = place
    d_outputs[slice(1, None) if direction else slice(len(d_outputs) - 1)] = 0
    return norms_of(backward(u, d_outputs, number, {place}, set(), out)[place].states)


def _check_direction(m: OpenModel, direction: Any) -> int:
    number = check_size(direction, "direction", minimum=0)
    if number >= m.directions:
        raise ValueError(f"direction must be less than {m.directions}, got {number}")
    return number


def _loss_gradient(
    u: Unrolled, targets: Any, reduction: str
) -> tuple[float, np.ndarray, tuple[np.ndarray, ...]]:
    """The loss, its gradient by the outputs of the top layer, and those of the output layer if any.

    NaN where the weights are no numbers: an infinite one may still give a finite loss.
    """
    output: tuple[np.ndarray, ...] = ()
    loss = math.nan
    if u.m.output is None:
        d_outputs = given_gradient(u, targets)
    elif u.batch.targets is None:
        raise TypeError("targets must be class indices, one for each input, got None")
    else:
        loss, d_outputs, output = output_gradient(u, reduction)
    if u.m.not_finite():
        loss = math.nan
        for gradient in (d_outputs, *output):
            gradient[...] = math.nan
    return loss, d_outputs, output


def given_gradient(u: Unrolled, targets: Any) -> np.ndarray:
    """The gradient of an `RNN`'s outputs that the user gives, time-major, (T, N, directions * h)."""
    m = u.m
    T, N = u.batch.shape
    width = m.directions * m.hidden_size
    if targets is None:
        raise TypeError("targets must be the gradient of the loss by an RNN's outputs, got None")
    swap = m.batch_first and u.batch.batched
    if callable(targets):
        top = u.hs[-1]
        out = top[0].copy() if len(top) == 1 else np.concatenate(top, axis=2)
        targets = targets(_user_shape(out, swap, u.batch.batched))
    shapes = [(N, T, width) if swap else (T, N, width)] if u.batch.batched else [(T, width), (T, 1, width)]
    given = check_real_array(targets, "targets", m.dtype, *shapes)
    if swap:
        given = given.swapaxes(0, 1)
    return np.array(given.reshape(T, N, width))  # a copy, it is written to


def _user_shape(out: np.ndarray, swap: bool, batched: bool) -> np.ndarray:
    if not batched:
        return out[:, 0]
    return out.swapaxes(0, 1) if swap else out


# -- Jacobians ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class JacobianNorms(_Measured):
    """Result of `jacobian_norms`.

    Attributes
    ----------
    lags : ndarray of int, shape (L,)
        1 to L: steps between the two states.
    norms : ndarray, shape (L,)
        Spectral norm of ``dh_{k+lag}/dh_k`` (eq. 14's product), averaged over where it starts.
    decay_rate : float
        Fitted to the second half of the lags: the norm falls as ``exp(-decay_rate * lag)``.
        Negative where it grows.
    factor : float
        ``exp(-decay_rate)``: what one more step back multiplies the norm with.
    intercept : float
        Of the fitted line, ``log(norm) = intercept - decay_rate * lag``.
    half_life : float
        ``ln 2 / decay_rate``: steps in which the norm falls to a half; infinity where it does not fall.
    bound : float
        Largest singular value of W_hh times the largest derivative of the nonlinearity that was met:
        Bengio et al.'s bound of one step's Jacobian, so ``norms <= bound ** lags``.
    starts : int
        Products that were averaged.
    method : {"exact", "power"}
    layer, direction : int
    model, read : str
        What was measured in what, in words, for titles.  Empty where that is not known.
    """

    lags: np.ndarray
    norms: np.ndarray
    decay_rate: float
    factor: float
    intercept: float
    half_life: float
    bound: float
    starts: int
    method: str
    layer: int
    direction: int

    def _sentences(self) -> list[str]:
        return sentences.jacobian_norms(self)

    def _size(self) -> str:
        return f"lags 1 to {len(self.lags)}, layer {self.layer}, direction {self.direction}"

    def plot(self, ax: Any = None) -> Figure:
        """`fastrnn.figures.plot_jacobian_norms` of this result."""
        from fastrnn.diagnostics.figures import plot_jacobian_norms

        return plot_jacobian_norms(self, ax=ax)


def jacobian_norms(
    model: Model,
    inputs: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    max_lag: int | None = None,
    max_starts: int = 16,
    method: NormMethod = "auto",
    layer: int = -1,
    direction: int = 0,
    on_progress: Callable[[float], object] | None = None,
) -> JacobianNorms:
    """How much a state depends on the one some steps before: norms of dh_t/dh_k (eq. 14).

    Parameters
    ----------
    model : SimpleRNN, RNN, LanguageModel or fitted CharRNN
    inputs : array
        At least two time steps, as for `gradient_flow`.
    h0 : array or None
        First states; None means zeros.
    max_lag : int or None
        Largest distance L, at most T - 1.  None means half of the steps, at most 100.
    max_starts : int, default 16
        Most products of each length that are averaged; their first steps are spread evenly over the first
        ``T - L`` time steps and the sequences.
    method : {"auto", "exact", "power"}
        ``"exact"`` forms the products and takes their largest singular value, ``"power"`` finds it by
        power iteration on vectors (Lanczos' variant), without forming an (h, h) product; ``"auto"``
        is exact up to h = 64.
    layer : int, default -1
        Which layer's states; the product is that of the recurrence of this layer alone.
    direction : {0, 1}, default 0
        1 for the reverse direction of a bidirectional `RNN`; lags count backwards in time then.
    on_progress : callable or None
        Is called after each lag with the share of the work that is done, up to 1.

    Returns
    -------
    JacobianNorms

    Raises
    ------
    IndexError, TypeError, ValueError
        If an argument is not as above, or the model's weights or states hold NaN or infinity.

    References
    ----------
    Bengio, Simard, Frasconi (1994): Learning long-term dependencies with gradient descent is
    difficult.  IEEE Transactions on Neural Networks 5(2).

    Examples
    --------
    A net with small inputs is nearly linear, and remembers as its W_hh says:

    >>> from fastrnn import SimpleRNN
    >>> rnn = SimpleRNN(2, 8, 2, rng=0)
    >>> rnn.Wxh *= 1e-3
    >>> rnn.Whh = 0.5 * np.eye(8)
    >>> memory = jacobian_norms(rnn, [0, 1] * 10)
    >>> round(memory.factor, 3), round(memory.half_life, 3)
    (0.5, 1.0)
    """
    m = open_finite(model)
    number = check_layer(m, layer)
    direction = _check_direction(m, direction)
    check_choice(method, "method", ("auto", "exact", "power"))
    most = check_size(max_starts, "max_starts")
    batch = open_batch(m, inputs, None, h0)
    T = batch.shape[0]
    if T < 2:
        raise ValueError("inputs must have at least 2 time steps, got 1")
    L = min(max(T // 2, 1), 100) if max_lag is None else check_size(max_lag, "max_lag")
    if L > T - 1:
        raise ValueError(f"max_lag must be less than the {T} time steps of the inputs, got {L}")
    if method == "auto":
        method = "exact" if m.hidden_size <= EXACT_UP_TO else "power"
    with np.errstate(all="ignore"):
        u = forward(m, batch)
        slopes = u.slopes(number, direction)
    _finite_states(u, number, direction)
    W = m.recurrent_weights(number, direction)
    if direction:
        slopes = slopes[::-1]
    met = _slopes_on_the_way(slopes, L, most)
    done = on_progress or (lambda share: None)
    logs = (_exact_norms if method == "exact" else _power_norms)(met, W, done)
    with np.errstate(all="ignore"):
        mean = np.logaddexp.reduce(logs, axis=1) - math.log(logs.shape[1])
        norms = np.exp(mean)
    lags = np.arange(1, L + 1)
    rate, intercept = _fit_decay(lags, mean)
    return JacobianNorms(
        lags, norms, rate, _exp(-rate), intercept, _half_life(rate),
        float(np.linalg.norm(W, 2) * slopes.max()), logs.shape[1], method, number, direction,
        **_about(m, number, direction, batch),
    )  # fmt: skip


def open_finite(model: Any) -> OpenModel:
    """`open_model` of a model whose weights are all numbers: of another, no result means anything."""
    m = open_model(model)
    names = m.not_finite()
    if names:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        raise ValueError(f"the weights of the model hold NaN or infinity: {', '.join(names[:4])}{more}")
    return m


def _finite_states(u: Unrolled, number: int, direction: int) -> np.ndarray:
    """States of a layer, refused where they are no numbers."""
    hs = u.hs[number][direction]
    if not np.isfinite(hs).all():
        raise ValueError("the states of the model hold NaN or infinity")
    return hs


def _exp(value: float) -> float:
    with np.errstate(all="ignore"):
        return float(np.exp(value))


def _slopes_on_the_way(slopes: np.ndarray, L: int, most: int) -> np.ndarray:
    """Derivatives at the L steps after each start that is looked at, shape (L, starts, h)."""
    T, N, _ = slopes.shape
    every = (T - L) * N
    chosen = np.unique(np.linspace(0, every - 1, min(most, every)).round().astype(int))
    k, n = np.divmod(chosen, N)
    return slopes[k[None] + np.arange(1, L + 1)[:, None], n[None]]


def _exact_norms(slopes: np.ndarray, W: np.ndarray, done: Callable[[float], object]) -> np.ndarray:
    """Logarithm of the largest singular value of each product of Jacobians, shape (L, starts)."""
    L, S, h = slopes.shape
    product = np.broadcast_to(np.eye(h), (S, h, h))
    scale = np.zeros(S)
    logs = np.empty((L, S))
    with np.errstate(divide="ignore"):
        for i, slope in enumerate(slopes):
            product = slope[:, :, None] * np.matmul(W, product)
            # Kept near 1: a product of many steps leaves the range of float64.
            largest = np.abs(product).max(axis=(1, 2))
            product /= np.where(largest > 0, largest, 1)[:, None, None]
            scale += np.log(largest)
            logs[i] = scale + np.log(np.linalg.norm(product, 2, axis=(1, 2)))
            done((i + 1) / L)
    return np.where(np.isnan(logs), -np.inf, logs)


def _power_norms(slopes: np.ndarray, W: np.ndarray, done: Callable[[float], object]) -> np.ndarray:
    """The same without forming a product P: by power iteration with ``P' P``, whose vectors are kept.

    The largest eigenvalue in the space that they span (Lanczos) is there after a few of them, also
    where the largest singular values lie close together.  A lag starts from the vector of the last.
    """
    L, S, h = slopes.shape
    # Any start with a share in the wanted direction does; a fixed one makes results repeatable.
    v = np.random.default_rng(0).standard_normal((S, h))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    logs = np.empty((L, S))
    for i in range(L):
        for _ in range(MOST_RESTARTS):
            logs[i], v, converged = _lanczos(slopes[: i + 1], W, v)
            if converged:
                break
        done(((i + 1) / L) ** 2)  # a product of i steps takes i times as long
    return logs


def _lanczos(slopes: np.ndarray, W: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Logarithm of the largest singular value (S,) and its vector (S, h), from at most `SPAN` vectors, and
    whether all have converged."""
    S, h = v.shape
    span = min(SPAN, h)
    basis = np.zeros((span, S, h))
    small = np.zeros((S, span, span))
    scale = np.zeros(S)
    for k in range(span):
        basis[k] = v
        w, size = _there_and_back(slopes, W, v)
        if k == 0:
            scale = np.where(np.isfinite(size), size, 0)
        w *= np.exp(size - scale)[:, None]
        # P' P in the basis; it is symmetric, and what lies outside makes the next vector.
        along = np.einsum("ksh,sh->sk", basis[: k + 1], w)
        small[:, : k + 1, k] = small[:, k, : k + 1] = along
        for _ in range(2):  # twice is enough for orthogonality to the last digit
            w -= np.einsum("ksh,sk->sh", basis[: k + 1], np.einsum("ksh,sh->sk", basis[: k + 1], w))
        length = np.linalg.norm(w, axis=1, keepdims=True)
        values, vectors = np.linalg.eigh(small[:, : k + 1, : k + 1])
        largest = np.maximum(values[:, -1], 0)
        # What P' P does to the vector beyond stretching it: the eigenvalue is at most so far away.
        missing = length[:, 0] * np.abs(vectors[:, -1, -1])
        converged = bool(np.all(missing <= CONVERGED * largest))
        if converged:
            break
        ended = length <= 1e-14 * largest[:, None]
        v = np.where(ended, 0, w / np.where(ended, 1, length))
    best = np.einsum("ksh,sk->sh", basis[: k + 1], vectors[:, :, -1])
    best /= np.linalg.norm(best, axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return (np.log(largest) + scale) / 2, best, converged


def _there_and_back(slopes: np.ndarray, W: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``P' P v`` for each row of v (S, h), as a vector near 1 and the logarithm of its factor."""
    scale = np.zeros(len(v))
    for slope in slopes:
        v, grown = _near_one(slope * (v @ W.T))
        scale += grown
    for slope in slopes[::-1]:
        v, grown = _near_one((slope * v) @ W)
        scale += grown
    return v, scale


def _near_one(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    largest = np.abs(v).max(axis=1)
    with np.errstate(divide="ignore"):
        return v / np.where(largest > 0, largest, 1)[:, None], np.log(largest)


def _fit_decay(lags: np.ndarray, logs: np.ndarray) -> tuple[float, float]:
    """Rate and intercept of ``intercept - rate * lag``, fitted to the second half of the lags.

    The first lags show the transient of a W_hh that is not normal.
    """
    first = len(lags) // 2 if len(lags) >= 4 else 0
    x, y = lags[first:].astype(np.float64), logs[first:]
    if np.isnan(y).any() or np.isposinf(y).any():
        return math.nan, math.nan
    if np.isneginf(y).any():  # nothing at all comes through
        return math.inf, math.nan
    if len(x) == 1:
        return -float(y[0]) / float(x[0]), 0.0
    slope, intercept = np.polyfit(x, y, 1)
    return -float(slope), float(intercept)


def _half_life(rate: float) -> float:
    return math.log(2) / rate if rate > 0 else math.nan if math.isnan(rate) else math.inf


# -- the recurrent weights ---------------------------------------------------------------------------


def _recurrent_weights(model: Any, layer: int, direction: int) -> np.ndarray:
    """W_hh of a model, or the matrix that was given in its place."""
    if isinstance(model, np.ndarray):
        W = check_real_array(model, "model", np.dtype(np.float64), ("h", "h"))
        if W.shape[0] != W.shape[1]:
            raise ValueError(f"model must be a model or a square matrix, got shape {W.shape}")
    else:
        m = open_finite(model)
        W = m.recurrent_weights(check_layer(m, layer), _check_direction(m, direction))
    if not np.isfinite(W).all():
        raise ValueError("the recurrent weights hold NaN or infinity")
    return W


def spectral_radius(
    model: Model | np.ndarray, *, layer: int = -1, direction: int = 0, method: RadiusMethod = "exact"
) -> float:
    """Largest absolute eigenvalue of W_hh.

    Around 1 a linear net holds its gradients; well below they vanish, well above they explode.

    Parameters
    ----------
    model : model, or ndarray of shape (h, h)
    layer, direction : int
        Whose W_hh.
    method : {"exact", "estimate"}
        All eigenvalues, or the growth of ``W_hh^k V`` for a block of vectors: quick for large h, and
        exact to about 2%.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or the model's weights hold NaN or infinity.

    Examples
    --------
    >>> round(spectral_radius(np.array([[0.0, 2.0], [-2.0, 0.0]])), 12)
    2.0
    """
    check_choice(method, "method", ("exact", "estimate"))
    W = _recurrent_weights(model, layer, direction)
    if method == "estimate":
        with np.errstate(all="ignore"):
            return _estimate_radius(W)
    return float(np.abs(np.linalg.eigvals(W)).max())


#: Products of the estimate: growth is measured over the second half.
_PRODUCTS = 96


def _estimate_radius(W: np.ndarray) -> float:
    V = np.random.default_rng(0).standard_normal((len(W), min(8, len(W))))
    grown = 0.0
    for i in range(_PRODUCTS):
        V = W @ V
        size = float(np.linalg.norm(V))
        if size == 0:
            return 0.0
        V /= size
        if i >= _PRODUCTS // 2:
            grown += math.log(size)
    return math.exp(grown / (_PRODUCTS - _PRODUCTS // 2))


def singular_values(model: Model | np.ndarray, *, layer: int = -1, direction: int = 0) -> np.ndarray:
    """Singular values of W_hh, largest first.

    The largest is how much one step can stretch a gradient at most, as tanh's derivative is at most 1.

    Parameters
    ----------
    model : model, or ndarray of shape (h, h)
    layer, direction : int
        Whose W_hh.

    Returns
    -------
    ndarray of float64, shape (h,)

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or the model's weights hold NaN or infinity.

    Examples
    --------
    >>> singular_values(np.diag([0.5, 2.0])).tolist()
    [2.0, 0.5]
    """
    return np.linalg.svd(_recurrent_weights(model, layer, direction), compute_uv=False)


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(_Measured):
    """Result of `spectrum`: eigenvalues and singular values of W_hh.

    Attributes
    ----------
    eigenvalues : ndarray of complex, shape (h,)
    singular_values : ndarray, shape (h,)
        Largest first.
    spectral_radius : float
    model : str
        Whose weights they are, in words, for titles.  Empty where that is not known.
    read : str
        Empty: no text is read for it.
    """

    eigenvalues: np.ndarray
    singular_values: np.ndarray
    spectral_radius: float

    def _sentences(self) -> list[str]:
        return sentences.spectrum(self)

    def _size(self) -> str:
        return f"Whh of {len(self.singular_values)} x {len(self.singular_values)}"

    def plot(self, ax: Any = None) -> Figure:
        """`fastrnn.figures.plot_singular_values` of this result."""
        from fastrnn.diagnostics.figures import plot_singular_values

        return plot_singular_values(self, ax=ax)


def spectrum(model: Model | np.ndarray, *, layer: int = -1, direction: int = 0) -> Spectrum:
    """Eigenvalues, singular values and spectral radius of W_hh at once.

    Parameters
    ----------
    model, layer, direction
        As for `singular_values`.

    Returns
    -------
    Spectrum

    Raises
    ------
    TypeError, ValueError
        As `singular_values`.

    Examples
    --------
    >>> spectrum(np.diag([0.5, 2.0])).spectral_radius
    2.0
    """
    W = _recurrent_weights(model, layer, direction)
    values = np.linalg.eigvals(W).astype(np.complex128)
    about = {}
    if not isinstance(model, np.ndarray):
        m = open_model(model)
        about = _about(m, check_layer(m, layer), _check_direction(m, direction))
    return Spectrum(values, np.linalg.svd(W, compute_uv=False), float(np.abs(values).max()), **about)


# -- states ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Saturation(_Measured):
    """Result of `saturation`.

    Attributes
    ----------
    saturated : ndarray, shape (T,)
        Share of units with ``|h| > threshold`` at each step, where tanh is flat.  A ReLU has no
        upper end: zeros.
    dead : ndarray, shape (T,)
        Share of units through which no gradient passes at that step: derivative below 0.001, so
        ``|h| > 0.9995`` for tanh, ``h = 0`` for ReLU.
    stuck : ndarray of int
        Units that were saturated, or dead, at every step of every sequence: they carry no information.
    threshold : float
    mean_slope : ndarray, shape (T,)
        Mean derivative of the nonlinearity at each step.
    model, read : str
        What was measured in what, in words, for titles.  Empty where that is not known.
    nonlinearity : {"tanh", "relu"}
    """

    saturated: np.ndarray
    dead: np.ndarray
    stuck: np.ndarray
    threshold: float
    mean_slope: np.ndarray
    _: KW_ONLY
    nonlinearity: str = "tanh"

    def _sentences(self) -> list[str]:
        return sentences.saturation(self)

    def _size(self) -> str:
        return f"{len(self.saturated)} time steps, {len(self.stuck)} units stuck"

    def plot(self, ax: Any = None) -> Figure:
        """`fastrnn.figures.plot_saturation` of this result."""
        from fastrnn.diagnostics.figures import plot_saturation

        return plot_saturation(self, ax=ax)


def saturation(
    model: Model,
    inputs: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    threshold: float = SATURATED,
    layer: int = -1,
    direction: int = 0,
) -> Saturation:
    """Share of units that are saturated, and of those that pass no gradient, at each time step.

    A saturated tanh multiplies the gradient by its derivative ``1 - h^2`` (eq. 4), which is near zero.

    Parameters
    ----------
    model, inputs, h0, layer, direction
        As for `jacobian_norms`.
    threshold : float, default 0.99
        In (0, 1).

    Returns
    -------
    Saturation

    Raises
    ------
    IndexError, TypeError, ValueError
        If an argument is not as above, or the model's weights or states hold NaN or infinity.

    Examples
    --------
    >>> from fastrnn import SimpleRNN
    >>> rnn = SimpleRNN(2, 8, 2, rng=0)
    >>> rnn.bh[:2] = 10
    >>> result = saturation(rnn, [0, 1, 0])
    >>> result.saturated.tolist(), result.stuck.tolist()
    ([0.25, 0.25, 0.25], [0, 1])
    """
    limit = check_number(threshold, "threshold", positive=True)
    if limit >= 1:
        raise ValueError(f"threshold must be less than 1, the limit of tanh, got {limit}")
    m = open_finite(model)
    number, direction = check_layer(m, layer), _check_direction(m, direction)
    batch = open_batch(m, inputs, None, h0)
    with np.errstate(all="ignore"):
        u = forward(m, batch)
    hs = _finite_states(u, number, direction)
    slopes = u.slopes(number, direction)
    flat = np.zeros(hs.shape, bool) if m.relu else np.abs(hs) > limit
    dead = slopes < DEAD_SLOPE
    return Saturation(
        flat.mean(axis=(1, 2)),
        dead.mean(axis=(1, 2)),
        np.flatnonzero((flat | dead).all(axis=(0, 1))),
        limit,
        slopes.mean(axis=(1, 2)),
        **_about(m, number, direction, batch),
        nonlinearity=_nonlinearity(m),
    )


@dataclass(frozen=True, eq=False, repr=False)
class HiddenStates(_Measured):
    """Result of `hidden_states`.

    Attributes
    ----------
    states : ndarray, shape (T, h)
        Of one sequence.
    labels : list of str
        What was read at each step: the character, or the class index.
    model, read : str
        What was measured in what, in words, for titles.  Empty where that is not known.
    """

    states: np.ndarray
    labels: list[str]

    def _sentences(self) -> list[str]:
        return sentences.hidden_states(self)

    def _size(self) -> str:
        return f"{len(self.states)} time steps x {self.states.shape[1]} units"

    def plot(self, ax: Any = None, **options: Any) -> Figure:
        """`fastrnn.figures.plot_hidden_states` of this result."""
        from fastrnn.diagnostics.figures import plot_hidden_states

        return plot_hidden_states(self, ax=ax, **options)


def hidden_states(
    model: Model,
    inputs: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    sequence: int = 0,
    layer: int = -1,
    direction: int = 0,
) -> HiddenStates:
    """The states of one sequence, with what was read at each step.

    Parameters
    ----------
    model, inputs, h0, layer, direction
        As for `jacobian_norms`.
    sequence : int, default 0
        Which sequence of the batch.

    Returns
    -------
    HiddenStates

    Raises
    ------
    IndexError, TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> from fastrnn import SimpleRNN
    >>> result = hidden_states(SimpleRNN(3, 8, 3, rng=0), [0, 1, 2, 1])
    >>> result.states.shape, result.labels
    ((4, 8), ['0', '1', '2', '1'])
    """
    m = open_model(model)
    number, direction = check_layer(m, layer), _check_direction(m, direction)
    if isinstance(inputs, str):  # its last character is shown as well, it needs no target
        inputs = inputs + inputs[-1:]
    batch = open_batch(m, inputs, None, h0)
    T, N = batch.shape
    n = check_size(sequence, "sequence", minimum=0)
    if n >= N:
        raise IndexError(f"sequence is {n}, outside the {N} of the batch")
    with np.errstate(all="ignore"):
        u = forward(m, batch)
    if not batch.indices.size:
        labels = [""] * T
    elif m.vocabulary is not None:
        labels = [m.vocabulary[i] for i in batch.indices[:, n]]
    else:
        labels = [str(i) for i in batch.indices[:, n]]
    about = _about(m, number, direction, batch)
    if N > 1:
        about["read"] = f"sequence {n} (from 0) of {about['read']}"
    return HiddenStates(u.hs[number][direction][:, n].copy(), labels, **about)


# -- clipping ----------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class ClipReport(_Measured):
    """Result of `clip_report`: for each way of clipping, what it would do to these gradients.

    Attributes
    ----------
    threshold : float
    norm_before : float
        Global norm over all gradients, not clipped.
    largest : float
        Largest entry, by absolute value.
    changed : dict of str to float
        Share of the gradients' entries that each mode changes.
    norm_after : dict of str to float
        Global norm that each mode leaves.
    entries : int
        Entries of all gradients together.
    model, read : str
        What was measured in what, in words, for titles.  Empty where that is not known.
    """

    threshold: float
    norm_before: float
    largest: float
    changed: dict[str, float]
    norm_after: dict[str, float]
    entries: int

    def _sentences(self) -> list[str]:
        return sentences.clip_report(self)

    def _size(self) -> str:
        return f"{self.entries} entries, threshold {self.threshold:g}"

    def plot(self, ax: Any = None) -> Figure:
        """`fastrnn.figures.plot_clip_report` of this result."""
        from fastrnn.diagnostics.figures import plot_clip_report

        return plot_clip_report(self, ax=ax)


def clip_report(
    model: Model,
    inputs: ArrayLike,
    targets: Targets = None,
    h0: ArrayLike | None = None,
    *,
    threshold: float = 5.0,
) -> ClipReport:
    """What each way of clipping does to the gradients of a batch.

    ``"step"`` clamps every accumulator after every time step as the notes' listing does (only a
    `SimpleRNN` does so), ``"value"`` clamps every entry once, ``"norm"`` rescales all gradients
    together (eq. 15).

    Parameters
    ----------
    model, inputs, targets, h0
        As for `gradient_flow`; the loss is the model's own (a sum for a `SimpleRNN`, a mean for a
        `LanguageModel`).
    threshold : float, default 5.0
        Positive.

    Returns
    -------
    ClipReport

    Raises
    ------
    IndexError, TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> from fastrnn import SimpleRNN
    >>> report = clip_report(SimpleRNN(4, 16, 4, rng=0), [1, 0, 2, 2], [0, 2, 2, 3], threshold=0.1)
    >>> sorted(report.changed), round(report.norm_after["norm"], 12), report.changed["norm"]
    (['norm', 'step', 'value'], 0.1, 1.0)
    """
    limit = check_number(threshold, "threshold", positive=True)
    m = open_model(model)
    batch = open_batch(m, inputs, targets, h0)
    with np.errstate(all="ignore"):
        grads = _all_gradients(m, batch, targets)
        before = _global_norm(grads)
        entries = sum(g.size for g in grads)
        changed, after = {}, {}
        if m.kind == "SimpleRNN":
            stepped = _clamped_every_step(m, batch, limit)
            pairs = zip(grads, stepped, strict=True)
            changed["step"] = after["step"] = math.nan
            if not math.isnan(before):
                changed["step"] = sum(_count_different(a, b) for a, b in pairs) / entries
                after["step"] = _global_norm(stepped)
        changed["value"] = _share_beyond(grads, limit)
        after["value"] = _global_norm([np.clip(g, -limit, limit) for g in grads])
        changed["norm"] = float(not before <= limit)
        after["norm"] = min(before, limit)
        if not math.isfinite(before):
            after["norm"] = _global_norm([g * (limit / before) for g in grads])
        largest = float(np.max([np.abs(g).max() for g in grads]))  # Python's max may leave out a NaN
    return ClipReport(
        limit, before, largest, changed, after, entries, **_about(m, len(m.layers) - 1, 0, batch)
    )


def _all_gradients(m: OpenModel, batch: Batch, targets: Any) -> list[np.ndarray]:
    """Every gradient of the model's own loss, not clipped, those of a lower layer first."""
    u = forward(m, batch)
    _, d_outputs, output = _loss_gradient(u, targets, m.reduction)
    return [*_layer_gradients(u, d_outputs), *output]


def _layer_gradients(u: Unrolled, d_outputs: np.ndarray) -> list[np.ndarray]:
    """Gradients of the weights of all layers, the lowest first."""
    m = u.m
    places = {(number, way) for number in range(len(m.layers)) for way in range(m.directions)}
    reached = backward(u, d_outputs, 0, set(), places)
    # A SimpleRNN has one bias where the kernels have two.
    used = slice(3) if m.kind == "SimpleRNN" else slice(4)
    return [g for place in sorted(places) for g in reached[place].grads[used]]


def _norm(array: np.ndarray) -> float:
    return float(norms_of(array.reshape(1, -1))[0])


def _share_beyond(grads: list[np.ndarray], limit: float) -> float:
    """Share of the entries that clamping changes, NaN where there is NaN among them."""
    if any(np.isnan(g).any() for g in grads):
        return math.nan
    return sum(int((np.abs(g) > limit).sum()) for g in grads) / sum(g.size for g in grads)


def _count_different(a: np.ndarray, b: np.ndarray) -> int:
    """Entries that differ by more than another order of summation makes of them."""
    largest = float(np.abs(a[np.isfinite(a)]).max(initial=0))
    rounding = math.sqrt(float(np.finfo(a.dtype).eps)) * largest
    return int((~((a == b) | (np.abs(a - b) <= rounding))).sum())


def _clamped_every_step(m: OpenModel, batch: Batch, limit: float) -> list[np.ndarray]:
    """Gradients as the notes' listing clips them, in the order of `_all_gradients`."""
    from fastrnn.simple import SimpleRNN

    W_ih, W_hh, bias, _ = m.layers[0][0]
    assert m.output is not None
    W, b = m.output
    twin = SimpleRNN(m.input_size, m.hidden_size, len(b), dtype=m.dtype, rng=0, backend=m.kernels.NAME)
    twin.Wxh, twin.Whh, twin.Why, twin.bh, twin.by = W_ih, W_hh, W, bias[:, None], b[:, None]
    assert batch.targets is not None
    inputs = batch.indices[:, 0] if batch.indices.size else batch.x[:, 0]
    _, (dWxh, dWhh, dWhy, dbh, dby), _ = twin.loss_and_grads(
        inputs, batch.targets[:, 0], batch.h0[0].T, clip="step", clip_threshold=limit
    )
    return [dWxh, dWhh, dbh[:, 0], dWhy, dby[:, 0]]


def _global_norm(grads: list[np.ndarray]) -> float:
    return float(np.linalg.norm([_norm(g) for g in grads]))


# -- the model's own gradients -----------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class ParameterCheck(Shown):
    """The worst entry of one parameter in a `GradCheck`.

    Attributes
    ----------
    name : str
    index : tuple of int
        Of the worst entry.
    analytic, numeric : float
        The model's gradient there, and the central difference.
    error : float
        Their difference relative to the larger of the two, or to `GradCheck.floor` where both are
        smaller.
    checked, entries : int
        How many entries were looked at, and how many there are.
    """

    name: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    error: float
    checked: int
    entries: int

    def _sentences(self) -> list[str]:
        return sentences.parameter_check(self)

    def _size(self) -> str:
        return f"{self.name}, {self.checked} of {self.entries} entries"


@dataclass(frozen=True, repr=False)
class GradCheck(Shown):
    """Result of `gradcheck`; ``print`` it for a verdict and a table.

    Attributes
    ----------
    ok : bool
        Every error is within `tolerance`.
    tolerance : float
    floor : float
        Gradients below this are compared as if they were as large.
    parameters : tuple of ParameterCheck
    """

    ok: bool
    tolerance: float
    floor: float
    parameters: tuple[ParameterCheck, ...]

    def _sentences(self) -> list[str]:
        return sentences.gradcheck(self)

    def _size(self) -> str:
        return f"{len(self.parameters)} parameters, {'ok' if self.ok else 'not ok'}"

    @property
    def worst(self) -> ParameterCheck:
        """The parameter with the largest error; one that is not a number is the largest."""
        return max(self.parameters, key=lambda p: math.inf if math.isnan(p.error) else p.error)


def gradcheck(
    model: Model,
    inputs: ArrayLike,
    targets: Targets = None,
    h0: ArrayLike | None = None,
    *,
    entries: int | None = 50,
    step: float | None = None,
    tolerance: float | None = None,
    rng: Seed = 0,
) -> GradCheck:
    """Compare a model's own gradients with central differences of its own loss, in float64.

    For whoever changes a model, a kernel or a loss, by a subclass too: in a float64 model both sides
    come from the methods of `model` itself (``loss_and_grads``, or ``forward`` and ``backward`` of an
    `RNN`).  A float32 model has too few digits for differences: its gradients are compared with the
    differences of the same net in float64.  Gradients are not clipped.  Dropout is switched off.

    Parameters
    ----------
    model, inputs, targets, h0
        As for `gradient_flow`.
    entries : int or None, default 50
        Entries of each parameter to look at, drawn from `rng`; None means all.
    step : float or None
        Half the distance of the two losses; None means 1e-5.
    tolerance : float or None
        Largest error allowed; None means 1e-6, for a float32 model 1e-3.
    rng : Generator, int or None
        Draws the entries.

    Returns
    -------
    GradCheck

    Raises
    ------
    IndexError, TypeError, ValueError
        If an argument is not as above, or a parameter is read-only, or the weights hold NaN or infinity.

    Notes
    -----
    Weights are changed one entry at a time while this runs, and restored bit for bit, also when
    something is raised.

    Examples
    --------
    >>> from fastrnn import SimpleRNN
    >>> rnn = SimpleRNN(4, 8, 4, rng=0)
    >>> gradcheck(rnn, [1, 0, 2, 2], [0, 2, 2, 3]).ok
    True

    >>> class Wrong(SimpleRNN):
    ...     def loss_and_grads(self, *arguments, **options):
    ...         loss, grads, h = super().loss_and_grads(*arguments, **options)
    ...         grads[1][:] *= 2
    ...         return loss, grads, h
    >>> gradcheck(Wrong(4, 8, 4, rng=0), [1, 0, 2, 2], [0, 2, 2, 3]).worst.name
    'Whh'
    """
    from fastrnn.diagnostics.gradient_check import check_gradients

    return check_gradients(model, inputs, targets, h0, entries, step, tolerance, rng)


# -- while training ----------------------------------------------------------------------------------


def training_summary(
    model: Model,
    inputs: ArrayLike,
    targets: Targets,
    h0: ArrayLike | None = None,
    *,
    clip: StepClip | None = "norm",
    clip_threshold: float = 5.0,
) -> dict[str, float]:
    """A few numbers about a batch, cheap enough to be taken now and then while a model trains.

    Parameters
    ----------
    model, inputs, targets, h0
        As for `gradient_flow`; the top layer is looked at.
    clip : {"norm", "value", "step"} or None
        What the training clips by.  (``"step"`` is counted as ``"value"``.)
    clip_threshold : float, default 5.0
        The largest norm, or the largest magnitude of an entry, that is left as it is.

    Returns
    -------
    dict of str to float
        ``spectral_radius`` (estimated), ``saturated`` and ``dead`` (mean shares of units),
        ``gradient_share`` (of the last loss's gradient, how much reaches the first step of the
        chunk), ``half_life`` (steps in which that gradient falls to a half, infinity where it does
        not fall), ``dWhh_norm``, ``clipped`` (share of entries that the clipping changes).  NaN where
        there is no such number, so all of them where the model's weights hold NaN or infinity.

    Raises
    ------
    IndexError, TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> from fastrnn import SimpleRNN
    >>> summary = training_summary(SimpleRNN(4, 16, 4, rng=0), [1, 0, 2, 2], [0, 2, 2, 3])
    >>> sorted(summary)
    ['clipped', 'dWhh_norm', 'dead', 'gradient_share', 'half_life', 'saturated', 'spectral_radius']
    """
    check_choice(clip, "clip", (None, "step", "value", "norm"))
    limit = check_number(clip_threshold, "clip_threshold", positive=True, finite=False)
    m = open_model(model)
    batch = open_batch(m, inputs, targets, h0)
    return summarize(m, batch, targets, clip, limit)


_SUMMARY = (
    "spectral_radius", "saturated", "dead", "gradient_share", "half_life", "dWhh_norm", "clipped",
)  # fmt: skip


def summarize(m: OpenModel, batch: Batch, targets: Any, clip: str | None, limit: float) -> dict[str, float]:
    """`training_summary` of arguments that were checked."""
    if m.not_finite():
        return dict.fromkeys(_SUMMARY, math.nan)
    top = len(m.layers) - 1
    with np.errstate(all="ignore"):
        u = forward(m, batch, more=2)
        _, d_outputs, output = _loss_gradient(u, targets, m.reduction)
        layers = _layer_gradients(u, d_outputs)
        from_last = _from_last_step(u, d_outputs, (top, 0))
        grads = [*layers, *output]
        hs = u.hs[top][0]
        slopes = u.slopes(top)
        broken = not np.isfinite(hs).all()
        W = m.recurrent_weights(top)
        changed = 0.0
        if clip == "norm":
            changed = float(not _global_norm(grads) <= limit)
        elif clip is not None:
            changed = _share_beyond(grads, limit)
        rate = 0.0
        if not from_last[-1] > 0:  # a loss without a gradient: nothing that could fall
            rate = math.nan
        elif len(from_last) > 1:
            rate = _fit_decay(np.arange(len(from_last)), np.log(from_last[::-1]))[0]
        return {
            "spectral_radius": _estimate_radius(W),
            "saturated": math.nan if broken else 0.0 if m.relu else float((np.abs(hs) > SATURATED).mean()),
            "dead": math.nan if broken else float((slopes < DEAD_SLOPE).mean()),
            "gradient_share": float(from_last[0] / from_last[-1]),
            "half_life": _half_life(rate),
            "dWhh_norm": _norm(layers[top * m.directions * 4 + 1]),
            "clipped": changed,
        }
