"""The optimizers, by themselves and as those of a model."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import numpy as np

from fastrnn import optim
from fuzz import disguises, spoils
from fuzz.case import ERRORS, Argument, Call, Pair, pictures
from fuzz.compare import Failure, bits, picture
from fuzz.stacked import DTYPES


class Twin:
    """An optimizer that follows another one: with NumPy's kernels, over float64."""

    def __init__(self, make):
        self.optimizer = make("numpy")

    def follow(self, optimizer):
        """Take its options and state."""
        state = optimizer.state_dict()
        state["state"] = {
            slot: {name: a.astype(np.float64) for name, a in arrays.items()}
            for slot, arrays in state["state"].items()
        }
        self.optimizer.load_state_dict(state)


def settings(draw):
    """A class of optimizers and its arguments, such that the noise of gradients makes no difference."""
    kind = draw.pick((optim.SGD, optim.Adagrad, optim.RMSprop, optim.Adam, optim.AdamW))
    given = {"lr": draw.pick((0.1, 1e-2, 1e-3, 0.0)), "weight_decay": draw.pick((0.0, 0.0, 0.1))}
    if kind is optim.SGD:
        given["momentum"] = draw.pick((0.0, 0.9, 0.5))
        given["nesterov"] = given["momentum"] > 0 and draw.chance(0.5)
        given["dampening"] = 0.0 if given["nesterov"] else draw.pick((0.0, 0.3))
    elif kind is optim.Adagrad:
        given |= {
            "lr_decay": draw.pick((0.0, 0.1)),
            "initial_accumulator_value": draw.pick((0.0, 0.1)),
            "eps": 1e-6,
        }
    elif kind is optim.RMSprop:
        given |= {"alpha": draw.pick((0.9, 0.5)), "momentum": draw.pick((0.0, 0.9)),
                  "centered": draw.chance(0.3), "eps": 1e-3}  # fmt: skip
    else:
        given |= {"betas": draw.pick(((0.9, 0.999), (0.5, 0.9), (0.0, 0.5))), "eps": draw.pick((1e-3, 1e-5)),
                  "amsgrad": draw.chance(0.3)}  # fmt: skip
    return kind, given


def make(draw):
    """An optimizer and its twin."""
    kind, given = settings(draw)
    maker = lambda backend=None: kind(**given, backend=backend)  # noqa: E731
    return maker(), Twin(maker)


class OptimizerPair(Pair):
    """An optimizer and the parameters that it updates."""

    def __init__(self, draw, optimizer, twin, parameters, dtype):
        self.dtype, self.follower = dtype, twin
        self.own = SimpleNamespace(optimizer=optimizer, parameters=parameters)
        self.twin = SimpleNamespace(optimizer=twin.optimizer, parameters=None)

    def __repr__(self):
        return repr(self.own.optimizer)

    def sync(self):
        self.follower.follow(self.own.optimizer)
        own = self.own.parameters
        pairs = own.items() if isinstance(own, dict) else enumerate(own)
        cast = {name: W.astype(np.float64) for name, W in pairs}
        self.twin.parameters = cast if isinstance(own, dict) else list(cast.values())

    def copy(self):
        return copy.deepcopy(self.own)

    def watched(self):
        return {"optimizer": self.own.optimizer.state_dict(), "parameters": self.own.parameters}

    def outcome(self, subject):
        return {"state": subject.optimizer.state_dict(), "parameters": subject.parameters}

    def keep(self):
        optimizer, before = self.own.optimizer, self.own.optimizer.state_dict()
        own = self.own.parameters
        arrays = list(own.values() if isinstance(own, dict) else own)
        values = [W.copy() for W in arrays]

        def put_back():
            optimizer.load_state_dict(before)
            for W, value in zip(arrays, values, strict=True):
                W[...] = value

        return put_back


def run(case):
    draw = case.draw
    dtype = draw.pick(DTYPES)
    shapes = [tuple(draw.size() for _ in range(draw.integer(0, 2))) for _ in range(draw.integer(1, 4))]
    parameters = [np.asarray(draw.real(shape, dtype)) for shape in shapes]
    if draw.chance(0.3):
        parameters = [disguises.offset(draw, W) for W in parameters]
    if draw.chance(0.7):
        parameters = {f"W{i}": W for i, W in enumerate(parameters)}
    optimizer, twin = make(draw)
    pair = case.pair = OptimizerPair(draw, optimizer, twin, parameters, dtype)
    creation(case, optimizer)
    for _ in range(draw.integer(1, 6)):
        way = draw.rng.random()
        if way < 0.6:
            case.call(pair, step(draw, pair, shapes))
        elif way < 0.75:
            case.spoilt(pair, load(draw, pair))
        elif way < 0.85:
            assign(case, pair)
        elif way < 0.95:
            clone(case, pair)
        else:
            other_parameters(case, pair)


