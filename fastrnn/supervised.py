"""What `LanguageModel` and `SequenceModel` share: layers, a head, an output layer and a loss in one batched step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

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
from fastrnn.errors import brief
from fastrnn.goals import Goal, Rest
from fastrnn.group import group_of
from fastrnn.heads import HEADS, Head
from fastrnn.kernels import CLIP_NONE, PACK_BOTH, PACK_FORWARD
from fastrnn.layout import aligned
from fastrnn.losses import LOSSES, Loss
from fastrnn.passes import Call, Space, Span
from fastrnn.replica import Replica
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
        self._replica: Replica | None = None

    @contextlib.contextmanager
    def _gradients_kept(self) -> Iterator[None]:
        """So too their norm, in `grad_norm`."""
        before = self.grad_norm
        try:
            with super()._gradients_kept():
                yield
        finally:
            self.grad_norm = before

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry the parameters, not the buffers."""
        state = super().__getstate__()
        for buffer in ("_flat", "_step_grads", "_replica"):
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
        self, x: Any, y: Any, h0: Any, optimizer: Any, lengths: Any, weights: Any, clip: Any, clip_threshold: Any,
        comm: Any,
    ) -> tuple[float, Any]:  # fmt: skip
        """One step of an optimizer, with nothing allocated for a shape that was there before."""
        mode, threshold = check_clip(clip, clip_threshold, BATCH_CLIP_MODES)
        step = getattr(optimizer, "step", None)
        if not callable(step):
            raise TypeError(
                f"optimizer must have a method step(parameters, grads), got {type(optimizer).__name__}"
            )
        if self._flat is None:
            self._flat = aligned((self._layout.size,), self._dtype)
            self._step_grads = self._layout.views(self._flat)
        replica = None if comm is None else self._replica_of(comm, optimizer)
        loss, h_n = self._gradients(x, y, h0, lengths, weights, "mean", mode, threshold, self._flat, replica)
        self.grads = dict(self._step_grads)  # an optimizer may put other arrays in it
        threads.at_most(self._num_threads, step, self.parameters, self.grads)
        if replica is not None:
            replica.stepped(self, optimizer)
        return loss, h_n.public

    def _replica_of(self, comm: Any, optimizer: Any, *, steps: int | None = None) -> Replica | None:
        """What this rank keeps of the model for a `comm`, None where it is alone; made anew for a number of `steps`."""
        if group_of(comm).size == 1:
            return None
        if self._replica is None or self._replica.comm is not comm or steps is not None:
            self._replica = Replica(self, optimizer, comm)
            self._replica.steps = steps or 0
        return self._replica

    def _evaluate(
        self, x: Any, y: Any, h0: Any, lengths: Any, weights: Any, reduction: str
    ) -> tuple[float, Any]:
        """Loss and last state of a batch, without dropout."""
        check_choice(reduction, "reduction", _REDUCTIONS)
        if y is None:  # which is for no targets below
            raise TypeError("y must be an array of targets, got None")
        batch = self._batch(backends.kernels(self._backend), x, y, h0, lengths, weights, gradients=False)
        try:
            loss = batch.loss()
            return loss * batch.scale(reduction), batch.space.h_n.copy()
        finally:
            self._give_back(batch.shape, batch.space)

    def _outputs(self, x: Any, h0: Any, lengths: Any) -> tuple[np.ndarray, Any]:
        """Outputs and last state of a batch, without dropout."""
        batch = self._batch(backends.kernels(self._backend), x, None, h0, lengths, None, gradients=False)
        try:
            return batch.outputs(), batch.space.h_n.copy()
        finally:
            self._give_back(batch.shape, batch.space)

    def _gradients(
        self, x: Any, y: Any, h0: Any, lengths: Any, weights: Any, reduction: str, mode: int, threshold: float,
        flat: np.ndarray, replica: Replica | None = None,
    ) -> tuple[float, States]:  # fmt: skip
        """Loss and last state of a batch; the gradients are written to `flat`, clipped."""
        kernels = backends.kernels(self._backend)
        given = kernels, x, y, h0, lengths, weights
        if replica is None:
            batch = self._batch(*given, gradients=True)
            scale = batch.scale(reduction)
        else:
            batch, scale = replica.batch(self, given)
        space = batch.space
        try:
            if space.masks and self._training:
                batch.key = self._dropout_key() if replica is None else replica.key(self._dropout_key())
            loss = batch.gradients(scale) * scale
            sums, members = space.gradients.sums, space.sweepers(self._num_threads)
            if replica is not None:
                sums, loss = replica.sum(kernels, sums, loss, members)
            self.grad_norm = kernels.reduce_gradients(sums, mode, threshold, flat, members)
            return loss, space.h_n
        finally:
            self._give_back(batch.shape, space)

    # -- arguments -------------------------------------------------------------------------------

    def _check_inputs(self, x: Any) -> tuple[np.ndarray, bool]:
        """Inputs (T, N, d), or class indices (T, N) whose range is not yet checked; and whether they are those."""
        raise NotImplementedError

    def _batch(
        self, kernels: ModuleType, x: Any, y: Any, h0: Any, lengths: Any, weights: Any, gradients: bool
    ) -> _Batch:
        """Check the arguments of a call and put them into a work space of their shape."""
        if gradients and y is None:
            raise TypeError("y must be an array of targets, got None")
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
            if ends.size:
                inputs = space.rest.cover(inputs, ends)
            if classes:
                check_index_batch(inputs, "x", self._d, kernels, space.flat_indices, x)
            else:
                space.x = inputs
            if y is not None:
                space.goal.put(y, weights, ends, kernels)
            if h0 is None:
                space.chunk_states[0].clear()
            else:
                space.chunk_states[0].put(h0)
            batch = _Batch(
                space, self._layers(arrays), (arrays["weight_out"], arrays["bias_out"]), lengths=ends,
                pack=PACK_BOTH if gradients else PACK_FORWARD, num_threads=self._num_threads,
            )  # fmt: skip
            batch.shape = key
            return batch
        except BaseException:
            self._give_back(key, space)
            raise

    def _give_back(self, key: tuple[Any, ...], space: _BatchSpace) -> None:
        """Keep a space for the next call, without what the caller of this one gave."""
        space.x, space.goal.whole = space.none, ()
        self._spaces.give(key, space)


