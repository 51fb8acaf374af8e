"""What several classes refuse alike: rows (value, error, words) for `refusals`."""

import math
from fractions import Fraction

import numpy as np
from refusals import rows

NONE = (None, TypeError, ["NoneType"])
NUMBERS = [
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
INTEGERS = [
    (1.0, TypeError, ["integer", "float"]),
    ("3", TypeError, ["str"]),
    (True, TypeError, ["True"]),
    (np.True_, TypeError, ["True"]),
    ([3], TypeError, ["list"]),
    (np.array([3]), TypeError, ["ndarray"]),
]
COUNTS = [
    *INTEGERS,
    (0, ValueError, ["at least 1", "got 0"]),
    (-2, ValueError, ["at least 1", "got -2"]),
    (2**62, ValueError, ["at most"]),
    (2**80, ValueError, ["at most"]),
    (10**5000, ValueError, ["at most", "bits"]),
]
RNGS = [
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
DTYPES = rows(
    TypeError,
    [None, "float16", int, np.int64, complex, bool, object, "foo", 3, ">f8", ">f4", [], {"a": 1}, [("a", "f8")],
     "f8,f8", *([] if np.dtype(np.longdouble) == np.float64 else [np.longdouble])],
    "must be float32 or float64, got {!r}",
)  # fmt: skip
BACKENDS = rows(
    ValueError, ["", "Numba", "cuda", 3, b"numpy", [], True], "got {!r}", "'cython'", "'numba'", "'numpy'"
)
NONLINEARITIES = rows(
    ValueError,
    ["", "Tanh", "sigmoid", b"tanh", 0, None, True, [], np.tanh],
    "must be one of 'tanh', 'relu', got {!r}",
)
FLAGS = [
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


def indices(bound):
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


def states(L, N, H):
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
