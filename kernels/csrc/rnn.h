/* Forward, BPTT and sampling of one sequence.
 *
 *     h_t  = tanh(Wxh x_t + Whh h_{t-1} + bh)          (1)
 *     y_t  = Why h_t + by,  ps_t = softmax(y_t)        (2), (16), (17)
 *     dy_t = ps_t - p_t                                (7)
 *     dh_t = Why' dy_t + Whh' dz_{t+1}                 (9), (12)
 *     dz_t = dh_t (1 - h_t^2)                          (10)
 *
 * Only Whh h_{t-1} and Whh' dz_{t+1} wait for the step before.  Time is cut into blocks: within one,
 * all else is a product over all its steps.  Rows of a block are padded to whole vectors, so that no
 * loop has a tail, and stay in the cache.  For a few steps matrices are used as they are; for more,
 * packing them first pays.
 */

#define BLOCK 64        /* time steps */
#define PACK_FROM 8     /* time steps from which on matrices are packed */
#define STRIP 16        /* rows of Why that all steps use while they are in the first cache */

/* ---- work space ------------------------------------------------------------------------------- */

typedef struct {
    REAL *states;    /* (BLOCK+1, ldh), row 0 the state before the block */
    REAL *dz;        /* (BLOCK+1, ldh), row BLOCK.. the one after the block */
    REAL *dy;        /* (BLOCK, ldq) logits, then their gradient */
    REAL *inputs;    /* (BLOCK, ldd) */
    REAL *zeros;     /* (ldh) */
    REAL *Wxh;       /* (d, ldh) transposed; then the gradient dWxh, transposed */
    REAL *Whh;       /* packed for matrix-vector products: of the transpose forward, as it is backward */
    REAL *Why;       /* packed for matrix products, or for matrix-vector products in sampling */
    REAL *sums;      /* (4, max(ldh, ldq, ldd)) bounds and row sums */
    REAL *bias_h;    /* (ldh) */
    REAL *bias_y;    /* (ldq), minus infinity in the padding */
    ptrdiff_t *blame; /* (h) see blame_columns */
    int dense;       /* one-hot inputs are multiplied out, see prepare_forward */
    ptrdiff_t size;  /* elements in all */
} FN(space);

static REAL *FN(take)(REAL *base, ptrdiff_t *used, ptrdiff_t n) {
    REAL *p = base ? base + *used : NULL;
    *used += (n + 63) / 64 * 64;
    return p;
}

static FN(space) FN(layout)(void *work, ptrdiff_t T, ptrdiff_t d, ptrdiff_t h, ptrdiff_t q) {
    ptrdiff_t ldh = FN(padded)(h), ldq = FN(padded)(q), ldd = FN(padded)(d), used = 0;
    ptrdiff_t steps = T < BLOCK ? T : BLOCK, widest = ldh > ldq ? ldh : ldq;
    int packed = T >= PACK_FROM;
    REAL *base = work ? (REAL *)(((uintptr_t)work + 63) & ~(uintptr_t)63) : NULL;
    FN(space) s;
    if (ldd > widest) widest = ldd;
    s.states = FN(take)(base, &used, (steps + 1) * ldh);
    s.dz = FN(take)(base, &used, (steps + 1) * ldh);
    s.dy = FN(take)(base, &used, (steps + 1) * ldq);
    s.inputs = FN(take)(base, &used, steps * ldd);
    s.zeros = FN(take)(base, &used, ldh);
    s.Wxh = FN(take)(base, &used, d * ldh);
    s.Whh = FN(take)(base, &used, packed ? h * ldh : 0);
    s.Why = FN(take)(base, &used,
                     packed ? (h * FN(gemm_padded)(q) > q * FN(gemm_padded)(h) ? h * FN(gemm_padded)(q)
                                                                               : q * FN(gemm_padded)(h))
                            : 0);
    s.sums = FN(take)(base, &used, 4 * widest);
    s.bias_h = FN(take)(base, &used, ldh);
    s.bias_y = FN(take)(base, &used, ldq);
    s.blame = (ptrdiff_t *)FN(take)(base, &used, (h * (ptrdiff_t)sizeof(ptrdiff_t) + (ptrdiff_t)sizeof(REAL) - 1) /
                                                 (ptrdiff_t)sizeof(REAL));
    s.dense = 0;
    s.size = used + 64;
    return s;
}

