"""Trainings that ranks of MPI share: the numbers of one process, the errors of all, and what a rank's death leaves."""

import contextlib
import itertools
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mpi_support import FASTRNN, PROGRAMS, results, run, start

import fastrnn
from fastrnn import CharRNN, LanguageModel, RNNRegressor, cores, dropout, threads
from fastrnn.group import ALONE, Group
from fastrnn.optim import SGD

TEXT = "To be, or not to be, that is the question: " * 60


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


def all_the_same(told, but=()):
    """What every rank tells."""
    for other in told[1:]:
        assert {k: v for k, v in other.items() if k not in but} == {
            k: v for k, v in told[0].items() if k not in but
        }
    return told[0]


# -- without MPI -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("N", [0, 1, 5, 64, 100])
def test_shares(size, N):
    shares = []
    for rank in range(size):
        group = Group()
        group.rank, group.size = rank, size
        shares.append(group.share(N))
    assert shares[0][0] == 0
    assert shares[-1][1] == N
    assert [stop for _, stop in shares[:-1]] == [begin for begin, _ in shares[1:]]
    lengths = [stop - begin for begin, stop in shares]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(20))
def test_masks_do_not_hang_on_where_a_batch_is_cut(seed, dtype):
    rng = np.random.default_rng(seed)
    N, out, T = int(rng.integers(1, 200)), int(rng.integers(1, 7)), 3
    draws = 8 // np.dtype(dtype).itemsize
    key = int(rng.integers(2**62)), int(rng.integers(2**62)) | 1

    def masks(first, stop):
        """Those of a rank with these sequences, as `passes` draws them."""
        made = np.full((T, stop - first, out), np.nan, dtype)
        count, pieces = dropout.sections(stop - first, first, N)
        for (begin, _), of_part in zip(threads.parts(stop - first), pieces, strict=True):
            for section, rows, skipped, place, taken in of_part:
                flat = np.empty((T, -(-rows * out // draws) * draws), dtype)
                dropout.draw(
                    np.random.Generator(np.random.PCG64DXSM()),
                    key,
                    count + section,
                    5,
                    flat,
                    flat.shape[1] // draws,
                    0.4,
                )
                made[:, begin + place : begin + place + taken] = flat[
                    :, skipped * out : (skipped + taken) * out
                ].reshape(T, taken, out)
        return made

    whole = masks(0, N)
    assert set(np.unique(whole)) <= {dtype(0), dtype(1) * dtype(1 / 0.6)}
    cuts = np.sort(rng.integers(0, N + 1, 3))
    bounds = [0, *cuts.tolist(), N]
    parts = [masks(a, b) for a, b in itertools.pairwise(bounds) if a < b]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("comm", [3, "world", object(), [], np.int64(1)])
def test_what_is_no_comm(comm):
    said = r"comm must be what fastrnn.distributed.mpi\(\) returns, or None, got "
    lm, x = LanguageModel(3, 4, rng=0), np.zeros((2, 1), int)
    before = lm.state_dict()
    for call in (
        lambda: lm.train_step(x, x, None, SGD(lr=1), comm=comm),
        lambda: CharRNN(4, comm=comm).fit("hello"),
        lambda: RNNRegressor(4, comm=comm).fit(np.ones((4, 3)), np.ones(4)),
    ):
        with pytest.raises(TypeError, match=said):
            call()
    assert all((lm.parameters[name] == W).all() for name, W in before.items())


def test_a_group_of_one_is_no_comm_at_all():
    x = np.random.default_rng(0).integers(0, 3, (4, 5))
    losses = [
        LanguageModel(3, 4, rng=0).train_step(x, x, None, SGD(lr=1), comm=comm)[0] for comm in (None, ALONE)
    ]
    assert losses[0] == losses[1]


def test_mpi4py_is_missing(monkeypatch):
    from fastrnn import distributed

    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r"needs mpi4py .*pip install 'fastrnn\[mpi\]'"):
        distributed.mpi()


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None, True])
def test_sync_every(value):
    from fastrnn import distributed

    with pytest.raises((TypeError, ValueError), match="sync_every must be"):
        distributed.mpi(sync_every=value)


