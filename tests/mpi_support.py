"""Programs that several ranks run under mpiexec."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import package_environment

#: An error, not a skip, where it is missing.
REQUIRED = os.environ.get("FASTRNN_REQUIRE_MPI") == "1"

PROGRAMS = Path(__file__).parent / "mpi"

FASTRNN = [sys.executable, "-m", "fastrnn"]


def mpiexec():
    """The command; skips where there is none."""
    need("mpi4py")
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("mpiexec", path=places)
    if found is None:
        missing("mpiexec")
    return found


def need(package):
    """Skip what runs only with a package."""
    if importlib.util.find_spec(package) is None:
        missing(package)


def missing(what):
    """Skip, or fail where it must be there."""
    tell = pytest.fail if REQUIRED else pytest.skip
    tell(f"{what} is missing, of: pip install 'fastrnn[mpi]' dask distributed")


def start(n, *command, **options):
    """`n` ranks of a command that goes on running."""
    environment = package_environment(OMP_NUM_THREADS="1", **options.pop("environment", {}))
    return subprocess.Popen(
        [mpiexec(), "-n", str(n), *map(str, command)], env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def run(n, *command, timeout=150, **options):
    """What `n` ranks of a command did: exit status, standard output, standard error, seconds."""
    began = time.monotonic()
    with start(n, *command, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            out, err = process.communicate()
            pytest.fail(f"the ranks hang:\n{out}\n{err}")
    return process.returncode, out, err, time.monotonic() - began


def results(n, program, *arguments, **options):
    """What rank 0 of a program of `tests/mpi` prints as JSON."""
    status, out, err, _ = run(n, sys.executable, PROGRAMS / program, *arguments, **options)
    assert status == 0, err
    assert not err, err
    return json.loads(out)
