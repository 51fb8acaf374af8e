"""Batches: the problems, fastrnn at them, and the check of every result against plain loops.

`LanguageModel` does a training step (one-hot inputs, one layer, output layer, softmax cross-entropy,
gradients, clamping each entry, gradient descent), the logits of a batch, and samples of N streams.
Import this before NumPy, like `contenders`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import contenders
from contenders import BACKEND_NAMES, Unavailable, WrongResult

import numpy as np  # isort: skip  (contenders holds its threads)
from sizes import VOCABULARY

from fastrnn import LanguageModel, ReferenceRNN, optim

SEED = 1

CLAMP = 5.0

#: Learning rate of the step whose result is checked: the parameters move by their whole gradients.
CHECK_LR = 1.0

#: Learning rate while the clock runs: the same work, but the parameters stay what they are.
STILL_LR = 1e-9

#: Largest difference from the reference, relative to the largest entry of each array.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}

#: Share of equal samples; in float32 a rounding error may move a draw over the edge of its class, and
#: what its stream draws from there on differs.
EQUAL_SAMPLES = {"float64": 1.0, "float32": 0.9}

#: Contender -> the library that it needs.  A library that has several forms takes part with each.
PEERS = {"torch": "torch", "torch, own loop": "torch", "jax": "jax", "jax, own backward": "jax"}

CONTENDERS = (*BACKEND_NAMES, *PEERS)

NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_out", "bias_out")


@dataclass(frozen=True)
class Batch:
    """N sequences of T characters, and a model for them; everything follows from these values."""

    h: int
    T: int
    N: int
    dtype: str = "float64"

    @property
    def label(self) -> str:
        """Short, and of characters that may stand in a test's name."""
        return f"h{self.h}-T{self.T}-N{self.N}-{self.dtype}"

    @functools.cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """Under `LanguageModel`'s names, uniform in +-1/sqrt(h)."""
        model = LanguageModel(VOCABULARY, self.h, dtype="float64", rng=SEED, backend="numpy")
        return {name: model.parameters[name].astype(self.dtype) for name in NAMES}

    @functools.cached_property
    def _characters(self) -> np.ndarray:
        return np.random.default_rng([SEED, self.h, self.T]).integers(0, VOCABULARY, (self.T + 1, self.N))

    @property
    def x(self) -> np.ndarray:
        """Inputs, int64 (T, N)."""
        return self._characters[:-1]

    @property
    def y(self) -> np.ndarray:
        """Targets, int64 (T, N)."""
        return self._characters[1:]

    @property
    def start(self) -> np.ndarray:
        """First inputs of sampling, int64 (N,)."""
        return self._characters[0]

    @property
    def uniforms(self) -> np.ndarray:
        """The numbers of [0, 1) that sampling takes, float64 (T, N)."""
        return np.random.default_rng(SEED).random((self.T, self.N))

    def multiply_adds(self, operation: str) -> int:
        """Those of the matrix products that the operation needs; one-hot inputs are looked up.

        Forward: ``Whh h`` and the logits.  Backward: ``Whh' dz``, ``dWhh``, ``dWhy`` and ``Why' dy``.
        """
        forward = self.T * self.N * self.h * (self.h + VOCABULARY)
        return 3 * forward if operation == "train_step" else forward


class FastrnnContender:
    """`LanguageModel` on one backend."""

    def __init__(self, batch: Batch, threads: int, backend: str) -> None:
        self._lm = LanguageModel(
            VOCABULARY, batch.h, dtype=batch.dtype, backend=backend, num_threads=threads, rng=SEED
        )
        for name, W in batch.parameters.items():
            self._lm.parameters[name][...] = W
        self._x, self._y, self._start, self._n = batch.x, batch.y, batch.start, batch.T
        self._h0 = self._lm.initial_state(batch.N)
        self._sgd = optim.SGD(STILL_LR)

    def set_lr(self, lr: float) -> None:
        self._sgd.lr = lr

    def train_step(self) -> tuple:
        return self._lm.train_step(self._x, self._y, self._h0, self._sgd, clip="value", clip_threshold=CLAMP)

    def forward(self) -> tuple:
        return self._lm.forward(self._x, self._h0)

    def sample(self) -> tuple:
        return self._lm.sample(self._h0, self._start, self._n, rng=SEED)

    def result(self, operation: str, returned: Any) -> list[np.ndarray]:
        """The loss and the parameters in the order of `NAMES`; logits (T,N,q); indices (N,T)."""
        if operation == "train_step":
            return [np.asarray(returned[0]), *(self._lm.parameters[name] for name in NAMES)]
        return [returned[0]]


def contenders_of(operation: str) -> list[str]:
    """The contenders that do `operation`; libraries sample in one form."""
    return [name for name in CONTENDERS if name not in _FORMS or operation in _FORMS[name]]


_FORMS = {"torch, own loop": ("train_step", "forward"), "jax, own backward": ("train_step",)}


def why_unavailable(contender: str) -> str | None:
    """Why `contender` cannot run here, or None when it can."""
    return contenders.why_unavailable(PEERS.get(contender, contender))


