"""A forecast that says how far it may be off, and whether that is true.

    python examples/10_forecast.py

200 series are made by one rule: a value is 1.5 times the one before, minus 0.8 times the one before that, plus noise of
standard deviation 0.5.  A net sees the first 200 values of each and learns to give a mean and a standard deviation for
the next one.  The 100 values after that it has not learned from.  If it is right about its errors, then 90% of them are
inside its band, the mean plus or minus 1.645 standard deviations, and no forecast can have smaller errors than the rule.
"""

import numpy as np

from fastrnn import SequenceModel, optim

FIRST, SECOND, SIGMA = 1.5, -0.8, 0.5
SERIES, LEARNED, HELD_OUT, WINDOW, BATCHES = 200, 200, 100, 50, 1000


def made(n, rng, before=100):
    """Values, (n, SERIES, 1); the first ones, which depend on the beginning, are dropped."""
    values = rng.normal(size=(before + n, SERIES, 1)) * SIGMA
    for t in range(2, before + n):
        values[t] += FIRST * values[t - 1] + SECOND * values[t - 2]
    return values[before:].astype(np.float32)


def learn(values, rng):
    """Train on windows from anywhere in `values`, each to give the next value at every step."""
    sm = SequenceModel(1, 16, 1, cell="gru", head="each", loss="gaussian", rng=rng)
    adam = optim.Adam()
    for batch in range(BATCHES):
        adam.lr = 0.01 * (1 - batch / BATCHES)
        start, which = rng.integers(len(values) - WINDOW), rng.integers(0, SERIES, 50)
        window = values[start : start + WINDOW + 1, which]
        sm.train_step(window[:-1], window[1:], None, adam)
    return sm


def picture(came, low, high, rows=15):
    """The values in stars or, outside of the band, as X; the band in dots."""
    grid = [[" "] * len(came) for _ in range(rows)]
    top, bottom = max(high.max(), came.max()), min(low.min(), came.min())

    def row(value):
        return round((rows - 1) * (top - value) / (top - bottom))

    for column, value in enumerate(came):
        for place in range(row(high[column]), row(low[column]) + 1):
            grid[place][column] = "."
        grid[row(value)][column] = "*" if low[column] < value < high[column] else "X"
    return "\n".join("".join(line).rstrip() for line in grid)


rng = np.random.default_rng(0)
values = made(LEARNED + HELD_OUT, rng)
sm = learn(values[:LEARNED], rng)

outputs, _ = sm.forward(values[:-1])  # at every step a mean and a log-variance of the next value
outputs, came = outputs[-HELD_OUT:], values[-HELD_OUT:, :, 0]
mean, deviation = outputs[..., 0], np.exp(outputs[..., 1] / 2)
low, high = mean - 1.645 * deviation, mean + 1.645 * deviation
rule = FIRST * values[-HELD_OUT - 1 : -1, :, 0] + SECOND * values[-HELD_OUT - 2 : -2, :, 0]
inside = ((low < came) & (came < high)).mean()
error, least = (np.sqrt(((came - guess) ** 2).mean()) for guess in (mean, rule))

print(picture(came[:, 0], low[:, 0], high[:, 0]))
print("\n. where the net expects the next value   * it came there   X it did not\n")
print(f"inside of the 90% band: {100 * inside:.1f}% of {came.size} values")
print(f"standard deviation of the noise: {deviation.mean():.3f} learned, {SIGMA:.3f} true")
print(f"root mean square error: {error:.3f}, of the rule itself {least:.3f}, of the value before ", end="")
print(f"{np.sqrt((np.diff(values[-HELD_OUT - 1 :, :, 0], axis=0) ** 2).mean()):.3f}")
if not (0.88 < inside < 0.92 and error < 1.03 * least):
    raise SystemExit("the band is not one of 90%, or the forecast is worse than it can be")
