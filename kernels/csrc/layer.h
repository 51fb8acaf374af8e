/* The batched layer: N sequences side by side, time-major.
 *
 *     z_t  = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh,  h_t = tanh(z_t) or max(z_t, 0)          (1)
 *     dh_t = d output_t + W_hh' dz_{t+1},  dz_t = dh_t (1 - h_t^2) or dh_t where h_t > 0      (9), (12), (10)
 *     dW_hh = sum dz_t h_{t-1}',  dW_ih = sum dz_t x_t',  db = sum dz_t,  dx_t = W_ih' dz_t   (11), (13)
 *
 * See numpy_kernels/layer.py for the arguments.  A thread takes the rows start .. stop of the batch through all
 * time steps.  Weights are packed once a call: a time step is then one product of those rows with panels that are
 * read in order.  For a few rows, time steps x sequences, packing takes longer than it saves: a->packed is NULL and
 * the weights are used as they are.  Weight gradients are products over blocks of time steps of KROWS rows in all.
 *
 * A row of a product does not depend on the rows beside it, and what is summed over rows is summed in the
 * order of time and of the batch: so results depend on start and stop only in those sums.
 */

#define KROWS 128 /* rows (time steps x sequences) that a product over time sums up at once */

/* Row length of a block of dz, so that successive rows do not compete for the same lines of a cache. */
ALWAYS_INLINE ptrdiff_t FN(spread)(ptrdiff_t ld) { return ld * (ptrdiff_t)sizeof(REAL) % 1024 ? ld : ld + VL; }

/* Time steps of a block that holds `rows` sequences. */
ALWAYS_INLINE ptrdiff_t FN(block_steps)(ptrdiff_t T, ptrdiff_t rows) {
    ptrdiff_t n = KROWS / rows;
    return n < 1 ? 1 : n < T ? n : T;
}

/* ---- packed weights and work space ---------------------------------------------------------------------- */

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

static void FN(layer_sizes)(ptrdiff_t T, ptrdiff_t rows, ptrdiff_t d, ptrdiff_t h, ptrdiff_t *packed,
                            ptrdiff_t *work) {
    *packed = FN(layer_panels)(NULL, d, h).size;
    *work = FN(layer_layout)(NULL, T, rows, d, h).size;
}

/* ---- forward -------------------------------------------------------------------------------------------- */

/* z = W_ih x_t + b for the sequences of one time step, rows of h elements. */
static void FN(project_step)(const layer_arguments *a, const FN(packed_layer) *p, ptrdiff_t t, REAL *z) {
    ptrdiff_t d = a->d, h = a->h, ldh = FN(padded)(h), m = a->stop - a->start;
    const int64_t *index = a->indices ? a->indices + t * a->N + a->start : NULL;
    for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(z + r * h, index ? p->input + index[r] * ldh : p->bias, h);
    if (!index)
        FN(times_panels)(m, h, d, (const REAL *)a->x + (t * a->N + a->start) * d, d, p->input, z, h, 1);
}

/* The same with the weights as they are, into hs, of all time steps: they share each strip of W_ih.  (Where the
 * rows are not the whole batch, those of one step do.) */
