"""The examples in the docstrings, run from the copy of the package that is under test."""

import doctest
import importlib
import pkgutil

import pytest

import fastrnn

# The kernels' files are shown by the classes that call them, and one of each may be missing.
MODULES = [
    "fastrnn",
    *(
        module.name
        for module in pkgutil.iter_modules([fastrnn.__path__[0]], "fastrnn.")
        if module.name not in ("fastrnn.__main__", "fastrnn.kernels")
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = sum(
        bool(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name))
    )
    assert found >= 10
