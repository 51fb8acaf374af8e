"""Random option sets, and PyTorch modules with the weights of ours.

Test modules that need PyTorch import this one: where it is missing, each of them is skipped as a whole,
or an error in CI.
"""

import importlib.util
from dataclasses import dataclass, field

import numpy as np
import pytest
from support import IN_CI, assert_close

if importlib.util.find_spec("torch") is None and not IN_CI:
    pytest.skip("PyTorch is not installed", allow_module_level=True)

#: Largest difference from PyTorch in the same dtype, relative to the largest entry of an array.
AGREEMENT = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-4}


def assert_agrees(got, tensor, what="", tolerance=None):
    """Our array against PyTorch's tensor: shape, dtype and values; or the pairs of an LSTM."""
    if isinstance(tensor, tuple):
        assert type(got) is tuple
        for i, (ours, theirs) in enumerate(zip(got, tensor, strict=True)):
            assert_agrees(ours, theirs, f"{what}[{i}]", tolerance)
        return
    want = tensor.detach().numpy()
    assert got.dtype == want.dtype, f"{what}: dtype {got.dtype}, wanted {want.dtype}"
    assert_close(got, want, AGREEMENT[got.dtype] if tolerance is None else tolerance, what)


def sizes_around_vectors(rng, largest=40):
    """A size: often small, often beside a multiple of a vector's length."""
    if rng.random() < 0.3:
        return int(rng.integers(1, 7))
    if rng.random() < 0.6:
        return int(min(largest, rng.choice([7, 8, 9, 15, 16, 17, 31, 32, 33])))
    return int(rng.integers(1, largest + 1))


@dataclass
class Case:
    """One random set of options, weights and arguments of the layer."""

    seed: int
    dtype: type
    kind: str = "RNN"
    options: dict = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        yes = rng.random(8) < [0.5, 0.7, 0.5, 0.5, 0.2, 0.35, 0.6, 0.5]
        self.input_size, self.hidden_size = sizes_around_vectors(rng), sizes_around_vectors(rng)
        self.options = {
            "num_layers": int(rng.integers(1, 4)),
            "nonlinearity": "tanh" if yes[0] else "relu",
            "bias": bool(yes[1]),
            "batch_first": bool(yes[2]),
            "bidirectional": bool(yes[3]),
        }
        self.T = int(rng.integers(1, 13)) if rng.random() < 0.8 else int(rng.integers(13, 50))
        self.N = sizes_around_vectors(rng, 35)
        unbatched, one_hot, with_h0, with_grad_h_n = map(bool, yes[4:])
        h, layers = self.hidden_size, self.options["num_layers"]
        directions = 1 + self.options["bidirectional"]
        steps = (self.N, self.T) if self.options["batch_first"] else (self.T, self.N)
        batch = (self.N,)
        if unbatched:
            steps, batch = (self.T,), ()

        def normal(*shape):
            return rng.normal(size=shape).astype(self.dtype)

        if one_hot:
            self.x = rng.integers(self.input_size, size=steps)
        else:
            self.x = normal(*steps, self.input_size)
        self.lengths = None
        if not unbatched and rng.random() < 0.4:
            self.lengths = rng.integers(1, self.T + 1, self.N)

        def state():
            shape = layers * directions, *batch, h
            return (normal(*shape), normal(*shape)) if self.kind == "LSTM" else normal(*shape)

        self.h0 = state() if with_h0 else None
        self.grad_output = normal(*steps, directions * h)
        self.grad_h_n = state() if with_grad_h_n else None
        if self.kind != "RNN":
            del self.options["nonlinearity"]

    def __repr__(self):
        kind = "indices" if self.x.dtype.kind == "i" else "vectors"
        return (
            f"{self.kind}({self.input_size}, {self.hidden_size}, **{self.options}), {kind} {self.x.shape}, "
            f"lengths={self.lengths}, h0 {'' if self.h0 is None else 'not '}None"
        )


def random_state_dict(shapes, rng, dtype, scale=1.0):
    """Weights uniform in +-scale/sqrt(h), h the length of a hidden state, for a mapping name -> shape."""
    h = shapes["weight_hh_l0"][1]
    return {
        name: (rng.uniform(-1, 1, shape) * scale / np.sqrt(h)).astype(dtype) for name, shape in shapes.items()
    }


def to_torch(arrays):
    import torch

    return {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}


