"""Central differences against a model's own gradients: what `fastrnn.diagnostics.gradcheck` runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastrnn.checks import IGNORED, check_number, check_rng, check_size
from fastrnn.diagnostics.measures import GradCheck, ParameterCheck, given_gradient, open_finite
from fastrnn.diagnostics.unroll import OpenModel, forward, open_batch, output_gradient

__all__ = ["check_gradients"]

_SIMPLE = ("Wxh", "Whh", "Why", "bh", "by")

#: Gradients below this share of the largest one are compared as if they were as large: there the
#: differences (float64), or the gradients themselves (float32), are rounding errors.
_FLOOR = {np.dtype(np.float64): 1e-3, np.dtype(np.float32): 1e-2}

_TOLERANCE = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 1e-3}

STEP = 1e-5


def check_gradients(
    model: Any,
    inputs: Any,
    targets: Any,
    h0: Any,
    entries: int | None,
    step: float | None,
    tolerance: float | None,
    rng: Any,
) -> GradCheck:
    """See `fastrnn.diagnostics.gradcheck`."""
    m = open_finite(model)
    most = None if entries is None else check_size(entries, "entries")
    distance = STEP if step is None else check_number(step, "step", positive=True)
    allowed = (
        _TOLERANCE[m.dtype] if tolerance is None else check_number(tolerance, "tolerance", positive=True)
    )
    generator = check_rng(rng) or np.random.default_rng()
    batch = open_batch(m, inputs, targets, h0)
    own = _SimpleMethods if m.kind == "SimpleRNN" else _RNNMethods if m.kind == "RNN" else _LanguageMethods
    with _no_dropout(m.model), np.errstate(all="ignore"):
        methods = own(m, batch, targets)
        analytic = {name: np.asarray(g, np.float64) for name, g in methods.gradients().items()}
        if m.dtype == np.float64:
            weights, loss = methods.weights(), methods.loss
        else:
            wide = m.in_float64()
            weights = wide.weights()
            loss = _open_loss(wide, batch, methods.d_outputs)
        checked = {
            name: _differences(name, weights[name], loss, distance, most, generator) for name in analytic
        }
    return _compare(analytic, checked, allowed, _FLOOR[m.dtype])


def _differences(
    name: str,
    W: np.ndarray,
    loss: Callable[[], float],
    step: float,
    most: int | None,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of some entries of a parameter, and the central differences there."""
    if not W.flags.writeable:
        raise ValueError(f"{name} is read-only: its entries must be changed one at a time")
    count = W.size if most is None else min(most, W.size)
    chosen = np.sort(generator.choice(W.size, count, replace=False))
    numeric = np.empty(count)
    saved = W.copy()
    try:
        for i, place in enumerate(chosen):
            at = np.unravel_index(place, W.shape)
            value = saved[at]
            W[at] = up = value + step
            above = loss()
            W[at] = down = value - step
            below = loss()
            W[at] = value
            numeric[i] = (above - below) / (up - down)
    finally:
        np.copyto(W, saved)
    return chosen, numeric


def _compare(
    analytic: dict[str, np.ndarray],
    checked: dict[str, tuple[np.ndarray, np.ndarray]],
    allowed: float,
    floor_share: float,
) -> GradCheck:
    pairs = {name: (g.reshape(-1)[checked[name][0]], checked[name][1]) for name, g in analytic.items()}
    largest = max(float(np.abs(side).max()) for pair in pairs.values() for side in pair)
    floor = floor_share * largest
    found = []
    for name, (ours, differences) in pairs.items():
        scale = np.maximum(np.maximum(np.abs(ours), np.abs(differences)), floor)
        with np.errstate(all="ignore"):
            # Nothing but zeros agrees; NaN on either side does not, whatever the other is.
            error = np.where((ours == 0) & (differences == 0), 0, np.abs(ours - differences) / scale)
        worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
        shape = analytic[name].shape
        found.append(
            ParameterCheck(
                name,
                tuple(int(i) for i in np.unravel_index(checked[name][0][worst], shape)),
                float(ours[worst]),
                float(differences[worst]),
                float(error[worst]),
                len(error),
                analytic[name].size,
            )
        )
    return GradCheck(all(p.error <= allowed for p in found), allowed, floor, tuple(found))


@contextlib.contextmanager
def _no_dropout(model: Any) -> Iterator[None]:
    if not getattr(model, "training", False):
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


# -- the model's own methods -------------------------------------------------------------------------


class _SimpleMethods:
    d_outputs: np.ndarray | None = None

    def __init__(self, m: OpenModel, batch: Any, targets: Any) -> None:
        self.model = m.model
        inputs = batch.indices[:, 0] if batch.indices.size else batch.x[:, 0]
        self.arguments = (inputs, batch.targets[:, 0], batch.h0[0].T.copy())

    def weights(self) -> dict[str, np.ndarray]:
        return {name: getattr(self.model, name) for name in _SIMPLE}

    def loss(self) -> float:
        return float(self.model.loss_and_grads(*self.arguments, clip=None)[0])

    def gradients(self) -> dict[str, np.ndarray]:
        grads = self.model.loss_and_grads(*self.arguments, clip=None)[1]
        return dict(zip(_SIMPLE, grads, strict=True))


class _LanguageMethods:
    d_outputs: np.ndarray | None = None

    def __init__(self, m: OpenModel, batch: Any, targets: Any) -> None:
        self.model = m.model
        targets = np.where(batch.targets < 0, IGNORED, batch.targets)
        self.arguments = (batch.indices, targets, batch.h0)

    def weights(self) -> dict[str, np.ndarray]:
        return dict(self.model.parameters)

    def loss(self) -> float:
        return float(self.model.loss_and_grads(*self.arguments)[0])

    def gradients(self) -> dict[str, np.ndarray]:
        grads = self.model.loss_and_grads(*self.arguments)[1]
        return {name: g.copy() for name, g in grads.items()}


class _RNNMethods:
    """The loss whose gradient by the outputs is constant: their scalar product with that gradient."""

    def __init__(self, m: OpenModel, batch: Any, targets: Any) -> None:
        self.model = m.model
        swap = m.batch_first and batch.batched
        self.d_outputs = given_gradient(forward(m, batch), targets)
        inputs = batch.indices if batch.indices.size else batch.x
        if not batch.batched:
            self.inputs, self.h0, self.weight = inputs[:, 0], batch.h0[:, 0], self.d_outputs[:, 0]
        elif swap:
            self.inputs, self.weight = inputs.swapaxes(0, 1), self.d_outputs.swapaxes(0, 1)
            self.h0 = batch.h0
        else:
            self.inputs, self.h0, self.weight = inputs, batch.h0, self.d_outputs

    def weights(self) -> dict[str, np.ndarray]:
        return dict(self.model.parameters)

    def loss(self) -> float:
        output = self.model.forward(self.inputs, self.h0)[0]
        return float(np.vdot(output.astype(np.float64), self.weight.astype(np.float64)))

    def gradients(self) -> dict[str, np.ndarray]:
        self.model.forward(self.inputs, self.h0)
        self.model.backward(self.weight)
        return {name: g.copy() for name, g in self.model.grads.items()}


# -- the same net in float64 -------------------------------------------------------------------------


def _open_loss(m: OpenModel, batch: Any, d_outputs: np.ndarray | None) -> Callable[[], float]:
    wide = batch.astype(m.dtype)

    def loss() -> float:
        u = forward(m, wide)
        if d_outputs is None:
            return output_gradient(u, m.reduction)[0]
        return float(np.vdot(u.outputs, d_outputs.astype(np.float64)))

    return loss
