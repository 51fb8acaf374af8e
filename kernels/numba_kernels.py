"""Kernels compiled by Numba at first use and kept on disk.

The functions and their arguments are those of `fastrnn.kernels.numpy_kernels`; see there for the
equations.  All of them run one compiled function, `_run`, told what to do by its first argument: so
there is one piece of machine code to compile, to keep and to load for each dtype.

Only ``Whh h_{t-1}`` and ``Whh' dz_{t+1}`` wait for the step before.  Time is cut into blocks: within
one, all else is a product over all its steps.  Rows of a block are padded to whole vectors, so that no
loop has a tail, and stay in the cache.  For a few steps matrices are used as they are; for more,
packing them first pays.

Work space is one array, cut by `_layout`; with it go the offsets at which its parts begin.  ``ldh, ldq,
ldd`` are h, q and d rounded up to whole vectors.
"""

import functools
import math

import numpy as np
from numba.core import config

from fastrnn.kernels import CLIP_NORM, CLIP_STEP, CLIP_VALUE
from fastrnn.kernels.elementary import (
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
    times_slope,
)
from fastrnn.kernels.jit import cache_folder, inlined, inlined_and_python, kernel
from fastrnn.kernels.numba_gradients import reduce_gradients
from fastrnn.kernels.numba_layer import layer_backward, layer_forward, layer_sizes
from fastrnn.kernels.numba_optimizers import adagrad, adam, rmsprop, sgd
from fastrnn.kernels.numba_output import output_logits, output_loss, output_sizes
from fastrnn.kernels.numba_sampling import sample_batch, sample_size
from fastrnn.kernels.numba_weights import pack_layer, pack_output
from fastrnn.kernels.packing import GEMM_VECTORS, pack_for_gemm, pack_for_gemv, transpose_panel
from fastrnn.kernels.products import add_rows_times, add_times_rows, gemm, gemv
from fastrnn.kernels.vectors import VECTOR_BYTES

__all__ = [
    "NAME", "USES_BLAS", "adagrad", "adam", "backward", "cache_folder", "copy_targets", "exp", "forward",
    "layer_backward", "layer_forward", "layer_sizes", "loss_and_grads", "output_logits", "output_loss",
    "output_sizes", "pack_layer", "pack_output", "recurrence", "reduce_gradients", "rmsprop", "sample",
    "sample_batch", "sample_size", "sgd", "tanh", "train_step", "update", "workspace_size", "wrap_indices",
]  # fmt: skip

NAME = "numba"
USES_BLAS = False

BLOCK = 64  # time steps
PACK_FROM = 8  # time steps from which on matrices are packed
STRIP = 16  # rows of Why that all steps use while they are in the first cache

#: What `_run` is asked for.  LOSS stands with FORWARD and BACKWARD, and brings the clipping.
FORWARD, BACKWARD, LOSS, SAMPLE, UPDATE, RECURRENCE, TANH, EXP = (1 << bit for bit in range(8))

# ---- work space -----------------------------------------------------------------------------------


@inlined_and_python
def _layout(T, d, h, q, lanes, start):
    """Offsets in the work space from `start` on, each of them whole cache lines on; the last is its end."""
    ldh, ldq, ldd = (h + lanes - 1) & -lanes, (q + lanes - 1) & -lanes, (d + lanes - 1) & -lanes
    steps = BLOCK if T > BLOCK else T
    states = start  # (steps+1, ldh), row 0 the state before the block
    dz = states + (((steps + 1) * ldh + 63) & -64)  # (steps+1, ldh), the last row is the next block's
    dy = dz + (((steps + 1) * ldh + 63) & -64)  # (steps, ldq) logits, then their gradient
    inputs = dy + (((steps + 1) * ldq + 63) & -64)  # (steps, ldd)
    columns = inputs + ((steps * ldd + 63) & -64)  # (d, ldh) Wxh transposed; then dWxh, transposed
    sums = columns + ((d * ldh + 63) & -64)  # growth, and what three gradients have reached
    bias_h = sums + ((4 * (ldh + ldq + ldd) + 63) & -64)  # (ldh)
    bias_y = bias_h + ((ldh + 63) & -64)  # (ldq), minus infinity in the padding
    blame = bias_y + ((ldq + 63) & -64)  # (h) see _blame
    Whh = blame + ((h + 63) & -64)  # packed: of the transpose forward, as it is backward
    if T < PACK_FROM:
        return states, dz, dy, inputs, columns, Whh, Whh, sums, bias_h, bias_y, blame, Whh
    Why = Whh + ((h * ldh + 63) & -64)  # packed for matrix products, or for sampling
    nr = GEMM_VECTORS * lanes
    end = Why + h * (q + nr) + q * (h + nr)
    return states, dz, dy, inputs, columns, Whh, Why, sums, bias_h, bias_y, blame, end


