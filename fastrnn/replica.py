"""A model that several ranks train together: each over its own sequences, with the gradients of all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fastrnn import backends
from fastrnn.dropout import sections
from fastrnn.group import check_same
from fastrnn.kernels import CLIP_NONE
from fastrnn.layout import ALIGNMENT, aligned

if TYPE_CHECKING:
    from fastrnn.distributed import Communicator
    from fastrnn.supervised import SupervisedModel, _Batch

__all__ = ["Replica"]


class Replica:
    """What a rank keeps of a model that all train.

    Making it is called by all: each then has the weights, the random stream and the optimizer's state of rank 0.

    Parameters
    ----------
    model : SupervisedModel
    optimizer : object
    comm : Communicator

    Attributes
    ----------
    steps : int
        Taken so far; those that are multiples of ``comm.sync_every`` end with an exchange.

    Raises
    ------
    ValueError
        If the models of the ranks are not of the same kind.
    """

    def __init__(self, model: SupervisedModel, optimizer: Any, comm: Communicator) -> None:
        self.comm, self.steps = comm, 0
        kernels = backends.kernels(model._backend)
        check_same(comm, {
            "the model": repr(model), "the backend": _calculates(kernels), "training": model.training, "sync_every": comm.sync_every,
            "the optimizer": repr(optimizer) if hasattr(optimizer, "state_dict") else type(optimizer).__name__,
        })  # fmt: skip
        stateful = hasattr(optimizer, "state_dict") and hasattr(optimizer, "load_state_dict")
        weights, stream, state = comm.of_root(
            lambda: (
                model.state_dict(),
                model.rng.bit_generator.state,
                optimizer.state_dict() if stateful else None,
            )
        )
        comm.together(lambda: self._take_over(model, optimizer, weights, stream, state))
        n = comm.size
        step = ALIGNMENT // model.dtype.itemsize
        #: Elements of the flat array that a rank adds up for all.
        each = -(-model._layout.size // (n * step)) * step
        self._sent = aligned((n, each), model.dtype)
        self._received = aligned((n, each), model.dtype)
        self._mine = aligned((each,), model.dtype)
        self._sum = aligned((1, n * each), model.dtype)
        self.flat = self._sent.reshape(-1)[: model._layout.size]
        self._numbers, self._everyone = np.zeros(4), np.zeros((n, 4))
        #: Which sequences of the whole batch this rank had the last time, and where their masks lie.
        self._place = (0, 0, 0)
        self._sections: Any = None

    def _take_over(
        self, model: SupervisedModel, optimizer: Any, weights: Any, stream: Any, state: Any
    ) -> None:
        if self.comm.rank:
            model.load_state_dict(weights)
            if state is not None:
                optimizer.load_state_dict(state)
            kind = getattr(np.random, stream["bit_generator"])
            model.rng = np.random.Generator(kind())
            model.rng.bit_generator.state = stream

    @property
    def averages(self) -> bool:
        """Whether each rank steps for itself, and weights are averaged now and then."""
        return self.comm.sync_every > 1

    # -- a step ----------------------------------------------------------------------------------

    def batch(self, model: SupervisedModel, given: tuple[Any, ...]) -> tuple[_Batch, float]:
        """This rank's part of a batch, and what makes its loss its part of the mean of all.

        Parameters
        ----------
        model : SupervisedModel
        given : tuple
            What `SupervisedModel._batch` takes.

        Raises
        ------
        DistributedError
            If another rank refuses its part; nothing is changed then.
        """
        if self.averages:
            batch = model._batch(*given, gradients=True)  # type: ignore[misc]
            return batch, batch.scale("mean")
        made: _Batch | None = None
        own, numbers = None, self._numbers
        numbers[:] = 1, 0, 0, 1
        try:
            made = model._batch(*given, gradients=True)  # type: ignore[misc]
            goal = made.space.goal
            numbers[:] = 0, made.space.N, goal.counted, goal.unit
        except BaseException as error:  # noqa: BLE001 - `check_all` raises it
            own = error
        self.comm.exchange(numbers, self._everyone)
        failed, N, counted, units = self._everyone.T
        if failed.any():
            if made is not None:
                model._give_back(made.shape, made.space)
            self.comm.check_all(own)
        batch = cast("_Batch", made)
        if batch.space.masks:
            place = batch.space.N, int(N[: self.comm.rank].sum()), int(N.sum())
            if place != self._place:
                self._place, self._sections = place, sections(*place)
            batch.sections = self._sections
        unit = float(units.max())  # a power of two
        total = float((counted * (units / unit)).sum())
        return batch, float(numbers[3]) / unit / total if total else 1.0

    def key(self, key: tuple[int, int]) -> tuple[int, int]:
        """Where this rank draws the masks of a batch from."""
        if not self.averages:
            return key
        return key[0], (key[1] + 2 * self.comm.rank) % (1 << 128)  # batches of their own: each has a stream

    def sum(
        self, kernels: ModuleType, sums: np.ndarray, loss: float, threads: int
    ) -> tuple[np.ndarray, float]:
        """The gradients of all ranks, as one part, and their loss; both added up in the order of the ranks."""
        if self.averages:
            return sums, loss
        kernels.reduce_gradients(sums, CLIP_NONE, math.inf, self.flat, threads)
        numbers = self._numbers
        numbers[0] = loss
        self.comm.exchange(numbers, self._everyone)
        return self._summed(kernels, threads), float(sum(self._everyone[:, 0].tolist()))

    def _summed(self, kernels: ModuleType, threads: int) -> np.ndarray:
        """The sum over the ranks of what is in `flat`, shape (1, n), in memory that the next one overwrites."""
        self.comm.transpose(self._sent, self._received)
        kernels.reduce_gradients(self._received, CLIP_NONE, math.inf, self._mine, threads)
        self.comm.exchange(self._mine, self._sum)
        return self._sum[:, : self.flat.size]

    # -- averages --------------------------------------------------------------------------------

    def stepped(self, model: SupervisedModel, optimizer: Any) -> None:
        """Note a step; average what has drifted apart when it is time to."""
        self.steps += 1
        if self.averages and self.steps % self.comm.sync_every == 0:
            self.average(model, optimizer)

    def average(self, model: SupervisedModel, optimizer: Any) -> None:
        """Give every rank the mean of the weights of all, and of the optimizer's state."""
        kernels = backends.kernels(model._backend)
        places = model._layout.views(self.flat)
        for arrays in self._arrays(model, optimizer):
            for name, place in places.items():
                if name in arrays:
                    np.divide(arrays[name], self.comm.size, out=place)
            means = model._layout.views(self._summed(kernels, 1)[0])
            for name, mean in means.items():
                if name in arrays:
                    arrays[name][...] = mean

    def _arrays(self, model: SupervisedModel, optimizer: Any) -> Iterator[dict[str, np.ndarray]]:
        yield model.parameters
        for arrays in getattr(optimizer, "_state", {}).values():
            if arrays:
                yield arrays


def _calculates(kernels: ModuleType) -> str:
    """What the bits of a result hang on."""
    level = getattr(kernels, "simd_level", None)
    return kernels.NAME if level is None else f"{kernels.NAME} at {level()}"
