"""Pictures of what `fastrnn.diagnostics` measures, one function each.

Every function draws into the `ax` it is given, or makes a figure of its own, and returns the
`matplotlib.figure.Figure`: a notebook shows it, a script calls ``figure.savefig("flow.png")``.
Nothing here touches pyplot, so no window opens and no figure stays in memory.

matplotlib is an extra: ``pip install 'fastrnn[plot]'``.

Examples
--------
>>> from fastrnn import SimpleRNN, diagnostics, figures
>>> flow = diagnostics.gradient_flow(SimpleRNN(4, 16, 4, rng=0), [1, 0, 2, 2], [0, 2, 2, 3])
>>> figure = figures.plot_gradient_flow(flow)                        # doctest: +SKIP
>>> figure.savefig("flow.png")                                       # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastrnn.diagnose_report import Diagnosis
    from fastrnn.diagnostics import (
        ClipReport,
        GradientFlow,
        HiddenStates,
        JacobianNorms,
        Saturation,
        Spectrum,
    )

__all__ = [
    "plot_clip_report",
    "plot_clipping",
    "plot_diagnosis",
    "plot_gradient_flow",
    "plot_hidden_states",
    "plot_history",
    "plot_jacobian_norms",
    "plot_saturation",
    "plot_singular_values",
]

#: Colours that colour-blind readers tell apart (Okabe and Ito), in the order of their use.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"

#: Inches, and points in an inch, of a figure that is made here.
SIZE, DPI = (7.0, 4.2), 110


def _figure(size: tuple[float, float], dpi: int) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"matplotlib is needed to draw figures ({error}); get it with: pip install 'fastrnn[plot]'"
        ) from error
    return Figure(figsize=size, dpi=dpi, layout="constrained")


def _axes(ax: Any, size: tuple[float, float] = SIZE) -> tuple[Figure, Any]:
    """The figure and axes to draw into."""
    if ax is not None:
        return ax.figure, ax
    figure = _figure(size, DPI)
    return figure, figure.add_subplot()


def _tidy(ax: Any, title: str, xlabel: str, ylabel: str) -> None:
    ax.set_title(title, loc="left", fontsize=11)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(True, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _log_scale(ax: Any, *series: np.ndarray) -> None:
    """A logarithmic y axis where something can be shown on it, over at least two decades."""
    values = np.concatenate([np.asarray(s, np.float64) for s in series])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return
    ax.set_yscale("log")
    low, high = math.log10(values.min()), math.log10(values.max())
    room = max(2.0 - (high - low), 0.16 * (high - low)) / 2
    ax.set_ylim(10 ** max(low - room, -320), 10 ** min(high + room, 308))


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
    style = {"marker": "o", "markersize": 3} if len(steps) <= 60 else {}
    ax.plot(steps, flow.total, color=BLUE, label="whole loss: |dL/dh$_t$|", **style)
    ax.plot(steps, flow.from_last_step, color=RED, label="loss of the last step alone", **style)
    # The first term is zero where the first state is: a logarithmic axis has no place for it.
    terms = np.where(flow.dWhh_terms > 0, flow.dWhh_terms, np.nan)
    ax.plot(steps, terms, color=GREEN, linestyle="--", label="term of dW$_{hh}$", **style)
    _tidy(ax, "How strong the gradient is at each time step", "time step t", "norm of the gradient")
    _log_scale(ax, flow.total, flow.from_last_step, flow.dWhh_terms)
    ax.legend(frameon=False, loc="best")
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
    style = {"marker": "o", "markersize": 3} if len(lags) <= 60 else {}
    ax.plot(lags, memory.norms, color=BLUE, label=f"measured, mean of {memory.starts}", **style)
    if math.isfinite(memory.decay_rate) and math.isfinite(memory.intercept):
        half = len(lags) // 2 if len(lags) >= 4 else 0
        with np.errstate(all="ignore"):
            fit = np.exp(memory.intercept - memory.decay_rate * lags)
        life = f"half-life {memory.half_life:.3g} steps" if math.isfinite(memory.half_life) else "it grows"
        ax.plot(
            lags[half:], fit[half:], color=ORANGE, linewidth=4, alpha=0.6, zorder=1,
            label=f"fit: $\\times$ {memory.factor:.3g} a step, {life}",
        )  # fmt: skip
    _tidy(
        ax,
        "How much a state depends on an earlier one",
        "lag in time steps",
        "spectral norm of dh$_{t}$/dh$_{t-lag}$",
    )
    _log_scale(ax, memory.norms)
    with np.errstate(all="ignore"):
        bound = memory.bound ** lags.astype(np.float64)
    low, high = ax.get_ylim()
    shown = np.isfinite(bound) & (bound > 0)
    if shown.any():
        # The bound may be many decades away: the axis stays with what was measured.
        ax.plot(
            lags[shown], bound[shown], color=GREY, linestyle=":",
            label=f"Bengio et al.'s bound: {memory.bound:.3g}$^{{lag}}$",
        )  # fmt: skip
        ax.set_ylim(low, min(max(high, float(bound[shown][0]) * 1.5), high * 1e3))
    ax.legend(frameon=False, loc="best")
    return figure


def plot_hidden_states(
    states: HiddenStates, *, ax: Any = None, units: int = 40, steps: int = 80, start: int = 0
) -> Figure:
    """Heat map of hidden states over time, with what was read under it.

    Parameters
    ----------
    states : HiddenStates
    ax : matplotlib.axes.Axes or None
        None makes a figure.
    units : int, default 40
        Show the units that vary most, at most so many.
    steps : int, default 80
        Show so many time steps at most, so that the text stays readable.
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
    figure, ax = _axes(ax, (max(4.5, 0.125 * len(shown) + 1.8), 0.085 * len(varies) + 1.7))
    finite = np.abs(shown[np.isfinite(shown)])
    limit = max(1.0, float(finite.max())) if len(finite) else 1.0
    # PuOr: zero is white, and both signs are told apart by everybody.
    image = ax.imshow(
        shown[:, varies].T, aspect="auto", interpolation="nearest", cmap="PuOr_r", vmin=-limit, vmax=limit
    )
    bar = figure.colorbar(image, ax=ax, pad=0.015)
    bar.set_label("state h$_t$")
    ax.set_title(
        f"Hidden states: the {len(varies)} of {states.states.shape[1]} units that vary most",
        loc="left",
        fontsize=11,
    )
    ax.set_ylabel("unit")
    ax.set_yticks([])
    if any(labels):
        single = all(len(label) <= 1 for label in labels)
        ax.set_xticks(range(len(labels)), [_visible(label) for label in labels], fontsize=8)
        ax.tick_params(axis="x", length=0, pad=3)
        for tick in ax.get_xticklabels():
            tick.set_family("monospace")
            tick.set_rotation(0 if single else 90)
        ax.set_xlabel("character read at each time step" if single else "class index read at each time step")
    else:
        ax.set_xlabel("time step")
    return figure


