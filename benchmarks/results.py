"""Rows of measured JSON, as the report reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sizes import BASELINE, DTYPES

Size = tuple[int, int]


class ReportError(Exception):
    """The report cannot be written; the message says why."""


@dataclass(frozen=True)
class Row:
    """One contender at one operation and size."""

    suite: str
    contender: str
    kind: str
    seconds: float
    operation: str = ""
    h: int = 0
    T: int = 0
    dtype: str = ""
    binding: bool = False
    #: Sequences of a batch.
    N: int = 1
    #: Threads that it was limited to, and cores that its process was bound to.
    threads: int = 1
    cores: int = 1
    steps: int = 0
    #: Validation loss per character.
    nats: float = 0.0
    #: Of a layer or a stepper with gates, "gru" or "lstm"; and the products of the call.
    cell: str = ""
    multiply_adds: float = 0.0
    #: What was trained on.
    text: str = ""
    #: Seconds at `PERCENTILES` of the times of single steps.
    percentiles: tuple[float, ...] = ()
    #: Seconds that the clock itself takes, which are in each of those.
    clock: float = 0.0
    #: Microseconds between two calls.
    pause: int = 0
    #: On a test part: an accuracy, or a coefficient of determination.
    score: float = 0.0

    @property
    def size(self) -> Size:
        return self.h, self.T


@dataclass
class Results:
    """Rows of one or several JSON files, and where they were measured."""

    rows: list[Row] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    dates: list[str] = field(default_factory=list)

    def suite(self, *names: str, **where: Any) -> list[Row]:
        """Rows of the first of the suites `names` that has any with these values."""
        for name in names:
            found = [row for row in self.rows if row.suite == name and _has(row, where)]
            if found:
                return found
        return []


_OPTIONAL = (
    "operation", "h", "T", "N", "dtype", "binding", "threads", "cores", "steps", "nats", "text", "clock", "cell",
    "multiply_adds", "pause", "score",
)  # fmt: skip


def _has(row: Row, where: dict[str, Any]) -> bool:
    return all(getattr(row, name) == value for name, value in where.items())


def read(paths: Iterable[Path]) -> Results:
    """Rows of JSON files in pytest-benchmark's form.

    Raises
    ------
    ReportError
        If a file is not such JSON, or the files come from different machines or versions.
    """
    results = Results()
    for path in paths:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            machine, date = document["machine_info"]["fastrnn"], document["datetime"]
            rows = [row_of(record) for record in document["benchmarks"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReportError(f"{path}: not the JSON of these benchmarks ({error!r})") from error
        if results.machine and machine != results.machine:
            raise ReportError(
                f"{path}: measured on another machine, or with other versions, than the first file"
            )
        results.machine = machine
        results.dates.append(date[:10])
        results.rows += rows
    results.rows = _shortest_of_each(results.rows)
    return results


def _shortest_of_each(rows: list[Row]) -> list[Row]:
    """What was measured more than once, by the shortest of its times."""
    found: dict[Row, Row] = {}
    for row in rows:
        case = replace(row, seconds=0.0, percentiles=(), clock=0.0, score=0.0)
        if case not in found or row.seconds < found[case].seconds:
            found[case] = row
    return list(found.values())


def row_of(record: dict[str, Any]) -> Row:
    """The row that a record of pytest-benchmark's form stands for."""
    info = dict(record["extra_info"])
    # A measurement made inside a child process replaces the time around it.
    seconds = info.pop("seconds", record["stats"]["min"])
    if not seconds > 0:
        raise ValueError(f"{record['name']}: a time of {seconds} seconds")
    return Row(
        suite=info["suite"],
        contender=info["contender"],
        kind=info.get("kind", ""),
        seconds=seconds,
        percentiles=tuple(info.get("percentiles", ())),
        **{key: info[key] for key in _OPTIONAL if key in info},
    )


def names(rows: Iterable[Row], *kinds: str) -> list[str]:
    """Contenders of these kinds, in the order in which they were measured."""
    return list(dict.fromkeys(row.contender for row in rows if row.kind in kinds))


def speedups(rows: list[Row], contender: str, against: str, dtype: str | None = None) -> dict[Size, float]:
    """How many times faster `contender` is than `against`, by size.

    The reference in float64 is the baseline in both dtypes; others are compared in the same one.
    """
    mine = {(r.size, r.dtype): r.seconds for r in rows if r.contender == contender}
    theirs = {(r.size, r.dtype): r.seconds for r in rows if r.contender == against}
    if against == BASELINE:
        # It is float64 whatever the group; take the one from the same group where there is one.
        for (size, _), seconds in list(theirs.items()):
            for either in DTYPES:
                theirs.setdefault((size, either), seconds)
    return {
        size: theirs[size, d] / seconds
        for (size, d), seconds in mine.items()
        if d == dtype and (size, d) in theirs
    }
