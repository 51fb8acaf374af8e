/* The losses: what is made of the outputs y of one step of one sequence, and of what was wanted there.
 *
 *     CROSS_ENTROPY  -log softmax(y)[class]                                         dy = softmax(y) - p   (5) to (7)
 *     SQUARED_ERROR  sum_j (y_j - v_j)^2                                            dy = 2 (y - v)
 *     GAUSSIAN       sum_j (log 2 pi + s_j + r_j^2) / 2,  y = (m, s),               dm = r p,
 *                    r = (m - v) p,  p = exp(-s / 2), and finite: no error is none  ds = (1 - r^2) / 2
 *
 * See numpy_kernels/losses.py.
 */

/* ---- softmax -------------------------------------------------------------------------------------------- */

/* exp(y - max y), in place; returns the sum.  `top` is the maximum. */
ALWAYS_INLINE REAL FN(exponentials)(REAL *y, ptrdiff_t ldq, REAL *top) {
    V most = FN(load)(y), total = K(0);
    for (ptrdiff_t j = VL; j < ldq; j += VL) most = FN(at_least)(most, FN(load)(y + j));
    *top = FN(largest)(most);
    most = FN(splat)(*top);
    for (ptrdiff_t j = 0; j < ldq; j += VL) {
        V e = FN(exponential)(FN(load)(y + j) - most);
        total += e;
        FN(store)(y + j, e);
    }
    return FN(sum)(total);
}

/* y (ldq, padding -inf) becomes softmax(y), in place (eqs. 16, 17). */
ALWAYS_INLINE void FN(softmax)(REAL *y, ptrdiff_t ldq) {
    REAL top;
    V total = FN(splat)(FN(exponentials)(y, ldq, &top));
    for (ptrdiff_t j = 0; j < ldq; j += VL) FN(store)(y + j, FN(load)(y + j) / total);
}

/* ---- losses --------------------------------------------------------------------------------------------- */

/* Of some rows, added up in their order; the logarithm of the product of what softmax divides by is taken at once. */
typedef struct {
    double sum, product;
} FN(loss_sum);

/* One row: y has q elements, and its loss counts `weight` times; where gradients are wanted, y becomes dy times `scale`. */
typedef struct {
    ptrdiff_t q;
    REAL weight, scale;
    int gradients;
} FN(row_of_loss);

/* The padding of y is minus infinity, and becomes 0. */
ALWAYS_INLINE void FN(cross_entropy)(FN(loss_sum) *loss, const FN(row_of_loss) *row, REAL *y, int64_t wanted) {
    ptrdiff_t ldq = FN(padded)(row->q);
    REAL top;
    double chosen = (double)y[wanted];
    REAL total = FN(exponentials)(y, ldq, &top);
    if (row->weight == 1) {
        loss->sum += (double)top - chosen;
        loss->product *= (double)total; /* 1 <= total <= q */
    } else {
        loss->sum += (double)row->weight * ((double)top - chosen + log((double)total));
    }
    if (!row->gradients) return;
    V by = FN(splat)(row->scale / total);
    for (ptrdiff_t j = 0; j < ldq; j += VL) FN(store)(y + j, FN(load)(y + j) * by);
    y[wanted] -= row->scale; /* eq. 7 */
}

ALWAYS_INLINE void FN(squared_error)(FN(loss_sum) *loss, const FN(row_of_loss) *row, REAL *y, const REAL *wanted) {
    V total = K(0), scale = FN(splat)(row->scale);
    for (ptrdiff_t j = 0; j < row->q; j += VL) {
        ptrdiff_t n = row->q - j < VL ? row->q - j : VL;
        V e = FN(load_first)(y + j, n) - FN(load_first)(wanted + j, n);
        total += e * e;
        if (row->gradients) FN(store_first)(y + j, scale * (e + e), n);
    }
    loss->sum += (double)row->weight * (double)FN(sum)(total);
}

ALWAYS_INLINE void FN(gaussian)(FN(loss_sum) *loss, const FN(row_of_loss) *row, REAL *y, const REAL *wanted) {
    ptrdiff_t half = row->q / 2;
    REAL *log_variances = y + half;
    V total = K(0), scale = FN(splat)(row->scale);
    for (ptrdiff_t j = 0; j < half; j += VL) {
        ptrdiff_t n = half - j < VL ? half - j : VL;
        V e = FN(load_first)(y + j, n) - FN(load_first)(wanted + j, n), s = FN(load_first)(log_variances + j, n);
        V p = FN(at_most)(FN(exponential)(K(-0.5) * s), FN(splat)(LARGEST)), r = e * p, square = r * r;
        total += s + square;
        if (!row->gradients) continue;
        FN(store_first)(y + j, scale * (r * p), n);
        FN(store_first)(log_variances + j, scale * (K(0.5) * (1 - square)), n);
    }
    const double log_2pi = 1.8378770664093454836;
    loss->sum += (double)row->weight * 0.5 * ((double)FN(sum)(total) + (double)half * log_2pi);
}
