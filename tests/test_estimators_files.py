"""Files of `RNNRegressor` and `RNNClassifier`: what comes back, and what is refused."""

import copy
import json
import tracemalloc

import numpy as np
import pytest
from checkpoint_files import signed
from estimator_support import both, small
from sklearn.exceptions import NotFittedError
from support import bits

import fastrnn
from fastrnn import CharRNN, CheckpointError, RNNClassifier, RNNRegressor
from fastrnn.checkpoint import read_checkpoint


def data(n=40, T=5, d=2):
    X = np.random.default_rng(0).normal(size=(n, T, d))
    return X, X[:, -1, 0]


def said_by(model, X):
    said = [model.predict(X)]
    if isinstance(model, RNNClassifier):
        said.append(model.predict_proba(X))
    if getattr(said[0], "dtype", None) == "O":  # whose bits are addresses
        said[0] = said[0].astype(str)
    return [bits(*(part if isinstance(part, list) else [part])) for part in said]


def assert_same(again, model, X):
    assert type(again) is type(model)
    assert said_by(again, X) == said_by(model, X)
    assert again.get_params() == model.get_params()
    fitted = {name for name in vars(model) if name.endswith("_")}
    assert {name for name in vars(again) if name.endswith("_")} == fitted
    for name in fitted - {"model_", "classes_", "feature_names_in_"}:
        assert getattr(again, name) == getattr(model, name), name
        assert type(getattr(again, name)) is type(getattr(model, name)), name
    assert bits(*again.model_.state_dict().values()) == bits(*model.model_.state_dict().values())


# -- what comes back -------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("head", ["last", "mean", "each"])
@pytest.mark.parametrize("given", ["array", "list", "table"])
def test_what_is_saved_comes_back(cls, head, given, dtype, tmp_path):
    X, y = data()
    if head == "each":
        y = X.cumsum(axis=1)[:, :, 0]
    if cls is RNNClassifier:
        y = y > 0
    if given == "list":
        X, y = [x[: 2 + i % 4] for i, x in enumerate(X)], y
        y = [row[: len(x)] for x, row in zip(X, y, strict=True)] if head == "each" else y
    elif given == "table":
        X = X[:, :, 0]
    model = small(
        cls, head=head, dtype=np.dtype(dtype).name, bidirectional=True, num_layers=2, clip_threshold=np.inf
    ).fit(X, y)
    model.save(tmp_path / "m")
    for load in (cls.load, fastrnn.load):
        again = load(tmp_path / "m")
        assert_same(again, model, X)
        assert again.score(X, y) == model.score(X, y)
        assert said_by(again.fit(X, y), X) == said_by(model, X)


@pytest.mark.parametrize("k", [1, 3])
def test_several_outputs(k, tmp_path):
    X, y = data()
    model = small(RNNRegressor).fit(X, y[:, None] * np.arange(1, k + 1) * 1e5)
    fastrnn.save(model, tmp_path / "m")
    assert_same(fastrnn.load(tmp_path / "m"), model, X)


