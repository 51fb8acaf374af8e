"""`SequenceModel`: recurrent layers over real vectors or classes, with an output layer for values or labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import check_choice, check_flag, check_size, check_steps
from fastrnn.heads import HEADS
from fastrnn.losses import LOSSES
from fastrnn.sharing import changing, reading
from fastrnn.supervised import SupervisedModel

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.distributed import Communicator
    from fastrnn.hints import (
        BackendName,
        CellName,
        Clip,
        Dtype,
        HeadName,
        LossName,
        Nonlinearity,
        Reduction,
        Seed,
        State,
        SupportsStep,
    )
    from fastrnn.stepper import Source

__all__ = ["SequenceModel"]


class SequenceModel(SupervisedModel):
    r"""Recurrent layers over a batch of sequences, with an output layer for values or labels.

    In every layer :math:`h_t = f(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})` (eq. 1), or what the cell makes of it.
    The head chooses which states the output layer :math:`y = W h + b` (eq. 2) reads: those of each time step, the last
    one of a sequence, or their mean.  The loss compares the outputs with values or class indices.  Equation numbers are
    those of ``docs/notes.md``.

    Parameters
    ----------
    input_size : int
        Input size d.
    hidden_size : int
        Hidden size h.
    output_size : int
        Number of values that are predicted, or of classes.
    num_layers : int, default 1
        Number of layers L.
    cell : {"rnn", "gru", "lstm"}, default "rnn"
        What the layers are made of: those of `RNN`, or the gated cells of `GRU` and `LSTM`.  The state of an LSTM is the
        pair (h, c) wherever another model has h.
    nonlinearity : {"tanh", "relu"}, default "tanh"
        f of the cell "rnn".
    bidirectional : bool, default False
        Run every layer in both directions, D = 2; their outputs stand side by side.
    dropout : float, default 0.0
        Probability with which an output of a layer below the last is set to zero in training; the
        others are multiplied by ``1 / (1 - dropout)``.
    head : {"each", "last", "mean"}, default "each"
        What is predicted from: every time step, with an output for each; the last step of each sequence, in two
        directions the last state of each; or the mean over the steps of each sequence.
    loss : {"mse", "cross_entropy", "gaussian"}, default "mse"
        Mean squared error of values; cross-entropy of the softmax of k logits (eqs. 5, 6), in nats; or the negative
        log-likelihood of values in nats, for normal distributions: the first `output_size` outputs are the means, the
        others the logarithms of the variances.
    dtype : {float32, float64}, default float32
        Of the parameters and of every result.
    rng : numpy.random.Generator, int or None
        Where the initial parameters and dropout are drawn from; an int is a seed, None a fresh one.
    backend : {"cython", "numba", "numpy"} or None
        None follows `fastrnn.backend` at every call.
    num_threads : int or None
        Most threads that share a batch; None for the cores that the process may run on.  Results are the
        same bits on any number.
    recompute_every : int or None
        A number of time steps n.  The forward pass keeps one state in every n, and the backward pass recomputes the
        others from it: the same gradients in less memory, for one more forward pass.  None keeps all.  Not for two
        directions.

    Attributes
    ----------
    parameters : dict of str to ndarray
        ``weight_ih_l0`` (h, d), ``weight_hh_l0`` (h, h), ``bias_ih_l0`` (h,), ``bias_hh_l0`` (h,); with the ending
        ``_reverse`` those of the other direction; the same of further layers, whose ``weight_ih`` is (h, D*h);
        ``weight_out`` (k, D*h), ``bias_out`` (k,).  With gates those of the layers have a block of h rows for each
        gate, 3h in all or 4h.  Mutate or replace them, the next call sees the change.
    grads : dict of str to ndarray
        Gradients of the last `loss_and_grads` or `train_step`, under the same names.  Those of `train_step`
        are clipped, and the next `train_step` overwrites the arrays: copy what is to be kept.
    grad_norm : float
        Norm of all gradients together before they were clipped (eq. 15), NaN before the first.
    rng : numpy.random.Generator
        Where dropout is drawn from.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the above.
    BackendUnavailable
        If the backend that was named is missing.

    See Also
    --------
    LanguageModel : The same for class indices that predict the next one, with samples.
    fastrnn.RNNRegressor, fastrnn.RNNClassifier : This model with scaling, early stopping and scikit-learn's methods.

    Notes
    -----
    Any number of threads may call `forward` and `loss` at once.  `train_step`, `loss_and_grads` and `load_state_dict`
    change the model and have it to themselves: who comes meanwhile from another thread, or calls one of these while
    others are in, gets a RuntimeError, and nothing changes.

    Examples
    --------
    The sum of a sequence, from its last step:

    >>> import numpy as np
    >>> from fastrnn import SequenceModel
    >>> from fastrnn.optim import Adam
    >>> sm, adam = SequenceModel(1, 16, 1, cell="gru", head="last", rng=0), Adam(lr=0.01)
    >>> x = np.random.default_rng(0).normal(size=(5, 64, 1)).astype(np.float32)  # five time steps of 64 sequences
    >>> y = x.sum(axis=0)
    >>> losses = [sm.train_step(x, y, None, adam)[0] for _ in range(300)]
    >>> losses[-1] < 0.1 < 3 < losses[0]
    True
    >>> outputs, h_n = sm.forward(x)
    >>> outputs.shape, h_n.shape
    ((64, 1), (1, 64, 16))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        num_layers: int = 1,
        *,
        cell: CellName = "rnn",
        nonlinearity: Nonlinearity = "tanh",
        bidirectional: bool = False,
        dropout: float = 0.0,
        head: HeadName = "each",
        loss: LossName = "mse",
        dtype: Dtype = np.float32,
        rng: Seed = None,
        backend: BackendName | None = None,
        num_threads: int | None = None,
        recompute_every: int | None = None,
    ) -> None:
        d = check_size(input_size, "input_size")
        h = check_size(hidden_size, "hidden_size")
        size = check_size(output_size, "output_size")
        check_choice(head, "head", tuple(HEADS))
        check_choice(loss, "loss", tuple(LOSSES))
        directions = 2 if check_flag(bidirectional, "bidirectional") else 1
        super().__init__(
            d, h, size, num_layers, cell=cell, nonlinearity=nonlinearity, directions=directions, dropout=dropout,
            head=head, loss=loss, dtype=dtype, rng=rng, backend=backend, num_threads=num_threads,
            recompute_every=recompute_every,
        )  # fmt: skip

    @property
    def input_size(self) -> int:
        """Input size d."""
        return self._d

    @property
    def bidirectional(self) -> bool:
        """Whether every layer runs in both directions."""
        return self._directions == 2

    @property
    def head(self) -> HeadName:
        """What is predicted from: ``"each"``, ``"last"`` or ``"mean"``."""
        return self._head.name

    def __repr__(self) -> str:
        cell = f"nonlinearity={self._nonlinearity!r}" if self._cell == "rnn" else f"cell={self._cell!r}"
        return (
            f"SequenceModel({self._d}, {self._h}, {self.output_size}, {self._num_layers}, {cell}, "
            f"bidirectional={self.bidirectional}, dropout={self._dropout}, head={self._head.name!r}, "
            f"loss={self._loss.name!r}, dtype={self._dtype.name})"
        )

    if TYPE_CHECKING:  # how `StackedModel` is called, told to type checkers

        def __call__(
            self, x: ArrayLike, h0: State | None = None, *, lengths: ArrayLike | None = None
        ) -> tuple[np.ndarray, Any]: ...

    @reading
    def forward(
        self, x: ArrayLike, h0: State | None = None, *, lengths: ArrayLike | None = None
    ) -> tuple[np.ndarray, Any]:
        """Outputs of a batch (eqs. 1, 2), without dropout.

        Parameters
        ----------
        x : array, shape (T, N, d), or of int (T, N)
            Real numbers; or class indices in ``[-d, d)``, taken as one-hot vectors.  A batch may be of no sequences,
            and its results are empty then.
        h0 : array, shape (L*D, N, h), or None
            State before the first input of each layer and direction; None for zeros.  Of an LSTM the pair (h0, c0) of
            such arrays.
        lengths : sequence of N int, or None
            Time steps of each sequence, from 1 to T; what follows them in `x` is not read.  None for T.

        Returns
        -------
        outputs : ndarray, shape (T, N, k) with the head "each", else (N, k)
            With k = `output_size`, or twice that for the loss "gaussian": means, then log-variances.  Logits for the
            loss "cross_entropy": `functional.softmax` makes probabilities of them.  Of the head "each", zeros beyond
            the length of a sequence.
        h_n : ndarray, shape (L*D, N, h)
            State of each layer and direction after a sequence's own last step; of an LSTM the pair (h_n, c_n).

        Raises
        ------
        IndexError
            If a class index is out of bounds.
        TypeError, ValueError
            If an argument has the wrong type, dtype, shape or range, or there is no time step.

        Examples
        --------
        >>> sm = SequenceModel(3, 8, 2, head="mean", bidirectional=True, rng=0)
        >>> outputs, h_n = sm.forward(np.ones((4, 2, 3)), lengths=[4, 1])
        >>> outputs.shape, h_n.shape
        ((2, 2), (2, 2, 8))
        """
        return self._outputs(x, h0, lengths)

    @changing
    def loss_and_grads(
        self,
        x: ArrayLike,
        y: ArrayLike,
        h0: State | None = None,
        *,
        lengths: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        reduction: Reduction = "mean",
    ) -> tuple[float, dict[str, np.ndarray], Any]:
        """Loss of a batch and its gradients by BPTT (eqs. 7 to 13).

        Parameters
        ----------
        x, h0, lengths
            As for `forward`.
        y : array
            Targets.  Values: shape (T, N, `output_size`) with the head "each", else (N, `output_size`).  For the loss
            "cross_entropy" class indices in ``[0, output_size)`` of shape (T, N) or (N,), and -100 where nothing
            counts.  What follows the end of a sequence is not read.
        weights : array, shape (N,), or (T, N) with the head "each"; or None
            How often each target counts, at least 0; None for once.
        reduction : {"mean", "sum"}, default "mean"
            Over all numbers that count: targets that are classes, or the values of all targets.

        Returns
        -------
        loss : float
            The mean is divided by how often numbers count; 0 where none does, and then the gradients are 0 too.
        grads : dict of str to ndarray
            New arrays, also at `grads`; not clipped.
        h_n : ndarray, shape (L*D, N, h)
            State after a sequence's own last step, a new array; of an LSTM the pair (h_n, c_n).

        Raises
        ------
        IndexError
            If a class index is out of bounds.
        TypeError, ValueError
            If an argument has the wrong type, dtype, shape or range.

        Examples
        --------
        >>> sm = SequenceModel(2, 8, 3, head="last", loss="cross_entropy", rng=0)
        >>> loss, grads, h_n = sm.loss_and_grads(np.zeros((5, 4, 2)), [0, 1, 2, -100])
        >>> round(loss, 1), grads["weight_out"].shape
        (1.1, (3, 8))
        """
        return self._new_loss_and_grads(x, y, h0, lengths, weights, reduction)

    @changing
    def train_step(
        self,
        x: ArrayLike,
        y: ArrayLike,
        h0: State | None,
        optimizer: SupportsStep,
        *,
        lengths: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        clip: Clip | None = "norm",
        clip_threshold: float = 5.0,
        comm: Communicator | None = None,
    ) -> tuple[float, Any]:
        """Mean loss and gradients, clipping, and a step of `optimizer`: the fastest way to train.

        Nothing is allocated on later calls with a batch of the same shape: the arrays in `grads` are
        overwritten, and `h_n` is used again.

        Parameters
        ----------
        x, y, h0, lengths, weights
            As for `loss_and_grads`.
        optimizer : Optimizer, or object with a method ``step(parameters, grads)``
            It updates a dict of arrays in place: one of `fastrnn.optim`, or your own.
        clip : {"norm", "value"} or None, default "norm"
            Rescale the gradients by the norm of all of them together (eq. 15); clamp every entry; nothing.
        clip_threshold : float, default 5.0
            The largest norm, or the largest magnitude of an entry, that is left as it is.  Positive;
            infinity clips nothing.
        comm : Communicator or None
            What `fastrnn.distributed.mpi` returns: this rank's sequences are some of a batch that all ranks share.  All
            call it together.  At the first call with a `comm` they take the weights, the random stream and the
            optimizer's state of rank 0; afterwards all have the same, as `grads` and `grad_norm`.

        Returns
        -------
        loss : float
            Mean over what counts, on all ranks, before the update.
        h_n : ndarray, shape (L*D, N, h)
            State after a sequence's own last step.  It is one of two arrays that take turns: the next call writes to
            the other one, the call after it to this one again.  Copy it to keep it for longer.

        Raises
        ------
        IndexError, TypeError, ValueError
            As `loss_and_grads`; no parameter is modified then.
        DistributedError
            If another rank's part of the batch is wrong, and gradients are exchanged in each step; no parameter is
            modified then.

        Examples
        --------
        >>> from fastrnn.optim import Adam
        >>> sm, adam = SequenceModel(1, 8, 1, head="mean", loss="gaussian", rng=0), Adam(lr=0.01)
        >>> x = np.linspace(-1, 1, 12).reshape(4, 3, 1)
        >>> losses = [sm.train_step(x, [[0.0], [1.0], [2.0]], None, adam)[0] for _ in range(300)]
        >>> losses[-1] < 0 < losses[0]
        True
        """
        return self._train_step(x, y, h0, optimizer, lengths, weights, clip, clip_threshold, comm)

    @reading
    def loss(
        self,
        x: ArrayLike,
        y: ArrayLike,
        h0: State | None = None,
        *,
        lengths: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        reduction: Reduction = "mean",
    ) -> tuple[float, Any]:
        """Loss of a batch, without gradients and without dropout.

        Parameters
        ----------
        x, y, h0, lengths, weights, reduction
            As for `loss_and_grads`.

        Returns
        -------
        loss : float
            As that of `loss_and_grads`.
        h_n : ndarray, shape (L*D, N, h)
            State after a sequence's own last step.

        Raises
        ------
        IndexError, TypeError, ValueError
            As `loss_and_grads`.

        Examples
        --------
        >>> sm = SequenceModel(1, 8, 1, rng=0)
        >>> loss, h_n = sm.loss(np.zeros((3, 2, 1)), np.ones((3, 2, 1)))
        >>> loss == sm.loss_and_grads(np.zeros((3, 2, 1)), np.ones((3, 2, 1)))[0]
        True
        """
        return self._evaluate(x, y, h0, lengths, weights, reduction)

    # -- what the engine asks --------------------------------------------------------------------

    def _check_inputs(self, x: Any) -> tuple[np.ndarray, bool]:
        steps, classes, _ = check_steps(x, "x", self._d, self._dtype, one=False)
        return steps, classes

    def _step_source(self) -> Source:
        if self._head.name == "mean":
            raise ValueError(
                "a model with head='mean' has no stepper: its output needs all steps of a sequence; head='each' and "
                "head='last' have one"
            )
        return super()._step_source()
