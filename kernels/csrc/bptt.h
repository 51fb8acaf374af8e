/* BPTT over one sequence, and training steps; see sequence.h for the work space and the forward pass.
 *
 *     dy_t = ps_t - p_t                                                               (7)
 *     dh_t = Why' dy_t + Whh' dz_{t+1},  dz_t = dh_t (1 - h_t^2)                       (9), (12), (10)
 *     dWhy = sum dy_t h_t',  dby = sum dy_t                                            (8)
 *     dWhh = sum dz_t h_{t-1}',  dWxh = sum dz_t x_t',  dbh = sum dz_t                 (11), (13)
 *
 * Time is cut into blocks, as in the forward pass, and the last comes first.  With the notes' clipping the sums
 * are clamped after every term.
 */

/* ---- sums that are clamped after every term ------------------------------------------------------------- */

static REAL FN(largest_magnitude)(const REAL *p, ptrdiff_t n) {
    REAL m = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL x = p[i] < 0 ? -p[i] : p[i];
        m = x > m ? x : m + 0 * x; /* NaN stays */
    }
    return m;
}

/* sum (ld) += row, then clamped. */
ALWAYS_INLINE void FN(add_clamped)(REAL *sum, const REAL *row, ptrdiff_t ld, V limit) {
    for (ptrdiff_t i = 0; i < ld; i += VL)
        FN(store)(sum + i, FN(clamp)(FN(load)(sum + i) + FN(load)(row + i), limit));
}

enum { FN(NOBODY) = -1, FN(SEVERAL) = -2 };

/* A dz_t[i] that is not finite makes NaN of row i of dz_t x_t' in every column but that of the one-hot x_t.
 * blame[i], for the units from .. end, is that column, or SEVERAL where it is not always the same. */
static void FN(blame_columns)(ptrdiff_t n, ptrdiff_t h, const REAL *dz, ptrdiff_t ldh, const int64_t *indices,
                              ptrdiff_t from, ptrdiff_t end, ptrdiff_t *blame) {
    int finite = 1;
    if (!from && end == ldh) finite = FN(all_finite)(dz, n * ldh);
    else
        for (ptrdiff_t t = 0; t < n; t++) finite &= FN(all_finite)(dz + t * ldh + from, end - from);
    if (finite) return;
    for (ptrdiff_t t = 0; t < n; t++)
        for (ptrdiff_t i = from; i < end && i < h; i++)
            if (dz[t * ldh + i] * 0 != 0)
                blame[i] = blame[i] == FN(NOBODY) || blame[i] == indices[t] ? (ptrdiff_t)indices[t] : FN(SEVERAL);
}

/* w[i * stride] -= rate * clamp(g[i], cap), g with padding. */
ALWAYS_INLINE void FN(descend)(ptrdiff_t n, REAL *w, ptrdiff_t stride, const REAL *g, const FN(descent) *by) {
    for (ptrdiff_t i = 0; i < n; i++) w[i * stride] -= by->rate * FN(clamp_one)(g[i], by->cap);
}

/* ---- a block of time steps ------------------------------------------------------------------------------ */

/* A backward pass. */
typedef struct {
    const sequence_arguments *a;
    FN(space) s;
    REAL limit;                 /* sums are clamped to it after every time step; infinity: they are not */
    const FN(descent) *descent; /* or NULL, see bptt */
    int packed;                 /* Whh and Why, in s.Whh and s.Why */
    int transposed;             /* dWxh' is summed up in s.Wxh */
    REAL *after;                /* (ldh) dz of the step after the block */
    REAL *dbh, *dby;            /* (ldh), (ldq) */
    REAL *reached[3], *plain[3]; /* see bound_rows; for dWxh, dWhh, dWhy */
    ptrdiff_t steps;            /* of a team */
    ptrdiff_t recurrent, output, spread; /* tasks of preparation, of each kind */
} FN(backprop);

