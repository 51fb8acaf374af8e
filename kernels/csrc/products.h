/* Products of matrices and vectors at the speed of the registers.
 *
 * A packed matrix B (k rows, n columns) is cut into panels of a few vectors' width, each stored row
 * after row: the loops then read it once, in order.  Columns beyond n are zero.
 */

/* ---- packing -------------------------------------------------------------------------------------------- */

/* Copies columns j0.. of B[k, j] = src[k * rs + j * cs] to one panel of `width` columns. */
static void FN(pack_panel)(const REAL *src, ptrdiff_t rs, ptrdiff_t cs, ptrdiff_t k, ptrdiff_t cols,
                           ptrdiff_t width, REAL *dst) {
    if (cs == 1) {
        for (ptrdiff_t i = 0; i < k; i++, dst += width, src += rs) FN(copy_widened)(dst, src, cols, width);
        return;
    }
    ptrdiff_t j = 0;
#if HAVE_TRANSPOSE
    for (; rs == 1 && j + VL <= cols; j += VL) {
        ptrdiff_t i = 0;
        for (; i + VL <= k; i += VL) {
            V rows[VBYTES / sizeof(REAL)];
            for (ptrdiff_t u = 0; u < VL; u++) rows[u] = FN(load)(src + i + (j + u) * cs);
            FN(transpose)(rows);
            for (ptrdiff_t u = 0; u < VL; u++) FN(store)(dst + (i + u) * width + j, rows[u]);
        }
        for (; i < k; i++)
            for (ptrdiff_t u = 0; u < VL; u++) dst[i * width + j + u] = src[i + (j + u) * cs];
    }
#endif
    for (; j < cols; j++)
        for (ptrdiff_t i = 0; i < k; i++) dst[i * width + j] = src[i * rs + j * cs];
    for (ptrdiff_t i = 0; i < k; i++)
        for (ptrdiff_t j = cols; j < width; j++) dst[i * width + j] = 0;
}

