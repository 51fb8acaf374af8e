"""Calls that type checkers must refuse: each line with a mark, and no other (tests/test_types.py)."""

import sys

import numpy as np

import fastrnn
from fastrnn import RNN, CharRNN, LanguageModel, SequenceModel, SimpleRNN, diagnostics, functional, optim

x = np.zeros((3, 2), np.int64)
h = np.zeros((8, 1))
model, lm, rnn, layer = CharRNN(), LanguageModel(4, 8), SimpleRNN(4, 8, 4), RNN(4, 8)
adam = optim.Adam()
sm = SequenceModel(4, 8, 2)

CharRNN(clip="nrom")  # expect-error
CharRNN(clip="step")  # expect-error
CharRNN(optimizer="adadelta")  # expect-error
CharRNN(optimizer=adam)  # expect-error
CharRNN(optimizer=optim.Adam)  # expect-error
CharRNN(newline="unix")  # expect-error
CharRNN(dtype="float16")  # expect-error
CharRNN(backend="torch")  # expect-error
CharRNN(checkpoint=3)  # expect-error
CharRNN(random_state="0")  # expect-error
CharRNN(hidden=8)  # expect-error
model.fit(3)  # expect-error
model.fit(None)  # expect-error
model.fit([1, 2, 3])  # expect-error
model.fit(sys.stdin)  # expect-error
model.score(3)  # expect-error
model.use_weights("first")  # expect-error
model.generate(10, num_samples="3")  # expect-error
model.generate("10")  # expect-error
model.generate(10, "hello", 0.5)  # expect-error
model.generate(10, stop=3)  # expect-error
model.generate(10)[0].append("x")  # expect-error
model.generate(10, num_samples=3).upper()  # expect-error
print(model.history_[-1]["train_loss"])  # expect-error
print(model.history_[-1]["valid_nats"] + 1)  # expect-error
lm.train_step(x, x, None, "adam")  # expect-error
lm.train_step(x, x, None, optim.Adam)  # expect-error
lm.train_step(x, x, None, adam, clip="step")  # expect-error
lm.train_step(x, x, adam)  # expect-error
lm.loss(x, x, reduction="none")  # expect-error
lm.loss_and_grads(x, None)  # expect-error
lm.sample(None, [0, 1], "5")  # expect-error
LanguageModel(4, 8, dtype=np.float16)  # expect-error
LanguageModel("abcd", 8)  # expect-error
LanguageModel(4, 8, rng="0")  # expect-error
lm.loss(x, x, lengths=lm)  # expect-error
lm.loss(x, x, weights=h)  # expect-error
SequenceModel(4, 8)  # expect-error
SequenceModel(4, 8, 2, head="first")  # expect-error
SequenceModel(4, 8, 2, head=None)  # expect-error
SequenceModel(4, 8, 2, loss="mae")  # expect-error
SequenceModel(4, 8, 2, cell="GRU")  # expect-error
SequenceModel(4, 8, 2, bidirectional="both")  # expect-error
SequenceModel(4, 8, 2, recompute_every=0.5)  # expect-error
SequenceModel(4, 8, "2")  # expect-error
SequenceModel(4, 8, 2, 1, "gru")  # expect-error
sm.head = "last"  # expect-error
sm.output_size = 3  # expect-error
sm.loss(x, None)  # expect-error
sm.loss(x, x, reduction="none")  # expect-error
sm.loss_and_grads(x, x, None, [1, 2])  # expect-error
sm.train_step(x, x, None)  # expect-error
sm.train_step(x, x, None, "adam")  # expect-error
sm.train_step(x, x, None, adam, clip="step")  # expect-error
sm.forward(x, weights=h)  # expect-error
sm.forward(x)[0].upper()  # expect-error
sm.sample(None, [0], 5)  # expect-error
RNN(4, 8, nonlinearity="sigmoid")  # expect-error
RNN(4, 8, 1, "tanh", "no")  # expect-error
layer(x, hidden=h)  # expect-error
layer.forward(None)  # expect-error
layer.nonlinearity = "relu"  # expect-error
SimpleRNN(4, 8, 4, dtype="int8")  # expect-error
SimpleRNN(4, 8, 4, np.float32)  # expect-error
rnn.train_step([0, 1], [1, 2], h, clip="none")  # expect-error
rnn.train_step([0, 1], [1, 2], h, "adam")  # expect-error
rnn.sample(h, [0], 5)  # expect-error
rnn.backward(h, h, h, [1, 2])  # expect-error
functional.cross_entropy(x, x, "average")  # expect-error
functional.cross_entropy(x, x).mean()  # expect-error
functional.rnn_forward(x, None, {}, nonlinearity="elu")  # expect-error
functional.clip_grad_norm(h, 5.0)  # expect-error
optim.SGD()  # expect-error
optim.Adam(momentum=0.9)  # expect-error
adam.lr = "fast"  # expect-error
diagnostics.gradient_flow("model", x)  # expect-error
diagnostics.jacobian_norms(rnn, [0, 1], method="lanczos")  # expect-error
diagnostics.training_summary(rnn, [0], [1], clip="nrom")  # expect-error
fastrnn.set_backend("cuda")  # expect-error
fastrnn.show_config("json")  # expect-error
fastrnn.show_config().keys()  # expect-error
fastrnn.warmup(16)  # expect-error