static void FN(prepare_backward_task)(void *argument, ptrdiff_t i, int slot) {
    const FN(backprop) *b = argument;
    const sequence_arguments *a = b->a;
    ptrdiff_t d = a->d, h = a->h, ldh = FN(padded)(h);
    (void)slot;
    if (i < b->recurrent) {
        FN(pack_gemv_task)(a->params[WHH], h, 1, h, h, i, b->s.Whh);
        return;
    }
    i -= b->recurrent;
    if (i < b->output) {
        FN(pack_gemm_task)(a->params[WHY], h, 1, a->q, h, i, b->s.Why);
        return;
    }
    ptrdiff_t first = (i - b->output) * TASK_ELEMENTS, size = b->transposed ? d * ldh : h * d;
    FN(fill)((b->transposed ? b->s.Wxh : (REAL *)a->grads[WXH]) + first, FN(smaller)(size - first, TASK_ELEMENTS), 0);
}

static FN(backprop) FN(begin_backward)(const sequence_arguments *a, REAL limit, const FN(descent) *descent) {
    ptrdiff_t T = a->T, d = a->d, h = a->h, q = a->q, ldh = FN(padded)(h), ldq = FN(padded)(q);
    ptrdiff_t widest = FN(larger)(FN(larger)(ldh, ldq), FN(padded)(d));
    FN(backprop) b;
    const FN(space) *s = &b.s;
    b.a = a;
    b.s = FN(layout)(a->work, T, d, h, q);
    b.limit = limit;
    b.descent = descent;
    b.packed = T >= PACK_FROM;
    b.transposed = FN(transposes_inputs)(a) || (descent && a->indices);
    b.after = s->dz + (T < BLOCK ? T : BLOCK) * ldh;
    b.dbh = s->bias_h;
    b.dby = s->bias_y;
    for (int p = WXH; p <= WHY; p++) {
        b.reached[p] = s->sums + 2 * p * widest;
        b.plain[p] = s->sums + (2 * p + 1) * widest;
    }
    b.steps = T + 2 * FN(tasks_of)(T, BLOCK) + 1;

    b.recurrent = b.packed ? FN(tasks_of)(h, GEMV_TASK) : 0;
    b.output = b.packed ? FN(tasks_of)(h, GEMM_TASK) : 0;
    b.spread = 0;
    if (b.transposed && descent && T < d) /* only the columns that are looked at */
        for (ptrdiff_t t = 0; t < T; t++) FN(fill)(s->Wxh + a->indices[t] * ldh, ldh, 0);
    else if (a->indices)
        b.spread = FN(tasks_of)(b.transposed ? d * ldh : h * d, TASK_ELEMENTS);
    FN(run_tasks)(b.packed ? a->threads : 1, b.recurrent + b.output + b.spread, FN(prepare_backward_task), &b);
    for (ptrdiff_t i = 0; i < h; i++) s->blame[i] = FN(NOBODY);
    FN(fill)(b.dbh, ldh, 0);
    FN(fill)(b.dby, ldq, 0);
    return b;
}

/* The largest magnitude of a row (ld); NaN stays out of it: its products are NaN, clamped or not. */
ALWAYS_INLINE REAL FN(top_of)(const REAL *row, ptrdiff_t ld) {
    V top = K(0);
    for (ptrdiff_t j = 0; j < ld; j += VL) {
        V x = FN(absolute)(FN(load)(row + j));
        top = FN(select)(FN(less)(top, x), x, top);
    }
    return FN(largest)(top);
}

/* Copies the states of n steps from t0 on, the one before them, and the inputs; dy from the probabilities (eq. 7).
 * Where sums are clamped, s.tops becomes the largest magnitude of each state, and of each input behind them. */
static void FN(load_block)(const FN(backprop) *b, const team_member *member, ptrdiff_t t0, ptrdiff_t n) {
    const sequence_arguments *a = b->a;
    const FN(space) *s = &b->s;
    ptrdiff_t d = a->d, h = a->h, q = a->q, ldh = FN(padded)(h), ldq = FN(padded)(q), ldd = FN(padded)(d), first, end;
    const REAL *hs = (const REAL *)a->hs + t0 * h, *ps = (const REAL *)a->ps + t0 * q;
    const int64_t *targets = a->targets + t0;
    REAL *states = s->states, *dy = s->dy, *inputs = a->indices ? NULL : s->inputs, *tops = s->tops;
    team_share(n, member->rank, member->size, &first, &end);
    const ptrdiff_t before = first ? first + 1 : 0; /* the first state is the one before the block */
    for (ptrdiff_t t = before; t <= end; t++) FN(copy_padded)(states + t * ldh, hs + t * h, h);
    for (ptrdiff_t t = first; t < end; t++) {
        FN(copy_padded)(dy + t * ldq, ps + t * q, q);
        dy[t * ldq + targets[t]] -= 1;
    }
    for (ptrdiff_t t = first; inputs && t < end; t++)
        FN(copy_padded)(inputs + t * ldd, (const REAL *)a->x + (t0 + t) * d, d);
    if (!(b->limit < (REAL)INFINITY)) return;
    for (ptrdiff_t t = before; t <= end; t++) tops[t] = FN(top_of)(states + t * ldh, ldh);
    for (ptrdiff_t t = first; inputs && t < end; t++) tops[BLOCK + 1 + t] = FN(top_of)(inputs + t * ldd, ldd);
}

