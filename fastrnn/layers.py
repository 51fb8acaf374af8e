"""The batched layers, with PyTorch's names and results and an explicit backward pass, and `RNN` among them."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from fastrnn import backends
from fastrnn.checks import (
    INDEX,
    NO_INDICES,
    NO_LENGTHS,
    check_flag,
    check_index_batch,
    check_lengths,
    check_real_array,
    check_size,
    check_steps,
)
from fastrnn.kernels import CLIP_NONE, PACK_BACKWARD, PACK_FORWARD
from fastrnn.layout import aligned
from fastrnn.passes import Call, Space
from fastrnn.sharing import changing, reading
from fastrnn.stack import StackedModel
from fastrnn.states import check_state, map_state, public

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import BackendName, CellName, Dtype, Nonlinearity, Seed

__all__ = ["RNN", "RecurrentLayers"]


#: A state as it is given, as it is returned, and the gradient with respect to it as it is given.
Given = TypeVar("Given")
Returned = TypeVar("Returned")
Gradient = TypeVar("Gradient")


class RecurrentLayers(StackedModel, Generic[Given, Returned, Gradient]):
    """What layers over a batch of sequences do, whatever their cell."""

    def __init__(
        self, input_size: Any, hidden_size: Any, num_layers: Any, nonlinearity: Any, bias: Any, batch_first: Any,
        dropout: Any, bidirectional: Any, dtype: Any, rng: Any, backend: str | None, num_threads: Any,
        cell: CellName = "rnn",
    ) -> None:  # fmt: skip
        d = check_size(input_size, "input_size")
        h = check_size(hidden_size, "hidden_size")
        bias = check_flag(bias, "bias")
        self._batch_first = check_flag(batch_first, "batch_first")
        directions = 2 if check_flag(bidirectional, "bidirectional") else 1
        super().__init__(
            d, h, num_layers, nonlinearity, dropout, dtype, rng, backend, num_threads,
            cell=cell, bias=bias, directions=directions,
        )  # fmt: skip

    def _set_up(self) -> None:
        super()._set_up()
        self._flat: np.ndarray | None = None
        self._grad_views: dict[str, np.ndarray] = {}
        #: Of each thread, in ``space``: its last forward pass.  It goes with the thread.
        self._last = threading.local()

    @contextlib.contextmanager
    def _gradients_kept(self) -> Iterator[None]:
        """So too the last forward pass, which `backward` follows."""
        before = self._flat, self._grad_views, self._last
        self._flat, self._grad_views, self._last = None, {}, threading.local()
        try:
            with super()._gradients_kept():
                yield
        finally:
            self._flat, self._grad_views, self._last = before

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry the parameters, not the buffers."""
        state = super().__getstate__()
        for buffer in ("_flat", "_grad_views", "_last"):
            del state[buffer]
        return state

    @property
    def input_size(self) -> int:
        """Input size d."""
        return self._d

    @property
    def bias(self) -> bool:
        """Whether the layers have biases."""
        return self._bias

    @property
    def batch_first(self) -> bool:
        """Whether inputs and outputs are (N, T, ...)."""
        return self._batch_first

    @property
    def bidirectional(self) -> bool:
        """Whether every layer runs in both directions."""
        return self._directions == 2

    def __repr__(self) -> str:
        nonlinearity = "" if self._kind.gates[1:] else f" {self._nonlinearity!r},"
        return (
            f"{type(self).__name__}({self._d}, {self._h}, {self._num_layers},{nonlinearity} bias={self._bias}, "
            f"batch_first={self._batch_first}, dropout={self._dropout}, "
            f"bidirectional={self.bidirectional}, dtype={self._dtype.name})"
        )

    if TYPE_CHECKING:  # how `StackedModel` is called, told to type checkers

        def __call__(
            self,
            x: ArrayLike,
            h0: Given | None = None,
            *,
            lengths: ArrayLike | None = None,
            hx: Given | None = None,
        ) -> tuple[np.ndarray, Returned]: ...

    @reading
    def forward(
        self,
        x: ArrayLike,
        h0: Given | None = None,
        *,
        lengths: ArrayLike | None = None,
        hx: Given | None = None,
    ) -> tuple[np.ndarray, Returned]:
        """Run over a batch of sequences (eq. 1); `rnn(x, ...)` does the same.

        Parameters
        ----------
        x : array, shape (T, N, d), (N, T, d) with `batch_first`, or (T, d) for one sequence
            Real numbers.  An array of integers without the last axis holds class indices in ``[-d, d)``,
            taken as one-hot vectors.  A batch may be of no sequences, and its results are empty then.
        h0 : array, shape (L*D, N, h), or (L*D, h) for one sequence; or None
            State before the first input of each layer and direction; None for zeros.  Of an `LSTM` the pair
            (h0, c0) of such arrays.
        lengths : sequence of N int, or None
            Time steps of each sequence, from 1 to T; what follows them in `x` is not read.  None for T.
        hx : array or None
            PyTorch's name of `h0`.

        Returns
        -------
        output : ndarray, shape (T, N, D*h), (N, T, D*h) with `batch_first`, or (T, D*h)
            States of the last layer, zero beyond the length of a sequence.
        h_n : ndarray, shape (L*D, N, h), or (L*D, h)
            State of each layer and direction after a sequence's own last step; of an `LSTM` the pair
            (h_n, c_n).  All are new arrays.

        Raises
        ------
        IndexError
            If a class index is out of bounds.
        TypeError, ValueError
            If an argument has the wrong type, dtype, shape or range, or there is no time step.

        Warns
        -----
        UserWarning
            If `x` is of integers that look like the one-hot vectors of one sequence.

        Examples
        --------
        >>> rnn = RNN(4, 8, bidirectional=True, rng=0)
        >>> output, h_n = rnn.forward(np.array([[0, 3], [1, 2], [2, 0]]), lengths=[3, 1])
        >>> output.shape, bool(output[1:, 1].any())
        ((3, 2, 16), False)
        """
        kernels = backends.kernels(self._backend)
        if hx is not None:
            if h0 is not None:
                raise TypeError("h0 and hx are two names of one argument: give one of them")
            h0 = hx
        steps, classes, batched = check_steps(x, "x", self._d, self._dtype, batch_first=self._batch_first)
        T, N = steps.shape[:2]
        swapped = self._batch_first and batched
        given = None if h0 is None else self._given_state(h0, "h0", N, batched)
        ends = NO_LENGTHS if lengths is None else self._check_lengths(lengths, T, N, batched)
        indices = NO_INDICES
        if classes:
            if ends.size:
                steps = np.where(np.arange(T)[:, None] < ends, steps, 0)
            indices = np.empty((T, N), INDEX)
            check_index_batch(steps, "x", self._d, kernels, indices.reshape(-1), x, self._batch_first)
        layers = self._layers(self._checked_parameters())
        key = kernels.NAME, T, N, classes
        space: _LayerSpace | None = getattr(self._last, "space", None)
        self._last.space = None
        if space is None or space.key != key:
            if space is not None:  # one is enough to be used by whichever thread comes next
                self._spaces.give(space.key, space, most=1)
            space = self._spaces.take(key) or _LayerSpace(self, kernels, T, N, classes, key)
        if given is not None:
            space.h0.put(given)
        elif not space.from_zeros:
            space.h0.clear()
        space.from_zeros = given is None
        drops = space.masks and self._training
        call = Call(
            space, layers, lengths=ends, key=self._dropout_key() if drops else None, pack=PACK_FORWARD,
            num_threads=self._num_threads,
        )  # fmt: skip
        width, span, kept_x = self._h * self._directions, space.span(T), space.x
        output = np.empty((N, T, width) if swapped else (T, N, width), self._dtype)
        h_n, last = space.new_states()
        out = output.swapaxes(0, 1) if swapped else output

        def forward_part(part: int, slot: int) -> None:
            if not classes:
                space.copy(steps, kept_x, part, self._num_threads)
                if ends.size:
                    for n in range(*space.extents[part]):
                        kept_x[ends[n] :, n] = 0  # zero gradients must not meet a NaN there
            call.forward(span, indices, kept_x, space.h0.places, last, part, slot)
            space.copy(span.outputs[-1], out, part, self._num_threads)

        call.run(forward_part, space.multiply_adds)
        space.indices, space.lengths, space.dropout_key, space.batched = indices, ends, call.key, batched
        self._last.space = space
        return (output, h_n) if batched else (output[:, 0], map_state(_first_sequence, h_n))

    @changing
    def backward(
        self, grad_output: ArrayLike | None, grad_h_n: Gradient | None = None
    ) -> tuple[np.ndarray | None, Returned]:
        """Backpropagate through the last `forward` by BPTT (eqs. 9 to 13).

        The gradients of the parameters are written to `grads`.  The parameters must be those of that
        `forward`.

        Parameters
        ----------
        grad_output : array, shape of `output`, or None
            Gradient of the loss with respect to `output`; None for zeros.  What lies beyond the length of
            a sequence is not read.
        grad_h_n : array, shape of `h_n`, or None
            Gradient with respect to `h_n`; None for zeros.  Of an `LSTM` the pair of those with respect to h_n
            and c_n, each an array or None.

        Returns
        -------
        grad_x : ndarray, shape of `x`, or None
            None where `x` held class indices.
        grad_h0 : ndarray, shape of `h_n`
            Gradient with respect to the state before the first input; of an `LSTM` a pair.

        Raises
        ------
        RuntimeError
            If there was no `forward` before it.
        TypeError, ValueError
            If an argument has the wrong type, dtype or shape.

        Examples
        --------
        >>> rnn = RNN(2, 3, rng=0)
        >>> output, h_n = rnn.forward(np.ones((4, 1, 2)))
        >>> grad_x, grad_h0 = rnn.backward(None, np.ones_like(h_n))
        >>> bool(grad_x[0].any())
        True
        """
        space: _LayerSpace | None = getattr(self._last, "space", None)
        if space is None:
            raise RuntimeError("backward needs the states of a forward before it, and there was none")
        batched = space.batched
        T, N, width = space.T, space.N, self._h * self._directions
        if grad_output is None:
            grad_output = np.zeros((T, N, width), self._dtype)
        else:
            shape = (T, width) if not batched else (N, T, width) if self._batch_first else (T, N, width)
            grad_output = check_real_array(grad_output, "grad_output", self._dtype, shape)
            if not batched:
                grad_output = grad_output[:, None]
            elif self._batch_first:
                grad_output = grad_output.swapaxes(0, 1)
        places, names = self._num_layers * self._directions, self._net.cell.states
        dh_n: Any = space.no_dh_n
        if grad_h_n is not None:
            shape = (places, N, self._h) if batched else (places, self._h)
            given = check_state(grad_h_n, "grad_h_n", self._dtype, names, shape, optional=True)
            # What is None has no elements in any place.
            dh_n = list(
                zip(*(d.reshape(places, N, -1) if d.size else [d] * places for d in given), strict=True)
            )
        layers = self._layers(self._checked_parameters())
        if self._flat is None:
            self._flat = aligned((self._layout.size,), self._dtype)
            self._grad_views = self._layout.views(self._flat)
        # Every time: what the caller has put there since are not the gradients.
        self.grads = {name: self._grad_views[name] for name in self._shapes}
        # The weights are to be those of the forward pass, which has packed them for itself in this space, that
        # nobody else uses; what backward wants beside that is packed now.
        call = Call(
            space, layers, lengths=space.lengths, key=space.dropout_key, pack=PACK_BACKWARD,
            num_threads=self._num_threads,
        )  # fmt: skip
        swapped = self._batch_first and batched
        grad_x = None
        if not space.one_hot:
            grad_x = np.empty((N, T, self._d) if swapped else (T, N, self._d), self._dtype)
        dx = grad_x.swapaxes(0, 1) if swapped and grad_x is not None else grad_x
        grad_h0, dh0 = space.new_states()
        span, gradients = space.span(T), space.gradients

        def backward_part(part: int, slot: int) -> None:
            space.copy(grad_output, span.dout, part, self._num_threads)
            call.backward(
                span, space.indices, space.x, space.h0.places, dh_n, dh0, space.dx, gradients.layers[part],
                part, slot,
            )  # fmt: skip
            if dx is not None:
                space.copy(space.dx[0], dx, part, self._num_threads)

        call.run(backward_part, 2 * space.multiply_adds)
        members = space.sweepers(self._num_threads)
        space.kernels.reduce_gradients(gradients.sums, CLIP_NONE, math.inf, self._flat, members)
        if batched:
            return grad_x, grad_h0
        return None if grad_x is None else grad_x[:, 0], map_state(_first_sequence, grad_h0)

    # -- checks ----------------------------------------------------------------------------------

    def _check_lengths(self, lengths: Any, T: int, N: int, batched: bool) -> np.ndarray:
        if lengths is not None and not batched:
            raise ValueError("lengths is for a batch of sequences, and x is one sequence")
        return check_lengths(lengths, T, N)

    def _given_state(self, value: Any, name: str, N: int, batched: bool) -> tuple[np.ndarray, ...] | None:
        """The arrays (L*D, N, h) of a state; one sequence has no N."""
        if batched:
            return self._check_state(value, name, N)
        shape = (self._num_layers * self._directions, self._h)
        arrays = check_state(value, name, self._dtype, self._net.cell.states, shape)
        return tuple(array[:, None] for array in arrays)


