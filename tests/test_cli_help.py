"""Help on a terminal of 80 and of 60 columns, words that are mistyped, and what waits for a terminal."""

import contextlib
import io
import itertools
import json
import os
import re
import shlex

import click
import pytest
from cli_support import environment, invoke, on_a_terminal, read_to_the_end, run, start

from fastrnn import CharRNN
from fastrnn.cli import commands as cli
from fastrnn.cli import help as cli_help
from fastrnn.cli.shared import echo_json

PAGES = [(), *((name,) for name in cli.COMMANDS)]
WIDTHS = [80, 60]

TEXT = "The quick brown fox jumps over the lazy dog.\n" * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("help")
    CharRNN(8, seq_len=8, batch_size=4, max_steps=20, random_state=0, backend="numpy", verbose=0).fit(
        TEXT
    ).save(path / "model")
    (path / "text").write_text(TEXT, encoding="utf-8")
    return path


def page(*of, width=80):
    """The help on a terminal of so many columns, of which click leaves two; its test runner has always 80."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        cli.main.main([*of, "--help"], "fastrnn", standalone_mode=False, terminal_width=width - 2)
    return shown.getvalue()


def command(name):
    found = cli.main.get_command(click.Context(cli.main), name)
    assert found is not None
    return found


def examples(text):
    """The commands under "Examples:", each in one line."""
    block = text.split("Examples:\n")[1].split("\n\n")[0]
    return [line.strip() for line in re.sub(r" \\\n +", " ", block).splitlines()]


# -- help ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("of", PAGES, ids=" ".join)
def test_help_is_within_the_terminal_and_its_first_screen_has_the_examples(of, width):
    lines = page(*of, width=width).splitlines()
    assert max(map(len, lines)) < width
    first = "\n".join(lines[:24])
    assert first.startswith("Usage: ")
    assert "\nExamples:\n  fastrnn" in first
    assert "\n\n" in first[first.index("Examples:") :]  # all of them


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals on Windows")
@pytest.mark.parametrize("width", WIDTHS)
def test_help_on_a_real_terminal(width):
    shown, process = on_a_terminal("train", "--help", stream="stdout", env=environment(COLUMNS=str(width)))
    assert process.returncode == 0
    # The name of the program is another one there.
    assert shown.partition("\n\n")[2] == page("train", width=width).partition("\n\n")[2]


def test_the_first_help_is_one_screen():
    assert len(page().splitlines()) <= 23


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("of", PAGES, ids=" ".join)
def test_examples_are_commands_that_are_taken(of, width):
    told = examples(page(*of, width=width))
    assert len(told) >= 2
    for example in told:
        words = shlex.split(example.rpartition("| ")[2].removeprefix("mpiexec -n 4 python -m "))
        assert words[0] == "fastrnn"
        name, *arguments = words[1:]
        command(name).make_context(name, arguments)  # fails where an option is not known


def test_help_breaks_no_name_of_an_option():
    for of, width in itertools.product(PAGES, (80, 70, 60, 55)):
        text = page(*of, width=width)
        assert not re.search(r"--?[a-z-]*-$", text, re.MULTILINE)
        assert cli_help._HYPHEN not in text


def test_every_option_of_train_and_sample_is_in_a_group():
    for name, groups in (
        ("train", ["Files", "Model", "Training", "When to stop", "Text", "Machine", "What to show"]),
        ("sample", ["What to write", "How to draw", "Model and text"]),
    ):
        text = page(name)
        headings = re.findall(r"^([A-Z][a-z ]+):$", text, re.MULTILINE)
        assert headings == ["Examples", *groups, "Other options"]
    ungrouped = [p.name for p in command("train").params if isinstance(p, click.Option) and p.group is None]
    assert ungrouped == []
    other = page("train").split("Other options:\n")[1]
    assert re.findall(r"--[a-z-]+", other) == ["--help"]


@pytest.mark.parametrize("of", PAGES, ids=" ".join)
def test_defaults_say_something(of):
    text = " ".join(page(*of).split())
    for default in re.findall(r"\[default: (.*?)\]", text):
        assert not default.startswith(("(", '"', "None"))
        assert "as many as help" not in default
    assert "] [default" not in text


def test_an_option_shows_its_range_by_what_stands_for_its_value():
    text = " ".join(page("sample").split())
    assert "--temperature X" in text
    assert "[default: 1.0; X>=0]" in text
    assert "[default: 1; N>=1]" in text
    assert "-n, --length N|none" in text


def test_a_long_example_is_broken_as_a_shell_reads_it():
    line = """fastrnn sample --prompt "It was" --stop 'the end' -p - --length 100 | less"""
    for width in range(30, 90):
        parts = list(cli_help._within(line, width))
        assert all(len(part) <= width for part in parts)
        assert all(part.endswith(" \\") for part in parts[:-1])
        assert shlex.split(" ".join(part.removesuffix("\\") for part in parts)) == shlex.split(line)
        assert not any(re.search(r"--(prompt|stop|length) \\$", part) for part in parts)


def test_completion_is_explained_for_each_shell():
    result = invoke("info", "--completion")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 60
    for words in ("_FASTRNN_COMPLETE=bash_source", "zsh_source", "fish_source", "~/.bashrc"):
        assert words in result.stdout


def test_exit_statuses_are_told():
    assert "0 done, 1 failed, 2 wrong usage, 129" in " ".join(page("train").split())


# -- words that are mistyped -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["evaluate"], "Did you mean 'eval'?"),
        (["train", "t", "--out", "m", "--hiden-size", "3"], "'--hidden-size'"),
        (["train", "t", "--out", "m", "--optimizer", "adm"], "Did you mean 'adam' or 'adamw'?"),
        (["train", "t", "--out", "m", "--clip", "nrom"], "nor the word none. Did you mean 'norm'?"),
        (["train", "t", "--out", "m", "--backend", "nunpy"], "Did you mean 'numpy'?"),
        (["demo", "--dtype", "float23"], "Did you mean 'float32'"),
        (["sample", "m", "--weights", "bets"], "Did you mean 'best'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_was_meant_is_told(arguments, said):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_nothing_is_meant_by_nonsense():
    result = invoke("nonsense")
    assert result.exit_code == 2
    assert result.stderr.endswith("Error: No such command 'nonsense'.\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "", "--out", "m"], "'' is empty: the name of a file is wanted, or - for standard input."),
        (["train", "t", "--out", ""], "'--out' / '-o' / '--checkpoint': '' is empty: the name of a file is wanted."),
        (["train", "t", "--out", "--force"], "a file whose name begins with - is written './--force', got '--force'."),
        (["train", "t", "-o", "-q"], "a file whose name begins with - is written './-q', got '-q'."),
        (["train", "t", "--out=-"], "a file whose name begins with - is written './-', got '-'."),
        (["train", "t", "--out", "m", "--seconds", "0"], "'0' is not a positive, finite number, nor the word none."),
        (["train", "t", "--out", "m", "--lr", "fast"], "'--lr': 'fast' is not a positive, finite number."),
        (["eval", "", "t"], "'MODEL': '' is empty"),
        (["eval", "m", ""], "'TEXT...': '' is empty"),
        (["sample", ""], "'' is empty"),
        (["info", ""], "'' is empty"),
        (["diagnose", "m", ""], "'' is empty"),
        (["diagnose", "m", "t", "--plot", ""], "'--plot': '' is empty"),
        (["demo", "--text", ""], "'--text': '' is empty"),
        (["demo", "--seconds", "nan"], "'--seconds': 'nan' is not a positive, finite number."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_empty_names_and_numbers_out_of_range_are_told_with_the_option(
    arguments, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not any(tmp_path.iterdir())


# -- before the work -------------------------------------------------------------------------------


def test_a_missing_text_and_a_missing_folder_are_found_before_anything_else(folder, tmp_path):
    missing = tmp_path / "missing"
    for arguments in (
        ["train", folder / "text", missing, "--out", tmp_path / "m"],
        ["train", "-", missing, "--out", tmp_path / "m"],
        ["train", folder / "text", "--out", missing / "m"],
        ["eval", missing, missing], ["diagnose", missing, missing], ["eval", folder / "model", "-", missing],
    ):  # fmt: skip
        result = invoke(*arguments, input="never read")
        assert result.exit_code == 1, arguments
        assert re.fullmatch(
            r"Error: cannot (read|write) .*missing.*: No such file or directory\n", result.stderr
        )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name on this system")
def test_a_pipe_is_not_opened_twice(folder, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with start("eval", folder / "model", tmp_path / "pipe", text=True) as process:
        (tmp_path / "pipe").write_text(TEXT, encoding="utf-8")
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "nats per character" in out


@pytest.mark.few(2)
@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals on Windows")
@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "-", "--out", "NEW", "--max-steps", "2", "--hidden-size", "8"],
        ["eval", "model", "-"], ["diagnose", "model", "-"], ["sample", "model", "--prompt", "-", "-n", "3"],
        ["demo", "--text", "-", "--max-steps", "2", "--hidden-size", "8", "--sample-length", "3"],
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_a_terminal_is_told_that_it_is_waited_for_and_one_ctrl_d_ends_the_text(folder, tmp_path, arguments):
    import pty

    arguments = [str(tmp_path / "new") if a == "NEW" else a for a in arguments]
    master, slave = pty.openpty()
    with start(*arguments, stdin=slave, stderr=slave, cwd=folder) as process:
        os.close(slave)
        shown = b""
        while b"Waiting for text" not in shown:
            shown += os.read(master, 4096)
        assert b"Ctrl-D" in shown
        os.write(master, b"The lazy fox jumps over the dog\n\x04")
        read_to_the_end(master)
        process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == 0


def test_a_pipe_is_not_told_that_it_is_waited_for(folder):
    done = run("eval", folder / "model", "-", input=b"The lazy fox")
    assert (done.returncode, done.stderr) == (0, "")


# -- escapes ---------------------------------------------------------------------------------------


def test_escapes_in_a_prompt_and_in_what_ends_a_sample(folder):
    model = CharRNN.load(folder / "model")
    arguments = ["sample", folder / "model", "-n", "60", "--random-state", "1"]
    result = invoke(*arguments, "--escapes", "--prompt", r"dog.\nThe\x20l\u0061zy\U00000020fox", "--no-echo")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == model.generate(60, "dog.\nThe lazy fox", random_state=1)
    stopped = invoke(*arguments, "-e", "-p", "The", "--stop", r"\n")
    assert stopped.stdout == "The" + model.generate(60, "The", random_state=1, stop="\n")
    assert invoke(*arguments, "-p", r"\n").exit_code == 1  # without the option it is a backslash and an n


@pytest.mark.parametrize("text", [r"\q", "\\", r"\x4", r"\u12", r"\U00110000", r"\é", "a\\\nb"])
@pytest.mark.parametrize("option", ["--prompt", "--stop"])
def test_what_is_no_escape_is_refused(folder, option, text):
    result = invoke("sample", folder / "model", "-e", option, text)
    assert result.exit_code == 2
    assert f"'{option}'" in result.stderr
    assert "is none of the escapes" in result.stderr


def test_escapes_of_every_kind():
    from fastrnn.cli.sample import _unescape

    assert _unescape(r"a\n\t\r\\n\x41\u00e9\U0001f600é", "--prompt") == "a\n\t\r\\nA\xe9\U0001f600é"


# -- results for programs --------------------------------------------------------------------------


def loaded(result):
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout, parse_constant=pytest.fail)


def test_every_command_has_json():
    for name in cli.COMMANDS:
        assert "--json" in [opt for param in command(name).params for opt in param.opts], name


def test_train_for_programs(folder, tmp_path):
    arguments = ["train", folder / "text", "--out", tmp_path / "m", "--hidden-size", 8, "--max-steps", 3]
    told = loaded(invoke(*arguments, "--json"))
    assert told == loaded(invoke("info", tmp_path / "m", "--json"))
    assert (told["steps"], told["params"]["hidden_size"]) == (3, 8)
    assert loaded(invoke(*arguments, "--force", "--quiet", "--json"))["steps"] == 3


@pytest.mark.parametrize("number", [1, 3])
def test_sample_for_programs(folder, number):
    arguments = ["sample", folder / "model", "-n", 20, "-p", "fox", "--random-state", 1]
    told = loaded(invoke(*arguments, "--num-samples", number, "--json"))
    samples = CharRNN.load(folder / "model").generate(20, "fox", num_samples=number, random_state=1)
    assert told == {"prompt": "fox", "samples": [samples] if number == 1 else samples}
    assert invoke("sample", folder / "model", "-n", "none", "--json").exit_code == 2


def test_demo_for_programs(folder):
    told = loaded(
        invoke("demo", "--text", folder / "text", "--max-steps", 5, "--hidden-size", 8, "--batch-size", 4,
               "--sample-length", 30, "--json")
    )  # fmt: skip
    assert (told["steps"], len(told["sample"]), told["backend"]) == (5, 30, "numpy")
    assert told["ratio"] == pytest.approx(told["reference_us_per_char"] / told["us_per_char"])


def test_bench_for_programs():
    sizes = ["--hidden-size", 8, "--seq-len", 3, "--backend", "numpy", "--seconds", 0.002]
    rows = loaded(invoke("bench", *sizes, "--json"))["rows"]
    assert [row["operation"] for row in rows] == ["forward", "train_step", "sample"]
    for row in rows:
        fast = row["backends"]["numpy"]
        assert fast["ratio"] == pytest.approx(row["reference_us"] / fast["us"])


def test_bench_keeps_within_80_columns():
    result = invoke("bench", "--hidden-size", 8, "--seq-len", 3, "--seconds", 0.002)
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_numbers_that_json_lacks_are_null(capsys):
    import numpy as np

    echo_json(
        {
            "a": float("nan"),
            "b": [float("inf"), 1],
            "c": np.float32(0.5),
            "d": np.array([1, np.nan]),
            "e": None,
        }
    )
    assert json.loads(capsys.readouterr().out) == {
        "a": None,
        "b": [None, 1],
        "c": 0.5,
        "d": [1, None],
        "e": None,
    }


# -- info, demo and progress -----------------------------------------------------------------------


def test_info_has_results_first_and_no_none_of_python(folder):
    lines = invoke("info", folder / "model").stdout.splitlines()
    names = [re.split(r"  +", line)[0] for line in lines]
    assert names[:6] == ["train nats", "valid nats", "best valid nats", "best step", "steps", "epochs"]
    assert names.index("parameters") < names.index("hidden_size") < names.index("vocabulary")
    assert "None" not in "\n".join(lines)
    assert "random_state         0" in lines
    assert "max_seconds=none" in " ".join("\n".join(lines).split())
    assert len(lines) <= 24  # one screen


def test_info_of_this_machine_breaks_no_word_on_a_terminal():
    if os.name == "nt":
        pytest.skip("there are no pseudo-terminals on Windows")
    piped = run("info").stdout
    shown, _ = on_a_terminal("info", stream="stdout", env=environment(COLUMNS="60"))
    assert max(map(len, shown.splitlines())) <= 60
    assert "".join(shown.split()) == "".join(piped.split())


@pytest.mark.parametrize("width", WIDTHS)
def test_info_of_many_characters_keeps_within_the_width(tmp_path, width):
    text = "".join(map(chr, range(0x400, 0x500))) * 3
    CharRNN(4, seq_len=8, batch_size=2, max_steps=1, backend="numpy", verbose=0).fit(text).save(
        tmp_path / "model"
    )
    shown = invoke("info", tmp_path / "model", env={"COLUMNS": str(width)}).stdout
    assert max(map(len, shown.splitlines())) <= width
    _, _, vocabulary = shown.partition("\nvocabulary  ")
    assert re.sub(r"\n +", "", vocabulary).strip() == repr(text[:256])


def test_demo_breaks_no_line_of_a_narrow_terminal(folder):
    arguments = ["--max-steps", 5, "--hidden-size", 8, "--batch-size", 4, "--sample-length", 0]
    result = invoke("demo", "--text", folder / "text", *arguments, env={"COLUMNS": "60"})
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 60


@pytest.mark.few(1)
@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals on Windows")
@pytest.mark.parametrize(("width", "bar"), [(100, True), (60, False)])
def test_progress_is_whole_on_a_narrow_terminal(folder, tmp_path, width, bar):
    import fcntl
    import struct
    import termios

    def narrow():
        fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))

    arguments = ["train", folder / "text", "--out", tmp_path / "m", "--seconds", 0.5, "--hidden-size", 8]
    shown, process = on_a_terminal(*arguments, stream="stderr", preexec_fn=narrow)
    assert process.returncode == 0
    moves = [move.rstrip() for line in shown.splitlines() for move in line.split("\r") if "loss" in move]
    assert moves
    assert all(move.endswith("chars/s") and len(move) <= width for move in moves)
    assert all(("|" in move) == bar for move in moves)
