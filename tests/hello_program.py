"""The program of section 13 of the notes: learn "hello", then spell it."""

import numpy as np

from fastrnn import SimpleRNN

chars = sorted(set("hello"))
char_to_ix = {ch: i for i, ch in enumerate(chars)}
ix_to_char = dict(enumerate(chars))
data = [char_to_ix[ch] for ch in "hello"]

inputs = data[:-1]
targets = data[1:]

hidden_size = 100
rnn = SimpleRNN(len(chars), hidden_size, len(chars))
h_prev = np.zeros((hidden_size, 1))

for epoch in range(100):
    xs, hs, ps = rnn.forward(inputs, h_prev)

    loss = 0
    for t in range(len(targets)):
        loss += -np.log(ps[t][targets[t], 0])

    if epoch % 10 == 0:
        print(f"Epoch {epoch}, Loss: {loss:.4f}")

    grads = rnn.backward(xs, hs, ps, targets)
    rnn.update_weights(grads)

print("\nPrediction after training:")
h = np.zeros((hidden_size, 1))
start_char = "h"
print(start_char, end=" ")
result_indices = rnn.sample(h, char_to_ix[start_char], 4)
for idx in result_indices:
    print(ix_to_char[idx], end=" ")
print()
