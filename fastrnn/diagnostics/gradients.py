"""How strong the gradient is at every time step: vanishing and exploding gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import check_choice, check_real_array
from fastrnn.diagnostics.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    drawable,
    legend_below,
    line_style,
    log_percent,
    log_scale,
    new_axes,
    tidy,
)
from fastrnn.diagnostics.glyphs import as_title
from fastrnn.diagnostics.results import Measured, about_model, check_direction
from fastrnn.diagnostics.unroll import (
    Unrolled,
    backward,
    check_layer,
    forward,
    open_batch,
    open_model,
    output_gradient,
    term_norms,
)
from fastrnn.diagnostics.words import EXPLODED, VANISHED, about, headline, in_steps, number, percent
from fastrnn.functional.norms import norm
from fastrnn.heads import HEADS
from fastrnn.losses import LOSSES
from fastrnn.sharing import reading_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from fastrnn.hints import Model, Reduction, State, Targets

__all__ = [
    "GradientFlow",
    "from_last_step",
    "given_gradient",
    "gradient_flow",
    "layer_gradients",
    "loss_gradient",
    "plot_gradient_flow",
    "plot_gradient_share",
]


@dataclass(frozen=True, eq=False, repr=False)
class GradientFlow(Measured):
    """Result of `gradient_flow`.  Norms are Euclidean, over the units and the sequences of a batch.

    Attributes
    ----------
    total : ndarray, shape (T,)
        Norm of dL/dh_t, L the whole loss (eqs. 9, 12): through the output of step t and through all
        later states.  Of an LSTM, of the gradient by both states, h_t and c_t.
    from_last_step : ndarray, shape (T,)
        The same for the loss of the last time step alone; where a head reads all steps of a sequence or its end, for
        what the loss reads of the last time step alone.
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
        In nats but for squared errors, summed or averaged as `reduction` says; NaN for an `RNN`, which has no loss.
    reduction : {"sum", "mean"}
    layer, direction : int
    model, read : str
        What was measured in what, in words, for titles.  Empty where that is not known.
    head, loss_name : str
        What the loss is of, as a `SequenceModel` names it.
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
    _: KW_ONLY
    head: str = "each"
    loss_name: str = "cross_entropy"

    def _sentences(self) -> list[str]:
        return _flow_sentences(self)

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
        return plot_gradient_flow(self, ax=ax)


