"""Wrong calls of `RNNRegressor` and `RNNClassifier`: the error names the argument, what came, and what was wanted."""

import bad_arguments as bad
import numpy as np
import pytest
from estimator_support import BOTH, both, small
from refusals import Calls, cases, refused, rows, wrong_calls
from scipy import sparse

from fastrnn import RNNClassifier, RNNRegressor


def data(n=8, T=4, d=2, seed=0):
    X = np.random.default_rng(seed).normal(size=(n, T, d))
    return X, np.arange(n) % 2


class Fitting(Calls):
    """`fit` of a new estimator with some hyper-parameters replaced."""

    def __init__(self, cls):
        self.cls = cls
        self.good = dict(zip(("X", "y"), data(), strict=True))

    def call(self, method, **bad):
        given = self.good | {name: bad.pop(name) for name in ("X", "y") if name in bad}
        estimator = small(self.cls, **bad)
        before = vars(estimator).copy()
        try:
            estimator.fit(**given)
        finally:
            assert vars(estimator) == before


@pytest.fixture(params=BOTH, ids=lambda cls: cls.__name__)
def box(request):
    return Fitting(request.param)


# -- hyper-parameters ------------------------------------------------------------------------------

SOME_NUMBERS = [row for row in bad.NUMBERS if row[0] is not None]
SHARES = [*SOME_NUMBERS, *rows(ValueError, [-0.1, 1, 1.0, 5], "must be at least 0 and less than 1", "{!r}")]

test_counts = wrong_calls(
    "fit", ["hidden_size", "num_layers", "batch_size", "epochs"], [*bad.COUNTS, bad.NONE]
)
test_counts_or_none = wrong_calls("fit", ["max_steps", "patience", "num_threads"], bad.COUNTS)
test_flags = wrong_calls("fit", ["bidirectional", "scale"], bad.FLAGS)
test_lr = wrong_calls("fit", "lr", [*SOME_NUMBERS, bad.NONE, *rows(ValueError, [0, -1, np.inf], "positive")])
test_clip_threshold = wrong_calls(
    "fit", "clip_threshold", [*SOME_NUMBERS, bad.NONE, *rows(ValueError, [0, -1], "positive")]
)
test_max_seconds = wrong_calls(
    "fit", "max_seconds", [*SOME_NUMBERS, *rows(ValueError, [0, -1, np.inf], "positive")]
)
test_shares = wrong_calls("fit", ["dropout", "validation_fraction"], [*SHARES, bad.NONE])
test_dtype = wrong_calls("fit", "dtype", [row for row in bad.DTYPES if row[0] is not None])
test_backend = wrong_calls("fit", "backend", bad.BACKENDS)
test_verbose = wrong_calls("fit", "verbose", rows(TypeError, [None, 1.0, "yes", []], "must be an integer"))
test_random_state = wrong_calls(
    "fit",
    "random_state",
    [*rows(TypeError, ["x", 1.5, True, [1], np.random], "int"), (-1, ValueError, ["at least 0", "-1"])],
)
CHOICES = ["", "GRU", 3, True, [], b"gru", {}]
test_choices = wrong_calls(
    "fit", ["cell", "head", "optimizer"], rows(ValueError, [None, *CHOICES], "must be one of '", "got {!r}")
)
test_clip = wrong_calls(
    "fit", "clip", rows(ValueError, CHOICES, "must be one of 'norm', 'value', None, got {!r}")
)


@cases([
    (5, ValueError, ["must be a dict, 'balanced' or None, got int 5"]),
    ("even", ValueError, ["must be a dict, 'balanced' or None, got str 'even'"]),
    ([1, 2], ValueError, ["must be a dict", "list [1, 2]"]),
    ({0: -1}, ValueError, ["class_weight[0] must be at least 0, got -1"]),
    ({0: np.nan}, ValueError, ["class_weight[0]", "nan"]),
    ({0: "much"}, TypeError, ["class_weight[0]", "str 'much'"]),
    ({0: 1, 1: None}, TypeError, ["class_weight[1]", "NoneType"]),
    ({0: 1, 5: 2}, ValueError, ["[1], are not in class_weight"]),
    ({0: 0, 1: 0}, ValueError, ["class_weight must not be 0 for every label of y"]),
    ({0: 1e-50}, ValueError, ["class_weight must hold numbers of float32, got 1e-50 for the label 0"]),
    ({0: 1, 1: 1e39}, ValueError, ["class_weight must hold numbers of float32, got 1e+39 for the label 1"]),
])  # fmt: skip
def test_class_weight(value, error, words):
    Fitting(RNNClassifier).refuses("fit", error, words, class_weight=value)


