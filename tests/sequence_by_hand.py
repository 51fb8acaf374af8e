"""A `SequenceModel` from its equations: one sequence at a time, one step at a time, in float64."""

from dataclasses import dataclass

import cells_by_hand
import numpy as np

from fastrnn.kernels import GRU, LSTM, RELU, TANH

#: The target that counts for nothing.
IGNORED = -100


@dataclass
class Results:
    """What a model makes of a batch; outputs (T, N, k) or (N, k), states as a tuple of (L*D, N, h)."""

    outputs: np.ndarray
    h_n: tuple
    loss: float
    grads: dict


def code_of(model):
    if model.cell == "rnn":
        return TANH if model.nonlinearity == "tanh" else RELU
    return {"gru": GRU, "lstm": LSTM}[model.cell]


class Place:
    """One layer in one direction over one sequence."""

    def __init__(self, cell, W, inputs, before, backwards):
        self.cell, self.W, self.inputs = cell, W, inputs
        self.times = list(range(len(inputs)))[:: -1 if backwards else 1]
        self.steps, state = {}, before
        self.outputs = np.zeros((len(inputs), len(before[0])))
        for t in self.times:
            a = W["weight_ih"] @ inputs[t] + W["bias_ih"]
            b = W["weight_hh"] @ state[0] + W["bias_hh"]
            self.steps[t] = a, b, state
            state = cells_by_hand.step(cell, a, b, state)
            self.outputs[t] = state[0]
        self.last = state

    def back(self, d_outputs, d_last, grads):
        """Gradient of the inputs; those of the weights are added to `grads`."""
        d_inputs = np.zeros(self.inputs.shape)
        d_state = [d_last, *(np.zeros(len(d_last)) for _ in self.last[1:])]
        for t in self.times[::-1]:
            a, b, before = self.steps[t]
            d_state[0] = d_state[0] + d_outputs[t]
            da, db, d_before = cells_by_hand.back(self.cell, a, b, before, d_state)
            grads["weight_ih"] += np.outer(da, self.inputs[t])
            grads["bias_ih"] += da
            grads["weight_hh"] += np.outer(db, before[0])
            grads["bias_hh"] += db
            d_inputs[t] = self.W["weight_ih"].T @ da
            d_state = list(d_before)
            d_state[0] = d_state[0] + self.W["weight_hh"].T @ db
        return d_inputs


def loss_of_row(loss, outputs, target):
    """Loss of the outputs for one target, their gradient, and how many numbers it is the loss of."""
    if loss == "cross_entropy":
        if target == IGNORED:
            return 0.0, np.zeros(len(outputs)), 0
        log_p = outputs - outputs.max()
        log_p = log_p - np.log(np.exp(log_p).sum())
        return -log_p[target], np.exp(log_p) - np.eye(len(outputs))[target], 1
    if loss == "mse":
        error = outputs - target
        return (error**2).sum(), 2 * error, len(target)
    mean, log_variance = np.split(outputs, 2)
    error, precision = mean - target, np.exp(-log_variance)
    value = (np.log(2 * np.pi) + log_variance + error**2 * precision).sum() / 2
    return value, np.concatenate([error * precision, (1 - error**2 * precision) / 2]), len(target)


def run(model, x, y=None, h0=None, *, lengths=None, weights=None, reduction="mean", head=None, loss=None):
    """Outputs and last states of a model, and with targets its loss and gradients; a `LanguageModel` as well.

    What lies beyond the lengths is not looked at.
    """
    head, loss = head or model.head, loss or model._loss.name
    parameters = {name: W.astype(np.float64) for name, W in model.parameters.items()}
    grads = {name: np.zeros(W.shape) for name, W in parameters.items()}
    L, h, cell = model.num_layers, model.hidden_size, code_of(model)
    suffixes = ("", "_reverse") if getattr(model, "bidirectional", False) else ("",)
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    states = 2 if cell == LSTM else 1
    x = np.asarray(x)
    T, N = x.shape[:2]
    lengths = [T] * N if lengths is None else list(lengths)
    h0 = () if h0 is None else h0 if isinstance(h0, tuple) else (h0,)
    h_n = tuple(np.zeros((L * len(suffixes), N, h)) for _ in range(states))
    d = parameters["weight_ih_l0"].shape[1]
    k = len(parameters["bias_out"])
    outputs = np.zeros((T, N, k) if head == "each" else (N, k))
    total, counted, later = 0.0, 0.0, []
    for n, length in enumerate(lengths):
        below = np.eye(d)[x[:length, n]] if x.ndim == 2 else x[:length, n].astype(np.float64)
        places = []
        for layer in range(L):
            for direction, suffix in enumerate(suffixes):
                i = layer * len(suffixes) + direction
                W = {kind: parameters[f"{kind}_l{layer}{suffix}"] for kind in kinds}
                before = tuple(a[i, n].astype(np.float64) for a in h0) or (np.zeros(h),) * states
                places.append(Place(cell, W, below, before, direction == 1))
                for array, state in zip(h_n, places[-1].last, strict=True):
                    array[i, n] = state
            top = places[-len(suffixes) :]
            below = np.concatenate([place.outputs for place in top], axis=1)
        features = {
            "each": lambda below=below: below,
            "last": lambda top=top: np.concatenate([place.last[0] for place in top])[None],
            "mean": lambda below=below: below.mean(axis=0)[None],
        }[head]()
        rows = features @ parameters["weight_out"].T + parameters["bias_out"]
        if head == "each":
            outputs[:length, n] = rows
        else:
            outputs[n] = rows[0]
        if y is None:
            continue
        d_rows = np.zeros(rows.shape)
        for t in range(len(rows)):
            target = y[t][n] if head == "each" else y[n]
            weight = 1.0 if weights is None else np.asarray(weights)[(t, n)[-np.ndim(weights) :]]
            value, d_row, count = loss_of_row(loss, rows[t], target)
            total += weight * value
            counted += weight * count
            d_rows[t] = weight * d_row
        later.append((places, features, d_rows))
    scale = 1 / counted if reduction == "mean" and counted else 1.0
    for places, features, d_rows in later:
        d_rows = d_rows * scale
        grads["weight_out"] += d_rows.T @ features
        grads["bias_out"] += d_rows.sum(axis=0)
        d_features = d_rows @ parameters["weight_out"]
        length, D = len(places[0].inputs), len(suffixes)
        d_outputs, d_last = np.zeros((length, D * h)), np.zeros(D * h)
        if head == "each":
            d_outputs = d_features
        elif head == "last":
            d_last = d_features[0]
        else:
            d_outputs[:] = d_features[0] / length
        for layer in range(L - 1, -1, -1):
            d_below = 0.0
            for direction, suffix in enumerate(suffixes):
                own = {kind: grads[f"{kind}_l{layer}{suffix}"] for kind in kinds}
                half = slice(direction * h, (direction + 1) * h)
                place = places[layer * D + direction]
                d_below = d_below + place.back(d_outputs[:, half], d_last[half], own)
            d_outputs, d_last = d_below, np.zeros(D * h)
    return Results(outputs, h_n, total * scale, grads)
