"""`CharRNN`: training, validation, history, sampling, scoring, scikit-learn's conventions."""

import codecs
import contextlib
import copy
import inspect
import io
import itertools
import math
import pickle
import re
import sys
import time
import warnings
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from support import run_python

import fastrnn
from fastrnn import CharRNN, LanguageModel, TextError, optim
from fastrnn.diagnostics import gradient_flow
from fastrnn.diagnostics.report import diagnose
from fastrnn.text import batches as streams_module
from fastrnn.text import reading as texts
from fastrnn.text import sampling as char_rnn_module
from fastrnn.text import scoring as scoring_module
from fastrnn.text import training as training_module
from fastrnn.text.batches import Streams
from fastrnn.text.scoring import mean_cross_entropy

TEXT = "the cat sat on the mat,\nthe dog lay on the log.\n" * 25
SHAKESPEARE = Path(__file__).resolve().parents[2] / "shared" / "data" / "tinyshakespeare.txt"


def small(text=None, **params):
    defaults = {"hidden_size": 12, "seq_len": 8, "batch_size": 4, "epochs": 2, "random_state": 0, "lr": 0.01,
                "verbose": 0}  # fmt: skip
    model = CharRNN(**defaults | params)
    return model if text is None else model.fit(text)


@pytest.fixture(scope="module")
def fitted():
    return small(TEXT, hidden_size=24, epochs=25, backend="numpy")


def weights_equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def parameters(model):
    return model.model_.parameters


# -- streams ---------------------------------------------------------------------------------------


