"""`fastrnn.diagnostics` against autograd of PyTorch, to 1e-9 in float64."""

import math

import numpy as np
import pytest
from support import assert_close
from torch_support import AGREEMENT

from fastrnn import RNN, LanguageModel, SimpleRNN
from fastrnn.diagnostics import gradient_flow, jacobian_norms

TOLERANCE = AGREEMENT[np.dtype(np.float64)]


def tensor(array):
    import torch

    return torch.from_numpy(np.array(array))


def unroll(layers, x, h0s, relu):
    """States of every layer and step as tensors that keep their gradients; x a list of (N, d)."""
    import torch

    activation = torch.relu if relu else torch.tanh
    below, states = x, []
    for (W_ih, W_hh, b_ih, b_hh), h in zip(layers, h0s, strict=True):
        own = []
        for step in below:
            h = activation(step @ W_ih.T + b_ih + h @ W_hh.T + b_hh)
            h.retain_grad()
            own.append(h)
        states.append(own)
        below = own
    return states


def gradients(states, layer, loss):
    """Norm of dL/dh_t for each step of a layer."""
    for own in states:
        for h in own:
            h.grad = None
    loss.backward(retain_graph=True)
    return np.array([0.0 if h.grad is None else h.grad.norm().item() for h in states[layer]])


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize(("num_layers", "N", "h"), [(1, 1, 9), (1, 5, 20), (2, 7, 8), (3, 40, 12)])
def test_flow_of_a_language_model(num_layers, N, h, nonlinearity, backend, torch):
    q, T = 6, 25
    lm = LanguageModel(q, h, num_layers, nonlinearity=nonlinearity, dtype=np.float64, rng=0, backend=backend)
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, q, (2, T, N))
    h0 = rng.normal(size=(num_layers, N, h))
    P = {name: tensor(W).requires_grad_() for name, W in lm.parameters.items()}
    layers = [
        [P[f"{name}_l{i}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        for i in range(num_layers)
    ]
    one_hot = [torch.eye(q, dtype=torch.float64)[tensor(step)] for step in x]
    states = unroll(layers, one_hot, [tensor(h) for h in h0], nonlinearity == "relu")
    losses = [
        torch.nn.functional.cross_entropy(
            h @ P["weight_out"].T + P["bias_out"], tensor(step), reduction="sum"
        )
        for h, step in zip(states[-1], y, strict=True)
    ]
    for layer in range(num_layers):
        flow = gradient_flow(lm, x, y, h0, layer=layer)
        loss = sum(losses) / (T * N)
        assert_close(flow.total, gradients(states, layer, loss), TOLERANCE)
        assert_close(flow.from_last_step, gradients(states, layer, losses[-1] / (T * N)), TOLERANCE)
        assert flow.loss == pytest.approx(loss.item(), rel=TOLERANCE)


def test_flow_of_a_simple_rnn(backend, torch):
    rnn = SimpleRNN(5, 30, 4, rng=0, backend=backend)
    rnn.Whh *= 20
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 4, (2, 30))
    h0 = rng.normal(size=(30, 1))
    layer = [tensor(rnn.Wxh), tensor(rnn.Whh), tensor(rnn.bh[:, 0]), torch.zeros(30, dtype=torch.float64)]
    states = unroll(
        [[W.requires_grad_() for W in layer]],
        [torch.eye(5, dtype=torch.float64)[i][None] for i in x],
        [tensor(h0.T)],
        False,
    )
    losses = [
        torch.nn.functional.cross_entropy(h @ tensor(rnn.Why).T + tensor(rnn.by[:, 0]), torch.tensor([i]))
        for h, i in zip(states[0], y, strict=True)
    ]
    flow = gradient_flow(rnn, x, y, h0)
    assert_close(flow.total, gradients(states, 0, sum(losses)), TOLERANCE)
    assert_close(flow.from_last_step, gradients(states, 0, losses[-1]), TOLERANCE)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_last_step_alone_in_a_layer(bidirectional, backend, torch):
    """An `RNN` whose loss is the user's, through both directions of two layers."""
    rnn = RNN(3, 7, 2, bidirectional=bidirectional, dtype=np.float64, rng=0, backend=backend)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(9, 4, 3))
    grad_output = rng.normal(size=(9, 4, 7 * (1 + bidirectional)))
    P = {name: tensor(W).requires_grad_() for name, W in rnn.parameters.items()}
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    below = [tensor(step) for step in x]
    states = {}
    for layer in range(2):
        for direction in range(1 + bidirectional):
            weights = [P[f"{name}_l{layer}{'_reverse' * direction}"] for name in names]
            steps = below[::-1] if direction else below
            (own,) = unroll([weights], steps, [torch.zeros(4, 7, dtype=torch.float64)], False)
            states[layer, direction] = own[::-1] if direction else own
        below = [
            torch.cat([states[layer, direction][t] for direction in range(1 + bidirectional)], 1)
            for t in range(9)
        ]
    terms = [(out * tensor(g)).sum() for out, g in zip(below, grad_output, strict=True)]
    for (layer, direction), own in states.items():
        flow = gradient_flow(rnn, x, grad_output, layer=layer, direction=direction)
        assert_close(flow.total, gradients([own], 0, sum(terms)), TOLERANCE)
        last = terms[0] if direction else terms[-1]
        assert_close(flow.from_last_step, gradients([own], 0, last), TOLERANCE)


@pytest.mark.parametrize("method", ["exact", "power"])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_jacobian_products(nonlinearity, method, backend, torch):
    """``torch.autograd.functional.jacobian`` of h_t by h_k for h = 16."""
    h, q, T, L = 16, 5, 14, 6
    lm = LanguageModel(q, h, nonlinearity=nonlinearity, dtype=np.float64, rng=0, backend=backend)
    lm.parameters["weight_hh_l0"] *= 3
    x = np.random.default_rng(1).integers(0, q, T)
    W_ih, W_hh, b_ih, b_hh = (
        tensor(lm.parameters[f"{n}_l0"]) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    activation = torch.relu if nonlinearity == "relu" else torch.tanh

    def step(state, index):
        return activation(W_ih[:, index] + b_ih + W_hh @ state + b_hh)

    states = [step(torch.zeros(h, dtype=torch.float64), x[0])]
    for index in x[1:]:
        states.append(step(states[-1], index))

    def later(k, lag):
        def run(state):
            for index in x[k + 1 : k + lag + 1]:
                state = step(state, index)
            return state

        return torch.autograd.functional.jacobian(run, states[k])

    wanted = [
        np.mean([torch.linalg.matrix_norm(later(k, lag), 2).item() for k in range(T - L)])
        for lag in range(1, L + 1)
    ]
    result = jacobian_norms(lm, x, max_lag=L, max_starts=T, method=method)
    assert result.starts == T - L
    assert_close(result.norms, wanted, TOLERANCE)
    assert math.isfinite(result.decay_rate)
