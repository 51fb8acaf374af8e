"""A small language for vector code: Python operators on values that emit LLVM instructions.

Numba's own loops leave it to the compiler which registers hold what, and at which width.  The inner
loops of this package want that said: `routine` makes one of them from a function that is run once,
at compile time, with an `Emitter` and arguments of the classes below, and becomes a function of its own in
the machine code, called from jitted code with arrays and numbers.

The width is the host's: 64 bytes with AVX-512, 32 with AVX, else 16.  A vector has as many ``lanes`` as elements fit.

An example, ``out = x + y`` for rows of whole vectors::

    @routine("vvv", plain)                                         # three arrays; plain is the same in NumPy
    def add(emitter, out, x, y):
        with emitter.loop(0, out.n, emitter.lanes) as j:           # for j in range(0, out.n, lanes), in machine code
            (out + j).store((x + j).load() + (y + j).load())       # out[j : j + lanes] = ...

A Python loop or condition is gone through at compile time, and writes its body as often as it runs; `Emitter.loop`
and `Emitter.when` are those of the machine code.  What such a loop carries on is in a `Variable`.
"""

import contextlib
import functools
import inspect

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.registry import cpu_target
from numba.extending import intrinsic

INDEX = ir.IntType(64)


def _vector_bytes():
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return 64 if "+avx512f" in features else 32 if "+avx" in features else 16


VECTOR_BYTES = _vector_bytes()

#: Multiplications and additions may be fused, as a C compiler does; nothing else may be reordered.
FLAGS = ("contract",)


