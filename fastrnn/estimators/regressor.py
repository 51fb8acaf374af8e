"""`RNNRegressor`: values from sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_array

from fastrnn.errors import briefly
from fastrnn.estimators import snapshot
from fastrnn.estimators.base import RNNEstimator
from fastrnn.estimators.scaling import Scaler
from fastrnn.estimators.sequences import check_finite_rows
from fastrnn.heads import HEADS
from fastrnn.sharing import changing, reading

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.distributed import Communicator
    from fastrnn.hints import BackendName, CellName, Clip, Dtype, HeadName, Path, RandomState, SequencesLike
    from fastrnn.optim import OptimizerName

__all__ = ["RNNRegressor"]


class RNNRegressor(RegressorMixin, RNNEstimator):  # type: ignore[misc]
    r"""Values predicted from sequences by a recurrent network, with scikit-learn's conventions.

    Inputs and values are scaled, a part of the sequences is held out to find the end of the training, and the weights
    of the best epoch are kept.

    Parameters
    ----------
    hidden_size : int, default 64
        Hidden size h of each layer.
    num_layers : int, default 1
        Number of layers.
    cell : {"rnn", "gru", "lstm"}, default "gru"
        What the layers are made of.
    bidirectional : bool, default False
        Run every layer in both directions.
    head : {"last", "mean", "each"}, default "last"
        What is predicted from: the last step of each sequence, the mean over its steps, or each step, with values for
        each.
    dropout : float, default 0.0
        Of the outputs of a layer below the last, in training.
    optimizer : {"sgd", "momentum", "adagrad", "rmsprop", "adam", ...}, default "adam"
        See `fastrnn.optim.OPTIMIZERS`.
    lr : float, default 3e-3
        Learning rate.
    batch_size : int, default 32
        Sequences of a training step.
    epochs : int, default 100
        Passes over the training part at most.
    max_steps : int or None
        Training steps at most.
    max_seconds : float or None
        Seconds of training after which it ends.
    validation_fraction : float, default 0.1
        Share of the sequences that is held out; none where that would be fewer than 30, and training takes
        all `epochs` then.
    patience : int or None, default 10
        Epochs without a better validation after which training ends; None for no such end.
    clip : {"norm", "value"} or None, default "norm"
        Rescale gradients by the norm of all together; clamp every entry; nothing.
    clip_threshold : float, default 1.0
        The largest norm, or magnitude of an entry, that is left as it is.
    scale : bool, default True
        Whether each channel of X and each output of y is brought to mean 0 and standard deviation 1.  A 2-D X is one
        channel.
    dtype : {"float32", "float64"}, default "float32"
        In which the model is trained; predictions are computed in float64.
    random_state : int, numpy.random.RandomState, Generator or None
        Decides on the weights, what is held out and the order of the sequences.
    num_threads : int or None
        Most threads that share a batch.  Results are the same bits on any number.
    backend : {"cython", "numba", "numpy"} or None
        None follows `fastrnn.backend`.
    comm : Communicator or None
        What `fastrnn.distributed.mpi` returns: all ranks call `fit` with all of X and y, each trains a share of every
        batch, and all have the same model in the end.  It is in no file.
    verbose : int, default 0
        Whether progress is shown on standard error.

    Attributes
    ----------
    model_ : SequenceModel
        With the weights of the best epoch.
    history_ : list of dict
        For each epoch ``epoch``, ``step``, ``train_loss``, ``valid_loss`` (None without one), ``lr`` and ``seconds``;
        losses are mean squared errors of scaled values.
    n_iter_ : int
        Epochs that were run.
    best_epoch_ : int
        The epoch whose weights are kept: that of the best validation, or the last.
    n_features_in_ : int
        Columns of X, if that was 2-D.
    feature_names_in_ : ndarray of str
        Their names, if it had names that are strings.

    Raises
    ------
    ValueError, TypeError
        By `fit`, if a parameter is not as above.

    See Also
    --------
    RNNClassifier : Labels from sequences.
    fastrnn.SequenceModel : The net itself.

    Notes
    -----
    Any number of threads may call `predict` and `score` at once; `fit` has the estimator to itself.

    Examples
    --------
    The mean of the last five of 20 values:

    >>> import numpy as np
    >>> from fastrnn import RNNRegressor
    >>> X = np.random.default_rng(0).normal(size=(300, 20))
    >>> model = RNNRegressor(16, epochs=60, lr=0.01, random_state=0).fit(X[:250], X[:250, -5:].mean(axis=1))
    >>> model.score(X[250:], X[250:, -5:].mean(axis=1)) > 0.9
    True
    """

    _loss = "mse"
    _checks = {"multi_output": True, "y_numeric": True}  # noqa: RUF012

    def __init__(
        self,
        hidden_size: int = 64,
        num_layers: int = 1,
        *,
        cell: CellName = "gru",
        bidirectional: bool = False,
        head: HeadName = "last",
        dropout: float = 0.0,
        optimizer: OptimizerName = "adam",
        lr: float = 3e-3,
        batch_size: int = 32,
        epochs: int = 100,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        validation_fraction: float = 0.1,
        patience: int | None = 10,
        clip: Clip | None = "norm",
        clip_threshold: float = 1.0,
        scale: bool = True,
        dtype: Dtype = "float32",
        random_state: RandomState = None,
        num_threads: int | None = None,
        backend: BackendName | None = None,
        comm: Communicator | None = None,
        verbose: int = 0,
    ) -> None:
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.cell = cell
        self.bidirectional = bidirectional
        self.head = head
        self.dropout = dropout
        self.optimizer = optimizer
        self.lr = lr
        self.batch_size = batch_size
        self.epochs = epochs
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.clip = clip
        self.clip_threshold = clip_threshold
        self.scale = scale
        self.dtype = dtype
        self.random_state = random_state
        self.num_threads = num_threads
        self.backend = backend
        self.comm = comm
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @changing
    def fit(self, X: SequencesLike, y: SequencesLike) -> Self:
        """Learn from sequences.

        Parameters
        ----------
        X : array, shape (n, T, d) or (n, T), or list of n arrays (T_i, d) or (T_i,)
            n sequences of T steps of d channels; without the last axis of one channel.  A DataFrame is (n, T).
        y : array, shape (n,) or (n, k)
            Values of each sequence.  With ``head="each"`` of each step: (n, T), (n, T, k), or a list of arrays
            (T_i,) or (T_i, k).

        Returns
        -------
        RNNRegressor
            The object itself.

        Raises
        ------
        ValueError, TypeError
            If X, y or a hyper-parameter is not as above; what was fitted stays.

        Examples
        --------
        >>> X = [np.ones((3, 2)), np.zeros((5, 2)), np.ones((4, 2))]
        >>> RNNRegressor(8, epochs=1, random_state=0).fit(X, [1.0, 0.0, 1.0]).n_iter_
        1
        """
        self._fit(X, y)
        return self

    @reading
    def predict(self, X: SequencesLike) -> Any:
        """Values of sequences.

        Parameters
        ----------
        X : array or list
            As for `fit`; sequences of any length, but for 2-D input, which has as many columns as that of `fit`.

        Returns
        -------
        ndarray of float64, shape (n,) or (n, k)
            As `y` was.  With ``head="each"`` of each step, (n, T) or (n, T, k), or a list of arrays for a list.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError, TypeError
            If X is not as above.

        Examples
        --------
        >>> model = RNNRegressor(8, head="each", epochs=1, random_state=0).fit(np.ones((3, 5, 2)), np.ones((3, 5)))
        >>> model.predict(np.ones((2, 7, 2))).shape
        (2, 7)
        """
        sequences, outputs = self._predict(X)
        values = self._y_scaler.back(outputs)
        if self._one_value:
            values = values[:, 0]
        return sequences.by_sequence(values) if HEADS[self.model_.head].per_step else values

    def score(self, X: SequencesLike, y: SequencesLike, sample_weight: ArrayLike | None = None) -> float:
        """Coefficient of determination R² of what is predicted, over all steps with ``head="each"``.

        Parameters
        ----------
        X, y
            As for `fit`.
        sample_weight : array, shape (n,), or None
            How often each sequence counts; not with ``head="each"``.

        Returns
        -------
        float
            1 at best.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError, TypeError
            If X or y is not as for `fit`, or `sample_weight` comes with ``head="each"``.

        Examples
        --------
        >>> X = np.random.default_rng(0).normal(size=(40, 6))
        >>> model = RNNRegressor(8, epochs=2, random_state=0).fit(X, X.sum(axis=1))
        >>> model.score(X, X.sum(axis=1)) <= 1
        True
        """
        self._check_fitted()
        if not HEADS[self.model_.head].per_step:
            return float(super().score(X, y, sample_weight))
        return float(r2_score(*self._steps_to_score(X, y, sample_weight)))

    def save(self, path: Path) -> None:
        """Write the fitted estimator to a safetensors file, with its hyper-parameters.

        Parameters
        ----------
        path : str or path
            A file that is there is replaced, and kept as ``<path>.previous``.

        Raises
        ------
        NotFittedError
            Before `fit`.
        OSError
            If it cannot be written; what was there is as it was.
        CheckpointError
            If weights hold NaN or infinity, and `path` is a model that holds neither.

        Examples
        --------
        >>> import tempfile
        >>> X = np.random.default_rng(0).normal(size=(30, 6))
        >>> model = RNNRegressor(8, epochs=2, random_state=0).fit(X, X.sum(axis=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/sum.safetensors")
        ...     again = RNNRegressor.load(f"{folder}/sum.safetensors")
        >>> bool((again.predict(X) == model.predict(X)).all())
        True
        """
        snapshot.save(self, path)

    @classmethod
    def load(cls, path: Path, **params: Any) -> Self:
        """Read an estimator that `save` wrote.

        Parameters
        ----------
        path : str or path
        **params
            Hyper-parameters to change, for a later `fit`; `backend` and `num_threads` count at once.

        Returns
        -------
        RNNRegressor

        Raises
        ------
        CheckpointError
            If the file is truncated, altered, of a newer format, or of something else; the message says which.
        OSError
            If it cannot be read.
        ValueError, TypeError
            If one of `params` is no hyper-parameter or has a wrong value.
        BackendUnavailable
            If it asks for a backend that is not there; ``backend=None`` takes another.

        Examples
        --------
        >>> import tempfile
        >>> model = RNNRegressor(8, epochs=2, random_state=0).fit([[1, 2], [3, 1]] * 5, [3, 2] * 5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.safetensors")
        ...     RNNRegressor.load(f"{folder}/model.safetensors", epochs=50)
        RNNRegressor(epochs=50, hidden_size=8, random_state=0)
        """
        return snapshot.load(cls, path, params)

    # -- targets ---------------------------------------------------------------------------------

    def _check_targets(self, y: Any) -> np.ndarray:
        with briefly():
            values: np.ndarray = check_array(
                y, ensure_2d=False, ensure_all_finite=False, dtype=np.float64, input_name="y", estimator=self
            )
        return values

    def _encode(self, y: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        with briefly():
            values = np.asarray(y, np.float64)
        check_finite_rows(values, "y")  # scikit-learn lets None pass
        one = values.ndim == 1
        return values[:, None] if one else values, {"_one_value": one}

    def _finish(
        self, targets: np.ndarray, train_on: np.ndarray, dtype: np.dtype, fitted: dict[str, Any]
    ) -> np.ndarray:
        scaler = Scaler.of(targets[train_on]) if self.scale else Scaler.none(targets.shape[1])
        fitted["_y_scaler"] = scaler
        return scaler.into(targets, dtype, "y")

    def _num_outputs(self, targets: np.ndarray, fitted: dict[str, Any]) -> int:
        return int(targets.shape[1])
