"""How help looks: examples before the options, options in groups, no line wider than the terminal.

click writes options in one list and examples where the text has them, and never breaks an example.  What
packages such as cloup and rich-click add would cost a dependency and time at each start, and leaves the
examples as they are: the few lines here are all that it takes.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

import click

__all__ = ["Command", "Option", "did_you_mean", "option", "write_sections"]

#: Where fewer columns are there, the help of an option stands below it and not beside it.
BESIDE = 70

#: Widest first column of what stands side by side, and the widest where the terminal is narrow.
FIRST_COLUMN, NARROW_COLUMN = 26, 14

#: A hyphen while lines are broken: an option's name is not to be cut in two at one.
_HYPHEN = "\ue000"

#: What stands for a value, by the name of its type.
_METAVARS = {"integer": "N", "integer range": "N", "float": "X", "float range": "X", "number": "X"}

#: A word of a shell's, or one in quotes.
_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s"'])+""")


class Option(click.Option):
    """An option with the heading that it stands under.

    Parameters
    ----------
    *args, **attrs
        As of `click.Option`.  A str as `show_default` is shown as it is, without parentheses.
    group : str or None
        The heading; options that have none come last.
    """

    def __init__(self, *args: Any, group: str | None = None, **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.group = group
        if self.metavar is None and not self.is_flag and self.type.name in _METAVARS:
            more = "|none" if getattr(self.type, "takes_none", False) else ""
            self.metavar = _METAVARS[self.type.name] + more

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None:
            return None
        text, bracket, extra = record[1].rpartition("  [")
        if isinstance(self.show_default, str):
            extra = extra.replace(f"({self.show_default})", self.show_default)
        if self.metavar is not None:  # a range is one of x, whatever the value is called
            extra = re.sub(r"(?<![\w-])x(?=[<>])|(?<=[<>=])x\b", self.metavar.partition("|")[0], extra)
        return record[0], text + bracket + extra


#: `click.option` that makes an `Option`.
option = functools.partial(click.option, cls=Option)


class Command(click.Command):
    r"""A command whose help is its summary, examples, explanation and options, in this order.

    They are paragraphs of its docstring: the first is the summary, and one that begins with ``\b`` and
    ``Examples:`` holds an example a line.
    """

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_usage(ctx, formatter)
        examples: list[str] = []
        texts: list[str] = []
        for paragraph in inspect.cleandoc(self.help or "").split("\n\n"):
            (examples if paragraph.startswith("\b\nExamples:") else texts).append(paragraph)
        self._write_text(formatter, texts[:1])
        for paragraph in examples:
            formatter.write_paragraph()
            formatter.write("Examples:\n")
            for line in paragraph.splitlines()[2:]:
                for part in _within(line.strip(), formatter.width - 2):
                    formatter.write(f"  {part}\n")
        self._write_text(formatter, texts[1:])
        self.write_sections(ctx, formatter)
        self._write_text(formatter, [self.epilog] if self.epilog else [])
        formatter.buffer = [text.replace(_HYPHEN, "-") for text in formatter.buffer]

    def write_sections(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What comes after the text: the options, under their headings."""
        groups: dict[str | None, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = None if isinstance(param, click.Argument) else param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(param, "group", None), []).append(record)
        others = groups.pop(None, [])
        sections = [*groups.items(), ("Other options" if groups else "Options", others)]
        write_sections(formatter, [(str(heading), rows) for heading, rows in sections])

    @staticmethod
    def _write_text(formatter: click.HelpFormatter, paragraphs: Iterable[str]) -> None:
        for paragraph in paragraphs:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(paragraph.replace("-", _HYPHEN))


def write_sections(formatter: click.HelpFormatter, sections: list[tuple[str, list[tuple[str, str]]]]) -> None:
    """Write terms and what they mean under headings, in columns that all sections share.

    Parameters
    ----------
    formatter : click.HelpFormatter
    sections : list of (str, list of (str, str))
    """
    sections = [
        (heading, [(term, text.replace("-", _HYPHEN)) for term, text in rows]) for heading, rows in sections
    ]
    widths = [len(term) for _, rows in sections for term, _ in rows]
    beside = formatter.width >= BESIDE or max(widths) <= NARROW_COLUMN
    first = max((width for width in widths if width <= FIRST_COLUMN), default=FIRST_COLUMN)
    for heading, rows in sections:
        with formatter.section(heading):
            if beside:
                formatter.write_dl([(term.ljust(first), text) for term, text in rows], col_max=first)
                continue
            for term, text in rows:
                formatter.write(f"  {term}\n")
                with formatter.indentation(), formatter.indentation():
                    formatter.write_text(text)


def _within(line: str, width: int) -> Iterator[str]:
    """The lines of a shell's command that is too long for one: broken between words, as a shell reads it."""
    words: list[str] = []
    for word in _WORD.findall(line):
        # An option stays with its value.
        if words and re.fullmatch(r"--?[a-z-]+", words[-1]) and (word == "-" or not word.startswith("-")):
            words[-1] += f" {word}"
        else:
            words.append(word)
    so_far = words[0]
    for i, word in enumerate(words[1:], start=2):
        room = width - (0 if i == len(words) else 2)  # for the space and the backslash
        if len(so_far) + 1 + len(word) <= room:
            so_far += f" {word}"
        else:
            yield f"{so_far} \\"
            so_far = f"    {word}"
    yield so_far


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What to add to an error about a word that is not known: the ones that are near it.

    Examples
    --------
    >>> did_you_mean("trian", ["train", "sample"])
    " Did you mean 'train'?"
    >>> did_you_mean("nonsense", ["train", "sample"])
    ''
    """
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), 2)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
