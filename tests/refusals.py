"""Wrong calls: the error's class, what its text says, and that nothing was modified.

`refused` makes one such call.  `Calls` holds good arguments and calls with some of them replaced; from a
table with a row (value, error, words) for each bad value of an argument, `wrong_calls` makes a test.
"""

import re
from functools import partial

import numpy as np
import pytest
from support import bits, stream_state


def snapshot(things):
    """What must not change in a dict of things, by name; in their containers, and NumPy's stream as well."""
    found = {"NumPy's stream": stream_state()}

    def look(name, thing, inside=(), held=True):
        kind = type(thing)
        if isinstance(thing, np.ndarray):
            # The very array too, unless a call has just made it.
            found[name] = thing.shape, thing.dtype.str, thing.tobytes(), held and id(thing)
        elif kind in (dict, list, tuple):
            found[name] = kind, len(thing)
            items = thing.items() if kind is dict else enumerate(thing)
            for key, value in () if id(thing) in inside else items:
                look(f"{name}[{key!r}]", value, (*inside, id(thing)), held)
        elif kind in (int, bool, str):
            found[name] = thing
        elif isinstance(thing, (np.generic, float)):
            found[name] = bits(thing)
        elif isinstance(thing, np.random.Generator):
            found[name] = thing.bit_generator.state
        elif hasattr(kind, "state_dict"):
            look(f"{name}.state_dict()", thing.state_dict(), held=False)
        else:
            found[name] = held and id(thing)

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
    __tracebackhide__ = True
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
            partial(self.call, method, **bad), error, words, begins=begins, watched=self.watched, bad=bad
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


def wrong_calls(methods, names, table, *, begins="{name} ", of=None, **fixed):
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
    of : Calls, optional
        Whose calls; the fixture ``box`` when None.
    **fixed
        Other arguments that are not the good ones.
    """

    def test(box, method, name, value, error, words):
        if isinstance(value, Changed):
            value = value.change(box.good[name])
        box.refuses(method, error, words, begins=begins.format(name=name), **fixed | {name: value})

    marks = [
        pytest.mark.parametrize("method", [methods] if isinstance(methods, str) else methods),
        pytest.mark.parametrize("name", [names] if isinstance(names, str) else names),
        cases(table),
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
