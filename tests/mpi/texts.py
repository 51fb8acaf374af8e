"""`CharRNN` on all ranks.  Arguments: a folder, the file of a text, `sync_every`."""

import sys
import warnings
from pathlib import Path

from common import digest, ranks, tell

from fastrnn import CharRNN

folder, text, sync_every = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
comm = ranks(sync_every=sync_every)


def model(**more):
    settings = {
        "num_layers": 2, "dropout": 0.2, "seq_len": 10, "batch_size": 7, "dtype": "float64", "random_state": 0, "verbose": 0,
        "validate_every": 17, "patience": 9, "diagnostics_every": 20, "comm": comm, "max_steps": 60,
    }  # fmt: skip
    return CharRNN(12, **settings | more)


def state(m):
    arrays = m.last_weights_ | {"state": m._run.state, "start": m.start_state_}
    arrays |= {f"best.{name}": W for name, W in (m.best_weights_ or {}).items()}
    for slot, each in m._run.optimizer.state_dict()["state"].items():
        arrays |= {f"{slot}.{name}": array for name, array in each.items()}
    return digest(arrays), m.step_, m.best_step_, m.history_[-1]["chars_per_second"]


def curve(m):
    return [[e["train_nats"], e["grad_norm"], e["valid_nats"]] for e in m.history_]


whole = model(checkpoint=folder / "whole", checkpoint_every=20).fit(text)
told = {
    "whole": state(whole),
    "curve": curve(whole),
    "diagnostics": [e["step"] for e in whole.history_ if "diagnostics" in e],
}
told["alone"] = curve(model(comm=None).fit(text)) if sync_every == 1 else None

# Stopped and resumed: the same bits, from the object and from the file.  (A run that a limit ends is validated.)
kept = {"patience": None, "validation_fraction": 0.0}
parts = model(max_steps=40, checkpoint=folder / "parts", **kept).fit(text)
there = folder / "parts"
again = CharRNN.load(there, comm=comm, checkpoint=there, max_steps=60).fit(text, resume=True)
parts.set_params(max_steps=60).fit(text, resume=True)
straight = model(**kept).fit(text)
told["resumed"] = [state(m)[:2] for m in (again, parts, straight)]

# A run that is over goes to another file without a step.
straight.set_params(checkpoint=folder / "over").fit(text, resume=True)
told["over"] = [state(m)[:2] for m in (straight, CharRNN.load(folder / "over", backend=None))]

# No seed: all have that of rank 0.
told["unseeded"] = state(model(random_state=None).fit(text))
told["timed"] = state(model(max_steps=None, epochs=None, max_seconds=0.3, patience=None).fit(text))
pieces = model(comm=comm)
for piece in ("hello world. " * 9, "who is there? " * 9):
    pieces.partial_fit(piece, vocabulary="?. dehilorstw")
told["pieces"] = state(pieces)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    wild = model(lr=1e308, optimizer="sgd", clip=None, patience=None, checkpoint=folder / "wild").fit(text)
told["diverged"], told["warned"] = [wild._diverged, wild.step_], len(caught)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    alone = CharRNN.load(there, max_steps=70).fit(text, resume=True)
told["other"] = [str(w.message) for w in caught]
tell(comm, told)