def _first_sequence(state: np.ndarray) -> np.ndarray:
    return state[:, 0]


class _LayerSpace(Space):
    """Work space of recurrent layers, which keeps what the last forward pass read and the states it came to.

    The model keeps it under `key`.
    """

    #: Class indices, lengths and key of dropout of the last forward pass.
    indices: np.ndarray
    lengths: np.ndarray
    dropout_key: tuple[int, int] | None
    #: Whether its input was a batch, and not one sequence; and whether `h0` is zeros.
    batched: bool
    from_zeros = True

    def __init__(
        self, model: RecurrentLayers[Any, Any, Any], kernels: ModuleType, T: int, N: int, one_hot: bool,
        key: tuple[Any, ...],
    ) -> None:  # fmt: skip
        net = model._net
        super().__init__(kernels, net, T, N, one_hot, backward=True, dropout=model._dropout)
        self.key = key
        self.gradients = model._new_gradients(self)
        self.h0 = self.states()
        self.no_dh_n = [self.no_states] * (net.L * net.D)
        self._state_shape, self._dtype = self.h0.arrays[0].shape, net.dtype
        self._single = len(self.no_dh_n) == len(net.cell.states) == 1
        self.x = self.none if one_hot else self.buffer(T, N, net.d)
        #: Gradients of the inputs by each direction.
        self.dx = [self.none if one_hot else self.buffer(T, N, net.d) for _ in range(net.D)]

    def new_states(self) -> tuple[Any, list[tuple[np.ndarray, ...]]]:
        """New arrays for a state, as users see them and as those of each place."""
        shape, dtype = self._state_shape, self._dtype
        h = np.empty(shape, dtype)
        if self._single:  # one place and one kind of state: in short calls every step counts
            return h, [(h[0],)]
        states = h, *(np.empty(shape, dtype) for _ in self.h0.arrays[1:])
        return public(states), list(zip(*states, strict=True))


