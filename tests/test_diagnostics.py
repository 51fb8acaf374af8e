"""`fastrnn.diagnostics` against naive loops, known matrices and the models' own gradients."""

import math

import numpy as np
import pytest
from support import assert_close, bits, pair, parameters, sequence

import fastrnn
from fastrnn import GRU, LSTM, RNN, CharRNN, LanguageModel, SequenceModel, SimpleRNN, diagnostics
from fastrnn.diagnostics import clipping, gradient_flow, jacobian_norms
from fastrnn.optim import SGD


def language_model(backend, *, q=5, h=12, dtype=np.float64, **options):
    return LanguageModel(q, h, dtype=dtype, rng=1, backend=backend, **options)


def classes(T, N, q, seed=2):
    rng = np.random.default_rng(seed)
    return rng.integers(0, q, (T, N)), rng.integers(0, q, (T, N))


def naive_flow(rnn, inputs, targets, h_prev, last_only=False):
    """dL/dh_t and the terms of dWhh of a `SimpleRNN`, one small product at a time (eqs. 1 to 12)."""
    Wxh, Whh, Why, bh, by = (W.astype(np.float64) for W in parameters(rnn))
    hs, T = [h_prev.astype(np.float64)], len(inputs)
    for x in inputs:
        column = Wxh[:, [x]] if np.ndim(x) == 0 else Wxh @ x[:, None]
        hs.append(np.tanh(column + Whh @ hs[-1] + bh))
    dh_next, dhs, terms = np.zeros_like(bh), [], []
    for t in range(T - 1, -1, -1):
        y = Why @ hs[t + 1] + by
        p = np.exp(y - y.max())
        dy = p / p.sum()
        dy[targets[t]] -= 1
        if last_only and t < T - 1:
            dy = np.zeros_like(dy)
        dh = Why.T @ dy + dh_next
        dz = dh * (1 - hs[t + 1] ** 2)
        dh_next = Whh.T @ dz
        dhs.append(dh)
        terms.append(dz @ hs[t].T)
    return dhs[::-1], terms[::-1]


# -- gradient_flow -----------------------------------------------------------------------------------


@pytest.mark.parametrize("real", [False, True], ids=["indices", "vectors"])
@pytest.mark.parametrize("T", [1, 2, 30])
def test_flow_of_one_sequence_is_the_listing_s(T, real, backend):
    rnn, _ = pair(4, 9, 5, backend=backend)
    inputs, targets, h_prev = sequence(T, 4, 9, 5, real=real)
    flow = gradient_flow(rnn, inputs, targets, h_prev)
    dhs, terms = naive_flow(rnn, inputs, targets, h_prev)
    alone, _ = naive_flow(rnn, inputs, targets, h_prev, last_only=True)
    assert_close(flow.total, [np.linalg.norm(v) for v in dhs])
    assert_close(flow.from_last_step, [np.linalg.norm(v) for v in alone])
    assert_close(flow.share, [np.linalg.norm(v) / np.linalg.norm(alone[-1]) for v in alone])
    assert_close(flow.dWhh_terms, [np.linalg.norm(v) for v in terms])
    loss, (_, dWhh, *_), _ = rnn.loss_and_grads(inputs, targets, h_prev, clip=None)
    assert_close(sum(terms), dWhh)  # the terms of eqs. 13 and 14 make the gradient
    assert flow.loss == pytest.approx(loss, rel=1e-12)
    assert flow.dWhh_norm == pytest.approx(np.linalg.norm(dWhh), rel=1e-12)


