"""The recurrent layer in batches, compiled by Numba at first use and kept on disk.

The functions and their arguments are those of `fastrnn.kernels.numpy_batched`; see there for the
equations.  One compiled function goes forward or backward, told which by its first argument: so the loops of a
matrix product are compiled once for both, and who only uses the layer compiles only that.

A thread takes its sequences through all time steps, `ROWS` at a time, in products with packed weights.
Gradients of weights are products over blocks of steps, which have about `ROWS` rows of a step and sequence
in all.

A row of a product does not depend on the rows beside it, so what belongs to one sequence does not depend
on how the batch is shared among threads.

Arrays come to the compiled functions flat, each with the offset at which its part begins.  ``ldh`` is h
rounded up to whole vectors; ``ldz`` is such a row an odd number of vectors apart from the next, so that rows
below each other don't compete for the same place in the cache.
"""

import functools

import numpy as np

from fastrnn.kernels.elementary import (
    add,
    copy,
    copy_padded,
    copy_tile,
    fill,
    hyperbolic_tangent,
    rectify,
    times_slopes,
)
from fastrnn.kernels.jit import flat, inlined, inlined_and_python, kernel
from fastrnn.kernels.numba_weights import ROWS, largest_end, layer_panels, pieces
from fastrnn.kernels.packing import GEMM_VECTORS, pack_rows, transpose_panel
from fastrnn.kernels.products import gemv, multiply
from fastrnn.kernels.vectors import VECTOR_BYTES

AHEAD = 16  # with fewer sequences than this, inputs are multiplied for many time steps at once

#: What the compiled function is asked for.
FORWARD, BACKWARD = 0, 1

# ---- memory -----------------------------------------------------------------------------------------


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


@functools.lru_cache(maxsize=256)
def layer_sizes(T, N, rows, d, h):
    """Elements of `packed` and of `work` for a layer, N sequences, at most `rows` of them at once."""
    return largest_end(layer_panels, N, d, h), max(
        largest_end(_layer_layout, T, r, d, h) for r in pieces(rows)
    )


# ---- the layer --------------------------------------------------------------------------------------


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
    bias, recurrent, back, inputs, inputs_back, _, _ = layer_panels(
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


# ---- what the package calls -------------------------------------------------------------------------


@functools.cache
def _empty(dtype):
    return np.empty(0, dtype)


def layer_forward(layer, packed, batch, h0, hs, h_n, rows, cell, work):
    """States of a layer (eq. 1)."""
    (indices, x, lengths, reverse), (start, stop), relu = batch, rows, cell
    T, N, h = hs.shape
    d = layer[0].shape[1]
    hs, nothing = hs.ravel(), _empty(hs.dtype)
    indices, x, lengths, h0, h_n = (*map(flat, (indices, x, lengths, h0)), h_n.ravel())
    for first in range(start, stop, ROWS):
        _layer(
            FORWARD, T, N, d, h, packed, indices, x, lengths, h0, hs, h_n, nothing, nothing, nothing,
            nothing, nothing, nothing, nothing, nothing, nothing, False, first, min(first + ROWS, stop),
            bool(relu), bool(reverse), work,
        )  # fmt: skip


def layer_backward(
    layer, packed, batch, states, upstream, wanted, grads, accumulate, rows, cell, work
):  # fmt: skip
    """Gradients of a layer by BPTT (eqs. 9 to 13)."""
    (indices, x, lengths, reverse), (start, stop), relu = batch, rows, cell
    (h0, hs), (dhs, dh_n), (dx, dh0, dh_all) = states, upstream, wanted
    T, N, h = hs.shape
    d = layer[0].shape[1]
    indices, x, lengths, h0, hs, dhs, dh_n = map(flat, (indices, x, lengths, h0, hs, dhs, dh_n))
    dx, dh0, dh_all, grads = dx.ravel(), dh0.ravel(), dh_all.ravel(), [g.ravel() for g in grads]
    if not grads:
        grads = [hs[:0]] * 4
    for first in range(start, stop, ROWS):
        _layer(
            BACKWARD, T, N, d, h, packed, indices, x, lengths, h0, hs, hs, dhs, dh_n, dx, dh0, dh_all, *grads,
            bool(accumulate) or first > start, first, min(first + ROWS, stop), bool(relu), bool(reverse),
            work,
        )  # fmt: skip
