"""Inner loops of the batched Numba kernels that those of `tiles` do not have: see there for the rules."""

import numpy as np

from fastrnn.kernels.tiles import GEMM_ROWS, GEMM_VECTORS, _elementwise, _exponential, _in_place
from fastrnn.kernels.vectors import VECTOR_BYTES, routine

# ---- panels ---------------------------------------------------------------------------------------


def _plain_pack_rows(src, stride, k, n, out, panel_stride):
    width = GEMM_VECTORS * VECTOR_BYTES // out.itemsize
    for p, j in enumerate(range(0, n, width)):
        cols = min(width, n - j)
        panel = out[p * panel_stride : p * panel_stride + k * width].reshape(k, width)
        panel[:, cols:] = 0
        for i in range(k):
            panel[i, :cols] = src[i * stride + j : i * stride + j + cols]


@routine("aiiiai", _plain_pack_rows)
def pack_rows(emitter, src, stride, k, n, out, panel_stride):
    """Panels for `gemm` from k rows of n elements: row i at ``src + i * stride``, panel p at
    ``out + p * panel_stride``."""
    lanes, width = emitter.lanes, GEMM_VECTORS * emitter.lanes
    offset = emitter.variable(emitter.index(0))
    with emitter.loop(0, n, width) as j:
        panel, cols = out + offset.get(), n - j
        narrow = cols < width
        with emitter.when(cols >= emitter.index(width)), emitter.loop(0, k) as i:
            row = src + (i * stride + j)
            for v in range(GEMM_VECTORS):
                (panel + i * width + v * lanes).store((row + v * lanes).load())
        with emitter.when(narrow):
            emitter.call("copy_panel", src + j, stride, k, cols, width, panel)
        offset.set(offset.get() + panel_stride)


# ---- matrix times matrix ----------------------------------------------------------------------------


def _plain_multiply(m, n, k, a, ams, aks, b, panel_stride, c, ldc, accumulate):
    width = GEMM_VECTORS * VECTOR_BYTES // c.itemsize
    strided = np.lib.stride_tricks.as_strided
    left = strided(a, (m, k), (ams * a.itemsize, aks * a.itemsize))
    for p, j in enumerate(range(0, n, width)):
        cols = min(width, n - j)
        tile = left @ b[p * panel_stride : p * panel_stride + k * width].reshape(k, width)[:, :cols]
        out = strided(c[j:], (m, cols), (ldc * c.itemsize, c.itemsize))
        out[...] = out + tile if accumulate else tile


@routine("iiiaiiaiaii", _plain_multiply)
def multiply(emitter, m, n, k, a, ams, aks, b, panel_stride, c, ldc, accumulate):
    """``C (m, n) (+)= A B`` with ``A[i, l] = a[i * ams + l * aks]`` and the panels of B one after the other,
    `panel_stride` apart.

    It is `gemm` without what only the kernels of one sequence want, which takes a third of a second less
    to compile for each function that uses it.
    """
    width = GEMM_VECTORS * emitter.lanes
    edge = emitter.scratch(GEMM_ROWS[0] * width)  # for a last vector that ends beyond C
    none = emitter.index(0)
    no_bound = emitter.constant(0.0, emitter.element)

    def tiles(i, rows, j, panel):
        left = n - j
        cols = (left < width).chosen(left, emitter.index(width))
        vectors = emitter.vectors(cols)
        fits = cols.equals(emitter.padded(cols))
        beyond = fits.chosen(none, emitter.index(1))
        place = c + (i * ldc + j)
        with emitter.when((beyond & accumulate).equals(1)):
            emitter.call("copy_tile", rows, cols, edge, width, place, ldc)
        target, ld = emitter.either(fits, place, edge), fits.chosen(ldc, emitter.index(width))
        for count in range(1, GEMM_VECTORS + 1):
            with emitter.when(vectors.equals(count)):
                emitter.call(
                    f"gemm_tile_{rows}x{count}", k, a + i * ams, ams, aks, panel, width, target, ld,
                    accumulate, no_bound, none, target, no_bound, no_bound,
                )  # fmt: skip
        with emitter.when(beyond.equals(1)):
            emitter.call("copy_tile", rows, cols, place, ldc, edge, width)

    offset = emitter.variable(none)
    with emitter.loop(0, n, width) as j:
        panel, start = b + offset.get(), none
        for rows in GEMM_ROWS:
            stop = m & -rows
            with emitter.loop(start, stop, rows) as i:
                tiles(i, rows, j, panel)
            start = stop
        offset.set(offset.get() + panel_stride)


# ---- the activation and its derivative --------------------------------------------------------------


@routine("iaa", _in_place(lambda x: np.maximum(x, 0)))
def rectify(emitter, n, out, x):
    _elementwise(emitter, n, out, [x], lambda x: x.at_least(x.emitter.constant(0.0, x.ir.type)))


def _plain_times_slopes(rows, n, dz, ldz, states, lds, sums, relu):
    for r in range(rows):
        row, state = dz[r * ldz : r * ldz + n], states[r * lds : r * lds + n]
        row *= state > 0 if relu else 1 - state * state
        sums[:n] += row


@routine("iiaiaiai", _plain_times_slopes)
def times_slopes(emitter, rows, n, dz, ldz, states, lds, sums, relu):
    """``dz *= 1 - state^2``, or ``state > 0`` where `relu`, for rows of n elements (eq. 10); and adds up
    the rows."""

    def slope(state):
        return 1.0 - state * state

    def step(state):
        zero, one = (state.emitter.constant(x, state.ir.type) for x in (0.0, 1.0))
        return (zero < state).chosen(one, zero)

    for flag, derivative in ((0, slope), (1, step)):
        with emitter.when(relu.equals(flag)), emitter.loop(0, rows) as r:
            row, state = dz + r * ldz, states + r * lds

            def part(j, lanes, row=row, state=state, derivative=derivative):
                value = (row + j).load(lanes) * derivative((state + j).load(lanes))
                (row + j).store(value)
                (sums + j).store((sums + j).load(lanes) + value)

            with emitter.loop(0, n & -emitter.lanes, emitter.lanes) as j:
                part(j, emitter.lanes)
            for lanes, j, present in emitter.tail(n):
                with emitter.when(present):
                    part(j, lanes)


# ---- probabilities --------------------------------------------------------------------------------


@routine("ia", lambda n, y: y[:n].max(), returns=True)
def largest(emitter, n, y):
    """The largest element of a padded row."""
    top = emitter.variable(y.load())
    with emitter.loop(emitter.lanes, n, emitter.lanes) as j:
        top.set(top.get().at_least((y + j).load()))
    return top.get().folded(lambda a, b: a.at_least(b))


def _plain_exponentials(n, y, top):
    y[:n] = np.exp(y[:n] - top)
    return y[:n].sum()


@routine("iar", _plain_exponentials, returns=True)
def exponentials(emitter, n, y, top):
    """``y = exp(y - top)`` for a padded row, whose padding is minus infinity; returns their sum."""
    top = top.splat(emitter.lanes)
    total = emitter.variable(0.0)
    with emitter.loop(0, n, emitter.lanes) as j:
        e = _exponential((y + j).load() - top)
        total.set(total.get() + e)
        (y + j).store(e)
    return total.get().total()
