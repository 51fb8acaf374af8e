"""The command `fastrnn sample`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from fastrnn.cli.help import Command, option
from fastrnn.cli.shared import (
    OrNone,
    backend_option,
    columns,
    echo_json,
    json_option,
    load_model,
    model_argument,
    newline_option,
    read_text,
    unknown_option,
    weights_option,
)

__all__ = ["sample"]

#: Characters that are read from standard input as a prompt at most.
PROMPT_LIMIT = 1 << 20

#: Seconds for which characters wait at most, where nobody watches them one by one.
FLUSH_EVERY = 0.1


@click.command(cls=Command)
@model_argument
@option(
    "--length", "-n", group="What to write", type=OrNone(click.IntRange(0)), default=500,
    help="Characters to write; none goes on until Ctrl-C, or until the reader has had enough.",
)  # fmt: skip
@option(
    "--prompt", "-p", group="What to write", default="", metavar="TEXT", show_default="a line break",
    help="What the model reads first, and goes on from; - for standard input. It is written before the "
    "sample.",
)  # fmt: skip
@option("--no-echo", group="What to write", is_flag=True, help="Leave the prompt out of what is written.")
@option(
    "--stop", group="What to write", metavar="TEXT", multiple=True,
    help="End a sample before TEXT, if it comes to write it; given several times, before the first of them.",
)  # fmt: skip
@option(
    "--escapes", "-e", group="What to write", is_flag=True,
    help="In --prompt and --stop, read \\n as a line break, and \\t, \\r, \\\\, \\xFF, \\uFFFF and \\UFFFFFFFF as "
    "Python does. Without it, bash and zsh have $'\\n'.",
)  # fmt: skip
@option(
    "--num-samples", group="What to write", type=click.IntRange(1), default=1,
    help="Samples from the same prompt, with a line of dashes between them.",
)  # fmt: skip
@json_option
@option(
    "--temperature", "-t", group="How to draw", type=click.FloatRange(0), default=1.0,
    help="Below 1 it plays safe, above 1 it dares more; 0 always takes the most probable character.",
)  # fmt: skip
@option(
    "--top-k", group="How to draw", type=OrNone(click.IntRange(1)), show_default="none",
    help="Draw from the most probable N characters only.",
)  # fmt: skip
@option(
    "--top-p", group="How to draw", type=OrNone(click.FloatRange(0, 1, min_open=True)), show_default="none",
    help="Draw from the most probable characters that make up this probability.",
)  # fmt: skip
@option(
    "--random-state", group="How to draw", type=OrNone(click.IntRange(0)), show_default="another every time",
    help="Seed: the same one gives the same sample.",
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
    escapes: bool,
    as_json: bool,
    weights: str | None,
    unknown: str | None,
    newline: str | None,
    backend: str | None,
) -> None:
    """Let a model write, character by character.

    \b
    Examples:
      fastrnn sample book.safetensors
      fastrnn sample book.safetensors --prompt "It was" -t 0.7 -n 2000
      fastrnn sample book.safetensors -e --prompt "Chapter 1\\n" --stop "\\n\\n"
      fastrnn sample book.safetensors --num-samples 5 --random-state 1
      head -c 1000 book.txt | fastrnn sample book.safetensors -p - -n none

    MODEL is a file that `fastrnn train` or CharRNN.save wrote. On a terminal, control characters are
    shown as escapes and a line break ends the sample; a file or a pipe gets exactly the characters, in
    UTF-8. JSON has the prompt, and the samples without it.
    """
    if length is None and num_samples > 1:
        raise click.UsageError("--length none never comes to a second sample: --num-samples must be 1.")
    if length is None and as_json:
        raise click.UsageError("--length none never comes to the end of --json: give it a number.")
    from_input = prompt == "-"
    if escapes:
        prompt, stop = _unescape(prompt, "--prompt"), tuple(_unescape(text, "--stop") for text in stop)
    fitted = load_model(model, weights, unknown=unknown, newline=newline, backend=backend)
    if from_input:
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
        if num_samples == 1 and not as_json:
            _write(echo, characters)
            return
        samples = fitted.generate(length or 0, prompt, num_samples=num_samples, **options)
        if as_json:
            echo_json({"prompt": prompt, "samples": [samples] if isinstance(samples, str) else samples})
            return
        for i, text in enumerate(samples):
            _write(f"\n{'-' * min(columns(), 72)}\n" * (i > 0) + echo, iter(text))
    except ValueError as error:  # about the model, whose weights are finite but too large
        raise click.ClickException(f"{model!r}: {error}") from None
    except KeyboardInterrupt:  # the usual end of an endless sample, and no news
        if sys.stdout.isatty():
            click.echo()
        raise click.exceptions.Exit(130) from None


#: A backslash with what belongs to it: the digits of a number, or one character, or nothing at the end.
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.?))", re.DOTALL)

#: Escapes of one letter.
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def _unescape(text: str, name: str) -> str:
    """A text with its escapes read; what is none is an error."""

    def read(match: re.Match[str]) -> str:
        *numbers, letter = match.groups()
        if letter in _LETTERS:
            return _LETTERS[letter]
        number = next(filter(None, numbers), None)
        if number is None or int(number, 16) > sys.maxunicode:
            raise click.BadParameter(
                f"'{match[0]}' in '{text}' is none of the escapes \\n, \\t, \\r, \\\\, \\xFF, \\uFFFF, \\UFFFFFFFF "
                f"that --escapes reads.",
                param_hint=f"'{name}'",
            )
        return chr(int(number, 16))

    return _ESCAPE.sub(read, text)


def _read_prompt() -> str:
    from fastrnn.errors import TextError

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
