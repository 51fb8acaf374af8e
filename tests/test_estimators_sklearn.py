"""`RNNRegressor` and `RNNClassifier` among scikit-learn's tools: its checks, searches, pipelines, tables, copies."""

import copy
import pickle

import numpy as np
import pytest
from estimator_support import BOTH, both, small
from joblib import dump, load, parallel_backend
from sklearn import config_context
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted

from fastrnn import RNNClassifier, RNNRegressor


def table(n=60, T=5, seed=0):
    """X (n, T), and for each class of estimator its y."""
    X = np.random.default_rng(seed).normal(size=(n, T))
    total = X.sum(axis=1)
    return X, {RNNRegressor: total, RNNClassifier: np.where(total > 0, "up", "down")}


def ragged(n=60, seed=0):
    rng = np.random.default_rng(seed)
    X = [rng.normal(size=(rng.integers(2, 7), 2)) for _ in range(n)]
    total = np.array([x[-1].sum() for x in X])
    return X, {RNNRegressor: total, RNNClassifier: (total > 0).astype(int)}


# -- scikit-learn's own checks ---------------------------------------------------------------------


#: Checks that look at how well it has learned; the others need only a few steps.
OF_LEARNING = ("train", "class_weight", "fit_score_takes_y", "supervised_y_2d", "n_iter", "decision_proba")


def checks_of(*estimators, epochs=None):
    """One case for each check of each estimator; `epochs` for checks that do not look at what was learned."""
    cases = []
    for estimator in estimators:
        for _, check in estimator_checks_generator(estimator):
            name = name_of(check)
            shorter = epochs is not None and not any(part in name for part in OF_LEARNING)
            checked = clone(estimator).set_params(epochs=epochs) if shorter else estimator
            cases.append(pytest.param(checked, check, id=f"{estimator}-{name}".replace("\n", "")))
    return cases


def name_of(check):
    while not hasattr(check, "__name__"):  # a partial one
        check = check.func
    return check.__name__


@pytest.mark.few(1000)
@pytest.mark.parametrize(("estimator", "check"), checks_of(RNNRegressor(), RNNClassifier(), epochs=5))
def test_check_estimator(estimator, check):
    check(estimator)


def variants():
    for cls in BOTH:
        yield cls()
        yield cls(cell="lstm", head="mean")
        yield cls(cell="rnn", bidirectional=True)
        yield cls(num_layers=2, dropout=0.2, dtype="float64", num_threads=2)
        yield cls(16, backend="numpy", lr=0.01)
        yield cls(16, backend="numba", lr=0.01)
        yield cls(clip="value", optimizer="rmsprop")
        yield cls(patience=None, validation_fraction=0.0)
    yield RNNClassifier(class_weight="balanced")


@pytest.mark.many(60)
@pytest.mark.few(2)
@pytest.mark.parametrize(("estimator", "check"), checks_of(*variants()))
def test_check_estimator_of_variants(estimator, check):
    check(estimator)


@both
def test_tags_excuse_nothing(cls):
    tags = get_tags(cls())
    assert not tags.non_deterministic
    assert not tags.no_validation
    assert not tags._skip_test
    assert tags.requires_fit
    assert tags.target_tags.required
    assert tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array
    assert not tags.input_tags.allow_nan
    assert not tags.input_tags.sparse
    if cls is RNNRegressor:
        assert is_regressor(cls())
        assert not tags.regressor_tags.poor_score
        assert tags.target_tags.multi_output
    else:
        assert is_classifier(cls())
        assert not tags.classifier_tags.poor_score
        assert tags.classifier_tags.multi_class
        assert not tags.target_tags.multi_output


# -- searches and pipelines ------------------------------------------------------------------------


@both
@pytest.mark.parametrize("workers", ["loky", "threading"])
def test_grid_search_in_processes_and_threads(cls, workers):
    X, y = table()
    grid = {"hidden_size": [2, 5], "lr": [0.01, 1e-7]}
    alone = GridSearchCV(small(cls), grid, cv=KFold(3)).fit(X, y[cls])
    with parallel_backend(workers, n_jobs=2):
        search = GridSearchCV(small(cls), grid, cv=KFold(3), n_jobs=2).fit(X, y[cls])
    for name in ("mean_test_score", "split2_test_score"):
        np.testing.assert_array_equal(search.cv_results_[name], alone.cv_results_[name])
    assert search.best_params_ == alone.best_params_
    np.testing.assert_array_equal(search.predict(X), alone.predict(X))
    assert search.n_features_in_ == 5


@both
def test_grid_search_over_sequences_of_any_length(cls):
    X, y = ragged()
    search = GridSearchCV(small(cls), {"lr": [0.03, 1e-7]}, cv=3, error_score="raise").fit(X, y[cls])
    assert search.best_params_ == {"lr": 0.03}
    assert search.predict(X[:7]).shape == (7,)
    assert not hasattr(search, "n_features_in_")


@both
def test_cross_validation_of_steps(cls):
    X, _ = ragged()
    wanted = [x.cumsum(axis=0)[:, 0] for x in X]
    y = wanted if cls is RNNRegressor else [(row > 0).astype(int) for row in wanted]
    scores = cross_val_score(
        small(cls, head="each", epochs=8, lr=0.03), X, y, cv=KFold(2), error_score="raise"
    )
    assert scores.min() > (0.1 if cls is RNNRegressor else 0.6)


