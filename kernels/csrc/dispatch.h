/* What the Python side hands to the loops, and the table of loops that was chosen for this processor.
 *
 * Dimension letters: T time steps, d input size, h hidden size, q output size.  Every array is
 * C-contiguous; pointers are to float or double, as the element type of the table entry says.
 */
#ifndef FASTRNN_DISPATCH_H
#define FASTRNN_DISPATCH_H

#include <stddef.h>
#include <stdint.h>

/* The numbers of fastrnn.kernels, with which these are compared when the module is loaded.  How gradients are
 * clipped; */
enum { CLIP_NONE, CLIP_STEP, CLIP_VALUE, CLIP_NORM };

/* the codes of the cells, their gates, states, and numbers kept for each hidden unit, a table in cells.h that ends
 * with no name; */
typedef struct {
    const char *name;
    int number, gates, states, kept;
} cell_numbers;
const cell_numbers *fastrnn_cells(void);
enum { STATES = 2 }; /* the most that a cell has */

/* time steps of one sequence from which on its matrices are packed: for fewer they are used as they are. */
enum { PACK_FROM = 8 };

/* for which passes a layer's weights are packed. */
enum { PACK_FORWARD = 1, PACK_BACKWARD = 2 };

/* Parameters or their gradients, in this order: Wxh (h,d), Whh (h,h), Why (q,h), bh (h), by (q). */
enum { WXH, WHH, WHY, BH, BY, PARAMETERS };

typedef struct {
    ptrdiff_t T, d, h, q;
    const void *params[PARAMETERS];
    const int64_t *indices; /* (T), or NULL where x is given */
    const void *x;          /* (T,d), or NULL where indices are given */
    const int64_t *targets; /* (T) */
    void *hs;               /* (T+1,h), row 0 the state before the first input */
    void *ps;               /* (T,q) */
    void *grads[PARAMETERS];
    int clip;
    double threshold;
    void *work;  /* of fastrnn_workspace_size elements */
    int threads; /* the most that share a call: see team.h */
} sequence_arguments;

typedef struct {
    ptrdiff_t (*workspace_size)(ptrdiff_t T, ptrdiff_t d, ptrdiff_t h, ptrdiff_t q);
    void (*forward)(const sequence_arguments *);
    void (*backward)(const sequence_arguments *);
    double (*loss_and_grads)(const sequence_arguments *);
    double (*train_step)(const sequence_arguments *, double lr);
    /* h (h) is overwritten; returns how many indices were drawn. */
    ptrdiff_t (*sample)(const sequence_arguments *, void *h, int64_t start, const double *uniforms, int64_t *out);
    void (*update)(ptrdiff_t n, void *w, const void *g, double lr);
    /* For tests: element-wise functions, in place. */
    void (*tanh)(ptrdiff_t n, void *x);
    void (*exp)(ptrdiff_t n, void *x);
    void (*sigmoid)(ptrdiff_t n, void *x);
    /* The recurrent part alone, states in place: hs[t] = tanh(hs[t] + Whh hs[t-1]). */
    void (*recurrence)(const sequence_arguments *);
} sequence_loops;

/* Parts of a batch, rows bounds[i][0] .. bounds[i][1] each, that threads take as whole ones: with work space for each
 * thread, and sums of gradients for each part. */
enum { MOST_PARTS = 16, PART_GRADIENTS = 4 };

typedef struct {
    ptrdiff_t count, bounds[MOST_PARTS][2];
    void *works[MOST_PARTS];
    void *gradients[MOST_PARTS][PART_GRADIENTS]; /* in the order of the arguments' */
    double results[MOST_PARTS];
} batch_parts;

/* A layer over N sequences; see numpy_kernels/layer.py.  Pointers to what is not given are NULL. */
typedef struct {
    ptrdiff_t T, N, d, h;
    const void *W_ih, *W_hh, *b_ih, *b_hh;
    void *packed;           /* of pack_layer, or NULL: the weights are used as they are */
    int one_hot, passes;    /* pack_layer: inputs will be class indices; what it packs for */
    const int64_t *indices; /* (T,N) */
    const void *x;          /* (T,N,d) */
    const int64_t *lengths; /* (N) */
    const void *h0[STATES]; /* (N,h) each, and so the others of each state */
    void *hs;               /* (T,N,h) */
    void *kept;             /* (T,N,kept,h) */
    void *h_n[STATES];
    const void *dhs;        /* (T,N,h) */
    const void *dh_n[STATES];
    void *dx;               /* (T,N,d) */
    void *dh0[STATES];
    void *d_states[STATES]; /* (T,N,h) */
    void *dW_ih, *dW_hh, *db_ih, *db_hh;
    int accumulate, cell, reverse;
    ptrdiff_t start, stop;
    void *work;
    int threads;        /* the most that share a call: see team.h */
    batch_parts *parts; /* or NULL: then start, stop and work hold */
} layer_arguments;

/* What the output layer is trained for: see losses.h. */
enum { CROSS_ENTROPY, SQUARED_ERROR, GAUSSIAN, LOSSES };

