"""What `fastrnn diagnose` prints: the numbers of `fastrnn.diagnostics` for a trained model, what they
mean, and what people do about it."""

from __future__ import annotations

import math
import textwrap
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.cells import CELLS
from fastrnn.diagnostics.canvas import TITLE, new_figure
from fastrnn.diagnostics.clipping import ClipReport, clip_report
from fastrnn.diagnostics.gates import GateSaturation
from fastrnn.diagnostics.glyphs import as_title
from fastrnn.diagnostics.gradients import GradientFlow, gradient_flow, plot_gradient_flow
from fastrnn.diagnostics.jacobians import JacobianNorms, jacobian_norms, plot_jacobian_norms
from fastrnn.diagnostics.spectrum import Spectrum, plot_singular_values
from fastrnn.diagnostics.spectrum import spectrum as measure_spectrum
from fastrnn.diagnostics.states import HiddenStates, Saturation, hidden_states, plot_hidden_states
from fastrnn.diagnostics.states import saturation as measure_saturation
from fastrnn.errors import TextError
from fastrnn.sharing import reading_model
from fastrnn.shown import Shown
from fastrnn.terminal import decimals
from fastrnn.text.display import Display
from fastrnn.text.vocabulary import with_newlines
from fastrnn.threads import one_blas_thread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastrnn.char_rnn import CharRNN

__all__ = ["Diagnosis", "diagnose"]

#: Passages of the text that are looked at, and their length in chunks of the training.
PASSAGES, CHUNKS = 16, 2

#: What is left of a gradient below this is called vanished, beyond that exploded.
VANISHED, EXPLODED = 0.01, 10.0

#: Columns of the report, and those that it takes at least.
WIDTH, NARROWEST = 78, 40

#: Shorter chunks are advised if they have this share of their length or less, and how short at most.
WORTH_IT, SHORTEST = 0.75, 8

#: Shares of the work that are done before and after the memory is measured, roughly.
MEMORY = 0.03, 0.93


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Shown):
    """Everything that was measured in a model on a text; ``print`` it for the report.

    Attributes
    ----------
    flow : GradientFlow
    memory : JacobianNorms
    spectrum : Spectrum or None
        None of a net with gates, which has no one Whh.
    saturation : Saturation or GateSaturation
    clipping : ClipReport
    states : HiddenStates
        Of the first passage.
    loss : float
        Nats per character on the passages.
    seq_len : int
        How far BPTT looked back in the training.
    clip : str or None
        How the training clipped.
    nonlinearity : {"tanh", "relu", "gru", "lstm"}
        Of a net with gates its cell.
    hidden_size, num_layers, passages, steps, skipped : int
        `skipped` characters of the text are not in the model's vocabulary, and were left out.
    source : str
        Name of the text, for the title of the pictures; may be empty.
    """

    flow: GradientFlow
    memory: JacobianNorms
    spectrum: Spectrum | None
    saturation: Saturation | GateSaturation
    clipping: ClipReport
    states: HiddenStates
    loss: float
    seq_len: int
    clip: str | None
    nonlinearity: str
    hidden_size: int
    num_layers: int
    passages: int
    steps: int
    skipped: int
    _: KW_ONLY
    source: str = ""

    @property
    def verdict(self) -> str:
        """``"vanishes"``, ``"holds"`` or ``"explodes"``: the gradient over one chunk of the training."""
        left = self.share_left(min(self.seq_len, self.steps - 1))
        if not left <= EXPLODED or not self.flow.share.max() <= 100 * EXPLODED:
            return "explodes"
        return "vanishes" if left < VANISHED else "holds"

    def share_left(self, lag: int) -> float:
        """What is left of the last step's gradient some steps back.

        Parameters
        ----------
        lag : int
            Steps back, from 0 to ``steps - 1``.

        Returns
        -------
        float
            Share of the norm at the last step.

        Raises
        ------
        IndexError
            If `lag` goes back beyond the first step.

        Examples
        --------
        >>> from fastrnn import CharRNN
        >>> text = "the cat sat on the mat. " * 30
        >>> model = CharRNN(16, seq_len=8, batch_size=4, epochs=1, random_state=0, verbose=0).fit(text)
        >>> diagnose(model, text).share_left(0)
        1.0
        """
        return float(self.flow.share[-1 - lag])

    def plot(self) -> Figure:
        """`fastrnn.figures.plot_diagnosis` of this result."""
        return plot_diagnosis(self)

    @property
    def advice(self) -> list[str]:
        """What people do about it, a sentence or two each."""
        return _advice(self)

    def report(self, width: int = WIDTH) -> str:
        """Numbers, what they mean and what people do about it.

        Parameters
        ----------
        width : int, default 78
            Characters of a line at most; beyond 78 it counts as 78, below 40 as 40.

        Returns
        -------
        str

        Raises
        ------
        TypeError
            If `width` is no number.

        Examples
        --------
        >>> from fastrnn import CharRNN
        >>> text = "the cat sat on the mat. " * 30
        >>> model = CharRNN(16, seq_len=8, batch_size=4, epochs=1, random_state=0, verbose=0).fit(text)
        >>> max(map(len, diagnose(model, text).report(60).splitlines())) <= 60
        True
        """
        return "\n".join(_report(self, max(min(width, WIDTH), NARROWEST)))

    def _sentences(self) -> list[str]:
        return self.report().splitlines()

    def _size(self) -> str:
        return f"{self.passages} passages of {self.steps} characters, the gradient {self.verdict}"


