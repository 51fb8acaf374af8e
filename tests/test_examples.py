"""The scripts in examples/ run, and show what they say they show."""

import re
from pathlib import Path

import pytest
from support import run_python

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Run an example in an empty folder; return what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        done = run_python(EXAMPLES / name, *arguments)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    return run


def numbers(pattern, text):
    found = re.search(pattern, text)
    assert found, text
    return [float(n.replace(",", "")) for n in found.groups()]


def test_drop_in_prints_what_the_plain_loop_prints(example, tmp_path):
    out = example("01_drop_in.py")
    assert "\nh e l l o\n" in out
    source = (EXAMPLES / "01_drop_in.py").read_text(encoding="utf-8")
    plain = tmp_path / "plain.py"
    plain.write_text(source.replace("import SimpleRNN", "import ReferenceRNN as SimpleRNN"), encoding="utf-8")
    done = run_python(plain)
    assert done.stdout == out


def test_train_on_a_text(example, tmp_path):
    text = tmp_path / "text"
    text.write_text("the quick brown fox jumps over the lazy dog. \n" * 400, encoding="utf-8")
    out = example("02_train_on_a_text.py", text, "2")
    (guess,) = numbers(r"a guess: +([\d.]+)", out)
    (learned,) = numbers(r"what it learned: +([\d.]+)", out)
    (held_out,) = numbers(r"what it did not: +([\d.]+)", out)
    assert guess == pytest.approx(3.367, abs=1e-3)
    assert max(learned, held_out) < 0.7 * guess
    assert (tmp_path / "model.safetensors").stat().st_size > 10_000
    assert len(out.partition("A sample, as the model sees it:\n")[2].partition("\n\nThree")[0]) == 200


def test_own_training_loop(example):
    out = example("03_own_training_loop.py")
    (guess,) = numbers(r"a guess is ([\d.]+)", out)
    learned = [numbers(rf"step {step}: loss ([\d.]+), held out ([\d.]+)", out) for step in (100, 200, 300)]
    assert guess > learned[0][1] > learned[1][1] > learned[2][1] > 0.5
    by_hand, norm = numbers(r"by hand: loss ([\d.]+), norm of the gradients ([\d.]+)", out)
    assert 0.5 < by_hand < 0.7 * guess
    assert 0 < norm < 5
    assert len(out.splitlines()) == 9


@pytest.mark.few(0)
def test_loss_curve(example, tmp_path):
    pytest.importorskip("matplotlib")
    out = example("04_loss_curve.py", "curve.png")
    first, last = numbers(r"learned +([\d.]+) -> ([\d.]+)", out)
    best, step, final = numbers(r"held out +best ([\d.]+) after step (\d+), then ([\d.]+)", out)
    assert last < best < final < first  # it learns by heart
    stopped, used = numbers(r"stops after step (\d+) and uses the weights of step (\d+)", out)
    assert used <= step
    assert used < stopped
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_list_of_examples_is_complete():
    listed = re.findall(
        r"^\| \[(\w+\.\w+)\]\(\1\)", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert listed == sorted(file.name for file in EXAMPLES.iterdir() if file.suffix in (".py", ".ipynb"))
