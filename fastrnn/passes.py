"""The engine: forward and backward passes of a stack of layers over a batch.

`Space` has the memory of a call, `Call` what it reads and the passes over one part of the batch; `Call.run`
shares the parts among threads.  What drives the kernels does it through these two.  Dimension letters: T
time steps, N sequences, d inputs, h hidden units, q outputs, L layers, D directions; a place is the number
``layer * D + direction``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from fastrnn import threads
from fastrnn.cells import Cell
from fastrnn.checks import NO_INDICES, NO_LENGTHS
from fastrnn.dropout import Piece, draw, sections
from fastrnn.kernels import PACK_BACKWARD, PACK_BOTH, PACK_FORWARD
from fastrnn.layout import Layout, Shape, aligned
from fastrnn.states import States

__all__ = ["Call", "Gradients", "Layer", "Net", "Space", "Spaces", "Span"]

#: Arrays of one layer in one direction, as kernels take them: W_ih, W_hh, b_ih, b_hh.
Layer = tuple[np.ndarray, ...]

#: Batch shapes whose work space a model keeps: those of training and of validation; and more, up to `MOST_SHAPES`, while
#: all together take no more than `KEPT_BYTES`: those of sequences whose lengths differ.
KEPT_SHAPES, MOST_SHAPES, KEPT_BYTES = 2, 32, 32 * 2**20

_Take = Callable[[Shape, np.dtype], np.ndarray]


@dataclass(frozen=True)
class Net:
    """What the kernels must know of a stack of layers.

    Attributes
    ----------
    dtype : dtype
    cell : Cell
    d, h, q : int
        Inputs, hidden units, and outputs; q is 0 where there is no output layer.
    L, D : int
        Layers and directions.
    reverse : tuple of bool
        Whether each direction begins with the last time step.
    """

    dtype: np.dtype
    cell: Cell
    d: int
    h: int
    q: int = 0
    L: int = 1
    D: int = 1
    reverse: tuple[bool, ...] = (False, True)

    @property
    def columns(self) -> int:
        """Rows of W_ih and of W_hh: h for each gate."""
        return len(self.cell.gates) * self.h

    @property
    def widths(self) -> list[int]:
        """Input size of each place."""
        return [self.d] * self.D + [self.h * self.D] * (self.D * (self.L - 1))


class Span:
    """The buffers of a stack for a number of time steps."""

    __slots__ = ("dhs", "dout", "douts", "dropped", "dxs", "hs", "kept", "masks", "outputs")

    def __init__(self, space: Space, T: int) -> None:
        def first(arrays: list[np.ndarray]) -> list[np.ndarray]:
            return arrays if space.steps == T else [array[:T] for array in arrays]

        self.hs = first(space.hs)
        self.kept = first(space.kept)
        self.outputs = first(space.outputs)
        self.dropped = first(space.dropped)
        self.masks = [first(masks) for masks in space.masks]
        self.dhs = first(space.dhs)
        self.dxs = first(space.dxs)
        self.douts = first(space.douts)
        #: Gradient of the outputs of the last layer.
        self.dout = self.douts[(len(self.outputs) - 1) % 2] if self.douts else space.none


class Gradients:
    """Sums of the gradients over each part of a batch.

    Parameters
    ----------
    layout : Layout
        Of the parameters whose gradients are wanted.
    places : sequence of tuple of str
        Their names in each place.
    output : tuple of str
        Those of the output layer.
    space : Space
        Whose batch it is.
    """

    def __init__(
        self, layout: Layout, places: Sequence[tuple[str, ...]], output: tuple[str, ...], space: Space
    ) -> None:
        count = len(space.bounds)
        self.sums = aligned((count, layout.size), layout.dtype)
        views = [layout.views(flat) for flat in self.sums]

        def wanted(arrays: dict[str, np.ndarray], names: Iterable[str]) -> tuple[np.ndarray, ...]:
            return tuple(arrays[name] for name in names if name in arrays)

        layers: list[Any] = [[wanted(arrays, names) for names in places] for arrays in views]
        outputs: list[Any] = [wanted(arrays, output) for arrays in views]
        if space.whole:
            layers, outputs = [list(zip(*layers, strict=True))], [tuple(outputs)]
        #: For each share, of each place: of its four parameters, or none; of a share of all parts, of each part.
        self.layers = layers
        self.output = outputs


class Space:
    """Memory for calls over batches of one shape, one at a time.

    Parameters
    ----------
    kernels : module
    net : Net
    T, N : int
        Time steps and sequences of the batch.
    one_hot : bool
        Whether inputs are class indices.
    steps : int or None
        Time steps that are kept at once: T, or fewer where the others are recomputed.
    keep : bool
        Whether the states of every layer stay; else a layer's are there until the next but one runs.
    backward : bool
        Whether there will be a backward pass.
    dropout : float
        Of a call that drops.
    hs : list of ndarray or None
        States that are there already.
    pack : bool or None
        Whether the weights are brought into the order in which the kernels read them; None does so unless there
        are too few rows, `steps` times `N`, to pay for it.
    one_output : bool
        Whether there is one output for a sequence, and not one for each time step.
    take : callable
        Makes the arrays.
    """

    def __init__(
        self, kernels: ModuleType, net: Net, T: int, N: int, one_hot: bool, *, steps: int | None = None,
        keep: bool = False, backward: bool = False, dropout: float = 0.0, hs: list[np.ndarray] | None = None,
        pack: bool | None = None, one_output: bool = False, take: _Take = aligned,
    ) -> None:  # fmt: skip
        self.kernels, self.net, self.T, self.N = kernels, net, T, N
        self._nbytes = 0
        self.steps = steps = T if steps is None else steps
        self.one_hot, self.p = one_hot, dropout
        self.bounds = threads.parts(N)
        #: Whether one call of a kernel runs all parts, on its threads; between kernels there is nothing to share then.
        self.whole = (
            kernels.HAS_TEAMS and net.D == 1 and len(self.bounds) > 1 and not (dropout > 0 and net.L > 1)
        )
        #: What one call of a kernel runs, as kernels take it: a part's bounds, or those of all parts.
        self.shares: list[Any] = [self.bounds] if self.whole else list(self.bounds)
        #: The sequences of each share, and what takes them from an array (T, N, ...).
        self.extents = [(0, N)] if self.whole else list(self.bounds)
        self.columns: list[Any] = [np.s_[:, start:stop] for start, stop in self.extents]
        if len(self.columns) == 1:  # all there are, which takes less time
            self.columns = [np.s_[:]]
        # At least one, also for a batch of no sequences, of which no part is run.
        self.rows = rows = max(1, *(stop - start for start, stop in self.bounds))
        self.none = np.empty((0, 0, 0), net.dtype)
        #: Of each kind of state an array without elements.
        self.no_states = tuple(np.empty((0, 0), net.dtype) for _ in net.cell.states)
        self._take = take
        h, L, D, widths = net.h, net.L, net.D, net.widths

        sizes = [kernels.layer_sizes(steps, N, rows, d, h, net.cell.code) for d in widths]
        self.packs = T * N >= kernels.PACK_ROWS_FROM if pack is None else pack
        self.packed = [self.buffer(packed if self.packs else 0) for packed, _ in sizes]
        self.work_size: int = max(work for _, work in sizes)
        if net.q:
            packed, work = kernels.output_sizes(1 if one_output else steps, N, rows, h * D, net.q)
            self.packed_output = self.buffer(packed)
            self.work_size = max(self.work_size, work)
        #: Of the calls that pack for each pass.
        self.trials = {passes: threads.Trial() for passes in (PACK_FORWARD, PACK_BACKWARD, PACK_BOTH)}
        #: Of each thread that runs parts.
        self.works: list[np.ndarray] = []
        self.generators: list[np.random.Generator] = []

        out = h * D
        kept = L if keep or backward else min(L, 2)
        if hs is None:
            states = [[self.buffer(steps, N, h) for _ in range(D)] for _ in range(kept)]
            hs = [hs for layer in range(L) for hs in states[layer % kept]]
        self.hs = hs
        #: What forward keeps for backward beside the states.
        self.kept = [self.none[:, :, :, None]] * len(hs)
        if (keep or backward) and net.cell.kept:
            self.kept = [self.buffer(steps, N, len(net.cell.kept), h) for _ in hs]
        if D == 1:
            self.outputs = hs
        else:
            joined = [self.buffer(steps, N, out) for _ in range(kept)]
            self.outputs = [joined[layer % kept] for layer in range(L)]

        self.dropped: list[np.ndarray] = []
        self.masks: list[list[np.ndarray]] = []
        if backward and dropout > 0 and L > 1:
            self.dropped = [self.buffer(steps, N, out) for _ in range(L - 1)]
            self.draws = 1 if net.dtype.itemsize == 8 else 2  # numbers of a 64-bit draw
            self.sections = sections(N)
            self.flat_masks = [
                [
                    self.buffer(steps, -(-(stop - start) * out // self.draws) * self.draws)
                    for start, stop in self.bounds
                ]
                for _ in range(L - 1)
            ]
            self.masks = [
                [
                    flat[:, : (stop - start) * out].reshape(steps, stop - start, out)
                    for flat, (start, stop) in zip(flats, self.bounds, strict=True)
                ]
                for flats in self.flat_masks
            ]

        self.dhs: list[np.ndarray] = []
        self.dxs: list[np.ndarray] = []
        self.douts: list[np.ndarray] = []
        if backward:
            self.prepare_backward()
        self._spans: dict[int, Span] = {}
        inputs = sum(widths[D:] if one_hot else widths)
        #: Of a forward pass.
        outputs = h * D * net.q / (T if one_output else 1)
        self.multiply_adds = float(T) * N * (net.columns * (inputs + h * L * D) + outputs)
        #: Weights of all layers, biases aside.
        self.weights = net.columns * (sum(widths) + h * L * D) + h * D * net.q
        #: What a time step of one layer and one part costs, as `fastrnn.threads.team` takes it.
        self.step = threads.cost(net.columns * (inputs / (L * D) + h), rows)
        #: Whether the size of the batch and of the weights lets threads share a call, a pass over the weights, and a
        #: copy of the inputs or outputs: what takes long to find out.
        self.teams = kernels.HAS_TEAMS and (self.whole or self.step >= 2 * threads.SHARE)
        self.sweeps = kernels.HAS_TEAMS and self.weights >= 2 * threads.SWEEP
        widest = T * N * max(net.d, h * D)
        self.copies = kernels.HAS_TEAMS and len(self.shares) == 1 and widest >= 2 * threads.SWEEP

    def work(self, slot: int) -> Any:
        """Work space of a thread; of all, where a call of a kernel runs all parts."""
        return self.works if self.whole else self.works[slot]

    def buffer(self, *shape: int) -> np.ndarray:
        """A new array."""
        array = self._take(shape, self.net.dtype)
        self._nbytes += array.nbytes
        return array

    @property
    def nbytes(self) -> int:
        """Of all buffers."""
        return self._nbytes

    def members(self, num_threads: int | None, steps: int) -> int:
        """Threads that share a call of a kernel, where `teams` may."""
        if self.whole:
            work = self.multiply_adds * steps / self.T
            return threads.grid(len(self.bounds), work, self.step, steps, num_threads)
        return threads.team(self.step, steps, num_threads, len(self.bounds))

    def sweepers(self, num_threads: int | None) -> int:
        """Threads that share a pass over the weights, where the kernels can."""
        return threads.sweep(self.weights, num_threads) if self.sweeps else 1

    def copy(self, source: np.ndarray, out: np.ndarray, share: int, num_threads: int | None) -> None:
        """Copy the sequences of a share from an array (T, N, n) to another."""
        columns = self.columns[share]
        if not self.copies or source.dtype != out.dtype:
            out[columns] = source[columns]
        else:
            self.kernels.copy_steps(source, out, threads.sweep(out.size, num_threads))

    def states(self) -> States:
        """New states of every place."""
        net = self.net
        return States(self.buffer(net.L * net.D, self.N, net.h) for _ in net.cell.states)

    def prepare_backward(self, dout: np.ndarray | None = None) -> None:
        """Make the buffers of a backward pass.

        `dout` is the gradient of the outputs of the last layer, if that is there already; it stays as it is.
        """
        net, steps, N = self.net, self.steps, self.N
        if dout is not None and net.L > 2:
            dout = dout.copy()  # the third layer from above has its gradient in the same place
        out = net.h * net.D
        # A layer reads the gradient of its outputs from one and writes that of its inputs to the other.
        self.douts = [
            dout if dout is not None and i == (net.L - 1) % 2 else self.buffer(steps, N, out)
            for i in range(min(net.L, 2))
        ]
        if net.D == 2:
            self.dhs = [self.buffer(steps, N, net.h) for _ in range(2)]
            self.dxs = [self.buffer(steps, N, out)] if net.L > 1 else []
        self._spans = {}

    def span(self, T: int) -> Span:
        """Buffers for the first `T` of `steps` time steps."""
        span = self._spans.get(T)
        if span is None:
            span = self._spans[T] = Span(self, T)
        return span


class Spaces:
    """Work spaces of a model that no call uses, under what they are for.

    Those of the shapes used last are kept, see `KEPT_SHAPES`.  One thread at a time may take a space; each step is one that
    other threads cannot come into, so there is no lock.
    """

    def __init__(self) -> None:
        self._free: dict[Any, list[Any]] = {}

    def take(self, key: Any) -> Any:
        """A space for `key`, for the caller alone until `give`; None where a new one must be made."""
        free = self._free.get(key)
        if free is None:
            free = self._free.setdefault(key, [])
            self._let_go()
        elif len(self._free) > 1:  # the last one is the one used last
            self._free[key] = self._free.pop(key, free)
        try:
            return free.pop()
        except IndexError:
            return None

    def _let_go(self) -> None:
        """Drop those of the shapes that were used longest ago."""
        kept = [
            (key, sum(space.nbytes for space in list(spaces))) for key, spaces in list(self._free.items())
        ]
        total = sum(nbytes for _, nbytes in kept)
        for number, (key, nbytes) in enumerate(kept):
            left = len(kept) - number
            if left <= KEPT_SHAPES or (left <= MOST_SHAPES and total <= KEPT_BYTES):
                return
            self._free.pop(key, None)
            total -= nbytes

    def give(self, key: Any, space: Any, most: int | None = None) -> None:
        """Keep a space for the next call, unless there are `most` of that shape."""
        free = self._free.get(key)
        if free is not None and (most is None or len(free) < most):
            free.append(space)

    def __len__(self) -> int:
        return sum(map(len, list(self._free.values())))


class Call:
    """One call over a batch: its weights, and the passes over one part of it.

    Parameters
    ----------
    space : Space
        Is used by nobody else.
    layers : sequence of Layer
        One for each place.
    output : tuple of ndarray, shapes (q, h) and (q,), or None
    lengths : ndarray of int
        Time steps of each sequence, or without elements.
    key : (int, int) or None
        Where dropout's masks are drawn from, None for no dropout.
    pack : int
        For which passes the weights are packed in the space: PACK_FORWARD, PACK_BACKWARD after a call that did so
        for the forward pass, of the same weights, or PACK_BOTH.
    num_threads : int or None
        The most that are wanted; None for those that pay.
    steps : int or None
        Time steps, where they are not those of the space.
    """

    __slots__ = (
        "_layers",
        "_output",
        "key",
        "lengths",
        "members",
        "num_threads",
        "sections",
        "space",
        "trial",
    )

    #: Where the masks lie, of a batch that is a part of another; None where it is not.
    sections: tuple[int, list[list[Piece]]] | None

    def __init__(
        self,
        space: Space,
        layers: Sequence[Layer],
        output: tuple[np.ndarray, ...] | None = None,
        *,
        lengths: np.ndarray = NO_LENGTHS,
        key: tuple[int, int] | None = None,
        pack: int = PACK_BOTH,
        num_threads: int | None,
        steps: int | None = None,
    ) -> None:
        self.space, self.lengths, self.key, self.num_threads = space, lengths, key, num_threads
        self._layers, self._output = layers, output
        self.sections = self.trial = None
        #: Threads that share each part: as many as the kernels are told.
        self.members = members = 1
        if space.teams:
            most = space.members(num_threads, space.steps if steps is None else steps)
            if most > 1:
                self.trial = space.trials[pack]
                self.members = members = self.trial.begin(most)
        N = space.N
        if not N:
            return
        if space.packs:  # into the order in which the kernels read them
            pack_layer, one_hot = space.kernels.pack_layer, space.one_hot
            for place, panels in enumerate(space.packed):
                pack_layer(
                    layers[place],
                    N,
                    one_hot and place < space.net.D,
                    space.net.cell.code,
                    panels,
                    pack,
                    members,
                )
        if output is not None:
            space.kernels.pack_output(output, N, space.packed_output, members)

    def run(self, function: Callable[[int, int], object], multiply_adds: float) -> None:
        """Call ``function(share, slot)`` for each share of the batch, `slot` being that of its work space.

        The threads take shares.  Where those are several and a product of matrices is BLAS's, BLAS is
        held to one thread meanwhile.
        """
        space, trial = self.space, self.trial
        count = len(space.shares)
        if count == 1 and trial is None and space.works:
            function(0, 0)
            return
        if not space.N:
            return
        if space.whole:
            while len(space.works) < min(self.members, len(space.bounds)):
                space.works.append(space.buffer(space.work_size))
            function(0, 0)
        else:
            self._run_shares(function, multiply_adds)
        if trial is not None:
            trial.end(multiply_adds)
            self.trial = None  # a further run of this call is none of its kind

    def _run_shares(self, function: Callable[[int, int], object], multiply_adds: float) -> None:
        space = self.space
        count = len(space.shares)
        workers = threads.workers(count, multiply_adds, self.num_threads)
        while len(space.works) < workers:
            if space.masks:  # first: each work space has its generator whatever fails
                space.generators.append(np.random.Generator(np.random.PCG64DXSM(0)))
            space.works.append(space.buffer(space.work_size))
        if count > 1 and multiply_adds >= threads.SMALL and space.kernels.USES_BLAS:
            with threads.one_blas_thread():
                threads.run(function, count, workers)
        else:
            threads.run(function, count, workers)

    # -- passes over one part --------------------------------------------------------------------

    def forward(
        self, span: Span, indices: np.ndarray, x: np.ndarray, h0: Any, h_n: Any, part: int, slot: int,
        t0: int = 0, lengths: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """States of every layer for the sequences of a part (eq. 1).

        `h0` and `h_n` hold a tuple of (N, h) arrays for each place; `t0` is the first of the time steps.  `lengths` are
        the numbers of these that the sequences have, where those are not the call's.
        """
        space, layers, key = self.space, self._layers, self.key
        if lengths is None:
            lengths = self.lengths
        net, packed, hs, kept = space.net, space.packed, span.hs, span.kept
        rows, work, members = space.shares[part], space.work(slot), self.members
        layer_forward, cell, reverse = space.kernels.layer_forward, net.cell.code, net.reverse
        if net.D == 1 and key is None:
            for i in range(net.L):
                batch = indices, x, lengths, reverse[0]
                layer_forward(
                    layers[i], packed[i], batch, h0[i], hs[i], kept[i], h_n[i], rows, cell, work, members
                )
                indices, x = NO_INDICES, hs[i]
            return
        for layer in range(net.L):
            for direction in range(net.D):
                i = layer * net.D + direction
                batch = indices, x, lengths, reverse[direction]
                layer_forward(
                    layers[i], packed[i], batch, h0[i], hs[i], kept[i], h_n[i], rows, cell, work, members
                )
            indices, x = NO_INDICES, span.outputs[layer]
            start, stop = space.extents[part]
            if net.D == 2:
                x[:, start:stop, : net.h] = hs[i - 1][:, start:stop]
                x[:, start:stop, net.h :] = hs[i][:, start:stop]
            if key is not None and layer + 1 < net.L:
                masks = self._draw_masks(span, layer, part, slot, key, t0)
                dropped = span.dropped[layer]
                _by_step(np.multiply, x[:, start:stop], masks, dropped[:, start:stop])
                x = dropped

    def backward(
        self, span: Span, indices: np.ndarray, x: np.ndarray, h0: Any, dh_n: Any, dh0: Any,
        dx: list[np.ndarray], gradients: list[tuple[np.ndarray, ...]], part: int, slot: int, *,
        accumulate: bool = False, lowest: int = 0, d_states: Sequence[tuple[np.ndarray, ...]] | None = None,
        lengths: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Gradients of every layer from the last one down to `lowest`, from those in ``span.dout`` (eqs. 9 to 13).

        For the sequences of a part.  `dh_n`, `dh0` and `gradients` have an entry for each place, as has
        `d_states`, where the gradients of all states go; without elements where they are not wanted.  `dx` holds
        one for the gradient of the inputs by each direction: the sum of both is written to the first.  `lengths` as for
        `forward`.
        """
        space = self.space
        if lengths is None:
            lengths = self.lengths
        net, dropped, none = space.net, self.key is not None, space.none
        rows, work = space.shares[part], space.work(slot)
        layer_backward, cell, (start, stop) = space.kernels.layer_backward, net.cell.code, space.extents[part]
        no_d_states = (none,) * len(net.cell.states)
        for layer in range(net.L - 1, lowest - 1, -1):
            dout = span.douts[layer % 2]
            if layer:
                inputs = (span.dropped if dropped else span.outputs)[layer - 1]
                classes = NO_INDICES
                below = [span.douts[(layer - 1) % 2], *span.dxs] if layer > lowest else [none] * net.D
            else:
                inputs, classes, below = x, indices, dx
            for direction in range(net.D):
                i = layer * net.D + direction
                dhs = dout
                if net.D == 2:
                    dhs = span.dhs[direction]
                    columns = slice(direction * net.h, (direction + 1) * net.h)
                    dhs[:, start:stop] = dout[:, start:stop, columns]
                batch = classes, inputs, lengths, net.reverse[direction]
                wanted = below[direction], dh0[i], no_d_states if d_states is None else d_states[i]
                layer_backward(
                    self._layers[i], space.packed[i], batch, (h0[i], span.hs[i], span.kept[i]), (dhs, dh_n[i]), wanted,
                    gradients[i], accumulate, rows, cell, work, self.members,
                )  # fmt: skip
            if net.D == 2 and below[0].size:
                gradient = below[0][:, start:stop]
                _by_step(np.add, gradient, below[1][:, start:stop], gradient)
            if layer and dropped:
                gradient = below[0][:, start:stop]
                _by_step(np.multiply, gradient, span.masks[layer - 1][part], gradient)

    def loss_of(
        self, features: np.ndarray, goal: tuple[Any, ...], scale: float, d_features: np.ndarray,
        gradients: tuple[np.ndarray, ...], part: int, slot: int, *, accumulate: bool = False,
    ) -> float:  # fmt: skip
        """Loss of the outputs for a part (eqs. 2, 5, 6), its gradients times `scale` (eqs. 7, 8)."""
        space = self.space
        loss: float = space.kernels.output_loss(
            self._output, space.packed_output, features, goal, scale, d_features, gradients, accumulate,
            space.shares[part], space.work(slot), self.members,
        )  # fmt: skip
        return loss

    def logits_of(self, features: np.ndarray, out: np.ndarray, part: int, slot: int) -> None:
        """Outputs of a part (eq. 2)."""
        space = self.space
        space.kernels.output_logits(
            self._output,
            space.packed_output,
            features,
            out,
            space.shares[part],
            space.work(slot),
            self.members,
        )

    def sample(
        self, states: tuple[np.ndarray, ...], first: np.ndarray, uniforms: np.ndarray, temperature: float, top_k: int,
        top_p: float, out: np.ndarray, part: int, slot: int,
    ) -> int:  # fmt: skip
        """Draw the sequences of a part; return how many indices of each were drawn."""
        space = self.space
        drawn: int = space.kernels.sample_batch(
            (tuple(self._layers), tuple(space.packed)), (self._output, space.packed_output), states,
            (first, uniforms), (temperature, top_k, top_p), out, space.shares[part], space.net.cell.code,
            space.work(slot), self.members,
        )  # fmt: skip
        return drawn

    def _draw_masks(
        self, span: Span, layer: int, part: int, slot: int, key: tuple[int, int], t0: int
    ) -> np.ndarray:
        """Factors 0 and 1/(1-p) for the outputs of a layer.

        They are the same on any number of threads, when time steps are recomputed, and wherever a batch is cut to be
        shared.
        """
        space = self.space
        masks, p = span.masks[layer][part], space.p
        if p == 1:
            masks[...] = 0
            return masks
        generator, draws = space.generators[slot], space.draws
        count, pieces = self.sections or space.sections
        flat = space.flat_masks[layer][part][: len(masks)]
        rows, out = masks.shape[1:]
        for section, there, first, place, taken in pieces[part]:
            drawn, whole = flat, there == rows == taken
            if not whole:  # of a batch that is shared, and cut elsewhere than one process cuts it
                drawn = np.empty((len(masks), -(-there * out // draws) * draws), masks.dtype)
            draw(generator, key, layer * count + section, t0, drawn, drawn.shape[1] // draws, p)
            if not whole:
                masks[:, place : place + taken] = drawn[:, first * out : (first + taken) * out].reshape(
                    len(masks), taken, out
                )
        return masks


def _by_step(ufunc: np.ufunc, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """``out = ufunc(a, b)``, time step by time step: of all at once, which are not contiguous, NumPy makes copies."""
    with np.errstate(all="ignore"):
        for a_t, b_t, out_t in zip(a, b, out, strict=True):
            ufunc(a_t, b_t, out=out_t)