/* Width in vectors of the matrix-vector panel that starts with `left` vectors to go. */
ALWAYS_INLINE ptrdiff_t FN(gemv_panel_vecs)(ptrdiff_t left) {
    return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* Packs for gemv: panels of 8, 4, 2, 1 vectors.  Size: k * padded(n). */
static void FN(pack_gemv)(const REAL *src, ptrdiff_t rs, ptrdiff_t cs, ptrdiff_t k, ptrdiff_t n, REAL *dst) {
    for (ptrdiff_t j = 0; j < n;) {
        ptrdiff_t width = FN(gemv_panel_vecs)((n - j + VL - 1) / VL) * VL;
        FN(pack_panel)(src + j * cs, rs, cs, k, n - j < width ? n - j : width, width, dst);
        dst += k * width;
        j += width;
    }
}

/* Packs for gemm: panels of GEMM_VECS vectors.  Size: k * gemm_padded(n). */
ALWAYS_INLINE ptrdiff_t FN(gemm_padded)(ptrdiff_t n) { return (n + NR - 1) / NR * NR; }

static void FN(pack_gemm)(const REAL *src, ptrdiff_t rs, ptrdiff_t cs, ptrdiff_t k, ptrdiff_t n, REAL *dst) {
    for (ptrdiff_t j = 0; j < n; j += NR, dst += k * NR)
        FN(pack_panel)(src + j * cs, rs, cs, k, n - j < NR ? n - j : NR, NR, dst);
}

/* ---- a packed matrix times a vector --------------------------------------------------------------------- */

/* An element s of the product, before it is stored: added to z, or the cell's h of  input z  and  recurrent s,
 * or the cell's dz of  dh = s + z  at the state y. */
ALWAYS_INLINE void FN(finish)(int epilogue, int cell, V s, const REAL *z, const REAL *y, REAL *out) {
    V input = FN(load)(z);
    if (epilogue == EPILOGUE_CELL) FN(store)(out, FN(cell_forward)(cell, input, s));
    else if (epilogue == EPILOGUE_SLOPE) FN(store)(out, FN(cell_backward)(cell, FN(load)(y), s + input));
    else FN(store)(out, s + input);
}

/* One panel of `vecs` vectors; `ways` partial sums hide the latency of narrow panels. */
ALWAYS_INLINE void FN(gemv_panel)(int vecs, int ways, const REAL *b, ptrdiff_t k, const REAL *x,
                                  int epilogue, int cell, const REAL *z, const REAL *y, REAL *out) {
    V acc[GEMV_VECS];
    for (int v = 0; v < vecs * ways; v++) acc[v] = K(0);
    ptrdiff_t i = 0;
    for (; i + ways <= k; i += ways)
        for (int w = 0; w < ways; w++, b += vecs * VL) {
            V xi = FN(splat)(x[i + w]);
            for (int v = 0; v < vecs; v++) acc[w * vecs + v] += xi * FN(load)(b + v * VL);
        }
    for (; i < k; i++, b += vecs * VL)
        for (int v = 0; v < vecs; v++) acc[v] += FN(splat)(x[i]) * FN(load)(b + v * VL);
    for (int half = ways / 2; half; half /= 2)
        for (int v = 0; v < half * vecs; v++) acc[v] += acc[half * vecs + v];
    for (int v = 0; v < vecs; v++) FN(finish)(epilogue, cell, acc[v], z + v * VL, y + v * VL, out + v * VL);
}

#define GEMV_PANEL(vecs, ways, v)                                                                         \
    FN(gemv_panel)(vecs, ways, b + (v) * VL * k, k, x, epilogue, cell, z + (v) * VL, y + (v) * VL, out + (v) * VL)

/* out = epilogue(x B, z, y) for B (k, n) packed by pack_gemv; z, y, out have padded rows.
 *
 * Called with `backwards` every other time, it starts with the panels that the call before left in the
 * cache: at h = 100 in double precision the bare product takes 7% less. */
ALWAYS_INLINE void FN(gemv)(const REAL *b, ptrdiff_t k, ptrdiff_t n, const REAL *x, int epilogue,
                            int cell, const REAL *z, const REAL *y, REAL *out, int backwards) {
    ptrdiff_t vecs = (n + VL - 1) / VL, wide = vecs / 8 * 8;
    if (!backwards)
        for (ptrdiff_t v = 0; v < wide; v += 8) GEMV_PANEL(8, 1, v);
    else if (vecs & 1)
        GEMV_PANEL(1, 8, vecs - 1);
    if (backwards && vecs & 2) GEMV_PANEL(2, 4, vecs & ~(ptrdiff_t)3);
    if (vecs & 4) GEMV_PANEL(4, 2, wide);
    if (!backwards && vecs & 2) GEMV_PANEL(2, 4, vecs & ~(ptrdiff_t)3);
    if (backwards)
        for (ptrdiff_t v = wide - 8; v >= 0; v -= 8) GEMV_PANEL(8, 1, v);
    else if (vecs & 1)
        GEMV_PANEL(1, 8, vecs - 1);
}

/* As gemv with those of its panels that start in the vectors from .. end of a row.  Sharing panels out keeps the bits:
 * they depend on the panel's width, which the whole row decides. */
ALWAYS_INLINE void FN(gemv_some)(const REAL *b, ptrdiff_t k, ptrdiff_t n, const REAL *x, int epilogue, int cell,
                                 const REAL *z, const REAL *y, REAL *out, ptrdiff_t from, ptrdiff_t end) {
    ptrdiff_t vecs = (n + VL - 1) / VL, wide = vecs / 8 * 8, four = wide, two = vecs & ~(ptrdiff_t)3, one = vecs - 1;
    for (ptrdiff_t v = (from + 7) / 8 * 8; v < wide && v < end; v += 8) GEMV_PANEL(8, 1, v);
    if (vecs & 4 && from <= four && four < end) GEMV_PANEL(4, 2, four);
    if (vecs & 2 && from <= two && two < end) GEMV_PANEL(2, 4, two);
    if (vecs & 1 && from <= one && one < end) GEMV_PANEL(1, 8, one);
}

/* The first vector of a panel of gemv at or after vector v. */
ALWAYS_INLINE ptrdiff_t FN(panel_start)(ptrdiff_t n, ptrdiff_t v) {
    ptrdiff_t vecs = (n + VL - 1) / VL, wide = vecs / 8 * 8, up = (v + 7) / 8 * 8;
    if (up <= wide) return up;
    ptrdiff_t two = vecs & ~(ptrdiff_t)3, one = vecs & ~(ptrdiff_t)1;
    return v <= two ? two : v <= one ? one : vecs;
}

/* A member's vectors from .. end of a row of n elements, whole panels of gemv. */
static void FN(share_panels)(const team_member *member, ptrdiff_t n, ptrdiff_t *from, ptrdiff_t *end) {
    team_share((n + VL - 1) / VL, member->rank, member->size, from, end);
    *from = FN(panel_start)(n, *from);
    *end = FN(panel_start)(n, *end);
}

/* A member's elements from .. end of a row of n, whole vectors but for the last. */
static void FN(share_vectors)(const team_member *member, ptrdiff_t n, ptrdiff_t *from, ptrdiff_t *end) {
    team_share((n + VL - 1) / VL, member->rank, member->size, from, end);
    *from = *from * VL < n ? *from * VL : n;
    *end = *end * VL < n ? *end * VL : n;
}

/* ---- a matrix as the user has it, for too few products to pack for -------------------------------------- */

#define STRIP 16 /* rows of a matrix */

/* Rows of a matrix that are multiplied at once: their sums fill a vector. */
#define ROWS (VBYTES / sizeof(REAL) < 4 ? 4 : (ptrdiff_t)(VBYTES / sizeof(REAL)))

/* sums[r] = sum over lanes of acc[r]. */
ALWAYS_INLINE void FN(sum_each)(V *acc, REAL *sums) {
#if HAVE_TRANSPOSE
    for (ptrdiff_t g = 0; g < ROWS; g += VL) {
        FN(transpose)(acc + g);
        V total = acc[g];
        for (ptrdiff_t r = 1; r < VL; r++) total += acc[g + r];
        FN(store)(sums + g, total);
    }
#else
    for (ptrdiff_t r = 0; r < ROWS; r++) sums[r] = FN(sum)(acc[r]);
#endif
}

/* out[i] += sum_j W[i, j] x[j], W (m, n). */
static void FN(add_rows_times)(const REAL *w, ptrdiff_t m, ptrdiff_t n, const REAL *x, REAL *out) {
    const VI rest = FN(last_lanes)(n % VL);
    ptrdiff_t whole = n / VL * VL, i = 0;
    if (n >= VL)
        for (; i + ROWS <= m; i += ROWS, w += ROWS * n) {
            V acc[ROWS];
            REAL sums[ROWS];
            for (ptrdiff_t r = 0; r < ROWS; r++) acc[r] = K(0);
            for (ptrdiff_t j = 0; j < whole; j += VL) {
                V xj = FN(load)(x + j);
                for (ptrdiff_t r = 0; r < ROWS; r++) acc[r] += FN(load)(w + r * n + j) * xj;
            }
            if (whole < n) {
                V xj = FN(from_bits)(FN(bits)(FN(load)(x + n - VL)) & rest);
                for (ptrdiff_t r = 0; r < ROWS; r++)
                    acc[r] += FN(from_bits)(FN(bits)(FN(load)(w + r * n + n - VL)) & rest) * xj;
            }
            FN(sum_each)(acc, sums);
            for (ptrdiff_t r = 0; r < ROWS; r++) out[i + r] += sums[r];
        }
    for (; i < m; i++, w += n) {
        V acc = K(0);
        for (ptrdiff_t j = 0; j < whole; j += VL) acc += FN(load)(w + j) * FN(load)(x + j);
        REAL s = FN(sum)(acc);
        for (ptrdiff_t j = whole; j < n; j++) s += w[j] * x[j];
        out[i] += s;
    }
}

/* out[j] += sum_i x[i] W[i, j], W (m, n). */
static void FN(add_times_rows)(const REAL *w, ptrdiff_t m, ptrdiff_t n, const REAL *x, REAL *out) {
    const VI rest = FN(last_lanes)(n % VL);
    ptrdiff_t whole = n / VL * VL;
    for (; n >= VL && m >= 8; m -= 8, w += 8 * n, x += 8)
        for (ptrdiff_t j = 0; j < n; j += VL) {
            int last = j == whole; /* the last vector ends with the row, and overlaps the one before */
            ptrdiff_t at = last ? n - VL : j;
            V before = FN(load)(out + at), acc = before;
            for (int r = 0; r < 8; r++) acc += FN(splat)(x[r]) * FN(load)(w + r * n + at);
            FN(store)(out + at, last ? FN(select)(rest, acc, before) : acc);
        }
    for (; m > 0; m--, w += n, x++)
        for (ptrdiff_t j = 0; j < n; j++) out[j] += *x * w[j];
}

/* The same for m rows of x and of out, W (n, k):  out_r += W x_r,  a strip of W at a time, which all rows use
 * while it is in the first cache. */
static void FN(rows_times_strips)(const REAL *w, ptrdiff_t n, ptrdiff_t k, ptrdiff_t m, const REAL *x, ptrdiff_t ldx,
                                  REAL *out, ptrdiff_t ldo) {
    ptrdiff_t strip = m > 1 ? STRIP : n;
    for (ptrdiff_t i = 0; i < n; i += strip)
        for (ptrdiff_t r = 0; r < m; r++)
            FN(add_rows_times)(w + i * k, n - i < strip ? n - i : strip, k, x + r * ldx, out + r * ldo + i);
}

/* out_r += x_r W,  W (n, k), likewise. */
static void FN(strips_times_rows)(const REAL *w, ptrdiff_t n, ptrdiff_t k, ptrdiff_t m, const REAL *x, ptrdiff_t ldx,
                                  REAL *out, ptrdiff_t ldo) {
    ptrdiff_t strip = m > 1 ? STRIP : n;
    for (ptrdiff_t i = 0; i < n; i += strip)
        for (ptrdiff_t r = 0; r < m; r++)
            FN(add_times_rows)(w + i * k, n - i < strip ? n - i : strip, k, x + r * ldx + i, out + r * ldo);
}

/* ---- matrix times matrix -------------------------------------------------------------------------------- */

/* A step of gradient descent that is taken as a gradient's tile leaves the registers, so that the gradient
 * itself is never written:  W -= rate * clamp(C, cap). */
typedef struct {
    REAL *weights; /* laid out as C */
    REAL rate, cap;
} FN(descent);

/* A tile of C (rows x vecs vectors) for one panel of B:  C (+)= sum_k a[r * ams + k * aks] b[k * bks + ..].
 * With a limit, every partial sum is clamped to [-limit, limit] and k runs downwards. */
ALWAYS_INLINE void FN(gemm_tile)(int rows, int vecs, int clamped, ptrdiff_t k, const REAL *a, ptrdiff_t ams,
                                 ptrdiff_t aks, const REAL *b, ptrdiff_t bks, REAL *c, ptrdiff_t ldc,
                                 int accumulate, REAL limit, const FN(descent) *descent) {
    V acc[8][GEMM_VECS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++) acc[r][v] = accumulate ? FN(load)(c + r * ldc + v * VL) : K(0);
    if (clamped) {
        V high = FN(splat)(limit), low = FN(splat)(-limit);
        for (ptrdiff_t i = k - 1; i >= 0; i--)
            for (int r = 0; r < rows; r++) {
                V ar = FN(splat)(a[r * ams + i * aks]);
                for (int v = 0; v < vecs; v++) {
                    V s = acc[r][v] + ar * FN(load)(b + i * bks + v * VL);
                    acc[r][v] = FN(at_least)(FN(at_most)(s, high), low);
                }
            }
    } else {
        for (ptrdiff_t i = 0; i < k; i++, a += aks, b += bks) {
            V bv[GEMM_VECS];
            for (int v = 0; v < vecs; v++) bv[v] = FN(load)(b + v * VL);
            for (int r = 0; r < rows; r++) {
                V ar = FN(splat)(a[r * ams]);
                for (int v = 0; v < vecs; v++) acc[r][v] += ar * bv[v];
            }
        }
    }
    if (descent) {
        V rate = FN(splat)(descent->rate), high = FN(splat)(descent->cap), low = -high;
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vecs; v++) {
                REAL *w = descent->weights + r * ldc + v * VL;
                FN(store)(w, FN(load)(w) - rate * FN(at_least)(FN(at_most)(acc[r][v], high), low));
            }
        return;
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++) FN(store)(c + r * ldc + v * VL, acc[r][v]);
}

