"""Kernels of the batched layer and of the language model's output, in plain NumPy.

For each of N sequences, with the parameters of a layer under PyTorch's names::

    z_t  = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh,  h_t = tanh(z_t) or max(z_t, 0)      (1)
    dh_t = d output_t + W_hh' dz_{t+1}                                                  (9), (12)
    dz_t = dh_t (1 - h_t^2), or dh_t where h_t > 0                                      (10)
    dW_hh = sum dz_t h_{t-1}',  dW_ih = sum dz_t x_t',  db = sum dz_t,  dx_t = W_ih' dz_t  (11), (13)

and at the output of a language model::

    y_t = W h_t + b,  L = -sum log softmax(y_t)[target_t],  dy_t = softmax(y_t) - p_t   (2), (5) to (7)
    dW = sum dy_t h_t',  db = sum dy_t,  d output_t = W' dy_t                           (8), (9)

A layer that runs in reverse meets the last time step first: its "h_{t-1}" is h_{t+1}.

Arrays are C-contiguous, of one dtype, and time-major.  ``layer = (W_ih (h,d), W_hh (h,h), b_ih (h),
b_hh (h))``, its gradients alike; ``output = (W (q,h), b (q))``, its gradients alike.  Inputs are class
indices ``indices (T,N)`` (int64, in [0,d); then ``x`` has no elements), which stand for one-hot
vectors, or vectors ``x (T,N,d)`` (then ``indices`` has none).  ``lengths (N,)`` (int64, in [1,T]) says
where sequences end that are shorter than T; without elements all are of length T.  From its end on a
sequence's output is zero and nothing flows back.

Each function works on the sequences ``start <= n < stop`` of the batch, so that threads can share a
batch; what it gives for one sequence does not depend on the others.  ``packed`` is what `pack_layer` or
`pack_output` has made of the weights, to be shared by all that work on the batch; ``work`` is scratch
space of one thread.  Sizes of both come from `layer_sizes`, `output_sizes` and `sample_size`; a larger
array does as well.
"""

import math

import numpy as np

from fastrnn.kernels import CLIP_NORM, CLIP_VALUE


def layer_sizes(T, N, rows, d, h):
    """Elements of `packed` and of `work` for a layer, N sequences, at most `rows` of them at once."""
    return 0, 0


def output_sizes(T, N, rows, h, q):
    """Elements of `packed` and of `work` for an output layer, N sequences, at most `rows` at once."""
    return 0, 0


def sample_size(N, rows, d, h, q):
    """Elements of `work` for `sample_batch`, N sequences, at most `rows` of them at once."""
    return 0


def pack_layer(layer, N, one_hot, packed):
    """Bring the weights of a layer into the order in which N sequences will read them.

    `one_hot` says that the inputs are class indices.
    """


def pack_output(output, N, packed):
    """Bring the weights of an output layer into the order in which N sequences will read them."""


def layer_forward(
    layer, packed, indices, x, lengths, h0, hs, h_n, start, stop, relu, reverse, work
):  # fmt: skip
    """States of a layer (eq. 1).

    Reads ``h0 (N,h)``; writes ``hs (T,N,h)``, zero where a sequence has ended, and ``h_n (N,h)``, the
    state after each sequence's last step.  ``h0`` and ``h_n`` may be the same array.
    """
    W_ih, W_hh, b_ih, b_hh = layer
    rows = slice(start, stop)
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
            z += state @ W_hh.T
            if relu:
                np.maximum(z, 0, out=z)
            else:
                np.tanh(z, out=z)
            ended = _ended(lengths, rows, t)
            if ended is None:
                state = z
            else:
                state = np.where(ended, state, z)
                z[ended[:, 0]] = 0
        h_n[rows] = state


def layer_backward(
    layer, packed, indices, x, lengths, h0, hs, dhs, dh_n, dx, dh0, dh_all, grads, accumulate, start, stop,
    relu, reverse, work,
):  # fmt: skip
    """Gradients of a layer by BPTT (eqs. 9 to 13).

    Reads ``dhs (T,N,h)``, the gradient of the outputs, and ``dh_n (N,h)``, that of the last states, which
    may have no elements.  Writes ``dh0 (N,h)``; ``dx (T,N,d)`` and ``dh_all (T,N,h)`` (the dh_t of all steps)
    unless they have no elements; and the sums over ``start <= n < stop`` to `grads`, or adds them there
    where `accumulate`.  An empty `grads` asks for none.  ``dh_n`` and ``dh0`` may be the same array.
    """
    W_ih, W_hh, _, _ = layer
    T, _, h = hs.shape
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
            np.multiply(dh, state > 0 if relu else 1 - state * state, out=dz[t])
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
        _put(grads, (dW_ih, flat.T @ before.reshape(-1, h), db, db), accumulate)


def _order(T, reverse):
    """Time steps in the order in which a layer meets them."""
    return range(T - 1, -1, -1) if reverse else range(T)


def _ended(lengths, rows, t):
    """Which sequences have ended before step t, as a column; None where there are no lengths."""
    return (lengths[rows] <= t)[:, None] if lengths.size else None


def _put(grads, values, accumulate):
    for gradient, value in zip(grads, values, strict=True):
        if accumulate:
            gradient += value
        else:
            gradient[...] = value


