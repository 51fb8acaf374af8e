"""`LanguageModel` and `SequenceModel`."""

from __future__ import annotations

import numpy as np

import fastrnn
from fuzz import optimizers
from fuzz.case import Argument, Call, cast, largest
from fuzz.compare import TOLERANCE, Failure, mismatches
from fuzz.layers import _forward, inputs
from fuzz.stacked import DTYPES, StackPair, assigned, clone, load, modes, scale, threads

LOSSES = ("mse", "cross_entropy", "gaussian")


def run(case):
    draw = case.draw
    kind = draw.pick((fastrnn.LanguageModel, fastrnn.SequenceModel, fastrnn.SequenceModel))
    h, d = draw.size(), draw.size(33)
    L = draw.pick((1, 1, 1, 2, 3)) if h < 40 else 1
    settings = {
        "cell": draw.pick(("rnn", "gru", "lstm")),
        "dropout": draw.pick((0.0, 0.0, 0.5)) if L > 1 else 0.0,
    }
    if settings["cell"] == "rnn":
        settings["nonlinearity"] = draw.pick(("tanh", "relu"))
    sizes = [d, h, L]
    if kind is fastrnn.SequenceModel:
        settings |= {"bidirectional": draw.chance(0.3), "head": draw.pick(("each", "last", "mean")),
                     "loss": draw.pick(LOSSES)}  # fmt: skip
        sizes = [d, h, draw.size(33), L]
    seed, every = draw.seed(), draw.pick((None, None, 1, 2, 3, 5, 8, 30))

    if settings.get("bidirectional"):
        every = None

    def make(dtype, backend, num_threads, twin):
        return kind(
            *sizes, dtype=dtype, rng=seed, backend=backend, num_threads=num_threads,
            recompute_every=None if twin else every, **settings,
        )  # fmt: skip

    optimizer, twin = optimizers.make(draw)
    backend = draw.pick((None, case.backend))
    pair = case.pair = StackPair(
        scale(draw, make),
        draw.pick(DTYPES),
        backend,
        draw.pick((1, 2, 3)),
        optimizer,
        settings["dropout"] > 0,
    )
    pair.step_twin = twin
    pair.bounded = settings.get("nonlinearity") != "relu" and settings.get("loss") != "gaussian"
    creation(case, kind, sizes, settings)
    for _ in range(draw.integer(1, 5)):
        way = draw.rng.random()
        if way < 0.08:
            case.call(pair, Call("forward", _forward, inputs(draw, pair, d, h, one=False)[0]))
        elif way < 0.18:
            case.call(pair, loss(draw, pair, "loss", d, h))
        elif way < 0.45:
            case.call(pair, loss(draw, pair, "loss_and_grads", d, h))
        elif way < 0.7:
            train_step(case, pair, d, h)
        elif way < 0.74:
            load(case, pair)
        elif way < 0.78:
            modes(case, pair)
        elif way < 0.8:
            threads(case, pair)
        elif way < 0.83:
            clone(case, pair)
        elif way < 0.86:
            assigned(case, pair, Call("forward", _forward, inputs(draw, pair, d, h, one=False)[0]))
        elif way < 0.91 or kind is not fastrnn.LanguageModel:
            call = loss(draw, pair, draw.pick(("loss", "loss_and_grads")), d, h)
            if kind is fastrnn.LanguageModel and draw.chance(0.6):
                call = sample(draw, pair, d, h)
            case.poisoned(pair, call, pair.own.model.parameters)
        else:
            case.call(pair, sample(draw, pair, d, h))


def creation(case, kind, sizes, settings):
    """Make one with an argument that is wrong."""
    if not case.draw.chance(0.15):
        return
    names = ("vocab_size", "hidden_size", "num_layers")
    if len(sizes) == 4:
        names = ("input_size", "hidden_size", "output_size", "num_layers")
    arguments = {name: Argument(value, "size") for name, value in zip(names, sizes, strict=True)}
    kinds = {"dropout": "number", "bidirectional": "flag"}
    arguments |= {name: Argument(value, kinds.get(name, "choice")) for name, value in settings.items()}
    arguments |= {
        "recompute_every": Argument(2, "size"),
        "rng": Argument(0, "rng"),
        "dtype": Argument("float32", "choice"),
    }
    case.spoilt(case.pair, Call(kind.__name__, lambda _, given: kind(**given) and None, arguments))


