"""What `refusals`, `guarded` and the checks before single steps are timed are there to find, they find."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from guarded import Guarded
from refusals import refused
from support import run_python

from fastrnn import optim


def raising(change, error=ValueError, text="lr must be positive"):
    """A call that changes something before it raises."""

    def call():
        change()
        raise error(text)

    return call


def test_a_refusal_that_leaves_everything_as_it_was():
    assert refused(raising(dict), ValueError, ["lr", "positive"], begins="lr ") == "lr must be positive"


@pytest.mark.parametrize(
    ("error", "said", "match"),
    [(LookupError, {}, "IndexError, not"), (IndexError, {"words": ["clip"]}, "'clip' is not in 'lr must"),
     (IndexError, {"begins": "clip"}, "does not begin with"), (IndexError, {"match": "^clip"}, "does not match")],
)  # fmt: skip
def test_a_refusal_with_another_error_or_text(error, said, match):
    with pytest.raises(AssertionError, match=match):
        refused(raising(dict, IndexError), error, **said)


@pytest.mark.parametrize(
    "what", ["array", "nested['W'][0]", "sgd.state_dict()['step']", "rng", "NumPy's stream", "nested"]
)
def test_a_refusal_that_changes_something(what):
    array, W, rng, sgd = np.zeros(3), np.ones(2), np.random.default_rng(0), optim.SGD(0.1)
    nested = {"W": [W]}
    change = {
        "array": lambda: array.fill(-0.0), "nested['W'][0]": lambda: nested.update(W=[W.copy()]),
        "sgd.state_dict()['step']": lambda: sgd.step({"W": np.ones(2)}, {"W": W}), "rng": rng.random,
        "NumPy's stream": np.random.random, "nested": nested.clear,
    }[what]  # fmt: skip
    with pytest.raises(AssertionError, match="modified by a call") as caught:
        refused(raising(change), ValueError, array=array, nested=nested, rng=rng, sgd=sgd)
    assert what in str(caught.value).removeprefix("modified by a call that was refused: ").split(", ")


@pytest.mark.parametrize("offset", [0, 3])
def test_what_guards_find(offset, dtype):
    def memory():
        guarded = Guarded(dtype, offset)
        return guarded, guarded.given(np.arange(6.0).reshape(2, 3)), guarded.new((4,))

    guarded, _, out = memory()
    out[...] = math.nan  # a result, and not the poison
    guarded.check(out)
    for place, match in ((-1, "before an array of 4"), (4, "after an array of 4")):
        guarded, _, out = memory()
        out.base[64 + offset + place] = 0
        with pytest.raises(AssertionError, match=match):
            guarded.check()
    guarded, given, out = memory()
    out[:2] = 1
    assert guarded.untouched(out[2:])
    with pytest.raises(AssertionError, match=r"2 of \(4,\) not written, first \[2\]"):
        guarded.check(out)
    given[1, 2] = 7
    with pytest.raises(AssertionError, match=r"an input of shape \(2, 3\) was written"):
        guarded.check()
    guarded.keep()
    guarded.check()


# -- single steps, benchmarks/step_contenders.py and stepper.py -----------------------------------


@pytest.fixture
def contenders(import_benchmark):
    return import_benchmark("step_contenders")


def name_of(dtype):
    return np.dtype(dtype).name


@pytest.mark.parametrize("h", [1, 8, 33])
def test_every_contender_that_is_there_makes_the_steps_of_the_plain_loop(contenders, h, dtype):
    from installed import why_unavailable

    checked = []
    for contender in contenders.contenders_of(name_of(dtype)):
        if why_unavailable(contender) is None:
            for cell in ("rnn", "gru", "lstm"):
                step, x = contenders.checked_step(contender, h, name_of(dtype), cell)
                assert x.dtype == dtype
                step(x)
            checked.append(contender)
    assert {"numpy", contenders.LINE} <= set(checked)


@pytest.mark.parametrize("fault", ["no bias", "no state", "relu", "late", "nan", "a last digit", "column"])
def test_a_wrong_step_is_not_timed(contenders, monkeypatch, fault, dtype):
    def faulty(h, name, cell):
        U, W, b = (a.astype(name) for a in contenders.problem(h)[0])
        state = np.zeros(h, name)

        def step(x):
            nonlocal state
            before = state
            state = np.tanh(
                W @ (0 * state if fault == "no state" else state) + U @ x + (fault != "no bias") * b
            )
            if fault == "relu":
                state = np.maximum(state, 0)
            if fault == "a last digit":  # of a float16
                state = state.astype(np.float16).astype(name)
            if fault == "nan":
                return np.full_like(state, np.nan)
            return before if fault == "late" else state[:, None] if fault == "column" else state

        return step, np.asarray

    monkeypatch.setitem(contenders._OTHERS, contenders.LINE, faulty)
    from agreement import WrongResult

    with pytest.raises(WrongResult, match=rf"numpy line: step of rnn h=8 {name_of(dtype)}"):
        contenders.checked_call(contenders.LINE, 8, name_of(dtype))


@pytest.mark.parametrize(
    ("contender", "missing"), [("torch", "torch"), ("onnxruntime", "onnxruntime"), ("onnxruntime", "onnx")]
)
def test_a_library_that_is_missing_is_left_out_with_the_reason(contenders, monkeypatch, contender, missing):
    for module in ("onnxruntime", "onnx"):  # there or not, but for the one that is missing
        monkeypatch.setitem(sys.modules, module, math)
    monkeypatch.setitem(sys.modules, missing, None)
    from installed import Unavailable

    with pytest.raises(Unavailable, match=f"{contender}: .*{missing}"):
        contenders.checked_step(contender, 8, "float32")


def test_a_call_makes_as_many_steps_as_it_is_divided_by(contenders, monkeypatch):
    made = []
    monkeypatch.setattr(contenders, "checked_step", lambda *_: (made.append, 7))
    contenders.checked_call("numpy", 8, "float64", 5)()
    assert made == [7] * 5


STEPPER = Path(__file__).resolve().parent.parent / "benchmarks" / "stepper.py"


def test_the_program_of_single_steps_compares_and_keeps_what_it_measured(tmp_path):
    file = tmp_path / "stepper.json"
    done = run_python(
        STEPPER, "--hidden", 8, "--seconds", 0, "--steps", 50, "--json", file,
        "--contender", "numpy", "--contender", "numpy line", "--dtype", "float32", "--cell", "rnn",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| dtype | backend | h | us | than numpy line |" in done.stdout
    assert done.stdout.count("| float32 | numpy | 8 |") == 1
    rows = [row["extra_info"] for row in json.loads(file.read_text(encoding="utf-8"))["benchmarks"]]
    assert [(row["suite"], row["contender"]) for row in rows] == [
        (suite, contender) for suite in ("steps", "single steps") for contender in ("numpy", "numpy line")
    ]
    for row in rows[2:]:
        median, *later = row["percentiles"]
        assert 0 < row["clock"] < median <= later[0] <= later[1] <= later[2]
        assert row["steps"] == 50
    assert all((row["h"], row["dtype"], row["threads"]) == (8, "float32", 1) for row in rows)


def test_the_program_of_single_steps_refuses_less_than_none():
    done = run_python(STEPPER, "--steps", -1)
    assert (done.returncode, "--steps must not be negative, got -1" in done.stderr) == (2, True)


# ---- layers with gates ------------------------------------------------------------------------------


@pytest.fixture
def gated(import_benchmark):
    return import_benchmark("gated_contenders")


@pytest.mark.parametrize("operation", ["forward", "forward and backward"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_every_contender_with_gates_passes_its_check(gated, cell, operation, dtype):
    from installed import why_unavailable

    problem = gated.Problem(cell, 9, 5, 3, name_of(dtype))
    checked = []
    for contender in gated.contenders_of(operation, problem.dtype):
        if why_unavailable(contender) is None:
            gated.checked_call(contender, operation, problem, 1)()
            checked.append(contender)
    assert "numpy" in checked


@pytest.mark.parametrize("fault", ["output", "grad_x", "grad_weight", "late"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_wrong_layer_with_gates_is_not_timed(gated, monkeypatch, cell, fault, dtype):
    from agreement import WrongResult

    real = gated.FastrnnContender.result

    def wrong(self, returned):
        output, grad_x, *grads = (a.copy() for a in real(self, returned))
        if fault == "output":
            output[0, 0, 0] += 0.01
        elif fault == "late":
            output = np.concatenate([output[:1] * 0, output[:-1]])
        elif fault == "grad_x":
            grad_x *= 0
        else:
            grads[1][-1] *= 1.01
        return [output, grad_x, *grads]

    problem = gated.Problem(cell, 9, 5, 3, name_of(dtype))
    gated.checked_call("numpy", "forward and backward", problem, 1)
    monkeypatch.setattr(gated.FastrnnContender, "result", wrong)
    with pytest.raises(WrongResult, match=f"numpy: forward and backward of {cell}, h=9"):
        gated.checked_call("numpy", "forward and backward", problem, 1)


@pytest.mark.few(0)
def test_the_program_of_gates_compares_and_keeps_what_it_measured(tmp_path):
    file = tmp_path / "gated.json"
    done = run_python(
        STEPPER.with_name("gated.py"), "--hidden", 100, "--seconds", 0, "--json", file, "--cell", "lstm",
        "--contender", "numpy", "--dtype", "float32", "--operation", "forward", "--threads", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| LSTM | float32 | 100, 100, 1 |" in done.stdout
    rows = [row["extra_info"] for row in json.loads(file.read_text(encoding="utf-8"))["benchmarks"]]
    assert [row["suite"] for row in rows] == ["gated", "gated gemm"]
    assert rows[0]["multiply_adds"] == 100 * 4 * 100 * (64 + 100)
    done = run_python(STEPPER.with_name("gated.py"), "--contender", "abacus")
    assert (done.returncode, "no contender 'abacus'" in done.stderr) == (2, True)


@pytest.mark.parametrize("threads", [0, 10_000])
def test_the_program_of_gates_refuses_threads_that_are_not_there(threads):
    done = run_python(STEPPER.with_name("gated.py"), "--threads", threads)
    assert done.returncode == 2
    assert "--threads must be 1 to" in done.stderr


def test_the_program_of_single_steps_has_gates_too(tmp_path):
    done = run_python(
        STEPPER, "--hidden", 8, "--seconds", 0, "--contender", "numpy", "--contender", "numpy line", "--cell", "gru",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "step gru  h=8" in done.stdout
    assert "single steps" not in done.stdout


# ---- a few sequences --------------------------------------------------------------------------------

FEW = STEPPER.with_name("few.py")


@pytest.fixture
def few(import_benchmark):
    return import_benchmark("few_contenders")


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("operation", ["forward", "train_step"])
def test_every_contender_at_a_few_sequences_passes_its_check(few, operation, N, dtype):
    from installed import BACKEND_NAMES, why_unavailable

    case = few.Case(operation, 9, N, name_of(dtype), 5)
    checked = []
    for contender in few.contenders_of(operation):
        if why_unavailable(contender) is None:
            for threads in (1, 2) if contender in BACKEND_NAMES else (1,):
                few.checked_call(contender, case, threads)()
            checked.append(contender)
    assert "numpy" in checked


def test_what_is_expected_of_a_training_step_is_what_the_plain_loops_give(few):
    case = few.Case("train_step", 9, 3, "float64", 5)
    import batch_contenders

    for got, expected in zip(few.expected_of(case), batch_contenders._expected_step(case.batch), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("operation", "fault"),
    [("forward", "first"), ("forward", "late"), ("train_step", "first"), ("train_step", "still")],
)
def test_a_wrong_result_for_a_few_sequences_is_not_timed(few, monkeypatch, operation, fault, dtype):
    import batch_contenders
    import gated_contenders
    from agreement import WrongResult

    case = few.Case(operation, 9, 3, name_of(dtype), 5)
    expected = few.expected_of(case)
    few.checked_call("numpy", case, 1, expected)
    if operation == "forward":
        real = gated_contenders.FastrnnContender.outputs

        def wrong(self, returned):
            outputs = real(self, returned).copy()
            if fault == "late":
                return np.concatenate([outputs[:1] * 0, outputs[:-1]])
            outputs[0, 0, 0] += 0.01
            return outputs

        monkeypatch.setattr(gated_contenders.FastrnnContender, "outputs", wrong)
    else:
        given = batch_contenders.FastrnnContender.result

        def wrong(self, done, returned):
            loss, W_ih, *others = (np.copy(a) for a in given(self, done, returned))
            return [loss * 1.01 if fault == "first" else loss, case.batch.parameters["weight_ih_l0"]
                    if fault == "still" else W_ih, *others]  # fmt: skip

        monkeypatch.setattr(batch_contenders.FastrnnContender, "result", wrong)
    with pytest.raises(WrongResult, match=f"numpy: {operation} of "):
        few.checked_call("numpy", case, 1, expected)


def few_rows(tmp_path, *options):
    """What the program said, and the JSON that it wrote."""
    file = tmp_path / "few.json"
    done = run_python(
        FEW, "--quick", "--contender", "numpy", "--no-waking", *options, "--json", file, OMP_NUM_THREADS="1"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text(encoding="utf-8"))["benchmarks"]


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def test_the_program_of_few_sequences_compares_threads_and_keeps_what_it_measured(tmp_path):
    threads = min(2, CORES)
    said, rows = few_rows(tmp_path, "--only", "train", "--dtype", "float32", "--threads", threads)
    rows = [row["extra_info"] for row in rows]
    assert [(row["h"], row["N"], row["threads"]) for row in rows] == [
        (24, N, count) for N in (1, 3) for count in range(threads, 0, -1)
    ]
    shared = {
        "suite": "few",
        "operation": "train_step",
        "dtype": "float32",
        "cores": threads,
        "kind": "backend",
    }
    assert all(row.items() >= shared.items() for row in rows)
    heads = "| dtype | h, N | numpy | numpy, one thread |" if threads == 2 else "| dtype | h, N | numpy |"
    assert heads in said
    assert said.count("| float32 | 24, ") == 2


def test_the_program_of_few_sequences_measures_what_it_is_asked_for(tmp_path):
    said, rows = few_rows(
        tmp_path, "--only", "forward", "--hidden", 512, "--hidden", 7, "--sequences", 4, "--dtype", "float64",
        "--threads", 1,
    )  # fmt: skip
    rows = [row["extra_info"] for row in rows]
    assert [(row["operation"], row["h"], row["N"], row["threads"]) for row in rows] == [
        ("forward", h, 4, 1) for h in (512, 7)
    ]
    assert "| float64 | 7, 4 |" in said


def test_another_copy_takes_turns_with_this_one(tmp_path):
    import fastrnn

    folder = Path(fastrnn.__file__).parents[1]
    _, rows = few_rows(
        tmp_path,
        "--only",
        "forward",
        "--sequences",
        3,
        "--dtype",
        "float32",
        "--threads",
        1,
        "--before",
        folder,
    )
    assert [(row["extra_info"]["contender"], row["extra_info"]["kind"]) for row in rows] == [
        ("numpy", "backend"), ("numpy, before", "before"),
    ]  # fmt: skip
    assert rows[0]["stats"]["rounds"] == rows[1]["stats"]["rounds"]
    done = run_python(FEW, "--quick", "--before", tmp_path)
    assert (done.returncode, f"error: there is no fastrnn in {tmp_path.resolve()}" in done.stderr) == (
        1,
        True,
    )


def test_a_copy_that_computes_something_else_is_not_timed(few, import_benchmark):
    import fastrnn

    elsewhere = import_benchmark("elsewhere")
    case = few.Case("forward", 9, 3, "float64", 5)
    expected = few.expected_of(case)
    with elsewhere.Elsewhere(Path(fastrnn.__file__).parents[1]) as there:
        call = there.checked_call("numpy", case, 1, expected)
        assert 0 < call.shortest_of_block(0) < 10
        with pytest.raises(elsewhere.ElsewhereError, match="WrongResult: numpy: forward of rnn, h=9"):
            there.checked_call("numpy", case, 1, [expected[0] * 1.01])
        assert 0 < call.shortest_of_block(0) < 10  # it goes on
        there.forget()
        with pytest.raises(elsewhere.ElsewhereError, match="IndexError"):
            call.shortest_of_block(0)
        process = there._process
        process.kill()
        with pytest.raises(elsewhere.ElsewhereError, match="ended"):
            there.checked_call("numpy", case, 1, expected)
    assert process.poll() is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--contender", "abacus"], "no contender 'abacus'"),
        (["--threads", 0], "--threads must be 1 to"),
        (["--threads", 10_000], "--threads must be 1 to"),
        (["--hidden", 0], "--hidden must be positive"),
        (["--sequences", -1], "--sequences must be positive"),
        (["--busy", "--before", "."], "--before has no place beside --busy"),
    ],
)
def test_the_program_of_few_sequences_refuses_what_it_cannot_measure(options, said):
    done = run_python(FEW, *options)
    assert (done.returncode, said in done.stderr) == (2, True)


def test_beside_a_busy_process_all_calls_count(tmp_path):
    threads = min(2, CORES)
    said, rows = few_rows(
        tmp_path, "--busy", "--only", "train", "--sequences", 1, "--dtype", "float32", "--threads", threads
    )
    assert [row["extra_info"]["threads"] for row in rows] == list(range(threads, 0, -1))
    for row in rows:
        assert row["extra_info"]["suite"] == "few busy"
        assert row["extra_info"]["seconds"] >= row["stats"]["min"] > 0
        assert row["stats"]["rounds"] == 4
    assert "Beside a process that keeps a core busy" in said


def test_a_busy_neighbour_is_at_work_and_leaves(import_benchmark):
    busy_neighbour = import_benchmark("neighbour").busy_neighbour
    with busy_neighbour() as process:
        assert process.poll() is None
    assert process.poll() is not None
    with pytest.raises(ZeroDivisionError), busy_neighbour() as process:
        raise ZeroDivisionError
    assert process.poll() is not None
    neighbour = busy_neighbour()
    process = neighbour.__enter__()
    process.kill()
    process.wait()
    with pytest.raises(RuntimeError, match="ended before"):
        neighbour.__exit__(None, None, None)


def test_a_busy_neighbour_leaves_when_who_started_it_is_gone():
    program = "import sys; sys.path.insert(0, {!r}); import neighbour\nwith neighbour.busy_neighbour() as process:\n"
    program += "    print(process.pid, flush=True); input()"
    starter = subprocess.Popen(
        [sys.executable, "-c", program.format(str(FEW.parent))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    pid = int(starter.stdout.readline())
    starter.kill()
    starter.communicate()
    for _ in range(1000):
        if gone(pid):
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the neighbour went on")


def gone(pid):
    """Whether a process has ended, be it that nobody has asked for its exit code yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_turns_go_forth_and_back_and_a_call_may_have_a_clock_of_its_own(import_benchmark):
    timing, made = import_benchmark("timing"), []
    taken = timing.time_every_call({name: lambda name=name: made.append(name) for name in "abc"}, 0)
    assert "".join(made) == "abc" + "abccba" * 2
    assert {name: len(times) for name, times in taken.items()} == dict.fromkeys("abc", 4)

    class Call(timing.Clocked):
        def shortest_of_block(self, block):
            made.append(block)
            return 7.0

    made.clear()
    taken = timing.time_alternately({"there": Call(), "here": lambda: None}, 0, 0.001)
    assert (made, taken["there"], len(taken["here"])) == ([0.001] * 3, [7.0] * 3, 3)


