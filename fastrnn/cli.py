"""The command line `fastrnn`.

Results go to standard output; progress and messages to standard error.  Exit status: 0 done, 1
failed, 2 wrong usage.  Commands import what they need when they run.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

import fastrnn
from fastrnn.backends import BACKENDS
from fastrnn.cli_diagnose import add_diagnose
from fastrnn.errors import BackendUnavailable

if TYPE_CHECKING:
    from fastrnn.bench import Row
    from fastrnn.demo import StreamTrainer

__all__ = ["main"]

DEFAULT_SECONDS = 20.0

#: Bytes of a text that the demo reads at most: more than it gets to see in its time.
TEXT_LIMIT = 1 << 24

#: The learning rate falls linearly to this share of its first value.
FINAL_LR_SHARE = 0.05

#: Seconds between two moves of the bar, and between two lines where there is no terminal.
BAR_EVERY, LINE_EVERY = 0.1, 5.0

#: Variables that hold the BLAS libraries to one thread; they are read when NumPy is imported.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

#: Hidden sizes and time steps that `bench` measures when none are named.
BENCH_SIZES = ((32, 100), (100, 4), (100, 25), (100, 100), (256, 100))

DTYPES = ("float64", "float32")
SIZE = click.IntRange(1, 100_000)


def _positive(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse zero and less, infinity and NaN (`click.FloatRange` lets NaN through)."""
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"{value:g} is not a positive, finite number.")
    return value


class _OneLineErrors(click.Group):
    """What a user can put right is told in one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        from fastrnn.bench import Disagreement
        from fastrnn.texts import TextError

        try:
            return super().invoke(ctx)
        except (TextError, BackendUnavailable, Disagreement) as error:
            raise click.ClickException(str(error)) from None
        except MemoryError as error:
            raise click.ClickException(f"not enough memory: {error}") from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader has had enough, as in `| head`: click ends quietly
            # What is still in the buffer would fail again at exit, with another status.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.ClickException(f"cannot write: {error.strerror or error}") from None


@click.group(
    cls=_OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog="""\b
Start with:
  fastrnn demo                    learn this Python's own source code for 20 seconds
  fastrnn demo --text book.txt    learn a text of yours
  fastrnn bench                   how fast is it here?

\b
Completion of commands and options with the Tab key, for this shell:
  bash    eval "$(_FASTRNN_COMPLETE=bash_source fastrnn)"
  zsh     eval "$(_FASTRNN_COMPLETE=zsh_source fastrnn)"
  fish    _FASTRNN_COMPLETE=fish_source fastrnn | source
Put the line into ~/.bashrc, ~/.zshrc or ~/.config/fish/config.fish to keep it.

