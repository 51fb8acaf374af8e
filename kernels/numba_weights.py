"""Weights of a layer and of an output layer, packed in the order in which the batched kernels read them.

They are packed once for all time steps: then a step is one product of the rows of its sequences with
panels that are read in order.  For one sequence, the panels are those of matrix-vector products.

``ldh, ldq`` are h and q rounded up to whole vectors.
"""

import math

from fastrnn.kernels.elementary import add, copy, copy_padded, fill
from fastrnn.kernels.jit import flat, inlined_and_python, kernel
from fastrnn.kernels.packing import GEMM_VECTORS, pack_for_gemm, pack_for_gemv, transpose_panel
from fastrnn.kernels.vectors import VECTOR_BYTES

ROWS = 128  # sequences that go through time together, and rows that a product over time sums up at once

# ---- memory -----------------------------------------------------------------------------------------


@inlined_and_python
def layer_panels(N, d, h, lanes, start):
    """Offsets in the packed weights of a layer, from `start` on; the last is their end."""
    nr = GEMM_VECTORS * lanes
    ldh = (h + lanes - 1) & -lanes
    wide_d, wide_h = (d + nr - 1) // nr * nr, (h + nr - 1) // nr * nr
    bias = start  # (ldh)
    recurrent = bias + ((ldh + 63) & -64)  # W_hh transposed
    back = recurrent + ((h * wide_h + 63) & -64)  # W_hh
    inputs = back + ((h * wide_h + 63) & -64)  # W_ih transposed: (d, ldh) with the bias added, or panels
    inputs_back = inputs + ((d * wide_h + 63) & -64)  # W_ih
    inputs_alone = inputs_back + ((h * wide_d + 63) & -64)  # W_ih transposed, to sample one sequence
    end = inputs_alone + (d * ldh if N == 1 else 0)
    return bias, recurrent, back, inputs, inputs_back, inputs_alone, end


@inlined_and_python
def output_panels(N, h, q, lanes, start):
    """The same for an output layer."""
    nr = GEMM_VECTORS * lanes
    ldq = (q + lanes - 1) & -lanes
    wide_q, wide_h = (q + nr - 1) // nr * nr, (h + nr - 1) // nr * nr
    bias = start  # (ldq), minus infinity in the padding
    forward = bias + ((ldq + 63) & -64)  # W transposed
    back = forward + ((h * wide_q + 63) & -64)  # W
    alone = back + ((q * wide_h + 63) & -64)  # W transposed, to sample one sequence
    end = alone + (h * ldq if N == 1 else 0)
    return bias, forward, back, alone, end


def largest_end(layout, *sizes):
    """Elements that a layout of these sizes takes, whatever the dtype and wherever the array begins."""
    # 64 more: the first offset is where a cache line starts.
    return max(layout(*sizes, VECTOR_BYTES // itemsize, 64)[-1] for itemsize in (4, 8))


def pieces(rows):
    """How many sequences go through time together, when there are at most `rows`."""
    return range(1, max(1, min(rows, ROWS)) + 1)


# ---- packing ----------------------------------------------------------------------------------------


@kernel
def _pack(W_ih, W_hh, b_ih, b_hh, is_layer, one_hot, N, d, h, packed):
    """Weights of a layer; or of an output layer, which come as W_ih (d, h) and b_ih (d)."""
    lanes = VECTOR_BYTES // packed.itemsize
    ldh = (h + lanes - 1) & -lanes
    start = (-packed.ctypes.data & 63) // packed.itemsize
    if is_layer:
        bias, recurrent, back, inputs, inputs_back, alone, _ = layer_panels(N, d, h, lanes, start)
        copy_padded(h, packed, bias, b_ih, 0)
        add(h, packed, bias, packed, bias, b_hh, 0)
        if N == 1:
            pack_for_gemv(W_hh, 0, 1, h, h, packed, recurrent)
            pack_for_gemv(W_hh, 0, 0, h, h, packed, back)
        else:
            pack_for_gemm(W_hh, 0, 1, h, h, packed, recurrent)
            pack_for_gemm(W_hh, 0, 0, h, h, packed, back)
        if one_hot:
            transpose_panel(W_ih, 0, d, d, h, ldh, packed, inputs)
            for c in range(d):
                row = inputs + c * ldh
                add(ldh, packed, row, packed, row, packed, bias)
        rows, cols, forward = d, h, inputs
    else:
        bias, forward, inputs_back, alone, _ = output_panels(N, h, d, lanes, start)
        copy(d, packed, bias, b_ih, 0)
        fill(-d & (lanes - 1), packed, bias + d, -math.inf)
        rows, cols = h, d
    if not is_layer or not one_hot:
        # of W_ih' (d, h), or of the output's W' (h, q)
        pack_for_gemm(W_ih, 0, 1, rows, cols, packed, forward)
        pack_for_gemm(W_ih, 0, 0, cols, rows, packed, inputs_back)
        if N == 1:
            pack_for_gemv(W_ih, 0, 1, rows, cols, packed, alone)


def pack_layer(layer, N, one_hot, packed):
    """Bring the weights of a layer into the order in which N sequences will read them.

    `one_hot` says that the inputs are class indices.
    """
    h, d = layer[0].shape
    _pack(*map(flat, layer), True, bool(one_hot), N, d, h, packed)


def pack_output(output, N, packed):
    """Bring the weights of an output layer into the order in which N sequences will read them."""
    q, h = output[0].shape
    W, b = map(flat, output)
    _pack(W, W, b, b, False, False, N, q, h, packed)
