"""One sequence, the class of the study notes, compiled by Numba at first use and kept on disk.

The functions, their arguments and the equations are those of `fastrnn.kernels.numpy_kernels.sequence`, with one-hot
targets ``p``::

    h_t  = tanh(Wxh x_t + Whh h_{t-1} + bh)          (1)
    y_t  = Why h_t + by,  ps_t = softmax(y_t)        (2), (16), (17)
    L    = -sum_t log ps_t[target_t]                 (5), (6)
    dy_t = ps_t - p_t                                (7)
    dh_t = Why' dy_t + Whh' dz_{t+1}                 (9), (12)
    dz_t = dh_t (1 - h_t^2)                          (10)
    dWhy = sum dy_t h_t', dWhh = sum dz_t h_{t-1}', dWxh = sum dz_t x_t'    (8), (11), (13)
    dby  = sum dy_t,      dbh  = sum dz_t                                   (8), (11), (13)

Arrays are C-contiguous and of one dtype.  ``params = (Wxh (h,d), Whh (h,h), Why (q,h), bh (h,1), by (q,1))`` and
``grads`` alike; ``hs (T+1,h)`` holds the state before the first input in row 0, so step t, counted from 0, turns
``hs[t]`` into ``hs[t + 1]``; ``ps (T,q)``; ``targets (T,)``.  ``inputs = (indices, x)`` are either class indices
``indices (T,)``, which stand for one-hot vectors (then ``x`` has no rows), or vectors ``x (T,d)`` (then ``indices`` is
empty).  ``clip = (how, threshold)``, `how` being one of ``CLIP_NONE`` to ``CLIP_NORM``.  ``work`` is scratch space of
`workspace_size` elements.

Only ``Whh h_{t-1}`` and ``Whh' dz_{t+1}`` wait for the step before.  So time is cut into blocks of `BLOCK` steps, of
which the last one may be shorter: within a block, all else is a product over all its steps, and its rows stay in the
cache.  ``t0`` is the first step of a block and ``n`` how many it has; ``t`` counts within it.

For fewer steps than `PACK_FROM` matrices are used as they are; for more, they are first packed into the order in
which products read them, which pays.

Rows are vectors that these write into, whole registers at a time (`elementary`, `products`).  `out` says how many
elements there are: the rest of a longer x is not looked at::

    copy(out, x), add(out, x, y)              out = x,  out = x + y
    add_rows_times(out, W, x)                 out += W x, W as the user has it: its rows times x
    add_times_rows(out, x, W)                 out += W' x, likewise: the elements of x times its rows
    gemv(out, z, x, B, backwards)             out = z + B' x, B packed by `pack_for_gemv`
    multiply(out, rows, B, more)              out = rows B, or += where more is 1, B packed by `pack_for_gemm`

So ``gemv`` gives ``Whh h`` where what was packed is ``Whh.T``, as forward does, and ``Whh' dz`` where it is ``Whh``, as
backward does; and ``multiply`` likewise for every row.  ``gemv(..., t & 1)`` reads the matrix from its end at every
second step: what was read last is in the cache still.

`lanes` is the number of elements in a vector register.  ``ldh, ldq, ldd`` are h, q and d rounded up to whole vectors:
the length of a row in the work space.  Beyond h, q or d such a padded row holds zeros, or minus infinity where it is
to be softmax's.
"""

import functools
import math

import numpy as np

from fastrnn.kernels import CLIP_NORM, CLIP_STEP, CLIP_VALUE, PACK_FROM, TANH
from fastrnn.kernels.numba_kernels import cells
from fastrnn.kernels.numba_kernels.elementary import (
    add,
    add_clamped,
    bound_growth,
    clamp,
    copy,
    copy_padded,
    descend_column,
    exponential,
    fill,
    gather_column,
    hyperbolic_tangent,
    largest_magnitude,
    logistic,
    scale,
    scatter_column,
    softmax_padded,
    subtract_scaled,
    sum_of_squares,
    sum_of_zeros,
)
from fastrnn.kernels.numba_kernels.emit import VECTOR_BYTES
from fastrnn.kernels.numba_kernels.gradients import is_ordinary, squares_in_unit, unit_of
from fastrnn.kernels.numba_kernels.jit import inlined, inlined_and_python, kernel
from fastrnn.kernels.numba_kernels.memory import after, first_line, largest_end, matrix, padded
from fastrnn.kernels.numba_kernels.packing import pack_for_gemm, pack_for_gemv, padded_to_panels, transpose
from fastrnn.kernels.numba_kernels.products import (
    STRIP,
    add_outer_products,
    add_rows_times,
    add_times_rows,
    gemv,
    multiply,
)

