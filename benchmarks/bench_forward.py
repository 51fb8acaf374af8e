"""`forward` (eqs. 1, 2, 16, 17): states and probabilities of one sequence."""

OPERATION = "forward"


def test_forward(time_it, problem, contender):
    time_it(OPERATION, problem, contender)
