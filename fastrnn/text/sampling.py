"""Text that a model writes: its prompt, and characters chunk by chunk, up to a number or a string."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from fastrnn.checks import INDEX, check_size
from fastrnn.errors import TextError
from fastrnn.random_stream import generator
from fastrnn.sharing import Shared, being_read, reading
from fastrnn.states import State, map_state
from fastrnn.text.stop_strings import StopStrings, check_stop
from fastrnn.text.vocabulary import check_newline, check_unknown

if TYPE_CHECKING:
    from fastrnn.hints import NewLine, RandomState, Several
    from fastrnn.language_model import LanguageModel
    from fastrnn.text.snapshot import Run

__all__ = ["Sampling"]

#: Characters that one call of the kernels samples at most.  The first calls take fewer, 1, 2, 4 ..., so
#: that the first character is there at once.
SAMPLE_CHUNK = 4096

#: Characters of a prompt that are read at a time.
PROMPT_CHUNK = 1024

#: What an untrained start is preceded by: the first of these that the vocabulary has.
STARTS = "\n "


class Sampling(Shared):
    """What `CharRNN` writes."""

    __slots__ = ()

    unknown: str | None
    newline: NewLine | None

    def _fitted_run(self) -> Run:
        raise NotImplementedError

    @overload
    def generate(
        self,
        n: int,
        prompt: str = "",
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_samples: Literal[1] = 1,
        random_state: RandomState = None,
        stop: str | Sequence[str] | None = None,
    ) -> str: ...
    @overload
    def generate(
        self,
        n: int,
        prompt: str = "",
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_samples: Several,
        random_state: RandomState = None,
        stop: str | Sequence[str] | None = None,
    ) -> list[str]: ...
    @overload
    def generate(
        self,
        n: int,
        prompt: str = "",
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_samples: int,
        random_state: RandomState = None,
        stop: str | Sequence[str] | None = None,
    ) -> str | list[str]: ...
    @reading  # type: ignore[misc] # it keeps the signature
    def generate(
        self,
        n: int,
        prompt: str = "",
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_samples: int = 1,
        random_state: RandomState = None,
        stop: str | Sequence[str] | None = None,
    ) -> str | list[str]:
        """Write `n` characters, or up to a string.

        Parameters
        ----------
        n : int
            Characters of each sample, 0 or more.
        prompt : str
            What the model reads first; it is not part of the result.  Without one it begins as after a
            line break if its vocabulary has one, else as after a blank, else as after its first character.
        temperature : float, default 1.0
            At least 0; the logits are divided by it.  Below 1 the model plays safe, above 1 it dares more;
            0 always takes the most probable character.
        top_k : int or None
            Draw from the `top_k` most probable characters only.
        top_p : float or None
            Draw from the most probable characters that make up this probability, in (0, 1].
        num_samples : int, default 1
            Number of samples, all from the same prompt.
        random_state : int, numpy.random.Generator, numpy.random.RandomState or None
            Seed of the draws; a Generator or RandomState is drawn from.
        stop : str, sequence of str, or None
            A sample ends before this string, if it comes to write it; of several strings, before the one
            that is complete first.  The prompt does not count.  The characters before it are the same as
            without `stop`.  One with characters that the model does not know never comes.

        Returns
        -------
        str, or list of str if `num_samples` is more than 1
            Of `n` characters each, or fewer where `stop` ended it.

        Raises
        ------
        TextError
            If `prompt` holds characters that the model never saw and `unknown` does not allow.
        TypeError, ValueError
            If another argument is not one of the above.

        Examples
        --------
        >>> from fastrnn import CharRNN
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit("hello world. " * 40)
        >>> len(model.generate(20, "hello", random_state=0))
        20
        >>> [len(sample) for sample in model.generate(5, num_samples=3)]
        [5, 5, 5]
        >>> " " in model.generate(100, "hello", random_state=0, stop=" ")
        False
        """
        n = check_size(n, "n", minimum=0)
        num_samples = check_size(num_samples, "num_samples")
        strings = check_stop(stop)
        run = self._fitted_run()
        decode = run.vocabulary.decode
        with being_read(run.model, "generate"):
            chunks = self._chunks(
                run, n, prompt, num_samples,
                temperature=temperature, top_k=top_k, top_p=top_p, rng=random_state,
            )  # fmt: skip
            if strings:
                samples = _until_stopped(chunks, [StopStrings(strings) for _ in range(num_samples)], decode)
            else:  # at once, which takes a fraction of the time
                indices = [np.empty((num_samples, 0), INDEX), *chunks]
                samples = [decode(row) for row in np.concatenate(indices, axis=1)]
        return samples[0] if num_samples == 1 else samples

    @reading
    def stream(
        self,
        n: int | None = None,
        prompt: str = "",
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        random_state: RandomState = None,
        stop: str | Sequence[str] | None = None,
    ) -> Iterator[str]:
        """Write characters one by one, the same ones as `generate` with the same seed.

        Parameters
        ----------
        n : int or None
            How many; None never ends.
        prompt, temperature, top_k, top_p, random_state, stop
            As for `generate`.  Characters that `stop` may begin with wait until that is decided.

        Returns
        -------
        iterator of str
            Single characters.  The first is there at once; later ones are made some thousand ahead.

        Raises
        ------
        TextError, TypeError, ValueError
            As `generate`, before the first character.

        Examples
        --------
        >>> from fastrnn import CharRNN
        >>> model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, verbose=0).fit("hello world. " * 40)
        >>> "".join(model.stream(20, random_state=0)) == model.generate(20, random_state=0)
        True
        """
        if n is not None:
            n = check_size(n, "n", minimum=0)
        ending = StopStrings(check_stop(stop))
        run = self._fitted_run()
        decode = run.vocabulary.decode
        with being_read(run.model, "stream"):
            chunks = self._chunks(
                run, n, prompt, 1, temperature=temperature, top_k=top_k, top_p=top_p, rng=random_state
            )
        return itertools.chain.from_iterable(ending.cut(decode(chunk[0]) for chunk in chunks))

    def _chunks(
        self, run: Run, n: int | None, prompt: Any, num_samples: int, **options: Any
    ) -> Iterator[np.ndarray]:
        """Class indices, shape (num_samples, ...), chunk by chunk.

        Arguments are checked now.  What comes is of the model as it is now, which `fit` may replace.
        """
        vocabulary = run.vocabulary
        options["rng"] = generator(options["rng"])
        check_unknown(self.unknown)
        check_newline(self.newline)
        if not isinstance(prompt, str):
            raise TypeError(f"prompt must be a str, got {type(prompt).__name__}")
        try:
            read = vocabulary.encode(prompt, self.unknown, self.newline)
        except TextError as error:
            raise TextError(f"prompt: {error.message}", *error.settings) from None
        if not len(read):
            read = vocabulary.encode(next((c for c in STARTS if c in vocabulary), vocabulary[0]))
        model = run.model
        h = run.start
        for begin in range(0, len(read) - 1, PROMPT_CHUNK):
            piece = read[begin : min(begin + PROMPT_CHUNK, len(read) - 1)]
            h = model.forward(piece[:, None], h)[1]
        h = map_state(partial(np.repeat, repeats=num_samples, axis=1), h)
        start = np.full(num_samples, read[-1])
        model.sample(h, start, 0, **options)  # checks the options, before anybody asks for a character
        return _draw(model, h, start, n, options)


def _draw(
    model: LanguageModel, h: State, start: np.ndarray, n: int | None, options: dict[str, Any]
) -> Iterator[np.ndarray]:
    done, size = 0, 1
    while n is None or done < n:
        size = size if n is None else min(size, n - done)
        indices, h = model.sample(h, start, size, **options)
        start = indices[:, -1].copy()
        yield indices
        done += size
        size = min(2 * size, SAMPLE_CHUNK)


def _until_stopped(
    chunks: Iterator[np.ndarray], stops: list[StopStrings], decode: Callable[[np.ndarray], str]
) -> list[str]:
    """Samples that come in chunks of class indices, each as far as its `StopStrings` let it go."""
    pieces: list[list[str]] = [[] for _ in stops]
    for chunk in chunks:
        for sample, ending, row in zip(pieces, stops, chunk, strict=True):
            if not ending.found:
                sample.append(ending.take(decode(row)))
        if all(ending.found for ending in stops):
            break
    return ["".join(sample) + ending.rest() for sample, ending in zip(pieces, stops, strict=True)]
