"""`CharRNN`: a character-level model that learns a text and writes more of it."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastrnn.checkpoint import (
    all_finite,
    check_is_no_text,
    check_writable,
    only_writer,
    read_checkpoint,
    write_checkpoint,
)
from fastrnn.checks import check_choice, own_arrays, warn_user
from fastrnn.contents import fitting, misfits, plain
from fastrnn.errors import CheckpointError, TextError, not_fitted
from fastrnn.group import check_same, group_of
from fastrnn.language_model import LanguageModel
from fastrnn.optim import OPTIMIZERS, Optimizer
from fastrnn.random_stream import generator
from fastrnn.sharing import being_read, changed, changing, reading
from fastrnn.stack import warn_of_dropout
from fastrnn.text.batches import Streams, cut_text
from fastrnn.text.html import char_rnn_html
from fastrnn.text.reading import parts_of, read_indexed
from fastrnn.text.resuming import (
    check_can_go_on,
    check_fits,
    check_same_text,
    check_unchanged,
    divergence,
    same_way,
)
from fastrnn.text.sampling import Sampling
from fastrnn.text.scoring import Scoring
from fastrnn.text.settings import DEFAULTS, OF_MODEL, OF_RANK, OF_RUN, Settings, whole
from fastrnn.text.snapshot import Progress, Run, pack, run_of_attributes, unpack
from fastrnn.text.training import Limits, Training
from fastrnn.text.vocabulary import Vocabulary, check_unknown

if TYPE_CHECKING:
    from fastrnn.hints import HistoryEntry, Path, Text, Weights

__all__ = ["CharRNN"]


@dataclasses.dataclass
class _Ready:
    """What a training begins with."""

    run: Run
    streams: Streams
    held_out: tuple[np.ndarray, int] | None
    last_step: int | None
    _: dataclasses.KW_ONLY
    resumed: bool
    #: SHA-256 of the text.
    text: str
    #: What changes the run, just before it is trained.
    begin: Callable[[], object] = lambda: None


def _without_warnings(function: Callable[[], _Ready]) -> _Ready:
    """Call a function on a rank that has nothing to say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return function()


