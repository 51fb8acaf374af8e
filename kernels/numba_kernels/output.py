"""The output layer in batches, compiled by Numba: outputs, loss and gradients.

The functions, their arguments and the equations are those of `fastrnn.kernels.numpy_kernels.output`::

    y_t = W h_t + b,  L = sum of the losses of `losses`, and dy_t                       (2)
    dW = sum dy_t h_t',  db = sum dy_t,  d output_t = W' dy_t                           (8), (9)

``output = (W (q,h), b (q))``, ``grads = (dW, db)`` alike; ``hs (T,N,h)`` are the states of the last layer; `layer` says
what the other arrays are, how a batch is worked on, and what `copy` and `multiply` do.  ``ldq`` is q rounded up to
whole vectors; rows of outputs are ``ldy`` apart, an odd number of vectors.
"""

import functools
import math

import numpy as np

from fastrnn.kernels import CROSS_ENTROPY, GAUSSIAN
from fastrnn.kernels.numba_kernels.batch import ROWS, groups, pieces
from fastrnn.kernels.numba_kernels.elementary import add, copy, copy_tile, fill
from fastrnn.kernels.numba_kernels.emit import VECTOR_BYTES
from fastrnn.kernels.numba_kernels.jit import all_ready, inlined, inlined_and_python, kernel, ready
from fastrnn.kernels.numba_kernels.losses import cross_entropy, gaussian, squared_error
from fastrnn.kernels.numba_kernels.memory import after, first_line, largest_end, matrix, padded
from fastrnn.kernels.numba_kernels.packing import pack_for_gemm, pack_for_gemv, pack_rows, padded_to_panels
from fastrnn.kernels.numba_kernels.products import multiply

_NO_CLASSES = np.empty((0, 0), np.int64)

# ---- memory -----------------------------------------------------------------------------------------


@inlined_and_python
def _panels_layout(N, h, q, lanes, start):
    """Offsets in the packed weights of an output layer, from `start` on; the last is their end."""
    ldq, wide_q, wide_h = padded(q, lanes), padded_to_panels(q, lanes), padded_to_panels(h, lanes)
    bias = start  # (1, ldq), minus infinity in the padding
    forward = after(bias, ldq)  # (h, wide_q) W transposed
    back = after(forward, h * wide_q)  # (q, wide_h) W
    alone = after(back, q * wide_h)  # (h, ldq) W transposed, to sample one sequence
    end = alone + (h * ldq if N == 1 else 0)
    return bias, forward, back, alone, end


@inlined
def output_panels(packed, N, h, q):
    """The packed weights as matrices: the bias; W' for the logits and W for the way back, both for `multiply`; and W'
    for `gemv`, to sample one sequence, without rows where N is more."""
    lanes = VECTOR_BYTES // packed.itemsize
    ldq, wide_q, wide_h = padded(q, lanes), padded_to_panels(q, lanes), padded_to_panels(h, lanes)
    bias, forward, back, alone, _ = _panels_layout(N, h, q, lanes, first_line(packed))
    return (
        matrix(packed, bias, 1, ldq)[0],
        matrix(packed, forward, h, wide_q),
        matrix(packed, back, q, wide_h),
        matrix(packed, alone, h if N == 1 else 0, ldq),
    )


