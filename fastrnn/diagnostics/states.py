"""Hidden states: what they are, and how many units are saturated."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.cells import CELLS
from fastrnn.checks import check_number, check_size
from fastrnn.diagnostics.canvas import (
    BLUE,
    CELL,
    LARGEST,
    LEGEND,
    ORANGE,
    POINTS,
    RED,
    drawable,
    legend_below,
    line_style,
    new_axes,
    percents,
    points_of,
    set_title,
    tidy,
)
from fastrnn.diagnostics.gates import GateSaturation, gate_saturation
from fastrnn.diagnostics.glyphs import NAMES, Sign, signs
from fastrnn.diagnostics.results import (
    DEAD_SLOPE,
    SATURATED,
    Measured,
    about_model,
    check_direction,
    finite_states,
    open_finite,
)
from fastrnn.diagnostics.unroll import check_layer, forward, open_batch, open_model
from fastrnn.diagnostics.words import (
    NAMED,
    QUOTED,
    about,
    headline,
    in_steps,
    in_units,
    number,
    percent,
    some_of,
)
from fastrnn.sharing import reading_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from fastrnn.hints import Model, State

__all__ = [
    "HiddenStates",
    "Saturation",
    "hidden_states",
    "plot_hidden_states",
    "plot_saturation",
    "saturation",
]


@dataclass(frozen=True, eq=False, repr=False)
class Saturation(Measured):
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
        return _saturation_sentences(self)

    def _size(self) -> str:
        return f"{len(self.saturated)} time steps, {len(self.stuck)} units stuck"

    def plot(self, ax: Any = None) -> Figure:
        """`fastrnn.figures.plot_saturation` of this result."""
        return plot_saturation(self, ax=ax)


@reading_model
def saturation(
    model: Model,
    inputs: ArrayLike,
    h0: State | None = None,
    *,
    threshold: float = SATURATED,
    layer: int = -1,
    direction: int = 0,
) -> Saturation | GateSaturation:
    """Share of units that are saturated, and of those that pass no gradient, at each time step.

    A saturated tanh multiplies the gradient by its derivative ``1 - h^2`` (eq. 4), which is near zero.  So does a gate
    that is shut or wide open by that of the sigmoid.

    Parameters
    ----------
    model, inputs, h0, layer, direction
        As for `jacobian_norms`.
    threshold : float, default 0.99
        In (0, 1); of gates, which lie between 0 and 1, at least 0.5.

    Returns
    -------
    Saturation
        Of a GRU or an LSTM a `GateSaturation`.

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
    if m.cell.slope is None and limit < 0.5:
        raise ValueError(
            f"threshold must be at least 0.5 for gates, or one could be shut and wide open at once, got {limit}"
        )
    number, direction = check_layer(m, layer), check_direction(m, direction)
    batch = open_batch(m, inputs, None, h0)
    with np.errstate(all="ignore"):
        u = forward(m, batch)
    hs = finite_states(u, number, direction)
    if m.cell.slope is None:
        return gate_saturation(u, number, direction, limit)
    slopes = u.slopes(number, direction)
    flat = np.abs(hs) > limit if m.cell.saturates else np.zeros(hs.shape, bool)
    dead = slopes < DEAD_SLOPE
    return Saturation(
        flat.mean(axis=(1, 2)),
        dead.mean(axis=(1, 2)),
        np.flatnonzero((flat | dead).all(axis=(0, 1))),
        limit,
        slopes.mean(axis=(1, 2)),
        **about_model(m, number, direction, batch),
        nonlinearity=m.cell.name,
    )


def _saturation_sentences(r: Saturation) -> list[str]:
    saturated, dead = float(r.saturated.mean()), float(r.dead.mean())
    stuck = (
        f"{in_units(len(r.stuck))} ({some_of(r.stuck)}) {'are' if len(r.stuck) > 1 else 'is'} so at every step, "
        f"and {'carry' if len(r.stuck) > 1 else 'carries'} no information."
        if len(r.stuck)
        else "No unit is so at every step."
    )
    if not CELLS[r.nonlinearity].saturates:
        flat = f"On average {percent(dead)} of the units are 0 and pass no gradient; half of them is usual."
    else:
        flat = (
            f"On average {percent(saturated)} of the units are saturated (|h| above {r.threshold:g}), and "
            f"{percent(dead)} pass no gradient (slope below 0.001)."
        )
    lines = [
        headline("How flat the nonlinearity is", r, in_steps(len(r.saturated))),
        flat,
        stuck,
        f"The mean slope is {percent(float(r.mean_slope.mean()))} of the largest possible: that share of a "
        "gradient gets through.",
    ]
    if saturated > 0.3:
        lines.append(
            "That is much: saturated units hardly learn. Try a lower learning rate or smaller weights."
        )
    return lines


