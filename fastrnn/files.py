"""`save` and `load`: every model, layer and estimator in a safetensors file.

`KINDS` is the table of what is written here.  Its entry for a class says which arrays its models have, by their
settings; the settings are the parameters of ``__init__``, each readable as an attribute (`_setting`).  Classes of
which a file holds more (`CharRNN`, the estimators) write and read it themselves, and may put a model of `KINDS`
into theirs: see `pack_model` and `unpack_model`.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from fastrnn._version import __version__
from fastrnn.cells import CELL_NAMES, cell_of
from fastrnn.checkpoint import content_of, read_checkpoint, write_checkpoint
from fastrnn.checks import check_choice, check_dtype, check_flag, check_size
from fastrnn.contents import (
    BIT_GENERATORS,
    CLASSES,
    Misfit,
    check_class,
    check_members,
    check_unknown_settings,
    check_version,
    fitting,
    misfits,
    plain,
    random_state_of,
    restored_generator,
    stack_shapes,
)
from fastrnn.errors import CheckpointError, brief
from fastrnn.layout import Shape
from fastrnn.losses import LOSSES
from fastrnn.sharing import Shared, being_read
from fastrnn.simple_weights import PARAMETERS, SIZES

if TYPE_CHECKING:
    from fastrnn.hints import Path
    from fastrnn.reference import ReferenceRNN
    from fastrnn.reference_gated import ReferenceGRU, ReferenceLSTM
    from fastrnn.simple import SimpleRNN
    from fastrnn.stack import StackedModel

    class Saving(Protocol):
        """A `CharRNN` or an estimator."""

        def save(self, path: Path) -> None: ...

    Storable: TypeAlias = SimpleRNN | ReferenceRNN | ReferenceGRU | ReferenceLSTM | StackedModel | Saving

__all__ = ["load", "pack_model", "save", "unpack_model"]

#: Those that write and read their files themselves, by methods `save` and `load`.
OWN_FILES = ("CharRNN", "RNNClassifier", "RNNRegressor")

#: Settings that `load` may replace: neither the arrays nor what is computed of them follow these.
CHANGEABLE = ("backend", "num_threads", "dropout", "recompute_every")

#: One after another, so that whoever compares them with arrays is done with the first that is missing.
Shapes: TypeAlias = Iterator[tuple[str, Shape]]


# -- the kinds of models ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """How the models of a class are written and made again.

    Attributes
    ----------
    shapes : callable
        Of the settings: names and shapes of the arrays, in the model's order.  Checks the settings that it uses.
    arrays : callable
        Of a model: its arrays under these names, in its dtype.
    put : callable
        Give a model of the same settings these arrays.
    has_stream : bool, default True
        Whether there are a random stream `rng`, and the modes of `train` and `eval`.
    has_backend : bool, default True
        False where it is an argument for the sake of the signature.
    """

    shapes: Callable[[Mapping[str, Any]], Shapes]
    arrays: Callable[[Any], Mapping[str, Any]]
    put: Callable[[Any, Mapping[str, np.ndarray]], object]
    has_stream: bool = True
    has_backend: bool = True

    def settings(self, cls: type) -> dict[str, Any]:
        """Names of the settings, with the values of those that need not be given."""
        parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
        left_out = ("self", "rng") if self.has_backend else ("self", "rng", "backend")
        return {name: p.default for name, p in parameters.items() if name not in left_out}


def _sizes(settings: Mapping[str, Any], *names: str) -> list[int]:
    return [check_size(settings[name], name) for name in names]


def _notes(settings: Mapping[str, Any]) -> Shapes:
    d, h, q = _sizes(settings, *SIZES)
    return zip(PARAMETERS, ((h, d), (h, h), (q, h), (h, 1), (q, 1)), strict=True)


def _layers(gates: int) -> Callable[[Mapping[str, Any]], Shapes]:
    """Shapes of layers whose cell has so many gates."""

    def shapes(settings: Mapping[str, Any]) -> Shapes:
        d, h, num_layers = _sizes({"num_layers": 1, **settings}, "input_size", "hidden_size", "num_layers")
        return stack_shapes(
            d,
            h,
            num_layers,
            gates=gates,
            directions=_directions(settings),
            bias=check_flag(settings.get("bias", True), "bias"),
        )

    return shapes


def _language_model(settings: Mapping[str, Any]) -> Shapes:
    q, h, num_layers = _sizes(settings, "vocab_size", "hidden_size", "num_layers")
    return stack_shapes(q, h, num_layers, gates=_gates(settings), outputs=q)


def _sequence_model(settings: Mapping[str, Any]) -> Shapes:
    d, h, outputs, num_layers = _sizes(settings, "input_size", "hidden_size", "output_size", "num_layers")
    outputs *= LOSSES[check_choice(settings["loss"], "loss", tuple(LOSSES))].outputs
    gates, directions = _gates(settings), _directions(settings)
    return stack_shapes(d, h, num_layers, gates=gates, directions=directions, outputs=outputs)


def _gates(settings: Mapping[str, Any]) -> int:
    return len(cell_of(check_choice(settings["cell"], "cell", CELL_NAMES), "tanh").gates)


def _directions(settings: Mapping[str, Any]) -> int:
    return 2 if check_flag(settings.get("bidirectional", False), "bidirectional") else 1


def _attributes(model: Any) -> dict[str, Any]:
    """The notes' five weights; of a `SimpleRNN` checked, as at each of its calls."""
    if isinstance(model, Shared):
        return dict(zip(PARAMETERS, model._kernel_params(), strict=True))  # type: ignore[attr-defined]
    return {name: getattr(model, name) for name in PARAMETERS}


