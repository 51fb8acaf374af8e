"""The attributes of a `SimpleRNN`: five weights that are the user's to read, change, assign and save.

Whatever way a weight comes in, it is checked before a kernel sees it: by assignment, past it through
``vars(rnn)``, in a pickle, or from a subclass that computes it.
"""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import as_array, check_dtype, check_real_array, check_size, kernel_array, own_arrays
from fastrnn.sharing import Shared
from fastrnn.threads import Trial

if TYPE_CHECKING:
    from fastrnn.hints import BackendName

__all__ = ["PARAMETERS", "SIZES", "Gradients", "SimpleWeights", "Space"]

#: The notes' five names, in their order.
PARAMETERS = ("Wxh", "Whh", "Why", "bh", "by")
SIZES = ("input_size", "hidden_size", "output_size")

#: Attributes that are checked when they are assigned.
_CHECKED = frozenset(PARAMETERS + SIZES)

#: What a copy needs beside the attributes.
_SETTINGS = ("_dtype", "_backend")

#: One array for each parameter, in the order of `PARAMETERS`.
Gradients = tuple[np.ndarray, ...]


class Space:
    """Memory of one call."""

    __slots__ = ("_probabilities", "_states", "_trial", "_trials", "_work")

    def __init__(self, dtype: np.dtype) -> None:
        self._trials: dict[object, Trial] = {}
        self._trial: Trial | None = None
        self._work = np.empty(0, dtype)
        self._states = self._probabilities = np.empty((0, 0), dtype)

    def begin(self, kind: object, most: int) -> int:
        """How many threads, at most `most`, a call of this kind is to have."""
        if most == 1:
            return 1
        self._trial = self._trials.setdefault(kind, Trial())
        return self._trial.begin(most)

    def end(self, T: int) -> None:
        """Note that it is done with its T time steps."""
        if self._trial is not None:
            self._trial.end(T)
            self._trial = None

    def work(self, size: int) -> np.ndarray:
        """Scratch space of at least `size` numbers."""
        if len(self._work) < size:
            self._work = np.empty(size, self._work.dtype)
        return self._work

    def steps(self, T: int, h: int, q: int) -> tuple[np.ndarray, np.ndarray]:
        """Room for the states before and after T time steps (T + 1, h), and their probabilities (T, q)."""
        if len(self._states) != T + 1:
            # Both or neither, whatever becomes of the second allocation.
            self._states, self._probabilities = (
                np.empty((T + 1, h), self._work.dtype),
                np.empty((T, q), self._work.dtype),
            )
        return self._states, self._probabilities