@pytest.fixture
def waking(import_benchmark):
    cython_kernels = pytest.importorskip("fastrnn.kernels.cython_kernels")
    return import_benchmark("few"), cython_kernels


def test_waking_is_measured_after_each_pause(waking, monkeypatch):
    few, kernels = waking
    made = []
    monkeypatch.setattr(kernels, "team_wake_time", lambda: made.append(1) or 2000.0, raising=False)
    monkeypatch.setattr(kernels, "team_bare_wake_time", lambda: 1000.0, raising=False)
    rows = [row["extra_info"] for row in few.measure_waking(5)]
    assert [(row["contender"], row["pause"], row["seconds"]) for row in rows] == [
        (name, pause, seconds) for pause in (0, 50, 1000) for name, seconds in (("a helper", 2e-6), ("a bare wake", 1e-6))
    ]  # fmt: skip
    assert len(made) == 3 * 5 * 2  # the one before the pause is not counted
    assert all(row["steps"] == 5 and row["percentiles"][0] == row["seconds"] for row in rows)


def test_waking_is_left_out_where_there_is_no_helper_or_no_word_of_it(waking, monkeypatch, capsys):
    few, kernels = waking
    monkeypatch.setattr(kernels, "team_wake_time", lambda: -1.0, raising=False)
    monkeypatch.setattr(kernels, "team_bare_wake_time", lambda: 1000.0, raising=False)
    assert [row["extra_info"]["contender"] for row in few.measure_waking(2)] == ["a bare wake"] * 3
    assert "left out: waking: a helper, which there is none of" in capsys.readouterr().err
    monkeypatch.delattr(kernels, "team_wake_time")
    assert list(few.measure_waking(2)) == []
    assert "left out: waking: these kernels have no team_wake_time" in capsys.readouterr().err


