"""`fastrnn.functional` and `fastrnn.init`: arrays in, arrays out."""

from __future__ import annotations

import math

import numpy as np

import fastrnn
from fastrnn import functional as F
from fastrnn import init
from fuzz import disguises
from fuzz.case import Argument, Call, Pair
from fuzz.compare import TOLERANCE, Failure, mismatches
from fuzz.stacked import DTYPES, state


class FunctionPair(Pair):
    """The name of a backend."""

    def __init__(self, backend, dtype):
        self.own, self.twin, self.dtype = backend, "numpy", dtype

    def perturbed(self, draw, size):
        return self.twin


def run(case):
    draw = case.draw
    pair = case.pair = FunctionPair(case.backend, draw.pick(DTYPES))
    made = draw.pick(
        (layer, layer, layer, softmax, cross_entropy, regression, linear, clipping, sample, filling, backends)
    )
    for _ in range(draw.integer(1, 4)):
        made(case, pair)


def layer(case, pair):
    """`rnn_forward` and its like."""
    draw, dtype = case.draw, pair.dtype
    name = draw.pick(("rnn", "gru", "lstm"))
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[name]
    d, h = draw.size(33), draw.size()
    T, N = draw.steps_and_sequences(h)
    shapes = {"weight_ih": (gates * h, d), "weight_hh": (gates * h, h)}
    if draw.chance(0.8):
        shapes |= {"bias_ih": (gates * h,), "bias_hh": (gates * h,)}
    parameters = {n: (draw.rng.normal(size=s) / math.sqrt(h)).astype(dtype) for n, s in shapes.items()}
    x = draw.classes((T, N), d) if draw.chance(0.3) else draw.real((T, N, d), dtype)
    arguments = {
        "x": Argument(x, "inputs", d), "h0": Argument(state(draw, (N, h), dtype, name == "lstm"), "real"),
        "parameters": Argument(parameters, "parameters"),
        "lengths": Argument(draw.lengths(T, N) if draw.chance(0.4) else None, "lengths", T),
        "reverse": Argument(draw.chance(0.3), "flag"), "num_threads": Argument(draw.pick((1, 2, 3, None)),
                                                                               "size"),
    }  # fmt: skip
    if name == "rnn":
        arguments["nonlinearity"] = Argument(draw.pick(("tanh", "relu")), "choice")
    go, back = getattr(F, f"{name}_forward"), getattr(F, f"{name}_backward")

    def forward(backend, given):
        return go(**given, backend=backend)

    def backward(backend, given):
        given = dict(given)
        grads = given.pop("grad_output"), given.pop("grad_h_n")
        known = {n: value for n, value in given.items() if n != "output"}
        output = given["output"] if given["output"] is not None else go(**known, backend=backend)[0]
        x, h0, weights = given.pop("x"), given.pop("h0"), given.pop("parameters")
        given.pop("output")
        return back(*grads, x, h0, output, weights, **given, backend=backend)

    if draw.chance(0.5):
        case.call(pair, Call(f"{name}_forward", forward, arguments))
        return
    grad = draw.real((T, N, h), dtype) if draw.chance(0.8) else None
    more = {"grad_output": Argument(grad, "real"),
            "grad_h_n": Argument(state(draw, (N, h), dtype, name == "lstm"), "real"),
            "output": Argument(None, "fixed")}  # fmt: skip
    call = Call(f"{name}_backward", backward, more | arguments)
    if draw.chance(0.6):
        case.call(pair, call)
    else:  # its output given, which may be spoilt
        output, _ = forward(case.backend, {n: a.value for n, a in arguments.items()})
        call.arguments["output"] = Argument(output, "real")
        case.disguised(pair, call) if draw.chance(0.5) else case.spoilt(pair, call)


def rows(draw, dtype, least=1):
    """An array with classes along its last axis, and what their number is."""
    q = draw.size()
    shape = tuple(draw.pick((1, 2, 3, 9, 0 if draw.chance(0.1) else 4)) for _ in range(draw.integer(0, 2)))
    return draw.real((*shape, q), dtype), shape, q


def softmax(case, pair):
    x, shape, _ = rows(case.draw, pair.dtype)
    axis = case.draw.integer(-len(shape) - 1, len(shape))
    axis = axis if x.shape[axis] else -1
    function = case.draw.pick((F.softmax, F.log_softmax))
    call = Call(function.__name__, lambda _, given: function(**given), {
        "x": Argument(x, "array"), "axis": Argument(axis, "size"),
    }, exact=False)  # fmt: skip
    case.call(pair, call)


