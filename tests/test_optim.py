"""The optimizers: against a scalar loop over the equations, and all that is refused."""

import copy
import json
import math
import pickle
import threading
from functools import partial

import numpy as np
import pytest
from guarded import Guarded
from optim_support import CLASSES, SHAPES, STEPS, assert_moved, assert_parameters, options_of, problem
from refusals import refused
from support import assert_close, bits, growth, pair, run_python, sequence
from support import parameters as parameters_of

import fastrnn
from fastrnn import backends, optim
from fastrnn.kernels.numpy_kernels.optimizers import OPTIMIZERS as FORMULAS
from fastrnn.optim import OPTIMIZERS, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop


class Scalar:
    """One number under an optimizer, as the equations have it."""

    def __init__(self, kind, w, options):
        self.w, self.step = w, 0
        self.update = getattr(self, kind)
        self.decay = 0.0 if kind == "adamw" else options.pop("weight_decay", 0.0)
        self.options = options
        self.square = options.pop("initial_accumulator_value", 0.0)
        self.mean = self.buffer = self.top = 0.0
        if kind == "adamw":  # its decay is apart from the gradient
            self.apart = options.pop("weight_decay", 0.01)

    def descend(self, g):
        self.step += 1
        step = self.update(g + self.decay * self.w, **self.options)
        self.w -= step

    def sgd(self, x, lr, momentum=0.0, dampening=0.0, nesterov=False):
        if momentum == 0:
            return lr * x
        self.buffer = x if self.step == 1 else momentum * self.buffer + (1 - dampening) * x
        return lr * (x + momentum * self.buffer if nesterov else self.buffer)

    def adagrad(self, x, lr=0.01, lr_decay=0.0, eps=1e-10):
        self.square += x * x
        return lr / (1 + (self.step - 1) * lr_decay) * x / (math.sqrt(self.square) + eps)

    def rmsprop(self, x, lr=0.01, alpha=0.99, eps=1e-8, momentum=0.0, centered=False):
        self.square = alpha * self.square + (1 - alpha) * x * x
        self.mean = alpha * self.mean + (1 - alpha) * x
        variance = self.square - self.mean**2 if centered else self.square
        self.buffer = momentum * self.buffer + x / (math.sqrt(variance) + eps)
        return lr * self.buffer

    def adamw(self, x, lr=0.001, **options):
        self.w -= lr * self.apart * self.w
        return self.adam(x, lr, **options)

    def adam(self, x, lr=0.001, betas=(0.9, 0.999), eps=1e-8, amsgrad=False):
        self.mean = betas[0] * self.mean + (1 - betas[0]) * x
        self.square = betas[1] * self.square + (1 - betas[1]) * x * x
        self.top = max(self.top, self.square)
        square = (self.top if amsgrad else self.square) / (1 - betas[1] ** self.step)
        mean = self.mean / (1 - betas[0] ** self.step)
        return lr * mean / (math.sqrt(square) + eps)


def oracle(kind, parameters, gradients, options):
    """What the parameters become, each number by itself, in float64."""
    wanted = {}
    for name, W in parameters.items():
        numbers = [Scalar(kind, float(w), dict(options)) for w in W.reshape(-1)]
        for g in gradients:
            for number, slope in zip(numbers, g[name].reshape(-1), strict=True):
                number.descend(float(slope))
        wanted[name] = np.array([number.w for number in numbers]).reshape(W.shape)
    return wanted


# ---- results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", CLASSES)
def test_equations(kind, seed, dtype, backend):
    options = options_of(kind, seed)
    parameters, gradients = problem(dtype, seed)
    start = {name: W.copy() for name, W in parameters.items()}
    kept = [bits(*g.values()) for g in gradients]
    optimizer = CLASSES[kind](**options, backend=backend)
    for g in gradients:
        optimizer.step(parameters, g)
    wanted = oracle(kind, start, gradients, options)
    assert_parameters(parameters, wanted, dtype, f"{kind} {options}")
    assert [bits(*g.values()) for g in gradients] == kept
    assert optimizer.num_steps == STEPS
    assert_moved(parameters, start)


@pytest.mark.few(8)
@pytest.mark.parametrize("kind", CLASSES)
def test_many_steps(kind, dtype, backend):
    """Rounding does not pile up: 2000 steps on a quadratic, against float64 from the same start."""
    options = {"lr": 1e-2} | ({"momentum": 0.9} if kind in ("sgd", "rmsprop") else {})
    rng = np.random.default_rng(3)
    W = {"W": rng.normal(size=200).astype(dtype)}
    wide = {"W": W["W"].astype(np.float64)}
    gradients = rng.normal(size=(2000, 200)).astype(np.float32).astype(dtype)
    ours, truth = CLASSES[kind](**options, backend=backend), CLASSES[kind](**options, backend="numpy")
    for g in gradients:
        ours.step(W, {"W": g})
        truth.step(wide, {"W": g.astype(np.float64)})
    assert_close(W["W"], wide["W"], 1e-12 if dtype == np.float64 else 2e-5)


def test_mixed_dtypes(backend):
    """Each parameter in its own dtype: the same bits as alone."""
    parameters, gradients = problem(np.float64, 0, {"a": (9, 5), "b": (7,)}, 3)
    parameters["b"] = parameters["b"].astype(np.float32)
    gradients = [g | {"b": g["b"].astype(np.float32)} for g in gradients]
    alone = {name: {name: W.copy()} for name, W in parameters.items()}
    together = Adam(0.1, backend=backend)
    separate = {name: Adam(0.1, backend=backend) for name in parameters}
    for g in gradients:
        together.step(parameters, g)
        for name, optimizer in separate.items():
            optimizer.step(alone[name], {name: g[name]})
    for name in parameters:
        assert bits(parameters[name]) == bits(alone[name][name])
        assert together.state_dict()["state"]["exp_avg"][name].dtype == parameters[name].dtype


