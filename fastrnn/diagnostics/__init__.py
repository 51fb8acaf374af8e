"""How far gradients reach, and why: vanishing and exploding gradients, measured.

Backpropagation through time multiplies a gradient with one Jacobian, ``diag(f'(z_t)) W_hh``, for each
step that it goes back.  If these shrink it, what happened early has no effect on what is learned
(vanishing gradients); if they stretch it, one step of training can throw the weights away (exploding
gradients).  The functions here measure which of the two happens in a model, with the model's own
kernels and without hooks.  They take a `SimpleRNN`, `RNN`, `GRU`, `LSTM`, `LanguageModel` or `SequenceModel`, or a
fitted `CharRNN`, `RNNRegressor` or `RNNClassifier`, leave it unchanged, and draw no random numbers.  Dropout is left out.  For a model whose weights hold NaN or
infinity `gradient_flow`, `clip_report` and `training_summary` give NaN, `hidden_states` shows what there
is, and the other functions raise a ValueError.

Each result is a dataclass of arrays and numbers.  ``print`` it for what it means in sentences; its
``plot()`` draws it, for which matplotlib must be installed (``pip install 'fastrnn[plot]'``); a notebook
shows both.  `diagnose` measures everything in a `CharRNN` at once.  Equation numbers are those of
``docs/notes.md``.

Examples
--------
>>> import numpy as np
>>> from fastrnn import SimpleRNN, diagnostics
>>> rnn = SimpleRNN(4, 32, 4, rng=0)
>>> flow = diagnostics.gradient_flow(rnn, [1, 0, 2, 2], [0, 2, 2, 3])
>>> flow.total.shape
(4,)
>>> bool(flow.share[0] < 0.01)     # small weights: the first state hardly moves the last loss
True
"""

from __future__ import annotations

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING

from fastrnn.diagnostics.clipping import ClipReport, clip_report
from fastrnn.diagnostics.gates import GateSaturation
from fastrnn.diagnostics.gradient_check import GradCheck, ParameterCheck, gradcheck
from fastrnn.diagnostics.gradients import GradientFlow, gradient_flow
from fastrnn.diagnostics.jacobians import JacobianNorms, jacobian_norms
from fastrnn.diagnostics.spectrum import Spectrum, singular_values, spectral_radius, spectrum
from fastrnn.diagnostics.states import HiddenStates, Saturation, hidden_states, saturation
from fastrnn.diagnostics.summary import training_summary

if _TYPE_CHECKING:
    from fastrnn.diagnostics.report import Diagnosis, diagnose

__all__ = [
    "ClipReport",
    "Diagnosis",
    "GateSaturation",
    "GradCheck",
    "GradientFlow",
    "HiddenStates",
    "JacobianNorms",
    "ParameterCheck",
    "Saturation",
    "Spectrum",
    "clip_report",
    "diagnose",
    "gradcheck",
    "gradient_flow",
    "hidden_states",
    "jacobian_norms",
    "saturation",
    "singular_values",
    "spectral_radius",
    "spectrum",
    "training_summary",
]


#: Public name -> module that stands on this one, and is imported when the name is first asked for.
_LAZY = {"Diagnosis": "fastrnn.diagnostics.report", "diagnose": "fastrnn.diagnostics.report"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(_importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
