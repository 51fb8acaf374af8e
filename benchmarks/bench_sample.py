"""Sampling: T characters, each fed back as the next input."""

OPERATION = "sample"


def test_sample(time_it, problem, contender):
    time_it(OPERATION, problem, contender)
