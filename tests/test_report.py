"""The benchmark report: its arithmetic, what it shows, and that it never writes half of its files."""

import json
from pathlib import Path

import pytest

MACHINE = {"cpu": "A processor", "cores": 3, "versions": {"python": "3.12.0", "numpy": "2.1.0"}}

PAGE = "# Title\n\nbefore\n<!-- benchmarks:start -->\nold\n<!-- benchmarks:end -->\nafter\n"
README = "<!-- headline:start -->\nold\n<!-- headline:end -->\n" + PAGE


@pytest.fixture
def report(import_benchmark):
    return import_benchmark("report")


def record(contender, seconds, *, kind="backend", suite="ratios", operation="forward", h=32, T=100, **more):
    info = {
        "suite": suite,
        "kind": kind,
        "operation": operation,
        "h": h,
        "T": T,
        "dtype": "float64",
        "binding": False,
        "contender": contender,
        **more,
    }
    return {"name": contender, "extra_info": info, "stats": {"min": seconds, "median": 2 * seconds}}


def write(path, records, machine=MACHINE):
    document = {
        "machine_info": {"fastrnn": machine},
        "datetime": "2025-11-22T10:00:00+00:00",
        "benchmarks": records,
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture
def ratios():
    """Two sizes; `fast` wins both against the reference and one against jax, `slow` loses one."""
    return [
        record("reference", 8.0, kind="reference"),
        record("fast", 1.0),
        record("slow", 10.0),
        record("jax", 4.0, kind="peer"),
        record("reference", 9.0, kind="reference", h=100),
        record("fast", 0.5, h=100),
        record("slow", 3.0, h=100),
        record("jax", 0.25, kind="peer", h=100),
    ]


def cells(text, *first):
    """Cells of the table row that begins with `first`."""
    for line in text.splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if row[: len(first)] == list(first):
            return row[len(first) :]
    raise AssertionError(f"no row {first} in\n{text}")


def test_speedup_table_has_every_size_the_mean_and_the_rows_that_lose(report, tmp_path, ratios):
    text = report.section(report.read([write(tmp_path / "r.json", ratios)]), [])
    assert cells(text, "", "dtype", "backend") == ["h=32, T=100", "h=100, T=100", "geometric mean"]
    assert cells(text, "`forward`", "float64", "fast") == ["8.0x", "18x", "12x"]
    assert cells(text, "`forward`", "float64", "slow") == ["**0.80x**", "3.0x", "1.5x"]


def test_peers_are_compared_by_mean_and_worst_case(report, tmp_path, ratios):
    text = report.section(report.read([write(tmp_path / "r.json", ratios)]), [])
    # 4 / 1 and 0.25 / 0.5: a mean of sqrt(2), the worst a half.
    assert cells(text, "`forward`", "fast") == ["12x", "1.4x (**0.50x** at h=100, T=100, float64)"]


def test_times_are_shown_per_time_step_for_everybody(report, tmp_path, ratios):
    text = report.section(report.read([write(tmp_path / "r.json", ratios)]), [])
    assert cells(text, "`forward`", "float64", "jax") == ["4e+04", "2.5e+03"]
    assert len([line for line in text.splitlines() if line.startswith("| `forward` | float64 |")]) == 2 + 4


def test_float32_is_held_against_the_float64_reference_and_against_peers_in_float32(report, tmp_path):
    records = [
        record("reference", 8.0, kind="reference"),
        record("fast", 1.0),
        record("jax", 2.0, kind="peer"),
        record("reference-float32", 6.0, kind="reference", dtype="float32"),
        record("fast", 0.5, dtype="float32"),
        record("jax", 0.25, kind="peer", dtype="float32"),
    ]
    text = report.section(report.read([write(tmp_path / "r.json", records)]), [])
    assert cells(text, "`forward`", "float32", "fast") == ["16x", "16x"]
    assert cells(text, "`forward`", "float32", "reference-float32") == ["1.3x", "1.3x"]
    assert cells(text, "`forward`", "fast") == ["11x", "1.00x (**0.50x** at h=32, T=100, float32)"]


def test_a_reference_timed_beside_float32_is_preferred_to_the_other_group(report):
    rows = [
        report.Row("ratios", "reference", "reference", 8.0, "forward", 32, 100, "float64"),
        report.Row("ratios", "reference", "reference", 6.0, "forward", 32, 100, "float32"),
        report.Row("ratios", "fast", "backend", 2.0, "forward", 32, 100, "float32"),
    ]
    assert report.speedups(rows, "fast", "reference", "float32") == {(32, 100): 3.0}


def test_interleaved_times_win_over_those_of_the_grid(report, tmp_path, ratios):
    grid = [
        record("reference", 1.0, kind="reference", suite="operations"),
        record("fast", 1.0, suite="operations"),
    ]
    text = report.section(
        report.read([write(tmp_path / "a.json", grid), write(tmp_path / "b.json", ratios)]), []
    )
    assert cells(text, "`forward`", "float64", "fast") == ["8.0x", "18x", "12x"]


def test_a_case_measured_twice_counts_once_by_its_shortest_time(report, tmp_path, ratios):
    again = [record("fast", 0.25), record("slow", 20.0)]
    sources = [write(tmp_path / "a.json", ratios), write(tmp_path / "b.json", again)]
    text = report.section(report.read(sources), [])
    assert cells(text, "`forward`", "float64", "fast") == ["32x", "18x", "24x"]
    assert cells(text, "`forward`", "float64", "slow") == ["**0.80x**", "3.0x", "1.5x"]


def test_the_grid_alone_will_do(report, tmp_path):
    grid = [
        record("reference", 6.0, kind="reference", suite="operations"),
        record("fast", 1.0, suite="operations"),
        record("reference", 1.0, kind="reference", suite="operations", h=1024, T=1),
        record("fast", 1.0, suite="operations", h=1024, T=1),
    ]
    text = report.section(report.read([write(tmp_path / "a.json", grid)]), [])
    assert cells(text, "`forward`", "float64", "fast") == ["6.0x", "6.0x"]


def test_binding_clamps_have_a_table_of_their_own(report, tmp_path, ratios):
    binding = [
        record("reference", 6.0, kind="reference", operation="backward", h=100, binding=True),
        record("fast", 2.0, operation="backward", h=100, binding=True),
    ]
    text = report.section(report.read([write(tmp_path / "r.json", ratios + binding)]), [])
    assert cells(text, "`backward`", "fast") == ["3.0x", ""]
    assert cells(text, "`forward`", "float64", "fast") == ["8.0x", "18x", "12x"]


def test_floor_is_in_units_of_the_bare_product(report, tmp_path):
    records = [
        record("bare C", 2e-7, kind="floor", suite="floor", operation="recurrent step", T=1),
        record("cython", 2.5e-7, suite="floor", operation="recurrent step", T=1),
    ]
    text = report.section(report.read([write(tmp_path / "r.json", records)]), [])
    assert cells(text, "dtype", "backend") == ["h=32"]
    assert cells(text, "float64", "cython") == ["1.25"]


def batch(contender, seconds, *, threads=2, cores=2, operation="train_step", size=(64, 50, 32), **more):
    h, T, N = size
    more = {"suite": "batched", "N": N, "threads": threads, "cores": cores} | more
    return record(contender, seconds, operation=operation, h=h, T=T, **more)


@pytest.fixture
def batched():
    """On two threads `fast` wins against the faster of two forms of a peer at one size and loses at the
    other; the rate is that of a product of 2048-square matrices a second."""
    return [
        batch("fast", 2.0),
        batch("fast", 3.0, threads=1),
        batch("peer", 8.0, kind="peer"),
        batch("peer, other form", 6.0, kind="peer"),
        batch("gemm, some", 1.0, kind="gemm", suite="batched gemm"),
        batch("fast", 4.0, size=(256, 64, 64)),
        batch("peer", 3.0, kind="peer", size=(256, 64, 64)),
        batch("peer, other form", 5.0, kind="peer", size=(256, 64, 64)),
        batch("gemm, some", 0.5, kind="gemm", suite="batched gemm", size=(256, 64, 64)),
    ]


HEADS = ["h=64, T=50, N=32", "h=256, T=64, N=64"]


def test_batches_are_held_against_the_fastest_form_of_any_peer_and_losers_stay(report, tmp_path, batched):
    text = report.section(report.read([write(tmp_path / "r.json", batched)]), [])
    assert cells(text, "", "dtype", "threads", "backend") == HEADS
    assert cells(text, "`train_step`", "float64", "2", "fast") == ["3.0x", "**0.75x**"]
    assert cells(text, "`train_step`", "float64", "2", "the fastest peer") == ["peer, other form", "peer"]


def test_a_backward_pass_by_hand_counts_but_is_told_from_automatic_differentiation(report, tmp_path, batched):
    batched[3] = batch("jax, own backward", 6.0, kind="peer")
    text = report.section(report.read([write(tmp_path / "r.json", batched)]), [])
    start = "`train_step`", "float64", "2"
    assert cells(text, *start, "fast") == ["3.0x", "**0.75x**"]
    assert cells(text, *start, "fast, against automatic differentiation") == ["4.0x", "**0.75x**"]


def test_share_of_the_gemm_rate_counts_the_products_of_a_training_step(report, tmp_path, batched):
    # 6 T N h (h + 65) operations of the 2 * 2048 ** 3 that a second, then half a second, could have made.
    seconds = 6 * 50 * 32 * 64 * (64 + 65) / (2 * 2048**3)
    batched[0]["stats"]["min"] = 4 * seconds
    batched[5]["stats"]["min"] = 6 * 64 * 64 * 256 * (256 + 65) / (2 * 2048**3)
    text = report.section(report.read([write(tmp_path / "r.json", batched)]), [])
    assert cells(text, "float64", "2", "fast") == ["25%", "50%"]
    assert cells(text, "float64", "2", "gemm, some, GFLOP/s") == ["17", "34"]


def test_threads_are_compared_in_the_process_of_all_cores(report, tmp_path, batched):
    alone = [batch("fast", 30.0, threads=1, cores=1)]
    text = report.section(report.read([write(tmp_path / "r.json", batched + alone)]), [])
    assert "Times faster on 2 threads than on one" in text
    assert cells(text, "`train_step`", "float64", "fast") == ["1.5x", ""]


def test_streams_are_compared_by_characters_a_second(report, tmp_path):
    records = [
        batch("fast", 2.0, operation="sample"),  # 50 * 32 characters: 800 a second
        batch("fast", 4.0, operation="sample", size=(64, 800, 1)),  # 200 a second
    ]
    text = report.section(report.read([write(tmp_path / "r.json", records)]), [])
    assert cells(text, "float64", "2", "fast") == ["4.0x"]
    # The single stream is no batch of its own.
    assert cells(text, "`sample`", "float64", "2", "fast") == ["40000"]


def test_batches_have_a_plot_of_their_shares(report, tmp_path, batched):
    pytest.importorskip("matplotlib")
    results = report.read([write(tmp_path / "r.json", batched)])
    (file,) = report.report_batched.plot(results, tmp_path)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert f"]({file.name})" in report.section(results, [file.name])
    # Without a rate there is nothing to draw.
    rest = [row for row in batched if "gemm" not in row["name"]]
    assert report.report_batched.plot(report.read([write(tmp_path / "s.json", rest)]), tmp_path) == []


def gates(contender, seconds, cell="lstm", operation="forward", size=(64, 50, 32), dtype="float32", **more):
    """A row of `gated.py`; its products are a hundredth of those of a 2048-square product, `GEMM`'s."""
    h, T, N = size
    return record(
        contender, seconds, operation=operation, h=h, T=T, dtype=dtype,
        **{"suite": "gated", "N": N, "threads": 2, "cell": cell, "multiply_adds": 2048**3 / 100} | more,
    )  # fmt: skip


GEMM = {"kind": "gemm", "suite": "gated gemm"}


@pytest.fixture
def gated():
    """`fast` wins against torch and loses against `other`, which has float32 and forward only."""
    return [
        gates("fast", 50 * 2e-6),
        gates("slow", 50 * 3e-6),
        gates("torch", 50 * 8e-6, kind="peer"),
        gates("other", 50 * 1e-6, kind="peer"),
        gates("gemm, some", 50 * 1.5e-4, **GEMM),
        gates("fast", 50 * 4e-6, dtype="float64"),
        gates("torch", 50 * 2e-6, kind="peer", dtype="float64"),
        gates("fast", 50 * 8e-6, cell="gru", operation="forward and backward"),
        gates("torch", 50 * 4e-5, kind="peer", cell="gru", operation="forward and backward"),
        gates("gemm, some", 50 * 4e-4, **GEMM, cell="gru", operation="forward and backward"),
        gates("gemm, some", 1.0, **GEMM, cell="gru", operation="forward and backward", size=(64, 50, 1)),
    ]


def test_gates_are_held_against_the_first_backend_and_losers_stay(report, tmp_path, gated):
    text = report.section(report.read([write(tmp_path / "r.json", gated)]), [])
    assert "## GRU and LSTM" in text
    assert "everybody on 2 threads" in text
    forward, both = text.split("Forward and backward:")
    shape = "64, 50, 32"
    heads = ["fast", "slow", "torch", "other", "of the GEMM rate"]
    assert cells(forward, "", "dtype", "h, T, N") == heads
    assert cells(forward, "LSTM", "float64", shape) == ["4.0", "", "2.0 (**0.50x**)", "", ""]
    # A hundredth of the product's arithmetic in a 75th of its time.
    row = ["2.0", "3.0 (1.5x)", "8.0 (4.0x)", "1.0 (**0.50x**)", "75%"]
    assert cells(forward, "LSTM", "float32", shape) == row
    assert cells(both, "", "dtype", "h, T, N") == ["fast", "torch", "of the GEMM rate"]
    assert cells(both, "GRU", "float32", shape) == ["8.0", "40.0 (5.0x)", "50%"]
    assert len([line for line in text.splitlines() if line.startswith(("| GRU", "| LSTM"))]) == 3


def test_the_program_of_gates_shows_the_same_tables(report, tmp_path, gated):
    results = report.read([write(tmp_path / "r.json", gated)])
    text = report.report_gated.comparison(results.rows)
    assert text in report.section(results, [])
    # Peers alone are beside the first of them.
    peers = [row for row in results.rows if row.kind == "peer" and row.operation == "forward"]
    text = report.report_gated.comparison(peers)
    assert cells(text, "LSTM", "float32", "64, 50, 32") == ["8.0", "1.0 (**0.12x**)", ""]


def few(contender, seconds, *, operation="forward", size=(512, 1), dtype="float32", threads=2, **more):
    """A row of `few.py`, microseconds a step."""
    h, N = size
    return record(
        contender, 64 * seconds * 1e-6, operation=operation, h=h, T=64, dtype=dtype,
        **{"suite": "few", "N": N, "threads": threads, "cores": 2} | more,
    )  # fmt: skip


@pytest.fixture
def few_rows():
    """`fast` is twice as fast on two threads, and at (1024, 16) no faster; there it loses to a form of JAX."""
    peer = {"kind": "peer"}
    return [
        few("fast", 10.0),
        few("fast", 20.0, threads=1),
        few("fast, before", 40.0, kind="before"),
        few("torch", 80.0, **peer),
        few("jax", 30.0, **peer),
        few("jax, transposed", 90.0, **peer),
        few("fast", 100.0, size=(1024, 16)),
        few("fast", 100.0, size=(1024, 16), threads=1),
        few("fast, before", 100.0, size=(1024, 16), kind="before"),
        few("torch", 300.0, size=(1024, 16), **peer),
        few("jax", 200.0, size=(1024, 16), **peer),
        few("jax, transposed", 75.0, size=(1024, 16), **peer),
        # Not one of those that the means go over.
        few("fast", 1.0, size=(256, 32)),
        few("fast", 9.0, size=(256, 32), threads=1),
        few("jax", 7.0, size=(256, 32), **peer),
        few("fast", 8.0, dtype="float64", operation="train_step"),
        few("fast", 12.0, dtype="float64", operation="train_step", threads=1),
        few("torch", 16.0, dtype="float64", operation="train_step", **peer),
    ]


def test_few_sequences_have_means_the_worst_and_every_row_that_loses(report, tmp_path, few_rows):
    text = report.section(report.read([write(tmp_path / "r.json", few_rows)]), [])
    assert "## A few sequences on every core" in text
    assert cells(text, "`forward`", "fast") == [
        "2 of 12", "1.4x (1.00x at h=1024, N=16, float32)", "1.5x (**0.75x** at h=1024, N=16, float32)",
        "2.0x (1.00x at h=1024, N=16, float32)",
    ]  # fmt: skip
    assert cells(text, "`train_step`", "fast") == [
        "1 of 12", "1.5x (1.5x at h=512, N=1, float64)", "2.0x (2.0x at h=512, N=1, float64)", "",
    ]  # fmt: skip
    training, forward = text.split("`train_step`, microseconds")[1].split("`forward`, microseconds")
    assert cells(training, "dtype", "h, N") == ["fast", "fast, one thread", "torch"]
    assert cells(training, "float64", "512, 1") == ["8.0", "12.0 (1.5x)", "16.0 (2.0x)"]
    assert cells(forward, "dtype", "h, N") == [
        "fast", "fast, one thread", "fast, before", "torch", "jax", "jax, transposed",
    ]  # fmt: skip
    assert cells(forward, "float32", "1024, 16") == [
        "100.0", "100.0 (1.00x)", "100.0 (1.00x)", "300.0 (3.0x)", "200.0 (2.0x)", "75.0 (**0.75x**)",
    ]  # fmt: skip
    assert cells(forward, "float32", "256, 32") == ["1.0", "9.0 (9.0x)", "", "", "7.0 (7.0x)", ""]
    results = report.read([write(tmp_path / "r.json", few_rows)])
    assert report.report_few.comparison(results.rows) in text


def test_what_was_asked_for_stands_beside_what_was_measured(report, tmp_path, few_rows):
    busy = [
        few("fast", 25.0, suite="few busy"), few("fast", 20.0, suite="few busy", threads=1),
        few("fast", 5.0, suite="few busy", size=(256, 2)), few("fast", 9.0, suite="few busy", size=(256, 2), threads=1),
    ]  # fmt: skip
    rows = report.read([write(tmp_path / "r.json", few_rows + busy + waking())]).rows
    text = report.report_few.verdict(rows)
    assert cells(text, "`forward`, fast: one thread to all, mean of 2 rows") == ["1.41", "1.7"]
    assert cells(text, "`forward`, fast: the fastest peer to ours, mean of 2 rows") == ["1.50", "1.6"]
    assert cells(text, "the least of these, at h=1024, N=16, float32") == ["0.75", "1.2"]
    assert cells(text, "`train_step`, fast: one thread to all, mean of 1 rows") == ["1.50", "1.7"]
    beside = "`forward`, fast, beside a busy process: one thread to all, the least, at h=512, N=1, float32"
    assert cells(text, beside) == ["0.80", "0.9"]
    assert cells(text, "waking after 50 us, us") == ["6.00", "below 10"]
    assert cells(text, "after 1 ms, beyond a bare wake, us") == ["3.00", "at most 5"]
    assert report.report_few.verdict([]) == ""


def waking():
    """A helper takes 6 microseconds, and 53 after a millisecond, a bare wake 50."""
    return [
        record(
            name, seconds * 1e-6, suite="few waking", operation="wake", pause=pause, steps=1000,
            percentiles=[factor * seconds * 1e-6 for factor in (1, 2, 3, 4)],
        )
        for pause, name, seconds in ((50, "a helper", 6), (1000, "a helper", 53), (1000, "a bare wake", 50))
    ]  # fmt: skip


def test_a_busy_neighbour_and_waking_have_tables_of_their_own(report, tmp_path):
    busy = [few("fast", 25.0, suite="few busy"), few("fast", 20.0, suite="few busy", threads=1)]
    text = report.section(report.read([write(tmp_path / "r.json", busy + waking())]), [])
    assert "## A few sequences on every core" in text
    assert cells(text, "", "dtype", "h, N") == ["fast", "fast, one thread"]
    assert cells(text, "`forward`", "float32", "512, 1") == ["25.0", "20.0 (**0.80x**)"]
    assert cells(text, "pause", "", "times") == ["median", "99%", "99.9%", "longest"]
    assert cells(text, "50 µs", "a helper", "1,000") == ["6.00", "12.00", "18.00", "24.00"]
    assert cells(text, "1000 µs", "a bare wake", "1,000")[0] == "50.00"


def test_on_one_core_there_are_no_threads_to_compare(report, tmp_path):
    rows = [few("fast", 10.0, threads=1, cores=1), few("jax", 20.0, threads=1, cores=1, kind="peer")]
    text = report.section(report.read([write(tmp_path / "r.json", rows)]), [])
    assert "everybody on one thread" in text
    assert cells(text, "`forward`", "fast") == ["1 of 12", "", "2.0x (2.0x at h=512, N=1, float32)"]
    assert cells(text, "dtype", "h, N") == ["fast", "jax"]


def test_char_rnn_has_its_losses_and_what_it_was_measured_against(report, tmp_path):
    def row(suite, contender, seconds, **more):
        info = {"suite": f"char_rnn {suite}", "contender": contender, "seconds": seconds, "h": 256, **more}
        return {"name": contender, "extra_info": info, "stats": {"min": 9.0}}

    train = {"T": 64, "N": 48, "dtype": "float32", "threads": 2, "steps": 1500, "text": "a.txt"}
    records = [
        row("train", "CharRNN", 0.008, nats=1.7954, **train),
        row("train", "torch", 0.02, nats=1.8, **train),
        row("sample", "CharRNN", 5e-6, dtype="float32"),
        row("sample", "reference", 3e-5, dtype="float32"),
        {"name": "w", "extra_info": {"suite": "char_rnn wait", "contender": "a text"}, "stats": {"min": 0.5}},
    ]
    text = report.section(report.read([write(tmp_path / "r.json", records)]), [])
    start = "training, milliseconds a step, validation included"
    assert cells(text, start) == [
        "h=256, T=64, N=48, 1500 steps, float32, 2 threads, a.txt", "8 (1.795)", "torch", "20 (1.800)", "2.5x",
    ]  # fmt: skip
    assert cells(text, "sampling one stream, characters per second")[1:] == [
        "200,000", "reference", "33,333", "6.0x",
    ]  # fmt: skip
    assert cells(text, "a text") == ["500 ms"]


def test_char_rnn_has_a_row_for_each_cell(report, tmp_path):
    def row(contender, seconds, cell, nats):
        info = {"contender": contender, "seconds": seconds, "cell": cell, "nats": nats}
        shape = {"suite": "char_rnn train", "h": 256, "T": 64, "N": 64, "dtype": "float32", "threads": 2}
        more = {"steps": 1500, "text": "a.txt"}
        return {"name": contender, "extra_info": info | shape | more, "stats": {"min": 9.0}}

    rows = [
        row(name, factor * seconds, cell, nats)
        for cell, seconds, nats in (("rnn", 0.01, 1.8), ("gru", 0.04, 1.6), ("lstm", 0.05, 1.7))
        for name, factor in (("CharRNN", 1), ("torch", 2))
    ]
    text = report.section(report.read([write(tmp_path / "r.json", rows)]), [])
    what, setting = "training, milliseconds a step, validation included", "h=256, T=64, N=64, 1500 steps"
    for cell, figures in (
        ("", ["10 (1.800)", "torch", "20 (1.800)", "2.0x"]),
        ("GRU, ", ["40 (1.600)", "torch", "80 (1.600)", "2.0x"]),
        ("LSTM, ", ["50 (1.700)", "torch", "100 (1.700)", "2.0x"]),
    ):
        assert cells(text, what, f"{cell}{setting}, float32, 2 threads, a.txt") == figures


def fitted(contender, seconds, **more):
    """A row of `fit`."""
    shape = {"cell": "gru", "h": 64, "N": 32, "T": 8, "dtype": "float32", "steps": 430, "text": "digits"}
    where = {"suite": "fit", "operation": "fit", "threads": 2, **shape}
    return record(
        contender,
        seconds,
        **{"kind": "peer" if contender.startswith("torch") else "backend", **where, **more},
    )


@pytest.fixture
def fit_rows():
    return [
        fitted("fast", 0.1, score=0.97),
        fitted("torch", 0.45, score=0.965),
        fitted("torch, one thread", 0.3, threads=1, score=0.965),
        fitted("fast", 0.4, h=256, score=0.95),
        fitted("torch", 0.3, h=256, score=0.95),
        fitted("fast", 2e-4, suite="fit step", text="", steps=0),
        fitted("torch", 1e-3, suite="fit step", text="", steps=0),
        fitted("torch, one thread", 5e-5, suite="fit step", text="", steps=0, threads=1),
    ]


def test_fit_is_held_against_pytorch_on_either_number_of_threads_and_losers_stay(report, tmp_path, fit_rows):
    text = report.section(report.read([write(tmp_path / "r.json", fit_rows)]), [])
    assert cells(text, "trained on", "", "setting") == ["fast", "torch", "torch, one thread", "scores"]
    setting = "N=32, T=8, float32, 430 steps"
    assert cells(text, "digits", "GRU", f"h=64, {setting}") == [
        "100",
        "450 (4.5x)",
        "300 (3.0x)",
        "0.970 / 0.965",
    ]
    assert cells(text, "digits", "GRU", f"h=256, {setting}") == [
        "400",
        "300 (**0.75x**)",
        "",
        "0.950 / 0.950",
    ]
    assert cells(text, "GRU", "float32", "64, 8, 32") == ["200", "1000 (5.0x)", "50.0 (**0.25x**)"]
    assert "Everybody on 2 threads" in text
    assert text.count("<!-- fit:start -->") == text.count("<!-- fit:end -->") == 1


def test_the_part_about_fit_is_written_by_itself(report, import_benchmark, tmp_path, fit_rows, capsys):
    report_fit, page = import_benchmark("report_fit"), tmp_path / "page.md"
    source = str(write(tmp_path / "r.json", fit_rows))
    page.write_text(PAGE.replace("old", "<!-- fit:start -->\nold\n<!-- fit:end -->"), encoding="utf-8")
    assert report_fit.main([source, "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith(
        "# Title\n\nbefore\n<!-- benchmarks:start -->\n<!-- fit:start -->\nMeasured 2025-11-22 by"
    )
    assert "A processor, 3 cores, with python 3.12.0, numpy 2.1.0." in text
    assert text.endswith("<!-- fit:end -->\n<!-- benchmarks:end -->\nafter\n")
    assert report_fit.main([source, "--page", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == text
    nothing = str(write(tmp_path / "n.json", [record("fast", 1.0)]))
    assert report_fit.main([nothing, "--page", str(page)]) == 1
    assert "nothing that fit.py measured" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == text


@pytest.fixture
def steps():
    """At h=8 in both dtypes, `other` in float32 only; `slow` loses one."""
    times = [("fast", "backend", 1e-6), ("slow", "backend", 4e-6), ("line", "reference", 2e-6)]
    found = [
        record(name, seconds, kind=kind, suite="steps", operation="step", h=8, T=1, dtype=dtype)
        for dtype in ("float64", "float32")
        for name, kind, seconds in times
    ]
    return [*found, record("other", 8e-6, kind="peer", suite="steps", h=8, T=1, dtype="float32")]


def test_steps_are_held_against_the_first_backend(report, tmp_path, steps):
    text = report.section(report.read([write(tmp_path / "r.json", steps)]), [])
    assert cells(text, "", "dtype") == ["h=8"]
    assert cells(text, "fast", "float64") == ["1.00"]
    assert cells(text, "slow", "float64") == ["4.00 (4.0x)"]
    assert cells(text, "other", "float32") == ["8.00 (8.0x)"]
    assert "| other | float64" not in text


def test_steps_with_gates_have_a_table_of_their_own(report, tmp_path, steps):
    def row(contender, seconds, cell, h, kind="backend"):
        return record(
            contender, seconds, kind=kind, suite="gated steps", h=h, T=1, dtype="float32", cell=cell
        )

    rows = [
        row("fast", 1e-6, "gru", 8),
        row("other", 5e-7, "gru", 8, "peer"),
        row("fast", 2e-6, "lstm", 8),
        row("other", 6e-6, "lstm", 8, "peer"),
        row("fast", 4e-6, "lstm", 32),
    ]
    text = report.section(report.read([write(tmp_path / "r.json", steps + rows)]), [])
    before, after = text.split("The same with gates")
    assert cells(before, "fast", "float32") == ["1.00"]
    assert cells(after, "", "") == ["h=8", "h=32"]
    assert cells(after, "GRU", "other") == ["0.50 (**0.50x**)", ""]
    assert cells(after, "LSTM", "fast") == ["2.00", "4.00"]
    assert cells(after, "LSTM", "other") == ["6.00 (3.0x)", ""]


def test_every_backend_is_compared_with_everybody_else(report, tmp_path, steps):
    rows = report.read([write(tmp_path / "r.json", steps)]).rows
    text = report.report_stepper.comparison(rows)
    assert cells(text, "dtype", "backend") == ["h", "us", "than line", "than other"]
    assert cells(text, "float64", "fast") == ["8", "1.00", "2.0x", ""]
    assert cells(text, "float64", "slow") == ["8", "4.00", "**0.50x**", ""]
    assert cells(text, "float32", "fast") == ["8", "1.00", "2.0x", "8.0x"]
    assert len(text.splitlines()) == 2 + 4
    assert report.report_stepper.comparison([row for row in rows if row.kind == "backend"]) == ""
    assert report.report_stepper.comparison([row for row in rows if row.kind != "backend"]) == ""


def test_single_steps_are_shown_with_what_the_clock_took(report, tmp_path):
    def row(seconds, **more):
        percentiles = [seconds, 2e-6, 3e-6, 4.5e-4]
        return record(
            "fast", seconds, suite="single steps", T=1, steps=1_000_000, percentiles=percentiles, **more
        )

    text = report.section(report.read([write(tmp_path / "r.json", [row(1e-6, clock=7e-8)])]), [])
    assert cells(text, "", "dtype", "h", "steps") == ["median", "99%", "99.9%", "longest"]
    assert cells(text, "fast", "float64", "32", "1,000,000") == ["1.00", "2.00", "3.00", "450.00"]
    assert "with the time of the clock (0.07) in it" in text
    # Measured twice it counts once; results from before do not say what the clock took.
    twice = [write(tmp_path / "a.json", [row(1e-6, clock=7e-8)]), write(tmp_path / "b.json", [row(5e-7)])]
    text = report.section(report.read(twice), [])
    assert text.count("| fast |") == 1
    assert cells(text, "fast", "float64", "32", "1,000,000")[0] == "0.50"
    assert "with the time of the clock in it" in text


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_slope_is_the_power_of_T(report, power):
    assert report.slope([(T, 3e-6 * T**power) for T in (100, 1000, 5000, 100_000)]) == pytest.approx(power)


def test_scaling_table(report, tmp_path):
    records = [record("fast", T * 2e-6, suite="scaling", h=100, T=T) for T in (1000, 100)]
    text = report.section(report.read([write(tmp_path / "r.json", records)]), [])
    assert cells(text, "", "backend") == ["T=100", "T=1000", "slope"]
    assert cells(text, "`forward`", "fast") == ["2.00", "2.00", "1.00"]


def test_first_use_takes_the_time_inside_the_process_where_there_is_one(report, tmp_path):
    records = [
        {"name": "p", "extra_info": {"suite": "process", "contender": "hello"}, "stats": {"min": 0.0321}},
        {
            "name": "w",
            "extra_info": {"suite": "warmup", "contender": "numba, cold cache", "seconds": 6.5},
            "stats": {"min": 7.5},
        },
    ]
    text = report.section(report.read([write(tmp_path / "r.json", records)]), [])
    assert cells(text, "hello") == ["32.1 ms"]
    assert cells(text, "numba, cold cache") == ["6.50 s"]


def test_processes_timed_in_turns_replace_those_timed_one_after_the_other(report, tmp_path):
    records = [
        {"name": "p", "extra_info": {"suite": suite, "contender": label}, "stats": {"min": seconds}}
        for suite, label, seconds in (
            ("process", "hello, cython", 0.5),
            ("process", "hello, numba, cold cache", 5.0),
            ("process turns", "hello, cython", 0.25),
        )
    ]
    text = report.section(report.read([write(tmp_path / "r.json", records)]), [])
    assert cells(text, "hello, cython") == ["250 ms"]
    assert cells(text, "hello, numba, cold cache") == ["5.00 s"]


def test_machine_versions_date_and_command_are_named(report, tmp_path, ratios):
    text = report.section(report.read([write(tmp_path / "r.json", ratios)]), [])
    for part in (
        "A processor, 3 cores",
        "python 3.12.0, numpy 2.1.0",
        "2025-11-22",
        "python benchmarks/report.py",
    ):
        assert part in text


def test_results_of_two_machines_are_not_mixed(report, tmp_path, ratios):
    other = write(tmp_path / "b.json", ratios, MACHINE | {"cores": 4})
    with pytest.raises(report.ReportError, match=r"b\.json: measured on another machine"):
        report.read([write(tmp_path / "a.json", ratios), other])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"machine_info": {}, "benchmarks": []}'])
def test_other_files_are_refused_by_name(report, tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(report.ReportError, match=r"other\.json"):
        report.read([path])


def test_a_time_of_zero_is_refused(report, tmp_path):
    with pytest.raises(report.ReportError, match="0 seconds"):
        report.read([write(tmp_path / "r.json", [record("fast", 0)])])


def test_only_what_stands_between_the_markers_changes(report):
    assert report.replace_section(PAGE, "new") == PAGE.replace("old", "new")
    assert report.replace_section(README, "new", "headline") == README.replace("old", "new", 1)


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        "<!-- benchmarks:start -->",
        "<!-- benchmarks:end --> <!-- benchmarks:start -->",
        PAGE + PAGE,
    ],
)
def test_markers_must_be_there_once_and_in_order(report, text):
    with pytest.raises(report.ReportError, match="must hold"):
        report.replace_section(text, "new")


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (25.4, "25x"),
        (9.96, "10x"),
        (9.94, "9.9x"),
        (1.04, "1.04x"),
        (1.0, "1.00x"),
        (0.996, "**1.00x**"),
        (0.5, "**0.50x**"),
    ],
)
def test_ratios_keep_two_figures_and_losers_are_bold(report, ratio, text):
    assert report.times(ratio) == text


