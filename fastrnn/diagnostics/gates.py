"""Gates of a GRU or an LSTM: how many are shut or wide open, where they are as flat as a saturated tanh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.diagnostics.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    legend_below,
    line_style,
    new_axes,
    percents,
    tidy,
)
from fastrnn.diagnostics.results import Measured, about_model
from fastrnn.diagnostics.unroll import Unrolled
from fastrnn.diagnostics.words import about, headline, in_steps, number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GateSaturation", "gate_saturation", "gate_shares", "plot_gate_saturation"]

#: What a gate lets through, in words; those that are not here are tanh and lie between -1 and 1.
_LETS = {
    "reset": "how much of the state is read for the new one",
    "update": "how much of the state stays",
    "input": "how much is written to c",
    "forget": "how much of c stays",
    "output": "how much of c is shown",
}


@dataclass(frozen=True, eq=False, repr=False)
class GateSaturation(Measured):
    """Result of `saturation` for a cell with gates.  Every dict has an entry for each gate.

    Attributes
    ----------
    low : dict of str to ndarray, shape (T,)
        Share of units whose gate is shut at that step: below ``1 - threshold``; of the candidate (``"new"`` of a GRU,
        ``"cell"`` of an LSTM), a tanh, below ``-threshold``.
    high : dict of str to ndarray, shape (T,)
        Share of units whose gate is wide open: above `threshold`.
    mean : dict of str to ndarray, shape (T,)
        Mean value of the gate at each step.
    stuck : dict of str to ndarray of int
        Units whose gate was at one end, and always at the same, at every step of every sequence.
    threshold : float
    model, read : str
        What was measured in what, in words, for titles.  Empty where that is not known.
    """

    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]
    mean: dict[str, np.ndarray]
    stuck: dict[str, np.ndarray]
    threshold: float

    @property
    def saturated(self) -> np.ndarray:
        """Share of all gates that are at one end or the other, shape (T,)."""
        shares: np.ndarray = np.mean([self.low[name] + self.high[name] for name in self.low], axis=0)
        return shares

    def _sentences(self) -> list[str]:
        return _sentences(self)

    def _size(self) -> str:
        return f"{len(self.saturated)} time steps, {len(self.low)} gates"

    def plot(self, ax: Any = None) -> Figure:
        """`fastrnn.figures.plot_gate_saturation` of this result."""
        return plot_gate_saturation(self, ax=ax)


def gate_saturation(u: Unrolled, layer: int, direction: int, threshold: float) -> GateSaturation:
    """See `fastrnn.diagnostics.saturation`."""
    values = _values(u, layer, direction)
    ends = {name: _ends(name, gate, threshold) for name, gate in values.items()}
    return GateSaturation(
        {name: low.mean(axis=(1, 2)) for name, (low, _) in ends.items()},
        {name: high.mean(axis=(1, 2)) for name, (_, high) in ends.items()},
        {name: gate.mean(axis=(1, 2), dtype=np.float64) for name, gate in values.items()},
        {
            name: np.flatnonzero(low.all(axis=(0, 1)) | high.all(axis=(0, 1)))
            for name, (low, high) in ends.items()
        },
        threshold,
        **about_model(u.m, layer, direction, u.batch),
    )


def gate_shares(u: Unrolled, layer: int, direction: int, threshold: float) -> dict[str, float]:
    """Share of each gate that is at one end or the other, over all steps."""
    return {
        name: float(sum(end.mean() for end in _ends(name, gate, threshold)))
        for name, gate in _values(u, layer, direction).items()
    }


def _values(u: Unrolled, layer: int, direction: int) -> dict[str, np.ndarray]:
    """Each gate at every step, (T, N, h)."""
    kept, cell = u.kept[layer][direction], u.m.cell
    return {name: kept[:, :, cell.kept.index(name)] for name in cell.gates}


def _ends(name: str, gate: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Where a gate is at its lower and at its upper end."""
    return gate < (1 - threshold if name in _LETS else -threshold), gate > threshold


def _sentences(r: GateSaturation) -> list[str]:
    lines = [headline("How flat the gates are", r, in_steps(len(r.saturated)))]
    for name in r.low:
        low, high = percent(float(r.low[name].mean())), percent(float(r.high[name].mean()))
        if name in _LETS:
            lines.append(
                f"The {name} gate, {_LETS[name]}, is shut (below {1 - r.threshold:.3g}) in {low} of the units on average "
                f"and wide open (above {r.threshold:g}) in {high}; its mean is {number(float(r.mean[name].mean()))}."
            )
        else:
            lines.append(
                f"The candidate ({name!r}), a tanh, is beyond {r.threshold:g} in {high} of the units on average and "
                f"beyond -{r.threshold:g} in {low}."
            )
    stuck = {name: len(units) for name, units in r.stuck.items() if len(units)}
    lines.append(
        "Always at the same end: "
        + ", ".join(f"{name} of {count:,}" for name, count in stuck.items())
        + " units."
        if stuck
        else "No gate is at the same end at every step."
    )
    return lines


def plot_gate_saturation(result: GateSaturation, *, ax: Any = None) -> Figure:
    """Share of shut and of wide open gates, and their mean values, at each time step.

    Parameters
    ----------
    result : GateSaturation
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
        If the result is not a `GateSaturation`: `plot_saturation` draws that of a cell without gates.
    """
    if not isinstance(result, GateSaturation):
        raise TypeError(
            f"result must be a GateSaturation, got {type(result).__name__}; result.plot() draws any"
        )
    figure, ax = new_axes(ax)
    steps = np.arange(1, len(result.saturated) + 1)
    style = line_style(len(steps))
    for colour, name in zip((BLUE, ORANGE, GREEN, RED), result.low, strict=False):
        flat = result.low[name] + result.high[name]
        ax.plot(steps, flat, color=colour, label=f"{name}: shut or wide open", **style)
        if name in _LETS:
            ax.plot(
                steps, result.mean[name], color=colour, linestyle="--", label=f"{name}: mean value", **style
            )
    tidy(
        ax,
        "How flat the gates are at each time step",
        about(result),
        "time step t",
        "share of the units; mean",
    )
    percents(ax.yaxis)
    ax.set_ylim(-0.02, 1.02)
    legend_below(ax)
    return figure
