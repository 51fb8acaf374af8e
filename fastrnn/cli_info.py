"""The command `fastrnn info`."""

from __future__ import annotations

from typing import Any

import click

import fastrnn
from fastrnn.cli_help import Command, option
from fastrnn.cli_shared import FileName, columns, describe_model, echo_json, json_option
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
    """Show what runs here and why, or what a model is.

    \b
    Examples:
      fastrnn info
      fastrnn info book.safetensors
      fastrnn info book.safetensors --json

    Without MODEL: versions, backends, instruction set, threads and cache folder.

    MODEL is a file that `fastrnn train` or CharRNN.save wrote: how well it predicts, how long it was
    trained, its hyper-parameters and its characters. Weights, the last or the best, that hold NaN or
    infinity are named as not finite. JSON has null for a number that is not finite, and the history.
    """
    if completion:
        click.echo(COMPLETION)
        return
    if model is None:
        if as_json:
            echo_json(fastrnn.show_config(mode="dict") or {})
        else:
            fastrnn.show_config()
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
    for part in (results, described["params"]):
        for name, value in part.items():
            # Names of hyper-parameters are those of arguments, and stay as they are.
            shown = name if part is described["params"] else name.replace("_", " ")
            click.echo(f"{shown:<{width}}  {_shown(value, exact=part is described['params'])}")
        click.echo()
    _echo_wrapped("vocabulary", repr(described["vocabulary"]), width)


def _echo_wrapped(name: str, text: str, width: int) -> None:
    """A text of one line that may be longer than a line: what is too much stands below its beginning."""
    room = max(columns() - width - 2, 20)
    for start in range(0, len(text), room):
        click.echo(f"{name if start == 0 else '':<{width}}  {text[start : start + room]}")


def _shown(value: Any, *, exact: bool) -> str:
    """A value for people; `exact` for what they set, and not for what was measured."""
    match value:
        case None | []:
            return "none"
        case list():
            return ", ".join(value)
        case int() if not exact:
            return f"{value:,}"
        case float() if not exact:
            return decimals(value, 4)
    return printable(str(value), keep="")
