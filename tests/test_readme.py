"""The README's examples print what the README says, and its commands are where CI looks for them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import run_python

import fastrnn

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def between(name):
    """Texts of the fenced blocks between the markers called `name`."""
    _, _, rest = README.partition(f"<!-- {name}:start -->\n")
    part, end, _ = rest.partition(f"<!-- {name}:end -->")
    assert end, f"README.md has no part {name}"
    return re.findall(r"^```\w*\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["SimpleRNN", "ReferenceRNN"])
def test_example(backend, name):
    code, output = between("example")
    done = subprocess.run(
        [sys.executable, "-c", code.replace("import SimpleRNN", f"import {name} as SimpleRNN")],
        env={
            **os.environ,
            "FASTRNN_BACKEND": backend,
            "PYTHONPATH": str(Path(fastrnn.__file__).parent.parent),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, output, "")


@pytest.mark.parametrize("name", ["char-rnn", "own-loop"])
def test_further_examples(backend, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output = between(name)
    done = run_python("-c", code, FASTRNN_BACKEND=backend)
    assert (done.returncode, done.stdout, done.stderr) == (0, output, "")


def test_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("It was a dark and stormy night. " * 300, encoding="utf-8")
    Path("another.txt").write_text("It was a night.", encoding="utf-8")
    (commands,) = between("shell")
    for command in commands.splitlines():
        program, *arguments = shlex.split(re.sub(r"--seconds \d+", "--seconds 1", command))
        assert program == "fastrnn"
        done = run_python("-m", "fastrnn", *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_links():
    for target in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target


def test_commands():
    (demo,) = between("demo-command")
    (test,) = between("test-command")
    assert demo.count("\n") == test.count("\n") == 1


def test_benchmark_markers():
    assert README.count("<!-- benchmarks:start -->") == README.count("<!-- benchmarks:end -->") == 1
