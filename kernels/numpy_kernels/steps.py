"""One time step of a stack of layers at a call, for data that come as they are made, in plain NumPy::

    z = W_ih x + b_ih + W_hh h + b_hh,  h' = cell(z)  in each layer, x of the next one being h'    (1)
    y = h' of the last layer, or its logits W h' + b (2), or their softmax (16)

`StepKernel` is what a stepper of `fastrnn.stepper` calls.  The Cython backend has a compiled class in its place.
"""

import os

import numpy as np

from fastrnn.kernels import STATES
from fastrnn.kernels.numpy_kernels import cells

#: How often this process has forked, from 1 on: tells a step that is under way from one that a fork cut off.
_forks = 1


def _count_fork():
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class StepKernel:
    """The states of N sequences, and their next step.

    Parameters
    ----------
    weights : object
        What steppers of one model share: ``shape = (L, N, h)``; ``width``, of y; `dtype`; the code of the `cell`;
        `layers`, ``(W_ih, W_hh, b_ih, b_hh)`` each; `output`, ``(W, b)`` or None; whether y are `probabilities`;
        and what belongs to a backend: ``packed(one_hot)``, an array for each layer, and `packed_output`; and the
        list `works` of work space that no step uses, and ``new_work()`` for more.
    batched : bool
        Whether y has an axis for the sequences.
    convert : callable
        Makes of a user's x an array ``(N,d)`` as kernels take them, or class indices ``(N)`` in ``[0,d)``.
    check_out : callable
        Raises if an `out` is not ``(N,width)``, or ``(width,)``, as kernels take arrays.
    """

    def __init__(self, weights, batched, convert, check_out):
        self._convert, self._check_out = convert, check_out
        # (S, L, N, h) for the S states of a cell: of now, and those that the next step writes, in turn
        self._before, self._after = np.zeros((2, STATES[weights.cell], *weights.shape), weights.dtype)
        _, N, _ = weights.shape
        self._shape = (N, weights.width) if batched else (weights.width,)
        self._batch_shape = N, weights.width
        self._free, self._holder = [True], 0
        self.use(weights)

    def use(self, weights):
        """Use other weights of the same shapes from now on."""
        layers = [
            (W_ih.T, W_hh.T, *cells.biases(weights.cell, b_ih, b_hh))
            for W_ih, W_hh, b_ih, b_hh in weights.layers
        ]
        self._enter()
        self._weights, self._layers = weights, layers
        self._free.append(True)

    def step(self, x, out=None):
        """Go on by the input of one time step; return y, which is `out` where that is given."""
        x = self._convert(x)
        if out is None:
            y = np.empty(self._shape, self._before.dtype)
        else:
            self._check_out(out)
            y = out
        self._enter()
        try:
            # What was read last is written last: so out may be x.
            self._run(x, self._before, self._after, y.reshape(self._batch_shape))
            self._before, self._after = self._after, self._before
        finally:
            self._free.append(True)
        return y

    def states(self):
        """A copy of the states, a tuple of S arrays ``(L,N,h)``."""
        self._enter()
        try:
            return tuple(self._before.copy())
        finally:
            self._free.append(True)

    def set_states(self, states):
        """Go on from these states, S arrays ``(L,N,h)``, or from zeros where they are None."""
        self._enter()
        try:
            for i, before in enumerate(self._before):
                before[...] = 0 if states is None else states[i]
        finally:
            self._free.append(True)

    def _enter(self):
        """Take the one permission there is; the list's own lock makes it one."""
        try:
            self._free.pop()
        except IndexError:
            # In a forked child, a step of another thread of the parent never ends; the states are from before it.
            if self._holder == _forks:
                raise RuntimeError(
                    "this stepper is in use by another thread: it is for one thread at a time, give each a copy"
                ) from None
        self._holder = _forks

    def _run(self, x, before, after, y):
        """States `after` those `before`, both (S, L, N, h), and the output y."""
        weights = self._weights
        with np.errstate(all="ignore"):
            for i, (U, W, bias, rest) in enumerate(self._layers):  # W_ih', W_hh'
                z = U[x] if x.ndim == 1 else np.dot(x, U)
                z += bias
                recurrent = np.dot(before[0, i], W)
                if rest is not None:
                    recurrent += rest
                cells.forward(weights.cell, z, recurrent, before[:, i], after[:, i])
                x = after[0, i]
            if weights.output is None:
                y[...] = x
                return
            W, b = weights.output
            np.dot(x, W.T, out=y)
            y += b
            if weights.probabilities:
                softmax(y)


def softmax(y):
    """Softmax of each row, in place (eqs. 16, 17)."""
    y -= y.max(axis=1, keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(axis=1, keepdims=True)