@reading_model
def gradient_flow(
    model: Model,
    inputs: ArrayLike,
    targets: Targets = None,
    h0: State | None = None,
    *,
    layer: int = -1,
    direction: int = 0,
    reduction: Reduction | None = None,
) -> GradientFlow:
    """How strong the gradient of the loss is at every time step (eqs. 9 to 14).

    Parameters
    ----------
    model : SimpleRNN, RNN, GRU, LSTM, LanguageModel, SequenceModel or fitted CharRNN, RNNRegressor or RNNClassifier
    inputs : array
        As the model takes them: ``(T,)`` or ``(T, d)`` for a `SimpleRNN`, ``(T, N)`` for a
        `LanguageModel` (``(T,)`` is one sequence), as `RNN.forward` takes them for an `RNN`, and for a
        `CharRNN` also a text.  For a `SequenceModel` ``(T, N, d)``, or ``(T, N)`` class indices; an estimator is looked
        at as its ``model_`` is.
    targets : array or callable
        Class indices in the shape of the inputs, for a `LanguageModel` -100 where nothing counts; a
        text as inputs has its next characters as targets when none are given.  For a `SequenceModel` as
        `SequenceModel.loss` takes them: class indices or values, of each step or of each sequence.  For an `RNN`, whose
        loss is the user's, the gradient of the loss by the outputs, in their shape, or a function that
        makes it of the outputs.
    h0 : array or None
        First states as the model takes them; None means zeros.
    layer : int, default -1
        Which layer's states, the top one by default.
    direction : {0, 1}, default 0
        1 for the reverse direction of a bidirectional model.  Its last step is time step 0.
    reduction : {"sum", "mean"} or None
        Of the loss over all that counts; None means the model's own: the sum for a `SimpleRNN`, the mean for a
        `LanguageModel` or a `SequenceModel`.

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
    direction = check_direction(m, direction)
    over: str = m.reduction if reduction is None else check_choice(reduction, "reduction", ("sum", "mean"))
    batch = open_batch(m, inputs, targets, h0)
    with np.errstate(all="ignore"):  # what explodes is reported as infinity or NaN
        u = forward(m, batch, more=2)
        loss, d_outputs, _ = loss_gradient(u, targets, over)
        place = number, direction
        reached = backward(u, d_outputs, number, {place}, {place})[place]
        total = reached.norms()
        terms = term_norms(u, place, reached.states)
        from_last = from_last_step(u, d_outputs, place, reached.states)
        share = from_last / from_last[0 if direction else -1]
        size = norm(reached.grads[1])
    return GradientFlow(
        total, from_last, share, terms, size, loss, over, number, direction,
        **about_model(m, number, direction, batch), head=m.head.name, loss_name=m.loss.name,
    )  # fmt: skip


def from_last_step(
    u: Unrolled, d_outputs: np.ndarray, place: tuple[int, int], out: tuple[np.ndarray, ...] | None = None
) -> np.ndarray:
    """Norms of the gradient by each state of a layer, of the loss of its last time step alone.

    Clears `d_outputs` but for that step.
    """
    number, direction = place
    d_outputs[slice(1, None) if direction else slice(len(d_outputs) - 1)] = 0
    return backward(u, d_outputs, number, {place}, set(), out)[place].norms()


def loss_gradient(
    u: Unrolled, targets: Any, reduction: str
) -> tuple[float, np.ndarray, tuple[np.ndarray, ...]]:
    """The loss, its gradient by the outputs of the top layer, and those of the output layer if any.

    NaN where the weights are no numbers: an infinite one may still give a finite loss.
    """
    output: tuple[np.ndarray, ...] = ()
    loss = math.nan
    if u.m.output is None:
        d_outputs = given_gradient(u, targets)
    else:
        loss, d_outputs, output = output_gradient(u, reduction)
    if u.m.not_finite():
        loss = math.nan
        for gradient in (d_outputs, *output):
            gradient[...] = math.nan
    return loss, d_outputs, output


def layer_gradients(u: Unrolled, d_outputs: np.ndarray) -> list[np.ndarray]:
    """Gradients of the weights of all layers, the lowest first."""
    m = u.m
    places = {(number, way) for number in range(len(m.layers)) for way in range(m.directions)}
    reached = backward(u, d_outputs, 0, set(), places)
    # A SimpleRNN has one bias where the kernels have two.
    used = slice(3) if m.kind == "SimpleRNN" else slice(4)
    return [g for place in sorted(places) for g in reached[place].grads[used]]


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


def _flow_sentences(r: GradientFlow) -> list[str]:
    T = len(r.total)
    first, last = (T - 1, 0) if r.direction else (0, T - 1)
    lines = [headline("Gradients on their way back", r, in_steps(T))]
    if not math.isnan(r.loss):
        lines.append(_loss_sentence(r))
    lines += _what_is_left(r, T, float(r.share[first]))
    lines.append(
        f"Of the whole loss, the gradient dL/dh has norm {number(float(r.total[first]))} at the first step "
        f"read and {number(float(r.total[last]))} at the last."
    )
    terms = f"The gradient of Whh has norm {number(r.dWhh_norm)}"
    if np.isfinite(r.dWhh_terms).all():
        largest = int(np.argmax(r.dWhh_terms))
        terms += (
            f"; of the terms that add up to it, that of step {largest + 1} is the largest, "
            f"{number(float(r.dWhh_terms[largest]))}"
        )
    lines.append(terms + ".")
    return lines


def _loss_sentence(r: GradientFlow) -> str:
    unit = "" if r.loss_name == "mse" else " nats"
    of = "steps" if HEADS[r.head].per_step else "sequences"
    if not LOSSES[r.loss_name].takes_classes:
        of = "values"
    return f"The loss is {number(r.loss)}{unit}, the {r.reduction} over the {of}."


def _what_is_left(r: GradientFlow, T: int, left: float) -> list[str]:
    """How much of the last step's gradient reaches the first, and the word for it."""
    last = "the last step's loss" if HEADS[r.head].per_step else "what the loss reads of the last step"
    if not float(r.from_last_step.max()) > 0 and not np.isnan(r.from_last_step).any():
        return [f"{last[0].upper()}{last[1:]} sends no gradient back at all: it is 0."]
    if not np.isfinite(r.share).all():
        return [f"The gradient of {last} is beyond all numbers at some step: NaN or infinity."]
    if T == 1:
        return ["With one step there is none to go back to."]
    reaches = f"Of the gradient of {last}, {percent(left)} reaches the first step"
    largest = float(r.share.max())
    if largest > EXPLODED:
        return [
            f"The gradient of {last} grows on its way back, to {number(largest)} times its size; "
            f"at the first step, {in_steps(T - 1)} back, it is {number(left)} times.",
            "It explodes: one update can undo many. Clip the gradients by their norm.",
        ]
    if left < VANISHED:
        return [
            f"{reaches}, {in_steps(T - 1)} back; {in_steps(r.reach)} back it falls below 1%.",
            "It vanishes: what was read before that hardly changes what is learned.",
        ]
    return [
        f"{reaches}, {in_steps(T - 1)} back.",
        "It holds: what was read first is learned from as well.",
    ]


