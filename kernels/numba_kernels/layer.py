"""One layer over a batch of sequences, compiled by Numba at first use and kept on disk.

The functions, their arguments and the equations are those of `fastrnn.kernels.numpy_kernels.layer`, for each of N
sequences::

    z_t  = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh,  h_t = cell(z_t)                          (1)
    dh_t = d output_t + W_hh' dz_{t+1},  dz_t = dh_t slope(h_t)                             (9), (12), (10)
    dW_hh = sum dz_t h_{t-1}',  dW_ih = sum dz_t x_t',  db = sum dz_t,  dx_t = W_ih' dz_t   (11), (13)

A layer that runs in reverse meets the last time step first: its "h_{t-1}" is h_{t+1}.  ``k`` counts steps in the
order in which the layer meets them, ``t`` is the time step: k, or T - 1 - k in reverse.

Arrays are C-contiguous, of one dtype, and time-major.  ``layer = (W_ih (h,d), W_hh (h,h), b_ih (h), b_hh (h))``,
``grads`` alike.  ``batch = (indices, x, lengths, reverse)``: inputs are class indices ``indices (T,N)``, which stand
for one-hot vectors (then ``x`` has no rows), or vectors ``x (T,N,d)`` (then ``indices`` has none).  ``lengths (N,)``
says where sequences end that are shorter than T; it is empty where all are of length T.  From its end on a sequence's
output is zero and nothing flows back.  ``rows = (start, stop)`` are the sequences to work on.  ``packed`` is what
`pack_layer` has made of the weights, or empty: for a few steps of a few sequences they are used as they are.  ``work``
is scratch space of one thread.

A thread takes its sequences through all time steps, `ROWS` at a time, in products with packed weights: a step is
then one product of the rows of its sequences with panels that are read in order.  One sequence alone has products
with vectors.  Gradients of weights are products over blocks of steps, which have about `ROWS` rows of a step and
sequence in all.

A row of a product does not depend on the rows beside it, so what belongs to one sequence does not depend on how
the batch is shared among threads.

Rows are vectors that these write into, whole registers at a time (`elementary`, `products`).  `out` says how many
elements there are; ``copy(h_n[start:stop], hs[t, start:stop])`` takes rows that follow each other as one::

    copy(out, x), add(out, x, y)              out = x,  out = x + y
    add_rows_times(out, W, x)                 out += W x, W as the user has it: its rows times x
    gemv(out, z, x, B, backwards)             out = z + B' x, B packed by `pack_for_gemv`
    multiply(out, rows, B, more)              out = rows B, or += where more is 1, B packed by `pack_for_gemm`
    add_times(out, rows, W, packed, turn)     out += rows W: by `gemv` where `turn` is 0 or 1, its `backwards`; by
                                              `multiply` where it is -1; with W itself where `packed` has no rows

So forward, which wants ``W_hh h``, packs ``W_hh.T``, and backward, which wants ``W_hh' dz``, packs ``W_hh``.
``gemv(..., k & 1)`` reads the matrix from its end at every second step: what was read last is in the cache still.

`lanes` is the number of elements in a vector register.  ``ldh`` is h rounded up to whole vectors, the length of a
padded row; ``ldz`` is that or one vector more, an odd number of them, so that rows below each other don't compete for
the same place in the cache.  ``wide_d`` and ``wide_h`` are d and h rounded up to whole panels of `multiply`.
"""

import functools

from fastrnn.kernels import GATES, PACK_BOTH, PACK_FORWARD
from fastrnn.kernels.numba_kernels import cells
from fastrnn.kernels.numba_kernels.batch import ROWS, groups, pieces
from fastrnn.kernels.numba_kernels.elementary import add, copy, copy_padded, copy_tile, fill, gather_column
from fastrnn.kernels.numba_kernels.emit import VECTOR_BYTES
from fastrnn.kernels.numba_kernels.gated import gated_backward, gated_forward, gated_sizes, pack_gated
from fastrnn.kernels.numba_kernels.jit import all_ready, inlined, inlined_and_python, kernel, ready
from fastrnn.kernels.numba_kernels.memory import after, first_line, largest_end, matrix, padded
from fastrnn.kernels.numba_kernels.packing import (
    pack_for_gemm,
    pack_for_gemv,
    pack_rows,
    padded_to_panels,
    transpose,
)
from fastrnn.kernels.numba_kernels.products import STRIP, add_rows_times, add_times, gemv, multiply

