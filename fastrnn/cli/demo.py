"""The command `fastrnn demo`."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

import click

from fastrnn.cli.help import Command, option
from fastrnn.cli.shared import (
    BACKEND,
    DTYPE,
    POSITIVE,
    SIZE,
    FileName,
    check_converged,
    columns,
    echo_json,
    get_kernels_ready,
    json_option,
    read_text,
    say,
)
from fastrnn.terminal import decimals

if TYPE_CHECKING:
    from fastrnn.char_rnn import CharRNN
    from fastrnn.hints import BackendName, Dtype

__all__ = ["demo"]

DEFAULT_SECONDS = 20.0

#: Factor of the learning rate from one epoch to the next.
LR_DECAY = 0.85

#: Bytes of a text that the demo reads at most: more than it gets to see in its time.
TEXT_LIMIT = 1 << 24


@click.command(cls=Command)
@option(
    "--text", group="What to learn", metavar="TEXT", type=FileName(allow_dash=True),
    show_default="source code of Python's standard library",
    help="UTF-8 file to learn, - for standard input.",
)  # fmt: skip
@option(
    "--seconds", group="What to learn", type=POSITIVE, show_default=f"{DEFAULT_SECONDS:g}",
    help="How long to train.",
)  # fmt: skip
@option(
    "--max-steps", group="What to learn", type=click.IntRange(1),
    help="Train for this many steps instead of some seconds.",
)  # fmt: skip
@option(
    "--sample-length", group="What to learn", type=click.IntRange(0, 1_000_000), default=500,
    help="Characters to write at the end.",
)  # fmt: skip
@json_option
@option("--hidden-size", group="Model", type=SIZE, default=256, help="Numbers in the hidden state.")
@option(
    "--seq-len", group="Model", type=SIZE, default=64, help="Characters of a chunk: how far BPTT looks back."
)
@option(
    "--batch-size", group="Model", type=SIZE, default=32, help="Parts of the text that are read side by side."
)
@option(
    "--lr", group="Model", type=POSITIVE, default=0.004,
    help=f"Learning rate of the first epoch; each next one takes {LR_DECAY:g} of it.",
)  # fmt: skip
@option("--dtype", group="Model", type=DTYPE, default="float32", help="Precision of the model.")
@option(
    "--random-state", group="Model", type=click.IntRange(0), show_default="another every time",
    help="Seed of the weights and of the sample.",
)  # fmt: skip
@option("--backend", group="Model", type=BACKEND, show_default="the fastest here", help="Kernels to use.")
def demo(
    text: str | None,
    seconds: float | None,
    max_steps: int | None,
    hidden_size: int,
    seq_len: int,
    batch_size: int,
    lr: float,
    dtype: Dtype,
    sample_length: int,
    random_state: int | None,
    backend: BackendName | None,
    as_json: bool,
) -> None:
    """Train on real text, and let the model write.

    \b
    Examples:
      fastrnn demo
      fastrnn demo --text book.txt --seconds 60 --hidden-size 512
      fastrnn demo --max-steps 2000 --random-state 1

    The net reads parts of the text side by side, chunk by chunk, carries its hidden states from one
    chunk to the next, and takes a step of Adam after each (truncated BPTT). The progress shows the loss
    in nats per character, that of the text which is held out (valid), and the speed. A guess has a loss
    of about 4.6. How far below it the net comes depends on how many characters this machine reads in
    the time: about 1.9 after half a million of them, 1.3 after four million; --seconds gives it more.

    At the end it prints a sample of what the net writes, and how many times as fast as a plain NumPy
    loop the training ran, measured there and then. Ctrl-C ends the training early and goes on with the
    sample. With --max-steps and --random-state the sample is the same every time. To keep a model:
    fastrnn train.
    """
    import numpy as np

    from fastrnn.char_rnn import CharRNN
    from fastrnn.cli.comparison import Disagreement
    from fastrnn.cli.speed import measure_speed
    from fastrnn.text.reading import standard_library_source

    if seconds is not None and max_steps is not None:
        raise click.UsageError("--seconds and --max-steps exclude each other.")
    if text is None:
        content, source = standard_library_source(), "source code of the standard library"
    else:
        content, whole = read_text(text, TEXT_LIMIT)
        source = "standard input" if text == "-" else text
        if not whole:
            say(f"The text is long: only its first {TEXT_LIMIT:,} bytes are read.")
    backend = get_kernels_ready(backend, dtype)
    say(f"{source}: {len(content):,} characters, {len(set(content))} different ones. Backend {backend}.")
    model = CharRNN(
        hidden_size,
        seq_len=seq_len,
        batch_size=batch_size,
        lr=lr,
        lr_decay=LR_DECAY,
        epochs=None,
        max_steps=max_steps,
        max_seconds=None if max_steps else seconds or DEFAULT_SECONDS,
        dtype=dtype,
        random_state=random_state,
        backend=backend,
    )
    with np.errstate(all="ignore"):  # a training that diverges is reported below
        took = _train(model, content)
    check_converged(model)
    nats, valid = model.history_[-1]["train_nats"], model.history_[-1]["valid_nats"]
    characters = _characters_seen(model, len(content))
    if not as_json:
        held_out = "" if valid is None else f", {decimals(valid, 3)} on text not learned"
        click.echo(f"trained for         {took:.1f} s")
        click.echo(f"characters          {characters:,}, {characters / len(content):.2f} times the text")
        click.echo(f"per second          {characters / took:,.0f}")
        click.echo(f"nats per character  {nats:.3f}{held_out}")
    written = model.generate(sample_length, random_state=random_state)
    if not as_json:
        line = "-" * min(columns(), 72)
        click.echo(f"\nA sample:\n{line}\n{written}\n{line}\n")
    try:
        speed = measure_speed(model, content)
    except Disagreement as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        echo_json({
            "source": source, "text_characters": len(content), "vocabulary_size": len(set(content)),
            "backend": backend, "seconds": took, "steps": model.step_, "characters": characters,
            "chars_per_second": characters / took, "train_nats": nats, "valid_nats": valid,
            "sample": written, "us_per_char": 1e6 * speed.fast, "reference_us_per_char": 1e6 * speed.reference,
            "ratio": speed.ratio,
        })  # fmt: skip
        return
    click.echo(f"{speed.ratio:.1f} times as fast as the reference loop")
    click.echo(
        f"{1e6 * speed.fast:.2f} against {1e6 * speed.reference:.2f} us per character, with the same results"
    )


def _train(model: CharRNN, content: str) -> float:
    """Train until a limit or Ctrl-C; return the seconds taken."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.fit(content)
        except KeyboardInterrupt:
            if not getattr(model, "history_", None):
                raise
            click.echo("\nStopped by Ctrl-C.", err=True)
    took = time.perf_counter() - start
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            say(f"Warning: {warning.message}")
    return took


def _characters_seen(model: CharRNN, length: int) -> int:
    """How many characters a model was trained on, of a text of `length`."""
    learned = max(length - round(length * model.validation_fraction), 2) - 1
    T = min(model.seq_len, learned)
    return model.step_ * T * min(model.batch_size, learned // T)
