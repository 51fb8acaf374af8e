"""Updates of the optimizers in plain NumPy.

Formulas are PyTorch's.  For each parameter w with gradient g, and ``x = g + weight_decay w``::

    SGD       w -= lr x;  with momentum  b = momentum b + (1 - dampening) x,  w -= lr b,
              or after Nesterov  w -= lr (x + momentum b);  the first step takes b = x
    Adagrad   s += x^2,  w -= lr / (1 + (step - 1) lr_decay) x / (sqrt(s) + eps)
    RMSprop   v = alpha v + (1 - alpha) x^2,  u = x / (sqrt(v) + eps),  w -= lr u;
              centered: m = alpha m + (1 - alpha) x  and  v - m^2  under the root, in place of v;
              with momentum  b = momentum b + u,  w -= lr b
    Adam      m = beta1 m + (1 - beta1) x,  v = beta2 v + (1 - beta2) x^2,
              w -= lr (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps);
              AMSGrad: top = max(top, v)  in place of v
    AdamW     Adam with x = g, after  w -= lr weight_decay w

`optimize` runs one of them, by its name.  What a formula needs of the settings and of the step comes as numbers:
they are the same for every element, and `fastrnn.optim` works them out once for all backends.  State is zero before
the first step, but for Adagrad's initial sums.  No array overlaps one that is written.  The variance under RMSprop's
centered root is not less than 0, where rounding would make it so.
"""

import numpy as np


def _sgd(w, g, states, numbers):
    (b,), (lr, momentum, fresh, weight_decay, nesterov) = states, numbers
    x = _decayed(w, g, weight_decay)
    if b is not None:
        b *= momentum
        b += fresh * x
        x = x + momentum * b if nesterov else b
    w -= lr * x


def _adagrad(w, g, states, numbers):
    (s,), (rate, eps, weight_decay) = states, numbers
    x = _decayed(w, g, weight_decay)
    s += x * x
    w -= rate * x / (np.sqrt(s) + eps)


def _rmsprop(w, g, states, numbers):
    (v, b, m), (lr, alpha, fresh, momentum, eps, weight_decay) = states, numbers
    x = _decayed(w, g, weight_decay)
    v *= alpha
    v += fresh * x * x
    variance = v
    if m is not None:
        m *= alpha
        m += fresh * x
        variance = np.maximum(v - m * m, 0.0)
    u = x / (np.sqrt(variance) + eps)
    if b is not None:
        b *= momentum
        b += u
        u = b
    w -= lr * u


def _adam(w, g, states, numbers):
    m, v, top = states
    rate, beta1, fresh1, beta2, fresh2, unbias, eps, weight_decay, shrink = numbers
    x = _decayed(w, g, weight_decay)
    m *= beta1
    m += fresh1 * x
    v *= beta2
    v += fresh2 * x * x
    if top is not None:
        np.maximum(top, v, out=top)
        v = top
    if shrink:
        w -= shrink * w
    w -= rate * m / (np.sqrt(v) * unbias + eps)


def _decayed(w, g, weight_decay):
    """The gradient with weight decay; without, the product is left out: 0 times infinity is not 0."""
    return g + weight_decay * w if weight_decay else g


#: Name -> formula, kinds of state, numbers.
OPTIMIZERS = {
    "sgd": (_sgd, 1, 5),
    "adagrad": (_adagrad, 1, 3),
    "rmsprop": (_rmsprop, 3, 6),
    "adam": (_adam, 3, 9),
}


def optimize(name, params, grads, states, numbers, threads=1):
    """A step of the optimizer called `name`, in place.

    Parameters
    ----------
    name : str
        A key of `OPTIMIZERS`.
    params, grads : tuple of ndarray
        The parameters and their gradients, flat and C-contiguous.  Gradients are not modified.
    states : tuple of tuple of ndarray
        Each kind of state, in the order in which the formula names them: an array alike each parameter, or an
        empty tuple where the settings have no use for it.
    numbers : tuple of float
        In the order in which the formula names them; flags are 0 or 1.

    Raises
    ------
    ValueError
        If there is no optimizer of that name, or the states or numbers are not as many as it takes; nothing is
        modified then.
    """
    formula = find_optimizer(OPTIMIZERS, name, states, numbers)
    with np.errstate(all="ignore"):
        for i, (w, g) in enumerate(zip(params, grads, strict=True)):
            formula(w, g, [arrays[i] if arrays else None for arrays in states], numbers)


def find_optimizer(table, name, states, numbers):
    """The formula of a table like `OPTIMIZERS`."""
    if name not in table:
        raise ValueError(f"there is no optimizer {name!r}")
    formula, kinds, count = table[name]
    if (len(states), len(numbers)) != (kinds, count):
        raise ValueError(
            f"{name} takes {kinds} kinds of state and {count} numbers, got {len(states)} and {len(numbers)}"
        )
    return formula
