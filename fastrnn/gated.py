"""`GRU` and `LSTM`: the batched layers with gates, with PyTorch's names and results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastrnn.layers import RecurrentLayers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike  # noqa: F401 - in strings

    from fastrnn.hints import BackendName, Dtype, Seed

__all__ = ["GRU", "LSTM"]


class GRU(RecurrentLayers["ArrayLike", np.ndarray, "ArrayLike"]):
    r"""Layers of gated recurrent units over a batch of sequences.

    In every layer, with :math:`\sigma(x) = 1 / (1 + e^{-x})`,

    .. math::

        r_t &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
        z_t &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
        n_t &= \tanh(W_{in} x_t + b_{in} + r_t \odot (W_{hn} h_{t-1} + b_{hn})) \\
        h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}

    Names, arguments, shapes and results are those of `torch.nn.GRU`; the gates are in the order r, z, n.

    Parameters
    ----------
    input_size : int
        Input size d.
    hidden_size : int
        Hidden size h.
    num_layers : int, default 1
        Number of layers L; each but the first reads the outputs of the one below.
    bias : bool, default True
        Whether there are biases.
    batch_first : bool, default False
        Inputs and outputs are (N, T, ...) in place of (T, N, ...); states are not affected.
    dropout : float, default 0.0
        Probability with which an output of a layer below the last is set to zero in training; the
        others are multiplied by ``1 / (1 - dropout)``.
    bidirectional : bool, default False
        Run every layer in both directions, D = 2; their outputs stand side by side.
    dtype : {float32, float64}, default float32
        Of the parameters and of every result.
    rng : numpy.random.Generator, int or None
        Where the initial parameters and dropout are drawn from; an int is a seed, None a fresh one.
    backend : {"cython", "numba", "numpy"} or None
        None follows `fastrnn.backend` at every call.
    num_threads : int or None
        Most threads that share a batch; None for the cores that the process may run on.  Results are the
        same bits on any number.

    Attributes
    ----------
    parameters : dict of str to ndarray
        ``weight_ih_l0`` (3h, d), ``weight_hh_l0`` (3h, h), ``bias_ih_l0`` (3h,), ``bias_hh_l0`` (3h,), with
        a block of h rows for each gate in the order above; with the ending ``_reverse`` those of the other
        direction; the same of further layers, whose ``weight_ih`` is (3h, D*h).  Mutate or replace them, the next
        call sees the change.
    grads : dict of str to ndarray
        Gradients under the same names, written by `backward`.  The next `backward` overwrites the arrays:
        copy what is to be kept.
    rng : numpy.random.Generator
        Where dropout is drawn from.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the above.
    BackendUnavailable
        If the backend that was named is missing.

    See Also
    --------
    RNN : The same without gates; what it says of threads, PyTorch and Keras holds here too.
    LSTM : Another cell with gates.

    References
    ----------
    K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
    EMNLP 2014.  As in PyTorch and cuDNN, the reset gate is behind the product with :math:`W_{hn}`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import GRU
    >>> gru = GRU(5, 16, num_layers=2, rng=0)
    >>> x = np.random.default_rng(0).normal(size=(7, 3, 5))  # seven time steps of three sequences
    >>> output, h_n = gru.forward(x)
    >>> output.shape, h_n.shape, gru.parameters["weight_hh_l0"].shape
    ((7, 3, 16), (2, 3, 16), (48, 16))
    >>> grad_x, grad_h0 = gru.backward(np.ones_like(output))
    >>> grad_x.shape, grad_h0.shape, gru.grads["weight_ih_l0"].shape
    ((7, 3, 5), (2, 3, 16), (48, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: Dtype = np.float32,
        rng: Seed = None,
        backend: BackendName | None = None,
        num_threads: int | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, "tanh", bias, batch_first, dropout, bidirectional, dtype, rng,
            backend, num_threads, cell="gru",
        )  # fmt: skip


class LSTM(
    RecurrentLayers[
        "tuple[ArrayLike, ArrayLike]",
        tuple[np.ndarray, np.ndarray],
        "tuple[ArrayLike | None, ArrayLike | None]",
    ]
):
    r"""Layers of long short-term memory over a batch of sequences.

    In every layer, with :math:`\sigma(x) = 1 / (1 + e^{-x})`,

    .. math::

        i_t &= \sigma(W_{ii} x_t + b_{ii} + W_{hi} h_{t-1} + b_{hi}) \\
        f_t &= \sigma(W_{if} x_t + b_{if} + W_{hf} h_{t-1} + b_{hf}) \\
        g_t &= \tanh(W_{ig} x_t + b_{ig} + W_{hg} h_{t-1} + b_{hg}) \\
        o_t &= \sigma(W_{io} x_t + b_{io} + W_{ho} h_{t-1} + b_{ho}) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    Names, arguments, shapes and results are those of `torch.nn.LSTM`; the gates are in the order i, f, g, o.  Its state
    is the pair (h, c) wherever another layer has h.

    Parameters
    ----------
    input_size : int
        Input size d.
    hidden_size : int
        Hidden size h.
    num_layers : int, default 1
        Number of layers L; each but the first reads the outputs of the one below.
    bias : bool, default True
        Whether there are biases.
    batch_first : bool, default False
        Inputs and outputs are (N, T, ...) in place of (T, N, ...); states are not affected.
    dropout : float, default 0.0
        Probability with which an output of a layer below the last is set to zero in training; the
        others are multiplied by ``1 / (1 - dropout)``.
    bidirectional : bool, default False
        Run every layer in both directions, D = 2; their outputs stand side by side.
    dtype : {float32, float64}, default float32
        Of the parameters and of every result.
    rng : numpy.random.Generator, int or None
        Where the initial parameters and dropout are drawn from; an int is a seed, None a fresh one.
    backend : {"cython", "numba", "numpy"} or None
        None follows `fastrnn.backend` at every call.
    num_threads : int or None
        Most threads that share a batch; None for the cores that the process may run on.  Results are the
        same bits on any number.

    Attributes
    ----------
    parameters : dict of str to ndarray
        ``weight_ih_l0`` (4h, d), ``weight_hh_l0`` (4h, h), ``bias_ih_l0`` (4h,), ``bias_hh_l0`` (4h,), with
        a block of h rows for each gate in the order above; with the ending ``_reverse`` those of the other
        direction; the same of further layers, whose ``weight_ih`` is (4h, D*h).  Mutate or replace them, the next
        call sees the change.
    grads : dict of str to ndarray
        Gradients under the same names, written by `backward`.  The next `backward` overwrites the arrays:
        copy what is to be kept.
    rng : numpy.random.Generator
        Where dropout is drawn from.

    Raises
    ------
    TypeError, ValueError
        If an argument is not one of the above.
    BackendUnavailable
        If the backend that was named is missing.

    See Also
    --------
    RNN : The same without gates; what it says of threads, PyTorch and Keras holds here too.
    GRU : Another cell with gates.

    Notes
    -----
    Both biases of the forget gate add up.  Drawn as PyTorch draws them they are near zero, so that half of c is lost at
    each step at first; who wants a net that remembers from the beginning adds 1, as Gers and others advise::

        lstm.parameters["bias_ih_l0"][h : 2 * h] += 1

    References
    ----------
    S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; F. Gers, J. Schmidhuber
    and F. Cummins, "Learning to forget", Neural Computation 12(10), 2000; without their peepholes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import LSTM
    >>> lstm = LSTM(5, 16, num_layers=2, rng=0)
    >>> x = np.random.default_rng(0).normal(size=(7, 3, 5))  # seven time steps of three sequences
    >>> output, (h_n, c_n) = lstm.forward(x)
    >>> output.shape, h_n.shape, c_n.shape
    ((7, 3, 16), (2, 3, 16), (2, 3, 16))
    >>> grad_x, (grad_h0, grad_c0) = lstm.backward(np.ones_like(output))
    >>> grad_x.shape, grad_c0.shape, lstm.grads["weight_ih_l0"].shape
    ((7, 3, 5), (2, 3, 16), (64, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: Dtype = np.float32,
        rng: Seed = None,
        backend: BackendName | None = None,
        num_threads: int | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, "tanh", bias, batch_first, dropout, bidirectional, dtype, rng,
            backend, num_threads, cell="lstm",
        )  # fmt: skip
