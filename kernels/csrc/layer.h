/* The batched layer: N sequences side by side, time-major.
 *
 *     z_t  = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh,  h_t = tanh(z_t) or max(z_t, 0)          (1)
 *     dh_t = d output_t + W_hh' dz_{t+1},  dz_t = dh_t (1 - h_t^2) or dh_t where h_t > 0      (9), (12), (10)
 *     dW_hh = sum dz_t h_{t-1}',  dW_ih = sum dz_t x_t',  db = sum dz_t,  dx_t = W_ih' dz_t   (11), (13)
 *
 * A cell with gates has several blocks in z_t and dz_t, of h elements each: see cells.h.
 * See numpy_kernels/layer.py for the arguments.  A thread, or a team of them, takes the rows start .. stop of
 * the batch through all time steps.  Weights are packed once a call: a time step is then one product of those rows with panels that are
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

/* The panels of a layer's matrices are packed by whoever is free. */
typedef struct {
    const REAL *src;
    ptrdiff_t rs, cs, k, n; /* B[i, j] = src[i * rs + j * cs], (k, n) */
    REAL *dst;
    int alone; /* for gemv */
} FN(packing);

typedef struct {
    FN(packing) of[4];
    int count;
} FN(packings);

/* Columns of a piece of work: some panels of either kind. */
#define PACKED_COLUMNS (8 * NR)

ALWAYS_INLINE ptrdiff_t FN(pieces)(const FN(packing) *of) { return (of->n + PACKED_COLUMNS - 1) / PACKED_COLUMNS; }

static void FN(pack_piece)(void *argument, ptrdiff_t index, int slot) {
    const FN(packings) *all = argument;
    const FN(packing) *of = all->of;
    (void)slot;
    for (; index >= FN(pieces)(of); of++) index -= FN(pieces)(of);
    ptrdiff_t j = index * PACKED_COLUMNS, end = of->n - j < PACKED_COLUMNS ? of->n : j + PACKED_COLUMNS;
    while (j < end) {
        ptrdiff_t width = of->alone ? FN(gemv_panel_vecs)((of->n - j + VL - 1) / VL) * VL : NR;
        FN(pack_panel)(of->src + j * of->cs, of->rs, of->cs, of->k, of->n - j < width ? of->n - j : width, width,
                       of->dst + j * of->k);
        j += width;
    }
}

static void FN(pack_all)(const FN(packings) *all, int threads) {
    ptrdiff_t count = 0;
    for (int i = 0; i < all->count; i++) count += FN(pieces)(&all->of[i]);
    fastrnn_team_tasks(threads, count, FN(pack_piece), (void *)all);
}

static void FN(pack_layer)(const layer_arguments *a) {
    ptrdiff_t d = a->d, h = a->h, gates = FN(gates)(a->cell, h), ldz = FN(row_size)(a->cell, h);
    FN(packed_layer) p = FN(layer_panels)(a->packed, d, h, a->cell);
    const REAL *W_ih = a->W_ih;
    FN(packings) all = {.count = 0};
    if (FN(recurrent_part)(a->cell, h)) {
        FN(run) runs[2];
        int count = FN(input_runs)(a->cell, h, runs);
        for (int i = 0; i < count; i++)
            memcpy(p.turned + runs[i].z * d, W_ih + runs[i].w * d, (size_t)(runs[i].n * d) * sizeof(REAL));
        W_ih = p.turned;
    }
    if (a->passes & PACK_FORWARD) {
        FN(make_bias)(a, p.bias);
        all.of[all.count++] = (FN(packing)){a->W_hh, 1, h, h, gates, p.forward, a->N == 1};
        if (!a->one_hot) all.of[all.count++] = (FN(packing)){W_ih, 1, d, d, gates, p.input, 0};
    }
    if (a->passes & PACK_BACKWARD) {
        all.of[all.count++] = (FN(packing)){a->W_hh, h, 1, gates, h, p.back, a->N == 1};
        if (!a->one_hot) all.of[all.count++] = (FN(packing)){W_ih, d, 1, gates, d, p.dinput, 0};
    }
    FN(pack_all)(&all, a->threads);
    if (!a->one_hot || !(a->passes & PACK_FORWARD)) return;
    FN(pack_panel)(W_ih, 1, d, d, gates, ldz, p.input);
    for (ptrdiff_t c = 0; c < d; c++)
        for (ptrdiff_t i = 0; i < ldz; i += VL)
            FN(store)(p.input + c * ldz + i, FN(load)(p.input + c * ldz + i) + FN(load)(p.bias + i));
}

