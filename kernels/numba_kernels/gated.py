"""One layer whose cell has gates over a batch of sequences, compiled by Numba when the first of them is used.

The functions, their arguments and the equations are those of `fastrnn.kernels.numpy_kernels.layer` and its `cells`; see
`layer` for the letters, the packed weights and what `copy`, `gemv` and `multiply` do.  G is the number of gates.  A row
z_t has four blocks: see `cells`.  ``part`` is where the state's part of it begins, 0 or h::

    z_t[: G h]         = W_ih x_t + b_ih, the rows of W_ih in the order of the blocks: those of block 0 are the last
    z_t[part :]       += W_hh h_{t-1} + b_hh
    dW_hh = sum dz_t[part :] h_{t-1}',  dW_ih = sum dz_t[: G h] x_t',  dh_{t-1} = W_hh' dz_t[part :] + what goes beside

A sequence at a time goes through the gates, all at once through the products.
"""

import functools

from fastrnn.kernels import GATES, LSTM
from fastrnn.kernels.numba_kernels import cells
from fastrnn.kernels.numba_kernels.batch import ROWS, groups, pieces
from fastrnn.kernels.numba_kernels.cells import BLOCKS
from fastrnn.kernels.numba_kernels.elementary import add, copy, copy_tile, fill, gather_column
from fastrnn.kernels.numba_kernels.emit import VECTOR_BYTES
from fastrnn.kernels.numba_kernels.jit import all_ready, inlined, inlined_and_python, kernel, ready
from fastrnn.kernels.numba_kernels.memory import after, first_line, largest_end, matrix, padded
from fastrnn.kernels.numba_kernels.packing import (
    pack_for_gemm,
    pack_for_gemv,
    pack_rows,
    padded_to_panels,
    transpose,
)
from fastrnn.kernels.numba_kernels.products import add_rows_times, add_times, gemv, multiply

# ---- memory -----------------------------------------------------------------------------------------


@inlined_and_python
def row_length(h, gates, lanes):
    """Of a row z_t: room for whole vectors from either part's beginning on."""
    return padded(BLOCKS * h - gates, lanes) + padded(gates, lanes) + lanes


@inlined_and_python
def _panels_layout(N, d, h, gates, lanes, start):
    """Offsets in the packed weights; the last is their end."""
    ldz, wide_d, wide_h = row_length(h, gates, lanes), padded_to_panels(d, lanes), padded_to_panels(h, lanes)
    wide_gates = padded_to_panels(gates, lanes)
    bias = start  # (1, ldz)
    recurrent = after(bias, ldz)  # (h, wide_gates) W_hh transposed
    back = after(recurrent, h * wide_gates)  # (gates, wide_h) W_hh
    inputs = after(
        back, gates * wide_h
    )  # W_ih transposed: (d, ldz) with the bias added, or (d, wide_gates) packed
    inputs_back = after(inputs, d * max(ldz, wide_gates))  # (gates, wide_d) W_ih
    alone = after(inputs_back, gates * wide_d)  # (d, padded gates) W_ih transposed, to sample one sequence
    turned = after(alone, d * wide_gates if N == 1 else 0)  # (gates, d) W_ih in the order of the blocks
    end = turned + gates * d
    return bias, recurrent, back, inputs, inputs_back, alone, turned, end


@inlined
def gated_panels(packed, place, N, d, h, gates):
    """The packed weights that begin at ``packed[place]``, as matrices: those of `layer.layer_panels`, and `turned`."""
    lanes = VECTOR_BYTES // packed.itemsize
    ldz, wide_d, wide_h = row_length(h, gates, lanes), padded_to_panels(d, lanes), padded_to_panels(h, lanes)
    wide_gates = padded_to_panels(gates, lanes)
    bias, recurrent, back, inputs, inputs_back, alone, turned, _ = _panels_layout(
        N, d, h, gates, lanes, place
    )
    return (
        matrix(packed, bias, 1, ldz)[0],
        matrix(packed, recurrent, h, padded(gates, lanes) if N == 1 else wide_gates),
        matrix(packed, back, gates, padded(h, lanes) if N == 1 else wide_h),
        matrix(packed, inputs, d, ldz),
        matrix(packed, inputs, d, wide_gates),
        matrix(packed, inputs_back, gates, wide_d),
        matrix(packed, alone, d if N == 1 else 0, padded(gates, lanes)),
        matrix(packed, turned, gates, d),
    )


