"""The command line `fastrnn`.

Results go to standard output; progress and messages to standard error.  A result that cannot be written
is a failure, a message that cannot be shown is none.  Exit status: 0 done, 1 failed, 2 wrong usage, 129,
130 and 143 ended by SIGHUP (the terminal was closed), Ctrl-C and SIGTERM.  Commands are imported when
they are asked for, and import what they need when they run.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import click

from fastrnn._version import __version__
from fastrnn.cli.help import Command, did_you_mean, write_sections
from fastrnn.errors import BackendUnavailable, CheckpointError, TextError
from fastrnn.terminal import printable, standard_streams

__all__ = ["main"]

#: Name of each command -> its module; the name there is the same.
COMMANDS = {
    "train": "fastrnn.cli.train",
    "sample": "fastrnn.cli.sample",
    "eval": "fastrnn.cli.eval",
    "info": "fastrnn.cli.info",
    "diagnose": "fastrnn.cli.diagnose",
    "demo": "fastrnn.cli.demo",
    "bench": "fastrnn.cli.bench",
}


class _Commands(Command, click.Group):
    """Commands that are imported when they are needed, and run in `standard_streams`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name])
        return next(c for c in vars(module).values() if isinstance(c, click.Command) and c.name == cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"No such command {name!r}.{did_you_mean(name, COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def write_sections(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = {name: self.get_command(ctx, name) for name in COMMANDS}
        rows = [(name, command.get_short_help_str(200)) for name, command in commands.items() if command]
        write_sections(formatter, [("Commands", rows)])
        super().write_sections(ctx, formatter)

    def main(self, *args: Any, **extra: Any) -> Any:
        with standard_streams():
            return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _in_one_line():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _in_one_line():
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, where a failure is told in one line, and not when Python ends
            return result


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """Have what a user can put right, and Ctrl-C, told in one line."""
    try:
        yield
    except click.UsageError:
        raise  # with the usage, so of several lines
    except click.ClickException as error:
        vars(error)["message"] = printable(error.format_message(), keep="")  # final to type checkers
        raise
    except TextError as error:
        raise _failure(error.with_options()) from None
    except (CheckpointError, BackendUnavailable, Warning) as error:
        raise _failure(str(error)) from None  # a warning is an error where PYTHONWARNINGS says so
    except MemoryError as error:
        raise _failure(f"not enough memory: {error}") from None
    except KeyboardInterrupt:
        click.echo("\nStopped by Ctrl-C.", err=True)
        raise click.exceptions.Exit(130) from None
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # the reader has had enough, as in `| head`: click ends quietly
        reason = error.strerror or str(error)
        if not reason.startswith("cannot "):  # one that tells which file is the package's own
            reason = f"cannot write: {reason}"
        raise _failure(reason) from None


def _failure(message: str) -> click.ClickException:
    return click.ClickException(printable(message, keep=""))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog="More: fastrnn COMMAND --help. Tab completion: fastrnn info --completion.",
)
@click.version_option(__version__, prog_name="fastrnn")
def main() -> None:
    """Vanilla recurrent networks, fast on a CPU.

    \b
    Examples:
      fastrnn demo
      fastrnn train book.txt --out book.safetensors
      fastrnn sample book.safetensors --prompt "It was"
    """