def torch_rnn(rnn, **changed):
    """PyTorch's layer with the options and the weights of ours, loaded as they are."""
    import torch

    names = ("num_layers", "nonlinearity", "bias", "batch_first", "dropout", "bidirectional")
    options = {name: getattr(rnn, name) for name in names if hasattr(rnn, name)} | changed
    module = getattr(torch.nn, type(rnn).__name__)(
        rnn.input_size, rnn.hidden_size, **options, dtype=torch_dtype(rnn.dtype)
    )
    module.load_state_dict({name: torch.from_numpy(W) for name, W in rnn.state_dict().items()})
    return module


def torch_dtype(dtype):
    import torch

    return {np.dtype(np.float64): torch.float64, np.dtype(np.float32): torch.float32}[np.dtype(dtype)]


def torch_input(x, size, dtype):
    """A leaf tensor of vectors; class indices as one-hot vectors."""
    import torch

    if x.dtype.kind in "iu":
        return torch.from_numpy(np.eye(size, dtype=dtype)[x])
    return torch.from_numpy(x.astype(dtype)).requires_grad_()


def torch_leaf(array):
    import torch

    if isinstance(array, tuple):
        return tuple(map(torch_leaf, array))
    return None if array is None else torch.from_numpy(array.copy()).requires_grad_()


def torch_forward(module, x, h0, lengths=None):
    """Output and h_n, through a packed sequence when there are lengths."""
    import torch

    if lengths is None:
        return module(x, h0)
    T = x.shape[1 if module.batch_first else 0]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, torch.from_numpy(np.asarray(lengths)), batch_first=module.batch_first, enforce_sorted=False
    )
    output, h_n = module(packed, h0)
    output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, batch_first=module.batch_first, total_length=T)
    return output, h_n


class TorchLanguageModel:
    """PyTorch's layers on one-hot vectors, a linear layer and softmax cross-entropy, with our weights."""

    def __init__(self, lm):
        import torch

        self.torch = torch
        self.vocab_size, self.dtype = lm.vocab_size, lm.dtype
        kind = torch_dtype(lm.dtype)
        options = {"nonlinearity": lm.nonlinearity} if lm.cell == "rnn" else {}
        layers = getattr(torch.nn, lm.cell.upper())
        self.rnn = layers(lm.vocab_size, lm.hidden_size, lm.num_layers, **options, dtype=kind)
        self.out = torch.nn.Linear(lm.hidden_size, lm.vocab_size, dtype=kind)
        weights = {name: torch.from_numpy(W) for name, W in lm.state_dict().items()}
        self.out.load_state_dict({"weight": weights.pop("weight_out"), "bias": weights.pop("bias_out")})
        self.rnn.load_state_dict(weights)

    @property
    def parameters(self):
        """Name, as ours -> parameter."""
        named = dict(self.rnn.named_parameters())
        return named | {"weight_out": self.out.weight, "bias_out": self.out.bias}

    def forward(self, x, h0=None):
        one_hot = torch_input(x, self.vocab_size, self.dtype)
        if isinstance(h0, tuple):
            h0 = tuple(map(self.torch.as_tensor, h0))
        elif h0 is not None:
            h0 = self.torch.as_tensor(h0)
        states, h_n = self.rnn(one_hot, h0)
        return self.out(states), h_n

    def loss(self, x, y, h0=None, reduction="mean"):
        logits, h_n = self.forward(x, h0)
        cross_entropy = self.torch.nn.functional.cross_entropy
        loss = cross_entropy(logits.reshape(-1, self.vocab_size), self.torch.from_numpy(y.reshape(-1)),
                             reduction=reduction)  # fmt: skip
        return loss, h_n

    def backward(self, loss):
        """Gradients by name."""
        for W in self.parameters.values():
            W.grad = None
        loss.backward()
        return {name: W.grad for name, W in self.parameters.items()}

    def train_step(self, x, y, h0, optimizer, clip, threshold):
        """One step as users of PyTorch write it; returns the loss, the last state and the norm."""
        loss, h_n = self.loss(x, y, h0)
        grads = list(self.backward(loss).values())
        norm = self.torch.linalg.vector_norm(
            self.torch.stack([self.torch.linalg.vector_norm(g) for g in grads])
        )
        if clip == "value":
            self.torch.nn.utils.clip_grad_value_(self.parameters.values(), threshold)
        elif clip == "norm" and norm > threshold:
            for g in grads:  # clip_grad_norm_ adds 1e-6 to the norm
                g *= threshold / norm
        optimizer.step()
        detached = tuple(state.detach() for state in h_n) if isinstance(h_n, tuple) else h_n.detach()
        return float(loss.detach()), detached, float(norm)
