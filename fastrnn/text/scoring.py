"""How well a model predicts a text: the cross-entropy of a long one, in parallel streams.

Dimension letters: N streams, T time steps.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import INDEX
from fastrnn.group import ALONE, Group
from fastrnn.sharing import Shared, being_read, reading
from fastrnn.states import State, map_state, parts_of
from fastrnn.text.reading import read_indexed
from fastrnn.text.vocabulary import check_unknown

if TYPE_CHECKING:
    from fastrnn.hints import NewLine, Text
    from fastrnn.text.snapshot import Run

__all__ = ["Scoring", "mean_cross_entropy", "perplexity", "start_state"]

#: Streams that are scored side by side at most.
SCORED_STREAMS = 64

#: Characters that a stream which begins inside a text reads first, not scored, to get its state.
WARM_UP = 128

#: Characters by which `start_state` chooses, and nats per character that it must gain to leave zero.
START_CHARACTERS, START_GAIN = 512, 0.2

#: Logits and hidden numbers that a scored chunk makes at most, and characters of it.
NUMBERS, CHUNK = 1 << 22, 1 << 13


def mean_cross_entropy(
    model: Any,
    indices: np.ndarray,
    first: int = 1,
    *,
    start: State | None = None,
    shortest: int = 8192,
    limit: int | None = None,
    group: Group = ALONE,
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
    group : Group
        Who shares the streams.

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
    begin, end = group.share(N)
    places, own_longer = places[begin:end], min(max(longer - begin, 0), end - begin)
    totals = group.each(
        _cross_entropy(model, indices, places, length, own_longer, start) if end > begin else 0.0
    )
    return float(sum(totals)) / (length * N + longer)


def _cross_entropy(
    model: Any, indices: np.ndarray, places: np.ndarray, length: int, longer: int, start: State | None
) -> float:
    """Sum of the cross-entropies of streams of `length` characters that begin at `places`, the first of one more."""
    N = len(places)
    beginning = (
        model.initial_state(N) if start is None else map_state(partial(np.repeat, repeats=N, axis=1), start)
    )
    h = beginning
    at_the_start = places <= WARM_UP
    if not at_the_start.all():
        h = model.loss(*_chunk(indices, np.maximum(places - WARM_UP, 1), WARM_UP), h)[1]  # new arrays
        for carried, begun in zip(parts_of(h), parts_of(beginning), strict=True):
            carried[:, at_the_start] = begun[:, at_the_start]
    total = 0.0
    steps = max(1, min(NUMBERS // (model.vocab_size + model.hidden_size), CHUNK) // N)
    for begin in range(0, length, steps):
        x, y = _chunk(indices, places + begin, min(steps, length - begin))
        loss, h = model.loss(x, y, h, reduction="sum")
        total += loss
    if longer:
        x, y = _chunk(indices, places[:longer] + length, 1)
        h = map_state(lambda array: array[:, :longer], h)
        total += model.loss(x, y, h, reduction="sum")[0]
    return float(total)


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


def start_state(model: Any, indices: np.ndarray, state: State) -> tuple[State, float]:
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
        State that it carries; of an LSTM a pair, as what is returned.

    Returns
    -------
    start : ndarray, shape (num_layers, 1, h)
        That of the first stream, if a text that begins with it is predicted better by `START_GAIN` after
        it has had time to be forgotten, else zeros.
    nats : float
        Mean cross-entropy of that text.
    """
    n = min(len(indices) - 1, START_CHARACTERS)
    zero, carried = model.initial_state(1), map_state(lambda array: array[:, :1].copy(), state)
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


class Scoring(Shared):
    """What `CharRNN` says of a text."""

    __slots__ = ()

    unknown: str | None
    newline: NewLine | None

    def _fitted_run(self) -> Run:
        raise NotImplementedError

    @reading
    def score(self, text: Text, y: None = None) -> float:
        """Mean log-likelihood per character in nats; higher is better.

        Parameters
        ----------
        text : str, bytes, pathlib.Path, binary file, or sequence of these
            As for `fit`; at least two characters.
        y : None
            Ignored.

        Returns
        -------
        float
            At most 0.

        Raises
        ------
        TextError
            If the text cannot be read, is too short, or holds characters that the model never saw and
            `unknown` does not allow.

        Notes
        -----
        The first character is not predicted.  A text of 16 384 characters or more is scored in parallel
        streams; each of them first reads the 128 characters before its own, which give it its state.

        Examples
        --------
        >>> from fastrnn import CharRNN
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit("hello world. " * 40)
        >>> model.score("hello world. ") < 0
        True
        """
        run = self._fitted_run()
        check_unknown(self.unknown)
        indices = read_indexed(text, self.newline, run.vocabulary, self.unknown).indices
        with being_read(run.model, "score"):
            return -mean_cross_entropy(run.model, indices, start=run.start)

    @reading
    def bits_per_char(self, text: Text) -> float:
        """Cross-entropy in bits per character, as `score` measures it; lower is better.

        Parameters
        ----------
        text : str, bytes, pathlib.Path, binary file, or sequence of these
            As for `score`.

        Returns
        -------
        float
            At least 0.

        Raises
        ------
        TextError
            As `score`.

        Examples
        --------
        >>> from fastrnn import CharRNN
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit("hello world. " * 40)
        >>> 0 < model.bits_per_char("hello world. ") < 4
        True
        """
        return -self.score(text) / math.log(2)

    @reading
    def perplexity(self, text: Text) -> float:
        """Exponential of the cross-entropy that `score` measures, in nats per character; lower is better.

        A model that is as uncertain as if it chose among k equally probable characters has perplexity k.

        Parameters
        ----------
        text : str, bytes, pathlib.Path, binary file, or sequence of these
            As for `score`.

        Returns
        -------
        float
            At least 1; infinity beyond the largest float.

        Raises
        ------
        TextError
            As `score`.

        Examples
        --------
        >>> from fastrnn import CharRNN
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit("hello world. " * 40)
        >>> 1 < model.perplexity("hello world. ") < 15
        True
        """
        return perplexity(-self.score(text))
