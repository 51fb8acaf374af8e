"""One layer over a batch of sequences, in plain NumPy.

For each of N sequences, with the parameters of a layer under PyTorch's names::

    z_t  = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh,  h_t = tanh(z_t) or max(z_t, 0)      (1)
    dh_t = d output_t + W_hh' dz_{t+1}                                                  (9), (12)
    dz_t = dh_t (1 - h_t^2), or dh_t where h_t > 0                                      (10)
    dW_hh = sum dz_t h_{t-1}',  dW_ih = sum dz_t x_t',  db = sum dz_t,  dx_t = W_ih' dz_t  (11), (13)

A layer that runs in reverse meets the last time step first: its "h_{t-1}" is h_{t+1}.

Arrays are C-contiguous, of one dtype, and time-major.  ``layer = (W_ih (h,d), W_hh (h,h), b_ih (h),
b_hh (h))``, its gradients alike.  ``batch = (indices, x, lengths, reverse)``: inputs are class indices
``indices (T,N)`` (int64, in [0,d); then ``x`` has no elements), which stand for one-hot vectors, or vectors
``x (T,N,d)`` (then ``indices`` has none).  ``lengths (N,)`` (int64, in [1,T]) says where sequences end that are
shorter than T; without elements all are of length T.  From its end on a sequence's output is zero and nothing
flows back.

Each function works on the sequences ``start <= n < stop`` of the batch, ``rows = (start, stop)``, so that
threads can share a batch; what it gives for one sequence does not depend on the others.  ``packed`` is what
`pack_layer` has made of the weights, to be shared by all that work on the batch, or has no elements: for a few
steps the weights are used as they are.  ``work`` is scratch space of one thread.  Sizes of both come from
`layer_sizes`; a larger array does as well.
"""

import numpy as np

from fastrnn.kernels.numpy_kernels import cells
from fastrnn.kernels.numpy_kernels.gradients import put


def layer_sizes(T, N, rows, d, h):
    """Elements of `packed` and of `work` for a layer, N sequences, at most `rows` of them at once."""
    return 0, 0


def pack_layer(layer, N, one_hot, packed):
    """Bring the weights of a layer into the order in which N sequences will read them.

    `one_hot` says that the inputs are class indices.
    """


def layer_forward(layer, packed, batch, h0, hs, h_n, rows, cell, work):
    """States of a layer (eq. 1).

    Reads ``h0 (N,h)``; writes ``hs (T,N,h)``, zero where a sequence has ended, and ``h_n (N,h)``, the
    state after each sequence's last step.  ``h0`` and ``h_n`` may be the same array.
    """
    (W_ih, W_hh, b_ih, b_hh), (indices, x, lengths, reverse) = layer, batch
    rows = slice(*rows)
    here = hs[:, rows]
    with np.errstate(all="ignore"):
        if indices.size:
            np.take(W_ih.T, indices[:, rows], axis=0, out=here, mode="clip")
        else:
            np.matmul(x[:, rows], W_ih.T, out=here)
        here += b_ih + b_hh
        state = h0[rows].copy()
        for t in _order(len(hs), reverse):
            z = here[t]
            cells.forward(cell, z, state @ W_hh.T, (state,), (z,))
            ended = _ended(lengths, rows, t)
            if ended is None:
                state = z
            else:
                state = np.where(ended, state, z)
                z[ended[:, 0]] = 0
        h_n[rows] = state


def layer_backward(
    layer, packed, batch, states, upstream, wanted, grads, accumulate, rows, cell, work
):  # fmt: skip
    """Gradients of a layer by BPTT (eqs. 9 to 13).

    Reads ``states = (h0, hs)`` of `layer_forward`, and ``upstream = (dhs, dh_n)``: ``dhs (T,N,h)``, the gradient
    of the outputs, and ``dh_n (N,h)``, that of the last states, which may have no elements.  Writes ``wanted =
    (dx, dh0, dh_all)``: ``dh0 (N,h)``; ``dx (T,N,d)`` and ``dh_all (T,N,h)`` (the dh_t of all steps) unless
    they have no elements; and the sums over ``start <= n < stop`` to `grads`, or adds them there where
    `accumulate`.  An empty `grads` asks for none.  ``dh_n`` and ``dh0`` may be the same array.
    """
    (W_ih, W_hh, _, _), (indices, x, lengths, reverse) = layer, batch
    (h0, hs), (dhs, dh_n), (dx, dh0, dh_all) = states, upstream, wanted
    T, _, h = hs.shape
    start, stop = rows
    rows = slice(start, stop)
    dz = np.zeros((T, stop - start, h), hs.dtype)
    before = np.empty_like(dz)
    with np.errstate(all="ignore"):
        carry = np.zeros((stop - start, h), hs.dtype)
        if dh_n.size:
            carry += dh_n[rows]
        order = _order(T, reverse)
        for step in range(T - 1, -1, -1):
            t = order[step]
            ended = _ended(lengths, rows, t)
            state = hs[t, rows]
            dh = dhs[t, rows] + carry
            if dh_all.size:
                dh_all[t, rows] = dh if ended is None else np.where(ended, 0, dh)
            cells.backward(cell, (state,), (dh,), dz[t])
            if ended is not None:
                dz[t][ended[:, 0]] = 0
                carry = np.where(ended, carry, dz[t] @ W_hh)
            else:
                carry = dz[t] @ W_hh
            before[t] = hs[order[step - 1], rows] if step else h0[rows]
            if reverse and lengths.size:
                first = lengths[rows] == t + 1
                before[t][first] = h0[rows][first]
        dh0[rows] = carry
        flat = dz.reshape(-1, h)
        d = W_ih.shape[1]
        if dx.size and not indices.size:
            dx[:, rows] = dz @ W_ih
        if not grads:
            return
        if indices.size:
            dW_ih = np.zeros((d, h), hs.dtype)
            np.add.at(dW_ih, indices[:, rows].reshape(-1), flat)
            dW_ih = dW_ih.T
        else:
            dW_ih = flat.T @ x[:, rows].reshape(-1, d)
        db = flat.sum(axis=0)
        put(grads, (dW_ih, flat.T @ before.reshape(-1, h), db, db), accumulate)


def _order(T, reverse):
    """Time steps in the order in which a layer meets them."""
    return range(T - 1, -1, -1) if reverse else range(T)


def _ended(lengths, rows, t):
    """Which sequences have ended before step t, as a column; None where there are no lengths."""
    return (lengths[rows] <= t)[:, None] if lengths.size else None
