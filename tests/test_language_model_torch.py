"""`LanguageModel` against one-hot vectors, `torch.nn.RNN`, a linear layer and cross-entropy."""

import numpy as np
import pytest
from torch_support import (
    AGREEMENT,
    TorchLanguageModel,
    assert_agrees,
    random_state_dict,
    sizes_around_vectors,
    torch_leaf,
)

from fastrnn import LanguageModel, optim


def random_model(seed, dtype, backend):
    """A model, inputs, targets, and a first state or None."""
    rng = np.random.default_rng(seed)
    q, h = sizes_around_vectors(rng, 70), sizes_around_vectors(rng, 48)
    num_layers = int(rng.integers(1, 4))
    nonlinearity = "tanh" if rng.random() < 0.6 else "relu"
    cell = ("rnn", "gru", "rnn", "lstm")[seed % 4]
    T = int(rng.integers(1, 13)) if rng.random() < 0.8 else int(rng.integers(13, 50))
    N = sizes_around_vectors(rng, 35)
    options = {"nonlinearity": nonlinearity} if cell == "rnn" else {"cell": cell}
    lm = LanguageModel(q, h, num_layers, **options, dtype=dtype, rng=seed, backend=backend)
    shapes = {name: W.shape for name, W in lm.state_dict().items()}
    lm.load_state_dict(random_state_dict(shapes, rng, dtype, 1.3))
    x, y = rng.integers(q, size=(2, T, N))
    h0 = rng.normal(size=(num_layers, N, h)).astype(dtype) if rng.random() < 0.6 else None
    if cell == "lstm" and h0 is not None:
        h0 = h0, rng.normal(size=h0.shape).astype(dtype)
    return lm, x, y, h0


def close(got, want, dtype, tolerance=None):
    assert got == pytest.approx(want, rel=tolerance or AGREEMENT[np.dtype(dtype)], abs=1e-12)


@pytest.mark.parametrize("seed", range(60))
def test_loss_gradients_and_logits(seed, dtype, backend, torch):
    lm, x, y, h0 = random_model(seed, dtype, backend)
    module = TorchLanguageModel(lm)
    reduction = ("mean", "sum")[seed % 2]
    if seed % 3 == 0:  # some targets do not count, one does
        y[np.random.default_rng(seed).random(y.shape) < 0.4] = -100
        y[0, 0] = 0
    want, want_h_n = module.loss(x, y, h0, reduction)
    want_grads = module.backward(want)
    want = float(want.detach())

    loss, grads, h_n = lm.loss_and_grads(x, y, h0, reduction=reduction)
    assert type(loss) is float
    close(loss, want, dtype)
    assert_agrees(h_n, want_h_n, "h_n")
    assert list(grads) == list(lm.parameters) == list(want_grads)
    for name, g in grads.items():
        # The gradient of a single class is zero but for roundings.
        if lm.vocab_size > 1:
            assert_agrees(g, want_grads[name], name)
        else:
            assert np.abs(g).max() < 1e-5
        assert lm.grads[name] is g or np.array_equal(lm.grads[name], g)

    value, value_h_n = lm.loss(x, y, h0, reduction=reduction)
    assert type(value) is float
    close(value, want, dtype)
    assert_agrees(value_h_n, want_h_n)
    logits, logits_h_n = lm.forward(x, h0)
    assert_agrees(logits, module.forward(x, h0)[0], "logits")
    assert_agrees(logits_h_n, want_h_n)


@pytest.mark.parametrize(
    ("q", "h", "L", "T", "N"),
    [
        (65, 256, 1, 4, 64),
        (300, 129, 2, 3, 20),
        (1025, 40, 1, 3, 9),
        (10, 520, 1, 3, 33),
        (2, 300, 1, 2, 130),
    ],
)
def test_larger_than_a_cache(q, h, L, T, N, dtype, backend, torch):
    """Sizes at which matrices come in blocks, and parts of a batch in several of them."""
    rng = np.random.default_rng(q)
    lm = LanguageModel(q, h, L, dtype=dtype, rng=q, backend=backend, num_threads=2)
    x, y = rng.integers(q, size=(2, T, N))
    h0 = rng.normal(size=(L, N, h)).astype(dtype)
    module = TorchLanguageModel(lm)
    want, want_h_n = module.loss(x, y, h0)
    loss, grads, h_n = lm.loss_and_grads(x, y, h0)
    close(loss, float(want.detach()), dtype)
    assert_agrees(h_n, want_h_n)
    for name, g in module.backward(want).items():
        assert_agrees(grads[name], g, name)
    assert_agrees(lm.forward(x, h0)[0], module.forward(x, h0)[0])
    close(lm.loss(x, y, h0)[0], float(want.detach()), dtype)
    lm.num_threads = 1
    again, others, _ = lm.loss_and_grads(x, y, h0)
    assert again == loss
    assert all(g.tobytes() == grads[name].tobytes() for name, g in others.items())