@pytest.mark.parametrize("N", [1, 3, 20, 40])
def test_flow_of_a_batch_is_that_of_its_sequences(N, backend):
    """Norms over a batch, and the terms as full matrices, for every way of computing the terms."""
    lm = language_model(backend)
    T = 7
    x, y = classes(T, N, 5)
    flow = gradient_flow(lm, x, y, reduction="sum")
    twin = SimpleRNN(5, 12, 5, rng=0, backend=backend)
    P = lm.parameters
    twin.Wxh, twin.Whh, twin.Why = P["weight_ih_l0"], P["weight_hh_l0"], P["weight_out"]
    twin.bh, twin.by = (P["bias_ih_l0"] + P["bias_hh_l0"])[:, None], P["bias_out"][:, None]
    start = np.zeros((12, 1))
    each = [naive_flow(twin, x[:, n], y[:, n], start) for n in range(N)]
    alone = [naive_flow(twin, x[:, n], y[:, n], start, last_only=True)[0] for n in range(N)]
    assert_close(flow.total, [np.linalg.norm([dhs[t] for dhs, _ in each]) for t in range(T)])
    assert_close(flow.from_last_step, [np.linalg.norm([dhs[t] for dhs in alone]) for t in range(T)])
    terms = [sum(own[t] for _, own in each) for t in range(T)]
    assert_close(flow.dWhh_terms, [np.linalg.norm(term) for term in terms], 1e-9)
    _, grads, _ = lm.loss_and_grads(x, y, reduction="sum")
    assert_close(sum(terms), grads["weight_hh_l0"])


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_flow_has_the_model_s_own_loss_and_gradients(num_layers, nonlinearity, backend, dtype):
    dropout = 0.5 if num_layers > 1 else 0.0
    lm = language_model(
        backend, num_layers=num_layers, nonlinearity=nonlinearity, dtype=dtype, dropout=dropout
    )
    x, y = classes(6, 4, 5)
    h0 = np.random.default_rng(3).normal(size=(num_layers, 4, 12)).astype(dtype)
    lm.eval()
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    for layer in range(-num_layers, num_layers):
        flow = gradient_flow(lm, x, y, h0, layer=layer)
        loss, grads, _ = lm.loss_and_grads(x, y, h0)
        assert flow.loss == pytest.approx(loss, rel=tolerance)
        wanted = np.linalg.norm(grads[f"weight_hh_l{layer % num_layers}"])
        assert flow.dWhh_norm == pytest.approx(wanted, rel=tolerance)
        assert flow.layer == layer % num_layers
        assert flow.reduction == "mean"
    lm.train()
    again = gradient_flow(lm, x, y, h0, layer=layer)
    assert bits(again.total) == bits(flow.total)  # dropout is left out, also while training


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_flow_of_a_layer_takes_the_gradient_of_its_outputs(batch_first, bidirectional, backend):
    rnn = RNN(3, 6, 2, batch_first=batch_first, bidirectional=bidirectional, dtype=np.float64, rng=0,
              backend=backend)  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 5, 3))
    output, _ = rnn.forward(x)
    grad_output = rng.normal(size=output.shape)
    rnn.backward(grad_output)
    for layer in (0, 1):
        for direction in range(1 + bidirectional):
            flow = gradient_flow(rnn, x, grad_output, layer=layer, direction=direction)
            ending = "_reverse" if direction else ""
            wanted = np.linalg.norm(rnn.grads[f"weight_hh_l{layer}{ending}"])
            assert flow.dWhh_norm == pytest.approx(wanted, rel=1e-12)
            assert math.isnan(flow.loss)
            assert len(flow.total) == (5 if batch_first else 4)
            assert flow.share[0 if direction else -1] == 1
    by_function = gradient_flow(rnn, x, lambda out: 2 * out)
    by_array = gradient_flow(rnn, x, 2 * output)
    assert bits(by_function.total, by_function.dWhh_terms) == bits(by_array.total, by_array.dWhh_terms)


def test_the_last_state_of_one_layer_and_a_bias_less_layer(backend):
    rnn = RNN(3, 6, bias=False, dtype=np.float64, rng=0, backend=backend)
    x = np.random.default_rng(0).normal(size=(5, 3))  # one sequence
    output, _ = rnn.forward(x)
    flow = gradient_flow(rnn, x, np.ones_like(output))
    assert flow.total[-1] == pytest.approx(math.sqrt(6))  # nothing but the given gradient
    assert flow.from_last_step[-1] == flow.total[-1]


def test_flow_of_text_in_a_char_rnn(backend):
    text = "the cat sat on the mat. " * 20
    model = CharRNN(12, seq_len=8, batch_size=4, epochs=1, dtype="float64", random_state=0, backend=backend,
                    verbose=0).fit(text)  # fmt: skip
    flow = gradient_flow(model, "the cat sat")
    indices = model.vocabulary_.encode("the cat sat")
    same = gradient_flow(model.model_, indices[:-1], indices[1:])
    assert len(flow.total) == 10
    assert bits(flow.total, flow.from_last_step) == bits(same.total, same.from_last_step)
    given = gradient_flow(model, "the cat", "he cat ")
    assert len(given.total) == 7
    with pytest.raises(fastrnn.TextError, match="§"):
        gradient_flow(model, "the §")
    skipped = gradient_flow(model.set_params(unknown="skip"), "the§ cat sat")
    assert bits(skipped.total, skipped.from_last_step) == bits(flow.total, flow.from_last_step)


def test_reach_counts_the_steps_to_one_percent(backend):
    rnn = SimpleRNN(3, 10, 3, rng=0, backend=backend)
    rnn.Wxh *= 1e-6
    rnn.Whh = 0.5 * np.eye(10)
    flow = gradient_flow(rnn, [0, 1, 2] * 5, [1, 2, 0] * 5)
    assert_close(flow.share, 0.5 ** np.arange(14, -1, -1), 1e-6)
    assert flow.reach == 7  # 0.5 ** 7 = 0.0078
    rnn.Whh = np.eye(10)
    assert gradient_flow(rnn, [0, 1, 2] * 5, [1, 2, 0] * 5).reach == 15


def test_flow_is_the_same_on_any_number_of_threads(backend):
    x, y = classes(40, 64, 5)
    results = []
    for num_threads in (1, 2):
        lm = language_model(backend, h=80, num_threads=num_threads)
        flow = gradient_flow(lm, x, y)
        results.append(bits(flow.total, flow.from_last_step, flow.dWhh_terms))
    assert results[0] == results[1]


def test_gradients_beyond_the_range_of_squares_have_norms(backend):
    """float32 squares overflow at 1.8e19 and vanish below 1e-19."""
    rnn = RNN(2, 3, dtype=np.float32, rng=0, backend=backend)
    rnn.parameters["weight_hh_l0"][...] = 0
    x = np.zeros((3, 2), np.float32)
    for scale in (1e-30, 1e30):
        flow = gradient_flow(rnn, x, np.full((3, 3), scale, np.float32))
        assert_close(flow.total, np.full(3, math.sqrt(3) * scale), 1e-5)


