"""Write docs/benchmarks.md, the README's figures and the plots, between markers, from measured JSON.

    python benchmarks/report.py                      # measure everything, about 2 hours, then write
    python benchmarks/report.py --short              # without the grid behind the plots, about 40 minutes
    python benchmarks/report.py --from a.json b.json # write from earlier results

The tables' ratios come from `ratios.py`, `batched.py`, `gated.py`, `few.py`, `stepper.py`, `char_rnn.py` and `fit.py`, which
let the contenders take turns; the plots across T and h, the slopes and the first use from pytest-benchmark.  The shortest
time of many is what counts, but in training a text, where it is all the time it took.
The README gets one sentence, one picture and one small table (`report_readme.py`), the page all the rest.
Results are kept in .benchmarks/, which git ignores.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import colours
import report_batched
import report_char_rnn
import report_few
import report_fit
import report_gated
import report_readme
import report_stepper
from results import ReportError, Results, Row, Size, names, read, speedups
from sizes import BASELINE, DTYPES, OPERATIONS, SIZES, VOCABULARY
from tables import geometric_mean, seconds_text, table, times

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

#: What the page's first tables show; BPTT by itself is in the last one.
SHOWN_FIRST = ("train_step", "forward", "sample")


# -- arithmetic ----------------------------------------------------------------------------------


def slope(points: Iterable[tuple[float, float]]) -> float:
    """Least-squares slope of log(time) over log(T)."""
    T, seconds = zip(*points, strict=True)
    return statistics.linear_regression([math.log(t) for t in T], [math.log(s) for s in seconds]).slope


# -- text ----------------------------------------------------------------------------------------


def _size_heads(sizes: list[Size]) -> list[str]:
    return [f"h={h}, T={T}" for h, T in sizes]


def section(results: Results, plots: list[str]) -> str:
    """The Markdown of docs/benchmarks.md between its markers."""
    parts = [
        _machine_text(results),
        _speedup_table(results),
        _peers_summary(results),
        _binding_table(results),
        _floor_table(results),
        _scaling_table(results),
        _first_use_table(results),
        *(
            f"![Speed-up over the reference loop across T and h, {name}]({name})"
            for name in plots
            if "speedup-" in name
        ),
        _times_table(results),
        *report_batched.parts(results, plots),
        *report_gated.parts(results),
        *report_few.parts(results),
        *report_stepper.parts(results),
        *report_char_rnn.parts(results),
        *report_fit.parts(results),
    ]
    if not any(parts[1:]):
        raise ReportError("the results hold none of the benchmarks of this report")
    return "\n\n".join(part for part in parts if part)


def _machine_text(results: Results) -> str:
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    dates = " to ".join(dict.fromkeys([min(results.dates), max(results.dates)]))
    how = "taking turns in one process" if results.suite("ratios") else "one after the other"
    return (
        f"Measured {dates} by `python benchmarks/report.py` on {machine['cpu']}, {machine['cores']} cores, "
        f"with {versions}. Up to the part about batches: one sequence, one thread, {VOCABULARY} characters. Each time is the shortest of "
        f"many calls, the contenders {how}. The reference is the notes' loop in float64, `ReferenceRNN`; "
        f"a ratio below 1 lost and is in bold."
    )


def _main_rows(results: Results, **where: Any) -> list[Row]:
    return results.suite("ratios", "operations", **where)


def _speedup_table(results: Results) -> str:
    rows = _main_rows(results, binding=False)
    sizes = [size for size in SIZES if any(row.size == size for row in rows)]
    body = []
    for operation in SHOWN_FIRST:
        for dtype in DTYPES:
            some = [row for row in rows if row.operation == operation]
            for contender in names(some, "backend", "reference"):
                ratios = speedups(some, contender, BASELINE, dtype)
                ratios = {size: ratios[size] for size in sizes if size in ratios}
                if contender == BASELINE or not ratios:
                    continue
                cells = [times(ratios[size]) if size in ratios else "" for size in sizes]
                body.append(
                    [f"`{operation}`", dtype, contender, *cells, times(geometric_mean(ratios.values()))]
                )
    if not body:
        return ""
    head = ["", "dtype", "backend", *_size_heads(sizes), "geometric mean"]
    return "Times faster than the reference loop in float64:\n\n" + table(head, body, left=3)


def _peers_summary(results: Results) -> str:
    rows = [row for row in _main_rows(results, binding=False) if row.size in SIZES]
    backends, peers = names(rows, "backend"), names(rows, "peer")
    body = []
    for operation in SHOWN_FIRST:
        some = [row for row in rows if row.operation == operation]
        for contender in backends:
            against = _both_dtypes(some, contender, BASELINE)
            if not against:
                continue
            cells = [times(geometric_mean(against.values()))]
            for peer in peers:
                cells.append(_mean_and_worst(_both_dtypes(some, contender, peer)))
            body.append([f"`{operation}`", contender, *cells])
    if not body:
        return ""
    head = ["", "backend", "reference, float64", *(f"{peer}, same dtype" for peer in peers)]
    text = "Geometric means over those sizes and both dtypes"
    if peers:
        text += (
            ", and in brackets the worst single case, against other libraries at the same work "
            "(ONNX Runtime: forward in float32 only; peers clamp gradients once, not at every time step)"
        )
    return f"{text}:\n\n{table(head, body, left=2)}"


def _both_dtypes(rows: list[Row], contender: str, against: str) -> dict[tuple[int, int, str], float]:
    return {
        (*size, dtype): ratio
        for dtype in DTYPES
        for size, ratio in speedups(rows, contender, against, dtype).items()
    }


def _mean_and_worst(ratios: dict[tuple[int, int, str], float]) -> str:
    if not ratios:
        return ""
    (h, T, dtype), worst = min(ratios.items(), key=lambda item: item[1])
    return f"{times(geometric_mean(ratios.values()))} ({times(worst)} at h={h}, T={T}, {dtype})"


def _binding_table(results: Results) -> str:
    rows = _main_rows(results, binding=True)
    body = []
    for operation in OPERATIONS:
        for contender in names(rows, "backend"):
            some = [row for row in rows if row.operation == operation]
            cells = []
            for dtype in DTYPES:
                ratios = speedups(some, contender, BASELINE, dtype)
                cells.append(times(geometric_mean(ratios.values())) if ratios else "")
            if any(cells):
                body.append([f"`{operation}`", contender, *cells])
    if not body:
        return ""
    (h, T), *_ = [row.size for row in rows]
    head = ["", "backend", *DTYPES]
    return (
        f"Where clamps bind in every gradient (large weights, uneven characters, h={h}, T={T}), against the "
        f"reference loop in float64:\n\n{table(head, body, left=2)}"
    )


def _floor_table(results: Results) -> str:
    rows = results.suite("floor")
    floors = {(row.h, row.dtype): row.seconds for row in rows if row.kind == "floor"}
    hidden = sorted({row.h for row in rows})
    body = []
    for dtype in DTYPES:
        some = [row for row in rows if row.dtype == dtype and row.kind == "backend"]
        for contender in names(some, "backend"):
            found = {row.h: row.seconds / floors[row.h, dtype] for row in some if row.contender == contender}
            body.append([dtype, contender, *(f"{found[h]:.2f}" if h in found else "" for h in hidden)])
    if not body:
        return ""
    head = ["dtype", "backend", *(f"h={h}" for h in hidden)]
    return (
        "Time of the recurrent part of `forward`, per step, in units of a bare C matrix-vector product and "
        f"tanh of the same size:\n\n{table(head, body, left=2)}"
    )


def _scaling_table(results: Results) -> str:
    rows = results.suite("scaling")
    body = []
    lengths = sorted({row.T for row in rows})
    for operation in OPERATIONS:
        for contender in names(rows, "backend"):
            found = {
                row.T: row.seconds
                for row in rows
                if row.operation == operation and row.contender == contender
            }
            if len(found) > 1:
                cells = [f"{found[T] / T * 1e6:.2f}" if T in found else "" for T in lengths]
                body.append([f"`{operation}`", contender, *cells, f"{slope(found.items()):.2f}"])
    if not body:
        return ""
    head = ["", "backend", *(f"T={T}" for T in lengths), "slope"]
    return (
        f"Microseconds a time step as sequences grow, h={rows[0].h}, {rows[0].dtype}, and the slope of "
        f"log time over log T (1 is linear):\n\n{table(head, body, left=2)}"
    )


def _first_use_table(results: Results) -> str:
    processes, warmups = results.suite("process"), results.suite("warmup")
    parts = []
    alternated = results.suite("process turns")
    if processes or alternated:
        found = {row.contender: row.seconds for row in [*processes, *alternated]}
        body = [[label, seconds_text(seconds)] for label, seconds in found.items()]
        parts.append(
            'Whole processes, from start to end; "hello" is the notes\' program:\n\n'
            + table(["process", "time"], body, left=1)
        )
    if warmups:
        body = [[row.contender, seconds_text(row.seconds)] for row in warmups]
        parts.append(
            "Getting every kernel of one dtype ready (`fastrnn.warmup`), beyond the imports:\n\n"
            + table(["backend", "time"], body, left=1)
        )
    return "\n\n".join(parts)


def _times_table(results: Results) -> str:
    rows = [row for row in _main_rows(results, binding=False) if row.size in SIZES]
    sizes = [size for size in SIZES if any(row.size == size for row in rows)]
    body = []
    for operation in OPERATIONS:
        for dtype in DTYPES:
            some = [row for row in rows if row.operation == operation and row.dtype == dtype]
            for contender in names(some, "reference", "backend", "peer"):
                if contender == BASELINE and dtype != "float64":
                    continue
                found = {row.size: row.seconds / row.T * 1e6 for row in some if row.contender == contender}
                cells = [f"{found[size]:.3g}" if size in found else "" for size in sizes]
                body.append([f"`{operation}`", dtype, contender, *cells])
    if not body:
        return ""
    text = table(["", "dtype", "", *_size_heads(sizes)], body, left=3)
    return (
        f"<details><summary>Microseconds a time step, everything measured</summary>\n\n{text}\n\n</details>"
    )


# -- the files and the plots ---------------------------------------------------------------------


def replace_section(text: str, new: str, name: str = "benchmarks", file: str = "the README") -> str:
    """`text` with what stands between the markers called `name` replaced by `new`.

    Raises
    ------
    ReportError
        If the markers are not there exactly once, in order.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ReportError(f"{file} must hold {start} and then {end}, each once")
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n{new}\n{end}{after}"


