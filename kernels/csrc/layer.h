/* The batched layer: N sequences side by side, time-major.
 *
 *     z_t  = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh,  h_t = tanh(z_t) or max(z_t, 0)          (1)
 *     dh_t = d output_t + W_hh' dz_{t+1},  dz_t = dh_t (1 - h_t^2) or dh_t where h_t > 0      (9), (12), (10)
 *     dW_hh = sum dz_t h_{t-1}',  dW_ih = sum dz_t x_t',  db = sum dz_t,  dx_t = W_ih' dz_t   (11), (13)
 *
 * A cell with gates has several blocks in z_t and dz_t, of h elements each: see cells.h.
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
    REAL *bias;    /* (ldz) of a row z_t: b_ih + b_hh, where the parts overlap */
    REAL *input;   /* one-hot: (d, ldz), W_ih' with the bias added to each row; else W_ih' for gemm */
    REAL *forward; /* W_hh', for gemm, or for gemv where there is one sequence */
    REAL *back;    /* W_hh, likewise */
    REAL *dinput;  /* W_ih for gemm, not for one-hot inputs */
    REAL *turned;  /* (gates, d) W_ih with its rows in the order of z_t, where that is another */
    ptrdiff_t size;
} FN(packed_layer);

static FN(packed_layer) FN(layer_panels)(void *packed, ptrdiff_t d, ptrdiff_t h, int cell) {
    FN(packed_layer) p;
    REAL *base = FN(aligned)(packed);
    ptrdiff_t used = 0, gates = FN(gates)(cell, h), ldz = FN(gemm_padded)(FN(row_size)(cell, h));
    p.bias = FN(take)(base, &used, ldz);
    p.input = FN(take)(base, &used, d * ldz);
    p.forward = FN(take)(base, &used, h * FN(gemm_padded)(gates));
    p.back = FN(take)(base, &used, gates * FN(gemm_padded)(h));
    p.dinput = FN(take)(base, &used, gates * FN(gemm_padded)(d));
    p.turned = FN(take)(base, &used, FN(recurrent_part)(cell, h) ? gates * d : 0);
    p.size = used + 64;
    return p;
}

/* What does not depend on x_t and h_{t-1} in a row z_t: both biases, added up where the parts overlap. */
static void FN(make_bias)(const layer_arguments *a, REAL *bias) {
    ptrdiff_t h = a->h, gates = FN(gates)(a->cell, h), part = FN(recurrent_part)(a->cell, h);
    const REAL *b_ih = a->b_ih, *b_hh = a->b_hh;
    FN(run) runs[2];
    int count = FN(input_runs)(a->cell, h, runs);
    FN(fill)(bias + gates, FN(row_size)(a->cell, h) - gates, 0);
    for (int i = 0; i < count; i++) FN(copy_row)(bias + runs[i].z, b_ih + runs[i].w, runs[i].n);
    for (ptrdiff_t j = 0; j < gates; j++) bias[part + j] += b_hh[j];
}

static void FN(pack_layer)(const layer_arguments *a) {
    ptrdiff_t d = a->d, h = a->h, gates = FN(gates)(a->cell, h), ldz = FN(row_size)(a->cell, h);
    FN(packed_layer) p = FN(layer_panels)(a->packed, d, h, a->cell);
    const REAL *W_ih = a->W_ih;
    FN(make_bias)(a, p.bias);
    if (FN(recurrent_part)(a->cell, h)) {
        FN(run) runs[2];
        int count = FN(input_runs)(a->cell, h, runs);
        for (int i = 0; i < count; i++)
            memcpy(p.turned + runs[i].z * d, W_ih + runs[i].w * d, (size_t)(runs[i].n * d) * sizeof(REAL));
        W_ih = p.turned;
    }
    if (a->one_hot) {
        FN(pack_panel)(W_ih, 1, d, d, gates, ldz, p.input);
        for (ptrdiff_t c = 0; c < d; c++)
            for (ptrdiff_t i = 0; i < ldz; i += VL)
                FN(store)(p.input + c * ldz + i, FN(load)(p.input + c * ldz + i) + FN(load)(p.bias + i));
    } else {
        FN(pack_gemm)(W_ih, 1, d, d, gates, p.input);
        FN(pack_gemm)(W_ih, d, 1, gates, d, p.dinput);
    }
    if (a->N == 1) {
        FN(pack_gemv)(a->W_hh, 1, h, h, gates, p.forward);
        FN(pack_gemv)(a->W_hh, h, 1, gates, h, p.back);
    } else {
        FN(pack_gemm)(a->W_hh, 1, h, h, gates, p.forward);
        FN(pack_gemm)(a->W_hh, h, 1, gates, h, p.back);
    }
}

