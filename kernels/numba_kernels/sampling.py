"""Sampling in batches, compiled by Numba: each class index drawn is the next input.

The functions and their arguments are those of `fastrnn.kernels.numpy_kernels.sampling`; for the equations, the arrays
and what `copy`, `gemv` and `multiply` do see `layer`.
"""

import functools
import math

import numpy as np

from fastrnn.kernels import GATES, GRU, LSTM
from fastrnn.kernels.numba_kernels import cells
from fastrnn.kernels.numba_kernels.cells import BLOCKS
from fastrnn.kernels.numba_kernels.elementary import copy, copy_tile, exponentials, largest
from fastrnn.kernels.numba_kernels.emit import VECTOR_BYTES
from fastrnn.kernels.numba_kernels.gated import gated_panels, row_length
from fastrnn.kernels.numba_kernels.jit import inlined, inlined_and_python, kernel, ready
from fastrnn.kernels.numba_kernels.layer import layer_panels
from fastrnn.kernels.numba_kernels.memory import after, first_line, largest_end, matrix, padded
from fastrnn.kernels.numba_kernels.output import output_panels
from fastrnn.kernels.numba_kernels.products import gemv, multiply

# ---- memory -----------------------------------------------------------------------------------------


@inlined_and_python
def _layout(rows, h, q, lanes, start):
    """Offsets in the work space; the last is its end."""
    z = start  # (rows, ldh)
    y = after(z, rows * padded(h, lanes))  # (rows, ldq)
    heap = after(y, rows * padded(q, lanes))  # (1, q) class indices, as numbers of the arrays' dtype
    end = heap + q
    return z, y, heap, end


@functools.lru_cache(maxsize=256)
def sample_size(N, rows, d, h, q, cell):
    """Elements of `work` for `sample_batch`, N sequences, at most `rows` of them at once."""
    if GATES[cell] > 1:
        return largest_end(_gated_layout, rows, h, q, GATES[cell] * h)
    return largest_end(_layout, rows, h, q)


@inlined_and_python
def _gated_layout(rows, h, q, gates, lanes, start):
    """The same for a cell with gates."""
    z = start  # (rows, row_length)
    y = after(z, rows * row_length(h, gates, lanes))  # (rows, ldq)
    heap = after(y, rows * padded(q, lanes))  # (1, q)
    end = heap + q
    return z, y, heap, end


# ---- one class --------------------------------------------------------------------------------------


@inlined
def _sink(p, heap, n, root):
    """Move the class at `root` of ``heap``, a binary heap of n classes, down to its place: above are the more probable
    ones, ``p (q)``, and of equals those with the lower index.  The children of place i are 2 i + 1 and 2 i + 2."""
    while 2 * root + 1 < n:
        child = 2 * root + 1
        c = np.int64(heap[child])
        if child + 1 < n:
            other = np.int64(heap[child + 1])
            if p[other] > p[c] or (p[other] == p[c] and other < c):
                child, c = child + 1, other
        r = np.int64(heap[root])
        if p[r] > p[c] or (p[r] == p[c] and r < c):
            break
        heap[root], heap[child] = c, r
        root = child