LABELS = {
    **{np.dtype(kind).name: np.array([1, 0, 7], kind) for kind in "bhlqBHLQefd"},
    "large": np.array([2**63 - 1, -(2**63), 0]),
    "larger": np.array([2**64 - 1, 0, 1], np.uint64),
    "big-endian": np.array([1, 0, 700], ">i4"),
    "negative": np.array([-1, 1, 5], np.int8),
    "fractions of one kind": np.array([2.0, -3.0, 1e9]),
    "bool": np.array([True, False]),
    "str": np.array(["b", "a", "\N{SNOWMAN} 'x\"\\\n"]),
    "object": np.array(["b", "a", ""], object),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels(kind, tmp_path):
    X, _ = data()
    labels = LABELS[kind]
    model = small(RNNClassifier).fit(X, labels[np.arange(40) % len(labels)])
    model.save(tmp_path / "m")
    again = RNNClassifier.load(tmp_path / "m")
    if kind != "big-endian":  # which comes back in the order of the machine
        assert_same(again, model, X)
    assert (again.predict(X) == model.predict(X)).all()
    assert again.classes_.tolist() == sorted(labels.tolist())
    assert again.classes_.dtype == model.classes_.dtype.newbyteorder("=")


@pytest.mark.parametrize(
    "labels", [np.array([1, 2], np.longdouble), np.array(["a", "b"], np.dtypes.StringDType())], ids=str
)
def test_labels_that_no_file_holds(labels, tmp_path):
    X, _ = data()
    model = small(RNNClassifier).fit(X, np.tile([1, 0], 20))
    model.classes_ = labels
    with pytest.raises(
        TypeError, match=r"labels of dtype .* cannot be saved: integers, floats, bools and str can"
    ):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "weight", ["balanced", {"a": 1, "b": 2.5}, {"a": np.float32(0.5)}, {np.str_("b"): np.int64(0)}], ids=str
)
def test_weights_of_labels(weight, tmp_path):
    X, _ = data()
    model = small(RNNClassifier, class_weight=weight).fit(X, ["a", "b"] * 20)
    model.save(tmp_path / "m")
    again = RNNClassifier.load(tmp_path / "m")
    assert_same(again, model, X)
    assert said_by(again.fit(X, ["a", "b"] * 20), X) == said_by(model, X)


def test_weights_of_labels_that_are_numbers(tmp_path):
    X, _ = data()
    for weight in ({0: 1, 1: 2}, {False: 0.5}, {np.int8(1): 3}, {1.0: 2}):
        model = small(RNNClassifier, class_weight=weight).fit(X, [0, 1] * 20)
        model.save(tmp_path / "m")
        assert RNNClassifier.load(tmp_path / "m").class_weight == weight


