"""What ``print`` says of the results of `fastrnn.diagnostics`: the numbers that matter, their units, and
what they mean, one function each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fastrnn.diagnostics.measures import (
        ClipReport,
        GradCheck,
        GradientFlow,
        HiddenStates,
        JacobianNorms,
        ParameterCheck,
        Saturation,
        Spectrum,
    )

__all__ = [
    "about",
    "clip_report",
    "gradcheck",
    "gradient_flow",
    "hidden_states",
    "jacobian_norms",
    "number",
    "parameter_check",
    "percent",
    "saturation",
    "spectrum",
]

#: A gradient of which less than this is left has vanished; one that is beyond that has exploded.
VANISHED, EXPLODED = 0.01, 10.0

#: Things that are named at most, and characters of a text that are quoted at most.
NAMED, QUOTED = 8, 40


def percent(share: float) -> str:
    """A share as people read it: ``12%``, ``1.5%``, ``0.03%``, and never 0% or 100% of what is not."""
    if not math.isfinite(share):
        return number(share)
    if abs(share) >= EXPLODED:
        return f"{number(share)} times"
    if 0 < abs(share) < 1e-4:
        return "less than 0.01%"
    value = 100 * abs(share)
    digits = 0 if value >= 10 or value == 0 else 1 if value >= 1 else 2
    if value < 100 and round(value, digits) >= 100:
        return "almost 100%"
    text = f"{value:.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{'-' * (share < 0)}{text}%"


def number(value: float) -> str:
    """Three digits, with words for what is none."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def about(result: object) -> str:
    """The model and what it read, as far as a result knows them."""
    model, read = getattr(result, "model", ""), getattr(result, "read", "")
    return ", on ".join(part for part in (model, read) if part)


def _first(what: str, result: object, otherwise: str = "") -> str:
    known = about(result) or otherwise
    return f"{what}: {known}." if known else f"{what}."


def _steps(count: int) -> str:
    return f"{count:,} step{'s' * (count != 1)}"


def _units(count: int) -> str:
    return f"{count:,} unit{'s' * (count != 1)}"


def _named(numbers: np.ndarray) -> str:
    shown = ", ".join(map(str, numbers[:NAMED].tolist()))
    return shown + (f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else "")


# -- one function a result ---------------------------------------------------------------------------


def gradient_flow(r: GradientFlow) -> list[str]:
    T = len(r.total)
    first, last = (T - 1, 0) if r.direction else (0, T - 1)
    lines = [_first("Gradients on their way back", r, _steps(T))]
    if not math.isnan(r.loss):
        how = "mean over" if r.reduction == "mean" else "sum over"
        lines.append(f"The loss is {number(r.loss)} nats, the {how} the steps.")
    lines += _what_is_left(r, T, float(r.share[first]))
    lines.append(
        f"Of the whole loss, the gradient dL/dh has norm {number(float(r.total[first]))} at the first step "
        f"read and {number(float(r.total[last]))} at the last."
    )
    terms = f"The gradient of Whh has norm {number(r.dWhh_norm)}"
    if np.isfinite(r.dWhh_terms).all():
        largest = int(np.argmax(r.dWhh_terms))
        terms += (
            f"; of the terms that add up to it, that of step {largest + 1} is the largest, "
            f"{number(float(r.dWhh_terms[largest]))}"
        )
    lines.append(terms + ".")
    return lines


def _what_is_left(r: GradientFlow, T: int, left: float) -> list[str]:
    """How much of the last step's gradient reaches the first, and the word for it."""
    if not float(r.from_last_step.max()) > 0 and not np.isnan(r.from_last_step).any():
        return ["The loss of the last step sends no gradient back at all: it is 0."]
    if not np.isfinite(r.share).all():
        return ["The gradient of the last step's loss is beyond all numbers at some step: NaN or infinity."]
    if T == 1:
        return ["With one step there is none to go back to."]
    reaches = f"Of the gradient of the last step's loss, {percent(left)} reaches the first step"
    largest = float(r.share.max())
    if largest > EXPLODED:
        return [
            f"The gradient of the last step's loss grows on its way back, to {number(largest)} times its size; "
            f"at the first step, {_steps(T - 1)} back, it is {number(left)} times.",
            "It explodes: one update can undo many. Clip the gradients by their norm.",
        ]
    if left < VANISHED:
        return [
            f"{reaches}, {_steps(T - 1)} back; {_steps(r.reach)} back it falls below 1%.",
            "It vanishes: what was read before that hardly changes what is learned.",
        ]
    return [
        f"{reaches}, {_steps(T - 1)} back.",
        "It holds: what was read first is learned from as well.",
    ]


def jacobian_norms(r: JacobianNorms) -> list[str]:
    L = len(r.lags)
    starts = f"On average over {r.starts:,} starting point{'s' * (r.starts != 1)}"
    lines = [
        _first("How much a state depends on an earlier one", r, f"1 to {_steps(L)} back"),
        f"{starts}, a small change of a state is multiplied by at most {number(float(r.norms[0]))} in 1 step"
        + (f", and by {number(float(r.norms[-1]))} in {_steps(L)}." if L > 1 else "."),
    ]
    if math.isnan(r.factor):
        lines.append("No exponential fits that: some of the norms are beyond all numbers.")
    elif r.factor == 0:
        lines.append("Nothing comes through: the state forgets everything.")
    elif math.isinf(r.half_life):
        lines.append(f"Each further step multiplies by {number(r.factor)}: it does not fade.")
    else:
        lines.append(
            f"Each further step multiplies by {number(r.factor)}: the memory falls to a half in "
            f"{number(r.half_life)} steps."
        )
    lines.append(
        f"The bound of Bengio et al. for one step is {number(r.bound)}: "
        + ("below 1, so gradients must vanish." if r.bound < 1 else "not below 1, so it proves nothing.")
    )
    return lines


