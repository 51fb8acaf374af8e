# Teams of threads that share a call: see csrc/team.h.

cdef extern from "csrc/team.h" nogil:
    enum:
        TEAM_MOST
    ctypedef struct team_numbers_struct "team_numbers":
        int helpers, asleep
        int64_t dissolved, avoided
    void fastrnn_team_settings(double watch, double late)
    team_numbers_struct fastrnn_team_numbers()
    double fastrnn_team_wake_time()
    double fastrnn_team_bare_wake_time()

#: Kernels share the work of a call among threads, as many as they are told.
HAS_TEAMS = True
#: The most threads of a team.
MOST_THREADS = TEAM_MOST


def team_settings(double watch, double late):
    """For tests: microseconds that a meeting is watched before its thread sleeps, and that make a member late.

    A negative `late` never dissolves a team; a negative `watch` leaves both as they are.
    """
    fastrnn_team_settings(watch, late)


def team_numbers():
    """Helpers that there are, those asleep, teams dissolved for lateness, and calls that ran alone because of it."""
    cdef team_numbers_struct numbers = fastrnn_team_numbers()
    return {
        "helpers": numbers.helpers, "asleep": numbers.asleep, "dissolved": numbers.dissolved,
        "avoided": numbers.avoided,
    }


def team_wake_time():
    """Nanoseconds from the beginning of a call until a helper works; -1 where there is none."""
    cdef double time
    with nogil:
        time = fastrnn_team_wake_time()
    return time


def team_bare_wake_time():
    """Nanoseconds that a bare wake of a sleeping thread takes; -1 where there is none."""
    cdef double time
    with nogil:
        time = fastrnn_team_bare_wake_time()
    return time
