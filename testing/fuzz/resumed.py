"""`CharRNN` whose training is stopped, again and again, and goes on: the bits of one that was not stopped."""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import pickle
import signal
import tempfile
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn.checkpoint import read_checkpoint, write_checkpoint
from fastrnn.language_model import LanguageModel
from fastrnn.optim import OPTIMIZERS
from fastrnn.text.settings import OF_RUN
from fuzz.case import ERRORS
from fuzz.compare import Failure, bits

ALPHABETS = ("ab", "abcdefgh \n", "a\r\nb", "aäß€😀\u0301")

#: Learning rates with which a few steps move much and nothing overflows.
RATES = {"sgd": 0.3, "momentum": 0.05, "adagrad": 0.1, "rmsprop": 0.01, "adam": 0.02}

#: What another number of threads, and another place, may change in a file.
OF_PLACE = ("num_threads", "checkpoint_every", "backend", "max_steps", "epochs", "verbose")


class Stop(Exception):
    """What ends a training that is to be resumed."""


def run(case):
    with tempfile.TemporaryDirectory() as folder:
        _run(case, Path(folder))


def _run(case, folder):
    text, given = random_text(case.draw), settings(case.draw, case.backend)
    below = case.draw.chance(0.25)
    if below:
        given["patience"] = None  # a limit makes for one validation more, and that counts
    case.note(f"CharRNN({given}).fit({text!r:.60}, of {len(text)} characters)")
    whole = fastrnn.CharRNN(**given, num_threads=1).fit(text)
    case.counts.calls += 1
    if not finite(whole):
        return
    want = contents(whole, folder / "whole")
    if below:
        limited(case, folder, text, given, want)
    else:
        stopped = interrupted(case, folder, text, given, want)
        if stopped is not None:
            once_more(case, folder, text, stopped)
    for _ in range(3):
        spoilt(case, folder, text, given)


# -- random trainings ----------------------------------------------------------------------------------


def random_text(draw):
    alphabet = draw.pick(ALPHABETS)
    return "".join(draw.pick(alphabet) for _ in range(draw.integer(20, 220))) + alphabet


def settings(draw, backend):
    """Of a training of at most some dozen steps."""
    held_out = draw.pick((0.0, 0.1, 0.3))
    optimizer = draw.pick(tuple(OPTIMIZERS))
    layers = draw.pick((1, 1, 2, 3))
    few = {"max_steps": draw.integer(2, 40)} if draw.chance(0.7) else {"epochs": draw.integer(1, 3)}
    return {
        "hidden_size": draw.size(17), "num_layers": layers, "cell": draw.pick(("rnn", "gru", "lstm")),
        "dropout": draw.pick((0.0, 0.3)) if layers > 1 else 0.0, "optimizer": optimizer,
        "lr": RATES.get(optimizer, 0.01), "lr_decay": draw.pick((1.0, 0.7)),
        "clip": draw.pick(("norm", "value", None)), "clip_threshold": draw.pick((5.0, 0.1)),
        "seq_len": draw.integer(3, 9), "batch_size": draw.integer(1, 6), "validation_fraction": held_out,
        "validate_every": draw.pick((None, 1, 3, 7)),
        "patience": draw.pick((None, 1, 2, 4)) if held_out else None,
        "diagnostics_every": draw.pick((None, None, 4)), "dtype": draw.pick(("float32", "float64")),
        "newline": draw.pick((None, "universal")), "random_state": draw.seed(), "backend": backend,
        "verbose": 0, **few,
    }  # fmt: skip


def finite(model):
    numbers = [entry[name] for entry in model.history_ for name in ("train_nats", "grad_norm")]
    return np.isfinite(numbers).all() and all(np.isfinite(W).all() for W in model.last_weights_.values())


# -- stopped, and resumed ------------------------------------------------------------------------------


