"""The cells: what a layer makes of its input and its state at one time step, and the way back.

`FORMULAS` has both for each cell, side by side, in the language of `emit`: operators on vectors that are in registers.
`_PLAIN` is the same in NumPy.  `forward` is given ``inputs = W_ih x_t + b_ih`` and ``recurrent = W_hh h_{t-1} + b_hh``
apart, as a gated cell wants them, and a tuple of states, of which it may have several.  `backward` turns the gradient
of the new states into that of ``z_t``.
"""

import numpy as np

from fastrnn.kernels import RELU, TANH
from fastrnn.kernels.numba_kernels.elementary import add, elementwise, tanh_formula
from fastrnn.kernels.numba_kernels.emit import routine
from fastrnn.kernels.numba_kernels.jit import inlined


def _rectified(z):
    """max(z, 0)."""
    return z.at_least(z.emitter.constant(0.0, z.ir.type))


def _is_positive(h):
    """1 where h > 0, else 0."""
    zero, one = (h.emitter.constant(x, h.ir.type) for x in (0.0, 1.0))
    return (zero < h).chosen(one, zero)


#: Of each cell: ``h_t`` from ``z_t`` (eq. 1), and the slope ``dh_t / dz_t`` from ``h_t`` (eqs. 4, 10).
FORMULAS = {
    TANH: (tanh_formula, lambda h: 1.0 - h * h),
    RELU: (_rectified, _is_positive),
}

_PLAIN = {
    TANH: (np.tanh, lambda h: 1 - h * h),
    RELU: (lambda z: np.maximum(z, 0), lambda h: h > 0),
}


def _plain_activate(cell, h, z):
    h[:] = _PLAIN[cell][0](z[: len(h)])


@routine("ivv", _plain_activate)
def _activate(emitter, cell, h, z):
    """``h = f(z)``.  The cell's code is compared once a call, not for every element."""
    for code, (formula, _) in FORMULAS.items():
        with emitter.when(cell.equals(code)):
            elementwise(emitter, h, [z], formula)


@inlined
def forward(cell, inputs, recurrent, before, after):
    """One time step: ``h_t = f(z_t)`` of ``z_t = inputs + recurrent`` (eq. 1), for one row or for rows that follow
    each other.

    `inputs` and `recurrent` are what comes from the input and from the state, with their biases.  `recurrent` is
    without elements where the product was added to the inputs already, as the layers do for cells that only add the
    two: it saves a pass over them.  `before` and `after` are tuples of states, h_{t-1} and where to write h_t:
    `inputs` may be there, and so may `before`.  All are of shape (h) or (rows, h), or are padded.
    """
    (h,) = after
    if recurrent.size:
        add(h, inputs, recurrent)
        _activate(cell, h, h)
    else:
        _activate(cell, h, inputs)


def _plain_times_slope(cell, dz, dh, h):
    dz[:] = dh[: len(dz)] * _PLAIN[cell][1](h[: len(dz)])


@routine("ivvv", _plain_times_slope)
def _times_slope(emitter, cell, dz, dh, h):
    """``dz = dh f'(z)``, with f' from ``h = f(z)``."""
    for code, (_, slope) in FORMULAS.items():
        with emitter.when(cell.equals(code)):
            elementwise(emitter, dz, [dh, h], lambda dh, h, slope=slope: dh * slope(h))


@inlined
def backward(cell, after, d_after, dz):
    """``dz_t = dh_t slope(h_t)`` (eq. 10), which for tanh is ``dh_t (1 - h_t^2)``.

    `after` and `d_after` are tuples of states h_t and their gradients dh_t; `dz` may be where these are.
    """
    (h,), (dh,) = after, d_after
    _times_slope(cell, dz, dh, h)


def _plain_backward_rows(cell, dz, h, sums):
    n = h.shape[1]
    dz[:, :n] *= _PLAIN[cell][1](h)
    for row in dz:
        sums[:n] += row[:n]


@routine("immv", _plain_backward_rows)
def backward_rows(emitter, cell, dz, h, sums):
    """``dz (rows, >= h) *= slope(h)`` (eq. 10): `backward` for the states ``h (rows, h)`` of a batch, where `dz` holds
    dh.  And ``sums (h) += dz``, row by row, while they are in registers."""
    for code, (_, slope) in FORMULAS.items():
        with emitter.when(cell.equals(code)), emitter.loop(0, h.rows) as r:
            row, state = dz.row(r), h.row(r)

            def part(j, lanes, row=row, state=state, slope=slope):
                value = (row + j).load(lanes) * slope((state + j).load(lanes))
                (row + j).store(value)
                (sums + j).store((sums + j).load(lanes) + value)

            with emitter.loop(0, h.cols & -emitter.lanes, emitter.lanes) as j:
                part(j, emitter.lanes)
            for lanes, j, present in emitter.tail(h.cols):
                with emitter.when(present):
                    part(j, lanes)
