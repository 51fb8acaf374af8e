"""The array functions that the classes are made of, for people who bring their own training loop.

Nothing here keeps state.  Arrays of float32 give float32 results; all other real numbers are taken as
float64.  Equation numbers are those of ``docs/notes.md``.
"""

from __future__ import annotations

from fastrnn.functional.clipping import clip_grad_norm, clip_grad_value
from fastrnn.functional.gated import gru_backward, gru_forward, lstm_backward, lstm_forward
from fastrnn.functional.layer import rnn_backward, rnn_forward
from fastrnn.functional.linear import linear, linear_backward
from fastrnn.functional.regression import (
    gaussian_nll_loss,
    gaussian_nll_loss_backward,
    mse_loss,
    mse_loss_backward,
)
from fastrnn.functional.softmax import cross_entropy, cross_entropy_backward, log_softmax, sample, softmax

__all__ = [
    "clip_grad_norm",
    "clip_grad_value",
    "cross_entropy",
    "cross_entropy_backward",
    "gaussian_nll_loss",
    "gaussian_nll_loss_backward",
    "gru_backward",
    "gru_forward",
    "linear",
    "linear_backward",
    "log_softmax",
    "lstm_backward",
    "lstm_forward",
    "mse_loss",
    "mse_loss_backward",
    "rnn_backward",
    "rnn_forward",
    "sample",
    "softmax",
]


def __dir__() -> list[str]:
    return sorted(__all__)
