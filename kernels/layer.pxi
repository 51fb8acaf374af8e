# The batched layer: see `fastrnn.kernels.numpy_kernels.layer` for the functions.


cdef int fill_layer(layer_arguments *a, tuple layer, object packed, int cell) except -1:
    """The cell, sizes and weights of a layer, packed ones unless `packed` has no elements; returns its element type."""
    W_ih, W_hh, b_ih, b_hh = layer
    cdef int loops = element_type(W_ih), typenum = typenum_of(loops)
    cdef Py_ssize_t gates, packed_size, work_size
    if cnp.PyArray_NDIM(<cnp.ndarray>W_ih) != 2 or cnp.PyArray_NDIM(<cnp.ndarray?>W_hh) != 2:
        raise ValueError("kernels take two-dimensional weights")
    a.cell = code_of(cell)
    a.h = cnp.PyArray_DIM(<cnp.ndarray>W_hh, 1)
    a.d = cnp.PyArray_DIM(<cnp.ndarray>W_ih, 1)
    gates = fastrnn_cells()[cell].gates * a.h
    a.W_ih = data(W_ih, typenum, gates * a.d)
    a.W_hh = data(W_hh, typenum, gates * a.h)
    a.b_ih = data(b_ih, typenum, gates)
    a.b_hh = data(b_hh, typenum, gates)
    fastrnn_batched(loops).layer_sizes(1, 1, a.d, a.h, cell, &packed_size, &work_size)
    a.packed = data_or_null(packed, typenum, packed_size)
    return loops


cdef int code_of(int cell) except -1:
    """The cell, if there is one of this code."""
    cdef const cell_numbers *known = fastrnn_cells()
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


cdef int fill_parts(batch_parts *parts, tuple rows, Py_ssize_t N, Py_ssize_t T) except -1:
    """Parts of a batch, each two bounds; the arrays of work space are looked at by `fill_works`."""
    cdef Py_ssize_t i, start, stop
    parts.count = len(rows)
    if not 1 <= parts.count <= MOST_PARTS:
        raise ValueError(f"kernels take 1 to {MOST_PARTS} parts, got {parts.count}")
    for i in range(parts.count):
        fill_rows(&start, &stop, rows[i], N, T)
        parts.bounds[i][0] = start
        parts.bounds[i][1] = stop
    return 0


cdef int fill_works(batch_parts *parts, list works, int threads, int typenum, Py_ssize_t size) except -1:
    """Work space, of `size` elements at least, for each thread that takes parts."""
    cdef Py_ssize_t i, count = min(threads, parts.count)
    if len(works) < count:
        raise ValueError(f"kernels take work space for each of {count} threads, got {len(works)}")
    for i in range(count):
        parts.works[i] = data(works[i], typenum, size)
    return 0


cdef int check_count(object grads, Py_ssize_t count) except -1:
    """One entry for each part."""
    if len(<tuple?>grads) != count:
        raise ValueError(f"kernels take the gradients of each of {count} parts, got {len(grads)}")
    return 0


cdef int fill_each_state(void **places, object arrays, int cell, int typenum, Py_ssize_t size, bint optional) except -1:
    """An array of each state of the cell."""
    cdef Py_ssize_t i, count = fastrnn_cells()[cell].states
    if len(<tuple?>arrays) != count:
        raise ValueError(f"kernels take {count} arrays of states for this cell, got {len(arrays)}")
    for i in range(count):
        array = (<tuple>arrays)[i]
        places[i] = data_or_null(array, typenum, size) if optional else data(array, typenum, size)
    return 0


cdef int fill_batch(layer_arguments *a, batch_parts *parts, int loops, tuple batch, object h0, object hs, object kept,
                    tuple rows, object work, int threads) except -1:
    """What forward and backward share."""
    cdef int typenum = typenum_of(loops)
    cdef Py_ssize_t packed_size, work_size, most = 0, i
    cdef int64_t length
    a.threads = team_size(threads)
    a.parts = NULL
    indices, x, lengths, a.reverse = batch
    if cnp.PyArray_NDIM(<cnp.ndarray?>hs) != 3:
        raise ValueError("kernels take three-dimensional states")
    a.T = cnp.PyArray_DIM(<cnp.ndarray>hs, 0)
    a.N = cnp.PyArray_DIM(<cnp.ndarray>hs, 1)
    if type(work) is list:
        fill_parts(parts, rows, a.N, a.T)
        a.parts = parts
        a.start, a.stop = 0, a.N
    else:
        fill_rows(&a.start, &a.stop, rows, a.N, a.T)
    a.hs = data(hs, typenum, a.T * a.N * a.h)
    a.kept = data_or_null(kept, typenum, a.T * a.N * fastrnn_cells()[a.cell].kept * a.h)
    fill_each_state(<void **>a.h0, h0, a.cell, typenum, a.N * a.h, False)
    a.indices = <const int64_t *>data_or_null(indices, cnp.NPY_INT64, a.T * a.N)
    a.x = NULL if a.indices != NULL else data(x, typenum, a.T * a.N * a.d)
    a.lengths = <const int64_t *>data_or_null(lengths, cnp.NPY_INT64, a.N)
    if a.lengths != NULL:
        for i in range(a.start, a.stop):
            length = a.lengths[i]
            if not 1 <= length <= a.T:
                raise ValueError(f"kernels take lengths from 1 to {a.T}, got {length}")
    if a.parts == NULL:
        fastrnn_batched(loops).layer_sizes(a.T, a.stop - a.start, a.d, a.h, a.cell, &packed_size, &work_size)
        a.work = data(work, typenum, work_size)
        return 0
    for i in range(parts.count):
        fastrnn_batched(loops).layer_sizes(
            a.T, parts.bounds[i][1] - parts.bounds[i][0], a.d, a.h, a.cell, &packed_size, &work_size
        )
        most = max(most, work_size)
    return fill_works(parts, work, a.threads, typenum, most)


