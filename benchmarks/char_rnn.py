"""Time `CharRNN` on a text: training beside PyTorch, the notes' own settings and sampling beside the
reference loop, the first character of `fastrnn sample`, and reading a long text.

    python benchmarks/char_rnn.py --json char_rnn.json
    python benchmarks/char_rnn.py shakespeare.txt --steps 1500
    python benchmarks/char_rnn.py shakespeare.txt --only train --cell lstm

The text is the standard library's source unless a file is named.  The contenders take turns, a block of
steps at a time, from the same first weights over the same chunks in the same order; a block's time holds
everything: progress, history, and the validation at its end.  Everything runs on two threads, or on one
where there is only one core.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thread_limits import CORES, bind_to_cores, limit_threads

THREADS = min(2, CORES)
limit_threads(THREADS)
bind_to_cores(THREADS)

import numpy as np
from agreement import WrongResult
from batch_peers import TorchLoopModel, TorchModel
from installed import kind_of, why_unavailable
from problems import NAMES, SEED, WEIGHT_NAMES, reference_of
from programs import environment
from records import record, write_json
from timing import clock

from fastrnn import CharRNN, LanguageModel
from fastrnn.text.reading import index_text, read_text, standard_library_source

# Runs that go on in the same object are kept nowhere on purpose.
warnings.filterwarnings("ignore", "checkpoint is None")

#: The setting in which training is compared with PyTorch.
HIDDEN, SEQ_LEN, BATCH, LR, CLIP = 256, 64, 64, 2e-3, 5.0
HELD_OUT = 0.1

#: The notes' own, min-char-rnn's: one stream, Adagrad.
NOTES_HIDDEN, NOTES_SEQ_LEN, NOTES_LR = 100, 25, 0.1

#: Added to the root of Adagrad's sums: that of `fastrnn.optim`, for gradients of sums in place of means.
NOTES_EPS = 1e-10 * NOTES_SEQ_LEN

#: Largest difference of the mean losses of the first steps, in nats: the same work must give the same.
#: Adagrad's first steps magnify rounding errors, so there it is of few steps, and by dtype.
SAME_NATS = 0.02
NOTES_SAME_NATS, NOTES_SAME_STEPS = {"float64": 1e-4, "float32": 0.1}, 10

#: Bytes of the text that is read and indexed.
LONG_TEXT = 100_000_000

PARTS = ("train", "notes", "sample", "wait")

#: Nets that are trained beside PyTorch; everything else is of the first one.
CELLS = ("rnn", "gru", "lstm")

#: What a run measures: (of training) steps and blocks, (of the notes' settings) steps of the loop and
#: blocks, and how many times more CharRNN makes, (of sampling) characters and those of the loop, rounds.
FULL = {
    "steps": 1500,
    "blocks": 6,
    "notes": 1500,
    "notes_more": 40,
    "sample": 100_000,
    "loop": 4000,
    "rounds": 9,
}
SHORT = {
    "steps": 240,
    "blocks": 3,
    "notes": 300,
    "notes_more": 100,
    "sample": 100_000,
    "loop": 1000,
    "rounds": 3,
}


def record_mean(suite: str, contender: str, times: list[float], count: int, **more: Any) -> dict[str, Any]:
    """A record of the seconds of one of the `count` things that all `times` together made."""
    kind = "backend" if contender == "CharRNN" else kind_of(contender)
    info = {"suite": suite, "kind": kind, "contender": contender, "threads": THREADS, **more}
    return record(f"{suite}[{contender}]", info | {"seconds": sum(times) / count}, times)


# -- training beside PyTorch -----------------------------------------------------------------------


class TorchTrainer:
    """What a user of PyTorch writes for the same: Adam, the gradients' norm clipped, state carried,
    history, a progress bar, validation over parallel streams."""

    def __init__(
        self, model_class: type, weights: dict[str, np.ndarray], indices: np.ndarray, first: int
    ) -> None:
        self._model = model_class(weights, THREADS)
        torch = self._torch = self._model.torch
        self._optimizer = torch.optim.Adam(self._model.parameters, lr=LR, fused=True)
        length = (first - 1) // BATCH
        rows = indices[: BATCH * length + 1].astype(np.int64)
        self._x = torch.from_numpy(np.ascontiguousarray(rows[:-1].reshape(BATCH, length).T))
        self._y = torch.from_numpy(np.ascontiguousarray(rows[1:].reshape(BATCH, length).T))
        held_out = indices[first - 1 :].astype(np.int64)
        length = (len(held_out) - 1) // BATCH
        self._valid = [
            torch.from_numpy(np.ascontiguousarray(a[: BATCH * length].reshape(BATCH, length).T))
            for a in (held_out[:-1], held_out[1:])
        ]
        self._step, self.history, self._losses = 0, [], []
        self._start()

    def _start(self) -> None:
        self._h = self._zeros()

    def _zeros(self) -> Any:
        rows, h = self._model.parameters[1].shape
        states = [self._torch.zeros(1, BATCH, h) for _ in range(2 if rows == 4 * h else 1)]
        return tuple(states) if len(states) > 1 else states[0]

    def train(self, steps: int) -> None:
        """Take `steps` steps, then validate."""
        from tqdm import tqdm

        torch, model = self._torch, self._model
        an_epoch = len(self._x) // SEQ_LEN
        for _ in tqdm(range(steps), unit="step", mininterval=10.0):
            at = self._step % an_epoch
            if not at:
                self._start()
            chunk = slice(at * SEQ_LEN, (at + 1) * SEQ_LEN)
            loss, h_n = model.loss(self._x[chunk], self._y[chunk], self._h)
            self._optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters, CLIP)
            self._optimizer.step()
            self._h = tuple(h.detach() for h in h_n) if isinstance(h_n, tuple) else h_n.detach()
            self._step += 1
            self._losses.append(loss.item())
        self.history.append(
            {"step": self._step, "train_nats": float(np.mean(self._losses)), "valid_nats": self._validate()}
        )
        self._losses = []

    def _validate(self, steps: int = 256) -> float:
        total, (x, y) = 0.0, self._valid
        with self._torch.inference_mode():
            h = self._zeros()
            for begin in range(0, len(x), steps):
                loss, h = self._model.loss(x[begin : begin + steps], y[begin : begin + steps], h)
                total += loss.item() * len(x[begin : begin + steps])
        return total / len(x)

    def weights(self) -> dict[str, np.ndarray]:
        """Under `LanguageModel`'s names."""
        return {n: W.detach().numpy().copy() for n, W in zip(NAMES, self._model.parameters, strict=True)}


