"""The command `fastrnn train`."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrnn.cli.help import Command, option
from fastrnn.cli.shared import (
    BACKEND,
    DTYPE,
    POSITIVE,
    SIZE,
    Choice,
    FileName,
    OrNone,
    check_converged,
    check_readable,
    describe_model,
    echo_json,
    echo_summary,
    get_kernels_ready,
    is_given,
    open_texts,
    say,
    texts_argument,
)
from fastrnn.group import group_of
from fastrnn.optim import OPTIMIZERS

if TYPE_CHECKING:
    from fastrnn.char_rnn import CharRNN

__all__ = ["train"]

COUNT = click.IntRange(1)
#: Exit status after a signal, as shells have it.
SIGNALLED = 128


class _RemembersArguments(Command):
    """Keeps what it was called with, to tell how to go on."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["fastrnn.arguments"] = list(args)
        return super().parse_args(ctx, args)


@click.command(cls=_RemembersArguments)
@texts_argument
@option(
    "--out", "-o", "--checkpoint", "checkpoint", group="Files", metavar="MODEL", required=True,
    type=FileName(dir_okay=False),
    help="File of the model, kept up to date during training. The one before it stays as MODEL.previous.",
)  # fmt: skip
@option(
    "--resume", group="Files", is_flag=True,
    help="Go on with the run in MODEL, on the same text, with the hyper-parameters there; those given "
    "now take their place. Without a MODEL, begin one.",
)  # fmt: skip
@option("--force", group="Files", is_flag=True, help="Begin anew although MODEL exists, and replace it.")
@option(
    "--checkpoint-every", group="Files", type=OrNone(COUNT), show_default="every 30 seconds",
    help="Steps between checkpoints.",
)  # fmt: skip
@option(
    "--hidden-size", group="Model", type=SIZE, default=256, help="Numbers in the hidden state of a layer."
)
@option(
    "--cell", group="Model", type=Choice(("rnn", "gru", "lstm")), default="rnn",
    help="What a layer is made of: the vanilla cell, or one with gates, which remembers for longer.",
)  # fmt: skip
@option(
    "--num-layers", group="Model", type=click.IntRange(1, 1000), default=1,
    help="Layers, one above the other.",
)  # fmt: skip
@option(
    "--dropout", group="Model", type=click.FloatRange(0, 1, max_open=True), default=0.0,
    help="Probability that a number between two layers is dropped in a step: against learning by heart.",
)  # fmt: skip
@option("--dtype", group="Model", type=DTYPE, default="float32", help="Precision of the model.")
@option(
    "--seq-len", group="Training", type=SIZE, default=64,
    help="Characters of a chunk: how far BPTT looks back.",
)  # fmt: skip
@option(
    "--batch-size", group="Training", type=SIZE, default=64,
    help="Parts of the text that are read side by side.",
)  # fmt: skip
@option(
    "--optimizer", group="Training", type=Choice(tuple(OPTIMIZERS)), default="adam", metavar="NAME",
    help=f"How gradients move the weights: {', '.join(OPTIMIZERS)}. adagrad is that of min-char-rnn, rmsprop "
    "that of char-rnn.",
)  # fmt: skip
@option(
    "--lr", group="Training", type=POSITIVE, default=2e-3,
    help="Learning rate of the first epoch. Too high, the loss jumps; too low, it creeps.",
)  # fmt: skip
@option(
    "--lr-decay", group="Training", type=POSITIVE, default=1.0,
    help="Factor of the learning rate from one epoch to the next, such as 0.95.",
)  # fmt: skip
@option(
    "--clip", group="Training", type=OrNone(Choice(("norm", "value"))), default="norm",
    help="Rescale the gradients by their global norm, clamp each, or neither: against explosions.",
)  # fmt: skip
@option(
    "--clip-threshold", group="Training", type=click.FloatRange(0, min_open=True), default=5.0,
    help="The norm, or the size of an entry, that they are held to.",
)  # fmt: skip
@option(
    "--random-state", group="Training", type=OrNone(click.IntRange(0)), show_default="another every time",
    help="Seed: the same one gives the same model, bit for bit.",
)  # fmt: skip
@option(
    "--epochs", group="When to stop", type=OrNone(COUNT), default=10,
    help="Passes over the text; none goes on until another limit is met.",
)  # fmt: skip
@option(
    "--max-steps", group="When to stop", type=OrNone(COUNT), show_default="none",
    help="Take this many steps, whatever --epochs says.",
)  # fmt: skip
@option(
    "--seconds", "--max-seconds", "max_seconds", group="When to stop", type=OrNone(POSITIVE),
    show_default="none",
    help="End this run after this many seconds; --epochs counts only if it is given too.",
)  # fmt: skip
@option(
    "--patience", group="When to stop", type=OrNone(COUNT), show_default="none",
    help="Stop after this many validations in a row without a new best one, and use the best weights.",
)  # fmt: skip
@option(
    "--validation-fraction", group="When to stop", type=click.FloatRange(0, 1, max_open=True), default=0.1,
    help="Share at the end of the text that is not learned, but predicted to see what was learned.",
)  # fmt: skip
@option(
    "--validate-every", group="When to stop", type=OrNone(COUNT), show_default="after each epoch",
    help="Steps between validations.",
)  # fmt: skip
@option(
    "--unknown", group="Text", type=OrNone(click.STRING), metavar="skip|CHARACTER|none", show_default="none",
    help="What the model does later with characters that are not in the text: leave them out, read "
    "CHARACTER in their place, or (none) refuse them.",
)  # fmt: skip
@option(
    "--newline", group="Text", type=OrNone(Choice(("universal",))), show_default="none",
    help="Read the line ends of Windows and of old Macs as \\n, here and whenever the model reads a text "
    "(universal), or keep every character (none).",
)  # fmt: skip
@option(
    "--backend",
    group="Machine",
    type=OrNone(BACKEND),
    show_default="the fastest here",
    help="Kernels to use.",
)
@option(
    "--num-threads", group="Machine", type=OrNone(COUNT), show_default="all cores",
    help="Most threads that share a batch; fewer do where more would be no help.",
)  # fmt: skip
@option(
    "--mpi", group="Machine", is_flag=True,
    help="Share the training among the processes that mpiexec has started.",
)  # fmt: skip
@option(
    "--sync-every", group="Machine", type=COUNT, show_default="every step", metavar="STEPS",
    help="With --mpi: let each process step for itself, and average the weights after so many steps.",
)  # fmt: skip
@option(
    "--verbose/--quiet", "-v/-q", group="What to show", default=True, help="Show progress, or errors only."
)
@option(
    "--diagnostics-every", group="What to show", type=OrNone(COUNT), default=256,
    help="Steps between looks at the gradients, which `fastrnn info --json` shows.",
)  # fmt: skip
@option(
    "--json", "as_json", group="What to show", is_flag=True,
    help="At the end, write what `fastrnn info MODEL --json` does.",
)  # fmt: skip
@click.pass_context
def train(
    context: click.Context,
    /,
    texts: tuple[str, ...],
    checkpoint: str,
    resume: bool,
    force: bool,
    mpi: bool,
    sync_every: int | None,
    verbose: bool,
    as_json: bool,
    **params: Any,
) -> None:
    """Train a model on a text and keep it in a file.

    \b
    Examples:
      fastrnn train book.txt --out book.safetensors
      fastrnn train book.txt --out book.safetensors --resume --epochs 20
      fastrnn train *.txt --out all.safetensors --seconds 3600
      cat *.md | fastrnn train - --out notes.safetensors --patience 3
      mpiexec -n 4 python -m fastrnn train book.txt --out book.safetensors --mpi
      fastrnn train book.txt --out karpathy.safetensors --hidden-size 100 --seq-len 25 --batch-size 1 --optimizer adagrad --lr 0.1

    TEXT is a UTF-8 file of any length, - for standard input; several are read as one text. MODEL is
    written every 30 seconds or as often as --checkpoint-every says, when Ctrl-C, SIGTERM or a closed
    terminal ends the training, and at the end: whole or not at all, and never with weights that are no
    numbers. A run that was stopped and goes on with --resume ends with the same bits as one that was not.

    The progress shows the loss in nats per character: log(different characters), about 4, is a guess;
    plain English comes down to about 1.5. When the loss of the held-out text (valid) no longer falls
    while the other does, the model learns by heart: more text, or fewer --epochs.

    Exit status, here and of every command: 0 done, 1 failed, 2 wrong usage, 129 the terminal was closed,
    130 ended by Ctrl-C, 143 ended by SIGTERM. Results go to standard output, progress to standard error.
    """
    if resume and force:
        raise click.UsageError("--resume and --force exclude each other.")
    if sync_every is not None and not mpi:
        raise click.UsageError("--sync-every is for --mpi.")
    if mpi and "-" in texts:
        raise click.UsageError("--mpi needs files: mpiexec passes on only a little of standard input.")
    given = {name: value for name, value in params.items() if is_given(context, name)}
    if "max_seconds" in given and "epochs" not in given:
        given["epochs"] = None
    with _ranks(mpi, sync_every or 1) as comm, _terminated():
        group = group_of(comm)
        speaks = group.rank == 0
        context.meta[_SIZE] = group.size
        given |= {"checkpoint": checkpoint, "verbose": int(verbose and speaks), "comm": comm}
        there = _identity(checkpoint)
        try:
            with _as_one_line(speaks):
                _refuse_texts(checkpoint, texts)
                check_readable(*texts)
                model = _train(checkpoint, open_texts(texts), given, resume=resume, force=force)
                if as_json and speaks:
                    echo_json(describe_model(model))
                elif verbose and speaks:
                    _summarise(model, checkpoint)
        except KeyboardInterrupt as stop:
            number = stop.args[0] if stop.args else signal.SIGINT
            _ignore_more()
            saved = (resume and there is not None) or _identity(checkpoint) != there
            if group.size > 1:
                comm.end_all_at_exit(SIGNALLED + number, stop)
            with _terminal_may_be_gone():
                if speaks:
                    _say_how_to_go_on(context, checkpoint if saved else None, number)
                else:  # the first has said nothing, so it was not in the training
                    click.echo(f"\nStopped by {_name(number)}.", err=True)
            raise click.exceptions.Exit(SIGNALLED + number) from None