def cross_entropy(case, pair):
    draw = case.draw
    logits, shape, q = rows(draw, pair.dtype)
    reduction = draw.pick(("mean", "sum", "none"))
    arguments = {
        "logits": Argument(logits, "array"), "targets": Argument(np.asarray(draw.targets(shape, q)) if shape
        else np.array(draw.integer(0, q - 1)), "targets", q),
        "reduction": Argument(reduction, "choice"), "label_smoothing": Argument(draw.pick((0.0, 0.1, 1.0)),
                                                                                "number"),
    }  # fmt: skip
    if draw.chance(0.3):
        arguments["weight"] = Argument(np.abs(draw.real((q,), pair.dtype)), "array")
    if draw.chance(0.2):
        ignored = draw.pick((-100, 0, 2))
        targets = arguments["targets"].value
        arguments["targets"] = Argument(np.where(targets < 0, ignored, targets), "targets", q)
        arguments["ignore_index"] = Argument(ignored, "size")
    name = draw.pick(("cross_entropy", "cross_entropy_backward"))
    if name == "cross_entropy_backward" and draw.chance(0.5):
        grad = draw.real(shape if reduction == "none" else (), pair.dtype)
        arguments["grad_output"] = Argument(np.asarray(grad), "array")
    call = Call(name, lambda _, given: numbers(getattr(F, name)(**given)), arguments, exact=False,
                bounded=lambda given: not given["label_smoothing"] or alike(given.get("weight")))  # fmt: skip
    case.call(pair, call)


def alike(weight):
    """Whether no factor is so small that the others, in units of it, leave the range of float32."""
    factors = np.abs(np.asarray(1.0 if weight is None else weight, np.float64))
    return not ((factors > 0) & (factors < 1e-9)).any()


def numbers(result):
    """NumPy's scalars as Python's floats: of which dtype they are does not matter."""
    return float(result) if isinstance(result, np.generic) else result


def regression(case, pair):
    draw, dtype = case.draw, pair.dtype
    shape = rows(draw, dtype)[0].shape
    reduction = draw.pick(("mean", "sum", "none"))
    normal = draw.chance(0.5)
    names = ("mean", "log_variance", "target") if normal else ("input", "target")
    arguments = {name: Argument(draw.real(shape, dtype), "array") for name in names}
    if normal:  # of whose exponential there is a result
        arguments["log_variance"] = Argument(np.clip(arguments["log_variance"].value, -9, 9), "array")
    arguments["reduction"] = Argument(reduction, "choice")
    name = ("gaussian_nll_loss" if normal else "mse_loss") + draw.pick(("", "_backward"))
    if name.endswith("backward"):
        grad = draw.real(shape if reduction == "none" and draw.chance(0.5) else (), dtype)
        arguments["grad_output"] = Argument(np.asarray(grad), "array")
    call = Call(name, lambda _, given: numbers(getattr(F, name)(**given)), arguments, exact=False)
    case.call(pair, call)


def linear(case, pair):
    draw, dtype = case.draw, pair.dtype
    x, shape, n = rows(draw, dtype)
    m = draw.size()
    weight = Argument(draw.real((m, n), dtype), "array")
    if draw.chance(0.5):
        bias = Argument(draw.real((m,), dtype) if draw.chance(0.5) else None, "real")
        arguments = {"x": Argument(x, "real"), "weight": weight, "bias": bias}
        function = F.linear
    else:
        grad = Argument(draw.real((*shape, m), dtype), "real")
        arguments = {"grad_output": grad, "x": Argument(x, "real"), "weight": weight}
        function = F.linear_backward
    case.call(
        pair, Call(function.__name__, lambda _, given: function(**given), arguments, exact=False, tolerance=3)
    )


