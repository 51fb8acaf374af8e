"""The training of an estimator's model: batches, validation, early stopping, history."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from fastrnn.checks import warn_user
from fastrnn.estimators.sequences import Sequences
from fastrnn.group import ALONE, Group, group_of, next_look
from fastrnn.interrupts import interruption, interrupts_noted
from fastrnn.sequence_model import SequenceModel
from fastrnn.text.display import Display

if TYPE_CHECKING:
    from fastrnn.distributed import Communicator
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

    def count(self, chosen: np.ndarray) -> float:
        """How much counts in the loss of a batch."""
        if self.weights is None:
            return float(self.sequences.lengths[chosen].sum() if self.per_step else len(chosen))
        if not self.per_step:
            return float(self.weights[chosen].sum(dtype=np.float64))
        rows, lengths = self.sequences.rows(chosen)
        there = True if lengths is None else np.arange(len(rows))[:, None] < lengths
        return float(self.weights[rows].sum(dtype=np.float64, where=there))


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
    limits: Limits, rng: np.random.Generator, *, verbose: bool, comm: Communicator | None = None,
) -> Trained:  # fmt: skip
    """Train a model; it ends with the weights of the best validation, or the last where there is none.

    The ranks of `comm` share each batch and the validation; rank 0 has the clock and the progress.

    Warns
    -----
    RuntimeWarning
        If the loss or a weight comes to NaN or infinity, which ends the training.
    """
    history: list[FitEntry] = []
    kept, best_loss, best_epoch = model.state_dict(), math.inf, 0
    begin = time.perf_counter()
    step, group = 0, group_of(comm)
    display = Display() if verbose and group.rank == 0 else None
    replica = model._replica_of(comm, optimizer, steps=0)
    averages, diverged = replica is not None and replica.averages, ""
    with contextlib.ExitStack() as undone:
        if display is not None:
            undone.callback(display.close)
        # One process ends at once; ranks act on what all have heard of.
        noted = [] if group.size == 1 else undone.enter_context(interrupts_noted())
        clock = _Clock(begin, limits.max_seconds, group, noted)
        for epoch in range(1, limits.epochs + 1):
            mean, over = Mean(), False
            for chosen in batches(problem.sequences, train_on, limits.batch_size, rng):
                own = _share(chosen, group)
                x, y, options = problem.batch(own)
                loss, _ = model.train_step(
                    x, y, None, optimizer, clip=limits.clip, clip_threshold=limits.clip_threshold, comm=comm,
                    **options,
                )  # fmt: skip
                mean.add(loss, problem.count(own if averages else chosen))
                step += 1
                over = (limits.max_steps is not None and step >= limits.max_steps) or clock.is_over(step)
                # Ranks that step for themselves know at the end of an epoch what the others have come to.
                if over or not (averages or math.isfinite(loss)):
                    break
            if replica is not None and averages:
                if step % group.sync_every:
                    replica.average(model, optimizer)
                mean.share(group)
            loss, valid = mean.value or 0.0, mean_loss(model, problem, hold_out, group)
            history.append({
                "epoch": epoch, "step": step, "train_loss": loss, "valid_loss": valid, "lr": optimizer.lr,
                "seconds": time.perf_counter() - begin,
            })  # fmt: skip
            weights = model.state_dict()
            diverged = _divergence(loss, valid, weights)
            if diverged:
                diverged += f" in epoch {epoch}"
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
    model.load_state_dict(kept)
    if diverged:
        said = f"{diverged}: training ends with the weights of epoch {best_epoch}; a smaller lr may help"
        group.of_root(lambda: warn_user(said, RuntimeWarning))
    return group.of_root(lambda: Trained(history, best_epoch))


def _share(chosen: np.ndarray, group: Group) -> np.ndarray:
    """This rank's share of some sequences."""
    start, stop = group.share(len(chosen))
    return chosen[start:stop]


class _Clock:
    """Tells when the time is over: the ranks of a group go by that of the first, and hear of each other's interrupts."""

    def __init__(self, begin: float, seconds: float | None, group: Group, noted: list[int]) -> None:
        self._deadline, self._noted = math.inf if seconds is None else begin + seconds, noted
        self._group, self._looked, self._stride, self._next = group, begin, 1, 1

    def is_over(self, step: int) -> bool:
        if self._group.size == 1:
            return time.perf_counter() >= self._deadline
        if step < self._next:
            return False
        now = time.perf_counter()
        passed, self._looked = now - self._looked, now
        looks = self._group.each((now >= self._deadline, next_look(self._stride, passed), self._noted))
        for *_, noted in looks:
            if noted:
                raise self._group.shared(interruption(noted[0]))
        over, self._stride, _ = looks[0]
        self._next = step + self._stride
        return over


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


def mean_loss(
    model: SequenceModel, problem: Problem, chosen: np.ndarray, group: Group = ALONE
) -> float | None:
    """Mean loss over what counts of some sequences, which the ranks share; None where nothing does."""
    mean = Mean()
    for batch in looks(problem.sequences, chosen):
        own = _share(batch, group)
        if len(own):
            x, y, options = problem.batch(own)
            loss, _ = model.loss(x, y, **options)
            mean.add(loss, problem.count(own))
    mean.share(group)
    return mean.value


class Mean:
    """Mean of losses, each of which is one of so much."""

    def __init__(self) -> None:
        self.total = self.counted = 0.0

    def add(self, loss: float, count: float) -> None:
        self.total, self.counted = self.total + loss * count, self.counted + count

    def share(self, group: Group) -> None:
        """Take in what the other ranks have."""
        totals, counts = zip(*group.each((self.total, self.counted)), strict=True)
        self.total, self.counted = sum(totals), sum(counts)

    @property
    def value(self) -> float | None:
        return self.total / self.counted if self.counted else None
