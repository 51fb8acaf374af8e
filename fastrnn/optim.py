"""Optimizers: what turns gradients into a step of the parameters.

All of them take dicts, tuples or lists of arrays and work in place, in one pass over each array.  Names,
defaults and results are those of `torch.optim`.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from operator import attrgetter, is_
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar, overload

import numpy as np

from fastrnn import backends
from fastrnn.checks import check_flag, check_number, check_size, kernel_array, own_arrays

if TYPE_CHECKING:
    from fastrnn.hints import BackendName, OptimizerState

__all__ = ["OPTIMIZERS", "SGD", "Adagrad", "Adam", "Optimizer", "RMSprop"]


def __dir__() -> list[str]:
    return sorted(__all__)


_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

#: Keys of what `Optimizer.state_dict` returns.
_STATE_KEYS = ("name", "options", "step", "state")

#: Arrays by the name of their parameter.
Arrays = dict[Hashable, np.ndarray]


class _Bound(NamedTuple):
    """Arrays that have been checked, and what the kernels take for them."""

    names: tuple[Hashable, ...]
    grad_names: tuple[Hashable, ...]
    params: tuple[np.ndarray, ...]
    grads: tuple[np.ndarray, ...]
    #: Flat views: of the parameters, of the gradients in the same order, and of each kind of state.
    flat_params: tuple[np.ndarray, ...]
    flat_grads: tuple[np.ndarray, ...]
    flat_state: dict[str, tuple[np.ndarray, ...]]
    #: Gradients in another memory order, each after the array that it is copied to at every step.
    copied: tuple[tuple[np.ndarray, np.ndarray], ...]
    #: The step that the state of these arrays was made for.
    first_step: int


_T = TypeVar("_T")


class _Setting(Generic[_T]):
    """An argument of an optimizer that may be read, and assigned: it counts from the next step on."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, optimizer: None, owner: type) -> Self: ...
    @overload
    def __get__(self, optimizer: Optimizer, owner: type) -> _T: ...
    def __get__(self, optimizer: Optimizer | None, owner: type) -> Self | _T:
        if optimizer is None:
            return self
        value: _T = optimizer._arguments()[self._name]
        return value

    def __set__(self, optimizer: Optimizer, value: _T) -> None:
        optimizer._assign(self._name, value)


