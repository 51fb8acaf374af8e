"""Products of the Numba kernels: a matrix with a vector, and with a matrix.  For the rules see `elementary`.

``gemv`` and ``multiply`` read packed matrices (`packing`); names with ``rows`` are of a matrix as the user has it::

    add_rows_times(out, W, x)                  out[i] += W[i] . x, a sum for every row
    add_times_rows(out, x, W)                  out += x[0] W[0] + x[1] W[1] + ..., row after row
    gemv(out, z, x, B, backwards)              out = z + x B
    multiply(out, rows, B, more)               out (+)= rows B
    add_times(out, rows, W, packed, turn)      out += rows W, by one of these
    add_outer_products(out, ...)               out (+)= sum over t of left_t right_t', clamped; or a step down it

A matrix-vector product is bound by reading the matrix once, so its sums stay in registers: panels
of 8, 4, 2 or 1 vectors, the narrow ones with partial sums that hide the latency of an addition.  A
matrix product keeps a tile of 8 rows by 3 vectors (4 by 3 where there are 16 registers).
"""

import math

import numpy as np

from fastrnn.kernels.numba_kernels.elementary import bounded, widened
from fastrnn.kernels.numba_kernels.emit import ROUTINES, VECTOR_BYTES, Matrix, Routine, Row, routine
from fastrnn.kernels.numba_kernels.packing import GEMM_VECTORS, GEMV_VECTORS, panels

#: Rows of the tiles of a product, the most first.  (Each kind is compiled: 2 would cost more than it gives.)
GEMM_ROWS = (8, 4, 1) if VECTOR_BYTES == 64 else (4, 1)

STRIP = 16  # rows of a matrix that all products use while they are in the first cache

# ---- matrix times vector ------------------------------------------------------------------------


