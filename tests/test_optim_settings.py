"""Settings of an optimizer that are assigned later count from the next step on."""

import copy
import math
import pickle
from functools import partial

import numpy as np
import pytest
from refusals import assert_unchanged, refused, snapshot
from support import assert_close, bits

from fastrnn.optim import SGD, Adagrad, Adam, AdamW, RMSprop

CLASSES = {"sgd": SGD, "adagrad": Adagrad, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}

#: Every setting of every optimizer, and another value for it that the defaults allow.
SETTINGS = {
    "sgd": {"lr": 0.03, "momentum": 0.7, "dampening": 0.2, "weight_decay": 0.3, "nesterov": True},
    "adagrad": {"lr": 0.03, "lr_decay": 0.4, "weight_decay": 0.3, "initial_accumulator_value": 0.2, "eps": 0.01},
    "rmsprop": {"lr": 0.03, "alpha": 0.6, "eps": 0.01, "weight_decay": 0.3, "momentum": 0.7, "centered": True},
    "adam": {"lr": 0.03, "betas": (0.5, 0.6), "eps": 0.01, "weight_decay": 0.3, "amsgrad": True},
    "adamw": {"lr": 0.03, "betas": (0.5, 0.6), "eps": 0.01, "weight_decay": 0.3, "amsgrad": True},
}  # fmt: skip
#: Those that count before the first step only.
FIRST = {
    ("adagrad", "initial_accumulator_value"),
    ("rmsprop", "centered"),
    ("adam", "amsgrad"),
    ("adamw", "amsgrad"),
}
ALL = [(kind, name) for kind, settings in SETTINGS.items() for name in settings]
LATER = [place for place in ALL if place not in FIRST]


def make(kind, backend=None, **options):
    defaults = {"momentum": 0.9} if options.get("nesterov") else {}
    return CLASSES[kind](**({"lr": 0.1} | defaults | options), backend=backend)


def gradient(dtype, step):
    return {"W": np.random.default_rng(step).normal(size=(5, 7)).astype(dtype)}


def weights(dtype):
    return {"W": np.random.default_rng(99).normal(size=(5, 7)).astype(dtype)}


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_argument_is_an_attribute(kind, name):
    value = SETTINGS[kind][name]
    given = make(kind, **{name: value})
    later = make(kind, **({"momentum": 0.9} if name == "nesterov" else {}))
    assert getattr(later, name) != value
    setattr(later, name, value)
    assert getattr(given, name) == getattr(later, name) == value
    assert type(getattr(later, name)) is type(value)
    assert repr(later) == repr(given)
    assert later.options == given.options
    assert list(later.state_dict()["state"]) == list(given.state_dict()["state"])
    assert f"{name}={value!r}" in repr(later)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_assigned_before_the_first_step_it_is_as_given(kind, name, dtype, backend):
    value = SETTINGS[kind][name]
    given = make(kind, backend, **{name: value})
    later = make(kind, backend, **({"momentum": 0.9} if name == "nesterov" else {}))
    setattr(later, name, value)
    W, V = weights(dtype), weights(dtype)
    plain, U = make(kind, backend, **({"momentum": 0.9} if name == "nesterov" else {})), weights(dtype)
    for step in range(4):
        given.step(W, gradient(dtype, step))
        later.step(V, gradient(dtype, step))
        plain.step(U, gradient(dtype, step))
    assert bits(*W.values()) == bits(*V.values())
    assert name == "dampening" or bits(*W.values()) != bits(*U.values())


# -- the equations, with settings that change ------------------------------------------------------------


