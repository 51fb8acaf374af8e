"""`fastrnn sample`: exactly the characters of `CharRNN.stream`, as they come."""

import io
import math
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from cli_support import FASTRNN, environment, invoke, on_a_terminal, run, start

from fastrnn import CharRNN, cli

TEXT = "The quick brown fox jumps over the lazy dög.\n" * 60


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "model.safetensors"
    CharRNN(
        16, seq_len=8, batch_size=4, max_steps=150, validate_every=50, random_state=0, lr=0.02,
        backend="numpy", verbose=0,
    ).fit(TEXT).save(path)  # fmt: skip
    return path


@pytest.fixture(scope="module")
def model(file):
    return CharRNN.load(file)


# -- what is written -------------------------------------------------------------------------------


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], {}),
        (["--length", "700", "--temperature", "0.5"], {"n": 700, "temperature": 0.5}),
        (["-n", "33", "-t", "0"], {"n": 33, "temperature": 0}),
        (["--top-k", "3", "--top-p", "0.8"], {"top_k": 3, "top_p": 0.8}),
        (["-n", "0"], {"n": 0}),
        (["--prompt", "The lazy", "--no-echo"], {"prompt": "The lazy"}),
    ],
    ids=" ".join,
)
def test_sample_writes_what_stream_gives(file, model, arguments, options):
    done = run("sample", file, "--random-state", 1, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "".join(model.stream(**{"n": 500, "random_state": 1, **options}))


def test_the_prompt_comes_first(file, model):
    result = invoke("sample", file, "-p", "The dög", "-n", 20, "--random-state", 1)
    assert result.stdout == "The dög" + model.generate(20, "The dög", random_state=1)


def test_a_prompt_from_standard_input(file, model):
    done = run("sample", file, "-p", "-", "-n", 20, "--random-state", 1, input="brown dög\n".encode())
    assert done.stdout == "brown dög\n" + model.generate(20, "brown dög\n", random_state=1)


def test_many_samples_are_divided_by_dashes(file, model):
    result = invoke("sample", file, "-p", "fox", "-n", 20, "-t", 3, "--num-samples", 3, "--random-state", 1)
    wanted = model.generate(20, "fox", temperature=3, num_samples=3, random_state=1)
    assert len(set(wanted)) == 3
    assert result.stdout == f"\n{'-' * 72}\n".join("fox" + text for text in wanted)


def test_without_a_seed_samples_differ(file):
    samples = [invoke("sample", file, "-n", 50, "-t", 3).stdout for _ in range(2)]
    assert samples[0] != samples[1]


def test_the_best_weights_on_demand(file, model):
    result = invoke("sample", file, "-n", 40, "--random-state", 1, "--weights", "best")
    assert result.stdout == CharRNN.load(file).use_weights("best").generate(40, random_state=1)


def test_unknown_characters(file, model):
    result = invoke("sample", file, "-p", "Über")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(
        r"Error: prompt: not in the vocabulary of \d+ characters: 'Ü'; --unknown skip leaves such characters "
        r"out\n",
        result.stderr,
    )
    result = invoke("sample", file, "-p", "Über", "--unknown", "skip", "-n", 9, "--random-state", 1)
    assert result.stdout == "Über" + model.generate(9, "ber", random_state=1)
    result = invoke("sample", file, "-p", "Über", "--unknown", "o", "-n", 9, "--random-state", 1)
    assert result.stdout == "Über" + model.generate(9, "ober", random_state=1)


def test_line_ends_of_windows_in_a_prompt(file, model):
    done = run("sample", file, "-p", "-", input=b"brown\r\n")
    assert done.returncode == 1
    assert re.search(r"'\\r'; --newline universal reads .* as '\\n'; --unknown skip leaves", done.stderr)
    done = run("sample", file, "-p", "-", "-n", 20, "--random-state", 1, "--newline=universal", "--no-echo",
               input=b"\xef\xbb\xbfbrown\r\n")  # fmt: skip
    assert done.stdout == model.generate(20, "brown\n", random_state=1)


def test_a_sample_ends_before_a_string(file, model):
    whole = model.generate(300, "The", random_state=1)
    assert whole[:60].count("\n") < whole.count("\n")
    arguments = ["sample", file, "-p", "The", "--random-state", 1, "--stop"]
    for length in (300, "none"):
        assert run(*arguments, "\n", "-n", length).stdout == "The" + whole[: whole.index("\n")]
    two = whole[9:13], whole[30:33]
    wanted = "The" + whole[: min(map(whole.index, two))]
    assert invoke(*arguments, two[0], "--stop", two[1], "-n", 300).stdout == wanted
    assert invoke(*arguments, "no such text", "-n", 300).stdout == "The" + whole
    samples = invoke(*arguments, "o", "-n", 80, "--num-samples", 3, "--no-echo").stdout
    wanted = model.generate(80, "The", num_samples=3, random_state=1, stop="o")
    assert samples == f"\n{'-' * 72}\n".join(wanted)


LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
    "cp1252": {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
    "utf-16": {"PYTHONIOENCODING": "utf-16", "PYTHONUTF8": "0"},
    "strict ascii": {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"},
    "unbuffered": {"PYTHONUNBUFFERED": "1"},
}


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """A model of characters that few encodings have, of line ends and control characters."""
    path = tmp_path_factory.mktemp("strange") / "model"
    CharRNN(16, seq_len=8, batch_size=4, max_steps=9, random_state=0, backend="numpy", verbose=0).fit(
        "\U0001f600 größer\r\n\u20ac\x1b[2J\u2028\n" * 30
    ).save(path)
    return path


@pytest.mark.parametrize("locale", LOCALES)
def test_a_pipe_gets_exactly_the_characters_in_utf8(strange, locale):
    prompt = "größer\r\n\U0001f600"
    done = subprocess.run(
        [*FASTRNN, "sample", str(strange), "-n", "400", "-t", "3", "-p", "-", "--random-state", "1"],
        input=prompt.encode(), env=environment(**LOCALES[locale]), capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    wanted = CharRNN.load(strange).generate(400, prompt, temperature=3, random_state=1)
    assert set("\U0001f600\r\n\u20ac\x1b\u2028") <= set(wanted)
    assert done.stdout == (prompt + wanted).encode()
    assert done.stderr == b""


@pytest.mark.parametrize("samples", [1, 2])
def test_windows_line_ends_are_not_made_of_line_breaks(strange, samples, monkeypatch):
    """Standard output translates them there; here it is made to."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline="\r\n")
    monkeypatch.setattr(sys, "stdout", out)
    arguments = ["sample", str(strange), "-n", "400", "-t", "3", "--random-state", "1"]
    cli.main([*arguments, "--num-samples", str(samples)], standalone_mode=False)
    written = CharRNN.load(strange).generate(400, temperature=3, num_samples=samples, random_state=1)
    wanted = written if samples == 1 else f"\n{'-' * 72}\n".join(written)
    assert "\n" in wanted
    assert out.buffer.getvalue() == wanted.encode()


def test_an_object_in_place_of_standard_output_gets_the_characters(strange, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO(newline=""))
    cli.main(["sample", str(strange), "-n", "99", "-t", "3", "--random-state", "1"], standalone_mode=False)
    wanted = CharRNN.load(strange).generate(99, temperature=3, random_state=1)
    assert sys.stdout.getvalue() == wanted


# -- as it comes -----------------------------------------------------------------------------------

unix = pytest.mark.skipif(os.name == "nt", reason="needs pipes and signals of Unix")


@unix
def test_the_first_characters_do_not_wait_for_the_others(file):
    with start("sample", file, "-n", "none") as process:
        assert len(process.stdout.read(1)) == 1
        process.stdout.close()  # as `| head -c 1` does
        stderr = process.stderr.read()
    assert stderr == b""
    assert process.returncode == 1


@unix
def test_ctrl_c_ends_an_endless_sample_quietly(file):
    with start("sample", file, "-n", "none") as process:
        process.stdout.read(10)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == b""


@unix
def test_ctrl_c_adds_no_line_break_to_what_a_pipe_gets(file, model):
    """Only a terminal gets one, so that the shell's prompt begins a line."""
    options = ["sample", file, "-n", "none", "--random-state", 1]
    with start(*options) as process:
        begun = os.read(process.stdout.fileno(), 10)  # `communicate` knows nothing of a buffer
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    written = (begun + rest).decode()
    assert written == model.generate(len(written), random_state=1)


@unix
def test_a_terminal_gets_a_line_break_and_no_commands(tmp_path):
    path = tmp_path / "model"
    CharRNN(8, seq_len=8, batch_size=2, max_steps=100, lr=0.05, random_state=0, backend="numpy",
            verbose=0).fit("\x1b[2J\x07ab" * 50).save(path)  # fmt: skip
    options = ["sample", path, "-n", 40, "--random-state", 1]
    shown, process = on_a_terminal(*options, stream="stdout")
    assert process.returncode == 0
    assert shown.endswith("\n")
    assert not set("\x1b\x07") & set(shown)
    assert "\\x1b[2J\\x07ab" in shown
    assert "\x1b[2J\x07ab" in run(*options).stdout


@unix
def test_a_terminal_gets_escapes_for_what_its_encoding_lacks(strange):
    env = environment(PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    options = ["sample", strange, "-n", 0, "-p", "ß\u20ac\x1b\u2028"]
    shown, process = on_a_terminal(*options, stream="stdout", env=env, encoding="latin-1")
    assert (process.returncode, shown) == (0, "ß\\u20ac\\x1b\\u2028\n")


def test_sample_imports_nothing_that_it_does_not_need(file):
    """What is not imported does not have to be waited for."""
    code = (
        "import sys; from fastrnn.cli import main; "
        f"main(['sample', {str(file)!r}, '-n', '1', '--no-echo'], standalone_mode=False); "
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert len(done.stdout) == 1
    unwanted = {
        "numba", "scipy", "tqdm", "matplotlib", "sklearn", "tempfile", "multiprocessing", "asyncio", "unittest",
        "fastrnn.cli.comparison", "fastrnn.diagnostics", "fastrnn.layers", "fastrnn.reference", "fastrnn.cli.train",
    }  # fmt: skip
    assert not unwanted & set(done.stderr.split())


# -- models that are not finite --------------------------------------------------------------------


def broken(path, spoil):
    """A model whose weights `spoil` has changed, in a file."""
    model = CharRNN(8, seq_len=8, batch_size=4, max_steps=20, validate_every=10, random_state=0, backend="numpy",
                    verbose=0).fit(TEXT)  # fmt: skip
    spoil(model.model_.parameters)
    model.save(path / "broken")
    (path / "text").write_text(TEXT, encoding="utf-8")
    return path / "broken", path / "text"


def put(name, value):
    def spoil(parameters):
        parameters[name].flat[0] = value

    return spoil


def too_large(parameters):
    """Finite, but the logits are not: they are sums of numbers near the largest."""
    parameters["weight_out"][:] = 3e38 * np.sign(parameters["weight_out"])
    parameters["weight_out"][0] = 3e38
    parameters["bias_hh_l0"][:] = 50


@pytest.mark.parametrize("command", ["sample", "sample 2", "eval", "eval --json", "diagnose"])
@pytest.mark.parametrize(
    "spoil",
    [put("weight_hh_l0", math.nan), put("bias_out", math.inf), put("weight_ih_l0", -math.inf), too_large],
    ids=["nan", "inf", "-inf", "too large"],
)
def test_a_model_that_gives_no_numbers_is_told_in_one_line(tmp_path, command, spoil):
    model, text = broken(tmp_path, spoil)
    arguments = {
        "sample": ["sample", model], "sample 2": ["sample", model, "--num-samples", 2],
        "eval": ["eval", model, text], "eval --json": ["eval", model, text, "--json"],
        "diagnose": ["diagnose", model, text],
    }[command]  # fmt: skip
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(r"Error: .*broken'.*\n", result.stderr)
    if spoil is not too_large:
        assert "the last weights in" in result.stderr
        assert "hold NaN or infinity" in result.stderr


def test_the_best_weights_are_of_use_where_the_last_are_not_finite(tmp_path):
    model, text = broken(tmp_path, put("weight_hh_l0", math.nan))
    for command in (["sample", model], ["eval", model, text]):
        assert invoke(*command).exit_code == 1
        assert invoke(*command, "--weights", "best").exit_code == 0


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["-n", "-1"], ["-n", "many"], ["-t", "-1"], ["-t", "nan"], ["--top-k", "0"], ["--top-p", "0"],
        ["--top-p", "1.1"], ["--top-p", "nan"], ["--num-samples", "0"], ["--random-state", "-1"], ["--backend", "fortran"],
        ["--num-samples", "2", "-n", "none"], ["--unknown", "??"], ["--unknown", "Ü"],
        ["--newline", "unix"], ["--stop", ""], ["surplus"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_status_2(file, arguments):
    result = invoke("sample", file, *arguments)
    assert result.exit_code == 2
    assert not result.stdout
    assert "Usage:" in result.stderr


@pytest.mark.parametrize("command", ["sample", "eval", "info", "diagnose"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (None, "cannot read checkpoint '.*model': No such file or directory"),
        (lambda content: b"", "model' is empty"),
        (lambda content: b"just a text", "model' is not a checkpoint of fastrnn"),
        (lambda content: content[:-100], "model' is truncated"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "model' was altered or damaged"),
    ],
    ids=["missing", "empty", "text", "truncated", "altered"],
)
def test_what_is_no_model_is_told_in_one_line(file, tmp_path, command, damage, said):
    other = tmp_path / "model"
    if damage is not None:
        other.write_bytes(damage(file.read_bytes()))
    text = tmp_path / "text"
    text.write_text(TEXT, encoding="utf-8")
    result = invoke(command, other, *([text] if command in ("eval", "diagnose") else []))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(rf"Error: .*{said}.*\n", result.stderr)


def test_a_prompt_that_is_no_text(file):
    done = run("sample", file, "-p", "-", input=b"abc\xff")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: standard input is not UTF-8 text: byte 0xff at offset 3")
    assert done.stderr.count("\n") == 1
