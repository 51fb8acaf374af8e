"""A user's program, which mypy and basedpyright check (tests/test_types.py): every public class as the
documentation uses it, and what type its results have."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, assert_type

import numpy as np

import fastrnn
from fastrnn import (
    GRU,
    LSTM,
    RNN,
    CharRNN,
    LanguageModel,
    ReferenceLSTM,
    ReferenceRNN,
    SequenceModel,
    SimpleRNN,
    diagnostics,
    functional,
    optim,
)

if TYPE_CHECKING:
    from fastrnn.hints import BackendName, Clip, HeadName, HistoryEntry, LossName, Model, OptimizerState, Seed


class Plain:
    """An optimizer of the user's own."""

    def step(self, parameters: dict[str, np.ndarray], grads: dict[str, np.ndarray]) -> None:
        for name, weight in parameters.items():
            weight -= 0.1 * grads[name]


class Counted(SimpleRNN):
    """A subclass, as the notes' class is made into."""

    def __init__(self, size: int) -> None:
        super().__init__(size, 8, size, rng=0)
        self.calls = 0

    def learn(self, text: list[int]) -> float:
        self.calls += 1
        loss, _ = self.train_step(text[:-1], text[1:], np.zeros((8, 1)), lr=0.1)
        return loss


def notes_class(rng: "Seed" = None) -> list[int]:
    rnn = SimpleRNN(4, 8, 4, dtype=np.float64, rng=rng, backend="numpy")
    h = np.zeros((8, 1))
    xs, hs, ps = rnn.forward([1, 0, 2, 2], h)
    dWxh, dWhh, dWhy, dbh, dby = rnn.backward(xs, hs, ps, np.array([0, 2, 2, 3]))
    rnn.update_weights((dWxh, dWhh, dWhy, dbh, dby), lr=0.1)
    rnn.update_weights([dWxh, dWhh, dWhy, dbh, dby])
    assert_type(ps[0], np.ndarray)
    total: float = float(ps[0][0, 0]) + float(hs[-1].sum()) + float(ps.array.sum())
    loss, grads, h = rnn.loss_and_grads(range(4), (1, 2, 3, 0), h, clip="norm", clip_threshold=total)
    loss, h = rnn.train_step(np.eye(4), [1, 2, 3, 0], h, clip=None)
    assert_type(loss, float)
    optim.Adam().step((rnn.Wxh, rnn.Whh, rnn.Why, rnn.bh, rnn.by), grads)
    rnn.Wxh = np.zeros((8, 4))
    reference = ReferenceRNN(4, 8, 4, dtype="float32", rng=0)
    loss, h = reference.train_step([0, 1], [1, 2], np.zeros((8, 1)))
    Counted(4).learn([1, 0, 2])
    SimpleRNN(4, 8, 4, dtype=h.dtype)
    return rnn.sample(h, 0, 5, rng=np.random.default_rng(1))


def layer() -> np.ndarray:
    rnn = RNN(5, 16, num_layers=2, nonlinearity="relu", batch_first=True, dtype="float32", rng=0)
    stepper = rnn.stepper(batch_size=2)
    assert_type(stepper.step([0, 1], out=np.empty((2, 16), np.float32)), np.ndarray)
    stepper.state = np.zeros((2, 2, 16))
    stepper.reset(stepper.copy().state)
    stepper.refresh()
    x = np.zeros((3, 7, 5), np.float32)
    output, h_n = rnn(x, lengths=[7, 3, 1])
    output, h_n = rnn.forward(x, None)
    assert_type(output, np.ndarray)
    grad_x, grad_h0 = rnn.backward(np.ones_like(output), np.ones_like(h_n))
    assert_type(grad_x, np.ndarray | None)
    optim.SGD(0.1, momentum=0.9).step(rnn.parameters, rnn.grads)
    print(rnn.load_state_dict(rnn.state_dict()).missing_keys, rnn.eval().training, rnn.train().dtype)
    return grad_h0


