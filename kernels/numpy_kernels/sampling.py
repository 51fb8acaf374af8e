"""Sampling in batches: each class index drawn is the next input.  See `layer` for the arrays."""

import math

import numpy as np

from fastrnn.kernels.numpy_kernels import cells


def sample_size(N, rows, d, h, q, cell):
    """Elements of `work` for `sample_batch`, N sequences, at most `rows` of them at once."""
    return 0


def sample_batch(stack, output, states, draws, choice, out, rows, cell, work, threads=1):
    """Draw class indices for the sequences of a batch, each fed back as the next input.

    ``stack = (layers, packed)`` has the weights of every layer and what `pack_layer` made of them, ``output`` those
    of the output layer and what `pack_output` made of them.  ``states``, a tuple of STATES[cell] arrays ``(L,N,h)``,
    holds the states of every layer and is overwritten.  ``draws = (first, uniforms)``: ``first (N,)`` are the first inputs, and ``uniforms (N,n)``
    (float64, in [0, 1)) are mapped through the inverse of the cumulative distribution
    of ``softmax(y / temperature)``, the most probable class where the temperature is 0.  ``choice =
    (temperature, top_k, top_p)``: only the `top_k`
    most probable classes are drawn, and of these the fewest whose probabilities reach `top_p` in sum
    (``top_k = 0`` and ``top_p = 1`` leave all; the lower index wins a tie).  Writes ``out (N,n)``.

    Returns how many steps were drawn: fewer than n when the probabilities of the next one are not numbers.
    """
    (layers, _), ((W, b), _) = stack, output
    (first, uniforms), (start, stop) = draws, rows
    rows = slice(start, stop)
    indices = first[rows].copy()
    with np.errstate(all="ignore"):
        for i in range(out.shape[1]):
            x = None
            for (W_ih, W_hh, b_ih, b_hh), *layer_states in zip(layers, *states, strict=True):
                bias, rest = cells.biases(cell, b_ih, b_hh)
                z = (W_ih.T[indices] if x is None else x @ W_ih.T) + bias
                state = tuple(array[rows] for array in layer_states)
                x = state[0]
                recurrent = x @ W_hh.T
                if rest is not None:
                    recurrent += rest
                cells.forward(cell, z, recurrent, state, state)
            y = x @ W.T + b
            for r in range(len(y)):
                drawn = _draw(y[r], uniforms[start + r, i], choice)
                if drawn < 0:
                    return i
                indices[r] = drawn
            out[rows, i] = indices
    return out.shape[1]


def _draw(y, u, choice):
    """Class index drawn from the logits of one sequence, or -1 if they are not numbers."""
    temperature, top_k, top_p = choice
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