cdef int fill_layer_gradients(void **places, object grads, layer_arguments *a, int typenum) except -1:
    """The four arrays of a layer's gradients, or none."""
    cdef Py_ssize_t gates = fastrnn_cells()[a.cell].gates * a.h, i
    for i in range(PART_GRADIENTS):
        places[i] = NULL
    if not grads:
        return 0
    dW_ih, dW_hh, db_ih, db_hh = grads
    places[0] = data(dW_ih, typenum, gates * a.d)
    places[1] = data(dW_hh, typenum, gates * a.h)
    places[2] = data(db_ih, typenum, gates)
    places[3] = data(db_hh, typenum, gates)
    return 0


def layer_sizes(Py_ssize_t T, Py_ssize_t N, Py_ssize_t rows, Py_ssize_t d, Py_ssize_t h, int cell):
    """Elements of `packed` and of `work` for a layer, N sequences, at most `rows` of them at once."""
    cdef Py_ssize_t packed[2]
    cdef Py_ssize_t work[2]
    cdef Py_ssize_t m, most = 0
    code_of(cell)
    for loops in range(2):
        for m in range(1, rows + 1):  # fewer rows make longer blocks
            fastrnn_batched(loops).layer_sizes(T, m, d, h, cell, &packed[loops], &work[loops])
            most = max(most, work[loops])
    return max(packed[0], packed[1]), most


def pack_layer(tuple layer, Py_ssize_t N, bint one_hot, int cell, packed, int passes=3, int threads=1):  # PACK_BOTH
    """Bring the weights of a layer into the order in which N sequences will read them.

    Nothing is done where `packed` has no elements: the weights are to be used as they are.
    """
    cdef layer_arguments a
    cdef int loops = fill_layer(&a, layer, packed, cell)
    a.N = N
    a.one_hot = one_hot
    a.passes = passes
    a.threads = team_size(threads)
    if a.packed == NULL:
        return
    with nogil:
        fastrnn_batched(loops).pack_layer(&a)


def layer_forward(tuple layer, packed, tuple batch, tuple h0, hs, kept, tuple h_n, tuple rows, int cell, work,
                  int threads=1):
    """States of a layer (eq. 1)."""
    cdef layer_arguments a
    cdef batch_parts parts
    cdef int loops = fill_layer(&a, layer, packed, cell)
    fill_batch(&a, &parts, loops, batch, h0, hs, kept, rows, work, threads)
    fill_each_state(a.h_n, h_n, cell, typenum_of(loops), a.N * a.h, False)
    with nogil:
        fastrnn_batched(loops).layer_forward(&a)


def layer_backward(tuple layer, packed, tuple batch, tuple states, tuple upstream, tuple wanted, tuple grads,
                   bint accumulate, tuple rows, int cell, work, int threads=1):
    """Gradients of a layer by BPTT (eqs. 9 to 13)."""
    cdef layer_arguments a
    cdef batch_parts parts
    cdef void *gradients[4]
    cdef int loops = fill_layer(&a, layer, packed, cell), typenum = typenum_of(loops), i
    h0, hs, kept = states
    dhs, dh_n = upstream
    dx, dh0, d_states = wanted
    fill_batch(&a, &parts, loops, batch, h0, hs, kept, rows, work, threads)
    if a.kept == NULL and fastrnn_cells()[cell].kept:
        raise ValueError("kernels take what was kept of the steps of a cell with gates, got none")
    a.dhs = data(dhs, typenum, a.T * a.N * a.h)
    fill_each_state(<void **>a.dh_n, dh_n, cell, typenum, a.N * a.h, True)
    a.dx = data_or_null(dx, typenum, a.T * a.N * a.d)
    if a.indices != NULL:
        a.dx = NULL
    fill_each_state(a.dh0, dh0, cell, typenum, a.N * a.h, False)
    fill_each_state(a.d_states, d_states, cell, typenum, a.T * a.N * a.h, True)
    if a.parts == NULL:
        fill_layer_gradients(gradients, grads, &a, typenum)
        a.dW_ih, a.dW_hh, a.db_ih, a.db_hh = gradients[0], gradients[1], gradients[2], gradients[3]
    else:
        check_count(grads, parts.count)
        for i in range(parts.count):
            fill_layer_gradients(parts.gradients[i], (<tuple>grads)[i], &a, typenum)
    a.accumulate = accumulate
    with nogil:
        fastrnn_batched(loops).layer_backward(&a)
