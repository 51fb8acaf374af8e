"""Change files of models in every way that we can think of, and see what reads them.

    python testing/fuzz_files.py                        # 2000 cases
    python testing/fuzz_files.py --cases 100000 --seed 7
    python testing/fuzz_files.py --seed 7 --case 12     # one case again, and what is wrong with it

A case knows the parts of a file: the length of its header, the header's JSON, the metadata with the content and the
digest, the arrays.  It changes bits, bytes or parts; some cases are signed anew, so that the digest is right.  What has
to come of it:

- A changed file that is not signed is refused by a `CheckpointError`, or holds what it held before (blanks changed).
- A signed one is refused in the same way, or gives a model that can be shown, saved and read again.
- What is said has no control character in it, and ends.
- Nothing crashes, hangs (10 s), or takes more memory than twice the file and what Python needs for its header; a
  model that is made of it takes its largest array in float64 beyond that.

Cases run in child processes: one that dies is the fault of the case that it was at.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["FASTRNN_BACKEND"] = "numpy"  # nothing here computes

import numpy as np
import page

sys.path.append(str(page.ROOT / "tests"))

from checkpoint_files import ARRAY_NAMES, deep, header_of, mutate, signed, with_header

import fastrnn
from fastrnn.checkpoint import read_checkpoint

SECONDS = 10

#: Cases of one child.
AT_ONCE = 250

#: Memory beyond twice the file: objects of JSON take many times their text, and there are some of a fixed size.
TIMES_HEADER, BEYOND = 30, 400_000

#: Growth of the process that is its allocator's, and tracemalloc's own.
PAGES = 12 << 20

#: Longest message.
MOST_SAID = 1500

TEXT = "hello world, it is warm. " * 30

Change = Callable[[random.Random, bytes], bytes]


# -- files ---------------------------------------------------------------------------------------------


def bases(folder: Path) -> dict[str, bytes]:
    """A small file of each class, and a longer one."""
    gated = {"num_layers": 2, "bidirectional": True, "rng": 0}
    models = {
        "SimpleRNN": fastrnn.SimpleRNN(4, 5, 3, rng=0),
        "ReferenceRNN": fastrnn.ReferenceRNN(4, 5, 3, rng=0),
        "ReferenceLSTM": fastrnn.ReferenceLSTM(3, 5, rng=0),
        "RNN": fastrnn.RNN(3, 3, rng=0),
        "GRU": fastrnn.GRU(3, 5, **gated),
        "LSTM": fastrnn.LSTM(3, 5, **gated),
        "LanguageModel": fastrnn.LanguageModel(4, 5, 2, cell="gru", rng=0),
        "SequenceModel": fastrnn.SequenceModel(3, 5, 2, cell="lstm", loss="gaussian", rng=0),
        "LanguageModel, 1 MB": fastrnn.LanguageModel(100, 350, rng=0),
        "CharRNN": fastrnn.CharRNN(8, seq_len=8, batch_size=4, max_steps=20, random_state=0, verbose=0).fit(
            TEXT
        ),
    }
    x = np.random.default_rng(0).normal(size=(12, 4, 2))
    settings = {"max_steps": 3, "random_state": 0, "hidden_size": 4}
    with contextlib.suppress(ImportError):  # scikit-learn is not needed for the others
        models["RNNRegressor"] = fastrnn.RNNRegressor(**settings).fit(x, x[:, 0, 0])
        models["RNNClassifier"] = fastrnn.RNNClassifier(**settings).fit(x, np.arange(12) % 3)
    files = {}
    for name, model in models.items():
        fastrnn.save(model, folder / "made")
        files[name] = in_order((folder / "made").read_bytes())
    return files


def in_order(content: bytes) -> bytes:
    """A file that is the same in each run: safetensors draws the order of the metadata, and histories tell times."""
    header, data = header_of(content)
    metadata = header.pop("__metadata__")
    text = re.sub(r'("(?:seconds|chars_per_second)":)[^,}]+', r"\g<1>1.5", metadata["content"])
    if text != metadata["content"]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "file")
            file.write_bytes(content)
            signed(file, text, dict(sorted(read_checkpoint(file)[1].items())))
            return file.read_bytes()
    return with_header({"__metadata__": dict(sorted(metadata.items())), **header}, data)


# -- changes of bytes ----------------------------------------------------------------------------------


def place_in(rng: random.Random, content: bytes) -> int:
    """Somewhere: in the length, the header, its first characters, the data, or anywhere."""
    header = min(8 + int.from_bytes(content[:8], "little"), len(content))
    low, high = rng.choice([(0, 8), (8, header), (8, 80), (header, len(content)), (0, len(content))])
    return min(rng.randrange(low, max(high, low + 1)), len(content) - 1)


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        changed[place_in(rng, content)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(rng: random.Random, content: bytes) -> bytes:
    at, n = place_in(rng, content), rng.choice([1, 2, 4, 8, 64])
    new = rng.choice([b"\0" * n, b"\xff" * n, b" " * n, b'"' * n, b"\x1b[2J" * n, rng.randbytes(n)])[:n]
    return content[:at] + new + content[at + n :]


def truncate(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.choice([0, 1, 7, 8, 9, place_in(rng, content), len(content) - 1])]


def lengthen(rng: random.Random, content: bytes) -> bytes:
    at, n = rng.choice([place_in(rng, content), len(content)]), rng.choice([1, 4, 8, 1000])
    return content[:at] + rng.choice([rng.randbytes(n), b"\0" * n, content[:n]]) + content[at:]


def cut_out(rng: random.Random, content: bytes) -> bytes:
    at = place_in(rng, content)
    return content[:at] + content[at + rng.choice([1, 4, 8, 100]) :]


def move(rng: random.Random, content: bytes) -> bytes:
    """Two runs of bytes change places."""
    n = rng.choice([1, 4, 8, 16])
    a, b = sorted((place_in(rng, content), place_in(rng, content)))
    if b < a + n:
        return content
    return content[:a] + content[b : b + n] + content[a + n : b] + content[a : a + n] + content[b + n :]


def claim_length(rng: random.Random, content: bytes) -> bytes:
    size = len(content)
    true = int.from_bytes(content[:8], "little")
    claims = [
        0,
        1,
        2,
        true - 1,
        true + 1,
        size - 8,
        size - 7,
        size,
        2**31,
        2**32 + true,
        2**63,
        2**64 - 1,
        100_000_000,
    ]
    return rng.choice(claims).to_bytes(8, "little") + content[8:]


# -- changes of the header, not signed -----------------------------------------------------------------


def entries_of(header: dict[str, Any]) -> list[str]:
    return [name for name in header if name != "__metadata__"]


def swap_names(rng: random.Random, content: bytes) -> bytes:
    """Two arrays change names, preferably of one shape."""
    header, data = header_of(content)
    names = entries_of(header)[:50]
    alike = [(a, b) for a in names for b in names if a < b and header[a]["shape"] == header[b]["shape"]]
    a, b = rng.choice(alike) if alike else rng.sample(names, 2) if len(names) > 1 else (names[0], names[0])
    header[a], header[b] = header[b], header[a]
    return with_header(header, data)


def rename(rng: random.Random, content: bytes) -> bytes:
    header, data = header_of(content)
    header[rng.choice([*ARRAY_NAMES, *["\x1b[2J"] * 6, "\ud800", "a" * 100_000])] = header.pop(
        rng.choice(entries_of(header))
    )
    return with_header(header, data)


def reshape(rng: random.Random, content: bytes) -> bytes:
    """The same bytes as numbers of another shape."""
    header, data = header_of(content)
    entry = header[rng.choice(entries_of(header))]
    shape = entry["shape"]
    size = int(np.prod(shape))
    entry["shape"] = rng.choice(
        [shape[::-1], [size], [1, size], [size, 1], [*shape, 1], [1] * 9 + shape, [1] * 3 + shape]
    )
    return with_header(header, data)


def reinterpret(rng: random.Random, content: bytes) -> bytes:
    """The same bytes as numbers of another dtype."""
    header, data = header_of(content)
    entry = header[rng.choice(entries_of(header))]
    shape = entry["shape"]
    if entry["dtype"] == "F64":
        entry["dtype"], entry["shape"] = "F32", [*shape[:-1], 2 * shape[-1]]
    elif shape[-1] % 2 == 0:
        entry["dtype"], entry["shape"] = "F64", [*shape[:-1], shape[-1] // 2]
    else:
        entry["dtype"] = rng.choice(["I32", "U32", "BF16", "f32", "F16", "\x1b[2J", "", None, 32])
    return with_header(header, data)


def claim_sizes(rng: random.Random, content: bytes) -> bytes:
    """Shapes and places that are not those of the data."""
    header, data = header_of(content)
    entry = header[rng.choice(entries_of(header))]
    numbers = [-1, 0, 1, 3, 2**31, 2**32, 2**61, 2**62, 2**63, 2**64, 10**30, 1.0, True, None, "1", []]
    for _ in range(rng.choice([1, 1, 2])):
        where = rng.choice(["shape", "data_offsets"])
        if entry[where] and isinstance(entry[where], list):
            entry[where][rng.randrange(len(entry[where]))] = rng.choice(numbers)
        if rng.random() < 0.2:
            entry[where] = rng.choice([[], {}, None, 3, [[1]], [0] * 3, numbers])
    return with_header(header, data)


def claim_counts(rng: random.Random, content: bytes) -> bytes:
    """Many arrays, each of nothing."""
    header, data = header_of(content)
    end = max((header[name]["data_offsets"][1] for name in entries_of(header)), default=0)
    for i in range(rng.choice([1, 100, 20_001])):
        header[f"x{i}"] = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
    return with_header(header, data)


def change_metadata(rng: random.Random, content: bytes) -> bytes:
    header, data = header_of(content)
    metadata = header["__metadata__"]
    key = rng.choice([*metadata, "x"])
    new = rng.choice(
        [
            None,
            1,
            "",
            "0",
            "1",
            "2",
            "9" * 30,
            "\x1b[2J",
            "\u0661",
            [],
            {},
            True,
            metadata["sha256"].upper(),
            "a" * 64,
        ]
    )
    if rng.random() < 0.2:
        header["__metadata__"] = rng.choice([None, [], "x", {}])
    elif rng.random() < 0.2:
        metadata.pop(key, None)
    else:
        metadata[key] = new
    return with_header(header, data)


def change_content(rng: random.Random, content: bytes) -> bytes:
    """Other settings, or the same in other words, under the digest of before."""
    header, data = header_of(content)
    metadata = header["__metadata__"]
    held = json.loads(metadata["content"])
    if rng.random() < 0.3:
        metadata["content"] = json.dumps(held, indent=1)
    else:
        mutate(rng, held, {})
        metadata["content"] = json.dumps(held)
    return with_header(header, data)


def other_words(rng: random.Random, content: bytes) -> bytes:
    """The header in JSON that is odd, or none."""
    header, data = header_of(content)
    text = json.dumps(header)
    twice = text[:-1] + "," + text[1:]
    nested = rng.choice(["[", '{"a":']) * rng.choice([65, 500, 5000, 100_000])
    new = rng.choice([
        twice, text[:-1] + ', "x": ' + nested + "}", "{" + nested, text + "x", text + " " * 1000, " " + text, "{}",
        text.replace(" ", ""), json.dumps(header, indent=1), "\ufeff" + text, text.replace('"shape"', '"shape": [1], "shape"'),
        text[:-1] + ', "x": NaN}', text[:-1] + ', "x": ' + "9" * 5000 + "}", text[:-1] + ', "\\u001b[2J": 1}', "{" + "\0" * 50,
        text[:-1] + f', "x": {json.dumps(deep(80))}' + "}", "[" + text + "]", text[:-1] + "/**/}",
    ])  # fmt: skip
    odd = new.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        odd = odd[:-1] + b', "\xff\xfe": 1}'
    return with_header(odd, data)


BYTES: tuple[Change, ...] = (flip_bits, overwrite, truncate, lengthen, cut_out, move, claim_length)
HEADER: tuple[Change, ...] = (
    swap_names, rename, reshape, reinterpret, claim_sizes, claim_counts, change_metadata, change_content, other_words,
)  # fmt: skip


def change_some(rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """Bytes, or up to three things in the header; the first one's name, and the changed file."""
    if rng.random() < 0.5:
        change = rng.choice(BYTES)
        return named(change), change(rng, content)
    changes = rng.sample(HEADER, rng.choice([1, 1, 2, 3]))
    for change in changes:
        try:
            content = change(rng, content)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            break  # the one before has left no header to change
    return named(changes[0]), content


