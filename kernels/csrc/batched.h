/* The batched layer and the output of a language model: N sequences side by side, time-major.
 *
 *     z_t  = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh,  h_t = tanh(z_t) or max(z_t, 0)          (1)
 *     dh_t = d output_t + W_hh' dz_{t+1},  dz_t = dh_t (1 - h_t^2) or dh_t where h_t > 0      (9), (12), (10)
 *     dW_hh = sum dz_t h_{t-1}',  dW_ih = sum dz_t x_t',  db = sum dz_t,  dx_t = W_ih' dz_t   (11), (13)
 *     y_t  = W h_t + b,  L = -sum log softmax(y_t)[target_t],  dy_t = softmax(y_t) - p_t      (2), (5) to (7)
 *
 * See numpy_batched.py for the arguments.  A thread takes the rows start .. stop of the batch through all
 * time steps.  Weights are packed once a sequence: a time step is then one product of those rows with panels
 * that are read in order.  Weight gradients are products over blocks of time steps of KROWS rows in all.
 *
 * A row of a product does not depend on the rows beside it, and what is summed over rows is summed in the
 * order of time and of the batch: so results depend on start and stop only in those sums.
 */

#define KROWS 128 /* rows (time steps x sequences) that a product over time sums up at once */

/* Row length of a block of dz, so that successive rows do not compete for the same lines of a cache. */
ALWAYS_INLINE ptrdiff_t FN(spread)(ptrdiff_t ld) { return ld * (ptrdiff_t)sizeof(REAL) % 1024 ? ld : ld + VL; }

ALWAYS_INLINE ptrdiff_t FN(larger)(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

/* Time steps of a block that holds `rows` sequences. */
ALWAYS_INLINE ptrdiff_t FN(block_steps)(ptrdiff_t T, ptrdiff_t rows) {
    ptrdiff_t n = KROWS / rows;
    return n < 1 ? 1 : n < T ? n : T;
}

static REAL *FN(aligned)(void *memory) {
    return memory ? (REAL *)(((uintptr_t)memory + 63) & ~(uintptr_t)63) : NULL;
}

/* ---- packing ---------------------------------------------------------------------------------- */

typedef struct {
    REAL *bias;    /* (ldh) b_ih + b_hh */
    REAL *input;   /* one-hot: (d, ldh), W_ih' with the bias added to each row; else W_ih' for gemm */
    REAL *forward; /* W_hh', for gemm, or for gemv where there is one sequence */
    REAL *back;    /* W_hh, likewise */
    REAL *dinput;  /* W_ih for gemm, not for one-hot inputs */
    ptrdiff_t size;
} FN(packed_layer);

static FN(packed_layer) FN(layer_panels)(void *packed, ptrdiff_t d, ptrdiff_t h) {
    FN(packed_layer) p;
    REAL *base = FN(aligned)(packed);
    ptrdiff_t used = 0, ldh = FN(gemm_padded)(h);
    p.bias = FN(take)(base, &used, ldh);
    p.input = FN(take)(base, &used, d * ldh);
    p.forward = FN(take)(base, &used, h * ldh);
    p.back = FN(take)(base, &used, h * ldh);
    p.dinput = FN(take)(base, &used, h * FN(gemm_padded)(d));
    p.size = used + 64;
    return p;
}

static void FN(pack_layer)(const layer_arguments *a) {
    ptrdiff_t d = a->d, h = a->h, ldh = FN(padded)(h);
    FN(packed_layer) p = FN(layer_panels)(a->packed, d, h);
    const REAL *b_ih = a->b_ih, *b_hh = a->b_hh;
    for (ptrdiff_t i = 0; i < h; i++) p.bias[i] = b_ih[i] + b_hh[i];
    for (ptrdiff_t i = h; i < ldh; i++) p.bias[i] = 0;
    if (a->one_hot) {
        FN(pack_panel)(a->W_ih, 1, d, d, h, ldh, p.input);
        for (ptrdiff_t c = 0; c < d; c++)
            for (ptrdiff_t i = 0; i < ldh; i += VL)
                FN(store)(p.input + c * ldh + i, FN(load)(p.input + c * ldh + i) + FN(load)(p.bias + i));
    } else {
        FN(pack_gemm)(a->W_ih, 1, d, d, h, p.input);
        FN(pack_gemm)(a->W_ih, d, 1, h, d, p.dinput);
    }
    if (a->N == 1) {
        FN(pack_gemv)(a->W_hh, 1, h, h, h, p.forward);
        FN(pack_gemv)(a->W_hh, h, 1, h, h, p.back);
    } else {
        FN(pack_gemm)(a->W_hh, 1, h, h, h, p.forward);
        FN(pack_gemm)(a->W_hh, h, 1, h, h, p.back);
    }
}

/* C (m, n) (+)= A B for B (k, n) packed by pack_gemm, rows of A one after the other. */
ALWAYS_INLINE void FN(times_panels)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const REAL *a, ptrdiff_t lda,
                                    const REAL *panels, REAL *c, ptrdiff_t ldc, int accumulate) {
    FN(gemm)(m, n, k, a, lda, 1, panels, NR, k * NR, c, ldc, accumulate, NULL);
}

