"""Vanilla recurrent networks on a CPU, fast: the study notes' `SimpleRNN` over compiled kernels.

Examples
--------
>>> import numpy as np
>>> import fastrnn
>>> rnn = fastrnn.SimpleRNN(4, 100, 4, rng=0)
>>> h = np.zeros((100, 1))
>>> for _ in range(100):
...     loss, _h = rnn.train_step([1, 0, 2, 2], [0, 2, 2, 3], h)
>>> loss < 0.1
True
"""

import importlib as _importlib
import os.path as _path
from typing import TYPE_CHECKING as _TYPE_CHECKING

# A shell in the checkout finds ./fastrnn before the installed package, and the kernels are not in
# that folder: they stand beside it.  The checkout's root on the path makes them fastrnn.kernels.
if not _path.exists(_path.join(_path.dirname(__file__), "kernels")):
    __path__.append(_path.dirname(_path.dirname(_path.abspath(__file__))))

from fastrnn._version import __version__
from fastrnn.backends import backend, set_backend, use_backend
from fastrnn.errors import BackendUnavailable, CheckpointError, DistributedError, NotFittedError, TextError
from fastrnn.simple import SimpleRNN

if _TYPE_CHECKING:
    from fastrnn import diagnostics, distributed, functional, init, optim
    from fastrnn.char_rnn import CharRNN
    from fastrnn.config import show_config, warmup
    from fastrnn.estimators import RNNClassifier as RNNClassifier
    from fastrnn.estimators import RNNRegressor as RNNRegressor
    from fastrnn.files import load, save
    from fastrnn.gated import GRU, LSTM
    from fastrnn.language_model import LanguageModel
    from fastrnn.layers import RNN
    from fastrnn.reference import ReferenceRNN
    from fastrnn.reference_gated import ReferenceGRU, ReferenceLSTM
    from fastrnn.sequence_model import SequenceModel

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BackendUnavailable",
    "CharRNN",
    "CheckpointError",
    "DistributedError",
    "LanguageModel",
    "NotFittedError",
    "ReferenceGRU",
    "ReferenceLSTM",
    "ReferenceRNN",
    "SequenceModel",
    "SimpleRNN",
    "TextError",
    "__version__",
    "backend",
    "diagnostics",
    "distributed",
    "functional",
    "init",
    "load",
    "optim",
    "save",
    "set_backend",
    "show_config",
    "use_backend",
    "warmup",
]

#: Public too, but not of ``from fastrnn import *``: they need scikit-learn.
_WITH_SCIKIT_LEARN = ("RNNClassifier", "RNNRegressor")

#: Public name -> module: what not every program uses is imported when it is first asked for.
_LAZY = {
    "CharRNN": "fastrnn.char_rnn",
    "GRU": "fastrnn.gated",
    "LSTM": "fastrnn.gated",
    "LanguageModel": "fastrnn.language_model",
    "RNN": "fastrnn.layers",
    "RNNClassifier": "fastrnn.estimators",
    "RNNRegressor": "fastrnn.estimators",
    "ReferenceGRU": "fastrnn.reference_gated",
    "ReferenceLSTM": "fastrnn.reference_gated",
    "ReferenceRNN": "fastrnn.reference",
    "SequenceModel": "fastrnn.sequence_model",
    "load": "fastrnn.files",
    "save": "fastrnn.files",
    "show_config": "fastrnn.config",
    "warmup": "fastrnn.config",
}

#: Modules that are imported when they are first asked for.
_SUBMODULES = ("diagnostics", "distributed", "functional", "init", "optim")


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        return _importlib.import_module(f"{__name__}.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(_importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_WITH_SCIKIT_LEARN})
