/* BPTT over one sequence, and training steps; see sequence.h for the work space and the forward pass.
 *
 *     dy_t = ps_t - p_t                                                               (7)
 *     dh_t = Why' dy_t + Whh' dz_{t+1},  dz_t = dh_t (1 - h_t^2)                       (9), (12), (10)
 *     dWhy = sum dy_t h_t',  dby = sum dy_t                                            (8)
 *     dWhh = sum dz_t h_{t-1}',  dWxh = sum dz_t x_t',  dbh = sum dz_t                 (11), (13)
 *
 * Time is cut into blocks, as in the forward pass, and the last comes first.  With the notes' clipping the sums
 * are clamped after every term.
 */

/* ---- sums that are clamped after every term ------------------------------------------------------------- */

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
    for (ptrdiff_t i = 0; i < n; i++) w[i * stride] -= by->rate * FN(clamp_one)(g[i], by->cap);
}

/* ---- a block of time steps ------------------------------------------------------------------------------ */

/* A backward pass. */
typedef struct {
    const sequence_arguments *a;
    FN(space) s;
    REAL limit;                 /* sums are clamped to it after every time step; infinity: they are not */
    const FN(descent) *descent; /* or NULL, see bptt */
    int packed;                 /* Whh and Why, in s.Whh and s.Why */
    int transposed;             /* dWxh' is summed up in s.Wxh */
    REAL *after;                /* (ldh) dz of the step after the block */
    REAL *dbh, *dby;            /* (ldh), (ldq) */
    REAL *growth, *reached[3];  /* of accumulate; for dWxh, dWhh, dWhy */
} FN(backprop);

static FN(backprop) FN(begin_backward)(const sequence_arguments *a, REAL limit, const FN(descent) *descent) {
    ptrdiff_t T = a->T, d = a->d, h = a->h, q = a->q, ldh = FN(padded)(h), ldq = FN(padded)(q);
    ptrdiff_t widest = FN(larger)(FN(larger)(ldh, ldq), FN(padded)(d));
    FN(backprop) b;
    const FN(space) *s = &b.s;
    b.a = a;
    b.s = FN(layout)(a->work, T, d, h, q);
    b.limit = limit;
    b.descent = descent;
    b.packed = T >= PACK_FROM;
    b.transposed = FN(transposes_inputs)(a) || (descent && a->indices);
    b.after = s->dz + (T < BLOCK ? T : BLOCK) * ldh;
    b.dbh = s->bias_h;
    b.dby = s->bias_y;
    b.growth = s->sums;
    for (int p = WXH; p <= WHY; p++) b.reached[p] = s->sums + (p + 1) * widest;

    if (b.packed) {
        FN(pack_gemv)(a->params[WHH], h, 1, h, h, s->Whh);
        FN(pack_gemm)(a->params[WHY], h, 1, q, h, s->Why);
    }
    if (b.transposed && descent && T < d) /* only the columns that are looked at */
        for (ptrdiff_t t = 0; t < T; t++) FN(fill)(s->Wxh + a->indices[t] * ldh, ldh, 0);
    else if (b.transposed)
        FN(fill)(s->Wxh, d * ldh, 0);
    else if (a->indices)
        FN(fill)(a->grads[WXH], h * d, 0);
    for (ptrdiff_t i = 0; i < h; i++) s->blame[i] = FN(NOBODY);
    FN(fill)(b.dbh, ldh, 0);
    FN(fill)(b.dby, ldq, 0);
    return b;
}

/* Copies the states of n steps from t0 on, the one before them, and the inputs; dy from the probabilities (eq. 7). */
static void FN(load_block)(const FN(backprop) *b, ptrdiff_t t0, ptrdiff_t n) {
    const sequence_arguments *a = b->a;
    const FN(space) *s = &b->s;
    ptrdiff_t d = a->d, h = a->h, q = a->q, ldh = FN(padded)(h), ldq = FN(padded)(q), ldd = FN(padded)(d);
    for (ptrdiff_t t = 0; t <= n; t++) FN(copy_padded)(s->states + t * ldh, (const REAL *)a->hs + (t0 + t) * h, h);
    for (ptrdiff_t t = 0; t < n; t++) {
        FN(copy_padded)(s->dy + t * ldq, (const REAL *)a->ps + (t0 + t) * q, q);
        s->dy[t * ldq + a->targets[t0 + t]] -= 1;
    }
    if (!a->indices)
        for (ptrdiff_t t = 0; t < n; t++)
            FN(copy_padded)(s->inputs + t * ldd, (const REAL *)a->x + (t0 + t) * d, d);
}

