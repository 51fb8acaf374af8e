"""Wrong calls: the error's class, what its text says, and that nothing was modified.

`refused` makes one such call.  `Calls` holds good arguments and calls with some of them replaced; from a
table with a row (value, error, words) for each bad value of an argument, `wrong_calls` makes a test.
"""

import copy
import math
import re
from fractions import Fraction

import numpy as np
import pytest
from support import bits, stream_state


def snapshot(things):
    """What must not change in a dict of things, by name; in their containers, and NumPy's stream as well."""
    found = {"NumPy's stream": stream_state()}

    def look(name, thing, inside=(), held=True):
        kind = type(thing)
        if isinstance(thing, (np.ndarray, np.generic, float)):
            # The very array too, unless a call has just made it.
            found[name] = bits(thing), id(thing) if held and kind is np.ndarray else None
        elif isinstance(thing, np.random.Generator):
            found[name] = copy.deepcopy(thing.bit_generator.state)
        elif kind in (dict, list, tuple):
            items = thing.items() if kind is dict else enumerate(thing)
            found[name] = kind, len(thing)
            for key, value in () if id(thing) in inside else items:
                look(f"{name}[{key!r}]", value, (*inside, id(thing)), held)
        elif kind in (int, bool, str):
            found[name] = thing
        else:
            found[name] = id(thing) if held else None
        if hasattr(kind, "state_dict"):
            look(f"{name}.state_dict()", thing.state_dict(), held=False)

    for name, thing in things.items():
        look(name, thing)
    return found


def assert_unchanged(before, things, how):
    """Whatever `snapshot` saw in the things before is there now."""
    after = snapshot(things)
    names = [name for name in before | after if before.get(name) != after.get(name)]
    assert not names, f"modified {how}: {', '.join(names)}"


def refused(call, error, words=(), *, begins="", match="", watched=dict, **more):
    """The call raises `error`, and leaves what it is given to look at as it was; returns the text.

    Parameters
    ----------
    call : callable
        Without arguments.
    error : type, or tuple of types
        The class itself: one derived from it fails, but for NumPy's `MemoryError`.
    words : iterable of str
        All of them stand in the text.
    begins : str
        How the text begins.
    match : str
        A regular expression found in the text.
    watched : callable
        Returns a dict of what must not change: arrays, generators, optimizers, models, containers of them.
    **more
        What else must not change.
    """
    before = snapshot(watched() | more)
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    wanted = error if isinstance(error, tuple) else (error,)
    assert caught.type in wanted or MemoryError in wanted, f"{caught.type.__name__}, not {error}: {text}"
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"
    assert text.startswith(begins), f"{text!r} does not begin with {begins!r}"
    assert re.search(match, text), f"{text!r} does not match {match!r}"
    assert len(text) < 500, f"{len(text)} characters: {text}"
    assert_unchanged(before, watched() | more, "by a call that was refused")
    return text


class Calls:
    """Good arguments, by name, and calls with some of them replaced by bad ones."""

    #: Good arguments.
    good: dict

    def call(self, method, **bad):
        """Call `method` with the good arguments, but for `bad`."""
        raise NotImplementedError

    def watched(self):
        """What a call that is refused must leave alone."""
        return self.good

    def refuses(self, method, error, words=(), *, begins="", **bad):
        """The call raises `error`, its text holds `words`; nothing is modified, the bad arguments included."""
        return refused(
            lambda: self.call(method, **bad), error, words, begins=begins, watched=self.watched, bad=bad
        )


class New(Calls):
    """Objects of a class made with some arguments replaced; nothing is drawn for one that is refused."""

    def __init__(self, kind, **good):
        self.kind, self.good = kind, good | {"rng": np.random.default_rng(0)}

    def call(self, method, **bad):
        return self.kind(**self.good | bad)


def cases(table, names=("value", "error", "words")):
    """Parametrize a test with the rows of a table."""
    return pytest.mark.parametrize(names, table, ids=map(str, range(len(table))))


def wrong_calls(methods, names, table, *, begins="{name} ", words=(), of=None, **fixed):
    """A test that every bad value of one argument is refused.

    Parameters
    ----------
    methods, names : str or list of str
        What is called, and the argument, each with each.
    table : list
        Rows of a bad value, the error, and words of its text.  A value that is a `Changed` is made from the
        good one.
    begins : str
        How the text begins, with the argument's name for ``{name}``.
    words : iterable of str
        What every text holds besides.
    of : Calls, optional
        Whose calls; the fixture ``box`` when None.
    **fixed
        Other arguments that are not the good ones.
    """

    def test(box, method, name, value, error, said):
        if isinstance(value, Changed):
            value = value.change(box.good[name])
        box.refuses(method, error, [*words, *said], begins=begins.format(name=name), **fixed | {name: value})

    marks = [
        pytest.mark.parametrize("method", [methods] if isinstance(methods, str) else methods),
        pytest.mark.parametrize("name", [names] if isinstance(names, str) else names),
        cases(table, ("value", "error", "said")),
    ]
    if of is not None:
        marks.append(pytest.mark.parametrize("box", [of], ids=[""]))
    for mark in marks:
        test = mark(test)
    return test


class Changed:
    """A bad argument that is made from the good one."""

    def __init__(self, change):
        self.change = change


def changed(**new):
    """Of a dict: some entries replaced, or more of them."""
    return Changed(lambda good: good | new)


def without(*names):
    """Of a dict: some entries left out."""
    return Changed(lambda good: {name: value for name, value in good.items() if name not in names})


