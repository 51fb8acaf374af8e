"""Values that refuse to become arrays, as PyTorch's tensors that require grad do: the argument is named."""

import numpy as np
import pytest
from tensor_support import ARGUMENTS, refuses


class Tensor:
    """What NumPy sees of a tensor that requires grad."""

    shape, ndim, dtype = (2,), 1, "float32"

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return Tensor()

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.mark.parametrize("argument", ARGUMENTS, ids=[f"{a[0]}-{a[1]}" for a in ARGUMENTS])
@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "list"])
def test_the_argument_is_named(wrapped, argument):
    refuses(argument, [Tensor()] if wrapped else Tensor())


def test_the_stand_in_does_what_tensors_do():
    for value in (Tensor(), [Tensor()]):
        with pytest.raises(RuntimeError, match="requires grad"):
            np.asarray(value)
