"""`fastrnn train`: files, processes, signals; the same bits as `CharRNN.fit`."""

import gzip
import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_support import environment, invoke, on_a_terminal, run, start

from fastrnn import CharRNN
from fastrnn.cli import train as cli_train

TEXT = "The quick brown fox jumps over the lazy dog. " * 60
SMALL = ["--hidden-size", "16", "--seq-len", "8", "--batch-size", "4", "--random-state", "3"]


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


@pytest.fixture
def out(tmp_path):
    return tmp_path / "model.safetensors"


def trained(content=TEXT, **params):
    chosen = {"hidden_size": 16, "seq_len": 8, "batch_size": 4, "random_state": 3, **params}
    return CharRNN(**chosen, backend="numpy", verbose=0).fit(content)


def same(model, other):
    for name, W in other.last_weights_.items():
        assert np.array_equal(model.last_weights_[name], W), name
    plain = [
        [{k: v for k, v in entry.items() if k != "chars_per_second"} for entry in m.history_]
        for m in (model, other)
    ]
    assert plain[0] == plain[1]
    return True


# -- options ---------------------------------------------------------------------------------------


def test_every_hyper_parameter_is_an_option_with_its_name_and_default():
    options = {option.name: option for option in cli_train.train.params}
    defaults = cli_train.train.make_context("train", ["text", "--out", "model"]).params
    parameters = list(inspect.signature(CharRNN).parameters.values())
    assert len(parameters) > 20
    for parameter in parameters:
        if parameter.name == "comm":  # which is made of --mpi and --sync-every
            continue
        option = options[parameter.name]
        assert "--" + parameter.name.replace("_", "-") in option.opts
        if parameter.name not in ("checkpoint", "verbose"):  # which is required; a flag
            assert defaults[parameter.name] == parameter.default, parameter.name
            assert type(defaults[parameter.name]) is type(parameter.default)


def test_every_hyper_parameter_arrives(text, out):
    given = {
        "hidden_size": 12, "num_layers": 2, "seq_len": 6, "batch_size": 3, "optimizer": "rmsprop", "lr": 0.003,
        "lr_decay": 0.9, "clip": "value", "clip_threshold": 2.5, "dropout": 0.1, "epochs": 3, "max_steps": 7,
        "max_seconds": 500.0, "validation_fraction": 0.2, "validate_every": 4, "patience": 9,
        "dtype": "float64", "random_state": 5, "num_threads": 1, "backend": "numpy",
        "checkpoint_every": 3, "diagnostics_every": 2, "unknown": "e", "newline": "universal", "cell": "gru",
    }  # fmt: skip
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    result = invoke("train", text, "--out", out, *arguments)
    assert result.exit_code == 0, result.stderr
    params = CharRNN.load(out).get_params()
    assert {name: params[name] for name in given} == given
    assert set(params) == {*given, "checkpoint", "verbose", "comm"}


def test_none_is_a_value(text, out):
    arguments = ["--clip=none", "--epochs=none", "--max-steps=5", "--random-state=none", "--patience=none"]
    assert invoke("train", text, "-o", out, *SMALL[:-2], *arguments).exit_code == 0
    model = CharRNN.load(out)
    assert (model.clip, model.epochs, model.random_state, model.step_) == (None, None, None, 5)


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["text.txt"], ["--out", "m"], ["-", "-", "--out", "m"], ["text.txt", "--out", "."],
        *(["text.txt", "--out", "m", *bad] for bad in (
            ["--hidden-size", "0"], ["--lr", "nan"], ["--lr", "0"], ["--lr-decay", "-1"], ["--clip", "both"],
            ["--clip-threshold", "0"], ["--clip-threshold", "nan"], ["--dropout", "1"], ["--dropout", "nan"],
            ["--epochs", "0"], ["--max-steps", "1.5"], ["--seconds", "0"], ["--seconds", "inf"],
            ["--validation-fraction", "1"], ["--patience", "-1"], ["--dtype", "float16"],
            ["--random-state", "-1"], ["--backend", "fortran"], ["--unknown", "??"], ["--unknown", "Z"],
            ["--newline", "unix"],
            ["--resume", "--force"], ["--patience", "2", "--validation-fraction", "0"],
        )),
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_status_2(arguments, text, monkeypatch):
    monkeypatch.chdir(text.parent)
    result = invoke("train", *arguments)
    assert result.exit_code == 2
    assert not result.stdout
    assert "Usage:" in result.stderr
    assert not Path("m").exists()


