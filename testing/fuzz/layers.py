"""`RNN`, `GRU` and `LSTM`."""

from __future__ import annotations

import fastrnn
from fuzz.case import Argument, Call
from fuzz.stacked import DTYPES, StackPair, assigned, clone, load, modes, scale, state, threads


def run(case):
    draw = case.draw
    kind = draw.pick((fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM))
    d, h = draw.size(33), draw.size()
    L = draw.pick((1, 1, 1, 2, 3)) if h < 40 else 1
    settings = {
        "bias": draw.chance(0.8), "batch_first": draw.chance(0.3), "bidirectional": draw.chance(0.3),
        "dropout": draw.pick((0.0, 0.0, 0.25, 0.5)) if L > 1 else 0.0,
    }  # fmt: skip
    if kind is fastrnn.RNN:
        settings["nonlinearity"] = draw.pick(("tanh", "relu"))
    seed = draw.seed()

    def make(dtype, backend, num_threads, twin):
        return kind(d, h, L, dtype=dtype, rng=seed, backend=backend, num_threads=num_threads, **settings)

    backend = draw.pick((None, case.backend))
    pair = StackPair(
        scale(draw, make), draw.pick(DTYPES), backend, draw.pick((1, 2, 3)), dropout=settings["dropout"] > 0
    )
    case.pair = pair
    pair.bounded = settings.get("nonlinearity") != "relu"
    creation(case, kind, d, h, L, settings)
    for _ in range(draw.integer(1, 5)):
        way = draw.rng.random()
        if way < 0.38:
            case.call(pair, forward(draw, pair, d, h))
        elif way < 0.76:
            case.call(pair, backward(draw, pair, d, h))
        elif way < 0.82:
            load(case, pair)
        elif way < 0.87:
            modes(case, pair)
        elif way < 0.9:
            threads(case, pair)
        elif way < 0.94:
            clone(case, pair)
        elif way < 0.97:
            call = draw.pick((forward, backward))(draw, pair, d, h)
            case.poisoned(pair, call, pair.own.model.parameters)
        else:
            assigned(case, pair, forward(draw, pair, d, h))


def creation(case, kind, d, h, L, settings):
    """Make one with an argument that is wrong."""
    if not case.draw.chance(0.2):
        return
    kinds = {"bias": "flag", "batch_first": "flag", "bidirectional": "flag", "dropout": "number",
             "nonlinearity": "choice"}  # fmt: skip
    sizes = {"input_size": d, "hidden_size": h, "num_layers": L}
    arguments = {name: Argument(value, "size") for name, value in sizes.items()}
    arguments |= {name: Argument(value, kinds[name]) for name, value in settings.items()}
    arguments |= {"dtype": Argument("float32", "choice"), "rng": Argument(0, "rng"),
                  "backend": Argument("numpy", "choice"), "num_threads": Argument(1, "size")}  # fmt: skip
    case.spoilt(case.pair, Call(kind.__name__, lambda _, given: kind(**given) and None, arguments))


def inputs(draw, pair, d, h, one=True):
    """x, h0 and lengths of a batch or of one sequence, and the shapes T, N and whether it is a batch."""
    model, dtype = pair.own.model, pair.dtype
    places = model.num_layers * (2 if getattr(model, "bidirectional", False) else 1)
    T, N = draw.steps_and_sequences(h * places, empty=not hasattr(model, "vocab_size"))
    batched = not one or draw.chance(0.8)
    N = N if batched else 1
    first = getattr(model, "batch_first", False)
    axes = ((N, T) if first else (T, N)) if batched else (T,)
    is_pair = type(model).__name__ == "LSTM" or getattr(model, "cell", "") == "lstm"
    model_of_classes = hasattr(model, "vocab_size")
    x = draw.classes(axes, d) if model_of_classes or draw.chance(0.3) else draw.real((*axes, d), dtype)
    h0 = state(draw, (places, N, h) if batched else (places, h), dtype, is_pair)
    ragged = batched and draw.chance(0.35)
    lengths = Argument(draw.lengths(T, N) if ragged else None, "lengths", T)
    return {"x": Argument(x, "inputs", d), "h0": Argument(h0, "real"), "lengths": lengths}, T, N, batched


def forward(draw, pair, d, h):
    arguments, *_ = inputs(draw, pair, d, h)
    model = pair.own.model
    return Call("forward", _forward, arguments, reads=not (model.dropout and model.training))


def _forward(subject, given):
    return subject.model.forward(given["x"], given["h0"], lengths=given["lengths"])


def backward(draw, pair, d, h):
    """The backward pass of a forward one that comes before."""
    before, T, N, batched = inputs(draw, pair, d, h)
    given = {name: a.value for name, a in before.items()}
    model = pair.own.model
    D = 2 if model.bidirectional else 1
    shape = ((N, T) if model.batch_first else (T, N)) if batched else (T,)
    grad = draw.real((*shape, D * h), pair.dtype) if draw.chance(0.85) else None
    places = (D * model.num_layers, N, h) if batched else (D * model.num_layers, h)
    last = state(draw, places, pair.dtype, type(model).__name__ == "LSTM")
    if isinstance(last, tuple) and draw.chance(0.2):
        last = (None, last[1]) if draw.chance(0.5) else (last[0], None)
    arguments = {"grad_output": Argument(grad, "real"), "grad_h_n": Argument(last, "real")}
    arguments |= {name: Argument(given[name], "fixed") for name in given}
    return Call("backward", _backward, arguments, prepare=_forward)


def _backward(subject, given):
    results = subject.model.backward(given["grad_output"], given["grad_h_n"])
    return {"results": results, "grads": dict(subject.model.grads)}
