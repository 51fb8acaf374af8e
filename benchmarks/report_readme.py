"""The README's part: one figure in words, one picture, one small table.  All else is in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import colours
from report_batched import fastest_peers
from results import Results, Row, Size, names, speedups
from sizes import BASELINE
from tables import figure, table, times

#: (h, T) of the picture and of the table, and the one that the first sentence is about.
SHOWN = ((32, 100), (100, 100), (512, 64))
FIRST = (100, 100)

#: (h, T, N) of the batches in the table.
BATCHES = ((128, 50, 32), (512, 64, 64))

#: Contender as measured -> what the README calls it, in the order of the columns.
OTHERS = {BASELINE: "NumPy loop", "torch": "PyTorch", "jax": "JAX"}

#: The backend for where the compiled ones do not run: the table's row that loses.
PLAIN = "numpy"

PLOT = "speedup.png"


def headline(results: Results) -> str:
    """One sentence with one figure and its condition; nothing where it was not measured."""
    rows = _single(results, "train_step", "float64")
    fast, *_ = [*names(rows, "backend"), ""]
    mine = [row for row in rows if row.size == FIRST and row.contender == fast]
    ratios = {
        other: ratio for other in OTHERS if (ratio := speedups(rows, fast, other, "float64").get(FIRST))
    }
    if not mine or not ratios:
        return ""
    h, T = FIRST
    against = _listed(f"{times(ratio)} that of {_article(other)}" for other, ratio in ratios.items())
    return (
        f"Training on a sequence of {T} characters with {h} hidden units takes "
        f"**{figure(mine[0].seconds / T * 1e6)} microseconds a time step** in float64 on one core "
        f"({_machine(results)}). Its speed is {against}."
    )


def summary(results: Results) -> str:
    """The table, and how it was measured; nothing where none of its rows was."""
    body = [row for row in _rows(results) if any(row[2:])]
    if not body:
        return ""
    dates = " to ".join(dict.fromkeys([min(results.dates), max(results.dates)]))
    head = ["", "takes", *(f"than {_article(other)}" for other in OTHERS)]
    return (
        f"How many times faster than others at the same work, with h hidden units and T time steps, measured "
        f"{dates} on {_machine(results)}, one core where no threads are named. The NumPy loop is in float64; "
        "others have the same dtype, and of several forms the fastest counts. A ratio below 1 lost and is in "
        "bold. [All tables, and how they were measured](docs/benchmarks.md)\n\n"
        f"{table(head, body, left=1)}"
    )


def _rows(results: Results) -> Iterator[list[str]]:
    """Cells of each row of the table: what was done, its time, and the ratio for each of `OTHERS`."""
    for what, operation, dtype, sizes in (
        ("train on a sequence", "train_step", "float64", SHOWN),
        ("train on a sequence", "train_step", "float32", (FIRST,)),
        ("run over a sequence", "forward", "float32", ((256, 100),)),
    ):
        rows = _single(results, operation, dtype)
        fast, *_ = [*names(rows, "backend"), ""]
        yield from (_single_row(rows, fast, what, dtype, size) for size in sizes)
    yield from (_batch_row(results, batch) for batch in BATCHES)
    yield _char_rnn_row(results)
    rows = _single(results, "train_step", "float64")
    yield _single_row(rows, PLAIN, "train on a sequence, without compiled kernels", "float64", FIRST)


def _single(results: Results, operation: str, dtype: str) -> list[Row]:
    return results.suite("ratios", "operations", binding=False, operation=operation, dtype=dtype)


def _single_row(rows: list[Row], contender: str, what: str, dtype: str, size: Size) -> list[str]:
    h, T = size
    mine = next((row for row in rows if row.size == size and row.contender == contender), None)
    if mine is None:
        return [what, ""]
    ratios = (speedups(rows, contender, other, dtype).get(size) for other in OTHERS)
    cells = [times(ratio) if ratio else "" for ratio in ratios]
    return [f"{what}, h={h}, T={T}, {dtype}", f"{figure(mine.seconds / T * 1e6)} µs a step", *cells]


def _batch_row(results: Results, batch: tuple[int, int, int], dtype: str = "float32") -> list[str]:
    h, T, N = batch
    rows = [
        row
        for row in results.suite("batched", operation="train_step", dtype=dtype, h=h, T=T, N=N)
        if row.threads == row.cores
    ]
    most = max((row.cores for row in rows), default=0)
    rows = [row for row in rows if row.cores == most]
    mine = next((row for row in rows if row.kind == "backend"), None)
    if mine is None:
        return ["", ""]
    cells = []
    for other in OTHERS:
        # Forms of one library begin with its name: "jax, own backward".
        forms = [row for row in rows if row.contender.partition(",")[0] == other]
        rival = fastest_peers(forms).get(batch)
        cells.append(times(rival.seconds / mine.seconds) if rival else "")
    what = f"train on {N} sequences, h={h}, T={T}, {dtype}, {_threads(most)}"
    return [what, f"{figure(mine.seconds / T * 1e6)} µs a step", *cells]


def _char_rnn_row(results: Results) -> list[str]:
    found = {row.contender: row for row in results.suite("char_rnn train") if row.cell in ("", "rnn")}
    mine = found.get("CharRNN")
    if mine is None:
        return ["", ""]
    cells = [times(found[other].seconds / mine.seconds) if other in found else "" for other in OTHERS]
    what = (
        f"`CharRNN.fit` on a text, h={mine.h}, T={mine.T}, N={mine.N}, {mine.dtype}, {_threads(mine.threads)}"
    )
    return [what, f"{figure(mine.seconds * 1e3)} ms a chunk", *cells]


def _article(other: str) -> str:
    return f"the {OTHERS[other]}" if other == BASELINE else OTHERS[other]


def _threads(n: int) -> str:
    return f"{n} thread{'s' if n > 1 else ''}"


def _machine(results: Results) -> str:
    """The processor as part of a sentence, without a bracket of its own."""
    cpu: str = results.machine["cpu"]
    return cpu.replace(" (", ", ").replace(")", "")


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def plot(results: Results, folder: Path) -> list[Path]:
    """Time of a training step as a share of the NumPy loop's: a panel for each of `SHOWN`.

    Returns the file written: none where nothing was measured beside the loop.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = _single(results, "train_step", "float64")
    fast, *_ = [*names(rows, "backend"), ""]
    panels: dict[Size, dict[str, float]] = {}
    for size in SHOWN:
        found = {row.contender: row.seconds / row.T * 1e6 for row in rows if row.size == size}
        if fast in found and BASELINE in found:
            panels[size] = {name: found[name] for name in (*OTHERS, fast) if name in found}
    if not panels:
        return []
    labels = OTHERS | {fast: "fastrnn"}
    figure_, axes = plt.subplots(
        1, len(panels), figsize=(3.1 * len(panels) + 0.6, 2.6), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    shown = [name for name in labels if any(name in found for found in panels.values())]
    tones = colours.of_contenders([], [name for name in shown if name != fast]) | {fast: colours.FASTRNN}
    for ax, ((h, T), found) in zip(axes[0], panels.items(), strict=True):
        _panel(ax, found, shown, fast, tones)
        ax.set_title(f"{h} hidden units, {T} time steps", fontsize=10)
        ax.set_yticks(range(len(shown)), [labels[name] for name in shown])
    axes[0][0].invert_yaxis()
    for tick, name in zip(axes[0][0].get_yticklabels(), shown, strict=True):
        tick.set_fontweight("bold" if name == fast else "normal")
    figure_.suptitle("Training on one sequence, microseconds a time step (shorter is better)", fontsize=11)
    figure_.supxlabel("share of the NumPy loop's time; float64, one core", fontsize=9)
    file = folder / PLOT
    figure_.savefig(file, dpi=130)
    plt.close(figure_)
    return [file]


def _panel(ax: Any, found: dict[str, float], shown: list[str], fast: str, tones: dict[str, str]) -> None:
    """Bars with their times in microseconds beside them."""
    for i, name in enumerate(shown):
        if name in found:
            part = found[name] / found[BASELINE]
            ax.barh(i, part, 0.72, color=tones[name])
            inside = part > 0.6
            ax.annotate(
                f"{figure(found[name])} µs",
                (part, i),
                xytext=(-4 if inside else 4, 0),
                textcoords="offset points",
                ha="right" if inside else "left",
                va="center",
                fontsize=9,
                fontweight="bold" if name == fast else "normal",
                color="white" if inside else "black",
            )
    ax.set_xlim(0, 1.02 * max(1.0, *(value / found[BASELINE] for value in found.values())))
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "", "50%", "", "100%"])
    ax.tick_params(labelsize=9, length=0)
    for side in ("top", "right", "bottom", "left"):
        ax.spines[side].set_visible(False)
    ax.axvline(0, color="0.4", linewidth=1)
