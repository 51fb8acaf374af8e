"""The cells: what a layer makes of its input and its state at one time step, and the way back.

`FORMULAS` has both for each cell, side by side.  `forward` is given ``inputs = W_ih x_t + b_ih`` and ``recurrent =
W_hh h_{t-1} + b_hh`` apart, as a gated cell wants them, and a tuple of states, of which it may have several.
`backward` turns the gradient of the new states into that of ``z_t``.
"""

import numpy as np

from fastrnn.kernels import RELU, TANH
from fastrnn.kernels.numba_kernels.elementary import add, elementwise, tangent
from fastrnn.kernels.numba_kernels.emit import routine
from fastrnn.kernels.numba_kernels.jit import inlined


def _rectified(z):
    return z.at_least(z.emitter.constant(0.0, z.ir.type))


def _step(h):
    zero, one = (h.emitter.constant(x, h.ir.type) for x in (0.0, 1.0))
    return (zero < h).chosen(one, zero)


#: Of each cell: ``h_t`` from ``z_t`` (eq. 1), and the slope ``dh_t / dz_t`` from ``h_t`` (eqs. 4, 10).
FORMULAS = {
    TANH: (tangent, lambda h: 1.0 - h * h),
    RELU: (_rectified, _step),
}

_PLAIN = {
    TANH: (np.tanh, lambda h: 1 - h * h),
    RELU: (lambda z: np.maximum(z, 0), lambda h: h > 0),
}


def _plain_activate(cell, h, z):
    h[:] = _PLAIN[cell][0](z[: len(h)])


@routine("ivv", _plain_activate)
def _activate(emitter, cell, h, z):
    for code, (formula, _) in FORMULAS.items():
        with emitter.when(cell.equals(code)):
            elementwise(emitter, h, [z], formula)


@inlined
def forward(cell, inputs, recurrent, before, after):
    """One time step: ``h_t`` of ``z_t = inputs + recurrent`` (eq. 1).

    `before` and `after` are tuples of states.  `recurrent` is without elements where the product was added to
    the inputs already, as the layers do for cells that only add the two: it saves a pass over them.
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
    for code, (_, slope) in FORMULAS.items():
        with emitter.when(cell.equals(code)):
            elementwise(emitter, dz, [dh, h], lambda dh, h, slope=slope: dh * slope(h))


@inlined
def backward(cell, after, d_after, dz):
    """``dz_t = dh_t slope(h_t)`` (eq. 10); `dz` may be where the gradient of the states is."""
    (h,), (dh,) = after, d_after
    _times_slope(cell, dz, dh, h)


def _plain_backward_rows(cell, dz, h, sums):
    n = h.shape[1]
    dz[:, :n] *= _PLAIN[cell][1](h)
    for row in dz:
        sums[:n] += row[:n]


@routine("immv", _plain_backward_rows)
def backward_rows(emitter, cell, dz, h, sums):
    """`backward` for the rows of a batch, in place; and adds them up, while they are in registers."""
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