def interrupted(case, folder, text, given, want):
    """Stop a training several times, and go on from the file, a copy or the object itself."""
    draw, file = case.draw, folder / "model"
    given = given | {"checkpoint": str(file), "checkpoint_every": draw.pick((None, 1, 2, 5))}
    model, resume = fastrnn.CharRNN(**given, num_threads=draw.pick((1, 2, 3))), False
    for _ in range(draw.integer(1, 4)):
        way, steps = draw.pick(WAYS), draw.integer(0, 12)
        case.note(f"fit(resume={resume}), {way.__name__} after {steps} steps")
        case.counts.calls += 1
        try:
            with way(steps):
                model.fit(text, resume=resume)
            break
        except (Stop, KeyboardInterrupt, OSError) as stopped:
            if not isinstance(stopped, RAISED[way]) or getattr(stopped, "errno", errno.EIO) != errno.EIO:
                raise
        temporaries(folder)
        model, resume = going_on(case, folder, model, given)
    case.note(f"fit(resume={resume}) to the end")
    case.counts.calls += 1
    model.fit(text, resume=resume)
    case.counts.compared += 1
    same(contents(model, folder / "resumed"), want, "resumed")
    same(contents(fastrnn.CharRNN.load(file), folder / "loaded"), want, "the file of the resumed")
    temporaries(folder)
    return model


@contextlib.contextmanager
def stepping(before):
    """Call a function before each step, of its number from 0 on."""
    train_step, count = LanguageModel.train_step, iter(range(10**9))

    def step(self, *arguments, **more):
        before(next(count))
        return train_step(self, *arguments, **more)

    LanguageModel.train_step = step
    try:
        yield
    finally:
        LanguageModel.train_step = train_step


def error(steps):
    """An exception before a step."""

    def before(step):
        if step == steps:
            raise Stop

    return stepping(before)


def ctrl_c(steps):
    """Ctrl-C in a step, which ends before the training does."""
    return stepping(lambda step: signal.raise_signal(signal.SIGINT) if step == steps else None)


@contextlib.contextmanager
def full_disk(steps):
    """A checkpoint that cannot be written."""
    fsync, count = os.fsync, iter(range(10**9))

    def failing(file):
        if next(count) >= steps // 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return fsync(file)

    os.fsync = failing
    try:
        yield
    finally:
        os.fsync = fsync


#: Ways to stop a training, and what comes out of it.
RAISED = {error: Stop, ctrl_c: KeyboardInterrupt, full_disk: OSError}
WAYS = tuple(RAISED)


def going_on(case, folder, model, given):
    """What goes on in the place of a model that was stopped, and whether it has anything to go on with."""
    draw, file = case.draw, folder / "model"
    threads = draw.pick((1, 2, 3, None))
    begun = hasattr(model, "_run")
    ways = ["file"] * 3 + ["previous"] + ["object", "pickle", "copy", "saved"] * begun
    way = draw.pick(ways)
    source = file.with_name("model.previous") if way == "previous" else file
    if way in ("file", "previous") and not source.exists():
        way = "anew"
    case.note(f"goes on by {way}, {threads} threads")
    if way == "anew":
        return fastrnn.CharRNN(**given, num_threads=threads), False
    if way in ("file", "previous"):
        return fastrnn.CharRNN.load(source, checkpoint=given["checkpoint"], num_threads=threads), True
    if way == "saved":
        model.save(folder / "saved")
        return fastrnn.CharRNN.load(folder / "saved", checkpoint=given["checkpoint"]), True
    if way == "pickle":
        return pickle.loads(pickle.dumps(model)), True  # noqa: S301
    return (copy.deepcopy(model) if way == "copy" else model), True


def limited(case, folder, text, given, want):
    """A limit that comes sooner, and is raised: the same but for what its validation notes."""
    last = want[0]["progress"]["step"]
    model = fastrnn.CharRNN(**given | {"max_steps": case.draw.integer(1, last)})
    case.note(f"fit with max_steps={model.max_steps}, then {last}")
    case.counts.calls += 2
    model.fit(text).save(folder / "part")
    model = fastrnn.CharRNN.load(folder / "part", max_steps=last, num_threads=case.draw.pick((1, 2, 3)))
    got = contents(model.fit(text, resume=True), folder / "resumed")
    case.counts.compared += 1
    for part in (got, want):
        del part[0]["history"]
        part[0]["progress"] = {
            name: part[0]["progress"][name] for name in ("step", "epoch", "epoch_start", "num_streams")
        }
        for name in [name for name in part[1] if name.startswith(("best.", "start.best"))]:
            del part[1][name]
    same(got, want, "with a higher limit")


def once_more(case, folder, text, model):
    """A run that has ended stays as it is, and so does its file; another file gets it as well."""
    file, other = folder / "model", folder / "written"
    want, there, place = contents(model, folder / "before"), file.read_bytes(), file.stat().st_ino
    case.note("fit(resume=True) where nothing is left to do")
    case.counts.calls += 2
    model.fit(text, resume=True)
    case.counts.compared += 2
    same(contents(model, folder / "after"), want, "resumed at its end")
    if (file.read_bytes(), file.stat().st_ino) != (there, place):
        raise Failure("the file of a run that is over was written once more")
    fastrnn.CharRNN.load(file, checkpoint=other).fit(text, resume=True)
    same(contents(fastrnn.CharRNN.load(other), folder / "after"), want, "written to another file")
    other.unlink()


