"""The command `fastrnn diagnose`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from fastrnn.cli_shared import load_model
from fastrnn.errors import TextError

__all__ = ["diagnose"]

#: Bytes of the text that are read at most: passages are taken from all over them.
TEXT_LIMIT = 1 << 22


@click.command()
@click.argument("model", type=click.Path(dir_okay=False))
@click.argument("text", type=click.Path(allow_dash=True, dir_okay=False))
@click.option(
    "--plot",
    type=click.Path(dir_okay=False),
    help="Draw everything into this file too: .png, .svg or .pdf; matplotlib is needed.",
)
def diagnose(model: str, text: str, plot: str | None) -> None:
    """See how far gradients reach in a trained model, and what to do about it.

    MODEL is a file that `fastrnn train` or CharRNN.save wrote; TEXT is a UTF-8 file to look at it
    with, - for standard input. The report says how much of a gradient is left some characters back
    (vanishing and exploding gradients), how long the state remembers, how much of the net is
    saturated, and what clipping does: numbers, what they mean, and what people do about it.

    \b
    Examples:
      fastrnn diagnose model.safetensors book.txt
      fastrnn diagnose model.safetensors book.txt --plot gradients.png
    """
    from fastrnn.diagnose_report import diagnose as measure
    from fastrnn.texts import read_text

    if plot is not None:
        _check_picture(plot)  # before the work, not after it
    content, whole = read_text(text, TEXT_LIMIT)
    fitted = load_model(model, None)
    if not whole:
        click.echo(f"The text is long: only its first {TEXT_LIMIT:,} bytes are looked at.", err=True)
    try:
        result = measure(fitted, content, verbose=True)
    except ValueError as error:
        if isinstance(error, TextError):
            raise
        # About the model, whose weights are finite but too large.
        raise click.ClickException(f"{model!r}: {error}") from None
    click.echo(str(result))
    if plot is not None:
        replace(result, source="" if text == "-" else Path(text).name).plot().savefig(plot)
        click.echo(f"\nThe picture is in {plot}.")


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
    if not Path(plot).absolute().parent.is_dir():
        raise click.BadParameter(f"{plot!r} is in a folder that does not exist.", param_hint="'--plot'")