/* Rows of n elements each, `rows` of them from src on and `at` rows into panels of k rows. */
static void FN(pack_rows)(const REAL *src, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t at, ptrdiff_t k, REAL *panels) {
    for (ptrdiff_t j = 0; j < n; j += NR)
        FN(pack_panel)(src + j, n, 1, rows, n - j < NR ? n - j : NR, NR, panels + j * k + at * NR);
}

/* ---- the layer, forward ------------------------------------------------------------------------ */

ALWAYS_INLINE V FN(activation)(int relu, V z) {
    return relu ? FN(at_least)(z, K(0)) : FN(tangent)(z);
}

static void FN(activate)(int relu, ptrdiff_t n, REAL *z) {
    ptrdiff_t i = 0;
    if (relu)
        for (; i + VL <= n; i += VL) FN(store)(z + i, FN(activation)(1, FN(load)(z + i)));
    else
        for (; i + VL <= n; i += VL) FN(store)(z + i, FN(activation)(0, FN(load)(z + i)));
    if (i < n) {
        REAL tail[VBYTES / sizeof(REAL)] = {0};
        FN(copy_row)(tail, z + i, n - i);
        FN(store)(tail, FN(activation)(relu, FN(load)(tail)));
        FN(copy_row)(z + i, tail, n - i);
    }
}

typedef struct {
    REAL *dz;      /* (steps + 1, rows, ldz), the last of them the step after the block */
    REAL *panels;  /* what dz is multiplied by, for gemm */
    REAL *columns; /* (d, ldh) gradient of W_ih', for one-hot inputs */
    REAL *db;      /* (ldh) */
    REAL *state;   /* (rows, ldz) see their uses */
    REAL *firsts;  /* (rows, ldz) dz of the step that a sequence of a reverse layer begins with */
    REAL *spare;   /* (ldz) */
    ptrdiff_t size;
} FN(layer_space);

static FN(layer_space) FN(layer_layout)(void *work, ptrdiff_t T, ptrdiff_t rows, ptrdiff_t d, ptrdiff_t h) {
    FN(layer_space) s;
    REAL *base = FN(aligned)(work);
    ptrdiff_t used = 0, steps = FN(block_steps)(T, rows), ldz = FN(spread)(FN(padded)(h));
    s.dz = FN(take)(base, &used, (steps + 1) * rows * ldz);
    s.panels = FN(take)(base, &used, steps * rows * FN(gemm_padded)(FN(larger)(d, h)));
    s.columns = FN(take)(base, &used, d * FN(padded)(h));
    s.db = FN(take)(base, &used, ldz);
    s.state = FN(take)(base, &used, rows * ldz);
    s.firsts = FN(take)(base, &used, rows * ldz);
    s.spare = FN(take)(base, &used, ldz);
    s.size = used + 64;
    return s;
}

static void FN(layer_sizes)(ptrdiff_t T, ptrdiff_t rows, ptrdiff_t d, ptrdiff_t h, ptrdiff_t *packed, ptrdiff_t *work) {
    *packed = FN(layer_panels)(NULL, d, h).size;
    *work = FN(layer_layout)(NULL, T, rows, d, h).size;
}

/* z = W_ih x_t + b for the sequences of one time step, rows of h elements. */
static void FN(project_step)(const layer_arguments *a, const FN(packed_layer) *p, ptrdiff_t t, REAL *z) {
    ptrdiff_t d = a->d, h = a->h, ldh = FN(padded)(h), m = a->stop - a->start;
    const int64_t *index = a->indices ? a->indices + t * a->N + a->start : NULL;
    for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(z + r * h, index ? p->input + index[r] * ldh : p->bias, h);
    if (!index)
        FN(times_panels)(m, h, d, (const REAL *)a->x + (t * a->N + a->start) * d, d, p->input, z, h, 1);
}

/* One sequence: its products are with vectors. */
static void FN(forward_alone)(const layer_arguments *a, const FN(packed_layer) *p, const FN(layer_space) *s,
                              ptrdiff_t length) {
    ptrdiff_t d = a->d, h = a->h, ldh = FN(padded)(h);
    REAL *hs = a->hs, *before = s->state, *row = s->spare;
    FN(copy_padded)(before, a->h0, h);
    if (!a->indices) {
        for (ptrdiff_t t = 0; t < length; t++) FN(copy_row)(hs + t * h, p->bias, h);
        FN(times_panels)(length, h, d, a->x, d, p->input, hs, h, 1);
    }
    for (ptrdiff_t i = 0; i < length; i++) {
        ptrdiff_t t = a->reverse ? length - 1 - i : i;
        const REAL *z = row;
        if (a->indices) z = p->input + a->indices[t] * ldh;
        else FN(copy_padded)(row, hs + t * h, h);
        if (a->cell == RELU) {
            FN(gemv)(p->forward, h, h, before, EPILOGUE_ADD, z, z, row, i & 1);
            FN(activate)(1, ldh, row);
        } else {
            FN(gemv)(p->forward, h, h, before, EPILOGUE_TANH, z, z, row, i & 1);
        }
        FN(copy_row)(hs + t * h, row, h);
        REAL *swap = before;
        before = row;
        row = swap;
    }
    FN(fill)(hs + length * h, (a->T - length) * h, 0);
    FN(copy_row)(a->h_n, before, h);
}

