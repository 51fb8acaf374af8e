"""Steppers: a model that follows live data, one time step at a call.

`Stepper` is what users hold; `StepWeights` what steppers of one model share; the states of each, and the step, are
in the ``StepKernel`` of a backend.
"""

from __future__ import annotations

import weakref
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrnn.checks import INDEX, as_array, check_index, check_real_array, check_size, describe
from fastrnn.kernels import PACK_FORWARD
from fastrnn.layout import Shape, aligned
from fastrnn.sharing import Shared, Sharing, being_read, reading
from fastrnn.states import check_state, public

if TYPE_CHECKING:  # every program has this module, by `SimpleRNN`, and few have the engine
    from numpy.typing import ArrayLike

    from fastrnn.hints import State
    from fastrnn.passes import Layer, Net

__all__ = ["Source", "Steppable", "Stepper"]


class Source(NamedTuple):
    """What a model tells of itself to its steppers.

    Attributes
    ----------
    kernels : module
    net : Net
    layers : list of Layer
        Arrays of each layer, as kernels take them.
    output : (ndarray, ndarray) or None
        Weights (q, h) and biases (q,) of the output layer.
    probabilities : bool
        Whether the softmax of the outputs is wanted.
    flat : bool
        Whether the state has no axis for the layers, and vectors may be columns, as in the study notes.
    """

    kernels: ModuleType
    net: Net
    layers: list[Layer]
    output: tuple[np.ndarray, np.ndarray] | None = None
    probabilities: bool = False
    flat: bool = False


class Steppable(Shared):
    """A model that has steppers."""

    __slots__ = ()

    @reading
    def stepper(self, batch_size: int | None = None, h0: State | None = None) -> Stepper:
        """What follows live data, one time step at a call.

        It has the weights as they are now; dropout is off.

        Parameters
        ----------
        batch_size : int or None, default None
            Number N of sequences that go on together; None for one, without an axis for it.
        h0 : array or None
            State before the first step: shape (L, h), or (L, N, h) with `batch_size`, without the L for a
            `SimpleRNN`; of an LSTM the pair (h, c).  None for zeros.

        Returns
        -------
        fastrnn.stepper.Stepper

        Raises
        ------
        RuntimeError
            If another thread changes the model meanwhile.
        TypeError, ValueError
            If an argument has the wrong type, dtype or shape, or the model reads its sequences in both directions.

        Examples
        --------
        >>> from fastrnn import LanguageModel
        >>> stepper = LanguageModel(5, 8, rng=0).stepper()
        >>> stepper.step(3).shape
        (5,)
        """
        return Stepper(self, batch_size, h0)

    def _step_source(self) -> Source:
        """What a stepper must know."""
        raise NotImplementedError


class StepWeights:
    """The weights of a model as they were at some time, and what its steppers share beside them.

    Parameters
    ----------
    source : Source
    N : int
        Sequences of a stepper.
    """

    def __init__(self, source: Source, N: int) -> None:
        kernels, net = source.kernels, source.net
        self.kernels, self.dtype, self.cell, self.d = kernels, net.dtype, net.cell.code, net.d
        self.shape = net.L, N, net.h
        self.width = net.q or net.h
        self.layers = [tuple(W.copy() for W in layer) for layer in source.layers]
        self.output = None if source.output is None else tuple(W.copy() for W in source.output)
        self.probabilities = source.probabilities
        sizes = [kernels.layer_sizes(1, N, N, d, net.h, self.cell) for d in net.widths]
        self._packed_sizes = [packed for packed, _ in sizes]
        self._work_size: int = max(work for _, work in sizes)
        self._packed: dict[bool, list[np.ndarray]] = {}
        if self.output is not None:
            packed, work = kernels.output_sizes(1, N, N, net.h, net.q)
            self.packed_output = aligned((packed,), self.dtype)
            self._work_size = max(self._work_size, work)
            kernels.pack_output(self.output, N, self.packed_output)
        #: Work space that no step uses.
        self.works: list[np.ndarray] = []

    def new_work(self) -> np.ndarray:
        """Work space of one step."""
        return aligned((self._work_size,), self.dtype)

    def packed(self, one_hot: bool) -> list[np.ndarray]:
        """The weights of each layer as the kernels read them, for inputs that are class indices or not."""
        if one_hot not in self._packed:
            N = self.shape[1]
            packed = self._packed.get(not one_hot, [])[1:]  # only the lowest layer has other inputs
            for place in range(len(self.layers) - len(packed)):
                packed.insert(place, aligned((self._packed_sizes[place],), self.dtype))
                self.kernels.pack_layer(
                    self.layers[place], N, one_hot and place == 0, self.cell, packed[place], PACK_FORWARD
                )
            self._packed.setdefault(one_hot, packed)  # several threads may be at it: the first one's are kept
        return self._packed[one_hot]

    def are_those_of(self, source: Source) -> bool:
        """Whether the model's weights are these still, to the bit."""
        arrays = [W for layer in source.layers for W in layer] + list(source.output or ())
        own = [W for layer in self.layers for W in layer] + list(self.output or ())
        bits = f"u{self.dtype.itemsize}"
        return all(np.array_equal(W.view(bits), V.view(bits)) for W, V in zip(own, arrays, strict=True))


