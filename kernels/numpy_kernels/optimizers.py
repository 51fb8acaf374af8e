"""Updates of the optimizers in plain NumPy.

Formulas are PyTorch's.  For each parameter w with gradient g, and ``x = g + weight_decay w``::

    SGD       w -= lr x;  with momentum  b = momentum b + (1 - dampening) x,  w -= lr b,
              or after Nesterov  w -= lr (x + momentum b);  the first step takes b = x
    Adagrad   s += x^2,  w -= lr / (1 + (step - 1) lr_decay) x / (sqrt(s) + eps)
    RMSprop   v = alpha v + (1 - alpha) x^2,  u = x / (sqrt(v) + eps),  w -= lr u;
              centered: m = alpha m + (1 - alpha) x  and  v - m^2  under the root, in place of v;
              with momentum  b = momentum b + u,  w -= lr b
    Adam      m = beta1 m + (1 - beta1) x,  v = beta2 v + (1 - beta2) x^2,
              w -= lr (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)

Arguments are tuples with a flat, C-contiguous array for each parameter: the parameters, their gradients
(not modified, all else is, in place), and each kind of state, an empty tuple where the settings have no use
for it.  State is zero before the first step, but for Adagrad's initial sums.  ``step`` is 1 at the first
step.  No array overlaps one that is written.  The variance under RMSprop's centered root is not less
than 0, where rounding would make it so.
"""

import math

import numpy as np


def sgd(params, grads, buffers, lr, momentum, dampening, weight_decay, nesterov, step):
    """Gradient descent, with momentum where there are buffers; in place."""
    fresh = 1.0 if step == 1 else 1.0 - dampening
    with np.errstate(all="ignore"):
        for w, g, b in zip(params, grads, _or_none(buffers, params), strict=True):
            x = _decayed(w, g, weight_decay)
            if b is not None:
                b *= momentum
                b += fresh * x
                x = x + momentum * b if nesterov else b
            w -= lr * x


def adagrad(params, grads, sums, lr, lr_decay, weight_decay, eps, step):
    """Steps divided by the root of the sum of squared gradients; in place."""
    rate = lr / (1.0 + (step - 1) * lr_decay)
    with np.errstate(all="ignore"):
        for w, g, s in zip(params, grads, sums, strict=True):
            x = _decayed(w, g, weight_decay)
            s += x * x
            w -= rate * x / (np.sqrt(s) + eps)


def rmsprop(params, grads, squares, buffers, means, lr, alpha, eps, weight_decay, momentum):
    """Steps divided by the root of a running average of squared gradients; in place."""
    buffers, means = _or_none(buffers, params), _or_none(means, params)
    with np.errstate(all="ignore"):
        for w, g, v, b, m in zip(params, grads, squares, buffers, means, strict=True):
            x = _decayed(w, g, weight_decay)
            v *= alpha
            v += (1.0 - alpha) * x * x
            variance = v
            if m is not None:
                m *= alpha
                m += (1.0 - alpha) * x
                variance = np.maximum(v - m * m, 0.0)
            u = x / (np.sqrt(variance) + eps)
            if b is not None:
                b *= momentum
                b += u
                u = b
            w -= lr * u


def adam(params, grads, means, squares, lr, beta1, beta2, eps, weight_decay, step):
    """Running averages of the gradient and of its square, both corrected for their start at zero; in place."""
    rate = lr / (1.0 - beta1**step)
    unbias = 1.0 / math.sqrt(1.0 - beta2**step)
    with np.errstate(all="ignore"):
        for w, g, m, v in zip(params, grads, means, squares, strict=True):
            x = _decayed(w, g, weight_decay)
            m *= beta1
            m += (1.0 - beta1) * x
            v *= beta2
            v += (1.0 - beta2) * x * x
            w -= rate * m / (np.sqrt(v) * unbias + eps)


def _decayed(w, g, weight_decay):
    """The gradient with weight decay; without, the product is left out: 0 times infinity is not 0."""
    return g + weight_decay * w if weight_decay else g


def _or_none(arrays, params):
    return arrays or (None,) * len(params)
