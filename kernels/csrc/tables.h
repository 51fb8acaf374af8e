/* The tables of loops from which dispatch.c chooses. */

/* ---- element-wise, for tests ---------------------------------------------------------------------------- */

static void FN(tanh_all)(ptrdiff_t n, void *x) { FN(apply_cell)(TANH, n, x); }

#define ALL(name, function)                                                                               \
    static void FN(name)(ptrdiff_t n, void *x) {                                                          \
        for (REAL *p = x; n > 0; n -= VL, p += VL) {                                                      \
            ptrdiff_t here = n < VL ? n : VL;                                                             \
            FN(store_first)(p, FN(function)(FN(load_first)(p, here)), here);                              \
        }                                                                                                 \
    }
ALL(exp_all, exponential)
ALL(sigmoid_all, sigmoid)
#undef ALL

/* ---- tables --------------------------------------------------------------------------------------------- */

static const sequence_loops FN(sequence_loops) = {
    FN(workspace_size), FN(forward), FN(backward), FN(loss_and_grads), FN(train_step), FN(sample),
    FN(update), FN(tanh_all), FN(exp_all), FN(sigmoid_all), FN(recurrence),
};

static const batched_loops FN(batched_loops) = {
    FN(layer_sizes), FN(output_sizes), FN(sample_size), FN(pack_layer), FN(pack_output), FN(layer_forward),
    FN(layer_backward), FN(output_logits), FN(output_loss), FN(reduce_gradients), FN(sample_batch),
};

static const element_loops FN(loops) = {&FN(sequence_loops), &FN(batched_loops), FN(optimizers)};
