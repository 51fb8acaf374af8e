"""Sampling in batches, compiled by Numba: each class index drawn is the next input.

The functions and their arguments are those of `fastrnn.kernels.numpy_batched`.
"""

import functools
import math

import numpy as np

from fastrnn.kernels.elementary import copy, copy_tile, exponentials, hyperbolic_tangent, largest, rectify
from fastrnn.kernels.jit import flat, inlined, inlined_and_python, kernel
from fastrnn.kernels.numba_weights import largest_end, layer_panels, output_panels
from fastrnn.kernels.packing import GEMM_VECTORS
from fastrnn.kernels.products import gemv, multiply
from fastrnn.kernels.vectors import VECTOR_BYTES

# ---- memory -----------------------------------------------------------------------------------------


@inlined_and_python
def _sample_layout(rows, h, q, lanes, start):
    """Offsets in the work space for sampling."""
    ldh, ldq = (h + lanes - 1) & -lanes, (q + lanes - 1) & -lanes
    z = start  # (rows, ldh)
    y = z + ((rows * ldh + 63) & -64)  # (rows, ldq)
    heap = y + ((rows * ldq + 63) & -64)  # (q) class indices
    end = heap + q
    return z, y, heap, end


@functools.lru_cache(maxsize=256)
def sample_size(N, rows, d, h, q):
    """Elements of `work` for `sample_batch`, N sequences, at most `rows` of them at once."""
    return largest_end(_sample_layout, rows, h, q)


# ---- one class --------------------------------------------------------------------------------------


@inlined
def _sink(p, work, heap, n, root):
    """Move the class at `root` of a heap of n classes down to its place: above are the more probable ones,
    and of equals those with the lower index."""
    while 2 * root + 1 < n:
        child = 2 * root + 1
        c = np.int64(work[heap + child])
        if child + 1 < n:
            other = np.int64(work[heap + child + 1])
            if work[p + other] > work[p + c] or (work[p + other] == work[p + c] and other < c):
                child, c = child + 1, other
        r = np.int64(work[heap + root])
        if work[p + r] > work[p + c] or (work[p + r] == work[p + c] and r < c):
            break
        work[heap + root], work[heap + child] = c, r
        root = child