@functools.lru_cache(maxsize=256)
def workspace_size(T, d, h, q):
    """Elements of scratch space that the kernels want for these sizes."""
    # 64 more: the first offset is where a cache line starts.
    return max(_layout(T, d, h, q, VECTOR_BYTES // itemsize, 64)[-1] for itemsize in (4, 8))


# ---- parts of the kernel ---------------------------------------------------------------------------


@inlined
def _look_up(Wxh, index, transposed, finite, work, columns, inputs, bias_h, ldh, out):
    """``out = Wxh x + bh`` for a one-hot vector x: a column of Wxh.

    It is that only while the rest of Wxh is finite: zero times NaN is NaN.  Where it is not, the product
    is made in full.
    """
    h, d = Wxh.shape
    if not finite:
        fill(d, work, inputs, 0.0)
        work[inputs + index] = 1
        copy(ldh, work, out, work, bias_h)
        add_rows_times(Wxh, 0, h, d, work, inputs, work, out)
    elif transposed:
        add(ldh, work, out, work, columns + index * ldh, work, bias_h)
    else:
        fill(ldh, work, out, 0.0)
        gather_column(h, work, out, Wxh, index, d, work, bias_h)


@inlined
def _recurrent_step(Whh, packed, work, Whh_packed, ldh, before, row, t):
    """``row = tanh(row + Whh before)``, in place (eq. 1)."""
    h = len(Whh)
    if packed:
        gemv(work, Whh_packed, h, h, work, before, work, row, work, row, t & 1)
    else:
        add_rows_times(Whh, 0, h, h, work, before, work, row)
    hyperbolic_tangent(ldh, work, row, work, row)


@inlined
def _draw(work, p, q, u):
    """Index of the first element of cumsum(p) / sum(p) that is greater than u; -1 if p is no numbers."""
    total = np.float64(0)
    for j in range(q):
        total += work[p + j]
    running = np.float64(0)
    drawn = q - 1 if total > 0 else -1
    if total > 0:
        for j in range(q - 1):
            running += work[p + j]
            if running / total > u:
                drawn = j
                break
    return drawn


@inlined
def _blame(h, index, work, dz, blame):
    """Note whose row of the gradient is spoilt: zero times NaN or infinity is NaN.

    A ``dz[i]`` that is not finite makes NaN of row i in every column but that of the one-hot vector:
    ``blame[i]`` is that column, -1 where there is none, or -2 where it is not always the same.
    """
    for i in range(h):
        if work[dz + i] * 0 != 0:
            known = work[blame + i]
            work[blame + i] = index if known == -1 else known if known == index else -2


@inlined
def _spoil(dWxh, work, blame):
    """Put the NaN where `_blame` has said."""
    h, d = dWxh.shape
    for i in range(h):
        if work[blame + i] != -1:
            for c in range(d):
                if c != work[blame + i]:
                    dWxh[i, c] = math.nan


@inlined
def _accumulate(
    n, m, left, ldl, cols, right, ldr, limit, first, reached, growth, work, nr, out, descend, W, rate, cap
):
    """``out (m, cols) (+)= sum over t, downwards, of left_t right_t'``, clamped after each term.

    ``reached[i]`` bounds ``|out[i, :]|``.  A row that cannot reach the limit within the block takes the
    plain product, which then is the same sum.  (NaN fails the comparison and takes the clamped one.)
    With `descend`, W takes a step down the gradient, see `gemm`.
    """
    limited = limit < math.inf
    safe = 0.999 * limit
    if limited:
        bound_growth(n, work, left, ldl, work, right, ldr, work, growth)
    i = 0
    while i < m:
        j, clamped = m, 0
        if limited:
            j, clamped = i, -1
            while j < m:
                before = 0.0 if first else np.float64(work[reached + j])
                fits = before + work[growth + j] <= safe
                if not fits and not first:
                    before = np.float64(largest_magnitude(cols, out, j * cols))
                    fits = before + work[growth + j] <= safe
                here = 0 if fits else 1
                if clamped < 0:
                    clamped = here
                if here != clamped:
                    break
                work[reached + j] = before + work[growth + j] if fits else limit
                j += 1
        gemm(
            j - i, cols, n, work, left + i, 1, ldl, work, right, ldr, nr, out, i * cols, cols,
            0 if first else 1, clamped, limit, descend, W, i * cols, rate, cap,
        )  # fmt: skip
        i = j


@inlined
def _clip(clip, threshold, grads):
    """Clamp every gradient, or rescale all of them by their global norm (eq. 15)."""
    if clip == CLIP_VALUE:
        for i in range(5):
            dW = grads[i]
            clamp(dW.size, dW, 0, dW, 0, threshold)
    if clip == CLIP_NORM:
        squares = sum_of_squares(grads[0].size, grads[0], 0)
        for i in range(1, 5):
            dW = grads[i]
            squares += sum_of_squares(dW.size, dW, 0)
        norm = math.sqrt(squares)
        if not norm <= threshold:
            for i in range(5):
                dW = grads[i]
                scale(dW.size, dW, 0, dW, 0, threshold / norm)


# ---- the kernel ------------------------------------------------------------------------------------


@kernel
def _run(
    operation, Wxh, Whh, Why, bh, by, indices, x, targets, hs, ps, clip, threshold, lr, dWxh, dWhh,
    dWhy, dbh, dby, uniforms, start, work,
):  # fmt: skip
    """One of the operations named above, or those that make up a training step.

    Returns the loss, or how many indices were drawn.  A whole training step writes the gradients only
    where eq. 15 must see them all first; else the parameters take the step as it is computed.

    It is one long function because Numba takes quadratic time to put a long one into another.
    """
    h, d = Wxh.shape
    q = len(Why)
    T = len(targets) if operation == SAMPLE else len(hs) - 1
    lanes = VECTOR_BYTES // work.itemsize
    nr = GEMM_VECTORS * lanes
    ldh, ldq, ldd = (h + lanes - 1) & -lanes, (q + lanes - 1) & -lanes, (d + lanes - 1) & -lanes
    states, dz, dy, inputs, columns, Whh_packed, Why_packed, sums, bias_h, bias_y, blame, _ = _layout(
        T, d, h, q, lanes, (-work.ctypes.data & 63) // work.itemsize
    )
    one_hot, packed = len(indices) > 0, T >= PACK_FROM
    # Transposing Wxh pays when most of its columns are wanted.
    transposed = one_hot and packed and d <= 2 * T
    finite = True
    descending = operation & UPDATE and operation & BACKWARD and clip != CLIP_NORM
    result = 0.0

    if operation & (FORWARD | SAMPLE):
        copy_padded(h, work, bias_h, bh, 0)
        copy(q, work, bias_y, by, 0)
        fill(ldq - q, work, bias_y + q, -math.inf)
        if one_hot:
            finite = sum_of_zeros(h * d, Wxh, 0) == 0
        if transposed:
            transpose_panel(Wxh, 0, d, d, h, ldh, work, columns)
    if operation & (FORWARD | SAMPLE | RECURRENCE):
        copy_padded(h, work, states, hs, 0)
        if packed:
            pack_for_gemv(Whh, 0, 1, h, h, work, Whh_packed)

    if operation & FORWARD:  # eqs. 1, 2, 16, 17
        if packed:
            pack_for_gemm(Why, 0, 1, h, q, work, Why_packed)
        for t0 in range(0, T, BLOCK):
            n = BLOCK if T - t0 > BLOCK else T - t0
            for t in range(n):
                row = states + (t + 1) * ldh
                if one_hot:
                    _look_up(
                        Wxh, indices[t0 + t], transposed, finite, work, columns, inputs, bias_h, ldh, row
                    )
                else:
                    copy_padded(d, work, inputs + t * ldd, x, (t0 + t) * d)
                    copy(ldh, work, row, work, bias_h)
                    add_rows_times(Wxh, 0, h, d, work, inputs + t * ldd, work, row)
            for t in range(n):
                row, y = states + (t + 1) * ldh, dy + t * ldq
                _recurrent_step(Whh, packed, work, Whh_packed, ldh, row - ldh, row, t)
                copy(h, hs, (t0 + t + 1) * h, work, row)
                copy(ldq, work, y, work, bias_y)
            if packed:
                gemm(
                    n, ldq, h, work, states + ldh, ldh, 1, work, Why_packed, nr, h * nr, work, dy, ldq,
                    1, 0, 0.0, 0, work, dy, 0.0, 0.0,
                )  # fmt: skip
            else:
                for i in range(0, q, STRIP):
                    for t in range(n):
                        rows, row, y = min(STRIP, q - i), states + (t + 1) * ldh, dy + t * ldq + i
                        add_rows_times(Why, i * h, rows, h, work, row, work, y)
            for t in range(n):
                softmax_padded(ldq, work, dy + t * ldq)
                copy(q, ps, (t0 + t) * q, work, dy + t * ldq)
            copy(ldh, work, states, work, states + n * ldh)

    if operation & LOSS:  # eqs. 5, 6
        for t in range(T):
            result -= np.log(np.float64(ps[t, targets[t]]))

    if operation & BACKWARD:  # eqs. 7 to 13
        limit = threshold if clip == CLIP_STEP else math.inf
        cap = threshold if clip == CLIP_VALUE else math.inf
        by_column = one_hot and (transposed or descending)
        spoilt = False
        if packed:
            pack_for_gemv(Whh, 0, 0, h, h, work, Whh_packed)
            pack_for_gemm(Why, 0, 0, q, h, work, Why_packed)
        if by_column and descending and d > T:
            for t in range(T):
                fill(ldh, work, columns + indices[t] * ldh, 0.0)
        elif by_column:
            fill(d * ldh, work, columns, 0.0)
        elif one_hot:
            fill(h * d, dWxh, 0, 0.0)
        fill(ldh, work, bias_h, 0.0)
        fill(ldq, work, bias_y, 0.0)
        after = dz + (BLOCK if T > BLOCK else T) * ldh  # dz of the step after the block
        last = (T - 1) // BLOCK * BLOCK
        for t0 in range(last, -1, -BLOCK):
            n = BLOCK if T - t0 > BLOCK else T - t0
            first = t0 == last
            for t in range(n + 1):
                copy_padded(h, work, states + t * ldh, hs, (t0 + t) * h)
            for t in range(n):
                copy_padded(q, work, dy + t * ldq, ps, (t0 + t) * q)
                work[dy + t * ldq + targets[t0 + t]] -= 1  # eq. 7
            if packed:  # eq. 9, the output's part
                gemm(
                    n, ldh, q, work, dy, ldq, 1, work, Why_packed, nr, q * nr, work, dz, ldh,
                    0, 0, 0.0, 0, work, dz, 0.0, 0.0,
                )  # fmt: skip
            else:
                fill(n * ldh, work, dz, 0.0)
                for i in range(0, q, STRIP):
                    for t in range(n):
                        rows, y, row = min(STRIP, q - i), dy + t * ldq + i, dz + t * ldh
                        add_times_rows(Why, i * h, rows, h, work, y, work, row)
            for t in range(n - 1, -1, -1):  # eqs. 9, 12, 10
                row = dz + t * ldh
                following = after if t == n - 1 else row + ldh
                if not (first and t == n - 1):
                    if packed:
                        gemv(work, Whh_packed, h, h, work, following, work, row, work, row, t & 1)
                    else:
                        add_times_rows(Whh, 0, h, h, work, following, work, row)
                times_slope(ldh, work, row, work, row, work, states + (t + 1) * ldh)
            if one_hot and sum_of_zeros(n * ldh, work, dz) != 0:
                if not spoilt:
                    fill(h, work, blame, -1.0)
                spoilt = True
                for t in range(n):
                    _blame(h, indices[t0 + t], work, dz + t * ldh, blame)
            for t in range(n - 1, -1, -1):  # eqs. 8, 11
                row = dz + t * ldh
                add_clamped(ldh, work, bias_h, work, bias_h, work, row, limit)
                add_clamped(ldq, work, bias_y, work, bias_y, work, dy + t * ldq, limit)
                if one_hot:
                    column = columns + indices[t0 + t] * ldh
                    if by_column:
                        add_clamped(ldh, work, column, work, column, work, row, limit)
                    else:
                        scatter_column(h, dWxh, indices[t0 + t], d, work, row, limit)
                else:
                    copy_padded(d, work, inputs + t * ldd, x, (t0 + t) * d)
            descend = 1 if descending and t0 == 0 else 0
            for product in range(2 if one_hot else 3):
                m, left, ldl, cols, right, ldr, W, dW = q, dy, ldq, h, states + ldh, ldh, Why, dWhy
                if product == 1:
                    m, left, ldl, cols, right, ldr, W, dW = h, dz, ldh, h, states, ldh, Whh, dWhh
                elif product == 2:
                    m, left, ldl, cols, right, ldr, W, dW = h, dz, ldh, d, inputs, ldd, Wxh, dWxh
                reached = sums + (product + 1) * (ldh + ldq + ldd)
                _accumulate(
                    n, m, left, ldl, cols, right, ldr, limit, first, reached, sums, work, nr, dW,
                    descend, W, lr, cap,
                )  # fmt: skip
            copy(ldh, work, after, work, dz)
        if descending:
            clamp(h, work, bias_h, work, bias_h, cap)
            clamp(q, work, bias_y, work, bias_y, cap)
            subtract_scaled(h, bh, 0, bh, 0, work, bias_h, lr)
            subtract_scaled(q, by, 0, by, 0, work, bias_y, lr)
            if one_hot:
                for t in range(T):
                    column = columns + indices[t] * ldh
                    descend_column(h, Wxh, indices[t], d, work, column, lr, cap)
                    fill(ldh, work, column, 0.0)  # one that comes again finds its gradient spent
        else:
            copy(h, dbh, 0, work, bias_h)
            copy(q, dby, 0, work, bias_y)
            if by_column:
                transpose_panel(work, columns, ldh, h, d, d, dWxh, 0)
        if spoilt:
            _spoil(Wxh if descending else dWxh, work, blame)

    if operation & LOSS and not descending:
        _clip(clip, threshold, (dWxh, dWhh, dWhy, dbh, dby))

    if operation & SAMPLE:
        if packed:
            pack_for_gemv(Why, 0, 1, h, q, work, Why_packed)
        before, row, index = states, states + ldh, start
        for t in range(T):
            _look_up(Wxh, index, transposed, finite, work, columns, inputs, bias_h, ldh, row)
            _recurrent_step(Whh, packed, work, Whh_packed, ldh, before, row, t)
            if packed:
                gemv(work, Why_packed, h, q, work, row, work, bias_y, work, dy, t & 1)
            else:
                copy(ldq, work, dy, work, bias_y)
                add_rows_times(Why, 0, q, h, work, row, work, dy)
            softmax_padded(ldq, work, dy)
            index = _draw(work, dy, q, uniforms[t])
            if index < 0:
                break
            targets[t] = index
            result += 1
            before, row = row, before
        copy(h, hs, 0, work, before)

    if operation & UPDATE and not descending:
        weights, grads = (Wxh, Whh, Why, bh, by), (dWxh, dWhh, dWhy, dbh, dby)
        for i in range(5):
            W, dW = weights[i], grads[i]
            subtract_scaled(W.size, W, 0, W, 0, dW, 0, lr)

    if operation & RECURRENCE:
        for t in range(T):
            row = states + (t % BLOCK + 1) * ldh
            copy_padded(h, work, row, hs, (t + 1) * h)
            _recurrent_step(Whh, packed, work, Whh_packed, ldh, row - ldh, row, t)
            copy(h, hs, (t + 1) * h, work, row)
            if t % BLOCK == BLOCK - 1:
                copy(ldh, work, states, work, row)

    if operation & TANH:
        hyperbolic_tangent(hs.size, hs, 0, hs, 0)
    if operation & EXP:
        exponential(hs.size, hs, 0, hs, 0)
    return result


@kernel
def _wrap(indices, bound, out):
    bad = -1
    for i in range(len(indices)):
        index = indices[i]
        wrapped = index + bound if index < 0 else index
        if wrapped < 0 or wrapped >= bound:
            bad = i
            break
        out[i] = wrapped
    return bad


@kernel
def _targets(targets, bound, ignored, out):
    counted = 0
    for i in range(len(targets)):
        target = targets[i]
        if target == ignored:
            target = -1
        elif target < 0 or target >= bound:
            counted = -1 - i
            break
        else:
            counted += 1
        out[i] = target
    return counted


if config.DISABLE_JIT:
    _interpreted = _run

    def _run(*arguments):
        return float(_interpreted(*arguments))


_NO_INDICES = np.empty(0, np.int64)
_NO_UNIFORMS = np.empty(0)

# ---- what the package calls -----------------------------------------------------------------------


def wrap_indices(indices, bound, out):
    """Copy class indices to `out`, negative ones counted from the end.

    Returns the position of the first index outside ``[-bound, bound)``, or -1.
    """
    return _wrap(indices, bound, out)


def copy_targets(targets, bound, ignored, out):
    """Copy targets to `out`, -1 where they equal `ignored`: those do not count.

    Returns how many count; or ``-1 - position`` of the first that is neither `ignored` nor in
    ``[0, bound)``.
    """
    return _targets(targets, bound, ignored, out)


def forward(params, inputs, hs, ps, work):
    """States and probabilities of a sequence (eqs. 1, 2, 16, 17)."""
    indices, x = inputs
    _run(FORWARD, *params, indices, x, indices, hs, ps, 0, 0.0, 0.0, *params, _NO_UNIFORMS, 0, work)


def backward(params, inputs, targets, hs, ps, limit, grads, work):
    """Gradients of the cross-entropy by BPTT (eqs. 7 to 13), clamped after every time step."""
    indices, x = inputs
    _run(
        BACKWARD, *params, indices, x, targets, hs, ps, CLIP_STEP, limit, 0.0, *grads, _NO_UNIFORMS, 0, work
    )  # fmt: skip


def loss_and_grads(params, inputs, targets, hs, ps, clip, grads, work):
    """`forward`, the loss in nats (eqs. 5, 6), `backward`, and the clipping named by `clip`."""
    (indices, x), (clip, threshold) = inputs, clip
    return _run(
        FORWARD | BACKWARD | LOSS, *params, indices, x, targets, hs, ps, clip, threshold, 0.0, *grads,
        _NO_UNIFORMS, 0, work,
    )  # fmt: skip


def train_step(params, inputs, targets, hs, ps, clip, lr, grads, work):
    """`loss_and_grads` and `update` in one; `grads` is work space.  Returns the loss."""
    (indices, x), (clip, threshold) = inputs, clip
    return _run(
        FORWARD | BACKWARD | LOSS | UPDATE, *params, indices, x, targets, hs, ps, clip, threshold, lr,
        *grads, _NO_UNIFORMS, 0, work,
    )  # fmt: skip


def update(params, grads, lr):
    """Gradient descent, in place: ``W -= lr dW`` for each parameter."""
    W = params[0]
    _run(
        UPDATE, *params, _NO_INDICES, W, _NO_INDICES, W, W, 0, 0.0, lr, *grads, _NO_UNIFORMS, 0,
        params[3].reshape(-1),
    )  # fmt: skip


def sample(params, h, start, uniforms, out, work):
    """Draw ``len(out)`` class indices, each fed back as the next input; returns how many were drawn."""
    return int(_run(SAMPLE, *params, out, h, out, h, h, 0, 0.0, 0.0, *params, uniforms, start, work))


def recurrence(params, hs, work):
    """The recurrent part of `forward` alone: ``hs[t] = tanh(hs[t] + Whh hs[t-1])`` for t = 1 .. T, in place."""
    _run(
        RECURRENCE, *params, _NO_INDICES, hs, _NO_INDICES, hs, hs, 0, 0.0, 0.0, *params, _NO_UNIFORMS, 0,
        work,
    )  # fmt: skip


def _element_by_element(operation, x):
    row = x.reshape(1, -1)
    rows = (row, row, row, row, row)
    _run(
        operation, *rows, _NO_INDICES, row, _NO_INDICES, row, row, 0, 0.0, 0.0, *rows, _NO_UNIFORMS, 0,
        x.reshape(-1),
    )  # fmt: skip


def tanh(x):
    """Hyperbolic tangent of each element, in place."""
    _element_by_element(TANH, x)


def exp(x):
    """Exponential of each element, in place."""
    _element_by_element(EXP, x)
