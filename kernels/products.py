"""Products of the Numba kernels: a matrix with a vector, and with a matrix.  For the rules see `elementary`.

A matrix-vector product is bound by reading the matrix once, so its sums stay in registers: panels
of 8, 4, 2 or 1 vectors, the narrow ones with partial sums that hide the latency of an addition.  A
matrix product keeps a tile of 8 rows by 3 vectors (4 by 3 where there are 16 registers).
"""

import numpy as np

from fastrnn.kernels.elementary import bounded, widened
from fastrnn.kernels.packing import GEMM_VECTORS, GEMV_VECTORS, panels
from fastrnn.kernels.vectors import ROUTINES, VECTOR_BYTES, Routine, routine

#: Rows of the tiles of a product, the most first.  (Each kind is compiled: 2 would cost more than it gives.)
GEMM_ROWS = (8, 4, 1) if VECTOR_BYTES == 64 else (4, 1)

# ---- matrix times vector ------------------------------------------------------------------------


def _plain_gemv(b, k, n, x, z, out, backwards):
    lanes = VECTOR_BYTES // out.itemsize
    product = np.empty(-(-n // lanes) * lanes, out.dtype)
    for v, width in panels(len(product) // lanes):
        panel = b[v * lanes * k : (v + width) * lanes * k].reshape(k, width * lanes)
        product[v * lanes : (v + width) * lanes] = x[:k] @ panel
    out[: len(product)] = z[: len(product)] + product


@routine("aiiaaai", _plain_gemv)
def gemv(emitter, b, k, n, x, z, out, backwards):
    """``out = z + x B``, for B (k, n) packed in panels; z and out are padded.

    Called with `backwards` every other time, it starts with the panels that the call before left in the
    cache: a matrix that does not fit is read from further away only in part.
    """
    lanes = emitter.lanes
    vectors = emitter.vectors(n)
    wide = vectors & -GEMV_VECTORS

    def panel(width, v):
        at = v * lanes
        emitter.call(f"gemv_panel_{width}", b + at * k, k, x, z + at, out + at)

    def narrow_panel(width):
        with emitter.when((vectors & width).equals(width)):
            panel(width, vectors & (-2 * width))

    with emitter.when(backwards.equals(1)):
        for width in (1, 2, 4):
            narrow_panel(width)
    with emitter.loop(0, wide, GEMV_VECTORS) as v:
        panel(GEMV_VECTORS, backwards.equals(1).chosen(wide - GEMV_VECTORS - v, v))
    with emitter.when(backwards.equals(0)):
        for width in (4, 2, 1):
            narrow_panel(width)


def _gemv_panel(vectors):
    """One panel; `ways` partial sums hide the latency of an addition where it is narrow."""
    ways = GEMV_VECTORS // vectors

    def emit(emitter, b, k, x, z, out):
        lanes = emitter.lanes
        sums = [emitter.variable(0.0) for _ in range(vectors * ways)]

        def add_row(i, row, sums):
            factor = (x + i).load(1).splat(lanes)
            for u, s in enumerate(sums):
                s.set(s.get() + factor * (row + u * lanes).load())

        together = k & -ways
        with emitter.loop(0, together, ways) as i:
            for w in range(ways):
                row = b + (i + w) * (vectors * lanes)
                add_row(i + w, row, sums[w * vectors : (w + 1) * vectors])
        with emitter.loop(together, k) as i:
            add_row(i, b + i * (vectors * lanes), sums[:vectors])
        total = [s.get() for s in sums]
        while len(total) > vectors:
            half = len(total) // 2
            total = [a + c for a, c in zip(total[:half], total[half:], strict=True)]
        for u, s in enumerate(total):
            (out + u * lanes).store((z + u * lanes).load() + s)

    name = f"gemv_panel_{vectors}"
    ROUTINES[name] = Routine(name, "aiaaa", returns=False, emit=emit)


for _vectors in (8, 4, 2, 1):
    _gemv_panel(_vectors)


def _plain_add_rows_times(w, m, n, x, out):
    out[:m] += w[: m * n].reshape(m, n) @ x[:n]


@routine("aiiaa", _plain_add_rows_times)
def add_rows_times(emitter, w, m, n, x, out):
    """``out += W x``, W (m, n) as the user has it: for too few products to pack for."""
    lanes = emitter.lanes
    group = min(8, lanes)

    def products(i, rows):
        """Sums of `rows` rows from i on, as vectors of partial sums."""
        sums = [emitter.variable(0.0) for _ in range(rows)]
        base = [w + (i + r) * n for r in range(rows)]
        with emitter.loop(0, n & -lanes, lanes) as j:
            xj = (x + j).load()
            for s, row in zip(sums, base, strict=True):
                s.set(s.get() + (row + j).load() * xj)
        for part, j, present in emitter.tail(n):
            with emitter.when(present):
                xj = (x + j).load(part)
                for s, row in zip(sums, base, strict=True):
                    s.set(s.get() + widened((row + j).load(part) * xj))
        return [s.get() for s in sums]

    whole = m & -group
    with emitter.loop(0, whole, group) as i:
        totals = _row_sums(products(i, group))
        (out + i).store((out + i).load(group) + totals)
    with emitter.loop(whole, m) as i:
        (out + i).store((out + i).load(1) + products(i, 1)[0].total())


def _row_sums(vectors):
    """The sum of each vector, as one vector: neighbours are added until one is left."""
    n = vectors[0].lanes
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [_neighbours_added(a, b, 2 * n) for a, b in pairs]
    (vector,) = vectors
    while vector.lanes > min(8, n):
        vector = _neighbours_added(vector, None, vector.lanes)
    return vector


def _neighbours_added(a, b, lanes):
    return a.shuffled(range(0, lanes, 2), b) + a.shuffled(range(1, lanes, 2), b)


def _plain_add_times_rows(w, m, n, x, out):
    out[:n] += x[:m] @ w[: m * n].reshape(m, n)


@routine("aiiaa", _plain_add_times_rows)
def add_times_rows(emitter, w, m, n, x, out):
    """``out += x W``, W (m, n) as the user has it."""

    def rows(i, count):
        factors = [(x + (i + r)).load(1) for r in range(count)]
        base = [w + (i + r) * n for r in range(count)]

        def at(j, lanes):
            s = (out + j).load(lanes)
            for factor, row in zip(factors, base, strict=True):
                s = s + factor * (row + j).load(lanes)
            (out + j).store(s)

        with emitter.loop(0, n & -emitter.lanes, emitter.lanes) as j:
            at(j, emitter.lanes)
        for part, j, present in emitter.tail(n):
            with emitter.when(present):
                at(j, part)

    whole = m & -8
    with emitter.loop(0, whole, 8) as i:
        rows(i, 8)
    with emitter.loop(whole, m) as i:
        rows(i, 1)


# ---- matrix times matrix ------------------------------------------------------------------------


def _plain_gemm(m, n, k, a, ams, aks, b, bks, bps, c, ldc, accumulate, clamped, limit, descend, w, rate, cap):
    width = GEMM_VECTORS * VECTOR_BYTES // c.itemsize
    strided = np.lib.stride_tricks.as_strided
    size = c.itemsize
    left = strided(a, (m, k), (ams * size, aks * size))
    out = strided(c, (m, n), (ldc * size, size))
    weights = strided(w, (m, n), (ldc * size, size))
    for p, j in enumerate(range(0, n, width)):
        cols = min(width, n - j)
        right = strided(b[p * bps :], (k, cols), (bks * size, size))
        tile = out[:, j : j + cols].copy() if accumulate else np.zeros((m, cols), c.dtype)
        if not clamped:
            tile += left @ right
        else:
            for i in range(k - 1, -1, -1):
                tile += left[:, i, None] * right[i]
                np.clip(tile, -limit, limit, out=tile)
        if descend:
            weights[:, j : j + cols] -= c.dtype.type(rate) * np.clip(tile, -cap, cap)
        else:
            out[:, j : j + cols] = tile


@routine("iiiaiiaiiaiiiriarr", _plain_gemm)
def gemm(
    emitter, m, n, k, a, ams, aks, b, bks, bps, c, ldc, accumulate, clamped, limit, descend, w, rate, cap
):
    """``C (m, n) (+)= A B`` with ``A[i, l] = a[i * ams + l * aks]`` and row l of panel p of B at
    ``b + p * bps + l * bks``.

    Where `clamped`, l runs downwards and every partial sum is clamped to [-limit, limit].  With
    `descend`, C is a gradient that is not wanted itself: ``W -= rate C``, C clamped to [-cap, cap], is
    done as a tile of C leaves the registers; W is laid out as C.
    """
    width = GEMM_VECTORS * emitter.lanes
    edge = emitter.scratch(GEMM_ROWS[0] * width)  # for a last vector that ends beyond C
    edge_w = emitter.scratch(GEMM_ROWS[0] * width)

    def tiles(i, rows, j, panel):
        left = n - j
        cols = (left < width).chosen(left, emitter.index(width))
        vectors = emitter.vectors(cols)
        fits = cols.equals(emitter.padded(cols))
        place, place_w = c + (i * ldc + j), w + (i * ldc + j)
        target, target_w = emitter.either(fits, place, edge), emitter.either(fits, place_w, edge_w)
        ld = fits.chosen(ldc, emitter.index(width))
        beyond = fits.chosen(emitter.index(0), emitter.index(1))
        with emitter.when((beyond & accumulate).equals(1)):
            emitter.call("copy_tile", rows, cols, edge, width, place, ldc)
        with emitter.when((beyond & descend).equals(1)):
            emitter.call("copy_tile", rows, cols, edge_w, width, place_w, ldc)
        arguments = (
            k, a + i * ams, ams, aks, panel, bks, target, ld, accumulate, limit, descend, target_w, rate, cap
        )  # fmt: skip
        for count in range(1, GEMM_VECTORS + 1):
            for kind, end in enumerate(("", "_clamped")):
                with emitter.when((clamped + 2 * vectors).equals(kind + 2 * count)):
                    emitter.call(f"gemm_tile_{rows}x{count}{end}", *arguments)
        with emitter.when((beyond - descend).equals(1)):
            emitter.call("copy_tile", rows, cols, place, ldc, edge, width)
        with emitter.when((beyond & descend).equals(1)):
            emitter.call("copy_tile", rows, cols, place_w, ldc, edge_w, width)

    offset = emitter.variable(emitter.index(0))
    with emitter.loop(0, n, width) as j:
        panel = b + offset.get()
        start = emitter.index(0)
        for rows in GEMM_ROWS:
            stop = m & -rows
            with emitter.loop(start, stop, rows) as i:
                tiles(i, rows, j, panel)
            start = stop
        offset.set(offset.get() + bps)


def _gemm_tile(rows, count, clamped):
    def emit(emitter, k, a, ams, aks, b, bks, c, ldc, accumulate, limit, descend, w, rate, cap):
        lanes = emitter.lanes
        sums = [[emitter.variable(0.0) for _ in range(count)] for _ in range(rows)]
        places = [(r, v, r * ldc + v * lanes) for r in range(rows) for v in range(count)]
        with emitter.when(accumulate.equals(1)):
            for r, v, place in places:
                sums[r][v].set((c + place).load())
        starts = [a + ams * r for r in range(rows)]
        with emitter.downwards(k) if clamped else emitter.loop(0, k) as i:
            row = [(b + i * bks + v * lanes).load() for v in range(count)]
            for r in range(rows):
                factor = (starts[r] + i * aks).load(1).splat(lanes)
                for s, right in zip(sums[r], row, strict=True):
                    s.set(s.get() + factor * right)
                    if clamped:
                        s.set(bounded(s.get(), limit))
        with emitter.when(descend.equals(1)):
            for r, v, place in places:
                (w + place).store((w + place).load() - bounded(sums[r][v].get(), cap) * rate)
        with emitter.when(descend.equals(0)):
            for r, v, place in places:
                (c + place).store(sums[r][v].get())

    name = f"gemm_tile_{rows}x{count}" + ("_clamped" if clamped else "")
    ROUTINES[name] = Routine(name, "iaiiaiaiiriarr", returns=False, emit=emit)


for _rows in GEMM_ROWS:
    for _count in range(1, GEMM_VECTORS + 1):
        _gemm_tile(_rows, _count, clamped=False)
        _gemm_tile(_rows, _count, clamped=True)


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
