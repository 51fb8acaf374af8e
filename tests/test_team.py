"""The teams of threads in C: a program that drives them hard, in several builds."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import support

from fastrnn import BackendUnavailable, backends

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [ROOT / "tests/team/harness.c", ROOT / "kernels/csrc/team.c"]
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'kernels/csrc'}"]
SANITIZED = ["-g", "-fsanitize=thread"]
SECONDS = 3

#: Flags of each build, and what is given to the program beside seconds and seed.  (The runtime of the thread
#: sanitizer cannot start threads after a fork.)
BUILDS = {
    "plain": ([], []),
    "without futex": (["-DFASTRNN_NO_FUTEX"], []),
    "sanitized": (SANITIZED, ["without-forks"]),
    "sanitized without futex": ([*SANITIZED, "-DFASTRNN_NO_FUTEX"], ["without-forks"]),
}


def lack(reason):
    """Fail in CI, skip elsewhere."""
    if support.IN_CI:
        pytest.fail(f"required here: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def compiler():
    """The system's C compiler."""
    if sys.platform == "win32":
        pytest.skip("the program forks, which Windows does not")
    configured = (sysconfig.get_config_var("CC") or "").split()[:1]
    found = next(filter(None, map(shutil.which, [*configured, "cc", "gcc", "clang"])), None)
    if found is None:
        lack("there is no C compiler")
    return found


def build(compiler, flags, sources, program):
    """Compile without a warning, or fail with what the compiler said."""
    made = subprocess.run(
        [compiler, *FLAGS, *flags, *sources, "-pthread", "-o", program], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr


def require_the_sanitizer(compiler, folder):
    """Some systems lack its runtime, or place memory where it cannot work."""
    source, program = folder / "empty.c", folder / "empty"
    source.write_text("int main(void) { return 0; }\n")
    made = subprocess.run([compiler, *SANITIZED, source, "-o", program], capture_output=True)
    if made.returncode or subprocess.run([program], capture_output=True).returncode:
        lack("the thread sanitizer does not work")


@pytest.mark.few(1)
@pytest.mark.parametrize("name", BUILDS)
def test_hard_driven_teams_leave_right_numbers(name, compiler, tmp_path):
    flags, given = BUILDS[name]
    if "sanitized" in name:
        require_the_sanitizer(compiler, tmp_path)
    build(compiler, flags, SOURCES, tmp_path / "harness")
    seed = int.from_bytes(os.urandom(3), "little")
    ran = subprocess.run(
        [tmp_path / "harness", str(SECONDS), str(seed), *given], capture_output=True, text=True
    )
    assert ran.returncode == 0, f"seed {seed}: {ran.stdout}{ran.stderr}"
    assert ran.stdout.rstrip().endswith("faults 0")


def test_no_pointer_without_a_type_is_moved(compiler):
    """It would move by bytes: the loops' arrays come as void pointers."""
    build(
        compiler,
        ["-Wpointer-arith", "-fopenmp-simd", "-fsyntax-only"],
        [ROOT / "kernels/csrc/dispatch.c"],
        os.devnull,
    )


@pytest.mark.parametrize("cross_compiler", ["x86_64-w64-mingw32-gcc", "aarch64-linux-gnu-gcc"])
def test_other_systems_compile_it(cross_compiler, tmp_path):
    found = shutil.which(cross_compiler)
    if found is None:
        pytest.skip(f"{cross_compiler} is not installed")
    build(found, ["-c"], SOURCES[1:], tmp_path / "team.o")


@pytest.mark.skipif(sys.platform != "linux", reason="forks and stops as Linux has them")
@pytest.mark.parametrize("calls", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_calls_among_forks_signals_and_stops(calls):
    """From Python, in three threads at once: no hang, and the bits of one thread."""
    try:
        backends.load("cython")
    except BackendUnavailable as error:
        lack(str(error))
    ran = subprocess.run(
        [sys.executable, ROOT / "tests/team/soak.py", str(calls), "1"],
        capture_output=True, text=True, timeout=200 + calls / 2,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "wrong: []" in ran.stdout
