"""Matrices brought into the order in which `products` reads them: panels, each of a few whole vectors a row.

A product reads them from the first element to the last, which a processor foresees, and finds no row that ends within
a vector.  A panel of two vectors of four lanes, of a matrix b (k, n), is in memory::

    b[0, 0:8], b[1, 0:8], ..., b[k-1, 0:8]        and after it the next panel:  b[0, 8:16], b[1, 8:16], ...

Rows that end before a panel does are filled up with zeros.  For the rules see `elementary`.
"""

from fastrnn.kernels.numba_kernels import elementary  # noqa: F401 - "copy" is called by its name
from fastrnn.kernels.numba_kernels.emit import VECTOR_BYTES, Row, routine
from fastrnn.kernels.numba_kernels.jit import inlined_and_python

#: Vectors in the widest panel of a packed matrix: for matrix-vector and for matrix products.
GEMV_VECTORS = 8
GEMM_VECTORS = 3


@inlined_and_python
def padded_to_panels(n, lanes):
    """Columns of a matrix (k, n) once `pack_for_gemm` has packed it: whole panels of `GEMM_VECTORS` vectors."""
    width = GEMM_VECTORS * lanes
    return (n + width - 1) // width * width


@routine("aiiiia", None)
def copy_panel(emitter, src, stride, k, cols, width, out):
    """Rows of `width` from ``src[i * stride + j]``, zero from column `cols` on."""
    with emitter.loop(0, k) as i:
        row = out + i * width
        with emitter.loop(cols & -emitter.lanes, width & -emitter.lanes, emitter.lanes) as j:
            (row + j).store(emitter.constant(0.0))
        emitter.call("copy", Row(row, cols), Row(src + i * stride, cols))


@routine("aiiiia", None)
def transpose_panel(emitter, src, stride, k, cols, width, out):
    """Rows of `width` from ``src[j * stride + i]``, zero from column `cols` on."""
    lanes = emitter.lanes
    zero = emitter.constant(0.0, emitter.element)
    whole_rows, whole_cols = k & -lanes, cols & -lanes

    def move(i, j):
        (out + i * width + j).store((src + j * stride + i).load(1))

    with emitter.loop(0, whole_cols, lanes) as j:
        with emitter.loop(0, whole_rows, lanes) as i:
            rows = [(src + (j + u) * stride + i).load() for u in range(lanes)]
            for u, row in enumerate(_transposed(rows)):
                (out + (i + u) * width + j).store(row)
        with emitter.loop(whole_rows, k) as i:
            for u in range(lanes):
                move(i, j + u)
    with emitter.loop(whole_cols, cols) as j, emitter.loop(0, k) as i:
        move(i, j)
    with emitter.loop(0, k) as i, emitter.loop(cols, width) as j:
        (out + i * width + j).store(zero)


def _transposed(rows):
    """A square of vectors transposed: perfect shuffles, as many as its side has binary digits."""
    n = len(rows)
    low = [lane for u in range(n // 2) for lane in (u, n + u)]
    high = [lane for u in range(n // 2, n) for lane in (u, n + u)]
    for _ in range(n.bit_length() - 1):
        pairs = zip(rows[: n // 2], rows[n // 2 :], strict=True)
        rows = [half for a, b in pairs for half in (a.shuffled(low, b), a.shuffled(high, b))]
    return rows


def _plain_transpose(out, src):
    n = len(src)
    out[:, :n] = src[:, : len(out)].T
    out[:, n:] = 0


@routine("mm", _plain_transpose)
def transpose(emitter, out, src):
    """``out = src'``, and zeros in the columns of `out` beyond."""
    emitter.call("transpose_panel", src, src.ld, out.rows, src.rows, out.cols, out)


# A packed matrix is an array (k, n) of a whole number of vectors a row, whose memory holds one panel after the
# other: each is k rows of its width.


def panels(vectors):
    """Panels of a matrix that is packed for `gemv` and `vectors` wide: (first vector, vectors) of each."""
    v = 0
    while v < vectors:
        width = next(w for w in (8, 4, 2, 1) if w <= vectors - v)
        yield v, width
        v += width


def _plain_packed(widths_of):
    def plain(out, matrix):
        (k, n), lanes, memory = matrix.shape, VECTOR_BYTES // out.itemsize, out.reshape(-1)
        for v, count in widths_of(-(-n // lanes)):
            j, width = v * lanes, count * lanes
            panel = memory[j * k : (j + width) * k].reshape(k, width)
            panel[:, max(n - j, 0) :] = 0
            panel[:, : n - j] = matrix[:, j : j + width]

    return plain


def _pack_panel(emitter, matrix, j, width, out):
    left = matrix.cols - j
    k, cols = matrix.rows, (left < width).chosen(left, emitter.index(width))
    in_rows = matrix.step.equals(1)
    with emitter.builder.if_else(in_rows.ir) as (copied, transposed):
        with copied:
            emitter.call("copy_panel", matrix + j, matrix.ld, k, cols, width, out + j * k)
        with transposed:
            emitter.call(
                "transpose_panel", matrix + j * matrix.step, matrix.step, k, cols, width, out + j * k
            )


@routine("mm", _plain_packed(panels))
def pack_for_gemv(emitter, out, matrix):
    """Cut a matrix (k, n), which may be a transposed one, into panels for `gemv`."""
    vectors = emitter.vectors(matrix.cols)
    v = vectors & -GEMV_VECTORS
    with emitter.loop(0, v, GEMV_VECTORS) as first:
        _pack_panel(emitter, matrix, first * emitter.lanes, GEMV_VECTORS * emitter.lanes, out)
    width = GEMV_VECTORS // 2
    while width:
        with emitter.when((vectors & width).equals(width)):
            _pack_panel(emitter, matrix, v * emitter.lanes, width * emitter.lanes, out)
        v = v + (vectors & width)
        width //= 2


@routine("mm", _plain_packed(lambda vectors: [(v, GEMM_VECTORS) for v in range(0, vectors, GEMM_VECTORS)]))
def pack_for_gemm(emitter, out, matrix):
    """As `pack_for_gemv`, into panels for `multiply`."""
    width = GEMM_VECTORS * emitter.lanes
    with emitter.loop(0, matrix.cols, width) as j:
        _pack_panel(emitter, matrix, j, width, out)


def _plain_pack_rows(out, at, src):
    (total, _), (k, n), memory = out.shape, src.shape, out.reshape(-1)
    width = GEMM_VECTORS * VECTOR_BYTES // out.itemsize
    for j in range(0, n, width):
        panel = memory[j * total : (j + width) * total].reshape(total, width)[at : at + k]
        panel[:, n - j :] = 0
        panel[:, : n - j] = src[:, j : j + width]


@routine("mim", _plain_pack_rows)
def pack_rows(emitter, out, at, src):
    """The rows of `src` as rows `at`, `at` + 1, ... of a matrix that is packed for `multiply`."""
    lanes, width = emitter.lanes, GEMM_VECTORS * emitter.lanes
    offset = emitter.variable(emitter.index(0))
    with emitter.loop(0, src.cols, width) as j:
        panel, cols = out + (offset.get() + at * width), src.cols - j
        narrow = cols < width
        with emitter.when(cols >= emitter.index(width)), emitter.loop(0, src.rows) as i:
            row = src.row(i) + j
            for v in range(GEMM_VECTORS):
                (panel + i * width + v * lanes).store((row + v * lanes).load())
        with emitter.when(narrow):
            emitter.call("copy_panel", src + j, src.ld, src.rows, cols, width, panel)
        offset.set(offset.get() + out.rows * width)
