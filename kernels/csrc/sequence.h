/* Forward and sampling of one sequence; bptt.h has the way back.
 *
 *     h_t  = tanh(Wxh x_t + Whh h_{t-1} + bh)          (1)
 *     y_t  = Why h_t + by,  ps_t = softmax(y_t)        (2), (16), (17)
 *
 * Only Whh h_{t-1}, and Whh' dz_{t+1} on the way back, wait for the step before.  Time is cut into blocks:
 * within one, all else is a product over all its steps.  Rows of a block are padded to whole vectors, so that
 * no loop has a tail, and stay in the cache.  For a few steps matrices are used as they are; from PACK_FROM
 * on, packing them first pays.
 */

#define BLOCK 64 /* time steps */

/* ---- work space ----------------------------------------------------------------------------------------- */

typedef struct {
    REAL *states;    /* (BLOCK+1, ldh), row 0 the state before the block */
    REAL *dz;        /* (BLOCK+1, ldh), row BLOCK.. the one after the block */
    REAL *dy;        /* (BLOCK, ldq) logits, then their gradient */
    REAL *inputs;    /* (BLOCK, ldd) */
    REAL *Wxh;       /* (d, ldh) transposed; then the gradient dWxh, transposed */
    REAL *Whh;       /* packed for matrix-vector products: of the transpose forward, as it is backward */
    REAL *Why;       /* packed for matrix products, or for matrix-vector products in sampling */
    REAL *sums;      /* (4, max(ldh, ldq, ldd)) bounds of gradients */
    REAL *bias_h;    /* (ldh) */
    REAL *bias_y;    /* (ldq), minus infinity in the padding */
    ptrdiff_t *blame; /* (h) see blame_columns */
    int dense;       /* one-hot inputs are multiplied out, see prepare_forward */
    ptrdiff_t size;  /* elements in all */
} FN(space);

static FN(space) FN(layout)(void *work, ptrdiff_t T, ptrdiff_t d, ptrdiff_t h, ptrdiff_t q) {
    ptrdiff_t ldh = FN(padded)(h), ldq = FN(padded)(q), ldd = FN(padded)(d), used = 0;
    ptrdiff_t steps = T < BLOCK ? T : BLOCK, widest = FN(larger)(FN(larger)(ldh, ldq), ldd);
    int packed = T >= PACK_FROM;
    REAL *base = FN(aligned)(work);
    FN(space) s;
    s.states = FN(take)(base, &used, (steps + 1) * ldh);
    s.dz = FN(take)(base, &used, (steps + 1) * ldh);
    s.dy = FN(take)(base, &used, (steps + 1) * ldq);
    s.inputs = FN(take)(base, &used, steps * ldd);
    s.Wxh = FN(take)(base, &used, d * ldh);
    s.Whh = FN(take)(base, &used, packed ? h * ldh : 0);
    s.Why = FN(take)(base, &used, packed ? FN(larger)(h * FN(gemm_padded)(q), q * FN(gemm_padded)(h)) : 0);
    s.sums = FN(take)(base, &used, 4 * widest);
    s.bias_h = FN(take)(base, &used, ldh);
    s.bias_y = FN(take)(base, &used, ldq);
    s.blame = FN(take_integers)(base, &used, h);
    s.dense = 0;
    s.size = used + 64;
    return s;
}

static ptrdiff_t FN(workspace_size)(ptrdiff_t T, ptrdiff_t d, ptrdiff_t h, ptrdiff_t q) {
    return FN(layout)(NULL, T, d, h, q).size;
}

/* ---- forward -------------------------------------------------------------------------------------------- */

/* Transposing Wxh pays when most of its columns are wanted. */
ALWAYS_INLINE int FN(transposes_inputs)(const sequence_arguments *a) {
    return a->indices && a->T >= PACK_FROM && 2 * a->T >= a->d;
}

/* Packs what forward and sample need.
 *
 * A column of Wxh is the product with a one-hot vector only while the rest of Wxh is finite: 0 times NaN is
 * NaN.  Where it is not, the product is made in full. */
static void FN(prepare_forward)(const sequence_arguments *a, FN(space) *s) {
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
ALWAYS_INLINE void FN(project_index)(const sequence_arguments *a, const FN(space) *s, int64_t index, REAL *out) {
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
static void FN(project_block)(const sequence_arguments *a, const FN(space) *s, ptrdiff_t t0, ptrdiff_t n) {
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
ALWAYS_INLINE void FN(recurrent_step)(const sequence_arguments *a, const FN(space) *s, ptrdiff_t t,
                                      const REAL *before, REAL *row) {
    ptrdiff_t h = a->h, ldh = FN(padded)(h);
    if (a->T >= PACK_FROM) {
        FN(gemv)(s->Whh, h, h, before, EPILOGUE_CELL, TANH, row, row, row, t & 1);
        return;
    }
    FN(add_rows_times)(a->params[WHH], h, h, before, row);
    FN(apply_cell)(TANH, ldh, row);
}

static void FN(forward)(const sequence_arguments *a) {
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
            FN(times_panels)(n, ldq, h, s.states + ldh, ldh, s.Why, s.dy, ldq, 1);
        } else {
            FN(rows_times_strips)(a->params[WHY], q, h, n, s.states + ldh, ldh, s.dy, ldq);
        }
        for (ptrdiff_t t = 0; t < n; t++) {
            FN(softmax)(s.dy + t * ldq, ldq);
            FN(copy_row)(ps + (t0 + t) * q, s.dy + t * ldq, q);
        }
        FN(copy_row)(s.states, s.states + n * ldh, ldh);
    }
}

/* The recurrent part of forward alone. */
static void FN(recurrence)(const sequence_arguments *a) {
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

/* ---- sampling ------------------------------------------------------------------------------------------- */

static ptrdiff_t FN(sample)(const sequence_arguments *a, void *state, int64_t start, const double *uniforms,
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
            FN(gemv)(s.Why, h, q, row, EPILOGUE_ADD, 0, s.bias_y, s.bias_y, y, t & 1);
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
