"""A recurrent model opened up: its weights, the states of every time step, and the gradients that
reach them.

What `fastrnn.diagnostics` looks at.  Every model comes to the same form here, that of the batched
kernels, so that each diagnostic is written once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn import backends, threads
from fastrnn.cells import TANH, Cell, Linear, cell_of
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
    describe,
    index_batch,
    kernel_array,
)
from fastrnn.errors import not_fitted
from fastrnn.functional.norms import norms_of
from fastrnn.goals import of_classes
from fastrnn.heads import Head
from fastrnn.kernels import CLIP_NONE
from fastrnn.layout import Layout, Memory
from fastrnn.losses import CROSS_ENTROPY, Loss
from fastrnn.passes import Call, Gradients, Layer, Net, Space
from fastrnn.sequence_model import SequenceModel
from fastrnn.simple_weights import PARAMETERS
from fastrnn.states import States, check_state
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
    "norms_of_states",
    "open_batch",
    "open_model",
    "output_gradient",
    "term_norms",
    "wanted_of",
]


@dataclass(frozen=True)
class OpenModel:
    """What a model is made of, whatever class it comes from.

    Attributes
    ----------
    model : object
        The model itself; of a `CharRNN` its `LanguageModel`, of an estimator its `SequenceModel`.
    name : str
        The class of what the user gave.
    kind : {"SimpleRNN", "LanguageModel", "SequenceModel", "layer"}
    kernels : module
        Of the model's backend.
    dtype : dtype
        float32 or float64, of every array here.
    cell : Cell
    layers : tuple of tuple of Layer
        For each layer its one or two directions.
    output : tuple of ndarray, shapes (q, directions * h) and (q,), or None
        The output layer; an `RNN` has none.
    head : type of Head
        Which states that reads.
    loss : Loss
        Of its outputs.
    batch_first, batched : bool
        How an `RNN` takes its arrays.
    vocabulary : Vocabulary or None
    unknown : str or None
        What a `CharRNN` does with characters that it never saw.
    newline : str or None
        What it does with line ends.
    """

    model: Any
    name: str
    kind: str
    kernels: ModuleType
    dtype: np.dtype
    cell: Cell
    layers: tuple[tuple[Layer, ...], ...]
    output: tuple[np.ndarray, np.ndarray] | None = None
    head: type[Head] = Head
    loss: Loss = CROSS_ENTROPY
    batch_first: bool = False
    vocabulary: Vocabulary | None = None
    unknown: str | None = None
    newline: NewLine | None = None

    @property
    def hidden_size(self) -> int:
        return int(self.layers[0][0][1].shape[1])

    @property
    def input_size(self) -> int:
        return int(self.layers[0][0][0].shape[1])

    @property
    def directions(self) -> int:
        return len(self.layers[0])

    @property
    def reduction(self) -> str:
        """How the model's own loss is made of those of the time steps."""
        return "mean" if self.kind in ("LanguageModel", "SequenceModel") else "sum"

    def recurrent_weights(self, layer: int, direction: int = 0) -> np.ndarray:
        """W_hh of a layer, shape (h, h), or (G*h, h) with gates, in float64."""
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
    """Read the weights of a model: a `SimpleRNN`, `ReferenceRNN`, `RNN`, `GRU`, `LSTM`, `LanguageModel` or
    `SequenceModel`, or a fitted `CharRNN`, `RNNRegressor` or `RNNClassifier`.

    Raises
    ------
    TypeError
        If it is none of these.
    NotFittedError
        If it is one of the last three, and was not fitted.
    """
    if isinstance(model, OpenModel):
        return model
    if all(hasattr(model, name) for name in PARAMETERS):
        return _open_simple(model)
    parameters = getattr(model, "parameters", None)
    if isinstance(parameters, dict) and "weight_hh_l0" in parameters and hasattr(model, "num_layers"):
        return _open_layers(model, parameters)
    if hasattr(model, "model_"):
        opened = replace(open_model(model.model_), name=type(model).__name__)
        if not hasattr(model, "vocabulary_"):
            return opened
        return replace(opened, vocabulary=model.vocabulary_, unknown=model.unknown, newline=model.newline)
    if hasattr(model, "fit") and hasattr(model, "hidden_size"):
        raise not_fitted(f"model must be fitted before it can be looked at: call {type(model).__name__}.fit")
    raise TypeError(
        f"model must be a SimpleRNN, RNN, GRU, LSTM, LanguageModel or fitted CharRNN, a SequenceModel, or a fitted "
        f"RNNRegressor or RNNClassifier, got {type(model).__name__}"
    )