def rows(error, values, *words):
    """Rows of values that are refused with the same words, each of which may show the value: ``{!r}``."""
    return [(value, error, [word.format(value) for word in words]) for value in values]


# What every class refuses alike, whichever argument it is.

NONE = (None, TypeError, ["NoneType"])
BAD_NUMBERS = [
    (math.nan, ValueError, ["nan"]),
    (np.float32("nan"), ValueError, ["nan"]),
    ("0.1", TypeError, ["str '0.1'"]),
    (True, TypeError, ["bool"]),
    (np.True_, TypeError, ["number"]),
    (0.1j, TypeError, ["complex"]),
    ([0.1], TypeError, ["list [0.1]"]),
    (np.array([0.1]), TypeError, ["array([0.1])"]),
    (np.array(0.1j), TypeError, ["number"]),
    ({}, TypeError, ["dict"]),
    (10**400, TypeError, ["int"]),
    (10**5000, TypeError, ["int"]),
    (Fraction(1, 10), TypeError, ["Fraction"]),
]
BAD_INTEGERS = [
    (1.0, TypeError, ["integer", "float"]),
    ("3", TypeError, ["str"]),
    (True, TypeError, ["True"]),
    (np.True_, TypeError, ["True"]),
    ([3], TypeError, ["list"]),
    (np.array([3]), TypeError, ["ndarray"]),
]
BAD_COUNTS = [
    *BAD_INTEGERS,
    (0, ValueError, ["at least 1", "got 0"]),
    (-2, ValueError, ["at least 1", "got -2"]),
    (2**62, ValueError, ["at most"]),
    (2**80, ValueError, ["at most"]),
    (10**5000, ValueError, ["at most", "bits"]),
]
BAD_RNGS = [
    (-1, ValueError, ["seed of at least 0", "-1"]),
    (-(10**5000), ValueError, ["bits"]),
    (1.5, TypeError, ["float"]),
    ("seed", TypeError, ["str"]),
    (True, TypeError, ["bool"]),
    ([1, 2], TypeError, ["list"]),
    (np.random.RandomState(0), TypeError, ["RandomState"]),
    (np.random, TypeError, ["module"]),
    (np.random.PCG64(0), TypeError, ["PCG64"]),
]
BAD_DTYPES = rows(
    TypeError,
    [None, "float16", int, np.int64, complex, bool, object, "foo", 3, ">f8", ">f4", [], {"a": 1}, [("a", "f8")],
     "f8,f8", *([] if np.dtype(np.longdouble) == np.float64 else [np.longdouble])],
    "must be float32 or float64, got {!r}",
)  # fmt: skip
BAD_BACKENDS = rows(
    ValueError, ["", "Numba", "cuda", 3, b"numpy", [], True], "got {!r}", "'cython'", "'numba'", "'numpy'"
)
BAD_NONLINEARITIES = rows(
    ValueError,
    ["", "Tanh", "sigmoid", b"tanh", 0, None, True, [], np.tanh],
    "must be one of 'tanh', 'relu', got {!r}",
)
BAD_FLAGS = [
    (value, TypeError, ["must be a bool", type(value).__name__]) for value in (None, 0, 1, "True", [], 1.0)
]

# What every class that takes batches refuses alike.

#: T and N of the batches here.
BATCH = 5, 3


def with_index(value, t, n, dtype=np.int64):
    """A batch of zeros but for one."""
    out = np.zeros(BATCH, dtype)
    out[t, n] = value
    return out


def bad_indices(bound):
    """Batches with one index that is out of bounds, its place and the index as the message shows them."""
    return [
        (with_index(bound, 0, 0), "[0, 0]", str(bound)),
        (with_index(-bound - 1, 2, 1), "[2, 1]", str(-bound - 1)),
        (with_index(200, 4, 2, np.uint8), "[4, 2]", "200"),
        (with_index(2**63 - 1, 1, 2), "[1, 2]", str(2**63 - 1)),
        (with_index(-(2**63), 1, 2), "[1, 2]", str(-(2**63))),
        (with_index(2**64 - 1, 3, 1, np.uint64), "[3, 1]", str(2**64 - 1)),
        (with_index(2**64 - 1, 3, 1, ">u8"), "[3, 1]", str(2**64 - 1)),
        (with_index(2**63, 3, 1, np.uint64), "[3, 1]", str(2**63)),
        (with_index(300, 3, 0, ">i2"), "[3, 0]", "300"),
        (np.asfortranarray(with_index(9, 0, 2)), "[0, 2]", "9"),
        (with_index(9, 1, 2).tolist(), "[1, 2]", "9"),
    ]


def bad_states(L, N, H):
    """States that are not those of L layers, N sequences and H hidden units."""
    shapes = [(L, N), (N, H), (1, N, H), (L + 1, N, H), (L, N + 1, H), (L, 1, H), (L, N, H - 1), (N, L, H),
              (L, H, N), (L, N, H, 1), (0, N, H)]  # fmt: skip
    return [
        *[(np.zeros(shape, np.float32), ValueError, [str((L, N, H)), str(shape)]) for shape in shapes],
        (0.0, ValueError, ["()"]),
        ([], ValueError, ["(0,)"]),
        *[(np.zeros((L, N, H), kind), TypeError, [kind]) for kind in ("complex128", "bool", "object")],
        ("state", TypeError, ["str 'state'"]),
        ({}, TypeError, ["dict"]),
        ([[["0"] * H] * N] * L, TypeError, ["<U1"]),
        ([[[0.0] * H] * N, [[0.0] * H] * (N - 1)], ValueError, ["array"]),
    ]