# -- training --------------------------------------------------------------------------------------


def test_train_writes_the_model_that_fit_makes(text, out):
    done = run("train", text, "--out", out, *SMALL, "--max-steps", 200)
    assert done.returncode == 0
    model = CharRNN.load(out)
    assert same(model, trained(max_steps=200))
    assert done.stdout == (
        f"{out}: 200 steps, {model.history_[-1]['train_nats']:.3f} nats per character, "
        f"best validation {model.best_valid_nats_:.3f} after step {model.best_step_}\n"
    )
    lines = done.stderr.splitlines()
    assert lines[0] == "Reading the text; backend numpy. Ctrl-C saves and stops."
    assert re.fullmatch(
        r"100% +\d+\.\d s  epoch \d+, loss \d\.\d{3}, valid \d\.\d{3}, [\d,]+ chars/s", lines[-1]
    )
    assert not set("\r\x1b") & set(done.stdout + done.stderr)


def test_texts_are_read_as_one_and_from_standard_input(text, tmp_path, out):
    more = tmp_path / "more.txt"
    more.write_bytes("größer\r\n".encode() * 20)
    done = run("train", text, "-", more, "-o", out, *SMALL, "--max-steps", 30, input=b"from a pipe. " * 10)
    assert done.returncode == 0, done.stderr
    whole = TEXT + "from a pipe. " * 10 + "größer\r\n" * 20
    assert same(CharRNN.load(out), trained(whole, max_steps=30))


@pytest.mark.filterwarnings("ignore:checkpoint is None")
def test_line_ends_of_windows_and_byte_order_marks(text, tmp_path, out):
    lines = TEXT.replace(". ", ".\n")
    for i in range(2):
        half = lines[i * len(lines) // 2 : (i + 1) * len(lines) // 2]
        (tmp_path / f"{i}.txt").write_bytes(b"\xef\xbb\xbf" + half.replace("\n", "\r\n").encode())
    arguments = [tmp_path / "0.txt", "-", "-o", out, *SMALL, "--newline", "universal", "--max-steps"]
    done = run("train", *arguments, 10, input=(tmp_path / "1.txt").read_bytes())
    assert done.returncode == 0, done.stderr
    model = trained(lines, max_steps=10)
    assert same(CharRNN.load(out), model)
    done = run("train", *arguments, 20, "--resume", input=(tmp_path / "1.txt").read_bytes())
    assert done.returncode == 0, done.stderr
    assert same(CharRNN.load(out), model.set_params(max_steps=20).fit(lines, resume=True))
    result = invoke("train", text, "-o", out, "--resume", "--newline", "none")
    assert result.exit_code == 2
    assert "newline was 'universal' when training began, and cannot be None now" in result.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TEXT.encode("utf-16"), "UTF-16 text: convert it with: iconv -f UTF-16 -t UTF-8 IN > OUT"),
        (gzip.compress(TEXT.encode()), "a gzip file: unpack it with: gunzip -c IN > OUT"),
    ],
    ids=["UTF-16", "gzip"],
)
def test_texts_that_are_not_utf8_are_told_with_what_to_do(tmp_path, out, content, said):
    (tmp_path / "text").write_bytes(content)
    CharRNN(4, max_steps=1, backend="numpy", verbose=0, seq_len=8, batch_size=2).fit(TEXT).save(
        tmp_path / "model"
    )
    for arguments in (
        ["train", tmp_path / "text", "-o", out, "-q"], ["train", "-", "-o", out, "-q"],
        ["eval", tmp_path / "model", tmp_path / "text"], ["demo", "--text", tmp_path / "text"],
        ["diagnose", tmp_path / "model", tmp_path / "text"], ["sample", tmp_path / "model", "-p", "-"],
    ):  # fmt: skip
        result = invoke(*arguments, input=content)
        assert result.exit_code == 1
        assert re.fullmatch(
            rf"Error: .* is not UTF-8 text: .* it looks like {re.escape(said)}\n", result.stderr
        )
        assert not result.stdout