def test_exploding_weights_give_infinity_or_nan_without_an_error(backend):
    lm = language_model(backend, nonlinearity="relu")
    lm.parameters["weight_hh_l0"][...] = 1e200
    x, y = classes(6, 2, 5)
    flow = gradient_flow(lm, x, y)
    assert not np.isfinite(flow.total).all()


# -- jacobian_norms ----------------------------------------------------------------------------------


def naive_norms(rnn, inputs, L):
    """Spectral norms of all products, shape (L, starts), by the definition."""
    h = rnn.hidden_size
    _, hs, _ = rnn.forward(inputs, np.zeros((h, 1)))
    states = [hs[t][:, 0] for t in range(len(inputs))]
    norms = np.zeros((L, len(inputs) - L))
    for k in range(len(inputs) - L):
        product = np.eye(h)
        for lag in range(1, L + 1):
            product = np.diag(1 - states[k + lag] ** 2) @ rnn.Whh @ product
            norms[lag - 1, k] = np.linalg.norm(product, 2)
    return norms


@pytest.mark.parametrize("method", ["exact", "power"])
@pytest.mark.parametrize("h", [1, 2, 16, 70])
def test_jacobian_norms_are_those_of_the_products(h, method, backend):
    rnn, _ = pair(4, h, 3, backend=backend, scale=1.2)
    inputs, _, _ = sequence(20, 4, h, 3)
    result = jacobian_norms(rnn, inputs, max_lag=8, max_starts=100, method=method)
    wanted = naive_norms(rnn, inputs, 8)
    assert result.starts == 12
    assert result.lags.tolist() == list(range(1, 9))
    assert_close(result.norms, wanted.mean(axis=1), 1e-12 if method == "exact" else 1e-8)
    assert (wanted.max(axis=1) <= result.bound**result.lags * (1 + 1e-12)).all()
    assert result.factor == pytest.approx(math.exp(-result.decay_rate))


def test_power_iteration_where_singular_values_lie_close_together(backend):
    rnn = SimpleRNN(4, 60, 3, rng=0, backend=backend)
    rnn.Whh = 0.9 * np.linalg.qr(rnn.Whh)[0]
    inputs, _, _ = sequence(24, 4, 60, 3)
    exact, power = (jacobian_norms(rnn, inputs, method=m) for m in ("exact", "power"))
    assert_close(power.norms, exact.norms, 1e-5)


@pytest.mark.parametrize("radius", [0.3, 0.9, 1.0, 1.3])
@pytest.mark.parametrize("kind", ["symmetric", "rotation", "neither"])
def test_a_linear_net_decays_as_its_spectral_radius(kind, radius, backend):
    """Small states make tanh the identity: the product is Whh^lag, and its norm in the long run that
    of the largest eigenvalue, whatever the transient of a matrix that is not normal."""
    rng = np.random.default_rng(5)
    h = 20
    W = rng.normal(size=(h, h))
    W = {"symmetric": W + W.T, "rotation": np.linalg.qr(W)[0], "neither": W}[kind]
    rnn = SimpleRNN(3, h, 3, rng=0, backend=backend)
    rnn.Wxh *= 1e-40
    rnn.Whh = W * radius / np.abs(np.linalg.eigvals(W)).max()
    result = jacobian_norms(rnn, [0, 1, 2] * 70, max_lag=100)
    assert result.factor == pytest.approx(radius, rel=0.01)
    assert diagnostics.spectral_radius(rnn) == pytest.approx(radius, rel=1e-9)
    if radius < 1:
        assert result.half_life == pytest.approx(math.log(0.5) / math.log(radius), rel=0.1)
    if radius > 1:
        assert result.half_life == math.inf
    if kind != "neither":
        assert_close(result.norms, radius**result.lags, 1e-9)
        assert result.bound == pytest.approx(radius)


@pytest.mark.parametrize("method", ["exact", "power"])
def test_products_beyond_the_range_of_floats_keep_their_decay(method, backend):
    rnn = SimpleRNN(3, 10, 3, rng=0, backend=backend)
    rnn.Wxh[...] = 0
    for scale in (1e-8, 1e-200):
        rnn.Whh = scale * np.eye(10)
        result = jacobian_norms(rnn, [0] * 121, max_lag=60, method=method)
        assert result.decay_rate == pytest.approx(-math.log(scale), rel=1e-9)
    assert result.norms[0] == pytest.approx(1e-200)
    assert result.norms[-1] == 0


@pytest.mark.parametrize("method", ["exact", "power"])
def test_dead_units_pass_nothing(method, backend):
    lm = language_model(backend, nonlinearity="relu")
    lm.parameters["bias_ih_l0"][...] = -100
    result = jacobian_norms(lm, [0, 1, 2, 3, 4, 0], method=method)
    assert not result.norms.any()
    assert result.half_life == 0
    assert result.bound == 0


