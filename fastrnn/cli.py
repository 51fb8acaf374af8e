"""The command line `fastrnn`.

Results go to standard output; progress and messages to standard error.  Exit status: 0 done, 1
failed, 2 wrong usage, 130 and 143 ended by Ctrl-C and by SIGTERM.  Commands are imported when they are
asked for, and import what they need when they run.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from typing import Any

import click

import fastrnn
from fastrnn.errors import BackendUnavailable, CheckpointError, TextError

__all__ = ["main"]

#: Name of each command -> its module; the name there is the same.
COMMANDS = {
    "train": "fastrnn.cli_train",
    "sample": "fastrnn.cli_sample",
    "eval": "fastrnn.cli_eval",
    "info": "fastrnn.cli_info",
    "diagnose": "fastrnn.cli_diagnose",
    "demo": "fastrnn.cli_demo",
    "bench": "fastrnn.cli_bench",
}


class _Commands(click.Group):
    """Commands that are imported when they are needed.  What a user can put right is told in one line,
    without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name])
        return next(c for c in vars(module).values() if isinstance(c, click.Command) and c.name == cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, where a failure is told in one line, and not when Python ends
            return result
        except TextError as error:
            raise click.ClickException(error.with_options()) from None
        except (CheckpointError, BackendUnavailable) as error:
            raise click.ClickException(str(error)) from None
        except MemoryError as error:
            raise click.ClickException(f"not enough memory: {error}") from None
        except KeyboardInterrupt:
            click.echo("\nAborted!", err=True)
            raise click.exceptions.Exit(130) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader has had enough, as in `| head`: click ends quietly
            # What is still in the buffer would fail again at exit, with another status.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            reason = error.strerror or str(error)
            if not reason.startswith("cannot "):  # one that tells which file is the package's own
                reason = f"cannot write: {reason}"
            raise click.ClickException(reason) from None


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog="""\b
Start with:
  fastrnn demo                                        learn this Python's own source code for 20 seconds
  fastrnn train book.txt --out book.safetensors       learn a text of yours
  fastrnn sample book.safetensors --prompt "It was"   let it write
  fastrnn bench                                       how fast is it here?

\b
Completion of commands and options with the Tab key, for this shell:
  bash    eval "$(_FASTRNN_COMPLETE=bash_source fastrnn)"
  zsh     eval "$(_FASTRNN_COMPLETE=zsh_source fastrnn)"
  fish    _FASTRNN_COMPLETE=fish_source fastrnn | source
Put the line into ~/.bashrc, ~/.zshrc or ~/.config/fish/config.fish to keep it.

Results go to standard output, progress to standard error. Exit status: 0 done, 1 failed, 2 wrong
usage, 130 ended by Ctrl-C, 143 ended by SIGTERM.""",
)
@click.version_option(fastrnn.__version__, prog_name="fastrnn")
def main() -> None:
    """Vanilla recurrent networks, fast on a CPU."""
    for stream in (sys.stdout, sys.stderr):
        # A sample may hold characters that the terminal's encoding lacks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
