/* Updates of the optimizers, each in one pass over its arrays, in place.
 *
 * w: parameters, g: their gradient,  x = g + weight_decay w.  Formulas and names are PyTorch's.
 * Arrays do not overlap, and state is zero before the first step, but for Adagrad's initial sums.
 *
 * Each loop is compiled once for every set of options it can meet: a test inside would keep it scalar,
 * and  g + 0 w  is not g where w is infinite.
 */

#if REAL_BITS == 64
#define ROOT sqrt
#else
#define ROOT sqrtf
#endif

/* b = momentum b + (1 - dampening) x,  but x itself at the first step;  w -= lr b,  or without
 * momentum  w -= lr x,  or after Nesterov  w -= lr (x + momentum b). */
ALWAYS_INLINE void FN(sgd_loop)(const update_arguments *a, const update_settings *s, int decays, int remembers,
                                int nesterov) {
    const ptrdiff_t n = a->n;
    REAL *restrict w = a->param, *restrict b = a->state[0];
    const REAL *restrict g = a->grad;
    const REAL lr = (REAL)s->lr, decay = (REAL)s->weight_decay, momentum = (REAL)s->momentum;
    const REAL fresh = (REAL)(s->step == 1 ? 1 : 1 - s->dampening);
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL x = decays ? g[i] + decay * w[i] : g[i];
        if (remembers) {
            b[i] = momentum * b[i] + fresh * x;
            x = nesterov ? x + momentum * b[i] : b[i];
        }
        w[i] -= lr * x;
    }
}

static void FN(sgd)(const update_arguments *a, const update_settings *s) {
    int remembers = a->state[0] != NULL;
    if (s->weight_decay != 0) {
        if (!remembers) FN(sgd_loop)(a, s, 1, 0, 0);
        else if (!s->nesterov) FN(sgd_loop)(a, s, 1, 1, 0);
        else FN(sgd_loop)(a, s, 1, 1, 1);
    } else {
        if (!remembers) FN(sgd_loop)(a, s, 0, 0, 0);
        else if (!s->nesterov) FN(sgd_loop)(a, s, 0, 1, 0);
        else FN(sgd_loop)(a, s, 0, 1, 1);
    }
}

/* sum += x^2;  w -= lr / (1 + (step - 1) lr_decay) x / (sqrt(sum) + eps). */
ALWAYS_INLINE void FN(adagrad_loop)(const update_arguments *a, const update_settings *s, int decays) {
    const ptrdiff_t n = a->n;
    REAL *restrict w = a->param, *restrict sum = a->state[0];
    const REAL *restrict g = a->grad;
    const REAL decay = (REAL)s->weight_decay, eps = (REAL)s->eps;
    const REAL rate = (REAL)(s->lr / (1 + (double)(s->step - 1) * s->lr_decay));
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL x = decays ? g[i] + decay * w[i] : g[i];
        REAL total = sum[i] + x * x;
        sum[i] = total;
        w[i] -= rate * x / (ROOT(total) + eps);
    }
}

static void FN(adagrad)(const update_arguments *a, const update_settings *s) {
    if (s->weight_decay != 0) FN(adagrad_loop)(a, s, 1);
    else FN(adagrad_loop)(a, s, 0);
}

/* square = alpha square + (1 - alpha) x^2,  centered: mean = alpha mean + (1 - alpha) x  and the variance
 * square - mean^2  (not below zero, where rounding takes it)  in place of the square;
 * u = x / (sqrt(square) + eps);  w -= lr u,  or with momentum  b = momentum b + u,  w -= lr b. */
ALWAYS_INLINE void FN(rmsprop_loop)(const update_arguments *a, const update_settings *s, int decays, int remembers,
                                    int centered) {
    const ptrdiff_t n = a->n;
    REAL *restrict w = a->param, *restrict square = a->state[0];
    REAL *restrict b = a->state[1], *restrict mean = a->state[2];
    const REAL *restrict g = a->grad;
    const REAL lr = (REAL)s->lr, decay = (REAL)s->weight_decay, momentum = (REAL)s->momentum;
    const REAL alpha = (REAL)s->alpha, fresh = (REAL)(1 - s->alpha), eps = (REAL)s->eps;
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL x = decays ? g[i] + decay * w[i] : g[i];
        REAL v = alpha * square[i] + fresh * x * x;
        square[i] = v;
        if (centered) {
            REAL m = alpha * mean[i] + fresh * x;
            mean[i] = m;
            v -= m * m;
            v = v < 0 ? 0 : v; /* NaN stays */
        }
        x /= ROOT(v) + eps;
        if (remembers) {
            x += momentum * b[i];
            b[i] = x;
        }
        w[i] -= lr * x;
    }
}

static void FN(rmsprop)(const update_arguments *a, const update_settings *s) {
    int remembers = a->state[1] != NULL, centered = a->state[2] != NULL;
    if (s->weight_decay != 0) {
        if (remembers && centered) FN(rmsprop_loop)(a, s, 1, 1, 1);
        else if (remembers) FN(rmsprop_loop)(a, s, 1, 1, 0);
        else if (centered) FN(rmsprop_loop)(a, s, 1, 0, 1);
        else FN(rmsprop_loop)(a, s, 1, 0, 0);
    } else {
        if (remembers && centered) FN(rmsprop_loop)(a, s, 0, 1, 1);
        else if (remembers) FN(rmsprop_loop)(a, s, 0, 1, 0);
        else if (centered) FN(rmsprop_loop)(a, s, 0, 0, 1);
        else FN(rmsprop_loop)(a, s, 0, 0, 0);
    }
}

/* m = beta1 m + (1 - beta1) x,  v = beta2 v + (1 - beta2) x^2;
 * w -= lr (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps). */
ALWAYS_INLINE void FN(adam_loop)(const update_arguments *a, const update_settings *s, int decays) {
    const ptrdiff_t n = a->n;
    REAL *restrict w = a->param, *restrict m = a->state[0], *restrict v = a->state[1];
    const REAL *restrict g = a->grad;
    const REAL decay = (REAL)s->weight_decay, eps = (REAL)s->eps;
    const REAL beta1 = (REAL)s->beta1, fresh1 = (REAL)(1 - s->beta1);
    const REAL beta2 = (REAL)s->beta2, fresh2 = (REAL)(1 - s->beta2);
    const REAL rate = (REAL)(s->lr / (1 - pow(s->beta1, (double)s->step)));
    const REAL unbias = (REAL)(1 / sqrt(1 - pow(s->beta2, (double)s->step)));
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL x = decays ? g[i] + decay * w[i] : g[i];
        REAL first = beta1 * m[i] + fresh1 * x, second = beta2 * v[i] + fresh2 * x * x;
        m[i] = first;
        v[i] = second;
        w[i] -= rate * first / (ROOT(second) * unbias + eps);
    }
}

static void FN(adam)(const update_arguments *a, const update_settings *s) {
    if (s->weight_decay != 0) FN(adam_loop)(a, s, 1);
    else FN(adam_loop)(a, s, 0);
}

#undef ROOT

static const optimizer_loops FN(optimizer_loops) = {FN(sgd), FN(adagrad), FN(rmsprop), FN(adam)};
