"""The cells: what a layer makes of its input and its state at one time step, and the way back.

`FORMULAS` has both for each cell with one gate, side by side, in the language of `emit`: operators on vectors that are
in registers.  `_PLAIN` is the same in NumPy.  `GATED` and `gates_forward`, `gates_backward` are those of GRU and LSTM, a
row at a time.  `forward` is given ``inputs = W_ih x_t + b_ih`` and ``recurrent = W_hh h_{t-1} + b_hh``
apart, as a gated cell wants them, and a tuple of states, of which it may have several.  `backward` turns the gradient
of the new states into that of ``z_t``.
"""

import numpy as np

from fastrnn.kernels import GRU, KEPT, LSTM, RELU, TANH
from fastrnn.kernels.numba_kernels.elementary import (
    add,
    elementwise,
    plain_sigmoid,
    sigmoid_formula,
    tanh_formula,
)
from fastrnn.kernels.numba_kernels.emit import Value, routine
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


# ---- cells with gates -------------------------------------------------------------------------------
#
# A row z_t has four blocks of h elements, one for each sum, and so has its gradient dz_t.  The input's part of them
# comes first, the state's last, and where they overlap, the sums are added up:
#
#     LSTM   i f g o    both in all four
#     GRU    n r u m    the input's n, r, u; the state's r, u, m:  n is tanh(n + r m)   (u: update, often called z)

BLOCKS = 4


def _gru_forward(z, before):
    """h_t, and what is kept."""
    n, r, u, m = z
    r, u = sigmoid_formula(r), sigmoid_formula(u)
    n = tanh_formula(n + r * m)
    return (1.0 - u) * n + u * before, (r, u, n, m)


def _gru_backward(kept, before, dh, carry):
    """dz_t, and what of dh_t goes to dh_{t-1} beside the products."""
    r, u, n, m = kept
    dn = dh * (1.0 - u) * (1.0 - n * n)
    return (dn, dn * m * (r * (1.0 - r)), dh * (before - n) * (u * (1.0 - u)), dn * r), dh * u


def _lstm_forward(z, before):
    i, f, g, o = z
    i, f, g, o = sigmoid_formula(i), sigmoid_formula(f), tanh_formula(g), sigmoid_formula(o)
    c = f * before + i * g
    return o * tanh_formula(c), (i, f, g, o, c)


def _lstm_backward(kept, before, dh, carry):
    """dz_t, and dc_{t-1}; `carry` is dc_t as the steps behind have it."""
    i, f, g, o, c = kept
    t = tanh_formula(c)
    dc = carry + dh * o * (1.0 - t * t)
    return (
        (
            dc * g * (i * (1.0 - i)),
            dc * before * (f * (1.0 - f)),
            dc * i * (1.0 - g * g),
            dh * t * (o * (1.0 - o)),
        ),
        dc * f,
    )


#: Of each cell with gates: forward from z_t and h_{t-1} (of an LSTM c_{t-1}), and backward from what was kept.
GATED = {GRU: (_gru_forward, _gru_backward), LSTM: (_lstm_forward, _lstm_backward)}


def _plain_gates_forward(cell, h, z, before, c, kept):
    size = len(h)
    blocks = [z[b * size : (b + 1) * size] for b in range(BLOCKS)]
    if cell == LSTM:
        i, f, g, o = (np.tanh(x) if b == 2 else plain_sigmoid(x) for b, x in enumerate(blocks))
        c[:size] = f * before[:size] + i * g
        h[:] = o * np.tanh(c[:size])
        keep = i, f, g, o, c[:size]
    else:
        n, r, u, m = blocks
        r, u = plain_sigmoid(r), plain_sigmoid(u)
        n = np.tanh(n + r * m)
        h[:] = (1 - u) * n + u * before[:size]
        keep = r, u, n, m
    if len(kept):
        kept[:] = np.concatenate(keep)


@routine("ivvvvv", _plain_gates_forward)
def gates_forward(emitter, cell, h, z, before, c, kept):
    """``h (h)`` of one sequence from its row `z`.

    `before` is h_{t-1} of a GRU and c_{t-1} of an LSTM, which writes c_t to `c`; any of these may be in the place of
    another.  ``kept (KEPT[cell] * h)`` is what backward will want, or has no elements.
    """
    for code, (forward_formula, _) in GATED.items():
        with emitter.when(cell.equals(code)):

            def part(j, lanes, code=code, formula=forward_formula):
                z_j = [(z + (h.n * b + j)).load(lanes) for b in range(BLOCKS)]
                value, keep = formula(z_j, (before + j).load(lanes))
                (h + j).store(value)
                if code == LSTM:
                    (c + j).store(keep[4])
                with emitter.when(kept.n >= emitter.index(1)):
                    for b, number in enumerate(keep):
                        (kept + (h.n * b + j)).store(number)

            _parts(emitter, h.n, part)


def _plain_gates_backward(cell, dz, kept, before, dh, carry):
    size = len(kept) // KEPT[int(cell)]
    keep = [kept[b * size : (b + 1) * size] for b in range(KEPT[int(cell)])]
    before, dh, old = before[:size], dh[:size], carry[:size].copy()
    if cell == LSTM:
        i, f, g, o, c = keep
        t = np.tanh(c)
        dc = old + dh * o * (1 - t * t)
        blocks = dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g), dh * t * o * (1 - o)
        carry[:size] = dc * f
    else:
        r, u, n, m = keep
        dn = dh * (1 - u) * (1 - n * n)
        blocks = dn, dn * m * r * (1 - r), dh * (before - n) * u * (1 - u), dn * r
        carry[:size] = dh * u
    dz[: BLOCKS * size] = np.concatenate(blocks)


@routine("ivvvvv", _plain_gates_backward)
def gates_backward(emitter, cell, dz, kept, before, dh, carry):
    """The row `dz` of one sequence from ``dh (>= h)``, ``kept (KEPT[cell] * h)`` and `before`, as `gates_forward` has
    them.

    `carry` is what goes from step to step beside the products: on the way in, of an LSTM, dc_t as the steps behind have
    it; on the way out its dc_{t-1}, or a GRU's part of dh_{t-1}.
    """
    for code, (_, backward_formula) in GATED.items():
        with emitter.when(cell.equals(code)):
            size = Value(emitter, emitter.builder.sdiv(kept.n.ir, emitter.index(KEPT[code]).ir))

            def part(j, lanes, code=code, size=size, formula=backward_formula):
                keep = [(kept + (size * b + j)).load(lanes) for b in range(KEPT[code])]
                state, gradient = (before + j).load(lanes), (dh + j).load(lanes)
                blocks, rest = formula(keep, state, gradient, (carry + j).load(lanes))
                (carry + j).store(rest)
                for b, number in enumerate(blocks):
                    (dz + (size * b + j)).store(number)

            _parts(emitter, size, part)


def _parts(emitter, n, part):
    """``part(j, lanes)`` for every vector of n elements, the last ones in parts of a vector."""
    with emitter.loop(0, n & -emitter.lanes, emitter.lanes) as j:
        part(j, emitter.lanes)
    for lanes, j, present in emitter.tail(n):
        with emitter.when(present):
            part(j, lanes)
