"""One model in many threads: who reads goes on, who comes too late is refused, and nothing is mixed up."""

import copy
import functools
import gc
import itertools
import os
import pickle
import signal
import tempfile
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support import run_python

from fastrnn import RNN, CharRNN, LanguageModel, SequenceModel, SimpleRNN, diagnostics, optim
from fastrnn.sharing import changed, changing, reading

THREADS = 8
TEXT = "the quick brown fox jumps over the lazy dog. " * 12
REFUSED = "another thread"


def at_once(calls, threads=THREADS):
    """Results of calls that begin together, in their order; an error takes the place of its result."""
    together = threading.Barrier(threads)
    queues = [calls[i::threads] for i in range(threads)]

    def work(queue):
        together.wait(30)
        results = []
        for call in queue:
            try:
                results.append(call())
            except RuntimeError as error:
                results.append(error)
        return results

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(work, queues))
    return [found[i % threads][i // threads] for i in range(len(calls))]


def same(a, b):
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if hasattr(a, "array"):  # what `SimpleRNN.forward` returns
        return same(np.asarray(a.array), np.asarray(b.array))
    if isinstance(a, np.random.Generator):
        return a.bit_generator.state == b.bit_generator.state
    if hasattr(a, "__dict__"):  # what diagnostics return
        return type(a) is type(b) and same(vars(a), vars(b))
    return np.array_equal(a, b, equal_nan=isinstance(a, float))


class Inside:
    """Keeps a thread inside a call until the block ends: `wait` is to be called there."""

    def __init__(self, call):
        self.entered, self.leave = threading.Event(), threading.Event()
        self.call, self.thread, self.result = call, threading.Thread(target=self.run), None

    def run(self):
        self.result = self.call(self.wait)

    def wait(self, *arguments):
        self.entered.set()
        assert self.leave.wait(60)

    def __enter__(self):
        self.thread.start()
        assert self.entered.wait(60)
        return self

    def __exit__(self, *error):
        self.leave.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


class Waiting:
    """An optimizer that waits in the middle of `train_step`."""

    def __init__(self, wait):
        self.step = lambda parameters, grads: wait()


def diagnosing(model, x, y):
    """Every function of the diagnostics that takes such a model, but `gradcheck`, which changes its weights."""
    for name in (
        "clip_report",
        "gradient_flow",
        *(() if isinstance(model, RNN) else ["training_summary"]),
    ):
        yield functools.partial(getattr(diagnostics, name), model, x, y)
    for name in ("hidden_states", "jacobian_norms", "saturation"):
        yield functools.partial(getattr(diagnostics, name), model, x)
    for name in ("singular_values", "spectral_radius", "spectrum"):
        yield functools.partial(getattr(diagnostics, name), model)


def simple_readers(backend, dtype):
    rnn = SimpleRNN(9, 20, 9, rng=0, dtype=dtype, backend=backend)
    g, calls = np.random.default_rng(0), []
    for T in (1, 3, 17, 60):
        x, y, h = g.integers(0, 9, T), g.integers(0, 9, T), g.normal(size=(20, 1))
        steps = rnn.forward(x, h)
        calls += [
            functools.partial(rnn.forward, x, h),
            functools.partial(rnn.backward, *steps, y),
            functools.partial(rnn.loss_and_grads, x, y, h),
            functools.partial(rnn.sample, h, 0, T, rng=T),
        ]
    return rnn, [*calls, lambda: rnn.stepper().step(3), *diagnosing(rnn, x[:9], y[:9])]


def layer_readers(backend, dtype):
    rnn = RNN(5, 16, 2, bidirectional=True, rng=0, dtype=dtype, backend=backend)
    g = np.random.default_rng(0)
    calls = [functools.partial(rnn.forward, g.normal(size=(T, N, 5))) for T, N in ((1, 1), (7, 3), (4, 40))]
    calls += [functools.partial(rnn.forward, g.integers(0, 5, (6, 2)), lengths=[6, 2]), rnn.state_dict]
    calls += [
        functools.partial(rnn, g.normal(size=(2, 2, 5))),
        *diagnosing(rnn, g.normal(size=(6, 2, 5)), g.normal(size=(6, 2, 32))),
    ]
    return rnn, calls


def language_readers(backend, dtype):
    lm = LanguageModel(9, 16, 2, rng=0, dtype=dtype, backend=backend, recompute_every=4)
    g, calls = np.random.default_rng(0), [lm.state_dict]
    for T, N in ((1, 1), (7, 3), (5, 40)):
        x, y = g.integers(0, 9, (T, N)), g.integers(0, 9, (T, N))
        calls += [
            functools.partial(lm.forward, x),
            functools.partial(lm.loss, x, y),
            functools.partial(lm.sample, None, x[0], T, rng=T),
        ]
    x, y = g.integers(0, 9, (6, 2)), g.integers(0, 9, (6, 2))
    return lm, [*calls, lambda: lm.stepper(2).step([1, 5]), functools.partial(lm, x), *diagnosing(lm, x, y)]


def sequence_readers(backend, dtype):
    sm = SequenceModel(
        5, 16, 3, 2, cell="gru", bidirectional=True, head="mean", loss="gaussian", rng=0, dtype=dtype, backend=backend
    )  # fmt: skip
    g, calls = np.random.default_rng(0), [sm.state_dict]
    for T, N in ((1, 1), (7, 3), (5, 40)):
        x, y, lengths = g.normal(size=(T, N, 5)), g.normal(size=(N, 3)), g.integers(1, T + 1, N)
        calls += [
            functools.partial(sm.forward, x),
            functools.partial(sm, x, lengths=lengths),
            functools.partial(sm.loss, x, y, lengths=lengths, weights=g.random(N)),
            functools.partial(sm.loss, g.integers(0, 5, (T, N)), y),
        ]
    return sm, calls


def last_readers(backend, dtype):
    """Of one direction, with steps, and chunks of time steps."""
    sm = SequenceModel(5, 16, 3, 2, head="last", rng=0, dtype=dtype, backend=backend, recompute_every=3)
    g, calls = np.random.default_rng(0), [lambda: sm.stepper(2).step([1, 4])]
    for T, N in ((1, 1), (7, 3), (8, 40)):
        x, y, lengths = g.normal(size=(T, N, 5)), g.normal(size=(N, 3)), g.integers(1, T + 1, N)
        calls += [functools.partial(sm.forward, x, lengths=lengths), functools.partial(sm.loss, x, y)]
        calls += [functools.partial(sm.loss, x, y, lengths=lengths)]
    return sm, calls


def char_readers(backend, dtype):
    model = CharRNN(
        12, seq_len=8, batch_size=4, epochs=1, dtype=dtype, backend=backend, random_state=0, verbose=0,
        diagnostics_every=None,
    ).fit(TEXT)  # fmt: skip
    return model, [
        functools.partial(model.generate, 30, "fox", random_state=1),
        functools.partial(model.generate, 20, num_samples=3, random_state=2, stop="e"),
        lambda: "".join(model.stream(25, random_state=3)),
        functools.partial(model.score, TEXT),
        functools.partial(model.bits_per_char, TEXT[:50]),
        functools.partial(model.perplexity, TEXT[:80]),
        lambda: model.last_weights_,
        lambda: saved(model),
        functools.partial(diagnostics.diagnose, model, TEXT[:90]),
    ]


def saved(model):
    """What is in the file that `save` writes."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model")
        read = CharRNN.load(f"{folder}/model")
    return read.last_weights_, read.history_, read.start_state_, read.vocabulary_


READERS = {
    "SimpleRNN": simple_readers,
    "RNN": layer_readers,
    "LanguageModel": language_readers,
    "SequenceModel": sequence_readers,
    "SequenceModel of the last steps": last_readers,
    "CharRNN": char_readers,
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", READERS)
def test_readers_get_what_one_thread_gets(name, backend, dtype):
    model, calls = READERS[name](backend, dtype)
    wanted = [call() for call in calls]
    found = at_once(calls * THREADS)
    assert [i for i, result in enumerate(found) if not same(result, wanted[i % len(calls)])] == []


#: What a class offers besides that reads and changes nothing that a call of another thread works on.
FREE = {
    SimpleRNN: set(),
    RNN: {"train", "eval"},
    LanguageModel: {"train", "eval", "initial_state"},
    SequenceModel: {"train", "eval", "initial_state"},
    CharRNN: {"get_params", "set_params", "load"},
}


@pytest.mark.parametrize("cls", FREE)
def test_no_method_was_forgotten(cls):
    methods = {n: m for n in dir(cls) if not n.startswith("_") and callable(m := getattr(cls, n))}
    # What `reading` and `changing` made keeps the method that it stands for.
    assert {name for name, method in methods.items() if not hasattr(method, "__wrapped__")} == FREE[cls]


def test_no_function_of_the_diagnostics_was_forgotten():
    functions = [getattr(diagnostics, n) for n in diagnostics.__all__ if n.islower()]
    assert len(functions) == 11
    assert all(hasattr(function, "__wrapped__") for function in functions)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_ten_thousand_calls(name, backend):
    model, calls = READERS[name](backend, "float32")
    wanted = [call() for call in calls]
    found = at_once(calls * -(-10_000 // len(calls)))
    assert sum(not same(result, wanted[i % len(calls)]) for i, result in enumerate(found)) == 0


def changers():
    """Of each class a model, a call that changes it, and how to be inside of one."""
    x = np.array([[0, 1], [2, 3]])
    lm = LanguageModel(4, 8, rng=0)
    yield (
        lm,
        lambda: lm.train_step(x, x, None, optim.SGD(0.1)),
        lambda wait: lm.train_step(x, x, None, Waiting(wait)),
    )
    yield lm, lambda: lm.loss_and_grads(x, x), lambda wait: lm.train_step(x, x, None, Waiting(wait))
    yield (
        lm,
        lambda: lm.load_state_dict(lm.state_dict()),
        lambda wait: lm.train_step(x, x, None, Waiting(wait)),
    )
    sm, y = SequenceModel(4, 8, 4, loss="cross_entropy", rng=0), x
    for change in (
        lambda: sm.train_step(x, y, None, optim.SGD(0.1)),
        lambda: sm.loss_and_grads(x, y, lengths=[2, 1]),
        lambda: sm.load_state_dict(sm.state_dict()),
    ):
        yield sm, change, lambda wait: sm.train_step(x, y, None, Waiting(wait))
    model = CharRNN(4, seq_len=4, batch_size=1, epochs=1, verbose=0, diagnostics_every=None).fit(
        "hello world " * 9
    )

    def fitted(change):
        def inside(wait):
            waiting = itertools.chain([wait], itertools.repeat(lambda: None))

            class Waits(LanguageModel):
                def initial_state(self, N):
                    next(waiting)()
                    return super().initial_state(N)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("fastrnn.char_rnn.LanguageModel", Waits)
                return change()

        return inside

    yield model, lambda: model.fit("hello " * 9), fitted(lambda: model.fit("hello world " * 9))
    yield model, lambda: model.partial_fit("hello " * 9), fitted(lambda: model.fit("hello world " * 9))
    yield model, lambda: model.use_weights("last"), fitted(lambda: model.fit("hello world " * 9))


@pytest.mark.parametrize("which", range(9))
def test_who_comes_while_a_model_is_changed_is_refused(which):
    model, change, inside = list(changers())[which]
    if isinstance(model, CharRNN):
        reads = [lambda: model.generate(3), lambda: model.score("hello"), lambda: next(model.stream(3)),
                 lambda: diagnostics.diagnose(model, "hello world " * 5)]  # fmt: skip
        weights = model.model_.parameters
    else:
        x = [[0], [1]]
        reads = [lambda: model.forward(x), lambda: model.loss(x, x), model.state_dict,
                 lambda: diagnostics.spectrum(model)]  # fmt: skip
        reads += [lambda: model.sample(None, [0], 3)] if isinstance(model, LanguageModel) else [model.stepper]
        weights = model.parameters
    with Inside(inside):
        before = {name: W.copy() for name, W in weights.items()}
        for call in (*reads, change):
            with pytest.raises(RuntimeError, match=REFUSED):
                call()
        assert same(before, weights)
    change()  # and afterwards as if nothing had been
    for call in reads:
        call()


def test_a_change_is_refused_while_others_read():
    rnn, lm = SimpleRNN(4, 8, 4, rng=0), LanguageModel(4, 8, rng=0)
    layer, sm = RNN(4, 8, rng=0), SequenceModel(4, 8, 2, head="last", rng=0)
    layer.forward(np.ones((2, 1, 4)))
    h, x = np.zeros((8, 1)), np.array([[0], [1]])
    changes = [
        (rnn, lambda: rnn.train_step([0], [1], h)),
        (
            rnn,
            lambda: rnn.update_weights(
                [np.ones_like(W) for W in (rnn.Wxh, rnn.Whh, rnn.Why, rnn.bh, rnn.by)]
            ),
        ),
        (lm, lambda: lm.train_step(x, x, None, optim.SGD(0.1))),
        (lm, lambda: lm.loss_and_grads(x, x)),
        (lm, lambda: lm.load_state_dict(LanguageModel(4, 8, rng=1).state_dict())),
        (layer, lambda: layer.backward(None, np.ones((1, 1, 8)))),
        (layer, lambda: layer.load_state_dict(RNN(4, 8, rng=1).state_dict())),
        (sm, lambda: sm.train_step(x, [[1.0, 2.0]], None, optim.SGD(0.1))),
        (sm, lambda: sm.load_state_dict(SequenceModel(4, 8, 2, rng=1).state_dict())),
    ]
    for model, change in changes:
        before = pickle.dumps(model)
        with Inside(lambda wait, model=model: reading(lambda self: wait())(model)):
            with pytest.raises(RuntimeError, match=REFUSED):
                change()
            assert pickle.dumps(model) == before
        change()
        assert pickle.dumps(model) != before or change is changes[3][1] or change is changes[5][1]


def racing(name, backend):
    """A new model, a call that changes it, one that reads it, and all that a call may change."""
    x = np.array([[0, 1], [2, 3], [1, 0]])
    if name == "SimpleRNN":
        rnn, h = SimpleRNN(4, 8, 4, rng=0, backend=backend), np.zeros((8, 1))
        return rnn, lambda: rnn.train_step(x[:, 0], x[:, 1], h), lambda: rnn.loss_and_grads([0], [1], h)
    if name == "RNN":
        rnn, other = RNN(4, 8, rng=0, backend=backend), RNN(4, 8, rng=1)
        return rnn, lambda: rnn.load_state_dict(other.state_dict()), lambda: rnn.forward(x)
    if name == "SequenceModel":
        sm, y = SequenceModel(4, 8, 2, 2, dropout=0.5, head="mean", rng=0, backend=backend), np.ones((2, 2))
        return sm, lambda: sm.train_step(x, y, None, optim.SGD(0.1))[0], lambda: sm.loss(x, y, lengths=[1, 3])
    lm = LanguageModel(4, 8, 2, dropout=0.5, rng=0, backend=backend)
    return lm, lambda: lm.train_step(x, x, None, optim.SGD(0.1))[0], lambda: lm.loss(x, x)


@pytest.mark.parametrize("name", ["SimpleRNN", "RNN", "LanguageModel", "SequenceModel"])
def test_changes_that_meet_go_on_alone_or_not_at_all(name, backend):
    model, change, read = racing(name, backend)
    results = at_once([change, read, read] * 150)
    refused = [result for result in results if isinstance(result, RuntimeError)]
    assert all(REFUSED in str(error) for error in refused)
    done = sum(not isinstance(result, RuntimeError) for result in results[::3])
    other, change, _ = racing(name, backend)
    for _ in range(done):
        change()
    assert same(contents(model), contents(other))


def contents(model):
    """All that a call may change, the random stream of dropout included."""
    names = ("Wxh", "Whh", "Why", "bh", "by") if isinstance(model, SimpleRNN) else ("parameters", "grads")
    return [getattr(model, name) for name in names if hasattr(model, name)] + [getattr(model, "rng", None)]


def test_a_thread_that_changes_a_model_keeps_out_every_method():
    rnn, layer, h = SimpleRNN(4, 8, 4, rng=0), RNN(4, 8, rng=0), np.zeros((8, 1))
    steps = rnn.forward([0, 1], h)
    grads = rnn.backward(*steps, [1, 2])
    layer.forward([[0], [1]])
    calls = {
        rnn: [
            lambda: rnn.forward([0], h), lambda: rnn.backward(*steps, [1, 2]), lambda: rnn.sample(h, 0, 2),
            lambda: rnn.loss_and_grads([0], [1], h), lambda: rnn.train_step([0], [1], h),
            lambda: rnn.update_weights(grads), *diagnosing(rnn, [0, 1], [1, 0]),
        ],
        layer: [
            lambda: layer.forward([[0]]), lambda: layer([[0]]), lambda: layer.backward(np.ones((2, 1, 8))),
            layer.state_dict, lambda: layer.load_state_dict({}), *diagnosing(layer, [[0], [1]], np.ones((2, 1, 8))),
        ],
    }  # fmt: skip
    np.random.seed(0)
    for model, methods in calls.items():
        before, stream = pickle.dumps(model), np.random.get_state()[2]
        with Inside(lambda wait, model=model: changing(lambda self: wait())(model)):
            for call in methods:
                with pytest.raises(RuntimeError, match=REFUSED):
                    call()
        assert pickle.dumps(model) == before
        assert np.random.get_state()[2] == stream
    layer.backward(np.ones((2, 1, 8)))  # what was refused has not taken the states of the last forward


@pytest.mark.parametrize("of", ["SimpleRNN", "RNN", "LanguageModel", "CharRNN", "network of a CharRNN"])
def test_gradcheck_has_the_model_to_itself(of):
    """It moves the weights, and puts them back."""
    x = [0, 1, 2]
    if of == "SimpleRNN":
        model, arguments = SimpleRNN(4, 8, 4, rng=0), (x, x)
    elif of == "RNN":
        model, arguments = RNN(4, 8, rng=0), (np.ones((3, 1, 4)), np.ones((3, 1, 8)))
    elif of == "LanguageModel":
        model, arguments = LanguageModel(4, 8, rng=0), (x, x)
    else:
        model = CharRNN(4, seq_len=4, batch_size=1, epochs=1, verbose=0).fit("hello " * 9)
        arguments = ("hello hell",)
    shared = model.model_ if of.startswith("network") else model
    network = getattr(shared, "model_", shared)

    def weights():
        return [W.copy() for W in getattr(network, "parameters", vars(network)).values() if np.ndim(W)]

    before = weights()
    with Inside(lambda wait: reading(lambda self: wait())(shared)):
        with pytest.raises(RuntimeError, match=REFUSED):
            diagnostics.gradcheck(model, *arguments)
        assert same(weights(), before)
    with Inside(lambda wait: changing(lambda self: wait())(shared)):
        with pytest.raises(RuntimeError, match=REFUSED):
            diagnostics.gradcheck(model, *arguments)
        with pytest.raises(RuntimeError, match=REFUSED):
            diagnostics.spectral_radius(model)
    checked = diagnostics.gradcheck(model, *arguments)
    assert checked.ok
    found = at_once([lambda: diagnostics.gradcheck(model, *arguments)] * THREADS)
    assert all(isinstance(result, RuntimeError) or str(result) == str(checked) for result in found)
    assert same(weights(), before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_a_handler_of_a_signal_may_use_a_model():
    """Wherever it comes, also while the guard decides who goes on."""
    code = (
        "import signal, time, numpy as np; from fastrnn import SimpleRNN\n"
        "rnn, h, inside, count = SimpleRNN(4, 8, 4, rng=0), np.zeros((8, 1)), [], [0]\n"
        "def handler(number, frame):\n"
        "    if not inside:\n"
        "        inside.append(1); rnn.train_step([0], [1], h); rnn.forward([0], h); inside.clear(); count[0] += 1\n"
        "signal.signal(signal.SIGALRM, handler); signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)\n"
        "end = time.monotonic() + 1\n"
        "while time.monotonic() < end: rnn.train_step([0], [1], h)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0); print(count[0] > 10)"
    )
    assert run_python("-c", code).stdout == "True\n"


def test_a_refusal_says_what_to_do():
    rnn = SimpleRNN(4, 8, 4, rng=0)
    with Inside(lambda wait: changing(lambda self: wait())(rnn)):
        with pytest.raises(
            RuntimeError, match=r"this SimpleRNN is being changed .* and forward reads it: wait"
        ):
            rnn.forward([0], np.zeros((8, 1)))
        with pytest.raises(
            RuntimeError, match=r"this SimpleRNN is in use .* and train_step changes it: wait"
        ):
            rnn.train_step([0], [1], np.zeros((8, 1)))


def test_the_thread_that_changes_a_model_may_use_it():
    lm, x = LanguageModel(4, 8, rng=0), np.array([[0], [1]])

    class Asking:
        def step(self, parameters, grads):
            self.loss = lm.loss(x, x)[0]
            lm.loss_and_grads(x, x)
            lm.load_state_dict(lm.state_dict())

    asking = Asking()
    lm.train_step(x, x, None, asking)
    assert asking.loss == lm.loss(x, x)[0]


def test_readers_do_not_disturb_a_fit():
    def make():
        return CharRNN(
            8, seq_len=8, batch_size=4, epochs=30, random_state=0, verbose=0, diagnostics_every=None
        )

    wanted = make().fit(TEXT).model_.parameters
    model = make().partial_fit(TEXT)
    refused, over = [], threading.Event()
    calls = [
        lambda: model.generate(3),
        lambda: model.score("the fox"),
        lambda: model.model_.sample(None, [0], 2),
    ]

    def read():
        counts = [0] * len(calls)
        while not over.is_set():
            for i, call in enumerate(calls):
                try:
                    call()
                except RuntimeError as error:
                    counts[i] += REFUSED in str(error)
        refused.append(counts)

    with changed(model, "fit"):  # so that no reader is in when it begins
        readers = [threading.Thread(target=read) for _ in range(THREADS)]
        for thread in readers:
            thread.start()
        model.fit(TEXT)
    over.set()
    for thread in readers:
        thread.join(60)
    assert np.sum(refused, axis=0).all()
    assert same(model.model_.parameters, wanted)


def test_backward_follows_the_last_forward_of_its_thread(backend):
    g = np.random.default_rng(0)
    inputs = [g.normal(size=(5, 3, 4)), g.normal(size=(2, 20, 4))]
    alone = []
    for x in inputs:
        rnn = RNN(4, 8, rng=0, backend=backend)
        output, _ = rnn.forward(x)
        alone.append(rnn.backward(np.ones_like(output)))
    rnn = RNN(4, 8, rng=0, backend=backend)
    with Inside(lambda wait: (rnn.forward(inputs[0]), wait(), rnn.backward(np.ones((5, 3, 8)))[0])) as other:
        rnn.forward(inputs[1])
        assert same(rnn.backward(np.ones((2, 20, 8))), alone[1])
    assert same(other.result[2], alone[0][0])
    errors = []

    def without():
        try:
            rnn.backward(None)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=without)
    thread.start()
    thread.join()
    assert errors == ["backward needs the states of a forward before it, and there was none"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_inside_leaves_nothing_behind(error):
    lm, x = LanguageModel(4, 8, rng=0), np.array([[0], [1]])

    class Failing:
        def step(self, parameters, grads):
            raise error

    for _ in range(3):
        with pytest.raises(error):
            lm.train_step(x, x, None, Failing())
        with pytest.raises(IndexError):
            lm.forward([[9]])
    results = at_once([lambda: lm.forward(x)] * THREADS)
    assert all(same(result, results[0]) for result in results)
    assert at_once([lambda: lm.train_step(x, x, None, optim.SGD(0.1))], 1)[0][0] > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_not_wait_for_threads_that_it_does_not_have():
    lm, x = LanguageModel(4, 8, rng=0), np.array([[0], [1]])
    with Inside(lambda wait: reading(lambda self: wait())(lm)):
        child = os.fork()
        if not child:
            status = 1
            try:
                lm.train_step(x, x, None, optim.SGD(0.1))
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


def test_copies_of_a_model_in_use_are_free():
    for model in (
        SimpleRNN(4, 8, 4, rng=0), RNN(4, 8, rng=0), LanguageModel(4, 8, rng=0), SequenceModel(4, 8, 2, rng=0)
    ):  # fmt: skip
        with Inside(lambda wait, model=model: changing(lambda self: wait())(model)):
            for made in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
                with changed(made, "test"):
                    pass
    fitted = CharRNN(4, seq_len=4, batch_size=1, epochs=1, verbose=0).fit("hello " * 9)
    with changed(fitted, "fit"):
        assert len(at_once([lambda: pickle.loads(pickle.dumps(fitted)).generate(3)], 1)[0]) == 3


def test_work_space_goes_with_its_thread():
    rnn, x = RNN(8, 64, rng=0), np.ones((40, 16, 8), np.float32)

    def use():
        thread = threading.Thread(target=rnn.forward, args=(x,))
        thread.start()
        thread.join()

    use()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(200):
            use()
        gc.collect()
        # 200 spaces that stay would be more than 200 times x.  What Python itself keeps for its
        # next tuples, up to 2000 of each length, is counted too: some 20 KB.
        assert tracemalloc.get_traced_memory()[0] < 10 * x.nbytes
    finally:
        tracemalloc.stop()


def test_no_more_spaces_are_kept_than_calls_ran_at_once():
    lm, x = LanguageModel(4, 8, rng=0), np.array([[0], [1]])
    rnn, h = SimpleRNN(4, 8, 4, rng=0), np.zeros((8, 1))
    layer = RNN(4, 8, rng=0)
    for _ in range(50):
        lm.forward(x)
        rnn.loss_and_grads([0, 1], [1, 2], h)
        for T in (1, 2, 3):
            layer.forward(np.ones((T, 1, 4)))
    assert (len(lm._spaces), len(rnn._spaces)) == (1, 1)
    assert len(layer._spaces) <= 2
    at_once([lambda: lm.forward(x)] * 400)
    at_once([lambda: rnn.forward([0], h)] * 400)
    assert len(lm._spaces) <= THREADS
    assert len(rnn._spaces) <= THREADS


@pytest.mark.parametrize("call", ["loss_and_grads", "train_step"])
def test_memory_of_a_call_is_given_back_when_nothing_reads_it_any_more(call, monkeypatch):
    """Another thread may take it at once, and the last state lies in it."""
    x, h = [0, 1, 2, 3], np.zeros((8, 1))
    wanted = getattr(SimpleRNN(4, 8, 4, rng=0), call)(x, x, h)[-1]
    rnn, real = SimpleRNN(4, 8, 4, rng=0), SimpleRNN._give_space

    def give(self, space, T):
        real(self, space, T)
        if self is rnn:
            monkeypatch.setattr(SimpleRNN, "_give_space", real)
            rnn.forward(x[::-1], h + 1)

    monkeypatch.setattr(SimpleRNN, "_give_space", give)
    assert np.array_equal(getattr(rnn, call)(x, x, h)[-1], wanted)
