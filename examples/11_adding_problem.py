"""The adding problem: remember two values over a hundred steps, in a plain net that begins well.

    python examples/11_adding_problem.py          # sequences of 100 steps, some seconds
    python examples/11_adding_problem.py --long   # of 200

A step is a random value from 0 to 1 and a marker, which is 1 at one place in each half of the sequence and 0 elsewhere.
At the end the net has to say the sum of the two values that were marked.  Who always says 1 has a mean squared error of
0.167.  Le, Jaitly and Hinton (2015, arXiv 1504.00941) let rectified linear units begin with the identity for their
recurrent weights: then a state stays what it is until an input changes it, and at first gradients neither vanish nor explode.
Two things are not as in the paper: Adam trains, and the weights of the inputs begin with a deviation of 0.1, not 0.001, with
which it takes three to eight times as many batches.  Rectified units with their usual weights learn it too, later and not
always; those of tanh do not.
"""

import sys
import time

import numpy as np

from fastrnn import SequenceModel, init, optim

LONG = "--long" in sys.argv[1:]
STEPS = 200 if LONG else 100
HIDDEN, BATCH, EVERY, MOST = 64, 32, 250, 20_000


def sequences(n, rng):
    """`n` sequences, (T, n, 2), and the sums, (n, 1)."""
    x = np.zeros((STEPS, n, 2), np.float32)
    x[:, :, 0] = rng.random((STEPS, n))
    first, second = rng.integers(0, STEPS // 2, n), rng.integers(STEPS // 2, STEPS, n)
    each = np.arange(n)
    x[first, each, 1] = x[second, each, 1] = 1
    return x, (x[first, each, 0] + x[second, each, 0])[:, None]


def net(nonlinearity, rng):
    return SequenceModel(
        2, HIDDEN, 1, cell="rnn", nonlinearity=nonlinearity, head="last", loss="mse", rng=rng
    )


def learn(sm, most, enough, held_out, rng):
    """Train for `most` steps, or until the error of what is held out is less than `enough`; return the steps."""
    adam = optim.Adam(1e-3)
    for step in range(1, most + 1):
        sm.train_step(*sequences(BATCH, rng), None, adam, clip_threshold=1.0)
        if step % EVERY == 0 and sm.loss(*held_out)[0] < enough:
            break
    return step


rng = np.random.default_rng(0)
held_out, test = sequences(500, rng), sequences(2000, rng)
guess = ((test[1] - 1) ** 2).mean()
start = time.perf_counter()
irnn = net("relu", rng)
init.eye_(irnn.parameters["weight_hh_l0"])
init.normal_(irnn.parameters["weight_ih_l0"], std=0.1, rng=rng)
for name in ("bias_ih_l0", "bias_hh_l0"):
    irnn.parameters[name][:] = 0
steps = learn(irnn, MOST, 0.002, held_out, rng)
seconds = time.perf_counter() - start
error = irnn.loss(*test)[0]

print(f"{STEPS} steps, mean squared error of 2000 new sequences")
print(f"always 1:            {guess:.4f}")
print(f"relu, identity:      {error:.4f}, after {steps} batches of {BATCH}, in {seconds:.0f} s")
if not LONG:
    usual = net("tanh", rng)  # with the weights that it begins with
    learn(usual, steps, 0.002, held_out, rng)
    usual_error = usual.loss(*test)[0]
    print(f"tanh, usual weights: {usual_error:.4f}, after as many")
    if not usual_error > 0.1:
        raise SystemExit(f"the usual net has learned it too: its error is {usual_error:.4f}")
for total, said in zip(test[1][:3, 0], irnn.forward(test[0])[0][:3, 0], strict=True):
    print(f"  a sum of {total:.2f}, and the net says {said:.2f}")
if not error < 0.005:
    raise SystemExit(f"the net has not learned to add: its error is {error:.4f}, not less than 0.005")