/* dh = Why' dy: the output's part, of all steps at once (eq. 9). */
static void FN(output_part)(const FN(backprop) *b, const team_member *member, ptrdiff_t n) {
    const FN(space) *s = &b->s;
    ptrdiff_t h = b->a->h, q = b->a->q, ldh = FN(padded)(h), ldq = FN(padded)(q);
    if (b->packed) {
        FN(team_times_panels)(member, n, ldh, q, s->dy, ldq, s->Why, s->dz, ldh, 0);
    } else {
        FN(fill)(s->dz, n * ldh, 0);
        FN(strips_times_rows)(b->a->params[WHY], q, h, n, s->dy, ldq, s->dz, ldh);
    }
}

/* dh_t += Whh' dz_{t+1}, and dz_t of it, step by step (eqs. 12, 10). */
static void FN(back_through_time)(const FN(backprop) *b, ptrdiff_t n, int last) {
    const FN(space) *s = &b->s;
    ptrdiff_t h = b->a->h, ldh = FN(padded)(h);
    for (ptrdiff_t t = n - 1; t >= 0; t--) {
        REAL *dz = s->dz + t * ldh, *next = t == n - 1 ? b->after : dz + ldh;
        const REAL *state = s->states + (t + 1) * ldh;
        int recurrent = !(last && t == n - 1);
        if (b->packed && recurrent) {
            FN(gemv)(s->Whh, h, h, next, EPILOGUE_SLOPE, TANH, dz, state, dz, t & 1);
            continue;
        }
        if (recurrent) FN(add_times_rows)(b->a->params[WHH], h, h, next, dz);
        FN(apply_slope)(TANH, ldh, state, dz);
    }
}

/* A member's units of one of these steps. */
static void FN(share_of_step_back)(const FN(backprop) *b, const team_member *member, const FN(shares) *mine,
                                   ptrdiff_t t, ptrdiff_t n, int last) {
    const FN(space) *s = &b->s;
    ptrdiff_t h = b->a->h, ldh = FN(padded)(h);
    REAL *dz = s->dz + t * ldh, *next = t == n - 1 ? b->after : dz + ldh;
    const REAL *state = s->states + (t + 1) * ldh;
    if (last && t == n - 1)
        FN(apply_slope)(TANH, mine->unit_end - mine->unit, state + mine->unit, dz + mine->unit);
    else if (member->size == 1)
        FN(gemv)(s->Whh, h, h, next, EPILOGUE_SLOPE, TANH, dz, state, dz, t & 1);
    else
        FN(gemv_some)(s->Whh, h, h, next, EPILOGUE_SLOPE, TANH, dz, state, dz, mine->panel, mine->panel_end);
}

/* dbh, dby, and of class indices dWxh: sums of vectors (eqs. 8, 11). */
static void FN(add_vectors)(const FN(backprop) *b, const FN(shares) *mine, ptrdiff_t t0, ptrdiff_t n) {
    const sequence_arguments *a = b->a;
    const FN(space) *s = &b->s;
    ptrdiff_t d = a->d, h = a->h, ldh = FN(padded)(h), ldq = FN(padded)(a->q);
    const ptrdiff_t from = mine->h, end = mine->h_end, own = end - from, q = mine->q, own_q = mine->q_end - q;
    const int64_t *indices = a->indices ? a->indices + t0 : NULL;
    const REAL *dz = s->dz + (n - 1) * ldh + from, *dy = s->dy + (n - 1) * ldq + q;
    REAL *dbh = b->dbh + from, *dby = b->dby + q, *columns = b->transposed ? s->Wxh + from : NULL;
    V bound = FN(splat)(b->limit);
    for (ptrdiff_t t = n - 1; t >= 0; t--, dz -= ldh, dy -= ldq) {
        FN(add_clamped)(dbh, dz, own, bound);
        FN(add_clamped)(dby, dy, own_q, bound);
        if (columns) {
            FN(add_clamped)(columns + indices[t] * ldh, dz, own, bound);
        } else if (indices) {
            REAL *column = (REAL *)a->grads[WXH] + indices[t] + from * d;
            for (ptrdiff_t i = 0; i < own && from + i < h; i++)
                column[i * d] = FN(clamp_one)(column[i * d] + dz[i], b->limit);
        }
    }
}

