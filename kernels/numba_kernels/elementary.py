"""Element-wise functions and sums of the Numba kernels, tanh, exp and sigmoid among them.

A result comes first among the arguments, and says how many elements there are.  ``padded`` rows are filled up to
whole vectors.  Every loop here, in `packing`, `products` and `cells` has a plain NumPy formula beside it, above it or
in its ``@routine(...)``, which says what it computes; the loop itself is in the language of `emit`, where ``x.n`` is
the number of elements, ``(x + j).load()`` the vector from element j on, and ``emitter.lanes`` the elements of a vector.
"""

import numpy as np

from fastrnn.kernels.numba_kernels.emit import VECTOR_BYTES, Row, routine

# ---- tanh, exp and sigmoid -------------------------------------------------------------------------------
#
# Without branches, at most 2.5 units in the last place from the true value; tanh of float64 up to 2.8, where it is
# between 0.17 and 0.2 (testing/ulps.py measures it).  All start from
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
    """n, as an integer, and expm1(r): ``n = round(x / ln2)``, ``r = x - n ln2``.

    A number of 1.5 2^52 (float32: 2^23) has no bits for a fraction: to add it rounds, and leaves n in the lowest bits.
    ln2 comes in two parts, of which the high one has zeros at its end: its product with n is exact.
    """
    c = _constants(x)
    shift = x.emitter.constant(c.round_shift, x.ir.type)
    shifted = x * LOG2E + shift
    whole = shifted - shift
    r = (x - whole * c.ln2_high) - whole * c.ln2_low
    return shifted.bits - shift.bits, r + (r * r) * _expm1_tail(r)


def _power_of_two(n):
    """2^n, for n in the range of normal exponents: its bits are the exponent, and no others."""
    c = _constants(n)
    return ((n + c.exponent_bias) << c.mantissa_bits).real


def _exp_formula(x):
    """exp x = 2^n (expm1(r) + 1)."""
    c = _constants(x)
    constant = x.emitter.constant
    x = x.at_least(constant(c.exp_lowest, x.ir.type)).at_most(constant(c.exp_highest, x.ir.type))
    n, p = _reduced_expm1(x)
    half = n >> 1  # two factors reach denormal results and infinity
    return (p + 1.0) * _power_of_two(half) * _power_of_two(n - half)


def tanh_formula(x):
    """tanh x = E / (E + 2),  E = expm1(2 |x|) = 2^n expm1(r) + (2^n - 1),  with the sign of x."""
    sign = x.bits & -(1 << (x.emitter.bits - 1))
    y = x.magnitude().at_most(x.emitter.constant(_constants(x).tanh_flat, x.ir.type))
    n, p = _reduced_expm1(y + y)
    s = _power_of_two(n)
    e = s * p + (s - 1.0)
    return ((e / (e + 2.0)).bits | sign).real


def sigmoid_formula(x):
    """sigmoid x = 1 / (1 + e) or e / (1 + e),  e = exp(-|x|), which cannot overflow."""
    zero, one = (x.emitter.constant(number, x.ir.type) for number in (0.0, 1.0))
    e = _exp_formula(-x.magnitude())
    return (x < zero).chosen(e, one) / (e + 1.0)


def plain_sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


# ---- element by element -------------------------------------------------------------------------


def elementwise(emitter, out, arrays, formula):
    """``out = formula(*arrays)``, a vector at a time; the last ones in parts of a vector."""
    with emitter.loop(0, out.n & -emitter.lanes, emitter.lanes) as j:
        (out + j).store(formula(*[(a + j).load() for a in arrays]).splat(emitter.lanes))
    for lanes, j, present in emitter.tail(out.n):
        with emitter.when(present):
            (out + j).store(formula(*[(a + j).load(lanes) for a in arrays]).splat(lanes))


def in_place(formula):
    """A plain formula ``out = formula(...)`` over arrays, then numbers."""

    def plain(out, *rest):
        n = len(out)
        out[:] = formula(*[r[:n] if isinstance(r, np.ndarray) else out.dtype.type(r) for r in rest])

    return plain


def bounded(x, limit):
    limit = limit.splat(x.lanes)
    return x.at_most(limit).at_least(-limit)


@routine("vv", in_place(lambda x: x))
def copy(emitter, out, x):
    elementwise(emitter, out, [x], lambda x: x)


@routine("vvv", in_place(np.add))
def add(emitter, out, x, y):
    elementwise(emitter, out, [x, y], lambda x, y: x + y)


