/* Teams: threads of C that share the work of one call.
 *
 * Helpers are started when they are first wanted, and then wait outside the GIL: for a moment with their eyes open,
 * so that the next call finds them at once, and after that asleep in the system.  The thread that calls is member 0.
 * It never waits for a helper to come: it begins alone, and those that it asked for join where they are there.
 *
 * There are two ways to share.  Tasks: pieces that do not wait for each other are taken by whoever is free.  Steps:
 * all members go through the same loop, do a share of each step, and meet before the next one.
 *
 * A meeting is waited for with open eyes for a bounded time, then asleep.  Where members are late for long (a busy
 * neighbour, a quota of processor time, more threads than cores), the team is dissolved at the next meeting that
 * allows it, the caller goes on alone, and for a while no team forms in this process.
 *
 * Shares are a matter of speed alone: a body must give the same bits whatever the size of its team, and must be right
 * when it is left and begun again between two steps with another team.
 */
#ifndef FASTRNN_TEAM_H
#define FASTRNN_TEAM_H

#include <stddef.h>
#include <stdint.h>

/* The most members of a team, and so of slots of tasks. */
enum { TEAM_MOST = 64 };

/* A member of a team, in the hands of its own thread.  A body reads rank and size, and nothing else. */
typedef struct {
    int rank, size; /* 0 <= rank < size */
    void *inside;   /* of team.c; NULL: a member made by hand, who is alone and meets nobody */
} team_member;

/* Does step after step from `step` on, each member its share, with a meeting after each but the last.  Returns the
 * number of all steps when they are done.  Where fastrnn_team_meet_between returns nonzero after step i, it returns
 * i + 1 at once: a member other than 0 may read nothing of `argument` after that. */
typedef ptrdiff_t (*team_steps_body)(void *argument, team_member *member, ptrdiff_t step);

/* Runs a body on at most `threads` threads, until it returns `steps` to member 0. */
void fastrnn_team_steps(int threads, ptrdiff_t steps, team_steps_body body, void *argument);

/* Every member waits for all others; what they wrote is then seen by all.  In a team of one it returns at once. */
void fastrnn_team_meet(team_member *member);

/* The same between two steps, where a team may change.  Nonzero, to all members, when the body is to be left. */
int fastrnn_team_meet_between(team_member *member);

/* Task number `index`; no two run at the same time with the same slot. */
typedef void (*team_task)(void *argument, ptrdiff_t index, int slot);

/* Runs each task once, on at most `threads` threads; a slot is below `threads`. */
void fastrnn_team_tasks(int threads, ptrdiff_t count, team_task task, void *argument);

/* What member `rank` of `size` has of n units: from *first up to *end.  No member has more than member 0, so that it
 * seldom waits, and what it waits is lateness. */
static inline void team_share(ptrdiff_t n, int rank, int size, ptrdiff_t *first, ptrdiff_t *end) {
    *first = (n * rank + size - 1) / size;
    *end = (n * (rank + 1) + size - 1) / size;
}

/* For tests and measurements.  Microseconds, 2 s at most: how long a meeting looks on before its members sleep (0 or
 * more; an idle helper looks on twice as long), and by how much teams may be behind the same work alone before one is
 * dissolved (negative: never, and no quiet time is kept).  What was lost before is forgotten.  A negative `watch`
 * leaves all as it is.  (A team of more threads than cores is right, and slow: tests let it be.) */
void fastrnn_team_settings(double watch, double late);

/* Helpers that there are, helpers that sleep, teams that were dissolved for lateness, and calls that ran alone
 * because of that, since the process began. */
typedef struct {
    int helpers, asleep;
    int64_t dissolved, avoided;
} team_numbers;
team_numbers fastrnn_team_numbers(void);

/* Nanoseconds from the beginning of a call until another member has begun its work, and what a bare wake of a
 * sleeping thread of the system takes likewise; -1 where there are no helpers to be had.  For measurements. */
double fastrnn_team_wake_time(void);
double fastrnn_team_bare_wake_time(void);

#endif
