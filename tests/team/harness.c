/* Drives teams hard, and looks at every number that they leave.
 *
 *     harness [seconds] [seed] [without-forks]
 *
 * Callers in several threads share steps and tasks at random, while others change the settings, fork children that
 * form teams of their own, and stop and continue the process.  Ends with zero when all was right, and by a signal
 * when it hangs.
 */
#include "waiting.h"

#include "team.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CALLERS = 3, MOST = 6, STEPS = 40, TASKS = 300, GRACE = 60 };

static int64_t end;
static ptrdiff_t faults, step_calls, task_calls, together, forks, stops;

/* Random numbers, one stream for each thread */

static uint32_t draw(uint64_t *stream, uint32_t below) {
    *stream = *stream * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*stream >> 33) % below;
}

static void busy(uint32_t rounds) {
    for (volatile uint32_t i = 0; i < rounds; i++) continue;
}

static void fault(const char *what) {
    if (count_add(&faults, 1) < 10) fprintf(stderr, "wrong: %s\n", what);
}

/* Steps: what each unit has after a step follows from all units before it. */

enum { UNITS = 13 };

typedef struct {
    ptrdiff_t steps;
    int threads, within; /* meetings inside each step */
    uint32_t work;
    uint64_t now[UNITS], next[UNITS];
    int largest;
} run;

static uint64_t mixed(const uint64_t *units, ptrdiff_t at, ptrdiff_t step) {
    uint64_t sum = (uint64_t)step;
    for (int i = 0; i < UNITS; i++) sum = sum * 31 + units[i];
    return sum ^ (uint64_t)at * 0x9e3779b97f4a7c15u;
}

static void shared_step(run *r, team_member *member, ptrdiff_t step) {
    ptrdiff_t first, last;
    team_share(UNITS, member->rank, member->size, &first, &last);
    for (ptrdiff_t i = first; i < last; i++) r->next[i] = mixed(r->now, i, step);
    if (r->work) busy(r->work * (uint32_t)(1 + (step + member->rank) % 3));
    for (int i = 0; i < r->within; i++) fastrnn_team_meet(member);
    fastrnn_team_meet(member);
    for (ptrdiff_t i = first; i < last; i++) r->now[i] = r->next[i];
}

static ptrdiff_t shared_steps(void *argument, team_member *member, ptrdiff_t step) {
    run *r = argument;
    ptrdiff_t steps = r->steps;
    if (member->rank < 0 || member->rank >= member->size || member->size > r->threads) fault("rank or size");
    if (member->rank == 0 && member->size > r->largest) r->largest = member->size;
    for (; step < steps; step++) {
        shared_step(r, member, step);
        if (step + 1 < steps && fastrnn_team_meet_between(member)) return step + 1;
    }
    return steps;
}

static void try_steps(uint64_t *stream) {
    uint64_t want[UNITS] = {0}, next[UNITS];
    run r = {.steps = draw(stream, STEPS), .threads = 1 + (int)draw(stream, MOST), .within = (int)draw(stream, 3)};
    r.work = draw(stream, 4) ? draw(stream, 300) : draw(stream, 10000);
    fastrnn_team_steps(r.threads, r.steps, shared_steps, &r);
    for (ptrdiff_t step = 0; step < r.steps; step++) {
        for (int i = 0; i < UNITS; i++) next[i] = mixed(want, i, step);
        memcpy(want, next, sizeof want);
    }
    if (memcmp(want, r.now, sizeof want)) fault("units after steps");
    count_add(&step_calls, 1);
    if (r.largest > 1) count_add(&together, 1);
}

/* Tasks: each once, and no two at a time in one slot */

typedef struct {
    int threads;
    uint32_t work, in_slot[MOST];
    int done[TASKS];
    ptrdiff_t by_slot[MOST];
} list;

static void one_task(void *argument, ptrdiff_t index, int slot) {
    list *l = argument;
    if (slot < 0 || slot >= l->threads) {
        fault("slot");
        return;
    }
    if (word_exchange(&l->in_slot[slot], 1)) fault("a slot in use");
    l->done[index]++;
    l->by_slot[slot]++;
    if (l->work) busy(l->work);
    word_store(&l->in_slot[slot], 0);
}