def test_nothing_left_to_train_on():
    X, Y = data()
    many = np.repeat(X, 8, axis=0)
    said = f"validation_fraction = 0.999 of {len(many)} sequences leaves none to train on"
    refused(
        lambda: small(RNNClassifier, validation_fraction=0.999).fit(many, np.repeat(Y, 8)), ValueError, [said]
    )


def test_labels_of_each_step_in_a_column():
    X, _ = data()
    labels = (X[:, :, :1] > 0).astype(int)
    model = small(RNNClassifier, head="each").fit(X, labels)  # without a warning
    assert model.score(X, labels) == model.score(X, labels[:, :, 0])


# -- X ---------------------------------------------------------------------------------------------

X, Y = data()


def with_value(value, *place):
    out = X.copy()
    out[place] = value
    return out


def a_list(**changed):
    return [changed.get(f"x{i}", x) for i, x in enumerate(X)]


#: (X, error, words), of what is neither 2-D nor taken for it.
WRONG_X = [
    (with_value(np.nan, 3, 2, 1), ValueError, ["X must be finite, and X[3] holds nan at step 2"]),
    (with_value(-np.inf, 7, 0, 0), ValueError, ["X must be finite, and X[7] holds -inf at step 0"]),
    (
        a_list(x5=np.array([[0, 1], [np.nan, 1]])),
        ValueError,
        ["X must be finite, and X[5] holds nan at step 1"],
    ),
    (X * 1j, ValueError, ["X must hold real numbers", "complex"]),
    (X.astype(str), ValueError, ["X must hold real numbers", "<U"]),
    (X.astype("S"), ValueError, ["X must hold real numbers"]),
    (
        np.full(X.shape, "a", object),
        ValueError,
        ["X must hold real numbers: could not convert string to float: 'a'"],
    ),
    (np.full(X.shape, None), ValueError, ["X must be finite, and X[0] holds nan at step 0"]),
    (X.astype("M8[s]"), ValueError, ["X must hold real numbers"]),
    (X[None], ValueError, ["X must have shape (n, T, d) with at least one of each, got (1, 8, 4, 2)"]),
    (X[:0], ValueError, ["X must have shape (n, T, d) with at least one of each, got (0, 4, 2)"]),
    (X[:, :0], ValueError, ["(8, 0, 2)"]),
    (X[:, :, :0], ValueError, ["(8, 4, 0)"]),
    (
        a_list(x2=np.zeros((0, 2))),
        ValueError,
        ["X[2] must have shape (T, d) or (T,), with at least one time step, got (0, 2)"],
    ),
    (a_list(x2=np.zeros((3, 0))), ValueError, ["X[2] must have shape", "(3, 0)"]),
    (a_list(x6=np.zeros((3, 3))), ValueError, ["X[6] must have shape (T, 2), as X[0] has, got (3, 3)"]),
    (a_list(x6=np.zeros(3)), ValueError, ["X[6] must have shape (T, 2), as X[0] has, got (3, 1)"]),
    (a_list(x6=np.zeros((3, 2, 2))), ValueError, ["X[6] must have shape (T, d) or (T,)", "(3, 2, 2)"]),
    (a_list(x1=None), ValueError, ["X[1] must have shape (T, d) or (T,)", "()"]),
    (a_list(x1="text"), ValueError, ["X[1] must hold real numbers", "text"]),
    (a_list(x1=[[1, 2], [3]]), ValueError, ["X[1] cannot be made an array"]),
    (a_list(x1=[[1, "a"]]), ValueError, ["X[1] must hold real numbers"]),
    (a_list(x4=np.ones((3, 2), complex)), ValueError, ["X[4] must hold real numbers", "complex"]),
    (a_list(x4=sparse.eye_array(2)), ValueError, ["X[4] must"]),
    (a_list(x3=[]), ValueError, ["X[3] must have shape"]),
]
#: What is 2-D is scikit-learn's, what is less is not: (X, error, words).
SKLEARNS_X = [
    (X[:, :, 0] * np.nan, ValueError, ["Input X contains NaN"]),
    (X[:, :, 0] * 1j, ValueError, ["Complex data not supported"]),
    (sparse.csr_array(X[:, :, 0]), TypeError, ["Sparse data was passed"]),
    (X[:0, :, 0], ValueError, ["Found array with 0 sample(s)"]),
    (X[:, :0, 0], ValueError, ["Found array with 0 feature(s)"]),
    (
        X[0, :, 0],
        ValueError,
        ["X must be a table (n, T), an array (n, T, d) or a list", "got shape (4,). Reshape"],
    ),
    ([], ValueError, ["X must be a table (n, T)", "got shape (0,)"]),
    ((), ValueError, ["X must be a table (n, T)", "got shape (0,)"]),
    ([1.5, 2], ValueError, ["X must be a table (n, T)", "got shape (2,)"]),
    (None, ValueError, ["X must be a table (n, T)", "got NoneType None"]),
    ("text", ValueError, ["X must be a table (n, T)", "got str 'text'"]),
    (3, ValueError, ["X must be a table (n, T)", "got int 3"]),
    (X[:, :, 0].astype(str).astype(object) + "a", ValueError, ["could not convert string to float"]),
]
test_wrong_x = wrong_calls("fit", "X", WRONG_X, begins="")
test_wrong_x_of_steps = wrong_calls("fit", "X", WRONG_X, begins="", head="each", y=np.zeros((8, 4)))


