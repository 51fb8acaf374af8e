"""Build the optional Cython kernels; everything else about the package stands in pyproject.toml.

The environment variable ``FASTRNN_CYTHON`` says what happens to ``fastrnn.kernels.cython_kernels``:

========  ==========================================================================
unset     it is built where that is possible, and left out with its reason elsewhere
``1``     it is built, or the installation fails
``0``     it is left out
========  ==========================================================================

``FASTRNN_CFLAGS`` holds flags that come after ours, for the compiler and the linker: those of sanitizers and of
coverage (testing/).

On Windows ``FASTRNN_CLANG_CL=1`` compiles with clang-cl in place of MSVC, which has no vector extensions:
what MSVC builds handles one number at a time.  (GCC for Windows has them, and misaligns wide vectors on the
stack.)  What is compiled for Windows was checked with clang on Linux; this way as a whole was not tried on
Windows yet.

pip hides what a build prints, so the outcome is also written to ``build_info.json`` beside the
kernels, from where `fastrnn.show_config` reads it.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

NAME = "fastrnn.kernels.cython_kernels"
SOURCES = ["kernels/cython_kernels.pyx", "kernels/csrc/dispatch.c", "kernels/csrc/team.c"]
RECORD = "build_info.json"

#: errno and floating-point exceptions are never read, and keep gcc from vectorising tanh; pragmas of
#: OpenMP are honoured for SIMD only, without its threads; debug information would triple the file.
#: Neither -ffast-math (loading the library would flush denormals in the whole process) nor
#: -march=native (the wheel would not run elsewhere): the C code holds a version for each
#: instruction set and chooses when it is loaded.
FLAGS = {
    "unix": ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-g0"],
    "msvc": ["/O2", "/fp:precise", "/fp:except-"],
    "clang-cl": ["/clang:-O3", "/clang:-fno-math-errno", "/clang:-fno-trapping-math", "/clang:-fopenmp-simd"],
}
FLAGS["mingw32"] = FLAGS["unix"]
#: Systems whose threads are POSIX's; those of Windows need nothing.
THREADS = [] if os.name == "nt" else ["-pthread"]


def wanted(variable="FASTRNN_CYTHON"):
    """What an environment variable asks for: True, False, or None when it is unset."""
    value = os.environ.get(variable, "")
    if value not in ("", "0", "1"):
        raise SystemExit(f"{variable} must be 0, 1 or unset, got {value!r}")
    return {"": None, "0": False, "1": True}[value]


def use_clang_cl(compiler):
    """Let `compiler`, setuptools' for MSVC, call clang-cl; headers and linker stay Microsoft's."""
    if not compiler.initialized:
        compiler.initialize()
    found = shutil.which("clang-cl")
    if found is None:
        raise CompileError("FASTRNN_CLANG_CL=1 was set and there is no clang-cl on the PATH")
    compiler.cc = found


def extensions():
    """The extensions to build, and the reason when there are none.

    Returns
    -------
    list of Extension
    str or None
    """
    if wanted() is False:
        return [], "FASTRNN_CYTHON=0 was set when fastrnn was installed"
    try:
        import numpy
        from Cython.Build import cythonize

        extension = Extension(
            NAME,
            SOURCES,
            # An edited header rebuilds what includes it, and goes into the sdist.
            depends=sorted(
                path.as_posix()
                for path in [*Path("kernels/csrc").glob("*.h"), *Path("kernels").glob("*.pxi")]
            ),
            include_dirs=["kernels/csrc", numpy.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            libraries=[] if os.name == "nt" else ["m"],
            extra_link_args=THREADS,
        )
        built = cythonize([extension])
    except Exception as error:
        if wanted():
            raise
        return [], f"Cython could not translate the kernels: {type(error).__name__}: {error}"
    for extension in built:
        # Set here because cythonize() drops it.
        extension.optional = not wanted()
    return built, None


def write_record(folder, built, reason=None, compiler=None, flags=(), cython=None):
    """Write the outcome of the build to `folder`."""
    record = {"built": built, "reason": reason, "compiler": compiler, "flags": flags, "cython": cython}
    about = {"python": sysconfig.get_python_version(), "platform": sysconfig.get_platform()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).write_text(json.dumps({**record, **about}, indent=2) + "\n", encoding="utf-8")


def first_line(command):
    """First line of what ``command --version`` prints; the command's name when that fails."""
    try:
        shown = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
        return shown.stdout.splitlines()[0].strip()
    except (OSError, IndexError, subprocess.SubprocessError):
        return Path(command[0]).name