static void try_tasks(uint64_t *stream) {
    list l = {.threads = 1 + (int)draw(stream, MOST)};
    ptrdiff_t count = draw(stream, 2) ? draw(stream, 8) : draw(stream, TASKS), sum = 0;
    l.work = draw(stream, 2) ? draw(stream, 50) : draw(stream, 3000);
    fastrnn_team_tasks(l.threads, count, one_task, &l);
    for (ptrdiff_t i = 0; i < TASKS; i++) {
        if (l.done[i] != (i < count)) fault("a task done not once");
    }
    for (int i = 0; i < MOST; i++) sum += l.by_slot[i];
    if (sum != count) fault("tasks of all slots");
    count_add(&task_calls, 1);
    if (l.by_slot[0] != count) count_add(&together, 1);
}

/* Some teams, and sometimes a pause in which helpers fall asleep */
static void try_some(uint64_t *stream, int number) {
    for (int i = 0; i < number; i++) {
        if (draw(stream, 2)) {
            try_steps(stream);
        } else {
            try_tasks(stream);
        }
        if (draw(stream, 50) == 0) usleep(draw(stream, 2000));
    }
}

static void *call_teams(void *stream) {
    while (clock_now() < end) try_some(stream, 20);
    return NULL;
}

/* What else goes on */

static void change_settings(uint64_t *stream) {
    static const double watches[] = {0, 1, 50, 1000}, limits[] = {-1, -1, -1, 0, 200};
    fastrnn_team_settings(watches[draw(stream, 4)], limits[draw(stream, 5)]);
}

static int ended_well(pid_t child) {
    int status;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void try_fork(uint64_t *stream) {
    pid_t child = fork();
    if (child == 0) {
        int64_t enough = clock_now() + GRACE / 2 * (int64_t)1000000000;
        alarm(GRACE);
        faults = together = 0;
        fastrnn_team_settings(50, -1);
        while (together == 0 && clock_now() < enough) try_some(stream, 20);
        if (together == 0) fault("no team in a child");
        /* Half of them end while helpers look on or work, in the way of exit(), half at once. */
        if (draw(stream, 2)) exit(faults != 0);
        _exit(faults != 0);
    }
    if (!ended_well(child)) fault("a child");
    count_add(&forks, 1);
}

static void try_stop(uint64_t *stream) {
    pid_t child = fork();
    uint32_t pause = draw(stream, 5000);
    if (child == 0) {
        kill(getppid(), SIGSTOP);
        usleep(pause);
        kill(getppid(), SIGCONT);
        _exit(0);
    }
    if (!ended_well(child)) fault("a child that stops its parent");
    count_add(&stops, 1);
}

static void disturb(uint64_t *stream, int with_forks) {
    while (clock_now() < end) {
        usleep(draw(stream, 20000));
        change_settings(stream);
        if (fastrnn_team_numbers().helpers >= MOST) fault("more helpers than asked for");
        if (fastrnn_team_wake_time() == 0 || fastrnn_team_bare_wake_time() == 0) fault("a wake in no time");
        if (!with_forks) continue;
        if (draw(stream, 2)) {
            try_fork(stream);
        } else {
            try_stop(stream);
        }
    }
}

int main(int count, char **given) {
    double seconds = count > 1 ? atof(given[1]) : 3;
    uint64_t seed = count > 2 ? strtoull(given[2], NULL, 10) : 1, streams[CALLERS + 1];
    pthread_t callers[CALLERS];
    team_numbers numbers;
    alarm((unsigned)seconds + GRACE);
    end = clock_now() + (int64_t)(seconds * 1e9);
    for (int i = 0; i <= CALLERS; i++) streams[i] = seed * 1000 + (uint64_t)i;
    for (int i = 0; i < CALLERS; i++) {
        if (pthread_create(&callers[i], NULL, call_teams, &streams[i])) return 2;
    }
    disturb(&streams[CALLERS], count < 4);
    for (int i = 0; i < CALLERS; i++) pthread_join(callers[i], NULL);
    numbers = fastrnn_team_numbers();
    printf("steps %td, tasks %td, together %td, forks %td, stops %td, helpers %d, dissolved %lld, avoided %lld, "
           "faults %td\n",
           step_calls, task_calls, together, forks, stops, numbers.helpers, (long long)numbers.dissolved,
           (long long)numbers.avoided, faults);
    if (together == 0) fault("no team at all");
    return faults != 0;
}
