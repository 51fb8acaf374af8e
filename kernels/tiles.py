"""The inner loops of the Numba kernels: products, element-wise functions, sums of rows.

Rows and vectors follow each other without gaps in flat memory; ``padded`` rows are filled up to
whole vectors.  Every loop here has a plain NumPy formula beside it, which says what it computes.

A matrix-vector product is bound by reading the matrix once, so its sums stay in registers: panels
of 8, 4, 2 or 1 vectors, the narrow ones with partial sums that hide the latency of an addition.  A
matrix product keeps a tile of 8 rows by 3 vectors (4 by 3 where there are 16 registers).
"""

import numpy as np

from fastrnn.kernels.vectors import ROUTINES, VECTOR_BYTES, Routine, routine

#: Vectors in the widest panel of a packed matrix: for matrix-vector and for matrix products.
GEMV_VECTORS = 8
GEMM_VECTORS = 3
#: Rows of the tiles of a product, the most first.  (Each kind is compiled: 2 would cost more than it gives.)
GEMM_ROWS = (8, 4, 1) if VECTOR_BYTES == 64 else (4, 1)

# ---- tanh and exp -------------------------------------------------------------------------------
#
# Without branches, at most 2.5 units in the last place from the true value.  Both start from
#     x = n ln2 + r,  |r| <= ln2 / 2,  expm1(r) = r + r^2 Q(r),
# with Q a polynomial that is the best in the largest error on that interval.


class _Double:
    """Constants for float64."""

    round_shift = float.fromhex("0x1.8p52")
    ln2_high, ln2_low = float.fromhex("0x1.62e42fefa38p-1"), float.fromhex("0x1.ef35793c7673p-45")
    exp_lowest, exp_highest, tanh_flat = -746.0, 710.0, 20.0
    mantissa_bits, exponent_bias = 52, 1023
    tail = tuple(
        float.fromhex(c)
        for c in (
            "0x1.0000000000001p-1", "0x1.5555555555556p-3", "0x1.5555555553d4fp-5",
            "0x1.11111111109adp-7", "0x1.6c16c17893833p-10", "0x1.a01a01a7c8d47p-13",
            "0x1.a019b8ef67c6cp-16", "0x1.71de0d9c145d0p-19", "0x1.2891a8c1d838dp-22",
            "0x1.af38d53857513p-26",
        )
    )  # fmt: skip


class _Single:
    """Constants for float32."""

    round_shift = float.fromhex("0x1.8p23")
    ln2_high, ln2_low = float.fromhex("0x1.62ep-1"), float.fromhex("0x1.0bfbe8p-15")
    exp_lowest, exp_highest, tanh_flat = -104.0, 89.0, 10.0
    mantissa_bits, exponent_bias = 23, 127
    tail = tuple(
        float.fromhex(c)
        for c in (
            "0x1.0000000b9847ep-1", "0x1.5555555a7c16bp-3", "0x1.5554e8d9c7d96p-5",
            "0x1.1110e0de7be2bp-7", "0x1.6d4362097d81ap-10", "0x1.a125285dbcbf1p-13",
        )
    )  # fmt: skip


LOG2E = float.fromhex("0x1.71547652b82fep+0")


def _constants(x):
    return _Double if x.emitter.bits == 64 else _Single


def _expm1_tail(r):
    """Q(r), see above; grouped in pairs so that the chain of dependent operations is short."""
    tail = _constants(r).tail
    r2 = r * r
    pairs = [r * odd + even for even, odd in zip(tail[::2], tail[1::2], strict=True)]
    if len(pairs) == 3:
        a, b, c = pairs
        return a + r2 * (b + r2 * c)
    a, b, c, d, e = pairs
    r4 = r2 * r2
    return (a + r2 * b) + r4 * ((c + r2 * d) + r4 * e)


def _reduced_expm1(x):
    """n and expm1(r)."""
    c = _constants(x)
    shift = x.emitter.constant(c.round_shift, x.ir.type)
    shifted = x * LOG2E + shift
    whole = shifted - shift
    r = (x - whole * c.ln2_high) - whole * c.ln2_low
    return shifted.bits - shift.bits, r + (r * r) * _expm1_tail(r)


def _power_of_two(n):
    """2^n, for n in the range of normal exponents."""
    c = _constants(n)
    return ((n + c.exponent_bias) << c.mantissa_bits).real


