"""The loop that trains a `CharRNN`: steps, history, validation, checkpoints, and the way out of it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.group import group_of, next_look
from fastrnn.interrupts import interruption, interrupts_noted
from fastrnn.states import State, map_state
from fastrnn.terminal import decimals
from fastrnn.text.batches import Streams
from fastrnn.text.display import Display
from fastrnn.text.scoring import mean_cross_entropy, start_state
from fastrnn.text.snapshot import Run

if TYPE_CHECKING:
    from fastrnn.distributed import Communicator
    from fastrnn.hints import Clip, HistoryEntry

__all__ = ["Limits", "Training"]

#: Seconds between two checkpoints when no number of steps is given; writing them takes at most the
#: reciprocal of `CHECKPOINT_SHARE` of the time.
CHECKPOINT_SECONDS, CHECKPOINT_SHARE = 30.0, 20.0

#: Fewest steps between two entries of the history, and about how many entries it gets each time that the
#: number of steps doubles: which steps get one does not depend on when training ends.
HISTORY_STEPS, HISTORY_DOUBLING = 10, 200

#: Characters of a validation at most, and of a stream of it at least.
VALIDATION_LIMIT, VALIDATION_STREAM = 1 << 20, 512


@dataclasses.dataclass
class Limits:
    """When things happen, in steps from the very first on; None is never."""

    last_step: int | None
    max_seconds: float | None
    validate_every: int
    patience: int | None
    #: ``"timed"`` for one now and then.
    checkpoint_every: int | str | None
    diagnostics_every: int | None = None


class Training:
    """One call of `CharRNN.fit` or `CharRNN.partial_fit`.

    Parameters
    ----------
    run : Run
        Is trained, and kept up to date.  It goes on from its hidden state, unless an epoch begins.
    streams : Streams
        The part of the text to train on.
    held_out : (ndarray, int) or None
        The whole text, and where its held-out part begins.
    learning_rate : callable
        Of the number of whole epochs done.
    clip, clip_threshold
        For `LanguageModel.train_step`.
    limits : Limits
    ends_with_best : bool
        Whether the model uses the best weights in the end, if there are any.
    write : callable
        Is called when a checkpoint is due; writes one if nothing in it is NaN or infinite, and returns
        whether that is so.
    is_written : callable
        Whether no checkpoint is wanted, or there is one of the last step with the weights that the model uses.
    verbose : bool
        Whether a bar is shown.
    comm : Communicator or None
        Of the ranks that share the streams.  Rank 0 has the clock, and the file.

    Attributes
    ----------
    diverged : bool
        Whether the loss, or what a checkpoint would hold, has come to NaN or infinity, which ends the
        training.
    kept_step : int or None
        The last one that was written.
    """

    kept_step: int | None = None

    def __init__(
        self,
        run: Run,
        streams: Streams,
        held_out: tuple[np.ndarray, int] | None,
        *,
        learning_rate: Callable[[int], float],
        clip: Clip | None,
        clip_threshold: float,
        limits: Limits,
        ends_with_best: bool,
        write: Callable[[], bool],
        is_written: Callable[[], bool],
        verbose: bool,
        comm: Communicator | None = None,
    ) -> None:
        self.run, self.streams, self.held_out = run, streams, held_out
        self.model, self.optimizer, self.progress, self.history = (
            run.model, run.optimizer, run.progress, run.history,
        )  # fmt: skip
        self.learning_rate, self.clip, self.clip_threshold = learning_rate, clip, clip_threshold
        self.limits = limits
        self.diverged = False
        self._comm, self._group = comm, group_of(comm)
        start, stop = streams.own
        #: Hidden state of this rank's streams after the last step; valid until the next one.
        self._state = run.state
        if stop - start < streams.num_streams == run.progress.num_streams:
            self._state = map_state(lambda array: array[:, start:stop], run.state)
        self._ends_with_best = ends_with_best
        self._write, self._is_written = write, is_written
        self._chars = streams.num_streams * streams.seq_len
        self._verbose = verbose and not self._group.rank

    def train(self) -> None:
        """Train to a limit.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C.  The step at hand has been ended, and a checkpoint written.
        """
        self._replica = self.model._replica_of(self._comm, self.optimizer, steps=self.progress.step)
        if self._is_over():
            self.choose_weights()
            if not self._group.of_root(self._is_written):  # the last write failed, or was at another place
                self.run.use("last")
                self._save(final=True)
            return
        self.progress.ranks = self._group.size
        try:
            self._train()
        except BaseException as error:
            if not self._group.is_shared(error):  # the hidden states of the other ranks are not to be had
                self.run.incomplete = True
                raise
            self._keep_state()
            raise
        self._keep_state()

    def _keep_state(self) -> None:
        """Give the run the hidden state that it goes on from."""
        self.run.state = map_state(lambda array: self._group.joined(array, 1), self._state)
        self.run.incomplete = False

    def _train(self) -> None:
        now = time.perf_counter()
        seconds = self.limits.max_seconds
        self._deadline = math.inf if seconds is None else now + seconds
        self._looked = self._recorded = self._saved = now
        self._recorded_step = self.progress.step
        self._save_wait = CHECKPOINT_SECONDS
        #: Steps from one look at the clock to the next, and the step of the next.
        self._stride = 1
        self._clock = self.progress.step + 1
        # What has drifted apart between two exchanges is brought together at steps that are multiples of this.
        self._sync = self._group.sync_every
        self._save_is_due = False
        with interrupts_noted() as noted, _Bar(self, self._verbose) as bar:
            # Ranks act on what all have heard of, when they look at the clock.
            interrupts = noted if self._group.size == 1 else []
            self._noted = noted
            if self.progress.step == self.progress.epoch_start + self.streams.steps:
                # An error came out of what is done after the last step of an epoch.
                self._end_epoch()
            going_on = True
            while going_on:
                if self.progress.step == self.progress.epoch_start:
                    self.progress.num_streams = self.streams.num_streams
                    start, stop = self.streams.own
                    self._state = self.model.initial_state(stop - start)
                going_on = self._train_epoch(interrupts, bar)
            self._save(final=True)
            self._hear(interrupts, self._group.each(noted))
        if interrupts:
            raise self._group.shared(interruption(interrupts[0]))

    def _start(self) -> State:
        """State, shape (num_layers, 1, h), to begin a text with."""
        start, nats = self._group.of_root(lambda: start_state(self.model, self.streams.indices, self._state))
        # The last update has its effect on the loss here first: weights may be finite, and far too large.
        self.diverged |= not math.isfinite(nats)
        return start

    def _save(self, *, final: bool) -> None:
        self.diverged |= not math.isfinite(self.progress.loss_sum)
        run = self.run
        self._keep_state()
        run.starts["last"] = self._start()
        if final:
            self.choose_weights()
        if not self.diverged:
            self.diverged = not self._group.of_root(self._write)
            if not self.diverged:
                self.kept_step = self.progress.step

    def choose_weights(self) -> None:
        """Let the model use those that the training ends with."""
        if self._ends_with_best and self.run.best is not None:
            self.run.use("best")

    def _train_epoch(self, interrupts: list[int], bar: _Bar) -> bool:
        """Train to the end of the epoch at hand, or to a limit; return whether it was not a limit."""
        progress, model, optimizer = self.progress, self.model, self.optimizer
        train_step, clip, threshold, comm = model.train_step, self.clip, self.clip_threshold, self._comm
        optimizer.lr = self.learning_rate(progress.epoch)
        step, h, loss_sum, norm_sum = progress.step, self._state, progress.loss_sum, progress.norm_sum
        due = self._next_event()
        try:
            for x, y in self.streams.chunks(step - progress.epoch_start):
                before = h
                loss, h = train_step(x, y, before, optimizer, clip=clip, clip_threshold=threshold, comm=comm)
                step += 1
                loss_sum += loss
                norm_sum += model.grad_norm
                if step < due and not interrupts:
                    continue
                progress.step, progress.loss_sum, progress.norm_sum, self._state = step, loss_sum, norm_sum, h
                self._batch = x, y, before
                if not self._handle_events(interrupts, bar):
                    return False
                h, loss_sum, norm_sum = self._state, progress.loss_sum, progress.norm_sum
                due = self._next_event()
        finally:
            # Whatever ended the loop: where the weights stand.
            if step != progress.step:
                progress.step, progress.loss_sum, progress.norm_sum, self._state = step, loss_sum, norm_sum, h
        return True

    def _next_event(self) -> int:
        """The next step after which there is anything to do but another step."""
        step, limits = self.progress.step, self.limits
        events = [
            self._clock,
            self.progress.epoch_start + self.streams.steps,
            *(step - step % n + n for n in (_record_every(step), limits.validate_every)),
        ]
        if isinstance(limits.checkpoint_every, int):
            events.append(step - step % limits.checkpoint_every + limits.checkpoint_every)
        if limits.diagnostics_every is not None:
            events.append(step - step % limits.diagnostics_every + limits.diagnostics_every)
        if limits.last_step is not None:
            events.append(limits.last_step)
        if self._save_is_due:
            events.append(step - step % self._sync + self._sync)
        return min(events)

    def _is_over(self) -> bool:
        limits, progress = self.limits, self.progress
        return (limits.last_step is not None and progress.step >= limits.last_step) or (
            limits.patience is not None and progress.rounds_since_best >= limits.patience
        )

    def _handle_events(self, interrupts: list[int], bar: _Bar) -> bool:
        """Do what is due after a step; return whether training goes on."""
        progress, limits = self.progress, self.limits
        step = progress.step
        epoch_ends = step == progress.epoch_start + self.streams.steps
        save = isinstance(limits.checkpoint_every, int) and step % limits.checkpoint_every == 0
        out_of_time = False
        if step >= self._clock:
            looks = self._group.each((*self._look_at_clock(), self._noted))
            out_of_time, in_time, self._stride, _ = looks[0]
            self._save_is_due |= in_time
            self._hear(interrupts, [noted for *_, noted in looks])
            bar.update()
            self._clock = step + self._stride
        if self._save_is_due and step % self._sync == 0:  # the time is not to decide on what is averaged
            save, self._save_is_due = True, False
        stop = out_of_time or self._is_over()
        validate = self.held_out is not None and (stop or step % limits.validate_every == 0)
        diagnose = limits.diagnostics_every is not None and step % limits.diagnostics_every == 0
        if self._replica is not None and self._replica.averages:
            if step % self._sync and (validate or stop or save or epoch_ends or diagnose or interrupts):
                self._replica.average(self.model, self.optimizer)
            sums = self._group.each((progress.loss_sum, progress.norm_sum))
            progress.loss_sum, progress.norm_sum = (float(np.mean(each)) for each in zip(*sums, strict=True))
        if validate or stop or epoch_ends or diagnose or step % _record_every(step) == 0:
            stop |= self._record(validate, diagnose)
        if epoch_ends:
            self._end_epoch()
        if stop or self._is_over():
            return False
        if not save and not interrupts:
            return True
        before = time.perf_counter()
        self._save(final=False)
        self._saved = time.perf_counter()
        self._save_wait = max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * (self._saved - before))
        if interrupts:
            raise self._group.shared(interruption(interrupts[0]))
        if self.diverged and step > progress.window_start:
            self._record(False, False)
        return not self.diverged

    def _look_at_clock(self) -> tuple[bool, bool, int]:
        """Whether the time is over, whether a checkpoint is due, and steps until the next look."""
        now = time.perf_counter()
        save = self.limits.checkpoint_every == "timed" and now - self._saved >= self._save_wait
        passed, self._looked = now - self._looked, now
        return now >= self._deadline, save, next_look(self._stride, passed)

    def _hear(self, interrupts: list[int], noted: list[list[int]]) -> None:
        """Take in what any rank has noted."""
        if self._group.size > 1:
            interrupts[:] = [number for each in noted for number in each]

    def _record(self, validate: bool, diagnose: bool) -> bool:
        """Append an entry to the history; return whether training cannot go on."""
        progress = self.progress
        step, count = progress.step, progress.step - progress.window_start
        seconds = max(time.perf_counter() - self._recorded, 1e-9)
        train_nats = progress.loss_sum / count
        rate = (step - self._recorded_step) * self._chars / seconds
        entry: HistoryEntry = {
            "step": step,
            "epoch": progress.epoch + 1,
            "train_nats": train_nats,
            "valid_nats": self._validate(*self.held_out) if validate and self.held_out else None,
            "grad_norm": progress.norm_sum / count,
            "lr": self.optimizer.lr,
            "chars_per_second": self._group.each(rate)[0],
        }
        if diagnose:
            x, y, before = self._batch
            from fastrnn.diagnostics.summary import training_summary  # not needed to load a model

            entry["diagnostics"] = self._group.of_root(
                lambda: training_summary(
                    self.model, x, y, before, clip=self.clip, clip_threshold=self.clip_threshold
                )
            )
        self.history.append(entry)
        progress.loss_sum = progress.norm_sum = 0.0
        progress.window_start = self._recorded_step = step
        self._recorded = time.perf_counter()
        self.diverged |= not math.isfinite(train_nats)
        return self.diverged

    def _end_epoch(self) -> None:
        self.progress.epoch += 1
        self.progress.epoch_start = self.progress.step

    def _validate(self, indices: np.ndarray, first: int) -> float:
        start = self._start()
        nats = mean_cross_entropy(
            self.model, indices, first, start=start, shortest=VALIDATION_STREAM, limit=VALIDATION_LIMIT,
            group=self._group,
        )  # fmt: skip
        progress = self.progress
        if nats < progress.best_nats:
            self.run.best, self.run.starts["best"] = self.model.state_dict(), start
            progress.best_nats, progress.best_step, progress.rounds_since_best = nats, progress.step, 0
        else:
            progress.rounds_since_best += 1
        return nats


def _record_every(step: int) -> int:
    """Steps between two entries of the history, after a step.

    It grows at steps that are multiples of it before and after (`HISTORY_DOUBLING` is a multiple of
    `HISTORY_STEPS`), so that the next entry is the same from wherever one looks.
    """
    return max(HISTORY_STEPS, 1 << max(0, (step // HISTORY_DOUBLING).bit_length() - 1))


class _Bar:
    """Progress on standard error: loss, validation, characters per second, time left."""

    def __init__(self, training: Training, shown: bool) -> None:
        self._training = training
        self._display: Display | None = None
        self._first_step, self._start = training.progress.step, time.perf_counter()
        if shown:
            limits = training.limits
            self._display = Display(endless=limits.last_step is None and limits.max_seconds is None)

    def update(self) -> None:
        if self._display is not None and self._display.is_due():
            self._show(self._display)

    def _show(self, display: Display) -> None:
        training, progress, limits = self._training, self._training.progress, self._training.limits
        # Between two epochs, the one that has ended.
        epoch = progress.epoch + (progress.step > progress.epoch_start or not progress.step)
        shown = [f"epoch {epoch}"]
        count = progress.step - progress.window_start
        losses = [e["train_nats"] for e in training.history[-1:]]
        if count:
            losses = [progress.loss_sum / count]
        shown += [f"loss {decimals(loss, 3)}" for loss in losses]
        valid = next(
            (e["valid_nats"] for e in reversed(training.history) if e["valid_nats"] is not None), None
        )
        if valid is not None:
            shown.append(f"valid {decimals(valid, 3)}")
        steps, seconds = progress.step - self._first_step, max(time.perf_counter() - self._start, 1e-9)
        shown.append(f"{steps * training._chars / seconds:,.0f} chars/s")
        # The limit that is nearest.
        done = 0.0
        if limits.last_step is not None:
            done = steps / max(limits.last_step - self._first_step, 1)
        if limits.max_seconds is not None:
            done = max(done, seconds / limits.max_seconds)
        display.show(min(done, 1.0), ", ".join(shown))

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._display is not None:
            self._show(self._display)
            self._display.close()