def test_jacobians_of_a_reverse_direction_run_backwards(backend):
    rnn = RNN(3, 6, bidirectional=True, dtype=np.float64, rng=0, backend=backend)
    x = np.random.default_rng(0).normal(size=(12, 2, 3))
    one_way = RNN(3, 6, dtype=np.float64, rng=0, backend=backend)
    for name in one_way.parameters:
        one_way.parameters[name][...] = rnn.parameters[name + "_reverse"]
    result = jacobian_norms(rnn, x, direction=1)
    assert_close(result.norms, jacobian_norms(one_way, np.ascontiguousarray(x[::-1])).norms)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"inputs": [0]}, ValueError, "inputs must have at least 2 time steps, got 1"),
        ({"max_lag": 4}, ValueError, "max_lag must be less than the 4 time steps of the inputs, got 4"),
        ({"max_lag": 0}, ValueError, "max_lag must be at least 1"),
        ({"max_starts": 0}, ValueError, "max_starts must be at least 1"),
        ({"method": "svd"}, ValueError, "method must be one of 'auto', 'exact', 'power', got 'svd'"),
        ({"layer": 1}, ValueError, "layer must be from -1 to 0, got 1"),
        ({"layer": -2}, ValueError, "layer must be at least -1"),
        ({"direction": 1}, ValueError, "direction must be less than 1"),
        ({"inputs": [0, 9, 0, 0]}, IndexError, "9, outside"),
        ({"h0": np.zeros((3, 1))}, ValueError, "h0 must have shape"),
    ],
)
def test_bad_arguments_are_named(change, error, said):
    rnn = SimpleRNN(4, 8, 4, rng=0, backend="numpy")
    arguments = {"inputs": [0, 1, 2, 3], **change}
    with pytest.raises(error, match=said):
        jacobian_norms(rnn, **arguments)


@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (0, 0)])
def test_inputs_and_targets_without_a_length(shape):
    said = f"must have at least one {'sequence' if shape[0] else 'time step'}, got shape"
    none, good = np.zeros(shape, int), np.zeros((2, 2), int)
    for model in (language_model("numpy"), RNN(5, 4, rng=0, backend="numpy")):
        with pytest.raises(ValueError, match=f"inputs {said}"):
            diagnostics.saturation(model, none)
    with pytest.raises(ValueError, match=f"targets {said}"):
        gradient_flow(language_model("numpy"), good, none)
    with pytest.raises(ValueError, match="inputs must have at least one time step, got shape"):
        gradient_flow(SimpleRNN(5, 4, 5, rng=0, backend="numpy"), np.zeros((0, 5)), [])


def test_the_place_of_an_index_is_that_in_the_user_s_array():
    x = np.zeros((4, 3), int)
    x[2, 1] = 9
    for model in (language_model("numpy"), RNN(5, 4, rng=0, backend="numpy")):
        with pytest.raises(IndexError, match=r"inputs\[2, 1\] is 9, outside \[-5, 5\)"):
            diagnostics.saturation(model, x)
    rnn = RNN(5, 4, batch_first=True, rng=0, backend="numpy")
    with pytest.raises(IndexError, match=r"inputs\[1, 2\] is 9, outside \[-5, 5\)"):
        diagnostics.saturation(rnn, x.T)


def test_models_that_cannot_be_looked_at():
    with pytest.raises(
        TypeError, match="model must be a SimpleRNN, RNN, GRU, LSTM, LanguageModel or fitted CharRNN"
    ):
        gradient_flow(object(), [0], [0])
    with pytest.raises(ValueError, match=r"call CharRNN\.fit"):
        gradient_flow(CharRNN(), "abc")
    rnn = SimpleRNN(4, 8, 4, rng=0, backend="numpy")
    with pytest.raises(TypeError, match="targets must be class indices"):
        gradient_flow(rnn, [0, 1])
    with pytest.raises(ValueError, match="targets must hold one class index for each input"):
        gradient_flow(rnn, [0, 1], [0])
    with pytest.raises(TypeError, match="text for a CharRNN only"):
        gradient_flow(rnn, "abc")
    with pytest.raises(TypeError, match="gradient of the loss by an RNN's outputs"):
        gradient_flow(RNN(2, 3, backend="numpy"), np.zeros((2, 2), np.float32))


# -- models that are broken --------------------------------------------------------------------------

#: Of a model, inputs and targets; the others show NaN.
REFUSE = {
    "jacobian_norms": lambda m, x, y: jacobian_norms(m, x),
    "saturation": lambda m, x, y: diagnostics.saturation(m, x),
    "gradcheck": diagnostics.gradcheck,
    "spectrum": lambda m, x, y: diagnostics.spectrum(m),
    "spectral_radius": lambda m, x, y: diagnostics.spectral_radius(m),
    "estimate": lambda m, x, y: diagnostics.spectral_radius(m, method="estimate"),
    "singular_values": lambda m, x, y: diagnostics.singular_values(m),
}

NUMBERS = ("spectral_radius", "saturated", "dead", "gradient_share", "half_life", "dWhh_norm", "clipped")


