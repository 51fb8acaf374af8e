"""One sequence, the class of the study notes, compiled by Numba at first use and kept on disk.

The functions, their arguments and the equations are those of `fastrnn.kernels.numpy_kernels.sequence`::

    h_t  = tanh(Wxh x_t + Whh h_{t-1} + bh)          (1)
    y_t  = Why h_t + by,  ps_t = softmax(y_t)        (2), (16), (17)
    dy_t = ps_t - p_t                                (7)
    dh_t = Why' dy_t + Whh' dz_{t+1}                 (9), (12)
    dz_t = dh_t (1 - h_t^2)                          (10)
    dWhy = sum dy_t h_t', dWhh = sum dz_t h_{t-1}', dWxh = sum dz_t x_t'    (8), (11), (13)

Only ``Whh h_{t-1}`` and ``Whh' dz_{t+1}`` wait for the step before.  So time is cut into blocks of `BLOCK` steps:
within one, all else is a product over all its steps, and its rows stay in the cache.  For fewer steps than
`PACK_FROM` matrices are used as they are; for more, packing them first pays.

Rows are vectors that these write into, whole registers at a time (`elementary`, `products`)::

    copy(out, x), add(out, x, y)              out = x,  out = x + y
    add_rows_times(out, W, x)                 out += W x, W as the user has it
    add_times_rows(out, x, W)                 out += W' x, likewise
    gemv(out, z, x, packed, backwards)        out = z + W x or z + W' x, as W was packed
    multiply(out, rows, packed, more)         the same for many rows at once: out = rows W', or += where more is 1

``gemv(..., t & 1)`` reads the matrix from its end at every second step: what was read last is in the cache still.

``ldh, ldq, ldd`` are h, q and d rounded up to whole vectors: the length of a row in the work space.  Beyond h, q or d
such a padded row holds zeros, or minus infinity where it is to be softmax's.
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
    scale,
    scatter_column,
    softmax_padded,
    subtract_scaled,
    sum_of_squares,
    sum_of_zeros,
)
from fastrnn.kernels.numba_kernels.emit import VECTOR_BYTES
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
    """Offsets in the work space; the last is its end."""
    ldh, ldq, ldd = padded(h, lanes), padded(q, lanes), padded(d, lanes)
    wide_h, wide_q, steps = padded_to_panels(h, lanes), padded_to_panels(q, lanes), min(T, BLOCK)
    states = start  # (steps+1, ldh), row 0 the state before the block
    dz = after(states, (steps + 1) * ldh)  # (steps+1, ldh), the last row is that of the next block
    dy = after(dz, (steps + 1) * ldh)  # (steps+1, ldq) logits, then their gradient
    inputs = after(dy, (steps + 1) * ldq)  # (steps+1, ldd)
    columns = after(inputs, (steps + 1) * ldd)  # (d, ldh) Wxh transposed; then dWxh, transposed
    sums = after(columns, d * ldh)  # (4, ldh+ldq+ldd) growth, and what three gradients have reached
    bias = after(sums, 4 * (ldh + ldq + ldd))  # (1, ldh) bh; then its gradient
    bias_y = after(bias, ldh)  # (1, ldq) by, minus infinity in the padding; then its gradient
    blame = after(bias_y, ldq)  # (1, h) see _blame
    Whh = after(blame, h)  # packed: its transpose forward, itself backward
    Why = Whh if T < PACK_FROM else after(Whh, h * ldh)  # packed likewise
    end = Why if T < PACK_FROM else Why + max(h * wide_q, q * wide_h)
    return states, dz, dy, inputs, columns, sums, bias, bias_y, blame, Whh, Why, end


@functools.lru_cache(maxsize=256)
def workspace_size(T, d, h, q):
    """Elements of scratch space that the kernels want for these sizes."""
    return largest_end(_layout, T, d, h, q)


@inlined
def _rows(work, T, d, h, q):
    """The parts of the work space that forward, backward and sampling share, as matrices."""
    lanes = VECTOR_BYTES // work.itemsize
    ldh, ldq, ldd, steps = padded(h, lanes), padded(q, lanes), padded(d, lanes), min(T, BLOCK)
    states, dz, dy, inputs, columns, _, bias, bias_y, _, _, _, _ = _layout(
        T, d, h, q, lanes, first_line(work)
    )
    return (
        matrix(work, states, steps + 1, ldh),
        matrix(work, dz, steps + 1, ldh),
        matrix(work, dy, steps + 1, ldq),
        matrix(work, inputs, steps + 1, ldd),
        matrix(work, columns, d, ldh),
        matrix(work, bias, 1, ldh)[0],
        matrix(work, bias_y, 1, ldq)[0],
    )


@inlined
def _packed(work, T, d, h, q):
    """Where packed matrices lie: Whh, and in one place the transpose of Why, Why itself, and its transpose for
    matrix-vector products.  They have no rows for fewer steps."""
    lanes = VECTOR_BYTES // work.itemsize
    _, _, _, _, _, _, _, _, _, Whh, Why, _ = _layout(T, d, h, q, lanes, first_line(work))
    rows, classes = (h, q) if T >= PACK_FROM else (0, 0)
    return (
        matrix(work, Whh, rows, padded(h, lanes)),
        matrix(work, Why, rows, padded_to_panels(q, lanes)),
        matrix(work, Why, classes, padded_to_panels(h, lanes)),
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
def _look_up(Wxh, index, columns, transposed, finite, inputs, bias, out):
    """``out = Wxh x + bh`` for a one-hot vector x: a column of Wxh.

    It is that only while the rest of Wxh is finite: zero times NaN is NaN.  Where it is not, the product
    is made in full.
    """
    if not finite:
        fill(inputs, 0.0)
        inputs[index] = 1
        copy(out, bias)
        add_rows_times(out, Wxh, inputs)
    elif transposed:
        add(out, columns[index], bias)
    else:
        fill(out, 0.0)
        gather_column(out, Wxh, index, bias)


@inlined
def _recurrent_step(Whh, packed_Whh, packed, before, row, t):
    """``row = tanh(row + Whh before)``, in place (eq. 1): h_t of z_t without its recurrent part."""
    # z_t = z_t + Whh h_{t-1}
    if packed:
        gemv(row, row, before, packed_Whh, t & 1)
    else:
        add_rows_times(row, Whh, before)
    # Its recurrent part is in the row already; apart from it there is nothing, row[:0].
    cells.forward(TANH, row, row[:0], (before,), (row,))


@kernel
def _forward(params, inputs, hs, ps, work):
    """States and probabilities (eqs. 1, 2, 16, 17).

    Reads ``hs[0]``; writes ``hs[1:]`` of ``hs (T+1,h)``, and ``ps (T,q)``.  ``inputs = (indices (T), x (T,d))``, of
    which one has no rows.  In the work space, row 0 of `states` is the state before a block, row t + 1 that of
    its step t.
    """
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
            copy(logits[t], bias_y)  # to which the product is added
        # y_t = Why h_t + by  (eq. 2), for all steps of the block at once: Why is read once, not n times
        if packed:
            multiply(logits[:n], states[1 : n + 1], packed_Why, 1)
        else:
            for i in range(0, q, STRIP):
                for t in range(n):
                    add_rows_times(logits[t, i:], Why[i : i + STRIP], states[t + 1])
        # ps_t = softmax(y_t)  (eqs. 16, 17)
        for t in range(n):
            softmax_padded(logits[t])
            copy(ps[t0 + t], logits[t])
        copy(states[0], states[n])


@kernel
def _recurrence(Whh, hs, work, d, q):
    """``hs[t] = tanh(hs[t] + Whh hs[t-1])`` for t = 1 .. T, in place, of ``hs (T+1,h)``."""
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


# ---- backward -------------------------------------------------------------------------------------


@inlined
def _blame(index, dz, blame):
    """Note whose row of the gradient is spoilt: zero times NaN or infinity is NaN.

    A ``dz[i]`` that is not finite makes NaN of row i in every column but that of the one-hot vector:
    ``blame[i]`` is that column, -1 where there is none, or -2 where it is not always the same.
    """
    for i in range(len(blame)):
        if dz[i] * 0 != 0:
            known = blame[i]
            blame[i] = index if known == -1 else known if known == index else -2


@inlined
def _spoil(dWxh, blame):
    """Put the NaN where `_blame` has said."""
    for i in range(len(blame)):
        if blame[i] != -1:
            for c in range(dWxh.shape[1]):
                if c != blame[i]:
                    dWxh[i, c] = math.nan


@inlined
def _add_products(out, left, right, sums, first, limits, step):
    """``out (m, n) (+)= sum over t, downwards, of left_t right_t'``, clamped after each term.

    ``sums = (growth, reached)``: ``reached[i]`` bounds ``|out[i, :]|``, and ``growth[i]`` what it can grow by.  A
    row that cannot reach the limit takes the plain product, which then is the same sum, and a tenth of the time.
    (NaN fails the comparison and takes the clamped one.)  ``step = (W, lr)``: where W has rows, it takes a step
    down the gradient, which is then not written.
    """
    (growth, reached), (limit, cap), (W, lr) = sums, limits, step
    m = len(out)
    fresh = 1 if first else 0
    limited, safe = limit < math.inf, 0.999 * limit
    if limited:
        bound_growth(growth, left, right)
    i = 0
    while i < m:
        # Rows i to j are alike: all fit, or none.
        j, alike = i if limited else m, -1 if limited else 1
        while j < m:
            before = 0.0 if first else np.float64(reached[j])
            fits = before + growth[j] <= safe
            if not fits and not first:
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
        add_outer_products(out, W, left, right, (i, j), fresh, bound, (lr, cap))
        i = j


@inlined
def _loss(ps, targets):
    """Cross-entropy in nats (eqs. 5, 6)."""
    loss = 0.0
    for t in range(len(targets)):
        loss -= np.log(np.float64(ps[t, targets[t]]))
    return loss


@inlined
def _clip(how, threshold, grads):
    """Clamp every gradient, or rescale all of them by their global norm (eq. 15)."""
    if how == CLIP_VALUE:
        for i in range(5):
            clamp(grads[i], grads[i], threshold)
    if how == CLIP_NORM:
        squares = sum_of_squares(grads[0])
        for i in range(1, 5):
            squares += sum_of_squares(grads[i])
        norm = math.sqrt(squares)
        if not norm <= threshold:
            for i in range(5):
                scale(grads[i], grads[i], threshold / norm)


@kernel
def _backward(params, inputs, targets, hs, ps, clip, step, grads, work):
    """Loss, gradients and their clipping (eqs. 5 to 13, 15); and the update if ``step = (known, updates, lr)`` says so.

    Where states ``hs (T+1,h)`` and probabilities ``ps (T,q)`` are not `known`, `_forward` comes first.  Writes `grads`,
    shaped as the five parameters; returns the loss.  ``clip = (how, threshold)``.

    Blocks of steps go by from the last one to the first.  In each, row t of `dz` and of `dy` belongs to its step t,
    and row n of `dz`, `after_block`, to the first step of the block after it.

    With an update, gradients are written only where eq. 15 must see them all first: else the parameters take the
    step as a gradient leaves the registers, which saves writing and reading it.
    """
    (Wxh, Whh, Why, bh, by), (indices, x), (how, threshold), (known, updates, lr) = params, inputs, clip, step
    if not known:
        _forward(params, inputs, hs, ps, work)
    descends = updates and how != CLIP_NORM
    # Sums are clamped to the limit after every time step, and to the cap at the end.
    limit = threshold if how == CLIP_STEP else math.inf
    cap = threshold if how == CLIP_VALUE else math.inf
    dWxh, dWhh, dWhy, dbh, dby = grads
    (h, d), (T, q) = Wxh.shape, ps.shape
    states, dz, dy, vectors, columns, dbias, dbias_y = _rows(work, T, d, h, q)
    packed_Whh, _, packed_Why, _ = _packed(work, T, d, h, q)
    lanes = VECTOR_BYTES // work.itemsize
    _, _, _, _, _, sums, _, _, blame, _, _, _ = _layout(T, d, h, q, lanes, first_line(work))
    growth = matrix(work, sums, 4, padded(h, lanes) + padded(q, lanes) + padded(d, lanes))
    blame = matrix(work, blame, 1, h)[0]
    one_hot, packed = len(indices) > 0, T >= PACK_FROM
    # dWxh is summed by its columns, which are rows of its transpose: one row a step, in order, not h places.
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

    after_block = dz[min(T, BLOCK)]  # dz of the step after the block
    last = (T - 1) // BLOCK * BLOCK
    for t0 in range(last, -1, -BLOCK):
        n, first = min(BLOCK, T - t0), t0 == last
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
            for i in range(0, q, STRIP):
                for t in range(n):
                    add_times_rows(dz[t], dy[t, i:], Why[i : i + STRIP])
        # dh_t += Whh' dz_{t+1}  (eq. 12);  dz_t = dh_t (1 - h_t^2)  (eq. 10)
        for t in range(n - 1, -1, -1):
            following = after_block if t == n - 1 else dz[t + 1]
            if not (first and t == n - 1):
                if packed:
                    gemv(dz[t], dz[t], following, packed_Whh, t & 1)
                else:
                    add_times_rows(dz[t], following, Whh)
            cells.backward(TANH, (states[t + 1],), (dz[t],), dz[t])
        if one_hot and sum_of_zeros(dz[:n]) != 0:  # an element of dz is not finite
            if not spoilt:
                fill(blame, -1.0)
            spoilt = True
            for t in range(n):
                _blame(indices[t0 + t], dz[t], blame)
        # dbh = sum dz_t, dby = sum dy_t  (eqs. 8, 11), and dWxh where it is summed by its columns
        for t in range(n - 1, -1, -1):
            add_clamped(dbias, dbias, dz[t], limit)
            add_clamped(dbias_y, dbias_y, dy[t], limit)
            if by_column:
                add_clamped(columns[indices[t0 + t]], columns[indices[t0 + t]], dz[t], limit)
            elif one_hot:
                scatter_column(dWxh, indices[t0 + t], dz[t], limit)
            else:
                copy_padded(vectors[t], x[t0 + t])
        # dWhy = sum dy_t h_t', dWhh = sum dz_t h_{t-1}', dWxh = sum dz_t x_t'  (eqs. 8, 11, 13)
        down = descends and t0 == 0
        for number in range(2 if one_hot else 3):
            dW, W, left, right = dWhy, Why, dy[:n], states[1 : n + 1]
            if number == 1:
                dW, W, left, right = dWhh, Whh, dz[:n], states[:n]
            elif number == 2:
                dW, W, left, right = dWxh, Wxh, dz[:n], vectors[:n]
            rows = W if down else W[:0]
            _add_products(dW, left, right, (growth[0], growth[number + 1]), first, (limit, cap), (rows, lr))
        copy(after_block, dz[0])

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
        _spoil(Wxh if descends else dWxh, blame)
    if not descends:
        _clip(how, threshold, grads)
        if updates:
            for i in range(5):
                subtract_scaled(params[i], params[i], grads[i], lr)
    return _loss(ps, targets)


@kernel
def _update(params, grads, lr):
    """``W -= lr dW`` for each."""
    for i in range(len(params)):
        subtract_scaled(params[i], params[i], grads[i], lr)


# ---- sampling -------------------------------------------------------------------------------------


@inlined
def _draw(p, u):
    """Index of the first element of cumsum(p) / sum(p) that is greater than u; -1 if p is no numbers."""
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
    """Draw ``out (n)``, from the class `start` and the `state` (h, 1), which goes on; returns how many were drawn.

    Two rows of `states` take turns.  ``uniforms (n)`` in [0, 1) choose the classes.
    """
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
        # h_t = tanh(Wxh x_t + Whh h_{t-1} + bh)
        _look_up(Wxh, index, columns, transposed, finite, vectors[0], bias, row)
        _recurrent_step(Whh, packed_Whh, packed, before, row, t)
        # y_t = Why h_t + by
        if packed:
            gemv(y, bias_y, row, packed_Why, t & 1)
        else:
            copy(y, bias_y)
            add_rows_times(y, Why, row)
        softmax_padded(y)
        index = _draw(y[:q], uniforms[t])
        if index < 0:
            break
        out[t] = index
        drawn += 1
    copy(state, states[drawn & 1])
    return drawn


# ---- for tests ------------------------------------------------------------------------------------


@kernel
def _tanh(x):
    hyperbolic_tangent(x, x)


@kernel
def _exp(x):
    exponential(x, x)


# ---- what the package calls -----------------------------------------------------------------------


def forward(params, inputs, hs, ps, work):
    """States and probabilities of a sequence (eqs. 1, 2, 16, 17)."""
    _forward(params, inputs, hs, ps, work)


def backward(params, inputs, targets, hs, ps, limit, grads, work):
    """Gradients of the cross-entropy by BPTT (eqs. 7 to 13), clamped after every time step."""
    clip, step = (CLIP_STEP, float(limit)), (True, False, 0.0)
    _backward(params, inputs, targets, hs, ps, clip, step, grads, work)


def loss_and_grads(params, inputs, targets, hs, ps, clip, grads, work):
    """`forward`, the loss in nats (eqs. 5, 6), `backward`, and the clipping named by `clip`."""
    how, threshold = clip
    clip = how, float(threshold)
    return float(_backward(params, inputs, targets, hs, ps, clip, (False, False, 0.0), grads, work))


def train_step(params, inputs, targets, hs, ps, clip, lr, grads, work):
    """`loss_and_grads` and `update` in one; `grads` is work space.  Returns the loss."""
    how, threshold = clip
    clip = how, float(threshold)
    return float(_backward(params, inputs, targets, hs, ps, clip, (False, True, float(lr)), grads, work))


def update(params, grads, lr):
    """Gradient descent, in place: ``W -= lr dW`` for each parameter."""
    _update(params, grads, float(lr))


def sample(params, h, start, uniforms, out, work):
    """Draw ``len(out)`` class indices, each fed back as the next input; returns how many were drawn."""
    return int(_sample(params, h, start, uniforms, out, work))


def recurrence(params, hs, work):
    """The recurrent part of `forward` alone: ``hs[t] = tanh(hs[t] + Whh hs[t-1])`` for t = 1 .. T, in place."""
    _recurrence(params[1], hs, work, params[0].shape[1], len(params[2]))


def tanh(x):
    """Hyperbolic tangent of each element, in place."""
    _tanh(x)


def exp(x):
    """Exponential of each element, in place."""
    _exp(x)