@both
def test_names_of_columns(cls, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(data()[0][:, :, 0], columns=["a", "b", "\N{SNOWMAN}", "", "e"])
    model = small(cls).fit(frame, np.arange(40) % 2)
    model.save(tmp_path / "m")
    again = cls.load(tmp_path / "m")
    assert_same(again, model, frame)
    assert again.feature_names_in_.tolist() == list(frame)
    assert again.feature_names_in_.dtype == object
    with pytest.raises(ValueError, match="feature names should match"):
        again.predict(frame[["b", "a", "\N{SNOWMAN}", "", "e"]])


@both
def test_parameters_of_numpy_types(cls, tmp_path):
    X, y = data()
    model = small(
        cls, hidden_size=np.int16(3), lr=np.float32(0.25), dtype=np.float64, bidirectional=np.True_, verbose=np.int8(0),
        max_seconds=60, max_steps=np.int64(7), random_state=np.uint64(2**64 - 1),
    ).fit(X, y > 0)  # fmt: skip
    model.save(tmp_path / "m")
    again = cls.load(tmp_path / "m")
    assert {**again.get_params(), "dtype": 0} == {**model.get_params(), "dtype": 0}
    assert again.dtype == "float64"
    assert said_by(again, X) == said_by(model, X)


@both
@pytest.mark.parametrize(
    "random_state", [np.random.default_rng(0), np.random.RandomState(0)], ids=["Generator", "RandomState"]
)
def test_a_generator_is_not_kept(cls, random_state, tmp_path):
    X, y = data()
    model = small(cls, random_state=random_state).fit(X, y > 0)
    model.save(tmp_path / "m")
    again = cls.load(tmp_path / "m")
    assert again.random_state is None
    assert said_by(again, X) == said_by(model, X)


@both
def test_parameters_changed_after_fit(cls, tmp_path):
    X, y = data()
    model = (
        small(cls)
        .fit(X, y > 0)
        .set_params(hidden_size=7, head="each", cell="lstm", dtype="float64", scale=False)
    )
    model.save(tmp_path / "m")
    assert_same(cls.load(tmp_path / "m"), model, X)
    for name, value in (("hidden_size", 0), ("lr", "fast"), ("cell", "cnn"), ("random_state", "x")):
        wrong = copy.copy(model).set_params(**{name: value})
        with pytest.raises((ValueError, TypeError), match=name):
            wrong.save(tmp_path / "n")
        assert not (tmp_path / "n").exists()


# -- load with other parameters --------------------------------------------------------------------


@both
def test_parameters_may_be_changed(cls, tmp_path):
    X, y = data()
    model = small(cls).fit(X, y > 0)
    model.save(tmp_path / "m")
    for load in (cls.load, fastrnn.load):
        again = load(tmp_path / "m", backend="numba", num_threads=2, lr=0.5, hidden_size=9)
        assert (again.backend, again.num_threads, again.lr, again.hidden_size) == ("numba", 2, 0.5, 9)
        assert again.model_.num_threads == 2
        assert again.model_.hidden_size == 6
        np.testing.assert_allclose(again.predict(X).astype(float), model.predict(X).astype(float), rtol=1e-9)
    with pytest.raises(
        ValueError, match=f"'depth' is no hyper-parameter of {cls.__name__}; they are hidden_size, num_layers"
    ):
        cls.load(tmp_path / "m", depth=3)
    for name, value, error in (("lr", -1, ValueError), ("hidden_size", "3", TypeError), ("num_threads", 0, ValueError),
                               ("backend", "cuda", ValueError)):  # fmt: skip
        with pytest.raises(error, match=name):
            cls.load(tmp_path / "m", **{name: value})


@both
def test_a_backend_that_is_missing(cls, tmp_path, monkeypatch):
    X, y = data()
    small(cls).fit(X, y > 0).save(tmp_path / "m")
    load = fastrnn.backends.load

    def without(name=None):
        if name == "numpy":
            raise fastrnn.BackendUnavailable("no numpy")
        return load(name)

    monkeypatch.setattr(fastrnn.backends, "load", without)
    with pytest.raises(fastrnn.BackendUnavailable, match="no numpy"):
        cls.load(tmp_path / "m")
    assert cls.load(tmp_path / "m", backend=None).backend is None


def test_files_of_others(tmp_path):
    X, y = data()
    small(RNNRegressor).fit(X, y).save(tmp_path / "r")
    with pytest.raises(
        CheckpointError, match="is not a model of RNNClassifier: it holds a model of RNNRegressor, which"
    ):
        RNNClassifier.load(tmp_path / "r")
    with pytest.raises(CheckpointError, match="RNNRegressor"):
        CharRNN.load(tmp_path / "r")
    fastrnn.save(fastrnn.RNN(2, 3), tmp_path / "l")
    with pytest.raises(
        CheckpointError, match="is not a model of RNNRegressor: it holds a model of RNN, which"
    ):
        RNNRegressor.load(tmp_path / "l")
    with pytest.raises(FileNotFoundError):
        RNNRegressor.load(tmp_path / "none")


@both
def test_what_is_not_fitted_is_not_saved(cls, tmp_path):
    for save in (cls().save, lambda path: fastrnn.save(cls(), path)):
        with pytest.raises(NotFittedError):
            save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


class OwnRegressor(RNNRegressor):
    pass


def test_a_class_of_ones_own(tmp_path):
    X, y = data()
    model = small(OwnRegressor).fit(X, y)
    model.save(tmp_path / "m")
    assert type(OwnRegressor.load(tmp_path / "m")) is OwnRegressor
    assert said_by(RNNRegressor.load(tmp_path / "m"), X) == said_by(model, X)
    with pytest.raises(TypeError, match="a class that is derived from RNNRegressor"):
        fastrnn.save(model, tmp_path / "n")


@both
def test_the_one_before_is_kept(cls, tmp_path):
    X, y = data()
    first = small(cls).fit(X, y > 0)
    first.save(tmp_path / "m")
    small(cls, random_state=1).fit(X, y > 0).save(tmp_path / "m")
    assert_same(cls.load(tmp_path / "m.previous"), first, X)


# -- what anybody may have written -----------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Content and arrays of a file of each class: of a table with names, and of labels with weights."""
    pandas = pytest.importorskip("pandas")
    X, y = data()
    frame = pandas.DataFrame(X[:, :, 0], columns=list("abcde"))
    path = tmp_path_factory.mktemp("written") / "m"
    parts = {}
    for cls, options in ((RNNRegressor, {}), (RNNClassifier, {"class_weight": {"a": 1, "b": 2}})):
        small(cls, **options).fit(frame, y if cls is RNNRegressor else ["a", "b"] * 20).save(path)
        parts[cls] = read_checkpoint(path)
    return parts


def at(content, where, value):
    """Content with another value at a place, ``"a.b.0"``."""
    content = copy.deepcopy(content)
    inner, names = content, where.split(".")
    for name in names[:-1]:
        inner = inner[int(name) if isinstance(inner, list) else name]
    if isinstance(inner, list):
        inner[int(names[-1])] = value
    else:
        inner[names[-1]] = value
    return content


#: (place, value, what is said).
CRAFTED = [
    ("class", "SequenceModel", "it holds a model of SequenceModel"),
    ("class", 3, "it does not say of which class it is"),
    ("class", "Nothing", "it holds a 'Nothing'"),
    ("fastrnn", "latest", "no version"),
    ("fastrnn", 3, "no version"),
    ("params", [], "'params' of the file is a list"),
    ("params.depth", 3, "hyper-parameters that are not known: 'depth'"),
    ("params.hidden_size", 0, "hyper-parameters: hidden_size must be at least 1"),
    ("params.hidden_size", 10**30, "hyper-parameters: hidden_size"),
    ("params.hidden_size", {"pairs": []}, "hyper-parameters: hidden_size"),
    ("params.lr", {"pairs": [["a", 0.5]]}, "hyper-parameters: lr"),
    ("params.cell", ["gru"], "hyper-parameters: cell"),
    ("params.head", "x" * 10**5, "is not a model of RNN"),
    ("params.dtype", "float16", "hyper-parameters"),
    ("params.dtype", "i4,i4", "hyper-parameters"),
    ("params.dtype", "(2,)f8", "hyper-parameters"),
    ("params.random_state", -1, "hyper-parameters: random_state"),
    ("params.random_state", 1.5, "hyper-parameters: random_state"),
    ("params.verbose", "yes", "hyper-parameters: verbose"),
    ("params.max_steps", True, "hyper-parameters: max_steps"),
    ("params.bidirectional", 1, "hyper-parameters: bidirectional"),
    ("params.num_threads", 10**20, "hyper-parameters: num_threads"),
    ("params.backend", "cuda", "hyper-parameters: backend"),
    ("params.backend", 7, "hyper-parameters: backend"),
    ("params.backend", "../x", "hyper-parameters: backend"),
    ("model", None, "'model' of the file is a NoneType"),
    ("model.class", "RNN", "it holds a model of RNN"),
    ("model.settings.hidden_size", 5, "array 'weight_ih_l0' must have shape"),
    ("model.settings.hidden_size", 10**9, "array 'weight_ih_l0' must have shape"),
    ("model.settings.num_layers", 10**12, "array 'weight_ih_l1' is missing"),
    ("model.settings.input_size", 2, "array 'weight_ih_l0' must have shape"),
    ("model.settings.cell", "lstm", "array 'weight_ih_l0' must have shape"),
    ("model.settings.loss", "gaussian", "array 'weight_out' must have shape"),
    ("model.settings.head", "first", "settings: head"),
    ("model.settings.dtype", "float64", "array 'weight_ih_l0' is float32"),
    ("model.random_state", {}, "random state"),
    ("model.training", 1, "'training' of the model is a int"),
    ("history", {}, "'history' of the file is a dict"),
    ("history.0", [], "an entry of the history must have the members epoch"),
    ("history.0.epoch", 1.5, "'epoch' of an entry of the history is a float"),
    ("history.0.valid_loss", "low", "'valid_loss' of an entry of the history is a str"),
    ("history.0.train_loss", True, "'train_loss' of an entry of the history is a bool"),
    ("history.1.more", 1, "an entry of the history must have the members epoch"),
    ("n_iter", 4, "n_iter = 4, best_epoch = 3 of 3 epochs"),
    ("n_iter", 1, "n_iter = 1, best_epoch = 3 of 3 epochs"),
    ("n_iter", 10**30, "of 3 epochs"),
    ("n_iter", True, "'n_iter' of the file is a bool"),
    ("best_epoch", -1, "n_iter = 3, best_epoch = -1 of 3 epochs"),
    ("best_epoch", 4, "best_epoch = 4 of 3 epochs"),
    ("best_epoch", 10**4000, "'n_iter = 3, best_epoch = 10000"),
    ("table", 1, "'table' of the file is a int"),
    ("table", False, "the number of columns does not fit the model"),
    ("params.comm", None, "it names those who train it"),
    ("n_features_in", None, "the number of columns does not fit the model"),
    ("n_features_in", 0, "the number of columns does not fit the model"),
    ("n_features_in", -5, "the number of columns does not fit the model"),
    ("n_features_in", 4, "the names of the columns do not fit their number"),
    ("n_features_in", 5.0, "'n_features_in' of the file is a float"),
    ("n_features_in", 2**63, "the number of columns does not fit the model"),
    ("feature_names_in", list("abcd"), "the names of the columns do not fit their number"),
    ("feature_names_in", [1, 2, 3, 4, 5], "the names of the columns do not fit their number"),
    ("feature_names_in", "abcde", "'feature_names_in' of the file is a str"),
    ("more", 1, "the file must have the members class"),
]
OF_REGRESSOR = [
    ("one_value", 1, "'one_value' of the file is a int"),
    ("params.class_weight", None, "hyper-parameters that are not known: 'class_weight'"),
    ("model.settings.loss", "cross_entropy", "the model is not one for these values"),
]
OF_CLASSIFIER = [
    ("model.settings.loss", "mse", "the labels do not fit the model"),
    ("classes", ["b", "a"], "the labels are not in their order"),
    ("classes", ["a", "a"], "the labels are not in their order"),
    ("classes", ["a", 1], "the labels are not of one type"),
    ("classes", [1, 2], "the labels are not of one type"),
    ("classes", [["a"], ["b"]], "the labels are not of one type"),
    ("classes", [None, None], "the labels are not of one type"),
    ("classes", [], "the labels are not of one type"),
    ("classes", ["a"], "the labels do not fit the model"),
    ("classes", ["a", "b", "c"], "the labels do not fit the model"),
    ("classes", ["a", "b\0"], "the labels are not in their order"),
    ("classes", {"a": "b"}, "'classes' of the file is a dict"),
    ("kind", "<U100000000", "the labels are not of one type"),
    ("kind", "U", "the labels are not of one type"),
    ("kind", "V8", "the labels are not of one type"),
    ("kind", "datetime64[s]", "the labels are not of one type"),
    ("kind", "", "the labels are not of one type"),
    ("kind", "int64", "the labels are not of one type"),
    ("kind", 3, "'kind' of the file is a int"),
    ("params.class_weight", 5, "hyper-parameters: class_weight must be a dict"),
    ("params.class_weight", "even", "hyper-parameters: class_weight must be a dict"),
    ("params.class_weight", {"a": 1.0}, "class_weight must have the members pairs"),
    ("params.class_weight", {"pairs": [["a"]]}, "class_weight is not made of pairs"),
    ("params.class_weight", {"pairs": [["a", "b"]]}, "class_weight is not made of pairs"),
    ("params.class_weight", {"pairs": [["a", True]]}, "class_weight is not made of pairs"),
    ("params.class_weight", {"pairs": ["ab"]}, "class_weight is not made of pairs"),
    ("params.class_weight", {"pairs": [[["a"], 1.0]]}, "class_weight has a label that is none"),
    ("params.class_weight", {"pairs": [[None, 1.0]]}, "class_weight has a label that is none"),
    ("params.class_weight", {"pairs": [["a", -1.0]]}, "hyper-parameters: class_weight"),
]
CASES = [
    pytest.param(cls, *row, id=f"{cls.__name__[3]}-{row[0]}-{row[1]!r:.20}")
    for cls, rows in ((RNNRegressor, CRAFTED + OF_REGRESSOR), (RNNClassifier, CRAFTED + OF_CLASSIFIER))
    for row in rows
]


def refused(path, cls):
    """What is said of a file, in no more memory than small files take."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            cls.load(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()
    with pytest.raises(CheckpointError):
        fastrnn.load(path)
    assert len(str(caught.value)) < 1000 + len(str(path))
    return str(caught.value)


@pytest.mark.few(200)
@pytest.mark.parametrize(("cls", "where", "value", "said"), CASES)
def test_parts_that_do_not_fit(cls, where, value, said, written, tmp_path):
    content, arrays = written[cls]
    signed(tmp_path / "m", json.dumps(at(content, where, value)), arrays)
    assert said in refused(tmp_path / "m", cls)


@both
def test_parts_that_are_missing(cls, written, tmp_path):
    content, arrays = written[cls]
    for name in content:
        less = {key: value for key, value in content.items() if key != name}
        signed(tmp_path / "m", json.dumps(less), arrays)
        refused(tmp_path / "m", cls)
    for name in arrays:
        less = {key: value for key, value in arrays.items() if key != name}
        signed(tmp_path / "m", json.dumps(content), less)
        assert repr(name.removeprefix("model.")) in refused(tmp_path / "m", cls)


#: (name, array or function of the array, what is said).
ARRAYS = [
    ("x.mean", np.zeros(2), "array 'x.mean' is missing, or not 1 of float64"),
    ("x.mean", np.zeros((1, 1)), "array 'x.mean' is missing, or not 1 of float64"),
    ("x.mean", np.zeros(1, np.float32), "array 'x.mean' is missing, or not 1 of float64"),
    ("x.mean", np.array([np.nan]), "array 'x.mean' holds NaN or infinity"),
    ("x.scale", np.array([np.inf]), "array 'x.scale' holds NaN or infinity"),
    ("x.scale", np.array([0.0]), "array 'x.scale' holds a scale that is not positive"),
    ("x.scale", np.array([-1.0]), "array 'x.scale' holds a scale that is not positive"),
    ("more", np.zeros(3), "array 'more' is not expected"),
    ("model.more", np.zeros(3, np.float32), "array 'more' is not one of this model's"),
    ("model.bias_out", np.zeros(9, np.float32), "array 'bias_out' must have shape"),
]


@both
@pytest.mark.parametrize(("name", "array", "said"), ARRAYS)
def test_arrays_that_do_not_fit(cls, name, array, said, written, tmp_path):
    content, arrays = written[cls]
    signed(tmp_path / "m", json.dumps(content), arrays | {name: array})
    assert said in refused(tmp_path / "m", cls)
    if cls is RNNRegressor and name.startswith("x."):
        name = name.replace("x", "y")
        signed(tmp_path / "m", json.dumps(content), arrays | {name: array})
        assert said.replace("'x", "'y") in refused(tmp_path / "m", cls)


ANYTHING = [
    None,
    True,
    0,
    -1,
    10**40,
    1.5,
    1e308,
    "",
    "x" * 2000,
    [],
    [[]],
    {},
    {"pairs": []},
    [1, "a", None],
    "float64",
    "last",
]


def places(content, path=()):
    items = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


@both
@pytest.mark.parametrize("seed", range(10))
def test_signed_files_with_anything_in_them(cls, seed, written, tmp_path):
    rng = np.random.default_rng(seed)
    content, arrays = written[cls]
    everywhere = list(places(content))
    X = np.ones((3, 5))
    for _ in range(30):
        changed = copy.deepcopy(content)
        for _ in range(rng.integers(1, 3)):
            *path, last = everywhere[rng.integers(len(everywhere))]
            inner = changed
            try:
                for key in path:
                    inner = inner[key]
                inner[last] = copy.deepcopy(ANYTHING[rng.integers(len(ANYTHING))])
            except (TypeError, LookupError):
                continue  # the other change took it away
        signed(tmp_path / "m", json.dumps(changed), arrays)
        try:
            model = cls.load(tmp_path / "m")
        except CheckpointError:
            continue
        vars(model).pop("feature_names_in_", None)
        model.predict(X[:, : model.n_features_in_])
