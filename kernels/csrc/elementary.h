/* tanh, exp and sigmoid without branches, at most 2.5 units in the last place from the true value; tanh of float64 up
 * to 2.8, where it is between 0.17 and 0.2 (testing/ulps.py measures it).
 *
 * All start from  x = n ln2 + r,  |r| <= ln2 / 2,  expm1(r) = r + r^2 Q(r),  with Q a polynomial that
 * is the best in the largest error on that interval (found by Chebyshev interpolation in 60 digits).
 */

#if REAL_BITS == 64
#define ROUND_SHIFT 0x1.8p52
#define LOG2E 0x1.71547652b82fep+0
#define LN2_HIGH 0x1.62e42fefa38p-1
#define LN2_LOW 0x1.ef35793c7673p-45
#define EXP_LOWEST -746.0
#define EXP_HIGHEST 710.0
#define LARGEST 1.7976931348623157e308
#define TANH_FLAT 20.0
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#else
#define ROUND_SHIFT 0x1.8p23f
#define LOG2E 0x1.715476p+0f
#define LN2_HIGH 0x1.62ep-1f
#define LN2_LOW 0x1.0bfbe8p-15f
#define EXP_LOWEST -104.0f
#define EXP_HIGHEST 89.0f
#define LARGEST 3.40282346638528860e38f
#define TANH_FLAT 10.0f
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#endif

#define K(value) FN(splat)((REAL)(value))

/* Q(r), see above; grouped in pairs so that the chain of dependent operations is short. */
ALWAYS_INLINE V FN(expm1_tail)(V r) {
    V r2 = r * r;
#if REAL_BITS == 64
    V r4 = r2 * r2;
    V a = K(0x1.0000000000001p-1) + r * K(0x1.5555555555556p-3);
    V b = K(0x1.5555555553d4fp-5) + r * K(0x1.11111111109adp-7);
    V c = K(0x1.6c16c17893833p-10) + r * K(0x1.a01a01a7c8d47p-13);
    V d = K(0x1.a019b8ef67c6cp-16) + r * K(0x1.71de0d9c145d0p-19);
    V e = K(0x1.2891a8c1d838dp-22) + r * K(0x1.af38d53857513p-26);
    return (a + r2 * b) + r4 * ((c + r2 * d) + r4 * e);
#else
    V a = K(0x1.0000000b9847ep-1) + r * K(0x1.5555555a7c16bp-3);
    V b = K(0x1.5554e8d9c7d96p-5) + r * K(0x1.1110e0de7be2bp-7);
    V c = K(0x1.6d4362097d81ap-10) + r * K(0x1.a125285dbcbf1p-13);
    return a + r2 * (b + r2 * c);
#endif
}

/* Splits x into n and r; returns expm1(r). */
ALWAYS_INLINE V FN(reduced_expm1)(V x, VI *n) {
    V shifted = x * K(LOG2E) + K(ROUND_SHIFT);
    V whole = shifted - K(ROUND_SHIFT);
    V r = (x - whole * K(LN2_HIGH)) - whole * K(LN2_LOW);
    *n = FN(bits)(shifted) - FN(bits)(K(ROUND_SHIFT));
    return r + (r * r) * FN(expm1_tail)(r);
}

/* 2^n, for n in the range of normal exponents. */
ALWAYS_INLINE V FN(power_of_two)(VI n) { return FN(from_bits)((n + EXPONENT_BIAS) << MANTISSA_BITS); }

/* x 2^n, also where the result is denormal or infinite. */
ALWAYS_INLINE V FN(scaled)(V x, VI n) {
#if HAVE_X86 && VBYTES == 64 && REAL_BITS == 64
    return (V)_mm512_scalef_pd((__m512d)x, _mm512_cvtepi64_pd((__m512i)n));
#elif HAVE_X86 && VBYTES == 64
    return (V)_mm512_scalef_ps((__m512)x, _mm512_cvtepi32_ps((__m512i)n));
#else
    VI half = n >> 1; /* one factor could not be represented */
    return x * FN(power_of_two)(half) * FN(power_of_two)(n - half);
#endif
}

ALWAYS_INLINE V FN(exponential)(V x) {
    VI n;
    x = FN(at_most)(FN(at_least)(x, K(EXP_LOWEST)), K(EXP_HIGHEST));
    V p = FN(reduced_expm1)(x, &n);
    return FN(scaled)(p + 1, n);
}

/* tanh x = E / (E + 2),  E = expm1(2 |x|) = 2^n expm1(r) + (2^n - 1),  with the sign of x. */
ALWAYS_INLINE V FN(tangent)(V x) {
    VI n, sign = FN(bits)(x) & ((VI){0} + SIGN_BIT);
    V y = FN(at_most)(FN(absolute)(x), K(TANH_FLAT));
    V p = FN(reduced_expm1)(y + y, &n);
    V s = FN(power_of_two)(n);
    V e = s * p + (s - 1);
    return FN(from_bits)(FN(bits)(e / (e + 2)) | sign);
}

/* sigmoid x = 1 / (1 + exp(-x)),  of e = exp(-|x|), which cannot overflow: 1 / (1 + e) or e / (1 + e). */
ALWAYS_INLINE V FN(sigmoid)(V x) {
    VI n;
    V p = FN(reduced_expm1)(FN(at_least)(-FN(absolute)(x), K(EXP_LOWEST)), &n);
    V e = FN(scaled)(p + 1, n);
    return FN(select)(FN(less)(x, K(0)), e, K(1)) / (1 + e);
}