typedef struct {
    REAL *dz;      /* (steps + 1, rows, ldz), the last of them the step after the block */
    REAL *panels;  /* states that dz is multiplied by, for gemm */
    REAL *inputs;  /* inputs, likewise; not for one-hot inputs */
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
    s.panels = FN(take)(base, &used, steps * rows * FN(gemm_padded)(h));
    s.inputs = FN(take)(base, &used, steps * rows * FN(gemm_padded)(d));
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

/* ---- a pass --------------------------------------------------------------------------------------------- */

/* What the members of a team share in a pass over the rows start .. stop. */
typedef struct {
    const layer_arguments *a;
    FN(packed_layer) p;
    FN(layer_space) s;
} FN(layer_pass);

static FN(layer_pass) FN(begin_pass)(const layer_arguments *a) {
    FN(layer_pass) f = {a, FN(layer_panels)(a->packed, a->d, a->h, a->cell),
                        FN(layer_layout)(a->work, a->T, a->stop - a->start, a->d, a->h, a->cell)};
    return f;
}

/* Runs a body; weights that are used as they are, are so by one thread. */
static void FN(run_steps)(FN(layer_pass) *f, ptrdiff_t steps, team_steps_body body) {
    fastrnn_team_steps(f->a->packed ? f->a->threads : 1, steps, body, f);
}

/* Meets before step i; nonzero when the body is to be left with i.  Alone, nobody is to be met. */
ALWAYS_INLINE int FN(meet_before)(team_member *member, ptrdiff_t i, ptrdiff_t steps) {
    return member->inside && i < steps && fastrnn_team_meet_between(member);
}

/* ---- forward -------------------------------------------------------------------------------------------- */

/* z = W_ih x_t + b of a tile, for the sequences of one time step, rows ldz apart. */
ALWAYS_INLINE void FN(project_tile)(const FN(layer_pass) *f, const FN(tile) *tile, ptrdiff_t t, REAL *z, ptrdiff_t ldz) {
    const layer_arguments *a = f->a;
    ptrdiff_t d = a->d, row = FN(row_size)(a->cell, a->h);
    const int64_t *index = a->indices ? a->indices + t * a->N + a->start : NULL;
    for (ptrdiff_t r = tile->row; r < tile->row + tile->rows; r++)
        FN(copy_row)(z + r * ldz + tile->column, (index ? f->p.input + index[r] * row : f->p.bias) + tile->column,
                     tile->columns);
    if (!index)
        FN(tile_times_panels)(tile, d, (const REAL *)a->x + (t * a->N + a->start) * d, d, f->p.input, z, ldz, 1);
}

/* The columns of a row z_t that the input's weights do not reach: those of the state's alone. */
ALWAYS_INLINE void FN(project_rest)(const FN(layer_pass) *f, const team_member *member, ptrdiff_t t, REAL *z,
                                    ptrdiff_t ldz) {
    const layer_arguments *a = f->a;
    ptrdiff_t gates = FN(gates)(a->cell, a->h), row = FN(row_size)(a->cell, a->h), first, end;
    const int64_t *index = a->indices ? a->indices + t * a->N + a->start : NULL;
    team_share(a->stop - a->start, member->rank, member->size, &first, &end);
    for (ptrdiff_t r = first; r < end; r++)
        FN(copy_row)(z + r * ldz + gates, (index ? f->p.input + index[r] * row : f->p.bias) + gates,
                     FN(blocks)(a->cell, a->h) - gates);
}

/* z = W_ih x_t + b with the weights as they are, for some time steps from t on, which share each strip of W_ih. */
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

/* z = W_ih x_t + b (rows, ldz), `columns` of them beside those of the product, for n time steps of one sequence. */
static void FN(project_ahead)(const FN(layer_pass) *f, team_member *member, ptrdiff_t t, ptrdiff_t n, REAL *z,
                              ptrdiff_t ldz, ptrdiff_t columns) {
    const layer_arguments *a = f->a;
    ptrdiff_t d = a->d, gates = FN(gates)(a->cell, a->h);
    FN(tile) tiles[FN(MOST_TILES)];
    int count = FN(share_tiles)(member, n, gates, tiles);
    for (int i = 0; i < count; i++) {
        const FN(tile) *tile = &tiles[i];
        for (ptrdiff_t r = tile->row; r < tile->row + tile->rows; r++)
            FN(copy_row)(z + r * ldz + tile->column, f->p.bias + tile->column, tile->columns);
        FN(tile_times_panels)(tile, d, (const REAL *)a->x + t * d, d, f->p.input, z, ldz, 1);
    }
    if (!member->rank && columns > gates)
        for (ptrdiff_t r = 0; r < n; r++) FN(copy_row)(z + r * ldz + gates, f->p.bias + gates, columns - gates);
    fastrnn_team_meet(member);
}

/* Columns from .. end of h_t of one sequence from a row z, with h_{t-1} in `before` and, of an LSTM, c_{t-1} in `c`,
 * which becomes c_t. */
static void FN(run_gates)(const layer_arguments *a, ptrdiff_t n, ptrdiff_t t, const REAL *z, const REAL *before, REAL *c,
                          ptrdiff_t from, ptrdiff_t end) {
    ptrdiff_t h = a->h, place = t * a->N + n;
    REAL *kept = a->kept ? (REAL *)a->kept + place * FN(kept_size)(a->cell, h) : NULL;
    FOR_GATED(a->cell, FN(gated_row)(CELL, h, from, end, z, before, c, (REAL *)a->hs + place * h, kept));
}

/* Time steps of one sequence. */
ALWAYS_INLINE ptrdiff_t FN(length_alone)(const layer_arguments *a) {
    return a->lengths ? (ptrdiff_t)a->lengths[a->start] : a->T;
}

/* One sequence: its products are with vectors.  Two rows hold h_{t-1} and h_t in turn. */
static ptrdiff_t FN(forward_alone)(void *argument, team_member *member, ptrdiff_t i) {
    const FN(layer_pass) *f = argument;
    const layer_arguments *a = f->a;
    const FN(packed_layer) *p = &f->p;
    ptrdiff_t h = a->h, ldh = FN(padded)(h), length = FN(length_alone)(a), from, end;
    REAL *hs = a->hs, *rows[2] = {f->s.state, f->s.spare};
    FN(share_panels)(member, h, &from, &end);
    ptrdiff_t first = from * VL, wide = (end - from) * VL, width = h - first < wide ? h - first : wide;
    if (from == end) first = width = 0;
    while (i < length) {
        ptrdiff_t t = a->reverse ? length - 1 - i : i;
        REAL *before = rows[i & 1], *row = rows[~i & 1];
        const REAL *z = row;
        if (!a->indices && i % KROWS == 0) {
            ptrdiff_t n = length - i < KROWS ? length - i : KROWS, start = a->reverse ? t - n + 1 : t;
            FN(project_ahead)(f, member, start, n, hs + start * h, h, h);
        }
        if (a->indices) z = p->input + a->indices[t] * ldh;
        else FN(copy_widened)(row + first, hs + t * h + first, width, wide);
        if (member->size == 1)
            FOR_CELL(a->cell, FN(gemv)(p->forward, h, h, before, EPILOGUE_CELL, CELL, z, z, row, i & 1));
        else FOR_CELL(a->cell, FN(gemv_some)(p->forward, h, h, before, EPILOGUE_CELL, CELL, z, z, row, from, end));
        FN(copy_row)(hs + t * h + first, row + first, width);
        if (FN(meet_before)(member, ++i, length)) return i;
    }
    return length;
}

/* The same with gates: z_t goes through work space, as many steps at once as that has rows for. */
static ptrdiff_t FN(gates_alone)(void *argument, team_member *member, ptrdiff_t i) {
    const FN(layer_pass) *f = argument;
    const layer_arguments *a = f->a;
    const FN(packed_layer) *p = &f->p;
    const FN(layer_space) *s = &f->s;
    ptrdiff_t h = a->h, gates = FN(gates)(a->cell, h), row = FN(row_size)(a->cell, h), ldz = s->ldz;
    ptrdiff_t part = FN(recurrent_part)(a->cell, h), length = FN(length_alone)(a), from, end, first, last;
    FN(share_panels)(member, gates, &from, &end);
    FN(share_vectors)(member, h, &first, &last);
    while (i < length) {
        ptrdiff_t t = a->reverse ? length - 1 - i : i, ahead = i % s->z_rows, begun = i - ahead;
        ptrdiff_t n = length - begun < s->z_rows ? length - begun : s->z_rows;
        const REAL *before = i ? (const REAL *)a->hs + (a->reverse ? t + 1 : t - 1) * h : a->h0[0];
        REAL *z = s->z;
        if (a->indices) { /* its own columns, and member 0 those that only the input has */
            const REAL *input = p->input + a->indices[t] * row;
            ptrdiff_t columns = end * VL < gates ? end * VL : row - part;
            if (from < end) FN(copy_row)(z + part + from * VL, input + part + from * VL, columns - from * VL);
            if (!member->rank) FN(copy_row)(z, input, part);
        } else { /* t or, in reverse, the last of them, and those that the layer meets after it */
            if (!ahead) FN(project_ahead)(f, member, a->reverse ? t - n + 1 : t, n, z, ldz, row);
            z += (a->reverse ? n - 1 - ahead : ahead) * ldz;
        }
        REAL *sums = z + part;
        if (member->size == 1) FN(gemv)(p->forward, h, gates, before, EPILOGUE_ADD, 0, sums, sums, sums, i & 1);
        else FN(gemv_some)(p->forward, h, gates, before, EPILOGUE_ADD, 0, sums, sums, sums, from, end);
        if (member->size > 1) fastrnn_team_meet(member);
        FN(run_gates)(a, a->start, t, z, before, s->carry, first, last);
        if (FN(meet_before)(member, ++i, length)) return i;
    }
    return length;
}

/* z_t of all rows of step i of the layer's order, a member's tiles of it; of a cell with one gate, h_t. */
static void FN(forward_products)(const FN(layer_pass) *f, team_member *member, const FN(tile) *tiles, int count,
                                 ptrdiff_t t, const REAL *before, REAL *z, ptrdiff_t ldz) {
    const layer_arguments *a = f->a;
    ptrdiff_t h = a->h, part = FN(recurrent_part)(a->cell, h);
    for (int i = 0; i < count; i++) {
        const FN(tile) *tile = &tiles[i];
        FN(project_tile)(f, tile, t, z, ldz);
        if (!part) FN(tile_times_panels)(tile, h, before, h, f->p.forward, z, ldz, 1);
        if (FN(has_gates)(a->cell)) continue;
        if (tile->columns == h) FOR_CELL(a->cell, FN(apply_cell)(CELL, tile->rows * h, z + tile->row * h));
        else
            for (ptrdiff_t r = tile->row; r < tile->row + tile->rows; r++)
                FOR_CELL(a->cell, FN(apply_cell)(CELL, tile->columns, z + r * h + tile->column));
    }
    if (!part) return;
    FN(project_rest)(f, member, t, z, ldz);
    fastrnn_team_meet(member); /* the products' columns are not the same: what one adds to, another has begun */
    for (int i = 0; i < count; i++)
        FN(tile_times_panels)(&tiles[i], h, before, h, f->p.forward, z + part, ldz, 1);
}

/* The same with the weights as they are. */
static void FN(forward_unpacked)(const FN(layer_pass) *f, ptrdiff_t t, const REAL *before, REAL *z, ptrdiff_t ldz) {
    const layer_arguments *a = f->a;
    ptrdiff_t h = a->h, m = a->stop - a->start;
    int gated = FN(has_gates)(a->cell);
    if (gated || m != a->N) FN(project_unpacked)(a, f->s.spare, t, 1, z, ldz);
    FN(rows_times_strips)(a->W_hh, FN(gates)(a->cell, h), h, m, before, h, z + FN(recurrent_part)(a->cell, h), ldz);
    if (!gated) FOR_CELL(a->cell, FN(apply_cell)(CELL, m * h, z));
}

/* States stay where they are while their sequence has not begun, or has ended; columns from .. end of row r. */
ALWAYS_INLINE void FN(keep_state)(const FN(layer_pass) *f, ptrdiff_t t, ptrdiff_t r, REAL *now, ptrdiff_t from,
                                  ptrdiff_t end) {
    ptrdiff_t h = f->a->h;
    if (t < f->a->lengths[f->a->start + r]) FN(copy_row)(f->s.state + r * h + from, now + r * h + from, end - from);
    else FN(fill)(now + r * h + from, end - from, 0);
}

/* The rows start .. stop of the batch, in products with matrices. */
static ptrdiff_t FN(forward_rows)(void *argument, team_member *member, ptrdiff_t i) {
    const FN(layer_pass) *f = argument;
    const layer_arguments *a = f->a;
    const FN(layer_space) *s = &f->s;
    ptrdiff_t T = a->T, h = a->h, m = a->stop - a->start, from, end;
    int gated = FN(has_gates)(a->cell);
    FN(tile) tiles[FN(MOST_TILES)];
    int count = FN(share_tiles)(member, m, FN(gates)(a->cell, h), tiles);
    FN(share_vectors)(member, h, &from, &end);
    while (i < T) {
        ptrdiff_t t = a->reverse ? T - 1 - i : i, ldz = gated ? s->ldz : h;
        REAL *hs = (REAL *)a->hs + a->start * h, *now = hs + t * a->N * h, *z = gated ? s->z : now;
        const REAL *before = a->lengths ? s->state
                             : i        ? hs + (a->reverse ? t + 1 : t - 1) * a->N * h
                                        : (const REAL *)a->h0[0] + a->start * h;
        if (a->packed) FN(forward_products)(f, member, tiles, count, t, before, z, ldz);
        else FN(forward_unpacked)(f, t, before, z, ldz);
        if (gated || a->lengths) fastrnn_team_meet(member);
        for (ptrdiff_t r = 0; gated && r < m; r++) {
            if (!a->lengths || t < a->lengths[a->start + r])
                FN(run_gates)(a, a->start + r, t, z + r * ldz, before + r * h, s->carry + r * s->ldh, from, end);
            if (a->lengths) FN(keep_state)(f, t, r, now, from, end);
        }
        for (int j = 0; !gated && a->lengths && j < count; j++)
            for (ptrdiff_t r = tiles[j].row; r < tiles[j].row + tiles[j].rows; r++)
                FN(keep_state)(f, t, r, now, tiles[j].column, tiles[j].column + tiles[j].columns);
        if (FN(meet_before)(member, ++i, T)) return i;
    }
    return T;
}

static void FN(forward_part)(const layer_arguments *a) {
    ptrdiff_t T = a->T, h = a->h, m = a->stop - a->start;
    int gated = FN(has_gates)(a->cell), two = cell_table[a->cell].states > 1;
    FN(layer_pass) f = FN(begin_pass)(a);
    const FN(layer_space) *s = &f.s;
    const REAL *h0 = (const REAL *)a->h0[0] + a->start * h, *last = s->state;
    for (ptrdiff_t r = 0; two && r < m; r++)
        FN(copy_row)(s->carry + r * s->ldh, (const REAL *)a->h0[1] + (a->start + r) * h, h);
    if (a->packed && a->N == 1) {
        ptrdiff_t length = FN(length_alone)(a), end = a->reverse ? 0 : length - 1;
        if (!gated) FN(copy_padded)(s->state, h0, h);
        FN(run_steps)(&f, length, gated ? FN(gates_alone) : FN(forward_alone));
        FN(fill)((REAL *)a->hs + length * h, (T - length) * h, 0);
        last = (const REAL *)a->hs + end * h;
    } else {
        if (!a->packed) {
            FN(make_bias)(a, s->spare);
            if (!gated && m == a->N) FN(project_unpacked)(a, s->spare, 0, T, a->hs, h);
        }
        for (ptrdiff_t r = 0; a->lengths && r < m; r++) FN(copy_row)(s->state + r * h, h0 + r * h, h);
        FN(run_steps)(&f, T, FN(forward_rows));
        if (!a->lengths) last = (const REAL *)a->hs + ((a->reverse ? 0 : T - 1) * a->N + a->start) * h;
    }
    for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)((REAL *)a->h_n[0] + (a->start + r) * h, last + r * h, h);
    for (ptrdiff_t r = 0; two && r < m; r++)
        FN(copy_row)((REAL *)a->h_n[1] + (a->start + r) * h, s->carry + r * s->ldh, h);
}

