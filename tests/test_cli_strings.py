"""Strings that came from files, and names of files: none of them commands the terminal."""

import json
import os
import re
import unicodedata

import pytest
from cli_support import invoke, on_a_terminal

from fastrnn import CharRNN
from fastrnn.checkpoint import read_checkpoint, write_checkpoint
from fastrnn.terminal import printable

TEXT = "The quick brown fox jumps over the lazy dog.\n" * 20

#: Clears the screen in two ways, rings, turns the direction of writing, and adds a line of its own.
HOSTILE = "\x1b[2J\x9b2J\x07\u202e\u2066\x00\x7f\r\nError: all is well\x08"

COMMANDS = {
    "info": ["info", "MODEL"],
    "info --json": ["info", "MODEL", "--json"],
    "sample": ["sample", "MODEL", "-n", "0"],
    "eval": ["eval", "MODEL", "TEXT"],
    "eval --json": ["eval", "MODEL", "TEXT", "--json"],
    "diagnose": ["diagnose", "MODEL", "TEXT"],
    "resume": ["train", "TEXT", "--out", "MODEL", "--resume", "--max-steps=3"],
}


def commands_the_terminal(text):
    """Characters that a terminal or the eye obeys."""
    return sorted(
        {c for c in text if c not in "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Content and arrays of a checkpoint, all of whose strings are there."""
    path = tmp_path_factory.mktemp("strings") / "model"
    model = CharRNN(8, seq_len=8, batch_size=4, max_steps=2, random_state=0, unknown=" ", backend="numpy",
                    checkpoint=path, verbose=0)  # fmt: skip
    model.fit(TEXT)
    content, arrays = read_checkpoint(path)
    content["params"]["backend"] = "numpy"
    return content, arrays


def places(value, path=()):
    """Where in JSON the strings and the names are: paths, and the last is the string or the name itself."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield "name", (*path, key)
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value[:1]):
            yield from places(item, (*path, i))
    elif isinstance(value, str):
        yield "value", path


def replaced(content, kind, path, new):
    content = json.loads(json.dumps(content))
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if kind == "value":
        inner[path[-1]] = new
    else:
        inner[new] = inner.pop(path[-1])
    return content


def run_all(model, text):
    for name, arguments in COMMANDS.items():
        result = invoke(*({"MODEL": model, "TEXT": text}.get(a, a) for a in arguments))
        assert commands_the_terminal(result.output) == [], name
        assert result.exit_code in (0, 1), (name, result.output)
        if result.exit_code:
            assert result.stderr.splitlines()[-1].startswith("Error: ")
            assert "all is well" not in [line.removeprefix("Error: ") for line in result.stderr.splitlines()]
        yield name, result


def test_no_string_of_a_signed_file_commands_the_terminal(made, tmp_path):
    content, arrays = made
    model, text = tmp_path / "model", tmp_path / "text"
    text.write_text(TEXT, encoding="utf-8")
    tried = list(places(content))
    assert len(tried) > 60
    met = set()
    for kind, path in tried:
        write_checkpoint(model, replaced(content, kind, path, HOSTILE), arrays)
        for name, result in run_all(model, text):
            if "\\x1b[2J" in result.output or "\\u001b[2J" in result.output:
                met.add(name)
    assert met == set(COMMANDS)  # some string came as far as that, and was escaped


def with_replacement(content, character):
    """A character in the vocabulary that takes the place of what the model never saw."""
    content = replaced(content, "value", ("vocabulary",), character + content["vocabulary"][1:])
    return replaced(content, "value", ("params", "unknown"), character)


@pytest.mark.parametrize("character", ["\x1b", "\x9b", "\u202e", "\u2068", "\r", "\n"])
def test_info_shows_a_replacement_character_as_an_escape(made, tmp_path, character):
    content, arrays = made
    write_checkpoint(tmp_path / "model", with_replacement(content, character), arrays)
    result = invoke("info", tmp_path / "model")
    assert result.exit_code == 0
    escape = character.encode("unicode_escape").decode()
    assert re.search(rf"^unknown +{re.escape(escape)}$", result.stdout, re.MULTILINE)
    assert json.loads(invoke("info", tmp_path / "model", "--json").stdout)["params"]["unknown"] == character


def test_a_digest_that_is_none_is_refused_and_not_shown(made, tmp_path):
    content, arrays = made
    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    content = replaced(content, "value", ("progress", "sha256"), HOSTILE)
    write_checkpoint(tmp_path / "model", content, arrays)
    result = invoke("train", tmp_path / "text", "--out", tmp_path / "model", "--resume")
    assert result.exit_code == 1
    assert commands_the_terminal(result.stderr) == []
    last = result.stderr.splitlines()[-1]
    assert last.endswith("is not a model of CharRNN: the progress makes no sense")


def test_no_name_of_a_file_commands_the_terminal(tmp_path):
    folder = tmp_path / "\x1b[2J\u202ename\nError: all is well"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    model, text = folder / "model", folder / "text"
    text.write_text(TEXT, encoding="utf-8")
    commands = [
        ["train", text, "--out", model, "--max-steps=2", "--hidden-size=8"],
        ["train", text, "--out", model],
        ["train", text, "--out", model, "--resume"],
        ["train", folder / "none", "--out", folder / "new", "--resume"],
        ["demo", "--text", text, "--max-steps=2", "--hidden-size=8", "--sample-length=0"],
        ["diagnose", model, text, "--plot", folder / "out.svg"],
        ["diagnose", model, text, "--plot", folder / "out.none"],
        *([command, folder / "none", text] for command in ("eval", "diagnose")),
        *([command, text, text] for command in ("eval", "diagnose")),
        ["info", folder / "none"], ["info", text], ["sample", folder], ["eval", model, folder / "none"],
        ["sample", model, folder / "surplus"], [folder / "command"], [f"--{folder}"], ["info", f"--{folder}"],
    ]  # fmt: skip
    for command in commands:
        result = invoke(*command)
        assert commands_the_terminal(result.output) == [], command
        assert result.exit_code in (0, 1, 2), command


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals on Windows")
def test_a_real_terminal_sees_no_commands(made, tmp_path):
    content, arrays = made
    write_checkpoint(tmp_path / "model", with_replacement(content, "\x1b"), arrays)
    shown, process = on_a_terminal("info", tmp_path / "model", stream="stdout")
    assert process.returncode == 0
    assert "\\x1b" in shown
    assert commands_the_terminal(shown) == []
    shown, process = on_a_terminal("demo", "--text", "\x1b[2J\n", stream="stderr")
    assert process.returncode == 1
    assert shown == "Error: cannot read '\\x1b[2J\\n': No such file or directory\n"


# -- the function ----------------------------------------------------------------------------------


def test_printable_leaves_no_character_that_commands_a_terminal():
    every = "".join(map(chr, range(0x11000))) + "".join(map(chr, range(0xE0000, 0xE0200)))
    shown = printable(every, keep="")
    assert {unicodedata.category(c)[0] for c in shown} <= set("LMNPSZ")
    assert {c for c in shown if unicodedata.category(c)[0] == "Z"} == {" "}
    assert printable(every) == "".join(c if c in "\n\t" else printable(c) for c in every)


def test_printable_keeps_letters_of_every_script():
    for text in ("", "plain", "größer", "Привет", "漢字", "\U0001f600", "a\tb\nc"):
        assert printable(text) == text
    assert printable("a\tb\nc", keep="") == "a\\tb\\nc"
    assert printable("\ud800\x85\u2028\u202a\u2069") == "\\ud800\\x85\\u2028\\u202a\\u2069"
