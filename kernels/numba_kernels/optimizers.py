"""Updates of the optimizers, compiled by Numba: see `fastrnn.kernels.numpy_kernels.optimizers` for the formulas with
all their variants, and the arguments.

A compiled loop takes the arrays of one parameter: ``w``, its gradient ``g``, and its ``states``, of one shape.  A kind
of state that is not used is without elements.  ``numbers`` are the same for every element; ``rate`` is a learning rate
with what the step makes of it, and ``fresh`` the share of what is new in an average, as ``1 - beta1``.
"""

import numpy as np

from fastrnn.kernels.numba_kernels.jit import inlined, kernel
from fastrnn.kernels.numpy_kernels.optimizers import find_optimizer

# ---- loops ----------------------------------------------------------------------------------------


@inlined
def _decayed(g, w, decay, decays):
    """``x = g + decay w``; without decay nothing is added, as zero times infinity is NaN."""
    return g + decay * w if decays else g


@kernel
def _sgd(w, g, states, numbers):
    """``w -= lr x``; with momentum ``b = momentum b + fresh x, w -= lr b``, or after Nesterov ``w -= lr (x + momentum
    b)``."""
    (b,), (lr, momentum, fresh, decay, nesterov), real = states, numbers, w.dtype.type
    decays, remembers = decay != 0, b.size > 0
    lr, momentum, fresh, decay = real(lr), real(momentum), real(fresh), real(decay)
    if not remembers:
        for i in range(w.size):
            w[i] -= lr * _decayed(g[i], w[i], decay, decays)
    elif nesterov != 0:
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
def _adagrad(w, g, states, numbers):
    """``s += x^2,  w -= rate x / (sqrt(s) + eps)``."""
    (s,), (rate, eps, decay), real = states, numbers, w.dtype.type
    decays = decay != 0
    rate, eps, decay = real(rate), real(eps), real(decay)
    for i in range(w.size):
        x = _decayed(g[i], w[i], decay, decays)
        total = s[i] + x * x
        s[i] = total
        w[i] -= rate * x / (np.sqrt(total) + eps)


@kernel
def _rmsprop(w, g, states, numbers):
    """``v = alpha v + fresh x^2,  w -= lr x / (sqrt(v) + eps)``; centered, ``v - m^2`` under the root, with ``m =
    alpha m + fresh x``; with momentum, ``b = momentum b + x / (...),  w -= lr b``."""
    (v, b, m), (lr, alpha, fresh, momentum, eps, decay), real = states, numbers, w.dtype.type
    decays, remembers, centered = decay != 0, b.size > 0, m.size > 0
    lr, alpha, fresh, momentum = real(lr), real(alpha), real(fresh), real(momentum)
    eps, decay, zero = real(eps), real(decay), real(0)
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
def _adam(w, g, states, numbers):
    """``m = beta1 m + fresh1 x,  v = beta2 v + fresh2 x^2,  w -= rate m / (sqrt(v) unbias + eps)``, where ``unbias =
    1 / sqrt(1 - beta2^step)``; AMSGrad: ``top = max(top, v)`` in place of v; AdamW: first ``w -= shrink w``."""
    (m, v, top), real = states, w.dtype.type
    rate, beta1, fresh1, beta2, fresh2, unbias, eps, decay, shrink = numbers
    decays, shrinks, bounded = decay != 0, shrink != 0, top.size > 0
    rate, unbias, eps, decay, shrink = real(rate), real(unbias), real(eps), real(decay), real(shrink)
    beta1, fresh1, beta2, fresh2 = real(beta1), real(fresh1), real(beta2), real(fresh2)
    for i in range(w.size):
        x = _decayed(g[i], w[i], decay, decays)
        mean = beta1 * m[i] + fresh1 * x
        square = beta2 * v[i] + fresh2 * x * x
        m[i] = mean
        v[i] = square
        if bounded:
            highest = top[i]
            square = highest if square <= highest or highest != highest else square  # NaN stays, of either
            top[i] = square
        if shrinks:
            w[i] -= shrink * w[i]
        w[i] -= rate * mean / (np.sqrt(square) * unbias + eps)


# ---- what the package calls -----------------------------------------------------------------------

#: Name -> loop, kinds of state, numbers.
OPTIMIZERS = {
    "sgd": (_sgd, 1, 5),
    "adagrad": (_adagrad, 1, 3),
    "rmsprop": (_rmsprop, 3, 6),
    "adam": (_adam, 3, 9),
}


def optimize(name, params, grads, states, numbers, threads=1):
    """A step of the optimizer called `name`, in place."""
    loop = find_optimizer(OPTIMIZERS, name, states, numbers)
    numbers = tuple([float(number) for number in numbers])
    for i, (w, g) in enumerate(zip(params, grads, strict=True)):
        loop(w, g, tuple([arrays[i] if arrays else w[:0] for arrays in states]), numbers)
