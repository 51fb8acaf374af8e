"""The loss over a training, as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.diagnostics.canvas import (
    BLUE,
    GREY,
    ORANGE,
    drawable,
    legend_below,
    line_style,
    nats_label,
    new_axes,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_history"]


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
    figure, ax = new_axes(ax)
    train, valid = drawable(train), drawable(valid)
    if len(train):
        ax.plot(steps, train, color=BLUE, linewidth=1, label="what is learned", **line_style(len(steps)))
    if len(valid):
        ax.plot(valid_steps, valid, "o-", color=ORANGE, markersize=4, label="what is held out")
        if not np.isnan(valid).all():
            best = int(np.nanargmin(valid))
            ax.axhline(valid[best], color=GREY, linestyle=":",
                       label=f"best: {nats_label(valid[best])} nats after step {valid_steps[best]:,}")  # fmt: skip
    tidy(ax, "Loss over the training", subtitle, "step of training", "cross-entropy, nats per character")
    bits = ax.secondary_yaxis("right", functions=(lambda nats: nats / math.log(2), lambda b: b * math.log(2)))
    bits.set_ylabel("bits per character")
    bits.spines["right"].set_visible(False)
    legend_below(ax)
    return figure
