"""`fastrnn diagnose`: a report that a beginner understands, and the picture."""

import re

import numpy as np
import pytest
from cli_support import invoke

from fastrnn import CharRNN
from fastrnn.diagnose_report import diagnose

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
    assert re.search(r"^ +12 characters back +[\d.e-]+%$", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("radius", "verdict", "advice"),
    [
        (0.2, "vanishes", "A larger start for Whh"),
        (1.0, "holds", "Nothing needs to be done"),
        (2.0, "explodes", 'Clip by the norm: clip="norm"'),
    ],
)
def test_verdict_follows_the_weights(radius, verdict, advice):
    model = make_model()
    for name, W in model.model_.parameters.items():
        if "ih" in name or "bias" in name:
            W *= 1e-12  # quiet inputs: tanh is the identity, and the product is that of Whh alone
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
    for name, W in model.model_.parameters.items():
        if "ih" in name or "bias" in name:
            W *= 1e-6
    rotation(model, 0.5)
    text = " ".join(str(diagnose(model, TEXT)).split())
    assert "7 characters back less than 1% of it is left" in text
    assert "gradients reach 7 characters back and the training looks 40 back. seq_len=14" in text


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


@pytest.mark.parametrize("picture", ["out", "out.txt", "nowhere/out.png"])
def test_a_picture_that_cannot_be_written_is_refused_before_the_work(folder, picture, tmp_path):
    pytest.importorskip("matplotlib")
    result = invoke("diagnose", folder / "none", folder / "none", "--plot", tmp_path / picture)
    assert result.exit_code == 2
    assert "--plot" in result.stderr
    assert picture in result.stderr


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


def test_usage():
    result = invoke("diagnose")
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    help_text = invoke("diagnose", "--help").stdout
    for words in ("MODEL", "TEXT", "--plot", "vanishing and exploding"):
        assert words in help_text
