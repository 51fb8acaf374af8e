"""One run at a time writes a checkpoint, and none writes it over its own text."""

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cli_support import environment, invoke, run, start
from support import package_environment, run_python

from fastrnn import CharRNN
from fastrnn import char_rnn as char_rnn_module
from fastrnn import checkpoint as checkpoint_module
from fastrnn.checkpoint import only_writer

TEXT = "the cat sat on the mat. " * 60
SMALL = ["--hidden-size", "16", "--seq-len", "8", "--batch-size", "4", "--random-state", "3"]

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork, links or signals as on POSIX")


def small(**params):
    defaults = {"hidden_size": 12, "seq_len": 8, "batch_size": 4, "random_state": 0, "epochs": 1}
    return CharRNN(**defaults | params, backend="numpy", verbose=0)


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text"
    file.write_text(TEXT, encoding="utf-8")
    return file


def names(folder):
    return sorted(file.name for file in folder.iterdir())


# -- the text ----------------------------------------------------------------------------------------


@pytest.fixture
def unread(monkeypatch):
    monkeypatch.setattr(char_rnn_module, "read_indexed", lambda *a, **o: pytest.fail("read the text"))


def other_names(text, folder):
    """Ways to name a text."""
    (folder / "sub").mkdir()
    (folder / "link").symlink_to(text)
    (folder / "hard").hardlink_to(text)
    yield from (text, folder / "sub" / ".." / "text", folder / "link", folder / "hard")
    yield Path(os.path.relpath(text))


@posix
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_text_is_no_place_for_its_model(text, tmp_path, unread, method):
    for place in other_names(text, tmp_path):
        for checkpoint in (place, str(place)):
            learn = getattr(small(checkpoint=checkpoint), method)
            with pytest.raises(ValueError, match=r"^checkpoint '.*' would replace the text '.*text': choose"):
                learn(text)
            with pytest.raises(ValueError, match="would replace the text"):
                learn(["some text", text])
            with text.open("rb") as file, pytest.raises(ValueError, match="would replace the text"):
                learn(file)
            with text.open("rb") as file:
                by_number = Path(f"/dev/fd/{file.fileno()}")
                if by_number.exists():
                    with pytest.raises(ValueError, match="would replace the text '/dev/fd"):
                        learn(by_number)
    assert text.read_text() == TEXT
    assert names(tmp_path) == ["hard", "link", "sub", "text"]


def test_neither_is_what_a_text_would_be_moved_to(text, tmp_path, unread):
    old = text.rename(tmp_path / "m.previous")
    with pytest.raises(
        ValueError,
        match=r"'.*m' \(the one before it is kept as '.*m\.previous'\) would replace the text '.*previous'",
    ):
        small(checkpoint=tmp_path / "m").fit(old)
    assert names(tmp_path) == ["m.previous"]


def test_other_texts_and_files_are_none_of_this(text, tmp_path):
    (tmp_path / "m").write_text("not the text")
    model = small(checkpoint=tmp_path / "m").fit([TEXT, text, str(tmp_path / "m")])
    assert CharRNN.load(tmp_path / "m").step_ == model.step_
    assert (tmp_path / "m.previous").read_text() == "not the text"
    model.save(text)  # is asked for by name


@pytest.mark.parametrize("more", [[], ["--force"], ["--resume"]])
def test_the_command_refuses_its_text_at_once(text, tmp_path, more):
    result = invoke("train", text, "-o", text, *SMALL, *more)
    assert result.exit_code == 1
    assert re.fullmatch(
        r"Error: checkpoint '.*text' would replace the text '.*text': choose .*\n", result.stderr
    )
    with text.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "fastrnn", "train", "-", "-o", str(text), *more],
            stdin=file, env=environment(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert (
        done.stderr
        == f"Error: checkpoint {str(text)!r} would replace the text '<stdin>': choose another file\n"
    )
    assert text.read_text() == TEXT
    assert names(tmp_path) == ["text"]


# -- two runs ----------------------------------------------------------------------------------------

BUSY = "cannot write checkpoint {!r}: another run that is going on writes it; wait for its end, or choose another"


def waiting_run(out, *more):
    """A run that has its checkpoint and waits for its text."""
    process = start("train", "-", "-o", out, *SMALL, *more, stdin=subprocess.PIPE)
    assert b"Reading the text" in process.stderr.readline()
    return process


@posix
def test_the_second_of_two_runs_is_told_at_its_start(text, tmp_path):
    out, link = tmp_path / "m", tmp_path / "link"
    link.symlink_to(out)
    with waiting_run(out) as first:
        for place in (out, link, Path(f"{out}.previous")):
            for more in ([], ["--force"], ["--resume"]):
                result = invoke("train", text, "-o", place, *SMALL, *more)
                assert (result.exit_code, result.stderr) == (1, f"Error: {BUSY.format(str(place))}\n")
            with pytest.raises(OSError, match=re.escape(BUSY.format(str(place)))) as error:
                small(checkpoint=place).fit(Path("missing"))
            assert error.value.errno == errno.EBUSY
        assert run("train", text, "-o", tmp_path / "other", *SMALL, "--max-steps", 2).returncode == 0
        first.communicate(TEXT.encode(), timeout=60)
    assert first.returncode == 0
    assert names(tmp_path) == ["link", "m", "other", "text"]


@posix
def test_a_run_that_was_killed_leaves_no_lock(text, tmp_path):
    out = tmp_path / "m"
    with waiting_run(out) as first:
        assert names(tmp_path) == [".m.lock", "text"]
        first.send_signal(signal.SIGKILL)
        first.wait(timeout=60)
    assert invoke("train", text, "-o", out, *SMALL, "--max-steps", 2).exit_code == 0
    assert names(tmp_path) == ["m", "text"]


def in_a_thread(call):
    results = []

    def caught():
        try:
            results.append(call())
        except OSError as error:
            results.append(error)

    thread = threading.Thread(target=caught)
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_threads_of_one_process(text, tmp_path, monkeypatch, locks):
    if not locks:

        def take(descriptor):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(checkpoint_module, "_take", take)
    fit = small(checkpoint=tmp_path / "m").fit
    with only_writer(tmp_path / "m"), only_writer(str(tmp_path / "m")):
        fit(text)  # the thread's own
        assert in_a_thread(lambda: fit(text)).errno == errno.EBUSY
        assert (tmp_path / ".m.lock").exists() == locks
    assert in_a_thread(lambda: fit(text)).step_ > 0
    assert names(tmp_path) == ["m", "m.previous", "text"]


def test_a_place_for_no_lock(text, tmp_path):
    (tmp_path / ".m.lock").mkdir()
    assert small(checkpoint=tmp_path / "m").fit(text).step_ > 0
    with pytest.raises(FileNotFoundError, match="cannot write checkpoint"):
        small(checkpoint=tmp_path / "missing" / "m").fit(text)


def test_an_error_frees_it(tmp_path):
    model = small(checkpoint=tmp_path / "m")
    with pytest.raises(ValueError, match="is empty"):
        model.fit("")
    assert names(tmp_path) == []
    assert in_a_thread(lambda: model.fit(TEXT)).step_ > 0


@pytest.mark.parametrize("where", ["_take", "_unlock"], ids=["entering", "leaving"])
def test_an_interrupt_leaves_no_lock(tmp_path, monkeypatch, where):
    """Of a program that goes on, as a notebook does: no other run could write the file until its end."""
    real = getattr(checkpoint_module, where)

    def interrupted(*arguments):
        if where == "_take":
            real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_module, where, interrupted)
    with pytest.raises(KeyboardInterrupt), only_writer(tmp_path / "m"):
        pass
    monkeypatch.undo()

    def have_it():
        with only_writer(tmp_path / "m"):
            return True

    assert in_a_thread(have_it) is True
    assert have_it()
    assert names(tmp_path) == []


