"""The cells: what a layer makes of its input and its state at one time step, and the way back.

``forward`` is given ``inputs = W_ih x_t + b_ih`` and ``recurrent = W_hh h_{t-1} + b_hh`` apart, as a gated cell
wants them, and a tuple of states, of which a gated cell may have several.  Under it, ``backward`` turns the
gradient of the new states into that of ``z_t``.
"""

import numpy as np

from fastrnn.kernels import TANH


def forward(cell, inputs, recurrent, before, after):
    """One time step: ``h_t = tanh(z_t)`` or ``max(z_t, 0)``, of ``z_t = inputs + recurrent`` (eq. 1).

    Parameters
    ----------
    cell : int
        ``TANH`` or ``RELU``.
    inputs, recurrent : ndarray, shape (..., h)
        What comes from the input and from the state, with their biases.
    before, after : tuple of ndarray, shape (..., h)
        States h_{t-1}, and where to write h_t: ``inputs`` may be there, and so may ``before``.
    """
    (h,) = after
    np.add(inputs, recurrent, out=h)
    if cell == TANH:
        np.tanh(h, out=h)
    else:
        np.maximum(h, 0, out=h)


def backward(cell, after, d_after, dz):
    """``dz_t = dh_t (1 - h_t^2)``, or ``dh_t`` where ``h_t > 0`` (eq. 10).

    Parameters
    ----------
    cell : int
    after, d_after : tuple of ndarray, shape (..., h)
        The states h_t and their gradient.
    dz : ndarray, shape (..., h)
        Where to write the gradient of ``z_t``; ``d_after`` may be there.
    """
    (h,), (dh,) = after, d_after
    np.multiply(dh, 1 - h * h if cell == TANH else h > 0, out=dz)