def written(file: Path, sections: dict[str, str]) -> str:
    """The text of `file` with each of `sections` between the markers of its name."""
    text = file.read_text(encoding="utf-8")
    for name, new in sections.items():
        text = replace_section(text, new, name, file.name)
    return text


def links(files: list[Path], page: Path) -> list[str]:
    """Links to `files` as they stand in `page`."""
    return [Path(os.path.relpath(file.resolve(), page.resolve().parent)).as_posix() for file in files]


def readme_sections(results: Results, plots: list[str]) -> dict[str, str]:
    """The Markdown of the README's two parts, by the name of their markers; `plots` are links to all."""
    pictures = [
        f"![Time of a training step: fastrnn, JAX, PyTorch and the NumPy loop at three sizes]({name})"
        for name in plots
        if Path(name).name == report_readme.PLOT
    ]
    return {
        "headline": "\n\n".join(filter(None, [report_readme.headline(results), *pictures])),
        "benchmarks": report_readme.summary(results),
    }


def plot(results: Results, folder: Path) -> list[Path]:
    """Speed-up over the reference across T and h: a file for each dtype, a panel for each operation
    and backend.  Returns the files written: none without a grid of sizes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in results.suite("operations") if not row.binding]
    hidden = sorted({row.h for row in rows})
    backends = names(rows, "backend")
    if len({row.T for row in rows}) < 2 or not backends:
        return []
    tones = dict(zip(hidden, colours.shades(len(hidden)), strict=True))
    operations = [operation for operation in OPERATIONS if any(row.operation == operation for row in rows)]
    files = []
    for dtype in DTYPES:
        if not any(row.dtype == dtype and row.kind == "backend" for row in rows):
            continue
        figure, axes = plt.subplots(
            len(operations),
            len(backends),
            figsize=(3.4 * len(backends) + 1.2, 2.5 * len(operations) + 0.6),
            sharex=True,
            sharey="row",
            squeeze=False,
            layout="constrained",
        )
        for operation, line_of_axes in zip(operations, axes, strict=True):
            some = [row for row in rows if row.operation == operation]
            for backend, ax in zip(backends, line_of_axes, strict=True):
                _panel(ax, speedups(some, backend, BASELINE, dtype), tones)
                ax.set_title(f"{operation}, {backend}", fontsize=10)
            line_of_axes[0].set_ylabel("times faster")
        for ax in axes[-1]:
            ax.set_xlabel("time steps T")
        handles = {line.get_label(): line for ax in axes.flat for line in ax.get_lines()}
        labels = [label for label in (f"h={h}" for h in hidden) if label in handles]
        figure.legend([handles[label] for label in labels], labels, loc="outside right center", frameon=False)
        figure.suptitle(
            f"Speed-up over the reference loop (float64); backends in {dtype}, one thread", fontsize=11
        )
        file = folder / f"speedup-{dtype}.png"
        figure.savefig(file, dpi=100)
        plt.close(figure)
        files.append(file)
    return files


def _panel(ax: Any, ratios: dict[Size, float], tones: dict[int, str]) -> None:
    ticks = [0.5, 1, 2, 5, 10, 20, 50, 100, 200]
    for h, colour in tones.items():
        points = sorted((T, ratio) for (hidden, T), ratio in ratios.items() if hidden == h)
        if points:
            ax.plot(
                *zip(*points, strict=True), "o-", color=colour, label=f"h={h}", markersize=3.5, linewidth=1.4
            )
    ax.axhline(1, color="0.4", linestyle="--", linewidth=1)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_yticks(ticks, [f"{tick:g}x" for tick in ticks])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.grid(alpha=0.3)


# -- the command ---------------------------------------------------------------------------------


def measure(folder: Path, short: bool) -> list[Path]:
    """Run the benchmarks; the JSON files that they wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    less = ["--short"] if short else []
    fewer = ["--steps", "100000"] if short else []
    # What batched.py measures is not measured again.
    chosen = (
        "first_use or scaling or floor"
        if short
        else "not test_batched and not test_step and not test_gated and not test_few"
    )
    options: dict[str, list[str]] = {
        "ratios": [], "batched": less, "gated": less, "few": less, "few_busy": ["--busy", *less], "stepper": fewer,
        "char_rnn": less, "fit": less,
    }  # fmt: skip
    files = {name: folder / f"{name}.json" for name in (*options, "suite")}
    commands = [
        [sys.executable, str(HERE / f"{name.removesuffix('_busy')}.py"), "--json", str(files[name]), *more]
        for name, more in options.items()
    ]
    pytest = [sys.executable, "-m", "pytest", str(HERE), "-q", "--benchmark-json", str(files["suite"])]
    commands.append([*pytest, "--benchmark-columns=min,median,rounds", "--all", "-k", chosen])
    for command in commands:
        print("running", *(Path(word).name if os.sep in word else word for word in command), flush=True)
        # From its own folder: the checkout's root would hide an installed fastrnn.
        done = subprocess.run(command, cwd=HERE)
        if done.returncode:
            raise ReportError(f"the benchmarks failed (exit code {done.returncode}); nothing was written")
    return list(files.values())


