"""The command line `fastrnn`: one file a command, and what they share."""

from fastrnn.cli.commands import main

__all__ = ["main"]
