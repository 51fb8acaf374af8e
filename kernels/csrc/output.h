/* The output of a language model over a batch: logits, loss and gradients.
 *
 *     y_t = W h_t + b,  L = -sum log softmax(y_t)[target_t],  dy_t = softmax(y_t) - p_t   (2), (5) to (7)
 *     dW = sum dy_t h_t',  db = sum dy_t,  d output_t = W' dy_t                           (8), (9)
 *
 * See numpy_kernels/output.py for the arguments, layer.h for how a thread takes its rows through the time steps.
 */

/* ---- softmax -------------------------------------------------------------------------------------------- */

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

/* y (ldq, padding -inf) becomes softmax(y), in place (eqs. 16, 17). */
ALWAYS_INLINE void FN(softmax)(REAL *y, ptrdiff_t ldq) {
    REAL top;
    V total = FN(splat)(FN(exponentials)(y, ldq, &top));
    for (ptrdiff_t j = 0; j < ldq; j += VL) FN(store)(y + j, FN(load)(y + j) / total);
}

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

static void FN(output_sizes)(ptrdiff_t T, ptrdiff_t rows, ptrdiff_t h, ptrdiff_t q, ptrdiff_t *packed,
                             ptrdiff_t *work) {
    *packed = FN(output_panels)(NULL, h, q).size;
    *work = FN(output_layout)(NULL, T, rows, h, q).size;
}

/* ---- logits --------------------------------------------------------------------------------------------- */

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
            for (ptrdiff_t r = 0; r < m; r++) {
                REAL *y = s.y + (t * m + r) * ldy;
                if (a->probabilities) FN(softmax)(y, FN(padded)(q));
                FN(copy_row)((REAL *)a->logits + ((t0 + t) * a->N + a->start + r) * q, y, q);
            }
    }
}

/* ---- loss ----------------------------------------------------------------------------------------------- */

/* A sum of losses; the logarithm of a product of a few totals is taken at once. */
typedef struct {
    double sum, product;
    int factors;
} FN(loss_sum);

/* Adds -log softmax(y)[wanted] to the loss (eqs. 5, 6); exp(y - max y) is left in y, and its sum is returned. */
ALWAYS_INLINE REAL FN(add_loss)(FN(loss_sum) *loss, REAL *y, ptrdiff_t ldq, int64_t wanted) {
    REAL top;
    double chosen = (double)y[wanted];
    REAL total = FN(exponentials)(y, ldq, &top);
    loss->sum += (double)top - chosen;
    loss->product *= (double)total; /* 1 <= total <= q */
    if (++loss->factors == 16) {
        loss->sum += log(loss->product);
        loss->product = 1;
        loss->factors = 0;
    }
    return total;
}

/* The loss of n time steps from t0 on; logits y (n, rows, ldy) become their gradients, unless dhs is NULL. */
ALWAYS_INLINE void FN(loss_block)(const output_arguments *a, const FN(output_space) *s, ptrdiff_t t0, ptrdiff_t n,
                                  ptrdiff_t ldy, FN(loss_sum) *loss) {
    ptrdiff_t ldq = FN(padded)(a->q), m = a->stop - a->start;
    const REAL scale = (REAL)a->scale;
    for (ptrdiff_t r = 0; r < n * m; r++) {
        REAL *y = s->y + r * ldy;
        int64_t wanted = a->targets[(t0 + r / m) * a->N + a->start + r % m];
        if (wanted < 0) { /* does not count */
            if (a->dhs) FN(fill)(y, ldq, 0);
            continue;
        }
        REAL total = FN(add_loss)(loss, y, ldq, wanted);
        if (!a->dhs) continue;
        V by = FN(splat)(scale / total);
        for (ptrdiff_t j = 0; j < ldq; j += VL) FN(store)(y + j, FN(load)(y + j) * by);
        y[wanted] -= scale; /* eq. 7 */
        FN(add_row)(ldq, s->db, y);
    }
}

/* dhs and dW (+)= what the gradients of the logits of n time steps give (eqs. 9, 8). */
static void FN(output_gradients)(const output_arguments *a, const FN(packed_output) *p, const FN(output_space) *s,
                                 ptrdiff_t t0, ptrdiff_t n, ptrdiff_t ldy, int accumulate) {
    ptrdiff_t N = a->N, h = a->h, q = a->q, m = a->stop - a->start, k = n * m;
    for (ptrdiff_t t = 0, rows; t < k; t += rows) {
        ptrdiff_t place = ((t0 + t / m) * N + a->start) * h;
        rows = m == N ? k : m; /* of the whole batch, those of all steps follow one another */
        FN(times_panels)(rows, h, q, s->y + t * ldy, ldy, p->back, (REAL *)a->dhs + place, h, 0);
        FN(pack_rows)((const REAL *)a->hs + place, rows, h, t, k, s->panels);
    }
    FN(gemm)(q, h, k, s->y, 1, ldy, s->panels, NR, k * NR, a->dW, h, accumulate, NULL);
}

/* Loss, and gradients unless dhs is NULL. */
static double FN(output_loss)(const output_arguments *a) {
    ptrdiff_t T = a->T, q = a->q, m = a->stop - a->start, steps = FN(block_steps)(T, m);
    ptrdiff_t ldq = FN(padded)(q), ldy = FN(spread)(ldq);
    FN(packed_output) p = FN(output_panels)(a->packed, a->h, q);
    FN(output_space) s = FN(output_layout)(a->work, T, m, a->h, q);
    FN(loss_sum) loss = {0, 1, 0};
    if (a->dhs) {
        if (a->accumulate) FN(copy_padded)(s.db, a->db, q);
        else FN(fill)(s.db, ldq, 0);
    }
    for (ptrdiff_t t0 = 0; t0 < T; t0 += steps) {
        ptrdiff_t n = T - t0 < steps ? T - t0 : steps;
        FN(logits_block)(a, &p, t0, n, s.y, ldy);
        FN(loss_block)(a, &s, t0, n, ldy, &loss);
        if (a->dhs) FN(output_gradients)(a, &p, &s, t0, n, ldy, a->accumulate || t0);
    }
    if (a->dhs) FN(copy_row)(a->db, s.db, q);
    return loss.sum + log(loss.product);
}
