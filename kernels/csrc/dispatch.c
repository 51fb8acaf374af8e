/* Compiles the loops once for each instruction set and chooses one when the library is loaded. */
#include "dispatch.h"
#include "team.h"

#include <math.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define HAVE_VECTORS 1
#define ALWAYS_INLINE static inline __attribute__((always_inline, unused))
#else
#define HAVE_VECTORS 0
#define ALWAYS_INLINE static __inline
#define restrict __restrict
#endif

#ifdef FASTRNN_SCALAR /* for tests: what a compiler without vector extensions builds */
#undef HAVE_VECTORS
#define HAVE_VECTORS 0
#endif

#if HAVE_VECTORS && (defined(__x86_64__) || defined(__i386__))
#define HAVE_X86 1
#include <immintrin.h>
#ifdef _MSC_VER
/* clang-cl: its immintrin.h leaves out what the command line's target lacks, and ours are set below. */
#include <smmintrin.h>
#include <avxintrin.h>
#include <avx2intrin.h>
#include <avx512fintrin.h>
#include <avx512dqintrin.h>
#endif
#else
#define HAVE_X86 0
#endif

/* Whether threads are so many more than parts that these are better shared by all, one after the other. */
static int parts_in_turn(const batch_parts *parts, int threads) { return 2 * threads >= 3 * parts->count; }

/* What is done with an element of a matrix-vector product before it is stored: products.h, finish. */
enum { EPILOGUE_ADD, EPILOGUE_CELL, EPILOGUE_SLOPE };

#define LEVEL baseline
#if HAVE_VECTORS
#define VBYTES 16
#else
#define VBYTES 8
#endif
#include "instruction_set.h"

/* MinGW's GCC does not align the stack to more than 16 bytes (its bug 54412): wider vectors would crash. */
#if HAVE_X86 && !defined(__MINGW32__)
#define WIDER_LEVELS 1

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define LEVEL avx2
#define VBYTES 32
#include "instruction_set.h"
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,fma,prefer-vector-width=512")
#endif
#define LEVEL avx512
#define VBYTES 64
#include "instruction_set.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif

typedef struct {
    const char *name;
    const element_loops *loops[2];
} level;

static level in_use;
static level found[3];
static const char *names[4];

static void add_level(int i, const char *name, const element_loops *f32, const element_loops *f64) {
    found[i].name = names[i] = name;
    found[i].loops[FLOAT32] = f32;
    found[i].loops[FLOAT64] = f64;
    names[i + 1] = NULL;
}

/* How many of the wider levels this processor and its operating system have: 0, 1 (AVX2) or 2 (AVX-512). */
#if defined(WIDER_LEVELS) && (defined(_MSC_VER) || defined(FASTRNN_CPUID))
/* clang-cl: what __builtin_cpu_supports reads is in a library that Microsoft's linker is not given.
 * FASTRNN_CPUID takes this way elsewhere, for tests. */
#include <cpuid.h>
static int wider_levels(void) {
    unsigned a, b, c, d, saved, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1) || !(c >> 28 & 1) || !(c >> 12 & 1))
        return 0; /* OSXSAVE, AVX, FMA */
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0)); /* which registers the system saves */
    if ((saved & 0x06) != 0x06 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b >> 5 & 1)) return 0; /* AVX2 */
    if ((saved & 0xe6) != 0xe6) return 1;
    return (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1) ? 2 : 1; /* AVX-512 F, DQ, BW, VL */
}
#elif defined(WIDER_LEVELS)
static int wider_levels(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")
               ? 2
               : 1;
}
#endif

/* Fills `found` with what this processor has; returns how many there are. */
static int detect(void) {
    int n = 0;
    add_level(n++, HAVE_VECTORS ? "baseline" : "scalar", &loops_f32_baseline, &loops_f64_baseline);
#ifdef WIDER_LEVELS
    int wider = wider_levels();
    if (wider >= 1) add_level(n++, "avx2", &loops_f32_avx2, &loops_f64_avx2);
    if (wider >= 2) add_level(n++, "avx512", &loops_f32_avx512, &loops_f64_avx512);
#endif
    return n;
}

