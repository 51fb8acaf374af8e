"""`fastrnn.figures`: what is drawn, labels with units, no pyplot, and the message without matplotlib."""

import math
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from support import run_python

from fastrnn import CharRNN, SimpleRNN, diagnostics, figures
from fastrnn.diagnose_report import diagnose

IN_MATPLOTLIB = pytest.importorskip("matplotlib.figure")

TEXT = "the cat sat on the mat, and $5 bought a hat. \n\t" * 20


@pytest.fixture(scope="module")
def model():
    options = {"seq_len": 16, "batch_size": 4, "epochs": 2, "random_state": 0, "backend": "numpy"}
    return CharRNN(70, **options, verbose=0).fit(TEXT)


@pytest.fixture(scope="module")
def results(model):
    return {
        "flow": diagnostics.gradient_flow(model, TEXT[:40]),
        "memory": diagnostics.jacobian_norms(model, TEXT[:40]),
        "states": diagnostics.hidden_states(model, TEXT[:60]),
        "spectrum": diagnostics.spectrum(model),
        "saturation": diagnostics.saturation(model, TEXT[:40]),
        "clipping": diagnostics.clip_report(model, TEXT[:40], threshold=0.5),
        "diagnosis": diagnose(model, TEXT),
    }


def rendered(figure, tmp_path):
    """Pixels of the picture; whatever warns of a missing glyph or a cut label is an error."""
    file = tmp_path / "picture.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(file)
    import matplotlib.image

    return matplotlib.image.imread(file)


@pytest.mark.parametrize(
    ("name", "axes"),
    [("flow", 1), ("memory", 1), ("states", 2), ("spectrum", 1), ("saturation", 1), ("clipping", 1),
     ("diagnosis", 6)],
)  # fmt: skip
def test_every_result_has_a_picture(name, axes, results, tmp_path):
    figure = results[name].plot()
    assert isinstance(figure, IN_MATPLOTLIB.Figure)
    assert len(figure.axes) == axes
    pixels = rendered(figure, tmp_path)
    assert pixels[..., :3].std() > 0.05
    for ax in figure.axes:
        if ax.get_title(loc="left"):
            assert ax.get_xlabel()
            assert ax.get_ylabel()
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_lines_are_the_results(results):
    flow, memory = results["flow"], results["memory"]
    (ax,) = flow.plot().axes
    total, last, terms = (line.get_ydata() for line in ax.lines)
    assert np.array_equal(total, flow.total)
    assert np.array_equal(last, flow.from_last_step)
    assert np.isnan(terms[0])  # the first state is zero, and so is its term
    assert np.array_equal(terms[1:], flow.dWhh_terms[1:])
    assert ax.get_yscale() == "log"
    (ax,) = memory.plot().axes
    measured, fit, bound = ax.lines
    assert np.array_equal(measured.get_ydata(), memory.norms)
    steps = np.diff(np.log(fit.get_ydata()))
    assert np.allclose(steps, -memory.decay_rate)
    assert np.allclose(bound.get_ydata(), memory.bound**memory.lags)
    assert f"{memory.half_life:.3g} steps" in fit.get_label()
    low, high = ax.get_ylim()
    assert low < memory.norms.min()
    assert memory.norms.max() < high


def test_heat_map_has_the_text_under_it(results):
    states = results["states"]
    ax = states.plot(units=7, steps=50, start=5).axes[0]
    image = ax.images[0].get_array()
    assert image.shape == (7, 50)
    shown = [tick.get_text() for tick in ax.get_xticklabels()]
    assert len(shown) == 50
    assert shown[:4] == ["a", "t", "\u2423", "s"]  # TEXT[5:9], a space made visible
    assert r"\$" in shown  # not the beginning of mathematics
    assert {"\u23ce", "\u21e5"} <= set(shown)
    for words in ("\u2423 blank", "\u23ce line break", "\u21e5 tab"):
        assert words in ax.get_xlabel()
    wanted = states.states[5:55]
    varies = set(np.argsort(-wanted.std(axis=0), kind="stable")[:7])
    assert {tuple(row) for row in np.round(image, 6)} == {
        tuple(row) for row in np.round(wanted[:, sorted(varies)].T.astype(float), 6)
    }
    with pytest.raises(ValueError, match="start must be less than the 60 time steps, got 60"):
        states.plot(start=60)


def test_figures_draw_into_the_axes_they_are_given(results):
    figure = IN_MATPLOTLIB.Figure()
    left, right = figure.subplots(1, 2)
    assert results["flow"].plot(ax=left) is figure
    assert results["memory"].plot(ax=right) is figure
    assert left.lines
    assert right.lines