/* The output layer over N sequences. */
typedef struct {
    ptrdiff_t T, N, h, q;
    const void *W, *b;
    void *packed;
    const void *hs;         /* (T,N,h) */
    int loss;
    const int64_t *classes; /* (T,N), negative where nothing counts */
    const void *values;     /* (T,N,q), or for GAUSSIAN (T,N,q/2) */
    const void *weights;    /* (T,N) of each row's loss, or NULL for ones */
    void *logits;           /* (T,N,q) */
    int probabilities;      /* whether their softmax is to stand there */
    double scale;
    void *dhs; /* (T,N,h) */
    void *dW, *db;
    int accumulate;
    ptrdiff_t start, stop;
    void *work;
    int threads;
    batch_parts *parts;
} output_arguments;

/* N sequences that feed on what is drawn. */
typedef struct {
    ptrdiff_t layers, N, n, h, q;
    void *const *packed; /* of each layer */
    void *packed_output;
    const void *W;
    void *states[STATES];   /* (layers,N,h) */
    const int64_t *first;   /* (N) */
    const double *uniforms; /* (N,n) */
    double temperature, top_p;
    ptrdiff_t top_k;
    int64_t *out; /* (N,n) */
    int cell;
    ptrdiff_t start, stop;
    void *work;
    int threads;
    batch_parts *parts;
} sample_arguments;

typedef struct {
    void (*layer_sizes)(ptrdiff_t T, ptrdiff_t rows, ptrdiff_t d, ptrdiff_t h, int cell, ptrdiff_t *packed,
                        ptrdiff_t *work);
    void (*output_sizes)(ptrdiff_t T, ptrdiff_t rows, ptrdiff_t h, ptrdiff_t q, ptrdiff_t *packed, ptrdiff_t *work);
    ptrdiff_t (*sample_size)(ptrdiff_t N, ptrdiff_t rows, ptrdiff_t h, ptrdiff_t q, int cell);
    void (*pack_layer)(const layer_arguments *);
    void (*pack_output)(const output_arguments *);
    void (*layer_forward)(const layer_arguments *);
    void (*layer_backward)(const layer_arguments *);
    void (*output_logits)(const output_arguments *);
    double (*output_loss)(const output_arguments *);
    double (*reduce_gradients)(ptrdiff_t parts, ptrdiff_t n, const void *gradients, int clip, double threshold,
                               void *sum, int threads);
    ptrdiff_t (*sample_batch)(const sample_arguments *);
} batched_loops;

/* One optimizer's update of n parameters: see optimizers.h. */
enum { OPTIMIZER_STATES = 4, OPTIMIZER_NUMBERS = 16 };

typedef struct {
    ptrdiff_t n;
    void *param;
    const void *grad;
    void *state[OPTIMIZER_STATES]; /* NULL where there is none */
    const double *numbers;
} update_arguments;

typedef void (*update_loop)(const update_arguments *);

typedef struct {
    const char *name; /* NULL ends the table */
    update_loop loop;
    int states, numbers;
} optimizer;

enum { FLOAT32, FLOAT64 };

/* All loops for one element type and one instruction set. */
typedef struct {
    const sequence_loops *sequence;
    const batched_loops *batched;
    const optimizer *optimizers;
} element_loops;

/* One optimizer's update of some arrays of parameters, cut into pieces that threads share. */
void fastrnn_update(ptrdiff_t count, const update_arguments *all, const update_loop *loops, const int *element_types,
                    int threads);

/* Copy an array of T time steps, N rows each of `bytes` contiguous ones, from and to any strides in bytes. */
typedef struct {
    ptrdiff_t T, N, bytes;
    const char *source;
    char *out;
    ptrdiff_t source_strides[2], out_strides[2];
} copy_arguments;
void fastrnn_copy(const copy_arguments *, int threads);

/* Loops for an element type at the instruction set in use. */
const sequence_loops *fastrnn_sequence(int element_type);
const batched_loops *fastrnn_batched(int element_type);
const optimizer *fastrnn_optimizers(int element_type);

/* Name of the instruction set in use: "baseline", "avx2" or "avx512"; "scalar" where the compiler had no
 * vectors. */
const char *fastrnn_simd_level(void);

/* Names of those that this processor has, the slowest first; NULL ends the list. */
const char *const *fastrnn_simd_levels(void);

/* Choose one by name, or the best when the name is empty; -1 when there is none of that name here. */
int fastrnn_choose_simd(const char *name);

/* Copy indices, negative ones counted from the end; position of the first outside [-bound, bound), or -1. */
ptrdiff_t fastrnn_wrap_indices(ptrdiff_t n, const int64_t *indices, int64_t bound, int64_t *out);

/* Copy targets, -1 where they equal `ignored`: how many are left, or -1 - position of the first that is neither
 * that nor in [0, bound). */
ptrdiff_t fastrnn_copy_targets(ptrdiff_t n, const int64_t *targets, int64_t bound, int64_t ignored, int64_t *out);

#endif