static ptrdiff_t FN(workspace_size)(ptrdiff_t T, ptrdiff_t d, ptrdiff_t h, ptrdiff_t q) {
    return FN(layout)(NULL, T, d, h, q).size;
}

ALWAYS_INLINE void FN(fill)(REAL *p, ptrdiff_t n, REAL value) {
    for (ptrdiff_t i = 0; i < n; i++) p[i] = value;
}

/* ---- forward ---------------------------------------------------------------------------------- */

/* Transposing Wxh pays when most of its columns are wanted. */
ALWAYS_INLINE int FN(transposes_inputs)(const rnn_arguments *a) {
    return a->indices && a->T >= PACK_FROM && 2 * a->T >= a->d;
}

static int FN(all_finite)(const REAL *p, ptrdiff_t n) {
    V acc[4] = {K(0), K(0), K(0), K(0)}; /* 0 x is 0 or NaN */
    ptrdiff_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int v = 0; v < 4; v++) acc[v] += K(0) * FN(load)(p + i + v * VL);
    REAL s = FN(sum)((acc[0] + acc[1]) + (acc[2] + acc[3]));
    for (; i < n; i++) s += 0 * p[i];
    return s == 0;
}

/* Packs what forward and sample need.
 *
 * A column of Wxh is the product with a one-hot vector only while the rest of Wxh is finite: 0 times NaN is
 * NaN.  Where it is not, the product is made in full. */
static void FN(prepare_forward)(const rnn_arguments *a, FN(space) *s) {
    ptrdiff_t d = a->d, h = a->h, q = a->q;
    const REAL *Wxh = a->params[WXH], *Whh = a->params[WHH];
    FN(copy_padded)(s->bias_h, a->params[BH], h);
    FN(copy_row)(s->bias_y, a->params[BY], q);
    for (ptrdiff_t j = q; j < FN(padded)(q); j++) s->bias_y[j] = -(REAL)INFINITY;
    s->dense = a->indices && !FN(all_finite)(Wxh, h * d);
    if (FN(transposes_inputs)(a)) FN(pack_panel)(Wxh, 1, d, d, h, FN(padded)(h), s->Wxh);
    if (a->T >= PACK_FROM) FN(pack_gemv)(Whh, 1, h, h, h, s->Whh);
}

/* out (ldh) = Wxh x + bh for a class index: a column. */
ALWAYS_INLINE void FN(project_index)(const rnn_arguments *a, const FN(space) *s, int64_t index, REAL *out) {
    ptrdiff_t h = a->h, ldh = FN(padded)(h);
    if (s->dense) {
        FN(fill)(s->inputs, FN(padded)(a->d), 0);
        s->inputs[index] = 1;
        FN(copy_row)(out, s->bias_h, ldh);
        FN(add_rows_times)(a->params[WXH], h, a->d, s->inputs, out);
        return;
    }
    if (FN(transposes_inputs)(a)) {
        const REAL *column = s->Wxh + index * ldh;
        for (ptrdiff_t i = 0; i < ldh; i += VL)
            FN(store)(out + i, FN(load)(column + i) + FN(load)(s->bias_h + i));
        return;
    }
    const REAL *column = (const REAL *)a->params[WXH] + index;
    for (ptrdiff_t i = 0; i < h; i++) out[i] = s->bias_h[i] + column[i * a->d];
    for (ptrdiff_t i = h; i < ldh; i++) out[i] = 0;
}

/* Wxh x_t + bh for steps t0 .. t0 + n, into rows 1 .. n of the block's states. */
static void FN(project_block)(const rnn_arguments *a, const FN(space) *s, ptrdiff_t t0, ptrdiff_t n) {
    ptrdiff_t d = a->d, h = a->h, ldh = FN(padded)(h), ldd = FN(padded)(d);
    for (ptrdiff_t t = 0; t < n; t++) {
        REAL *row = s->states + (t + 1) * ldh;
        if (a->indices) {
            FN(project_index)(a, s, a->indices[t0 + t], row);
        } else {
            FN(copy_padded)(s->inputs + t * ldd, (const REAL *)a->x + (t0 + t) * d, d);
            FN(copy_row)(row, s->bias_h, ldh);
            FN(add_rows_times)(a->params[WXH], h, d, s->inputs + t * ldd, row);
        }
    }
}

