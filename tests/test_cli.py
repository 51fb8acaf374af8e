"""The command line: what it prints and where, exit statuses, Ctrl-C, bad input."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from cli_support import FASTRNN, environment, invoke, read_to_the_end, run, start

import fastrnn
from fastrnn.cli import commands as cli
from fastrnn.cli import demo as cli_demo

SHORT = ["--max-steps", "50", "--sample-length", "20", "--hidden-size", "32", "--batch-size", "4"]


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("The quick brown fox jumps over the lazy dog. " * 40, encoding="utf-8")
    return file


# -- the program ---------------------------------------------------------------------------------


def test_version():
    assert run("--version").stdout == f"fastrnn, version {fastrnn.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_names_every_command_and_how_to_start(arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0
    for words in (*cli.COMMANDS, "fastrnn demo", "fastrnn COMMAND --help", "fastrnn info --completion"):
        assert words in result.stdout


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_a_command_explains_every_option(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    context = click.Context(cli.main)
    for option in cli.main.get_command(context, command).get_params(context):
        if isinstance(option, click.Argument):  # the text of the help explains it
            assert result.stdout.count(option.make_metavar(context).strip("[].")) > 1
            continue
        assert option.opts[0] in result.stdout
        assert option.help
        assert option.help.rstrip().endswith((".", "]"))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["demo", "surplus"],
        ["demo", "--seconds", "0"],
        ["demo", "--seconds", "nan"],
        ["demo", "--seconds", "inf"],
        ["demo", "--seconds", "soon"],
        ["demo", "--seconds", "1", "--max-steps", "1"],
        ["demo", "--max-steps", "0"],
        ["demo", "--hidden-size", "0"],
        ["demo", "--hidden-size", "1.5"],
        ["demo", "--seq-len", "-1"],
        ["demo", "--lr", "-0.1"],
        ["demo", "--lr", "nan"],
        ["demo", "--dtype", "float16"],
        ["demo", "--sample-length", "-1"],
        ["demo", "--random-state", "-1"],
        ["demo", "--backend", "fortran"],
        ["bench", "--seconds", "-1"],
        ["bench", "--hidden-size", "many"],
        ["bench", "--dtype", "int8"],
        ["demo", "--batch-size", "0"],
        ["info", "model", "surplus"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert not result.stdout
    assert "Usage:" in result.stderr


def test_completion_of_the_shell():
    code = "from fastrnn.cli import main; main(prog_name='fastrnn')"
    completed = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(_FASTRNN_COMPLETE="bash_complete", COMP_WORDS="fastrnn de", COMP_CWORD="1"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert completed.stdout == "plain,demo\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fastrnn train --optimizer ad", ["adagrad", "adam", "adamw"]),
        ("fastrnn train --clip no", ["norm"]),
        ("fastrnn sample --temp", ["--temperature"]),
        ("fastrnn eval --js", ["--json"]),
    ],
)
def test_completion_of_options_and_their_values(words, expected):
    code = "from fastrnn.cli import main; main(prog_name='fastrnn')"
    completed = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(_FASTRNN_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert [line.split(",")[1] for line in completed.stdout.splitlines()] == expected


def test_help_and_version_import_no_command_that_is_not_asked_for():
    code = (
        "import sys; from fastrnn.cli import main; main(['--version'], standalone_mode=False); "
        "print(*(m for m in sys.modules if m.startswith('fastrnn.c') or m in ('numba', 'scipy', 'tqdm')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert sorted(done.stdout.splitlines()[1].split()) == [
        "fastrnn.checks",
        "fastrnn.cli",
        "fastrnn.cli.commands",
        "fastrnn.cli.help",
        "fastrnn.cores",
    ]


# -- demo ----------------------------------------------------------------------------------------


@pytest.mark.few(0)
def test_demo_learns_the_standard_library():
    done = run("demo", "--seconds", "1.5", "--random-state", "0", "--sample-length", "60")
    assert done.returncode == 0
    summary = re.match(
        r"trained for         (\d+\.\d) s\n"
        r"characters          ([\d,]+), [\d.]+ times the text\n"
        r"per second          [\d,]+\n"
        r"nats per character  ([\d.]+), ([\d.]+) on text not learned\n\n"
        r"A sample:\n-{72}\n(.{60,})\n-{72}\n\n"
        r"([\d.]+) times as fast as the reference loop\n"
        r"([\d.]+) against ([\d.]+) us per character, with the same results\n\Z",
        done.stdout,
        re.DOTALL,
    )
    assert summary, done.stdout
    seconds, characters, loss, valid, _, ratio, fast, reference = summary.groups()
    assert 1.4 <= float(seconds) <= 6  # a step at the numpy backend, and the validation
    assert int(characters.replace(",", "")) > 1000
    assert 0.5 < float(loss) < 4.3  # a guess is log(96) = 4.56
    assert 0.5 < float(valid) < 4.3
    assert float(ratio) == pytest.approx(float(reference) / float(fast), rel=0.02, abs=0.1)
    assert "source code of the standard library" in done.stderr
    assert re.search(r"^100% .* loss [\d.]+, valid [\d.]+, [\d,]+ chars/s$", done.stderr, re.MULTILINE)
    assert not set("\r\x1b") & set(done.stdout + done.stderr)


def test_demo_writes_the_text_it_learned_by_heart(text):
    done = run(
        "demo", "--text", text, "--max-steps", 400, "--random-state", 0, "--sample-length", 400,
        "--hidden-size", 64, "--batch-size", 4, "--lr", 0.01,
    )  # fmt: skip
    assert done.returncode == 0
    sample = done.stdout.split("-" * 72)[1]
    assert sample.count("brown fox jumps over") >= 3


@pytest.mark.few(0)
def test_demo_with_a_seed_and_steps_writes_the_same_sample(text):
    def sample(seed):
        done = run("demo", "--text", text, *SHORT, "--random-state", seed)
        return done.stdout.split("-" * 72)[1]

    assert sample(1) == sample(1) != sample(2)


def test_demo_reads_standard_input():
    done = run("demo", "--text", "-", *SHORT, input="größer und groß\n".encode() * 20)
    assert done.returncode == 0
    assert "standard input: 320 characters, 11 different ones" in done.stderr


@pytest.mark.few(2)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", list(fastrnn.backends.BACKENDS))
def test_demo_on_a_backend_asked_for(name, dtype, text):
    try:
        fastrnn.backends.load(name)
    except fastrnn.BackendUnavailable:
        result = invoke("demo", "--text", text, "--backend", name)
        assert result.exit_code == 1
        assert "how to get it" in result.stderr
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        return
    result = invoke("demo", "--text", text, "--backend", name, "--dtype", dtype, *SHORT)
    assert result.exit_code == 0, result.stderr
    assert f"Backend {name}." in result.stderr
    assert "times as fast" in result.stdout


def test_demo_of_a_text_shorter_than_a_chunk(tmp_path):
    file = tmp_path / "short"
    file.write_text("abcab", encoding="utf-8")
    result = invoke("demo", "--text", file, *SHORT)
    assert result.exit_code == 0
    assert "Warning: 5 characters to train on are less than one batch" in result.stderr
    assert "training on 1 stream of 4" in result.stderr
    assert "characters          200, 40.00 times the text" in result.stdout


def test_demo_reads_the_start_of_a_very_long_text(tmp_path, monkeypatch):
    monkeypatch.setattr(cli_demo, "TEXT_LIMIT", 1000)
    file = tmp_path / "long"
    file.write_text("abc " * 1000, encoding="utf-8")
    result = invoke("demo", "--text", file, *SHORT)
    assert result.exit_code == 0
    assert "only its first 1,000 bytes are read" in result.stderr
    assert "1,000 characters, 4 different" in result.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"a", "only 'a', 1 times"),
        (b"\n\n\n", r"only '\\n', 3 times"),
        (b"abc\xe9def", "is not UTF-8 text: byte 0xe9 at offset 3"),
        (None, "No such file or directory"),
    ],
)
def test_demo_refuses_a_bad_text_in_one_line(tmp_path, content, said):
    file = tmp_path / "text"
    if content is not None:
        file.write_bytes(content)
    done = run("demo", "--text", file)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.search(rf"^Error: .*{said}.*\n\Z", done.stderr, re.MULTILINE)


def test_demo_refuses_a_folder(tmp_path):
    result = invoke("demo", "--text", tmp_path)
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: cannot read .*\n", result.stderr)


def test_demo_says_when_the_python_has_no_sources(tmp_path, monkeypatch):
    monkeypatch.setattr("fastrnn.text.reading._library_paths", lambda: [str(tmp_path)])
    result = invoke("demo", *SHORT)
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: this Python came without the source code.*\n", result.stderr)


@pytest.mark.parametrize("lr", ["1e+20", "1e+300"])
def test_demo_says_when_the_training_diverges(text, lr):
    done = run("demo", "--text", text, *SHORT, "--lr", lr)
    assert done.returncode == 1
    assert "A sample" not in done.stdout
    assert "Warning" not in done.stderr
    assert re.search(
        rf"^Error: the training diverged: .* lower --lr than {re.escape(lr)}$", done.stderr, re.MULTILINE
    )


def test_demo_says_when_the_environment_names_no_backend(text):
    done = run("demo", "--text", text, FASTRNN_BACKEND="fortran")
    assert done.returncode == 1
    assert re.fullmatch(r"Error: environment variable FASTRNN_BACKEND: .*'fortran'\n", done.stderr)


def test_demo_says_when_memory_is_short(text):
    result = invoke("demo", "--text", text, "--hidden-size", 100_000)  # 80 GB
    if result.exit_code == 0:
        pytest.skip("this machine hands out 80 GB")
    assert result.exit_code == 1
    assert re.search(r"^Error: not enough memory: .*$", result.stderr, re.MULTILINE)


def test_demo_escapes_what_would_command_the_terminal(tmp_path):
    file = tmp_path / "text"
    file.write_bytes(b"\x1b[2J\x07\x00" * 50)
    result = invoke("demo", "--text", file, *SHORT, "--sample-length", 500, "--random-state", 0)
    assert result.exit_code == 0
    assert not set("\x1b\x07\x00") & set(result.stdout)
    assert "\\x1b" in result.stdout


def test_demo_prints_where_the_encoding_lacks_a_character(tmp_path):
    file = tmp_path / "text"
    file.write_text("а\u20acб" * 50, encoding="utf-8")
    done = run(
        "demo",
        "--text",
        file,
        *SHORT,
        "--sample-length",
        500,
        "--random-state",
        0,
        PYTHONIOENCODING="latin-1",
        PYTHONUTF8="0",
    )
    assert done.returncode == 0
    assert "\\u20ac" in done.stdout


def interrupt(process, after):
    """Read standard error until a line matches, then press Ctrl-C once the training runs."""
    for line in process.stderr:
        if re.search(after, line):
            break
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send to one process on Windows")
def test_ctrl_c_ends_the_demo_with_the_sample(text):
    with subprocess.Popen(
        [*FASTRNN, "demo", "--text", str(text), "--seconds", "300"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        started = time.monotonic()
        interrupt(process, "different ones")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert time.monotonic() - started < 60
    assert "Traceback" not in err
    assert "Stopped by Ctrl-C." in err
    assert "A sample:" in out
    assert "times as fast as the reference loop" in out


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send to one process on Windows")
def test_a_second_ctrl_c_ends_everything(text):
    # Drawing a million characters takes the NumPy kernels many seconds: time for the second one.
    with subprocess.Popen(
        [*FASTRNN, "demo", "--text", str(text), "--seconds", "300", "--sample-length", "1000000"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        interrupt(process, "different ones")
        for line in process.stderr:
            if "Stopped" in line:
                break
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("\nStopped by Ctrl-C.\n")
    assert "A sample" not in out


@pytest.mark.few(0)
@pytest.mark.skipif(os.name == "nt", reason="signals are not ignored by inheritance on Windows")
def test_a_demo_in_the_background_goes_on_ignoring_ctrl_c(text):
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "from fastrnn.cli import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "demo", "--text", str(text), "--seconds", "2"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        interrupt(process, "different ones")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Stopped" not in err
    assert re.match(r"trained for +[2-5]\.\d s", out)


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals on Windows")
def test_a_bar_on_a_terminal(text):
    import pty

    master, slave = pty.openpty()
    with subprocess.Popen(
        [*FASTRNN, "demo", "--text", str(text), "--seconds", "1"],
        env=environment(), stdout=subprocess.PIPE, stderr=slave,
    ) as process:  # fmt: skip
        os.close(slave)
        shown = read_to_the_end(master)
        out = process.stdout.read().decode()
    os.close(master)
    assert process.returncode == 0
    moves = re.findall(r"\r *(\d+)%\|.*?\| .*?, epoch \d+, loss ([\d.]+), .*?[\d,]+ chars/s", shown.decode())
    assert len(moves) >= 5
    assert int(moves[0][0]) < 50
    assert moves[-1][0] == "100"
    assert "\r" not in out


@pytest.mark.skipif(os.name == "nt", reason="needs a pipe that closes early")
def test_a_reader_that_goes_away_is_no_crash(text):
    with subprocess.Popen(
        [*FASTRNN, "demo", "--text", str(text), *SHORT],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 1
    assert "Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_told_in_one_line(text):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*FASTRNN, "demo", "--text", str(text), *SHORT],
            env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.endswith("\nError: cannot write: No space left on device\n")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_info_on_a_full_disk_is_told_in_one_line():
    with (
        Path("/dev/full").open("wb") as full,
        start("info", stdout=full, text=True) as process,
    ):
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stderr == "Error: cannot write: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="needs a pipe that closes early")
def test_info_for_a_reader_that_goes_away():
    with start("info", text=True, env=environment(PYTHONUNBUFFERED="")) as process:
        process.stdout.close()
        stderr = process.stderr.read()
    assert (process.returncode, stderr) == (1, "")


# -- bench and info ------------------------------------------------------------------------------


def test_bench_prints_a_row_for_every_operation_and_size():
    done = run(
        "bench", "--hidden-size", 8, "--hidden-size", 16, "--seq-len", 3,
        "--dtype", "float32", "--backend", "numpy", "--seconds", 0.002,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _, header, *rows = done.stdout.splitlines()
    assert header.split() == ["operation", "dtype", "h", "T", "reference", "numpy"]
    assert [row.split()[:4] for row in rows] == [
        [operation, "float32", h, "3"]
        for operation in ("forward", "train_step", "sample")
        for h in ("8", "16")
    ]
    for row in rows:
        reference, fast, ratio = row.split()[4:]
        assert float(ratio.rstrip("x")) == pytest.approx(float(reference) / float(fast), rel=0.02, abs=0.06)


def test_bench_holds_blas_to_one_thread(monkeypatch):
    from threadpoolctl import ThreadpoolController

    from fastrnn.cli import comparison as bench

    seen = []
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers

    def row(*arguments):
        seen.append([library.get_num_threads() for library in libraries])
        return original(*arguments)

    original = bench._row
    monkeypatch.setattr(bench, "_row", row)
    before = [library.get_num_threads() for library in libraries]
    for library in libraries:
        library.set_num_threads(2)
    try:
        arguments = ["--hidden-size", 8, "--seq-len", 2, "--backend", "numpy", "--seconds", 0.001]
        assert invoke("bench", *arguments).exit_code == 0
        assert seen == [[1] * len(libraries)] * 3
        assert [library.get_num_threads() for library in libraries] == [2] * len(libraries)
    finally:
        for library, number in zip(libraries, before, strict=True):
            library.set_num_threads(number)


@pytest.mark.skipif(os.name == "nt", reason="needs signals and process groups of Unix")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_bench_leaves_no_process_when_it_is_ended(number):
    arguments = ["bench", "--seconds", "60", "--hidden-size", "8", "--seq-len", "2", "--backend", "numpy"]
    env = environment()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        env.pop(name, None)  # as on a user's machine
    with start(*arguments, env=env, text=True, start_new_session=True) as process:
        assert "Microseconds" in process.stdout.readline()
        process.send_signal(number)
        process.wait(timeout=60)
        try:
            with pytest.raises(ProcessLookupError):
                os.killpg(process.pid, 0)  # it led a group of its own, and none is left of that
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        stderr = process.stderr.read()
    if number == signal.SIGINT:
        assert (process.returncode, stderr) == (130, "\nStopped by Ctrl-C.\n")
    else:
        assert (process.returncode, stderr) == (-number, "")


def test_bench_takes_every_backend_there_is():
    result = invoke("bench", "--hidden-size", 8, "--seq-len", 3, "--seconds", 0.002)
    assert result.exit_code == 0
    found = result.stdout.splitlines()[1].split()[5:]
    assert "numpy" in found
    for name in fastrnn.backends.BACKENDS:
        assert (name in found) != (f"Left out: backend '{name}'" in result.stderr)


def test_bench_fails_when_a_result_is_wrong(monkeypatch):
    monkeypatch.setattr(
        "fastrnn.cli.comparison.OPERATIONS",
        {"forward": lambda rnn, *_: ({0: [[isinstance(rnn, fastrnn.SimpleRNN)]]}, {0: [[0]]})},
    )
    result = invoke("bench", "--hidden-size", 8, "--seq-len", 1, "--backend", "numpy")
    assert result.exit_code == 1
    assert re.search(
        r"^Error: numpy, forward, h=8, T=1, float64: result 0 is not", result.stderr, re.MULTILINE
    )


def test_info_prints_the_configuration(capsys):
    with fastrnn.use_backend("numpy"):
        fastrnn.show_config()
    wanted = capsys.readouterr().out
    result = invoke("info")
    assert result.exit_code == 0
    assert result.stdout == wanted
    assert fastrnn.__version__ in result.stdout
