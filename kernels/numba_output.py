"""The output layer of a language model in batches, compiled by Numba: logits, loss and gradients.

The functions and their arguments are those of `fastrnn.kernels.numpy_batched`; see there for the
equations, and `numba_layer` for how a batch is worked on.  ``ldq`` is q rounded up to whole vectors; rows
of logits are ``ldy`` apart, an odd number of vectors.
"""

import functools
import math

import numpy as np

from fastrnn.kernels.elementary import add, copy, copy_tile, exponentials, fill, largest, scale
from fastrnn.kernels.jit import flat, inlined_and_python, kernel
from fastrnn.kernels.numba_weights import ROWS, largest_end, output_panels, pieces
from fastrnn.kernels.packing import GEMM_VECTORS, pack_rows
from fastrnn.kernels.products import multiply
from fastrnn.kernels.vectors import VECTOR_BYTES

#: What the compiled function is asked for.
LOGITS, LOSS, LOSS_AND_GRADS = 0, 1, 2

_NO_INDICES = np.empty(0, np.int64)

# ---- memory -----------------------------------------------------------------------------------------


@inlined_and_python
def _output_layout(T, rows, h, q, lanes, start):
    """Time steps of a block and row length of its logits, then offsets in the work space."""
    nr = GEMM_VECTORS * lanes
    vectors = (q + lanes - 1) // lanes
    ldq, ldy = vectors * lanes, (vectors | 1) * lanes
    wide_h = (h + nr - 1) // nr * nr
    steps = min(T, max(1, ROWS // rows))
    dy = start  # (steps, rows, ldy) logits, then their gradient
    panels = dy + ((steps * rows * ldy + 63) & -64)
    sums = panels + ((steps * rows * wide_h + 63) & -64)  # (ldq)
    end = sums + ldq
    return steps, ldy, dy, panels, sums, end


@functools.lru_cache(maxsize=256)
def output_sizes(T, N, rows, h, q):
    """Elements of `packed` and of `work` for an output layer, N sequences, at most `rows` at once."""
    return largest_end(output_panels, N, h, q), max(
        largest_end(_output_layout, T, r, h, q) for r in pieces(rows)
    )


# ---- the output -------------------------------------------------------------------------------------


@kernel
def _output(
    operation, T, N, h, q, packed, hs, targets, factor, logits, dhs, dW, db, accumulate, start, stop, work
):
    """Logits, or the loss, or the loss and the gradients, for ``start <= n < stop``; returns the loss."""
    rows = stop - start
    lanes = VECTOR_BYTES // work.itemsize
    nr = GEMM_VECTORS * lanes
    ldq = (q + lanes - 1) & -lanes
    bias, forward, back, _, _ = output_panels(N, h, q, lanes, (-packed.ctypes.data & 63) // packed.itemsize)
    steps, ldy, dy, panels, sums, _ = _output_layout(
        T, rows, h, q, lanes, (-work.ctypes.data & 63) // work.itemsize
    )
    more = 1 if accumulate else 0
    loss, product = 0.0, 1.0
    if operation == LOSS_AND_GRADS:
        fill(ldq, work, sums, 0.0)
    for t0 in range(0, T, steps):
        n = min(steps, T - t0)
        total = n * rows
        # The rows of all time steps follow each other if they are those of all sequences.
        groups, m = (1, total) if rows == N else (n, rows)
        for r in range(total):
            copy(ldq, work, dy + r * ldy, packed, bias)
        for g in range(groups):
            place = ((t0 + g) * N + start) * h
            multiply(  # eq. 2
                m, ldq, h, hs, place, h, 1, packed, forward, h * nr, work, dy + g * m * ldy, ldy, 1
            )
        if operation == LOGITS:
            for g in range(groups):
                copy_tile(m, q, logits, ((t0 + g) * N + start) * q, q, work, dy + g * m * ldy, ldy)
            continue
        for g in range(groups):
            for r in range(m):
                y, target = dy + (g * m + r) * ldy, targets[(t0 + g) * N + start + r]
                if target < 0:  # does not count
                    if operation == LOSS_AND_GRADS:
                        fill(ldq, work, y, 0.0)
                    continue
                chosen, top = work[y + target], largest(ldq, work, y)
                sum_of_row = exponentials(ldq, work, y, top)
                loss += np.float64(top) - np.float64(chosen)
                product *= np.float64(sum_of_row)
                if product > 1e200:  # one logarithm for many rows
                    loss += math.log(product)
                    product = 1.0
                if operation == LOSS_AND_GRADS:  # eq. 7
                    scale(ldq, work, y, work, y, factor / sum_of_row)
                    work[y + target] -= factor
                    add(ldq, work, sums, work, sums, work, y)
        if operation == LOSS_AND_GRADS:
            for g in range(groups):
                place = ((t0 + g) * N + start) * h
                multiply(  # eq. 9
                    m, h, q, work, dy + g * m * ldy, ldy, 1, packed, back, q * nr, dhs, place, h, 0
                )
                pack_rows(hs, place, h, m, h, work, panels + g * m * nr, total * nr)
            multiply(  # eq. 8
                q, h, total, work, dy, 1, ldy, work, panels, total * nr, dW, 0, h, more
            )
            more = 1
    if operation == LOSS_AND_GRADS:
        if accumulate:
            add(q, db, 0, db, 0, work, sums)
        else:
            copy(q, db, 0, work, sums)
    return loss + math.log(product)


# ---- what the package calls -------------------------------------------------------------------------


def output_logits(output, packed, hs, logits, rows, work):
    """Logits ``y_t = W h_t + b`` (eq. 2), written to ``logits (T,N,q)``."""
    start, stop = rows
    T, N, q = logits.shape
    h = hs.shape[2]
    hs, logits = flat(hs), logits.ravel()
    for first in range(start, stop, ROWS):
        _output(
            LOGITS, T, N, h, q, packed, hs, _NO_INDICES, hs.dtype.type(0), logits, hs, hs, hs, False, first,
            min(first + ROWS, stop), work,
        )  # fmt: skip


def output_loss(output, packed, hs, targets, scale, dhs, grads, accumulate, rows, work):
    """Cross-entropy in nats, summed over steps and sequences (eqs. 2, 5, 6), and its gradients (eqs. 7 to 9)."""
    start, stop = rows
    T, N, h = hs.shape
    q = len(output[1])
    operation = LOSS_AND_GRADS if dhs.size else LOSS
    hs, dhs, targets, factor = flat(hs), dhs.ravel(), flat(targets), hs.dtype.type(scale)
    dW, db = (g.ravel() for g in grads) if operation == LOSS_AND_GRADS else (hs, hs)
    loss = 0.0
    for first in range(start, stop, ROWS):
        loss += _output(
            operation, T, N, h, q, packed, hs, targets, factor, hs, dhs, dW, db,
            bool(accumulate) or first > start, first, min(first + ROWS, stop), work,
        )  # fmt: skip
    return float(loss)