typedef struct {
    REAL *dz;      /* (steps + 1, rows, ldz), the last of them the step after the block */
    REAL *panels;  /* what dz is multiplied by, for gemm */
    REAL *columns; /* (d, ld) gradient of W_ih', for one-hot inputs */
    REAL *db;      /* (ldz) */
    REAL *state;   /* (rows, ldh) see their uses */
    REAL *firsts;  /* (rows, ldz) dz of the step that a sequence of a reverse layer begins with */
    REAL *spare;   /* (ldz) */
    /* of cells with gates */
    REAL *z;       /* (z_rows, ldz) z_t of a step, or of several steps of one sequence */
    REAL *dh;      /* (rows, ldh) */
    REAL *carry;   /* (rows, ldh) c_t, and backward what goes from step to step beside the products: see cells.h */
    ptrdiff_t z_rows, ldz, ldh, size;
} FN(layer_space);

static FN(layer_space) FN(layer_layout)(void *work, ptrdiff_t T, ptrdiff_t rows, ptrdiff_t d, ptrdiff_t h, int cell) {
    FN(layer_space) s;
    REAL *base = FN(aligned)(work);
    ptrdiff_t used = 0, steps = FN(block_steps)(T, rows), gated = FN(has_gates)(cell);
    s.ldz = FN(spread)(FN(row_size)(cell, h));
    s.ldh = FN(spread)(FN(padded)(h));
    s.z_rows = !gated ? 0 : rows > 1 ? rows : steps;
    s.dz = FN(take)(base, &used, (steps + 1) * rows * s.ldz);
    s.panels = FN(take)(base, &used, steps * rows * FN(gemm_padded)(FN(larger)(d, h)));
    s.columns = FN(take)(base, &used, d * FN(padded)(FN(gates)(cell, h)));
    s.db = FN(take)(base, &used, s.ldz);
    s.state = FN(take)(base, &used, rows * s.ldh);
    s.firsts = FN(take)(base, &used, rows * s.ldz);
    s.spare = FN(take)(base, &used, s.ldz);
    s.z = FN(take)(base, &used, s.z_rows * s.ldz);
    s.dh = FN(take)(base, &used, gated * rows * s.ldh);
    s.carry = FN(take)(base, &used, gated * rows * s.ldh);
    s.size = used + 64;
    return s;
}

static void FN(layer_sizes)(ptrdiff_t T, ptrdiff_t rows, ptrdiff_t d, ptrdiff_t h, int cell, ptrdiff_t *packed,
                            ptrdiff_t *work) {
    *packed = FN(layer_panels)(NULL, d, h, cell).size;
    *work = FN(layer_layout)(NULL, T, rows, d, h, cell).size;
}

/* ---- forward -------------------------------------------------------------------------------------------- */

