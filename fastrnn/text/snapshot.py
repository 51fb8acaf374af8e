"""A run of `CharRNN`, as it lives and as a file keeps it, and the checks that a file's parts fit together."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fastrnn import backends
from fastrnn._version import __version__
from fastrnn.cells import Cell, cell_of
from fastrnn.checks import LARGEST_SIZE, OwnsArrays, check_choice, check_dtype, check_size
from fastrnn.contents import (
    Misfit,
    check_class,
    check_members,
    check_unknown_settings,
    check_version,
    misfits,
    plain,
    random_state_of,
    restored_generator,
    stack_shapes,
)
from fastrnn.errors import brief
from fastrnn.language_model import LanguageModel
from fastrnn.optim import OPTIMIZERS, Optimizer
from fastrnn.states import State, map_state, parts_of, public
from fastrnn.supervised import check_cell
from fastrnn.text.history import History
from fastrnn.text.vocabulary import Vocabulary, check_unknown

if TYPE_CHECKING:
    from fastrnn.hints import OptimizerState, Path, Weights

__all__ = ["Progress", "Run", "pack", "run_of_attributes", "unpack"]

#: Hyper-parameters of the first files.  One that came later is in a file only where it has not its
#: default, so that versions which do not know it read all others.
_FIRST_PARAMS = frozenset({
    "hidden_size", "num_layers", "seq_len", "batch_size", "optimizer", "lr", "lr_decay", "clip",
    "clip_threshold", "dropout", "epochs", "max_steps", "max_seconds", "validation_fraction",
    "validate_every", "patience", "dtype", "random_state", "num_threads", "backend", "checkpoint_every",
    "diagnostics_every", "unknown", "verbose",
})  # fmt: skip


@dataclasses.dataclass
class Progress:
    """Where a run stands; with the arrays and the random state, all that it takes to go on."""

    #: ``"fit"`` or ``"partial_fit"``.
    kind: str
    #: Fingerprint of the text.
    characters: int = 0
    sha256: str = ""
    #: Sequences of the hidden state.
    num_streams: int = 1
    #: Steps taken, whole epochs done, and the step that the epoch at hand began after.
    step: int = 0
    epoch: int = 0
    epoch_start: int = 0
    #: Since the last entry of the history, which was made after step `window_start`.
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    window_start: int = 0
    #: Best validation so far, the step it was made at, and how many there were since.
    best_nats: float = math.inf
    best_step: int = 0
    rounds_since_best: int = 0
    #: Processes that share the training: the bits are those of that number.
    ranks: int = 1


@dataclasses.dataclass
class Run(OwnsArrays):
    """A model and the training that made it: what `CharRNN` holds, training works on, and a file keeps.

    Attributes
    ----------
    model : LanguageModel
    optimizer : Optimizer
    vocabulary : Vocabulary
    progress : Progress
    followed : dict
        Hyper-parameters that the arrays and the run follow, as JSON has them.
    state : ndarray, shape (num_layers, N, h)
        Hidden state after the last step; of an LSTM a pair, as all states.
    starts : dict of str to ndarray, shape (num_layers, 1, h)
        States that a text begins with under ``"last"`` and ``"best"`` weights.
    history : History
    weights : {"last", "best"}
        Which weights the model uses: those of the last step, or of the best validation.
    best : dict of str to ndarray, or None
        Weights of the best validation.
    """

    model: LanguageModel
    optimizer: Optimizer
    vocabulary: Vocabulary
    progress: Progress
    followed: dict[str, Any]
    state: State
    starts: dict[str, State]
    history: History = dataclasses.field(default_factory=History)
    weights: Weights = "last"
    best: dict[str, np.ndarray] | None = None
    #: Those of the last step, while the model uses the best ones.
    set_aside: dict[str, np.ndarray] | None = None
    #: Whether an error has ended its training while ranks shared it, so that `state` is not that of the last step.
    incomplete: bool = False
    #: Place of the file that holds it, and the step and the weights in use there.
    written: tuple[str, int, Weights] | None = None

    @property
    def last(self) -> dict[str, np.ndarray]:
        """Weights of the last step; the model's own arrays where it uses these."""
        return self.model.parameters if self.set_aside is None else self.set_aside

    @property
    def start(self) -> Any:
        """State that a text begins with, shape (num_layers, 1, h), a copy."""
        return map_state(np.copy, self.starts[self.weights])

    def note_written(self, path: Path) -> None:
        """A file has been written or read."""
        self.written = self._in_file(path)

    def is_written(self, path: Path) -> bool:
        """Whether a file holds the last step, and the weights that the model uses in use."""
        return self.written == self._in_file(path) and pathlib.Path(os.fsdecode(path)).exists()

    def _in_file(self, path: Path) -> tuple[str, int, Weights]:
        return str(pathlib.Path(os.fsdecode(path)).absolute()), self.progress.step, self.weights

    def use(self, which: Weights) -> None:
        """Let the model use these weights."""
        if which == "best" and self.weights == "last" and self.best is not None:
            self.set_aside = self.model.state_dict()
            self.model.load_state_dict(self.best)
        elif which == "last" and self.set_aside is not None:
            self.model.load_state_dict(self.set_aside)
            self.set_aside = None
        self.weights = which