/* row = tanh(row + Whh before), in place (eq. 1). */
ALWAYS_INLINE void FN(recurrent_step)(const rnn_arguments *a, const FN(space) *s, ptrdiff_t t, const REAL *before, REAL *row) {
    ptrdiff_t h = a->h, ldh = FN(padded)(h);
    if (a->T >= PACK_FROM) {
        FN(gemv)(s->Whh, h, h, before, EPILOGUE_TANH, row, row, row, t & 1);
        return;
    }
    FN(add_rows_times)(a->params[WHH], h, h, before, row);
    for (ptrdiff_t i = 0; i < ldh; i += VL) FN(store)(row + i, FN(tangent)(FN(load)(row + i)));
}

/* y (ldq, padding -inf) becomes softmax(y), in place (eqs. 16, 17). */
ALWAYS_INLINE void FN(softmax)(REAL *y, ptrdiff_t ldq) {
    V top = FN(load)(y), total = K(0);
    for (ptrdiff_t j = VL; j < ldq; j += VL) top = FN(at_least)(top, FN(load)(y + j));
    top = FN(splat)(FN(largest)(top));
    for (ptrdiff_t j = 0; j < ldq; j += VL) {
        V e = FN(exponential)(FN(load)(y + j) - top);
        total += e;
        FN(store)(y + j, e);
    }
    total = FN(splat)(FN(sum)(total));
    for (ptrdiff_t j = 0; j < ldq; j += VL) FN(store)(y + j, FN(load)(y + j) / total);
}

static void FN(forward)(const rnn_arguments *a) {
    ptrdiff_t T = a->T, h = a->h, q = a->q, ldh = FN(padded)(h), ldq = FN(padded)(q);
    FN(space) s = FN(layout)(a->work, T, a->d, h, q);
    REAL *hs = a->hs, *ps = a->ps;
    int packed = T >= PACK_FROM;
    FN(prepare_forward)(a, &s);
    if (packed) FN(pack_gemm)(a->params[WHY], 1, h, h, q, s.Why);
    FN(copy_padded)(s.states, hs, h);
    for (ptrdiff_t t0 = 0; t0 < T; t0 += BLOCK) {
        ptrdiff_t n = T - t0 < BLOCK ? T - t0 : BLOCK;
        FN(project_block)(a, &s, t0, n);
        for (ptrdiff_t t = 0; t < n; t++) {
            REAL *row = s.states + (t + 1) * ldh, *y = s.dy + t * ldq;
            FN(recurrent_step)(a, &s, t, row - ldh, row);
            FN(copy_row)(hs + (t0 + t + 1) * h, row, h);
            FN(copy_row)(y, s.bias_y, ldq);
        }
        if (packed) {
            FN(gemm)(n, ldq, h, s.states + ldh, ldh, 1, s.Why, NR, h * NR, s.dy, ldq, 1, NULL);
        } else {
            for (ptrdiff_t i = 0; i < q; i += STRIP)
                for (ptrdiff_t t = 0; t < n; t++)
                    FN(add_rows_times)((const REAL *)a->params[WHY] + i * h, q - i < STRIP ? q - i : STRIP, h,
                                       s.states + (t + 1) * ldh, s.dy + t * ldq + i);
        }
        for (ptrdiff_t t = 0; t < n; t++) {
            FN(softmax)(s.dy + t * ldq, ldq);
            FN(copy_row)(ps + (t0 + t) * q, s.dy + t * ldq, q);
        }
        FN(copy_row)(s.states, s.states + n * ldh, ldh);
    }
}

