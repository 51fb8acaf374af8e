"""Running the command line, in processes of its own and in this one; terminals and interrupts."""

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

import fastrnn
from fastrnn.cli import main

FASTRNN = [sys.executable, "-m", "fastrnn"]


def environment(**more):
    env = dict(os.environ)
    # What a bare `python` would import here may be another copy than the one under test.
    root = str(Path(fastrnn.__file__).resolve().parent.parent)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH")]))
    env["FASTRNN_BACKEND"] = "numpy"
    env["PYTHONIOENCODING"] = "utf-8"
    return {**env, **more}


def run(*arguments, **more):
    """A process of its own; more may hold `input` (bytes), `cwd` and environment variables."""
    given, cwd = more.pop("input", b""), more.pop("cwd", None)
    done = subprocess.run(
        [*FASTRNN, *map(str, arguments)],
        input=given, env=environment(**more), cwd=cwd, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in done.stderr
    return done


def start(*arguments, **options):
    """A process that goes on running."""
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment()}
    return subprocess.Popen([*FASTRNN, *map(str, arguments)], **{**defaults, **options})


def invoke(*arguments, **options):
    """In this process, on the NumPy backend unless an option names another."""
    with fastrnn.use_backend("numpy"):
        return CliRunner().invoke(main, list(map(str, arguments)), **options)


def read_to_the_end(terminal):
    """What a program still shows on a pseudo-terminal until it ends."""
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # how Linux says that the other end is closed
            return shown
        if not piece:
            return shown
        shown += piece


def on_a_terminal(*arguments, stream, encoding="utf-8", **options):
    """Run with `stream` ("stdout" or "stderr") on a terminal; return what it shows, and the process."""
    import pty

    master, slave = pty.openpty()
    with start(*arguments, **{stream: slave}, **options) as process:
        os.close(slave)
        shown = read_to_the_end(master)
        process.communicate()
    os.close(master)
    return shown.decode(encoding).replace("\r\n", "\n"), process
