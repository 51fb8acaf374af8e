/* Vectors of one width and element type, for the files that are included once for each.
 *
 * The including file defines REAL (float or double), INT (the signed integer of its size), REAL_BITS,
 * VBYTES (vector width in bytes) and SUFFIX.  Every name below is made unique by SUFFIX.
 *
 * GCC and clang vectors do the work; where the compiler has none, a vector is one element and the
 * loops stay the same.
 */

#define FN_PASTE(name, suffix) name##_##suffix
#define FN_EXPAND(name, suffix) FN_PASTE(name, suffix)
#define FN(name) FN_EXPAND(name, SUFFIX)

/* Intel's name of an operation on vectors of this width. */
#if VBYTES == 64
#define X86_NAME(name) _mm512_##name
#elif VBYTES == 32
#define X86_NAME(name) _mm256_##name
#else
#define X86_NAME(name) _mm_##name
#endif

#define V FN(vec)
#define VI FN(ivec)
#define VU FN(uvec)

#if HAVE_VECTORS
typedef REAL V __attribute__((vector_size(VBYTES)));
typedef INT VI __attribute__((vector_size(VBYTES)));
typedef REAL VU __attribute__((vector_size(VBYTES), aligned(sizeof(REAL)), may_alias));
#define VL ((ptrdiff_t)(VBYTES / sizeof(REAL)))
#else
typedef REAL V;
typedef INT VI;
typedef REAL VU;
#define VL ((ptrdiff_t)1)
#endif

/* Registers of a matrix-vector tile, and rows and vectors of a matrix-matrix tile. */
#define GEMV_VECS 8
#define GEMM_ROWS (VBYTES == 64 ? 8 : 4)
#define GEMM_VECS 3
#define NR (GEMM_VECS * VL)

ALWAYS_INLINE V FN(load)(const REAL *p) { return *(const VU *)p; }
ALWAYS_INLINE void FN(store)(REAL *p, V x) { *(VU *)p = x; }

#if HAVE_VECTORS
ALWAYS_INLINE V FN(splat)(REAL x) { return x - (V){0}; }
ALWAYS_INLINE VI FN(bits)(V x) { return (VI)x; }
ALWAYS_INLINE V FN(from_bits)(VI x) { return (V)x; }
ALWAYS_INLINE VI FN(less)(V a, V b) { return a < b; }
#else
ALWAYS_INLINE V FN(splat)(REAL x) { return x; }
ALWAYS_INLINE VI FN(bits)(V x) { VI i; memcpy(&i, &x, sizeof i); return i; }
ALWAYS_INLINE V FN(from_bits)(VI i) { V x; memcpy(&x, &i, sizeof x); return x; }
ALWAYS_INLINE VI FN(less)(V a, V b) { return -(VI)(a < b); }
#endif

/* mask ? a : b, for a mask of all ones or all zeros in each element. */
ALWAYS_INLINE V FN(select)(VI mask, V a, V b) {
    return FN(from_bits)((mask & FN(bits)(a)) | (~mask & FN(bits)(b)));
}

/* All ones in the last n lanes. */
ALWAYS_INLINE VI FN(last_lanes)(ptrdiff_t n) {
#if HAVE_VECTORS
    VI mask = {0};
    for (ptrdiff_t l = 0; l < VL; l++) mask[l] = l >= VL - n ? -1 : 0;
    return mask;
#else
    return n ? -1 : 0;
#endif
}

/* The smaller of x and bound, and the larger.  NaN in x stays NaN: the comparison is false, and x is
 * taken; x86's instructions do just that. */
#if HAVE_X86 && REAL_BITS == 64
#define AT_MOST_X86 X86_NAME(min_pd)
#define AT_LEAST_X86 X86_NAME(max_pd)
#elif HAVE_X86
#define AT_MOST_X86 X86_NAME(min_ps)
#define AT_LEAST_X86 X86_NAME(max_ps)
#endif
#if HAVE_X86
ALWAYS_INLINE V FN(at_most)(V x, V bound) { return (V)AT_MOST_X86(bound, x); }
ALWAYS_INLINE V FN(at_least)(V x, V bound) { return (V)AT_LEAST_X86(bound, x); }
#undef AT_MOST_X86
#undef AT_LEAST_X86
#else
ALWAYS_INLINE V FN(at_most)(V x, V bound) { return FN(select)(FN(less)(bound, x), bound, x); }
ALWAYS_INLINE V FN(at_least)(V x, V bound) { return FN(select)(FN(less)(x, bound), bound, x); }
#endif

ALWAYS_INLINE V FN(absolute)(V x) {
    return FN(from_bits)(FN(bits)(x) & ~((VI){0} + SIGN_BIT));
}

/* Sum of the lanes, and the largest of them, in a tree where there are instructions for it: one after the
 * other takes as long as two exponentials. */
#if HAVE_X86 && VBYTES == 64 && REAL_BITS == 64
ALWAYS_INLINE REAL FN(sum)(V x) { return _mm512_reduce_add_pd((__m512d)x); }
ALWAYS_INLINE REAL FN(largest)(V x) { return _mm512_reduce_max_pd((__m512d)x); }
#elif HAVE_X86 && VBYTES == 64
ALWAYS_INLINE REAL FN(sum)(V x) { return _mm512_reduce_add_ps((__m512)x); }
ALWAYS_INLINE REAL FN(largest)(V x) { return _mm512_reduce_max_ps((__m512)x); }
#else
ALWAYS_INLINE REAL FN(sum)(V x) {
    REAL lanes[VBYTES / sizeof(REAL)], total = 0;
    FN(store)(lanes, x);
    for (ptrdiff_t i = 0; i < VL; i++) total += lanes[i];
    return total;
}

ALWAYS_INLINE REAL FN(largest)(V x) {
    REAL lanes[VBYTES / sizeof(REAL)];
    FN(store)(lanes, x);
    REAL m = lanes[0];
    for (ptrdiff_t i = 1; i < VL; i++) m = lanes[i] > m ? lanes[i] : m;
    return m;
}
#endif

/* Transposes VL vectors in registers: a perfect shuffle, log2(VL) times. */
#if HAVE_VECTORS && (defined(__clang__) || __GNUC__ >= 12)
#define HAVE_TRANSPOSE 1
#if VBYTES == 16 && REAL_BITS == 64
#define ZIP_LOW 0, 2
#define ZIP_HIGH 1, 3
#elif VBYTES * 8 / REAL_BITS == 4
#define ZIP_LOW 0, 4, 1, 5
#define ZIP_HIGH 2, 6, 3, 7
#elif VBYTES * 8 / REAL_BITS == 8
#define ZIP_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define ZIP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define ZIP_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ZIP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#endif
ALWAYS_INLINE void FN(transpose)(V *rows) {
    V zipped[VBYTES / sizeof(REAL)];
    for (ptrdiff_t stage = 1; stage < VL; stage *= 2) {
        for (ptrdiff_t i = 0; i < VL / 2; i++) {
            zipped[2 * i] = __builtin_shufflevector(rows[i], rows[i + VL / 2], ZIP_LOW);
            zipped[2 * i + 1] = __builtin_shufflevector(rows[i], rows[i + VL / 2], ZIP_HIGH);
        }
        for (ptrdiff_t i = 0; i < VL; i++) rows[i] = zipped[i];
    }
}
#undef ZIP_LOW
#undef ZIP_HIGH
#else
#define HAVE_TRANSPOSE 0
#endif
