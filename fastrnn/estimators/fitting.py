"""The training of an estimator's model: batches, validation, early stopping, history."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from fastrnn.checks import warn_user
from fastrnn.estimators.sequences import Sequences
from fastrnn.sequence_model import SequenceModel
from fastrnn.text.display import Display

__all__ = ["FitEntry", "Limits", "Problem", "Trained", "train"]

#: Batches whose sequences are sorted by length together, where lengths differ.
POOL = 16

#: Sequences of a batch that is only looked at.
LOOK = 256


class FitEntry(TypedDict):
    """An entry of `history_`."""

    epoch: int
    step: int
    train_loss: float
    valid_loss: float | None
    lr: float
    seconds: float


@dataclass
class Problem:
    """What is to be learned.

    Attributes
    ----------
    sequences : Sequences
        Inputs, scaled, in the model's dtype.
    targets : ndarray
        For each sequence, or with `per_step` for each step of all.
    weights : ndarray or None
        How often each target counts.
    per_step : bool
    """

    sequences: Sequences
    targets: np.ndarray
    weights: np.ndarray | None
    per_step: bool

    def batch(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """x, y and options of `SequenceModel.train_step` and `loss`, for some of the sequences."""
        rows, lengths = self.sequences.rows(chosen)
        places = rows if self.per_step else chosen
        weights = None if self.weights is None else self.weights[places]
        return self.sequences.flat[rows], self.targets[places], {"lengths": lengths, "weights": weights}


@dataclass
class Limits:
    """When a training ends, and how it steps."""

    batch_size: int
    epochs: int
    max_steps: int | None
    max_seconds: float | None
    patience: int | None
    clip: str | None
    clip_threshold: float


@dataclass
class Trained:
    """What a training has come to.

    Attributes
    ----------
    history : list of FitEntry
    best_epoch : int
        Whose weights the model has.
    """

    history: list[FitEntry]
    best_epoch: int


def train(
    model: SequenceModel, optimizer: Any, problem: Problem, train_on: np.ndarray, hold_out: np.ndarray,
    limits: Limits, rng: np.random.Generator, *, verbose: bool,
) -> Trained:  # fmt: skip
    """Train a model; it ends with the weights of the best validation, or the last where there is none.

    Warns
    -----
    RuntimeWarning
        If the loss comes to NaN or infinity, which ends the training.
    """
    history: list[FitEntry] = []
    kept, best_loss, best_epoch = model.state_dict(), math.inf, 0
    begin = time.perf_counter()
    deadline = math.inf if limits.max_seconds is None else begin + limits.max_seconds
    step = 0
    display = Display() if verbose else None
    try:
        for epoch in range(1, limits.epochs + 1):
            total, counted, over = 0.0, 0, False
            for chosen in batches(problem.sequences, train_on, limits.batch_size, rng):
                x, y, options = problem.batch(chosen)
                loss, _ = model.train_step(
                    x, y, None, optimizer, clip=limits.clip, clip_threshold=limits.clip_threshold, **options
                )  # fmt: skip
                step += 1
                total, counted = total + loss * len(chosen), counted + len(chosen)
                over = (
                    limits.max_steps is not None and step >= limits.max_steps
                ) or time.perf_counter() >= deadline
                if over or not math.isfinite(loss):
                    break
            valid = mean_loss(model, problem, hold_out) if len(hold_out) else None
            watched = total / counted if valid is None else valid
            history.append({
                "epoch": epoch, "step": step, "train_loss": total / counted, "valid_loss": valid, "lr": optimizer.lr,
                "seconds": time.perf_counter() - begin,
            })  # fmt: skip
            if not math.isfinite(watched) or not math.isfinite(total):
                warn_user(
                    f"the loss came to {watched} in epoch {epoch}: training ends with the weights of epoch "
                    f"{best_epoch}; a smaller lr may help",
                    RuntimeWarning,
                )
                break
            if valid is None or valid < best_loss:  # without a validation, the last weights
                kept, best_loss, best_epoch = model.state_dict(), watched, epoch
            if display is not None and display.is_due():
                shown = f"epoch {epoch}, loss {total / counted:.4g}" + (
                    "" if valid is None else f", valid {valid:.4g}"
                )
                display.show(epoch / limits.epochs, shown)
            if over or (
                valid is not None and limits.patience is not None and epoch - best_epoch >= limits.patience
            ):
                break
    finally:
        if display is not None:
            display.close()
    model.load_state_dict(kept)
    return Trained(history, best_epoch)


def batches(
    sequences: Sequences, chosen: np.ndarray, size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """The chosen sequences in a random order, cut into batches; those of a batch are about as long."""
    order = rng.permutation(chosen)
    if sequences.same_length:
        for start in range(0, len(order), size):
            yield order[start : start + size]
        return
    cut: list[np.ndarray] = []
    for start in range(0, len(order), POOL * size):
        pool = order[start : start + POOL * size]
        pool = pool[np.argsort(sequences.lengths[pool], kind="stable")]
        cut += [pool[i : i + size] for i in range(0, len(pool), size)]
    for i in rng.permutation(len(cut)):
        yield cut[i]


def looks(sequences: Sequences, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """The chosen sequences in batches to look at, the shortest first."""
    order = chosen if sequences.same_length else chosen[np.argsort(sequences.lengths[chosen], kind="stable")]
    for start in range(0, len(order), LOOK):
        yield order[start : start + LOOK]


def mean_loss(model: SequenceModel, problem: Problem, chosen: np.ndarray) -> float:
    """Mean loss over what counts of some sequences."""
    total = counted = 0.0
    for batch in looks(problem.sequences, chosen):
        x, y, options = problem.batch(batch)
        weights = options["weights"]
        if weights is not None:
            count = float(weights.sum(dtype=np.float64))
            if problem.per_step and options["lengths"] is not None:
                inside = np.arange(len(weights))[:, None] < options["lengths"]
                count = float(weights.sum(dtype=np.float64, where=inside))
        else:
            count = float(problem.sequences.lengths[batch].sum()) if problem.per_step else float(len(batch))
        loss, _ = model.loss(x, y, **options)
        total, counted = total + loss * count, counted + count
    return total / counted if counted else 0.0
