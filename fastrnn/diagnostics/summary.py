"""A few numbers of every kind, for the records of a training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import CLIP_MODES, check_clip
from fastrnn.diagnostics.clipping import share_beyond
from fastrnn.diagnostics.gates import gate_shares
from fastrnn.diagnostics.gradients import from_last_step, layer_gradients, loss_gradient
from fastrnn.diagnostics.jacobians import fit_decay, half_life_of
from fastrnn.diagnostics.results import DEAD_SLOPE, SATURATED
from fastrnn.diagnostics.spectrum import estimate_radius
from fastrnn.diagnostics.unroll import Batch, OpenModel, Unrolled, forward, open_batch, open_model
from fastrnn.functional.norms import global_norm, norm
from fastrnn.sharing import reading_model

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import Model, State, StepClip, Targets

__all__ = ["summarize", "training_summary"]


@reading_model
def training_summary(
    model: Model,
    inputs: ArrayLike,
    targets: Targets,
    h0: State | None = None,
    *,
    clip: StepClip | None = "norm",
    clip_threshold: float = 5.0,
) -> dict[str, float]:
    """A few numbers about a batch, cheap enough to be taken now and then while a model trains.

    Parameters
    ----------
    model, inputs, targets, h0
        As for `gradient_flow`; the top layer is looked at.
    clip : {"norm", "value", "step"} or None
        What the training clips by.  (``"step"`` is counted as ``"value"``.)
    clip_threshold : float, default 5.0
        The largest norm, or the largest magnitude of an entry, that is left as it is.

    Returns
    -------
    dict of str to float
        ``spectral_radius`` (estimated), ``saturated`` and ``dead`` (mean shares of units; with gates, ``saturated`` is
        the share of gates that are shut or wide open, see `saturation`, and of the other two there are no such numbers),
        ``gradient_share`` (of the last loss's gradient, how much reaches the first step of the
        chunk), ``half_life`` (steps in which that gradient falls to a half, infinity where it does
        not fall), ``dWhh_norm``, ``clipped`` (share of entries that the clipping changes).  NaN where
        there is no such number, so all of them where the model's weights hold NaN or infinity.

    Raises
    ------
    IndexError, TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> from fastrnn import SimpleRNN
    >>> summary = training_summary(SimpleRNN(4, 16, 4, rng=0), [1, 0, 2, 2], [0, 2, 2, 3])
    >>> sorted(summary)
    ['clipped', 'dWhh_norm', 'dead', 'gradient_share', 'half_life', 'saturated', 'spectral_radius']
    """
    _, limit = check_clip(clip, clip_threshold, CLIP_MODES)
    m = open_model(model)
    batch = open_batch(m, inputs, targets, h0)
    return summarize(m, batch, targets, clip, limit)


_SUMMARY = (
    "spectral_radius", "saturated", "dead", "gradient_share", "half_life", "dWhh_norm", "clipped",
)  # fmt: skip


def summarize(m: OpenModel, batch: Batch, targets: Any, clip: str | None, limit: float) -> dict[str, float]:
    """`training_summary` of arguments that were checked."""
    if m.not_finite():
        return dict.fromkeys(_SUMMARY, math.nan)
    top = len(m.layers) - 1
    with np.errstate(all="ignore"):
        u = forward(m, batch, more=2)
        _, d_outputs, output = loss_gradient(u, targets, m.reduction)
        layers = layer_gradients(u, d_outputs)
        from_last = from_last_step(u, d_outputs, (top, 0))
        grads = [*layers, *output]
        broken = not np.isfinite(u.hs[top][0]).all()
        flat, dead, radius = _flatness(u, top)
        changed = 0.0
        if clip == "norm":
            changed = float(not global_norm(grads) <= limit)
        elif clip is not None:
            changed = share_beyond(grads, limit)
        rate = 0.0
        if not from_last[-1] > 0:  # a loss without a gradient: nothing that could fall
            rate = math.nan
        elif len(from_last) > 1:
            rate = fit_decay(np.arange(len(from_last)), np.log(from_last[::-1]))[0]
        return {
            "spectral_radius": radius,
            "saturated": math.nan if broken else flat,
            "dead": math.nan if broken else dead,
            "gradient_share": float(from_last[0] / from_last[-1]),
            "half_life": half_life_of(rate),
            "dWhh_norm": norm(layers[top * m.directions * 4 + 1]),
            "clipped": changed,
        }


def _flatness(u: Unrolled, top: int) -> tuple[float, float, float]:
    """Share of saturated units or gates of a layer, share of dead units, and spectral radius of W_hh."""
    m = u.m
    if m.cell.slope is None:
        return float(np.mean([*gate_shares(u, top, 0, SATURATED).values()])), math.nan, math.nan
    hs, slopes = u.hs[top][0], u.slopes(top)
    flat = float((np.abs(hs) > SATURATED).mean()) if m.cell.saturates else 0.0
    return flat, float((slopes < DEAD_SLOPE).mean()), estimate_radius(m.recurrent_weights(top))
