"""Pairs of layers and models: parameters, gradients and a random stream."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import numpy as np

from fuzz import files, spoils
from fuzz.case import Argument, Call, Pair, describe, pictures
from fuzz.compare import Failure, bits
from fuzz.disguises import LAYOUTS

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class StackPair(Pair):
    """A model of each kind, in the attribute `model`, and an optimizer or None."""

    def __init__(self, make, dtype, backend, threads, optimizer=None, dropout=False):
        self.dtype = np.dtype(dtype)
        # Masks are drawn in the dtype of the parameters.
        self.twin_dtype = self.dtype if dropout else np.dtype(np.float64)
        self.own = SimpleNamespace(model=make(self.dtype, backend, threads, False), optimizer=optimizer)
        self.twin = SimpleNamespace(model=make(self.twin_dtype, "numpy", 1, True), optimizer=Nothing())

    def __repr__(self):
        model = self.own.model
        every = getattr(model, "recompute_every", None)
        settings = f"num_threads={model.num_threads} recompute_every={every} training={model.training}"
        return f"{model!r} {settings} optimizer={self.own.optimizer!r}"

    def sync(self):
        own, twin = self.own.model, self.twin.model
        twin.parameters = {
            name: np.array(W, self.twin_dtype, order="C") for name, W in own.parameters.items()
        }
        twin.rng.bit_generator.state = self._stream = own.rng.bit_generator.state
        twin.train(own.training)

    def copy(self):
        return SimpleNamespace(
            model=copy.deepcopy(self.own.model), optimizer=copy.deepcopy(self.own.optimizer)
        )

    def perturbed(self, draw, size):
        near = SimpleNamespace(model=copy.deepcopy(self.twin.model), optimizer=Nothing())
        near.model.rng.bit_generator.state = self._stream
        for W in near.model.parameters.values():
            W *= 1 + size * draw.rng.normal(size=W.shape)
        return near

    def weights(self):
        return dict(self.own.model.parameters)

    def watched(self):
        model = self.own.model
        things = {"parameters": model.parameters, "gradients": model.grads, "random stream": model.rng,
                  "mode": model.training, "norm": getattr(model, "grad_norm", None),
                  "threads": model.num_threads}  # fmt: skip
        if self.own.optimizer is not None:
            things["optimizer"] = self.own.optimizer.state_dict()
        return things

    def outcome(self, subject):
        model = subject.model
        made = {"parameters": dict(model.parameters), "grads": dict(model.grads)}
        if subject.optimizer is not None:
            made["optimizer"] = subject.optimizer.state_dict()["state"]
        made["stream"] = str(model.rng.bit_generator.state)
        return made

    def keep(self):
        model, optimizer = self.own.model, self.own.optimizer
        parameters = {name: W.copy() for name, W in model.parameters.items()}
        state, training = optimizer and optimizer.state_dict(), model.training

        def put_back():
            model.parameters = parameters
            model.train(training)
            if state is not None:
                optimizer.load_state_dict(state)

        return put_back

    def other_settings(self, draw, subject):
        subject.model.num_threads = draw.pick((1, 2, 3, None))


class Nothing:
    """An optimizer that makes no step."""

    def step(self, parameters, grads):
        pass


# -- what all of them have ---------------------------------------------------------------------------


def scale(draw, make):
    """`make` with weights larger or smaller than those of the start: units saturate, or are linear."""
    factor = draw.pick((1.0, 1.0, 1.0, 3.0, 0.1))

    def scaled(*arguments):
        model = make(*arguments)
        for W in model.parameters.values():
            W *= W.dtype.type(factor)
        return model

    return scaled


def state(draw, shape, dtype, pair, p=0.6):
    """A state, of an LSTM a pair; or None."""
    if not draw.chance(p):
        return None
    return tuple(draw.real(shape, dtype) for _ in range(2)) if pair else draw.real(shape, dtype)


def load(case, pair):
    """`load_state_dict`, of the model's own values with changes."""
    values = {name: (W * 1.1).astype(pair.dtype) for name, W in pair.own.model.parameters.items()}

    def run(subject, given):
        found = subject.model.load_state_dict(given["state_dict"], **given["options"])
        return {"keys": tuple(found.missing_keys), "parameters": subject.model.state_dict()}

    case.call(pair, Call("load_state_dict", run, {
        "state_dict": Argument(values, "mapping"), "options": Argument({}, "fixed"),
    }))  # fmt: skip


def modes(case, pair):
    """`train` and `eval`, one of them with something that is no bool."""
    pair.own.model.eval() if case.draw.chance(0.4) else pair.own.model.train()
    run = lambda subject, given: subject.model.train(given["mode"]).training  # noqa: E731
    call = Call("train", run, {"mode": Argument(True, "flag")})
    case.spoilt(pair, call)


def threads(case, pair):
    """Assign `num_threads`, one that is none as well."""

    def run(subject, given):
        subject.model.num_threads = given["value"]

    call = Call("num_threads", run, {"value": Argument(2, "size")}, compared=False)
    case.spoilt(pair, call)
    pair.own.model.num_threads = case.draw.pick((1, 2, 3, None))


def clone(case, pair):
    """A copy or a pickle takes the place of the model; it has the same bits."""
    case.note("clone")
    old = pair.own
    if case.draw.chance(0.2):
        files.round_trip(case, old.model)
    new = pair.copy() if case.draw.chance(0.5) else pickle.loads(pickle.dumps(old))  # noqa: S301
    if bits(old.model.state_dict()) != bits(new.model.state_dict()):
        raise Failure("a copy has other parameters")
    if str(old.model.rng.bit_generator.state) != str(new.model.rng.bit_generator.state):
        raise Failure("a copy has another random stream")
    if old.model.training != new.model.training:
        raise Failure("a copy has another mode")
    pair.own = new


def assigned(case, pair, call):
    """A parameter in other memory, or one that is none, for one call."""
    draw, model = case.draw, pair.own.model
    name = draw.pick(list(model.parameters))
    kept = model.parameters[name]
    model.parameters[name] = draw.pick(LAYOUTS)(draw, kept)
    case.note(f"parameters[{name!r}] in other memory")
    case.right(pair, call)
    model.parameters[name] = kept
    if call.prepare is not None:
        call.prepare(pair.own, call.values())
    bad = (
        draw.pick((spoils.shape, spoils.dtype))(draw, kept) if draw.chance(0.7) else draw.pick(spoils.JUNK)()
    )
    if not isinstance(bad, np.ndarray) or bad.shape != kept.shape or bad.dtype != kept.dtype:
        model.parameters[name] = bad
        case.note(f"parameters[{name!r}] = {describe(bad)}")
        before = pictures(pair.watched())
        case.counts.calls += 1
        try:
            call.run(pair.own, call.values())
        except (TypeError, ValueError) as error:
            case.counts.refused += 1
            case.refused(error, before, pair)
        else:
            raise Failure(f"{call.name} took parameters[{name!r}] of {type(bad).__name__}")
        model.parameters[name] = kept
