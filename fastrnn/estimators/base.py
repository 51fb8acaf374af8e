"""What both estimators do: check, read, scale, split, train, predict."""

from __future__ import annotations

import hashlib
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data

from fastrnn import backends
from fastrnn.cells import CELL_NAMES
from fastrnn.checks import check_choice, check_dtype, check_flag, check_number, check_size, own_arrays
from fastrnn.errors import briefly, not_fitted
from fastrnn.estimators.fitting import FitEntry, Limits, Problem, looks, train
from fastrnn.estimators.scaling import Scaler
from fastrnn.estimators.sequences import (
    Sequences,
    check_finite,
    check_finite_rows,
    check_table,
    is_list_of_arrays,
    is_table,
    read_sequences,
    read_steps,
)  # fmt: skip
from fastrnn.group import check_same, group_of
from fastrnn.heads import HEADS
from fastrnn.losses import LossName
from fastrnn.optim import OPTIMIZERS
from fastrnn.random_stream import check_random_state, generator
from fastrnn.sequence_model import SequenceModel
from fastrnn.sharing import Shared, being_read

__all__ = ["RNNEstimator"]

#: What scikit-learn notes of a 2-D input when it checks one.
COLUMNS = ("n_features_in_", "feature_names_in_")

#: Hyper-parameters in which the ranks of a training may differ.
OF_RANK = ("random_state", "num_threads", "backend", "comm", "verbose")

#: Sequences that are held out at least: the error of fewer says too little of when to stop.
FEWEST_HELD_OUT = 30


