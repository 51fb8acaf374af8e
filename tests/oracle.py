"""The equations of the notes in scalar loops over Python floats: slow, obvious, no NumPy inside."""

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
