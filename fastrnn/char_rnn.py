"""`CharRNN`: a character-level model that learns a text and writes more of it."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np

from fastrnn import backends
from fastrnn.checks import (
    INDEX,
    OwnsArrays,
    check_choice,
    check_dtype,
    check_number,
    check_size,
    show_integer,
    warn_user,
)
from fastrnn.errors import CheckpointError, TextError, not_fitted
from fastrnn.language_model import LanguageModel
from fastrnn.optim import OPTIMIZERS, Optimizer
from fastrnn.shown import History
from fastrnn.stack import warn_of_dropout
from fastrnn.text.batches import Streams, mean_cross_entropy, perplexity
from fastrnn.text.checkpoint import (
    all_finite,
    check_is_no_text,
    check_writable,
    hold,
    is_finite,
    previous_of,
    read_checkpoint,
    write_checkpoint,
)
from fastrnn.text.reading import IndexedText, index_text, named_file, parts_of
from fastrnn.text.snapshot import Misfit, Snapshot, misfits, pack, plain, unpack
from fastrnn.text.stop_strings import StopStrings, check_stop
from fastrnn.text.training import Limits, Progress, Training
from fastrnn.text.vocabulary import Vocabulary, check_newline, check_unknown

if TYPE_CHECKING:
    from fastrnn.hints import (
        BackendName,
        Clip,
        Dtype,
        HistoryEntry,
        NewLine,
        OptimizerName,
        Path,
        RandomState,
        Several,
        Text,
        Weights,
    )

__all__ = ["CharRNN"]

#: Characters that one call of the kernels samples at most.  The first calls take fewer, 1, 2, 4 ..., so
#: that the first character is there at once.
SAMPLE_CHUNK = 4096

#: Characters of a prompt that are read at a time.
PROMPT_CHUNK = 1024

#: What an untrained start is preceded by: the first of these that the vocabulary has.
STARTS = "\n "

#: Hyper-parameters that the arrays of a model follow, and those that a run follows as well.
_OF_MODEL = ("hidden_size", "num_layers", "dtype", "optimizer")
_OF_RUN = (*_OF_MODEL, "seq_len", "batch_size", "validation_fraction", "newline")


class CharRNN(OwnsArrays):
    r"""Character-level recurrent language model, trained by truncated BPTT, with scikit-learn's conventions.

    The text is cut by position into `batch_size` streams that are read side by side, `seq_len` characters
    a step; the hidden state is carried from step to step and is zero at the start of an epoch.  The last
    `validation_fraction` of the text is held out.

    Parameters
    ----------
    hidden_size : int, default 256
        Hidden size h of each layer.
    num_layers : int, default 1
        Number of layers.
    seq_len : int, default 64
        Characters that one step reads in each stream, which is how far BPTT looks back.
    batch_size : int, default 64
        Parallel streams.  A short text gets fewer, with a warning.
    optimizer : {"adam", "sgd", "momentum", "adagrad", "rmsprop"}, default "adam"
        `fastrnn.optim` with the defaults there; ``"momentum"`` is SGD with momentum 0.9.
    lr : float, default 2e-3
        Learning rate of the first epoch.
    lr_decay : float, default 1.0
        Factor of the learning rate from one epoch to the next.
    clip : {"norm", "value"} or None, default "norm"
        Rescale the gradients by the norm of all of them together (eq. 15), clamp every entry, or neither.
    clip_threshold : float, default 5.0
        The largest norm, or the largest magnitude of an entry, that is left as it is.  Positive.
    dropout : float, default 0.0
        Probability that an output of a layer but the last is dropped, in [0, 1).
    epochs : int or None, default 10
        Passes over the training part.  None goes on until another limit is met.
    max_steps : int or None
        Train for this many steps, whatever `epochs` says.
    max_seconds : float or None
        Most seconds that one call of `fit` trains for; it may end earlier by another limit.
    validation_fraction : float, default 0.1
        Share of the text, in [0, 1), that is held out; 0 means no validation.
    validate_every : int or None
        Steps between validations; None validates after each epoch.  There is one at the end in any case.
        Of a held-out part of more than a million characters, a million spread all over it are scored.
    patience : int or None
        Stop after this many validations in a row without a new best one, and use the best weights.
    dtype : {"float32", "float64"}, default "float32"
        Of the weights and of the arithmetic.
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None
        Seed of the first weights and of dropout.  An int gives the same bits each time, whatever
        `num_threads` is.  A Generator or RandomState is drawn from: it goes on from one call to the next.
    num_threads : int or None
        Most threads that share a batch; None for the cores that the process may run on.
    backend : {"cython", "numba", "numpy"} or None
        None follows `fastrnn.backend`.
    checkpoint : path or None
        File that is kept up to date during training, from which a run can go on with the same bits.  Weights
        that are not finite are never written there.  Only one run at a time may have it.
    checkpoint_every : int or None
        Steps between checkpoints; None writes one about every 30 seconds.  One is written at the end, and
        when Ctrl-C ends the training.
    diagnostics_every : int or None, default 256
        Steps between entries of `history_` with ``diagnostics``, which cost about two and a half steps
        each; None makes none.
    unknown : str or None
        What to do with characters that the model never saw, in a prompt or a text to score: None
        refuses them, ``"skip"`` leaves them out, a character of the text takes their place.
    newline : {"universal"} or None
        ``"universal"`` reads the line ends of Windows and of old Macs, ``\r\n`` and ``\r``, as ``\n``, in
        every text and prompt.  None keeps every character.
    verbose : int, default 1
        1 shows a progress bar on standard error, 0 nothing.

    Attributes
    ----------
    vocabulary_ : Vocabulary
        The characters of the text.
    model_ : LanguageModel
        The network; its inputs and outputs are the class indices of `vocabulary_`.
    history_ : list of dict, which a notebook shows as a table and a curve
        ``step``, ``epoch`` (the first is 1), ``train_nats`` (nats per character) and ``grad_norm`` (before
        clipping), both means since the entry before, ``valid_nats`` (nats per character, None where there
        was no validation), ``lr``, ``chars_per_second``; and every `diagnostics_every` steps ``diagnostics``, what
        `fastrnn.diagnostics.training_summary` says of the batch.
    step_, epoch_ : int
        Steps taken and whole epochs done.
    best_weights_ : dict of str to ndarray, or None
        Those of the best validation.
    best_valid_nats_, best_step_ : float or None, int or None
        That validation, in nats per character, and the step it was made at.
    last_weights_ : dict of str to ndarray
        Those of the last step.
    start_state_ : ndarray, shape (num_layers, 1, h)
        Hidden state that samples, scores and validations begin with: zeros, unless the model predicts its
        own training text much better from the state that it carried there.  That comes of one pass over
        few streams at a high learning rate, as in min-char-rnn, which samples from the carried state too.
    weights_ : {"last", "best"}
        Which of the two `model_` uses; see `use_weights`.

    Raises
    ------
    TypeError, ValueError
        From `fit` and the other methods, if a hyper-parameter is not one of the above.

    Notes
    -----
    An object is used from one thread at a time; different objects may be used at the same time.

    Examples
    --------
    >>> from fastrnn import CharRNN
    >>> model = CharRNN(32, seq_len=16, batch_size=4, lr=0.02, epochs=20, random_state=0, verbose=0)
    >>> _ = model.fit("the cat sat on the mat. " * 50)
    >>> model.generate(12, prompt="the c", temperature=0)
    'at sat on th'
    >>> model.perplexity("the cat sat on the mat. ") < 1.5
    True
    """

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

    vocabulary_: Vocabulary
    model_: LanguageModel
    history_: list[HistoryEntry]
    best_weights_: dict[str, np.ndarray] | None
    weights_: Weights

    _optimizer: Optimizer
    _progress: Progress
    #: Hidden state after the last step.
    _state: np.ndarray
    #: States that a text begins with, under the last and the best weights.
    _starts: dict[str, np.ndarray]
    #: Weights of the last step while `model_` uses the best ones.
    _last_weights: dict[str, np.ndarray] | None
    #: Hyper-parameters that the arrays and the run follow.
    _followed: dict[str, Any]
    #: Of the last call of `fit` or `partial_fit`: the step that `checkpoint` was written after, and whether
    #: it ended with NaN or infinity.
    _kept_step: int | None
    _diverged: bool

    # -- scikit-learn's conventions --------------------------------------------------------------

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
        >>> CharRNN(100).get_params()["hidden_size"]
        100
        """
        return {name: getattr(self, name) for name in _DEFAULTS}

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
        >>> CharRNN().set_params(hidden_size=100, lr=0.01)
        CharRNN(hidden_size=100, lr=0.01)
        """
        for name in params:
            if name not in _DEFAULTS:
                raise ValueError(
                    f"{name!r} is not a hyper-parameter of CharRNN; they are {', '.join(_DEFAULTS)}"
                )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not _DEFAULTS[name] and not _equal(value, _DEFAULTS[name])
        ]
        return f"CharRNN({', '.join(changed)})"

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what a pickle holds, which may be older than some hyper-parameters."""
        super().__setstate__(_DEFAULTS | state)
        if "_followed" in state:
            self._followed = {name: _DEFAULTS[name] for name in _OF_RUN} | state["_followed"]

    def _repr_html_(self) -> str:
        from fastrnn.shown import char_rnn_html

        return char_rnn_html(self)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type="density_estimator",
            target_tags=TargetTags(required=False),
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True),
            non_deterministic=self.random_state is None,
            no_validation=True,
        )

    # -- training --------------------------------------------------------------------------------

    def fit(self, text: Text, y: None = None, *, resume: bool = False) -> Self:
        """Learn a text from the beginning, or go on where training stopped.

        Parameters
        ----------
        text : str, bytes, pathlib.Path, binary file, or sequence of these
            A str is the text itself, and so are bytes of UTF-8; a path names a UTF-8 file; a sequence,
            or a column of a table such as a ``pandas.Series``, is read as one text, end to end.  A byte
            order mark at the start of a file is left out.  Files are never held as strings: the index of
            a long text is a memory-mapped file.
        y : None
            Ignored; there for scikit-learn.
        resume : bool, default False
            Go on with the run that this object holds, from `load`, from an earlier `fit`, or from one
            that was interrupted, up to the limits that its hyper-parameters set now.  The text must be
            the same.  A run that is stopped and resumed ends with the same bits as one that was not.
            (A run that one of its limits ends is validated once more, which counts for the best weights
            and for `patience`.)  Without a `checkpoint`, a warning says that nothing is kept.

        Returns
        -------
        CharRNN
            The object itself.

        Raises
        ------
        TextError
            If the text cannot be read, has fewer than two different characters, or `resume` is asked
            for with another text.
        TypeError, ValueError
            If a hyper-parameter is not what it must be, or `resume` is asked for when there is nothing to
            go on with, or after a hyper-parameter was changed that a run must keep; or if `checkpoint` is
            one of the texts.
        CheckpointError
            If `resume` is asked for, and the weights or the optimizer's state hold NaN or infinity.
        OSError
            If a checkpoint cannot be written, or another run is writing it.  The model is what it was
            before the write, and may be saved elsewhere.

        Warns
        -----
        RuntimeWarning
            If the training diverges: it stops when the loss is no longer a number.  `checkpoint` keeps the
            last state that was finite, and the warning says of which step.
        UserWarning
            If the text is too short for `batch_size` streams, or is a short str that names a file: which
            ``pathlib.Path`` would read.

        Notes
        -----
        Ctrl-C ends the training after the current step: a checkpoint is written if `checkpoint` names
        a file, and KeyboardInterrupt goes on.  The object can be used, and resumed.

        Examples
        --------
        >>> text = "hello world. " * 40
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, random_state=0, verbose=0).fit(text)
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = f"{folder}/hello.safetensors"
        ...     _ = model.set_params(epochs=1, checkpoint=file).fit(text)
        ...     again = CharRNN.load(file, checkpoint=file, epochs=2).fit(text, resume=True)
        >>> _ = model.set_params(epochs=2, checkpoint=None).fit(text)
        >>> bool((again.model_.parameters["weight_hh_l0"] == model.model_.parameters["weight_hh_l0"]).all())
        True
        """
        self._check_params()
        with self._place_held(text):
            self._fit(text, resume=resume)
        return self

    def _fit(self, text: Any, *, resume: bool) -> None:
        if resume:
            self._check_can_resume()
        indexed = self._index(text)
        indices, n = indexed.indices, len(indexed.indices)
        first_held_out = max(n - round(n * float(self.validation_fraction)), 2)
        if self.patience is not None and first_held_out == n:
            raise ValueError(
                f"patience = {self.patience!r} needs a validation, and validation_fraction = "
                f"{self.validation_fraction!r} of {n} characters is none"
            )
        if resume:
            self._check_same_text(n, indexed.sha256)
        check_unknown(self.unknown, indexed.vocabulary)
        if self.checkpoint is not None:
            check_writable(self.checkpoint)
        streams = self._streams(indices[:first_held_out], warn=not resume)
        if resume:
            self._check_fits(streams)
            self._put_into_use("last")
        else:
            self._begin(indexed.vocabulary, Progress("fit", n, indexed.sha256))
        last_step = _int(self.max_steps)
        if last_step is None and self.epochs is not None:
            last_step = int(self.epochs) * streams.steps
        held_out = None if first_held_out == n else (indices, first_held_out)
        self._train(streams, held_out, last_step, resumed=resume)

    def partial_fit(self, text: Text, y: None = None, *, vocabulary: str | None = None) -> Self:
        """Take one pass over a text, with the weights and the optimizer's state as they are.

        For texts that come piece by piece.  The hidden state is zero at the start of each call; nothing
        is held out.

        Parameters
        ----------
        text : str, bytes, pathlib.Path, binary file, or sequence of these
            As for `fit`.
        y : None
            Ignored.
        vocabulary : str or None
            At the first call, every character that will ever come; None takes those of the first text.
            Others are treated as `unknown` says.

        Returns
        -------
        CharRNN
            The object itself.

        Raises
        ------
        TextError, TypeError, ValueError, OSError
            As `fit`.

        Examples
        --------
        >>> model = CharRNN(8, seq_len=4, batch_size=1, verbose=0)
        >>> for piece in ("hello ", "world "):
        ...     _ = model.partial_fit(piece, vocabulary="dehlorw ")
        >>> model.epoch_, len(model.vocabulary_)
        (2, 8)
        """
        self._check_params()
        with self._place_held(text):
            self._partial_fit(text, vocabulary)
        return self

    def _partial_fit(self, text: Any, vocabulary: str | None) -> None:
        known = getattr(self, "vocabulary_", None)
        if vocabulary is not None:
            wanted = Vocabulary(vocabulary)
            if known is not None and wanted != known:
                raise ValueError("vocabulary is not the one that the model was made with")
            known = wanted
        fitted = hasattr(self, "model_")
        if fitted:
            self._check_unchanged(_OF_MODEL)
            self._check_can_go_on(resuming=False)
        try:
            indexed = self._index(text, known)
        except TextError as error:
            if not error.settings:  # it is not about unknown characters
                raise
            raise TextError(
                f"{error.message}; the vocabulary is made by the first call, where vocabulary= names every "
                f"character that will ever come",
                *error.settings,
            ) from None
        n = len(indexed.indices)
        check_unknown(self.unknown, indexed.vocabulary)
        if self.checkpoint is not None:
            check_writable(self.checkpoint)
        streams = self._streams(indexed.indices, warn=True)
        if fitted:
            self._put_into_use("last")
        else:
            self._begin(indexed.vocabulary, Progress("partial_fit"))
        progress = self._progress
        progress.kind, progress.characters, progress.sha256 = "partial_fit", n, indexed.sha256
        progress.epoch_start = progress.step
        progress.rounds_since_best = 0
        self._remember(_OF_RUN)
        self._train(streams, None, progress.step + streams.steps, resumed=fitted)

    def use_weights(self, which: Weights) -> Self:
        """Let `model_` use the weights of the last step or of the best validation.

        Parameters
        ----------
        which : {"last", "best"}
            Those of the last step, or those of the best validation.

        Returns
        -------
        CharRNN
            The object itself.

        Raises
        ------
        ValueError
            If there was no validation.

        Notes
        -----
        After `fit` it is the last, or the best if `patience` is set.

        Examples
        --------
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit("hello world. " * 40)
        >>> model.weights_, model.use_weights("best").weights_
        ('last', 'best')
        """
        self._check_fitted()
        check_choice(which, "which", ("last", "best"))
        if which == "best" and self.best_weights_ is None:
            raise ValueError("there are no best weights: no validation was made")
        self._put_into_use(which)
        return self

    @property
    def last_weights_(self) -> dict[str, np.ndarray]:
        """Weights of the last step, copied."""
        self._check_fitted()
        weights = self.model_.parameters if self._last_weights is None else self._last_weights
        return {name: W.copy() for name, W in weights.items()}

    @property
    def start_state_(self) -> np.ndarray:
        """State that a text begins with, shape (num_layers, 1, h)."""
        self._check_fitted()
        return self._starts[self.weights_].copy()

    @property
    def step_(self) -> int:
        """Steps taken."""
        self._check_fitted()
        return self._progress.step

    @property
    def epoch_(self) -> int:
        """Whole epochs done."""
        self._check_fitted()
        return self._progress.epoch

    @property
    def best_step_(self) -> int | None:
        """Step of the best validation."""
        self._check_fitted()
        return None if self.best_weights_ is None else self._progress.best_step

    @property
    def best_valid_nats_(self) -> float | None:
        """The best validation, in nats per character."""
        self._check_fitted()
        return None if self.best_weights_ is None else self._progress.best_nats

    # -- scoring ---------------------------------------------------------------------------------

    def score(self, text: Text, y: None = None) -> float:
        """Mean log-likelihood per character in nats; higher is better.

        Parameters
        ----------
        text : str, bytes, pathlib.Path, binary file, or sequence of these
            As for `fit`; at least two characters.
        y : None
            Ignored.

        Returns
        -------
        float
            At most 0.

        Raises
        ------
        TextError
            If the text cannot be read, is too short, or holds characters that the model never saw and
            `unknown` does not allow.

        Notes
        -----
        The first character is not predicted.  A text of 16 384 characters or more is scored in parallel
        streams; each of them first reads the 128 characters before its own, which give it its state.

        Examples
        --------
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit("hello world. " * 40)
        >>> model.score("hello world. ") < 0
        True
        """
        self._check_fitted()
        check_unknown(self.unknown)
        indices = self._index(text, self.vocabulary_).indices
        return -mean_cross_entropy(self.model_, indices, start=self.start_state_)

    def bits_per_char(self, text: Text) -> float:
        """Cross-entropy in bits per character, as `score` measures it; lower is better.

        Parameters
        ----------
        text : str, bytes, pathlib.Path, binary file, or sequence of these
            As for `score`.

        Returns
        -------
        float
            At least 0.

        Raises
        ------
        TextError
            As `score`.

        Examples
        --------
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit("hello world. " * 40)
        >>> 0 < model.bits_per_char("hello world. ") < 4
        True
        """
        return -self.score(text) / math.log(2)

    def perplexity(self, text: Text) -> float:
        """Exponential of the cross-entropy that `score` measures, in nats per character; lower is better.

        A model that is as uncertain as if it chose among k equally probable characters has perplexity k.

        Parameters
        ----------
        text : str, bytes, pathlib.Path, binary file, or sequence of these
            As for `score`.

        Returns
        -------
        float
            At least 1; infinity beyond the largest float.

        Raises
        ------
        TextError
            As `score`.

        Examples
        --------
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit("hello world. " * 40)
        >>> 1 < model.perplexity("hello world. ") < 15
        True
        """
        return perplexity(-self.score(text))

    # -- sampling --------------------------------------------------------------------------------

    @overload
    def generate(
        self,
        n: int,
        prompt: str = "",
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_samples: Literal[1] = 1,
        random_state: RandomState = None,
        stop: str | Sequence[str] | None = None,
    ) -> str: ...
    @overload
    def generate(
        self,
        n: int,
        prompt: str = "",
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_samples: Several,
        random_state: RandomState = None,
        stop: str | Sequence[str] | None = None,
    ) -> list[str]: ...
    @overload
    def generate(
        self,
        n: int,
        prompt: str = "",
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_samples: int,
        random_state: RandomState = None,
        stop: str | Sequence[str] | None = None,
    ) -> str | list[str]: ...
    def generate(
        self,
        n: int,
        prompt: str = "",
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_samples: int = 1,
        random_state: RandomState = None,
        stop: str | Sequence[str] | None = None,
    ) -> str | list[str]:
        """Write `n` characters, or up to a string.

        Parameters
        ----------
        n : int
            Characters of each sample, 0 or more.
        prompt : str
            What the model reads first; it is not part of the result.  Without one it begins as after a
            line break if its vocabulary has one, else as after a blank, else as after its first character.
        temperature : float, default 1.0
            At least 0; the logits are divided by it.  Below 1 the model plays safe, above 1 it dares more;
            0 always takes the most probable character.
        top_k : int or None
            Draw from the `top_k` most probable characters only.
        top_p : float or None
            Draw from the most probable characters that make up this probability, in (0, 1].
        num_samples : int, default 1
            Number of samples, all from the same prompt.
        random_state : int, numpy.random.Generator, numpy.random.RandomState or None
            Seed of the draws; a Generator or RandomState is drawn from.
        stop : str, sequence of str, or None
            A sample ends before this string, if it comes to write it; of several strings, before the one
            that is complete first.  The prompt does not count.  The characters before it are the same as
            without `stop`.  One with characters that the model does not know never comes.

        Returns
        -------
        str, or list of str if `num_samples` is more than 1
            Of `n` characters each, or fewer where `stop` ended it.

        Raises
        ------
        TextError
            If `prompt` holds characters that the model never saw and `unknown` does not allow.
        TypeError, ValueError
            If another argument is not one of the above.

        Examples
        --------
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit("hello world. " * 40)
        >>> len(model.generate(20, "hello", random_state=0))
        20
        >>> [len(sample) for sample in model.generate(5, num_samples=3)]
        [5, 5, 5]
        >>> " " in model.generate(100, "hello", random_state=0, stop=" ")
        False
        """
        n = check_size(n, "n", minimum=0)
        num_samples = check_size(num_samples, "num_samples")
        strings = check_stop(stop)
        chunks = self._sampling(n, prompt, num_samples, temperature, top_k, top_p, random_state)
        decode = self.vocabulary_.decode
        if strings:
            samples = _until_stopped(chunks, [StopStrings(strings) for _ in range(num_samples)], decode)
        else:  # at once, which takes a fraction of the time
            indices = [np.empty((num_samples, 0), INDEX), *chunks]
            samples = [decode(row) for row in np.concatenate(indices, axis=1)]
        return samples[0] if num_samples == 1 else samples

    def stream(
        self,
        n: int | None = None,
        prompt: str = "",
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        random_state: RandomState = None,
        stop: str | Sequence[str] | None = None,
    ) -> Iterator[str]:
        """Write characters one by one, the same ones as `generate` with the same seed.

        Parameters
        ----------
        n : int or None
            How many; None never ends.
        prompt, temperature, top_k, top_p, random_state, stop
            As for `generate`.  Characters that `stop` may begin with wait until that is decided.

        Returns
        -------
        iterator of str
            Single characters.  The first is there at once; later ones are made some thousand ahead.

        Raises
        ------
        TextError, TypeError, ValueError
            As `generate`, before the first character.

        Examples
        --------
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit("hello world. " * 40)
        >>> "".join(model.stream(20, random_state=0)) == model.generate(20, random_state=0)
        True
        """
        if n is not None:
            n = check_size(n, "n", minimum=0)
        ending = StopStrings(check_stop(stop))
        chunks = self._sampling(n, prompt, 1, temperature, top_k, top_p, random_state)
        decode = self.vocabulary_.decode  # of the model as it is now, which `fit` may replace
        return itertools.chain.from_iterable(ending.cut(decode(chunk[0]) for chunk in chunks))

    def _sampling(
        self,
        n: int | None,
        prompt: Any,
        num_samples: int,
        temperature: Any,
        top_k: Any,
        top_p: Any,
        random_state: Any,
    ) -> Iterator[np.ndarray]:
        """Class indices, shape (num_samples, ...), chunk by chunk; arguments are checked now."""
        self._check_fitted()
        options = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "rng": _generator(random_state),
        }
        check_unknown(self.unknown)
        check_newline(self.newline)
        if not isinstance(prompt, str):
            raise TypeError(f"prompt must be a str, got {type(prompt).__name__}")
        try:
            read = self.vocabulary_.encode(prompt, self.unknown, self.newline)
        except TextError as error:
            raise TextError(f"prompt: {error.message}", *error.settings) from None
        if not len(read):
            read = self.vocabulary_.encode(
                next((c for c in STARTS if c in self.vocabulary_), self.vocabulary_[0])
            )
        model = self.model_
        h = self.start_state_
        for begin in range(0, len(read) - 1, PROMPT_CHUNK):
            piece = read[begin : min(begin + PROMPT_CHUNK, len(read) - 1)]
            h = model.forward(piece[:, None], h)[1]
        h = np.repeat(h, num_samples, axis=1)
        start = np.full(num_samples, read[-1])
        model.sample(h, start, 0, **options)  # checks the options, before anybody asks for a character
        return self._sample_chunks(model, h, start, n, options)

    @staticmethod
    def _sample_chunks(
        model: LanguageModel, h: np.ndarray, start: np.ndarray, n: int | None, options: dict[str, Any]
    ) -> Iterator[np.ndarray]:
        done, size = 0, 1
        while n is None or done < n:
            size = size if n is None else min(size, n - done)
            indices, h = model.sample(h, start, size, **options)
            start = indices[:, -1].copy()
            yield indices
            done += size
            size = min(2 * size, SAMPLE_CHUNK)

    # -- files -----------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the model to a safetensors file, with all that `fit` needs to go on.

        Parameters
        ----------
        path : str or path
            A file that is there is replaced, and kept as ``<path>.previous``.  The new one gets its
            permissions.

        Raises
        ------
        OSError
            If it cannot be written; what was there is as it was.
        CheckpointError
            If weights, or the optimizer's state, hold NaN or infinity, and `path` is a model that holds
            neither.
        TypeError, ValueError
            If a hyper-parameter is not what it must be.

        Notes
        -----
        Those that the model and its run follow are written as they were at the last `fit`, whatever
        `set_params` has set them to since.

        Examples
        --------
        >>> import tempfile
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit("hello world. " * 40)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/hello.safetensors")
        ...     loaded = CharRNN.load(f"{folder}/hello.safetensors")
        >>> loaded.generate(20, random_state=0) == model.generate(20, random_state=0)
        True
        """
        self._check_fitted()
        self._check_params()
        check_unknown(self.unknown, self.vocabulary_)
        write_checkpoint(path, *pack(self._snapshot(is_checkpoint=False), _DEFAULTS))

    @classmethod
    def load(cls, path: Path, **params: Any) -> Self:
        """Read a model that `save` wrote, or a checkpoint.

        Parameters
        ----------
        path : str or path
            The file.
        **params
            Hyper-parameters to change.  Those that describe the arrays cannot be.

        Returns
        -------
        CharRNN
            Its `checkpoint` is None, so that no training of it, or of a clone, writes to a file before it
            is told to.  ``CharRNN.load(path, checkpoint=path).fit(text, resume=True)`` goes on where the
            run that wrote the file stopped, and keeps the file up to date.

        Raises
        ------
        CheckpointError
            If the file is truncated, altered, of a newer format, or no model; the message says which.
        OSError
            If it cannot be read.
        BackendUnavailable
            If the model asks for a backend that is not there; ``backend=None`` takes another.
        ValueError, TypeError
            If one of `params` is no hyper-parameter or cannot be changed.

        Examples
        --------
        >>> import tempfile
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit("hello world. " * 40)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/hello.safetensors")
        ...     CharRNN.load(f"{folder}/hello.safetensors", lr=0.01)
        CharRNN(hidden_size=8, seq_len=8, batch_size=2, lr=0.01, epochs=2, verbose=0)
        """
        content, arrays = read_checkpoint(path)
        model = cls()
        try:
            snapshot = unpack(content, arrays, _DEFAULTS, params)
            with misfits("hyper-parameters"):
                # The backend is another matter: it may be missing here, and `params` name another.
                model.set_params(**snapshot.params | {"backend": None})._check_params()
            model.backend = snapshot.params["backend"]
            model._remember(_OF_RUN)
            model.set_params(**params)
            model._check_params()
            model._check_unchanged(_OF_MODEL)
            model._restore(snapshot)
        except Misfit as error:
            raise CheckpointError(f"{os.fsdecode(path)!r} is not a model of CharRNN: {error}") from None
        return model

    def _snapshot(self, *, is_checkpoint: bool) -> Snapshot:
        params = {name: plain(value) for name, value in self._own_params().items()}
        # Not what `set_params` has set them to since.
        params |= self._followed | {"dropout": self.model_.dropout}
        return Snapshot(
            params=params,
            vocabulary=self.vocabulary_,
            progress=self._progress,
            history=self.history_,
            last=self.last_weights_,
            best=self.best_weights_,
            weights=self.weights_,
            starts=self._starts,
            optimizer=self._optimizer.state_dict(),
            state=self._state,
            rng=self.model_.rng,
            is_checkpoint=is_checkpoint,
        )

    def _own_params(self) -> dict[str, Any]:
        """Hyper-parameters that belong into a file.

        Where it is, and a generator that others may use as well, do not.
        """
        params = self.get_params()
        del params["checkpoint"]
        if isinstance(params["random_state"], (np.random.Generator, np.random.RandomState)):
            params["random_state"] = None
        return params

    def _restore(self, snapshot: Snapshot) -> None:
        """Make the model that a snapshot was taken of."""
        model = self._make_model(len(snapshot.vocabulary), np.random.default_rng(0))
        optimizer = OPTIMIZERS[self.optimizer](lr=self.lr, backend=self.backend)
        # One that has not made a step has slots without arrays, which no file shows.
        slots = {**{slot: {} for slot in optimizer.state_dict()["state"]}, **snapshot.optimizer["state"]}
        with misfits("the optimizer"):
            optimizer.load_state_dict({**snapshot.optimizer, "state": slots})
        model.load_state_dict(snapshot.last)
        model.rng = snapshot.rng
        self.vocabulary_ = snapshot.vocabulary
        self.history_ = History(snapshot.history)
        self.best_weights_ = snapshot.best
        self.weights_ = "last"
        self._last_weights = None
        self._progress = snapshot.progress
        self._state = snapshot.state
        self._starts = snapshot.starts
        self._optimizer = optimizer
        self.model_ = model
        self._put_into_use(snapshot.weights)

    # -- what the methods share ------------------------------------------------------------------

    def _check_fitted(self) -> None:
        if not hasattr(self, "model_"):
            raise not_fitted("this CharRNN is not fitted yet: call fit, partial_fit or CharRNN.load first")

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
        _check_random_state(self.random_state)
        if self.backend is not None:
            backends.load(self.backend)
        if self.checkpoint is not None and not isinstance(self.checkpoint, (str, os.PathLike)):
            raise TypeError(f"checkpoint must be a path or None, got {type(self.checkpoint).__name__}")
        check_unknown(self.unknown)
        check_newline(self.newline)
        if not isinstance(self.verbose, (int, np.integer, np.bool_)):
            raise TypeError(f"verbose must be an integer, got {type(self.verbose).__name__}")

    def _index(self, text: Any, vocabulary: Vocabulary | None = None) -> IndexedText:
        """Read a text of at least two characters, as the model reads texts."""
        name = named_file(text)
        asked = "" if name is None else f"there is a file of that name: did you mean pathlib.Path({name!r})?"
        try:
            indexed = index_text(
                text,
                vocabulary=vocabulary,
                unknown=None if vocabulary is None else self.unknown,
                newline=self.newline,
            )
            if len(indexed.indices) < 2:
                raise TextError(f"a text of at least two characters is needed, got {len(indexed.indices)}")
        except TextError as error:
            if not asked:
                raise
            raise TextError(f"{error}; {asked}") from None
        if asked:
            warn_user(
                f"the text {'is' if isinstance(text, str) else 'begins with'} the characters {name!r}, and {asked}",
            )
        return indexed

    def _make_model(self, vocab_size: int, rng: np.random.Generator) -> LanguageModel:
        return LanguageModel(
            vocab_size,
            self.hidden_size,
            self.num_layers,
            dropout=self.dropout,
            dtype=self.dtype,
            rng=rng,
            backend=self.backend,
            num_threads=self.num_threads,
        )

    def _begin(self, vocabulary: Vocabulary, progress: Progress) -> None:
        """Make a new model, and forget the one there was."""
        warn_of_dropout(self.dropout, self.num_layers)
        model = self._make_model(len(vocabulary), _generator(self.random_state))
        self._optimizer = OPTIMIZERS[self.optimizer](lr=self.lr, backend=self.backend)
        self.vocabulary_ = vocabulary
        self.history_ = History()
        self.best_weights_ = None
        self.weights_ = "last"
        self._last_weights = None
        self._progress = progress
        self._state = model.initial_state(1)
        self._starts = {which: model.initial_state(1) for which in ("last", "best")}
        self._remember(_OF_RUN)
        self.model_ = model

    def _streams(self, indices: np.ndarray, *, warn: bool) -> Streams:
        """Streams of a text to train on; say if it is too short for those that were asked for."""
        streams = Streams(indices, int(self.seq_len), int(self.batch_size))
        N, T = streams.num_streams, streams.seq_len
        if warn and (self.batch_size, self.seq_len) != (N, T):
            warn_user(
                f"{len(indices)} characters to train on are less than one batch of {self.batch_size} "
                f"streams of {self.seq_len} characters: training on {N} stream{'s' if N > 1 else ''} of {T}",
            )
        return streams

    def _remember(self, names: tuple[str, ...]) -> None:
        """Note hyper-parameters that the arrays follow from now on."""
        self._followed = {name: self._plain(name) for name in names}

    def _plain(self, name: str) -> Any:
        """A hyper-parameter as JSON has it."""
        value = getattr(self, name)
        return np.dtype(value).name if name == "dtype" else plain(value)

    def _check_unchanged(self, names: tuple[str, ...]) -> None:
        for name in names:
            value, before = self._plain(name), self._followed[name]
            if value != before:
                raise ValueError(f"{name} was {before!r} when training began, and cannot be {value!r} now")

    def _check_can_resume(self) -> None:
        self._check_fitted()
        if self._progress.kind != "fit":
            raise ValueError("there is no run to resume: the last call was partial_fit")
        self._check_unchanged(_OF_RUN)
        self._check_can_go_on(resuming=True)
        if self.checkpoint is None:
            warn_user(
                "checkpoint is None: nothing of what follows is kept in a file; "
                "CharRNN.load(path, checkpoint=path), or set_params(checkpoint=path), keeps it",
            )

    def _weights_are_finite(self) -> bool:
        """Whether those of the last step are."""
        weights = self.model_.parameters if self._last_weights is None else self._last_weights
        return all_finite(weights.values())

    def _check_can_go_on(self, *, resuming: bool) -> None:
        """Refuse to train weights, or with an optimizer, from which nothing finite comes any more."""
        # Everything is looked at for a run that is resumed; pieces of a text may be many and short.
        arrays = pack(self._snapshot(is_checkpoint=False), _DEFAULTS)[1] if resuming else {}
        if self._weights_are_finite() and all_finite(arrays.values()):
            return
        message = (
            f"training cannot go on: after step {self.step_} weights or the optimizer's state are NaN or "
            f"infinite, which no lr mends"
        )
        how = "begin anew"
        if self.checkpoint is not None:
            previous = previous_of(self.checkpoint)
            if is_finite(self.checkpoint):
                how = f"{os.fsdecode(self.checkpoint)!r} holds an earlier state: load it, and resume"
            elif is_finite(previous):
                how = (
                    f"{str(previous)!r} holds an earlier state: put it in the place of the other, and resume"
                )
        raise CheckpointError(f"{message}; {how} with a lr of less than {self.lr:g}")

    def _check_same_text(self, n: int, sha256: str) -> None:
        progress = self._progress
        if n != progress.characters:
            mark = ""
            if n < progress.characters and "\ufeff" in self.vocabulary_:
                mark = (
                    "; the other may have begun with a byte order mark, which is now left out of a file, "
                    "but not of a str"
                )
            raise TextError(
                f"this is not the text that training began with: it has {n} characters, that one had "
                f"{progress.characters}{mark}"
            )
        if sha256 != progress.sha256:
            raise TextError(
                f"this is not the text that training began with: its SHA-256 is {sha256}, that of the "
                f"other was {progress.sha256}"
            )

    def _check_fits(self, streams: Streams) -> None:
        """Refuse a progress, which a file may have claimed, that no run over these streams comes to."""
        N, steps = self._progress.num_streams, self._progress.step - self._progress.epoch_start
        if steps > streams.steps or (steps and streams.num_streams != N):
            raise CheckpointError(
                f"the run cannot be resumed: {steps} steps of an epoch over {N} streams do not fit a text "
                f"of {streams.num_streams} streams and {streams.steps} steps"
            )

    def _put_into_use(self, which: Weights) -> None:
        if which == "best" and self.weights_ == "last" and self.best_weights_ is not None:
            self._last_weights = self.model_.state_dict()
            self.model_.load_state_dict(self.best_weights_)
        elif which == "last" and self._last_weights is not None:
            self.model_.load_state_dict(self._last_weights)
            self._last_weights = None
        self.weights_ = which

    @contextlib.contextmanager
    def _place_held(self, text: Any) -> Iterator[None]:
        """Let no other run write `checkpoint`; refuse one that is a text."""
        if self.checkpoint is None:
            yield
            return
        check_is_no_text(self.checkpoint, (part for _, part in parts_of(text)))
        with hold(self.checkpoint):
            yield

    def _train(
        self,
        streams: Streams,
        held_out: tuple[np.ndarray, int] | None,
        last_step: int | None,
        *,
        resumed: bool,
    ) -> None:
        every: int | str | None = _int(self.checkpoint_every) or "timed"
        # As a file keeps them: NumPy's short numbers would give other bits after `load`.
        lr, lr_decay = float(self.lr), float(self.lr_decay)
        training = Training(
            self.model_,
            self._optimizer,
            streams,
            held_out,
            self._progress,
            self._state,
            self.history_,
            learning_rate=lambda epoch: lr * lr_decay**epoch,
            clip=self.clip,
            clip_threshold=self.clip_threshold,
            limits=Limits(
                last_step=last_step,
                max_seconds=self.max_seconds,
                validate_every=_int(self.validate_every) or streams.steps,
                patience=_int(self.patience) if held_out else None,
                checkpoint_every=None if self.checkpoint is None else every,
                diagnostics_every=_int(self.diagnostics_every),
            ),
            on_checkpoint=lambda final: self._take_over(training, final),
            verbose=bool(self.verbose),
        )
        self._kept_step = None
        try:
            training.run()
        finally:
            self._keep(training)
            self._diverged = training.diverged
        self._choose_weights()
        if training.diverged:
            # Last of all: where warnings are errors, everything is as without one.
            warn_user(self._divergence(resumed), RuntimeWarning)

    def _divergence(self, resumed: bool) -> str:
        """What has happened, and how to go on."""
        what = "the weights, the optimizer's state or the loss that they give are no longer finite"
        if not math.isfinite(self.history_[-1]["train_nats"]):
            what = "the loss is no longer a number"
        said = f"{what}: training stopped at step {self.step_}; a smaller lr, or clip='norm', may help"
        if self.checkpoint is None:
            return said
        file = repr(os.fsdecode(self.checkpoint))
        step = self._step_in_file(resumed)
        if step is None:
            return f"{said}; nothing of it was written to {file}"
        call = "fit(text, resume=True)" if self._progress.kind == "fit" else "partial_fit(text)"
        return (
            f"{said}: CharRNN.load({file}, checkpoint={file}, lr=...).{call} goes on after step {step}, the "
            f"last one that was kept"
        )

    def _step_in_file(self, resumed: bool) -> int | None:
        """Step of this run that `checkpoint` holds."""
        if self._kept_step is None and resumed and self.checkpoint is not None:
            with contextlib.suppress(CheckpointError, OSError):
                there = CharRNN.load(self.checkpoint, backend=None)
                # The file may be another run's, whose history went another way.
                before = self.history_[: len(there.history_)]
                if there.step_ <= self.step_ and _way(there.history_) == _way(before):
                    return there.step_
        return self._kept_step

    def _choose_weights(self) -> None:
        """Let the model use those that a run ends with."""
        if self.patience is not None and self.best_weights_ is not None:
            self._put_into_use("best")

    def _keep(self, training: Training) -> None:
        """Take what a training has come to."""
        self._state = training.state.copy()
        if training.best_weights is not None:
            self.best_weights_, self._starts["best"] = training.best_weights, training.best_start

    def _take_over(self, training: Training, final: bool) -> None:
        """Write a checkpoint, if there is to be one and nothing in it has come to NaN or infinity."""
        self._keep(training)
        self._starts["last"] = training.start()
        if final:
            self._choose_weights()
        if self.checkpoint is None:
            training.diverged |= not self._weights_are_finite()
            return
        content, arrays = pack(self._snapshot(is_checkpoint=True), _DEFAULTS)
        training.diverged |= not all_finite(arrays.values())
        if not training.diverged:
            write_checkpoint(self.checkpoint, content, arrays)
            self._kept_step = self.step_


def _way(history: list[HistoryEntry]) -> list[tuple[Any, ...]]:
    """What no two runs have in common."""
    return [(entry["step"], entry["train_nats"], entry["chars_per_second"]) for entry in history]


def _until_stopped(
    chunks: Iterator[np.ndarray], stops: list[StopStrings], decode: Callable[[np.ndarray], str]
) -> list[str]:
    """Samples that come in chunks of class indices, each as far as its `StopStrings` let it go."""
    pieces: list[list[str]] = [[] for _ in stops]
    for chunk in chunks:
        for sample, ending, row in zip(pieces, stops, chunk, strict=True):
            if not ending.found:
                sample.append(ending.take(decode(row)))
        if all(ending.found for ending in stops):
            break
    return ["".join(sample) + ending.rest() for sample, ending in zip(pieces, stops, strict=True)]


_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(CharRNN.__init__).parameters.items()
    if name != "self"
}


def _int(value: Any) -> int | None:
    """An integer of NumPy's, which may be short and which JSON does not know, as Python's."""
    return None if value is None else int(value)


def _equal(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _generator(random_state: Any) -> np.random.Generator:
    _check_random_state(random_state)
    if isinstance(random_state, np.random.RandomState):
        # Over the same stream, so that what is drawn here is not drawn there again.
        return np.random.Generator(random_state._bit_generator)
    return np.random.default_rng(random_state)


def _check_random_state(random_state: Any) -> None:
    if random_state is None or isinstance(random_state, (np.random.Generator, np.random.RandomState)):
        return
    if isinstance(random_state, (bool, np.bool_)) or not isinstance(random_state, (int, np.integer)):
        raise TypeError(
            f"random_state must be an int, a numpy.random.Generator or RandomState, or None, got "
            f"{type(random_state).__name__}"
        )
    if random_state < 0:
        raise ValueError(f"random_state must be at least 0, got {show_integer(int(random_state))}")
