"""Batches that one rank refuses, models that are not the same; training goes on after each."""

import copy
import pickle

import numpy as np
from common import digest, ranks, refused, tell

from fastrnn import CharRNN, DistributedError, LanguageModel, cores, distributed
from fastrnn.optim import SGD, Adam

comm = ranks()
X = np.random.default_rng(comm.rank).integers(0, 5, (6, 4))
lm, sgd = LanguageModel(5, 8, rng=comm.rank), SGD(lr=0.1)
lm.train_step(X, X, None, sgd, comm=comm)
before = digest(lm.parameters), lm.rng.bit_generator.state
wrong = X + 5 * (comm.rank == 1)
told = [refused(lambda: lm.train_step(X, wrong, None, sgd, comm=comm))]
told.append(before == (digest(lm.parameters), lm.rng.bit_generator.state))
told.append(refused(lambda: lm.train_step(X[:, : 4 * (comm.rank != 1)], X, None, sgd, comm=comm)))
loss, _ = lm.train_step(X, X, None, sgd, comm=comm)
told.append([loss, digest(lm.parameters)])
other = LanguageModel(5, 8 + comm.rank, rng=0)
told.append(refused(lambda: other.train_step(X, X, None, sgd, comm=comm)))
lm = LanguageModel(5, 8, rng=0)
told.append(refused(lambda: lm.train_step(X, X, None, (SGD if comm.rank else Adam)(lr=0.1), comm=comm)))
told.append(refused(lambda: comm.together(lambda: 1 // comm.rank)))
told.append(refused(lambda: comm.of_root(lambda: [][0])))
told.append(comm.of_root(lambda: "of rank 0"))
model = CharRNN(8, seq_len=4, batch_size=1, verbose=0, comm=comm)
told.append(refused(lambda: model.fit("hello world")))
assert copy.deepcopy(comm) is copy.copy(comm) is comm
assert copy.deepcopy(model).comm is comm
assert pickle.loads(pickle.dumps(model)).comm is None
assert pickle.loads(pickle.dumps(comm)) is None
told.append(repr(comm))
told.append(cores.usable_cores())
told.append(refused(lambda: distributed.mpi("world")))
assert issubclass(distributed.DistributedError, RuntimeError)
assert distributed.DistributedError is DistributedError
tell(comm, told)
