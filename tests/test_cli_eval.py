"""`fastrnn eval` and `fastrnn info MODEL`: the numbers of `CharRNN`, for people and for programs."""

import json
import math
import re

import pytest
from cli_support import invoke, run

import fastrnn
from fastrnn import CharRNN

TEXT = "The quick brown fox jumps over the lazy dog.\n" * 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("eval")
    model = CharRNN(
        16, seq_len=8, batch_size=4, max_steps=60, validate_every=20, random_state=0, lr=0.02,
        backend="numpy", verbose=0,
    )  # fmt: skip
    model.fit(TEXT).save(path / "model")
    (path / "one").write_text("A lazy fox", encoding="utf-8") and (path / "two").write_text(" jumps. ")
    (path / "known").write_text("The lazy fox jumps", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(folder):
    return CharRNN.load(folder / "model")


def test_eval_for_people(folder, model):
    done = run("eval", folder / "model", folder / "known")
    assert (done.returncode, done.stderr) == (0, "")
    text = "The lazy fox jumps"
    assert done.stdout == (
        f"nats per character  {-model.score(text):.4f}  "
        f"(a guess among {len(model.vocabulary_)}: {math.log(len(model.vocabulary_)):.4f})\n"
        f"bits per character  {model.bits_per_char(text):.4f}\n"
        f"perplexity          {model.perplexity(text):.4f}\n"
    )


def test_eval_for_programs(folder, model):
    measured = json.loads(invoke("eval", folder / "model", folder / "known", "--json").stdout)
    text = "The lazy fox jumps"
    assert measured == {
        "nats_per_char": -model.score(text),
        "bits_per_char": model.bits_per_char(text),
        "perplexity": model.perplexity(text),
        "guess_nats_per_char": math.log(len(model.vocabulary_)),
        "weights": "last",
    }
    assert 0 < measured["nats_per_char"] < measured["guess_nats_per_char"]


def test_several_texts_are_one_and_standard_input_is_a_text(folder, model):
    result = invoke("eval", folder / "model", folder / "known", "-", "--json", input=" over the dog")
    assert json.loads(result.stdout)["nats_per_char"] == -model.score("The lazy fox jumps over the dog")


def test_the_best_weights_and_unknown_characters(folder):
    best = CharRNN.load(folder / "model", unknown="skip").use_weights("best")
    result = invoke("eval", folder / "model", folder / "one", "--json", "--unknown=skip", "--weights=best")
    measured = json.loads(result.stdout)
    assert measured["nats_per_char"] == -best.score("A lazy fox")
    assert measured["weights"] == "best"


def test_a_text_from_windows(folder, model):
    (folder / "windows").write_bytes(b"\xef\xbb\xbfThe lazy fox\r\njumps")
    arguments = ["eval", folder / "model", folder / "windows", "--json"]
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert result.stderr.endswith(
        r"'\r'; --newline universal reads '\r\n' and '\r' as '\n'; --unknown skip leaves such characters out"
        "\n"
    )
    result = invoke(*arguments, "--newline", "universal")
    assert json.loads(result.stdout)["nats_per_char"] == -model.score("The lazy fox\njumps")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["one"], 1, "characters: 'A'; --unknown skip leaves such characters out\n"),
        (["missing"], 1, "Error: cannot read 'missing': No such file or directory"),
        (["."], 1, "Error: cannot read '.': Is a directory"),
        (["short"], 1, "Error: a text of at least two characters is needed, got 1"),
        (["binary"], 1, "Error: 'binary' is not UTF-8 text: byte 0xff at offset 2"),
        ([], 2, "Missing argument 'TEXT...'"),
        (["-", "-"], 2, "standard input (-) can be read only once"),
        (["known", "--weights", "worst"], 2, "'worst' is not one of"),
        (["known", "--unknown", "Z"], 2, "unknown must be a character of the vocabulary"),
    ],
)
def test_what_is_refused(folder, monkeypatch, arguments, status, said):
    monkeypatch.chdir(folder)
    (folder / "short").write_text("a", encoding="utf-8")
    (folder / "binary").write_bytes(b"ab\xff")
    result = invoke("eval", "model", *arguments)
    assert result.exit_code == status
    assert said in result.stderr
    assert result.stdout == ""
    if status == 1:
        assert result.stderr.count("\n") == 1


def test_best_weights_where_there_are_none(tmp_path):
    model = CharRNN(
        4, seq_len=4, batch_size=1, max_steps=2, validation_fraction=0, backend="numpy", verbose=0
    )
    model.fit("abab" * 9).save(tmp_path / "model")
    (tmp_path / "text").write_text("abba", encoding="utf-8")
    result = invoke("eval", tmp_path / "model", tmp_path / "text", "--weights", "best")
    assert result.exit_code == 2
    assert "there are no best weights" in result.stderr