#define GEMM_CASE(rows, vecs)                                                                             \
    case (rows) * 4 + (vecs):                                                                             \
        FN(gemm_tile)(rows, vecs, clamped, k, a, ams, aks, b, bks, c, ldc, accumulate, limit, descent);   \
        break;

ALWAYS_INLINE void FN(gemm_any_tile)(ptrdiff_t rows, ptrdiff_t vecs, int clamped, ptrdiff_t k, const REAL *a,
                                     ptrdiff_t ams, ptrdiff_t aks, const REAL *b, ptrdiff_t bks, REAL *c,
                                     ptrdiff_t ldc, int accumulate, REAL limit, const FN(descent) *descent) {
    switch (rows * 4 + vecs) {
#if VBYTES == 64
        GEMM_CASE(8, 3) GEMM_CASE(8, 2) GEMM_CASE(8, 1)
#endif
        GEMM_CASE(4, 3) GEMM_CASE(4, 2) GEMM_CASE(4, 1)
        GEMM_CASE(2, 3) GEMM_CASE(2, 2) GEMM_CASE(2, 1)
        GEMM_CASE(1, 3) GEMM_CASE(1, 2) GEMM_CASE(1, 1)
    }
}

/* A tile with fewer columns than its vectors have, to a buffer of NR columns, with zeros in the padding, and back:
 * GEMM_VECS vectors at most.  (Of a loop over them GCC makes `rep movs`: of a layer of 16 hidden units the backward
 * pass takes a quarter longer.) */