static void FN(layer_forward)(const layer_arguments *a) {
    ptrdiff_t T = a->T, h = a->h, m = a->stop - a->start;
    FN(packed_layer) p = FN(layer_panels)(a->packed, a->d, h);
    FN(layer_space) s = FN(layer_layout)(a->work, T, m, a->d, h);
    const int64_t *lengths = a->lengths ? a->lengths + a->start : NULL;
    const REAL *before = (const REAL *)a->h0 + a->start * h;
    if (a->N == 1) {
        FN(forward_alone)(a, &p, &s, lengths ? (ptrdiff_t)*lengths : T);
        return;
    }
    if (lengths) { /* states stay where they are while their sequence has not begun, or has ended */
        for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(s.state + r * h, before + r * h, h);
        before = s.state;
    }
    for (ptrdiff_t i = 0; i < T; i++) {
        ptrdiff_t t = a->reverse ? T - 1 - i : i;
        REAL *z = (REAL *)a->hs + (t * a->N + a->start) * h;
        FN(project_step)(a, &p, t, z);
        FN(times_panels)(m, h, h, before, h, p.forward, z, h, 1);
        FN(activate)(a->cell == RELU, m * h, z);
        if (!lengths) {
            before = z;
            continue;
        }
        for (ptrdiff_t r = 0; r < m; r++)
            if (t < lengths[r]) FN(copy_row)(s.state + r * h, z + r * h, h);
            else FN(fill)(z + r * h, h, 0);
    }
    for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)((REAL *)a->h_n + (a->start + r) * h, before + r * h, h);
}

/* ---- the layer, backward ------------------------------------------------------------------------ */

/* dz = dh times the derivative of the activation, from its value y; the padding stays zero. */
ALWAYS_INLINE void FN(times_derivative)(int relu, ptrdiff_t h, REAL *dz, const REAL *y) {
    ptrdiff_t i = 0;
    for (; i + VL <= h; i += VL) {
        V state = FN(load)(y + i), dh = FN(load)(dz + i);
        FN(store)(dz + i, relu ? FN(select)(FN(less)(K(0), state), dh, dh * K(0)) : dh * (1 - state * state));
    }
    for (; i < h; i++) dz[i] *= relu ? (REAL)(y[i] > 0) : 1 - y[i] * y[i];
}

/* out (rows, ldz or h) (+)= dz W_hh. */
ALWAYS_INLINE void FN(carry_back)(const layer_arguments *a, const FN(packed_layer) *p, const REAL *dz, ptrdiff_t ldz,
                                  REAL *out, ptrdiff_t n, ptrdiff_t ldo, ptrdiff_t step) {
    if (a->N == 1) FN(gemv)(p->back, a->h, a->h, dz, EPILOGUE_ADD, out, out, out, step & 1);
    else FN(times_panels)(a->stop - a->start, n, a->h, dz, ldz, p->back, out, ldo, 1);
}

/* dz of step t into `row` (rows, ldz), from that of the step which the layer met after it, if there is one. */
static void FN(backward_step)(const layer_arguments *a, const FN(packed_layer) *p, const FN(layer_space) *s,
                              ptrdiff_t i, const REAL *after, REAL *row, ptrdiff_t ldz) {
    ptrdiff_t T = a->T, h = a->h, m = a->stop - a->start, t = a->reverse ? T - 1 - i : i;
    ptrdiff_t place = (t * a->N + a->start) * h;
    const int64_t *lengths = a->lengths ? a->lengths + a->start : NULL;
    const REAL *dh_n = a->dh_n ? (const REAL *)a->dh_n + a->start * h : NULL;
    for (ptrdiff_t r = 0; r < m; r++) {
        REAL *dh = row + r * ldz;
        FN(copy_padded)(dh, (const REAL *)a->dhs + place + r * h, h);
        if (dh_n && (lengths && !a->reverse ? t == lengths[r] - 1 : i == T - 1))
            for (ptrdiff_t j = 0; j < h; j++) dh[j] += dh_n[r * h + j];
    }
    if (after) FN(carry_back)(a, p, after, ldz, row, FN(padded)(h), ldz, i);
    for (ptrdiff_t r = 0; r < m; r++) {
        int ended = lengths && t >= lengths[r];
        if (ended) FN(fill)(row + r * ldz, h, 0);
        if (a->dh_all) FN(copy_row)((REAL *)a->dh_all + place + r * h, row + r * ldz, h);
        if (ended) continue;
        if (a->cell == RELU) FN(times_derivative)(1, h, row + r * ldz, (const REAL *)a->hs + place + r * h);
        else FN(times_derivative)(0, h, row + r * ldz, (const REAL *)a->hs + place + r * h);
        if (lengths && a->reverse && t == lengths[r] - 1) FN(copy_padded)(s->firsts + r * ldz, row + r * ldz, h);
    }
}

