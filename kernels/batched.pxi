# The batched layer and the language model's output: see numpy_batched.py for the functions.

cdef extern from "csrc/dispatch.h" nogil:
    ctypedef struct layer_arguments:
        Py_ssize_t T, N, d, h
        const void *W_ih
        const void *W_hh
        const void *b_ih
        const void *b_hh
        void *packed
        int one_hot
        const int64_t *indices
        const void *x
        const int64_t *lengths
        const void *h0
        void *hs
        void *h_n
        const void *dhs
        const void *dh_n
        void *dx
        void *dh0
        void *dh_all
        void *dW_ih
        void *dW_hh
        void *db_ih
        void *db_hh
        int accumulate, cell, reverse
        Py_ssize_t start, stop
        void *work
    ctypedef struct output_arguments:
        Py_ssize_t T, N, h, q
        const void *W
        const void *b
        void *packed
        const void *hs
        const int64_t *targets
        void *logits
        double scale
        void *dhs
        void *dW
        void *db
        int accumulate
        Py_ssize_t start, stop
        void *work
    ctypedef struct sample_arguments:
        Py_ssize_t layers, N, n, h, q
        void *const *packed
        void *packed_output
        const void *W
        void *states
        const int64_t *first
        const double *uniforms
        double temperature, top_p
        Py_ssize_t top_k
        int64_t *out
        int cell
        Py_ssize_t start, stop
        void *work
    ctypedef struct batched_loops:
        void (*layer_sizes)(Py_ssize_t T, Py_ssize_t rows, Py_ssize_t d, Py_ssize_t h, Py_ssize_t *packed, Py_ssize_t *work) noexcept nogil
        void (*output_sizes)(Py_ssize_t T, Py_ssize_t rows, Py_ssize_t h, Py_ssize_t q, Py_ssize_t *packed, Py_ssize_t *work) noexcept nogil
        Py_ssize_t (*sample_size)(Py_ssize_t N, Py_ssize_t rows, Py_ssize_t h, Py_ssize_t q) noexcept nogil
        void (*pack_layer)(const layer_arguments *) noexcept nogil
        void (*pack_output)(const output_arguments *) noexcept nogil
        void (*layer_forward)(const layer_arguments *) noexcept nogil
        void (*layer_backward)(const layer_arguments *) noexcept nogil
        void (*output_logits)(const output_arguments *) noexcept nogil
        double (*output_loss)(const output_arguments *) noexcept nogil
        double (*reduce_gradients)(Py_ssize_t parts, Py_ssize_t n, const void *gradients, int clip, double threshold, void *sum) noexcept nogil
        Py_ssize_t (*sample_batch)(const sample_arguments *) noexcept nogil
    const batched_loops *fastrnn_batched(int element_type)


cdef int typenum_of(int loops):
    return cnp.NPY_DOUBLE if loops == FLOAT64 else cnp.NPY_FLOAT


cdef void *data_or_null(object array, int typenum, Py_ssize_t size) except? NULL:
    """As `data`; NULL for an array without elements."""
    if cnp.PyArray_SIZE(<cnp.ndarray?>array) == 0:
        return NULL
    return data(array, typenum, size)



cdef int fill_layer(layer_arguments *a, tuple layer, object packed) except -1:
    """Sizes and weights of a layer; returns its element type."""
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
    a.packed = data(packed, typenum, packed_size)
    return loops


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
    a.cell = cell
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
    return loops


cdef int fill_states(output_arguments *a, int loops, object hs, tuple rows, object work) except -1:
    cdef int typenum = typenum_of(loops)
    cdef Py_ssize_t packed_size, work_size
    if cnp.PyArray_NDIM(<cnp.ndarray?>hs) != 3:
        raise ValueError("kernels take three-dimensional states")
    a.T = cnp.PyArray_DIM(<cnp.ndarray>hs, 0)
    a.N = cnp.PyArray_DIM(<cnp.ndarray>hs, 1)
    fill_rows(&a.start, &a.stop, rows, a.N, a.T)
    a.hs = data(hs, typenum, a.T * a.N * a.h)
    fastrnn_batched(loops).output_sizes(a.T, a.stop - a.start, a.h, a.q, &packed_size, &work_size)
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


def sample_size(Py_ssize_t N, Py_ssize_t rows, Py_ssize_t d, Py_ssize_t h, Py_ssize_t q):
    """Elements of `work` for `sample_batch`, N sequences, at most `rows` of them at once."""
    return max(fastrnn_batched(FLOAT32).sample_size(N, rows, h, q), fastrnn_batched(FLOAT64).sample_size(N, rows, h, q))


def pack_layer(tuple layer, Py_ssize_t N, bint one_hot, packed):
    """Bring the weights of a layer into the order in which N sequences will read them."""
    cdef layer_arguments a
    cdef int loops = fill_layer(&a, layer, packed)
    a.N = N
    a.one_hot = one_hot
    with nogil:
        fastrnn_batched(loops).pack_layer(&a)


