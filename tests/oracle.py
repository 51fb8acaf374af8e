"""The equations of the notes in scalar loops over Python floats: slow, obvious, no NumPy inside."""

import itertools
import math


def forward(Wxh, Whh, Why, bh, by, xs, h_prev):
    """Hidden states (first the given one) and probabilities, as lists of lists (eqs. 1, 2, 17)."""
    hidden, classes = range(len(Whh)), range(len(Why))
    hs, ps = [list(h_prev)], []
    for x in xs:
        before = hs[-1]
        hs.append([
            math.tanh(
                sum(Wxh[i][k] * x[k] for k in range(len(x)))
                + sum(Whh[i][j] * before[j] for j in hidden)
                + bh[i]
            )
            for i in hidden
        ])  # fmt: skip
        y = [sum(Why[c][j] * hs[-1][j] for j in hidden) + by[c] for c in classes]
        exp_y = [math.exp(y[c] - max(y)) for c in classes]
        ps.append([e / sum(exp_y) for e in exp_y])
    return hs, ps


def loss(ps, targets):
    """Cross-entropy in nats (eqs. 5, 6)."""
    return sum(-math.log(p[target]) for p, target in zip(ps, targets, strict=True))


def backward(Wxh, Whh, Why, xs, hs, ps, targets, limit=math.inf):
    """Gradients (eqs. 7 to 13), accumulators clamped to [-limit, limit] after every time step.

    `hs` holds the state before the first input first.  Returns nested lists dWxh, dWhh, dWhy, dbh,
    dby, the biases flat.
    """
    inputs, hidden, classes = range(len(Wxh[0])), range(len(Whh)), range(len(Why))
    dWxh = [[0.0 for _ in inputs] for _ in hidden]
    dWhh = [[0.0 for _ in hidden] for _ in hidden]
    dWhy = [[0.0 for _ in hidden] for _ in classes]
    dbh = [0.0 for _ in hidden]
    dby = [0.0 for _ in classes]
    dh_next = [0.0 for _ in hidden]

    def clamp(v):
        return min(max(v, -limit), limit)

    for t in reversed(range(len(xs))):
        h, h_before = hs[t + 1], hs[t]
        dy = [ps[t][c] - (1.0 if c == targets[t] else 0.0) for c in classes]  # eq. 7
        dh = [sum(Why[c][i] * dy[c] for c in classes) + dh_next[i] for i in hidden]  # eq. 9
        dz = [dh[i] * (1 - h[i] ** 2) for i in hidden]  # eq. 10
        dh_next = [sum(Whh[j][i] * dz[j] for j in hidden) for i in hidden]  # eq. 12
        for c in classes:  # eq. 8
            dby[c] = clamp(dby[c] + dy[c])
            for i in hidden:
                dWhy[c][i] = clamp(dWhy[c][i] + dy[c] * h[i])
        for i in hidden:  # eq. 11
            dbh[i] = clamp(dbh[i] + dz[i])
            for j in hidden:
                dWhh[i][j] = clamp(dWhh[i][j] + dz[i] * h_before[j])
            for k in inputs:
                dWxh[i][k] = clamp(dWxh[i][k] + dz[i] * xs[t][k])
    return dWxh, dWhh, dWhy, dbh, dby


def norm(grads):
    """Global norm over all gradients, for eq. 15."""
    total = 0.0
    for g in grads:
        for row in g:
            total += sum(v * v for v in row) if isinstance(row, list) else row * row
    return math.sqrt(total)


def one_hot(index, size):
    return [1.0 if k == index % size else 0.0 for k in range(size)]


def softmax(row):
    """Of a list of numbers."""
    top = max(row)
    weights = [math.exp(x - top) for x in row]
    total = math.fsum(weights)
    return [w / total for w in weights]


def probabilities(row, temperature, top_k=None, top_p=None):
    """With which each class is drawn, from its logits: 0 for those that may not be."""
    kept = sorted(range(len(row)), key=lambda j: (-row[j], j))[: top_k or len(row)]
    if temperature == 0:
        return [float(j == kept[0]) for j in range(len(row))]
    p = softmax([x / temperature for x in row])
    if top_p is not None and top_p < 1:
        wanted = top_p * math.fsum(p[j] for j in kept)
        masses = enumerate(itertools.accumulate(p[j] for j in kept), 1)
        kept = kept[: next(number for number, mass in masses if mass >= wanted)]
    total = math.fsum(p[j] for j in kept)
    return [p[j] / total if j in kept else 0.0 for j in range(len(row))]