@hypothesis.given(
    st.integers(2, 400), st.integers(1, 20), st.integers(1, 9), st.integers(1, 100), st.integers(0, 5)
)
def test_chunks_follow_the_text(n, seq_len, batch_size, block, start):
    indices = np.random.default_rng(0).integers(0, 250, n).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams_module, "BLOCK", block)
        streams = Streams(indices, seq_len, batch_size)
        T, N = streams.seq_len, streams.num_streams
        assert min(seq_len, n - 1) == T
        assert max(1, min(batch_size, (n - 1) // T)) == N
        length = (n - 1) // N
        assert streams.steps == length // T >= 1
        for _ in range(2):  # an epoch after the other
            taken = [(x.copy(), y.copy()) for x, y in streams.chunks(start)]
            assert len(taken) == max(0, streams.steps - start)
            for step, (x, y) in enumerate(taken, start):
                for j in range(N):
                    begin = j * length + step * T
                    np.testing.assert_array_equal(x[:, j], indices[begin : begin + T])
                    np.testing.assert_array_equal(y[:, j], indices[begin + 1 : begin + T + 1])
    for x, y in streams.chunks():
        assert x.flags.c_contiguous and y.flags.c_contiguous and x.dtype == y.dtype == np.int64  # noqa: PT018


def naive_cross_entropy(model, indices, first, begin=0):
    """Over one stream, one character at a time, from a state of zero before the one at `begin`."""
    h, losses = model.initial_state(1), []
    for i in range(begin, len(indices) - 1):
        logits, h = model.forward([[indices[i]]], h)
        p = logits[0, 0].astype(float)
        losses.append(np.log(np.exp(p - p.max()).sum()) + p.max() - p[indices[i + 1]])
    return np.mean(losses[first - 1 - begin :])


def test_cross_entropy_of_a_text(backend):
    lm = LanguageModel(5, 7, 2, dtype=np.float64, rng=0, backend=backend)
    indices = np.random.default_rng(1).integers(0, 5, 450).astype(np.uint8)
    for first in (1, 60, 300):
        got = mean_cross_entropy(lm, indices, first, shortest=10**6)
        begin = first - 1 - scoring_module.WARM_UP if first > scoring_module.WARM_UP else first - 1
        assert got == pytest.approx(naive_cross_entropy(lm, indices, first, begin), rel=1e-12)


def test_cross_entropy_in_parallel_is_that_of_one_stream(backend, monkeypatch):
    lm = LanguageModel(5, 7, dtype=np.float64, rng=0, backend=backend)
    indices = np.random.default_rng(1).integers(0, 5, 1003).astype(np.uint8)
    one = mean_cross_entropy(lm, indices, shortest=10**6)
    for shortest in (140, 200, 333, 501):
        assert mean_cross_entropy(lm, indices, shortest=shortest) == pytest.approx(one, rel=1e-9)
    monkeypatch.setattr(scoring_module, "CHUNK", 50)
    assert mean_cross_entropy(lm, indices, shortest=200) == pytest.approx(one, rel=1e-9)
    monkeypatch.setattr(scoring_module, "WARM_UP", 1)  # what the warm-up is for
    assert mean_cross_entropy(lm, indices, shortest=140) != pytest.approx(one, rel=1e-7)


def test_cross_entropy_within_a_limit():
    lm = LanguageModel(5, 7, dtype=np.float64, rng=0, backend="numpy")
    indices = np.random.default_rng(1).integers(0, 5, 2001).astype(np.uint8)
    parts = []
    for place in (1, 501, 1001, 1501):
        begin = max(0, place - 1 - scoring_module.WARM_UP)
        parts.append(naive_cross_entropy(lm, indices[: place + 25], place, begin))
    got = mean_cross_entropy(lm, indices, shortest=500, limit=100)
    assert got == pytest.approx(np.mean(parts), rel=1e-12)


# -- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "rmsprop", "adam"])
def test_fit_is_the_loop_over_the_language_model(backend, name):
    model = small(TEXT, optimizer=name, lr_decay=0.5, epochs=3, num_layers=2, dropout=0.2, backend=backend,
                  clip="value", clip_threshold=0.1)  # fmt: skip
    indices = model.vocabulary_.encode(TEXT)
    train = indices[: len(indices) - round(0.1 * len(indices))]
    rng = np.random.default_rng(0)
    lm = LanguageModel(len(set(TEXT)), 12, 2, dropout=0.2, rng=rng, backend=backend)
    optimizer = optim.OPTIMIZERS[name](lr=0.01, backend=backend)
    length = (len(train) - 1) // 4
    losses = []
    for epoch in range(3):
        h = lm.initial_state(4)
        optimizer.lr = 0.01 * 0.5**epoch
        for step in range(length // 8):
            begin = np.arange(4) * length + step * 8
            rows = np.stack([train[b : b + 9] for b in begin], axis=1)
            loss, h = lm.train_step(rows[:-1], rows[1:], h, optimizer, clip="value", clip_threshold=0.1)
            losses.append(loss)
    assert weights_equal(parameters(model), lm.parameters)
    assert model.step_ == len(losses)
    seen = 0
    for entry in model.history_:
        assert entry["train_nats"] == pytest.approx(np.mean(losses[seen : entry["step"]]), rel=1e-12)
        seen = entry["step"]
    assert seen == len(losses)
    assert model.history_[-1]["valid_nats"] == pytest.approx(
        mean_cross_entropy(lm, indices, len(train), shortest=512), rel=1e-9
    )


def test_it_learns(backend):
    model = small(TEXT, hidden_size=24, epochs=30, lr=0.02, backend=backend)
    assert model.history_[0]["train_nats"] > 1.8
    assert model.history_[-1]["train_nats"] < 0.1
    assert model.history_[-1]["valid_nats"] < 0.1
    assert model.generate(12, "the cat", temperature=0) == " sat on the "


def test_history():
    model = small(TEXT, epochs=3, lr_decay=0.5, clip_threshold=0.01)
    per_epoch = model.step_ // 3
    assert per_epoch == ((len(TEXT) - round(len(TEXT) * 0.1) - 1) // 4) // 8
    steps = [entry["step"] for entry in model.history_]
    ends = [per_epoch, 2 * per_epoch, 3 * per_epoch]
    assert steps == sorted({*range(10, 3 * per_epoch, 10), *ends})
    for entry in model.history_:
        assert list(entry) == [
            "step", "epoch", "train_nats", "valid_nats", "grad_norm", "lr", "chars_per_second"
        ]  # fmt: skip
        assert entry["epoch"] == (entry["step"] - 1) // per_epoch + 1
        assert entry["lr"] == 0.01 * 0.5 ** (entry["epoch"] - 1)
        assert (entry["valid_nats"] is not None) == (entry["step"] in ends)
        assert entry["grad_norm"] > 0.01  # before clipping
        assert entry["chars_per_second"] > 0
    assert model.epoch_ == 3


def test_a_long_history_has_some_thousand_entries(monkeypatch):
    def steps_with_an_entry(last):
        step, steps = 0, []
        while step < last:
            step += 1
            if step % training_module._record_every(step) == 0:
                steps.append(step)
        return steps

    steps = steps_with_an_entry(300_000)
    assert steps[:3] == [10, 20, 30]
    assert len(steps) < 2000
    # From wherever one looks, the next entry is the same.
    wanted = iter(steps)
    due = next(wanted)
    for step in range(1, 60_000):
        if step == due:
            due = next(wanted)
        n = training_module._record_every(step)
        assert step - step % n + n == due

    monkeypatch.setattr(training_module, "HISTORY_DOUBLING", 10)
    model = small(TEXT, max_steps=200, validation_fraction=0)
    per_epoch = (len(TEXT) - 1) // 4 // 8
    assert [e["step"] for e in model.history_] == sorted(
        {*range(10, 161, 10), 176, 192, 200, *range(per_epoch, 201, per_epoch)}
    )


def test_validation_every_so_many_steps_and_at_the_end():
    model = small(TEXT, validate_every=7, max_steps=24)
    assert [e["step"] for e in model.history_ if e["valid_nats"] is not None] == [7, 14, 21, 24]
    assert model.step_ == 24
    assert small(TEXT, validation_fraction=0).history_[-1]["valid_nats"] is None


def test_validation_does_not_change_training():
    models = [
        small(TEXT, validation_fraction=0.2, validate_every=n, dropout=0.3, num_layers=2) for n in (None, 3)
    ]
    assert weights_equal(parameters(models[0]), parameters(models[1]))


def test_only_so_much_is_validated(monkeypatch):
    asked = []
    real = mean_cross_entropy
    monkeypatch.setattr(
        training_module, "mean_cross_entropy", lambda *a, **o: asked.append(o["limit"]) or real(*a, **o)
    )
    small(TEXT, epochs=1)
    assert asked == [1 << 20]


def fake_validations(monkeypatch, values):
    values = iter(values)
    monkeypatch.setattr(training_module, "mean_cross_entropy", lambda *a, **o: next(values))


def test_the_best_weights_are_kept(monkeypatch):
    fake_validations(monkeypatch, [3.0, 2.0, 2.5, 2.0, 2.2])
    model = small(TEXT, epochs=5, validation_fraction=0.2)
    fake_validations(monkeypatch, [3.0, 2.0])
    two = small(TEXT, epochs=2, validation_fraction=0.2)
    assert (model.best_valid_nats_, model.best_step_, model.weights_) == (2.0, two.step_, "last")
    assert weights_equal(model.best_weights_, parameters(two))
    last = {name: W.copy() for name, W in parameters(model).items()}
    assert weights_equal(last, model.last_weights_)
    assert not weights_equal(last, model.best_weights_)
    assert model.use_weights("best") is model
    assert weights_equal(parameters(model), model.best_weights_)
    assert weights_equal(last, model.last_weights_)
    assert model.use_weights("best").use_weights("last").weights_ == "last"
    assert weights_equal(parameters(model), last)
    with pytest.raises(ValueError, match="which must be one of 'last', 'best', got 'first'"):
        model.use_weights("first")
    with pytest.raises(ValueError, match="no validation was made"):
        small(TEXT, validation_fraction=0).use_weights("best")


@pytest.mark.filterwarnings("ignore:checkpoint is None")
def test_patience(monkeypatch):
    fake_validations(monkeypatch, [3.0, 2.0, 2.5, 2.0, 1.0])
    model = small(TEXT, epochs=50, patience=2)
    assert model.epoch_ == 4
    assert (model.best_valid_nats_, model.weights_) == (2.0, "best")
    assert weights_equal(parameters(model), model.best_weights_)
    assert model.fit(TEXT, resume=True).epoch_ == 4  # its patience is at an end
    assert model.weights_ == "best"
    fake_validations(monkeypatch, [1.0] * 9)
    model.set_params(patience=3, epochs=6).fit(TEXT, resume=True)
    assert (model.epoch_, model.best_valid_nats_) == (6, 1.0)


def test_limits():
    assert small(TEXT, max_steps=7, epochs=1).step_ == 7
    assert small(TEXT, max_steps=100, epochs=1).step_ == 100  # more than an epoch
    started = time.perf_counter()
    model = small(TEXT, epochs=None, max_seconds=0.3)
    assert 0.3 <= time.perf_counter() - started < 60  # for ever, without the limit
    assert model.epoch_ > 2
    assert model.history_[-1]["step"] == model.step_
    assert model.history_[-1]["valid_nats"] is not None


def test_the_same_bits_with_any_number_of_threads(backend):
    models = [
        small(TEXT, num_threads=n, batch_size=16, dropout=0.2, num_layers=2, backend=backend)
        for n in (1, 2, 3)
    ]
    for model in models[1:]:
        assert weights_equal(parameters(model), parameters(models[0]))
        assert model.generate(30, random_state=1) == models[0].generate(30, random_state=1)


def test_random_state():
    assert weights_equal(parameters(small(TEXT)), parameters(small(TEXT)))
    assert not weights_equal(parameters(small(TEXT)), parameters(small(TEXT, random_state=1)))
    by_generator = small(TEXT, random_state=np.random.default_rng(0))
    assert weights_equal(parameters(small(TEXT)), parameters(by_generator))
    assert not weights_equal(
        parameters(small(TEXT, random_state=None)), parameters(small(TEXT, random_state=None))
    )
    with pytest.raises(TypeError, match=r"random_state must be .* got PCG64"):
        small(TEXT, random_state=np.random.PCG64(0))
    np.random.seed(3)
    before = np.random.get_state(legacy=False)["state"]["key"].tobytes()
    small(TEXT, random_state=None)
    assert np.random.get_state(legacy=False)["state"]["key"].tobytes() == before


def test_a_random_state_of_numpy_is_drawn_from(tmp_path):
    for bits in (np.random.MT19937, np.random.PCG64):
        state = np.random.RandomState(bits(7))
        model = small(TEXT, random_state=state, dropout=0.2, num_layers=2)
        by_generator = small(
            TEXT, random_state=np.random.Generator(bits(7)), dropout=0.2, num_layers=2, epochs=2
        )
        assert weights_equal(parameters(model), parameters(by_generator))
        # It goes on, for others too: no number is drawn twice.
        others = np.random.Generator(bits(7))
        small(TEXT, random_state=others, dropout=0.2, num_layers=2)
        assert state.random_sample() == others.random()
        assert not weights_equal(
            parameters(model), parameters(small(TEXT, random_state=state, dropout=0.2, num_layers=2))
        )
        draws = [model.generate(30, temperature=2.0, random_state=state) for _ in range(2)]
        assert draws[0] != draws[1]
        assert "".join(model.stream(30, random_state=np.random.RandomState(bits(3)))) == model.generate(
            30, random_state=np.random.Generator(bits(3))
        )
        # A file keeps where the model's own draws are, and not whose they were.
        model.save(tmp_path / "model")
        loaded = CharRNN.load(tmp_path / "model")
        assert loaded.random_state is None
        state_of = model.model_.rng.bit_generator.state
        assert str(loaded.model_.rng.bit_generator.state) == str(state_of)
        for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert isinstance(same.random_state, np.random.RandomState)
            assert same.random_state is not state
        assert repr(model).count("random_state=RandomState(") == 1


def test_fit_begins_anew():
    model = small(TEXT)
    first = model.last_weights_
    model.fit(TEXT[::-1])
    model.fit(TEXT)
    assert weights_equal(model.last_weights_, first)
    assert model.history_[-1]["step"] == model.step_ == small(TEXT).step_


def test_a_loss_that_is_no_number_ends_the_training():
    model = small(optimizer="sgd", lr=1e38, clip=None, epochs=40)
    with (
        pytest.warns(RuntimeWarning, match="no longer a number: training stopped at step") as warned,
        np.errstate(all="ignore"),
    ):
        model.fit(TEXT)
    assert [w.filename for w in warned] == [__file__]  # the line that called `fit`
    assert model.step_ < 40 * ((len(TEXT) - 130) // 32)
    assert not math.isfinite(model.history_[-1]["train_nats"])


def test_where_warnings_are_errors_the_model_is_as_without():
    model = small(optimizer="sgd", lr=1e38, clip=None)
    with (
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
    ):
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="no longer a number"):
            model.fit(TEXT)
    assert model.step_ == model.history_[-1]["step"]


@pytest.mark.parametrize(
    ("n", "seq_len", "batch_size", "streams", "steps"),
    [(2, 64, 64, 1, 1), (3, 2, 2, 1, 2), (40, 64, 64, 1, 39), (100, 25, 8, 3, 25), (100, 25, 3, 3, 25)],
)
def test_short_texts_get_fewer_streams(backend, n, seq_len, batch_size, streams, steps):
    text = "abcdefg"[: min(n, 7)] * (n // min(n, 7)) + "x" * (n % min(n, 7))
    model = small(seq_len=seq_len, batch_size=batch_size, validation_fraction=0, backend=backend)
    assert len(text) == n
    expected = contextlib.nullcontext()
    if (streams, steps) != (batch_size, seq_len):
        expected = pytest.warns(
            UserWarning,
            match=f"^{n} characters to train on are less than one batch of {batch_size} streams of {seq_len} "
                  f"characters: training on {streams} streams? of {steps}$",
        )  # fmt: skip
    with expected:
        model.fit(text)
    assert model.step_ == 2 * ((n - 1) // streams // steps)
    assert len(model.generate(5)) == 5


@pytest.mark.parametrize(
    ("text", "said"), [("", "it is empty"), ("a", "only 'a', 1 times"), ("aaaa", "only 'a'")]
)
def test_texts_that_cannot_be_learned(text, said):
    model = small()
    with pytest.raises(TextError, match=said):
        model.fit(text)
    assert not hasattr(model, "model_")


def test_texts_from_files(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "SPILL", 300)  # so that the index is a memory-mapped file
    text = TEXT.replace("cat", "Käßchen 🐱\r")
    whole = small(text)
    (tmp_path / "whole").write_bytes(text.encode())
    (tmp_path / "1").write_bytes(text[:500].encode())
    (tmp_path / "2").write_bytes(text[500:].encode())
    for source in (
        tmp_path / "whole", [tmp_path / "1", tmp_path / "2"], [text[:500], tmp_path / "2"],
        io.BytesIO(text.encode()), (text[:77], text[77:]), np.array([text]), text.encode(),
        [text[:77].encode(), text[77:]], io.BytesIO(codecs.BOM_UTF8 + text.encode()),
    ):  # fmt: skip
        model = small(source)
        assert weights_equal(parameters(model), parameters(whole))
        if not isinstance(source, io.BytesIO):
            assert model.score(source) == whole.score(text)
    (tmp_path / "bad").write_bytes(b"abc\xff")
    with pytest.raises(TextError, match=r"bad' is not UTF-8 text: byte 0xff at offset 3"):
        small(tmp_path / "bad")


def test_a_bar_only_when_it_is_asked_for(capfd):
    small(TEXT)
    assert capfd.readouterr() == ("", "")
    small(TEXT, verbose=1, epochs=3)
    out, shown = capfd.readouterr()
    assert out == ""
    # Not a terminal: a line in place of the bar.
    assert re.fullmatch(
        r"100% +\d\.\d s  epoch 3, loss \d\.\d{3}, valid \d\.\d{3}, [\d,]+ chars/s\n", shown
    ), shown
    small(TEXT, verbose=1, epochs=None, max_seconds=0.2)
    assert re.match(r"100% +0\.\d s  epoch \d+, loss ", capfd.readouterr().err)


@pytest.mark.filterwarnings("ignore:checkpoint is None")
def test_an_error_in_a_step_leaves_a_model_that_can_be_used(monkeypatch):
    train_step, calls = LanguageModel.train_step, itertools.count(1)

    def failing(self, *arguments, **options):
        if next(calls) == 15:
            raise MemoryError("no room")
        return train_step(self, *arguments, **options)

    model = small()
    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "train_step", failing)
        with pytest.raises(MemoryError, match="no room"):
            model.fit(TEXT)
    assert model.step_ == 14
    assert len(model.generate(9)) == 9
    assert weights_equal(parameters(model.fit(TEXT, resume=True)), parameters(small(TEXT)))


@pytest.mark.filterwarnings("ignore:checkpoint is None")
def test_an_error_after_the_last_step_of_an_epoch(monkeypatch):
    def failing(*arguments, **options):
        raise MemoryError("no room")

    model, whole = small(), small(TEXT)
    with monkeypatch.context() as patch:
        patch.setattr(training_module, "mean_cross_entropy", failing)
        with pytest.raises(MemoryError, match="no room"):
            model.fit(TEXT)
    assert model.step_ == whole.step_ // 2
    model.fit(TEXT, resume=True)
    assert (model.step_, model.epoch_) == (whole.step_, 2)
    assert weights_equal(parameters(model), parameters(whole))


def test_a_name_of_a_file_is_asked_about(tmp_path, monkeypatch, fitted):
    monkeypatch.chdir(tmp_path)
    Path("the cat").write_text(TEXT, encoding="utf-8")
    Path("Book.txt").write_text(TEXT, encoding="utf-8")
    asks = r"there is a file of that name: did you mean pathlib\.Path\('{}'\)\?$"
    for call in (small().fit, small().partial_fit, fitted.score, fitted.perplexity, fitted.bits_per_char):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            call("the cat")
        asked = [w for w in warned if "file of that name" in str(w.message)]
        assert [w.category for w in asked] == [UserWarning]
        assert re.match(
            "the text is the characters 'the cat', and " + asks.format("the cat"), str(asked[0].message)
        )
    with pytest.warns(
        UserWarning, match="the text begins with the characters 'the cat', and " + asks.format("the cat")
    ):
        fitted.score(["the cat", "the dog"])
    # Where the text is refused, the error asks.
    with pytest.raises(TextError, match=r"'B', 'k', 'x'; unknown=.*; " + asks.format("Book.txt")):
        fitted.score("Book.txt")
    Path("a").write_text(TEXT, encoding="utf-8")
    with pytest.raises(TextError, match="at least two characters is needed, got 1; " + asks.format("a")):
        fitted.score("a")
    with pytest.raises(TextError, match="only 'a', 1 times; " + asks.format("a")):
        small().fit(["a"])
    # What is the file itself is not asked about, and neither is a prompt.
    assert fitted.score(Path("the cat")) == fitted.score(TEXT)
    assert len(fitted.generate(3, "the cat")) == 3


# -- line ends -------------------------------------------------------------------------------------


def test_universal_line_ends_belong_to_the_model(tmp_path):
    windows, mac = TEXT.replace("\n", "\r\n"), TEXT.replace("\n", "\r")
    model = small(TEXT)
    for text in (windows, mac, windows.encode(), io.BytesIO(windows.encode()), [windows[:24], windows[24:]]):
        assert windows[23:25] == "\r\n"
        other = small(text, newline="universal")
        assert weights_equal(parameters(other), parameters(model))
        assert "\r" not in other.vocabulary_
    other.save(tmp_path / "model")
    loaded = CharRNN.load(tmp_path / "model")
    assert loaded.newline == "universal"
    assert loaded.score(windows) == loaded.score(mac) == model.score(TEXT)
    options = {"random_state": 3, "temperature": 0.5}
    wanted = model.generate(30, "the mat,\nthe", **options)
    assert loaded.generate(30, "the mat,\r\nthe", **options) == wanted
    assert "".join(loaded.stream(30, "the mat,\rthe", **options)) == wanted
    assert gradient_flow(loaded, "mat,\r\nthe").loss == gradient_flow(model, "mat,\nthe").loss
    assert str(diagnose(loaded, windows)) == str(diagnose(model, TEXT))
    loaded.partial_fit(windows)
    assert weights_equal(parameters(loaded), parameters(small(TEXT).partial_fit(TEXT)))


def test_without_it_line_ends_of_windows_are_told(fitted):
    said = r"characters: '\\r'; newline=\"universal\" reads .*; unknown=\"skip\" leaves such characters out$"
    with pytest.raises(TextError, match=said):
        fitted.score("the cat\r\n")
    with pytest.raises(TextError, match="^prompt: .*" + said):
        fitted.generate(3, "the cat\r\n")
    kept = small(TEXT.replace("\n", "\r\n"))
    assert "\r" in kept.vocabulary_
    other = copy.deepcopy(fitted).set_params(newline="universal")
    assert other.score("the cat\r\n") == fitted.score("the cat\n")
    with pytest.raises(ValueError, match="newline must be one of 'universal', None, got 'unix'"):
        other.set_params(newline="unix").score("the cat")
    with pytest.raises(ValueError, match="newline must be one of"):
        other.generate(3)


# -- partial_fit -----------------------------------------------------------------------------------


def test_partial_fit_is_one_epoch():
    model = small()
    for _ in range(3):
        assert model.partial_fit(TEXT) is model
    whole = small(TEXT, epochs=3, validation_fraction=0)
    assert weights_equal(parameters(model), parameters(whole))
    assert (model.epoch_, model.step_) == (3, whole.step_)


def test_partial_fit_over_pieces():
    model = small(unknown=None)
    model.partial_fit(TEXT[:300], vocabulary="".join(sorted(set(TEXT))))
    model.partial_fit(TEXT[300:])
    assert model.epoch_ == 2
    with pytest.raises(
        TextError,
        match=f"not in the vocabulary of {len(set(TEXT))} characters: 'X', 'é'; the vocabulary is made by the "
        'first call, where vocabulary= names .*; unknown="skip" leaves such characters out$',
    ):
        model.partial_fit("the X and é" * 9)
    with pytest.raises(ValueError, match="unknown must be a character of the vocabulary, and 'Z' is not"):
        model.set_params(unknown="Z").partial_fit(TEXT)
    model.set_params(unknown=None)
    with pytest.raises(ValueError, match="vocabulary is not the one"):
        model.partial_fit(TEXT, vocabulary="abc")
    with pytest.raises(ValueError, match="hidden_size was 12 when training began, and cannot be 13 now"):
        model.set_params(hidden_size=13).partial_fit(TEXT)
    model.set_params(hidden_size=12)
    with pytest.raises(TextError, match="at least two characters is needed, got 1"):
        model.partial_fit("a")
    assert model.epoch_ == 2
    model.set_params(unknown="skip").partial_fit("Xéthe cat sat on the mat. the cat sat on the mat")
    assert model.epoch_ == 3


def test_partial_fit_after_fit_goes_on_from_the_last_weights(monkeypatch):
    fake_validations(monkeypatch, [1.0, 2.0, 2.0])
    model = small(TEXT, epochs=9, patience=1)
    assert model.weights_ == "best"
    last = model.last_weights_
    model.partial_fit(TEXT[:200])
    assert model.weights_ == "best"
    again = small(epochs=9)
    fake_validations(monkeypatch, [1.0, 2.0])
    again.set_params(patience=1).fit(TEXT)
    assert weights_equal(again.last_weights_, last)
    again.set_params(patience=None).partial_fit(TEXT[:200])
    assert again.weights_ == "last"
    assert weights_equal(again.last_weights_, model.last_weights_)


# -- scoring ---------------------------------------------------------------------------------------


def test_scores(fitted):
    text = "the cat lay on the log."
    indices = fitted.vocabulary_.encode(text)
    nats = naive_cross_entropy(fitted.model_, indices, 1)
    assert fitted.score(text) == pytest.approx(-nats, rel=1e-5)
    assert fitted.bits_per_char(text) == pytest.approx(nats / math.log(2), rel=1e-5)
    assert fitted.perplexity(text) == pytest.approx(math.exp(nats), rel=1e-5)
    assert fitted.score([text[:5], text[5:]]) == fitted.score(text)
    assert fitted.score(TEXT) > fitted.score("log mat dog cat") > fitted.score("ggggnnnnccccttt")
    long = TEXT * 20
    assert len(long) > 2 * 8192
    assert fitted.score(long) == pytest.approx(fitted.score(TEXT), abs=0.05)


def test_scores_of_unknown_characters(fitted):
    model = copy.deepcopy(fitted)
    with pytest.raises(TextError, match=r"not in the vocabulary of .* characters: '!', 'Z'"):
        model.score("the Z!")
    model.set_params(unknown="skip")
    assert model.score("the Zcat!") == model.score("the cat")
    model.set_params(unknown=" ")
    assert model.score("theZcat!sat") == model.score("the cat sat")
    model.set_params(unknown="Z")
    with pytest.raises(ValueError, match="unknown must be a character of the vocabulary, and 'Z' is not"):
        model.score("the Z")
    for text, unknown in (("", None), ("t", None), ("Zt", "skip")):
        with pytest.raises(TextError, match="at least two characters"):
            model.set_params(unknown=unknown).score(text)


def latched(hidden_size=2):
    """A model that repeats "ab", and only from a state that it keeps: one unit is on and stays on."""
    text = "ab" * 300
    model = small(text, hidden_size=hidden_size, seq_len=6, batch_size=1, epochs=1, dtype="float64",
                  validation_fraction=0.3, backend="numpy")  # fmt: skip
    lm = model.model_
    for W in lm.parameters.values():
        W[...] = 0
    lm.parameters["weight_hh_l0"][0, 0] = 3  # on: 0.995, off: -0.995
    lm.parameters["bias_ih_l0"][0] = -0.5  # zero goes off
    lm.parameters["weight_ih_l0"][1] = [3, -3]
    lm.parameters["weight_out"][:] = [[0, -5], [0, 5]]
    lm.parameters["bias_out"][:] = 0
    lm.parameters["weight_hh_l0"][1, 0] = 4.0  # off: the second unit is wrong for ever
    lm.parameters["bias_ih_l0"][1] = -4.0
    return model, lm


def test_a_text_begins_with_a_state_that_the_model_can_use():
    model, lm = latched()
    indices = model.vocabulary_.encode("ab" * 300)
    on = np.array([0.99, 0.0]).reshape(1, 1, 2)
    start, nats = scoring_module.start_state(lm, indices, np.repeat(on, 2, axis=1))
    np.testing.assert_array_equal(start, on)
    assert 0 < nats < 0.1
    held_out = [mean_cross_entropy(lm, indices, 300, shortest=100, start=h) for h in (on, None)]
    assert held_out[0] < 0.1 < 1 < held_out[1]
    model._run.starts["last"] = on
    assert model.score("ab" * 20) > -0.1
    assert model.generate(20, "ab", temperature=0) == "ab" * 10
    model._run.starts["last"] = lm.initial_state(1)
    assert model.generate(20, "ab", temperature=0) != "ab" * 10
    # Where zero does, zero it is; also for a text that is too short to tell.
    lm.parameters["weight_hh_l0"][1, 0] = lm.parameters["bias_ih_l0"][1] = 0
    assert not scoring_module.start_state(lm, indices, on)[0].any()
    for n in (2, 100, 128, 129, 130):
        assert not scoring_module.start_state(lm, indices[:n], on)[0].any()


def test_the_state_to_begin_with_is_that_of_the_weights_in_use(monkeypatch, tmp_path):
    fake_validations(monkeypatch, [1.0, 2.0])
    monkeypatch.setattr(training_module, "start_state", lambda lm, indices, state: (state[:, :1].copy(), 1.0))
    model = small(TEXT, validation_fraction=0.2, patience=5)
    best = model.start_state_
    assert best.any()
    assert best.shape == (1, 1, 12)
    last = model.use_weights("last").start_state_
    assert not np.array_equal(best, last)
    np.testing.assert_array_equal(last, model._run.state[:, :1])
    model.save(tmp_path / "m")
    loaded = CharRNN.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.start_state_, last)
    np.testing.assert_array_equal(loaded.use_weights("best").start_state_, best)
    assert loaded.generate(9, random_state=0) == model.use_weights("best").generate(9, random_state=0)


# -- sampling --------------------------------------------------------------------------------------


def naive_sample(model, prompt, n, temperature, u):
    """One character at a time: softmax of logits over temperature, inverse of its distribution."""
    lm, h, text = model.model_, model.model_.initial_state(1), ""
    for index in model.vocabulary_.encode(prompt):
        logits, h = lm.forward([[index]], h)
    for i in range(n):
        y = logits[0, 0].astype(float)
        if temperature == 0:
            index = int(y.argmax())
        else:
            p = np.exp((y - y.max()) / temperature)
            cdf = np.cumsum(p)
            index = int(np.searchsorted(cdf / cdf[-1], u[i], side="right"))
        text += model.vocabulary_[index]
        logits, h = lm.forward([[index]], h)
    return text


@pytest.mark.parametrize("temperature", [0, 0.5, 1.0, 2.0])
def test_samples_are_those_of_the_plain_loop(backend, temperature):
    model = small(TEXT, dtype="float64", backend=backend, epochs=6)
    u = np.random.default_rng(3).random(60)
    got = model.generate(60, "on the ", temperature=temperature, random_state=3)
    assert got == naive_sample(model, "on the ", 60, temperature, u)


def test_a_stream_is_what_generate_gives(backend, monkeypatch):
    monkeypatch.setattr(char_rnn_module, "SAMPLE_CHUNK", 8)
    monkeypatch.setattr(char_rnn_module, "PROMPT_CHUNK", 4)
    model = small(TEXT, backend=backend, num_layers=2)
    for options in ({}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.8, "temperature": 1.5}):
        whole = model.generate(100, "the cat sat", random_state=2, **options)
        stream = model.stream(100, "the cat sat", random_state=2, **options)
        assert list(stream) == list(whole)
        endless = model.stream(prompt="the cat sat", random_state=2, **options)
        assert "".join(itertools.islice(endless, 57)) == whole[:57]
    monkeypatch.undo()
    assert model.generate(100, "the cat sat", random_state=2) == "".join(
        model.stream(100, "the cat sat", random_state=2)
    )


def test_samples_that_nothing_stops_are_decoded_at_once(fitted, monkeypatch):
    """A chunk at a time, which many short samples have many of, takes several times as long."""
    decoded = []
    real = type(fitted.vocabulary_).decode
    monkeypatch.setattr(
        type(fitted.vocabulary_), "decode", lambda *arguments: decoded.append(1) or real(*arguments)
    )
    assert [len(sample) for sample in fitted.generate(100, num_samples=3)] == [100] * 3
    assert len(decoded) == 3


def test_a_stream_goes_on_with_the_model_that_it_began_with():
    model = small(TEXT)
    whole = model.generate(30, random_state=1)
    stream = model.stream(30, random_state=1)
    begun = next(stream)
    model.fit("0123456789" * 20)
    assert begun + "".join(stream) == whole


def test_the_first_character_of_a_stream_is_there_at_once(fitted, monkeypatch):
    asked = []
    sample = LanguageModel.sample

    def counting(self, h, start, n, **options):
        asked.append(n)
        return sample(self, h, start, n, **options)

    monkeypatch.setattr(LanguageModel, "sample", counting)
    stream = fitted.stream(10_000)
    assert asked == [0]  # the check of the options
    next(stream)
    assert asked == [0, 1]
    assert len("".join(stream)) == 9999
    assert asked[:6] == [0, 1, 2, 4, 8, 16]
    assert max(asked) == 4096


def test_many_samples_at_once(backend):
    model = small(TEXT, backend=backend)
    samples = model.generate(40, "the ", num_samples=5, random_state=0)
    assert [len(s) for s in samples] == [40] * 5
    assert len(set(samples)) == 5
    assert samples == model.generate(40, "the ", num_samples=5, random_state=np.random.default_rng(0))
    greedy = model.generate(40, "the ", num_samples=3, temperature=0)
    assert greedy == [model.generate(40, "the ", temperature=0)] * 3
    assert model.generate(3, num_samples=1, random_state=0) == model.generate(3, random_state=0)


def test_top_k_and_top_p(fitted):
    greedy = fitted.generate(50, "the ", temperature=0)
    assert fitted.generate(50, "the ", top_k=1) == greedy
    assert fitted.generate(50, "the ", top_p=1e-9) == greedy
    assert fitted.generate(50, "the ", top_k=1000, top_p=1.0, random_state=0) == fitted.generate(
        50, "the ", random_state=0
    )


def test_without_a_prompt_it_begins_a_line(fitted):
    assert fitted.generate(40, random_state=5) == fitted.generate(40, "\n", random_state=5)
    blanks = small("a b c d e f " * 40)
    assert blanks.generate(9, random_state=5) == blanks.generate(9, " ", random_state=5)
    letters = small("bcd" * 40)
    assert letters.generate(9, random_state=5) == letters.generate(9, "b", random_state=5)
    assert fitted.generate(0) == ""
    assert fitted.generate(0, num_samples=2) == ["", ""]
    assert list(fitted.stream(0)) == []


def test_no_seed_gives_other_samples(fitted):
    assert fitted.generate(200, temperature=2.0) != fitted.generate(200, temperature=2.0)


def test_prompts_with_unknown_characters(fitted):
    model = copy.deepcopy(fitted)
    for call in (model.generate, model.stream):
        with pytest.raises(TextError, match=r"prompt: not in the vocabulary of .* characters: 'T', '世'"):
            call(5, "The 世 cat")
    model.set_params(unknown="skip")
    assert model.generate(20, "The cat", random_state=0) == fitted.generate(20, "he cat", random_state=0)
    assert model.generate(20, "世", random_state=0) == fitted.generate(20, random_state=0)
    model.set_params(unknown="t")
    assert model.generate(20, "The cat", random_state=0) == fitted.generate(20, "the cat", random_state=0)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"n": -1}, ValueError, "n must be at least 0, got -1"),
        ({"n": 2.5}, TypeError, "n must be an integer"),
        ({"prompt": b"the"}, TypeError, "prompt must be a str, got bytes"),
        ({"prompt": None}, TypeError, "prompt must be a str, got NoneType"),
        ({"temperature": -1}, ValueError, "temperature must be at least 0"),
        ({"temperature": float("nan")}, ValueError, "temperature must be"),
        ({"temperature": "hot"}, TypeError, "temperature must be a real number"),
        ({"top_k": 0}, ValueError, "top_k must be at least 1"),
        ({"top_p": 0.0}, ValueError, "top_p must be"),
        ({"top_p": 1.5}, ValueError, "top_p must be at most 1"),
        ({"random_state": -1}, ValueError, "random_state must be at least 0"),
        (
            {"random_state": "x"},
            TypeError,
            "random_state must be an int, a numpy.random.Generator or RandomState, or None",
        ),
        ({"num_samples": 0}, ValueError, "num_samples must be at least 1"),
        ({"stop": ""}, ValueError, "stop must not be empty"),
        ({"stop": ["a", 3]}, TypeError, r"stop\[1\] must be a str, got int"),
    ],
)
def test_wrong_arguments_of_sampling(fitted, options, error, said):
    with pytest.raises(error, match=said):
        fitted.generate(**{"n": 5} | options)
    if "num_samples" not in options:
        with pytest.raises(error, match=said):
            fitted.stream(**{"n": 5} | options)