def named(change: Change) -> str:
    return change.__name__.replace("_", " ")


# -- signed files --------------------------------------------------------------------------------------


def sign(rng: random.Random, content: bytes, folder: Path) -> bytes:
    """Other content and arrays, under a digest that is right."""
    (folder / "whole").write_bytes(content)
    held, arrays = read_checkpoint(folder / "whole")
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        mutate(rng, held, arrays)
    try:
        text = json.dumps(held)
    except (ValueError, RecursionError):  # a whole number of more digits than Python writes
        text = "{}"
    chance = rng.random()
    if chance < 0.1:
        text = rng.choice(
            [
                "",
                "null",
                "[]",
                "3",
                "{",
                "\x1b[2J",
                '{"class": "RNN", "class": "GRU"}',
                "[" * 5000,
                "9" * 6000,
            ]
        )
    elif chance < 0.15:
        odd = rng.choice(["1e999", "[" * 70 + "]" * 70, "NaN", json.dumps("\x1b[2J" * 9)])
        text = text[:-1] + f', "x": {odd}' + "}"
    elif chance < 0.25:
        for name in ("hidden_size", "num_layers", "input_size", "vocab_size", "output_size"):
            number = rng.choice(["10000000", "", "1e9"])
            text = text.replace(f'"{name}": ', f'"{name}": {number}', 1)
    if rng.random() < 0.05:
        arrays |= {f"x{i}": np.zeros(0, "f4") for i in range(rng.choice([1, 20_001]))}
    signed(folder / "signed", text, arrays)
    return (folder / "signed").read_bytes()


