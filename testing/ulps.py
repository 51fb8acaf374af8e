"""How far tanh, sigmoid and exp of each backend are from the true value, in units in the last place (ulp).

    python testing/ulps.py                  # every float32 there is, every exponent of float64; minutes
    python testing/ulps.py --quick          # each 257th float32, fewer float64; seconds
    python testing/ulps.py --backend numba  # of one backend

The error of a result is |result - true| / ulp, with the ulp of the true value once it is rounded; of
subnormal numbers and zero that is the smallest subnormal.  Infinity counts as the power of two behind the
largest number, and so does what is true beyond it.  The true values are NumPy's functions in the next wider
type: float64 for float32, long double for float64, where it is wider.

Status 1: an error above its limit in `LIMITS`, a NaN that is lost or made, a wrong value at infinity or zero,
or a result beyond 1 of tanh or sigmoid.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import page

from fastrnn import BackendUnavailable, backends

Array = np.ndarray[Any, Any]

#: Elements that are computed at once: they stay in a processor's cache, and the last are no whole vector.
BLOCK = (1 << 17) - 1

#: float32: every so manieth pattern of bits with --quick.
STRIDE = 257

#: float64: mantissas for each exponent, also with --quick; how many times that where no function is a line,
#: and where they are worst: there a few of a million tell.
MANTISSAS, QUICK_MANTISSAS = 2000, 32
MORE = {range(1023 - 32, 1023 + 11): 25, range(1023 - 5, 1023 + 4): 1000}

#: Most ulps.  Of the compiled backends what their sources claim, and for exp, where half is enough, half.  Of
#: NumPy what its authors allow themselves on any processor, 4 ulp, and one more for the division of the
#: sigmoid; its sigmoid of float32 is computed in float64, and rounded once.
COMPILED = {"tanh": 2.5, "sigmoid": 2.5, "exp": 1.25}
COMPILED_DOUBLE = COMPILED | {"tanh": 2.8}
LIMITS = {
    ("cython", "float32"): COMPILED,
    ("cython", "float64"): COMPILED_DOUBLE,
    ("numba", "float32"): COMPILED,
    ("numba", "float64"): COMPILED_DOUBLE,
    ("numpy", "float32"): {"tanh": 4.0, "sigmoid": 0.501, "exp": 4.0},
    ("numpy", "float64"): {"tanh": 4.0, "sigmoid": 5.0, "exp": 4.0},
}

#: Results that must be exact, to the sign of zero: at -inf, -0, 0, inf.
EXACT_AT = (-np.inf, -0.0, 0.0, np.inf)
EXACT = {
    "tanh": (-1.0, -0.0, 0.0, 1.0),
    "sigmoid": (0.0, 0.5, 0.5, 1.0),
    "exp": (0.0, 1.0, 1.0, np.inf),
}


# ---- the kernels ----------------------------------------------------------------------------------------


class Worker:
    """A backend in a process of its own: the instruction set is chosen when the kernels are loaded."""

    def __init__(self, backend: str, level: str) -> None:
        self.backend = backend
        self.name = f"{backend} {level}".strip()
        context = multiprocessing.get_context("spawn")
        memory = context.RawArray("b", 8 * BLOCK)
        self._memory = np.frombuffer(memory, np.uint8)
        self._pipe, end = context.Pipe()
        process = context.Process(target=serve, args=(backend, level, memory, end), daemon=True)
        with simd(level):
            process.start()
        end.close()
        self._pipe.recv()

    def begin(self, function: str, x: Array) -> None:
        """Have it compute a block, while others do so too."""
        self._results = self._memory[: x.nbytes].view(x.dtype)
        self._results[...] = x
        self._pipe.send((function, x.dtype.name, len(x)))

    def results(self) -> Array:
        """Of what was begun; the next block overwrites them."""
        self._pipe.recv()
        return self._results

    def close(self) -> None:
        self._pipe.close()


@contextlib.contextmanager
def simd(level: str) -> Iterator[None]:
    """The instruction set of processes that start now."""
    before = os.environ.get("FASTRNN_SIMD")
    if level:
        os.environ["FASTRNN_SIMD"] = level
    try:
        yield
    finally:
        if before is not None:
            os.environ["FASTRNN_SIMD"] = before
        elif level:
            del os.environ["FASTRNN_SIMD"]


def serve(backend: str, level: str, memory: Any, pipe: Connection) -> None:
    """Of a worker's process: compute in place what is in the memory, whenever it is told to."""
    kernels = backends.load(backend)
    if level and kernels.simd_level() != level:
        raise SystemExit(f"asked for {level}, got {kernels.simd_level()}")
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            function, dtype, n = pipe.recv()
            getattr(kernels, function)(np.frombuffer(memory, dtype, n))
            pipe.send("done")


