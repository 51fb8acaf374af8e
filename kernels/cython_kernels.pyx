# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Kernels compiled ahead of time: the C loops of ``csrc/``, at the instruction set of this processor.

The functions and their arguments are those of `fastrnn.kernels.numpy_kernels`; see there for the
equations.  The environment variable ``FASTRNN_SIMD`` (``baseline``, ``avx2``, ``avx512``), read when
this module is loaded, forces an instruction set.
"""

import os

import numpy as np

import fastrnn.kernels

cimport numpy as cnp
from libc.stdint cimport int64_t

cnp.import_array()

include "dispatch.pxi"

NAME = "cython"
USES_BLAS = False
PACK_ROWS_FROM = fastrnn.kernels.PACK_ROWS_FROM


def simd_levels():
    """Names of the instruction sets that this build and this processor have, the slowest first."""
    cdef const char *const *names = fastrnn_simd_levels()
    levels = []
    while names[0] != NULL:
        levels.append(names[0].decode())
        names += 1
    return levels


def simd_level():
    """Name of the instruction set in use; "scalar" where the compiler had no vector extensions."""
    return fastrnn_simd_level().decode()


cdef bytes _asked = os.fsencode(os.environ.get("FASTRNN_SIMD", ""))
if fastrnn_choose_simd(_asked) != 0:
    raise ImportError(
        f"environment variable FASTRNN_SIMD is {os.fsdecode(_asked)!r}; this processor and build have "
        f"{', '.join(simd_levels())}"
    )


cdef compare_numbers():
    """Refuse numbers of `fastrnn.kernels` that are others in C: calls would be taken for what they are not."""
    compiled = {
        "CLIP_NONE": CLIP_NONE, "CLIP_STEP": CLIP_STEP, "CLIP_VALUE": CLIP_VALUE, "CLIP_NORM": CLIP_NORM,
        "MOST_PARTS": MOST_PARTS, "MOST_THREADS": TEAM_MOST, "PACK_FROM": PACK_FROM, "PACK_FORWARD": PACK_FORWARD, "PACK_BACKWARD": PACK_BACKWARD,
    }
    cdef const cell_numbers *cell = fastrnn_cells()
    gates, states, kept = [], [], []
    while cell.name != NULL:
        compiled[cell.name.decode()] = cell.number
        gates.append(cell.gates)
        states.append(cell.states)
        kept.append(cell.kept)
        cell += 1
    compiled |= {"GATES": tuple(gates), "STATES": tuple(states), "KEPT": tuple(kept)}
    differ = [
        f"{name} is {getattr(fastrnn.kernels, name, 'missing')} there and {number} here"
        for name, number in compiled.items()
        if getattr(fastrnn.kernels, name, None) != number
    ]
    if differ:
        raise ImportError(f"the compiled kernels are not those of fastrnn.kernels: {'; '.join(differ)}; build them anew")


compare_numbers()


cdef void *data(object array, int typenum, Py_ssize_t size) except? NULL:
    """Address of an array that must be as kernels want it: the last line of defence."""
    cdef cnp.ndarray a
    if not isinstance(array, cnp.ndarray):
        raise TypeError(f"kernels take arrays, got {type(array).__name__}")
    a = <cnp.ndarray>array
    if cnp.PyArray_TYPE(a) != typenum or not cnp.PyArray_ISCARRAY(a) or cnp.PyArray_SIZE(a) < size:
        raise ValueError(
            f"kernels take writable C-contiguous arrays of one dtype and at least {size} elements here, "
            f"got {a.dtype} of shape {array.shape}"
        )
    return cnp.PyArray_DATA(a)


cdef int element_type(object array) except -1:
    if cnp.PyArray_TYPE(<cnp.ndarray?>array) == cnp.NPY_DOUBLE:
        return FLOAT64
    if cnp.PyArray_TYPE(<cnp.ndarray>array) == cnp.NPY_FLOAT:
        return FLOAT32
    raise TypeError(f"kernels take float32 or float64, got {array.dtype}")


cdef int typenum_of(int loops):
    return cnp.NPY_DOUBLE if loops == FLOAT64 else cnp.NPY_FLOAT


cdef void *data_or_null(object array, int typenum, Py_ssize_t size) except? NULL:
    """As `data`; NULL for an array without elements."""
    if cnp.PyArray_SIZE(<cnp.ndarray?>array) == 0:
        return NULL
    return data(array, typenum, size)


cdef int team_size(int threads) except -1:
    """How many threads are to share the work of a call."""
    if not 1 <= threads <= TEAM_MOST:
        raise ValueError(f"kernels take 1 to {TEAM_MOST} threads, got {threads}")
    return threads


cdef int fill(sequence_arguments *a, int *loops, tuple params, tuple inputs, object hs, object ps,
              object work, int threads) except -1:
    """What all calls share: sizes from the parameters, T from the probabilities."""
    cdef int typenum
    Wxh, Whh, Why, bh, by = params
    loops[0] = element_type(Wxh)
    typenum = typenum_of(loops[0])
    if cnp.PyArray_NDIM(<cnp.ndarray>Wxh) != 2 or cnp.PyArray_NDIM(<cnp.ndarray?>Why) != 2:
        raise ValueError("kernels take two-dimensional weights")
    a.h = cnp.PyArray_DIM(<cnp.ndarray>Wxh, 0)
    a.d = cnp.PyArray_DIM(<cnp.ndarray>Wxh, 1)
    a.q = cnp.PyArray_DIM(<cnp.ndarray>Why, 0)
    a.params[WXH] = data(Wxh, typenum, a.h * a.d)
    a.params[WHH] = data(Whh, typenum, a.h * a.h)
    a.params[WHY] = data(Why, typenum, a.q * a.h)
    a.params[BH] = data(bh, typenum, a.h)
    a.params[BY] = data(by, typenum, a.q)
    if ps is not None:
        a.T = cnp.PyArray_DIM(<cnp.ndarray?>ps, 0)
        a.ps = data(ps, typenum, a.T * a.q)
        a.hs = data(hs, typenum, (a.T + 1) * a.h)
        indices, x = inputs
        a.indices = NULL
        a.x = NULL
        if cnp.PyArray_SIZE(<cnp.ndarray?>indices):
            a.indices = <const int64_t *>data(indices, cnp.NPY_INT64, a.T)
        else:
            a.x = data(x, typenum, a.T * a.d)
    a.work = data(work, typenum, fastrnn_sequence(loops[0]).workspace_size(a.T, a.d, a.h, a.q))
    a.threads = team_size(threads)
    return 0


cdef int fill_gradients(sequence_arguments *a, int loops, tuple grads, object targets) except -1:
    cdef int typenum = typenum_of(loops)
    dWxh, dWhh, dWhy, dbh, dby = grads
    a.grads[WXH] = data(dWxh, typenum, a.h * a.d)
    a.grads[WHH] = data(dWhh, typenum, a.h * a.h)
    a.grads[WHY] = data(dWhy, typenum, a.q * a.h)
    a.grads[BH] = data(dbh, typenum, a.h)
    a.grads[BY] = data(dby, typenum, a.q)
    a.targets = <const int64_t *>data(targets, cnp.NPY_INT64, a.T)
    return 0


def workspace_size(Py_ssize_t T, Py_ssize_t d, Py_ssize_t h, Py_ssize_t q):
    """Elements of scratch space that the kernels want for these sizes."""
    return max(
        fastrnn_sequence(FLOAT32).workspace_size(T, d, h, q),
        fastrnn_sequence(FLOAT64).workspace_size(T, d, h, q),
    )


def wrap_indices(indices, Py_ssize_t bound, out):
    """Copy class indices to `out`, negative ones counted from the end.

    Returns the position of the first index outside ``[-bound, bound)``, or -1.
    """
    cdef Py_ssize_t n = cnp.PyArray_SIZE(<cnp.ndarray?>indices)
    cdef const int64_t *source = <const int64_t *>data(indices, cnp.NPY_INT64, n)
    cdef int64_t *target = <int64_t *>data(out, cnp.NPY_INT64, n)
    return fastrnn_wrap_indices(n, source, bound, target)


def copy_targets(targets, Py_ssize_t bound, int64_t ignored, out):
    """Copy targets to `out`, -1 where they equal `ignored`: those do not count.

    Returns how many count; or ``-1 - position`` of the first that is neither `ignored` nor in
    ``[0, bound)``.
    """
    cdef Py_ssize_t n = cnp.PyArray_SIZE(<cnp.ndarray?>targets)
    cdef const int64_t *source = <const int64_t *>data(targets, cnp.NPY_INT64, n)
    cdef int64_t *target = <int64_t *>data(out, cnp.NPY_INT64, n)
    return fastrnn_copy_targets(n, source, bound, ignored, target)


def forward(tuple params, tuple inputs, hs, ps, work, int threads=1):
    """States and probabilities of a sequence (eqs. 1, 2, 16, 17)."""
    cdef sequence_arguments a
    cdef int loops
    fill(&a, &loops, params, inputs, hs, ps, work, threads)
    with nogil:
        fastrnn_sequence(loops).forward(&a)


def backward(tuple params, tuple inputs, targets, hs, ps, double limit, tuple grads, work, int threads=1):
    """Gradients of the cross-entropy by BPTT (eqs. 7 to 13), clamped after every time step."""
    cdef sequence_arguments a
    cdef int loops
    fill(&a, &loops, params, inputs, hs, ps, work, threads)
    fill_gradients(&a, loops, grads, targets)
    a.clip = CLIP_STEP
    a.threshold = limit
    with nogil:
        fastrnn_sequence(loops).backward(&a)


def loss_and_grads(tuple params, tuple inputs, targets, hs, ps, tuple clip, tuple grads, work, int threads=1):
    """`forward`, the loss in nats (eqs. 5, 6), `backward`, and the clipping named by `clip`."""
    cdef sequence_arguments a
    cdef int loops
    cdef double loss
    fill(&a, &loops, params, inputs, hs, ps, work, threads)
    fill_gradients(&a, loops, grads, targets)
    a.clip, a.threshold = clip
    with nogil:
        loss = fastrnn_sequence(loops).loss_and_grads(&a)
    return loss


def train_step(tuple params, tuple inputs, targets, hs, ps, tuple clip, double lr, tuple grads, work, int threads=1):
    """`loss_and_grads` and `update` in one; `grads` is work space."""
    cdef sequence_arguments a
    cdef int loops
    cdef double loss
    fill(&a, &loops, params, inputs, hs, ps, work, threads)
    fill_gradients(&a, loops, grads, targets)
    a.clip, a.threshold = clip
    with nogil:
        loss = fastrnn_sequence(loops).train_step(&a, lr)
    return loss


def update(tuple params, tuple grads, double lr):
    """Gradient descent, in place: ``W -= lr dW`` for each parameter."""
    cdef Py_ssize_t n
    cdef int loops, typenum
    cdef void *w
    cdef void *g
    for i in range(len(params)):
        W = params[i]
        loops = element_type(W)
        typenum = typenum_of(loops)
        n = cnp.PyArray_SIZE(<cnp.ndarray>W)
        w = data(W, typenum, n)
        g = data(grads[i], typenum, n)
        with nogil:
            fastrnn_sequence(loops).update(n, w, g, lr)


def sample(tuple params, h, int64_t start, uniforms, out, work, int threads=1):
    """Draw ``len(out)`` class indices, each fed back as the next input; returns how many were drawn."""
    cdef sequence_arguments a
    cdef int loops
    cdef Py_ssize_t drawn
    cdef void *state
    cdef const double *u
    cdef int64_t *chosen
    a.T = cnp.PyArray_SIZE(<cnp.ndarray?>out)
    fill(&a, &loops, params, None, None, None, work, threads)
    state = data(h, typenum_of(loops), a.h)
    u = <const double *>data(uniforms, cnp.NPY_DOUBLE, a.T)
    chosen = <int64_t *>data(out, cnp.NPY_INT64, a.T)
    a.indices = chosen
    with nogil:
        drawn = fastrnn_sequence(loops).sample(&a, state, start, u, chosen)
    return drawn


def recurrence(tuple params, hs, work, int threads=1):
    """The recurrent part of `forward` alone: ``hs[t] = tanh(hs[t] + Whh hs[t-1])`` for t = 1 .. T, in place."""
    cdef sequence_arguments a
    cdef int loops
    a.T = cnp.PyArray_DIM(<cnp.ndarray?>hs, 0) - 1
    fill(&a, &loops, params, None, None, None, work, threads)
    a.hs = data(hs, typenum_of(loops), (a.T + 1) * a.h)
    with nogil:
        fastrnn_sequence(loops).recurrence(&a)


def tanh(x):
    """Hyperbolic tangent of each element, in place."""
    cdef int loops = element_type(x)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(<cnp.ndarray>x)
    cdef void *p = data(x, typenum_of(loops), n)
    with nogil:
        fastrnn_sequence(loops).tanh(n, p)


def exp(x):
    """Exponential of each element, in place."""
    cdef int loops = element_type(x)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(<cnp.ndarray>x)
    cdef void *p = data(x, typenum_of(loops), n)
    with nogil:
        fastrnn_sequence(loops).exp(n, p)


def sigmoid(x):
    """``1 / (1 + exp(-x))`` of each element, in place."""
    cdef int loops = element_type(x)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(<cnp.ndarray>x)
    cdef void *p = data(x, typenum_of(loops), n)
    with nogil:
        fastrnn_sequence(loops).sigmoid(n, p)


include "layer.pxi"
include "output.pxi"
include "sampling.pxi"
include "gradients.pxi"
include "optimizers.pxi"
include "steps.pxi"
include "team.pxi"
