"""What the demo is made of: texts, and the speed beside the reference loop."""

import importlib.machinery
import io
import math
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastrnn import CharRNN, SimpleRNN
from fastrnn.cli import comparison as bench_module
from fastrnn.cli import speed as demo_module
from fastrnn.cli.comparison import Disagreement, agree, compare, reference_copy, time_calls
from fastrnn.cli.speed import measure_speed
from fastrnn.text.reading import TextError, read_text, standard_library_source

# -- texts ---------------------------------------------------------------------------------------


def test_read_text_keeps_every_character(tmp_path):
    text = "a\r\nb\rc\n\x0cü🐍"
    file = tmp_path / "text"
    file.write_bytes(text.encode())
    assert read_text(str(file)) == (text, True)


@pytest.mark.parametrize(("limit", "text", "whole"), [(1, "a", False), (2, "a", False), (3, "aü", False),
                                                      (4, "aüb", True), (5, "aüb", True)])  # fmt: skip
def test_read_text_stops_at_the_limit_between_characters(tmp_path, limit, text, whole):
    file = tmp_path / "text"
    file.write_bytes("aüb".encode())
    assert read_text(str(file), limit) == (text, whole)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"ab\xffc", "byte 0xff at offset 2 "),
        ("é".encode("latin-1") + b"abc", "byte 0xe9 at offset 0 "),
        (b"abc\xf0\x9f\x90", "byte 0xf0 at offset 3 .*unexpected end"),
        ("a text".encode("utf-16"), "byte 0xff at offset 0 "),
    ],
)
def test_read_text_names_the_offset_of_what_is_not_utf8(tmp_path, content, said):
    file = tmp_path / "text"
    file.write_bytes(content)
    with pytest.raises(TextError, match=said):
        read_text(str(file))


@pytest.mark.parametrize("path", ["missing", ".", "nul\0character", "x" * 5000])
def test_read_text_says_which_file_cannot_be_read(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TextError, match=f"cannot read {path!r}: .".replace("\\", r"\\")):
        read_text(path)


def test_read_text_reads_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("grün".encode()), encoding="ascii"))
    assert read_text("-") == ("grün", True)


def test_standard_library_source_is_whole_modules_up_to_the_limit():
    small, large = standard_library_source(200_000), standard_library_source()
    assert large.startswith(small)
    assert 100_000 < len(small) <= 200_000
    assert 500_000 < len(large) <= 1_000_000
    assert large.isascii()
    folder = Path(sysconfig.get_path("stdlib"))
    assert large.startswith((folder / "abc.py").read_text(encoding="ascii"))
    assert (folder / "ast.py").read_text(encoding="ascii") in large
    assert standard_library_source() == large


def test_standard_library_source_imports_nothing():
    # `antigravity` opens a browser when it is imported, `this` prints.
    before = set(sys.modules)
    standard_library_source()
    assert not {"antigravity", "this"} & (set(sys.modules) - before)


def library_of(monkeypatch, folder, *, on_path=()):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(folder))
    monkeypatch.setattr(sys, "path", [*map(str, on_path), *sys.path])
    importlib.machinery.PathFinder.invalidate_caches()


def test_standard_library_source_in_a_zip_file(tmp_path, monkeypatch):
    zipped = tmp_path / f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("abc.py", "first = 1\n")
        file.writestr("zipfile.py", "last = 2\n")
        file.writestr("ast.py", "text = 'not ascii: ü'")
        file.writestr("no_such_module.py", "not of the library")
    library_of(monkeypatch, tmp_path / "missing", on_path=[zipped])
    assert standard_library_source() == "first = 1\nlast = 2\n"


def test_standard_library_source_of_a_python_without_sources(tmp_path, monkeypatch):
    (tmp_path / "abc.pyc").write_bytes(importlib.util.MAGIC_NUMBER + bytes(12))
    (tmp_path / "ast.py").write_bytes(b"\xff not text")
    (tmp_path / "bisect.py").write_bytes(b"")
    library_of(monkeypatch, tmp_path)
    with pytest.raises(TextError, match="without the source code") as error:
        standard_library_source()
    assert str(tmp_path) in str(error.value)


# -- speed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", [4, 40, 5000])
@pytest.mark.filterwarnings("ignore:.*are less than one batch")
def test_measure_speed_leaves_the_model_as_it_is(backend, dtype, n):
    text = "".join("abcd"[i] for i in np.random.default_rng(0).integers(0, 4, n))
    model = CharRNN(
        16, seq_len=25, batch_size=8, max_steps=5, dtype=dtype, random_state=0, backend=backend, verbose=0
    ).fit(text)
    before = model.last_weights_, model.step_, model.score(text)
    speed = measure_speed(model, text, seconds=0.02)
    assert all(np.array_equal(W, model.last_weights_[name]) for name, W in before[0].items())
    assert before[1:] == (model.step_, model.score(text))
    assert speed.ratio == speed.reference / speed.fast > 0


@pytest.mark.parametrize("wrong", ["Wxh", "Whh", "Why", "bh", "by"])
def test_measure_speed_refuses_a_model_that_computes_something_else(monkeypatch, wrong):
    right = demo_module.reference_copy

    def altered(lm):
        reference = right(lm)
        getattr(reference, wrong)[0] += 0.1
        return reference

    model = CharRNN(16, seq_len=25, batch_size=8, max_steps=5, random_state=0, backend="numpy", verbose=0)
    model.fit("abcd" * 200)
    monkeypatch.setattr(demo_module, "reference_copy", altered)
    with pytest.raises(Disagreement, match="is not what the reference loop computes"):
        measure_speed(model, "abcd" * 200, seconds=0.02)


def test_agree_refuses_nan_and_what_is_off():
    rnn = SimpleRNN(4, 16, 4, rng=0, backend="numpy")
    agree(rnn, [1.0], reference_copy(rnn), [1.0])
    for result in ([1.0 + 1e-6], [math.nan]):
        with pytest.raises(Disagreement, match="result 0"):
            agree(rnn, result, reference_copy(rnn), [1.0])


def test_time_calls_measures_each_function():
    counts = [0, 0]

    def call(i, n):
        counts[i] += 1
        return sum(range(n))

    quick, slow = time_calls([lambda: call(0, 10), lambda: call(1, 50_000)], 0.05)
    assert 0 < 20 * quick < slow
    assert min(counts) >= 6  # one to find out how often, five rounds


def test_compare_checks_every_operation_before_it_times(monkeypatch):
    monkeypatch.setattr(bench_module, "time_calls", lambda calls, seconds: pytest.fail("timed"))
    for name, run in bench_module.OPERATIONS.items():

        def wrong(rnn, inputs, targets, h, run=run):
            if isinstance(rnn, SimpleRNN):
                rnn.by = np.linspace(-2, 2, 65).reshape(-1, 1)
            return run(rnn, inputs, targets, h)

        monkeypatch.setattr(bench_module, "OPERATIONS", {name: wrong})
        with pytest.raises(Disagreement, match=f"numpy, {name}, h=8, T=30, float32: by"):
            list(compare([(8, 30)], ["float32"], ["numpy"], 0.001))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_compare_passes_on_every_backend(backend, dtype):
    rows = list(compare([(8, 1), (33, 40)], [dtype], [backend], 0.002))
    assert [(row.operation, row.hidden_size, row.seq_len) for row in rows] == [
        (operation, h, T) for operation in ("forward", "train_step", "sample") for h, T in [(8, 1), (33, 40)]
    ]
    assert all(row.reference > 0 and row.backends[backend] > 0 for row in rows)
