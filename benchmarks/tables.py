"""Figures and tables as text."""

from __future__ import annotations

import statistics
from collections.abc import Iterable


def geometric_mean(values: Iterable[float]) -> float:
    return statistics.geometric_mean(list(values))


def times(ratio: float) -> str:
    """A ratio for people; one below 1 lost, and is set in bold."""
    text = f"{ratio:.0f}x" if ratio >= 9.95 else f"{ratio:.1f}x" if ratio >= 1.05 else f"{ratio:.2f}x"
    return f"**{text}**" if ratio < 1 else text


def microseconds(seconds: float | None, first: float | None = None, digits: int = 2) -> str:
    """Microseconds, and in brackets how many times those of the `first` contender they are, where it is given."""
    if seconds is None:
        return ""
    text = f"{seconds * 1e6:.{digits}f}"
    return text if first is None else f"{text} ({times(seconds / first)})"


def seconds_text(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.9995 else f"{seconds * 1e3:.3g} ms"


def figure(value: float) -> str:
    """Three figures, and all before the point."""
    return f"{value:.0f}" if value >= 999.5 else f"{value:.3g}"


def table(head: list[str], body: list[list[str]], left: int) -> str:
    """A Markdown table whose first `left` columns are text and the others figures."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *body])
