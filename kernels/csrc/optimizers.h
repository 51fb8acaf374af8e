/* Updates of the optimizers, each in one pass over its arrays, in place.
 *
 * w: parameters, g: their gradient,  x = g + weight_decay w.  Formulas and names are PyTorch's.
 * Arrays do not overlap, and state is zero before the first step, but for Adagrad's initial sums.
 *
 * What the formulas need of the settings comes as numbers, in the order in which a loop reads them; a kind of state
 * that is not used is NULL.  The table at the end has all of them: a new optimizer is a loop and a line there.
 *
 * Each loop is compiled once for every set of options it can meet: a test inside would keep it scalar,
 * and  g + 0 w  is not g where w is infinite.
 */

#if REAL_BITS == 64
#define ROOT sqrt
#else
#define ROOT sqrtf
#endif

/* b = momentum b + fresh x,  fresh being 1 - dampening, or 1 at the first step;  w -= lr b,  or without momentum
 * w -= lr x,  or after Nesterov  w -= lr (x + momentum b). */
ALWAYS_INLINE void FN(sgd_loop)(const update_arguments *a, int decays, int remembers, int nesterov) {
    const double *s = a->numbers;
    const REAL lr = (REAL)s[0], momentum = (REAL)s[1], fresh = (REAL)s[2], decay = (REAL)s[3];
    REAL *restrict w = a->param, *restrict b = a->state[0];
    const REAL *restrict g = a->grad;
    for (ptrdiff_t i = 0; i < a->n; i++) {
        REAL x = decays ? g[i] + decay * w[i] : g[i];
        if (remembers) {
            b[i] = momentum * b[i] + fresh * x;
            x = nesterov ? x + momentum * b[i] : b[i];
        }
        w[i] -= lr * x;
    }
}

static void FN(sgd)(const update_arguments *a) {
    int remembers = a->state[0] != NULL, nesterov = a->numbers[4] != 0;
    if (a->numbers[3] != 0) {
        if (!remembers) FN(sgd_loop)(a, 1, 0, 0);
        else if (!nesterov) FN(sgd_loop)(a, 1, 1, 0);
        else FN(sgd_loop)(a, 1, 1, 1);
    } else {
        if (!remembers) FN(sgd_loop)(a, 0, 0, 0);
        else if (!nesterov) FN(sgd_loop)(a, 0, 1, 0);
        else FN(sgd_loop)(a, 0, 1, 1);
    }
}

/* sum += x^2;  w -= rate x / (sqrt(sum) + eps). */
ALWAYS_INLINE void FN(adagrad_loop)(const update_arguments *a, int decays) {
    const REAL rate = (REAL)a->numbers[0], eps = (REAL)a->numbers[1], decay = (REAL)a->numbers[2];
    REAL *restrict w = a->param, *restrict sum = a->state[0];
    const REAL *restrict g = a->grad;
    for (ptrdiff_t i = 0; i < a->n; i++) {
        REAL x = decays ? g[i] + decay * w[i] : g[i];
        REAL total = sum[i] + x * x;
        sum[i] = total;
        w[i] -= rate * x / (ROOT(total) + eps);
    }
}

static void FN(adagrad)(const update_arguments *a) {
    if (a->numbers[2] != 0) FN(adagrad_loop)(a, 1);
    else FN(adagrad_loop)(a, 0);
}

/* square = alpha square + fresh x^2,  fresh being 1 - alpha;  centered: mean = alpha mean + fresh x  and the variance
 * square - mean^2  (not below zero, where rounding takes it)  in place of the square;
 * u = x / (sqrt(square) + eps);  w -= lr u,  or with momentum  b = momentum b + u,  w -= lr b. */
