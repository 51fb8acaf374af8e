"""Training steps of every model on all ranks, beside those of one process over the whole batch.

Arguments: the backend, the number of steps, the dtype.  Tells for each case the largest relative difference of the losses, and the
digest of the weights.
"""

import sys

import numpy as np
from common import digest, ranks, tell

import fastrnn
from fastrnn import LanguageModel, SequenceModel
from fastrnn.optim import Adam

backend, steps, dtype = sys.argv[1], int(sys.argv[2]), sys.argv[3]
comm = ranks()
fastrnn.set_backend(backend)
random = np.random.default_rng(0)
T, N, q = 9, 37, 7


def language_models():
    X = random.integers(0, q, (T + 1, N))
    Y = X[1:].copy()
    Y[random.random(Y.shape) < 0.2] = -100
    lengths = random.integers(1, T + 1, N)
    for cell in ("rnn", "gru", "lstm"):
        for more in ({}, {"lengths": lengths}):
            yield (
                lambda seed, cell=cell: LanguageModel(
                    q, 12, 2, cell=cell, dropout=0.3, dtype=dtype, rng=seed
                ),
                X[:-1],
                Y,
                more,
            )
    yield (
        lambda seed: LanguageModel(q, 12, 2, dropout=0.3, dtype=dtype, rng=seed, recompute_every=4),
        X[:-1],
        Y,
        {},
    )


def sequence_models():
    X = random.normal(size=(T, N, 3)).astype(dtype)
    lengths, weights = random.integers(1, T + 1, N), random.random(N) * 10.0 ** random.integers(-6, 6, N)
    for head, loss in (("each", "gaussian"), ("last", "cross_entropy"), ("mean", "mse")):
        shape = (T, N) if head == "each" else (N,)
        Y = (
            random.integers(0, 2, shape)
            if loss == "cross_entropy"
            else random.normal(size=(*shape, 2)).astype(dtype)
        )
        for more in (
            {"lengths": lengths},
            {"lengths": lengths, "weights": weights},
            {"weights": np.arange(N) < 2},
        ):
            yield (
                lambda seed, head=head, loss=loss: SequenceModel(
                    3,
                    10,
                    2,
                    2,
                    head=head,
                    loss=loss,
                    cell="gru",
                    bidirectional=True,
                    dropout=0.2,
                    dtype=dtype,
                    rng=seed,
                ),
                X,
                Y,
                more,
            )
    yield (
        lambda seed: SequenceModel(3, 10, 2, head="last", loss="mse", dtype=dtype, rng=seed),
        X[:, :1],
        Y[:1],
        {},
    )


def cut(array, start, stop):
    return array[:, start:stop] if array.ndim > 1 and len(array) == T else array[start:stop]


told = []
for make, X, Y, more in [*language_models(), *sequence_models()]:
    own, whole = make(comm.rank), make(0)  # all come to have the weights of rank 0
    adam, other = Adam(lr=0.01), Adam(lr=0.01)
    start, stop = comm.share(X.shape[1])
    share = {name: cut(np.asarray(value), start, stop) for name, value in more.items()}
    worst = 0.0
    for _ in range(steps):
        loss, h_n = own.train_step(X[:, start:stop], cut(Y, start, stop), None, adam, comm=comm, **share)
        wanted, states = whole.train_step(X, Y, None, other, **more)
        worst = max(
            worst, abs(loss - wanted) / abs(wanted), abs(own.grad_norm - whole.grad_norm) / whole.grad_norm
        )
        for a, b in zip(*(h if isinstance(h, tuple) else (h,) for h in (h_n, states)), strict=True):
            if a.size:
                worst = max(worst, float(np.abs(a - b[:, start:stop]).max()))
    told.append([worst, digest(own.parameters)])
tell(comm, told)
