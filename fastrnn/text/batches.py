"""A text as parallel streams: the chunks of truncated BPTT, and the cross-entropy of a long text.

Dimension letters: N streams, T time steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastrnn.checks import INDEX

__all__ = ["Streams", "mean_cross_entropy", "perplexity", "start_state"]

#: Class indices that are laid out at a time: 2 MB, which stay in a level-two cache.
BLOCK = 1 << 18

#: Streams that are scored side by side at most.
SCORED_STREAMS = 64

#: Characters that a stream which begins inside a text reads first, not scored, to get its state.
WARM_UP = 128

#: Characters by which `start_state` chooses, and nats per character that it must gain to leave zero.
START_CHARACTERS, START_GAIN = 512, 0.2

#: Logits and hidden numbers that a scored chunk makes at most, and characters of it.
NUMBERS, CHUNK = 1 << 22, 1 << 13


class Streams:
    """A text cut into N streams of equal length, which are read side by side in chunks.

    Stream j begins where stream j - 1 ends, and a chunk begins where the one before it ended: the
    state after a chunk belongs to the next one.  What is left at a stream's end, less than a chunk,
    is not read.

    Parameters
    ----------
    indices : ndarray of integers, shape (n,)
        At least two.
    seq_len : int
        Time steps of a chunk; fewer if the text is shorter than that.
    batch_size : int
        Streams; fewer if each would be shorter than a chunk.

    Attributes
    ----------
    indices : ndarray
    seq_len : int
        T.
    num_streams : int
        N.
    steps : int
        Chunks of an epoch.

    Examples
    --------
    >>> streams = Streams(np.arange(12), 2, 2)
    >>> (streams.num_streams, streams.seq_len, streams.steps)
    (2, 2, 2)
    >>> [(x.tolist(), y.tolist()) for x, y in streams.chunks()]
    [([[0, 5], [1, 6]], [[1, 6], [2, 7]]), ([[2, 7], [3, 8]], [[3, 8], [4, 9]])]
    """

    def __init__(self, indices: np.ndarray, seq_len: int, batch_size: int) -> None:
        self.indices = indices
        count = len(indices) - 1
        self.seq_len = min(seq_len, count)
        self.num_streams = min(batch_size, count // self.seq_len)
        length = count // self.num_streams
        self.steps = length // self.seq_len
        # Stream j as a row: its inputs, and one more for the last target.
        self._rows = np.lib.stride_tricks.as_strided(
            indices,
            (self.num_streams, length + 1),
            (length * indices.itemsize, indices.itemsize),
            writeable=False,
        )
        self._block_steps = min(self.steps, max(1, BLOCK // (self.seq_len * self.num_streams)))
        self._block = np.empty((self._block_steps * self.seq_len + 1, self.num_streams), INDEX)
        self._first = -1

    def chunks(self, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Inputs and targets of each step of an epoch from step `start` on.

        Yields
        ------
        x, y : ndarray of int64, shape (T, N)
            C-contiguous views on memory that is used again: valid until the next pair is taken.
        """
        T, k, block = self.seq_len, self._block_steps, self._block
        for first in range(start - start % k, self.steps, k):
            steps = min(k, self.steps - first)
            if first != self._first:
                rows = self._rows[:, first * T : (first + steps) * T + 1]
                block[: steps * T + 1] = rows.T
                self._first = first
            for begin in range(max(start - first, 0) * T, steps * T, T):
                yield block[begin : begin + T], block[begin + 1 : begin + T + 1]


def mean_cross_entropy(
    model: Any,
    indices: np.ndarray,
    first: int = 1,
    *,
    start: np.ndarray | None = None,
    shortest: int = 8192,
    limit: int | None = None,
) -> float:
    """Mean cross-entropy in nats of the characters of a text from the one at `first` on.

    A long text is cut into parallel streams.  Each that begins inside the text reads the `WARM_UP`
    characters before its part first, unscored.

    Parameters
    ----------
    model : LanguageModel
    indices : ndarray of integers, shape (n,)
    first : int, default 1
        From 1 to n - 1; no character is predicted without one before it.
    start : ndarray, shape (num_layers, 1, h), or None
        State that a stream begins with; None for zeros.
    shortest : int
        Fewest characters that a stream scores, unless there is only one stream.
    limit : int or None
        Most characters that are scored; they are taken evenly from all over the text.

    Returns
    -------
    float
    """
    count = len(indices) - first
    N = max(1, min(SCORED_STREAMS, count // shortest))
    length, longer = divmod(count, N)  # the first `longer` streams have one character more
    if limit is not None and length > limit // N:
        places = first + np.arange(N) * length
        length, longer = max(1, limit // N), 0
    else:
        places = first + np.arange(N) * length + np.minimum(np.arange(N), longer)
    beginning = model.initial_state(N) if start is None else np.repeat(start, N, axis=1)
    h = beginning
    at_the_start = places <= WARM_UP
    if not at_the_start.all():
        h = model.loss(*_chunk(indices, np.maximum(places - WARM_UP, 1), WARM_UP), h)[1].copy()
        h[:, at_the_start] = beginning[:, at_the_start]
    total = 0.0
    steps = max(1, min(NUMBERS // (model.vocab_size + model.hidden_size), CHUNK) // N)
    for begin in range(0, length, steps):
        x, y = _chunk(indices, places + begin, min(steps, length - begin))
        loss, h = model.loss(x, y, h, reduction="sum")
        total += loss
    if longer:
        x, y = _chunk(indices, places[:longer] + length, 1)
        total += model.loss(x, y, np.ascontiguousarray(h[:, :longer]), reduction="sum")[0]
    return float(total) / (length * N + longer)


def perplexity(nats: float) -> float:
    """Exponential of a mean cross-entropy; infinity beyond what a float holds.

    Parameters
    ----------
    nats : float

    Returns
    -------
    float

    Examples
    --------
    >>> perplexity(0.0), perplexity(1e4)
    (1.0, inf)
    """
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def start_state(model: Any, indices: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, float]:
    """State to begin a text with: zero, unless the model knows what to do only with the one it carries.

    A model that was trained in one pass over few streams has hardly ever seen a state of zero.  With a
    high learning rate it can come to keep its hidden state in a region that cannot be reached from there
    (min-char-rnn's settings do that: 5.7 nats per character for ever after, in place of 2.1).

    Parameters
    ----------
    model : LanguageModel
    indices : ndarray of integers, shape (n,)
        Text that it was trained on; some hundred characters are enough.
    state : ndarray, shape (num_layers, N, h)
        State that it carries.

    Returns
    -------
    start : ndarray, shape (num_layers, 1, h)
        That of the first stream, if a text that begins with it is predicted better by `START_GAIN` after
        it has had time to be forgotten, else zeros.
    nats : float
        Mean cross-entropy of that text.
    """
    n = min(len(indices) - 1, START_CHARACTERS)
    zero, carried = model.initial_state(1), state[:, :1].copy()
    losses = []
    for h in (zero, carried):
        if n > WARM_UP:
            h = model.loss(*_chunk(indices, np.ones(1, INDEX), WARM_UP), h)[1]
        first = WARM_UP if n > WARM_UP else 0
        losses.append(model.loss(*_chunk(indices, np.array([first + 1]), n - first), h)[0])
    return (carried, losses[1]) if losses[1] < losses[0] - START_GAIN else (zero, losses[0])


def _chunk(indices: np.ndarray, places: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, shape (steps, N), whose first targets stand at `places`."""
    rows = indices[places + np.arange(-1, steps)[:, None]].astype(INDEX)
    return rows[:-1], rows[1:]