def _open_simple(model: Any) -> OpenModel:
    dtype = np.dtype(model.Whh.dtype.newbyteorder("="))
    h = len(model.Whh)

    def ready(array: np.ndarray) -> np.ndarray:
        return kernel_array(array, dtype)

    layer = (ready(model.Wxh), ready(model.Whh), ready(model.bh).reshape(h), np.zeros(h, dtype))
    return OpenModel(
        model, type(model).__name__, "SimpleRNN", backends.kernels(getattr(model, "_backend", None)), dtype, TANH,
        ((layer,),), (ready(model.Why), ready(model.by).reshape(-1)),
    )  # fmt: skip


def _open_layers(model: Any, parameters: dict[str, np.ndarray]) -> OpenModel:
    dtype = np.dtype(model.dtype)
    none = np.zeros(len(parameters["weight_hh_l0"]), dtype)
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
        type(model).__name__,
        "layer"
        if output is None
        else "SequenceModel"
        if isinstance(model, SequenceModel)
        else "LanguageModel",
        backends.kernels(getattr(model, "_backend", None)),
        dtype,
        _cell_of(model),
        tuple(tuple(layer(number, ending) for ending in endings) for number in range(model.num_layers)),
        output,
        getattr(model, "_head", Head),
        getattr(model, "_loss", CROSS_ENTROPY),
        bool(getattr(model, "batch_first", False)),
    )


def _cell_of(model: Any) -> Cell:
    """The cell of a model with layers."""
    kind = getattr(model, "_kind", None)
    return kind if isinstance(kind, Cell) else cell_of("rnn", model.nonlinearity)


# -- what the user passes in -------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Checked inputs and first states, as kernels take them.

    Attributes
    ----------
    indices : ndarray of int64, shape (T, N), or without elements
    x : ndarray, shape (T, N, d), or without elements
    h0 : tuple of ndarray, shape (layers * directions, N, h)
        One for each kind of state.
    targets : ndarray of int64, shape (T, N), or of real numbers, shape (T, N, k); or None
        Of a model with an output layer: class indices, -1 where nothing counts, or values.  T is 1 where there is one
        output for a sequence.
    batched : bool
        False where the user gave one sequence without a batch dimension.
    """

    indices: np.ndarray
    x: np.ndarray
    h0: tuple[np.ndarray, ...]
    targets: np.ndarray | None
    batched: bool

    @property
    def shape(self) -> tuple[int, int]:
        """T and N."""
        T, N = self.indices.shape if self.indices.size else self.x.shape[:2]
        return T, N

    def astype(self, dtype: np.dtype) -> Batch:
        """The same with real numbers of another dtype."""
        targets = self.targets
        if targets is not None and targets.dtype.kind == "f":
            targets = targets.astype(dtype)
        h0 = tuple(state.astype(dtype) for state in self.h0)
        return replace(self, x=self.x.astype(dtype), h0=h0, targets=targets)


def open_batch(m: OpenModel, inputs: Any, targets: Any = None, h0: Any = None) -> Batch:
    """Check inputs, targets and first states for a model.

    Parameters
    ----------
    m : OpenModel
    inputs : array
        As the model's own methods take them; for a `CharRNN` a text as well, whose characters but
        the last are the inputs and but the first the targets where none are given.
    targets : array or None
        Class indices or values, as the model's own methods take them.
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
        wanted = (_sequence_targets if m.kind == "SequenceModel" else _target_grid)(m, targets, T, N)
        if wanted.shape[:2] != (T if m.head.per_step else 1, N):
            raise ValueError(
                f"targets must hold one class index for each input, {T} time steps of {N} sequences, "
                f"got {wanted.shape[0]} of {wanted.shape[1]}"
            )
    return Batch(indices, x, _first_states(m, h0, N, batched), wanted, batched)


def _encode(m: OpenModel, text: str, name: str) -> np.ndarray:
    if m.vocabulary is None:
        raise TypeError(
            f"{name} can be text for a CharRNN only; {m.name} takes "
            f"{'class indices' if m.kind == 'LanguageModel' else 'vectors or class indices'}"
        )
    if not text:
        raise ValueError(f"{name} must hold at least two characters of text")
    return m.vocabulary.encode(text, m.unknown, m.newline)