def test_mean_is_the_default(dtype, backend, torch):
    lm, x, y, h0 = random_model(3, dtype, backend)
    module = TorchLanguageModel(lm)
    want = module.loss(x, y, h0)[0]
    close(lm.loss_and_grads(x, y, h0)[0], float(want.detach()), dtype)
    close(lm.loss(x, y, h0)[0], float(want.detach()), dtype)
    for name, g in module.backward(want).items():
        assert_agrees(lm.grads[name], g, name)


def test_weights_go_to_torch_and_back(dtype, backend, torch):
    lm, *_ = random_model(5, dtype, backend)
    module = TorchLanguageModel(lm)
    with torch.no_grad():
        for W in module.parameters.values():
            W.mul_(1.5)
    before = {name: W.copy() for name, W in lm.parameters.items()}
    lm.load_state_dict({name: W.detach() for name, W in module.parameters.items()})
    for name, W in lm.parameters.items():
        assert np.array_equal(W, before[name] * dtype(1.5))
        assert not np.shares_memory(W, module.parameters[name].detach().numpy())


OPTIMIZERS = {
    "SGD": [{"lr": 0.3}, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3},
            {"lr": 0.1, "momentum": 0.8, "nesterov": True}],
    "Adagrad": [{"lr": 0.02}, {"lr": 0.02, "lr_decay": 0.01, "weight_decay": 1e-3}],
    "RMSprop": [{"lr": 3e-3}, {"lr": 3e-3, "momentum": 0.9, "centered": True, "eps": 1e-4}],
    "Adam": [{"lr": 3e-3}, {"lr": 1e-2, "betas": (0.8, 0.95), "weight_decay": 1e-3, "eps": 1e-5}],
}  # fmt: skip

#: (mode, threshold): one that clips and one that does not.
CLIPS = [("norm", 0.05), ("norm", 1e3), ("value", 0.003), (None, 5.0)]


@pytest.mark.parametrize(("mode", "threshold"), CLIPS)
@pytest.mark.parametrize(("name", "place"), [(name, i) for name, sets in OPTIMIZERS.items()
                                             for i in range(len(sets))])  # fmt: skip
def test_training_steps(name, place, mode, threshold, dtype, backend, torch):
    """A dozen steps, the state carried along: losses, norms, states and all parameters."""
    options = OPTIMIZERS[name][place]
    q, h, L, T, N = 13, 17, 2, 8, 9
    rng = np.random.default_rng(place)
    lm = LanguageModel(q, h, L, dtype=dtype, rng=6, backend=backend)
    module = TorchLanguageModel(lm)
    ours = getattr(optim, name)(**options, backend=backend)
    theirs = getattr(torch.optim, name)(module.parameters.values(), **options)
    state, their_state = np.zeros((L, N, h), dtype), torch_leaf(np.zeros((L, N, h), dtype)).detach()
    first = lm.state_dict()
    clipped = 0
    # Where a gradient is tiny, Adam and RMSprop divide it by one as tiny.
    tolerance = {np.float64: 1e-8, np.float32: 2e-3}[dtype]
    for step in range(12):
        x, y = rng.integers(q, size=(2, T, N))
        want, their_state, norm = module.train_step(x, y, their_state, theirs, mode, threshold)
        loss, state = lm.train_step(x, y, state, ours, clip=mode, clip_threshold=threshold)
        close(loss, want, dtype, tolerance)
        close(lm.grad_norm, norm, dtype, tolerance)
        clipped += norm > threshold
        assert_agrees(state, their_state, f"h_n after step {step}", tolerance)
        for key, W in lm.parameters.items():
            moved = W - first[key]
            assert_agrees(W, module.parameters[key], f"{key} after step {step}", tolerance)
            wanted = module.parameters[key].detach().numpy() - first[key]
            assert np.abs(moved - wanted).max() <= 100 * tolerance * np.abs(wanted).max(), key
    if mode == "norm":
        assert clipped == (12 if threshold < 1 else 0)


def test_clip_grad_norm_of_torch(backend, torch):
    """torch's own function divides by the norm plus 1e-6: as close as that."""
    q, h = 11, 8
    lm = LanguageModel(q, h, dtype=np.float64, rng=1, backend=backend)
    module = TorchLanguageModel(lm)
    x, y = np.random.default_rng(0).integers(q, size=(2, 6, 5))
    module.backward(module.loss(x, y)[0])
    norm = torch.nn.utils.clip_grad_norm_(module.parameters.values(), 0.1)
    before = lm.state_dict()
    lm.train_step(x, y, lm.initial_state(5), optim.SGD(1.0, backend=backend), clip="norm", clip_threshold=0.1)
    assert lm.grad_norm == pytest.approx(float(norm), rel=1e-12)
    for name, W in module.parameters.items():
        assert_agrees(before[name] - lm.parameters[name], W.grad, name, 2e-6 / 0.1)