/* The recurrent part of forward alone. */
static void FN(recurrence)(const rnn_arguments *a) {
    ptrdiff_t T = a->T, h = a->h, ldh = FN(padded)(h);
    FN(space) s = FN(layout)(a->work, T, a->d, h, a->q);
    REAL *hs = a->hs;
    if (T >= PACK_FROM) FN(pack_gemv)(a->params[WHH], 1, h, h, h, s.Whh);
    FN(copy_padded)(s.states, hs, h);
    for (ptrdiff_t t = 0; t < T; t++) {
        REAL *row = s.states + (t % BLOCK + 1) * ldh;
        FN(copy_padded)(row, hs + (t + 1) * h, h);
        FN(recurrent_step)(a, &s, t, t % BLOCK ? row - ldh : s.states, row);
        FN(copy_row)(hs + (t + 1) * h, row, h);
        if (t % BLOCK == BLOCK - 1) FN(copy_row)(s.states, row, ldh);
    }
}

/* ---- backward --------------------------------------------------------------------------------- */

/* The largest |row_t| of each step times |left_t|, summed over the steps: what row i of the sum of
 * left_t right_t' can grow by, bound[i]. */
static void FN(bound_growth)(ptrdiff_t n, const REAL *left, ptrdiff_t ldl, const REAL *right, ptrdiff_t ldr,
                             REAL *bound) {
    FN(fill)(bound, ldl, 0);
    for (ptrdiff_t t = 0; t < n; t++) {
        V top = K(0); /* NaN stays out of it: its products are NaN, clamped or not */
        for (ptrdiff_t j = 0; j < ldr; j += VL) {
            V x = FN(absolute)(FN(load)(right + t * ldr + j));
            top = FN(select)(FN(less)(top, x), x, top);
        }
        top = FN(splat)(FN(largest)(top));
        for (ptrdiff_t i = 0; i < ldl; i += VL)
            FN(store)(bound + i, FN(load)(bound + i) + FN(absolute)(FN(load)(left + t * ldl + i)) * top);
    }
}

static REAL FN(largest_magnitude)(const REAL *p, ptrdiff_t n) {
    REAL m = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL x = p[i] < 0 ? -p[i] : p[i];
        m = x > m ? x : m + 0 * x; /* NaN stays */
    }
    return m;
}

/* out (m, n) (+)= sum over t, downwards, of left_t right_t', clamped to [-limit, limit] after each term.
 *
 * reached[i] bounds |out[i, :]|.  A row that cannot reach the limit within the block takes the plain
 * product, which then is the same sum.  (NaN fails the comparison and takes the clamped one.) */
static void FN(accumulate)(ptrdiff_t n, ptrdiff_t m, const REAL *left, ptrdiff_t ldl, ptrdiff_t cols,
                           const REAL *right, ptrdiff_t ldr, REAL limit, int first, REAL *reached, REAL *growth,
                           REAL *out, const FN(descent) *descent) {
    if (!(limit < (REAL)INFINITY)) {
        FN(gemm)(m, cols, n, left, 1, ldl, right, ldr, NR, out, cols, !first, descent);
        return;
    }
    const REAL safe = limit * (REAL)0.999;
    FN(bound_growth)(n, left, ldl, right, ldr, growth);
    for (ptrdiff_t i = 0, j; i < m; i = j) {
        int plain = -1;
        for (j = i; j < m; j++) {
            REAL before = first ? 0 : reached[j];
            int fits = before + growth[j] <= safe;
            if (!fits && !first) {
                before = FN(largest_magnitude)(out + j * cols, cols);
                fits = before + growth[j] <= safe;
            }
            if (plain < 0) plain = fits;
            if (fits != plain) break;
            reached[j] = fits ? before + growth[j] : limit;
        }
        FN(descent) rows, *step = NULL;
        if (descent) {
            rows = *descent;
            rows.weights += i * cols;
            step = &rows;
        }
        if (plain)
            FN(gemm)(j - i, cols, n, left + i, 1, ldl, right, ldr, NR, out + i * cols, cols, !first, step);
        else
            FN(gemm_clamped)(j - i, cols, n, left + i, 1, ldl, right, ldr, NR, out + i * cols, cols, !first,
                             limit, step);
    }
}

ALWAYS_INLINE V FN(clamp)(V x, V limit) { return FN(at_least)(FN(at_most)(x, limit), -limit); }

