"""One recurrent layer over a batch, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn import backends
from fastrnn.cells import CELLS, NONLINEARITIES, Cell
from fastrnn.checks import (
    INDEX,
    NO_INDICES,
    check_choice,
    check_flag,
    check_index_batch,
    check_lengths,
    check_real_array,
    check_size,
    check_steps,
)
from fastrnn.errors import brief, brief_names
from fastrnn.kernels import CLIP_NONE
from fastrnn.layout import Layout, aligned
from fastrnn.passes import Call, Gradients, Net, Space
from fastrnn.states import check_state, public

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import BackendName, Nonlinearity

__all__ = ["rnn_backward", "rnn_forward"]


def rnn_forward(
    x: ArrayLike,
    h0: ArrayLike | None,
    parameters: Mapping[str, np.ndarray],
    *,
    nonlinearity: Nonlinearity = "tanh",
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    backend: BackendName | None = None,
    num_threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""States of a layer over a batch, :math:`h_t = f(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})` (eq. 1).

    Parameters
    ----------
    x : array, shape (T, N, d), or of int, shape (T, N)
        Inputs; integers are class indices in ``[-d, d)``, taken as one-hot vectors.  There may be no
        sequences.
    h0 : array, shape (N, h), or None
        State before the first input; None for zeros.
    parameters : dict of str to ndarray, all float32 or all float64
        ``weight_ih`` (h, d), ``weight_hh`` (h, h) and, both or none, ``bias_ih`` (h,) and ``bias_hh`` (h,).
    nonlinearity : {"tanh", "relu"}, default "tanh"
        f.
    lengths : sequence of N int, or None
        Time steps of each sequence, from 1 to T; what follows them in `x` is not read.  None for T.
    reverse : bool, default False
        Begin with the last time step of each sequence.
    backend : {"cython", "numba", "numpy"} or None
        None is the one in use, see `fastrnn.backend`.
    num_threads : int or None
        Most threads that share the batch; None for the cores that the process may run on.  Results are the
        same bits on any number.

    Returns
    -------
    output : ndarray, shape (T, N, h)
        State after each input, zero beyond the length of a sequence.
    h_n : ndarray, shape (N, h)
        State after the last input of each sequence; the first one where it runs in reverse.

    Raises
    ------
    IndexError
        If a class index is out of bounds.
    TypeError, ValueError
        If an argument has the wrong type, dtype, shape or range, or there is no time step.
    BackendUnavailable
        If the backend that was named is missing.

    Warns
    -----
    UserWarning
        If `x` is of integers that look like the one-hot vectors of one sequence.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> parameters = {"weight_ih": rng.normal(size=(4, 3)), "weight_hh": rng.normal(size=(4, 4)) * 0.1}
    >>> output, h_n = rnn_forward(rng.normal(size=(5, 2, 3)), None, parameters)
    >>> output.shape, bool((output[-1] == h_n).all())
    ((5, 2, 4), True)
    """
    cell = CELLS[check_choice(nonlinearity, "nonlinearity", NONLINEARITIES)]
    return forward(OneLayer(cell, x, h0, parameters, lengths, reverse, backend, num_threads))