def check_cell(cell: Any, nonlinearity: Any) -> None:
    """Refuse a cell that there is not, and a nonlinearity for one that has its own."""
    check_choice(cell, "cell", CELL_NAMES)
    if cell != "rnn" and nonlinearity != "tanh":
        raise ValueError(
            f"nonlinearity is for cell='rnn': the gates of cell={cell!r} have their own, got {brief(nonlinearity)}"
        )


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
        self.goal = Goal(model._loss, head.per_step, net.q, model.output_size, net.dtype, self.rest)
        #: All time steps, where nothing of them changes from call to call.
        self.whole_pieces: list[_Piece] = []
        if one_hot and steps == T:
            self.whole_pieces = [_Piece(0, T, self.span(T), self.indices, self.none, NO_LENGTHS, NO_LENGTHS)]
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

    @property
    def nbytes(self) -> int:
        """Of all that it keeps."""
        gradients = self.gradients.sums.nbytes if hasattr(self, "gradients") else 0
        others = self.flat_indices.nbytes + self.rest.nbytes + self.goal.nbytes + self.head.nbytes
        return super().nbytes + gradients + others


class _Piece(NamedTuple):
    """Some time steps of a batch, all of which are kept at once.

    A sequence that has ended before them is given one step, as kernels know no shorter ones; what that leaves behind is
    taken back by `_Batch._forward_piece` and `_Batch._backward_piece`.
    """

    t0: int
    t1: int
    span: Span
    indices: np.ndarray
    x: np.ndarray
    lengths: np.ndarray
    #: Sequences that have ended before.
    ended: np.ndarray


