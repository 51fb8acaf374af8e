"""Diagnostics of a `SequenceModel`: against differences, the model's own gradients, and a layer with the same gradient."""

import itertools
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from support import assert_close, bits

from fastrnn import GRU, LSTM, RNN, LanguageModel, SequenceModel, diagnostics, functional
from fastrnn.diagnostics import gradient_flow

CELLS = ("rnn", "gru", "lstm")
HEADS = ("each", "last", "mean")
LOSSES = ("mse", "cross_entropy", "gaussian")
T, N, D_IN, H, K = 5, 3, 2, 4, 3

#: Every head with every loss; inputs, cells and directions take turns.
KINDS = [
    (head, loss, CELLS[(i // 3 + i) % 3], i % 2 == 1, i % 4 < 2)
    for i, (head, loss) in enumerate(itertools.product(HEADS, LOSSES))
]
every_kind = pytest.mark.parametrize(("head", "loss", "cell", "two", "vectors"), KINDS)


def data(head, loss, vectors=True, seed=0):
    """Inputs and targets, of classes one that does not count."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(T, N, D_IN)) if vectors else rng.integers(D_IN, size=(T, N))
    shape = (T, N) if head == "each" else (N,)
    if loss != "cross_entropy":
        return x, rng.normal(size=(*shape, K))
    y = rng.integers(K, size=shape)
    y[..., 1] = -100
    return x, y


def make(head="each", loss="mse", *, dtype="float64", **options):
    return SequenceModel(D_IN, H, K, head=head, loss=loss, dtype=dtype, rng=1, **options)


def first_states(sm, scale=0.5):
    rng = np.random.default_rng(5)
    arrays = tuple(scale * rng.normal(size=(sm.num_layers * (1 + sm.bidirectional), N, H)) for _ in range(2))
    return arrays if sm.cell == "lstm" else arrays[0]


def own_gradients(sm, output, y):
    """Gradient of the model's mean loss by the outputs of its top layer, of its head and loss written out."""
    P, head, loss = sm.parameters, sm.head, sm._loss.name
    halves = np.split(np.arange(output.shape[2]), 1 + sm.bidirectional)
    ends = [output[-1][:, halves[0]]] + [output[0][:, half] for half in halves[1:]]
    features = {"each": output, "last": np.concatenate(ends, axis=1), "mean": output.mean(axis=0)}[head]
    rows = features @ P["weight_out"].T + P["bias_out"]
    if loss == "cross_entropy":
        counts = (y >= 0)[..., None]
        d = (functional.softmax(rows) - np.eye(K)[np.maximum(y, 0)]) * counts / counts.sum()
    elif loss == "mse":
        d = 2 * (rows - y) / y.size
    else:
        error, precision = rows[..., :K] - y, np.exp(-rows[..., K:])
        d = np.concatenate([error * precision, (1 - error**2 * precision) / 2], axis=-1) / y.size
    d = d @ P["weight_out"]
    spread = np.zeros(output.shape)
    if head == "each":
        spread[...] = d
    elif head == "mean":
        spread[...] = d / len(output)
    else:
        for time, half in zip((-1, 0), halves, strict=False):
            spread[time][:, half] = d[:, half]
    return spread


def layers_of(sm):
    """The layers of a model, without its output layer."""
    kind = {"rnn": RNN, "gru": GRU, "lstm": LSTM}[sm.cell]
    layer = kind(D_IN, H, sm.num_layers, bidirectional=sm.bidirectional, dtype=sm.dtype, rng=0)
    layer.load_state_dict({name: W for name, W in sm.parameters.items() if "_out" not in name})
    return layer


# -- gradient_flow -----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, 3])
@every_kind
def test_flow_is_that_of_the_layers_with_the_head_s_gradient(
    head, loss, cell, two, vectors, num_layers, backend
):
    sm = make(head, loss, cell=cell, bidirectional=two, num_layers=num_layers, backend=backend)
    x, y = data(head, loss, vectors)
    h0, layer = first_states(sm), layers_of(sm)
    d_output = own_gradients(sm, layer.forward(x, h0)[0], y)
    own_loss, grads, _ = sm.loss_and_grads(x, y, h0)
    for place, direction in itertools.product({0, num_layers - 1}, range(1 + two)):
        options = {"layer": place, "direction": direction}
        flow = gradient_flow(sm, x, y, h0, **options)
        same = gradient_flow(layer, x, d_output, h0, **options)
        for name in ("total", "from_last_step", "share", "dWhh_terms"):
            assert_close(getattr(flow, name), getattr(same, name), 1e-9, name)
        assert flow.total.min() > 0
        assert flow.share[0 if direction else -1] == pytest.approx(1)
        ending = "_reverse" * direction
        wanted = np.linalg.norm(grads[f"weight_hh_l{place}{ending}"])
        assert flow.dWhh_norm == pytest.approx(wanted, rel=1e-10)
        assert flow.loss == pytest.approx(own_loss, rel=1e-12)
        assert (flow.reduction, flow.head, flow.loss_name) == ("mean", head, loss)


@pytest.mark.parametrize("head", HEADS)
def test_flow_by_differences(head, backend):
    """Where the states of a step are moved, the loss moves as the norm of that step's gradient says."""
    sm = make(head, "gaussian", backend=backend)
    x, y = data(head, "gaussian")
    flow = gradient_flow(sm, x, y, reduction="sum")
    _, h_n = sm.forward(x[:2])  # the states of the second step

    def after(h):
        """The loss of the steps from the second on, from its states; of a mean, the first is as it was."""
        start = sm.forward(x[:1])[1]
        states = [start[0], h[0]]
        for t in range(2, T):
            states.append(sm.forward(x[t : t + 1], states[-1][None])[1][0])
        features = {"each": np.stack(states[1:]), "last": states[-1], "mean": np.mean(states, axis=0)}[head]
        rows = features @ sm.parameters["weight_out"].T + sm.parameters["bias_out"]
        value = y[1:] if head == "each" else y
        mean, log_variance = np.split(rows, 2, axis=-1)
        return float(
            (np.log(2 * np.pi) + log_variance + (mean - value) ** 2 * np.exp(-log_variance)).sum() / 2
        )

    squares = 0.0
    for place in np.ndindex(h_n.shape):
        up, down = h_n.copy(), h_n.copy()
        up[place] += 1e-5
        down[place] -= 1e-5
        squares += ((after(up) - after(down)) / 2e-5) ** 2
    assert flow.total[1] == pytest.approx(math.sqrt(squares), rel=1e-6)
    assert flow.loss == pytest.approx(sm.loss(x, y, reduction="sum")[0], rel=1e-12)


def test_flow_of_classes_is_that_of_a_language_model(backend):
    lm = LanguageModel(K, H, 2, cell="gru", dtype="float64", rng=0, backend=backend)
    sm = SequenceModel(K, H, K, 2, cell="gru", loss="cross_entropy", dtype="float64", rng=1, backend=backend)
    sm.load_state_dict(lm.state_dict())
    rng = np.random.default_rng(0)
    x, y = rng.integers(K, size=(2, T, N))
    y[2] = -100
    ours, theirs = gradient_flow(sm, x, y), gradient_flow(lm, x, y)
    assert bits(ours.total, ours.from_last_step) == bits(theirs.total, theirs.from_last_step)
    assert ours.loss == theirs.loss
    assert "nats, the mean over the steps" in str(ours)


@pytest.mark.parametrize("head", HEADS)
def test_flow_is_the_same_on_any_number_of_threads(head, backend):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 70, D_IN)), rng.normal(size=(12, 70, K) if head == "each" else (70, K))
    found = []
    for two, threads in itertools.product((False, True), (1, 2)):
        sm = SequenceModel(
            D_IN, 64, K, head=head, bidirectional=two, rng=0, backend=backend, num_threads=threads
        )
        flow = gradient_flow(sm, x, y)
        assert flow.loss == pytest.approx(sm.loss(x, y)[0], rel=1e-6)
        found.append(bits(flow.total, flow.from_last_step, flow.dWhh_terms))
    assert found[0] == found[1]
    assert found[2] == found[3]


def test_nothing_that_counts_has_no_gradient():
    sm = make("last", "cross_entropy", backend="numpy")
    x, _ = data("last", "cross_entropy")
    flow = gradient_flow(sm, x, np.full(N, -100))
    assert flow.loss == 0
    assert not flow.total.any()
    assert "What the loss reads of the last step sends no gradient back at all" in str(flow)


@pytest.mark.parametrize(
    ("head", "loss", "said"),
    [
        ("each", "mse", r"The loss is [\d.]+, the mean over the values\."),
        ("each", "gaussian", r"The loss is [\d.]+ nats, the mean over the values\."),
        ("last", "cross_entropy", r"The loss is [\d.]+ nats, the mean over the sequences\."),
        ("each", "cross_entropy", r"Of the gradient of the last step's loss, "),
        ("mean", "mse", r"Of the gradient of what the loss reads of the last step, "),
        ("last", "mse", r"SequenceModel, 4 tanh units, on 3 sequences of 5 time steps\."),
    ],
)
def test_what_a_flow_says(head, loss, said):
    sm = make(head, loss, backend="numpy")
    flow = gradient_flow(sm, *data(head, loss))
    assert re.search(said, str(flow)), str(flow)


def test_flow_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    for head in HEADS:
        flow = gradient_flow(make(head, backend="numpy"), *data(head, "mse"))
        figure = flow.plot()
        figure.savefig(tmp_path / f"{head}.png")
        names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert ("loss of the last step alone" in names) == (head == "each")


# -- gradcheck ---------------------------------------------------------------------------------------


@every_kind
def test_gradients_are_checked(head, loss, cell, two, vectors, backend, dtype):
    sm = make(
        head, loss, cell=cell, bidirectional=two, num_layers=2, dropout=0.5, dtype=dtype, backend=backend
    )
    x, y = data(head, loss, vectors)
    before = bits(*sm.parameters.values())
    result = diagnostics.gradcheck(sm, x, y, first_states(sm), entries=4)
    assert result.ok, str(result)
    assert [p.name for p in result.parameters] == list(sm.parameters)
    assert bits(*sm.parameters.values()) == before
    assert sm.training


@pytest.mark.parametrize("name", ["weight_hh_l0_reverse", "weight_out"])
@every_kind
def test_wrong_gradients_are_found(head, loss, cell, two, vectors, name, dtype):
    if not two:
        name = name.removesuffix("_reverse")

    class Wrong(SequenceModel):
        def loss_and_grads(self, *arguments, **options):
            value, grads, h_n = super().loss_and_grads(*arguments, **options)
            grads[name][...] *= 1.05
            return value, grads, h_n

    sm = Wrong(
        D_IN, H, K, cell=cell, bidirectional=two, head=head, loss=loss, dtype=dtype, rng=0, backend="numpy"
    )
    result = diagnostics.gradcheck(sm, *data(head, loss, vectors), entries=10)
    assert not result.ok
    assert [p.name for p in result.parameters if p.error > result.tolerance] == [name]


def test_a_loss_of_a_subclass_is_its_own():
    class Halved(SequenceModel):
        def loss(self, *arguments, **options):
            value, h_n = super().loss(*arguments, **options)
            return value / 2, h_n

    sm = Halved(D_IN, H, K, dtype="float64", rng=0, backend="numpy")
    assert not diagnostics.gradcheck(sm, *data("each", "mse"), entries=3).ok


# -- the others --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("vectors", [True, False], ids=["vectors", "classes"])
def test_what_is_of_states_is_that_of_the_layers(vectors, cell, backend):
    for head, two in (("each", False), ("last", True), ("mean", True)):
        sm = make(head, cell=cell, bidirectional=two, num_layers=2, backend=backend)
        layer, h0 = layers_of(sm), first_states(sm)
        x, _ = data(head, "mse", vectors)
        options = {"layer": 0, "direction": int(two)}
        assert_close(
            diagnostics.jacobian_norms(sm, x, h0, **options).norms,
            diagnostics.jacobian_norms(layer, x, h0, **options).norms,
            1e-12,
        )
        ours, theirs = (diagnostics.hidden_states(m, x, h0, sequence=2, **options) for m in (sm, layer))
        assert_close(ours.states, theirs.states, 1e-12)
        assert ours.labels == theirs.labels
        assert ours.model.startswith("SequenceModel, 4 ")
        ours, theirs = (diagnostics.saturation(m, x, h0, threshold=0.6, **options) for m in (sm, layer))
        assert_close(ours.saturated, theirs.saturated, 1e-12)
        if cell == "rnn":
            W = sm.parameters["weight_hh_l0" + "_reverse" * two]
            radius = np.abs(np.linalg.eigvals(W)).max()
            assert diagnostics.spectral_radius(sm, **options) == pytest.approx(radius)
            assert diagnostics.spectrum(sm, **options).model.startswith("SequenceModel")
            assert_close(diagnostics.singular_values(sm, **options), np.linalg.svd(W)[1], 1e-12)


@every_kind
def test_clipping_and_the_summary_have_the_model_s_own_gradients(head, loss, cell, two, vectors, backend):
    sm = make(head, loss, cell=cell, bidirectional=two, num_layers=2, backend=backend)
    x, y = data(head, loss, vectors)
    _, grads, _ = sm.loss_and_grads(x, y)
    norm = math.sqrt(sum(float((g**2).sum()) for g in grads.values()))
    report = diagnostics.clip_report(sm, x, y, threshold=norm / 2)
    assert report.norm_before == pytest.approx(norm, rel=1e-10)
    assert report.largest == pytest.approx(max(np.abs(g).max() for g in grads.values()), rel=1e-10)
    assert report.entries == sum(g.size for g in grads.values())
    assert sorted(report.changed) == ["norm", "value"]
    assert report.norm_after["norm"] == pytest.approx(norm / 2)
    summary = diagnostics.training_summary(sm, x, y, clip_threshold=norm / 2)
    flow = gradient_flow(sm, x, y)
    assert summary["clipped"] == 1
    assert summary["dWhh_norm"] == pytest.approx(flow.dWhh_norm, rel=1e-10)
    assert summary["gradient_share"] == pytest.approx(flow.share[0], rel=1e-10)


@pytest.mark.parametrize("head", HEADS)
def test_no_broken_model_looks_healthy(head):
    x, y = data(head, "mse")
    for name in make(head).parameters:
        sm = make(head, backend="numpy")
        sm.parameters[name].reshape(-1)[0] = np.inf
        flow = gradient_flow(sm, x, y)
        assert np.isnan([flow.loss, *flow.total, *flow.from_last_step]).all()
        assert math.isnan(diagnostics.clip_report(sm, x, y).norm_before)
        assert all(math.isnan(number) for number in diagnostics.training_summary(sm, x, y).values())
        with pytest.raises(ValueError, match=f"weights of the model hold NaN or infinity: {name}$"):
            diagnostics.gradcheck(sm, x, y)


# -- estimators --------------------------------------------------------------------------------------


class RNNStandIn(SimpleNamespace):
    """What diagnostics see of an estimator."""

    hidden_size = H

    def fit(self):
        self.model_ = make("last", backend="numpy")
        return self


def test_an_estimator_is_looked_at_as_its_model():
    estimator = RNNStandIn()
    x, y = data("last", "mse")
    with pytest.raises(ValueError, match=r"must be fitted before it can be looked at: call RNNStandIn\.fit"):
        gradient_flow(estimator, x, y)
    estimator.fit()
    flow = gradient_flow(estimator, x, y)
    assert bits(flow.total) == bits(gradient_flow(estimator.model_, x, y).total)
    assert flow.model == "RNNStandIn, 4 tanh units"
    assert diagnostics.gradcheck(estimator, x, y, entries=2).ok
    with pytest.raises(
        TypeError, match="inputs can be text for a CharRNN only; RNNStandIn takes vectors or class"
    ):
        gradient_flow(estimator, "a text", y)


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [gradient_flow, diagnostics.gradcheck, diagnostics.clip_report])
@pytest.mark.parametrize(
    ("head", "loss", "y", "error", "said"),
    [
        ("each", "mse", None, TypeError, r"targets must be an array of values, a row for each input, got None"),
        ("mean", "mse", None, TypeError, r"targets must be an array of values, a row for each sequence, got None"),
        ("last", "cross_entropy", None, TypeError, r"targets must be class indices, one for each sequence, got None"),
        ("each", "mse", np.zeros((T, N)), ValueError, r"targets must have shape \(5, 3, 3\), got \(5, 3\)"),
        ("last", "gaussian", np.zeros((N, 2 * K)), ValueError, r"targets must have shape \(3, 3\), got \(3, 6\)"),
        ("last", "mse", np.array([["a"] * K] * N), TypeError, r"targets must hold real numbers"),
        ("last", "cross_entropy", [0, 1], ValueError, r"targets must have shape \(3,\), one class for each seq.*\(2,\)"),
        ("last", "cross_entropy", 1, ValueError, r"targets must have shape \(3,\), one class for each sequence, got .*1"),
        ("last", "cross_entropy", [0, 1, K], IndexError, r"targets\[2\] is 3, outside \[0, 3\); -100 marks what does"),
        ("last", "cross_entropy", [0, 1, -1], IndexError, r"targets\[2\] is -1, outside \[0, 3\)"),
        ("last", "cross_entropy", [0.0, 1.0, 2.0], TypeError, r"targets must hold integers \(class indices\)"),
        ("each", "cross_entropy", np.zeros(T, int), ValueError, r"targets must have shape \(T, N\), a class index"),
        ("each", "cross_entropy", np.zeros((N, T), int), ValueError, r"targets must hold one class index for each in"),
        ("each", "cross_entropy", np.full((T, N), K), IndexError, r"targets\[0, 0\] is 3, outside \[0, 3\)"),
    ],
)  # fmt: skip
def test_targets_that_are_refused(head, loss, y, error, said, function):
    sm = make(head, loss, backend="numpy")
    with pytest.raises(error, match="^" + said):
        function(sm, np.zeros((T, N, D_IN)), y)