/* sum (ld) += row, then clamped. */
ALWAYS_INLINE void FN(add_clamped)(REAL *sum, const REAL *row, ptrdiff_t ld, V limit) {
    for (ptrdiff_t i = 0; i < ld; i += VL)
        FN(store)(sum + i, FN(clamp)(FN(load)(sum + i) + FN(load)(row + i), limit));
}

enum { FN(NOBODY) = -1, FN(SEVERAL) = -2 };

/* A dz_t[i] that is not finite makes NaN of row i of dz_t x_t' in every column but that of the one-hot x_t.
 * blame[i] is that column, or SEVERAL where it is not always the same. */
static void FN(blame_columns)(ptrdiff_t n, ptrdiff_t h, const REAL *dz, ptrdiff_t ldh, const int64_t *indices,
                              ptrdiff_t *blame) {
    if (FN(all_finite)(dz, n * ldh)) return;
    for (ptrdiff_t t = 0; t < n; t++)
        for (ptrdiff_t i = 0; i < h; i++)
            if (dz[t * ldh + i] * 0 != 0)
                blame[i] = blame[i] == FN(NOBODY) || blame[i] == indices[t] ? (ptrdiff_t)indices[t] : FN(SEVERAL);
}

/* w[i * stride] -= rate * clamp(g[i], cap), g with padding. */
ALWAYS_INLINE void FN(descend)(ptrdiff_t n, REAL *w, ptrdiff_t stride, const REAL *g, const FN(descent) *by) {
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL x = g[i] > by->cap ? by->cap : g[i] < -by->cap ? -by->cap : g[i];
        w[i * stride] -= by->rate * x;
    }
}

/* BPTT over dy, computed block by block from the probabilities in a->ps, clamped to `limit` after every step.
 *
 * With `descent`, the parameters take a step of that rate and cap instead of the gradients being returned:
 * a->grads then is work space.  (a->clip, a->threshold and descent->weights are not looked at.) */
