"""Small estimators.  Test modules that need scikit-learn import this one: where it is missing, they are skipped.

In CI it is an error.
"""

import importlib.util

import pytest
from support import IN_CI

if importlib.util.find_spec("sklearn") is None and not IN_CI:
    pytest.skip("scikit-learn is not installed", allow_module_level=True)

from fastrnn import RNNClassifier, RNNRegressor

BOTH = [RNNRegressor, RNNClassifier]
both = pytest.mark.parametrize("cls", BOTH)


def small(cls, **params):
    """One that is fitted at once."""
    return cls(**{"hidden_size": 6, "epochs": 3, "random_state": 0, "backend": "numpy"} | params)
