"""Heads: which of a net's states its output layer reads.

A head is a class, of which each work space has an object with the memory that it takes.  Where there is one output for a
sequence, the passes of `fastrnn.supervised` call it: after a piece of the forward pass, `add`; after the last one,
`finish`; then the output layer reads `features`, and writes their gradient to `gradient`; before a piece of the backward
pass, `spread`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from fastrnn.passes import Space, Span

__all__ = ["HEADS", "Head", "HeadName", "Last", "Mean"]

#: Time steps that are added up in the model's dtype, before their sum goes into one in float64.
BLOCK = 64

#: Heads of a `SequenceModel`.
HeadName: TypeAlias = Literal["each", "last", "mean"]


class Head:
    """What the output layer reads, H = h * D numbers of a sequence at once: here, the outputs of each time step.

    Parameters
    ----------
    space : Space
        Whose states they are.
    backward : bool
        Whether there will be a backward pass.

    Attributes
    ----------
    dh_n : list of tuple of ndarray
        Gradients of the last states of each place, as the kernels take them: those that come from the outputs.
    gradient : ndarray, shape (1, N, H)
        That of the features.
    """

    #: As users write it.
    name: ClassVar[HeadName] = "each"
    #: Whether there is an output for each time step, and not one for a sequence.
    per_step: ClassVar[bool] = True
    #: Of what it keeps beside the buffers of its space.
    nbytes: int = 0
    gradient: np.ndarray

    def __init__(self, space: Space, backward: bool) -> None:
        # Not the space itself, which has this object: neither would go before the garbage collector comes.
        self._net, self._extents, self._T = space.net, space.extents, space.T
        net = space.net
        self._width = net.h * net.D
        self.dh_n: list[tuple[np.ndarray, ...]] = [space.no_states] * (net.L * net.D)

    def features(self, h_n: Any) -> np.ndarray:
        """What the output layer reads, shape (1, N, H); `h_n` are the last states of all places."""
        raise NotImplementedError

    def add(self, span: Span, share: int, first: bool) -> None:
        """Take in the outputs of some time steps, for the sequences of a share; `first` tells the first ones."""

    def finish(self, share: int, h_n: Any, lengths: np.ndarray) -> None:
        """Complete the features of a share, from the last states and the numbers of time steps."""

    def spread(self, span: Span, share: int, first: bool) -> None:
        """Give each output of the last layer its gradient, and each place that of its last state.

        `first` tells the first piece of a backward pass, which has the last time steps.
        """


class Last(Head):
    """The last state of every sequence; in two directions, that of each."""

    name: ClassVar[HeadName] = "last"
    per_step = False

    def __init__(self, space: Space, backward: bool) -> None:
        super().__init__(space, backward)
        net = space.net
        if net.D == 2:
            self._joined = space.buffer(1, space.N, self._width)
        if not backward:
            return
        self.gradient = space.buffer(1, space.N, self._width)
        parts = [self.gradient[0]]
        if net.D == 2:
            parts = [space.buffer(space.N, net.h) for _ in range(2)]
        self._parts = parts
        self.dh_n[-net.D :] = [(part, *space.no_states[1:]) for part in parts]
        for dout in space.douts:
            dout.fill(0)

    def features(self, h_n: Any) -> np.ndarray:
        if self._net.D == 2:
            return self._joined
        last: np.ndarray = h_n.arrays[0][-1:]
        return last

    def finish(self, share: int, h_n: Any, lengths: np.ndarray) -> None:
        if self._net.D == 2:
            start, stop = self._extents[share]
            for direction, columns in enumerate(self._halves()):
                self._joined[0, start:stop, columns] = h_n.places[direction - 2][0][start:stop]

    def spread(self, span: Span, share: int, first: bool) -> None:
        start, stop = self._extents[share]
        if self._net.L > 2 or not first:  # where lower layers have left gradients of theirs
            span.dout[:, start:stop] = 0
        if first and self._net.D == 2:
            for part, columns in zip(self._parts, self._halves(), strict=True):
                part[start:stop] = self.gradient[0, start:stop, columns]

    def _halves(self) -> tuple[slice, slice]:
        h = self._net.h
        return slice(0, h), slice(h, 2 * h)


class Mean(Head):
    """The mean over the time steps of a sequence."""

    name: ClassVar[HeadName] = "mean"
    per_step = False

    def __init__(self, space: Space, backward: bool) -> None:
        super().__init__(space, backward)
        self._mean = space.buffer(1, space.N, self._width)
        self._part = space.buffer(space.N, self._width)
        self._by = space.buffer(space.N, 1)
        #: In float64: a long sum in float32 forgets what comes last.
        self._sum, self._wide_by = np.zeros((space.N, self._width)), np.zeros((space.N, 1))
        self.nbytes = self._sum.nbytes + self._wide_by.nbytes
        if backward:
            self.gradient = space.buffer(1, space.N, self._width)

    def features(self, h_n: Any) -> np.ndarray:
        return self._mean

    def add(self, span: Span, share: int, first: bool) -> None:
        start, stop = self._extents[share]
        outputs = span.outputs[-1][:, start:stop]
        total, part = self._sum[start:stop], self._part[start:stop]
        with np.errstate(all="ignore"):
            if first:
                total.fill(0)
            for t in range(0, len(outputs), BLOCK):
                np.add.reduce(outputs[t : t + BLOCK], axis=0, out=part)
                total += part

    def finish(self, share: int, h_n: Any, lengths: np.ndarray) -> None:
        start, stop = self._extents[share]
        total, by = self._sum[start:stop], self._wide_by[start:stop]
        if lengths.size:
            np.divide(1, lengths[start:stop, None], out=by)
        else:
            by.fill(1 / self._T)
        with np.errstate(all="ignore"):
            total *= by
            self._mean[0, start:stop] = total
        self._by[start:stop] = by

    def spread(self, span: Span, share: int, first: bool) -> None:
        start, stop = self._extents[share]
        gradient = self.gradient[0, start:stop]
        with np.errstate(all="ignore"):
            if first:
                gradient *= self._by[start:stop]
            span.dout[:, start:stop] = gradient


#: All by their names.
HEADS: dict[str, type[Head]] = {head.name: head for head in (Head, Last, Mean)}