def plot_saturation(result: Saturation, *, ax: Any = None) -> Figure:
    """Share of saturated units and of those that pass no gradient, at each time step.

    Parameters
    ----------
    result : Saturation
    ax : matplotlib.axes.Axes or None
        None makes a figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If the result is not a `Saturation`: `plot_gate_saturation` draws that of gates.
    """
    if not isinstance(result, Saturation):
        raise TypeError(f"result must be a Saturation, got {type(result).__name__}; result.plot() draws any")
    figure, ax = new_axes(ax)
    steps = np.arange(1, len(result.saturated) + 1)
    style = line_style(len(steps))
    if not CELLS[result.nonlinearity].saturates:  # it has no upper end to be near to
        ax.plot(steps, result.dead, color=RED, label="pass no gradient: the state is 0", **style)
    else:
        ax.plot(
            steps, result.saturated, color=ORANGE, label=f"saturated: |h| > {result.threshold:g}", **style
        )
        ax.plot(steps, result.dead, color=RED, label="pass no gradient: slope < 0.001", **style)
    ax.plot(
        steps, result.mean_slope, color=BLUE, linestyle="--", label="mean slope, of the largest possible",
        **style,
    )  # fmt: skip
    tidy(
        ax,
        "How flat the nonlinearity is at each time step",
        about(result),
        "time step t",
        "share of the units",
    )
    percents(ax.yaxis)
    ax.set_ylim(-0.02, 1.02)
    legend_below(ax)
    return figure


@dataclass(frozen=True, eq=False, repr=False)
class HiddenStates(Measured):
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
        return _state_sentences(self)

    def _size(self) -> str:
        return f"{len(self.states)} time steps x {self.states.shape[1]} units"

    def plot(self, ax: Any = None, **options: Any) -> Figure:
        """`fastrnn.figures.plot_hidden_states` of this result."""
        return plot_hidden_states(self, ax=ax, **options)