def start_workers(names: list[str]) -> list[Worker]:
    """One for each backend that is here, of Cython for each instruction set."""
    workers = []
    for name in names:
        try:
            kernels = backends.load(name)
        except BackendUnavailable as error:
            print(f"{name}: not here: {error}")
            continue
        levels = kernels.simd_levels() if name == "cython" else []
        workers += [Worker(name, level) for level in levels or [""]]
    return workers


# ---- arguments ------------------------------------------------------------------------------------------
#
# Blocks of numbers of one sign, in the order of their magnitudes: along a block every function is monotone.


def float32_blocks(stride: int, first: int = 0, last: int = 0x7F800000) -> Iterator[Array]:
    """Every `stride`-th pattern of bits, of both signs: the finite numbers, or others."""
    steps = np.arange(0, BLOCK * stride, stride, dtype=np.uint32)
    for sign in (0, 0x80000000):
        for start in range(first, last, BLOCK * stride):
            count = min(BLOCK, -(-(last - start) // stride))
            yield (steps[:count] + np.uint32(sign + start)).view(np.float32)


def float64_blocks(mantissas: int) -> Iterator[Array]:
    """Of each exponent, of both signs, the first, the last and random numbers; see `MORE`."""
    rng = np.random.default_rng(0)
    together = max(BLOCK // mantissas, 1)
    groups = [(range(e, min(e + together, 2047)), mantissas) for e in range(0, 2047, together)]
    groups += [(range(e, e + 1), mantissas * more) for exponents, more in MORE.items() for e in exponents]
    for sign in (0, 1 << 63):
        for exponents, count in groups:
            bits = rng.integers(0, 1 << 52, (len(exponents), count), dtype=np.uint64)
            bits[:, 0], bits[:, -1] = 0, (1 << 52) - 1
            bits.sort(axis=1)
            bits |= (np.array(exponents, np.uint64) << np.uint64(52))[:, None] | np.uint64(sign)
            x = bits.reshape(-1).view(np.float64)
            yield from (x[start : start + BLOCK] for start in range(0, len(x), BLOCK))


# ---- true values ----------------------------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    """Of a block of one sign, without cancellation."""
    e = np.exp(-np.abs(x))
    top = e if np.signbit(x[0]) else np.ones_like(e)
    result: Array = top / (1 + e)
    return result


TRUE: dict[str, Callable[[Array], Array]] = {"tanh": np.tanh, "sigmoid": sigmoid, "exp": np.exp}


@dataclasses.dataclass
class Format:
    """A type of numbers, and the wider one in which it is measured."""

    dtype: type[np.floating[Any]]
    wide: type[np.floating[Any]]

    def __post_init__(self) -> None:
        info = np.finfo(self.dtype)
        self.name = np.dtype(self.dtype).name
        self.integer = np.dtype(f"i{np.dtype(self.dtype).itemsize}")
        self.bits = info.nmant
        self.smallest, self.normal = self.wide(info.smallest_subnormal), info.smallest_normal
        self.power = info.dtype.type(2) ** (info.maxexp - 1)
        self.beyond = self.wide(self.power) * 2  # the power of two behind the largest number
        self.exponent = np.array(np.inf, self.dtype).view(self.integer)[()]


class Block:
    """Arguments of one sign, and what is true of them."""

    def __init__(self, function: str, kind: Format, x: Array) -> None:
        self.kind, self.x = kind, x
        self.true = TRUE[function](x.astype(kind.wide))
        self.rounded = self.true.astype(kind.dtype)
        self.side = bool(np.signbit(x[0]))

    @functools.cached_property
    def ulps_in_one(self) -> Array:
        """1 / ulp of each true value when it is rounded."""
        kind = self.kind
        powers = self.rounded.view(kind.integer) & kind.exponent
        lowest, highest = np.array([kind.normal, kind.power], kind.dtype).view(kind.integer)
        np.clip(powers, lowest, highest, out=powers)
        result: Array = kind.wide(2) ** kind.bits / powers.view(kind.dtype).astype(kind.wide)
        return result

    def is_best(self, got: Array) -> bool:
        """Whether all are the true values, rounded: none of them is further off than half an ulp."""
        integer = self.kind.integer
        return np.array_equal(got.view(integer), self.rounded.view(integer))

    def errors(self, got: Array) -> Array:
        """In ulps; infinity for a NaN."""
        beyond = self.kind.beyond
        error = np.clip(got.astype(self.kind.wide), -beyond, beyond)
        error -= np.minimum(self.true, beyond)
        error *= self.ulps_in_one
        np.abs(error, out=error)
        error[np.isnan(error)] = np.inf
        return error

    def flushed(self, got: Array) -> bool:
        """Whether results are zero that should be subnormal."""
        ends = np.abs(self.true[[0, -1]])
        if ends.min() >= self.kind.normal or ends.max() < self.kind.smallest:
            return False
        return bool(((got == 0) & (np.abs(self.true) >= self.kind.smallest)).any())


# ---- measuring ------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Record:
    """What was found of one function of one worker."""

    ulps: dict[bool, float] = dataclasses.field(default_factory=lambda: {True: -1.0, False: -1.0})
    at: dict[bool, float] = dataclasses.field(default_factory=dict)  # by the sign bit of the argument
    flushed: bool = False
    faults: dict[str, str] = dataclasses.field(default_factory=dict)  # the first of each kind

    def worst(self) -> tuple[float, float]:
        """Ulps, and where."""
        return max((self.ulps[side], self.at[side]) for side in self.at)

    def add(self, block: Block, got: Array) -> None:
        """Compare a block; where all are best, so half an ulp at most, there is nothing worse than before."""
        if self.ulps[block.side] > 0.499 and block.is_best(got):
            return
        error = block.errors(got)
        place = error.argmax()
        if error[place] > self.ulps[block.side]:
            self.ulps[block.side], self.at[block.side] = float(error[place]), float(block.x[place])
        self.flushed |= block.flushed(got)

    def check_range(self, x: Array, got: Array) -> None:
        """tanh and sigmoid beyond 1 would make slopes such as 1 - h^2 negative."""
        if got.max() > 1 or got.min() < -1:
            place = np.abs(got).argmax()
            text = f"{float(x[place]).hex()} gives {float(got[place]).hex()}, beyond 1"
            self.faults.setdefault("range", text)

    def check_exact(self, function: str, kind: Format, worker: Worker) -> None:
        x = np.array(EXACT_AT, kind.dtype)
        worker.begin(function, x)
        got, wanted = worker.results(), np.array(EXACT[function], kind.dtype)
        wrong = (got.view(kind.integer) != wanted.view(kind.integer)).nonzero()[0]
        for i in wrong:
            self.faults[f"at {x[i]}"] = f"{x[i]} gives {float(got[i]).hex()}, not {wanted[i]}"

    def check_nans(self, x: Array, got: Array) -> None:
        lost = (~np.isnan(got)).nonzero()[0]
        if len(lost):
            bits = int(x.view(f"u{x.itemsize}")[lost[0]])
            self.faults.setdefault("NaN", f"NaN {bits:#x} gives {float(got[lost[0]]).hex()}")


def nan_blocks(kind: Format, stride: int) -> Iterator[Array]:
    """Every `stride`-th NaN of float32; of float64 quiet and signalling ones, and random ones."""
    if kind.dtype is np.float32:
        yield from float32_blocks(stride, 0x7F800001, 0x80000000)
        return
    bits = np.random.default_rng(1).integers(1, 1 << 52, 1000, dtype=np.uint64)
    bits[:3] = 1, 1 << 51, (1 << 52) - 1
    for sign in (0, 1 << 63):
        yield (bits | np.uint64(sign + (0x7FF << 52))).view(np.float64)


def measure(function: str, kind: Format, workers: list[Worker], quick: bool) -> list[Record]:
    """Everything about one function in one type, for each worker."""
    records = [Record() for _ in workers]
    stride = STRIDE if quick else 1
    if kind.dtype is np.float32:
        blocks = float32_blocks(STRIDE)
        if not quick:  # the few before, so that the worst is soon known: see `Record.add`
            blocks = itertools.chain(blocks, float32_blocks(1))
    else:
        blocks = float64_blocks(QUICK_MANTISSAS if quick else MANTISSAS)
    for x in blocks:
        for worker in workers:
            worker.begin(function, x)
        block = Block(function, kind, x)
        for record, worker in zip(records, workers, strict=True):
            got = worker.results()
            record.add(block, got)
            if function != "exp":
                record.check_range(x, got)
    for x in nan_blocks(kind, stride):
        for record, worker in zip(records, workers, strict=True):
            worker.begin(function, x)
            record.check_nans(x, worker.results())
    for record, worker in zip(records, workers, strict=True):
        record.check_exact(function, kind, worker)
        ulps, at = record.worst()
        limit = LIMITS[worker.backend, kind.name][function]
        if not ulps <= limit:
            record.faults["limit"] = f"{ulps:.4g} ulp at {at.hex()}, the limit is {limit}"
    return records


# ---- the report -----------------------------------------------------------------------------------------


def line(function: str, kind: Format, worker: Worker, record: Record) -> str:
    """One line of the report, and one for each fault."""
    ulps, at = record.worst()
    text = f"{worker.name:16}{kind.name:9}{function:8}{ulps:8.4f} ulp at {at.hex()}"
    if function == "exp":
        sides = (f"x {'<= 0' if side else '> 0'}: {record.ulps[side]:.4f}" for side in (True, False))
        text += f" ({', '.join(sides)})"
    if record.flushed:
        text += "; flushes subnormal results to zero"
    return "\n".join([text, *(f"    FAULT: {fault}" for fault in record.faults.values())])


def formats() -> list[Format]:
    """float64 is measured only where long double is wider."""
    kinds = [Format(np.float32, np.float64)]
    if np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant:
        kinds.append(Format(np.float64, np.longdouble))
    else:
        print("float64: not measured, long double is no wider here")
    return kinds


def run(workers: list[Worker], quick: bool) -> tuple[list[list[object]], int]:
    """Measure and print; rows of the table, and the number of faults."""
    cells: dict[tuple[str, str], list[str]] = {}
    faults = 0
    for kind in formats():
        for function in TRUE:
            for worker, record in zip(workers, measure(function, kind, workers, quick), strict=True):
                print(line(function, kind, worker, record), flush=True)
                faults += len(record.faults)
                limit = LIMITS[worker.backend, kind.name][function]
                cell = f"{record.worst()[0]:.3f} of {limit}"
                cells.setdefault((worker.name, kind.name), []).append(cell)
    return [[*names, *row] for names, row in cells.items()], faults


def main() -> int:
    parser = page.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help=f"each {STRIDE}th float32, fewer float64")
    parser.add_argument("--backend", choices=backends.BACKENDS, help="only this one")
    arguments = parser.parse_args()
    start = time.perf_counter()
    workers = start_workers([arguments.backend] if arguments.backend else list(backends.BACKENDS))
    if not workers:
        return 1
    with np.errstate(all="ignore"):
        rows, faults = run(workers, arguments.quick)
    for worker in workers:
        worker.close()
    print(f"{faults} faults, {time.perf_counter() - start:.0f} s")
    if arguments.write:
        said = "The largest error in units in the last place, of the most that is allowed.\n\n"
        page.write("ulps", said + page.table(["Kernels", "Type", *TRUE], rows, left=2))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
