"""How far a state is remembered: norms of the products of Jacobians."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import check_choice, check_size
from fastrnn.diagnostics.canvas import (
    BLUE,
    LARGEST,
    ORANGE,
    drawable,
    legend_below,
    line_style,
    log_scale,
    new_axes,
    tidy,
)
from fastrnn.diagnostics.results import Measured, about_model, check_direction, finite_states, open_finite
from fastrnn.diagnostics.unroll import Unrolled, check_layer, forward, open_batch
from fastrnn.diagnostics.words import about, headline, in_steps, number
from fastrnn.sharing import reading_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from fastrnn.cells import Linear
    from fastrnn.hints import Model, NormMethod, State

__all__ = ["JacobianNorms", "fit_decay", "half_life_of", "jacobian_norms", "plot_jacobian_norms"]

#: Up to this hidden size the product of Jacobians is formed and its singular values are exact.
EXACT_UP_TO = 64


#: Vectors that the power iteration keeps, the residual at which it has converged (the error of the
#: norm is about its square), and how often it starts again at most.
SPAN, CONVERGED, MOST_RESTARTS = 16, 1e-5, 100


@dataclass(frozen=True, eq=False, repr=False)
class JacobianNorms(Measured):
    """Result of `jacobian_norms`.

    Attributes
    ----------
    lags : ndarray of int, shape (L,)
        1 to L: steps between the two states.
    norms : ndarray, shape (L,)
        Spectral norm of ``dh_{k+lag}/dh_k`` (eq. 14's product), averaged over where it starts.  Of an LSTM the
        state is (h, c).
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
        Bengio et al.'s bound of one step's Jacobian, so ``norms <= bound ** lags``.  NaN for a cell with gates, of
        which it says nothing: a state goes on there beside W_hh as well.
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
        return _memory_sentences(self)

    def _size(self) -> str:
        return f"lags 1 to {len(self.lags)}, layer {self.layer}, direction {self.direction}"

    def plot(self, ax: Any = None) -> Figure:
        """`fastrnn.figures.plot_jacobian_norms` of this result."""
        return plot_jacobian_norms(self, ax=ax)


@reading_model
def jacobian_norms(
    model: Model,
    inputs: ArrayLike,
    h0: State | None = None,
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
    model : SimpleRNN, RNN, GRU, LSTM, LanguageModel, SequenceModel or fitted CharRNN, RNNRegressor or RNNClassifier
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
        1 for the reverse direction of a bidirectional model; lags count backwards in time then.
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
    direction = check_direction(m, direction)
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
    finite_states(u, number, direction)
    W = m.recurrent_weights(number, direction)
    steps = _Steps(u.linear((number, direction), *_on_the_way(u, L, most, direction)), W)
    bound = math.nan
    if m.cell.slope is not None:
        bound = float(np.linalg.norm(W, 2) * u.slopes(number, direction).max())
    done = on_progress or (lambda share: None)
    logs = (_exact_norms if method == "exact" else _power_norms)(steps, done)
    with np.errstate(all="ignore"):
        mean = np.logaddexp.reduce(logs, axis=1) - math.log(logs.shape[1])
        norms = np.exp(mean)
    lags = np.arange(1, L + 1)
    rate, intercept = fit_decay(lags, mean)
    return JacobianNorms(
        lags, norms, rate, _exp(-rate), intercept, half_life_of(rate),
        bound, logs.shape[1], method, number, direction,
        **about_model(m, number, direction, batch),
    )  # fmt: skip


def _exp(value: float) -> float:
    with np.errstate(all="ignore"):
        return float(np.exp(value))


def _on_the_way(u: Unrolled, L: int, most: int, direction: int) -> tuple[np.ndarray, np.ndarray]:
    """The L time steps after each start that is looked at, and their sequences, both of shape (L, starts)."""
    T, N = u.batch.shape
    every = (T - L) * N
    chosen = np.unique(np.linspace(0, every - 1, min(most, every)).round().astype(int))
    k, n = np.divmod(chosen, N)
    t = k[None] + np.arange(1, L + 1)[:, None]
    return T - 1 - t if direction else t, np.broadcast_to(n, t.shape)


class _Steps:
    """The Jacobians of L steps after each of some starts, as products with vectors.

    Parameters
    ----------
    linear : Linear, shapes (S, G, L, starts, h) and (S, S, L, starts, h)
    W : ndarray, shape (G*h, h)
    """

    def __init__(self, linear: Linear, W: np.ndarray) -> None:
        self._by_gate, self._directly, self._W = linear.by_gate, linear.directly, W
        self._states, self._gates, self.count, self.starts, self._h = linear.by_gate.shape
        #: Of a state, h and whatever else there is.
        self.size = self._states * self._h

    def forward(self, i: int, v: np.ndarray) -> np.ndarray:
        """J v of step i, for vectors v (..., starts, size)."""
        by_gate = self._by_gate[:, :, i]
        if self._directly is None:
            return np.asarray(by_gate[0, 0] * np.dot(v, self._W.T))
        parts = self._parts(v)
        by_product = np.split(np.dot(parts[0], self._W.T), self._gates, axis=-1)
        directly = self._directly[:, :, i]
        return np.concatenate(
            [
                sum(a * u for a, u in zip(by_gate[s], by_product, strict=True))
                + sum(b * part for b, part in zip(directly[s], parts, strict=True))
                for s in range(self._states)
            ],
            axis=-1,
        )

    def back(self, i: int, v: np.ndarray) -> np.ndarray:
        """J' v."""
        by_gate = self._by_gate[:, :, i]
        if self._directly is None:
            return np.asarray(np.dot(by_gate[0, 0] * v, self._W))
        parts = self._parts(v)
        directly = self._directly[:, :, i]
        gates = [
            sum(a * part for a, part in zip(by_gate[:, g], parts, strict=True)) for g in range(self._gates)
        ]
        states = [
            sum(b * part for b, part in zip(directly[:, r], parts, strict=True)) for r in range(self._states)
        ]
        states[0] = states[0] + np.dot(np.concatenate(gates, axis=-1), self._W)
        return np.concatenate(states, axis=-1)

    def _parts(self, v: np.ndarray) -> list[np.ndarray]:
        return np.split(v, self._states, axis=-1)


def _exact_norms(steps: _Steps, done: Callable[[float], object]) -> np.ndarray:
    """Logarithm of the largest singular value of each product of Jacobians, shape (L, starts)."""
    L, S, size = steps.count, steps.starts, steps.size
    columns = np.broadcast_to(np.eye(size)[:, None], (size, S, size))  # of the product
    scale = np.zeros(S)
    logs = np.empty((L, S))
    with np.errstate(divide="ignore"):
        for i in range(L):
            columns = steps.forward(i, columns)
            # Kept near 1: a product of many steps leaves the range of float64.
            largest = np.abs(columns).max(axis=(0, 2))
            columns /= np.where(largest > 0, largest, 1)[:, None]
            scale += np.log(largest)
            logs[i] = scale + np.log(np.linalg.norm(columns, 2, axis=(0, 2)))
            done((i + 1) / L)
    return np.where(np.isnan(logs), -np.inf, logs)


def _power_norms(steps: _Steps, done: Callable[[float], object]) -> np.ndarray:
    """The same without forming a product P: by power iteration with ``P' P``, whose vectors are kept.

    The largest eigenvalue in the space that they span (Lanczos) is there after a few of them, also
    where the largest singular values lie close together.  A lag starts from the vector of the last.
    """
    L, S, h = steps.count, steps.starts, steps.size
    # Any start with a share in the wanted direction does; a fixed one makes results repeatable.
    v = np.random.default_rng(0).standard_normal((S, h))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    logs = np.empty((L, S))
    for i in range(L):
        for _ in range(MOST_RESTARTS):
            logs[i], v, converged = _lanczos(steps, i + 1, v)
            if converged:
                break
        done(((i + 1) / L) ** 2)  # a product of i steps takes i times as long
    return logs


def _lanczos(steps: _Steps, lag: int, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Logarithm of the largest singular value (S,) of the first `lag` steps and its vector (S, h), from at most
    `SPAN` vectors, and whether all have converged."""
    S, h = v.shape
    span = min(SPAN, h)
    basis = np.zeros((span, S, h))
    small = np.zeros((S, span, span))
    scale = np.zeros(S)
    for k in range(span):
        basis[k] = v
        w, size = _there_and_back(steps, lag, v)
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


def _there_and_back(steps: _Steps, lag: int, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``P' P v`` for each row of v (S, h), as a vector near 1 and the logarithm of its factor."""
    scale = np.zeros(len(v))
    for i in range(lag):
        v, grown = _near_one(steps.forward(i, v))
        scale += grown
    for i in range(lag - 1, -1, -1):
        v, grown = _near_one(steps.back(i, v))
        scale += grown
    return v, scale


def _near_one(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    largest = np.abs(v).max(axis=1)
    with np.errstate(divide="ignore"):
        return v / np.where(largest > 0, largest, 1)[:, None], np.log(largest)


def fit_decay(lags: np.ndarray, logs: np.ndarray) -> tuple[float, float]:
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


def half_life_of(rate: float) -> float:
    return math.log(2) / rate if rate > 0 else math.nan if math.isnan(rate) else math.inf


def _memory_sentences(r: JacobianNorms) -> list[str]:
    L = len(r.lags)
    starts = f"On average over {r.starts:,} starting point{'s' * (r.starts != 1)}"
    lines = [
        headline("How much a state depends on an earlier one", r, f"1 to {in_steps(L)} back"),
        f"{starts}, a small change of a state is multiplied by at most {number(float(r.norms[0]))} in 1 step"
        + (f", and by {number(float(r.norms[-1]))} in {in_steps(L)}." if L > 1 else "."),
    ]
    if math.isnan(r.factor):
        lines.append("No exponential fits that: some of the norms are beyond all numbers.")
    elif r.factor == 0:
        lines.append("Nothing comes through: the state forgets everything.")
    elif math.isinf(r.half_life):
        lines.append(f"Each further step multiplies by {number(r.factor)}: it does not fade.")
    else:
        lines.append(
            f"Each further step multiplies by {number(r.factor)}: the memory falls to a half in "
            f"{number(r.half_life)} steps."
        )
    if not math.isnan(r.bound):
        lines.append(
            f"The bound of Bengio et al. for one step is {number(r.bound)}: "
            + ("below 1, so gradients must vanish." if r.bound < 1 else "not below 1, so it proves nothing.")
        )
    return lines


def plot_jacobian_norms(memory: JacobianNorms, *, ax: Any = None) -> Figure:
    """Norms of dh_t/dh_k against the lag on a logarithmic scale, with the exponential fit and the bound.

    Parameters
    ----------
    memory : JacobianNorms
    ax : matplotlib.axes.Axes or None
        None makes a figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    figure, ax = new_axes(ax)
    lags = memory.lags
    ax.plot(
        lags,
        drawable(memory.norms),
        color=BLUE,
        label=f"measured, mean of {memory.starts}",
        **line_style(len(lags)),
    )
    if math.isfinite(memory.decay_rate) and math.isfinite(memory.intercept):
        half = len(lags) // 2 if len(lags) >= 4 else 0
        with np.errstate(all="ignore"):
            fit = np.exp(memory.intercept - memory.decay_rate * lags)
        steps = f"{memory.half_life:.3g}"
        life = (
            f"half-life {steps} step{'s' * (steps != '1')}" if math.isfinite(memory.half_life) else "it grows"
        )
        ax.plot(
            lags[half:], drawable(fit[half:]), color=ORANGE, linewidth=4, alpha=0.6, zorder=1,
            label=f"fit: $\\times$ {memory.factor:.3g} a step, {life}",
        )  # fmt: skip
    if not math.isnan(memory.bound):
        _plot_bound(memory, ax)
    tidy(
        ax, "How much a state depends on an earlier one", about(memory), "lag in time steps",
        "spectral norm of dh$_{t}$/dh$_{t-lag}$",
    )  # fmt: skip
    log_scale(ax)
    legend_below(ax)
    return figure


def _plot_bound(memory: JacobianNorms, ax: Any) -> None:
    lags = memory.lags
    with np.errstate(all="ignore"):
        bound = memory.bound ** lags.astype(np.float64)
    name = f"bound of Bengio et al., {memory.bound:.3g}$^{{lag}}$"
    if _near(bound, memory.norms):
        # Over the curve: the two may be the same.
        ax.plot(lags, bound, color="black", linestyle=":", zorder=3, label=name)
    else:
        where = f"rises to {number(float(bound[-1]))}" if memory.bound > 1 else "falls out of it"
        ax.plot([], [], linestyle="none", label=f"{name}: not in the picture, it {where}")


def _near(bound: np.ndarray, norms: np.ndarray) -> bool:
    """Whether an axis that shows the whole bound still shows the norms as well: half of it, or six decades."""
    measured = norms[np.isfinite(norms) & (norms > 0)]
    if not (len(measured) and (bound < LARGEST).all() and (bound > 1 / LARGEST).all()):
        return False
    low, high = math.log10(measured.min()), math.log10(measured.max())
    spread = max(high, math.log10(bound.max())) - min(low, math.log10(bound.min()))
    return spread <= max(2 * (high - low), 6.0)
