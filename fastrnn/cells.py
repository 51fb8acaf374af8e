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

__all__ = ["CELLS", "CELL_NAMES", "NONLINEARITIES", "TANH", "Cell", "CellName", "Nonlinearity", "cell_of"]

#: What `RNN` makes of a sum, and so does a `LanguageModel` whose cell is "rnn".
Nonlinearity: TypeAlias = Literal["tanh", "relu"]

#: Cells of a `LanguageModel`.
CellName: TypeAlias = Literal["rnn", "gru", "lstm"]


@dataclass(frozen=True)
class Cell:
    """One kind of cell.

    Attributes
    ----------
    name : str
        As users write it.
    code : int
        As the kernels are told.
    slope : callable or None
        Derivative of the nonlinearity (eq. 4), given the new states h, which it leaves as they are; None of a cell
        with gates, which has several.
    saturates : bool
        Whether h has limits, -1 and 1, near which the slope is nearly 0.
    gates : tuple of str
        For each of them, `W_ih` and `W_hh` have a block of h rows, in this order.
    states : tuple of str, default ("h",)
        What is carried from one time step to the next.
    kept : tuple of str
        What forward keeps of a step for backward, an array of h numbers each, in this order.
    """

    name: str
    code: int
    slope: Callable[[np.ndarray], np.ndarray] | None
    saturates: bool
    gates: tuple[str, ...] = ("",)
    states: tuple[str, ...] = ("h",)
    kept: tuple[str, ...] = ()


def _tanh_slope(h: np.ndarray) -> np.ndarray:
    slope: np.ndarray = h * h
    np.subtract(1, slope, out=slope)
    return slope


TANH = Cell("tanh", kernels.TANH, _tanh_slope, saturates=True)
RELU = Cell("relu", kernels.RELU, lambda h: (h > 0).astype(h.dtype), saturates=False)
GRU = Cell(
    "gru", kernels.GRU, None, saturates=True, gates=("reset", "update", "new"),
    kept=("reset", "update", "new", "recurrent_new"),
)  # fmt: skip
LSTM = Cell(
    "lstm", kernels.LSTM, None, saturates=True, gates=("input", "forget", "cell", "output"), states=("h", "c"),
    kept=("input", "forget", "cell", "output", "c"),
)  # fmt: skip

#: All by their names; those of `RNN`; and the names that the cells of a `LanguageModel` have.
CELLS: dict[str, Cell] = {cell.name: cell for cell in (TANH, RELU, GRU, LSTM)}
NONLINEARITIES: tuple[str, ...] = ("tanh", "relu")
CELL_NAMES: tuple[str, ...] = ("rnn", "gru", "lstm")


def cell_of(cell: str, nonlinearity: str) -> Cell:
    """The cell of a model that has these two settings."""
    return CELLS[nonlinearity if cell == "rnn" else cell]
