"""One sequence, the class of the study notes, in plain NumPy: vectorised over all that is not sequential.

Equations are those of the study notes, with one-hot targets ``p``::

    h_t  = tanh(Wxh x_t + Whh h_{t-1} + bh)          (1)
    y_t  = Why h_t + by,  ps_t = softmax(y_t)        (2), (16), (17)
    L    = -sum_t log ps_t[target_t]                 (5), (6)
    dy_t = ps_t - p_t                                (7)
    dh_t = Why' dy_t + Whh' dz_{t+1}                 (9), (12)
    dz_t = dh_t (1 - h_t^2)                          (10)
    dWhy = sum dy_t h_t', dWhh = sum dz_t h_{t-1}', dWxh = sum dz_t x_t'    (8), (11), (13)

A one-hot input is a column look-up, and its gradient a scatter-add, as long as ``0 * anything``
is 0; where NaN or infinity take part, the products with zeros count as well.

Arrays are C-contiguous and of one dtype.  ``params = (Wxh (h,d), Whh (h,h), Why (q,h), bh (h,1),
by (q,1))`` and ``grads`` alike; ``hs (T+1,h)`` holds the state before the first input in row 0;
``ps (T,q)``.  ``inputs = (indices, x)`` are either class indices ``indices (T,)`` (int64, in [0,d); then ``x``
has no rows) or vectors ``x (T,d)`` (then ``indices`` is empty).  ``clip = (how, threshold)``, `how` being one of
``CLIP_NONE`` to ``CLIP_NORM``.  ``work`` is scratch space of `workspace_size` elements.
"""

import math

import numpy as np

from fastrnn.kernels import CLIP_NORM, CLIP_STEP, CLIP_VALUE, TANH
from fastrnn.kernels.numpy_kernels import cells
from fastrnn.kernels.numpy_kernels.gradients import norm_of


def workspace_size(T, d, h, q):
    """Elements of scratch space that the kernels want for these sizes."""
    return 0


def forward(params, inputs, hs, ps, work, threads=1):
    """States and probabilities of a sequence (eqs. 1, 2, 16, 17).

    Reads ``hs[0]``; writes ``hs[1:]`` and `ps`.
    """
    (Wxh, Whh, Why, bh, by), (indices, x) = params, inputs
    with np.errstate(all="ignore"):
        if len(indices):
            _look_up(Wxh, indices, hs[1:])
        else:
            np.matmul(x, Wxh.T, out=hs[1:])
        hs[1:] += bh.T
        for t in range(len(ps)):
            z = hs[t + 1]
            cells.forward(TANH, z, Whh @ hs[t], (hs[t],), (z,))
        np.matmul(hs[1:], Why.T, out=ps)
        ps += by.T
        ps -= ps.max(axis=1, keepdims=True)
        np.exp(ps, out=ps)
        ps /= ps.sum(axis=1, keepdims=True)


def backward(params, inputs, targets, hs, ps, limit, grads, work, threads=1):
    """Gradients of the cross-entropy by BPTT (eqs. 7 to 13), written to `grads`.

    Every accumulator is clamped to [-limit, limit] after every time step; no clamp when it is inf.
    """
    (_, Whh, Why, _, _), (indices, x) = params, inputs
    dWxh, dWhh, dWhy, dbh, dby = grads
    T = len(ps)
    with np.errstate(all="ignore"):
        dy = ps.copy()
        dy[np.arange(T), targets] -= 1
        dz = dy @ Why
        for t in range(T - 1, -1, -1):
            if t < T - 1:
                dz[t] += dz[t + 1] @ Whh
            cells.backward(TANH, (), hs[t + 1], None, (dz[t],), dz[t], dz[t])
        _accumulate(dz, hs[:-1], limit, dWhh)
        _accumulate(dy, hs[1:], limit, dWhy)
        _accumulate(dz, np.ones((T, 1), dz.dtype), limit, dbh)
        _accumulate(dy, np.ones((T, 1), dz.dtype), limit, dby)
        if len(indices) and not np.isfinite(dz).all():
            _accumulate(dz, np.eye(len(dWxh[0]), dtype=dz.dtype)[indices], limit, dWxh)
        elif len(indices):
            dWxh[:] = 0
            for t in range(T - 1, -1, -1):
                column = dWxh[:, indices[t]]
                column += dz[t]
                if limit < math.inf:
                    np.clip(column, -limit, limit, out=column)
        else:
            _accumulate(dz, x, limit, dWxh)


