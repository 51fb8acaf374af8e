"""One layer over a batch of sequences, in plain NumPy.

For each of N sequences, with the parameters of a layer under PyTorch's names::

    z_t  = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh,  h_t = tanh(z_t) or max(z_t, 0)      (1)
    dh_t = d output_t + W_hh' dz_{t+1}                                                  (9), (12)
    dz_t = dh_t (1 - h_t^2), or dh_t where h_t > 0                                      (10)
    dW_hh = sum dz_t h_{t-1}',  dW_ih = sum dz_t x_t',  db = sum dz_t,  dx_t = W_ih' dz_t  (11), (13)

A layer that runs in reverse meets the last time step first: its "h_{t-1}" is h_{t+1}.  A cell with gates makes of the
two parts of z_t what stands in `cells`, and may have another state, c_t, beside h_t.

Arrays are C-contiguous, of one dtype, and time-major.  G and S are the numbers of gates and states of the cell.
``layer = (W_ih (Gh,d), W_hh (Gh,h), b_ih (Gh), b_hh (Gh))``, its gradients alike, a block of h rows for each gate.
``h0``, ``h_n`` and their gradients ``dh0``, ``dh_n`` are tuples of S arrays ``(N,h)``.
``batch = (indices, x, lengths, reverse)``: inputs are class indices
``indices (T,N)`` (int64, in [0,d); then ``x`` has no elements), which stand for one-hot vectors, or vectors
``x (T,N,d)`` (then ``indices`` has none).  ``lengths (N,)`` (int64, in [1,T]) says where sequences end that are
shorter than T; without elements all are of length T.  From its end on a sequence's output is zero and nothing
flows back.  ``kept (T,N,KEPT[cell],h)`` is what a gated cell keeps of each step for backward; it has no elements where
there is nothing to keep, or no backward to come.  Beyond a sequence's end it holds anything.

Each function works on the sequences ``start <= n < stop`` of the batch, ``rows = (start, stop)``, so that
threads can share a batch; what it gives for one sequence does not depend on the others.  ``packed`` is what
`pack_layer` has made of the weights, to be shared by all that work on the batch, or has no elements: for a few
steps the weights are used as they are.  ``work`` is scratch space of one thread.  Sizes of both come from
`layer_sizes`; a larger array does as well.
"""

import numpy as np

from fastrnn.kernels import GATES, GRU, LSTM, PACK_BOTH
from fastrnn.kernels.numpy_kernels import cells
from fastrnn.kernels.numpy_kernels.gradients import put


def copy_steps(source, out, threads=1):
    """Copy an array (T, N, n) to another of its shape."""
    out[...] = source


def layer_sizes(T, N, rows, d, h, cell):
    """Elements of `packed` and of `work` for a layer, N sequences, at most `rows` of them at once."""
    return 0, 0


def pack_layer(layer, N, one_hot, cell, packed, passes=PACK_BOTH, threads=1):
    """Bring the weights of a layer into the order in which N sequences will read them.

    `one_hot` says that the inputs are class indices.  `passes` says what the weights are packed for: PACK_FORWARD,
    PACK_BACKWARD for what backward wants beside that, or PACK_BOTH.
    """


def layer_forward(layer, packed, batch, h0, hs, kept, h_n, rows, cell, work, threads=1):
    """States of a layer (eq. 1).

    Reads `h0`; writes ``hs (T,N,h)``, zero where a sequence has ended, `kept`, and `h_n`, the
    states after each sequence's last step.  An array of `h0` and that of `h_n` may be the same.
    """
    (W_ih, W_hh, b_ih, b_hh), (indices, x, lengths, reverse) = layer, batch
    rows = slice(*rows)
    with np.errstate(all="ignore"):
        inputs, rest = cells.biases(cell, b_ih, b_hh)
        if GATES[cell] == 1:
            z = hs[:, rows]
        else:
            z = np.empty((len(hs), rows.stop - rows.start, len(W_ih)), hs.dtype)
        if indices.size:
            np.take(W_ih.T, indices[:, rows], axis=0, out=z, mode="clip")
        else:
            np.matmul(x[:, rows], W_ih.T, out=z)
        z += inputs
        before = tuple(state[rows].copy() for state in h0)
        for t in _order(len(hs), reverse):
            recurrent = before[0] @ W_hh.T
            if rest is not None:
                recurrent += rest
            after = hs[t, rows], *(np.empty_like(state) for state in before[1:])
            cells.forward(cell, z[t], recurrent, before, after, kept[t, rows] if kept.size else None)
            ended = _ended(lengths, rows, t)
            if ended is not None:
                after = tuple(np.where(ended, *states) for states in zip(before, after, strict=True))
                hs[t, rows][ended[:, 0]] = 0
            before = after
        for state, last in zip(before, h_n, strict=True):
            last[rows] = state