/* ---- backward ------------------------------------------------------------------------------------------- */

/* Columns from .. end of dh_t of sequence r from its output, and from h_n where it ends here: all but W_hh' dz_{t+1}. */
ALWAYS_INLINE void FN(upstream)(const layer_arguments *a, ptrdiff_t r, ptrdiff_t t, int ends, REAL *dh, ptrdiff_t from,
                                ptrdiff_t end) {
    ptrdiff_t h = a->h, n = a->start + r;
    FN(copy_row)(dh + from, (const REAL *)a->dhs + (t * a->N + n) * h + from, end - from);
    if (!ends || !a->dh_n[0]) return;
    const REAL *dh_n = (const REAL *)a->dh_n[0] + n * h;
    for (ptrdiff_t j = from; j < end; j++) dh[j] += dh_n[j];
}

/* State number `state` of sequence r before step i of the layer's order. */
ALWAYS_INLINE const REAL *FN(state_before)(const layer_arguments *a, ptrdiff_t i, ptrdiff_t r, int state) {
    ptrdiff_t h = a->h, n = a->start + r, t = a->reverse ? a->T - 1 - i : i, kept = FN(kept_size)(a->cell, h);
    ptrdiff_t place = (a->reverse ? t + 1 : t - 1) * a->N + n;
    if (!i || (a->lengths && a->reverse && a->lengths[n] == t + 1)) return (const REAL *)a->h0[state] + n * h;
    if (state) return (const REAL *)a->kept + place * kept + kept - h; /* c_t is the last of what an LSTM keeps */
    return (const REAL *)a->hs + place * h;
}