def _look_up(Wxh, indices, out):
    """``out_t = Wxh x_t`` for the one-hot vectors ``x_t`` of `indices`."""
    np.take(Wxh.T, indices, axis=0, out=out, mode="clip")
    bad = ~np.isfinite(Wxh)
    if bad.any():
        elsewhere = bad.sum(axis=1) > bad.T[indices]
        out[elsewhere] = math.nan


def _accumulate(left, right, limit, out):
    """``out = sum over t from T-1 down to 0 of left_t right_t'``, clamped after every term.

    One matrix product does it when no running sum can reach the limit; NaN takes the loop.
    """
    bound = np.abs(left).sum(axis=0).max() * np.abs(right).max()
    if limit == math.inf or bound <= 0.999 * limit:
        np.matmul(left.T, right, out=out)
        return
    out[:] = 0
    for t in range(len(left) - 1, -1, -1):
        out += left[t][:, None] * right[t]
        np.clip(out, -limit, limit, out=out)


def loss_and_grads(params, inputs, targets, hs, ps, clip, grads, work, threads=1):
    """`forward`, the loss in nats (eqs. 5, 6), `backward`, and the clipping named by `clip`.

    Reads ``hs[0]``; writes ``hs[1:]`` and `grads`, and uses `ps` as work space.  Returns the loss.
    """
    how, threshold = clip
    forward(params, inputs, hs, ps, work)
    with np.errstate(all="ignore"):
        loss = -np.log(ps[np.arange(len(ps)), targets].astype(np.float64)).sum()
        limit = threshold if how == CLIP_STEP else math.inf
        backward(params, inputs, targets, hs, ps, limit, grads, work)
        if how == CLIP_VALUE:
            for g in grads:
                np.clip(g, -threshold, threshold, out=g)
        elif how == CLIP_NORM:
            norms = [norm_of(g.reshape(-1)) for g in grads]
            norm = math.nan if any(map(math.isnan, norms)) else math.hypot(*norms)
            scale = threshold / np.maximum(threshold, norm)
            if scale != 1:
                for g in grads:
                    g *= scale
    return float(loss)


def update(params, grads, lr):
    """Gradient descent, in place: ``W -= lr dW`` for each parameter."""
    with np.errstate(all="ignore"):
        for W, dW in zip(params, grads, strict=True):
            W -= lr * dW


def train_step(params, inputs, targets, hs, ps, clip, lr, grads, work, threads=1):
    """`loss_and_grads` and `update` in one; `grads` is work space.  Returns the loss."""
    loss = loss_and_grads(params, inputs, targets, hs, ps, clip, grads, work)
    update(params, grads, lr)
    return loss


def sample(params, h, start, uniforms, out, work, threads=1):
    """Draw ``len(out)`` class indices, each fed back as the next input.

    `h (h,1)` is the state before the first input and is overwritten; `uniforms (n,)` (float64, in
    [0, 1)) are mapped through the inverse of each cumulative distribution.  Returns how many
    were drawn: fewer than n when the probabilities of the next one are not numbers.
    """
    Wxh, Whh, Why, bh, by = params
    index = start
    column = np.empty((1, len(h)), h.dtype)
    with np.errstate(all="ignore"):
        for t in range(len(out)):
            _look_up(Wxh, [index], column)
            cells.forward(TANH, column.T, Whh @ h + bh, (h,), (h,))
            y = Why @ h + by
            p = np.exp(y - y.max())
            p /= p.sum()
            cdf = np.cumsum(p, dtype=np.float64)
            if not cdf[-1] > 0:
                return t
            cdf /= cdf[-1]
            index = int(cdf.searchsorted(uniforms[t], side="right"))
            out[t] = index
    return len(out)


def recurrence(params, hs, work, threads=1):
    """The recurrent part of `forward` alone: ``hs[t] = tanh(hs[t] + Whh hs[t-1])`` for t = 1 .. T, in place."""
    Whh = params[1]
    with np.errstate(all="ignore"):
        for t in range(1, len(hs)):
            cells.forward(TANH, hs[t], Whh @ hs[t - 1], (hs[t - 1],), (hs[t],))


def tanh(x):
    """Hyperbolic tangent of each element, in place."""
    np.tanh(x, out=x)


def exp(x):
    """Exponential of each element, in place."""
    with np.errstate(all="ignore"):
        np.exp(x, out=x)


def sigmoid(x):
    """``1 / (1 + exp(-x))`` of each element, in place."""
    with np.errstate(all="ignore"):
        x[...] = cells.sigmoid(x)
