"""One time step of a stack of layers at a call: `fastrnn.kernels.numpy_kernels.steps` over kernels of Numba."""

import numpy as np

from fastrnn.kernels.numba_kernels.layer import layer_forward
from fastrnn.kernels.numba_kernels.output import output_logits
from fastrnn.kernels.numpy_kernels import steps

_NO_INDICES, _NO_LENGTHS = np.empty((0, 0), np.int64), np.empty(0, np.int64)


class StepKernel(steps.StepKernel):
    """The states of N sequences, and their next step: see `fastrnn.kernels.numpy_kernels.steps.StepKernel`."""

    def use(self, weights):
        super().use(weights)
        self._no_x = np.empty((0, 0, 0), weights.dtype)

    def _run(self, x, before, after, y):
        """One step from the states `before` to `after`, both (S, L, N, h), and its output ``y (N, ...)``: every layer as
        one of a single time step, T = 1."""
        weights = self._weights
        one_hot = x.ndim == 1
        indices, x = (x[None], self._no_x) if one_hot else (_NO_INDICES, x[None])
        rows, works = (0, len(y)), weights.works
        try:  # none is left while other threads work with theirs
            work = works.pop()
        except IndexError:
            work = weights.new_work()
        states, none = (
            zip(before.swapaxes(0, 1), after.swapaxes(0, 1), strict=True),
            self._no_x[:, :, :, None],
        )
        for layer, packed, (old, new) in zip(weights.layers, weights.packed(one_hot), states, strict=True):
            batch = indices, x, _NO_LENGTHS, False
            hs = new[0][None]
            layer_forward(layer, packed, batch, tuple(old), hs, none, tuple(new), rows, weights.cell, work)
            indices, x = _NO_INDICES, hs
        if weights.output is None:
            y[...] = x[0]
        else:
            output_logits(weights.output, weights.packed_output, x, y[None], rows, work)
            if weights.probabilities:
                with np.errstate(all="ignore"):
                    steps.softmax(y)
        works.append(work)
