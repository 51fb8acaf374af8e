"""How much of a file the tests reached, and sums of that."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: Total name -> how the names of its files begin and end.
TOTALS = {
    "fastrnn/": ("fastrnn/", ".py"),
    "kernels/*.py": ("kernels/", ".py"),
    "kernels/csrc/": ("kernels/csrc/", ""),
}


@dataclass
class Reached:
    """A file: of how many lines or branches how many were reached, and which were not."""

    file: str
    count: int
    reached: int
    lines: Sequence[int] = ()
    branches: Sequence[str] = field(default_factory=list)

    @property
    def percent(self) -> float:
        return 100 * self.reached / self.count if self.count else 100.0

    def row(self) -> list[object]:
        # Cut, not rounded: what is below the goal looks so.
        return [self.file, self.count, f"{int(self.percent * 10) / 10:.1f}"]

    def missing(self) -> str:
        return ", ".join([*ranges(self.lines), *self.branches])


def ranges(lines: Iterable[int]) -> list[str]:
    """Numbers of lines, those that follow one another as one."""
    spans = []
    for _, group in itertools.groupby(enumerate(sorted(lines)), lambda pair: pair[1] - pair[0]):
        first, *rest = [line for _, line in group]
        spans.append(f"{first}-{rest[-1]}" if rest else f"{first}")
    return spans


def totals(files: Iterable[Reached]) -> list[Reached]:
    """The sums of those folders of which there are files."""
    files = list(files)
    sums = []
    for name, (begin, end) in TOTALS.items():
        some = [f for f in files if f.file.startswith(begin) and f.file.endswith(end)]
        if some:
            sums.append(Reached(name, sum(f.count for f in some), sum(f.reached for f in some)))
    return sums
