"""Read a loss curve: what a model learns by heart, it does not know elsewhere.

    python examples/04_loss_curve.py [PICTURE]

A model that is too large for a short text is trained on it for too long.  The loss of what it learns
falls and falls; that of what is held out turns round.  `patience` would have stopped there.  The
picture is written to ./loss_curve.png; it needs matplotlib: pip install 'fastrnn[plot]'.
"""

import sys

from matplotlib.figure import Figure

from fastrnn import CharRNN, figures
from fastrnn.text import standard_library_source

picture = sys.argv[1] if sys.argv[1:] else "loss_curve.png"
text = standard_library_source(60_000)

settings = {"hidden_size": 192, "seq_len": 32, "batch_size": 16, "lr": 4e-3, "epochs": 20, "random_state": 0}
model = CharRNN(**settings, verbose=0).fit(text)
first, last = model.history_[0], model.history_[-1]
print(f"learned   {first['train_nats']:.3f} -> {last['train_nats']:.3f} nats per character")
print(
    f"held out  best {model.best_valid_nats_:.3f} after step {model.best_step_}, then {last['valid_nats']:.3f}"
)

stopped = CharRNN(**settings, patience=2, verbose=0).fit(text)
print(f"patience=2 stops after step {stopped.step_} and uses the weights of step {stopped.best_step_}")

figure = Figure(figsize=(7, 8), dpi=110, layout="constrained")
losses, norms = figure.subplots(2, sharex=True)
losses.tick_params(labelbottom=True)
subtitle = f"CharRNN, {model.hidden_size} tanh units, on {len(text):,} characters of the standard library"
figures.plot_history(model.history_, ax=losses, subtitle=subtitle)
figures.plot_clipping(model.history_, threshold=model.clip_threshold, ax=norms)
figure.savefig(picture)
print(f"The picture is in {picture}.")
