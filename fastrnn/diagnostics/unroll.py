"""A recurrent model opened up: its weights, the states of every time step, and the gradients that
reach them.

What `fastrnn.diagnostics` looks at.  Every model comes to the same form here, that of the batched
kernels, so that each diagnostic is written once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn import backends, threads
from fastrnn.checks import (
    INDEX,
    NO_INDICES,
    NO_LENGTHS,
    as_array,
    check_index_batch,
    check_indices,
    check_inputs,
    check_real_array,
    check_sequence_targets,
    check_size,
    check_steps,
    check_targets,
    index_batch,
    kernel_array,
)
from fastrnn.errors import not_fitted
from fastrnn.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from fastrnn.hints import NewLine

__all__ = [
    "Batch",
    "OpenModel",
    "Reached",
    "Unrolled",
    "backward",
    "check_layer",
    "forward",
    "norms_of",
    "open_batch",
    "open_model",
    "output_gradient",
    "outputs",
    "term_norms",
]

#: W_ih (h,d), W_hh (h,h), b_ih (h), b_hh (h), as kernels take them.
Layer = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

_Call = Callable[[int, int, int, np.ndarray], None]


@dataclass(frozen=True)
class OpenModel:
    """What a model is made of, whatever class it comes from.

    Attributes
    ----------
    model : object
        The model itself; of a `CharRNN` its `LanguageModel`.
    kind : {"SimpleRNN", "LanguageModel", "RNN"}
    kernels : module
        Of the model's backend.
    dtype : dtype
        float32 or float64, of every array here.
    relu : bool
        The nonlinearity is ``max(z, 0)``, not tanh.
    layers : tuple of tuple of Layer
        For each layer its one or two directions.
    output : tuple of ndarray, shapes (q, h) and (q,), or None
        The output layer; an `RNN` has none.
    batch_first, batched : bool
        How an `RNN` takes its arrays.
    vocabulary : Vocabulary or None
    unknown : str or None
        What a `CharRNN` does with characters that it never saw.
    newline : str or None
        What it does with line ends.
    """

    model: Any
    kind: str
    kernels: ModuleType
    dtype: np.dtype
    relu: bool
    layers: tuple[tuple[Layer, ...], ...]
    output: tuple[np.ndarray, np.ndarray] | None = None
    batch_first: bool = False
    vocabulary: Vocabulary | None = None
    unknown: str | None = None
    newline: NewLine | None = None

    @property
    def hidden_size(self) -> int:
        return len(self.layers[0][0][1])

    @property
    def input_size(self) -> int:
        return int(self.layers[0][0][0].shape[1])

    @property
    def directions(self) -> int:
        return len(self.layers[0])

    @property
    def reduction(self) -> str:
        """How the model's own loss is made of those of the time steps."""
        return "mean" if self.kind == "LanguageModel" else "sum"

    def recurrent_weights(self, layer: int, direction: int = 0) -> np.ndarray:
        """W_hh of a layer, shape (h, h), in float64."""
        return np.asarray(self.layers[layer][direction][1], np.float64)

    def weights(self) -> dict[str, np.ndarray]:
        """The weights under the names of the model's parameters, in their shapes."""
        if self.kind == "SimpleRNN":
            assert self.output is not None
            W_ih, W_hh, bias, _ = self.layers[0][0]
            Why, by = self.output
            return {"Wxh": W_ih, "Whh": W_hh, "Why": Why, "bh": bias[:, None], "by": by[:, None]}
        named = {}
        for number, directions in enumerate(self.layers):
            for ending, layer in zip(("", "_reverse"), directions, strict=False):
                for name, W in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), layer, strict=True):
                    named[f"{name}_l{number}{ending}"] = W
        if self.output is not None:
            named["weight_out"], named["bias_out"] = self.output
        return named

    def not_finite(self) -> list[str]:
        """Names of the weights that hold NaN or infinity."""
        return [name for name, W in self.weights().items() if not np.isfinite(W).all()]

    def in_float64(self) -> OpenModel:
        """The same net with its weights in float64."""
        wide = np.dtype(np.float64)

        def cast(arrays: Any) -> Any:
            return tuple(kernel_array(a, wide) for a in arrays)

        return replace(
            self,
            dtype=wide,
            layers=tuple(tuple(cast(direction) for direction in layer) for layer in self.layers),
            output=None if self.output is None else cast(self.output),
        )