def test_a_sample_ends_before_a_string(backend, monkeypatch):
    monkeypatch.setattr(char_rnn_module, "SAMPLE_CHUNK", 8)
    model = small(TEXT, backend=backend, epochs=4)
    whole = model.generate(300, "the ", random_state=2)
    for begin, length in ((0, 1), (1, 2), (6, 3), (21, 1), (60, 30), (290, 10), (299, 1)):
        stop = whole[begin : begin + length]
        wanted = whole[: whole.index(stop)]
        for strings in (stop, [stop], ("世界", stop), np.str_(stop)):
            assert model.generate(300, "the ", random_state=2, stop=strings) == wanted
            assert "".join(model.stream(300, "the ", random_state=2, stop=strings)) == wanted
        assert "".join(model.stream(None, "the ", random_state=2, stop=stop)) == wanted
    two = whole[9:12], whole[20:26]
    assert model.generate(300, "the ", random_state=2, stop=two) == whole[: min(map(whole.index, two))]
    for stop in ("Z", "世界", whole + "x", None, []):
        assert model.generate(300, "the ", random_state=2, stop=stop) == whole
        assert list(model.stream(300, "the ", random_state=2, stop=stop)) == list(whole)
    # What it begins with is the last of n characters, which belong to the sample then.
    assert model.generate(40, "the ", random_state=2, stop=whole[35:40] + "Z") == whole[:40]


