"""Scaling to mean 0 and standard deviation 1, of each channel of X or each output of y."""

from __future__ import annotations

import numpy as np

__all__ = ["Scaler"]


class Scaler:
    """Means and standard deviations of columns.

    Parameters
    ----------
    mean, scale : ndarray of float64, shape (d,)
        A scale is positive; 1 for a column that is constant.
    """

    def __init__(self, mean: np.ndarray, scale: np.ndarray) -> None:
        self.mean, self.scale = mean, scale

    @classmethod
    def of(cls, values: np.ndarray) -> Scaler:
        """That of the columns of values (n, d)."""
        with np.errstate(over="ignore", invalid="ignore"):  # `into` finds it
            moved = values - values[0]  # 0 where all are the same, whatever rounding does to their sum
            # By a power of two, which changes no bit, so that squares neither overflow nor vanish.
            unit = np.ldexp(1.0, np.frexp(np.abs(moved).max(axis=0))[1])
            moved /= unit
            mean, scale = values[0] + moved.mean(axis=0) * unit, moved.std(axis=0) * unit
        # What rounding leaves of a constant is no scale.
        constant = scale <= 10 * np.finfo(np.float64).eps * np.maximum(
            np.abs(mean), np.finfo(np.float64).tiny
        )
        scale[constant | ~np.isfinite(scale)] = 1
        return cls(mean, scale)

    @classmethod
    def none(cls, d: int) -> Scaler:
        """One that changes nothing."""
        return cls(np.zeros(d), np.ones(d))

    def forward(self, values: np.ndarray) -> np.ndarray:
        """Scaled values."""
        scaled: np.ndarray = (values - self.mean) / self.scale
        return scaled

    def into(self, values: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
        """Scaled values of a dtype.

        Raises
        ------
        ValueError
            If they are too large for it.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = self.forward(values).astype(dtype)
        if not np.isfinite(scaled).all():
            raise ValueError(f"{name} holds values too large for {dtype}: up to {np.abs(values).max():.3g}")
        return scaled

    def back(self, values: np.ndarray) -> np.ndarray:
        """Values of scaled ones."""
        unscaled: np.ndarray = values * self.scale + self.mean
        return unscaled
