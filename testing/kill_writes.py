"""Let every system call that writes a checkpoint fail, kill the process at each, and cut the power after each.

    python testing/kill_writes.py             # all of it, a minute or two
    python testing/kill_writes.py --write     # and its counts into docs/testing.md

Whatever happens, the file that a checkpoint is written to must be one that loads, the old one or the new one, and the
same goes for the one before it.  An error has to be an `OSError` that says what failed and leaves nothing behind, no
error of a write may be passed over, and the next save must succeed.  Linux only: ``faults.c`` is compiled and loaded
before the C library.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import page
from power_loss import Disk

PRELOADED = "FASTRNN_FAULTS"
NAME = "model"

#: As in ``faults.c``.
KINDS = ("open", "write", "fsync", "close", "rename", "link", "unlink", "fchmod", "fchown", "flock")
ANY = -1
FAIL, KILL_BEFORE, KILL_AFTER, SHORT, TORN = range(5)

#: What each call may fail with.
ERRORS = {
    "open": ("EACCES", "EMFILE", "ENOSPC", "EROFS", "EIO", "EINTR"),
    "write": ("ENOSPC", "EIO", "EDQUOT", "EFBIG", "EINTR"),
    "fsync": ("EIO", "ENOSPC", "EDQUOT", "EINVAL", "EINTR"),
    "close": ("EIO",),
    "rename": ("EACCES", "EIO", "ENOSPC", "EXDEV", "EROFS"),
    "link": ("EPERM", "EMLINK", "EACCES", "EXDEV"),
    "unlink": ("EACCES", "EIO"),
    "fchmod": ("EPERM",),
    "fchown": ("EPERM",),
    "flock": ("ENOLCK", "EWOULDBLOCK"),
}

#: A save that goes on after one of these has lost something.
NEVER_PASSED_OVER = {"write": set(ERRORS["write"]), "fsync": {"EIO", "ENOSPC", "EDQUOT"}, "rename": set(ERRORS["rename"])}  # fmt: skip


# -- what is written ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """A folder, and something that writes a checkpoint into it.

    Attributes
    ----------
    name : str
    before : dict of str to bytes
        Files that are there.
    act : callable
        Of the path of the checkpoint.
    look : callable
        Of a path: which state it holds; raises where that cannot be read.
    states, previous : tuple
        States of the checkpoint and of the one before it that are right at any time; None where there may be none.
    rules : tuple
        That always hold.
    """

    name: str
    before: dict[str, bytes]
    act: Callable[[Path], object]
    look: Callable[[Path], object]
    states: tuple[object, ...]
    previous: tuple[object, ...]
    rules: tuple[tuple[int, int, int, int, int], ...] = ()


def scenarios(folder: Path) -> Iterator[Scenario]:
    """Every way in which a checkpoint is written."""
    import fastrnn

    def write(version: int, path: Path) -> None:
        model = fastrnn.SimpleRNN(3, 2, 3, rng=0, backend="numpy")
        model.by[:] = version
        fastrnn.save(model, path)

    def version(path: Path) -> object:
        return float(fastrnn.load(path).by[0, 0])

    def content(number: int) -> bytes:
        write(number, folder / "made")
        return (folder / "made").read_bytes()

    def save(path: Path) -> None:
        write(2, path)

    new, old, older = content(2), content(1), content(0)
    no_links = ((KINDS.index("link"), 1, 1, FAIL, errno.EPERM),)
    del new
    yield Scenario("first save", {}, save, version, (None, 2), (None,))
    yield Scenario("save over a file", {NAME: old}, save, version, (1, 2), (None, 1))
    before = {NAME: old, f"{NAME}.previous": older}
    yield Scenario("save over two", before, save, version, (1, 2), (0, 1))
    yield Scenario("the same without hard links", before, save, version, (1, 2), (0, 1), no_links)

    def train(path: Path) -> None:
        if path.exists():
            model = fastrnn.CharRNN.load(path).set_params(checkpoint=path)
        else:
            model = fastrnn.CharRNN(
                4, seq_len=4, batch_size=2, max_steps=12, checkpoint_every=4, validation_fraction=0.2,
                random_state=0, backend="numpy", verbose=0, checkpoint=path,
            )  # fmt: skip
        model.fit("hello world " * 20, resume=path.exists())

    def step(path: Path) -> object:
        return fastrnn.CharRNN.load(path).step_

    train(folder / "trained")
    steps = step(folder / "trained"), step(folder / "trained.previous")
    began = (folder / "trained.previous").read_bytes()
    assert steps == (12, 8), steps
    yield Scenario("training, from the start", {}, train, step, (None, 4, 8, 12), (None, 4, 8, 12))
    yield Scenario("training that goes on", {NAME: began}, train, step, (8, 12), (None, 8, 12))


# -- one run -----------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """How a process ended that wrote under some rules."""

    killed: bool
    error: str = ""
    number: int | None = None
    calls: dict[str, int] = field(default_factory=dict)
    log: str = ""


class Faults:
    """The functions of ``faults.c``, which is loaded already."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.faults_log.restype = ctypes.c_char_p
        self._library.faults_calls.restype = ctypes.c_long

    def watch(self, folder: Path | None) -> None:
        self._library.faults_watch(b"" if folder is None else os.fsencode(folder))

    def rule(self, kind: int, at: int, forever: int, action: int, error: int) -> None:
        self._library.faults_rule(kind, ctypes.c_long(at), forever, action, error)

    def calls(self) -> dict[str, int]:
        return {name: self._library.faults_calls(kind) for kind, name in enumerate(KINDS)}

    def log(self) -> str:
        return self._library.faults_log().decode()