def test_the_prompt_does_not_end_a_sample(fitted):
    whole = fitted.generate(60, "the dog", temperature=0)
    first = whole[: whole.index("the")]
    assert "dog" not in first
    assert fitted.generate(60, "the dog", temperature=0, stop=["dog" + whole[0], "the"]) == first


def test_each_of_many_samples_ends_at_a_place_of_its_own(backend):
    model = small(TEXT, backend=backend, epochs=4)
    whole = model.generate(200, "the ", num_samples=5, random_state=0)
    got = model.generate(200, "the ", num_samples=5, random_state=0, stop=["at", "\n"])
    cut = [re.split("at|\n", sample)[0] for sample in whole]
    assert got == cut
    assert len(set(map(len, cut))) > 1


def test_sampling_ends_with_the_last_sample(fitted, monkeypatch):
    asked = []
    sample = LanguageModel.sample

    def counting(self, h, start, n, **options):
        asked.append(n)
        return sample(self, h, start, n, **options)

    monkeypatch.setattr(LanguageModel, "sample", counting)
    whole = fitted.generate(100, temperature=0)
    asked.clear()
    assert fitted.generate(10**12, temperature=0, stop=whole[:20], num_samples=2) == ["", ""]
    assert asked == [0, 1, 2, 4, 8, 16]
    asked.clear()
    stream = fitted.stream(temperature=0, stop=whole[4:9])
    assert (next(stream), asked) == (whole[0], [0, 1])  # which no string begins with is there at once
    assert "".join(stream) == whole[1:4]
    assert sum(asked) < 20


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.generate(5), lambda model: model.stream(5), lambda model: model.score("text"),
        lambda model: model.perplexity("text"), lambda model: model.bits_per_char("text"),
        lambda model: model.use_weights("last"), lambda model: model.save("model"),
        lambda model: model.last_weights_, lambda model: model.start_state_, lambda model: model.step_,
        lambda model: model.epoch_, lambda model: model.best_step_, lambda model: model.best_valid_nats_,
        lambda model: model.fit("text", resume=True), lambda model: gradient_flow(model, "text"),
        lambda model: diagnose(model, "text"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("loaded", [True, False], ids=["scikit-learn", "alone"])
def test_what_needs_a_fitted_model(call, loaded, monkeypatch):
    """The error is scikit-learn's as well, where that is loaded."""
    kinds = [fastrnn.NotFittedError, ValueError, AttributeError]
    if loaded:
        kinds.append(pytest.importorskip("sklearn.exceptions").NotFittedError)
    else:
        monkeypatch.delitem(sys.modules, "sklearn.exceptions", raising=False)
    for kind in kinds:
        with pytest.raises(kind, match=r"(not fitted yet: call fit|call CharRNN\.fit)") as error:
            call(CharRNN())
    assert type(error.value).__name__ == "NotFittedError"
    for same in (pickle.loads(pickle.dumps(error.value)), copy.copy(error.value)):
        assert (type(same), str(same)) == (type(error.value), str(error.value))


def test_a_property_of_what_is_not_fitted_is_not_there():
    assert not any(hasattr(CharRNN(), name) for name in ("step_", "last_weights_", "model_", "vocabulary_"))


# -- hyper-parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("hidden_size", 0, ValueError), ("hidden_size", 2.0, TypeError), ("num_layers", "2", TypeError),
        ("num_layers", 0, ValueError), ("seq_len", 0, ValueError), ("seq_len", None, TypeError),
        ("batch_size", -3, ValueError), ("optimizer", "adadelta", ValueError), ("optimizer", None, ValueError),
        ("lr", 0.0, ValueError), ("lr", "fast", TypeError), ("lr", float("nan"), ValueError),
        ("lr_decay", -0.5, ValueError), ("clip", "step", ValueError), ("clip_threshold", 0, ValueError),
        ("dropout", 1.0, ValueError), ("dropout", -0.1, ValueError), ("epochs", 0, ValueError),
        ("epochs", 1.5, TypeError), ("max_steps", 0, ValueError), ("max_seconds", 0, ValueError),
        ("max_seconds", float("inf"), ValueError), ("validation_fraction", 1.0, ValueError),
        ("validation_fraction", -0.1, ValueError), ("validate_every", 0, ValueError),
        ("patience", 0, ValueError), ("dtype", "float16", TypeError), ("random_state", -1, ValueError),
        ("random_state", "x", TypeError), ("random_state", True, TypeError), ("num_threads", 0, ValueError),
        ("backend", "cuda", ValueError), ("checkpoint", 3, TypeError), ("checkpoint_every", 0, ValueError),
        ("unknown", "??", ValueError), ("unknown", "Z", ValueError), ("newline", "unix", ValueError),
        ("newline", "\n", ValueError), ("verbose", "yes", TypeError),
    ],
)  # fmt: skip
def test_wrong_hyper_parameters_are_refused_by_fit(name, value, error):
    model = small(**{name: value})
    with pytest.raises(error, match=f"^{name} must be "):
        model.fit(TEXT)
    assert not hasattr(model, "model_")
    if (name, value) != ("unknown", "Z"):
        with pytest.raises(error, match=f"^{name} must be "):
            model.partial_fit(TEXT)