/* A gradient that is a product over time:  the sum of left_t right_t', left (n, ldl), right (n, ldr). */
typedef struct {
    int which;
    ptrdiff_t rows, columns, ldl, ldr;
    const REAL *left, *right, *tops; /* tops: of the rows of `right` */
} FN(time_product);

/* dWhy, dWhh, and of vectors dWxh (eqs. 8, 13, 11); returns how many they are. */
static int FN(time_products)(const FN(backprop) *b, FN(time_product) *p) {
    const FN(space) *s = &b->s;
    ptrdiff_t d = b->a->d, h = b->a->h, q = b->a->q, ldh = FN(padded)(h), ldq = FN(padded)(q), ldd = FN(padded)(d);
    p[0] = (FN(time_product)){WHY, q, h, ldq, ldh, s->dy, s->states + ldh, s->tops + 1};
    p[1] = (FN(time_product)){WHH, h, h, ldh, ldh, s->dz, s->states, s->tops};
    p[2] = (FN(time_product)){WXH, h, d, ldh, ldd, s->dz, s->inputs, s->tops + BLOCK + 1};
    return b->a->indices ? 2 : 3;
}

/* Which rows from .. end of the sum are `plain`: they cannot reach the limit within the block.
 *
 * reached[i] bounds |sum[i, :]|, which grows by no more than |left_t[i]| times the largest |right_t|, of all t.
 * (NaN fails the comparison and takes the clamped way.) */
static void FN(bound_rows)(const FN(backprop) *b, const FN(time_product) *p, ptrdiff_t n, int first, ptrdiff_t from,
                           ptrdiff_t end) {
    const REAL safe = b->limit * (REAL)0.999, *sum = b->a->grads[p->which];
    REAL *reached = b->reached[p->which], *growth = b->plain[p->which];
    if (from >= end) return;
    FN(fill)(growth + from, end - from, 0);
    const REAL *left = p->left, *tops = p->tops;
    const ptrdiff_t ldl = p->ldl;
    for (ptrdiff_t t = 0; t < n; t++, left += ldl) {
        V top = FN(splat)(tops[t]);
        for (ptrdiff_t i = from; i < end; i += VL)
            FN(store)(growth + i, FN(load)(growth + i) + FN(absolute)(FN(load)(left + i)) * top);
    }
    for (ptrdiff_t i = from; i < end && i < p->rows; i++) {
        REAL before = first ? 0 : reached[i];
        int fits = before + growth[i] <= safe;
        if (!fits && !first) {
            before = FN(largest_magnitude)(sum + i * p->columns, p->columns);
            fits = before + growth[i] <= safe;
        }
        reached[i] = fits ? before + growth[i] : b->limit;
        growth[i] = fits;
    }
}

/* A rectangle of  sum (+)= left_t right_t',  t downwards, clamped to [-limit, limit] after each term.  Rows that cannot
 * reach the limit take the plain product, which then is the same sum. */