class ByHand:
    """The equations in float64; what a setting needs is made when it is first wanted, as in PyTorch."""

    def __init__(self, kind, W):
        self.W, self.kind, self.step = W["W"].astype(np.float64), kind, 0
        self.buffer = self.mean = self.square = None
        self.top = 0

    def descend(self, g, o):
        self.step += 1
        x = g["W"].astype(np.float64)
        if self.kind == "adamw":
            self.W -= o["lr"] * o["weight_decay"] * self.W
        else:
            x = x + o["weight_decay"] * self.W
        self.W -= getattr(self, self.kind)(x, o)

    def sgd(self, x, o):
        if not o["momentum"]:
            return o["lr"] * x
        if self.buffer is None:
            self.buffer = x
        else:
            self.buffer = o["momentum"] * self.buffer + (1 - o["dampening"]) * x
        return o["lr"] * (x + o["momentum"] * self.buffer if o["nesterov"] else self.buffer)

    def adagrad(self, x, o):
        if self.square is None:
            self.square = o["initial_accumulator_value"]
        self.square = self.square + x * x
        return o["lr"] / (1 + (self.step - 1) * o["lr_decay"]) * x / (np.sqrt(self.square) + o["eps"])

    def rmsprop(self, x, o):
        self.square = o["alpha"] * (0 if self.square is None else self.square) + (1 - o["alpha"]) * x * x
        variance = self.square
        if o["centered"]:
            self.mean = o["alpha"] * (0 if self.mean is None else self.mean) + (1 - o["alpha"]) * x
            variance = np.maximum(variance - self.mean**2, 0)
        u = x / (np.sqrt(variance) + o["eps"])
        if not o["momentum"]:
            return o["lr"] * u
        self.buffer = o["momentum"] * (0 if self.buffer is None else self.buffer) + u
        return o["lr"] * self.buffer

    def adam(self, x, o):
        (b1, b2), t = o["betas"], self.step
        self.mean = b1 * (0 if self.mean is None else self.mean) + (1 - b1) * x
        self.square = b2 * (0 if self.square is None else self.square) + (1 - b2) * x * x
        self.top = np.maximum(self.top, self.square)
        square = self.top if o["amsgrad"] else self.square
        return o["lr"] * self.mean / (1 - b1**t) / (np.sqrt(square / (1 - b2**t)) + o["eps"])

    adamw = adam


def arguments(optimizer):
    return {name: getattr(optimizer, name) for name in SETTINGS[optimizer.name]}


def descend(optimizer, hand, W, steps, dtype):
    for step in steps:
        optimizer.step(W, gradient(dtype, step))
        hand.descend(gradient(dtype, step), arguments(optimizer))
    assert_close(W["W"], hand.W, 1e-12 if dtype == np.float64 else 2e-5)


@pytest.mark.parametrize(("kind", "name"), LATER)
def test_assigned_after_some_steps_it_counts_from_the_next(kind, name, dtype, backend):
    start = {"momentum": 0.5} if name in ("nesterov", "dampening") else {}
    optimizer, W = make(kind, backend, **start), weights(dtype)
    hand, unchanged, V = ByHand(kind, W), make(kind, backend, **start), weights(dtype)
    descend(optimizer, hand, W, range(3), dtype)
    before = bits(W["W"])
    setattr(optimizer, name, SETTINGS[kind][name])
    assert bits(W["W"]) == before
    descend(optimizer, hand, W, range(3, 7), dtype)
    for step in range(7):
        unchanged.step(V, gradient(dtype, step))
    assert np.abs(W["W"] - V["W"]).max() > 1e-3
    assert optimizer.num_steps == 7


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", CLASSES)
def test_random_changes(kind, seed, backend):
    """Assignments between steps, with copies, pickles and states in between; some are refused."""
    rng = np.random.default_rng([seed, *map(ord, kind)])
    optimizer, W = make(kind, backend), weights(np.float64)
    hand, step, refused = ByHand(kind, W), 0, 0
    for _ in range(12):
        name = list(SETTINGS[kind])[rng.integers(len(SETTINGS[kind]))]
        value = SETTINGS[kind][name]
        if rng.random() < 0.4:
            value = getattr(CLASSES[kind](0.1), name)
        before = (repr(optimizer), str(optimizer.state_dict()))
        try:
            setattr(optimizer, name, value)
        except ValueError:
            assert (repr(optimizer), str(optimizer.state_dict())) == before
            refused += 1
        if rng.random() < 0.3:
            optimizer = pickle.loads(pickle.dumps(optimizer))
        elif rng.random() < 0.3:
            other = make(kind, backend)
            other.load_state_dict(optimizer.state_dict())
            optimizer = other
        steps = int(rng.integers(3))
        descend(optimizer, hand, W, range(step, step + steps), np.float64)
        step += steps
    assert refused < 12


