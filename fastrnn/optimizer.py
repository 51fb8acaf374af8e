"""What the optimizers share: settings, checks, state, and the step itself."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from operator import attrgetter, is_
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar, overload

import numpy as np

from fastrnn import backends, threads
from fastrnn.checks import check_number, check_size, describe, kernel_array, own_arrays
from fastrnn.errors import brief, brief_names

if TYPE_CHECKING:
    from fastrnn.hints import OptimizerState

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

#: Keys of what `Optimizer.state_dict` returns.
_STATE_KEYS = ("name", "options", "step", "state")

#: Arrays by the name of their parameter.
Arrays = dict[Hashable, np.ndarray]


class Bound(NamedTuple):
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
    #: Number of all parameters.
    size: int

    def optimize(
        self, kernels: ModuleType, name: str, slots: tuple[str, ...], numbers: tuple[float, ...]
    ) -> None:
        """Run the kernel called `name`, on these kinds of state."""
        state = self.flat_state
        states = tuple([state.get(slot, ()) for slot in slots])
        members = 1
        if self.size >= 2 * threads.SWEEP and kernels.HAS_TEAMS:
            members = threads.sweep(self.size, threads.allowed())
        kernels.optimize(name, self.flat_params, self.flat_grads, states, numbers, members)


_writeable = attrgetter("flags.writeable")

_T = TypeVar("_T")


def number(
    value: Any, name: str, interval: str = "", inside: Callable[[float], bool] = math.isfinite
) -> float:
    """`value` as a finite number of at least 0, and `inside` what `interval` says."""
    x = check_number(value, name)
    if x < 0 or not inside(x):
        wanted = f"in {interval}" if interval else "at least 0"
        raise ValueError(f"{name} must be {wanted}, got {x}")
    return x


class Setting(Generic[_T]):
    """An argument of an optimizer that may be read, and assigned: it counts from the next step on.

    `check` takes a value and the argument's name; it returns what the optimizer keeps, or raises.
    """

    def __init__(self, check: Callable[[Any, str], _T]) -> None:
        self.check = check

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

    Use one of its kinds, such as `SGD` or `Adam`.  An optimizer belongs to one set of parameters, told
    apart by their names: its state is made at the first step.  It is used from one thread at a time, and so are the
    parameters that it updates.

    Every argument but `backend` is an attribute too.  It may be assigned at any time, is checked as the
    argument is, and counts from the next step on.

    Examples
    --------
    >>> from fastrnn.optim import SGD
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

    #: Options that states of older versions do not have, with what they mean there.
    _added: ClassVar[dict[str, Any]] = {}

    _backend: str | None
    _options: dict[str, Any]
    _num_steps: int
    _state: dict[str, Arrays]
    _bound: Bound | None

    lr = Setting(number)
    weight_decay = Setting(number)

    def __init__(self, backend: str | None, **arguments: Any) -> None:
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
                f"{type(self).__name__} has no setting {brief(name)}: it has {', '.join(self._arguments())}"
            ) from None

    # -- what the optimizers say of themselves ---------------------------------------------------

    @classmethod
    def _checked(cls, options: dict[str, Any]) -> dict[str, Any]:
        """`options` as numbers and bools of the right types and ranges."""
        return {name: getattr(cls, name).check(value, name) for name, value in options.items()}

    @staticmethod
    @abc.abstractmethod
    def _slots(options: dict[str, Any]) -> dict[str, float]:
        """Kinds of state that these options use, each with its first value."""

    @abc.abstractmethod
    def _update(self, kernels: ModuleType, bound: Bound, step: int) -> None:
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
            if name == "_options":
                value = value | {
                    added: default for added, default in self._added.items() if added not in value
                }
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
        >>> from fastrnn.optim import SGD, Adam
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
        >>> from fastrnn.optim import Adam
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
        >>> from fastrnn.optim import SGD
        >>> before, after = SGD(0.1, momentum=0.9), SGD(0.2)
        >>> before.step({"W": np.ones(2)}, {"W": np.ones(2)})
        >>> after.load_state_dict(before.state_dict())
        >>> after
        SGD(lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=False)
        """
        given = _as_dict(mapping, "mapping")
        _check_keys(given, _STATE_KEYS, "mapping")
        if given["name"] != self.name:
            raise ValueError(f"mapping['name'] must be {self.name!r}, got {describe(given['name'])}")
        options = self._added | _as_dict(given["options"], "mapping['options']")
        _check_keys(options, self._options, "mapping['options']")
        options = self._checked({name: options[name] for name in self._options})
        step = check_size(given["step"], "mapping['step']", minimum=0)
        slots = self._slots(options)
        state = _as_dict(given["state"], "mapping['state']")
        unused = [slot for slot in self._late if slot in state and slot not in slots]
        _check_keys(state, [*slots, *unused], "mapping['state']")
        loaded = {
            slot: _copies(state[slot], f"mapping['state'][{brief(slot)}]") for slot in (*slots, *unused)
        }
        _check_slots(loaded, step, self._late)
        self._options, self._num_steps, self._state, self._bound = options, step, loaded, None

    # -- binding ---------------------------------------------------------------------------------

    def _bind(self, parameters: Mapping[Any, np.ndarray], grads: Mapping[Any, np.ndarray]) -> Bound:
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
        bound = Bound(
            names,
            tuple(grads),
            tuple(parameters.values()),
            tuple(grads.values()),
            _flat(parameters.values()),
            _flat(copied.get(name, grads[name]) for name in names),
            {slot: _flat(state[slot][name] for name in names) for slot in slots},
            tuple((ordered, grads[name]) for name, ordered in copied.items()),
            self._num_steps + 1 if fresh else 0,
            sum(W.size for W in parameters.values()),
        )
        self._state, self._bound = state, bound
        return bound


