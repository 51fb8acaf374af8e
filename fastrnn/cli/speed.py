"""How much faster than the plain NumPy loop a trained character model is, on the machine at hand."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn.char_rnn import CharRNN
from fastrnn.cli.comparison import TOLERANCE, Disagreement, time_calls
from fastrnn.language_model import LanguageModel
from fastrnn.optim import OPTIMIZERS
from fastrnn.reference import ReferenceRNN
from fastrnn.text.batches import Streams

__all__ = ["Speed", "measure_speed"]

#: Characters that the reference loop is timed on, as often as there is time for.
TIMED_CHARACTERS = 500

#: Too small to change what is measured.
LR = 1e-6


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


def measure_speed(model: CharRNN, text: str, seconds: float = 1.0) -> Speed:
    """Train copies of a model, and of the reference loop with its weights, on the beginning of a text.

    The model takes a step with its whole batch, the reference loop one sequence of it after the other.

    Parameters
    ----------
    model : CharRNN
        Fitted, with one layer and without dropout; left as it is.
    text : str
        One that the model was trained on.
    seconds : float, default 1.0
        Measuring time, roughly.

    Returns
    -------
    Speed

    Raises
    ------
    fastrnn.cli.comparison.Disagreement
        If the two do not compute the same loss and gradients; checked before the timing.

    Examples
    --------
    >>> text = "hello world. " * 40
    >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit(text)
    >>> speed = measure_speed(model, text, seconds=0.01)
    >>> speed.fast > 0 and speed.reference > 0
    True
    """
    characters = text[: model.seq_len * model.batch_size + 1]
    streams = Streams(
        model.vocabulary_.encode(characters, newline=model.newline), model.seq_len, model.batch_size
    )
    T, N = streams.seq_len, streams.num_streams
    x, y = (part.copy() for part in next(streams.chunks()))
    sequences = range(min(N, math.ceil(TIMED_CHARACTERS / T)))
    lm, reference = copy.deepcopy(model.model_), reference_copy(model.model_)
    _agree(lm, reference, x[:, sequences], y[:, sequences])

    optimizer = OPTIMIZERS[model.optimizer](lr=LR, backend=model.backend)
    h = lm.initial_state(N)
    h_prev = np.zeros((lm.hidden_size, 1))

    def train_fast() -> None:
        lm.train_step(x, y, h, optimizer, clip="norm")

    def train_reference() -> None:
        for j in sequences:
            reference.train_step(x[:, j], y[:, j], h_prev, LR, clip="norm")

    fast, slow = time_calls([train_fast, train_reference], seconds / 2)
    return Speed(fast / (T * N), slow / (T * len(sequences)))


def reference_copy(lm: LanguageModel) -> ReferenceRNN:
    """The reference loop in float64 with a copy of the weights of a model of one layer."""
    W = {name: weights.astype(np.float64) for name, weights in lm.parameters.items()}
    reference = ReferenceRNN(lm.vocab_size, lm.hidden_size, lm.vocab_size, rng=0)
    reference.Wxh, reference.Whh, reference.Why = W["weight_ih_l0"], W["weight_hh_l0"], W["weight_out"]
    reference.bh = (W["bias_ih_l0"] + W["bias_hh_l0"])[:, None]
    reference.by = W["bias_out"][:, None]
    return reference


def _agree(lm: LanguageModel, reference: ReferenceRNN, x: np.ndarray, y: np.ndarray) -> None:
    """Compare the loss and the gradients of a batch with the sums over its sequences."""
    loss, grads, _ = lm.loss_and_grads(x, y, reduction="sum")
    h_prev = np.zeros((lm.hidden_size, 1))
    results = [reference.loss_and_grads(x[:, j], y[:, j], h_prev, clip=None)[:2] for j in range(x.shape[1])]
    dWxh, dWhh, dWhy, dbh, dby = (sum(parts) for parts in zip(*(g for _, g in results), strict=True))
    pairs: dict[str, tuple[Any, Any]] = {
        "loss": (loss, sum(loss for loss, _ in results)),
        "weight_ih_l0": (grads["weight_ih_l0"], dWxh),
        "weight_hh_l0": (grads["weight_hh_l0"], dWhh),
        "bias_hh_l0": (grads["bias_hh_l0"][:, None], dbh),
        "weight_out": (grads["weight_out"], dWhy),
        "bias_out": (grads["bias_out"][:, None], dby),
    }
    for name, (mine, theirs) in pairs.items():
        error = float(np.max(np.abs(np.subtract(mine, theirs, dtype=np.float64))))
        if not error <= TOLERANCE[lm.dtype.name] * max(1.0, float(np.max(np.abs(theirs)))):
            raise Disagreement(f"{name} is not what the reference loop computes: off by {error:.3g}")