def training(text: str, steps: int, blocks: int, cell: str = "rnn") -> tuple[CharRNN, list[dict[str, Any]]]:
    """Train ours and PyTorch's in turn; the trained model, and a record for each."""
    ours = CharRNN(
        HIDDEN,
        seq_len=SEQ_LEN,
        batch_size=BATCH,
        optimizer="adam",
        lr=LR,
        clip="norm",
        clip_threshold=CLIP,
        validation_fraction=HELD_OUT,
        epochs=None,
        dtype="float32",
        random_state=SEED,
        num_threads=THREADS,
        cell=cell,
    )
    indexed = index_text(text)
    indices, q = indexed.indices, len(indexed.vocabulary)
    first = len(indices) - round(len(indices) * HELD_OUT)
    # CharRNN begins with the weights that this gives.
    start = LanguageModel(q, HIDDEN, cell=cell, dtype="float32", rng=SEED).state_dict()
    torch_trainer = _fastest_torch(start, indices, first)
    block = steps // blocks
    times: dict[str, list[float]] = {"CharRNN": []}
    if torch_trainer is not None:
        times["torch"] = []
    for i in range(blocks):
        ours.max_steps = (i + 1) * block
        times["CharRNN"].append(clock(lambda i=i: ours.fit(text, resume=i > 0))[0])
        if torch_trainer is not None:
            times["torch"].append(clock(lambda: torch_trainer.train(block))[0])
    held_out = text[first - 1 :]
    nats = {"CharRNN": -ours.score(held_out)}
    if torch_trainer is not None:
        mine = np.mean([e["train_nats"] for e in ours.history_ if e["step"] <= block])
        theirs = torch_trainer.history[0]["train_nats"]
        if not abs(mine - theirs) <= SAME_NATS:
            raise WrongResult(
                f"mean losses of the first {block} steps: {mine:.3f} and PyTorch's {theirs:.3f}"
            )
        # Scored by the same function, so that the two are of the same characters.
        last = ours.last_weights_
        ours.model_.load_state_dict(torch_trainer.weights())
        nats["torch"] = -ours.score(held_out)
        ours.model_.load_state_dict(last)
    shape = {"h": HIDDEN, "T": SEQ_LEN, "N": BATCH, "dtype": "float32", "steps": blocks * block, "cell": cell}
    records = [
        record_mean("char_rnn train", name, times[name], blocks * block, nats=nats[name], **shape)
        for name in times
    ]
    return ours, records