BLOCK = 64  # time steps

# ---- memory ---------------------------------------------------------------------------------------


@inlined_and_python
def _layout(T, d, h, q, lanes, start):
    """Offsets in the work space, from `start` on; the last is its end."""
    ldh, ldq, ldd = padded(h, lanes), padded(q, lanes), padded(d, lanes)
    wide_h, wide_q, steps = padded_to_panels(h, lanes), padded_to_panels(q, lanes), min(T, BLOCK)
    states = start  # (steps+1, ldh), row 0 the state before the block
    dz = after(states, (steps + 1) * ldh)  # (steps+1, ldh), row n that of the first step of the block after
    dy = after(dz, (steps + 1) * ldh)  # (steps+1, ldq) logits, then their gradient; the last row is not used
    vectors = after(dy, (steps + 1) * ldq)  # (steps+1, ldd) x; the last row is not used
    columns = after(vectors, (steps + 1) * ldd)  # (d, ldh) Wxh transposed; then dWxh, transposed
    bounds = after(columns, d * ldh)  # (4, ldh+ldq+ldd) growth, and what three gradients have reached
    bias = after(bounds, 4 * (ldh + ldq + ldd))  # (1, ldh) bh; then its gradient
    bias_y = after(bias, ldh)  # (1, ldq) by, minus infinity in the padding; then its gradient
    spared = after(bias_y, ldq)  # (1, h) see _note_spoilt
    Whh = after(spared, h)  # packed: its transpose forward, itself backward
    Why = Whh if T < PACK_FROM else after(Whh, h * ldh)  # packed likewise
    end = Why if T < PACK_FROM else Why + max(h * wide_q, q * wide_h)
    return states, dz, dy, vectors, columns, bounds, bias, bias_y, spared, Whh, Why, end


@functools.lru_cache(maxsize=256)
def workspace_size(T, d, h, q):
    """Elements of scratch space that the kernels want for these sizes."""
    return largest_end(_layout, T, d, h, q)


@inlined
def _rows(work, T, d, h, q):
    """The parts of the work space that forward, backward and sampling share, as matrices and two rows: ``states,
    dz, dy, vectors, columns, bias, bias_y``, of the shapes that `_layout` says."""
    lanes = VECTOR_BYTES // work.itemsize
    ldh, ldq, ldd, steps = padded(h, lanes), padded(q, lanes), padded(d, lanes), min(T, BLOCK)
    states, dz, dy, vectors, columns, _, bias, bias_y, _, _, _, _ = _layout(
        T, d, h, q, lanes, first_line(work)
    )
    return (
        matrix(work, states, steps + 1, ldh),
        matrix(work, dz, steps + 1, ldh),
        matrix(work, dy, steps + 1, ldq),
        matrix(work, vectors, steps + 1, ldd),
        matrix(work, columns, d, ldh),
        matrix(work, bias, 1, ldh)[0],
        matrix(work, bias_y, 1, ldq)[0],
    )


@inlined
def _rows_of_backward(work, T, d, h, q):
    """Those that backward alone has: ``bounds (4, ...)`` for `_add_products`, and ``spared (h)`` for `_note_spoilt`."""
    lanes = VECTOR_BYTES // work.itemsize
    _, _, _, _, _, bounds, _, _, spared, _, _, _ = _layout(T, d, h, q, lanes, first_line(work))
    return (
        matrix(work, bounds, 4, padded(h, lanes) + padded(q, lanes) + padded(d, lanes)),
        matrix(work, spared, 1, h)[0],
    )


@inlined
def _packed(work, T, d, h, q):
    """Where packed matrices lie; they have no rows for fewer steps than `PACK_FROM`::

    (h, ldh)       Whh' or Whh, for `gemv`, forward or backward
    (h, >= q)      Why', for `multiply`, forward                 }
    (q, >= h)      Why, for `multiply`, backward                 } one at a time, in one place
    (h, ldq)       Why', for `gemv`, in sampling                 }
    """
    lanes = VECTOR_BYTES // work.itemsize
    _, _, _, _, _, _, _, _, _, Whh, Why, _ = _layout(T, d, h, q, lanes, first_line(work))
    rows, rows_y = (h, q) if T >= PACK_FROM else (0, 0)
    return (
        matrix(work, Whh, rows, padded(h, lanes)),
        matrix(work, Why, rows, padded_to_panels(q, lanes)),
        matrix(work, Why, rows_y, padded_to_panels(h, lanes)),
        matrix(work, Why, rows, padded(q, lanes)),
    )


