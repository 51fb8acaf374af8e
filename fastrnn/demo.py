"""Training of a character RNN on one stream of text, in the way of min-char-rnn: chunk after chunk,
the hidden state carried along, from the start again at the end of the text."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np

from fastrnn.bench import agree, reference_copy, time_calls
from fastrnn.reference import ReferenceRNN
from fastrnn.simple import SimpleRNN

__all__ = ["CLIP_THRESHOLD", "Speed", "StreamTrainer", "measure_speed"]

#: Threshold of the global gradient norm (eq. 15) of a chunk's summed loss.  The norms of a net that
#: learns well lie below it, so that only outliers are cut.
CLIP_THRESHOLD = 50.0

#: The smoothed loss looks back over a quarter of the characters so far, and over this many at most:
#: modules of the standard library differ in how hard they are, and most are shorter.
SMOOTHING = 100_000

#: Characters whose training is timed, as often as there is time for.
TIMED_CHARACTERS = 500


class StreamTrainer:
    """Truncated BPTT over one text with `SimpleRNN.train_step`.

    Parameters
    ----------
    rnn : SimpleRNN
        With as many inputs and outputs as there are different characters; trained in place.
    indices : ndarray of int64, shape (n,)
        The text, two characters at least.
    seq_len : int
        Time steps T of a chunk; fewer in a text that is shorter than one.

    Attributes
    ----------
    seq_len : int
        Time steps of a chunk.
    position : int
        Index of the next input.
    h : ndarray, shape (h, 1)
        State before it.
    characters : int
        Characters trained on so far.
    smoothed_loss : float
        Running mean of the loss in nats per character; before the first step that of a guess.

    Examples
    --------
    >>> trainer = StreamTrainer(SimpleRNN(2, 8, 2, rng=0), np.arange(100) % 2, 25)
    >>> for _ in range(2000):
    ...     trainer.step(0.01)
    >>> trainer.smoothed_loss < 0.1, trainer.characters
    (True, 50000)
    """

    def __init__(self, rnn: SimpleRNN, indices: np.ndarray, seq_len: int) -> None:
        self.rnn = rnn
        self.indices = indices
        self.seq_len = min(seq_len, len(indices) - 1)
        self.position = 0
        self.h = np.zeros((rnn.hidden_size, 1), rnn.dtype)
        self.characters = 0
        self.smoothed_loss = math.log(rnn.output_size)

    def step(self, lr: float) -> None:
        """Train on the next chunk.

        Parameters
        ----------
        lr : float
            Learning rate, for the loss summed over the chunk.
        """
        start = self.position
        end = start + self.seq_len
        loss, self.h = self.rnn.train_step(
            self.indices[start:end],
            self.indices[start + 1 : end + 1],
            self.h,
            lr,
            clip="norm",
            clip_threshold=CLIP_THRESHOLD,
        )
        self.characters += self.seq_len
        share = self.seq_len / max(self.seq_len, min(self.characters / 4, SMOOTHING))
        self.smoothed_loss += share * (loss / self.seq_len - self.smoothed_loss)
        if end + self.seq_len < len(self.indices):
            self.position = end
        else:
            self.position = 0
            self.h = np.zeros_like(self.h)

    def sample(self, n: int, rng: np.random.Generator) -> list[int]:
        """Go on from where the training stands.

        Parameters
        ----------
        n : int
            Characters to draw.
        rng : Generator

        Returns
        -------
        list of n int
        """
        return self.rnn.sample(self.h, int(self.indices[self.position]), n, rng=rng)


@dataclass(frozen=True)
class Speed:
    """Training speed beside the reference loop's.

    Attributes
    ----------
    fast, reference : float
        Seconds per character.

    Examples
    --------
    >>> Speed(fast=0.5, reference=12.5).ratio
    25.0
    """

    fast: float
    reference: float

    @property
    def ratio(self) -> float:
        """How many times as fast as the reference loop."""
        return self.reference / self.fast


def measure_speed(trainer: StreamTrainer, lr: float, seconds: float = 1.0) -> Speed:
    """Train copies of a model, and of the reference loop with its weights, on the same chunks.

    Parameters
    ----------
    trainer : StreamTrainer
        Left as it is.
    lr : float
        Learning rate.
    seconds : float, default 1.0
        Measuring time, roughly.

    Returns
    -------
    Speed

    Raises
    ------
    fastrnn.bench.Disagreement
        If the two do not end with the same losses, states and weights; checked before the timing.

    Examples
    --------
    >>> trainer = StreamTrainer(SimpleRNN(2, 8, 2, rng=0), np.arange(1000) % 2, 25)
    >>> speed = measure_speed(trainer, 0.01, seconds=0.01)
    >>> speed.fast > 0 and speed.reference > 0
    True
    """
    T = trainer.seq_len
    indices = trainer.indices[: max(T, TIMED_CHARACTERS) + 1]
    rnn = copy.deepcopy(trainer.rnn)
    reference = reference_copy(rnn)
    chunks = [(indices[i : i + T], indices[i + 1 : i + T + 1]) for i in range(0, len(indices) - T, T)]

    def train(model: SimpleRNN | ReferenceRNN) -> tuple[list[float], np.ndarray]:
        h = np.zeros((model.hidden_size, 1), rnn.dtype)
        losses = []
        for inputs, targets in chunks:
            loss, h = model.train_step(inputs, targets, h, lr, clip="norm", clip_threshold=CLIP_THRESHOLD)
            losses.append(loss)
        return losses, h

    agree(rnn, train(rnn), reference, train(reference))
    fast, slow = time_calls([lambda: train(rnn), lambda: train(reference)], seconds / 2)
    characters = len(chunks) * T
    return Speed(fast / characters, slow / characters)