def pack_output(tuple output, Py_ssize_t N, packed):
    """Bring the weights of an output layer into the order in which N sequences will read them."""
    cdef output_arguments a
    cdef int loops = fill_output(&a, output, packed)
    with nogil:
        fastrnn_batched(loops).pack_output(&a)


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


def output_logits(tuple output, packed, hs, logits, tuple rows, work):
    """Logits ``y_t = W h_t + b`` (eq. 2), written to ``logits (T,N,q)``."""
    cdef output_arguments a
    cdef int loops = fill_output(&a, output, packed)
    fill_states(&a, loops, hs, rows, work)
    a.logits = data(logits, typenum_of(loops), a.T * a.N * a.q)
    with nogil:
        fastrnn_batched(loops).output_logits(&a)


def output_loss(tuple output, packed, hs, targets, double scale, dhs, tuple grads, bint accumulate, tuple rows,
                work):
    """Cross-entropy in nats, summed over steps and sequences (eqs. 2, 5, 6), and its gradients (eqs. 7 to 9)."""
    cdef output_arguments a
    cdef int loops = fill_output(&a, output, packed), typenum = typenum_of(loops)
    cdef double loss
    fill_states(&a, loops, hs, rows, work)
    a.targets = <const int64_t *>data(targets, cnp.NPY_INT64, a.T * a.N)
    a.scale = scale
    a.dhs = data_or_null(dhs, typenum, a.T * a.N * a.h)
    if a.dhs != NULL:
        dW, db = grads
        a.dW = data(dW, typenum, a.q * a.h)
        a.db = data(db, typenum, a.q)
    a.accumulate = accumulate
    with nogil:
        loss = fastrnn_batched(loops).output_loss(&a)
    return loss


def reduce_gradients(parts, int clip, double threshold, out):
    """Add up the parts' gradients, clip the sum, and return its norm before (eq. 15)."""
    cdef int loops = element_type(out), typenum = typenum_of(loops)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(<cnp.ndarray>out), count
    cdef void *g
    cdef void *total = data(out, typenum, n)
    cdef double norm
    if cnp.PyArray_NDIM(<cnp.ndarray?>parts) != 2 or cnp.PyArray_DIM(<cnp.ndarray>parts, 1) != n:
        raise ValueError("kernels take a row of gradients for each part")
    count = cnp.PyArray_DIM(<cnp.ndarray>parts, 0)
    g = data(parts, typenum, count * n)
    with nogil:
        norm = fastrnn_batched(loops).reduce_gradients(count, n, g, clip, threshold, total)
    return norm


def sample_batch(tuple stack, tuple output, states, tuple draws, tuple choice, out, tuple rows, int cell, work):
    """Draw class indices for the sequences of a batch; returns how many steps were drawn."""
    cdef sample_arguments a
    cdef layer_arguments each
    cdef output_arguments o
    cdef void *packed[64]
    cdef int loops = fill_output(&o, output[0], output[1]), typenum = typenum_of(loops)
    cdef Py_ssize_t drawn, i
    layers, packed_layers = stack
    first, uniforms = draws
    a.layers = len(layers)
    if not 1 <= a.layers <= 64:
        raise ValueError(f"kernels take 1 to 64 layers, got {a.layers}")
    for i in range(a.layers):
        if fill_layer(&each, layers[i], packed_layers[i]) != loops or each.h != o.h:
            raise ValueError("kernels take layers of one dtype and hidden size")
        if each.d != (o.h if i else o.q):
            raise ValueError("kernels take layers whose inputs are what the layers below give")
        packed[i] = each.packed
    if cnp.PyArray_NDIM(<cnp.ndarray?>out) != 2:
        raise ValueError("kernels take a two-dimensional out")
    a.N = cnp.PyArray_DIM(<cnp.ndarray>out, 0)
    a.n = cnp.PyArray_DIM(<cnp.ndarray>out, 1)
    fill_rows(&a.start, &a.stop, rows, a.N, 1)
    a.h = o.h
    a.q = o.q
    a.packed = packed
    a.packed_output = o.packed
    a.W = o.W
    a.states = data(states, typenum, a.layers * a.N * a.h)
    a.first = <const int64_t *>data(first, cnp.NPY_INT64, a.N)
    a.uniforms = <const double *>data(uniforms, cnp.NPY_DOUBLE, a.N * a.n)
    a.temperature, a.top_k, a.top_p = choice
    a.out = <int64_t *>data(out, cnp.NPY_INT64, a.N * a.n)
    a.cell = cell
    a.work = data(work, typenum, fastrnn_batched(loops).sample_size(a.N, a.stop - a.start, a.h, a.q))
    with nogil:
        drawn = fastrnn_batched(loops).sample_batch(&a)
    return drawn
