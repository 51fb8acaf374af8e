"""The machine code of the Numba kernels: tiles stay in registers, at the width of the processor."""

import json
import platform
import re
from pathlib import Path

import pytest
from support import run_python

pytest.importorskip("numba")

PRINT_CODE = """
import json
import numpy as np
from fastrnn.kernels.numba_kernels.emit import VECTOR_BYTES
{call}
(code,) = {function}.inspect_asm().values()
print(json.dumps({{"width": VECTOR_BYTES, "code": code}}))
"""

ONE_SEQUENCE = {
    "call": "from fastrnn import SimpleRNN; rnn = SimpleRNN(1, 1, 1, dtype=np.float32, backend='numba');"
    "rnn.train_step([0], [0], np.zeros((1, 1))); from fastrnn.kernels.numba_kernels import sequence",
    "function": "sequence._backward",
}
BATCH = {
    "call": "from fastrnn import RNN; rnn = RNN(1, 1, backend='numba'); rnn.forward(np.zeros((9, 2, 1)));"
    "rnn.backward(np.zeros((9, 2, 1))); from fastrnn.kernels.numba_kernels import layer",
    "function": "layer._backward",
}

REGISTER = {64: "zmm", 32: "ymm", 16: "xmm"}


@pytest.mark.slow
@pytest.mark.parametrize(("how", "least"), [(ONE_SEQUENCE, 16), (BATCH, 10)], ids=["one sequence", "batch"])
def test_tiles_stay_in_vector_registers(how, least, tmp_path):
    done = run_python("-c", PRINT_CODE.format(**how), NUMBA_CACHE_DIR=str(tmp_path), NUMBA_DISABLE_JIT="0")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    functions = dict(
        re.findall(r'^"?(fastrnn\.\w+)\.float"?:(.*?)^\.Lfunc_end', printed["code"], re.M | re.S)
    )
    if "vmulps" not in printed["code"] and "mulps" not in printed["code"]:
        pytest.skip("not an x86 processor")
    register = REGISTER[printed["width"]]
    tiles = [name for name in functions if name.startswith(("fastrnn.gemm_tile", "fastrnn.gemv_panel"))]
    assert len(tiles) >= least
    for name in tiles:
        lines = functions[name].splitlines()
        assert sum(register in line for line in lines) > 10, f"{name} does not use {register} registers"
        spilt = [line for line in lines if register in line and re.search(r"\(%[re]?sp", line)]
        assert not spilt, f"{name} keeps sums on the stack: {spilt[:3]}"


@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "features"), [("haswell", "+avx,+avx2,+fma"), ("x86-64", "")])
def test_kernels_at_other_vector_widths(cpu, features, tmp_path):
    """The tests of the batched kernels, as if on a processor with narrower vectors."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("not an x86 processor")
    tests = Path(__file__).with_name("test_batched_kernels.py")
    done = run_python(
        "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", tests, "-k", "numba", cwd=tests.parent,
        NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features, NUMBA_CACHE_DIR=str(tmp_path),
        NUMBA_DISABLE_JIT="0",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.few(0)
def test_kernels_that_are_not_compiled():
    """What ``NUMBA_DISABLE_JIT`` runs: the NumPy formula of each routine, where a coverage tool sees the loops."""
    tests = [Path(__file__).with_name(name) for name in ("test_contract.py", "test_batched_kernels.py")]
    done = run_python(
        "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests, "-k", "numba", cwd=tests[0].parent,
        NUMBA_DISABLE_JIT="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
