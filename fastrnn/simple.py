"""`SimpleRNN`: the study notes' class over compiled kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn import backends, threads
from fastrnn.checks import (
    CLIP_MODES,
    INDEX,
    check_clip,
    check_dtype,
    check_index,
    check_indices,
    check_inputs,
    check_number,
    check_real_array,
    check_rng,
    check_sequence_targets,
    check_size,
)
from fastrnn.random_stream import UniformDraws
from fastrnn.sharing import changing, reading
from fastrnn.simple_weights import PARAMETERS, SIZES, Gradients, SimpleWeights, Space
from fastrnn.stepper import Source, Steppable
from fastrnn.steps import OneHotSteps, Steps

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import BackendName, Dtype, Seed, StepClip

__all__ = ["SimpleRNN"]

#: What `SimpleRNN.forward` returns; ``isinstance`` of an abstract class takes ten times as long.
_OWN_MAPPINGS = frozenset((Steps, OneHotSteps))

#: Threshold of the clamp in the notes' listing.
STEP_LIMIT = 5.0


def _time_steps(steps: Any) -> range | None:
    """Keys of a mapping that `SimpleRNN.forward` returned and whose keys nobody changed, else None."""
    return steps.time_steps if type(steps) in _OWN_MAPPINGS else None


def _stream_state(generator: np.random.Generator | None) -> Any:
    """State of `generator`, or of NumPy's global stream."""
    return np.random.get_state(legacy=False) if generator is None else generator.bit_generator.state


def _restore_stream(generator: np.random.Generator | None, state: Any) -> None:
    if generator is None:
        np.random.set_state(state)
    else:
        generator.bit_generator.state = state