def _put_attributes(model: Any, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        setattr(model, name, array.copy())


def _put_parameters(model: Any, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        model.parameters[name] = array.copy()


def _put_state(model: Any, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():  # one by one: of all of them there would be a third copy
        model.load_state_dict({name: array}, strict=False)


def _stack(shapes: Callable[[Mapping[str, Any]], Shapes]) -> Kind:
    return Kind(
        shapes,
        arrays=lambda model: model._checked_parameters(),
        put=_put_state,
    )


def _reference(gates: int) -> Kind:
    return Kind(_layers(gates), lambda model: model.parameters, _put_parameters, has_stream=False)


#: A new class has one entry here, and one in `fastrnn.contents.CLASSES`.
KINDS = {
    "GRU": _stack(_layers(3)),
    "LSTM": _stack(_layers(4)),
    "LanguageModel": _stack(_language_model),
    "RNN": _stack(_layers(1)),
    "ReferenceGRU": _reference(3),
    "ReferenceLSTM": _reference(4),
    "ReferenceRNN": Kind(_notes, _attributes, _put_attributes, has_stream=False, has_backend=False),
    "SequenceModel": _stack(_sequence_model),
    "SimpleRNN": Kind(_notes, _attributes, _put_attributes, has_stream=False),
}


def _class_called(name: str) -> Any:
    return getattr(importlib.import_module(CLASSES[name]), name)


def _name_of_class(model: object) -> str:
    """Name of the class of what can be saved; anything else is refused."""
    own = type(model)
    for cls in own.__mro__:
        name = cls.__name__
        ours = name in CLASSES and cls.__module__.partition(".")[0] == "fastrnn"
        if not ours or _class_called(name) is not cls:
            continue
        if cls is own:
            return name
        how = (
            "its own methods save and load keep it"
            if name in OWN_FILES
            else f"give its weights to one of {name}"
        )
        raise TypeError(
            f"model is of {own.__module__}.{own.__qualname__}, a class that is derived from {name} and would come "
            f"back as that: {how}"
        )
    raise TypeError(f"model must be one of {', '.join(sorted(CLASSES))}, got {own.__name__}")


# -- a model as content and arrays -----------------------------------------------------------------


def pack_model(model: Any, prefix: str = "") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A model as content for JSON, and arrays, which are the model's own.

    Who writes them reads the model: ``with being_read(model, "save")`` for one that threads share.

    Parameters
    ----------
    model : object of a class of `KINDS`
        Not of a class derived from one.
    prefix : str, default ""
        Before the names of the arrays, for a file that holds more.

    Returns
    -------
    content : dict
        ``class``, ``fastrnn`` (the version), ``settings``; of what has them ``training`` and ``random_state``.
    arrays : dict of str to ndarray

    Raises
    ------
    TypeError, ValueError
        If it is something else, its arrays were replaced by ones that do not fit, or its `rng` is none whose
        state a file can hold.
    """
    name = _name_of_class(model)
    if name not in KINDS:
        raise TypeError(f"a {name} has its own method save")
    kind, cls = KINDS[name], type(model)
    arrays = {key: _native(W, key) for key, W in kind.arrays(model).items()}
    dtype = check_dtype(next(iter(arrays.values())).dtype if arrays else None)
    settings: dict[str, Any] = {}
    for setting in kind.settings(cls):
        if setting == "nonlinearity" and getattr(model, "cell", "rnn") != "rnn":
            continue  # gates have their own
        settings[setting] = dtype.name if setting == "dtype" else plain(_setting(model, setting))
    wrong = _complaint(kind.shapes(settings), arrays, dtype)
    if wrong:
        raise ValueError(f"this {name} cannot be saved: {wrong}")
    content: dict[str, Any] = {"class": name, "fastrnn": __version__, "settings": settings}
    if kind.has_stream:
        content["training"] = bool(model.training)
        content["random_state"] = random_state_of(_kept_generator(model.rng))
    return content, {f"{prefix}{key}": W for key, W in arrays.items()}


def unpack_model(
    content: Any,
    arrays: Mapping[str, np.ndarray],
    prefix: str = "",
    *,
    name: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Any:
    """Inverse of `pack_model`, for content and arrays that may be anything.

    No memory is taken for a size that the arrays do not have.

    Parameters
    ----------
    content : dict
    arrays : mapping of str to ndarray
        All of a file; those whose names begin with `prefix` are the model's.
    prefix : str, default ""
    name : str or None
        The class that is wanted; None for any.
    changes : mapping or None
        Settings that the user wants in place of the file's, of `CHANGEABLE`.

    Returns
    -------
    object
        With arrays of its own.

    Raises
    ------
    Misfit
        If a part is missing, has another type, or does not fit the others.
    ValueError, TypeError
        If a setting in `changes` is none that can be replaced, or has a wrong value.
    BackendUnavailable
        If the backend that is asked for is missing.
    """
    holds = content.get("class") if isinstance(content, dict) else None
    if name is None and isinstance(holds, str) and holds in KINDS:
        name = holds
    check_class(content, name or "fastrnn")
    assert name is not None  # `check_class` has refused the rest
    kind, cls = KINDS[name], _class_called(name)
    types: dict[str, Any] = {"class": str, "fastrnn": str, "settings": dict}
    if kind.has_stream:
        types |= {"training": bool, "random_state": dict}
    check_members(content, types, "the model")
    check_version(content)
    defaults = kind.settings(cls)
    check_unknown_settings(content["settings"], defaults, "settings", content)
    changes = {} if changes is None else changes
    _check_changes(cls, changes, [name for name in CHANGEABLE if name in defaults], defaults)

    settings = defaults | {"dtype": np.dtype(defaults["dtype"]).name} | content["settings"]
    missing = [key for key, value in settings.items() if value is inspect.Parameter.empty]
    if missing:
        raise Misfit(f"settings must have {', '.join(missing)}")
    own = {key.removeprefix(prefix): W for key, W in arrays.items() if key.startswith(prefix)}
    with misfits("settings"):
        dtype = check_dtype(check_choice(settings["dtype"], "dtype", ("float32", "float64")))
        wrong = _complaint(kind.shapes(settings), own, dtype)
    if wrong:
        raise Misfit(wrong)
    generator = None
    if kind.has_stream:
        with misfits("the random state"):
            generator = restored_generator(content["random_state"])
    with misfits("settings"):
        # The backend is another matter: it may be missing here, and `changes` name another.
        model = cls(**settings | ({"backend": None} if "backend" in changes else {}), rng=0)
    if changes:  # what the class says of these is no misfit
        del model  # before there are two
        model = cls(**settings | changes, rng=0)
    kind.put(model, {key: own[key] for key, _ in kind.shapes(settings)})
    if generator is not None:
        model.rng = generator
        model.train(content["training"])
    return model


def _setting(model: Any, name: str) -> Any:
    if name == "backend":  # which no class shows
        return model._backend
    if name == "loss":  # which is a method
        return model._loss.name
    return getattr(model, name)


def _native(W: Any, name: str) -> np.ndarray:
    """An array of the user's in the byte order of this machine, which files of any machine have in memory."""
    if not isinstance(W, np.ndarray):
        raise TypeError(f"{name} must be an ndarray, got {type(W).__name__}")
    return np.asarray(W, W.dtype.newbyteorder("="))


def _complaint(shapes: Shapes, arrays: Mapping[str, np.ndarray], dtype: np.dtype) -> str:
    """What is wrong with arrays that are to have these names, these shapes and this dtype; "" if nothing is."""
    known = set()
    for name, shape in shapes:
        array = arrays.get(name)
        if array is None:
            return f"array {name!r} is missing"
        if array.shape != shape:
            return f"array {name!r} must have shape {shape}, got {array.shape}"
        if array.dtype != dtype:
            return f"array {name!r} is {array.dtype}, and dtype = {dtype.name!r}"
        known.add(name)
    for name in arrays:
        if name not in known:
            return f"array {brief(str(name))} is not one of this model's"
    return ""


def _check_changes(
    cls: type, changes: Mapping[str, Any], possible: Collection[str], settings: Collection[str]
) -> None:
    """Refuse what `load` cannot replace."""
    for name in changes:
        if name in possible:
            continue
        if name in settings:
            raise ValueError(f"{name} is what the model was made with, and load cannot change it")
        they_are = f"; they are {', '.join(possible)}" if possible else ", which has none"
        raise ValueError(f"{brief(name)} is no setting of {cls.__name__} that load can change{they_are}")


def _kept_generator(rng: Any) -> np.random.Generator:
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {type(rng).__name__}")
    name = type(rng.bit_generator).__name__
    if name not in BIT_GENERATORS:
        raise TypeError(f"rng must draw from one of {', '.join(BIT_GENERATORS)} to be saved, not from {name}")
    return rng


# -- public ----------------------------------------------------------------------------------------


def save(model: Storable, path: Path) -> None:
    """Write a model to a safetensors file, with its settings and its random state.

    Parameters
    ----------
    model : SimpleRNN, RNN, GRU, LSTM, LanguageModel, SequenceModel, CharRNN or estimator
        The reference classes are taken too.  Of a `CharRNN` and an estimator this is the method `save`.
    path : str or path
        A file that is there is replaced, and kept as ``<path>.previous``.  The new one gets its
        permissions.

    Raises
    ------
    TypeError
        If `model` is something else, or of a class of your own that is derived from one of these: it would
        come back as another class.
    ValueError
        If its arrays were replaced by ones that do not fit.
    NotFittedError
        If it is a `CharRNN` or an estimator that is not fitted.
    OSError
        If it cannot be written; what was there is as it was.
    CheckpointError
        If weights hold NaN or infinity, and `path` is a model that holds neither.
    RuntimeError
        If another thread changes the model.

    See Also
    --------
    load : Reads it.

    Notes
    -----
    Whenever the process is killed, `path` names a complete file, the old or the new one, if it named one before.
    Kept are the arguments that the model was made with, as they are now, its weights, the state of `rng`, and
    whether dropout is on: what is drawn after `load` are the numbers that the saved model draws next.  Not kept
    are gradients, work space, and attributes that you have added.

    Any safetensors reader opens the file.  Its arrays have the names of `state_dict`, so that what
    ``safetensors.torch.load_file(path)`` reads of an `RNN`, `GRU` or `LSTM` is a ``state_dict`` of PyTorch's.

    Examples
    --------
    >>> import tempfile
    >>> import fastrnn
    >>> gru = fastrnn.GRU(3, 8, num_layers=2, dropout=0.1, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fastrnn.save(gru, f"{folder}/gru.safetensors")
    ...     again = fastrnn.load(f"{folder}/gru.safetensors")
    >>> again
    GRU(3, 8, 2, bias=True, batch_first=False, dropout=0.1, bidirectional=False, dtype=float32)
    >>> x = np.ones((5, 1, 3))
    >>> bool((again.forward(x)[0] == gru.forward(x)[0]).all())  # with the same dropout
    True
    """
    if _name_of_class(model) in OWN_FILES:
        model.save(path)  # type: ignore[union-attr]
        return
    reads = being_read(model, "save") if isinstance(model, Shared) else contextlib.nullcontext()
    with reads:
        write_checkpoint(path, *pack_model(model))


def load(path: Path, **settings: Any) -> Any:
    """Read a model that `save` wrote, or the method `save` of a `CharRNN` or an estimator.

    Parameters
    ----------
    path : str or path
        The file.  It may come from anybody: nothing in it is run, and what does not fit together is refused.
    **settings
        To be used in place of those in the file: `backend`, `num_threads`, `dropout` and `recompute_every`, of
        models that have them.  Of a `CharRNN` or an estimator the parameters that its own `load` takes.

    Returns
    -------
    object
        Of the class that was saved.  Of a file that holds a `CharRNN` this is what ``CharRNN.load`` returns.

    Raises
    ------
    CheckpointError
        If the file is truncated, altered, of a newer format, or no model; the message says which.
    OSError
        If it cannot be read.
    BackendUnavailable
        If the model was made with a backend that is not there; ``backend=None`` takes another.
    ValueError, TypeError
        If one of `settings` is none that can be replaced, or has a wrong value.

    See Also
    --------
    save : Writes it.

    Examples
    --------
    >>> import tempfile
    >>> import fastrnn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fastrnn.save(fastrnn.SimpleRNN(26, 100, 26), f"{folder}/model")
    ...     fastrnn.load(f"{folder}/model", backend="numpy")
    SimpleRNN(26, 100, 26, dtype=float64)
    """
    name = (content_of(path) or {}).get("class")
    if name in OWN_FILES:
        return _class_called(name).load(path, **settings)
    content, arrays = read_checkpoint(path)
    name = content.get("class")
    if not isinstance(name, str) or name not in CLASSES:
        what = brief(name) if isinstance(name, str) else "thing of no class"
        by = content.get("fastrnn")
        wrote = f" (fastrnn {brief(str(by))} wrote it, this is {__version__})" if by is not None else ""
        raise CheckpointError(
            f"{os.fsdecode(path)!r} is not a model that is known here: it holds a {what}{wrote}"
        )
    with fitting(path, name):
        return unpack_model(content, arrays, changes=settings)
