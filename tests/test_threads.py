"""Parts of a batch on several threads: the same bits on any number, errors, forks, the end of a program."""

import ctypes
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import threadpoolctl
from support import bits, run_python

from fastrnn import GRU, LSTM, RNN, LanguageModel, backends, optim, threads


@pytest.fixture
def nothing_is_small(small_work_shared):
    """Share batches of any size, so that small and quick ones test it."""


def batch(q, T, N, seed=0):
    x = np.random.default_rng(seed).integers(q, size=(T, N))
    return x, np.roll(x, -1, axis=0)


def trained(num_threads, N, *, steps=3, T=5, seed=0, **options):
    """Everything that some training steps return and leave behind."""
    lm = LanguageModel(7, 12, rng=seed, num_threads=num_threads, **options)
    adam, h, got = optim.Adam(0.01, backend=options.get("backend")), None, []
    for step in range(steps):
        loss, h = lm.train_step(*batch(7, T, N, seed + step), h, adam, clip_threshold=0.1)
        got += [loss, lm.grad_norm, h.copy()]
    return bits(*got, *lm.grads.values(), *lm.parameters.values())


# Parts


def test_parts_cover_the_batch():
    for N in (*range(1, 400), 1000, 4097):
        bounds = threads.parts(N)
        assert [0, *[stop for _, stop in bounds]] == [*[start for start, _ in bounds], N]
        sizes = [stop - start for start, stop in bounds]
        assert len(sizes) in (1, 2, 4, 8, 16)
        assert min(sizes) >= min(N, 8)
        assert max(sizes) <= max(16, min(sizes) + 15)
        assert all(size % 8 == 0 for size in sizes[:-1])
        assert max(sizes) <= 23 or len(sizes) == 16


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("N", [32, 48, 64, 96, 128, 160, 256])
def test_threads_get_equal_shares(N, workers):
    """Each free thread takes the next part; none ends later than by one small part."""
    ends = [0] * workers
    for start, stop in threads.parts(N):
        ends[ends.index(min(ends))] += stop - start
    if len(threads.parts(N)) >= workers:
        assert max(ends) - min(ends) <= 8


def test_small_work_stays_on_the_calling_thread():
    assert threads.workers(16, threads.SMALL - 1, 16) == 1
    assert threads.workers(1, 1e12, 16) == 1
    assert threads.workers(4, 1e12, 16) == 4
    assert threads.workers(16, 1e12, 3) == 3
    assert threads.workers(16, 1e12, None) == min(16, threads.usable_cores())


# Cores


# `run`


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_run_calls_each_part_once(count, workers):
    calls, busy, clashes = [], [threading.Lock() for _ in range(workers)], []

    def function(part, slot):
        if not busy[slot].acquire(blocking=False):
            clashes.append(slot)
        time.sleep(0.0001)
        calls.append((part, slot))
        busy[slot].release()

    threads.run(function, count, workers)
    assert sorted(part for part, _ in calls) == list(range(count))
    assert not clashes


def test_run_uses_other_threads():
    """Two parts that wait for each other end only when they run at the same time."""
    both = threading.Barrier(2)
    threads.run(lambda part, slot: both.wait(timeout=30), 2, 2)


def test_run_inside_run():
    done = []
    threads.run(lambda part, slot: threads.run(lambda *inner: done.append((part, *inner)), 3, 3), 4, 4)
    assert sorted((outer, inner) for outer, inner, _ in done) == [(i, j) for i in range(4) for j in range(3)]


