"""Numba's machine code on disk: found again, never stale, never mixed up, and never needed.

Every test runs in processes of its own on a copy of the package, which holds two small modules more:
a kernel, and a helper in another file.
"""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("numba")

import fastrnn
import fastrnn.kernels
from fastrnn.kernels.numba_kernels import jit

HELPER = """
from fastrnn.kernels.numba_kernels.jit import inlined

FACTOR = 2

@inlined
def times(x):
    return FACTOR * x
"""

KERNEL = """
import json
import sys

import numpy as np

from fastrnn.kernels.numba_kernels.jit import cache_folder, kernel
from fastrnn.kernels.probe_helper import times

@kernel
def double(x):
    for i in range(len(x)):
        x[i] = times(x[i])

def main():
    x = np.arange(3.0)
    double(x)
    hits = sum(double.stats.cache_hits.values())
    print(json.dumps({"result": x.tolist(), "hits": hits, "folder": cache_folder()}))
"""

RUN = "from fastrnn.kernels import probe; probe.main()"

#: Modes do not hold for root: start Python without that privilege.
WITHOUT_PRIVILEGE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


class Installation:
    """A copy of the package, a home folder, and processes that use them."""

    def __init__(self, folder):
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        unwanted = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "csrc")
        self.package = folder / "site" / "fastrnn"
        self.kernels = self.package / "kernels"
        shutil.copytree(Path(fastrnn.__file__).parent, self.package, ignore=unwanted)
        shutil.copytree(
            Path(fastrnn.kernels.__file__).parent, self.kernels, ignore=unwanted, dirs_exist_ok=True
        )
        (self.kernels / "probe_helper.py").write_text(HELPER)
        (self.kernels / "probe.py").write_text(KERNEL)

    def start(self, code=RUN, *, prefix=(), **environment):
        unset = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "FASTRNN_BACKEND", "NUMBA_DISABLE_JIT")
        env = {name: value for name, value in os.environ.items() if name not in unset}
        env |= {"PYTHONPATH": str(self.package.parent), "HOME": str(self.home), **environment}
        env["LOCALAPPDATA"] = str(self.home)
        return subprocess.Popen(
            [*prefix, sys.executable, "-c", code], cwd=self.folder, env=env,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def finish(self, process):
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert err == ""
        return json.loads(out)

    def run(self, *arguments, **options):
        return self.finish(self.start(*arguments, **options))

    def kept(self):
        """Every file of machine code, wherever it is."""
        return sorted(self.folder.rglob("double-*"))


@pytest.fixture
def installation():
    # Not tmp_path: nobody else may look into that.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        folder = Path(folder).resolve()
        folder.chmod(0o755)
        yield Installation(folder)
        for path in (folder, *folder.rglob("*")):  # what was made read-only is removed as well
            if path.is_dir():
                path.chmod(0o755)


def test_second_process_finds_the_code_of_the_first(installation):
    first, second = installation.run(), installation.run()
    assert first["result"] == second["result"] == [0, 2, 4]
    assert (first["hits"], second["hits"]) == (0, 1)
    (kept,) = installation.kept()
    assert str(kept.parent) == first["folder"]
    assert kept.parent.parent == installation.kernels / "__pycache__"


def test_kernels_of_one_name_in_two_files(installation):
    (installation.kernels / "another.py").write_text(KERNEL.replace("times(x[i])", "-x[i]"))
    both = RUN + "; from fastrnn.kernels import another; another.main()"
    for hits in (0, 1):
        out, err = installation.start(both).communicate(timeout=300)
        assert err == ""
        assert [(got["result"], got["hits"]) for got in map(json.loads, out.splitlines())] == [
            ([0, 2, 4], hits), ([0, -1, -2], hits),
        ]  # fmt: skip
    assert len(installation.kept()) == 2


def test_folder_that_the_environment_names(installation):
    elsewhere = str(installation.folder / "elsewhere")
    for hits in (0, 1):
        got = installation.run(NUMBA_CACHE_DIR=elsewhere)
        assert got["hits"] == hits
        assert got["folder"].startswith(elsewhere)
    assert [path.is_relative_to(elsewhere) for path in installation.kept()] == [True]


def unwritable(path, how):
    """Make a folder that nothing can be written to; returns what Python is to be started with."""
    if how == "a file in its place":
        path.write_text("")
        return []
    if os.name != "posix":
        pytest.skip("modes keep nobody from writing here")
    for folder in (path, *path.rglob("*")):
        if folder.is_dir():
            folder.chmod(0o555)
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv") or subprocess.run([*WITHOUT_PRIVILEGE, "true"], check=False).returncode:
        pytest.skip("modes do not hold for root, and setpriv cannot change that here")
    return WITHOUT_PRIVILEGE


either_way = pytest.mark.parametrize("how", ["a file in its place", "modes"])


def compiles_once(installation, prefix, folder):
    """The second process finds in the folder what the first has put there."""
    for hits in (0, 1):
        got = installation.run(prefix=prefix)
        assert got["result"] == [0, 2, 4]
        assert got["hits"] == hits
        assert got["folder"].startswith(str(folder))


@pytest.mark.few(1)
@either_way
def test_read_only_installation(installation, how):
    prefix = unwritable(installation.package if how == "modes" else installation.kernels / "__pycache__", how)
    compiles_once(installation, prefix, installation.home)


@pytest.mark.few(1)
@either_way
def test_read_only_home(installation, how):
    if how != "modes":
        installation.home.rmdir()
    prefix = unwritable(installation.home, how)
    compiles_once(installation, prefix, installation.kernels)


@pytest.mark.few(1)
@either_way
def test_nothing_writable_at_all(installation, how):
    """Then every process compiles for itself."""
    if how != "modes":
        installation.home.rmdir()
    unwritable(installation.home, how)
    prefix = unwritable(installation.package if how == "modes" else installation.kernels / "__pycache__", how)
    got = installation.run(prefix=prefix)
    assert got == {"result": [0, 2, 4], "hits": 0, "folder": None}
    assert installation.kept() == []


def test_processes_that_start_at_once(installation):
    processes = [installation.start() for _ in range(4)]
    for got in map(installation.finish, processes):
        assert got["result"] == [0, 2, 4]
    assert len(installation.kept()) == 1, "a file that is not whole was left, or one for each process"
    assert installation.run()["hits"] == 1


def test_edited_helper_in_another_file(installation):
    helper = installation.kernels / "probe_helper.py"
    before = helper.stat()
    for factor, hits in ((2, 0), (3, 0), (2, 1)):
        helper.write_text(HELPER.replace("FACTOR = 2", f"FACTOR = {factor}"))
        os.utime(helper, ns=(before.st_atime_ns, before.st_mtime_ns))  # times do not tell versions apart
        got = installation.run(PYTHONDONTWRITEBYTECODE="1")
        assert got["result"] == [0, factor, 2 * factor]
        assert got["hits"] == hits


@pytest.mark.few(1)
@pytest.mark.parametrize("damage", ["truncated", "empty", "other bytes"])
def test_damaged_file_is_compiled_anew(installation, damage):
    installation.run()
    (kept,) = installation.kept()
    whole = kept.read_bytes()
    kept.write_bytes(
        {"truncated": whole[: len(whole) // 2], "empty": b"", "other bytes": whole[::-1]}[damage]
    )
    got = installation.run()
    assert (got["result"], got["hits"]) == ([0, 2, 4], 0)
    assert kept.stat().st_size > 1000
    assert installation.run()["hits"] == 1


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_full_disk(installation):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
    got = installation.run("import sys; sys.dont_write_bytecode = True; " + limit + RUN)
    assert (got["result"], got["hits"]) == ([0, 2, 4], 0)
    assert installation.kept() == []


# What is in the cache is code: nobody else may have put it there.

posix = pytest.mark.skipif(os.name != "posix", reason="needs owners and modes")


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_folder_and_files_are_for_their_owner_alone(umask, tmp_path):
    tmp_path.chmod(0o1777)  # as /tmp is
    before = os.umask(umask)
    try:
        jit._write(tmp_path / "own", "kernel", b"code")
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode) for path in (tmp_path, *tmp_path.rglob("*"))}
    assert modes == {tmp_path.name: "0o41777", "own": "0o40700", "kernel": "0o100600"}
    assert jit._read(tmp_path / "own", "kernel") == b"code"


@posix
@pytest.mark.parametrize(
    "how", ["folder of the group", "folder of all", "file of all", "owner of the folder", "owner of the file",
            "linked folder", "linked file", "pipe"],
)  # fmt: skip
def test_what_others_may_have_written_is_not_read(how, tmp_path):
    folder, file = tmp_path / "own", tmp_path / "own" / "kernel"
    jit._write(folder, "kernel", b"code")
    if how.startswith("owner"):
        if os.geteuid() != 0:
            pytest.skip("only root can give files away")
        os.chown(folder if how.endswith("folder") else file, 12345, -1)
    elif how.startswith("linked"):
        linked = folder if how.endswith("folder") else file
        linked.rename(tmp_path / "elsewhere")
        linked.symlink_to(tmp_path / "elsewhere")
    elif how == "pipe":
        file.unlink()
        os.mkfifo(file)
    else:
        (folder if how.startswith("folder") else file).chmod(0o770 if how.endswith("group") else 0o707)
    with pytest.raises(OSError):  # noqa: PT011 - of several kinds
        jit._read(folder, "kernel")
    if "folder" in how:  # nor is anything put there
        with pytest.raises(PermissionError, match="may be changed by others"):
            jit._write(folder, "another", b"code")
        assert not (folder / "another").exists()


class Planted:
    """Leaves a file where it was unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@posix
def test_code_in_a_folder_that_others_may_write_to_does_not_run(installation):
    installation.run()
    (kept,) = installation.kept()
    marker = installation.folder / "marker"
    data = pickle.dumps(Planted(marker))
    kept.write_bytes(hashlib.sha256(data).digest() + data)
    kept.parent.chmod(0o770)
    for hits in (0, 1):  # the next place serves
        got = installation.run()
        assert (got["result"], got["hits"]) == ([0, 2, 4], hits)
        assert got["folder"].startswith(str(installation.home))
    assert not marker.exists()
    kept.parent.chmod(0o700)  # the test can fail: as the user's own it does run
    installation.start().communicate(timeout=300)
    assert marker.exists()


@pytest.mark.slow
def test_upgraded_package(installation):
    """The kernels themselves: another constant in the file of tanh."""
    code = (
        "import json; import numpy as np; from fastrnn.kernels import numba_kernels as k;"
        "x = np.full(1, 50.0); k.tanh(x); x[0] -= 1; print(json.dumps(x.tolist()))"
    )
    assert installation.run(code) == [0.0]
    source = installation.kernels / "numba_kernels" / "elementary.py"
    source.write_text(
        source.read_text().replace("tanh_flat = -746.0, 710.0, 20.0", "tanh_flat = -746.0, 710.0, 0.0")
    )
    assert installation.run(code) == [-1.0]
