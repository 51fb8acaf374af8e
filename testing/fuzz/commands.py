"""The command line: commands with right options, whose results are those of the library, and with spoilt ones."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import tempfile
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from click.testing import CliRunner

import fastrnn
from fastrnn.checkpoint import read_checkpoint
from fastrnn.cli import main
from fastrnn.terminal import decimals
from fuzz.case import SANITIZED
from fuzz.compare import Failure, bits

#: Of which the texts are made.
ALPHABETS = ("ab", "abcdefgh \n", "a\r\nb", "aäß€😀\u0301", "abc'\"\\ \t", "ab\x1b\x07\u202e\0")

#: Characters of a message beyond those that were typed.
LONGEST = 3000


@dataclass
class Command:
    """What is typed: the name of a command, files, options with their values (None for a flag), and input."""

    name: str
    files: list[str]
    options: list[tuple[str, str | None]] = field(default_factory=list)
    given: bytes = b""
    #: At the end of it all: what keeps a training short.
    short: tuple[str, ...] = ()

    def arguments(self):
        options = [part for option in self.options for part in option if part is not None]
        return [self.name, *self.files, *options, *self.short]


def run(case):
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        _run(case, Path(folder))


def _run(case, folder):
    draw = case.draw
    alphabet = draw.pick(ALPHABETS)
    text = "".join(draw.pick(alphabet) for _ in range(draw.integer(30, 200))) + alphabet
    write_files(draw, folder, text)
    trained(case, folder)
    for _ in range(draw.integer(1, 3)):
        draw.pick((sampled, sampled, evaluated, evaluated, described, diagnosed))(case, folder, text)
    for _ in range(draw.integer(3, 7)):
        spoilt(case, folder, text)


def write_files(draw, folder, text):
    """The text, and files that are no texts or no models."""
    others = {
        "text": text.encode(), "empty": b"", "one": b"a", "same": b"aaaa", "latin": "café au lait ".encode("latin-1") * 5,
        "binary": draw.rng.bytes(100), "null": b"ab\0\0ab" * 20, "utf16": text.encode("utf-16"),
        "mark": "\ufeff".encode(), "cut": "aä".encode()[:-1], "marked": b"\xef\xbb\xbf" + text.encode(),
        "name \x1b[2J\n\u202e": b"ab" * 30, "json": b"{}", "line": b"\n",
    }  # fmt: skip
    for name, content in others.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    fastrnn.save(fastrnn.SimpleRNN(2, 3, 2, rng=0), folder / "simple")


# -- right ones ------------------------------------------------------------------------------------------


def train_options(draw, backend):
    """Options of a short training, as pairs."""
    options = {
        "--hidden-size": draw.size(17), "--cell": draw.pick(("rnn", "gru", "lstm")),
        "--num-layers": draw.pick((1, 1, 2)), "--dtype": draw.pick(("float32", "float64")),
        "--seq-len": draw.integer(1, 12), "--batch-size": draw.integer(1, 9), "--lr": draw.pick((0.01, 0.002)),
        "--optimizer": draw.pick(("sgd", "momentum", "adagrad", "rmsprop", "adam")),
        "--random-state": draw.seed(), "--max-steps": draw.integer(1, 6), "--backend": backend,
    }  # fmt: skip
    more = {
        "--lr-decay": 0.9, "--clip": draw.pick(("norm", "value", "none")), "--clip-threshold": 0.5,
        "--validation-fraction": draw.pick((0.0, 0.2)), "--validate-every": draw.pick((1, 2, "none")),
        "--unknown": draw.pick(("skip", "none")), "--newline": draw.pick(("universal", "none")),
        "--checkpoint-every": draw.pick((1, 3, "none")), "--diagnostics-every": draw.pick((1, "none")),
        "--dropout": draw.pick((0.0, 0.0, 0.3)), "--epochs": 2,
    }  # fmt: skip
    options |= {name: value for name, value in more.items() if draw.chance(0.3)}
    return [(name, str(value)) for name, value in options.items()]


def trained(case, folder):
    """Train a model, and the same one again by the library or by another command."""
    draw = case.draw
    options = train_options(draw, case.backend)
    command = Command("train", ["text"], [*options, ("--out", "model")])
    if draw.chance(0.3):
        command = replace(command, files=["-"], given=(folder / "text").read_bytes())
    right(case, folder, command)
    want = of_file(folder / "model")
    way = draw.integer(0, 2 if int(dict(options)["--max-steps"]) > 1 else 1)
    case.counts.compared += 1
    if way == 0:
        params = {name[2:].replace("-", "_"): value_of(value) for name, value in options}
        case.note(f"CharRNN({params}).fit")
        fastrnn.CharRNN(**params, verbose=0).fit(folder / "text").save(folder / "other")
    elif way == 1:
        threads = draw.pick(("1", "2", "3"))
        again = replace(command, options=[*options, ("--out", "other"), ("--num-threads", threads)])
        right(case, folder, again)
    else:
        first = [(name, "1" if name == "--max-steps" else value) for name, value in options]
        right(case, folder, replace(command, options=[*first, ("--out", "other")]))
        rest = [("--out", "other"), ("--resume", None), ("--max-steps", dict(options)["--max-steps"])]
        right(case, folder, replace(command, options=rest))
    got = of_file(folder / "other")
    if way == 2:  # the validation at the limit counts
        for arrays in (got, want):
            for name in [name for name in arrays if name.startswith(("best.", "start.best"))]:
                del arrays[name]
    if bits(got) != bits(want):
        raise Failure(f"another training has come to other weights ({way})")


def value_of(text):
    """A value of an option as the library takes it."""
    if text == "none":
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def of_file(file):
    return {name: np.array(array) for name, array in sorted(read_checkpoint(file)[1].items())}


def sampled(case, folder, text):
    """`sample` writes what `generate` gives."""
    draw = case.draw
    command, given, prompt = sample_command(draw, text.replace("\0", ""))
    done = right(case, folder, command)
    samples = fastrnn.CharRNN.load(folder / "model").generate(prompt=prompt, **given)
    samples = [samples] if isinstance(samples, str) else samples
    case.counts.compared += 1
    flags = {name for name, value in command.options if value is None}
    if "--json" in flags:
        if json.loads(done.stdout) != {"prompt": prompt, "samples": samples}:
            raise Failure(f"sample writes {done.stdout!r}, generate gives {samples!r}")
        return
    echo = "" if "--no-echo" in flags else prompt
    want = f"\n{'-' * 72}\n".join(echo + sample for sample in samples).encode()
    if done.stdout_bytes != want:
        raise Failure(f"sample writes {done.stdout_bytes!r}, generate gives {want!r}")


def sample_command(draw, text):
    """A command, and the settings and the prompt that `generate` takes in its place."""
    at = draw.integer(0, len(text) - 1)
    prompt, stop = text[at : at + draw.integer(0, 6)], text[at : at + 2] if draw.chance(0.2) else None
    given = {
        "n": draw.integer(0, 30), "temperature": draw.pick((1.0, 0.5, 0.0, 3.0)), "top_k": draw.pick((None, 2)),
        "top_p": draw.pick((None, 0.8)), "random_state": draw.seed(), "num_samples": draw.pick((1, 1, 3)),
    }  # fmt: skip
    options = [(f"--{name.replace('_', '-')}", str(value).lower()) for name, value in given.items()]
    options[0] = ("--length", str(given["n"]))
    given["stop"] = () if stop is None else (stop,)
    escaped = draw.chance(0.3)
    spell = escapes if escaped else str
    options += [("--escapes", None)] * escaped + [("--stop", spell(s)) for s in given["stop"]]
    typed = b""
    if draw.chance(0.2):
        options.append(("--prompt", "-"))
        typed = prompt.encode()
    elif prompt or draw.chance(0.5):
        options.append(("--prompt", spell(prompt)))
    options += [(flag, None) for flag in ("--no-echo", "--json") if draw.chance(0.3)]
    return Command("sample", ["model"], options, typed), given, prompt


def escapes(text):
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}
    return "".join(short.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in text)


def evaluated(case, folder, text):
    """`eval` shows the figures of `score`."""
    draw = case.draw
    (folder / "part").write_bytes(text[: draw.integer(4, len(text))].encode())
    files = draw.pick((["text"], ["part"], ["part", "text"], ["-"]))
    weights = draw.pick((None, "last"))
    options = [("--weights", weights)] * (weights is not None) + [("--json", None)] * draw.chance(0.5)
    given = (folder / "part").read_bytes() if files == ["-"] else b""
    done = right(case, folder, Command("eval", ["model", *files], options, given))
    model = fastrnn.CharRNN.load(folder / "model")
    nats = -model.score([folder / ("part" if name == "-" else name) for name in files])
    case.counts.compared += 1
    if ("--json", None) in options:
        got = json.loads(done.stdout)
        if got["nats_per_char"] != nats or not math.isclose(got["perplexity"], math.exp(nats)):
            raise Failure(f"eval gives {got}, score {nats!r}")
    else:
        shown = re.findall(r"^(?:nats|bits|perplexity).*?  +(\S+)", done.stdout, re.MULTILINE)
        want = [decimals(value, 4) for value in (nats, nats / math.log(2), math.exp(nats))]
        if shown[:2] != want[:2] or not math.isclose(float(shown[2]), math.exp(nats), abs_tol=1e-4):
            raise Failure(f"eval shows {shown}, wanted {want}")


def described(case, folder, text):
    """`info` knows the model."""
    done = right(case, folder, Command("info", ["model"], [("--json", None)]))
    got, model = json.loads(done.stdout), fastrnn.CharRNN.load(folder / "model")
    case.counts.compared += 1
    want = {"steps": model.step_, "epochs": model.epoch_, "vocabulary": "".join(model.vocabulary_.characters),
            "parameters": sum(W.size for W in model.model_.parameters.values())}  # fmt: skip
    if {name: got[name] for name in want} != want:
        raise Failure(f"info says {got}, wanted {want}")
    right(case, folder, Command("info", ["model"]))


def diagnosed(case, folder, text):
    """A report, or one line that says why there is none."""
    given = text.encode()
    command = Command("diagnose", ["model", case.draw.pick(("text", "-"))], [("--json", None)], given)
    first, second = (called(case, folder, command) for _ in range(2))
    if (first.stdout, first.exit_code) != (second.stdout, second.exit_code):
        raise Failure("the same command twice gives other output")


def right(case, folder, command):
    """A command that has to end well, and to say the same when it is called once more."""
    done = called(case, folder, command)
    if done.exit_code:
        raise Failure(f"status {done.exit_code}: {done.stderr}")
    if command.name != "train" and called(case, folder, command).stdout_bytes != done.stdout_bytes:
        raise Failure("the same command twice gives other output")
    return done


# -- spoilt ones -----------------------------------------------------------------------------------------

#: What is no number, no name and no word that an option takes, mostly.  (A process gets no null characters, and
#: no other halves of surrogate pairs than those of bytes that are no UTF-8.)
JUNK = (
    "", " ", "0", "-1", "1", "2", "1.5", "nan", "inf", "-inf", "1e400", "1e-400", "-0.0", "1_0", "١", "٣.٥",
    "none", "None", "NONE", "true", "text", "\x1b[2J", "a\nb", "\u202eb", "\x07", "é", "😀", "\udcff", "\udc80a",
    "-", "--", "-x", "--json", "=", "0x10", "9" * 400, str(2**31), str(2**63), str(2**64), "1" + "0" * 5000,
    "x" * 900, "\x1b" * 300, "é" * 900, "\\", "\\x", "\\ud800", "\\U00110000", "%s", "{0}", "'", '"', "*", "~", "$HOME",
    "skip", "universal", "best", "last", "gru", "adam", "norm", "float32", "numpy", "1e308", "1e-320", "+1", " 3 ",
)  # fmt: skip

#: Names of files; no device, which a fault would replace.
FILES = (
    "", " ", ".", "..", "folder", "missing", "missing/model", "text/model", "text", "empty", "one", "same", "latin",
    "binary", "null", "utf16", "mark", "cut", "marked", "name \x1b[2J\n\u202e", "json", "line", "simple", "model",
    "model.previous", "damaged", "x" * 300, "x" * 900, "\udcff", "é", "-", "--", "new\x07\u202e",
)  # fmt: skip

#: Options whose large values are right and take long or much memory.
LIMITED = ("--hidden-size", "--num-layers", "--length", "-n", "--num-samples", "--sample-length", "--seconds",
           "--max-steps")  # fmt: skip

#: Wrong places of a picture.
PICTURES = () if SANITIZED else ("--plot=x.txt", "--plot=folder", "--plot=missing/x.png", "--plot=")

#: Flags and options with their short names and what they are often mistaken for.
STRAYS = (
    *PICTURES,
    "--nonsense", "--lern", "-Z", "--hidden", "--temp", "-", "--", "--json", "--help=1", "--json=1", "-n", "-t",
    "--out", "--resume", "--force", "--sync-every", "--verbose", "--quiet", "-vq", "--weights=best",
    "--no-echo", "--escapes", "--completion", "-h", "--\x1b", "--\x07", "-\x1b", "--a\nb",
    "--\udcff", "--" + "x" * 900, "-\n", "extra", "",
)  # fmt: skip

#: Wrong usage alone: these two take long where it is right.
LONG = {
    "bench": ("--hidden-size", "--seq-len", "--seconds", "--dtype", "--backend"),
    "demo": ("--seconds", "--max-steps", "--hidden-size", "--lr", "--dtype", "--backend", "--random-state"),
}
NO_NUMBER = tuple(
    value
    for value in JUNK
    if not re.fullmatch(r"[-+\d._e\s٠-٩]+", value) and value not in ("float32", "numpy")
)


def spoilt(case, folder, text):
    """A command with something wrong in it: it ends as it should, and well or without a trace."""
    command = draw_command(case.draw, case.backend, text)
    way = case.draw.rng.random()
    if way < 0.2 and command.name != "train":
        damaged(case, folder, command)
    elif way < 0.27:
        too_long(case, folder)
    elif way < 0.36:
        no_command(case, folder)
    else:
        arguments = None
        for _ in range(case.draw.pick((1, 1, 1, 2))):
            command, arguments = spoil(case.draw, command)
        called(case, folder, command, arguments)


def draw_command(draw, backend, text):
    kind = draw.pick(("train", "train", "sample", "sample", "eval", "info", "diagnose"))
    text = text.replace("\0", "")
    if kind == "train":
        place = draw.pick((("--resume", None), ("--force", None), None))
        options = [("--out", "model" if place else draw.pick(("model", "new")))]
        options += [place] if place else []
        # With --resume only what may change.
        if place != ("--resume", None):
            options += train_options(draw, backend)
        else:
            options += [("--max-steps", "9"), ("--lr", "0.01")]
        files = draw.pick((["text"], ["-"], ["text", "text"]))
        return Command("train", files, options, text.encode(), ("--max-steps", "4"))
    if kind == "sample":
        return sample_command(draw, text)[0]
    if kind == "eval":
        options = [
            ("--unknown", "skip"),
            ("--weights", "last"),
            ("--newline", "universal"),
            ("--backend", backend),
        ]
        files = ["model", draw.pick(("text", "-"))]
        return Command("eval", files, [o for o in options if draw.chance(0.4)], text.encode())
    if kind == "info":
        return Command("info", ["model"], [("--json", None)] * draw.chance(0.3))
    return Command("diagnose", ["model", draw.pick(("text", "-"))], [], text.encode())


def spoil(draw, command):
    """The command with one thing changed; and the arguments, where these are no longer its own."""
    way = draw.integer(0, 7)
    options, files = list(command.options), list(command.files)
    at = draw.integer(0, len(options) - 1) if options else 0
    if way <= 2 and options:
        name, value = options[at]
        if value is not None:
            options[at] = (name, junk(draw, name))
        short = ("--epochs", "1") if name == "--max-steps" else command.short
        command = replace(command, options=options, short=short if command.short else ())
    elif way == 3 and files:
        files[draw.integer(0, len(files) - 1)] = draw.pick(FILES)
        command = replace(command, files=files)
    elif way == 4 and options:
        if draw.chance(0.5):
            del options[at]
        else:
            options.append((options[at][0], junk(draw, options[at][0])))
        command = replace(command, options=options)
    elif way == 5:
        command = replace(
            command, given=draw.pick((b"", b"a", b"\xff\xfe", b"ab\0" * 9, b"\xef\xbb\xbf", b"x" * 99))
        )
    elif way == 6:
        command = replace(
            command, files=draw.pick(([], files[:-1], [*files, "text"], files[::-1], ["-", "-"]))
        )
    else:
        options.insert(at, (draw.pick(STRAYS), None))
        command = replace(command, options=options)
    arguments = command.arguments()
    if draw.chance(0.1) and options:  # in one word
        arguments = [command.name, *command.files]
        arguments += [name if value is None else f"{name}={value}" for name, value in command.options]
        arguments += command.short
    return command, arguments


def junk(draw, name):
    """A wrong value of an option, with which nothing takes long."""
    if name in ("--out", "-o"):
        return draw.pick(FILES)
    value = draw.pick(JUNK)
    if name in LIMITED:
        with contextlib.suppress(ValueError, OverflowError):
            if not -1e9 < float(value) < 50:
                return "-1"
        if value.lower() == "none":
            return "-1"
    return value


def damaged(case, folder, command):
    """A model that is cut or has a changed bit: refused, or what it was."""
    draw = case.draw
    content = bytearray((folder / "model").read_bytes())
    # (How long it is depends on the digits of how fast it was trained.)
    at = int(draw.rng.random() * min(len(content), draw.pick((64, 3000, 10**9))))
    case.note(f"a model that is damaged at {at} of {len(content)}")
    if draw.chance(0.6):
        content[at] ^= 1 << draw.integer(0, 7)
    else:
        content = content[:at]
    (folder / "damaged").write_bytes(content)
    good = called(case, folder, command)
    bad = called(case, folder, replace(command, files=["damaged", *command.files[1:]]))
    if bad.exit_code != 1 and (bad.exit_code, bad.stdout) != (good.exit_code, good.stdout):
        raise Failure(f"a model that is damaged at {at} gives {bad.stdout!r}, the whole one {good.stdout!r}")


def too_long(case, folder):
    """`bench` and `demo` with an option that stops them at once."""
    name = case.draw.pick(list(LONG))
    option, value = case.draw.pick(LONG[name]), case.draw.pick(NO_NUMBER)
    done = called(case, folder, Command(name, [], [(f"{option}={value}", None)]))
    if done.exit_code != 2:
        raise Failure(f"status {done.exit_code}: {done.stderr}")


def no_command(case, folder):
    """What is no command; help, and the version."""
    draw = case.draw
    names = (
        "",
        "nonsense",
        "trian",
        "\x1b[2J",
        "\udcff",
        "x" * 900,
        "--nonsense",
        "-",
        "--",
        "é\nb",
        "Train",
    )
    arguments = draw.pick((
        [], [draw.pick(names)], [draw.pick(names), "text"], ["--help"], ["--version"],
        [draw.pick(("train", "sample", "eval", "info", "diagnose", "bench", "demo")), "--help"],
        ["info", "--completion"], ["train"], ["sample"], ["eval"], ["diagnose"],
    ))  # fmt: skip
    called(case, folder, Command("", []), arguments)


# -- what holds of each ----------------------------------------------------------------------------------


def called(case, folder, command, arguments=None):
    """Run a command in this process; what must hold of every one."""
    arguments = command.arguments() if arguments is None else arguments
    case.note(f"fastrnn {[a if len(a) < 80 else f'{a[:60]}... ({len(a)})' for a in arguments]}"
              + f" < {command.given[:40]!r}" * bool(command.given))  # fmt: skip
    case.counts.calls += 1
    before = files(folder)
    done = CliRunner().invoke(main, arguments, input=command.given, env={"COLUMNS": "80"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise Failure("".join(traceback.format_exception(done.exception)))
    if done.exit_code not in (0, 1, 2):
        raise Failure(f"status {done.exit_code}: {done.stderr}")
    check_shown(done, exactly=command.name == "sample")
    after = files(folder)
    left = [name for name in after if name.endswith((".tmp", ".lock"))]
    if left:
        raise Failure(f"left behind: {left}")
    if done.exit_code:
        case.counts.refused += 1
        check_message(done, arguments)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    # Of a training that diverges the last state that was finite is kept.
    if command.name == "train" and (not done.exit_code or "the training diverged" in done.stderr):
        changed = beside_target(changed, arguments)
    if changed:
        raise Failure(f"status {done.exit_code}, and changed files: {sorted(changed)}; {done.stderr}")
    return done


def beside_target(changed, arguments):
    """Files that were changed, without those that `--out` may have named, and the ones before them."""
    named = {part.removeprefix("--out=").removeprefix("-o") for part in arguments}
    targets = {os.path.normpath(part) for part in named if part}
    return changed - targets - {f"{target}.previous" for target in targets}


def files(folder):
    """The content of each file, None for a folder."""
    return {str(f.relative_to(folder)): f.read_bytes() if f.is_file() else None for f in folder.rglob("*")}


def check_shown(done, *, exactly):
    """No control character; a sample alone is written as it is."""
    for name, content in (("error", done.stderr_bytes), ("output", b"" if exactly else done.stdout_bytes)):
        text = content.decode()
        odd = [c for c in text if c != "\n" and not c.isprintable()]
        if odd:
            raise Failure(f"standard {name} has {odd[:5]}: {text!r:.1000}")
        if "Traceback" in text:
            raise Failure(f"standard {name} has a traceback: {text}")


def check_message(done, arguments):
    """One line at the end that says what is wrong; of wrong usage the lines that it takes."""
    said = done.stderr
    if done.exit_code == 2:
        if done.stdout:
            raise Failure(f"status 2, and a result: {done.stdout!r:.500}")
        if not arguments:  # help
            return
        found = re.search(r"^Error: (?:.|\n)*\S.*\n\Z", said, re.MULTILINE)
    else:
        # Behind that of a training that diverged stands how to go on.
        found = re.search(
            r"^Error: .*\S.*\n(?:  fastrnn train .*\n|  .* train --resume .*\n)?\Z", said, re.MULTILINE
        )
        if found and said.count("Error: ") > 1 + sum(a.count("Error: ") for a in arguments):
            found = None
    if not found:
        raise Failure(f"status {done.exit_code}, and the message is {said!r:.1500}")
    typed = sum(len(a.encode("unicode_escape", "surrogatepass")) for a in arguments if len(a) > 100)
    if len(said) > LONGEST + 2 * typed:
        raise Failure(f"a message of {len(said)} characters: {said!r:.500}")
