"""A short comparison of the backends with the reference loop, on the machine at hand.

Every result is checked against the reference before anything is timed.  The full suite is the
project's ``benchmarks/`` folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastrnn.reference import ReferenceRNN
from fastrnn.simple import SimpleRNN
from fastrnn.simple_weights import PARAMETERS
from fastrnn.threads import one_blas_thread

__all__ = ["OPERATIONS", "Disagreement", "Row", "agree", "compare", "reference_copy", "time_calls"]

#: Relative tolerance of a result, by dtype: the reference always computes in float64.
TOLERANCE = {"float64": 1e-8, "float32": 2e-3}

#: Characters of the vocabulary that is measured (those of a plain English text).
VOCABULARY_SIZE = 65


class Disagreement(RuntimeError):
    """A backend's result is not the reference's."""


@dataclass(frozen=True)
class Row:
    """One operation at one size.

    Attributes
    ----------
    operation : str
        One of `OPERATIONS`.
    hidden_size, seq_len : int
        h and T.
    dtype : str
        Of the backends; the reference computes in float64.
    reference : float
        Seconds of one call of the reference loop.
    backends : dict of str to float
        Seconds of one call, by backend.
    """

    operation: str
    hidden_size: int
    seq_len: int
    dtype: str
    reference: float
    backends: dict[str, float]


def reference_copy(rnn: SimpleRNN) -> ReferenceRNN:
    """The reference loop in float64 with a copy of a model's weights.

    Examples
    --------
    >>> rnn = SimpleRNN(3, 8, 3, rng=0)
    >>> reference = reference_copy(rnn)
    >>> bool((reference.Whh == rnn.Whh).all()), reference.Whh is rnn.Whh
    (True, False)
    """
    reference = ReferenceRNN(rnn.input_size, rnn.hidden_size, rnn.output_size, rng=0)
    for name in PARAMETERS:
        setattr(reference, name, getattr(rnn, name).astype(np.float64))
    return reference


def agree(rnn: SimpleRNN, result: Any, reference: ReferenceRNN, expected: Any) -> None:
    """Compare the weights and the last result of a model with the reference's.

    Parameters
    ----------
    rnn, reference : SimpleRNN, ReferenceRNN
    result, expected : sequence of arrays or numbers
        What the two returned.

    Raises
    ------
    Disagreement
        If anything differs by more than rounding in the model's dtype explains.

    Examples
    --------
    >>> rnn = SimpleRNN(3, 8, 3, rng=0)
    >>> reference = reference_copy(rnn)
    >>> reference.by += 1
    >>> agree(rnn, [], reference, [])
    Traceback (most recent call last):
        ...
    fastrnn.cli.comparison.Disagreement: by is not what the reference loop computes: off by 1
    """
    tolerance = TOLERANCE[rnn.dtype.name]
    pairs = [(name, getattr(rnn, name), getattr(reference, name)) for name in PARAMETERS]
    pairs += [(f"result {i}", a, b) for i, (a, b) in enumerate(zip(result, expected, strict=True))]
    for name, mine, theirs in pairs:
        error = float(np.max(np.abs(np.subtract(mine, theirs, dtype=np.float64))))
        if not error <= tolerance * max(1.0, float(np.max(np.abs(theirs)))):
            raise Disagreement(f"{name} is not what the reference loop computes: off by {error:.3g}")


def time_calls(calls: Sequence[Callable[[], object]], seconds: float, rounds: int = 5) -> list[float]:
    """Time functions side by side: in turn, several rounds, the best round of each.

    Parameters
    ----------
    calls : sequence of functions without arguments
    seconds : float
        For all rounds of one function; it is called once a round at least.
    rounds : int, default 5

    Returns
    -------
    list of float
        Seconds of one call of each.

    Examples
    --------
    >>> quick, slow = time_calls([lambda: sum(range(10)), lambda: sum(range(10_000))], 0.02)
    >>> quick < slow
    True
    """
    repeats = []
    for call in calls:
        start = time.perf_counter()
        call()
        once = time.perf_counter() - start
        repeats.append(max(1, int(seconds / rounds / max(once, 1e-7))))
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            for _ in range(repeats[i]):
                call()
            best[i] = min(best[i], (time.perf_counter() - start) / repeats[i])
    return best


def _forward(rnn: Any, inputs: np.ndarray, targets: np.ndarray, h: np.ndarray) -> Any:
    _xs, hs, ps = rnn.forward(inputs, h)
    return hs, ps


def _train_step(rnn: Any, inputs: np.ndarray, targets: np.ndarray, h: np.ndarray) -> Any:
    return rnn.train_step(inputs, targets, h, 1e-3)


def _sample(rnn: Any, inputs: np.ndarray, targets: np.ndarray, h: np.ndarray) -> Any:
    return rnn.sample(h, int(inputs[0]), len(inputs), rng=np.random.default_rng(0))


#: Operation -> function of a model, inputs (T,), targets (T,) and a state (h, 1).
OPERATIONS: dict[str, Callable[..., Any]] = {
    "forward": _forward,
    "train_step": _train_step,
    "sample": _sample,
}


#: Draws of a sample that are compared: of very many, one in float32 would fall so close to the edge
#: between two characters that it lands on the other side, and all that follow differ.
SAMPLE_COMPARED = 100


def _comparable(operation: str, result: Any) -> Any:
    """The part of a result that shows whether all of it is right."""
    if operation == "forward":
        hs, ps = result
        return hs[len(ps) - 1], ps[len(ps) - 1]
    return result[:SAMPLE_COMPARED] if operation == "sample" else result


def compare(
    sizes: Sequence[tuple[int, int]],
    dtypes: Sequence[str],
    backends: Sequence[str],
    seconds: float,
) -> Iterator[Row]:
    """Time every operation at every size on one thread, as the rows of a table.

    Parameters
    ----------
    sizes : sequence of (int, int)
        Hidden size h and time steps T.
    dtypes : sequence of {"float64", "float32"}
    backends : sequence of str
        Those to compare with the reference, one at least.
    seconds : float
        Measuring time of each number.

    Yields
    ------
    Row

    Raises
    ------
    Disagreement
        If a result is not the reference's.
    BackendUnavailable
        If a backend that was named is missing.

    Examples
    --------
    >>> for row in compare([(4, 2)], ["float64"], ["numpy"], 0.001):
    ...     print(row.operation, row.reference > 0, *row.backends)
    forward True numpy
    train_step True numpy
    sample True numpy
    """
    for operation in OPERATIONS:
        for dtype in dtypes:
            for h, T in sizes:
                with one_blas_thread():
                    row = _row(operation, h, T, dtype, backends, seconds)
                yield row


def _row(operation: str, h: int, T: int, dtype: Any, backends: Sequence[Any], seconds: float) -> Row:
    run = OPERATIONS[operation]
    q = VOCABULARY_SIZE
    indices = np.random.default_rng(0).integers(0, q, T + 1)
    arguments = indices[:-1], indices[1:], np.zeros((h, 1), dtype)
    models = [SimpleRNN(q, h, q, dtype=dtype, rng=0, backend=name) for name in backends]
    for name, model in zip(backends, models, strict=True):
        reference = reference_copy(model)
        try:
            agree(
                model,
                _comparable(operation, run(model, *arguments)),
                reference,
                _comparable(operation, run(reference, *arguments)),
            )
        except Disagreement as error:
            raise Disagreement(f"{name}, {operation}, h={h}, T={T}, {dtype}: {error}") from None
    calls = [partial(run, model, *arguments) for model in (reference, *models)]
    reference_seconds, *backend_seconds = time_calls(calls, seconds)
    return Row(operation, h, T, dtype, reference_seconds, dict(zip(backends, backend_seconds, strict=True)))