static void FN(bptt)(const rnn_arguments *a, REAL limit, const FN(descent) *descent) {
    ptrdiff_t T = a->T, d = a->d, h = a->h, q = a->q;
    ptrdiff_t ldh = FN(padded)(h), ldq = FN(padded)(q), ldd = FN(padded)(d);
    FN(space) s = FN(layout)(a->work, T, d, h, q);
    const REAL *hs = a->hs, *ps = a->ps, *Whh = a->params[WHH], *Why = a->params[WHY];
    REAL *dWxh = a->grads[WXH];
    V bound = FN(splat)(limit);
    int packed = T >= PACK_FROM, transposed = FN(transposes_inputs)(a) || (descent && a->indices);
    ptrdiff_t widest = ldh > ldq ? ldh : ldq;
    if (ldd > widest) widest = ldd;
    REAL *growth = s.sums, *reached_Whh = s.sums + widest, *reached_Why = reached_Whh + widest,
         *reached_Wxh = reached_Why + widest;
    REAL *dbh = s.bias_h, *dby = s.bias_y;

    if (packed) {
        FN(pack_gemv)(Whh, h, 1, h, h, s.Whh);
        FN(pack_gemm)(Why, h, 1, q, h, s.Why);
    }
    if (transposed) {
        if (descent && T < d) /* only the columns that are looked at */
            for (ptrdiff_t t = 0; t < T; t++) FN(fill)(s.Wxh + a->indices[t] * ldh, ldh, 0);
        else
            FN(fill)(s.Wxh, d * ldh, 0);
    }
    if (a->indices && !transposed) FN(fill)(dWxh, h * d, 0);
    for (ptrdiff_t i = 0; i < h; i++) s.blame[i] = FN(NOBODY);
    FN(fill)(s.zeros, ldh, 0);
    FN(fill)(dbh, ldh, 0);
    FN(fill)(dby, ldq, 0);

    const ptrdiff_t blocks = (T + BLOCK - 1) / BLOCK, steps = T < BLOCK ? T : BLOCK;
    REAL *after = s.dz + steps * ldh; /* dz of the step after the block */
    for (ptrdiff_t block = blocks - 1; block >= 0; block--) {
        ptrdiff_t t0 = block * BLOCK, n = T - t0 < BLOCK ? T - t0 : BLOCK;
        int last = block == blocks - 1;
        for (ptrdiff_t t = 0; t <= n; t++) FN(copy_padded)(s.states + t * ldh, hs + (t0 + t) * h, h);
        for (ptrdiff_t t = 0; t < n; t++) {
            FN(copy_padded)(s.dy + t * ldq, ps + (t0 + t) * q, q);
            s.dy[t * ldq + a->targets[t0 + t]] -= 1; /* eq. 7 */
        }
        /* eq. 9, the output's part */
        if (packed) {
            FN(gemm)(n, ldh, q, s.dy, ldq, 1, s.Why, NR, q * NR, s.dz, ldh, 0, NULL);
        } else {
            FN(fill)(s.dz, n * ldh, 0);
            for (ptrdiff_t i = 0; i < q; i += STRIP)
                for (ptrdiff_t t = 0; t < n; t++)
                    FN(add_times_rows)(Why + i * h, q - i < STRIP ? q - i : STRIP, h, s.dy + t * ldq + i,
                                       s.dz + t * ldh);
        }
        /* eqs. 9, 12, 10 */
        for (ptrdiff_t t = n - 1; t >= 0; t--) {
            REAL *dz = s.dz + t * ldh, *next = t == n - 1 ? after : dz + ldh;
            const REAL *state = s.states + (t + 1) * ldh;
            int recurrent = !(last && t == n - 1);
            if (packed && recurrent) {
                FN(gemv)(s.Whh, h, h, next, EPILOGUE_TANH_SLOPE, dz, state, dz, t & 1);
                continue;
            }
            if (recurrent) FN(add_times_rows)(Whh, h, h, next, dz);
            for (ptrdiff_t i = 0; i < ldh; i += VL) FN(finish)(EPILOGUE_TANH_SLOPE, FN(load)(dz + i), s.zeros, state + i, dz + i);
        }
        if (a->indices) FN(blame_columns)(n, h, s.dz, ldh, a->indices + t0, s.blame);
        /* eqs. 8, 11 */
        for (ptrdiff_t t = n - 1; t >= 0; t--) {
            FN(add_clamped)(dbh, s.dz + t * ldh, ldh, bound);
            FN(add_clamped)(dby, s.dy + t * ldq, ldq, bound);
            if (transposed) {
                FN(add_clamped)(s.Wxh + a->indices[t0 + t] * ldh, s.dz + t * ldh, ldh, bound);
            } else if (a->indices) {
                REAL *column = dWxh + a->indices[t0 + t], *dz = s.dz + t * ldh;
                for (ptrdiff_t i = 0; i < h; i++) {
                    REAL x = column[i * d] + dz[i];
                    column[i * d] = x > limit ? limit : x < -limit ? -limit : x;
                }
            } else {
                FN(copy_padded)(s.inputs + t * ldd, (const REAL *)a->x + (t0 + t) * d, d);
            }
        }
        FN(descent) step[3], *why = NULL, *whh = NULL, *wxh = NULL;
        if (descent && !block) {
            for (int p = WXH; p <= WHY; p++) {
                step[p] = *descent;
                step[p].weights = (REAL *)a->params[p];
            }
            wxh = step + WXH;
            whh = step + WHH;
            why = step + WHY;
        }
        FN(accumulate)(n, q, s.dy, ldq, h, s.states + ldh, ldh, limit, last, reached_Why, growth, a->grads[WHY], why);
        FN(accumulate)(n, h, s.dz, ldh, h, s.states, ldh, limit, last, reached_Whh, growth, a->grads[WHH], whh);
        if (!a->indices)
            FN(accumulate)(n, h, s.dz, ldh, d, s.inputs, ldd, limit, last, reached_Wxh, growth, dWxh, wxh);
        FN(copy_row)(after, s.dz, ldh);
    }
    REAL *spoilt = dWxh; /* whose rows blame speaks of */
    if (descent) {
        FN(descend)(h, (REAL *)a->params[BH], 1, dbh, descent);
        FN(descend)(q, (REAL *)a->params[BY], 1, dby, descent);
        if (a->indices)
            for (ptrdiff_t t = 0; t < T; t++) { /* a column that comes again finds its gradient spent */
                REAL *column = s.Wxh + a->indices[t] * ldh;
                FN(descend)(h, (REAL *)a->params[WXH] + a->indices[t], d, column, descent);
                FN(fill)(column, ldh, 0);
            }
        spoilt = (REAL *)a->params[WXH];
    } else {
        FN(copy_row)(a->grads[BH], dbh, h);
        FN(copy_row)(a->grads[BY], dby, q);
        if (transposed) FN(pack_panel)(s.Wxh, 1, ldh, h, d, d, dWxh);
    }
    for (ptrdiff_t i = 0; i < h; i++)
        if (s.blame[i] != FN(NOBODY))
            for (ptrdiff_t c = 0; c < d; c++)
                if (c != s.blame[i]) spoilt[i * d + c] = (REAL)NAN;
}

