"""The notebook in examples/ runs, shows what it is there for, and is kept without outputs."""

import base64
import importlib.util
import json
import re
from pathlib import Path

import pytest
from support import run_python

# Not imported here: a process that has ipykernel shows bars as a notebook does.
missing = [
    name for name in ("nbclient", "nbformat", "ipykernel", "matplotlib") if not importlib.util.find_spec(name)
]
if missing:
    pytest.skip(f"needs {', '.join(missing)}", allow_module_level=True)

NOTEBOOK = Path(__file__).resolve().parent.parent / "examples" / "07_in_a_notebook.ipynb"

RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Code of each cell -> what it showed, one dict of MIME types for each output."""
    folder = tmp_path_factory.mktemp("notebook")
    done = run_python(
        "-c", RUN, NOTEBOOK, folder / "executed.ipynb", cwd=folder,
        FASTRNN_BACKEND="numpy", OMP_NUM_THREADS="1", IPYTHONDIR=str(folder),
        JUPYTER_RUNTIME_DIR=str(folder / "runtime"), JUPYTER_PREFER_ENV_PATH="1",  # this Python's kernel
        MPLBACKEND="module://matplotlib_inline.backend_inline",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    executed = json.loads((folder / "executed.ipynb").read_text(encoding="utf-8"))
    found = {}
    for cell in executed["cells"]:
        if cell["cell_type"] == "code":
            assert not [output for output in cell["outputs"] if output.get("name") == "stderr"]
            outputs = [output.get("data", {"text/plain": output.get("text")}) for output in cell["outputs"]]
            found[_joined(cell["source"])] = [
                {kind: _joined(data) for kind, data in output.items()} for output in outputs
            ]
    return found


def _joined(text):
    """A text, which a file may hold as its lines."""
    return text if isinstance(text, str) else "".join(text)


def shown(cells, ending):
    """What the cell showed whose code ends so."""
    (outputs,) = (outputs for code, outputs in cells.items() if code.endswith(ending))
    (output,) = outputs
    return output


def pictures(html):
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    return [base64.b64decode(data) for data in found]


def test_models_show_what_they_are(cells):
    before, after = (shown(cells, ending)["text/html"] for ending in ("verbose=0)\nmodel", "model.fit(text)"))
    assert "not yet: call fit" in before
    assert "CharRNN(48, seq_len=32" in re.sub("hidden_size=", "", after)
    assert "whole epochs" in after
    assert "parameter" not in before


def test_results_show_their_sentences_and_a_picture(cells):
    for ending, words in (
        ("\nflow", "Gradients on their way back: CharRNN, 48 tanh units, on 199 characters."),
        ("diagnose(model, text)", "What people do about it"),
    ):
        html = shown(cells, ending)["text/html"]
        assert words in html
        (picture,) = pictures(html)
        assert picture.startswith(b"\x89PNG")


def test_history_shows_a_table_and_a_curve(cells):
    html = shown(cells, "model.history_")["text/html"]
    assert 2 < html.count("<tr>") <= 22
    assert len(pictures(html)) == 1


def test_figure_shows_itself(cells):
    # Nothing imports pyplot, so it is not matplotlib that does.
    assert base64.b64decode(shown(cells, "flow.plot()")["image/png"]).startswith(b"\x89PNG")


def test_sample(cells):
    assert shown(cells, "random_state=0))")["text/plain"].startswith("7 times 8 is ")


def test_notebook_is_kept_small_and_without_outputs():
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert NOTEBOOK.stat().st_size < 20_000
    for cell in content["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
