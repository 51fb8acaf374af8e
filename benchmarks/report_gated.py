"""The report's part about GRU and LSTM: tables from the rows of `gated.py`, which prints the first of them."""

from __future__ import annotations

from results import Results, Row, names
from sizes import DTYPES, GEMM_SIZE
from tables import microseconds, table


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
                where = operation, cell, dtype, h, T, N
                found = {row.contender: row for row in rows if _where(row) == where}
                if found:
                    gemm = [row.seconds for row in rates if _where(row) == where]
                    cells = _cells(found, contenders, gemm)
                    body.append([cell.upper(), dtype, f"{h}, {T}, {N}", *cells])
    head = ["", "dtype", "h, T, N", *contenders, "of the GEMM rate"]
    return f"{operation.capitalize()}:\n\n" + table(head, body, left=3)


def _where(row: Row) -> tuple[str, str, str, int, int, int]:
    return row.operation, row.cell, row.dtype, row.h, row.T, row.N


def _cells(found: dict[str, Row], contenders: list[str], gemm: list[float]) -> list[str]:
    """A time step of each contender, beside that of the first; the first one's share of the GEMM rate."""
    steps = {name: row.seconds / row.T for name, row in found.items()}
    first, *others = contenders
    cells = [microseconds(steps.get(first), digits=1)]
    cells += [microseconds(steps.get(name), steps.get(first), digits=1) for name in others]
    if first not in found or not gemm:
        return [*cells, ""]
    rate = 2 * GEMM_SIZE**3 / min(gemm)
    return [*cells, f"{2 * found[first].multiply_adds / found[first].seconds / rate:.0%}"]
