"""A whole training step: forward, loss, BPTT, clamp, update."""

OPERATION = "train_step"


def test_train_step(time_it, problem, contender):
    time_it(OPERATION, problem, contender)