# ---- fit of the estimators --------------------------------------------------------------------------

FIT = STEPPER.with_name("fit.py")


@pytest.fixture
def fit(import_benchmark):
    for library in ("torch", "sklearn"):
        pytest.importorskip(library)
    return import_benchmark("fit_contenders")


def small_fits(fit):
    return {(case.data, case.form, case.cell): fit.quick(case) for case in fit.FITS}


def test_fit_and_the_loop_beside_it_pass_their_checks(fit, dtype):
    for case in small_fits(fit).values():
        ours, theirs, loop = fit.checked_fits(fit.replace(case, dtype=name_of(dtype)), 1, "numpy")
        assert list(ours.weights) == list(theirs.weights)
        for name, W in ours.weights.items():
            np.testing.assert_allclose(W, theirs.weights[name], rtol=0, atol=1e-4, err_msg=name)
        assert loop.fit()[1] == theirs.losses  # it begins anew


def test_what_is_noted_of_a_fit_is_taken_back(fit):
    from fastrnn.estimators import base

    train = base.train
    case = fit.quick(fit.FITS[0])
    _, plan = fit.train_ours(fit.replace(case, epochs=2), 1, "numpy")
    assert base.train is train
    assert plan.steps == 2 * 3
    for epoch in plan.order:
        assert sorted(np.concatenate(epoch)) == list(range(48))
    assert not np.array_equal(*(np.concatenate(epoch) for epoch in plan.order))