def test_wrong_hyper_parameters_leave_a_fitted_model_as_it_was(fitted):
    model = copy.deepcopy(fitted)
    with pytest.raises(ValueError, match="lr must be"):
        model.set_params(lr=-1).fit(TEXT)
    with pytest.raises(TextError):
        model.set_params(lr=0.1).fit("")
    assert weights_equal(parameters(model), parameters(fitted))
    assert model.history_ == fitted.history_


def test_patience_needs_a_validation():
    with pytest.raises(ValueError, match=r"patience = 3 needs a validation, and validation_fraction = 0 of"):
        small(TEXT, patience=3, validation_fraction=0)


def test_every_hyper_parameter_is_documented_and_by_keyword():
    parameters = list(inspect.signature(CharRNN.__init__).parameters.values())[1:]
    for parameter in parameters:
        assert f"    {parameter.name} : " in inspect.cleandoc("\n" + CharRNN.__doc__).replace("\n", "\n    ")
    assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == ["hidden_size", "num_layers"]
    assert list(CharRNN().get_params()) == [p.name for p in parameters]


# -- scikit-learn ----------------------------------------------------------------------------------


def test_params():
    model = CharRNN(7, lr=0.5)
    assert model.get_params() == CharRNN().get_params() | {"hidden_size": 7, "lr": 0.5}
    assert model.set_params(lr=0.25, clip=None) is model
    assert (model.lr, model.clip) == (0.25, None)
    with pytest.raises(ValueError, match="'learning_rate' is not a hyper-parameter of CharRNN; they are"):
        model.set_params(lr=9, learning_rate=3)
    assert model.lr == 0.25
    assert repr(model) == "CharRNN(hidden_size=7, lr=0.25, clip=None)"
    assert repr(CharRNN()) == "CharRNN()"
    assert repr(CharRNN(dtype=np.float32, random_state=np.int64(3))).startswith("CharRNN(dtype=<class")


