"""What clipping does to the gradients of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import check_number
from fastrnn.diagnostics.canvas import (
    BLUE,
    GREY,
    LEGEND,
    ORANGE,
    RED,
    drawable,
    legend_below,
    line_style,
    log_scale,
    new_axes,
    percents,
    tidy,
)
from fastrnn.diagnostics.gradients import layer_gradients, loss_gradient
from fastrnn.diagnostics.results import Measured, about_model
from fastrnn.diagnostics.unroll import Batch, OpenModel, forward, open_batch, open_model
from fastrnn.diagnostics.words import about, headline, number, percent
from fastrnn.functional.norms import global_norm
from fastrnn.sharing import reading_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from fastrnn.hints import Model, State, Targets

__all__ = ["ClipReport", "clip_report", "plot_clip_report", "plot_clipping", "share_beyond"]


@dataclass(frozen=True, repr=False)
class ClipReport(Measured):
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
        return _clip_sentences(self)

    def _size(self) -> str:
        return f"{self.entries} entries, threshold {self.threshold:g}"

    def plot(self, ax: Any = None) -> Figure:
        """`fastrnn.figures.plot_clip_report` of this result."""
        return plot_clip_report(self, ax=ax)


@reading_model
def clip_report(
    model: Model,
    inputs: ArrayLike,
    targets: Targets = None,
    h0: State | None = None,
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
        `LanguageModel` or a `SequenceModel`).
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
        before = global_norm(grads)
        entries = sum(g.size for g in grads)
        changed, after = {}, {}
        if m.kind == "SimpleRNN":
            stepped = _clamped_every_step(m, batch, limit)
            pairs = zip(grads, stepped, strict=True)
            changed["step"] = after["step"] = math.nan
            if not math.isnan(before):
                changed["step"] = sum(_count_different(a, b) for a, b in pairs) / entries
                after["step"] = global_norm(stepped)
        changed["value"] = share_beyond(grads, limit)
        after["value"] = global_norm([np.clip(g, -limit, limit) for g in grads])
        changed["norm"] = float(not before <= limit)
        after["norm"] = min(before, limit)
        if not math.isfinite(before):
            after["norm"] = global_norm([g * (limit / before) for g in grads])
        largest = float(np.max([np.abs(g).max() for g in grads]))  # Python's max may leave out a NaN
    return ClipReport(
        limit, before, largest, changed, after, entries, **about_model(m, len(m.layers) - 1, 0, batch)
    )


def _all_gradients(m: OpenModel, batch: Batch, targets: Any) -> list[np.ndarray]:
    """Every gradient of the model's own loss, not clipped, those of a lower layer first."""
    u = forward(m, batch)
    _, d_outputs, output = loss_gradient(u, targets, m.reduction)
    return [*layer_gradients(u, d_outputs), *output]


def share_beyond(grads: list[np.ndarray], limit: float) -> float:
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
        inputs, batch.targets[:, 0], batch.h0[0][0].T, clip="step", clip_threshold=limit
    )
    return [dWxh, dWhh, dbh[:, 0], dWhy, dby[:, 0]]


def _clip_sentences(r: ClipReport) -> list[str]:
    lines = [
        headline(f"Gradients of {r.entries:,} weights", r),
        f"Their norm is {number(r.norm_before)}, the largest entry {number(r.largest)}, the threshold "
        f"{number(r.threshold)}.",
    ]
    for mode, norm in r.norm_after.items():
        lines.append(
            f'clip="{mode}" changes {percent(r.changed[mode])} of the entries, to norm {number(norm)}.'
        )
    if math.isnan(r.norm_before):
        lines.append("Some gradients are NaN: no clipping mends that.")
    elif r.norm_before > r.threshold:
        lines.append(
            'They are beyond the threshold: clip="norm" makes them shorter and keeps their direction.'
        )
    else:
        lines.append('They are within the threshold: clip="norm" leaves them as they are.')
    return lines


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
    figure, ax = new_axes(ax)
    modes = list(report.norm_after)
    norms = [report.norm_before, *report.norm_after.values()]
    names = ["not clipped", *(f'"{mode}"' for mode in modes)]
    notes = ["", *(f"changes {percent(report.changed[mode])}\nof the entries" for mode in modes)]
    # What is no number has no bar, and says so.
    heights = np.nan_to_num(drawable(norms))
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
    tidy(
        ax, "What each way of clipping does to the gradients", about(report), "clip mode",
        "global norm of the gradients",
    )  # fmt: skip
    # A bar begins at zero, and has room for its words above it.
    ax.set_ylim(0, 1.3 * max(top, report.threshold if report.threshold <= 2 * top else 0.0) or 1.0)
    ax.grid(False, axis="x")
    legend_below(ax)
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
    figure, ax = new_axes(ax)
    steps = np.array([r["step"] for r in records])
    norms = drawable([r["grad_norm"] for r in records])
    clipped = ~(norms <= threshold)
    ax.plot(steps, norms, color=BLUE, linewidth=1, label="norm before the clipping", **line_style(len(steps)))
    if clipped.any():
        ax.plot(steps[clipped], norms[clipped], "o", color=RED, markersize=4,
                label=f"clipped: {percent(float(clipped.mean()))} of the records")  # fmt: skip
    if math.isfinite(threshold):
        ax.axhline(threshold, color=RED, linestyle=":", label=f"threshold {number(threshold)}")
    tidy(
        ax,
        "Gradient clipping over the training",
        subtitle,
        "step of training",
        "global norm of the gradients",
    )
    log_scale(ax)
    shares = [
        (r["step"], r["diagnostics"]["clipped"]) for r in history if "clipped" in (r.get("diagnostics") or {})
    ]
    if shares:
        right = ax.twinx()
        right.plot(
            *zip(*shares, strict=True), color=ORANGE, drawstyle="steps-post", **line_style(len(shares))
        )
        right.set_ylim(-0.02, 1.02)
        percents(right.yaxis)
        right.set_ylabel("share of entries that clipping changed", color=ORANGE)
        right.spines["top"].set_visible(False)
    legend_below(ax)
    return figure