@pytest.mark.parametrize("error", [ValueError, MemoryError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("in_helper", [False, True])
def test_the_first_error_is_raised_when_all_have_stopped(in_helper, error):
    both, running, begun = threading.Barrier(2), [], []

    def function(part, slot):
        begun.append(part)
        running.append(part)
        try:
            if part < 2:
                both.wait(timeout=30)
            if part < 2 and (slot > 0) == in_helper:
                raise error("this one")
            time.sleep(0.05)
        finally:
            running.remove(part)

    with pytest.raises(error, match="this one"):
        threads.run(function, 50, 2)
    assert not running
    assert len(begun) < 10, "no part begins after an error"
    threads.run(lambda part, slot: None, 4, 2)  # and the helpers are still there
    test_run_uses_other_threads()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to one thread")
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_an_interrupt_waits_for_the_helpers(error):
    """Ctrl-C, or a signal whose handler raises, while the calling thread waits: helpers still write to its
    arrays."""
    main, both, ended = threading.main_thread(), threading.Barrier(2), []
    assert threading.current_thread() is main

    def handler(number, frame):
        raise error("from the handler")

    def function(part, slot):
        both.wait(timeout=30)
        if slot:
            time.sleep(0.1)  # the calling thread waits now
            signal.pthread_kill(main.ident, signal.SIGINT)
            time.sleep(0.1)
            ended.append(part)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(error, match="from the handler"):
            threads.run(function, 2, 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(ended) == 1


def test_without_threads_the_caller_does_all(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_helpers", [])
    monkeypatch.setattr(threading.Thread, "start", refuse)
    slots = []
    threads.run(lambda part, slot: slots.append(slot), 9, 4)
    assert slots == [0] * 9


def test_a_helper_that_comes_late_finds_nothing(monkeypatch):
    """Offers that nobody takes in time do not run anything later, and do not hold the caller's arrays."""
    gate, calls = threading.Event(), []
    job = threads._Job(lambda part, slot: gate.wait(30), 1)
    threads._offer(job, len(threads._helpers) or 1)  # every helper is busy
    for _ in range(len(threads._helpers) - 1):
        threads._offer(threads._Job(lambda part, slot: gate.wait(30), 1), len(threads._helpers))
    try:
        threads.run(lambda part, slot: calls.append(slot), 3, 2)
        assert calls == [0] * 3
    finally:
        gate.set()
    test_run_uses_other_threads()
    assert calls == [0] * 3


class Ended(BaseException):
    """What somebody throws into a thread to end it."""


def throw(thread):
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Ended))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_helper_that_dies_is_replaced():
    threads.run(lambda part, slot: None, 4, 3)
    for helper in threads._helpers:
        throw(helper)
    threads._offer(threads._Job(lambda part, slot: None, 1), len(threads._helpers))  # it wakes them
    for helper in threads._helpers:
        helper.join(timeout=30)
        assert not helper.is_alive()
    test_run_uses_other_threads()
    names = [helper.name for helper in threads._helpers]
    assert len(set(names)) == len(names)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_exception_thrown_into_a_helper_at_work_is_raised():
    both, release = threading.Barrier(2), threading.Event()

    def function(part, slot):
        both.wait(timeout=30)
        if slot:
            throw(threading.current_thread())
        else:
            release.wait(timeout=0.05)

    with pytest.raises(Ended):
        threads.run(function, 2, 2)
    test_run_uses_other_threads()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("where", ["entered", "left", "news"])
def test_an_error_between_the_statements_of_a_helper_does_not_hang_the_caller(where, monkeypatch):
    """The bookkeeping itself fails, as it does where memory is short or somebody ends the thread."""
    failed = threading.Event()

    def fail(self, item):
        failed.set()
        raise Ended

    class Failing(threads._Job):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            kind = type(getattr(self, where))  # only helpers append to them and put into it
            setattr(self, where, type("Fails", (kind,), {"append": fail, "put": fail})())

    def function(part, slot):
        if not slot:
            failed.wait(timeout=30)

    monkeypatch.setattr(threads, "_Job", Failing)
    with pytest.raises(Ended):
        threads.run(function, 2, 2)
    monkeypatch.undo()
    test_run_uses_other_threads()


# Whether a team pays


def tried(times, calls, monkeypatch, most=2):
    """How many threads each of `calls` calls had, where one takes ``times(call, members)`` seconds."""
    clock, had, trial = [0.0], [], threads.Trial()
    monkeypatch.setattr(threads.time, "perf_counter", lambda: clock[0])
    for call in range(calls):
        had.append(trial.begin(most))
        clock[0] += times(call, had[-1])
        trial.end(1.0)
    return had


@pytest.mark.parametrize(("team", "taken"), [(0.6, 2), (1.1, 1), (3.0, 1)])
def test_the_faster_way_is_taken_and_the_other_tried_again(team, taken, monkeypatch):
    had = tried(lambda call, members: team if members > 1 else 1.0, 600, monkeypatch)
    assert had[:3] == [2, 2, 1]
    others = [call for call in range(3, 600) if had[call] != taken]
    assert 5 <= len(others) <= 600 / threads.AGAIN + 10
    assert others[-1] > 300, "the other way is not forgotten"


def test_one_slow_call_does_not_decide_and_many_do(monkeypatch):
    had = tried(lambda call, members: 50.0 if call == 100 else 0.6 if members > 1 else 1.0, 200, monkeypatch)
    assert sum(members == 2 for members in had[101:]) > 85
    monkeypatch.undo()
    had = tried(lambda call, members: (0.6 if call < 100 else 2.0) if members > 1 else 1.0, 200, monkeypatch)
    assert sum(members == 1 for members in had[120:]) > 70


def test_teams_are_for_what_is_worth_it(monkeypatch):
    assert threads.team(10 * threads.SHARE, 1000, None) == min(threads.usable_cores(), 10)
    monkeypatch.setattr(threads, "usable_cores", lambda: 16)
    assert threads.team(1.9 * threads.SHARE, 1000, None) == 1
    assert threads.team(3 * threads.SHARE, 1000, None) == 3
    assert threads.team(1e9, 1000, None, count=3) == 5
    assert threads.team(1e9, 1000, None, count=100) == 1
    assert threads.grid(4, 1e9, 1e6, 100, 5) == 4, "a team of 5 for each part in turn would take longer"
    assert threads.grid(4, 1e9, 1e6, 100, 6) == 6
    assert threads.sweep(3 * threads.SWEEP, 2) == 2


# Models


@pytest.mark.usefixtures("nothing_is_small")
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "dropout": 0.3}, {"recompute_every": 2}])
@pytest.mark.parametrize("N", [1, 16, 17, 50, 70, 200])
def test_training_gives_the_same_bits_on_any_number_of_threads(N, options, dtype, backend):
    options = {**options, "dtype": dtype, "backend": backend}
    wanted = trained(1, N, **options)
    for num_threads in (2, 3, 16, None):
        assert trained(num_threads, N, **options) == wanted, num_threads


