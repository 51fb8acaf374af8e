"""Every public name is explained: its docstring has the sections that its signature calls for."""

import importlib
import inspect
import re
from types import FunctionType

import pytest

import fastrnn

SUBMODULES = [
    importlib.import_module(f"fastrnn.{name}") for name in ("functional", "init", "optim", "diagnostics")
]
HEADINGS = "Parameters|Attributes|Returns|Yields|Raises|Warns|Notes|References|Examples"

#: Without checks of their arguments.
RAISES_NOTHING = ("fastrnn.CharRNN.get_params", "fastrnn.Reference")


def public():
    """Each public class, function, method and property under its name."""
    for module in [fastrnn, *SUBMODULES]:
        for name in module.__all__:
            thing = getattr(module, name)
            if isinstance(thing, (type, FunctionType)):
                yield f"{module.__name__}.{name}", thing
            for base in inspect.getmro(thing)[::-1] if isinstance(thing, type) else ():
                for member, value in vars(base).items() if base.__module__.startswith("fastrnn") else ():
                    method = getattr(value, "__func__", value)
                    # A picture is explained by the function in `fastrnn.figures` that draws it.
                    if isinstance(method, (FunctionType, property)) and not re.match("_|plot$", member):
                        yield f"{module.__name__}.{name}.{member}", method


def sections(doc):
    """Text under each heading of a docstring."""
    parts = re.split(rf"^({HEADINGS})\n-+\n", doc, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def explained(section):
    """Names that a section explains: ``x, y : int`` are two."""
    heads = re.findall(r"^(\S[^:\n]*)", section, re.MULTILINE)
    return sorted(name.strip().lstrip("*") for head in heads for name in head.split(","))


@pytest.mark.parametrize("name", PUBLIC := dict(public()))
def test_docstring_has_what_the_signature_calls_for(name):
    thing = PUBLIC[name]
    doc = inspect.cleandoc(thing.__doc__ or "")
    assert re.match(r"\S.*[.:;)]$", doc.split("\n\n")[0].replace("\n", " ")), "it must begin with a sentence"
    found = sections(doc)
    if isinstance(thing, property) or (isinstance(thing, type) and issubclass(thing, Exception)):
        return
    if isinstance(thing, type) and (inspect.isabstract(thing) or hasattr(thing, "__dataclass_fields__")):
        fields = [n for n in getattr(thing, "__dataclass_fields__", ()) if not n.startswith("_")]
        assert set(fields) <= set(explained(found.get("Attributes", "")))
        return
    signature = inspect.signature(thing)
    arguments = sorted(set(signature.parameters) - {"self"} - {"cls"})
    assert explained(found.get("Parameters", "")) == arguments
    assert "Raises" in found or not arguments or name.startswith(RAISES_NOTHING)
    assert "Examples" in found
    if not isinstance(thing, type):
        returned = signature.return_annotation not in (None, "None")
        assert returned == bool({"Returns", "Yields"} & set(found))


def test_what_is_public_is_looked_at():
    assert {"fastrnn.SimpleRNN.sample", "fastrnn.RNN.train", "fastrnn.functional.softmax"} <= set(PUBLIC)
    with pytest.raises(AssertionError):
        assert explained(sections("A.\n\nParameters\n----------\nx, y : int\n    Two.\n")["Parameters"]) == [
            "x"
        ]
