# What csrc/dispatch.h declares; optimizers.pxi has its part of it.

cdef extern from "csrc/dispatch.h" nogil:
    enum:
        WXH, WHH, WHY, BH, BY, PARAMETERS
        FLOAT32, FLOAT64
        CLIP_NONE, CLIP_STEP, CLIP_VALUE, CLIP_NORM
        PACK_FROM, PACK_FORWARD, PACK_BACKWARD
        CROSS_ENTROPY, SQUARED_ERROR, GAUSSIAN, LOSSES
    enum:
        STATES
    ctypedef struct cell_numbers:
        const char *name
        int number, gates, states, kept
    const cell_numbers *fastrnn_cells()
    ctypedef struct sequence_arguments:
        Py_ssize_t T, d, h, q
        const void *params[5]
        const int64_t *indices
        const void *x
        const int64_t *targets
        void *hs
        void *ps
        void *grads[5]
        int clip
        double threshold
        void *work
        int threads
    ctypedef struct sequence_loops:
        Py_ssize_t (*workspace_size)(Py_ssize_t T, Py_ssize_t d, Py_ssize_t h, Py_ssize_t q) noexcept nogil
        void (*forward)(const sequence_arguments *) noexcept nogil
        void (*backward)(const sequence_arguments *) noexcept nogil
        double (*loss_and_grads)(const sequence_arguments *) noexcept nogil
        double (*train_step)(const sequence_arguments *, double lr) noexcept nogil
        Py_ssize_t (*sample)(const sequence_arguments *, void *h, int64_t start, const double *uniforms, int64_t *out) noexcept nogil
        void (*update)(Py_ssize_t n, void *w, const void *g, double lr) noexcept nogil
        void (*tanh)(Py_ssize_t n, void *x) noexcept nogil
        void (*exp)(Py_ssize_t n, void *x) noexcept nogil
        void (*sigmoid)(Py_ssize_t n, void *x) noexcept nogil
        void (*recurrence)(const sequence_arguments *) noexcept nogil
    enum:
        MOST_PARTS, PART_GRADIENTS
    ctypedef struct batch_parts:
        Py_ssize_t count
        Py_ssize_t bounds[16][2]
        void *works[16]
        void *gradients[16][4]
        double results[16]
    ctypedef struct layer_arguments:
        Py_ssize_t T, N, d, h
        const void *W_ih
        const void *W_hh
        const void *b_ih
        const void *b_hh
        void *packed
        int one_hot, passes
        const int64_t *indices
        const void *x
        const int64_t *lengths
        const void *h0[2]
        void *hs
        void *kept
        void *h_n[2]
        const void *dhs
        const void *dh_n[2]
        void *dx
        void *dh0[2]
        void *d_states[2]
        void *dW_ih
        void *dW_hh
        void *db_ih
        void *db_hh
        int accumulate, cell, reverse
        Py_ssize_t start, stop
        void *work
        int threads
        batch_parts *parts
    ctypedef struct output_arguments:
        Py_ssize_t T, N, h, q
        const void *W
        const void *b
        void *packed
        const void *hs
        int loss
        const int64_t *classes
        const void *values
        const void *weights
        void *logits
        int probabilities
        double scale
        void *dhs
        void *dW
        void *db
        int accumulate
        Py_ssize_t start, stop
        void *work
        int threads
        batch_parts *parts
    ctypedef struct sample_arguments:
        Py_ssize_t layers, N, n, h, q
        void *const *packed
        void *packed_output
        const void *W
        void *states[2]
        const int64_t *first
        const double *uniforms
        double temperature, top_p
        Py_ssize_t top_k
        int64_t *out
        int cell
        Py_ssize_t start, stop
        void *work
        int threads
        batch_parts *parts
    ctypedef struct batched_loops:
        void (*layer_sizes)(Py_ssize_t T, Py_ssize_t rows, Py_ssize_t d, Py_ssize_t h, int cell, Py_ssize_t *packed, Py_ssize_t *work) noexcept nogil
        void (*output_sizes)(Py_ssize_t T, Py_ssize_t rows, Py_ssize_t h, Py_ssize_t q, Py_ssize_t *packed, Py_ssize_t *work) noexcept nogil
        Py_ssize_t (*sample_size)(Py_ssize_t N, Py_ssize_t rows, Py_ssize_t h, Py_ssize_t q, int cell) noexcept nogil
        void (*pack_layer)(const layer_arguments *) noexcept nogil
        void (*pack_output)(const output_arguments *) noexcept nogil
        void (*layer_forward)(const layer_arguments *) noexcept nogil
        void (*layer_backward)(const layer_arguments *) noexcept nogil
        void (*output_logits)(const output_arguments *) noexcept nogil
        double (*output_loss)(const output_arguments *) noexcept nogil
        double (*reduce_gradients)(Py_ssize_t parts, Py_ssize_t n, const void *gradients, int clip, double threshold, void *sum, int threads) noexcept nogil
        Py_ssize_t (*sample_batch)(const sample_arguments *) noexcept nogil
    const sequence_loops *fastrnn_sequence(int element_type)
    const batched_loops *fastrnn_batched(int element_type)
    const char *fastrnn_simd_level()
    const char *const *fastrnn_simd_levels()
    int fastrnn_choose_simd(const char *name)
    Py_ssize_t fastrnn_wrap_indices(Py_ssize_t n, const int64_t *indices, int64_t bound, int64_t *out)
    Py_ssize_t fastrnn_copy_targets(Py_ssize_t n, const int64_t *targets, int64_t bound, int64_t ignored, int64_t *out)
