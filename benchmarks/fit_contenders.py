"""`fit` of the estimators and a plain PyTorch loop with the same net, data and settings, and training steps of both by
themselves; each is checked before it is timed.

PyTorch begins with the weights that `fit` began with and takes the same batches in the same order.  Its loop is what a
user writes: `torch.nn.GRU` and a `Linear`, Adam in its fused form, `clip_grad_norm_`, the mean loss of each epoch.  It is
given the scaled data and the order of the batches as tensors, so that only the loop is timed; of `fit` everything is.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from agreement import WrongResult
from installed import kind_of
from timing import Clocked, shortest_of_block

from fastrnn import SequenceModel, optim

LR, CLIP = 3e-3, 1.0

#: The one of a training step that is timed: on one batch again and again, weights should stay about where they are.
STILL_LR = 1e-7

SEED = 0

#: Epochs of `fit`, and training steps, whose losses are compared in float64.
CHECKED_EPOCHS, CHECKED_STEPS = 2, 10

#: Largest difference of the losses, relative to the first; in float32 of those of the first epoch or step.  In float64 they differ
#: because `clip_grad_norm_` divides by the norm plus 1e-6, and ours by the norm.
TOLERANCE = {"float64": 1e-6, "float32": 1e-4}

#: Largest difference of the final scores, which rounding errors lead apart over hundreds of steps.
SAME_SCORE = 0.05

ONE_THREAD = "torch, one thread"

#: Real inputs, and classes, of the training steps by themselves.
INPUTS, OUTPUTS = 8, 10


@dataclass(frozen=True)
class Fit:
    """A training from the first weights to the last.

    Attributes
    ----------
    data : {"digits", "prefixes", "regression", "tagging"}
    text : str
        What the tables call it.
    form : {"", "packed", "padded"}
        What PyTorch does with sequences of different lengths: packs them, or computes all steps and takes those at the
        ends.
    count : int or None
        Sequences to train on; None for all there are.
    """

    data: str
    text: str
    cell: str = "gru"
    h: int = 64
    N: int = 32
    dtype: str = "float32"
    epochs: int = 10
    form: str = ""
    count: int | None = None

    @property
    def regression(self) -> bool:
        return self.data == "regression"

    @property
    def each(self) -> bool:
        """Whether every step has a target; both directions are read then."""
        return self.data == "tagging"

    @property
    def T(self) -> int:
        return {"regression": 50, "tagging": 30}.get(self.data, 8)

    @property
    def label(self) -> str:
        return f"{self.text}-{self.cell}-h{self.h}-N{self.N}-{self.dtype}"


FITS = (
    Fit("digits", "digits by rows"),
    Fit("digits", "digits by rows", dtype="float64"),
    Fit("digits", "digits by rows", "lstm"),
    Fit("digits", "digits by rows", "rnn"),
    Fit("prefixes", "their first 5 to 8 rows; PyTorch packs", form="packed"),
    Fit("prefixes", "their first 5 to 8 rows; PyTorch pads", form="padded"),
    Fit("regression", "a value from 3 channels", epochs=5),
    Fit("tagging", "a tag for each step, both directions", epochs=5),
    Fit("digits", "digits by rows", h=8),
    Fit("digits", "digits by rows", h=256, epochs=3),
    Fit("digits", "digits by rows", N=256),
    Fit("digits", "digits by rows", N=1, epochs=1, count=256),
)


@dataclass(frozen=True)
class Step:
    """Training steps on one batch: a class from the last of T steps of `INPUTS` real numbers."""

    cell: str
    h: int
    T: int
    N: int
    dtype: str = "float32"

    @property
    def label(self) -> str:
        return f"{self.cell}-h{self.h}-T{self.T}-N{self.N}-{self.dtype}"


STEPS = (
    *(Step("gru", h, T, 32) for h in (32, 64, 256) for T in (8, 50, 100)),
    *(Step("lstm", h, 50, 32) for h in (32, 64, 256)),
    Step("gru", 64, 50, 32, "float64"),
    Step("gru", 8, 50, 32),
    Step("gru", 64, 50, 1),
    Step("gru", 256, 50, 1),
)


def quick(fit: Fit) -> Fit:
    """The same of a few sequences and a small net."""
    return replace(fit, h=min(fit.h, 8), N=min(fit.N, 16), epochs=1, count=48)


# -- data --------------------------------------------------------------------------------------------


@dataclass
class Data:
    """As users have it: X (n, T, d) or a list, y; and the same to score with."""

    X: Any
    y: np.ndarray
    X_test: Any
    y_test: np.ndarray


@functools.cache
def data_of(name: str) -> Data:
    """Training and test part."""
    rng = np.random.default_rng(SEED)
    if name in ("digits", "prefixes"):
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = rng.permutation(len(digits.target))
        X, y = digits.images[order], digits.target[order]
        if name == "prefixes":
            X = [image[:rows] for image, rows in zip(X, rng.integers(5, 9, len(X)), strict=True)]
        n = len(y) * 3 // 4
    elif name == "regression":
        n = 1000
        X = rng.normal(size=(1250, 50, 3))
        y = X[:, -10:, 0].mean(axis=1) + 0.5 * X[:, -5:, 1].mean(axis=1) * X[:, -1, 2]
    else:
        n = 600
        X = rng.normal(size=(750, 30, 4))
        around = np.pad(X, ((0, 0), (1, 1), (0, 0)))
        y = np.digitize(around[:, :-2, 0] + X[:, :, 1] + around[:, 2:, 2], [-0.7, 0.7])
    return Data(X[:n], y[:n], X[n:], y[n:])


# -- fit ---------------------------------------------------------------------------------------------


def estimator(case: Fit, threads: int, backend: str | None) -> Any:
    """Ours, new."""
    from fastrnn import RNNClassifier, RNNRegressor

    made: Any = RNNRegressor if case.regression else RNNClassifier
    return made(
        case.h, cell=case.cell, head="each" if case.each else "last", bidirectional=case.each, optimizer="adam", lr=LR,
        batch_size=case.N, epochs=case.epochs, validation_fraction=0.0, patience=None, clip="norm", clip_threshold=CLIP,
        dtype=case.dtype, random_state=SEED, num_threads=threads, backend=backend,
    )  # fmt: skip


@dataclass
class Trained:
    """What a training came to: the mean loss of each epoch, the weights, the score on the test part."""

    losses: list[float]
    weights: dict[str, np.ndarray]
    score: float


@dataclass
class Plan:
    """The weights that a `fit` began with, and for each epoch the sequences of each batch."""

    weights: dict[str, np.ndarray]
    order: list[list[np.ndarray]]

    @property
    def steps(self) -> int:
        return sum(map(len, self.order))


def train_ours(case: Fit, threads: int, backend: str | None) -> tuple[Trained, Plan]:
    """Train ours, and note what PyTorch needs in order to do the same."""
    from fastrnn.estimators import base, fitting

    plans = []
    train = base.train

    def noted(model: Any, optimizer: Any, problem: Any, train_on: Any, *more: Any, **options: Any) -> Any:
        rng = copy.deepcopy(next(given for given in more if isinstance(given, np.random.Generator)))
        order = [
            [chosen.copy() for chosen in fitting.batches(problem.sequences, train_on, case.N, rng)]
            for _ in range(case.epochs)
        ]
        plans.append(Plan(model.state_dict(), order))
        return train(model, optimizer, problem, train_on, *more, **options)

    data = data_of(case.data)
    fitted = estimator(case, threads, backend)
    base.train = noted
    try:
        fitted.fit(data.X[: case.count], data.y[: case.count])
    finally:
        base.train = train
    losses = [entry["train_loss"] for entry in fitted.history_]
    trained = Trained(losses, fitted.model_.state_dict(), fitted.score(data.X_test, data.y_test))
    if fitted.history_[-1]["step"] != plans[0].steps:
        raise WrongResult(
            f"{case.label}: fit made {fitted.history_[-1]['step']} steps, planned {plans[0].steps}"
        )
    return trained, plans[0]


class Net:
    """A layer of `torch.nn` and a `Linear` on its last states, or on all."""

    def __init__(
        self, cell: str, weights: dict[str, np.ndarray], *, batch_first: bool, form: str = ""
    ) -> None:
        import torch

        self._torch, self._form = torch, form
        out = torch.from_numpy(weights["weight_out"])
        both = "weight_hh_l0_reverse" in weights
        d, h = weights["weight_ih_l0"].shape[1], weights["weight_hh_l0"].shape[1]
        self.layer = getattr(torch.nn, cell.upper())(
            d, h, batch_first=batch_first, bidirectional=both, dtype=out.dtype
        )
        self.linear = torch.nn.Linear((2 if both else 1) * h, len(out), dtype=out.dtype)
        given = {name: torch.from_numpy(W) for name, W in weights.items()}
        self.linear.load_state_dict({"weight": given.pop("weight_out"), "bias": given.pop("bias_out")})
        self.layer.load_state_dict(given)  # it refuses names that it has not
        self.parameters = [*self.layer.parameters(), *self.linear.parameters()]

    def each(self, x: Any) -> Any:
        """Outputs of every step, one after the other."""
        return self.linear(self.layer(x)[0]).flatten(0, 1)

    def last(self, x: Any, lengths: Any = None) -> Any:
        """Outputs at the end of every sequence."""
        if self._form == "packed":
            x = self._torch.nn.utils.rnn.pack_padded_sequence(
                x, lengths, batch_first=True, enforce_sorted=False
            )
        states, h_n = self.layer(x)
        if self._form == "padded":
            return self.linear(states[self._torch.arange(len(x)), lengths - 1])
        return self.linear((h_n[0] if isinstance(h_n, tuple) else h_n)[0])

    def weights(self) -> dict[str, np.ndarray]:
        named = dict(self.layer.named_parameters())
        named |= {"weight_out": self.linear.weight, "bias_out": self.linear.bias}
        return {name: W.detach().numpy().copy() for name, W in named.items()}


class TorchFit:
    """The loop of a user of PyTorch."""

    def __init__(self, case: Fit, plan: Plan) -> None:
        import torch

        self._torch, self._case, self._plan = torch, case, plan
        data = data_of(case.data)
        X, y = data.X[: case.count], data.y[: case.count]
        self._mean, self._std = _moments(np.concatenate(list(X)))
        self._y_mean, self._y_std = _moments(y) if case.regression else (0.0, 1.0)
        self._x, self._lengths = self._inputs(X)
        self._order = [[torch.from_numpy(chosen) for chosen in epoch] for epoch in plan.order]
        if case.regression:
            scaled = (y - self._y_mean) / self._y_std
            self._y = torch.from_numpy(scaled.astype(case.dtype)[:, None])
            self._loss = torch.nn.functional.mse_loss
        else:
            self._y = torch.from_numpy(np.asarray(y, np.int64))
            self._loss = torch.nn.functional.cross_entropy

    def _inputs(self, X: Any) -> tuple[Any, Any]:
        """Scaled sequences side by side, filled up with zeros, and where each ends."""
        x = np.zeros((len(X), self._case.T, len(self._mean)), self._case.dtype)
        for row, sequence in zip(x, X, strict=True):
            row[: len(sequence)] = (sequence - self._mean) / self._std
        torch = self._torch
        return torch.from_numpy(x), torch.tensor(
            [len(sequence) for sequence in X]
        ) if self._case.form else None

    def _outputs(self, net: Net, x: Any, lengths: Any) -> Any:
        return net.each(x) if self._case.each else net.last(x, lengths)

    def fit(self) -> tuple[Net, list[float]]:
        """From the first weights to the last: what is timed."""
        torch = self._torch
        net = Net(self._case.cell, self._plan.weights, batch_first=True, form=self._case.form)
        adam = torch.optim.Adam(net.parameters, lr=LR, fused=True)
        losses = []
        for epoch in self._order:
            total = 0.0
            for chosen in epoch:
                lengths = None if self._lengths is None else self._lengths[chosen]
                x = self._x[chosen]
                if lengths is not None:
                    x = x[:, : lengths.max()]
                outputs, y = self._outputs(net, x, lengths), self._y[chosen]
                loss = self._loss(outputs, y.flatten() if self._case.each else y)
                adam.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters, CLIP)
                adam.step()
                total += loss.item() * len(chosen)
            losses.append(total / len(self._x))
        return net, losses

    def trained(self) -> Trained:
        net, losses = self.fit()
        data = data_of(self._case.data)
        with self._torch.inference_mode():
            outputs = self._outputs(net, *self._inputs(data.X_test)).numpy()
        if self._case.regression:
            predicted = outputs[:, 0] * self._y_std + self._y_mean
            error = ((predicted - data.y_test) ** 2).sum()
            score = 1 - error / ((data.y_test - data.y_test.mean()) ** 2).sum()
        else:
            score = (outputs.argmax(axis=1) == data.y_test.ravel()).mean()
        return Trained(losses, net.weights(), float(score))


def _moments(values: np.ndarray) -> tuple[Any, Any]:
    """Mean and standard deviation, 1 of what is constant."""
    std = values.std(axis=0)
    return values.mean(axis=0), np.where(std > 0, std, 1.0)


def compare(where: str, ours: list[float], theirs: list[float], tolerance: float) -> None:
    """Refuse losses that are not the same.

    Raises
    ------
    WrongResult
    """
    if len(ours) != len(theirs):
        raise WrongResult(f"{where}: {len(ours)} losses and PyTorch's {len(theirs)}")
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if not abs(a - b) <= tolerance * abs(theirs[0]):
            raise WrongResult(f"{where}: loss {i} is {a:.9g} and PyTorch's {b:.9g}")


def checked_fits(case: Fit, threads: int, backend: str | None) -> tuple[Trained, Trained, TorchFit]:
    """Train both in float64, where they must agree, and as they are timed, where they must be near.

    Returns
    -------
    ours, theirs : Trained
    loop : TorchFit
        Warm.

    Raises
    ------
    WrongResult
    """
    import torch

    torch.set_num_threads(1)  # that it may share a core while nothing is timed
    exact = replace(case, dtype="float64", epochs=min(case.epochs, CHECKED_EPOCHS))
    ours, plan = train_ours(exact, threads, backend)
    theirs = TorchFit(exact, plan).trained()
    compare(f"{exact.label}, checked", ours.losses, theirs.losses, TOLERANCE["float64"])
    ours, plan = train_ours(case, threads, backend)
    loop = TorchFit(case, plan)
    theirs = loop.trained()
    compare(case.label, ours.losses[:1], theirs.losses[:1], TOLERANCE[case.dtype])
    if not abs(ours.score - theirs.score) <= SAME_SCORE:
        raise WrongResult(f"{case.label}: a score of {ours.score:.3f} and PyTorch's {theirs.score:.3f}")
    return ours, theirs, loop


# -- training steps by themselves --------------------------------------------------------------------


class Batch:
    """Weights, and one batch of random numbers."""

    def __init__(self, case: Step) -> None:
        rng = np.random.default_rng(SEED)
        self.x = rng.normal(size=(case.T, case.N, INPUTS)).astype(case.dtype)
        self.y = rng.integers(0, OUTPUTS, case.N)
        self.weights = model_of(case, 1, None).state_dict()


def model_of(case: Step, threads: int, backend: str | None) -> SequenceModel:
    return SequenceModel(
        INPUTS, case.h, OUTPUTS, cell=case.cell, head="last", loss="cross_entropy", dtype=case.dtype, rng=SEED,
        num_threads=threads, backend=backend,
    )  # fmt: skip


def our_step(
    case: Step, batch: Batch, threads: int, backend: str | None, lr: float = STILL_LR
) -> Callable[[], float]:
    """A function that takes a training step and returns the loss before it."""
    model, adam = model_of(case, threads, backend), optim.Adam(lr=lr, backend=backend)
    model.load_state_dict(batch.weights)
    x, y = batch.x, batch.y
    return lambda: model.train_step(x, y, None, adam, clip="norm", clip_threshold=CLIP)[0]


def torch_step(case: Step, batch: Batch, lr: float = STILL_LR) -> Callable[[], float]:
    """The same in PyTorch."""
    import torch

    net = Net(case.cell, batch.weights, batch_first=False)
    adam = torch.optim.Adam(net.parameters, lr=lr, fused=True)
    x, y = torch.from_numpy(batch.x), torch.from_numpy(batch.y)

    def step() -> float:
        loss = torch.nn.functional.cross_entropy(net.last(x), y)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters, CLIP)
        adam.step()
        return float(loss.item())

    return step


def checked_steps(
    case: Step, threads: int, backend: str | None
) -> tuple[Callable[[], float], Callable[[], float]]:
    """Steps of ours and of PyTorch to be timed, after some that learn agreed in float64, and one in the dtype.

    Raises
    ------
    WrongResult
    """
    import torch

    torch.set_num_threads(1)
    exact = replace(case, dtype="float64")
    batch = Batch(exact)
    steps = our_step(exact, batch, threads, backend, LR), torch_step(exact, batch, LR)
    losses = [[step() for _ in range(CHECKED_STEPS)] for step in steps]
    compare(f"{case.label}, checked", *losses, TOLERANCE["float64"])
    batch = Batch(case)
    steps = our_step(case, batch, threads, backend), torch_step(case, batch)
    compare(case.label, [steps[0]()], [steps[1]()], TOLERANCE[case.dtype])
    return steps


# -- turns -------------------------------------------------------------------------------------------


class OnThreads(Clocked):
    """A call of PyTorch on its own number of threads."""

    def __init__(self, call: Callable[[], Any], threads: int) -> None:
        self._call, self._threads = call, threads

    def shortest_of_block(self, block: float) -> float:
        import torch

        torch.set_num_threads(self._threads)
        return shortest_of_block(self._call, block)


def in_turns(
    ours: Callable[[], Any], theirs: Callable[[], Any] | None, threads: int, name: str
) -> dict[str, Callable[[], Any] | Clocked]:
    """What takes turns, by contender: ours under `name`, PyTorch on as many threads, and on one."""
    calls: dict[str, Callable[[], Any] | Clocked] = {name: ours}
    if theirs is not None:
        calls["torch"] = OnThreads(theirs, threads)
        if threads > 1:
            calls[ONE_THREAD] = OnThreads(theirs, 1)
    return calls


def describe(suite: str, case: Fit | Step, contender: str, threads: int, **more: Any) -> dict[str, Any]:
    """What a record says of itself."""
    return {
        "suite": suite, "kind": kind_of(contender), "contender": contender, "operation": suite, "cell": case.cell,
        "h": case.h, "T": case.T, "N": case.N, "dtype": case.dtype, "threads": 1 if contender == ONE_THREAD else threads,
        "cores": threads, **more,
    }  # fmt: skip