def open_model(model: Any) -> OpenModel:
    """Read the weights of a `SimpleRNN`, `ReferenceRNN`, `RNN`, `LanguageModel` or fitted `CharRNN`.

    Raises
    ------
    TypeError
        If it is none of these.
    NotFittedError
        If it is a `CharRNN` that was not fitted.
    """
    if isinstance(model, OpenModel):
        return model
    if all(hasattr(model, name) for name in ("Wxh", "Whh", "Why", "bh", "by")):
        return _open_simple(model)
    parameters = getattr(model, "parameters", None)
    if isinstance(parameters, dict) and "weight_hh_l0" in parameters:
        return _open_layers(model, parameters)
    if hasattr(model, "model_"):
        return replace(
            open_model(model.model_),
            vocabulary=model.vocabulary_,
            unknown=model.unknown,
            newline=model.newline,
        )
    if hasattr(model, "partial_fit"):
        raise not_fitted(f"model must be fitted before it can be looked at: call {type(model).__name__}.fit")
    raise TypeError(
        f"model must be a SimpleRNN, RNN, LanguageModel or fitted CharRNN, got {type(model).__name__}"
    )


def _open_simple(model: Any) -> OpenModel:
    dtype = np.dtype(model.Whh.dtype.newbyteorder("="))
    h = len(model.Whh)

    def ready(array: np.ndarray) -> np.ndarray:
        return kernel_array(array, dtype)

    layer = (ready(model.Wxh), ready(model.Whh), ready(model.bh).reshape(h), np.zeros(h, dtype))
    return OpenModel(
        model, "SimpleRNN", backends.kernels(getattr(model, "_backend", None)), dtype, False, ((layer,),),
        (ready(model.Why), ready(model.by).reshape(-1)),
    )  # fmt: skip


