"""What README and guides say: their code runs and prints what stands there, their links lead somewhere,
and the README stays one screen.

Every fenced block is run, but for those that a comment above them excuses:

- ``python``: a program of its own.  What it prints is the plain block right after it; nothing, if there is
  none.  Those of the README are run on every backend.
- ``sh``: commands of ``fastrnn``, those of one page in one folder, in their order.
- ``<!-- not-run: reason -->`` above a block leaves it out, ``<!-- needs: package -->`` where that is missing; .ci/run
  has all of them.
"""

import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from mpi_support import need
from support import run_python

import fastrnn

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

#: Blocks of the README that .ci/run runs, by the name of their markers.
COMMANDS = ("demo-command", "test-command")

#: Languages of blocks that are no programs.
SHOWN = ("math",)

#: Seconds to train in these tests, in place of what the page says.
SECONDS = "0.3"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    #: The comment on the line above, without its brackets.
    comment: str
    #: Whether it begins right after another block: then it is what that one prints.
    follows: bool

    def __str__(self):
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def blocks_of(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    found, start, end_of_last = [], None, -9
    for i, line in enumerate(lines):
        if start is None and line.startswith("```"):
            start = i
        elif line == "```":
            above = re.fullmatch(r"<!-- (.*) -->", lines[start - 1]) if start else None
            text = "".join(f"{line}\n" for line in lines[start + 1 : i])
            comment = above[1] if above else ""
            follows = start - end_of_last <= 2
            found.append(Block(page, start + 1, lines[start][3:], text, comment, follows))
            start, end_of_last = None, i
    assert start is None, f"{page}: the block of line {start + 1} has no end"
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
EXCUSED = (
    "not-run: ",
    *(f"{name}:start" for name in COMMANDS),
    "output:start",
)  # the last is of tests/test_figures.py
PROGRAMS = [b for b in BLOCKS if b.language == "python" and not b.comment.startswith(EXCUSED)]
COMMAND_PAGES = [
    page
    for page in PAGES
    if any(b.language == "sh" and not b.comment.startswith(EXCUSED) for b in BLOCKS if b.page == page)
]


def output_of(block):
    """What a page says that a program prints."""
    after = BLOCKS[BLOCKS.index(block) + 1 :]
    if after and after[0].page == block.page and after[0].follows and after[0].language == "":
        return after[0].text
    return ""


def assert_prints_what_the_page_says(block, code, **environment):
    done = run_python("-c", code, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, output_of(block), ""), block


# -- code ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [b for b in PROGRAMS if b.page == README], ids=str)
def test_programs_of_the_readme(block, backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_prints_what_the_page_says(block, block.text, FASTRNN_BACKEND=backend)


@pytest.mark.few(4)
@pytest.mark.parametrize("block", [b for b in PROGRAMS if b.page != README], ids=str)
def test_programs_of_the_guides(block, tmp_path, monkeypatch):
    if block.comment.startswith("needs: "):
        need(block.comment.removeprefix("needs: "))
    monkeypatch.chdir(tmp_path)
    assert_prints_what_the_page_says(block, block.text)


def test_the_drop_in_prints_what_the_reference_prints():
    (block,) = (b for b in PROGRAMS if b.page == README and "import SimpleRNN" in b.text)
    code = block.text.replace("import SimpleRNN", "import ReferenceRNN as SimpleRNN")
    assert_prints_what_the_page_says(block, code)


@pytest.mark.few(1)
@pytest.mark.parametrize("page", COMMAND_PAGES, ids=lambda page: page.name)
def test_commands(page, tmp_path, monkeypatch):
    blocks = [
        b for b in BLOCKS if b.page == page and b.language == "sh" and not b.comment.startswith(EXCUSED)
    ]
    commands = [line for b in blocks for line in b.text.splitlines()]
    if any("--plot" in command for command in commands):
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("It was a dark and stormy night. " * 300, encoding="utf-8")
    Path("another.txt").write_text("It was a night.", encoding="utf-8")
    for command in commands:
        program, *arguments = shlex.split(re.sub(r"--seconds \d+", f"--seconds {SECONDS}", command))
        assert program == "fastrnn", f"{page}: {command!r} needs a comment that says why it is not run"
        done = run_python("-m", "fastrnn", *arguments)
        assert done.returncode == 0, f"{command}:\n{done.stderr}"
        assert done.stdout, command


def test_every_block_is_run_or_says_why_not():
    for block in BLOCKS:
        known = block.language in ("python", "sh", *SHOWN) or block.follows
        assert known or block.comment.startswith(EXCUSED), f"{block} is not run, and no comment says why"


def test_blocks_that_are_not_run_are_few_and_have_a_reason():
    excused = [block for block in BLOCKS if block.comment.startswith("not-run:")]
    assert all(len(block.comment.removeprefix("not-run:").split()) >= 3 for block in excused)
    assert len(excused) <= 6, [str(block) for block in excused]
    assert len(PROGRAMS) >= 8
    assert len(COMMAND_PAGES) >= 3


# -- the README ----------------------------------------------------------------------------------


def between(name, text):
    start, end = f"<!-- {name}:start -->\n", f"<!-- {name}:end -->"
    assert text.count(start) == text.count(end) == 1, f"markers {name}"
    return text.partition(start)[2].partition(end)[0]


def test_the_readme_is_one_screen():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert sum(line.startswith("|") for line in lines) <= 20
    assert sum("](" in line and line.startswith("![") for line in lines) == 1


def test_the_readmes_commands_are_where_ci_looks_for_them():
    for name in COMMANDS:
        lines = between(name, README.read_text(encoding="utf-8")).splitlines()
        assert len(lines) == 3, name
        assert lines[0] == "```sh"
        assert lines[1].startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_generated_parts_have_their_markers():
    readme = README.read_text(encoding="utf-8")
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for part in (between("headline", readme), between("benchmarks", readme), between("benchmarks", page)):
        assert part.strip()


def test_the_readmes_figures_are_those_of_the_page():
    """What the small table shows stands in the large ones too: both come from one run of the report."""
    readme = between("benchmarks", README.read_text(encoding="utf-8"))
    page = between("benchmarks", (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in readme.splitlines()[3:]]
    cells = {cell.strip() for line in page.splitlines() if line.startswith("|") for cell in line.split("|")}
    assert len(rows) >= 5
    for what, took, *_ in rows:
        figure = took.split()[0]
        assert any(cell.split()[:1] == [figure] for cell in cells), f"{what}: {took}"
    assert "**0." in readme, "a row that loses is left in"


# -- links ---------------------------------------------------------------------------------------


def anchors_of(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    heads = [
        re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", text, re.M)
    ]
    return {*heads, *re.findall(r'<a id="([^"]+)"></a>', text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if ".github" in file.parts and not (ROOT / ".github").exists():
            continue  # not in an sdist
        assert file.exists(), f"{page.name}: {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors_of(file), f"{page.name}: {target}"


def test_the_index_has_every_guide():
    listed = re.findall(
        r"^\| \[(\w+\.md)\]\(\1\)", (ROOT / "docs" / "README.md").read_text(encoding="utf-8"), re.M
    )
    assert sorted(listed) == sorted(
        page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"
    )


# -- the equations -------------------------------------------------------------------------------

NOTES = ROOT / "docs" / "notes.md"


def equations_named_in(text):
    """Numbers after "eq." or "eqs.", ranges filled in."""
    found = set()
    for part in re.findall(r"\b[Ee]qs?\.\s+(\d+(?:(?:, | to | and | or )\d+)*)", text):
        numbers = [int(n) for n in re.findall(r"\d+", part)]
        found |= set(range(numbers[0], numbers[-1] + 1)) if " to " in part else set(numbers)
    return found


def sources():
    for folder in (
        Path(fastrnn.__file__).parent,
        ROOT / "kernels",
        ROOT / "examples",
        ROOT / "benchmarks",
        ROOT / "docs",
    ):
        for file in sorted(folder.rglob("*")):
            if file.suffix in (".py", ".pyx", ".pxi", ".h", ".c", ".md") and file.name != "cython_kernels.c":
                yield file
    yield from (page for page in PAGES if page.parent == ROOT)


def test_every_equation_that_is_named_stands_in_the_notes():
    numbered = {int(n) for n in re.findall(r'<a id="eq-(\d+)"></a>', NOTES.read_text(encoding="utf-8"))}
    assert numbered == set(range(1, 18))
    named = {file: equations_named_in(file.read_text(encoding="utf-8")) for file in sources()}
    unknown = {str(file): sorted(found - numbered) for file, found in named.items() if found - numbered}
    assert not unknown
    assert set().union(*named.values()) == numbered


def test_each_equation_has_its_formula():
    parts = re.split(r'<a id="eq-\d+"></a>\n', NOTES.read_text(encoding="utf-8"))[1:]
    for number, part in enumerate(parts, 1):
        assert part.startswith(f"**Eq. {number}"), number
        assert part.count("```math\n") == 1, number


def test_the_notes_link_to_the_lines_that_compute():
    file = ROOT / "fastrnn" / "reference.py"
    lines = file.read_text(encoding="utf-8").splitlines()
    links = re.findall(
        r"\[`([^`]+)`\]\(\.\./fastrnn/reference\.py#L(\d+)\)", NOTES.read_text(encoding="utf-8")
    )
    assert len(links) >= 15
    for code, number in links:
        where = [i for i, line in enumerate(lines, 1) if line.partition("  #")[0].strip() == code]
        assert int(number) in where, f"{code!r} is at {where}, docs/notes.md says {number}"


def test_the_methods_that_the_notes_name_exist():
    names = re.findall(r"`ReferenceRNN\.(\w+)`", NOTES.read_text(encoding="utf-8"))
    assert {"forward", "backward", "_bptt", "loss_and_grads", "sample", "update_weights"} <= set(names)
    for name in names:
        assert hasattr(fastrnn.ReferenceRNN, name), name


@pytest.mark.parametrize("page", [page for page in PAGES if page != NOTES], ids=lambda page: page.name)
def test_an_equation_is_never_named_without_a_link(page):
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"\[[^\]]*\]\([^)]*\)", "", text)
    assert not re.findall(r"\b[Ee]qs?\.\s+\d+", text)


# -- versions ------------------------------------------------------------------------------------


def test_the_pythons_named_are_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(project["project"]["classifiers"]))
    built = [f"3.{n}" for n in re.findall(r"cp3(\d+)-", project["tool"]["cibuildwheel"]["build"])]
    assert built == classified
    assert f"Python {classified[0]} to {classified[-1]}" in README.read_text(encoding="utf-8")
    assert project["project"]["requires-python"] == f">={classified[0]}"
    workflow = ROOT / ".github" / "workflows" / "tests.yml"
    if workflow.exists():  # not in an sdist
        tested = set(re.findall(r'"(3\.\d+)"', workflow.read_text(encoding="utf-8")))
        assert tested == set(classified)


def test_release_checks_the_file_that_holds_the_version():
    workflow = ROOT / ".github" / "workflows" / "wheels.yml"
    if workflow.exists():  # not in an sdist
        (file,) = re.findall(r"__version__.* (fastrnn/\S+\.py)", workflow.read_text(encoding="utf-8"))
        assert f'\n__version__ = "{fastrnn.__version__}"\n' in (ROOT / file).read_text(encoding="utf-8")


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (\S+)$", text, re.M)[1] == fastrnn.__version__
