"""How results, models and histories show themselves: ``print``, ``repr``, and the cells of a notebook.

The HTML takes its colours from the page, so that it can be read on dark ones too, holds no scripts, and
asks for nothing from elsewhere.  Pictures are in it where matplotlib is installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastrnn.checks import OwnsArrays

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastrnn.char_rnn import CharRNN
    from fastrnn.hints import HistoryEntry

__all__ = ["History", "Shown", "char_rnn_html", "escape", "parameters_html", "report_html"]

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


class History(list["HistoryEntry"]):
    """The records of a training: a list, which a notebook shows as a table and a curve."""

    def _repr_html_(self) -> str:
        from fastrnn.diagnostics.figures import plot_history

        count = f"{len(self):,} record{'s' * (len(self) != 1)} of a training"
        if len(self) > ROWS:
            count += f", of which {ROWS} are shown"
        picture = _picture(lambda: plot_history(self)) if self else ""
        return _div(f"<p>{count}</p>", _records(self), picture)


def report_html(text: str, plot: Callable[[], Figure] | None = None) -> str:
    """A text as it would be printed, and a picture if there is one."""
    return _div(
        f'<pre style="white-space: pre-wrap; color: inherit; background: none">{escape(text)}</pre>',
        "" if plot is None else _picture(plot),
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
    return _div(
        f"<p>{_code(repr(model))}</p>",
        _table(("parameter", "shape", "numbers"), [*rows, ("all", "", f"{total:,}")]),
    )


def char_rnn_html(model: CharRNN) -> str:
    """The hyper-parameters that are not the defaults, and what the training has come to."""
    rows: list[tuple[str, str]] = []
    if hasattr(model, "model_"):
        lm, history = model.model_, model.history_
        rows = [
            ("network", f"{lm!r}, {lm.num_parameters:,} numbers"),
            ("vocabulary", f"{len(model.vocabulary_)} characters: {model.vocabulary_.characters!r}"),
            ("trained", f"{model.step_:,} steps, {model.epoch_:,} whole epochs"),
        ]
        if history:
            rows.append(("loss", _loss(history)))
        if model.best_step_ is not None and model.best_valid_nats_ is not None:
            rows.append(
                ("best validation", f"{model.best_valid_nats_:.3f} nats after step {model.best_step_:,}")
            )
        rows.append(
            (
                "weights in use",
                f"those of the {'best validation' if model.weights_ == 'best' else 'last step'}",
            )
        )
    else:
        rows = [("trained", "not yet: call fit")]
    return _div(f"<p>{_code(repr(model))}</p>", _table(("", ""), rows))


def _loss(history: Sequence[Mapping[str, Any]]) -> str:
    last = history[-1]
    text = f"{_cell(last.get('train_nats'))} nats per character on what is learned"
    held_out = next((r["valid_nats"] for r in reversed(history) if r.get("valid_nats") is not None), None)
    return text if held_out is None else f"{text}, {_cell(held_out)} on what is held out"


# -- pieces ------------------------------------------------------------------------------------------


def escape(text: object) -> str:
    """A text for a page: none of it is markup, and half a surrogate pair does not break the page."""
    import html

    return html.escape(str(text).encode("utf-8", "backslashreplace").decode("utf-8"))


def _div(*parts: str) -> str:
    return "<div>" + "".join(parts) + "</div>"


def _code(text: str) -> str:
    return f'<code style="color: inherit; background: none">{escape(text)}</code>'


def _table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
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


#: The members of a record, and what a table calls them.
_COLUMNS = {
    "step": "step", "epoch": "epoch", "train_nats": "learned, nats", "valid_nats": "held out, nats",
    "grad_norm": "gradient's norm", "lr": "learning rate", "chars_per_second": "characters/s",
}  # fmt: skip


def _records(history: Sequence[Any]) -> str:
    """A table of records, spread evenly over the training when there are many."""
    records = [r if isinstance(r, Mapping) else {} for r in history]
    n = len(records)
    chosen = range(n) if n <= ROWS else [round(i * (n - 1) / (ROWS - 1)) for i in range(ROWS)]
    columns = [name for name in _COLUMNS if any(name in r for r in records)]
    if not columns:
        return ""
    rows = [tuple(_cell(records[i].get(name)) for name in columns) for i in chosen]
    return _table([_COLUMNS[name] for name in columns], rows)


def _cell(value: Any) -> str:
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


def _picture(plot: Callable[[], Figure]) -> str:
    """A picture as an image inside the page, or why there is none."""
    import base64

    try:
        from fastrnn.diagnostics.notebook_figure import png

        figure = plot()
        data = base64.b64encode(png(figure)).decode("ascii")
    except ImportError:
        return ""
    except _NO_PICTURE as error:
        return f"<p>There is no picture of this: {escape(error)}</p>"
    name = next((ax.get_title(loc="left") for ax in figure.axes), "picture")
    return f'<img alt="{escape(name)}" style="max-width: 100%" src="data:image/png;base64,{data}">'