@pytest.mark.parametrize("fault", ["order", "weights", "end", "clip", "data", "steps"])
def test_a_loop_that_does_something_else_than_fit_is_not_timed(fit, monkeypatch, fault):
    from agreement import WrongResult

    case = small_fits(fit)["prefixes", "padded", "gru"]
    fit.checked_fits(case, 1, "numpy")
    if fault in ("order", "weights", "steps"):
        real = fit.train_ours

        def wrong(*given):
            trained, plan = real(*given)
            if fault == "order":
                plan.order = [epoch[::-1] for epoch in plan.order]
            elif fault == "steps":
                plan.order = plan.order[1:]
            else:
                plan.weights["weight_hh_l0"] *= 1.01
            return trained, plan

        monkeypatch.setattr(fit, "train_ours", wrong)
    elif fault == "end":
        monkeypatch.setattr(fit.Net, "last", lambda self, x, lengths: self.linear(self.layer(x)[0][:, -1]))
    elif fault == "clip":
        case = fit.replace(case, epochs=2)
        monkeypatch.setattr(fit, "LR", 0.1)
        train = fit.train_ours
        monkeypatch.setattr(fit, "train_ours", lambda *given: (train(*given), setattr(fit, "CLIP", 1e-3))[0])
    else:
        monkeypatch.setattr(
            fit, "_moments", lambda values: (values.mean(axis=0), 1.01 * values.std(axis=0) + 0.01)
        )
    with pytest.raises(WrongResult, match="their first 5 to 8 rows"):
        fit.checked_fits(case, 1, "numpy")