static void FN(add_tile)(const FN(backprop) *b, const FN(time_product) *p, ptrdiff_t n, int first,
                         const FN(tile) *tile, const FN(descent) *descent) {
    const REAL *plain = b->plain[p->which] + tile->row, *right = p->right + tile->column;
    int clamps = b->limit < (REAL)INFINITY;
    for (ptrdiff_t i = 0, j; i < tile->rows; i = j) {
        int fits = !clamps || plain[i] != 0;
        if (clamps)
            for (j = i + 1; j < tile->rows && (plain[j] != 0) == fits;) j++;
        else
            j = tile->rows;
        const REAL *left = p->left + tile->row + i;
        ptrdiff_t place = (tile->row + i) * p->columns + tile->column;
        REAL *sum = (REAL *)b->a->grads[p->which] + place;
        FN(descent) rows, *step = NULL;
        if (descent) {
            rows = *descent;
            rows.weights = (REAL *)b->a->params[p->which] + place;
            step = &rows;
        }
        if (fits)
            FN(gemm)(j - i, tile->columns, n, left, 1, p->ldl, right, p->ldr, NR, sum, p->columns, !first, step);
        else
            FN(gemm_clamped)(j - i, tile->columns, n, left, 1, p->ldl, right, p->ldr, NR, sum, p->columns, !first,
                             b->limit, step);
    }
}

/* All sums of a block of time.  The last one to be added takes the step of `descent`. */
static void FN(add_block)(const FN(backprop) *b, team_member *member, const FN(shares) *mine, ptrdiff_t t0, ptrdiff_t n,
                          int last) {
    const sequence_arguments *a = b->a;
    const FN(space) *s = &b->s;
    ptrdiff_t ldh = FN(padded)(a->h);
    FN(time_product) products[3];
    FN(tile) tiles[FN(MOST_TILES)];
    int count = FN(time_products)(b, products);
    if (a->indices) FN(blame_columns)(n, a->h, s->dz, ldh, a->indices + t0, mine->h, mine->h_end, s->blame);
    FN(add_vectors)(b, mine, t0, n);
    if (b->limit < (REAL)INFINITY) {
        for (int i = 0; i < count; i++) {
            const FN(time_product) *p = &products[i];
            ptrdiff_t from = p->which == WHY ? mine->q : mine->h, end = p->which == WHY ? mine->q_end : mine->h_end;
            FN(bound_rows)(b, p, n, last, from, end);
        }
        FN(meet)(member);
    }
    for (int i = 0; i < count; i++) {
        int of = FN(share_tiles)(member, products[i].rows, products[i].columns, tiles);
        for (int j = 0; j < of; j++) FN(add_tile)(b, &products[i], n, last, &tiles[j], t0 ? NULL : b->descent);
    }
    FN(copy_row)(b->after + mine->h, s->dz + mine->h, mine->h_end - mine->h);
}

/* ---- after the last block ------------------------------------------------------------------------------- */

/* Writes the gradients that are still in work space: the units from .. end, and by one member dby. */
static void FN(write_gradients)(const FN(backprop) *b, int everywhere, ptrdiff_t from, ptrdiff_t end) {
    const sequence_arguments *a = b->a;
    ptrdiff_t d = a->d, ldh = FN(padded)(a->h);
    if (everywhere) FN(copy_row)(a->grads[BY], b->dby, a->q);
    if (from >= end) return;
    FN(copy_row)((REAL *)a->grads[BH] + from, b->dbh + from, end - from);
    if (b->transposed)
        FN(pack_panel)(b->s.Wxh + from, 1, ldh, end - from, d, d, (REAL *)a->grads[WXH] + from * d);
}

/* Takes the step with them. */
static void FN(descend_vectors)(const FN(backprop) *b, int everywhere, ptrdiff_t from, ptrdiff_t end) {
    const sequence_arguments *a = b->a;
    ptrdiff_t d = a->d, ldh = FN(padded)(a->h);
    if (everywhere) FN(descend)(a->q, (REAL *)a->params[BY], 1, b->dby, b->descent);
    if (from >= end) return;
    FN(descend)(end - from, (REAL *)a->params[BH] + from, 1, b->dbh + from, b->descent);
    for (ptrdiff_t t = 0; a->indices && t < a->T; t++) { /* a column that comes again finds its gradient spent */
        REAL *column = b->s.Wxh + a->indices[t] * ldh + from;
        FN(descend)(end - from, (REAL *)a->params[WXH] + from * d + a->indices[t], d, column, b->descent);
        FN(fill)(column, end - from, 0);
    }
}

/* NaN into the rows of dWxh, or of Wxh after the step, where blame_columns has found it. */
static void FN(spoil_rows)(const FN(backprop) *b, ptrdiff_t from, ptrdiff_t end) {
    ptrdiff_t d = b->a->d;
    const ptrdiff_t *blame = b->s.blame;
    REAL *spoilt = b->descent ? (REAL *)b->a->params[WXH] : b->a->grads[WXH];
    for (ptrdiff_t i = from; i < end; i++)
        if (blame[i] != FN(NOBODY))
            for (ptrdiff_t c = 0; c < d; c++)
                if (c != blame[i]) spoilt[i * d + c] = (REAL)NAN;
}

