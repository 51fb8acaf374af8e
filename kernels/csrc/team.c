/* Teams: see team.h for what they do, and waiting.h for what differs between systems.
 *
 * Each helper has a slot, which one caller at a time has claimed.  Only that caller writes to the helper's word
 * `call`, and the helper answers in its word `arrived`; each spins on a line of its own that the other rarely
 * writes.  A word has a turn, which makes each call another value, and a kind:
 *
 *     caller: TASKS or STEPS      an invitation; IDLE takes it back where the helper has not come
 *     helper: TAKEN               in its place; of TASKS it works from then on, for STEPS it waits for BEGIN
 *     caller: BEGIN               rank, size and step stand in the slot
 *     helper: arrived = turn      at a meeting, or at the end
 *     caller: GO, or LEAVE        the meeting is over; with LEAVE the helper is out of the team
 *
 * The helper waits for any change of `call`, so nothing has to be said to one that is in no team.  Between a LEAVE
 * and the next BEGIN, and between TAKEN (for STEPS) and BEGIN, it reads no memory but its slot.
 *
 * Who sleeps on a word sets the bit SLEEPS in it first, by a compare-and-swap, and who gives the word its next value
 * does so by an exchange: if that returns the bit, it wakes the sleeper.  So no wake is lost, and none is in vain.
 */
#include "waiting.h"

#include "team.h"

enum { IDLE, TASKS, STEPS, TAKEN, BEGIN, GO, LEAVE, KIND = 7, SLEEPS = 8, TURN = 16 };

/* How often a word is looked at before the next look at the clock. */
enum { LOOKS = 64 };

/* Tasks that a team shares; on the caller's stack, where the count has its cache lines to itself. */
typedef struct {
    team_task task;
    void *argument;
    ptrdiff_t count;
    char before[128];
    ptrdiff_t next;
    char after[128];
} task_list;

typedef struct {
    OWN_LINE waiting_word call;    /* written by the caller; the helper watches it */
    OWN_LINE waiting_word arrived; /* written by the helper; the caller watches it */
    OWN_LINE uint32_t claimed;     /* nonzero: what follows belongs to one caller */
    uint32_t turn;
    int rank, size;
    ptrdiff_t step;
    team_steps_body body;
    void *argument;
    task_list *tasks;
} helper_slot;

/* A team, on its caller's stack.  The first size - 1 helpers are at work, the others were invited. */
typedef struct {
    int size, invited, late;
    int awake;      /* of those invited */
    int64_t since;  /* from when on gain and loss are not counted yet */
    int64_t waking; /* time since then that went to waking helpers, which may take the processor at once */
    helper_slot *helpers[TEAM_MOST - 1];
} team;

/* A helper, on its own stack. */
typedef struct {
    helper_slot *slot;
    uint32_t seen; /* the last call that it has followed */
    int left;
    int alert; /* how long it looks on when idle, in halves of the setting */
} helper;

/* A helper that has been of use may be so again soon; one that came too late may be in the way of others. */
enum { TOO_LATE = 1, OF_USE = 4 };

static helper_slot slots[TEAM_MOST - 1];

static struct {
    OWN_LINE uint32_t made; /* slots that have a thread */
    uint32_t making;        /* a lock that nobody waits for */
    uint32_t forks_known;
    int64_t make_again;     /* after a failure not sooner; under that lock */
    OWN_LINE uint32_t watch, late; /* settings, in nanoseconds; late is NEVER or less than that */
} crew = {.watch = 50000, .late = 200000};

enum { NEVER = 0x7fffffff };

/* What teams have gained and lost, in nanoseconds against the same work alone. */
static struct {
    OWN_LINE uint32_t lock;
    uint32_t quiet; /* no team forms before `until` */
    int64_t until, balance, gained, lost;
    int failures;
    ptrdiff_t dissolved, avoided;
} ledger;

/* Waiting */