def scaled(folder, tmp_path, factor):
    """The model with larger output weights, in a file."""
    model = CharRNN.load(folder / "model")
    for name in ("weight_out", "bias_out"):
        model.model_.parameters[name] *= factor
    model.save(tmp_path / "scaled")
    return tmp_path / "scaled", -model.score("The lazy fox jumps")


@pytest.mark.parametrize("factor", [1000, 30_000, 1e36])
def test_large_numbers_are_shown_in_scientific_notation(folder, tmp_path, factor):
    file, nats = scaled(folder, tmp_path, factor)
    shown = dict(
        re.split(r"  +", line, maxsplit=2)[:2]
        for line in invoke("eval", file, folder / "known").stdout.splitlines()
    )
    assert set(map(len, shown.values())) <= set(range(1, 11))
    assert float(shown["nats per character"]) == pytest.approx(nats, rel=1e-3)
    assert float(shown["bits per character"]) == pytest.approx(nats / math.log(2), rel=1e-3)
    perplexity = math.exp(nats) if nats < 709 else math.inf
    assert float(shown["perplexity"]) == pytest.approx(perplexity, rel=1e-3)
    assert CharRNN.load(file).perplexity("The lazy fox jumps") == perplexity
    measured = json.loads(invoke("eval", file, folder / "known", "--json").stdout, parse_constant=refuse)
    assert measured["nats_per_char"] == nats
    assert measured["perplexity"] == (perplexity if math.isfinite(perplexity) else None)


def test_the_factors_above_make_perplexities_of_every_kind(folder, tmp_path):
    nats = [scaled(folder, tmp_path, factor)[1] for factor in (1000, 30_000, 1e36)]
    assert math.log(1e6) < nats[0] < 700 < nats[1] < 1e6 < nats[2]


def refuse(name):
    raise AssertionError(f"{name} is no JSON")


# -- info ------------------------------------------------------------------------------------------


def test_info_of_a_model_for_people(folder, model):
    result = invoke("info", folder / "model")
    assert result.exit_code == 0, result.stderr
    shown = dict(re.split(r"  +", line, maxsplit=1) for line in result.stdout.splitlines() if line)
    assert shown["hidden_size"] == "16"
    usual = " ".join(result.stdout.partition("as by default  ")[2].partition("\n\n")[0].split())
    assert "optimizer=adam, " in usual
    assert "hidden_size" not in usual
    assert shown["vocabulary"] == repr(model.vocabulary_.characters)
    assert shown["vocabulary size"] == str(len(model.vocabulary_))
    assert shown["steps"] == "60"
    assert shown["best valid nats"] == f"{model.best_valid_nats_:.4f}"
    assert shown["best step"] == str(model.best_step_)
    assert shown["not finite"] == "none"
    q, h = len(model.vocabulary_), 16
    assert shown["parameters"] == f"{h * q + h * h + 2 * h + q * h + q:,}"


def test_info_of_a_model_for_programs(folder, model):
    described = json.loads(invoke("info", folder / "model", "--json").stdout)
    assert described["params"]["lr"] == 0.02
    assert described["vocabulary"] == model.vocabulary_.characters
    assert described["steps"] == 60
    assert described["not_finite"] == []
    assert described["train_nats"] == model.history_[-1]["train_nats"]
    assert [entry["step"] for entry in described["history"]] == [e["step"] for e in model.history_]


def test_info_of_a_model_that_diverged_is_json_all_the_same(tmp_path):
    model = CharRNN(
        4,
        seq_len=4,
        batch_size=1,
        max_steps=30,
        lr=1e300,
        optimizer="sgd",
        clip=None,
        backend="numpy",
        verbose=0,
    )
    with pytest.warns(RuntimeWarning):
        model.fit("abcd" * 20)
    model.save(tmp_path / "model")
    described = json.loads(invoke("info", tmp_path / "model", "--json").stdout, parse_constant=refuse)
    assert described["train_nats"] is None
    assert described["not_finite"] == ["last"]
    result = invoke("info", tmp_path / "model")
    assert result.exit_code == 0
    assert re.search(r"^not finite +last$", result.stdout, re.MULTILINE)


def test_info_of_this_machine_for_programs():
    described = json.loads(invoke("info", "--json").stdout)
    assert described["backends"]["numpy"]["available"] is True
    assert described["versions"]["fastrnn"] == fastrnn.__version__
