/* The floor under one recurrent step: a bare matrix-vector product and the tanh of its result.
 *
 * bench_floor.py compiles it for this very machine, once for each element type.  The matrix comes
 * transposed and cut into panels of whole cache lines, so that it is read once, in order, at the full width
 * of the registers, into as many independent sums as hide the latency; nothing is checked, packed or copied.
 * The vectors and their tanh are those of the kernels.
 */
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HAVE_VECTORS 1
#define HAVE_X86 1
#define ALWAYS_INLINE static inline __attribute__((always_inline, unused))
#if defined(__AVX512F__)
#define VBYTES 64
#elif defined(__AVX__)
#define VBYTES 32
#else
#define VBYTES 16
#endif
#include "simd.h"
#include "elementary.h"

#define PANEL(vecs, ways)                                                                                 \
    while (left >= (vecs)) {                                                                              \
        V acc[(vecs) * (ways)];                                                                           \
        for (int v = 0; v < (vecs) * (ways); v++) acc[v] = FN(splat)(0);                                  \
        ptrdiff_t j = 0;                                                                                  \
        for (; j + (ways) <= h; j += (ways))                                                              \
            for (int u = 0; u < (ways); u++, w += (vecs) * VL)                                            \
                for (int v = 0; v < (vecs); v++)                                                          \
                    acc[u * (vecs) + v] += FN(splat)(state[j + u]) * FN(load)(w + v * VL);                \
        for (; j < h; j++, w += (vecs) * VL)                                                              \
            for (int v = 0; v < (vecs); v++) acc[v] += FN(splat)(state[j]) * FN(load)(w + v * VL);        \
        for (int u = 1; u < (ways); u++)                                                                  \
            for (int v = 0; v < (vecs); v++) acc[v] += acc[u * (vecs) + v];                               \
        for (int v = 0; v < (vecs); v++) FN(store)(out + v * VL, FN(tangent)(acc[v]));                    \
        out += (vecs) * VL;                                                                               \
        left -= (vecs);                                                                                   \
    }

/* Elements of a vector: a panel is 8, 4, 2 or 1 of them wide. */
ptrdiff_t lanes(void) { return VL; }

/* `steps` times state = tanh(W state); next is of state's size, padded to whole vectors. */
void recurrent_steps(ptrdiff_t steps, ptrdiff_t h, const REAL *panels, REAL *state, REAL *next) {
    for (ptrdiff_t t = 0; t < steps; t++) {
        const REAL *w = panels;
        REAL *out = next;
        ptrdiff_t left = (h + VL - 1) / VL;
        PANEL(8, 1)
        PANEL(4, 2)
        PANEL(2, 4)
        PANEL(1, 8)
        REAL *swap = state;
        state = next;
        next = swap;
    }
}
