"""What several commands of the command line share: types of options, and how things are shown."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import click

import fastrnn
from fastrnn.backends import BACKENDS, load
from fastrnn.terminal import Shown

if TYPE_CHECKING:
    from fastrnn.char_rnn import CharRNN

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # older ones have no parameter

__all__ = [
    "BACKEND", "DTYPE", "SIZE", "OrNone", "backend_option", "check_converged", "echo_summary", "get_kernels_ready", "is_given", "load_model",
    "model_argument", "newline_option", "open_texts", "positive", "texts_argument", "unknown_option", "weights_option",
]  # fmt: skip

SIZE = click.IntRange(1, 100_000)
DTYPE = click.Choice(("float64", "float32"))
BACKEND = click.Choice(tuple(BACKENDS))

#: A loss so many times that of a guess is one that has diverged.
DIVERGED = 5.0


class OrNone(_ParamType):
    """Another type, or the word ``none``."""

    def __init__(self, kind: click.ParamType[Any]) -> None:
        self.kind = kind
        self.name = kind.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.lower() == "none":
            return None
        return self.kind.convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        # From click 8.2 on it is called with the context.
        arguments: Any = (param,) if ctx is None else (param, ctx)
        inner = self.kind.get_metavar(*arguments) or self.kind.name.partition(" ")[0].upper()
        return f"[{inner.strip('[]')}|none]"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        return self.kind.shell_complete(ctx, param, incomplete)


def positive(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse zero and less, infinity and NaN (`click.FloatRange` lets NaN through)."""
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"{value:g} is not a positive, finite number.")
    return value


# -- texts and models ------------------------------------------------------------------------------


def _one_standard_input(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Any:
    if value.count("-") > 1:
        raise click.BadParameter("standard input (-) can be read only once.")
    return value


texts_argument = click.argument(
    "texts",
    metavar="TEXT...",
    nargs=-1,
    required=True,
    type=click.Path(allow_dash=True),
    callback=_one_standard_input,
)

model_argument = click.argument("model", metavar="MODEL", type=click.Path())

weights_option = click.option(
    "--weights",
    type=click.Choice(("last", "best")),
    help="Weights of the last step or of the best validation.  [default: those that training ended with]",
)

unknown_option = click.option(
    "--unknown",
    type=OrNone(click.STRING),
    metavar="skip|CHARACTER|none",
    help="For characters that the model never saw: leave them out, read CHARACTER in their place, or "
    "(none) refuse them.  [default: what was chosen for training, else none]",
)


newline_option = click.option(
    "--newline",
    type=OrNone(click.Choice(("universal",))),
    help="Read the line ends of Windows and of old Macs as \\n (universal), or keep every character (none).  "
    "[default: what was chosen for training]",
)

backend_option = click.option(
    "--backend",
    type=OrNone(BACKEND),
    help="Kernels to use, none for the fastest here.  [default: what was chosen for training]",
)


def open_texts(texts: tuple[str, ...]) -> list[Any]:
    """Names of files as `CharRNN` reads them, all as one text."""
    from pathlib import Path

    return [_StandardInput() if name == "-" else Path(name) for name in texts]


class _StandardInput:
    name = "standard input"

    def read(self, size: int = -1) -> bytes:
        return sys.stdin.buffer.read(size)


def load_model(path: str, weights: str | None, **params: Any) -> CharRNN:
    """Read a model for use; parameters that were given on the command line are changed.

    Raises
    ------
    CheckpointError, OSError
        As `CharRNN.load`, and if the weights are not finite.
    click.UsageError
        If a parameter does not fit it.
    """
    import numpy as np

    from fastrnn.char_rnn import CharRNN
    from fastrnn.vocabulary import check_unknown

    context = click.get_current_context()
    given = {name: value for name, value in params.items() if is_given(context, name)}
    try:
        model = CharRNN.load(path, **given)
        check_unknown(model.unknown, model.vocabulary_)
        if weights is not None:
            model.use_weights(weights)
    except (fastrnn.CheckpointError, fastrnn.TextError):
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not all(np.isfinite(W).all() for W in (*model.model_.parameters.values(), model.start_state_)):
        raise fastrnn.CheckpointError(
            f"the {model.weights_} weights in {path!r} hold NaN or infinity, as after a training that diverged: "
            f"there is nothing to be had from them"
        )
    return model


def is_given(context: click.Context, name: str) -> bool:
    """Whether an option was given, and has not just its default."""
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def check_converged(model: CharRNN) -> None:
    """Fail if a training ended with a loss that is no number, or far above that of a guess."""
    nats = model.history_[-1]["train_nats"]
    if not nats < DIVERGED * math.log(len(model.vocabulary_)):
        raise click.ClickException(
            f"the training diverged: the loss is {nats:.4g} after step {model.step_:,}; "
            f"try a lower --lr than {model.lr:g}"
        )


# -- kernels and output ----------------------------------------------------------------------------


def backend_in_use() -> str:
    try:
        return fastrnn.backend()
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def get_kernels_ready(backend: str | None, dtype: str) -> str:
    """Compile what has to be, and say so; return the name of the backend that is used."""
    backend = backend or backend_in_use()
    load(backend)  # one that is missing is told before anything else
    if backend == "numba":
        click.echo("Getting the kernels ready (compiled once, then kept) ...", err=True)
        fastrnn.warmup(dtype, backend=backend)
    return backend


def echo_summary(text: str) -> None:
    """Write a line that says what was done; a program that has no standard output ends well without it."""
    if not Shown(sys.stdout, optional=False).is_missing:
        click.echo(text)