def gated_layers() -> np.ndarray:
    gru, lstm = GRU(5, 16, bidirectional=True, rng=0), LSTM(5, 16, 2, dtype=np.float64, rng=0)
    x = np.zeros((7, 3, 5), np.float32)
    output, h_n = gru(x)
    assert_type(h_n, np.ndarray)
    output, (h_n, c_n) = lstm(x, lengths=[7, 3, 1])
    assert_type(c_n, np.ndarray)
    output, _ = lstm.forward(x, (h_n, c_n))
    grad_x, (grad_h0, _) = lstm.backward(np.ones_like(output), (None, c_n))
    assert_type(grad_x, np.ndarray | None)
    stepper = lstm.stepper(batch_size=3, h0=(h_n, c_n))
    stepper.reset(stepper.state)
    reference = ReferenceLSTM(5, 16, rng=0)
    output, (h, c) = reference.forward([0, 1])
    reference.backward(np.ones_like(output), (h, c))
    lm = LanguageModel(4, 16, cell="lstm", rng=0)
    loss, state = lm.train_step(
        [[0], [1]], [[1], [2]], (np.zeros((1, 1, 16)), np.zeros((1, 1, 16))), optim.Adam()
    )
    lm.sample(state, [0], 3)
    return grad_h0 + loss


def batches(clip: "Clip | None" = "norm") -> float:
    lm = LanguageModel(4, 16, num_layers=2, dropout=0.1, dtype=np.float32, rng=0, recompute_every=2)
    x = np.array([[1, 0], [0, 2], [2, 3]])
    y = np.roll(x, -1, axis=0)
    loss, grads, h_n = lm.loss_and_grads(x, y, reduction="sum")
    for optimizer in (optim.Adam(2e-3), optim.Adagrad(), optim.RMSprop(), Plain()):
        loss, h_n = lm.train_step(x, y, h_n, optimizer, clip=clip, clip_threshold=5)
    assert_type(grads, dict[str, np.ndarray])
    loss, h_n = lm.loss(x.tolist(), y)
    logits, h_n = lm(x, lm.initial_state(2))
    indices, h_n = lm.sample(h_n, [0, 1], 5, temperature=0.8, top_k=3, top_p=0.9, rng=1)
    adam = optim.Adam()
    adam.lr *= 0.5
    state: OptimizerState = adam.state_dict()
    adam.load_state_dict(state)
    return loss + float(logits[0, 0, 0]) + int(indices[0, 0]) + state["step"]


def sequences(head: "HeadName" = "last", loss: "LossName" = "mse") -> float:
    sm = SequenceModel(
        3, 8, 2, num_layers=2, cell="gru", bidirectional=True, dropout=0.1, head=head, loss=loss, dtype="float64",
        rng=np.random.default_rng(0), backend=None, num_threads=1, recompute_every=None,
    )  # fmt: skip
    x, y = np.zeros((5, 4, 3)), [[0.5, 1.0]] * 4
    outputs, h_n = sm(x, lengths=[5, 1, 2, 3])
    assert_type(outputs, np.ndarray)
    outputs, h_n = sm.forward(x, sm.initial_state(4), lengths=None)
    value, grads, h_n = sm.loss_and_grads(
        x, y, h_n, lengths=(5, 1, 2, 3), weights=[1, 0.5, 0, 2], reduction="sum"
    )
    assert_type(value, float)
    assert_type(grads, dict[str, np.ndarray])
    for optimizer in (optim.Adam(2e-3), Plain()):
        value, h_n = sm.train_step(x, y, None, optimizer, weights=np.ones(4), clip="value", clip_threshold=1)
    value, h_n = sm.loss([[0, 1, 2, 2]], y, weights=None)
    name: HeadName = sm.head
    print(name, sm.input_size, sm.output_size, sm.bidirectional, sm.grad_norm, sm.recompute_every)
    steps = SequenceModel(3, 8, 2, cell="lstm", loss="cross_entropy", rng=0)
    outputs, (h_n, c_n) = steps.forward(x, (np.zeros((1, 4, 8)), np.zeros((1, 4, 8))))
    steps.train_step(x, np.zeros((5, 4), int), (h_n, c_n), optim.SGD(0.1), lengths=np.full(4, 3), clip=None)
    assert_type(steps.stepper(2).step([0, 1]), np.ndarray)
    lm = LanguageModel(4, 8, rng=0)
    lm.train_step([[0, 1], [2, 3]], [[1, 2], [3, 0]], None, optim.Adam(), lengths=[2, 1])
    value, h_n = lm.loss([[0, 1], [2, 3]], [[1, 2], [3, 0]], lengths=np.array([2, 1]), reduction="mean")
    return value + float(outputs[0, 0, 0])