@both
def test_pipeline(cls):
    X, y = table()
    X = X * [1, 10, 100, 1e3, 1e4] + 5  # columns of one channel are scaled alike
    pipeline = make_pipeline(StandardScaler(), small(cls, epochs=20, lr=0.01))
    scores = cross_val_score(pipeline, X, y[cls], cv=3, error_score="raise")
    assert scores.min() > 0.5
    scaled = StandardScaler().fit_transform(X)
    alone = clone(pipeline[-1]).fit(scaled, y[cls])
    np.testing.assert_array_equal(pipeline.fit(X, y[cls]).predict(X), alone.predict(scaled))


def test_probabilities_out_of_fold():
    X, y = table()
    p = cross_val_predict(small(RNNClassifier), X, y[RNNClassifier], method="predict_proba", cv=3)
    np.testing.assert_allclose(p.sum(axis=1), 1)


@both
def test_metadata_routing(cls):
    X, y = table()
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), small(cls))
        cross_val_score(pipeline, X, y[cls], cv=2, error_score="raise")
        pipeline.fit(X, y[cls]).score(X, y[cls])
        assert "sample_weight" not in str(cls().get_metadata_routing().fit)
        with pytest.raises(TypeError, match="sample_weight"):
            make_pipeline(small(cls)).fit(X, y[cls], sample_weight=np.ones(len(X)))


@both
def test_sample_weight_is_not_taken(cls):
    X, y = table()
    with pytest.raises(TypeError, match="sample_weight"):
        cls().fit(X, y[cls], sample_weight=np.ones(len(X)))


# -- tables ----------------------------------------------------------------------------------------


@both
def test_tables_with_names(cls):
    pandas = pytest.importorskip("pandas")
    X, y = table()
    frame = pandas.DataFrame(X, columns=list("abcde"), index=range(100, 160))
    model = small(cls).fit(frame, pandas.Series(y[cls], index=frame.index))
    assert model.feature_names_in_.tolist() == list("abcde")
    assert model.n_features_in_ == 5
    np.testing.assert_array_equal(model.predict(frame), small(cls).fit(X, y[cls]).predict(X))
    assert isinstance(model.predict(frame), np.ndarray)
    for wrong in (frame[list("bacde")], frame[list("abcd")], frame.rename(columns={"a": "f"})):
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(wrong)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)
    model.fit(X, y[cls])
    assert not hasattr(model, "feature_names_in_")
    model.fit(frame, y[cls]).fit(X[:, :, None], y[cls])
    assert not hasattr(model, "feature_names_in_")
    assert not hasattr(model, "n_features_in_")


@both
def test_set_output(cls):
    pandas = pytest.importorskip("pandas")
    X, y = table()
    frame = pandas.DataFrame(X, columns=list("abcde"))
    pipeline = make_pipeline(StandardScaler(), small(cls)).set_output(transform="pandas").fit(frame, y[cls])
    assert pipeline[-1].feature_names_in_.tolist() == list("abcde")
    assert type(pipeline.predict(frame)) is np.ndarray
    assert not hasattr(cls(), "set_output")


@both
def test_several_series_of_pandas_in_a_list(cls):
    pandas = pytest.importorskip("pandas")
    X, y = ragged()
    frames = [pandas.DataFrame(x, columns=["u", "v"]) for x in X]
    np.testing.assert_array_equal(
        small(cls).fit(frames, y[cls]).predict(frames), small(cls).fit(X, y[cls]).predict(X)
    )


def test_labels_of_a_categorical_series():
    pandas = pytest.importorskip("pandas")
    X, y = table()
    model = small(RNNClassifier).fit(X, pandas.Series(y[RNNClassifier], dtype="category"))
    assert model.classes_.tolist() == ["down", "up"]


# -- copies ----------------------------------------------------------------------------------------


@both
def test_clone(cls):
    X, y = table()
    model = small(cls, num_layers=2, patience=None).fit(X, y[cls])
    cloned = clone(model)
    assert cloned.get_params() == model.get_params()
    check_is_fitted(model)
    for method in ("predict", "score", "save"):
        with pytest.raises(NotFittedError):
            getattr(cloned, method)(*(X, y[cls])[: 2 if method == "score" else 1])
    np.testing.assert_array_equal(cloned.fit(X, y[cls]).predict(X), model.predict(X))


@both
@pytest.mark.parametrize("way", ["pickle", "copy", "deepcopy", "joblib", "joblib mapped"])
def test_copies_and_pickles(cls, way, tmp_path):
    X, y = table()
    model = small(cls).fit(X, y[cls])
    if way == "pickle":
        again = pickle.loads(pickle.dumps(model))
    elif "copy" in way:
        again = getattr(copy, way)(model)
    else:
        dump(model, tmp_path / "m")
        again = load(tmp_path / "m", mmap_mode="r" if "mapped" in way else None)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.get_params() == model.get_params()
    assert again.history_ == model.history_
    again.fit(X[:, :3], y[cls])
    assert model.predict(X).shape == (60,)


@both
def test_parameters_are_those_of_init(cls):
    X, y = table()
    model = small(cls)
    before = model.get_params()
    model.fit(X, y[cls])
    assert all(model.get_params()[name] is value for name, value in before.items())
    assert repr(cls(8, lr=0.1)) == f"{cls.__name__}(hidden_size=8, lr=0.1)"
    with pytest.raises(TypeError):
        cls(8, 1, "gru")