/* States before step i of the layer's order, rows of h elements. */
static const REAL *FN(states_before)(const layer_arguments *a, ptrdiff_t i, REAL *space) {
    ptrdiff_t h = a->h, m = a->stop - a->start, t = a->reverse ? a->T - 1 - i : i;
    const REAL *first = (const REAL *)a->h0 + a->start * h;
    if (!i) return first;
    const REAL *before = (const REAL *)a->hs + ((a->reverse ? t + 1 : t - 1) * a->N + a->start) * h;
    if (!a->lengths || !a->reverse) return before;
    for (ptrdiff_t r = 0; r < m; r++)
        FN(copy_row)(space + r * h, (a->lengths[a->start + r] == t + 1 ? first : before) + r * h, h);
    return space;
}

ALWAYS_INLINE void FN(add_row)(ptrdiff_t ld, REAL *sum, const REAL *row) {
    for (ptrdiff_t i = 0; i < ld; i += VL) FN(store)(sum + i, FN(load)(sum + i) + FN(load)(row + i));
}

static void FN(layer_backward)(const layer_arguments *a) {
    ptrdiff_t T = a->T, N = a->N, d = a->d, h = a->h, ldh = FN(padded)(h), ldz = FN(spread)(ldh);
    ptrdiff_t m = a->stop - a->start, steps = FN(block_steps)(T, m);
    FN(packed_layer) p = FN(layer_panels)(a->packed, d, h);
    FN(layer_space) s = FN(layer_layout)(a->work, T, m, d, h);
    REAL *after = s.dz + steps * m * ldz;
    int accumulate = a->accumulate, follows = m == N && !a->reverse; /* steps follow one another in memory */
    if (a->indices) {
        if (accumulate && a->dW_ih) FN(pack_panel)(a->dW_ih, 1, d, d, h, ldh, s.columns);
        else FN(fill)(s.columns, d * ldh, 0);
    }
    FN(fill)(s.db, ldh, 0);
    for (ptrdiff_t first = (T - 1) / steps * steps; first >= 0; first -= steps) {
        ptrdiff_t n = T - first < steps ? T - first : steps, k = n * m;
        for (ptrdiff_t i = first + n - 1; i >= first; i--) {
            REAL *row = s.dz + (i - first) * m * ldz;
            FN(backward_step)(a, &p, &s, i, i == T - 1 ? NULL : i == first + n - 1 ? after : row + m * ldz, row, ldz);
        }
        if (!a->dW_hh) { /* no gradients of the weights */
            if (a->dx)
                for (ptrdiff_t i = first; i < first + n; i++)
                    FN(times_panels)(m, d, h, s.dz + (i - first) * m * ldz, ldz, p.dinput,
                                     (REAL *)a->dx + ((a->reverse ? T - 1 - i : i) * N + a->start) * d, d, 0);
            for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(after + r * ldz, s.dz + r * ldz, ldh);
            continue;
        }
        for (ptrdiff_t r = 0; r < k; r++) FN(add_row)(ldh, s.db, s.dz + r * ldz);

        for (ptrdiff_t i = first, at_once; i < first + n; i += at_once) { /* eq. 13 */
            at_once = i && follows ? first + n - i : 1;
            FN(pack_rows)(FN(states_before)(a, i, s.state), at_once * m, h, (i - first) * m, k, s.panels);
        }
        FN(gemm)(h, h, k, s.dz, 1, ldz, s.panels, NR, k * NR, a->dW_hh, h, accumulate, NULL);

        for (ptrdiff_t i = first, at_once; i < first + n; i += at_once) { /* eq. 11 */
            ptrdiff_t place = (a->reverse ? T - 1 - i : i) * N + a->start, rows;
            const REAL *dz = s.dz + (i - first) * m * ldz;
            at_once = follows ? n : 1;
            rows = at_once * m;
            if (a->indices)
                for (ptrdiff_t r = 0; r < rows; r++)
                    FN(add_row)(ldh, s.columns + a->indices[place + r] * ldh, dz + r * ldz);
            else
                FN(pack_rows)((const REAL *)a->x + place * d, rows, d, (i - first) * m, k, s.panels);
            if (a->dx) FN(times_panels)(rows, d, h, dz, ldz, p.dinput, (REAL *)a->dx + place * d, d, 0);
        }
        if (!a->indices)
            FN(gemm)(h, d, k, s.dz, 1, ldz, s.panels, NR, k * NR, a->dW_ih, d, accumulate, NULL);
        for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(after + r * ldz, s.dz + r * ldz, ldh);
        accumulate = 1;
    }
    if (a->indices && a->dW_hh) FN(pack_panel)(s.columns, 1, ldh, h, d, d, a->dW_ih);
    REAL *db_ih = a->db_ih, *db_hh = a->db_hh;
    for (ptrdiff_t i = 0; a->dW_hh && i < h; i++) {
        db_ih[i] = a->accumulate ? db_ih[i] + s.db[i] : s.db[i];
        db_hh[i] = a->accumulate ? db_hh[i] + s.db[i] : s.db[i];
    }
    if (a->lengths && a->reverse) after = s.firsts;
    REAL *dh0 = (REAL *)a->dh0 + a->start * h;
    if (N == 1) {
        FN(fill)(s.spare, ldh, 0);
        FN(carry_back)(a, &p, after, ldz, s.spare, h, h, 0);
        FN(copy_row)(dh0, s.spare, h);
    } else {
        FN(times_panels)(m, h, h, after, ldz, p.back, dh0, h, 0);
    }
}