@inlined
def _restrict(work, p, q, top_k, top_p, heap):
    """Set to zero what is not among the `top_k` most probable classes (0: all), or not among the fewest of
    these whose probabilities reach `top_p` of theirs in sum."""
    candidates = top_k if 0 < top_k < q else q
    for j in range(q):
        work[heap + j] = j
    for root in range(q // 2 - 1, -1, -1):
        _sink(p, work, heap, q, root)
    total = np.float64(0)
    for i in range(candidates):  # the most probable goes behind the heap
        best, last = work[heap], work[heap + q - 1 - i]
        work[heap + q - 1 - i] = best
        work[heap] = last
        total += work[p + np.int64(best)]
        _sink(p, work, heap, q - 1 - i, 0)
    reached, kept = np.float64(0), 0
    while kept < candidates and (kept == 0 or top_p >= 1 or reached < top_p * total):
        reached += work[p + np.int64(work[heap + q - 1 - kept])]
        kept += 1
    for i in range(q - kept):
        work[p + np.int64(work[heap + i])] = 0


@kernel
def _draw_class(work, y, q, ldq, u, temperature, top_k, top_p, heap):
    """Class index drawn from the logits of one sequence, or -1 if they are not numbers."""
    drawn = 0
    if temperature == 0:
        for j in range(q):
            if not work[y + j] < math.inf:
                drawn = -1
                break
            if work[y + j] > work[y + drawn]:
                drawn = j
        return drawn
    top = largest(ldq, work, y)
    if temperature != 1:
        for j in range(y, y + ldq):
            work[j] = (work[j] - top) / temperature
        top -= top
    if not exponentials(ldq, work, y, top) > 0:
        return -1
    if 0 < top_k < q or top_p < 1:
        _restrict(work, y, q, top_k, top_p, heap)
    even, odd = np.float64(0), np.float64(0)
    for j in range(y, y + ldq, 2):  # the padding is zero
        even += work[j]
        odd += work[j + 1]
    total = even + odd
    running, almost = np.float64(0), u * total * (1 - 1e-15)
    drawn = -1
    for j in range(q):
        running += work[y + j]
        if running > almost and running / total > u:
            drawn = j
            break
    if drawn < 0:  # sums in another order differ: the last class that may be drawn
        drawn = q - 1
        while drawn > 0 and work[y + drawn] == 0:
            drawn -= 1
    return drawn


# ---- the sequences ----------------------------------------------------------------------------------


@kernel
def _sample(
    N, L, d, h, q, packed, bases, packed_output, states, first, uniforms, temperature, top_k, top_p, out,
    start, stop, relu, work,
):  # fmt: skip
    """Classes for ``start <= n < stop``; returns how many steps were drawn.

    The packed weights of layer l begin at ``packed[bases[l]]``.
    """
    rows, count = stop - start, out.shape[1]
    lanes = VECTOR_BYTES // work.itemsize
    nr = GEMM_VECTORS * lanes
    ldh, ldq = (h + lanes - 1) & -lanes, (q + lanes - 1) & -lanes
    z, y, heap, _ = _sample_layout(rows, h, q, lanes, (-work.ctypes.data & 63) // work.itemsize)
    bias, forward, _, alone, _ = output_panels(
        N, h, q, lanes, (-packed_output.ctypes.data & 63) // packed_output.itemsize
    )
    for i in range(count):
        for layer in range(L):
            below = d if layer == 0 else h
            layer_bias, recurrent, _, inputs, _, inputs_alone, _ = layer_panels(
                N, below, h, lanes, bases[layer]
            )
            state = (layer * N + start) * h
            if layer == 0:
                for r in range(rows):
                    index = first[start + r] if i == 0 else out[start + r, i - 1]
                    copy(ldh, work, z + r * ldh, packed, inputs + index * ldh)
            else:
                for r in range(rows):
                    copy(ldh, work, z + r * ldh, packed, layer_bias)
                if N == 1:
                    gemv(packed, inputs_alone, h, h, states, state - h, work, z, work, z, i & 1)
                else:
                    multiply(
                        rows, ldh, h, states, state - N * h, h, 1, packed, inputs, h * nr, work, z, ldh, 1
                    )
            if N == 1:
                gemv(packed, recurrent, h, h, states, state, work, z, work, z, i & 1)
            else:
                multiply(rows, ldh, h, states, state, h, 1, packed, recurrent, h * nr, work, z, ldh, 1)
            if relu:
                rectify(rows * ldh, work, z, work, z)
            else:
                hyperbolic_tangent(rows * ldh, work, z, work, z)
            copy_tile(rows, h, states, state, h, work, z, ldh)
        state = ((L - 1) * N + start) * h
        for r in range(rows):
            copy(ldq, work, y + r * ldq, packed_output, bias)
        if N == 1:
            gemv(packed_output, alone, h, q, states, state, work, y, work, y, i & 1)
        else:
            multiply(rows, ldq, h, states, state, h, 1, packed_output, forward, h * nr, work, y, ldq, 1)
        for r in range(rows):
            drawn = _draw_class(
                work, y + r * ldq, q, ldq, uniforms[(start + r) * count + i], temperature, top_k, top_p, heap
            )
            if drawn < 0:
                return i
            out[start + r, i] = drawn
    return count


def sample_batch(stack, output, states, draws, choice, out, rows, cell, work):
    """Draw class indices for the sequences of a batch, each fed back as the next input.

    Returns how many steps were drawn: fewer than n when the probabilities of the next one are not numbers.
    """
    (layers, packed_layers), (output, packed_output), (first, uniforms) = stack, output, draws
    (temperature, top_k, top_p), (start, stop), relu = choice, rows, cell
    L, N, h = states.shape
    real = states.dtype.type
    temperature = max(real(temperature), np.finfo(real).tiny) if temperature else real(0)
    packed = packed_layers[0] if L == 1 else np.concatenate(packed_layers)
    bases, before = np.empty(L, np.int64), 0
    for layer, array in enumerate(packed_layers):
        bases[layer] = before + (-array.ctypes.data & 63) // array.itemsize
        before += array.size
    return int(
        _sample(
            N, L, layers[0][0].shape[1], h, len(output[1]), packed, bases, packed_output, states.ravel(),
            flat(first), flat(uniforms), temperature, top_k, float(top_p), out, start, stop, bool(relu), work,
        )
    )  # fmt: skip
