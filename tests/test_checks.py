"""The checks themselves, where the methods of `SimpleRNN` do not show all of them."""

import numpy as np
import pytest

from fastrnn import CharRNN, checks, optim


def test_kernel_array_passes_good_arrays_through():
    a = np.zeros((3, 2))
    assert checks.kernel_array(a, np.dtype(np.float64)) is a


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 2), np.float32), np.zeros((3, 2), ">f8"), np.zeros((2, 3)).T, np.zeros((6, 2))[::2],
        np.broadcast_to(np.zeros(2), (3, 2)), np.frombuffer(bytes(49), np.float64, offset=1).reshape(3, 2),
        np.array(1.0, np.float32),
    ],
)  # fmt: skip
def test_kernel_array_converts(array):
    out = checks.kernel_array(array, np.dtype(np.float64))
    assert out.flags.carray
    assert out.dtype == np.float64
    assert out.dtype.isnative
    assert out.shape == array.shape
    assert not np.shares_memory(out, array)
    assert np.array_equal(out, array)


@pytest.mark.parametrize("value", [1, np.int8(1), np.uint64(1), np.array(1)])
def test_check_size(value):
    size = checks.check_size(value, "n")
    assert size == 1
    assert type(size) is int


@pytest.mark.parametrize(("value", "wanted"), [(0, 0), (4, 4), (-1, 4), (-5, 0), (np.int64(-2), 3)])
def test_check_index(value, wanted):
    assert checks.check_index(value, "i", 5) == wanted


@pytest.mark.parametrize("value", [1, 1.5, np.float32(0.5), np.int8(3), np.array(2.0), np.longdouble(1)])
def test_check_number(value):
    number = checks.check_number(value, "lr")
    assert number == value
    assert type(number) is float


def test_check_number_limits():
    assert checks.check_number(float("inf"), "t", finite=False) == float("inf")
    for value, wanted in ((float("inf"), "finite number"), (float("nan"), "finite number")):
        with pytest.raises(ValueError, match=f"t must be a {wanted}, got"):
            checks.check_number(value, "t")
    with pytest.raises(ValueError, match=r"t must be a positive number, got -1\.0"):
        checks.check_number(-1, "t", positive=True, finite=False)


@pytest.mark.parametrize("dtype", [np.float64, float, "f8", "float64", "d", np.dtype("f8"), "<f8"])
def test_check_dtype(dtype):
    assert checks.check_dtype(dtype) is np.dtype(np.float64)


def test_check_rng():
    assert checks.check_rng(None) is None
    generator = np.random.default_rng(0)
    assert checks.check_rng(generator) is generator
    assert checks.check_rng(3).random() == np.random.default_rng(3).random()
    assert checks.check_rng(2**80).random() == np.random.default_rng(2**80).random()


@pytest.mark.parametrize("given", [optim.Adam, optim.Adam()])
def test_a_class_in_place_of_its_name_is_told(given):
    with pytest.raises(ValueError, match=r"optimizer must be one of .*, got .*: give its name, 'adam'$"):
        CharRNN(optimizer=given, verbose=0).fit("abab" * 50)
    with pytest.raises(ValueError, match=r"got <class 'int'>$"):
        checks.check_choice(int, "x", ("a", None))


def test_check_choice():
    assert checks.check_choice(np.str_("a"), "x", ("a", None)) == "a"
    assert checks.check_choice(None, "x", ("a", None)) is None
    for wrong in (0, "", b"a", ["a"], np.array(["a", "b"])):
        with pytest.raises(ValueError, match=r"x must be one of 'a', None, got"):
            checks.check_choice(wrong, "x", ("a", None))


@pytest.mark.parametrize(
    ("n", "shown"),
    [(0, "0"), (-(10**39), "-1" + "0" * 39), (10**5000, "an integer of 16610 bits")],
    ids=["zero", "long", "too long"],
)
def test_show_integer(n, shown):
    assert checks.show_integer(n) == shown


def test_check_real_array_shapes():
    shapes = ("T", 3), ("T", 3, 1)
    for good in (np.zeros((1, 3)), np.zeros((7, 3, 1)), [[1, 2, 3]]):
        assert checks.check_real_array(good, "x", np.dtype("f4"), *shapes).dtype == np.float32
    with pytest.raises(ValueError, match=r"x must have shape \(T, 3\) or \(T, 3, 1\), got \(3,\)"):
        checks.check_real_array([1, 2, 3], "x", np.dtype("f4"), *shapes)


def test_indices_are_new_arrays(kernels):
    mine = np.array([0, 1, 2])
    out = checks.check_indices(mine, "i", 3, kernels)
    assert out.dtype == np.int64
    assert not np.shares_memory(out, mine)
    assert np.array_equal(out, mine)
