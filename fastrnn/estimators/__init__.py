"""`RNNRegressor` and `RNNClassifier`: a `SequenceModel` with scikit-learn's methods.

They need scikit-learn: ``pip install 'fastrnn[sklearn]'``.
"""

from __future__ import annotations

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "the estimators need scikit-learn, which is not installed: pip install 'fastrnn[sklearn]'"
    ) from error

from fastrnn.estimators.classifier import RNNClassifier
from fastrnn.estimators.regressor import RNNRegressor

__all__ = ["RNNClassifier", "RNNRegressor"]


def __dir__() -> list[str]:
    return sorted(__all__)