/* ---- the output --------------------------------------------------------------------------------- */

typedef struct {
    REAL *bias;    /* (ldq), minus infinity in the padding */
    REAL *forward; /* W' for gemm */
    REAL *back;    /* W for gemm */
    ptrdiff_t size;
} FN(packed_output);

static FN(packed_output) FN(output_panels)(void *packed, ptrdiff_t h, ptrdiff_t q) {
    FN(packed_output) p;
    REAL *base = FN(aligned)(packed);
    ptrdiff_t used = 0;
    p.bias = FN(take)(base, &used, FN(padded)(q));
    p.forward = FN(take)(base, &used, h * FN(gemm_padded)(q));
    p.back = FN(take)(base, &used, q * FN(gemm_padded)(h));
    p.size = used + 64;
    return p;
}

static void FN(pack_output)(const output_arguments *a) {
    FN(packed_output) p = FN(output_panels)(a->packed, a->h, a->q);
    FN(copy_row)(p.bias, a->b, a->q);
    for (ptrdiff_t j = a->q; j < FN(padded)(a->q); j++) p.bias[j] = -(REAL)INFINITY;
    FN(pack_gemm)(a->W, 1, a->h, a->h, a->q, p.forward);
    FN(pack_gemm)(a->W, a->h, 1, a->q, a->h, p.back);
}

typedef struct {
    REAL *y;      /* (steps, rows, ldq) logits, then their gradient */
    REAL *panels; /* states, for gemm */
    REAL *db;     /* (ldq) */
    ptrdiff_t size;
} FN(output_space);

static FN(output_space) FN(output_layout)(void *work, ptrdiff_t T, ptrdiff_t rows, ptrdiff_t h, ptrdiff_t q) {
    FN(output_space) s;
    REAL *base = FN(aligned)(work);
    ptrdiff_t used = 0, steps = FN(block_steps)(T, rows);
    s.y = FN(take)(base, &used, steps * rows * FN(spread)(FN(padded)(q)));
    s.panels = FN(take)(base, &used, steps * rows * FN(gemm_padded)(h));
    s.db = FN(take)(base, &used, FN(padded)(q));
    s.size = used + 64;
    return s;
}

static void FN(output_sizes)(ptrdiff_t T, ptrdiff_t rows, ptrdiff_t h, ptrdiff_t q, ptrdiff_t *packed, ptrdiff_t *work) {
    *packed = FN(output_panels)(NULL, h, q).size;
    *work = FN(output_layout)(NULL, T, rows, h, q).size;
}

/* y (rows, ldy) = W h_t + b for n time steps from t0 on. */
static void FN(logits_block)(const output_arguments *a, const FN(packed_output) *p, ptrdiff_t t0, ptrdiff_t n, REAL *y,
                             ptrdiff_t ldy) {
    ptrdiff_t N = a->N, h = a->h, ldq = FN(padded)(a->q), m = a->stop - a->start;
    for (ptrdiff_t r = 0; r < n * m; r++) FN(copy_row)(y + r * ldy, p->bias, ldq);
    for (ptrdiff_t t = 0, rows; t < n * m; t += rows) {
        rows = m == N ? n * m : m; /* of the whole batch, those of all steps follow one another */
        FN(times_panels)(rows, ldq, h, (const REAL *)a->hs + ((t0 + t / m) * N + a->start) * h, h, p->forward,
                         y + t * ldy, ldy, 1);
    }
}

