"""What several commands of the command line share: types of options, and how things are shown."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import click

from fastrnn import backends
from fastrnn.cli.help import did_you_mean, option
from fastrnn.errors import CheckpointError, TextError
from fastrnn.states import parts_of
from fastrnn.terminal import Shown

if TYPE_CHECKING:
    from fastrnn.char_rnn import CharRNN
    from fastrnn.hints import BackendName

    _ParamType = click.ParamType[Any]
    _Choice = click.Choice[Any]
else:
    _ParamType = click.ParamType  # older ones have no parameter
    _Choice = click.Choice

__all__ = [
    "BACKEND", "DTYPE", "POSITIVE", "SIZE", "Choice", "FileName", "OrNone", "backend_option", "check_converged",
    "check_readable", "columns", "describe_model", "echo_json", "echo_summary", "get_kernels_ready", "is_given",
    "json_option", "load_model", "model_argument", "newline_option", "open_texts", "read_text", "say",
    "texts_argument", "unknown_option", "weights_option",
]  # fmt: skip

#: A loss this many times that of a guess has diverged.
DIVERGED = 5.0


# -- types of options ------------------------------------------------------------------------------


class Choice(_Choice):
    """One of some words, where the error says which one was meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            meant = did_you_mean(str(value), map(str, self.choices))
            raise click.BadParameter(error.message + meant, ctx, param) from None


class _Positive(_ParamType):
    """A number that is not zero or less, infinity or NaN (`click.FloatRange` lets NaN through)."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            self.fail(f"{value!r} is not a positive, finite number.", param, ctx)
        return number


class FileName(click.Path):
    """The name of a file.

    An empty one names none, and Python would read it as the folder one is in.  After an option whose value was left out
    the next option is no name, and - is one for standard input alone.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:
            more = ", or - for standard input" if self.allow_dash else ""
            self.fail(f"{value!r} is empty: the name of a file is wanted{more}.", param, ctx)
        name, dash = str(value), self.allow_dash and value == "-"
        if name.startswith("-") and not dash and isinstance(param, click.Option):
            self.fail(f"a file whose name begins with - is written './{name}', got {name!r}.", param, ctx)
        return super().convert(value, param, ctx)


class OrNone(_ParamType):
    """Another type, or the word ``none``."""

    takes_none = True

    def __init__(self, kind: click.ParamType[Any]) -> None:
        self.kind = kind
        self.name = kind.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.lower() == "none":
            return None
        try:
            return self.kind.convert(value, param, ctx)
        except click.BadParameter as error:
            first, stop, more = error.message.partition(". ")
            said = f"{first.removesuffix('.')}, nor the word none.{' ' * bool(stop)}{more}"
            raise click.BadParameter(said, ctx, param) from None

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        # From click 8.2 on it is called with the context.
        arguments: Any = (param,) if ctx is None else (param, ctx)
        inner = self.kind.get_metavar(*arguments) or self.kind.name.partition(" ")[0].upper()
        return f"[{inner.strip('[]')}|none]"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        return self.kind.shell_complete(ctx, param, incomplete)


SIZE = click.IntRange(1, 100_000)
DTYPE = Choice(("float64", "float32"))
BACKEND = Choice(tuple(backends.BACKENDS))
POSITIVE = _Positive()

json_option = option("--json", "as_json", is_flag=True, help="Write one JSON object, for programs.")


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
    type=FileName(allow_dash=True),
    callback=_one_standard_input,
)

model_argument = click.argument("model", metavar="MODEL", type=FileName())

weights_option = option(
    "--weights", group="Model and text", type=Choice(("last", "best")),
    show_default="those that training ended with",
    help="Weights of the last step or of the best validation.",
)  # fmt: skip

unknown_option = option(
    "--unknown", group="Model and text", type=OrNone(click.STRING), metavar="skip|CHARACTER|none",
    show_default="as in training, else none",
    help="For characters that the model never saw: leave them out, read CHARACTER in their place, or "
    "(none) refuse them.",
)  # fmt: skip

newline_option = option(
    "--newline", group="Model and text", type=OrNone(Choice(("universal",))), show_default="as in training",
    help="Read the line ends of Windows and of old Macs as \\n (universal), or keep every character (none).",
)  # fmt: skip

backend_option = option(
    "--backend", type=OrNone(BACKEND), show_default="as in training",
    help="Kernels to use, none for the fastest here.",
)  # fmt: skip


def check_readable(*names: str) -> None:
    """Refuse a text that is not there or cannot be read, before any work; - and pipes are not asked."""
    from pathlib import Path

    for name in names:
        if name == "-":
            continue
        try:
            if Path(name).is_fifo():
                continue
            Path(name).open("rb").close()
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            reason = getattr(error, "strerror", None) or error
            raise TextError(f"cannot read {name!r}: {reason}") from None