# ---- forward --------------------------------------------------------------------------------------


@inlined
def _load_biases(bh, by, bias, bias_y):
    """bh padded with zeros, and by with minus infinity, which softmax makes 0."""
    copy_padded(bias, bh)
    fill(bias_y, -math.inf)
    copy(bias_y[: by.size], by)


@inlined
def _look_up(Wxh, index, columns, transposed, finite, vector, bias, out):
    """``out (ldh) = Wxh x + bh`` for a one-hot vector x: column `index` of Wxh, a row of `columns` if `transposed`.

    It is that only while the rest of Wxh is `finite`: zero times NaN is NaN.  Where it is not, the product
    is made in full, with x written out in ``vector (ldd)``.
    """
    if not finite:
        fill(vector, 0.0)
        vector[index] = 1
        copy(out, bias)
        add_rows_times(out, Wxh, vector)
    elif transposed:
        add(out, columns[index], bias)
    else:
        fill(out, 0.0)  # for the padding
        gather_column(out, Wxh, index, bias)


@inlined
def _recurrent_step(Whh, packed_Whh, packed, before, row, t):
    """``h_t = tanh(z_t + Whh h_{t-1})`` (eq. 1): `row (ldh)` holds z_t, which is ``Wxh x_t + bh``, then h_t; `before`
    is h_{t-1}."""
    # z_t += Whh h_{t-1}
    if packed:
        gemv(row, row, before, packed_Whh, t & 1)
    else:
        add_rows_times(row, Whh, before)
    # A cell adds up what comes from the input and from the state.  Here both are in the row: no second part, [:0].
    cells.forward(TANH, row, row[:0], (before,), (row,))


@kernel
def _forward(params, inputs, hs, ps, work):
    """`forward`.  In the work space, row 0 of `states` is the state before a block, row t + 1 that of its step t."""
    (Wxh, Whh, Why, bh, by), (indices, x) = params, inputs
    (h, d), (T, q) = Wxh.shape, ps.shape
    states, _, logits, vectors, columns, bias, bias_y = _rows(work, T, d, h, q)
    packed_Whh, packed_Why, _, _ = _packed(work, T, d, h, q)
    one_hot, packed = len(indices) > 0, T >= PACK_FROM
    # A column of Wxh is a gather over h rows, a row of its transpose a copy: 2 to 4 times as fast where
    # most columns are wanted.
    transposed, finite = one_hot and packed and d <= 2 * T, True
    _load_biases(bh, by, bias, bias_y)
    if one_hot:
        finite = sum_of_zeros(Wxh) == 0  # zero times each element: NaN if one is not finite
    if transposed:
        transpose(columns, Wxh)
    if packed:  # each step then reads Whh once, in order
        pack_for_gemv(packed_Whh, Whh.T)
        pack_for_gemm(packed_Why, Why.T)

    copy_padded(states[0], hs[0])
    for t0 in range(0, T, BLOCK):
        n = min(BLOCK, T - t0)
        # z_t = Wxh x_t + bh
        for t in range(n):
            if one_hot:
                _look_up(Wxh, indices[t0 + t], columns, transposed, finite, vectors[0], bias, states[t + 1])
            else:
                copy_padded(vectors[t], x[t0 + t])
                copy(states[t + 1], bias)
                add_rows_times(states[t + 1], Wxh, vectors[t])
        # h_t = tanh(z_t + Whh h_{t-1})  (eq. 1)
        for t in range(n):
            _recurrent_step(Whh, packed_Whh, packed, states[t], states[t + 1], t)
            copy(hs[t0 + t + 1], states[t + 1])
        # y_t = Why h_t + by  (eq. 2), for all steps of the block at once: Why is read once, not n times
        for t in range(n):
            copy(logits[t], bias_y)
        if packed:
            multiply(logits[:n], states[1 : n + 1], packed_Why, 1)
        else:
            for i in range(0, q, STRIP):  # a few rows of Why for all steps, while they are in the first cache
                for t in range(n):
                    add_rows_times(logits[t, i:], Why[i : i + STRIP], states[t + 1])
        # ps_t = softmax(y_t)  (eqs. 16, 17)
        for t in range(n):
            softmax_padded(logits[t])
            copy(ps[t0 + t], logits[t])
        copy(states[0], states[n])  # h_{t-1} of the next block