def _input_grid(m: OpenModel, inputs: Any) -> tuple[np.ndarray, bool]:
    """Inputs as (T, N) class indices or (T, N, d) vectors, and whether they came as a batch."""
    d = m.input_size
    if m.kind == "SimpleRNN":
        indices, x = check_inputs(inputs, d, m.dtype, m.kernels)
        return (x.reshape(len(x), 1, d) if len(x) else indices.reshape(-1, 1)), False
    if m.kind == "LanguageModel":
        return _index_grid(inputs, "inputs", d, m.kernels)
    steps, classes, batched = check_steps(
        inputs, "inputs", d, m.dtype, batch_first=m.batch_first, one=m.kind == "layer"
    )
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


def _target_grid(m: OpenModel, targets: Any, T: int, N: int) -> np.ndarray:
    """Targets (T,) or (T, N) as (T, N), read as the model's own methods read them."""
    array, bound = as_array(targets, "targets"), _outputs_of(m)
    if m.kind == "SimpleRNN":
        if array.ndim == 2 and array.dtype.kind != "b":
            return _index_grid(targets, "targets", bound, m.kernels)[0]
        return check_sequence_targets(targets, bound, m.kernels).reshape(-1, 1)
    return _classes_of(m, index_batch(array[:, None] if array.ndim == 1 else array, "targets"), targets)


def _sequence_targets(m: OpenModel, targets: Any, T: int, N: int) -> np.ndarray:
    """Targets of a `SequenceModel` as in `Batch`: of each time step, or of each sequence."""
    per_step = m.head.per_step
    if not m.loss.takes_classes:
        size = _outputs_of(m) // m.loss.outputs
        values = check_real_array(targets, "targets", m.dtype, (T, N, size) if per_step else (N, size))
        return values if per_step else values[None]
    if per_step:
        return _classes_of(m, index_batch(targets, "targets"), targets)
    array = as_array(targets, "targets")
    if array.shape != (N,):
        came = f"shape {array.shape}" if array.ndim else describe(targets)
        raise ValueError(f"targets must have shape ({N},), one class for each sequence, got {came}")
    return _classes_of(m, index_batch(array[None], "targets"), targets)


def _classes_of(m: OpenModel, grid: np.ndarray, given: Any) -> np.ndarray:
    """Class indices, -1 where nothing counts."""
    wanted = np.empty(grid.shape, INDEX)
    check_targets(grid, "targets", _outputs_of(m), m.kernels, wanted.reshape(-1), given)
    return wanted


def _outputs_of(m: OpenModel) -> int:
    assert m.output is not None
    return len(m.output[1])


def _first_states(m: OpenModel, h0: Any, N: int, batched: bool) -> tuple[np.ndarray, ...]:
    h, count = m.hidden_size, len(m.layers) * m.directions
    if h0 is None:
        return tuple(np.zeros((count, N, h), m.dtype) for _ in m.cell.states)
    if m.kind == "SimpleRNN":
        return (check_real_array(h0, "h0", m.dtype, (h, 1)).reshape(1, 1, h),)
    shapes = [(count, N, h)] if batched else [(count, h), (count, 1, h)]
    given = check_state(h0, "h0", m.dtype, m.cell.states, *shapes)
    return tuple(state.reshape(count, N, h) for state in given)


def check_layer(m: OpenModel, layer: Any) -> int:
    """Return the number of a layer, counted from the end where negative, as an index from 0 on."""
    count = len(m.layers)
    number = check_size(layer, "layer", minimum=-count)
    if number >= count:
        raise ValueError(f"layer must be from {-count} to {count - 1}, got {number}")
    return number % count


# -- forward and backward ----------------------------------------------------------------------------


#: A layer and a direction.
Place = tuple[int, int]


