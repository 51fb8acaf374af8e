"""What the workers of a sweep run: they import it by its name."""

import numpy as np

from fastrnn import CharRNN, RNNClassifier, cores

GRID = {"cell": ["rnn", "gru", "lstm"], "lr": [0.01, 0.03], "num_layers": [1, 2]}


def data():
    X = np.random.default_rng(0).normal(size=(90, 7))
    return X, (X.sum(axis=1) > 0).astype(int)


def fit(settings):
    """Weights and losses of a fit, as bytes and numbers; and the cores that it may take."""
    X, y = data()
    model = RNNClassifier(8, epochs=5, dropout=0.2, random_state=0, **settings).fit(X, y)
    weights = b"".join(W.tobytes() for W in model.model_.parameters.values())
    return weights, [e["train_loss"] for e in model.history_], cores.usable_cores()


def score_of(lr):
    text = "the cat sat on the mat. " * 60
    return (
        CharRNN(8, seq_len=8, batch_size=4, epochs=2, lr=lr, random_state=0, verbose=0).fit(text).score(text)
    )