#: As assigning it, without the way through `Optimizer.__setattr__`, which is for users.
_set_num_steps = Optimizer.__dict__["_num_steps"].__set__


# -- checks ----------------------------------------------------------------------------------------


def _is_bound(bound: Bound, parameters: dict[Any, np.ndarray], grads: dict[Any, np.ndarray]) -> bool:
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
        problems.append(f"missing {brief_names(missing)}")
    if unexpected:
        problems.append(f"not expected {brief_names(unexpected)}")
    if problems:
        names = brief_names(wanted) or "none"
        raise ValueError(f"{name} must have the keys {names}{why and f', {why}'}; {' and '.join(problems)}")


def _check_array(array: Any, kind: str, name: Any) -> None:
    """`array`, which is ``kind[name]``, is an array of a dtype that the kernels know."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{kind}[{brief(name)}] must be an ndarray, got {type(array).__name__}")
    if array.dtype not in _DTYPES:
        raise TypeError(f"{kind}[{brief(name)}] must be of dtype float32 or float64, got {array.dtype}")


def _check_in_place(array: np.ndarray, kind: str, name: Any) -> None:
    """`array`, which is ``kind[name]``, is one that the kernels can write to."""
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        raise ValueError(
            f"{kind}[{brief(name)}] must be C-contiguous and aligned, got shape {array.shape} with strides "
            f"{array.strides}"
        )
    if not flags.writeable:
        raise ValueError(f"{kind}[{brief(name)}] is read-only, and would be updated in place")


def _check_alike(array: np.ndarray, kind: str, name: Any, other: np.ndarray, whose: str) -> None:
    """`array`, which is ``kind[name]``, has the shape and dtype of `other`."""
    if array.shape != other.shape:
        raise ValueError(f"{kind}[{brief(name)}] has shape {array.shape}, {whose} has {other.shape}")
    if array.dtype != other.dtype:
        raise TypeError(f"{kind}[{brief(name)}] has dtype {array.dtype}, {whose} has {other.dtype}")


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
            raise ValueError(f"{rival[2]}[{brief(rival[3])}] and {span[2]}[{brief(span[3])}] share memory")
        furthest = max(furthest, span, key=lambda s: s[1])
        if span[2] == "parameters":
            furthest_parameter = max(furthest_parameter, span, key=lambda s: s[1])


def _copies(value: Any, name: str) -> Arrays:
    """Copies of the arrays of one kind of state."""
    arrays = _as_dict(value, name)
    copies: Arrays = {}
    for key, array in arrays.items():
        shown = f"{name}[{brief(key)}]"
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
            f"{len(reference)} arrays in {brief(first)}"
        )
    for slot, arrays in state.items():
        if arrays or slot not in late:
            _check_keys(arrays, reference, f"mapping['state'][{brief(slot)}]")
        for name, array in arrays.items():
            _check_alike(
                array, f"mapping['state'][{brief(slot)}]", name, reference[name], f"that of {brief(first)}"
            )
