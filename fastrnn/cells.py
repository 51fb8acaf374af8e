"""Cells: what a layer makes of its input and its state at one time step.

The arithmetic is in the kernels, a file of cells in each backend; here stands what the rest of the package must
know of a cell.  CONTRIBUTING.md has the recipe for a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from fastrnn import kernels

__all__ = [
    "CELLS",
    "CELL_NAMES",
    "NONLINEARITIES",
    "TANH",
    "Cell",
    "CellName",
    "Linear",
    "Nonlinearity",
    "cell_of",
]

#: What `RNN` makes of a sum, and so does a `LanguageModel` whose cell is "rnn".
Nonlinearity: TypeAlias = Literal["tanh", "relu"]

#: Cells of a `LanguageModel`.
CellName: TypeAlias = Literal["rnn", "gru", "lstm"]


class Linear(NamedTuple):
    """One step of a cell to first order: what small changes of the states before it do to the new ones.

    With ``u_g = W_g dh``, the change of the state's part of gate g, new state s changes by ``sum_g by_gate[s, g] u_g +
    sum_r directly[s, r] (change of state r)``.

    Attributes
    ----------
    by_gate : ndarray, shape (S, G, ..., h)
    directly : ndarray, shape (S, S, ..., h), or None
        None where there is nothing but the product.
    """

    by_gate: np.ndarray
    directly: np.ndarray | None


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
    linearized : callable or None
        `Linear` of steps, of the states before them (a tuple of arrays (..., h)) and what was kept (..., K, h); None of
        a cell without gates, where `slope` says all.
    """

    name: str
    code: int
    slope: Callable[[np.ndarray], np.ndarray] | None
    saturates: bool
    gates: tuple[str, ...] = ("",)
    states: tuple[str, ...] = ("h",)
    kept: tuple[str, ...] = ()
    linearized: Callable[[tuple[np.ndarray, ...], np.ndarray], Linear] | None = None

    def linear(self, before: tuple[np.ndarray, ...], h: np.ndarray, kept: np.ndarray) -> Linear:
        """Steps from the states `before` to h to first order, in the dtype of these."""
        if self.linearized is not None:
            return self.linearized(before, kept)
        assert self.slope is not None
        return Linear(self.slope(h)[None, None], None)


def _tanh_slope(h: np.ndarray) -> np.ndarray:
    slope: np.ndarray = h * h
    np.subtract(1, slope, out=slope)
    return slope


def _gru_linear(before: tuple[np.ndarray, ...], kept: np.ndarray) -> Linear:
    r, z, n, recurrent_n = np.moveaxis(kept, -2, 0)
    by_n = (1 - z) * (1 - n * n)
    by_r = by_n * recurrent_n * r * (1 - r)
    by_z = (before[0] - n) * z * (1 - z)
    return Linear(np.stack((by_r, by_z, by_n * r))[None], z[None, None])


def _lstm_linear(before: tuple[np.ndarray, ...], kept: np.ndarray) -> Linear:
    i, f, g, o, c = np.moveaxis(kept, -2, 0)
    tanh_c = np.tanh(c)
    h_by_c = o * (1 - tanh_c * tanh_c)
    none = np.zeros_like(c)
    c_by = np.stack((g * i * (1 - i), before[1] * f * (1 - f), i * (1 - g * g), none))
    h_by = h_by_c * c_by
    h_by[3] = tanh_c * o * (1 - o)
    return Linear(np.stack((h_by, c_by)), np.stack((np.stack((none, h_by_c * f)), np.stack((none, f)))))


TANH = Cell("tanh", kernels.TANH, _tanh_slope, saturates=True)
RELU = Cell("relu", kernels.RELU, lambda h: (h > 0).astype(h.dtype), saturates=False)
GRU = Cell(
    "gru", kernels.GRU, None, saturates=True, gates=("reset", "update", "new"),
    kept=("reset", "update", "new", "recurrent_new"), linearized=_gru_linear,
)  # fmt: skip
LSTM = Cell(
    "lstm", kernels.LSTM, None, saturates=True, gates=("input", "forget", "cell", "output"), states=("h", "c"),
    kept=("input", "forget", "cell", "output", "c"), linearized=_lstm_linear,
)  # fmt: skip

#: All by their names; those of `RNN`; and the names that the cells of a `LanguageModel` have.
CELLS: dict[str, Cell] = {cell.name: cell for cell in (TANH, RELU, GRU, LSTM)}
NONLINEARITIES: tuple[str, ...] = ("tanh", "relu")
CELL_NAMES: tuple[str, ...] = ("rnn", "gru", "lstm")


def cell_of(cell: str, nonlinearity: str) -> Cell:
    """The cell of a model that has these two settings."""
    return CELLS[nonlinearity if cell == "rnn" else cell]