def describe(operation: str, batch: Batch, contender: str, threads: int, cores: int) -> dict[str, Any]:
    """What a row of results says of itself, as JSON.

    `threads` is what the contender was held to, `cores` what the process was bound to.
    """
    return {
        "suite": "batched",
        "kind": "backend" if contender in BACKEND_NAMES else "peer",
        "operation": operation,
        "h": batch.h,
        "T": batch.T,
        "N": batch.N,
        "dtype": batch.dtype,
        "threads": threads,
        "cores": cores,
        "contender": contender,
    }


def build(contender: str, batch: Batch, threads: int) -> Any:
    """The contender called `contender`, with the batch's parameters and data.

    Raises
    ------
    Unavailable
        If it is not installed.
    """
    reason = why_unavailable(contender)
    if reason is not None:
        raise Unavailable(f"{contender}: {reason}")
    if contender in BACKEND_NAMES:
        return FastrnnContender(batch, threads, contender)
    import batch_peers

    return batch_peers.CONTENDERS[contender](batch, threads)


def checked_call(contender: str, operation: str, batch: Batch, threads: int) -> Callable[[], Any]:
    """The call to time: built, run once, which compiles what is to be compiled, its result checked.

    Raises
    ------
    Unavailable
        If the contender is not installed.
    WrongResult
        If its result is not that of the plain loops.
    """
    built = build(contender, batch, threads)
    call: Callable[[], Any] = getattr(built, operation)
    built.set_lr(CHECK_LR)
    got = built.result(operation, call())
    built.set_lr(STILL_LR)
    expected = _EXPECTED[operation](Batch(batch.h, batch.T, batch.N))
    where = f"{contender}: {operation} of {batch}"
    if operation == "train_step":
        # The parameters are checked by how far they moved: large entries would hide small gradients.
        got = [got[0], *(a - b for a, b in zip(got[1:], batch.parameters.values(), strict=True))]
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        if a.shape != b.shape:
            raise WrongResult(f"{where}: result {i} has shape {a.shape}, the reference's {b.shape}")
        if operation == "sample":
            equal = np.mean(a == b)
            if not equal >= EQUAL_SAMPLES[batch.dtype]:
                raise WrongResult(f"{where}: only {equal:.1%} of the samples are the reference's")
        else:
            error = np.abs(a - b).max() / np.abs(b).max()
            if not error <= TOLERANCE[batch.dtype]:
                raise WrongResult(f"{where}: result {i} is off by {error:.1e} of its largest entry")
    call()
    return call


# -- what the plain loops give, in float64 ---------------------------------------------------------


def _reference(batch: Batch) -> ReferenceRNN:
    """The notes' loop with the batch's parameters; it has one bias where a layer has two."""
    rnn = ReferenceRNN(VOCABULARY, batch.h, VOCABULARY, rng=SEED)
    p = batch.parameters
    rnn.Wxh, rnn.Whh, rnn.Why = p["weight_ih_l0"], p["weight_hh_l0"], p["weight_out"]
    rnn.bh, rnn.by = (p["bias_ih_l0"] + p["bias_hh_l0"])[:, None], p["bias_out"][:, None]
    return rnn


@functools.cache
def _expected_step(batch: Batch) -> list[np.ndarray]:
    """Mean loss, and how far a step with `CHECK_LR` moves each parameter."""
    rnn, count = _reference(batch), batch.T * batch.N
    total, sums = 0.0, [np.zeros(1)] * 5
    for i in range(batch.N):
        loss, grads, _ = rnn.loss_and_grads(
            batch.x[:, i].tolist(), batch.y[:, i].tolist(), np.zeros((batch.h, 1)), clip=None
        )
        total += loss
        sums = [a + b for a, b in zip(sums, grads, strict=True)]
    Wxh, Whh, Why, bh, by = (-CHECK_LR * np.clip(g / count, -CLAMP, CLAMP) for g in sums)
    return [np.asarray(total / count), Wxh, Whh, bh[:, 0], bh[:, 0], Why, by[:, 0]]


@functools.cache
def _expected_logits(batch: Batch) -> list[np.ndarray]:
    rnn = _reference(batch)
    logits = np.empty((batch.T, batch.N, VOCABULARY))
    for i in range(batch.N):
        _, hs, _ = rnn.forward(batch.x[:, i].tolist(), np.zeros((batch.h, 1)))
        for t in range(batch.T):
            logits[t, i] = (np.dot(rnn.Why, hs[t]) + rnn.by)[:, 0]
    return [logits]


class _GivenUniforms:
    """`numpy.random.Generator.choice` for uniforms that were drawn before."""

    def __init__(self, uniforms: np.ndarray) -> None:
        self._uniforms = iter(uniforms)

    def choice(self, values: range, p: np.ndarray) -> int:
        cdf = np.cumsum(p)
        return values[int(np.searchsorted(cdf / cdf[-1], next(self._uniforms), side="right"))]


@functools.cache
def _expected_samples(batch: Batch) -> list[np.ndarray]:
    rnn, h = _reference(batch), np.zeros((batch.h, 1))
    streams = [
        rnn.sample(h, int(batch.start[i]), batch.T, rng=_GivenUniforms(batch.uniforms[:, i]))  # type: ignore[arg-type]
        for i in range(batch.N)
    ]
    return [np.asarray(streams)]


_EXPECTED = {"train_step": _expected_step, "forward": _expected_logits, "sample": _expected_samples}
