"""Whether a run can go on: with finite numbers, over the same text."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.errors import CheckpointError, TextError
from fastrnn.text.batches import Streams
from fastrnn.text.checkpoint import all_finite, is_finite, previous_of
from fastrnn.text.snapshot import Run

if TYPE_CHECKING:
    from fastrnn.hints import HistoryEntry, Path

__all__ = ["check_can_go_on", "check_fits", "check_same_text", "same_way"]


def check_can_go_on(run: Run, arrays: Iterable[np.ndarray], checkpoint: Path | None, lr: float) -> None:
    """Refuse to train weights, or with an optimizer, from which nothing finite comes any more."""
    if all_finite(run.last.values()) and all_finite(arrays):
        return
    message = (
        f"training cannot go on: after step {run.progress.step} weights or the optimizer's state are NaN or "
        f"infinite, which no lr mends"
    )
    how = "begin anew"
    if checkpoint is not None:
        previous = previous_of(checkpoint)
        if is_finite(checkpoint):
            how = f"{os.fsdecode(checkpoint)!r} holds an earlier state: load it, and resume"
        elif is_finite(previous):
            how = f"{str(previous)!r} holds an earlier state: put it in the place of the other, and resume"
    raise CheckpointError(f"{message}; {how} with a lr of less than {lr:g}")


def check_same_text(run: Run, n: int, sha256: str) -> None:
    """Refuse another text than the one that a run learns."""
    progress = run.progress
    if n != progress.characters:
        mark = ""
        if n < progress.characters and "\ufeff" in run.vocabulary:
            mark = (
                "; the other may have begun with a byte order mark, which is now left out of a file, "
                "but not of a str"
            )
        raise TextError(
            f"this is not the text that training began with: it has {n} characters, that one had "
            f"{progress.characters}{mark}"
        )
    if sha256 != progress.sha256:
        raise TextError(
            f"this is not the text that training began with: its SHA-256 is {sha256}, that of the "
            f"other was {progress.sha256}"
        )


def check_fits(run: Run, streams: Streams) -> None:
    """Refuse a progress, which a file may have claimed, that no run over these streams comes to."""
    progress = run.progress
    N, steps = progress.num_streams, progress.step - progress.epoch_start
    if steps > streams.steps or (steps and streams.num_streams != N):
        raise CheckpointError(
            f"the run cannot be resumed: {steps} steps of an epoch over {N} streams do not fit a text "
            f"of {streams.num_streams} streams and {streams.steps} steps"
        )


def same_way(earlier: list[HistoryEntry], later: list[HistoryEntry]) -> bool:
    """Whether one history is the beginning of another, of the same run."""

    def way(history: list[HistoryEntry]) -> list[tuple[Any, ...]]:
        return [(entry["step"], entry["train_nats"], entry["chars_per_second"]) for entry in history]

    return way(earlier) == way(later[: len(earlier)])