/* Gives a word its next value. */
static void post(waiting_word *word, uint32_t value) {
    if (word_exchange(&word->value, value) & SLEEPS) word_wake(word);
}

/* Watches a word for a while; returns its value.  *since becomes the time of the first look at the clock. */
static uint32_t watch_word(waiting_word *word, uint32_t old, int64_t watch, int64_t *since) {
    uint32_t value;
    int64_t now = 0;
    do {
        for (int i = 0; i < LOOKS; i++) {
            value = word_load(&word->value);
            if (value != old) return value;
            HOLD_ON();
        }
        now = clock_now();
        if (*since == 0) *since = now;
    } while (now - *since < watch);
    return old;
}

/* Waits until a word is no longer `old`, with open eyes for `watch` nanoseconds, then asleep. */
static uint32_t await(waiting_word *word, uint32_t old, int64_t watch, int64_t *since) {
    uint32_t value = watch > 0 ? watch_word(word, old, watch, since) : word_load(&word->value);
    while ((value & ~(uint32_t)SLEEPS) == old) {
        if (*since == 0) *since = clock_now();
        if (value != old || word_replace(&word->value, old, old | SLEEPS)) word_sleep(word, old | SLEEPS);
        value = word_load(&word->value);
    }
    return value;
}

/* Gain and loss */

static int try_lock(uint32_t *lock) { return word_load(lock) == 0 && word_exchange(lock, 1) == 0; }

static void unlock(uint32_t *lock) { word_store(lock, 0); }