def rnn_backward(
    grad_output: ArrayLike | None,
    grad_h_n: ArrayLike | None,
    x: ArrayLike,
    h0: ArrayLike | None,
    output: ArrayLike,
    parameters: Mapping[str, np.ndarray],
    *,
    nonlinearity: Nonlinearity = "tanh",
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    backend: BackendName | None = None,
    num_threads: int | None = None,
) -> tuple[np.ndarray | None, np.ndarray, dict[str, np.ndarray]]:
    """Gradients of `rnn_forward` by BPTT (eqs. 9 to 13).

    Parameters
    ----------
    grad_output : array, shape (T, N, h), or None
        Gradient of the loss with respect to `output`; None for zeros.  What lies beyond the length of a
        sequence is not read.
    grad_h_n : array, shape (N, h), or None
        Gradient with respect to `h_n`; None for zeros.
    x, h0, parameters, nonlinearity, lengths, reverse, backend, num_threads
        As given to `rnn_forward`.
    output : array, shape (T, N, h)
        As returned by it.

    Returns
    -------
    grad_x : ndarray, shape (T, N, d), or None
        None where `x` holds class indices.
    grad_h0 : ndarray, shape (N, h)
    grads : dict of str to ndarray
        Gradients of the parameters, under their names.

    Raises
    ------
    IndexError, TypeError, ValueError, BackendUnavailable
        As `rnn_forward`.

    Examples
    --------
    >>> parameters = {"weight_ih": np.ones((1, 2)), "weight_hh": np.ones((1, 1))}
    >>> x = np.zeros((3, 1, 2))
    >>> output, h_n = rnn_forward(x, None, parameters)
    >>> grad_x, grad_h0, grads = rnn_backward(np.ones((3, 1, 1)), None, x, None, output, parameters)
    >>> grad_x[:, 0, 0], grad_h0, list(grads)
    (array([3., 2., 1.]), array([[3.]]), ['weight_ih', 'weight_hh'])
    """
    cell = CELLS[check_choice(nonlinearity, "nonlinearity", NONLINEARITIES)]
    layer = OneLayer(cell, x, h0, parameters, lengths, reverse, backend, num_threads)
    return backward(layer, grad_output, grad_h_n, output)


# -- whatever the cell -------------------------------------------------------------------------------


def forward(layer: OneLayer) -> tuple[np.ndarray, Any]:
    """Output and last state."""
    space, call = layer.begin()
    return space.hs[0], layer.run(space, call)


def backward(
    layer: OneLayer, grad_output: Any, grad_h_n: Any, output: Any
) -> tuple[np.ndarray | None, Any, dict[str, np.ndarray]]:
    """Gradients of `forward`.  What a cell with gates had to keep for them is computed again."""
    net, dtype, shape = layer.net, layer.net.dtype, (layer.T, layer.N, layer.net.h)
    states = check_real_array(output, "output", dtype, shape)
    if grad_output is None:
        grad_output = np.zeros(shape, dtype)
    dout = check_real_array(grad_output, "grad_output", dtype, shape)
    if net.cell.kept:
        space, call = layer.begin(keep=True)
        layer.run(space, call)
    else:
        space, call = layer.begin(hs=[states])
    dh_n = space.no_states
    if grad_h_n is not None:
        dh_n = check_state(grad_h_n, "grad_h_n", dtype, net.cell.states, shape[1:], optional=True)
    space.prepare_backward(dout)
    grad_x = None if space.one_hot else np.empty(layer.x.shape, dtype)
    dx = [space.none if grad_x is None else grad_x]
    grad_h0 = tuple(np.empty(shape[1:], dtype) for _ in net.cell.states)
    layout = Layout({name: W.shape for name, W in zip(_PARAMETERS, layer.arrays, strict=True)}, dtype)
    gradients = Gradients(layout, [_PARAMETERS], (), space)
    span = space.span(space.T)

    def part(number: int, slot: int) -> None:
        call.backward(
            span, layer.indices, layer.x, [layer.h0], [dh_n], [grad_h0], dx, gradients.layers[number], number,
            slot,
        )  # fmt: skip

    call.run(part, 2 * space.multiply_adds)
    flat = aligned((layout.size,), dtype)
    members = space.sweepers(layer.num_threads)
    space.kernels.reduce_gradients(gradients.sums, CLIP_NONE, math.inf, flat, members)
    views = layout.views(flat)
    return grad_x, public(grad_h0), {name: views[name] for name in layer.given}


