/* The output layer over a batch: outputs, loss and gradients.
 *
 *     y_t = W h_t + b,  L = sum of what losses.h makes of y_t, and dy_t                   (2)
 *     dW = sum dy_t h_t',  db = sum dy_t,  d output_t = W' dy_t                           (8), (9)
 *
 * See numpy_kernels/output.py for the arguments, layer.h for how a thread takes its rows through the time steps.
 */

#define CHUNK 16 /* rows (time steps x sequences) whose losses are summed up at once */

/* ---- packed weights and work space ---------------------------------------------------------------------- */

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
    FN(packings) all = {{{a->W, 1, a->h, a->h, a->q, p.forward, 0}, {a->W, a->h, 1, a->q, a->h, p.back, 0}}, 2};
    FN(pack_all)(&all, a->threads);
}

typedef struct {
    REAL *y;      /* (steps, rows, ldq) logits, then their gradient */
    REAL *panels; /* states, for gemm */
    REAL *db;     /* (ldq) */
    double *losses; /* of each chunk of rows of a block */
    ptrdiff_t size;
} FN(output_space);

static FN(output_space) FN(output_layout)(void *work, ptrdiff_t T, ptrdiff_t rows, ptrdiff_t h, ptrdiff_t q) {
    FN(output_space) s;
    REAL *base = FN(aligned)(work);
    ptrdiff_t used = 0, steps = FN(block_steps)(T, rows);
    s.y = FN(take)(base, &used, steps * rows * FN(spread)(FN(padded)(q)));
    s.panels = FN(take)(base, &used, steps * rows * FN(gemm_padded)(h));
    s.db = FN(take)(base, &used, FN(padded)(q));
    s.losses = FN(take_integers)(base, &used, steps * rows / CHUNK + 1);
    s.size = used + 64;
    return s;
}

static void FN(output_sizes)(ptrdiff_t T, ptrdiff_t rows, ptrdiff_t h, ptrdiff_t q, ptrdiff_t *packed,
                             ptrdiff_t *work) {
    *packed = FN(output_panels)(NULL, h, q).size;
    *work = FN(output_layout)(NULL, T, rows, h, q).size;
}

/* What the members of a team share in a pass over the rows start .. stop. */
typedef struct {
    const output_arguments *a;
    FN(packed_output) p;
    FN(output_space) s;
    ptrdiff_t steps; /* time steps of a block */
    double loss;     /* of the blocks that are done: member 0's */
} FN(output_pass);

static FN(output_pass) FN(begin_output)(const output_arguments *a) {
    ptrdiff_t m = a->stop - a->start;
    FN(output_pass) f = {a, FN(output_panels)(a->packed, a->h, a->q), FN(output_layout)(a->work, a->T, m, a->h, a->q),
                         FN(block_steps)(a->T, m), 0};
    return f;
}

/* Runs a body whose steps are blocks. */
static void FN(run_blocks)(FN(output_pass) *f, team_steps_body body) {
    fastrnn_team_steps(f->a->threads, (f->a->T + f->steps - 1) / f->steps, body, f);
}

/* Rows of a block (time steps x sequences) that a member handles, whole chunks: see the loss. */
static void FN(share_rows)(const team_member *member, ptrdiff_t rows, ptrdiff_t *from, ptrdiff_t *end) {
    team_share((rows + CHUNK - 1) / CHUNK, member->rank, member->size, from, end);
    *from = *from * CHUNK < rows ? *from * CHUNK : rows;
    *end = *end * CHUNK < rows ? *end * CHUNK : rows;
}

/* ---- outputs --------------------------------------------------------------------------------------------- */

/* Place in the batch of row r of a block that begins with step t0. */
ALWAYS_INLINE ptrdiff_t FN(output_place)(const output_arguments *a, ptrdiff_t t0, ptrdiff_t r) {
    ptrdiff_t m = a->stop - a->start;
    return (t0 + r / m) * a->N + a->start + r % m;
}

/* How many of the rows from r up to `end` follow one another in memory. */
ALWAYS_INLINE ptrdiff_t FN(together)(const output_arguments *a, ptrdiff_t r, ptrdiff_t end) {
    ptrdiff_t m = a->stop - a->start, left = m - r % m;
    return m == a->N || left > end - r ? end - r : left; /* of the whole batch, those of all steps do */
}