@pytest.mark.parametrize("count", [31, 32, 33, 70])
@pytest.mark.parametrize("kind", CLASSES)
def test_many_parameters(kind, count, backend):
    shapes = {f"p{i}": (1 + i % 5, 3) for i in range(count)}
    parameters, gradients = problem(np.float64, 2, shapes, 3)
    alone = {name: W.copy() for name, W in parameters.items()}
    options = {"lr": 0.1} | ({"momentum": 0.9} if kind == "sgd" else {})
    together = CLASSES[kind](**options, backend=backend)
    separate = {name: CLASSES[kind](**options, backend=backend) for name in parameters}
    for g in gradients:
        together.step(parameters, g)
        for name, optimizer in separate.items():
            optimizer.step({name: alone[name]}, {name: g[name]})
    assert bits(*parameters.values()) == bits(*alone.values())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", CLASSES)
def test_nan_and_infinity_stay_where_they_are(kind, bad, seed, dtype, backend):
    """One bad entry of a gradient, or of a parameter, makes that entry bad and no other."""
    options = options_of(kind, seed)
    parameters, gradients = problem(dtype, seed, {"W": (40,)}, 4)
    clean = parameters["W"].copy()
    gradients[1]["W"][7] = bad
    parameters["W"][30] = bad
    ours, other = CLASSES[kind](**options, backend=backend), CLASSES[kind](**options, backend=backend)
    for g in gradients:
        ours.step(parameters, g)
        other.step({"W": clean}, {"W": np.where(np.isfinite(g["W"]), g["W"], 0).astype(dtype)})
    good = ~np.isin(np.arange(40), (7, 30))
    assert_close(parameters["W"][good], clean[good].astype(np.float64))
    assert not np.isfinite(parameters["W"][[7, 30]]).any()


@pytest.mark.parametrize("kind", CLASSES)
def test_infinite_parameter_without_decay(kind, dtype, backend):
    """0 times infinity is NaN, and a weight decay of 0 is none."""
    W = np.array([math.inf, -math.inf, 1.0] * 20, dtype)
    optimizer = CLASSES[kind](0.1, weight_decay=0.0, backend=backend)
    for _ in range(3):
        optimizer.step({"W": W}, {"W": np.ones(60, dtype)})
    assert (W[0::3] == math.inf).all()
    assert (W[1::3] == -math.inf).all()
    assert (W[2::3] < 1).all()


def test_centered_variance_below_zero(dtype, backend):
    """Equal gradients have no variance; rounding may take it below 0, where the root would be NaN."""
    W = np.random.default_rng(0).normal(size=300).astype(dtype)
    g = np.random.default_rng(1).normal(size=300).astype(dtype)
    optimizer = RMSprop(1e-3, alpha=0.5, eps=1e-3, centered=True, backend=backend)
    for _ in range(200):
        optimizer.step({"W": W}, {"W": g})
    assert np.isfinite(W).all()
    W[3] = 0
    g[3] = math.nan
    optimizer.step({"W": W}, {"W": g})
    assert np.isnan(W[3])
    assert np.isfinite(np.delete(W, 3)).all()


@pytest.mark.parametrize("kind", CLASSES)
def test_zero_learning_rate(kind, dtype, backend):
    parameters, gradients = problem(dtype, 0)
    before = bits(*parameters.values())
    CLASSES[kind](0.0, backend=backend).step(parameters, gradients[0])
    assert bits(*parameters.values()) == before


def test_zero_gradient(dtype, backend):
    """No division by zero: the eps keeps 0 / 0 away."""
    for kind, make in CLASSES.items():
        W = np.ones(40, dtype)
        optimizer = make(0.1, **({"weight_decay": 0} if kind == "adamw" else {}), backend=backend)
        for _ in range(2):
            optimizer.step({"W": W}, {"W": np.zeros(40, dtype)})
        assert (W == 1).all(), kind


# ---- the kernels themselves ------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 100])
@pytest.mark.parametrize("kind", CLASSES)
def test_nothing_is_written_beside_an_array(kind, n, offset, dtype, backend):
    """Parameters and gradients inside larger buffers, at any alignment."""
    memory = Guarded(dtype, offset)
    W, g = memory.new((n,)), memory.given(np.random.default_rng(n).normal(size=n))
    W[...] = np.random.default_rng(n + 1).normal(size=n)
    start = {"W": W.copy()}
    options = {"momentum": 0.9} if kind in ("sgd", "rmsprop") else {}
    options |= {"centered": True} if kind == "rmsprop" else {}
    optimizer = CLASSES[kind](0.1, weight_decay=0.1, **options, backend=backend)
    for _ in range(3):
        optimizer.step({"W": W}, {"W": g})
    memory.check()
    wanted = oracle(kind, start, [{"W": g}] * 3, {"lr": 0.1, "weight_decay": 0.1, **options})
    assert_parameters({"W": W}, wanted, dtype)


@pytest.mark.parametrize("kind", FORMULAS)
def test_kernels_refuse_what_would_crash(kind):
    """The last line of defence of the compiled kernels, before anything is modified."""
    kernels = backends.load("cython") if "cython" in available() else pytest.skip("no Cython kernels")
    good = np.ones(5)
    _, slots, count = FORMULAS[kind]
    frozen = np.ones(5)
    frozen.flags.writeable = False
    many = tuple(np.ones(5) for _ in range(40))
    for params, grads, state in [
        ((good, good.copy()), (good.copy(), np.ones(4)), (good.copy(), good.copy())),
        ((good, good.copy()), (good.copy(), np.ones(5, np.float32)), (good.copy(), good.copy())),
        ((good, good.copy()), (good.copy(), np.ones(10)[::2]), (good.copy(), good.copy())),
        ((good, good.copy()), (good.copy(), [1.0] * 5), (good.copy(), good.copy())),
        ((good, frozen), (good.copy(), good.copy()), (good.copy(), good.copy())),
        ((good, np.ones(5, int)), (good.copy(), good.copy()), (good.copy(), good.copy())),
        ((good, "W"), (good.copy(), good.copy()), (good.copy(), good.copy())),
        ((good, good.copy()), (good.copy(),), (good.copy(), good.copy())),
        ((good, good.copy()), (good.copy(), good.copy()), (good.copy(),)),
        ((good, good.copy()), (good.copy(), good.copy()), (good.copy(), np.ones(4))),
        ((good, *many), (good.copy(), *many[1:], np.ones(4)), (good.copy(), *many)),
    ]:
        with pytest.raises((TypeError, ValueError), match=r"^(kernels take|Cannot convert|Expected)|ndarray"):
            kernels.optimize(kind, params, grads, (state,) * slots, (0.1,) * count)
        assert (good == 1).all()
        assert all((W == 1).all() for W in many)


