"""How results, models and histories show themselves: ``print``, ``repr``, and the cells of a notebook.

The HTML takes its colours from the page, so that it can be read on dark ones too, holds no scripts, and
asks for nothing from elsewhere.  Pictures are in it where matplotlib is installed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastrnn.checks import OwnsArrays

if TYPE_CHECKING:
    from matplotlib.figure import Figure


__all__ = [
    "Shown",
    "cell",
    "code",
    "div",
    "escape",
    "parameters_html",
    "picture",
    "png",
    "report_html",
    "table",
]

#: Rows of a table at most.
ROWS = 20

#: Characters of a vocabulary, or of any other value, that are shown at most.
CHARACTERS = 120

#: What a picture of odd numbers may end in; the text beside it is shown all the same.
_NO_PICTURE = (ImportError, ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError,
               ValueError)  # fmt: skip


class Shown(OwnsArrays):
    """What every result of `fastrnn.diagnostics` does when it is shown, or comes out of a pickle."""

    def _sentences(self) -> list[str]:
        """What ``print`` says, one line each."""
        raise NotImplementedError

    def _size(self) -> str:
        """What stands in the result's `repr`."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n".join(self._sentences())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._size()}>"

    def _repr_html_(self) -> str:
        return report_html(str(self), getattr(self, "plot", None))


def report_html(text: str, plot: Callable[[], Figure] | None = None) -> str:
    """A text as it would be printed, and a picture if there is one."""
    return div(
        f'<pre style="white-space: pre-wrap; color: inherit; background: none">{escape(text)}</pre>',
        "" if plot is None else picture(plot),
    )


def parameters_html(model: Any, parameters: Mapping[str, Any]) -> str:
    """A model's own words for itself, and a table of its parameters."""
    rows = [
        (name, " x ".join(map(str, getattr(W, "shape", ()))), f"{getattr(W, 'size', 0):,}")
        for name, W in parameters.items()
    ]
    left_out = rows[ROWS:]
    if len(rows) > ROWS:
        rows = [*rows[:ROWS], (f"and {len(left_out)} more", "", "")]
    total = sum(int(getattr(W, "size", 0)) for W in parameters.values())
    return div(
        f"<p>{code(repr(model))}</p>",
        table(("parameter", "shape", "numbers"), [*rows, ("all", "", f"{total:,}")]),
    )


# -- pieces ------------------------------------------------------------------------------------------


def escape(text: object) -> str:
    """A text for a page: none of it is markup, and half a surrogate pair does not break the page."""
    import html

    return html.escape(str(text).encode("utf-8", "backslashreplace").decode("utf-8"))


def div(*parts: str) -> str:
    return "<div>" + "".join(parts) + "</div>"


def code(text: str) -> str:
    return f'<code style="color: inherit; background: none">{escape(text)}</code>'


def table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; all but the first column are set to the right where there are more than two."""
    head = list(head)
    aligned = ["left"] + ["left" if len(head) == 2 else "right"] * (len(head) - 1)

    def row(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(
            f'<{tag} style="text-align: {side}">{escape(_shorten(cell))}</{tag}>'
            for side, cell in zip(aligned, cells, strict=True)
        ) + "</tr>"  # fmt: skip

    first = f"<thead>{row('th', head)}</thead>" if any(head) else ""
    return f"<table>{first}<tbody>{''.join(row('td', cells) for cells in rows)}</tbody></table>"


def _shorten(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "\u2026"


def cell(value: Any) -> str:
    if value is None:
        return ""
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinity" if value > 0 else "-infinity"
    if value.is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def picture(plot: Callable[[], Figure]) -> str:
    """A picture as an image inside the page, or why there is none."""
    import base64

    try:
        figure = plot()
        data = base64.b64encode(png(figure)).decode("ascii")
    except ImportError:
        return ""
    except _NO_PICTURE as error:
        return f"<p>There is no picture of this: {escape(error)}</p>"
    name = next((ax.get_title(loc="left") for ax in figure.axes), "picture")
    return f'<img alt="{escape(name)}" style="max-width: 100%" src="data:image/png;base64,{data}">'


def png(figure: Figure) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