@dataclass(frozen=True)
class Unrolled:
    """The states of every layer, direction and time step.

    Attributes
    ----------
    m : OpenModel
    batch : Batch
    call : Call
        Which made them.
    hs : list of list of ndarray, shape (T, N, h)
        ``hs[layer][direction]``.
    kept : list of list of ndarray, shape (T, N, K, h)
        Likewise, what a cell with gates has kept, see `Cell.kept`.
    h_n : States
        The last ones.
    memory : Memory
        Where large arrays are.
    """

    m: OpenModel
    batch: Batch
    call: Call
    hs: list[list[np.ndarray]]
    kept: list[list[np.ndarray]]
    h_n: States
    memory: Memory

    def new_states(self) -> np.ndarray:
        """An array (T, N, h) to be filled."""
        return self.memory.take((*self.batch.shape, self.m.hidden_size), self.m.dtype)

    @property
    def outputs(self) -> np.ndarray:
        """States of the top layer, those of both directions side by side, shape (T, N, directions * h)."""
        return self.call.space.outputs[-1]

    @property
    def num_threads(self) -> int | None:
        """Most threads that a pass may use."""
        return _threads_of(self.m)

    def slopes(self, layer: int, direction: int = 0) -> np.ndarray:
        """Derivative of the nonlinearity at every step, from its value (eq. 4), (T, N, h) in float64.

        Of a cell without gates.
        """
        assert self.m.cell.slope is not None
        return self.m.cell.slope(self.hs[layer][direction].astype(np.float64))

    def linear(self, place: Place, t: Any, n: Any) -> Linear:
        """Steps to the time steps `t` of the sequences `n` (arrays of one shape) to first order, in float64."""
        number, direction = place
        hs, kept = self.hs[number][direction], self.kept[number][direction]
        before = tuple(state.astype(np.float64) for state in self.before(place, t, n))
        kept = (kept[t, n] if kept.size else kept).astype(np.float64)
        return self.m.cell.linear(before, hs[t, n].astype(np.float64), kept)

    def before(self, place: Place, t: Any, n: Any) -> tuple[np.ndarray, ...]:
        """States before the time steps `t` of the sequences `n`, in the order in which the layer meets them."""
        number, direction = place
        i, T = number * self.m.directions + direction, len(self.hs[number][direction])
        earlier = np.asarray(t) + (1 if direction else -1)
        first = (earlier < 0) | (earlier >= T)
        inside = np.where(first, 0, earlier)
        later = [self.hs[number][direction]]
        if len(self.m.cell.states) > 1:  # c is the last of what an LSTM keeps
            later.append(self.kept[number][direction][:, :, -1])
        return tuple(
            np.where(first[..., None], h0[i][n], states[inside, n])
            for h0, states in zip(self.batch.h0, later, strict=True)
        )


def _threads_of(m: OpenModel) -> int | None:
    threads: int | None = getattr(m.model, "num_threads", 1)
    return threads


def forward(m: OpenModel, batch: Batch, more: int = 0) -> Unrolled:
    """Run a model over a batch, without dropout, and keep all states (eq. 1).

    `more` arrays of states will be wanted.
    """
    T, N = batch.shape
    h, L, D = m.hidden_size, len(m.layers), m.directions
    states, kept = len(m.cell.states), len(m.cell.kept)
    arrays = L * D * ((2 if D == 2 else 1) + kept) + more * states
    memory = Memory(arrays * (T * N * h + 16), m.dtype)
    net = Net(m.dtype, m.cell, m.input_size, h, 0 if m.output is None else len(m.output[1]), L, D)
    space = Space(
        m.kernels, net, T, N, bool(batch.indices.size), keep=True, one_output=not m.head.per_step, take=memory.take
    )  # fmt: skip
    layers = [layer for directions in m.layers for layer in directions]
    call = Call(space, layers, m.output, num_threads=_threads_of(m))
    hs = [space.hs[layer * D : (layer + 1) * D] for layer in range(L)]
    kept_of = [space.kept[layer * D : (layer + 1) * D] for layer in range(L)]
    last = States(np.empty((L * D, N, h), m.dtype) for _ in m.cell.states)
    unrolled = Unrolled(m, batch, call, hs, kept_of, last, memory)
    h0, h_n, span = States(batch.h0).places, last.places, space.span(T)

    def forward_part(part: int, slot: int) -> None:
        call.forward(span, batch.indices, batch.x, h0, h_n, part, slot)

    call.run(forward_part, space.multiply_adds)
    return unrolled


def wanted_of(m: OpenModel, batch: Batch) -> np.ndarray:
    """The targets of a batch for a model with an output layer.

    Raises
    ------
    TypeError
        If there are none.
    """
    if batch.targets is not None:
        return batch.targets
    what = "class indices, one" if m.loss.takes_classes else "an array of values, a row"
    raise TypeError(f"targets must be {what} for each {'input' if m.head.per_step else 'sequence'}, got None")


