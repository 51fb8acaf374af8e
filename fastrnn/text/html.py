"""How a notebook shows a `CharRNN`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastrnn.shown import cell, code, div, table
from fastrnn.text.snapshot import Run

__all__ = ["char_rnn_html"]


def char_rnn_html(settings: str, run: Run | None) -> str:
    """The hyper-parameters that are not the defaults, and what the training has come to."""
    rows: list[tuple[str, str]] = []
    if run is not None:
        lm, history, progress = run.model, run.history, run.progress
        rows = [
            ("network", f"{lm!r}, {lm.num_parameters:,} numbers"),
            ("vocabulary", f"{len(run.vocabulary)} characters: {run.vocabulary.characters!r}"),
            ("trained", f"{progress.step:,} steps, {progress.epoch:,} whole epochs"),
        ]
        if history:
            rows.append(("loss", _loss(history)))
        if run.best is not None:
            rows.append(
                ("best validation", f"{progress.best_nats:.3f} nats after step {progress.best_step:,}")
            )
        rows.append(
            (
                "weights in use",
                f"those of the {'best validation' if run.weights == 'best' else 'last step'}",
            )
        )
    else:
        rows = [("trained", "not yet: call fit")]
    return div(f"<p>{code(settings)}</p>", table(("", ""), rows))


def _loss(history: Sequence[Mapping[str, Any]]) -> str:
    last = history[-1]
    text = f"{cell(last.get('train_nats'))} nats per character on what is learned"
    held_out = next((r["valid_nats"] for r in reversed(history) if r.get("valid_nats") is not None), None)
    return text if held_out is None else f"{text}, {cell(held_out)} on what is held out"
