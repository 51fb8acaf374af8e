"""The tables of docs/scaling.md, from the rows of `scaling.py`: measured on one machine, computed for several.

``python benchmarks/report_scaling.py scaling.json`` writes them from an earlier measurement.

A step of so many machines takes as long as its share of the batch takes here, and the exchange.  In that every machine
sends and receives each byte of the gradients twice, but for its own part of them.  It waits for messages to travel: for
the slices of each other machine and for their sums, one after the other, as if nothing overlapped, and for two short
ones (how large the others' batches are, and their losses) as often as a tree of the machines is high.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from results import Results, Row, read
from tables import table, times

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scaling.md"

#: What stands around the tables on the page.
START, END = "<!-- scaling:start -->", "<!-- scaling:end -->"

#: Name of a network, bytes that it moves a second in each direction, and seconds that a message takes on its way:
#: what is left of the nominal rate after the protocol, and usual times of Ethernet with TCP.
NETWORKS = (("1 GbE", 0.117e9, 50e-6), ("10 GbE", 1.17e9, 20e-6))

#: Machines, and sequences of the batch that they share, or that each of them has.
HOSTS, WHOLE, EACH = (2, 4, 8, 16, 32, 64), 1024, 64

#: Steps from one average to the next, and arrays that are averaged: the weights and the two of Adam.
SYNC_EVERY, AVERAGED = 16, 3

#: Twice the machines pay where they are this much faster.
PAYS = 1.3


def write(results: Results) -> None:
    """Put the tables into the page, with where they were measured."""
    machine = results.machine
    said = f"{results.dates[0]}, {machine['cpu']}, {machine['cores']} cores."
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{PAGE} has no markers {START} and {END}")
    PAGE.write_text(f"{before}{START}\n{said}\n\n{tables(results.rows)}\n{END}{after}", encoding="utf-8")


def tables(rows: list[Row]) -> str:
    """The Markdown."""
    measured = [row for row in rows if row.suite == "scaling"]
    shares = [row for row in rows if row.suite == "scaling share"]
    return "\n\n".join(filter(None, [_measured(measured), *_computed(shares)]))


def _net(row: Row) -> tuple[str, int, int]:
    return row.cell, row.h, row.T


def _named(net: tuple[str, int, int]) -> str:
    return f"{net[0]}, h={net[1]}"


def _measured(rows: list[Row]) -> str:
    """Ranks of one machine beside one process."""
    body = []
    for net in dict.fromkeys(map(_net, rows)):
        for ranks in dict.fromkeys(row.threads for row in rows):
            found = {r.contender: r for r in rows if _net(r) == net and r.threads == ranks}
            if not found:
                continue
            one, many, exchange = (found[name] for name in ("one process", "ranks", "exchange"))
            body.append([
                _named(net), str(ranks), f"{one.seconds * 1e3:.3g}", f"{many.seconds * 1e3:.3g}",
                times(one.seconds / many.seconds), f"{many.multiply_adds / 1024:.0f}",
                f"{exchange.seconds * 1e6:.0f}", f"{100 * exchange.seconds / many.seconds:.1f} %",
            ])  # fmt: skip
    if not body:
        return ""
    head = [
        "net", "ranks", "one process, ms", "ranks, ms", "faster", "gradients, KiB", "exchange, µs", "of the step",
    ]  # fmt: skip
    return table(head, body, 1)


def _computed(rows: list[Row]) -> list[str]:
    """What several machines would give."""
    parts = []
    for net in dict.fromkeys(map(_net, rows)):
        found = {row.N: row for row in rows if _net(row) == net}
        if WHOLE not in found:  # a quick run
            continue
        body = []
        for name, bandwidth, latency in NETWORKS:
            for label, sync in (("", 1), (f", `sync_every={SYNC_EVERY}`", SYNC_EVERY)):
                body.append(
                    [
                        f"{name}{label}, a batch of {WHOLE}",
                        *_speeds(found, bandwidth, latency, sync, whole=True),
                    ]
                )
                body.append(
                    [f"{name}{label}, {EACH} each", *_speeds(found, bandwidth, latency, sync, whole=False)]
                )
        head = [_named(net), *(f"{hosts} machines" for hosts in HOSTS), "pays up to"]
        parts.append(table(head, body, 1))
    return parts


def exchange(nbytes: float, hosts: int, bandwidth: float, latency: float, sync_every: int = 1) -> float:
    """Seconds that a step spends on the network.

    Examples
    --------
    >>> exchange(1e6, 1, 1e8, 1e-4)
    0.0
    >>> round(exchange(1e6, 2, 1e8, 1e-4), 4), round(exchange(1e6, 2, 1e8, 1e-4, sync_every=16), 4)
    (0.0104, 0.0019)
    """
    if hosts == 1:
        return 0.0
    seconds = 2 * nbytes * (hosts - 1) / hosts / bandwidth + 2 * (hosts - 1) * latency
    if sync_every > 1:
        return AVERAGED * seconds / sync_every
    return seconds + 2 * math.ceil(math.log2(hosts)) * latency


def _speeds(
    found: dict[int, Row], bandwidth: float, latency: float, sync_every: int, *, whole: bool
) -> list[str]:
    """How many times faster than one machine: in steps over a batch, or in sequences a second."""
    speeds = [1.0]
    for hosts in HOSTS:
        share = WHOLE // hosts if whole else EACH
        row, one = found[share], found[WHOLE if whole else EACH]
        step = row.seconds + exchange(row.multiply_adds, hosts, bandwidth, latency, sync_every)
        speeds.append(one.seconds / step * (1 if whole else hosts))
    paying = 1
    for hosts, before, now in zip(HOSTS, speeds, speeds[1:], strict=False):
        if now < PAYS * before:
            break
        paying = hosts
    return [*map(times, speeds[1:]), f"{paying}"]


if __name__ == "__main__":
    write(read(map(Path, sys.argv[1:])))
