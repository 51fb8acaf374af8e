"""One case: a pair of objects, calls of three kinds, and what must hold of each."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fuzz.compare import TOLERANCE, Failure, bits, error_of, leaves, mismatches, picture
from fuzz.disguises import disguise
from fuzz.spoils import spoil
from fuzz.values import IGNORED, Draw

#: What a refused call may raise.
ERRORS = (TypeError, ValueError, IndexError, OverflowError, KeyError, RuntimeError)

#: Whether the address sanitizer is there, which does not stand the exceptions of matplotlib's C++.
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")

#: Arguments whose values alone cannot take results beyond all bounds.
ARRAYS = ("real", "inputs", "array", "classes", "targets", "lengths")


class Argument(NamedTuple):
    """A right argument.

    Kinds are those of `disguise` and `spoil`; `bound` is how many classes there are, or the longest length.
    """

    value: Any
    kind: str
    bound: int | None = None


@dataclass
class Call:
    """A call of a method, or a few lines of calls.

    `run` takes the subject and a dict of values.  `prepare` is what has to be called before it.  `watch`
    makes a dict of what a refused call must leave alone beside the subject and the arguments.
    """

    name: str
    run: Callable[[Any, dict[str, Any]], Any]
    arguments: dict[str, Argument]
    prepare: Callable[[Any, dict[str, Any]], Any] | None = None
    #: Whether the same values in other memory give the same bits, and not only nearly the same numbers.
    exact: bool = True
    #: Whether a right call is compared with that of the twin.
    compared: bool = True
    tolerance: float = 1.0
    #: Whether a right call leaves the subject as it was.
    reads: bool = False
    #: Whether the results of finite arguments of a usual size are finite.
    bounded: Callable[[dict[str, Any]], bool] = lambda _: True

    def values(self):
        return {name: argument.value for name, argument in self.arguments.items()}


class Pair:
    """What is called, `own`, and its `twin`: the same with NumPy's kernels in float64.

    A class for each kind of subject says how these are copied and what of them is to be looked at.
    """

    own: Any
    twin: Any
    dtype = np.dtype(np.float64)
    twin_dtype = np.dtype(np.float64)
    #: Whether results are of a usual size where arguments are: not so of a ReLU, or of an exponential.
    bounded = True

    def __repr__(self):
        return repr(self.own)

    def sync(self):
        """Bring the twin to where `own` is."""

    def copy(self):
        """A copy of `own`."""
        return self.own

    def perturbed(self, draw, size):
        """The twin as it was at the last `sync`, its parameters a little off; None where there are none."""
        return

    def watched(self):
        """All that a refused call leaves as it was."""
        return {}

    def weights(self):
        """The parameters."""
        return {}

    def outcome(self, subject):
        """What a call has made of a subject, beside its results."""
        return {}

    def keep(self):
        """Return a function that puts `own` back to where it is now."""
        return lambda: None

    def other_settings(self, draw, subject):
        """Change what makes no difference: a number of threads."""


@dataclass
class Counts:
    calls: int = 0
    refused: int = 0
    compared: int = 0


@dataclass
class Case:
    """One case."""

    draw: Draw
    backend: str
    counts: Counts = field(default_factory=Counts)
    history: list[str] = field(default_factory=list)
    #: Told of each call before it is made.
    tell: Callable[[str], Any] = str

    def note(self, text):
        self.history.append(text)
        self.tell(text)

    def call(self, pair, call):
        """Make a call of a kind that is drawn."""
        way = self.draw.rng.random()
        if way < 0.35:
            self.right(pair, call)
        elif way < 0.6:
            self.disguised(pair, call)
        else:
            self.spoilt(pair, call)

    # -- kinds -----------------------------------------------------------------------------------

    def right(self, pair, call):
        """The result is the twin's."""
        values = call.values()
        self.note(f"right {call.name}({shown(values)})")
        pair.sync()
        theirs = {name: cast(value, pair.twin_dtype) for name, value in values.items()}
        before, weights = picture(values), largest(pair.weights())
        if call.prepare is not None:
            call.prepare(pair.own, values)
            call.prepare(pair.twin, theirs)
        seen = pictures(pair.watched()) if call.reads else {}
        self.counts.calls += 1
        got = call.run(pair.own, values)
        if picture(values) != before:
            raise Failure("an argument was modified")
        after = pictures(pair.watched()) if call.reads else {}
        if after != seen:
            raise Failure(f"{call.name} modified {[name for name in seen if seen[name] != after.get(name)]}")
        if not call.compared:
            return
        want = call.run(pair.twin, theirs)
        self.counts.compared += 1
        self.same(pair, call, got, want, theirs, weights)

    def same(self, pair, call, got, want, theirs, weights):
        """Nearly the same numbers.

        `weights` is the largest of the parameters.  Those that are further off must change by as much where weights change by some roundings, or be as
        small, beside the arguments, the weights and the other results, as what rounding leaves of 1 - h^2 where h is
        nearly 1."""
        tolerance = TOLERANCE[pair.dtype] * call.tolerance
        if not pair.bounded and not largest(want, np.inf) <= float(np.finfo(pair.dtype).max) ** 0.8:
            return  # they may be infinite here, or NaN
        bad = mismatches(got, want, pair.dtype, tolerance)
        if not bad:
            return
        moved = dict.fromkeys((path for path, _, _ in bad), 0.0)
        wanted = dict(leaves(want))
        for _ in range(24):
            near = pair.perturbed(self.draw, tolerance / 10)
            if near is None:
                break
            nudged = {name: nudge(self.draw, value, tolerance / 10) for name, value in theirs.items()}
            if call.prepare is not None:
                call.prepare(near, nudged)
            other = dict(leaves(call.run(near, nudged)))
            for path in moved:
                moved[path] = max(moved[path], error_of(other[path], wanted[path]))
        rounding = tolerance / 10 * largest((theirs, want, weights))
        for path, error, allowed in bad:
            whole = np.asarray(wanted[path]).dtype.kind in "iu"
            if not (moved[path] > 0 if whole else error <= 4 * moved[path] + rounding):
                at = where(dict(leaves(got))[path], wanted[path])
                raise Failure(
                    f"result{path} is off by {error:.3g}, allowed {allowed:.3g} (rounded weights move it by "
                    f"{moved[path]:.3g}); {at}"
                )

    def disguised(self, pair, call):
        """The same values in other memory: the same bits."""
        values = call.values()
        other = {name: disguise(self.draw, a.value, a.kind) for name, a in call.arguments.items()}
        self.note(f"disguised {call.name}({shown(other)})")
        one, two = pair.copy(), pair.copy()
        pair.other_settings(self.draw, two)
        if call.prepare is not None:
            call.prepare(one, values)
            call.prepare(two, values)
        self.counts.calls += 2
        first = call.run(one, values), pair.outcome(one)
        before = picture(other)
        second = call.run(two, other), pair.outcome(two)
        if picture(other) != before:
            raise Failure("an argument was modified")
        self.counts.compared += 1
        if not call.exact:
            bad = mismatches(second, first, pair.dtype, TOLERANCE[pair.dtype])
            if bad:
                raise Failure(f"in other memory: result{bad[0][0]} is off by {bad[0][1]:.3g}")
        elif bits(first) != bits(second):
            differ = [a[0] for a, b in zip(bits(first), bits(second), strict=True) if a != b]
            raise Failure(f"other bits in other memory: results {', '.join(differ)}")

    def spoilt(self, pair, call):
        """It returns, or is refused and leaves all as it was."""
        if call.prepare is not None:
            call.prepare(pair.own, call.values())
        values = call.values()
        names = [name for name, a in call.arguments.items() if a.kind != "fixed"]
        chosen = {self.draw.pick(names) for _ in range(self.draw.pick((1, 1, 1, 2)))}
        for name in sorted(chosen):
            argument = call.arguments[name]
            values[name] = spoil(self.draw, argument.value, argument.kind, argument.bound)
        self.note(f"spoilt {call.name}({shown({name: values[name] for name in sorted(chosen)})})")
        put_back = pair.keep()
        before, given = pictures(pair.watched()), picture(values)
        self.counts.calls += 1
        try:
            result = call.run(pair.own, values)
        except ERRORS as error:
            self.counts.refused += 1
            self.refused(error, before, pair)
            if picture(values) != given:
                raise Failure(f"an argument was modified by a call that was refused: {error}") from error
            return
        ragged = values.get("lengths") is not None  # what comes after the end of a sequence is not looked at
        wrong = [name for name in chosen if must_be_refused(call.arguments[name], values[name], ragged)]
        if wrong and len(chosen) == 1:
            raise Failure(f"{wrong[0]} was accepted: {describe(values[wrong[0]])}")
        harmless = pair.bounded and all(
            call.arguments[name].kind in ARRAYS and small(values[name]) for name in chosen
        )
        if harmless and call.bounded(values):
            for path, value in leaves(result):
                if isinstance(value, (np.ndarray, float)) and not np.isfinite(value).all():
                    raise Failure(f"result{path} is not finite, and all arguments are")
        put_back()

    def poisoned(self, pair, call, parameters):
        """One weight, of a dict of arrays, is NaN or infinite: the call returns, or is refused."""
        name = self.draw.pick(list(parameters))
        W, value = parameters[name], self.draw.pick((np.nan, np.inf, -np.inf, np.finfo(pair.dtype).max))
        self.note(f"{call.name}({shown(call.values())}) with {value} in {name}")
        if call.prepare is not None:
            call.prepare(pair.own, call.values())
        put_back = pair.keep()
        W.reshape(-1)[self.draw.integer(0, W.size - 1)] = value
        before = pictures(pair.watched())
        self.counts.calls += 1
        try:
            call.run(pair.own, call.values())
        except ERRORS as error:
            self.counts.refused += 1
            self.refused(error, before, pair)
        put_back()

    def refused(self, error, before, pair):
        """The error is of a documented class and says something; nothing was modified."""
        if isinstance(error, RecursionError):
            raise Failure(f"refused by {type(error).__name__}") from error
        if not str(error).strip():
            raise Failure(f"{type(error).__name__} without a message") from error
        if len(str(error)) > 3000:
            raise Failure(f"{type(error).__name__} with a message of {len(str(error))} characters") from error
        after = pictures(pair.watched())
        changed = [name for name in before if before[name] != after.get(name)]
        if changed or before.keys() != after.keys():
            raise Failure(f"{', '.join(changed)} modified by a call that was refused: {error}") from error


