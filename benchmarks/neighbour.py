"""Another process that keeps a core busy while something is measured."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

#: Its second thread waits for the end of the pipe, which comes even where the measuring process is killed.
_SPIN = """\
import os, sys, threading

def watch():
    sys.stdin.buffer.read()
    os._exit(0)

threading.Thread(target=watch, daemon=True).start()
print("busy", flush=True)
while True:
    pass
"""


@contextlib.contextmanager
def busy_neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing but count its time, on the cores that this one may use, until the block ends.

    Raises
    ------
    RuntimeError
        If it did not start, or ended before the block did: what was measured had no neighbour.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _SPIN],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != b"busy":
            raise RuntimeError("the busy neighbour did not start")
        yield process
        if process.poll() is not None:
            raise RuntimeError("the busy neighbour ended before the measurement did")
    finally:
        process.kill()
        process.communicate()