# -- steps -----------------------------------------------------------------------------------------


@pytest.mark.few(1)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_steps_are_those_of_one_process(n, backend):
    told = results(n, "steps.py", backend, 12, "float64")
    for case in zip(*told, strict=True):
        assert max(worst for worst, _ in case) < (1e-9 if n > 1 else 1e-300)
        assert len({weights for _, weights in case}) == 1


@pytest.mark.few(1)
def test_steps_in_float32(backend):
    told = results(2, "steps.py", backend, 8, "float32")
    for case in zip(*told, strict=True):
        assert max(worst for worst, _ in case) < 1e-3
        assert len({weights for _, weights in case}) == 1


def test_a_hundred_steps():
    assert max(worst for worst, _ in results(2, "steps.py", fastrnn.backend(), 100, "float64")[0]) < 1e-5


def test_the_same_bits_twice():
    once, again = (results(3, "steps.py", fastrnn.backend(), 5, "float32") for _ in range(2))
    assert once == again


def test_errors_of_one_are_errors_of_all():
    (a, b) = results(2, "errors.py")
    said = "IndexError: y"
    assert a[0][0] == "DistributedError"
    assert a[0][1].startswith(f"rank 1 of 2 ended: {said}")
    assert b[0][0] == "IndexError"
    assert a[1] is True
    assert b[1] is True
    assert a[2][0] == "DistributedError"
    assert "rank 1 of 2 ended: ValueError: x" in a[2][1]
    assert b[2][0] == "ValueError"
    assert a[3] == b[3]
    for told in (a, b):
        assert told[4][0] == told[5][0] == "ValueError"
        assert "the model is LanguageModel(5, 8" in told[4][1]
        assert "and LanguageModel(5, 9" in told[4][1]
        assert "the optimizer is Adam" in told[5][1]
    assert [a[6][0], b[6]] == [
        "ZeroDivisionError",
        ["DistributedError", "rank 0 of 2 ended: ZeroDivisionError: integer division or modulo by zero"],
    ]
    assert [a[7][0], b[7][0]] == ["IndexError", "DistributedError"]
    assert a[8] == b[8] == "of rank 0"
    assert a[9] == b[9] == ["ValueError", "a batch of 1 stream cannot be shared by 2 ranks: each needs one"]
    assert [a[10], b[10]] == ["<Communicator: rank 0 of 2>", "<Communicator: rank 1 of 2>"]
    assert a[12] == b[12] == ["TypeError", "comm must be an mpi4py.MPI.Intracomm or None, got str"]
    assert a[11] == b[11] == max(1, cores.usable_cores() // 2)


def test_ranks_that_are_not_at_the_same_thing():
    a, b = results(2, "apart.py")
    for name, said in (
        ("other run", "the run so far is ('partial_fit', "),
        ("other characters", "the vocabulary is "),
        ("other sync_every", "sync_every is 1 on rank 0, and 2 on rank 1"),
    ):
        assert a[name] == b[name], name
        assert a[name][0] == "ValueError"
        assert a[name][1].startswith(f"ranks must train the same: {said}")
    for name in ("warned", "diverged"):
        assert [a[name][0], b[name][0]] == ["RuntimeWarning", "DistributedError"]
        assert a[name][1] in b[name][1]
    assert [a["broken"][0], b["broken"][0]] == ["IndexError", "DistributedError"]
    assert a["goes on"] == b["goes on"]
    assert a["goes on"][1]
    assert a["generator"]
    assert a["timed"] == b["timed"]
    assert a["Ctrl-C"] == b["Ctrl-C"] == ["interrupted", [0, 1]]
    assert a["many"] == 1


def test_a_run_whose_state_is_lost_is_not_kept(tmp_path):
    model = CharRNN(4, seq_len=4, batch_size=2, epochs=1, verbose=0).fit("hello world. " * 9)
    model._run.incomplete = True
    for call in (
        lambda: model.save(tmp_path / "m"),
        lambda: model.set_params(epochs=2).fit("hello world. " * 9, resume=True),
    ):
        with pytest.raises(RuntimeError, match="the hidden states of the others are lost"):
            call()
    assert not files(tmp_path)


# -- CharRNN ---------------------------------------------------------------------------------------


@pytest.mark.few(1)
@pytest.mark.parametrize(("n", "sync_every"), [(1, 1), (2, 1), (3, 1), (2, 4), (3, 100)])
def test_texts(n, sync_every, text, tmp_path):
    everyone = results(n, "texts.py", tmp_path, text, sync_every)
    told = all_the_same(everyone, but=("warned",))
    if told["alone"]:
        np.testing.assert_allclose(np.array(told["curve"], float), np.array(told["alone"], float), rtol=1e-9)
    assert told["diagnostics"] == [20, 40, 60]
    first, *others = told["resumed"]
    assert others[0] == first
    if 40 % sync_every == 0 or n == 1:
        assert others[1] == first
    assert told["over"] == [others[1]] * 2
    diverged, step = told["diverged"]
    assert diverged
    assert step < 60
    assert [each["warned"] for each in everyone] == [1] + [0] * (n - 1)
    said = (
        f"this run was trained on {n} rank{'s' if n > 1 else ''} so far: from here on its bits are those of 1"
    )
    assert (said in told["other"]) == (n > 1)
    kept = CharRNN.load(tmp_path / "parts")
    assert kept._run.progress.ranks == n
    assert kept.comm is None
    assert (rb"\"ranks\"" in (tmp_path / "parts").read_bytes()) == (n > 1)
    assert rb"\"comm\"" not in (tmp_path / "parts").read_bytes()


# -- estimators ------------------------------------------------------------------------------------


@pytest.mark.few(1)
@pytest.mark.parametrize(("n", "sync_every"), [(2, 1), (3, 1), (2, 3)])
def test_estimators(n, sync_every):
    told = all_the_same(results(n, "estimating.py", sync_every), but=("refusals",))
    for _, losses, alone in told["cases"]:
        if alone is not None:
            for (a, b, _), (c, d) in zip(losses, alone, strict=True):
                np.testing.assert_allclose([a, b or 0], [c, d or 0], rtol=1e-9)
    assert told["timed"][2] >= 1
    one, two, three = told["refusals"]
    assert one == ["ValueError", "ranks must train the same: lr is 0.1 on rank 0, and 1.1 on rank 1"]
    assert two[1].startswith("rank 1 of ")
    assert three[1].startswith("ranks must train the same: what is learned is ")


# -- the command line ------------------------------------------------------------------------------


def train(n, text, model, *more, **options):
    return run(n, *FASTRNN, "train", text, "--out", model, "--mpi", *more, **options)


def files(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("text"))


def test_train(text, tmp_path):
    model = tmp_path / "m"
    options = ["--hidden-size", 16, "--seq-len", 10, "--batch-size", 8, "--random-state", 0]
    status, out, err, _ = train(2, text, model, "--max-steps", 30, *options)
    assert status == 0, err
    assert err.count("Reading the text") == out.count("30 steps") == 1
    assert CharRNN.load(model).step_ == 30
    status, out, err, _ = train(2, text, model)
    assert status == 1
    assert err.count("exists: --resume goes on with it") == 1
    status, out, err, _ = train(3, text, model, "--resume", "--max-steps", 40, "--json")
    assert status == 0
    assert (
        err.count("Warning: this run was trained on 2 ranks so far: from here on its bits are those of 3")
        == 1
    )
    assert out.count("\n") == 1
    status, _, err, _ = train(2, tmp_path / "none.txt", tmp_path / "new")
    assert status == 1
    assert err.count("cannot read") == 1
    status, _, err, _ = train(2, text, tmp_path / "new", "--batch-size", 1)
    assert status == 2
    assert err.count("a batch of 1 stream cannot be shared by 2 ranks") == 1
    status, _, err, _ = train(2, text, tmp_path / "new", "--lr", "1e30", "--clip", "none", "--max-steps", 30)
    assert status == 1
    assert err.count("the training diverged") == 1
    assert train(2, text, tmp_path / "other", "--sync-every", 4, "--max-steps", 10, *options)[0] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sync-every", "2"], "--sync-every is for --mpi"),
        (["--mpi", "--sync-every", "0"], "0 is not in the range x>=1"),
        (["--mpi", "-"], "--mpi needs files"),
    ],
)
def test_wrong_usage(options, said, text, tmp_path):
    from cli_support import invoke

    done = invoke("train", text, "--out", tmp_path / "m", *options)
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_and_keeps_what_there_is(number, text, tmp_path):
    model = tmp_path / "m"
    with start(
        2, *FASTRNN, "train", text, "--out", model, "--mpi", "--epochs", "none", "--checkpoint-every", 5
    ) as process:
        wait_for(model)
        began = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 128 + number
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert err.count(f"Stopped by {name}. {model} holds step") == 1
    command = re.search(r"mpiexec -n 2 python -m fastrnn train --resume .*", err)[0]
    assert command.endswith("--mpi --epochs none --checkpoint-every 5")
    step = CharRNN.load(model).step_
    assert f"holds step {step:,};" in err
    assert train(2, text, model, "--resume", "--max-steps", step + 3)[0] == 0
    assert CharRNN.load(model).step_ == step + 3


