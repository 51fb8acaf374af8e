"""How long the C kernels say that it takes to wake a thread."""

import os
import time

import pytest
from support import run_python

from fastrnn import BackendUnavailable, backends

#: What the child of a fork does is told by its status: in it there are no threads but the one that forked.
IN_A_CHILD = """
import os
from fastrnn import backends
kernels = backends.load("cython")
kernels.{name}()
child = os.fork()
if child == 0:
    os._exit(0 if any(kernels.{name}() > 0 for _ in range(50)) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

every_kind = pytest.mark.parametrize("name", ["team_wake_time", "team_bare_wake_time"])


@pytest.fixture
def kernels():
    try:
        return backends.load("cython")
    except BackendUnavailable as error:
        pytest.skip(str(error))


@every_kind
def test_no_longer_than_the_call_and_never_nothing(name, kernels):
    measured = 0
    for _ in range(50):
        start = time.perf_counter_ns()
        told = getattr(kernels, name)()
        taken = time.perf_counter_ns() - start
        assert told == -1 or 0 < told <= taken
        measured += told > 0
    assert measured  # a thread that is late now and then is not late 50 times


@every_kind
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_wakes_threads_of_its_own(name, kernels):
    done = run_python("-W", "ignore", "-c", IN_A_CHILD.format(name=name))
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
