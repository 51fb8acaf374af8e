"""Long runs: training on real text, threads, determinism, memory."""

import concurrent.futures
import gc
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from support import assert_close, bits, growth, pair, parameters, sequence

from fastrnn import ReferenceRNN, SimpleRNN, use_backend

#: At 0.1, gradients summed over 25 characters overshoot and the run is chaotic: one unit in the last
#: place of one weight moves the weights after a thousand steps by 3.  At 0.03 it learns, and moves by 1e-13.
LEARNING_RATE = 0.03

TEXT = Path(__file__).resolve().parents[2] / "shared" / "data" / "tinyshakespeare.txt"


@pytest.fixture(scope="module")
def text():
    if not TEXT.exists():
        pytest.skip("the real text lies beside the project in ../shared/data, and is not there")
    characters = TEXT.read_text(encoding="utf-8")[:200_000]
    vocabulary = sorted(set(characters))
    index = {c: i for i, c in enumerate(vocabulary)}
    return np.array([index[c] for c in characters]), len(vocabulary)


def train(rnn, codes, steps, T, lr):
    """min-char-rnn's loop: consecutive chunks, the state carried along."""
    h = np.zeros((rnn.hidden_size, 1))
    losses = []
    for step in range(steps):
        start = step * T % (len(codes) - T - 1)
        loss, h = rnn.train_step(codes[start : start + T], codes[start + 1 : start + T + 1], h, lr)
        losses.append(loss)
    return losses, h


@pytest.fixture(scope="module")
def trained_reference(text):
    codes, size = text
    reference = ReferenceRNN(size, 32, size, rng=1)
    return reference, *train(reference, codes, 1000, 25, LEARNING_RATE)


@pytest.mark.few(2)
def test_a_thousand_steps_on_real_text(text, trained_reference, backend):
    codes, size = text
    reference, wanted_losses, wanted_h = trained_reference
    rnn = SimpleRNN(size, 32, size, rng=1, backend=backend)
    start = [W.copy() for W in parameters(rnn)]
    losses, h = train(rnn, codes, 1000, 25, LEARNING_RATE)
    for W, wanted, first in zip(parameters(rnn), parameters(reference), start, strict=True):
        assert np.abs(W - wanted).max() < 1e-8
        assert np.abs(W - first).max() > 0.1
    assert np.abs(h - wanted_h).max() < 1e-8
    assert np.abs(np.subtract(losses, wanted_losses)).max() < 1e-7
    assert np.mean(losses[-100:]) < 0.75 * np.mean(losses[:20])
    assert rnn.sample(h, 0, 200, rng=2) == reference.sample(wanted_h, 0, 200, rng=np.random.default_rng(2))


def test_the_three_calls_train_as_the_one(text, backend):
    """forward, backward and update_weights, as the notes call them, over 200 chunks."""
    codes, size = text
    fused = SimpleRNN(size, 20, size, rng=1, backend=backend)
    three = SimpleRNN(size, 20, size, rng=1, backend=backend)
    train(fused, codes, 200, 25, LEARNING_RATE)
    h = np.zeros((20, 1))
    for start in range(0, 5000, 25):
        xs, hs, ps = three.forward(codes[start : start + 25], h)
        three.update_weights(three.backward(xs, hs, ps, codes[start + 1 : start + 26]), LEARNING_RATE)
        h = hs[24]
    for a, b in zip(parameters(fused), parameters(three), strict=True):
        assert_close(a, b, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["step", "value", "norm"])
def test_ten_thousand_steps(text, clip, dtype, backend):
    codes, size = text
    rnn = SimpleRNN(size, 100, size, rng=1, dtype=dtype, backend=backend)
    h = np.zeros((100, 1))
    smooth = np.log(size) * 25
    for step in range(10_000):
        start = step * 25 % (len(codes) - 26)
        loss, h = rnn.train_step(codes[start : start + 25], codes[start + 1 : start + 26], h, 0.02, clip=clip)
        smooth += 0.001 * (loss - smooth)
    assert smooth < 25 * 2.3


