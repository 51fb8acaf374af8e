/* Forward and sampling of one sequence; bptt.h has the way back.
 *
 *     h_t  = tanh(Wxh x_t + Whh h_{t-1} + bh)          (1)
 *     y_t  = Why h_t + by,  ps_t = softmax(y_t)        (2), (16), (17)
 *
 * Only Whh h_{t-1}, and Whh' dz_{t+1} on the way back, wait for the step before.  Time is cut into blocks:
 * within one, all else is a product over all its steps.  Rows of a block are padded to whole vectors, so that
 * no loop has a tail, and stay in the cache.  For a few steps matrices are used as they are; from PACK_FROM
 * on, packing them first pays.
 *
 * On several threads (see team.h) each member of the team has its hidden units at every time step, and all meet
 * before the next one; what is done for a block, or once, is shared out likewise.  The shares do not change what is
 * computed for an element, nor in which order, so the bits do not depend on the team.  Short sequences, and those
 * with a one-hot input times what is not finite, are left to one thread.
 */

#define BLOCK 64                /* time steps */
#define TASK_ELEMENTS (1 << 15) /* of a task that goes through an array */
#define TURNED_ROWS 64          /* of a task that transposes */

/* ---- work space ----------------------------------------------------------------------------------------- */

typedef struct {
    REAL *states;    /* (BLOCK+1, ldh), row 0 the state before the block */
    REAL *dz;        /* (BLOCK+1, ldh), row BLOCK.. the one after the block */
    REAL *dy;        /* (BLOCK, ldq) logits, then their gradient */
    REAL *inputs;    /* (BLOCK, ldd) */
    REAL *Wxh;       /* (d, ldh) transposed; then the gradient dWxh, transposed */
    REAL *Whh;       /* packed for matrix-vector products: of the transpose forward, as it is backward */
    REAL *Why;       /* packed for matrix products, or for matrix-vector products in sampling */
    REAL *sums;      /* (6, max(ldh, ldq, ldd)) bounds of gradients */
    REAL *tops;      /* (2, BLOCK+1) see load_block */
    REAL *squares;   /* of each chunk of the gradients */
    REAL *bias_h;    /* (ldh) */
    REAL *bias_y;    /* (ldq), minus infinity in the padding */
    ptrdiff_t *blame; /* (h) see blame_columns */
    int dense;       /* one-hot inputs are multiplied out, see prepare_forward */
    ptrdiff_t size;  /* elements in all */
} FN(space);

static FN(space) FN(layout)(void *work, ptrdiff_t T, ptrdiff_t d, ptrdiff_t h, ptrdiff_t q) {
    ptrdiff_t ldh = FN(padded)(h), ldq = FN(padded)(q), ldd = FN(padded)(d), used = 0;
    ptrdiff_t steps = T < BLOCK ? T : BLOCK, widest = FN(larger)(FN(larger)(ldh, ldq), ldd);
    int packed = T >= PACK_FROM;
    REAL *base = FN(aligned)(work);
    FN(space) s;
    s.states = FN(take)(base, &used, (steps + 1) * ldh);
    s.dz = FN(take)(base, &used, (steps + 1) * ldh);
    s.dy = FN(take)(base, &used, (steps + 1) * ldq);
    s.inputs = FN(take)(base, &used, steps * ldd);
    s.Wxh = FN(take)(base, &used, d * ldh);
    s.Whh = FN(take)(base, &used, packed ? h * ldh : 0);
    s.Why = FN(take)(base, &used, packed ? FN(larger)(h * FN(gemm_padded)(q), q * FN(gemm_padded)(h)) : 0);
    s.sums = FN(take)(base, &used, 6 * widest);
    s.tops = FN(take)(base, &used, 2 * (BLOCK + 1));
    s.squares = FN(take)(base, &used, (h * d + h * h + q * h + h + q) / TASK_ELEMENTS + PARAMETERS);
    s.bias_h = FN(take)(base, &used, ldh);
    s.bias_y = FN(take)(base, &used, ldq);
    s.blame = FN(take_integers)(base, &used, h);
    s.dense = 0;
    s.size = used + 64;
    return s;
}

static ptrdiff_t FN(workspace_size)(ptrdiff_t T, ptrdiff_t d, ptrdiff_t h, ptrdiff_t q) {
    return FN(layout)(NULL, T, d, h, q).size;
}

