"""`RNNClassifier`: labels from sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from fastrnn import functional
from fastrnn.checks import check_dtype, check_number, describe
from fastrnn.errors import brief, briefly
from fastrnn.estimators import snapshot
from fastrnn.estimators.base import RNNEstimator
from fastrnn.heads import HEADS
from fastrnn.sharing import changing, reading

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.distributed import Communicator
    from fastrnn.hints import BackendName, CellName, Clip, Dtype, HeadName, Path, RandomState, SequencesLike
    from fastrnn.optim import OptimizerName

__all__ = ["RNNClassifier"]


class RNNClassifier(ClassifierMixin, RNNEstimator):  # type: ignore[misc]
    r"""Labels predicted from sequences by a recurrent network, with scikit-learn's conventions.

    Inputs are scaled, a part of the sequences is held out to find the end of the training, and the weights of the best
    epoch are kept.

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
        What is predicted from: the last step of each sequence, the mean over its steps, or each step, with a label for
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
        Share of the sequences that is held out, of each label alike; none where that would be fewer than 30, and training takes
        all `epochs` then.
    patience : int or None, default 10
        Epochs without a better validation after which training ends; None for no such end.
    clip : {"norm", "value"} or None, default "norm"
        Rescale gradients by the norm of all together; clamp every entry; nothing.
    clip_threshold : float, default 1.0
        The largest norm, or magnitude of an entry, that is left as it is.
    scale : bool, default True
        Whether each channel of X is brought to mean 0 and standard deviation 1.  A 2-D X is one channel.
    class_weight : dict, "balanced" or None
        How often each label counts, in training and in the choice of the best epoch; ``"balanced"`` lets all labels
        count alike; None counts each sequence once.  Labels that a dict leaves out count once; as in scikit-learn, it
        may not leave some out and name others that are not in y.
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
    classes_ : ndarray, shape (q,)
        The labels, sorted.
    history_ : list of dict
        For each epoch ``epoch``, ``step``, ``train_loss``, ``valid_loss`` (None without one), ``lr`` and ``seconds``;
        losses are cross-entropies in nats.
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
    RNNRegressor : Values from sequences.
    fastrnn.SequenceModel : The net itself.

    Notes
    -----
    Any number of threads may call `predict`, `predict_proba` and `score` at once; `fit` has the estimator to itself.

    Examples
    --------
    Does it go up or down?

    >>> import numpy as np
    >>> from fastrnn import RNNClassifier
    >>> rng = np.random.default_rng(0)
    >>> slope = rng.choice([-1, 1], 200)
    >>> X = slope[:, None] * np.linspace(0, 1, 12) + rng.normal(size=(200, 12))
    >>> y = np.where(slope > 0, "up", "down")
    >>> model = RNNClassifier(16, epochs=30, random_state=0).fit(X[:150], y[:150])
    >>> model.classes_, model.score(X[150:], y[150:]) > 0.75
    (array(['down', 'up'], dtype='<U4'), True)
    """

    _loss = "cross_entropy"
    _checks = {}  # noqa: RUF012

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
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
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
        self.class_weight = class_weight
        self.dtype = dtype
        self.random_state = random_state
        self.num_threads = num_threads
        self.backend = backend
        self.comm = comm
        self.verbose = verbose

    @changing
    def fit(self, X: SequencesLike, y: SequencesLike) -> Self:
        """Learn from sequences.

        Parameters
        ----------
        X : array, shape (n, T, d) or (n, T), or list of n arrays (T_i, d) or (T_i,)
            n sequences of T steps of d channels; without the last axis of one channel.  A DataFrame is (n, T).
        y : array, shape (n,)
            Label of each sequence: integers, strings, or what else scikit-learn takes.  With ``head="each"`` of each
            step: (n, T), or a list of arrays (T_i,).

        Returns
        -------
        RNNClassifier
            The object itself.

        Raises
        ------
        ValueError, TypeError
            If X, y or a hyper-parameter is not as above; what was fitted stays.

        Examples
        --------
        >>> X = [np.ones((3, 2)), np.zeros((5, 2)), np.ones((4, 2))]
        >>> RNNClassifier(8, epochs=1, random_state=0).fit(X, ["a", "b", "a"]).classes_
        array(['a', 'b'], dtype='<U1')
        """
        self._fit(X, y)
        return self

    @reading
    def predict_proba(self, X: SequencesLike) -> Any:
        """Probabilities of the labels.

        Parameters
        ----------
        X : array or list
            As for `fit`; sequences of any length, but for 2-D input, which has as many columns as that of `fit`.

        Returns
        -------
        ndarray of float64, shape (n, q)
            In the order of `classes_`.  With ``head="each"`` of each step, (n, T, q), or a list of arrays for a list.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError, TypeError
            If X is not as above.

        Examples
        --------
        >>> model = RNNClassifier(8, epochs=1, random_state=0).fit(np.ones((3, 5)), [0, 1, 0])
        >>> model.predict_proba(np.ones((2, 5))).sum(axis=1).round(6)
        array([1., 1.])
        """
        sequences, logits = self._predict(X)
        p = functional.softmax(logits)
        return sequences.by_sequence(p) if HEADS[self.model_.head].per_step else p

    @reading
    def predict(self, X: SequencesLike) -> Any:
        """The most probable label of each sequence.

        Parameters
        ----------
        X : array or list
            As for `predict_proba`.

        Returns
        -------
        ndarray, shape (n,)
            Of `classes_`.  With ``head="each"`` of each step, (n, T), or a list of arrays for a list.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError, TypeError
            If X is not as for `predict_proba`.

        Examples
        --------
        >>> model = RNNClassifier(8, head="each", epochs=1, random_state=0)
        >>> pieces = model.fit([[0.5, 1, 2], [3, 1]], [[0, 1, 1], [1, 0]]).predict([[1, 2], [1, 2, 3]])
        >>> [len(piece) for piece in pieces]
        [2, 3]
        """
        sequences, logits = self._predict(X)
        labels = self.classes_[logits.argmax(axis=1)]
        return sequences.by_sequence(labels) if HEADS[self.model_.head].per_step else labels

    def score(self, X: SequencesLike, y: SequencesLike, sample_weight: ArrayLike | None = None) -> float:
        """Share of labels that are right, over all steps with ``head="each"``.

        Parameters
        ----------
        X, y
            As for `fit`.
        sample_weight : array, shape (n,), or None
            How often each sequence counts; not with ``head="each"``.

        Returns
        -------
        float
            From 0 to 1.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError, TypeError
            If X or y is not as for `fit`, or `sample_weight` comes with ``head="each"``.

        Examples
        --------
        >>> model = RNNClassifier(8, epochs=1, random_state=0).fit(np.ones((3, 5)), [0, 0, 0])
        >>> model.score(np.ones((2, 5)), [0, 0])
        1.0
        """
        self._check_fitted()
        if not HEADS[self.model_.head].per_step:
            return float(super().score(X, y, sample_weight))
        return float(accuracy_score(*self._steps_to_score(X, y, sample_weight)))

    def save(self, path: Path) -> None:
        """Write the fitted estimator to a safetensors file, with its hyper-parameters and labels.

        Parameters
        ----------
        path : str or path
            A file that is there is replaced, and kept as ``<path>.previous``.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError
            If labels, or weights of classes, are nothing that JSON can hold.
        OSError
            If it cannot be written; what was there is as it was.
        CheckpointError
            If weights hold NaN or infinity, and `path` is a model that holds neither.

        Examples
        --------
        >>> import tempfile
        >>> X = np.random.default_rng(0).normal(size=(30, 6))
        >>> model = RNNClassifier(8, epochs=2, random_state=0).fit(X, X.sum(axis=1) > 0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/sign.safetensors")
        ...     again = RNNClassifier.load(f"{folder}/sign.safetensors")
        >>> bool((again.predict(X) == model.predict(X)).all()), again.classes_
        (True, array([False,  True]))
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
        RNNClassifier

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
        >>> model = RNNClassifier(8, epochs=2, random_state=0).fit([[1, 2], [3, 1]] * 5, ["up", "down"] * 5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.safetensors")
        ...     RNNClassifier.load(f"{folder}/model.safetensors", epochs=50)
        RNNClassifier(epochs=50, hidden_size=8, random_state=0)
        """
        return snapshot.load(cls, path, params)

    # -- targets ---------------------------------------------------------------------------------

    def _check_targets(self, y: Any) -> np.ndarray:
        warn = not HEADS[self.head].per_step  # its words are of y (n, 1)
        with briefly():
            labels: np.ndarray = column_or_1d(y, warn=warn)
        return labels

    def _encode(self, y: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        with briefly():
            check_classification_targets(y)
        classes, targets = np.unique(y, return_inverse=True)
        return targets.reshape(-1).astype(np.int64), {"classes_": classes}

    def _finish(
        self, targets: np.ndarray, train_on: np.ndarray, dtype: np.dtype, fitted: dict[str, Any]
    ) -> np.ndarray:
        return targets

    def _num_outputs(self, targets: np.ndarray, fitted: dict[str, Any]) -> int:
        return len(fitted["classes_"])

    def _strata(self, targets: np.ndarray) -> np.ndarray | None:
        return targets

    def _weights(self, targets: np.ndarray, fitted: dict[str, Any]) -> np.ndarray | None:
        if self.class_weight is None:
            return None
        classes = fitted["classes_"]
        with briefly():
            each = compute_class_weight(self.class_weight, classes=classes, y=classes[targets])
        dtype = check_dtype(self.dtype)
        with np.errstate(over="ignore"):
            rounded = np.asarray(each, np.float64).astype(dtype)
        for label, weight, kept in zip(classes.tolist(), each, rounded, strict=True):
            if not np.isfinite(kept) or (weight and not kept):
                raise ValueError(
                    f"class_weight must hold numbers of {dtype}, got {weight} for the label {brief(label)}"
                )
        if not rounded.any():
            raise ValueError(
                f"class_weight must not be 0 for every label of y, got {brief(self.class_weight)}"
            )
        weights: np.ndarray = rounded[targets]
        return weights

    def _check_params(self) -> None:
        super()._check_params()
        given = self.class_weight
        if isinstance(given, Mapping):
            for label, weight in given.items():
                if check_number(weight, f"class_weight[{brief(label)}]") < 0:
                    raise ValueError(f"class_weight[{brief(label)}] must be at least 0, got {weight}")
        elif given is not None and not (isinstance(given, str) and given == "balanced"):
            raise ValueError(f"class_weight must be a dict, 'balanced' or None, got {describe(given)}")