#: Arguments that hold indices below a bound, where they hold whole numbers.
INDICES = ("inputs", "classes", "targets")


def must_be_refused(argument, value, ragged):
    """Whether an array is right but for an index or a length that cannot be."""
    right = argument.value
    if not (isinstance(value, np.ndarray) and isinstance(right, np.ndarray)) or argument.bound is None:
        return False
    if value.shape != right.shape or value.dtype.kind not in "iu" or right.dtype.kind not in "iu":
        return False
    numbers = [int(number) for number in value.flat]
    if argument.kind == "lengths":
        return any(not 1 <= n <= argument.bound for n in numbers)
    if argument.kind not in INDICES or ragged:
        return False
    return any(n >= argument.bound or (n < -argument.bound and n != IGNORED) for n in numbers)


# -- helpers -----------------------------------------------------------------------------------------


def pictures(things):
    """Of each thing; and of NumPy's global stream."""
    state = np.random.get_state(legacy=False)["state"]
    return {name: picture(thing) for name, thing in things.items()} | {
        "NumPy's stream": (state["key"].tobytes(), state["pos"])
    }


def cast(value, dtype):
    """Real numbers of arguments in another dtype."""
    if isinstance(value, np.ndarray):
        return value.astype(dtype) if value.dtype.kind == "f" else value
    if isinstance(value, tuple):
        return tuple(cast(part, dtype) for part in value)
    if isinstance(value, dict):
        return {name: cast(part, dtype) for name, part in value.items()}
    return value