def goals(draw, pair, d, h):
    """x, h0, lengths, targets and weights."""
    arguments, T, N, _ = inputs(draw, pair, d, h, one=False)
    model = pair.own.model
    per_step = getattr(model, "head", "each") == "each"
    shape = (T, N) if per_step else (N,)
    if hasattr(model, "vocab_size") or model._loss.name == "cross_entropy":
        q = model.output_size
        arguments["y"] = Argument(draw.targets(shape, q), "targets", q)
    else:
        arguments["y"] = Argument(draw.real((*shape, model.output_size), pair.dtype), "real")
    if not hasattr(model, "vocab_size") and draw.chance(0.3):
        weights = np.abs(draw.real(shape if draw.chance(0.5) else (N,), pair.dtype))
        arguments["weights"] = Argument(weights, "weights")
    return arguments


def loss(draw, pair, method, d, h):
    arguments = goals(draw, pair, d, h)
    arguments["reduction"] = Argument(draw.pick(("mean", "sum")), "choice")

    def run(subject, given):
        return getattr(subject.model, method)(**given)

    return Call(method, run, arguments, reads=method == "loss" and not model_draws(pair))


def model_draws(pair):
    """Whether dropout takes from the random stream of the model."""
    return bool(pair.own.model.dropout) and pair.own.model.training


def train_step(case, pair, d, h):
    """Loss and gradients are those of the twin, and the optimizer's step is that of its own twin."""
    draw = case.draw
    arguments = goals(draw, pair, d, h)
    arguments["clip"] = Argument(draw.pick(("norm", "value", None)), "choice")
    arguments["clip_threshold"] = Argument(draw.pick((5.0, 0.5, 1e-2, float("inf"))), "number")

    def run(subject, given):
        model = subject.model
        given = dict(given)
        found = model.train_step(given.pop("x"), given.pop("y"), given.pop("h0"), subject.optimizer, **given)
        return {"loss": found[0], "h_n": cast(found[1], model.dtype), "grads": dict(model.grads),
                "norm": model.grad_norm}  # fmt: skip

    if draw.chance(0.1):
        wrong_optimizer(case, pair, arguments)
    arguments["comm"] = Argument(None, "choice")
    call = Call("train_step", run, arguments)
    if draw.chance(0.5):
        before = {name: W.astype(np.float64) for name, W in pair.own.model.parameters.items()}
        pair.step_twin.follow(pair.own.optimizer)
        case.right(pair, call)
        stepped(pair, before)
    else:
        case.call(pair, call)


def wrong_optimizer(case, pair, arguments):
    """Something that has no step."""
    x, y, h0 = (arguments[name].value for name in ("x", "y", "h0"))
    run = lambda subject, given: subject.model.train_step(x, y, h0, given["optimizer"])  # noqa: E731
    case.spoilt(pair, Call("train_step", run, {"optimizer": Argument(None, "other")}))


def stepped(pair, before):
    """The parameters are where the optimizer's twin takes them with the same gradients."""
    grads = {name: g.astype(np.float64) for name, g in pair.own.model.grads.items()}
    if largest(grads) > float(np.finfo(pair.dtype).max) ** 0.4:
        return  # their squares may be infinite here
    after = {name: W.copy() for name, W in before.items()}
    pair.step_twin.optimizer.step(after, grads)
    tolerance = TOLERANCE[pair.dtype]
    moved = {f"[{name!r}]": largest(W) for name, W in before.items()}  # of which little may be left
    bad = [
        (name, error, allowed)
        for name, error, allowed in mismatches(dict(pair.own.model.parameters), after, pair.dtype, tolerance)
        if not error <= tolerance * moved[name]
    ]
    if bad:
        raise Failure(
            f"parameters{bad[0][0]} are off by {bad[0][1]:.3g} after the step, allowed {bad[0][2]:.3g}"
        )


def sample(draw, pair, d, h):
    model = pair.own.model
    N, n = draw.pick((1, 2, 3, 8, 9, 17)), draw.integer(0, 12)
    shape = (model.num_layers, N, h)
    state = None
    if draw.chance(0.6):
        state = draw.real(shape, pair.dtype)
        state = (state, draw.real(shape, pair.dtype)) if model.cell == "lstm" else state
    arguments = {
        "h": Argument(state, "real"), "start": Argument(draw.classes((N,), d), "classes", d),
        "n": Argument(n, "size"), "temperature": Argument(draw.pick((1.0, 0.5, 2.0, 0.0, 1e-3)), "number"),
        "top_k": Argument(draw.pick((None, 1, 2, 5, 100)), "size"),
        "top_p": Argument(draw.pick((None, 0.5, 0.9, 1.0, 1e-3)), "number"),
    }  # fmt: skip
    if draw.chance(0.5):
        arguments["rng"] = Argument(draw.seed(), "rng")

    def run(subject, given):
        given = dict(given)
        return subject.model.sample(given.pop("h"), given.pop("start"), given.pop("n"), **given)

    return Call("sample", run, arguments)
