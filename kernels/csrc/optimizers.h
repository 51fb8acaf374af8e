/* Updates of the optimizers, each in one pass over its arrays, in place.
 *
 * w: parameters, g: their gradient, after weight decay  g + weight_decay w.  Formulas and names are PyTorch's.
 */

ALWAYS_INLINE V FN(root)(V x) {
    REAL lanes[VBYTES / sizeof(REAL)];
    FN(store)(lanes, x);
    for (ptrdiff_t i = 0; i < VL; i++) lanes[i] = REAL_BITS == 64 ? (REAL)sqrt((double)lanes[i]) : (REAL)sqrtf((float)lanes[i]);
    return FN(load)(lanes);
}

/* w -= lr g;  with momentum:  b = momentum b + (1 - dampening) g  (b = g at the first step),  and
 * w -= lr b, or  w -= lr (g + momentum b)  after Nesterov. */
static void FN(sgd)(const update_arguments *a, const update_settings *s) {
    REAL *restrict w = a->param, *restrict b = a->state[0];
    const REAL *restrict g = a->grad;
    const REAL lr = (REAL)s->lr, decay = (REAL)s->weight_decay, momentum = (REAL)s->momentum,
               fresh = s->step == 1 ? 1 : (REAL)(1 - s->dampening);
    for (ptrdiff_t i = 0; i < a->n; i++) {
        REAL gradient = g[i] + decay * w[i];
        if (b) {
            b[i] = s->step == 1 ? gradient : momentum * b[i] + fresh * gradient;
            gradient = s->nesterov ? gradient + momentum * b[i] : b[i];
        }
        w[i] -= lr * gradient;
    }
}

static const optimizer_loops FN(optimizer_loops) = {FN(sgd), NULL, NULL, NULL};
