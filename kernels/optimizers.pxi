# Updates of the optimizers: see `fastrnn.kernels.numpy_kernels.optimizers` for formulas and arguments.

from libc.stddef cimport ptrdiff_t
from libc.string cimport strcmp

cdef extern from "csrc/dispatch.h" nogil:
    enum:
        OPTIMIZER_STATES, OPTIMIZER_NUMBERS
    ctypedef struct update_arguments:
        ptrdiff_t n
        void *param
        const void *grad
        void *state[4]
        const double *numbers
    ctypedef void (*update_loop)(const update_arguments *) noexcept nogil
    ctypedef struct optimizer:
        const char *name
        update_loop loop
        int states, numbers
    const optimizer *fastrnn_optimizers(int element_type)
    void fastrnn_update(ptrdiff_t count, const update_arguments *all, const update_loop *loops, const int *element_types,
                        int threads)

cdef enum:
    AT_ONCE = 32


cdef const void *readable(object array, int typenum, Py_ssize_t size) except? NULL:
    """As `data`, for an array that is only read: it may be read-only."""
    cdef cnp.ndarray a = <cnp.ndarray?>array
    if cnp.PyArray_TYPE(a) != typenum or not cnp.PyArray_ISCARRAY_RO(a) or cnp.PyArray_SIZE(a) < size:
        raise ValueError(
            f"kernels take C-contiguous arrays of one dtype and at least {size} elements here, "
            f"got {a.dtype} of shape {array.shape}"
        )
    return cnp.PyArray_DATA(a)


cdef const optimizer *find_optimizer(str name, int element, Py_ssize_t states, Py_ssize_t numbers) except NULL:
    """The entry of the table that has this name, of as many kinds of state and numbers."""
    cdef const optimizer *entry = fastrnn_optimizers(element)
    cdef bytes wanted = name.encode()
    while entry.name != NULL:
        if strcmp(entry.name, wanted) == 0:
            if entry.states != states or entry.numbers != numbers:
                raise ValueError(
                    f"{name} takes {entry.states} kinds of state and {entry.numbers} numbers, got {states} and {numbers}"
                )
            return entry
        entry += 1
    raise ValueError(f"there is no optimizer {name!r}")


cdef int fill_update(update_arguments *a, Py_ssize_t i, tuple params, tuple grads, tuple states) except -1:
    """Addresses of the arrays of parameter `i`; returns its element type."""
    cdef object w = params[i]
    cdef int element = element_type(w), slot
    cdef int typenum = cnp.NPY_DOUBLE if element == FLOAT64 else cnp.NPY_FLOAT
    cdef tuple arrays
    a.n = cnp.PyArray_SIZE(<cnp.ndarray>w)
    a.param = data(w, typenum, a.n)
    a.grad = readable(grads[i], typenum, a.n)
    for slot in range(OPTIMIZER_STATES):
        a.state[slot] = NULL
        if slot < len(states):
            arrays = states[slot]
            if arrays:
                a.state[slot] = data(arrays[i], typenum, a.n)
    return element


def optimize(str name, tuple params, tuple grads, tuple states, tuple numbers, int threads=1):
    """A step of the optimizer called `name`, in place; without the GIL, after all arrays have been looked at."""
    cdef update_arguments arguments[AT_ONCE]
    cdef update_loop loops[AT_ONCE]
    cdef int elements[AT_ONCE]
    cdef double settings[16]  # OPTIMIZER_NUMBERS
    cdef Py_ssize_t count = len(params), start, i, n
    cdef int element
    threads = team_size(threads)
    if len(grads) != count or any([arrays and len(arrays) != count for arrays in states]):
        raise ValueError("kernels take as many gradients and arrays of state as parameters")
    find_optimizer(name, FLOAT64, len(states), len(numbers))
    for i in range(count):  # all of them, before any is written
        fill_update(&arguments[0], i, params, grads, states)
    for i in range(len(numbers)):
        settings[i] = numbers[i]
    for start in range(0, count, AT_ONCE):
        n = min(count - start, AT_ONCE)
        for i in range(n):
            element = elements[i] = fill_update(&arguments[i], start + i, params, grads, states)
            arguments[i].numbers = settings
            loops[i] = find_optimizer(name, element, len(states), len(numbers)).loop
        with nogil:
            fastrnn_update(n, arguments, loops, elements, threads)