/* ---- sharing -------------------------------------------------------------------------------------------- */

/* What a member has of each row; the panels are where the time steps are shared, the rest more evenly. */
typedef struct {
    ptrdiff_t panel, panel_end; /* vectors of a row of states: whole panels of gemv */
    ptrdiff_t unit, unit_end;   /* their elements, of the padded row */
    ptrdiff_t h, h_end;         /* elements of a padded row of states: whole vectors */
    ptrdiff_t q, q_end;         /* of logits, likewise */
} FN(shares);

static FN(shares) FN(shares_of)(const sequence_arguments *a, const team_member *member) {
    ptrdiff_t ldh = FN(padded)(a->h), ldq = FN(padded)(a->q);
    FN(shares) mine = {0, ldh / VL, 0, ldh, 0, ldh, 0, ldq};
    if (member->size == 1) return mine;
    FN(share_panels)(member, a->h, &mine.panel, &mine.panel_end);
    FN(share_vectors)(member, ldh, &mine.h, &mine.h_end);
    FN(share_vectors)(member, ldq, &mine.q, &mine.q_end);
    mine.unit = mine.panel * VL;
    mine.unit_end = mine.panel_end * VL;
    return mine;
}

static const team_member FN(alone) = {0, 1, NULL};

ALWAYS_INLINE void FN(meet)(team_member *member) {
    if (member->size > 1) fastrnn_team_meet(member);
}

ALWAYS_INLINE void FN(run_tasks)(int threads, ptrdiff_t count, team_task task, void *argument) {
    if (threads > 1) fastrnn_team_tasks(threads, count, task, argument);
    else
        for (ptrdiff_t i = 0; i < count; i++) task(argument, i, 0);
}

ALWAYS_INLINE ptrdiff_t FN(tasks_of)(ptrdiff_t n, ptrdiff_t each) { return (n + each - 1) / each; }