/* A member's columns of dh_t of all rows: a tile of the upstream gradient plus W_hh' dz_{t+1}.  A tile may reach
 * into the padding of a row, which is zero. */
ALWAYS_INLINE void FN(carry_tile)(const FN(layer_pass) *f, const team_member *member, const FN(tile) *tile, ptrdiff_t i,
                                  const REAL *after, REAL *dh, ptrdiff_t ldd) {
    const layer_arguments *a = f->a;
    ptrdiff_t h = a->h, t = a->reverse ? a->T - 1 - i : i, gates = FN(gates)(a->cell, h), ldz = f->s.ldz;
    ptrdiff_t from = tile->column, end = from + tile->columns, within = end < h ? end : h;
    for (ptrdiff_t r = tile->row; r < tile->row + tile->rows; r++) {
        FN(upstream)(a, r, t, i == a->T - 1, dh + r * ldd, from, within);
        FN(fill)(dh + r * ldd + within, end - within, 0);
    }
    if (!after) return;
    after += FN(recurrent_part)(a->cell, h);
    if (!a->packed) FN(strips_times_rows)(a->W_hh, gates, h, tile->rows, after, ldz, dh, ldd);
    else if (a->N > 1) FN(tile_times_panels)(tile, gates, after, ldz, f->p.back, dh, ldd, 1);
    else if (member->size == 1) FN(gemv)(f->p.back, gates, h, after, EPILOGUE_ADD, 0, dh, dh, dh, i & 1);
    else FN(gemv_some)(f->p.back, gates, h, after, EPILOGUE_ADD, 0, dh, dh, dh, from / VL, end / VL);
}

