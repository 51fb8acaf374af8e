"""`fastrnn.diagnostics`: what is measured of a model, which is left as it was whatever the arguments."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np

import fastrnn
from fastrnn import diagnostics
from fuzz import layers, models, simple
from fuzz.case import SANITIZED, Argument, Call, picture, pictures, shown
from fuzz.compare import Failure, bits
from fuzz.stacked import DTYPES, StackPair, scale

#: Fields of results that change with their arguments without jumps; the others are counts, words, and quotients of
#: what may be next to nothing.
SMOOTH = (
    "total", "from_last_step", "dWhh_terms", "dWhh_norm", "loss", "lags", "norms", "bound", "starts", "mean_slope",
    "mean", "states", "labels", "norm_before", "largest", "norm_after", "singular_values", "entries",
)  # fmt: skip

#: How seldom a result is drawn with matplotlib, which takes as long as a hundred other calls.
DRAWN = 0.0 if SANITIZED else 0.01


def run(case):
    pair = case.pair = case.draw.pick((vanilla, layer, with_outputs, with_outputs))(case)
    for _ in range(case.draw.integer(1, 4)):
        call = measurement(case, pair)
        if call is None:
            continue
        if case.draw.chance(0.1):
            case.poisoned(pair, call, parameters(pair.own))
        else:
            case.call(pair, call)


# -- models --------------------------------------------------------------------------------------------


def vanilla(case):
    """A `SimpleRNN`."""
    draw = case.draw
    sizes = draw.size(17), draw.size(33), draw.size(17)
    own = fastrnn.SimpleRNN(*sizes, dtype=draw.pick(DTYPES), rng=draw.seed(), backend=case.backend)
    factor = draw.pick((1.0, 10.0, 40.0))
    for name in simple.PARAMETERS:
        setattr(own, name, getattr(own, name) * factor)
    return simple.SimplePair(own, fastrnn.SimpleRNN(*sizes, rng=0, backend="numpy"))


def layer(case):
    """An `RNN`, `GRU` or `LSTM`."""
    draw = case.draw
    kind = draw.pick((fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM))
    settings = {"batch_first": draw.chance(0.3), "bidirectional": draw.chance(0.3), "bias": draw.chance(0.8)}
    return stack(case, kind, [draw.size(17), draw.size(33)], settings)


def with_outputs(case):
    """A `LanguageModel` or `SequenceModel`."""
    draw = case.draw
    kind = draw.pick((fastrnn.LanguageModel, fastrnn.SequenceModel))
    settings = {"cell": draw.pick(("rnn", "gru", "lstm"))}
    sizes = [draw.size(17), draw.size(33)]
    if kind is fastrnn.SequenceModel:
        sizes.append(draw.size(9))
        settings |= {"bidirectional": draw.chance(0.3), "head": draw.pick(("each", "last", "mean")),
                     "loss": draw.pick(models.LOSSES)}  # fmt: skip
    return stack(case, kind, sizes, settings)


def stack(case, kind, sizes, settings):
    draw, seed = case.draw, case.draw.seed()
    sizes = [*sizes, draw.pick((1, 1, 2))]

    def make(dtype, backend, num_threads, _):
        return kind(*sizes, dtype=dtype, rng=seed, backend=backend, num_threads=num_threads, **settings)

    pair = StackPair(scale(draw, make), draw.pick(DTYPES), case.backend, draw.pick((1, 2, 3)))
    pair.bounded = settings.get("loss") != "gaussian"
    if draw.chance(0.7):  # there are gradients to leave alone
        call = gradients(draw, pair)
        case.note(f"first {call.name}({shown(call.values())})")
        run_whole(call, pair.own)
    return pair


def gradients(draw, pair):
    d, h = size_of_inputs(pair.own.model), pair.own.model.hidden_size
    if hasattr(pair.own.model, "output_size"):
        return models.loss(draw, pair, "loss_and_grads", d, h)
    return layers.backward(draw, pair, d, h)


def run_whole(call, subject):
    if call.prepare is not None:
        call.prepare(subject, call.values())
    return call.run(subject, call.values())


def size_of_inputs(model):
    return model.vocab_size if hasattr(model, "vocab_size") else model.input_size


def model_of(subject):
    return getattr(subject, "model", subject)


def parameters(subject):
    model = model_of(subject)
    if isinstance(model, fastrnn.SimpleRNN):
        return {name: getattr(model, name) for name in simple.PARAMETERS}
    return model.parameters


# -- calls -------------------------------------------------------------------------------------------


def measurement(case, pair):
    """One of the functions with right arguments; None where there are no sequences, or it is not for such a model."""
    draw = case.draw
    function, kinds = draw.pick(list(FUNCTIONS.items()))
    model = model_of(pair.own)
    if "inputs" not in kinds and has_gates(model):
        return None
    read = batch(draw, pair)
    if read["inputs"].value.size == 0:
        return None
    arguments = {name: argument for name, argument in read.items() if name in kinds}
    for name, (kind, values) in OPTIONS.items():
        if name in kinds and draw.chance(0.5):
            arguments[name] = Argument(draw.pick(values), kind)
    if "layer" in kinds and (not arguments or draw.chance(0.5)):
        arguments["layer"] = Argument(draw.integer(0, getattr(model, "num_layers", 1) - 1), "size")
    if "direction" in kinds and draw.chance(0.5):
        arguments["direction"] = Argument(
            draw.integer(0, int(getattr(model, "bidirectional", False))), "size"
        )
    if arguments.get("clip") == Argument("step", "choice") and not isinstance(model, fastrnn.SimpleRNN):
        del arguments["clip"]
    if function == "jacobian_norms" and steps_of(model, read["inputs"].value) < 2:
        return None
    exact = function not in ASKS_LAPACK
    return Call(function, measuring(function, case), arguments, exact=exact, tolerance=10)


def batch(draw, pair):
    """Inputs, targets and first states."""
    model = model_of(pair.own)
    d, h = size_of_inputs(model), model.hidden_size
    if isinstance(model, fastrnn.SimpleRNN):
        read = simple.sequence(draw, d, h, model.output_size, pair.dtype, targets=True)
        return {"inputs": read["inputs"], "targets": read["targets"], "h0": read["h_prev"]}
    if hasattr(model, "head") or hasattr(model, "vocab_size"):
        read = models.goals(draw, pair, d, h)
        return {"inputs": read["x"], "targets": read["y"], "h0": read["h0"]}
    read, *_ = layers.inputs(draw, pair, d, h)
    shape = read["x"].value.shape[: -1 if read["x"].value.dtype.kind == "f" else None]
    directions = 2 if model.bidirectional else 1
    gradient = Argument(draw.real((*shape, directions * h), pair.dtype), "real")
    return {"inputs": read["x"], "targets": gradient, "h0": read["h0"]}


def has_gates(model):
    """Of which no single matrix is multiplied by the state."""
    return isinstance(model, (fastrnn.GRU, fastrnn.LSTM)) or getattr(model, "cell", "rnn") != "rnn"


def steps_of(model, x):
    return x.shape[1 if getattr(model, "batch_first", False) and x.ndim > 2 - (x.dtype.kind != "f") else 0]


#: Function -> what it takes beside a model.
FUNCTIONS = {
    "gradient_flow": ("inputs", "targets", "h0", "layer", "direction", "reduction"),
    "jacobian_norms": ("inputs", "h0", "layer", "direction", "max_lag", "max_starts", "jacobian_method"),
    "saturation": ("inputs", "h0", "threshold", "layer", "direction"),
    "hidden_states": ("inputs", "h0", "layer", "direction"),
    "clip_report": ("inputs", "targets", "h0", "threshold"),
    "training_summary": ("inputs", "targets", "h0", "clip", "clip_threshold"),
    "gradcheck": ("inputs", "targets", "h0", "entries", "rng"),
    "spectral_radius": ("layer", "direction", "radius_method"),
    "singular_values": ("layer", "direction"),
    "spectrum": ("layer", "direction"),
}  # fmt: skip

#: For which where a matrix lies may make a difference.
ASKS_LAPACK = ("jacobian_norms", "spectral_radius", "singular_values", "spectrum", "training_summary")

#: Of `training_summary`, what changes without jumps.
SUMMARY = ("dWhh_norm", "gradient_share")

#: Option -> kind and right values.
OPTIONS = {
    "reduction": ("choice", ("sum", "mean")), "max_lag": ("size", (1, None)), "max_starts": ("size", (1, 3, 16)),
    "threshold": ("number", (0.5, 0.9)), "clip": ("choice", ("norm", "value", "step", None)),
    "clip_threshold": ("number", (0.01, 5.0)), "entries": ("size", (1, 5)), "rng": ("rng", (0, 7)),
    "jacobian_method": ("choice", ("auto", "exact", "power")), "radius_method": ("choice", ("exact", "estimate")),
}  # fmt: skip


def measuring(name, case):
    """A function that measures, looks at the model afterwards, and gives what may be compared."""
    function = getattr(diagnostics, name)
    drawn = case.draw.chance(DRAWN)

    def run(subject, given):
        given = {n.removeprefix("jacobian_").removeprefix("radius_"): value for n, value in given.items()}
        if name == "gradcheck":
            given.setdefault("entries", 3)
        model = model_of(subject)
        finish = begun(model)
        before = pictures(state_of(model))
        result = function(model, **given)
        after = pictures(state_of(model))
        if after != before:
            raise Failure(f"{name} modified {[n for n in before if before[n] != after[n]]}")
        finish()
        if dataclasses.is_dataclass(result):
            sentences = str(result)
            if not sentences.strip() or not sentences.replace("\n", "").isprintable():
                raise Failure(f"{name} says {sentences!r}")
            if drawn and hasattr(result, "plot"):
                result.plot()
        return compared(name, result, model.dtype)

    return run


def begun(model):
    """Make a layer's forward pass; returns a function that sees whether `backward` still follows it."""
    if not isinstance(model, (fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM)):
        return lambda: None
    x = np.linspace(-1, 1, 2 * model.input_size, dtype=model.dtype).reshape(2, 1, -1)
    grad = np.ones_like(model.forward(x)[0])
    other = copy.deepcopy(model)
    other.forward(x)

    def finish():
        kept = {name: g.copy() for name, g in model.grads.items()}
        got, want = model.backward(grad)[0], other.backward(grad)[0]
        if bits((got, model.grads)) != bits((want, other.grads)):
            raise Failure("backward afterwards is not that of the forward pass before")
        for name, g in kept.items():
            model.grads[name][...] = g

    return finish


def state_of(model):
    """All that a measurement leaves as it was."""
    seen = {name: W for name, W in parameters(model).items() if isinstance(W, np.ndarray)}
    for name in ("grads", "rng", "training", "num_threads", "grad_norm"):
        seen[name] = picture(getattr(model, name, None))
    return seen


def compared(name, result, dtype):
    """Of a result, what NumPy's kernels give too, whole arrays in the dtype of the model."""
    if name == "gradcheck":
        return {"names": tuple(checked.name for checked in result.parameters)}
    if name == "training_summary":
        return {n: result[n] for n in SUMMARY if not np.isnan(result[n])}
    if name == "spectral_radius":
        return float(result)
    if isinstance(result, np.ndarray):
        return result.astype(dtype)
    fields = {n: getattr(result, n) for n in SMOOTH if hasattr(result, n)}
    for n in ("bound", "loss"):  # which a cell with gates, and a layer without a loss, do not have
        if n in fields and np.isnan(fields[n]):
            del fields[n]
    return {n: in_dtype(value, dtype) for n, value in fields.items()}


def in_dtype(value, dtype):
    if isinstance(value, dict):
        return {n: in_dtype(part, dtype) for n, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value.astype(dtype)
    return value
