"""`CharRNN(diagnostics_every=n)`: what it writes into `history_`, and that it changes nothing else."""

import math

import numpy as np
import pytest
from support import bits

from fastrnn import CharRNN, LanguageModel, diagnostics, optim

TEXT = "the quick brown fox jumps over the lazy dog. " * 20


def small(backend="numpy", **options):
    chosen = {"hidden_size": 10, "seq_len": 8, "batch_size": 4, "max_steps": 20, "random_state": 0}
    return CharRNN(**{**chosen, **options}, backend=backend, verbose=0)


def diagnosed(model):
    return [entry["step"] for entry in model.history_ if "diagnostics" in entry]


def test_a_summary_every_so_many_steps(backend):
    model = small(backend, diagnostics_every=6).fit(TEXT)
    assert diagnosed(model) == [6, 12, 18]
    names = set(diagnostics.training_summary(model.model_, [[0], [1]], [[1], [2]]))
    for entry in model.history_:
        if "diagnostics" in entry:
            assert set(entry["diagnostics"]) == names
            assert all(type(value) is float for value in entry["diagnostics"].values())
            assert 0.1 < entry["diagnostics"]["spectral_radius"] < 10


def test_it_is_the_summary_of_the_batch_at_hand(backend):
    model = small(backend, diagnostics_every=3, max_steps=3, dtype="float64", clip_threshold=0.01).fit(TEXT)
    (found,) = [entry["diagnostics"] for entry in model.history_ if "diagnostics" in entry]
    # The same three steps by hand.
    lm = LanguageModel(len(model.vocabulary_), 10, dtype=np.float64, rng=0, backend=backend)
    indices = model.vocabulary_.encode(TEXT)
    indices = indices[: len(indices) - round(0.1 * len(indices))]
    adam, h = optim.Adam(lr=2e-3, backend=backend), lm.initial_state(4)
    from fastrnn.text.batches import Streams

    chunks = Streams(indices, 8, 4).chunks(0)
    for _ in range(3):
        x, y = (a.copy() for a in next(chunks))
        before = h.copy()
        _, h = lm.train_step(x, y, before, adam, clip_threshold=0.01)
    for name, W in lm.parameters.items():
        assert bits(W) == bits(model.model_.parameters[name])
    assert found == diagnostics.training_summary(lm, x, y, before, clip_threshold=0.01)
    assert found["clipped"] == 1.0


def test_training_is_the_same_with_and_without(backend):
    plain, looked_at = (small(backend, dropout=0.2, num_layers=2, diagnostics_every=n) for n in (None, 1))
    for model in (plain, looked_at):
        model.fit(TEXT)
    assert diagnosed(plain) == []
    assert diagnosed(looked_at) == list(range(1, 21))
    for name, W in plain.model_.parameters.items():
        assert bits(W) == bits(looked_at.model_.parameters[name])


def test_a_resumed_run_has_the_same_summaries(tmp_path):
    whole = small(diagnostics_every=4).fit(TEXT)
    part = small(diagnostics_every=4, max_steps=9).fit(TEXT)
    part.save(tmp_path / "part")
    loaded = CharRNN.load(tmp_path / "part", checkpoint=tmp_path / "part")
    loaded.set_params(max_steps=20).fit(TEXT, resume=True)
    summaries = [
        {entry["step"]: repr(entry["diagnostics"]) for entry in model.history_ if "diagnostics" in entry}
        for model in (whole, loaded)
    ]
    assert sorted(summaries[0]) == [4, 8, 12, 16, 20]
    assert summaries[0] == summaries[1]


def test_infinite_half_lives_survive_a_file(tmp_path):
    model = small(diagnostics_every=1, max_steps=1, seq_len=1, batch_size=2).fit(TEXT)
    assert model.history_[-1]["diagnostics"]["half_life"] == math.inf
    model.save(tmp_path / "model")
    assert CharRNN.load(tmp_path / "model").history_ == model.history_


@pytest.mark.filterwarnings("ignore:the loss is no longer a number")
def test_a_training_that_diverges_is_still_summarized():
    model = small(optimizer="sgd", lr=1e38, clip=None, diagnostics_every=1).fit(TEXT)
    assert not math.isfinite(model.history_[-1]["train_nats"])
    assert math.isnan(model.history_[-1]["diagnostics"]["spectral_radius"])


@pytest.mark.parametrize("value", [0, -1, 1.5, "often"])
def test_bad_values_are_named(value):
    with pytest.raises((TypeError, ValueError), match="diagnostics_every must be"):
        small(diagnostics_every=value).fit(TEXT)


def test_the_default_costs_less_than_a_twentieth():
    """By count: a summary makes at most seven passes over the layers and the output, a step three."""
    assert CharRNN().diagnostics_every >= 20 * 3


def test_history_is_drawn_with_the_share_that_was_clipped():
    pytest.importorskip("matplotlib")
    from fastrnn import figures

    model = small(diagnostics_every=5, clip_threshold=0.1).fit(TEXT)
    figure = figures.plot_clipping(model.history_, threshold=0.1)
    share = figure.axes[1].lines[0]
    assert share.get_xdata().tolist() == [5, 10, 15, 20]