/* z = W_ih x_t + b for the sequences of one time step, rows ldz apart. */
static void FN(project_step)(const layer_arguments *a, const FN(packed_layer) *p, ptrdiff_t t, REAL *z, ptrdiff_t ldz) {
    ptrdiff_t d = a->d, gates = FN(gates)(a->cell, a->h), blocks = FN(blocks)(a->cell, a->h);
    ptrdiff_t m = a->stop - a->start, row = FN(row_size)(a->cell, a->h);
    const int64_t *index = a->indices ? a->indices + t * a->N + a->start : NULL;
    for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(z + r * ldz, index ? p->input + index[r] * row : p->bias, blocks);
    if (!index)
        FN(times_panels)(m, gates, d, (const REAL *)a->x + (t * a->N + a->start) * d, d, p->input, z, ldz, 1);
}

/* The same with the weights as they are, for some time steps from t on, which share each strip of W_ih. */
static void FN(project_unpacked)(const layer_arguments *a, const REAL *bias, ptrdiff_t t, ptrdiff_t steps, REAL *z,
                                 ptrdiff_t ldz) {
    ptrdiff_t d = a->d, m = a->stop - a->start, place = t * a->N + a->start, rows = steps * m;
    FN(run) runs[2];
    int count = FN(input_runs)(a->cell, a->h, runs);
    for (ptrdiff_t r = 0; r < rows; r++) FN(copy_row)(z + r * ldz, bias, FN(blocks)(a->cell, a->h));
    for (int i = 0; i < count; i++) {
        const REAL *W_ih = (const REAL *)a->W_ih + runs[i].w * d;
        REAL *here = z + runs[i].z;
        if (!a->indices) {
            FN(rows_times_strips)(W_ih, runs[i].n, d, rows, (const REAL *)a->x + place * d, d, here, ldz);
            continue;
        }
        for (ptrdiff_t r = 0; r < rows; r++, here += ldz) {
            const REAL *column = W_ih + a->indices[place + r];
            for (ptrdiff_t j = 0; j < runs[i].n; j++) here[j] += column[j * d];
        }
    }
}

/* h_t of one sequence from a row z, with h_{t-1} in `before` and, of an LSTM, c_{t-1} in `c`, which becomes c_t. */
static void FN(run_gates)(const layer_arguments *a, ptrdiff_t n, ptrdiff_t t, const REAL *z, const REAL *before, REAL *c) {
    ptrdiff_t h = a->h, place = t * a->N + n;
    REAL *kept = a->kept ? (REAL *)a->kept + place * FN(kept_size)(a->cell, h) : NULL;
    FOR_GATED(a->cell, FN(gated_row)(CELL, h, z, before, c, (REAL *)a->hs + place * h, kept));
}

/* One sequence: its products are with vectors. */
static void FN(forward_alone)(const layer_arguments *a, const FN(packed_layer) *p, const FN(layer_space) *s,
                              ptrdiff_t length) {
    ptrdiff_t d = a->d, h = a->h, ldh = FN(padded)(h);
    REAL *hs = a->hs, *before = s->state, *row = s->spare;
    FN(copy_padded)(before, a->h0[0], h);
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
    FN(copy_row)(a->h_n[0], before, h);
}