def output_gradient(u: Unrolled, reduction: str) -> tuple[float, np.ndarray, tuple[np.ndarray, ...]]:
    """The model's own loss, its gradient by the outputs of the top layer, and that by the output layer.

    The first of the two is (T, N, directions * h): what reaches a last state by the head is at that state's time step.
    """
    m, space = u.m, u.call.space
    targets, classes = wanted_of(m, u.batch), m.loss.takes_classes
    assert m.output is not None
    T, N = u.batch.shape
    counted = int(np.count_nonzero(targets >= 0)) if classes else targets.size
    scale = 1 / max(counted, 1) if reduction == "mean" else 1.0
    goal: tuple[Any, ...] = of_classes(targets, m.dtype)
    if not classes:
        goal = m.loss.code, np.empty((0, 0), INDEX), targets, goal[-1]
    layout = Layout({"weight_out": m.output[0].shape, "bias_out": m.output[1].shape}, m.dtype)
    gradients = Gradients(layout, [], ("weight_out", "bias_out"), space)
    losses = [0.0] * len(space.shares)
    head, h, per_step = m.head(space, True), space.net.h, m.head.per_step
    span = copy.copy(space.span(T))
    span.dout = u.memory.take((T, N, m.directions * h), m.dtype)
    if not per_step:
        span.dout.fill(0)

    def loss_of_part(part: int, slot: int) -> None:
        features, d_features = span.outputs[-1], span.dout
        if not per_step:
            head.add(span, part, True)
            head.finish(part, u.h_n, NO_LENGTHS)
            features, d_features = head.features(u.h_n), head.gradient
        losses[part] = u.call.loss_of(features, goal, scale, d_features, gradients.output[part], part, slot)
        if not per_step:
            head.spread(span, part, True)

    u.call.run(loss_of_part, 3.0 * len(targets) * N * m.directions * h * space.net.q)
    for direction, (dh, *_) in enumerate(head.dh_n[-m.directions :]):
        if dh.size:
            last = 0 if space.net.reverse[direction] else T - 1
            span.dout[last, :, direction * h : (direction + 1) * h] += dh
    return sum(losses) * scale, span.dout, tuple(_total(u, gradients, layout).values())


def _total(u: Unrolled, gradients: Gradients, layout: Layout) -> dict[str, np.ndarray]:
    """Sums over all parts."""
    flat = np.empty(layout.size, layout.dtype)
    u.m.kernels.reduce_gradients(gradients.sums, CLIP_NONE, math.inf, flat)
    return layout.views(flat)


@dataclass(frozen=True)
class Reached:
    """What backpropagation brought to one direction of one layer.

    Attributes
    ----------
    states : tuple of ndarray, shape (T, N, h), or without elements
        Gradient of every state, dL/dh_t (eqs. 9, 12), and dL/dc_t as far as it does not come by h_t.
    grads : tuple of 4 ndarray, or empty
        Gradients of W_ih, W_hh, b_ih and b_hh (eqs. 11, 13).
    """

    states: tuple[np.ndarray, ...]
    grads: tuple[np.ndarray, ...]

    def norms(self) -> np.ndarray:
        """Of each step's gradient, those of all states together, shape (T,)."""
        return norms_of_states(self.states)


def norms_of_states(states: tuple[np.ndarray, ...]) -> np.ndarray:
    """Norms over units and sequences, of all states together."""
    norms = norms_of(states[0])
    for more in states[1:]:
        norms = np.hypot(norms, norms_of(more))
    return norms