ALWAYS_INLINE void FN(copy_tile)(int pads, REAL *dst, ptrdiff_t ldd, const REAL *src, ptrdiff_t lds, ptrdiff_t rows,
                                 ptrdiff_t cols) {
    for (ptrdiff_t r = 0; r < rows; r++, dst += ldd, src += lds) {
        ptrdiff_t whole = cols / VL * VL;
        if (cols >= VL) FN(store)(dst, FN(load)(src));
        if (cols >= 2 * VL) FN(store)(dst + VL, FN(load)(src + VL));
        if (pads) FN(store)(dst + whole, K(0));
        FN(copy_few)(dst + whole, src + whole, cols - whole);
    }
}
ALWAYS_INLINE void FN(load_tile)(REAL *buffer, const REAL *c, ptrdiff_t ldc, ptrdiff_t rows, ptrdiff_t cols) {
    FN(copy_tile)(1, buffer, NR, c, ldc, rows, cols);
}
ALWAYS_INLINE void FN(store_tile)(REAL *c, ptrdiff_t ldc, const REAL *buffer, ptrdiff_t rows, ptrdiff_t cols) {
    FN(copy_tile)(0, c, ldc, buffer, NR, rows, cols);
}

/* C (m, n) (+)= A B, with A[i, l] = a[i * ams + l * aks] and panel p of B, row l, at b + p * bps + l * bks. */
ALWAYS_INLINE void FN(gemm_general)(int clamped, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const REAL *a,
                                    ptrdiff_t ams, ptrdiff_t aks, const REAL *b, ptrdiff_t bks, ptrdiff_t bps,
                                    REAL *c, ptrdiff_t ldc, int accumulate, REAL limit,
                                    const FN(descent) *descent) {
    for (ptrdiff_t j = 0; j < n; j += NR, b += bps) {
        ptrdiff_t cols = n - j < NR ? n - j : NR, vecs = (cols + VL - 1) / VL;
        for (ptrdiff_t i = 0, rows; i < m; i += rows) {
            rows = m - i >= GEMM_ROWS ? GEMM_ROWS : m - i >= 4 ? 4 : m - i >= 2 ? 2 : 1;
            const REAL *ai = a + i * ams;
            REAL *ci = c + i * ldc + j, *wi = NULL;
            FN(descent) here, *step = NULL;
            if (descent) {
                here = *descent;
                here.weights = wi = here.weights + i * ldc + j;
                step = &here;
            }
            if (cols == vecs * VL) {
                FN(gemm_any_tile)(rows, vecs, clamped, k, ai, ams, aks, b, bks, ci, ldc, accumulate, limit, step);
                continue;
            }
            /* the last vector ends beyond C */
            REAL edge[8 * GEMM_VECS * (VBYTES / sizeof(REAL))];
            REAL weights[8 * GEMM_VECS * (VBYTES / sizeof(REAL))];
            if (accumulate) FN(load_tile)(edge, ci, ldc, rows, cols);
            if (step) {
                FN(load_tile)(weights, wi, ldc, rows, cols);
                here.weights = weights;
            }
            FN(gemm_any_tile)(rows, vecs, clamped, k, ai, ams, aks, b, bks, edge, NR, accumulate, limit, step);
            if (step) FN(store_tile)(wi, ldc, weights, rows, cols);
            else FN(store_tile)(ci, ldc, edge, rows, cols);
        }
    }
}