def _fastest_torch(start: dict[str, np.ndarray], indices: np.ndarray, first: int) -> TorchTrainer | None:
    """PyTorch in the form that is the faster one here; None where it is not installed."""
    reason = why_unavailable("torch")
    if reason is not None:
        print(f"left out: {reason}", file=sys.stderr)
        return None
    gated = len(start["weight_hh_l0"]) > HIDDEN  # whose own loop would be far slower
    forms = (TorchModel,) if gated else (TorchModel, TorchLoopModel)
    times = {}
    for form in forms:
        trainer = TorchTrainer(form, start, indices, first)
        trainer.train(3)  # the library is warm after it
        if len(forms) > 1:
            times[form] = min(clock(lambda trainer=trainer: trainer.train(5))[0] for _ in range(3))
    return TorchTrainer(min(times, key=lambda f: times[f], default=forms[0]), start, indices, first)


# -- the notes' own settings, and sampling, beside the reference loop ----------------------------------


class NotesTrainer:
    """min-char-rnn's loop: `ReferenceRNN`, gradients clamped once, Adagrad in plain NumPy."""

    def __init__(self, weights: dict[str, np.ndarray], indices: np.ndarray) -> None:
        self._rnn = reference_of(weights)
        self._memory = [np.zeros_like(W) for W in self._weights()]
        self._indices = indices.tolist()
        self._position, self._h = 0, np.zeros((self._rnn.hidden_size, 1))
        self.losses: list[float] = []

        # The loop has one bias where a layer has two, as in PyTorch, which move alike.
        self._lr = [NOTES_LR, NOTES_LR, NOTES_LR, 2 * NOTES_LR, NOTES_LR]

    def _weights(self) -> list[np.ndarray]:
        return [getattr(self._rnn, name) for name in WEIGHT_NAMES]

    def train(self, steps: int) -> None:
        for _ in range(steps):
            chunk = self._indices[self._position : self._position + NOTES_SEQ_LEN + 1]
            loss, grads, self._h = self._rnn.loss_and_grads(chunk[:-1], chunk[1:], self._h, clip="value")
            for W, g, m, lr in zip(self._weights(), grads, self._memory, self._lr, strict=True):
                m += g * g
                W -= lr * g / (np.sqrt(m) + NOTES_EPS)
            self._position += NOTES_SEQ_LEN
            self.losses.append(loss / NOTES_SEQ_LEN)


def notes_settings(text: str, steps: int, more: int, dtype: str, blocks: int = 3) -> list[dict[str, Any]]:
    """CharRNN and the loop at min-char-rnn's settings, in turn; a record for each, of a character."""
    indexed = index_text(text)
    ours = CharRNN(
        NOTES_HIDDEN,
        seq_len=NOTES_SEQ_LEN,
        batch_size=1,
        optimizer="adagrad",
        lr=NOTES_LR,
        clip="value",
        # Its loss is the mean over the chunk, the loop's the sum; Adagrad takes either.
        clip_threshold=CLIP / NOTES_SEQ_LEN,
        validation_fraction=0.0,
        epochs=None,
        dtype=dtype,
        random_state=SEED,
        num_threads=THREADS,
    )
    start = LanguageModel(len(indexed.vocabulary), NOTES_HIDDEN, dtype=dtype, rng=SEED).state_dict()
    loop = NotesTrainer(start, indexed.indices[: steps * NOTES_SEQ_LEN + 1])
    block = steps // blocks
    times: dict[str, list[float]] = {"CharRNN": [], "reference": []}
    for i in range(blocks):
        ours.max_steps = (i + 1) * block * more
        times["CharRNN"].append(clock(lambda i=i: ours.fit(text, resume=i > 0))[0])
        times["reference"].append(clock(lambda: loop.train(block))[0])
    few = CharRNN(**ours.get_params() | {"max_steps": NOTES_SAME_STEPS, "verbose": 0}).fit(text)
    mine, theirs = few.history_[-1]["train_nats"], float(np.mean(loop.losses[:NOTES_SAME_STEPS]))
    if not abs(mine - theirs) <= NOTES_SAME_NATS[dtype]:
        raise WrongResult(
            f"mean losses of the first {NOTES_SAME_STEPS} steps: {mine:.4f} and the loop's {theirs:.4f}"
        )
    shape = {"h": NOTES_HIDDEN, "T": NOTES_SEQ_LEN, "N": 1, "dtype": dtype}
    return [
        record_mean("char_rnn notes", name, times[name], blocks * block * NOTES_SEQ_LEN * factor, **shape)
        for name, factor in (("CharRNN", more), ("reference", 1))
    ]


