/* Sampling: class indices are drawn from the output's probabilities, and each is the next input.
 *
 * See numpy_kernels/sampling.py for the arguments of the batched one; sequence.h has that of one sequence.
 */

/* ---- one draw ------------------------------------------------------------------------------------------- */

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

/* ---- a batch -------------------------------------------------------------------------------------------- */

typedef struct {
    REAL *z;          /* (rows, ldz) */
    REAL *y;          /* (rows, ldq) */
    REAL *vector;     /* (2, ldh) one sequence: its states */
    REAL *forward;    /* W' for gemv, for one sequence */
    int64_t *indices; /* (rows) the next inputs */
    ptrdiff_t *order; /* (rows, q) classes by falling probability */
    ptrdiff_t ldz, size;
} FN(sample_space);

static FN(sample_space) FN(sample_layout)(void *work, ptrdiff_t N, ptrdiff_t rows, ptrdiff_t h, ptrdiff_t q, int cell) {
    FN(sample_space) s;
    REAL *base = FN(aligned)(work);
    ptrdiff_t used = 0, ldh = FN(padded)(h), ldq = FN(padded)(q);
    s.ldz = FN(row_size)(cell, h);
    s.z = FN(take)(base, &used, rows * s.ldz);
    s.y = FN(take)(base, &used, rows * ldq);
    s.vector = FN(take)(base, &used, 2 * ldh);
    s.forward = FN(take)(base, &used, N == 1 ? h * ldq : 0);
    s.indices = FN(take_integers)(base, &used, rows);
    s.order = FN(take_integers)(base, &used, rows * q);
    s.size = used + 64;
    return s;
}

static ptrdiff_t FN(sample_size)(ptrdiff_t N, ptrdiff_t rows, ptrdiff_t h, ptrdiff_t q, int cell) {
    return FN(sample_layout)(NULL, N, rows, h, q, cell).size;
}

/* Class index drawn from the logits y (ldq, padding minus infinity), or -1 if they are not numbers.  `order` is work
 * space (q). */
static ptrdiff_t FN(draw_class)(const sample_arguments *a, ptrdiff_t *order, REAL *y, double u) {
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
    if ((a->top_k > 0 && a->top_k < q) || a->top_p < 1) FN(restrict_classes)(y, q, a->top_k, a->top_p, order);
    return FN(draw)(y, q, u);
}

/* Sampling by a team; and what a member has of each time step. */
typedef struct {
    const sample_arguments *a;
    FN(sample_space) s;
    ptrdiff_t drawn; /* time steps */
} FN(sampling);

typedef struct {
    ptrdiff_t panel, panel_end; /* of one sequence: vectors of the gates, whole panels of gemv */
    ptrdiff_t out, out_end;     /* the same of the logits */
    ptrdiff_t unit, unit_end;   /* hidden units, whole vectors but for the last */
    ptrdiff_t row, row_end;     /* sequences, to draw for */
    int z_count, gate_count, y_count;
    FN(tile) z[FN(MOST_TILES)], gates[FN(MOST_TILES)], y[FN(MOST_TILES)]; /* of rows z_t, of gates, of logits */
} FN(sample_shares);

/* Columns of a product in a row z_t. */
ALWAYS_INLINE ptrdiff_t FN(product_columns)(const sample_arguments *a) {
    return FN(has_gates)(a->cell) ? FN(gates)(a->cell, a->h) : FN(padded)(a->h);
}

static FN(sample_shares) FN(sample_shares_of)(const sample_arguments *a, const team_member *member) {
    ptrdiff_t h = a->h, ldz = FN(row_size)(a->cell, h), m = a->stop - a->start, columns = FN(product_columns)(a);
    FN(sample_shares) mine;
    FN(share_panels)(member, FN(gates)(a->cell, h), &mine.panel, &mine.panel_end);
    FN(share_panels)(member, a->q, &mine.out, &mine.out_end);
    FN(share_vectors)(member, h, &mine.unit, &mine.unit_end);
    team_share(m, member->rank, member->size, &mine.row, &mine.row_end);
    mine.z_count = FN(share_tiles)(member, m, FN(recurrent_part)(a->cell, h) ? ldz : columns, mine.z);
    mine.gate_count = FN(share_tiles)(member, m, columns, mine.gates);
    mine.y_count = FN(share_tiles)(member, m, FN(padded)(a->q), mine.y);
    return mine;
}

ALWAYS_INLINE void FN(sample_meet)(team_member *member) {
    if (member->size > 1) fastrnn_team_meet(member);
}

/* A member's tiles of rows z_t: the layer's input x times its weights, and the bias; or at the bottom, where x is
 * NULL, what the weights have for a class. */