@pytest.mark.parametrize("N", [32, 50])
def test_the_same_bits_where_work_is_not_small(N, backend):
    """As users meet it, at the usual threshold: BLAS is held to one thread whoever calls it."""
    results = []
    for num_threads in (1, 2, 5):
        lm = LanguageModel(65, 128, rng=0, num_threads=num_threads, backend=backend)
        x, y = batch(65, 20, N)
        assert 3 * 20 * N * 128 * (128 + 65) > threads.SMALL
        loss, grads, h_n = lm.loss_and_grads(x, y)
        results.append(bits(loss, h_n, *grads.values()))
    assert results[0] == results[1] == results[2]


@pytest.mark.usefixtures("nothing_is_small")
def test_inference_gives_the_same_bits_on_any_number_of_threads(dtype, backend):
    results = []
    for num_threads in (1, 2, 7):
        lm = LanguageModel(7, 12, 2, rng=0, num_threads=num_threads, dtype=dtype, backend=backend)
        x, y = batch(7, 6, 70)
        results.append(
            bits(
                *lm.forward(x),
                *lm.loss(x, y),
                *lm.sample(None, x[0], 9, rng=1),
                *lm.sample(None, x[0], 9, rng=1, top_k=3, temperature=0.7),
            )
        )
    assert results[0] == results[1] == results[2]


@pytest.mark.few(4)
@pytest.mark.usefixtures("nothing_is_small")
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("N", [1, 3, 17])
def test_a_team_gives_the_bits_of_one_thread(N, cell, dtype, backend):
    """Of a size that no tile, panel or share fits; ragged, in both directions, and as a language model."""
    T, h, rng = 6, 515, np.random.default_rng(N)
    x, lengths = rng.normal(size=(T, N, 9)), rng.integers(1, T + 1, N)

    def results(num_threads):
        options = {"dtype": dtype, "rng": 0, "backend": backend, "num_threads": num_threads}
        found = []
        for given in (None, lengths):
            layer = {"rnn": RNN, "gru": GRU, "lstm": LSTM}[cell](9, h, bidirectional=True, **options)
            y, _ = layer.forward(x.astype(dtype), lengths=given)
            dx, _ = layer.backward(np.cos(y))
            found += [y, dx, *layer.grads.values()]
        lm = LanguageModel(7, h, cell=cell, **options)
        loss, _ = lm.train_step(*batch(7, T, N), None, optim.Adam(0.01, backend=backend))
        return bits(*found, loss, lm.grad_norm, *lm.parameters.values())

    wanted = results(1)
    for num_threads in (2, 3, 5):
        assert results(num_threads) == wanted, num_threads