def forward(params, inputs, hs, ps, work, threads=1):
    """States and probabilities of a sequence (eqs. 1, 2, 16, 17).

    Reads ``hs[0]``; writes ``hs[1:]`` and `ps`.
    """
    _forward(params, inputs, hs, ps, work)


@kernel
def _recurrence(Whh, hs, work, d, q):
    """`recurrence`."""
    T, h = len(hs) - 1, len(Whh)
    states, _, _, _, _, _, _ = _rows(work, T, d, h, q)
    packed_Whh, _, _, _ = _packed(work, T, d, h, q)
    packed = T >= PACK_FROM
    if packed:
        pack_for_gemv(packed_Whh, Whh.T)
    copy_padded(states[0], hs[0])
    for t in range(T):
        row = states[t % BLOCK + 1]
        copy_padded(row, hs[t + 1])
        _recurrent_step(Whh, packed_Whh, packed, states[t % BLOCK], row, t)
        copy(hs[t + 1], row)
        if t % BLOCK == BLOCK - 1:
            copy(states[0], row)


def recurrence(params, hs, work, threads=1):
    """The recurrent part of `forward` alone: ``hs[t] = tanh(hs[t] + Whh hs[t-1])`` for t = 1 .. T, in place.

    Benchmarks measure it: it is what cannot be done for several steps at once.
    """
    _recurrence(params[1], hs, work, params[0].shape[1], len(params[2]))


# ---- backward -------------------------------------------------------------------------------------


@inlined
def _add_products(out, left, right, bounds, fresh, limits, descent):
    """``out (m,n) = sum over t, downwards, of left_t right_t'``, clamped after each term; or ``+=``, unless `fresh`.

    ``left (steps, >=m)`` and ``right (steps, >=n)`` are the rows of a block.  ``limits = (limit, cap)``: partial sums
    are clamped to [-limit, limit], the last one to [-cap, cap]; no clamp where they are infinite.

    A row that cannot reach the limit takes the plain product, which then is the same sum, and a tenth of the time.
    ``bounds = (growth, reached)`` tell which can: ``reached[i]`` bounds ``|out[i, :]|``, and ``growth[i]`` what it can
    grow by.  (NaN fails the comparison and takes the clamped one.)

    ``descent = (W, lr)``: where ``W (m,n)`` has rows, ``W -= lr (the sum)``, and `out` itself is not written.
    """
    (growth, reached), (limit, cap), (W, lr) = bounds, limits, descent
    m = len(out)
    limited, safe = limit < math.inf, 0.999 * limit  # what rounding may add stays below the limit
    if limited:
        bound_growth(growth, left, right)
    i = 0
    while i < m:
        # Rows i to j are alike: all of them fit (1), or none does (0).  Without a limit these are all rows.
        j, alike = i if limited else m, -1 if limited else 1
        while j < m:
            before = 0.0 if fresh else np.float64(reached[j])
            fits = before + growth[j] <= safe
            if not fits and not fresh:  # look at the row itself: what was added up may be far above it
                before = np.float64(largest_magnitude(out[j]))
                fits = before + growth[j] <= safe
            here = 1 if fits else 0
            if alike < 0:
                alike = here
            if here != alike:
                break
            reached[j] = before + growth[j] if fits else limit
            j += 1
        bound = math.inf if alike == 1 else limit
        add_outer_products(out, W, left, right, (i, j), 1 if fresh else 0, bound, (lr, cap))
        i = j


@inlined
def _note_spoilt(index, dz, spared):
    """Note which rows of dWxh a `dz (h)` that is not finite spoils: zero times NaN or infinity is NaN.

    A ``dz[i]`` that is not finite makes NaN of row i in every column but that of the one-hot vector, `index`.
    ``spared[i]`` is the one column that is spared, -1 where the row is not spoilt, or -2 where no column is
    spared, as two steps have spared different ones.
    """
    for i in range(len(spared)):
        if dz[i] * 0 != 0:
            known = spared[i]
            spared[i] = index if known == -1 else known if known == index else -2


