# One time step of a stack of layers at a call: see `fastrnn.kernels.numpy_kernels.steps` for the class and its
# arguments.  In a small net most of a step is what surrounds its products.  So the arguments of the C loops are laid
# out once, and inputs that are just as the loops read them are looked at here, without a call of Python.

from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cdef enum:
    # Products of a step from which on it leaves Python to other threads: about 10 us.  In a shorter one the way out
    # and in again would take as long, and beside a busy thread the way in takes milliseconds.
    LONG_STEP = 1 << 18
    # What the inputs of a step are.
    VECTORS = 0
    CLASSES = 1

#: How often this process has forked, from 1 on: tells a step that is under way from one that a fork cut off.
cdef int _forks = 1


def _count_fork():
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


cdef class StepKernel:
    """The states of N sequences, and their next step."""

    cdef object weights, convert, check_out
    cdef list packed  # what `layers` point to
    cdef cnp.ndarray states_array, indices_array
    cdef layer_arguments *layers[2]  # for vectors and for classes; NULL until there was such an input
    cdef output_arguments output
    cdef bint batched, has_output, long_step
    cdef int typenum, loops, ndim, holder, now, cell, S
    cdef Py_ssize_t L, N, h, d, width, size
    cdef cnp.npy_intp y_shape[2]
    cdef char *states_data[2]  # (S,L,N,h) of now, and those that the next step writes, in turn
    cdef int64_t *indices

    def __cinit__(self, weights, bint batched, convert, check_out):
        self.convert, self.check_out, self.batched = convert, check_out, batched
        self.L, self.N, self.h = weights.shape
        W_ih = weights.layers[0][0]
        self.loops = element_type(W_ih)
        self.typenum = typenum_of(self.loops)
        self.d, self.width = W_ih.shape[1], weights.width
        self.ndim = 2 if batched else 1
        self.y_shape[0] = self.N if batched else self.width
        self.y_shape[1] = self.width
        self.cell = code_of(weights.cell)
        self.S = fastrnn_cells()[self.cell].states
        self.states_array = np.zeros((2, self.S, self.L, self.N, self.h), weights.dtype)
        self.indices_array = np.zeros(self.N, np.int64)
        self.size = cnp.PyArray_NBYTES(self.states_array) // 2
        self.states_data[0] = <char *>data(self.states_array, self.typenum, cnp.PyArray_SIZE(self.states_array))
        self.states_data[1] = self.states_data[0] + self.size
        self.indices = <int64_t *>data(self.indices_array, cnp.NPY_INT64, self.N)
        self.use(weights)

    def __dealloc__(self):
        free(self.layers[VECTORS])
        free(self.layers[CLASSES])

    def use(self, weights):
        """Use other weights of the same shapes from now on."""
        if (self.L, self.N, self.h) != weights.shape or self.width != weights.width or self.cell != weights.cell:
            raise ValueError(f"kernels take weights of the same shapes, got {weights.shape} and {weights.width}")
        cdef output_arguments output
        cdef double products = 0
        memset(&output, 0, sizeof(output))
        if weights.output is not None:
            if fill_output(&output, weights.output, weights.packed_output) != self.loops or output.q != self.width:
                raise ValueError("kernels take weights of one dtype, and an output as wide as y")
            output.probabilities = weights.probabilities
            output.T, output.N, output.start, output.stop = 1, self.N, 0, self.N
            products = self.width * self.h
        for W_ih, W_hh, _, _ in weights.layers:
            products += W_ih.size + W_hh.size
        packed = [None, None]
        self.enter()
        for kind in range(2):
            free(self.layers[kind])
            self.layers[kind] = NULL
        self.packed = packed
        self.weights, self.output, self.has_output = weights, output, weights.output is not None
        self.long_step = products * self.N >= LONG_STEP
        self.holder = 0

    def step(self, x, out=None):
        """Go on by the input of one time step; return y, which is `out` where that is given."""
        cdef object y
        cdef list works
        cdef const char *values = NULL
        cdef long long index = -1
        cdef int overflow = 0
        if type(x) is cnp.ndarray:
            if self.is_vectors(<cnp.ndarray>x):
                values = <const char *>cnp.PyArray_DATA(<cnp.ndarray>x)
            elif not self.is_classes(<cnp.ndarray>x):
                x = self.convert(x)
        elif PyLong_CheckExact(x) and not self.batched:
            index = PyLong_AsLongLongAndOverflow(x, &overflow)
            if index < 0:
                index += self.d
            if overflow or not 0 <= index < self.d:
                index = -1
                x = self.convert(x)  # says what is wrong
        else:
            x = self.convert(x)
        if values == NULL and index < 0:
            if cnp.PyArray_TYPE(<cnp.ndarray?>x) != cnp.NPY_INT64:
                values = <const char *>data(x, self.typenum, self.N * self.d)
            elif not cnp.PyArray_SIZE(<cnp.ndarray>x) == self.N:
                raise ValueError(f"kernels take {self.N} class indices, got {cnp.PyArray_SIZE(<cnp.ndarray>x)}")
        if out is None:
            y = cnp.PyArray_SimpleNew(self.ndim, self.y_shape, self.typenum)
        else:
            if type(out) is not cnp.ndarray or not self.is_y(<cnp.ndarray>out):
                self.check_out(out)
                raise ValueError("kernels take an out that is as y is")
            y = out
        self.enter()
        try:
            if values == NULL:
                if index >= 0:
                    self.indices[0] = index
                elif fastrnn_wrap_indices(
                    self.N, <const int64_t *>cnp.PyArray_DATA(<cnp.ndarray>x), self.d, self.indices
                ) >= 0:
                    self.convert(x)  # says what is wrong
                    raise IndexError("kernels take class indices in range")
            if self.layers[VECTORS if values != NULL else CLASSES] == NULL:
                self.lay_out(VECTORS if values != NULL else CLASSES)
            works = self.weights.works
            work = works.pop() if works else self.weights.new_work()
            if self.long_step:
                with nogil:
                    self.run(values, cnp.PyArray_DATA(<cnp.ndarray>y), cnp.PyArray_DATA(<cnp.ndarray>work))
            else:
                self.run(values, cnp.PyArray_DATA(<cnp.ndarray>y), cnp.PyArray_DATA(<cnp.ndarray>work))
            works.append(work)
        finally:
            self.holder = 0
        return y

    def states(self):
        """A copy of the states, a tuple of S arrays ``(L,N,h)``."""
        self.enter()
        try:
            return tuple(self.states_array[self.now].copy())
        finally:
            self.holder = 0

    def set_states(self, states):
        """Go on from these states, S arrays ``(L,N,h)``, or from zeros where they are None."""
        cdef void *sources[2]
        cdef Py_ssize_t i, size = self.size // self.S
        if states is not None:
            fill_each_state(sources, states, self.cell, self.typenum, self.L * self.N * self.h, False)
        self.enter()
        for i in range(self.S):
            if states is None:
                memset(self.states_data[self.now] + i * size, 0, size)
            else:
                memcpy(self.states_data[self.now] + i * size, sources[i], size)
        self.holder = 0

    cdef int enter(self) except -1:
        """Have the kernel to this call.  In a forked child, a step of another thread of the parent never ends; the
        states are those from before it."""
        if self.holder == _forks:
            raise RuntimeError(
                "this stepper is in use by another thread: it is for one thread at a time, give each a copy"
            )
        self.holder = _forks
        return 0

    cdef bint is_vectors(self, cnp.ndarray x):
        """Whether the loops may read x as it is: (d), or (N,d), of the right dtype, in order."""
        return (
            cnp.PyArray_TYPE(x) == self.typenum
            and cnp.PyArray_NDIM(x) == self.ndim
            and cnp.PyArray_DIM(x, self.ndim - 1) == self.d
            and (not self.batched or cnp.PyArray_DIM(x, 0) == self.N)
            and cnp.PyArray_ISCARRAY_RO(x)
        )

    cdef bint is_classes(self, cnp.ndarray x):
        """Whether they are class indices (N) of the right dtype; their range is not looked at."""
        return (
            self.batched
            and cnp.PyArray_TYPE(x) == cnp.NPY_INT64
            and cnp.PyArray_NDIM(x) == 1
            and cnp.PyArray_DIM(x, 0) == self.N
            and cnp.PyArray_ISCARRAY_RO(x)
        )

    cdef bint is_y(self, cnp.ndarray out):
        return (
            cnp.PyArray_TYPE(out) == self.typenum
            and cnp.PyArray_NDIM(out) == self.ndim
            and cnp.PyArray_DIM(out, self.ndim - 1) == self.width
            and (not self.batched or cnp.PyArray_DIM(out, 0) == self.N)
            and cnp.PyArray_ISCARRAY(out)
        )

    cdef int lay_out(self, int kind) except -1:
        """The arguments of the loops of each layer, for inputs of this kind."""
        cdef layer_arguments *layers = <layer_arguments *>calloc(self.L, sizeof(layer_arguments))
        if layers == NULL:
            raise MemoryError(f"no room for the arguments of {self.L} layers")
        try:
            packed = self.weights.packed(kind == CLASSES)
            for i in range(self.L):
                if fill_layer(&layers[i], self.weights.layers[i], packed[i], self.cell) != self.loops \
                        or layers[i].h != self.h or layers[i].d != (self.h if i else self.d):
                    raise ValueError("kernels take layers of one dtype that fit each other")
                layers[i].T, layers[i].N, layers[i].start, layers[i].stop = 1, self.N, 0, self.N
        except BaseException:
            free(layers)
            raise
        self.layers[kind], self.packed[kind] = layers, packed
        return 0

    cdef void run(self, const char *values, void *y, void *work) noexcept nogil:
        cdef Py_ssize_t i, j, layer_size = self.size // (self.S * self.L)
        cdef layer_arguments *a
        cdef char *before = self.states_data[self.now]
        cdef char *after = self.states_data[1 - self.now]
        for i in range(self.L):
            a = &self.layers[VECTORS if values != NULL else CLASSES][i]
            a.indices = self.indices if values == NULL and i == 0 else NULL
            a.x = values if i == 0 else after - layer_size
            for j in range(self.S):
                a.h0[j] = before + j * self.L * layer_size
                a.h_n[j] = after + j * self.L * layer_size
            a.hs = after
            # What the loops write a second time is y, if it is the last layer's state; else it goes to its own place.
            # They write it last: out may be x.
            if i == self.L - 1 and not self.has_output:
                a.h_n[0] = y
            a.work = work
            fastrnn_batched(self.loops).layer_forward(a)
            before += layer_size
            after += layer_size
        if self.has_output:
            self.output.hs = after - layer_size
            self.output.logits = y
            self.output.work = work
            fastrnn_batched(self.loops).output_logits(&self.output)
        self.now = 1 - self.now