def spectrum(r: Spectrum) -> list[str]:
    h, radius = len(r.singular_values), r.spectral_radius
    above = int((r.singular_values > 1).sum())
    if radius < 0.9:
        meaning = "Well below 1: by itself Whh lets the state fade."
    elif radius <= 1.1:
        meaning = "Near 1: by itself Whh keeps the state."
    else:
        meaning = (
            "Above 1: by itself Whh makes the state grow; the slope of the nonlinearity can hold it back."
        )
    return [
        _first(f"Recurrent weights Whh, {h} x {h}", r),
        f"The spectral radius, what Whh does to a state in the long run, is {number(radius)} a step.",
        meaning,
        f"The largest singular value, what one step does at most, is {number(float(r.singular_values[0]))}; "
        f"{above} of {h} are above 1, the smallest is {number(float(r.singular_values[-1]))}.",
    ]


def saturation(r: Saturation) -> list[str]:
    saturated, dead = float(r.saturated.mean()), float(r.dead.mean())
    stuck = (
        f"{_units(len(r.stuck))} ({_named(r.stuck)}) {'are' if len(r.stuck) > 1 else 'is'} so at every step, "
        f"and {'carry' if len(r.stuck) > 1 else 'carries'} no information."
        if len(r.stuck)
        else "No unit is so at every step."
    )
    if r.nonlinearity == "relu":
        flat = f"On average {percent(dead)} of the units are 0 and pass no gradient; half of them is usual."
    else:
        flat = (
            f"On average {percent(saturated)} of the units are saturated (|h| above {r.threshold:g}), and "
            f"{percent(dead)} pass no gradient (slope below 0.001)."
        )
    lines = [
        _first("How flat the nonlinearity is", r, _steps(len(r.saturated))),
        flat,
        stuck,
        f"The mean slope is {percent(float(r.mean_slope.mean()))} of the largest possible: that share of a "
        "gradient gets through.",
    ]
    if r.nonlinearity != "relu" and saturated > 0.3:
        lines.append(
            "That is much: saturated units hardly learn. Try a lower learning rate or smaller weights."
        )
    return lines


def clip_report(r: ClipReport) -> list[str]:
    lines = [
        _first(f"Gradients of {r.entries:,} weights", r),
        f"Their norm is {number(r.norm_before)}, the largest entry {number(r.largest)}, the threshold "
        f"{number(r.threshold)}.",
    ]
    for mode, norm in r.norm_after.items():
        lines.append(
            f'clip="{mode}" changes {percent(r.changed[mode])} of the entries, to norm {number(norm)}.'
        )
    if math.isnan(r.norm_before):
        lines.append("Some gradients are NaN: no clipping mends that.")
    elif r.norm_before > r.threshold:
        lines.append(
            'They are beyond the threshold: clip="norm" makes them shorter and keeps their direction.'
        )
    else:
        lines.append('They are within the threshold: clip="norm" leaves them as they are.')
    return lines


def hidden_states(r: HiddenStates) -> list[str]:
    T, h = r.states.shape
    states = r.states.astype(np.float64)
    lines = [_first("Hidden states", r, f"{_units(h)} at {_steps(T)}")]
    if any(r.labels):
        if all(len(label) <= 1 for label in r.labels):
            text = "".join(r.labels)
            lines.append(f"Read: {text[:QUOTED]!r}{' and so on' * (len(text) > QUOTED)}.")
        else:
            shown = ", ".join(r.labels[:NAMED])
            lines.append(f"Read: the classes {shown}{' and so on' * (T > NAMED)}.")
    if not np.isfinite(states).all():
        lines.append(f"{percent(float((~np.isfinite(states)).mean()))} of the states are NaN or infinity.")
        return lines
    lowest, highest = float(states.min()), float(states.max())
    lines.append(
        f"The states lie between {number(lowest)} and {number(highest)}"
        # A ReLU has no upper end to be near to.
        + (
            "."
            if highest > 1
            else f"; {percent(float((np.abs(states) > 0.99).mean()))} are beyond 0.99 or -0.99."
        )
    )
    with np.errstate(all="ignore"):
        spread = np.nan_to_num(states.std(axis=0))
    most, least = int(np.argmax(spread)), int(np.argmin(spread))
    lines.append(
        f"Unit {most} (counted from 0) varies most over time, by a standard deviation of "
        f"{number(float(spread[most]))}, unit {least} least, by {number(float(spread[least]))}."
    )
    return lines


def parameter_check(r: ParameterCheck) -> list[str]:
    place = "[" + ", ".join(map(str, r.index)) + "]"
    return [
        f"{r.name}: {r.checked:,} of {r.entries:,} entries were compared with central differences.",
        f"The worst is {r.name}{place}: gradient {r.analytic:.6g}, difference {r.numeric:.6g}, relative error "
        f"{r.error:.1e}.",
    ]


def gradcheck(r: GradCheck) -> list[str]:
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