def backward(
    u: Unrolled,
    d_outputs: np.ndarray,
    lowest: int,
    states: AbstractSet[Place],
    weights: AbstractSet[Place],
    out: tuple[np.ndarray, ...] | None = None,
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
    out : tuple of ndarray, shape (T, N, h), or None
        Where the states' gradients go, if those of one place are wanted; None makes new arrays.

    Returns
    -------
    dict of (int, int) to Reached
    """
    m, batch, space = u.m, u.batch, u.call.space
    T, N = batch.shape
    L, D, h = space.net.L, space.net.D, space.net.h
    places = [(layer, direction) for layer in range(L) for direction in range(D)]
    names = [tuple(f"{name} {place}" for name in ("W_ih", "W_hh", "b_ih", "b_hh")) for place in places]
    shapes = {
        name: W.shape
        for (layer, direction), four in zip(places, names, strict=True)
        if (layer, direction) in weights
        for name, W in zip(four, m.layers[layer][direction], strict=True)
    }
    layout = Layout(shapes, m.dtype)
    gradients = Gradients(layout, names, (), space)
    kinds = m.cell.states
    none = (space.none,) * len(kinds)
    d_states = [
        (tuple(u.new_states() for _ in kinds) if out is None else out) if place in states else none
        for place in places
    ]
    space.prepare_backward(np.ascontiguousarray(d_outputs))
    span, dx, dh_n = space.span(T), [space.none] * D, [space.no_states] * (L * D)
    h0 = States(batch.h0).places
    dh0 = States(np.empty((L * D, N, h), m.dtype) for _ in kinds).places

    def backward_part(part: int, slot: int) -> None:
        u.call.backward(
            span, batch.indices, batch.x, h0, dh_n, dh0, dx, gradients.layers[part], part, slot,
            lowest=lowest, d_states=d_states,
        )  # fmt: skip

    u.call.run(backward_part, 2 * space.multiply_adds)
    sums = _total(u, gradients, layout)
    return {
        place: Reached(d_states[i], tuple(sums[name] for name in names[i] if name in sums))
        for i, place in enumerate(places)
        if place[0] >= lowest
    }


def term_norms(u: Unrolled, place: Place, states: tuple[np.ndarray, ...]) -> np.ndarray:
    """Frobenius norm of each step's term of dW_hh, ``sum_n dz_tn h_{t-1,n}'`` (eqs. 11, 13), shape (T,).

    Parameters
    ----------
    u : Unrolled
    place : (int, int)
    states : tuple of ndarray, shape (T, N, h)
        dL/dh_t, and dL/dc_t.
    """
    m, (number, direction) = u.m, place
    slope = m.cell.slope
    if slope is None:
        return _gated_term_norms(u, place, states)
    (d_hs,) = states
    hs, h0 = u.hs[number][direction], u.batch.h0[0][number * m.directions + direction]
    T, N, h = hs.shape
    norms: np.ndarray
    if N == 1:
        before = np.empty(T)
        first, others = (slice(-1, None), slice(T - 1)) if direction else (slice(1), slice(1, None))
        before[first] = norms_of(h0)
        before[others] = norms_of(hs)[1:] if direction else norms_of(hs)[:-1]
        with np.errstate(all="ignore"):
            dz = slope(hs)
            dz *= d_hs
            norms = norms_of(dz) * before
        return norms
    norms = np.empty(T)
    count = threads.workers(min(T, 8), float(T) * N * N * h, u.num_threads)

    def steps(part: int, slot: int) -> None:
        with np.errstate(all="ignore"):  # is told to each thread by itself
            for t in range(part * T // count, (part + 1) * T // count):
                dz = slope(hs[t])
                dz *= d_hs[t]
                before = t + 1 if direction else t - 1
                norms[t] = _product_norm(dz, hs[before] if 0 <= before < T else h0)

    with threads.one_blas_thread():
        threads.run(steps, count, count)
    return norms


def _gated_term_norms(u: Unrolled, place: Place, states: tuple[np.ndarray, ...]) -> np.ndarray:
    """`term_norms` of a cell with gates: dz has a block for each of them."""
    T, N, h = states[0].shape
    norms, sequences = np.empty(T), np.arange(N)
    count = threads.workers(min(T, 8), float(T) * N * N * h, u.num_threads)

    def steps(part: int, slot: int) -> None:
        with np.errstate(all="ignore"):
            for t in range(part * T // count, (part + 1) * T // count):
                times = np.full(N, t)
                by_gate = u.linear(place, times, sequences).by_gate
                dz = np.einsum(
                    "sgnh,snh->ngh", by_gate, np.stack([state[t] for state in states]).astype(np.float64)
                )
                h_before = u.before(place, times, sequences)[0].astype(np.float64)
                norms[t] = _product_norm(dz.reshape(N, -1), h_before)

    with threads.one_blas_thread():
        threads.run(steps, count, count)
    return norms


def _product_norm(a: np.ndarray, b: np.ndarray) -> float:
    """Frobenius norm of ``a' b``, for arrays of N rows."""
    N, h = a.shape[0], min(a.shape[1], b.shape[1])
    if h >= 2 * N:  # |a'b|^2 = <aa', bb'>: products of N by N in place of h by h
        square = float(np.vdot(a @ a.T, b @ b.T))
    else:
        product = a.T @ b
        square = float(np.vdot(product, product))
    return math.sqrt(max(square, 0)) if square < math.inf else square