AHEAD = 16  # with fewer sequences than this, inputs are multiplied for many time steps at once

# ---- memory -----------------------------------------------------------------------------------------


@inlined_and_python
def _panels_layout(N, d, h, lanes, start):
    """Offsets in the packed weights of a layer, from `start` on; the last is their end.  For N = 1, W_hh is packed
    for `gemv`, in rows of ldh, else for `multiply`, in rows of wide_h."""
    ldh, wide_d, wide_h = padded(h, lanes), padded_to_panels(d, lanes), padded_to_panels(h, lanes)
    bias = start  # (1, ldh)
    recurrent = after(bias, ldh)  # (h, wide_h) W_hh transposed
    back = after(recurrent, h * wide_h)  # (h, wide_h) W_hh
    inputs = after(back, h * wide_h)  # W_ih transposed: (d, ldh) with the bias added, or (d, wide_h) packed
    inputs_back = after(inputs, d * wide_h)  # (h, wide_d) W_ih
    alone = after(inputs_back, h * wide_d)  # (d, ldh) W_ih transposed, to sample one sequence
    end = alone + (d * ldh if N == 1 else 0)
    return bias, recurrent, back, inputs, inputs_back, alone, end


@inlined
def layer_panels(packed, place, N, d, h):
    """The packed weights that begin at ``packed[place]``, as matrices::

    bias (ldh)                 b_ih + b_hh
    recurrent, back            W_hh' for forward, W_hh for backward: for `gemv` where N is 1, else `multiply`
    rows_of_inputs (d, ldh)    W_ih' with the bias added to every row: row c is W_ih x + b of class c
    inputs, inputs_back        for `multiply`: W_ih' for forward, in the place of these rows; W_ih for backward
    alone                      W_ih' for `gemv`, to sample one sequence; no rows where N is more
    """
    lanes = VECTOR_BYTES // packed.itemsize
    ldh, wide_d, wide_h = padded(h, lanes), padded_to_panels(d, lanes), padded_to_panels(h, lanes)
    width = ldh if N == 1 else wide_h
    bias, recurrent, back, inputs, inputs_back, alone, _ = _panels_layout(N, d, h, lanes, place)
    return (
        matrix(packed, bias, 1, ldh)[0],
        matrix(packed, recurrent, h, width),
        matrix(packed, back, h, width),
        matrix(packed, inputs, d, ldh),
        matrix(packed, inputs, d, wide_h),
        matrix(packed, inputs_back, h, wide_d),
        matrix(packed, alone, d if N == 1 else 0, ldh),
    )