def test_clipping_over_a_training(tmp_path):
    history = [{"step": 10 * i, "grad_norm": 10.0 / i} for i in range(1, 9)]
    history[3]["diagnostics"] = {"clipped": 1.0}
    history.append({"step": 90, "grad_norm": None})
    figure = figures.plot_clipping(history, threshold=3.0)
    norms, clipped = figure.axes[0].lines[:2]
    assert norms.get_xdata().tolist() == [10 * i for i in range(1, 9)]
    assert clipped.get_xdata().tolist() == [10, 20, 30]
    assert "38%" in clipped.get_label()
    assert len(figure.axes) == 2  # the share of entries has an axis of its own
    rendered(figure, tmp_path)
    with pytest.raises(ValueError, match="'grad_norm', got none"):
        figures.plot_clipping([{"step": 1}])


def test_history_of_a_model_can_be_drawn(model, tmp_path):
    rendered(figures.plot_clipping(model.history_, threshold=model.clip_threshold), tmp_path)


def test_loss_curve_shows_both_losses_and_the_best(tmp_path):
    history = [
        {"step": 10 * i, "train_nats": 3.0 - 0.2 * i, "valid_nats": nats}
        for i, nats in enumerate([None, 2.9, None, 2.5, 2.6], 1)
    ]
    figure = figures.plot_history(history)
    rendered(figure, tmp_path)
    train, valid, best = figure.axes[0].get_lines()
    assert train.get_xydata().tolist() == [[10.0 * i, 3.0 - 0.2 * i] for i in range(1, 6)]
    assert valid.get_xydata().tolist() == [[20, 2.9], [40, 2.5], [50, 2.6]]
    assert best.get_ydata()[0] == 2.5
    assert best.get_label() == "best: 2.500 nats after step 40"


@pytest.mark.parametrize("valid", [None, math.nan])
def test_loss_curve_without_a_validation(valid, tmp_path):
    history = [{"step": i, "train_nats": 1.0 / i, "valid_nats": valid} for i in (1, 2, 3)]
    rendered(figures.plot_history(history), tmp_path)
    with pytest.raises(ValueError, match="got none"):
        figures.plot_history([])


def test_what_explodes_or_vanishes_can_be_drawn(tmp_path):
    rnn = SimpleRNN(3, 8, 3, rng=0, backend="numpy")
    inputs = [0, 1, 2] * 5
    for Whh in (np.zeros((8, 8)), 1e200 * np.eye(8)):
        rnn.Whh = Whh
        for result in (
            diagnostics.gradient_flow(rnn, inputs, inputs),
            diagnostics.jacobian_norms(rnn, inputs),
            diagnostics.spectrum(rnn),
        ):
            rendered(result.plot(), tmp_path)
    rnn.Wxh[...] = np.nan
    rendered(diagnostics.gradient_flow(rnn, inputs, inputs).plot(), tmp_path)
    report = diagnostics.clip_report(rnn, inputs, inputs)
    assert math.isnan(report.norm_before)
    rendered(report.plot(), tmp_path)
    rendered(diagnostics.hidden_states(rnn, inputs).plot(), tmp_path)


def test_without_matplotlib_the_message_names_the_extra(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "sys.modules['matplotlib'] = sys.modules['matplotlib.figure'] = None\n"
        "import fastrnn\n"
        "rnn = fastrnn.SimpleRNN(3, 8, 3, rng=0)\n"
        "flow = fastrnn.diagnostics.gradient_flow(rnn, [0, 1, 2], [1, 2, 0])\n"
        "try:\n"
        "    flow.plot()\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    done = run_python(program, FASTRNN_BACKEND="numpy")
    assert done.returncode == 0, done.stderr
    assert "pip install 'fastrnn[plot]'" in done.stdout


def test_diagnostics_do_not_import_matplotlib(tmp_path):
    done = run_python(
        "-c", "import fastrnn.diagnostics, fastrnn.figures, sys; print('matplotlib' in sys.modules)"
    )
    assert done.stdout == "False\n"


def test_the_example_makes_the_pictures_of_the_page(tmp_path):
    root = Path(__file__).resolve().parent.parent
    page = (root / "docs" / "gradient_flow.md").read_text(encoding="utf-8")
    done = run_python(root / "examples" / "gradient_flow.py", tmp_path / "out", FASTRNN_BACKEND="numpy")
    assert done.returncode == 0, done.stderr
    made = {f"images/{file.name}" for file in (tmp_path / "out").iterdir()}
    assert made == set(re.findall(r"\]\((images/[^)]*)\)", page))
    assert all((root / "docs" / name).exists() for name in made)
    # What training gives depends on the last digits; what is measured before it does not.
    measured = done.stdout.partition("\nTraining")[0]
    assert "1.8e-15" in measured
    assert measured in page