def test_quiet_says_nothing(text, out):
    done = run("train", text, "-o", out, *SMALL, "--max-steps", 5, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_seconds_alone_are_the_only_limit(text, out):
    started = time.monotonic()
    result = invoke("train", text, "-o", out, *SMALL, "--seconds", 1)
    assert result.exit_code == 0
    assert 1 <= time.monotonic() - started < 60  # for ever, without the limit
    model = CharRNN.load(out)
    assert model.epochs is None
    assert model.max_seconds == 1
    assert model.epoch_ >= 3


def test_a_short_text_is_a_warning_in_one_line(tmp_path, out):
    (tmp_path / "short").write_text("abcabcabc", encoding="utf-8")
    result = invoke("train", tmp_path / "short", "-o", out, "--hidden-size", 8, "--max-steps", 2)
    assert result.exit_code == 0
    assert re.search(r"^Warning: 8 characters to train on .* training on 1 stream of 7$", result.stderr, re.M)


@pytest.mark.parametrize("lr", ["1e20", "1e300"])
def test_a_training_that_diverges_fails(text, out, lr):
    done = run("train", text, "-o", out, *SMALL, "--max-steps", 30, "--lr", lr)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Warning" not in done.stderr
    assert re.search(r"^Error: the training diverged: .*; try a lower --lr than .*\n\Z", done.stderr, re.M)


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals on Windows")
def test_a_bar_on_a_terminal(text, out):
    shown, process = on_a_terminal(
        "train", text, "-o", out, *SMALL, "--seconds", 1, "--max-steps", 10**6, stream="stderr"
    )
    assert process.returncode == 0
    moves = re.findall(r"\r *(\d+)%\|.*?\| .*?, epoch \d+, loss [\d.]+, .*?[\d,]+ chars/s", shown)
    percents = [int(percent) for percent in moves]  # how many is a matter of how busy the machine is
    assert percents == sorted(percents)
    assert percents[0] < percents[-1] == 100


# -- files -----------------------------------------------------------------------------------------


def test_a_model_that_is_there_is_replaced_only_on_demand(text, out):
    first = [text, "-o", out, *SMALL, "--max-steps", 5]
    assert invoke("train", *first).exit_code == 0
    before = out.read_bytes()
    result = invoke("train", *first)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {str(out)!r} exists: --resume goes on with it, --force replaces it\n"
    assert out.read_bytes() == before
    assert invoke("train", *first, "--force", "--lr", 0.5).exit_code == 0
    assert CharRNN.load(out).lr == 0.5
    assert Path(f"{out}.previous").read_bytes() == before


def test_resume_goes_on_to_the_same_bits(text, out):
    assert invoke("train", text, "-o", out, *SMALL, "--max-steps", 25).exit_code == 0
    result = invoke("train", text, "-o", out, "--resume", "--max-steps", 60)
    assert result.exit_code == 0
    assert "Going on after step 25; backend numpy" in result.stderr
    model = CharRNN.load(out)
    whole = trained(max_steps=60)
    assert model.step_ == 60
    assert all(np.array_equal(W, whole.last_weights_[name]) for name, W in model.last_weights_.items())
    again = invoke("train", text, "-o", out, "--resume")
    assert again.exit_code == 0
    assert "Nothing is left to do: the run ended after step 60." in again.stderr
    assert invoke("train", text, "-o", out, "--resume", "--seconds", 0.2, "--max-steps=none").exit_code == 0
    assert CharRNN.load(out).step_ > 60


def test_no_file_is_replaced_by_a_model_that_was_loaded_from_it(text, out):
    assert invoke("train", text, "-o", out, *SMALL, "--max-steps", 25, "--checkpoint-every", 5).exit_code == 0
    previous = Path(f"{out}.previous")
    before = [(f.read_bytes(), f.stat().st_mtime_ns) for f in (out, previous)]
    CharRNN.load(out, verbose=0).fit(TEXT[::-1])
    assert [(f.read_bytes(), f.stat().st_mtime_ns) for f in (out, previous)] == before


def test_a_folder_where_the_one_before_is_kept_is_told_at_the_start(text, out):
    previous = Path(f"{out}.previous")
    previous.mkdir()
    result = invoke("train", text, "-o", out, *SMALL, "-q", "--epochs", 10**6)
    assert result.exit_code == 1
    assert re.fullmatch(
        r"Error: cannot write checkpoint '.*': .*\.previous', which is a directory\n", result.stderr
    )
    assert not out.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name on this system")
@pytest.mark.parametrize(
    ("more", "said"),
    [([], "exists: --resume"), (["--resume"], "not a regular file"), (["--force"], "regular file")],
)
def test_a_pipe_in_the_place_of_the_model_is_not_waited_for(text, out, more, said):
    os.mkfifo(out)
    done = run("train", text, "-o", out, *SMALL, *more)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]