def test_momentum_comes_goes_and_comes_back(dtype, backend):
    """As in PyTorch: the first step that has it begins with the gradient, without dampening; what it was when
    it went is what it begins with when it comes back."""
    for kind in ("sgd", "rmsprop"):
        optimizer, W = make(kind, backend), weights(dtype)
        if kind == "sgd":
            optimizer.dampening = 0.5
        hand, step = ByHand(kind, W), 0
        for momentum in (0.0, 0.9, 0.0, 0.5):
            optimizer.momentum = momentum
            assert optimizer.momentum == momentum
            descend(optimizer, hand, W, range(step, step + 2), dtype)
            step += 2
            other = CLASSES[kind](7.0, backend=backend)
            other.load_state_dict(optimizer.state_dict())
            assert other.state_dict().keys() == optimizer.state_dict().keys()
            optimizer = other if momentum == 0 else copy.deepcopy(optimizer)


def test_a_state_between_the_setting_and_the_step():
    """Momentum that no step has had yet: a state without arrays of it, which loads."""
    optimizer, W = SGD(0.1, dampening=0.5), weights(np.float64)
    optimizer.step(W, gradient(np.float64, 0))
    optimizer.momentum = 0.9
    state = optimizer.state_dict()
    assert (state["step"], state["state"]) == (1, {"momentum_buffer": {}})
    other, V = SGD(0.5), {"W": W["W"].copy()}
    other.load_state_dict(state)
    for step in range(3):
        optimizer.step(W, gradient(np.float64, step))
        other.step(V, gradient(np.float64, step))
    assert bits(W["W"]) == bits(V["W"])
    optimizer, W = RMSprop(0.1), weights(np.float64)
    optimizer.step(W, gradient(np.float64, 0))
    optimizer.momentum = 0.9
    state = optimizer.state_dict()
    assert {slot: list(arrays) for slot, arrays in state["state"].items()} == {
        "square_avg": ["W"], "momentum_buffer": [],
    }  # fmt: skip
    RMSprop().load_state_dict(state)
    for slot, step, words in (
        ("square_avg", 1, r"from the first step on, got mapping\['step'\] = 1 and 0 arrays in 'square_avg'"),
        ("momentum_buffer", 0, r"from the first step on, got mapping\['step'\] = 0"),
    ):
        broken = copy.deepcopy(state) | {"step": step}
        broken["state"][slot] = {}
        with pytest.raises(ValueError, match=words):
            RMSprop().load_state_dict(broken)
    with pytest.raises(ValueError, match=r"got mapping\['step'\] = 0 and 1 arrays in 'momentum_buffer'"):
        SGD(0.1).load_state_dict(
            {"name": "sgd", "options": SGD(0.1, momentum=0.9).options, "step": 0,
             "state": {"momentum_buffer": {"W": np.ones(2)}}}
        )  # fmt: skip


def test_other_arrays_after_a_setting(backend):
    """The state stays that of its parameters, whichever arrays hold them."""
    optimizer, W = SGD(0.1, backend=backend), weights(np.float64)
    hand = ByHand("sgd", W)
    descend(optimizer, hand, W, range(2), np.float64)
    optimizer.momentum = 0.9
    descend(optimizer, hand, {"W": (W := W["W"].copy())}, range(2, 4), np.float64)
    with pytest.raises(ValueError, match="as at the steps before"):
        optimizer.step({"V": W}, {"V": W.copy()})


# -- what is refused ---------------------------------------------------------------------------------------


BAD = [
    ("lr", -0.1, ValueError, "lr must be at least 0, got -0.1"),
    ("lr", "fast", TypeError, "lr must be a real number, got str 'fast'"),
    ("weight_decay", math.nan, ValueError, "weight_decay must be a finite number"),
    ("weight_decay", None, TypeError, "weight_decay must be a real number"),
    ("momentum", -1, ValueError, "momentum must be at least 0"),
    ("momentum", True, TypeError, "momentum must be a real number"),
    ("dampening", math.inf, ValueError, "dampening must be a finite number"),
    ("nesterov", 1, TypeError, "nesterov must be a bool"),
    ("nesterov", True, ValueError, "nesterov wants a positive momentum and no dampening"),
    ("betas", (0.9, 1.0), ValueError, r"betas\[1\] must be in \[0, 1\), got 1.0"),
    ("betas", 0.9, TypeError, "betas must be a pair of numbers, got float"),
    ("betas", (0.9,), ValueError, "betas must be a pair of numbers, got 1"),
    ("eps", -1e-8, ValueError, "eps must be at least 0"),
    ("alpha", 1.5, ValueError, r"alpha must be in \[0, 1\], got 1.5"),
    ("centered", "yes", TypeError, "centered must be a bool"),
    ("lr_decay", -1, ValueError, "lr_decay must be at least 0"),
    ("initial_accumulator_value", -1, ValueError, "initial_accumulator_value must be at least 0"),
]


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(("name", "value", "error", "words"), BAD)
def test_bad_values_change_nothing(name, value, error, words, steps, backend):
    for kind in CLASSES:
        if name not in SETTINGS[kind]:
            continue
        optimizer, W = make(kind, backend), weights(np.float64)
        for step in range(steps):
            optimizer.step(W, gradient(np.float64, step))
        refused(partial(setattr, optimizer, name, value), error, match=words, optimizer=optimizer)
        optimizer.step(W, gradient(np.float64, 9))


