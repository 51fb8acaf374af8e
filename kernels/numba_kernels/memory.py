"""Arrays within the work space that a caller gives: where they begin, and matrices there.

Work space is one array.  A function beside each kernel says at which offsets its parts begin; each begins on a
cache line.  Rows of a part are padded to whole vectors, so that loops over them have no tail.
"""

import numpy as np
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from fastrnn.kernels.numba_kernels.emit import VECTOR_BYTES
from fastrnn.kernels.numba_kernels.jit import inlined, inlined_and_python

LINE = 64  # bytes of a cache line; parts are multiples of 64 elements long, so of whole lines for every dtype


@inlined_and_python
def padded(n, lanes):
    """`n` rounded up to a multiple of `lanes`, which is a power of two."""
    return (n + lanes - 1) & -lanes


@inlined_and_python
def after(place, n):
    """Offset of the part that comes after one of `n` elements at `place`."""
    return place + ((n + LINE - 1) & -LINE)


@inlined
def first_line(array):
    """Offset of the first element that begins a cache line."""
    return (-array.ctypes.data & (LINE - 1)) // array.itemsize


def largest_end(layout, *sizes):
    """Elements that a layout of these sizes takes, whatever the dtype and wherever the array begins.

    `layout` is a function as described above: its last arguments are `lanes`, the elements of a vector, and `start`,
    the offset of its first part; the last of what it returns is the end of the last part.
    """
    return max(layout(*sizes, VECTOR_BYTES // itemsize, LINE)[-1] for itemsize in (4, 8))


@intrinsic
def matrix(typing_context, array, place, rows, cols):
    """The matrix (rows, cols) that begins at ``array[place]``.

    A `reshape` does the same, and checks what is known here: 12 ns against none.
    """
    result = types.Array(array.dtype, 2, "C")

    def generate(context, builder, signature, arguments):
        flat, start, *shape = arguments
        memory = context.make_array(signature.args[0])(context, builder, flat)
        view = context.make_array(result)(context, builder)
        size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array.dtype)))
        populate_array(
            view,
            data=builder.gep(memory.data, [start]),
            shape=cgutils.pack_array(builder, shape),
            strides=cgutils.pack_array(builder, [builder.mul(shape[1], size), size]),
            itemsize=size,
            meminfo=None,
        )
        return view._getvalue()

    return result(array, types.intp, types.intp, types.intp), generate


if config.DISABLE_JIT:

    def matrix(array, place, rows, cols):
        part = array[place : place + rows * cols]
        # Of weights that are not packed there are none, and nobody reads them.
        return part.reshape(rows, cols) if len(part) else np.empty((rows, cols), array.dtype)
