"""One model in several threads at once: what each gets is what it gets alone, or it is refused.

Which calls meet is not repeated by the seed; what each of them has to give is.
"""

from __future__ import annotations

import copy
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np

import fastrnn
from fastrnn import diagnostics
from fuzz import files, layers, models, simple
from fuzz.case import Pair, shown
from fuzz.compare import Failure, bits
from fuzz.stacked import DTYPES

#: Seconds that all threads may take: beyond that one hangs.
PATIENCE = 60.0

#: How often threads change over, in seconds: the usual 5 ms are longer than most of the calls.
SWITCHED = 1e-5


class SharedPair(Pair):
    """A model that threads share, for what is said of it."""

    def __init__(self, own, dtype):
        self.own, self.dtype = own, np.dtype(dtype)


class Task:
    """A call, and the bits that it gives when nobody else is there."""

    def __init__(self, call, model, changes):
        self.call, self.changes, self.values = call, changes, call.values()
        self.want = self.run(copy.deepcopy(model))

    def run(self, model):
        subject = SimpleNamespace(model=model, optimizer=None)
        if self.call.prepare is not None:
            self.call.prepare(subject, self.values)
        return bits(self.call.run(subject, self.values))

    def __str__(self):
        return f"{self.call.name}({shown(self.values)})"


def run(case):
    draw = case.draw
    made = draw.pick((vanilla, layer, with_outputs))(case)
    model, readers, changers = made
    case.pair = SharedPair(model, model.dtype)
    alone = draw.chance(0.5)  # all of them read, and nobody is refused
    tasks = [Task(draw.pick(readers)(), model, changes=False) for _ in range(4)]
    if not alone:
        tasks += [Task(draw.pick(changers)(), model, changes=True) for _ in range(2)]
    for task in tasks:
        case.note(f"{'changes' if task.changes else 'reads'}: {task}")
    before = bits(files.weights(model))
    plans = [[draw.pick(tasks) for _ in range(draw.integer(2, 8))] for _ in range(draw.integer(2, 4))]
    case.note(f"{len(plans)} threads, num_threads={getattr(model, 'num_threads', 1)}")
    found, refused = together(model, plans)
    calls = sum(map(len, plans))
    case.counts.calls += calls
    case.counts.compared += calls - refused
    case.counts.refused += refused
    if found:
        raise Failure(found[0])
    if refused and alone:
        raise Failure(f"{refused} calls that read were refused, and nobody changed the model")
    if bits(files.weights(model)) != before:
        raise Failure("the weights are others now")
    for task in tasks:  # and nobody is thought to be still inside
        if task.run(model) != task.want:
            raise Failure(f"{task} gives other bits afterwards")


def together(model, plans):
    """Let each thread make its calls; what was wrong, and how many were refused."""
    found, refused, start = [], [], threading.Barrier(len(plans))

    def work(plan):
        start.wait(PATIENCE)
        for task in plan:
            try:
                got = task.run(model)
            except RuntimeError as error:
                refused.append(str(error))
                if "by another thread" not in str(error):
                    found.append(f"{task} raised RuntimeError: {error}")
            except BaseException as error:
                found.append(f"{task} raised {error!r}")
            else:
                if got != task.want:
                    found.append(f"{task} gives other bits beside other threads")

    threads = [threading.Thread(target=work, args=(plan,), daemon=True) for plan in plans]
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCHED)
    try:
        for thread in threads:
            thread.start()
        end = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
    finally:
        sys.setswitchinterval(before)
    if any(thread.is_alive() for thread in threads):
        raise Failure("a thread hangs")
    return found, len(refused)


# -- models, and makers of calls that read and that change them ----------------------------------------


