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

from pathlib import Path as _Path

# A shell in the checkout finds ./fastrnn before the installed package, and the kernels are not in
# that folder: they stand beside it.  The checkout's root on the path makes them fastrnn.kernels.
if not (_Path(__file__).parent / "kernels").exists():
    __path__.append(str(_Path(__file__).parent.parent))

from fastrnn.backends import backend, set_backend, use_backend
from fastrnn.errors import BackendUnavailable
from fastrnn.reference import ReferenceRNN
from fastrnn.simple import SimpleRNN

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "ReferenceRNN",
    "SimpleRNN",
    "__version__",
    "backend",
    "set_backend",
    "use_backend",
]