static void FN(gemm)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const REAL *a, ptrdiff_t ams, ptrdiff_t aks,
                     const REAL *b, ptrdiff_t bks, ptrdiff_t bps, REAL *c, ptrdiff_t ldc, int accumulate,
                     const FN(descent) *descent) {
    FN(gemm_general)(0, m, n, k, a, ams, aks, b, bks, bps, c, ldc, accumulate, 0, descent);
}

static void FN(gemm_clamped)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const REAL *a, ptrdiff_t ams, ptrdiff_t aks,
                             const REAL *b, ptrdiff_t bks, ptrdiff_t bps, REAL *c, ptrdiff_t ldc,
                             int accumulate, REAL limit, const FN(descent) *descent) {
    FN(gemm_general)(1, m, n, k, a, ams, aks, b, bks, bps, c, ldc, accumulate, limit, descent);
}

/* C (m, n) (+)= A B for B (k, n) packed by pack_gemm, rows of A one after the other. */
ALWAYS_INLINE void FN(times_panels)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const REAL *a, ptrdiff_t lda,
                                    const REAL *panels, REAL *c, ptrdiff_t ldc, int accumulate) {
    FN(gemm)(m, n, k, a, lda, 1, panels, NR, k * NR, c, ldc, accumulate, NULL);
}