@inlined_and_python
def _layout(T, rows, d, h, gates, lanes, start):
    """Time steps of a block, row lengths of dz and of states, then offsets in the work space for so many sequences; the
    last is its end."""
    wide_d, wide_h, wide = padded_to_panels(d, lanes), padded_to_panels(h, lanes), padded(gates, lanes)
    ldh, ldz = (
        padded(h, lanes),
        (row_length(h, gates, lanes) // lanes | 1) * lanes,
    )  # an odd number of vectors
    steps = min(T, max(1, ROWS // rows))
    dz = start  # (max(steps, 2) * rows, ldz); where blocks are of one step, two take turns.  Forward: z_t of a step
    panels = after(dz, max(steps, 2) * rows * ldz)  # (steps * rows, wide) states or inputs of a block, or dh0
    columns = after(
        panels, max(steps * rows * max(wide_d, wide_h), rows * ldh)
    )  # (d, wide) dW_ih, transposed
    sums = after(columns, d * wide)  # (1, ldz) db
    dh = after(sums, ldz)  # (rows, ldh) dh_t.  Forward: h_{t-1}
    carry = after(dh, rows * ldh)  # (rows, ldh) what goes beside the products.  Forward: c_{t-1}
    end = carry + rows * ldh
    return steps, ldh, ldz, dz, panels, columns, sums, dh, carry, end


@functools.lru_cache(maxsize=256)
def gated_sizes(T, N, rows, d, h, cell):
    """Elements of `packed` and of `work` for a layer, N sequences, at most `rows` of them at once."""
    gates = GATES[cell] * h
    work = max(largest_end(_layout, T, r, d, h, gates) for r in pieces(rows))
    return largest_end(_panels_layout, N, d, h, gates), work


# ---- packing ----------------------------------------------------------------------------------------


@inlined
def _add_biases(bias, b_ih, b_hh, part):
    """A row z_t without inputs and states: both biases, added up where the parts overlap."""
    gates = len(b_ih)
    fill(bias, 0.0)
    copy(bias[:part], b_ih[gates - part :])
    copy(bias[part:gates], b_ih[: gates - part])
    add(bias[part : part + gates], bias[part : part + gates], b_hh)


@kernel
def _pack(layer, N, one_hot, packed):
    """`pack_layer`."""
    W_ih, W_hh, b_ih, b_hh = layer
    (gates, d), h = W_ih.shape, W_hh.shape[1]
    part = BLOCKS * h - gates
    bias, recurrent, back, rows_of_inputs, inputs, inputs_back, alone, turned = gated_panels(
        packed, first_line(packed), N, d, h, gates
    )
    _add_biases(bias, b_ih, b_hh, part)
    copy_tile(turned[:part], W_ih[gates - part :])
    copy_tile(turned[part:], W_ih[: gates - part])
    if N == 1:
        pack_for_gemv(recurrent, W_hh.T)
        pack_for_gemv(back, W_hh)
    else:
        pack_for_gemm(recurrent, W_hh.T)
        pack_for_gemm(back, W_hh)
    if one_hot:
        transpose(rows_of_inputs, turned)
        for c in range(d):
            add(rows_of_inputs[c], rows_of_inputs[c], bias)
    else:
        pack_for_gemm(inputs, turned.T)
        pack_for_gemm(inputs_back, turned)
        if N == 1:
            pack_for_gemv(alone, turned.T)


def pack_gated(layer, N, one_hot, packed):
    """`pack_layer` for a cell with gates."""
    _pack(all_ready(layer), N, bool(one_hot), packed)


# ---- forward ----------------------------------------------------------------------------------------


@inlined
def _project_few(z, W_ih, x, part):
    """``z += W_ih x`` with the weights as they are."""
    gates = len(W_ih)
    if part > 0:
        add_rows_times(z[:part], W_ih[gates - part :], x)
    add_rows_times(z[part:gates], W_ih[: gates - part], x)


@inlined
def _project_class(z, W_ih, index, bias, part):
    """``z = W_ih x + b`` for a one-hot x: a column of the weights as they are."""
    gates = len(W_ih)
    copy(z, bias)
    if part > 0:
        gather_column(z[:part], W_ih[gates - part :], index, bias[:part])
    gather_column(z[part:gates], W_ih[: gates - part], index, bias[part:gates])


@kernel
def _forward(layer, packed, batch, first, hs, kept, last, rows, cell, work):
    """`layer_forward` for at most `ROWS` sequences.  ``first = (h0, c0)`` and ``last = (h_n, c_n)``; a GRU has no c, and
    any array in its place.  ``kept (T, N, K h)``.

    Row r of `state` is h_{t-1} of sequence ``start + r`` all the way, that of `c` its c_{t-1}.
    """
    (W_ih, W_hh, b_ih, b_hh), (indices, x, lengths, reverse), (start, stop) = layer, batch, rows
    (h0, c0), (h_n, c_n) = first, last
    (T, N, h), (gates, d) = hs.shape, W_ih.shape
    lanes, count, part = VECTOR_BYTES // work.itemsize, stop - start, BLOCKS * h - gates
    one_hot, ragged, few, keeps, has_c = (
        len(indices) > 0,
        len(lengths) > 0,
        len(packed) == 0,
        len(kept) > 0,
        cell == LSTM,
    )
    bias, recurrent, _, rows_of_inputs, inputs, _, _, _ = gated_panels(
        packed, first_line(packed), N, d, h, gates
    )
    _, ldh, ldz, place, _, _, sums, states, carry, _ = _layout(T, count, d, h, gates, lanes, first_line(work))
    z, state, c = (
        matrix(work, place, count, ldz),
        matrix(work, states, count, ldh),
        matrix(work, carry, count, ldh),
    )
    nothing = z[0, :0]
    if few:
        bias = matrix(work, sums, 1, row_length(h, gates, lanes))[0]
        _add_biases(bias, b_ih, b_hh, part)
    copy_tile(state[:, :h], h0[start:stop])
    if has_c:
        copy_tile(c[:, :h], c0[start:stop])
    for k in range(T):
        t = T - 1 - k if reverse else k
        # z_t = W_ih x_t + b
        for r in range(count):
            row = z[r, : len(bias)]
            if one_hot and few:
                _project_class(row, W_ih, indices[t, start + r], bias, part)
            elif one_hot:
                copy(row, rows_of_inputs[indices[t, start + r]])
            else:
                copy(row, bias)
                if few:
                    _project_few(row, W_ih, x[t, start + r], part)
        if not one_hot and not few:
            multiply(z[:, :gates], x[t, start:stop], inputs, 1)
        # z_t += W_hh h_{t-1}
        if few:
            for r in range(count):
                add_rows_times(z[r, part : part + gates], W_hh, state[r])
        elif N == 1:
            row = z[0, part : part + padded(gates, lanes)]
            gemv(row, row, state[0], recurrent, k & 1)
        else:
            multiply(z[:, part : part + gates], state, recurrent, 1)
        # h_t, c_t
        for r in range(count):
            n = start + r
            if ragged and t >= lengths[n]:
                fill(hs[t, n], 0.0)
                continue
            before = c[r] if has_c else state[r]
            cells.gates_forward(cell, hs[t, n], z[r], before, c[r], kept[t, n] if keeps else nothing)
            copy(state[r, :h], hs[t, n])
    copy_tile(h_n[start:stop], state)
    if has_c:
        copy_tile(c_n[start:stop], c)


def gated_forward(layer, packed, batch, h0, hs, kept, h_n, rows, cell, work):
    """`layer_forward` for a cell with gates."""
    indices, x, lengths, reverse = batch
    batch = ready(indices), ready(x), ready(lengths), bool(reverse)
    first, last = (ready(h0[0]), ready(h0[-1])), (h_n[0], h_n[-1])
    for group in groups(rows):
        _forward(all_ready(layer), packed, batch, first, hs, _flat(kept), last, group, cell, work)


def _flat(kept):
    """``kept (T, N, K, h)`` as ``(T, N, K h)``."""
    return kept.reshape(*kept.shape[:2], kept.shape[2] * kept.shape[3])


# ---- backward ---------------------------------------------------------------------------------------


@inlined
def _start_of(lengths, reverse, k, t, n):
    """Whether time step t, k-th in the layer's order, is the first that sequence n has."""
    return k == 0 or (len(lengths) > 0 and reverse and lengths[n] == t + 1)


@inlined
def _end_of(lengths, reverse, k, t, n, T):
    """Whether it is its last."""
    if len(lengths) > 0 and not reverse:
        return lengths[n] == t + 1
    return k == T - 1


@kernel
def _backward(layer, packed, batch, states, upstream, wanted, grads, accumulate, rows, cell, work):
    """`layer_backward`, for at most `ROWS` sequences; ``grads`` without rows are not wanted.  ``states = (h0, c0, hs,
    kept)``, ``upstream = (dhs, dh_n, dc_n)``, ``wanted = (dx, dh0, dc0, d_hs, d_cs)``: see `_forward`.

    Blocks of steps go by as in `layer._backward`.
    """
    (W_ih, W_hh, _, _), (indices, x, lengths, reverse), (h0, c0, hs, kept) = layer, batch, states
    (dhs, dh_n, dc_n), (dx, dh0, dc0, d_hs, d_cs), (dW_ih, dW_hh, db_ih, db_hh) = upstream, wanted, grads
    (start, stop), (T, N, h), (gates, d) = rows, hs.shape, W_ih.shape
    lanes, count, part = VECTOR_BYTES // work.itemsize, stop - start, BLOCKS * h - gates
    single, one_hot, ragged, has_c = N == 1, len(indices) > 0, len(lengths) > 0, cell == LSTM
    wants_gradients = len(dW_hh) > 0
    _, _, back, _, _, inputs_back, _, turned = gated_panels(packed, first_line(packed), N, d, h, gates)
    if len(packed) == 0:  # no rows: products take the weights as they are
        back, inputs_back = back[:0], inputs_back[:0]

    steps, ldh, ldz, place, panels, columns, sums, dhs_place, carries, _ = _layout(
        T, count, d, h, gates, lanes, first_line(work)
    )
    dz_rows = matrix(work, place, max(steps, 2) * count, ldz)
    spare, dh, carry = (
        matrix(work, panels, count, ldh),
        matrix(work, dhs_place, count, ldh),
        matrix(work, carries, count, ldh),
    )
    columns, sums = matrix(work, columns, d, padded(gates, lanes)), matrix(work, sums, 1, ldz)[0]
    fill(dz_rows, 0.0)  # for the padding
    fill(dh, 0.0)
    fill(sums, 0.0)
    # With a one-hot x_t, dz_t x_t' has one column that is not zero: dW_ih is summed by its columns, as rows.
    if one_hot:
        fill(columns, 0.0)
    if one_hot and accumulate and wants_gradients:
        for c in range(d):
            for j in range(gates):
                columns[c, j] = dW_ih[j - part if j >= part else j + gates - part, c]
    more, following, turn = 1 if accumulate else 0, dz_rows[:count], -1
    for k0 in range((T - 1) // steps * steps, -1, -steps):
        n_steps = min(steps, T - k0)
        base = (k0 & 1) * count if steps == 1 else 0
        for k in range(k0 + n_steps - 1, k0 - 1, -1):
            t, before = T - 1 - k if reverse else k, T - k if reverse else k - 1
            dz = dz_rows[base + (k - k0) * count : base + (k - k0 + 1) * count]
            # dh_t = d output_t + W_hh' dz_{t+1}, and what goes beside the product
            copy_tile(dh[:, :h], dhs[t, start:stop])
            if k < T - 1:
                turn = k & 1 if single else -1
                add_times(dh, following[:, part : part + gates], W_hh, back, turn)
            for r in range(count):
                n = start + r
                ended = ragged and lengths[n] <= t
                if _end_of(lengths, reverse, k, t, n, T):
                    copy(dh[r, :h], dhs[t, n])  # nothing comes back to it: not even zero times NaN
                    fill(carry[r], 0.0)
                    if len(dh_n) > 0:
                        add(dh[r, :h], dh[r, :h], dh_n[n])
                    if has_c and len(dc_n) > 0:
                        copy(carry[r, :h], dc_n[n])
                if ended:
                    fill(dh[r], 0.0)
                elif not has_c:
                    add(dh[r], dh[r], carry[r])
                if len(d_hs) > 0:
                    copy(d_hs[t, n], dh[r])
                if has_c and len(d_cs) > 0 and ended:
                    fill(d_cs[t, n], 0.0)
                elif has_c and len(d_cs) > 0:
                    copy(d_cs[t, n], carry[r])
                # dz_t
                if ended:
                    fill(dz[r], 0.0)
                    continue
                if has_c and _start_of(lengths, reverse, k, t, n):
                    state = c0[n]
                elif has_c:
                    state = kept[before, n, 4 * h :]
                elif _start_of(lengths, reverse, k, t, n):
                    state = h0[n]
                else:
                    state = hs[before, n]
                cells.gates_backward(cell, dz[r], kept[t, n], state, dh[r], carry[r])
                add(sums, sums, dz[r])
                if ragged and reverse and lengths[n] == t + 1:  # dh0, where a sequence has its first step
                    fill(spare[0], 0.0)
                    add_times(spare[:1], dz[r : r + 1, part : part + gates], W_hh, back, 0 if single else -1)
                    copy(dh0[n], spare[0])
            following = dz
        block = dz_rows[base : base + n_steps * count]
        # dx_t = W_ih' dz_t
        if len(dx) > 0 and not one_hot:
            for k in range(k0, k0 + n_steps):
                t, at = T - 1 - k if reverse else k, (k - k0) * count
                fill(dx[t, start:stop], 0.0)
                left = block[at : at + count]
                if len(packed) > 0:
                    add_times(dx[t, start:stop], left[:, :gates], turned, inputs_back, -1)
                else:
                    add_times(dx[t, start:stop], left[:, :part], W_ih[gates - part :], inputs_back, -1)
                    add_times(dx[t, start:stop], left[:, part:gates], W_ih[: gates - part], inputs_back, -1)
        if not wants_gradients:
            continue
        # dW_hh = sum dz_t h_{t-1}'
        h_before = matrix(work, panels, n_steps * count, padded_to_panels(h, lanes))
        for k in range(k0, k0 + n_steps):
            t, before, at = T - 1 - k if reverse else k, T - k if reverse else k - 1, (k - k0) * count
            if k == 0:
                pack_rows(h_before, at, h0[start:stop])
            else:
                pack_rows(h_before, at, hs[before, start:stop])
            if ragged and reverse and k > 0:  # a sequence that begins here does so with h0
                for r in range(count):
                    if lengths[start + r] == t + 1:
                        pack_rows(h_before, at + r, h0[start + r : start + r + 1])
        multiply(dW_hh, block[:, part : part + gates].T, h_before, more)
        # dW_ih = sum dz_t x_t'
        vectors = matrix(work, panels, n_steps * count, padded_to_panels(d, lanes))
        for k in range(k0, k0 + n_steps):
            t, at = T - 1 - k if reverse else k, (k - k0) * count
            if one_hot:
                for r in range(count):
                    column = columns[indices[t, start + r]]
                    add(column, column, block[at + r])
            else:
                pack_rows(vectors, at, x[t, start:stop])
        if not one_hot:
            if part > 0:
                multiply(dW_ih[gates - part :], block[:, :part].T, vectors, more)
            multiply(dW_ih[: gates - part], block[:, part:gates].T, vectors, more)
        more = 1
    if not (ragged and reverse):  # dh0 = W_hh' dz_1
        fill(spare, 0.0)
        add_times(spare, following[:, part : part + gates], W_hh, back, 0 if single else -1)
        copy_tile(dh0[start:stop], spare)
    if has_c:
        copy_tile(dc0[start:stop], carry)
    else:
        for r in range(count):
            add(dh0[start + r], dh0[start + r], carry[r])
    if one_hot and wants_gradients:
        for j in range(gates):
            for c in range(d):
                dW_ih[j - part if j >= part else j + gates - part, c] = columns[c, j]
    if wants_gradients:
        if not accumulate:
            fill(db_ih, 0.0)
            fill(db_hh, 0.0)
        add(db_ih[gates - part :], db_ih[gates - part :], sums[:part])
        add(db_ih[: gates - part], db_ih[: gates - part], sums[part:gates])
        add(db_hh, db_hh, sums[part : part + gates])


def gated_backward(layer, packed, batch, states, upstream, wanted, grads, accumulate, rows, cell, work):
    """`layer_backward` for a cell with gates."""
    indices, x, lengths, reverse = batch
    (h0, hs, kept), (dhs, dh_n), (dx, dh0, d_states) = states, upstream, wanted
    arguments = (
        all_ready(layer), packed, (ready(indices), ready(x), ready(lengths), bool(reverse)),
        (ready(h0[0]), ready(h0[-1]), ready(hs), _flat(ready(kept))), (ready(dhs), ready(dh_n[0]), ready(dh_n[-1])),
        (dx, dh0[0], dh0[-1], d_states[0], d_states[-1]),
        grads or tuple([W[:0] for W in layer]),  # arrays all the same, as it is compiled for them
    )  # fmt: skip
    for group in groups(rows):
        _backward(*arguments, bool(accumulate) or group[0] > rows[0], group, cell, work)
