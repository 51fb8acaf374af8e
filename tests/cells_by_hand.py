"""The cells from their equations, in float64, and their derivatives by complex steps: what kernels are held to."""

import numpy as np

from fastrnn.kernels import GATES, GRU, LSTM, RELU, STATES

#: Of a complex step: so small that its square is nothing.
STEP = 1e-30


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step(cell, inputs, recurrent, before):
    """The states after a step, of ``inputs = W_ih x + b_ih``, ``recurrent = W_hh h + b_hh`` (G h) and those before."""
    if cell == GRU:
        (i_r, i_z, i_n), (h_r, h_z, h_n) = np.split(inputs, 3), np.split(recurrent, 3)
        r, z = sigmoid(i_r + h_r), sigmoid(i_z + h_z)
        return ((1 - z) * np.tanh(i_n + r * h_n) + z * before[0],)
    if cell == LSTM:
        i, f, g, o = np.split(inputs + recurrent, 4)
        c = sigmoid(f) * before[1] + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    z = inputs + recurrent
    return (np.where(z.real > 0, z, 0) if cell == RELU else np.tanh(z),)


def back(cell, inputs, recurrent, before, d_after):
    """Gradients of inputs, recurrent and `before` (but for the way through recurrent) from those of the states after.

    A unit's states depend on its own numbers alone, so a complex step in all units at once gives the derivatives of each.
    """

    def gradient(which, block, width):
        arrays = [inputs, recurrent, *before]
        moved = arrays[which].astype(complex)
        moved[block * width : (block + 1) * width] += 1j * STEP
        arrays[which] = moved
        after = step(cell, arrays[0], arrays[1], arrays[2:])
        return sum(d * state.imag for d, state in zip(d_after, after, strict=True)) / STEP

    h = len(before[0])
    d_inputs, d_recurrent = (
        np.concatenate([gradient(which, gate, h) for gate in range(GATES[cell])]) for which in (0, 1)
    )
    return d_inputs, d_recurrent, tuple(gradient(2 + state, 0, h) for state in range(STATES[cell]))