@reading_model
def diagnose(model: CharRNN, text: str, *, verbose: bool = False) -> Diagnosis:
    """Measure a fitted model on passages of a text.

    BLAS is held to one thread meanwhile: products as small as these take longer on several.

    Parameters
    ----------
    model : CharRNN
        Fitted.
    text : str
        At least three characters that the model knows; others are left out.
    verbose : bool, default False
        Show on standard error which measure is at work.

    Returns
    -------
    Diagnosis

    Raises
    ------
    TextError
        If the text is too short.
    ValueError
        If what the model predicts is no number.

    Examples
    --------
    >>> from fastrnn import CharRNN
    >>> text = "the cat sat on the mat. " * 30
    >>> model = CharRNN(16, seq_len=8, batch_size=4, epochs=1, random_state=0, verbose=0).fit(text)
    >>> print(diagnose(model, text))                           # doctest: +ELLIPSIS
    16 hidden units, 1 layer, tanh; trained to look 8 characters back.
    ...
    """
    model._fitted_run()
    text = with_newlines(text, model.newline)
    indices = model.vocabulary_.encode(text, "skip")
    if len(indices) < 3:
        raise TextError(
            f"a text with at least 3 characters that the model knows is needed, got {len(indices)} "
            f"of {len(text)}"
        )
    steps = max(2, min(CHUNKS * model.seq_len, (len(indices) - 1)))
    count = max(1, min(PASSAGES, (len(indices) - 1) // steps))
    first = np.linspace(0, len(indices) - 1 - steps, count).astype(int)
    where = first[None] + np.arange(steps)[:, None]
    x, y = indices[where], indices[where + 1]
    lm = model.model_
    # A threshold that clips nothing says nothing about the gradients.
    threshold = model.clip_threshold if math.isfinite(model.clip_threshold) else 5.0
    with one_blas_thread(), _Shares(verbose) as share:
        share(0.0, "gradient flow")
        flow = gradient_flow(lm, x, y)
        if not math.isfinite(flow.loss):
            raise ValueError("the model predicts no numbers: its weights are not finite, or too large")
        share(MEMORY[0], "memory")  # which takes nearly all of the time
        memory = jacobian_norms(lm, x, on_progress=share.of_memory)
        share(MEMORY[1], "recurrent weights")
        gated = lm.cell != "rnn"
        spectrum = None if gated else measure_spectrum(lm)
        share(0.97, "saturation")
        saturation = measure_saturation(lm, x)
        share(0.98, "clipping")
        clipping = clip_report(lm, x, y, threshold=threshold)
        share(0.99, "hidden states")
        states = hidden_states(lm, x)
        share(1.0, "done")
    states.labels[:] = [model.vocabulary_[i] for i in x[:, 0]]
    return Diagnosis(
        flow, memory, spectrum, saturation, clipping, states, flow.loss, model.seq_len, model.clip,
        lm.cell if gated else lm.nonlinearity, lm.hidden_size, lm.num_layers, count, steps, len(text) - len(indices),
    )  # fmt: skip


class _Shares:
    """Shows what is at work, and the share of the work that is done before it."""

    def __init__(self, shown: bool) -> None:
        self._display = Display() if shown else None

    def __call__(self, done: float, name: str) -> None:
        if self._display is not None:
            self._display.begin(done, name)

    def of_memory(self, share: float) -> None:
        if self._display is not None and self._display.is_due():
            self._display.show(MEMORY[0] + share * (MEMORY[1] - MEMORY[0]), "memory")

    def __enter__(self) -> _Shares:
        return self

    def __exit__(self, *error: object) -> None:
        if self._display is not None:
            self._display.close()


# -- the text ----------------------------------------------------------------------------------------


def _report(d: Diagnosis, width: int) -> list[str]:
    layers = f"{d.num_layers} layer" + ("s, of which the top one is looked at" if d.num_layers > 1 else "")
    head = [
        f"{d.hidden_size} hidden units, {layers}, {_of_cell(d)}; trained to look {d.seq_len} characters "
        "back.",
        f"Looked at {d.passages} passage{'s' * (d.passages > 1)} of {d.steps} characters: "
        f"{decimals(d.loss, 3)} nats per character"
        + (f" ({d.skipped} characters that the model does not know were left out)." if d.skipped else "."),
    ]
    lines = [line for text in head for line in textwrap.wrap(text, width)] + [""]

    def add(text: str, first: str, more: str) -> None:
        lines.extend(textwrap.wrap(text, width, initial_indent=first, subsequent_indent=more))

    sections = _gradient(d), _memory(d), _weights(d), _flatness(d), _clipping(d)
    for number, (title, numbers, meaning) in enumerate(filter(None, sections), start=1):
        add(title, f"{number}. ", "   ")
        for line in numbers:
            add(line, " " * 5, " " * 9)
        add(meaning, "   ", "   ")
        lines.append("")
    lines.append("What people do about it")
    for advice in d.advice:
        add(advice, "   - ", "     ")
    return lines


_Section = tuple[str, list[str], str]


def _gradient(d: Diagnosis) -> _Section:
    lags = sorted({lag for lag in (1, 2, 5, 10, 20, 50, 100, d.seq_len) if lag < d.steps})
    numbers = [f"{lag:>4} characters back  {_percent(d.share_left(lag)):>10}" for lag in lags]
    if numbers:
        numbers[0] = numbers[0].replace("characters", "character ", 1) if lags[0] == 1 else numbers[0]
    chunk = min(d.seq_len, d.steps - 1)
    if d.verdict == "vanishes":
        meaning = (
            f"The gradient VANISHES: {d.flow.reach} characters back less than 1% of it is left. What stood "
            "further back can hardly change what the net learns to say now."
        )
    elif d.verdict == "explodes":
        meaning = (
            f"The gradient EXPLODES: it grows on its way back, to {d.flow.share.max():.3g} times what it "
            "was. Early characters then decide the whole update, and one step of training can undo many."
        )
    else:
        meaning = (
            f"The gradient HOLDS: over the {chunk} characters of a training chunk it neither dies out nor "
            "grows out of bounds."
        )
    return "The gradient of the last character's loss: how much of it is left", numbers, meaning


def _memory(d: Diagnosis) -> _Section:
    memory = d.memory
    numbers = [
        f"each further step multiplies it by  {memory.factor:.3f}",
        f"so it falls to a half in            {_steps(memory.half_life)}",
    ]
    if not math.isnan(memory.bound):
        numbers.append(f"bound of Bengio et al. for a step   {memory.bound:.3f}")
    if math.isfinite(memory.half_life):
        meaning = (
            f"The state remembers about {_steps(memory.half_life)}: after that a change of the state has "
            f"half its effect. {_bound_meaning(memory.bound)}"
        )
    else:
        meaning = (
            "A change of the state does not die out but grows with time: the net is sensitive to small "
            f"differences long ago. {_bound_meaning(memory.bound)}"
        )
    return "The memory: how much a state depends on an earlier one (norm of dh_t/dh_k)", numbers, meaning


def _bound_meaning(bound: float) -> str:
    if math.isnan(bound):
        return "(The bound of Bengio et al. is of nets without gates.)"
    what = "The bound, the largest singular value of Whh times the largest slope that was met, is what a step could do at most; "
    if bound < 1:
        return what + "below 1, as here, gradients must vanish, whatever the text."
    return (
        what
        + "only below 1 would it force gradients to vanish; beyond 1, as here, they may grow but need not."
    )


def _weights(d: Diagnosis) -> _Section | None:
    if d.spectrum is None:
        return None
    radius, largest = d.spectrum.spectral_radius, float(d.spectrum.singular_values[0])
    numbers = [
        f"spectral radius (largest |eigenvalue|)  {radius:.3f}",
        f"largest singular value                  {largest:.3f}",
    ]
    meaning = (
        "The spectral radius is what Whh alone does to a state in the long run, the largest singular value "
        "what it can do in one step. "
    )
    if radius < 0.9:
        meaning += "Well below 1: without help from the inputs the memory fades quickly."
    elif radius <= 1.1:
        meaning += "Near 1: Whh alone would keep its memory."
    else:
        meaning += "Above 1: Whh alone would blow its memory up" + (
            f"; {d.nonlinearity}, which flattens large values, is what holds it back."
            if CELLS[d.nonlinearity].saturates
            else f", and {d.nonlinearity} does not hold it back."
        )
    return "The recurrent weights Whh", numbers, meaning


def _flatness(d: Diagnosis) -> _Section:
    s = d.saturation
    if isinstance(s, GateSaturation):
        return _gates(s)
    shares = float(s.saturated.mean()), float(s.dead.mean())
    numbers = [
        f"saturated (|h| > {s.threshold:g})            {_percent(shares[0]):>8} of the units, on average",
        f"pass no gradient at a step       {_percent(shares[1]):>8}",
        f"stuck at every step of the text  {len(s.stuck):>8} of {d.hidden_size} units",
    ]
    if not CELLS[d.nonlinearity].saturates:
        numbers = numbers[1:]
        meaning = (
            "A unit whose state is 0 passes no gradient. Half of them at a time is usual; one that is 0 at "
            "every step has died and learns nothing more."
        )
    elif shares[0] > 0.3:
        meaning = (
            "Many units are saturated: there tanh is flat, its slope is near zero, and so is the gradient "
            "that goes through it. A saturated unit works like a switch: good to remember a yes or no, bad "
            "at learning."
        )
    else:
        meaning = "Most units work where tanh has a slope, so that gradients get through."
    return "Saturation: units that are too far out to learn", numbers, meaning


def _gates(s: GateSaturation) -> _Section:
    numbers = [
        f"{name:<10} at its lower end {_percent(float(s.low[name].mean())):>8}, upper {_percent(float(s.high[name].mean())):>8}, "
        f"mean {float(s.mean[name].mean()):6.3f}"
        for name in s.low
    ]
    keeps = "forget" if "forget" in s.low else "update"
    meaning = (
        f"A gate at one of its ends is a switch: it keeps or cuts, and learns little there. The {keeps} gate says how much "
        f"of the state stays from one step to the next; at a mean of {float(s.mean[keeps].mean()):.2f} an average unit "
        "keeps that share."
    )
    return "Saturation: gates that are shut or wide open", numbers, meaning


def _clipping(d: Diagnosis) -> _Section:
    c = d.clipping
    numbers = [
        f"gradient norm  {c.norm_before:.3g}",
        f"threshold      {c.threshold:g}",
    ]
    numbers += [
        f'clip="{mode}"'.ljust(15)
        + f"changes {_percent(c.changed[mode])} of entries, norm {c.norm_after[mode]:.3g}"
        for mode in c.norm_after
    ]
    used = f'The training used clip="{d.clip}"' if d.clip else "The training did not clip"
    if c.norm_before > c.threshold:
        meaning = f"{used}. On this text gradients are beyond the threshold, so clipping is at work."
    else:
        meaning = (
            f"{used}. On this text gradients are below the threshold, so nothing would be clipped: it is a "
            "guard for rare cases, which costs nothing."
        )
    return "Clipping of the gradients", numbers, meaning


def _advice(d: Diagnosis) -> list[str]:
    advice = []
    if d.verdict == "vanishes":
        reach = max(d.flow.reach, 1)
        shorter = max(SHORTEST, 2 * reach)
        if shorter <= WORTH_IT * d.seq_len:
            advice.append(
                f"Shorter chunks: gradients reach {reach} characters back and the training looks {d.seq_len} "
                f"back. With seq_len={shorter} half of the characters of a chunk still have all {reach} before "
                "them, and there are more steps in the same time."
            )
        if d.spectrum is None or isinstance(d.saturation, GateSaturation):
            gate = (
                "forget gate, bias_ih_l0[h : 2 * h] += 1"
                if d.nonlinearity == "lstm"
                else "update gate, bias_ih_l0[h : 2 * h] += 1"
            )
            advice.append(
                f"Gates that keep from the start: begin with a larger bias of the {gate}, so that more of the state goes on "
                "at each step before the net has learned what to keep."
            )
            return advice
        if d.spectrum.spectral_radius < 0.9:
            advice.append(
                "A larger start for Whh: begin with an orthogonal matrix, or scale it to spectral radius 1, "
                "so that gradients hold at least when training begins."
            )
        else:
            advice.append(
                f"Whh is large enough (spectral radius {d.spectrum.spectral_radius:.2f}); the slope of "
                f"{d.nonlinearity} is what takes the gradient away, {float(d.saturation.mean_slope.mean()):.2f} "
                "on average. A lower learning rate, and a Whh that starts as an orthogonal matrix of "
                "spectral radius 1, keep more units where it is steep."
            )
        advice.append(
            'For memory over hundreds of steps: a gated net, cell="lstm" or "gru". A vanilla net is not '
            "made for that, and no setting changes it."
        )
    elif d.verdict == "explodes":
        if d.clip != "norm":
            advice.append('Clip by the norm: clip="norm", clip_threshold from 1 to 5.')
        else:
            advice.append(
                f"Go on clipping by the norm, with a clip_threshold below {d.clipping.threshold:g}, such "
                f"as {d.clipping.threshold / 5:g}."
            )
        advice.append(
            "A lower learning rate, and shorter chunks: the gradient is then multiplied fewer times."
        )
        if d.spectrum is not None:
            advice.append("A smaller start for Whh: scale it to spectral radius 1.")
    else:
        advice.append(
            "About the gradient, nothing needs to be done: it reaches as far back as the training looks."
        )
        at_work = d.clipping.norm_before > d.clipping.threshold
        advice.append(
            f"{'Keep clipping' if d.clip == 'norm' else 'Clip'} by the norm: "
            + (
                "it is at work on this text."
                if at_work
                else "a guard that costs nothing while it does nothing."
            )
        )
    if isinstance(d.saturation, GateSaturation):
        return advice
    if CELLS[d.nonlinearity].saturates and float(d.saturation.saturated.mean()) > 0.3:
        advice.append(
            "Against saturation: a lower learning rate, or smaller first weights from input to hidden state."
        )
    if len(d.saturation.stuck) > d.hidden_size // 10:
        advice.append(
            f"{len(d.saturation.stuck)} units never change on this text: a smaller hidden_size may do as well."
        )
    return advice


def _percent(share: float) -> str:
    if not math.isfinite(share):
        return str(share)
    if share >= 10:
        return f"{share:.3g} x"
    return "under 0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def _steps(steps: float) -> str:
    if not math.isfinite(steps):
        return "never: it grows"
    return f"{steps:.1f} steps" if steps < 100 else f"{steps:.0f} steps"


def plot_diagnosis(diagnosis: Diagnosis) -> Figure:
    """Everything that `fastrnn diagnose` measures, on one page.

    Parameters
    ----------
    diagnosis : fastrnn.diagnostics.report.Diagnosis

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    d = diagnosis
    figure = new_figure((10.0, 14.0))
    model = f"CharRNN, {d.hidden_size} {_of_cell(d)} units" + (
        f", top of {d.num_layers} layers" if d.num_layers > 1 else ""
    )
    text = f" of {as_title(d.source)}" if d.source else ""
    read = f"{d.passages} passage{'s' * (d.passages != 1)} of {d.steps} characters{text}"
    figure.suptitle(
        "\n".join(textwrap.wrap(f"{model}, on {read}", 90)), x=0.01, ha="left", fontsize=TITLE + 2
    )
    # Apart, so that the colours beside the map take no room from what is above it.
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.35, 1))
    top, bottom = parts
    # The page says once what they are of.
    places = [
        ["flow", "memory"],
        ["spectrum", "flatness"] if d.spectrum is not None else ["flatness", "flatness"],
    ]
    axes = top.subplot_mosaic(places)
    plot_gradient_flow(replace(d.flow, model="", read=""), ax=axes["flow"])
    plot_jacobian_norms(replace(d.memory, model="", read=""), ax=axes["memory"])
    if d.spectrum is not None:
        plot_singular_values(replace(d.spectrum, model=""), ax=axes["spectrum"])
    replace(d.saturation, model="", read="").plot(axes["flatness"])
    plot_hidden_states(replace(d.states, model="", read="the first passage"), ax=bottom.subplots())
    return figure


def _of_cell(d: Diagnosis) -> str:
    """The nonlinearity, or the cell as people write it."""
    return d.nonlinearity.upper() if d.spectrum is None else d.nonlinearity