/* ---- a product on several threads ----------------------------------------------------------------------- */

/* A rectangle of a matrix. */
typedef struct {
    ptrdiff_t row, rows, column, columns;
} FN(tile);

enum { FN(MOST_TILES) = 3 };

/* What a member computes of C (m, n), a product with panels: rectangles, of whole panels and of whole blocks of rows;
 * returns their number.  It stays with its own panels as far as that shares the work out evenly. */
static int FN(share_tiles)(const team_member *member, ptrdiff_t m, ptrdiff_t n, FN(tile) *tiles) {
    ptrdiff_t blocks = (m + GEMM_ROWS - 1) / GEMM_ROWS, panels = (n + NR - 1) / NR, unit, end;
    int count = 0;
    team_share(blocks * panels, member->rank, member->size, &unit, &end);
    while (unit < end) {
        ptrdiff_t panel = unit / blocks, block = unit % blocks, wide = block ? 0 : (end - unit) / blocks;
        ptrdiff_t high = wide ? blocks : blocks - block < end - unit ? blocks - block : end - unit;
        ptrdiff_t row = block * GEMM_ROWS, column = panel * NR;
        ptrdiff_t rows = high * GEMM_ROWS, columns = (wide ? wide : 1) * NR;
        tiles[count++] = (FN(tile)){row, m - row < rows ? m - row : rows, column, n - column < columns ? n - column : columns};
        unit += (wide ? wide : 1) * high;
    }
    return count;
}

