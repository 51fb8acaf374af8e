/* What is done to gradients after they are computed: clipped, and the parts of a batch added up. */

ALWAYS_INLINE V FN(clamp)(V x, V limit) { return FN(at_least)(FN(at_most)(x, limit), -limit); }

/* NaN stays. */
ALWAYS_INLINE REAL FN(clamp_one)(REAL x, REAL limit) { return x > limit ? limit : x < -limit ? -limit : x; }

/* g (n) becomes clamp(g, limit), in place. */
static void FN(clip_values)(ptrdiff_t n, REAL *g, REAL limit) {
    V bound = FN(splat)(limit);
    ptrdiff_t i = 0;
    for (; i + VL <= n; i += VL) FN(store)(g + i, FN(clamp)(FN(load)(g + i), bound));
    for (; i < n; i++) g[i] = FN(clamp_one)(g[i], limit);
}

static void FN(multiply)(ptrdiff_t n, REAL *g, REAL factor) {
    for (ptrdiff_t i = 0; i < n; i++) g[i] *= factor;
}

ALWAYS_INLINE REAL FN(sum_of_squares)(const REAL *g, ptrdiff_t n) {
    V acc[4] = {K(0), K(0), K(0), K(0)};
    ptrdiff_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int v = 0; v < 4; v++) {
            V x = FN(load)(g + i + v * VL);
            acc[v] += x * x;
        }
    REAL s = FN(sum)((acc[0] + acc[1]) + (acc[2] + acc[3]));
    for (; i < n; i++) s += g[i] * g[i];
    return s;
}

/* Whether a sum of squares is one that REAL holds: numbers beyond, or far below, have squares that are lost. */
ALWAYS_INLINE int FN(is_ordinary)(double squares) {
    return squares > (sizeof(REAL) == sizeof(float) ? 1e-30 : 1e-290) && squares < (double)INFINITY;
}

/* By which numbers are multiplied before double holds their squares, of which a sum in REAL is not ordinary. */
ALWAYS_INLINE double FN(unit)(double squares) {
    return sizeof(REAL) == sizeof(float) ? 1 : squares > 1 ? 0x1p-600 : 0x1p600;
}

static double FN(squares_in_unit)(const REAL *g, ptrdiff_t n, double unit) {
    double squares = 0;
    for (ptrdiff_t i = 0; i < n; i++) squares += (double)g[i] * unit * ((double)g[i] * unit);
    return squares;
}

/* The sum of the parts of a batch, in chunks that are taken by whoever is free. */
enum { FN(CHUNKS) = 64 };

typedef struct {
    ptrdiff_t parts, n, chunk; /* elements of a chunk: pieces of 512 */
    const REAL *g;
    REAL *out;
    double squares[FN(CHUNKS)]; /* of each chunk, added up in their order, whoever made them */
    int clip;
    REAL limit;  /* to which values are clamped, or with which they are multiplied */
    int at_once; /* values are clamped as soon as their squares are summed up */
} FN(reduction);

static void FN(add_chunk)(void *argument, ptrdiff_t index, int slot) {
    FN(reduction) *r = argument;
    ptrdiff_t first = index * r->chunk, end = r->n - first < r->chunk ? r->n : first + r->chunk, n = r->n;
    const REAL *g = r->g;
    REAL *out = r->out;
    double squares = 0;
    (void)slot;
    for (ptrdiff_t i = first; i < end; i += 512) { /* a piece at a time, for the sake of precision */
        ptrdiff_t stop = end - i < 512 ? end : i + 512;
        if (out != g) FN(copy_row)(out + i, g + i, stop - i);
        for (ptrdiff_t part = 1; part < r->parts; part++) {
            ptrdiff_t j = i;
            for (; j + VL <= stop; j += VL) FN(store)(out + j, FN(load)(out + j) + FN(load)(g + part * n + j));
            for (; j < stop; j++) out[j] += g[part * n + j];
        }
        squares += (double)FN(sum_of_squares)(out + i, stop - i);
        if (r->at_once) FN(clip_values)(stop - i, out + i, r->limit);
    }
    r->squares[index] = squares;
}

static void FN(clip_chunk)(void *argument, ptrdiff_t index, int slot) {
    FN(reduction) *r = argument;
    ptrdiff_t first = index * r->chunk, n = r->n - first < r->chunk ? r->n - first : r->chunk;
    (void)slot;
    if (r->clip == CLIP_VALUE) FN(clip_values)(n, r->out + first, r->limit);
    else FN(multiply)(n, r->out + first, r->limit);
}

/* out = sum of parts (P, n), clipped; returns the norm before (eq. 15). */
static double FN(reduce_gradients)(ptrdiff_t parts, ptrdiff_t n, const void *gradients, int clip, double threshold,
                                   void *sum, int threads) {
    REAL *out = sum;
    FN(reduction) r = {parts, n, (n / FN(CHUNKS) / 512 + 1) * 512, gradients, out, {0}, clip, (REAL)threshold,
                       clip == CLIP_VALUE && out != gradients};
    ptrdiff_t chunks = (n + r.chunk - 1) / r.chunk;
    double squares = 0;
    fastrnn_team_tasks(threads, chunks, FN(add_chunk), &r);
    for (ptrdiff_t i = 0; i < chunks; i++) squares += r.squares[i];
    double norm = sqrt(squares);
    if (!FN(is_ordinary)(squares) && r.at_once) { /* once more, to look at the sums as they were */
        r.at_once = 0;
        fastrnn_team_tasks(threads, chunks, FN(add_chunk), &r);
    }
    if (!FN(is_ordinary)(squares) && FN(all_finite)(out, n)) {
        double unit = FN(unit)(squares);
        norm = sqrt(FN(squares_in_unit)(out, n, unit)) / unit;
    }
    if (clip == CLIP_NORM) r.limit = (REAL)(threshold / norm);
    if ((clip == CLIP_VALUE && !r.at_once) || (clip == CLIP_NORM && !(norm <= threshold)))
        fastrnn_team_tasks(threads, chunks, FN(clip_chunk), &r);
    return norm;
}