def available():
    names = []
    for name in backends.BACKENDS:
        try:
            backends.load(name)
        except fastrnn.BackendUnavailable:
            continue
        names.append(name)
    return names


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(level):
    """All optimizers at each instruction set that this processor has, against the NumPy kernels."""
    if "cython" not in available() or level not in backends.load("cython").simd_levels():
        pytest.skip(f"no Cython kernels at {level} here")
    code = """
import numpy as np
from fastrnn import backends, optim
assert backends.load("cython").simd_level() == LEVEL
rng = np.random.default_rng(0)
for dtype, tolerance in ((np.float64, 1e-13), (np.float32, 1e-5)):
    for make in (
        lambda **b: optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1, **b),
        lambda **b: optim.SGD(0.1, **b),
        lambda **b: optim.Adagrad(0.1, **b),
        lambda **b: optim.RMSprop(0.1, momentum=0.5, centered=True, **b),
        lambda **b: optim.Adam(0.1, weight_decay=0.1, **b),
    ):
        ours, plain = make(backend="cython"), make(backend="numpy")
        W = rng.normal(size=77).astype(dtype)
        V = W.copy()
        for _ in range(5):
            g = rng.normal(size=77).astype(dtype)
            ours.step({"W": W}, {"W": g})
            plain.step({"W": V}, {"W": g})
        assert np.abs(W - V).max() <= tolerance * np.abs(V).max(), make
        g[[3, 76]] = np.nan  # in a whole vector and in the last elements
        ours.step({"W": W}, {"W": g})
        assert np.flatnonzero(np.isnan(W)).tolist() == [3, 76], make
print("all right")
"""
    done = run_python("-c", code.replace("LEVEL", repr(level)), FASTRNN_SIMD=level)
    assert done.stdout == "all right\n", done.stderr


# ---- state -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("way", ["state_dict", "json", "pickle", "deepcopy"])
def test_continues_with_the_same_bits(way, kind, seed, dtype, backend):
    options = options_of(kind, seed)
    parameters, gradients = problem(dtype, seed)
    ours = CLASSES[kind](**options, backend=backend)
    for g in gradients[:10]:
        ours.step(parameters, g)
    copied = {name: W.copy() for name, W in parameters.items()}
    if way == "pickle":
        other = pickle.loads(pickle.dumps(ours))
    elif way == "deepcopy":
        other = copy.deepcopy(ours)
    else:
        saved = ours.state_dict()
        if way == "json":
            saved = saved | json.loads(json.dumps({k: saved[k] for k in ("name", "options", "step")}))
        other = CLASSES[kind](0.5, backend=backend)
        other.load_state_dict(saved)
        for arrays in saved["state"].values():  # what was loaded is a copy
            for a in arrays.values():
                a[...] = math.nan
    assert repr(other) == repr(ours)
    assert other.num_steps == 10
    ours.lr = other.lr = 0.02
    for g in gradients[10:]:
        ours.step(parameters, g)
        other.step(copied, g)
    assert bits(*copied.values()) == bits(*parameters.values())
    last, other_last = ours.state_dict(), other.state_dict()
    assert last["options"] == other_last["options"]
    for slot, arrays in last["state"].items():
        assert bits(*arrays.values()) == bits(*other_last["state"][slot].values())


@pytest.mark.parametrize("kind", CLASSES)
def test_state_dict_says_what_is_there(kind):
    optimizer = CLASSES[kind](0.1, **({"momentum": 0.9} if kind in ("sgd", "rmsprop") else {}))
    empty = optimizer.state_dict()
    assert list(empty) == ["name", "options", "step", "state"]
    assert (empty["name"], empty["step"]) == (kind, 0)
    assert all(arrays == {} for arrays in empty["state"].values())
    assert all(type(v) in (float, bool) for v in empty["options"].values())
    parameters, gradients = problem(np.float32, 0)
    optimizer.step(parameters, gradients[0])
    state = optimizer.state_dict()
    assert state["step"] == 1
    slots = {
        "sgd": ["momentum_buffer"], "adagrad": ["sum"],
        "rmsprop": ["square_avg", "momentum_buffer"], "adam": ["exp_avg", "exp_avg_sq"],
        "adamw": ["exp_avg", "exp_avg_sq"],
    }[kind]  # fmt: skip
    assert list(state["state"]) == slots
    for arrays in state["state"].values():
        assert list(arrays) == list(parameters)
        for name, a in arrays.items():
            assert (a.shape, a.dtype) == (parameters[name].shape, np.float32)
            a[...] = 99  # a copy: the optimizer does not see it
    assert all(
        (a != 99).all() for arrays in optimizer.state_dict()["state"].values() for a in arrays.values()
    )
    # One that has not taken a step goes back to the start.
    optimizer.load_state_dict(empty)
    assert optimizer.num_steps == 0
    assert optimizer.state_dict() == empty


def test_state_of_other_byte_order_and_layout_is_loaded():
    optimizer = Adam(0.1)
    W, g = np.ones((3, 4)), np.arange(12.0).reshape(3, 4)
    optimizer.step({"W": W}, {"W": g})
    saved = optimizer.state_dict()
    swapped = copy.deepcopy(saved)
    for arrays in swapped["state"].values():
        arrays["W"] = np.asfortranarray(arrays["W"]).astype(">f8")
        arrays["W"].flags.writeable = False
    other = Adam(0.2)
    other.load_state_dict(swapped)
    for slot, arrays in other.state_dict()["state"].items():
        assert np.array_equal(arrays["W"], saved["state"][slot]["W"])
        assert arrays["W"].dtype.isnative
    other.step({"W": W}, {"W": g})


def changed(saved, path, value):
    """A copy of a state dict with one place changed, or taken out when `value` is `...`."""
    result = copy.deepcopy(saved)
    place = result
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return result


