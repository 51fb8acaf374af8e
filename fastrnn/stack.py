"""What `RNN` and `LanguageModel` share: parameters under PyTorch's names, work space, and the passes
through a stack of layers, one part of the batch at a time."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from fastrnn import backends, threads
from fastrnn.checks import (
    NO_INDICES,
    check_choice,
    check_dtype,
    check_flag,
    check_number,
    check_real_array,
    check_rng,
    check_size,
    is_ours,
    kernel_array,
    own_arrays,
    warn_user,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import Nonlinearity

__all__ = ["IncompatibleKeys", "Layout", "Space", "Span", "StackedModel", "aligned", "warn_of_dropout"]

Shape = tuple[int, ...]

#: Arrays of one layer in one direction, as kernels take them: W_ih, W_hh, b_ih, b_hh.
Layer = tuple[np.ndarray, ...]

#: Bytes to which buffers are aligned: a cache line, and the widest register.
ALIGNMENT = 64

#: Batch shapes whose work space a model keeps: those of training and of validation.
KEPT_SPACES = 2


def aligned(shape: Shape, dtype: np.dtype) -> np.ndarray:
    """An array of zeros whose first element is at a multiple of `ALIGNMENT` bytes."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + size].view(dtype).reshape(shape)


class Layout:
    """Names and shapes of arrays, and their places in one flat array.

    Parameters
    ----------
    shapes : dict of str to tuple of int
    dtype : dtype

    Attributes
    ----------
    shapes : dict of str to tuple of int
    dtype : dtype
    size : int
        Elements of the flat array.  Each array begins at a multiple of 64 bytes in it; what lies between
        two of them stays zero.
    """

    def __init__(self, shapes: dict[str, Shape], dtype: np.dtype) -> None:
        self.shapes = shapes
        self.dtype = dtype
        self.size = 0
        self._places = {}
        step = ALIGNMENT // dtype.itemsize
        for name, shape in shapes.items():
            self._places[name] = slice(self.size, self.size + math.prod(shape))
            self.size += -(-math.prod(shape) // step) * step

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays that lie in `flat`."""
        return {name: flat[place].reshape(self.shapes[name]) for name, place in self._places.items()}


class IncompatibleKeys(NamedTuple):
    """What `StackedModel.load_state_dict` returns, as PyTorch does."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not any(self):
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class StackedModel:
    """Parameters, random stream, modes and state of a model that is a stack of recurrent layers."""

    parameters: dict[str, np.ndarray]
    grads: dict[str, np.ndarray]
    rng: np.random.Generator

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
        bias: bool = True,
        directions: int = 1,
        output_size: int = 0,
    ) -> None:
        self._d, self._h, self._q, self._directions = input_size, hidden_size, output_size, directions
        self._num_layers = check_size(num_layers, "num_layers")
        self._nonlinearity: Nonlinearity = check_choice(nonlinearity, "nonlinearity", ("tanh", "relu"))
        self._relu = nonlinearity == "relu"
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
        shapes: dict[str, Shape] = {}
        for names, d in zip(self._layer_names, self._widths(), strict=True):
            shapes.update(zip(names, ((h, d), (h, h), (h,), (h,)), strict=True))
        if q:
            shapes.update(weight_out=(q, h), bias_out=(q,))
        return Layout(shapes, self._dtype)

    def _widths(self) -> list[int]:
        """Input size of each layer and direction."""
        above = self._h * self._directions
        return [
            self._d if layer == 0 else above
            for layer in range(self._num_layers)
            for _ in range(self._directions)
        ]

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
        self._spaces: dict[tuple[Any, ...], Any] = {}
        self._no_bias = np.zeros(self._h, self._dtype)
        self.grads = {}

    # -- public ----------------------------------------------------------------------------------

    #: Of each model its own.
    forward: Callable[..., tuple[np.ndarray, np.ndarray]]

    def __call__(self, *arguments: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
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
    def nonlinearity(self) -> Nonlinearity:
        """``"tanh"`` or ``"relu"``."""
        return self._nonlinearity

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
                + (f"; unexpected: {', '.join(map(str, unexpected))}" if unexpected else "")
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
        for buffer in ("_spaces", "_no_bias", "grads"):
            del state[buffer]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(own_arrays(state))
        self._dtype = check_dtype(self._dtype)
        self._layout = self._make_layout()
        self.parameters = {name: kernel_array(W, self._dtype) for name, W in self.parameters.items()}
        self._set_up()

    # -- what the methods of both models share ---------------------------------------------------

    def _is_kernel_array(self, W: Any, shape: Shape) -> bool:
        return type(W) is np.ndarray and W.dtype is self._dtype and W.shape == shape and W.flags.carray

    def _checked_parameters(self) -> dict[str, np.ndarray]:
        """The parameters as kernels take them; copies of those that are not laid out so."""
        parameters, dtype = self.parameters, self._dtype
        checked = {}
        for name, shape in self._shapes.items():
            W = parameters.get(name)
            if type(W) is np.ndarray and W.dtype is dtype and W.shape == shape and W.flags.carray:
                checked[name] = W
            else:
                checked[name] = self._converted(name, W, shape)
        if len(parameters) != len(checked):
            unexpected = ", ".join(str(name) for name in parameters if name not in checked)
            raise ValueError(f"parameters must hold {', '.join(checked)}; unexpected: {unexpected}")
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
        if not self._bias:
            none = self._no_bias
            return [(arrays[W_ih], arrays[W_hh], none, none) for W_ih, W_hh, _, _ in self._layer_names]
        return [
            (arrays[W_ih], arrays[W_hh], arrays[b_ih], arrays[b_hh])
            for W_ih, W_hh, b_ih, b_hh in self._layer_names
        ]

    def _space(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """The work space for `key`; those of the shapes used last are kept."""
        space = self._spaces.get(key)
        if space is None:
            while len(self._spaces) >= KEPT_SPACES:
                del self._spaces[next(iter(self._spaces))]
            space = self._spaces[key] = make()
        elif len(self._spaces) > 1:
            self._spaces[key] = self._spaces.pop(key)  # the last one is the one used last
        return space

    def _check_state(self, value: Any, name: str, N: int) -> np.ndarray | None:
        """`value` as an array (L, N, h) of the model's dtype, or None for zeros."""
        if value is None:
            return None
        shape = (self._num_layers * self._directions, N, self._h)
        if type(value) is np.ndarray and value.dtype is self._dtype and value.shape == shape:
            return value
        return check_real_array(value, name, self._dtype, shape)

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


def _multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """``out = a * b``, time step by time step: of all at once, which are not contiguous, NumPy makes copies."""
    with np.errstate(all="ignore"):
        for a_t, b_t, out_t in zip(a, b, out, strict=True):
            np.multiply(a_t, b_t, out=out_t)


class Span:
    """The buffers of a stack for a number of time steps."""

    __slots__ = ("dhs", "dout", "douts", "dropped", "dxs", "hs", "masks", "outputs")

    def __init__(self, space: Space, T: int) -> None:
        def first(arrays: list[np.ndarray]) -> list[np.ndarray]:
            return arrays if space.steps == T else [array[:T] for array in arrays]

        self.hs = first(space.hs)
        self.outputs = first(space.outputs)
        self.dropped = first(space.dropped)
        self.masks = [first(masks) for masks in space.masks]
        self.dhs = first(space.dhs)
        self.dxs = first(space.dxs)
        self.douts = first(space.douts)
        #: Gradient of the outputs of the last layer.
        self.dout = self.douts[(len(self.outputs) - 1) % 2] if self.douts else space.none


class Space:
    """Work space of a `StackedModel` for batches of one shape, and its passes over a part of one.

    Parameters
    ----------
    model : StackedModel
    kernels : module
    T, N : int
        Time steps and sequences of the batch.
    steps : int
        Time steps that are kept at once: T, or fewer where the others are recomputed.
    one_hot : bool
        Whether inputs are class indices.
    gradients : bool
        Whether there will be a backward pass.
    """

    def __init__(
        self, model: StackedModel, kernels: ModuleType, T: int, N: int, steps: int, one_hot: bool, gradients: bool
    ) -> None:  # fmt: skip
        self.kernels, self.T, self.N, self.steps = kernels, T, N, steps
        self.dtype = dtype = model._dtype
        self.relu = model._relu
        self.p = model._dropout
        self.h, self.q = h, q = model._h, model._q
        self.L, self.D = L, D = model._num_layers, model._directions
        self.widths = model._widths()
        self.one_hot = one_hot
        self.bounds = threads.parts(N)
        # At least one, also for a batch of no sequences, of which no part is run.
        self.rows = rows = max(1, *(stop - start for start, stop in self.bounds))
        self.none = np.empty((0, 0, 0), dtype)
        self.no_state = np.empty((0, 0), dtype)

        def buffer(*shape: int) -> np.ndarray:
            return aligned(shape, dtype)

        sizes = [kernels.layer_sizes(steps, N, rows, d, h) for d in self.widths]
        self.packed = [buffer(packed) for packed, _ in sizes]
        self.work_size = max(work for _, work in sizes)
        self.works: list[np.ndarray] = []
        self.layers: list[Layer] = []

        out = h * D
        # Without a backward pass a layer's states are read by the next layer only.
        kept = L if gradients else min(L, 2)
        states = [[buffer(steps, N, h) for _ in range(D)] for _ in range(kept)]
        self.hs = [hs for layer in range(L) for hs in states[layer % kept]]
        if D == 1:
            self.outputs = self.hs
        else:
            joined = [buffer(steps, N, out) for _ in range(kept)]
            self.outputs = [joined[layer % kept] for layer in range(L)]

        self.dropped: list[np.ndarray] = []
        self.masks: list[list[np.ndarray]] = []
        self.generators: list[np.random.Generator] = []
        if gradients and self.p > 0 and L > 1:
            self.dropped = [buffer(steps, N, out) for _ in range(L - 1)]
            self._draws = 1 if dtype.itemsize == 8 else 2  # numbers of a 64-bit draw
            self._flat_masks = [
                [
                    buffer(steps, -(-(stop - start) * out // self._draws) * self._draws)
                    for start, stop in self.bounds
                ]
                for _ in range(L - 1)
            ]
            self.masks = [
                [
                    flat[:, : (stop - start) * out].reshape(steps, stop - start, out)
                    for flat, (start, stop) in zip(flats, self.bounds, strict=True)
                ]
                for flats in self._flat_masks
            ]

        self.dhs: list[np.ndarray] = []
        self.dxs: list[np.ndarray] = []
        self.douts: list[np.ndarray] = []
        if gradients:
            # A layer reads the gradient of its outputs from one and writes that of its inputs to the other.
            self.douts = [buffer(steps, N, out) for _ in range(min(L, 2))]
            if D == 2:
                self.dhs = [buffer(steps, N, h) for _ in range(2)]
                self.dxs = [buffer(steps, N, out)] if L > 1 else []
            self.part_gradients = buffer(len(self.bounds), model._layout.size)
            views = [model._layout.views(flat) for flat in self.part_gradients]
            self.layer_gradients = [
                [tuple(arrays[name] for name in names) for names in model._layer_names] for arrays in views
            ]
            self.output_gradients = [
                (arrays["weight_out"], arrays["bias_out"]) if q else () for arrays in views
            ]
        self._spans: dict[int, Span] = {}
        inputs = sum(self.widths[D:] if one_hot else self.widths)
        #: Of a forward pass.
        self.multiply_adds = float(T) * N * h * (inputs + h * L * D + q)

    def span(self, T: int) -> Span:
        """Buffers for the first `T` of `steps` time steps."""
        span = self._spans.get(T)
        if span is None:
            span = self._spans[T] = Span(self, T)
        return span

    def pack(self, layers: list[Layer]) -> None:
        """Take the weights of a call, in the order in which the kernels read them."""
        self.layers = layers
        if not self.N:
            return
        for i, (layer, packed) in enumerate(zip(layers, self.packed, strict=True)):
            self.kernels.pack_layer(layer, self.N, self.one_hot and i < self.D, packed)

    def run(
        self, function: Callable[[int, int], object], multiply_adds: float, num_threads: int | None
    ) -> None:
        """Call ``function(part, slot)`` for each part of the batch, `slot` being that of its work space."""
        count = len(self.bounds)
        if count == 1 and self.works:
            function(0, 0)
            return
        if not self.N:
            return
        workers = threads.workers(count, multiply_adds, num_threads)
        while len(self.works) < workers:
            if self.masks:  # first: each work space has its generator whatever fails
                self.generators.append(np.random.Generator(np.random.PCG64DXSM(0)))
            self.works.append(aligned((self.work_size,), self.dtype))
        if count > 1 and multiply_adds >= threads.SMALL and self.kernels.NAME == "numpy":
            with threads.one_blas_thread():
                threads.run(function, count, workers)
        else:
            threads.run(function, count, workers)

    def forward(
        self, span: Span, indices: np.ndarray, x: np.ndarray, lengths: np.ndarray, h0: Any, h_n: Any,
        part: int, slot: int, key: tuple[int, int] | None, t0: int,
    ) -> None:  # fmt: skip
        """States of every layer for the sequences of a part.

        `h0` and `h_n` hold an (N, h) array for each layer and direction.  `key` is where masks are drawn
        from, None for no dropout; `t0` is the first of the time steps.
        """
        start, stop = self.bounds[part]
        work, layer_forward, relu = self.works[slot], self.kernels.layer_forward, self.relu
        layers, packed, hs = self.layers, self.packed, span.hs
        if self.D == 1 and key is None:
            for i in range(self.L):
                layer_forward(
                    layers[i], packed[i], indices, x, lengths, h0[i], hs[i], h_n[i], start, stop, relu, False,
                    work,
                )  # fmt: skip
                indices, x = NO_INDICES, hs[i]
            return
        for layer in range(self.L):
            for direction in range(self.D):
                i = layer * self.D + direction
                layer_forward(
                    layers[i], packed[i], indices, x, lengths, h0[i], hs[i], h_n[i], start, stop, relu,
                    direction == 1, work,
                )  # fmt: skip
            indices, x = NO_INDICES, span.outputs[layer]
            if self.D == 2:
                x[:, start:stop, : self.h] = hs[i - 1][:, start:stop]
                x[:, start:stop, self.h :] = hs[i][:, start:stop]
            if key is not None and layer + 1 < self.L:
                masks = self._draw_masks(span, layer, part, slot, key, t0)
                dropped = span.dropped[layer]
                _multiply(x[:, start:stop], masks, dropped[:, start:stop])
                x = dropped

    def _draw_masks(
        self, span: Span, layer: int, part: int, slot: int, key: tuple[int, int], t0: int
    ) -> np.ndarray:
        """Factors 0 and 1/(1-p) for the outputs of a layer.

        Each layer and part has its section of the stream, and each time step its place in that: the
        masks are the same on any number of threads, and when time steps are recomputed.
        """
        masks = span.masks[layer][part]
        if self.p == 1:
            masks[...] = 0
            return masks
        flat = self._flat_masks[layer][part][: len(masks)]
        generator = self.generators[slot]
        stream: Any = generator.bit_generator
        state, increment = key
        stream.state = {
            "bit_generator": "PCG64DXSM",
            "state": {"state": state, "inc": increment},
            "has_uint32": 0,
            "uinteger": 0,
        }
        section = layer * len(self.bounds) + part
        stream.advance((section << 64) + t0 * (flat.shape[1] // self._draws))
        generator.random(out=flat.reshape(-1), dtype=self.dtype.type)
        # 1 where the number in [0, 1) is above p, 0 elsewhere; a comparison would go through buffers.
        flat -= self.p
        np.ceil(flat, out=flat)
        flat *= 1 / (1 - self.p)
        return masks

    def backward(
        self, span: Span, indices: np.ndarray, x: np.ndarray, lengths: np.ndarray, h0: Any, dh_n: Any, dh0: Any,
        dx: list[np.ndarray], accumulate: bool, part: int, slot: int, dropped: bool,
    ) -> None:  # fmt: skip
        """Gradients of every layer for the sequences of a part, from those in ``span.dout``.

        `dh_n` and `dh0` hold an (N, h) array for each layer and direction; `dx` holds one for the
        gradient of the inputs by each direction, without elements where it is not wanted: the sum of
        both is written to the first.
        """
        start, stop = self.bounds[part]
        work, layer_backward, relu = self.works[slot], self.kernels.layer_backward, self.relu
        gradients = self.layer_gradients[part]
        for layer in range(self.L - 1, -1, -1):
            dout = span.douts[layer % 2]
            if layer:
                inputs = (span.dropped if dropped else span.outputs)[layer - 1]
                classes = NO_INDICES
                below = [span.douts[(layer - 1) % 2], *span.dxs]
            else:
                inputs, classes, below = x, indices, dx
            for direction in range(self.D):
                i = layer * self.D + direction
                dhs = dout
                if self.D == 2:
                    dhs = span.dhs[direction]
                    columns = slice(direction * self.h, (direction + 1) * self.h)
                    dhs[:, start:stop] = dout[:, start:stop, columns]
                layer_backward(
                    self.layers[i], self.packed[i], classes, inputs, lengths, h0[i], span.hs[i], dhs, dh_n[i],
                    below[direction], dh0[i], self.none, gradients[i], accumulate, start, stop, relu,
                    direction == 1, work,
                )  # fmt: skip
            if self.D == 2 and below[0].size:
                with np.errstate(all="ignore"):
                    below[0][:, start:stop] += below[1][:, start:stop]
            if layer and dropped:
                gradient = below[0][:, start:stop]
                _multiply(gradient, span.masks[layer - 1][part], gradient)
