"""The output layer of a language model in batches: logits, loss and gradients, in plain NumPy::

    y_t = W h_t + b,  L = -sum log softmax(y_t)[target_t],  dy_t = softmax(y_t) - p_t   (2), (5) to (7)
    dW = sum dy_t h_t',  db = sum dy_t,  d output_t = W' dy_t                           (8), (9)

``output = (W (q,h), b (q))``, its gradients alike; for the other arrays see `layer`.
"""

import numpy as np

from fastrnn.kernels.numpy_kernels.gradients import put


def output_sizes(T, N, rows, h, q):
    """Elements of `packed` and of `work` for an output layer, N sequences, at most `rows` at once."""
    return 0, 0


def pack_output(output, N, packed, threads=1):
    """Bring the weights of an output layer into the order in which N sequences will read them."""


def output_logits(output, packed, hs, logits, rows, work, threads=1):
    """Logits ``y_t = W h_t + b`` (eq. 2), written to ``logits (T,N,q)``."""
    W, b = output
    rows = slice(*rows)
    with np.errstate(all="ignore"):
        np.matmul(hs[:, rows], W.T, out=logits[:, rows])
        logits[:, rows] += b


def output_loss(output, packed, hs, targets, scale, dhs, grads, accumulate, rows, work, threads=1):
    """Cross-entropy in nats, summed over steps and sequences (eqs. 2, 5, 6), and its gradients (eqs. 7 to 9).

    ``targets (T,N)`` are class indices in [0,q), or negative where nothing counts: no loss, and zeros as
    the logits' gradient.  Gradients are multiplied by `scale`: writes ``dhs (T,N,h)``, and the sums over
    ``start <= n < stop`` to `grads`, or adds them there where `accumulate`.  A `dhs` without elements asks
    for the loss alone.  Returns the loss, not scaled.
    """
    W, b = output
    h = W.shape[1]
    start, stop = rows
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
            put(grads, (p.T @ states, p.sum(axis=0)), accumulate)
    return loss