/* Columns from .. end of dz_t of row r from its dh_t. */
static void FN(back_row)(const FN(layer_pass) *f, ptrdiff_t i, ptrdiff_t r, REAL *dh, REAL *dz, ptrdiff_t from,
                         ptrdiff_t end) {
    const layer_arguments *a = f->a;
    ptrdiff_t h = a->h, n = a->start + r, t = a->reverse ? a->T - 1 - i : i, place = (t * a->N + n) * h;
    ptrdiff_t width = end - from, blocks = FN(blocks)(a->cell, h);
    const int64_t *length = a->lengths ? a->lengths + n : NULL;
    int gated = FN(has_gates)(a->cell), two = cell_table[a->cell].states > 1;
    int ends = length && !a->reverse ? t == *length - 1 : i == a->T - 1, ended = length && t >= *length;
    REAL *carry = f->s.carry + r * f->s.ldh, *firsts = f->s.firsts + r * f->s.ldz;
    if (ends && length) /* nothing comes back to the last step of a sequence: not even zero times NaN */
        FN(upstream)(a, r, t, 1, dh, from, end);
    if (gated && ends) {
        if (two && a->dh_n[1]) FN(copy_row)(carry + from, (const REAL *)a->dh_n[1] + n * h + from, width);
        else FN(fill)(carry + from, width, 0);
    }
    if (ended) FN(fill)(dh + from, width, 0);
    else if (gated && !two)
        for (ptrdiff_t j = from; j < end; j++) dh[j] += carry[j];
    if (a->d_states[0]) FN(copy_row)((REAL *)a->d_states[0] + place + from, dh + from, width);
    if (two && a->d_states[1] && ended) FN(fill)((REAL *)a->d_states[1] + place + from, width, 0);
    else if (two && a->d_states[1]) FN(copy_row)((REAL *)a->d_states[1] + place + from, carry + from, width);
    if (ended) {
        for (ptrdiff_t b = 0; gated && b < blocks; b += h) FN(fill)(dz + b + from, width, 0);
        return;
    }
    if (gated) {
        const REAL *kept = (const REAL *)a->kept + (t * a->N + n) * FN(kept_size)(a->cell, h);
        const REAL *before = FN(state_before)(a, i, r, two);
        FOR_GATED(a->cell, FN(gated_slopes)(CELL, h, from, end, kept, before, dh, carry, dz));
    } else {
        FOR_CELL(a->cell, FN(apply_slope)(CELL, width, (const REAL *)a->hs + place + from, dz + from));
    }
    if (length && a->reverse && t == *length - 1)
        for (ptrdiff_t b = 0; b < blocks; b += h) FN(copy_row)(firsts + b + from, dz + b + from, width);
}

