"""Follow live data: predict the next value of a signal as it comes.

    python examples/06_live.py

The signal is a sum of two waves, one of which drifts, and noise, in one value at a time, as a sensor gives
it.  A net learns from the first 3000 values, then follows the rest by `stepper().step()`: a value in, a
prediction of the next one out, a microsecond or so each.
"""

import time

import numpy as np

from fastrnn import RNN, optim

LEARNED, FOLLOWED, LAG = 3000, 1500, 50


def signal(n, rng):
    """Two waves and noise; the second wave's period wanders between 9 and 15 values."""
    t = np.arange(n)
    phase = np.cumsum(2 * np.pi / (12 + 3 * np.sin(2 * np.pi * t / 700)))
    clean = 0.6 * np.sin(2 * np.pi * t / 41) + 0.4 * np.sin(phase)
    return (clean + 0.03 * rng.normal(size=n)).astype(np.float32)


def learn(values, rng):
    """A net that reads a value, and the weights that make of its state the change to the next one."""
    rnn = RNN(1, 32, rng=rng)
    parameters = {**rnn.parameters, "out": (rng.normal(size=32) * 0.1).astype(np.float32)}
    optimizer = optim.Adam(5e-3)
    starts = np.arange(0, len(values) - LAG - 1, LAG // 2)
    windows = np.stack([values[s : s + LAG + 1] for s in starts], axis=1)[:, :, None]  # (T + 1, N, 1)
    x, change = windows[:-1], np.diff(windows[:, :, 0], axis=0)
    for _ in range(400):
        output, _ = rnn.forward(x)
        error = output @ parameters["out"] - change
        error[:10] = 0  # the net has seen too little by then
        scale = 2 / error.size
        rnn.backward(scale * error[:, :, None] * parameters["out"])
        gradients = {**rnn.grads, "out": scale * np.einsum("tn,tnh->h", error, output)}
        optimizer.step(parameters, gradients)
    return rnn, parameters["out"]


def picture(values, predictions, rows=11):
    """The signal in stars, and predictions as o where they are in another place."""
    grid = [[" "] * len(values) for _ in range(rows)]

    def row(value):
        return min(rows - 1, max(0, round((rows - 1) * (1.1 - value) / 2.2)))

    for column, (value, prediction) in enumerate(zip(values, predictions, strict=True)):
        grid[row(prediction)][column] = "o"
        grid[row(value)][column] = "*"
    return "\n".join("".join(line).rstrip() for line in grid)


rng = np.random.default_rng(0)
values = signal(LEARNED + FOLLOWED, rng)
rnn, out = learn(values[:LEARNED], rng)

stepper = rnn.stepper()
for value in values[:LEARNED]:  # what it knows of the signal so far is its state
    stepper.step([value])

predictions, x, h, taken = [], np.empty(1, np.float32), np.empty(32, np.float32), []
for value in values[LEARNED:]:
    begin = time.perf_counter_ns()
    x[0] = value
    stepper.step(x, out=h)
    predictions.append(value + h @ out)  # of the value that comes next
    taken.append(time.perf_counter_ns() - begin)

came, expected = values[LEARNED + 1 :], np.array(predictions[:-1])
print(picture(came[-100:], expected[-100:]))
print("\n* came   o was expected, where that is another place\n")
print(f"mean error: {np.abs(came - expected).mean():.3f}, where the noise alone is 0.024")
print(f"the value before as a guess: {np.abs(np.diff(values[LEARNED:])).mean():.3f}")
print(f"a value in, a prediction out: {np.median(taken) / 1000:.1f} us (median of {len(taken)})")
