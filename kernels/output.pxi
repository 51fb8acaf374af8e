# The output layer: see `fastrnn.kernels.numpy_kernels.output` for the functions.


cdef int fill_output(output_arguments *a, tuple output, object packed) except -1:
    """Sizes and weights of the output; returns its element type."""
    W, b = output
    cdef int loops = element_type(W), typenum = typenum_of(loops)
    cdef Py_ssize_t packed_size, work_size
    if cnp.PyArray_NDIM(<cnp.ndarray>W) != 2:
        raise ValueError("kernels take two-dimensional weights")
    a.q = cnp.PyArray_DIM(<cnp.ndarray>W, 0)
    a.h = cnp.PyArray_DIM(<cnp.ndarray>W, 1)
    a.W = data(W, typenum, a.q * a.h)
    a.b = data(b, typenum, a.q)
    fastrnn_batched(loops).output_sizes(1, 1, a.h, a.q, &packed_size, &work_size)
    a.packed = data(packed, typenum, packed_size)
    a.probabilities = 0
    return loops


cdef int fill_states(output_arguments *a, batch_parts *parts, int loops, object hs, tuple rows, object work,
                     int threads) except -1:
    cdef int typenum = typenum_of(loops)
    cdef Py_ssize_t packed_size, work_size, most = 0, i
    a.threads = team_size(threads)
    a.parts = NULL
    if cnp.PyArray_NDIM(<cnp.ndarray?>hs) != 3:
        raise ValueError("kernels take three-dimensional states")
    a.T = cnp.PyArray_DIM(<cnp.ndarray>hs, 0)
    a.N = cnp.PyArray_DIM(<cnp.ndarray>hs, 1)
    a.hs = data(hs, typenum, a.T * a.N * a.h)
    if type(work) is not list:
        fill_rows(&a.start, &a.stop, rows, a.N, a.T)
        fastrnn_batched(loops).output_sizes(a.T, a.stop - a.start, a.h, a.q, &packed_size, &work_size)
        a.work = data(work, typenum, work_size)
        return 0
    fill_parts(parts, rows, a.N, a.T)
    a.parts = parts
    a.start, a.stop = 0, a.N
    for i in range(parts.count):
        fastrnn_batched(loops).output_sizes(
            a.T, parts.bounds[i][1] - parts.bounds[i][0], a.h, a.q, &packed_size, &work_size
        )
        most = max(most, work_size)
    return fill_works(parts, work, a.threads, typenum, most)


def output_sizes(Py_ssize_t T, Py_ssize_t N, Py_ssize_t rows, Py_ssize_t h, Py_ssize_t q):
    """Elements of `packed` and of `work` for an output layer, N sequences, at most `rows` at once."""
    cdef Py_ssize_t packed[2]
    cdef Py_ssize_t work[2]
    cdef Py_ssize_t m, most = 0
    for loops in range(2):
        for m in range(1, rows + 1):
            fastrnn_batched(loops).output_sizes(T, m, h, q, &packed[loops], &work[loops])
            most = max(most, work[loops])
    return max(packed[0], packed[1]), most


def pack_output(tuple output, Py_ssize_t N, packed, int threads=1):
    """Bring the weights of an output layer into the order in which N sequences will read them."""
    cdef output_arguments a
    cdef int loops = fill_output(&a, output, packed)
    a.threads = team_size(threads)
    with nogil:
        fastrnn_batched(loops).pack_output(&a)


def output_logits(tuple output, packed, hs, logits, tuple rows, work, int threads=1):
    """Outputs ``y_t = W h_t + b`` (eq. 2), written to ``logits (T,N,q)``."""
    cdef output_arguments a
    cdef batch_parts parts
    cdef int loops = fill_output(&a, output, packed)
    fill_states(&a, &parts, loops, hs, rows, work, threads)
    a.dhs = NULL
    a.logits = data(logits, typenum_of(loops), a.T * a.N * a.q)
    with nogil:
        fastrnn_batched(loops).output_logits(&a)


cdef int fill_goal(output_arguments *a, int loops, tuple goal) except -1:
    """The loss, and what is wanted of the outputs."""
    cdef int typenum = typenum_of(loops)
    loss, classes, values, weights = goal
    a.loss = loss
    if not 0 <= a.loss < LOSSES:
        raise ValueError(f"kernels know losses 0 to {LOSSES - 1}, got {loss}")
    if a.loss == GAUSSIAN and a.q % 2:
        raise ValueError(f"kernels take as many log-variances as means, got {a.q} outputs")
    a.classes = NULL
    a.values = NULL
    a.weights = data_or_null(weights, typenum, a.T * a.N)
    if a.loss != CROSS_ENTROPY:
        a.values = data(values, typenum, a.T * a.N * (a.q // 2 if a.loss == GAUSSIAN else a.q))
        return 0
    a.classes = <const int64_t *>data(classes, cnp.NPY_INT64, a.T * a.N)
    return 0


def output_loss(tuple output, packed, hs, tuple goal, double scale, dhs, tuple grads, bint accumulate, tuple rows,
                work, int threads=1):
    """The loss, summed over steps and sequences, and its gradients (eqs. 8, 9)."""
    cdef output_arguments a
    cdef batch_parts parts
    cdef int loops = fill_output(&a, output, packed), typenum = typenum_of(loops), i
    cdef double loss
    fill_states(&a, &parts, loops, hs, rows, work, threads)
    fill_goal(&a, loops, goal)
    a.scale = scale
    a.dhs = data_or_null(dhs, typenum, a.T * a.N * a.h)
    if a.dhs != NULL and a.parts == NULL:
        dW, db = grads
        a.dW = data(dW, typenum, a.q * a.h)
        a.db = data(db, typenum, a.q)
    elif a.dhs != NULL:
        check_count(grads, parts.count)
        for i in range(parts.count):
            dW, db = (<tuple>grads)[i]
            parts.gradients[i][0] = data(dW, typenum, a.q * a.h)
            parts.gradients[i][1] = data(db, typenum, a.q)
    a.accumulate = accumulate
    with nogil:
        loss = fastrnn_batched(loops).output_loss(&a)
    return loss