@inlined
def _restrict(p, q, top_k, top_p, heap):
    """Set to zero what is not among the `top_k` most probable classes (0: all), or not among the fewest of
    these whose probabilities reach `top_p` of theirs in sum.

    A heap sort that ends once there are `top_k`: no more than these are put in order.  ``p (>= q)`` need not sum to 1.
    """
    candidates = top_k if 0 < top_k < q else q
    for j in range(q):
        heap[j] = j
    for root in range(q // 2 - 1, -1, -1):
        _sink(p, heap, q, root)
    total = np.float64(0)
    for i in range(candidates):  # the most probable goes behind the heap
        best, last = heap[0], heap[q - 1 - i]
        heap[q - 1 - i] = best
        heap[0] = last
        total += p[np.int64(best)]
        _sink(p, heap, q - 1 - i, 0)
    reached, kept = np.float64(0), 0
    while kept < candidates and (kept == 0 or top_p >= 1 or reached < top_p * total):
        reached += p[np.int64(heap[q - 1 - kept])]
        kept += 1
    for i in range(q - kept):
        p[np.int64(heap[i])] = 0


@kernel
def _draw_class(y, q, u, temperature, top_k, top_p, heap):
    """Class index drawn from the logits ``y (ldq)`` of one sequence, or -1 if they are not numbers.

    Padding is minus infinity.  The index is the first with ``cumsum(p) / sum(p) > u``, u in [0, 1), of ``p =
    exp((y - max y) / temperature)`` (eqs. 16, 17), which is written to y.
    """
    drawn = 0
    if temperature == 0:  # the largest
        for j in range(q):
            if not y[j] < math.inf:
                drawn = -1
                break
            if y[j] > y[drawn]:
                drawn = j
        return drawn
    top = largest(y)
    if temperature != 1:
        for j in range(len(y)):
            y[j] = (y[j] - top) / temperature
        top -= top  # 0, or NaN where the largest is not finite
    if not exponentials(y, top) > 0:
        return -1
    if 0 < top_k < q or top_p < 1:
        _restrict(y, q, top_k, top_p, heap)
    # Two sums, as one would wait for each of its additions.  (Padding is zero by now, and ldq even.)
    even, odd = np.float64(0), np.float64(0)
    for j in range(0, len(y), 2):
        even += y[j]
        odd += y[j + 1]
    total = even + odd
    # A division only where it may matter: short of `almost`, no rounding makes running / total greater than u.
    running, almost = np.float64(0), u * total * (1 - 1e-15)
    drawn = -1
    for j in range(q):
        running += y[j]
        if running > almost and running / total > u:
            drawn = j
            break
    if drawn < 0:  # sums in another order differ: the last class that may be drawn
        drawn = q - 1
        while drawn > 0 and y[drawn] == 0:
            drawn -= 1
    return drawn


# ---- the sequences ----------------------------------------------------------------------------------


@inlined
def _draw_all(y, state, output, N, i, draws, choice, out, start, heap):
    """Draw index i of every sequence from ``y_t = W h_t + b`` (eq. 2); -1 where one of them has none."""
    (_, uniforms, q), (temperature, top_k, top_p), (bias, forward, alone) = draws, choice, output
    for r in range(len(y)):
        copy(y[r], bias)
    if N == 1:
        gemv(y[0], y[0], state[0], alone, i & 1)
    else:
        multiply(y, state, forward, 1)
    worst = 0
    for r in range(len(y)):
        drawn = _draw_class(y[r], q, uniforms[start + r, i], temperature, top_k, top_p, heap)
        out[start + r, i] = drawn
        worst = min(worst, drawn)
    return worst


@kernel
def _sample(packed, places, packed_output, states, draws, choice, out, rows, cell, work):
    """`sample_batch`.  The packed weights of layer l begin at ``packed[places[l]]``.  ``draws = (first (N), uniforms
    (N,n), q)``."""
    (first, _, q), (start, stop) = draws, rows
    (L, N, h), lanes, count = states.shape, VECTOR_BYTES // work.itemsize, stop - start
    bias, forward, _, alone = output_panels(packed_output, N, h, q)
    z, y, heap, _ = _layout(count, h, q, lanes, first_line(work))
    z, y = matrix(work, z, count, padded(h, lanes)), matrix(work, y, count, padded(q, lanes))
    heap = matrix(work, heap, 1, q)[0]
    for i in range(out.shape[1]):
        for layer in range(L):
            layer_bias, recurrent, _, rows_of_inputs, inputs, _, inputs_alone = layer_panels(
                packed, places[layer], N, q if layer == 0 else h, h
            )
            state = states[layer, start:stop]
            # z_t = W_ih x_t + b; the first layer reads class indices
            for r in range(count):
                if layer == 0:
                    index = first[start + r] if i == 0 else out[start + r, i - 1]
                    copy(z[r], rows_of_inputs[index])
                else:
                    copy(z[r], layer_bias)
            if layer > 0 and N == 1:
                gemv(z[0], z[0], states[layer - 1, 0], inputs_alone, i & 1)
            elif layer > 0:
                multiply(z, states[layer - 1, start:stop], inputs, 1)
            # h_t = cell(z_t + W_hh h_{t-1})  (eq. 1)
            if N == 1:
                gemv(z[0], z[0], state[0], recurrent, i & 1)
            else:
                multiply(z, state, recurrent, 1)
            cells.forward(cell, z, z[:0], (state,), (z,))
            copy_tile(state, z)
        if (
            _draw_all(
                y, states[L - 1, start:stop], (bias, forward, alone), N, i, draws, choice, out, start, heap
            )
            < 0
        ):
            return i
    return out.shape[1]


@kernel
def _sample_gated(packed, places, packed_output, states, draws, choice, out, rows, cell, work):
    """`_sample` for a cell with gates.  ``states = (h, c)`` of all layers; a GRU has h in both places."""
    (first, _, q), (start, stop), (hs, cs) = draws, rows, states
    (L, N, h), lanes, count, has_c = hs.shape, VECTOR_BYTES // work.itemsize, stop - start, cell == LSTM
    gates = (GATES[LSTM] if has_c else GATES[GRU]) * h
    part = BLOCKS * h - gates
    bias, forward, _, alone = output_panels(packed_output, N, h, q)
    z, y, heap, _ = _gated_layout(count, h, q, gates, lanes, first_line(work))
    z, y = matrix(work, z, count, row_length(h, gates, lanes)), matrix(work, y, count, padded(q, lanes))
    heap = matrix(work, heap, 1, q)[0]
    nothing = z[0, :0]
    for i in range(out.shape[1]):
        for layer in range(L):
            layer_bias, recurrent, _, rows_of_inputs, inputs, _, inputs_alone, _ = gated_panels(
                packed, places[layer], N, q if layer == 0 else h, h, gates
            )
            state = hs[layer, start:stop]
            # z_t = W_ih x_t + b; the first layer reads class indices
            for r in range(count):
                if layer == 0:
                    index = first[start + r] if i == 0 else out[start + r, i - 1]
                    copy(z[r], rows_of_inputs[index])
                else:
                    copy(z[r], layer_bias)
            if layer > 0 and N == 1:
                row = z[0, : padded(gates, lanes)]
                gemv(row, row, hs[layer - 1, 0], inputs_alone, i & 1)
            elif layer > 0:
                multiply(z[:, :gates], hs[layer - 1, start:stop], inputs, 1)
            # z_t += W_hh h_{t-1}
            if N == 1:
                row = z[0, part : part + padded(gates, lanes)]
                gemv(row, row, state[0], recurrent, i & 1)
            else:
                multiply(z[:, part : part + gates], state, recurrent, 1)
            for r in range(count):
                h_t, c_t = hs[layer, start + r], cs[layer, start + r]
                cells.gates_forward(cell, h_t, z[r], c_t if has_c else h_t, c_t, nothing)
        if (
            _draw_all(y, hs[L - 1, start:stop], (bias, forward, alone), N, i, draws, choice, out, start, heap)
            < 0
        ):
            return i
    return out.shape[1]


def sample_batch(stack, output, states, draws, choice, out, rows, cell, work, threads=1):
    """Draw class indices for the sequences of a batch, each fed back as the next input.

    ``stack = (layers, packed)`` has the weights of every layer and what `pack_layer` made of them, ``output`` those
    of the output layer and what `pack_output` made of them.  ``states``, a tuple of STATES[cell] arrays ``(L,N,h)``,
    holds the states of every layer and is overwritten.  ``draws = (first, uniforms)``: ``first (N,)`` are the first inputs, and ``uniforms (N,n)`` in [0,
    1) choose the classes.  ``choice = (temperature, top_k, top_p)``, as `fastrnn.kernels.numpy_kernels.sampling` says.
    Writes ``out (N,n)``.

    Returns how many steps were drawn: fewer than n when the probabilities of the next one are not numbers.
    """
    (_, packed_layers), ((_, b), packed_output), (first, uniforms) = stack, output, draws
    temperature, top_k, top_p = choice
    real = states[0].dtype.type
    # One that is too small for the dtype must not become 0, which means the largest.
    temperature = max(real(temperature), np.finfo(real).tiny) if temperature else real(0)
    # The layers' packed weights as one array: for a tuple, the kernel would be compiled for each number of layers.
    # Each begins at its first cache line.
    packed = packed_layers[0] if len(packed_layers) == 1 else np.concatenate(packed_layers)
    places, before = np.empty(len(packed_layers), np.int64), 0
    for layer, array in enumerate(packed_layers):
        places[layer] = before + (-array.ctypes.data & 63) // array.itemsize
        before += array.size
    arguments = (
        (ready(first), ready(uniforms), len(b)), (temperature, top_k, float(top_p)), out, rows, cell, work,
    )  # fmt: skip
    if GATES[cell] > 1:
        return int(_sample_gated(packed, places, packed_output, (states[0], states[-1]), *arguments))
    return int(_sample(packed, places, packed_output, states[0], *arguments))
