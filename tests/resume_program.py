"""Trains a small model with checkpoints, goes on from the one that is there, and prints what came out.

Arguments: checkpoint file, text file, JSON of hyper-parameters, and optionally a function of the system
and a number n: the process kills itself at the n-th call of that function, before or after it is made.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

from fastrnn import CharRNN


def result(model):
    """All that must be the same bits, as text."""
    digest = hashlib.sha256()
    for weights in (model.model_.parameters, model.last_weights_, model.best_weights_ or {}):
        for name, W in sorted(weights.items()):
            digest.update(name.encode() + W.tobytes())
    history = [{k: v for k, v in entry.items() if k != "chars_per_second"} for entry in model.history_]
    digest.update(json.dumps(history).encode())
    sample = model.generate(50, random_state=1)
    return f"{model.step_} {len(history)} {digest.hexdigest()} {sample!r} {model.best_step_}"


def die_at(name, n, when):
    """Kill this process, as nothing can be done about, at the n-th call of a function."""
    owner = Path if name == "replace" else os
    function = getattr(owner, name)
    calls = 0

    def dying(*arguments):
        nonlocal calls
        calls += 1
        if calls == n and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        value = function(*arguments)
        if calls == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    setattr(owner, name, dying)


if __name__ == "__main__":
    checkpoint, text, params = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    if sys.argv[4:]:
        die_at(sys.argv[4], int(sys.argv[5]), sys.argv[6])
    resume = checkpoint.exists()
    params["checkpoint"] = checkpoint
    model = CharRNN.load(checkpoint, **params) if resume else CharRNN(**params)
    print("training", flush=True)
    model.fit(text, resume=resume)
    print(result(model), flush=True)
