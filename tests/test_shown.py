"""What results, models and histories say of themselves: printed, as `repr`, and in a notebook."""

import copy
import html.parser
import importlib
import json
import math
import pickle
import re
import sys
import warnings
from dataclasses import fields, replace

import numpy as np
import pytest
from support import run_python

import fastrnn
from fastrnn import RNN, CharRNN, LanguageModel, SequenceModel, SimpleRNN, diagnostics
from fastrnn.diagnostics import diagnose
from fastrnn.diagnostics import words as numbers_in
from fastrnn.shown import ROWS, escape
from fastrnn.text.history import History

TEXT = "the cat <b>sat</b> & slept. <script>alert('x')</script>\n" * 12

RESULTS = (
    "flow",
    "memory",
    "spectrum",
    "saturation",
    "clipping",
    "states",
    "check",
    "parameter",
    "diagnosis",
)


def fit(**options):
    options = {"seq_len": 16, "batch_size": 4, "epochs": 2, "random_state": 0, "backend": "numpy"} | options
    return CharRNN(20, **options, verbose=0).fit(TEXT)


@pytest.fixture(scope="module")
def model():
    return fit()


@pytest.fixture(scope="module")
def results(model):
    check = diagnostics.gradcheck(model, TEXT[:20], entries=5)
    return {
        "flow": diagnostics.gradient_flow(model, TEXT[:40]),
        "memory": diagnostics.jacobian_norms(model, TEXT[:40]),
        "spectrum": diagnostics.spectrum(model),
        "saturation": diagnostics.saturation(model, TEXT[:40]),
        "clipping": diagnostics.clip_report(model, TEXT[:40]),
        "states": diagnostics.hidden_states(model, TEXT[:40]),
        "check": check,
        "parameter": check.worst,
        "diagnosis": diagnose(model, TEXT),
    }


