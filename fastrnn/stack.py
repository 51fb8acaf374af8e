"""What all models made of layers share: parameters under PyTorch's names, settings, modes and state."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from fastrnn import backends
from fastrnn.cells import NONLINEARITIES, Cell, cell_of
from fastrnn.checks import (
    check_choice,
    check_dtype,
    check_flag,
    check_number,
    check_rng,
    check_size,
    is_ours,
    kernel_array,
    own_arrays,
    warn_user,
)
from fastrnn.errors import brief_names
from fastrnn.layout import Layout, Shape
from fastrnn.passes import Gradients, Layer, Net, Space, Spaces
from fastrnn.sharing import changing, reading
from fastrnn.states import check_state
from fastrnn.stepper import Source, Steppable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import CellName, Nonlinearity

__all__ = ["IncompatibleKeys", "StackedModel", "warn_of_dropout"]


class IncompatibleKeys(NamedTuple):
    """What `StackedModel.load_state_dict` returns, as PyTorch does."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not any(self):
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class StackedModel(Steppable):
    """Parameters, random stream, modes and state of a model that is a stack of recurrent layers."""

    parameters: dict[str, np.ndarray]
    grads: dict[str, np.ndarray]
    rng: np.random.Generator
    #: Pickles from before there were others have none.
    _cell: CellName = "rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: Any,
        nonlinearity: Any,
        dropout: Any,
        dtype: Any,
        rng: Any,
        backend: str | None,
        num_threads: Any,
        *,
        cell: CellName = "rnn",
        bias: bool = True,
        directions: int = 1,
        output_size: int = 0,
    ) -> None:
        self._d, self._h, self._q, self._directions = input_size, hidden_size, output_size, directions
        self._num_layers = check_size(num_layers, "num_layers")
        self._nonlinearity: Nonlinearity = check_choice(nonlinearity, "nonlinearity", NONLINEARITIES)
        self._cell = cell
        self._dropout = check_number(dropout, "dropout")
        if not 0 <= self._dropout <= 1:
            raise ValueError(f"dropout must be a probability, from 0 to 1, got {dropout}")
        if not is_ours(_maker(self)):  # what this package makes was asked for elsewhere, or is loaded
            warn_of_dropout(self._dropout, self._num_layers)
        self._dtype = check_dtype(dtype)
        generator = check_rng(rng)
        if backend is not None:
            backends.load(backend)
        self._backend = backend
        self.num_threads = num_threads
        self._training = True
        self._bias = bias
        self._layer_names = [
            tuple(f"{kind}_l{layer}{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            for layer in range(self._num_layers)
            for suffix in ("", "_reverse")[:directions]
        ]
        self._layout = self._make_layout()
        self._shapes = {
            name: shape for name, shape in self._layout.shapes.items() if bias or "bias" not in name
        }
        self.rng = np.random.default_rng() if generator is None else generator
        self.parameters = self._draw_parameters()
        self._set_up()

    def _make_layout(self) -> Layout:
        """All arrays that the kernels take, biases included where the model has none."""
        h, q = self._h, self._q
        rows = len(self._kind.gates) * h
        shapes: dict[str, Shape] = {}
        widths = [self._d] * self._directions + [h * self._directions] * len(self._layer_names)
        for names, d in zip(self._layer_names, widths, strict=False):
            shapes.update(zip(names, ((rows, d), (rows, h), (rows,), (rows,)), strict=True))
        if q:
            shapes.update(weight_out=(q, h * self._directions), bias_out=(q,))
        return Layout(shapes, self._dtype)

    def _draw_parameters(self) -> dict[str, np.ndarray]:
        """Uniform in +-1/sqrt(h), in the order of the names, as PyTorch's layers begin."""
        bound = 1 / math.sqrt(self._h)
        before = self.rng.bit_generator.state
        try:
            return {
                name: self.rng.uniform(-bound, bound, shape).astype(self._dtype, copy=False)
                for name, shape in self._shapes.items()
            }
        except (MemoryError, ValueError) as error:  # how NumPy refuses a large and a huge array
            self.rng.bit_generator.state = before
            raise (MemoryError if isinstance(error, MemoryError) else ValueError)(
                f"{self!r} has weights that do not fit in memory: {error}"
            ) from None

    def _set_up(self) -> None:
        """What copies and pickles do not carry."""
        self._net = Net(
            self._dtype, self._kind, self._d, self._h, self._q, self._num_layers, self._directions
        )
        self._spaces = Spaces()
        self._no_bias = np.zeros(self._net.columns, self._dtype)
        self._layer_getters = [itemgetter(*names[: 4 if self._bias else 2]) for names in self._layer_names]
        self.grads = {}

    @contextlib.contextmanager
    def _gradients_kept(self) -> Iterator[None]:
        """Let gradients be computed in new arrays, and leave those that are there in `grads` as they are."""
        before = self.grads
        try:
            yield
        finally:
            self.grads = before

    # -- public ----------------------------------------------------------------------------------

    #: Of each model its own.
    forward: Callable[..., tuple[np.ndarray, Any]]

    def __call__(self, *arguments: Any, **options: Any) -> tuple[np.ndarray, Any]:
        """`forward`, as PyTorch's modules are called."""
        return self.forward(*arguments, **options)

    @property
    def hidden_size(self) -> int:
        """Hidden size h."""
        return self._h

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return self._num_layers

    @property
    def dropout(self) -> float:
        """Probability with which an output of a layer below the last is set to zero in training."""
        return self._dropout

    @property
    def dtype(self) -> np.dtype:
        """numpy.dtype of the parameters and of every result."""
        return self._dtype

    @property
    def num_threads(self) -> int | None:
        """Most threads that share a batch; None for the cores that the process may run on."""
        return self._num_threads

    @num_threads.setter
    def num_threads(self, value: int | None) -> None:
        self._num_threads = None if value is None else check_size(value, "num_threads")

    @property
    def num_parameters(self) -> int:
        """Number of trainable numbers."""
        return sum(math.prod(shape) for shape in self._shapes.values())

    @property
    def training(self) -> bool:
        """Whether dropout is on: `train` and `eval` change it."""
        return self._training

    def _repr_html_(self) -> str:
        from fastrnn.shown import parameters_html

        return parameters_html(self, self.parameters)

    def train(self, mode: bool = True) -> Self:
        """Turn dropout on.

        Parameters
        ----------
        mode : bool, default True
            False turns it off, as `eval` does.

        Returns
        -------
        Self
            The model itself.

        Raises
        ------
        TypeError
            If `mode` is not a bool.

        Examples
        --------
        >>> from fastrnn import RNN
        >>> rnn = RNN(3, 8, num_layers=2, dropout=0.5, rng=0)
        >>> rnn.training, rnn.eval().training, rnn.train().training
        (True, False, True)
        """
        self._training = check_flag(mode, "mode")
        return self

    def eval(self) -> Self:  # as in PyTorch
        """Turn dropout off.

        Returns
        -------
        Self
            The model itself.

        Examples
        --------
        >>> from fastrnn import RNN
        >>> RNN(3, 8, num_layers=2, dropout=0.5, rng=0).eval().training
        False
        """
        return self.train(False)

    @reading
    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the parameters.

        Returns
        -------
        dict of str to ndarray
            Under PyTorch's names, in PyTorch's order.  ``torch.from_numpy`` makes tensors of them.

        Raises
        ------
        TypeError, ValueError
            If an array in `parameters` is missing, or was replaced by one of another shape or dtype.

        Examples
        --------
        >>> from fastrnn import RNN
        >>> {name: W.shape for name, W in RNN(3, 8, bias=False, rng=0).state_dict().items()}
        {'weight_ih_l0': (8, 3), 'weight_hh_l0': (8, 8)}
        """
        return {name: self.parameters[name].copy() for name in self._checked_parameters()}

    @changing
    def load_state_dict(self, state_dict: Mapping[str, ArrayLike], strict: bool = True) -> IncompatibleKeys:
        """Copy parameters from a mapping, in place.

        Parameters
        ----------
        state_dict : mapping of str to array
            As `state_dict` returns it, or a PyTorch module's, tensors included.
        strict : bool, default True
            False loads those whose names are there, and leaves the others as they are.

        Returns
        -------
        missing_keys, unexpected_keys : list of str
            A named tuple: names that only the model has, and names that only `state_dict` has.

        Raises
        ------
        TypeError, ValueError
            If a name is missing or unexpected and `strict`, or an array has the wrong shape or holds no
            real numbers; no parameter is modified then.

        Examples
        --------
        >>> from fastrnn import RNN
        >>> rnn, other = RNN(3, 8, rng=0), RNN(3, 8, rng=1)
        >>> rnn.load_state_dict(other.state_dict())
        <All keys matched successfully>
        >>> bool((rnn.parameters["weight_ih_l0"] == other.parameters["weight_ih_l0"]).all())
        True
        >>> rnn.load_state_dict({"weight_hh_l0": np.eye(8)}, strict=False).missing_keys
        ['weight_ih_l0', 'bias_ih_l0', 'bias_hh_l0']
        """
        check_flag(strict, "strict")
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"state_dict must be a mapping from name to array, got {type(state_dict).__name__}"
            )
        missing = [name for name in self._shapes if name not in state_dict]
        unexpected = [name for name in state_dict if name not in self._shapes]
        if strict and (missing or unexpected):
            raise ValueError(
                f"state_dict must hold {', '.join(self._shapes)}"
                + (f"; missing: {', '.join(missing)}" if missing else "")
                + (f"; unexpected: {brief_names(unexpected)}" if unexpected else "")
            )
        new = {
            name: _state_entry(state_dict[name], f"state_dict[{name!r}]", self._dtype, shape)
            for name, shape in self._shapes.items()
            if name in state_dict
        }
        for name, W in new.items():
            own = self.parameters.get(name)
            if self._is_kernel_array(own, W.shape):
                own[...] = W  # type: ignore[index]
            else:
                self.parameters[name] = W
        return IncompatibleKeys(missing, unexpected)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry the parameters, not the buffers."""
        state = self.__dict__.copy()
        for buffer in ("_net", "_spaces", "_no_bias", "_layer_getters", "grads"):
            del state[buffer]
        state["_relu"] = self._nonlinearity == "relu"  # which version 0.2 reads
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(own_arrays(state))
        self._dtype = check_dtype(self._dtype)
        self._layout = self._make_layout()
        self.parameters = {name: kernel_array(W, self._dtype) for name, W in self.parameters.items()}
        self._set_up()

    # -- what the methods of both models share ---------------------------------------------------

    @property
    def _kind(self) -> Cell:
        """The cell of every layer."""
        return cell_of(self._cell, self._nonlinearity)

    def _is_kernel_array(self, W: Any, shape: Shape) -> bool:
        return type(W) is np.ndarray and W.dtype is self._dtype and W.shape == shape and W.flags.carray

    def _checked_parameters(self) -> dict[str, np.ndarray]:
        """The parameters as kernels take them; copies of those that are not laid out so."""
        parameters, dtype, ndarray = self.parameters, self._dtype, np.ndarray
        for name, shape in self._shapes.items():
            W = parameters.get(name)
            if not (type(W) is ndarray and W.dtype is dtype and W.shape == shape and W.flags.carray):
                return self._converted_parameters()
        if len(parameters) != len(self._shapes):
            return self._converted_parameters()
        return parameters

    def _converted_parameters(self) -> dict[str, np.ndarray]:
        parameters, checked = self.parameters, {}
        for name, shape in self._shapes.items():
            W: Any = parameters.get(name)
            checked[name] = W if self._is_kernel_array(W, shape) else self._converted(name, W, shape)
        if len(parameters) != len(checked):
            unexpected = [name for name in parameters if name not in checked]
            raise ValueError(
                f"parameters must hold {', '.join(checked)}; unexpected: {brief_names(unexpected)}"
            )
        return checked

    def _converted(self, name: str, W: Any, shape: Shape) -> np.ndarray:
        if name not in self.parameters:
            raise ValueError(f"parameters must hold {name!r}, which is missing")
        if not isinstance(W, np.ndarray):
            raise TypeError(f"parameters[{name!r}] must be an ndarray, got {type(W).__name__}")
        if W.dtype != self._dtype:
            raise TypeError(f"parameters[{name!r}] must have dtype {self._dtype}, got {W.dtype}")
        if W.shape != shape:
            raise ValueError(f"parameters[{name!r}] must have shape {shape}, got {W.shape}")
        return kernel_array(np.asarray(W), self._dtype)

    def _layers(self, arrays: Mapping[str, np.ndarray]) -> list[Layer]:
        """`arrays` under the parameters' names as one tuple for each layer and direction."""
        layers = []
        for get in self._layer_getters:  # a comprehension takes twice as long for one
            layers.append(get(arrays))
        if not self._bias:
            none = self._no_bias
            return [(W_ih, W_hh, none, none) for W_ih, W_hh in layers]
        return layers

    def _step_source(self) -> Source:
        arrays = self._checked_parameters()
        output = (arrays["weight_out"], arrays["bias_out"]) if self._q else None
        return Source(backends.kernels(self._backend), self._net, self._layers(arrays), output)

    def _new_gradients(self, space: Space) -> Gradients:
        """Sums of the gradients over the parts of a batch."""
        return Gradients(self._layout, self._layer_names, ("weight_out", "bias_out"), space)

    def _check_state(self, value: Any, name: str, N: int) -> tuple[np.ndarray, ...] | None:
        """`value` as arrays (L, N, h) of the model's dtype, one for each kind of state, or None for zeros."""
        if value is None:
            return None
        shape = (self._num_layers * self._directions, N, self._h)
        names = self._net.cell.states
        if (
            len(names) == 1
            and type(value) is np.ndarray
            and value.dtype is self._dtype
            and value.shape == shape
        ):
            return (value,)
        return check_state(value, name, self._dtype, names, shape)

    def _dropout_key(self) -> tuple[int, int]:
        """Where the masks of one call are drawn from: start and stride of a PCG64DXSM stream."""
        bits = self.rng.bytes(32)
        return int.from_bytes(bits[:16], "little"), int.from_bytes(bits[16:], "little") | 1


def warn_of_dropout(dropout: float, num_layers: int) -> None:
    """Warn of dropout that has no effect, as PyTorch does."""
    if dropout and num_layers == 1:
        warn_user(
            f"dropout is applied to the outputs of all layers but the last: dropout={dropout} has no effect "
            f"with num_layers=1"
        )


def _maker(model: StackedModel) -> FrameType | None:
    """The frame that makes a model, behind the `__init__` of its classes."""
    frame = sys._getframe(1)
    while (
        frame.f_back is not None
        and frame.f_code.co_name == "__init__"
        and frame.f_locals.get("self") is model
    ):
        frame = frame.f_back
    return frame


def _state_entry(value: Any, name: str, dtype: np.dtype, shape: Shape) -> np.ndarray:
    """A new array of `shape` from an entry of a state_dict, PyTorch's tensors included."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu().numpy()
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"{name} cannot be made an array: {error}") from None
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got {type(value).__name__} of dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return np.array(array, dtype, order="C")