/* The same with gates: z_t goes through work space, as many steps at once as that has rows for. */
static void FN(gates_alone)(const layer_arguments *a, const FN(packed_layer) *p, const FN(layer_space) *s,
                            ptrdiff_t length) {
    ptrdiff_t d = a->d, h = a->h, gates = FN(gates)(a->cell, h), row = FN(row_size)(a->cell, h), ldz = s->ldz;
    ptrdiff_t part = FN(recurrent_part)(a->cell, h), states = cell_table[a->cell].states;
    REAL *hs = a->hs;
    const REAL *before = a->h0[0];
    if (states > 1) FN(copy_row)(s->carry, a->h0[1], h);
    for (ptrdiff_t i = 0; i < length; i++) {
        ptrdiff_t t = a->reverse ? length - 1 - i : i, ahead = i % s->z_rows;
        if (!a->indices && !ahead) { /* t or, in reverse, the last of them, and those that the layer meets after it */
            ptrdiff_t n = length - i < s->z_rows ? length - i : s->z_rows, first = a->reverse ? t - n + 1 : t;
            for (ptrdiff_t r = 0; r < n; r++) FN(copy_row)(s->z + r * ldz, p->bias, row);
            FN(times_panels)(n, gates, d, (const REAL *)a->x + first * d, d, p->input, s->z, ldz, 1);
        }
        REAL *z = s->z;
        if (a->indices) {
            FN(copy_row)(z, p->input + a->indices[t] * row, row);
        } else {
            ptrdiff_t begun = i - ahead, n = length - begun < s->z_rows ? length - begun : s->z_rows;
            z += (a->reverse ? n - 1 - ahead : ahead) * ldz;
        }
        FN(gemv)(p->forward, h, gates, before, EPILOGUE_ADD, 0, z + part, z + part, z + part, i & 1);
        FN(run_gates)(a, 0, t, z, before, s->carry);
        before = hs + t * h;
    }
    FN(fill)(hs + length * h, (a->T - length) * h, 0);
    FN(copy_row)(a->h_n[0], before, h);
    if (states > 1) FN(copy_row)(a->h_n[1], s->carry, h);
}

static void FN(layer_forward)(const layer_arguments *a) {
    ptrdiff_t T = a->T, h = a->h, m = a->stop - a->start, gates = FN(gates)(a->cell, h);
    ptrdiff_t part = FN(recurrent_part)(a->cell, h);
    int gated = FN(has_gates)(a->cell), two = cell_table[a->cell].states > 1;
    FN(packed_layer) p = FN(layer_panels)(a->packed, a->d, h, a->cell);
    FN(layer_space) s = FN(layer_layout)(a->work, T, m, a->d, h, a->cell);
    const int64_t *lengths = a->lengths ? a->lengths + a->start : NULL;
    const REAL *before = (const REAL *)a->h0[0] + a->start * h;
    if (a->packed && a->N == 1) {
        ptrdiff_t length = lengths ? (ptrdiff_t)*lengths : T;
        if (gated) FN(gates_alone)(a, &p, &s, length);
        else FN(forward_alone)(a, &p, &s, length);
        return;
    }
    if (!a->packed) {
        FN(make_bias)(a, s.spare);
        if (!gated && m == a->N) FN(project_unpacked)(a, s.spare, 0, T, a->hs, h);
    }
    if (lengths) { /* states stay where they are while their sequence has not begun, or has ended */
        for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(s.state + r * h, before + r * h, h);
        before = s.state;
    }
    if (two)
        for (ptrdiff_t r = 0; r < m; r++)
            FN(copy_row)(s.carry + r * s.ldh, (const REAL *)a->h0[1] + (a->start + r) * h, h);
    for (ptrdiff_t i = 0; i < T; i++) {
        ptrdiff_t t = a->reverse ? T - 1 - i : i, ldz = gated ? s.ldz : h;
        REAL *now = (REAL *)a->hs + (t * a->N + a->start) * h, *z = gated ? s.z : now;
        if (a->packed) {
            FN(project_step)(a, &p, t, z, ldz);
            FN(times_panels)(m, gates, h, before, h, p.forward, z + part, ldz, 1);
        } else {
            if (gated || m != a->N) FN(project_unpacked)(a, s.spare, t, 1, z, ldz);
            FN(rows_times_strips)(a->W_hh, gates, h, m, before, h, z + part, ldz);
        }
        if (!gated) FOR_CELL(a->cell, FN(apply_cell)(CELL, m * h, z));
        for (ptrdiff_t r = 0; gated && r < m; r++)
            if (!lengths || t < lengths[r])
                FN(run_gates)(a, a->start + r, t, z + r * ldz, before + r * h, s.carry + r * s.ldh);
        if (!lengths) {
            before = now;
            continue;
        }
        for (ptrdiff_t r = 0; r < m; r++)
            if (t < lengths[r]) FN(copy_row)(s.state + r * h, now + r * h, h);
            else FN(fill)(now + r * h, h, 0);
    }
    for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)((REAL *)a->h_n[0] + (a->start + r) * h, before + r * h, h);
    for (ptrdiff_t r = 0; two && r < m; r++)
        FN(copy_row)((REAL *)a->h_n[1] + (a->start + r) * h, s.carry + r * s.ldh, h);
}