class _Page(html.parser.HTMLParser):
    """Tags and text of a page, and whether every tag was closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page_of(shown):
    """The parsed HTML of an object: no scripts, nothing from elsewhere, no colours of its own."""
    source = shown._repr_html_()
    source.encode("utf-8")
    page = _Page(source)
    assert {tag for tag, _ in page.tags} <= {
        "div", "p", "pre", "code", "table", "thead", "tbody", "tr", "th", "td", "img"
    }  # fmt: skip
    for _, attributes in page.tags:
        assert attributes.keys() <= {"style", "src", "alt"}
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        style = attributes.get("style", "")
        assert not re.search(r"#|rgb|url|color: (?!inherit)|background: (?!none)", style)
    return page


# -- printed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in RESULTS if name not in ("check", "diagnosis")])
def test_printed_results_are_a_few_sentences(name, results):
    text = str(results[name])
    lines = text.splitlines()
    assert 2 <= len(lines) <= 8
    assert "array" not in text
    for line in lines:
        assert line[-1] in ".!", line
        assert line[0].isupper() or line.startswith(("clip=", results["parameter"].name)), line


@pytest.mark.parametrize("name", RESULTS)
def test_repr_is_the_type_and_sizes(name, results):
    text = repr(results[name])
    assert len(text) < 90
    assert text.startswith(f"<{type(results[name]).__name__}: ")
    assert re.search(r"\d", text)
    assert "array" not in text


def test_sentences_have_the_numbers(results):
    flow, memory, states = results["flow"], results["memory"], results["states"]
    assert f"{flow.loss:.3g} nats" in str(flow)
    assert "CharRNN, 20 tanh units, on 39 characters" in str(flow)
    assert f"{memory.half_life:.3g} steps" in str(memory)
    assert f"Bengio et al. for one step is {memory.bound:.3g}" in str(memory)
    assert f"{results['spectrum'].spectral_radius:.3g} a step" in str(results["spectrum"])
    assert numbers_in.percent(float(results["saturation"].saturated.mean())) in str(results["saturation"])
    assert f"norm is {results['clipping'].norm_before:.3g}" in str(results["clipping"])
    assert repr(TEXT[:40]) in str(states)
    most = int(np.argmax(states.states.std(axis=0)))
    assert f"Unit {most} (counted from 0) varies most" in str(states)


@pytest.mark.parametrize(("radius", "word"), [(0.3, "It vanishes"), (1.0, "It holds"), (1.8, "It explodes")])
def test_what_becomes_of_the_gradient_has_a_word(radius, word):
    rnn = SimpleRNN(3, 32, 3, rng=0, backend="numpy")
    rnn.Whh = radius * np.linalg.qr(rnn.Whh)[0]
    flow = diagnostics.gradient_flow(rnn, [0, 1, 2] * 5, [1, 2, 0] * 5)
    assert word in str(flow)
    assert ("below 1%" in str(flow)) == (radius < 1)


def test_sentences_of_odd_numbers():
    rnn = SimpleRNN(3, 8, 3, rng=0, backend="numpy")
    inputs = [0, 1, 2] * 5
    rnn.Whh = np.zeros((8, 8))
    assert "sends no gradient back" not in str(diagnostics.gradient_flow(rnn, inputs, inputs))
    assert "Nothing comes through" in str(diagnostics.jacobian_norms(rnn, inputs))
    rnn.Why = np.zeros((3, 8))
    assert "sends no gradient back at all" in str(diagnostics.gradient_flow(rnn, inputs, inputs))
    flow = diagnostics.gradient_flow(rnn, inputs[:1], inputs[:1])
    assert "Gradients on their way back" in str(flow)
    bad = replace(flow, share=np.array([math.nan]), from_last_step=np.array([math.nan]), loss=math.inf)
    assert "NaN or infinity" in str(bad)
    assert "infinity nats" in str(bad)
    report = diagnostics.clip_report(rnn, inputs, inputs)
    assert "no clipping mends that" in str(replace(report, norm_before=math.nan))


def test_a_relu_is_not_called_saturated():
    layer = RNN(3, 8, nonlinearity="relu", rng=0, backend="numpy")
    result = diagnostics.saturation(layer, np.random.default_rng(0).normal(size=(9, 3)).astype("f"))
    assert "saturated" not in str(result)
    assert "are 0 and pass no gradient" in str(result)


def test_gradcheck_prints_a_verdict_and_a_row_for_each_parameter(results):
    lines = str(results["check"]).splitlines()
    assert lines[0] == "The gradients agree with central differences."
    assert "0.001 is allowed" in lines[1]
    assert [line.split()[0] for line in lines[3:]] == [p.name for p in results["check"].parameters]


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0%"), (1, "100%"), (0.123, "12%"), (0.0123, "1.2%"), (0.00034, "0.03%"), (1e-6, "less than 0.01%"),
     (0.9999, "almost 100%"), (0.995, "almost 100%"), (1.5, "150%"), (170, "170 times"), (math.nan, "NaN"),
     (math.inf, "infinity")],
)  # fmt: skip
def test_percent(share, words):
    assert numbers_in.percent(share) == words


def test_results_can_be_made_as_before():
    spectrum = diagnostics.Spectrum(np.ones(2, complex), np.ones(2), 1.0)
    assert spectrum.model == ""
    assert str(spectrum).startswith("Recurrent weights Whh, 2 x 2.\n")
    report = diagnostics.ClipReport(5.0, 1.0, 0.5, {"norm": 0.0}, {"norm": 1.0}, 10)
    assert str(report).startswith("Gradients of 10 weights.\n")
    assert report == pickle.loads(pickle.dumps(report))
    last = [field.name for field in fields(diagnostics.GradientFlow) if not field.kw_only][-1]
    assert last == "direction"


# -- diagnose ----------------------------------------------------------------------------------------


def test_diagnose_is_public():
    assert "diagnose" in diagnostics.__all__
    assert dir(diagnostics) == sorted(diagnostics.__all__)
    assert diagnostics.diagnose is importlib.import_module("fastrnn.diagnostics.report").diagnose
    assert all(hasattr(diagnostics, name) for name in diagnostics.__all__)
    assert not hasattr(diagnostics, "nothing")


def test_diagnose_is_imported_when_it_is_asked_for():
    done = run_python(
        "-c",
        "import sys, fastrnn.diagnostics\n"
        "print([m for m in ('matplotlib', 'fastrnn.diagnostics.report', 'html') if m in sys.modules])\n"
        "from fastrnn.diagnostics import *\n"
        "print(diagnose.__module__, Diagnosis.__name__)",
    )
    assert done.stdout == "[]\nfastrnn.diagnostics.report Diagnosis\n"


# -- in a notebook -----------------------------------------------------------------------------------


@pytest.mark.few(3)
@pytest.mark.parametrize("name", RESULTS)
def test_results_show_their_sentences_and_picture(name, results):
    pytest.importorskip("matplotlib")
    page = page_of(results[name])
    assert str(results[name]) in page.text
    assert len([tag for tag, _ in page.tags if tag == "img"]) == (name not in ("check", "parameter"))


def test_results_without_matplotlib_show_their_sentences(results, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "fastrnn.diagnostics.notebook_figure"):
        monkeypatch.setitem(sys.modules, name, None)
    page = page_of(results["flow"])
    assert page.text == str(results["flow"])
    assert "img" not in {tag for tag, _ in page.tags}


def test_a_picture_that_cannot_be_drawn_does_not_take_the_words_away(results, monkeypatch):
    pytest.importorskip("matplotlib")

    def broken(*_, **__):
        raise ValueError("<no> picture")

    monkeypatch.setattr("fastrnn.diagnostics.gradients.plot_gradient_flow", broken)
    page = page_of(results["flow"])
    assert page.text == f"{results['flow']}There is no picture of this: <no> picture"


def test_char_rnn_shows_what_it_is_and_what_it_has_come_to(model):
    before = page_of(CharRNN(20, lr=0.5))
    assert before.text.startswith("CharRNN(hidden_size=20, lr=0.5)")
    assert "not yet: call fit" in before.text
    after = page_of(model)
    assert f"{model.step_} steps, {model.epoch_} whole epochs" in after.text
    assert repr(model.vocabulary_.characters) in after.text  # with < and >, as text
    assert f"{model.model_.num_parameters:,} numbers" in after.text
    assert f"{model.history_[-1]['train_nats']:.4g} nats per character" in after.text
    assert "those of the last step" in after.text


def test_markup_in_hyper_parameters_and_texts_is_text(model):
    odd = CharRNN(unknown="<script>alert(1)</script>", checkpoint="<img src=x>&amp;")
    assert "<script>alert(1)</script>" in page_of(odd).text
    assert "<img src=x>&amp;" in page_of(odd).text
    assert "<script>" in page_of(diagnostics.hidden_states(model, TEXT[26:50])).text
    assert escape("<\ud800&\"'>") == "&lt;\\ud800&amp;&quot;&#x27;&gt;"
    states = diagnostics.HiddenStates(np.zeros((2, 3)), ["<", "\ud800"], model="</pre><script>")
    assert "</pre><script>" in page_of(states).text


def test_layers_show_their_parameters():
    for shown, arrays in (
        (layer := RNN(3, 4, 2, bidirectional=True), layer.parameters),
        (lm := LanguageModel(9, 4), lm.parameters),
        (sm := SequenceModel(3, 4, 2, bidirectional=True, head="mean", loss="gaussian"), sm.parameters),
        (
            rnn := SimpleRNN(3, 4, 5, rng=0),
            {name: getattr(rnn, name) for name in ("Wxh", "Whh", "Why", "bh", "by")},
        ),
    ):
        page = page_of(shown)
        assert page.text.startswith(repr(shown))
        for name, W in arrays.items():
            assert f"{name}{' x '.join(map(str, W.shape))}{W.size:,}" in page.text
        assert f"all{shown.num_parameters:,}" in page.text


def test_long_tables_are_cut():
    layer = RNN(3, 4, 12)
    page = page_of(layer)
    assert len([tag for tag, _ in page.tags if tag == "tr"]) == 1 + ROWS + 2
    assert f"and {48 - ROWS} more" in page.text
    assert f"all{layer.num_parameters:,}" in page.text


# -- histories ---------------------------------------------------------------------------------------


def test_history_is_a_list(model, tmp_path):
    history = model.history_
    plain = list(history)
    assert isinstance(history, list)
    assert history == plain
    assert plain == history
    assert json.loads(json.dumps(history)) == json.loads(json.dumps(plain))
    assert repr(history) == repr(plain)
    for again in (copy.copy(history), copy.deepcopy(history), pickle.loads(pickle.dumps(history))):
        assert type(again) is History
        assert again == history
    assert history[1:] == plain[1:]
    assert history + [] == plain
    model.save(tmp_path / "model")
    loaded = CharRNN.load(tmp_path / "model")
    assert type(loaded.history_) is History
    assert loaded.history_ == history
    length = len(loaded.history_)
    loaded.partial_fit(TEXT)
    assert type(loaded.history_) is History
    assert len(loaded.history_) > length
    assert type(pickle.loads(pickle.dumps(model)).history_) is History


@pytest.mark.parametrize("n", [1, ROWS, ROWS + 1, 1000])
def test_history_shows_a_table_from_first_to_last(n):
    pytest.importorskip("matplotlib")
    history = History({"step": 10 * i, "train_nats": 3.0 / i, "valid_nats": None} for i in range(1, n + 1))
    page = page_of(history)
    assert len([tag for tag, _ in page.tags if tag == "tr"]) == 1 + min(n, ROWS)
    assert ("of which 20 are shown" in page.text) == (n > ROWS)
    assert page.text.endswith(f"{10 * n:,}{f'{3 / n:.4g}'.removesuffix('.0')}")
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 1


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{}],
        [{"step": 1}],
        [{"step": 1, "train_nats": math.nan, "valid_nats": math.inf, "lr": -math.inf}],
        [{"step": 1, "train_nats": "<script>", "valid_nats": None}],
        [{"step": 10**400, "train_nats": 1e308, "valid_nats": 1e308}],
        ["<script>", None],
    ],
)
def test_odd_histories_are_shown(records):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = page_of(History(records))
    assert "record" in page.text


def test_models_of_an_empty_history_are_shown(model):
    again = copy.deepcopy(model)
    again.history_.clear()
    assert "trained" in page_of(again).text
    assert fastrnn.CharRNN is CharRNN