ALWAYS_INLINE void FN(sample_input)(const sample_arguments *a, const FN(sample_space) *s, const FN(sample_shares) *mine,
                                    const FN(packed_layer) *p, const REAL *x) {
    ptrdiff_t ldz = s->ldz, h = a->h, columns = FN(product_columns)(a);
    for (int i = 0; i < mine->z_count; i++) {
        FN(tile) tile = mine->z[i];
        for (ptrdiff_t r = tile.row; r < tile.row + tile.rows; r++)
            FN(copy_row)(s->z + r * ldz + tile.column, (x ? p->bias : p->input + s->indices[r] * ldz) + tile.column,
                         tile.columns);
        if (!x || tile.column >= columns) continue;
        if (tile.columns > columns - tile.column) tile.columns = columns - tile.column;
        FN(tile_times_panels)(&tile, h, x, h, p->input, s->z, ldz, 1);
    }
}

/* A member's hidden units of the new states of row r in layer l, in the place of the old ones, from row z_t. */
ALWAYS_INLINE void FN(sample_states)(const sample_arguments *a, const FN(sample_shares) *mine, ptrdiff_t l, ptrdiff_t r,
                                     const REAL *z) {
    ptrdiff_t h = a->h, from = mine->unit, end = mine->unit_end, place = (l * a->N + r) * h;
    REAL *state = (REAL *)a->states[0] + place, *c = a->cell == LSTM ? (REAL *)a->states[1] + place : NULL;
    if (from >= end) return;
    if (FN(has_gates)(a->cell)) FOR_GATED(a->cell, FN(gated_row)(CELL, h, from, end, z, state, c, state, NULL));
    else FN(copy_row)(state + from, z + from, end - from);
}

/* One time step of one sequence in layer l, from the layer's input x, or the class at the bottom. */
static void FN(sample_alone)(const sample_arguments *a, const FN(sample_space) *s, team_member *member,
                             const FN(sample_shares) *mine, ptrdiff_t l, const REAL *x, ptrdiff_t i) {
    ptrdiff_t h = a->h, d = l ? h : a->q, gates = FN(gates)(a->cell, h), part = FN(recurrent_part)(a->cell, h);
    FN(packed_layer) p = FN(layer_panels)(a->packed[l], d, h, a->cell);
    REAL *state = (REAL *)a->states[0] + l * h, *row = s->z + part;
    const REAL *z = row;
    if (x) {
        FN(sample_input)(a, s, mine, &p, x);
        FN(sample_meet)(member);
    } else {
        z = p.input + s->indices[0] * s->ldz;
        if (part && mine->unit < mine->unit_end)
            FN(copy_row)(s->z + mine->unit, z + mine->unit, mine->unit_end - mine->unit);
        z += part;
    }
    if (FN(has_gates)(a->cell)) {
        if (member->size == 1) FN(gemv)(p.forward, h, gates, state, EPILOGUE_ADD, 0, z, z, row, i & 1);
        else FN(gemv_some)(p.forward, h, gates, state, EPILOGUE_ADD, 0, z, z, row, mine->panel, mine->panel_end);
    } else if (member->size == 1) {
        FOR_CELL(a->cell, FN(gemv)(p.forward, h, h, state, EPILOGUE_CELL, CELL, z, z, row, i & 1));
    } else {
        FOR_CELL(a->cell, FN(gemv_some)(p.forward, h, h, state, EPILOGUE_CELL, CELL, z, z, row, mine->panel,
                                        mine->panel_end));
    }
    FN(sample_meet)(member);
    FN(sample_states)(a, mine, l, 0, s->z);
}

/* One time step of the rows start .. stop in layer l. */
static void FN(sample_step)(const sample_arguments *a, const FN(sample_space) *s, team_member *member,
                            const FN(sample_shares) *mine, ptrdiff_t l, const REAL *x) {
    ptrdiff_t h = a->h, ldz = s->ldz, d = l ? h : a->q, m = a->stop - a->start, part = FN(recurrent_part)(a->cell, h);
    FN(packed_layer) p = FN(layer_panels)(a->packed[l], d, h, a->cell);
    const REAL *state = (REAL *)a->states[0] + (l * a->N + a->start) * h;
    FN(sample_input)(a, s, mine, &p, x);
    if (part) FN(sample_meet)(member); /* the tiles of the gates are others than those of the rows */
    for (int i = 0; i < mine->gate_count; i++) {
        const FN(tile) *tile = &mine->gates[i];
        FN(tile_times_panels)(tile, h, state, h, p.forward, s->z + part, ldz, 1);
        if (FN(has_gates)(a->cell)) continue;
        for (ptrdiff_t r = tile->row; r < tile->row + tile->rows; r++)
            FOR_CELL(a->cell, FN(apply_cell)(CELL, tile->columns, s->z + r * ldz + tile->column));
    }
    FN(sample_meet)(member);
    for (ptrdiff_t r = 0; r < m; r++) FN(sample_states)(a, mine, l, a->start + r, s->z + r * ldz);
}