# -- a rank that dies ------------------------------------------------------------------------------


def wait_for(file, seconds=60):
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def ranks_of(model):
    """Processes that train a model, without mpiexec and its helpers."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0") if process.name.isdigit() else []
            if words[1:3] == [b"-m", b"fastrnn"] and str(model).encode() in words:
                found.append(int(process.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are found in /proc")
@pytest.mark.few(1)
@pytest.mark.parametrize("seed", range(20))
def test_a_rank_is_killed(seed, text, tmp_path):
    model, rng, n = tmp_path / "m", random.Random(seed), 2 + seed % 2
    command = [*FASTRNN, "train", text, "--out", model, "--mpi", "--checkpoint-every", 1 + seed % 4]
    settings = ["--epochs", "none", "--hidden-size", 16, "--seq-len", 10, "--batch-size", 8, "-q"]
    with start(n, *command, *settings) as process:
        wait_for(model)
        time.sleep(rng.random())
        pids = ranks_of(model)
        assert len(pids) == n
        began = time.monotonic()
        os.kill(rng.choice(pids), signal.SIGKILL)
        process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode != 0
    assert not ranks_of(model)
    step = CharRNN.load(model).step_
    assert step > 0
    status, _, err, _ = train(n, text, model, "--resume", "--max-steps", step + 5, "-q")
    assert status == 0, err
    assert CharRNN.load(model).step_ == step + 5


PROGRAM = """
import sys
from fastrnn import LanguageModel, distributed
from fastrnn.optim import SGD
comm = distributed.mpi()
lm, x = LanguageModel(3, 4, rng=0), [[0, 1], [1, 2]]
for i in range(10**9):
    if i == 20 and comm.rank == int(sys.argv[1]):
        raise {error}
    lm.train_step(x, x, None, SGD(lr=0.1), comm=comm)
"""


@pytest.mark.few(2)
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("error", "status"), [("ZeroDivisionError('by hand')", 1), ("KeyboardInterrupt", 130)]
)
def test_an_error_that_nothing_catches_ends_all(rank, error, status, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM.format(error=error))
    ended, _, err, seconds = run(2, sys.executable, tmp_path / "program.py", rank)
    assert ended == status
    assert f"\n{error[:17]}" in err
    assert err.count("Traceback") == 1
    assert seconds < 15


def test_programs_are_all_used():
    used = set(re.findall(r'"(\w+\.py)"', Path(__file__).read_text()))
    assert {path.name for path in PROGRAMS.glob("*.py")} - {"common.py"} <= used
