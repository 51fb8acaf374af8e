"""Real installations in fresh virtual environments: with and without a compiler, regular and editable.

Most take minutes and fetch the dependencies, so ``pytest --slow tests/test_install.py`` runs them.
"""

import json
import os
import runpy
import shutil
import subprocess
import sysconfig
import types
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Folder to start in -> path from there to the tests' folder.
FOLDERS = ["root", "tests", "elsewhere"]

COMMANDS = {
    "import": ["python", "-c", "import fastrnn; print(fastrnn.SimpleRNN(2, 3, 2).num_parameters)"],
    "python -m fastrnn": ["python", "-m", "fastrnn", "--help"],
    "fastrnn": ["fastrnn", "--help"],
    "pytest": ["pytest", "-q", "TESTS/test_reference.py"],
    "python -m pytest": ["python", "-m", "pytest", "-q", "TESTS/test_reference.py"],
}


class Installation:
    """A copy of the checkout and a virtual environment in which it was installed."""

    def __init__(self, folder, *, editable, **environment):
        self.root = copy_checkout(folder / "checkout")
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        self.environment = {"CI": "", **environment}
        venv.create(folder / "venv", with_pip=True)
        self.bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.run(["pip", "install", "-q", *(["-e"] if editable else []), f"{self.root}[test]"])

    def run(self, command, folder="elsewhere", succeeds=True):
        """Standard output of a command of the virtual environment, run in one of `FOLDERS`."""
        start = {"root": self.root, "tests": self.root / "tests", "elsewhere": self.elsewhere}[folder]
        done = subprocess.run(
            [shutil.which(command[0], path=self.bin), *command[1:]],
            cwd=start,
            # No FASTRNN_* or PYTHONPATH of the session that runs these tests.
            env={
                **{
                    name: value
                    for name, value in os.environ.items()
                    if not name.startswith(("FASTRNN", "PYTHON"))
                },
                **self.environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
        assert (done.returncode == 0) is succeeds, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def config(self, folder="elsewhere"):
        code = "import fastrnn, json; print(json.dumps(fastrnn.show_config(mode='dict')))"
        return json.loads(self.run(["python", "-c", code], folder))


def copy_checkout(target):
    """Copy what belongs to the sources, and nothing that a build in the checkout has left."""
    made = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis",
        "*.so", "*.pyd", "*.nbi", "*.nbc", "cython_kernels.c", "build_info.json",
    )  # fmt: skip
    return shutil.copytree(ROOT, target, ignore=made)


@pytest.fixture(scope="module")
def regular(tmp_path_factory):
    return Installation(tmp_path_factory.mktemp("regular"), editable=False, FASTRNN_CYTHON="1")


@pytest.fixture(scope="module")
def editable(tmp_path_factory):
    return Installation(tmp_path_factory.mktemp("editable"), editable=True, FASTRNN_CYTHON="1")


@pytest.fixture(scope="module")
def without_compiler(tmp_path_factory):
    return Installation(tmp_path_factory.mktemp("without"), editable=False, CC="/bin/false")


@pytest.fixture(params=["regular", "editable", "without_compiler"])
def installation(request):
    return request.getfixturevalue(request.param)


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("command", COMMANDS)
def test_works_from(installation, folder, command):
    tests = str(installation.root / "tests")
    out = installation.run([part.replace("TESTS", tests) for part in COMMANDS[command]], folder)
    if command == "import":
        assert out == "26\n"
    elif "pytest" in command:
        assert " passed" in out
        assert "failed" not in out
    else:
        assert "Usage: " in out


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_editable_has_every_backend_everywhere(editable, folder):
    config = editable.config(folder)
    assert config["backend"] == "cython"
    assert all(found["available"] for found in config["backends"].values())


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["tests", "elsewhere"])
def test_regular_has_every_backend(regular, folder):
    config = regular.config(folder)
    assert config["backend"] == "cython"
    assert all(found["available"] for found in config["backends"].values())
    assert "-O3" in config["backends"]["cython"]["detail"] or os.name == "nt"


@pytest.mark.slow
def test_regular_install_tests_itself_in_the_checkout(regular):
    """`python -m pytest` in the root must find the installed kernels, not ./fastrnn without them."""
    probe = regular.root / "tests" / "test_probe.py"
    probe.write_text("import fastrnn\n\ndef test_backend():\n    assert fastrnn.backend() == 'cython'\n")
    try:
        regular.run(["python", "-m", "pytest", "-q", "tests/test_probe.py"], "root")
        regular.run(["pytest", "-q", "tests/test_probe.py"], "root")
    finally:
        probe.unlink()


