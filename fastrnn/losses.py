"""Losses: what a net is trained for, and how its targets look.

The arithmetic is in the kernels, a file of losses in each backend; here stands what the rest of the package must know of
a loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fastrnn import kernels

__all__ = ["CROSS_ENTROPY", "LOSSES", "Loss", "LossName"]

#: What a `SequenceModel` may be trained for.
LossName: TypeAlias = Literal["mse", "cross_entropy", "gaussian"]


@dataclass(frozen=True)
class Loss:
    """One kind of loss.

    Attributes
    ----------
    name : str
        As users write it.
    code : int
        As the kernels are told.
    takes_classes : bool
        Whether targets are class indices, and not values.
    outputs : int
        Outputs of the net for each number that is predicted.
    """

    name: str
    code: int
    takes_classes: bool = False
    outputs: int = 1


CROSS_ENTROPY = Loss("cross_entropy", kernels.CROSS_ENTROPY, takes_classes=True)

#: All by their names.
LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("mse", kernels.SQUARED_ERROR),
        CROSS_ENTROPY,
        Loss("gaussian", kernels.GAUSSIAN, outputs=2),  # a mean and a log-variance
    )
}
