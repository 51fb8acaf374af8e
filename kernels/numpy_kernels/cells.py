"""The cells: what a layer makes of its input and its state at one time step, and the way back.

``forward`` is given what comes from the input and from the state apart, ``inputs = W_ih x_t + b_ih`` and ``recurrent =
W_hh h_{t-1} + b_hh``, and a tuple of states; the biases may be split in another way, see `biases`.  Under it,
``backward`` turns the gradient of the new states into those of ``inputs`` and ``recurrent``.  Of a gated cell each of
these has blocks of h columns, one for each gate.

TANH and RELU (eq. 1)::

    h_t = tanh(z_t) or max(z_t, 0),  z_t = inputs + recurrent

GRU, the gated recurrent unit (Cho et al., 2014; as in PyTorch, r is behind the product), blocks r, z, n::

    r = sigmoid(inputs_r + recurrent_r),  z = sigmoid(inputs_z + recurrent_z)
    n = tanh(inputs_n + r * recurrent_n)
    h_t = (1 - z) n + z h_{t-1}

LSTM, long short-term memory (Hochreiter and Schmidhuber, 1997; Gers et al., 2000), blocks i, f, g, o::

    i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o),  g = tanh(z_g),  z = inputs + recurrent
    c_t = f c_{t-1} + i g,  h_t = o tanh(c_t)

What forward keeps for backward is ``(..., KEPT[cell], h)``: r, z, n and recurrent_n of a GRU; i, f, g, o and c_t of an
LSTM; nothing of the others, whose slope follows from h_t.
"""

import numpy as np

from fastrnn.kernels import GATES, GRU, LSTM, TANH


def biases(cell, b_ih, b_hh):
    """What is added to all inputs at once, and what is left for each recurrent part, or None.

    One sum will do, but for n of a GRU, whose gate r is between the two.
    """
    if cell != GRU:
        return b_ih + b_hh, None
    h = len(b_ih) // 3
    both, rest = b_ih.copy(), b_hh.copy()
    both[: 2 * h] += b_hh[: 2 * h]
    rest[: 2 * h] = 0
    return both, rest


def forward(cell, inputs, recurrent, before, after, kept=None):
    """One time step: see the equations above.

    Parameters
    ----------
    cell : int
        Its code.
    inputs, recurrent : ndarray, shape (..., GATES[cell] * h)
        What comes from the input and from the state, with their biases.
    before, after : tuple of ndarray, shape (..., h)
        States of step t-1, and where to write those of t: ``before`` may be there, and ``inputs`` where there is one
        gate.
    kept : ndarray, shape (..., KEPT[cell], h), or None
        Where to write what backward will want.
    """
    if cell == GRU:
        (h_before,), (h,) = before, after
        size = h.shape[-1]
        both = sigmoid(inputs[..., : 2 * size] + recurrent[..., : 2 * size])
        r, z = both[..., :size], both[..., size:]
        recurrent_n = recurrent[..., 2 * size :]
        n = np.tanh(inputs[..., 2 * size :] + r * recurrent_n)
        h[...] = (1 - z) * n + z * h_before
        if kept is not None:
            np.stack((r, z, n, recurrent_n), axis=-2, out=kept)
    elif cell == LSTM:
        (_, c_before), (h, c) = before, after
        size = h.shape[-1]
        total = inputs + recurrent
        both, g, o = sigmoid(total[..., : 2 * size]), total[..., 2 * size : 3 * size], total[..., 3 * size :]
        i, f, g, o = both[..., :size], both[..., size:], np.tanh(g), sigmoid(o)
        c[...] = f * c_before + i * g
        np.multiply(o, np.tanh(c), out=h)
        if kept is not None:
            np.stack((i, f, g, o, c), axis=-2, out=kept)
    else:
        (h,) = after
        np.add(inputs, recurrent, out=h)
        if cell == TANH:
            np.tanh(h, out=h)
        else:
            np.maximum(h, 0, out=h)


def backward(cell, before, h, kept, d_after, d_inputs, d_recurrent):
    """Gradients of `forward`.

    Of one gate they are ``dz_t = dh_t (1 - h_t^2)``, or ``dh_t`` where ``h_t > 0`` (eq. 10).

    Parameters
    ----------
    cell : int
    before : tuple of ndarray, shape (..., h)
        States of step t-1.
    h : ndarray, shape (..., h)
        h_t.
    kept : ndarray, shape (..., KEPT[cell], h)
        As `forward` has written it.
    d_after : tuple of ndarray, shape (..., h)
        Gradients of the states of step t.
    d_inputs, d_recurrent : ndarray, shape (..., GATES[cell] * h)
        Where to write those of ``inputs`` and ``recurrent``; one array, but for a GRU.

    Returns
    -------
    tuple of ndarray or None
        Gradients of the states of step t-1, as far as they do not come by ``recurrent``.
    """
    if cell == GRU:
        (h_before,), (dh,) = before, d_after
        r, z, n, recurrent_n = np.moveaxis(kept, -2, 0)
        dr, dz, dn = _blocks(cell, d_inputs)
        np.multiply(dh * (1 - z), 1 - n * n, out=dn)
        np.multiply(dh * (h_before - n), z * (1 - z), out=dz)
        np.multiply(dn * recurrent_n, r * (1 - r), out=dr)
        d_recurrent[...] = d_inputs
        _blocks(cell, d_recurrent)[2][...] *= r
        return (dh * z,)
    if cell == LSTM:
        (_, c_before), (dh, dc) = before, d_after
        i, f, g, o, c = np.moveaxis(kept, -2, 0)
        tanh_c = np.tanh(c)
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        di, df, dg, do = _blocks(cell, d_inputs)
        np.multiply(dc * g, i * (1 - i), out=di)
        np.multiply(dc * c_before, f * (1 - f), out=df)
        np.multiply(dc * i, 1 - g * g, out=dg)
        np.multiply(dh * tanh_c, o * (1 - o), out=do)
        return None, dc * f
    (dh,) = d_after
    np.multiply(dh, 1 - h * h if cell == TANH else h > 0, out=d_inputs)
    return (None,)


def sigmoid(x):
    """``1 / (1 + exp(-x))``, of ``exp(-|x|)``, which cannot be too large.

    In float64: NumPy's float32 exponential alone is off by more than 2 units in the last place.
    """
    e = np.exp(-np.abs(x), dtype=np.float64)
    top = np.where(x < 0, e, 1)
    e += 1
    top /= e
    return top.astype(x.dtype, copy=False)


def _blocks(cell, array):
    """Views of the columns of each gate."""
    size = array.shape[-1] // GATES[cell]
    return [array[..., gate * size : (gate + 1) * size] for gate in range(GATES[cell])]
