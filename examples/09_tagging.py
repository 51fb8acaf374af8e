"""Tag every step of sequences of different lengths, with a net that reads in both directions.

    python examples/09_tagging.py

A sensor is 0 when nothing happens and 1 during an event, which takes 3 to 8 steps.  It is noisy, and now and then a
single step jumps to 1 although nothing happens.  Each step is to be tagged: event or not.  A threshold cannot tell an
event from a jump.  A net that reads forwards cannot either, where an event begins: what comes after it tells.
"""

import numpy as np

from fastrnn import SequenceModel, optim

NOISE, SHORTEST, LONGEST = 0.3, 20, 60


def recordings(n, rng):
    """Signals (T, n, 1) side by side, tags (T, n) and lengths (n,); after an end there is NaN, and it is not read."""
    x, y = np.full((LONGEST, n, 1), np.nan, np.float32), np.zeros((LONGEST, n), int)
    lengths = rng.integers(SHORTEST, LONGEST + 1, n)
    for each, length in enumerate(lengths):
        t = rng.integers(0, 12)
        while t < length:
            duration = rng.integers(3, 9)
            y[t : min(t + duration, length), each] = 1
            t += duration + rng.integers(3, 20)
        jumps = rng.random(length) < 0.1
        signal = np.maximum(y[:length, each], jumps) + NOISE * rng.normal(size=length)
        x[:length, each, 0] = signal
    return x, y, lengths


def learn(x, y, lengths, rng, bidirectional):
    sm = SequenceModel(
        1, 16, 2, cell="gru", bidirectional=bidirectional, head="each", loss="cross_entropy", rng=rng
    )
    adam = optim.Adam(0.01)
    for _ in range(400):
        some = rng.integers(0, len(lengths), 50)
        sm.train_step(x[:, some], y[:, some], None, adam, lengths=lengths[some])
    return sm


def marks(tags):
    return "".join(".#"[tag] for tag in tags)


rng = np.random.default_rng(0)
x, y, lengths = recordings(1000, rng)
new_x, new_y, new_lengths = recordings(1000, rng)
real, new_real = (np.arange(LONGEST)[:, None] < each for each in (lengths, new_lengths))


def accuracy(tags):
    """Share of the new recordings' steps, up to their ends, that are tagged right."""
    return (tags == new_y)[new_real].mean()


often = np.bincount(y[real]).argmax()
levels = np.linspace(0, 1.5, 61)
level = max(levels, key=lambda at: ((x[..., 0] > at) == y)[real].mean())  # the best one for what is learned
forwards, both = (
    learn(x, y, lengths, rng, bidirectional).forward(new_x, lengths=new_lengths)[0].argmax(axis=2)
    for bidirectional in (False, True)
)
threshold = new_x[..., 0] > level

n, end = 0, new_lengths[0]
print("signal   ", "".join(" .:-=+*#"[int(np.clip(5 * v, 0, 7))] for v in new_x[:end, n, 0]))
for name, tags in (("true", new_y), ("threshold", threshold.astype(int)), ("net", both)):
    print(f"{name:9}", marks(tags[:end, n]))
print(f"\nright, of {new_real.sum()} steps of 1000 new recordings")
print(f"always {'no event' if often == 0 else 'event'}:   {accuracy(np.full_like(new_y, often)):.3f}")
print(f"threshold of {level:.2f}: {accuracy(threshold):.3f}")
print(f"net, forwards:     {accuracy(forwards):.3f}")
print(f"net, both ways:    {accuracy(both):.3f}")
if not accuracy(both) > max(0.95, accuracy(forwards) + 0.01, accuracy(threshold) + 0.05):
    raise SystemExit("reading in both directions is not better than the rest by as much as it should be")
