"""The check of a contender's result against the reference's."""

from __future__ import annotations

import numpy as np


class WrongResult(AssertionError):
    """A contender computed something else than the reference: its time would mean nothing."""


def check_result(
    where: str,
    operation: str,
    got: list[np.ndarray],
    expected: list[np.ndarray],
    tolerance: float,
    equal_samples: float,
) -> None:
    """Compare the arrays of two results.

    Parameters
    ----------
    where : str
        The message begins with it.
    operation : str
        Samples are compared by how many are equal, everything else by the largest difference.
    got, expected : list of ndarray
    tolerance : float
        Largest difference, relative to the largest entry of each array.
    equal_samples : float
        Share of equal samples; in float32 a rounding error may move a draw over the edge of its class.

    Raises
    ------
    WrongResult
        If they differ by more than that.
    """
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        if a.shape != b.shape:
            raise WrongResult(f"{where}: result {i} has shape {a.shape}, the reference's {b.shape}")
        if operation == "sample":
            equal = np.mean(a == b)
            if not equal >= equal_samples:
                raise WrongResult(f"{where}: only {equal:.1%} of the samples are the reference's")
        else:
            error = np.abs(a - b).max() / np.abs(b).max()
            if not error <= tolerance:
                raise WrongResult(f"{where}: result {i} is off by {error:.1e} of its largest entry")