/* dh = Why' dy: the output's part, of all steps at once (eq. 9). */
static void FN(output_part)(const FN(backprop) *b, ptrdiff_t n) {
    const FN(space) *s = &b->s;
    ptrdiff_t h = b->a->h, q = b->a->q, ldh = FN(padded)(h), ldq = FN(padded)(q);
    if (b->packed) {
        FN(times_panels)(n, ldh, q, s->dy, ldq, s->Why, s->dz, ldh, 0);
    } else {
        FN(fill)(s->dz, n * ldh, 0);
        FN(strips_times_rows)(b->a->params[WHY], q, h, n, s->dy, ldq, s->dz, ldh);
    }
}

/* dh_t += Whh' dz_{t+1}, and dz_t of it, step by step (eqs. 12, 10). */
static void FN(back_through_time)(const FN(backprop) *b, ptrdiff_t n, int last) {
    const FN(space) *s = &b->s;
    ptrdiff_t h = b->a->h, ldh = FN(padded)(h);
    for (ptrdiff_t t = n - 1; t >= 0; t--) {
        REAL *dz = s->dz + t * ldh, *next = t == n - 1 ? b->after : dz + ldh;
        const REAL *state = s->states + (t + 1) * ldh;
        int recurrent = !(last && t == n - 1);
        if (b->packed && recurrent) {
            FN(gemv)(s->Whh, h, h, next, EPILOGUE_SLOPE, TANH, dz, state, dz, t & 1);
            continue;
        }
        if (recurrent) FN(add_times_rows)(b->a->params[WHH], h, h, next, dz);
        FN(apply_slope)(TANH, ldh, state, dz);
    }
}

/* dbh, dby, and of class indices dWxh: sums of vectors (eqs. 8, 11). */
static void FN(add_vectors)(const FN(backprop) *b, ptrdiff_t t0, ptrdiff_t n) {
    const sequence_arguments *a = b->a;
    const FN(space) *s = &b->s;
    ptrdiff_t d = a->d, h = a->h, ldh = FN(padded)(h), ldq = FN(padded)(a->q);
    V bound = FN(splat)(b->limit);
    for (ptrdiff_t t = n - 1; t >= 0; t--) {
        const REAL *dz = s->dz + t * ldh;
        FN(add_clamped)(b->dbh, dz, ldh, bound);
        FN(add_clamped)(b->dby, s->dy + t * ldq, ldq, bound);
        if (b->transposed) {
            FN(add_clamped)(s->Wxh + a->indices[t0 + t] * ldh, dz, ldh, bound);
        } else if (a->indices) {
            REAL *column = (REAL *)a->grads[WXH] + a->indices[t0 + t];
            for (ptrdiff_t i = 0; i < h; i++) column[i * d] = FN(clamp_one)(column[i * d] + dz[i], b->limit);
        }
    }
}

/* One of the gradients that are products over time; the first block of time takes the step of `descent`. */
static void FN(add_product)(const FN(backprop) *b, int which, ptrdiff_t n, ptrdiff_t m, const REAL *left, ptrdiff_t ldl,
                            ptrdiff_t cols, const REAL *right, ptrdiff_t ldr, int last, int first) {
    FN(descent) step, *taken = NULL;
    if (b->descent && first) {
        step = *b->descent;
        step.weights = (REAL *)b->a->params[which];
        taken = &step;
    }
    FN(accumulate)(n, m, left, ldl, cols, right, ldr, b->limit, last, b->reached[which], b->growth,
                   b->a->grads[which], taken);
}

/* dWhy, dWhh, and of vectors dWxh (eqs. 8, 13, 11). */
static void FN(add_products)(const FN(backprop) *b, ptrdiff_t n, int last, int first) {
    const FN(space) *s = &b->s;
    ptrdiff_t d = b->a->d, h = b->a->h, q = b->a->q, ldh = FN(padded)(h), ldq = FN(padded)(q), ldd = FN(padded)(d);
    FN(add_product)(b, WHY, n, q, s->dy, ldq, h, s->states + ldh, ldh, last, first);
    FN(add_product)(b, WHH, n, h, s->dz, ldh, h, s->states, ldh, last, first);
    if (!b->a->indices) FN(add_product)(b, WXH, n, h, s->dz, ldh, d, s->inputs, ldd, last, first);
}

/* ---- after the last block ------------------------------------------------------------------------------- */

/* Writes the gradients that are still in work space. */
static void FN(write_gradients)(const FN(backprop) *b) {
    const sequence_arguments *a = b->a;
    FN(copy_row)(a->grads[BH], b->dbh, a->h);
    FN(copy_row)(a->grads[BY], b->dby, a->q);
    if (b->transposed) FN(pack_panel)(b->s.Wxh, 1, FN(padded)(a->h), a->h, a->d, a->d, a->grads[WXH]);
}