def plot_gradient_flow(flow: GradientFlow, *, ax: Any = None) -> Figure:
    """Norm of the gradient at every time step, on a logarithmic scale.

    Parameters
    ----------
    flow : GradientFlow
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
    steps = np.arange(1, len(flow.total) + 1)
    style = line_style(len(steps))
    ax.plot(steps, drawable(flow.total), color=BLUE, label="whole loss: |dL/dh$_t$|", **style)
    last = "loss of" if HEADS[flow.head].per_step else "what it reads of"
    ax.plot(steps, drawable(flow.from_last_step), color=RED, label=f"{last} the last step alone", **style)
    # The first term is zero where the first state is: a logarithmic axis has no place for it.
    terms = drawable(np.where(flow.dWhh_terms > 0, flow.dWhh_terms, np.nan))
    ax.plot(steps, terms, color=GREEN, linestyle="--", label="term of dW$_{hh}$", **style)
    tidy(
        ax, "How strong the gradient is at each time step", about(flow), "time step t", "norm of the gradient"
    )
    log_scale(ax)
    legend_below(ax)
    return figure


def plot_gradient_share(flows: Mapping[str, GradientFlow], *, ax: Any = None) -> Figure:
    """How much of the last step's gradient is left on its way back, for several nets or texts.

    Parameters
    ----------
    flows : mapping of str to GradientFlow
        Their names for the legend.
    ax : matplotlib.axes.Axes or None
        None makes a figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there is none.
    """
    if not flows:
        raise ValueError("flows must hold at least one GradientFlow, got none")
    figure, ax = new_axes(ax)
    longest = max(len(flow.share) for flow in flows.values())
    colours = (BLUE, GREEN, RED, ORANGE, GREY)
    for i, (name, flow) in enumerate(flows.items()):
        shares = flow.share if flow.direction else flow.share[::-1]
        ax.plot(
            np.arange(len(shares)), drawable(shares), color=colours[i % len(colours)],
            linestyle=("-", "--", ":")[i // len(colours) % 3], label=as_title(name), **line_style(longest),
        )  # fmt: skip
    ax.axhline(1, color=GREY, linewidth=1, linestyle=":")
    names = {about(flow) for flow in flows.values()}
    tidy(
        ax, "What is left of the last step's gradient on its way back", names.pop() if len(names) == 1 else "",
        "steps back from the last one", "share of the last step's gradient",
    )  # fmt: skip
    log_scale(ax)
    if ax.get_yscale() == "log":
        from matplotlib.ticker import FuncFormatter

        ax.yaxis.set_major_formatter(FuncFormatter(log_percent))
    legend_below(ax)
    return figure
