"""Batched kernels compiled by Numba at first use and kept on disk.

The functions and their arguments are those of `fastrnn.kernels.numpy_batched`; see there for the
equations.  There is a compiled function for the layer, one for the output, two for sampling and two
small ones, each told what to do by its first argument: so who only uses the layer compiles only that,
and the loops of a matrix product are compiled once for all that one function does.

A thread takes its sequences through all time steps, `ROWS` at a time.  Weights were packed once; then a
time step is one product of the rows of these sequences with panels that are read in order.  Gradients of
weights are products over blocks of steps, which have about `ROWS` rows of a step and sequence in all.

A row of a product does not depend on the rows beside it, so what belongs to one sequence does not depend
on how the batch is shared among threads.

Arrays come to the compiled functions flat, each with the offset at which its part begins.  ``ldh, ldq`` are h and q
rounded up to whole vectors; ``ldz, ldy`` are such rows an odd number of vectors apart, so that rows
below each other don't compete for the same place in the cache.
"""

import functools
import math

import numpy as np
from numba.core import config

from fastrnn.kernels import CLIP_NORM, CLIP_VALUE
from fastrnn.kernels.batch_tiles import exponentials, largest, multiply, pack_rows, rectify, times_slopes
from fastrnn.kernels.jit import inlined, inlined_and_python, kernel
from fastrnn.kernels.tiles import (
    GEMM_VECTORS,
    add,
    clamp,
    copy,
    copy_padded,
    copy_tile,
    fill,
    gemv,
    hyperbolic_tangent,
    pack_for_gemm,
    pack_for_gemv,
    scale,
    sum_of_squares,
    transpose_panel,
)
from fastrnn.kernels.vectors import VECTOR_BYTES

__all__ = [
    "layer_backward", "layer_forward", "layer_sizes", "output_logits", "output_loss", "output_sizes",
    "pack_layer", "pack_output", "reduce_gradients", "sample_batch", "sample_size",
]  # fmt: skip

ROWS = 128  # sequences that go through time together, and rows that a product over time sums up at once
AHEAD = 16  # with fewer sequences than this, inputs are multiplied for many time steps at once
PIECE = 1024  # elements of a gradient that are in the first cache while they are summed

#: What the compiled functions are asked for.
FORWARD, BACKWARD = 0, 1
LOGITS, LOSS, LOSS_AND_GRADS = 0, 1, 2

# ---- memory -----------------------------------------------------------------------------------------


@inlined_and_python
def _layer_panels(N, d, h, lanes, start):
    """Offsets in the packed weights of a layer, from `start` on; the last is their end."""
    nr = GEMM_VECTORS * lanes
    ldh = (h + lanes - 1) & -lanes
    wide_d, wide_h = (d + nr - 1) // nr * nr, (h + nr - 1) // nr * nr
    bias = start  # (ldh)
    recurrent = bias + ((ldh + 63) & -64)  # W_hh transposed
    back = recurrent + ((h * wide_h + 63) & -64)  # W_hh
    inputs = back + ((h * wide_h + 63) & -64)  # W_ih transposed: (d, ldh) with the bias added, or panels
    inputs_back = inputs + ((d * wide_h + 63) & -64)  # W_ih
    inputs_alone = inputs_back + ((h * wide_d + 63) & -64)  # W_ih transposed, to sample one sequence
    end = inputs_alone + (d * ldh if N == 1 else 0)
    return bias, recurrent, back, inputs, inputs_back, inputs_alone, end


@inlined_and_python
def _output_panels(N, h, q, lanes, start):
    """The same for an output layer."""
    nr = GEMM_VECTORS * lanes
    ldq = (q + lanes - 1) & -lanes
    wide_q, wide_h = (q + nr - 1) // nr * nr, (h + nr - 1) // nr * nr
    bias = start  # (ldq), minus infinity in the padding
    forward = bias + ((ldq + 63) & -64)  # W transposed
    back = forward + ((h * wide_q + 63) & -64)  # W
    alone = back + ((q * wide_h + 63) & -64)  # W transposed, to sample one sequence
    end = alone + (h * ldq if N == 1 else 0)
    return bias, forward, back, alone, end


