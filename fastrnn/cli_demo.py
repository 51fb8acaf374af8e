"""The command `fastrnn demo`."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

import click

from fastrnn.cli_shared import BACKEND, DTYPE, SIZE, check_converged, get_kernels_ready, positive
from fastrnn.terminal import decimals

if TYPE_CHECKING:
    from fastrnn.char_rnn import CharRNN

__all__ = ["demo"]

DEFAULT_SECONDS = 20.0

#: Factor of the learning rate from one epoch to the next.
LR_DECAY = 0.85

#: Bytes of a text that the demo reads at most: more than it gets to see in its time.
TEXT_LIMIT = 1 << 24


@click.command()
@click.option(
    "--text",
    type=click.Path(allow_dash=True),
    help="UTF-8 file to learn, - for standard input.  [default: source code of Python's standard library]",
)
@click.option(
    "--seconds", type=float, callback=positive, help=f"How long to train.  [default: {DEFAULT_SECONDS:g}]"
)
@click.option("--max-steps", type=click.IntRange(1), help="Train so many steps instead.")
@click.option("--hidden-size", type=SIZE, default=256, help="Numbers in the hidden state.")
@click.option("--seq-len", type=SIZE, default=64, help="Characters of a chunk: how far BPTT looks back.")
@click.option("--batch-size", type=SIZE, default=32, help="Parts of the text that are read side by side.")
@click.option(
    "--lr",
    type=float,
    callback=positive,
    default=0.004,
    help=f"Learning rate of the first epoch; each next one takes {LR_DECAY:g} of it.",
)
@click.option("--dtype", type=DTYPE, default="float32", help="Precision of the model.")
@click.option("--sample-length", type=click.IntRange(0, 1_000_000), default=500, help="Characters to write.")
@click.option("--random-state", type=click.IntRange(0), help="Seed of the weights and of the sample.")
@click.option("--backend", type=BACKEND, help="Kernels to use.  [default: the fastest here]")
def demo(
    text: str | None,
    seconds: float | None,
    max_steps: int | None,
    hidden_size: int,
    seq_len: int,
    batch_size: int,
    lr: float,
    dtype: str,
    sample_length: int,
    random_state: int | None,
    backend: str | None,
) -> None:
    """Train a character RNN on real text, and let it write.

    The net reads parts of the text side by side, chunk by chunk, carries its hidden states from one
    chunk to the next, and takes a step of Adam after each (truncated BPTT). The progress shows the loss
    in nats per character, which falls from about 4.6, that of a guess, to about 1.2 in 20 seconds, that
    of the text which is held out (valid), and the speed. At the end it prints a sample of what the net
    writes, and how many times as fast as the plain NumPy loop the training ran, measured there and
    then.

    Ctrl-C ends the training early and goes on with the sample. To keep a model: fastrnn train.

    \b
    Examples:
      fastrnn demo
      fastrnn demo --text book.txt --seconds 60 --hidden-size 512
      fastrnn demo --max-steps 2000 --random-state 1    the same sample every time
    """
    import numpy as np

    from fastrnn.bench import Disagreement
    from fastrnn.char_rnn import CharRNN
    from fastrnn.demo import measure_speed
    from fastrnn.texts import read_text, standard_library_source

    if seconds is not None and max_steps is not None:
        raise click.UsageError("--seconds and --max-steps exclude each other.")
    if text is None:
        content, source = standard_library_source(), "source code of the standard library"
    else:
        content, whole = read_text(text, TEXT_LIMIT)
        source = "standard input" if text == "-" else text
        if not whole:
            click.echo(f"The text is long: only its first {TEXT_LIMIT:,} bytes are read.", err=True)
    backend = get_kernels_ready(backend, dtype)
    click.echo(
        f"{source}: {len(content):,} characters, {len(set(content))} different ones. Backend {backend}.",
        err=True,
    )
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
    click.echo(
        f"Trained for {took:.1f} s on {characters:,} characters, "
        f"{characters / len(content):.2f} times the text: {nats:.3f} nats per character"
        + (f", {decimals(valid, 3)} on text that it did not learn" if valid is not None else "")
        + f"; {characters / took:,.0f} characters per second."
    )
    written = model.generate(sample_length, random_state=random_state)
    click.echo(f"\nA sample:\n{'-' * 72}\n{written}\n{'-' * 72}\n")
    try:
        speed = measure_speed(model, content)
    except Disagreement as error:
        raise click.ClickException(str(error)) from None
    click.echo(
        f"{speed.ratio:.1f} times as fast as the reference loop: {1e6 * speed.fast:.2f} against "
        f"{1e6 * speed.reference:.2f} us per character, on the same text with the same results."
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
            click.echo(f"Warning: {warning.message}", err=True)
    return took


def _characters_seen(model: CharRNN, length: int) -> int:
    """How many characters a model was trained on, of a text of `length`."""
    learned = max(length - round(length * model.validation_fraction), 2) - 1
    T = min(model.seq_len, learned)
    return model.step_ * T * min(model.batch_size, learned // T)
