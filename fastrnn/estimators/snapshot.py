"""Files of estimators: hyper-parameters, the model, scaling and labels."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from fastrnn import backends
from fastrnn._version import __version__
from fastrnn.checkpoint import read_checkpoint, write_checkpoint
from fastrnn.checks import LARGEST_SIZE, check_choice
from fastrnn.contents import (
    Misfit,
    check_class,
    check_members,
    check_unknown_settings,
    check_version,
    fitting,
    misfits,
    plain,
)
from fastrnn.errors import brief
from fastrnn.estimators.scaling import Scaler
from fastrnn.files import pack_model, unpack_model
from fastrnn.sharing import being_read

__all__ = ["load", "save"]

E = TypeVar("E")

_CONTENT: dict[str, Any] = {
    "class": str, "fastrnn": str, "params": dict, "model": dict, "history": list, "n_iter": int, "best_epoch": int,
    "table": bool, "n_features_in": (int, type(None)), "feature_names_in": (list, type(None)),
}  # fmt: skip
_OWN: dict[str, dict[str, Any]] = {
    "RNNRegressor": {"one_value": bool},
    "RNNClassifier": {"classes": list, "kind": str},
}
_ENTRY = {
    "epoch": int,
    "step": int,
    "train_loss": float,
    "valid_loss": (float, type(None)),
    "lr": float,
    "seconds": float,
}

#: What labels may be: the name of their dtype, and the type of each in JSON.
_KINDS = (
    {"bool": bool, "str": str, "object": str}
    | {f"{sign}int{bits}": int for sign in ("", "u") for bits in (8, 16, 32, 64)}
    | {f"float{bits}": float for bits in (16, 32, 64)}
)


def save(estimator: Any, path: Any) -> None:
    """Write a fitted estimator."""
    estimator._check_fitted()
    estimator._check_params()  # they may be other ones since, and `load` takes none that are wrong
    name = next(cls.__name__ for cls in type(estimator).__mro__ if cls.__name__ in _OWN)
    with being_read(estimator, "save"), being_read(estimator.model_, "save"):
        model, arrays = pack_model(estimator.model_, "model.")
        arrays |= _arrays_of("x", estimator._scaler)
        names = getattr(estimator, "feature_names_in_", None)
        content: dict[str, Any] = {
            "class": name,
            "fastrnn": __version__,
            "params": {key: _plain(value) for key, value in estimator.get_params().items() if key != "comm"},
            "model": model,
            "history": [dict(entry) for entry in estimator.history_],
            "n_iter": estimator.n_iter_,
            "best_epoch": estimator.best_epoch_,
            "table": estimator._table,
            "n_features_in": getattr(estimator, "n_features_in_", None),
            "feature_names_in": None if names is None else list(names),
        }
        if name == "RNNRegressor":
            content["one_value"] = estimator._one_value
            arrays |= _arrays_of("y", estimator._y_scaler)
        else:
            content["classes"], content["kind"] = _labels(estimator.classes_)
        write_checkpoint(path, content, arrays)


def load(cls: type[E], path: Any, params: Mapping[str, Any]) -> E:
    """Read an estimator of a class; `params` are in place of the file's."""
    content, arrays = read_checkpoint(path)
    name = next(base.__name__ for base in cls.__mro__ if base.__name__ in _OWN)
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(cls.__init__).parameters.items()
        if key != "self"
    }
    for key in params:
        if key not in defaults:
            raise ValueError(f"{brief(key)} is no hyper-parameter of {name}; they are {', '.join(defaults)}")
    with fitting(path, name):
        check_class(content, name)
        check_version(content)
        check_members(content, _CONTENT | _OWN[name], "the file")
        check_unknown_settings(content["params"], defaults, "hyper-parameters", content)
        if "comm" in content["params"]:
            raise Misfit("it names those who train it, which a file must not")
        kept = {key: _restored(value) for key, value in content["params"].items()}
        estimator: Any = cls(**kept)
        with misfits("hyper-parameters"):
            check_choice(kept.get("backend"), "backend", (None, *backends.BACKENDS))
            estimator.set_params(backend=None)._check_params()  # that of the file may be missing here
        estimator.set_params(**{"backend": kept.get("backend"), **params})
        changes = {key: params[key] for key in ("backend", "num_threads") if key in params}
        model = unpack_model(content["model"], arrays, "model.", name="SequenceModel", changes=changes)
        fitted = _fitted(content, arrays, name, model)
    estimator._check_params()
    for key, value in fitted.items():
        setattr(estimator, key, value)
    loaded: E = estimator
    return loaded