def nudge(draw, value, size):
    """Real numbers, each changed by a few roundings."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f":
            return value
        return (value * (1 + size * draw.rng.normal(size=value.shape))).astype(value.dtype)
    if isinstance(value, tuple):
        return tuple(nudge(draw, part, size) for part in value)
    if isinstance(value, dict):
        return {name: nudge(draw, part, size) for name, part in value.items()}
    return value


def largest(things, other=0.0):
    """The largest number among floats and their arrays, where one that is not finite counts as `other`."""
    arrays = [np.asarray(value) for _, value in leaves(things) if isinstance(value, (float, np.ndarray))]
    return max(
        (
            float(np.where(np.isfinite(a), np.abs(a), other).max(initial=0))
            for a in arrays
            if a.dtype.kind == "f"
        ),
        default=0.0,
    )


def small(value):
    """Whether all numbers of an argument are finite and of a usual size."""
    if isinstance(value, (tuple, list)):
        return len(value) < 10**4 and all(small(part) for part in value if part is not value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub" or value.nbytes > 1 << 20:
            return False
        return bool(np.isfinite(value).all() and (np.abs(value.astype(np.float64)) < 1e3).all())
    return isinstance(value, (int, float)) and abs(value) < 1e3


def where(got, want):
    """The first place where two results differ the most."""
    got, want = np.asarray(got), np.asarray(want)
    if not got.ndim:
        return f"{got} in place of {want}"
    off = np.abs(got.astype(np.float64) - want.astype(np.float64))
    off[~np.isfinite(off)] = np.inf
    place = tuple(int(i) for i in np.unravel_index(int(off.argmax()), off.shape))
    return f"at {list(place)} of {got.shape}: {got[place]} in place of {want[place]}"


def shown(values):
    return ", ".join(f"{name}={describe(value)}" for name, value in values.items())


def describe(value):
    """A short text for an argument."""
    if isinstance(value, np.ndarray):
        flags = "" if value.flags.carray else f" strides {value.strides}"
        flags += "" if value.flags.aligned else " misaligned"
        flags += "" if value.flags.writeable else " read-only"
        few = f" {value.tolist()}" if value.size <= 3 and value.nbytes < 100 else ""
        return f"<{type(value).__name__} {value.dtype} {value.shape}{flags}{few}>"
    if isinstance(value, (tuple, list)) and len(value) <= 4 and not any(part is value for part in value):
        return f"{type(value).__name__}({', '.join(map(describe, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name!r}: {describe(part)}' for name, part in value.items())}}}"
    if isinstance(value, int) and abs(value) > 10**40:
        return f"<int of {value.bit_length()} bits>"
    return f"{type(value).__name__} {value!r:.80}"