#: Of each model, its weights as its steppers share them, for each backend and number of sequences.
_shared: weakref.WeakKeyDictionary[Sharing, weakref.WeakValueDictionary[tuple[str, int], StepWeights]] = (
    weakref.WeakKeyDictionary()
)


class Stepper:
    """A model one time step after the other: `step` takes an input, and gives the output.

    The models make it: ``model.stepper()``.  It has the model's weights as they were then, packed once for all
    steppers of that model, and a state of its own.  It is for one thread at a time.

    Parameters
    ----------
    model : RNN, GRU, LSTM, LanguageModel, SequenceModel or SimpleRNN
    batch_size : int or None, default None
        Number N of sequences that go on together; None for one, without an axis for it.
    h0 : array or None
        State before the first step, shaped as `state`; None for zeros.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, dtype or shape, or the model reads its sequences in both directions.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import RNN
    >>> rnn = RNN(2, 8, rng=0)
    >>> stepper = rnn.stepper()
    >>> signal = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
    >>> outputs = [stepper.step(x) for x in signal]
    >>> np.allclose(outputs, rnn.forward(signal)[0])
    True
    >>> stepper.state.shape
    (1, 8)
    """

    def __init__(self, model: Steppable, batch_size: int | None = None, h0: State | None = None) -> None:
        self._model = model
        self._batch_size = None if batch_size is None else check_size(batch_size, "batch_size")
        batched, N = self._batch_size is not None, self._batch_size or 1
        source = model._step_source()
        net = source.net
        if net.D == 2:
            raise ValueError(
                "a bidirectional model has no stepper: its second direction begins with the last time step, which "
                "is not there yet"
            )
        self._weights = _weights_of(model, source, N)
        self._dtype = net.dtype
        self._states_shape, self._state_names = self._weights.shape, net.cell.states
        state = (N, net.h) if batched else (net.h,)
        self._state_shapes: tuple[Shape, ...] = (state,) if source.flat else ((net.L, *state),)
        if source.flat and not batched:
            self._state_shapes += ((net.h, 1),)
        self._inputs = _Inputs(net.d, N, batched, source.flat, net.dtype)
        self._outputs = _Outputs((N, self._weights.width) if batched else (self._weights.width,), net.dtype)
        self._take(source.kernels.StepKernel(self._weights, batched, self._inputs, self._outputs))
        if h0 is not None:
            self.reset(h0)

    def _take(self, kernel: Any) -> None:
        self._kernel = kernel
        vars(self)["step"] = kernel.step  # without a call of Python in between

    def __repr__(self) -> str:
        return f"Stepper({self._model!r}, batch_size={self._batch_size})"

    def step(self, x: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
        """Go on by one time step (eqs. 1, 2).

        Parameters
        ----------
        x : array, shape (d,), or int; with `batch_size` array, shape (N, d) or (N,)
            The input: real numbers, or a class index in ``[-d, d)``, which stands for the one-hot vector.  For one
            sequence, an array is of real numbers whatever its dtype, and a whole number a class; with `batch_size`
            integers of shape (N,) are classes.  Arrays of the model's dtype in C order are read as they are.
        out : ndarray, shape and dtype of y, or None
            Where y is written, C-contiguous; None for a new array.

        Returns
        -------
        y : ndarray, shape (h,) or (q,); with `batch_size` (N, h) or (N, q)
            Of an `RNN`, `GRU` or `LSTM` the output of its last layer, h, of a `LanguageModel` the logits, of a
            `SequenceModel` the step's output, of a `SimpleRNN` the probabilities.

        Raises
        ------
        IndexError
            If a class index is out of bounds.
        RuntimeError
            If another thread is in a call of this stepper.
        TypeError, ValueError
            If an argument has the wrong type, dtype or shape.  The state stays as it was, as with every error.
        """
        y: np.ndarray = self._kernel.step(x, out)
        return y

    @property
    def state(self) -> Any:
        """A copy of the state, shape (L, h), or (L, N, h) with `batch_size`; without the L for a `SimpleRNN`.

        Of an LSTM the pair (h, c) of such arrays.  Assign to it to go on from another state.
        """
        return public([state.reshape(self._state_shapes[0]) for state in self._kernel.states()])

    @state.setter
    def state(self, value: State) -> None:
        self._set_states(value, "state")

    def reset(self, h0: State | None = None) -> None:
        """Begin anew.

        Parameters
        ----------
        h0 : array or None
            The state to begin with, shaped as `state`; None for zeros.

        Raises
        ------
        TypeError, ValueError
            If it has the wrong type, dtype or shape.
        """
        if h0 is None:
            self._kernel.set_states(None)
        else:
            self._set_states(h0, "h0")

    def _set_states(self, value: Any, name: str) -> None:
        states = check_state(value, name, self._dtype, self._state_names, *self._state_shapes)
        self._kernel.set_states(tuple(state.reshape(self._states_shape) for state in states))

    def refresh(self) -> None:
        """Take the model's weights as they are now; the state stays.

        Raises
        ------
        RuntimeError
            If another thread changes the model.
        """
        with being_read(self._model, "refresh"):
            weights = _weights_of(self._model, self._model._step_source(), self._states_shape[1])
        if weights.kernels is not self._weights.kernels:  # another backend is in use now
            states = self._kernel.states()
            kernel = weights.kernels.StepKernel(
                weights, self._batch_size is not None, self._inputs, self._outputs
            )
            kernel.set_states(states)
            self._take(kernel)
        else:
            self._kernel.use(weights)
        self._weights = weights

    def copy(self) -> Stepper:
        """A stepper with the same weights and a state of its own, which is this one's for now.

        Returns
        -------
        Stepper
        """
        other = type(self).__new__(type(self))
        states = self._kernel.states()
        vars(other).update(vars(self))
        kernel = self._weights.kernels.StepKernel(
            self._weights, self._batch_size is not None, self._inputs, self._outputs
        )
        kernel.set_states(states)
        other._take(kernel)
        return other

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Stepper:
        return self.copy()

    def __reduce__(self) -> Any:
        raise TypeError(
            "a stepper cannot be pickled: pickle the model and the stepper's state, and make one of them, "
            "model.stepper(h0=state)"
        )


def _weights_of(model: Steppable, source: Source, N: int) -> StepWeights:
    """The weights of a model, those of its other steppers where they are the same."""
    kept = _shared.get(model._sharing)
    if kept is None:
        kept = _shared.setdefault(model._sharing, weakref.WeakValueDictionary())
    key = source.kernels.NAME, N
    weights = kept.get(key)
    if weights is None or not weights.are_those_of(source):
        weights = kept[key] = StepWeights(source, N)
    return weights


class _Inputs:
    """What makes of a user's x what a ``StepKernel`` takes."""

    def __init__(self, d: int, N: int, batched: bool, columns: bool, dtype: np.dtype) -> None:
        self._d, self._N, self._batched, self._dtype = d, N, batched, dtype
        self._shapes: tuple[Shape, ...] = ((N, d),) if batched else ((d,),)
        if columns and not batched:
            self._shapes += ((d, 1),)
        self._batch_shape = N, d

    def __call__(self, x: Any) -> np.ndarray:
        """An array (N, d) of the model's dtype, or class indices (N,) in ``[0, d)``; both in C order."""
        if type(x) is np.ndarray and x.dtype is self._dtype and x.shape == self._shapes[0] and x.flags.carray:
            return x.reshape(self._batch_shape)
        array = as_array(x, "x")
        if not self._batched and not array.ndim:
            if not hasattr(x, "__index__"):
                raise TypeError(f"x must be an array ({self._d},) or a whole number, got {describe(x)}")
            return np.array([check_index(x, "x", self._d)], INDEX)
        if self._batched and array.ndim == 1 and array.dtype.kind in "iu":
            return self._classes(array)
        if array.dtype.kind == "b":
            array = array.view(np.uint8)
        return check_real_array(array, "x", self._dtype, *self._shapes).reshape(self._batch_shape)

    def _classes(self, array: np.ndarray) -> np.ndarray:
        if array.shape != (self._N,):
            raise ValueError(
                f"x must have shape ({self._N}, {self._d}), or be {self._N} class indices, got shape {array.shape}"
            )
        bad = array >= self._d
        indices = np.where(bad, 0, array).astype(INDEX)  # the largest of unsigned ones would become negative
        bad |= indices < -self._d
        if bad.any():
            n = int(bad.argmax())
            raise IndexError(f"x[{n}] is {array[n]}, outside [-{self._d}, {self._d})")
        indices[indices < 0] += self._d
        return indices


class _Outputs:
    """What refuses an `out` that is not as y."""

    def __init__(self, shape: Shape, dtype: np.dtype) -> None:
        self._shape, self._dtype = shape, dtype

    def __call__(self, out: Any) -> None:
        """Raise if `out` cannot be written to as it is."""
        if type(out) is not np.ndarray:
            raise TypeError(f"out must be an ndarray, got {describe(out)}")
        if out.dtype != self._dtype or not out.dtype.isnative:
            raise TypeError(f"out must have dtype {self._dtype}, got {out.dtype}")
        if out.shape != self._shape:
            raise ValueError(f"out must have shape {self._shape}, got {out.shape}")
        if not out.flags.carray:
            raise ValueError(
                "out must be a writable C-contiguous array; this one is "
                + ("read-only" if not out.flags.writeable else "not contiguous, or not aligned")
            )