def _exponential(x):
    c = _constants(x)
    constant = x.emitter.constant
    x = x.at_least(constant(c.exp_lowest, x.ir.type)).at_most(constant(c.exp_highest, x.ir.type))
    n, p = _reduced_expm1(x)
    half = n >> 1  # two factors reach denormal results and infinity
    return (p + 1.0) * _power_of_two(half) * _power_of_two(n - half)


def _tangent(x):
    """tanh x = E / (E + 2),  E = expm1(2 |x|) = 2^n expm1(r) + (2^n - 1),  with the sign of x."""
    sign = x.bits & -(1 << (x.emitter.bits - 1))
    y = x.magnitude().at_most(x.emitter.constant(_constants(x).tanh_flat, x.ir.type))
    n, p = _reduced_expm1(y + y)
    s = _power_of_two(n)
    e = s * p + (s - 1.0)
    return ((e / (e + 2.0)).bits | sign).real


# ---- element by element -------------------------------------------------------------------------


def _elementwise(emitter, n, out, arrays, formula):
    with emitter.loop(0, n & -emitter.lanes, emitter.lanes) as j:
        (out + j).store(formula(*[(a + j).load() for a in arrays]).splat(emitter.lanes))
    for lanes, j, present in emitter.tail(n):
        with emitter.when(present):
            (out + j).store(formula(*[(a + j).load(lanes) for a in arrays]).splat(lanes))


def _in_place(formula):
    """A plain formula ``out[:n] = formula(...)`` over arrays, then numbers."""

    def plain(n, out, *rest):
        out[:n] = formula(*[r[:n] if isinstance(r, np.ndarray) else out.dtype.type(r) for r in rest])

    return plain


def _clamp(x, limit):
    limit = limit.splat(x.lanes)
    return x.at_most(limit).at_least(-limit)


@routine("iaa", _in_place(lambda x: x))
def copy(emitter, n, out, x):
    _elementwise(emitter, n, out, [x], lambda x: x)


@routine("iaaa", _in_place(np.add))
def add(emitter, n, out, x, y):
    _elementwise(emitter, n, out, [x, y], lambda x, y: x + y)


@routine("iaaar", _in_place(lambda x, y, limit: np.clip(x + y, -limit, limit)))
def add_clamped(emitter, n, out, x, y, limit):
    _elementwise(emitter, n, out, [x, y], lambda x, y: _clamp(x + y, limit))


@routine("iaar", _in_place(lambda x, limit: np.clip(x, -limit, limit)))
def clamp(emitter, n, out, x, limit):
    _elementwise(emitter, n, out, [x], lambda x: _clamp(x, limit))


@routine("iaar", _in_place(np.multiply))
def scale(emitter, n, out, x, factor):
    _elementwise(emitter, n, out, [x], lambda x: x * factor)


@routine("iaaar", _in_place(lambda x, y, factor: x - factor * y))
def subtract_scaled(emitter, n, out, x, y, factor):
    _elementwise(emitter, n, out, [x, y], lambda x, y: x - y * factor)


@routine("iaaa", _in_place(lambda x, state: x * (1 - state * state)))
def times_slope(emitter, n, out, x, state):
    """``out = x tanh'``, given ``state = tanh(..)`` (eq. 10)."""
    _elementwise(emitter, n, out, [x, state], lambda x, state: x * (1.0 - state * state))


@routine("iaa", _in_place(np.tanh))
def hyperbolic_tangent(emitter, n, out, x):
    _elementwise(emitter, n, out, [x], _tangent)


@routine("iaa", _in_place(np.exp))
def exponential(emitter, n, out, x):
    _elementwise(emitter, n, out, [x], _exponential)