def broken_models(value, everywhere, backend):
    """Of each kind one for each of its weights, which hold the value; with inputs, targets, a name."""

    def spoiled(W):
        W.reshape(-1)[slice(None) if everywhere else 0] = value

    x, y = classes(7, 3, 4)
    for name in ("Wxh", "Whh", "Why", "bh", "by"):
        rnn = SimpleRNN(4, 6, 4, rng=0, backend=backend)
        spoiled(getattr(rnn, name))
        yield rnn, x[:, 0], y[:, 0], name
    for kind in (LanguageModel, RNN):
        for nonlinearity in ("tanh", "relu"):
            for name in kind(4, 6, rng=0).parameters:
                model = kind(4, 6, nonlinearity=nonlinearity, rng=0, backend=backend)
                spoiled(model.parameters[name])
                yield model, x, y if kind is LanguageModel else lambda output: output, name


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("everywhere", [False, True])
def test_no_broken_model_looks_healthy(everywhere, value, backend):
    """What gives no NaN refuses, and names the weights."""
    for model, x, y, name in broken_models(value, everywhere, backend):
        for call in REFUSE.values():
            with pytest.raises(ValueError, match=f"weights of the model hold NaN or infinity: {name}$"):
                call(model, x, y)
        for clip in ("norm", "value", None):
            summary = diagnostics.training_summary(model, x, y, clip=clip)
            assert set(summary) == set(NUMBERS)
            assert all(math.isnan(number) for number in summary.values())
        flow = gradient_flow(model, x, y)
        assert np.isnan([flow.loss, *flow.total, *flow.from_last_step, *flow.share]).all()
        assert flow.reach == 0
        report = diagnostics.clip_report(model, x, y)
        assert np.isnan([report.norm_before, report.largest, *report.norm_after.values()]).all()
        assert report.changed.pop("norm") == 1  # all of them become NaN
        assert np.isnan([*report.changed.values()]).all()
        states = diagnostics.hidden_states(model, x).states
        if np.isnan(value) and name not in ("Why", "by", "weight_out", "bias_out") and everywhere:
            assert np.isnan(states).all()


def test_the_names_of_many_weights_are_cut_short():
    rnn = RNN(2, 3, 3, rng=0, backend="numpy")
    for W in rnn.parameters.values():
        W[...] = np.nan
    with pytest.raises(ValueError, match=r"infinity: weight_ih_l0, .*bias_hh_l0 and 8 more$"):
        diagnostics.spectral_radius(rnn)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_states_that_are_no_numbers_where_the_weights_are(nonlinearity, backend):
    lm = language_model(backend, nonlinearity=nonlinearity)
    x, y = classes(7, 3, 5)
    h0 = np.full((1, 3, 12), np.nan)
    for call in (diagnostics.saturation, jacobian_norms):
        with pytest.raises(ValueError, match="states of the model hold NaN or infinity"):
            call(lm, x, h0)
    summary = diagnostics.training_summary(lm, x, y, h0, clip="value")
    assert 0 < summary.pop("spectral_radius") < 3
    assert all(math.isnan(number) for number in summary.values()), summary
    assert diagnostics.training_summary(lm, x, y, h0)["clipped"] == 1
    flow = gradient_flow(lm, x, y, h0)
    assert np.isnan(flow.total).all()
    assert np.isnan(flow.loss)
    report = diagnostics.clip_report(lm, x, y, h0)
    assert np.isnan([report.norm_before, report.largest, *report.norm_after.values()]).all()
    assert math.isnan(report.changed["value"])
    assert report.changed["norm"] == 1  # all of them become NaN
    assert not diagnostics.gradcheck(lm, x, y, h0, entries=3).ok


def test_clipping_of_infinite_gradients(backend):
    """Rescaling by an infinite norm leaves no number; clamping does."""
    rnn = RNN(3, 4, dtype=np.float64, rng=0, backend=backend)
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    report = diagnostics.clip_report(rnn, x, lambda output: np.full(output.shape, np.inf))
    assert not math.isfinite(report.norm_before)
    assert not math.isfinite(report.largest)
    assert math.isnan(report.norm_after["norm"])
    assert report.changed["norm"] == 1
    summary = diagnostics.training_summary(rnn, x, lambda output: np.full(output.shape, np.inf))
    assert not math.isfinite(summary["dWhh_norm"])
    assert summary["clipped"] == 1


def test_a_largest_entry_that_is_nan_is_not_left_out(backend):
    """The gradients of the reverse direction are NaN, those of the other one come first."""
    rnn = RNN(3, 4, bidirectional=True, dtype=np.float64, rng=0, backend=backend)
    gradient = np.ones((5, 2, 8))
    gradient[..., 4:] = np.nan
    report = diagnostics.clip_report(rnn, np.ones((5, 2, 3)), gradient)
    assert math.isnan(report.largest)
    assert math.isnan(report.norm_before)


def test_a_step_s_clipping_of_infinity_is_counted():
    for infinite in (np.inf, -np.inf):
        wanted = np.array([infinite, 1.0, 3.0])
        with np.errstate(invalid="ignore"):
            assert clipping._count_different(wanted, np.clip(wanted, -5, 5)) == 1
            assert clipping._count_different(wanted, wanted) == 0


# -- the recurrent weights and the states ------------------------------------------------------------