def test_scikit_learn_is_not_needed():
    done = run_python(
        "-c",
        "import sys; sys.modules['sklearn'] = sys.modules['joblib'] = None\n"
        "from fastrnn import CharRNN\n"
        "model = CharRNN(4, seq_len=4, batch_size=2, epochs=1, verbose=0).fit('hello world. ' * 9)\n"
        "print(len(model.set_params(lr=0.1).generate(7)), model.get_params()['lr'])",
        FASTRNN_BACKEND="numpy",
    )
    assert (done.returncode, done.stdout) == (0, "7 0.1\n"), done.stderr


@pytest.fixture
def sklearn():
    return pytest.importorskip("sklearn")


def test_clone(sklearn, fitted):
    generator = np.random.default_rng(0)
    model = small(dtype=np.float64, random_state=generator, checkpoint=Path("x"))
    cloned = sklearn.base.clone(model)
    assert {**cloned.get_params(), "random_state": 0} == {**model.get_params(), "random_state": 0}
    assert cloned.random_state is not generator
    assert not hasattr(sklearn.base.clone(fitted), "model_")
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(fitted)
    with pytest.raises(NotFittedError):
        check_is_fitted(model)


def test_the_checks_of_scikit_learn_that_apply(sklearn):
    from sklearn.utils import estimator_checks, get_tags

    for check in (
        "check_estimator_cloneable", "check_estimator_repr", "check_estimator_tags_renamed",
        "check_valid_tag_types", "check_no_attributes_set_in_init", "check_get_params_invariance",
        "check_set_params", "check_parameters_default_constructible", "check_mixin_order",
    ):  # fmt: skip
        getattr(estimator_checks, check)("CharRNN", small())
    tags = get_tags(CharRNN())
    assert tags.estimator_type == "density_estimator"
    assert not tags.target_tags.required
    assert tags.input_tags.string


