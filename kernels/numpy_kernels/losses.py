"""The losses: what is made of the outputs of a batch, and of what was wanted of them, in plain NumPy::

    CROSS_ENTROPY  l = -log softmax(y)[class]                                     dy = softmax(y) - p      (5) to (7)
    SQUARED_ERROR  l = sum_j (y_j - v_j)^2                                        dy = 2 (y - v)
    GAUSSIAN       l = sum_j (log 2 pi + s_j + e_j^2 exp(-s_j)) / 2,  y = (m, s), dm = e exp(-s),
                   e = m - v                                                      ds = (1 - e^2 exp(-s)) / 2

GAUSSIAN is the negative log-likelihood, in nats, of normal distributions with the means m and the variances exp(s).

Each function takes ``y (rows,q)``, which it overwrites, and what was wanted: classes ``(rows,)`` or values ``v``.  It
returns the losses of the rows in float64, and their gradients ``dy (rows,q)``.
"""

import math

import numpy as np

from fastrnn.kernels import CROSS_ENTROPY, GAUSSIAN, SQUARED_ERROR


def cross_entropy(y, classes):
    """``l = max y - y[class] + log sum exp(y - max y)`` (eqs. 16, 17); a negative class stands for any."""
    each = np.arange(len(y))
    y -= y.max(axis=1, keepdims=True)
    chosen = y[each, classes].astype(np.float64)
    np.exp(y, out=y)
    total = y.sum(axis=1, keepdims=True)
    losses = np.log(total[:, 0].astype(np.float64)) - chosen
    y /= total
    y[each, classes] -= 1
    return losses, y


def squared_error(y, values):
    """The sum over the outputs: what divides it is in the scale of the gradients."""
    y -= values
    losses = (y * y).sum(axis=1, dtype=np.float64)
    y *= 2
    return losses, y


def gaussian(y, values):
    """With its constant: of errors in units of their deviation, whose reciprocal is finite, as no error is none."""
    means, log_variances = np.split(y, 2, axis=1)
    means -= values
    by = np.exp(log_variances * y.dtype.type(-0.5))
    np.minimum(by, np.finfo(y.dtype).max, out=by)
    means *= by
    squares = means * means
    sums = (log_variances + squares).sum(axis=1, dtype=np.float64)
    losses = 0.5 * (sums + means.shape[1] * math.log(2 * math.pi))
    means *= by
    np.subtract(1, squares, out=log_variances)
    log_variances *= 0.5
    return losses, y


#: By their codes.
LOSSES = {CROSS_ENTROPY: cross_entropy, SQUARED_ERROR: squared_error, GAUSSIAN: gaussian}