@inlined_and_python
def _layer_layout(T, rows, d, h, lanes, start):
    """Time steps of a block and row length of its gradients, then offsets in the work space."""
    nr = GEMM_VECTORS * lanes
    vectors = (h + lanes - 1) // lanes
    ldh, ldz = vectors * lanes, (vectors | 1) * lanes
    wide_d, wide_h = (d + nr - 1) // nr * nr, (h + nr - 1) // nr * nr
    steps = min(T, max(1, ROWS // rows))
    dz = start  # (max(steps, 2), rows, ldz)
    panels = dz + ((max(steps, 2) * rows * ldz + 63) & -64)  # states or inputs of a block
    columns = panels + ((steps * rows * max(wide_d, wide_h) + 63) & -64)  # (d, ldh) dW_ih, transposed
    sums = columns + ((d * ldh + 63) & -64)  # (ldh)
    end = sums + ldh
    return steps, ldz, dz, panels, columns, sums, end


@inlined_and_python
def _output_layout(T, rows, h, q, lanes, start):
    """The same for an output layer."""
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


@inlined_and_python
def _sample_layout(rows, h, q, lanes, start):
    """Offsets in the work space for sampling."""
    ldh, ldq = (h + lanes - 1) & -lanes, (q + lanes - 1) & -lanes
    z = start  # (rows, ldh)
    y = z + ((rows * ldh + 63) & -64)  # (rows, ldq)
    heap = y + ((rows * ldq + 63) & -64)  # (q) class indices
    end = heap + q
    return z, y, heap, end


def _largest_end(layout, *sizes):
    # 64 more: the first offset is where a cache line starts.
    return max(layout(*sizes, VECTOR_BYTES // itemsize, 64)[-1] for itemsize in (4, 8))


@functools.lru_cache(maxsize=256)
def layer_sizes(T, N, rows, d, h):
    """Elements of `packed` and of `work` for a layer, N sequences, at most `rows` of them at once."""
    return _largest_end(_layer_panels, N, d, h), max(
        _largest_end(_layer_layout, T, r, d, h) for r in _pieces(rows)
    )


@functools.lru_cache(maxsize=256)
def output_sizes(T, N, rows, h, q):
    """Elements of `packed` and of `work` for an output layer, N sequences, at most `rows` at once."""
    return _largest_end(_output_panels, N, h, q), max(
        _largest_end(_output_layout, T, r, h, q) for r in _pieces(rows)
    )


@functools.lru_cache(maxsize=256)
def sample_size(N, rows, d, h, q):
    """Elements of `work` for `sample_batch`, N sequences, at most `rows` of them at once."""
    return _largest_end(_sample_layout, rows, h, q)


def _pieces(rows):
    """How many sequences go through time together, when there are at most `rows`."""
    return range(1, max(1, min(rows, ROWS)) + 1)


# ---- packing ------------------------------------------------------------------------------------------


@kernel
def _pack(W_ih, W_hh, b_ih, b_hh, is_layer, one_hot, N, d, h, packed):
    """Weights of a layer; or of an output layer, which come as W_ih (d, h) and b_ih (d)."""
    lanes = VECTOR_BYTES // packed.itemsize
    ldh = (h + lanes - 1) & -lanes
    start = (-packed.ctypes.data & 63) // packed.itemsize
    if is_layer:
        bias, recurrent, back, inputs, inputs_back, alone, _ = _layer_panels(N, d, h, lanes, start)
        copy_padded(h, packed, bias, b_ih, 0)
        add(h, packed, bias, packed, bias, b_hh, 0)
        if N == 1:
            pack_for_gemv(W_hh, 0, 1, h, h, packed, recurrent)
            pack_for_gemv(W_hh, 0, 0, h, h, packed, back)
        else:
            pack_for_gemm(W_hh, 0, 1, h, h, packed, recurrent)
            pack_for_gemm(W_hh, 0, 0, h, h, packed, back)
        if one_hot:
            transpose_panel(W_ih, 0, d, d, h, ldh, packed, inputs)
            for c in range(d):
                row = inputs + c * ldh
                add(ldh, packed, row, packed, row, packed, bias)
        rows, cols, forward = d, h, inputs
    else:
        bias, forward, inputs_back, alone, _ = _output_panels(N, h, d, lanes, start)
        copy(d, packed, bias, b_ih, 0)
        fill(-d & (lanes - 1), packed, bias + d, -math.inf)
        rows, cols = h, d
    if not is_layer or not one_hot:
        # of W_ih' (d, h), or of the output's W' (h, q)
        pack_for_gemm(W_ih, 0, 1, rows, cols, packed, forward)
        pack_for_gemm(W_ih, 0, 0, cols, rows, packed, inputs_back)
        if N == 1:
            pack_for_gemv(W_ih, 0, 1, rows, cols, packed, alone)


# ---- the layer ----------------------------------------------------------------------------------------


@inlined
def _times(N, rows, n, h, left, at, lda, packed, panels, out, place, ldo, work, turn):
    """``out (rows, n) += left B`` for B (h, n) as it is packed for N sequences."""
    lanes = VECTOR_BYTES // work.itemsize
    nr = GEMM_VECTORS * lanes
    if N == 1:
        gemv(packed, panels, h, h, left, at, out, place, out, place, turn & 1)
    else:
        multiply(rows, n, h, left, at, lda, 1, packed, panels, h * nr, out, place, ldo, 1)


@kernel
def _layer(
    operation, T, N, d, h, packed, indices, x, lengths, h0, hs, h_n, dhs, dh_n, dx, dh0, dh_all, dW_ih, dW_hh,
    db_ih, db_hh, accumulate, start, stop, relu, reverse, work,
):  # fmt: skip
    """The layer, forward or backward, for ``start <= n < stop``.  `k` counts steps in the layer's order."""
    rows = stop - start
    lanes = VECTOR_BYTES // work.itemsize
    nr = GEMM_VECTORS * lanes
    ldh = (h + lanes - 1) & -lanes
    bias, recurrent, back, inputs, inputs_back, _, _ = _layer_panels(
        N, d, h, lanes, (-packed.ctypes.data & 63) // packed.itemsize
    )
    steps, ldz, dz, panels, columns, sums, _ = _layer_layout(
        T, rows, d, h, lanes, (-work.ctypes.data & 63) // work.itemsize
    )
    one_hot, ragged = len(indices) > 0, len(lengths) > 0

    if operation == FORWARD:
        ahead = not one_hot and rows == N and N < AHEAD
        if ahead:
            for row in range(0, T * N, ROWS):
                n = min(ROWS, T * N - row)
                for r in range(row, row + n):
                    copy(h, hs, r * h, packed, bias)
                multiply(n, h, d, x, row * d, d, 1, packed, inputs, d * nr, hs, row * h, h, 1)
        state, other = dz, dz + ldh  # of one sequence, padded
        if N == 1:
            copy_padded(h, work, state, h0, 0)
        for k in range(T):
            t = T - 1 - k if reverse else k
            place = t * N + start
            z = place * h
            if N == 1 and ragged and t >= lengths[0]:
                fill(h, hs, z, 0.0)
                continue
            if one_hot:
                for r in range(rows):
                    copy(h, hs, z + r * h, packed, inputs + indices[place + r] * ldh)
            elif not ahead:
                for r in range(rows):
                    copy(h, hs, z + r * h, packed, bias)
                multiply(rows, h, d, x, place * d, d, 1, packed, inputs, d * nr, hs, z, h, 1)
            if N == 1:
                copy_padded(h, work, other, hs, z)
                gemv(packed, recurrent, h, h, work, state, work, other, work, other, k & 1)
                if relu:
                    rectify(ldh, work, other, work, other)
                else:
                    hyperbolic_tangent(ldh, work, other, work, other)
                copy(h, hs, z, work, other)
                state, other = other, state
                continue
            before, at = h0, start * h
            if k > 0:
                before, at = hs, ((t + 1 if reverse else t - 1) * N + start) * h
            if ragged and reverse and k > 0:  # a sequence that begins here does so with its first state
                for r in range(rows):
                    if lengths[start + r] == t + 1:
                        copy(h, hs, at + r * h, h0, (start + r) * h)
            multiply(rows, h, h, before, at, h, 1, packed, recurrent, h * nr, hs, z, h, 1)
            if relu:
                rectify(rows * h, hs, z, hs, z)
            else:
                hyperbolic_tangent(rows * h, hs, z, hs, z)
            if ragged:
                for r in range(rows):
                    length = lengths[start + r]
                    if length == t + 1 and reverse and k > 0:
                        fill(h, hs, at + r * h, 0.0)
                    elif length == t + 1 and not reverse:
                        copy(h, h_n, (start + r) * h, hs, z + r * h)
                    elif length <= t:
                        fill(h, hs, z + r * h, 0.0)
        if N == 1:
            copy(h, h_n, 0, work, state)
        elif reverse:
            copy(rows * h, h_n, start * h, hs, start * h)
        elif not ragged:
            copy(rows * h, h_n, start * h, hs, ((T - 1) * N + start) * h)

    if operation == BACKWARD:
        fill(max(steps, 2) * rows * ldz, work, dz, 0.0)  # for the padding
        weights = len(dW_hh) > 0
        if one_hot and accumulate and weights:
            transpose_panel(dW_ih, 0, d, d, h, ldh, work, columns)
        elif one_hot:
            fill(d * ldh, work, columns, 0.0)
        fill(ldh, work, sums, 0.0)
        more = 1 if accumulate else 0
        after = dz
        for first in range((T - 1) // steps * steps, -1, -steps):
            n = min(steps, T - first)
            # Where blocks are one step long, two places for dz take turns: it is read one step later.
            base = dz + (first & 1) * rows * ldz if steps == 1 else dz
            for k in range(first + n - 1, first - 1, -1):
                t = T - 1 - k if reverse else k
                row, state = base + (k - first) * rows * ldz, (t * N + start) * h
                copy_tile(rows, h, work, row, ldz, dhs, state, h)
                if k < T - 1:  # eqs. 9, 12
                    _times(N, rows, ldh, h, work, after, ldz, packed, back, work, row, ldz, work, k)
                elif len(dh_n) > 0 and (reverse or not ragged):
                    for r in range(rows):
                        add(h, work, row + r * ldz, work, row + r * ldz, dh_n, (start + r) * h)
                if ragged:
                    for r in range(rows):
                        length, place = lengths[start + r], row + r * ldz
                        if length <= t:
                            fill(h, work, place, 0.0)
                        elif length == t + 1 and not reverse:
                            copy(h, work, place, dhs, state + r * h)
                            if len(dh_n) > 0:
                                add(h, work, place, work, place, dh_n, (start + r) * h)
                if len(dh_all) > 0:
                    copy_tile(rows, h, dh_all, state, h, work, row, ldz)
                times_slopes(rows, h, work, row, ldz, hs, state, h, work, sums, 1 if relu else 0)
                after = row
                if ragged and reverse:
                    for r in range(rows):
                        if lengths[start + r] == t + 1:
                            fill(ldh, work, panels, 0.0)
                            _times(
                                N, 1, ldh, h, work, row + r * ldz, ldz, packed, back, work, panels, ldh,
                                work, 0,
                            )  # fmt: skip
                            copy(h, dh0, (start + r) * h, work, panels)
            total = n * rows
            if not weights:
                if len(dx) > 0 and not one_hot:
                    for k in range(first, first + n):
                        place = (T - 1 - k if reverse else k) * N + start
                        row = base + (k - first) * rows * ldz
                        multiply(
                            rows, d, h, work, row, ldz, 1, packed, inputs_back, h * nr, dx, place * d, d, 0
                        )
                continue
            for k in range(first, first + n):
                t = T - 1 - k if reverse else k
                where = panels + (k - first) * rows * nr
                if k == 0:
                    pack_rows(h0, start * h, h, rows, h, work, where, total * nr)
                else:
                    place = ((t + 1 if reverse else t - 1) * N + start) * h
                    pack_rows(hs, place, h, rows, h, work, where, total * nr)
                if ragged and reverse and k > 0:
                    for r in range(rows):
                        if lengths[start + r] == t + 1:
                            pack_rows(h0, (start + r) * h, h, 1, h, work, where + r * nr, total * nr)
            multiply(  # eq. 11
                h, h, total, work, base, 1, ldz, work, panels, total * nr, dW_hh, 0, h, more
            )
            for k in range(first, first + n):
                place = (T - 1 - k if reverse else k) * N + start
                row, where = base + (k - first) * rows * ldz, panels + (k - first) * rows * nr
                if one_hot:
                    for r in range(rows):
                        column = columns + indices[place + r] * ldh
                        add(ldh, work, column, work, column, work, row + r * ldz)
                else:
                    pack_rows(x, place * d, d, rows, d, work, where, total * nr)
                    if len(dx) > 0:
                        multiply(
                            rows, d, h, work, row, ldz, 1, packed, inputs_back, h * nr, dx, place * d, d, 0
                        )
            if not one_hot:
                multiply(h, d, total, work, base, 1, ldz, work, panels, total * nr, dW_ih, 0, d, more)
            more = 1
        if not (ragged and reverse):
            row = panels
            fill(rows * ldh, work, row, 0.0)
            _times(N, rows, ldh, h, work, after, ldz, packed, back, work, row, ldh, work, 0)
            copy_tile(rows, h, dh0, start * h, h, work, row, ldh)
        if one_hot and weights:
            transpose_panel(work, columns, ldh, h, d, d, dW_ih, 0)
        if not weights:
            pass
        elif accumulate:
            add(h, db_ih, 0, db_ih, 0, work, sums)
            add(h, db_hh, 0, db_hh, 0, work, sums)
        else:
            copy(h, db_ih, 0, work, sums)
            copy(h, db_hh, 0, work, sums)


# ---- the output ---------------------------------------------------------------------------------------


@kernel
def _output(
    operation, T, N, h, q, packed, hs, targets, factor, logits, dhs, dW, db, accumulate, start, stop, work
):
    """Logits, or the loss, or the loss and the gradients, for ``start <= n < stop``; returns the loss."""
    rows = stop - start
    lanes = VECTOR_BYTES // work.itemsize
    nr = GEMM_VECTORS * lanes
    ldq = (q + lanes - 1) & -lanes
    bias, forward, back, _, _ = _output_panels(N, h, q, lanes, (-packed.ctypes.data & 63) // packed.itemsize)
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


# ---- the sum of gradients ------------------------------------------------------------------------------


@kernel
def _reduce(parts, count, n, clip, threshold, out):
    """Sum of `count` gradients of n elements; returns its norm."""
    squares = 0.0
    for first in range(0, n, PIECE):
        m = min(PIECE, n - first)
        copy(m, out, first, parts, first)
        for part in range(1, count):
            add(m, out, first, out, first, parts, part * n + first)
        squares += np.float64(sum_of_squares(m, out, first))
    norm = math.sqrt(squares)
    if norm == math.inf:  # squares may be beyond the largest number where their root is not
        squares = 0.0
        for i in range(n):
            x = np.float64(out[i]) * 2.0**-600
            squares += x * x
        norm = math.sqrt(squares) * 2.0**600
    if clip == CLIP_VALUE:
        clamp(n, out, 0, out, 0, threshold)
    if clip == CLIP_NORM and not norm <= threshold:
        scale(n, out, 0, out, 0, threshold / norm)
    return norm


# ---- sampling --------------------------------------------------------------------------------------------


@inlined
def _sink(p, work, heap, n, root):
    """Move the class at `root` of a heap of n classes down to its place: above are the more probable ones,
    and of equals those with the lower index."""
    while 2 * root + 1 < n:
        child = 2 * root + 1
        c = np.int64(work[heap + child])
        if child + 1 < n:
            other = np.int64(work[heap + child + 1])
            if work[p + other] > work[p + c] or (work[p + other] == work[p + c] and other < c):
                child, c = child + 1, other
        r = np.int64(work[heap + root])
        if work[p + r] > work[p + c] or (work[p + r] == work[p + c] and r < c):
            break
        work[heap + root], work[heap + child] = c, r
        root = child


@inlined
def _restrict(work, p, q, top_k, top_p, heap):
    """Set to zero what is not among the `top_k` most probable classes (0: all), or not among the fewest of
    these whose probabilities reach `top_p` of theirs in sum."""
    candidates = top_k if 0 < top_k < q else q
    for j in range(q):
        work[heap + j] = j
    for root in range(q // 2 - 1, -1, -1):
        _sink(p, work, heap, q, root)
    total = np.float64(0)
    for i in range(candidates):  # the most probable goes behind the heap
        best, last = work[heap], work[heap + q - 1 - i]
        work[heap + q - 1 - i] = best
        work[heap] = last
        total += work[p + np.int64(best)]
        _sink(p, work, heap, q - 1 - i, 0)
    reached, kept = np.float64(0), 0
    while kept < candidates and (kept == 0 or top_p >= 1 or reached < top_p * total):
        reached += work[p + np.int64(work[heap + q - 1 - kept])]
        kept += 1
    for i in range(q - kept):
        work[p + np.int64(work[heap + i])] = 0


@kernel
def _draw_class(work, y, q, ldq, u, temperature, top_k, top_p, heap):
    """Class index drawn from the logits of one sequence, or -1 if they are not numbers."""
    drawn = 0
    if temperature == 0:
        for j in range(q):
            if not work[y + j] < math.inf:
                drawn = -1
                break
            if work[y + j] > work[y + drawn]:
                drawn = j
        return drawn
    top = largest(ldq, work, y)
    if temperature != 1:
        for j in range(y, y + ldq):
            work[j] = (work[j] - top) / temperature
        top -= top
    if not exponentials(ldq, work, y, top) > 0:
        return -1
    if 0 < top_k < q or top_p < 1:
        _restrict(work, y, q, top_k, top_p, heap)
    even, odd = np.float64(0), np.float64(0)
    for j in range(y, y + ldq, 2):  # the padding is zero
        even += work[j]
        odd += work[j + 1]
    total = even + odd
    running, almost = np.float64(0), u * total * (1 - 1e-15)
    drawn = -1
    for j in range(q):
        running += work[y + j]
        if running > almost and running / total > u:
            drawn = j
            break
    if drawn < 0:  # sums in another order differ: the last class that may be drawn
        drawn = q - 1
        while drawn > 0 and work[y + drawn] == 0:
            drawn -= 1
    return drawn


@kernel
def _sample(
    N, L, d, h, q, packed, bases, packed_output, states, first, uniforms, temperature, top_k, top_p, out,
    start, stop, relu, work,
):  # fmt: skip
    """Classes for ``start <= n < stop``; returns how many steps were drawn.

    The packed weights of layer l begin at ``packed[bases[l]]``.
    """
    rows, count = stop - start, out.shape[1]
    lanes = VECTOR_BYTES // work.itemsize
    nr = GEMM_VECTORS * lanes
    ldh, ldq = (h + lanes - 1) & -lanes, (q + lanes - 1) & -lanes
    z, y, heap, _ = _sample_layout(rows, h, q, lanes, (-work.ctypes.data & 63) // work.itemsize)
    bias, forward, _, alone, _ = _output_panels(
        N, h, q, lanes, (-packed_output.ctypes.data & 63) // packed_output.itemsize
    )
    for i in range(count):
        for layer in range(L):
            below = d if layer == 0 else h
            layer_bias, recurrent, _, inputs, _, inputs_alone, _ = _layer_panels(
                N, below, h, lanes, bases[layer]
            )
            state = (layer * N + start) * h
            if layer == 0:
                for r in range(rows):
                    index = first[start + r] if i == 0 else out[start + r, i - 1]
                    copy(ldh, work, z + r * ldh, packed, inputs + index * ldh)
            else:
                for r in range(rows):
                    copy(ldh, work, z + r * ldh, packed, layer_bias)
                if N == 1:
                    gemv(packed, inputs_alone, h, h, states, state - h, work, z, work, z, i & 1)
                else:
                    multiply(
                        rows, ldh, h, states, state - N * h, h, 1, packed, inputs, h * nr, work, z, ldh, 1
                    )
            if N == 1:
                gemv(packed, recurrent, h, h, states, state, work, z, work, z, i & 1)
            else:
                multiply(rows, ldh, h, states, state, h, 1, packed, recurrent, h * nr, work, z, ldh, 1)
            if relu:
                rectify(rows * ldh, work, z, work, z)
            else:
                hyperbolic_tangent(rows * ldh, work, z, work, z)
            copy_tile(rows, h, states, state, h, work, z, ldh)
        state = ((L - 1) * N + start) * h
        for r in range(rows):
            copy(ldq, work, y + r * ldq, packed_output, bias)
        if N == 1:
            gemv(packed_output, alone, h, q, states, state, work, y, work, y, i & 1)
        else:
            multiply(rows, ldq, h, states, state, h, 1, packed_output, forward, h * nr, work, y, ldq, 1)
        for r in range(rows):
            drawn = _draw_class(
                work, y + r * ldq, q, ldq, uniforms[(start + r) * count + i], temperature, top_k, top_p, heap
            )
            if drawn < 0:
                return i
            out[start + r, i] = drawn
    return count


if config.DISABLE_JIT:  # machine code raises no floating-point warnings
    _pack, _layer, _output, _reduce, _sample = map(
        np.errstate(all="ignore"), (_pack, _layer, _output, _reduce, _sample)
    )

# ---- what the package calls ----------------------------------------------------------------------------

_NO_INDICES = np.empty(0, np.int64)


@functools.cache
def _empty(dtype):
    return np.empty(0, dtype)


def _given(array):
    """An input, flat; one that is read-only would have everything compiled once more for itself."""
    flat = array.ravel()
    return flat if flat.flags.writeable else flat.copy()


def pack_layer(layer, N, one_hot, packed):
    """Bring the weights of a layer into the order in which N sequences will read them.

    `one_hot` says that the inputs are class indices.
    """
    h, d = layer[0].shape
    _pack(*map(_given, layer), True, bool(one_hot), N, d, h, packed)


def pack_output(output, N, packed):
    """Bring the weights of an output layer into the order in which N sequences will read them."""
    q, h = output[0].shape
    W, b = map(_given, output)
    _pack(W, W, b, b, False, False, N, q, h, packed)


def layer_forward(
    layer, packed, indices, x, lengths, h0, hs, h_n, start, stop, relu, reverse, work
):  # fmt: skip
    """States of a layer (eq. 1)."""
    T, N, h = hs.shape
    d = layer[0].shape[1]
    hs, nothing = hs.ravel(), _empty(hs.dtype)
    indices, x, lengths, h0, h_n = (*map(_given, (indices, x, lengths, h0)), h_n.ravel())
    for first in range(start, stop, ROWS):
        _layer(
            FORWARD, T, N, d, h, packed, indices, x, lengths, h0, hs, h_n, nothing, nothing, nothing,
            nothing, nothing, nothing, nothing, nothing, nothing, False, first, min(first + ROWS, stop),
            bool(relu), bool(reverse), work,
        )  # fmt: skip


def layer_backward(
    layer, packed, indices, x, lengths, h0, hs, dhs, dh_n, dx, dh0, dh_all, grads, accumulate, start, stop,
    relu, reverse, work,
):  # fmt: skip
    """Gradients of a layer by BPTT (eqs. 9 to 13)."""
    T, N, h = hs.shape
    d = layer[0].shape[1]
    indices, x, lengths, h0, hs, dhs, dh_n = map(_given, (indices, x, lengths, h0, hs, dhs, dh_n))
    dx, dh0, dh_all, grads = dx.ravel(), dh0.ravel(), dh_all.ravel(), [g.ravel() for g in grads]
    if not grads:
        grads = [hs[:0]] * 4
    for first in range(start, stop, ROWS):
        _layer(
            BACKWARD, T, N, d, h, packed, indices, x, lengths, h0, hs, hs, dhs, dh_n, dx, dh0, dh_all, *grads,
            bool(accumulate) or first > start, first, min(first + ROWS, stop), bool(relu), bool(reverse),
            work,
        )  # fmt: skip


def output_logits(output, packed, hs, logits, start, stop, work):
    """Logits ``y_t = W h_t + b`` (eq. 2), written to ``logits (T,N,q)``."""
    T, N, q = logits.shape
    h = hs.shape[2]
    hs, logits = _given(hs), logits.ravel()
    for first in range(start, stop, ROWS):
        _output(
            LOGITS, T, N, h, q, packed, hs, _NO_INDICES, hs.dtype.type(0), logits, hs, hs, hs, False, first,
            min(first + ROWS, stop), work,
        )  # fmt: skip


def output_loss(output, packed, hs, targets, scale, dhs, grads, accumulate, start, stop, work):
    """Cross-entropy in nats, summed over steps and sequences (eqs. 2, 5, 6), and its gradients (eqs. 7 to 9)."""
    T, N, h = hs.shape
    q = len(output[1])
    operation = LOSS_AND_GRADS if dhs.size else LOSS
    hs, dhs, targets, factor = _given(hs), dhs.ravel(), _given(targets), hs.dtype.type(scale)
    dW, db = (g.ravel() for g in grads) if operation == LOSS_AND_GRADS else (hs, hs)
    loss = 0.0
    for first in range(start, stop, ROWS):
        loss += _output(
            operation, T, N, h, q, packed, hs, targets, factor, hs, dhs, dW, db,
            bool(accumulate) or first > start, first, min(first + ROWS, stop), work,
        )  # fmt: skip
    return float(loss)


def reduce_gradients(parts, clip, threshold, out):
    """Add up ``parts (P,n)``, clip the sum by its entries or by its norm (eq. 15), and write it to ``out (n)``.

    Returns the norm before the clipping.
    """
    count, n = parts.shape
    return _reduce(_given(parts), count, n, clip, float(threshold), out)


def sample_batch(
    layers, packed_layers, output, packed_output, states, first, uniforms, temperature, top_k, top_p, out,
    start, stop, relu, work,
):  # fmt: skip
    """Draw class indices for the sequences of a batch, each fed back as the next input.

    Returns how many steps were drawn: fewer than n when the probabilities of the next one are not numbers.
    """
    L, N, h = states.shape
    real = states.dtype.type
    temperature = max(real(temperature), np.finfo(real).tiny) if temperature else real(0)
    packed = packed_layers[0] if L == 1 else np.concatenate(packed_layers)
    bases, before = np.empty(L, np.int64), 0
    for layer, array in enumerate(packed_layers):
        bases[layer] = before + (-array.ctypes.data & 63) // array.itemsize
        before += array.size
    return int(
        _sample(
            N, L, layers[0][0].shape[1], h, len(output[1]), packed, bases, packed_output, states.ravel(),
            _given(first), _given(uniforms), temperature, top_k, float(top_p), out, start, stop, bool(relu), work,
        )
    )  # fmt: skip
