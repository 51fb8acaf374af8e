"""The notes' program, with one line changed: learn "hello", then spell it.

    python examples/01_drop_in.py

`fastrnn.SimpleRNN` takes the place of the class in section 13 of the study notes: the same names, the
same weights for the same seed, the same losses and letters, over compiled kernels.
"""

import numpy as np

from fastrnn import SimpleRNN  # the only line that changes

np.random.seed(0)

chars = sorted(set("hello"))
char_to_ix = {ch: i for i, ch in enumerate(chars)}
ix_to_char = dict(enumerate(chars))
data = [char_to_ix[ch] for ch in "hello"]
inputs, targets = data[:-1], data[1:]

hidden_size = 100
rnn = SimpleRNN(len(chars), hidden_size, len(chars))
h_prev = np.zeros((hidden_size, 1))

for epoch in range(100):
    xs, hs, ps = rnn.forward(inputs, h_prev)
    loss = sum(-np.log(ps[t][targets[t], 0]) for t in range(len(targets)))
    if epoch % 10 == 0:
        print(f"Epoch {epoch}, Loss: {loss:.4f}")
    grads = rnn.backward(xs, hs, ps, targets)
    rnn.update_weights(grads)

print("\nPrediction after training:")
h = np.zeros((hidden_size, 1))
print("h", *(ix_to_char[i] for i in rnn.sample(h, char_to_ix["h"], 4)))

# Beyond the notes: forward, BPTT, clipping and update in one call, and the fastest way to train.
loss, h_last = rnn.train_step(inputs, targets, h_prev, lr=0.1)
print(f"\nOne more step, in one call: loss {loss:.4f}")