/* ---- backward ------------------------------------------------------------------------------------------- */

/* out (rows, ldo) += dz W_hh. */
ALWAYS_INLINE void FN(carry_back)(const layer_arguments *a, const FN(packed_layer) *p, const REAL *dz, ptrdiff_t ldz,
                                  REAL *out, ptrdiff_t ldo, ptrdiff_t step) {
    ptrdiff_t h = a->h, m = a->stop - a->start, gates = FN(gates)(a->cell, h);
    dz += FN(recurrent_part)(a->cell, h);
    if (!a->packed) FN(strips_times_rows)(a->W_hh, gates, h, m, dz, ldz, out, ldo);
    else if (a->N == 1) FN(gemv)(p->back, gates, h, dz, EPILOGUE_ADD, 0, out, out, out, step & 1);
    else FN(times_panels)(m, FN(padded)(h), gates, dz, ldz, p->back, out, ldo, 1);
}

/* dh_t of sequence r from its output, and from h_n where it ends here: all but W_hh' dz_{t+1}. */
ALWAYS_INLINE void FN(upstream)(const layer_arguments *a, ptrdiff_t r, ptrdiff_t t, int ends, REAL *dh) {
    ptrdiff_t h = a->h, n = a->start + r;
    FN(copy_padded)(dh, (const REAL *)a->dhs + (t * a->N + n) * h, h);
    if (!ends || !a->dh_n[0]) return;
    const REAL *dh_n = (const REAL *)a->dh_n[0] + n * h;
    for (ptrdiff_t j = 0; j < h; j++) dh[j] += dh_n[j];
}

/* State number `state` of sequence r before step i of the layer's order. */
ALWAYS_INLINE const REAL *FN(state_before)(const layer_arguments *a, ptrdiff_t i, ptrdiff_t r, int state) {
    ptrdiff_t h = a->h, n = a->start + r, t = a->reverse ? a->T - 1 - i : i, kept = FN(kept_size)(a->cell, h);
    ptrdiff_t place = (a->reverse ? t + 1 : t - 1) * a->N + n;
    if (!i || (a->lengths && a->reverse && a->lengths[n] == t + 1)) return (const REAL *)a->h0[state] + n * h;
    if (state) return (const REAL *)a->kept + place * kept + kept - h; /* c_t is the last of what an LSTM keeps */
    return (const REAL *)a->hs + place * h;
}

