"""Batches: fastrnn and others at them, and the check of every result against plain loops.

`LanguageModel` does a training step (one-hot inputs, one layer, output layer, softmax cross-entropy,
gradients, clamping each entry, gradient descent), the logits of a batch, and samples of N streams.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import batch_peers
import numpy as np
from agreement import check_result
from installed import BACKEND_NAMES, kind_of, require
from problems import CLAMP, NAMES, SEED, STILL_LR, Batch, reference_of
from sizes import VOCABULARY

from fastrnn import LanguageModel, optim

#: Learning rate of the step whose result is checked: the parameters move by their whole gradients.
CHECK_LR = 1.0

#: Largest difference from the reference, relative to the largest entry of each array.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}

#: Share of equal samples; what a stream draws after one that differs differs too.
EQUAL_SAMPLES = {"float64": 1.0, "float32": 0.9}

CONTENDERS = (*BACKEND_NAMES, *batch_peers.CONTENDERS)


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


def describe(operation: str, batch: Batch, contender: str, threads: int, cores: int) -> dict[str, Any]:
    """What a row of results says of itself, as JSON.

    `threads` is what the contender was limited to, `cores` what the process was bound to.
    """
    return {
        "suite": "batched",
        "kind": kind_of(contender),
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
    require(contender)
    if contender in BACKEND_NAMES:
        return FastrnnContender(batch, threads, contender)
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
    expected = _EXPECTED[operation](Batch(batch.h, batch.T, batch.N))
    return checked(build(contender, batch, threads), contender, operation, batch, expected)


def checked(
    built: Any, contender: str, operation: str, batch: Batch, expected: list[np.ndarray]
) -> Callable[[], Any]:
    """The call of a contender that was `built`, run once, its result compared with what is `expected`.

    Raises
    ------
    WrongResult
        If it is another one.
    """
    got = outcome(built, operation, batch)
    where = f"{contender}: {operation} of {batch}"
    check_result(where, operation, got, expected, TOLERANCE[batch.dtype], EQUAL_SAMPLES[batch.dtype])
    call: Callable[[], Any] = getattr(built, operation)
    call()
    return call


def outcome(built: Any, operation: str, batch: Batch) -> list[np.ndarray]:
    """What is compared: the result of a contender that has made no step yet."""
    built.set_lr(CHECK_LR)
    got: list[np.ndarray] = built.result(operation, getattr(built, operation)())
    built.set_lr(STILL_LR)
    if operation == "train_step":
        # The parameters are checked by how far they moved: large entries would hide small gradients.
        got = [got[0], *(a - b for a, b in zip(got[1:], batch.parameters.values(), strict=True))]
    return got


# -- what the plain loops give, in float64 ---------------------------------------------------------


@functools.cache
def _expected_step(batch: Batch) -> list[np.ndarray]:
    """Mean loss, and how far a step with `CHECK_LR` moves each parameter."""
    rnn, count = reference_of(batch.parameters), batch.T * batch.N
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
    rnn = reference_of(batch.parameters)
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
    rnn, h = reference_of(batch.parameters), np.zeros((batch.h, 1))
    streams = [
        rnn.sample(h, int(batch.start[i]), batch.T, rng=_GivenUniforms(batch.uniforms[:, i]))  # type: ignore[arg-type]
        for i in range(batch.N)
    ]
    return [np.asarray(streams)]


_EXPECTED = {"train_step": _expected_step, "forward": _expected_logits, "sample": _expected_samples}
