"""`fastrnn.figures`: what is drawn, labels with units, no pyplot, and the message without matplotlib."""

import itertools
import math
import pickle
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import run_python

from fastrnn import RNN, CharRNN, SimpleRNN, diagnostics, figures
from fastrnn.diagnostics import diagnose, glyphs

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


@pytest.mark.few(4)
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


@pytest.mark.few(0)
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


# -- what can be read in every picture ---------------------------------------------------------------

#: Characters of scripts that matplotlib's own fonts lack, that print nothing, or that are half of one.
SCRIPTS = "\u4e2d\u6587 \u65e5\u672c\u306e\ud55c\uad6d\U0001f642\U0001f680\u0639\u05d0 \t\n\r\x00\x7f\u200b\u0301\ue000$_^\\%\u00e9"


def laid_out(figure):
    """All that drawing does, but no pixels; whatever warns is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()


def texts_of(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


@pytest.fixture(scope="module")
def pictures(model, results):
    made = {name: result.plot() for name, result in results.items()}
    made["share"] = figures.plot_gradient_share({"one": results["flow"], "two": results["flow"]})
    made["history"] = figures.plot_history(model.history_)
    made["training"] = figures.plot_clipping(model.history_)
    for figure in made.values():
        laid_out(figure)
    return made


EVERY = ("flow", "memory", "states", "spectrum", "saturation", "clipping", "diagnosis", "share", "history",
         "training")  # fmt: skip


@pytest.mark.few(1)
@pytest.mark.parametrize("name", EVERY)
def test_legends_are_off_the_curves_and_in_the_picture(name, pictures):
    figure = pictures[name]
    for ax in figure.axes:
        legend = ax.get_legend()
        if legend is None:
            continue
        box = legend.get_window_extent()
        assert not any(box.overlaps(other.bbox) for other in figure.axes)
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 + 1
        # Below the name of its own axis too.
        assert box.y1 <= ax.xaxis.label.get_window_extent().y0 + 1
    assert sum(ax.get_legend() is not None for ax in figure.axes) == {"states": 0, "diagnosis": 4}.get(
        name, 1
    )


@pytest.mark.parametrize("name", EVERY)
def test_pictures_can_be_read_where_they_are_800_pixels_wide(name, pictures):
    figure = pictures[name]
    shrunk = min(1, 800 / figure.bbox.width)
    for ax in figure.axes:
        texts = [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label]
        for text in texts + ([] if ax.get_legend() is None else ax.get_legend().get_texts()):
            if text.get_text():
                assert text.get_fontsize() * figure.dpi / 72 * shrunk >= 7, text


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("history", "training", "diagnosis")])
def test_titles_say_the_model_and_the_text(name, pictures):
    title = pictures[name].axes[0].get_title(loc="left")
    first, second = title.split("\n", 1)
    assert first
    wanted = "CharRNN, 70 tanh units" if name == "spectrum" else "CharRNN, 70 tanh units, on "
    assert second.startswith(wanted)


def test_titles_of_other_models():
    layer = RNN(3, 6, 2, nonlinearity="relu", bidirectional=True, rng=0, backend="numpy")
    x = np.random.default_rng(0).normal(size=(9, 4, 3)).astype("f")
    result = diagnostics.saturation(layer, x, layer=0, direction=1)
    assert (result.model, result.read) == (
        "RNN, 6 relu units, layer 0 (from 0) of 2, read backwards", "4 sequences of 9 time steps"
    )  # fmt: skip
    (ax,) = result.plot().axes
    assert len(ax.lines) == 2  # nothing is said of saturated units
    matrix = diagnostics.spectrum(np.eye(3)).plot()
    assert "\n" not in matrix.axes[0].get_title(loc="left")


def test_history_takes_a_second_line(model):
    for draw in (figures.plot_history, figures.plot_clipping):
        figure = draw(model.history_, subtitle="CharRNN on $1 & $2_\u4e2d.txt")
        assert figure.axes[0].get_title(loc="left").endswith("\nCharRNN on " + r"\$1 & \$2_" + "\u25a1.txt")
        laid_out(figure)


def test_page_says_once_what_it_is_of(results):
    figure = replace(results["diagnosis"], source="a $b$ c.txt").plot()
    d = results["diagnosis"]
    assert figure.get_suptitle() == (
        f"CharRNN, 70 tanh units, on {d.passages} passages of {d.steps} characters of a \\$b\\$ c.txt"
    )
    for ax in figure.axes:
        assert "CharRNN" not in ax.get_title(loc="left")


def test_units_are_numbered(results):
    states = results["states"]
    figure = states.plot(units=9)
    ax = figure.axes[0]
    laid_out(figure)
    shown = [int(number) for number in texts_of(ax.yaxis)]
    assert len(shown) == 9
    assert np.array_equal(ax.images[0].get_array(), states.states[:60, shown].T.astype(float))
    # More than there is room for: every so many of them.
    figure = IN_MATPLOTLIB.Figure(figsize=(4, 2), layout="constrained")
    ax = figure.add_subplot()
    states.plot(units=70, ax=ax)
    laid_out(figure)
    labels = ax.get_yticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert 3 < len(labels) < 70
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_time_steps_without_a_text_count_from_one():
    layer = RNN(3, 6, rng=0, backend="numpy")
    states = diagnostics.hidden_states(layer, np.ones((40, 1, 3), "f"))
    figure = states.plot(start=10)
    laid_out(figure)
    ax = figure.axes[0]
    low, high = ax.get_xlim()
    at = [(t, text) for t, text in zip(ax.get_xticks(), texts_of(ax.xaxis), strict=True) if low <= t <= high]
    assert at
    assert all(int(text) == t + 11 for t, text in at)


def test_class_indices_are_not_called_characters():
    rnn = SimpleRNN(12, 6, 12, rng=0, backend="numpy")
    axes = diagnostics.hidden_states(rnn, [0, 11, 3]).plot().axes[0]
    assert axes.get_xlabel() == "class index read at each time step"
    assert all(tick.get_rotation() == 90 for tick in axes.get_xticklabels() if tick.get_text() == "11")
    assert diagnostics.hidden_states(rnn, [0, 1, 3]).plot().axes[0].get_xlabel().startswith("what was read")


def test_every_character_has_a_sign():
    states = diagnostics.HiddenStates(
        np.random.default_rng(0).normal(size=(len(SCRIPTS), 5)), list(SCRIPTS), model=SCRIPTS, read=SCRIPTS
    )
    figure = states.plot()
    laid_out(figure)  # a glyph that is missing would warn
    ax = figure.axes[0]
    shown = dict(zip(SCRIPTS, ax.get_xticklabels(), strict=True))
    texts = {c: tick.get_text() for c, tick in shown.items()}
    assert texts["\t"] == "\u21e5"
    assert texts["\x00"] == "0000"
    assert texts["\u200b"] == "200B"
    assert texts["\u0301"] == "\u25cc\u0301"
    assert texts["\u00e9"] == "\u00e9"
    assert {texts["\u4e2d"]} <= {"\u4e2d", "4E2D"}  # as the machine has a font for it or not
    assert all((shown[c].get_rotation() == 90) == (len(texts[c]) >= 4) for c in SCRIPTS)
    assert "code point" in ax.get_xlabel()
    boxes = [tick.get_window_extent() for tick in ax.get_xticklabels()]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_a_font_that_has_the_character_is_found(tmp_path):
    font_manager = pytest.importorskip("matplotlib.font_manager")
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000)
    pen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((0, 700)), pen.lineTo((700, 700)), pen.closePath()
    outline, odd = pen.glyph(), "\U0002f8ff"  # no font has a sign there
    builder.setupGlyphOrder([".notdef", "odd"])
    builder.setupCharacterMap({ord(odd): "odd"})
    builder.setupGlyf({".notdef": outline, "odd": outline})
    builder.setupHorizontalMetrics({".notdef": (800, 0), "odd": (800, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Fastrnn Test", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    file = tmp_path / "test.ttf"
    builder.save(file)
    assert glyphs.signs([odd], "monospace") == [("2F8FF", None, "point")]
    manager = font_manager.fontManager
    manager.addfont(str(file))
    try:
        # One that was removed since is passed over.
        gone = replace(manager.ttflist[-1], fname=str(tmp_path / "gone.ttf"), name="Unifont")
        manager.ttflist.append(gone)
        assert glyphs.signs([odd, "a"], "monospace") == [
            (odd, "Fastrnn Test", "itself"),
            ("a", None, "itself"),
        ]
        figure = diagnostics.HiddenStates(np.zeros((2, 2)), [odd, "a"]).plot()
        laid_out(figure)
        assert figure.axes[0].get_xticklabels()[0].get_fontfamily() == ["monospace", "Fastrnn Test"]
    finally:
        del manager.ttflist[-2:]


def test_bars_begin_at_zero():
    for norm, threshold in (
        (152.0, 5.0),
        (1e8, 5.0),
        (1e-12, 5.0),
        (0.0, 5.0),
        (math.inf, 5.0),
        (math.nan, 5.0),
    ):
        report = diagnostics.ClipReport(
            threshold, norm, norm, {"value": 0.0034, "norm": 1.0}, {"value": norm / 2, "norm": threshold}, 10
        )
        figure = report.plot()
        laid_out(figure)
        (ax,) = figure.axes
        assert ax.get_yscale() == "linear"
        assert ax.get_ylim()[0] == 0
        heights = [bar.get_height() for bar in ax.patches]
        assert heights == [
            norm if math.isfinite(norm) else 0,
            norm / 2 if math.isfinite(norm) else 0,
            threshold,
        ]
        words = [text.get_text() for text in ax.texts]
        assert "changes 0.3%\nof the entries" in words[1] or "changes 0.34%" in words[1]
        # All words are within the axes.
        assert all(text.get_window_extent().y1 <= ax.bbox.y1 for text in ax.texts)


def test_threshold_far_above_the_bars_is_said():
    report = diagnostics.ClipReport(1e6, 1.0, 0.5, {"norm": 0.0}, {"norm": 1.0}, 10)
    (ax,) = report.plot().axes
    assert ax.get_ylim()[1] < 2
    (text,) = ax.get_legend().get_texts()
    assert "not in the picture" in text.get_text()


def test_shares_are_percent(results, pictures):
    assert "40%" in texts_of(pictures["saturation"].axes[0].yaxis)
    assert "100%" in texts_of(pictures["share"].axes[0].yaxis)
    tiny = replace(results["flow"], share=np.geomspace(1e-14, 1, 39))
    shown = figures.plot_gradient_share({"tiny": tiny})
    laid_out(shown)
    labels = texts_of(shown.axes[0].yaxis)
    assert any(label.startswith("$10^{-") for label in labels)
    assert all(label.endswith("%") for label in labels if label)
    history = [{"step": i, "grad_norm": 1.0, "diagnostics": {"clipped": 0.5}} for i in (1, 2)]
    figure = figures.plot_clipping(history)
    laid_out(figure)
    assert "40%" in texts_of(figure.axes[1].yaxis)


def test_gradient_share_of_several_nets(results):
    flows = {"a": results["flow"], "b": replace(results["flow"], share=results["flow"].share * 2)}
    (ax,) = figures.plot_gradient_share(flows).axes
    assert np.array_equal(ax.lines[1].get_ydata(), 2 * results["flow"].share[::-1])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    with pytest.raises(ValueError, match="at least one GradientFlow, got none"):
        figures.plot_gradient_share({})


def test_panels_that_share_an_axis_have_the_same_limits():
    figure = IN_MATPLOTLIB.Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for ax, radius in zip(axes, (0.3, 1.0, 1.7), strict=True):
        rnn = SimpleRNN(3, 16, 3, rng=0, backend="numpy")
        rnn.Whh = radius * np.linalg.qr(rnn.Whh)[0]
        diagnostics.jacobian_norms(rnn, [0, 1, 2] * 10).plot(ax=ax)
    laid_out(figure)
    low, high = axes[0].get_ylim()
    for ax in axes:
        assert ax.get_ylim() == (low, high)
        for line in ax.lines:
            values = np.asarray(line.get_ydata())
            assert low < values.min()
            assert values.max() < high


def test_bound_is_in_the_picture_or_the_legend_says_where_it_goes(results):
    def drawn(bound, norms):
        memory = replace(results["memory"], bound=bound, norms=norms, lags=np.arange(1, len(norms) + 1))
        (ax,) = memory.plot().axes
        line = ax.lines[-1]
        assert "Bengio" in line.get_label()
        low, high = ax.get_ylim()
        if len(line.get_ydata()):
            assert low < min(line.get_ydata())
            assert max(line.get_ydata()) < high
            return ""
        return line.get_label()

    falling = 0.3 ** np.arange(1.0, 31)
    assert drawn(0.5, falling) == ""
    assert drawn(1.5, falling) == ""
    assert drawn(1.2, np.full(30, 2.0)) == ""
    assert "not in the picture, it rises to 9.31e+20" in drawn(5.0, np.full(30, 2.0))
    assert "not in the picture" in drawn(0.0, falling)
    assert "not in the picture" in drawn(math.inf, falling)


def test_figures_without_a_layout_keep_their_legend_inside(results):
    figure = IN_MATPLOTLIB.Figure()
    ax = figure.add_subplot()
    results["flow"].plot(ax=ax)
    laid_out(figure)
    box = ax.get_legend().get_window_extent()
    assert ax.bbox.x0 < box.x0 < box.x1 < ax.bbox.x1
    assert ax.bbox.y0 < box.y0 < box.y1 < ax.bbox.y1


def test_figures_show_themselves_without_pyplot(results):
    figure = results["flow"].plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert type(pickle.loads(pickle.dumps(figure))) is type(figure)


@pytest.mark.few(1)
@pytest.mark.parametrize("a", [0.0, 1e-320, 1e300, math.inf, math.nan])
def test_no_number_stops_a_picture(a):
    for values in (np.full(5, a), np.array([a, 1e300, math.nan, 0.0, 1e-320])):
        b = float(values[1])
        history = [
            {"step": i, "train_nats": x, "valid_nats": x, "grad_norm": x} for i, x in enumerate(values)
        ]
        for figure in (
            diagnostics.GradientFlow(values, values, values, values, b, a, "sum", 0, 0).plot(),
            diagnostics.JacobianNorms(np.arange(1, 6), values, a, b, a, b, b, 3, "exact", 0, 0).plot(),
            diagnostics.HiddenStates(values[:, None] * [1.0, 1.0], list("abcde")).plot(),
            figures.plot_history(history),
            figures.plot_clipping(history),
        ):
            laid_out(figure)
    laid_out(diagnostics.ClipReport(5.0, a, a, {"norm": 1.0}, {"norm": a}, 10).plot())
    laid_out(diagnostics.Spectrum(np.full(3, a, complex), np.full(3, a), a).plot())


def test_one_record_is_seen():
    (ax,) = figures.plot_history([{"step": 1, "train_nats": 2.0}]).axes
    assert ax.lines[0].get_marker() == "o"
