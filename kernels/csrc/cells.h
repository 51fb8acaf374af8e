#ifndef FASTRNN_CELL_CODES
#define FASTRNN_CELL_CODES
enum { TANH, RELU, GRU, LSTM, CELLS };
static const cell_numbers cell_table[] = {
    {"TANH", TANH, 1, 1, 0}, {"RELU", RELU, 1, 1, 0}, {"GRU", GRU, 3, 1, 4}, {"LSTM", LSTM, 4, 2, 5}, {NULL, CELLS, 0, 0, 0},
};
#endif

/* The cells: what a layer makes of its input and its state at one time step, and the way back.
 *
 * A cell is told by its code.  Inside a loop the code must be a literal, or the CELL of FOR_CELL or FOR_GATED, so
 * that each loop is compiled once for each cell and none asks which it is.
 *
 * TANH, RELU: h_t  = tanh(z_t) or max(z_t, 0),  z_t = input + recurrent                (1)
 *             dz_t = dh_t (1 - h_t^2), or dh_t where h_t > 0                           (10)
 *
 * The others have gates; numpy_kernels/cells.py has the papers.
 *
 * GRU:        r, z = sigmoid(input + recurrent),  n = tanh(input_n + r recurrent_n)
 *             h_t  = (1 - z) n + z h_{t-1}
 * LSTM:       i, f, o = sigmoid(z_t),  g = tanh(z_t)
 *             c_t  = f c_{t-1} + i g,  h_t = o tanh(c_t)
 *
 * A row z_t of these has a block of h elements for each sum: those of the input come first, those of the state last,
 * and where the blocks overlap, the sums are added up.
 *
 *     TANH, RELU  z          both in one
 *     LSTM        i f g o    both in all four
 *     GRU         n r z m    the input's n, r, z; the state's r, z, m = recurrent_n
 *
 * So the rows of the input's weights are taken in the order n, r, z: see input_runs.
 */

/* Runs a statement in which CELL is the code, a constant.  A new cell gets a line here. */
#define FOR_CELL(code, ...)                                                                               \
    do {                                                                                                  \
        if ((code) == RELU) { enum { CELL = RELU }; __VA_ARGS__; }                                        \
        else { enum { CELL = TANH }; __VA_ARGS__; }                                                       \
    } while (0)

/* The same for cells with gates. */
#define FOR_GATED(code, ...)                                                                              \
    do {                                                                                                  \
        if ((code) == LSTM) { enum { CELL = LSTM }; __VA_ARGS__; }                                        \
        else { enum { CELL = GRU }; __VA_ARGS__; }                                                        \
    } while (0)

#define MOST_BLOCKS 4
#define MOST_KEPT 5

/* ---- where the gates are -------------------------------------------------------------------------------- */

ALWAYS_INLINE int FN(has_gates)(int cell) { return cell_table[cell].gates > 1; }

/* Columns that the product of a matrix of the layer has. */
ALWAYS_INLINE ptrdiff_t FN(gates)(int cell, ptrdiff_t h) { return cell_table[cell].gates * h; }

/* Elements of a row z_t. */
ALWAYS_INLINE ptrdiff_t FN(blocks)(int cell, ptrdiff_t h) { return (FN(has_gates)(cell) ? MOST_BLOCKS : 1) * h; }

/* Where the part of the state begins in z_t. */
ALWAYS_INLINE ptrdiff_t FN(recurrent_part)(int cell, ptrdiff_t h) { return FN(blocks)(cell, h) - FN(gates)(cell, h); }

/* Elements of a row z_t with room for whole vectors, wherever its parts begin. */
ALWAYS_INLINE ptrdiff_t FN(row_size)(int cell, ptrdiff_t h) {
    return FN(padded)(FN(blocks)(cell, h)) + (FN(recurrent_part)(cell, h) ? VL : 0);
}

/* Elements of what is kept of a step. */
ALWAYS_INLINE ptrdiff_t FN(kept_size)(int cell, ptrdiff_t h) { return cell_table[cell].kept * h; }

/* Rows that follow each other in z_t and in the weights of the input: `n` of them, from `z` and from `w` on. */
typedef struct {
    ptrdiff_t z, w, n;
} FN(run);

/* How they lie in runs; returns their number. */
ALWAYS_INLINE int FN(input_runs)(int cell, ptrdiff_t h, FN(run) *runs) {
    if (cell == GRU) { /* r, z, n there and n, r, z here */
        runs[0] = (FN(run)){0, 2 * h, h};
        runs[1] = (FN(run)){h, 0, 2 * h};
        return 2;
    }
    runs[0] = (FN(run)){0, 0, FN(gates)(cell, h)};
    return 1;
}

/* ---- the equations: one vector of hidden units ---------------------------------------------------------- */

/* h_t of z_t: cells with one gate look at nothing but the sum, so that a product may be added to the input in
 * place. */
ALWAYS_INLINE V FN(cell_of_sum)(int cell, V z) {
    if (cell == RELU) return FN(at_least)(z, K(0));
    return FN(tangent)(z);
}

/* h_t of  input = W_ih x_t + b_ih  and  recurrent = W_hh h_{t-1} + b_hh. */
ALWAYS_INLINE V FN(cell_forward)(int cell, V input, V recurrent) { return FN(cell_of_sum)(cell, recurrent + input); }

/* dz_t of dh_t, from the state h_t. */
ALWAYS_INLINE V FN(cell_backward)(int cell, V h, V dh) {
    if (cell == RELU) return FN(select)(FN(less)(K(0), h), dh, dh * K(0));
    return dh * (1 - h * h);
}