def _visible(label: str) -> str:
    """A label as a picture can show it; matplotlib takes a dollar sign for mathematics."""
    shown = {" ": "\u2423", "\n": "\\n", "\t": "\\t", "\r": "\\r", "$": r"\$"}.get(label, label)
    return shown if label in "$\n\t\r" or label.isprintable() else f"{ord(label[0]):x}"


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
    values = spectrum.singular_values
    rank = np.arange(1, len(values) + 1)
    style = {"marker": "o", "markersize": 3} if len(values) <= 60 else {}
    ax.plot(
        rank, values, color=BLUE,
        label=f"singular values: one step stretches by at most {values[0]:.3g}", **style,
    )  # fmt: skip
    ax.plot(
        rank, np.sort(np.abs(spectrum.eigenvalues))[::-1], color=RED,
        label=f"absolute eigenvalues: spectral radius {spectrum.spectral_radius:.3g}", **style,
    )  # fmt: skip
    ax.axhline(1, color=GREY, linewidth=1, linestyle=":", label="1: neither grows nor shrinks")
    _tidy(ax, "What W$_{hh}$ does to a vector in one step", "rank, largest first", "factor (no unit)")
    ax.set_ylim(0, None)
    ax.legend(frameon=False, loc="best")
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
    ax.plot(steps, 100 * result.saturated, color=ORANGE, label=f"saturated: |h| > {result.threshold:g}")
    ax.plot(steps, 100 * result.dead, color=RED, label="pass no gradient: derivative < 0.001")
    ax.plot(
        steps, 100 * result.mean_slope, color=BLUE, linestyle="--", label="mean derivative, % of its largest"
    )
    _tidy(ax, "How flat the nonlinearity is at each time step", "time step t", "% of the units")
    ax.set_ylim(-2, 102)
    ax.legend(frameon=False, loc="best")
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
    notes = ["", *(f"changes {report.changed[mode]:.0%}\nof the entries" for mode in modes)]
    bars = ax.bar(names, norms, color=[GREY, *[BLUE] * len(modes)], width=0.6)
    ax.bar_label(
        bars,
        [f"{norm:.3g}\n{note}".strip() for norm, note in zip(norms, notes, strict=True)],
        padding=3, fontsize=8,
    )  # fmt: skip
    ax.axhline(report.threshold, color=RED, linestyle=":", label=f"threshold {report.threshold:g}")
    _tidy(ax, "What each way of clipping does to the gradients", "clip mode", "global norm of the gradients")
    finite = [norm for norm in norms if math.isfinite(norm)]
    if finite and max(finite) > 30 * max(min(finite), 1e-300):
        ax.set_yscale("log")
        ax.set_ylim(min([*finite, report.threshold]) / 3, max(finite) * 8)
    else:
        ax.margins(y=0.22)
    ax.grid(False, axis="x")
    ax.legend(frameon=False, loc="best")
    return figure