/* dz of step i of the layer's order into `row` (rows, ldz), from that of the step after it, if there is one. */
static void FN(backward_step)(const layer_arguments *a, const FN(packed_layer) *p, const FN(layer_space) *s,
                              ptrdiff_t i, const REAL *after, REAL *row) {
    ptrdiff_t T = a->T, h = a->h, m = a->stop - a->start, t = a->reverse ? T - 1 - i : i;
    ptrdiff_t place = (t * a->N + a->start) * h, ldz = s->ldz, size = FN(padded)(FN(blocks)(a->cell, h));
    int gated = FN(has_gates)(a->cell), two = cell_table[a->cell].states > 1;
    REAL *dh = gated ? s->dh : row; /* (rows, ldd) */
    ptrdiff_t ldd = gated ? s->ldh : ldz;
    const int64_t *lengths = a->lengths ? a->lengths + a->start : NULL;
    for (ptrdiff_t r = 0; r < m; r++) FN(upstream)(a, r, t, i == T - 1, dh + r * ldd);
    if (after) FN(carry_back)(a, p, after, ldz, dh, ldd, i);
    for (ptrdiff_t r = 0; r < m; r++) {
        int ends = lengths && !a->reverse ? t == lengths[r] - 1 : i == T - 1, ended = lengths && t >= lengths[r];
        REAL *carry = s->carry + r * s->ldh;
        if (ends && lengths) /* nothing comes back to the last step of a sequence: not even zero times NaN */
            FN(upstream)(a, r, t, 1, dh + r * ldd);
        if (gated && ends) {
            if (two && a->dh_n[1]) FN(copy_row)(carry, (const REAL *)a->dh_n[1] + (a->start + r) * h, h);
            else FN(fill)(carry, h, 0);
        }
        if (ended) FN(fill)(dh + r * ldd, h, 0);
        else if (gated && !two)
            for (ptrdiff_t j = 0; j < h; j++) dh[r * ldd + j] += carry[j];
        if (a->d_states[0]) FN(copy_row)((REAL *)a->d_states[0] + place + r * h, dh + r * ldd, h);
        if (two && a->d_states[1] && ended) FN(fill)((REAL *)a->d_states[1] + place + r * h, h, 0);
        else if (two && a->d_states[1]) FN(copy_row)((REAL *)a->d_states[1] + place + r * h, carry, h);
        if (gated && ended) FN(fill)(row + r * ldz, size, 0);
        if (ended) continue;
        if (gated) {
            const REAL *kept = (const REAL *)a->kept + (t * a->N + a->start + r) * FN(kept_size)(a->cell, h);
            FOR_GATED(a->cell, FN(gated_slopes)(CELL, h, kept, FN(state_before)(a, i, r, two), dh + r * ldd, carry,
                                                row + r * ldz));
        } else {
            FOR_CELL(a->cell, FN(apply_slope)(CELL, h, (const REAL *)a->hs + place + r * h, row + r * ldz));
        }
        if (lengths && a->reverse && t == lengths[r] - 1) FN(copy_row)(s->firsts + r * ldz, row + r * ldz, size);
    }
}

/* States before step i of the layer's order, rows of h elements. */
static const REAL *FN(states_before)(const layer_arguments *a, ptrdiff_t i, REAL *space) {
    ptrdiff_t h = a->h, m = a->stop - a->start;
    if (!i || !a->lengths || !a->reverse) return FN(state_before)(a, i, 0, 0);
    for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(space + r * h, FN(state_before)(a, i, r, 0), h);
    return space;
}

/* A block of time steps: n of them from `first` of the layer's order on, whose dz lie in s->dz (n, rows, ldz). */
typedef struct {
    ptrdiff_t first, n;
    int follows; /* steps follow one another in memory as they do in the block: they can be taken at once */
} FN(layer_block);

/* Place in the batch of row 0 of step i. */
ALWAYS_INLINE ptrdiff_t FN(place_of)(const layer_arguments *a, ptrdiff_t i) {
    return (a->reverse ? a->T - 1 - i : i) * a->N + a->start;
}

/* dx = W_ih' dz of a block (eq. 12, with the other matrix). */
static void FN(input_gradients)(const layer_arguments *a, const FN(packed_layer) *p, const FN(layer_space) *s,
                                const FN(layer_block) *block) {
    ptrdiff_t d = a->d, h = a->h, m = a->stop - a->start, ldz = s->ldz, at_once = block->follows ? block->n : 1;
    FN(run) runs[2];
    int count = FN(input_runs)(a->cell, h, runs);
    for (ptrdiff_t i = 0; i < block->n; i += at_once) {
        ptrdiff_t rows = at_once * m;
        const REAL *dz = s->dz + i * m * ldz;
        REAL *dx = (REAL *)a->dx + FN(place_of)(a, block->first + i) * d;
        if (a->packed) {
            FN(times_panels)(rows, d, FN(gates)(a->cell, h), dz, ldz, p->dinput, dx, d, 0);
            continue;
        }
        FN(fill)(dx, rows * d, 0);
        for (int j = 0; j < count; j++)
            FN(strips_times_rows)((const REAL *)a->W_ih + runs[j].w * d, runs[j].n, d, rows, dz + runs[j].z, ldz, dx, d);
    }
}

