"""`LanguageModel`: recurrent layers, an output layer, softmax and cross-entropy in one batched step."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn import backends
from fastrnn.checks import INDEX, check_indices, check_number, check_rng, check_size, index_batch
from fastrnn.kernels import PACK_FORWARD
from fastrnn.passes import Call, Net, Space
from fastrnn.random_stream import UniformDraws
from fastrnn.sharing import changing, reading
from fastrnn.states import parts_of, public
from fastrnn.supervised import SupervisedModel

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.distributed import Communicator
    from fastrnn.hints import (
        BackendName,
        CellName,
        Clip,
        Dtype,
        Nonlinearity,
        Reduction,
        Seed,
        State,
        SupportsStep,
    )

__all__ = ["LanguageModel"]


class LanguageModel(SupervisedModel):
    r"""Recurrent layers over class indices, with an output layer that predicts the next one.

    For each sequence of a batch :math:`h_t = f(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})` in every
    layer (eq. 1) and :math:`y_t = W h_t + b` (eq. 2); the loss is the cross-entropy of
    :math:`\mathrm{softmax}(y_t)` and the target (eqs. 5, 6).  Equation numbers
    are those of ``docs/notes.md``.

    Parameters
    ----------
    vocab_size : int
        Number of classes q.
    hidden_size : int
        Hidden size h.
    num_layers : int, default 1
        Number of layers L.
    cell : {"rnn", "gru", "lstm"}, default "rnn"
        What the layers are made of: the above, or the gated cells of `GRU` and `LSTM`.  The state of an LSTM is the pair
        (h, c) wherever another model has h.
    nonlinearity : {"tanh", "relu"}, default "tanh"
        f of the cell "rnn".
    dropout : float, default 0.0
        Probability with which an output of a layer below the last is set to zero in training; the
        others are multiplied by ``1 / (1 - dropout)``.
    dtype : {float32, float64}, default float32
        Of the parameters and of every result.
    rng : numpy.random.Generator, int or None
        Where the initial parameters, dropout and samples are drawn from; an int is a seed, None a fresh
        one.
    backend : {"cython", "numba", "numpy"} or None
        None follows `fastrnn.backend` at every call.
    num_threads : int or None
        Most threads that share a batch; None for the cores that the process may run on.  Results are the
        same bits on any number.
    recompute_every : int or None
        A number of time steps k.  The forward pass keeps one state in every k, and the backward pass
        recomputes the others from it, k steps at a time: the same gradients in less memory,
        O(k N (h + q) + T/k N h) in place of O(T N (h + q)), for one more forward pass.  None keeps all.

    Attributes
    ----------
    parameters : dict of str to ndarray
        ``weight_ih_l0`` (h, q), ``weight_hh_l0`` (h, h), ``bias_ih_l0`` (h,), ``bias_hh_l0`` (h,), the
        same of further layers (``weight_ih_l1`` (h, h)), ``weight_out`` (q, h), ``bias_out`` (q,).  With gates those
        of the layers have a block of h rows for each gate, 3h in all or 4h.
        Mutate or replace them, the next call sees the change.
    grads : dict of str to ndarray
        Gradients of the last `loss_and_grads` or `train_step`, under the same names.  Those of `train_step`
        are clipped, and the next `train_step` overwrites the arrays: copy what is to be kept.
    grad_norm : float
        Norm of all gradients together before they were clipped (eq. 15), NaN before the first.
    rng : numpy.random.Generator
        Where dropout and samples are drawn from.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the above.
    BackendUnavailable
        If the backend that was named is missing.

    Notes
    -----
    Any number of threads may call `forward`, `loss` and `sample` at once.  `train_step`, `loss_and_grads` and
    `load_state_dict` change the model and have it to themselves: who comes meanwhile from another thread, or
    calls one of these while others are in, gets a RuntimeError, and nothing changes.  Losses are in nats, and in nats per character where the classes are characters and
    the reduction is the mean.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import LanguageModel
    >>> lm = LanguageModel(4, 16, rng=0)
    >>> lm.num_parameters
    420
    >>> x = np.array([[1, 0], [0, 2], [2, 3]])  # three time steps of two sequences
    >>> loss, grads, h_n = lm.loss_and_grads(x, np.roll(x, -1, axis=0))
    >>> round(loss, 1), h_n.shape, grads["weight_out"].shape
    (1.4, (1, 2, 16), (4, 16))
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        cell: CellName = "rnn",
        nonlinearity: Nonlinearity = "tanh",
        dropout: float = 0.0,
        dtype: Dtype = np.float32,
        rng: Seed = None,
        backend: BackendName | None = None,
        num_threads: int | None = None,
        recompute_every: int | None = None,
    ) -> None:
        q = check_size(vocab_size, "vocab_size")
        h = check_size(hidden_size, "hidden_size")
        super().__init__(
            q, h, q, num_layers, cell=cell, nonlinearity=nonlinearity, directions=1, dropout=dropout, head="each",
            loss="cross_entropy", dtype=dtype, rng=rng, backend=backend, num_threads=num_threads,
            recompute_every=recompute_every,
        )  # fmt: skip

    @property
    def vocab_size(self) -> int:
        """Number of classes q."""
        return self._q

    def __repr__(self) -> str:
        cell = f"nonlinearity={self._nonlinearity!r}" if self._cell == "rnn" else f"cell={self._cell!r}"
        return (
            f"LanguageModel({self._q}, {self._h}, {self._num_layers}, "
            f"{cell}, dropout={self._dropout}, dtype={self._dtype.name})"
        )

    @changing
    def loss_and_grads(
        self,
        x: ArrayLike,
        y: ArrayLike,
        h0: State | None = None,
        *,
        lengths: ArrayLike | None = None,
        reduction: Reduction = "mean",
    ) -> tuple[float, dict[str, np.ndarray], Any]:
        """Cross-entropy of a batch (eqs. 5, 6) and its gradients by BPTT (eqs. 7 to 13).

        Parameters
        ----------
        x : array of int, shape (T, N)
            Inputs, class indices in ``[-q, q)``; negative ones count from the end.
        y : array of int, shape (T, N)
            Targets, class indices in ``[0, q)``; -100 where nothing counts, such as in padding.
        h0 : array, shape (num_layers, N, h), or None
            State before the first input; None for zeros.  Of an LSTM the pair (h0, c0) of such arrays.
        lengths : sequence of N int, or None
            Time steps of each sequence, from 1 to T; what follows them in `x` and `y` is not read.  None for T.
        reduction : {"mean", "sum"}, default "mean"
            Over all targets that count.

        Returns
        -------
        loss : float
            In nats; 0 where nothing counts, and then the gradients are 0 too.
        grads : dict of str to ndarray
            New arrays, also at `grads`; not clipped.
        h_n : ndarray, shape (num_layers, N, h)
            State after the last input of each sequence, a new array; of an LSTM the pair (h_n, c_n).

        Raises
        ------
        IndexError
            If a class index is out of bounds.
        TypeError, ValueError
            If an argument has the wrong type, dtype or shape, or is empty.

        Examples
        --------
        >>> lm = LanguageModel(4, 16, rng=0)
        >>> loss, grads, h_n = lm.loss_and_grads([[0], [1]], [[1], [2]], reduction="sum")
        >>> sorted(grads)[:2], h_n.shape
        (['bias_hh_l0', 'bias_ih_l0'], (1, 1, 16))
        """
        return self._new_loss_and_grads(x, y, h0, lengths, None, reduction)

    @changing
    def train_step(
        self,
        x: ArrayLike,
        y: ArrayLike,
        h0: State | None,
        optimizer: SupportsStep,
        *,
        lengths: ArrayLike | None = None,
        clip: Clip | None = "norm",
        clip_threshold: float = 5.0,
        comm: Communicator | None = None,
    ) -> tuple[float, Any]:
        """Mean loss and gradients, clipping, and a step of `optimizer`: the fastest way to train.

        Nothing is allocated on later calls with a batch of the same shape: the arrays in `grads` are
        overwritten, and `h_n` is used again.

        Parameters
        ----------
        x, y, h0
            As for `loss_and_grads`.
        optimizer : Optimizer, or object with a method ``step(parameters, grads)``
            It updates a dict of arrays in place: one of `fastrnn.optim`, or your own.
        lengths : sequence of N int, or None
            As for `loss_and_grads`.
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
            In nats, mean over the targets that count, on all ranks, before the update.
        h_n : ndarray, shape (num_layers, N, h)
            State after the last input.  Give it as `h0` to go on with the text.  It is one of two arrays
            that take turns: the next call writes to the other one, the call after it to this one again.
            Copy it to keep it for longer.

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
        >>> lm, adam = LanguageModel(3, 16, rng=0), Adam(lr=0.01)
        >>> x = np.array([[0, 1], [1, 2], [2, 0]])
        >>> losses = [lm.train_step(x, np.roll(x, -1, axis=0), None, adam)[0] for _ in range(200)]
        >>> losses[-1] < 0.1 < losses[0]
        True
        """
        return self._train_step(x, y, h0, optimizer, lengths, None, clip, clip_threshold, comm)

    @reading
    def loss(
        self,
        x: ArrayLike,
        y: ArrayLike,
        h0: State | None = None,
        *,
        lengths: ArrayLike | None = None,
        reduction: Reduction = "mean",
    ) -> tuple[float, Any]:
        """Cross-entropy of a batch (eqs. 5, 6), without gradients and without dropout.

        Parameters
        ----------
        x, y, h0, lengths, reduction
            As for `loss_and_grads`.

        Returns
        -------
        loss : float
            In nats.
        h_n : ndarray, shape (num_layers, N, h)
            State after the last input.

        Raises
        ------
        IndexError, TypeError, ValueError
            As `loss_and_grads`.

        Examples
        --------
        >>> lm = LanguageModel(4, 16, rng=0)
        >>> loss, h_n = lm.loss([[0], [1]], [[1], [2]])
        >>> loss == lm.loss_and_grads([[0], [1]], [[1], [2]])[0]
        True
        """
        return self._evaluate(x, y, h0, lengths, None, reduction)

    if TYPE_CHECKING:  # how `StackedModel` is called, told to type checkers

        def __call__(
            self, x: ArrayLike, h0: State | None = None, *, lengths: ArrayLike | None = None
        ) -> tuple[np.ndarray, Any]: ...

    @reading
    def forward(
        self, x: ArrayLike, h0: State | None = None, *, lengths: ArrayLike | None = None
    ) -> tuple[np.ndarray, Any]:
        """Logits of a batch (eqs. 1, 2), without dropout.

        Parameters
        ----------
        x, h0, lengths
            As for `loss_and_grads`.

        Returns
        -------
        logits : ndarray, shape (T, N, q)
            One row for each input, zeros beyond the length of a sequence; `functional.softmax` makes probabilities of
            them.
        h_n : ndarray, shape (num_layers, N, h)
            State after the last input of each sequence.

        Raises
        ------
        IndexError, TypeError, ValueError
            As `loss_and_grads`.

        Examples
        --------
        >>> lm = LanguageModel(4, 16, rng=0)
        >>> logits, h_n = lm.forward([[0], [1]])
        >>> logits.shape, h_n.shape
        ((2, 1, 4), (1, 1, 16))
        """
        return self._outputs(x, h0, lengths)

    @reading
    def sample(
        self,
        h: State | None,
        start: ArrayLike,
        n: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        rng: Seed = None,
    ) -> tuple[np.ndarray, Any]:
        """Draw sequences of class indices, N at once, each index fed back as the next input.

        Parameters
        ----------
        h : array, shape (num_layers, N, h), or None
            State before the first input, of an LSTM the pair (h, c); None for zeros.  Not modified.
        start : array of int, shape (N,)
            First inputs, in ``[-q, q)``.
        n : int
            Number of indices to draw in each sequence.
        temperature : float, default 1.0
            At least 0; the logits are divided by it.  Below 1 the draws play safe, above 1 they dare more;
            0 always takes the most probable class.
        top_k : int or None
            Draw from the `top_k` most probable classes only.
        top_p : float or None
            Draw only from the fewest most probable classes whose probabilities sum to at least `top_p`, in
            (0, 1]; of those that `top_k` left, if both are given.
        rng : numpy.random.Generator, int or None
            None draws from the model's `rng`.  The numbers are drawn time step by time step: to draw n
            and then m more gives the same as to draw n + m.

        Returns
        -------
        indices : ndarray of int64, shape (N, n)
            In ``[0, q)``.
        h_n : ndarray, shape (num_layers, N, h)
            State after the last input.  The last of the indices was not read yet: give it as `start` to
            go on.

        Raises
        ------
        IndexError
            If a class index is out of bounds.
        TypeError, ValueError
            If an argument has the wrong type, dtype, shape or range, or the probabilities are not
            numbers; the random stream is left as it was.

        Examples
        --------
        >>> lm = LanguageModel(4, 16, rng=0)
        >>> indices, h_n = lm.sample(lm.initial_state(3), [0, 1, 2], 5, rng=1)
        >>> indices.shape, h_n.shape
        ((3, 5), (1, 3, 16))
        """
        kernels = backends.kernels(self._backend)
        first = check_indices(start, "start", self._q, kernels)
        N = len(first)
        given = self._check_state(h, "h", N)
        states = parts_of(self.initial_state(N)) if given is None else tuple(a.copy(order="C") for a in given)
        n = check_size(n, "n", minimum=0)
        temperature = check_number(temperature, "temperature")
        if temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {temperature}")
        if temperature:  # neither zero nor infinity as a number of the model's dtype
            limits = np.finfo(self._dtype)
            temperature = min(max(temperature, float(limits.tiny)), float(limits.max))
        top_k = 0 if top_k is None else check_size(top_k, "top_k")
        top_p = 1.0 if top_p is None else check_number(top_p, "top_p", positive=True)
        if top_p > 1:
            raise ValueError(f"top_p must be at most 1, got {top_p}")
        generator = self.rng if rng is None else check_rng(rng)
        arrays = self._checked_parameters()
        out = np.empty((N, n), INDEX)
        if n == 0:
            return out, public(states)
        key = "sample", kernels.NAME, N
        space: Space = self._spaces.take(key) or _sampling_space(kernels, self._net, N)
        try:
            call = Call(
                space, self._layers(arrays), (arrays["weight_out"], arrays["bias_out"]),
                pack=PACK_FORWARD, num_threads=self._num_threads, steps=n,
            )  # fmt: skip
            draws = UniformDraws(generator, n * N)
            uniforms = np.ascontiguousarray(draws.values.reshape(n, N).T)
            drawn = [0] * len(space.shares)

            def sample_part(part: int, slot: int) -> None:
                drawn[part] = call.sample(
                    states, first, uniforms, temperature, top_k, top_p, out, part, slot
                )  # fmt: skip

            call.run(sample_part, n * space.multiply_adds)
        finally:
            self._spaces.give(key, space)
        if min(drawn) < n:
            draws.put_back()
            raise ValueError(
                f"the probabilities of index {min(drawn)} of {n} are not numbers: the weights or the "
                f"state hold NaN or infinity"
            )
        return out, public(states)

    def _check_inputs(self, x: Any) -> tuple[np.ndarray, bool]:
        if not (type(x) is np.ndarray and x.dtype is INDEX and x.ndim == 2 and x.flags.carray and x.size):
            x = index_batch(x, "x")
        return x, True


def _sampling_space(kernels: ModuleType, net: Net, N: int) -> Space:
    space = Space(kernels, net, 1, N, one_hot=True, pack=True)
    space.work_size = max(
        space.work_size, kernels.sample_size(N, space.rows, net.q, net.h, net.q, net.cell.code)
    )
    return space