# -- memory --------------------------------------------------------------------------------------------


class Resident:
    """How much the process grows from now on at its peak, beyond what is of no account.

    Python does not see what safetensors takes, the system does, in whole pages; zero where it does not tell.
    """

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is what there is now
        self._before = self._peak()

    @staticmethod
    def _peak() -> int:
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii")
        except OSError:
            return 0
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])

    def grown(self) -> int:
        return max(self._peak() - self._before - PAGES, 0)


# -- a case --------------------------------------------------------------------------------------------


class Case:
    """Number K of a seed: a file that was changed, and what has to come of it."""

    def __init__(self, files: dict[str, bytes], seed: int, number: int, folder: Path) -> None:
        self.folder = folder
        rng = random.Random(f"{seed} {number}")
        weights = [0.6 if "MB" in name else 1 for name in files]
        self.base = rng.choices(list(files), weights)[0]
        self.before = files[self.base]
        self.signed = rng.random() < 0.4
        if self.signed:
            self.kind, self.content = "signed", sign(rng, self.before, folder)
        else:
            self.kind, self.content = change_some(rng, self.before)

    def run(self) -> tuple[str, str]:
        """Read it.  ``("refused" | "unchanged" | "taken", "")``; or ``("wrong", what)``."""
        path = self.folder / "file"
        path.write_bytes(self.content)
        if not self.signed and (wrong := self._compare(path)):
            return "wrong", wrong
        resident = Resident()
        tracemalloc.start()
        try:
            model = fastrnn.load(path)
        except fastrnn.CheckpointError as error:
            return self._refused(str(error), max(tracemalloc.get_traced_memory()[1], resident.grown()))
        except Exception as error:
            return "wrong", f"{type(error).__name__}: {str(error)[:300]!r}"
        else:
            peak = max(tracemalloc.get_traced_memory()[1], resident.grown())
        finally:
            tracemalloc.stop()
        wrong = self._memory(peak, self._largest_array(path)) or (
            self._use(model) if self.signed else self._compare(path)
        )
        return ("wrong", wrong) if wrong else ("taken" if self.signed else "unchanged", "")

    def _largest_array(self, path: Path) -> int:
        """Bytes of its first values, which are drawn in float64."""
        return max((W.size * 8 for W in read_checkpoint(path)[1].values()), default=0)

    def _memory(self, peak: int, more: int = 0) -> str:
        header = min(int.from_bytes(self.content[:8], "little"), len(self.content))
        most = 2 * len(self.content) + more + TIMES_HEADER * header + BEYOND
        return f"took {peak} bytes of memory, the file has {len(self.content)}" if peak > most else ""

    def _refused(self, said: str, peak: int) -> tuple[str, str]:
        if not said.isprintable() or not 0 < len(said) < MOST_SAID:
            return "wrong", f"said {said!r}"
        wrong = self._memory(peak)
        return ("wrong", wrong) if wrong else ("refused", "")

    def _compare(self, path: Path) -> str:
        """A file that is not signed and can be read holds what it held, whatever a model says to it."""
        (self.folder / "before").write_bytes(self.before)
        try:
            content, arrays = read_checkpoint(path)
        except fastrnn.CheckpointError:
            return ""
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:300]!r}"
        same, kept = read_checkpoint(self.folder / "before")
        if content != same or sorted(arrays) != sorted(kept):
            return "a change of the content was accepted"
        for name, W in kept.items():
            if (W.dtype, W.shape, W.tobytes()) != (
                arrays[name].dtype,
                arrays[name].shape,
                arrays[name].tobytes(),
            ):
                return f"a change of {name} was accepted"
        return ""

    def _use(self, model: Any) -> str:
        """A model of a signed file can be shown, saved and read again."""
        again = self.folder / "again"
        again.unlink(missing_ok=True)
        try:
            if not repr(model).replace("\n", "").isprintable():
                return f"it shows itself as {repr(model)[:200]!r}"
            fastrnn.save(model, again)
            fastrnn.load(again)
        except Exception as error:
            return f"taken, and then {type(error).__name__}: {str(error)[:300]!r}"
        return ""