class RNNEstimator(Shared, BaseEstimator):  # type: ignore[misc]
    """What `RNNRegressor` and `RNNClassifier` share."""

    # Beside what is fitted, in no copy and no pickle: `predict` changes nothing that a user sees.
    __slots__ = ("_wide",)

    _wide: tuple[Any, dict[str, np.ndarray], SequenceModel]

    #: What the model is trained for.
    _loss: LossName

    hidden_size: Any
    num_layers: Any
    cell: Any
    bidirectional: Any
    head: Any
    dropout: Any
    optimizer: Any
    lr: Any
    batch_size: Any
    epochs: Any
    max_steps: Any
    max_seconds: Any
    validation_fraction: Any
    patience: Any
    clip: Any
    clip_threshold: Any
    scale: Any
    dtype: Any
    random_state: Any
    num_threads: Any
    backend: Any
    comm: Any = None
    verbose: Any

    model_: SequenceModel
    history_: list[FitEntry]
    n_iter_: int
    best_epoch_: int

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry what is fitted, not who uses it."""
        return self.__dict__.copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(own_arrays(state))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # -- what the two say of themselves ----------------------------------------------------------

    def _encode(self, y: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Targets as classes or as values (n, k), and what is fitted of them."""
        raise NotImplementedError

    def _finish(
        self, targets: np.ndarray, train_on: np.ndarray, dtype: np.dtype, fitted: dict[str, Any]
    ) -> np.ndarray:
        """Targets as a model of this dtype learns them; `train_on` are those rows of them that it learns."""
        raise NotImplementedError

    def _num_outputs(self, targets: np.ndarray, fitted: dict[str, Any]) -> int:
        raise NotImplementedError

    def _weights(self, targets: np.ndarray, fitted: dict[str, Any]) -> np.ndarray | None:
        """How often each target counts."""
        return None

    def _strata(self, targets: np.ndarray) -> np.ndarray | None:
        """Groups of which as many are held out as of all."""
        return None

    def _check_targets(self, y: Any) -> np.ndarray:
        """Targets that scikit-learn has not checked, one for each sequence or step."""
        raise NotImplementedError

    #: Options of scikit-learn's check of X and y.
    _checks: dict[str, Any]

    # -- fit -------------------------------------------------------------------------------------

    def _fit(self, X: Any, y: Any) -> Self:
        columns = {name: self.__dict__[name] for name in COLUMNS if name in self.__dict__}
        try:
            fitted = self._learn(X, y)
        except BaseException:  # an interrupt too leaves what was fitted
            for name in COLUMNS:
                self.__dict__.pop(name, None)
            self.__dict__.update(columns)
            raise
        self.__dict__.update(fitted)
        return self

    def _learn(self, X: Any, y: Any) -> dict[str, Any]:
        """What is fitted; of the object itself only `COLUMNS` are changed, by scikit-learn."""
        group = group_of(self.comm)
        rng = group.of_root(lambda: generator(self.random_state))
        model, problem, train_on, hold_out, fitted = group.together(lambda: self._prepare(X, y, rng))
        if group.size > 1:
            check_same(group, self._same_on_all_ranks(problem))
        optimizer = OPTIMIZERS[self.optimizer](lr=float(self.lr), backend=self.backend)
        trained = train(
            model, optimizer, problem, train_on, hold_out, self._limits(), rng, verbose=bool(self.verbose), comm=self.comm
        )  # fmt: skip
        return fitted | {
            "model_": model, "history_": trained.history, "n_iter_": len(trained.history),
            "best_epoch_": trained.best_epoch,
        }  # fmt: skip

    def _same_on_all_ranks(self, problem: Problem) -> dict[str, Any]:
        params = {name: str(value) for name, value in self.get_params().items() if name not in OF_RANK}
        digest = hashlib.sha256()
        for array in (problem.sequences.flat, problem.sequences.lengths, problem.targets):
            digest.update(np.ascontiguousarray(array).data)
        return {"what is learned": digest.hexdigest(), **params}

    def _prepare(
        self, X: Any, y: Any, rng: np.random.Generator
    ) -> tuple[SequenceModel, Problem, np.ndarray, np.ndarray, dict[str, Any]]:
        """The model, what it learns, the sequences to train on and to hold out, and what is fitted so far."""
        self._check_params()
        sequences, y = self._read(X, y)
        targets, fitted = self._encode(y)
        per_step, n = HEADS[self.head].per_step, len(sequences)
        train_on, hold_out = _split(
            n, float(self.validation_fraction), None if per_step else self._strata(targets), rng
        )
        rows = sequences.steps_of(train_on)
        scaler = Scaler.of(sequences.flat[rows]) if self.scale else Scaler.none(sequences.flat.shape[1])
        learned = rows if per_step else train_on
        dtype = check_dtype(self.dtype)
        scaled = Sequences(scaler.into(sequences.flat, dtype, "X"), sequences.lengths)
        weights = self._weights(targets, fitted)
        targets = self._finish(targets, learned, dtype, fitted)
        problem = Problem(scaled, targets, weights, per_step)
        model = SequenceModel(
            scaled.flat.shape[1], self.hidden_size, self._num_outputs(targets, fitted), self.num_layers, cell=self.cell,
            bidirectional=self.bidirectional, dropout=self.dropout, head=self.head, loss=self._loss, dtype=dtype,
            rng=np.random.default_rng(rng.integers(2**63)), backend=self.backend, num_threads=self.num_threads,
        )  # fmt: skip
        return model, problem, train_on, hold_out, fitted | {"_scaler": scaler, "_table": self._is_table(X)}

    def _read(self, X: Any, y: Any) -> tuple[Sequences, np.ndarray]:
        """Inputs and targets; what is 2-D is checked by scikit-learn, in its words."""
        per_step = HEADS[self.head].per_step
        if self._is_table(X):
            check_table(X)
            if per_step:
                with briefly():
                    sequences = _of_table(validate_data(self, X, dtype=np.float64), X)
                return sequences, self._read_targets(y, sequences)
            with briefly():
                X, y = validate_data(self, X, y, dtype=np.float64, **self._checks)
            return _of_table(X, X), y
        sequences = read_sequences(X)
        for name in COLUMNS:  # of an earlier fit
            self.__dict__.pop(name, None)
        return sequences, self._read_targets(y, sequences)

    def _read_targets(self, y: Any, sequences: Sequences) -> np.ndarray:
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        if HEADS[self.head].per_step:
            targets = self._check_targets(read_steps(y, sequences.lengths))
            check_finite(sequences, targets, "y")
            return targets
        targets = self._check_targets(y)
        if len(targets) != len(sequences):
            raise ValueError(
                f"y must have an entry for each of {len(sequences)} sequences, got {len(targets)}"
            )
        check_finite_rows(targets, "y")
        return targets

    @staticmethod
    def _is_table(X: Any) -> bool:
        """Whether `fit` is given a table: what a list of arrays is does not hang on how long they happen to be."""
        return is_table(X) and not is_list_of_arrays(X)

    def _limits(self) -> Limits:
        return Limits(
            int(self.batch_size), int(self.epochs), None if self.max_steps is None else int(self.max_steps),
            None if self.max_seconds is None else float(self.max_seconds),
            None if self.patience is None else int(self.patience), self.clip, float(self.clip_threshold),
        )  # fmt: skip

    def _check_params(self) -> None:
        """Refuse hyper-parameters of wrong types and values."""
        for name in ("hidden_size", "num_layers", "batch_size", "epochs"):
            check_size(getattr(self, name), name)
        for name in ("max_steps", "patience", "num_threads"):
            if getattr(self, name) is not None:
                check_size(getattr(self, name), name)
        check_choice(self.cell, "cell", CELL_NAMES)
        check_choice(self.head, "head", tuple(HEADS))
        check_choice(self.optimizer, "optimizer", tuple(OPTIMIZERS))
        check_choice(self.clip, "clip", ("norm", "value", None))
        check_flag(self.bidirectional, "bidirectional")
        check_flag(self.scale, "scale")
        check_number(self.lr, "lr", positive=True)
        check_number(self.clip_threshold, "clip_threshold", positive=True, finite=False)
        if self.max_seconds is not None:
            check_number(self.max_seconds, "max_seconds", positive=True)
        for name in ("dropout", "validation_fraction"):
            if not 0 <= check_number(getattr(self, name), name) < 1:
                raise ValueError(f"{name} must be at least 0 and less than 1, got {getattr(self, name)}")
        check_dtype(self.dtype)
        check_random_state(self.random_state)
        group_of(self.comm)
        if self.backend is not None:
            backends.load(self.backend)
        if not isinstance(self.verbose, (int, np.integer, np.bool_)):
            raise TypeError(f"verbose must be an integer, got {type(self.verbose).__name__}")

    # -- predict and score -----------------------------------------------------------------------

    def _predict(self, X: Any) -> tuple[Sequences, np.ndarray]:
        """The inputs, and the model's outputs for each sequence or step, computed in float64."""
        self._check_fitted()
        sequences = self._read_again(X)
        scaled = Sequences(self._scaler.into(sequences.flat, np.dtype(float), "X"), sequences.lengths)
        model = self._wide_model()
        per_step = HEADS[model.head].per_step
        outputs = np.empty((len(scaled.flat) if per_step else len(scaled), model.output_size))
        for batch in looks(scaled, np.arange(len(scaled))):
            rows, lengths = scaled.rows(batch)
            out, _ = model.forward(scaled.flat[rows], lengths=lengths)
            if per_step:
                outputs[rows] = out if lengths is None else _of_ends(out, lengths)
            else:
                outputs[batch] = out
        return sequences, outputs

    def _wide_model(self) -> SequenceModel:
        """The model in float64: made again when its weights are other ones, whoever has changed them."""
        model = self.model_
        with being_read(model, "predict"):
            settings, weights = (model, model._backend, model.num_threads), model.parameters
            made_of, narrow, wide = getattr(self, "_wide", (None, {}, model))
            same = settings == made_of and weights.keys() == narrow.keys()
            if not same or not all(np.array_equal(weights[name], W) for name, W in narrow.items()):
                wide = _in_float64(model)
                self._wide = settings, model.state_dict(), wide
            return wide

    def _check_fitted(self) -> None:
        if "model_" not in self.__dict__:
            raise not_fitted(f"this {type(self).__name__} is not fitted yet: call fit first")

    def _steps_to_score(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray]:
        """Targets and predictions of all steps, one after the other."""
        if sample_weight is not None:
            raise ValueError('sample_weight is not taken with head="each"')
        predicted = list(self.predict(X))
        wanted = read_steps(y, np.array([len(row) for row in predicted]))
        return self._check_targets(wanted), np.concatenate(predicted)

    def _read_again(self, X: Any) -> Sequences:
        if self._table:
            if not is_table(X):
                raise ValueError(
                    f"X must be 2-D, (n, {self.n_features_in_}), as that of fit; give fit X of shape (n, T, 1), or a list "
                    f"of arrays, for sequences of any length"
                )
            check_table(X)
            with briefly():
                return _of_table(validate_data(self, X, reset=False, dtype=np.float64), X)
        d = self.model_.input_size
        if is_table(X) and not isinstance(X, (list, tuple)):
            if d > 1:
                raise ValueError(
                    f"X must have shape (n, T, {d}), or be a list of arrays (T, {d}), got {np.shape(X)}"
                )
            check_table(X)
            with briefly():
                return _of_table(check_array(X, dtype=np.float64, estimator=self, input_name="X"), X)
        sequences = read_sequences(X)
        if sequences.flat.shape[1] != d:
            raise ValueError(f"X must have {d} channels, as that of fit, got {sequences.flat.shape[1]}")
        return sequences