class BuildPython(build_py):
    """Copies the Python files; says why there are no compiled kernels when there is nothing to build."""

    def run(self):
        if not self.editable_mode:
            # Files that an earlier build left there would be installed too.
            shutil.rmtree(Path(self.build_lib, "fastrnn"), ignore_errors=True)
        super().run()
        if not self.distribution.ext_modules:
            folder = Path("kernels") if self.editable_mode else Path(self.build_lib, "fastrnn/kernels")
            remove_stale(folder)
            write_record(folder, built=False, reason=REASON)


class BuildKernels(build_ext):
    """Compiles the kernels; a failure leaves no older library behind, and is recorded."""

    def run(self):
        self.outcome = {"built": False, "reason": "the build did not get as far as the compiler"}
        try:
            super().run()
        finally:
            write_record(self.folder(self.inplace), **self.outcome)

    def folder(self, inplace):
        return Path("kernels") if inplace else Path(self.build_lib, "fastrnn/kernels")

    def build_extension(self, ext):
        kind = self.compiler.compiler_type
        if kind == "msvc" and wanted("FASTRNN_CLANG_CL"):
            kind = "clang-cl"
        more = os.environ.get("FASTRNN_CFLAGS", "").split()
        ext.extra_compile_args = [*FLAGS.get(kind, []), *THREADS, *more]
        ext.extra_link_args = [*THREADS, *more]
        command = (
            ["clang-cl"]
            if kind == "clang-cl"
            else list(getattr(self.compiler, "compiler_so", None) or ["cl"])
        )
        said = []
        try:
            if kind == "clang-cl":
                use_clang_cl(self.compiler)
            with standard_error_of_commands(said):
                super().build_extension(ext)
        except Exception as error:
            why = next((line for line in said if "error" in line), None) or short(error)
            reason = f"compiling with {Path(command[0]).name!r} failed: {why}"
            for inplace in (False, self.inplace or self.editable_mode):
                remove_stale(self.folder(inplace))
            print(f"fastrnn: the Cython kernels were not built: {reason}", file=sys.stderr, flush=True)
            self.outcome = {"built": False, "reason": reason}
            # The kind of error that setuptools lets pass when the extension is optional.
            raise CompileError(reason) from error
        import Cython

        self.outcome = {
            "built": True,
            "compiler": first_line(command[:1]) if kind != "msvc" else "MSVC",
            "flags": ext.extra_compile_args,
            "cython": Cython.__version__,
        }


@contextlib.contextmanager
def standard_error_of_commands(lines):
    """Add to `lines` what this process and the commands it runs print to standard error, and print it."""
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            caught.seek(0)
            text = caught.read().decode(errors="replace")
            lines += text.splitlines()
            print(text, end="", file=sys.stderr, flush=True)


def short(error):
    """The message of `error`; of a command that failed only its name and status."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error.cmd[0]!r} ended with status {error.returncode}"
    return str(error)


def remove_stale(folder):
    """Delete the library that an earlier build for this Python left in `folder`."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    (folder / f"{NAME.rpartition('.')[2]}{suffix}").unlink(missing_ok=True)


EXTENSIONS, REASON = extensions()
if REASON:
    print(f"fastrnn: the Cython kernels are not built: {REASON}", file=sys.stderr, flush=True)

setup(ext_modules=EXTENSIONS, cmdclass={"build_py": BuildPython, "build_ext": BuildKernels})