@pytest.mark.parametrize("workers", ["loky", "threading"])
def test_grid_search_over_texts(sklearn, workers, fitted):
    joblib = pytest.importorskip("joblib")
    from sklearn.model_selection import GridSearchCV, KFold

    texts = [TEXT[i : i + 120] for i in range(0, 1200, 120)]
    model = small(validation_fraction=0, backend="numpy", unknown="skip")
    grid = {"hidden_size": [2, 16], "lr": [0.02, 1e-6]}
    with joblib.parallel_backend(workers, n_jobs=2):
        search = GridSearchCV(model, grid, cv=KFold(3)).fit(texts)
    assert search.best_params_ == {"hidden_size": 16, "lr": 0.02}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.step_ > 0
    alone = sklearn.base.clone(model).set_params(**search.best_params_)
    scores = []
    for train, test in KFold(3).split(texts):
        scores.append(alone.fit([texts[i] for i in train]).score([texts[i] for i in test]))
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"][search.best_index_], np.mean(scores))


def test_grid_search_over_a_column_of_a_table(sklearn):
    pandas = pytest.importorskip("pandas")
    from sklearn.model_selection import GridSearchCV, KFold

    texts = [TEXT[i : i + 120] for i in range(0, 480, 120)]
    model = small(validation_fraction=0, backend="numpy", epochs=1, unknown="skip")
    searches = [
        GridSearchCV(model, {"lr": [0.02, 1e-6]}, cv=KFold(2), error_score="raise").fit(column)
        for column in (texts, pandas.Series(texts, index=list("abcd")))
    ]
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(*(search.cv_results_[name] for search in searches))