@reading_model
def hidden_states(
    model: Model,
    inputs: ArrayLike,
    h0: State | None = None,
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
    number, direction = check_layer(m, layer), check_direction(m, direction)
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
    about = about_model(m, number, direction, batch)
    if N > 1:
        about["read"] = f"sequence {n} (from 0) of {about['read']}"
    return HiddenStates(u.hs[number][direction][:, n].copy(), labels, **about)


def _state_sentences(r: HiddenStates) -> list[str]:
    T, h = r.states.shape
    states = r.states.astype(np.float64)
    lines = [headline("Hidden states", r, f"{in_units(h)} at {in_steps(T)}")]
    if any(r.labels):
        if all(len(label) <= 1 for label in r.labels):
            text = "".join(r.labels)
            lines.append(f"Read: {text[:QUOTED]!r}{' and so on' * (len(text) > QUOTED)}.")
        else:
            shown = ", ".join(r.labels[:NAMED])
            lines.append(f"Read: the classes {shown}{' and so on' * (T > NAMED)}.")
    if not np.isfinite(states).all():
        lines.append(f"{percent(float((~np.isfinite(states)).mean()))} of the states are NaN or infinity.")
        return lines
    lowest, highest = float(states.min()), float(states.max())
    lines.append(
        f"The states lie between {number(lowest)} and {number(highest)}"
        # A ReLU has no upper end to be near to.
        + (
            "."
            if highest > 1
            else f"; {percent(float((np.abs(states) > 0.99).mean()))} are beyond 0.99 or -0.99."
        )
    )
    with np.errstate(all="ignore"):
        spread = np.nan_to_num(states.std(axis=0))
    most, least = int(np.argmax(spread)), int(np.argmin(spread))
    lines.append(
        f"Unit {most} (counted from 0) varies most over time, by a standard deviation of "
        f"{number(float(spread[most]))}, unit {least} least, by {number(float(spread[least]))}."
    )
    return lines


def plot_hidden_states(
    states: HiddenStates, *, ax: Any = None, units: int = 40, steps: int = 60, start: int = 0
) -> Figure:
    """Heat map of hidden states over time, with the units' numbers and what was read beside it.

    A character that prints nothing is shown by a mark, one that no installed font has by its code point.

    Parameters
    ----------
    states : HiddenStates
    ax : matplotlib.axes.Axes or None
        None makes a figure.
    units : int, default 40
        How many units are shown at most: those that vary most.  They are numbered from 0, as the columns of
        ``states.states`` are, and those that do alike stand side by side.
    steps : int, default 60
        How many time steps are shown at most, so that the text stays readable.
    start : int, default 0
        The first time step that is shown.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    shown = states.states[start : start + steps].astype(np.float64)
    labels = states.labels[start : start + steps]
    if not len(shown):
        raise ValueError(f"start must be less than the {len(states.states)} time steps, got {start}")
    with np.errstate(all="ignore"):
        varies = np.argsort(-np.nan_to_num(shown.std(axis=0)), kind="stable")[:units]
    # Units that do alike side by side: by the step at which each is highest.
    varies = varies[np.argsort(shown[:, varies].argmax(axis=0), kind="stable")]
    own = ax is None
    figure, ax = new_axes(ax, (max(5.0, 0.11 * len(shown) + 1.5), max(2.6, 0.12 * len(varies) + 1.5)))
    finite = np.abs(shown[np.isfinite(shown)])
    limit = min(max(1.0, float(finite.max())), LARGEST) if len(finite) else 1.0
    # PuOr: zero is white, and both signs are told apart by everybody.
    image = ax.imshow(
        drawable(shown[:, varies].T), aspect="auto", interpolation="nearest", cmap="PuOr_r", vmin=-limit,
        vmax=limit,
    )  # fmt: skip
    count = states.states.shape[1]
    which = (
        f"the {len(varies)} of {count} units that vary most" if len(varies) < count else f"all {count} units"
    )
    set_title(ax, f"Hidden states: {which}", about(states))
    bar = figure.colorbar(image, ax=ax, pad=0.015)
    bar.set_label("state h$_t$")
    # About what the layout leaves to the cells, in a figure that is made here and in given axes.
    width, height = (0.11 * len(shown) * POINTS, 0.12 * len(varies) * POINTS) if own else points_of(ax)
    if not own:
        height = max(height - 50, height / 3)
    size, every = _room(height / len(varies), CELL - 1)
    rows = range(0, len(varies), every)
    ax.set_yticks(rows, [str(varies[row]) for row in rows], fontsize=size)
    ax.set_ylabel("number of the unit")
    ax.tick_params(axis="y", length=2, pad=2)
    _label_steps(ax, labels, start, width / len(shown))
    return figure


def _room(points: float, most: float) -> tuple[float, int]:
    """Size of the labels of cells that are `points` apart, and how many cells share one."""
    size = min(most, max(points, 5.0))
    return size, max(1, math.ceil(0.9 * size / points))


def _label_steps(ax: Any, labels: list[str], start: int, points: float) -> None:
    """What was read below each column, or the time steps where that is not known."""
    if not any(labels):
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda column, _: f"{start + round(column) + 1}"))
        ax.set_xlabel("time step t")
        return
    drawn = signs(labels, "monospace")
    # Letters are narrower than they are high.
    size, every = _room(points / 0.7, CELL)
    columns = range(0, len(labels), every)
    ax.set_xticks(columns, [drawn[column].text for column in columns])
    ax.tick_params(axis="x", length=0, pad=3)
    for column, tick in zip(columns, ax.get_xticklabels(), strict=True):
        sign = drawn[column]
        # The usual font first: it says how high a line is, and what it lacks comes from the other.
        tick.set_fontfamily(["monospace"] if sign.font is None else ["monospace", sign.font])
        tick.set_fontsize(size if sign.kind != "point" else size - 2)
        if sign.kind == "point" or len(labels[column]) > 1:
            tick.set_rotation(90)
    ax.set_xlabel(_what_was_read(labels, drawn, every), fontsize=LEGEND)


def _what_was_read(labels: list[str], signs: list[Sign], every: int) -> str:
    """The name of the axis of labels, with a key to the marks among them."""
    classes = all(label.isdigit() for label in labels) and any(len(label) > 1 for label in labels)
    text = (
        "class index" if classes else "what was" if all(label.isdigit() for label in labels) else "character"
    )
    text += " read at each time step" if every == 1 else f" read, every {every} time steps"
    marks = {label: sign.text for label, sign in zip(labels, signs, strict=True) if sign.kind == "mark"}
    key = [f"{marks[label]} {name}" for label, name in NAMES.items() if label in marks]
    if any(sign.kind == "point" for sign in signs):
        key.append("on its side: the code point of a character that no font here has")
    return text + (f"\n{',  '.join(key)}" if key else "")