def plot_clipping(history: Sequence[Mapping[str, Any]], *, threshold: float = 5.0, ax: Any = None) -> Figure:
    """Norm of the gradient over a training, and where eq. 15 clipped it.

    Parameters
    ----------
    history : sequence of mapping
        `CharRNN.history_`, or any records with ``"step"`` and ``"grad_norm"``; those with
        ``"diagnostics"`` that hold ``"clipped"`` add the share of entries that the clipping changed.
    threshold : float, default 5.0
        Of the clipping.
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
        If no record has a ``"grad_norm"``.
    """
    records = [r for r in history if r.get("grad_norm") is not None]
    if not records:
        raise ValueError("history must hold records with 'step' and 'grad_norm', got none")
    figure, ax = _axes(ax)
    steps = np.array([r["step"] for r in records])
    norms = np.array([r["grad_norm"] for r in records], np.float64)
    clipped = ~(norms <= threshold)
    style = {"marker": "o", "markersize": 3} if len(steps) <= 60 else {}
    ax.plot(steps, norms, color=BLUE, linewidth=1, label="norm before the clipping", **style)
    if clipped.any():
        ax.plot(steps[clipped], norms[clipped], "o", color=RED, markersize=4,
                label=f"clipped: {clipped.mean():.0%} of the records")  # fmt: skip
    ax.axhline(threshold, color=RED, linestyle=":", label=f"threshold {threshold:g}")
    _tidy(ax, "Gradient clipping over the training", "step of training", "global norm of the gradients")
    _log_scale(ax, norms, np.array([threshold]))
    shares = [
        (r["step"], r["diagnostics"]["clipped"]) for r in history if "clipped" in (r.get("diagnostics") or {})
    ]
    if shares:
        right = ax.twinx()
        right.plot(*zip(*shares, strict=True), color=ORANGE, drawstyle="steps-post", alpha=0.8)
        right.set_ylim(-0.02, 1.02)
        right.set_ylabel("share of entries that clipping changed", color=ORANGE)
        right.spines["top"].set_visible(False)
    ax.legend(frameon=False, loc="best")
    return figure


def plot_history(history: Sequence[Mapping[str, Any]], *, ax: Any = None) -> Figure:
    """Loss over a training: what is learned against what is held out, and where that was best.

    Parameters
    ----------
    history : sequence of mapping
        `CharRNN.history_`, or any records with ``"step"``, ``"train_nats"`` and ``"valid_nats"``, of
        which either may be None.
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
    ax.plot(steps, train, color=BLUE, linewidth=1, label="what is learned")
    if len(valid):
        ax.plot(valid_steps, valid, "o-", color=ORANGE, markersize=4, label="what is held out")
        if np.isfinite(valid).any():
            best = int(np.nanargmin(np.where(np.isfinite(valid), valid, np.nan)))
            ax.axhline(valid[best], color=GREY, linestyle=":",
                       label=f"best: {valid[best]:.3f} nats after step {valid_steps[best]:,}")  # fmt: skip
    _tidy(ax, "Loss over the training", "step of training", "cross-entropy, nats per character")
    bits = ax.secondary_yaxis("right", functions=(lambda nats: nats / math.log(2), lambda b: b * math.log(2)))
    bits.set_ylabel("bits per character")
    bits.spines["right"].set_visible(False)
    ax.legend(frameon=False, loc="best")
    return figure


def plot_diagnosis(diagnosis: Diagnosis) -> Figure:
    """Everything that `fastrnn diagnose` measures, on one page.

    Parameters
    ----------
    diagnosis : fastrnn.diagnose_report.Diagnosis

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    figure = _figure((13, 13.5), 90)
    grid = figure.add_gridspec(3, 2, height_ratios=(1, 1, 1.25))
    plot_gradient_flow(diagnosis.flow, ax=figure.add_subplot(grid[0, 0]))
    plot_jacobian_norms(diagnosis.memory, ax=figure.add_subplot(grid[0, 1]))
    plot_singular_values(diagnosis.spectrum, ax=figure.add_subplot(grid[1, 0]))
    plot_saturation(diagnosis.saturation, ax=figure.add_subplot(grid[1, 1]))
    plot_hidden_states(diagnosis.states, ax=figure.add_subplot(grid[2, :]))
    return figure
