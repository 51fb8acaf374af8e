"""What is benchmarked: the problems, every way of computing them, and the check of each result.

The pytest files and `ratios` both build their cases here, so that they time the same calls.  Import
this before NumPy: it holds every library to one thread, unless `hold` was told otherwise before.

A contender is an object with one method for each of `OPERATIONS` that it has (the timed call), `lr`
(the learning rate of `train_step`), and `result`, which turns what a call returned into arrays that
can be compared.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hold

hold.hold_threads()

import numpy as np  # noqa: E402
from sizes import BASELINE, OPERATIONS, VOCABULARY  # noqa: E402

from fastrnn import BackendUnavailable, ReferenceRNN, SimpleRNN  # noqa: E402
from fastrnn.backends import BACKENDS, load  # noqa: E402

BACKEND_NAMES = tuple(BACKENDS)
PEERS = ("torch", "jax", "onnxruntime")
CONTENDERS = (BASELINE, "reference-float32", *BACKEND_NAMES, *PEERS)

SEED = 1

#: Learning rate of the step whose result is checked.
CHECK_LR = 1e-3

#: Learning rate while the clock runs: the same work, but the weights stay what they are however
#: often the step is repeated.
STILL_LR = 1e-9

#: Largest difference from the reference, relative to the largest entry of each array.
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}

#: Share of equal samples; in float32 a rounding error may move a draw over the edge of its class.
EQUAL_SAMPLES = {"float64": 1.0, "float32": 0.99}

#: Peers clamp gradients once, not after every time step; up to this length no clamp binds.
PEER_CHECK_T = 100


class Unavailable(Exception):
    """A contender that is not installed here; the message says why."""


class WrongResult(AssertionError):
    """A contender computed something else than the reference: its time would mean nothing."""


@dataclass(frozen=True)
class Problem:
    """One sequence and a model for it; everything follows from these values.

    Parameters
    ----------
    h : int
        Hidden size.
    T : int
        Time steps.
    dtype : {"float64", "float32"}
    binding : bool
        False: the notes' initial weights and evenly drawn characters, where no clamp binds up to a
        few hundred steps.  True: large weights and unevenly drawn characters, where clamps bind in
        every gradient.
    """

    h: int
    T: int
    dtype: str = "float64"
    binding: bool = False

    @property
    def label(self) -> str:
        """Short, and of characters that may stand in a test's name."""
        return f"h{self.h}-T{self.T}-{self.dtype}{'-binding' if self.binding else ''}"

    @functools.cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """Wxh (h,d), Whh (h,h), Why (q,h), bh (h,1), by (q,1)."""
        draw = np.random.default_rng([SEED, self.h, 0]).standard_normal
        scale, recurrent = (1.0, 0.5 / self.h**0.5) if self.binding else (0.01, 0.01)
        q = VOCABULARY
        weights = {
            "Wxh": draw((self.h, q)) * scale,
            "Whh": draw((self.h, self.h)) * recurrent,
            "Why": draw((q, self.h)) * scale,
            "bh": np.zeros((self.h, 1)),
            "by": np.zeros((q, 1)),
        }
        return {name: W.astype(self.dtype) for name, W in weights.items()}

    @functools.cached_property
    def _characters(self) -> list[int]:
        rng = np.random.default_rng([SEED, self.h, self.T])
        share = 1.0 / np.arange(1, VOCABULARY + 1) if self.binding else np.ones(VOCABULARY)
        characters: list[int] = rng.choice(VOCABULARY, self.T + 1, p=share / share.sum()).tolist()
        return characters

    @property
    def inputs(self) -> list[int]:
        """T class indices, as a list like in the notes."""
        return self._characters[:-1]

    @property
    def targets(self) -> list[int]:
        """T class indices."""
        return self._characters[1:]

    @property
    def h_prev(self) -> np.ndarray:
        """State before the first input, (h, 1)."""
        return np.zeros((self.h, 1), self.dtype)

    @property
    def start(self) -> int:
        """First input of sampling."""
        return self._characters[0]

    @property
    def uniforms(self) -> np.ndarray:
        """The T numbers of [0, 1) that NumPy's global stream gives after ``seed(SEED)``."""
        return np.random.RandomState(SEED).random_sample(self.T)


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


WEIGHT_NAMES = ("Wxh", "Whh", "Why", "bh", "by")


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
        if operation in operations_of(name, problem.dtype) and not (problem.binding and name in PEERS)
    ]


def describe(suite: str, operation: str, problem: Problem, contender: str) -> dict[str, Any]:
    """What a row of results says of itself, as JSON; `suite` is the kind of measurement."""
    kind = "backend" if contender in BACKEND_NAMES else "peer" if contender in PEERS else "reference"
    return {
        "suite": suite,
        "kind": kind,
        "operation": operation,
        "h": problem.h,
        "T": problem.T,
        "dtype": problem.dtype,
        "binding": problem.binding,
        "contender": contender,
    }


@functools.cache
def why_unavailable(contender: str) -> str | None:
    """Why `contender` cannot run here, or None when it can."""
    try:
        if contender in BACKEND_NAMES:
            load(contender)
        elif contender in PEERS:
            for module in (contender, "onnx") if contender == "onnxruntime" else (contender,):
                importlib.import_module(module)
    except (BackendUnavailable, ImportError) as error:
        return str(error)
    return None


def build(contender: str, problem: Problem) -> Any:
    """The contender called `contender`, with the problem's weights and data.

    Raises
    ------
    Unavailable
        If it is not installed.
    """
    reason = why_unavailable(contender)
    if reason is not None:
        raise Unavailable(f"{contender}: {reason}")
    sizes = VOCABULARY, problem.h, VOCABULARY
    if contender == BASELINE:
        return NotesContender(_in_float64(problem), ReferenceRNN(*sizes))
    if contender == "reference-float32":
        return NotesContender(problem, ReferenceRNN(*sizes, dtype=problem.dtype))
    if contender in BACKEND_NAMES:
        return NotesContender(problem, SimpleRNN(*sizes, dtype=problem.dtype, backend=contender))
    import peers

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
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        if a.shape != b.shape:
            raise WrongResult(f"{where}: result {i} has shape {a.shape}, the reference's {b.shape}")
        if operation == "sample":
            equal = np.mean(a == b)
            if not equal >= EQUAL_SAMPLES[problem.dtype]:
                raise WrongResult(f"{where}: only {equal:.1%} of the samples are the reference's")
        else:
            error = np.abs(a - b).max() / np.abs(b).max()
            if not error <= TOLERANCE[problem.dtype]:
                raise WrongResult(f"{where}: result {i} is off by {error:.1e} of its largest entry")


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


def machine() -> dict[str, Any]:
    """The processor and the versions, for the report."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("numpy", "numba", "scipy", "cython", *PEERS):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"cpu": _cpu_model(), "cores": hold.CORES, "versions": versions}


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in text.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    name = fields.get("model name", platform.machine())
    widest = [flag for flag in ("avx512f", "avx2") if flag in fields.get("flags", "").split()]
    return f"{name} ({widest[0]})" if widest else name