def _open_layers(model: Any, parameters: dict[str, np.ndarray]) -> OpenModel:
    dtype = np.dtype(model.dtype)
    h = parameters["weight_hh_l0"].shape[0]
    none = np.zeros(h, dtype)
    endings = ("", "_reverse") if "weight_hh_l0_reverse" in parameters else ("",)

    def layer(number: int, ending: str) -> Layer:
        W_ih, W_hh, b_ih, b_hh = (
            kernel_array(parameters.get(f"{name}_l{number}{ending}", none), dtype)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        return W_ih, W_hh, b_ih, b_hh

    output = None
    if "weight_out" in parameters:
        output = (kernel_array(parameters["weight_out"], dtype), kernel_array(parameters["bias_out"], dtype))
    return OpenModel(
        model,
        "RNN" if output is None else "LanguageModel",
        backends.kernels(getattr(model, "_backend", None)),
        dtype,
        model.nonlinearity == "relu",
        tuple(tuple(layer(number, ending) for ending in endings) for number in range(model.num_layers)),
        output,
        bool(getattr(model, "batch_first", False)),
    )


# -- what the user passes in -------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Checked inputs and first states, as kernels take them.

    Attributes
    ----------
    indices : ndarray of int64, shape (T, N), or without elements
    x : ndarray, shape (T, N, d), or without elements
    h0 : ndarray, shape (layers * directions, N, h)
    targets : ndarray of int64, shape (T, N), or None
        Class indices, where the model has an output layer; -1 where nothing counts.
    batched : bool
        False where the user gave one sequence without a batch dimension.
    """

    indices: np.ndarray
    x: np.ndarray
    h0: np.ndarray
    targets: np.ndarray | None
    batched: bool

    @property
    def shape(self) -> tuple[int, int]:
        """T and N."""
        T, N = self.indices.shape if self.indices.size else self.x.shape[:2]
        return T, N

    def astype(self, dtype: np.dtype) -> Batch:
        """The same with real numbers of another dtype."""
        return replace(self, x=self.x.astype(dtype), h0=self.h0.astype(dtype))


def open_batch(m: OpenModel, inputs: Any, targets: Any = None, h0: Any = None) -> Batch:
    """Check inputs, class targets and first states for a model.

    Parameters
    ----------
    m : OpenModel
    inputs : array
        As the model's own methods take them; for a `CharRNN` a text as well, whose characters but
        the last are the inputs and but the first the targets where none are given.
    targets : array or None
        Class indices, as the model's own methods take them.
    h0 : array or None
        First states, zeros where None.

    Raises
    ------
    IndexError, TypeError, ValueError
        As the model's own methods.
    """
    if isinstance(inputs, str):
        inputs = _encode(m, inputs, "inputs")
        if targets is None:
            if len(inputs) < 2:
                raise ValueError("inputs must hold at least two characters of text")
            inputs, targets = inputs[:-1], inputs[1:]
    if isinstance(targets, str):
        targets = _encode(m, targets, "targets")
    grid, batched = _input_grid(m, inputs)
    T, N = grid.shape[:2]
    if grid.ndim == 2:
        indices, x = grid, np.empty((0, 0, m.input_size), m.dtype)
    else:
        indices, x = NO_INDICES, grid
    wanted = None
    if m.output is not None and targets is not None:
        wanted = _target_grid(m, targets, len(m.output[1]))
        if wanted.shape != (T, N):
            raise ValueError(
                f"targets must hold one class index for each input, {T} time steps of {N} sequences, "
                f"got {wanted.shape[0]} of {wanted.shape[1]}"
            )
    return Batch(indices, x, _first_states(m, h0, N, batched), wanted, batched)


def _encode(m: OpenModel, text: str, name: str) -> np.ndarray:
    if m.vocabulary is None:
        raise TypeError(f"{name} can be text for a CharRNN only; a {m.kind} takes class indices")
    if not text:
        raise ValueError(f"{name} must hold at least two characters of text")
    return m.vocabulary.encode(text, m.unknown, m.newline)


def _input_grid(m: OpenModel, inputs: Any) -> tuple[np.ndarray, bool]:
    """Inputs as (T, N) class indices or (T, N, d) vectors, and whether they came as a batch."""
    d = m.input_size
    if m.kind == "SimpleRNN":
        indices, x = check_inputs(inputs, d, m.dtype, m.kernels)
        return (x.reshape(len(x), 1, d) if len(x) else indices.reshape(-1, 1)), False
    if m.kind != "RNN":
        return _index_grid(inputs, "inputs", d, m.kernels)
    steps, classes, batched = check_steps(inputs, "inputs", d, m.dtype, batch_first=m.batch_first)
    if not steps.shape[1]:
        raise ValueError(f"inputs must have at least one sequence, got shape {np.shape(inputs)}")
    if not classes:
        return kernel_array(steps, m.dtype), batched
    grid = np.empty(steps.shape, INDEX)
    check_index_batch(steps, "inputs", d, m.kernels, grid.reshape(-1), inputs, m.batch_first)
    return grid, batched


def _index_grid(value: Any, name: str, bound: int, kernels: ModuleType) -> tuple[np.ndarray, bool]:
    """Class indices (T,) or (T, N) as (T, N) in [0, bound), and whether they had two dimensions."""
    array = as_array(value, name)
    if array.ndim == 1:
        return check_indices(value, name, bound, kernels).reshape(-1, 1), False
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape (T,) or (T, N), got {array.shape}")
    grid = index_batch(array, name)
    out = np.empty(grid.shape, INDEX)
    check_index_batch(grid, name, bound, kernels, out.reshape(-1), value)
    return out, True


def _target_grid(m: OpenModel, targets: Any, bound: int) -> np.ndarray:
    """Targets (T,) or (T, N) as (T, N), read as the model's own methods read them."""
    array = as_array(targets, "targets")
    if m.kind == "SimpleRNN":
        if array.ndim == 2 and array.dtype.kind != "b":
            return _index_grid(targets, "targets", bound, m.kernels)[0]
        return check_sequence_targets(targets, bound, m.kernels).reshape(-1, 1)
    grid = index_batch(array[:, None] if array.ndim == 1 else array, "targets")
    wanted = np.empty(grid.shape, INDEX)
    check_targets(grid, "targets", bound, m.kernels, wanted.reshape(-1), targets)
    return wanted


def _first_states(m: OpenModel, h0: Any, N: int, batched: bool) -> np.ndarray:
    h, count = m.hidden_size, len(m.layers) * m.directions
    if h0 is None:
        return np.zeros((count, N, h), m.dtype)
    if m.kind == "SimpleRNN":
        return check_real_array(h0, "h0", m.dtype, (h, 1)).reshape(1, 1, h)
    shapes = [(count, N, h)] if batched else [(count, h), (count, 1, h)]
    return check_real_array(h0, "h0", m.dtype, *shapes).reshape(count, N, h)


def check_layer(m: OpenModel, layer: Any) -> int:
    """Return the number of a layer, counted from the end where negative, as an index from 0 on."""
    count = len(m.layers)
    number = check_size(layer, "layer", minimum=-count)
    if number >= count:
        raise ValueError(f"layer must be from {-count} to {count - 1}, got {number}")
    return number % count


# -- forward and backward ----------------------------------------------------------------------------


class Memory:
    """Arrays of one call, from one piece: a large one comes in large pages, and the system takes far
    less time to provide those than thousands of small ones."""

    #: Bytes from which it pays, and room for pages of 2 MiB to begin where they must.
    LARGE, ROOM = 1 << 20, 1 << 22

    def __init__(self, size: int, dtype: np.dtype) -> None:
        room = self.ROOM // dtype.itemsize if size * dtype.itemsize >= self.LARGE else 0
        self._flat = np.empty(size + room, dtype)
        self._used = 0

    def take(self, *shape: int) -> np.ndarray:
        """An array that is not initialized; one of its own where the piece is used up."""
        size = math.prod(shape)
        start, end = self._used, self._used + size
        if end > len(self._flat):
            return np.empty(shape, self._flat.dtype)
        self._used = end + -end % 16  # at least 64 bytes from the next one
        return self._flat[start:end].reshape(shape)


@dataclass(frozen=True)
class Unrolled:
    """The states of every layer, direction and time step.

    Attributes
    ----------
    m : OpenModel
    batch : Batch
    hs : list of list of ndarray, shape (T, N, h)
        ``hs[layer][direction]``.
    packed : list of list of ndarray
        The weights in the kernels' order.
    memory : Memory
        Where large arrays are.
    works : list of ndarray
        Scratch space of each thread.
    """

    m: OpenModel
    batch: Batch
    hs: list[list[np.ndarray]]
    packed: list[list[np.ndarray]]
    memory: Memory
    works: list[np.ndarray]

    def new_states(self) -> np.ndarray:
        """An array (T, N, h) to be filled."""
        return self.memory.take(*self.batch.shape, self.m.hidden_size)

    def layer_input(self, layer: int) -> np.ndarray:
        """Vectors that a layer reads, shape (T, N, d), without elements for class indices."""
        return self.batch.x if layer == 0 else outputs(self.hs[layer - 1])

    def slopes(self, layer: int, direction: int = 0) -> np.ndarray:
        """Derivative of the nonlinearity at every step, from its value (eq. 4), (T, N, h) in float64."""
        hs = self.hs[layer][direction].astype(np.float64)
        return (hs > 0).astype(np.float64) if self.m.relu else 1 - hs * hs


def outputs(directions: list[np.ndarray]) -> np.ndarray:
    """What a layer gives to the next: the states of its directions side by side."""
    return directions[0] if len(directions) == 1 else np.concatenate(directions, axis=2)


def _in_parts(u: Unrolled, multiply_adds: float, work_size: int, call: _Call) -> None:
    """Call ``call(part, start, stop, work)`` for the parts of a batch, on the model's threads."""
    m, works = u.m, u.works
    bounds = threads.parts(u.batch.shape[1])
    count = threads.workers(len(bounds), multiply_adds, getattr(m.model, "num_threads", 1))
    if len(works) < count or len(works[0]) < work_size:
        works[:] = [u.memory.take(work_size) for _ in range(max(count, len(works)))]

    def one(part: int, slot: int) -> None:
        call(part, *bounds[part], works[slot])

    if count > 1 and m.kernels.NAME == "numpy":
        with threads.one_blas_thread():
            threads.run(one, len(bounds), count)
    else:
        threads.run(one, len(bounds), count)


def _largest_part(N: int) -> int:
    return max(stop - start for start, stop in threads.parts(N))


def _part_gradients(shapes: tuple[np.ndarray, ...], N: int) -> list[tuple[np.ndarray, ...]]:
    return [tuple(np.empty_like(W) for W in shapes) for _ in threads.parts(N)]


def _sum(parts: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    total = parts[0]
    for part in parts[1:]:
        for ours, theirs in zip(total, part, strict=True):
            ours += theirs
    return total


def forward(m: OpenModel, batch: Batch, more: int = 0) -> Unrolled:
    """Run a model over a batch, without dropout, and keep all states (eq. 1).

    `more` arrays of states will be wanted.
    """
    T, N = batch.shape
    h, rows = m.hidden_size, _largest_part(N)
    sizes = [m.kernels.layer_sizes(T, N, rows, layer[0].shape[1], h) for way in m.layers for layer in way]
    if m.output is not None:
        sizes.append(m.kernels.output_sizes(T, N, rows, h, len(m.output[1])))
    used_at_once = min(len(threads.parts(N)), threads.usable_cores())
    memory = Memory(
        (len(m.layers) * m.directions + more) * T * N * h
        + sum(packed for packed, _ in sizes)
        + used_at_once * max(work for _, work in sizes)
        + 16 * (more + 3 * len(sizes) + used_at_once),
        m.dtype,
    )
    unrolled = Unrolled(m, batch, [], [], memory, [])
    for number, directions in enumerate(m.layers):
        indices = batch.indices if number == 0 else NO_INDICES
        x = unrolled.layer_input(number)
        unrolled.hs.append([])
        unrolled.packed.append([])
        for direction, layer in enumerate(directions):
            d = layer[0].shape[1]
            packed_size, work_size = sizes[number * m.directions + direction]
            packed = memory.take(packed_size)
            m.kernels.pack_layer(layer, N, bool(indices.size), packed)
            hs, h_n = unrolled.new_states(), np.empty((N, h), m.dtype)
            h0 = batch.h0[number * m.directions + direction]
            step = functools.partial(
                _forward_part, m, layer, packed, indices, x, h0, hs, h_n, bool(direction)
            )
            _in_parts(unrolled, T * N * h * (h + (0 if indices.size else d)), work_size, step)
            unrolled.hs[-1].append(hs)
            unrolled.packed[-1].append(packed)
    return unrolled


def _forward_part(
    m: OpenModel, layer: Layer, packed: np.ndarray, indices: np.ndarray, x: np.ndarray, h0: np.ndarray,
    hs: np.ndarray, h_n: np.ndarray, reverse: bool, part: int, start: int, stop: int, work: np.ndarray,
) -> None:  # fmt: skip
    m.kernels.layer_forward(
        layer, packed, indices, x, NO_LENGTHS, h0, hs, h_n, start, stop, m.relu, reverse, work
    )


def output_gradient(u: Unrolled, reduction: str) -> tuple[float, np.ndarray, tuple[np.ndarray, ...]]:
    """Cross-entropy, its gradient by the outputs of the top layer (T, N, h), and by the output layer."""
    m, batch = u.m, u.batch
    assert m.output is not None
    assert batch.targets is not None
    T, N = batch.shape
    h, q = m.hidden_size, len(m.output[1])
    scale = 1 / max(int(np.count_nonzero(batch.targets >= 0)), 1) if reduction == "mean" else 1.0
    packed_size, work_size = m.kernels.output_sizes(T, N, _largest_part(N), h, q)
    packed = u.memory.take(packed_size)
    m.kernels.pack_output(m.output, N, packed)
    dhs = u.new_states()
    grads = _part_gradients(m.output, N)
    losses = [0.0] * len(grads)

    def loss_of_part(part: int, start: int, stop: int, work: np.ndarray) -> None:
        losses[part] = m.kernels.output_loss(
            m.output, packed, u.hs[-1][0], batch.targets, scale, dhs, grads[part], False, start, stop, work
        )

    _in_parts(u, 3 * T * N * h * q, work_size, loss_of_part)
    return sum(losses) * scale, dhs, _sum(grads)


@dataclass(frozen=True)
class Reached:
    """What backpropagation brought to one direction of one layer.

    Attributes
    ----------
    states : ndarray, shape (T, N, h), or without elements
        Gradient of every state, dL/dh_t (eqs. 9, 12).
    grads : tuple of 4 ndarray, or empty
        Gradients of W_ih, W_hh, b_ih and b_hh (eqs. 11, 13).
    """

    states: np.ndarray
    grads: tuple[np.ndarray, ...]


#: A layer and a direction.
Place = tuple[int, int]


def backward(
    u: Unrolled,
    d_outputs: np.ndarray,
    lowest: int,
    states: AbstractSet[Place],
    weights: AbstractSet[Place],
    out: np.ndarray | None = None,
) -> dict[Place, Reached]:
    """Backpropagate the gradient of the top layer's outputs (T, N, directions * h) down to a layer.

    Parameters
    ----------
    u : Unrolled
    d_outputs : ndarray
    lowest : int
        The last layer to be reached.
    states, weights : set of (int, int)
        Layers and directions whose states' gradients, and whose weights' gradients, are wanted.
    out : ndarray, shape (T, N, h), or None
        Where the states' gradients go, if those of one place are wanted; None makes a new array.

    Returns
    -------
    dict of (int, int) to Reached
    """
    reached = {}
    m, batch = u.m, u.batch
    T, N = batch.shape
    h = m.hidden_size
    none = np.empty((0, 0, 0), m.dtype)
    for number in range(len(m.layers) - 1, lowest - 1, -1):
        indices = batch.indices if number == 0 else NO_INDICES
        x = u.layer_input(number)
        below = None
        for direction, layer in enumerate(m.layers[number]):
            place = number, direction
            d = layer[0].shape[1]
            dhs = np.ascontiguousarray(d_outputs[:, :, direction * h : (direction + 1) * h])
            dx = np.empty((T, N, d), m.dtype) if number > lowest else none
            found = none
            if place in states:
                found = u.new_states() if out is None else out
            dh0 = np.empty((N, h), m.dtype)
            grads = _part_gradients(layer if place in weights else (), N)
            step = functools.partial(_backward_part, u, layer, place, indices, x, dhs, dx, dh0, found, grads)
            work_size = m.kernels.layer_sizes(T, N, _largest_part(N), d, h)[1]
            _in_parts(u, 2 * T * N * h * (h + (0 if indices.size else d)), work_size, step)
            reached[place] = Reached(found, _sum(grads))
            below = dx if below is None else below + dx
        if number > lowest:
            assert below is not None
            d_outputs = below
    return reached


def _backward_part(
    u: Unrolled, layer: Layer, place: Place, indices: np.ndarray, x: np.ndarray, dhs: np.ndarray,
    dx: np.ndarray, dh0: np.ndarray, dh_all: np.ndarray, grads: list[tuple[np.ndarray, ...]],
    part: int, start: int, stop: int, work: np.ndarray,
) -> None:  # fmt: skip
    m, (number, direction) = u.m, place
    m.kernels.layer_backward(
        layer, u.packed[number][direction], indices, x, NO_LENGTHS,
        u.batch.h0[number * m.directions + direction], u.hs[number][direction], dhs,
        np.empty((0, 0), m.dtype), dx, dh0, dh_all, grads[part], False, start, stop, m.relu, bool(direction),
        work,
    )  # fmt: skip


def term_norms(u: Unrolled, place: Place, states: np.ndarray) -> np.ndarray:
    """Frobenius norm of each step's term of dW_hh, ``sum_n dz_tn h_{t-1,n}'`` (eqs. 11, 13), shape (T,).

    Parameters
    ----------
    u : Unrolled
    place : (int, int)
    states : ndarray, shape (T, N, h)
        dL/dh_t.
    """
    m, (number, direction) = u.m, place
    hs, h0 = u.hs[number][direction], u.batch.h0[number * m.directions + direction]
    T, N, h = hs.shape
    norms: np.ndarray
    if N == 1:
        before = np.empty(T)
        first, others = (slice(-1, None), slice(T - 1)) if direction else (slice(1), slice(1, None))
        before[first] = norms_of(h0)
        before[others] = norms_of(hs)[1:] if direction else norms_of(hs)[:-1]
        with np.errstate(all="ignore"):
            if m.relu:
                dz = states * (hs > 0)
            else:
                dz = hs * hs
                np.subtract(1, dz, out=dz)
                dz *= states
            norms = norms_of(dz) * before
        return norms
    norms = np.empty(T)
    count = threads.workers(min(T, 8), float(T) * N * N * h, getattr(m.model, "num_threads", 1))

    def steps(part: int, slot: int) -> None:
        dz = np.empty((N, h), m.dtype)
        with np.errstate(all="ignore"):  # is told to each thread by itself
            for t in range(part * T // count, (part + 1) * T // count):
                if m.relu:
                    np.multiply(states[t], hs[t] > 0, out=dz)
                else:
                    np.multiply(hs[t], hs[t], out=dz)
                    np.subtract(1, dz, out=dz)
                    np.multiply(states[t], dz, out=dz)
                before = t + 1 if direction else t - 1
                norms[t] = _product_norm(dz, hs[before] if 0 <= before < T else h0)

    with threads.one_blas_thread():
        threads.run(steps, count, count)
    return norms


def _product_norm(a: np.ndarray, b: np.ndarray) -> float:
    """Frobenius norm of ``a' b``, for arrays (N, h)."""
    N, h = a.shape
    if h >= 2 * N:  # |a'b|^2 = <aa', bb'>: products of N by N in place of h by h
        square = float(np.vdot(a @ a.T, b @ b.T))
    else:
        product = a.T @ b
        square = float(np.vdot(product, product))
    return math.sqrt(max(square, 0)) if square < math.inf else square


def norms_of(vectors: np.ndarray) -> np.ndarray:
    """Norm of all that is in each entry of the first axis, in float64."""
    flat = vectors.reshape(len(vectors), -1)
    with np.errstate(all="ignore"):
        norms: np.ndarray = np.sqrt(np.einsum("ti,ti->t", flat, flat).astype(np.float64))
        ordinary = (norms > _smallest_norm(vectors.dtype)) & (norms < np.inf)
        if not ordinary.all():  # squares leave the range of the dtype before the values do
            outside = np.flatnonzero(~ordinary)
            norms[outside] = [_scaled_norm(row) for row in flat[outside]]
    return norms


@functools.lru_cache(maxsize=2)
def _smallest_norm(dtype: np.dtype) -> float:
    info = np.finfo(dtype)
    return math.sqrt(float(info.tiny) / float(info.eps))


def _scaled_norm(row: np.ndarray) -> float:
    largest = float(np.abs(row).max())
    if not 0 < largest < np.inf:
        return largest
    row = row.astype(np.float64) / largest
    return largest * math.sqrt(float(np.einsum("i,i->", row, row)))