def run(
    faults: Faults, scenario: Scenario, folder: Path, rules: list[tuple[int, int, int, int, int]]
) -> Outcome:
    """Write in a child process, in `folder`, under the rules."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.close(reading)
        faults.watch(folder)
        for rule in (*rules, *scenario.rules):
            faults.rule(*rule)
        said = {"error": "", "number": None}
        try:
            scenario.act(folder / NAME)
        except OSError as error:
            said = {"error": str(error) or "no text", "number": error.errno}
        except BaseException as error:  # the child's last words, whatever it died of
            said = {"error": f"{type(error).__name__}: {error}", "number": None}
        told = json.dumps(said | {"calls": faults.calls(), "log": faults.log()})
        faults.watch(None)
        with os.fdopen(writing, "w") as pipe:
            pipe.write(told)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return Outcome(killed=True)
    if status or not told:
        return Outcome(killed=False, error=f"the process ended with status {status}")
    return Outcome(killed=False, **json.loads(told))


class Checker:
    """Tries a scenario in every way, and gathers what was wrong."""

    def __init__(self, faults: Faults, scenario: Scenario, work: Path) -> None:
        self.faults, self.scenario, self.work = faults, scenario, work
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def fresh(self) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self.work))
        for name, content in self.scenario.before.items():
            (folder / name).write_bytes(content)
        return folder

    def look(self, path: Path, right: tuple[object, ...], what: str) -> object:
        """The state of a file, which must be one of those that are right."""
        try:
            found = self.scenario.look(path) if path.exists() else None
        except (OSError, ValueError) as error:
            self.wrong.append(f"{what}: {path.name} cannot be loaded: {error}")
            return None
        if found not in right:
            self.wrong.append(f"{what}: {path.name} is {found}, not one of {right}")
        return found

    def look_at(self, folder: Path, what: str, previous: tuple[object, ...] = ()) -> object:
        self.look(folder / f"{NAME}.previous", self.scenario.previous + previous, what)
        return self.look(folder / NAME, self.scenario.states, what)

    def without_faults(self) -> Outcome:
        folder = self.fresh()
        outcome = run(self.faults, self.scenario, folder, [])
        if outcome.error or outcome.killed:
            raise SystemExit(f"{self.scenario.name}: failed without a fault: {outcome.error}")
        if self.look_at(folder, "without a fault") != self.scenario.states[-1]:
            self.wrong.append("without a fault: the last state is not there")
        self.power(folder, outcome)
        shutil.rmtree(folder)
        return outcome

    def power(self, folder: Path, outcome: Outcome) -> None:
        """Cut the power after each call."""
        lines = outcome.log.splitlines()
        disk, seen, least = Disk.holding(str(folder), self.scenario.before), set(), 0
        for number, line in enumerate(["nothing", *lines]):
            disk.call(line)
            ended = number == len(lines)
            if line.startswith("fsync") and not disk.changes:
                # What was there when the folder was forced to the disk does not go away again.
                least = self.scenario.states.index(self.state_of(disk.now(), "as it is"))
            for files in disk.outcomes():
                key = (least, ended, *sorted(files.items()))
                if key in seen:
                    continue
                seen.add(key)
                self.counts["power cuts"] += 1
                what = f"power cut after call {number} ({line.split(' ')[0]})"
                state = self.state_of(files, what)
                if state in self.scenario.states[:least]:
                    self.wrong.append(
                        f"{what}: {state} is there, and {self.scenario.states[least]} was on the disk"
                    )
                if ended and state != self.scenario.states[-1]:
                    self.wrong.append(f"{what}: the save had returned, and {state} is there")
        there = {file.name: file.read_bytes() for file in folder.iterdir()}
        if disk.now() != there:
            raise SystemExit(
                f"{self.scenario.name}: the folder was changed by calls that faults.c does not know"
            )

    def state_of(self, files: dict[str, bytes], what: str) -> object:
        """The state of a folder with these files."""
        there = Path(tempfile.mkdtemp(dir=self.work))
        for name, content in files.items():
            (there / name).write_bytes(content)
        state = self.look_at(there, what)
        shutil.rmtree(there)
        return state

    def one(self, rule: tuple[int, int, int, int, int], what: str) -> tuple[Outcome, object]:
        """A run under one rule, what is there after it, and a save without faults after that."""
        folder = self.fresh()
        outcome = run(self.faults, self.scenario, folder, [rule])
        state = self.look_at(folder, what)
        left = [file.name for file in folder.iterdir() if re.fullmatch(r"\..*\.tmp", file.name)]
        if left and not outcome.killed and rule[0] != KINDS.index("unlink"):
            self.wrong.append(f"{what}: left {left}")
        again = run(self.faults, self.scenario, folder, [])
        there = self.look_at(folder, f"{what}, and again", self.scenario.states)
        if again.error or again.killed or there != self.scenario.states[-1]:
            self.wrong.append(f"{what}: the next save failed: {again.error or there}")
        shutil.rmtree(folder)
        return outcome, state

    def kill(self, calls: int, writes: int) -> None:
        """Kill the process before each call, after the last one, and in the middle of each write."""
        rules = [((ANY, at, 0, KILL_BEFORE, 0), f"killed before call {at}") for at in range(1, calls + 1)]
        rules += [((ANY, calls, 0, KILL_AFTER, 0), "killed after the last call")]
        rules += [
            ((KINDS.index("write"), at, 0, TORN, 0), f"killed in write {at}") for at in range(1, writes + 1)
        ]
        for rule, what in rules:
            outcome, _ = self.one(rule, what)
            self.counts["kills"] += 1
            if not outcome.killed:
                self.wrong.append(f"{what}: it went on")

    def fail(self, kind: str, at: int, name: str, forever: int) -> None:
        """Let a call fail, and all of its kind after it if `forever`."""
        what = f"{kind} {at}{' and all after it' if forever else ''}: {name}"
        number = getattr(errno, name)
        outcome, state = self.one((KINDS.index(kind), at, forever, FAIL, number), what)
        self.counts["errors"] += 1
        if outcome.killed:
            self.wrong.append(f"{what}: the process was killed")
        elif outcome.error and (outcome.number is None or NAME not in outcome.error):
            self.wrong.append(f"{what}: {outcome.error}")
        elif not outcome.error and state != self.scenario.states[-1]:
            self.wrong.append(f"{what}: no error, and {state} is there")
        elif not outcome.error and name in NEVER_PASSED_OVER.get(kind, ()) and name != "EINTR":
            self.wrong.append(f"{what}: passed over")
        elif outcome.error and name == "EINTR":
            self.wrong.append(f"{what}: not tried again: {outcome.error}")

    def everything(self) -> None:
        calls = self.without_faults().calls
        self.counts["calls"] = sum(calls.values())
        self.kill(sum(calls.values()), calls["write"])
        for kind, number in calls.items():
            for at in range(1, number + 1):
                for name in ERRORS[kind]:
                    self.fail(kind, at, name, 0)
                    if name != "EINTR":
                        self.fail(kind, at, name, 1)
        for at in range(1, calls["write"] + 1):
            outcome, state = self.one((KINDS.index("write"), at, 0, SHORT, 0), f"half of write {at}")
            self.counts["errors"] += 1
            if outcome.error or state != self.scenario.states[-1]:
                self.wrong.append(f"half of write {at}: {outcome.error or state}")


# -- the program -------------------------------------------------------------------------------------


def preload() -> None:
    """Start again with ``faults.c`` before the C library."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if not sys.platform.startswith("linux") or compiler is None:
        raise SystemExit("this takes Linux and a C compiler")
    folder = tempfile.mkdtemp()
    library = f"{folder}/faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(source), "-o", library, "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": library, PRELOADED: folder}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def main() -> int:
    options = page.parser(__doc__).parse_args()
    if PRELOADED not in os.environ:
        preload()
    shutil.rmtree(os.environ.pop(PRELOADED))
    os.environ.pop("LD_PRELOAD")
    began, faults, rows, wrong = time.monotonic(), Faults(), [], 0
    columns = ("calls", "kills", "errors", "power cuts")
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as made:
        for scenario in scenarios(Path(made)):
            checker = Checker(faults, scenario, Path(made))
            checker.everything()
            total += checker.counts
            wrong += len(checker.wrong)
            rows.append([scenario.name, *(checker.counts[name] for name in columns), len(checker.wrong)])
            print(
                *(f"{scenario.name}: {line}" for line in checker.wrong),
                sep="\n",
                end="\n" * bool(checker.wrong),
            )
            print(
                *(f"{checker.counts[name]} {name}," for name in columns),
                f"{len(checker.wrong)} wrong:",
                scenario.name,
            )
    rows.append(["**all**", *(total[name] for name in columns), wrong])
    print(
        f"{sum(total[name] for name in columns[1:])} faults in {time.monotonic() - began:.0f} s, {wrong} wrong"
    )
    if options.write:
        page.write("kill_writes", page.table(["", *columns, "wrong"], rows))
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