ALWAYS_INLINE ptrdiff_t FN(smaller)(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* pack_gemv and pack_gemm as tasks: of the widest panel, or what is in its place at the end; of some panels. */
#define GEMV_TASK (8 * VL)
#define GEMM_TASK (4 * NR)
ALWAYS_INLINE void FN(pack_gemv_task)(const REAL *src, ptrdiff_t rs, ptrdiff_t cs, ptrdiff_t k, ptrdiff_t n,
                                      ptrdiff_t task, REAL *dst) {
    ptrdiff_t j = task * GEMV_TASK;
    FN(pack_gemv)(src + j * cs, rs, cs, k, FN(smaller)(n - j, GEMV_TASK), dst + j * k);
}
ALWAYS_INLINE void FN(pack_gemm_task)(const REAL *src, ptrdiff_t rs, ptrdiff_t cs, ptrdiff_t k, ptrdiff_t n,
                                      ptrdiff_t task, REAL *dst) {
    ptrdiff_t j = task * GEMM_TASK;
    FN(pack_gemm)(src + j * cs, rs, cs, k, FN(smaller)(n - j, GEMM_TASK), dst + j * k);
}

/* ---- forward -------------------------------------------------------------------------------------------- */

/* Transposing Wxh pays when most of its columns are wanted. */
ALWAYS_INLINE int FN(transposes_inputs)(const sequence_arguments *a) {
    return a->indices && a->T >= PACK_FROM && 2 * a->T >= a->d;
}

/* What is done before the first time step, in tasks: how many there are of each kind. */
typedef struct {
    const sequence_arguments *a;
    const FN(space) *s;
    int samples; /* Why is packed for matrix-vector products */
    ptrdiff_t looked_at, turned, recurrent, output;
    int infinite[TEAM_MOST]; /* whether a slot has found a number in Wxh that is not finite */
} FN(preparation);

static void FN(prepare_task)(void *argument, ptrdiff_t i, int slot) {
    FN(preparation) *p = argument;
    const FN(space) *s = p->s;
    ptrdiff_t d = p->a->d, h = p->a->h, q = p->a->q, ldh = FN(padded)(h), first;
    const REAL *Wxh = p->a->params[WXH], *Why = p->a->params[WHY];
    if (i < p->recurrent) {
        FN(pack_gemv_task)(p->a->params[WHH], 1, h, h, h, i, s->Whh);
        return;
    }
    i -= p->recurrent;
    if (i < p->output) {
        if (p->samples) FN(pack_gemv_task)(Why, 1, h, h, q, i, s->Why);
        else FN(pack_gemm_task)(Why, 1, h, h, q, i, s->Why);
        return;
    }
    i -= p->output;
    if (i < p->turned) {
        first = i * TURNED_ROWS;
        FN(pack_panel)(Wxh + first, 1, d, FN(smaller)(d - first, TURNED_ROWS), h, ldh, s->Wxh + first * ldh);
        return;
    }
    first = (i - p->turned) * TASK_ELEMENTS;
    if (!FN(all_finite)(Wxh + first, FN(smaller)(h * d - first, TASK_ELEMENTS))) p->infinite[slot] = 1;
}

/* Packs what forward, or sample, needs.
 *
 * A column of Wxh is the product with a one-hot vector only while the rest of Wxh is finite: 0 times NaN is
 * NaN.  Where it is not, the product is made in full. */
static void FN(prepare_forward)(const sequence_arguments *a, FN(space) *s, int samples) {
    ptrdiff_t d = a->d, h = a->h, q = a->q;
    int packed = a->T >= PACK_FROM;
    FN(preparation) p;
    FN(copy_padded)(s->bias_h, a->params[BH], h);
    FN(copy_row)(s->bias_y, a->params[BY], q);
    for (ptrdiff_t j = q; j < FN(padded)(q); j++) s->bias_y[j] = -(REAL)INFINITY;
    p.a = a;
    p.s = s;
    p.samples = samples;
    p.recurrent = packed ? FN(tasks_of)(h, GEMV_TASK) : 0;
    p.output = packed ? samples ? FN(tasks_of)(q, GEMV_TASK) : FN(tasks_of)(q, GEMM_TASK) : 0;
    p.turned = FN(transposes_inputs)(a) ? FN(tasks_of)(d, TURNED_ROWS) : 0;
    p.looked_at = a->indices ? FN(tasks_of)(h * d, TASK_ELEMENTS) : 0;
    for (int slot = 0; slot < a->threads; slot++) p.infinite[slot] = 0;
    FN(run_tasks)(packed ? a->threads : 1, p.recurrent + p.output + p.turned + p.looked_at, FN(prepare_task), &p);
    for (int slot = 0; slot < a->threads; slot++) s->dense |= p.infinite[slot];
}

/* Whether a team goes through the time steps. */
ALWAYS_INLINE int FN(on_team)(const sequence_arguments *a, const FN(space) *s) {
    return a->threads > 1 && a->T >= PACK_FROM && !s->dense;
}

/* out = Wxh x + bh for a class index: a column.  Its elements from .. end, whole vectors of the padded row. */
ALWAYS_INLINE void FN(project_index)(const sequence_arguments *a, const FN(space) *s, int64_t index, ptrdiff_t from,
                                     ptrdiff_t end, REAL *out) {
    ptrdiff_t h = a->h, ldh = FN(padded)(h);
    if (s->dense) { /* on one thread */
        FN(fill)(s->inputs, FN(padded)(a->d), 0);
        s->inputs[index] = 1;
        FN(copy_row)(out, s->bias_h, ldh);
        FN(add_rows_times)(a->params[WXH], h, a->d, s->inputs, out);
        return;
    }
    if (FN(transposes_inputs)(a)) {
        const REAL *column = s->Wxh + index * ldh;
        for (ptrdiff_t i = from; i < end; i += VL)
            FN(store)(out + i, FN(load)(column + i) + FN(load)(s->bias_h + i));
        return;
    }
    const REAL *column = (const REAL *)a->params[WXH] + index;
    ptrdiff_t i = from;
    for (; i < end && i < h; i++) out[i] = s->bias_h[i] + column[i * a->d];
    for (; i < end; i++) out[i] = 0;
}

/* Wxh x_t + bh for steps t0 .. t0 + n, into n rows; those elements alone. */
ALWAYS_INLINE void FN(project_block)(const sequence_arguments *a, const FN(space) *s, ptrdiff_t t0, ptrdiff_t n,
                                     ptrdiff_t from, ptrdiff_t end, REAL *rows) {
    ptrdiff_t d = a->d, h = a->h, ldh = FN(padded)(h);
    if (from >= end) return;
    for (ptrdiff_t t = 0; t < n; t++) {
        REAL *row = rows + t * ldh;
        if (a->indices) {
            FN(project_index)(a, s, a->indices[t0 + t], from, end, row);
        } else {
            const REAL *Wxh = a->params[WXH], *x = (const REAL *)a->x + (t0 + t) * d;
            FN(copy_row)(row + from, s->bias_h + from, end - from);
            FN(add_rows_times)(Wxh + from * d, FN(smaller)(end, h) - from, d, x, row + from);
        }
    }
}

/* row = tanh(row + Whh before), in place (eq. 1). */
ALWAYS_INLINE void FN(recurrent_step)(const sequence_arguments *a, const FN(space) *s, ptrdiff_t t,
                                      const REAL *before, REAL *row) {
    ptrdiff_t h = a->h, ldh = FN(padded)(h);
    if (a->T >= PACK_FROM) {
        FN(gemv)(s->Whh, h, h, before, EPILOGUE_CELL, TANH, row, row, row, t & 1);
        return;
    }
    FN(add_rows_times)(a->params[WHH], h, h, before, row);
    FN(apply_cell)(TANH, ldh, row);
}

/* A member's units of  row = tanh(z + Whh before),  and of the same in `hs` (h). */
ALWAYS_INLINE void FN(share_of_step)(const sequence_arguments *a, const FN(space) *s, const team_member *member,
                                     const FN(shares) *mine, ptrdiff_t t, const REAL *before, const REAL *z,
                                     REAL *row, REAL *hs) {
    ptrdiff_t h = a->h, end = FN(smaller)(mine->unit_end, h);
    if (member->size == 1) FN(gemv)(s->Whh, h, h, before, EPILOGUE_CELL, TANH, z, z, row, t & 1);
    else FN(gemv_some)(s->Whh, h, h, before, EPILOGUE_CELL, TANH, z, z, row, mine->panel, mine->panel_end);
    if (hs && mine->unit < end) FN(copy_row)(hs + mine->unit, row + mine->unit, end - mine->unit);
}

/* A member's share of the probabilities of n steps from t0 on, of states in rows 1 .. n (eqs. 2, 16, 17).  `biased`:
 * the rows of s.dy hold the bias already. */
ALWAYS_INLINE void FN(probabilities)(const sequence_arguments *a, const FN(space) *s, team_member *member,
                                     ptrdiff_t t0, ptrdiff_t n, int biased) {
    ptrdiff_t h = a->h, q = a->q, ldh = FN(padded)(h), ldq = FN(padded)(q), t, end;
    const REAL *states = s->states + ldh, *bias = s->bias_y;
    REAL *y = s->dy, *ps = (REAL *)a->ps + t0 * q;
    FN(tile) tiles[FN(MOST_TILES)];
    if (a->T >= PACK_FROM) {
        int count = FN(share_tiles)(member, n, ldq, tiles);
        for (int i = 0; i < count; i++) {
            const FN(tile) at = tiles[i];
            for (ptrdiff_t r = at.row; r < at.row + at.rows && !biased; r++)
                FN(copy_row)(y + r * ldq + at.column, bias + at.column, at.columns);
            FN(tile_times_panels)(&at, h, states, ldh, s->Why, y, ldq, 1);
        }
    } else {
        FN(rows_times_strips)(a->params[WHY], q, h, n, states, ldh, y, ldq);
    }
    FN(meet)(member);
    for (team_share(n, member->rank, member->size, &t, &end); t < end; t++) {
        FN(softmax)(y + t * ldq, ldq);
        FN(copy_row)(ps + t * q, y + t * ldq, q);
    }
}

/* A pass through time by a team. */
typedef struct {
    const sequence_arguments *a;
    FN(space) s;
    ptrdiff_t steps;
    /* of sample */
    const double *uniforms;
    int64_t *out;
    int64_t input;   /* the next one */
    ptrdiff_t drawn; /* how many */
} FN(pass);

/* A step of the team is a time step, or at the end of a block its outputs.  Inputs go to rows of dz: the last state of
 * the block before is read until the second time step. */
static void FN(forward_step)(const FN(pass) *p, team_member *member, const FN(shares) *mine, ptrdiff_t step) {
    const sequence_arguments *a = p->a;
    const FN(space) *s = &p->s;
    ptrdiff_t ldh = FN(padded)(a->h), t = step % (BLOCK + 1), t0 = step / (BLOCK + 1) * BLOCK;
    ptrdiff_t n = FN(smaller)(a->T - t0, BLOCK);
    if (t == n) {
        FN(probabilities)(a, s, member, t0, n, 0);
        return;
    }
    if (!t) FN(project_block)(a, s, t0, n, mine->unit, mine->unit_end, s->dz);
    const REAL *before = s->states + (t || !t0 ? t : BLOCK) * ldh;
    FN(share_of_step)(a, s, member, mine, t, before, s->dz + t * ldh, s->states + (t + 1) * ldh,
                      (REAL *)a->hs + (t0 + t + 1) * a->h);
}

/* The body of a team whose steps a function does. */
#define TEAM_BODY(name, type, one_step)                                                                   \
    static ptrdiff_t FN(name)(void *argument, team_member *member, ptrdiff_t step) {                      \
        type *p = argument;                                                                               \
        const ptrdiff_t steps = p->steps;                                                                 \
        const FN(shares) mine = FN(shares_of)(p->a, member);                                              \
        do FN(one_step)(p, member, &mine, step++);                                                        \
        while (step < steps && !fastrnn_team_meet_between(member));                                       \
        return step;                                                                                      \
    }

TEAM_BODY(forward_body, const FN(pass), forward_step)

static void FN(forward)(const sequence_arguments *a) {
    ptrdiff_t T = a->T, h = a->h, ldh = FN(padded)(h), ldq = FN(padded)(a->q);
    FN(pass) p;
    FN(space) *s = &p.s;
    REAL *hs = a->hs;
    p.a = a;
    p.s = FN(layout)(a->work, T, a->d, h, a->q);
    FN(prepare_forward)(a, s, 0);
    FN(copy_padded)(s->states, hs, h);
    if (FN(on_team)(a, s)) {
        p.steps = T + FN(tasks_of)(T, BLOCK);
        fastrnn_team_steps(a->threads, p.steps, FN(forward_body), &p);
        return;
    }
    team_member alone = FN(alone);
    for (ptrdiff_t t0 = 0; t0 < T; t0 += BLOCK) {
        ptrdiff_t n = FN(smaller)(T - t0, BLOCK);
        FN(project_block)(a, s, t0, n, 0, ldh, s->states + ldh);
        for (ptrdiff_t t = 0; t < n; t++) {
            REAL *row = s->states + (t + 1) * ldh;
            FN(recurrent_step)(a, s, t, row - ldh, row);
            FN(copy_row)(hs + (t0 + t + 1) * h, row, h);
            FN(copy_row)(s->dy + t * ldq, s->bias_y, ldq); /* while the processor waits for the product */
        }
        FN(probabilities)(a, s, &alone, t0, n, 1);
        FN(copy_row)(s->states, s->states + n * ldh, ldh);
    }
}

/* ---- the recurrent part of forward alone ---------------------------------------------------------------- */

static void FN(pack_recurrent_task)(void *argument, ptrdiff_t i, int slot) {
    const FN(pass) *p = argument;
    ptrdiff_t h = p->a->h;
    (void)slot;
    FN(pack_gemv_task)(p->a->params[WHH], 1, h, h, h, i, p->s.Whh);
}

static void FN(recurrence_step)(const FN(pass) *p, team_member *member, const FN(shares) *mine, ptrdiff_t t) {
    const FN(space) *s = &p->s;
    ptrdiff_t h = p->a->h, ldh = FN(padded)(h), from = mine->unit, end = mine->unit_end;
    REAL *hs = (REAL *)p->a->hs + (t + 1) * h;
    if (from < end) FN(copy_widened)(s->dz + from, hs + from, FN(smaller)(end, h) - from, end - from);
    FN(share_of_step)(p->a, s, member, mine, t, s->states + (t & 1) * ldh, s->dz, s->states + (~t & 1) * ldh, hs);
}

TEAM_BODY(recurrence_body, const FN(pass), recurrence_step)

static void FN(recurrence)(const sequence_arguments *a) {
    ptrdiff_t T = a->T, h = a->h, ldh = FN(padded)(h);
    FN(pass) p;
    FN(space) *s = &p.s;
    REAL *hs = a->hs;
    p.a = a;
    p.s = FN(layout)(a->work, T, a->d, h, a->q);
    p.steps = T;
    if (T >= PACK_FROM) FN(run_tasks)(a->threads, FN(tasks_of)(h, GEMV_TASK), FN(pack_recurrent_task), &p);
    FN(copy_padded)(s->states, hs, h);
    if (FN(on_team)(a, s)) {
        fastrnn_team_steps(a->threads, T, FN(recurrence_body), &p);
        return;
    }
    for (ptrdiff_t t = 0; t < T; t++) {
        REAL *row = s->states + (t % BLOCK + 1) * ldh;
        FN(copy_padded)(row, hs + (t + 1) * h, h);
        FN(recurrent_step)(a, s, t, t % BLOCK ? row - ldh : s->states, row);
        FN(copy_row)(hs + (t + 1) * h, row, h);
        if (t % BLOCK == BLOCK - 1) FN(copy_row)(s->states, row, ldh);
    }
}

/* ---- sampling ------------------------------------------------------------------------------------------- */

/* One time step of a team: states, logits, and by member 0 the draw.  After one that failed, nothing more is done. */
static void FN(sample_one)(FN(pass) *p, team_member *member, const FN(shares) *mine, ptrdiff_t t) {
    const sequence_arguments *a = p->a;
    const FN(space) *s = &p->s;
    ptrdiff_t h = a->h, q = a->q, ldh = FN(padded)(h), from, end;
    REAL *before = s->states + (t & 1) * ldh, *row = s->states + (~t & 1) * ldh, *y = s->dy;
    if (p->drawn < t) return;
    FN(project_index)(a, s, p->input, mine->unit, mine->unit_end, s->dz);
    FN(share_of_step)(a, s, member, mine, t, before, s->dz, row, NULL);
    FN(meet)(member);
    FN(share_panels)(member, q, &from, &end);
    FN(gemv_some)(s->Why, h, q, row, EPILOGUE_ADD, 0, s->bias_y, s->bias_y, y, from, end);
    FN(meet)(member);
    if (member->rank) return;
    FN(softmax)(y, FN(padded)(q));
    p->input = FN(draw)(y, q, p->uniforms[t]);
    if (p->input < 0) return;
    p->out[t] = p->input;
    p->drawn = t + 1;
}

TEAM_BODY(sample_body, FN(pass), sample_one)

static ptrdiff_t FN(sample)(const sequence_arguments *a, void *state, int64_t start, const double *uniforms,
                            int64_t *out) {
    ptrdiff_t n = a->T, h = a->h, q = a->q, ldh = FN(padded)(h), ldq = FN(padded)(q), t;
    FN(pass) p;
    FN(space) *s = &p.s;
    p.a = a;
    p.s = FN(layout)(a->work, n, a->d, h, q);
    REAL *before = s->states, *row = s->states + ldh, *y = s->dy;
    int packed = n >= PACK_FROM;
    FN(prepare_forward)(a, s, 1);
    FN(copy_padded)(before, state, h);
    if (FN(on_team)(a, s)) {
        p.steps = n;
        p.uniforms = uniforms;
        p.out = out;
        p.input = start;
        p.drawn = 0;
        fastrnn_team_steps(a->threads, n, FN(sample_body), &p);
        FN(copy_row)(state, s->states + (p.drawn & 1) * ldh, h);
        return p.drawn;
    }
    for (t = 0; t < n; t++) {
        FN(project_index)(a, s, start, 0, ldh, row);
        FN(recurrent_step)(a, s, t, before, row);
        if (packed) {
            FN(gemv)(s->Why, h, q, row, EPILOGUE_ADD, 0, s->bias_y, s->bias_y, y, t & 1);
        } else {
            FN(copy_row)(y, s->bias_y, ldq);
            FN(add_rows_times)(a->params[WHY], q, h, row, y);
        }
        FN(softmax)(y, ldq);
        start = FN(draw)(y, q, uniforms[t]);
        if (start < 0) break;
        out[t] = start;
        REAL *swap = before;
        before = row;
        row = swap;
    }
    FN(copy_row)(state, before, h);
    return t;
}