def layer_backward(
    layer, packed, batch, states, upstream, wanted, grads, accumulate, rows, cell, work,
    threads=1,
):  # fmt: skip
    """Gradients of a layer by BPTT (eqs. 9 to 13).

    Reads ``states = (h0, hs, kept)`` of `layer_forward`, and ``upstream = (dhs, dh_n)``: ``dhs (T,N,h)``, the gradient
    of the outputs, and that of the last states, whose arrays may have no elements, for zeros.  Writes ``wanted =
    (dx, dh0, d_states)``: ``dx (T,N,d)`` and the tuple `d_states` of S arrays ``(T,N,h)`` (the dh_t of all steps, and
    dc_t as far as it does not come by h_t) unless these have no elements; and the sums over ``start <= n < stop`` to
    `grads`, or adds them there where `accumulate`.  An empty `grads` asks for none.  An array of ``dh_n`` and that of
    ``dh0`` may be the same.
    """
    (W_ih, W_hh, _, _), (indices, x, lengths, reverse) = layer, batch
    (h0, hs, kept), (dhs, dh_n), (dx, dh0, d_states) = states, upstream, wanted
    T, _, h = hs.shape
    start, stop = rows
    rows = slice(start, stop)
    d_inputs = np.zeros((T, stop - start, len(W_ih)), hs.dtype)
    d_recurrent = np.zeros_like(d_inputs) if cell == GRU else d_inputs  # of the others they are the same
    h_before = np.empty((T, stop - start, h), hs.dtype)
    with np.errstate(all="ignore"):
        carry = [last[rows].copy() if last.size else np.zeros((stop - start, h), hs.dtype) for last in dh_n]
        order = _order(T, reverse)
        for step in range(T - 1, -1, -1):
            t = order[step]
            ended = _ended(lengths, rows, t)
            all_states = [hs, kept[:, :, 4]] if cell == LSTM else [hs]
            before = [
                (state[order[step - 1], rows] if step else first[rows]).copy()
                for state, first in zip(all_states, h0, strict=True)
            ]
            if reverse and lengths.size:
                first = lengths[rows] == t + 1
                for state, initial in zip(before, h0, strict=True):
                    state[first] = initial[rows][first]
            h_before[t] = before[0]
            d_after = dhs[t, rows] + carry[0], *carry[1:]
            for d_state, d_all in zip(d_after, d_states, strict=True):
                if d_all.size:
                    d_all[t, rows] = d_state if ended is None else np.where(ended, 0, d_state)
            kept_here = kept[t, rows] if kept.size else None
            direct = cells.backward(
                cell, before, hs[t, rows], kept_here, d_after, d_inputs[t], d_recurrent[t]
            )
            if ended is not None:
                d_inputs[t][ended[:, 0]] = 0
                d_recurrent[t][ended[:, 0]] = 0
            by_product = d_recurrent[t] @ W_hh
            d_before = by_product if direct[0] is None else by_product + direct[0], *direct[1:]
            carry = [
                d_state if ended is None else np.where(ended, old, d_state)
                for old, d_state in zip(carry, d_before, strict=True)
            ]
        for first, d_state in zip(dh0, carry, strict=True):
            first[rows] = d_state
        d = W_ih.shape[1]
        if dx.size and not indices.size:
            dx[:, rows] = d_inputs @ W_ih
        if not grads:
            return
        flat, flat_recurrent = (a.reshape(-1, len(W_ih)) for a in (d_inputs, d_recurrent))
        if indices.size:
            dW_ih = np.zeros((d, len(W_ih)), hs.dtype)
            np.add.at(dW_ih, indices[:, rows].reshape(-1), flat)
            dW_ih = dW_ih.T
        else:
            dW_ih = flat.T @ x[:, rows].reshape(-1, d)
        dW_hh = flat_recurrent.T @ h_before.reshape(-1, h)
        put(grads, (dW_ih, dW_hh, flat.sum(axis=0), flat_recurrent.sum(axis=0)), accumulate)


def _order(T, reverse):
    """Time steps in the order in which a layer meets them."""
    return range(T - 1, -1, -1) if reverse else range(T)


def _ended(lengths, rows, t):
    """Which sequences have ended before step t, as a column; None where there are no lengths."""
    return (lengths[rows] <= t)[:, None] if lengths.size else None
