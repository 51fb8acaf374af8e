"""What the results of diagnostics share: what was measured in what, and its checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import check_size
from fastrnn.diagnostics.unroll import Batch, OpenModel, Unrolled, open_model
from fastrnn.shown import Shown

if TYPE_CHECKING:
    pass

__all__ = [
    "DEAD_SLOPE",
    "SATURATED",
    "Measured",
    "about_model",
    "check_direction",
    "finite_states",
    "open_finite",
]

#: A unit whose state is beyond this is called saturated: its derivative is below 2%.
SATURATED = 0.99


#: A unit whose derivative is below this is called dead at that step: no gradient gets through.
DEAD_SLOPE = 1e-3


def about_model(m: OpenModel, layer: int, direction: int, batch: Batch | None = None) -> dict[str, str]:
    """What the pictures and the sentences of a result say of the model, and of what it read."""
    name, count = m.name, len(m.layers)
    kind = m.cell.name.upper() if m.cell.slope is None else m.cell.name
    model = f"{name}, {m.hidden_size} {'' if kind == name else f'{kind} '}units"
    if count > 1:
        model += f", top of {count} layers" if layer == count - 1 else f", layer {layer} (from 0) of {count}"
    if direction:
        model += ", read backwards"
    if batch is None:
        return {"model": model}
    T, N = batch.shape
    read = f"{T:,} {'time step' if m.vocabulary is None else 'character'}{'s' * (T != 1)}"
    return {"model": model, "read": read if N == 1 else f"{N:,} sequences of {read}"}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Measured(Shown):
    """What was measured in what, in words, for titles; empty where that is not known."""

    model: str = ""
    read: str = ""


def check_direction(m: OpenModel, direction: Any) -> int:
    number = check_size(direction, "direction", minimum=0)
    if number >= m.directions:
        raise ValueError(f"direction must be less than {m.directions}, got {number}")
    return number


def open_finite(model: Any) -> OpenModel:
    """`open_model` of a model whose weights are all numbers: of another, no result means anything."""
    m = open_model(model)
    names = m.not_finite()
    if names:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        raise ValueError(f"the weights of the model hold NaN or infinity: {', '.join(names[:4])}{more}")
    return m


def finite_states(u: Unrolled, number: int, direction: int) -> np.ndarray:
    """States h of a layer, refused where these or what its gates have kept, c among it, are no numbers."""
    hs = u.hs[number][direction]
    if not (np.isfinite(hs).all() and np.isfinite(u.kept[number][direction]).all()):
        raise ValueError("the states of the model hold NaN or infinity")
    return hs