def test_resume_without_a_model_begins_one(text, out):
    result = invoke("train", text, "-o", out, *SMALL, "--max-steps", 5, "--resume")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"There is no {str(out)!r} to go on with: training begins.\n")
    assert same(CharRNN.load(out), trained(max_steps=5))


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        (["--hidden-size", 17], 2, "hidden_size was 16 when training began, and cannot be 17 now"),
        (["other"], 1, "not the text that training began with"),
    ],
)
def test_resume_refuses_what_does_not_fit(text, out, tmp_path, monkeypatch, more, status, said):
    monkeypatch.chdir(tmp_path)
    Path("other").write_text("another", encoding="utf-8")
    assert invoke("train", text, "-o", out, *SMALL, "--max-steps", 5).exit_code == 0
    before = out.read_bytes()
    result = invoke("train", text, *more, "-o", out, "--resume")
    assert result.exit_code == status
    assert said in result.stderr
    assert out.read_bytes() == before


@pytest.mark.parametrize("damage", ["truncated", "altered", "other"])
def test_resume_refuses_a_damaged_model(text, out, damage):
    assert invoke("train", text, "-o", out, *SMALL, "--max-steps", 5).exit_code == 0
    content = bytearray(out.read_bytes())
    if damage == "truncated":
        del content[-10:]
    elif damage == "altered":
        content[-10] ^= 1
    else:
        content = b"a text"
    out.write_bytes(content)
    result = invoke("train", text, "-o", out, "--resume")
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: .*model\.safetensors.* (is|was) .*\n", result.stderr)
    assert out.read_bytes() == content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"aaaa", "only 'a', 4 times"),
        (b"abc\xe9def", "is not UTF-8 text: byte 0xe9 at offset 3"),
        (None, "No such file or directory"),
    ],
)
@pytest.mark.parametrize("where", ["file", "standard input"])
def test_a_bad_text_is_refused_in_one_line(tmp_path, out, content, said, where):
    file = tmp_path / "text"
    if content is None and where == "standard input":
        pytest.skip("standard input is there")
    if content is not None:
        file.write_bytes(content)
    result = invoke("train", file if where == "file" else "-", "-o", out, "-q", input=content)
    assert result.exit_code == 1
    assert re.fullmatch(rf"Error: .*{said}.*\n", result.stderr)
    assert not out.exists()