class CharRNN(Settings, Scoring, Sampling):
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
    optimizer : str, default "adam"
        A key of `fastrnn.optim.OPTIMIZERS`, such as ``"adam"`` or ``"sgd"``, with the defaults there;
        ``"momentum"`` is SGD with momentum 0.9.
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
    cell : {"rnn", "gru", "lstm"}, default "rnn"
        What the layers are made of: the vanilla cell, or one with gates, which remembers for longer.
    comm : Communicator or None
        What `fastrnn.distributed.mpi` returns: all ranks call `fit`, each trains a share of the streams, and all have
        the same model in the end.  Rank 0 has the clock, writes `checkpoint`, warns and shows the progress.

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
    start_state_ : ndarray, shape (num_layers, 1, h), or of an LSTM the pair (h, c) of two
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
    Any number of threads may read one model at once (`generate`, `score`, `save` ...).  `fit`, `partial_fit`
    and `use_weights` have it, and `model_`, to themselves for their whole run: a RuntimeError refuses the
    thread that comes later.

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

    #: What is fitted; not there before.
    _run: Run
    #: Of the last call of `fit` or `partial_fit`: the step that `checkpoint` was written after, and whether
    #: it ended with NaN or infinity.
    _kept_step: int | None
    _diverged: bool

    def __getstate__(self) -> dict[str, Any]:
        return vars(self).copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what a pickle holds, which may be older than some hyper-parameters."""
        state = run_of_attributes(own_arrays(DEFAULTS | state))
        if "_run" in state:
            state["_run"].followed = {name: DEFAULTS[name] for name in OF_RUN} | state["_run"].followed
        vars(self).update(state)

    def _repr_html_(self) -> str:
        return char_rnn_html(repr(self), getattr(self, "_run", None))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_run")

    # -- training --------------------------------------------------------------------------------

    @changing
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
            and for `patience`.)  One that is over is written to `checkpoint` where that is not the file that
            holds it.  Without a `checkpoint`, a warning says that nothing is kept.

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
        self._train_on(text, "fit", lambda: self._ready_to_fit(text, resume=resume))
        return self

    def _ready_to_fit(self, text: Any, *, resume: bool) -> _Ready:
        if resume:
            self._check_can_resume()
        indexed = read_indexed(text, self.newline)
        indices, n = indexed.indices, len(indexed.indices)
        first_held_out = max(n - round(n * float(self.validation_fraction)), 2)
        if self.patience is not None and first_held_out == n:
            raise ValueError(
                f"patience = {self.patience!r} needs a validation, and validation_fraction = "
                f"{self.validation_fraction!r} of {n} characters is none"
            )
        if resume:
            check_same_text(self._run, n, indexed.sha256)
        check_unknown(self.unknown, indexed.vocabulary)
        self._check_writable()
        streams = cut_text(
            indices[:first_held_out],
            self.seq_len,
            self.batch_size,
            warn=not resume,
            group=group_of(self.comm),
        )
        if resume:
            run = self._run
            check_fits(run, streams)
        else:
            run = self._new_run(indexed.vocabulary, Progress("fit", n, indexed.sha256))
        last_step = whole(self.max_steps)
        if last_step is None and self.epochs is not None:
            last_step = int(self.epochs) * streams.steps
        held_out = None if first_held_out == n else (indices, first_held_out)
        return _Ready(run, streams, held_out, last_step, resumed=resume, text=indexed.sha256)

    @changing
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
        self._train_on(text, "partial_fit", lambda: self._ready_to_go_on(text, vocabulary))
        return self

    def _ready_to_go_on(self, text: Any, vocabulary: str | None) -> _Ready:
        run = getattr(self, "_run", None)
        known = None if run is None else run.vocabulary
        if vocabulary is not None:
            wanted = Vocabulary(vocabulary)
            if known is not None and wanted != known:
                raise ValueError("vocabulary is not the one that the model was made with")
            known = wanted
        if run is not None:
            check_unchanged(OF_MODEL, run.followed, self._as_json)
            check_can_go_on(run, (), self.checkpoint, self.lr)
        try:
            indexed = read_indexed(text, self.newline, known, self.unknown)
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
        self._check_writable()
        streams = cut_text(
            indexed.indices, self.seq_len, self.batch_size, warn=True, group=group_of(self.comm)
        )
        resumed = run is not None
        if run is None:
            run = self._new_run(indexed.vocabulary, Progress("partial_fit"))

        def begin() -> None:
            progress = run.progress
            progress.kind, progress.characters, progress.sha256 = "partial_fit", n, indexed.sha256
            progress.epoch_start = progress.step
            progress.rounds_since_best = 0
            run.followed = self._to_follow()

        last_step = run.progress.step + streams.steps
        return _Ready(run, streams, None, last_step, resumed=resumed, text=indexed.sha256, begin=begin)

    # -- what is fitted --------------------------------------------------------------------------

    def _fitted_run(self) -> Run:
        try:
            return self._run
        except AttributeError:
            raise not_fitted(
                "this CharRNN is not fitted yet: call fit, partial_fit or CharRNN.load first"
            ) from None

    @property
    def vocabulary_(self) -> Vocabulary:
        """The characters that it knows."""
        return self._fitted_run().vocabulary

    @property
    def model_(self) -> LanguageModel:
        """The `LanguageModel`, with the weights that are in use."""
        return self._fitted_run().model

    @property
    def history_(self) -> list[HistoryEntry]:
        """What was noted while it was trained."""
        return self._fitted_run().history

    @property
    def weights_(self) -> Weights:
        """``"last"`` or ``"best"``: the weights that are in use."""
        return self._fitted_run().weights

    @property
    def best_weights_(self) -> dict[str, np.ndarray] | None:
        """Weights of the best validation."""
        return self._fitted_run().best

    @property
    @reading
    def last_weights_(self) -> dict[str, np.ndarray]:
        """Weights of the last step, copied."""
        run = self._fitted_run()
        with being_read(run.model, "last_weights_"):
            return {name: W.copy() for name, W in run.last.items()}

    @property
    def start_state_(self) -> Any:
        """State that a text begins with, shape (num_layers, 1, h)."""
        return self._fitted_run().start

    @property
    def step_(self) -> int:
        """Steps taken."""
        return self._fitted_run().progress.step

    @property
    def epoch_(self) -> int:
        """Whole epochs done."""
        return self._fitted_run().progress.epoch

    @property
    def best_step_(self) -> int | None:
        """Step of the best validation."""
        run = self._fitted_run()
        return None if run.best is None else run.progress.best_step

    @property
    def best_valid_nats_(self) -> float | None:
        """The best validation, in nats per character."""
        run = self._fitted_run()
        return None if run.best is None else run.progress.best_nats

    @changing
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
        run = self._fitted_run()
        check_choice(which, "which", ("last", "best"))
        if which == "best" and run.best is None:
            raise ValueError("there are no best weights: no validation was made")
        with changed(run.model, "use_weights"):
            run.use(which)
        return self

    # -- files -----------------------------------------------------------------------------------

    @reading
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
        run = self._fitted_run()
        self._check_params()
        check_unknown(self.unknown, run.vocabulary)
        with being_read(run.model, "save"):
            write_checkpoint(path, *pack(run, self._own_params(), DEFAULTS))

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
            If the file is truncated, altered, of a newer format, or no model of this class; the message says which.
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

        def make(kept: dict[str, Any], vocab_size: int) -> tuple[LanguageModel, Optimizer, dict[str, Any]]:
            with misfits("hyper-parameters"):
                # The backend is another matter: it may be missing here, and `params` name another.
                model.set_params(**kept | {"backend": None})._check_params()
            model.backend = kept["backend"]
            followed = model._to_follow()
            model.set_params(**params)
            model._check_params()
            check_unchanged(OF_MODEL, followed, model._as_json)
            return *model._new_model(vocab_size, np.random.default_rng(0)), followed

        with fitting(path, "CharRNN"):
            model._run = unpack(content, arrays, DEFAULTS, make, params)
        model._run.note_written(path)
        return model

    # -- a new run, and one that goes on ---------------------------------------------------------

    def _new_model(self, vocab_size: int, rng: np.random.Generator) -> tuple[LanguageModel, Optimizer]:
        model = LanguageModel(
            vocab_size,
            self.hidden_size,
            self.num_layers,
            cell=self.cell,
            dropout=self.dropout,
            dtype=self.dtype,
            rng=rng,
            backend=self.backend,
            num_threads=self.num_threads,
        )
        return model, OPTIMIZERS[self.optimizer](lr=self.lr, backend=self.backend)

    def _new_run(self, vocabulary: Vocabulary, progress: Progress) -> Run:
        warn_of_dropout(self.dropout, self.num_layers)
        model, optimizer = self._new_model(len(vocabulary), generator(self.random_state))
        starts = {which: model.initial_state(1) for which in ("last", "best")}
        return Run(model, optimizer, vocabulary, progress, self._to_follow(), model.initial_state(1), starts)

    def _to_follow(self) -> dict[str, Any]:
        """Hyper-parameters that the arrays of a run follow from now on."""
        return {name: self._as_json(name) for name in OF_RUN}

    def _check_can_resume(self) -> None:
        run = self._fitted_run()
        if run.progress.kind != "fit":
            raise ValueError("there is no run to resume: the last call was partial_fit")
        check_unchanged(OF_RUN, run.followed, self._as_json)
        # Everything is looked at; for pieces of a text, which may be many and short, the weights alone.
        arrays = pack(run, self._own_params(), DEFAULTS)[1]
        check_can_go_on(run, arrays.values(), self.checkpoint, self.lr)
        before, now = run.progress.ranks, group_of(self.comm).size
        if before != now:
            warn_user(
                f"this run was trained on {before} rank{'s' if before > 1 else ''} so far: from here on its bits are those "
                f"of {now}"
            )
        if self.checkpoint is None:
            warn_user(
                "checkpoint is None: nothing of what follows is kept in a file; "
                "CharRNN.load(path, checkpoint=path), or set_params(checkpoint=path), keeps it",
            )

    def _check_writable(self) -> None:
        if self.checkpoint is not None and group_of(self.comm).rank == 0:
            check_writable(self.checkpoint)

    def _train_on(self, text: Any, name: str, get_ready: Callable[[], _Ready]) -> None:
        """Train, once every rank is ready to; if one is not, none begins."""
        group = group_of(self.comm)
        with contextlib.ExitStack() as held:

            def prepare() -> _Ready:
                self._check_params()
                held.enter_context(self._place_held(text))
                return get_ready()

            ready = group.together(prepare if group.rank == 0 else lambda: _without_warnings(prepare))
            if group.size > 1:
                check_same(group, self._same_on_all_ranks(ready))
            run = ready.run
            with self._taken_up(run, name):
                ready.begin()
                run.progress, run.state, run.starts, run.best, run.history = group.of_root(
                    lambda: (run.progress, run.state, run.starts, run.best, run.history)
                )
                self._train(ready.streams, ready.held_out, ready.last_step, resumed=ready.resumed)

    def _same_on_all_ranks(self, ready: _Ready) -> dict[str, Any]:
        params = {name: plain(value) for name, value in self.get_params().items() if name not in OF_RANK}
        run = ready.run
        return {
            "the run so far": (run.progress.kind, run.progress.step, run.progress.epoch, ready.resumed),
            "the vocabulary": run.vocabulary.characters,
            "the text": ready.text,
            "checkpoint": self.checkpoint is not None,
            **params,
            "dtype": np.dtype(self.dtype).name,
        }

    @contextlib.contextmanager
    def _place_held(self, text: Any) -> Iterator[None]:
        """Let no other run write `checkpoint`; refuse one that is a text."""
        if self.checkpoint is None or group_of(self.comm).rank:
            yield
            return
        check_is_no_text(self.checkpoint, (part for _, part in parts_of(text)))
        with only_writer(self.checkpoint):
            yield

    @contextlib.contextmanager
    def _taken_up(self, run: Run, name: str) -> Iterator[None]:
        """Have a run to train; nobody who reads or trains its model itself comes in between two steps."""
        with changed(run.model, name):  # before others can see it
            run.use("last")
            self._run = run
            yield

    def _train(
        self,
        streams: Streams,
        held_out: tuple[np.ndarray, int] | None,
        last_step: int | None,
        *,
        resumed: bool,
    ) -> None:
        run = self._run
        every: int | str | None = whole(self.checkpoint_every) or "timed"
        # As a file keeps them: NumPy's short numbers would give other bits after `load`.
        lr, lr_decay = float(self.lr), float(self.lr_decay)
        self._kept_step = None

        def write() -> bool:
            if self.checkpoint is None:
                return all_finite(run.last.values())
            content, arrays = pack(run, self._own_params(), DEFAULTS, is_checkpoint=True)
            if not all_finite(arrays.values()):
                return False
            write_checkpoint(self.checkpoint, content, arrays)
            run.note_written(self.checkpoint)
            return True

        training = Training(
            run,
            streams,
            held_out,
            learning_rate=lambda epoch: lr * lr_decay**epoch,
            clip=self.clip,
            clip_threshold=self.clip_threshold,
            limits=Limits(
                last_step=last_step,
                max_seconds=self.max_seconds,
                validate_every=whole(self.validate_every) or streams.steps,
                patience=whole(self.patience) if held_out else None,
                checkpoint_every=None if self.checkpoint is None else every,
                diagnostics_every=whole(self.diagnostics_every),
            ),
            ends_with_best=self.patience is not None,
            write=write,
            is_written=lambda: self.checkpoint is None or run.is_written(self.checkpoint),
            verbose=bool(self.verbose),
            comm=self.comm,
        )
        try:
            training.train()
        finally:
            self._diverged = training.diverged
            if self.checkpoint is not None:
                self._kept_step = training.kept_step
        training.choose_weights()
        if training.diverged:
            # Last of all: where warnings are errors, everything is as without one.
            group_of(self.comm).of_root(
                lambda: warn_user(
                    divergence(run, self.checkpoint, self._step_in_file(resumed)), RuntimeWarning
                )
            )

    def _step_in_file(self, resumed: bool) -> int | None:
        """Step of this run that `checkpoint` holds."""
        if self._kept_step is None and resumed and self.checkpoint is not None:
            with contextlib.suppress(CheckpointError, OSError):
                there = CharRNN.load(self.checkpoint, backend=None)
                # The file may be another run's, whose history went another way.
                if there.step_ <= self.step_ and same_way(there.history_, self.history_):
                    return there.step_
        return self._kept_step
