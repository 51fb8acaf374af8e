/* Rows of elements: copied, filled, added up; and where they lie in work space.
 *
 * A row of n elements that is padded has room for whole vectors, padded(n) elements, the last of them zero.
 */

ALWAYS_INLINE ptrdiff_t FN(larger)(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

ALWAYS_INLINE ptrdiff_t FN(padded)(ptrdiff_t n) { return (n + VL - 1) / VL * VL; }

/* ---- work space ----------------------------------------------------------------------------------------- */

/* Where arrays may begin in memory that the caller gives, or NULL. */
static REAL *FN(aligned)(void *memory) {
    return memory ? (REAL *)(((uintptr_t)memory + 63) & ~(uintptr_t)63) : NULL;
}

/* The next n elements; with base = NULL they are only counted. */
static REAL *FN(take)(REAL *base, ptrdiff_t *used, ptrdiff_t n) {
    REAL *p = base ? base + *used : NULL;
    *used += (n + 63) / 64 * 64;
    return p;
}

/* Likewise n integers, counted in elements. */
static void *FN(take_integers)(REAL *base, ptrdiff_t *used, ptrdiff_t n) {
    return FN(take)(base, used, n * (ptrdiff_t)(sizeof(int64_t) / sizeof(REAL)));
}

/* ---- rows ----------------------------------------------------------------------------------------------- */

ALWAYS_INLINE void FN(fill)(REAL *p, ptrdiff_t n, REAL value) {
    for (ptrdiff_t i = 0; i < n; i++) p[i] = value;
}

/* Fewer elements than a vector has.  (Of a loop over them GCC makes a call, or `rep movs`, which takes longer.) */
ALWAYS_INLINE void FN(copy_few)(REAL *dst, const REAL *src, ptrdiff_t n) {
    for (ptrdiff_t part = VL / 2; part; part /= 2)
        if (n & part) {
            memcpy(dst, src, (size_t)part * sizeof(REAL));
            dst += part;
            src += part;
        }
}

/* The first n of a vector's elements, from 1 to all; zeros in the place of the others. */
ALWAYS_INLINE V FN(load_first)(const REAL *src, ptrdiff_t n) {
    if (n == VL) return FN(load)(src);
#if HAVE_X86 && VBYTES == 64 && REAL_BITS == 64
    return (V)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), src);
#elif HAVE_X86 && VBYTES == 64
    return (V)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), src);
#else
    REAL lanes[VBYTES / sizeof(REAL)] = {0};
    FN(copy_few)(lanes, src, n);
    return FN(load)(lanes);
#endif
}
ALWAYS_INLINE void FN(store_first)(REAL *dst, V x, ptrdiff_t n) {
    if (n == VL) {
        FN(store)(dst, x);
        return;
    }
#if HAVE_X86 && VBYTES == 64 && REAL_BITS == 64
    _mm512_mask_storeu_pd(dst, (__mmask8)((1u << n) - 1), (__m512d)x);
#elif HAVE_X86 && VBYTES == 64
    _mm512_mask_storeu_ps(dst, (__mmask16)((1u << n) - 1), (__m512)x);
#else
    REAL lanes[VBYTES / sizeof(REAL)];
    FN(store)(lanes, x);
    FN(copy_few)(dst, lanes, n);
#endif
}

ALWAYS_INLINE void FN(copy_row)(REAL *dst, const REAL *src, ptrdiff_t n) {
    ptrdiff_t j = 0;
    for (; j + VL <= n; j += VL) FN(store)(dst + j, FN(load)(src + j));
    FN(copy_few)(dst + j, src + j, n - j);
}

/* As copy_row, and fills the rest of `width` elements, whole vectors, with zeros. */
ALWAYS_INLINE void FN(copy_widened)(REAL *dst, const REAL *src, ptrdiff_t n, ptrdiff_t width) {
    ptrdiff_t j = 0;
    for (; j + VL <= n; j += VL) FN(store)(dst + j, FN(load)(src + j));
    for (ptrdiff_t i = j; i < width; i += VL) FN(store)(dst + i, K(0));
    FN(copy_few)(dst + j, src + j, n - j);
}

ALWAYS_INLINE void FN(copy_padded)(REAL *dst, const REAL *src, ptrdiff_t n) {
    FN(copy_widened)(dst, src, n, FN(padded)(n));
}

/* sum (ld) += row. */
ALWAYS_INLINE void FN(add_row)(ptrdiff_t ld, REAL *sum, const REAL *row) {
    for (ptrdiff_t i = 0; i < ld; i += VL) FN(store)(sum + i, FN(load)(sum + i) + FN(load)(row + i));
}

static int FN(all_finite)(const REAL *p, ptrdiff_t n) {
    V acc[4] = {K(0), K(0), K(0), K(0)}; /* 0 x is 0 or NaN */
    ptrdiff_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int v = 0; v < 4; v++) acc[v] += K(0) * FN(load)(p + i + v * VL);
    REAL s = FN(sum)((acc[0] + acc[1]) + (acc[2] + acc[3]));
    for (; i < n; i++) s += 0 * p[i];
    return s == 0;
}