BAD_STATES = [
    (("name",), "sgd", ValueError, ["mapping['name']", "'adam'", "'sgd'"]),
    (("name",), "s" * 5000, ValueError, ["mapping['name'] must be 'adam', got str 'sss"]),
    (("name",), ..., ValueError, ["mapping", "missing 'name'"]),
    (("more",), 1, ValueError, ["mapping", "not expected 'more'"]),
    (("options",), None, TypeError, ["mapping['options']", "NoneType"]),
    (("options", "lr"), ..., ValueError, ["mapping['options']", "missing 'lr'"]),
    (("options", "lr"), -1.0, ValueError, ["lr must be at least 0", "-1.0"]),
    (("options", "lr"), "fast", TypeError, ["lr must be a real number", "fast"]),
    (("options", "beta1"), 1.0, ValueError, ["betas[0] must be in [0, 1)", "1.0"]),
    (("options", "momentum"), 0.9, ValueError, ["mapping['options']", "not expected 'momentum'"]),
    (("step",), -1, ValueError, ["mapping['step']", "-1"]),
    (("step",), 2.5, TypeError, ["mapping['step']", "float"]),
    (("step",), 0, ValueError, ["mapping['step'] = 0", "2 arrays"]),
    (("state",), [], TypeError, ["mapping['state']", "list"]),
    (("state", "exp_avg"), ..., ValueError, ["mapping['state']", "missing 'exp_avg'"]),
    (("state", "sum"), {}, ValueError, ["mapping['state']", "not expected 'sum'"]),
    (("state", "exp_avg"), {}, ValueError, ["from the first step on", "0 arrays in 'exp_avg'"]),
    (("state", "exp_avg_sq"), {}, ValueError, ["mapping['state']['exp_avg_sq']", "missing 'W', 'b'"]),
    (("state", "exp_avg_sq", "W"), ..., ValueError, ["mapping['state']['exp_avg_sq']", "missing 'W'"]),
    (("state", "exp_avg", "W"), [1.0], TypeError, ["mapping['state']['exp_avg']['W']", "list"]),
    (("state", "exp_avg", "W"), np.ones((3, 2), int), TypeError, ["['exp_avg']['W']", "int64"]),
    (("state", "exp_avg_sq", "W"), np.ones((2, 3)), ValueError, ["['exp_avg_sq']['W']", "(2, 3)", "(3, 2)"]),
    (("state", "exp_avg_sq", "b"), np.ones(2, "f4"), TypeError, ["['exp_avg_sq']['b']", "float32", "float64"]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "error", "words"), BAD_STATES)
def test_bad_states_are_refused(path, value, error, words):
    optimizer = Adam(0.1)
    parameters, gradients = problem(np.float64, 0, {"W": (3, 2), "b": (2,)}, 2)
    optimizer.step(parameters, gradients[0])
    bad = changed(optimizer.state_dict(), path, value)
    refused(partial(optimizer.load_state_dict, bad), error, words, optimizer=optimizer, bad=bad)


def test_bad_states_of_nothing():
    for bad in (None, [], 3, "state"):
        refused(partial(SGD(0.1).load_state_dict, bad), TypeError, begins="mapping must be a mapping")


def test_slots_follow_the_loaded_options():
    """Momentum in the state, none in the optimizer that loads it: options and state come together."""
    parameters, gradients = problem(np.float64, 0, {"W": (3,)}, 3)
    heavy, plain = RMSprop(0.1, momentum=0.9, centered=True), RMSprop(0.1)
    heavy.step(parameters, gradients[0])
    plain.load_state_dict(heavy.state_dict())
    assert list(plain.state_dict()["state"]) == ["square_avg", "momentum_buffer", "grad_avg"]
    without = changed(heavy.state_dict(), ("options", "centered"), False)
    with pytest.raises(ValueError, match="not expected 'grad_avg'"):
        RMSprop().load_state_dict(without)


def test_state_of_other_parameters_is_refused(backend):
    optimizer = Adam(0.1, backend=backend)
    parameters, gradients = problem(np.float64, 0, {"W": (3, 2), "b": (2,)}, 1)
    optimizer.step(parameters, gradients[0])
    other = Adam(backend=backend)
    other.load_state_dict(optimizer.state_dict())
    for bad, error, words in [
        ({"W": (3, 2), "c": (2,)}, ValueError, ["parameters", "missing 'b'", "not expected 'c'"]),
        ({"W": (3, 2)}, ValueError, ["parameters", "missing 'b'", "as at the steps before"]),
        ({"W": (2, 3), "b": (2,)}, ValueError, ["parameters['W']", "(2, 3)", "the optimizer's state has (3, 2)"]),
    ]:  # fmt: skip
        wrong, g = problem(np.float64, 1, bad, 1)
        for used in (optimizer, other):
            refuses(used, wrong, g[0], error, words)
    wrong, g = problem(np.float32, 1, {"W": (3, 2), "b": (2,)}, 1)
    for used in (optimizer, other):
        refuses(used, wrong, g[0], TypeError, ["parameters['W']", "float32", "float64"])
    # The same names in another order, and other arrays: the state goes with the name.
    moved = {"b": parameters["b"].copy(), "W": parameters["W"].copy()}
    other.step(moved, dict(reversed(gradients[0].items())))
    optimizer.step(parameters, gradients[0])
    assert bits(moved["W"], moved["b"]) == bits(parameters["W"], parameters["b"])


# ---- what step refuses -----------------------------------------------------------------------------


def refuses(optimizer, parameters, grads, error, words):
    """`step` raises `error` whose text holds all `words`, and leaves everything as it was."""
    refused(partial(optimizer.step, parameters, grads), error, words, optimizer=optimizer,
            parameters=parameters, grads=grads)  # fmt: skip


def read_only(array):
    array.flags.writeable = False
    return array


def misaligned(n, dtype):
    return np.zeros(n * np.dtype(dtype).itemsize + 1, np.uint8)[1:].view(dtype)