@pytest.mark.parametrize(("kind", "name"), sorted(FIRST))
def test_what_counts_before_the_first_step_only(kind, name, backend):
    value = SETTINGS[kind][name]
    optimizer, W = make(kind, backend), weights(np.float64)
    optimizer.step(W, gradient(np.float64, 0))
    before = snapshot({"optimizer": optimizer})
    refused(partial(setattr, optimizer, name, value), ValueError,
            match=rf"{name} .* before the first step only.* 1 step", optimizer=optimizer)  # fmt: skip
    setattr(optimizer, name, getattr(optimizer, name))  # as it is
    assert_unchanged(before, {"optimizer": optimizer}, "by what it was")
    optimizer.step(W, gradient(np.float64, 1))


def test_centered_may_be_turned_off(dtype, backend):
    optimizer, W = make("rmsprop", backend, centered=True), weights(dtype)
    hand = ByHand("rmsprop", W)
    descend(optimizer, hand, W, range(3), dtype)
    optimizer.centered = False
    assert list(optimizer.state_dict()["state"]) == ["square_avg"]
    descend(optimizer, hand, W, range(3, 6), dtype)
    with pytest.raises(ValueError, match="centered = True can be set before the first step only: 6 steps"):
        optimizer.centered = True


@pytest.mark.parametrize(
    "name", ["weigth_decay", "learning_rate", "beta1", "betas", "nesterov", "param_groups"]
)
@pytest.mark.parametrize("kind", CLASSES)
def test_a_setting_that_does_not_exist(kind, name):
    optimizer = make(kind)
    if name in SETTINGS[kind]:
        return
    known = ", ".join(SETTINGS[kind])
    with pytest.raises(
        AttributeError, match=f"^{type(optimizer).__name__} has no setting '{name}': it has {known}$"
    ):
        setattr(optimizer, name, 1.0)
    assert not hasattr(optimizer, name)


@pytest.mark.parametrize("name", ["name", "num_steps", "options", "step", "state_dict"])
def test_what_is_no_setting_cannot_be_assigned(name):
    optimizer = Adam()
    with pytest.raises(AttributeError) as caught:
        setattr(optimizer, name, 3)
    assert "setting" not in str(caught.value)
    with pytest.raises(AttributeError):
        del optimizer.lr


def test_a_subclass_may_keep_what_it_wants(backend):
    class Scheduled(Adam):
        def __init__(self, warmup, **options):
            super().__init__(**options)
            self.warmup = warmup

        def step(self, parameters, grads):
            self.lr = 0.1 * min(1.0, (self.num_steps + 1) / self.warmup)
            super().step(parameters, grads)

    optimizer = Scheduled(4, weight_decay=0.1, backend=backend)
    other, W, V = Adam(weight_decay=0.1, backend=backend), weights(np.float64), weights(np.float64)
    for step, lr in enumerate((0.025, 0.05, 0.075, 0.1, 0.1)):
        optimizer.step(W, gradient(np.float64, step))
        other.lr = lr
        other.step(V, gradient(np.float64, step))
    assert_close(W["W"], V["W"])
    assert copy.deepcopy(optimizer).warmup == copy.copy(optimizer).warmup == 4


def test_a_copy_has_settings_of_its_own():
    for duplicate in (copy.copy, copy.deepcopy):
        optimizer = SGD(0.1)
        other = duplicate(optimizer)
        other.lr, other.momentum = 0.5, 0.9
        assert (optimizer.lr, optimizer.momentum) == (0.1, 0.0)
        assert list(optimizer.state_dict()["state"]) == []