/* y (rows, ldy) = W h_t + b for the rows from .. end of a block. */
static void FN(logits_block)(const FN(output_pass) *f, ptrdiff_t t0, ptrdiff_t from, ptrdiff_t end, ptrdiff_t ldy) {
    const output_arguments *a = f->a;
    ptrdiff_t h = a->h, ldq = FN(padded)(a->q);
    REAL *y = f->s.y;
    for (ptrdiff_t r = from; r < end; r++) FN(copy_row)(y + r * ldy, f->p.bias, ldq);
    for (ptrdiff_t r = from, rows; r < end; r += rows) {
        rows = FN(together)(a, r, end);
        FN(times_panels)(rows, ldq, h, (const REAL *)a->hs + FN(output_place)(a, t0, r) * h, h, f->p.forward, y + r * ldy,
                         ldy, 1);
    }
}

static ptrdiff_t FN(logits_steps)(void *argument, team_member *member, ptrdiff_t step) {
    const FN(output_pass) *f = argument;
    const output_arguments *a = f->a;
    ptrdiff_t T = a->T, q = a->q, steps = f->steps, ldy = FN(spread)(FN(padded)(q)), blocks = (T + steps - 1) / steps;
    while (step < blocks) {
        ptrdiff_t t0 = step * steps, n = T - t0 < steps ? T - t0 : steps, from, end;
        FN(share_rows)(member, n * (a->stop - a->start), &from, &end);
        FN(logits_block)(f, t0, from, end, ldy);
        for (ptrdiff_t r = from; r < end; r++) {
            REAL *y = f->s.y + r * ldy;
            if (a->probabilities) FN(softmax)(y, FN(padded)(q));
            FN(copy_row)((REAL *)a->logits + FN(output_place)(a, t0, r) * q, y, q);
        }
        if (++step < blocks && member->inside && fastrnn_team_meet_between(member)) return step;
    }
    return blocks;
}

static double FN(logits_part)(const output_arguments *a) {
    FN(output_pass) f = FN(begin_output)(a);
    FN(run_blocks)(&f, FN(logits_steps));
    return 0;
}

/* ---- loss ----------------------------------------------------------------------------------------------- */

/* The loss of a chunk of rows; outputs y (rows, ldy) become their gradients, unless dhs is NULL. */
ALWAYS_INLINE double FN(loss_chunk)(const FN(output_pass) *f, ptrdiff_t t0, ptrdiff_t from, ptrdiff_t end, ptrdiff_t ldy) {
    const output_arguments *a = f->a;
    ptrdiff_t q = a->q, ldq = FN(padded)(q), values = a->loss == GAUSSIAN ? q / 2 : q;
    FN(loss_sum) loss = {0, 1};
    for (ptrdiff_t r = from; r < end; r++) {
        REAL *y = f->s.y + r * ldy;
        ptrdiff_t place = FN(output_place)(a, t0, r);
        FN(row_of_loss) row = {q, a->weights ? ((const REAL *)a->weights)[place] : 1, (REAL)a->scale, a->dhs != NULL};
        row.scale *= row.weight;
        if (row.weight == 0 || (a->loss == CROSS_ENTROPY && a->classes[place] < 0)) { /* does not count */
            if (a->dhs) FN(fill)(y, ldq, 0);
        } else if (a->loss == CROSS_ENTROPY) {
            FN(cross_entropy)(&loss, &row, y, a->classes[place]);
        } else {
            const REAL *wanted = (const REAL *)a->values + place * values;
            if (a->loss == GAUSSIAN) FN(gaussian)(&loss, &row, y, wanted);
            else FN(squared_error)(&loss, &row, y, wanted);
            if (a->dhs) FN(fill)(y + q, ldq - q, 0);
        }
    }
    return loss.sum + log(loss.product);
}

