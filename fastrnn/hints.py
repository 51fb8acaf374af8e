"""The types in the signatures of fastrnn, for programs that are checked by mypy or pyright.

Every choice has its words here, once.  Arrays are `numpy.typing.ArrayLike` where they are taken, and
`numpy.ndarray` where they are given back.

Examples
--------
>>> from fastrnn import LanguageModel
>>> from fastrnn.hints import Clip, Seed
>>> def learn(lm: LanguageModel, clip: Clip | None = "norm", rng: Seed = None) -> None:
...     ...
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal, NotRequired, Protocol, TypeAlias, TypedDict

import numpy as np

from fastrnn.cells import CellName, Nonlinearity
from fastrnn.heads import HeadName
from fastrnn.losses import LossName

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike


__all__ = [
    "BackendName",
    "CellName",
    "Clip",
    "Column",
    "Dtype",
    "HeadName",
    "HistoryEntry",
    "LossName",
    "Model",
    "NewLine",
    "Nonlinearity",
    "NormMethod",
    "OptimizerState",
    "Path",
    "RadiusMethod",
    "RandomState",
    "Reduction",
    "Seed",
    "SequencesLike",
    "Several",
    "ShowMode",
    "State",
    "StepClip",
    "SupportsStep",
    "Targets",
    "Text",
    "TextPart",
    "Weights",
]


def __dir__() -> list[str]:
    return sorted(__all__)


# -- choices ---------------------------------------------------------------------------------------

BackendName: TypeAlias = Literal["cython", "numba", "numpy"]

#: How `LanguageModel`, `SequenceModel` and `CharRNN` clip gradients; None clips nothing.
Clip: TypeAlias = Literal["norm", "value"]

#: How `SimpleRNN` does: ``"step"`` clamps after every time step, as the notes' listing.
StepClip: TypeAlias = Literal["step", "value", "norm"]

#: Of a loss over what counts.  `functional.cross_entropy` takes ``"none"`` too.
Reduction: TypeAlias = Literal["mean", "sum"]

#: Which weights a `CharRNN` uses: of the last step, or of the best validation.
Weights: TypeAlias = Literal["last", "best"]

#: Line ends of texts: ``"universal"`` reads those of Windows and of old Macs as ``"\n"``.
NewLine: TypeAlias = Literal["universal"]

#: Of `show_config`.
ShowMode: TypeAlias = Literal["stdout", "dict"]

#: Of `diagnostics.jacobian_norms`, and of `diagnostics.spectral_radius`.
NormMethod: TypeAlias = Literal["auto", "exact", "power"]
RadiusMethod: TypeAlias = Literal["exact", "estimate"]

# -- arguments -------------------------------------------------------------------------------------

#: float32 or float64; Python's `float` is float64.
Dtype: TypeAlias = (
    Literal["float32", "float64"]
    | type[np.float32]
    | type[np.float64]
    | type[float]
    | np.dtype[np.float32]
    | np.dtype[np.float64]
)

#: A seed, a stream of random numbers, or None.
Seed: TypeAlias = int | np.integer | np.random.Generator | None

#: The same in scikit-learn's conventions, for `CharRNN`.
RandomState: TypeAlias = int | np.integer | np.random.Generator | np.random.RandomState | None

#: A state: an array, or the pair (h, c) of an LSTM.
State: TypeAlias = "ArrayLike | tuple[ArrayLike, ArrayLike]"

#: What the estimators take: an array or a table, or a list of arrays whose lengths may differ.
SequencesLike: TypeAlias = "ArrayLike | Sequence[ArrayLike]"

Path: TypeAlias = str | os.PathLike[str]

#: Numbers of samples of which `CharRNN.generate` is known to return a list.
Several: TypeAlias = Literal[2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 32, 50, 64, 100]


class NotesModel(Protocol):
    """A `SimpleRNN`, a `ReferenceRNN`, or another class with the notes' five weights."""

    Wxh: np.ndarray
    Whh: np.ndarray
    Why: np.ndarray
    bh: np.ndarray
    by: np.ndarray


class LayeredModel(Protocol):
    """An `RNN`, a `GRU`, an `LSTM`, a `LanguageModel` or a `SequenceModel`."""

    parameters: dict[str, np.ndarray]

    @property
    def num_layers(self) -> int: ...


class TextModel(Protocol):
    """A `CharRNN`, an `RNNRegressor` or an `RNNClassifier`."""

    @property
    def model_(self) -> LayeredModel: ...


#: What `diagnostics` looks at.
Model: TypeAlias = NotesModel | LayeredModel | TextModel

#: Targets there, as the model's own loss takes them; of an `RNN` the gradient of the loss by the outputs, or a function
#: that makes it of them.
Targets: TypeAlias = "ArrayLike | Callable[[np.ndarray], ArrayLike] | None"


class Column(Protocol):
    """A column of a table, or an array of str: what holds texts and has a shape."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its first number is that of the texts."""

    def __iter__(self) -> Iterator[Any]: ...


#: A text: a str or bytes, a path to a file, or a file that is open in binary mode.
TextPart: TypeAlias = str | bytes | bytearray | memoryview | os.PathLike[str] | IO[bytes]

#: A text, or several that are read as one, end to end.
Text: TypeAlias = TextPart | Sequence[TextPart] | Column


class SupportsStep(Protocol):
    """An optimizer: one of `fastrnn.optim`, or any object with this method."""

    def step(self, parameters: dict[str, np.ndarray], grads: dict[str, np.ndarray], /) -> object:
        """Update the arrays in `parameters` in place."""


# -- results ---------------------------------------------------------------------------------------


class HistoryEntry(TypedDict):
    """An entry of `CharRNN.history_`, where each key is explained."""

    step: int
    epoch: int
    train_nats: float
    valid_nats: float | None
    grad_norm: float
    lr: float
    chars_per_second: float
    diagnostics: NotRequired[dict[str, float]]


class OptimizerState(TypedDict):
    """What an optimizer's ``state_dict`` returns."""

    name: str
    options: dict[str, Any]
    step: int
    state: Mapping[str, Mapping[Any, np.ndarray]]