@inlined
def _spoil(dWxh, spared):
    """Put the NaN where `_note_spoilt` has said."""
    for i in range(len(spared)):
        if spared[i] != -1:
            for c in range(dWxh.shape[1]):
                if c != spared[i]:
                    dWxh[i, c] = math.nan


@inlined
def _clip(how, threshold, grads):
    """Clamp every gradient, or rescale all of them by their global norm (eq. 15)."""
    if how == CLIP_VALUE:
        for i in range(5):
            clamp(grads[i], grads[i], threshold)
    if how == CLIP_NORM:
        # g = g threshold / max(threshold, ||g||)  (eq. 15)
        squares = 0.0
        for i in range(5):
            squares += np.float64(sum_of_squares(grads[i]))
        norm = math.sqrt(squares)
        if not is_ordinary(squares, grads[0]):
            unit, squares = unit_of(squares, grads[0]), 0.0
            for i in range(5):
                squares += squares_in_unit(grads[i], unit)
            norm = math.sqrt(squares) / unit
        if not norm <= threshold:  # NaN is not: it goes to all of them
            for i in range(5):
                scale(grads[i], grads[i], threshold / norm)


@inlined
def _loss(ps, targets):
    """Cross-entropy in nats, ``-sum_t log ps_t[target_t]`` (eqs. 5, 6)."""
    loss = 0.0
    for t in range(len(targets)):
        loss -= np.log(np.float64(ps[t, targets[t]]))
    return loss