class SimpleWeights(Shared):
    """What a `SimpleRNN` needs beside its attributes.  In slots: ``vars(rnn)`` holds what the notes' class
    has in it, and a subclass of the user's what it adds."""

    __slots__ = (
        "_backend", "_d", "_dtype", "_grads", "_h", "_largest", "_params", "_q", "_shapes", "_spaces",
    )  # fmt: skip

    input_size: int
    hidden_size: int
    output_size: int
    Wxh: np.ndarray
    Whh: np.ndarray
    Why: np.ndarray
    bh: np.ndarray
    by: np.ndarray
    _backend: str | None
    _d: int
    _h: int
    _q: int
    _dtype: np.dtype
    _largest: float
    _shapes: tuple[tuple[int, int], ...]
    #: The weights that were checked; one that is another object in ``vars(rnn)`` was not.
    _params: Gradients
    _grads: Gradients | None
    #: Those that no call uses.  To take one and to put one back are single steps, which need no lock.
    _spaces: list[Space]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CHECKED and hasattr(self, "_params"):
            if name in SIZES:
                value = self._check_own_size(name, value)
            else:
                position = PARAMETERS.index(name)
                value = self._own_or_cast(name, value, self._shapes[position])
                super().__setattr__(name, value)
                self._params = (*self._params[:position], value, *self._params[position + 1 :])
                return
        super().__setattr__(name, value)

    def _set_up(
        self, sizes: tuple[int, int, int], params: Gradients, dtype: np.dtype, backend: str | None
    ) -> None:
        """Everything that is not an attribute."""
        d, h, q = self._d, self._h, self._q = sizes
        self._dtype = dtype
        self._largest = float(np.finfo(dtype).max)
        self._backend = backend
        self._shapes = ((h, d), (h, h), (q, h), (h, 1), (q, 1))
        self._grads = None
        self._spaces = []
        self._params = params

    def _take_attributes(self, dtype: Any = None, backend: BackendName | None = None) -> None:
        """Set up a model by its attributes: a subclass need not call ``super().__init__``."""
        missing = [name for name in PARAMETERS if not hasattr(self, name)]
        if missing:
            raise AttributeError(
                f"this {type(self).__name__} has no {', '.join(missing)} yet: call super().__init__, or "
                f"assign all of {', '.join(PARAMETERS)}"
            )
        given = [getattr(self, name) for name in PARAMETERS]
        if dtype is None:
            narrow = all(getattr(W, "dtype", None) == np.float32 for W in given)
            dtype = np.float32 if narrow else np.float64
        Wxh, Why = (as_array(W, name) for W, name in ((given[0], "Wxh"), (given[2], "Why")))
        for name, W in (("Wxh", Wxh), ("Why", Why)):
            if W.ndim != 2:
                raise ValueError(f"{name} must be a matrix, got shape {W.shape}")
        found = (Wxh.shape[1], Wxh.shape[0], Why.shape[0])
        d, h, q = (
            check_size(getattr(self, name, size), name) for name, size in zip(SIZES, found, strict=True)
        )
        # Nothing is known of the weights yet: each is another object than these.
        unknown: Any = tuple(object() for _ in PARAMETERS)
        self._set_up((d, h, q), unknown, check_dtype(dtype), backend)
        try:
            self._new_params()
        except BaseException:
            del self._params
            raise
        for name, size in zip(SIZES, (d, h, q), strict=True):
            setattr(self, name, size)

    def _check_own_size(self, name: str, value: Any) -> int:
        """A size as it is: the weights have it."""
        own = (self._d, self._h, self._q)[SIZES.index(name)]
        size = check_size(value, name)
        if size != own:
            raise ValueError(
                f"{name} is {own} and stays so, as the weights were made of it, got {size}: make a new "
                f"{type(self).__name__}"
            )
        return size

    def _new_params(self) -> Gradients:
        """The weights, some of which came past `__setattr__`: in ``vars(rnn)``, or from a property of a
        subclass."""
        own = vars(self)
        for name in SIZES:
            if name in own:
                self._check_own_size(name, own[name])
        given = [getattr(self, name) for name in PARAMETERS]
        params = tuple(
            W if W is known else self._own_or_cast(name, W, shape)
            for name, W, known, shape in zip(PARAMETERS, given, self._params, self._shapes, strict=True)
        )
        for name, W, checked in zip(PARAMETERS, given, params, strict=True):
            if own.get(name) is W:
                own[name] = checked
        # What a property computes is never known: it may be another array at the next call.
        self._params = tuple(
            W if own.get(name) is W else known
            for name, W, known in zip(PARAMETERS, params, self._params, strict=True)
        )
        return self._params if all(map(is_, self._params, params)) else params

    def _own_or_cast(self, name: str, value: Any, shape: tuple[int, int]) -> np.ndarray:
        """An assigned parameter: the user's own array where it can serve as it is."""
        if type(value) is np.ndarray and value.dtype == self._dtype and value.shape == shape:
            # Unpickled arrays have a dtype of their own that is equal; a view has the usual one.
            return value if value.dtype is self._dtype else value.view(self._dtype)
        cast = check_real_array(value, name, self._dtype, shape)
        return cast.copy() if np.may_share_memory(cast, value) else cast

    def _kernel_params(self) -> Gradients:
        """The parameters as kernels take them; copies of those that are not laid out so."""
        try:
            params = self._params
        except AttributeError:
            self._take_attributes()
            params = self._params
        A, B, C, D, E = params
        if (
            self.Wxh is not A
            or self.Whh is not B
            or self.Why is not C
            or self.bh is not D
            or self.by is not E
        ):
            A, B, C, D, E = params = self._new_params()
        # Written out: a loop over the five takes 0.5 us more, of 6 that a call of one step takes.
        if (
            (A.shape, B.shape, C.shape, D.shape, E.shape) != self._shapes
            or not (A.dtype is B.dtype is C.dtype is D.dtype is E.dtype is self._dtype)
            or not (A.flags.carray and B.flags.carray and C.flags.carray)
            or not (D.flags.carray and E.flags.carray)
        ):
            return self._converted_params(params)
        return params

    def _converted_params(self, params: Gradients) -> Gradients:
        for name, W, shape in zip(PARAMETERS, params, self._shapes, strict=True):
            if W.shape != shape or W.dtype != self._dtype:
                raise ValueError(
                    f"{name} must have shape {shape} and dtype {self._dtype}, but it was changed in "
                    f"place to {W.shape} and {W.dtype}"
                )
        return tuple(kernel_array(W, self._dtype) for W in params)

    def _writable_params(self) -> Gradients:
        params = self._kernel_params()
        if params is not self._params:
            for name in PARAMETERS:
                if not getattr(self, name).flags.writeable:
                    raise ValueError(f"{name} is read-only and cannot be updated")
        return params

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry the attributes and the settings, not the buffers."""
        settings = {name: getattr(self, name) for name in _SETTINGS if hasattr(self, name)}
        return vars(self) | settings

    def __setstate__(self, state: dict[str, Any]) -> None:
        attributes = own_arrays(state)
        settings = [attributes.pop(name, None) for name in _SETTINGS]
        if "_params" in attributes:  # of an older version
            attributes |= dict(zip(PARAMETERS, attributes.pop("_params"), strict=True))
            attributes |= {
                name: attributes.pop(old) for name, old in zip(SIZES, ["_d", "_h", "_q"], strict=True)
            }
            del attributes["_largest"], attributes["_shapes"]
        vars(self).update(attributes)
        if all(hasattr(self, name) for name in PARAMETERS):
            self._take_attributes(*settings)
