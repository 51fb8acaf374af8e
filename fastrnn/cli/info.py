"""The command `fastrnn info`."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import click

from fastrnn.cli.help import Command, option
from fastrnn.cli.shared import FileName, columns, describe_model, echo_json, json_option
from fastrnn.terminal import decimals, printable

__all__ = ["info"]

#: How a shell learns to complete commands and options.
COMPLETION = """\
The Tab key completes commands and options after this line,
for as long as the shell runs:

bash    eval "$(_FASTRNN_COMPLETE=bash_source fastrnn)"
zsh     eval "$(_FASTRNN_COMPLETE=zsh_source fastrnn)"
fish    _FASTRNN_COMPLETE=fish_source fastrnn | source

To keep it, put the line into the shell's own file:
~/.bashrc, ~/.zshrc or ~/.config/fish/config.fish"""


@click.command(cls=Command)
@click.argument("model", metavar="[MODEL]", required=False, type=FileName())
@json_option
@option("--completion", is_flag=True, help="Show how the Tab key completes commands and options.")
def info(model: str | None, as_json: bool, completion: bool) -> None:
    """Show what runs here, or what a model is.

    \b
    Examples:
      fastrnn info
      fastrnn info book.safetensors
      fastrnn info book.safetensors --json

    Without MODEL: versions, backends and why one is missing, instruction set, threads and cache folder.

    MODEL is a file that `fastrnn train` or CharRNN.save wrote: how well it predicts, how long it was
    trained, its hyper-parameters and its characters. Weights, the last or the best, that hold NaN or
    infinity are named as not finite. JSON has null for a number that is not finite, and the history.
    """
    if completion:
        click.echo(COMPLETION)
        return
    if model is None:
        from fastrnn.config import show_config

        if as_json:
            echo_json(show_config(mode="dict") or {})
        else:
            _echo_config(show_config)
        return
    from fastrnn.char_rnn import CharRNN

    fitted = CharRNN.load(model, backend=None)
    described = describe_model(fitted)
    if as_json:
        echo_json(described)
        return
    results = {
        name: value for name, value in described.items() if name not in ("params", "vocabulary", "history")
    }
    width = max(map(len, described["params"]))
    for name, value in results.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {_shown(value)}")
    click.echo()
    defaults = CharRNN().get_params()
    usual = []
    for name, value in described["params"].items():
        shown = "none" if value is None else printable(str(value), keep="")
        if value == defaults[name]:
            usual.append(f"{name}={shown}")
        else:
            click.echo(f"{name:<{width}}  {shown}")
    room = max(columns() - width - 2, 20)
    _echo_below("as by default", textwrap.wrap(", ".join(usual), room), width)
    click.echo()
    characters = repr(described["vocabulary"])
    _echo_below("vocabulary", [characters[i : i + room] for i in range(0, len(characters), room)], width)


def _echo_below(name: str, lines: list[str], width: int) -> None:
    """Lines that stand below each other, the first one beside a name."""
    for i, line in enumerate(lines):
        click.echo(f"{'' if i else name:<{width}}  {line}")


def _echo_config(show_config: Callable[[], None]) -> None:
    """What `fastrnn.show_config` prints; on a terminal no line is longer than one."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        show_config()
    for line in shown.getvalue().splitlines():
        beside = re.match(r".*?  +|", line)
        indent = " " * len(beside[0] if beside else "")
        folded = textwrap.wrap(line, columns(), subsequent_indent=indent, break_on_hyphens=False)
        click.echo("\n".join(folded) if sys.stdout.isatty() else line)


def _shown(value: Any) -> str:
    match value:
        case None | []:
            return "none"
        case list():
            return ", ".join(value)
        case int():
            return f"{value:,}"
        case float():
            return decimals(value, 4)
    return printable(str(value), keep="")
