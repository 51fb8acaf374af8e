"""What is computed: one sequence and a model for it, or a batch of sequences, and what all who compute
them must know."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from sizes import VOCABULARY

from fastrnn import LanguageModel, ReferenceRNN
from fastrnn.simple_weights import PARAMETERS

SEED = 1

#: Gradients are clamped to +- this.
CLAMP = 5.0

#: Learning rate while the clock runs: the same work, but the weights stay what they are however
#: often the step is repeated.
STILL_LR = 1e-9

#: Weights of a `Problem`, under the notes' names.
WEIGHT_NAMES = PARAMETERS

#: Parameters of a `Batch`, under `LanguageModel`'s names.
NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_out", "bias_out")


@dataclass(frozen=True)
class Problem:
    """One sequence and a model for it; everything follows from these values.

    Parameters
    ----------
    h : int
        Hidden size.
    T : int
        Time steps.
    dtype : {"float64", "float32"}
    binding : bool
        False: the notes' initial weights and evenly drawn characters, where no clamp binds up to a
        few hundred steps.  True: large weights and unevenly drawn characters, where clamps bind in
        every gradient.
    """

    h: int
    T: int
    dtype: str = "float64"
    binding: bool = False

    @property
    def label(self) -> str:
        """Short, and of characters that may stand in a test's name."""
        return f"h{self.h}-T{self.T}-{self.dtype}{'-binding' if self.binding else ''}"

    @functools.cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """Wxh (h,d), Whh (h,h), Why (q,h), bh (h,1), by (q,1)."""
        draw = np.random.default_rng([SEED, self.h, 0]).standard_normal
        scale, recurrent = (1.0, 0.5 / self.h**0.5) if self.binding else (0.01, 0.01)
        q = VOCABULARY
        weights = {
            "Wxh": draw((self.h, q)) * scale,
            "Whh": draw((self.h, self.h)) * recurrent,
            "Why": draw((q, self.h)) * scale,
            "bh": np.zeros((self.h, 1)),
            "by": np.zeros((q, 1)),
        }
        return {name: W.astype(self.dtype) for name, W in weights.items()}

    @functools.cached_property
    def _characters(self) -> list[int]:
        rng = np.random.default_rng([SEED, self.h, self.T])
        share = 1.0 / np.arange(1, VOCABULARY + 1) if self.binding else np.ones(VOCABULARY)
        characters: list[int] = rng.choice(VOCABULARY, self.T + 1, p=share / share.sum()).tolist()
        return characters

    @property
    def inputs(self) -> list[int]:
        """T class indices, as a list like in the notes."""
        return self._characters[:-1]

    @property
    def targets(self) -> list[int]:
        """T class indices."""
        return self._characters[1:]

    @property
    def h_prev(self) -> np.ndarray:
        """State before the first input, (h, 1)."""
        return np.zeros((self.h, 1), self.dtype)

    @property
    def start(self) -> int:
        """First input of sampling."""
        return self._characters[0]

    @property
    def uniforms(self) -> np.ndarray:
        """The T numbers of [0, 1) that NumPy's global stream gives after ``seed(SEED)``."""
        return np.random.RandomState(SEED).random_sample(self.T)


@dataclass(frozen=True)
class Batch:
    """N sequences of T characters, and a model for them; everything follows from these values."""

    h: int
    T: int
    N: int
    dtype: str = "float64"

    @property
    def label(self) -> str:
        """Short, and of characters that may stand in a test's name."""
        return f"h{self.h}-T{self.T}-N{self.N}-{self.dtype}"

    @functools.cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """Under `LanguageModel`'s names, uniform in +-1/sqrt(h)."""
        model = LanguageModel(VOCABULARY, self.h, dtype="float64", rng=SEED, backend="numpy")
        return {name: model.parameters[name].astype(self.dtype) for name in NAMES}

    @functools.cached_property
    def _characters(self) -> np.ndarray:
        return np.random.default_rng([SEED, self.h, self.T]).integers(0, VOCABULARY, (self.T + 1, self.N))

    @property
    def x(self) -> np.ndarray:
        """Inputs, int64 (T, N)."""
        return self._characters[:-1]

    @property
    def y(self) -> np.ndarray:
        """Targets, int64 (T, N)."""
        return self._characters[1:]

    @property
    def start(self) -> np.ndarray:
        """First inputs of sampling, int64 (N,)."""
        return self._characters[0]

    @property
    def uniforms(self) -> np.ndarray:
        """The numbers of [0, 1) that sampling takes, float64 (T, N)."""
        return np.random.default_rng(SEED).random((self.T, self.N))


def reference_of(parameters: dict[str, np.ndarray]) -> ReferenceRNN:
    """The notes' loop in float64 with the parameters of a `LanguageModel` of one layer, whose two biases
    are one in the loop."""
    W_ih, W_hh, b_ih, b_hh, W, b = (np.array(parameters[name], np.float64) for name in NAMES)
    h, q = W_ih.shape
    rnn = ReferenceRNN(q, h, q, rng=SEED)
    rnn.Wxh, rnn.Whh, rnn.Why, rnn.bh, rnn.by = W_ih, W_hh, W, (b_ih + b_hh)[:, None], b[:, None]
    return rnn
