"""One sequence: every way of computing it, and the check of each result.

The pytest files and `ratios` both build their cases here, so that they time the same calls.

A contender is an object with one method for each of `OPERATIONS` that it has (the timed call), `lr`
(the learning rate of `train_step`), and `result`, which turns what a call returned into arrays that
can be compared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import peers
from agreement import check_result
from installed import BACKEND_NAMES, LIBRARIES, kind_of, require
from problems import SEED, STILL_LR, WEIGHT_NAMES, Problem
from sizes import BASELINE, OPERATIONS, VOCABULARY

from fastrnn import ReferenceRNN, SimpleRNN

CONTENDERS = (BASELINE, "reference-float32", *BACKEND_NAMES, *LIBRARIES)

#: Learning rate of the step whose result is checked.
CHECK_LR = 1e-3

#: Largest difference from the reference, relative to the largest entry of each array.
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}

#: Share of equal samples.
EQUAL_SAMPLES = {"float64": 1.0, "float32": 0.99}

#: Peers clamp gradients once, not after every time step; up to this length no clamp binds.
PEER_CHECK_T = 100


class NotesContender:
    """A class with the notes' members: the reference, or `SimpleRNN` on one backend."""

    clips_once = False

    def __init__(self, problem: Problem, rnn: Any) -> None:
        self._rnn = rnn
        for name, W in problem.weights.items():
            setattr(rnn, name, W.copy())
        self._inputs, self._targets, self._h_prev = problem.inputs, problem.targets, problem.h_prev
        self._start, self._n = problem.start, problem.T
        self.lr = STILL_LR

    @functools.cached_property
    def _steps(self) -> tuple:
        return self.forward()

    def forward(self) -> tuple:
        return self._rnn.forward(self._inputs, self._h_prev)

    def backward(self) -> tuple:
        return self._rnn.backward(*self._steps, self._targets)

    def train_step(self) -> tuple:
        return self._rnn.train_step(self._inputs, self._targets, self._h_prev, self.lr)

    def sample(self) -> list[int]:
        return self._rnn.sample(self._h_prev, self._start, self._n)

    def result(self, operation: str, returned: Any) -> list[np.ndarray]:
        if operation == "forward":
            ps = returned[2]
            return [np.concatenate([ps[t].T for t in range(self._n)])]
        if operation == "backward":
            return list(returned)
        if operation == "train_step":
            return [np.asarray(returned[0]), *(getattr(self._rnn, n) for n in WEIGHT_NAMES)]
        return [np.asarray(returned)]


def operations_of(contender: str, dtype: str) -> tuple[str, ...]:
    """The operations that `contender` has in `dtype`."""
    if contender == "onnxruntime":  # inference only, and its RNN operator knows no float64
        return ("forward",) if dtype == "float32" else ()
    if contender == "reference-float32":
        return OPERATIONS if dtype == "float32" else ()
    return OPERATIONS


def contenders_of(operation: str, problem: Problem) -> list[str]:
    """The contenders that do the same work on `problem`, the reference first.

    Where clamps bind, the peers would compute something else: they clamp once.
    """
    return [
        name
        for name in CONTENDERS
        if operation in operations_of(name, problem.dtype) and not (problem.binding and name in LIBRARIES)
    ]


def describe(suite: str, operation: str, problem: Problem, contender: str) -> dict[str, Any]:
    """What a row of results says of itself, as JSON; `suite` is the kind of measurement."""
    return {
        "suite": suite,
        "kind": kind_of(contender),
        "operation": operation,
        "h": problem.h,
        "T": problem.T,
        "dtype": problem.dtype,
        "binding": problem.binding,
        "contender": contender,
    }


def build(contender: str, problem: Problem) -> Any:
    """The contender called `contender`, with the problem's weights and data.

    Raises
    ------
    Unavailable
        If it is not installed.
    """
    require(contender)
    sizes = VOCABULARY, problem.h, VOCABULARY
    if contender == BASELINE:
        return NotesContender(_in_float64(problem), ReferenceRNN(*sizes))
    if contender == "reference-float32":
        return NotesContender(problem, ReferenceRNN(*sizes, dtype=problem.dtype))
    if contender in BACKEND_NAMES:
        return NotesContender(problem, SimpleRNN(*sizes, dtype=problem.dtype, backend=contender))
    return peers.CONTENDERS[contender](problem)


def _in_float64(problem: Problem) -> Problem:
    return Problem(problem.h, problem.T, "float64", problem.binding)


def checked_call(contender: str, operation: str, problem: Problem) -> Callable[[], Any]:
    """The call to time: built, run once (which compiles what is to be compiled), its result checked.

    Raises
    ------
    Unavailable
        If the contender is not installed.
    WrongResult
        If its result is not the reference's.
    """
    built = build(contender, problem)
    if contender == BASELINE:
        return getattr(built, operation)
    if built.clips_once and problem.T > PEER_CHECK_T:
        # Its clamps differ from the notes' on a long sequence: check the same program on a short one.
        short = Problem(problem.h, PEER_CHECK_T, problem.dtype, problem.binding)
        _check(contender, build(contender, short), operation, short)
        getattr(built, operation)()
    else:
        _check(contender, built, operation, problem)
    return getattr(built, operation)


def _check(name: str, built: Any, operation: str, problem: Problem) -> None:
    expected = _expected(operation, _in_float64(problem))
    np.random.seed(SEED)
    built.lr = CHECK_LR
    got = built.result(operation, getattr(built, operation)())
    built.lr = STILL_LR
    where = f"{name}: {operation} of {problem}"
    check_result(where, operation, got, expected, TOLERANCE[problem.dtype], EQUAL_SAMPLES[problem.dtype])


def _expected(operation: str, problem: Problem) -> list[np.ndarray]:
    """What the reference loop gives in float64."""
    if operation == "sample":
        return _expected_sample(problem)
    loss, ps, grads = _expected_pass(problem)
    if operation == "forward":
        return [ps]
    if operation == "backward":
        return list(grads)
    weights = problem.weights.values()
    return [np.asarray(loss), *(W - CHECK_LR * dW for W, dW in zip(weights, grads, strict=True))]


@functools.cache
def _expected_pass(problem: Problem) -> tuple[float, np.ndarray, tuple[np.ndarray, ...]]:
    reference = build(BASELINE, problem)
    steps = reference._steps
    ps = reference.result("forward", steps)[0]
    loss = -np.log(ps[np.arange(problem.T), problem.targets]).sum()
    return float(loss), ps, reference.backward()


@functools.cache
def _expected_sample(problem: Problem) -> list[np.ndarray]:
    reference = build(BASELINE, problem)
    np.random.seed(SEED)
    return [np.asarray(reference.sample())]
