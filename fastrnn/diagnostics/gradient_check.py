"""The gradients of a model against central differences."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import IGNORED, check_number, check_rng, check_size
from fastrnn.diagnostics.gradients import given_gradient
from fastrnn.diagnostics.results import open_finite
from fastrnn.diagnostics.unroll import Batch, OpenModel, forward, open_batch, output_gradient, wanted_of
from fastrnn.sharing import changing_model
from fastrnn.shown import Shown
from fastrnn.simple_weights import PARAMETERS
from fastrnn.states import public

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import Model, Seed, State, Targets

__all__ = ["GradCheck", "ParameterCheck", "check_gradients", "gradcheck"]


@dataclass(frozen=True, repr=False)
class ParameterCheck(Shown):
    """The worst entry of one parameter in a `GradCheck`.

    Attributes
    ----------
    name : str
    index : tuple of int
        Of the worst entry.
    analytic, numeric : float
        The model's gradient there, and the central difference.
    error : float
        Their difference relative to the larger of the two, or to `GradCheck.floor` where both are
        smaller.
    checked, entries : int
        How many entries were looked at, and how many there are.
    """

    name: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    error: float
    checked: int
    entries: int

    def _sentences(self) -> list[str]:
        return _parameter_sentences(self)

    def _size(self) -> str:
        return f"{self.name}, {self.checked} of {self.entries} entries"


@dataclass(frozen=True, repr=False)
class GradCheck(Shown):
    """Result of `gradcheck`; ``print`` it for a verdict and a table.

    Attributes
    ----------
    ok : bool
        Every error is within `tolerance`.
    tolerance : float
    floor : float
        Gradients below this are compared as if they were as large.
    parameters : tuple of ParameterCheck
    """

    ok: bool
    tolerance: float
    floor: float
    parameters: tuple[ParameterCheck, ...]

    def _sentences(self) -> list[str]:
        return _check_sentences(self)

    def _size(self) -> str:
        return f"{len(self.parameters)} parameters, {'ok' if self.ok else 'not ok'}"

    @property
    def worst(self) -> ParameterCheck:
        """The parameter with the largest error; one that is not a number is the largest."""
        return max(self.parameters, key=lambda p: math.inf if math.isnan(p.error) else p.error)


@changing_model
def gradcheck(
    model: Model,
    inputs: ArrayLike,
    targets: Targets = None,
    h0: State | None = None,
    *,
    entries: int | None = 50,
    step: float | None = None,
    tolerance: float | None = None,
    rng: Seed = 0,
) -> GradCheck:
    """Compare a model's own gradients with central differences of its own loss, in float64.

    For whoever changes a model, a kernel or a loss, by a subclass too: in a float64 model both sides
    come from the methods of `model` itself (``loss_and_grads``, of a `SequenceModel` also ``loss``, or ``forward`` and
    ``backward`` of an `RNN`).  A float32 model has too few digits for differences: its gradients are compared with the
    differences of the same net in float64.  Gradients are not clipped.  Dropout is switched off.

    Parameters
    ----------
    model, inputs, targets, h0
        As for `gradient_flow`.
    entries : int or None, default 50
        Entries of each parameter to look at, drawn from `rng`; None means all.
    step : float or None
        Half the distance of the two losses; None means 1e-5.
    tolerance : float or None
        Largest error allowed; None means 1e-6, for a float32 model 1e-3.
    rng : Generator, int or None
        Draws the entries.

    Returns
    -------
    GradCheck

    Raises
    ------
    IndexError, TypeError, ValueError
        If an argument is not as above, or a parameter is read-only, or the weights hold NaN or infinity.

    Notes
    -----
    Weights are changed one entry at a time while this runs, and restored bit for bit, also when
    something is raised.  The model's `grads` and `grad_norm` stay as they are, and a `backward` that follows is
    that of the `forward` before.

    Examples
    --------
    >>> from fastrnn import SimpleRNN
    >>> rnn = SimpleRNN(4, 8, 4, rng=0)
    >>> gradcheck(rnn, [1, 0, 2, 2], [0, 2, 2, 3]).ok
    True

    >>> class Wrong(SimpleRNN):
    ...     def loss_and_grads(self, *arguments, **options):
    ...         loss, grads, h = super().loss_and_grads(*arguments, **options)
    ...         grads[1][:] *= 2
    ...         return loss, grads, h
    >>> gradcheck(Wrong(4, 8, 4, rng=0), [1, 0, 2, 2], [0, 2, 2, 3]).worst.name
    'Whh'
    """
    return check_gradients(model, inputs, targets, h0, entries, step, tolerance, rng)


def _parameter_sentences(r: ParameterCheck) -> list[str]:
    place = "[" + ", ".join(map(str, r.index)) + "]"
    return [
        f"{r.name}: {r.checked:,} of {r.entries:,} entries were compared with central differences.",
        f"The worst is {r.name}{place}: gradient {r.analytic:.6g}, difference {r.numeric:.6g}, relative error "
        f"{r.error:.1e}.",
    ]


def _check_sentences(r: GradCheck) -> list[str]:
    width = max([len("parameter"), *(len(p.name) for p in r.parameters)])
    worst = r.worst
    checked, entries = sum(p.checked for p in r.parameters), sum(p.entries for p in r.parameters)
    lines = [
        "The gradients agree with central differences."
        if r.ok
        else f"THE GRADIENTS ARE WRONG, most of all that of {worst.name}.",
        f"{checked:,} of {entries:,} entries were compared; the largest relative error is {worst.error:.1e}, in "
        f"{worst.name}, and {r.tolerance:g} is allowed.",
        f"{'parameter':<{width}}  {'checked':>15}  {'worst entry':>14}  {'gradient':>13}  "
        f"{'difference':>13}  {'error':>8}",
    ]
    for p in r.parameters:
        place = "[" + ", ".join(map(str, p.index)) + "]"
        lines.append(
            f"{p.name:<{width}}  {f'{p.checked} of {p.entries}':>15}  {place:>14}  {p.analytic:>13.6g}  "
            f"{p.numeric:>13.6g}  {p.error:>8.1e}" + ("" if p.error <= r.tolerance else "  <-- wrong")
        )
    return lines


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
    kept = getattr(m.model, "_gradients_kept", contextlib.nullcontext)  # a SimpleRNN keeps none
    with _no_dropout(m.model), kept(), np.errstate(all="ignore"):
        methods = _METHODS[m.kind](m, batch, targets)
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

    def __init__(self, m: OpenModel, batch: Batch, targets: Any) -> None:
        self.model = m.model
        inputs = batch.indices[:, 0] if batch.indices.size else batch.x[:, 0]
        self.arguments = (inputs, wanted_of(m, batch)[:, 0], batch.h0[0][0].T.copy())

    def weights(self) -> dict[str, np.ndarray]:
        return {name: getattr(self.model, name) for name in PARAMETERS}

    def loss(self) -> float:
        return float(self.model.loss_and_grads(*self.arguments, clip=None)[0])

    def gradients(self) -> dict[str, np.ndarray]:
        grads = self.model.loss_and_grads(*self.arguments, clip=None)[1]
        return dict(zip(PARAMETERS, grads, strict=True))


class _LanguageMethods:
    d_outputs: np.ndarray | None = None

    def __init__(self, m: OpenModel, batch: Batch, targets: Any) -> None:
        self.model = m.model
        inputs, wanted = batch.indices if batch.indices.size else batch.x, wanted_of(m, batch)
        if m.loss.takes_classes:
            wanted = np.where(wanted < 0, IGNORED, wanted)
        self.arguments = (inputs, wanted if m.head.per_step else wanted[0], public(batch.h0))

    def weights(self) -> dict[str, np.ndarray]:
        return dict(self.model.parameters)

    def loss(self) -> float:
        return float(self.model.loss_and_grads(*self.arguments)[0])

    def gradients(self) -> dict[str, np.ndarray]:
        grads = self.model.loss_and_grads(*self.arguments)[1]
        return {name: g.copy() for name, g in grads.items()}


class _SequenceMethods(_LanguageMethods):
    def loss(self) -> float:
        return float(self.model.loss(*self.arguments)[0])


class _RNNMethods:
    """The loss whose gradient by the outputs is constant: their scalar product with that gradient."""

    def __init__(self, m: OpenModel, batch: Batch, targets: Any) -> None:
        self.model = m.model
        swap = m.batch_first and batch.batched
        self.d_outputs = given_gradient(forward(m, batch), targets)
        inputs = batch.indices if batch.indices.size else batch.x
        if not batch.batched:
            self.inputs, self.weight = inputs[:, 0], self.d_outputs[:, 0]
            self.h0 = public([state[:, 0] for state in batch.h0])
        elif swap:
            self.inputs, self.weight = inputs.swapaxes(0, 1), self.d_outputs.swapaxes(0, 1)
            self.h0 = public(batch.h0)
        else:
            self.inputs, self.h0, self.weight = inputs, public(batch.h0), self.d_outputs

    def weights(self) -> dict[str, np.ndarray]:
        return dict(self.model.parameters)

    def loss(self) -> float:
        output = self.model.forward(self.inputs, self.h0)[0]
        return float(np.vdot(output.astype(np.float64), self.weight.astype(np.float64)))

    def gradients(self) -> dict[str, np.ndarray]:
        self.model.forward(self.inputs, self.h0)
        self.model.backward(self.weight)
        return {name: g.copy() for name, g in self.model.grads.items()}


#: Of each kind of model.
_METHODS: dict[str, Callable[[OpenModel, Batch, Any], _SimpleMethods | _LanguageMethods | _RNNMethods]] = {
    "SimpleRNN": _SimpleMethods,
    "LanguageModel": _LanguageMethods,
    "SequenceModel": _SequenceMethods,
    "layer": _RNNMethods,
}


# -- the same net in float64 -------------------------------------------------------------------------


def _open_loss(m: OpenModel, batch: Batch, d_outputs: np.ndarray | None) -> Callable[[], float]:
    wide = batch.astype(m.dtype)

    def loss() -> float:
        u = forward(m, wide)
        if d_outputs is None:
            return output_gradient(u, m.reduction)[0]
        return float(np.vdot(u.outputs, d_outputs.astype(np.float64)))

    return loss