def test_spectral_radius_and_singular_values_of_known_matrices():
    rotation = 0.8 * np.array([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]])
    jordan = np.array([[0.5, 10.0], [0.0, 0.5]])
    for W, radius in ((rotation, 0.8), (jordan, 0.5), (np.diag([-3.0, 1.0]), 3.0), (np.zeros((3, 3)), 0.0)):
        assert diagnostics.spectral_radius(W) == pytest.approx(radius)
        estimate = diagnostics.spectral_radius(W, method="estimate")
        assert estimate == pytest.approx(radius, rel=0.03)
    assert_close(diagnostics.singular_values(np.diag([1.0, -3.0, 2.0])), [3.0, 2.0, 1.0])
    result = diagnostics.spectrum(rotation)
    assert_close(np.abs(result.eigenvalues), [0.8, 0.8])
    assert result.spectral_radius == pytest.approx(0.8)
    with pytest.raises(ValueError, match=r"square matrix, got shape \(2, 3\)"):
        diagnostics.singular_values(np.zeros((2, 3)))


@pytest.mark.parametrize("h", [3, 50, 200])
def test_the_estimate_of_the_spectral_radius_is_close(h):
    for seed in range(5):
        W = np.random.default_rng(seed).normal(size=(h, h)) / math.sqrt(h)
        exact = diagnostics.spectral_radius(W)
        assert diagnostics.spectral_radius(W, method="estimate") == pytest.approx(exact, rel=0.03)


def test_saturation_counts_units(backend):
    rnn, _ = pair(3, 10, 3, backend=backend, scale=3)
    inputs, _, h_prev = sequence(15, 3, 10, 3)
    rnn.bh[4] = 60
    result = diagnostics.saturation(rnn, inputs, h_prev)
    _, hs, _ = rnn.forward(inputs, h_prev)
    states = hs.array[1:]
    assert_close(result.saturated, (np.abs(states) > 0.99).mean(axis=1))
    assert_close(result.dead, (1 - states**2 < 1e-3).mean(axis=1))
    assert_close(result.mean_slope, (1 - states**2).mean(axis=1))
    assert 4 in result.stuck
    assert set(result.stuck) == set(np.flatnonzero((np.abs(states) > 0.99).all(axis=0)))
    with pytest.raises(ValueError, match="threshold must be less than 1"):
        diagnostics.saturation(rnn, inputs, threshold=1.0)


def test_saturation_of_a_relu_is_death(backend):
    lm = language_model(backend, nonlinearity="relu")
    lm.parameters["bias_ih_l0"][:3] = -100
    lm.parameters["bias_ih_l0"][3:] = 100
    result = diagnostics.saturation(lm, classes(4, 3, 5)[0])
    assert not result.saturated.any()
    assert_close(result.dead, np.full(4, 3 / 12))
    assert result.stuck.tolist() == [0, 1, 2]


def test_inputs_of_a_simple_rnn_are_read_as_its_own_methods_read_them(backend):
    """Bytes, objects that are whole numbers, and one-hot bools."""
    rnn, _ = pair(5, 11, 5, backend=backend)
    inputs, targets = np.array([0, 4, 1, 2, 3, 3]), np.array([1, 2, 0, 4, 3, 1])
    one_hot = np.eye(5, dtype=bool)
    wanted = diagnostics.gradient_flow(rnn, inputs, targets)
    for kind in (lambda c: bytes(c.tolist()), lambda c: c.astype(object), lambda c: one_hot[c],
                 lambda c: one_hot[c][:, :, None]):  # fmt: skip
        got = diagnostics.gradient_flow(rnn, kind(inputs), kind(targets))
        assert got.loss == pytest.approx(wanted.loss, rel=1e-12)
        assert_close(got.total, wanted.total, 1e-12)
    with pytest.raises(ValueError, match=r"targets of bools must mark one class each, targets\[0\] marks 0"):
        diagnostics.gradient_flow(rnn, inputs, np.zeros((6, 5), bool))


def test_hidden_states_are_those_of_forward(backend):
    rnn, _ = pair(3, 10, 3, backend=backend)
    inputs, _, h_prev = sequence(5, 3, 10, 3)
    result = diagnostics.hidden_states(rnn, inputs, h_prev)
    _, hs, _ = rnn.forward(inputs, h_prev)
    assert_close(result.states, hs.array[1:])
    assert result.labels == [str(i % 3) for i in inputs]
    model = CharRNN(8, seq_len=4, batch_size=2, epochs=1, random_state=0, backend=backend, verbose=0)
    model.fit("hello world. " * 9)
    result = diagnostics.hidden_states(model, "hello")
    assert result.labels == list("hello")
    assert result.states.shape == (5, 8)
    with pytest.raises(IndexError, match="sequence is 3, outside the 2 of the batch"):
        diagnostics.hidden_states(language_model(backend), classes(4, 2, 5)[0], sequence=3)