@both
@pytest.mark.parametrize("head", ["last", "each"])
def test_messages_do_not_repeat_all_that_was_given(cls, head):
    """scikit-learn's of an array has up to a thousand numbers, NumPy's of a text all of it."""
    wide, zeros = ["z" * 5000, "b"], np.zeros((4, 1)) if head == "last" else np.zeros((4, 2))
    calls = [(np.ones(900), zeros), ([wide] * 4, zeros), (np.array([wide] * 4, object), zeros)]
    if cls is RNNRegressor:
        calls += [([[1, 2]] * 4, [wide] * 4), ([[1, 2]] * 4, [["z" * 5000, 1.5]] * 4)]
    for X, y in calls:
        with pytest.raises((TypeError, ValueError), match=r"^.{20,700}$") as caught:
            cls(hidden_size=1, epochs=1, head=head).fit(X, y)
        assert "z" * 300 not in str(caught.value)


@both
@cases(SKLEARNS_X)
def test_what_scikit_learn_checks(cls, value, error, words):
    estimator = small(cls)
    with pytest.raises(error) as caught:
        estimator.fit(value, Y)
    for word in words:
        assert word in str(caught.value)
    assert not [name for name in vars(estimator) if name.endswith("_")]


@both
def test_a_list_that_holds_itself(cls):
    within = []
    within.append(within)
    for X in (within, [[within]] * 8):
        with pytest.raises(ValueError, match=r"X\[0\] cannot be made an array"):
            small(cls).fit(X, Y)


def test_an_object_array_of_sequences(box):
    ragged = np.empty(8, object)
    ragged[:] = a_list(x0=np.ones((2, 2)))
    box.refuses("fit", ValueError, ["X must be a list of sequences, not an array of them"], X=ragged)


# -- y ---------------------------------------------------------------------------------------------

#: (y, error, words), for both, with X of three axes.
WRONG_Y = [
    (None, ValueError, ["requires y to be passed, but the target y is None"]),
    (Y[:-1], ValueError, ["y must have an entry for each of 8 sequences, got 7"]),
    ([*Y, 0], ValueError, ["y must have an entry for each of 8 sequences, got 9"]),
    (3, (ValueError, TypeError), ["()", "3"][:0]),
    (Y * 1j, ValueError, ["Complex data not supported"]),
    (np.where(Y, np.nan, 0.0), ValueError, ["y must be finite, and y[1] is nan"]),
    (np.where(Y, 0, np.inf), ValueError, ["y must be finite, and y[0] is inf"]),
    (np.zeros((8, 2, 2)), ValueError, []),
]
test_wrong_y = wrong_calls("fit", "y", WRONG_Y, begins="")

