"""What `fastrnn.diagnostics` costs: `gradient_flow` beside `loss_and_grads` of the same model and batch,
the summary of a training beside a step of it, and the norms of Jacobians.

    pytest benchmarks/bench_diagnostics.py               # timings
    python benchmarks/bench_diagnostics.py               # ratios: the two take turns, medians of the rounds

Results are compared first: the flow's loss and the norm of its dWhh with those of `loss_and_grads`.
"""

import math
import statistics
import time

from thread_limits import limit_threads

limit_threads()

import numpy as np
import pytest
from sizes import VOCABULARY

from fastrnn import LanguageModel, SimpleRNN, diagnostics, optim

#: Hidden size, time steps, sequences (1 is a `SimpleRNN`), dtype.
SIZES = [
    (32, 100, 1, "float64"),
    (100, 25, 1, "float64"),
    (100, 100, 1, "float64"),
    (256, 100, 1, "float64"),
    (128, 50, 32, "float64"),
    (128, 64, 64, "float32"),
    (256, 64, 64, "float32"),
    (512, 64, 64, "float32"),
]


class Case:
    """A model with a batch, and the calls that are compared."""

    def __init__(self, size, backend, num_threads=None):
        h, T, N, dtype = size
        rng = np.random.default_rng(0)
        self.dtype = np.dtype(dtype)
        if N == 1:
            self.model = SimpleRNN(VOCABULARY, h, VOCABULARY, dtype=dtype, rng=0, backend=backend)
            self.x, self.y = rng.integers(0, VOCABULARY, (2, T))
            self.h0 = np.zeros((h, 1), dtype)
        else:
            self.model = LanguageModel(
                VOCABULARY, h, dtype=dtype, rng=0, backend=backend, num_threads=num_threads
            )
            self.x, self.y = rng.integers(0, VOCABULARY, (2, T, N))
            self.h0 = np.zeros((1, N, h), dtype)
        self.adam = optim.Adam(lr=1e-4, backend=backend)
        self.check()

    def plain(self):
        if isinstance(self.model, SimpleRNN):
            return self.model.loss_and_grads(self.x, self.y, self.h0, clip=None)
        return self.model.loss_and_grads(self.x, self.y, self.h0)

    def flow(self):
        return diagnostics.gradient_flow(self.model, self.x, self.y, self.h0)

    def step(self):
        if isinstance(self.model, SimpleRNN):
            return self.model.train_step(self.x, self.y, self.h0, lr=1e-4, clip="norm")
        return self.model.train_step(self.x, self.y, self.h0, self.adam)

    def summary(self):
        return diagnostics.training_summary(self.model, self.x, self.y, self.h0)

    def check(self):
        loss, grads, _ = self.plain()
        dW_hh = grads["weight_hh_l0"] if isinstance(grads, dict) else grads[1]
        flow = self.flow()
        tolerance = 1e-10 if self.dtype == np.float64 else 1e-4
        norm = float(np.linalg.norm(dW_hh.astype(np.float64)))
        if not math.isclose(flow.loss, loss, rel_tol=tolerance):
            raise AssertionError(f"the flow's loss is {flow.loss}, that of loss_and_grads {loss}")
        if not math.isclose(flow.dWhh_norm, norm, rel_tol=tolerance):
            raise AssertionError(f"the flow's |dWhh| is {flow.dWhh_norm}, that of loss_and_grads {norm}")


def label(size):
    h, T, N, dtype = size
    return f"h{h} T{T} N{N} {dtype}"


@pytest.mark.parametrize("call", ["plain", "flow", "summary"])
@pytest.mark.parametrize("size", SIZES, ids=label)
def test_flow(benchmark, needs, backend, size, call):
    if backend == "numpy" and size[2] > 1:
        pytest.skip("the plain loops are not what is measured")
    needs(backend)
    case = Case(size, backend, num_threads=1)
    benchmark.group = f"diagnostics: {label(size)}"
    benchmark.extra_info.update(call=call, backend=backend)
    benchmark.pedantic(getattr(case, call), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("h", [64, 256])
def test_jacobian_norms(benchmark, needs, backend, h):
    needs(backend)
    model = LanguageModel(VOCABULARY, h, dtype=np.float64, rng=0, backend=backend)
    x = np.random.default_rng(0).integers(0, VOCABULARY, (64, 4))
    benchmark.group = f"diagnostics: jacobian_norms h{h}"
    benchmark.pedantic(diagnostics.jacobian_norms, (model, x), rounds=2)


def ratio(size, backend, num_threads, *, first, second, seconds=2.0):
    """Shortest times of two calls that take turns, in microseconds, and the median of their ratios."""
    case = Case(size, backend, num_threads)
    calls = getattr(case, first), getattr(case, second)
    times = [], []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 7:
        for call, found in zip(calls, times, strict=True):
            began = time.perf_counter()
            call()
            found.append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(*times, strict=True)]
    return 1e6 * min(times[0]), 1e6 * min(times[1]), statistics.median(ratios)


def main():
    print("microseconds: the shortest of calls that took turns; ratio: the median of theirs\n")
    print(f"{'size':<24} {'backend':<8} {'threads':>7}  {'loss_and_grads':>14} {'gradient_flow':>13} {'ratio':>6}"
          f"  {'train_step':>10} {'summary':>9} {'ratio':>6}")  # fmt: skip
    for size in SIZES:
        for backend in ("cython", "numba"):
            for num_threads in (1,) if size[2] == 1 else (1, 2):
                plain, flow, of_flow = ratio(size, backend, num_threads, first="plain", second="flow")
                step, summary, of_step = ratio(size, backend, num_threads, first="step", second="summary")
                print(
                    f"{label(size):<24} {backend:<8} {num_threads:>7}  {plain:>14.0f} {flow:>13.0f} "
                    f"{of_flow:>6.2f}  {step:>10.0f} {summary:>9.0f} {of_step:>6.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
