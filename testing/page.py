"""The figures of docs/testing.md: each program here puts its own between markers of its name."""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "testing.md"


def parser(description: str | None) -> argparse.ArgumentParser:
    """What every program here takes."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--write", action="store_true", help="put the figures into docs/testing.md")
    return made


def write(name: str, figures: str, *, before: str = "") -> None:
    """Put Markdown into the page, below a line with the command that made it and the day.

    Parameters
    ----------
    name : str
        Of the program, and of the markers ``<!-- name:start -->`` and ``<!-- name:end -->``.
    figures : str
    before : str, default ""
        What was typed before the command.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    above, found, rest = PAGE.read_text(encoding="utf-8").partition(start)
    _, closed, below = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{PAGE} has no markers {start} and {end}")
    command = before + " ".join(["python", f"testing/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    day = datetime.datetime.now(datetime.UTC).date()
    said = f"`{command}`, {day}, Python {platform.python_version()}, {platform.machine()}:"
    PAGE.write_text(f"{above}{start}\n{said}\n\n{figures.strip()}\n{end}{below}", encoding="utf-8")


def table(head: Iterable[str], rows: Iterable[Iterable[object]], left: int = 1) -> str:
    """A Markdown table whose first `left` columns are text and the others figures."""
    head = list(head)
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    lines: list[Iterable[object]] = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in cells)} |" for cells in lines)
