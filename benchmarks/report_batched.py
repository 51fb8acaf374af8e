"""The report's part about batches: tables and a plot from the rows of `batched.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import colours
from results import Results, Row, names
from sizes import BATCH_OPERATIONS, BATCHES, DTYPES, GEMM_SIZE, VOCABULARY
from tables import figure, table, times

Batch = tuple[int, int, int]

#: What a training step's matrix products are to those of a forward pass.
_PASSES = {"train_step": 3, "forward": 1}

#: Peers whose gradients were written by hand, which few users of these libraries do.
BY_HAND = ("jax, own backward",)

PLOT = "gemm-share.png"


def parts(results: Results, plots: list[str]) -> list[str]:
    """The Markdown; nothing where no batch was measured.  `plots` are links to all plots there are."""
    rows = results.suite("batched")
    if not rows:
        return []
    gemm = results.suite("batched gemm")
    return [
        _introduction(rows),
        _peers_table(rows),
        _gemm_table(rows, gemm),
        _threads_table(rows),
        _streams_table(rows),
        *(f"![Share of the GEMM rate, {name}]({name})" for name in plots if name.endswith(PLOT)),
        _times_table(rows),
    ]


def _introduction(rows: list[Row]) -> str:
    counts = sorted({row.cores for row in rows})
    return (
        f"## Batches\n\n`LanguageModel` on N sequences, one layer, {VOCABULARY} characters. A training step "
        "is forward, softmax cross-entropy, BPTT, every gradient clamped, gradient descent. PyTorch and JAX "
        "take part in two forms each: `nn.RNN` on one-hot rows and a Python loop over time steps that looks "
        "inputs up; `lax.scan` under `jax.grad` and with a backward pass written by hand. Each number of "
        f"threads ({_listed(counts)}) has a process of its own, bound to as many cores, which is what holds "
        "XLA to it; inside a process all take turns. Every result was checked against the reference loop."
    )


def _listed(values: list[int]) -> str:
    return " and ".join(map(str, values))


def _batch(row: Row) -> Batch:
    return row.h, row.T, row.N


def _columns(rows: list[Row]) -> list[Batch]:
    measured = {_batch(row) for row in rows}
    return [batch for batch in BATCHES if batch in measured]


def _heads(batches: list[Batch]) -> list[str]:
    return [f"h={h}, T={T}, N={N}" for h, T, N in batches]


def _whole(rows: list[Row], **where: Any) -> list[Row]:
    """Rows of contenders that had all the threads of their process, and these values."""
    return [
        row
        for row in rows
        if row.threads == row.cores and all(getattr(row, name) == value for name, value in where.items())
    ]


def _groups(rows: list[Row], *operations: str) -> Iterator[tuple[str, str, int, list[Row]]]:
    """Operation, dtype and cores of each table row, and `_whole` of these."""
    for operation in operations:
        for dtype in DTYPES:
            for cores in sorted({row.cores for row in rows}):
                yield operation, dtype, cores, _whole(rows, operation=operation, dtype=dtype, cores=cores)


def _times(rows: list[Row], contender: str) -> dict[Batch, float]:
    return {_batch(row): row.seconds for row in rows if row.contender == contender}


def _cells(batches: list[Batch], found: dict[Batch, str]) -> list[str]:
    return [found.get(batch, "") for batch in batches]


def fastest_peers(rows: list[Row]) -> dict[Batch, Row]:
    """The fastest form of any peer, by batch; `rows` are of one operation, dtype and number of threads."""
    found: dict[Batch, Row] = {}
    for row in rows:
        if row.kind == "peer" and (_batch(row) not in found or row.seconds < found[_batch(row)].seconds):
            found[_batch(row)] = row
    return found


def _peers_table(rows: list[Row]) -> str:
    batches = _columns(rows)
    body = []
    for operation, dtype, cores, some in _groups(rows, *BATCH_OPERATIONS):
        peers = fastest_peers(some)
        start = [f"`{operation}`", dtype, str(cores)]
        derived = fastest_peers([row for row in some if row.contender not in BY_HAND])
        for backend in names(some, "backend"):
            against = {backend: peers}
            if derived != peers:
                against[f"{backend}, against automatic differentiation"] = derived
            for label, rivals in against.items():
                ratios = {
                    batch: times(rivals[batch].seconds / seconds)
                    for batch, seconds in _times(some, backend).items()
                    if batch in rivals
                }
                if ratios:
                    body.append([*start, label, *_cells(batches, ratios)])
        if peers:
            who = {batch: row.contender for batch, row in peers.items()}
            body.append([*start, "the fastest peer", *_cells(batches, who)])
    if not body:
        return ""
    head = ["", "dtype", "threads", "backend", *_heads(batches)]
    return (
        "Times faster than the fastest form of PyTorch and JAX in the same dtype on as many threads; a ratio "
        f"below 1 lost and is in bold:\n\n{table(head, body, left=4)}"
    )


def multiply_adds(operation: str, batch: Batch) -> int:
    """Those of the matrix products that the operation needs, one-hot inputs looked up.

    Forward ``Whh h`` and the logits; backward ``Whh' dz``, ``dWhh``, ``dWhy`` and ``Why' dy``.
    """
    h, T, N = batch
    return _PASSES[operation] * T * N * h * (h + VOCABULARY)


def share(row: Row, gemm: Row) -> float:
    """What part of the GEMM rate a contender reaches, counting only the products that it must do."""
    return multiply_adds(row.operation, _batch(row)) / row.seconds / (GEMM_SIZE**3 / gemm.seconds)


def _shares(rows: list[Row], gemm: list[Row]) -> dict[str, dict[Batch, float]]:
    """By contender and batch; `rows` are of one operation, dtype and number of threads, `gemm` likewise."""
    rates = {_batch(row): row for row in gemm}
    found: dict[str, dict[Batch, float]] = {}
    for name in names(rows, "backend", "peer"):
        found[name] = {
            _batch(row): share(row, rates[_batch(row)])
            for row in rows
            if row.contender == name and _batch(row) in rates
        }
    return {name: shares for name, shares in found.items() if shares}


def _gemm_table(rows: list[Row], gemm: list[Row]) -> str:
    batches = _columns(rows)
    body = []
    for _, dtype, cores, some in _groups(rows, "train_step"):
        rates = _whole(gemm, operation="train_step", dtype=dtype, cores=cores)
        for name, shares in _shares(some, rates).items():
            found = {batch: f"{100 * value:.0f}%" for batch, value in shares.items()}
            body.append([dtype, str(cores), name, *_cells(batches, found)])
        if rates:
            found = {_batch(row): f"{2 * GEMM_SIZE**3 / row.seconds / 1e9:.0f}" for row in rates}
            label = f"{rates[0].contender}, GFLOP/s"
            body.append([dtype, str(cores), label, *_cells(batches, found)])
    if not body:
        return ""
    head = ["dtype", "threads", "", *_heads(batches)]
    return (
        f"Share of the machine's GEMM rate that a training step reaches: the arithmetic of the products it "
        f"needs, 6 T N h (h + {VOCABULARY}) operations, over its time, against a product of two "
        f"{GEMM_SIZE}-square matrices by the faster of NumPy's and PyTorch's BLAS, which takes turns with it:"
        f"\n\n{table(head, body, left=3)}"
    )


def _threads_table(rows: list[Row]) -> str:
    most = max(row.cores for row in rows)
    batches = _columns(rows)
    body = []
    for operation in BATCH_OPERATIONS:
        for dtype in DTYPES:
            some = [r for r in rows if (r.operation, r.dtype, r.cores) == (operation, dtype, most)]
            for backend in names(some, "backend"):
                one = _times([row for row in some if row.threads == 1], backend)
                all_ = _times([row for row in some if row.threads == most], backend)
                found = {
                    batch: times(one[batch] / all_[batch])
                    for batch in batches
                    if batch in one.keys() & all_.keys()
                }
                if found and most > 1:
                    body.append([f"`{operation}`", dtype, backend, *_cells(batches, found)])
    if not body:
        return ""
    head = ["", "dtype", "backend", *_heads(batches)]
    return f"Times faster on {most} threads than on one, in the same process:\n\n{table(head, body, left=3)}"


def _streams_table(rows: list[Row]) -> str:
    batches = _columns(rows)
    body = []
    for _, dtype, cores, some in _groups(rows, "sample"):
        for backend in names(some, "backend"):
            rates = {(row.h, row.N): row.N * row.T / row.seconds for row in some if row.contender == backend}
            found = {
                (h, T, N): times(rates[h, N] / rates[h, 1])
                for h, T, N in batches
                if (h, N) in rates and (h, 1) in rates
            }
            if found:
                body.append([dtype, str(cores), backend, *_cells(batches, found)])
    if not body:
        return ""
    head = ["dtype", "cores", "backend", *_heads(batches)]
    return (
        "Characters per second of sampling N streams at once, times those of one stream on the same cores:"
        f"\n\n{table(head, body, left=3)}"
    )


def _times_table(rows: list[Row]) -> str:
    batches = _columns(rows)
    body = []
    for operation, dtype, cores, some in _groups(rows, *BATCH_OPERATIONS):
        for name in names(some, "backend", "peer"):
            found = {batch: figure(t / batch[1] * 1e6) for batch, t in _times(some, name).items()}
            if any(batch in found for batch in batches):
                body.append([f"`{operation}`", dtype, str(cores), name, *_cells(batches, found)])
    text = table(["", "dtype", "threads", "", *_heads(batches)], body, left=4)
    return (
        "<details><summary>Microseconds a time step of the whole batch, everything measured</summary>\n\n"
        f"{text}\n\n</details>"
    )


def plot(results: Results, folder: Path) -> list[Path]:
    """Share of the GEMM rate by batch: a panel for each dtype and number of threads.

    Returns the file written: none where no rate was measured.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = results.suite("batched", operation="train_step")
    gemm = results.suite("batched gemm", operation="train_step")
    batches = _columns(rows)
    panels = {}
    for _, dtype, cores, some in _groups(rows, "train_step"):
        shares = _shares(some, _whole(gemm, dtype=dtype, cores=cores))
        if shares:
            panels[dtype, cores] = shares
    if not panels:
        return []
    contenders = names(rows, "backend", "peer")
    width = 0.8 / len(contenders)
    picture, axes = plt.subplots(
        len(panels),
        1,
        figsize=(8.5, 2.4 * len(panels) + 0.6),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    labels = {name: name for name in contenders} | {
        name: f"fastrnn, {name}" for name in names(rows, "backend")
    }
    tones = colours.of_contenders(names(rows, "backend"), names(rows, "peer"))
    for ax, ((dtype, cores), shares) in zip(axes[:, 0], panels.items(), strict=True):
        for i, name in enumerate(contenders):
            points = [
                (k + (i - (len(contenders) - 1) / 2) * width, 100 * shares[name][batch])
                for k, batch in enumerate(batches)
                if batch in shares.get(name, {})
            ]
            if points:
                ax.bar(*zip(*points, strict=True), width, color=tones[name], label=labels[name])
        ax.set_ylabel("% of GEMM rate")
        ax.set_title(f"{dtype}, {cores} thread{'s' if cores > 1 else ''}", fontsize=10)
        ax.grid(axis="y", alpha=0.3)
        ax.set_axisbelow(True)
        ax.set_xticks(range(len(batches)), [f"h={h}\nT={T}, N={N}" for h, T, N in batches])
    handles = {
        label: handle
        for ax in axes.flat
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    most = max(value for shares in panels.values() for found in shares.values() for value in found.values())
    axes[0, 0].set_ylim(0, max(100, 103 * most))
    picture.legend(handles.values(), handles, loc="outside right center", frameon=False)
    picture.suptitle("Training step: share of the machine's GEMM rate", fontsize=11)
    file = folder / PLOT
    picture.savefig(file, dpi=100)
    plt.close(picture)
    return [file]
