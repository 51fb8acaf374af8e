"""What the pictures of a model share: colours, axes, titles, legends and scales."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.diagnostics.glyphs import as_title
from fastrnn.diagnostics.words import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


__all__ = [
    "BLUE",
    "CELL",
    "DPI",
    "GREEN",
    "GREY",
    "LARGEST",
    "LEGEND",
    "LETTER",
    "ORANGE",
    "POINTS",
    "RED",
    "SIZE",
    "TITLE",
    "drawable",
    "legend_below",
    "line_style",
    "log_percent",
    "log_scale",
    "nats_label",
    "new_axes",
    "new_figure",
    "percents",
    "points_of",
    "set_title",
    "tidy",
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


def new_figure(size: tuple[float, float], dpi: int = DPI) -> Figure:
    try:
        from fastrnn.diagnostics.notebook_figure import NotebookFigure
    except ImportError as error:
        raise ImportError(
            f"matplotlib is needed to draw figures ({error}); get it with: pip install 'fastrnn[plot]'"
        ) from error
    return NotebookFigure(figsize=size, dpi=dpi, layout="constrained")


def new_axes(ax: Any, size: tuple[float, float] = SIZE) -> tuple[Figure, Any]:
    """The figure and axes to draw into."""
    if ax is not None:
        return ax.figure, ax
    figure = new_figure(size)
    return figure, figure.add_subplot()


def points_of(ax: Any) -> tuple[float, float]:
    """About how many points wide and high axes are, before a layout has moved them."""
    scale = POINTS / ax.figure.dpi
    return float(ax.bbox.width * scale), float(ax.bbox.height * scale)


def set_title(ax: Any, title: str, below: str) -> None:
    """A title, and what was measured in what below it."""
    room = max(30, int(points_of(ax)[0] / (LETTER * TITLE)))
    lines = textwrap.wrap(as_title(below), room, max_lines=3, placeholder=" \u2026")
    ax.set_title("\n".join([title, *lines]), loc="left", fontsize=TITLE)


def tidy(ax: Any, title: str, below: str, xlabel: str, ylabel: str) -> None:
    set_title(ax, title, below)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(True, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def legend_below(ax: Any) -> None:
    """A legend below the axes, or where it covers least if nothing would make room for it there."""
    if ax.figure.get_layout_engine() is None:
        ax.legend(fontsize=LEGEND, loc="best")
        return
    labels = ax.get_legend_handles_labels()[1]
    # A line, its gaps, and the label; formulas are longer in their source than in the picture.
    widest = max(len(label.replace("$", "").replace("{", "").replace("}", "")) for label in labels)
    columns = int(points_of(ax)[0] / (LEGEND * (LETTER * widest + 4)))
    from matplotlib.transforms import ScaledTranslation

    # Below the numbers and the name of the axis, which are 10 points high each.
    below = ax.transAxes + ScaledTranslation(0, -39 / POINTS, ax.figure.dpi_scale_trans)
    ax.legend(
        fontsize=LEGEND, frameon=False, ncols=max(1, min(columns, len(labels))), loc="upper left",
        bbox_to_anchor=(0, 0), bbox_transform=below, borderaxespad=0, borderpad=0,
    )  # fmt: skip


def percents(axis: Any) -> None:
    """Numbers from 0 to 1 as percent on a linear axis."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0))


def log_percent(value: float, _: int) -> str:
    """A share as percent for a logarithmic axis, in powers of ten where it is very small or large."""
    power = math.log10(100 * value)
    if -4 <= power <= 6:
        return f"{100 * value:,.10g}%"
    return f"$10^{{{power:.0f}}}$%"


def log_scale(ax: Any) -> None:
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


def drawable(values: Any) -> np.ndarray:
    """What an axis can show: NaN for what is no finite number, and none beyond `LARGEST`."""
    array = np.asarray(values, np.float64)
    return np.where(np.isfinite(array), np.clip(array, -LARGEST, LARGEST), np.nan)


def line_style(count: int) -> dict[str, Any]:
    """Marks at the points of a short curve: one point is no line."""
    return {"marker": "o", "markersize": 3} if count <= 60 else {}


def nats_label(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else number(value)