BAD_ARRAYS = {
    "list": ([[1.0, 2.0]] * 3, TypeError, ["must be an ndarray", "list"]),
    "None": (None, TypeError, ["must be an ndarray", "NoneType"]),
    "integers": (np.ones((3, 2), int), TypeError, ["float32 or float64", "int64"]),
    "half": (np.ones((3, 2), np.float16), TypeError, ["float32 or float64", "float16"]),
    "complex": (np.ones((3, 2), complex), TypeError, ["float32 or float64", "complex128"]),
    "objects": (np.ones((3, 2), object), TypeError, ["float32 or float64", "object"]),
    "byte order": (np.ones((3, 2), ">f8"), TypeError, ["float32 or float64", ">f8"]),
}
#: Gradients may be so; parameters are updated in place.
BAD_LAYOUTS = {
    "Fortran": (np.ones((3, 2), order="F"), ValueError, ["C-contiguous", "strides (8, 24)"]),
    "strided": (np.ones((3, 4))[:, ::2], ValueError, ["C-contiguous", "strides"]),
    "misaligned": (misaligned(6, np.float64).reshape(3, 2), ValueError, ["aligned"]),
}


@pytest.mark.parametrize(
    ("bad", "which"),
    [(bad, which) for which in ("parameters", "grads") for bad in BAD_ARRAYS]
    + [(bad, "parameters") for bad in BAD_LAYOUTS],
)
def test_bad_arrays(bad, which, backend):
    array, error, words = (BAD_ARRAYS | BAD_LAYOUTS)[bad]
    optimizer = Adam(0.1, backend=backend)
    good, gradients = problem(np.float64, 0, {"b": (2,), "W": (3, 2)}, 2)
    for _ in range(2):  # before the first step and after one
        arguments = {"parameters": good, "grads": gradients[0]}
        arguments[which] = arguments[which] | {"W": array}
        refuses(optimizer, **arguments, error=error, words=[f"{which}['W']", *words])
        optimizer.step(good, gradients[1])


def test_bad_mappings(backend):
    good, (grads,) = problem(np.float64, 0, {"b": (2,), "W": (3, 2)}, 1)
    W, b, dW, db = good["W"], good["b"], grads["W"], grads["b"]
    for optimizer in (SGD(0.1, backend=backend), Adam(0.1, backend=backend)):
        for parameters, gradients, error, words in [
            ([W], grads, ValueError, ["grads must have the keys 0", "missing 0"]),
            (good, [dW], ValueError, ["grads must have the keys 'b', 'W'", "expected 0"]),
            (good, None, TypeError, ["grads must be a mapping", "NoneType"]),
            (W, grads, TypeError, ["parameters must be a mapping", "tuple or list", "ndarray"]),
            (good, iter([]), TypeError, ["grads must be a mapping", "list_iterator"]),
            ((W, b), (dW,), ValueError, ["grads must hold 2 arrays, as parameters do, got 1"]),
            ([W, b], (db, dW), ValueError, ["grads[0] has shape (2,)", "(3, 2)"]),
            ((W, None), (dW, db), TypeError, ["parameters[1] must be an ndarray", "NoneType"]),
            ((), (), ValueError, ["parameters must hold at least one array"]),
            ({}, {}, ValueError, ["parameters must hold at least one array"]),
            (good, {"W": dW}, ValueError, ["grads", "missing 'b'"]),
            ({"W": W}, grads, ValueError, ["grads", "not expected 'b'"]),
            (good, grads | {"b": np.ones(3)}, ValueError, ["grads['b']", "(3,)", "(2,)"]),
            (good, grads | {"b": np.ones(2, np.float32)}, TypeError, ["grads['b']", "float32", "float64"]),
        ]:
            refuses(optimizer, parameters, gradients, error, words)


def test_read_only_parameters(backend):
    """Refused at the first step; and at a later one, when only the flag has changed."""
    good, (grads,) = problem(np.float64, 0, {"b": (2,), "W": (3, 2)}, 1)
    optimizer = SGD(0.1, momentum=0.9, backend=backend)
    refuses(optimizer, good | {"W": read_only(np.ones((3, 2)))}, grads, ValueError,
            ["parameters['W'] is read-only"])  # fmt: skip
    optimizer.step(good, grads)
    good["W"].flags.writeable = False
    refuses(optimizer, good, grads, ValueError, ["parameters['W'] is read-only"])
    good["W"].flags.writeable = True
    optimizer.step(good, grads)
    assert optimizer.num_steps == 2


def test_read_only_gradients_are_taken(dtype, backend):
    """They are only read; JAX hands out such arrays."""
    parameters, (grads,) = problem(dtype, 0, steps=1)
    same = {name: W.copy() for name, W in parameters.items()}
    frozen = {name: read_only(g.copy()) for name, g in grads.items()}
    for make in CLASSES.values():
        make(0.1, backend=backend).step(parameters, grads)
        make(0.1, backend=backend).step(same, frozen)
    assert bits(*same.values()) == bits(*parameters.values())


def memory_orders(g):
    """The same numbers in each memory order that is not C's."""
    wide = np.full((2 * g.shape[0], 3 * g.shape[1]), np.nan, g.dtype)[::2, ::3]
    wide[...] = g
    shifted = misaligned(g.size, g.dtype).reshape(g.shape)
    shifted[...] = g
    return {
        "Fortran": np.asfortranarray(g),
        "transposed": g.T.copy().T,
        "strided": wide,
        "reversed": g[::-1, ::-1].copy()[::-1, ::-1],
        "misaligned": shifted,
        "broadcast": np.broadcast_to(g[:1], g.shape),
        "read-only": read_only(np.asfortranarray(g)),
    }


@pytest.mark.parametrize("order", memory_orders(np.ones((2, 2))))
@pytest.mark.parametrize("kind", CLASSES)
def test_gradients_in_any_memory_order(order, kind, dtype, backend):
    """Each step reads what is in the gradient then, also where its arrays are known."""
    parameters, gradients = problem(dtype, 3, {"W": (17, 9), "b": (33,)}, 4)
    if order == "broadcast":
        gradients = [{"W": np.broadcast_to(g["W"][:1], (17, 9)).copy(), "b": g["b"]} for g in gradients]
    same = {name: W.copy() for name, W in parameters.items()}
    mine = memory_orders(gradients[0]["W"])[order]
    base = mine if order != "broadcast" else mine.base
    ours, other = CLASSES[kind](0.1, backend=backend), CLASSES[kind](0.1, backend=backend)
    for g in gradients:
        if order == "read-only":
            mine.flags.writeable = True
        base[...] = g["W"][: len(base)]
        if order == "read-only":
            mine.flags.writeable = False
        kept = bits(mine)
        ours.step(parameters, {"W": mine, "b": g["b"]})
        other.step(same, {"W": g["W"], "b": g["b"]})
        assert bits(mine) == kept
    assert bits(*parameters.values()) == bits(*same.values())


