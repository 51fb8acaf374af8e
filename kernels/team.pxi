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


cdef extern from "csrc/dispatch.h" nogil:
    ctypedef struct copy_arguments:
        Py_ssize_t T, N, bytes
        const char *source
        char *out
        Py_ssize_t source_strides[2]
        Py_ssize_t out_strides[2]
    void fastrnn_copy(const copy_arguments *, int threads)


def copy_steps(source, out, int threads=1):
    """Copy an array (T, N, n) to another, by time steps, where the last axis of both is contiguous."""
    cdef cnp.ndarray a = <cnp.ndarray?>source, b = <cnp.ndarray?>out
    cdef copy_arguments c
    cdef int i
    cdef Py_ssize_t size
    threads = team_size(threads)
    if (
        cnp.PyArray_NDIM(a) != 3 or cnp.PyArray_NDIM(b) != 3 or cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(b)
        or not (cnp.PyArray_ISBEHAVED_RO(a) and cnp.PyArray_ISBEHAVED(b))
        or cnp.PyArray_TYPE(a) not in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE)
    ):
        raise ValueError(f"kernels copy arrays (T, N, n) of one dtype, the second writable, got {source.dtype} and {out.dtype}")
    for i in range(3):
        if cnp.PyArray_DIM(a, i) != cnp.PyArray_DIM(b, i):
            raise ValueError(f"kernels copy arrays of one shape, got {source.shape} and {out.shape}")
    size = cnp.PyArray_ITEMSIZE(a)
    if cnp.PyArray_SIZE(a) == 0:
        return
    if cnp.PyArray_DIM(a, 2) > 1 and (cnp.PyArray_STRIDE(a, 2) != size or cnp.PyArray_STRIDE(b, 2) != size):
        out[...] = source
        return
    c.T, c.N, c.bytes = cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1), cnp.PyArray_DIM(a, 2) * size
    c.source = cnp.PyArray_BYTES(a)
    c.out = cnp.PyArray_BYTES(b)
    for i in range(2):
        c.source_strides[i] = cnp.PyArray_STRIDE(a, i)
        c.out_strides[i] = cnp.PyArray_STRIDE(b, i)
    with nogil:
        fastrnn_copy(&c, threads)


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