@posix
def test_a_lock_that_cannot_be_given_up(tmp_path, monkeypatch):
    """What was written is whole, and the lock goes with its file."""
    import fcntl

    take = fcntl.flock

    def flock(descriptor, operation):
        if operation == fcntl.LOCK_UN:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        take(descriptor, operation)

    monkeypatch.setattr(checkpoint_module.fcntl, "flock", flock)
    for _ in range(2):
        with only_writer(tmp_path / "m"):
            pass
    assert names(tmp_path) == []


@posix
def test_one_that_another_user_made(text, tmp_path):
    lock = tmp_path / ".m.lock"
    lock.touch(mode=0o444)
    with contextlib.suppress(PermissionError):  # only root may give files away
        os.chown(lock, 12345, 12345)
        tmp_path.chmod(0o1777)  # where not even root may open it to write
    with only_writer(tmp_path / "m"):
        assert in_a_thread(lambda: small(checkpoint=tmp_path / "m").fit(text)).errno == errno.EBUSY
        held = next(iter(checkpoint_module._held.values()))
        assert held.file is not None


# -- processes that were forked ----------------------------------------------------------------------

FORKED = """
import os, sys, time
from fastrnn.checkpoint import only_writer
with only_writer(sys.argv[1]):
    child = os.fork()
    if not child:
        try:
            with only_writer(sys.argv[1]):
                print("child has it", flush=True)
        except OSError as error:
            print(error.strerror.rpartition(": ")[2], flush=True)
        if sys.argv[2] == "stay":
            os.read(0, 1)  # goes on for longer than its parent
            os._exit(0)
    else:
        os.waitpid(child, 0) if sys.argv[2] == "end" else time.sleep(60)
print("out", os.path.exists(os.path.join(os.path.dirname(sys.argv[1]), ".m.lock")), flush=True)
"""


@posix
def test_a_child_that_was_forked_has_no_lock_and_frees_none(tmp_path):
    done = run_python("-W", "ignore", "-c", FORKED, tmp_path / "m", "end")
    assert done.returncode == 0, done.stderr
    busy, child, parent = done.stdout.splitlines()
    assert busy.startswith("another run that is going on writes it")
    assert (child, parent) == ("out True", "out False")


@posix
def test_a_child_that_was_forked_keeps_no_lock_of_a_parent_that_was_killed(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path / "m"), "stay"],
        env=package_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline().startswith("another run")
        process.kill()
        process.wait()
        with only_writer(tmp_path / "m"):
            assert (tmp_path / ".m.lock").exists()
    finally:
        process.stdin.close()
        process.stdout.close()


IN_TURN = """
import errno, sys, time
from pathlib import Path
from fastrnn.checkpoint import only_writer
inside, done = Path(sys.argv[1] + ".inside"), 0
while done < int(sys.argv[2]):
    try:
        with only_writer(sys.argv[1]):
            inside.touch(exist_ok=False)  # nobody else is here
            inside.unlink()
        done += 1
    except OSError as error:
        assert error.errno == errno.EBUSY, error
        time.sleep(0)
"""


@posix
def test_no_two_have_it_while_the_file_comes_and_goes(tmp_path):
    command = [sys.executable, "-c", IN_TURN, str(tmp_path / "m"), "300"]
    processes = [
        subprocess.Popen(command, env=package_environment(), stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert names(tmp_path) == []
    assert not checkpoint_module._held