def _refuse_texts(checkpoint: str, texts: tuple[str, ...]) -> None:
    """Refuse to put the model in the place of a text, before anything is read."""
    from fastrnn.checkpoint import check_is_no_text

    try:
        check_is_no_text(checkpoint, [sys.stdin if name == "-" else Path(name) for name in texts])
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _train(checkpoint: str, texts: list[Any], given: dict[str, Any], *, resume: bool, force: bool) -> CharRNN:
    """Train a model, and return it.  Of several ranks the first reads and writes the file, and speaks."""
    import numpy as np

    from fastrnn.char_rnn import CharRNN
    from fastrnn.checkpoint import check_writable, only_writer
    from fastrnn.errors import CheckpointError, TextError

    text = texts[0] if len(texts) == 1 else texts
    group = group_of(given["comm"])
    with contextlib.ExitStack() as held:

        def begin() -> CharRNN:
            held.enter_context(
                only_writer(checkpoint)
            )  # before it is looked at, so that no other run is lost
            exists = Path(checkpoint).exists()
            if exists and not (resume or force):
                raise click.ClickException(
                    f"{checkpoint!r} exists: --resume goes on with it, --force replaces it"
                )
            check_writable(checkpoint)  # before the kernels are got ready and the text is read
            if resume and not exists:
                say(f"There is no {checkpoint!r} to go on with: training begins.")
            return CharRNN.load(checkpoint, **given) if resume and exists else CharRNN(**given)

        try:
            # What rank 0 has goes to the others: they may be on machines that have no such file.
            model = group.of_root(begin).set_params(comm=given["comm"], verbose=given["verbose"])
            going_on = hasattr(model, "_run")
            before = model.step_ if going_on else 0
            backend = group.of_root(lambda: get_kernels_ready(model.backend, model.dtype))
            if model.verbose:
                where = f"Going on after step {before:,}" if going_on else "Reading the text"
                say(f"{where}; backend {backend}. Ctrl-C saves and stops.")
            try:
                with np.errstate(all="ignore"):  # a training that diverges is reported below
                    model.fit(text, resume=going_on)
            finally:
                _note_divergence(model)
        except (CheckpointError, TextError):
            raise
        except (ValueError, TypeError) as error:  # about a hyper-parameter
            raise click.UsageError(str(error)) from None
        _check_finite(model, checkpoint, going_on)
    check_converged(model)
    if going_on and model.step_ == before and group.rank == 0:
        say(
            f"Nothing is left to do: the run ended after step {before:,}. A higher --epochs or --max-steps "
            f"lets it go on."
        )
    return model


