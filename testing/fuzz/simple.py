"""`SimpleRNN`, the class of the notes."""

from __future__ import annotations

import copy
import pickle

import numpy as np

import fastrnn
from fuzz import files
from fuzz.case import Argument, Call, Pair, pictures
from fuzz.compare import Failure, bits
from fuzz.disguises import ANY, LAYOUTS
from fuzz.spoils import spoil
from fuzz.stacked import DTYPES

PARAMETERS = ("Wxh", "Whh", "Why", "bh", "by")


class SimplePair(Pair):
    def __init__(self, own, twin):
        self.own, self.twin, self.dtype = own, twin, own.dtype

    def sync(self):
        self._weights = {
            name: np.array(getattr(self.own, name), np.float64, order="C") for name in PARAMETERS
        }
        for name, W in self._weights.items():
            setattr(self.twin, name, W.copy())

    def copy(self):
        return copy.deepcopy(self.own)

    def perturbed(self, draw, size):
        near = copy.deepcopy(self.twin)
        for name, W in self._weights.items():
            setattr(near, name, W * (1 + size * draw.rng.normal(size=W.shape)))
        return near

    def weights(self):
        return self.watched()

    def watched(self):
        return {name: getattr(self.own, name) for name in PARAMETERS}

    def outcome(self, subject):
        return {name: getattr(subject, name) for name in PARAMETERS}

    def keep(self):
        values = {name: getattr(self.own, name).copy() for name in PARAMETERS}

        def put_back():
            for name, value in values.items():
                setattr(self.own, name, value)

        return put_back


def run(case):
    draw = case.draw
    d, h, q = draw.size(33), draw.size(), draw.size(33)
    q = min(d, q) if draw.chance(0.5) else q
    dtype = draw.pick(DTYPES)
    own = fastrnn.SimpleRNN(d, h, q, dtype=dtype, rng=0, backend=draw.pick((None, case.backend)))
    twin = fastrnn.SimpleRNN(d, h, q, rng=0, backend="numpy")
    width = draw.pick((0.3, 0.7, 0.7, 2.0))
    for name in PARAMETERS:
        W = draw.rng.normal(size=getattr(own, name).shape) * width / np.sqrt(h if name != "Wxh" else 1)
        setattr(own, name, W.astype(dtype))
    pair = case.pair = SimplePair(own, twin)
    if draw.chance(0.15):
        sizes = {"input_size": d, "hidden_size": h, "output_size": q}
        arguments = {name: Argument(value, "size") for name, value in sizes.items()}
        arguments |= {"rng": Argument(0, "rng"), "dtype": Argument("float64", "choice")}
        case.spoilt(pair, Call("SimpleRNN", lambda _, given: fastrnn.SimpleRNN(**given) and None, arguments))
    for _ in range(draw.integer(1, 5)):
        way = draw.rng.random()
        if way < 0.15:
            case.call(pair, Call("forward", _forward, sequence(draw, d, h, q, dtype), reads=True))
        elif way < 0.35:
            case.call(pair, backward(draw, pair, d, h, q, dtype))
        elif way < 0.55:
            case.call(pair, training(draw, "loss_and_grads", d, h, q, dtype))
        elif way < 0.75:
            case.call(pair, training(draw, "train_step", d, h, q, dtype))
        elif way < 0.82:
            case.call(pair, update(draw, pair, dtype))
        elif way < 0.9:
            call = sample(draw, d, h, dtype)
            if draw.chance(0.3):  # from NumPy's global stream, which a refused call leaves alone
                del call.arguments["rng"]
                case.spoilt(pair, call)
            elif q <= d:
                case.call(pair, call)
        elif way < 0.95:
            assigned(case, pair)
        elif way < 0.98:
            call = sample(draw, d, h, dtype)
            del call.arguments["rng"]
            if draw.chance(0.4):
                call = training(draw, "train_step", d, h, q, dtype)
            case.poisoned(pair, call, {name: getattr(pair.own, name) for name in PARAMETERS})
        else:
            clone(case, pair)


