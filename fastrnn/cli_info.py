"""The command `fastrnn info`."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

import fastrnn
from fastrnn.terminal import decimals, printable

if TYPE_CHECKING:
    from fastrnn.char_rnn import CharRNN

__all__ = ["info"]


@click.command()
@click.argument("model", metavar="[MODEL]", required=False, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, for programs.")
def info(model: str | None, as_json: bool) -> None:
    """Show what runs here and why, or what a model is.

    Without MODEL: versions, backends, instruction set, threads and cache folder.

    MODEL is a file that `fastrnn train` or CharRNN.save wrote: its hyper-parameters, its characters,
    how long it was trained and how well it predicts. Weights, the last or the best, that hold NaN or
    infinity are named as not finite. JSON has null for a number that is not finite.

    \b
    Examples:
      fastrnn info
      fastrnn info book.safetensors
    """
    if model is None:
        if as_json:
            click.echo(json.dumps(fastrnn.show_config(mode="dict")))
        else:
            fastrnn.show_config()
        return
    from fastrnn.char_rnn import CharRNN

    fitted = CharRNN.load(model, backend=None)
    described = _describe(fitted)
    if as_json:
        # JSON knows no NaN.
        history = json.loads(json.dumps(fitted.history_), parse_constant=lambda name: None)
        click.echo(json.dumps({**described, "history": history}))
        return
    width = max(map(len, described["params"]))
    for name, value in described.pop("params").items():
        click.echo(f"{name:<{width}}  {printable(str(value), keep='')}")
    click.echo()
    described["vocabulary"] = repr(described["vocabulary"])  # line breaks and what commands a terminal
    for name, value in described.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {_shown(value)}")


def _shown(value: Any) -> str:
    match value:
        case None | []:
            return "none"
        case list():
            return ", ".join(value)
        case int():
            return f"{value:,}"
        case float():
            return decimals(value, 4)
    return str(value)


def _describe(model: CharRNN) -> dict[str, Any]:
    """What a model is, as JSON has it."""
    import numpy as np

    from fastrnn.model_file import plain

    hidden = ("checkpoint", "backend", "verbose")  # which are those of a call, not of the model
    last = model.history_[-1] if model.history_ else {}
    return {
        "params": {k: plain(v) for k, v in model.get_params().items() if k not in hidden},
        "parameters": sum(W.size for W in model.model_.parameters.values()),
        "vocabulary_size": len(model.vocabulary_),
        "vocabulary": model.vocabulary_.characters,
        "steps": model.step_,
        "epochs": model.epoch_,
        "train_nats": _finite(last.get("train_nats")),
        "best_valid_nats": _finite(model.best_valid_nats_),
        "best_step": model.best_step_,
        "weights": model.weights_,
        "not_finite": [
            which
            for which, weights in (("last", model.last_weights_), ("best", model.best_weights_ or {}))
            if not all(np.isfinite(W).all() for W in weights.values())
        ],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
