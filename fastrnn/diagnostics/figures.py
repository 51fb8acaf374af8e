"""The pictures of `fastrnn.figures`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.diagnostics import glyphs
from fastrnn.diagnostics.sentences import about, number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastrnn.diagnostics.measures import (
        ClipReport,
        GradientFlow,
        HiddenStates,
        JacobianNorms,
        Saturation,
        Spectrum,
    )
    from fastrnn.diagnostics.report import Diagnosis

__all__ = [
    "plot_clip_report",
    "plot_clipping",
    "plot_diagnosis",
    "plot_gradient_flow",
    "plot_gradient_share",
    "plot_hidden_states",
    "plot_history",
    "plot_jacobian_norms",
    "plot_saturation",
    "plot_singular_values",
]

#: Colours that colour-blind readers tell apart (Okabe and Ito), in the order of their use.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"

#: Inches, and points in an inch, of a figure that is made here: text can be read where it is 800 wide.
SIZE, DPI = (7.0, 4.6), 110

#: Points of the letters in titles, legends, and beside the cells of a heat map.
TITLE, LEGEND, CELL = 10, 9, 8

#: Points of an inch; width of a letter by its height, at most on average.
POINTS, LETTER = 72, 0.55

#: Axes end here: beyond it matplotlib's own arithmetic overflows.
LARGEST = 1e150


def _figure(size: tuple[float, float], dpi: int = DPI) -> Figure:
    try:
        from fastrnn.diagnostics.notebook_figure import NotebookFigure
    except ImportError as error:
        raise ImportError(
            f"matplotlib is needed to draw figures ({error}); get it with: pip install 'fastrnn[plot]'"
        ) from error
    return NotebookFigure(figsize=size, dpi=dpi, layout="constrained")


def _axes(ax: Any, size: tuple[float, float] = SIZE) -> tuple[Figure, Any]:
    """The figure and axes to draw into."""
    if ax is not None:
        return ax.figure, ax
    figure = _figure(size)
    return figure, figure.add_subplot()


def _points(ax: Any) -> tuple[float, float]:
    """About how many points wide and high axes are, before a layout has moved them."""
    scale = POINTS / ax.figure.dpi
    return float(ax.bbox.width * scale), float(ax.bbox.height * scale)


def _title(ax: Any, title: str, below: str) -> None:
    """A title, and what was measured in what below it."""
    room = max(30, int(_points(ax)[0] / (LETTER * TITLE)))
    lines = textwrap.wrap(glyphs.as_title(below), room, max_lines=3, placeholder=" \u2026")
    ax.set_title("\n".join([title, *lines]), loc="left", fontsize=TITLE)


def _tidy(ax: Any, title: str, below: str, xlabel: str, ylabel: str) -> None:
    _title(ax, title, below)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(True, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _legend(ax: Any) -> None:
    """A legend below the axes, or where it covers least if nothing would make room for it there."""
    if ax.figure.get_layout_engine() is None:
        ax.legend(fontsize=LEGEND, loc="best")
        return
    labels = ax.get_legend_handles_labels()[1]
    # A line, its gaps, and the label; formulas are longer in their source than in the picture.
    widest = max(len(label.replace("$", "").replace("{", "").replace("}", "")) for label in labels)
    columns = int(_points(ax)[0] / (LEGEND * (LETTER * widest + 4)))
    from matplotlib.transforms import ScaledTranslation

    # Below the numbers and the name of the axis, which are 10 points high each.
    below = ax.transAxes + ScaledTranslation(0, -39 / POINTS, ax.figure.dpi_scale_trans)
    ax.legend(
        fontsize=LEGEND, frameon=False, ncols=max(1, min(columns, len(labels))), loc="upper left",
        bbox_to_anchor=(0, 0), bbox_transform=below, borderaxespad=0, borderpad=0,
    )  # fmt: skip


def _percents(axis: Any) -> None:
    """Numbers from 0 to 1 as percent on a linear axis."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0))


def _log_percent(value: float, _: int) -> str:
    """A share as percent for a logarithmic axis, in powers of ten where it is very small or large."""
    power = math.log10(100 * value)
    if -4 <= power <= 6:
        return f"{100 * value:,.10g}%"
    return f"$10^{{{power:.0f}}}$%"


