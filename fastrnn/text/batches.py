"""A text as parallel streams: the chunks of truncated BPTT.

Dimension letters: N streams, T time steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastrnn.checks import INDEX, warn_user
from fastrnn.group import ALONE, Group

__all__ = ["Streams", "cut_text"]

#: Class indices that are laid out at a time: 2 MB, which stay in a level-two cache.
BLOCK = 1 << 18


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
    group : Group
        Who shares the streams: those of this rank are read here.

    Attributes
    ----------
    indices : ndarray
    seq_len : int
        T.
    num_streams : int
        Of all ranks.
    own : (int, int)
        Bounds of those that are read here: N of them.
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

    def __init__(self, indices: np.ndarray, seq_len: int, batch_size: int, group: Group = ALONE) -> None:
        self.indices = indices
        count = len(indices) - 1
        self.seq_len = min(seq_len, count)
        self.num_streams = min(batch_size, count // self.seq_len)
        length = count // self.num_streams
        self.steps = length // self.seq_len
        self.own = start, stop = group.share(self.num_streams)
        N = stop - start
        if group.size > self.num_streams:
            raise ValueError(
                f"a batch of {self.num_streams} stream{'s' if self.num_streams > 1 else ''} cannot be shared by "
                f"{group.size} ranks: each needs one"
            )
        # Stream j as a row: its inputs, and one more for the last target.
        self._rows = np.lib.stride_tricks.as_strided(
            indices[start * length :],
            (N, length + 1),
            (length * indices.itemsize, indices.itemsize),
            writeable=False,
        )
        self._block_steps = min(self.steps, max(1, BLOCK // (self.seq_len * N)))
        self._block = np.empty((self._block_steps * self.seq_len + 1, N), INDEX)
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


def cut_text(
    indices: np.ndarray, seq_len: int, batch_size: int, *, warn: bool, group: Group = ALONE
) -> Streams:
    """Streams of a text to train on; say if it is too short for those that were asked for."""
    streams = Streams(indices, int(seq_len), int(batch_size), group)
    N, T = streams.num_streams, streams.seq_len
    if warn and (batch_size, seq_len) != (N, T):
        warn_user(
            f"{len(indices)} characters to train on are less than one batch of {batch_size} "
            f"streams of {seq_len} characters: training on {N} stream{'s' if N > 1 else ''} of {T}",
        )
    return streams