#: Of a context's `meta`: learning rate of a training that diverged, and the number of ranks.
_DIVERGED, _SIZE = "fastrnn.diverged", "fastrnn.ranks"


def _note_divergence(model: CharRNN) -> None:
    if getattr(model, "_diverged", False):
        click.get_current_context().meta[_DIVERGED] = model.lr


def _check_finite(model: CharRNN, checkpoint: str, going_on: bool) -> None:
    """Fail if a training ended with NaN or infinity, which are in no file."""
    context = click.get_current_context()
    if _DIVERGED not in context.meta:
        return
    nats = model.history_[-1]["train_nats"]
    what = (
        "the weights, or the loss that they give, are no longer finite"
        if math.isfinite(nats)
        else f"the loss is {nats:.4g}"
    )
    said = f"the training diverged: {what} after step {model.step_:,}"
    step = model._step_in_file(going_on)
    if step is None:
        raise click.ClickException(f"{said}, and nothing was saved; try a lower --lr than {model.lr:g}")
    raise _CanGoOn(
        f"{said}; {checkpoint} holds step {step:,}; to go on from there with a lower --lr than {model.lr:g}:",
        _command_to_go_on(context),
    )


class _CanGoOn(click.ClickException):
    """A failure, and the command that goes on from what is saved."""

    def __init__(self, message: str, command: str) -> None:
        super().__init__(message)
        self.command = command

    def show(self, file: Any = None) -> None:
        super().show(file)
        click.echo(f"  {self.command}", err=True)


