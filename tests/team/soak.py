"""Random calls in several threads, with forks, signals and stops in between: python soak.py CALLS SEED.

Prints how many calls there were, and ends with status 0 when all gave what they give on one thread.  Whoever runs
it sees to the time: a hang does not end.
"""

import os
import random
import signal
import sys
import threading
import time

import numpy as np

from fastrnn import GRU, LSTM, RNN, LanguageModel, SimpleRNN, backends, optim, threads

CALLS, SEED = int(sys.argv[1]), int(sys.argv[2])
KERNELS = backends.load("cython")

# However small the work is, it is shared, for 1 to 5 threads, whatever that costs.
threads.SHORT, threads.SHARE, threads.SWEEP, threads.TRIED = 0, 1, 1, False


def numbers(*results):
    return [np.asarray(result).tobytes() for result in results]


def train(seed, members):
    rng = np.random.default_rng(seed)
    N, h = int(rng.choice([1, 3, 16, 17, 40])), int(rng.choice([9, 64, 130]))
    cell = str(rng.choice(["rnn", "gru", "lstm"]))
    lm = LanguageModel(20, h, cell=cell, rng=seed, num_threads=members, backend="cython")
    x, y = rng.integers(20, size=(2, 12, N))
    loss, _ = lm.train_step(x, y, None, optim.Adam(0.01, backend="cython"))
    drawn, _ = lm.sample(None, x[0], 5, rng=1)
    return numbers(loss, drawn, *lm.parameters.values())


def layer(seed, members):
    rng = np.random.default_rng(seed)
    N, h = int(rng.choice([1, 2, 17, 33])), int(rng.choice([9, 64, 130]))
    kind = (RNN, GRU, LSTM)[rng.integers(3)]
    rnn = kind(7, h, 2, bidirectional=bool(rng.integers(2)), rng=seed, num_threads=members, backend="cython")
    y, _ = rnn.forward(rng.normal(size=(11, N, 7)), lengths=rng.integers(1, 12, N))
    dx, _ = rnn.backward(np.cos(y))
    return numbers(y, dx, *rnn.grads.values())


def simple(seed, members):
    rng = np.random.default_rng(seed)
    rnn = SimpleRNN(20, int(rng.choice([9, 64, 200])), 20, rng=seed, backend="cython")
    h = np.zeros((rnn.hidden_size, 1))
    loss, h = rnn.train_step(list(rng.integers(20, size=30)), list(rng.integers(20, size=30)), h)
    return numbers(loss, h, rnn.Whh, rnn.sample(h, 3, 10, rng=2))


KINDS = train, layer, simple
SEEDS = range(40)
threads.usable_cores = lambda: 1
WANTED = {(kind, seed): kind(seed, 1) for kind in KINDS for seed in SEEDS}

wrong, done, handled = [], [], []
lock = threading.Lock()


def call(chance):
    kind, seed, members = chance.choice(KINDS), chance.choice(SEEDS), chance.randint(1, 5)
    threads.usable_cores = lambda: members  # what num_threads=None takes
    if kind(seed, members) != WANTED[kind, seed]:
        wrong.append((kind.__name__, seed, members))
    done.append(None)


def work(number):
    chance = random.Random(SEED * 100 + number)
    while len(done) < CALLS and not wrong:
        call(chance)
        if number == 0 and chance.random() < 0.01:
            settings(chance)
        if chance.random() < 0.02:
            fork(chance)


def settings(chance):
    """Teams that go on however late a member is, or are dissolved soon."""
    KERNELS.team_settings(chance.choice([0.0, 5.0, 50.0]), chance.choice([-1.0, 0.0, 200.0]))


def fork(chance):
    with lock:
        child = os.fork()
        if not child:
            signal.alarm(120)  # a child that hangs ends, with a status that says so
            for _ in range(3):
                call(chance)
            os._exit(3 if wrong else 0)
        _, status = os.waitpid(child, 0)
        if status:
            wrong.append(("child", status, 0))


def disturb(parent):
    """In another process: signals, and stops of the whole."""
    chance = random.Random(SEED)
    while os.getppid() == parent:
        time.sleep(chance.random() * 0.05)
        os.kill(parent, signal.SIGUSR1)
        if chance.random() < 0.3:
            os.kill(parent, signal.SIGSTOP)
            time.sleep(chance.random() * 0.02)
            os.kill(parent, signal.SIGCONT)
    os._exit(0)


signal.signal(signal.SIGUSR1, lambda *_: handled.append(None))
disturber = os.fork()
if not disturber:
    disturb(os.getppid())
workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
os.kill(disturber, signal.SIGKILL)
os.waitpid(disturber, 0)
print(f"{len(done)} calls, {len(handled)} signals, {KERNELS.team_numbers()}, wrong: {wrong[:5]}")
sys.exit(1 if wrong else 0)
