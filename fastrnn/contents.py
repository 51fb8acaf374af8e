"""What files of models hold beside arrays, and the checks of parts that any of them has.

`fastrnn.checkpoint` sees to it that a file is whole and as it was written.  Who wrote it is not known: a digest
that is right says nothing of what it is over.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from fastrnn._version import __version__
from fastrnn.checks import check_choice
from fastrnn.errors import CheckpointError, brief, brief_names
from fastrnn.layout import Shape

__all__ = [
    "CLASSES", "Misfit", "check_class", "check_members", "check_unknown_settings", "check_version", "fitting",
    "misfits", "plain", "random_state_of", "restored_generator", "stack_shapes",
]  # fmt: skip

#: What a file can hold: names of classes, and the modules that they are asked of.
CLASSES = {
    "CharRNN": "fastrnn.char_rnn",
    "GRU": "fastrnn.gated",
    "LSTM": "fastrnn.gated",
    "LanguageModel": "fastrnn.language_model",
    "RNN": "fastrnn.layers",
    "RNNClassifier": "fastrnn.estimators",
    "RNNRegressor": "fastrnn.estimators",
    "ReferenceGRU": "fastrnn.reference_gated",
    "ReferenceLSTM": "fastrnn.reference_gated",
    "ReferenceRNN": "fastrnn.reference",
    "SequenceModel": "fastrnn.sequence_model",
    "SimpleRNN": "fastrnn.simple",
}

#: Kinds of generators whose state can be in a file.
BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")

#: What versions of fastrnn look like.
_VERSION = re.compile(r"\d[0-9A-Za-z.+!_-]{0,99}")

#: Unknown settings that a message names.
_NAMED = 5


# -- what does not fit -----------------------------------------------------------------------------


class Misfit(Exception):
    """What in a file does not fit together."""


@contextlib.contextmanager
def misfits(what: str) -> Iterator[None]:
    """Tell errors about a part of a file as such."""
    try:
        yield
    # SyntaxError: how NumPy refuses some names of dtypes.
    except (TypeError, ValueError, LookupError, OverflowError, RecursionError, SyntaxError) as error:
        raise Misfit(f"{what}: {error}") from None


@contextlib.contextmanager
def fitting(path: str | os.PathLike[str], name: str) -> Iterator[None]:
    """Tell what does not fit in a file that ought to hold a model of the class `name`."""
    try:
        yield
    except Misfit as error:
        said = str(error)
        if not said.isprintable() or len(said) > 600:  # it may repeat what the file says, and all of that
            said = brief(said, 600)
        raise CheckpointError(f"{os.fsdecode(path)!r} is not a model of {name}: {said}") from None


def check_class(content: Any, name: str) -> None:
    """Refuse what is not of the class `name`; where it is of another one of ours, say what reads it."""
    holds = content.get("class") if isinstance(content, dict) else None
    if holds == name:
        return
    if not isinstance(holds, str):
        raise Misfit("it does not say of which class it is")
    if holds in CLASSES:
        raise Misfit(f"it holds a model of {holds}, which fastrnn.load reads")
    raise Misfit(f"it holds a {brief(holds)}")


def check_version(content: Mapping[str, Any]) -> None:
    """Refuse what is no version of fastrnn that may have written a file."""
    version = content.get("fastrnn")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise Misfit(f"{brief(str(version))} is no version of fastrnn")


def check_unknown_settings(
    settings: Mapping[str, Any], known: Collection[str], what: str, content: Mapping[str, Any]
) -> None:
    """Refuse settings that this version does not know; `what` they are called in the message."""
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise Misfit(
            f"{what} that are not known: {brief_names(unknown, _NAMED)} "
            f"(fastrnn {content['fastrnn']} wrote it, this is {__version__})"
        )


def check_members(members: Any, types: Mapping[str, Any], what: str, *, more: bool = False) -> None:
    """Refuse anything but a dict of these members of these types, and `more` if that is allowed."""
    if (
        not isinstance(members, dict)
        or not members.keys() >= types.keys()
        or (not more and len(members) > len(types))
    ):
        raise Misfit(f"{what} must have the members {', '.join(types)}")
    for name, wanted in types.items():
        value = members[name]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise Misfit(f"{name!r} of {what} is a {type(value).__name__}")


# -- to JSON and back ------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A setting as JSON has it."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return np.dtype(value).name  # dtype is the only one that may be anything else


def random_state_of(rng: np.random.Generator) -> dict[str, Any]:
    """State of a generator as JSON has it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> again = restored_generator(random_state_of(rng))
    >>> again.random() == rng.random()
    True
    """
    state: dict[str, Any] = _plain_state(rng.bit_generator.state)
    return state


def _plain_state(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain_state(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):  # of MT19937 and Philox
        return {"dtype": value.dtype.name, "values": value.tolist()}
    return plain(value)


def _state_arrays(value: Any) -> Any:
    """Inverse of `_plain_state`."""
    if isinstance(value, dict):
        if value.keys() == {"dtype", "values"}:
            return np.array(value["values"], check_choice(value["dtype"], "dtype", ("uint32", "uint64")))
        return {key: _state_arrays(item) for key, item in value.items()}
    return value


def restored_generator(state: dict[str, Any]) -> np.random.Generator:
    """Inverse of `random_state_of`, for a dict that may hold anything: use it within `misfits`."""
    name = check_choice(state.get("bit_generator"), "bit_generator", BIT_GENERATORS)
    bit_generator = getattr(np.random, name)()
    bit_generator.state = _state_arrays(state)
    # NumPy reads beyond the numbers that it has in store if the place of the next one says so.
    place, in_store = 0, 0
    if name == "MT19937":
        place, in_store = state["state"]["pos"], 624
    elif name == "Philox":
        place, in_store = state["buffer_pos"], 4
    if not 0 <= place <= in_store or _plain_state(bit_generator.state) != state:
        raise ValueError(f"it is not one of {name}")
    return np.random.Generator(bit_generator)


# -- arrays ----------------------------------------------------------------------------------------


def stack_shapes(
    d: int,
    h: int,
    num_layers: int,
    *,
    gates: int = 1,
    directions: int = 1,
    bias: bool = True,
    outputs: int = 0,
) -> Iterator[tuple[str, Shape]]:
    """Names and shapes of a `StackedModel`'s parameters, in its order.

    One after another: whoever compares them with arrays comes to an end after so many, whatever a file
    says of `num_layers`.

    Parameters
    ----------
    d, h, num_layers : int
        Input size, hidden size, number of layers.
    gates : int, default 1
        Blocks of h rows in a layer's weights.
    directions : {1, 2}, default 1
    bias : bool, default True
    outputs : int, default 0
        Rows of the output layer; 0 where there is none.

    Examples
    --------
    >>> dict(stack_shapes(3, 8, 1, bias=False, outputs=2))
    {'weight_ih_l0': (8, 3), 'weight_hh_l0': (8, 8), 'weight_out': (2, 8), 'bias_out': (2,)}
    """
    rows, width = gates * h, directions * h
    for layer in range(num_layers):
        for suffix in ("", "_reverse")[:directions]:
            yield f"weight_ih_l{layer}{suffix}", (rows, width if layer else d)
            yield f"weight_hh_l{layer}{suffix}", (rows, h)
            if bias:
                yield f"bias_ih_l{layer}{suffix}", (rows,)
                yield f"bias_hh_l{layer}{suffix}", (rows,)
    if outputs:
        yield "weight_out", (outputs, width)
        yield "bias_out", (outputs,)