class Optimizer(abc.ABC):
    """What the optimizers share: checks, state, and the step itself.

    Use one of `SGD`, `Adagrad`, `RMSprop` and `Adam`.  An optimizer belongs to one set of parameters, told
    apart by their names: its state is made at the first step.  It is used from one thread at a time, and so are the
    parameters that it updates.

    Every argument but `backend` is an attribute too.  It may be assigned at any time, is checked as the
    argument is, and counts from the next step on.

    Examples
    --------
    >>> optimizer = SGD(0.1)
    >>> optimizer.lr *= 0.5
    >>> optimizer.momentum = 0.9
    >>> optimizer
    SGD(lr=0.05, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=False)
    >>> optimizer.momentun = 0.5
    Traceback (most recent call last):
        ...
    AttributeError: SGD has no setting 'momentun': it has lr, momentum, dampening, weight_decay, nesterov
    """

    # No other attributes: a setting that is misspelt must not be lost.
    __slots__ = ("__weakref__", "_backend", "_bound", "_num_steps", "_options", "_state")

    #: Name in `state_dict`.
    name: str

    #: Kinds of state that can be made after the first step, when a setting asks for them.
    _late: ClassVar[frozenset[str]] = frozenset()

    _backend: str | None
    _options: dict[str, Any]
    _num_steps: int
    _state: dict[str, Arrays]
    _bound: _Bound | None

    lr = _Setting[float]()
    weight_decay = _Setting[float]()

    def __init__(self, arguments: dict[str, Any], backend: str | None) -> None:
        if backend is not None:
            backends.load(backend)
        self._backend = backend
        self._options = self._checked(self._as_options(arguments))
        self._num_steps = 0
        self._state = {slot: {} for slot in self._slots(self._options)}
        self._bound = None

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            super().__setattr__(name, value)
        except AttributeError:
            if hasattr(type(self), name):
                raise
            raise AttributeError(
                f"{type(self).__name__} has no setting {name!r}: it has {', '.join(self._arguments())}"
            ) from None

    # -- what the optimizers say of themselves ---------------------------------------------------

    @staticmethod
    @abc.abstractmethod
    def _checked(options: dict[str, Any]) -> dict[str, Any]:
        """`options` as numbers and bools of the right types and ranges."""

    @staticmethod
    @abc.abstractmethod
    def _slots(options: dict[str, Any]) -> dict[str, float]:
        """Kinds of state that these options use, each with its first value."""

    @abc.abstractmethod
    def _update(self, kernels: ModuleType, bound: _Bound, step: int) -> None:
        """Run the kernel."""

    def _arguments(self) -> dict[str, Any]:
        """Arguments of ``__init__`` that make an optimizer with the options of this one."""
        return self._options

    @staticmethod
    def _as_options(arguments: dict[str, Any]) -> dict[str, Any]:
        """The options that these arguments mean, not yet checked."""
        return arguments

    def _assign(self, name: str, value: Any) -> None:
        """Take another value of one argument."""
        options = self._checked(self._as_options({**self._arguments(), name: value}))
        before, slots = self._slots(self._options), self._slots(options)
        if self._num_steps:
            for slot, first in slots.items():
                if before.get(slot, first) != first:
                    raise ValueError(
                        f"{name} can be set before the first step only, as {slot!r} began with it, got {value!r} "
                        f"after {self._num_steps} steps"
                    )
                if not (self._state.get(slot) or slot in self._late):
                    raise ValueError(
                        f"{name} = {value!r} can be set before the first step only: {self._num_steps} steps have "
                        f"kept no {slot!r}"
                    )
        # The momentum of before is gone on with when it is wanted again, as in PyTorch.
        kept = [slot for slot, arrays in self._state.items() if arrays and slot in self._late]
        self._state = {slot: self._state.get(slot, {}) for slot in (*slots, *kept)}
        if slots != before:
            self._bound = None
        self._options = options

    # -- what users call -------------------------------------------------------------------------

    @property
    def options(self) -> dict[str, Any]:
        """The settings, `lr` among them; a copy."""
        return dict(self._options)

    @property
    def num_steps(self) -> int:
        """Steps taken so far."""
        return self._num_steps

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._arguments().items())
        return f"{type(self).__name__}({shown})"

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in Optimizer.__slots__ if name != "__weakref__"}
        # A copy of the optimizer must not copy the parameters.
        return {**getattr(self, "__dict__", {}), **own, "_bound": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in own_arrays(state).items():
            setattr(self, name, value)

    def step(
        self,
        parameters: Mapping[Any, np.ndarray] | Sequence[np.ndarray],
        grads: Mapping[Any, np.ndarray] | Sequence[np.ndarray],
    ) -> None:
        """Update the parameters, in place.

        Parameters
        ----------
        parameters : dict of name to ndarray, float32 or float64
            Of any shape; writable, C-contiguous, and none overlaps another array here.  At later steps:
            of the same names, shapes and dtypes.  Or a tuple or list of such arrays, whose names are
            their positions.
        grads : dict of name to ndarray
            Gradient of each parameter, of its name, shape and dtype, in any memory order; not modified.
            Or a tuple or list, as long as that of the parameters.

        Raises
        ------
        TypeError, ValueError
            If an array is not as above, or a name is missing or not expected; nothing is modified then.

        Notes
        -----
        The arrays of the last call are known again when they come back, and are not checked anew: a
        training loop that keeps its arrays pays about 2 microseconds beside the arithmetic.  A gradient that
        is not C-contiguous is copied at each step.

        Examples
        --------
        >>> import numpy as np
        >>> W = np.array([1.0, -2.0])
        >>> optimizer = SGD(0.1)
        >>> optimizer.step({"W": W}, {"W": np.array([1.0, 1.0])})
        >>> W
        array([ 0.9, -2.1])

        The five weights of a `SimpleRNN`, and what its ``loss_and_grads`` returns:

        >>> from fastrnn import SimpleRNN
        >>> rnn = SimpleRNN(3, 8, 3, rng=0)
        >>> loss, grads, h = rnn.loss_and_grads([0, 1], [1, 2], np.zeros((8, 1)))
        >>> Adam().step((rnn.Wxh, rnn.Whh, rnn.Why, rnn.bh, rnn.by), grads)
        """
        if type(parameters) is not dict or type(grads) is not dict:
            parameters, grads = _by_name(parameters, grads)
        kernels = backends.kernels(self._backend)
        bound = self._bound
        if bound is None or not _is_bound(bound, parameters, grads):
            bound = self._bind(parameters, grads)
        for ordered, g in bound.copied:
            ordered[...] = g
        step = self._num_steps + 1
        self._update(kernels, bound, step)
        _set_num_steps(self, step)

    def state_dict(self) -> OptimizerState:
        """All that a copy of the optimizer needs to go on with the same bits.

        Returns
        -------
        dict
            ``"name"``, of the kind of optimizer; ``"options"``, a dict of numbers and bools; ``"step"``,
            the number of steps taken; ``"state"``, a dict of kind of state to dict of parameter name to
            ndarray, copied.  A kind that the next step makes has no arrays.

        Examples
        --------
        >>> import numpy as np
        >>> optimizer = Adam()
        >>> optimizer.step({"W": np.ones(2)}, {"W": np.ones(2)})
        >>> state = optimizer.state_dict()
        >>> state["name"], state["step"], list(state["state"])
        ('adam', 1, ['exp_avg', 'exp_avg_sq'])
        >>> state["state"]["exp_avg"]["W"]
        array([0.1, 0.1])
        """
        return {
            "name": self.name,
            "options": dict(self._options),
            "step": self._num_steps,
            "state": {slot: {n: a.copy() for n, a in arrays.items()} for slot, arrays in self._state.items()},
        }

    def load_state_dict(self, mapping: Mapping[str, Any] | OptimizerState) -> None:
        """Go on where the optimizer stood whose `state_dict` this is: options, step and state.

        Parameters
        ----------
        mapping : dict
            As `state_dict` returns it; arrays are copied.

        Raises
        ------
        TypeError, ValueError
            If it is of another kind of optimizer, or a key, option or array is missing, not expected or
            not as it must be; the optimizer stays as it was then.

        Examples
        --------
        >>> import numpy as np
        >>> before, after = SGD(0.1, momentum=0.9), SGD(0.2)
        >>> before.step({"W": np.ones(2)}, {"W": np.ones(2)})
        >>> after.load_state_dict(before.state_dict())
        >>> after
        SGD(lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=False)
        """
        given = _as_dict(mapping, "mapping")
        _check_keys(given, _STATE_KEYS, "mapping")
        if given["name"] != self.name:
            raise ValueError(f"mapping['name'] must be {self.name!r}, got {given['name']!r}")
        options = _as_dict(given["options"], "mapping['options']")
        _check_keys(options, self._options, "mapping['options']")
        options = self._checked({name: options[name] for name in self._options})
        step = check_size(given["step"], "mapping['step']", minimum=0)
        slots = self._slots(options)
        state = _as_dict(given["state"], "mapping['state']")
        unused = [slot for slot in self._late if slot in state and slot not in slots]
        _check_keys(state, [*slots, *unused], "mapping['state']")
        loaded = {slot: _copies(state[slot], f"mapping['state'][{slot!r}]") for slot in (*slots, *unused)}
        _check_slots(loaded, step, self._late)
        self._options, self._num_steps, self._state, self._bound = options, step, loaded, None

    # -- binding ---------------------------------------------------------------------------------

    def _bind(self, parameters: Mapping[Any, np.ndarray], grads: Mapping[Any, np.ndarray]) -> _Bound:
        """Check the arrays, and make the state if there is none."""
        if not parameters:
            raise ValueError("parameters must hold at least one array, got none")
        for name, W in parameters.items():
            _check_array(W, "parameters", name)
            _check_in_place(W, "parameters", name)
        _check_keys(grads, parameters, "grads")
        for name, W in parameters.items():
            _check_array(grads[name], "grads", name)
            _check_alike(grads[name], "grads", name, W, "the parameter")
        # A kernel reads a copy of what is in another memory order; that is taken before anything is written.
        copied = {
            name: np.empty(g.shape, g.dtype)
            for name, g in grads.items()
            if not (g.flags.c_contiguous and g.flags.aligned)
        }
        _check_overlap(parameters, {name: g for name, g in grads.items() if name not in copied})
        state, slots = dict(self._state), self._slots(self._options)
        known: Arrays = next(filter(None, state.values()), {})
        if known:
            _check_keys(parameters, known, "parameters", "as at the steps before")
            for name, W in parameters.items():
                _check_alike(W, "parameters", name, known[name], "the optimizer's state")
        fresh = [slot for slot in slots if not state[slot]]
        for slot in fresh:
            state[slot] = {name: np.full(W.shape, slots[slot], W.dtype) for name, W in parameters.items()}
        names = tuple(parameters)
        bound = _Bound(
            names,
            tuple(grads),
            tuple(parameters.values()),
            tuple(grads.values()),
            _flat(parameters.values()),
            _flat(copied.get(name, grads[name]) for name in names),
            {slot: _flat(state[slot][name] for name in names) for slot in slots},
            tuple((ordered, grads[name]) for name, ordered in copied.items()),
            self._num_steps + 1 if fresh else 0,
        )
        self._state, self._bound = state, bound
        return bound


#: As assigning it, without the way through `Optimizer.__setattr__`, which is for users.
_set_num_steps = Optimizer.__dict__["_num_steps"].__set__


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    With ``x = g + weight_decay w``: ``w -= lr x``, or with momentum ``b = momentum b + (1 - dampening) x``
    (the first step that has momentum takes ``b = x``) and ``w -= lr b``, or after Nesterov
    ``w -= lr (x + momentum b)``.

    Parameters
    ----------
    lr : float
        Learning rate, at least 0.
    momentum : float, default 0.0
        At least 0; 0 is none.
    dampening : float, default 0.0
        Share of the gradient that does not enter the momentum.
    weight_decay : float, default 0.0
        At least 0.
    nesterov : bool, default False
        Wants momentum, and no dampening.
    backend : {"cython", "numba", "numpy"} or None
        None follows `fastrnn.backend` at every step.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the above.
    BackendUnavailable
        If the backend that was named is missing.

    Examples
    --------
    >>> import numpy as np
    >>> W = np.array([1.0])
    >>> optimizer = SGD(0.1, momentum=0.5)
    >>> for _ in range(2):
    ...     optimizer.step({"W": W}, {"W": np.ones(1)})
    >>> W
    array([0.75])
    """

    __slots__ = ()
    name = "sgd"
    _late = frozenset({"momentum_buffer"})

    momentum = _Setting[float]()
    dampening = _Setting[float]()
    nesterov = _Setting[bool]()

    def __init__(
        self,
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        backend: BackendName | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(options, backend)

    @staticmethod
    def _checked(options: dict[str, Any]) -> dict[str, Any]:
        checked = {
            "lr": _number(options["lr"], "lr"),
            "momentum": _number(options["momentum"], "momentum"),
            "dampening": check_number(options["dampening"], "dampening"),
            "weight_decay": _number(options["weight_decay"], "weight_decay"),
            "nesterov": check_flag(options["nesterov"], "nesterov"),
        }
        if checked["nesterov"] and not (checked["momentum"] > 0 and checked["dampening"] == 0):
            raise ValueError(
                f"nesterov wants a positive momentum and no dampening, got momentum = "
                f"{checked['momentum']} and dampening = {checked['dampening']}"
            )
        return checked

    @staticmethod
    def _slots(options: dict[str, Any]) -> dict[str, float]:
        return {"momentum_buffer": 0.0} if options["momentum"] else {}

    def _update(self, kernels: ModuleType, bound: _Bound, step: int) -> None:
        o = self._options
        buffers = bound.flat_state.get("momentum_buffer", ())
        kernels.sgd(
            bound.flat_params, bound.flat_grads, buffers, o["lr"], o["momentum"], o["dampening"],
            o["weight_decay"], o["nesterov"], 1 if step == bound.first_step else 2,
        )  # fmt: skip


class Adagrad(Optimizer):
    """Adagrad: steps shrink with the sum of the squared gradients so far.

    With ``x = g + weight_decay w``: ``s += x^2`` and
    ``w -= lr / (1 + (step - 1) lr_decay) x / (sqrt(s) + eps)``.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, at least 0.
    lr_decay : float, default 0.0
        At least 0.
    weight_decay : float, default 0.0
        At least 0.
    initial_accumulator_value : float, default 0.0
        What the sums start from, at least 0; can be set before the first step only.
    eps : float, default 1e-10
        At least 0.  With 0, and sums that start from 0, an entry whose gradient is 0 becomes NaN at the
        first step (0 / 0), as in PyTorch.
    backend : {"cython", "numba", "numpy"} or None
        None follows `fastrnn.backend` at every step.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the above.
    BackendUnavailable
        If the backend that was named is missing.

    Examples
    --------
    >>> import numpy as np
    >>> W = np.array([1.0])
    >>> Adagrad(0.1).step({"W": W}, {"W": np.array([5.0])})
    >>> W
    array([0.9])

    The update of min-char-rnn, ``mem += d * d; W -= lr * d / np.sqrt(mem + 1e-8)``, after its clipping of
    every entry to [-5, 5]:

    >>> from fastrnn import SimpleRNN
    >>> rnn = SimpleRNN(4, 16, 4, rng=0)
    >>> optimizer = Adagrad(0.1, initial_accumulator_value=1e-8, eps=0)
    >>> h = np.zeros((16, 1))
    >>> loss, grads, _ = rnn.loss_and_grads([0, 1, 2], [1, 2, 3], h, clip="value", clip_threshold=5)
    >>> optimizer.step((rnn.Wxh, rnn.Whh, rnn.Why, rnn.bh, rnn.by), grads)
    >>> rnn.loss_and_grads([0, 1, 2], [1, 2, 3], h)[0] < loss
    True
    """

    __slots__ = ()
    name = "adagrad"

    lr_decay = _Setting[float]()
    initial_accumulator_value = _Setting[float]()
    eps = _Setting[float]()

    def __init__(
        self,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        backend: BackendName | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
        }
        super().__init__(options, backend)

    @staticmethod
    def _checked(options: dict[str, Any]) -> dict[str, Any]:
        return {name: _number(value, name) for name, value in options.items()}

    @staticmethod
    def _slots(options: dict[str, Any]) -> dict[str, float]:
        return {"sum": options["initial_accumulator_value"]}

    def _update(self, kernels: ModuleType, bound: _Bound, step: int) -> None:
        o = self._options
        kernels.adagrad(
            bound.flat_params, bound.flat_grads, bound.flat_state["sum"], o["lr"], o["lr_decay"],
            o["weight_decay"], o["eps"], step,
        )  # fmt: skip


class RMSprop(Optimizer):
    """RMSprop: steps divided by the root of a running average of the squared gradients.

    With ``x = g + weight_decay w``: ``v = alpha v + (1 - alpha) x^2``, ``u = x / (sqrt(v) + eps)`` and
    ``w -= lr u``, or with momentum ``b = momentum b + u`` and ``w -= lr b``.  Centered, the root is of the
    variance ``v - m^2``, where ``m = alpha m + (1 - alpha) x``.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate, at least 0.
    alpha : float, default 0.99
        What the averages keep, in [0, 1].
    eps : float, default 1e-8
        At least 0.
    weight_decay : float, default 0.0
        At least 0.
    momentum : float, default 0.0
        At least 0; 0 is none.
    centered : bool, default False
        Divide by the gradient's estimated standard deviation, not by the root of its mean square.
    backend : {"cython", "numba", "numpy"} or None
        None follows `fastrnn.backend` at every step.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the above.
    BackendUnavailable
        If the backend that was named is missing.

    Notes
    -----
    Where rounding takes the variance below 0, it counts as 0; PyTorch gives NaN there.

    `momentum` may be set at any time, and begins with ``b = 0``.  `centered` can be turned on before the first
    step only, as ``m`` must have seen the gradients that ``v`` has seen; it can be turned off at any time.

    Examples
    --------
    >>> import numpy as np
    >>> W = np.array([1.0])
    >>> RMSprop(0.1, alpha=0.75).step({"W": W}, {"W": np.array([5.0])})
    >>> W.round(6)
    array([0.8])
    """

    __slots__ = ()
    name = "rmsprop"
    _late = frozenset({"momentum_buffer"})

    alpha = _Setting[float]()
    eps = _Setting[float]()
    momentum = _Setting[float]()
    centered = _Setting[bool]()

    def __init__(
        self,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        backend: BackendName | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
        }
        super().__init__(options, backend)

    @staticmethod
    def _checked(options: dict[str, Any]) -> dict[str, Any]:
        return {
            "lr": _number(options["lr"], "lr"),
            "alpha": _number(options["alpha"], "alpha", "[0, 1]", lambda x: x <= 1),
            "eps": _number(options["eps"], "eps"),
            "weight_decay": _number(options["weight_decay"], "weight_decay"),
            "momentum": _number(options["momentum"], "momentum"),
            "centered": check_flag(options["centered"], "centered"),
        }

    @staticmethod
    def _slots(options: dict[str, Any]) -> dict[str, float]:
        slots = {"square_avg": 0.0}
        if options["momentum"]:
            slots["momentum_buffer"] = 0.0
        if options["centered"]:
            slots["grad_avg"] = 0.0
        return slots

    def _update(self, kernels: ModuleType, bound: _Bound, step: int) -> None:
        o, state = self._options, bound.flat_state
        kernels.rmsprop(
            bound.flat_params, bound.flat_grads, state["square_avg"], state.get("momentum_buffer", ()),
            state.get("grad_avg", ()), o["lr"], o["alpha"], o["eps"], o["weight_decay"], o["momentum"],
        )  # fmt: skip


class Adam(Optimizer):
    """Adam: running averages of the gradient and of its square.

    With ``x = g + weight_decay w``: ``m = beta1 m + (1 - beta1) x``, ``v = beta2 v + (1 - beta2) x^2`` and
    ``w -= lr (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)``.

    Parameters
    ----------
    lr : float, default 0.001
        Learning rate, at least 0.
    betas : pair of float, default (0.9, 0.999)
        What the two averages keep, each in [0, 1).
    eps : float, default 1e-8
        At least 0.
    weight_decay : float, default 0.0
        At least 0; it is added to the gradient, as in `torch.optim.Adam`, not decoupled as in AdamW.
    backend : {"cython", "numba", "numpy"} or None
        None follows `fastrnn.backend` at every step.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the above.
    BackendUnavailable
        If the backend that was named is missing.

    Examples
    --------
    >>> import numpy as np
    >>> W = np.array([1.0])
    >>> Adam(0.1).step({"W": W}, {"W": np.array([5.0])})
    >>> W.round(6)
    array([0.9])
    """

    __slots__ = ()
    name = "adam"

    betas = _Setting[tuple[float, float]]()
    eps = _Setting[float]()

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        backend: BackendName | None = None,
    ) -> None:
        super().__init__({"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}, backend)

    @staticmethod
    def _as_options(arguments: dict[str, Any]) -> dict[str, Any]:
        options = dict(arguments)
        betas = options.pop("betas")
        if not isinstance(betas, (tuple, list)):
            raise TypeError(f"betas must be a pair of numbers, got {type(betas).__name__}")
        if len(betas) != 2:
            raise ValueError(f"betas must be a pair of numbers, got {len(betas)}")
        return options | {"beta1": betas[0], "beta2": betas[1]}

    @staticmethod
    def _checked(options: dict[str, Any]) -> dict[str, Any]:
        return {
            "lr": _number(options["lr"], "lr"),
            "beta1": _number(options["beta1"], "betas[0]", "[0, 1)", lambda x: x < 1),
            "beta2": _number(options["beta2"], "betas[1]", "[0, 1)", lambda x: x < 1),
            "eps": _number(options["eps"], "eps"),
            "weight_decay": _number(options["weight_decay"], "weight_decay"),
        }

    @staticmethod
    def _slots(options: dict[str, Any]) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def _arguments(self) -> dict[str, Any]:
        o = self._options
        betas = (o["beta1"], o["beta2"])
        return {"lr": o["lr"], "betas": betas, "eps": o["eps"], "weight_decay": o["weight_decay"]}

    def _update(self, kernels: ModuleType, bound: _Bound, step: int) -> None:
        o, state = self._options, bound.flat_state
        kernels.adam(
            bound.flat_params, bound.flat_grads, state["exp_avg"], state["exp_avg_sq"], o["lr"], o["beta1"],
            o["beta2"], o["eps"], o["weight_decay"], step,
        )  # fmt: skip


def _momentum(lr: float, *, backend: BackendName | None = None) -> SGD:
    return SGD(lr, momentum=0.9, backend=backend)


#: Name -> maker of an optimizer from a learning rate and, by keyword, a backend.
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "momentum": _momentum,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "adam": Adam,
}

_writeable = attrgetter("flags.writeable")

# -- checks ----------------------------------------------------------------------------------------


def _is_bound(bound: _Bound, parameters: dict[Any, np.ndarray], grads: dict[Any, np.ndarray]) -> bool:
    """Whether these are the arrays that have been checked, and still are writable."""
    params = bound.params
    return (
        tuple(parameters) == bound.names
        and tuple(grads) == bound.grad_names
        and all(map(is_, parameters.values(), params))
        and all(map(is_, grads.values(), bound.grads))
        and all(map(_writeable, params))
    )


def _flat(arrays: Iterable[np.ndarray]) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(a).reshape(-1) for a in arrays)


def _number(
    value: Any, name: str, interval: str = "", inside: Callable[[float], bool] = math.isfinite
) -> float:
    """`value` as a finite number of at least 0, and `inside` what `interval` says."""
    number = check_number(value, name)
    if number < 0 or not inside(number):
        wanted = f"in {interval}" if interval else "at least 0"
        raise ValueError(f"{name} must be {wanted}, got {number}")
    return number


def _by_name(parameters: Any, grads: Any) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Two dicts of what may be mappings, or sequences whose elements go by their positions."""
    both = {"parameters": parameters, "grads": grads}
    for name, value in both.items():
        if isinstance(value, (tuple, list)):
            both[name] = dict(enumerate(value))
        elif not isinstance(value, Mapping):
            raise TypeError(
                f"{name} must be a mapping from name to array, or a tuple or list of arrays, got "
                f"{type(value).__name__}"
            )
        else:
            both[name] = dict(value)
    if (
        not isinstance(parameters, Mapping)
        and not isinstance(grads, Mapping)
        and len(parameters) != len(grads)
    ):
        raise ValueError(f"grads must hold {len(parameters)} arrays, as parameters do, got {len(grads)}")
    return both["parameters"], both["grads"]


def _as_dict(value: Any, name: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping from name to value, got {type(value).__name__}")
    return dict(value)


def _check_keys(given: Mapping[Any, Any], wanted: Iterable[Any], name: str, why: str = "") -> None:
    """`given` has just the keys of `wanted`, in any order."""
    wanted = tuple(wanted)
    problems = []
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted]
    if missing:
        problems.append(f"missing {', '.join(map(repr, missing))}")
    if unexpected:
        problems.append(f"not expected {', '.join(map(repr, unexpected))}")
    if problems:
        names = ", ".join(map(repr, wanted)) or "none"
        raise ValueError(f"{name} must have the keys {names}{why and f', {why}'}; {' and '.join(problems)}")


def _check_array(array: Any, kind: str, name: Any) -> None:
    """`array`, which is ``kind[name]``, is an array of a dtype that the kernels know."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{kind}[{name!r}] must be an ndarray, got {type(array).__name__}")
    if array.dtype not in _DTYPES:
        raise TypeError(f"{kind}[{name!r}] must be of dtype float32 or float64, got {array.dtype}")


def _check_in_place(array: np.ndarray, kind: str, name: Any) -> None:
    """`array`, which is ``kind[name]``, is one that the kernels can write to."""
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        raise ValueError(
            f"{kind}[{name!r}] must be C-contiguous and aligned, got shape {array.shape} with strides "
            f"{array.strides}"
        )
    if not flags.writeable:
        raise ValueError(f"{kind}[{name!r}] is read-only, and would be updated in place")


def _check_alike(array: np.ndarray, kind: str, name: Any, other: np.ndarray, whose: str) -> None:
    """`array`, which is ``kind[name]``, has the shape and dtype of `other`."""
    if array.shape != other.shape:
        raise ValueError(f"{kind}[{name!r}] has shape {array.shape}, {whose} has {other.shape}")
    if array.dtype != other.dtype:
        raise TypeError(f"{kind}[{name!r}] has dtype {array.dtype}, {whose} has {other.dtype}")


def _check_overlap(parameters: Mapping[Any, np.ndarray], grads: Mapping[Any, np.ndarray]) -> None:
    """No parameter shares memory with another array; gradients may share theirs."""
    spans = []
    for kind, arrays in (("parameters", parameters), ("grads", grads)):
        for name, array in arrays.items():
            start = array.__array_interface__["data"][0]
            if array.size:
                spans.append((start, start + array.nbytes, kind, name))
    spans.sort(key=lambda span: span[:2])
    # The one that reaches furthest so far, of the parameters and of all.
    furthest: tuple[Any, ...] = (0, -1)
    furthest_parameter: tuple[Any, ...] = (0, -1)
    for span in spans:
        rival = furthest if span[2] == "parameters" else furthest_parameter
        if span[0] < rival[1]:
            raise ValueError(f"{rival[2]}[{rival[3]!r}] and {span[2]}[{span[3]!r}] share memory")
        furthest = max(furthest, span, key=lambda s: s[1])
        if span[2] == "parameters":
            furthest_parameter = max(furthest_parameter, span, key=lambda s: s[1])


def _copies(value: Any, name: str) -> Arrays:
    """Copies of the arrays of one kind of state."""
    arrays = _as_dict(value, name)
    copies: Arrays = {}
    for key, array in arrays.items():
        shown = f"{name}[{key!r}]"
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{shown} must be an ndarray, got {type(array).__name__}")
        native = array.dtype.newbyteorder("=")
        if native not in _DTYPES:
            raise TypeError(f"{shown} must be of dtype float32 or float64, got {array.dtype}")
        copies[key] = kernel_array(np.array(array, native, order="C"), native)
    return copies


def _check_slots(state: dict[str, Arrays], step: int, late: AbstractSet[str]) -> None:
    """All kinds of state are of the same parameters, and there are some from the first step on; those that
    may be made late can be without arrays."""
    if not state:
        return
    first, reference = next(iter(state.items()))
    if first in late:
        first, reference = next((item for item in state.items() if item[1]), (first, reference))
    if bool(reference) != bool(step) and not (step and first in late):
        raise ValueError(
            f"mapping['state'] must hold arrays from the first step on, got mapping['step'] = {step} and "
            f"{len(reference)} arrays in {first!r}"
        )
    for slot, arrays in state.items():
        if arrays or slot not in late:
            _check_keys(arrays, reference, f"mapping['state'][{slot!r}]")
        for name, array in arrays.items():
            _check_alike(array, f"mapping['state'][{slot!r}]", name, reference[name], f"that of {first!r}")