def _plain_gemv(out, z, x, packed, backwards):
    (k, n), lanes, memory = packed.shape, VECTOR_BYTES // out.itemsize, packed.reshape(-1)
    product = np.empty(n, out.dtype)
    for v, width in panels(n // lanes):
        panel = memory[v * lanes * k : (v + width) * lanes * k].reshape(k, width * lanes)
        product[v * lanes : (v + width) * lanes] = x[:k] @ panel
    out[:n] = z[:n] + product


@routine("vvvmi", _plain_gemv)
def gemv(emitter, out, z, x, packed, backwards):
    """``out (n) = z (n) + x (k) B``, for B (k, n) packed by `pack_for_gemv`; rows are padded.

    Called with `backwards` every other time, it starts with the panels that the call before left in the
    cache: a matrix that does not fit is read from further away only in part.
    """
    lanes, k = emitter.lanes, packed.rows
    vectors = emitter.vectors(packed.cols)
    wide = vectors & -GEMV_VECTORS

    def panel(width, v):
        at = v * lanes
        emitter.call(f"gemv_panel_{width}", packed + at * k, k, x, z + at, out + at)

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
    """One panel of so many vectors, ``out = z + x b``; `ways` partial sums hide the latency of an addition where it is
    narrow: way w adds up every `ways`-th row, from row w on."""
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


def _plain_add_rows_times(out, w, x):
    m, n = w.shape
    out[:m] += w @ x[:n]


@routine("vmv", _plain_add_rows_times)
def add_rows_times(emitter, out, w, x):
    """``out += W x``, W (m, n) as the user has it: for too few products to pack for."""
    lanes, m, n = emitter.lanes, w.rows, w.cols
    group = min(8, lanes)

    def products(i, rows):
        """Sums of `rows` rows from i on, as vectors of partial sums."""
        sums = [emitter.variable(0.0) for _ in range(rows)]
        base = [w.row(i + r) for r in range(rows)]
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
    """``a0+a1, a2+a3, ...``, and those of b after them; `lanes` is how many there are in both."""
    return a.shuffled(range(0, lanes, 2), b) + a.shuffled(range(1, lanes, 2), b)


def _plain_add_times_rows(out, x, w):
    m, n = w.shape
    out[:n] += x[:m] @ w


@routine("vvm", _plain_add_times_rows)
def add_times_rows(emitter, out, x, w):
    """``out += x W``, W (m, n) as the user has it."""
    m, n = w.rows, w.cols

    def rows(i, count):  # several rows at a time, so that `out` is read and written once for them
        factors = [(x + (i + r)).load(1) for r in range(count)]
        base = [w.row(i + r) for r in range(count)]

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


def _plain_add_outer_products(out, weights, left, right, rows, fresh, limit, step):
    (rate, cap), rows = step, slice(*rows)
    n, out = out.shape[1], out[rows]
    total = np.zeros(out.shape, out.dtype) if fresh else out.copy()
    if not limit < np.inf:
        total += left[:, rows].T @ right[:, :n]
    else:
        for t in range(len(left) - 1, -1, -1):
            total += left[t, rows, None] * right[t, :n]
            np.clip(total, -limit, limit, out=total)
    if len(weights):
        weights[rows] -= out.dtype.type(rate) * np.clip(total, -cap, cap)
    else:
        out[...] = total


@routine(("m", "m", "m", "m", "ii", "i", "r", "rr"), _plain_add_outer_products)
def add_outer_products(emitter, out, weights, left, right, rows, fresh, limit, step):
    """``out (m, n) += sum over t of left_t right_t'``, for the rows of `left` and `right`; or ``=`` where `fresh`.
    It is done for ``rows = (start, stop)`` of `out`.

    With a limit that is not infinite, t runs downwards and every partial sum is clamped to [-limit, limit].  With
    `weights (m, n)`, which may have no rows, the sum is a gradient that is not wanted itself: ``weights -= rate
    sum``, the sum clamped to [-cap, cap], is done as a tile of it leaves the registers; ``step = (rate, cap)``.
    """
    (first, last), (rate, cap) = rows, step
    lanes, none, one = emitter.lanes, emitter.index(0), emitter.index(1)
    width = GEMM_VECTORS * lanes
    edge = emitter.scratch(GEMM_ROWS[0] * width)  # for a last vector that ends beyond the matrix
    edge_w = emitter.scratch(GEMM_ROWS[0] * width)
    clamped = (limit < emitter.constant(math.inf, emitter.element)).chosen(one, none)
    descend = (weights.rows >= one).chosen(one, none)
    accumulate = one - fresh

    def tiles(i, rows, j):
        left_over = out.cols - j
        cols = (left_over < width).chosen(left_over, emitter.index(width))
        vectors = emitter.vectors(cols)
        fits = cols.equals(emitter.padded(cols))
        place, place_w = out.row(i) + j, weights.row(i) + j
        target, target_w = emitter.either(fits, place, edge), emitter.either(fits, place_w, edge_w)
        ld = fits.chosen(out.ld, emitter.index(width))
        beyond = fits.chosen(none, one)

        def edges(wanted, to_edge, *, tile, memory, row_length):
            both = (Matrix(memory, emitter.index(rows), cols, emitter.index(width), one),
                    Matrix(tile, emitter.index(rows), cols, row_length, one))  # fmt: skip
            with emitter.when(wanted.equals(1)):
                emitter.call("copy_tile", *(both if to_edge else reversed(both)))

        edges(beyond & accumulate, True, tile=place, memory=edge, row_length=out.ld)
        edges(beyond & descend, True, tile=place_w, memory=edge_w, row_length=weights.ld)
        # One of the tiles that were compiled: for as many vectors, and clamped or not.
        for count in range(1, GEMM_VECTORS + 1):
            for kind, end in enumerate(("", "_clamped")):
                with emitter.when((clamped + 2 * vectors).equals(kind + 2 * count)):
                    emitter.call(
                        f"gemm_tile_{rows}x{count}{end}", left.rows, (left + i * left.step, left.step, left.ld),
                        (right + j, right.ld), (target, ld, accumulate), limit,
                        (descend, target_w, rate, cap),
                    )  # fmt: skip
        edges(beyond - descend, False, tile=place, memory=edge, row_length=out.ld)
        edges(beyond & descend, False, tile=place_w, memory=edge_w, row_length=weights.ld)

    with emitter.loop(0, out.cols, width) as j:
        start = first
        for count in GEMM_ROWS:
            stop = first + ((last - first) & -count)
            with emitter.loop(start, stop, count) as i:
                tiles(i, count, j)
            start = stop


def _gemm_tile(rows, count, clamped):
    """A tile of ``c (+)= a b``: `rows` rows by `count` vectors, whose sums over k stay in registers.

    ``a[r, i]`` is at ``a + r * ams + i * aks``, ``b[i]`` at ``b + i * bks``, ``c[r]`` at ``c + r * ldc``.  Where
    `descend` is 1, ``w -= rate clamp(sum, cap)`` takes the place of writing c.
    """

    def emit(emitter, k, left, right, out, limit, descent):
        (a, ams, aks), (b, bks), (c, ldc, accumulate), (descend, w, rate, cap) = left, right, out, descent
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
    ROUTINES[name] = Routine(name, ("i", "aii", "ai", "aii", "r", "iarr"), returns=False, emit=emit)


for _rows in GEMM_ROWS:
    for _count in range(1, GEMM_VECTORS + 1):
        _gemm_tile(_rows, _count, clamped=False)
        _gemm_tile(_rows, _count, clamped=True)


def _plain_multiply(out, left, packed, accumulate):
    k, memory, width = len(packed), packed.reshape(-1), GEMM_VECTORS * VECTOR_BYTES // out.itemsize
    for j in range(0, out.shape[1], width):
        tile = out[:, j : j + width]
        product = left[: len(out), :k] @ memory[j * k : (j + width) * k].reshape(k, width)[:, : tile.shape[1]]
        tile[...] = tile + product if accumulate else product


@routine("mmmi", _plain_multiply)
def multiply(emitter, out, left, packed, accumulate):
    """``out (m, n) = left (m, k) B``, or ``+=`` where `accumulate` is 1, for B (k, n) packed by `pack_for_gemm` or
    `pack_rows`.

    `left` may be a transposed matrix, or wider than B has rows.
    """
    width = GEMM_VECTORS * emitter.lanes
    edge = emitter.scratch(GEMM_ROWS[0] * width)  # for a last vector that ends beyond the matrix
    none, one, k = emitter.index(0), emitter.index(1), packed.rows
    no_bound = emitter.constant(0.0, emitter.element)

    def tiles(i, rows, j, panel):
        left_over = out.cols - j
        cols = (left_over < width).chosen(left_over, emitter.index(width))
        vectors = emitter.vectors(cols)
        fits = cols.equals(emitter.padded(cols))
        beyond = fits.chosen(none, one)
        place = out.row(i) + j
        at_edge = Matrix(edge, emitter.index(rows), cols, emitter.index(width), one)
        here = Matrix(place, emitter.index(rows), cols, out.ld, one)
        with emitter.when((beyond & accumulate).equals(1)):
            emitter.call("copy_tile", at_edge, here)
        target, ld = emitter.either(fits, place, edge), fits.chosen(out.ld, emitter.index(width))
        for count in range(1, GEMM_VECTORS + 1):
            with emitter.when(vectors.equals(count)):
                emitter.call(
                    f"gemm_tile_{rows}x{count}", k, (left + i * left.ld, left.ld, left.step),
                    (panel, emitter.index(width)), (target, ld, accumulate), no_bound,
                    (none, target, no_bound, no_bound),
                )  # fmt: skip
        with emitter.when(beyond.equals(1)):
            emitter.call("copy_tile", here, at_edge)

    offset = emitter.variable(none)
    with emitter.loop(0, out.cols, width) as j:
        panel, start = packed + offset.get(), none
        for rows in GEMM_ROWS:
            stop = out.rows & -rows
            with emitter.loop(start, stop, rows) as i:
                tiles(i, rows, j, panel)
            start = stop
        offset.set(offset.get() + k * width)


def _plain_add_times(out, left, w, packed, turn):
    out[:, : w.shape[1]] += left[:, : len(w)] @ w


@routine("mmmmi", _plain_add_times)
def add_times(emitter, out, left, w, packed, turn):
    """``out += left W``, by whichever way there is: with W as the user has it where `packed` has no rows; else
    with its panels, for `gemv` where turn is 0 or 1, for `multiply` where it is -1."""
    none, unpacked = emitter.index(0), packed.rows.equals(0)
    with emitter.builder.if_else(unpacked.ir) as (as_it_is, in_panels):
        with as_it_is, emitter.loop(0, w.rows, STRIP) as i:
            # A strip of rows serves all of `left` while it is in the first cache.
            left_over = w.rows - i
            strip = (left_over < STRIP).chosen(left_over, emitter.index(STRIP))
            rows = Matrix(w.row(i), strip, w.cols, w.ld, w.step)
            with emitter.loop(0, left.rows) as r:
                emitter.call("add_times_rows", out.row(r), Row(left.row(r) + i, strip), rows)
        with in_panels, emitter.builder.if_else((turn >= none).ir) as (one, several):
            with one:
                emitter.call("gemv", out.row(none), out.row(none), left.row(none), packed, turn)
            with several:
                emitter.call("multiply", out, left, packed, emitter.index(1))