/* Takes the step with them. */
static void FN(descend_vectors)(const FN(backprop) *b) {
    const sequence_arguments *a = b->a;
    ptrdiff_t ldh = FN(padded)(a->h);
    FN(descend)(a->h, (REAL *)a->params[BH], 1, b->dbh, b->descent);
    FN(descend)(a->q, (REAL *)a->params[BY], 1, b->dby, b->descent);
    for (ptrdiff_t t = 0; a->indices && t < a->T; t++) { /* a column that comes again finds its gradient spent */
        REAL *column = b->s.Wxh + a->indices[t] * ldh;
        FN(descend)(a->h, (REAL *)a->params[WXH] + a->indices[t], a->d, column, b->descent);
        FN(fill)(column, ldh, 0);
    }
}

/* NaN into the rows of dWxh, or of Wxh after the step, where blame_columns has found it. */
static void FN(spoil_rows)(const FN(backprop) *b) {
    ptrdiff_t d = b->a->d, h = b->a->h;
    const ptrdiff_t *blame = b->s.blame;
    REAL *spoilt = b->descent ? (REAL *)b->a->params[WXH] : b->a->grads[WXH];
    for (ptrdiff_t i = 0; i < h; i++)
        if (blame[i] != FN(NOBODY))
            for (ptrdiff_t c = 0; c < d; c++)
                if (c != blame[i]) spoilt[i * d + c] = (REAL)NAN;
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

/* BPTT over dy, computed block by block from the probabilities in a->ps, clamped to `limit` after every step.
 *
 * With `descent`, the parameters take a step of that rate and cap instead of the gradients being returned:
 * a->grads then is work space.  (a->clip, a->threshold and descent->weights are not looked at.) */
static void FN(bptt)(const sequence_arguments *a, REAL limit, const FN(descent) *descent) {
    FN(backprop) b = FN(begin_backward)(a, limit, descent);
    const ptrdiff_t T = a->T, ldh = FN(padded)(a->h), blocks = (T + BLOCK - 1) / BLOCK;
    for (ptrdiff_t block = blocks - 1; block >= 0; block--) {
        ptrdiff_t t0 = block * BLOCK, n = T - t0 < BLOCK ? T - t0 : BLOCK;
        int last = block == blocks - 1, first = !block;
        FN(load_block)(&b, t0, n);
        FN(output_part)(&b, n);
        FN(back_through_time)(&b, n, last);
        if (a->indices) FN(blame_columns)(n, a->h, b.s.dz, ldh, a->indices + t0, b.s.blame);
        FN(add_vectors)(&b, t0, n);
        FN(add_products)(&b, n, last, first);
        FN(copy_row)(b.after, b.s.dz, ldh);
    }
    if (descent) FN(descend_vectors)(&b);
    else FN(write_gradients)(&b);
    FN(spoil_rows)(&b);
}

static void FN(backward)(const sequence_arguments *a) { FN(bptt)(a, (REAL)a->threshold, NULL); }

/* ---- training ------------------------------------------------------------------------------------------- */

/* forward, and the loss (eqs. 5, 6). */
static double FN(loss)(const sequence_arguments *a) {
    const REAL *ps = a->ps;
    double loss = 0;
    FN(forward)(a);
    for (ptrdiff_t t = 0; t < a->T; t++) loss -= log((double)ps[t * a->q + a->targets[t]]);
    return loss;
}

static double FN(loss_and_grads)(const sequence_arguments *a) {
    ptrdiff_t d = a->d, h = a->h, q = a->q, sizes[PARAMETERS] = {h * d, h * h, q * h, h, q};
    const REAL threshold = (REAL)a->threshold;
    double loss = FN(loss)(a);
    FN(bptt)(a, a->clip == CLIP_STEP ? threshold : (REAL)INFINITY, NULL);
    if (a->clip == CLIP_VALUE)
        for (int p = 0; p < PARAMETERS; p++) FN(clip_values)(sizes[p], a->grads[p], threshold);
    if (a->clip == CLIP_NORM) { /* eq. 15 */
        REAL squares = 0;
        for (int p = 0; p < PARAMETERS; p++) squares += FN(sum_of_squares)(a->grads[p], sizes[p]);
        REAL norm = (REAL)sqrt((double)squares), scale = norm <= threshold ? 1 : threshold / norm;
        if (scale != 1)
            for (int p = 0; p < PARAMETERS; p++) FN(multiply)(sizes[p], a->grads[p], scale);
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
static double FN(train_step)(const sequence_arguments *a, double lr) {
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