def open_texts(texts: tuple[str, ...]) -> list[Any]:
    """Names of files as `CharRNN` reads them, all as one text."""
    from pathlib import Path

    return [_StandardInput() if name == "-" else Path(name) for name in texts]


class _StandardInput:
    name = "standard input"

    def __init__(self) -> None:
        self._begun = self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Up to its end, which a terminal tells once: to read on there would wait for more."""
        if self._ended:
            return b""
        if not self._begun:
            _say_that_it_waits()
        content = sys.stdin.buffer.read(size)
        self._begun, self._ended = True, size < 0 or len(content) < size
        return content


def _say_that_it_waits() -> None:
    if sys.stdin.isatty():
        end = "Ctrl-Z and Enter" if sys.platform == "win32" else "Ctrl-D on a new line"
        say(f"Waiting for text on standard input, until {end} ...")


def read_text(name: str, limit: int) -> tuple[str, bool]:
    """`fastrnn.text.reading.read_text`; a terminal is told that it is waited for."""
    from fastrnn.text import reading

    if name == "-":
        _say_that_it_waits()
    return reading.read_text(name, limit)


def load_model(path: str, weights: Any, **params: Any) -> CharRNN:
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
    from fastrnn.text.vocabulary import check_unknown

    context = click.get_current_context()
    given = {name: value for name, value in params.items() if is_given(context, name)}
    try:
        model = CharRNN.load(path, **given)
        check_unknown(model.unknown, model.vocabulary_)
        if weights is not None:
            model.use_weights(weights)
    except (CheckpointError, TextError):
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not all(
        np.isfinite(W).all() for W in (*model.model_.parameters.values(), *parts_of(model.start_state_))
    ):
        raise CheckpointError(
            f"the {model.weights_} weights in {path!r} hold NaN or infinity, as after a training that diverged: "
            f"there is nothing to be had from them"
        )
    return model


def describe_model(model: CharRNN) -> dict[str, Any]:
    """What `fastrnn info --json` says of a model."""
    import numpy as np

    from fastrnn.contents import plain

    hidden = ("checkpoint", "backend", "verbose", "comm")  # which are those of a call, not of the model
    last: dict[str, Any] = {**model.history_[-1]} if model.history_ else {}
    return {
        "train_nats": _finite(last.get("train_nats")),
        "valid_nats": _finite(last.get("valid_nats")),
        "best_valid_nats": _finite(model.best_valid_nats_),
        "best_step": model.best_step_,
        "steps": model.step_,
        "epochs": model.epoch_,
        "vocabulary_size": len(model.vocabulary_),
        "parameters": sum(W.size for W in model.model_.parameters.values()),
        "weights": model.weights_,
        "not_finite": [
            which
            for which, weights in (("last", model.last_weights_), ("best", model.best_weights_ or {}))
            if not all(np.isfinite(W).all() for W in weights.values())
        ],
        "params": {k: plain(v) for k, v in model.get_params().items() if k not in hidden},
        "vocabulary": model.vocabulary_.characters,
        "history": model.history_,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


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


def backend_in_use() -> BackendName:
    try:
        return backends.backend()
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def get_kernels_ready(backend: Any, dtype: Any) -> Any:
    """Compile what has to be, and say so; return the name of the backend that is used."""
    backend = backend or backend_in_use()
    backends.load(backend)  # one that is missing is told before anything else
    if backend == "numba":
        from fastrnn.config import warmup

        say("Getting the kernels ready (compiled once, then kept) ...")
        warmup(dtype, backend=backend)
    return backend


def say(message: str) -> None:
    """Write a message to standard error: within the width of a terminal, elsewhere in one line."""
    if sys.stderr.isatty():
        message = click.wrap_text(message, columns())
    click.echo(message, err=True)


def columns() -> int:
    """Of the terminal, 80 where there is none."""
    import shutil

    return max(shutil.get_terminal_size().columns, 20)


def echo_json(result: dict[str, Any]) -> None:
    """Write a result as one line of JSON, in which a number that is not finite is null."""
    import json

    click.echo(json.dumps(_as_json(result), allow_nan=False))


def _as_json(value: Any) -> Any:
    match value:
        case dict():
            return {key: _as_json(item) for key, item in value.items()}
        case list() | tuple():
            return [_as_json(item) for item in value]
        case float():
            return value if math.isfinite(value) else None
    # Arrays and numbers of NumPy's.
    return _as_json(value.tolist()) if hasattr(value, "tolist") else value


def echo_summary(text: str) -> None:
    """Write a line that says what was done; a program that has no standard output ends well without it."""
    out = Shown(sys.stdout, optional=False)
    if not out.is_missing:
        click.echo(click.wrap_text(text, columns()) if out.isatty() else text)