/* Adds a block to the sums of gradients, or begins them with it. */
static void FN(add_gradients)(const layer_arguments *a, const FN(layer_space) *s, const FN(layer_block) *block,
                              int accumulate) {
    ptrdiff_t d = a->d, h = a->h, gates = FN(gates)(a->cell, h), wide = FN(padded)(gates), ldz = s->ldz;
    ptrdiff_t m = a->stop - a->start, n = block->n, k = n * m, part = FN(recurrent_part)(a->cell, h);
    FN(run) runs[2];
    int count = FN(input_runs)(a->cell, h, runs);
    for (ptrdiff_t r = 0; r < k; r++) FN(add_row)(FN(padded)(FN(blocks)(a->cell, h)), s->db, s->dz + r * ldz);

    for (ptrdiff_t j = 0, at_once; j < n; j += at_once) { /* eq. 13 */
        ptrdiff_t i = block->first + j;
        at_once = i && block->follows ? n - j : 1; /* the state before the first step lies elsewhere */
        FN(pack_rows)(FN(states_before)(a, i, s->state), at_once * m, h, j * m, k, s->panels);
    }
    FN(gemm)(gates, h, k, s->dz + part, 1, ldz, s->panels, NR, k * NR, a->dW_hh, h, accumulate, NULL);

    for (ptrdiff_t j = 0, at_once = block->follows ? n : 1; j < n; j += at_once) { /* eq. 11 */
        ptrdiff_t place = FN(place_of)(a, block->first + j), rows = at_once * m;
        if (a->indices)
            for (ptrdiff_t r = 0; r < rows; r++)
                FN(add_row)(wide, s->columns + a->indices[place + r] * wide, s->dz + (j * m + r) * ldz);
        else
            FN(pack_rows)((const REAL *)a->x + place * d, rows, d, j * m, k, s->panels);
    }
    for (int i = 0; i < count && !a->indices; i++)
        FN(gemm)(runs[i].n, d, k, s->dz + runs[i].z, 1, ldz, s->panels, NR, k * NR, (REAL *)a->dW_ih + runs[i].w * d, d,
                 accumulate, NULL);
}

/* Work space for the sums that are kept there, and back to the gradients. */
static void FN(begin_gradients)(const layer_arguments *a, const FN(layer_space) *s) {
    ptrdiff_t d = a->d, h = a->h, wide = FN(padded)(FN(gates)(a->cell, h));
    FN(run) runs[2];
    int count = FN(input_runs)(a->cell, h, runs);
    FN(fill)(s->db, s->ldz, 0);
    if (!a->indices) return;
    FN(fill)(s->columns, d * wide, 0);
    for (int i = 0; i < count && a->accumulate; i++) {
        const REAL *dW_ih = (const REAL *)a->dW_ih + runs[i].w * d;
        if (count == 1) FN(pack_panel)(dW_ih, 1, d, d, runs[i].n, wide, s->columns);
        else
            for (ptrdiff_t j = 0; j < runs[i].n; j++)
                for (ptrdiff_t c = 0; c < d; c++) s->columns[c * wide + runs[i].z + j] = dW_ih[j * d + c];
    }
}

static void FN(end_gradients)(const layer_arguments *a, const FN(layer_space) *s) {
    ptrdiff_t d = a->d, h = a->h, wide = FN(padded)(FN(gates)(a->cell, h)), part = FN(recurrent_part)(a->cell, h);
    REAL *db_ih = a->db_ih, *db_hh = a->db_hh;
    FN(run) runs[2];
    int count = FN(input_runs)(a->cell, h, runs);
    for (int i = 0; i < count; i++) {
        if (a->indices)
            FN(pack_panel)(s->columns + runs[i].z, 1, wide, runs[i].n, d, d, (REAL *)a->dW_ih + runs[i].w * d);
        for (ptrdiff_t j = 0; j < runs[i].n; j++) {
            REAL sum = s->db[runs[i].z + j], *db = db_ih + runs[i].w + j;
            *db = a->accumulate ? *db + sum : sum;
        }
    }
    for (ptrdiff_t j = 0; j < FN(gates)(a->cell, h); j++)
        db_hh[j] = a->accumulate ? db_hh[j] + s->db[part + j] : s->db[part + j];
}

