# The batched layer: see `fastrnn.kernels.numpy_kernels.layer` for the functions.


cdef int fill_layer(layer_arguments *a, tuple layer, object packed) except -1:
    """Sizes and weights of a layer, packed ones unless `packed` has no elements; returns its element type."""
    W_ih, W_hh, b_ih, b_hh = layer
    cdef int loops = element_type(W_ih), typenum = typenum_of(loops)
    cdef Py_ssize_t packed_size, work_size
    if cnp.PyArray_NDIM(<cnp.ndarray>W_ih) != 2:
        raise ValueError("kernels take two-dimensional weights")
    a.h = cnp.PyArray_DIM(<cnp.ndarray>W_ih, 0)
    a.d = cnp.PyArray_DIM(<cnp.ndarray>W_ih, 1)
    a.W_ih = data(W_ih, typenum, a.h * a.d)
    a.W_hh = data(W_hh, typenum, a.h * a.h)
    a.b_ih = data(b_ih, typenum, a.h)
    a.b_hh = data(b_hh, typenum, a.h)
    fastrnn_batched(loops).layer_sizes(1, 1, a.d, a.h, &packed_size, &work_size)
    a.packed = data_or_null(packed, typenum, packed_size)
    return loops


cdef int code_of(int cell) except -1:
    """The cell, if there is one of this code."""
    cdef const named_number *known = fastrnn_cells()
    while known.name != NULL:
        if known.number == cell:
            return cell
        known += 1
    raise ValueError(f"kernels know cells 0 to {known.number - 1}, got {cell}")


cdef int fill_rows(Py_ssize_t *start, Py_ssize_t *stop, tuple rows, Py_ssize_t N, Py_ssize_t T) except -1:
    start[0], stop[0] = rows
    if not 0 <= start[0] < stop[0] <= N:
        raise ValueError(f"kernels take rows of the batch, got {start[0]} to {stop[0]} of {N}")
    if T < 1:
        raise ValueError(f"kernels take at least one time step, got {T}")
    return 0


cdef int fill_batch(layer_arguments *a, int loops, tuple batch, object h0, object hs, tuple rows, int cell,
                    object work) except -1:
    """What forward and backward share."""
    cdef int typenum = typenum_of(loops)
    cdef Py_ssize_t packed_size, work_size
    cdef int64_t length
    indices, x, lengths, a.reverse = batch
    a.cell = code_of(cell)
    if cnp.PyArray_NDIM(<cnp.ndarray?>hs) != 3:
        raise ValueError("kernels take three-dimensional states")
    a.T = cnp.PyArray_DIM(<cnp.ndarray>hs, 0)
    a.N = cnp.PyArray_DIM(<cnp.ndarray>hs, 1)
    fill_rows(&a.start, &a.stop, rows, a.N, a.T)
    a.hs = data(hs, typenum, a.T * a.N * a.h)
    a.h0 = data(h0, typenum, a.N * a.h)
    a.indices = <const int64_t *>data_or_null(indices, cnp.NPY_INT64, a.T * a.N)
    a.x = NULL if a.indices != NULL else data(x, typenum, a.T * a.N * a.d)
    a.lengths = <const int64_t *>data_or_null(lengths, cnp.NPY_INT64, a.N)
    if a.lengths != NULL:
        for i in range(a.start, a.stop):
            length = a.lengths[i]
            if not 1 <= length <= a.T:
                raise ValueError(f"kernels take lengths from 1 to {a.T}, got {length}")
    fastrnn_batched(loops).layer_sizes(a.T, a.stop - a.start, a.d, a.h, &packed_size, &work_size)
    a.work = data(work, typenum, work_size)
    return 0


def layer_sizes(Py_ssize_t T, Py_ssize_t N, Py_ssize_t rows, Py_ssize_t d, Py_ssize_t h):
    """Elements of `packed` and of `work` for a layer, N sequences, at most `rows` of them at once."""
    cdef Py_ssize_t packed[2]
    cdef Py_ssize_t work[2]
    cdef Py_ssize_t m, most = 0
    for loops in range(2):
        for m in range(1, rows + 1):  # fewer rows make longer blocks
            fastrnn_batched(loops).layer_sizes(T, m, d, h, &packed[loops], &work[loops])
            most = max(most, work[loops])
    return max(packed[0], packed[1]), most


def pack_layer(tuple layer, Py_ssize_t N, bint one_hot, packed):
    """Bring the weights of a layer into the order in which N sequences will read them.

    Nothing is done where `packed` has no elements: the weights are to be used as they are.
    """
    cdef layer_arguments a
    cdef int loops = fill_layer(&a, layer, packed)
    a.N = N
    a.one_hot = one_hot
    if a.packed == NULL:
        return
    with nogil:
        fastrnn_batched(loops).pack_layer(&a)


def layer_forward(tuple layer, packed, tuple batch, h0, hs, h_n, tuple rows, int cell, work):
    """States of a layer (eq. 1)."""
    cdef layer_arguments a
    cdef int loops = fill_layer(&a, layer, packed)
    fill_batch(&a, loops, batch, h0, hs, rows, cell, work)
    a.h_n = data(h_n, typenum_of(loops), a.N * a.h)
    with nogil:
        fastrnn_batched(loops).layer_forward(&a)


def layer_backward(tuple layer, packed, tuple batch, tuple states, tuple upstream, tuple wanted, tuple grads,
                   bint accumulate, tuple rows, int cell, work):
    """Gradients of a layer by BPTT (eqs. 9 to 13)."""
    cdef layer_arguments a
    cdef int loops = fill_layer(&a, layer, packed), typenum = typenum_of(loops)
    h0, hs = states
    dhs, dh_n = upstream
    dx, dh0, dh_all = wanted
    fill_batch(&a, loops, batch, h0, hs, rows, cell, work)
    a.dhs = data(dhs, typenum, a.T * a.N * a.h)
    a.dh_n = data_or_null(dh_n, typenum, a.N * a.h)
    a.dx = data_or_null(dx, typenum, a.T * a.N * a.d)
    if a.indices != NULL:
        a.dx = NULL
    a.dh0 = data(dh0, typenum, a.N * a.h)
    a.dh_all = data_or_null(dh_all, typenum, a.T * a.N * a.h)
    a.dW_ih = a.dW_hh = a.db_ih = a.db_hh = NULL
    if grads:
        dW_ih, dW_hh, db_ih, db_hh = grads
        a.dW_ih = data(dW_ih, typenum, a.h * a.d)
        a.dW_hh = data(dW_hh, typenum, a.h * a.h)
        a.db_ih = data(db_ih, typenum, a.h)
        a.db_hh = data(db_hh, typenum, a.h)
    a.accumulate = accumulate
    with nogil:
        fastrnn_batched(loops).layer_backward(&a)