def vanilla(case):
    draw, sizes = case.draw, (case.draw.size(33), case.draw.size(), case.draw.size(33))
    dtype = draw.pick(DTYPES)
    model = fastrnn.SimpleRNN(*sizes, dtype=dtype, rng=draw.seed(), backend=case.backend)

    def of_model(made):
        run = made.run
        made.run = lambda subject, given: run(subject.model, given)
        return made

    def learned():
        return of_model(simple.training(draw, "loss_and_grads", *sizes, dtype))

    def step():
        made = of_model(simple.training(draw, "train_step", *sizes, dtype))
        made.arguments["lr"] = made.arguments["lr"]._replace(value=0.0)
        return made

    readers = [learned, lambda: of_model(simple.backward(draw, None, *sizes, dtype))]
    if sizes[2] <= sizes[0]:
        readers.append(lambda: of_model(simple.sample(draw, *sizes[:2], dtype)))
    return model, readers, [step]


def layer(case):
    draw = case.draw
    kind = draw.pick((fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM))
    d, h = draw.size(33), draw.size()
    model = kind(
        d, h, draw.pick((1, 1, 2)), bidirectional=draw.chance(0.3), dtype=draw.pick(DTYPES), rng=draw.seed(),
        backend=case.backend, num_threads=draw.pick((1, 2, 3)),
    )  # fmt: skip
    pair = SimpleNamespace(own=SimpleNamespace(model=model), dtype=model.dtype)
    readers = [lambda: layers.forward(draw, pair, d, h), lambda: measured(draw, pair, d, h)]
    return model, readers, [lambda: backward(draw, pair, d, h)]


def backward(draw, pair, d, h):
    """Without the gradients in the model's attribute, which the next call may change before they are read."""
    made = layers.backward(draw, pair, d, h)
    made.run = lambda subject, given: subject.model.backward(given["grad_output"], given["grad_h_n"])
    return made


def measured(draw, pair, d, h):
    """The states as `fastrnn.diagnostics` shows them."""
    made = layers.forward(draw, pair, d, h)
    del made.arguments["lengths"]
    if not made.arguments["x"].value.size:
        return layers.forward(draw, pair, d, h)
    made.name = "hidden_states"
    made.run = lambda subject, given: diagnostics.hidden_states(
        subject.model, given["x"], given["h0"]
    ).states.copy()
    return made


def with_outputs(case):
    draw = case.draw
    kind = draw.pick((fastrnn.LanguageModel, fastrnn.SequenceModel))
    d, h = draw.size(33), draw.size()
    settings = {"cell": draw.pick(("rnn", "gru", "lstm"))}
    sizes = [d, h]
    if kind is fastrnn.SequenceModel:
        sizes.append(draw.size(17))
        settings |= {"head": draw.pick(("each", "last", "mean")), "loss": draw.pick(models.LOSSES)}
    model = kind(
        *sizes, draw.pick((1, 1, 2)), dtype=draw.pick(DTYPES), rng=draw.seed(), backend=case.backend,
        num_threads=draw.pick((1, 2, 3)), **settings,
    )  # fmt: skip
    pair = SimpleNamespace(own=SimpleNamespace(model=model), dtype=model.dtype)
    readers = [lambda: models.loss(draw, pair, "loss", d, h)]
    if kind is fastrnn.LanguageModel:
        readers.append(lambda: seeded(models.sample(draw, pair, d, h), draw))
    changers = [lambda: models.loss(draw, pair, "loss_and_grads", d, h), lambda: shaken(draw, pair, d, h)]
    return model, readers, changers


class Negated:
    """An optimizer that takes the weights far away for a moment, and back."""

    def step(self, parameters, grads):
        for _ in range(2):
            for W in parameters.values():
                np.negative(W, out=W)
            time.sleep(2e-4)


def shaken(draw, pair, d, h):
    """A training step, in the middle of which the weights are others."""
    made = models.loss(draw, pair, "loss", d, h)
    del made.arguments["reduction"]
    made.name = "train_step"

    def run(subject, given):
        given = dict(given)
        return subject.model.train_step(
            given.pop("x"), given.pop("y"), given.pop("h0"), Negated(), clip=None, **given
        )

    made.run = run
    return made


def seeded(made, draw):
    """With random numbers of its own: those of the model are for one at a time."""
    made.arguments["rng"] = made.arguments["n"]._replace(value=draw.seed(), kind="rng")
    return made