def _log_scale(ax: Any) -> None:
    """A logarithmic y axis, over at least two decades, for all lines of the axes that share it."""
    lines = [line for panel in ax.get_shared_y_axes().get_siblings(ax) for line in panel.lines]
    values = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in lines])
    values = values[(values >= 1 / LARGEST) & (values <= LARGEST)]
    if not len(values):
        ax.text(
            0.5, 0.5, "no number here is finite and above zero", transform=ax.transAxes, ha="center",
            color=GREY,
        )  # fmt: skip
        return
    ax.set_yscale("log")
    low, high = math.log10(values.min()), math.log10(values.max())
    room = max(2.0 - (high - low), 0.16 * (high - low)) / 2
    ax.set_ylim(10.0 ** (low - room), 10.0 ** (high + room))


def _drawable(values: Any) -> np.ndarray:
    """What an axis can show: NaN for what is no finite number, and none beyond `LARGEST`."""
    array = np.asarray(values, np.float64)
    return np.where(np.isfinite(array), np.clip(array, -LARGEST, LARGEST), np.nan)


def _style(count: int) -> dict[str, Any]:
    """Marks at the points of a short curve: one point is no line."""
    return {"marker": "o", "markersize": 3} if count <= 60 else {}


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
    figure, ax = _axes(ax)
    steps = np.arange(1, len(flow.total) + 1)
    style = _style(len(steps))
    ax.plot(steps, _drawable(flow.total), color=BLUE, label="whole loss: |dL/dh$_t$|", **style)
    ax.plot(steps, _drawable(flow.from_last_step), color=RED, label="loss of the last step alone", **style)
    # The first term is zero where the first state is: a logarithmic axis has no place for it.
    terms = _drawable(np.where(flow.dWhh_terms > 0, flow.dWhh_terms, np.nan))
    ax.plot(steps, terms, color=GREEN, linestyle="--", label="term of dW$_{hh}$", **style)
    _tidy(
        ax, "How strong the gradient is at each time step", about(flow), "time step t", "norm of the gradient"
    )
    _log_scale(ax)
    _legend(ax)
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
    figure, ax = _axes(ax)
    longest = max(len(flow.share) for flow in flows.values())
    colours = (BLUE, GREEN, RED, ORANGE, GREY)
    for i, (name, flow) in enumerate(flows.items()):
        shares = flow.share if flow.direction else flow.share[::-1]
        ax.plot(
            np.arange(len(shares)), _drawable(shares), color=colours[i % len(colours)],
            linestyle=("-", "--", ":")[i // len(colours) % 3], label=glyphs.as_title(name), **_style(longest),
        )  # fmt: skip
    ax.axhline(1, color=GREY, linewidth=1, linestyle=":")
    names = {about(flow) for flow in flows.values()}
    _tidy(
        ax, "What is left of the last step's gradient on its way back", names.pop() if len(names) == 1 else "",
        "steps back from the last one", "share of the last step's gradient",
    )  # fmt: skip
    _log_scale(ax)
    if ax.get_yscale() == "log":
        from matplotlib.ticker import FuncFormatter

        ax.yaxis.set_major_formatter(FuncFormatter(_log_percent))
    _legend(ax)
    return figure


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
    figure, ax = _axes(ax)
    lags = memory.lags
    ax.plot(
        lags,
        _drawable(memory.norms),
        color=BLUE,
        label=f"measured, mean of {memory.starts}",
        **_style(len(lags)),
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
            lags[half:], _drawable(fit[half:]), color=ORANGE, linewidth=4, alpha=0.6, zorder=1,
            label=f"fit: $\\times$ {memory.factor:.3g} a step, {life}",
        )  # fmt: skip
    with np.errstate(all="ignore"):
        bound = memory.bound ** lags.astype(np.float64)
    name = f"bound of Bengio et al., {memory.bound:.3g}$^{{lag}}$"
    if _near(bound, memory.norms):
        # Over the curve: the two may be the same.
        ax.plot(lags, bound, color="black", linestyle=":", zorder=3, label=name)
    else:
        where = f"rises to {number(float(bound[-1]))}" if memory.bound > 1 else "falls out of it"
        ax.plot([], [], linestyle="none", label=f"{name}: not in the picture, it {where}")
    _tidy(
        ax, "How much a state depends on an earlier one", about(memory), "lag in time steps",
        "spectral norm of dh$_{t}$/dh$_{t-lag}$",
    )  # fmt: skip
    _log_scale(ax)
    _legend(ax)
    return figure


def _near(bound: np.ndarray, norms: np.ndarray) -> bool:
    """Whether an axis that shows the whole bound still shows the norms as well: half of it, or six decades."""
    measured = norms[np.isfinite(norms) & (norms > 0)]
    if not (len(measured) and (bound < LARGEST).all() and (bound > 1 / LARGEST).all()):
        return False
    low, high = math.log10(measured.min()), math.log10(measured.max())
    spread = max(high, math.log10(bound.max())) - min(low, math.log10(bound.min()))
    return spread <= max(2 * (high - low), 6.0)


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
    figure, ax = _axes(ax, (max(5.0, 0.11 * len(shown) + 1.5), max(2.6, 0.12 * len(varies) + 1.5)))
    finite = np.abs(shown[np.isfinite(shown)])
    limit = min(max(1.0, float(finite.max())), LARGEST) if len(finite) else 1.0
    # PuOr: zero is white, and both signs are told apart by everybody.
    image = ax.imshow(
        _drawable(shown[:, varies].T), aspect="auto", interpolation="nearest", cmap="PuOr_r", vmin=-limit,
        vmax=limit,
    )  # fmt: skip
    count = states.states.shape[1]
    which = (
        f"the {len(varies)} of {count} units that vary most" if len(varies) < count else f"all {count} units"
    )
    _title(ax, f"Hidden states: {which}", about(states))
    bar = figure.colorbar(image, ax=ax, pad=0.015)
    bar.set_label("state h$_t$")
    # About what the layout leaves to the cells, in a figure that is made here and in given axes.
    width, height = (0.11 * len(shown) * POINTS, 0.12 * len(varies) * POINTS) if own else _points(ax)
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
    signs = glyphs.signs(labels, "monospace")
    # Letters are narrower than they are high.
    size, every = _room(points / 0.7, CELL)
    columns = range(0, len(labels), every)
    ax.set_xticks(columns, [signs[column].text for column in columns])
    ax.tick_params(axis="x", length=0, pad=3)
    for column, tick in zip(columns, ax.get_xticklabels(), strict=True):
        sign = signs[column]
        # The usual font first: it says how high a line is, and what it lacks comes from the other.
        tick.set_fontfamily(["monospace"] if sign.font is None else ["monospace", sign.font])
        tick.set_fontsize(size if sign.kind != "point" else size - 2)
        if sign.kind == "point" or len(labels[column]) > 1:
            tick.set_rotation(90)
    ax.set_xlabel(_what_was_read(labels, signs, every), fontsize=LEGEND)


def _what_was_read(labels: list[str], signs: list[glyphs.Sign], every: int) -> str:
    """The name of the axis of labels, with a key to the marks among them."""
    classes = all(label.isdigit() for label in labels) and any(len(label) > 1 for label in labels)
    text = (
        "class index" if classes else "what was" if all(label.isdigit() for label in labels) else "character"
    )
    text += " read at each time step" if every == 1 else f" read, every {every} time steps"
    marks = {label: sign.text for label, sign in zip(labels, signs, strict=True) if sign.kind == "mark"}
    key = [f"{marks[label]} {name}" for label, name in glyphs.NAMES.items() if label in marks]
    if any(sign.kind == "point" for sign in signs):
        key.append("on its side: the code point of a character that no font here has")
    return text + (f"\n{',  '.join(key)}" if key else "")


def plot_singular_values(spectrum: Spectrum, *, ax: Any = None) -> Figure:
    """Singular values and absolute eigenvalues of W_hh, largest first.

    Parameters
    ----------
    spectrum : Spectrum
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
    figure, ax = _axes(ax)
    values = _drawable(spectrum.singular_values)
    rank = np.arange(1, len(values) + 1)
    style = _style(len(values))
    ax.plot(
        rank, values, color=BLUE,
        label=f"singular values: one step stretches by at most {number(float(spectrum.singular_values[0]))}",
        **style,
    )  # fmt: skip
    ax.plot(
        rank, np.sort(_drawable(np.abs(spectrum.eigenvalues)))[::-1], color=RED,
        label=f"absolute eigenvalues: spectral radius {number(spectrum.spectral_radius)}", **style,
    )  # fmt: skip
    ax.axhline(1, color=GREY, linewidth=1, linestyle=":", label="1: neither grows nor shrinks")
    _tidy(
        ax, "What W$_{hh}$ does to a vector in one step", about(spectrum), "rank, largest first",
        "factor (no unit)",
    )  # fmt: skip
    ax.set_ylim(0, None)
    _legend(ax)
    return figure


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
    """
    figure, ax = _axes(ax)
    steps = np.arange(1, len(result.saturated) + 1)
    style = _style(len(steps))
    if result.nonlinearity == "relu":  # it has no upper end to be near to
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
    _tidy(
        ax,
        "How flat the nonlinearity is at each time step",
        about(result),
        "time step t",
        "share of the units",
    )
    _percents(ax.yaxis)
    ax.set_ylim(-0.02, 1.02)
    _legend(ax)
    return figure


def plot_clip_report(report: ClipReport, *, ax: Any = None) -> Figure:
    """Gradient norm before and after each way of clipping, with the share of entries it changed.

    Parameters
    ----------
    report : ClipReport
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
    figure, ax = _axes(ax)
    modes = list(report.norm_after)
    norms = [report.norm_before, *report.norm_after.values()]
    names = ["not clipped", *(f'"{mode}"' for mode in modes)]
    notes = ["", *(f"changes {percent(report.changed[mode])}\nof the entries" for mode in modes)]
    # What is no number has no bar, and says so.
    heights = np.nan_to_num(_drawable(norms))
    bars = ax.bar(names, heights, color=[GREY, *[BLUE] * len(modes)], width=0.6)
    ax.bar_label(
        bars,
        [f"{number(norm)}\n{note}".strip() for norm, note in zip(norms, notes, strict=True)],
        padding=3, fontsize=LEGEND,
    )  # fmt: skip
    top = float(heights.max())
    name = f"threshold {number(report.threshold)}"
    if report.threshold <= 2 * top:
        ax.axhline(report.threshold, color=RED, linestyle=":", label=name)
    else:
        ax.plot([], [], linestyle="none", label=f"{name}: far above, not in the picture")
    _tidy(
        ax, "What each way of clipping does to the gradients", about(report), "clip mode",
        "global norm of the gradients",
    )  # fmt: skip
    # A bar begins at zero, and has room for its words above it.
    ax.set_ylim(0, 1.3 * max(top, report.threshold if report.threshold <= 2 * top else 0.0) or 1.0)
    ax.grid(False, axis="x")
    _legend(ax)
    return figure


def plot_clipping(
    history: Sequence[Mapping[str, Any]], *, threshold: float = 5.0, ax: Any = None, subtitle: str = ""
) -> Figure:
    """Norm of the gradient over a training, and where it was clipped.

    Parameters
    ----------
    history : sequence of mapping
        `CharRNN.history_`, or any records with ``"step"`` and ``"grad_norm"``; those with
        ``"diagnostics"`` that hold ``"clipped"`` add the share of entries that the clipping changed.
    threshold : float, default 5.0
        Of the clipping.
    ax : matplotlib.axes.Axes or None
        None makes a figure.
    subtitle : str, default ""
        Stands below the title: the model, and the text.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If no record has a ``"grad_norm"``.
    """
    records = [r for r in history if r.get("grad_norm") is not None]
    if not records:
        raise ValueError("history must hold records with 'step' and 'grad_norm', got none")
    figure, ax = _axes(ax)
    steps = np.array([r["step"] for r in records])
    norms = _drawable([r["grad_norm"] for r in records])
    clipped = ~(norms <= threshold)
    ax.plot(steps, norms, color=BLUE, linewidth=1, label="norm before the clipping", **_style(len(steps)))
    if clipped.any():
        ax.plot(steps[clipped], norms[clipped], "o", color=RED, markersize=4,
                label=f"clipped: {percent(float(clipped.mean()))} of the records")  # fmt: skip
    if math.isfinite(threshold):
        ax.axhline(threshold, color=RED, linestyle=":", label=f"threshold {number(threshold)}")
    _tidy(
        ax,
        "Gradient clipping over the training",
        subtitle,
        "step of training",
        "global norm of the gradients",
    )
    _log_scale(ax)
    shares = [
        (r["step"], r["diagnostics"]["clipped"]) for r in history if "clipped" in (r.get("diagnostics") or {})
    ]
    if shares:
        right = ax.twinx()
        right.plot(*zip(*shares, strict=True), color=ORANGE, drawstyle="steps-post", **_style(len(shares)))
        right.set_ylim(-0.02, 1.02)
        _percents(right.yaxis)
        right.set_ylabel("share of entries that clipping changed", color=ORANGE)
        right.spines["top"].set_visible(False)
    _legend(ax)
    return figure


def plot_history(history: Sequence[Mapping[str, Any]], *, ax: Any = None, subtitle: str = "") -> Figure:
    """Loss over a training: what is learned against what is held out, and where that was best.

    Parameters
    ----------
    history : sequence of mapping
        `CharRNN.history_`, or any records with ``"step"``, ``"train_nats"`` and ``"valid_nats"``, of
        which either may be None.
    ax : matplotlib.axes.Axes or None
        None makes a figure.
    subtitle : str, default ""
        Stands below the title: the model, and the text.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there is no record with a loss.
    """
    series = []
    for name in ("train_nats", "valid_nats"):
        records = [r for r in history if r.get(name) is not None]
        steps, nats = [r["step"] for r in records], np.array([r[name] for r in records], np.float64)
        series.append((steps, nats))
    (steps, train), (valid_steps, valid) = series
    if not len(train) and not len(valid):
        raise ValueError("history must hold records with 'step' and 'train_nats' or 'valid_nats', got none")
    figure, ax = _axes(ax)
    train, valid = _drawable(train), _drawable(valid)
    if len(train):
        ax.plot(steps, train, color=BLUE, linewidth=1, label="what is learned", **_style(len(steps)))
    if len(valid):
        ax.plot(valid_steps, valid, "o-", color=ORANGE, markersize=4, label="what is held out")
        if not np.isnan(valid).all():
            best = int(np.nanargmin(valid))
            ax.axhline(valid[best], color=GREY, linestyle=":",
                       label=f"best: {_nats(valid[best])} nats after step {valid_steps[best]:,}")  # fmt: skip
    _tidy(ax, "Loss over the training", subtitle, "step of training", "cross-entropy, nats per character")
    bits = ax.secondary_yaxis("right", functions=(lambda nats: nats / math.log(2), lambda b: b * math.log(2)))
    bits.set_ylabel("bits per character")
    bits.spines["right"].set_visible(False)
    _legend(ax)
    return figure


def _nats(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else number(value)


def plot_diagnosis(diagnosis: Diagnosis) -> Figure:
    """Everything that `fastrnn diagnose` measures, on one page.

    Parameters
    ----------
    diagnosis : fastrnn.diagnostics.report.Diagnosis

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    d = diagnosis
    figure = _figure((10.0, 14.0))
    model = f"CharRNN, {d.hidden_size} {d.nonlinearity} units" + (
        f", top of {d.num_layers} layers" if d.num_layers > 1 else ""
    )
    text = f" of {glyphs.as_title(d.source)}" if d.source else ""
    read = f"{d.passages} passage{'s' * (d.passages != 1)} of {d.steps} characters{text}"
    figure.suptitle(
        "\n".join(textwrap.wrap(f"{model}, on {read}", 90)), x=0.01, ha="left", fontsize=TITLE + 2
    )
    # Apart, so that the colours beside the map take no room from what is above it.
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.35, 1))
    top, bottom = parts
    # The page says once what they are of.
    axes = top.subplots(2, 2)
    plot_gradient_flow(replace(d.flow, model="", read=""), ax=axes[0, 0])
    plot_jacobian_norms(replace(d.memory, model="", read=""), ax=axes[0, 1])
    plot_singular_values(replace(d.spectrum, model=""), ax=axes[1, 0])
    plot_saturation(replace(d.saturation, model="", read=""), ax=axes[1, 1])
    plot_hidden_states(replace(d.states, model="", read="the first passage"), ax=bottom.subplots())
    return figure
