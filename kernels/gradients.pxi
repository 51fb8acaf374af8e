# Sums of gradients: see `fastrnn.kernels.numpy_kernels.gradients`.


def reduce_gradients(parts, int clip, double threshold, out, int threads=1):
    """Add up the parts' gradients, clip the sum, and return its norm before (eq. 15)."""
    cdef int loops = element_type(out), typenum = typenum_of(loops)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(<cnp.ndarray>out), count
    cdef void *g
    cdef void *total = data(out, typenum, n)
    cdef double norm
    threads = team_size(threads)
    if cnp.PyArray_NDIM(<cnp.ndarray?>parts) != 2 or cnp.PyArray_DIM(<cnp.ndarray>parts, 1) != n:
        raise ValueError("kernels take a row of gradients for each part")
    count = cnp.PyArray_DIM(<cnp.ndarray>parts, 0)
    g = data(parts, typenum, count * n)
    with nogil:
        norm = fastrnn_batched(loops).reduce_gradients(count, n, g, clip, threshold, total, threads)
    return norm