WRONG_STEPS = [
    (None, ValueError, ["requires y to be passed, but the target y is None"]),
    (3, ValueError, ["y must be an array or a list with targets for each step, got int 3"]),
    ("text", ValueError, ["y must be an array or a list with targets for each step, got str 'text'"]),
    (Y, ValueError, ["y[0] must have shape (4,), one target for each step, got ()"]),
    (np.zeros((7, 4), int), ValueError, ["y must have an entry for each of 8 sequences, got 7"]),
    (np.zeros((8, 5), int), ValueError, ["y[0] must have shape (4,), one target for each step, got (5,)"]),
    (
        [*np.zeros((7, 4), int), np.zeros(3, int)],
        ValueError,
        ["y[7] must have shape (4,), one target for each step, got (3,)"],
    ),
    (
        [*np.zeros((7, 4), int), np.zeros((4, 1), int)],
        ValueError,
        ["y[7] must have shape (4,)", "got (4, 1)"],
    ),
    ([*np.zeros((7, 4), int), None], ValueError, ["y[7] must have shape (4,)", "got ()"]),
    (
        with_value(np.nan, 3, 2, 0)[:, :, 0].round(),
        ValueError,
        ["y must be finite, and y[3] holds nan at step 2"],
    ),
    (np.zeros((8, 4, 2, 2)), ValueError, []),
    (np.zeros((8, 4)) * 1j, ValueError, ["Complex data not supported"]),
]
test_wrong_y_of_steps = wrong_calls("fit", "y", WRONG_STEPS, begins="", head="each")


@cases([
    (np.zeros((8, 2), int), ValueError, ["y should be a 1d array, got an array of shape (8, 2)"]),
    (Y + 0.5 * Y[::-1], ValueError, ["Unknown label type: continuous"]),
    ([None] * 8, ValueError, ["Unknown label type"]),
])  # fmt: skip
def test_wrong_labels(value, error, words):
    Fitting(RNNClassifier).refuses("fit", error, words, y=value)


@cases([
    (["a"] * 8, ValueError, ["could not convert string to float: 'a'"]),
    (np.array([None] * 8), ValueError, ["y must be finite, and y[0] is nan"]),
    (np.array([[0, 1]] * 7 + [[0, np.nan]]), ValueError, ["y must be finite, and y[7, 1] is nan"]),
])  # fmt: skip
def test_wrong_values(value, error, words):
    Fitting(RNNRegressor).refuses("fit", error, words, y=value)


def test_nothing_is_learned_of_values_that_are_missing():
    for given in (X, X[:, :, 0]):
        with pytest.raises(ValueError, match=r"y must be finite, and y\[0\] is nan"):
            small(RNNRegressor).fit(given, np.array([None] * 8))


# -- predict ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=BOTH, ids=lambda cls: cls.__name__)
def fitted(request):
    """Fitted with two channels, with one, and with a table."""
    return {
        name: small(request.param).fit(given, Y)
        for name, given in (("two", X), ("one", X[:, :, :1]), ("table", X[:, :, 0]))
    }


def predicting(fitted, X, error, words):
    for method in ("predict", "predict_proba"):
        if hasattr(fitted, method):
            refused(lambda method=method: getattr(fitted, method)(X), error, words)


@cases(WRONG_X)
def test_wrong_x_to_predict(fitted, value, error, words):
    predicting(fitted["two"], value, error, words)


@cases([
    ("two", X[:, :, :1], ["X must have 2 channels, as that of fit, got 1"]),
    ("two", list(X[:, :, :1]), ["X must have 2 channels, as that of fit, got 1"]),
    ("two", np.zeros((8, 4, 3)), ["X must have 2 channels, as that of fit, got 3"]),
    ("two", X[:, :, 0], ["X must have shape (n, T, 2), or be a list of arrays (T, 2), got (8, 4)"]),
    ("two", X[0, 0], ["X must have shape (n, T, 2), or be a list of arrays (T, 2), got (2,)"]),
    ("two", None, ["X must have shape (n, T, 2), or be a list of arrays (T, 2), got ()"]),
    ("two", [], ["X must hold at least one sequence, got an empty list"]),
    ("one", X, ["X must have 1 channels, as that of fit, got 2"]),
    ("one", X[0, 0], ["X must be a table (n, T)", "got shape (2,)"]),
    ("one", X[:, :, 0] * np.nan, ["Input X contains NaN"]),
    ("table", X[:, :, :1], ["X must be 2-D, (n, 4), as that of fit; give fit X of shape (n, T, 1), or a list of arrays"]),
    ("table", [[1, 2, 3], [1]], ["X must be 2-D, (n, 4), as that of fit"]),
    ("table", X[:, :3, 0], ["X has 3 features, but RNN", "is expecting 4 features as input"]),
], names=("name", "value", "words"))  # fmt: skip
def test_x_that_does_not_fit(fitted, name, value, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        fitted[name].predict(value)
    for word in words:
        assert word in str(caught.value)
