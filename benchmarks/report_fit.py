"""The report's part about `fit`: tables from the rows of `fit.py`, which prints them too.

``python benchmarks/report_fit.py fit.json`` writes this part of docs/benchmarks.md alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from results import ReportError, Results, Row, names, read
from tables import table, times

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"

#: What stands around this part, so that it can be written by itself.
START, END = "<!-- fit:start -->", "<!-- fit:end -->"


def parts(results: Results) -> list[str]:
    """The Markdown; nothing where no `fit` was measured."""
    text = section(results)
    return ["## `fit` of the estimators", f"{START}\n{text}\n{END}"] if text else []


def section(results: Results) -> str:
    """What stands between the markers."""
    rows = [*results.suite("fit"), *results.suite("fit step")]
    if not rows:
        return ""
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    dates = " to ".join(dict.fromkeys([min(results.dates), max(results.dates)]))
    return (
        f"Measured {dates} by `python benchmarks/fit.py` on {machine['cpu']}, {machine['cores']} cores, with "
        f"{versions}.\n\n"
        f"Everybody on {_threads(rows)}; the shortest time of several, and in brackets how many times faster fastrnn "
        f"is: a ratio below 1 lost and is in bold. Both have the same net, begin with the same weights and take the same batches in the same order, with "
        f"Adam and the norm of the gradients clipped; in float64 their losses agree to 1e-6.\n\n{comparison(rows)}"
    )


def _threads(rows: list[Row]) -> str:
    most = max(row.threads for row in rows)
    return (
        f"{most} threads, taking turns, and PyTorch on one as well"
        if most > 1
        else "one thread, taking turns"
    )


def comparison(rows: list[Row]) -> str:
    """The tables."""
    fits, steps = ([row for row in rows if row.suite == suite] for suite in ("fit", "fit step"))
    return "\n\n".join(filter(None, [_fits(fits), _steps(steps)]))


def _fits(rows: list[Row]) -> str:
    if not rows:
        return ""
    ours, others = names(rows, "backend"), names(rows, "peer")
    body = []
    for where in dict.fromkeys(map(_where, rows)):
        found = {row.contender: row for row in rows if _where(row) == where}
        row = next(iter(found.values()))
        setting = f"h={row.h}, N={row.N}, T={row.T}, {row.dtype}, {row.steps} steps"
        scores = [f"{found[name].score:.3f}" for name in (*ours, *others[:1]) if name in found]
        cells = _cells(found, ours, others, 1e3)
        body.append([row.text, row.cell.upper(), setting, *cells, " / ".join(scores)])
    head = ["trained on", "", "setting", *ours, *others, "scores"]
    return (
        "`fit` from first weights to last, reading, checking and scaling the data included, beside a PyTorch loop that "
        "is given scaled tensors and the order of the batches; milliseconds. Scores on a test part, ours and PyTorch's: "
        f"accuracies, of the value R²:\n\n{table(head, body, left=3)}"
    )


def _steps(rows: list[Row]) -> str:
    if not rows:
        return ""
    ours, others = names(rows, "backend"), names(rows, "peer")
    body = []
    for where in dict.fromkeys(map(_where, rows)):
        found = {row.contender: row for row in rows if _where(row) == where}
        row = next(iter(found.values()))
        body.append(
            [row.cell.upper(), row.dtype, f"{row.h}, {row.T}, {row.N}", *_cells(found, ours, others, 1e6)]
        )
    head = ["", "dtype", "h, T, N", *ours, *others]
    return (
        "`SequenceModel.train_step` by itself, a class from the last of T steps of 8 real inputs, beside the same step "
        f"in PyTorch; microseconds a training step:\n\n{table(head, body, left=3)}"
    )


def _where(row: Row) -> tuple[object, ...]:
    return row.text, row.cell, row.h, row.T, row.N, row.dtype, row.steps


def _cells(found: dict[str, Row], ours: list[str], others: list[str], scale: float) -> list[str]:
    """Times, and in brackets how many times that of the first of ours."""
    first = found.get(ours[0]) if ours else None
    cells = []
    for name in (*ours, *others):
        row = found.get(name)
        if row is None:
            cells.append("")
            continue
        value = row.seconds * scale
        text = f"{value:.0f}" if value >= 100 else f"{value:.1f}"
        if first is not None and row is not first:
            text += f" ({times(row.seconds / first.seconds)})"
        cells.append(text)
    return cells


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", type=Path, nargs="+", metavar="JSON", help="what fit.py wrote")
    parser.add_argument("--page", type=Path, default=PAGE, help="the file with the markers")
    options = parser.parse_args(arguments)
    from report import written

    try:
        text = section(read(options.sources))
        if not text:
            raise ReportError("the results hold nothing that fit.py measured")
        options.page.write_text(written(options.page, {"fit": text}), encoding="utf-8")
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("wrote", options.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