/* dhs and dW (+)= what the gradients of the logits of a block give (eqs. 9, 8), and db. */
static void FN(output_gradients)(const FN(output_pass) *f, team_member *member, ptrdiff_t t0, ptrdiff_t n, ptrdiff_t ldy,
                                 int accumulate) {
    const output_arguments *a = f->a;
    ptrdiff_t h = a->h, q = a->q, k = n * (a->stop - a->start), from, end;
    FN(share_vectors)(member, FN(padded)(q), &from, &end);
    for (ptrdiff_t r = 0; r < k; r++) FN(add_row)(end - from, f->s.db + from, f->s.y + r * ldy + from);
    FN(share_columns)(member, h, &from, &end);
    for (ptrdiff_t r = 0, rows; r < k; r += rows) {
        ptrdiff_t place = FN(output_place)(a, t0, r) * h;
        rows = FN(together)(a, r, k);
        FN(team_times_panels)(member, rows, h, q, f->s.y + r * ldy, ldy, f->p.back, (REAL *)a->dhs + place, h, 0);
        FN(pack_columns)((const REAL *)a->hs + place, rows, h, from, end, r, k, f->s.panels);
    }
    fastrnn_team_meet(member); /* the panels are packed */
    FN(team_gemm_turned)(member, q, h, k, f->s.y, ldy, f->s.panels, a->dW, h, accumulate);
}

static ptrdiff_t FN(loss_steps)(void *argument, team_member *member, ptrdiff_t step) {
    FN(output_pass) *f = argument;
    const output_arguments *a = f->a;
    ptrdiff_t T = a->T, m = a->stop - a->start, steps = f->steps, blocks = (T + steps - 1) / steps;
    ptrdiff_t ldy = FN(spread)(FN(padded)(a->q));
    while (step < blocks) {
        ptrdiff_t t0 = step * steps, n = T - t0 < steps ? T - t0 : steps, rows = n * m, from, end;
        FN(share_rows)(member, rows, &from, &end);
        FN(logits_block)(f, t0, from, end, ldy);
        for (ptrdiff_t r = from; r < end; r += CHUNK)
            f->s.losses[r / CHUNK] = FN(loss_chunk)(f, t0, r, r + CHUNK < end ? r + CHUNK : end, ldy);
        fastrnn_team_meet(member);
        for (ptrdiff_t r = 0; !member->rank && r < rows; r += CHUNK) f->loss += f->s.losses[r / CHUNK];
        if (a->dhs) FN(output_gradients)(f, member, t0, n, ldy, a->accumulate || step);
        if (++step < blocks && member->inside && fastrnn_team_meet_between(member)) return step;
    }
    return blocks;
}

/* Loss, and gradients unless dhs is NULL. */
static double FN(loss_part)(const output_arguments *a) {
    ptrdiff_t q = a->q;
    FN(output_pass) f = FN(begin_output)(a);
    if (a->dhs) {
        if (a->accumulate) FN(copy_padded)(f.s.db, a->db, q);
        else FN(fill)(f.s.db, FN(padded)(q), 0);
    }
    FN(run_blocks)(&f, FN(loss_steps));
    if (a->dhs) FN(copy_row)(a->db, f.s.db, q);
    return f.loss;
}

/* ---- parts of a batch ----------------------------------------------------------------------------------- */

typedef struct {
    const output_arguments *a;
    double (*pass)(const output_arguments *);
    int threads; /* of each part */
} FN(output_parts);

static void FN(output_of_part)(void *argument, ptrdiff_t index, int slot) {
    const FN(output_parts) *all = argument;
    batch_parts *parts = all->a->parts;
    output_arguments a = *all->a;
    a.parts = NULL;
    a.threads = all->threads;
    a.start = parts->bounds[index][0];
    a.stop = parts->bounds[index][1];
    a.work = parts->works[slot];
    if (a.dhs) a.dW = parts->gradients[index][0], a.db = parts->gradients[index][1];
    parts->results[index] = all->pass(&a);
}

/* As layer_each; the sum of the results, in the order of the parts. */
static double FN(output_each)(const output_arguments *a, double (*pass)(const output_arguments *)) {
    if (!a->parts) return pass(a);
    FN(output_parts) all = {a, pass, parts_in_turn(a->parts, a->threads) ? a->threads : 1};
    fastrnn_team_tasks(all.threads > 1 ? 1 : a->threads, a->parts->count, FN(output_of_part), &all);
    double sum = 0;
    for (ptrdiff_t i = 0; i < a->parts->count; i++) sum += a->parts->results[i];
    return sum;
}

static void FN(output_logits)(const output_arguments *a) { FN(output_each)(a, FN(logits_part)); }

static double FN(output_loss)(const output_arguments *a) { return FN(output_each)(a, FN(loss_part)); }