@inlined_and_python
def _layout(T, rows, h, q, lanes, start):
    """Time steps of a block and row length of its logits, then offsets in the work space; the last is its end."""
    ldq = padded(q, lanes)
    ldy = (ldq // lanes | 1) * lanes  # an odd number of vectors
    steps = min(T, max(1, ROWS // rows))
    dy = start  # (steps * rows, ldy) outputs, then their gradient
    panels = after(dy, steps * rows * ldy)  # (steps * rows, >= h) states of a block
    sums = after(panels, steps * rows * padded_to_panels(h, lanes))  # (1, ldq) db
    end = sums + ldq
    return steps, ldy, dy, panels, sums, end


@functools.lru_cache(maxsize=256)
def output_sizes(T, N, rows, h, q):
    """Elements of `packed` and of `work` for an output layer, N sequences, at most `rows` at once."""
    return largest_end(_panels_layout, N, h, q), max(largest_end(_layout, T, r, h, q) for r in pieces(rows))


# ---- packing ----------------------------------------------------------------------------------------


@kernel
def _pack(output, N, packed):
    """`pack_output`."""
    W, b = output
    q, h = W.shape
    bias, forward, back, alone = output_panels(packed, N, h, q)
    fill(bias, -math.inf)
    copy(bias[:q], b)
    pack_for_gemm(forward, W.T)
    pack_for_gemm(back, W)
    if N == 1:
        pack_for_gemv(alone, W.T)


def pack_output(output, N, packed, threads=1):
    """Bring the weights of an output layer into the order in which N sequences will read them."""
    _pack(all_ready(output), N, packed)


# ---- outputs, loss and gradients --------------------------------------------------------------------


@kernel
def _output(packed, hs, logits, goal, factor, dhs, grads, accumulate, rows, work):
    """Outputs where ``logits (T,N,q)`` has elements; else the loss, and its gradients times `factor` where ``dhs
    (T,N,h)`` has some.

    `y` has a row for each of the n steps of a block and the `count` sequences: outputs, and then, in their place, dy.
    `more` is 1 once there are sums of weights to add to.
    """
    (code, classes, values, weights), (dW, db), (start, stop), (T, N, h) = goal, grads, rows, hs.shape
    q, wants_gradients = len(db), len(dhs) > 0
    count, lanes = stop - start, VECTOR_BYTES // work.itemsize
    bias, forward, back, _ = output_panels(packed, N, h, q)
    steps, ldy, y, panels, sums, _ = _layout(T, count, h, q, lanes, first_line(work))
    y, ldq = matrix(work, y, steps * count, ldy), len(bias)
    sums = matrix(work, sums, 1, ldq)[0]
    more = 1 if accumulate else 0
    loss, product = 0.0, 1.0
    fill(sums, 0.0)
    for t0 in range(0, T, steps):
        n = min(steps, T - t0)
        # y_t = W h_t + b  (eq. 2)
        for r in range(n * count):
            copy(y[r, :ldq], bias)
        for k in range(n):
            of_step = y[k * count : (k + 1) * count, :ldq]
            multiply(of_step, hs[t0 + k, start:stop], forward, 1)
            if len(logits) > 0:
                copy_tile(logits[t0 + k, start:stop], of_step)
        if len(logits) > 0:
            continue
        # L and dy_t, by `losses`;  db = sum dy_t  (eq. 8)
        for r in range(n * count):
            row, t, s = y[r, :ldq], t0 + r // count, start + r % count
            weight = weights[t, s] if len(weights) > 0 else work.dtype.type(1)
            if weight == 0 or (code == CROSS_ENTROPY and classes[t, s] < 0):  # does not count
                fill(row, 0.0)
                continue
            if code == CROSS_ENTROPY:
                rest, total = cross_entropy(row, classes[t, s], factor * weight)
                loss += weight * rest
                if weight == 1:
                    product *= total
                else:
                    loss += weight * math.log(total)
                if product > 1e200:  # sum log total = log of their product: one logarithm for many rows
                    loss += math.log(product)
                    product = 1.0
            elif code == GAUSSIAN:
                loss += weight * gaussian(row, q, values[t, s], factor * weight)
            else:
                loss += weight * squared_error(row, q, values[t, s], factor * weight)
            if wants_gradients:
                add(sums, sums, row)
        # d output_t = W' dy_t  (eq. 9);  dW = sum dy_t h_t'  (eq. 8), for all steps of the block at once
        if wants_gradients:
            states = matrix(work, panels, n * count, padded_to_panels(h, lanes))
            for k in range(n):
                multiply(dhs[t0 + k, start:stop], y[k * count : (k + 1) * count], back, 0)
                pack_rows(states, k * count, hs[t0 + k, start:stop])
            multiply(dW, y[: n * count].T, states, more)
            more = 1
    if wants_gradients and accumulate:
        add(db, db, sums)
    elif wants_gradients:
        copy(db, sums)
    return loss + math.log(product)


def output_logits(output, packed, hs, logits, rows, work, threads=1):
    """Outputs ``y_t = W h_t + b`` (eq. 2), written to ``logits (T,N,q)``."""
    hs = ready(hs)
    nothing, factor = hs[:0], hs.dtype.type(0)
    goal = CROSS_ENTROPY, _NO_CLASSES, nothing, nothing[0:0, 0:0, 0]
    for group in groups(rows):  # `output` in the place of gradients, which are not written
        _output(packed, hs, logits, goal, factor, nothing, output, False, group, work)


def output_loss(output, packed, hs, goal, scale, dhs, grads, accumulate, rows, work, threads=1):
    """The loss, summed over steps and sequences, and its gradients (eqs. 8, 9).

    ``goal = (loss, classes, values, weights)``: a code, and what is wanted of the outputs.  For CROSS_ENTROPY
    ``classes (T,N)`` are indices in [0,q), or negative where nothing counts; for the others ``values`` are ``(T,N,q)``,
    of GAUSSIAN ``(T,N,q/2)``.  What is not read has no elements.  ``weights (T,N)`` are the factors of the steps'
    losses, without elements ones.  Where a step counts for nothing, there is no loss, zeros are the gradient of its
    outputs, and its values are not read.

    Gradients are multiplied by `scale`: writes ``dhs (T,N,h)``, and the sums over ``start <= n < stop`` to `grads`, or
    adds them there where `accumulate`.  A `dhs` without elements asks for the loss alone.  Returns the loss, not scaled.
    """
    code, *arrays = goal
    hs, goal, factor = ready(hs), (code, *map(ready, arrays)), hs.dtype.type(scale)
    if not dhs.size:
        grads = output  # not written then
    loss = 0.0
    for group in groups(rows):
        more = bool(accumulate) or group[0] > rows[0]
        loss += _output(packed, hs, hs[:0], goal, factor, dhs, grads, more, group, work)
    return float(loss)