# -- the program ---------------------------------------------------------------------------------------


def limit_memory() -> None:
    """What a file claims must not be asked for: half a gigabyte more is an error."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + 2**29
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def run_cases(
    files: dict[str, bytes], seed: int, numbers: range, at: mmap.mmap, pipe: IO[str], folder: Path
) -> None:
    """In a child: cases, and a line for each of what came of it."""
    limit_memory()
    for number in numbers:
        at[:8] = number.to_bytes(8, "little")
        signal.alarm(SECONDS)
        case = Case(files, seed, number, folder)
        how, what = case.run()
        signal.alarm(0)
        wrong = f"seed {seed} case {number} ({case.base}, {case.kind}): {what}" if what else ""
        print(json.dumps([f"{'signed, ' * case.signed}{how}", case.kind, wrong]), file=pipe, flush=True)


def in_child(files: dict[str, bytes], seed: int, numbers: range, folder: Path) -> tuple[list[list[str]], int]:
    """The same in a process of its own, which may die: what came of each case, and the next one's number."""
    at = mmap.mmap(-1, 8)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                run_cases(files, seed, numbers, at, pipe, folder)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = [json.loads(line) for line in pipe]
    _, status = os.waitpid(child, 0)
    if not status:
        return told, numbers.stop
    number = int.from_bytes(at[:8], "little")
    died = signal.Signals(status & 127).name if status & 127 else f"status {status >> 8}"
    how = f"took more than {SECONDS} s" if died == "SIGALRM" else f"died of {died}"
    return [*told, ["wrong", "", f"seed {seed} case {number}: {how}"]], number + 1


