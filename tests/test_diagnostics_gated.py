"""Diagnostics of nets with gates: against differences and against plain loops."""

import math

import numpy as np
import pytest
from support import assert_close

from fastrnn import GRU, LSTM, RNN, CharRNN, LanguageModel, ReferenceGRU, diagnostics, figures
from fastrnn.cells import CELLS

LAYERS = {"gru": GRU, "lstm": LSTM}
every_cell = pytest.mark.parametrize("cell", LAYERS)
TEXT = "the cat sat on the mat, and the dog sat on the cat. " * 30


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def make(cell, d=3, h=5, T=8, N=2, seed=0, backend=None, **options):
    rng = np.random.default_rng(seed)
    layer = LAYERS[cell](d, h, rng=seed, dtype="float64", backend=backend, **options)
    for W in layer.parameters.values():
        W *= 2
    return layer, rng.normal(size=(T, N, d))


def after(layer, x, state):
    """The state, as one vector, after the inputs ``x (T, d)``, from one that is a vector."""
    h = layer.hidden_size
    arrays = [part.reshape(1, 1, h) for part in np.split(state, len(state) // h)]
    _, h_n = layer.forward(x[:, None], arrays[0] if len(arrays) == 1 else tuple(arrays))
    return np.concatenate([part.ravel() for part in parts(h_n)])


def jacobian(function, x, step=1e-6):
    columns = []
    for i in range(len(x)):
        moved = [x.copy(), x.copy()]
        moved[0][i] += step
        moved[1][i] -= step
        columns.append((function(moved[0]) - function(moved[1])) / (2 * step))
    return np.stack(columns, axis=1)


@every_cell
@pytest.mark.parametrize("method", ["exact", "power"])
def test_jacobians_by_differences(method, cell, backend):
    layer, x = make(cell, backend=backend)
    L, (T, N, _) = 3, x.shape
    found = diagnostics.jacobian_norms(layer, x, max_lag=L, max_starts=1000, method=method)
    assert found.starts == (T - L) * N
    assert math.isnan(found.bound), "Bengio's bound is of nets without gates"
    size = 5 * len(CELLS[cell].states)
    sums = np.zeros(L)
    for n in range(N):
        state, states = np.zeros(size), []
        for t in range(T):
            state = after(layer, x[t : t + 1, n], state)
            states.append(state)
        for k in range(T - L):
            for lag in range(1, L + 1):
                chunk = x[k + 1 : k + 1 + lag, n]
                J = jacobian(lambda s, chunk=chunk: after(layer, chunk, s), states[k])
                sums[lag - 1] += np.linalg.norm(J, 2)
    assert_close(found.norms, sums / found.starts, 1e-7)


@every_cell
def test_jacobians_of_the_reverse_direction(cell):
    """Those of the layer that reads the sequence from its end."""
    layer, x = make(cell, bidirectional=True)
    other = LAYERS[cell](3, 5, rng=1, dtype="float64")
    other.load_state_dict(
        {
            name.removesuffix("_reverse"): W
            for name, W in layer.parameters.items()
            if name.endswith("_reverse")
        }
    )
    options = {"max_lag": 4, "max_starts": 1000}
    found = diagnostics.jacobian_norms(layer, x, direction=1, **options)
    assert_close(found.norms, diagnostics.jacobian_norms(other, x[::-1], **options).norms, 1e-12)


@every_cell
@pytest.mark.parametrize("N", [1, 3])
def test_gradients_of_every_state(N, cell, backend):
    """Each is the gradient of the loss by the state of that step, with what comes before it cut off."""
    layer, x = make(cell, N=N, backend=backend)
    T, h = len(x), 5
    weight = np.random.default_rng(1).normal(size=(T, N, h))
    flow = diagnostics.gradient_flow(layer, x, weight)
    for last_only, norms in ((False, flow.total), (True, flow.from_last_step)):
        for t in range(T):
            squares = 0.0
            for n in range(N):
                state = np.zeros(h * len(CELLS[cell].states))
                for s in range(t + 1):
                    state = after(layer, x[s : s + 1, n], state)

                def goal(state, n=n, t=t, last_only=last_only):
                    total = 0.0 if last_only and t < T - 1 else float(weight[t, n] @ state[:h])
                    for s in range(t + 1, T):
                        state = after(layer, x[s : s + 1, n], state)
                        if s == T - 1 or not last_only:
                            total += float(weight[s, n] @ state[:h])
                    return np.array([total])

                squares += (jacobian(goal, state) ** 2).sum()
            assert norms[t] == pytest.approx(math.sqrt(squares), rel=1e-6)
    assert flow.share[-1] == 1


@every_cell
@pytest.mark.parametrize("N", [1, 3])
def test_terms_of_the_gradient(N, cell):
    """Of one step there is one term, and it is the gradient; their sum is at least as long as that of more."""
    layer, x = make(cell, N=N)
    rng = np.random.default_rng(1)
    h0 = tuple(rng.normal(size=(1, N, 5)) for _ in CELLS[cell].states)
    state = h0 if cell == "lstm" else h0[0]
    one = diagnostics.gradient_flow(layer, x[:1], rng.normal(size=(1, N, 5)), state)
    assert one.dWhh_norm > 0
    assert_close(one.dWhh_terms, np.array([one.dWhh_norm]), 1e-12)
    weight = rng.normal(size=(8, N, 5))
    flow = diagnostics.gradient_flow(layer, x, weight, state)
    layer.forward(x, state)
    layer.backward(weight)
    assert flow.dWhh_norm == pytest.approx(float(np.linalg.norm(layer.grads["weight_hh_l0"])))
    assert flow.dWhh_norm <= flow.dWhh_terms.sum()
    cut = np.zeros_like(weight)
    cut[-1] = weight[-1]
    assert diagnostics.gradient_flow(layer, x, cut, state).dWhh_terms[-1] == pytest.approx(
        flow.dWhh_terms[-1]
    ), "the last step's term comes from the last step alone"


@every_cell
def test_gates_at_their_ends(cell, backend):
    """A bias that is large shuts a gate, or opens it, in some units at every step."""
    names = CELLS[cell].gates
    layer, x = make(cell, h=10, backend=backend)
    sharp = names.index("update" if cell == "gru" else "forget")
    bias = layer.parameters["bias_ih_l0"].reshape(len(names), 10)
    bias[sharp, :3], bias[sharp, 3:5] = 50, -50
    result = diagnostics.saturation(layer, x)
    name = names[sharp]
    assert tuple(result.low) == tuple(result.high) == tuple(result.mean) == names
    assert_close(result.high[name], np.full(8, 0.3), 1e-12)
    assert_close(result.low[name], np.full(8, 0.2), 1e-12)
    assert result.stuck[name].tolist() == [0, 1, 2, 3, 4]
    assert result.saturated.shape == (8,)
    assert 0.3 <= result.mean[name].mean() <= 0.8
    said = str(result)
    assert f"{name} of 5" in said
    assert "wide open" in said
    summary = diagnostics.training_summary(layer, x, np.ones((8, 2, 10)))
    assert summary["saturated"] == pytest.approx(float(result.saturated.mean()))
    assert math.isnan(summary["spectral_radius"])
    assert math.isnan(summary["dead"])
    assert all(math.isfinite(summary[key]) for key in ("gradient_share", "half_life", "dWhh_norm", "clipped"))


@every_cell
def test_what_saturation_refuses(cell):
    layer, x = make(cell)
    with pytest.raises(ValueError, match=r"^threshold must be at least 0.5 for gates.*got 0.3"):
        diagnostics.saturation(layer, x, threshold=0.3)
    with pytest.raises(TypeError, match=r"^result must be a Saturation, got GateSaturation"):
        figures.plot_saturation(diagnostics.saturation(layer, x))
    without = diagnostics.saturation(RNN(3, 4, rng=0), np.ones((2, 1, 3)), threshold=0.3)
    with pytest.raises(TypeError, match=r"^result must be a GateSaturation, got Saturation"):
        figures.plot_gate_saturation(without)


def test_a_plain_loop_is_no_model():
    with pytest.raises(TypeError, match=r"^model must be a SimpleRNN.*got ReferenceGRU"):
        diagnostics.saturation(ReferenceGRU(3, 4, rng=0), [0, 1, 2])


@every_cell
def test_what_is_of_one_matrix_is_refused(cell):
    layer, _ = make(cell)
    for function in (diagnostics.spectral_radius, diagnostics.singular_values, diagnostics.spectrum):
        with pytest.raises(ValueError, match=r"one W_hh that its state is multiplied by.*jacobian_norms"):
            function(layer)


@every_cell
def test_gradients_are_checked(cell, backend, dtype):
    rng = np.random.default_rng(0)
    layer = LAYERS[cell](3, 6, 2, bidirectional=True, dtype=dtype, rng=0, backend=backend)
    x = rng.normal(size=(4, 2, 3))
    assert diagnostics.gradcheck(layer, x, rng.normal(size=(4, 2, 12)), entries=10).ok
    lm = LanguageModel(5, 6, cell=cell, dtype=dtype, rng=0, backend=backend)
    classes = rng.integers(5, size=(6, 3))
    assert diagnostics.gradcheck(lm, classes, np.roll(classes, -1, axis=0), entries=10).ok
    real = lm.loss_and_grads

    def wrong(*arguments, **options):
        loss, grads, h_n = real(*arguments, **options)
        grads["weight_hh_l0"][:6] *= 1.1
        return loss, grads, h_n

    lm.loss_and_grads = wrong
    assert (
        diagnostics.gradcheck(lm, classes, np.roll(classes, -1, axis=0), entries=None).worst.name
        == "weight_hh_l0"
    )


@every_cell
def test_a_state_that_is_given(cell):
    """Diagnostics take states as the model does."""
    layer, x = make(cell)
    rng = np.random.default_rng(0)
    arrays = tuple(rng.normal(size=(1, 2, 5)) for _ in CELLS[cell].states)
    state = arrays if cell == "lstm" else arrays[0]
    found = diagnostics.hidden_states(layer, x, state, sequence=1)
    assert_close(found.states, layer.forward(x, state)[0][:, 1], 1e-13)
    if cell == "lstm":
        with pytest.raises(TypeError, match=r"h0 must be the pair \(h, c\)"):
            diagnostics.saturation(layer, x, arrays[0])


@pytest.mark.parametrize("function", [diagnostics.saturation, diagnostics.jacobian_norms])
def test_what_is_kept_that_is_no_number_where_h_is(function, backend):
    """An infinite c gives an h of at most 1, and so does an infinite product behind a reset gate."""
    lstm, x = make("lstm", backend=backend)
    h0, c0 = np.zeros((1, 2, 5)), np.zeros((1, 2, 5))
    c0[0, 1, 2] = np.inf
    gru, _ = make("gru", backend=backend)
    gru.parameters["bias_hh_l0"][10:] = gru.parameters["weight_hh_l0"][10:] = 1.7e308
    for layer, first in ((lstm, (h0, c0)), (gru, None)):
        assert np.isfinite(layer.forward(x, first)[0]).all()
        with pytest.raises(ValueError, match="states of the model hold NaN or infinity"):
            function(layer, x, first)


@every_cell
def test_the_report_of_a_text(cell, tmp_path):
    model = CharRNN(12, cell=cell, seq_len=8, batch_size=4, epochs=1, random_state=0, verbose=0).fit(TEXT)
    result = diagnostics.diagnose(model, TEXT)
    said = str(result)
    assert f"12 hidden units, 1 layer, {cell.upper()};" in said
    assert "gates that are shut or wide open" in said
    assert "Whh alone" not in said
    assert result.spectrum is None
    assert "nan" not in said.lower()
    assert result.advice
    for line in said.splitlines():
        assert len(line) <= 78
    pytest.importorskip("matplotlib")
    result.plot().savefig(tmp_path / "a.png")
    result.saturation.plot().savefig(tmp_path / "b.png")


@every_cell
def test_history_has_the_summary(cell):
    model = CharRNN(
        12, cell=cell, seq_len=8, batch_size=4, max_steps=6, diagnostics_every=3, random_state=0, verbose=0
    ).fit(TEXT)
    entries = [entry["diagnostics"] for entry in model.history_ if "diagnostics" in entry]
    assert entries
    assert 0 <= entries[0]["saturated"] <= 1


def test_an_open_forget_gate_reaches_further():
    """What the page on gradients says: a vanilla net of radius 0.5 forgets in 7 steps, this in 21."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 1, 8))
    weight = rng.normal(size=(50, 1, 40))
    reach = {}
    for bias in (0, 1, 3):
        lstm = LSTM(8, 40, rng=0, dtype="float64")
        lstm.parameters["bias_ih_l0"][40:80] += bias
        reach[bias] = diagnostics.gradient_flow(lstm, x, weight).reach
    vanilla = RNN(8, 40, rng=0, dtype="float64")
    vanilla.parameters["weight_hh_l0"][...] = 0.5 * np.linalg.qr(vanilla.parameters["weight_hh_l0"])[0]
    assert diagnostics.gradient_flow(vanilla, x, weight).reach <= reach[0] < reach[1] < reach[3]