/* dh0 = W_hh' dz of each sequence's first step (rows, ldz), and what has come to it beside the products. */
static void FN(first_gradient)(const layer_arguments *a, const FN(packed_layer) *p, const FN(layer_space) *s,
                               const REAL *dz) {
    ptrdiff_t h = a->h, m = a->stop - a->start, ldz = s->ldz, gates = FN(gates)(a->cell, h);
    ptrdiff_t part = FN(recurrent_part)(a->cell, h);
    REAL *dh0 = (REAL *)a->dh0[0] + a->start * h;
    if (!a->packed) {
        FN(fill)(dh0, m * h, 0);
        FN(strips_times_rows)(a->W_hh, gates, h, m, dz + part, ldz, dh0, h);
    } else if (a->N == 1) {
        FN(fill)(s->spare, FN(padded)(h), 0);
        FN(carry_back)(a, p, dz, ldz, s->spare, ldz, 0);
        FN(copy_row)(dh0, s->spare, h);
    } else {
        FN(times_panels)(m, h, gates, dz + part, ldz, p->back, dh0, h, 0);
    }
    if (!FN(has_gates)(a->cell)) return;
    for (ptrdiff_t r = 0; r < m; r++)
        if (cell_table[a->cell].states > 1)
            FN(copy_row)((REAL *)a->dh0[1] + (a->start + r) * h, s->carry + r * s->ldh, h);
        else
            for (ptrdiff_t j = 0; j < h; j++) dh0[r * h + j] += s->carry[r * s->ldh + j];
}

static void FN(layer_backward)(const layer_arguments *a) {
    ptrdiff_t T = a->T, m = a->stop - a->start, steps = FN(block_steps)(T, m);
    FN(packed_layer) p = FN(layer_panels)(a->packed, a->d, a->h, a->cell);
    FN(layer_space) s = FN(layer_layout)(a->work, T, m, a->d, a->h, a->cell);
    ptrdiff_t ldz = s.ldz, size = FN(padded)(FN(blocks)(a->cell, a->h));
    REAL *after = s.dz + steps * m * ldz;
    int accumulate = a->accumulate;
    /* Of the last vector of a row the gates leave some elements as they are, and sums are of whole vectors. */
    if (FN(has_gates)(a->cell) && size > FN(blocks)(a->cell, a->h)) FN(fill)(s.dz, (steps + 1) * m * ldz, 0);
    if (a->dW_hh) FN(begin_gradients)(a, &s);
    for (ptrdiff_t first = (T - 1) / steps * steps; first >= 0; first -= steps) {
        FN(layer_block) block = {first, T - first < steps ? T - first : steps, m == a->N && !a->reverse};
        for (ptrdiff_t j = block.n - 1; j >= 0; j--) {
            REAL *row = s.dz + j * m * ldz, *next = j == block.n - 1 ? after : row + m * ldz;
            FN(backward_step)(a, &p, &s, first + j, first + j == T - 1 ? NULL : next, row);
        }
        if (a->dW_hh) FN(add_gradients)(a, &s, &block, accumulate);
        if (a->dx) FN(input_gradients)(a, &p, &s, &block);
        for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(after + r * ldz, s.dz + r * ldz, size);
        accumulate = 1;
    }
    if (a->dW_hh) FN(end_gradients)(a, &s);
    FN(first_gradient)(a, &p, &s, a->lengths && a->reverse ? s.firsts : after);
}