def test_known_gradients_in_another_order_are_copied_anew(dtype, backend):
    W, same = np.ones((5, 4), dtype), np.ones((5, 4), dtype)
    grads = {"W": np.ones((4, 5), dtype).T}
    ours, other = SGD(0.5, backend=backend), SGD(0.5, backend=backend)
    for step in range(4):
        grads["W"] *= step
        ours.step({"W": W}, grads)
        other.step({"W": same}, {"W": grads["W"].copy(order="C")})
        grads["W"] += 1
    assert bits(W) == bits(same)
    # A gradient that is the parameter itself, seen in another order: it is read before it is written.
    W = np.arange(16, dtype=dtype).reshape(4, 4)
    wanted = W - W.T * dtype(0.5)
    SGD(0.5, backend=backend).step({"W": W}, {"W": W.T})
    assert np.array_equal(W, wanted)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("containers", [(tuple, tuple), (list, tuple), (tuple, list)])
def test_sequences_go_by_position(containers, kind, dtype, backend):
    parameters, gradients = problem(dtype, 1, steps=5)
    same = {name: W.copy() for name, W in parameters.items()}
    ours, other = CLASSES[kind](0.1, backend=backend), CLASSES[kind](0.1, backend=backend)
    for g in gradients:
        ours.step(containers[0](parameters.values()), containers[1](g.values()))
        other.step(same, g)
    assert bits(*parameters.values()) == bits(*same.values())
    state = ours.state_dict()
    assert all(list(arrays) == list(range(len(SHAPES))) for arrays in state["state"].values())
    again = CLASSES[kind](0.5, backend=backend)
    again.load_state_dict(state)
    again.step(list(parameters.values()), list(gradients[0].values()))
    other.step(same, gradients[0])
    assert bits(*parameters.values()) == bits(*same.values())
    refuses(again, same, gradients[0], ValueError, ["missing 0, 1"]) if state["state"] else None


def test_the_five_weights_of_a_simple_rnn(dtype, backend):
    """Plain gradient descent on them is what `update_weights` does."""
    rnn, _ = pair(4, 9, 5, backend=backend, dtype=dtype)
    twin, _ = pair(4, 9, 5, backend=backend, dtype=dtype)
    args = sequence(12, 4, 9, 5, dtype=dtype)
    optimizer = SGD(0.3, backend=backend)
    for _ in range(3):
        grads = rnn.loss_and_grads(*args, clip=None)[1]
        norm = fastrnn.functional.clip_grad_norm(grads, 0.5)
        assert norm > 0.5
        optimizer.step(parameters_of(rnn), grads)
        twin.update_weights(twin.loss_and_grads(*args, clip="norm", clip_threshold=0.5)[1], lr=0.3)
    for W, V in zip(parameters_of(rnn), parameters_of(twin), strict=True):
        assert_close(W, V.astype(np.float64))


def min_char_rnn(rnn, inputs, targets, lr, steps):
    """Losses and weights of the training loop of min-char-rnn, in float64: every gradient is clamped to
    [-5, 5] after the whole pass back, and Adagrad divides by the root of its memory plus 1e-8."""
    Wxh, Whh, Why, bh, by = weights = [W.astype(np.float64) for W in parameters_of(rnn)]
    memory = [np.zeros_like(W) for W in weights]
    losses = []
    for _ in range(steps):
        hs, ps, loss = {-1: np.zeros_like(bh)}, {}, 0.0
        for t, i in enumerate(inputs):
            hs[t] = np.tanh(Wxh[:, [i]] + Whh @ hs[t - 1] + bh)
            y = Why @ hs[t] + by
            ps[t] = np.exp(y) / np.exp(y).sum()
            loss -= math.log(ps[t][targets[t], 0])
        slopes = [np.zeros_like(W) for W in weights]
        from_later = np.zeros_like(bh)
        for t in range(len(inputs) - 1, -1, -1):
            dy = ps[t].copy()
            dy[targets[t]] -= 1
            dz = (Why.T @ dy + from_later) * (1 - hs[t] ** 2)
            slopes[0][:, [inputs[t]]] += dz
            slopes[1] += dz @ hs[t - 1].T
            slopes[2] += dy @ hs[t].T
            slopes[3] += dz
            slopes[4] += dy
            from_later = Whh.T @ dz
        for W, slope, mem in zip(weights, slopes, memory, strict=True):
            d = np.clip(slope, -5, 5)
            mem += d * d
            W -= lr * d / np.sqrt(mem + 1e-8)
        losses.append(loss)
    return losses, weights


def test_the_update_of_min_char_rnn(dtype, backend):
    """The setting that `Adagrad` documents; classes that never come have gradients of 0."""
    rnn, _ = pair(7, 20, 7, backend=backend, dtype=dtype, scale=0.9)
    inputs, targets = [0, 1, 2, 3, 4, 4, 0, 2] * 6, [1, 2, 3, 4, 4, 0, 2, 0] * 6
    wanted_losses, wanted = min_char_rnn(rnn, inputs, targets, 0.1, 12)
    grads = rnn.loss_and_grads(inputs, targets, np.zeros((20, 1)), clip=None)[1]
    assert max(np.abs(g).max() for g in grads) > 5  # so that there is something to clamp
    assert not grads[0][:, 6].any()
    optimizer = Adagrad(0.1, initial_accumulator_value=1e-8, eps=0, backend=backend)
    losses = []
    for _ in range(12):
        loss, grads, _ = rnn.loss_and_grads(
            inputs, targets, np.zeros((20, 1)), clip="value", clip_threshold=5
        )
        optimizer.step(parameters_of(rnn), grads)
        losses.append(loss)
    assert_close(np.array(losses), np.array(wanted_losses), 1e-9 if dtype == np.float64 else 1e-3)
    for W, V in zip(parameters_of(rnn), wanted, strict=True):
        assert_close(W, V, 1e-9 if dtype == np.float64 else 1e-2)


