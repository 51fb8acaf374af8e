"""Change the Python code of fastrnn in one place at a time, and see whether a test notices.

    python testing/mutants.py                               # 300 mutants, chosen at random over all files
    python testing/mutants.py --sample 50 --seed 1 --show   # others, with those that survived
    python testing/mutants.py --files checks.py,text/*.py   # every mutant of some files
    python testing/mutants.py --files checkpoint.py --tests test_checkpoint.py,test_files.py

mutmut (version 3, ``pip install mutmut``) makes the mutants, on a copy: numbers, texts, operators,
arguments and values of all functions without a decorator; the kernels are left alone.  It notes which tests
reach which function, and runs those for each mutant until one fails.  Tests are left out that start
processes, or fail within the wrappers that mutmut puts around each function.

The score is a lower bound: the tests run on one backend, for each mutant as many as fit into `--budget`
seconds, and mutants that change nothing, or only the text of a message, count too.

pytest loads this file as a plugin: its hooks are at the end.  Ends with status 0: it is no gate.
"""

from __future__ import annotations

import collections
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import page
import pytest
from copied import Copy, copy_sources, install

#: Test files that are left out.
LEFT_OUT = {
    "of the kernels, which are not mutated": (
        "test_batched_kernels.py", "test_kernels.py", "test_numba_cache.py", "test_numba_code.py",
        "test_cython_wake_times.py", "test_team.py",
    ),
    "nearly all of them start processes": (
        "test_cli_streams.py", "test_hello.py", "test_harnesses.py", "test_install.py", "test_notebook.py",
        "test_examples.py", "test_resume.py",
    ),
    "they read the sources or docstrings, or take long for what they reach": (
        "test_docs.py", "test_docstrings.py", "test_doctests.py", "test_types.py", "test_demo.py",
        "test_report.py",
    ),
}  # fmt: skip

#: The others of a test that runs on each: the code above the kernels is the same, and Numba compiles first.
OTHER_BACKENDS = ("numpy", "numba")

#: What the tests read beside the package.
BESIDE = ("tests", "docs", "benchmarks", "examples", "README.md", "CHANGELOG.md", "pyproject.toml")

SETTINGS = """

[tool.mutmut]
source_paths = ["fastrnn"]
only_mutate = {files}
do_not_mutate = ["fastrnn/kernels/*"]
also_copy = {beside}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "mutants"]
pytest_add_cli_args_test_selection = {tests}
process_isolation = "forkserver"
timeout_multiplier = 5.0
timeout_constant = 5.0
use_git_change_detection = false
use_setproctitle = false
"""