def test_training_steps_pass_their_check_and_wrong_ones_do_not(fit, monkeypatch, dtype):
    from agreement import WrongResult

    for cell in ("rnn", "gru", "lstm"):
        case = fit.Step(cell, 9, 5, 3, name_of(dtype))
        for step in fit.checked_steps(case, 1, "numpy"):
            assert step() == pytest.approx(step(), rel=1e-4)  # the one that is timed stays where it is
    real = fit.torch_step
    monkeypatch.setattr(fit, "torch_step", lambda case, batch, lr=0.0: real(case, batch, 1.01 * lr))
    with pytest.raises(WrongResult, match=r"-h9-T5-N3-float.., checked: loss 1"):
        fit.checked_steps(case, 1, "numpy")


@pytest.mark.few(0)
def test_the_program_of_fit_compares_and_keeps_what_it_measured(fit, tmp_path):
    file, threads = tmp_path / "fit.json", min(2, CORES)
    done = run_python(
        FIT, "--quick", "--backend", "numpy", "--data", "tagging", "--threads", threads, "--json", file
    )
    assert done.returncode == 0, done.stderr
    assert "| a tag for each step, both directions | GRU | h=8, N=16, T=30, float32, 3 steps |" in done.stdout
    rows = [row["extra_info"] for row in json.loads(file.read_text(encoding="utf-8"))["benchmarks"]]
    found = [(row["contender"], row["kind"], row["threads"]) for row in rows]
    expected = [
        ("numpy", "backend", threads), ("torch", "peer", threads), ("torch, one thread", "peer", 1),
    ]  # fmt: skip
    assert found == expected[: 1 + threads]
    shared = {"suite": "fit", "cell": "gru", "h": 8, "N": 16, "T": 30, "steps": 3, "cores": threads}
    assert all(row.items() >= shared.items() for row in rows)
    assert rows[0]["score"] == pytest.approx(rows[1]["score"], abs=0.05)


@pytest.mark.few(0)
def test_the_program_of_fit_times_steps(fit, tmp_path):
    file = tmp_path / "fit.json"
    done = run_python(
        FIT, "--quick", "--only", "step", "--backend", "numpy", "--hidden", 32, "--threads", 1, "--json", file
    )
    assert done.returncode == 0, done.stderr
    assert "| GRU | float32 | 32, 8, 32 |" in done.stdout
    rows = [row["extra_info"] for row in json.loads(file.read_text(encoding="utf-8"))["benchmarks"]]
    assert [(row["suite"], row["contender"]) for row in rows] == [
        ("fit step", "numpy"),
        ("fit step", "torch"),
    ]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--threads", 0], 2, "--threads must be 1 to"),
        (["--threads", 10_000], 2, "--threads must be 1 to"),
        (["--backend", "abacus"], 2, "--backend must be one of"),
        (["--hidden", 7], 2, "there is no such case"),
    ],
)
@pytest.mark.few(1)
def test_the_program_of_fit_refuses_what_it_cannot_measure(options, code, said):
    done = run_python(FIT, *options)
    assert (done.returncode, said in done.stderr) == (code, True)