@pytest.mark.filterwarnings("error")
def test_adagrad_without_eps(dtype, backend):
    """0 / 0 is NaN, as documented, where sums begin with 0; nowhere else."""
    W = np.ones(40, dtype)
    g = np.ones(40, dtype)
    g[::3] = 0
    Adagrad(0.5, eps=0, backend=backend).step({"W": W}, {"W": g})
    assert np.isnan(W[::3]).all()
    assert (np.delete(W, np.s_[::3]) == 0.5).all()
    W = np.ones(40, dtype)
    Adagrad(0.5, eps=0, initial_accumulator_value=1e-8, backend=backend).step({"W": W}, {"W": g})
    assert (W[::3] == 1).all()


def test_shared_memory(backend):
    """A parameter must not be another array too; gradients that share theirs are only read."""
    optimizer = SGD(0.1, backend=backend)
    memory = np.arange(10.0)
    g = np.ones(5)
    for parameters, grads, words in [
        ({"a": memory[:5], "b": memory[4:9]}, {"a": g, "b": g}, "parameters['a'] and parameters['b'] share memory"),
        ({"a": memory[:5], "b": memory[:5]}, {"a": g, "b": g}, "share memory"),
        ({"a": memory[:5]}, {"a": memory[1:6]}, "parameters['a'] and grads['a'] share memory"),
        ({"a": memory[5:]}, {"a": memory[1:6]}, "grads['a'] and parameters['a'] share memory"),
        ({"a": memory, "b": g}, {"a": np.ones(10), "b": memory[2:7]}, "parameters['a'] and grads['b'] share memory"),
    ]:  # fmt: skip
        refuses(optimizer, parameters, grads, ValueError, [words])
    optimizer.step({"a": memory[:5], "b": memory[5:]}, {"a": g, "b": g})
    assert np.allclose(memory, np.arange(10) - 0.1)
    optimizer.step({"a": memory[:0], "b": memory[:5]}, {"a": memory[3:3], "b": memory[5:]})


def test_the_arrays_of_a_step_are_known_by_identity(backend):
    """Each change of arrays, names or order between steps is seen."""
    optimizer = SGD(1.0, backend=backend)
    a, b, g, twice = np.zeros(3), np.zeros(3), np.ones(3), np.full(3, 2.0)
    optimizer.step({"a": a, "b": b}, {"a": g, "b": twice})
    optimizer.step({"a": a, "b": b}, {"a": g, "b": twice})
    assert (a == -2).all()
    assert (b == -4).all()
    optimizer.step({"a": a, "b": b}, {"b": g, "a": twice})  # the same arrays, other names
    assert (a == -4).all()
    assert (b == -5).all()
    optimizer.step({"b": a, "a": b}, {"b": g, "a": twice})
    assert (a == -5).all()
    assert (b == -7).all()
    optimizer.step({"a": a, "b": b.copy()}, {"a": g, "b": twice})
    assert (a == -6).all()
    assert (b == -7).all()
    g[:] = 10  # what they hold is read anew each time
    optimizer.step({"a": a}, {"a": g})
    assert (a == -16).all()


def test_other_mappings_and_subclasses(backend, tmp_path):
    """Any mapping; memory-mapped arrays are updated in their file."""
    from types import MappingProxyType

    W = np.memmap(tmp_path / "W", np.float64, "w+", shape=(4, 2))
    optimizer = Adam(0.1, backend=backend)
    for _ in range(2):
        optimizer.step(MappingProxyType({"W": W}), MappingProxyType({"W": np.ones((4, 2))}))
    W.flush()
    assert np.allclose(np.fromfile(tmp_path / "W"), -0.2)


def test_nothing_is_allocated_after_the_first_step(backend):
    if backend == "numpy":
        pytest.skip("plain NumPy makes temporary arrays")
    parameters, (grads,) = problem(np.float32, 0, {"W": (300, 300)}, 1)
    for make in (
        *OPTIMIZERS.values(),
        lambda lr, backend: RMSprop(lr, momentum=0.9, centered=True, backend=backend),
    ):
        optimizer = make(0.1, backend=backend)
        peak, _ = growth(lambda optimizer=optimizer: optimizer.step(parameters, grads))
        assert peak < 10_000  # an array is of 360 000 bytes


def test_the_gil_is_released(backend):
    """Another thread runs while a kernel works."""
    if backend == "numpy":
        pytest.skip("NumPy releases it for each operation by itself")
    W, g = np.zeros(4_000_000), np.ones(4_000_000)
    optimizer = Adam(backend=backend)
    optimizer.step({"W": W}, {"W": g})
    done, ticks = threading.Event(), 0

    def work():
        for _ in range(10):
            optimizer.step({"W": W}, {"W": g})
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        ticks += 1
        done.wait(0.001)
    thread.join()
    assert ticks > 15  # one a millisecond where it is released; one a step where it is not


# ---- arguments -------------------------------------------------------------------------------------

