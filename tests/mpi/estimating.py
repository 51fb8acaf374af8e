"""The estimators on all ranks, beside one process.  Argument: `sync_every`."""

import sys

import numpy as np
from common import digest, ranks, refused, tell
from sklearn.base import clone

from fastrnn import RNNClassifier, RNNRegressor

sync_every = int(sys.argv[1])
comm = ranks(sync_every=sync_every)
random = np.random.default_rng(0)
X = random.normal(size=(330, 6, 2))
y = (X[:, :, 0].sum(axis=1) > 0).astype(int) + (X[:, :, 1].max(axis=1) > 1)
ragged = [x[: 3 + i % 4] for i, x in enumerate(X)]
CASES = [
    (RNNClassifier, X, y, {"class_weight": "balanced"}),
    (RNNClassifier, ragged, y, {"dropout": 0.2, "num_layers": 2, "batch_size": 7}),
    (RNNRegressor, ragged, [x.sum(axis=1) for x in ragged], {"head": "each", "bidirectional": True}),
    (RNNClassifier, ragged, [(x[:, 0] > 0).astype(int) for x in ragged], {"head": "each", "class_weight": {0: 3, 1: 0.1}}),
    (RNNRegressor, X[:, :, 0], X[:, :, 0].sum(axis=1), {"batch_size": 300, "max_steps": 5}),
]  # fmt: skip


def said(model):
    losses = [[e["train_loss"], e["valid_loss"], e["seconds"]] for e in model.history_]
    return digest(model.model_.parameters), losses


told = []
for cls, A, b, more in CASES:
    settings = {"epochs": 4, "dtype": "float64", "random_state": 0} | more
    model = cls(8, comm=comm, **settings)
    assert clone(model).comm is comm
    alone = [row[:2] for row in said(cls(8, **settings).fit(A, b))[1]] if sync_every == 1 else None
    told.append([*said(clone(model).fit(A, b)), alone])
unseeded = RNNClassifier(8, comm=comm, epochs=2).fit(X, y)
timed = RNNClassifier(8, comm=comm, epochs=10**6, patience=None, max_seconds=0.3).fit(X, y)
refusals = [
    refused(lambda: RNNClassifier(8, comm=comm, lr=0.1 + comm.rank).fit(X, y)),
    refused(lambda: RNNClassifier(8, comm=comm, epochs=1 - 2 * comm.rank).fit(X, y)),
    refused(lambda: RNNClassifier(8, comm=comm).fit(np.where(X > 2, comm.rank, X), y)),
]
tell(
    comm,
    {"cases": told, "unseeded": said(unseeded), "timed": [*said(timed), timed.n_iter_], "refusals": refusals},
)
