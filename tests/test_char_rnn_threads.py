"""One `CharRNN` in several threads: whom a training refuses, and that what is refused changes nothing."""

import contextlib
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import bits

from fastrnn import CharRNN
from fastrnn import char_rnn as char_rnn_module
from fastrnn.optim import SGD
from fastrnn.sharing import being_read
from fastrnn.text import training as training_module

TEXT = "the cat sat on the mat. and the dog ran off. " * 40
REFUSED = "in use by another thread|being changed by another thread"

#: Whatever reads a model.
READERS = {
    "score": lambda m: m.score(TEXT),
    "bits_per_char": lambda m: m.bits_per_char(TEXT),
    "perplexity": lambda m: m.perplexity(TEXT),
    "generate": lambda m: m.generate(40, "the", random_state=1),
    "samples": lambda m: m.generate(20, num_samples=3, random_state=1, stop="off"),
    "stream": lambda m: "".join(m.stream(30, random_state=2)),
    "last_weights_": lambda m: bits(*m.last_weights_.values()),
    "model_": lambda m: bits(m.model_.forward([[0], [1]])[0]),
}

#: Whatever changes one.
CHANGERS = {
    "fit": lambda m: m.fit(TEXT),
    "resumed": lambda m: m.set_params(epochs=3).fit(TEXT, resume=True),
    "partial_fit": lambda m: m.partial_fit(TEXT),
    "use_weights": lambda m: m.use_weights("best"),
}

# fit says that what follows is in no file.
pytestmark = pytest.mark.filterwarnings("ignore:checkpoint is None")


def small(**params):
    defaults = {"hidden_size": 12, "seq_len": 8, "batch_size": 4, "random_state": 0, "epochs": 2}
    return CharRNN(**defaults | {"validate_every": 20, "num_threads": 1, "verbose": 0} | params)


def result(model):
    """All that a training gives."""
    return (
        bits(*model.last_weights_.values(), *model.best_weights_.values(), model.start_state_),
        [{k: v for k, v in entry.items() if k != "chars_per_second"} for entry in model.history_],
    )


