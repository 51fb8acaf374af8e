"""The report's part about single steps: tables from the rows of `stepper.py`, which prints one of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from results import Results, Row, names
from sizes import DTYPES, PERCENTILES
from tables import microseconds, table, times


def parts(results: Results) -> list[str]:
    """The Markdown; nothing where steps were not measured."""
    found = [_times(results), _gated(results), _distributions(results)]
    if not any(found):
        return []
    return ["## One step at a call", *(part for part in found if part)]


def comparison(rows: list[Row]) -> str:
    """Each backend's time, and how many times faster it is than everybody else, as a table for the terminal."""
    others = names(rows, "reference", "peer")
    found = {(row.contender, row.h, row.dtype): row.seconds for row in rows}
    body = []
    for row in rows:
        if row.kind == "backend":
            theirs = [found.get((other, row.h, row.dtype)) for other in others]
            ratios = ["" if seconds is None else times(seconds / row.seconds) for seconds in theirs]
            body.append([row.dtype, row.contender, str(row.h), f"{row.seconds * 1e6:.2f}", *ratios])
    heads = ["dtype", "backend", "h", "us", *(f"than {other}" for other in others)]
    return table(heads, body, left=2) if others and body else ""


def _contenders(rows: list[Row]) -> list[str]:
    return [name for kind in ("backend", "reference", "peer") for name in names(rows, kind)]


def _by_contender(rows: list[Row], hidden: list[int], first: str) -> Iterator[list[str]]:
    """A contender, and its time at each of `hidden` beside that of the `first` one."""
    found = {(row.contender, row.h): row.seconds for row in rows}
    for name in _contenders(rows):
        against = {} if name == first else found
        yield [name, *(microseconds(found.get((name, h)), against.get((first, h))) for h in hidden)]


def _times(results: Results) -> str:
    rows = results.suite("steps")
    if not rows:
        return ""
    hidden, first = sorted({row.h for row in rows}), _contenders(rows)[0]
    body = []
    for dtype in DTYPES:
        some = [row for row in rows if row.dtype == dtype]
        body += [[name, dtype, *cells] for name, *cells in _by_contender(some, hidden, first)]
    return (
        f"Microseconds of a `step` of a stepper, 8 real numbers in and the state out, one sequence, one layer, one "
        f"thread; of `numpy line`, which is `h = np.tanh(W @ h + U @ x + b)`; of `torch.nn.RNNCell` in inference "
        f"mode, and of ONNX Runtime, which is given the state (in float32 only). In brackets, how many times faster "
        f"`{first}` is; the contenders take turns.\n\n"
        + table(["", "dtype", *(f"h={h}" for h in hidden)], body, left=2)
    )


def _gated(results: Results) -> str:
    rows = results.suite("gated steps")
    if not rows:
        return ""
    hidden, first = sorted({row.h for row in rows}), _contenders(rows)[0]
    body = []
    for cell in dict.fromkeys(row.cell for row in rows):
        some = [row for row in rows if row.cell == cell]
        body += [[cell.upper(), *cells] for cells in _by_contender(some, hidden, first)]
    return "The same with gates, in float32:\n\n" + table(["", "", *(f"h={h}" for h in hidden)], body, left=2)


def _distributions(results: Results) -> str:
    rows = results.suite("single steps")
    if not rows:
        return ""
    body = [
        [row.contender, row.dtype, str(row.h), f"{row.steps:,}", *(f"{t * 1e6:.2f}" for t in row.percentiles)]
        for row in rows
    ]
    heads = ["median" if p == 50 else "longest" if p == 100 else f"{p:g}%" for p in PERCENTILES]
    clock = statistics.median(row.clock for row in rows)
    took = f" ({clock * 1e6:.2f})" if clock else ""
    return (
        f"Each of many steps timed by itself, in microseconds, with the time of the clock{took} in it; what else "
        "the system did meanwhile is in the last columns:\n\n"
        + table(["", "dtype", "h", "steps", *heads], body, left=2)
    )
