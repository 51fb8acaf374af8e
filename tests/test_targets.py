"""Targets of `LanguageModel` that count for nothing, -100: as if they were not there."""

import math

import numpy as np
import pytest
from support import assert_close, bits, tolerance

from fastrnn import LanguageModel, diagnostics, optim

Q, H = 11, 18


def model(backend, dtype=np.float64, num_layers=2, **options):
    return LanguageModel(Q, H, num_layers, dtype=dtype, rng=3, backend=backend, **options)


def batch(T, N, share, num_layers=2, dtype=np.float64, seed=0):
    """Inputs, targets of which a share is -100, and a first state."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(Q, size=(2, T, N))
    y[rng.random(y.shape) < share] = -100
    return x, y, (rng.normal(size=(num_layers, N, H)) * 0.5).astype(dtype)


def by_hand(lm, x, y, h0):
    """Sum of the losses of the targets that count, from the logits, in float64."""
    logits = lm.forward(x, h0)[0].astype(np.float64)
    nats = 0.0
    for place in np.argwhere(y != -100):
        row = logits[tuple(place)]
        nats += math.log(np.exp(row - row.max()).sum()) + row.max() - row[y[tuple(place)]]
    return nats


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(("T", "N"), [(1, 1), (9, 1), (7, 5), (6, 40)])
def test_loss(T, N, share, num_layers, dtype, backend):
    lm = model(backend, dtype, num_layers)
    x, y, h0 = batch(T, N, share, num_layers, dtype)
    y[0, 0] = 3
    count, given = np.count_nonzero(y != -100), bits(x, y, h0)
    wanted = by_hand(lm, x, y, h0)
    for call in (lm.loss, lm.loss_and_grads):
        assert call(x, y, h0, reduction="sum")[0] == pytest.approx(wanted, rel=tolerance(dtype))
        assert call(x, y, h0)[0] == pytest.approx(wanted / count, rel=tolerance(dtype))
    loss, h_n = lm.train_step(x, y, h0, optim.SGD(0.1, backend=backend))
    assert loss == pytest.approx(wanted / count, rel=tolerance(dtype))
    assert bits(x, y, h0) == given


@pytest.mark.parametrize("options", [{}, {"recompute_every": 2}, {"nonlinearity": "relu"}])
@pytest.mark.parametrize("N", [1, 3])
def test_gradients_by_central_differences(N, options, backend):
    lm = model(backend, **options)
    x, y, h0 = batch(5, N, 0.5, seed=1)
    assert 0 < np.count_nonzero(y == -100) < y.size
    grads = {name: g.copy() for name, g in lm.loss_and_grads(x, y, h0)[1].items()}
    rng = np.random.default_rng(2)
    for name, W in lm.parameters.items():
        kept, v = W.copy(), rng.normal(size=W.shape)
        losses = []
        for step in (1e-6, -1e-6):
            W[...] = kept + step * v
            losses.append(lm.loss(x, y, h0)[0])
        W[...] = kept
        slope = (losses[0] - losses[1]) / 2e-6
        assert (grads[name] * v).sum() == pytest.approx(slope, rel=1e-6, abs=1e-8), name
        assert grads[name].any(), name


@pytest.mark.parametrize("options", [{}, {"recompute_every": 3}, {"dropout": 0.3}])
@pytest.mark.parametrize("N", [2, 20])
def test_padding_is_as_if_it_were_not_there(N, options, dtype, backend):
    """A batch that is padded with -100 in time, and with a sequence, against the batch itself."""
    plain, padded = model(backend, dtype, **options), model(backend, dtype, **options)
    for lm in (plain, padded):  # masks would not be those of the smaller batch
        lm.train("dropout" not in options)
    x, y, h0 = batch(6, N, 0.2, dtype=dtype)
    more_x, more_y = np.zeros((9, N + 1), int), np.full((9, N + 1), -100)
    more_x[:6, :N], more_y[:6, :N] = x, y
    more_h0 = np.concatenate([h0, np.ones((2, 1, H), dtype)], axis=1)
    for reduction in ("mean", "sum"):
        loss, grads, _ = plain.loss_and_grads(x, y, h0, reduction=reduction)
        more_loss, more_grads, _ = padded.loss_and_grads(more_x, more_y, more_h0, reduction=reduction)
        assert more_loss == pytest.approx(loss, rel=tolerance(dtype))
        for name, g in grads.items():
            assert_close(more_grads[name], g, tolerance(dtype), name)


@pytest.mark.parametrize("options", [{}, {"recompute_every": 2}, {"dropout": 0.3}])
@pytest.mark.parametrize(("T", "N"), [(1, 1), (5, 1), (5, 20)])
def test_a_batch_in_which_nothing_counts(T, N, options, dtype, backend):
    lm = model(backend, dtype, **options)
    x, y, h0 = batch(T, N, 1.0, dtype=dtype)
    assert (y == -100).all()
    for reduction in ("mean", "sum"):
        assert lm.loss(x, y, h0, reduction=reduction)[0] == 0
        loss, grads, h_n = lm.loss_and_grads(x, y, h0, reduction=reduction)
        assert loss == 0
        assert not any(g.any() for g in grads.values())
        assert h_n.any()
    before = bits(*lm.parameters.values())
    loss, _ = lm.train_step(x, y, h0, optim.SGD(0.5, backend=backend))
    assert loss == lm.grad_norm == 0
    assert bits(*lm.parameters.values()) == before


def test_a_sequence_in_which_nothing_counts(dtype, backend):
    """The others' gradients are those of a batch without it."""
    lm = model(backend, dtype)
    x, y, h0 = batch(7, 3, 0.0, dtype=dtype)
    y[:, 1] = -100
    loss, grads, _ = lm.loss_and_grads(x, y, h0)
    grads = {name: g.copy() for name, g in grads.items()}
    others = [0, 2]
    wanted, wanted_grads, _ = lm.loss_and_grads(x[:, others], y[:, others], h0[:, others])
    assert loss == pytest.approx(wanted, rel=tolerance(dtype))
    for name, g in wanted_grads.items():
        assert_close(grads[name], g, tolerance(dtype), name)


