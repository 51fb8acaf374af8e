"""`RNNRegressor` and `RNNClassifier`: what they take, learn, keep and refuse."""

import copy
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from estimator_support import BOTH, both, small
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from support import bits, run_python

import fastrnn
from fastrnn import RNNClassifier, RNNRegressor, SequenceModel, optim
from fastrnn.estimators import base, fitting
from fastrnn.estimators.scaling import Scaler
from fastrnn.estimators.sequences import Sequences

HEADS = ["last", "mean", "each"]
heads = pytest.mark.parametrize("head", HEADS)


def ragged(n=40, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(T, d)) for T in rng.integers(2, 7, n)]


def targets_of(cls, X, head="last"):
    """Of each sequence its last first entry, of each step the running sum; or the sign of it."""
    if head == "each":
        values = [np.cumsum(x.reshape(len(x), -1)[:, 0]) for x in X]
        values = values if isinstance(X, list) else np.array(values)
        if cls is RNNRegressor:
            return values
        return (
            [np.where(v > 0, "up", "down") for v in values]
            if isinstance(X, list)
            else np.where(values > 0, "up", "down")
        )
    values = np.array([x.reshape(len(x), -1)[-1, 0] for x in X])
    return values if cls is RNNRegressor else np.where(values > 0, "up", "down")


def tables(n=40, T=5, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, T, d))


def weights_of(model):
    return bits(*model.model_.state_dict().values())


# -- inputs and outputs ----------------------------------------------------------------------------


@both
@heads
def test_shapes_of_arrays(cls, head):
    X = tables()
    model = small(cls, head=head).fit(X, targets_of(cls, X, head))
    more = tables(7, 9)  # of another length
    shape = (7, 9) if head == "each" else (7,)
    assert model.predict(more).shape == shape
    if cls is RNNClassifier:
        p = model.predict_proba(more)
        assert p.shape == (*shape, 2)
        assert p.dtype == np.float64
        np.testing.assert_allclose(p.sum(axis=-1), 1)
        assert (model.predict(more) == model.classes_[p.argmax(axis=-1)]).all()
    else:
        assert model.predict(more).dtype == np.float64
    assert model.score(X, targets_of(cls, X, head)) <= 1


@both
@heads
def test_shapes_of_lists(cls, head):
    X = ragged()
    y = targets_of(cls, X, head)
    model = small(cls, head=head).fit(X, y)
    for given in (X, tuple(X)):
        predicted = model.predict(given)
        if head == "each":
            assert type(predicted) is list
            assert [row.shape for row in predicted] == [(len(x),) for x in X]
            if cls is RNNClassifier:
                assert [row.shape for row in model.predict_proba(X)] == [(len(x), 2) for x in X]
        else:
            assert predicted.shape == (len(X),)
    assert model.score(X, y) <= 1
    # Each alone, in any order, and as an array: the same to rounding.
    for x, p in zip(X[:5], predicted[:5], strict=True):
        for alone in (model.predict([x])[0], model.predict(x[None])[0]):
            if cls is RNNRegressor:
                np.testing.assert_allclose(alone, p, rtol=1e-12, atol=1e-12)
            else:
                assert np.all(alone == p)


@both
@heads
def test_one_channel_with_and_without_its_axis(cls, head):
    X = tables(d=1)
    y = targets_of(cls, X, head)
    wide, table = small(cls, head=head).fit(X, y), small(cls, head=head).fit(X[:, :, 0], y)
    of_list = small(cls, head=head).fit(list(X), list(y) if head == "each" else y)
    assert weights_of(wide) == weights_of(table) == weights_of(of_list)
    expected = bits(wide.predict(X))
    assert bits(table.predict(X[:, :, 0])) == bits(wide.predict(X[:, :, 0])) == expected
    assert bits(np.array(of_list.predict(list(X[:, :, 0])))) == expected
    assert bits(table.predict(X[:, :, 0].tolist())) == expected
    assert table.n_features_in_ == 5
    assert not hasattr(wide, "n_features_in_")