class _Batch(Call):
    """One call of a `SupervisedModel` over a batch."""

    __slots__ = ("shape",)

    space: _BatchSpace
    #: Under which the model keeps the space.
    shape: tuple[Any, ...]

    def scale(self, reduction: str) -> float:
        """What makes the loss of the sum of all that counts."""
        goal = self.space.goal
        return goal.unit if reduction == "sum" else 1 / goal.counted if goal.counted else 1.0

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
        pieces, last, per_step, goal = self._pieces(), space.chunks - 1, head.per_step, space.goal
        states = [state.places for state in space.chunk_states]
        after = [*states[1:], space.h_n.places]
        losses = [0.0] * len(space.shares)

        def of_part(part: int, slot: int) -> None:
            layer_gradients, output_gradients = space.gradients.layers[part], space.gradients.output[part]
            for chunk, piece in enumerate(pieces):
                self._forward_piece(piece, states[chunk], after[chunk], part, slot)
                if not per_step:
                    head.add(piece.span, part, not chunk)
            terms = [0.0] * len(pieces)
            if not per_step:
                head.finish(part, space.h_n, self.lengths)
                terms[0] = self.loss_of(
                    head.features(space.h_n),
                    goal.part(0, 1),
                    scale,
                    head.gradient,
                    output_gradients,
                    part,
                    slot,
                )
            for chunk in range(last, -1, -1):
                piece, later = pieces[chunk], chunk < last
                if later:
                    self._forward_piece(piece, states[chunk], after[chunk], part, slot)
                if per_step:
                    span = piece.span
                    wanted = goal.whole if not last else goal.part(piece.t0, piece.t1)
                    terms[chunk] = self.loss_of(
                        span.outputs[-1], wanted, scale, span.dout, output_gradients, part,
                        slot, accumulate=later,
                    )  # fmt: skip
                else:
                    head.spread(piece.span, part, not later)
                dh_n = space.carry if later else head.dh_n
                self._backward_piece(piece, states[chunk], dh_n, layer_gradients, part, slot, later)
            losses[part] = sum(terms)  # in their order, as `loss` adds them

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
        if not per_step:
            return outputs.reshape(outputs.shape[1:])
        if self.lengths.size:
            space.rest.fill(outputs, 0)
        return outputs

    def _features_of_part(self, part: int, slot: int) -> Iterator[tuple[np.ndarray, int, int]]:
        """What the output layer reads, and the bounds of its time steps, a chunk after the other."""
        space, head = self.space, self.space.head
        h0, h_n = space.chunk_states[0].places, space.h_n.places
        for chunk, piece in enumerate(self._pieces()):
            self._forward_piece(piece, h0, h_n, part, slot)
            h0 = h_n
            if head.per_step:
                yield piece.span.outputs[-1], piece.t0, piece.t1
            else:
                head.add(piece.span, part, not chunk)
        if not head.per_step:
            head.finish(part, space.h_n, self.lengths)
            yield head.features(space.h_n), 0, 1

    # -- chunks of time steps --------------------------------------------------------------------

    def _pieces(self) -> list[_Piece]:
        """The time steps as they are run."""
        space, lengths, T = self.space, self.lengths, self.space.T
        if space.chunks == 1:
            if space.one_hot and not lengths.size:
                return space.whole_pieces
            return [_Piece(0, T, space.span(T), space.indices, space.x, lengths, NO_LENGTHS)]
        pieces, ended = [], NO_LENGTHS
        for t0 in range(0, T, space.steps):
            t1 = min(t0 + space.steps, T)
            of_piece = lengths
            if lengths.size:
                of_piece, ended = np.clip(lengths - t0, 1, t1 - t0), np.flatnonzero(lengths <= t0)
            pieces.append(
                _Piece(t0, t1, space.span(t1 - t0), space.indices[t0:t1], space.x[t0:t1], of_piece, ended)
            )
        return pieces

    def _forward_piece(self, piece: _Piece, h0: Any, h_n: Any, part: int, slot: int) -> None:
        """States of a piece, from those in `h0`, which may be `h_n`."""
        t0, _, span, indices, x, lengths, ended = piece
        if not ended.size:
            self.forward(span, indices, x, h0, h_n, part, slot, t0, lengths)
            return
        ended = self._of_share(ended, part)
        kept = [[state[ended] for state in place] for place in h0]
        self.forward(span, indices, x, h0, h_n, part, slot, t0, lengths)
        for place, states in zip(h_n, kept, strict=True):
            for state, before in zip(place, states, strict=True):
                state[ended] = before
        span.outputs[-1][0, ended] = 0

    def _backward_piece(
        self, piece: _Piece, h0: Any, dh_n: Any, gradients: Any, part: int, slot: int, accumulate: bool
    ) -> None:
        """Gradients of a piece; that of `h0` goes to ``carry``."""
        space, (_, _, span, indices, x, lengths, ended) = self.space, piece
        carry = space.carry
        kept = []
        if ended.size:
            ended = self._of_share(ended, part)
            span.dout[0, ended] = 0
            for place in dh_n:
                kept.append([state[ended] if state.size else 0 for state in place])
                for state in place:
                    if state.size:
                        state[ended] = 0
        self.backward(
            span, indices, x, h0, dh_n, carry, space.no_dx, gradients, part, slot, accumulate=accumulate,
            lengths=lengths,
        )  # fmt: skip
        for place, states in zip(carry, kept, strict=False):
            for state, after in zip(place, states, strict=True):
                state[ended] = after

    def _of_share(self, sequences: np.ndarray, share: int) -> np.ndarray:
        start, stop = self.space.extents[share]
        return sequences[(sequences >= start) & (sequences < stop)]