def output_logits(output, packed, hs, logits, start, stop, work):
    """Logits ``y_t = W h_t + b`` (eq. 2), written to ``logits (T,N,q)``."""
    W, b = output
    with np.errstate(all="ignore"):
        np.matmul(hs[:, start:stop], W.T, out=logits[:, start:stop])
        logits[:, start:stop] += b


def output_loss(output, packed, hs, targets, scale, dhs, grads, accumulate, start, stop, work):
    """Cross-entropy in nats, summed over steps and sequences (eqs. 2, 5, 6), and its gradients (eqs. 7 to 9).

    ``targets (T,N)`` are class indices in [0,q), or negative where nothing counts: no loss, and zeros as
    the logits' gradient.  Gradients are multiplied by `scale`: writes ``dhs (T,N,h)``, and the sums over
    ``start <= n < stop`` to `grads`, or adds them there where `accumulate`.  A `dhs` without elements asks
    for the loss alone.  Returns the loss, not scaled.
    """
    W, b = output
    h = W.shape[1]
    with np.errstate(all="ignore"):
        states = hs[:, start:stop].reshape(-1, h)
        wanted = targets[:, start:stop].reshape(-1)
        each, ignored = np.arange(len(wanted)), wanted < 0
        p = states @ W.T + b
        p -= p.max(axis=1, keepdims=True)
        chosen = p[each, wanted].astype(np.float64)
        np.exp(p, out=p)
        total = p.sum(axis=1, keepdims=True)
        logs = np.log(total[:, 0].astype(np.float64))
        chosen[ignored] = logs[ignored] = 0
        loss = float(logs.sum() - chosen.sum())
        if dhs.size:
            p /= total
            p[each, wanted] -= 1
            p *= scale
            p[ignored] = 0
            dhs[:, start:stop] = (p @ W).reshape(len(hs), stop - start, h)
            _put(grads, (p.T @ states, p.sum(axis=0)), accumulate)
    return loss


def reduce_gradients(parts, clip, threshold, out):
    """Add up ``parts (P,n)``, clip the sum by its entries or by its norm (eq. 15), and write it to ``out (n)``.

    Returns the norm before the clipping.
    """
    with np.errstate(all="ignore"):
        out[:] = parts[0]
        for part in parts[1:]:
            out += part
        norm = _norm(out)
        if clip == CLIP_VALUE:
            np.clip(out, -threshold, threshold, out=out)
        elif clip == CLIP_NORM and not norm <= threshold:
            out *= out.dtype.type(threshold / norm)
    return norm


def _norm(x):
    """Euclidean norm, also where a square is beyond the largest number."""
    squares = float(np.dot(x, x))
    if math.isfinite(squares) or not np.isfinite(x).all():
        return math.sqrt(squares)
    largest = float(np.abs(x).max())
    scaled = x / x.dtype.type(largest)
    return largest * math.sqrt(np.dot(scaled, scaled))


def sample_batch(
    layers, packed_layers, output, packed_output, states, first, uniforms, temperature, top_k, top_p, out,
    start, stop, relu, work,
):  # fmt: skip
    """Draw class indices for the sequences of a batch, each fed back as the next input.

    ``states (L,N,h)`` holds the state of every layer and is overwritten; ``first (N,)`` the first inputs;
    ``uniforms (N,n)`` (float64, in [0, 1)) are mapped through the inverse of the cumulative distribution
    of ``softmax(y / temperature)``, the most probable class where the temperature is 0; only the `top_k`
    most probable classes are drawn, and of these the fewest whose probabilities reach `top_p` in sum
    (``top_k = 0`` and ``top_p = 1`` leave all; the lower index wins a tie).  Writes ``out (N,n)``.

    Returns how many steps were drawn: fewer than n when the probabilities of the next one are not numbers.
    """
    W, b = output
    rows = slice(start, stop)
    indices = first[rows].copy()
    with np.errstate(all="ignore"):
        for i in range(out.shape[1]):
            x = None
            for (W_ih, W_hh, b_ih, b_hh), state in zip(layers, states, strict=True):
                z = W_ih.T[indices] if x is None else x @ W_ih.T
                z = z + (b_ih + b_hh) + state[rows] @ W_hh.T
                x = np.maximum(z, 0) if relu else np.tanh(z)
                state[rows] = x
            y = x @ W.T + b
            for r in range(len(y)):
                drawn = _draw(y[r], uniforms[start + r, i], temperature, top_k, top_p)
                if drawn < 0:
                    return i
                indices[r] = drawn
            out[rows, i] = indices
    return out.shape[1]


def _draw(y, u, temperature, top_k, top_p):
    """Class index drawn from the logits of one sequence, or -1 if they are not numbers."""
    if np.isnan(y).any() or y.max() == math.inf:
        return -1
    if temperature == 0:
        return int(y.argmax())
    p = np.exp((y - y.max()) / y.dtype.type(temperature))
    p = p.astype(np.float64)
    q = len(p)
    if 0 < top_k < q or top_p < 1:
        order = np.argsort(-p, kind="stable")
        kept = min(top_k, q) if top_k else q
        if top_p < 1:
            cumulative = np.cumsum(p[order[:kept]])
            kept = min(kept, int(np.searchsorted(cumulative, top_p * cumulative[-1])) + 1)
        p[order[kept:]] = 0
    cdf = np.cumsum(p)
    if not cdf[-1] > 0:
        return -1
    return min(int(np.searchsorted(cdf / cdf[-1], u, side="right")), q - 1)
