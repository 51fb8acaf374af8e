"""Where arrays lie in memory: aligned, several of them in one, or one call's from one piece."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["Layout", "Memory", "Shape", "aligned"]

Shape = tuple[int, ...]

#: Bytes to which buffers are aligned: a cache line, and the widest register.
ALIGNMENT = 64


def aligned(shape: Shape, dtype: np.dtype) -> np.ndarray:
    """An array of zeros whose first element is at a multiple of `ALIGNMENT` bytes."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + size].view(dtype).reshape(shape)


class Layout:
    """Names and shapes of arrays, and their places in one flat array.

    Parameters
    ----------
    shapes : dict of str to tuple of int
    dtype : dtype

    Attributes
    ----------
    shapes : dict of str to tuple of int
    dtype : dtype
    size : int
        Elements of the flat array.  Each array begins at a multiple of 64 bytes in it; what lies between
        two of them stays zero.
    """

    def __init__(self, shapes: dict[str, Shape], dtype: np.dtype) -> None:
        self.shapes = shapes
        self.dtype = dtype
        self.size = 0
        self._places = {}
        step = ALIGNMENT // dtype.itemsize
        for name, shape in shapes.items():
            self._places[name] = slice(self.size, self.size + math.prod(shape))
            self.size += -(-math.prod(shape) // step) * step

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays that lie in `flat`."""
        return {name: flat[place].reshape(self.shapes[name]) for name, place in self._places.items()}


class Memory:
    """Arrays of one call, from one piece: a large one comes in large pages, and the system takes far
    less time to provide those than thousands of small ones."""

    #: Bytes from which it pays, and room for pages of 2 MiB to begin where they must.
    LARGE, ROOM = 1 << 20, 1 << 22

    def __init__(self, size: int, dtype: np.dtype) -> None:
        room = self.ROOM // dtype.itemsize if size * dtype.itemsize >= self.LARGE else 0
        self._flat = np.empty(size + room, dtype)
        self._used = 0

    def take(self, shape: Shape, dtype: np.dtype) -> np.ndarray:
        """An array that is not initialized; one of its own where the piece is used up."""
        size = math.prod(shape)
        start, end = self._used, self._used + size
        if end > len(self._flat) or dtype != self._flat.dtype:
            return np.empty(shape, dtype)
        self._used = end + -end % 16  # at least 64 bytes from the next one
        return self._flat[start:end].reshape(shape)
