"""A few sequences of a large net: fastrnn and others at forward and at a training step, each checked before.

Forward is that of a layer, `RNN`, on real inputs (`gated_contenders.py`); a training step is that of `LanguageModel`
with gradient descent (`batch_contenders.py`).  Everybody's result is compared with that of the NumPy kernels in
float64, which the tests hold to plain loops: the loops themselves would take minutes here.

JAX takes part in one form more than elsewhere: over one sequence the recurrent matrix is best transposed in each step,
which XLA makes a product with the matrix as it is; over more, before the loop, which takes half as long.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import batch_contenders
import batch_peers
import gated_contenders
import numpy as np
from installed import BACKEND_NAMES, kind_of, require
from problems import Batch
from sizes import FEW_STEPS

Expected = list[np.ndarray]


@dataclass(frozen=True)
class Case:
    """What is to be done; everything follows from these values."""

    operation: str
    h: int
    N: int
    dtype: str
    T: int = FEW_STEPS

    @property
    def label(self) -> str:
        """Short, and of characters that may stand in a test's name."""
        return f"{self.operation}-h{self.h}-T{self.T}-N{self.N}-{self.dtype}"

    @property
    def batch(self) -> Batch:
        """Of the training step."""
        return Batch(self.h, self.T, self.N, self.dtype)

    @property
    def problem(self) -> gated_contenders.Problem:
        """Of forward."""
        return gated_contenders.Problem("rnn", self.h, self.T, self.N, self.dtype)


class JaxLayer(gated_contenders.JaxContender):
    """The recurrent matrix is transposed in each step."""

    transposed_before = False


class JaxTransposed(batch_peers.JaxOwnBackwardContender):
    """The recurrent matrix is transposed before the loop."""

    transposed_before = True


#: Operation -> contender's name -> what builds it.
_PEERS: dict[str, dict[str, Callable[[Any, int], Any]]] = {
    "train_step": {**batch_peers.CONTENDERS, "jax, own backward, transposed": JaxTransposed},
    "forward": {
        "torch": gated_contenders.TorchContender,
        "jax": JaxLayer,
        "jax, transposed": gated_contenders.JaxContender,
    },
}

CONTENDERS = tuple(dict.fromkeys((*BACKEND_NAMES, *_PEERS["train_step"], *_PEERS["forward"])))


def contenders_of(operation: str) -> list[str]:
    """The contenders that do `operation`."""
    return [*BACKEND_NAMES, *_PEERS[operation]]


def describe(contender: str, case: Case, threads: int, cores: int) -> dict[str, Any]:
    """What a row of results says of itself, as JSON.

    `threads` is what the contender was limited to, `cores` what the process was bound to.
    """
    more = {"threads": threads, "cores": cores, "contender": contender}
    return {"suite": "few", "kind": kind_of(contender), **asdict(case), **more}


def checked_call(
    contender: str, case: Case, threads: int, expected: Expected | None = None
) -> Callable[[], Any]:
    """The call to time: built, run once, which compiles what is to be compiled, its result checked.

    Parameters
    ----------
    contender : str
    case : Case
    threads : int
    expected : list of ndarray, optional
        What `expected_of` gave elsewhere.

    Raises
    ------
    Unavailable
        If the contender is not installed.
    WrongResult
        If its result is not that of the NumPy kernels in float64.
    """
    require(contender)
    if expected is None:
        expected = expected_of(case)
    problem, check = _parts(case)
    return check(_built(contender, case, problem, threads), contender, case.operation, problem, expected)


def _parts(case: Case) -> tuple[Any, Callable[..., Callable[[], Any]]]:
    if case.operation == "forward":
        return case.problem, gated_contenders.checked
    return case.batch, batch_contenders.checked


def _built(contender: str, case: Case, problem: Any, threads: int) -> Any:
    if contender not in BACKEND_NAMES:
        return _PEERS[case.operation][contender](problem, threads)
    if case.operation == "forward":
        return gated_contenders.FastrnnContender(problem, threads, contender)
    return batch_contenders.FastrnnContender(problem, threads, contender)


def expected_of(case: Case) -> Expected:
    """What the NumPy kernels give in float64: outputs, or the loss and how far each parameter moves."""
    return _expected(case.operation, case.h, case.T, case.N)


@functools.lru_cache(maxsize=1)  # one size after the other, each in both dtypes; the largest take 100 MB
def _expected(operation: str, h: int, T: int, N: int) -> Expected:
    case = Case(operation, h, N, "float64", T)
    problem, _ = _parts(case)
    plain = _built("numpy", case, problem, 1)
    if operation == "forward":
        return [plain.outputs(plain.forward())]
    return batch_contenders.outcome(plain, operation, problem)