def in_a_thread(call):
    """What a call gives in another thread, or its error."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        return future.exception() or future.result()


def refused(call):
    error = in_a_thread(call)
    return isinstance(error, RuntimeError) and "by another thread" in str(error)


@contextlib.contextmanager
def another_thread_reads(model):
    entered, left = threading.Event(), threading.Event()

    def read():
        with being_read(model, "read"):
            entered.set()
            left.wait()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(read)
        entered.wait()
        try:
            yield
        finally:
            left.set()


# -- readers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANGERS)
@pytest.mark.parametrize("of", ["CharRNN", "LanguageModel"])
def test_a_change_while_others_read_changes_nothing(name, of):
    model = small().fit(TEXT)
    if name == "resumed":
        model.set_params(epochs=3).use_weights("best")
    other, before = copy.deepcopy(model), pickle.dumps(model)
    if (name, of) == ("fit", "LanguageModel"):
        with another_thread_reads(model.model_):
            CHANGERS[name](model)  # makes another one, which nobody reads
    else:
        with another_thread_reads(model if of == "CharRNN" else model.model_):
            with pytest.raises(RuntimeError, match=REFUSED):
                CHANGERS[name](model)
            assert pickle.dumps(model) == before
        CHANGERS[name](model)
    CHANGERS[name](other)
    assert (result(model), model.weights_) == (result(other), other.weights_)


@pytest.mark.parametrize("name", ["score", "generate", "stream", "samples"])
def test_the_network_is_read_along(name):
    model = small().fit(TEXT)
    lm, seen = model.model_, []

    def train():
        lm.train_step([[0], [1]], [[1], [0]], None, SGD(0.1))

    def asked(method):
        def call(*args, **kwargs):
            seen.append(refused(train))
            return method(*args, **kwargs)

        return call

    wanted = READERS[name](model)
    lm.loss, lm.forward = asked(lm.loss), asked(lm.forward)
    if name in ("generate", "samples"):
        lm.sample = asked(lm.sample)
    prompt = {"prompt": "the cat"} if name == "stream" else None
    got = "".join(model.stream(30, random_state=2, **prompt)) if prompt else READERS[name](model)
    assert seen
    assert all(seen)
    assert prompt or got == wanted
    del lm.loss, lm.forward
    train()


def test_a_file_is_of_one_moment(tmp_path, monkeypatch):
    model = small().fit(TEXT)
    real = char_rnn_module.write_checkpoint

    def write(*args):
        assert refused(lambda: model.partial_fit(TEXT))
        assert refused(lambda: model.model_.load_state_dict(model.best_weights_))
        assert in_a_thread(lambda: model.step_) == model.step_
        real(*args)

    monkeypatch.setattr(char_rnn_module, "write_checkpoint", write)
    model.save(tmp_path / "m")
    assert result(CharRNN.load(tmp_path / "m")) == result(model)


def test_a_stream_goes_on_with_the_network_that_it_began_with():
    model = small().fit(TEXT)
    wanted = model.generate(200, random_state=3)
    stream = model.stream(200, random_state=3)
    begun = [next(stream) for _ in range(5)]
    model.set_params(random_state=1).fit(TEXT)
    assert "".join(begun + [*stream]) == wanted


# -- training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fit", "resumed", "partial_fit"])
@pytest.mark.few(3)
def test_training_beside_eight_readers(call, backend, tmp_path, monkeypatch):
    alone, model = small(backend=backend).fit(TEXT), small(backend=backend).fit(TEXT)
    CHANGERS[call](alone)
    begun, over = threading.Event(), threading.Event()
    refusals = [0] * 8
    real = training_module.Training.train

    def train(self):
        begun.set()
        real(self)
        for _ in range(1000):  # so that each has come by before it ends
            if all(refusals):
                break
            over.wait(0.01)

    def save(m):
        m.save(tmp_path / f"{threading.get_ident()}")

    def go_on(i):
        begun.wait()
        while not over.is_set():
            for read in [*READERS.values(), save, CHANGERS["use_weights"]]:
                try:
                    read(model)
                except RuntimeError as error:
                    if "by another thread" not in str(error):
                        raise
                    refusals[i] += 1

    monkeypatch.setattr(training_module.Training, "train", train)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(go_on, i) for i in range(8)]
        try:
            CHANGERS[call](model)
        finally:
            begun.set()
            over.set()
        for future in futures:
            future.result()
    assert all(refusals)
    assert result(model) == result(alone)


@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_nobody_sees_the_network_before_its_training_has_it(call, monkeypatch):
    model, seen = small(), []
    real = training_module.Training

    def training(*args, **kwargs):
        seen.append(refused(lambda: model.model_.forward([[0]])))
        return real(*args, **kwargs)

    monkeypatch.setattr(char_rnn_module, "Training", training)
    CHANGERS[call](model)
    assert seen == [True]
    assert not refused(lambda: model.model_.forward([[0]]))


def test_the_thread_that_trains_may_come_in_again(tmp_path, monkeypatch):
    model = small(checkpoint=tmp_path / "m", checkpoint_every=7)
    real, scores = char_rnn_module.write_checkpoint, []

    def write(*args):
        real(*args)
        scores.append(model.score("the cat sat on the mat"))
        model.use_weights("last")
        assert model.generate(3, temperature=0)
        assert len(model.last_weights_) == 6
        assert refused(lambda: model.score(TEXT))
        assert in_a_thread(lambda: model.step_) == model.step_

    monkeypatch.setattr(char_rnn_module, "write_checkpoint", write)
    model.fit(TEXT)
    assert len(scores) > 2
    assert result(model) == result(small().fit(TEXT))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_lets_others_in_again(error, monkeypatch):
    model = small().fit(TEXT)

    def train(self):
        raise error

    monkeypatch.setattr(training_module.Training, "train", train)
    with pytest.raises(error):
        model.partial_fit(TEXT)
    monkeypatch.undo()
    assert isinstance(in_a_thread(lambda: model.score(TEXT)), float)
    assert isinstance(in_a_thread(lambda: model.partial_fit(TEXT)), CharRNN)


# -- copies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fitted", [False, True])
def test_what_is_noted_of_calls_is_in_no_copy(fitted):
    model = small()
    if fitted:
        model.fit(TEXT)
    with another_thread_reads(model):
        data = pickle.dumps(model)
        copies = [pickle.loads(data), copy.copy(model), copy.deepcopy(model)]
        with contextlib.suppress(ImportError):
            from sklearn.base import clone

            copies.append(clone(model))
    assert b"_sharing" not in data
    for other in copies:
        assert "_sharing" not in vars(other)
        assert other._sharing is not model._sharing
        assert not other._sharing.reads
        assert other.fit(TEXT).step_ > 0
