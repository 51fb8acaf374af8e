"""`CharRNN` and the estimators: a few steps on tiny data."""

from __future__ import annotations

import importlib.util
import pickle

import numpy as np

import fastrnn
from fuzz.case import Argument, Call, Pair
from fuzz.compare import Failure, bits

#: What the estimators need.
HAS_SKLEARN = importlib.util.find_spec("sklearn") is not None


class FittedPair(Pair):
    """A fitted estimator."""

    def __init__(self, own, dtype):
        self.own, self.dtype = own, np.dtype(dtype)

    def watched(self):
        model = self.own.model_
        return {"parameters": model.parameters, "random stream": model.rng, "mode": model.training}

    def other_settings(self, draw, subject):
        subject.num_threads = draw.pick((1, 2, 3))


def run(case):
    kinds = (characters, sequences) if HAS_SKLEARN else (characters,)
    case.draw.pick(kinds)(case)


def characters(case):
    draw = case.draw
    alphabet = draw.pick(("ab", "abcdefgh \n", "aäß€😀\u0301\0"))
    text = "".join(draw.pick(alphabet) for _ in range(draw.integer(40, 300))) + alphabet
    dtype, steps = draw.pick(("float32", "float64")), draw.integer(1, 3)
    given = {
        "hidden_size": draw.size(33), "num_layers": draw.pick((1, 2)),
        "cell": draw.pick(("rnn", "gru", "lstm")), "seq_len": draw.integer(1, 20), "batch_size": draw.integer(1, 9),
        "max_steps": steps, "verbose": 0, "dtype": dtype,
        "random_state": draw.seed(), "optimizer": "sgd", "lr": 0.1,
        "validation_fraction": draw.pick((0.0, 0.2)),
    }  # fmt: skip
    case.note(f"CharRNN({given}).fit({text!r:.60})")
    own = fastrnn.CharRNN(**given, backend=case.backend, num_threads=draw.pick((1, 2, 3))).fit(text)
    twin = fastrnn.CharRNN(**given, backend="numpy", num_threads=1).fit(text)
    case.counts.calls += 1
    case.counts.compared += 1
    mine, theirs = own.score(text), twin.score(text)
    if not abs(mine - theirs) <= (1e-3 if dtype == "float32" else 1e-8) * max(1, abs(theirs)):
        raise Failure(f"score {mine}, with NumPy {theirs}")
    pair = case.pair = FittedPair(own, dtype)
    prompt, n = text[: draw.integer(0, 5)], draw.integer(0, 20)
    arguments = {
        "n": Argument(n, "size"), "prompt": Argument(prompt, "other"), "temperature": Argument(1.0, "number"),
        "top_k": Argument(draw.pick((None, 2)), "size"), "top_p": Argument(draw.pick((None, 0.8)), "number"),
        "num_samples": Argument(1, "size"), "random_state": Argument(draw.seed(), "rng"),
    }  # fmt: skip
    first = own.generate(**{name: a.value for name, a in arguments.items()})
    pickled = pickle.loads(pickle.dumps(own))  # noqa: S301
    again = pickled.generate(**{name: a.value for name, a in arguments.items()})
    if first != again or len(first) != n:
        raise Failure(f"generate gives {first!r}, and from a pickle {again!r}")
    for _ in range(3):
        case.spoilt(
            pair, Call("generate", lambda subject, values: subject.generate(**values) and None, arguments)
        )
    case.spoilt(
        pair,
        Call(
            "score", lambda subject, values: subject.score(values["text"]), {"text": Argument(text, "other")}
        ),
    )


def sequences(case):
    draw = case.draw
    kind = draw.pick((fastrnn.RNNRegressor, fastrnn.RNNClassifier))
    n, T, d = draw.integer(4, 12), draw.integer(1, 9), draw.integer(1, 4)
    X = draw.real((n, T, d), np.float32)
    y = draw.real((n,), np.float64) if kind is fastrnn.RNNRegressor else np.arange(n) % 3
    given = {
        "hidden_size": draw.size(17), "cell": draw.pick(("rnn", "gru", "lstm")),
        "bidirectional": draw.chance(0.3),
        "head": draw.pick(("last", "mean")), "epochs": 1, "max_steps": 2, "validation_fraction": 0.0,
        "random_state": draw.seed(),
        "dtype": draw.pick(("float32", "float64")), "backend": case.backend, "num_threads": draw.pick((1, 2, 3)),
    }  # fmt: skip
    case.note(f"{kind.__name__}({given}).fit({X.shape}, {y.shape})")
    own = kind(**given).fit(X, y)
    pair = case.pair = FittedPair(own, given["dtype"])
    case.counts.calls += 1
    case.counts.compared += 1
    want = own.predict(X)
    if bits(want) != bits(own.predict(np.asfortranarray(X))) or bits(want) != bits(own.predict(list(X))):
        raise Failure("predict gives other bits in other memory")
    for _ in range(3):
        case.spoilt(
            pair,
            Call(
                "predict",
                lambda subject, values: subject.predict(values["X"]) is None,
                {"X": Argument(X, "real")},
            ),
        )
    arguments = {"X": Argument(X, "real"), "y": Argument(y, "real")}
    # A fit that is refused leaves what was fitted; one that is not makes a new model.
    run = lambda subject, values: kind(**given).fit(values["X"], values["y"]) and None  # noqa: E731
    case.spoilt(pair, Call("fit", run, arguments))