ALWAYS_INLINE void FN(rmsprop_loop)(const update_arguments *a, int decays, int remembers, int centered) {
    const double *s = a->numbers;
    const REAL lr = (REAL)s[0], alpha = (REAL)s[1], fresh = (REAL)s[2], momentum = (REAL)s[3], eps = (REAL)s[4];
    const REAL decay = (REAL)s[5];
    REAL *restrict w = a->param, *restrict square = a->state[0];
    REAL *restrict b = a->state[1], *restrict mean = a->state[2];
    const REAL *restrict g = a->grad;
    for (ptrdiff_t i = 0; i < a->n; i++) {
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

static void FN(rmsprop)(const update_arguments *a) {
    int remembers = a->state[1] != NULL, centered = a->state[2] != NULL;
    if (a->numbers[5] != 0) {
        if (remembers && centered) FN(rmsprop_loop)(a, 1, 1, 1);
        else if (remembers) FN(rmsprop_loop)(a, 1, 1, 0);
        else if (centered) FN(rmsprop_loop)(a, 1, 0, 1);
        else FN(rmsprop_loop)(a, 1, 0, 0);
    } else {
        if (remembers && centered) FN(rmsprop_loop)(a, 0, 1, 1);
        else if (remembers) FN(rmsprop_loop)(a, 0, 1, 0);
        else if (centered) FN(rmsprop_loop)(a, 0, 0, 1);
        else FN(rmsprop_loop)(a, 0, 0, 0);
    }
}

/* m = beta1 m + fresh1 x,  v = beta2 v + fresh2 x^2,  fresh being 1 - beta;  AMSGrad: top = max(top, v)  in place of
 * v;  w -= rate m / (sqrt(v) unbias + eps),  with  rate = lr / (1 - beta1^step),  unbias = 1 / sqrt(1 - beta2^step).
 * Decoupled decay is  w -= shrink w  first. */
ALWAYS_INLINE void FN(adam_loop)(const update_arguments *a, int decays, int shrinks, int bounded) {
    const double *s = a->numbers;
    const REAL rate = (REAL)s[0], beta1 = (REAL)s[1], fresh1 = (REAL)s[2], beta2 = (REAL)s[3], fresh2 = (REAL)s[4];
    const REAL unbias = (REAL)s[5], eps = (REAL)s[6], decay = (REAL)s[7], shrink = (REAL)s[8];
    REAL *restrict w = a->param, *restrict m = a->state[0], *restrict v = a->state[1], *restrict top = a->state[2];
    const REAL *restrict g = a->grad;
    for (ptrdiff_t i = 0; i < a->n; i++) {
        REAL x = decays ? g[i] + decay * w[i] : g[i];
        REAL first = beta1 * m[i] + fresh1 * x, second = beta2 * v[i] + fresh2 * x * x;
        m[i] = first;
        v[i] = second;
        if (bounded) {
            second = second <= top[i] ? top[i] : top[i] != top[i] ? top[i] : second; /* NaN stays, of either */
            top[i] = second;
        }
        if (shrinks) w[i] -= shrink * w[i];
        w[i] -= rate * first / (ROOT(second) * unbias + eps);
    }
}

static void FN(adam)(const update_arguments *a) {
    int decays = a->numbers[7] != 0, shrinks = a->numbers[8] != 0, bounded = a->state[2] != NULL;
    if (decays && shrinks) FN(adam_loop)(a, 1, 1, bounded); /* no optimizer asks for both */
    else if (decays && bounded) FN(adam_loop)(a, 1, 0, 1);
    else if (decays) FN(adam_loop)(a, 1, 0, 0);
    else if (shrinks && bounded) FN(adam_loop)(a, 0, 1, 1);
    else if (shrinks) FN(adam_loop)(a, 0, 1, 0);
    else if (bounded) FN(adam_loop)(a, 0, 0, 1);
    else FN(adam_loop)(a, 0, 0, 0);
}

#undef ROOT

/* Name, loop, kinds of state, numbers. */
static const optimizer FN(optimizers)[] = {
    {"sgd", FN(sgd), 1, 5},
    {"adagrad", FN(adagrad), 1, 3},
    {"rmsprop", FN(rmsprop), 3, 6},
    {"adam", FN(adam), 3, 9},
    {NULL, NULL, 0, 0},
};
