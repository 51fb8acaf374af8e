"""One's own training loop over `LanguageModel` and `fastrnn.optim`, with a validation.

    python examples/03_own_training_loop.py

`CharRNN` does all of this and more; this is for those who want to do it otherwise: another order of
the data, another learning rate at every step, another objective.
"""

import math

import numpy as np

from fastrnn import LanguageModel, functional, optim
from fastrnn.text import standard_library_source

T, N, STEPS = 32, 16, 300  # time steps, sequences side by side, steps of training

# The text as class indices, the last tenth of it held out.
text = standard_library_source(200_000)
vocabulary = sorted(set(text))
index = {character: i for i, character in enumerate(vocabulary)}
data = np.array([index[character] for character in text])
learned, held_out = data[: len(data) * 9 // 10], data[len(data) * 9 // 10 :]


def streams(data):
    """The data as N streams side by side, shape (time, N)."""
    length = len(data) // N
    return data[: length * N].reshape(N, length).T


def chunks(data):
    """Inputs and targets, shape (T, N), each chunk where the last one ended."""
    columns = streams(data)
    for start in range(0, len(columns) - T, T):
        yield columns[start : start + T], columns[start + 1 : start + T + 1]


def validate(model):
    h, total, count = None, 0.0, 0
    for x, y in chunks(held_out):
        loss, h = model.loss(x, y, h, reduction="sum")
        total, count = total + loss, count + x.size
    return total / count


model = LanguageModel(len(vocabulary), 128, rng=0)
optimizer = optim.Adam(lr=4e-3)
print(f"{model.num_parameters:,} parameters; a guess is {math.log(len(vocabulary)):.3f} nats per character")

step, h = 0, None
while step < STEPS:
    for x, y in chunks(learned):
        if step == STEPS:
            break
        optimizer.lr = 4e-3 * (1 - step / STEPS)  # down to zero in a line
        # Forward, BPTT, clipping by the global norm (eq. 15) and update in one call, nothing allocated.
        loss, h = model.train_step(x, y, h, optimizer, clip="norm", clip_threshold=5.0)
        step += 1
        if step % 100 == 0:
            print(f"step {step}: loss {loss:.3f}, held out {validate(model):.3f}")
    h = None  # the text begins again

# The same step, taken apart: change the gradients as you like between the two calls.
loss, grads, h = model.loss_and_grads(x, y, h)
norm = functional.clip_grad_norm(grads, 5.0)
optimizer.step(model.parameters, grads)
print(f"by hand: loss {loss:.3f}, norm of the gradients {norm:.3f}")

# Four samples at once, from the same beginning.
indices, _ = model.sample(None, np.full(4, index["\n"]), 40, temperature=0.7, rng=0)
for row in indices:
    print(repr("".join(vocabulary[i] for i in row)))