def test_num_threads_can_be_changed(backend):
    lm = LanguageModel(65, 128, rng=0, num_threads=1, backend=backend)
    x, y = batch(65, 20, 64)
    wanted = bits(*lm.loss(x, y))
    lm.num_threads = 4
    assert bits(*lm.loss(x, y)) == wanted
    assert lm.num_threads == 4
    for bad in (0, -1, 1.5, "2", True):
        with pytest.raises((TypeError, ValueError), match="num_threads"):
            lm.num_threads = bad
    assert lm.num_threads == 4


@pytest.mark.usefixtures("nothing_is_small")
def test_an_error_in_a_part_leaves_the_model_as_it_was(backend, monkeypatch):
    """And the next step gives what it would have given."""
    wanted = trained(2, 50, backend=backend)
    kernels = backends.load(backend)
    real, lm = kernels.layer_backward, LanguageModel(7, 12, rng=0, num_threads=2, backend=backend)
    before, sgd = bits(*lm.parameters.values()), optim.SGD(0.1, backend=backend)

    def broken(*arguments):
        rows = arguments[8]
        if rows[0] == 16 or len(rows) > 2:  # the second part, or all of them
            raise MemoryError("in a part")
        return real(*arguments)

    monkeypatch.setattr(kernels, "layer_backward", broken)
    for _ in range(20):
        with pytest.raises(MemoryError, match="in a part"):
            lm.train_step(*batch(7, 5, 50), None, sgd)
    monkeypatch.setattr(kernels, "layer_backward", real)
    assert bits(*lm.parameters.values()) == before
    adam, h, got = optim.Adam(0.01, backend=backend), None, []
    for step in range(3):
        loss, h = lm.train_step(*batch(7, 5, 50, step), h, adam, clip_threshold=0.1)
        got += [loss, lm.grad_norm, h.copy()]
    assert bits(*got, *lm.grads.values(), *lm.parameters.values()) == wanted


@pytest.mark.usefixtures("nothing_is_small")
@pytest.mark.parametrize("what", ["Generator", "PCG64DXSM"])
def test_an_error_while_work_space_is_made_leaves_it_usable(what, backend, monkeypatch):
    """Each thread has its buffer and its random stream, also where there was no memory for one of them."""
    options = {"num_layers": 2, "dropout": 0.3, "num_threads": 2, "backend": backend}
    lm, other = (LanguageModel(7, 12, rng=0, **options) for _ in range(2))
    wanted = other.loss_and_grads(*batch(7, 5, 50))
    state = lm.rng.bit_generator.state

    def fail(*arguments):
        raise MemoryError("no stream")

    real = getattr(np.random, what)
    monkeypatch.setattr(np.random, what, fail)
    with pytest.raises(MemoryError, match="no stream"):
        lm.loss_and_grads(*batch(7, 5, 50))
    monkeypatch.setattr(np.random, what, real)
    lm.rng.bit_generator.state = state
    loss, grads, h_n = lm.loss_and_grads(*batch(7, 5, 50))
    assert bits(loss, *grads.values(), h_n) == bits(wanted[0], *wanted[1].values(), wanted[2])


