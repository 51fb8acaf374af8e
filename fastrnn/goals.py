"""Goals: what is wanted of the outputs of a batch, and how much each of them counts."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np

from fastrnn.checks import IGNORED, INDEX, as_array, check_real_array, check_targets, describe, index_batch
from fastrnn.losses import CROSS_ENTROPY, Loss

__all__ = ["Goal", "Rest", "of_classes"]


def of_classes(classes: np.ndarray, dtype: np.dtype) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """A goal, as kernels take it: classes (T, N), which all count once but for negative ones."""
    return CROSS_ENTROPY.code, classes, np.empty((0, 0, 0), dtype), np.empty((0, 0), dtype)


class Rest:
    """What of a padded batch lies beyond the ends of its sequences.

    Parameters
    ----------
    T, N : int
        Time steps and sequences.
    """

    def __init__(self, T: int, N: int) -> None:
        self.shape = T, N
        self._steps, self._there = np.arange(T)[:, None], np.empty((0, N), bool)
        self._copies: dict[str, np.ndarray] = {}

    @property
    def nbytes(self) -> int:
        """Of what is kept."""
        return self._there.nbytes + sum(copy.nbytes for copy in self._copies.values())

    def cover(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Take the lengths (N,) of the sequences; a copy of the inputs with zeros there."""
        if not self._there.size:
            self._there = np.empty(self.shape, bool)
        np.greater_equal(self._steps, lengths, out=self._there)
        return self.without(inputs, "inputs", 0)

    def fill(self, array: np.ndarray, value: float) -> None:
        """Put a value there, into an array (T, N) or (T, N, n)."""
        there = self._there
        np.copyto(array, value, where=there if array.ndim == 2 else there[:, :, None])

    def without(self, array: np.ndarray, name: str, value: float) -> np.ndarray:
        """A copy of an array with a value there, in memory that is kept under a name."""
        copy = self._copies.get(name)
        if copy is None or copy.shape != array.shape or copy.dtype != array.dtype:
            copy = self._copies[name] = np.empty(array.shape, array.dtype)
        copy[...] = array
        self.fill(copy, value)
        return copy