static void FN(project_unpacked)(const layer_arguments *a, REAL *bias) {
    ptrdiff_t T = a->T, N = a->N, d = a->d, h = a->h, m = a->stop - a->start, at_once = m == N ? T : 1;
    const REAL *W_ih = a->W_ih, *b_ih = a->b_ih, *b_hh = a->b_hh;
    for (ptrdiff_t i = 0; i < h; i++) bias[i] = b_ih[i] + b_hh[i];
    for (ptrdiff_t t = 0; t < T; t += at_once) {
        ptrdiff_t place = t * N + a->start, rows = at_once * m;
        REAL *z = (REAL *)a->hs + place * h;
        for (ptrdiff_t r = 0; r < rows; r++, z += h) {
            FN(copy_row)(z, bias, h);
            if (!a->indices) continue;
            const REAL *column = W_ih + a->indices[place + r];
            for (ptrdiff_t i = 0; i < h; i++) z[i] += column[i * d];
        }
        if (!a->indices)
            FN(rows_times_strips)(W_ih, h, d, rows, (const REAL *)a->x + place * d, d, (REAL *)a->hs + place * h, h);
    }
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
        FOR_CELL(a->cell, FN(gemv)(p->forward, h, h, before, EPILOGUE_CELL, CELL, z, z, row, i & 1));
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
    if (a->packed && a->N == 1) {
        FN(forward_alone)(a, &p, &s, lengths ? (ptrdiff_t)*lengths : T);
        return;
    }
    if (!a->packed) FN(project_unpacked)(a, s.spare);
    if (lengths) { /* states stay where they are while their sequence has not begun, or has ended */
        for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(s.state + r * h, before + r * h, h);
        before = s.state;
    }
    for (ptrdiff_t i = 0; i < T; i++) {
        ptrdiff_t t = a->reverse ? T - 1 - i : i;
        REAL *z = (REAL *)a->hs + (t * a->N + a->start) * h;
        if (a->packed) {
            FN(project_step)(a, &p, t, z);
            FN(times_panels)(m, h, h, before, h, p.forward, z, h, 1);
        } else {
            FN(rows_times_strips)(a->W_hh, h, h, m, before, h, z, h);
        }
        FOR_CELL(a->cell, FN(apply_cell)(CELL, m * h, z));
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

/* ---- backward ------------------------------------------------------------------------------------------- */

/* out (rows, ldz) += dz W_hh. */
ALWAYS_INLINE void FN(carry_back)(const layer_arguments *a, const FN(packed_layer) *p, const REAL *dz, ptrdiff_t ldz,
                                  REAL *out, ptrdiff_t step) {
    ptrdiff_t h = a->h, m = a->stop - a->start;
    if (!a->packed) FN(strips_times_rows)(a->W_hh, h, h, m, dz, ldz, out, ldz);
    else if (a->N == 1) FN(gemv)(p->back, h, h, dz, EPILOGUE_ADD, 0, out, out, out, step & 1);
    else FN(times_panels)(m, FN(padded)(h), h, dz, ldz, p->back, out, ldz, 1);
}

/* dh_t of sequence r from its output, and from h_n where it ends here: all but W_hh' dz_{t+1}. */
ALWAYS_INLINE void FN(upstream)(const layer_arguments *a, ptrdiff_t r, ptrdiff_t t, int ends, REAL *dh) {
    ptrdiff_t h = a->h, n = a->start + r;
    FN(copy_padded)(dh, (const REAL *)a->dhs + (t * a->N + n) * h, h);
    if (!ends || !a->dh_n) return;
    const REAL *dh_n = (const REAL *)a->dh_n + n * h;
    for (ptrdiff_t j = 0; j < h; j++) dh[j] += dh_n[j];
}

/* dz of step i of the layer's order into `row` (rows, ldz), from that of the step after it, if there is one. */
static void FN(backward_step)(const layer_arguments *a, const FN(packed_layer) *p, const FN(layer_space) *s,
                              ptrdiff_t i, const REAL *after, REAL *row, ptrdiff_t ldz) {
    ptrdiff_t T = a->T, h = a->h, m = a->stop - a->start, t = a->reverse ? T - 1 - i : i;
    ptrdiff_t place = (t * a->N + a->start) * h;
    const int64_t *lengths = a->lengths ? a->lengths + a->start : NULL;
    for (ptrdiff_t r = 0; r < m; r++) FN(upstream)(a, r, t, i == T - 1, row + r * ldz);
    if (after) FN(carry_back)(a, p, after, ldz, row, i);
    if (lengths && !a->reverse) /* nothing comes back to the last step of a sequence: not even zero times NaN */
        for (ptrdiff_t r = 0; r < m; r++)
            if (t == lengths[r] - 1) FN(upstream)(a, r, t, 1, row + r * ldz);
    for (ptrdiff_t r = 0; r < m; r++) {
        int ended = lengths && t >= lengths[r];
        if (ended) FN(fill)(row + r * ldz, h, 0);
        if (a->dh_all) FN(copy_row)((REAL *)a->dh_all + place + r * h, row + r * ldz, h);
        if (ended) continue;
        FOR_CELL(a->cell, FN(apply_slope)(CELL, h, (const REAL *)a->hs + place + r * h, row + r * ldz));
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

/* A block of time steps: n of them from `first` of the layer's order on, whose dz lie in s->dz (n, rows, ldz). */
typedef struct {
    ptrdiff_t first, n, ldz;
    int follows; /* steps follow one another in memory as they do in the block: they can be taken at once */
} FN(layer_block);

/* Place in the batch of row 0 of step i. */
ALWAYS_INLINE ptrdiff_t FN(place_of)(const layer_arguments *a, ptrdiff_t i) {
    return (a->reverse ? a->T - 1 - i : i) * a->N + a->start;
}

/* dx = W_ih' dz of a block. */
static void FN(input_gradients)(const layer_arguments *a, const FN(packed_layer) *p, const FN(layer_space) *s,
                                const FN(layer_block) *block) {
    ptrdiff_t d = a->d, h = a->h, m = a->stop - a->start, ldz = block->ldz, at_once = block->follows ? block->n : 1;
    for (ptrdiff_t i = 0; i < block->n; i += at_once) {
        ptrdiff_t rows = at_once * m;
        const REAL *dz = s->dz + i * m * ldz;
        REAL *dx = (REAL *)a->dx + FN(place_of)(a, block->first + i) * d;
        if (a->packed) {
            FN(times_panels)(rows, d, h, dz, ldz, p->dinput, dx, d, 0);
        } else {
            FN(fill)(dx, rows * d, 0);
            FN(strips_times_rows)(a->W_ih, h, d, rows, dz, ldz, dx, d);
        }
    }
}

/* Adds a block to the sums of gradients, or begins them with it. */
static void FN(add_gradients)(const layer_arguments *a, const FN(layer_space) *s, const FN(layer_block) *block,
                              int accumulate) {
    ptrdiff_t d = a->d, h = a->h, ldh = FN(padded)(h), ldz = block->ldz;
    ptrdiff_t m = a->stop - a->start, n = block->n, k = n * m;
    for (ptrdiff_t r = 0; r < k; r++) FN(add_row)(ldh, s->db, s->dz + r * ldz);

    for (ptrdiff_t j = 0, at_once; j < n; j += at_once) { /* eq. 13 */
        ptrdiff_t i = block->first + j;
        at_once = i && block->follows ? n - j : 1; /* the state before the first step lies elsewhere */
        FN(pack_rows)(FN(states_before)(a, i, s->state), at_once * m, h, j * m, k, s->panels);
    }
    FN(gemm)(h, h, k, s->dz, 1, ldz, s->panels, NR, k * NR, a->dW_hh, h, accumulate, NULL);

    for (ptrdiff_t j = 0, at_once = block->follows ? n : 1; j < n; j += at_once) { /* eq. 11 */
        ptrdiff_t place = FN(place_of)(a, block->first + j), rows = at_once * m;
        if (a->indices)
            for (ptrdiff_t r = 0; r < rows; r++)
                FN(add_row)(ldh, s->columns + a->indices[place + r] * ldh, s->dz + (j * m + r) * ldz);
        else
            FN(pack_rows)((const REAL *)a->x + place * d, rows, d, j * m, k, s->panels);
    }
    if (!a->indices) FN(gemm)(h, d, k, s->dz, 1, ldz, s->panels, NR, k * NR, a->dW_ih, d, accumulate, NULL);
}

/* Work space for the sums that are kept there, and back to the gradients. */
static void FN(begin_gradients)(const layer_arguments *a, const FN(layer_space) *s) {
    ptrdiff_t d = a->d, h = a->h, ldh = FN(padded)(h);
    FN(fill)(s->db, ldh, 0);
    if (!a->indices) return;
    if (a->accumulate) FN(pack_panel)(a->dW_ih, 1, d, d, h, ldh, s->columns);
    else FN(fill)(s->columns, d * ldh, 0);
}

static void FN(end_gradients)(const layer_arguments *a, const FN(layer_space) *s) {
    ptrdiff_t d = a->d, h = a->h;
    REAL *db_ih = a->db_ih, *db_hh = a->db_hh;
    if (a->indices) FN(pack_panel)(s->columns, 1, FN(padded)(h), h, d, d, a->dW_ih);
    for (ptrdiff_t i = 0; i < h; i++) {
        db_ih[i] = a->accumulate ? db_ih[i] + s->db[i] : s->db[i];
        db_hh[i] = a->accumulate ? db_hh[i] + s->db[i] : s->db[i];
    }
}

/* dh0 = W_hh' dz of each sequence's first step (rows, ldz). */
static void FN(first_gradient)(const layer_arguments *a, const FN(packed_layer) *p, const FN(layer_space) *s,
                               const REAL *dz, ptrdiff_t ldz) {
    ptrdiff_t h = a->h, m = a->stop - a->start;
    REAL *dh0 = (REAL *)a->dh0 + a->start * h;
    if (!a->packed) {
        FN(fill)(dh0, m * h, 0);
        FN(strips_times_rows)(a->W_hh, h, h, m, dz, ldz, dh0, h);
    } else if (a->N == 1) {
        FN(fill)(s->spare, FN(padded)(h), 0);
        FN(carry_back)(a, p, dz, ldz, s->spare, 0);
        FN(copy_row)(dh0, s->spare, h);
    } else {
        FN(times_panels)(m, h, h, dz, ldz, p->back, dh0, h, 0);
    }
}

static void FN(layer_backward)(const layer_arguments *a) {
    ptrdiff_t T = a->T, ldh = FN(padded)(a->h), ldz = FN(spread)(ldh), m = a->stop - a->start;
    ptrdiff_t steps = FN(block_steps)(T, m);
    FN(packed_layer) p = FN(layer_panels)(a->packed, a->d, a->h);
    FN(layer_space) s = FN(layer_layout)(a->work, T, m, a->d, a->h);
    REAL *after = s.dz + steps * m * ldz;
    int accumulate = a->accumulate;
    if (a->dW_hh) FN(begin_gradients)(a, &s);
    for (ptrdiff_t first = (T - 1) / steps * steps; first >= 0; first -= steps) {
        FN(layer_block) block = {first, T - first < steps ? T - first : steps, ldz, m == a->N && !a->reverse};
        for (ptrdiff_t j = block.n - 1; j >= 0; j--) {
            REAL *row = s.dz + j * m * ldz, *next = j == block.n - 1 ? after : row + m * ldz;
            FN(backward_step)(a, &p, &s, first + j, first + j == T - 1 ? NULL : next, row, ldz);
        }
        if (a->dW_hh) FN(add_gradients)(a, &s, &block, accumulate);
        if (a->dx) FN(input_gradients)(a, &p, &s, &block);
        for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(after + r * ldz, s.dz + r * ldz, ldh);
        accumulate = 1;
    }
    if (a->dW_hh) FN(end_gradients)(a, &s);
    FN(first_gradient)(a, &p, &s, a->lengths && a->reverse ? s.firsts : after, ldz);
}
