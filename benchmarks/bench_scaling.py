"""Time against the number of time steps: the report gives the slope of its logarithms, which is 1
when the time grows linearly."""

import pytest
from problems import Problem
from sizes import OPERATIONS, SCALING_H, SCALING_T

LONGEST_IN_SHORT_SELECTION = 10_000


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("T", SCALING_T)
def test_scaling(request, time_it, backend, operation, T):
    if T > LONGEST_IN_SHORT_SELECTION and not request.config.getoption("all_sizes"):
        pytest.skip("a long sequence: --all runs it")
    time_it(operation, Problem(SCALING_H, T), backend, suite="scaling")