def _fitted(content: dict[str, Any], arrays: dict[str, np.ndarray], name: str, model: Any) -> dict[str, Any]:
    """What is fitted, checked against the model."""
    for entry in content["history"]:
        check_members(entry, _ENTRY, "an entry of the history")
    epochs = len(content["history"])
    if content["n_iter"] != epochs or not 0 <= content["best_epoch"] <= epochs:
        raise Misfit(f"n_iter = {content['n_iter']}, best_epoch = {content['best_epoch']} of {epochs} epochs")
    others = {key: array for key, array in arrays.items() if not key.startswith("model.")}
    fitted = {
        "model_": model, "history_": content["history"], "n_iter_": content["n_iter"],
        "best_epoch_": content["best_epoch"], "_table": content["table"],
        "_scaler": _scaler_of("x", others, model.input_size),
    }  # fmt: skip
    columns, names = content["n_features_in"], content["feature_names_in"]
    if (columns is not None) != content["table"] or (
        content["table"] and (model.input_size != 1 or not 1 <= columns <= LARGEST_SIZE)
    ):
        raise Misfit("the number of columns does not fit the model")
    if columns is not None:
        fitted["n_features_in_"] = columns
    if names is not None:
        if columns != len(names) or not all(isinstance(column, str) for column in names):
            raise Misfit("the names of the columns do not fit their number")
        fitted["feature_names_in_"] = np.array(names, object)
    if name == "RNNRegressor":
        fitted["_one_value"] = content["one_value"]
        if model._loss.name != "mse" or (content["one_value"] and model.output_size != 1):
            raise Misfit("the model is not one for these values")
        fitted["_y_scaler"] = _scaler_of("y", others, model.output_size)
    else:
        fitted["classes_"] = _labels_of(content["classes"], content["kind"])
        if model._loss.name != "cross_entropy" or len(fitted["classes_"]) != model.output_size:
            raise Misfit("the labels do not fit the model")
    if others:
        raise Misfit(f"array {min(others)!r:.60} is not expected")
    return fitted


# -- pieces ------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """A hyper-parameter as JSON has it; a dict as pairs, a generator, which others may use as well, as None."""
    if isinstance(value, (np.random.Generator, np.random.RandomState)):
        return None
    if isinstance(value, Mapping):
        return {"pairs": [[_json(key), float(weight)] for key, weight in value.items()]}
    return plain(value)


def _json(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if type(value) not in (bool, int, float, str):
        raise TypeError(f"class_weight has a label that a file cannot hold: {value!r:.60}")
    return value


def _restored(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    check_members(value, {"pairs": list}, "class_weight")
    for pair in value["pairs"]:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], float)):
            raise Misfit("class_weight is not made of pairs of a label and a number")
        if not isinstance(pair[0], (bool, int, float, str)):
            raise Misfit("class_weight has a label that is none")
    return dict(value["pairs"])


def _arrays_of(prefix: str, scaler: Scaler) -> dict[str, np.ndarray]:
    return {f"{prefix}.mean": scaler.mean, f"{prefix}.scale": scaler.scale}


def _scaler_of(prefix: str, arrays: dict[str, np.ndarray], width: int) -> Scaler:
    """Takes its arrays out of `arrays`."""
    found = []
    for name in (f"{prefix}.mean", f"{prefix}.scale"):
        array = arrays.pop(name, None)
        if array is None or array.shape != (width,) or array.dtype != np.float64:
            raise Misfit(f"array {name!r} is missing, or not {width} of float64")
        if not np.isfinite(array).all():
            raise Misfit(f"array {name!r} holds NaN or infinity")
        found.append(array.copy())
    if not (found[1] > 0).all():
        raise Misfit(f"array '{prefix}.scale' holds a scale that is not positive")
    return Scaler(*found)


def _labels(classes: np.ndarray) -> tuple[list[Any], str]:
    kind = "str" if classes.dtype.kind == "U" else classes.dtype.name
    values = classes.tolist()
    if not _are_labels(values, kind):
        raise TypeError(
            f"labels of dtype {classes.dtype} cannot be saved: integers, floats, bools and str can"
        )
    return values, kind


def _are_labels(values: list[Any], kind: str) -> bool:
    return kind in _KINDS and all(type(value) is _KINDS[kind] for value in values)


def _labels_of(values: list[Any], kind: str) -> np.ndarray:
    if not values or not _are_labels(values, kind):
        raise Misfit("the labels are not of one type")
    with misfits("the labels"):
        classes = np.array(values, np.dtype(kind))
    if len(set(values)) < len(values) or sorted(values) != values or classes.tolist() != values:
        raise Misfit("the labels are not in their order")
    return classes
