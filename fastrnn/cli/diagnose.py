"""The command `fastrnn diagnose`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrnn.cli.help import Command, option
from fastrnn.cli.shared import (
    FileName,
    check_readable,
    columns,
    echo_json,
    json_option,
    load_model,
    model_argument,
    read_text,
    say,
)
from fastrnn.errors import TextError

if TYPE_CHECKING:
    from fastrnn.diagnostics.report import Diagnosis

__all__ = ["diagnose"]

#: Bytes of the text that are read at most: passages are taken from all over them.
TEXT_LIMIT = 1 << 22


@click.command(cls=Command)
@model_argument
@click.argument("text", type=FileName(allow_dash=True))
@option(
    "--plot", metavar="PICTURE", type=FileName(dir_okay=False),
    help="Draw everything into this file too: .png, .svg or .pdf; matplotlib is needed.",
)  # fmt: skip
@json_option
def diagnose(model: str, text: str, plot: str | None, as_json: bool) -> None:
    """See how far gradients reach, and what to do.

    \b
    Examples:
      fastrnn diagnose book.safetensors book.txt
      fastrnn diagnose book.safetensors book.txt --plot gradients.png
      fastrnn diagnose book.safetensors book.txt --json

    MODEL is a file that `fastrnn train` or CharRNN.save wrote; TEXT is a UTF-8 file to look at it
    with, - for standard input. The report says how much of a gradient is left some characters back
    (vanishing and exploding gradients), how long the state remembers, how much of the net is
    saturated, and what clipping does: numbers, what they mean, and what people do about it.
    """
    from fastrnn.diagnostics.report import diagnose as measure

    if plot is not None:
        _check_picture(plot)  # before the work, not after it
    check_readable(text)
    fitted = load_model(model, None)
    content, whole = read_text(text, TEXT_LIMIT)
    if not whole:
        say(f"The text is long: only its first {TEXT_LIMIT:,} bytes are looked at.")
    try:
        result = measure(fitted, content, verbose=True)
    except ValueError as error:
        if isinstance(error, TextError):
            raise
        # About the model, whose weights are finite but too large.
        raise click.ClickException(f"{model!r}: {error}") from None
    if as_json:
        echo_json(_numbers(result))
    else:
        click.echo(result.report(columns() - 2))
    if plot is not None:
        replace(result, source="" if text == "-" else Path(text).name).plot().savefig(plot)
        click.echo(f"\nThe picture is in {plot}.", err=as_json)


def _numbers(d: Diagnosis) -> dict[str, Any]:
    """What was measured, under the names that `fastrnn.diagnostics` has for it."""
    return {
        "verdict": d.verdict,
        "nats_per_char": d.loss,
        "reach": d.flow.reach,
        "gradient_share": d.flow.share[::-1],  # by how many characters back
        "memory_factor": d.memory.factor,
        "memory_half_life": d.memory.half_life,
        "saturated": d.saturation.saturated.mean(),
        **_of_cell(d),
        "gradient_norm": d.clipping.norm_before,
        "clip_threshold": d.clipping.threshold,
        "clip_changes": d.clipping.changed,
        "clip": d.clip,
        "seq_len": d.seq_len,
        "hidden_size": d.hidden_size,
        "num_layers": d.num_layers,
        "passages": d.passages,
        "steps": d.steps,
        "skipped": d.skipped,
        "advice": d.advice,
    }


def _of_cell(d: Diagnosis) -> dict[str, Any]:
    """What there is for the cell at hand only."""
    from fastrnn.diagnostics import GateSaturation

    if isinstance(d.saturation, GateSaturation) or d.spectrum is None:
        assert isinstance(d.saturation, GateSaturation)
        gates = {name: gate.mean() for name, gate in d.saturation.mean.items()}
        return {"cell": d.nonlinearity, "mean_gates": gates}
    return {
        "memory_bound": d.memory.bound,
        "spectral_radius": d.spectrum.spectral_radius,
        "largest_singular_value": d.spectrum.singular_values[0],
        "dead": d.saturation.dead.mean(),
        "stuck_units": len(d.saturation.stuck),
        "nonlinearity": d.nonlinearity,
    }


def _check_picture(plot: str) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise click.ClickException(
            f"--plot needs matplotlib ({error}); get it with: pip install 'fastrnn[plot]'"
        ) from None
    known = FigureCanvasAgg.get_supported_filetypes()
    ending = Path(plot).suffix.lstrip(".").lower()
    if ending not in known:
        raise click.BadParameter(
            f"{plot!r} must end in one of {', '.join(f'.{name}' for name in sorted(known))}.",
            param_hint="'--plot'",
        )
    folder = Path(plot).absolute().parent
    if not folder.is_dir():
        raise click.BadParameter(f"{plot!r} is in a folder that does not exist.", param_hint="'--plot'")
    if not os.access(plot if Path(plot).exists() else folder, os.W_OK):
        raise click.BadParameter(f"{plot!r} cannot be written here.", param_hint="'--plot'")
