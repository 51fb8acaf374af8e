# Updates of the optimizers: see `fastrnn.kernels.numpy_optimizers` for formulas and arguments.

from libc.stddef cimport ptrdiff_t

cdef extern from "csrc/dispatch.h" nogil:
    ctypedef struct update_arguments:
        ptrdiff_t n
        void *param
        const void *grad
        void *state[3]
    ctypedef struct update_settings:
        double lr, momentum, dampening, weight_decay, lr_decay, alpha, eps, beta1, beta2
        int nesterov
        int64_t step
    ctypedef void (*update_loop)(const update_arguments *, const update_settings *) noexcept nogil
    ctypedef struct optimizer_loops:
        update_loop sgd, adagrad, rmsprop, adam
    const optimizer_loops *fastrnn_optimizers(int element_type)

cdef enum:
    SGD, ADAGRAD, RMSPROP, ADAM
    BATCH = 32


cdef const void *readable(object array, int typenum, Py_ssize_t size) except? NULL:
    """As `data`, for an array that is only read: it may be read-only."""
    cdef cnp.ndarray a = <cnp.ndarray?>array
    if cnp.PyArray_TYPE(a) != typenum or not cnp.PyArray_ISCARRAY_RO(a) or cnp.PyArray_SIZE(a) < size:
        raise ValueError(
            f"kernels take C-contiguous arrays of one dtype and at least {size} elements here, "
            f"got {a.dtype} of shape {array.shape}"
        )
    return cnp.PyArray_DATA(a)


cdef int fill_update(update_arguments *a, Py_ssize_t i, tuple params, tuple grads, tuple states) except -1:
    """Addresses of the arrays of parameter `i`; returns its element type."""
    cdef object w = params[i]
    cdef int element = element_type(w), slot
    cdef int typenum = cnp.NPY_DOUBLE if element == FLOAT64 else cnp.NPY_FLOAT
    cdef tuple arrays
    a.n = cnp.PyArray_SIZE(<cnp.ndarray>w)
    a.param = data(w, typenum, a.n)
    a.grad = readable(grads[i], typenum, a.n)
    for slot in range(3):
        a.state[slot] = NULL
        if slot < len(states):
            arrays = states[slot]
            if arrays:
                a.state[slot] = data(arrays[i], typenum, a.n)
    return element


cdef update_loop loop_of(int optimizer, int element) noexcept nogil:
    cdef const optimizer_loops *loops = fastrnn_optimizers(element)
    if optimizer == SGD:
        return loops.sgd
    if optimizer == ADAGRAD:
        return loops.adagrad
    if optimizer == RMSPROP:
        return loops.rmsprop
    return loops.adam


cdef int update_all(int optimizer, tuple params, tuple grads, tuple states, const update_settings *s) except -1:
    """Run one loop over each parameter, without the GIL, after all arrays have been looked at."""
    cdef update_arguments arguments[BATCH]
    cdef update_loop loops[BATCH]
    cdef Py_ssize_t count = len(params), start, i, n
    if len(grads) != count or any([arrays and len(arrays) != count for arrays in states]):
        raise ValueError("kernels take as many gradients and arrays of state as parameters")
    if count > BATCH:
        for i in range(count):
            fill_update(&arguments[0], i, params, grads, states)
    for start in range(0, count, BATCH):
        n = min(count - start, BATCH)
        for i in range(n):
            loops[i] = loop_of(optimizer, fill_update(&arguments[i], start + i, params, grads, states))
        with nogil:
            for i in range(n):
                loops[i](&arguments[i], s)
    return 0


def sgd(
    tuple params, tuple grads, tuple buffers, double lr, double momentum, double dampening,
    double weight_decay, bint nesterov, int64_t step,
):
    """Gradient descent, with momentum where there are buffers; in place."""
    cdef update_settings s
    s.lr, s.momentum, s.dampening, s.weight_decay = lr, momentum, dampening, weight_decay
    s.nesterov, s.step = nesterov, step
    update_all(SGD, params, grads, (buffers,), &s)


def adagrad(
    tuple params, tuple grads, tuple sums, double lr, double lr_decay, double weight_decay, double eps,
    int64_t step,
):
    """Steps divided by the root of the sum of squared gradients; in place."""
    cdef update_settings s
    s.lr, s.lr_decay, s.weight_decay, s.eps, s.step = lr, lr_decay, weight_decay, eps, step
    update_all(ADAGRAD, params, grads, (sums,), &s)


def rmsprop(
    tuple params, tuple grads, tuple squares, tuple buffers, tuple means, double lr, double alpha,
    double eps, double weight_decay, double momentum,
):
    """Steps divided by the root of a running average of squared gradients; in place."""
    cdef update_settings s
    s.lr, s.alpha, s.eps, s.weight_decay, s.momentum = lr, alpha, eps, weight_decay, momentum
    update_all(RMSPROP, params, grads, (squares, buffers, means), &s)


def adam(
    tuple params, tuple grads, tuple means, tuple squares, double lr, double beta1, double beta2,
    double eps, double weight_decay, int64_t step,
):
    """Running averages of the gradient and of its square, both corrected for their start at zero; in place."""
    cdef update_settings s
    s.lr, s.beta1, s.beta2, s.eps, s.weight_decay, s.step = lr, beta1, beta2, eps, weight_decay, step
    update_all(ADAM, params, grads, (means, squares), &s)
