"""What `LanguageModel` and `SequenceModel` share: layers, a head, an output layer and a loss in one batched step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn import backends, threads
from fastrnn.cells import CELL_NAMES
from fastrnn.checks import (
    BATCH_CLIP_MODES,
    INDEX,
    NO_INDICES,
    NO_LENGTHS,
    check_choice,
    check_clip,
    check_index_batch,
    check_lengths,
    check_size,
)
from fastrnn.goals import Goal, Rest
from fastrnn.heads import HEADS, Head
from fastrnn.kernels import CLIP_NONE, PACK_BOTH, PACK_FORWARD
from fastrnn.layout import aligned
from fastrnn.losses import LOSSES, Loss
from fastrnn.passes import Call, Space, Span
from fastrnn.stack import StackedModel
from fastrnn.states import States, public

if TYPE_CHECKING:
    from fastrnn.hints import CellName, Nonlinearity

__all__ = ["SupervisedModel", "check_cell"]

_REDUCTIONS = ("mean", "sum")


class SupervisedModel(StackedModel):
    """Recurrent layers, a head, an output layer, and a loss of its outputs."""

    #: Pickles from before there were others have none of these.
    _head: type[Head] = HEADS["each"]
    _loss: Loss = LOSSES["cross_entropy"]

    #: Norm of all gradients together before they were clipped (eq. 15), NaN before the first.
    grad_norm: float

    def __init__(
        self, input_size: Any, hidden_size: Any, output_size: Any, num_layers: Any, *, cell: CellName,
        nonlinearity: Nonlinearity, directions: int, dropout: Any, head: str, loss: str, dtype: Any, rng: Any,
        backend: str | None, num_threads: Any, recompute_every: Any,
    ) -> None:  # fmt: skip
        self._recompute_every = (
            None if recompute_every is None else check_size(recompute_every, "recompute_every")
        )
        if directions == 2 and recompute_every is not None:
            raise ValueError(
                f"recompute_every is for models of one direction: the second direction of bidirectional=True has its "
                f"first state at the last time step, got {recompute_every}"
            )
        check_cell(cell, nonlinearity)
        self._head, self._loss = HEADS[head], LOSSES[loss]
        super().__init__(
            input_size, hidden_size, num_layers, nonlinearity, dropout, dtype, rng, backend, num_threads,
            cell=cell, directions=directions, output_size=output_size * self._loss.outputs,
        )  # fmt: skip

    def _set_up(self) -> None:
        super()._set_up()
        self.grad_norm = math.nan
        self._flat: np.ndarray | None = None
        self._step_grads: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry the parameters, not the buffers."""
        state = super().__getstate__()
        for buffer in ("_flat", "_step_grads"):
            del state[buffer]
        return state

    @property
    def output_size(self) -> int:
        """Number of values that are predicted, or of classes."""
        return self._q // self._loss.outputs

    @property
    def cell(self) -> CellName:
        """What the layers are made of: ``"rnn"``, ``"gru"`` or ``"lstm"``."""
        return self._cell

    @property
    def nonlinearity(self) -> Nonlinearity:
        """``"tanh"`` or ``"relu"``; of the cell "rnn" only."""
        if self._cell != "rnn":
            raise AttributeError(
                f"nonlinearity is of the cell 'rnn' only, and the cell here is {self._cell!r}"
            )
        return self._nonlinearity

    @property
    def recompute_every(self) -> int | None:
        """Time steps whose states are kept; None for all."""
        return self._recompute_every

    def initial_state(self, N: int) -> Any:
        """State of `N` sequences before their first input.

        Parameters
        ----------
        N : int
            Number of sequences.

        Returns
        -------
        ndarray, shape (L*D, N, h)
            Zeros, for each of L layers and D directions, in the model's dtype; a new array.  Of an LSTM the pair of
            two.

        Raises
        ------
        TypeError, ValueError
            If `N` is not a positive integer.

        Examples
        --------
        >>> from fastrnn import LanguageModel
        >>> LanguageModel(4, 16, num_layers=2, rng=0).initial_state(3).shape
        (2, 3, 16)
        """
        shape = (self._num_layers * self._directions, check_size(N, "N"), self._h)
        return public([np.zeros(shape, self._dtype) for _ in self._kind.states])

    # -- what the methods of both models do ------------------------------------------------------

    def _new_loss_and_grads(
        self, x: Any, y: Any, h0: Any, lengths: Any, weights: Any, reduction: str
    ) -> tuple[float, dict[str, np.ndarray], Any]:
        """Loss, gradients and last state of a batch, in new arrays."""
        check_choice(reduction, "reduction", _REDUCTIONS)
        flat = aligned((self._layout.size,), self._dtype)
        loss, h_n = self._gradients(x, y, h0, lengths, weights, reduction, CLIP_NONE, math.inf, flat)
        self.grads = self._layout.views(flat)
        return loss, self.grads, h_n.copy()

    def _train_step(
        self, x: Any, y: Any, h0: Any, optimizer: Any, lengths: Any, weights: Any, clip: Any, clip_threshold: Any
    ) -> tuple[float, Any]:  # fmt: skip
        """One step of an optimizer, with nothing allocated for a shape that was there before."""
        mode, threshold = check_clip(clip, clip_threshold, BATCH_CLIP_MODES)
        try:
            step = optimizer.step
        except AttributeError:
            raise TypeError(
                f"optimizer must have a method step(parameters, grads), got {type(optimizer).__name__}"
            ) from None
        if self._flat is None:
            self._flat = aligned((self._layout.size,), self._dtype)
            self._step_grads = self._layout.views(self._flat)
        loss, h_n = self._gradients(x, y, h0, lengths, weights, "mean", mode, threshold, self._flat)
        self.grads = dict(self._step_grads)  # an optimizer may put other arrays in it
        threads.at_most(self._num_threads, step, self.parameters, self.grads)
        return loss, h_n.public

    def _evaluate(
        self, x: Any, y: Any, h0: Any, lengths: Any, weights: Any, reduction: str
    ) -> tuple[float, Any]:
        """Loss and last state of a batch, without dropout."""
        check_choice(reduction, "reduction", _REDUCTIONS)
        _check_not_none(y)
        batch = self._batch(backends.kernels(self._backend), x, y, h0, lengths, weights, gradients=False)
        try:
            loss = batch.loss()
            return loss * batch.scale(reduction), batch.space.h_n.copy()
        finally:
            self._spaces.give(batch.shape, batch.space)

    def _outputs(self, x: Any, h0: Any, lengths: Any) -> tuple[np.ndarray, Any]:
        """Outputs and last state of a batch, without dropout."""
        batch = self._batch(backends.kernels(self._backend), x, None, h0, lengths, None, gradients=False)
        try:
            return batch.outputs(), batch.space.h_n.copy()
        finally:
            self._spaces.give(batch.shape, batch.space)

    def _gradients(
        self, x: Any, y: Any, h0: Any, lengths: Any, weights: Any, reduction: str, mode: int, threshold: float,
        flat: np.ndarray,
    ) -> tuple[float, States]:  # fmt: skip
        """Loss and last state of a batch; the gradients are written to `flat`, clipped."""
        kernels = backends.kernels(self._backend)
        _check_not_none(y)
        batch = self._batch(kernels, x, y, h0, lengths, weights, gradients=True)
        space = batch.space
        try:
            scale = batch.scale(reduction)
            loss = batch.gradients(scale)
            sums, members = space.gradients.sums, space.sweepers(self._num_threads)
            self.grad_norm = kernels.reduce_gradients(sums, mode, threshold, flat, members)
            return loss * scale, space.h_n
        finally:
            self._spaces.give(batch.shape, space)

    # -- arguments -------------------------------------------------------------------------------

    def _check_inputs(self, x: Any) -> tuple[np.ndarray, bool]:
        """Inputs (T, N, d), or class indices (T, N) whose range is not yet checked; and whether they are those."""
        raise NotImplementedError

    def _batch(
        self, kernels: ModuleType, x: Any, y: Any, h0: Any, lengths: Any, weights: Any, gradients: bool
    ) -> _Batch:
        """Check the arguments of a call and put them into a work space of their shape."""
        inputs, classes = self._check_inputs(x)
        T, N = inputs.shape[:2]
        ends = NO_LENGTHS if lengths is None else check_lengths(lengths, T, N)
        h0 = self._check_state(h0, "h0", N)
        arrays = self._checked_parameters()
        key = gradients, kernels.NAME, T, N, classes
        space: _BatchSpace = self._spaces.take(key) or _BatchSpace(
            self, kernels, T, N, classes, min(self._recompute_every or T, T), gradients
        )
        try:
            rest = space.rest
            rest.put(ends)
            kept = rest.without(inputs, "inputs", 0)
            if classes:
                check_index_batch(
                    kept, "x", self._d, kernels, space.flat_indices, x if kept is inputs else kept
                )
            else:
                space.x = kept
            if y is not None:
                space.goal.put(y, weights, kernels)
            if h0 is None:
                space.chunk_states[0].clear()
            else:
                space.chunk_states[0].put(h0)
            drops = gradients and space.masks and self._training
            batch = _Batch(
                space, self._layers(arrays), (arrays["weight_out"], arrays["bias_out"]), lengths=ends,
                key=self._dropout_key() if drops else None, pack=PACK_BOTH if gradients else PACK_FORWARD,
                num_threads=self._num_threads,
            )  # fmt: skip
            batch.shape = key
            batch.cut()
            return batch
        except BaseException:
            self._spaces.give(key, space)
            raise