def _of_table(X: np.ndarray, given: Any) -> Sequences:
    n, T = X.shape
    as_list = isinstance(given, (list, tuple))
    return Sequences(np.ascontiguousarray(X).reshape(n * T, 1), np.full(n, T), as_list=as_list)


def _of_ends(out: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Outputs (T, N, k) of which those beyond the end of a sequence are its last."""
    steps = np.minimum(np.arange(len(out))[:, None], lengths - 1)
    ends: np.ndarray = np.take_along_axis(out, steps[:, :, None], axis=0)
    return ends


def _in_float64(model: SequenceModel) -> SequenceModel:
    """The same net in float64: what it says of a sequence does not depend on those beside it to more than rounding."""
    settings: dict[str, Any] = {
        "cell": model.cell, "bidirectional": model.bidirectional, "head": model.head, "loss": model._loss.name,
        "backend": model._backend, "num_threads": model.num_threads,
    }  # fmt: skip
    if model.cell == "rnn":
        settings["nonlinearity"] = model.nonlinearity
    wide = SequenceModel(
        model.input_size, model.hidden_size, model.output_size, model.num_layers, dtype=np.float64, rng=0, **settings
    )  # fmt: skip
    wide.load_state_dict(model.parameters)
    return wide


def _split(
    n: int, fraction: float, strata: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sequences to train on, and to hold out; of each stratum its share, and never all."""
    order = rng.permutation(n)
    count = round(n * fraction)
    if count < FEWEST_HELD_OUT:
        return order, order[:0]
    if count == n:
        raise ValueError(f"validation_fraction = {fraction} of {n} sequences leaves none to train on")
    if strata is None:
        return order[count:], order[:count]
    # Every so-many-th of them, one label after the other: small strata have their share of places too.
    by_stratum = order[np.argsort(strata[order], kind="stable")]
    held = by_stratum[((np.arange(count) + rng.random()) * n / count).astype(int)]
    train_on = order[~np.isin(order, held)]
    missing = ~np.isin(strata[held], strata[train_on])
    back = held[missing][np.unique(strata[held[missing]], return_index=True)[1]]  # one of each is trained on
    hold_out = held[~np.isin(held, back)]
    if len(hold_out) < FEWEST_HELD_OUT:
        return order, order[:0]
    return order[~np.isin(order, hold_out)], hold_out