@pytest.mark.usefixtures("nothing_is_small")
def test_models_in_several_python_threads(backend):
    """Each its own, all at once, over helpers that they share."""
    wanted = [trained(1, 50, seed=seed, steps=10, backend=backend) for seed in range(4)]
    got, errors = [None] * 4, []

    def train(seed):
        try:
            got[seed] = trained(3, 50, seed=seed, steps=10, backend=backend)
        except Exception as error:  # noqa: BLE001 - shown below
            errors.append(error)

    several = [threading.Thread(target=train, args=(seed,)) for seed in range(4)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join(120)
    assert not errors
    assert got == wanted


# BLAS


def blas_threads():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


def test_blas_is_held_to_one_thread_until_the_last_one_is_done():
    before = blas_threads()
    with threads.one_blas_thread():
        assert set(blas_threads()) <= {1}
        with threads.one_blas_thread():
            assert set(blas_threads()) <= {1}
        assert set(blas_threads()) <= {1}
    assert blas_threads() == before
    with pytest.raises(KeyError), threads.one_blas_thread():
        raise KeyError
    assert blas_threads() == before


def test_a_blas_that_is_loaded_later_is_held_as_well():
    """SciPy has a BLAS of its own, which comes after NumPy's was looked for; and in the middle of a hold."""
    pytest.importorskip("scipy")
    code = (
        PROLOGUE_OF_BLAS
        + """
with threads.one_blas_thread():
    assert set(blas_threads()) <= {1}
first = len(blas_threads())
with threads.one_blas_thread():
    import scipy.linalg
    with threads.one_blas_thread():
        assert set(blas_threads()) <= {1}, blas_threads()
assert len(blas_threads()) > first, "SciPy brought no BLAS: this tests nothing"
before = blas_threads()
with threads.one_blas_thread():
    assert set(blas_threads()) <= {1}, blas_threads()
assert blas_threads() == before
assert max(before) > 1
"""
    )
    done = run_python("-c", code, OPENBLAS_NUM_THREADS="3", OMP_NUM_THREADS="3")
    if "this tests nothing" in done.stderr:
        pytest.skip("NumPy and SciPy share a BLAS here")
    assert done.returncode == 0, done.stderr


def test_blas_gets_its_threads_back_from_whichever_thread_leaves_last():
    code = (
        PROLOGUE_OF_BLAS
        + """
import threading

def last():
    with threads.one_blas_thread():
        entered.set()
        left.wait(60)

before, entered, left = blas_threads(), threading.Event(), threading.Event()
assert max(before) > 1
thread = threading.Thread(target=last)
with threads.one_blas_thread():
    thread.start()
    assert entered.wait(60)
left.set()
thread.join()
assert blas_threads() == before, blas_threads()
"""
    )
    done = run_python("-c", code, OPENBLAS_NUM_THREADS="3", OMP_NUM_THREADS="3")
    assert done.returncode == 0, done.stderr


PROLOGUE_OF_BLAS = """
import numpy
import threadpoolctl

from fastrnn import threads

def blas_threads():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
"""


def test_libraries_are_looked_for_only_when_something_was_imported(monkeypatch):
    looked = []
    monkeypatch.setattr(threadpoolctl, "ThreadpoolController", lambda: looked.append(1) or Library())
    monkeypatch.setattr(threads, "_blas_found", (None, []))
    for _ in range(3):
        assert len(threads._blas_libraries()) == 1
    assert len(looked) == 1
    monkeypatch.setitem(sys.modules, "another_one", threads)
    threads._blas_libraries()
    assert len(looked) == 2


@pytest.mark.few(0)
def test_holding_blas_does_not_wait_for_a_thread_that_imports():
    """Whose loader holds the GIL and waits for a lock of the system's."""
    pytest.importorskip("scipy")
    code = """
import faulthandler, importlib, pkgutil, threading
faulthandler.dump_traceback_later(60, exit=True)
import scipy
from fastrnn import threads

done = threading.Event()

def hold():
    while not done.is_set():
        with threads.one_blas_thread():
            pass

holder = threading.Thread(target=hold, daemon=True)
holder.start()
for module in pkgutil.walk_packages(scipy.__path__, "scipy.", onerror=lambda name: None):
    if "test" not in module.name:
        try:
            importlib.import_module(module.name)
        except Exception:
            pass
done.set()
holder.join()
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


class Library:
    """One that an interrupt meets as it is told its number of threads."""

    filepath = "libblas.so"

    def __init__(self):
        self.threads, self.interrupts = 4, []

    def select(self, user_api):
        self.lib_controllers = [self] if user_api == "blas" else []
        return self

    def get_num_threads(self):
        return self.threads

    def set_num_threads(self, n):
        self.threads = n
        if n in self.interrupts:
            self.interrupts.remove(n)
            raise KeyboardInterrupt


@pytest.mark.parametrize("when", [1, 4], ids=["entering", "leaving"])
def test_an_interrupt_does_not_leave_blas_with_one_thread(when, monkeypatch):
    library = Library()
    monkeypatch.setattr(threads, "_blas_libraries", lambda: [library])
    library.interrupts = [when]
    with pytest.raises(KeyboardInterrupt), threads.one_blas_thread():
        assert library.threads == 1
    assert library.threads == 4
    assert threads._blas_before is None
    with threads.one_blas_thread():
        assert library.threads == 1
    assert library.threads == 4


def test_blas_gets_its_threads_back_where_an_interrupt_kept_a_user_from_leaving(monkeypatch):
    library, interrupted = Library(), threads.one_blas_thread()
    monkeypatch.setattr(threads, "_blas_libraries", lambda: [library])
    interrupted.__enter__()
    monkeypatch.setattr(threads, "_blas_lock", None)  # what comes before the first statement
    with pytest.raises(TypeError):
        interrupted.__exit__(None, None, None)
    del interrupted
    monkeypatch.undo()
    monkeypatch.setattr(threads, "_blas_libraries", lambda: [library])
    assert library.threads == 1
    with threads.one_blas_thread():
        assert library.threads == 1
    assert library.threads == 4


def test_blas_is_held_in_the_parts_of_a_batch(monkeypatch):
    kernels, seen = backends.load("numpy"), []
    real = kernels.output_loss

    def looks(*arguments):
        seen.extend(blas_threads())
        return real(*arguments)

    before = blas_threads()
    monkeypatch.setattr(kernels, "output_loss", looks)
    for num_threads in (1, 2):
        LanguageModel(65, 128, rng=0, num_threads=num_threads, backend="numpy").loss_and_grads(
            *batch(65, 20, 64)
        )
    assert set(seen) <= {1}
    assert blas_threads() == before


# Programs

PROLOGUE = """
import os, sys, threading, warnings
import numpy as np
from fastrnn import LanguageModel, optim, threads
warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which is what is tested
threads.SMALL, threads.SHORT, threads.SHARE, threads.SWEEP, threads.TRIED = 0, 0, 1, 1, False

def train(steps=3):
    lm = LanguageModel(7, 12, rng=0, num_threads=4)
    sgd, h = optim.SGD(0.1), None
    x = np.random.default_rng(0).integers(7, size=(5, 64))
    for _ in range(steps):
        loss, h = lm.train_step(x, np.roll(x, -1, axis=0), h, sgd)
    return loss, [W.tobytes() for W in lm.parameters.values()]

def in_child(*wanted):
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os._exit(0 if all(train() == w for w in wanted) else 3)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
"""

FORKS = {
    "before the first use": """
child = os.fork()
if not child:
    os._exit(0 if train() == train() else 3)
assert os.waitpid(child, 0)[1] == 0
wanted = train()
""",
    "after it": "wanted = train()\nin_child(wanted)\nassert train() == wanted\nin_child(wanted)",
    "in a child": """
wanted = train()
child = os.fork()
if not child:
    in_child(wanted)
    os._exit(0 if train() == wanted else 3)
assert os.waitpid(child, 0)[1] == 0
""",
    "while another thread trains": """
wanted, stop = train(), threading.Event()
def go_on():
    while not stop.is_set():
        train()
other = threading.Thread(target=go_on)
other.start()
try:
    for _ in range(20):
        in_child(wanted)
finally:
    stop.set()
    other.join()
""",
}


@pytest.mark.few(2)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("when", FORKS)
def test_fork(when, backend, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROLOGUE + FORKS[when] + "\nprint('done')\n", encoding="utf-8")
    ran = run_python(program, FASTRNN_BACKEND=backend)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("done\n", "", 0)


ENDS = {
    "with helpers that wait": "print(len(train()))",
    "in a function called at exit": "import atexit\ntrain()\natexit.register(lambda: print(len(train())))",
    "with the first use at exit": "import atexit\natexit.register(lambda: print(len(train())))",
    "in a thread that outlives the main one": (
        "import time\nthreading.Thread(target=lambda: (time.sleep(0.3), print(len(train())))).start()"
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_program_ends(how, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROLOGUE + ENDS[how] + "\n", encoding="utf-8")
    ran = run_python("-W", "error", program)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("2\n", "", 0)


def test_importing_starts_no_thread(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, threading\nfrom fastrnn import RNN, LanguageModel\nRNN(2, 3), LanguageModel(2, 3)\n"
        "print(threading.active_count(), 'threadpoolctl' in sys.modules)",
        encoding="utf-8",
    )
    assert run_python(program).stdout == "1 False\n"


@pytest.mark.skipif(sys.platform != "linux", reason="affinity as Linux has it")
def test_the_default_follows_the_affinity(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os\nfrom fastrnn import threads\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\nprint(threads.workers(16, 1e12, None))",
        encoding="utf-8",
    )
    assert run_python(program).stdout == "1\n"


@pytest.mark.usefixtures("nothing_is_small")
def test_layers_of_a_copy_and_its_original_do_not_share_buffers(backend):
    """A pickled or copied layer has its own work space."""
    import copy

    x = np.random.default_rng(0).normal(size=(5, 50, 3))
    rnn = RNN(3, 8, 2, rng=0, num_threads=2, backend=backend)
    output, _ = rnn.forward(x)
    twin = copy.deepcopy(rnn)
    with pytest.raises(RuntimeError, match="forward"):
        twin.backward(output)
    twin.forward(x * 2)
    wanted = rnn.backward(output)
    rnn.forward(x)
    assert bits(*rnn.backward(output)) == bits(*wanted)