/* times_panels for a rectangle of C. */
ALWAYS_INLINE void FN(tile_times_panels)(const FN(tile) *t, ptrdiff_t k, const REAL *a, ptrdiff_t lda,
                                         const REAL *panels, REAL *c, ptrdiff_t ldc, int accumulate) {
    FN(times_panels)(t->rows, t->columns, k, a + t->row * lda, lda, panels + t->column * k,
                     c + t->row * ldc + t->column, ldc, accumulate);
}

/* times_panels by all members, each its tiles; they meet neither before nor after. */
static void FN(team_times_panels)(const team_member *member, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const REAL *a,
                                  ptrdiff_t lda, const REAL *panels, REAL *c, ptrdiff_t ldc, int accumulate) {
    FN(tile) tiles[FN(MOST_TILES)];
    int count = FN(share_tiles)(member, m, n, tiles);
    for (int i = 0; i < count; i++) FN(tile_times_panels)(&tiles[i], k, a, lda, panels, c, ldc, accumulate);
}

/* C (m, n) (+)= A' B likewise, for A (k, m) with rows `lda` apart. */
static void FN(team_gemm_turned)(const team_member *member, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const REAL *a,
                                 ptrdiff_t lda, const REAL *panels, REAL *c, ptrdiff_t ldc, int accumulate) {
    FN(tile) tiles[FN(MOST_TILES)];
    int count = FN(share_tiles)(member, m, n, tiles);
    for (int i = 0; i < count; i++) {
        const FN(tile) *t = &tiles[i];
        FN(gemm)(t->rows, t->columns, k, a + t->row, 1, lda, panels + t->column * k, NR, k * NR,
                 c + t->row * ldc + t->column, ldc, accumulate, NULL);
    }
}

/* Panels of n columns that a member fills: columns from .. end. */
static void FN(share_columns)(const team_member *member, ptrdiff_t n, ptrdiff_t *from, ptrdiff_t *end) {
    team_share((n + NR - 1) / NR, member->rank, member->size, from, end);
    *from = *from * NR < n ? *from * NR : n;
    *end = *end * NR < n ? *end * NR : n;
}

/* Rows of n elements each, `rows` of them from src on and `at` rows into panels of k rows: the columns from .. end,
 * from a panel's first on. */
static void FN(pack_columns)(const REAL *src, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t from, ptrdiff_t end, ptrdiff_t at,
                             ptrdiff_t k, REAL *panels) {
    for (ptrdiff_t j = from; j < end; j += NR)
        FN(pack_panel)(src + j, n, 1, rows, end - j < NR ? end - j : NR, NR, panels + j * k + at * NR);
}
