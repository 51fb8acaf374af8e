"""One layer with gates over a batch, forward and backward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.cells import GRU, LSTM
from fastrnn.functional.layer import OneLayer, backward, forward

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.hints import BackendName

__all__ = ["gru_backward", "gru_forward", "lstm_backward", "lstm_forward"]


def gru_forward(
    x: ArrayLike,
    h0: ArrayLike | None,
    parameters: Mapping[str, np.ndarray],
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    backend: BackendName | None = None,
    num_threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """States of a GRU layer over a batch: `fastrnn.GRU` has the equations.

    Parameters
    ----------
    x : array, shape (T, N, d), or of int, shape (T, N)
        Inputs; integers are class indices in ``[-d, d)``, taken as one-hot vectors.  There may be no
        sequences.
    h0 : array, shape (N, h), or None
        State before the first input; None for zeros.
    parameters : dict of str to ndarray, all float32 or all float64
        ``weight_ih`` (3h, d), ``weight_hh`` (3h, h) and, both or none, ``bias_ih`` (3h,) and ``bias_hh`` (3h,), with a
        block of h rows for each gate: reset, update, new.
    lengths, reverse, backend, num_threads
        As for `rnn_forward`.

    Returns
    -------
    output : ndarray, shape (T, N, h)
        h after each input, zero beyond the length of a sequence.
    h_n : ndarray, shape (N, h)
        State after the last input of each sequence; the first one where it runs in reverse.

    Raises
    ------
    IndexError, TypeError, ValueError, BackendUnavailable
        As `rnn_forward`.

    Warns
    -----
    UserWarning
        As `rnn_forward`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> parameters = {"weight_ih": rng.normal(size=(12, 3)), "weight_hh": rng.normal(size=(12, 4))}
    >>> output, h_n = gru_forward(rng.normal(size=(5, 2, 3)), None, parameters)
    >>> output.shape, bool((output[-1] == h_n).all())
    ((5, 2, 4), True)
    """
    return forward(OneLayer(GRU, x, h0, parameters, lengths, reverse, backend, num_threads))


def gru_backward(
    grad_output: ArrayLike | None,
    grad_h_n: ArrayLike | None,
    x: ArrayLike,
    h0: ArrayLike | None,
    output: ArrayLike,
    parameters: Mapping[str, np.ndarray],
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    backend: BackendName | None = None,
    num_threads: int | None = None,
) -> tuple[np.ndarray | None, np.ndarray, dict[str, np.ndarray]]:
    """Gradients of `gru_forward` by BPTT.

    The gates are not in `output`: they are computed again, which takes as long as `gru_forward`.  `fastrnn.GRU` keeps
    them.

    Parameters
    ----------
    grad_output : array, shape (T, N, h), or None
        Gradient of the loss with respect to `output`; None for zeros.  What lies beyond the length of a
        sequence is not read.
    grad_h_n : array, shape (N, h), or None
        Gradient with respect to `h_n`; None for zeros.
    x, h0, parameters, lengths, reverse, backend, num_threads
        As given to `gru_forward`.
    output : array, shape (T, N, h)
        As returned by it.

    Returns
    -------
    grad_x : ndarray, shape (T, N, d), or None
        None where `x` holds class indices.
    grad_h0 : ndarray, shape (N, h)
    grads : dict of str to ndarray
        Gradients of the parameters, under their names.

    Raises
    ------
    IndexError, TypeError, ValueError, BackendUnavailable
        As `gru_forward`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> parameters = {"weight_ih": rng.normal(size=(12, 3)), "weight_hh": rng.normal(size=(12, 4))}
    >>> x = rng.normal(size=(5, 2, 3))
    >>> output, h_n = gru_forward(x, None, parameters)
    >>> grad_x, grad_h0, grads = gru_backward(None, np.ones((2, 4)), x, None, output, parameters)
    >>> grad_x.shape, grad_h0.shape, grads["weight_hh"].shape
    ((5, 2, 3), (2, 4), (12, 4))
    """
    layer = OneLayer(GRU, x, h0, parameters, lengths, reverse, backend, num_threads)
    return backward(layer, grad_output, grad_h_n, output)


def lstm_forward(
    x: ArrayLike,
    h0: tuple[ArrayLike, ArrayLike] | None,
    parameters: Mapping[str, np.ndarray],
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    backend: BackendName | None = None,
    num_threads: int | None = None,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """States of an LSTM layer over a batch: `fastrnn.LSTM` has the equations.

    Parameters
    ----------
    x : array, shape (T, N, d), or of int, shape (T, N)
        Inputs; integers are class indices in ``[-d, d)``, taken as one-hot vectors.  There may be no
        sequences.
    h0 : pair of array, shape (N, h), or None
        (h0, c0), the states before the first input; None for zeros.
    parameters : dict of str to ndarray, all float32 or all float64
        ``weight_ih`` (4h, d), ``weight_hh`` (4h, h) and, both or none, ``bias_ih`` (4h,) and ``bias_hh`` (4h,), with a
        block of h rows for each gate: input, forget, cell, output.
    lengths, reverse, backend, num_threads
        As for `rnn_forward`.

    Returns
    -------
    output : ndarray, shape (T, N, h)
        h after each input, zero beyond the length of a sequence.
    h_n : tuple of 2 ndarray, shape (N, h)
        (h_n, c_n), the states after the last input of each sequence; after the first one where it runs in reverse.

    Raises
    ------
    IndexError, TypeError, ValueError, BackendUnavailable
        As `rnn_forward`.

    Warns
    -----
    UserWarning
        As `rnn_forward`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> parameters = {"weight_ih": rng.normal(size=(16, 3)), "weight_hh": rng.normal(size=(16, 4))}
    >>> output, (h_n, c_n) = lstm_forward(rng.normal(size=(5, 2, 3)), None, parameters)
    >>> output.shape, bool((output[-1] == h_n).all())
    ((5, 2, 4), True)
    """
    return forward(OneLayer(LSTM, x, h0, parameters, lengths, reverse, backend, num_threads))


def lstm_backward(
    grad_output: ArrayLike | None,
    grad_h_n: tuple[ArrayLike | None, ArrayLike | None] | None,
    x: ArrayLike,
    h0: tuple[ArrayLike, ArrayLike] | None,
    output: ArrayLike,
    parameters: Mapping[str, np.ndarray],
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    backend: BackendName | None = None,
    num_threads: int | None = None,
) -> tuple[np.ndarray | None, tuple[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """Gradients of `lstm_forward` by BPTT.

    The gates are not in `output`: they are computed again, which takes as long as `lstm_forward`.  `fastrnn.LSTM` keeps
    them.

    Parameters
    ----------
    grad_output : array, shape (T, N, h), or None
        Gradient of the loss with respect to `output`; None for zeros.  What lies beyond the length of a
        sequence is not read.
    grad_h_n : pair of array, shape (N, h), or None
        Gradients with respect to h_n and c_n, each an array or None for zeros; None for both.
    x, h0, parameters, lengths, reverse, backend, num_threads
        As given to `lstm_forward`.
    output : array, shape (T, N, h)
        As returned by it.

    Returns
    -------
    grad_x : ndarray, shape (T, N, d), or None
        None where `x` holds class indices.
    grad_h0 : tuple of 2 ndarray, shape (N, h)
        Those with respect to h0 and c0.
    grads : dict of str to ndarray
        Gradients of the parameters, under their names.

    Raises
    ------
    IndexError, TypeError, ValueError, BackendUnavailable
        As `lstm_forward`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> parameters = {"weight_ih": rng.normal(size=(16, 3)), "weight_hh": rng.normal(size=(16, 4))}
    >>> x = rng.normal(size=(5, 2, 3))
    >>> output, (h_n, c_n) = lstm_forward(x, None, parameters)
    >>> grad_x, (grad_h0, grad_c0), grads = lstm_backward(None, (np.ones((2, 4)), None), x, None, output, parameters)
    >>> grad_x.shape, grad_h0.shape, grads["weight_hh"].shape
    ((5, 2, 3), (2, 4), (16, 4))
    """
    layer = OneLayer(LSTM, x, h0, parameters, lengths, reverse, backend, num_threads)
    return backward(layer, grad_output, grad_h_n, output)
