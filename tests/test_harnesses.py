"""What `refusals`, `guarded` and the checks before single steps are timed are there to find, they find."""

import json
import math
import sys
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