@pytest.mark.slow
def test_shadowed_install_says_so(regular):
    config = regular.config("root")
    assert config["backend"] == "numba"
    assert "where it was not built" in config["backends"]["cython"]["detail"]


@pytest.mark.slow
def test_without_compiler_runs_on_numba_and_says_why(without_compiler):
    config = without_compiler.config()
    assert config["backend"] == "numba"
    assert config["backends"]["cython"] == {
        "available": False,
        "detail": "compiling with 'false' failed: '/bin/false' ended with status 1",
    }


@pytest.mark.slow
def test_nothing_but_the_package_is_installed(regular):
    site = Path(
        regular.run(["python", "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"]).strip()
    )
    assert not (site / "kernels").exists()
    assert not (site / "tests").exists()
    suffixes = {path.suffix for path in (site / "fastrnn").rglob("*") if path.is_file()}
    assert suffixes <= {
        ".py",
        ".pyc",
        ".typed",
        ".json",
        ".nbi",
        ".nbc",
        Path(sysconfig.get_config_var("EXT_SUFFIX")).suffix,
    }


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["1", "yes"], ids=["what fails", "nonsense"])
def test_an_installation_that_is_refused(asked, without_compiler):
    """A build that fails where it is asked for, and a request that means nothing."""
    without_compiler.environment["FASTRNN_CYTHON"] = asked
    try:
        without_compiler.run(["pip", "install", "--no-deps", str(without_compiler.root)], succeeds=False)
    finally:
        del without_compiler.environment["FASTRNN_CYTHON"]
    assert without_compiler.config()["backend"] == "numba"


@pytest.mark.slow
def test_a_build_without_vectors_prefers_numba(tmp_path):
    """As MSVC builds the kernels: they work, and are the second choice."""
    config = Installation(tmp_path, editable=False, FASTRNN_CYTHON="1", CFLAGS="-DFASTRNN_SCALAR").config()
    assert config["backend"] == "numba"
    assert config["simd"] == "scalar"
    assert config["backends"]["cython"]["available"]


@pytest.fixture
def setup_file(monkeypatch):
    """Names of setup.py, which runs without building anything."""
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.setattr(setuptools, "setup", lambda **options: None)
    monkeypatch.setenv("FASTRNN_CYTHON", "0")
    monkeypatch.chdir(ROOT)
    return runpy.run_path("setup.py")


def test_clang_cl_takes_the_place_of_the_compiler_alone(setup_file, monkeypatch):
    compiler = types.SimpleNamespace(cc=None, linker=None, initialized=False)

    def initialize():
        compiler.cc, compiler.linker, compiler.initialized = "cl.exe", "link.exe", True

    compiler.initialize = initialize
    monkeypatch.setattr(shutil, "which", lambda name: f"C:/LLVM/{name}.exe")
    setup_file["use_clang_cl"](compiler)
    assert (compiler.cc, compiler.linker) == ("C:/LLVM/clang-cl.exe", "link.exe")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Exception, match="no clang-cl on the PATH"):
        setup_file["use_clang_cl"](compiler)


@pytest.mark.parametrize("variable", ["FASTRNN_CYTHON", "FASTRNN_CLANG_CL"])
def test_switches_of_the_build(setup_file, variable, monkeypatch):
    for value, meaning in (("", None), ("0", False), ("1", True)):
        monkeypatch.setenv(variable, value)
        assert setup_file["wanted"](variable) is meaning
    monkeypatch.setenv(variable, "yes")
    with pytest.raises(SystemExit, match=f"{variable} must be 0, 1 or unset, got 'yes'"):
        setup_file["wanted"](variable)


@pytest.mark.slow
def test_skipped_build_leaves_no_older_one(editable):
    """Keep this last: it takes the extension out of the editable installation."""
    install = ["pip", "install", "-q", "--no-deps", "-e", str(editable.root)]
    editable.environment["FASTRNN_CYTHON"] = "0"
    editable.run(install)
    config = editable.config()
    assert config["backend"] == "numba"
    assert config["backends"]["cython"]["detail"] == "FASTRNN_CYTHON=0 was set when fastrnn was installed"
    # A failed build over a good one.
    editable.environment["FASTRNN_CYTHON"] = "1"
    editable.run(install)
    assert editable.config()["backend"] == "cython"
    del editable.environment["FASTRNN_CYTHON"]
    editable.environment["CC"] = "/bin/false"
    editable.run(install)
    config = editable.config()
    assert config["backend"] == "numba"
    assert "ended with status 1" in config["backends"]["cython"]["detail"]