def test_lists_of_rows_of_different_lengths():
    X = [[1.0, 2.0, 0.5], [3, 1], [0.25]]
    model = small(RNNRegressor).fit(X, [1, 2, 3])
    np.testing.assert_array_equal(model.predict(X), model.predict([np.array(x)[:, None] for x in X]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f8", np.int8, np.uint64, bool, object])
def test_inputs_of_any_dtype(dtype):
    X = np.random.default_rng(0).integers(0, 2, (20, 4, 2))
    expected = small(RNNRegressor).fit(X.astype(float), X[:, -1, 0])
    given = X.astype(dtype)
    given.flags.writeable = False
    model = small(RNNRegressor).fit(given, X[:, -1, 0].astype(dtype))
    assert bits(model.predict(given)) == bits(expected.predict(X))


@both
def test_inputs_stay_as_they_are(cls):
    for X in (tables(), ragged()):
        y = targets_of(cls, X)
        before = copy.deepcopy((X, y))
        small(cls).fit(X, y).score(X, y)
        assert all((a == b).all() for a, b in zip(X, before[0], strict=True))
        assert (y == before[1]).all()


@pytest.mark.parametrize("k", [1, 3])
def test_several_outputs(k):
    X = tables(200)
    y = X[:, -1, :1] * np.arange(1, k + 1) + [5, -50, 500][:k]
    model = small(RNNRegressor, epochs=40, lr=0.02).fit(X, y)
    predicted = model.predict(X)
    assert predicted.shape == (200, k)
    assert r2_score(y, predicted, multioutput="raw_values").min() > 0.9
    assert model.score(X, y) == r2_score(y, predicted)
    weights = np.arange(200.0)
    assert model.score(X, y, weights) == r2_score(y, predicted, sample_weight=weights)


def test_several_outputs_of_each_step():
    X = ragged()
    y = [np.stack([x[:, 0], -x[:, 1], x[:, 0]], axis=1) for x in X]
    model = small(RNNRegressor, head="each").fit(X, y)
    assert [p.shape for p in model.predict(X)] == [(len(x), 3) for x in X]
    assert model.score(X, y) == r2_score(np.concatenate(y), np.concatenate(model.predict(X)))
    X = tables()
    assert small(RNNRegressor, head="each").fit(X, X).predict(X).shape == X.shape


def test_steps_are_scored_with_the_head_that_was_fitted():
    X = tables()
    y = targets_of(RNNClassifier, X, "each")
    model = small(RNNClassifier, head="each").fit(X, y)
    score = model.score(X, y)
    assert score == (model.predict(X) == y).mean()
    assert model.set_params(head="last").score(X, y) == score
    with pytest.raises(ValueError, match='sample_weight is not taken with head="each"'):
        model.score(X, y, np.ones(40))
    with pytest.raises(
        ValueError, match=r"y\[0\] must have shape \(5,\), one target for each step, got \(4,\)"
    ):
        model.score(X, y[:, :4])


@pytest.mark.parametrize("labels", [[3, 7], [True, False], ["a", "b"], [0.0, 1.0], [-1, 1]])
@pytest.mark.parametrize("head", ["last", "each"])
def test_labels_of_any_kind(labels, head):
    X = tables()
    up = targets_of(RNNClassifier, X, head) == "up"
    y = np.where(up, *labels)
    model = small(RNNClassifier, head=head).fit(X, y)
    assert model.classes_.tolist() == sorted(labels)
    assert model.classes_.dtype == y.dtype
    assert set(model.predict(X).ravel().tolist()) <= set(labels)


def test_one_label():
    X = tables()
    model = small(RNNClassifier).fit(X, ["a"] * 40)
    assert model.predict(X).tolist() == ["a"] * 40
    assert (model.predict_proba(X) == 1).all()


# -- precision -------------------------------------------------------------------------------------


@heads
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_predictions_do_not_depend_on_what_is_beside(head, cell, backend):
    X = ragged(300)
    model = small(RNNRegressor, head=head, cell=cell, epochs=1, backend=backend).fit(
        X, targets_of(RNNRegressor, X, head)
    )
    together = model.predict(X)
    order = np.random.default_rng(1).permutation(300)
    shuffled = model.predict([X[i] for i in order])
    for place, i in enumerate(order):
        np.testing.assert_allclose(shuffled[place], together[i], rtol=1e-12, atol=1e-12)
    for i in order[:20]:
        np.testing.assert_allclose(model.predict([X[i]])[0], together[i], rtol=1e-12, atol=1e-12)


@both
def test_predictions_are_computed_in_float64(cls):
    X = tables()
    model = small(cls).fit(X, targets_of(cls, X))
    assert model.model_.dtype == np.float32
    sm = SequenceModel(
        2,
        6,
        1 if cls is RNNRegressor else 2,
        cell="gru",
        head="last",
        loss=model._loss,
        dtype=np.float64,
        rng=0,
    )
    sm.load_state_dict(model.model_.state_dict())
    flat = X.reshape(-1, 2)
    out, _ = sm.forward(((X - flat.mean(axis=0)) / flat.std(axis=0)).swapaxes(0, 1))
    if cls is RNNRegressor:
        y = targets_of(cls, X)
        np.testing.assert_allclose(model.predict(X), out[:, 0] * y.std() + y.mean(), rtol=1e-10)
    else:
        p = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(model.predict_proba(X), p, rtol=1e-10)


def test_predictions_are_those_of_the_model_that_is_there():
    X = tables()
    model = small(RNNRegressor, cell="rnn", scale=False).fit(X, X[:, -1, 0])
    model.model_ = SequenceModel(2, 4, 1, head="mean", nonlinearity="relu", dtype="float64", rng=3)
    out, _ = model.model_.forward(X.swapaxes(0, 1))
    np.testing.assert_allclose(model.predict(X), out[:, 0], rtol=1e-12)


# -- scaling ---------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("of_list", [True, False])
def test_predictions_do_not_depend_on_units(cls, of_list):
    X = ragged(60) if of_list else tables(60)
    y = targets_of(cls, X)
    factor, shift = np.array([1024.0, 1 / 64]), np.array([3.0, -7.0])
    moved = [x * factor + shift for x in X] if of_list else X * factor + shift
    model, other = (small(cls, dtype="float64").fit(given, y) for given in (X, moved))
    if cls is RNNRegressor:
        np.testing.assert_allclose(other.predict(moved), model.predict(X), rtol=1e-7, atol=1e-9)
        third = small(cls, dtype="float64").fit(X, y * 1e6 - 5e6)
        np.testing.assert_allclose(third.predict(X), model.predict(X) * 1e6 - 5e6, rtol=1e-6)
    else:
        np.testing.assert_allclose(other.predict_proba(moved), model.predict_proba(X), rtol=1e-7)


def test_without_scaling_the_model_gets_what_came():
    X = tables()
    y = X[:, -1, 0]
    model = small(RNNRegressor, scale=False, dtype="float64").fit(X * 4 + 1, y * 3)
    out, _ = model.model_.forward((X * 4 + 1).swapaxes(0, 1))
    np.testing.assert_allclose(model.predict(X * 4 + 1), out[:, 0], rtol=1e-10)


@both
def test_channels_and_targets_that_are_constant(cls):
    X = tables()
    X[:, :, 1] = 1e9 + 0.1
    y = targets_of(cls, X)
    model = small(cls).fit(X, y)
    assert (model._scaler.scale[1], model._scaler.mean[1]) == (1, 1e9 + 0.1)
    if cls is RNNRegressor:
        constant = small(cls, epochs=40, lr=0.05).fit(X, np.full(40, 3e5 + 0.1))
        np.testing.assert_allclose(constant.predict(X), 3e5 + 0.1, atol=0.5)
        assert (constant._y_scaler.scale, constant._y_scaler.mean) == ([1], [3e5 + 0.1])


def test_what_rounding_leaves_of_a_constant_is_no_scale():
    values = np.tile([[0.3, 1], [0.1 + 0.2, -1]], (20, 1))
    scaler = Scaler.of(values)
    assert scaler.scale.tolist() == [1, 1]
    np.testing.assert_allclose(scaler.mean, [0.3, 0], atol=1e-15)
    np.testing.assert_allclose(scaler.back(scaler.forward(values)), values, rtol=1e-15)


def test_scaling_follows_only_what_is_trained_on(monkeypatch):
    X = tables(400)
    seen = []
    monkeypatch.setattr(
        Scaler, "of", classmethod(lambda cls, values: seen.append(len(values)) or cls.none(values.shape[1]))
    )
    small(RNNRegressor).fit(X, X[:, -1, 0])
    assert seen == [360 * 5, 360]


@pytest.mark.parametrize("scale", [True, False])
def test_values_that_are_too_large(scale):
    X = np.sign(tables()) * 1.5e308
    for given, y, name in ((X, X[:, -1, 0] * 0, "X"), (tables(), X[:, -1, 0], "y")):
        with pytest.raises(ValueError, match=rf"{name} holds values too large for float32: up to 1\.5e\+308"):
            small(RNNRegressor, scale=scale).fit(given, y)
    model = small(RNNRegressor, scale=scale).fit(tables() * 1e-9, tables()[:, -1, 0])
    if scale:
        with pytest.raises(ValueError, match="X holds values too large for float64"):
            model.predict(X)


@pytest.mark.parametrize("factor", [1e-200, 2.0**-600, 1e200])
def test_scales_of_any_size(factor):
    X = tables()
    y = X[:, -1, 0]
    wanted = small(RNNRegressor).fit(X, y).predict(X)
    np.testing.assert_allclose(
        small(RNNRegressor).fit(X * factor, y * factor).predict(X * factor), wanted * factor, rtol=1e-4
    )


# -- predictions -----------------------------------------------------------------------------------


def test_predictions_follow_the_weights():
    X = tables()
    model = small(RNNRegressor).fit(X, X[:, -1, 0])
    before = model.predict(X)
    assert model.predict(X).tolist() == before.tolist()
    model.model_.parameters["bias_out"][0] += 1
    np.testing.assert_allclose(model.predict(X) - before, model._y_scaler.scale[0], rtol=1e-6)
    model.model_.parameters["bias_out"] = model.model_.parameters["bias_out"] - 1
    np.testing.assert_allclose(model.predict(X), before, rtol=1e-6)


@both
def test_not_fitted_in_the_words_of_both(cls):
    for call in (
        lambda: cls().predict(tables()),
        lambda: cls().score(tables(), [0]),
        lambda: cls().save("x"),
    ):
        for error in (fastrnn.NotFittedError, NotFittedError):
            with pytest.raises(error):
                call()


# -- lists -----------------------------------------------------------------------------------------


@both
def test_a_list_of_arrays_is_one_however_long_they_are(cls):
    X = tables()[:, :, 0]
    model = small(cls).fit(list(X), targets_of(cls, tables()))
    assert not hasattr(model, "n_features_in_")
    assert model.predict([X[0], X[1, :3]]).shape == (2,)
    assert model.predict(list(X)).tolist() == model.predict(X).tolist()


@both
@pytest.mark.parametrize("form", [list, np.ndarray.tolist])
def test_steps_of_a_list_are_a_list_again(cls, form):
    X = tables()[:, :, 0]
    model = small(cls, head="each").fit(form(X), form((X > 0).astype(int)))
    assert isinstance(model.predict(form(X)), list)
    assert np.stack(model.predict(form(X))).tolist() == model.predict(X).tolist()


# -- training --------------------------------------------------------------------------------------


def test_history():
    X = tables(400)
    model = small(RNNRegressor, epochs=4, batch_size=100).fit(X, X[:, -1, 0])
    assert [entry["epoch"] for entry in model.history_] == [1, 2, 3, 4]
    assert [entry["step"] for entry in model.history_] == [4, 8, 12, 16]
    assert model.n_iter_ == 4
    assert list(model.history_[0]) == list(fitting.FitEntry.__annotations__)
    assert {entry["lr"] for entry in model.history_} == {3e-3}
    seconds = [entry["seconds"] for entry in model.history_]
    assert seconds[0] > 0
    assert seconds == sorted(seconds)
    assert all(type(entry["valid_loss"]) is float for entry in model.history_)


def split_of(model, n, strata=None):
    """What `fit` trains on and holds out: the first draws of its stream."""
    return base._split(n, model.validation_fraction, strata, np.random.default_rng(model.random_state))


@both
@heads
def test_the_weights_are_those_of_the_best_epoch(cls, head):
    X = ragged(400)
    y = targets_of(cls, X, head)
    model = small(cls, head=head, epochs=30, lr=0.1, patience=4).fit(X, y)
    losses = [entry["valid_loss"] for entry in model.history_]
    best = int(np.argmin(losses))
    assert model.best_epoch_ == best + 1
    assert model.n_iter_ == len(losses) == min(30, model.best_epoch_ + 4)
    strata = None if cls is RNNRegressor or head == "each" else y
    _, held = split_of(model, 400, strata)
    assert 35 <= len(held) <= 45
    X_held, y_held = [X[i] for i in held], [y[i] for i in held]
    if cls is RNNRegressor:
        off = np.concatenate([np.ravel(p) for p in model.predict(X_held)]) - np.concatenate(
            [np.ravel(v) for v in y_held]
        )
        loss = np.mean(off**2) / model._y_scaler.scale[0] ** 2
    else:
        p = model.predict_proba(X_held)
        p, labels = (np.concatenate(p), np.concatenate(y_held)) if head == "each" else (p, np.array(y_held))
        loss = -np.log(p[np.arange(len(p)), (labels == "up").astype(int)]).mean()
    np.testing.assert_allclose(loss, losses[best], rtol=1e-4)


def test_patience():
    X = tables(400)
    y = np.random.default_rng(3).normal(size=400)  # nothing to learn
    short = small(RNNRegressor, epochs=40, lr=0.03, patience=2).fit(X, y)
    assert short.n_iter_ == short.best_epoch_ + 2 < 40
    long = small(RNNRegressor, epochs=40, lr=0.03, patience=None).fit(X, y)
    assert long.n_iter_ == 40
    losses = [entry["valid_loss"] for entry in long.history_]
    assert long.best_epoch_ == np.argmin(losses) + 1
    assert [{**entry, "seconds": 0} for entry in long.history_[: short.n_iter_]] == [
        {**entry, "seconds": 0} for entry in short.history_
    ]


def test_limits_of_steps_and_seconds():
    X = tables(100)
    y = X[:, -1, 0]
    model = small(RNNRegressor, batch_size=10, max_steps=25, epochs=99).fit(X, y)
    assert [entry["step"] for entry in model.history_] == [10, 20, 25]
    assert model.n_iter_ == model.best_epoch_ == 3
    model = small(RNNRegressor, max_seconds=0.05, epochs=10**6, patience=None).fit(X, y)
    assert 0.05 <= model.history_[-1]["seconds"] < 10


@both
def test_few_sequences_are_all_trained_on(cls):
    X = tables(295)  # a tenth of them is 29.5, which is rounded to even: 30
    y = targets_of(cls, X)
    model = small(cls, validation_fraction=0.0999).fit(X, y)
    assert [entry["valid_loss"] for entry in model.history_] == [None] * 3
    assert model.best_epoch_ == 3
    assert small(cls, validation_fraction=0.11).fit(X, y).history_[0]["valid_loss"] is not None
    assert small(cls, validation_fraction=0).fit(tables(400), targets_of(cls, tables(400))).best_epoch_ == 3


def test_of_each_label_a_share_is_held_out():
    y = np.repeat([0, 1, 2, 3], [800, 150, 50, 1])
    train_on, held = base._split(1001, 0.1, y, np.random.default_rng(0))
    assert np.bincount(y[held], minlength=4).tolist() == [80, 15, 5, 0]
    assert sorted([*train_on, *held]) == list(range(1001))
    train_on, held = base._split(100, 0.9, np.arange(100), np.random.default_rng(0))
    assert (len(train_on), len(held)) == (100, 0)


def test_small_strata_are_held_out_of_too():
    y = np.repeat(np.arange(100), 4)
    train_on, held = base._split(400, 0.1, y, np.random.default_rng(0))
    assert sorted([*train_on, *held]) == list(range(400))
    assert len(held) == 40
    assert np.bincount(y[held]).max() == 1
    train_on, held = base._split(400, 0.9, y, np.random.default_rng(0))  # and never all of one
    assert sorted([*train_on, *held]) == list(range(400))
    assert len(np.unique(y[train_on])) == 100


def test_a_classifier_holds_out_of_each_label(monkeypatch):
    held, train = [], base.train

    def training(model, optimizer, problem, train_on, hold_out, *more, **options):
        assert sorted([*train_on, *hold_out]) == list(range(400))
        held.append(hold_out)
        return train(model, optimizer, problem, train_on, hold_out, *more, **options)

    monkeypatch.setattr(base, "train", training)
    X, y = tables(400), np.repeat(["a", "b", "c"], [370, 20, 10])
    for seed in range(3):
        small(RNNClassifier, epochs=1, random_state=seed).fit(X, y)
        assert np.unique(y[held.pop()], return_counts=True)[1].tolist() == [37, 2, 1]


def test_batches_of_about_the_same_length():
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    sequences = Sequences(np.zeros((lengths.sum(), 1)), lengths)
    cut = list(fitting.batches(sequences, np.arange(1000), 10, np.random.default_rng(0)))
    assert sorted(np.concatenate(cut)) == list(range(1000))
    assert np.mean([np.ptp(lengths[batch]) for batch in cut]) < 15


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_means_of_losses_are_over_what_counts(per_step, weighted):
    rng = np.random.default_rng(0)
    X = ragged(700)
    sequences = Sequences(np.concatenate(X), np.array([len(x) for x in X]))
    n = len(sequences.flat) if per_step else 700
    y, weights = rng.integers(0, 3, n), rng.integers(0, 4, n).astype(float) if weighted else None
    problem = fitting.Problem(sequences, y, weights, per_step)
    sm = SequenceModel(
        2, 6, 3, head="each" if per_step else "last", loss="cross_entropy", dtype=np.float64, rng=0
    )
    chosen = rng.permutation(700)[:600]
    total = counted = 0
    for i in chosen:
        rows = np.arange(sequences.lengths[i]) + sequences.starts[i]
        out, _ = sm.forward(sequences.flat[rows][:, None])
        for logits, place in zip(out.reshape(-1, 3), rows if per_step else [i], strict=True):
            w = 1 if weights is None else weights[place]
            total -= w * (logits[y[place]] - np.log(np.exp(logits).sum()))
            counted += w
    np.testing.assert_allclose(fitting.mean_loss(sm, problem, chosen), total / counted, rtol=1e-10)
    assert fitting.mean_loss(sm, problem, chosen[:0]) is None


def test_training_ends_where_it_diverges():
    X = tables(400)
    y = X[:, -1, 0]
    options = {"optimizer": "sgd", "clip": None, "cell": "rnn", "epochs": 20}
    for n in (400, 100):  # with and without a validation
        with pytest.warns(RuntimeWarning, match=r"the loss came to (inf|nan) in epoch \d+: training ends with the weights of "
                          r"epoch \d+; a smaller lr may help") as caught:  # fmt: skip
            model = small(RNNRegressor, lr=1e6, **options).fit(X[:n], y[:n])
        assert caught[0].filename == __file__
        assert model.n_iter_ < 20
        assert np.isfinite(model.predict(X)).all()
    with pytest.warns(RuntimeWarning, match="weights came to NaN or infinity in epoch 1: .* of epoch 0"):
        model = small(
            RNNRegressor, lr=3e38, **options | {"epochs": 1, "batch_size": 100, "scale": False}
        ).fit(X[:100], y[:100] * 1e3)
    assert np.isfinite(model.predict(X)).all()
    assert model.best_epoch_ == 0


# -- weights of labels -----------------------------------------------------------------------------


def test_weights_move_decisions():
    rng = np.random.default_rng(0)
    y = (rng.random(600) < 0.2).astype(int)
    X = rng.normal(size=(600, 4)) + 0.7 * y[:, None]
    shares = {}
    for name, weight in (("none", None), ("balanced", "balanced"), ("more", {1: 50}), ("never", {1: 0})):
        model = small(RNNClassifier, epochs=15, lr=0.01, class_weight=weight).fit(X, y)
        shares[name] = (model.predict(X) == 1).mean()
    assert shares["never"] == 0
    assert 0.02 < shares["none"] < 0.25
    assert shares["none"] + 0.1 < shares["balanced"] < 0.6
    assert shares["more"] > 0.8


def test_balanced_is_as_the_dict_that_says_so():
    X = tables(100)
    y = np.repeat(["a", "b"], [80, 20])
    models = [
        small(RNNClassifier, class_weight=w).fit(X, y) for w in ("balanced", {"a": 100 / 160, "b": 100 / 40})
    ]
    assert weights_of(models[0]) == weights_of(models[1])


@pytest.mark.parametrize("per_step", [False, True])
def test_weights_are_as_repeated_sequences(per_step):
    X = ragged(12)
    lengths = np.array([len(x) for x in X])
    y = np.arange(12) % 2
    often = np.where(y, 3, 1)
    repeated = np.repeat(np.arange(12), often)
    ended = []
    for which, weights in ((np.arange(12), often.astype(float)), (repeated, None)):
        labels = y[which]
        if per_step:
            labels = np.repeat(labels, lengths[which])
            weights = None if weights is None else np.repeat(weights, lengths)
        problem = fitting.Problem(
            Sequences(np.concatenate([X[i] for i in which]), lengths[which]), labels, weights, per_step
        )
        sm = SequenceModel(
            2, 5, 2, head="each" if per_step else "mean", loss="cross_entropy", dtype=np.float64, rng=0
        )
        limits = fitting.Limits(99, 9, None, None, None, "norm", 1.0)
        trained = fitting.train(
            sm, optim.SGD(lr=0.1), problem, np.arange(len(which)), np.arange(0), limits, np.random.default_rng(0),
            verbose=False,
        )  # fmt: skip
        ended.append((sm.state_dict(), [entry["train_loss"] for entry in trained.history]))
    np.testing.assert_allclose(ended[0][1], ended[1][1], rtol=1e-10)
    for name, W in ended[0][0].items():
        np.testing.assert_allclose(W, ended[1][0][name], rtol=1e-9, atol=1e-12)


def test_labels_that_do_not_count_are_no_validation():
    X = tables(400)
    y = np.zeros(400, int)
    y[0] = 1  # one of it, which is never held out
    model = small(RNNClassifier, class_weight={0: 0}).fit(X, y)
    assert [entry["valid_loss"] for entry in model.history_] == [None] * 3
    with pytest.raises(
        ValueError, match=r"class_weight must not be 0 for every label of y, got \{0: 0, 1: 0\}"
    ):
        small(RNNClassifier, class_weight={0: 0, 1: 0}).fit(X, y)


# -- the same again --------------------------------------------------------------------------------


@both
def test_the_same_bits_again(cls, backend):
    X = ragged(400)
    y = targets_of(cls, X)
    options = {"backend": backend, "num_layers": 2, "dropout": 0.3, "epochs": 2}
    models = [small(cls, num_threads=n, **options).fit(X, y) for n in (1, 2, 3, None)]
    assert len({str(weights_of(model)) for model in models}) == 1
    assert len({str(bits(model.predict(X))) for model in models}) == 1
    assert weights_of(small(cls, **options | {"random_state": 1}).fit(X, y)) != weights_of(models[0])


@both
def test_random_states(cls):
    X = tables()
    y = targets_of(cls, X)

    def fitted(random_state):
        return str(weights_of(small(cls, random_state=random_state).fit(X, y)))

    assert fitted(5) == fitted(np.int64(5)) == fitted(np.random.default_rng(5))
    assert fitted(np.random.RandomState(5)) == fitted(np.random.RandomState(5))
    generator = np.random.default_rng(5)
    assert fitted(generator) != fitted(generator)
    state = np.random.get_state()[1].tolist()
    assert fitted(None) != fitted(None)
    assert np.random.get_state()[1].tolist() == state


@both
def test_fitting_again_begins_anew(cls):
    X = tables()
    y = targets_of(cls, X)
    model = small(cls).fit(X, y)
    before = weights_of(model), model.history_
    assert weights_of(model.fit(X, y)) == before[0]
    assert model.history_ is not before[1]


# -- progress --------------------------------------------------------------------------------------


def test_nothing_is_shown_unless_it_is_asked_for(capfd, monkeypatch):
    monkeypatch.setattr("fastrnn.text.display.LINE_EVERY", 0)
    X = tables(400)
    small(RNNRegressor).fit(X, X[:, -1, 0])
    assert capfd.readouterr() == ("", "")
    small(RNNRegressor, verbose=1).fit(X, X[:, -1, 0])
    out, err = capfd.readouterr()
    assert out == ""
    assert "epoch 1, loss " in err
    assert ", valid " in err


# -- what goes wrong -------------------------------------------------------------------------------


def state_of(model):
    return {name: id(value) for name, value in vars(model).items()}


@both
@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("where", ["train_step", "loss", "load_state_dict"])
def test_an_interrupt_leaves_what_was_fitted(cls, error, where, other, monkeypatch):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(tables(400)[:, :, 0], columns=list("abcde"))
    y = targets_of(cls, frame.to_numpy())
    X = tables(400) if other else frame.rename(columns={"a": "z"})
    model, new = small(cls).fit(frame, y), small(cls)
    before, before_new, predicted = state_of(model), state_of(new), model.predict(frame)

    def interrupted(*arguments, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(SequenceModel, where, interrupted)
        for one in (model, new):
            with pytest.raises(error):
                one.fit(X, y)
    assert state_of(model) == before
    assert state_of(new) == before_new
    assert (model.predict(frame) == predicted).all()
    model.fit(X, y)  # nothing of the interrupted call is left


@both
def test_a_fit_that_is_refused_leaves_what_was_fitted(cls):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(tables()[:, :, 0], columns=list("abcde"))
    y = targets_of(cls, frame.to_numpy())
    model = small(cls).fit(frame, y)
    before = state_of(model)
    for X, targets, said in (
        (tables(), y[:-1], "40 sequences, got 39"),
        (frame[["a"]], y[1:], "inconsistent numbers of samples"),
        (tables(40, 3)[:, :, 0], None, "requires y"),
        (tables() * np.nan, y, "X must be finite"),
    ):
        with pytest.raises(ValueError, match=said):
            model.fit(X, targets)
        assert state_of(model) == before
    model.set_params(lr=-1)
    with pytest.raises(ValueError, match="lr"):
        model.fit(tables(), y)
    model.set_params(lr=3e-3)
    assert vars(model).keys() == before.keys()
    model.predict(frame)


# -- threads ---------------------------------------------------------------------------------------


@both
def test_any_number_of_threads_predict(cls):
    X = ragged(200)
    model = small(cls, backend=None).fit(X, targets_of(cls, X))
    expected, found = bits(model.predict(X)), []

    def read():
        for _ in range(5):
            found.append(bits(model.predict(X)) == expected)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 20


def in_thread(call):
    """What a call raises on a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).exception(timeout=60)


@both
def test_fit_has_the_estimator_to_itself(cls, tmp_path, monkeypatch):
    X = tables()
    y = targets_of(cls, X)
    model = small(cls).fit(X, y)
    found = {}
    train_step = SequenceModel.train_step

    def meanwhile(self, *arguments, **options):
        if not found:
            for name, call in calls.items():
                found[name] = in_thread(call)
        return train_step(self, *arguments, **options)

    calls = {
        "predict": lambda: model.predict(X),
        "score": lambda: model.score(X, y),
        "fit": lambda: model.fit(X, y),
        "save": lambda: model.save(tmp_path / "m"),
    }
    if cls is RNNClassifier:
        calls["predict_proba"] = lambda: model.predict_proba(X)
    monkeypatch.setattr(SequenceModel, "train_step", meanwhile)
    model.fit(X, y)
    for name, error in found.items():
        assert type(error) is RuntimeError, name
        said = (
            "in use by another thread, and fit changes it"
            if name == "fit"
            else "being changed by another thread"
        )
        assert f"this {cls.__name__} is {said}" in str(error)
    assert not (tmp_path / "m").exists()
    monkeypatch.setattr(SequenceModel, "train_step", train_step)
    forward = SequenceModel.forward

    def reading(self, *arguments, **options):
        found["fit"] = in_thread(lambda: model.fit(X, y))
        found["predict"] = in_thread(lambda: small(cls).fit(X, y) and None)
        return forward(self, *arguments, **options)

    monkeypatch.setattr(SequenceModel, "forward", reading)
    model.predict(X)
    assert type(found["fit"]) is RuntimeError
    assert found["predict"] is None


# -- learning --------------------------------------------------------------------------------------


def test_rows_of_digits():
    X, y = load_digits(return_X_y=True)
    parts = train_test_split(X.reshape(-1, 8, 8), y, stratify=y, random_state=0)
    X_train, X_test, y_train, y_test = parts
    model = RNNClassifier(epochs=16, random_state=0).fit(X_train, y_train)
    assert model.score(X_test, y_test) >= 0.95


@pytest.mark.parametrize("options", [{"cell": "lstm"}, {"bidirectional": True}, {"head": "mean"}, {"num_layers": 2, "dropout": 0.1},
                                     {"cell": "rnn", "clip": "value"}, {"optimizer": "rmsprop"}], ids=str)  # fmt: skip
def test_learns_with_any_settings(options, dtype):
    X = np.random.default_rng(0).normal(size=(400, 6))
    y = X[:, -1] - X[:, 2]
    model = RNNRegressor(16, epochs=40, lr=0.01, dtype=dtype, random_state=0, **options).fit(X, y)
    assert model.score(X, y) > 0.5


def test_scikit_learn_is_asked_for_where_it_is_missing():
    done = run_python(
        "-c",
        "import sys; sys.modules['sklearn'] = None\n"
        "import fastrnn\n"
        "try: fastrnn.RNNClassifier\n"
        "except ImportError as error: print(error)",
    )
    assert done.stdout.strip() == (
        "the estimators need scikit-learn, which is not installed: pip install 'fastrnn[sklearn]'"
    ), done.stderr


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        X = tables()
        for cls in BOTH:
            small(cls, dropout=0.0).fit(X, targets_of(cls, X)).predict(X)