def _plain_copy_padded(n, out, x):
    lanes = VECTOR_BYTES // out.itemsize
    out[:n] = x[:n]
    out[n : -(-n // lanes) * lanes] = 0


@routine("iaa", _plain_copy_padded)
def copy_padded(emitter, n, out, x):
    """As `copy`, and fills the padding with zeros."""
    whole = n & -emitter.lanes
    with emitter.when(whole < n):
        (out + whole).store(emitter.constant(0.0))
    emitter.call("copy", n, out, x)


def _plain_gather_column(n, out, w, stride, bias):
    out[:n] = w[: n * stride : stride] + bias[:n]


@routine("iaaia", _plain_gather_column)
def gather_column(emitter, n, out, w, stride, bias):
    """A column of a matrix with rows of `stride`, plus a bias."""
    with emitter.loop(0, n) as i:
        (out + i).store((w + i * stride).load(1) + (bias + i).load(1))


def _plain_scatter_column(n, w, stride, x, limit):
    w[: n * stride : stride] = np.clip(w[: n * stride : stride] + x[:n], -limit, limit)


@routine("iaiar", _plain_scatter_column)
def scatter_column(emitter, n, w, stride, x, limit):
    """``w += x``, clamped to [-limit, limit], for a column of a matrix."""
    with emitter.loop(0, n) as i:
        place = w + i * stride
        place.store(_clamp(place.load(1) + (x + i).load(1), limit))


def _plain_descend_column(n, w, stride, slope, rate, cap):
    w[: n * stride : stride] -= w.dtype.type(rate) * np.clip(slope[:n], -cap, cap)


@routine("iaiarr", _plain_descend_column)
def descend_column(emitter, n, w, stride, slope, rate, cap):
    """``w -= rate slope``, the slope clamped to [-cap, cap], for a column of a matrix."""
    with emitter.loop(0, n) as i:
        place = w + i * stride
        place.store(place.load(1) - _clamp((slope + i).load(1), cap) * rate)


def _plain_fill(n, out, value):
    out[:n] = value


@routine("iar", _plain_fill)
def fill(emitter, n, out, value):
    _elementwise(emitter, n, out, [], lambda: value)


# ---- sums ---------------------------------------------------------------------------------------


def _widened(part):
    """A vector of fewer lanes filled up with zeros."""
    emitter = part.emitter
    if part.lanes == 1:
        part = part.splat(2).shuffled([0, 2], emitter.constant(0.0).shuffled([0, 1]))
    zeros = emitter.constant(0.0, part.ir.type)
    n = part.lanes
    if n == emitter.lanes:
        return part
    return part.shuffled([*range(n), *([n] * (emitter.lanes - n))], zeros)


def _reduce(emitter, n, x, formula, combine):
    """Four partial results in vectors; then combined to one number."""
    parts = [emitter.variable(0.0) for _ in range(4)]
    wide = 4 * emitter.lanes
    with emitter.loop(0, n & -wide, wide) as j:
        for v, part in enumerate(parts):
            part.set(formula(part.get(), (x + j + v * emitter.lanes).load()))
    with emitter.loop(n & -wide, n & -emitter.lanes, emitter.lanes) as j:
        parts[0].set(formula(parts[0].get(), (x + j).load()))
    for lanes, j, present in emitter.tail(n):
        with emitter.when(present):
            parts[1].set(formula(parts[1].get(), _widened((x + j).load(lanes))))
    a, b, c, d = [part.get() for part in parts]
    return combine(combine(a, b), combine(c, d)).folded(combine)


@routine("ia", lambda n, x: np.dot(x[:n], x[:n]), returns=True)
def sum_of_squares(emitter, n, x):
    return _reduce(emitter, n, x, lambda s, x: s + x * x, lambda a, b: a + b)


@routine("ia", lambda n, x: (x[:n] * 0).sum(), returns=True)
def sum_of_zeros(emitter, n, x):
    """0 if all are finite, else NaN."""
    return _reduce(emitter, n, x, lambda s, x: s + x * 0.0, lambda a, b: a + b)


@routine("ia", lambda n, x: np.abs(x[:n]).max(), returns=True)
def largest_magnitude(emitter, n, x):
    """NaN if any element is NaN or infinite: a bound that holds for nothing."""

    def larger(a, b):
        return (a < b).chosen(b, a + b * 0.0)

    return _reduce(emitter, n, x, lambda m, x: larger(m, x.magnitude()), larger)


def _plain_softmax(n, y):
    with_max = y[:n] - y[:n].max()
    np.exp(with_max, out=y[:n])
    y[:n] /= y[:n].sum()


@routine("ia", _plain_softmax)
def softmax_padded(emitter, n, y):
    """In place (eqs. 16, 17); the padding of a row is minus infinity."""
    top = emitter.variable(y.load())
    with emitter.loop(emitter.lanes, n, emitter.lanes) as j:
        top.set(top.get().at_least((y + j).load()))
    highest = top.get().folded(lambda a, b: a.at_least(b)).splat(emitter.lanes)
    total = emitter.variable(0.0)
    with emitter.loop(0, n, emitter.lanes) as j:
        e = _exponential((y + j).load() - highest)
        total.set(total.get() + e)
        (y + j).store(e)
    divisor = total.get().total().splat(emitter.lanes)
    with emitter.loop(0, n, emitter.lanes) as j:
        (y + j).store((y + j).load() / divisor)


def _plain_bound_growth(n, left, ldl, right, ldr, bound):
    left, right = np.abs(left[: n * ldl].reshape(n, ldl)), np.abs(right[: n * ldr].reshape(n, ldr))
    bound[:ldl] = (left * right.max(axis=1)[:, None]).sum(axis=0)


@routine("iaiaia", _plain_bound_growth)
def bound_growth(emitter, n, left, ldl, right, ldr, bound):
    """``bound[i] = sum over t of |left[t, i]| max |right[t]|``: what row i of the sum of
    ``left_t right_t'`` can grow by."""
    emitter.call("fill", ldl, bound, emitter.constant(0.0, emitter.element))
    with emitter.loop(0, n) as t:
        row = right + t * ldr
        top = emitter.variable(0.0)
        with emitter.loop(0, ldr, emitter.lanes) as j:
            x = (row + j).load().magnitude()
            top.set((top.get() < x).chosen(x, top.get()))
        highest = top.get().folded(lambda a, b: (a < b).chosen(b, a)).splat(emitter.lanes)
        with emitter.loop(0, ldl, emitter.lanes) as i:
            x = (left + t * ldl + i).load().magnitude()
            (bound + i).store((bound + i).load() + x * highest)


# ---- packing ------------------------------------------------------------------------------------


def _plain_copy_panel(src, stride, k, cols, width, out):
    panel = out[: k * width].reshape(k, width)
    panel[:, cols:] = 0
    for i in range(k):
        panel[i, :cols] = src[i * stride : i * stride + cols]


@routine("aiiiia", _plain_copy_panel)
def copy_panel(emitter, src, stride, k, cols, width, out):
    """Rows of `width` from ``src[i * stride + j]``, zero from column `cols` on."""
    with emitter.loop(0, k) as i:
        row = out + i * width
        with emitter.loop(cols & -emitter.lanes, width & -emitter.lanes, emitter.lanes) as j:
            (row + j).store(emitter.constant(0.0))
        emitter.call("copy", cols, row, src + i * stride)


def _plain_transpose_panel(src, stride, k, cols, width, out):
    panel = out[: k * width].reshape(k, width)
    panel[:, cols:] = 0
    for j in range(cols):
        panel[:, j] = src[j * stride : j * stride + k]


@routine("aiiiia", _plain_transpose_panel)
def transpose_panel(emitter, src, stride, k, cols, width, out):
    """Rows of `width` from ``src[j * stride + i]``, zero from column `cols` on."""
    lanes = emitter.lanes
    zero = emitter.constant(0.0, emitter.element)
    whole_rows, whole_cols = k & -lanes, cols & -lanes

    def move(i, j):
        (out + i * width + j).store((src + j * stride + i).load(1))

    with emitter.loop(0, whole_cols, lanes) as j:
        with emitter.loop(0, whole_rows, lanes) as i:
            rows = [(src + (j + u) * stride + i).load() for u in range(lanes)]
            for u, row in enumerate(_transposed(rows)):
                (out + (i + u) * width + j).store(row)
        with emitter.loop(whole_rows, k) as i:
            for u in range(lanes):
                move(i, j + u)
    with emitter.loop(whole_cols, cols) as j, emitter.loop(0, k) as i:
        move(i, j)
    with emitter.loop(0, k) as i, emitter.loop(cols, width) as j:
        (out + i * width + j).store(zero)


def _transposed(rows):
    """A square of vectors transposed: perfect shuffles, as many as its side has binary digits."""
    n = len(rows)
    low = [lane for u in range(n // 2) for lane in (u, n + u)]
    high = [lane for u in range(n // 2, n) for lane in (u, n + u)]
    for _ in range(n.bit_length() - 1):
        pairs = zip(rows[: n // 2], rows[n // 2 :], strict=True)
        rows = [half for a, b in pairs for half in (a.shuffled(low, b), a.shuffled(high, b))]
    return rows


def _panels(vectors):
    """Panels of a packed matrix that is `vectors` wide: (first vector, vectors) of each."""
    v = 0
    while v < vectors:
        width = next(w for w in (8, 4, 2, 1) if w <= vectors - v)
        yield v, width
        v += width


def _plain_packed(widths_of):
    def plain(src, transposed, k, n, out):
        matrix = src[: k * n].reshape(n, k).T if transposed else src[: k * n].reshape(k, n)
        lanes = VECTOR_BYTES // out.itemsize
        for v, count in widths_of(-(-n // lanes)):
            j, width = v * lanes, count * lanes
            panel = out[j * k : (j + width) * k].reshape(k, width)
            panel[:, n - j :] = 0
            panel[:, : n - j] = matrix[:, j : j + width]

    return plain


def _pack_panel(emitter, src, transposed, k, n, j, width, out):
    cols = (n - j < width).chosen(n - j, emitter.index(width))
    with emitter.when(transposed.equals(1)):
        emitter.call("transpose_panel", src + j * k, k, k, cols, width, out + j * k)
    with emitter.when(transposed.equals(0)):
        emitter.call("copy_panel", src + j, n, k, cols, width, out + j * k)


@routine("aiiia", _plain_packed(_panels))
def pack_for_gemv(emitter, src, transposed, k, n, out):
    """Cut B (k, n), which is `src` or its transpose, into panels for `gemv`, one after the other."""
    vectors = emitter.vectors(n)
    v = vectors & -GEMV_VECTORS
    with emitter.loop(0, v, GEMV_VECTORS) as first:
        _pack_panel(emitter, src, transposed, k, n, first * emitter.lanes, GEMV_VECTORS * emitter.lanes, out)
    width = GEMV_VECTORS // 2
    while width:
        with emitter.when((vectors & width).equals(width)):
            _pack_panel(emitter, src, transposed, k, n, v * emitter.lanes, width * emitter.lanes, out)
        v = v + (vectors & width)
        width //= 2


@routine("aiiia", _plain_packed(lambda vectors: [(v, GEMM_VECTORS) for v in range(0, vectors, GEMM_VECTORS)]))
def pack_for_gemm(emitter, src, transposed, k, n, out):
    """As `pack_for_gemv`, into panels for `gemm`."""
    width = GEMM_VECTORS * emitter.lanes
    with emitter.loop(0, n, width) as j:
        _pack_panel(emitter, src, transposed, k, n, j, width, out)


# ---- matrix times vector ------------------------------------------------------------------------


def _plain_gemv(b, k, n, x, z, out, backwards):
    lanes = VECTOR_BYTES // out.itemsize
    product = np.empty(-(-n // lanes) * lanes, out.dtype)
    for v, width in _panels(len(product) // lanes):
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
                    s.set(s.get() + _widened((row + j).load(part) * xj))
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


def _plain_copy_tile(rows, cols, out, ldo, x, ldx):
    for r in range(rows):
        out[r * ldo : r * ldo + cols] = x[r * ldx : r * ldx + cols]


@routine("iiaiai", _plain_copy_tile)
def copy_tile(emitter, rows, cols, out, ldo, x, ldx):
    with emitter.loop(0, rows) as r:
        emitter.call("copy", cols, out + r * ldo, x + r * ldx)


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
                        s.set(_clamp(s.get(), limit))
        with emitter.when(descend.equals(1)):
            for r, v, place in places:
                (w + place).store((w + place).load() - _clamp(sums[r][v].get(), cap) * rate)
        with emitter.when(descend.equals(0)):
            for r, v, place in places:
                (c + place).store(sums[r][v].get())

    name = f"gemm_tile_{rows}x{count}" + ("_clamped" if clamped else "")
    ROUTINES[name] = Routine(name, "iaiiaiaiiriarr", returns=False, emit=emit)


for _rows in GEMM_ROWS:
    for _count in range(1, GEMM_VECTORS + 1):
        _gemm_tile(_rows, _count, clamped=False)
        _gemm_tile(_rows, _count, clamped=True)