class Value:
    """A number or vector, whole or real, in the code that is being emitted."""

    __slots__ = ("emitter", "ir")

    def __init__(self, emitter, value):
        self.emitter = emitter
        self.ir = value

    @property
    def lanes(self):
        return self.ir.type.count if isinstance(self.ir.type, ir.VectorType) else 1

    @property
    def _element(self):
        return self.ir.type.element if isinstance(self.ir.type, ir.VectorType) else self.ir.type

    @property
    def _is_real(self):
        return not isinstance(self._element, ir.IntType)

    def _emit(self, other, real, whole):
        """The instruction `real` or `whole`, as the operands are, with both at the same width."""
        if not isinstance(other, Value):
            other = self.emitter.constant(other, self.ir.type)
        width = max(self.lanes, other.lanes)
        left, right = self.splat(width).ir, other.splat(width).ir
        builder = self.emitter.builder
        if self._is_real:
            return Value(self.emitter, getattr(builder, real)(left, right, flags=FLAGS))
        return Value(self.emitter, getattr(builder, whole)(left, right))

    def __add__(self, other):
        return self._emit(other, "fadd", "add")

    def __sub__(self, other):
        return self._emit(other, "fsub", "sub")

    def __mul__(self, other):
        return self._emit(other, "fmul", "mul")

    def __truediv__(self, other):
        return self._emit(other, "fdiv", None)

    def __and__(self, other):
        return self._emit(other, None, "and_")

    def __or__(self, other):
        return self._emit(other, None, "or_")

    def __lshift__(self, other):
        return self._emit(other, None, "shl")

    def __rshift__(self, other):
        return self._emit(other, None, "ashr")

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other):
        return self.emitter.constant(other, self.ir.type) - self

    def __neg__(self):
        return Value(self.emitter, self.emitter.builder.fneg(self.ir))

    def _compare(self, other, sign):
        if not isinstance(other, Value):
            other = self.emitter.constant(other, self.ir.type)
        compare = "fcmp_ordered" if self._is_real else "icmp_signed"
        return Value(self.emitter, getattr(self.emitter.builder, compare)(sign, self.ir, other.ir))

    def __lt__(self, other):
        return self._compare(other, "<")

    def __ge__(self, other):
        return self._compare(other, ">=")

    def equals(self, other):
        return self._compare(other, "==")

    def chosen(self, yes, no):
        """`yes` where this comparison holds, else `no`."""
        return Value(self.emitter, self.emitter.builder.select(self.ir, yes.ir, no.ir))

    def splat(self, lanes):
        """This number in every lane."""
        if self.lanes == lanes:
            return self
        vector = ir.VectorType(self.ir.type, lanes)
        builder = self.emitter.builder
        undefined = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(undefined, self.ir, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        return Value(self.emitter, builder.shuffle_vector(first, undefined, zeros))

    def shuffled(self, lanes, other=None):
        """The lanes with these numbers, those of `other` counted on from this vector's."""
        other = ir.Constant(self.ir.type, ir.Undefined) if other is None else other.ir
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
        return Value(self.emitter, self.emitter.builder.shuffle_vector(self.ir, other, mask))

    def _cast(self, element):
        kind = ir.VectorType(element, self.lanes) if self.lanes > 1 else element
        return Value(self.emitter, self.emitter.builder.bitcast(self.ir, kind))

    @property
    def bits(self):
        """The same bits as an integer."""
        return self._cast(ir.IntType(self.emitter.bits))

    @property
    def real(self):
        """The same bits as a real number."""
        return self._cast(self.emitter.element)

    def at_most(self, bound):
        """NaN stays NaN: the comparison is false."""
        return (bound < self).chosen(bound, self)

    def at_least(self, bound):
        """NaN stays NaN: the comparison is false."""
        return (self < bound).chosen(bound, self)

    def magnitude(self):
        return (self.bits & ((1 << (self.emitter.bits - 1)) - 1)).real

    def folded(self, combine):
        """All lanes combined to one number."""
        vector = self
        while vector.lanes > 1:
            half = vector.lanes // 2
            low, high = vector.shuffled(range(half)), vector.shuffled(range(half, 2 * half))
            vector = combine(low, high)
        scalar = self.emitter.builder.extract_element(vector.ir, ir.Constant(ir.IntType(32), 0))
        return Value(self.emitter, scalar)

    def total(self):
        return self.folded(lambda a, b: a + b)


class Pointer:
    """Address of a real number; ``+`` counts in elements."""

    __slots__ = ("emitter", "ir")

    def __init__(self, emitter, value):
        self.emitter = emitter
        self.ir = value

    def __add__(self, offset):
        offset = self.emitter.index(offset)
        return Pointer(self.emitter, self.emitter.builder.gep(self.ir, [offset.ir]))

    def here(self):
        return self

    def _at(self, lanes):
        kind = ir.VectorType(self.emitter.element, lanes) if lanes > 1 else self.emitter.element
        return self.emitter.builder.bitcast(self.ir, kind.as_pointer())

    def load(self, lanes=None):
        """The vector here, or the first `lanes` of it."""
        lanes = self.emitter.lanes if lanes is None else lanes
        return Value(self.emitter, self.emitter.builder.load(self._at(lanes), align=self.emitter.bits // 8))

    def store(self, value):
        self.emitter.builder.store(value.ir, self._at(value.lanes), align=self.emitter.bits // 8)


class Row(Pointer):
    """An array that lies in one piece: `n` elements from here on."""

    __slots__ = ("n",)

    def __init__(self, place, n):
        super().__init__(place.emitter, place.ir)
        self.n = place.emitter.index(n)

    @property
    def parts(self):
        return self.ir, self.n.ir


class Matrix(Pointer):
    """A matrix from here on: element (i, j) is ``i * ld + j * step`` elements away."""

    __slots__ = ("cols", "ld", "rows", "step")

    def __init__(self, place, rows, cols, ld, step):
        super().__init__(place.emitter, place.ir)
        self.rows, self.cols, self.ld, self.step = rows, cols, ld, step

    @property
    def parts(self):
        return self.ir, self.rows.ir, self.cols.ir, self.ld.ir, self.step.ir

    def row(self, i):
        """Row i, where the elements of a row follow each other."""
        return Row(self + i * self.ld, self.cols)


class Variable:
    """What loops carry on; it becomes a register."""

    __slots__ = ("emitter", "slot")

    def __init__(self, emitter, first):
        self.emitter = emitter
        self.slot = cgutils.alloca_once(emitter.builder, first.ir.type)
        self.set(first)

    def get(self):
        return Value(self.emitter, self.emitter.builder.load(self.slot))

    def set(self, value):
        self.emitter.builder.store(value.ir, self.slot)


class Emitter:
    """What a routine is written with: constants, loops, conditions and calls, for one element type."""

    def __init__(self, builder, element):
        self.builder = builder
        self.element = element
        self.bits = 64 if isinstance(element, ir.DoubleType) else 32
        self.lanes = 8 * VECTOR_BYTES // self.bits

    def constant(self, number, kind=None):
        """`number` as a constant of an LLVM type, by default a vector of the element type."""
        kind = ir.VectorType(self.element, self.lanes) if kind is None else kind
        if isinstance(kind, ir.VectorType):
            return Value(self, ir.Constant(kind, [ir.Constant(kind.element, number)] * kind.count))
        return Value(self, ir.Constant(kind, number))

    def index(self, number):
        return number if isinstance(number, Value) else self.constant(number, INDEX)

    def variable(self, first):
        return Variable(self, first if isinstance(first, Value) else self.constant(float(first)))

    def scratch(self, elements):
        """Memory on the stack, aligned to whole vectors."""
        slot = cgutils.alloca_once(self.builder, self.element, size=elements)
        slot.align = VECTOR_BYTES
        return Pointer(self, slot)

    def either(self, condition, yes, no):
        """One of two pointers."""
        return Pointer(self, self.builder.select(condition.ir, yes.ir, no.ir))

    def vectors(self, n):
        """How many vectors hold `n` elements."""
        return (n + (self.lanes - 1)) >> (self.lanes.bit_length() - 1)

    def padded(self, n):
        """`n` rounded up to whole vectors."""
        return (n + (self.lanes - 1)) & -self.lanes

    @contextlib.contextmanager
    def loop(self, start, stop, step=1):
        start, stop, step = self.index(start), self.index(stop), self.index(step)
        with cgutils.for_range_slice(self.builder, start.ir, stop.ir, step.ir) as (i, _):
            yield Value(self, i)

    @contextlib.contextmanager
    def downwards(self, n):
        """Loop over n - 1, ..., 0."""
        with cgutils.for_range_slice(
            self.builder, (n - 1).ir, self.index(-1).ir, self.index(-1).ir, inc=False
        ) as (i, _):
            yield Value(self, i)

    def when(self, condition):
        return self.builder.if_then(condition.ir)

    def tail(self, n):
        """The last ``n % lanes`` elements in powers of two: (how many, where they start, whether)."""
        part = self.lanes // 2
        while part:
            yield part, n & -(2 * part), (n & part).equals(part)
            part //= 2

    def call(self, name, *arguments):
        """Call another routine."""
        return ROUTINES[name].call(self, arguments)


#: Every routine by its name, for calls from one to another.
ROUTINES = {}


class Routine:
    """A function of a module's machine code, one for each element type that is used there."""

    def __init__(self, name, kinds, returns, emit):
        self.name, self.kinds, self.returns, self.emit = name, kinds, returns, emit

    def _function(self, module, element):
        name = f"fastrnn.{self.name}.{element}"
        if name in module.globals:
            return module.globals[name]
        place = element.as_pointer()
        parts = {"a": [place], "v": [place, INDEX], "m": [place] + 4 * [INDEX], "i": [INDEX], "r": [element]}
        result = element if self.returns else ir.VoidType()
        wanted = [part for kinds in self.kinds for kind in kinds for part in parts[kind]]
        function = ir.Function(module, ir.FunctionType(result, wanted), name)
        function.linkage = "internal"
        function.attributes.add("nounwind")
        function.attributes.add("noinline")
        emitter = Emitter(ir.IRBuilder(function.append_basic_block("entry")), element)
        given = iter(function.args)

        def argument(kind):
            first, *sizes = (next(given) for _ in parts[kind])
            if kind in "ir":
                return Value(emitter, first)
            start = Pointer(emitter, first)
            return {"a": Pointer.here, "v": Row, "m": Matrix}[kind](
                start, *(Value(emitter, n) for n in sizes)
            )

        value = self.emit(
            emitter,
            *(argument(kinds) if len(kinds) == 1 else tuple(map(argument, kinds)) for kinds in self.kinds),
        )
        if self.returns:
            emitter.builder.ret(value.ir)
        else:
            emitter.builder.ret_void()
        return function

    def call(self, emitter, arguments):
        function = self._function(emitter.builder.module, emitter.element)
        parts = []
        for kinds, given in zip(self.kinds, arguments, strict=True):
            for kind, argument in zip(kinds, given if len(kinds) > 1 else [given], strict=True):
                value = argument if hasattr(argument, "ir") else emitter.index(argument)
                parts += value.parts if kind in "vm" else [value.ir]
        result = emitter.builder.call(function, parts)
        return Value(emitter, result) if self.returns else None

    def typed(self, typing_context, *given):
        """Numba's side."""
        dtype = next(argument.dtype for argument, kind in zip(given, self.kinds, strict=True) if kind in "vm")
        numbers = {"i": types.intp, "r": dtype}
        wanted = [
            argument
            if kinds in "vm"
            else types.Tuple([numbers[kind] for kind in kinds])
            if len(kinds) > 1
            else numbers[kinds]
            for argument, kinds in zip(given, self.kinds, strict=True)
        ]
        signature = (dtype if self.returns else types.void)(*wanted)
        return signature, functools.partial(self._lower, dtype)

    def _lower(self, dtype, context, builder, signature, values):
        emitter = Emitter(builder, context.get_data_type(dtype))
        arguments = []
        for kind, value, numba_type in zip(self.kinds, values, signature.args, strict=True):
            if kind not in "vm":
                parts = cgutils.unpack_tuple(builder, value) if len(kind) > 1 else [value]
                numbers = tuple(Value(emitter, part) for part in parts)
                arguments.append(numbers if len(kind) > 1 else numbers[0])
                continue
            array = context.make_array(numba_type)(context, builder, value)
            start = Pointer(emitter, array.data)
            if kind == "v":
                arguments.append(Row(start, Value(emitter, array.nitems)))
                continue
            shape = [Value(emitter, n) for n in cgutils.unpack_tuple(builder, array.shape, 2)]
            bytes_apart = [Value(emitter, n) for n in cgutils.unpack_tuple(builder, array.strides, 2)]
            shift = (emitter.bits // 8).bit_length() - 1
            arguments.append(Matrix(start, *shape, *(apart >> shift for apart in bytes_apart)))
        result = self.call(emitter, arguments)
        return context.get_dummy_value() if result is None else result.ir


def routine(kinds, plain, *, returns=False):
    """Decorate the emitting function of a routine.

    `kinds` has a letter for each of its arguments: ``v`` an array that lies in one piece, which is taken as one
    row, ``m`` a matrix, also a transposed one or a part of one, ``i`` an integer, ``r`` a number of the arrays'
    dtype; and ``a``, for calls from other routines only, the place where numbers begin.  `plain` does the same in
    NumPy; it stands in where ``NUMBA_DISABLE_JIT`` is set.  With `returns`, the result is a number of the
    arrays' dtype.
    """

    def decorate(emit):
        described = ROUTINES[emit.__name__] = Routine(emit.__name__, kinds, returns, emit)

        def typed(typing_context, *given):
            return described.typed(typing_context, *given)

        def interpreted(*given):
            arguments = zip(kinds, given, strict=True)
            return plain(*(argument.reshape(-1) if kind == "v" else argument for kind, argument in arguments))

        if config.DISABLE_JIT:
            return functools.update_wrapper(interpreted, emit)
        typed.__name__, typed.__doc__ = emit.__name__, emit.__doc__
        typed.__signature__ = inspect.Signature(
            [
                inspect.Parameter(f"given{i}", inspect.Parameter.POSITIONAL_OR_KEYWORD)
                for i in range(1 + len(kinds))
            ]
        )
        return intrinsic(typed)

    return decorate
