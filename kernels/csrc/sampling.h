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
    ptrdiff_t *order; /* (q) classes by falling probability */
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
    s.order = FN(take_integers)(base, &used, q);
    s.size = used + 64;
    return s;
}

static ptrdiff_t FN(sample_size)(ptrdiff_t N, ptrdiff_t rows, ptrdiff_t h, ptrdiff_t q, int cell) {
    return FN(sample_layout)(NULL, N, rows, h, q, cell).size;
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

/* New states of row r of the batch in layer l, in the place of the old ones, from a row z of its gates. */
static void FN(sample_gates)(const sample_arguments *a, ptrdiff_t l, ptrdiff_t r, const REAL *z) {
    ptrdiff_t h = a->h, place = (l * a->N + r) * h;
    REAL *state = (REAL *)a->states[0] + place, *c = a->cell == LSTM ? (REAL *)a->states[1] + place : NULL;
    FOR_GATED(a->cell, FN(gated_row)(CELL, h, z, state, c, state, NULL));
}

/* One time step of one sequence in layer l, from the layer's input x, or the class `index` at the bottom. */
static void FN(sample_alone)(const sample_arguments *a, const FN(sample_space) *s, ptrdiff_t l, const REAL *x,
                             int64_t index, ptrdiff_t i) {
    ptrdiff_t h = a->h, ldh = FN(padded)(h), d = l ? h : a->q, part = FN(recurrent_part)(a->cell, h);
    FN(packed_layer) p = FN(layer_panels)(a->packed[l], d, h, a->cell);
    REAL *state = (REAL *)a->states[0] + l * h, *row = s->z;
    const REAL *z = row;
    if (FN(has_gates)(a->cell)) {
        FN(copy_row)(row, x ? p.bias : p.input + index * s->ldz, s->ldz);
        if (x) FN(times_panels)(1, FN(gates)(a->cell, h), d, x, d, p.input, row, s->ldz, 1);
        row += part;
        FN(gemv)(p.forward, h, FN(gates)(a->cell, h), state, EPILOGUE_ADD, 0, row, row, row, i & 1);
        FN(sample_gates)(a, l, 0, s->z);
        return;
    }
    if (x) {
        FN(copy_row)(row, p.bias, ldh);
        FN(times_panels)(1, ldh, d, x, d, p.input, row, ldh, 1);
    } else {
        z = p.input + index * ldh;
    }
    FOR_CELL(a->cell, FN(gemv)(p.forward, h, h, state, EPILOGUE_CELL, CELL, z, z, row, i & 1));
    FN(copy_row)(state, row, h);
}

/* One time step of the rows start .. stop in layer l. */
static void FN(sample_step)(const sample_arguments *a, const FN(sample_space) *s, ptrdiff_t l, const REAL *x) {
    ptrdiff_t h = a->h, ldz = s->ldz, d = l ? h : a->q, m = a->stop - a->start;
    int gated = FN(has_gates)(a->cell);
    ptrdiff_t columns = gated ? FN(gates)(a->cell, h) : FN(padded)(h); /* of a product */
    FN(packed_layer) p = FN(layer_panels)(a->packed[l], d, h, a->cell);
    REAL *state = (REAL *)a->states[0] + (l * a->N + a->start) * h;
    for (ptrdiff_t r = 0; r < m; r++)
        FN(copy_row)(s->z + r * ldz, x ? p.bias : p.input + s->indices[r] * ldz, ldz);
    if (x) FN(times_panels)(m, columns, d, x, d, p.input, s->z, ldz, 1);
    FN(times_panels)(m, columns, h, state, h, p.forward, s->z + FN(recurrent_part)(a->cell, h), ldz, 1);
    if (gated) {
        for (ptrdiff_t r = 0; r < m; r++) FN(sample_gates)(a, l, a->start + r, s->z + r * ldz);
        return;
    }
    FOR_CELL(a->cell, FN(apply_cell)(CELL, m * ldz, s->z));
    for (ptrdiff_t r = 0; r < m; r++) FN(copy_row)(state + r * h, s->z + r * ldz, h);
}

static ptrdiff_t FN(sample_batch)(const sample_arguments *a) {
    ptrdiff_t N = a->N, n = a->n, h = a->h, q = a->q, ldq = FN(padded)(q), m = a->stop - a->start, i = 0;
    FN(sample_space) s = FN(sample_layout)(a->work, N, m, h, q, a->cell);
    FN(packed_output) p = FN(output_panels)(a->packed_output, h, q);
    if (N == 1) FN(pack_gemv)(a->W, 1, h, h, q, s.forward);
    for (ptrdiff_t r = 0; r < m; r++) s.indices[r] = a->first[a->start + r];
    for (; i < n; i++) {
        const REAL *x = NULL;
        for (ptrdiff_t l = 0; l < a->layers; l++) {
            if (N == 1) FN(sample_alone)(a, &s, l, x, s.indices[0], i);
            else FN(sample_step)(a, &s, l, x);
            x = (const REAL *)a->states[0] + (l * N + a->start) * h;
        }
        if (N == 1) {
            FN(gemv)(s.forward, h, q, x, EPILOGUE_ADD, 0, p.bias, p.bias, s.y, i & 1);
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
