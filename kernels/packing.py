"""Matrices brought into the order in which `products` reads them: panels, each of a few whole vectors a row.

Rows that end before a panel does are filled up with zeros.  For the rules see `elementary`.
"""

from fastrnn.kernels import elementary  # noqa: F401 - "copy" is called by its name
from fastrnn.kernels.vectors import VECTOR_BYTES, routine

#: Vectors in the widest panel of a packed matrix: for matrix-vector and for matrix products.
GEMV_VECTORS = 8
GEMM_VECTORS = 3


def _plain_copy_panel(src, stride, k, cols, width, out):
    panel = out[: k * width].reshape(k, width)
    panel[:, cols:] = 0
    for i in range(k):
        panel[i, :cols] = src[i * stride : i * stride + cols]


@routine("aiiiia", _plain_copy_panel)
def copy_panel(emitter, src, stride, k, cols, width, out):
    """Rows of `width` from ``src[i * stride + j]``, zero from column `cols` on."""
    with emitter.loop(0, k) as i:
        row = out + i * width
        with emitter.loop(cols & -emitter.lanes, width & -emitter.lanes, emitter.lanes) as j:
            (row + j).store(emitter.constant(0.0))
        emitter.call("copy", cols, row, src + i * stride)


def _plain_transpose_panel(src, stride, k, cols, width, out):
    panel = out[: k * width].reshape(k, width)
    panel[:, cols:] = 0
    for j in range(cols):
        panel[:, j] = src[j * stride : j * stride + k]


@routine("aiiiia", _plain_transpose_panel)
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


def panels(vectors):
    """Panels of a packed matrix that is `vectors` wide: (first vector, vectors) of each."""
    v = 0
    while v < vectors:
        width = next(w for w in (8, 4, 2, 1) if w <= vectors - v)
        yield v, width
        v += width


def _plain_packed(widths_of):
    def plain(src, transposed, k, n, out):
        matrix = src[: k * n].reshape(n, k).T if transposed else src[: k * n].reshape(k, n)
        lanes = VECTOR_BYTES // out.itemsize
        for v, count in widths_of(-(-n // lanes)):
            j, width = v * lanes, count * lanes
            panel = out[j * k : (j + width) * k].reshape(k, width)
            panel[:, n - j :] = 0
            panel[:, : n - j] = matrix[:, j : j + width]

    return plain


def _pack_panel(emitter, src, transposed, k, n, j, width, out):
    cols = (n - j < width).chosen(n - j, emitter.index(width))
    with emitter.when(transposed.equals(1)):
        emitter.call("transpose_panel", src + j * k, k, k, cols, width, out + j * k)
    with emitter.when(transposed.equals(0)):
        emitter.call("copy_panel", src + j, n, k, cols, width, out + j * k)


@routine("aiiia", _plain_packed(panels))
def pack_for_gemv(emitter, src, transposed, k, n, out):
    """Cut B (k, n), which is `src` or its transpose, into panels for `gemv`, one after the other."""
    vectors = emitter.vectors(n)
    v = vectors & -GEMV_VECTORS
    with emitter.loop(0, v, GEMV_VECTORS) as first:
        _pack_panel(emitter, src, transposed, k, n, first * emitter.lanes, GEMV_VECTORS * emitter.lanes, out)
    width = GEMV_VECTORS // 2
    while width:
        with emitter.when((vectors & width).equals(width)):
            _pack_panel(emitter, src, transposed, k, n, v * emitter.lanes, width * emitter.lanes, out)
        v = v + (vectors & width)
        width //= 2


@routine("aiiia", _plain_packed(lambda vectors: [(v, GEMM_VECTORS) for v in range(0, vectors, GEMM_VECTORS)]))
def pack_for_gemm(emitter, src, transposed, k, n, out):
    """As `pack_for_gemv`, into panels for `gemm`."""
    width = GEMM_VECTORS * emitter.lanes
    with emitter.loop(0, n, width) as j:
        _pack_panel(emitter, src, transposed, k, n, j, width, out)


def _plain_pack_rows(src, stride, k, n, out, panel_stride):
    width = GEMM_VECTORS * VECTOR_BYTES // out.itemsize
    for p, j in enumerate(range(0, n, width)):
        cols = min(width, n - j)
        panel = out[p * panel_stride : p * panel_stride + k * width].reshape(k, width)
        panel[:, cols:] = 0
        for i in range(k):
            panel[i, :cols] = src[i * stride + j : i * stride + j + cols]


@routine("aiiiai", _plain_pack_rows)
def pack_rows(emitter, src, stride, k, n, out, panel_stride):
    """Panels for `gemm` from k rows of n elements: row i at ``src + i * stride``, panel p at
    ``out + p * panel_stride``."""
    lanes, width = emitter.lanes, GEMM_VECTORS * emitter.lanes
    offset = emitter.variable(emitter.index(0))
    with emitter.loop(0, n, width) as j:
        panel, cols = out + offset.get(), n - j
        narrow = cols < width
        with emitter.when(cols >= emitter.index(width)), emitter.loop(0, k) as i:
            row = src + (i * stride + j)
            for v in range(GEMM_VECTORS):
                (panel + i * width + v * lanes).store((row + v * lanes).load())
        with emitter.when(narrow):
            emitter.call("copy_panel", src + j, stride, k, cols, width, panel)
        offset.set(offset.get() + panel_stride)
