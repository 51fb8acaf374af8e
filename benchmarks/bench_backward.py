"""BPTT (eqs. 7 to 13) with clamped gradients, from the results of `forward`."""

OPERATION = "backward"


def test_backward(time_it, problem, contender):
    time_it(OPERATION, problem, contender)