Results go to standard output, progress to standard error. Exit status: 0 done, 1 failed, 2 wrong
usage.""",
)
@click.version_option(fastrnn.__version__, prog_name="fastrnn")
def main() -> None:
    """Vanilla recurrent networks, fast on a CPU."""
    for stream in (sys.stdout, sys.stderr):
        # A sample may hold characters that the terminal's encoding lacks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


# -- demo ----------------------------------------------------------------------------------------


@main.command()
@click.option(
    "--text",
    type=click.Path(allow_dash=True),
    help="UTF-8 file to learn, - for standard input.  [default: source code of Python's standard library]",
)
@click.option(
    "--seconds", type=float, callback=_positive, help=f"How long to train.  [default: {DEFAULT_SECONDS:g}]"
)
@click.option("--max-steps", type=click.IntRange(1), help="Train on so many chunks instead.")
@click.option("--hidden-size", type=SIZE, default=100, help="Numbers in the hidden state.")
@click.option("--seq-len", type=SIZE, default=25, help="Characters of a chunk: how far BPTT looks back.")
@click.option(
    "--lr",
    type=float,
    callback=_positive,
    default=0.01,
    help="Learning rate at the start; it falls linearly.",
)
@click.option("--dtype", type=click.Choice(DTYPES), default="float64", help="Precision of the model.")
@click.option("--sample-length", type=click.IntRange(0, 1_000_000), default=500, help="Characters to write.")
@click.option("--random-state", type=click.IntRange(0), help="Seed of the weights and of the sample.")
@click.option(
    "--backend", type=click.Choice(tuple(BACKENDS)), help="Kernels to use.  [default: the fastest here]"
)
def demo(
    text: str | None,
    seconds: float | None,
    max_steps: int | None,
    hidden_size: int,
    seq_len: int,
    lr: float,
    dtype: str,
    sample_length: int,
    random_state: int | None,
    backend: str | None,
) -> None:
    """Train a character RNN on real text, and let it write.

    The net reads the text in chunks, carries its hidden state from one to the next, and takes a step
    of gradient descent after each (truncated BPTT), as min-char-rnn does. The progress shows the loss
    in nats per character, which falls from about 4.6, that of a guess, to about 1.5 in 20 seconds,
    and the speed in characters per second. At the end it prints a sample of what the net writes, and
    how many times as fast as the plain NumPy loop the training ran, measured there and then.

    Ctrl-C ends the training early and goes on with the sample.

    \b
    Examples:
      fastrnn demo
      fastrnn demo --text book.txt --seconds 60 --hidden-size 256
      fastrnn demo --max-steps 20000 --random-state 1    the same sample every time
    """
    import numpy as np

    from fastrnn.demo import StreamTrainer, measure_speed
    from fastrnn.texts import encode, read_text, standard_library_source

    if seconds is not None and max_steps is not None:
        raise click.UsageError("--seconds and --max-steps exclude each other.")
    backend = backend or _backend_in_use()
    if text is None:
        content, source = standard_library_source(), "source code of the standard library"
    else:
        content, whole = read_text(text, TEXT_LIMIT)
        source = "standard input" if text == "-" else text
        if not whole:
            click.echo(f"The text is long: only its first {TEXT_LIMIT:,} bytes are read.", err=True)
    vocabulary, indices = encode(content)

    rng = np.random.default_rng(random_state)
    q = len(vocabulary)
    rnn = fastrnn.SimpleRNN(q, hidden_size, q, dtype=dtype, rng=rng, backend=backend)
    trainer = StreamTrainer(rnn, indices, seq_len)
    click.echo(
        f"{source}: {len(content):,} characters, {q} different ones. "
        f"{rnn.num_parameters:,} parameters, backend {backend}.",
        err=True,
    )
    if trainer.seq_len < seq_len:
        click.echo(f"The text is shorter than a chunk: chunks of {trainer.seq_len} characters.", err=True)
    if backend == "numba":
        click.echo("Getting the kernels ready (compiled once, then kept) ...", err=True)
        fastrnn.warmup(dtype, backend=backend)

    with _interruptible() as interrupted:
        with np.errstate(all="ignore"):  # a training that diverges is reported below
            took = _train(trainer, lr, seconds or DEFAULT_SECONDS, max_steps, interrupted)
        if not math.isfinite(trainer.smoothed_loss):
            raise click.ClickException(
                f"the training diverged: the loss is {trainer.smoothed_loss} after {trainer.characters:,} "
                f"characters; try a lower --lr than {lr:g}"
            )
        if interrupted.is_set():
            click.echo("Stopped by Ctrl-C.", err=True)
        click.echo(
            f"Trained for {took:.1f} s on {trainer.characters:,} characters, "
            f"{trainer.characters / len(content):.2f} times the text: "
            f"{trainer.smoothed_loss:.3f} nats per character, "
            f"{trainer.characters / took:,.0f} characters per second."
        )
        written = "".join(vocabulary[i] for i in trainer.sample(sample_length, rng))
        click.echo(f"\nA sample:\n{'-' * 72}\n{_printable(written)}\n{'-' * 72}\n")
        speed = measure_speed(trainer, lr * FINAL_LR_SHARE)
        click.echo(
            f"{speed.ratio:.1f} times as fast as the reference loop: {1e6 * speed.fast:.2f} against "
            f"{1e6 * speed.reference:.2f} us per character, on the same chunks with the same results."
        )


def _train(
    trainer: StreamTrainer,
    lr: float,
    seconds: float,
    max_steps: int | None,
    interrupted: threading.Event,
) -> float:
    """Train until the time or the steps are over, or somebody interrupts; return the seconds taken."""
    steps = 0
    done = 0.0
    with _progress() as (show, every):
        start = now = time.perf_counter()
        next_show = start + every
        while done < 1 and not interrupted.is_set() and math.isfinite(trainer.smoothed_loss):
            trainer.step(lr * (1 - (1 - FINAL_LR_SHARE) * done))
            steps += 1
            now = time.perf_counter()
            done = steps / max_steps if max_steps is not None else (now - start) / seconds
            if now >= next_show:
                show(min(done, 1.0), now - start, trainer)
                next_show = now + every
        show(min(done, 1.0), now - start, trainer)
    return now - start


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Callable[[float, float, StreamTrainer], None], float]]:
    """A function that shows the progress, and how often to call it: a bar, or lines where standard
    error is not a terminal."""

    def figures(trainer: StreamTrainer, elapsed: float) -> str:
        return f"{trainer.smoothed_loss:.3f} nats/char, {trainer.characters / elapsed:,.0f} chars/s"

    if not sys.stderr.isatty():

        def line(done: float, elapsed: float, trainer: StreamTrainer) -> None:
            click.echo(f"{done:4.0%}  {elapsed:6.1f} s  {figures(trainer, elapsed)}", err=True)

        yield line, LINE_EVERY
        return

    from tqdm import tqdm

    # tqdm shows nothing on a terminal that does not tell its size; this takes it for 80 by 24.
    columns, rows = shutil.get_terminal_size()
    layout = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(total=1.0, bar_format=layout, file=sys.stderr, ncols=columns, nrows=rows) as bar:

        def move(done: float, elapsed: float, trainer: StreamTrainer) -> None:
            bar.set_postfix_str(figures(trainer, elapsed), refresh=False)
            bar.n = done
            bar.refresh()

        yield move, BAR_EVERY


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that a step of training is never cut in two; the second
    one raises KeyboardInterrupt as usual."""
    interrupted = threading.Event()
    previous = signal.getsignal(signal.SIGINT)
    # A job in the background ignores SIGINT and shall go on doing so; only the main thread may ask.
    if previous in (signal.SIG_IGN, None) or threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def note(signum: int, frame: Any) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)