def contents(model, file):
    """All that a file of a model holds, and what it writes, without times and places."""
    file.unlink(missing_ok=True)
    model.save(file)
    content, arrays = read_checkpoint(file)
    content = {name: value for name, value in content.items() if name != "is_checkpoint"}
    content["params"] = {n: value for n, value in content["params"].items() if n not in OF_PLACE}
    content["history"] = [{**entry, "chars_per_second": 0} for entry in content["history"]]
    content["text"] = model.generate(12, random_state=3)
    return content, {name: np.array(array) for name, array in arrays.items()}


def same(got, want, what):
    for one, two in zip(got, want, strict=True):
        if one.keys() != two.keys():
            raise Failure(f"{what}: {sorted(one.keys() ^ two.keys())} in only one of two models")
    wrong = [
        name for part in (0, 1) for name in want[part] if bits(got[part][name]) != bits(want[part][name])
    ]
    if wrong:
        name = wrong[0]
        shown = f"{got[0][name]}\n  in place of {want[0][name]}" if name in want[0] else ""
        raise Failure(f"{what}: other {', '.join(wrong)}: {shown[:2000]}")


def temporaries(folder):
    left = [file.name for file in folder.iterdir() if file.name.endswith((".tmp", ".lock"))]
    if left:
        raise Failure(f"left behind: {', '.join(left)}")


# -- what cannot be resumed ----------------------------------------------------------------------------


def spoilt(case, folder, text, given):
    """Resume with what is not right: refused, and every file as it was."""
    file = folder / "spoilt"
    short = given | {"max_steps": 3, "epochs": 10, "checkpoint": None, "patience": None}
    fastrnn.CharRNN(**short).fit(text).save(file)
    case.draw.pick(SPOILT)(case, file, text)


def refuse(case, folder, what, call, *, optional=False):
    """A call that has to be refused, or may be."""
    case.note(what)
    case.counts.calls += 1
    before = pictures(folder)
    try:
        call()
    except (*ERRORS, OSError) as error:
        case.counts.refused += 1
        if isinstance(error, RecursionError) or not str(error).strip() or len(str(error)) > 3000:
            raise Failure(f"refused by {type(error).__name__} with {str(error)[:200]!r}") from error
        if pictures(folder) != before:
            raise Failure(f"files have changed where it was refused: {error}") from error
        return
    if not optional:
        raise Failure("was not refused")


def pictures(folder):
    """The content of each file."""
    return {file.name: file.read_bytes() if file.is_file() else None for file in folder.iterdir()}


def resumed(file, text, **params):
    return fastrnn.CharRNN.load(file, **{"checkpoint": str(file), "max_steps": 6} | params).fit(
        text, resume=True
    )


def other_text(case, file, text):
    at = case.draw.integer(0, len(text) - 1)
    longer = text[:at] + "x" + text[at:]
    changed = case.draw.pick((longer, "x" + text, text + "x", text[:5], "", text + text, swapped(text, at)))
    refuse(case, file.parent, f"resume with the text {changed!r:.60}", lambda: resumed(file, changed))


def swapped(text, at):
    """A text of the same length and characters; not with another line end, which newline= may read as that one."""
    letters = sorted(set(text) - set("\r\n"))
    at = next(i for i in (*range(at, len(text)), *range(at)) if text[i] in letters)
    other = letters[(letters.index(text[at]) + 1) % len(letters)]
    return text[:at] + other + text[at + 1 :]


def other_settings(case, file, text):
    content, _ = read_checkpoint(file)
    name = case.draw.pick(OF_RUN)
    others = {
        "hidden_size": (65, 0, -1, None, "8", 2**70), "num_layers": (4, 0, 10**6), "cell": ("relu", "", 3, None),
        "dtype": ("float16", "x", None, int), "optimizer": ("SGD", "", None), "seq_len": (10, 0, 2**70, 1.5),
        "batch_size": (7, 0, -3, 2**63), "validation_fraction": (0.2, 1.0, float("nan"), "0.1"),
        "newline": ("windows", "", 0),
    }  # fmt: skip
    value = case.draw.pick(others[name])
    if value is None and name == "dtype":
        value = "float128"
    refuse(
        case, file.parent, f"resume with {name}={value!r}, not {content['params'].get(name)!r}",
        lambda: resumed(file, text, **{name: value}),
    )  # fmt: skip