#: Attributes of the `CharRNN` of version 0.2, and what they are of a run.
_ATTRIBUTES = {
    "model_": "model", "_optimizer": "optimizer", "vocabulary_": "vocabulary", "_progress": "progress",
    "_followed": "followed", "_state": "state", "_starts": "starts", "history_": "history",
    "weights_": "weights", "best_weights_": "best", "_last_weights": "set_aside",
}  # fmt: skip


def run_of_attributes(state: dict[str, Any]) -> dict[str, Any]:
    """State of a `CharRNN` with its run under ``_run``; that of version 0.2 has attributes in its place."""
    if "model_" not in state:
        return state
    run = Run(**{member: state[name] for name, member in _ATTRIBUTES.items()})
    return {name: value for name, value in state.items() if name not in _ATTRIBUTES} | {"_run": run}


def pack(
    run: Run, params: dict[str, Any], defaults: dict[str, Any], *, is_checkpoint: bool = False
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Content for JSON, and arrays, which are the run's own.

    Parameters
    ----------
    run : Run
    params : dict
        Hyper-parameters that the file is to keep; those that the run follows are written as it has them.
    defaults : dict
        Every hyper-parameter.
    is_checkpoint : bool
        Whether training writes it, and not a user.

    Returns
    -------
    content : dict
    arrays : dict of str to ndarray
        Names: ``last.`` and ``best.`` before those of the weights, ``optimizer.``, slot and ``.`` before
        them for the optimizer's state, ``start.last``, ``start.best``, and ``state``; of an LSTM those with
        ``_c`` behind them too.
    """
    if run.incomplete:
        raise RuntimeError(
            "an error has ended the training on one of several ranks, and the hidden states of the others are lost: go on "
            "from the checkpoint, or fit anew"
        )
    params = {name: plain(value) for name, value in params.items()}
    # Not what `set_params` has set them to since.
    params |= run.followed | {"dropout": run.model.dropout}
    optimizer: dict[str, Any] = dict(run.optimizer.state_dict())
    arrays = {f"last.{name}": W for name, W in run.last.items()}
    arrays |= {f"best.{name}": W for name, W in (run.best or {}).items()}
    for slot, state in optimizer.pop("state").items():
        arrays |= {f"optimizer.{slot}.{name}": array for name, array in state.items()}
    cell = cell_of(run.model.cell, "tanh")
    for which, start in run.starts.items():
        arrays |= _state_named(f"start.{which}", start, cell)
    arrays |= _state_named("state", run.state, cell)
    content = {
        "class": "CharRNN",
        "fastrnn": __version__,
        "params": {
            name: value
            for name, value in params.items()
            if name in _FIRST_PARAMS or value != plain(defaults[name])
        },
        "vocabulary": run.vocabulary.characters,
        "progress": {
            name: value
            for name, value in dataclasses.asdict(run.progress).items()
            if name not in _LATER_PROGRESS or value != _LATER_PROGRESS[name]
        },
        "optimizer": optimizer,
        "random_state": random_state_of(run.model.rng),
        "history": run.history,
        "weights": run.weights,
        "is_checkpoint": is_checkpoint,
    }
    return content, arrays


def unpack(
    content: dict[str, Any],
    arrays: dict[str, np.ndarray],
    defaults: dict[str, Any],
    make: Callable[[dict[str, Any], int], tuple[LanguageModel, Optimizer, dict[str, Any]]],
    replaced: Collection[str] = (),
) -> Run:
    """Inverse of `pack`, for content that may be anything.

    No memory is taken for a size that the arrays do not have.

    Parameters
    ----------
    content, arrays
        As `fastrnn.checkpoint.read_checkpoint` returns them.
    defaults : dict
        Every hyper-parameter, with the value of those that came after the file was written.
    make : callable
        Of the hyper-parameters and the number of characters: a new model, its optimizer, and the
        hyper-parameters that the run follows.  Checks those that the arrays do not follow.
    replaced : collection of str
        Those that the user gives another value.

    Returns
    -------
    Run

    Raises
    ------
    Misfit
        If a part is missing, has another type, or does not fit the others.
    """
    check_class(content, "CharRNN")
    check_members(content, _CONTENT, "the file")
    check_version(content)
    check_unknown_settings(content["params"], defaults, "hyper-parameters", content)
    if "checkpoint" in content["params"]:
        raise Misfit("it names a place to write checkpoints to, which a file must not")
    if "comm" in content["params"]:
        raise Misfit("it names those who train it, which a file must not")
    params = defaults | content["params"]
    with misfits("hyper-parameters"):
        hidden_size = check_size(params["hidden_size"], "hidden_size")
        num_layers = check_size(params["num_layers"], "num_layers")
        dtype = check_dtype(params["dtype"])
        check_choice(params["optimizer"], "optimizer", tuple(OPTIMIZERS))
        check_cell(params["cell"], "tanh")
        check_choice(params["backend"], "backend", (*backends.BACKENDS, None))
        vocabulary = Vocabulary(content["vocabulary"])
        # The first versions wrote whatever `set_params` had set; that can be mended in loading.
        check_unknown(params["unknown"], None if "unknown" in replaced else vocabulary)
    noted = _LATER_PROGRESS | content["progress"]
    check_members(noted, _PROGRESS, "the progress")
    progress = Progress(**noted)
    _check_progress(progress)
    for entry in content["history"]:
        check_members(entry, _HISTORY, "an entry of the history", more=True)
    with misfits("the random state"):
        rng = restored_generator(content["random_state"])

    if sum(name.startswith("last.") for name in arrays) != 4 * num_layers + 2:
        raise Misfit(f"num_layers = {num_layers}, and the weights are those of another number of layers")
    cell = cell_of(params["cell"], "tanh")
    endings = _endings(cell)
    q = len(vocabulary)
    shapes = dict(stack_shapes(q, hidden_size, num_layers, gates=len(cell.gates), outputs=q))
    shapes_of_starts = dict.fromkeys(
        (f"{which}{ending}" for which in ("last", "best") for ending in endings), (num_layers, 1, hidden_size)
    )
    names_of_state = [f"state{ending}" for ending in endings]
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        group, _, parameter = name.rpartition(".")
        wanted = shapes_of_starts if group == "start" else shapes
        if name not in names_of_state and (parameter not in wanted or array.shape != wanted[parameter]):
            raise Misfit(f"array {brief(name)} of shape {array.shape} is not one of this model's")
        if array.dtype != dtype:
            raise Misfit(f"array {brief(name)} is {array.dtype}, and dtype = {dtype.name!r}")
        groups.setdefault(group, {})[parameter] = array
    carried = groups.pop("", {})
    shape_of_state = (num_layers, progress.num_streams, hidden_size)
    if {name: array.shape for name, array in carried.items()} != dict.fromkeys(
        names_of_state, shape_of_state
    ):
        raise Misfit("the hidden state is missing or has another shape")
    starts = groups.pop("start", {})
    if starts.keys() != shapes_of_starts.keys():
        raise Misfit("arrays 'start' are not complete")
    for group, members in groups.items():
        if group not in ("last", "best") and not group.startswith("optimizer."):
            raise Misfit(f"arrays {brief(group)} are not expected")
        if members.keys() != shapes.keys():
            raise Misfit(f"arrays {brief(group)} are not complete")
    best = groups.get("best")
    if content["weights"] not in ("last", "best"):
        raise Misfit(f"weights {brief(content['weights'])} are not known")
    if content["weights"] == "best" and best is None:
        raise Misfit("the best weights are in use, and are not there")
    slots = {
        group.removeprefix("optimizer."): members
        for group, members in groups.items()
        if group.startswith("optimizer.")
    }
    model, optimizer, followed = make(params, len(vocabulary))
    # One that has not made a step has slots without arrays, which no file shows.
    slots = {**{slot: {} for slot in optimizer.state_dict()["state"]}, **slots}
    with misfits("the optimizer"):
        optimizer.load_state_dict(cast("OptimizerState", {**content["optimizer"], "state": slots}))
    model.load_state_dict(groups["last"])
    model.rng = rng
    run = Run(
        model=model,
        optimizer=optimizer,
        vocabulary=vocabulary,
        progress=progress,
        followed=followed,
        state=public([carried[name].copy() for name in names_of_state]),
        starts={
            which: public([starts[f"{which}{ending}"].copy() for ending in endings])
            for which in ("last", "best")
        },
        history=History(content["history"]),
        best=None if best is None else {name: best[name].copy() for name in shapes},
    )
    run.use(content["weights"])
    return run


#: Types of the members of a file's parts.
_CONTENT = {
    "class": str, "fastrnn": str, "params": dict, "vocabulary": str, "progress": dict, "optimizer": dict,
    "random_state": dict, "history": list, "weights": str, "is_checkpoint": bool,
}  # fmt: skip
_PROGRESS = {
    field.name: {"str": str, "int": int, "float": float}[str(field.type)]
    for field in dataclasses.fields(Progress)
}
#: Of which the first files know nothing: in a file only where they have other values than these.
_LATER_PROGRESS = {"ranks": 1}
_HISTORY = {
    "step": int, "epoch": int, "train_nats": float, "valid_nats": (float, type(None)), "grad_norm": float,
    "lr": float, "chars_per_second": float,
}  # fmt: skip


def _check_progress(progress: Progress) -> None:
    counts = (progress.characters, progress.epoch, progress.best_step, progress.rounds_since_best)
    starts = (progress.window_start, progress.epoch_start)
    if (
        progress.kind not in ("fit", "partial_fit")
        or min(*counts, *starts) < 0
        or max(starts) > progress.step
        or max(*counts, progress.step, progress.ranks) > LARGEST_SIZE
        or progress.ranks < 1
        or not re.fullmatch("([0-9a-f]{64})?", progress.sha256)
    ):
        raise Misfit("the progress makes no sense")


def _endings(cell: Cell) -> list[str]:
    """Endings of the names of the arrays of a state."""
    return ["" if kind == "h" else f"_{kind}" for kind in cell.states]


def _state_named(name: str, state: State, cell: Cell) -> dict[str, np.ndarray]:
    """The arrays of a state under the names that they have in a file."""
    return {f"{name}{ending}": array for ending, array in zip(_endings(cell), parts_of(state), strict=True)}
