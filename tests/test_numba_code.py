"""The machine code of the Numba kernels: tiles stay in registers, at the width of the processor."""

import json
import re

import pytest
from support import run_python

pytest.importorskip("numba")

PRINT_CODE = """
import json
import numpy as np
from fastrnn.kernels import numba_kernels as kernels
from fastrnn.kernels.vectors import VECTOR_BYTES
kernels.tanh(np.zeros(1, np.float32))
(code,) = kernels._run.inspect_asm().values()
print(json.dumps({"width": VECTOR_BYTES, "code": code}))
"""

REGISTER = {64: "zmm", 32: "ymm", 16: "xmm"}


@pytest.mark.slow
def test_tiles_stay_in_vector_registers(tmp_path):
    done = run_python("-c", PRINT_CODE, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_DISABLE_JIT="0")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    functions = dict(
        re.findall(r'^"?(fastrnn\.\w+)\.float"?:(.*?)^\.Lfunc_end', printed["code"], re.M | re.S)
    )
    if "vmulps" not in printed["code"] and "mulps" not in printed["code"]:
        pytest.skip("not an x86 processor")
    register = REGISTER[printed["width"]]
    tiles = [name for name in functions if name.startswith(("fastrnn.gemm_tile", "fastrnn.gemv_panel"))]
    assert len(tiles) >= 16
    for name in tiles:
        lines = functions[name].splitlines()
        assert sum(register in line for line in lines) > 10, f"{name} does not use {register} registers"
        spilt = [line for line in lines if register in line and re.search(r"\(%[re]?sp", line)]
        assert not spilt, f"{name} keeps sums on the stack: {spilt[:3]}"
