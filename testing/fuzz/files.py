"""`fastrnn.save` and `fastrnn.load`: what comes back is what was saved, and the same bits."""

from __future__ import annotations

import tempfile
from pathlib import Path

import fastrnn
from fuzz.compare import Failure, bits


def round_trip(case, model):
    """Save a model and load it; returns what was loaded."""
    case.note("save and load")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        fastrnn.save(model, path)
        loaded = fastrnn.load(path)
    if type(loaded) is not type(model) or repr(loaded) != repr(model):
        raise Failure(f"loaded {loaded!r}")
    if bits(weights(loaded)) != bits(weights(model)):
        raise Failure("loaded other weights")
    return loaded


def weights(model):
    if hasattr(model, "state_dict"):
        return model.state_dict()
    return {name: getattr(model, name) for name in ("Wxh", "Whh", "Why", "bh", "by")}
