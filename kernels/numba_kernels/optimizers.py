"""Updates of the optimizers, compiled by Numba: see `fastrnn.kernels.numpy_optimizers` for formulas and
arguments.

A compiled loop takes the arrays of one parameter.  Where a kind of state is not used, the parameter stands
in for it and is left alone.
"""

import math

import numpy as np

from fastrnn.kernels.numba_kernels.jit import inlined, kernel

# ---- loops ----------------------------------------------------------------------------------------


@inlined
def _decayed(g, w, decay, decays):
    return g + decay * w if decays else g


@kernel
def _sgd(w, g, b, remembers, nesterov, decays, lr, momentum, fresh, decay):
    real = w.dtype.type
    lr, momentum, fresh, decay = real(lr), real(momentum), real(fresh), real(decay)
    if not remembers:
        for i in range(w.size):
            w[i] -= lr * _decayed(g[i], w[i], decay, decays)
    elif nesterov:
        for i in range(w.size):
            x = _decayed(g[i], w[i], decay, decays)
            average = momentum * b[i] + fresh * x
            b[i] = average
            w[i] -= lr * (x + momentum * average)
    else:
        for i in range(w.size):
            average = momentum * b[i] + fresh * _decayed(g[i], w[i], decay, decays)
            b[i] = average
            w[i] -= lr * average


@kernel
def _adagrad(w, g, s, decays, rate, decay, eps):
    real = w.dtype.type
    rate, decay, eps = real(rate), real(decay), real(eps)
    for i in range(w.size):
        x = _decayed(g[i], w[i], decay, decays)
        total = s[i] + x * x
        s[i] = total
        w[i] -= rate * x / (np.sqrt(total) + eps)


@kernel
def _rmsprop(w, g, v, b, m, remembers, centered, decays, lr, alpha, fresh, eps, decay, momentum):
    real = w.dtype.type
    lr, alpha, fresh, eps = real(lr), real(alpha), real(fresh), real(eps)
    decay, momentum, zero = real(decay), real(momentum), real(0)
    for i in range(w.size):
        x = _decayed(g[i], w[i], decay, decays)
        variance = alpha * v[i] + fresh * x * x
        v[i] = variance
        if centered:
            mean = alpha * m[i] + fresh * x
            m[i] = mean
            variance -= mean * mean
            variance = zero if variance < zero else variance  # NaN stays
        x /= np.sqrt(variance) + eps
        if remembers:
            x += momentum * b[i]
            b[i] = x
        w[i] -= lr * x


@kernel
def _adam(w, g, m, v, decays, rate, beta1, fresh1, beta2, fresh2, unbias, eps, decay):
    real = w.dtype.type
    rate, unbias, eps, decay = real(rate), real(unbias), real(eps), real(decay)
    beta1, fresh1, beta2, fresh2 = real(beta1), real(fresh1), real(beta2), real(fresh2)
    for i in range(w.size):
        x = _decayed(g[i], w[i], decay, decays)
        mean = beta1 * m[i] + fresh1 * x
        square = beta2 * v[i] + fresh2 * x * x
        m[i] = mean
        v[i] = square
        w[i] -= rate * mean / (np.sqrt(square) * unbias + eps)


# ---- what the package calls -----------------------------------------------------------------------


def sgd(params, grads, buffers, lr, momentum, dampening, weight_decay, nesterov, step):
    """Gradient descent, with momentum where there are buffers; in place."""
    options = bool(buffers), nesterov, weight_decay != 0.0
    fresh = 1.0 if step == 1 else 1.0 - dampening
    for w, g, b in zip(params, grads, buffers or params, strict=True):
        _sgd(w, g, b, *options, lr, momentum, fresh, weight_decay)


def adagrad(params, grads, sums, lr, lr_decay, weight_decay, eps, step):
    """Steps divided by the root of the sum of squared gradients; in place."""
    rate = lr / (1.0 + (step - 1) * lr_decay)
    for w, g, s in zip(params, grads, sums, strict=True):
        _adagrad(w, g, s, weight_decay != 0.0, rate, weight_decay, eps)


def rmsprop(params, grads, squares, buffers, means, lr, alpha, eps, weight_decay, momentum):
    """Steps divided by the root of a running average of squared gradients; in place."""
    options = bool(buffers), bool(means), weight_decay != 0.0
    for w, g, v, b, m in zip(params, grads, squares, buffers or params, means or params, strict=True):
        _rmsprop(w, g, v, b, m, *options, lr, alpha, 1.0 - alpha, eps, weight_decay, momentum)


def adam(params, grads, means, squares, lr, beta1, beta2, eps, weight_decay, step):
    """Running averages of the gradient and of its square, both corrected for their start at zero; in place."""
    numbers = (
        lr / (1.0 - beta1**step), beta1, 1.0 - beta1, beta2, 1.0 - beta2,
        1.0 / math.sqrt(1.0 - beta2**step), eps, weight_decay,
    )  # fmt: skip
    for w, g, m, v in zip(params, grads, means, squares, strict=True):
        _adam(w, g, m, v, weight_decay != 0.0, *numbers)
