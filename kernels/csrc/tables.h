/* The tables of loops from which dispatch.c chooses. */

/* ---- element-wise, for tests ---------------------------------------------------------------------------- */

static void FN(tanh_all)(ptrdiff_t n, void *x) { FN(apply_cell)(TANH, n, x); }

static void FN(exp_all)(ptrdiff_t n, void *x) {
    REAL *p = x, tail[VBYTES / sizeof(REAL)] = {0};
    ptrdiff_t i = 0;
    for (; i + VL <= n; i += VL) FN(store)(p + i, FN(exponential)(FN(load)(p + i)));
    if (i < n) {
        FN(copy_row)(tail, p + i, n - i);
        FN(store)(tail, FN(exponential)(FN(load)(tail)));
        FN(copy_row)(p + i, tail, n - i);
    }
}

/* ---- tables --------------------------------------------------------------------------------------------- */

static const sequence_loops FN(sequence_loops) = {
    FN(workspace_size), FN(forward), FN(backward), FN(loss_and_grads), FN(train_step), FN(sample),
    FN(update), FN(tanh_all), FN(exp_all), FN(recurrence),
};

static const batched_loops FN(batched_loops) = {
    FN(layer_sizes), FN(output_sizes), FN(sample_size), FN(pack_layer), FN(pack_output), FN(layer_forward),
    FN(layer_backward), FN(output_logits), FN(output_loss), FN(reduce_gradients), FN(sample_batch),
};

static const element_loops FN(loops) = {&FN(sequence_loops), &FN(batched_loops), FN(optimizers)};