static void FN(end_backward)(const FN(backprop) *b, const team_member *member, const FN(shares) *mine) {
    ptrdiff_t from = mine->h, end = FN(smaller)(mine->h_end, b->a->h);
    if (b->descent) FN(descend_vectors)(b, !member->rank, from, end);
    else FN(write_gradients)(b, !member->rank, from, end);
    FN(spoil_rows)(b, from, end);
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

/* Time steps of the last block. */
ALWAYS_INLINE ptrdiff_t FN(last_block)(ptrdiff_t T) { return T - (T - 1) / BLOCK * BLOCK; }

/* A step of the team: a block takes one, then one for each time step, and one for the sums; one more comes last. */
static void FN(bptt_step)(const FN(backprop) *b, team_member *member, const FN(shares) *mine, ptrdiff_t step) {
    const ptrdiff_t T = b->a->T, n_last = FN(last_block)(T);
    int last = step < n_last + 2;
    ptrdiff_t n = last ? n_last : BLOCK, rest = last ? step : step - (n_last + 2), t = rest % (n + 2);
    ptrdiff_t t0 = T - n_last - (last ? 0 : (rest / (n + 2) + 1) * BLOCK);
    if (step == b->steps - 1) {
        FN(end_backward)(b, member, mine);
    } else if (!t) {
        FN(load_block)(b, member, t0, n);
        FN(meet)(member);
        FN(output_part)(b, member, n);
    } else if (t <= n) {
        FN(share_of_step_back)(b, member, mine, n - t, n, last);
    } else {
        FN(add_block)(b, member, mine, t0, n, last);
    }
}

TEAM_BODY(bptt_body, const FN(backprop), bptt_step)

/* BPTT over dy, computed block by block from the probabilities in a->ps, clamped to `limit` after every step.
 *
 * With `descent`, the parameters take a step of that rate and cap instead of the gradients being returned:
 * a->grads then is work space.  (a->clip, a->threshold and descent->weights are not looked at.) */
static void FN(bptt)(const sequence_arguments *a, REAL limit, const FN(descent) *descent) {
    FN(backprop) b = FN(begin_backward)(a, limit, descent);
    const ptrdiff_t T = a->T;
    if (FN(on_team)(a, &b.s)) {
        fastrnn_team_steps(a->threads, b.steps, FN(bptt_body), &b);
        return;
    }
    team_member alone = FN(alone);
    const FN(shares) all = FN(shares_of)(a, &alone);
    for (ptrdiff_t n = FN(last_block)(T), t0 = T - n; t0 >= 0; n = BLOCK, t0 -= BLOCK) {
        int last = t0 + n == T;
        FN(load_block)(&b, &alone, t0, n);
        FN(output_part)(&b, &alone, n);
        FN(back_through_time)(&b, n, last);
        FN(add_block)(&b, &alone, &all, t0, n, last);
    }
    FN(end_backward)(&b, &alone, &all);
}

static void FN(backward)(const sequence_arguments *a) { FN(bptt)(a, (REAL)a->threshold, NULL); }

/* ---- training ------------------------------------------------------------------------------------------- */

/* forward, and the loss (eqs. 5, 6). */
static double FN(loss)(const sequence_arguments *a) {
    const REAL *ps = a->ps;
    double loss = 0;
    FN(forward)(a);
    for (ptrdiff_t t = 0; t < a->T; t++) loss -= log((double)ps[t * a->q + a->targets[t]]);
    return loss;
}

static void FN(update)(ptrdiff_t n, void *w, const void *g, double lr) {
    REAL *restrict weights = w, rate = (REAL)lr;
    const REAL *restrict gradient = g;
    ptrdiff_t i = 0;
    V r = FN(splat)(rate);
    for (; i + VL <= n; i += VL) FN(store)(weights + i, FN(load)(weights + i) - r * FN(load)(gradient + i));
    for (; i < n; i++) weights[i] -= rate * gradient[i];
}

/* What is done to all gradients, a chunk a task. */
enum { FN(CLIP), FN(SQUARE), FN(MULTIPLY), FN(UPDATE) };

typedef struct {
    const sequence_arguments *a;
    int what;
    REAL number; /* the limit, or the factor */
    double lr;
    REAL *squares; /* of each chunk: their sum's order does not depend on the threads */
    ptrdiff_t count;
} FN(all_gradients);

static void FN(gradient_task)(void *argument, ptrdiff_t i, int slot) {
    const FN(all_gradients) *all = argument;
    const sequence_arguments *a = all->a;
    ptrdiff_t d = a->d, h = a->h, q = a->q, sizes[PARAMETERS] = {h * d, h * h, q * h, h, q}, first = i;
    int p = 0;
    (void)slot;
    while (first >= FN(tasks_of)(sizes[p], TASK_ELEMENTS)) first -= FN(tasks_of)(sizes[p++], TASK_ELEMENTS);
    first *= TASK_ELEMENTS;
    ptrdiff_t n = FN(smaller)(sizes[p] - first, TASK_ELEMENTS);
    REAL *g = (REAL *)a->grads[p] + first;
    if (all->what == FN(CLIP)) FN(clip_values)(n, g, all->number);
    else if (all->what == FN(SQUARE)) all->squares[i] = FN(sum_of_squares)(g, n);
    else if (all->what == FN(MULTIPLY)) FN(multiply)(n, g, all->number);
    else FN(update)(n, (REAL *)a->params[p] + first, g, all->lr);
}

static void FN(to_gradients)(const sequence_arguments *a, FN(all_gradients) *all, int what) {
    ptrdiff_t d = a->d, h = a->h, q = a->q, sizes[PARAMETERS] = {h * d, h * h, q * h, h, q};
    all->a = a;
    all->what = what;
    all->count = 0;
    for (int p = 0; p < PARAMETERS; p++) all->count += FN(tasks_of)(sizes[p], TASK_ELEMENTS);
    FN(run_tasks)(a->T >= PACK_FROM ? a->threads : 1, all->count, FN(gradient_task), all);
}

static double FN(loss_and_grads)(const sequence_arguments *a) {
    const REAL threshold = (REAL)a->threshold;
    FN(all_gradients) all;
    double loss = FN(loss)(a);
    FN(bptt)(a, a->clip == CLIP_STEP ? threshold : (REAL)INFINITY, NULL);
    if (a->clip == CLIP_VALUE) {
        all.number = threshold;
        FN(to_gradients)(a, &all, FN(CLIP));
    }
    if (a->clip == CLIP_NORM) { /* eq. 15 */
        double squares = 0;
        all.squares = FN(layout)(a->work, a->T, a->d, a->h, a->q).squares;
        FN(to_gradients)(a, &all, FN(SQUARE));
        for (ptrdiff_t i = 0; i < all.count; i++) squares += all.squares[i];
        double norm = sqrt(squares);
        if (!FN(is_ordinary)(squares)) {
            const ptrdiff_t d = a->d, h = a->h, q = a->q, sizes[PARAMETERS] = {h * d, h * h, q * h, h, q};
            const double unit = FN(unit)(squares);
            squares = 0;
            for (int p = 0; p < PARAMETERS; p++) squares += FN(squares_in_unit)(a->grads[p], sizes[p], unit);
            norm = sqrt(squares) / unit;
        }
        all.number = norm <= a->threshold ? 1 : (REAL)(a->threshold / norm);
        if (all.number != 1) FN(to_gradients)(a, &all, FN(MULTIPLY));
    }
    return loss;
}

/* loss_and_grads and the update; the gradients are written only where eq. 15 must see them all first. */
static double FN(train_step)(const sequence_arguments *a, double lr) {
    double loss;
    if (a->clip == CLIP_NORM) {
        FN(all_gradients) all;
        loss = FN(loss_and_grads)(a);
        all.lr = lr;
        FN(to_gradients)(a, &all, FN(UPDATE));
        return loss;
    }
    FN(descent) step = {NULL, (REAL)lr, a->clip == CLIP_VALUE ? (REAL)a->threshold : (REAL)INFINITY};
    loss = FN(loss)(a);
    FN(bptt)(a, a->clip == CLIP_STEP ? (REAL)a->threshold : (REAL)INFINITY, &step);
    return loss;
}