def _summarise(model: CharRNN, checkpoint: str) -> None:
    last = model.history_[-1]
    figures = [f"{model.step_:,} steps", f"{last['train_nats']:.3f} nats per character"]
    if model.best_valid_nats_ is not None:
        figures.append(f"best validation {model.best_valid_nats_:.3f} after step {model.best_step_:,}")
    echo_summary(f"{checkpoint}: {', '.join(figures)}")


def _identity(file: str) -> tuple[int, int] | None:
    """What tells a file from one that took its place."""
    try:
        status = Path(file).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _say_how_to_go_on(context: click.Context, checkpoint: str | None, number: int) -> None:
    """Say what is saved, and the command that goes on from there."""
    from fastrnn.char_rnn import CharRNN

    name = _name(number)
    diverged = "; the training had diverged" if _DIVERGED in context.meta else ""
    if checkpoint is None:
        click.echo(f"\nStopped by {name} before anything was saved{diverged}.", err=True)
        return
    step = CharRNN.load(checkpoint, backend=None).step_
    again = " (with the same text on standard input)" if "-" in context.params["texts"] else ""
    click.echo(
        f"\nStopped by {name}{diverged}. {checkpoint} holds step {step:,}; to go on{again}:\n"
        f"  {_command_to_go_on(context)}",
        err=True,
    )


def _command_to_go_on(context: click.Context) -> str:
    arguments = [a for a in context.meta["fastrnn.arguments"] if a not in ("--force", "--resume")]
    if _DIVERGED in context.meta:
        while "--lr" in arguments:
            at = arguments.index("--lr")
            del arguments[at : at + 2]
        arguments = [a for a in arguments if not a.startswith("--lr=")]
        end = arguments.index("--") if "--" in arguments else len(arguments)  # behind it all are texts
        arguments[end:end] = ["--lr", f"{context.meta[_DIVERGED] / 10:.3g}"]
    command = f"{context.command_path} --resume {shlex.join(arguments)}"
    ranks = context.meta.get(_SIZE, 1)
    return command if ranks == 1 else f"mpiexec -n {ranks} {command}"


@contextlib.contextmanager
def _terminal_may_be_gone() -> Iterator[None]:
    """Go on where nobody is there any more to be told something."""
    try:
        yield
    except OSError:
        # What is still in the buffer would fail again at exit, with another status.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


@contextlib.contextmanager
def _ranks(mpi: bool, sync_every: int) -> Iterator[Any]:
    """The `comm` of the processes that mpiexec has started; what fails on one of them ends them all."""
    if not mpi:
        yield None
        return
    try:
        from fastrnn import distributed

        comm = distributed.mpi(sync_every=sync_every)
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    try:
        yield comm
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        comm.end_all_at_exit(130 if interrupted else getattr(error, "exit_code", 1), error)
        raise


@contextlib.contextmanager
def _as_one_line(speaks: bool) -> Iterator[None]:
    """Tell warnings in one line."""

    def tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if speaks and not issubclass(category, RuntimeWarning):  # that the loss is no number is an error here
            say(f"Warning: {message}")

    with warnings.catch_warnings():
        for category in (UserWarning, RuntimeWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = tell
        yield


def _ignore_more() -> None:
    """Once the training has ended: a closed terminal often sends its signal twice."""
    from fastrnn.interrupts import ENDING_SIGNALS, interrupt

    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is interrupt:
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the training as Ctrl-C does, unless they are ignored, as under nohup."""
    from fastrnn.interrupts import ENDING_SIGNALS, interrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    taken = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    try:
        for number in taken:
            signal.signal(number, interrupt)
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
