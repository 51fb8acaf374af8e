"""Cells: what a layer makes of its input and its state at one time step.

The arithmetic is in the kernels, a file of cells in each backend; here stands what the rest of the package must
know of a cell.  CONTRIBUTING.md has the recipe for a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from fastrnn import kernels

__all__ = ["CELLS", "TANH", "Cell", "Nonlinearity"]

#: Names of the cells of `RNN` and of `LanguageModel`.
Nonlinearity: TypeAlias = Literal["tanh", "relu"]


@dataclass(frozen=True)
class Cell:
    """One kind of cell.

    Attributes
    ----------
    name : str
        As users write it.
    code : int
        As the kernels are told.
    slope : callable
        Derivative of the nonlinearity (eq. 4), given the new states h, which it leaves as they are.
    saturates : bool
        Whether h has limits, -1 and 1, near which the slope is nearly 0.
    gates : int, default 1
        Rows of `W_ih` and of `W_hh` for each hidden unit.
    states : tuple of str, default ("h",)
        What is carried from one time step to the next.
    """

    name: Nonlinearity
    code: int
    slope: Callable[[np.ndarray], np.ndarray]
    saturates: bool
    gates: int = 1
    states: tuple[str, ...] = ("h",)


def _tanh_slope(h: np.ndarray) -> np.ndarray:
    slope: np.ndarray = h * h
    np.subtract(1, slope, out=slope)
    return slope


TANH = Cell("tanh", kernels.TANH, _tanh_slope, saturates=True)
RELU = Cell("relu", kernels.RELU, lambda h: (h > 0).astype(h.dtype), saturates=False)

#: By their names.
CELLS: dict[str, Cell] = {cell.name: cell for cell in (TANH, RELU)}