BAD_ARGUMENTS = [
    *[
        (make, {"lr": bad}, error, "lr")
        for make in CLASSES.values()
        for bad, error in [(-0.1, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", TypeError),
                           (None, TypeError), (True, TypeError), ([0.1], TypeError), (1j, TypeError)]
    ],
    *[(make, {"lr": 0.1, "weight_decay": -1e-3}, ValueError, "weight_decay") for make in CLASSES.values()],
    (SGD, {"lr": 0.1, "momentum": -0.9}, ValueError, "momentum must be at least 0, got -0.9"),
    (SGD, {"lr": 0.1, "momentum": None}, TypeError, "momentum"),
    (SGD, {"lr": 0.1, "dampening": math.nan}, ValueError, "dampening"),
    (SGD, {"lr": 0.1, "nesterov": True}, ValueError, "nesterov wants a positive momentum"),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "nesterov": True}, ValueError, "dampening = 0.1"),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": 1}, TypeError, "nesterov must be a bool, got int 1"),
    (Adagrad, {"lr_decay": -1}, ValueError, "lr_decay"),
    (Adagrad, {"initial_accumulator_value": -1}, ValueError, "initial_accumulator_value"),
    (Adagrad, {"eps": -1}, ValueError, "eps"),
    (RMSprop, {"alpha": 1.1}, ValueError, r"alpha must be in \[0, 1\], got 1.1"),
    (RMSprop, {"alpha": -0.1}, ValueError, r"alpha must be in \[0, 1\], got -0.1"),
    (RMSprop, {"eps": -1e-8}, ValueError, "eps"),
    (RMSprop, {"momentum": -0.5}, ValueError, "momentum"),
    (RMSprop, {"centered": "yes"}, TypeError, "centered must be a bool"),
    (Adam, {"betas": (1.0, 0.9)}, ValueError, r"betas\[0\] must be in \[0, 1\), got 1.0"),
    (Adam, {"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be in \[0, 1\)"),
    (Adam, {"betas": (-0.1, 0.9)}, ValueError, r"betas\[0\]"),
    (Adam, {"betas": (0.9, "x")}, TypeError, r"betas\[1\]"),
    (Adam, {"betas": 0.9}, TypeError, "betas must be a pair of numbers, got float"),
    (Adam, {"betas": (0.9,)}, ValueError, "betas must be a pair of numbers, got 1"),
    (Adam, {"eps": -1e-8}, ValueError, "eps"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "arguments", "error", "match"), BAD_ARGUMENTS)
def test_bad_arguments(make, arguments, error, match):
    refused(partial(make, **arguments), error, match=match)


def test_unknown_backends():
    for make in OPTIMIZERS.values():
        with pytest.raises(ValueError, match="backend must be one of"):
            make(0.1, backend="cuda")


def test_learning_rate_may_be_set():
    for make in CLASSES.values():
        optimizer = make(0.1)
        optimizer.lr = np.float32(0.25)
        assert (type(optimizer.lr), optimizer.lr) == (float, 0.25)
        assert optimizer.options["lr"] == 0.25
        for bad, error in [(-1, ValueError), (math.nan, ValueError), ("1", TypeError), (None, TypeError)]:
            with pytest.raises(error, match="lr"):
                optimizer.lr = bad
        assert optimizer.lr == 0.25
        optimizer.options["lr"] = 7.0  # a copy
        assert optimizer.lr == 0.25


def test_repr_makes_it_again():
    for kind, make in CLASSES.items():
        for seed in range(5):
            options = options_of(kind, seed)
            optimizer = make(**options)
            again = eval(repr(optimizer), CLASSES | {c.__name__: c for c in CLASSES.values()})  # noqa: S307
            assert again.options == optimizer.options
            assert all(f"{name}={value!r}" in repr(optimizer) for name, value in options.items())


def test_makers():
    assert list(OPTIMIZERS) == ["sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw"]
    for name, make in OPTIMIZERS.items():
        optimizer = make(0.03, backend="numpy")
        assert isinstance(optimizer, Optimizer)
        assert optimizer.lr == 0.03
        assert optimizer.name == ("sgd" if name == "momentum" else name)
    assert OPTIMIZERS["momentum"](0.1).options["momentum"] == 0.9
    assert OPTIMIZERS["sgd"](0.1).options["momentum"] == 0
    with pytest.raises(TypeError):
        Optimizer({}, None)


def test_backend_is_the_one_in_use_at_each_step(monkeypatch):
    """None follows `use_backend` at each step; a name does not."""
    used = []
    for name in available():
        kernels = backends.load(name)
        real = kernels.optimize
        monkeypatch.setattr(
            kernels, "optimize", lambda *a, name=name, real=real: (used.append(name), real(*a)), raising=True
        )
    W, g = {"W": np.zeros(3)}, {"W": np.ones(3)}
    following, fixed = Adam(0.1), Adam(0.1, backend="numpy")
    for name in available():
        with fastrnn.use_backend(name):
            following.step(W, g)
            fixed.step(W, g)
    assert used == [n for name in available() for n in (name, "numpy")]


def test_package_brings_the_module():
    done = run_python("-c", "import sys, fastrnn; assert 'fastrnn.optim' not in sys.modules\n"
                            "print(fastrnn.optim.Adam().lr, 'optim' in dir(fastrnn))")  # fmt: skip
    assert done.stdout == "0.001 True\n", done.stderr
    assert fastrnn.optim is optim


@pytest.mark.parametrize("make", [Adam, AdamW])
def test_states_from_before_amsgrad(make, dtype, backend):
    """State and pickles of a version that had no such setting go on to the same bits."""
    parameters, gradients = problem(dtype, 5)
    ours = make(0.01, backend=backend)
    ours.step(parameters, gradients[0])
    state, copied = ours.state_dict(), {name: W.copy() for name, W in parameters.items()}
    del state["options"]["amsgrad"]
    other = make(0.5, amsgrad=True, backend=backend)
    other.load_state_dict(state)
    assert other.options["amsgrad"] is False
    old = copy.deepcopy(ours).__getstate__()
    old["_options"] = {name: value for name, value in old["_options"].items() if name != "amsgrad"}
    pickled = make.__new__(make)
    pickled.__setstate__(old)
    again = {name: W.copy() for name, W in parameters.items()}
    ours.step(parameters, gradients[1])
    other.step(copied, gradients[1])
    pickled.step(again, gradients[1])
    assert bits(*parameters.values()) == bits(*copied.values()) == bits(*again.values())


@pytest.mark.parametrize("amsgrad", [False, True])
def test_nan_stays_in_adam(amsgrad, dtype, backend):
    W, g = {"W": np.ones(20, dtype)}, np.ones(20, dtype)
    optimizer = Adam(0.1, amsgrad=amsgrad, backend=backend)
    optimizer.step(W, {"W": g})
    g[3] = math.nan
    optimizer.step(W, {"W": g})
    g[3] = 1
    optimizer.step(W, {"W": g})
    assert np.isnan(W["W"]).nonzero()[0].tolist() == [3]
