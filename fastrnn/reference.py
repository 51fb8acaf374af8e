"""The study notes' recurrent network as a plain NumPy loop: the truth for tests and the baseline of
every benchmark.  Read this file first, with docs/notes.md beside it, which has the equations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import Dtype, Seed, StepClip

__all__ = ["ReferenceRNN"]

_Steps = dict[int, np.ndarray]


class ReferenceRNN:
    """Vanilla RNN, one small NumPy operation at a time, as the notes teach it.

    The same members as `SimpleRNN`, without its checks of the arguments.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        d, h and q.
    dtype : {float64, float32}, default float64
        Of the weights.
    rng : numpy.random.Generator, int or None
        Where the weights are drawn from; an int is a seed, None takes NumPy's global stream.
    backend : None
        Accepted so that the signature is `SimpleRNN`'s; a plain loop has no backends.

    Attributes
    ----------
    Wxh : ndarray, shape (h, d)
    Whh : ndarray, shape (h, h)
    Why : ndarray, shape (q, h)
    bh : ndarray, shape (h, 1)
    by : ndarray, shape (q, 1)
        The weights of eqs. 1 and 2, as in `SimpleRNN`.

    Examples
    --------
    >>> rnn = ReferenceRNN(26, 100, 26)
    >>> rnn.num_parameters
    15326
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        *,
        dtype: Dtype = np.float64,
        rng: Seed = None,
        backend: None = None,
    ) -> None:
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = output_size
        draw = np.random.standard_normal if rng is None else np.random.default_rng(rng).standard_normal
        self.Wxh = (draw((hidden_size, input_size)) * 0.01).astype(dtype)
        self.Whh = (draw((hidden_size, hidden_size)) * 0.01).astype(dtype)
        self.Why = (draw((output_size, hidden_size)) * 0.01).astype(dtype)
        self.bh = np.zeros((hidden_size, 1), dtype)
        self.by = np.zeros((output_size, 1), dtype)

    @property
    def num_parameters(self) -> int:
        """Number of trainable numbers (eq. 3)."""
        d, h, q = self.input_size, self.hidden_size, self.output_size
        return h * (d + h + q + 1) + q

    def _column(self, value: Any) -> np.ndarray:
        """One input as a (d, 1) vector: a class index becomes one-hot."""
        if isinstance(value, (int, np.integer)):
            x = np.zeros((self.input_size, 1), self.Wxh.dtype)
            x[value] = 1
            return x
        return np.asarray(value, self.Wxh.dtype).reshape(-1, 1)

    def forward(self, inputs: ArrayLike, h_prev: ArrayLike) -> tuple[_Steps, _Steps, _Steps]:
        """Run over a sequence (eqs. 1, 2, 16, 17).

        Parameters
        ----------
        inputs : sequence of T int, or array, shape (T, d) or (T, d, 1)
            Class indices, taken as one-hot vectors, or the vectors themselves.
        h_prev : ndarray, shape (h, 1)
            State before the first input.

        Returns
        -------
        xs, hs, ps : dict of int to ndarray
            Inputs (d, 1), hidden states (h, 1) and probabilities (q, 1) by time step; ``hs[-1]`` is
            a copy of `h_prev`.

        Examples
        --------
        >>> xs, hs, ps = ReferenceRNN(3, 8, 3, rng=0).forward([0, 1, 2], np.zeros((8, 1)))
        >>> list(hs), ps[0].shape
        ([-1, 0, 1, 2], (3, 1))
        """
        xs: _Steps = {}
        hs: _Steps = {-1: np.array(h_prev, self.Whh.dtype)}
        ps: _Steps = {}
        for t in range(len(inputs)):  # type: ignore[arg-type]
            xs[t] = self._column(inputs[t])  # type: ignore[index]
            hs[t] = np.tanh(np.dot(self.Wxh, xs[t]) + np.dot(self.Whh, hs[t - 1]) + self.bh)
            y = np.dot(self.Why, hs[t]) + self.by
            exp_y = np.exp(y - np.max(y))
            ps[t] = exp_y / np.sum(exp_y)
        return xs, hs, ps

    def backward(
        self,
        xs: Mapping[int, np.ndarray],
        hs: Mapping[int, np.ndarray],
        ps: Mapping[int, np.ndarray],
        targets: Sequence[int] | np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """Backpropagate through time (eqs. 7 to 13), every accumulator clamped to [-5, 5] after every
        time step.

        Parameters
        ----------
        xs, hs, ps : mapping of int to ndarray
            As `forward` returns them.
        targets : sequence of T int
            Class index of each time step.

        Returns
        -------
        dWxh, dWhh, dWhy, dbh, dby : ndarray
            In the shapes of the parameters.

        Examples
        --------
        >>> rnn = ReferenceRNN(3, 8, 3, rng=0)
        >>> [g.shape for g in rnn.backward(*rnn.forward([0, 1, 2], np.zeros((8, 1))), [1, 2, 0])]
        [(8, 3), (8, 8), (3, 8), (8, 1), (3, 1)]
        """
        return self._bptt(xs, hs, ps, targets, 5.0)

    def _bptt(
        self, xs: Any, hs: Any, ps: Any, targets: Sequence[int] | np.ndarray, limit: float
    ) -> tuple[np.ndarray, ...]:
        dWxh, dWhh, dWhy = (np.zeros_like(W) for W in (self.Wxh, self.Whh, self.Why))
        dbh, dby = np.zeros_like(self.bh), np.zeros_like(self.by)
        dh_next = np.zeros_like(hs[0])
        for t in reversed(range(len(xs))):
            dy = np.copy(ps[t])
            dy[targets[t]] -= 1  # eq. 7
            dWhy += np.dot(dy, hs[t].T)  # eq. 8
            dby += dy
            dh = np.dot(self.Why.T, dy) + dh_next  # eq. 9
            dz = (1 - hs[t] * hs[t]) * dh  # eq. 10
            dWxh += np.dot(dz, xs[t].T)  # eq. 11
            dWhh += np.dot(dz, hs[t - 1].T)
            dbh += dz
            dh_next = np.dot(self.Whh.T, dz)  # eq. 12
            if limit < math.inf:
                for dparam in (dWxh, dWhh, dWhy, dbh, dby):
                    np.clip(dparam, -limit, limit, out=dparam)
        return dWxh, dWhh, dWhy, dbh, dby

    def update_weights(self, grads: Sequence[np.ndarray], lr: float = 0.1) -> None:
        """Take one step of gradient descent, in place.

        Parameters
        ----------
        grads : sequence of 5 ndarray
            As `backward` returns them.
        lr : float, default 0.1
            Learning rate.

        Examples
        --------
        >>> rnn = ReferenceRNN(3, 8, 3, rng=0)
        >>> rnn.update_weights([np.ones_like(W) for W in (rnn.Wxh, rnn.Whh, rnn.Why, rnn.bh, rnn.by)])
        >>> float(rnn.by[0, 0])
        -0.1
        """
        dWxh, dWhh, dWhy, dbh, dby = grads
        self.Wxh -= lr * dWxh
        self.Whh -= lr * dWhh
        self.Why -= lr * dWhy
        self.bh -= lr * dbh
        self.by -= lr * dby

    def sample(
        self, h: np.ndarray, start_index: int, n: int, *, rng: np.random.Generator | None = None
    ) -> list[int]:
        """Draw a sequence of class indices, each fed back as the next input.

        Parameters
        ----------
        h : ndarray, shape (h, 1)
            State before the first input; not modified.
        start_index : int
            First input.
        n : int
            Number of indices to draw.
        rng : Generator or None
            None draws from NumPy's global stream.

        Returns
        -------
        list of n int
            Class indices in ``[0, q)``.

        Examples
        --------
        >>> len(ReferenceRNN(3, 8, 3, rng=0).sample(np.zeros((8, 1)), 0, 5))
        5
        """
        choice = np.random.choice if rng is None else rng.choice
        x = self._column(start_index)
        indices = []
        for _ in range(n):
            h = np.tanh(np.dot(self.Wxh, x) + np.dot(self.Whh, h) + self.bh)
            y = np.dot(self.Why, h) + self.by
            exp_y = np.exp(y - np.max(y))
            p = exp_y / np.sum(exp_y)
            index = choice(range(self.output_size), p=p.ravel())
            x = self._column(index)
            indices.append(int(index))
        return indices

    def loss_and_grads(
        self,
        inputs: ArrayLike,
        targets: Sequence[int] | np.ndarray,
        h_prev: ArrayLike,
        *,
        clip: StepClip | None = "step",
        clip_threshold: float = 5.0,
    ) -> tuple[float, tuple[np.ndarray, ...], np.ndarray]:
        """Cross-entropy of a sequence (eqs. 5, 6) and its gradients, clipped.

        Parameters
        ----------
        inputs : sequence of T int, or array, shape (T, d) or (T, d, 1)
            Class indices, taken as one-hot vectors, or the vectors themselves.
        targets : sequence of T int
            Class index of each time step.
        h_prev : ndarray, shape (h, 1)
            State before the first input.
        clip : {"step", "value", "norm"} or None, default "step"
            Clamp after every time step, clamp once, rescale by the global norm (eq. 15), nothing.
        clip_threshold : float, default 5.0
            Positive; infinity clips nothing.

        Returns
        -------
        loss : float
            In nats, summed over the sequence.
        grads : tuple of 5 ndarray
            dWxh, dWhh, dWhy, dbh, dby.
        h_last : ndarray, shape (h, 1)
            State after the last input.

        Examples
        --------
        >>> rnn = ReferenceRNN(3, 8, 3, rng=0)
        >>> loss, grads, h_last = rnn.loss_and_grads([0, 1], [1, 2], np.zeros((8, 1)))
        >>> round(loss, 2), h_last.shape
        (2.2, (8, 1))
        """
        xs, hs, ps = self.forward(inputs, h_prev)
        loss = 0.0
        for t in range(len(targets)):
            loss += -np.log(ps[t][targets[t], 0])
        grads = self._bptt(xs, hs, ps, targets, clip_threshold if clip == "step" else math.inf)
        if clip == "value":
            for g in grads:
                np.clip(g, -clip_threshold, clip_threshold, out=g)
        elif clip == "norm" and clip_threshold < math.inf:
            norm = np.sqrt(sum(np.sum(g * g) for g in grads))
            for g in grads:
                g *= clip_threshold / np.maximum(clip_threshold, norm)
        return float(loss), grads, hs[len(targets) - 1]

    def train_step(
        self,
        inputs: ArrayLike,
        targets: Sequence[int] | np.ndarray,
        h_prev: ArrayLike,
        lr: float = 0.1,
        *,
        clip: StepClip | None = "step",
        clip_threshold: float = 5.0,
    ) -> tuple[float, np.ndarray]:
        """`loss_and_grads`, then `update_weights`.

        Parameters
        ----------
        inputs, targets, h_prev, clip, clip_threshold
            As for `loss_and_grads`.
        lr : float, default 0.1
            Learning rate.

        Returns
        -------
        loss : float
            In nats, summed over the sequence, before the update.
        h_last : ndarray, shape (h, 1)
            State after the last input.

        Examples
        --------
        >>> rnn = ReferenceRNN(3, 8, 3, rng=0)
        >>> losses = [rnn.train_step([0, 1, 2], [1, 2, 0], np.zeros((8, 1)))[0] for _ in range(500)]
        >>> losses[-1] < 0.1 < losses[0]
        True
        """
        loss, grads, h_last = self.loss_and_grads(
            inputs, targets, h_prev, clip=clip, clip_threshold=clip_threshold
        )
        self.update_weights(grads, lr)
        return loss, h_last
