r"""GRU and LSTM as plain NumPy loops, one sequence and one small operation at a time: the truth for tests, and the way
to learn them.  Read `fastrnn.reference` first.

In both, a gate is a vector of numbers between 0 and 1, one for each hidden unit, that says how much goes through:
:math:`\sigma(x) = 1 / (1 + e^{-x})` of a sum like that of a vanilla net.  What :math:`h_t` depends on besides a product
is multiplied by a gate, which the net can learn to keep open: so a gradient need not die out on its way back.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import Dtype, Seed

__all__ = ["ReferenceGRU", "ReferenceLSTM"]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # far below zero: 1 / (1 + inf) is the 0 that is meant
        return np.asarray(1 / (1 + np.exp(-x)))


class _Reference:
    """What both share: weights under PyTorch's names, and inputs."""

    #: Their names in the equations, in PyTorch's order.
    gates: tuple[str, ...]

    def __init__(
        self, input_size: int, hidden_size: int, *, dtype: Dtype = np.float64, rng: Seed = None
    ) -> None:
        self.input_size, self.hidden_size = input_size, hidden_size
        rows, generator = len(self.gates) * hidden_size, np.random.default_rng(rng)
        bound = 1 / math.sqrt(hidden_size)
        shapes = {
            "weight_ih_l0": (rows, input_size), "weight_hh_l0": (rows, hidden_size),
            "bias_ih_l0": (rows,), "bias_hh_l0": (rows,),
        }  # fmt: skip
        self.parameters = {
            name: generator.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes.items()
        }
        self.grads: dict[str, np.ndarray] = {}

    @property
    def num_parameters(self) -> int:
        """Number of trainable numbers."""
        return sum(W.size for W in self.parameters.values())

    def _array(self, values: ArrayLike) -> np.ndarray:
        """Numbers in the dtype of the weights."""
        return np.asarray(values, self.parameters["weight_ih_l0"].dtype)

    def _column(self, value: Any) -> np.ndarray:
        """One input as a (d,) vector: a class index becomes one-hot."""
        if isinstance(value, (int, np.integer)):
            x = self._array(np.zeros(self.input_size))
            x[value] = 1
            return x
        return self._array(value)

    def _first(self, state: ArrayLike | None) -> np.ndarray:
        """A state, or its gradient, to begin with, (h,)."""
        return self._array(np.zeros(self.hidden_size) if state is None else state).reshape(-1).copy()

    def _parts(self, x: np.ndarray, h: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Of each gate what comes from the input, ``W_i x_t + b_i``, and from the state, ``W_h h_{t-1} + b_h``."""
        p = self.parameters
        inputs = np.dot(p["weight_ih_l0"], x) + p["bias_ih_l0"]
        recurrent = np.dot(p["weight_hh_l0"], h) + p["bias_hh_l0"]
        count = len(self.gates)
        return (
            dict(zip(self.gates, np.split(inputs, count), strict=True)),
            dict(zip(self.gates, np.split(recurrent, count), strict=True)),
        )

    def _begin_gradients(self) -> None:
        self.grads = {name: np.zeros_like(W) for name, W in self.parameters.items()}

    def _add_gradients(
        self,
        x: np.ndarray,
        h: np.ndarray,
        d_inputs: dict[str, np.ndarray],
        d_recurrent: dict[str, np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Add the terms of a step, those of eqs. 11 and 13; gradients of x_t and, by the product, of h_{t-1} (eq. 12)."""
        di = np.concatenate([d_inputs[gate] for gate in self.gates])
        dr = np.concatenate([d_recurrent[gate] for gate in self.gates])
        self.grads["weight_ih_l0"] += np.outer(di, x)
        self.grads["bias_ih_l0"] += di
        self.grads["weight_hh_l0"] += np.outer(dr, h)
        self.grads["bias_hh_l0"] += dr
        return np.dot(self.parameters["weight_ih_l0"].T, di), np.dot(self.parameters["weight_hh_l0"].T, dr)


class ReferenceGRU(_Reference):
    r"""A gated recurrent unit over one sequence, one small NumPy operation at a time.

    .. math::

        r_t &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
        z_t &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
        n_t &= \tanh(W_{in} x_t + b_{in} + r_t \odot (W_{hn} h_{t-1} + b_{hn})) \\
        h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}

    Arguments are not checked.

    Parameters
    ----------
    input_size, hidden_size : int
        d and h.
    dtype : {float64, float32}, default float64
        Of the weights.
    rng : numpy.random.Generator, int or None
        Where the weights are drawn from: the same seed gives those of `fastrnn.GRU` in the same dtype.

    Attributes
    ----------
    parameters : dict of str to ndarray
        ``weight_ih_l0`` (3h, d), ``weight_hh_l0`` (3h, h), ``bias_ih_l0`` (3h,), ``bias_hh_l0`` (3h,), with a block of h
        rows for each of r, z and n.
    grads : dict of str to ndarray
        Gradients under the same names, written by `backward`.

    References
    ----------
    K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
    EMNLP 2014.  As in PyTorch, :math:`r_t` is behind the product with :math:`W_{hn}`.

    Examples
    --------
    >>> from fastrnn import GRU, ReferenceGRU
    >>> x = np.random.default_rng(0).normal(size=(5, 3))
    >>> output, h_n = ReferenceGRU(3, 8, rng=0).forward(x)
    >>> fast_output, fast_h_n = GRU(3, 8, rng=0, dtype="float64").forward(x)
    >>> bool(np.allclose(output, fast_output)), bool(np.allclose(h_n, fast_h_n))
    (True, True)
    """

    gates = ("r", "z", "n")

    def forward(self, x: ArrayLike, h0: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Run over a sequence.

        Parameters
        ----------
        x : sequence of T int, or array, shape (T, d)
            Class indices, taken as one-hot vectors, or the vectors themselves.
        h0 : array, shape (1, h), or None
            State before the first input; None for zeros.

        Returns
        -------
        output : ndarray, shape (T, h)
            State after each input.
        h_n : ndarray, shape (1, h)
            The last one.

        Examples
        --------
        >>> output, h_n = ReferenceGRU(3, 8, rng=0).forward([0, 2])
        >>> output.shape, h_n.shape
        ((2, 8), (1, 8))
        """
        self._steps = []
        h = self._first(h0)
        for value in x:  # type: ignore[union-attr]
            x_t, h_before = self._column(value), h
            i, s = self._parts(x_t, h_before)  # of the input and of the state
            r = _sigmoid(i["r"] + s["r"])
            z = _sigmoid(i["z"] + s["z"])
            n = np.tanh(i["n"] + r * s["n"])
            h = (1 - z) * n + z * h_before
            self._steps.append((x_t, h_before, r, z, n, s["n"], h))
        return np.array([step[-1] for step in self._steps]), h[None]

    def backward(
        self, grad_output: ArrayLike, grad_h_n: ArrayLike | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        r"""Backpropagate through the last `forward`; the gradients of the weights are written to `grads`.

        Parameters
        ----------
        grad_output : array, shape (T, h)
            Gradient of the loss with respect to `output`.
        grad_h_n : array, shape (1, h), or None
            With respect to `h_n`; None for zeros.

        Returns
        -------
        grad_x : ndarray, shape (T, d)
        grad_h0 : ndarray, shape (1, h)

        Notes
        -----
        A hat is of what stands inside :math:`\sigma` or :math:`\tanh`, and :math:`s_t = W_{hn} h_{t-1} + b_{hn}`.

        .. math::

            dh_t &= d\,output_t + dh_{next} \\
            d\hat n_t &= dh_t \odot (1 - z_t) \odot (1 - n_t^2) \\
            d\hat z_t &= dh_t \odot (h_{t-1} - n_t) \odot z_t \odot (1 - z_t) \\
            d\hat r_t &= d\hat n_t \odot s_t \odot r_t \odot (1 - r_t) \\
            dh_{next} &= dh_t \odot z_t + W_{hr}^\top d\hat r_t + W_{hz}^\top d\hat z_t
            + W_{hn}^\top (r_t \odot d\hat n_t)

        Examples
        --------
        >>> gru = ReferenceGRU(3, 8, rng=0)
        >>> output, h_n = gru.forward([0, 2])
        >>> grad_x, grad_h0 = gru.backward(np.ones((2, 8)))
        >>> grad_x.shape, grad_h0.shape, gru.grads["weight_hh_l0"].shape
        ((2, 3), (1, 8), (24, 8))
        """
        self._begin_gradients()
        dh_next, grad_x = self._first(grad_h_n), []
        for (x, h_before, r, z, n, s_n, _), d_output in zip(
            reversed(self._steps), self._array(grad_output)[::-1], strict=True
        ):
            dh = d_output + dh_next
            dn = dh * (1 - z) * (1 - n * n)
            dz = dh * (h_before - n) * z * (1 - z)
            dr = dn * s_n * r * (1 - r)
            dx, dh_next = self._add_gradients(
                x, h_before, {"r": dr, "z": dz, "n": dn}, {"r": dr, "z": dz, "n": dn * r}
            )
            dh_next = dh_next + dh * z
            grad_x.append(dx)
        return np.array(grad_x[::-1]), dh_next[None]


class ReferenceLSTM(_Reference):
    r"""Long short-term memory over one sequence, one small NumPy operation at a time.

    .. math::

        i_t &= \sigma(W_{ii} x_t + b_{ii} + W_{hi} h_{t-1} + b_{hi}) \\
        f_t &= \sigma(W_{if} x_t + b_{if} + W_{hf} h_{t-1} + b_{hf}) \\
        g_t &= \tanh(W_{ig} x_t + b_{ig} + W_{hg} h_{t-1} + b_{hg}) \\
        o_t &= \sigma(W_{io} x_t + b_{io} + W_{ho} h_{t-1} + b_{ho}) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    Its state is the pair (h, c).  Arguments are not checked.

    Parameters
    ----------
    input_size, hidden_size : int
        d and h.
    dtype : {float64, float32}, default float64
        Of the weights.
    rng : numpy.random.Generator, int or None
        Where the weights are drawn from: the same seed gives those of `fastrnn.LSTM` in the same dtype.

    Attributes
    ----------
    parameters : dict of str to ndarray
        ``weight_ih_l0`` (4h, d), ``weight_hh_l0`` (4h, h), ``bias_ih_l0`` (4h,), ``bias_hh_l0`` (4h,), with a block of h
        rows for each of i, f, g and o.
    grads : dict of str to ndarray
        Gradients under the same names, written by `backward`.

    References
    ----------
    S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; the forget gate f is that of
    F. Gers, J. Schmidhuber and F. Cummins, "Learning to forget", Neural Computation 12(10), 2000.  A. Graves, "Generating
    sequences with recurrent neural networks", 2013, has it with peepholes, which are not here.

    Examples
    --------
    >>> from fastrnn import LSTM, ReferenceLSTM
    >>> x = np.random.default_rng(0).normal(size=(5, 3))
    >>> output, (h_n, c_n) = ReferenceLSTM(3, 8, rng=0).forward(x)
    >>> fast_output, (fast_h_n, fast_c_n) = LSTM(3, 8, rng=0, dtype="float64").forward(x)
    >>> bool(np.allclose(output, fast_output)), bool(np.allclose(c_n, fast_c_n))
    (True, True)
    """

    gates = ("i", "f", "g", "o")

    def forward(
        self, x: ArrayLike, h0: tuple[ArrayLike, ArrayLike] | None = None
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Run over a sequence.

        Parameters
        ----------
        x : sequence of T int, or array, shape (T, d)
            Class indices, taken as one-hot vectors, or the vectors themselves.
        h0 : pair of array, shape (1, h), or None
            (h0, c0), the states before the first input; None for zeros.

        Returns
        -------
        output : ndarray, shape (T, h)
            h after each input.
        (h_n, c_n) : tuple of 2 ndarray, shape (1, h)
            The last states.

        Examples
        --------
        >>> output, (h_n, c_n) = ReferenceLSTM(3, 8, rng=0).forward([0, 2])
        >>> output.shape, c_n.shape
        ((2, 8), (1, 8))
        """
        self._steps = []
        h, c = (self._first(state) for state in ((None, None) if h0 is None else h0))
        for value in x:  # type: ignore[union-attr]
            x_t, h_before, c_before = self._column(value), h, c
            inputs, recurrent = self._parts(x_t, h_before)
            i = _sigmoid(inputs["i"] + recurrent["i"])
            f = _sigmoid(inputs["f"] + recurrent["f"])
            g = np.tanh(inputs["g"] + recurrent["g"])
            o = _sigmoid(inputs["o"] + recurrent["o"])
            c = f * c_before + i * g
            h = o * np.tanh(c)
            self._steps.append((x_t, h_before, c_before, i, f, g, o, c, h))
        return np.array([step[-1] for step in self._steps]), (h[None], c[None])

    def backward(
        self, grad_output: ArrayLike, grad_h_n: tuple[ArrayLike, ArrayLike] | None = None
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        r"""Backpropagate through the last `forward`; the gradients of the weights are written to `grads`.

        Parameters
        ----------
        grad_output : array, shape (T, h)
            Gradient of the loss with respect to `output`.
        grad_h_n : pair of array, shape (1, h), or None
            With respect to h_n and c_n; None for zeros.

        Returns
        -------
        grad_x : ndarray, shape (T, d)
        (grad_h0, grad_c0) : tuple of 2 ndarray, shape (1, h)

        Notes
        -----
        A hat is of what stands inside :math:`\sigma` or :math:`\tanh`.

        .. math::

            dh_t &= d\,output_t + dh_{next} \\
            dc_t &= dc_{next} + dh_t \odot o_t \odot (1 - \tanh^2(c_t)) \\
            d\hat i_t &= dc_t \odot g_t \odot i_t \odot (1 - i_t) \\
            d\hat f_t &= dc_t \odot c_{t-1} \odot f_t \odot (1 - f_t) \\
            d\hat g_t &= dc_t \odot i_t \odot (1 - g_t^2) \\
            d\hat o_t &= dh_t \odot \tanh(c_t) \odot o_t \odot (1 - o_t) \\
            dc_{next} &= dc_t \odot f_t \\
            dh_{next} &= W_{hi}^\top d\hat i_t + W_{hf}^\top d\hat f_t + W_{hg}^\top d\hat g_t
            + W_{ho}^\top d\hat o_t

        Examples
        --------
        >>> lstm = ReferenceLSTM(3, 8, rng=0)
        >>> output, (h_n, c_n) = lstm.forward([0, 2])
        >>> grad_x, (grad_h0, grad_c0) = lstm.backward(np.ones((2, 8)))
        >>> grad_x.shape, grad_c0.shape, lstm.grads["weight_hh_l0"].shape
        ((2, 3), (1, 8), (32, 8))
        """
        self._begin_gradients()
        dh_next, dc_next = (self._first(d) for d in ((None, None) if grad_h_n is None else grad_h_n))
        grad_x = []
        for (x, h_before, c_before, i, f, g, o, c, _), d_output in zip(
            reversed(self._steps), self._array(grad_output)[::-1], strict=True
        ):
            dh = d_output + dh_next
            dc = dc_next + dh * o * (1 - np.tanh(c) ** 2)
            dz = {
                "i": dc * g * i * (1 - i),
                "f": dc * c_before * f * (1 - f),
                "g": dc * i * (1 - g * g),
                "o": dh * np.tanh(c) * o * (1 - o),
            }
            dx, dh_next = self._add_gradients(x, h_before, dz, dz)
            dc_next = dc * f
            grad_x.append(dx)
        return np.array(grad_x[::-1]), (dh_next[None], dc_next[None])
