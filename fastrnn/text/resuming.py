"""Whether a run can go on: with finite numbers, over the same text; and how, after it diverged."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checkpoint import all_finite, is_finite, previous_of
from fastrnn.errors import CheckpointError, TextError
from fastrnn.text.batches import Streams
from fastrnn.text.snapshot import Run

if TYPE_CHECKING:
    from fastrnn.hints import HistoryEntry, Path

__all__ = ["check_can_go_on", "check_fits", "check_same_text", "check_unchanged", "divergence", "same_way"]


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


def check_unchanged(names: tuple[str, ...], followed: dict[str, Any], now: Callable[[str], Any]) -> None:
    """Refuse other values of hyper-parameters than those that a run follows."""
    for name in names:
        value, before = now(name), followed[name]
        if value != before:
            raise ValueError(f"{name} was {before!r} when training began, and cannot be {value!r} now")


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


def divergence(run: Run, checkpoint: Path | None, step: int | None) -> str:
    """What has happened to a run that ended in NaN or infinity, and how to go on after the `step` that
    `checkpoint` keeps."""
    what = "the weights, the optimizer's state or the loss that they give are no longer finite"
    if run.history and not math.isfinite(run.history[-1]["train_nats"]):
        what = "the loss is no longer a number"
    said = f"{what}: training stopped at step {run.progress.step}; a smaller lr, or clip='norm', may help"
    if checkpoint is None:
        return said
    file = repr(os.fsdecode(checkpoint))
    if step is None:
        return f"{said}; nothing of it was written to {file}"
    call = "fit(text, resume=True)" if run.progress.kind == "fit" else "partial_fit(text)"
    return (
        f"{said}: CharRNN.load({file}, checkpoint={file}, lr=...).{call} goes on after step {step}, the "
        f"last one that was kept"
    )