int fastrnn_choose_simd(const char *name) {
    int n = detect();
    for (int i = n - 1; i >= 0; i--)
        if (!*name || !strcmp(name, found[i].name)) {
            in_use = found[i];
            return 0;
        }
    return -1;
}

const sequence_loops *fastrnn_sequence(int element_type) { return in_use.loops[element_type]->sequence; }

const batched_loops *fastrnn_batched(int element_type) { return in_use.loops[element_type]->batched; }

const optimizer *fastrnn_optimizers(int element_type) { return in_use.loops[element_type]->optimizers; }

const cell_numbers *fastrnn_cells(void) { return cell_table; }

const char *fastrnn_simd_level(void) { return in_use.name; }

const char *const *fastrnn_simd_levels(void) {
    detect();
    return names;
}

/* ---- updates by several threads ------------------------------------------------------------------------- */

/* Elements of a piece: whole vectors, so that each element is handled as it is in the whole array. */
enum { UPDATE_PIECE = 16384 };

typedef struct {
    const update_arguments *all;
    const update_loop *loops;
    const int *element_types;
} updates;

static ptrdiff_t pieces_of(const update_arguments *a) { return (a->n + UPDATE_PIECE - 1) / UPDATE_PIECE; }

static void update_piece(void *argument, ptrdiff_t index, int slot) {
    const updates *u = argument;
    ptrdiff_t i = 0;
    (void)slot;
    for (; index >= pieces_of(&u->all[i]); i++) index -= pieces_of(&u->all[i]);
    update_arguments piece = u->all[i];
    ptrdiff_t first = index * UPDATE_PIECE, bytes = first * (u->element_types[i] == FLOAT64 ? 8 : 4);
    piece.n = piece.n - first < UPDATE_PIECE ? piece.n - first : UPDATE_PIECE;
    piece.param = (char *)piece.param + bytes;
    piece.grad = (const char *)piece.grad + bytes;
    for (int s = 0; s < OPTIMIZER_STATES; s++)
        if (piece.state[s]) piece.state[s] = (char *)piece.state[s] + bytes;
    u->loops[i](&piece);
}

void fastrnn_update(ptrdiff_t count, const update_arguments *all, const update_loop *loops, const int *element_types,
                    int threads) {
    updates u = {all, loops, element_types};
    ptrdiff_t pieces = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        pieces += pieces_of(&all[i]);
        if (threads == 1) loops[i](&all[i]);
    }
    if (threads > 1) fastrnn_team_tasks(threads, pieces, update_piece, &u);
}

/* ---- copies by several threads -------------------------------------------------------------------------- */

static void copy_step(void *argument, ptrdiff_t t, int slot) {
    const copy_arguments *a = argument;
    const char *source = a->source + t * a->source_strides[0];
    char *out = a->out + t * a->out_strides[0];
    (void)slot;
    if (a->source_strides[1] == a->bytes && a->out_strides[1] == a->bytes) {
        memcpy(out, source, (size_t)(a->N * a->bytes));
        return;
    }
    for (ptrdiff_t n = 0; n < a->N; n++)
        memcpy(out + n * a->out_strides[1], source + n * a->source_strides[1], (size_t)a->bytes);
}

void fastrnn_copy(const copy_arguments *a, int threads) {
    fastrnn_team_tasks(threads, a->T, copy_step, (void *)a);
}

/* ---- what users give ------------------------------------------------------------------------------------ */

ptrdiff_t fastrnn_wrap_indices(ptrdiff_t n, const int64_t *indices, int64_t bound, int64_t *out) {
    for (ptrdiff_t i = 0; i < n; i++) {
        int64_t index = indices[i];
        if (index < 0) index += bound;
        if (index < 0 || index >= bound) return i;
        out[i] = index;
    }
    return -1;
}

ptrdiff_t fastrnn_copy_targets(ptrdiff_t n, const int64_t *targets, int64_t bound, int64_t ignored, int64_t *out) {
    ptrdiff_t counted = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        int counts = targets[i] != ignored;
        if (counts && (targets[i] < 0 || targets[i] >= bound)) return -1 - i;
        out[i] = counts ? targets[i] : -1;
        counted += counts;
    }
    return counted;
}