@pytest.mark.parametrize(
    ("x", "error", "said"),
    [
        (np.zeros((T, D_IN)), ValueError, r"inputs must have shape \(T, N, 2\), got \(5, 2\)"),
        (np.zeros((T, N, 3)), ValueError, r"inputs must have shape \(T, N, 2\), got \(5, 3, 3\)"),
        (np.zeros(T, int), ValueError, r"inputs must have shape \(T, N\), a class index for each time step"),
        (np.full((T, N), 2), IndexError, r"inputs\[0, 0\] is 2, outside \[-2, 2\)"),
        (np.zeros((T, 0, D_IN)), ValueError, r"inputs must have at least one sequence"),
        ("abc", TypeError, r"inputs can be text for a CharRNN only; SequenceModel takes vectors or class indices"),
    ],
)  # fmt: skip
def test_inputs_that_are_refused(x, error, said):
    sm = make(backend="numpy")
    with pytest.raises(error, match="^" + said):
        diagnostics.saturation(sm, x)


def test_refusals_name_every_kind_of_model():
    said = "SimpleRNN, .*LanguageModel or fitted CharRNN, a SequenceModel, or a fitted RNNRegressor or RNNClassifier"
    for other in (object(), SimpleNamespace(fit=print)):
        with pytest.raises(TypeError, match=f"^model must be a {said}, got {type(other).__name__}$"):
            gradient_flow(other, np.zeros((T, N, D_IN)))
    sm = make(backend="numpy")
    with pytest.raises(ValueError, match="direction must be less than 1, got 1"):
        gradient_flow(sm, *data("each", "mse"), direction=1)
    with pytest.raises(ValueError, match=r"h0 must have shape \(1, 3, 4\)"):
        gradient_flow(sm, *data("each", "mse"), np.zeros((1, 2, 4)))