@kernel
def _backward(params, inputs, targets, hs, ps, clip, mode, grads, work):
    """Loss, gradients and their clipping (eqs. 5 to 13, 15), and the update: `backward`, `loss_and_grads` and
    `train_step` in one, as it is compiled once for the three.  Returns the loss.

    ``mode = (forward_is_done, updates, lr)`` tells them apart: whether `hs` and `ps` hold what `_forward` writes,
    which else comes first, and whether ``W -= lr dW`` comes last.

    Blocks of steps go by from the last one to the first.  In each, row t of `dz` and of `dy` belongs to its step t,
    and row n of `dz` to the first step of the block after it.
    """
    (Wxh, Whh, Why, bh, by), (indices, x), (how, threshold) = params, inputs, clip
    (dWxh, dWhh, dWhy, dbh, dby), (forward_is_done, updates, lr) = grads, mode
    (h, d), (T, q) = Wxh.shape, ps.shape
    if not forward_is_done:
        _forward(params, inputs, hs, ps, work)
    states, dz, dy, vectors, columns, dbias, dbias_y = _rows(work, T, d, h, q)
    bounds, spared = _rows_of_backward(work, T, d, h, q)
    packed_Whh, _, packed_Why, _ = _packed(work, T, d, h, q)
    one_hot, packed = len(indices) > 0, T >= PACK_FROM
    # The parameters take their step as a gradient leaves the registers, which saves writing and reading it: `grads`
    # then has sums of later blocks at most.  But eq. 15 must see all gradients before the first step.
    descends = updates and how != CLIP_NORM
    # Sums are clamped to the limit after every time step, and to the cap at the end.
    limit = threshold if how == CLIP_STEP else math.inf
    cap = threshold if how == CLIP_VALUE else math.inf
    # dWxh is summed by its columns, which are rows of its transpose: one row a step, in order, not h places.  Where
    # few columns are wanted (d > 2 T), to transpose it back would cost more; a step that is taken at once needs not.
    by_column = one_hot and (descends or (packed and d <= 2 * T))
    spoilt = False
    if packed:
        pack_for_gemv(packed_Whh, Whh)
        pack_for_gemm(packed_Why, Why)
    if by_column and descends and d > T:  # only the columns that are looked at
        for t in range(T):
            fill(columns[indices[t]], 0.0)
    elif by_column:
        fill(columns, 0.0)
    elif one_hot:
        fill(dWxh, 0.0)
    fill(dbias, 0.0)
    fill(dbias_y, 0.0)

    last_block = (T - 1) // BLOCK * BLOCK
    for t0 in range(last_block, -1, -BLOCK):
        n = min(BLOCK, T - t0)
        for t in range(n + 1):
            copy_padded(states[t], hs[t0 + t])
        # dy_t = ps_t - p_t  (eq. 7)
        for t in range(n):
            copy_padded(dy[t], ps[t0 + t])
            dy[t, targets[t0 + t]] -= 1
        # dh_t = Why' dy_t  (eq. 9), for all steps of the block at once: Why is read once, not n times
        if packed:
            multiply(dz[:n], dy[:n], packed_Why, 0)
        else:
            for t in range(n):
                fill(dz[t], 0.0)
            for i in range(0, q, STRIP):  # a few rows of Why for all steps, while they are in the first cache
                for t in range(n):
                    add_times_rows(dz[t], dy[t, i:], Why[i : i + STRIP])
        # dh_t += Whh' dz_{t+1}  (eq. 12);  dz_t = dh_t (1 - h_t^2)  (eq. 10), both in place
        for t in range(n - 1, -1, -1):
            if t0 + t < T - 1:
                if packed:
                    gemv(dz[t], dz[t], dz[t + 1], packed_Whh, t & 1)
                else:
                    add_times_rows(dz[t], dz[t + 1], Whh)
            cells.backward(TANH, (states[t + 1],), (dz[t],), dz[t])
        if one_hot and sum_of_zeros(dz[:n]) != 0:  # an element of dz is not finite
            if not spoilt:
                fill(spared, -1.0)
            spoilt = True
            for t in range(n):
                _note_spoilt(indices[t0 + t], dz[t], spared)
        # dbh = sum dz_t, dby = sum dy_t  (eqs. 8, 11);  dWxh = sum dz_t x_t'  (eq. 11) where x_t is one-hot: to its
        # column
        for t in range(n - 1, -1, -1):
            add_clamped(dbias, dbias, dz[t], limit)
            add_clamped(dbias_y, dbias_y, dy[t], limit)
            if by_column:
                add_clamped(columns[indices[t0 + t]], columns[indices[t0 + t]], dz[t], limit)
            elif one_hot:
                scatter_column(dWxh, indices[t0 + t], dz[t], limit)
            else:
                copy_padded(vectors[t], x[t0 + t])
        # dWhy = sum dy_t h_t', dWhh = sum dz_t h_{t-1}', dWxh = sum dz_t x_t'  (eqs. 8, 11, 13).  (A loop: what is
        # inlined is compiled at each place that calls it.)
        for number in range(2 if one_hot else 3):
            dW, W, left, right = dWhy, Why, dy[:n], states[1 : n + 1]
            if number == 1:
                dW, W, left, right = dWhh, Whh, dz[:n], states[:n]
            elif number == 2:
                dW, W, left, right = dWxh, Wxh, dz[:n], vectors[:n]
            takes_step = descends and t0 == 0  # the sums are complete
            descent = (W if takes_step else W[:0], lr)
            growth, reached = bounds[0], bounds[1 + number]
            _add_products(dW, left, right, (growth, reached), t0 == last_block, (limit, cap), descent)
        copy(dz[min(T, BLOCK)], dz[0])  # for the block before, which has BLOCK steps: its row n

    if descends:
        clamp(dbias, dbias, cap)
        clamp(dbias_y, dbias_y, cap)
        subtract_scaled(bh, bh, dbias, lr)
        subtract_scaled(by, by, dbias_y, lr)
        if one_hot:
            for t in range(T):
                descend_column(Wxh, indices[t], columns[indices[t]], lr, cap)
                fill(columns[indices[t]], 0.0)  # one that comes again finds its gradient spent
    else:
        copy(dbh, dbias)
        copy(dby, dbias_y)
        if by_column:
            transpose(dWxh, columns)
    if spoilt:
        _spoil(Wxh if descends else dWxh, spared)  # a step down NaN ends at NaN
    if not descends:
        _clip(how, threshold, grads)
        if updates:
            for i in range(5):
                subtract_scaled(params[i], params[i], grads[i], lr)
    return _loss(ps, targets)


def backward(params, inputs, targets, hs, ps, limit, grads, work, threads=1):
    """Gradients of the cross-entropy by BPTT (eqs. 7 to 13), written to `grads`.

    Reads `hs` and `ps` of `forward`.  Every accumulator is clamped to [-limit, limit] after every time step; no clamp
    when it is inf.
    """
    clip, mode = (CLIP_STEP, float(limit)), (True, False, 0.0)
    _backward(params, inputs, targets, hs, ps, clip, mode, grads, work)


