"""The command `fastrnn eval`."""

from __future__ import annotations

import math

import click

from fastrnn.cli.help import Command
from fastrnn.cli.shared import (
    backend_option,
    check_readable,
    echo_json,
    json_option,
    load_model,
    model_argument,
    newline_option,
    open_texts,
    texts_argument,
    unknown_option,
    weights_option,
)
from fastrnn.terminal import decimals

__all__ = ["evaluate"]


@click.command("eval", cls=Command)
@model_argument
@texts_argument
@json_option
@weights_option
@unknown_option
@newline_option
@backend_option
def evaluate(
    model: str,
    texts: tuple[str, ...],
    as_json: bool,
    weights: str | None,
    unknown: str | None,
    newline: str | None,
    backend: str | None,
) -> None:
    """Measure how well a model predicts a text.

    \b
    Examples:
      fastrnn eval book.safetensors another.txt
      fastrnn eval book.safetensors another.txt --unknown skip --json
      cat *.txt | fastrnn eval book.safetensors -

    MODEL is a file that `fastrnn train` or CharRNN.save wrote; TEXT is a UTF-8 file, - for standard
    input; several are read as one text. The numbers say the same in three ways: the mean cross-entropy
    in nats per character, that in bits, and the perplexity: the number of equally probable characters
    among which a model this uncertain would choose. Lower is better. What is beyond every number is inf,
    and null in JSON.
    """
    from fastrnn.text.scoring import perplexity

    check_readable(*texts)
    fitted = load_model(model, weights, unknown=unknown, newline=newline, backend=backend)
    nats = -fitted.score(open_texts(texts) if len(texts) > 1 else open_texts(texts)[0])
    if math.isnan(nats):
        raise click.ClickException(f"{model!r} predicts no numbers: its weights are too large")
    measured = {
        "nats_per_char": nats,
        "bits_per_char": nats / math.log(2),
        "perplexity": perplexity(nats),
    }
    guess = math.log(len(fitted.vocabulary_))
    if as_json:
        echo_json({**measured, "guess_nats_per_char": guess, "weights": fitted.weights_})
        return
    click.echo(
        f"nats per character  {decimals(nats, 4)}  (a guess among {len(fitted.vocabulary_)}: {guess:.4f})"
    )
    click.echo(f"bits per character  {decimals(measured['bits_per_char'], 4)}")
    click.echo(f"perplexity          {decimals(measured['perplexity'], 4)}")
