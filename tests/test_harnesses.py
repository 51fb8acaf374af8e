"""What `refusals` and `guarded` are there to find, they find."""

import math

import numpy as np
import pytest
from guarded import Guarded
from refusals import refused

from fastrnn import optim


def raising(change, error=ValueError, text="lr must be positive"):
    """A call that changes something before it raises."""

    def call():
        change()
        raise error(text)

    return call


def test_a_refusal_that_leaves_everything_as_it_was():
    assert refused(raising(dict), ValueError, ["lr", "positive"], begins="lr ") == "lr must be positive"


@pytest.mark.parametrize(
    ("error", "said", "match"),
    [(LookupError, {}, "IndexError, not"), (IndexError, {"words": ["clip"]}, "'clip' is not in 'lr must"),
     (IndexError, {"begins": "clip"}, "does not begin with"), (IndexError, {"match": "^clip"}, "does not match")],
)  # fmt: skip
def test_a_refusal_with_another_error_or_text(error, said, match):
    with pytest.raises(AssertionError, match=match):
        refused(raising(dict, IndexError), error, **said)


@pytest.mark.parametrize(
    "what", ["array", "nested['W'][0]", "sgd.state_dict()['step']", "rng", "NumPy's stream", "nested"]
)
def test_a_refusal_that_changes_something(what):
    array, W, rng, sgd = np.zeros(3), np.ones(2), np.random.default_rng(0), optim.SGD(0.1)
    nested = {"W": [W]}
    change = {
        "array": lambda: array.fill(-0.0), "nested['W'][0]": lambda: nested.update(W=[W.copy()]),
        "sgd.state_dict()['step']": lambda: sgd.step({"W": np.ones(2)}, {"W": W}), "rng": rng.random,
        "NumPy's stream": np.random.random, "nested": nested.clear,
    }[what]  # fmt: skip
    with pytest.raises(AssertionError, match="modified by a call") as caught:
        refused(raising(change), ValueError, array=array, nested=nested, rng=rng, sgd=sgd)
    assert what in str(caught.value).removeprefix("modified by a call that was refused: ").split(", ")


@pytest.mark.parametrize("offset", [0, 3])
def test_what_guards_find(offset, dtype):
    def memory():
        guarded = Guarded(dtype, offset)
        return guarded, guarded.given(np.arange(6.0).reshape(2, 3)), guarded.new((4,))

    guarded, _, out = memory()
    out[...] = math.nan  # a result, and not the poison
    guarded.check(out)
    for place, match in ((-1, "before an array of 4"), (4, "after an array of 4")):
        guarded, _, out = memory()
        out.base[64 + offset + place] = 0
        with pytest.raises(AssertionError, match=match):
            guarded.check()
    guarded, given, out = memory()
    out[:2] = 1
    assert guarded.untouched(out[2:])
    with pytest.raises(AssertionError, match=r"2 of \(4,\) not written, first \[2\]"):
        guarded.check(out)
    given[1, 2] = 7
    with pytest.raises(AssertionError, match=r"an input of shape \(2, 3\) was written"):
        guarded.check()
    guarded.keep()
    guarded.check()
