"""The notebook in examples/ runs, shows what it is there for, and is kept without outputs."""

import base64
import json
import re
from pathlib import Path

import pytest
from support import package_environment

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

# What the tools that run notebooks say about each other is not about fastrnn.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NOTEBOOK = Path(__file__).resolve().parent.parent / "examples" / "05_in_a_notebook.ipynb"


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Code of each cell -> what it showed, one dict of MIME types for each output."""
    folder = tmp_path_factory.mktemp("notebook")
    environment = package_environment(
        FASTRNN_BACKEND="numpy", OMP_NUM_THREADS="1", IPYTHONDIR=str(folder),
        MPLCONFIGDIR=str(folder / "matplotlib"),
    )  # fmt: skip
    environment.pop("MPLBACKEND", None)  # as in a notebook, where it is the inline one
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")  # this Python's kernel
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        client.execute(env=environment)
    assert not [o for cell in notebook.cells for o in cell.get("outputs", []) if o.get("name") == "stderr"]
    return {
        cell.source: [o.get("data", {"text/plain": o.get("text", "")}) for o in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


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