#: How lines begin that show that mutmut is still at work.
SPINNER = tuple("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

#: Exit codes of pytest in a mutant's process, as mutmut names them; others are signs of a crash.
SURVIVED, NOT_REACHED, TIMED_OUT = (0,), (5, 33), (-24, 24, 36, 152, 255)


@dataclass(frozen=True)
class Mutant:
    """One change, and what the tests did."""

    name: str
    file: str
    outcome: str


# --- the project that mutmut works on


def put_together(made: Copy, arguments: Any) -> None:
    """Lay the package and the tests side by side, with mutmut's settings."""
    install(made)
    for name in BESIDE:
        (made.tree / name).rename(made.installed / name)
    (made.installed / "mutants").mkdir()  # Python looks no more into a folder of its path that was not there
    files = [f"fastrnn/{name}" for name in arguments.files] or ["fastrnn/*"]
    tests = [f"tests/{name}" for name in arguments.tests or tests_of(made)]
    text = SETTINGS.format(files=json.dumps(files), beside=json.dumps(BESIDE), tests=json.dumps(tests))
    with (made.installed / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(text)


def tests_of(made: Copy) -> list[str]:
    out = {name for names in LEFT_OUT.values() for name in names}
    return sorted(file.name for file in (made.installed / "tests").glob("test_*.py") if file.name not in out)


def run_mutmut(made: Copy, arguments: Any, names: Iterable[str]) -> str:
    """Run it to its end; what it printed."""
    # It asks to be run as `mutmut`, a program that need not be on the path.
    started = "import sys; from mutmut.__main__ import cli; sys.argv[0] = 'mutmut'; cli()"
    command = [sys.executable, "-c", started, "run", "--max-children", str(arguments.jobs), *names]
    path = os.pathsep.join([str(made.installed / "mutants"), str(page.ROOT / "testing")])
    environment = made.environment(
        PYTHONPATH=path,
        MUTANTS_UNFIT=str(made.folder / "unfit.txt"),
        NUMBA_CACHE_DIR=str(made.folder / "numba"),
    )
    done = subprocess.run(
        command, cwd=made.installed, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.replace("\r", "\n").splitlines()
    return "\n".join(line for line in lines if line.strip() and not line.startswith(SPINNER))


def record(made: Copy, arguments: Any) -> None:
    """Make the mutants, and note which tests reach which function."""
    said = run_mutmut(made, arguments, ["none"])
    if not stats_file(made).exists() or "nothing matches" not in said:
        raise SystemExit(f"mutmut did not get so far as to choose mutants:\n{said[-4000:]}")


# --- which mutants, and which tests for each


def stats_file(made: Copy) -> Path:
    return made.installed / "mutants" / "mutmut-stats.json"


def results(made: Copy) -> Iterator[tuple[str, str, int | None]]:
    """Name, file and exit code of each mutant."""
    root = made.installed / "mutants"
    for meta in sorted(root.glob("fastrnn/**/*.py.meta")):
        file = meta.relative_to(root).as_posix().removesuffix(".meta")
        for name, code in json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"].items():
            yield name, file, code


def choose(made: Copy, arguments: Any) -> list[str]:
    names = sorted(name for name, _, _ in results(made))
    number = arguments.sample or (len(names) if arguments.files or arguments.all else 300)
    return names if number >= len(names) else sorted(random.Random(arguments.seed).sample(names, number))


def keep_within(made: Copy, budget: float) -> None:
    """Take tests away from functions that more of them reach than there is time for."""
    noted = json.loads(stats_file(made).read_text(encoding="utf-8"))
    seconds: dict[str, float] = noted["duration_by_test"]
    reached = noted["tests_by_mangled_function_name"]
    noted["tests_by_mangled_function_name"] = {
        function: within(tests, seconds, budget) for function, tests in reached.items()
    }
    stats_file(made).write_text(json.dumps(noted), encoding="utf-8")


def within(tests: Iterable[str], seconds: dict[str, float], budget: float) -> list[str]:
    """The shortest ones in half of the time, in the rest one case of each test of which there is none yet."""
    ranked = sorted(tests, key=lambda test: (seconds[test], test))
    kept, names, spent = [], set(), 0.0
    for test in ranked:
        name = test.partition("[")[0]
        if not kept or spent + seconds[test] <= (budget if name not in names else budget / 2):
            spent += seconds[test]
            names.add(name)
            kept.append(test)
    return kept


def outcome(code: int | None) -> str:
    if code in SURVIVED:
        return "survived"
    if code in NOT_REACHED:
        return "not reached"
    if code in TIMED_OUT:
        return "timed out"
    return "not run" if code is None else "killed"


def judge(made: Copy, arguments: Any) -> list[Mutant]:
    """Run the tests on the chosen mutants."""
    chosen = choose(made, arguments)
    print(f"{len(list(results(made)))} mutants, of which {len(chosen)} are tried", flush=True)
    said = run_mutmut(made, arguments, chosen if len(chosen) < len(list(results(made))) else ())
    wanted = set(chosen)
    tried = [Mutant(name, file, outcome(code)) for name, file, code in results(made) if name in wanted]
    if any(mutant.outcome == "not run" for mutant in tried):
        print(f"mutmut did not run them all:\n{said[-2000:]}")
    return [mutant for mutant in tried if mutant.outcome != "not run"]


# --- what is shown


OUTCOMES = ("killed", "survived", "timed out", "not reached")
HEAD = ("File", "Mutants", *(word.capitalize() for word in OUTCOMES), "Score, %")


def row(name: str, mutants: list[Mutant]) -> tuple[object, ...]:
    counts = collections.Counter(mutant.outcome for mutant in mutants)
    score = 100 * (counts["killed"] + counts["timed out"]) / len(mutants)
    return (name, len(mutants), *(counts[word] for word in OUTCOMES), f"{score:.1f}")


def rows(mutants: list[Mutant]) -> list[tuple[object, ...]]:
    """One for each file, and their sum."""
    files: dict[str, list[Mutant]] = collections.defaultdict(list)
    for mutant in mutants:
        files[mutant.file].append(mutant)
    return [*(row(file, files[file]) for file in sorted(files)), row("all", mutants)]


def difference(made: Copy, mutant: Mutant) -> str:
    """The lines that were changed, before and after, as one line."""
    code = "import sys; from mutmut.mutation.diff_apply import get_diff_for_mutant as get; "
    code += "print(get(sys.argv[1], path=sys.argv[2]))"
    done = subprocess.run(
        [sys.executable, "-c", code, mutant.name, mutant.file], cwd=made.installed, env=made.environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return " ".join(" ".join(line.split()) for line in lines) or done.stderr.strip()


def show(made: Copy, mutants: list[Mutant], survivors: bool) -> None:
    for cells in [HEAD, *rows(mutants)]:
        print(f"{cells[0]!s:40}" + "".join(f"{cell!s:>12}" for cell in cells[1:]))
    for mutant in mutants if survivors else []:
        if mutant.outcome in ("survived", "not reached"):
            print(f"{mutant.outcome}: {mutant.name}: {difference(made, mutant)}", flush=True)


def figures(mutants: list[Mutant], seconds: float) -> str:
    return f"{page.table(HEAD, rows(mutants))}\n\n{seconds / 60:.0f} minutes, on one core."


# --- the plugin of pytest, in mutmut's processes


def mode() -> str:
    """What mutmut does at the time: "stats", "" for a clean run, the name of a mutant..."""
    return os.environ.get("MUTANT_UNDER_TEST", "")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Import the package that is mutated before conftest.py looks for an installed one."""
    import fastrnn

    subprocess.Popen.__init__ = no_process  # type: ignore[method-assign]
    place = Path(fastrnn.__file__).resolve()
    if not place.is_relative_to(Path.cwd().resolve()):
        raise RuntimeError(f"{place} is not the mutated copy")


def no_process(*arguments: Any, **options: Any) -> None:
    """In place of what starts one: mutmut does not see what is reached in another process."""
    raise OSError("no process is started here")


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave out other backends, and what fails with mutmut's wrappers; of named tests short ones come first."""
    unfit = Path(os.environ["MUTANTS_UNFIT"])
    left_out = set(unfit.read_text(encoding="utf-8").splitlines()) if unfit.exists() else set()
    named = any("::" in argument for argument in config.args)
    if named and not mode():
        items[:] = items[::20]  # all over again, without a mutant: the recording run has seen them pass
    kept, others = [], []
    for item in items:
        (others if item.nodeid in left_out or another_backend(item) else kept).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = sorted(kept, key=seconds_of()) if named else kept


def another_backend(item: Any) -> bool:
    return "callspec" in vars(item) and item.callspec.params.get("backend") in OTHER_BACKENDS


def seconds_of() -> Callable[[Any], float]:
    """How long each test took when mutmut made its notes; it runs the tests in the folder that they are in."""
    notes = Path("mutmut-stats.json")
    noted = json.loads(notes.read_text(encoding="utf-8"))["duration_by_test"] if notes.exists() else {}
    return lambda item: float(noted.get(item.nodeid, 0.0))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: Any) -> Generator[None, Any, Any]:
    """Note a test that fails without a mutant, to leave it out from then on.

    It starts a process, or sees mutmut's wrappers: a warning, say, is traced to them, not to the caller.
    """
    report = yield
    if mode() in ("stats", "") and report.failed:
        with Path(os.environ["MUTANTS_UNFIT"]).open("a", encoding="utf-8") as file:
            file.write(f"{item.nodeid}\n")
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, "fails in mutmut's wrappers")
    return report


def names_of(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main() -> int:
    parser = page.parser(__doc__)
    parser.add_argument("--sample", type=int, help="so many mutants, chosen at random (300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=names_of, default=[], help="of fastrnn/, all their mutants")
    parser.add_argument("--all", action="store_true", help="every mutant of every file; takes days")
    parser.add_argument("--tests", type=names_of, help="files of tests/, in place of those chosen here")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of tests for a mutant (60)")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time (1)")
    parser.add_argument("--show", action="store_true", help="list those that no test noticed")
    arguments = parser.parse_args()
    if importlib.util.find_spec("mutmut") is None:
        raise SystemExit("mutmut is not installed: pip install 'mutmut>=3'")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        made = copy_sources(Path(folder).resolve())
        put_together(made, arguments)
        record(made, arguments)
        keep_within(made, arguments.budget)
        print(f"recorded in {time.perf_counter() - start:.0f} s", flush=True)
        mutants = judge(made, arguments)
        show(made, mutants, arguments.show)
        seconds = time.perf_counter() - start
        print(f"{seconds:.0f} s")
    if arguments.write:
        page.write("mutants", figures(mutants, seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