static int64_t between(int64_t low, int64_t value, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

/* For a while, no teams: twenty times what was lost, and after a wait twice that the next time. */
static void go_quiet(int64_t wait) {
    int64_t lost = wait > -ledger.balance ? wait : -ledger.balance;
    int64_t rest = between(0, 20 * lost, 2000000000) << ledger.failures;
    ledger.until = clock_now() + between(50000000, rest, 2000000000);
    ledger.failures = (int)between(0, ledger.failures + (wait > 0), 10);
    ledger.lost = lost;
    ledger.balance = ledger.gained = 0;
    count_add(&ledger.dissolved, 1);
    word_store(&ledger.quiet, 1);
}

/* Counts a gain, or a loss with the wait that caused it; nonzero when teams do not pay for now. */
static int settle(int64_t gain, int64_t wait) {
    int64_t late = word_load(&crew.late);
    int bad = 0;
    if (late == NEVER || !try_lock(&ledger.lock)) return 0;
    ledger.balance = between(INT64_MIN, ledger.balance + gain, 20 * late);
    ledger.gained += gain;
    if (ledger.gained > 4 * ledger.lost) ledger.failures = 0;
    if (ledger.balance < -late) {
        bad = 1;
        go_quiet(wait);
    }
    unlock(&ledger.lock);
    return bad;
}

/* Whether a team may form now. */
static int may_form(void) {
    int may = 0;
    if (word_load(&ledger.quiet) == 0 || word_load(&crew.late) == NEVER) return 1;
    if (try_lock(&ledger.lock)) {
        may = clock_now() >= ledger.until;
        if (may) word_store(&ledger.quiet, 0);
        unlock(&ledger.lock);
    }
    if (!may) count_add(&ledger.avoided, 1);
    return may;
}

/* Helpers */

static void do_tasks(task_list *list, int slot) {
    ptrdiff_t index;
    while ((index = count_add(&list->next, 1)) < list->count) list->task(list->argument, index, slot);
}

static uint32_t turn_of(uint32_t word) { return word & ~(uint32_t)(TURN - 1); }

/* Comes to what it was invited to, unless it is too late for that. */
static void come(helper *self, uint32_t word) {
    helper_slot *slot = self->slot;
    uint32_t taken = turn_of(word) | TAKEN;
    if (!word_replace(&slot->call.value, word, taken)) return;
    self->seen = taken;
    self->alert = OF_USE;
    if ((word & KIND) == TASKS) {
        do_tasks(slot->tasks, slot->rank);
        post(&slot->arrived, turn_of(taken));
    }
}

static void do_steps(helper *self) {
    helper_slot *slot = self->slot;
    team_member member = {slot->rank, slot->size, self};
    self->left = 0;
    slot->body(slot->argument, &member, slot->step);
    if (!self->left) post(&slot->arrived, turn_of(self->seen));
}

THREAD_BODY(help, argument) {
    helper self = {argument, IDLE, 0, 0};
    for (;;) {
        int64_t since = 0;
        int64_t watch = self.alert * (int64_t)word_load(&crew.watch) / 2;
        uint32_t word = await(&self.slot->call, self.seen, watch, &since);
        if ((word & KIND) == TASKS || (word & KIND) == STEPS) {
            come(&self, word);
        } else {
            self.seen = word;
            if ((word & KIND) == BEGIN) {
                do_steps(&self);
            } else if ((word & KIND) == IDLE) {
                self.alert = TOO_LATE;
            }
        }
    }
    return 0;
}

/* A helper's meeting; nonzero when it is out of the team. */
static int follow(helper *self) {
    int64_t since = 0;
    uint32_t word;
    post(&self->slot->arrived, turn_of(self->seen));
    word = await(&self->slot->call, self->seen, word_load(&crew.watch), &since);
    if ((word & KIND) == GO) {
        self->seen = word;
    } else {
        self->left = 1; /* the word is followed by help() */
    }
    return self->left;
}

/* Inviting */

static void forget_all(void);

/* Gives a helper its next turn; nonzero when it was awake. */
static int call(team *group, helper_slot *slot, uint32_t kind) {
    int asleep;
    slot->turn += TURN;
    asleep = (word_exchange(&slot->call.value, slot->turn | kind) & SLEEPS) != 0;
    if (asleep) {
        int64_t before = clock_now();
        word_wake(&slot->call);
        group->waking += clock_now() - before;
    }
    return !asleep;
}

/* Puts the next helper of a team into a slot that is claimed. */
static void enlist(team *group, helper_slot *slot, task_list *tasks) {
    group->helpers[group->invited++] = slot;
    slot->rank = group->invited;
    slot->tasks = tasks;
}

static void invite_idle(team *group, int wanted, task_list *tasks) {
    int made = (int)word_load(&crew.made);
    for (int i = 0; i < made && group->invited < wanted; i++) {
        if (!try_lock(&slots[i].claimed)) continue;
        enlist(group, &slots[i], tasks);
        group->awake += call(group, &slots[i], tasks != NULL ? TASKS : STEPS);
    }
}

/* A thread for the next slot, which is invited from its birth on. */
static int make_one(team *group, task_list *tasks) {
    helper_slot *slot = &slots[crew.made];
    word_store(&slot->claimed, 1);
    slot->turn = TURN;
    word_prepare(&slot->arrived, 0);
    word_prepare(&slot->call, slot->turn | (tasks != NULL ? TASKS : STEPS));
    enlist(group, slot, tasks);
    if (!start_thread(help, slot)) {
        group->invited--;
        return 0;
    }
    word_store(&crew.made, crew.made + 1);
    return 1;
}

static void make_more(team *group, int wanted, task_list *tasks) {
    if ((int)word_load(&crew.made) >= wanted || !try_lock(&crew.making)) return;
    if (!crew.forks_known) crew.forks_known = (uint32_t)after_fork(forget_all);
    if (crew.forks_known && (crew.make_again == 0 || clock_now() >= crew.make_again)) {
        while (group->invited < wanted && (int)crew.made < wanted) {
            if (make_one(group, tasks)) continue;
            crew.make_again = clock_now() + 1000000000;
            break;
        }
    }
    unlock(&crew.making);
}

/* Invites helpers for up to `threads` members; none in a quiet time. */
static void invite(team *group, int threads, task_list *tasks) {
    group->size = 1;
    group->invited = group->late = group->awake = 0;
    group->since = group->waking = 0;
    if (threads > TEAM_MOST) threads = TEAM_MOST;
    if (threads < 2 || !may_form()) return;
    invite_idle(group, threads - 1, tasks);
    make_more(group, threads - 1, tasks);
}

static int has_come(helper_slot *slot) { return (word_load(&slot->call.value) & KIND) == TAKEN; }

/* Takes an invitation back; nonzero when the helper has come. */
static int has_come_in_the_end(helper_slot *slot) {
    return !word_replace(&slot->call.value, slot->turn | TASKS, slot->turn | IDLE) &&
           !word_replace(&slot->call.value, slot->turn | STEPS, slot->turn | IDLE);
}

/* Lets all helpers go: those at work have arrived, or are done. */
static void dismiss(team *group) {
    for (int i = 0; i < group->invited; i++) {
        has_come_in_the_end(group->helpers[i]);
        unlock(&group->helpers[i]->claimed);
    }
    group->size = 1;
    group->invited = group->late = 0;
}

/* Steps */

/* Waits until a helper has arrived from its last turn. */
static void await_arrival(helper_slot *slot, int64_t watch, int64_t *since) {
    uint32_t value;
    while ((value = word_load(&slot->arrived.value)) != slot->turn) await(&slot->arrived, value, watch, since);
}

/* What a team has gained in a time of which its leader has waited a part: three quarters of the work of each helper
 * are held to be worth it. */
static int64_t gain_of(int size, int64_t time, int64_t wait) { return (time - wait) * (3 * size + 1) / 4 - time; }

/* Counts a wait of the leader, with its time for waking, if that is long. */
static void count_wait(team *group, int64_t since) {
    int64_t now = clock_now(), wait = now - since + group->waking;
    if (wait < between(0, word_load(&crew.watch), word_load(&crew.late))) return;
    if (settle(gain_of(group->size, now - group->since, wait), wait)) group->late = 1;
    group->since = now;
    group->waking = 0;
}

/* The leader's half of a meeting: waits for all. */
static void gather(team *group) {
    int64_t since = 0, watch = word_load(&crew.watch);
    for (int i = 0; i < group->size - 1; i++) await_arrival(group->helpers[i], watch, &since);
    if (since != 0) count_wait(group, since);
}

/* The leader's other half. */
static void release(team *group, uint32_t kind) {
    for (int i = 0; i < group->size - 1; i++) call(group, group->helpers[i], kind);
}

static int somebody_has_come(team *group) {
    for (int i = group->size - 1; i < group->invited; i++) {
        if (has_come(group->helpers[i])) return 1;
    }
    return 0;
}

/* Helpers that are awake need a moment to come. */
static void wait_a_moment(team *group) {
    int64_t until = clock_now() + 900;
    for (int i = 0; i < group->invited; i++) {
        while (!has_come(group->helpers[i])) {
            HOLD_ON();
            if (clock_now() >= until) return;
        }
    }
}

/* Takes those in that have come, and lets all begin. */
static void begin(team *group, team_steps_body body, void *argument, ptrdiff_t step) {
    for (int i = group->size - 1; i < group->invited; i++) {
        helper_slot *slot = group->helpers[i];
        if (!has_come(slot)) continue;
        group->helpers[i] = group->helpers[group->size - 1];
        group->helpers[group->size - 1] = slot;
        group->size++;
    }
    if (group->size == 1) return;
    for (int i = 0; i < group->size - 1; i++) {
        helper_slot *slot = group->helpers[i];
        slot->rank = i + 1;
        slot->size = group->size;
        slot->step = step;
        slot->body = body;
        slot->argument = argument;
    }
    group->since = clock_now() - group->waking;
    release(group, BEGIN);
}

void fastrnn_team_meet(team_member *member) {
    if (member->size == 1) return;
    if (member->rank > 0) {
        follow(member->inside);
    } else {
        gather(member->inside);
        release(member->inside, GO);
    }
}

int fastrnn_team_meet_between(team_member *member) {
    team *group = member->inside;
    int leave;
    if (group == NULL) return 0;
    if (member->rank > 0) return follow(member->inside);
    if (member->size > 1) gather(group);
    leave = group->late || somebody_has_come(group);
    release(group, leave ? LEAVE : GO);
    return leave;
}

void fastrnn_team_steps(int threads, ptrdiff_t steps, team_steps_body body, void *argument) {
    team group;
    ptrdiff_t step = 0;
    if (threads <= 1) {
        team_member alone = {0, 1, NULL};
        while (step < steps) step = body(argument, &alone, step);
        return;
    }
    invite(&group, steps > 0 ? threads : 1, NULL);
    if (group.awake > 0) wait_a_moment(&group);
    while (step < steps) {
        team_member member = {0, 1, &group};
        if (group.late) dismiss(&group);
        begin(&group, body, argument, step);
        member.size = group.size;
        step = body(argument, &member, step);
    }
    if (group.size > 1) {
        gather(&group);
        settle(gain_of(group.size, clock_now() - group.since, group.waking), 0);
    } else if (group.waking > 0) {
        settle(-group.waking, 0);
    }
    dismiss(&group);
}

/* Tasks */

/* Does the caller's part; returns how many that were, and how long the longest took. */
static ptrdiff_t do_own_tasks(task_list *list, int64_t *longest) {
    ptrdiff_t index, done = 0;
    int64_t now = clock_now();
    for (*longest = 0; (index = count_add(&list->next, 1)) < list->count; done++) {
        int64_t before = now;
        list->task(list->argument, index, 0);
        now = clock_now();
        if (now - before > *longest) *longest = now - before;
    }
    return done;
}

/* Takes invitations back, and waits for those that are at work; returns how many. */
static int await_the_last(team *group, int64_t *since) {
    int64_t watch = word_load(&crew.watch);
    int came = 0;
    for (int i = 0; i < group->invited; i++) {
        if (!has_come_in_the_end(group->helpers[i])) continue;
        await_arrival(group->helpers[i], watch, since);
        came++;
    }
    return came;
}

/* What tasks took against what they would have taken alone; a wait no longer than a task is no loss. */
static int64_t gain_of_tasks(int64_t time, int64_t wait, ptrdiff_t done, ptrdiff_t count, int64_t longest) {
    double alone = (double)(time - wait) * ((double)count / (double)done);
    int64_t gain = (alone < 1e15 ? (int64_t)alone : (int64_t)1e15) - time;
    return between(wait > longest ? longest - wait : 0, gain, INT64_MAX);
}

void fastrnn_team_tasks(int threads, ptrdiff_t count, team_task task, void *argument) {
    task_list list;
    team group;
    int64_t start, longest, since = 0, gain = 0, wait = 0;
    ptrdiff_t done;
    int came;
    if (threads <= 1 || count <= 1) {
        for (ptrdiff_t i = 0; i < count; i++) task(argument, i, 0);
        return;
    }
    list.task = task;
    list.argument = argument;
    list.count = count;
    list.next = 0;
    if (threads > count) threads = (int)count;
    invite(&group, threads, &list);
    if (group.invited == 0) {
        do_tasks(&list, 0);
        return;
    }
    start = clock_now();
    done = do_own_tasks(&list, &longest);
    came = await_the_last(&group, &since);
    if (since != 0) wait = clock_now() - since;
    if (came > 0 && done > 0) gain = gain_of_tasks(clock_now() - start, wait, done, count, longest);
    if (came > 0 || group.waking > 0) settle(gain - group.waking, wait);
    dismiss(&group);
}

/* Settings and numbers */

static uint32_t nanoseconds(double microseconds) {
    return microseconds < 2e6 ? (uint32_t)(microseconds * 1000) : 2000000000;
}

static void forget_losses(void) {
    ledger.balance = ledger.gained = ledger.lost = 0;
    ledger.failures = 0;
    word_store(&ledger.quiet, 0);
}

void fastrnn_team_settings(double watch, double late) {
    if (!(watch >= 0)) return;
    word_store(&crew.watch, nanoseconds(watch));
    word_store(&crew.late, late >= 0 ? nanoseconds(late) : NEVER);
    while (!try_lock(&ledger.lock)) HOLD_ON();
    forget_losses();
    unlock(&ledger.lock);
}

team_numbers fastrnn_team_numbers(void) {
    team_numbers numbers = {(int)word_load(&crew.made), 0, 0, 0};
    for (int i = 0; i < numbers.helpers; i++) {
        numbers.asleep += (word_load(&slots[i].call.value) & SLEEPS) != 0;
    }
    numbers.dissolved = count_add(&ledger.dissolved, 0);
    numbers.avoided = count_add(&ledger.avoided, 0);
    return numbers;
}

/* Wake times */

/* The time at which a thread began, written once by it. */
typedef struct {
    int64_t time;
    uint32_t there;
} beginning;

enum { PATIENCE = 100000000 }; /* nanoseconds after which nobody is expected any more */

static int await_beginning(beginning *begun, int64_t start) {
    while (!word_load(&begun->there)) {
        if (clock_now() - start > PATIENCE) return 0;
        for (int i = 0; i < LOOKS && !word_load(&begun->there); i++) HOLD_ON();
    }
    return 1;
}

static void say_when(void *argument, ptrdiff_t index, int slot) {
    beginning *begun = argument;
    (void)index;
    if (slot == 0) {
        await_beginning(begun, clock_now());
    } else if (!word_load(&begun->there)) {
        begun->time = clock_now();
        word_store(&begun->there, 1);
    }
}

double fastrnn_team_wake_time(void) {
    beginning begun = {0, 0};
    int64_t start = clock_now();
    fastrnn_team_tasks(2, 2, say_when, &begun);
    return begun.there ? (double)(begun.time - start) : -1;
}

static struct {
    waiting_word call;
    beginning begun;
    uint32_t lock, made, turn;
    int forks_known; /* a child knows that it has no such thread */
} bare;

THREAD_BODY(wake_barely, argument) {
    (void)argument;
    for (uint32_t seen = 0;;) {
        int64_t since = 0;
        seen = await(&bare.call, seen, 0, &since);
        bare.begun.time = clock_now();
        word_store(&bare.begun.there, 1);
    }
    return 0;
}

static int make_bare(void) {
    if (!bare.forks_known) bare.forks_known = after_fork(forget_all);
    if (!bare.made && bare.forks_known) {
        bare.turn = 0;
        word_prepare(&bare.call, 0);
        bare.made = (uint32_t)start_thread(wake_barely, NULL);
    }
    return bare.made;
}

static double wake_the_bare_one(void) {
    int64_t start = clock_now();
    while (!(word_load(&bare.call.value) & SLEEPS)) {
        if (clock_now() - start > PATIENCE) return -1;
        HOLD_ON();
    }
    word_store(&bare.begun.there, 0);
    bare.turn += TURN;
    start = clock_now();
    post(&bare.call, bare.turn);
    return await_beginning(&bare.begun, start) ? (double)(bare.begun.time - start) : -1;
}

double fastrnn_team_bare_wake_time(void) {
    double time;
    if (!try_lock(&bare.lock)) return -1;
    time = make_bare() ? wake_the_bare_one() : -1;
    unlock(&bare.lock);
    return time;
}

/* In the child of a fork there is one thread, which is in no team. */
static void forget_all(void) {
    word_store(&crew.made, 0);
    word_store(&crew.making, 0);
    crew.make_again = 0;
    forget_losses();
    ledger.dissolved = ledger.avoided = 0;
    unlock(&ledger.lock);
    bare.made = 0;
    unlock(&bare.lock);
}