_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class OneLayer:
    """Checked arguments of one layer over a batch."""

    def __init__(
        self, cell: Cell, x: Any, h0: Any, parameters: Any, lengths: Any, reverse: Any, backend: str | None,
        num_threads: Any,
    ) -> None:  # fmt: skip
        self.kernels = backends.kernels(backend)
        reverse = check_flag(reverse, "reverse")
        self.num_threads = None if num_threads is None else check_size(num_threads, "num_threads")
        self.arrays = _layer_parameters(parameters, len(cell.gates))
        self.given = tuple(parameters)
        h, d = self.arrays[1].shape[1], self.arrays[0].shape[1]
        dtype = self.arrays[0].dtype
        self.net = Net(dtype, cell, d, h, reverse=(reverse,))
        steps, self.classes, _ = check_steps(x, "x", d, dtype, one=False)
        self.T, self.N = T, N = steps.shape[:2]
        self.lengths = check_lengths(lengths, T, N)
        if self.lengths.size:  # what is not to be read must not be out of bounds, nor meet a zero as NaN
            ended = np.arange(T)[:, None] >= self.lengths
            steps = np.where(ended if self.classes else ended[:, :, None], steps.dtype.type(0), steps)
        self.indices, self.x = NO_INDICES, steps
        if self.classes:
            self.indices = np.empty((T, N), INDEX)
            check_index_batch(steps, "x", d, self.kernels, self.indices.reshape(-1), x)
            self.x = np.empty((0, 0, 0), dtype)
        self.h0: tuple[np.ndarray, ...] = tuple(np.zeros((N, h), dtype) for _ in cell.states)
        if h0 is not None:
            self.h0 = check_state(h0, "h0", dtype, cell.states, (N, h))

    def begin(self, hs: list[np.ndarray] | None = None, keep: bool = False) -> tuple[Space, Call]:
        """A work space, with the states `hs` if they are there already, and the call.

        `keep` is for what a backward pass will want.
        """
        space = Space(self.kernels, self.net, self.T, self.N, self.classes, hs=hs, keep=keep)
        return space, Call(space, [self.arrays], lengths=self.lengths, num_threads=self.num_threads)

    def run(self, space: Space, call: Call) -> Any:
        """The forward pass; returns the last state."""
        h_n, span = space.states(), space.span(space.T)

        def part(number: int, slot: int) -> None:
            call.forward(span, self.indices, self.x, [self.h0], h_n.places, number, slot)

        call.run(part, space.multiply_adds)
        return public([state[0] for state in h_n.arrays])


def _layer_parameters(parameters: Any, gates: int) -> tuple[np.ndarray, ...]:
    """The four arrays of a layer as kernels take them, zeros for biases that are not there."""
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters must be a mapping from name to array, got {type(parameters).__name__}")
    names = set(parameters)
    if names not in (set(_PARAMETERS), set(_PARAMETERS[:2])):
        raise ValueError(
            f"parameters must hold {', '.join(_PARAMETERS)}, the biases both or neither; got "
            f"{brief_names(parameters) or 'none'}"
        )
    for name, W in parameters.items():
        if not isinstance(W, np.ndarray):
            raise TypeError(f"parameters[{brief(name)}] must be an ndarray, got {type(W).__name__}")
    dtype = np.dtype(parameters["weight_ih"].dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"parameters['weight_ih'] must be of dtype float32 or float64, got {dtype}")
    weight_hh = parameters["weight_hh"]
    if gates == 1:
        h = len(check_real_array(weight_hh, "parameters['weight_hh']", dtype, ("h", "h")))
    else:
        h = check_real_array(weight_hh, "parameters['weight_hh']", dtype, (f"{gates}h", "h")).shape[1]
    rows = gates * h
    shapes: tuple[tuple[int | str, ...], ...] = ((rows, "d"), (rows, h), (rows,), (rows,))
    arrays = []
    for name, shape in zip(_PARAMETERS, shapes, strict=True):
        W = parameters.get(name)
        if W is None:
            arrays.append(np.zeros(rows, dtype))
        elif W.dtype != dtype:
            raise TypeError(f"parameters[{brief(name)}] must have dtype {dtype}, as weight_ih, got {W.dtype}")
        else:
            arrays.append(check_real_array(W, f"parameters[{brief(name)}]", dtype, shape))
    return tuple(arrays)
