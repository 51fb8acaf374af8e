"""The examples in the docstrings, run from the copy of the package that is under test."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import fastrnn

# The kernels' files are shown by the classes that call them, and one of each may be missing.
MODULES = [
    "fastrnn",
    *(
        module.name
        for module in pkgutil.walk_packages([fastrnn.__path__[0]], "fastrnn.")
        if module.name != "fastrnn.__main__" and not module.name.startswith("fastrnn.kernels")
    ),
]


class Finder(doctest.DocTestFinder):
    """Finds the examples of a method or function that a decorator of another file stands before, too."""

    def _from_module(self, module, thing):
        return super()._from_module(module, inspect.unwrap(thing))


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in Finder(exclude_empty=True).find(module):
        runner.run(test)
    assert runner.failures == 0


def test_there_are_examples():
    finder = Finder(exclude_empty=True)
    found = sum(
        bool(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name))
    )
    assert found >= 10