class SimpleRNN(SimpleWeights, Steppable):
    r"""Vanilla recurrent network with a softmax output, one sequence at a time.

    A drop-in replacement for the class in section 13 of the study notes:
    :math:`h_t = \tanh(W_{xh} x_t + W_{hh} h_{t-1} + b_h)` (eq. 1) and
    :math:`y_t = W_{hy} h_t + b_y` (eq. 2).  Equation numbers are those of ``docs/notes.md``, which
    retells the notes.

    Parameters
    ----------
    input_size : int
        Input size d.
    hidden_size : int
        Hidden size h.
    output_size : int
        Output size q.
    dtype : {float64, float32}, default float64
        Of the parameters and of every result.
    rng : numpy.random.Generator, int or None
        Where the weights are drawn from; an int is a seed.  None draws from NumPy's global stream in
        the notes' order, so that ``np.random.seed`` gives the notes' weights bit for bit.
    backend : {"cython", "numba", "numpy"} or None
        None follows `fastrnn.backend` at every call.

    Attributes
    ----------
    Wxh : ndarray, shape (h, d)
        From the input to the state, :math:`W_{xh}` of eq. 1; a column for each class.  Drawn from a normal
        distribution of standard deviation 0.01, as are the next two.
    Whh : ndarray, shape (h, h)
        From the state before to the state, :math:`W_{hh}` of eq. 1.
    Why : ndarray, shape (q, h)
        From the state to the logits, :math:`W_{hy}` of eq. 2; a row for each class.
    bh : ndarray, shape (h, 1)
        Bias of the state, :math:`b_h` of eq. 1.  Begins as zeros.
    by : ndarray, shape (q, 1)
        Bias of the logits, :math:`b_y` of eq. 2.  Begins as zeros.
    input_size, hidden_size, output_size : int
        d, h and q.  They may be assigned the value that they have.

    Raises
    ------
    TypeError, ValueError
        If a size is not a positive integer, or another argument is not one of the above; later, if a weight
        of another shape or a size of another value is assigned.
    BackendUnavailable
        If the backend that was named is missing.

    Notes
    -----
    The five weights are plain arrays in the model's dtype.  Read them, change them in place or assign
    others of the same shape: the next call sees the change.

    Any number of threads may use one object at once.  `train_step` and `update_weights` change it and have it
    to themselves: who comes meanwhile from another thread, or calls one of these while others are in, gets a
    RuntimeError, and nothing changes.  What the methods return are new arrays: no later call writes to them.

    ``vars(rnn)`` holds the three sizes, the five weights, and what a subclass or the user adds, as that of
    the notes' class does; no buffers.  Weights that are put there past the attributes
    (``vars(rnn).update(saved)``) are checked by the next call.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import SimpleRNN
    >>> rnn = SimpleRNN(26, 100, 26, rng=0)
    >>> rnn.num_parameters
    15326
    >>> xs, hs, ps = rnn.forward([7, 4, 11], np.zeros((100, 1)))
    >>> ps[2].shape, len(xs), list(hs)
    ((26, 1), 3, [-1, 0, 1, 2])
    >>> list(vars(rnn))
    ['input_size', 'hidden_size', 'output_size', 'Wxh', 'Whh', 'Why', 'bh', 'by']
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        *,
        dtype: Dtype = np.float64,
        rng: Seed = None,
        backend: BackendName | None = None,
    ) -> None:
        d = check_size(input_size, "input_size")
        h = check_size(hidden_size, "hidden_size")
        q = check_size(output_size, "output_size")
        dtype = check_dtype(dtype)
        generator = check_rng(rng)
        if backend is not None:
            backends.load(backend)
        draw = np.random.standard_normal if generator is None else generator.standard_normal
        before = _stream_state(generator)
        try:
            params = (
                (draw((h, d)) * 0.01).astype(dtype, copy=False),
                (draw((h, h)) * 0.01).astype(dtype, copy=False),
                (draw((q, h)) * 0.01).astype(dtype, copy=False),
                np.zeros((h, 1), dtype),
                np.zeros((q, 1), dtype),
            )
        except (MemoryError, ValueError) as error:  # how NumPy refuses a large and a huge array
            _restore_stream(generator, before)
            raise (MemoryError if isinstance(error, MemoryError) else ValueError)(
                f"input_size = {d}, hidden_size = {h} and output_size = {q} make weights that do not "
                f"fit in memory: {error}"
            ) from None
        if hasattr(self, "_params"):  # made anew, maybe of other sizes
            del self._params
        for name, value in zip(SIZES + PARAMETERS, (d, h, q, *params), strict=True):
            setattr(self, name, value)
        self._set_up((d, h, q), params, dtype, backend)

    @property
    def dtype(self) -> np.dtype:
        """numpy.dtype of the parameters and of every result."""
        if not hasattr(self, "_params"):
            self._take_attributes()
        return self._dtype

    @property
    def num_parameters(self) -> int:
        """Number of trainable numbers, ``h (d + h + q + 1) + q`` (eq. 3).

        Examples
        --------
        >>> SimpleRNN(26, 100, 26).num_parameters
        15326
        """
        self._kernel_params()
        return self._h * (self._d + self._h + self._q + 1) + self._q

    def _repr_html_(self) -> str:
        from fastrnn.shown import parameters_html

        return parameters_html(self, {name: getattr(self, name) for name in PARAMETERS})

    def __repr__(self) -> str:
        if not hasattr(self, "_params"):
            return super().__repr__()
        return f"SimpleRNN({self._d}, {self._h}, {self._q}, dtype={self._dtype.name})"

    @reading
    def forward(self, inputs: ArrayLike, h_prev: ArrayLike) -> tuple[Steps, Steps, Steps]:
        """Run over a sequence (eqs. 1, 2, 16, 17).

        Parameters
        ----------
        inputs : sequence of T int, or array of real numbers, shape (T, d) or (T, d, 1)
            Class indices in ``[-d, d)``, taken as one-hot vectors, or the vectors themselves.
        h_prev : array, shape (h, 1)
            State before the first input.

        Returns
        -------
        xs : mapping of int to ndarray, shape (d, 1)
            Input of each time step.
        hs : mapping of int to ndarray, shape (h, 1)
            State of each time step; ``hs[-1]`` is a copy of `h_prev`.
        ps : mapping of int to ndarray, shape (q, 1)
            Probabilities of each time step.

            Each is a view on one array, ``.array``, with a row for each key; what is written into
            ``ps[t]`` is what `backward` reads.  They do what the notes' dicts do: keys may be assigned,
            added and deleted.

        Raises
        ------
        IndexError
            If a class index is out of bounds.
        TypeError, ValueError
            If an argument has the wrong type or shape, or is empty.

        Examples
        --------
        >>> rnn = SimpleRNN(3, 8, 3, rng=0)
        >>> xs, hs, ps = rnn.forward([0, 1, 2], np.zeros((8, 1)))
        >>> round(float(ps[0].sum()), 12)
        1.0
        >>> ps.array.shape, hs.array.shape
        ((3, 3), (4, 8))
        """
        params = self._kernel_params()
        kernels = backends.kernels(self._backend)
        indices, x = check_inputs(inputs, self._d, self._dtype, kernels)
        h_prev = self._check_state(h_prev, "h_prev")
        T = len(indices) or len(x)
        hs = np.empty((T + 1, self._h), self._dtype)
        ps = np.empty((T, self._q), self._dtype)
        hs[0] = h_prev[:, 0]
        space = self._take_space()
        size = kernels.workspace_size(T, self._d, self._h, self._q)
        kernels.forward(
            params, (indices, x), hs, ps, space.work(size), self._members(space, kernels, "forward", T, x)
        )
        self._give_space(space, T)
        if len(indices):
            return OneHotSteps(indices, self._d, self._dtype), Steps(hs, -1), Steps(ps)
        # The caller may change its inputs before it calls backward: keep what was used.
        if not isinstance(inputs, (list, tuple)) and np.may_share_memory(x, inputs):
            x = x.copy()
        return Steps(x), Steps(hs, -1), Steps(ps)

    @reading
    def backward(
        self,
        xs: Mapping[int, np.ndarray],
        hs: Mapping[int, np.ndarray],
        ps: Mapping[int, np.ndarray],
        targets: ArrayLike,
    ) -> Gradients:
        """Backpropagate the softmax cross-entropy through time (eqs. 7 to 13).

        Every accumulator is clamped to [-5, 5] after every time step, as the listing prints it.

        Parameters
        ----------
        xs, hs, ps : mapping of int to ndarray
            As `forward` returns them, or plain dicts of ``(n, 1)`` arrays.
        targets : sequence of T int
            Class index of each time step, in ``[-q, q)``.

        Returns
        -------
        dWxh, dWhh, dWhy, dbh, dby : ndarray
            Gradients in the shapes of the parameters.

        Raises
        ------
        IndexError
            If a target is out of bounds.
        TypeError, ValueError
            If an argument has the wrong type, shape or length.

        Examples
        --------
        >>> rnn = SimpleRNN(3, 8, 3, rng=0)
        >>> steps = rnn.forward([0, 1, 2], np.zeros((8, 1)))
        >>> [g.shape for g in rnn.backward(*steps, [1, 2, 0])]
        [(8, 3), (8, 8), (3, 8), (8, 1), (3, 1)]
        """
        params = self._kernel_params()
        kernels = backends.kernels(self._backend)
        for name, steps in (("xs", xs), ("hs", hs), ("ps", ps)):
            if type(steps) not in _OWN_MAPPINGS and not isinstance(steps, Mapping):
                raise TypeError(
                    f"{name} must be a mapping from time step to array, got {type(steps).__name__}"
                )
        T = len(xs)
        if not T:
            raise ValueError("xs must hold at least one time step, got none")
        if isinstance(xs, OneHotSteps) and xs.indices is not None and xs.width == self._d:
            # Checked like any other: `indices` is open to whoever holds the mapping.
            indices = check_indices(xs.indices, "xs.indices", self._d, kernels, length=T)
            x = np.empty((0, self._d), self._dtype)
        else:
            indices, x = np.empty(0, INDEX), self._stack(xs, "xs", range(T), self._d)
        whole = _time_steps(xs) is not None
        states = self._stack(hs, "hs", range(-1, T), self._h, whole)
        probabilities = self._stack(ps, "ps", range(T), self._q, whole)
        targets = check_sequence_targets(targets, self._q, kernels, T)
        grads = self._new_gradients()
        space = self._take_space()
        work = space.work(kernels.workspace_size(T, self._d, self._h, self._q))
        members = self._members(space, kernels, "backward", T, x)
        kernels.backward(
            params, (indices, x), targets, states, probabilities, STEP_LIMIT, grads, work, members
        )
        self._give_space(space, T)
        return grads

    @changing
    def update_weights(self, grads: Sequence[ArrayLike], lr: float = 0.1) -> None:
        """Take one step of gradient descent, in place: ``W -= lr * dW``.

        Parameters
        ----------
        grads : sequence of 5 arrays
            As `backward` returns them.
        lr : float, default 0.1
            Learning rate.

        Raises
        ------
        TypeError, ValueError
            If `grads` is not five arrays in the shapes of the parameters, `lr` is not a finite
            number, or a parameter is read-only; no parameter is modified then.

        Examples
        --------
        >>> rnn = SimpleRNN(3, 8, 3, rng=0)
        >>> rnn.update_weights([np.ones_like(W) for W in (rnn.Wxh, rnn.Whh, rnn.Why, rnn.bh, rnn.by)])
        >>> float(rnn.by[0, 0])
        -0.1
        """
        params = self._writable_params()
        kernels = backends.kernels(self._backend)
        lr = self._check_rate(lr)
        if not isinstance(grads, (tuple, list)):
            raise TypeError(f"grads must be a tuple or list of 5 arrays, got {type(grads).__name__}")
        if len(grads) != len(PARAMETERS):
            raise ValueError(f"grads must hold 5 arrays (dWxh, dWhh, dWhy, dbh, dby), got {len(grads)}")
        checked = tuple(
            check_real_array(g, f"grads[{i}] (d{name})", self._dtype, shape)
            for i, (g, name, shape) in enumerate(zip(grads, PARAMETERS, self._shapes, strict=True))
        )
        if params is self._params:
            kernels.update(params, checked, lr)
        else:
            self._descend(checked, lr)

    @reading
    def loss_and_grads(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        h_prev: ArrayLike,
        *,
        clip: StepClip | None = "step",
        clip_threshold: float = 5.0,
    ) -> tuple[float, Gradients, np.ndarray]:
        """Cross-entropy of a sequence (eqs. 5, 6) and its gradients (eqs. 7 to 13) in one call.

        Parameters
        ----------
        inputs : sequence of T int, or array of real numbers, shape (T, d) or (T, d, 1)
            Class indices in ``[-d, d)``, taken as one-hot vectors, or the vectors themselves.
        targets : sequence of T int
            Class index of each time step, in ``[-q, q)``.
        h_prev : array, shape (h, 1)
            State before the first input.
        clip : {"step", "value", "norm"} or None, default "step"
            Clamp every accumulator after every time step, as the listing does; clamp the gradients
            once, after the loop; rescale them by the global norm over all five (eq. 15); nothing.
        clip_threshold : float, default 5.0
            Positive; infinity clips nothing.

        Returns
        -------
        loss : float
            In nats, summed over the sequence.  Divide it by T for nats per step, or per character.
        grads : tuple of 5 ndarray
            dWxh, dWhh, dWhy, dbh, dby, in the shapes of the parameters; new arrays.
        h_last : ndarray, shape (h, 1)
            State after the last input.

        Raises
        ------
        IndexError, TypeError, ValueError
            As `forward` and `backward`.

        Examples
        --------
        >>> rnn = SimpleRNN(3, 8, 3, rng=0)
        >>> loss, grads, h_last = rnn.loss_and_grads([0, 1], [1, 2], np.zeros((8, 1)))
        >>> round(loss, 2), h_last.shape
        (2.2, (8, 1))
        """
        params = self._kernel_params()
        kernels = backends.kernels(self._backend)
        space, inputs, targets, hs, ps, mode, work, members = self._training_arguments(
            kernels, inputs, targets, h_prev, clip, clip_threshold
        )
        grads = self._new_gradients()
        loss = kernels.loss_and_grads(params, inputs, targets, hs, ps, mode, grads, work, members)
        h_last = hs[-1:].T.copy()  # first: the space may be another call's as soon as it is given back
        self._give_space(space, len(hs) - 1)
        return loss, grads, h_last

    @changing
    def train_step(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        h_prev: ArrayLike,
        lr: float = 0.1,
        *,
        clip: StepClip | None = "step",
        clip_threshold: float = 5.0,
    ) -> tuple[float, np.ndarray]:
        """`loss_and_grads`, then `update_weights`: the fastest way to train on one sequence.

        Parameters
        ----------
        inputs, targets, h_prev, clip, clip_threshold
            As for `loss_and_grads`.
        lr : float, default 0.1
            Learning rate.

        Returns
        -------
        loss : float
            In nats, summed over the sequence, before the update.
        h_last : ndarray, shape (h, 1)
            State after the last input, a new array.  Give it as `h_prev` to go on with the text.

        Raises
        ------
        IndexError, TypeError, ValueError
            As `loss_and_grads` and `update_weights`; no parameter is modified then.

        Examples
        --------
        >>> rnn = SimpleRNN(3, 8, 3, rng=0)
        >>> h = np.zeros((8, 1))
        >>> losses = [rnn.train_step([0, 1, 2], [1, 2, 0], h)[0] for _ in range(500)]
        >>> losses[-1] < 0.1 < losses[0]
        True
        """
        params = self._writable_params()
        kernels = backends.kernels(self._backend)
        lr = self._check_rate(lr)
        if self._grads is None:
            self._grads = self._new_gradients()
        space, inputs, targets, hs, ps, mode, work, members = self._training_arguments(
            kernels, inputs, targets, h_prev, clip, clip_threshold
        )
        grads = self._grads
        loss: float
        if params is self._params:
            loss = kernels.train_step(params, inputs, targets, hs, ps, mode, lr, grads, work, members)
        else:
            loss = kernels.loss_and_grads(params, inputs, targets, hs, ps, mode, grads, work, members)
            self._descend(grads, lr)
        h_last = hs[-1:].T.copy()  # first: the space may be another call's as soon as it is given back
        self._give_space(space, len(hs) - 1)
        return loss, h_last

    @reading
    def sample(self, h: ArrayLike, start_index: int, n: int, *, rng: Seed = None) -> list[int]:
        """Draw a sequence of class indices, each fed back as the next input.

        Parameters
        ----------
        h : array, shape (h, 1)
            State before the first input; not modified.
        start_index : int
            First input, in ``[-d, d)``.
        n : int
            Number of indices to draw.
        rng : numpy.random.Generator, int or None
            None draws from NumPy's global stream, the same numbers that
            ``np.random.choice(range(q), p=p)`` would take n times.

        Returns
        -------
        list of n int
            Class indices in ``[0, q)``.

        Raises
        ------
        IndexError
            If `start_index` is out of bounds.
        TypeError, ValueError
            If an argument has the wrong type or shape, the output is larger than the input that
            it is fed back to, or the probabilities are not numbers; the random stream is left
            as it was.

        Examples
        --------
        >>> rnn = SimpleRNN(3, 8, 3, rng=0)
        >>> len(rnn.sample(np.zeros((8, 1)), 0, 5, rng=1))
        5
        """
        params = self._kernel_params()
        kernels = backends.kernels(self._backend)
        state = self._check_state(h, "h").copy()
        start = check_index(start_index, "start_index", self._d)
        n = check_size(n, "n", minimum=0)
        if self._q > self._d:
            raise ValueError(
                f"sample feeds each output back as an input, so output_size must be at most "
                f"input_size = {self._d}, got {self._q}"
            )
        generator = check_rng(rng)
        out = np.empty(n, INDEX)
        draws = UniformDraws(generator, n)
        space = self._take_space()
        work = space.work(kernels.workspace_size(n, self._d, self._h, self._q))
        drawn = kernels.sample(
            params, state, start, draws.values, out, work, self._members(space, kernels, "sample", n)
        )
        self._give_space(space, n)
        if drawn < n:
            draws.put_back()
            raise ValueError(
                f"the probabilities of index {drawn} of {n} are not numbers: the weights or the "
                f"state hold NaN or infinity"
            )
        indices: list[int] = out.tolist()
        return indices

    # -- what the methods share ------------------------------------------------------------------

    def _training_arguments(
        self, kernels: ModuleType, inputs: Any, targets: Any, h_prev: Any, clip: Any, clip_threshold: Any
    ) -> tuple[Any, ...]:
        """Check the arguments of one training call; return what the kernels take for them."""
        clip = check_clip(clip, clip_threshold, CLIP_MODES)
        inputs = check_inputs(inputs, self._d, self._dtype, kernels)
        T = len(inputs[0]) or len(inputs[1])
        targets = check_sequence_targets(targets, self._q, kernels, T)
        h_prev = self._check_state(h_prev, "h_prev")
        space = self._take_space()
        hs, ps = space.steps(T, self._h, self._q)
        hs[0] = h_prev[:, 0]
        work = space.work(kernels.workspace_size(T, self._d, self._h, self._q))
        return (
            space,
            inputs,
            targets,
            hs,
            ps,
            clip,
            work,
            self._members(space, kernels, "train", T, inputs[1]),
        )

    def _members(self, space: Space, kernels: ModuleType, kind: str, T: int, x: Sized = ()) -> int:
        """Threads that share a call of T time steps; `x` holds the vectors, where inputs are no class indices."""
        if not kernels.HAS_TEAMS:
            return 1
        weights = self._h * (self._h + self._q + (self._d if len(x) else 0))
        return space.begin(kind, threads.team(weights, T, None))

    def _descend(self, grads: Gradients, lr: float) -> None:
        """Update parameters that kernels cannot take as they are, one after another as the notes do: views
        may share their memory, as tied weights do, and a subclass may compute one of another."""
        with np.errstate(all="ignore"):
            for name, dW in zip(PARAMETERS, grads, strict=True):
                W = getattr(self, name)
                W -= lr * dW
                setattr(self, name, W)

    def _check_rate(self, lr: Any) -> float:
        rate = check_number(lr, "lr")
        if abs(rate) > self._largest:
            raise ValueError(f"lr must be at most {self._largest:.3g}, the largest {self._dtype}, got {rate}")
        return rate

    def _check_state(self, value: Any, name: str) -> np.ndarray:
        return check_real_array(value, name, self._dtype, self._shapes[3])

    def _stack(self, steps: Any, name: str, keys: range, n: int, same_run: bool = False) -> np.ndarray:
        """The vectors of a mapping as one (steps, n) array, without a copy where it has one.  Of the `same_run`
        it has no more time steps than these."""
        held = _time_steps(steps)
        if held is not None:
            if same_run and held != keys:
                raise ValueError(f"{name} must hold time steps {keys[0]} to {keys[-1]}, got {steps!r}")
            if held.start == keys.start and len(held) >= len(keys):
                return check_real_array(steps.array[: len(keys)], name, self._dtype, (len(keys), n))
        stacked = np.empty((len(keys), n), self._dtype)
        for row, t in zip(stacked, keys, strict=True):
            if t not in steps:
                among = f" in {steps!r}" if isinstance(steps, Steps) else ""
                raise ValueError(
                    f"{name} must hold time steps {keys[0]} to {keys[-1]}, {t} is missing{among}"
                )
            row[:] = check_real_array(steps[t], f"{name}[{t}]", self._dtype, (n, 1))[:, 0]
        return stacked

    def _new_gradients(self) -> Gradients:
        return tuple(np.empty(shape, self._dtype) for shape in self._shapes)

    def _step_source(self) -> Source:
        from fastrnn.cells import TANH
        from fastrnn.passes import Net

        Wxh, Whh, Why, bh, by = self._kernel_params()
        layer = Wxh, Whh, bh.reshape(-1), np.zeros(self._h, self._dtype)
        net = Net(self._dtype, TANH, self._d, self._h, self._q)
        output = Why, by.reshape(-1)
        return Source(backends.kernels(self._backend), net, [layer], output, probabilities=True, flat=True)

    def _give_space(self, space: Space, T: int) -> None:
        """Keep the memory of a call of T time steps for the next one."""
        space.end(T)
        self._spaces.append(space)

    def _take_space(self) -> Space:
        try:
            return self._spaces.pop()
        except IndexError:
            return Space(self._dtype)