def sampling(model: CharRNN, count: int, loop_count: int, rounds: int) -> list[dict[str, Any]]:
    """One stream: characters from CharRNN, and fewer from the reference loop, in turn."""
    reference, h = reference_of(model.model_.parameters), np.zeros((HIDDEN, 1))
    times: dict[str, list[float]] = {"CharRNN": [], "reference": []}
    for i in range(rounds):
        seconds, text = clock(lambda i=i: model.generate(count, random_state=i))
        if len(text) != count:
            raise WrongResult(f"{len(text)} characters in place of {count}")
        times["CharRNN"].append(seconds)
        rng = np.random.default_rng(i)
        times["reference"].append(clock(lambda rng=rng: reference.sample(h, 0, loop_count, rng=rng))[0])
    return [
        record_mean(
            "char_rnn sample", name, times[name], each * rounds, h=HIDDEN, N=1, dtype="float32", T=count
        )
        for name, each in (("CharRNN", count), ("reference", loop_count))
    ]


# -- waiting -----------------------------------------------------------------------------------------


def first_character(model: CharRNN, rounds: int) -> Iterator[dict[str, Any]]:
    """Seconds from the start of a whole process to the first character of `fastrnn sample`."""
    if why_unavailable("cython"):
        return
    env = environment("cython")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        model.save(path)
        command = [sys.executable, "-m", "fastrnn", "sample", str(path), "--random-state", "1"]

        waited = []
        for _ in range(rounds):
            began = time.perf_counter()
            with subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.PIPE) as process:
                first = process.stdout.read(1) if process.stdout else b""
                waited.append(time.perf_counter() - began)
                process.kill()
            if not first:
                print("left out: `fastrnn sample` wrote nothing", file=sys.stderr)
                return
    info = {"suite": "char_rnn wait", "contender": "first character of `fastrnn sample`, whole process"}
    yield record(info["contender"], info, waited)


def long_text(text: str, rounds: int = 3) -> Iterator[dict[str, Any]]:
    """Seconds of reading and indexing a file of 100 MB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.txt"
        content = text.encode()
        path.write_bytes(content * (LONG_TEXT // len(content) + 1))
        os.truncate(path, LONG_TEXT)
        times = []
        for _ in range(rounds):
            seconds, indexed = clock(lambda: index_text(path))
            times.append(seconds)
            del indexed
    info = {"suite": "char_rnn wait", "contender": "reading and indexing a text of 100 MB"}
    yield record(info["contender"], info, times)


# -- the command -------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="?", help="a UTF-8 file (default: the standard library's source)")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--short", action="store_true", help="fewer steps")
    parser.add_argument("--steps", type=int, help=f"of training beside PyTorch (default {FULL['steps']})")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this (may be repeated)")
    parser.add_argument("--cell", action="append", choices=CELLS, help="likewise, of training (default: all)")
    options = parser.parse_args(arguments)
    text = read_text(options.text)[0] if options.text else standard_library_source()
    sizes = SHORT if options.short else FULL
    only = options.only or PARTS
    records: list[dict[str, Any]] = []
    trained: dict[str, CharRNN] = {}
    if "train" in only:
        for cell in options.cell or CELLS:
            trained[cell], found = training(text, options.steps or sizes["steps"], sizes["blocks"], cell)
            records += found
    if "rnn" not in trained and not {"sample", "wait"}.isdisjoint(only):
        small = CharRNN(HIDDEN, max_steps=10, random_state=SEED, num_threads=THREADS, verbose=0)
        trained["rnn"] = small.fit(text)
    if "notes" in only:
        for dtype in ("float32", "float64"):
            records += notes_settings(text, sizes["notes"], sizes["notes_more"], dtype)
    if "sample" in only:
        records += sampling(trained["rnn"], sizes["sample"], sizes["loop"], sizes["rounds"])
    if "wait" in only:
        records += first_character(trained["rnn"], sizes["rounds"])
        records += long_text(text)
    for row in records:
        info = row["extra_info"]
        if info["suite"] in ("char_rnn train", "char_rnn notes"):
            info["text"] = Path(options.text).name if options.text else "the standard library's source"
        seconds = info.get("seconds", row["stats"]["min"])
        nats = f", {info['nats']:.4f} nats" if "nats" in info else ""
        print(
            f"{info['suite']:<16} {info.get('cell', ''):<4} {info['contender']:<30} {info.get('dtype', ''):<8} {seconds:.3g} s{nats}"
        )
    if options.json:
        write_json(options.json, records)
    return 0


if __name__ == "__main__":
    sys.exit(main())
