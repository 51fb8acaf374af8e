"""The notes' whole program prints the same lines with either class."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from support import run_python, stream_state

import fastrnn

PROGRAM = Path(__file__).with_name("hello_program.py")
IMPORT = "from fastrnn import SimpleRNN\n"
SWAPPED = "from fastrnn import ReferenceRNN as SimpleRNN\n"


def swapped_source():
    source = PROGRAM.read_text(encoding="utf-8")
    assert source.count(IMPORT) == 1
    return source.replace(IMPORT, SWAPPED)


def run(source, seed):
    """Lines that the program prints, its last weights, and the global stream's state after it."""
    names = {"__name__": "__main__"}
    before = np.random.get_state()
    out = io.StringIO()
    try:
        np.random.seed(seed)
        with contextlib.redirect_stdout(out):
            exec(compile(source, str(PROGRAM), "exec"), names)
        return out.getvalue().splitlines(), names["rnn"], stream_state()
    finally:
        np.random.set_state(before)


@pytest.mark.parametrize("seed", range(20))
def test_same_lines(seed, backend):
    with fastrnn.use_backend(backend):
        lines, rnn, left = run(PROGRAM.read_text(encoding="utf-8"), seed)
    wanted, reference, wanted_left = run(swapped_source(), seed)
    assert type(rnn) is fastrnn.SimpleRNN
    assert type(reference) is fastrnn.ReferenceRNN
    assert lines == wanted
    assert left == wanted_left
    assert len(lines) == 13
    assert lines[0].startswith("Epoch 0, Loss: 5.54")
    assert np.abs(rnn.Whh - reference.Whh).max() < 1e-12


def test_it_learns_to_spell(backend):
    with fastrnn.use_backend(backend):
        spelled = [run(PROGRAM.read_text(encoding="utf-8"), seed)[0][-1] for seed in range(10)]
    assert spelled.count("h e l l o ") >= 8


@pytest.mark.few(1)
def test_only_the_import_line_swapped(backend, tmp_path):
    (tmp_path / "swapped.py").write_text(swapped_source(), encoding="utf-8")
    start = "import numpy, runpy, sys; numpy.random.seed(int(sys.argv[1])); runpy.run_path(sys.argv[2])"
    for seed in (0, 7):
        swapped = run_python("-c", start, seed, tmp_path / "swapped.py", cwd=tmp_path)
        ours = run_python("-c", start, seed, PROGRAM, cwd=tmp_path, FASTRNN_BACKEND=backend)
        assert (ours.returncode, ours.stderr) == (0, "")
        assert (swapped.returncode, swapped.stderr) == (0, "")
        assert ours.stdout.splitlines() == swapped.stdout.splitlines()
        assert len(ours.stdout.splitlines()) == 13


def test_without_a_seed_it_runs_as_it_stands(tmp_path):
    done = run_python(PROGRAM, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Epoch 0, Loss: 5.54")