class RNN(RecurrentLayers["ArrayLike", np.ndarray, "ArrayLike"]):
    r"""Recurrent layers over a batch of sequences.

    In every layer :math:`h_t = f(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})` (eq. 1); names, arguments,
    shapes and results are those of `torch.nn.RNN`.  Equation numbers are those of ``docs/notes.md``.

    Parameters
    ----------
    input_size : int
        Input size d.
    hidden_size : int
        Hidden size h.
    num_layers : int, default 1
        Number of layers L; each but the first reads the outputs of the one below.
    nonlinearity : {"tanh", "relu"}, default "tanh"
        f.
    bias : bool, default True
        Whether there are :math:`b_{ih}` and :math:`b_{hh}`.
    batch_first : bool, default False
        Inputs and outputs are (N, T, ...) in place of (T, N, ...); states are not affected.
    dropout : float, default 0.0
        Probability with which an output of a layer below the last is set to zero in training; the
        others are multiplied by ``1 / (1 - dropout)``.
    bidirectional : bool, default False
        Run every layer in both directions, D = 2; their outputs stand side by side.
    dtype : {float32, float64}, default float32
        Of the parameters and of every result.
    rng : numpy.random.Generator, int or None
        Where the initial parameters and dropout are drawn from; an int is a seed, None a fresh one.
    backend : {"cython", "numba", "numpy"} or None
        None follows `fastrnn.backend` at every call.
    num_threads : int or None
        Most threads that share a batch; None for the cores that the process may run on.  Results are the
        same bits on any number.

    Attributes
    ----------
    parameters : dict of str to ndarray
        ``weight_ih_l0`` (h, d), ``weight_hh_l0`` (h, h), ``bias_ih_l0`` (h,), ``bias_hh_l0`` (h,); with the
        ending ``_reverse`` those of the other direction; the same of further layers, whose ``weight_ih``
        is (h, D*h).  Mutate or replace them, the next call sees the change.
    grads : dict of str to ndarray
        Gradients under the same names, written by `backward`.  The next `backward` overwrites the arrays:
        copy what is to be kept.
    rng : numpy.random.Generator
        Where dropout is drawn from.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the above.
    BackendUnavailable
        If the backend that was named is missing.

    Notes
    -----
    Any number of threads may call `forward` at once, and `backward` follows the last `forward` of its own
    thread.  `backward` and `load_state_dict` change the layer and have it to themselves: who comes meanwhile
    from another thread, or calls one of these while others are in, gets a RuntimeError, and nothing changes.

    **For those who know torch.nn.RNN.**  Its ``state_dict`` loads as it is, tensors included, and tensors
    are taken wherever an array is.  Results are arrays: ``torch.from_numpy(output)`` makes a tensor of one
    without a copy.  There is no autograd: `backward` takes the gradient of the loss by `output`, and writes
    `grads`.  ``list(rnn.parameters)`` are the names; `parameters` is a dict and not a method.  An optimizer
    of `fastrnn.optim` is given both dicts at each step, ``optimizer.step(rnn.parameters, rnn.grads)``, and
    there is nothing to set to zero, as `backward` does not add to `grads`.

    **For those who know Keras's SimpleRNN.**  Its inputs are (N, T, d): ``batch_first=True`` takes them.
    `output` is what ``return_sequences=True`` returns, and ``h_n[-1]`` is its last time step, which Keras
    returns otherwise and as the state of ``return_state=True``.  Keras multiplies from the left: its kernel
    (d, h) and its recurrent kernel (h, h) are the transposes of ``weight_ih_l0`` and ``weight_hh_l0``.  It
    has one bias where there are two here: one of them takes it, and the other one is zero.  A `Masking` by
    a value is `lengths` here.  The weights of a layer are moved like this:

    >>> import numpy as np
    >>> from fastrnn import RNN
    >>> kernel = np.array([[0.5, -1.0, 0.0], [1.0, 0.25, 2.0]])  # kernel, recurrent_kernel, bias =
    >>> recurrent_kernel = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, -1.0]])
    >>> bias = np.array([0.1, 0.0, -0.1])                        # keras_layer.get_weights()
    >>> rnn = RNN(2, 3, batch_first=True, dtype="float64")
    >>> rnn.load_state_dict({
    ...     "weight_ih_l0": kernel.T,
    ...     "weight_hh_l0": recurrent_kernel.T,
    ...     "bias_ih_l0": bias,
    ...     "bias_hh_l0": np.zeros(3),
    ... })
    <All keys matched successfully>
    >>> x = np.array([[[1.0, 2.0], [0.0, -1.0]]])                # one sequence of two time steps
    >>> output, h_n = rnn.forward(x)
    >>> first = np.tanh(x[0, 0] @ kernel + bias)                 # as Keras computes them
    >>> second = np.tanh(x[0, 1] @ kernel + first @ recurrent_kernel + bias)
    >>> bool(np.allclose(output[0], [first, second])), bool(np.allclose(h_n[-1, 0], second))
    (True, True)

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import RNN
    >>> rnn = RNN(5, 16, num_layers=2, rng=0)
    >>> x = np.random.default_rng(0).normal(size=(7, 3, 5))  # seven time steps of three sequences
    >>> output, h_n = rnn.forward(x)
    >>> output.shape, h_n.shape
    ((7, 3, 16), (2, 3, 16))
    >>> grad_x, grad_h0 = rnn.backward(np.ones_like(output))
    >>> grad_x.shape, grad_h0.shape, rnn.grads["weight_ih_l0"].shape
    ((7, 3, 5), (2, 3, 16), (16, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Nonlinearity = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: Dtype = np.float32,
        rng: Seed = None,
        backend: BackendName | None = None,
        num_threads: int | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, dtype, rng,
            backend, num_threads,
        )  # fmt: skip

    @property
    def nonlinearity(self) -> Nonlinearity:
        """``"tanh"`` or ``"relu"``."""
        return self._nonlinearity