def loss_and_grads(params, inputs, targets, hs, ps, clip, grads, work, threads=1):
    """`forward`, the loss in nats (eqs. 5, 6), `backward`, and the clipping named by `clip`.

    Reads ``hs[0]``; writes ``hs[1:]``, `ps` and `grads`.  Returns the loss.
    """
    how, threshold = clip
    clip, mode = (how, float(threshold)), (False, False, 0.0)
    return float(_backward(params, inputs, targets, hs, ps, clip, mode, grads, work))


@kernel
def _update(params, grads, lr):
    """`update`."""
    for i in range(len(params)):
        subtract_scaled(params[i], params[i], grads[i], lr)


def update(params, grads, lr):
    """Gradient descent, in place: ``W -= lr dW`` for each parameter."""
    _update(params, grads, float(lr))


def train_step(params, inputs, targets, hs, ps, clip, lr, grads, work, threads=1):
    """`loss_and_grads` and `update` in one; `grads` is work space.  Returns the loss."""
    how, threshold = clip
    clip, mode = (how, float(threshold)), (False, True, float(lr))
    return float(_backward(params, inputs, targets, hs, ps, clip, mode, grads, work))


# ---- sampling -------------------------------------------------------------------------------------


@inlined
def _draw(p, u):
    """Index of the first element of ``cumsum(p) / sum(p)`` that is greater than u; -1 if p (q) are not numbers."""
    total = np.float64(0)
    for j in range(len(p)):
        total += p[j]
    running = np.float64(0)
    drawn = len(p) - 1 if total > 0 else -1
    if total > 0:
        for j in range(len(p) - 1):
            running += p[j]
            if running / total > u:
                drawn = j
                break
    return drawn


@kernel
def _sample(params, state, start, uniforms, out, work):
    """`sample`.  Two rows of `states` take turns as h_{t-1} and h_t."""
    Wxh, Whh, Why, bh, by = params
    (h, d), q, n = Wxh.shape, len(Why), len(out)
    states, _, logits, vectors, columns, bias, bias_y = _rows(work, n, d, h, q)
    packed_Whh, _, _, packed_Why = _packed(work, n, d, h, q)
    packed = n >= PACK_FROM
    transposed = packed and d <= 2 * n
    _load_biases(bh, by, bias, bias_y)
    finite = sum_of_zeros(Wxh) == 0
    if transposed:
        transpose(columns, Wxh)
    if packed:
        pack_for_gemv(packed_Whh, Whh.T)
        pack_for_gemv(packed_Why, Why.T)
    drawn, index, y = 0, start, logits[0]
    copy_padded(states[0], state)
    for t in range(n):
        before, row = states[t & 1], states[1 - (t & 1)]
        # h_t = tanh(Wxh x_t + bh + Whh h_{t-1})  (eq. 1)
        _look_up(Wxh, index, columns, transposed, finite, vectors[0], bias, row)
        _recurrent_step(Whh, packed_Whh, packed, before, row, t)
        # y_t = Why h_t + by  (eq. 2)
        if packed:
            gemv(y, bias_y, row, packed_Why, t & 1)
        else:
            copy(y, bias_y)
            add_rows_times(y, Why, row)
        # x_{t+1} is one-hot, drawn from softmax(y_t)  (eqs. 16, 17)
        softmax_padded(y)
        index = _draw(y[:q], uniforms[t])
        if index < 0:
            break
        out[t] = index
        drawn += 1
    copy(state, states[drawn & 1])
    return drawn


def sample(params, h, start, uniforms, out, work, threads=1):
    """Draw ``len(out)`` class indices, each fed back as the next input; `start` is the first one.

    `h (h,1)` is the state before the first input and is overwritten; ``uniforms (n,)`` (float64, in [0, 1)) are mapped
    through the inverse of each cumulative distribution to ``out (n,)``.  Returns how many were drawn: fewer than n
    when the probabilities of the next one are not numbers.
    """
    return int(_sample(params, h, start, uniforms, out, work))


# ---- for tests ------------------------------------------------------------------------------------


@kernel
def _tanh(x):
    hyperbolic_tangent(x, x)


def tanh(x):
    """Hyperbolic tangent of each element, in place."""
    _tanh(x)


@kernel
def _exp(x):
    exponential(x, x)


def exp(x):
    """Exponential of each element, in place."""
    _exp(x)


@kernel
def _sigmoid(x):
    logistic(x, x)


def sigmoid(x):
    """``1 / (1 + exp(-x))`` of each element, in place."""
    _sigmoid(x)