def everything(rnn, args):
    """Bits of all that one model computes."""
    xs, hs, ps = rnn.forward(args[0], args[2])
    loss, grads, h_last = rnn.loss_and_grads(*args)
    more = rnn.backward(xs, hs, ps, args[1])
    return bits(hs.array, ps.array, *more, loss, *grads, h_last, rnn.sample(args[2], 0, 50, rng=0))


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("T", [5, 100])
def test_same_bits_each_time(T, real, dtype, backend):
    """Whatever was computed before with the same object, and wherever the arrays lie."""
    rnn, _ = pair(9, 37, 9, backend=backend, dtype=dtype)
    args = sequence(T, 9, 37, 9, dtype=dtype, real=real)
    first = everything(rnn, args)
    for other_T in (1, 300, 70):
        rnn.loss_and_grads(*sequence(other_T, 9, 37, 9, dtype=dtype))
        assert everything(rnn, args) == first
    for offset in range(1, 4):
        moved, _ = pair(9, 37, 9, backend=backend, dtype=dtype)
        buffer = np.zeros(37 * 37 + 8, dtype)
        moved.Whh = buffer[offset : offset + 37 * 37].reshape(37, 37)
        moved.Whh[...] = rnn.Whh
        assert everything(moved, args) == first


@pytest.mark.few(2)
def test_different_objects_in_different_threads(dtype, backend):
    """Eight models, each trained in its own thread at the same time, and one after the other."""

    def work(seed):
        rnn, _ = pair(11, 40, 11, backend=backend, dtype=dtype, seed=seed)
        args = sequence(60, 11, 40, 11, dtype=dtype, seed=seed)
        for _ in range(25):
            rnn.train_step(*args, lr=0.01)
        return everything(rnn, args)

    wanted = [work(seed) for seed in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == wanted


def test_the_first_call_in_many_threads(backend):
    """Nobody has called this size before: all threads meet at the first call."""
    barrier = threading.Barrier(6)

    def work(_):
        rnn, _ = pair(3, 41, 3, backend=backend)
        barrier.wait()
        return everything(rnn, sequence(33, 3, 41, 3))

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert len({repr(r) for r in pool.map(work, range(6))}) == 1


def test_backends_agree_in_one_object():
    """An object without a backend of its own follows use_backend from call to call."""
    rnn, _ = pair(7, 30, 7, backend=None)
    args = sequence(70, 7, 30, 7)
    with use_backend("numpy"):
        _, wanted, _ = rnn.loss_and_grads(*args)
    for W, g in zip(wanted, rnn.loss_and_grads(*args)[1], strict=True):
        assert_close(g, W)


def objects_and_bytes(call):
    """Objects that live on because of the result, bytes it holds, and the highest use meanwhile."""
    call()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        tracemalloc.reset_peak()
        base, _ = tracemalloc.get_traced_memory()
        result = call()
        held, peak = tracemalloc.get_traced_memory()
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    mine = tracemalloc.Filter(False, tracemalloc.__file__)
    growth = after.filter_traces([mine]).compare_to(before.filter_traces([mine]), "filename")
    del result
    return sum(d.count_diff for d in growth), held - base, peak - base


@pytest.mark.few(3)
@pytest.mark.parametrize("method", ["forward", "backward", "loss_and_grads"])
def test_memory_is_of_the_order_of_the_states(method, dtype, backend):
    """T (h + q) numbers in a few arrays; the count of objects does not depend on T."""
    d, h, q = 5, 40, 10
    size = np.dtype(dtype).itemsize
    objects = {}
    for T in (100, 5_000):
        rnn = SimpleRNN(d, h, q, rng=0, dtype=dtype, backend=backend)
        inputs, targets, h_prev = sequence(T, d, h, q, dtype=dtype)
        steps = rnn.forward(inputs, h_prev)
        call = {
            "forward": lambda r=rnn, i=inputs, h0=h_prev: r.forward(i, h0),
            "backward": lambda r=rnn, s=steps, c=targets: r.backward(*s, c),
            "loss_and_grads": lambda r=rnn, i=inputs, h0=h_prev, c=targets: r.loss_and_grads(i, c, h0),
        }[method]
        objects[T], held, peak = objects_and_bytes(call)
        weights = rnn.num_parameters * size
        if method == "forward":
            wanted = T * (h + q) * size + T * 8  # states, probabilities, indices
            assert held < 1.1 * wanted + 20_000
            assert held > 0.9 * T * (h + q) * size
        else:
            assert held < 2 * weights + 20_000
        # Besides: the checked indices, and for the NumPy backend a few arrays like the states.
        assert peak < (6 if backend == "numpy" else 2) * (T * (h + q) * size + T * 16) + 4 * weights + 100_000
    assert abs(objects[5_000] - objects[100]) < 20


def test_buffers_do_not_grow_from_step_to_step(backend):
    rnn, _ = pair(6, 30, 6, backend=backend)
    args = sequence(50, 6, 30, 6)

    def steps():
        for _ in range(100):
            rnn.train_step(*args)

    _, kept = growth(steps)
    assert kept < 2000
