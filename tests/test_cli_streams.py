"""Standard streams that are closed, full or missing, for every command and for `fit`."""

import io
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import FASTRNN, environment, invoke, run

import fastrnn
from fastrnn import CharRNN, cli, terminal
from fastrnn.text import display as progress

TEXT = "The quick brown fox jumps over the lazy dog.\n" * 20

COMMANDS = {
    "sample": ["sample", "model", "-n", "5"],
    "eval": ["eval", "model", "text"],
    "info": ["info"],
    "info of a model": ["info", "model"],
    "info for programs": ["info", "model", "--json"],
    "diagnose": ["diagnose", "model", "text"],
    "bench": ["bench", "--seconds=0.001", "--hidden-size=4", "--seq-len=2", "--backend=numpy"],
    "demo": ["demo", "--text", "text", "--max-steps=2", "--hidden-size=8", "--sample-length=9"],
    "train": ["train", "text", "--out", "new", "--max-steps=2", "--hidden-size=8"],
    "help": ["--help"],
    "help of a command": ["train", "--help"],
}

#: What a shell makes of the standard streams -> what a command that has a result to write then does:
#: its exit status, and the end of what it says.
CLOSED, FULL = "cannot write: standard output is closed", "cannot write: No space left on device"
RESULTS = {
    "<&-": (0, None),
    "2>&-": (0, None),
    "2>/dev/full": (0, None),
    ">&-": (1, CLOSED),
    ">/dev/full": (1, FULL),
    "<&- 2>&-": (0, None),
    "<&- >&-": (1, CLOSED),
    "<&- >&- 2>&-": (1, None),
    ">/dev/full 2>/dev/full": (1, None),
    ">&- 2>/dev/full": (1, None),
}

#: What is tried each time: it holds what the others do.
SOME = [
    *itertools.product(("sample", "eval", "info", "diagnose", "bench", "demo", "train", "help"),
                       ("<&- 2>&-", ">&-", ">/dev/full 2>/dev/full")),
    *itertools.product(("sample", "train"), ("2>/dev/full", "<&- >&- 2>&-")),
]  # fmt: skip

unix = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full and a shell of Unix")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("streams")
    (path / "text").write_text(TEXT, encoding="utf-8")
    CharRNN(8, seq_len=8, batch_size=4, max_steps=9, random_state=0, backend="numpy", verbose=0).fit(
        TEXT
    ).save(path / "model")
    return path


@pytest.fixture
def new(folder):
    """The model that `train` writes."""
    yield folder / "new"
    for file in folder.glob("new*"):
        file.unlink()