class Goal:
    """What a loss reads beside the outputs of a batch, in memory of its own.

    Parameters
    ----------
    loss : Loss
    per_step : bool
        Whether there is an output for each time step, and not one for a sequence.
    outputs, size : int
        Outputs, and numbers that are predicted.
    dtype : dtype
    rest : Rest
        Of the batch.

    Attributes
    ----------
    counted : float
        Numbers that count, each as often as its weight says: what a mean divides by.
    whole : tuple
        All of it, as kernels take it: code, classes, values, weights.  The values may be the user's own array.
    unit : float
        What the weights that kernels see are to be multiplied by.
    """

    def __init__(
        self, loss: Loss, per_step: bool, outputs: int, size: int, dtype: np.dtype, rest: Rest
    ) -> None:  # fmt: skip
        self._loss, self._per_step, self._outputs, self._size = loss, per_step, outputs, size
        self._dtype, self._rest = dtype, rest
        T, N = rest.shape
        self._shape = shape = (T if per_step else 1, N)
        #: As kernels take them; without elements where they are not read.
        self._classes = np.empty((0, 0), INDEX)
        self._no_values = np.empty((0, 0, 0), dtype)
        self.whole: tuple[Any, ...] = ()
        self._no_weights = self._weights = np.empty((0, 0), dtype)
        self._kept_weights: np.ndarray | None = None
        if loss.takes_classes:
            self._flat = np.empty(shape[0] * N, INDEX)
            self._classes = self._flat.reshape(shape)
        self.counted, self.unit = 0.0, 1.0

    @property
    def nbytes(self) -> int:
        """Of what is kept."""
        weights = 0 if self._kept_weights is None else self._kept_weights.nbytes
        return self._classes.nbytes + weights

    def part(self, start: int, stop: int) -> tuple[Any, ...]:
        """Those of some time steps, as kernels take them."""
        if stop - start == self._shape[0]:
            return self.whole
        code, classes, values, weights = self.whole
        return code, classes[start:stop], values[start:stop], weights[start:stop]

    def put(self, y: Any, weights: Any, lengths: np.ndarray, kernels: ModuleType) -> None:
        """Take the targets and weights that a user gives; `lengths` are those that the rest has taken."""
        ragged, values = self._per_step and lengths.size > 0, self._no_values
        if self._loss.takes_classes:
            targets = self._check_classes(y)
            if ragged:
                targets = self._rest.without(targets, "targets", IGNORED)
            counted: float = check_targets(targets, "y", self._outputs, kernels, self._flat, y)
            weighted = weights is not None
        else:
            values = self._check_values(y)
            counted = lengths.sum() if ragged else self._shape[0] * self._shape[1]
            weighted = weights is not None or ragged
        self._weights, self.unit = self._no_weights, 1.0
        if weighted:
            counted = self._put_weights(weights, ragged)
        self.counted = float(counted) if self._loss.takes_classes else float(counted) * self._size
        self.whole = self._loss.code, self._classes, values, self._weights

    def _put_weights(self, weights: Any, ragged: bool) -> float:
        """Take weights, None for ones; returns their sum.

        They are scaled by a power of two, exactly, so that neither their sum nor what divides by it is beyond what
        numbers can be.
        """
        if self._kept_weights is None:
            self._kept_weights = np.empty(self._shape, self._dtype)
        self._weights = kept = self._kept_weights
        if weights is None:
            kept.fill(1)
        else:
            array = self._check_weights(weights)
            with np.errstate(over="ignore"):
                kept[...] = array
        if ragged:
            self._rest.fill(kept, 0)
        if weights is not None:
            bad = ~(np.isfinite(kept) & (kept >= 0))
            if bad.any():
                place = np.unravel_index(int(bad.argmax()), bad.shape)[-array.ndim :]
                raise ValueError(
                    f"weights[{', '.join(map(str, place))}] must be a finite {self._dtype} of at least 0, got "
                    f"{array[place]}"
                )
            if self._loss.takes_classes:
                np.copyto(kept, 0, where=self._classes < 0)
            exponent = int(np.frexp(kept.max(initial=0))[1]) - 1  # the largest comes to be from 1 to 2
            np.ldexp(kept, -exponent, out=kept)
            self.unit = math.ldexp(1.0, exponent)
        return float(kept.sum(dtype=np.float64))

    def _check_classes(self, y: Any) -> np.ndarray:
        """Class indices (T, N) or (1, N), whose range is not yet checked."""
        if not self._shape[1] and as_array(y, "y").shape == self._shape[not self._per_step :]:
            return np.empty(self._shape, INDEX)  # a list of nothing makes no integers
        if self._per_step:
            grid: np.ndarray = y
            if not (type(y) is np.ndarray and y.dtype is INDEX and y.ndim == 2 and y.flags.carray and y.size):
                grid = index_batch(y, "y", may_be_empty="" if self._shape[1] else "N")
            if grid.shape != self._shape:
                raise ValueError(f"y must have the shape of x, {self._shape}, got {grid.shape}")
            return grid
        if type(y) is np.ndarray and y.dtype is INDEX and y.shape == self._shape[1:] and y.flags.carray:
            return y[None]
        array, N = as_array(y, "y"), self._shape[1]
        if array.shape != (N,):
            came = f"shape {array.shape}" if array.ndim else describe(y)
            raise ValueError(f"y must have shape ({N},), one class for each sequence, got {came}")
        return index_batch(array[None], "y", ("1", "N"), "N")

    def _check_values(self, y: Any) -> np.ndarray:
        if self._per_step:
            return check_real_array(y, "y", self._dtype, (*self._shape, self._size))
        return check_real_array(y, "y", self._dtype, (self._shape[1], self._size))[None]

    def _check_weights(self, weights: Any) -> np.ndarray:
        """Weights (N,) or (T, N), whose values are not yet checked; bools are a mask."""
        array = as_array(weights, "weights")
        if array.dtype.kind not in "bfiu":
            raise TypeError(f"weights must hold real numbers, got {describe(weights, array)}")
        shapes = [self._shape[1:], *([self._shape] if self._per_step else [])]
        if array.shape not in shapes:
            raise ValueError(f"weights must have shape {' or '.join(map(str, shapes))}, got {array.shape}")
        return array
