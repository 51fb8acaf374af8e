"""Calls of another copy of fastrnn, in a process of its own, that take turns with those of this one.

The process is told what to build, check and time by lines of JSON, and answers each with another; it clocks its calls
itself.  It loads the benchmarks of this folder, and fastrnn from the folder that it is given: a checkout whose kernels
were built in place, or a folder of installed packages.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from timing import Clocked, shortest_of_block

if TYPE_CHECKING:
    from few_contenders import Case, Expected


class ElsewhereError(Exception):
    """The other process could not do what it was told; the message says why."""


class Elsewhere:
    """A process with the fastrnn of `folder`, on the cores and with the limits of this one.

    Raises
    ------
    ElsewhereError
        If fastrnn is not in that folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        paths = [str(self._folder), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )  # fmt: skip
        try:
            package = Path(self._answer()["package"]).resolve()
            if package.parents[1] != self._folder:
                raise ElsewhereError(
                    f"there is no fastrnn in {self._folder}: it was found in {package.parents[1]}"
                )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # what was not sent before
            self._process.stdin.close()
        self._process.stdout.close()

    def forget(self) -> None:
        """Free all calls that were built."""
        self._ask({"forget": True})

    def checked_call(self, contender: str, case: Case, threads: int, expected: Expected) -> Clocked:
        """As `few_contenders.checked_call`; `expected` is what this copy gives.

        Raises
        ------
        ElsewhereError
            If the contender is not available there, or its result is another one.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "expected.npz"
            np.savez(file, *expected)
            told = {"contender": contender, "case": asdict(case), "threads": threads, "expected": str(file)}
            number = self._ask({"build": told})["number"]
        return _Call(self._ask, number)

    def _ask(self, told: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # there is no answer either
            print(json.dumps(told), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ElsewhereError(f"the process with the fastrnn of {self._folder} ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ElsewhereError(f"with the fastrnn of {self._folder}: {answer['error']}")
        return answer


class _Call(Clocked):
    def __init__(self, ask: Callable[[dict[str, Any]], dict[str, Any]], number: int) -> None:
        self._ask, self._number = ask, number

    def shortest_of_block(self, block: float) -> float:
        seconds: float = self._ask({"time": self._number, "block": block})["seconds"]
        return seconds


# -- the other process -----------------------------------------------------------------------------


def main() -> None:
    """Answer line by line until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no answer
    import fastrnn

    print(json.dumps({"package": fastrnn.__file__}), file=answers, flush=True)
    calls: list[Callable[[], Any]] = []
    gc.disable()
    for line in sys.stdin:
        try:
            answer = _done(json.loads(line), calls)
        except Exception as error:  # noqa: BLE001 - whoever asked raises it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
        gc.collect()


def _done(told: dict[str, Any], calls: list[Callable[[], Any]]) -> dict[str, Any]:
    if "time" in told:
        return {"seconds": shortest_of_block(calls[told["time"]], told["block"])}
    if "forget" in told:
        calls.clear()
        return {}
    import few_contenders

    build = told["build"]
    with np.load(build["expected"]) as arrays:
        expected = [arrays[name] for name in arrays.files]
    case = few_contenders.Case(**build["case"])
    calls.append(few_contenders.checked_call(build["contender"], case, build["threads"], expected))
    return {"number": len(calls) - 1}


if __name__ == "__main__":
    main()