def unwritable(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    return folder / "model"


@pytest.mark.parametrize(
    "place",
    [
        lambda folder: folder / "missing" / "model",
        lambda folder: folder / "text.txt" / "model",
        pytest.param(
            unwritable,
            marks=pytest.mark.skipif(
                os.name == "nt" or os.geteuid() == 0, reason="this user may write everywhere"
            ),
        ),
    ],
    ids=["missing folder", "file for a folder", "unwritable folder"],
)
def test_a_place_that_cannot_be_written_is_told_before_the_training(text, tmp_path, place):
    result = invoke("train", text, "-o", place(tmp_path), "-q", "--epochs", 1000)
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: cannot write checkpoint '.*model': .*\n", result.stderr)


# -- signals ---------------------------------------------------------------------------------------

unix = pytest.mark.skipif(os.name == "nt", reason="there are no such signals on Windows")


def wait_for(file, process):
    for _ in range(1200):
        if file.exists():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("no checkpoint in a minute")


@pytest.mark.few(1)
@unix
@pytest.mark.parametrize(
    ("number", "status", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
    + ([(signal.SIGHUP, 129, "SIGHUP")] if hasattr(signal, "SIGHUP") else []),
)
def test_a_signal_saves_and_says_how_to_go_on(text, out, number, status, name):
    arguments = ["train", text, "-o", out, *SMALL, "--max-steps", 2500, "--checkpoint-every", 100]
    with start(*arguments, text=True) as process:
        wait_for(out, process)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (status, "")
    assert "Traceback" not in stderr
    *_, said, command = stderr.splitlines()
    step = CharRNN.load(out).step_
    assert 100 <= step < 2500
    assert said == f"Stopped by {name}. {out} holds step {step:,}; to go on:"
    program, *going_on = shlex.split(command.strip())
    assert program == "python"
    assert going_on[:3] == ["-m", "fastrnn", "train"]
    assert run(*going_on[2:]).returncode == 0
    assert same(CharRNN.load(out), trained(max_steps=2500, checkpoint_every=100))


@unix
def test_a_run_in_the_background_ignores_ctrl_c_and_heeds_sigterm(text, out):
    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    arguments = ["train", text, "-o", out, *SMALL, "--max-steps", 10**6, "--checkpoint-every", 100]
    with start(*arguments, text=True, preexec_fn=ignore) as process:
        wait_for(out, process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"holds step {CharRNN.load(out).step_:,}; to go on" in stderr


@unix
def test_a_run_under_nohup_outlives_its_terminal(text, out):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    arguments = ["train", text, "-o", out, *SMALL, "--max-steps", 10**6, "--checkpoint-every", 100]
    with start(*arguments, text=True, preexec_fn=ignore) as process:
        wait_for(out, process)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Stopped by SIGTERM" in stderr


@unix
@pytest.mark.parametrize("more", [[], ["--checkpoint-every", "100000"]], ids=["timed", "rarely"])
def test_a_terminal_that_is_closed_saves(text, out, more):
    """What is shown goes nowhere from then on: every write is an error."""
    import fcntl
    import pty
    import termios

    master, slave = pty.openpty()

    def take_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    arguments = ["train", text, "-o", out, *SMALL, "--max-steps", 10**7, *more]
    with start(
        *arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=take_terminal
    ) as process:
        os.close(slave)
        shown = b""
        while shown.count(b"loss") < 2:
            shown += os.read(master, 4096)
        os.close(master)
        process.wait(timeout=60)
    assert process.returncode == 129
    assert CharRNN.load(out).step_ > 0
    assert sorted(f.name for f in out.parent.iterdir()) == [out.name, text.name]


@unix
def test_a_signal_that_comes_again_after_the_training_changes_nothing(text, out, monkeypatch):
    def interrupted(self, *arguments, **options):
        signal.raise_signal(signal.SIGHUP)

    say = cli_train._say_how_to_go_on

    def saying(*arguments):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        say(*arguments)

    monkeypatch.setattr(CharRNN, "fit", interrupted)
    monkeypatch.setattr(cli_train, "_say_how_to_go_on", saying)
    before = [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)]
    result = invoke("train", text, "-o", out, *SMALL)
    assert result.exit_code == 129
    assert result.stderr.endswith("Stopped by SIGHUP before anything was saved.\n")
    assert [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)] == before


@unix
def test_ctrl_c_before_the_training_leaves_nothing(out):
    with start("train", "-", "-o", out, stdin=-1) as process:
        process.stdin.write(b"some text")
        process.stdin.flush()
        assert b"Reading the text" in process.stderr.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == b"\nStopped by Ctrl-C before anything was saved.\n"
    assert not out.exists()


@unix
def test_ctrl_c_before_the_training_keeps_the_model_that_was_there(text, out):
    assert invoke("train", text, "-o", out, *SMALL, "--max-steps", 5).exit_code == 0
    before = out.read_bytes()
    with start("train", "-", "-o", out, "--force", stdin=-1) as process:
        assert b"Reading the text" in process.stderr.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    assert stderr == b"\nStopped by SIGTERM before anything was saved.\n"
    assert out.read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_summary_that_cannot_be_written_does_not_lose_the_model(text, out):
    with (
        Path("/dev/full").open("wb") as full,
        start("train", text, "-o", out, *SMALL, "--max-steps", 5, stdout=full, text=True) as process,
    ):
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stderr.endswith("Error: cannot write: No space left on device\n")
    assert CharRNN.load(out).step_ == 5


def test_train_imports_nothing_that_it_does_not_need(text, out):
    code = (
        "import sys; from fastrnn.cli import main; "
        f"main(['train', {str(text)!r}, '-o', {str(out)!r}, '--max-steps', '1', '-q'], standalone_mode=False); "
        "print(*{'numba', 'scipy', 'tqdm', 'matplotlib', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "\n"
