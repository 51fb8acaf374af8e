"""Runs that are killed, interrupted or out of room, and go on with the same bits."""

import _thread
import errno
import itertools
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support import package_environment, run_python

from fastrnn import CharRNN, CheckpointError, TextError, interrupts
from fastrnn.checkpoint import read_checkpoint, write_checkpoint
from fastrnn.text import display as progress_module
from fastrnn.text import training as training_module

#: Most runs go on in the same object, and what they come to is looked at there.
pytestmark = pytest.mark.filterwarnings("ignore:checkpoint is None")

PROGRAM = Path(__file__).parent / "resume_program.py"

#: Of which each takes about half a second, most of it to write checkpoints.
RUNS = {
    "dropout": {"num_layers": 2, "dropout": 0.3, "lr_decay": 0.9, "checkpoint_every": 3, "epochs": 2},
    "patience": {"optimizer": "momentum", "lr": 0.05, "patience": 3, "validate_every": 15, "epochs": 2,
                 "checkpoint_every": 1},
    "adagrad": {"optimizer": "adagrad", "lr": 0.1, "clip": "value", "batch_size": 1, "max_steps": 700,
                "checkpoint_every": 7},
    "float64": {"optimizer": "rmsprop", "dtype": "float64", "seq_len": 31, "epochs": 6,
                "checkpoint_every": 2},
}  # fmt: skip
COMMON = {"hidden_size": 12, "seq_len": 8, "batch_size": 4, "random_state": 5, "verbose": 0}


