"""Type checkers on a user's program: they find nothing wrong in `typing/program.py`, and refuse each marked
line of `typing/wrong_calls.py`, and no other."""

import inspect
import json
import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

import fastrnn
from fastrnn import backends, cells, checks, functional, heads, hints, losses, optim
from fastrnn.functional.softmax import _REDUCTIONS

FOLDER = Path(__file__).resolve().parent / "typing"
MARK = "# expect-error"

#: Where the package under test is.  Checkers find an installed one by themselves.
PLACE = Path(fastrnn.__file__).parents[1]
INSTALLED = PLACE.name in ("site-packages", "dist-packages")


def mypy(folder):
    """Lines with errors, by file."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={folder / 'cache'}",
         "--no-error-summary", "--python-executable", sys.executable, *map(str, programs(folder))],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, **({} if INSTALLED else {"MYPYPATH": str(PLACE)})},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    errors = re.findall(r"^(\w+)\.py:(\d+): error: (.*)", done.stdout, re.MULTILINE)
    return [(name, int(line), message) for name, line, message in errors]


def basedpyright(folder):
    """The same by basedpyright, as strict as Pyright can be."""
    config = folder / "pyrightconfig.json"
    paths = [] if INSTALLED else [str(PLACE)]
    config.write_text(json.dumps({"typeCheckingMode": "strict", "extraPaths": paths}))
    programs(folder)
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(config)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return [
        (Path(found["file"]).stem, found["range"]["start"]["line"] + 1, found["message"])
        for found in json.loads(done.stdout)["generalDiagnostics"]
    ]


def programs(folder):
    """Copies of the programs, in a folder where nothing else could be found."""
    copies = []
    for program in sorted(FOLDER.glob("*.py")):
        copies.append(folder / program.name)
        copies[-1].write_text(program.read_text())
    return copies


@pytest.mark.slow
@pytest.mark.parametrize("check", [mypy, basedpyright], ids=["mypy", "basedpyright"])
def test_checkers_find_the_wrong_calls_and_no_others(check, tmp_path):
    if find_spec(check.__name__) is None and not os.environ.get("CI"):
        pytest.skip(f"{check.__name__} is not installed")
    lines = (FOLDER / "wrong_calls.py").read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if MARK in line}
    assert len(marked) > 50
    errors = check(tmp_path)
    assert [error for error in errors if error[0] != "wrong_calls"] == []
    found = {line for _, line, _ in errors}
    assert [lines[number - 1] for number in sorted(marked - found)] == []
    assert [error for error in errors if error[1] not in marked] == []


def test_the_program_runs(capsys):
    """Types that its calls do not have at run time would say nothing."""
    runpy.run_path(str(FOLDER / "program.py"), run_name="__main__")
    assert "'numpy'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("alias", "words"),
    [
        (hints.BackendName, backends.BACKENDS),
        (hints.Clip, set(checks.BATCH_CLIP_MODES) - {None}),
        (hints.StepClip, set(checks.CLIP_MODES) - {None}),
        (optim.OptimizerName, optim.OPTIMIZERS),
        (hints.Reduction, set(_REDUCTIONS) - {"none"}),
        (hints.HeadName, heads.HEADS),
        (hints.LossName, losses.LOSSES),
        (hints.CellName, cells.CELL_NAMES),
    ],
)
def test_aliases_have_the_words_that_are_taken(alias, words):
    assert set(get_args(alias)) == set(words)


def test_history_has_the_keys_that_it_is_said_to_have():
    model = fastrnn.CharRNN(4, seq_len=4, batch_size=1, epochs=1, diagnostics_every=1, verbose=0)
    entry = model.fit("hello world " * 4).history_[-1]
    assert set(entry) <= set(hints.HistoryEntry.__annotations__)
    assert set(hints.HistoryEntry.__annotations__) - set(entry) <= {"diagnostics"}


@pytest.mark.parametrize("module", [functional, hints, optim], ids=lambda module: module.__name__)
def test_dir_shows_what_is_public(module):
    assert dir(module) == sorted(module.__all__)


def test_importing_the_package_does_not_import_its_hints():
    code = "import sys, fastrnn.char_rnn, fastrnn.functional; print('fastrnn.hints' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "name", sorted({*fastrnn.__all__, "RNNClassifier", "RNNRegressor"} - {"__version__"})
)
def test_no_public_argument_is_any_or_lacks_a_type(name):
    member = getattr(fastrnn, name)
    inside = [getattr(member, n) for n in getattr(member, "__all__", [])] or [member]
    for thing in inside:
        methods = (
            [m for n, m in vars(thing).items() if not n.startswith("_")] if inspect.isclass(thing) else []
        )
        for function in [thing, *(getattr(m, "__func__", m) for m in methods)]:
            if not callable(function) or (inspect.isclass(function) and issubclass(function, Exception)):
                continue
            if not (getattr(function, "__module__", None) or "").startswith("fastrnn"):
                continue
            for parameter in inspect.signature(function).parameters.values():
                if parameter.name in ("self", "cls", "ax") or parameter.kind == parameter.VAR_KEYWORD:
                    continue
                assert parameter.annotation not in ("Any", parameter.empty), f"{function}: {parameter}"
