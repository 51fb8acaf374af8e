"""Optimizers: what turns gradients into a step of the parameters.

All of them take dicts, tuples or lists of arrays and work in place, in one pass over each array.  Names,
defaults and results are those of `torch.optim`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from fastrnn.checks import check_flag, check_number
from fastrnn.optimizer import Bound, Optimizer, Setting, number

if TYPE_CHECKING:
    from fastrnn.hints import BackendName

__all__ = ["OPTIMIZERS", "SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop"]


def __dir__() -> list[str]:
    return sorted(__all__)


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

    momentum = Setting(number)
    dampening = Setting(check_number)
    nesterov = Setting(check_flag)

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
        super().__init__(
            backend,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )

    @classmethod
    def _checked(cls, options: dict[str, Any]) -> dict[str, Any]:
        checked = super()._checked(options)
        if checked["nesterov"] and not (checked["momentum"] > 0 and checked["dampening"] == 0):
            raise ValueError(
                f"nesterov wants a positive momentum and no dampening, got momentum = "
                f"{checked['momentum']} and dampening = {checked['dampening']}"
            )
        return checked

    @staticmethod
    def _slots(options: dict[str, Any]) -> dict[str, float]:
        return {"momentum_buffer": 0.0} if options["momentum"] else {}

    def _update(self, kernels: ModuleType, bound: Bound, step: int) -> None:
        o = self._options
        fresh = 1.0 if step == bound.first_step else 1.0 - o["dampening"]
        numbers = o["lr"], o["momentum"], fresh, o["weight_decay"], float(o["nesterov"])
        bound.optimize(kernels, "sgd", ("momentum_buffer",), numbers)


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

    lr_decay = Setting(number)
    initial_accumulator_value = Setting(number)
    eps = Setting(number)

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
        super().__init__(
            backend,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
        )

    @staticmethod
    def _slots(options: dict[str, Any]) -> dict[str, float]:
        return {"sum": options["initial_accumulator_value"]}

    def _update(self, kernels: ModuleType, bound: Bound, step: int) -> None:
        o = self._options
        numbers = o["lr"] / (1.0 + (step - 1) * o["lr_decay"]), o["eps"], o["weight_decay"]
        bound.optimize(kernels, "adagrad", ("sum",), numbers)


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

    alpha = Setting(functools.partial(number, interval="[0, 1]", inside=lambda x: x <= 1))
    eps = Setting(number)
    momentum = Setting(number)
    centered = Setting(check_flag)

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
        super().__init__(
            backend,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
        )

    @staticmethod
    def _slots(options: dict[str, Any]) -> dict[str, float]:
        slots = {"square_avg": 0.0}
        if options["momentum"]:
            slots["momentum_buffer"] = 0.0
        if options["centered"]:
            slots["grad_avg"] = 0.0
        return slots

    def _update(self, kernels: ModuleType, bound: Bound, step: int) -> None:
        o = self._options
        numbers = o["lr"], o["alpha"], 1.0 - o["alpha"], o["momentum"], o["eps"], o["weight_decay"]
        bound.optimize(kernels, "rmsprop", ("square_avg", "momentum_buffer", "grad_avg"), numbers)


def _pair(value: Any, name: str) -> tuple[float, float]:
    """The two elements of a pair, as they are."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a pair of numbers, got {type(value).__name__}")
    if len(value) != 2:
        raise ValueError(f"{name} must be a pair of numbers, got {len(value)}")
    return value[0], value[1]


