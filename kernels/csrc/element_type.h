/* The loops for one element type and one instruction set; see dispatch.c. */
#include "simd.h"
#include "elementary.h"
#include "linalg.h"
#include "rnn.h"
#include "batched.h"
#include "optimizers.h"

static const element_loops FN(loops) = {&FN(rnn_loops), &FN(batched_loops), FN(optimizers)};

#undef REAL
#undef INT
#undef REAL_BITS
#undef SIGN_BIT
#undef SUFFIX
#undef FN_PASTE
#undef FN_EXPAND
#undef FN
#undef X86_NAME
#undef V
#undef VI
#undef VU
#undef VL
#undef GEMV_VECS
#undef GEMM_ROWS
#undef GEMM_VECS
#undef NR
#undef HAVE_TRANSPOSE
#undef ROUND_SHIFT
#undef LOG2E
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_LOWEST
#undef EXP_HIGHEST
#undef TANH_FLAT
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef K
#undef GEMV_PANEL
#undef GEMM_CASE
#undef ROWS
#undef BLOCK
#undef PACK_FROM
#undef STRIP
#undef KROWS