def text_of(n, seed=0):
    rng = np.random.default_rng(seed)
    return "".join(rng.choice(["the ", "cat ", "sat ", "on ", "mat.\n", "über "], n // 4))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text"
    file.write_text(text_of(6000), encoding="utf-8")
    return file


def start(checkpoint, text, params, *more, **options):
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(checkpoint), str(text), json.dumps(COMMON | params), *more],
        env=package_environment(FASTRNN_BACKEND="numpy"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def finish(process):
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out.splitlines()[-1]


_results = {}


@pytest.fixture
def undisturbed(tmp_path, text):
    """What a run comes to when nobody disturbs it."""

    def run(name):
        if name not in _results:
            _results[name] = finish(start(tmp_path / "undisturbed", text, RUNS[name]))
        return _results[name]

    return run


def kill_at_random(checkpoint, text, params, wanted, kills, rng):
    """Start and kill a run again and again until it ends, `kills` times at least; check each end."""
    done = 0
    while done < kills:
        process = start(checkpoint, text, params)
        assert process.stdout.readline() == "training\n", process.stderr.read()
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        out, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), errors
        if process.returncode:
            done += 1
        else:
            assert out.splitlines()[-1] == wanted
            checkpoint.unlink()
        if checkpoint.exists():
            read_checkpoint(checkpoint)
        previous = checkpoint.with_name(checkpoint.name + ".previous")
        if previous.exists():
            read_checkpoint(previous)
    assert finish(start(checkpoint, text, params)) == wanted


posix = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")


@pytest.mark.few(1)
@posix
@pytest.mark.parametrize("name", RUNS)
def test_killed_at_random_moments(tmp_path, text, undisturbed, name):
    seed = random.randrange(10**6)
    print(f"seed of the moments: {seed}")
    kill_at_random(tmp_path / "model", text, RUNS[name], undisturbed(name), 5, random.Random(seed))


@posix
@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_killed_at_more_random_moments(tmp_path, text, undisturbed, name):
    kill_at_random(tmp_path / "model", text, RUNS[name], undisturbed(name), 25, random.Random(1))


@pytest.mark.few(2)
@posix
@pytest.mark.parametrize(
    ("function", "n", "when"),
    [
        # The first checkpoint, and the third, which has one before it and one before that.
        ("fsync", 1, "before"),
        ("replace", 1, "after"),
        ("fsync", 5, "before"),
        ("link", 2, "after"),
        ("replace", 4, "after"),
        ("replace", 5, "before"),
        ("replace", 5, "after"),
    ],
)
def test_killed_while_a_checkpoint_is_written(tmp_path, text, undisturbed, function, n, when):
    checkpoint = tmp_path / "model"
    process = start(checkpoint, text, RUNS["dropout"], function, str(n), when)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    assert out == "training\n"
    # Calls come in the order fsync, (link, replace,) replace, fsync of the folder.
    written = {"fsync": (n - 1) // 2, "link": n, "replace": (n + (when == "after")) // 2}[function]
    assert checkpoint.exists() == (written > 0)
    if written:
        content, arrays = read_checkpoint(checkpoint)
        assert content["progress"]["step"] == 3 * written
    previous = tmp_path / "model.previous"
    if previous.exists():
        assert read_checkpoint(previous)[0]["progress"]["step"] in (3 * written, 3 * (written - 1))
    assert finish(start(checkpoint, text, RUNS["dropout"])) == undisturbed("dropout")


# -- in one process, on every backend --------------------------------------------------------------


def small(backend, **params):
    defaults = {"lr": 0.01, "lr_decay": 0.8, "num_layers": 2, "dropout": 0.2, "epochs": 4}
    return CharRNN(**COMMON | defaults | params, backend=backend)


def same(a, b):
    for name, W in a.model_.parameters.items():
        np.testing.assert_array_equal(W, b.model_.parameters[name], err_msg=name)
    for mine, others in zip(a.history_, b.history_, strict=True):
        assert {**mine, "chars_per_second": 0} == {**others, "chars_per_second": 0}
    assert (a.step_, a.epoch_, a.best_step_) == (b.step_, b.epoch_, b.best_step_)
    assert a.best_valid_nats_ == b.best_valid_nats_
    for name, W in (a.best_weights_ or {}).items():
        np.testing.assert_array_equal(W, b.best_weights_[name], err_msg=name)
    assert a.generate(40, "the", random_state=3) == b.generate(40, "the", random_state=3)


class Stop(Exception):
    pass


def stop_after(monkeypatch, model, text, steps, error=Stop, **options):
    """Fit, and end it by an exception out of the model at a step."""
    from fastrnn.language_model import LanguageModel

    train_step, calls = LanguageModel.train_step, itertools.count(1)

    def stopping(self, *arguments, **more):
        if next(calls) > steps:
            raise error
        return train_step(self, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "train_step", stopping)
        with pytest.raises(error):
            model.fit(text, **options)


@pytest.mark.few(3)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adagrad", "rmsprop", "adam"])
def test_resumed_from_a_checkpoint(backend, tmp_path, monkeypatch, optimizer):
    text = text_of(800)
    whole = small(backend, optimizer=optimizer).fit(text)
    per_epoch = whole.step_ // 4
    for steps, every in ((per_epoch, 1), (per_epoch + 7, 5)):
        checkpoint = tmp_path / f"{optimizer}{steps}"
        stop_after(
            monkeypatch,
            small(backend, optimizer=optimizer, checkpoint=checkpoint, checkpoint_every=every),
            text, steps,
        )  # fmt: skip
        loaded = CharRNN.load(checkpoint, checkpoint=checkpoint)
        assert loaded.step_ == steps - steps % every
        same(loaded.fit(text, resume=True), whole)
        same(CharRNN.load(checkpoint), whole)


def test_resumed_in_the_same_object(backend, monkeypatch):
    text = text_of(800)
    whole = small(backend).fit(text)
    model = small(backend)
    stop_after(monkeypatch, model, text, 23)
    assert model.step_ == 23
    stop_after(monkeypatch, model, text, 50, resume=True)
    same(model.fit(text, resume=True), whole)
    steps = model.step_
    assert model.fit(text, resume=True).step_ == steps  # nothing is left to do
    same(model, whole)


def test_random_states_of_every_generator(tmp_path):
    text = text_of(1200)
    for bit_generator in (np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64):

        def generator(bit_generator=bit_generator):
            return np.random.Generator(bit_generator(7))

        whole = small("numpy", random_state=generator()).fit(text)
        model = small("numpy", random_state=generator(), epochs=3).fit(text)
        model.save(tmp_path / "model")
        loaded = CharRNN.load(tmp_path / "model", epochs=4)
        assert loaded.random_state is None
        loaded.fit(text, resume=True)
        for name, W in whole.model_.parameters.items():
            np.testing.assert_array_equal(W, loaded.model_.parameters[name])


def test_numbers_of_numpy_are_as_those_of_python(tmp_path, monkeypatch):
    text, checkpoint = text_of(800), tmp_path / "model"
    params = {"lr": np.float32(0.01), "lr_decay": np.float32(0.7), "dropout": np.float32(0.2),
              "validation_fraction": np.float16(0.1), "clip_threshold": np.float32(1.1),
              "seq_len": np.int8(8), "batch_size": np.uint8(4), "hidden_size": np.int16(12),
              "epochs": np.int8(3), "max_steps": np.int16(50), "validate_every": np.int8(20),
              "patience": np.int8(9), "random_state": np.int64(5), "verbose": np.int8(0),
              "checkpoint_every": np.int64(9), "diagnostics_every": np.int64(10)}  # fmt: skip
    whole = small("numpy", **{name: value.item() for name, value in params.items()}).fit(text)
    model = small("numpy", **params, checkpoint=checkpoint)
    stop_after(monkeypatch, model, text, 20)
    assert CharRNN.load(checkpoint).step_ == 18
    same(CharRNN.load(checkpoint).fit(text, resume=True), whole)
    assert CharRNN.load(checkpoint).step_ == 18
    same(model.fit(text, resume=True), whole)
    same(CharRNN.load(checkpoint), whole)


@pytest.mark.parametrize("dtype", ["f4", "<f4", np.float32, np.dtype("float32")])
def test_one_type_by_many_names(tmp_path, dtype):
    text = text_of(800)
    model = small("numpy", epochs=1, dtype=dtype).fit(text)
    model.save(tmp_path / "model")
    assert CharRNN.load(tmp_path / "model", dtype=dtype).dtype is dtype
    model.set_params(dtype="float32", epochs=2).fit(text, resume=True)
    same(CharRNN.load(tmp_path / "model", epochs=2).fit(text, resume=True), model)


def test_a_progress_that_does_not_fit_the_text(tmp_path):
    text, file = text_of(800), tmp_path / "model"
    small("numpy", max_steps=30).fit(text).save(file)
    content, arrays = read_checkpoint(file)
    for changes, more in (
        ({"step": 1000, "num_streams": 4}, {}),
        ({"num_streams": 3}, {"state": np.ascontiguousarray(arrays["state"][:, :3])}),
    ):
        write_checkpoint(file, content | {"progress": content["progress"] | changes}, arrays | more)
        with pytest.raises(CheckpointError, match=r"cannot be resumed: \d+ steps of an epoch over"):
            CharRNN.load(file, max_steps=2000).fit(text, resume=True)


def test_more_epochs_for_a_run_that_has_ended():
    text = text_of(800)
    model = small("numpy", epochs=2).fit(text)
    model.set_params(epochs=4).fit(text, resume=True)
    whole = small("numpy").fit(text)
    for name, W in whole.model_.parameters.items():
        np.testing.assert_array_equal(W, model.model_.parameters[name])
    assert model.best_valid_nats_ == whole.best_valid_nats_


def test_what_cannot_be_resumed(tmp_path):
    text = text_of(800)
    with pytest.raises(ValueError, match="not fitted yet"):
        small("numpy").fit(text, resume=True)
    model = small("numpy", epochs=1).fit(text)
    before = model.model_.state_dict()
    with pytest.raises(TextError, match=r"not the text .*: it has \d+ characters, that one had \d+"):
        model.fit(text[:-1], resume=True)
    with pytest.raises(TextError, match=r"not the text .*: its SHA-256 is [0-9a-f]{64}, that of the other"):
        model.fit(text[::-1], resume=True)
    changes = {"hidden_size": 13, "num_layers": 1, "dtype": "float64", "optimizer": "sgd", "seq_len": 9,
               "batch_size": 3, "validation_fraction": 0.2, "newline": "universal"}  # fmt: skip
    for name, value in changes.items():
        kept = model.get_params()[name]
        with pytest.raises(
            ValueError, match=f"{name} was {kept!r} when training began, and cannot be {value!r}"
        ):
            model.set_params(**{name: value}).fit(text, resume=True)
        model.set_params(**{name: kept})
    model.save(tmp_path / "model")
    for name in ("hidden_size", "num_layers", "dtype", "optimizer"):
        with pytest.raises(ValueError, match=f"{name} was .* when training began"):
            CharRNN.load(tmp_path / "model", **{name: changes[name]})
    assert model.step_ == CharRNN.load(tmp_path / "model").step_
    for name, W in before.items():
        np.testing.assert_array_equal(W, model.model_.parameters[name])
    model.partial_fit(text)
    with pytest.raises(ValueError, match="no run to resume: the last call was partial_fit"):
        model.fit(text, resume=True)


def test_a_run_that_took_a_byte_order_mark_for_a_letter(tmp_path):
    """As runs over such a file did before the mark was left out."""
    text, file = "\ufeff" + text_of(800), tmp_path / "text"
    file.write_bytes(text.encode())
    model = small("numpy", epochs=1).fit(text)
    with pytest.raises(
        TextError, match=r"it has \d+ characters, that one had \d+; .* byte order mark, .* but not of a str$"
    ):
        model.fit(file, resume=True)
    model.set_params(epochs=2).fit(file.read_text(encoding="utf-8"), resume=True)
    assert model.epoch_ == 2


# -- Ctrl-C ----------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_step_saves_and_goes_on_as_an_exception(tmp_path, monkeypatch):
    from fastrnn.language_model import LanguageModel

    text = text_of(800)
    whole = small("numpy").fit(text)
    checkpoint = tmp_path / "model"
    model = small("numpy", checkpoint=checkpoint, checkpoint_every=1000)
    train_step, calls = LanguageModel.train_step, itertools.count(1)

    def interrupted(self, *arguments, **more):
        if next(calls) == 17:
            _thread.interrupt_main()  # as Ctrl-C would, in the middle of a step
        return train_step(self, *arguments, **more)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(text)
    assert signal.getsignal(signal.SIGINT) is handler
    assert model.step_ == CharRNN.load(checkpoint).step_ == 17
    same(CharRNN.load(checkpoint).fit(text, resume=True), whole)
    same(model.fit(text, resume=True), whole)


def test_a_ctrl_c_as_the_training_ends_is_not_lost(tmp_path, monkeypatch):
    leave = training_module._Bar.__exit__

    def interrupted(self, *error):
        _thread.interrupt_main()
        leave(self, *error)

    monkeypatch.setattr(training_module._Bar, "__exit__", interrupted)
    model, whole = small("numpy", checkpoint=tmp_path / "model"), small("numpy")
    for fit in (model.fit, whole.fit):
        with pytest.raises(KeyboardInterrupt):
            fit(text_of(800))
    same(CharRNN.load(tmp_path / "model"), whole)


def test_a_second_ctrl_c_does_not_wait():
    with interrupts.interrupts_noted() as noted:
        signal.raise_signal(signal.SIGINT)
        assert noted == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_signals_that_come_twice_do_not_hasten(monkeypatch):
    """A terminal that is closed sends SIGHUP, and its shell again, and the system SIGTERM as well."""
    before = {number: signal.signal(number, interrupts.interrupt) for number in interrupts.ENDING_SIGNALS}
    try:
        with interrupts.interrupts_noted() as noted:
            for number in 2 * interrupts.ENDING_SIGNALS:
                signal.raise_signal(number)
            assert noted[0] == interrupts.ENDING_SIGNALS[0]
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_that_is_gone_does_not_end_a_training(tmp_path, monkeypatch, terminal):
    class Gone:
        encoding = "utf-8"

        def isatty(self):
            return terminal

        def write(self, text):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        flush = fileno = close = lambda self: self.write("")

    monkeypatch.setattr(sys, "stderr", Gone())
    for every in ("BAR_EVERY", "LINE_EVERY"):
        monkeypatch.setattr(progress_module, every, 0)
    model = small("numpy", epochs=1, verbose=1, checkpoint=tmp_path / "model").fit(text_of(800))
    same(CharRNN.load(tmp_path / "model"), small("numpy", epochs=1).fit(text_of(800)))
    assert model.step_ > 10


def test_ctrl_c_is_left_to_programs_that_handle_it_and_to_other_threads():
    def mine(number, frame):
        raise Stop

    before = signal.signal(signal.SIGINT, mine)
    try:
        with interrupts.interrupts_noted():
            assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)

    def elsewhere():
        with interrupts.interrupts_noted() as noted:
            seen.append((noted, signal.getsignal(signal.SIGINT)))

    seen = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [([], before)]


# -- no room, no right ------------------------------------------------------------------------------


FULL = """
import errno, resource, sys
from fastrnn import CharRNN
checkpoint, how = sys.argv[1:]
text = "hello world. " * 200
model = CharRNN(16, seq_len=8, batch_size=2, epochs=1, random_state=0, verbose=0, checkpoint=checkpoint,
                checkpoint_every=5).fit(text)
size = len(open(checkpoint, "rb").read())
if how == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
else:
    filler = open(checkpoint + ".filler", "wb", buffering=0)
    try:
        while filler.write(bytes(4096)):
            pass
    except OSError:
        filler.truncate(filler.tell() - 4096)
steps = model.step_
try:
    model.set_params(epochs=2).fit(text, resume=True)
except OSError as error:
    assert error.errno in (errno.EFBIG, errno.ENOSPC), error
    print(error)
    assert model.step_ == steps + 5 - steps % 5, model.step_
    assert len(model.generate(5)) == 5
    loaded = CharRNN.load(checkpoint)
    assert loaded.step_ == steps
"""


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@posix
def test_a_file_that_may_not_grow(tmp_path):
    done = run_python("-c", FULL, tmp_path / "model", "limit", FASTRNN_BACKEND="numpy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"[Errno {errno.EFBIG}] cannot write checkpoint '{tmp_path / 'model'}': File"
    )
    assert names(tmp_path) == ["model", "model.previous"]


def test_a_full_disk(tmp_path):
    size = 160 * 1024
    if shutil.which("unshare") is None:
        pytest.skip("a small file system needs unshare")
    mount = f"mount -t tmpfs -o size={size} tmpfs {tmp_path} && exec "
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if subprocess.run([*command, f"{mount} true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    done = subprocess.run(
        [*command, mount + '"$@"', "sh", sys.executable, "-c", FULL, str(tmp_path / "model"), "fill"],
        env=package_environment(FASTRNN_BACKEND="numpy"), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"[Errno {errno.ENOSPC}] cannot write checkpoint" in done.stdout
    assert "No space left on device" in done.stdout


def test_places_that_cannot_be_written_are_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(CharRNN, "_train", lambda *a: pytest.fail("trained"))
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()
    places = {
        tmp_path / "file" / "model": (NotADirectoryError, "Not a directory"),
        tmp_path / "missing" / "model": (FileNotFoundError, "No such file"),
        tmp_path / "folder": (IsADirectoryError, "Is a directory"),
        tmp_path / ("x" * 300): (OSError, "too long"),
    }
    if hasattr(os, "geteuid") and os.geteuid():
        (tmp_path / "readonly").mkdir(mode=0o555)
        places[tmp_path / "readonly" / "model"] = (PermissionError, "Permission denied")
    for place, (error, said) in places.items():
        for checkpoint in (place, str(place)):
            with pytest.raises(error, match=said) as caught:
                small("numpy", checkpoint=checkpoint).fit(text_of(400))
            assert f"cannot write checkpoint {str(place)!r}" in str(caught.value)
    assert not any(name.endswith(".tmp") for name in names(tmp_path))


def test_a_checkpoint_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    text, checkpoint = text_of(800), tmp_path / "model"
    model = small("numpy", checkpoint=checkpoint, checkpoint_every=10, epochs=1).fit(text)
    steps, content = model.step_, checkpoint.read_bytes()
    for name in ("fsync", "link"):

        def failing(*arguments):
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing)
            if name == "link":  # and neither is there room for a copy
                patch.setattr(shutil, "copyfileobj", failing)
            with pytest.raises(OSError, match=r"cannot write checkpoint .*: Input/output error"):
                model.set_params(epochs=4).fit(text, resume=True)
        assert checkpoint.read_bytes() == content
        assert not any(name.endswith(".tmp") for name in names(tmp_path))
    assert model.step_ > steps
    same(CharRNN.load(checkpoint, epochs=4).fit(text, resume=True), model.fit(text, resume=True))


def test_a_last_checkpoint_that_failed_is_written_when_the_run_is_resumed(tmp_path, monkeypatch):
    """Though no step is left to do."""
    file, text = tmp_path / "model", text_of(800)
    model = small("numpy", epochs=1, checkpoint=file, checkpoint_every=10**6)

    def failing(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="cannot write checkpoint"):
            model.fit(text)
    assert names(tmp_path) == []
    steps = model.step_
    model.fit(text, resume=True)
    assert model.step_ == steps
    same(CharRNN.load(file), model)
    same(model, small("numpy", epochs=1).fit(text))


def test_a_run_that_is_over_is_written_where_it_is_not(tmp_path):
    file, other, text = tmp_path / "model", tmp_path / "other", text_of(800)
    model = small("numpy", epochs=1, checkpoint=file).fit(text)
    before = file.stat()
    for again in (model, pickle.loads(pickle.dumps(model)), CharRNN.load(file, checkpoint=str(file))):
        again.fit(text, resume=True)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert names(tmp_path) == ["model"]
    CharRNN.load(file, checkpoint=other).fit(text, resume=True)
    same(CharRNN.load(other), model)
    file.unlink()
    model.fit(text, resume=True)
    same(CharRNN.load(file), model)


def test_a_run_that_is_over_leaves_the_file_to_who_went_on_with_it(tmp_path):
    file, text = tmp_path / "model", text_of(800)
    model = small("numpy", max_steps=10, checkpoint=file).fit(text)
    longer = CharRNN.load(file, checkpoint=file, max_steps=20).fit(text, resume=True)
    model.fit(text, resume=True)
    same(CharRNN.load(file), longer)


@pytest.mark.parametrize("patience", [None, 50])
def test_a_run_that_is_over_is_written_with_the_weights_that_it_uses(tmp_path, monkeypatch, patience):
    file, text = tmp_path / "model", text_of(2000)
    options = {"epochs": 2, "patience": patience, "validate_every": 3, "lr": 0.3}
    model = small("numpy", checkpoint=file, checkpoint_every=1, **options)
    stop_after(monkeypatch, model, text, 20, KeyboardInterrupt)
    assert CharRNN.load(file).weights_ == "last"
    model.set_params(max_steps=model.step_).fit(text, resume=True)
    there = CharRNN.load(file)
    assert there.weights_ == model.weights_ == ("last" if patience is None else "best")
    same(there, model)
    assert there.generate(30, random_state=1) == model.generate(30, random_state=1)
    whole = small("numpy", **options).fit(text)
    same(CharRNN.load(file, max_steps=None, checkpoint=file).fit(text, resume=True), whole)


def test_a_run_that_diverged_before_its_first_entry_and_is_over(tmp_path, monkeypatch):
    model = small("numpy", optimizer="adam", lr=3e37, checkpoint=tmp_path / "model")
    stop_after(monkeypatch, model, text_of(800), 1, KeyboardInterrupt)
    model.set_params(max_steps=model.step_)
    with pytest.raises(CheckpointError, match="NaN or infinity") if model.history_ else warned():
        model.fit(text_of(800), resume=True)
    assert names(tmp_path) == []


def warned():
    return pytest.warns(RuntimeWarning, match="no longer finite")


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def link(*arguments):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    checkpoint = tmp_path / "model"
    model = small("numpy", epochs=1).fit(text_of(1000))
    model.save(checkpoint)
    first = checkpoint.read_bytes()
    model.set_params(epochs=2).fit(text_of(1000), resume=True).save(checkpoint)
    assert (tmp_path / "model.previous").read_bytes() == first != checkpoint.read_bytes()
    same(CharRNN.load(checkpoint), model)


def test_a_damaged_checkpoint_names_the_one_before(tmp_path):
    checkpoint = tmp_path / "model"
    model = small("numpy", epochs=1, checkpoint=checkpoint, checkpoint_every=3).fit(text_of(1000))
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"truncated.*; the one before it is '.*model\.previous'"):
        CharRNN.load(checkpoint)
    assert 0 < CharRNN.load(tmp_path / "model.previous").step_ < model.step_
