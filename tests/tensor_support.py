"""Every argument that takes an array, with a call to which something else is given in its place."""

import re

import numpy as np
import pytest

from fastrnn import RNN, LanguageModel, SimpleRNN, diagnostics, optim
from fastrnn import functional as F
from fastrnn.text.vocabulary import Vocabulary

X, Y, VECTORS = np.array([[0, 1], [2, 0]]), np.array([[1, 2], [0, 1]]), np.ones((2, 2, 3), np.float32)
PARAMETERS = {"weight_ih": np.ones((4, 3)), "weight_hh": np.ones((4, 4))}


def layer():
    rnn = RNN(3, 4, rng=0, backend="numpy")
    rnn.forward(VECTORS)
    return rnn


def model():
    return LanguageModel(3, 4, rng=0, backend="numpy")


def simple():
    return SimpleRNN(3, 4, 3, rng=0, backend="numpy")


def forward(**changed):
    return F.rnn_forward(**{"x": VECTORS, "h0": None, "parameters": PARAMETERS, "backend": "numpy"} | changed)


def backward(**changed):
    output, h_n = forward()
    good = {"grad_output": output, "grad_h_n": h_n, "x": VECTORS, "h0": None, "output": output}
    return F.rnn_backward(**good | {"parameters": PARAMETERS, "backend": "numpy"} | changed)


def set_step(value):
    steps = simple().forward([0, 1], np.zeros((4, 1)))[2]
    steps[1] = value


#: (of what, name, call)
ARGUMENTS = [
    ("RNN.forward", "x", lambda v: layer().forward(v)),
    ("RNN.forward", "h0", lambda v: layer().forward(VECTORS, v)),
    ("RNN.forward", "h0", lambda v: layer()(VECTORS, hx=v)),
    ("RNN.forward", "lengths", lambda v: layer().forward(VECTORS, lengths=v)),
    ("RNN.backward", "grad_output", lambda v: layer().backward(v)),
    ("RNN.backward", "grad_h_n", lambda v: layer().backward(None, v)),
    ("LanguageModel.forward", "x", lambda v: model().forward(v)),
    ("LanguageModel.forward", "h0", lambda v: model().forward(X, v)),
    ("LanguageModel.loss", "y", lambda v: model().loss(X, v)),
    ("LanguageModel.loss_and_grads", "x", lambda v: model().loss_and_grads(v, Y)),
    ("LanguageModel.train_step", "y", lambda v: model().train_step(X, v, None, optim.SGD(0.1))),
    ("LanguageModel.sample", "h", lambda v: model().sample(v, [0], 1)),
    ("LanguageModel.sample", "start", lambda v: model().sample(None, v, 1)),
    ("SimpleRNN.forward", "inputs", lambda v: simple().forward(v, np.zeros((4, 1)))),
    ("SimpleRNN.forward", "h_prev", lambda v: simple().forward([0], v)),
    ("SimpleRNN.loss_and_grads", "targets", lambda v: simple().loss_and_grads([0], v, np.zeros((4, 1)))),
    ("SimpleRNN", "Wxh", lambda v: setattr(simple(), "Wxh", v)),
    ("SimpleRNN.update_weights", "grads[0] (dWxh)", lambda v: simple().update_weights([v] * 5)),
    ("Steps", "step 1", set_step),
    ("functional", "x", F.softmax),
    ("functional", "x", F.log_softmax),
    ("functional", "logits", F.sample),
    ("functional", "logits", lambda v: F.cross_entropy(v, [0])),
    ("functional", "targets", lambda v: F.cross_entropy(np.ones((2, 3)), v)),
    ("functional", "weight", lambda v: F.cross_entropy(np.ones((2, 3)), [0, 1], weight=v)),
    ("functional", "grad_output", lambda v: F.cross_entropy_backward(np.ones((2, 3)), [0, 1], grad_output=v)),
    *(("rnn_forward", name, lambda v, name=name: forward(**{name: v})) for name in ("x", "h0", "lengths")),
    *(
        ("rnn_backward", name, lambda v, name=name: backward(**{name: v}))
        for name in ("grad_output", "grad_h_n", "output")
    ),
    ("diagnostics", "inputs", lambda v: diagnostics.saturation(layer(), v)),
    ("diagnostics", "inputs", lambda v: diagnostics.saturation(model(), v)),
    ("diagnostics", "inputs", lambda v: diagnostics.saturation(simple(), v)),
    ("diagnostics", "h0", lambda v: diagnostics.hidden_states(layer(), VECTORS, v)),
    ("diagnostics", "targets", lambda v: diagnostics.gradient_flow(model(), X, v)),
    ("diagnostics", "targets", lambda v: diagnostics.gradient_flow(simple(), [0, 1], v)),
    ("diagnostics", "targets", lambda v: diagnostics.gradient_flow(layer(), VECTORS, v)),
    ("diagnostics", "targets", lambda v: diagnostics.gradcheck(layer(), VECTORS, lambda output: v)),
    ("Vocabulary", "indices", lambda v: Vocabulary("abc").decode(v)),
]


def refuses(argument, value):
    """The call with `value` raises a `TypeError` that names the argument and says what to do."""
    _, name, call = argument
    with pytest.raises(
        TypeError, match=rf"^{re.escape(name)} cannot be made an array; call \.detach\(\) if it is a tensor"
    ):
        call(value)
