"""The scripts in examples/ run, and show what they say they show."""

import contextlib
import http.client
import http.server
import json
import re
import runpy
import threading
from pathlib import Path

import pytest
from support import run_python

from fastrnn import CharRNN
from fastrnn.sharing import changed

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

pytestmark = pytest.mark.few(0)  # .ci/run has a step for them


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


def test_live(example):
    out = example("06_live.py")
    (error, noise) = numbers(r"mean error: ([\d.]+), where the noise alone is ([\d.]+)", out)
    (naive,) = numbers(r"the value before as a guess: ([\d.]+)", out)
    assert noise < error < 0.6 * naive
    lines = out.splitlines()[:11]
    assert sum(line.count("*") for line in lines) == 100
    assert sum(line.count("o") for line in lines) < 50


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


def test_serve(example):
    out = example("05_serve.py", "--self-test")
    assert out == "8 clients asked 40 times, and every answer is what one thread writes\n"


def test_the_servers_test_fails_where_an_answer_is_missing_or_wrong(capsys):
    serve = runpy.run_path(str(EXAMPLES / "05_serve.py"))
    model = CharRNN(4, seq_len=4, batch_size=1, verbose=0, random_state=0).partial_fit("hello " * 9)
    handler = serve["Handler"]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        handler.model = CharRNN(4, verbose=0)  # has learned nothing: each request is refused
        with pytest.raises(OSError, match="HTTP Error"):
            serve["self_test"](address, model)
        handler.model = CharRNN(4, seq_len=4, batch_size=1, verbose=0).partial_fit("hollow " * 9)
        with pytest.raises(SystemExit, match=r"\d+ of 40 answers are wrong"):
            serve["self_test"](address, model)
        handler.model = model
        serve["self_test"](address, model)
        server.shutdown()
    assert "8 clients asked 40 times" in capsys.readouterr().out


def test_the_server_says_what_is_wrong_and_learns():
    serve = runpy.run_path(str(EXAMPLES / "05_serve.py"))
    handler, model = (
        serve["Handler"],
        CharRNN(4, seq_len=4, batch_size=1, verbose=0).partial_fit("hello " * 9),
    )
    handler.model = model
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def ask(path, body=None, headers=()):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
            with contextlib.closing(connection):
                connection.request("GET" if body is None else "POST", path, body, dict(headers))
                answer = connection.getresponse()
                return answer.status, json.load(answer)

        assert ask("/generate?n=7&seed=1&prompt=hell") == (
            200,
            {"text": model.generate(7, "hell", random_state=1)},
        )
        for query, words in (("n=x", "invalid literal"), ("n=-1", "n must be"), ("n=10001", "at most 10000"),
                             ("m=1", "unexpected keyword"), ("prompt=z", "not in the vocabulary")):  # fmt: skip
            status, content = ask(f"/generate?{query}")
            assert (status, words in content["error"]) == (400, True), content
        assert ask("/nothing")[0] == 404
        assert ask("/train", b"")[0] == 400
        for length in ("many", "-1", "1000001"):
            assert ask("/train", b"hello", {"Content-Length": length})[0] == 400
        before = model.step_
        assert ask("/train", b"hello hello") == (200, {"steps": model.step_})
        assert model.step_ > before
        with changed(model, "fit"):
            status, content = ask("/generate")
            assert (status, "another thread" in content["error"]) == (503, True)
            assert ask("/train", b"hello hello")[0] == 503
        server.shutdown()


def test_digits(example):
    pytest.importorskip("sklearn")
    out = example("08_digits.py")
    (guess,) = numbers(r"always the same digit: ([\d.]+)", out)
    (whole,) = numbers(r"all 8 rows: +([\d.]+)", out)
    (short,) = numbers(r"first 5 to 8 rows: +([\d.]+)", out)
    assert guess == pytest.approx(0.1, abs=0.01)
    assert 0.97 <= whole < 1
    assert 0.85 <= short < whole
    lengths = re.findall(r"^  (\d) rows: ([\d.]+) of (\d+)$", out, re.M)
    assert [int(n) for n, _, _ in lengths] == [5, 6, 7, 8]
    assert sum(int(count) for _, _, count in lengths) == 450
    assert sum(float(share) * int(count) for _, share, count in lengths) / 450 == pytest.approx(
        short, abs=2e-3
    )


def test_tagging(example):
    out = example("09_tagging.py")
    shares = [
        numbers(rf"{name}: +([\d.]+)", out)[0]
        for name in ("always no event", r"threshold of 0\.\d+", "net, forwards", "net, both ways")
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.7
    assert 0.95 < shares[3] < 0.99  # it is not the tags that it has read
    true, threshold, net = (
        re.search(rf"^{name} +([.#]+)$", out, re.M)[1] for name in ("true", "threshold", "net")
    )
    assert len(true) == len(threshold) == len(net) >= 20


def test_forecast(example):
    out = example("10_forecast.py")
    share, count = numbers(r"inside of the 90% band: ([\d.]+)% of (\d+) values", out)
    assert count == 20_000
    assert share == pytest.approx(90, abs=2)
    learned, true = numbers(r"noise: ([\d.]+) learned, ([\d.]+) true", out)
    assert learned == pytest.approx(true, rel=0.03)
    error, least, naive = numbers(
        r"error: ([\d.]+), of the rule itself ([\d.]+), of the value before ([\d.]+)", out
    )
    assert least <= error < 1.03 * least < naive
    picture = out.partition("\n\n")[0]
    assert sum(map(picture.count, "*X")) == 100
    assert picture.count("X") < 25


def test_adding_problem(example):
    out = example("11_adding_problem.py")
    guess, usual, identity = (
        numbers(rf"{name}: +([\d.]+)", out)[0]
        for name in ("always 1", "tanh, usual weights", "relu, identity")
    )
    assert guess == pytest.approx(1 / 6, rel=0.05)
    assert identity < 0.005 < 0.1 < usual
    said = re.findall(r"a sum of ([\d.]+), and the net says ([\d.]+)", out)
    assert len(said) == 3
    assert all(abs(float(total) - float(value)) < 0.2 for total, value in said)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("09_tagging.py", ("range(400)", "range(4)"), "not better than the rest"),
        ("10_forecast.py", ("1.645 * deviation", "1.3 * deviation"), "not one of 90%"),
        (
            "11_adding_problem.py",
            ("MOST = 64, 32, 250, 20_000", "MOST = 64, 32, 250, 9"),
            "has not learned to add",
        ),
    ],
)
def test_an_example_whose_claim_is_wrong_fails(tmp_path, name, change, words):
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert change[0] in source
    (tmp_path / name).write_text(source.replace(*change), encoding="utf-8")
    done = run_python(tmp_path / name)
    assert done.returncode == 1
    assert words in done.stderr


def test_the_list_of_examples_is_complete():
    listed = re.findall(
        r"^\| \[(\w+\.\w+)\]\(\1\)", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert listed == sorted(file.name for file in EXAMPLES.iterdir() if file.suffix in (".py", ".ipynb"))
