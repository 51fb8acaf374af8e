"""The command `fastrnn sample`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from fastrnn.cli_shared import (
    OrNone,
    backend_option,
    load_model,
    model_argument,
    newline_option,
    unknown_option,
    weights_option,
)

__all__ = ["sample"]

#: Characters that are read from standard input as a prompt at most.
PROMPT_LIMIT = 1 << 20

#: Seconds for which characters wait at most, where nobody watches them one by one.
FLUSH_EVERY = 0.1


@click.command()
@model_argument
@click.option(
    "--length", "-n", type=OrNone(click.IntRange(0)), default=500,
    help="Characters to write; none goes on until Ctrl-C, or until the reader has had enough.",
)  # fmt: skip
@click.option(
    "--prompt", "-p", default="",
    help="What the model reads first, and goes on from; - for standard input. It is written before the "
    "sample.  [default: a line break]",
)  # fmt: skip
@click.option("--no-echo", is_flag=True, help="Leave the prompt out of what is written.")
@click.option(
    "--temperature", "-t", type=click.FloatRange(0), default=1.0,
    help="Below 1 it plays safe, above 1 it dares more; 0 always takes the most probable character.",
)  # fmt: skip
@click.option(
    "--top-k", type=OrNone(click.IntRange(1)), help="Draw from the most probable K characters only."
)
@click.option(
    "--top-p", type=OrNone(click.FloatRange(0, 1, min_open=True)),
    help="Draw from the most probable characters that make up this probability.",
)  # fmt: skip
@click.option(
    "--num-samples", type=click.IntRange(1), default=1,
    help="Samples from the same prompt, with a line of dashes between them.",
)  # fmt: skip
@click.option(
    "--random-state", type=OrNone(click.IntRange(0)),
    help="Seed: the same one gives the same sample.  [default: another every time]",
)  # fmt: skip
@click.option(
    "--stop", metavar="TEXT", multiple=True,
    help="End a sample before TEXT, if it comes to write it; given several times, before the first of them. "
    "In bash and zsh $'\\n' is a line break.",
)  # fmt: skip
@weights_option
@unknown_option
@newline_option
@backend_option
@click.pass_context
def sample(
    context: click.Context,
    model: str,
    length: int | None,
    prompt: str,
    no_echo: bool,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    num_samples: int,
    random_state: int | None,
    stop: tuple[str, ...],
    weights: str | None,
    unknown: str | None,
    newline: str | None,
    backend: str | None,
) -> None:
    """Let a model write, character by character.

    MODEL is a file that `fastrnn train` or CharRNN.save wrote. On a terminal, control characters are
    shown as escapes and a line break ends the sample; a file or a pipe gets exactly the characters, in
    UTF-8.

    \b
    Examples:
      fastrnn sample book.safetensors
      fastrnn sample book.safetensors --prompt "It was" --temperature 0.7 -n 2000
      fastrnn sample book.safetensors --prompt "Chapter 1" -n none --stop "Chapter 2"
      fastrnn sample book.safetensors --num-samples 5 -n 80 --random-state 1
      head -c 1000 book.txt | fastrnn sample book.safetensors --prompt - -n none | less
    """
    if length is None and num_samples > 1:
        raise click.UsageError("--length none never comes to a second sample: --num-samples must be 1.")
    fitted = load_model(model, weights, unknown=unknown, newline=newline, backend=backend)
    if prompt == "-":
        prompt = _read_prompt()
    options: dict[str, Any] = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "random_state": random_state,
        "stop": stop,
    }  # fmt: skip
    echo = "" if no_echo else prompt
    try:
        characters = fitted.stream(length, prompt, **options)  # checks the options
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise click.UsageError(str(error)) from None
    try:
        if num_samples == 1:
            _write(echo, characters)
            return
        samples = fitted.generate(length or 0, prompt, num_samples=num_samples, **options)
        for i, text in enumerate(samples):
            _write(f"\n{'-' * 72}\n" * (i > 0) + echo, iter(text))
    except ValueError as error:  # about the model, whose weights are finite but too large
        raise click.ClickException(f"{model!r}: {error}") from None
    except KeyboardInterrupt:  # the usual end of an endless sample, and no news
        if sys.stdout.isatty():
            click.echo()
        raise click.exceptions.Exit(130) from None


def _read_prompt() -> str:
    from fastrnn.errors import TextError
    from fastrnn.texts import read_text

    text, whole = read_text("-", PROMPT_LIMIT)
    if not whole:
        raise TextError(f"the prompt on standard input is longer than {PROMPT_LIMIT:,} bytes")
    return text


def _write(before: str, characters: Iterator[str]) -> None:
    """Write text and characters to standard output as they come: each at once on a terminal."""
    out: Any = sys.stdout
    if out.isatty():
        last = "\n"
        for last in _first(before, characters):
            out.write(last)
            out.flush()
        if not last.endswith("\n"):
            out.write("\n")
        return
    flushed = 0.0
    for character in _first(before, characters):
        out.write_exactly(character)
        now = time.perf_counter()
        if now - flushed > FLUSH_EVERY:
            out.flush()
            flushed = now
    out.flush()


def _first(before: str, characters: Iterator[str]) -> Iterator[str]:
    if before:
        yield before
    yield from characters
