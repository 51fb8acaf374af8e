"""Steppers: one step at a time."""

from __future__ import annotations

import numpy as np

import fastrnn
from fuzz import disguises, spoils
from fuzz.case import Argument, Call, Pair
from fuzz.compare import Failure
from fuzz.stacked import DTYPES


class StepperPair(Pair):
    """A stepper, and one of the same weights in float64."""

    def __init__(self, own, twin, dtype):
        self.own, self.twin, self.dtype = own, twin, np.dtype(dtype)

    def sync(self):
        self.twin.state = self._state = self.own.state

    def copy(self):
        return self.own.copy()

    def perturbed(self, draw, size):
        near, state = self.twin.copy(), self._state
        many = [s.astype(np.float64) for s in (state if isinstance(state, tuple) else (state,))]
        many = tuple(s * (1 + size * draw.rng.normal(size=s.shape)) for s in many)
        near.state = many if isinstance(state, tuple) else many[0]
        return near

    def watched(self):
        return {"state": self.own.state}

    def outcome(self, subject):
        return {"state": subject.state}

    def keep(self):
        state = self.own.state

        def put_back():
            self.own.state = state

        return put_back


def models(draw, backend):
    """A model, the same with NumPy's kernels in float64, and d, h, dtype and whether it is flat."""
    d, h, L = draw.size(33), draw.size(), draw.pick((1, 1, 2))
    dtype, seed = draw.pick(DTYPES), draw.seed()
    way = draw.integer(0, 3)
    cell = draw.pick(("rnn", "gru", "lstm"))
    nonlinearity = draw.pick(("tanh", "relu")) if cell == "rnn" else "tanh"

    def make(kind, backend):
        if way == 0:
            return fastrnn.SimpleRNN(d, h, q, dtype=kind, rng=seed, backend=backend)
        given = {"dtype": kind, "rng": seed, "backend": backend}
        if way == 1:
            layer = {"rnn": fastrnn.RNN, "gru": fastrnn.GRU, "lstm": fastrnn.LSTM}[cell]
            return layer(d, h, L, **given, **({"nonlinearity": nonlinearity} if cell == "rnn" else {}))
        given |= {"cell": cell, "nonlinearity": nonlinearity}
        if way == 2:
            return fastrnn.LanguageModel(d, h, L, **given)
        return fastrnn.SequenceModel(d, h, q, L, head=head, loss=loss, **given)

    q, head, loss = (
        draw.size(33),
        draw.pick(("each", "last")),
        draw.pick(("mse", "cross_entropy", "gaussian")),
    )
    own, twin = make(dtype, backend), make(np.float64, "numpy")
    if way == 0:
        for name in ("Wxh", "Whh", "Why", "bh", "by"):
            W = draw.rng.normal(size=getattr(own, name).shape) / np.sqrt(h)
            setattr(own, name, W.astype(dtype))
            setattr(twin, name, W.astype(dtype).astype(np.float64))
    else:
        twin.load_state_dict(own.state_dict())
    return own, twin, d, h, dtype, way == 0, cell == "lstm" and way > 0, 1 if way == 0 else L


def run(case):
    draw = case.draw
    own, twin, d, h, dtype, flat, double, L = models(draw, case.backend)
    N = draw.pick((None, None, 1, 2, 3, 8, 9, 17))
    shape = ((N, h) if N else (h,)) if flat else ((L, N, h) if N else (L, h))
    pair = case.pair = StepperPair(own.stepper(N), twin.stepper(N), dtype)
    pair.bounded = getattr(own, "nonlinearity", "tanh") != "relu"

    def state():
        return tuple(draw.real(shape, dtype) for _ in range(2)) if double else draw.real(shape, dtype)

    if draw.chance(0.2):
        run = lambda _, given: own.stepper(given["batch_size"], given["h0"]).state  # noqa: E731
        case.spoilt(pair, Call("stepper", run, {
            "batch_size": Argument(N, "size"), "h0": Argument(state(), "real"),
        }))  # fmt: skip
    for _ in range(draw.integer(1, 8)):
        way = draw.rng.random()
        if way < 0.7:
            case.call(pair, step(draw, d, N, dtype))
        elif way < 0.8:
            case.call(
                pair, Call("reset", _reset, {"h0": Argument(state() if draw.chance(0.8) else None, "real")})
            )
        elif way < 0.87:
            case.call(pair, Call("state =", _assign, {"state": Argument(state(), "real")}))
        elif way < 0.92:
            pair.own = pair.own.copy()
            pair.own.refresh()
        else:
            into(case, pair, d, N)


def step(draw, d, N, dtype):
    classes = draw.chance(0.35)
    if classes:
        x = draw.classes((N,), d) if N else int(draw.classes((), d))
    else:
        x = draw.real((N, d) if N else (d,), dtype)
    # With a batch, integers (N,) are classes; without, an array is of real numbers whatever its dtype.
    kind = ("classes" if N else "size") if classes else "real"
    return Call("step", lambda subject, given: subject.step(given["x"]), {"x": Argument(x, kind, d)})


def _reset(subject, given):
    subject.reset(given["h0"])
    return subject.state


def _assign(subject, given):
    subject.state = given["state"]
    return subject.state


def into(case, pair, d, N):
    """`out`: right, where it overlaps the input, and wrong."""
    draw, dtype = case.draw, pair.dtype
    x = draw.real((N, d) if N else (d,), dtype)
    want = pair.own.copy().step(x)
    out = disguises.offset(draw, np.empty_like(want)) if draw.chance(0.5) else np.empty_like(want)
    given = x.copy()
    if draw.chance(0.4) and want.size and want.size <= x.size:
        given = np.zeros(x.size + 3, dtype)
        out = given[draw.integer(0, 3) :][: want.size].reshape(want.shape)
        given = given[: x.size].reshape(x.shape)
        given[...] = x
    other = pair.own.copy()
    case.note("step(x, out)")
    case.counts.calls += 2
    case.counts.compared += 1
    found = other.step(given, out)
    if found is not out:
        raise Failure("step returned something else than out")
    if out.tobytes() != want.tobytes():
        raise Failure("step with out= has other bits")
    wrong = {"out": Argument(np.zeros_like(want), "array")}
    bad = draw.pick((disguises.fortran, disguises.backwards, disguises.gaps, disguises.misaligned,
                     disguises.read_only, disguises.derived, disguises.big_endian))(
        draw, wrong["out"].value)  # fmt: skip
    if draw.chance(0.4):
        bad = spoils.shape(draw, bad) if draw.chance(0.5) else spoils.spoil(draw, wrong["out"].value, "array")
    call = Call(
        "step",
        lambda subject, values: subject.step(x, values["out"]) is None,
        {"out": Argument(bad, "array")},
    )
    case.spoilt(pair, call)
    case.spoilt(
        pair,
        Call(
            "step", lambda subject, values: subject.step(values["x"], bad) is None, {"x": Argument(x, "real")}
        ),
    )