def check_cell(cell: Any, nonlinearity: Any) -> None:
    """Refuse a cell that there is not, and a nonlinearity for one that has its own."""
    check_choice(cell, "cell", CELL_NAMES)
    if cell != "rnn" and nonlinearity != "tanh":
        raise ValueError(
            f"nonlinearity is for cell='rnn': the gates of cell={cell!r} have their own, got {nonlinearity!r}"
        )


def _check_not_none(y: Any) -> None:
    """Refuse a missing `y`: `SupervisedModel._batch` takes None for no targets."""
    if y is None:
        raise TypeError("y must be an array of targets, got None")


class _BatchSpace(Space):
    """Work space of a `SupervisedModel` for batches of one shape."""

    #: Inputs that are vectors, of the call that is under way.
    x: np.ndarray

    def __init__(
        self, model: SupervisedModel, kernels: ModuleType, T: int, N: int, one_hot: bool, steps: int, gradients: bool
    ) -> None:  # fmt: skip
        net, head = model._net, model._head
        super().__init__(
            kernels, net, T, N, one_hot=one_hot, steps=steps, backward=gradients, dropout=model._dropout,
            one_output=not head.per_step,
        )  # fmt: skip
        self.rest = Rest(T, N)
        self.flat_indices, self.indices, self.x = NO_INDICES.reshape(-1), NO_INDICES, self.none
        if one_hot:
            self.flat_indices = np.empty(T * N, INDEX)
            self.indices = self.flat_indices.reshape(T, N)
        self.goal = Goal(model._loss, head.per_step, net.q, model.output_size, net.dtype, T, N, self.rest)
        #: States before the first time step of each chunk.
        self.chunks = -(-T // steps)
        self.chunk_states = [self.states() for _ in range(self.chunks if gradients else 1)]
        self.h_n = self.states()
        self.head: Head = head(self, gradients)
        self.no_gradients = np.empty((0, 0), net.dtype), np.empty(0, net.dtype)
        if gradients:
            self.other_h_n = self.states()
            self.carry = self.states().places
            self.no_dx = [self.none] * net.D
            self.gradients = model._new_gradients(self)


class _Batch(Call):
    """One call of a `SupervisedModel` over a batch, whose time steps are run in chunks."""

    __slots__ = ("_cuts", "shape")

    space: _BatchSpace
    #: Under which the model keeps the space.
    shape: tuple[Any, ...]
    #: Of each chunk, the lengths that are left of the sequences, and those that have ended before it; see `cut`.
    _cuts: list[tuple[np.ndarray, np.ndarray]]

    def cut(self) -> None:
        """Cut the lengths of the sequences as the time steps are cut.

        A sequence that has ended before a chunk is given one step there, as kernels know no shorter ones; what that
        leaves behind is taken back by `_forward_chunk` and `_backward_chunk`.
        """
        space, lengths = self.space, self.lengths
        steps, T = space.steps, space.T
        if steps == T or not lengths.size:
            self._cuts = [(lengths, NO_LENGTHS)] * (-(-T // steps))
            return
        self._cuts = [
            (np.clip(lengths - t0, 1, min(steps, T - t0)), np.flatnonzero(lengths <= t0))
            for t0 in range(0, T, steps)
        ]

    def scale(self, reduction: str) -> float:
        """What makes the loss of the sum of all that counts."""
        counted = self.space.goal.counted
        return 1 / counted if reduction == "mean" and counted else 1.0

    def gradients(self, scale: float) -> float:
        """The loss; leaves its gradients times `scale` in the space, and the last state in ``h_n``.

        With states kept of a chunk of time steps only, a first pass keeps those before each chunk; then
        the chunks are run again, from the last one to the first, each backward as soon as it is there.
        """
        space, head = self.space, self.space.head
        if not space.N:
            space.gradients.sums.fill(0)
            return 0.0
        space.h_n, space.other_h_n = space.other_h_n, space.h_n
        h_n, carry, last = space.h_n.places, space.carry, space.chunks - 1
        states = [state.places for state in space.chunk_states]
        losses = [0.0] * len(space.shares)

        def of_part(part: int, slot: int) -> None:
            layer_gradients, output_gradients = space.gradients.layers[part], space.gradients.output[part]
            for chunk in range(last):
                span = self._forward_chunk(chunk, states[chunk], states[chunk + 1], part, slot)
                head.add(span, part, not chunk)
            span = self._forward_chunk(last, states[last], h_n, part, slot)
            loss = 0.0
            if not head.per_step:
                head.add(span, part, not last)
                head.finish(part, space.h_n, self.lengths)
                loss = self.loss_of(
                    head.features(span, space.h_n), space.goal.part(0, 1), scale, head.d_features(span),
                    output_gradients, part, slot,
                )  # fmt: skip
            for chunk in range(last, -1, -1):
                later = chunk < last
                if later:
                    span = self._forward_chunk(chunk, states[chunk], states[chunk + 1], part, slot)
                if head.per_step:
                    loss += self.loss_of(
                        head.features(span, space.h_n), self._goal(chunk), scale, head.d_features(span),
                        output_gradients, part, slot, accumulate=later,
                    )  # fmt: skip
                head.spread(span, part, not later)
                self._backward_chunk(
                    chunk, span, states[chunk], carry if later else head.dh_n, layer_gradients, part, slot
                )
            losses[part] = loss

        passes = 3 if space.chunks == 1 else 4
        self.run(of_part, passes * space.multiply_adds)
        return sum(losses)

    def loss(self) -> float:
        """The loss, without gradients."""
        space = self.space
        losses = [0.0] * len(space.shares)

        def of_part(part: int, slot: int) -> None:
            for features, t0, t1 in self._features_of_part(part, slot):
                losses[part] += self.loss_of(
                    features, space.goal.part(t0, t1), 1.0, space.none, space.no_gradients, part, slot
                )

        self.run(of_part, space.multiply_adds)
        return sum(losses)

    def outputs(self) -> np.ndarray:
        """Outputs, shape (T, N, k) or (N, k); zeros beyond the ends of the sequences."""
        space = self.space
        per_step = space.head.per_step
        outputs: np.ndarray = np.empty((space.T if per_step else 1, space.N, space.net.q), space.net.dtype)

        def of_part(part: int, slot: int) -> None:
            for features, t0, t1 in self._features_of_part(part, slot):
                self.logits_of(features, outputs[t0:t1], part, slot)

        self.run(of_part, space.multiply_adds)
        if per_step:
            space.rest.fill(outputs, 0)
        return outputs if per_step else outputs.reshape(outputs.shape[1:])

    def _features_of_part(self, part: int, slot: int) -> Iterator[tuple[np.ndarray, int, int]]:
        """What the output layer reads, and the bounds of its time steps, a chunk after the other."""
        space, head = self.space, self.space.head
        h0, h_n = space.chunk_states[0].places, space.h_n.places
        for chunk in range(space.chunks):
            span = self._forward_chunk(chunk, h0, h_n, part, slot)
            h0 = h_n
            if head.per_step:
                yield head.features(span, space.h_n), *self._bounds(chunk)
            else:
                head.add(span, part, not chunk)
        if not head.per_step:
            head.finish(part, space.h_n, self.lengths)
            yield head.features(span, space.h_n), 0, 1

    # -- chunks of time steps --------------------------------------------------------------------

    def _bounds(self, chunk: int) -> tuple[int, int]:
        t0 = chunk * self.space.steps
        return t0, min(t0 + self.space.steps, self.space.T)

    def _goal(self, chunk: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        return self.space.goal.part(*self._bounds(chunk))

    def _inputs(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        space = self.space
        if space.chunks == 1:
            return space.indices, space.x
        steps = slice(*self._bounds(chunk))
        return space.indices[steps], space.x[steps]

    def _ended(self, chunk: int, part: int) -> np.ndarray:
        """Sequences of a part that have ended before a chunk."""
        ended = self._cuts[chunk][1]
        if not ended.size:
            return ended
        start, stop = self.space.extents[part]
        return ended[(ended >= start) & (ended < stop)]

    def _forward_chunk(self, chunk: int, h0: Any, h_n: Any, part: int, slot: int) -> Span:
        """States of a chunk, from those in `h0`, which may be `h_n`."""
        t0, t1 = self._bounds(chunk)
        span, (indices, x) = self.space.span(t1 - t0), self._inputs(chunk)
        ended = self._ended(chunk, part)
        kept = [[state[ended] for state in place] for place in h0] if ended.size else []
        self.forward(span, indices, x, h0, h_n, part, slot, t0, lengths=self._cuts[chunk][0])
        for place, states in zip(h_n, kept, strict=False):
            for state, before in zip(place, states, strict=True):
                state[ended] = before
        if ended.size:
            span.outputs[-1][0, ended] = 0
        return span

    def _backward_chunk(
        self, chunk: int, span: Span, h0: Any, dh_n: Any, gradients: Any, part: int, slot: int
    ) -> None:
        """Gradients of a chunk, whose own are added to those of the chunks behind it; `carry` becomes that of `h0`."""
        space, ended = self.space, self._ended(chunk, part)
        carry, (indices, x) = space.carry, self._inputs(chunk)
        kept = []
        if ended.size:
            span.dout[0, ended] = 0
            for place in dh_n:
                kept.append([state[ended] if state.size else 0 for state in place])
                for state in place:
                    if state.size:
                        state[ended] = 0
        self.backward(
            span, indices, x, h0, dh_n, carry, space.no_dx, gradients, part, slot,
            accumulate=chunk < space.chunks - 1, lengths=self._cuts[chunk][0],
        )  # fmt: skip
        for place, states in zip(carry, kept, strict=False):
            for state, after in zip(place, states, strict=True):
                state[ended] = after