@pytest.fixture
def files(tmp_path):
    """A README and a page with markers, and the options that name them and a folder for plots."""
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    (tmp_path / "docs" / "images").mkdir(parents=True)
    (tmp_path / "docs" / "page.md").write_text(PAGE, encoding="utf-8")
    options = ["--readme", "README.md", "--page", "docs/page.md", "--plots", "docs/images"]
    return [option if option.startswith("--") else str(tmp_path / option) for option in options]


def texts(tmp_path):
    return [(tmp_path / name).read_text(encoding="utf-8") for name in ("README.md", "docs/page.md")]


def test_command_writes_both_files_and_the_plots(report, tmp_path, readme_results, files, capsys):
    pytest.importorskip("matplotlib")
    grid = [
        record(name, seconds * T, kind=kind, suite="operations", h=h, T=T)
        for name, kind, seconds in (("reference", "reference", 2.0), ("fast", "backend", 1.0))
        for h in (16, 64)
        for T in (1, 10)
    ]
    sources = [write(tmp_path / "a.json", readme_results), write(tmp_path / "b.json", grid)]
    assert report.main([*files, "--from", *map(str, sources)]) == 0
    out = capsys.readouterr().out
    readme, page = texts(tmp_path)
    assert str(tmp_path / "README.md") in out
    assert str(tmp_path / "docs" / "page.md") in out
    assert page.startswith("# Title\n\nbefore\n<!-- benchmarks:start -->\nMeasured")
    assert page.endswith("<!-- benchmarks:end -->\nafter\n")
    assert "](images/speedup-float64.png)" in page
    assert readme.startswith("<!-- headline:start -->\nTraining on a sequence of 100 characters")
    assert readme.endswith("<!-- benchmarks:end -->\nafter\n")
    assert "](docs/images/speedup.png)" in readme
    assert "speedup-float64" not in readme
    plots = sorted((tmp_path / "docs" / "images").iterdir())
    assert [file.name for file in plots] == ["speedup-float64.png", "speedup.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in plots)


def test_nothing_is_written_when_measuring_fails(report, tmp_path, files, capsys):
    def fail(folder, short):
        raise report.ReportError("the benchmarks failed")

    assert report.main(files, measure=fail) == 1
    assert "the benchmarks failed" in capsys.readouterr().err
    assert texts(tmp_path) == [README, PAGE]


def test_the_readme_is_left_alone_when_the_page_cannot_be_written(report, tmp_path, ratios, files, capsys):
    # A floor without a backend: no table of the page can be made of it.
    source = write(tmp_path / "r.json", [record("bare C", 1.0, kind="floor", suite="floor")])
    assert report.main([*files, "--from", str(source)]) == 1
    assert "none of the benchmarks" in capsys.readouterr().err
    assert texts(tmp_path) == [README, PAGE]


@pytest.mark.parametrize("name", ["README.md", "docs/page.md"])
def test_a_file_without_markers_is_found_before_anything_is_measured(report, tmp_path, files, name, capsys):
    (tmp_path / name).write_text("no markers", encoding="utf-8")
    assert report.main(files, measure=lambda *_: pytest.fail("measured")) == 1
    assert f"{Path(name).name} must hold" in capsys.readouterr().err


# -- the README's part ---------------------------------------------------------------------------


@pytest.fixture
def readme_results():
    """What the README shows: three sizes, one of each other kind of row, and times that are easy to divide."""
    single = [
        record(name, seconds * T * h * 1e-8, kind=kind, operation="train_step", h=h, T=T)
        for h, T in ((32, 100), (100, 100), (512, 64))
        for name, kind, seconds in (
            ("reference", "reference", 20),
            ("fast", "backend", 2),
            ("numpy", "backend", 16),
            ("torch", "peer", 10),
            ("jax", "peer", 4),
        )
    ]
    batches = [
        batch(name, seconds * 50e-6, kind=kind, threads=n, cores=n, size=(128, 50, 32), dtype="float32")
        for n in (1, 2)
        for name, kind, seconds in (
            ("fast", "backend", 30 / n),
            ("numpy", "backend", 90 / n),
            ("torch", "peer", 60),
            ("torch, own loop", "peer", 45),
            ("jax", "peer", 12),
        )
    ]
    text = {"suite": "char_rnn train", "h": 256, "N": 64, "T": 64, "dtype": "float32", "threads": 2}
    training = [
        {"name": name, "extra_info": {"contender": name, **text}, "stats": {"min": seconds}}
        for name, seconds in (("CharRNN", 0.01), ("torch", 0.03))
    ]
    return single + batches + training


def test_headline_is_one_figure_with_its_condition(report, tmp_path, readme_results):
    results = report.read([write(tmp_path / "r.json", readme_results)])
    assert report.readme_sections(results, ["x/speedup-float64.png", "x/speedup.png"])["headline"] == (
        "Training on a sequence of 100 characters with 100 hidden units takes **2 microseconds a time step** "
        "in float64 on one core (A processor). Its speed is 10x that of the NumPy loop, 5.0x that of "
        "PyTorch and 2.0x that of JAX.\n\n"
        "![Time of a training step: fastrnn, JAX, PyTorch and the NumPy loop at three sizes](x/speedup.png)"
    )


def test_the_readmes_table_has_rows_of_every_kind_and_one_that_loses(report, tmp_path, readme_results):
    text = report.report_readme.summary(report.read([write(tmp_path / "r.json", readme_results)]))
    assert cells(text, "", "takes") == ["than the NumPy loop", "than PyTorch", "than JAX"]
    single = "train on a sequence, h=512, T=64, float64"
    assert cells(text, single) == ["10.2 µs a step", "10x", "5.0x", "2.0x"]
    # The faster form of PyTorch, and JAX on as many threads.
    batched = "train on 32 sequences, h=128, T=50, float32, 2 threads"
    assert cells(text, batched) == ["15 µs a step", "", "3.0x", "**0.80x**"]
    training = "`CharRNN.fit` on a text, h=256, T=64, N=64, float32, 2 threads"
    assert cells(text, training) == ["10 ms a chunk", "", "3.0x", ""]
    slow = "train on a sequence, without compiled kernels, h=100, T=100, float64"
    assert cells(text, slow) == ["16 µs a step", "1.2x", "**0.62x**", "**0.25x**"]
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 2 + 3 + 1 + 1 + 1
    assert "2025-11-22" in text
    assert "A processor" in text


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_readme_shows_the_vanilla_net_whatever_else_was_trained(report, tmp_path, readme_results, cell):
    *rest, ours, theirs = readme_results
    trained = [
        {
            **row,
            "extra_info": row["extra_info"] | {"cell": name},
            "stats": {"min": factor * row["stats"]["min"]},
        }
        for name, factor in ((cell, 4.0), ("rnn", 1.0), (cell, 5.0))
        for row in (ours, theirs)
    ]
    alone = report.report_readme.summary(report.read([write(tmp_path / "a.json", readme_results)]))
    assert report.report_readme.summary(report.read([write(tmp_path / "b.json", rest + trained)])) == alone
    text = report.report_readme.summary(report.read([write(tmp_path / "c.json", rest + trained[:2])]))
    assert "CharRNN" not in text


def test_what_was_not_measured_is_left_out_of_the_readme(report, tmp_path, batched):
    results = report.read([write(tmp_path / "r.json", batched)])
    assert report.readme_sections(results, []) == {"headline": "", "benchmarks": ""}


def test_fastrnn_is_blue_and_everybody_else_grey(report):
    tones = report.colours.of_contenders(["cython", "numba"], ["torch", "jax"])
    assert tones["cython"] == report.colours.FASTRNN
    assert len(set(tones.values())) == 4
    for name in ("torch", "jax"):
        assert 0.3 < float(tones[name]) < 0.9  # matplotlib's way to write a grey
    light, middle, dark = report.colours.shades(3)
    assert middle.upper() == report.colours.FASTRNN
    assert light > dark