/* Writes down what was drawn at a time step; 0 where there was nothing to draw from. */
static int FN(note_draws)(FN(sampling) *p, ptrdiff_t i, int writes) {
    const sample_arguments *a = p->a;
    ptrdiff_t m = a->stop - a->start;
    for (ptrdiff_t r = 0; r < m; r++)
        if (p->s.indices[r] < 0) return 0;
    if (!writes) return 1;
    for (ptrdiff_t r = 0; r < m; r++) a->out[(a->start + r) * a->n + i] = p->s.indices[r];
    p->drawn = i + 1;
    return 1;
}

/* Time steps from i on: the layers, the logits, and the draws, which member 0 writes down when all have met. */
static ptrdiff_t FN(sample_steps)(void *argument, team_member *member, ptrdiff_t i) {
    FN(sampling) *p = argument;
    const sample_arguments *a = p->a;
    const FN(sample_space) *s = &p->s;
    const ptrdiff_t N = a->N, n = a->n, h = a->h, q = a->q, ldq = FN(padded)(q);
    const int threads = a->threads;
    const FN(sample_shares) mine = FN(sample_shares_of)(a, member);
    FN(packed_output) output = FN(output_panels)(a->packed_output, h, q);
    for (;;) {
        const REAL *x = NULL;
        if (i && !FN(note_draws)(p, i - 1, !member->rank)) return n;
        for (ptrdiff_t l = 0; l < a->layers; l++) {
            if (N == 1) FN(sample_alone)(a, s, member, &mine, l, x, i);
            else FN(sample_step)(a, s, member, &mine, l, x);
            FN(sample_meet)(member);
            x = (const REAL *)a->states[0] + (l * N + a->start) * h;
        }
        if (N == 1 && member->size == 1)
            FN(gemv)(s->forward, h, q, x, EPILOGUE_ADD, 0, output.bias, output.bias, s->y, i & 1);
        else if (N == 1)
            FN(gemv_some)(s->forward, h, q, x, EPILOGUE_ADD, 0, output.bias, output.bias, s->y, mine.out, mine.out_end);
        else
            for (int j = 0; j < mine.y_count; j++) {
                const FN(tile) *tile = &mine.y[j];
                for (ptrdiff_t r = tile->row; r < tile->row + tile->rows; r++)
                    FN(copy_row)(s->y + r * ldq + tile->column, output.bias + tile->column, tile->columns);
                FN(tile_times_panels)(tile, h, x, h, output.forward, s->y, ldq, 1);
            }
        FN(sample_meet)(member);
        for (ptrdiff_t r = mine.row; r < mine.row_end; r++)
            s->indices[r] = FN(draw_class)(a, s->order + r * q, s->y + r * ldq, a->uniforms[(a->start + r) * n + i]);
        if (++i == n || (threads > 1 && fastrnn_team_meet_between(member))) return i;
    }
}

static ptrdiff_t FN(sample_part)(const sample_arguments *a) {
    ptrdiff_t N = a->N, h = a->h, q = a->q, m = a->stop - a->start;
    FN(sampling) p = {a, FN(sample_layout)(a->work, N, m, h, q, a->cell), 0};
    if (!a->n) return 0;
    if (N == 1) {
        const FN(packings) all = {{{a->W, 1, h, h, q, p.s.forward, 1}}, 1};
        FN(pack_all)(&all, a->threads);
    }
    for (ptrdiff_t r = 0; r < m; r++) p.s.indices[r] = a->first[a->start + r];
    if (a->threads > 1) {
        fastrnn_team_steps(a->threads, a->n, FN(sample_steps), &p);
    } else {
        team_member alone = {0, 1, NULL};
        FN(sample_steps)(&p, &alone, 0);
    }
    if (p.drawn == a->n - 1) FN(note_draws)(&p, p.drawn, 1);
    return p.drawn;
}

/* ---- parts of a batch ----------------------------------------------------------------------------------- */

static void FN(sample_of_parts)(void *argument, ptrdiff_t index, int slot) {
    const sample_arguments *all = argument;
    sample_arguments a = *all;
    a.parts = NULL;
    if (!parts_in_turn(all->parts, all->threads)) a.threads = 1;
    a.start = all->parts->bounds[index][0];
    a.stop = all->parts->bounds[index][1];
    a.work = all->parts->works[slot];
    all->parts->results[index] = (double)FN(sample_part)(&a);
}

/* As layer_each; how many steps were drawn for every sequence. */
static ptrdiff_t FN(sample_batch)(const sample_arguments *a) {
    if (!a->parts) return FN(sample_part)(a);
    int turns = parts_in_turn(a->parts, a->threads);
    fastrnn_team_tasks(turns ? 1 : a->threads, a->parts->count, FN(sample_of_parts), (void *)a);
    double least = (double)a->n;
    for (ptrdiff_t i = 0; i < a->parts->count; i++)
        if (a->parts->results[i] < least) least = a->parts->results[i];
    return (ptrdiff_t)least;
}