static void FN(output_logits)(const output_arguments *a) {
    ptrdiff_t T = a->T, q = a->q, m = a->stop - a->start, steps = FN(block_steps)(T, m);
    ptrdiff_t ldy = FN(spread)(FN(padded)(q));
    FN(packed_output) p = FN(output_panels)(a->packed, a->h, q);
    FN(output_space) s = FN(output_layout)(a->work, T, m, a->h, q);
    for (ptrdiff_t t0 = 0; t0 < T; t0 += steps) {
        ptrdiff_t n = T - t0 < steps ? T - t0 : steps;
        FN(logits_block)(a, &p, t0, n, s.y, ldy);
        for (ptrdiff_t t = 0; t < n; t++)
            for (ptrdiff_t r = 0; r < m; r++)
                FN(copy_row)((REAL *)a->logits + ((t0 + t) * a->N + a->start + r) * q, s.y + (t * m + r) * ldy, q);
    }
}

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

/* Loss, and gradients unless dhs is NULL. */
static double FN(output_loss)(const output_arguments *a) {
    ptrdiff_t T = a->T, N = a->N, h = a->h, q = a->q, m = a->stop - a->start, steps = FN(block_steps)(T, m);
    ptrdiff_t ldq = FN(padded)(q), ldy = FN(spread)(ldq);
    FN(packed_output) p = FN(output_panels)(a->packed, h, q);
    FN(output_space) s = FN(output_layout)(a->work, T, m, h, q);
    const REAL scale = (REAL)a->scale;
    int accumulate = a->accumulate;
    double loss = 0, product = 1; /* the logarithm of a product of a few totals is taken at once */
    int factors = 0;
    if (a->dhs) {
        if (accumulate) FN(copy_padded)(s.db, a->db, q);
        else FN(fill)(s.db, ldq, 0);
    }
    for (ptrdiff_t t0 = 0; t0 < T; t0 += steps) {
        ptrdiff_t n = T - t0 < steps ? T - t0 : steps, k = n * m;
        FN(logits_block)(a, &p, t0, n, s.y, ldy);
        for (ptrdiff_t r = 0; r < k; r++) {
            REAL *y = s.y + r * ldy, top;
            int64_t wanted = a->targets[(t0 + r / m) * N + a->start + r % m];
            if (wanted < 0) { /* does not count */
                if (a->dhs) FN(fill)(y, ldq, 0);
                continue;
            }
            double chosen = (double)y[wanted];
            REAL total = FN(exponentials)(y, ldq, &top);
            loss += (double)top - chosen;
            product *= (double)total; /* 1 <= total <= q */
            if (++factors == 16) {
                loss += log(product);
                product = 1;
                factors = 0;
            }
            if (!a->dhs) continue;
            V by = FN(splat)(scale / total);
            for (ptrdiff_t j = 0; j < ldq; j += VL) FN(store)(y + j, FN(load)(y + j) * by);
            y[wanted] -= scale; /* eq. 7 */
            FN(add_row)(ldq, s.db, y);
        }
        if (!a->dhs) continue;
        for (ptrdiff_t t = 0, rows; t < k; t += rows) {
            ptrdiff_t place = ((t0 + t / m) * N + a->start) * h;
            rows = m == N ? k : m; /* of the whole batch, those of all steps follow one another */
            FN(times_panels)(rows, h, q, s.y + t * ldy, ldy, p.back, (REAL *)a->dhs + place, h, 0);
            FN(pack_rows)((const REAL *)a->hs + place, rows, h, t, k, s.panels);
        }
        FN(gemm)(q, h, k, s.y, 1, ldy, s.panels, NR, k * NR, a->dW, h, accumulate, NULL); /* eq. 8 */
        accumulate = 1;
    }
    if (a->dhs) FN(copy_row)(a->db, s.db, q);
    return loss + log(product);
}

/* ---- the sum of all parts' gradients ------------------------------------------------------------- */

/* out = sum of parts (P, n), clipped; returns the norm before (eq. 15). */
static double FN(reduce_gradients)(ptrdiff_t parts, ptrdiff_t n, const void *gradients, int clip, double threshold,
                                   void *sum) {
    const REAL *g = gradients;
    REAL *out = sum;
    double squares = 0;
    for (ptrdiff_t i = 0; i < n; i += 512) { /* a piece at a time, for the sake of precision */
        ptrdiff_t stop = n - i < 512 ? n : i + 512;
        if (out != g) FN(copy_row)(out + i, g + i, stop - i);
        for (ptrdiff_t part = 1; part < parts; part++) {
            ptrdiff_t j = i;
            for (; j + VL <= stop; j += VL) FN(store)(out + j, FN(load)(out + j) + FN(load)(g + part * n + j));
            for (; j < stop; j++) out[j] += g[part * n + j];
        }
        squares += (double)FN(sum_of_squares)(out + i, stop - i);
    }
    if (!(squares < (double)INFINITY) && FN(all_finite)(out, n)) { /* squares beyond the largest number */
        squares = 0;
        for (ptrdiff_t i = 0; i < n; i++) squares += (double)out[i] * 0x1p-600 * ((double)out[i] * 0x1p-600);
        squares = sqrt(squares) * 0x1p600;
    } else {
        squares = sqrt(squares);
    }
    if (clip == CLIP_VALUE) {
        V bound = FN(splat)((REAL)threshold);
        REAL limit = (REAL)threshold;
        ptrdiff_t i = 0;
        for (; i + VL <= n; i += VL) FN(store)(out + i, FN(clamp)(FN(load)(out + i), bound));
        for (; i < n; i++) out[i] = out[i] > limit ? limit : out[i] < -limit ? -limit : out[i];
    }
    if (clip == CLIP_NORM && !(squares <= threshold)) {
        REAL factor = (REAL)(threshold / squares);
        for (ptrdiff_t i = 0; i < n; i++) out[i] *= factor;
    }
    return squares;
}

