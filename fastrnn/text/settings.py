"""The hyper-parameters of a `CharRNN`, after scikit-learn's conventions: `__init__` keeps them, `fit` checks them."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastrnn import backends
from fastrnn.cells import CELL_NAMES
from fastrnn.checks import OwnsArrays, check_choice, check_dtype, check_number, check_size
from fastrnn.contents import plain
from fastrnn.errors import brief
from fastrnn.group import group_of
from fastrnn.optim import OPTIMIZERS
from fastrnn.random_stream import check_random_state
from fastrnn.text.vocabulary import check_newline, check_unknown

if TYPE_CHECKING:
    from fastrnn.distributed import Communicator
    from fastrnn.hints import BackendName, CellName, Clip, Dtype, NewLine, Path, RandomState
    from fastrnn.optim import OptimizerName

__all__ = ["DEFAULTS", "NOT_IN_FILES", "OF_MODEL", "OF_RANK", "OF_RUN", "Settings", "whole"]

#: Hyper-parameters that the arrays of a model follow, and those that a run follows as well.
OF_MODEL = ("hidden_size", "num_layers", "cell", "dtype", "optimizer")
OF_RUN = (*OF_MODEL, "seq_len", "batch_size", "validation_fraction", "newline")

#: Hyper-parameters that belong to where a model is trained, not to the model.
NOT_IN_FILES = ("checkpoint", "comm")

#: Those in which the ranks of a training may differ.
OF_RANK = (*NOT_IN_FILES, "random_state", "num_threads", "backend", "verbose")


class Settings(OwnsArrays):
    """Hyper-parameters of a `CharRNN`."""

    def __init__(
        self,
        hidden_size: int = 256,
        num_layers: int = 1,
        *,
        seq_len: int = 64,
        batch_size: int = 64,
        optimizer: OptimizerName = "adam",
        lr: float = 2e-3,
        lr_decay: float = 1.0,
        clip: Clip | None = "norm",
        clip_threshold: float = 5.0,
        dropout: float = 0.0,
        epochs: int | None = 10,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        validation_fraction: float = 0.1,
        validate_every: int | None = None,
        patience: int | None = None,
        dtype: Dtype = "float32",
        random_state: RandomState = None,
        num_threads: int | None = None,
        backend: BackendName | None = None,
        checkpoint: Path | None = None,
        checkpoint_every: int | None = None,
        diagnostics_every: int | None = 256,
        unknown: str | None = None,
        newline: NewLine | None = None,
        verbose: int = 1,
        cell: CellName = "rnn",
        comm: Communicator | None = None,
    ) -> None:
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.lr_decay = lr_decay
        self.clip = clip
        self.clip_threshold = clip_threshold
        self.dropout = dropout
        self.epochs = epochs
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.validation_fraction = validation_fraction
        self.validate_every = validate_every
        self.patience = patience
        self.dtype = dtype
        self.random_state = random_state
        self.num_threads = num_threads
        self.backend = backend
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.diagnostics_every = diagnostics_every
        self.unknown = unknown
        self.newline = newline
        self.verbose = verbose
        self.cell = cell
        self.comm = comm

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Hyper-parameters by name.

        Parameters
        ----------
        deep : bool
            Without effect: no hyper-parameter has parameters of its own.

        Returns
        -------
        dict of str to object

        Examples
        --------
        >>> from fastrnn import CharRNN
        >>> CharRNN(100).get_params()["hidden_size"]
        100
        """
        return {name: getattr(self, name) for name in DEFAULTS}

    def set_params(self, **params: Any) -> Self:
        """Set hyper-parameters; what is fitted stays.

        Those that belong to `model_` (`dropout`, `num_threads`, `backend`) are taken when it is made, by
        `fit` or by `load`.

        Parameters
        ----------
        **params
            Hyper-parameters by name.

        Returns
        -------
        CharRNN
            The object itself.

        Raises
        ------
        ValueError
            If a name is not that of a hyper-parameter; none is set then.

        Examples
        --------
        >>> from fastrnn import CharRNN
        >>> CharRNN().set_params(hidden_size=100, lr=0.01)
        CharRNN(hidden_size=100, lr=0.01)
        """
        for name in params:
            if name not in DEFAULTS:
                raise ValueError(
                    f"{brief(name)} is not a hyper-parameter of CharRNN; they are {', '.join(DEFAULTS)}"
                )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not DEFAULTS[name] and not _equal(value, DEFAULTS[name])
        ]
        return f"CharRNN({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type="density_estimator",
            target_tags=TargetTags(required=False),
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True),
            non_deterministic=self.random_state is None,
            no_validation=True,
        )

    def _check_params(self) -> None:
        """Refuse hyper-parameters of wrong types and values."""
        for name in ("hidden_size", "num_layers", "seq_len", "batch_size"):
            check_size(getattr(self, name), name)
        for name in (
            "epochs", "max_steps", "validate_every", "patience", "num_threads", "checkpoint_every",
            "diagnostics_every",
        ):  # fmt: skip
            if getattr(self, name) is not None:
                check_size(getattr(self, name), name)
        check_choice(self.cell, "cell", CELL_NAMES)
        check_choice(self.optimizer, "optimizer", tuple(OPTIMIZERS))
        check_number(self.lr, "lr", positive=True)
        check_number(self.lr_decay, "lr_decay", positive=True)
        check_choice(self.clip, "clip", ("norm", "value", None))
        check_number(self.clip_threshold, "clip_threshold", positive=True, finite=False)
        if self.max_seconds is not None:
            check_number(self.max_seconds, "max_seconds", positive=True)
        for name in ("dropout", "validation_fraction"):
            if not 0 <= check_number(getattr(self, name), name) < 1:
                raise ValueError(f"{name} must be at least 0 and less than 1, got {getattr(self, name)}")
        check_dtype(self.dtype)
        check_random_state(self.random_state)
        if self.backend is not None:
            backends.load(self.backend)
        if self.checkpoint is not None and not isinstance(self.checkpoint, (str, os.PathLike)):
            raise TypeError(f"checkpoint must be a path or None, got {type(self.checkpoint).__name__}")
        group_of(self.comm)
        check_unknown(self.unknown)
        check_newline(self.newline)
        if not isinstance(self.verbose, (int, np.integer, np.bool_)):
            raise TypeError(f"verbose must be an integer, got {type(self.verbose).__name__}")

    def _own_params(self) -> dict[str, Any]:
        """Hyper-parameters that belong into a file.

        Where it is, who trains it, and a generator that others may use as well, do not.
        """
        params = self.get_params()
        for name in NOT_IN_FILES:
            del params[name]
        if isinstance(params["random_state"], (np.random.Generator, np.random.RandomState)):
            params["random_state"] = None
        return params

    def _as_json(self, name: str) -> Any:
        """A hyper-parameter as JSON has it."""
        value = getattr(self, name)
        return np.dtype(value).name if name == "dtype" else plain(value)


DEFAULTS: dict[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(Settings.__init__).parameters.items()
    if name != "self"
}


def whole(value: Any) -> int | None:
    """An integer of NumPy's, which may be short and which JSON does not know, as Python's."""
    return None if value is None else int(value)


def _equal(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)
