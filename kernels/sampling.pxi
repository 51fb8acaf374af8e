# Sampling in batches: see `fastrnn.kernels.numpy_kernels.sampling` for the functions.


def sample_size(Py_ssize_t N, Py_ssize_t rows, Py_ssize_t d, Py_ssize_t h, Py_ssize_t q, int cell):
    """Elements of `work` for `sample_batch`, N sequences, at most `rows` of them at once."""
    code_of(cell)
    return max([fastrnn_batched(loops).sample_size(N, rows, h, q, cell) for loops in range(2)])


def sample_batch(tuple stack, tuple output, states, tuple draws, tuple choice, out, tuple rows, int cell, work,
                 int threads=1):
    """Draw class indices for the sequences of a batch; returns how many steps were drawn."""
    cdef sample_arguments a
    cdef layer_arguments each
    cdef output_arguments o
    cdef batch_parts parts
    cdef void *packed[64]
    cdef int loops = fill_output(&o, output[0], output[1]), typenum = typenum_of(loops)
    cdef Py_ssize_t drawn, i, most = 0
    layers, packed_layers = stack
    first, uniforms = draws
    a.layers = len(layers)
    if not 1 <= a.layers <= 64:
        raise ValueError(f"kernels take 1 to 64 layers, got {a.layers}")
    for i in range(a.layers):
        if fill_layer(&each, layers[i], packed_layers[i], cell) != loops or each.h != o.h:
            raise ValueError("kernels take layers of one dtype and hidden size")
        if each.packed == NULL:
            raise ValueError("kernels that sample take packed weights, got none")
        if each.d != (o.h if i else o.q):
            raise ValueError("kernels take layers whose inputs are what the layers below give")
        packed[i] = each.packed
    if cnp.PyArray_NDIM(<cnp.ndarray?>out) != 2:
        raise ValueError("kernels take a two-dimensional out")
    a.N = cnp.PyArray_DIM(<cnp.ndarray>out, 0)
    a.n = cnp.PyArray_DIM(<cnp.ndarray>out, 1)
    a.h = o.h
    a.q = o.q
    a.packed = packed
    a.packed_output = o.packed
    a.W = o.W
    a.cell = code_of(cell)
    fill_each_state(a.states, states, cell, typenum, a.layers * a.N * a.h, False)
    a.first = <const int64_t *>data(first, cnp.NPY_INT64, a.N)
    a.uniforms = <const double *>data(uniforms, cnp.NPY_DOUBLE, a.N * a.n)
    a.temperature, a.top_k, a.top_p = choice
    a.out = <int64_t *>data(out, cnp.NPY_INT64, a.N * a.n)
    a.threads = team_size(threads)
    a.parts = NULL
    if type(work) is list:
        fill_parts(&parts, rows, a.N, 1)
        a.parts = &parts
        a.start, a.stop = 0, a.N
        for i in range(parts.count):
            most = max(most, fastrnn_batched(loops).sample_size(
                a.N, parts.bounds[i][1] - parts.bounds[i][0], a.h, a.q, cell
            ))
        fill_works(&parts, work, a.threads, typenum, most)
    else:
        fill_rows(&a.start, &a.stop, rows, a.N, 1)
        a.work = data(work, typenum, fastrnn_batched(loops).sample_size(a.N, a.stop - a.start, a.h, a.q, cell))
    with nogil:
        drawn = fastrnn_batched(loops).sample_batch(&a)
    return drawn
