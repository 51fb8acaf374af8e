"""Ranks that are not at the same thing, and what ends a training on all of them; after each they go on together."""

import os
import signal
import threading
import warnings

import numpy as np
from common import digest, ranks, refused, tell

from fastrnn import CharRNN, LanguageModel, RNNRegressor, distributed
from fastrnn.optim import SGD
from fastrnn.text import training

comm = ranks()
text = "To be, or not to be, that is the question: " * 20


def small(**more):
    return CharRNN(8, **{"seq_len": 4, "batch_size": 4, "verbose": 0, "comm": comm, "random_state": 0} | more)


told = {}
one = small()
if comm.rank == 0:
    one.set_params(comm=None).partial_fit(text)
    one.set_params(comm=comm)
told["other run"] = refused(lambda: one.partial_fit(text))
told["other characters"] = refused(
    lambda: small().partial_fit("to be " * 9, vocabulary="to be" + "xy"[comm.rank])
)
x = np.zeros((3, 2), int)
apart = distributed.mpi(sync_every=1 + comm.rank)
told["other sync_every"] = refused(
    lambda: LanguageModel(3, 4, rng=0).train_step(x, x, None, SGD(lr=1), comm=apart)
)

# Warnings that are errors.
X = np.random.default_rng(0).normal(size=(60, 5))
with warnings.catch_warnings():
    warnings.simplefilter("error")
    wild = RNNRegressor(4, lr=1e300, optimizer="sgd", clip=None, dtype="float64", comm=comm, epochs=3)
    told["warned"] = refused(lambda: wild.fit(X, X[:, 0]))
    told["diverged"] = refused(lambda: small(lr=1e308, optimizer="sgd", clip=None).fit(text))

# An error that all share leaves a run that can be kept, and goes on to the same bits.
whole = small(max_steps=60, validation_fraction=0.0).fit(text)
part = small(max_steps=60, validation_fraction=0.0, diagnostics_every=20)
record = training.Training._record
training.Training._record = lambda self, *_: self._group.of_root(lambda: [][0])
told["broken"] = refused(lambda: part.fit(text))
training.Training._record = record
stopped = part.step_
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # there is no checkpoint
    part.fit(text, resume=True)
told["goes on"] = [stopped, digest(part.last_weights_) == digest(whole.last_weights_)]

generator = np.random.default_rng(0)
fits = [RNNRegressor(4, epochs=1, random_state=generator, comm=comm).fit(X, X[:, 0]) for _ in range(2)]
told["generator"] = digest(fits[0].model_.parameters) != digest(fits[1].model_.parameters)

# Neither a clock nor Ctrl-C waits for an average.
rare = distributed.mpi(sync_every=10**6)
timed = small(epochs=None, max_seconds=0.3, comm=rare).fit(text)
told["timed"] = [timed.step_ < 10**6, digest(timed.last_weights_)]


def interrupted(function):
    threading.Timer(0.3 + 0.1 * comm.rank, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        function()
    except KeyboardInterrupt:
        # Who has heard of the other's may have its own still to come.
        threading.Event().wait(0.5)
        return "interrupted"


def catching(function):
    try:
        return interrupted(function)
    except KeyboardInterrupt:
        return "interrupted"


endless = RNNRegressor(4, epochs=10**6, patience=None, comm=comm)
told["Ctrl-C"] = [catching(lambda: endless.fit(X, X[:, 0])), comm.each(comm.rank)]
told["many"] = len({repr(distributed.mpi()) for _ in range(3000)})
tell(comm, told)