# -- clipping ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.05, 1.0, 1e6])
def test_clip_report_is_what_the_modes_do(threshold, backend):
    rnn, _ = pair(4, 9, 5, backend=backend)
    inputs, targets, h_prev = sequence(20, 4, 9, 5)
    report = diagnostics.clip_report(rnn, inputs, targets, h_prev, threshold=threshold)

    def grads(clip):
        _, found, _ = rnn.loss_and_grads(inputs, targets, h_prev, clip=clip, clip_threshold=threshold)
        return np.concatenate([g.ravel() for g in found])

    plain = grads(None)
    assert report.entries == rnn.num_parameters == len(plain)
    assert report.norm_before == pytest.approx(np.linalg.norm(plain))
    assert report.largest == pytest.approx(np.abs(plain).max())
    for mode in ("step", "value", "norm"):
        clipped = grads(mode)
        assert report.norm_after[mode] == pytest.approx(np.linalg.norm(clipped))
        changed = np.abs(clipped - plain) > 1e-7 * np.abs(plain).max()
        assert report.changed[mode] == pytest.approx(changed.mean(), abs=1e-9)
    assert (report.changed["norm"] > 0) == (threshold < 1e6)


def test_clip_report_of_a_language_model_is_its_grad_norm(backend):
    lm = language_model(backend, num_layers=2)
    x, y = classes(6, 4, 5)
    report = diagnostics.clip_report(lm, x, y, threshold=0.01)
    lm.loss_and_grads(x, y)
    assert report.norm_before == pytest.approx(lm.grad_norm, rel=1e-12)
    assert report.entries == lm.num_parameters
    assert sorted(report.changed) == ["norm", "value"]
    assert report.norm_after["norm"] == pytest.approx(0.01)
    with pytest.raises(ValueError, match="threshold must be a finite positive number"):
        diagnostics.clip_report(lm, x, y, threshold=0)


# -- gradcheck ---------------------------------------------------------------------------------------


def checked_models(backend, dtype):
    x, y = classes(5, 3, 4)
    real = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(dtype)
    yield SimpleRNN(4, 6, 4, dtype=dtype, rng=0, backend=backend), x[:, 0], y[:, 0]
    yield language_model(backend, q=4, h=6, num_layers=2, dtype=dtype, dropout=0.4), x, y
    for options in ({"batch_first": True}, {"bidirectional": True, "num_layers": 2}, {"bias": False}):
        rnn = RNN(2, 6, dtype=dtype, rng=0, backend=backend, **options)
        yield rnn, real, np.sin


@pytest.mark.few(2)
def test_gradcheck_passes_the_models_and_leaves_their_weights(backend, dtype):
    for model, inputs, targets in checked_models(backend, dtype):
        weights = parameters(model) if isinstance(model, SimpleRNN) else model.parameters.values()
        before = bits(*weights)
        result = diagnostics.gradcheck(model, inputs, targets, entries=None)
        assert result.ok, f"{model}\n{result}"
        assert all(p.checked == p.entries for p in result.parameters)
        assert len(result.parameters) == len(list(weights))
        assert bits(*weights) == before
        assert getattr(model, "training", True)
        assert "gradients agree" in str(result)


@pytest.mark.parametrize("name", ["weight_hh_l0", "bias_out"])
def test_gradcheck_finds_what_is_wrong(name, backend):
    class Wrong(LanguageModel):
        def loss_and_grads(self, *arguments, **options):
            loss, grads, h_n = super().loss_and_grads(*arguments, **options)
            grads[name][...] *= 1.001
            return loss, grads, h_n

    x, y = classes(5, 3, 4)
    result = diagnostics.gradcheck(Wrong(4, 6, dtype=np.float64, rng=0, backend=backend), x, y)
    assert not result.ok
    assert result.worst.name == name
    assert [p.name for p in result.parameters if p.error > result.tolerance] == [name]
    assert result.worst.error == pytest.approx(1e-3, rel=0.1)
    assert "<-- wrong" in str(result)


def test_gradcheck_of_zeros_and_nan_fails(backend):
    class Broken(SimpleRNN):
        value = 0.0

        def loss_and_grads(self, *arguments, **options):
            loss, grads, h = super().loss_and_grads(*arguments, **options)
            for g in grads:
                g[...] = self.value
            return loss, grads, h

    rnn = Broken(4, 6, 4, rng=0, backend=backend)
    assert not diagnostics.gradcheck(rnn, [0, 1], [1, 2]).ok
    rnn.value = np.nan
    assert not diagnostics.gradcheck(rnn, [0, 1], [1, 2]).ok


def test_gradcheck_restores_weights_when_something_is_raised(backend):
    class Fails(SimpleRNN):
        calls = 0

        def loss_and_grads(self, *arguments, **options):
            self.calls += 1
            if self.calls > 6:
                raise RuntimeError("enough")
            return super().loss_and_grads(*arguments, **options)

    rnn = Fails(4, 6, 4, rng=0, backend=backend)
    before = bits(*parameters(rnn))
    with pytest.raises(RuntimeError, match="enough"):
        diagnostics.gradcheck(rnn, [0, 1], [1, 2])
    assert bits(*parameters(rnn)) == before
    rnn.calls = -1000
    rnn.Whh.flags.writeable = False
    with pytest.raises(ValueError, match="Whh is read-only"):
        diagnostics.gradcheck(rnn, [0, 1], [1, 2])