def main() -> int:
    parser = page.parser(__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="this one alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        files = bases(folder)
        for content in files.values():  # imports, and what is made once
            (folder / "file").write_bytes(content)
            fastrnn.load(folder / "file")
        first = 0 if options.case is None else options.case
        end = options.cases if options.case is None else first + 1
        if options.case is not None:
            case = Case(files, options.seed, first, folder)
            print(case.base, case.kind, case.content[:3000], sep="\n")
        ended: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        wrong: list[str] = []
        while first < end:
            told, first = in_child(files, options.seed, range(first, min(first + AT_ONCE, end)), folder)
            for how, kind, what in told:
                ended[how] += 1
                kinds[kind] += 1
                if what:
                    wrong.append(what)
                    print(what, flush=True)
    print(", ".join(f"{number} {name}" for name, number in sorted(kinds.items())))
    print(", ".join(f"{number} {how}" for how, number in sorted(ended.items())))
    cases = sum(ended.values())
    print(f"{cases} cases in {time.monotonic() - began:.0f} s, {len(wrong)} wrong (seed {options.seed})")
    if options.write:
        columns = ["refused", "unchanged", "signed, refused", "signed, taken"]
        row = [cases, len(kinds), *(ended[name] for name in columns), len(wrong)]
        page.write("fuzz_files", page.table(["cases", "kinds of change", *columns, "wrong"], [row], left=0))
    return bool(wrong) or cases == 0


if __name__ == "__main__":
    sys.exit(main())