class Adam(Optimizer):
    """Adam: running averages of the gradient and of its square.

    With ``x = g + weight_decay w``: ``m = beta1 m + (1 - beta1) x``, ``v = beta2 v + (1 - beta2) x^2`` and
    ``w -= lr (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)``.  AMSGrad has the largest v so far
    under the root, ``top = max(top, v)``.

    Parameters
    ----------
    lr : float, default 0.001
        Learning rate, at least 0.
    betas : pair of float, default (0.9, 0.999)
        What the two averages keep, each in [0, 1).
    eps : float, default 1e-8
        At least 0.
    weight_decay : float, default 0.0
        At least 0; it is added to the gradient, as in `torch.optim.Adam`; `AdamW` has it apart.
    amsgrad : bool, default False
        Let no step be longer than the largest gradient so far allows.  It can be turned on before the first step
        only, as the largest v must be known; it can be turned off at any time.
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

    _added: ClassVar[dict[str, Any]] = {"amsgrad": False}

    betas = Setting(_pair)
    eps = Setting(number)
    amsgrad = Setting(check_flag)

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        backend: BackendName | None = None,
    ) -> None:
        super().__init__(backend, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)

    @staticmethod
    def _as_options(arguments: dict[str, Any]) -> dict[str, Any]:
        options = dict(arguments)
        beta1, beta2 = _pair(options.pop("betas"), "betas")
        return options | {"beta1": beta1, "beta2": beta2}

    @classmethod
    def _checked(cls, options: dict[str, Any]) -> dict[str, Any]:
        return {
            "lr": number(options["lr"], "lr"),
            "beta1": number(options["beta1"], "betas[0]", "[0, 1)", lambda x: x < 1),
            "beta2": number(options["beta2"], "betas[1]", "[0, 1)", lambda x: x < 1),
            "eps": number(options["eps"], "eps"),
            "weight_decay": number(options["weight_decay"], "weight_decay"),
            "amsgrad": check_flag(options["amsgrad"], "amsgrad"),
        }

    @staticmethod
    def _slots(options: dict[str, Any]) -> dict[str, float]:
        slots = {"exp_avg": 0.0, "exp_avg_sq": 0.0}
        return slots | {"max_exp_avg_sq": 0.0} if options["amsgrad"] else slots

    def _arguments(self) -> dict[str, Any]:
        o = self._options
        betas = (o["beta1"], o["beta2"])
        rest = {name: o[name] for name in ("eps", "weight_decay", "amsgrad")}
        return {"lr": o["lr"], "betas": betas} | rest

    def _update(self, kernels: ModuleType, bound: Bound, step: int) -> None:
        o = self._options
        beta1, beta2 = o["beta1"], o["beta2"]
        decay, shrink = self._decay()
        numbers = (
            o["lr"] / (1.0 - beta1**step), beta1, 1.0 - beta1, beta2, 1.0 - beta2,
            1.0 / math.sqrt(1.0 - beta2**step), o["eps"], decay, shrink,
        )  # fmt: skip
        bound.optimize(kernels, "adam", ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"), numbers)

    def _decay(self) -> tuple[float, float]:
        """The share of the parameters that is added to their gradient, and the one that they lose themselves."""
        return self._options["weight_decay"], 0.0


class AdamW(Adam):
    """Adam whose weight decay is apart from the gradient.

    Before each step of `Adam` with ``x = g``, the parameters shrink: ``w *= 1 - lr weight_decay``.

    Parameters
    ----------
    lr : float, default 0.001
        Learning rate, at least 0.
    betas : pair of float, default (0.9, 0.999)
        What the two averages keep, each in [0, 1).
    eps : float, default 1e-8
        At least 0.
    weight_decay : float, default 0.01
        At least 0.
    amsgrad : bool, default False
        As for `Adam`.
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
    >>> AdamW(0.1, weight_decay=0.5).step({"W": W}, {"W": np.array([5.0])})
    >>> W.round(6)
    array([0.85])
    """

    __slots__ = ()
    name = "adamw"

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        backend: BackendName | None = None,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, amsgrad, backend=backend)

    def _decay(self) -> tuple[float, float]:
        return 0.0, self._options["lr"] * self._options["weight_decay"]


def _momentum(lr: float, *, backend: BackendName | None = None) -> SGD:
    return SGD(lr, momentum=0.9, backend=backend)


#: Names of `CharRNN`'s optimizers: the keys of `OPTIMIZERS`.
OptimizerName: TypeAlias = Literal["adam", "adamw", "sgd", "momentum", "adagrad", "rmsprop"]

#: Name -> maker of an optimizer from a learning rate and, by keyword, a backend.
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "momentum": _momentum,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
}