def set_afterwards(case, file, text):
    """Changed in the object, whose run stays as it is."""
    name, value = case.draw.pick((("hidden_size", 65), ("seq_len", 10), ("batch_size", 7), ("num_layers", 4)))
    model = fastrnn.CharRNN.load(file, checkpoint=str(file), max_steps=6)
    before = {name: W.tobytes() for name, W in model.last_weights_.items()}
    refuse(
        case, file.parent, f"resume after set_params({name}={value})",
        lambda: model.set_params(**{name: value}).fit(text, resume=True),
    )  # fmt: skip
    if {name: W.tobytes() for name, W in model.last_weights_.items()} != before or model.step_ != 3:
        raise Failure("weights have changed where the training was refused")


def damaged(case, file, text):
    """Cut, or with a changed byte: refused, unless it holds what it held."""
    whole, draw = file.read_bytes(), case.draw
    content = bytearray(whole)
    # (How long it is depends on the digits of how fast it was trained.)
    at = int(draw.rng.random() * min(len(content), draw.pick((64, 10**9))))
    case.note(f"a file that is damaged at {at} of {len(content)}")
    if draw.chance(0.5):
        content[at] ^= 1 << draw.integer(0, 7)
    else:
        content = content[:at] if draw.chance(0.7) else content + b"\0" * (1 + at)
    original = read_checkpoint(file)
    file.write_bytes(content)
    with contextlib.suppress(fastrnn.CheckpointError):
        changed = read_checkpoint(file)
        if bits(changed) != bits(original):
            raise Failure(f"a file that was changed at {at} reads as another one")
        return
    refuse(case, file.parent, f"resume from a file that is damaged at {at}", lambda: resumed(file, text))


def elsewhere(case, file, text):
    """No file, a folder, a text, a model of another kind."""
    draw, other = case.draw, file.with_name("other")
    way = draw.integer(0, 4)
    if way == 0:
        other.mkdir(exist_ok=True)
    elif way == 1:
        other.write_text(text, encoding="utf-8")
    elif way == 2:
        fastrnn.save(fastrnn.SimpleRNN(2, 3, 2), other)
    elif way == 3:
        other.write_bytes(b"")
    refuse(case, file.parent, f"resume from elsewhere ({way})", lambda: resumed(other, text))
    if way == 0:
        other.rmdir()
    else:
        other.unlink(missing_ok=True)


def nothing_to_resume(case, file, text):
    """What was never fitted, or last by pieces; a checkpoint in the place of the text."""
    way = case.draw.integer(0, 2)
    model = fastrnn.CharRNN(4, max_steps=2, verbose=0, checkpoint=str(file))
    if way == 1:
        model = fastrnn.CharRNN.load(file).partial_fit(text).set_params(checkpoint=str(file))
    elif way == 2:
        model = fastrnn.CharRNN.load(file, checkpoint=str(file), max_steps=9)
        text = file
    refuse(case, file.parent, f"resume where nothing is ({way})", lambda: model.fit(text, resume=True))


def other_progress(case, file, text):
    """A file that is whole, and claims to stand where its run cannot."""
    draw = case.draw
    content, arrays = read_checkpoint(file)
    arrays = {name: np.array(array) for name, array in arrays.items()}
    progress = dict(content["progress"])
    name = draw.pick(sorted(progress))
    progress[name] = draw.pick(
        (0, 1, 2, 5, 10**6, 2**62, -1, 2**70, 1.5, -1e308, 1e308, "", "fit", None, True)
    )
    file.unlink()
    refuse(
        case, file.parent, f"resume with a progress of {name}={progress[name]!r}",
        lambda: write_checkpoint(file, content | {"progress": progress}, arrays), optional=True,
    )  # fmt: skip
    if not file.exists():
        return
    model = None

    def go_on():
        nonlocal model
        model = fastrnn.CharRNN.load(file)
        model.set_params(epochs=None, max_steps=model.step_ + 2).fit(text, resume=True)

    refuse(case, file.parent, "which goes on", go_on, optional=True)


SPOILT = (
    other_text, other_settings, set_afterwards, damaged, elsewhere, nothing_to_resume, other_progress,
)  # fmt: skip