static void FN(backward)(const rnn_arguments *a) { FN(bptt)(a, (REAL)a->threshold, NULL); }

/* ---- training --------------------------------------------------------------------------------- */

ALWAYS_INLINE REAL FN(sum_of_squares)(const REAL *g, ptrdiff_t n) {
    V acc[4] = {K(0), K(0), K(0), K(0)};
    ptrdiff_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int v = 0; v < 4; v++) {
            V x = FN(load)(g + i + v * VL);
            acc[v] += x * x;
        }
    REAL s = FN(sum)((acc[0] + acc[1]) + (acc[2] + acc[3]));
    for (; i < n; i++) s += g[i] * g[i];
    return s;
}

/* forward, and the loss (eqs. 5, 6). */
static double FN(loss)(const rnn_arguments *a) {
    const REAL *ps = a->ps;
    double loss = 0;
    FN(forward)(a);
    for (ptrdiff_t t = 0; t < a->T; t++) loss -= log((double)ps[t * a->q + a->targets[t]]);
    return loss;
}

static double FN(loss_and_grads)(const rnn_arguments *a) {
    ptrdiff_t d = a->d, h = a->h, q = a->q, sizes[PARAMETERS] = {h * d, h * h, q * h, h, q};
    const REAL threshold = (REAL)a->threshold;
    double loss = FN(loss)(a);
    FN(bptt)(a, a->clip == CLIP_STEP ? threshold : (REAL)INFINITY, NULL);
    if (a->clip == CLIP_VALUE) {
        V bound = FN(splat)(threshold);
        for (int p = 0; p < PARAMETERS; p++) {
            REAL *g = a->grads[p];
            ptrdiff_t i = 0;
            for (; i + VL <= sizes[p]; i += VL) FN(store)(g + i, FN(clamp)(FN(load)(g + i), bound));
            for (; i < sizes[p]; i++) g[i] = g[i] > threshold ? threshold : g[i] < -threshold ? -threshold : g[i];
        }
    }
    if (a->clip == CLIP_NORM) { /* eq. 15 */
        REAL squares = 0;
        for (int p = 0; p < PARAMETERS; p++) squares += FN(sum_of_squares)(a->grads[p], sizes[p]);
        REAL norm = (REAL)sqrt((double)squares), scale = norm <= threshold ? 1 : threshold / norm;
        if (scale != 1)
            for (int p = 0; p < PARAMETERS; p++) {
                REAL *g = a->grads[p];
                for (ptrdiff_t i = 0; i < sizes[p]; i++) g[i] *= scale;
            }
    }
    return loss;
}

static void FN(update)(ptrdiff_t n, void *w, const void *g, double lr) {
    REAL *restrict weights = w, rate = (REAL)lr;
    const REAL *restrict gradient = g;
    ptrdiff_t i = 0;
    V r = FN(splat)(rate);
    for (; i + VL <= n; i += VL) FN(store)(weights + i, FN(load)(weights + i) - r * FN(load)(gradient + i));
    for (; i < n; i++) weights[i] -= rate * gradient[i];
}

