"""Arrays between guard zones, poisoned, with inputs that must stay as they are.

A kernel that writes beside an array, writes into an input or leaves a part of an output is found by
`Guarded.check`; one that reads what it has not written meets the poison.
"""

import math
import struct

import numpy as np

#: Elements before and after an array, and what they hold.
WIDTH, GUARD = 64, -77

#: Not a number, with bits that no calculation makes from others; they survive the way to float32.
POISON = struct.unpack("<d", struct.pack("<Q", 0x7FF8DEAD00000000))[0]


def same_bits(array, value):
    """Where the array holds the very bits of a number of its dtype."""
    unsigned = np.dtype(f"u{array.itemsize}")
    return array.view(unsigned) == np.array([value], array.dtype).view(unsigned)


class Guarded:
    """Makes the arrays of one call, at any alignment, and checks them after it.

    Parameters
    ----------
    dtype : dtype
        Of arrays that ask for no other.
    offset : int
        By so many elements every array begins later than its memory does.
    fill : float
        What outputs and work space hold at first; NaN stands for `POISON`.
    """

    def __init__(self, dtype, offset=0, fill=math.nan):
        self.dtype, self.offset = dtype, offset
        self.fill = POISON if math.isnan(fill) else fill
        self.arrays, self.inputs = [], []

    def new(self, shape, values=None, dtype=None):
        """An array to write into: poisoned, or with values of its own."""
        size, start = math.prod(shape), WIDTH + self.offset
        buffer = np.full(size + start + WIDTH, GUARD, self.dtype if dtype is None else dtype)
        array = buffer[start : start + size].reshape(shape)
        poison = self.fill if buffer.dtype.kind == "f" else GUARD
        array[...] = poison if values is None else values
        self.arrays.append((buffer, start, size))
        return array

    def given(self, values, dtype=None):
        """An input.  It has no flag that makes it read-only: Numba would compile the kernel anew for it."""
        array = self.new(np.shape(values), values, dtype)
        self.inputs.append((array, array.copy()))
        return array

    def keep(self):
        """The inputs are meant to be as they are now."""
        self.inputs = [(array, array.copy()) for array, _ in self.inputs]

    def untouched(self, array):
        """Whether all of it is as it was filled at first."""
        return bool(same_bits(array, self.fill).all())

    def poison(self, *arrays):
        """Fill outputs and work space as they were at first."""
        for array in arrays:
            array[...] = self.fill

    def check(self, *outputs):
        """Nothing is written beside an array or into an input, and the outputs are written wholly."""
        for buffer, start, size in self.arrays:
            assert (buffer[:start] == GUARD).all(), f"written before an array of {size}"
            assert (buffer[start + size :] == GUARD).all(), f"written after an array of {size}"
        for array, kept in self.inputs:
            assert array.tobytes() == kept.tobytes(), f"an input of shape {array.shape} was written"
        if self.fill is POISON:
            for array in outputs:
                left = np.argwhere(same_bits(array, self.fill))
                assert not len(left), f"{len(left)} of {array.shape} not written, first {left[0].tolist()}"
