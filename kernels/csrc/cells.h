#ifndef FASTRNN_CELL_CODES
#define FASTRNN_CELL_CODES
enum { TANH, RELU, CELLS };
static const named_number cell_codes[] = {{"TANH", TANH}, {"RELU", RELU}, {NULL, CELLS}};
#endif

/* The cells: what a layer makes of its input and its state at one time step, and the way back.
 *
 * A cell is told by its code, TANH or RELU.  Inside a loop the code must be a literal, or FOR_CELL's CELL, so
 * that each loop is compiled once for each cell and none asks which it is.
 *
 *     h_t  = tanh(z_t) or max(z_t, 0),  z_t = input + recurrent                       (1)
 *     dz_t = dh_t (1 - h_t^2), or dh_t where h_t > 0                                  (10)
 */

/* Runs a statement in which CELL is the code, a constant.  A new cell gets a line here. */
#define FOR_CELL(code, ...)                                                                               \
    do {                                                                                                  \
        if ((code) == RELU) { enum { CELL = RELU }; __VA_ARGS__; }                                        \
        else { enum { CELL = TANH }; __VA_ARGS__; }                                                       \
    } while (0)

/* ---- the equations: one vector of hidden units ---------------------------------------------------------- */

/* h_t of z_t: these cells look at nothing but the sum, so that a product may be added to the input in place. */
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