def text(folder: Path) -> str:
    model = CharRNN(
        32, seq_len=16, batch_size=4, optimizer="adagrad", lr=0.02, clip="value", epochs=2, max_seconds=60,
        dtype="float32", random_state=np.random.RandomState(0), backend=None, unknown="skip",
        newline="universal", checkpoint=folder / "run.safetensors", verbose=0,
    )  # fmt: skip
    model.fit("the cat sat on the mat. " * 50).fit(["the cat ", b"sat on ", "the mat. "] * 50)
    model.partial_fit("the cat sat on the mat. " * 50)
    with (folder / "text").open("wb+") as file:
        file.write(b"the cat sat on the mat. " * 50)
        file.seek(0)
        model.fit(file)
    model.fit(folder / "text").use_weights("best")
    assert_type(model.generate(12, "the c", temperature=0), str)
    assert_type(model.generate(12, num_samples=3), list[str])
    some = int(model.score("the mat.") < 0)
    assert_type(model.generate(12, num_samples=some), str | list[str])
    last: HistoryEntry = model.history_[-1]
    assert_type(last["valid_nats"], float | None)
    print(last["train_nats"], last.get("diagnostics", {}), model.best_step_, model.model_.num_parameters)
    model.save(str(folder / "model.safetensors"))
    loaded = CharRNN.load(folder / "model.safetensors", lr=0.01).set_params(verbose=0)
    assert_type(loaded, CharRNN)
    codes = loaded.vocabulary_.encode("the cat", unknown=" ")
    try:
        loaded.fit(folder / "missing")
    except fastrnn.TextError as error:
        print(error.message)
    return loaded.vocabulary_.decode(codes) + "".join(loaded.stream(5, stop=[".", "\n"]))


def functions() -> float:
    logits = np.zeros((2, 3))
    assert_type(functional.cross_entropy(logits, [0, 1]), float)
    assert_type(functional.cross_entropy(logits, [0, 1], "none", label_smoothing=0.1), np.ndarray)
    grads = {"W": functional.cross_entropy_backward(logits, [0, 1], weight=[1, 2, 3])}
    functional.clip_grad_value(grads, 5.0)
    norm = functional.clip_grad_norm([grads["W"]], 5.0)
    parameters = {"weight_ih": np.zeros((4, 3)), "weight_hh": np.zeros((4, 4))}
    output, h_n = functional.rnn_forward([[0], [1]], None, parameters, nonlinearity="tanh", lengths=[2])
    functional.rnn_backward(None, h_n, [[0], [1]], None, output, parameters, lengths=[2], reverse=False)
    return norm + float(functional.softmax(logits).sum()) + int(functional.sample(logits, rng=0)[0])


def measures(model: "Model") -> None:
    flow = diagnostics.gradient_flow(model, [1, 0, 2, 2], [0, 2, 2, 3], reduction="sum")
    memory = diagnostics.jacobian_norms(model, [0, 1] * 10, method="exact", on_progress=print)
    print(flow.total.shape, flow.reach, memory.half_life, diagnostics.spectral_radius(np.eye(3)))
    print(diagnostics.spectrum(model).eigenvalues, diagnostics.singular_values(model)[0])
    print(diagnostics.saturation(model, [0, 1]).stuck, diagnostics.hidden_states(model, [0, 1]).labels)
    report = diagnostics.clip_report(model, [1, 0], [0, 2], threshold=0.1)
    summary = diagnostics.training_summary(model, [1, 0], [0, 2], clip="step")
    print(report.changed["norm"], summary["dead"], diagnostics.gradcheck(model, [1, 0], [0, 2]).worst.name)


def set_up() -> "BackendName":
    with fastrnn.use_backend("numpy"):
        assert_type(fastrnn.show_config(), None)
        print(fastrnn.show_config(mode="dict")["versions"])
        fastrnn.warmup("float32", verbose=False)
    fastrnn.set_backend(None)
    return fastrnn.backend()


if __name__ == "__main__":
    print(notes_class(1), layer().shape, gated_layers().shape, batches(), sequences(), functions(), set_up())
    measures(SimpleRNN(4, 32, 4, rng=0))
    with tempfile.TemporaryDirectory() as name:
        print(text(Path(name)))
