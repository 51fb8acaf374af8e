"""`fastrnn diagnose`: a report that a beginner understands, and the picture."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from cli_support import environment, invoke, on_a_terminal
from threadpoolctl import ThreadpoolController

from fastrnn import CharRNN, diagnostics
from fastrnn.diagnostics import report
from fastrnn.diagnostics.report import diagnose
from fastrnn.text import display as progress

TEXT = "the quick brown fox jumps over the lazy dog. " * 40


def make_model(**options):
    chosen = {"hidden_size": 24, "seq_len": 12, "batch_size": 4, "max_steps": 3, "random_state": 0}
    return CharRNN(**{**chosen, **options}, backend="numpy", verbose=0).fit(TEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("diagnose")
    make_model().save(path / "model.safetensors")
    (path / "text.txt").write_text(TEXT, encoding="utf-8")
    return path


def rotation(model, radius):
    for name, W in model.model_.parameters.items():
        if "ih" in name or "bias" in name:
            W *= 1e-12  # quiet inputs: tanh is the identity, and the product is that of Whh alone
    W = model.model_.parameters["weight_hh_l0"]
    W[...] = radius * np.linalg.qr(np.random.default_rng(0).normal(size=W.shape))[0]


def test_report_tells_numbers_meaning_and_what_to_do(folder):
    result = invoke("diagnose", folder / "model.safetensors", folder / "text.txt")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    for words in (
        "24 hidden units, 1 layer, tanh; trained to look 12 characters back.",
        "Looked at 16 passages of 24 characters",
        "1. The gradient of the last character's loss",
        "2. The memory",
        "3. The recurrent weights Whh",
        "4. Saturation",
        "5. Clipping of the gradients",
        "What people do about it",
        'clip="norm"',
    ):
        assert words in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert re.search(r"^ +12 characters back +(under )?[\d.]+%$", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("radius", "verdict", "advice"),
    [
        (0.2, "vanishes", "A larger start for Whh"),
        (1.0, "holds", "About the gradient, nothing needs to be done"),
        (2.0, "explodes", "Go on clipping by the norm, with a clip_threshold below 5"),
    ],
)
def test_verdict_follows_the_weights(radius, verdict, advice):
    model = make_model()
    rotation(model, radius)
    result = diagnose(model, TEXT)
    assert result.verdict == verdict
    assert result.share_left(5) == pytest.approx(radius**5, rel=0.1)
    text = str(result)
    assert verdict[:-1].upper() in text
    assert advice in " ".join(text.split())
    assert f"{radius:.3f}" in text


def test_advice_on_chunks_follows_the_reach():
    model = make_model(seq_len=40)
    rotation(model, 0.5)
    text = " ".join(str(diagnose(model, TEXT)).split())
    assert "7 characters back less than 1% of it is left" in text
    assert "gradients reach 7 characters back and the training looks 40 back. With seq_len=14" in text


@pytest.mark.parametrize(("seq_len", "advised"), [(8, None), (15, None), (18, None), (20, 14), (40, 14)])
def test_shorter_chunks_are_advised_only_where_they_are_shorter_by_much(seq_len, advised):
    model = make_model(seq_len=seq_len)
    rotation(model, 0.5)
    result = diagnose(model, TEXT)
    assert (result.verdict, result.flow.reach) == ("vanishes", 7)
    said = re.search(r"seq_len=(\d+)", " ".join(result.advice))
    assert (said and int(said[1])) == advised


def test_advice_on_clipping_follows_what_the_training_did_and_what_it_would_do():
    def advice(radius=1.0, **options):
        model = make_model(**options)
        rotation(model, radius)
        return " ".join(diagnose(model, TEXT).advice)

    assert "Keep clipping by the norm: a guard that costs nothing" in advice()
    assert "Clip by the norm: a guard" in advice(clip=None)
    assert 'Clip by the norm: clip="norm"' in advice(2.0, clip=None)
    assert "Keep clipping by the norm: it is at work on this text." in advice(clip_threshold=1e-9)


def test_a_small_share_is_told_in_words_and_no_share_is_in_scientific_notation():
    model = make_model(seq_len=40)
    rotation(model, 0.5)
    text = str(diagnose(model, TEXT))
    assert re.search(r"^ +40 characters back  under 0\.1%$", text, re.MULTILINE)
    assert not re.search(r"\de[-+]?\d+%", text)


@pytest.mark.parametrize("width", [58, 78])
def test_the_report_keeps_within_a_width(width):
    for options in ({}, {"num_layers": 2, "clip": None}):
        report = diagnose(make_model(**options), TEXT + "ÄÖÜ").report(width)
        assert width - 12 < max(map(len, report.splitlines())) <= width


def test_json_has_the_numbers_and_the_advice(folder):
    files = folder / "model.safetensors", folder / "text.txt"
    told = json.loads(invoke("diagnose", *files, "--json").stdout, parse_constant=pytest.fail)
    result = diagnose(CharRNN.load(files[0]), TEXT)
    assert told["verdict"] == result.verdict
    assert told["reach"] == result.flow.reach
    assert told["gradient_share"] == result.flow.share[::-1].tolist()
    assert told["spectral_radius"] == result.spectrum.spectral_radius
    assert told["clip_changes"] == result.clipping.changed
    assert told["advice"] == result.advice


def test_saturated_and_stuck_units_are_told():
    model = make_model()
    model.model_.parameters["bias_hh_l0"][:12] = 50
    text = " ".join(str(diagnose(model, TEXT)).split())
    assert "Many units are saturated" in text
    assert "stuck at every step of the text 12 of 24 units" in text
    assert "12 units never change on this text" in text


def test_layers_and_unknown_characters_are_told(folder):
    model = make_model(num_layers=2, clip=None)
    text = " ".join(str(diagnose(model, TEXT + "ÄÖÜ")).split())
    assert "2 layers, of which the top one is looked at" in text
    assert "(3 characters that the model does not know were left out)" in text
    assert "The training did not clip" in text


def test_picture(folder, tmp_path):
    pytest.importorskip("matplotlib")
    for ending in ("png", "svg"):
        picture = tmp_path / f"out.{ending}"
        result = invoke("diagnose", folder / "model.safetensors", folder / "text.txt", "--plot", picture)
        assert result.exit_code == 0, result.stderr
        assert result.stdout.endswith(f"The picture is in {picture}.\n")
        assert picture.stat().st_size > 10_000


def test_picture_names_the_text(folder, tmp_path, monkeypatch):
    figures = pytest.importorskip("fastrnn.diagnostics.report")
    titles, draw = [], figures.plot_diagnosis

    def noted(diagnosis):
        titles.append(draw(diagnosis).get_suptitle())
        return draw(diagnosis)

    monkeypatch.setattr(figures, "plot_diagnosis", noted)
    arguments = (
        "diagnose",
        folder / "model.safetensors",
        folder / "text.txt",
        "--plot",
        tmp_path / "out.png",
    )
    assert invoke(*arguments).exit_code == 0
    assert titles[0].startswith("CharRNN, ")
    assert titles[0].endswith(" characters of text.txt")


@pytest.mark.parametrize("picture", ["out", "out.txt", "nowhere/out.png"])
def test_a_picture_that_cannot_be_written_is_refused_before_the_work(folder, picture, tmp_path):
    pytest.importorskip("matplotlib")
    result = invoke("diagnose", folder / "none", folder / "none", "--plot", tmp_path / picture)
    assert result.exit_code == 2
    assert "--plot" in result.stderr
    assert picture in result.stderr


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may write everywhere")
def test_a_picture_in_a_locked_folder_is_refused_before_the_work(folder, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "locked").mkdir(mode=0o500)
    result = invoke("diagnose", folder / "none", folder / "none", "--plot", tmp_path / "locked" / "out.png")
    assert result.exit_code == 2
    assert "cannot be written here" in result.stderr


def test_picture_without_matplotlib(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.backends.backend_agg", None)
    result = invoke("diagnose", folder / "model.safetensors", folder / "text.txt", "--plot", "out.png")
    assert result.exit_code == 1
    assert "pip install 'fastrnn[plot]'" in result.stderr


def test_standard_input(folder):
    result = invoke("diagnose", folder / "model.safetensors", "-", input=TEXT)
    assert result.exit_code == 0, result.stderr
    assert "What people do about it" in result.stdout


@pytest.mark.parametrize(
    ("model", "text", "said"),
    [
        ("model.safetensors", "missing.txt", "missing.txt"),
        ("missing.safetensors", "text.txt", "missing.safetensors"),
        ("text.txt", "text.txt", "text.txt"),
        (
            "model.safetensors",
            "short.txt",
            "at least 3 characters that the model knows is needed, got 2 of 3",
        ),
    ],
)
def test_bad_files_are_told_in_one_line(folder, model, text, said):
    (folder / "short.txt").write_text("thß", encoding="utf-8")
    result = invoke("diagnose", folder / model, folder / text)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(rf"Error: .*{re.escape(said)}.*\n", result.stderr)


# -- while it works ------------------------------------------------------------------------------


def test_the_library_call_prints_nothing_unless_it_is_asked_to(folder, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    model = CharRNN.load(folder / "model.safetensors")
    diagnose(model, TEXT)
    assert capsys.readouterr() == ("", "")
    diagnose(model, TEXT, verbose=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"  0% +0\.0 s  gradient flow\n( *\d+% +\d+\.\d s  [a-z ]+\n)+", err)


@pytest.mark.parametrize("method", ["exact", "power"])
def test_the_longest_measure_tells_how_far_it_is(folder, method):
    model = CharRNN.load(folder / "model.safetensors")
    x = model.vocabulary_.encode(TEXT)[:40, None]
    shares = []
    told = diagnostics.jacobian_norms(model, x, method=method, on_progress=shares.append)
    assert len(shares) == len(told.lags) == 20
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.1 < 0.9 < shares[-2] < shares[-1] == 1
    untold = diagnostics.jacobian_norms(model, x, method=method)
    assert np.array_equal(told.norms, untold.norms)


def test_a_bar_moves_within_the_longest_measure(folder, capsys, monkeypatch):
    monkeypatch.setattr(progress.Display, "is_due", lambda self: True)
    diagnose(CharRNN.load(folder / "model.safetensors"), TEXT, verbose=True)
    shares = [
        int(share) for share in re.findall(r"^ *(\d+)% .* memory$", capsys.readouterr().err, re.MULTILINE)
    ]
    assert len(set(shares)) > 5
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (3, 93)


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals on Windows")
def test_a_terminal_sees_each_measure(folder):
    files = folder / "model.safetensors", folder / "text.txt"
    shown, process = on_a_terminal("diagnose", *files, stream="stderr")
    assert process.returncode == 0
    moves = re.findall(r"\r *(\d+)%\|.*?\| [\d:]+<[\d:?]+, ([a-z ]+?) *(?=[\r\n])", shown)
    assert list(dict.fromkeys(name for _, name in moves)) == [
        "gradient flow", "memory", "recurrent weights", "saturation", "clipping", "hidden states", "done",
    ]  # fmt: skip
    shares = [int(share) for share, _ in moves]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 100)
    assert shown.endswith("\n")


@pytest.mark.parametrize("verbose", [False, True])
def test_blas_is_held_to_one_thread(folder, monkeypatch, verbose):
    seen = []
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers

    def noting(measure):
        def noted(*arguments, **options):
            seen.extend(library.get_num_threads() for library in libraries)
            return measure(*arguments, **options)

        return noted

    names = (
        "gradient_flow",
        "hidden_states",
        "jacobian_norms",
        "measure_spectrum",
        "measure_saturation",
        "clip_report",
    )
    for name in names:
        monkeypatch.setattr(report, name, noting(getattr(report, name)))
    before = [library.get_num_threads() for library in libraries]
    for library in libraries:
        library.set_num_threads(2)
    try:
        diagnose(CharRNN.load(folder / "model.safetensors"), TEXT, verbose=verbose)
        assert [library.get_num_threads() for library in libraries] == [2] * len(libraries)
    finally:
        for library, number in zip(libraries, before, strict=True):
            library.set_num_threads(number)
    assert seen == [1] * len(names) * len(libraries)


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send to one process on Windows")
def test_ctrl_c_ends_it_without_a_traceback(folder):
    code = (
        "import time; from fastrnn import cli; from fastrnn.diagnostics import report; "
        "report.measure_spectrum = lambda *_: print('measuring', flush=True) or time.sleep(60); "
        "cli.main(prog_name='fastrnn')"
    )
    files = map(str, (folder / "model.safetensors", folder / "text.txt"))
    with subprocess.Popen(
        [sys.executable, "-c", code, "diagnose", *files],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "measuring\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "\nStopped by Ctrl-C.\n")


def test_usage():
    result = invoke("diagnose")
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    help_text = invoke("diagnose", "--help").stdout
    for words in ("MODEL", "TEXT", "--plot", "vanishing and exploding"):
        assert words in help_text