@pytest.mark.parametrize("name", ["entries", "step", "tolerance"])
def test_gradcheck_names_what_is_wrong(name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        diagnostics.gradcheck(SimpleRNN(4, 6, 4, rng=0), [0, 1], [1, 2], **{name: 0})


@pytest.mark.parametrize("kind", ["language model", "sequence model"])
def test_gradcheck_leaves_the_last_gradients(kind, backend, dtype):
    model = language_model(backend, dtype=dtype)
    x, y = classes(6, 3, 5)
    if kind == "sequence model":
        model = SequenceModel(5, 4, 5, loss="cross_entropy", rng=0, dtype=dtype, backend=backend)
    model.train_step(x, y, None, SGD(lr=0.1), clip=None)
    grads, values, norm = model.grads, bits(*model.grads.values()), model.grad_norm
    assert diagnostics.gradcheck(model, x[::-1], y, entries=2).ok
    assert model.grads is grads
    assert bits(*grads.values()) == values
    assert model.grad_norm == norm > 0


@pytest.mark.parametrize("layer", [RNN, GRU, LSTM])
def test_backward_after_gradcheck_is_that_of_the_forward_before(layer, backend, dtype):
    rnn, like = (layer(3, 5, rng=0, dtype=dtype, backend=backend) for _ in range(2))
    rng = np.random.default_rng(3)
    x, grad = rng.normal(size=(4, 2, 3)).astype(dtype), rng.normal(size=(4, 2, 5)).astype(dtype)
    for one in (rnn, like):
        one.forward(x)
        one.backward(grad)
    grads = rnn.grads
    assert diagnostics.gradcheck(rnn, 2 * x[:3], grad[:3], entries=2).ok
    assert rnn.grads is grads
    assert bits(*grads.values()) == bits(*like.grads.values())
    rnn.grads = None  # as PyTorch's habit is, or away with it, and kept by somebody
    assert diagnostics.gradcheck(rnn, x, grad, entries=2).ok
    assert bits(*grads.values()) == bits(*like.grads.values())
    assert bits(rnn.backward(-grad)[0], *rnn.grads.values()) == bits(
        like.backward(-grad)[0], *like.grads.values()
    )
    fresh = layer(3, 5, rng=0, dtype=dtype, backend=backend)
    diagnostics.gradcheck(fresh, x, grad, entries=1)
    assert fresh.grads == {}
    with pytest.raises(RuntimeError, match="forward"):
        fresh.backward(grad)


# -- while training ----------------------------------------------------------------------------------


def test_training_summary_is_what_the_single_functions_say(backend, dtype):
    lm = language_model(backend, h=30, num_layers=2, dtype=dtype)
    x, y = classes(20, 4, 5)
    summary = diagnostics.training_summary(lm, x, y, clip_threshold=1e-3)
    flow = gradient_flow(lm, x, y)
    assert summary["gradient_share"] == pytest.approx(flow.share[0], rel=1e-5)
    assert summary["dWhh_norm"] == pytest.approx(flow.dWhh_norm, rel=1e-5)
    assert summary["spectral_radius"] == pytest.approx(diagnostics.spectral_radius(lm), rel=0.03)
    state = diagnostics.saturation(lm, x)
    assert summary["saturated"] == pytest.approx(state.saturated.mean())
    assert summary["dead"] == pytest.approx(state.dead.mean())
    assert summary["clipped"] == 1.0
    assert diagnostics.training_summary(lm, x, y)["clipped"] == 0.0
    report = diagnostics.clip_report(lm, x, y, threshold=1e-3)
    by_value = diagnostics.training_summary(lm, x, y, clip="value", clip_threshold=1e-3)
    assert by_value["clipped"] == pytest.approx(report.changed["value"])
    assert all(type(value) is float for value in summary.values())


def test_half_life_of_the_summary_in_a_linear_net(backend):
    rnn = SimpleRNN(3, 10, 3, rng=0, backend=backend)
    rnn.Wxh *= 1e-6
    rnn.Whh = 0.9 * np.eye(10)
    summary = diagnostics.training_summary(rnn, [0, 1, 2] * 8, [1, 2, 0] * 8)
    assert summary["half_life"] == pytest.approx(math.log(0.5) / math.log(0.9), rel=1e-3)
    assert diagnostics.training_summary(rnn, [0], [1])["half_life"] == math.inf


def test_nothing_that_is_looked_at_changes(backend):
    lm = language_model(backend, num_layers=2)
    x, y = classes(6, 3, 5)
    h0 = np.random.default_rng(1).normal(size=(2, 3, 12))
    state = lm.rng.bit_generator.state
    before = bits(x, y, h0, *lm.parameters.values())
    for call in (
        lambda: gradient_flow(lm, x, y, h0),
        lambda: jacobian_norms(lm, x, h0),
        lambda: diagnostics.saturation(lm, x, h0),
        lambda: diagnostics.hidden_states(lm, x, h0),
        lambda: diagnostics.clip_report(lm, x, y, h0),
        lambda: diagnostics.training_summary(lm, x, y, h0),
        lambda: diagnostics.spectrum(lm),
    ):
        first, second = call(), call()
        assert bits(x, y, h0, *lm.parameters.values()) == before
        assert lm.rng.bit_generator.state == state
        values = (first, second) if isinstance(first, dict) else (vars(first), vars(second))
        assert repr(values[0]) == repr(values[1])  # the same bits every time