/* loss_and_grads and the update; the gradients are written only where eq. 15 must see them all first. */
static double FN(train_step)(const rnn_arguments *a, double lr) {
    ptrdiff_t d = a->d, h = a->h, q = a->q, sizes[PARAMETERS] = {h * d, h * h, q * h, h, q};
    double loss;
    if (a->clip == CLIP_NORM) {
        loss = FN(loss_and_grads)(a);
        for (int p = 0; p < PARAMETERS; p++) FN(update)(sizes[p], (void *)a->params[p], a->grads[p], lr);
        return loss;
    }
    FN(descent) step = {NULL, (REAL)lr, a->clip == CLIP_VALUE ? (REAL)a->threshold : (REAL)INFINITY};
    loss = FN(loss)(a);
    FN(bptt)(a, a->clip == CLIP_STEP ? (REAL)a->threshold : (REAL)INFINITY, &step);
    return loss;
}

/* ---- sampling --------------------------------------------------------------------------------- */

/* Index of the first element of cumsum(p) / sum(p) that is greater than u, or -1 if p is not numbers. */
static ptrdiff_t FN(draw)(const REAL *p, ptrdiff_t q, double u) {
    double total = 0, running = 0;
    for (ptrdiff_t j = 0; j < q; j++) total += (double)p[j];
    if (!(total > 0)) return -1;
    for (ptrdiff_t j = 0; j < q - 1; j++) {
        running += (double)p[j];
        if (running / total > u) return j;
    }
    return q - 1;
}

static ptrdiff_t FN(sample)(const rnn_arguments *a, void *state, int64_t start, const double *uniforms,
                            int64_t *out) {
    ptrdiff_t n = a->T, h = a->h, q = a->q, ldh = FN(padded)(h), ldq = FN(padded)(q), t;
    FN(space) s = FN(layout)(a->work, n, a->d, h, q);
    REAL *before = s.states, *row = s.states + ldh, *y = s.dy;
    int packed = n >= PACK_FROM;
    FN(prepare_forward)(a, &s);
    if (packed) FN(pack_gemv)(a->params[WHY], 1, h, h, q, s.Why);
    FN(copy_padded)(before, state, h);
    for (t = 0; t < n; t++) {
        FN(project_index)(a, &s, start, row);
        FN(recurrent_step)(a, &s, t, before, row);
        if (packed) {
            FN(gemv)(s.Why, h, q, row, EPILOGUE_ADD, s.bias_y, s.bias_y, y, t & 1);
        } else {
            FN(copy_row)(y, s.bias_y, ldq);
            FN(add_rows_times)(a->params[WHY], q, h, row, y);
        }
        FN(softmax)(y, ldq);
        start = FN(draw)(y, q, uniforms[t]);
        if (start < 0) break;
        out[t] = start;
        REAL *swap = before;
        before = row;
        row = swap;
    }
    FN(copy_row)(state, before, h);
    return t;
}

/* ---- element-wise, for tests ------------------------------------------------------------------ */

static void FN(tanh_all)(ptrdiff_t n, void *x) {
    REAL *p = x, tail[VBYTES / sizeof(REAL)] = {0};
    ptrdiff_t i = 0;
    for (; i + VL <= n; i += VL) FN(store)(p + i, FN(tangent)(FN(load)(p + i)));
    if (i < n) {
        FN(copy_row)(tail, p + i, n - i);
        FN(store)(tail, FN(tangent)(FN(load)(tail)));
        FN(copy_row)(p + i, tail, n - i);
    }
}

static void FN(exp_all)(ptrdiff_t n, void *x) {
    REAL *p = x, tail[VBYTES / sizeof(REAL)] = {0};
    ptrdiff_t i = 0;
    for (; i + VL <= n; i += VL) FN(store)(p + i, FN(exponential)(FN(load)(p + i)));
    if (i < n) {
        FN(copy_row)(tail, p + i, n - i);
        FN(store)(tail, FN(exponential)(FN(load)(tail)));
        FN(copy_row)(p + i, tail, n - i);
    }
}

static const rnn_loops FN(rnn_loops) = {
    FN(workspace_size), FN(forward), FN(backward), FN(loss_and_grads), FN(train_step), FN(sample),
    FN(update), FN(tanh_all), FN(exp_all), FN(recurrence),
};