def creation(case, optimizer):
    if case.draw.chance(0.3):
        kind = type(optimizer)
        arguments = {name: Argument(value, "flag" if isinstance(value, bool) else "number")
                     for name, value in optimizer._arguments().items()}  # fmt: skip
        case.spoilt(case.pair, Call(kind.__name__, lambda _, given: kind(**given) and None, arguments))


def step(draw, pair, shapes):
    grads = [np.asarray(draw.real(shape, pair.dtype)) for shape in shapes]
    if isinstance(pair.own.parameters, dict):
        arguments = {f"W{i}": Argument(g, "gradient") for i, g in enumerate(grads)}
        run = lambda subject, given: _step(subject, given)  # noqa: E731
    else:
        arguments = {f"{i}": Argument(g, "gradient") for i, g in enumerate(grads)}
        run = lambda subject, given: _step(subject, list(given.values()))  # noqa: E731
    if draw.chance(0.3):  # in any memory order; the dtype must be that of the parameter
        arguments = {
            name: Argument(draw.pick(disguises.LAYOUTS[:-1])(draw, a.value), a.kind)
            for name, a in arguments.items()
        }
    return Call("step", run, arguments)


def _step(subject, grads):
    subject.optimizer.step(subject.parameters, grads)
    return {"parameters": copy.copy(subject.parameters)}


def load(draw, pair):
    """A state that is not the present one, whose parts are spoilt one by one."""
    state = pair.own.optimizer.state_dict()
    state["options"]["lr"] = 0.123
    for arrays in state["state"].values():
        for a in arrays.values():
            a *= 2
    part = draw.pick(("whole", "options", "state", "slot"))
    slots = [slot for slot, arrays in state["state"].items() if arrays]
    slot = draw.pick(slots) if slots else None
    value = {
        "whole": state,
        "options": state["options"],
        "state": state["state"],
        "slot": state["state"].get(slot),
    }[part]

    def run(subject, given):
        new = dict(state)
        if part == "slot":
            new["state"] = state["state"] | {slot: given["part"]}
        elif part != "whole":
            new[part] = given["part"]
        else:
            new = given["part"]
        subject.optimizer.load_state_dict(new)

    return Call(f"load_state_dict, {part} {slot}", run, {"part": Argument(value or None, "mapping")})


def assign(case, pair):
    """Set an option to something else."""
    optimizer = pair.own.optimizer
    name = case.draw.pick(list(optimizer._arguments()))
    kind = "flag" if isinstance(getattr(optimizer, name), bool) else "number"

    def run(subject, given):
        setattr(subject.optimizer, name, given["value"])

    case.spoilt(pair, Call(f"{name} =", run, {"value": Argument(getattr(optimizer, name), kind)}))


def clone(case, pair):
    optimizer = pair.own.optimizer
    pickled = pickle.loads(pickle.dumps(optimizer))  # noqa: S301
    new = copy.deepcopy(optimizer) if case.draw.chance(0.5) else pickled
    case.note("clone")
    if bits(new.state_dict()) != bits(optimizer.state_dict()):
        raise Failure("a copy has another state")
    pair.own.optimizer = new


def other_parameters(case, pair):
    """Parameters that are not those of the steps before, that overlap or that cannot be written to."""
    draw = case.draw
    own = pair.own.parameters
    names = list(own) if isinstance(own, dict) else list(range(len(own)))
    name = draw.pick(names)
    W = own[name]
    grads = {n: np.ones_like(own[n]) for n in names}
    bad = dict(own) if isinstance(own, dict) else dict(enumerate(own))
    way = draw.integer(0, 4)
    if way == 0:
        bad[name] = disguises.read_only(draw, W)
    elif way == 1 and W.ndim and W.size > 1:
        bad[name] = draw.pick((disguises.backwards, disguises.gaps, disguises.misaligned))(draw, W)
    elif way == 2 and len(names) > 1:
        bad[names[0]] = bad[names[1]]
        grads[names[0]] = grads[names[1]]
    elif way == 3 and W.size > 1:
        both = np.zeros(W.size + W.size // 2, W.dtype)
        bad[name], grads[name] = (
            both[: W.size].reshape(W.shape),
            both[W.size // 2 :][: W.size].reshape(W.shape),
        )
    else:
        bad[name] = spoils.spoil(draw, W, "gradient")
    given = picture(bad), picture(grads)
    put_back = pair.keep()
    call = Call(
        "step", lambda subject, _: subject.optimizer.step(bad, grads), {"way": Argument(way, "fixed")}
    )
    before = pair.watched()
    case.note(f"other parameters, {way}: {type(bad[name]).__name__}")
    case.counts.calls += 1
    before = pictures(before)
    try:
        call.run(pair.own, {})
    except ERRORS as error:
        case.counts.refused += 1
        case.refused(error, before, pair)
        if (picture(bad), picture(grads)) != given:
            raise Failure(f"arrays modified by a step that was refused: {error}") from error
    else:
        if way in (2, 3) and not (way == 2 and len(names) == 1) and W.size > 1:
            raise Failure("a step took parameters that overlap")
        put_back()
