"""The report's part about a few sequences: tables from the rows of `few.py`, which prints them too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from report_batched import fastest_peers
from results import Results, Row, names
from sizes import DTYPES, FEW_COUNTED, FEW_OPERATIONS, PERCENTILES
from tables import geometric_mean, microseconds, table, times

SUITES = "few", "few busy", "few waking"

#: What was asked for: means over `FEW_COUNTED` of one thread to all, and of the fastest peer to ours.
ASKED = {"train_step": (1.7, 2.0), "forward": (1.7, 1.6)}
#: And for no row of these below this.
ASKED_OF_EACH = 1.2
#: One thread to all beside a busy process, in each row.
ASKED_BESIDE_A_BUSY_ONE = 0.9
#: Microseconds: a helper within 50 of the last call; and after 1000, beyond a bare wake.
ASKED_OF_WAKING = 10.0, 5.0

#: Where: h, N, dtype.
Place = tuple[int, int, str]


def parts(results: Results) -> list[str]:
    """The Markdown; nothing where a few sequences were not measured."""
    rows = [row for suite in SUITES for row in results.suite(suite)]
    found = _tables(rows)
    return ["## A few sequences on every core", *found] if found else []


def comparison(rows: list[Row]) -> str:
    """The tables for the terminal."""
    return "\n\n".join(_tables(rows))


def verdict(rows: list[Row]) -> str:
    """What was asked for beside what was measured, of the first backend, for the terminal."""
    timed, busy, waking = (_of(rows, suite) for suite in SUITES)
    body = []
    for operation, (asked_of_threads, asked_of_peers) in ASKED.items():
        for backend in names(timed, "backend")[:1]:
            against_one = _against_one_thread(timed, operation, backend, counted=True)
            against_peers = _against_peers(timed, operation, backend)
            if against_one:
                body.append([
                    f"`{operation}`, {backend}: one thread to all, mean of {len(against_one)} rows",
                    f"{geometric_mean(against_one.values()):.2f}", f"{asked_of_threads:g}",
                ])  # fmt: skip
            if against_peers:
                where, least = _least(against_peers)
                mean = geometric_mean(against_peers.values())
                body += [
                    [f"`{operation}`, {backend}: the fastest peer to ours, mean of {len(against_peers)} rows",
                     f"{mean:.2f}", f"{asked_of_peers:g}"],
                    [f"the least of these, at {where}", f"{least:.2f}", f"{ASKED_OF_EACH:g}"],
                ]  # fmt: skip
    for operation in FEW_OPERATIONS:
        for backend in names(busy, "backend"):
            ratios = _against_one_thread(busy, operation, backend)
            if ratios:
                where, least = _least(ratios)
                what = f"`{operation}`, {backend}, beside a busy process: one thread to all, the least, at {where}"
                body.append([what, f"{least:.2f}", f"{ASKED_BESIDE_A_BUSY_ONE:g}"])
    medians = {(row.contender, row.pause): row.seconds * 1e6 for row in waking}
    soon, later = ASKED_OF_WAKING
    if ("a helper", 50) in medians:
        body.append(["waking after 50 us, us", f"{medians['a helper', 50]:.2f}", f"below {soon:g}"])
    if {("a helper", 1000), ("a bare wake", 1000)} <= medians.keys():
        more = medians["a helper", 1000] - medians["a bare wake", 1000]
        body.append(["after 1 ms, beyond a bare wake, us", f"{more:.2f}", f"at most {later:g}"])
    return table(["", "measured", "asked for"], body, left=1) if body else ""


def _tables(rows: list[Row]) -> list[str]:
    timed, busy, waking = (_of(rows, suite) for suite in SUITES)
    found = [_introduction(timed), _means_table(timed)] if timed else []
    found += [_table(timed, operation) for operation in FEW_OPERATIONS]
    found += [_busy_table(busy), _waking_table(waking)]
    return [part for part in found if part]


def _of(rows: list[Row], suite: str) -> list[Row]:
    return [row for row in rows if row.suite == suite]


def _introduction(rows: list[Row]) -> str:
    steps = " or ".join(str(T) for T in sorted({row.T for row in rows}))
    return (
        f"N sequences of {steps} time steps, one layer, everybody on {_threads(rows)}, taking turns. `forward` is that of "
        "`RNN` on 64 real inputs, a training step that of `LanguageModel` (`benchmarks/few.py`). fastrnn ran on one "
        "thread as well, in the same turns. JAX's recurrent matrix is transposed in each step or, where it says so, "
        "before the loop; the first is better for one sequence, the other for more. Every result was checked against "
        "that of the NumPy kernels in float64."
    )


def _threads(rows: list[Row]) -> str:
    most = max(row.cores for row in rows)
    return f"{most} threads" if most > 1 else "one thread"


def _place(row: Row) -> Place:
    return row.h, row.N, row.dtype


def _whole(rows: list[Row]) -> list[Row]:
    """Those that had all threads."""
    return [row for row in rows if row.threads == row.cores]


def _times(rows: Iterable[Row], operation: str, contender: str) -> dict[Place, float]:
    return {
        _place(row): row.seconds for row in rows if (row.operation, row.contender) == (operation, contender)
    }


def _ratios(
    theirs: Mapping[Place, float], ours: Mapping[Place, float], counted: bool = False
) -> dict[Place, float]:
    """How many times faster ours is, everywhere or where the means go over."""
    return {
        place: theirs[place] / seconds
        for place, seconds in ours.items()
        if place in theirs and (not counted or place[:2] in FEW_COUNTED)
    }


def _against_one_thread(
    rows: list[Row], operation: str, backend: str, counted: bool = False
) -> dict[Place, float]:
    alone = [row for row in rows if row.threads == 1 < row.cores]
    return _ratios(_times(alone, operation, backend), _times(_whole(rows), operation, backend), counted)


def _against_peers(rows: list[Row], operation: str, backend: str) -> dict[Place, float]:
    """The fastest form of any peer counts."""
    some = [row for row in rows if row.operation == operation]
    fastest: dict[Place, float] = {}
    for dtype in DTYPES:
        found = fastest_peers([row for row in some if row.dtype == dtype]).values()
        fastest |= {_place(row): row.seconds for row in found}
    return _ratios(fastest, _times(_whole(rows), operation, backend), counted=True)


def _least(ratios: dict[Place, float]) -> tuple[str, float]:
    place = min(ratios, key=lambda place: ratios[place])
    return "h={}, N={}, {}".format(*place), ratios[place]


def _mean_and_least(ratios: dict[Place, float]) -> str:
    if not ratios:
        return ""
    where, least = _least(ratios)
    return f"{times(geometric_mean(ratios.values()))} ({times(least)} at {where})"


def _means_table(rows: list[Row]) -> str:
    body = []
    for operation in FEW_OPERATIONS:
        for backend in names(rows, "backend"):
            before = _times(_whole(rows), operation, f"{backend}, before")
            found = [
                _against_one_thread(rows, operation, backend, counted=True),
                _against_peers(rows, operation, backend),
                _ratios(before, _times(_whole(rows), operation, backend), counted=True),
            ]
            if any(found):
                count = f"{max(map(len, found))} of {len(DTYPES) * len(FEW_COUNTED)}"
                body.append([f"`{operation}`", backend, count, *map(_mean_and_least, found)])
    if not body:
        return ""
    head = [
        "",
        "backend",
        "rows",
        "than on one thread",
        "than the fastest form of PyTorch and JAX",
        "than before",
    ]
    if not any(cells[-1] for cells in body):
        head, body = head[:-1], [cells[:-1] for cells in body]
    sizes = ", ".join(f"({h}, {N})" for h, N in FEW_COUNTED)
    return (
        f"Times faster on {_threads(rows)}: geometric means over (h, N) of {sizes} and both dtypes, and in brackets the "
        f"worst of these; a ratio below 1 lost and is in bold:\n\n{table(head, body, left=3)}"
    )


def _table(rows: list[Row], operation: str) -> str:
    rows = [row for row in rows if row.operation == operation]
    if not rows:
        return ""
    columns = [
        (name, threads)
        for kind in ("backend", "before", "peer")
        for name in names(rows, kind)
        for threads in sorted({row.threads for row in rows if row.contender == name}, reverse=True)
    ]
    most = max(row.cores for row in rows)
    heads = [name if threads == most else f"{name}, one thread" for name, threads in columns]
    body = []
    for dtype in DTYPES:
        for h, N in sorted({(row.h, row.N) for row in rows}):
            steps = {
                (row.contender, row.threads): row.seconds / row.T
                for row in rows
                if _place(row) == (h, N, dtype)
            }
            if steps:
                first = steps.get(columns[0])
                cells = [microseconds(first, digits=1)]
                cells += [microseconds(steps.get(column), first, digits=1) for column in columns[1:]]
                body.append([dtype, f"{h}, {N}", *cells])
    return (
        f"`{operation}`, microseconds a time step of all sequences, and in brackets how many times faster `{heads[0]}` "
        f"is:\n\n{table(['dtype', 'h, N', *heads], body, left=2)}"
    )


def _busy_table(rows: list[Row]) -> str:
    body = []
    for operation in FEW_OPERATIONS:
        for dtype in DTYPES:
            for h, N in sorted({(row.h, row.N) for row in rows}):
                cells, place = [], (h, N, dtype)
                some = [row for row in rows if row.operation == operation and _place(row) == place]
                for backend in names(rows, "backend"):
                    found = {row.threads: row.seconds / row.T for row in some if row.contender == backend}
                    most = found.get(max(row.cores for row in rows))
                    alone = found.get(1)
                    cells += [microseconds(most, digits=1), microseconds(alone, most, digits=1)]
                if any(cells):
                    body.append([f"`{operation}`", dtype, f"{h}, {N}", *cells])
    if not body:
        return ""
    heads = [head for name in names(rows, "backend") for head in (name, f"{name}, one thread")]
    return (
        f"Beside a process that keeps a core busy, on {_threads(rows)} and on one, one call after the other: the mean "
        "time of all calls, in microseconds a time step, and in brackets how many times faster all threads are:\n\n"
        + table(["", "dtype", "h, N", *heads], body, left=3)
    )


def _waking_table(rows: list[Row]) -> str:
    body = [
        [f"{row.pause} µs", row.contender, f"{row.steps:,}", *(f"{t * 1e6:.2f}" for t in row.percentiles)]
        for row in rows
    ]
    if not body:
        return ""
    heads = ["median" if p == 50 else "longest" if p == 100 else f"{p:g}%" for p in PERCENTILES]
    return (
        "Until a helper of the compiled kernels works, after a pause of the caller, beside a bare wake of a sleeping "
        "thread by the system, in microseconds:\n\n" + table(["pause", "", "times", *heads], body, left=2)
    )