@pytest.mark.parametrize("N", [7, 33])
def test_the_same_bits_whatever_the_number_of_threads(N, dtype, backend, small_work_shared):
    x, y, h0 = batch(9, N, 0.4, dtype=dtype)
    y[:, N // 2 :] = -100

    def results(num_threads):
        lm = model(backend, dtype, dropout=0.2, num_threads=num_threads)
        adam = optim.Adam(0.01, backend=backend)
        found = bits(lm.loss(x, y, h0)[0])
        for _ in range(3):
            loss, h_n = lm.train_step(x, y, h0, adam)
            found += bits(loss, h_n, lm.grad_norm, *lm.parameters.values())
        return found

    wanted = results(1)
    assert all(results(n) == wanted for n in (2, 3, None))


@pytest.mark.parametrize("kind", ["int8", "int32", ">i4", "list", "Fortran", "strided", "read-only"])
def test_targets_of_every_kind(kind, backend):
    x, y, _ = batch(6, 4, 0.5)
    wanted = model(backend).loss(x, y)[0]
    read_only = y.copy()
    read_only.flags.writeable = False
    other = {
        "list": y.tolist(), "Fortran": np.asfortranarray(y), "strided": np.repeat(y, 2, axis=1)[:, ::2],
        "read-only": read_only,
    }.get(kind)  # fmt: skip
    assert model(backend).loss(x, y.astype(kind) if other is None else other)[0] == wanted


def test_padded_texts_are_learned(backend):
    """Sequences of different lengths, with a class of their own for padding among the inputs."""
    rng = np.random.default_rng(0)
    lm, adam = model(backend, num_layers=1), optim.Adam(0.03, backend=backend)
    for _ in range(150):
        x = (rng.integers(Q - 1, size=12) + np.arange(9)[:, None]) % (Q - 1)
        y = (x + 1) % (Q - 1)
        ended = np.arange(9)[:, None] >= rng.integers(1, 10, size=12)
        x[ended], y[ended] = Q - 1, -100
        loss, _ = lm.train_step(x, y, None, adam)
    assert loss < 0.05
    logits, _ = lm.forward(x)
    assert (logits.argmax(axis=2) == y)[~ended].all()
    assert not (logits.argmax(axis=2) == Q - 1).any(), "the padding was trained as a class"


# The diagnostics of the model


@pytest.mark.parametrize("N", [1, 20])
def test_diagnostics_have_the_model_s_own_loss_and_gradients(N, dtype, backend):
    lm = model(backend, dtype)
    x, y, h0 = batch(6, N, 0.5, dtype=dtype)
    y[-1, 0] = 2
    rel = 1e-12 if dtype == np.float64 else 1e-5
    for reduction in ("mean", "sum"):
        flow = diagnostics.gradient_flow(lm, x, y, h0, reduction=reduction)
        loss, grads, _ = lm.loss_and_grads(x, y, h0, reduction=reduction)
        assert flow.loss == pytest.approx(loss, rel=rel)
        assert flow.dWhh_norm == pytest.approx(np.linalg.norm(grads["weight_hh_l1"]), rel=rel)
        assert flow.share[-1] == 1
    _, grads, _ = lm.loss_and_grads(x, y, h0)
    norm = math.sqrt(sum(float(np.vdot(g, g)) for g in grads.values()))
    report = diagnostics.clip_report(lm, x, y, h0)
    assert report.norm_before == pytest.approx(norm, rel=rel)
    summary = diagnostics.training_summary(lm, x, y, h0, clip_threshold=norm * 0.99)
    assert summary["clipped"] == 1
    assert summary["dWhh_norm"] == pytest.approx(np.linalg.norm(grads["weight_hh_l1"]), rel=rel)
    assert diagnostics.gradcheck(lm, x, y, h0, entries=10).ok


def test_diagnostics_where_the_last_step_does_not_count(backend):
    """Nothing reaches back from a loss that is not there: not a number, rather than none or all."""
    lm = model(backend)
    x, y, _ = batch(6, 3, 0.0)
    y[-1] = -100
    flow = diagnostics.gradient_flow(lm, x, y)
    assert not flow.from_last_step.any()
    assert np.isnan(flow.share).all()
    assert flow.total[:-1].all()
    assert flow.total[-1] == 0
    summary = diagnostics.training_summary(lm, x, y)
    assert math.isnan(summary["gradient_share"])
    assert math.isnan(summary["half_life"])
    assert summary["dWhh_norm"] > 0


def test_diagnostics_where_nothing_counts(backend):
    lm = model(backend)
    x, y, _ = batch(6, 3, 1.0)
    assert diagnostics.gradient_flow(lm, x, y).loss == 0
    assert diagnostics.clip_report(lm, x, y).norm_before == 0
    assert diagnostics.training_summary(lm, x, y)["dWhh_norm"] == 0
    assert diagnostics.gradcheck(lm, x, y, entries=3).ok


@pytest.mark.parametrize("value", [-1, -Q, -99, -101, Q])
@pytest.mark.parametrize("function", ["gradient_flow", "clip_report", "training_summary", "gradcheck"])
def test_diagnostics_refuse_other_negative_targets(function, value):
    lm = model("numpy")
    x, y, _ = batch(6, 3, 0.5)
    y[4, 2] = value
    with pytest.raises(IndexError, match=rf"targets\[4, 2\] is {value}, outside \[0, {Q}\); -100 marks"):
        getattr(diagnostics, function)(lm, x, y)
    with pytest.raises(IndexError, match=rf"targets\[4\] is {value}, outside \[0, {Q}\); -100 marks"):
        getattr(diagnostics, function)(lm, x[:, 2], y[:, 2])