@pytest.mark.filterwarnings("ignore:checkpoint is None")
def test_copies_and_pickles(fitted):
    for other in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        assert other.generate(20, random_state=0) == fitted.generate(20, random_state=0)
        other.set_params(epochs=27).fit(TEXT, resume=True)
        again = copy.deepcopy(fitted).set_params(epochs=27).fit(TEXT, resume=True)
        assert weights_equal(parameters(other), parameters(again))
        assert not weights_equal(parameters(other), parameters(fitted))


@pytest.mark.filterwarnings("ignore:checkpoint is None")
def test_pickles_from_before_a_hyper_parameter(fitted):
    old = copy.deepcopy(fitted)
    del old.newline, old._run.followed["newline"]
    loaded = pickle.loads(pickle.dumps(old))
    assert loaded.get_params() == fitted.get_params()
    assert loaded.generate(20, random_state=0) == fitted.generate(20, random_state=0)
    loaded.set_params(epochs=26).fit(TEXT, resume=True)
    assert loaded.epoch_ == 26


# -- warnings --------------------------------------------------------------------------------------


def lines_of_warnings(call):
    """Message and file of each warning of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [(str(warning.message), Path(warning.filename).name) for warning in caught]


@pytest.mark.parametrize("method", ["fit", "partial_fit", "score", "bits_per_char", "perplexity"])
def test_warnings_point_at_the_line_of_the_caller(method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("at the cat").write_text("a text")
    model = small(max_steps=1, batch_size=1, seq_len=2, validation_fraction=0, backend="numpy").fit(TEXT)
    ((message, file),) = lines_of_warnings(lambda: getattr(model, method)("at the cat"))
    assert "did you mean pathlib.Path('at the cat')" in message
    assert file == Path(__file__).name


def test_dropout_that_has_no_effect_is_told_once(tmp_path):
    model = small(max_steps=1, dropout=0.5, num_layers=1, backend="numpy")
    ((message, file),) = lines_of_warnings(lambda: model.fit(TEXT))
    assert "dropout=0.5 has no effect with num_layers=1" in message
    assert file == Path(__file__).name
    model.save(tmp_path / "model")
    assert lines_of_warnings(lambda: CharRNN.load(tmp_path / "model").generate(3)) == []


# -- a real text -----------------------------------------------------------------------------------


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="tinyshakespeare.txt is not beside the checkout")
def test_shakespeare():
    model = small(SHAKESPEARE, hidden_size=64, seq_len=32, batch_size=32, max_steps=250, lr=5e-3)
    assert len(model.vocabulary_) == 65
    assert model.vocabulary_.characters.startswith("\n !$&',-.3:;?ABC")
    assert model.history_[0]["train_nats"] > 2.8
    assert model.history_[-1]["train_nats"] < 2.3
    assert abs(model.history_[-1]["valid_nats"] - model.history_[-1]["train_nats"]) < 0.2
    text = SHAKESPEARE.read_text(encoding="utf-8")
    assert model.bits_per_char(text[:20_000]) < 3.4
    assert set(model.generate(200, "ROMEO:", random_state=0)) <= set(text)


def test_no_warnings_for_a_text_that_is_long_enough():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(TEXT)