def main(arguments: list[str] | None = None, measure: Callable[[Path, bool], list[Path]] = measure) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--from", dest="sources", type=Path, nargs="+", metavar="JSON", help="use these results"
    )
    parser.add_argument("--short", action="store_true", help="measure without the grid behind the plots")
    parser.add_argument("--results", type=Path, default=ROOT / ".benchmarks", help="where JSON is kept")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="the file for the summary")
    parser.add_argument(
        "--page", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the file for all tables"
    )
    parser.add_argument("--plots", type=Path, default=ROOT / "docs" / "images", help="the folder for plots")
    options = parser.parse_args(arguments)
    try:
        # Before minutes of measuring: both files are there, with their markers.
        written(options.readme, {"headline": "", "benchmarks": ""})
        written(options.page, {"benchmarks": ""})
        results = read(options.sources or measure(options.results, options.short))
        plots = [
            *plot(results, options.plots),
            *report_batched.plot(results, options.plots),
            *report_readme.plot(results, options.plots),
        ]
        # Both texts first, so that neither file is written when the other cannot be.
        texts = {
            options.page: written(options.page, {"benchmarks": section(results, links(plots, options.page))}),
            options.readme: written(options.readme, readme_sections(results, links(plots, options.readme))),
        }
        for file, text in texts.items():
            file.write_text(text, encoding="utf-8")
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("wrote", options.page, options.readme, *plots)
    return 0


if __name__ == "__main__":
    sys.exit(main())
