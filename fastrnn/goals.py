"""Goals: what is wanted of the outputs of a batch, and how much each of them counts."""

from __future__ import annotations

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
        self._steps, self._shape = np.arange(T)[:, None], (T, N)
        self._copies: dict[str, np.ndarray] = {}
        self._there: np.ndarray | None = None
        self.lengths: np.ndarray

    def put(self, lengths: np.ndarray) -> None:
        """Take the lengths (N,) of the sequences, without elements where all are T."""
        self.lengths = lengths
        if lengths.size:
            if self._there is None:
                self._there = np.empty(self._shape, bool)
            np.greater_equal(self._steps, lengths, out=self._there)

    def fill(self, array: np.ndarray, value: float) -> None:
        """Put a value there, into an array (T, N) or (T, N, n)."""
        if self.lengths.size and self._there is not None:
            there = self._there
            np.copyto(array, value, where=there if array.ndim == 2 else there[:, :, None])

    def without(self, array: np.ndarray, name: str, value: float) -> np.ndarray:
        """A copy of an array with the value there, in memory that is kept under a name; itself where there is no rest."""
        if not self.lengths.size:
            return array
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
        Of the batch, whose lengths are there.

    Attributes
    ----------
    counted : float
        Numbers that count, each as often as its weight says: what a mean divides by.
    """

    def __init__(
        self, loss: Loss, per_step: bool, outputs: int, size: int, dtype: np.dtype, T: int, N: int, rest: Rest
    ) -> None:  # fmt: skip
        self._loss, self._per_step, self._outputs, self._size = loss, per_step, outputs, size
        self._dtype, self._rest = dtype, rest
        self._shape = shape = (T if per_step else 1, N)
        #: As kernels take them; without elements where they are not read.
        self._no_classes = self._classes = np.empty((0, 0), INDEX)
        self._no_values = self._values = np.empty((0, 0, 0), dtype)
        self._no_weights = self._weights = np.empty((0, 0), dtype)
        self._kept_weights: np.ndarray | None = None
        if loss.takes_classes:
            self._flat = np.empty(shape[0] * N, INDEX)
            self._classes = self._flat.reshape(shape)
        self.counted = 0.0

    def part(self, start: int, stop: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """Those of some time steps, as kernels take them."""
        code, whole = self._loss.code, stop - start == self._shape[0]
        if whole:
            return code, self._classes, self._values, self._weights
        return code, self._classes[start:stop], self._values[start:stop], self._weights[start:stop]

    def put(self, y: Any, weights: Any, kernels: ModuleType) -> None:
        """Take the targets and weights that a user gives."""
        rest, per_step = self._rest, self._per_step
        ragged = per_step and bool(rest.lengths.size)
        factors = None if weights is None else self._check_weights(weights)
        if self._loss.takes_classes:
            targets = self._check_classes(y)
            if ragged:
                targets = rest.without(targets, "targets", IGNORED)
            given = targets if ragged else y
            counted = float(check_targets(targets, "y", self._outputs, kernels, self._flat, given))
        else:
            self._values = self._check_values(y)
            counted = float(rest.lengths.sum()) if ragged else float(self._shape[0] * self._shape[1])
        self._weights = self._no_weights
        if factors is not None or (ragged and not self._loss.takes_classes):
            self._weights = kept = self._memory_of_weights()
            kept[...] = 1 if factors is None else factors
            if ragged:
                rest.fill(kept, 0)
            if self._loss.takes_classes:
                np.copyto(kept, 0, where=self._classes < 0)
            counted = float(kept.sum(dtype=np.float64))
        self.counted = counted if self._loss.takes_classes else counted * self._size

    def _memory_of_weights(self) -> np.ndarray:
        if self._kept_weights is None:
            self._kept_weights = np.empty(self._shape, self._dtype)
        return self._kept_weights

    def _check_classes(self, y: Any) -> np.ndarray:
        """Class indices (T, N) or (1, N), whose range is not yet checked."""
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
        if array.dtype.kind not in "iu":
            if array.size or array.dtype.kind != "f":
                raise TypeError(f"y must hold integers (class indices), got {describe(y, array)}")
            array = array.astype(INDEX)
        return index_batch(array[None], "y", ("1", "N"), "N")

    def _check_values(self, y: Any) -> np.ndarray:
        if self._per_step:
            return check_real_array(y, "y", self._dtype, (*self._shape, self._size))
        return check_real_array(y, "y", self._dtype, (self._shape[1], self._size))[None]

    def _check_weights(self, weights: Any) -> np.ndarray:
        shapes: list[tuple[int, ...]] = [(self._shape[1],)]
        if self._per_step:
            shapes.append(self._shape)
        factors = check_real_array(weights, "weights", self._dtype, *shapes)
        bad = ~(np.isfinite(factors) & (factors >= 0))
        if bad.any():
            place = np.unravel_index(int(bad.argmax()), bad.shape)
            shown = ", ".join(map(str, place))
            raise ValueError(f"weights[{shown}] must be a finite number of at least 0, got {factors[place]}")
        return factors