/* ---- sampling ------------------------------------------------------------------------------------ */

typedef struct {
    REAL *z;          /* (rows, ldh) */
    REAL *y;          /* (rows, ldq) */
    REAL *vector;     /* (2, ldh) one sequence: its states */
    REAL *forward;    /* W' for gemv, for one sequence */
    int64_t *indices; /* (rows) the next inputs */
    ptrdiff_t *order; /* (q) classes by falling probability */
    ptrdiff_t size;
} FN(sample_space);

static FN(sample_space) FN(sample_layout)(void *work, ptrdiff_t N, ptrdiff_t rows, ptrdiff_t h, ptrdiff_t q) {
    FN(sample_space) s;
    REAL *base = FN(aligned)(work);
    ptrdiff_t used = 0, ldh = FN(padded)(h), ldq = FN(padded)(q), words = (ptrdiff_t)(sizeof(int64_t) / sizeof(REAL));
    s.z = FN(take)(base, &used, rows * ldh);
    s.y = FN(take)(base, &used, rows * ldq);
    s.vector = FN(take)(base, &used, 2 * ldh);
    s.forward = FN(take)(base, &used, N == 1 ? h * ldq : 0);
    s.indices = (int64_t *)FN(take)(base, &used, rows * words);
    s.order = (ptrdiff_t *)FN(take)(base, &used, q * words);
    s.size = used + 64;
    return s;
}

static ptrdiff_t FN(sample_size)(ptrdiff_t N, ptrdiff_t rows, ptrdiff_t h, ptrdiff_t q) {
    return FN(sample_layout)(NULL, N, rows, h, q).size;
}

/* Class a comes before class b: it is more probable, or as probable and has the lower index. */
ALWAYS_INLINE int FN(before)(const REAL *p, ptrdiff_t a, ptrdiff_t b) { return p[a] > p[b] || (p[a] == p[b] && a < b); }

/* Moves the class at `root` of a heap of n classes down to its place. */
static void FN(sift)(const REAL *p, ptrdiff_t *heap, ptrdiff_t n, ptrdiff_t root) {
    for (ptrdiff_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && FN(before)(p, heap[child + 1], heap[child])) child++;
        if (FN(before)(p, heap[root], heap[child])) return;
        ptrdiff_t swap = heap[root];
        heap[root] = heap[child];
        heap[child] = swap;
    }
}

/* Makes zero what is neither among the top_k most probable classes (0: all), nor among the fewest of them
 * whose probabilities reach top_p of theirs in sum. */
static void FN(restrict_classes)(REAL *p, ptrdiff_t q, ptrdiff_t top_k, double top_p, ptrdiff_t *heap) {
    ptrdiff_t k = top_k > 0 && top_k < q ? top_k : q, left = q, kept = 0;
    double total = 0, reached = 0;
    for (ptrdiff_t j = 0; j < q; j++) heap[j] = j;
    for (ptrdiff_t j = q / 2 - 1; j >= 0; j--) FN(sift)(p, heap, q, j);
    for (ptrdiff_t i = 0; i < k; i++) { /* the most probable goes behind the heap: they end in falling order */
        ptrdiff_t most = heap[0];
        heap[0] = heap[--left];
        heap[left] = most;
        total += (double)p[most];
        FN(sift)(p, heap, left, 0);
    }
    for (; kept < k; kept++) {
        if (top_p < 1 && kept && reached >= top_p * total) break;
        reached += (double)p[heap[q - 1 - kept]];
    }
    for (ptrdiff_t i = 0; i < q - kept; i++) p[heap[i]] = 0;
}

