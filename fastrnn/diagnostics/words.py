"""Words for numbers, as the results of diagnostics say them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass

__all__ = [
    "EXPLODED",
    "NAMED",
    "QUOTED",
    "VANISHED",
    "about",
    "headline",
    "in_steps",
    "in_units",
    "number",
    "percent",
    "some_of",
]

#: A gradient of which less than this is left has vanished; one that is beyond that has exploded.
VANISHED, EXPLODED = 0.01, 10.0


#: Things that are named at most, and characters of a text that are quoted at most.
NAMED, QUOTED = 8, 40


def percent(share: float) -> str:
    """A share as people read it: ``12%``, ``1.5%``, ``0.03%``, and never 0% or 100% of what is not."""
    if not math.isfinite(share):
        return number(share)
    if abs(share) >= EXPLODED:
        return f"{number(share)} times"
    if 0 < abs(share) < 1e-4:
        return "less than 0.01%"
    value = 100 * abs(share)
    digits = 0 if value >= 10 or value == 0 else 1 if value >= 1 else 2
    if value < 100 and round(value, digits) >= 100:
        return "almost 100%"
    text = f"{value:.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{'-' * (share < 0)}{text}%"


def number(value: float) -> str:
    """Three digits, with words for what is none."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def about(result: object) -> str:
    """The model and what it read, as far as a result knows them."""
    model, read = getattr(result, "model", ""), getattr(result, "read", "")
    return ", on ".join(part for part in (model, read) if part)


def headline(what: str, result: object, otherwise: str = "") -> str:
    known = about(result) or otherwise
    return f"{what}: {known}." if known else f"{what}."


def in_steps(count: int) -> str:
    return f"{count:,} step{'s' * (count != 1)}"


def in_units(count: int) -> str:
    return f"{count:,} unit{'s' * (count != 1)}"


def some_of(numbers: np.ndarray) -> str:
    shown = ", ".join(map(str, numbers[:NAMED].tolist()))
    return shown + (f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else "")
