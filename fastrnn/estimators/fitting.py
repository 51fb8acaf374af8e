"""The training of an estimator's model: batches, validation, early stopping, history."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from fastrnn.checks import warn_user
from fastrnn.estimators.sequences import Sequences
from fastrnn.sequence_model import SequenceModel
from fastrnn.text.display import Display

if TYPE_CHECKING:
    from fastrnn.hints import Clip

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

    def count(self, chosen: np.ndarray, lengths: np.ndarray | None, weights: np.ndarray | None) -> float:
        """How much counts in the loss of a batch."""
        if weights is None:
            return float(self.sequences.lengths[chosen].sum() if self.per_step else len(chosen))
        if not self.per_step or lengths is None:
            return float(weights.sum(dtype=np.float64))
        return float(weights.sum(dtype=np.float64, where=np.arange(len(weights))[:, None] < lengths))


@dataclass
class Limits:
    """When a training ends, and how it steps."""

    batch_size: int
    epochs: int
    max_steps: int | None
    max_seconds: float | None
    patience: int | None
    clip: Clip | None
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
        If the loss or a weight comes to NaN or infinity, which ends the training.
    """
    history: list[FitEntry] = []
    kept, best_loss, best_epoch = model.state_dict(), math.inf, 0
    begin = time.perf_counter()
    deadline = math.inf if limits.max_seconds is None else begin + limits.max_seconds
    step = 0
    display = Display() if verbose else None
    try:
        for epoch in range(1, limits.epochs + 1):
            mean, over = Mean(), False
            for chosen in batches(problem.sequences, train_on, limits.batch_size, rng):
                x, y, options = problem.batch(chosen)
                loss, _ = model.train_step(
                    x, y, None, optimizer, clip=limits.clip, clip_threshold=limits.clip_threshold, **options
                )  # fmt: skip
                step += 1
                mean.add(loss, problem.count(chosen, **options))
                over = (
                    limits.max_steps is not None and step >= limits.max_steps
                ) or time.perf_counter() >= deadline
                if over or not math.isfinite(loss):
                    break
            loss, valid = mean.value or 0.0, mean_loss(model, problem, hold_out)
            history.append({
                "epoch": epoch, "step": step, "train_loss": loss, "valid_loss": valid, "lr": optimizer.lr,
                "seconds": time.perf_counter() - begin,
            })  # fmt: skip
            weights = model.state_dict()
            diverged = _divergence(loss, valid, weights)
            if diverged:
                warn_user(
                    f"{diverged} in epoch {epoch}: training ends with the weights of epoch {best_epoch}; a smaller lr "
                    f"may help",
                    RuntimeWarning,
                )
                break
            if valid is None or valid < best_loss:  # without a validation, the last weights
                kept, best_epoch = weights, epoch
                best_loss = loss if valid is None else valid
            if display is not None and display.is_due():
                shown = "" if valid is None else f", valid {valid:.4g}"
                display.show(epoch / limits.epochs, f"epoch {epoch}, loss {loss:.4g}{shown}")
            if over or (
                valid is not None and limits.patience is not None and epoch - best_epoch >= limits.patience
            ):
                break
    finally:
        if display is not None:
            display.close()
    model.load_state_dict(kept)
    return Trained(history, best_epoch)


def _divergence(loss: float, valid: float | None, weights: dict[str, np.ndarray]) -> str:
    """What has come to NaN or infinity; "" if nothing has."""
    for value in (loss, valid):
        if value is not None and not math.isfinite(value):
            return f"the loss came to {value}"
    return "" if all(np.isfinite(W).all() for W in weights.values()) else "weights came to NaN or infinity"


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


def mean_loss(model: SequenceModel, problem: Problem, chosen: np.ndarray) -> float | None:
    """Mean loss over what counts of some sequences; None where nothing does."""
    mean = Mean()
    for batch in looks(problem.sequences, chosen):
        x, y, options = problem.batch(batch)
        loss, _ = model.loss(x, y, **options)
        mean.add(loss, problem.count(batch, **options))
    return mean.value


class Mean:
    """Mean of losses, each of which is one of so much."""

    def __init__(self) -> None:
        self.total = self.counted = 0.0

    def add(self, loss: float, count: float) -> None:
        self.total, self.counted = self.total + loss * count, self.counted + count

    @property
    def value(self) -> float | None:
        return self.total / self.counted if self.counted else None
