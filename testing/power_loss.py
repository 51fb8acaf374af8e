"""What a folder may hold after a loss of power, worked out from the calls that changed it.

A disk need not have what was not forced to it.  Of data that were written since the last ``fsync`` of their file all,
none or a half may be there, or zeros in their place; of names that were made, moved or removed since the last ``fsync`` of the folder any, each
change wholly or not at all.  (POSIX promises no more.  Usual file systems keep changes in their order.)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

#: Changes of names that are tried in every combination; of more, those in order.
MOST_COMBINED = 8


@dataclass(eq=False)
class File:
    """Content of a file, by any name."""

    forced: bytes = b""
    now: bytes = b""

    def contents(self) -> tuple[bytes, ...]:
        half = (len(self.forced) + len(self.now)) // 2
        zeros = self.forced + b"\0" * (len(self.now) - len(self.forced))
        return (self.forced, self.now[:half], zeros, self.now)


@dataclass
class Disk:
    """A folder and what of it is on the disk for certain.

    Attributes
    ----------
    folder : str
    forced : dict of str to File
        Names that outlive a loss of power.
    changes : list of dict of str to (File or None)
        Names since then, in their order; None takes one away.
    """

    folder: str
    forced: dict[str, File]
    changes: list[dict[str, File | None]] = field(default_factory=list)
    descriptors: dict[int, File | None] = field(default_factory=dict)

    @classmethod
    def holding(cls, folder: str, files: Mapping[str, bytes]) -> Disk:
        return cls(folder, {name: File(content, content) for name, content in files.items()})

    def names(self, changes: list[dict[str, File | None]]) -> dict[str, File]:
        names: dict[str, File | None] = dict(self.forced)
        for change in changes:
            names |= change
        return {name: file for name, file in names.items() if file is not None}

    def call(self, line: str) -> None:
        """Take one line of the log of ``faults.c``."""
        kind, *words = line.split(" ")
        getattr(self, f"_{kind}", lambda *_: None)(*words)

    def _open(self, descriptor: str, path: str, made: str, cut: str) -> None:
        if path == self.folder:
            self.descriptors[int(descriptor)] = None
            return
        name = PurePath(path).name
        if made == "1":
            self.changes.append({name: File()})
        self.descriptors[int(descriptor)] = file = self.names(self.changes)[name]
        if cut == "1":
            file.now = b""

    def _write(self, descriptor: str, at: str, written: str) -> None:
        file, place, new = self.descriptors[int(descriptor)], int(at), bytes.fromhex(written)
        assert file is not None
        file.now = file.now[:place].ljust(place, b"\0") + new + file.now[place + len(new) :]

    def _fsync(self, descriptor: str) -> None:
        file = self.descriptors[int(descriptor)]
        if file is None:
            self.forced, self.changes = self.names(self.changes), []
        else:
            file.forced = file.now

    def _rename(self, old: str, new: str) -> None:
        old, new = PurePath(old).name, PurePath(new).name
        self.changes.append({old: None, new: self.names(self.changes)[old]})

    def _link(self, old: str, new: str) -> None:
        self.changes.append({PurePath(new).name: self.names(self.changes)[PurePath(old).name]})

    def _unlink(self, path: str) -> None:
        self.changes.append({PurePath(path).name: None})

    def now(self) -> dict[str, bytes]:
        """Files as they are while there is power."""
        return {name: file.now for name, file in self.names(self.changes).items()}

    def outcomes(self) -> Iterator[dict[str, bytes]]:
        """Files that may be there if power is lost now."""
        changes = self.changes
        if len(changes) > MOST_COMBINED:
            chosen = [list(changes[:n]) for n in range(len(changes) + 1)]
        else:
            chosen = [
                list(itertools.compress(changes, mask))
                for mask in itertools.product((0, 1), repeat=len(changes))
            ]
        for some, how in itertools.product(chosen, range(len(File().contents()))):
            yield {name: file.contents()[how] for name, file in self.names(some).items()}
