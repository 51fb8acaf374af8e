"""The records of a training, and how a notebook shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastrnn.shown import ROWS, cell, div, picture, table

if TYPE_CHECKING:
    from fastrnn.hints import HistoryEntry

__all__ = ["History"]

#: The members of a record, and what a table calls them.
_COLUMNS = {
    "step": "step", "epoch": "epoch", "train_nats": "learned, nats", "valid_nats": "held out, nats",
    "grad_norm": "gradient's norm", "lr": "learning rate", "chars_per_second": "characters/s",
}  # fmt: skip


class History(list["HistoryEntry"]):
    """The records of a training: a list, which a notebook shows as a table and a curve."""

    def _repr_html_(self) -> str:
        from fastrnn.diagnostics.training_curve import plot_history  # which needs matplotlib

        count = f"{len(self):,} record{'s' * (len(self) != 1)} of a training"
        if len(self) > ROWS:
            count += f", of which {ROWS} are shown"
        drawn = picture(lambda: plot_history(self)) if self else ""
        return div(f"<p>{count}</p>", _records(self), drawn)


def _records(history: Sequence[Any]) -> str:
    """A table of records, spread evenly over the training when there are many."""
    records = [r if isinstance(r, Mapping) else {} for r in history]
    n = len(records)
    chosen = range(n) if n <= ROWS else [round(i * (n - 1) / (ROWS - 1)) for i in range(ROWS)]
    columns = [name for name in _COLUMNS if any(name in r for r in records)]
    if not columns:
        return ""
    rows = [tuple(cell(records[i].get(name)) for name in columns) for i in chosen]
    return table([_COLUMNS[name] for name in columns], rows)