def sequence(draw, d, h, q, dtype, targets=False):
    T = draw.pick((1, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 20))
    x = (
        draw.classes((T,), d)
        if draw.chance(0.6)
        else draw.real((T, d) if draw.chance(0.5) else (T, d, 1), dtype)
    )
    arguments = {"inputs": Argument(x, "inputs", d)}
    if targets:
        arguments["targets"] = Argument(draw.classes((T,), q), "targets", q)
    return arguments | {"h_prev": Argument(draw.real((h, 1), dtype), "real")}


def _forward(subject, given):
    return [steps.array.copy() for steps in subject.forward(given["inputs"], given["h_prev"])]


def backward(draw, pair, d, h, q, dtype):
    """Of the mappings of a forward pass, or of dicts."""
    arguments = sequence(draw, d, h, q, dtype, targets=True)
    as_dicts = draw.chance(0.4)

    def run(subject, given):
        steps = subject.forward(given["inputs"], given["h_prev"])
        if as_dicts:
            steps = [dict(mapping) for mapping in steps]
        return subject.backward(*steps, given["targets"])

    return Call("backward", run, arguments, reads=True)


def training(draw, method, d, h, q, dtype):
    arguments = sequence(draw, d, h, q, dtype, targets=True)
    arguments["clip"] = Argument(draw.pick(("step", "value", "norm", None)), "choice")
    arguments["clip_threshold"] = Argument(draw.pick((5.0, 0.3, 1e-2, float("inf"))), "number")
    if method == "train_step":
        arguments["lr"] = Argument(draw.pick((0.1, 1e-3, 0.0)), "number")

    def run(subject, given):
        results = getattr(subject, method)(**given)
        return results, {name: getattr(subject, name).copy() for name in PARAMETERS}

    return Call(method, run, arguments, reads=method == "loss_and_grads")


def update(draw, pair, dtype):
    arguments = {
        name: Argument(draw.real(getattr(pair.own, name).shape, dtype), "real") for name in PARAMETERS
    }
    arguments["lr"] = Argument(0.1, "number")

    def run(subject, given):
        subject.update_weights([given[name] for name in PARAMETERS], given["lr"])
        return {name: getattr(subject, name).copy() for name in PARAMETERS}

    return Call("update_weights", run, arguments)


def sample(draw, d, h, dtype):
    arguments = {
        "h": Argument(draw.real((h, 1), dtype), "real"), "start_index": Argument(draw.integer(-d, d - 1),
                                                                                 "size"),
        "n": Argument(draw.integer(0, 20), "size"), "rng": Argument(draw.seed(), "rng"),
    }  # fmt: skip
    return Call("sample", lambda subject, given: subject.sample(**given), arguments, reads=True)


def assigned(case, pair):
    """A weight in other memory, cast, or one that is none."""
    draw = case.draw
    name = draw.pick(PARAMETERS)
    kept = getattr(pair.own, name)
    case.note(f"{name} in other memory")
    setattr(pair.own, name, draw.pick(LAYOUTS if draw.chance(0.6) else ANY)(draw, kept))
    d, h, q = pair.own.input_size, pair.own.hidden_size, pair.own.output_size
    case.right(pair, training(draw, "loss_and_grads", d, h, q, pair.dtype))
    setattr(pair.own, name, kept)
    bad = spoil(draw, kept, "real")
    case.note(f"{name} = {type(bad).__name__} {getattr(bad, 'shape', '')} {getattr(bad, 'dtype', '')}")
    before = pictures(pair.watched())
    try:
        setattr(pair.own, name, bad)
    except (TypeError, ValueError) as error:
        case.counts.refused += 1
        case.refused(error, before, pair)
    setattr(pair.own, name, kept)


def clone(case, pair):
    case.note("clone")
    old = pair.own
    if case.draw.chance(0.2):
        files.round_trip(case, old)
    pair.own = copy.deepcopy(old) if case.draw.chance(0.5) else pickle.loads(pickle.dumps(old))  # noqa: S301
    if bits([getattr(old, n) for n in PARAMETERS]) != bits([getattr(pair.own, n) for n in PARAMETERS]):
        raise Failure("a copy has other weights")