def clipping(case, pair):
    """In place: in any memory, and never in a call that is refused."""
    draw = case.draw
    shapes = [tuple(draw.size() for _ in range(draw.integer(0, 2))) for _ in range(draw.integer(1, 3))]
    arguments = {
        f"g{i}": Argument(np.asarray(draw.real(s, pair.dtype)), "gradient") for i, s in enumerate(shapes)
    }
    function = draw.pick((F.clip_grad_norm, F.clip_grad_value))
    limit = Argument(draw.pick((0.1, 1.0, 5.0, 100.0)), "number")

    def run(_, given):
        arrays = {n: g.copy() if isinstance(g, np.ndarray) else g for n, g in given.items() if n != "limit"}
        before = {n: g.copy() for n, g in arrays.items() if isinstance(g, np.ndarray)}
        try:
            norm = function(arrays, given["limit"])
        except Exception:
            for n, g in before.items():
                if g.tobytes() != arrays[n].tobytes():
                    raise Failure(f"{function.__name__} modified {n} and then refused") from None
            raise
        return arrays, norm

    if draw.chance(0.4):
        arrays = {n: draw.pick(disguises.IN_PLACE)(draw, a.value) for n, a in arguments.items()}
        case.note(f"{function.__name__} in other memory")
        want = run(None, {n: a.value for n, a in arguments.items()} | {"limit": limit.value})
        norm = function(arrays, limit.value)
        case.counts.calls += 2
        case.counts.compared += 1
        bad = mismatches((arrays, norm), want, pair.dtype, TOLERANCE[pair.dtype])
        if bad:
            raise Failure(f"{function.__name__}: other results in other memory, {bad}")
        return
    call = Call(function.__name__, run, arguments | {"limit": limit})
    case.right(pair, call) if draw.chance(0.5) else case.spoilt(pair, call)


def sample(case, pair):
    draw = case.draw
    logits, _, _ = rows(draw, pair.dtype)
    arguments = {
        "logits": Argument(logits, "array"), "temperature": Argument(draw.pick((1.0, 0.0, 0.3)), "number"),
        "top_k": Argument(draw.pick((None, 1, 3, 100)), "size"),
        "top_p": Argument(draw.pick((None, 0.4, 1.0, 1e-3)), "number"), "rng": Argument(draw.seed(), "rng"),
    }  # fmt: skip
    case.call(pair, Call("sample", lambda _, given: F.sample(**given), arguments))


def filling(case, pair):
    """`fastrnn.init`: the same numbers in other memory; nothing changes in a call that is refused."""
    draw, dtype = case.draw, pair.dtype
    n = draw.size(33)
    name = draw.pick(("uniform_", "normal_", "eye_", "orthogonal_", "spectral_radius_"))
    shape = (n, n) if name == "spectral_radius_" else (n, draw.size(33))
    seed = draw.seed()
    options = {"uniform_": ("a", "b"), "normal_": ("mean", "std"), "eye_": (), "orthogonal_": ("gain",),
               "spectral_radius_": ("radius",)}[name]  # fmt: skip
    given = {option: 1.0 + 0.5 * i for i, option in enumerate(options)}
    if name != "eye_":
        given["rng"] = seed
    function = getattr(init, name)
    plain = np.zeros(shape, dtype)
    odd = draw.pick([*disguises.IN_PLACE, disguises.big_endian])(draw, plain)
    case.note(f"{name}{shape} in other memory {odd.dtype} {odd.strides}")
    case.counts.calls += 2
    case.counts.compared += 1
    if function(plain, **given) is not plain or function(odd, **given) is not odd:
        raise Failure(f"{name} returned another array")
    if not (np.asarray(odd, dtype) == plain).all():
        raise Failure(f"{name}: other numbers in other memory")
    if not np.isfinite(plain).all():
        raise Failure(f"{name}: not finite")
    array = plain.copy()
    target = draw.pick((array, disguises.read_only(draw, array), array.astype(np.int64), array[None],
                        array[:0], array[0], array[0, 0], array.tolist(), array.astype(np.float16),
                        array.T))  # fmt: skip
    arguments = {"array": Argument(target, "gradient")}
    arguments |= {option: Argument(given[option], "number") for option in options}
    arguments |= {"rng": Argument(seed, "rng")} if name != "eye_" else {}

    def run(_, values):
        before = values["array"].copy() if isinstance(values["array"], np.ndarray) else None
        try:
            function(**values)
        except Exception:
            if (
                before is not None
                and before.dtype.kind != "O"
                and before.tobytes() != values["array"].tobytes()
            ):
                raise Failure(f"{name} modified the array and then refused") from None
            raise

    case.spoilt(pair, Call(name, run, arguments))


def backends(case, pair):
    """The choice of a backend, by names that are none as well; it is what it was afterwards."""

    def run(_, given):
        with fastrnn.use_backend(given["name"]):
            return

    before = fastrnn.backend()
    case.spoilt(pair, Call("use_backend", run, {"name": Argument(case.backend, "choice")}))
    if fastrnn.backend() != before:
        raise Failure(f"the backend is {fastrnn.backend()} after use_backend, and was {before}")