@routine("vvvr", in_place(lambda x, y, limit: np.clip(x + y, -limit, limit)))
def add_clamped(emitter, out, x, y, limit):
    elementwise(emitter, out, [x, y], lambda x, y: bounded(x + y, limit))


@routine("vvr", in_place(lambda x, limit: np.clip(x, -limit, limit)))
def clamp(emitter, out, x, limit):
    elementwise(emitter, out, [x], lambda x: bounded(x, limit))


@routine("vvr", in_place(np.multiply))
def scale(emitter, out, x, factor):
    elementwise(emitter, out, [x], lambda x: x * factor)


@routine("vvvr", in_place(lambda x, y, factor: x - factor * y))
def subtract_scaled(emitter, out, x, y, factor):
    elementwise(emitter, out, [x, y], lambda x, y: x - y * factor)


@routine("vv", in_place(np.tanh))
def hyperbolic_tangent(emitter, out, x):
    elementwise(emitter, out, [x], tanh_formula)


@routine("vv", in_place(np.exp))
def exponential(emitter, out, x):
    elementwise(emitter, out, [x], _exp_formula)


@routine("vv", in_place(plain_sigmoid))
def logistic(emitter, out, x):
    elementwise(emitter, out, [x], sigmoid_formula)


def _plain_copy_padded(out, x):
    lanes = VECTOR_BYTES // out.itemsize
    out[: len(x)] = x
    out[len(x) : -(-len(x) // lanes) * lanes] = 0


@routine("vv", _plain_copy_padded)
def copy_padded(emitter, out, x):
    """As `copy`, of all of x; and fills the last vector with zeros."""
    whole = x.n & -emitter.lanes
    with emitter.when(whole < x.n):
        (out + whole).store(emitter.constant(0.0))
    emitter.call("copy", Row(out, x.n), x)


def _plain_copy_tile(out, x):
    out[...] = x[:, : out.shape[1]]


@routine("mm", _plain_copy_tile)
def copy_tile(emitter, out, x):
    """A matrix, or a part of one: as wide as `out`."""
    with emitter.loop(0, out.rows) as r:
        emitter.call("copy", out.row(r), x.row(r))


def _plain_gather_column(out, W, column, bias):
    out[: len(W)] = W[:, column] + bias[: len(W)]


@routine("vmiv", _plain_gather_column)
def gather_column(emitter, out, W, column, bias):
    """``out = W[:, column] + bias``."""
    with emitter.loop(0, W.rows) as i:
        (out + i).store((W + (i * W.ld + column)).load(1) + (bias + i).load(1))


def _plain_scatter_column(W, column, x, limit):
    W[:, column] = np.clip(W[:, column] + x[: len(W)], -limit, limit)


@routine("mivr", _plain_scatter_column)
def scatter_column(emitter, W, column, x, limit):
    """``W[:, column] += x``, clamped to [-limit, limit]."""
    with emitter.loop(0, W.rows) as i:
        place = W + (i * W.ld + column)
        place.store(bounded(place.load(1) + (x + i).load(1), limit))


def _plain_descend_column(W, column, slope, rate, cap):
    W[:, column] -= W.dtype.type(rate) * np.clip(slope[: len(W)], -cap, cap)


@routine("mivrr", _plain_descend_column)
def descend_column(emitter, W, column, slope, rate, cap):
    """``W[:, column] -= rate slope``, for the gradient `slope` of that column, clamped to [-cap, cap]."""
    with emitter.loop(0, W.rows) as i:
        place = W + (i * W.ld + column)
        place.store(place.load(1) - bounded((slope + i).load(1), cap) * rate)


def _plain_fill(out, value):
    out[:] = value


@routine("vr", _plain_fill)
def fill(emitter, out, value):
    elementwise(emitter, out, [], lambda: value)


# ---- sums ---------------------------------------------------------------------------------------


def widened(part):
    """A vector of fewer lanes filled up with zeros."""
    emitter = part.emitter
    if part.lanes == 1:
        part = part.splat(2).shuffled([0, 2], emitter.constant(0.0).shuffled([0, 1]))
    zeros = emitter.constant(0.0, part.ir.type)
    n = part.lanes
    if n == emitter.lanes:
        return part
    return part.shuffled([*range(n), *([n] * (emitter.lanes - n))], zeros)


def _reduce(emitter, x, formula, combine):
    """Four partial results in vectors; then combined to one number."""
    parts = [emitter.variable(0.0) for _ in range(4)]
    n, wide = x.n, 4 * emitter.lanes
    with emitter.loop(0, n & -wide, wide) as j:
        for v, part in enumerate(parts):
            part.set(formula(part.get(), (x + j + v * emitter.lanes).load()))
    with emitter.loop(n & -wide, n & -emitter.lanes, emitter.lanes) as j:
        parts[0].set(formula(parts[0].get(), (x + j).load()))
    for lanes, j, present in emitter.tail(n):
        with emitter.when(present):
            parts[1].set(formula(parts[1].get(), widened((x + j).load(lanes))))
    a, b, c, d = [part.get() for part in parts]
    return combine(combine(a, b), combine(c, d)).folded(combine)


@routine("v", lambda x: np.dot(x, x), returns=True)
def sum_of_squares(emitter, x):
    return _reduce(emitter, x, lambda s, x: s + x * x, lambda a, b: a + b)


@routine("v", lambda x: (x * 0).sum(), returns=True)
def sum_of_zeros(emitter, x):
    """0 if all are finite, else NaN."""
    return _reduce(emitter, x, lambda s, x: s + x * 0.0, lambda a, b: a + b)


@routine("v", lambda x: np.abs(x).max(), returns=True)
def largest_magnitude(emitter, x):
    """NaN if any element is NaN or infinite: a bound that holds for nothing."""

    def larger(a, b):
        return (a < b).chosen(b, a + b * 0.0)

    return _reduce(emitter, x, lambda m, x: larger(m, x.magnitude()), larger)


def _plain_bound_growth(bound, left, right):
    left, right = np.abs(left), np.abs(right)
    bound[: left.shape[1]] = (left * right.max(axis=1)[:, None]).sum(axis=0)


@routine("vmm", _plain_bound_growth)
def bound_growth(emitter, bound, left, right):
    """``bound[i] = sum over t of |left[t, i]| max |right[t]|``: the most that an element of row i of ``sum over t of
    left_t right_t'`` can be.  Rows are padded."""
    emitter.call("fill", Row(bound, left.cols), emitter.constant(0.0, emitter.element))
    with emitter.loop(0, left.rows) as t:
        row = right.row(t)
        top = emitter.variable(0.0)
        with emitter.loop(0, right.cols, emitter.lanes) as j:
            x = (row + j).load().magnitude()
            top.set((top.get() < x).chosen(x, top.get()))
        highest = top.get().folded(lambda a, b: (a < b).chosen(b, a)).splat(emitter.lanes)
        with emitter.loop(0, left.cols, emitter.lanes) as i:
            x = (left.row(t) + i).load().magnitude()
            (bound + i).store((bound + i).load() + x * highest)


# ---- probabilities ------------------------------------------------------------------------------


@routine("v", lambda y: y.max(), returns=True)
def largest(emitter, y):
    """The largest element of a padded row."""
    top = emitter.variable(y.load())
    with emitter.loop(emitter.lanes, y.n, emitter.lanes) as j:
        top.set(top.get().at_least((y + j).load()))
    return top.get().folded(lambda a, b: a.at_least(b))


def _plain_exponentials(y, top):
    np.exp(y - top, out=y)
    return y.sum()


@routine("vr", _plain_exponentials, returns=True)
def exponentials(emitter, y, top):
    """``y = exp(y - top)`` for a padded row, whose padding is minus infinity; returns their sum."""
    top = top.splat(emitter.lanes)
    total = emitter.variable(0.0)
    with emitter.loop(0, y.n, emitter.lanes) as j:
        e = _exp_formula((y + j).load() - top)
        total.set(total.get() + e)
        (y + j).store(e)
    return total.get().total()


def _plain_softmax(y):
    np.exp(y - y.max(), out=y)
    y /= y.sum()


@routine("v", _plain_softmax)
def softmax_padded(emitter, y):
    """``y = exp(y - max y) / sum of exp(y - max y)``, in place (eqs. 16, 17); the padding of a row is minus infinity,
    and becomes 0."""
    top = emitter.variable(y.load())
    with emitter.loop(emitter.lanes, y.n, emitter.lanes) as j:
        top.set(top.get().at_least((y + j).load()))
    highest = top.get().folded(lambda a, b: a.at_least(b)).splat(emitter.lanes)
    total = emitter.variable(0.0)
    with emitter.loop(0, y.n, emitter.lanes) as j:
        e = _exp_formula((y + j).load() - highest)
        total.set(total.get() + e)
        (y + j).store(e)
    divisor = total.get().total().splat(emitter.lanes)
    with emitter.loop(0, y.n, emitter.lanes) as j:
        (y + j).store((y + j).load() / divisor)