def _printable(text: str) -> str:
    """Control characters as escapes, so that a sample cannot command the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _backend_in_use() -> str:
    try:
        return fastrnn.backend()
    except ValueError as error:
        raise click.ClickException(str(error)) from None


# -- bench ---------------------------------------------------------------------------------------


@main.command()
@click.option("--hidden-size", type=SIZE, multiple=True, help="Hidden size h; may be given several times.")
@click.option("--seq-len", type=SIZE, multiple=True, help="Time steps T; may be given several times.")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    multiple=True,
    help="Precision of the backends; may be given twice.  [default: float64]",
)
@click.option(
    "--backend",
    type=click.Choice(tuple(BACKENDS)),
    multiple=True,
    help="Kernels to measure; may be given several times.  [default: all that are here]",
)
@click.option("--seconds", type=float, callback=_positive, default=0.2, help="Measuring time of each number.")
def bench(
    hidden_size: tuple[int, ...],
    seq_len: tuple[int, ...],
    dtype: tuple[str, ...],
    backend: tuple[str, ...],
    seconds: float,
) -> None:
    """Measure the backends against the reference loop, on this machine.

    One sequence of characters (65 different ones), one thread. Each result is checked against the
    reference before it is timed. The reference is the study notes' plain NumPy loop in float64; the
    numbers are microseconds for a time step, and how many times as fast that is.

    \b
    Examples:
      fastrnn bench
      fastrnn bench --hidden-size 100 --hidden-size 512 --seq-len 25
      fastrnn bench --dtype float32 --backend numba
    """
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        _again_with_one_thread(hidden_size, seq_len, dtype, backend, seconds)
        return

    from fastrnn.bench import compare

    dtypes = dtype or DTYPES[:1]
    found = backend or _available_backends()
    for name in found:
        if name == "numba":
            click.echo("Getting the Numba kernels ready (compiled once, then kept) ...", err=True)
            for one in dtypes:
                fastrnn.warmup(one, backend=name)
    if hidden_size or seq_len:
        hs = hidden_size or sorted({h for h, _ in BENCH_SIZES})
        Ts = seq_len or sorted({T for _, T in BENCH_SIZES})
        sizes = [(h, T) for h in hs for T in Ts]
    else:
        sizes = list(BENCH_SIZES)
    click.echo("Microseconds a time step, and how many times as fast as the reference loop; one thread.")
    click.echo(
        f"{'operation':<10}  {'dtype':<7}  {'h':>6}  {'T':>6}  {'reference':>9}"
        + "".join(f"  {name:>16}" for name in found)
    )
    for row in compare(sizes, dtypes, found, seconds):
        click.echo(_table_line(row))


def _table_line(row: Row) -> str:
    scale = 1e6 / row.seq_len
    cells = "".join(f"  {scale * s:8.2f} {row.reference / s:6.1f}x" for s in row.backends.values())
    return (
        f"{row.operation:<10}  {row.dtype:<7}  {row.hidden_size:>6}  {row.seq_len:>6}  "
        f"{scale * row.reference:>9.2f}{cells}"
    )


def _available_backends() -> tuple[str, ...]:
    from fastrnn.backends import load

    found = []
    for name in BACKENDS:
        try:
            load(name)
        except BackendUnavailable as error:
            click.echo(f"Left out: {error}", err=True)
        else:
            found.append(name)
    return tuple(found)


def _again_with_one_thread(
    hidden_size: tuple[int, ...],
    seq_len: tuple[int, ...],
    dtype: tuple[str, ...],
    backend: tuple[str, ...],
    seconds: float,
) -> None:
    """Run `bench` in a process of its own: BLAS libraries take their threads when they are loaded."""
    options = {"--hidden-size": hidden_size, "--seq-len": seq_len, "--dtype": dtype, "--backend": backend}
    arguments = ["bench", f"--seconds={seconds}"]
    arguments += [f"{option}={value}" for option, values in options.items() for value in values]
    # The same sys.path, so that it is the same fastrnn.
    start = f"import sys; sys.path[:] = {sys.path!r}; from fastrnn.cli import main; main(prog_name='fastrnn')"
    status = subprocess.call([sys.executable, "-c", start, *arguments], env={**os.environ, **ONE_THREAD})
    if status:
        raise click.exceptions.Exit(status if status > 0 else 1)


# -- info ----------------------------------------------------------------------------------------


@main.command()
def info() -> None:
    """Show versions, backends, instruction set, threads and cache folder."""
    fastrnn.show_config()


# -- diagnose ------------------------------------------------------------------------------------

add_diagnose(main)