/* Class index drawn from the logits y (ldq, padding minus infinity), or -1 if they are not numbers. */
static ptrdiff_t FN(draw_class)(const sample_arguments *a, const FN(sample_space) *s, REAL *y, double u) {
    ptrdiff_t q = a->q, best = 0;
    REAL top, least = REAL_BITS == 64 ? (REAL)0x1p-1022 : (REAL)0x1p-126;
    if (a->temperature == 0) {
        for (ptrdiff_t j = 0; j < q; j++) {
            if (!(y[j] < (REAL)INFINITY)) return -1;
            if (y[j] > y[best]) best = j;
        }
        return best;
    }
    if (a->temperature != 1) {
        V most = FN(load)(y), by = FN(splat)((REAL)a->temperature > least ? (REAL)a->temperature : least);
        for (ptrdiff_t j = VL; j < FN(padded)(q); j += VL) most = FN(at_least)(most, FN(load)(y + j));
        most = FN(splat)(FN(largest)(most));
        for (ptrdiff_t j = 0; j < FN(padded)(q); j += VL) FN(store)(y + j, (FN(load)(y + j) - most) / by);
    }
    if (!(FN(exponentials)(y, FN(padded)(q), &top) > 0)) return -1;
    if ((a->top_k > 0 && a->top_k < q) || a->top_p < 1) FN(restrict_classes)(y, q, a->top_k, a->top_p, s->order);
    return FN(draw)(y, q, u);
}

/* One time step of one sequence in layer l, from the layer's input x, or the class `index` at the bottom. */
static void FN(sample_alone)(const sample_arguments *a, const FN(sample_space) *s, ptrdiff_t l, const REAL *x,
                             int64_t index, ptrdiff_t i) {
    ptrdiff_t h = a->h, ldh = FN(padded)(h), d = l ? h : a->q;
    FN(packed_layer) p = FN(layer_panels)(a->packed[l], d, h);
    REAL *state = (REAL *)a->states + l * h, *row = s->z;
    const REAL *z = row;
    if (x) {
        FN(copy_row)(row, p.bias, ldh);
        FN(times_panels)(1, ldh, d, x, d, p.input, row, ldh, 1);
    } else {
        z = p.input + index * ldh;
    }
    FN(gemv)(p.forward, h, h, state, a->cell == RELU ? EPILOGUE_ADD : EPILOGUE_TANH, z, z, row, i & 1);
    if (a->cell == RELU) FN(activate)(1, ldh, row);
    FN(copy_row)(state, row, h);
}

/* One time step of the rows start .. stop in layer l. */
static void FN(sample_step)(const sample_arguments *a, const FN(sample_space) *s, ptrdiff_t l, const REAL *x) {
    ptrdiff_t h = a->h, ldh = FN(padded)(h), d = l ? h : a->q, m = a->stop - a->start;
    FN(packed_layer) p = FN(layer_panels)(a->packed[l], d, h);
    REAL *state = (REAL *)a->states + (l * a->N + a->start) * h;
    for (ptrdiff_t r = 0; r < m; r++)
        FN(copy_row)(s->z + r * ldh, x ? p.bias : p.input + s->indices[r] * ldh, ldh);
    if (x) FN(times_panels)(m, ldh, d, x, d, p.input, s->z, ldh, 1);
    FN(times_panels)(m, ldh, h, state, h, p.forward, s->z, ldh, 1);
    FN(activate)(a->cell == RELU, m * ldh, s->z);
    for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(state + r * h, s->z + r * ldh, h);
}

static ptrdiff_t FN(sample_batch)(const sample_arguments *a) {
    ptrdiff_t N = a->N, n = a->n, h = a->h, q = a->q, ldq = FN(padded)(q), m = a->stop - a->start, i = 0;
    FN(sample_space) s = FN(sample_layout)(a->work, N, m, h, q);
    FN(packed_output) p = FN(output_panels)(a->packed_output, h, q);
    if (N == 1) FN(pack_gemv)(a->W, 1, h, h, q, s.forward);
    for (ptrdiff_t r = 0; r < m; r++) s.indices[r] = a->first[a->start + r];
    for (; i < n; i++) {
        const REAL *x = NULL;
        for (ptrdiff_t l = 0; l < a->layers; l++) {
            if (N == 1) FN(sample_alone)(a, &s, l, x, s.indices[0], i);
            else FN(sample_step)(a, &s, l, x);
            x = (const REAL *)a->states + (l * N + a->start) * h;
        }
        if (N == 1) {
            FN(gemv)(s.forward, h, q, x, EPILOGUE_ADD, p.bias, p.bias, s.y, i & 1);
        } else {
            for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(s.y + r * ldq, p.bias, ldq);
            FN(times_panels)(m, ldq, h, x, h, p.forward, s.y, ldq, 1);
        }
        for (ptrdiff_t r = 0; r < m; r++) {
            ptrdiff_t drawn = FN(draw_class)(a, &s, s.y + r * ldq, a->uniforms[(a->start + r) * n + i]);
            if (drawn < 0) return i;
            s.indices[r] = drawn;
        }
        for (ptrdiff_t r = 0; r < m; r++) a->out[(a->start + r) * n + i] = s.indices[r];
    }
    return i;
}

static const batched_loops FN(batched_loops) = {
    FN(layer_sizes),   FN(output_sizes), FN(sample_size),      FN(pack_layer),  FN(pack_output), FN(layer_forward),
    FN(layer_backward), FN(output_logits), FN(output_loss), FN(reduce_gradients), FN(sample_batch),
};