def with_streams(redirection, *arguments, cwd, program=FASTRNN):
    """Run as a shell does that is given a redirection."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *program, *arguments],
        env=environment(), cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.few(5)
@unix
@pytest.mark.parametrize(("name", "redirection"), SOME)
def test_a_command_whatever_the_streams_are(folder, new, name, redirection):
    check(folder, new, name, redirection)


@unix
@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_and_all_that_the_streams_can_be(folder, new, name):
    for redirection in RESULTS:
        new.unlink(missing_ok=True)
        check(folder, new, name, redirection)


def check(folder, new, name, redirection):
    done = with_streams(redirection, *COMMANDS[name], cwd=folder)
    status, said = RESULTS[redirection]
    if name == "train":
        assert CharRNN.load(new).step_ == 2
        if said == CLOSED or (redirection in (">&- 2>/dev/full", "<&- >&- 2>&-")):
            status, said = 0, None  # nobody wants to hear what it has done
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    if said is not None:
        *before, last = done.stderr.splitlines()
        assert last == f"Error: {said}"
        assert name == "demo" or name == "train" or not before
    if not status and ">&-" not in redirection.replace("2>&-", ""):
        assert len(done.stdout) >= 5


@unix
@pytest.mark.parametrize("status", ["usage", "model"])
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_exit_statuses_of_what_nobody_is_told(folder, redirection, status):
    arguments = {"usage": ["sample", "model", "--nonsense"], "model": ["sample", "text"]}[status]
    done = with_streams(redirection, *arguments, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == ({"usage": 2, "model": 1}[status], "", "")


@unix
@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "-", "--out", "new", "-q"], ["sample", "model", "--prompt", "-"], ["eval", "model", "-"],
        ["diagnose", "model", "-"], ["demo", "--text", "-"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_closed_standard_input_is_told_in_one_line(folder, new, arguments):
    done = with_streams("<&-", *arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.replace("'", "") == "Error: cannot read standard input: it is closed\n"
    assert not new.exists()


@unix
@pytest.mark.parametrize("number", [0, 1, 2])
def test_nothing_is_written_into_the_model_that_was_meant_for_a_closed_stream(folder, new, number):
    """A file that is opened gets the number of a closed stream, and libraries write to numbers."""
    program = (
        "import os, sys\n"
        "from fastrnn import cli; from fastrnn import checkpoint\n"
        "fsync = os.fsync\n"
        "def meddle(file):\n"
        f"    try: os.write({number}, b'a library says something')\n"
        "    except OSError: pass\n"
        "    fsync(file)\n"
        "os.fsync = meddle\n"
        "cli.main(prog_name='fastrnn')\n"
    )
    done = with_streams(
        f"{number}>&-", *COMMANDS["train"], cwd=folder, program=[sys.executable, "-c", program]
    )
    assert done.returncode == 0
    assert CharRNN.load(new).step_ == 2


@unix
def test_a_reader_of_messages_that_goes_away_does_not_stop_a_training(folder, new):
    """As in `fastrnn train ... 2>&1 | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen([*FASTRNN, *COMMANDS["train"]], env=environment(), cwd=folder, stderr=writing,
                          stdout=subprocess.DEVNULL) as process:  # fmt: skip
        os.close(writing)
    assert process.returncode == 0
    assert CharRNN.load(new).step_ == 2


# -- in the same process ---------------------------------------------------------------------------


class OnlyWrites:
    def __init__(self):
        self.written = ""

    def write(self, text):
        self.written += text


class Raises:
    encoding, isatty, flush = "utf-8", staticmethod(lambda: False), staticmethod(lambda: None)

    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error


class BrokenTerminal(Raises):
    isatty = staticmethod(lambda: True)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "None": lambda: None,
    "write alone": OnlyWrites,
    "closed": closed,
    "nothing": object,
    **{
        f"{kind.__name__} {type(error).__name__}": lambda kind=kind, error=error: kind(error)
        for kind, error in itertools.product(
            (Raises, BrokenTerminal),
            (OSError(28, "No space left"), ValueError("closed"), RuntimeError("gone")),
        )
    },
}


@pytest.fixture
def shown_at_once(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    monkeypatch.setattr(progress, "BAR_EVERY", 0.0)


@pytest.mark.parametrize("stream", STREAMS)
def test_fit_trains_whatever_standard_error_is(monkeypatch, shown_at_once, stream):
    made = STREAMS[stream]()
    monkeypatch.setattr(sys, "stderr", made)
    model = CharRNN(8, seq_len=8, batch_size=4, max_steps=20, random_state=0, backend="numpy", verbose=1)
    model.fit(TEXT)
    assert model.step_ == 20
    assert sys.stderr is made
    if isinstance(made, OnlyWrites):
        assert "100% " in made.written


@pytest.mark.parametrize("stream", STREAMS)
def test_a_warm_up_whatever_standard_error_is(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", STREAMS[stream]())
    fastrnn.warmup("float32", backend="numpy", verbose=True)


@pytest.mark.parametrize("stream", STREAMS)
def test_train_whatever_standard_error_is(monkeypatch, shown_at_once, tmp_path, stream):
    (tmp_path / "text").write_text("abcabcabc", encoding="utf-8")  # so short that there is a warning
    made = STREAMS[stream]()
    monkeypatch.setattr(sys, "stderr", made)
    arguments = [
        "train",
        tmp_path / "text",
        "--out",
        tmp_path / "new",
        "--max-steps",
        20,
        "--backend",
        "numpy",
    ]
    cli.main([str(argument) for argument in arguments], standalone_mode=False)
    assert CharRNN.load(tmp_path / "new").step_ == 20
    assert sys.stderr is made
    if isinstance(made, OnlyWrites):
        assert "Warning: 8 characters to train on" in made.written


@pytest.mark.parametrize("stream", ["None", "write alone", "closed", "Raises RuntimeError"])
def test_a_result_whatever_standard_output_is(monkeypatch, capsys, folder, stream):
    made = STREAMS[stream]()
    monkeypatch.setattr(sys, "stdout", made)
    arguments = [str(folder / a) if a in ("model", "text") else a for a in COMMANDS["eval"]]
    if isinstance(made, OnlyWrites):
        cli.main(arguments, standalone_mode=False)
        assert made.written.startswith("nats per character")
    elif isinstance(made, Raises):  # a stream of this program's own; that is for the program to see
        with pytest.raises(RuntimeError, match="gone"):
            cli.main(arguments, standalone_mode=False)
    else:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 1
        assert capsys.readouterr().err == f"Error: {CLOSED}\n"
    assert sys.stdout is made


def test_the_streams_of_the_program_are_left_as_they_are(folder):
    before = sys.stdin, sys.stdout, sys.stderr
    with terminal.standard_streams():
        assert sys.stdout is not before[1]
    assert (sys.stdin, sys.stdout, sys.stderr) == before
    with pytest.raises(ValueError, match="whatever"), terminal.standard_streams():
        raise ValueError("whatever")
    assert (sys.stdin, sys.stdout, sys.stderr) == before
    assert invoke(*COMMANDS["help"]).exit_code == 0
    assert (sys.stdin, sys.stdout, sys.stderr) == before


def test_a_message_that_the_encoding_lacks_is_escaped():
    below = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    terminal.Shown(below, optional=True).write("größer \x1b[2J\n")
    below.flush()
    assert below.buffer.getvalue() == b"gr\\xf6\\xdfer \\x1b[2J\n"


# -- warnings that are errors, and Ctrl-C ------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in COMMANDS if "help" not in name])
def test_ctrl_c_is_told_in_one_place(folder, monkeypatch, name):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    for place in (
        "char_rnn.CharRNN.load",
        "char_rnn.CharRNN.fit",
        "cli.comparison.compare",
        "config.show_config",
    ):
        monkeypatch.setattr(f"fastrnn.{place}", interrupted)
    monkeypatch.chdir(folder)
    result = invoke(*COMMANDS[name])
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].startswith("Stopped by Ctrl-C")
    assert "Aborted" not in result.stderr


def test_a_warning_that_is_an_error_is_told_in_one_line(folder, new):
    arguments = [
        "train", "text", "--out", "new", "--hidden-size=8", "--seq-len=8", "--batch-size=4", "--max-steps=30",
        "--optimizer=sgd", "--lr=1e300", "--clip=none", "-q",
    ]  # fmt: skip
    done = run(*arguments, cwd=folder, PYTHONWARNINGS="error")
    assert done.returncode == 1
    assert re.fullmatch(r"Error: the training diverged: the loss is nan .*\n", done.stderr)
