"""The report's part about GRU and LSTM: tables from the rows of `gated.py`, which prints the first of them."""

from __future__ import annotations

from results import Results, Row, names
from sizes import DTYPES, GEMM_SIZE
from tables import table, times


def parts(results: Results) -> list[str]:
    """The Markdown; nothing where no gates were measured."""
    rows = results.suite("gated")
    if not rows:
        return []
    rates = results.suite("gated gemm")
    found = [_table(rows, rates, operation) for operation in dict.fromkeys(row.operation for row in rows)]
    return [
        "## GRU and LSTM",
        f"One layer, 64 real inputs a step, everybody on {rows[0].threads} threads, taking turns; microseconds a time "
        "step of the whole batch, and in brackets how many times faster the first backend is. The last column is the "
        "share of the machine's GEMM rate (the faster of NumPy's and PyTorch's product of two large matrices, in the "
        "same turns) that the arithmetic of its products comes to: above 100%, its own products are faster than that. "
        "ONNX Runtime has neither float64 nor gradients.",
        *found,
    ]


def comparison(rows: list[Row]) -> str:
    """The tables for the terminal."""
    timed, rates = ([row for row in rows if row.suite == suite] for suite in ("gated", "gated gemm"))
    return "\n\n".join(
        _table(timed, rates, operation) for operation in dict.fromkeys(row.operation for row in timed)
    )


def _table(rows: list[Row], rates: list[Row], operation: str) -> str:
    rows = [row for row in rows if row.operation == operation]
    contenders = [name for kind in ("backend", "peer") for name in names(rows, kind)]
    shapes = list(dict.fromkeys((row.h, row.T, row.N) for row in rows))
    body = []
    for cell in dict.fromkeys(row.cell for row in rows):
        for dtype in DTYPES:
            for h, T, N in shapes:
                some = {
                    row.contender: row
                    for row in rows
                    if (row.cell, row.dtype, row.h, row.T, row.N) == (cell, dtype, h, T, N)
                }
                if not some:
                    continue
                first = some.get(contenders[0])
                cells = []
                for name in contenders:
                    if name not in some:
                        cells.append("")
                        continue
                    shown = f"{some[name].seconds / T * 1e6:.1f}"
                    if first is not None and name != contenders[0]:
                        shown += f" ({times(some[name].seconds / first.seconds)})"
                    cells.append(shown)
                share = ""
                gemm = [
                    row.seconds
                    for row in rates
                    if (row.operation, row.cell, row.dtype, row.h) == (operation, cell, dtype, h)
                ]
                if gemm and first is not None:
                    rate = 2 * GEMM_SIZE**3 / min(gemm)
                    share = f"{2 * first.multiply_adds / first.seconds / rate:.0%}"
                body.append([cell.upper(), dtype, f"{h}, {T}, {N}", *cells, share])
    head = ["", "dtype", "h, T, N", *contenders, "of the GEMM rate"]
    return f"{operation.capitalize()}:\n\n" + table(head, body, left=3)