/* dz of step i of the layer's order into `row` (rows, ldz), from that of the step after it, if there is one: a
 * member's tiles of the product, and its columns from .. end of the gates. */
static void FN(backward_step)(const FN(layer_pass) *f, team_member *member, const FN(tile) *tiles, int count,
                              ptrdiff_t from, ptrdiff_t end, ptrdiff_t i, const REAL *after, REAL *row) {
    const layer_arguments *a = f->a;
    ptrdiff_t h = a->h, m = a->stop - a->start, ldz = f->s.ldz;
    int gated = FN(has_gates)(a->cell);
    REAL *dh = gated ? f->s.dh : row; /* (rows, ldd) */
    ptrdiff_t ldd = gated ? f->s.ldh : ldz;
    for (int j = 0; j < count; j++) {
        const FN(tile) *tile = &tiles[j];
        ptrdiff_t last = tile->column + tile->columns;
        FN(carry_tile)(f, member, tile, i, after, dh, ldd);
        for (ptrdiff_t r = tile->row; !gated && r < tile->row + tile->rows; r++)
            FN(back_row)(f, i, r, row + r * ldz, row + r * ldz, tile->column, last < h ? last : h);
    }
    if (!gated) return;
    fastrnn_team_meet(member);
    for (ptrdiff_t r = 0; r < m; r++) FN(back_row)(f, i, r, dh + r * ldd, row + r * ldz, from, end);
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
static void FN(input_gradients)(const FN(layer_pass) *f, const team_member *member, const FN(layer_block) *block) {
    const layer_arguments *a = f->a;
    ptrdiff_t d = a->d, h = a->h, m = a->stop - a->start, ldz = f->s.ldz, at_once = block->follows ? block->n : 1;
    FN(run) runs[2];
    int count = FN(input_runs)(a->cell, h, runs);
    for (ptrdiff_t i = 0; i < block->n; i += at_once) {
        ptrdiff_t rows = at_once * m;
        const REAL *dz = f->s.dz + i * m * ldz;
        REAL *dx = (REAL *)a->dx + FN(place_of)(a, block->first + i) * d;
        if (a->packed) {
            FN(team_times_panels)(member, rows, d, FN(gates)(a->cell, h), dz, ldz, f->p.dinput, dx, d, 0);
            continue;
        }
        FN(fill)(dx, rows * d, 0);
        for (int j = 0; j < count; j++)
            FN(strips_times_rows)((const REAL *)a->W_ih + runs[j].w * d, runs[j].n, d, rows, dz + runs[j].z, ldz, dx, d);
    }
}

/* Brings the states before each step of a block into panels (eq. 13), and its inputs (eq. 11): a member's columns. */
static void FN(pack_block)(const FN(layer_pass) *f, const team_member *member, const FN(layer_block) *block) {
    const layer_arguments *a = f->a;
    ptrdiff_t d = a->d, h = a->h, m = a->stop - a->start, n = block->n, k = n * m, from, end;
    int each = a->lengths && a->reverse; /* the state before the first step of a sequence lies elsewhere */
    FN(share_columns)(member, h, &from, &end);
    for (ptrdiff_t j = 0, at_once; j < n; j += at_once) {
        ptrdiff_t i = block->first + j, rows = each ? 1 : m;
        at_once = i && block->follows ? n - j : 1; /* that before the layer's first step, too */
        for (ptrdiff_t r = 0; r < m; r += rows)
            FN(pack_columns)(FN(state_before)(a, i, r, 0), at_once * rows, h, from, end, j * m + r, k, f->s.panels);
    }
    if (a->indices) return;
    FN(share_columns)(member, d, &from, &end);
    for (ptrdiff_t j = 0, at_once = block->follows ? n : 1; j < n; j += at_once)
        FN(pack_columns)((const REAL *)a->x + FN(place_of)(a, block->first + j) * d, at_once * m, d, from, end, j * m, k,
                         f->s.inputs);
}

/* Adds a block to the sums of gradients, or begins them with it. */
static void FN(add_gradients)(const FN(layer_pass) *f, team_member *member, const FN(layer_block) *block,
                              int accumulate) {
    const layer_arguments *a = f->a;
    const FN(layer_space) *s = &f->s;
    ptrdiff_t d = a->d, h = a->h, gates = FN(gates)(a->cell, h), wide = FN(padded)(gates), ldz = s->ldz, from, end;
    ptrdiff_t m = a->stop - a->start, k = block->n * m, part = FN(recurrent_part)(a->cell, h);
    FN(run) runs[2];
    int count = FN(input_runs)(a->cell, h, runs);
    FN(pack_block)(f, member, block);
    FN(share_vectors)(member, FN(padded)(FN(blocks)(a->cell, h)), &from, &end);
    for (ptrdiff_t r = 0; r < k; r++) FN(add_row)(end - from, s->db + from, s->dz + r * ldz + from);
    if (a->indices) {
        FN(share_vectors)(member, wide, &from, &end);
        for (ptrdiff_t r = 0; r < k; r++) {
            ptrdiff_t place = FN(place_of)(a, block->first + r / m) + r % m;
            FN(add_row)(end - from, s->columns + a->indices[place] * wide + from, s->dz + r * ldz + from);
        }
    }
    fastrnn_team_meet(member); /* the panels are packed */
    FN(team_gemm_turned)(member, gates, h, k, s->dz + part, ldz, s->panels, a->dW_hh, h, accumulate);
    for (int i = 0; i < count && !a->indices; i++)
        FN(team_gemm_turned)(member, runs[i].n, d, k, s->dz + runs[i].z, ldz, s->inputs, (REAL *)a->dW_ih + runs[i].w * d,
                             d, accumulate);
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
static void FN(first_gradient)(const FN(layer_pass) *f, team_member *member, const REAL *dz) {
    const layer_arguments *a = f->a;
    const FN(layer_space) *s = &f->s;
    ptrdiff_t h = a->h, m = a->stop - a->start, ldz = s->ldz, gates = FN(gates)(a->cell, h);
    REAL *dh0 = (REAL *)a->dh0[0] + a->start * h;
    dz += FN(recurrent_part)(a->cell, h);
    if (a->packed && a->N > 1) {
        FN(team_times_panels)(member, m, h, gates, dz, ldz, f->p.back, dh0, h, 0);
        fastrnn_team_meet(member);
    }
    if (member->rank) return;
    if (!a->packed) {
        FN(fill)(dh0, m * h, 0);
        FN(strips_times_rows)(a->W_hh, gates, h, m, dz, ldz, dh0, h);
    } else if (a->N == 1) {
        FN(fill)(s->spare, FN(padded)(h), 0);
        FN(gemv)(f->p.back, gates, h, dz, EPILOGUE_ADD, 0, s->spare, s->spare, s->spare, 0);
        FN(copy_row)(dh0, s->spare, h);
    }
    if (!FN(has_gates)(a->cell)) return;
    for (ptrdiff_t r = 0; r < m; r++)
        if (cell_table[a->cell].states > 1)
            FN(copy_row)((REAL *)a->dh0[1] + (a->start + r) * h, s->carry + r * s->ldh, h);
        else
            for (ptrdiff_t j = 0; j < h; j++) dh0[r * h + j] += s->carry[r * s->ldh + j];
}

/* The way back, step after step of the layer's order from the last one on; after the first of a block, what the block
 * adds to the gradients. */
static ptrdiff_t FN(backward_rows)(void *argument, team_member *member, ptrdiff_t step) {
    const FN(layer_pass) *f = argument;
    const layer_arguments *a = f->a;
    const FN(layer_space) *s = &f->s;
    ptrdiff_t T = a->T, h = a->h, m = a->stop - a->start, steps = FN(block_steps)(T, m), ldz = s->ldz, from, end;
    ptrdiff_t size = FN(padded)(FN(blocks)(a->cell, h));
    REAL *after = s->dz + steps * m * ldz;
    FN(tile) tiles[FN(MOST_TILES)] = {{0, 1, 0, 0}};
    int count = 1;
    if (a->packed && a->N == 1) {
        FN(share_panels)(member, h, &from, &end);
        tiles[0].column = from * VL;
        tiles[0].columns = (end - from) * VL;
        count = from < end;
    } else {
        count = FN(share_tiles)(member, m, FN(padded)(h), tiles);
    }
    FN(share_vectors)(member, h, &from, &end);
    while (step < T) {
        ptrdiff_t i = T - 1 - step, first = i / steps * steps, place = i - first;
        FN(layer_block) block = {first, T - first < steps ? T - first : steps, m == a->N && !a->reverse};
        REAL *row = s->dz + place * m * ldz, *next = place == block.n - 1 ? after : row + m * ldz;
        FN(backward_step)(f, member, tiles, count, from, end, i, step ? next : NULL, row);
        if (!place) {
            ptrdiff_t begin, stop;
            fastrnn_team_meet(member);
            if (a->dW_hh) FN(add_gradients)(f, member, &block, a->accumulate || first + block.n < T);
            if (a->dx) FN(input_gradients)(f, member, &block);
            FN(share_vectors)(member, size, &begin, &stop);
            for (ptrdiff_t r = 0; r < m; r++)
                FN(copy_row)(after + r * ldz + begin, s->dz + r * ldz + begin, stop - begin);
        }
        if (FN(meet_before)(member, ++step, T)) return step;
    }
    fastrnn_team_meet(member);
    FN(first_gradient)(f, member, a->lengths && a->reverse ? s->firsts : after);
    return T;
}

static void FN(backward_part)(const layer_arguments *a) {
    ptrdiff_t m = a->stop - a->start, steps = FN(block_steps)(a->T, m), blocks = FN(blocks)(a->cell, a->h);
    FN(layer_pass) f = FN(begin_pass)(a);
    const FN(layer_space) *s = &f.s;
    /* Of the last vector of a row the gates leave some elements as they are, and sums are of whole vectors. */
    if (FN(has_gates)(a->cell) && FN(padded)(blocks) > blocks) FN(fill)(s->dz, (steps + 1) * m * s->ldz, 0);
    if (a->dW_hh) FN(begin_gradients)(a, s);
    FN(run_steps)(&f, a->T, FN(backward_rows));
    if (a->dW_hh) FN(end_gradients)(a, s);
}

/* ---- parts of a batch ----------------------------------------------------------------------------------- */

typedef struct {
    const layer_arguments *a;
    int backward, threads; /* of each part */
} FN(layer_parts);

static void FN(layer_part)(void *argument, ptrdiff_t index, int slot) {
    const FN(layer_parts) *all = argument;
    const batch_parts *parts = all->a->parts;
    void *const *gradients = parts->gradients[index];
    layer_arguments a = *all->a;
    a.parts = NULL;
    a.threads = all->threads;
    a.start = parts->bounds[index][0];
    a.stop = parts->bounds[index][1];
    a.work = parts->works[slot];
    if (all->backward) a.dW_ih = gradients[0], a.dW_hh = gradients[1], a.db_ih = gradients[2], a.db_hh = gradients[3];
    (all->backward ? FN(backward_part) : FN(forward_part))(&a);
}

/* Parts are taken by a thread each; where threads are many more than parts, all of them share each part in turn. */
static void FN(layer_each)(const layer_arguments *a, int backward) {
    FN(layer_parts) all = {a, backward, parts_in_turn(a->parts, a->threads) ? a->threads : 1};
    fastrnn_team_tasks(all.threads > 1 ? 1 : a->threads, a->parts->count, FN(layer_part), &all);
}

static void FN(layer_forward)(const layer_arguments *a) {
    if (a->parts) FN(layer_each)(a, 0);
    else FN(forward_part)(a);
}

static void FN(layer_backward)(const layer_arguments *a) {
    if (a->parts) FN(layer_each)(a, 1);
    else FN(backward_part)(a);
}