/* h_t of the blocks z of z_t, and what is to be kept, from `before`: h_{t-1} of a GRU, c_{t-1} of an LSTM. */
ALWAYS_INLINE V FN(gated_forward)(int cell, const V *z, V before, V *kept) {
    if (cell == LSTM) {
        V i = FN(sigmoid)(z[0]), f = FN(sigmoid)(z[1]), g = FN(tangent)(z[2]), o = FN(sigmoid)(z[3]);
        V c = f * before + i * g;
        kept[0] = i, kept[1] = f, kept[2] = g, kept[3] = o, kept[4] = c;
        return o * FN(tangent)(c);
    }
    V r = FN(sigmoid)(z[1]), u = FN(sigmoid)(z[2]), n = FN(tangent)(z[0] + r * z[3]);
    kept[0] = r, kept[1] = u, kept[2] = n, kept[3] = z[3];
    return (1 - u) * n + u * before;
}

/* Blocks dz of dz_t.  `carry` is that part of the gradient of the states which does not go by a product: on the way
 * in, of an LSTM, dc_t as the steps behind have it; on the way out dc_{t-1}, of a GRU dh_{t-1}. */
ALWAYS_INLINE void FN(gated_backward)(int cell, const V *kept, V before, V dh, V *carry, V *dz) {
    if (cell == LSTM) {
        V i = kept[0], f = kept[1], g = kept[2], o = kept[3], t = FN(tangent)(kept[4]);
        V dc = *carry + dh * o * (1 - t * t);
        dz[0] = dc * g * (i * (1 - i));
        dz[1] = dc * before * (f * (1 - f));
        dz[2] = dc * i * (1 - g * g);
        dz[3] = dh * t * (o * (1 - o));
        *carry = dc * f;
        return;
    }
    V r = kept[0], u = kept[1], n = kept[2], m = kept[3];
    V dn = dh * (1 - u) * (1 - n * n);
    dz[0] = dn;
    dz[1] = dn * m * (r * (1 - r));
    dz[2] = dh * (before - n) * (u * (1 - u));
    dz[3] = dn * r;
    *carry = dh * u;
}

/* ---- rows of them --------------------------------------------------------------------------------------- */

/* z (n) becomes h, in place. */
ALWAYS_INLINE void FN(apply_cell)(int cell, ptrdiff_t n, REAL *z) {
    ptrdiff_t i = 0;
    for (; i + VL <= n; i += VL) FN(store)(z + i, FN(cell_of_sum)(cell, FN(load)(z + i)));
    if (i < n) {
        REAL tail[VBYTES / sizeof(REAL)] = {0};
        FN(copy_row)(tail, z + i, n - i);
        FN(store)(tail, FN(cell_of_sum)(cell, FN(load)(tail)));
        FN(copy_row)(z + i, tail, n - i);
    }
}

/* dh (n, padded with zeros, which stay) becomes dz, in place, from the states h (n). */
ALWAYS_INLINE void FN(apply_slope)(int cell, ptrdiff_t n, const REAL *h, REAL *dh) {
    ptrdiff_t i = 0;
    for (; i + VL <= n; i += VL) FN(store)(dh + i, FN(cell_backward)(cell, FN(load)(h + i), FN(load)(dh + i)));
    if (i < n) {
        REAL tail[VBYTES / sizeof(REAL)] = {0};
        FN(copy_row)(tail, h + i, n - i);
        FN(store)(dh + i, FN(cell_backward)(cell, FN(load)(tail), FN(load)(dh + i)));
    }
}

/* Hidden units from .. end, whole vectors but for the last, of h_t of a row z; with c, that becomes c_t of c_{t-1},
 * else `before` is h_{t-1}, and may be h_t's place.  `kept` is NULL where nothing is to be kept. */
ALWAYS_INLINE void FN(gated_row)(int cell, ptrdiff_t h, ptrdiff_t from, ptrdiff_t end, const REAL *z,
                                 const REAL *before, REAL *c, REAL *out, REAL *kept) {
    for (ptrdiff_t j = from; j < end; j += VL) {
        ptrdiff_t n = end - j < VL ? end - j : VL;
        V blocks[MOST_BLOCKS], keep[MOST_KEPT];
        for (int b = 0; b < MOST_BLOCKS; b++) blocks[b] = FN(load_first)(z + b * h + j, n);
        V now = FN(gated_forward)(cell, blocks, FN(load_first)((cell == LSTM ? c : before) + j, n), keep);
        FN(store_first)(out + j, now, n);
        if (cell == LSTM) FN(store_first)(c + j, keep[4], n);
        if (kept)
            for (int b = 0; b < cell_table[cell].kept; b++) FN(store_first)(kept + b * h + j, keep[b], n);
    }
}

/* Hidden units from .. end likewise of a row dz of dh (h); carry (h) is overwritten. */
ALWAYS_INLINE void FN(gated_slopes)(int cell, ptrdiff_t h, ptrdiff_t from, ptrdiff_t end, const REAL *kept,
                                    const REAL *before, const REAL *dh, REAL *carry, REAL *dz) {
    for (ptrdiff_t j = from; j < end; j += VL) {
        ptrdiff_t n = end - j < VL ? end - j : VL;
        V blocks[MOST_BLOCKS], keep[MOST_KEPT], rest = FN(load_first)(carry + j, n);
        for (int b = 0; b < cell_table[cell].kept; b++) keep[b] = FN(load_first)(kept + b * h + j, n);
        FN(gated_backward)(cell, keep, FN(load_first)(before + j, n), FN(load_first)(dh + j, n), &rest, blocks);
        FN(store_first)(carry + j, rest, n);
        for (int b = 0; b < MOST_BLOCKS; b++) FN(store_first)(dz + b * h + j, blocks[b], n);
    }
}
