"""Gradients that vanish, hold and explode, in pictures.

    python examples/gradient_flow.py [FOLDER]

Three nets that differ in one number read the same text: Whh is a random rotation (an orthogonal
matrix) times 0.5, 1.0 or 1.5, which is its spectral radius.  A fourth is an LSTM, whose forget gate has
a bias of 1.  The program prints what `fastrnn.diagnostics` measures in them, then trains the third one without clipping and with clipping
by the norm, and writes the pictures of docs/gradient_flow.md to FOLDER (the current folder when none is
named).  It takes a few seconds, and needs matplotlib: pip install 'fastrnn[plot]'.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fastrnn import LanguageModel, SimpleRNN, diagnostics, figures

TEXT = (
    "The river keeps no record of the rain that filled it. By the time the water has reached the sea, "
    "nobody can tell which cloud it came from, and nobody asks. A recurrent network has the same "
    "trouble with the first words of a sentence: they are in the state somewhere, but it gets harder "
    "with every step to say where, and how much they still count."
)
HIDDEN_SIZE, STEPS = 100, 50
RADII = (0.5, 1.0, 1.5)
LSTM = "LSTM"

characters = sorted(set(TEXT))
indices = [characters.index(c) for c in TEXT]
inputs, targets = indices[:STEPS], indices[1 : STEPS + 1]


def make_net(radius):
    """The notes' initial weights, but with a Whh that turns the state and scales it by `radius`."""
    rnn = SimpleRNN(len(characters), HIDDEN_SIZE, len(characters), rng=0)
    rnn.Whh = radius * np.linalg.qr(rnn.Whh)[0]
    return rnn


def make_lstm():
    """An LSTM as PyTorch begins one, but that its forget gate has a bias of 1: it is more open than shut."""
    lstm = LanguageModel(len(characters), HIDDEN_SIZE, cell="lstm", dtype="float64", rng=0)
    lstm.parameters["bias_ih_l0"][HIDDEN_SIZE : 2 * HIDDEN_SIZE] += 1  # gates i, f, g, o
    return lstm


def measure():
    """Print a table; return the flows and the Jacobian norms for each radius, and for the LSTM."""
    flows, memories = {}, {}
    print(f"{STEPS} characters, {HIDDEN_SIZE} hidden units, the loss of the last step alone:\n")
    print("spectral  gradient that reaches   below 1%   factor of dh_t/dh_k   half-life   norm of")
    print("radius    the first step          after      for one more step     in steps    dWhh")
    for net in (*RADII, LSTM):
        model = make_lstm() if net == LSTM else make_net(net)
        flow = flows[net] = diagnostics.gradient_flow(model, inputs, targets, reduction="sum")
        memory = memories[net] = diagnostics.jacobian_norms(model, inputs)
        name = LSTM if net == LSTM else f"{diagnostics.spectral_radius(model):.2f}"
        below = f"{flow.reach} steps" if flow.reach < STEPS else "never"
        print(
            f"{name:>8}  {flow.share[0]:21.2g}   {below:>8}   {memory.factor:19.3f}   "
            f"{memory.half_life:9.3g}   {flow.dWhh_norm:7.3g}"
        )
    return flows, memories


def draw_shares(flows):
    """How much of the last step's gradient reaches each step before it, for the four nets."""
    words = dict(zip(RADII, ("it vanishes", "it holds", "it explodes"), strict=True))
    names = {radius: f"radius {radius}: {words[radius]}" for radius in RADII}
    names[LSTM] = "LSTM, forget bias 1: it fades"
    # The model that a title would name is not the same for all.
    return figures.plot_gradient_share({names[net]: replace(flow, model="") for net, flow in flows.items()})


def draw_memories(memories):
    """The three nets' Jacobian norms side by side, on the same axis."""
    figure = Figure(figsize=(10, 4.4), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(RADII), sharey=True)
    for ax, radius in zip(axes, RADII, strict=True):
        memory = memories[radius]
        memory.plot(ax=ax)
        ax.set_title(f"spectral radius {radius}", loc="left", fontsize=10)
        ax.label_outer()
    title(figure, f"How much a state depends on an earlier one: {memory.model}, on {memory.read}")
    return figure


def title(figure, text):
    figure.suptitle(text, x=0.01, ha="left", fontsize=11)


def train(clip):
    """Train the net of radius 1.5 by plain gradient descent; a record for each step."""
    rnn, h = make_net(1.5), np.zeros((HIDDEN_SIZE, 1))
    history = []
    for step in range(1, 301):
        report = diagnostics.clip_report(rnn, inputs, targets, threshold=5.0)
        loss, _ = rnn.train_step(inputs, targets, h, lr=0.02, clip=clip, clip_threshold=5.0)
        history.append({"step": step, "loss": loss / STEPS, "grad_norm": report.norm_before})
    return rnn, history


def draw_training(without, clipped):
    """Loss with and without clipping, and the gradient's norm in the one that was clipped."""
    figure = Figure(figsize=(10, 4.6), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for history, colour, name in ((without, figures.GREY, "not clipped"), (clipped, figures.BLUE, "clipped")):
        losses = [record["loss"] for record in history]
        left.plot([record["step"] for record in history], losses, color=colour, linewidth=1.2, label=name)
    left.axhline(np.log(len(characters)), color=figures.RED, linestyle=":", label="a guess")
    left.set_title("Loss, with clipping and without", loc="left", fontsize=10)
    left.set_xlabel("step of training")
    left.set_ylabel("loss, nats per character")
    left.set_ylim(bottom=0)
    left.grid(True, color="0.9")
    left.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.15), ncols=3)
    for side in ("top", "right"):
        left.spines[side].set_visible(False)
    figures.plot_clipping(clipped, threshold=5.0, ax=right)
    title(
        figure, f"SimpleRNN, {HIDDEN_SIZE} tanh units of spectral radius 1.5, trained on {STEPS} characters"
    )
    return figure


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    flows, memories = measure()

    report = diagnostics.clip_report(make_net(1.5), inputs, targets, threshold=5.0)
    print(f"\nClipping the gradients of the third net at 5; their norm is {report.norm_before:.3g}:")
    for mode, norm in report.norm_after.items():
        print(f'  clip="{mode}": norm {norm:.3g}, {report.changed[mode]:.0%} of the entries changed')

    (_, without), (trained, clipped) = train(None), train("norm")
    print("\nTraining it for 300 steps, mean loss of the first and the last ten, in nats per character:")
    for name, history in (("not clipped", without), ("clipped", clipped)):
        losses = [record["loss"] for record in history]
        print(
            f"  {name:<12} {np.mean(losses[:10]):6.3f} {np.mean(losses[-10:]):6.3f}, worst {max(losses):.2f}"
        )

    states = diagnostics.hidden_states(trained, indices[:60])
    states.labels[:] = TEXT[:60]
    pictures = {
        "gradient-share": draw_shares(flows),
        "gradient-flow": flows[1.5].plot(),
        "jacobian-norms": draw_memories(memories),
        "singular-values": diagnostics.spectrum(trained).plot(),
        "hidden-states": states.plot(),
        "clip-report": report.plot(),
        "clipping": draw_training(without, clipped),
    }
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    print(f"\nWrote {', '.join(f'{name}.png' for name in pictures)} to {folder.resolve().name}/")


if __name__ == "__main__":
    main()