@inlined_and_python
def _layout(T, rows, d, h, lanes, start):
    """Time steps of a block and row length of its gradients, then offsets in the work space of `_backward` for so
    many sequences; the last is its end.  (Forward wants at most two rows of it.)"""
    ldh, wide_d, wide_h = padded(h, lanes), padded_to_panels(d, lanes), padded_to_panels(h, lanes)
    ldz = (ldh // lanes | 1) * lanes  # an odd number of vectors
    steps = min(T, max(1, ROWS // rows))
    dz = start  # (max(steps, 2) * rows, ldz); where blocks are of one step, two take turns
    panels = after(dz, max(steps, 2) * rows * ldz)  # (steps * rows, wide) states or inputs of a block, or dh0
    columns = after(panels, max(steps * rows * max(wide_d, wide_h), rows * ldz))  # (d, ldh) dW_ih, transposed
    sums = after(columns, d * ldh)  # (1, ldh) db
    end = sums + ldh
    return steps, ldz, dz, panels, columns, sums, end


@functools.lru_cache(maxsize=256)
def layer_sizes(T, N, rows, d, h, cell):
    """Elements of `packed` and of `work` for a layer, N sequences, at most `rows` of them at once."""
    if GATES[cell] > 1:
        return gated_sizes(T, N, rows, d, h, cell)
    # Fewer sequences go in blocks of more steps, and may want more space: every number of them is looked at.
    return largest_end(_panels_layout, N, d, h), max(largest_end(_layout, T, r, d, h) for r in pieces(rows))


# ---- packing ----------------------------------------------------------------------------------------


@kernel
def _pack(layer, N, one_hot, packed):
    """`pack_layer`: ``bias = b_ih + b_hh``, and both matrices in the order in which forward and backward read them."""
    W_ih, W_hh, b_ih, b_hh = layer
    h, d = W_ih.shape
    bias, recurrent, back, rows_of_inputs, inputs, inputs_back, alone = layer_panels(
        packed, first_line(packed), N, d, h
    )
    copy_padded(bias, b_ih)
    add(bias[:h], bias[:h], b_hh)
    if N == 1:
        pack_for_gemv(recurrent, W_hh.T)
        pack_for_gemv(back, W_hh)
    else:
        pack_for_gemm(recurrent, W_hh.T)
        pack_for_gemm(back, W_hh)
    if one_hot:
        transpose(rows_of_inputs, W_ih)
        for c in range(d):
            add(rows_of_inputs[c], rows_of_inputs[c], bias)
    else:
        pack_for_gemm(inputs, W_ih.T)
        pack_for_gemm(inputs_back, W_ih)
        if N == 1:
            pack_for_gemv(alone, W_ih.T)


def pack_layer(layer, N, one_hot, cell, packed, passes=PACK_BOTH, threads=1):
    """Bring the weights of a layer into the order in which N sequences will read them, in `packed`.

    `one_hot` says that the inputs are class indices.  Both passes are packed for before the forward one.
    """
    if not passes & PACK_FORWARD:
        return
    if packed.size and GATES[cell] > 1:
        pack_gated(layer, N, one_hot, packed)
    elif packed.size:
        _pack(all_ready(layer), N, bool(one_hot), packed)


# ---- forward ----------------------------------------------------------------------------------------


@kernel
def _forward_few(layer, batch, h0, hs, h_n, rows, cell, work):
    """`layer_forward` for a few steps: the weights as they are.  The plainest of the three; the others want `packed`.

    Row n of `h_n` holds h_{t-1} of sequence n on the way.
    """
    (W_ih, W_hh, b_ih, b_hh), (indices, x, lengths, reverse), (start, stop) = layer, batch, rows
    T, _, h = hs.shape
    lanes = VECTOR_BYTES // work.itemsize
    bias = matrix(work, first_line(work), 1, padded(h, lanes))[0]
    copy_padded(bias, b_ih)
    add(bias[:h], bias[:h], b_hh)
    for n in range(start, stop):
        copy(h_n[n], h0[n])
    for k in range(T):
        t = T - 1 - k if reverse else k
        # z_t = b, or W_ih x_t + b for a one-hot x_t: a column of W_ih
        for n in range(start, stop):
            if len(indices) > 0:
                gather_column(hs[t, n], W_ih, indices[t, n], bias)
            else:
                copy(hs[t, n], bias)
        # z_t += W_ih x_t, z_t += W_hh h_{t-1}: a few rows of both for all sequences, while they are in the first cache
        for i in range(0, h, STRIP):
            for n in range(start, stop):
                z = hs[t, n, i:]
                if len(indices) == 0:
                    add_rows_times(z, W_ih[i : i + STRIP], x[t, n])
                add_rows_times(z, W_hh[i : i + STRIP], h_n[n])
        # h_t = cell(z_t)  (eq. 1)
        for n in range(start, stop):
            if len(lengths) > 0 and t >= lengths[n]:
                fill(hs[t, n], 0.0)
            else:
                # A cell adds up what comes from the input and from the state.  Both are in z_t: no second part, [:0].
                cells.forward(cell, hs[t, n], hs[t, n, :0], (h_n[n],), (hs[t, n],))
                copy(h_n[n], hs[t, n])


@kernel
def _forward_one(packed, batch, h0, hs, h_n, d, cell, work):
    """`layer_forward` for one sequence, N = 1: products of matrices with vectors.

    `met` counts the steps that the sequence has had: it says which of two rows is h_{t-1}.
    """
    indices, x, lengths, reverse = batch
    T, _, h = hs.shape
    bias, recurrent, _, rows_of_inputs, inputs, _, _ = layer_panels(packed, first_line(packed), 1, d, h)
    states = matrix(work, first_line(work), 2, len(bias))  # h_{t-1} and h_t take turns
    if len(indices) == 0:  # z_t = W_ih x_t + b for many steps at once: W_ih is read once for all of them
        for t0 in range(0, T, ROWS):
            n = min(ROWS, T - t0)
            for t in range(t0, t0 + n):
                copy(hs[t, 0], bias)
            multiply(hs[t0 : t0 + n, 0], x[t0 : t0 + n, 0], inputs, 1)
    met = 0
    copy_padded(states[0], h0[0])
    for k in range(T):
        t = T - 1 - k if reverse else k
        if len(lengths) > 0 and t >= lengths[0]:
            fill(hs[t, 0], 0.0)
            continue
        before, row = states[met & 1], states[1 - (met & 1)]
        # z_t = W_ih x_t + b
        if len(indices) > 0:
            copy(row, rows_of_inputs[indices[t, 0]])
        else:
            copy_padded(row, hs[t, 0])
        # h_t = cell(z_t + W_hh h_{t-1})  (eq. 1)
        gemv(row, row, before, recurrent, k & 1)
        cells.forward(cell, row, row[:0], (before,), (row,))
        copy(hs[t, 0], row)
        met += 1
    copy(h_n[0], states[met & 1])


@kernel
def _forward_rows(packed, batch, h0, hs, h_n, rows, d, cell):
    """`layer_forward` for several sequences: a step is a product of matrices, which reads the weights once for all.

    Sequences that have ended go on in these products, and what comes out is set to zero.
    """
    (indices, x, lengths, reverse), (start, stop) = batch, rows
    T, N, h = hs.shape
    bias, recurrent, _, rows_of_inputs, inputs, _, _ = layer_panels(packed, first_line(packed), N, d, h)
    one_hot, ragged = len(indices) > 0, len(lengths) > 0
    # Few sequences: z_t = W_ih x_t + b for many steps at once, or W_ih would be read for a few rows.  (If they are all
    # there are: then the rows of the next step follow in memory.)
    ahead = not one_hot and stop - start == N and N < AHEAD
    if ahead:
        z, vectors = hs.reshape(T * N, h), x.reshape(T * N, d)
        for r0 in range(0, T * N, ROWS):
            end = min(r0 + ROWS, T * N)
            for r in range(r0, end):
                copy(z[r], bias)
            multiply(z[r0:end], vectors[r0:end], inputs, 1)
    for k in range(T):
        t = T - 1 - k if reverse else k
        before = h0[start:stop]
        if k > 0:
            before = hs[t + 1 if reverse else t - 1, start:stop]
        now = hs[t, start:stop]
        # z_t = W_ih x_t + b
        if one_hot:
            for n in range(start, stop):
                copy(hs[t, n], rows_of_inputs[indices[t, n]])
        elif not ahead:
            for n in range(start, stop):
                copy(hs[t, n], bias)
            multiply(now, x[t, start:stop], inputs, 1)
        # A sequence that begins here does so with h0, not with the zero of the step before, which is beyond its end:
        # h0 stands there until the step is done.
        if ragged and reverse and k > 0:
            for n in range(start, stop):
                if lengths[n] == t + 1:
                    copy(hs[t + 1, n], h0[n])
        # h_t = cell(z_t + W_hh h_{t-1})  (eq. 1)
        multiply(now, before, recurrent, 1)
        cells.forward(cell, now, now[:0], (before,), (now,))
        if ragged:
            for n in range(start, stop):
                if lengths[n] == t + 1 and reverse and k > 0:
                    fill(hs[t + 1, n], 0.0)
                elif lengths[n] == t + 1 and not reverse:
                    copy(h_n[n], hs[t, n])
                elif lengths[n] <= t:
                    fill(hs[t, n], 0.0)
    if reverse:  # all sequences end at time step 0
        copy(h_n[start:stop], hs[0, start:stop])
    elif not ragged:
        copy(h_n[start:stop], hs[T - 1, start:stop])


def layer_forward(layer, packed, batch, h0, hs, kept, h_n, rows, cell, work, threads=1):
    """States of a layer (eq. 1).

    Reads `h0`; writes rows ``start <= n < stop`` of ``hs (T,N,h)``, zero where a sequence has ended, of `kept`, and of
    `h_n`, the states after each sequence's last step.  An array of `h0` and that of `h_n` may be the same.
    """
    if GATES[cell] > 1:
        gated_forward(layer, packed, batch, h0, hs, kept, h_n, rows, cell, work)
        return
    (h0,), (h_n,) = h0, h_n
    indices, x, lengths, reverse = batch
    batch, h0 = (ready(indices), ready(x), ready(lengths), bool(reverse)), ready(h0)
    d = layer[0].shape[1]
    if not packed.size:
        _forward_few(all_ready(layer), batch, h0, hs, h_n, rows, cell, work)
    elif hs.shape[1] == 1:
        _forward_one(packed, batch, h0, hs, h_n, d, cell, work)
    else:
        for group in groups(rows):
            _forward_rows(packed, batch, h0, hs, h_n, group, d, cell)


# ---- backward ---------------------------------------------------------------------------------------


@inlined
def _dh_at_ends(upstream, lengths, reverse, t, start, dz):
    """dh_t in the rows of `dz`, of sequences that are shorter than T: nothing after the end, and ``d output_t + dh_n``
    at the last step.

    There dz holds ``d output_t + W_hh' dz_{t+1}`` already, of a dz_{t+1} that is zero: but zero times a weight
    that is not finite is NaN.  In reverse the last step is t = 0, for all sequences at once.
    """
    dhs, dh_n = upstream
    for r in range(len(dz)):
        row, length = dz[r, : dhs.shape[2]], lengths[start + r]
        if length <= t:
            fill(row, 0.0)
        elif length == t + 1 and not reverse:
            copy(row, dhs[t, start + r])
            if len(dh_n) > 0:
                add(row, row, dh_n[start + r])


@kernel
def _backward(layer, packed, batch, states, upstream, wanted, grads, accumulate, rows, cell, work):
    """`layer_backward` (eqs. 9 to 13), for at most `ROWS` sequences; ``grads`` without rows are not wanted.

    Blocks of `steps` steps go by from the last one to the first: one has steps k0 to k0 + n, and a row of ``block (n
    count, ldz)`` for each of its steps and the `count` sequences.  `dz` are the rows of one step, `following` those
    of the step after it in the layer's order, ``dz_{t+1}``.  `more` is 1 once there are sums of weights to add to.
    """
    (W_ih, W_hh, _, _), (indices, x, lengths, reverse), (h0, hs) = layer, batch, states
    (dhs, dh_n), (dx, dh0, dh_all), (dW_ih, dW_hh, db_ih, db_hh) = upstream, wanted, grads
    (start, stop), (T, N, h), d = rows, hs.shape, W_ih.shape[1]
    lanes, count = VECTOR_BYTES // work.itemsize, stop - start
    ldh = padded(h, lanes)
    # (A single sequence has W_hh packed for `gemv`.)
    single, one_hot, ragged, wants_gradients = N == 1, len(indices) > 0, len(lengths) > 0, len(dW_hh) > 0
    _, _, back, _, _, inputs_back, _ = layer_panels(packed, first_line(packed), N, d, h)
    if len(packed) == 0:  # no rows: products take the weights as they are
        back, inputs_back = back[:0], inputs_back[:0]

    steps, ldz, place, panels, columns, sums, _ = _layout(T, count, d, h, lanes, first_line(work))
    dz_rows = matrix(work, place, max(steps, 2) * count, ldz)
    spare = matrix(work, panels, count, ldh)  # dh0, before it is copied to its place
    columns, sums = matrix(work, columns, d, ldh), matrix(work, sums, 1, ldh)[0]
    fill(dz_rows, 0.0)  # for the padding
    fill(sums, 0.0)
    # With a one-hot x_t, dz_t x_t' has one column that is not zero: dW_ih is summed by its columns, as rows.
    if one_hot and accumulate and wants_gradients:
        transpose(columns, dW_ih)
    elif one_hot:
        fill(columns, 0.0)
    more, following = 1 if accumulate else 0, dz_rows[:count]
    for k0 in range((T - 1) // steps * steps, -1, -steps):
        n = min(steps, T - k0)
        # Where blocks are one step long, two places for dz take turns, as `following` is read while dz is written.
        base = (k0 & 1) * count if steps == 1 else 0
        for k in range(k0 + n - 1, k0 - 1, -1):
            t = T - 1 - k if reverse else k
            dz = dz_rows[base + (k - k0) * count : base + (k - k0 + 1) * count]
            # dh_t = d output_t + W_hh' dz_{t+1}  (eqs. 9, 12), and of the last step, d output_t + dh_n
            copy_tile(dz[:, :h], dhs[t, start:stop])
            if k < T - 1:
                add_times(dz[:, :ldh], following, W_hh, back, k & 1 if single else -1)
            elif len(dh_n) > 0 and (reverse or not ragged):
                for r in range(count):
                    add(dz[r, :h], dz[r, :h], dh_n[start + r])
            if ragged:
                _dh_at_ends(upstream, lengths, reverse, t, start, dz)
            if len(dh_all) > 0:
                copy_tile(dh_all[t, start:stop], dz)
            # dz_t = dh_t slope(h_t)  (eq. 10), in place;  db = sum dz_t  (eqs. 11, 13)
            cells.backward_rows(cell, dz, hs[t, start:stop], sums)
            if ragged and reverse:  # dh0 = W_hh' dz, where a sequence has its first step
                for r in range(count):
                    if lengths[start + r] == t + 1:
                        fill(spare[0], 0.0)
                        add_times(spare[:1], dz[r : r + 1], W_hh, back, 0 if single else -1)
                        copy(dh0[start + r], spare[0])
            following = dz
        block = dz_rows[base : base + n * count]
        # dx_t = W_ih' dz_t: eq. 12 with the other matrix
        if len(dx) > 0 and not one_hot:
            for k in range(k0, k0 + n):
                t, at = T - 1 - k if reverse else k, (k - k0) * count
                fill(dx[t, start:stop], 0.0)
                add_times(dx[t, start:stop], block[at : at + count], W_ih, inputs_back, -1)
        if not wants_gradients:
            continue
        # dW_hh = sum dz_t h_{t-1}'  (eqs. 11, 13), for all steps of the block at once: dW_hh is read and written once,
        # not n times
        before = matrix(work, panels, n * count, padded_to_panels(h, lanes))
        for k in range(k0, k0 + n):
            t, at = T - 1 - k if reverse else k, (k - k0) * count
            if k == 0:
                pack_rows(before, at, h0[start:stop])
            else:
                pack_rows(before, at, hs[t + 1 if reverse else t - 1, start:stop])
            if ragged and reverse and k > 0:  # a sequence that begins here does so with h0
                for r in range(count):
                    if lengths[start + r] == t + 1:
                        pack_rows(before, at + r, h0[start + r : start + r + 1])
        multiply(dW_hh, block.T, before, more)
        # dW_ih = sum dz_t x_t'  (eqs. 11, 13)
        vectors = matrix(work, panels, n * count, padded_to_panels(d, lanes))
        for k in range(k0, k0 + n):
            t, at = T - 1 - k if reverse else k, (k - k0) * count
            if one_hot:
                for r in range(count):
                    column = columns[indices[t, start + r]]
                    add(column, column, block[at + r])
            else:
                pack_rows(vectors, at, x[t, start:stop])
        if not one_hot:
            multiply(dW_ih, block.T, vectors, more)
        more = 1
    if not (ragged and reverse):  # dh0 = W_hh' dz_1
        fill(spare, 0.0)
        add_times(spare, following, W_hh, back, 0 if single else -1)
        copy_tile(dh0[start:stop], spare)
    if one_hot and wants_gradients:
        transpose(dW_ih, columns)
    if wants_gradients and accumulate:
        add(db_ih, db_ih, sums)
        add(db_hh, db_hh, sums)
    elif wants_gradients:
        copy(db_ih, sums)
        copy(db_hh, sums)


def layer_backward(
    layer, packed, batch, states, upstream, wanted, grads, accumulate, rows, cell, work,
    threads=1,
):  # fmt: skip
    """Gradients of a layer by BPTT (eqs. 9 to 13).

    Reads ``states = (h0, hs, kept)`` of `layer_forward`, and ``upstream = (dhs, dh_n)``: ``dhs (T,N,h)``, the gradient
    of the outputs, and that of the last states, whose arrays may have no elements, for zeros.  Writes ``wanted =
    (dx, dh0, d_states)``: ``dx (T,N,d)`` and the tuple `d_states` of arrays ``(T,N,h)`` (the dh_t of all steps, and
    dc_t as far as it does not come by h_t) unless these have no elements; and the sums over ``start <= n < stop`` to
    `grads`, or adds them there where `accumulate`.  An empty `grads` asks for none.  An array of ``dh_n`` and that of
    ``dh0`` may be the same.
    """
    if GATES[cell] > 1:
        gated_backward(layer, packed, batch, states, upstream, wanted, grads, accumulate, rows, cell, work)
        return
    indices, x, lengths, reverse = batch
    ((h0,), hs, _), (dhs, (dh_n,)), (dx, (dh0,), (dh_all,)) = states, upstream, wanted
    arguments = (
        all_ready(layer), packed, (ready(indices), ready(x), ready(lengths), bool(reverse)),
        (ready(h0), ready(hs)), (ready(dhs), ready(dh_n)), (dx, dh0, dh_all),
        grads or tuple([W[:0] for W in layer]),  # arrays all the same, as it is compiled for them
    )  # fmt: skip
    for group in groups(rows):
        _backward(*arguments, bool(accumulate) or group[0] > rows[0], group, cell, work)
