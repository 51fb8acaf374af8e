"""`RNN` against naive loops, `ReferenceRNN` and central differences; dropout, threads, kinds of arrays."""

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import assert_close, bits, central_differences, stream_state, tolerance

from fastrnn import RNN, LanguageModel, ReferenceRNN, SimpleRNN, threads, use_backend

sizes = st.one_of(st.integers(1, 6), st.sampled_from([7, 8, 9, 15, 16, 17, 31, 32, 33]), st.integers(1, 40))

#: Largest error relative to the largest entry, against float64 arithmetic on the same weights.


#: Small batches of random classes may look so.
may_look_like_one_hots = pytest.mark.filterwarnings("ignore:x of shape .* looks like one-hot vectors")


def naive(weights, x, h0, lengths, num_layers, nonlinearity, bidirectional):
    """Output and h_n, one sequence after another, one step at a time, in float64."""
    weights = {name: W.astype(np.float64) for name, W in weights.items()}
    T, N = x.shape[:2]
    h = len(weights["weight_hh_l0"])
    D = 1 + bidirectional
    h_n = np.zeros((num_layers * D, N, h))
    for layer in range(num_layers):
        output = np.zeros((T, N, D * h))
        for direction in range(D):
            suffix = f"_l{layer}" + "_reverse" * direction
            W_ih, W_hh = weights["weight_ih" + suffix], weights["weight_hh" + suffix]
            b = weights.get("bias_ih" + suffix, np.zeros(h)) + weights.get("bias_hh" + suffix, np.zeros(h))
            for n in range(N):
                state = np.zeros(h) if h0 is None else h0[layer * D + direction, n].astype(np.float64)
                steps = range(T if lengths is None else lengths[n])
                for t in reversed(steps) if direction else steps:
                    with np.errstate(invalid="ignore"):
                        z = W_ih @ x[t, n] + W_hh @ state + b
                    state = np.tanh(z) if nonlinearity == "tanh" else np.maximum(z, 0)
                    output[t, n, direction * h : (direction + 1) * h] = state
                h_n[layer * D + direction, n] = state
        x = output
    return x, h_n


def filled(rnn, seed, scale=1.0):
    """`rnn` with weights and biases of entries of 0.5 or so divided by sqrt(h)."""
    rng = np.random.default_rng(seed)
    for W in rnn.parameters.values():
        W[...] = rng.normal(size=W.shape) * 0.6 * scale / math.sqrt(rnn.hidden_size)
    return rnn


def options_of(rnn):
    return rnn.num_layers, rnn.nonlinearity, rnn.bidirectional


def assert_slopes(function, arrays, gradients, seed, tolerance=1e-6, directions=2):
    """Gradients against central differences of `function()` along random directions of each array."""
    rng = np.random.default_rng(seed)
    for name, array in arrays.items():
        gradient = np.asarray(gradients[name])
        assert gradient.shape == array.shape, name
        kept = array.copy()
        for _ in range(directions):
            v = rng.normal(size=array.shape)
            v /= np.linalg.norm(v)
            eps = 1e-5
            array[...] = kept + eps * v
            above = function()
            array[...] = kept - eps * v
            below = function()
            array[...] = kept
            slope = (above - below) / (2 * eps)
            found = float((gradient * v).sum())
            # A random direction sees a share 1/sqrt(size) of the norm.
            scale = max(abs(slope), np.linalg.norm(gradient) / math.sqrt(gradient.size), 1e-3)
            assert abs(found - slope) <= tolerance * scale, f"{name}: {found} against a slope of {slope}"


@may_look_like_one_hots
@given(
    T=st.one_of(st.integers(1, 4), st.integers(1, 40)), N=sizes, d=sizes, h=sizes,
    num_layers=st.integers(1, 3), nonlinearity=st.sampled_from(["tanh", "relu"]), bias=st.booleans(),
    bidirectional=st.booleans(), one_hot=st.booleans(), ragged=st.booleans(), with_h0=st.booleans(),
    single=st.booleans(), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_forward_of_random_shapes(
    backend, T, N, d, h, num_layers, nonlinearity, bias, bidirectional, one_hot, ragged, with_h0, single, seed
):  # fmt: skip
    dtype = np.dtype(np.float32 if single else np.float64)
    rng = np.random.default_rng(seed)
    rnn = RNN(d, h, num_layers, nonlinearity, bias, bidirectional=bidirectional, dtype=dtype, rng=0,
              backend=backend)  # fmt: skip
    filled(rnn, seed)
    x = rng.integers(d, size=(T, N)) if one_hot else rng.normal(size=(T, N, d)).astype(dtype)
    h0 = rng.normal(size=(num_layers * (1 + bidirectional), N, h)).astype(dtype) if with_h0 else None
    lengths = rng.integers(1, T + 1, N) if ragged else None
    output, h_n = rnn.forward(x, h0, lengths=lengths)
    dense = np.eye(d)[x] if one_hot else x
    want_output, want_h_n = naive(rnn.parameters, dense, h0, lengths, *options_of(rnn))
    assert output.dtype == h_n.dtype == dtype
    # A hidden state of a ReLU network may be all but zero.
    scale = max(1.0, np.abs(want_output).max())
    assert_close(
        output / scale, want_output / scale, tolerance(dtype) if np.abs(want_output).max() > 0.1 else 1
    )
    assert np.abs(output - want_output).max() <= tolerance(dtype) * scale
    assert np.abs(h_n - want_h_n).max() <= tolerance(dtype) * scale


@may_look_like_one_hots
@given(
    T=st.integers(1, 9), N=st.one_of(st.integers(1, 4), st.sampled_from([7, 8, 9, 17])), d=sizes, h=sizes,
    num_layers=st.integers(1, 3), bias=st.booleans(), bidirectional=st.booleans(), one_hot=st.booleans(),
    ragged=st.booleans(), batch_first=st.booleans(), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_gradients_of_random_shapes(
    backend, T, N, d, h, num_layers, bias, bidirectional, one_hot, ragged, batch_first, seed
):  # fmt: skip
    rng = np.random.default_rng(seed)
    rnn = RNN(d, h, num_layers, bias=bias, bidirectional=bidirectional, batch_first=batch_first,
              dtype=np.float64, rng=0, backend=backend)  # fmt: skip
    filled(rnn, seed)
    steps, D = (N, T) if batch_first else (T, N), 1 + bidirectional
    x = rng.integers(d, size=steps) if one_hot else rng.normal(size=(*steps, d))
    h0, grad_h_n = rng.normal(size=(2, num_layers * D, N, h)) * 0.5
    grad_output = rng.normal(size=(*steps, D * h))
    lengths = rng.integers(1, T + 1, N) if ragged else None

    def goal():
        output, h_n = rnn.forward(x, h0, lengths=lengths)
        return float((output * grad_output).sum() + (h_n * grad_h_n).sum())

    goal()
    grad_x, grad_h0 = rnn.backward(grad_output, grad_h_n)
    arrays = rnn.parameters | {"h0": h0}
    gradients = {name: g.copy() for name, g in rnn.grads.items()} | {"h0": grad_h0}
    if one_hot:
        assert grad_x is None
    else:
        arrays, gradients = arrays | {"x": x}, gradients | {"x": grad_x}
    assert_slopes(goal, arrays, gradients, seed, directions=1)


@pytest.mark.few(8)
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_every_entry_of_every_gradient(dropout, bidirectional, nonlinearity, backend):
    """Central differences one by one; with dropout the Generator's state is set back before each run."""
    T, N, d, h, L, D = 4, 3, 3, 5, 3, 1 + bidirectional
    rng = np.random.default_rng(8)
    rnn = RNN(d, h, L, nonlinearity, dropout=dropout, bidirectional=bidirectional, dtype=np.float64, rng=5,
              backend=backend)  # fmt: skip
    filled(rnn, 4, 1.2)
    x, lengths = rng.normal(size=(T, N, d)), np.array([4, 1, 3])
    h0, grad_h_n = rng.normal(size=(2, L * D, N, h)) * 0.5
    grad_output = rng.normal(size=(T, N, D * h))
    state = rnn.rng.bit_generator.state

    def goal():
        rnn.rng.bit_generator.state = state
        output, h_n = rnn.forward(x, h0, lengths=lengths)
        return float((output * grad_output).sum() + (h_n * grad_h_n).sum())

    goal()
    grad_x, grad_h0 = rnn.backward(grad_output, grad_h_n)
    gradients = {name: g.copy() for name, g in rnn.grads.items()} | {"x": grad_x, "h0": grad_h0}
    for name, array in (rnn.parameters | {"x": x, "h0": h0}).items():
        slopes = central_differences(goal, array, 1e-6)
        assert np.abs(slopes).max() > 1e-3
        assert_close(gradients[name], slopes, 1e-7, name)


def test_one_layer_is_the_drop_in_class(dtype, backend):
    """The states of `SimpleRNN` and of the notes' loop, sequence by sequence."""
    T, N, d, h = 12, 5, 7, 20
    rnn = filled(RNN(d, h, dtype=dtype, rng=0, backend=backend), 3)
    W = rnn.parameters
    x = np.random.default_rng(0).integers(d, size=(T, N))
    h0 = np.random.default_rng(1).normal(size=(1, N, h)).astype(dtype)
    output, h_n = rnn.forward(x, h0)
    for kind in (SimpleRNN, ReferenceRNN):
        other = kind(d, h, 2, dtype=dtype, rng=0)
        other.Wxh, other.Whh = W["weight_ih_l0"], W["weight_hh_l0"]
        other.bh = (W["bias_ih_l0"] + W["bias_hh_l0"])[:, None]
        for n in range(N):
            _, hs, _ = other.forward(x[:, n], h0[0, n][:, None])
            assert_close(output[:, n], np.hstack([hs[t] for t in range(T)]).T)
            assert_close(h_n[0, n], hs[T - 1][:, 0])


@pytest.mark.parametrize("N", [2, 16, 33])
def test_each_sequence_is_its_own(N, dtype, backend):
    """A row of a batch is what the sequence gives alone; the gradients of the weights add up."""
    T, d, h = 9, 5, 18
    rng = np.random.default_rng(N)
    rnn = filled(RNN(d, h, 2, bidirectional=True, dtype=dtype, rng=0, backend=backend), 1)
    x, h0 = rng.normal(size=(T, N, d)).astype(dtype), rng.normal(size=(4, N, h)).astype(dtype)
    grad = rng.normal(size=(T, N, 2 * h)).astype(dtype)
    lengths = rng.integers(1, T + 1, N)
    output, h_n = (a.copy() for a in rnn.forward(x, h0, lengths=lengths))
    grad_x, grad_h0 = (a.copy() for a in rnn.backward(grad))
    grads = {name: g.copy() for name, g in rnn.grads.items()}
    total = {name: np.zeros(g.shape) for name, g in grads.items()}
    for n in range(N):
        row = slice(n, n + 1)
        alone, alone_h_n = rnn.forward(x[:, row], h0[:, row], lengths=lengths[row])
        assert_close(output[:, row], alone, tolerance(dtype))
        assert_close(h_n[:, row], alone_h_n, tolerance(dtype))
        alone_x, alone_h0 = rnn.backward(grad[:, row])
        assert_close(grad_x[:, row], alone_x, tolerance(dtype))
        assert_close(grad_h0[:, row], alone_h0, tolerance(dtype))
        # A ragged sequence equals the same one cut short.
        cut, _ = rnn.forward(x[: lengths[n], row], h0[:, row])
        assert_close(output[: lengths[n], row], cut, tolerance(dtype))
        rnn.forward(x[:, row], h0[:, row], lengths=lengths[row])
        rnn.backward(grad[:, row])
        for name, g in rnn.grads.items():
            total[name] += g
    for name, g in grads.items():
        assert_close(g, total[name], tolerance(dtype), name)


@pytest.mark.parametrize("N", [1, 7, 16, 33, 64])
@pytest.mark.parametrize("ragged", [False, True])
def test_the_same_bits_whatever_the_number_of_threads(
    ragged, N, dtype, backend, small_work_shared, threads_used
):
    T, d, h = 11, 12, 18
    rng = np.random.default_rng(N)
    x, h0 = rng.normal(size=(T, N, d)).astype(dtype), rng.normal(size=(4, N, h)).astype(dtype)
    indices = rng.integers(d, size=(T, N))
    grad_output = rng.normal(size=(T, N, 2 * h)).astype(dtype)
    lengths = rng.integers(1, T + 1, N) if ragged else None
    grad_h_n = h0[::-1].copy()

    def run(num_threads):
        rnn = RNN(d, h, 2, bidirectional=True, dropout=0.2, dtype=dtype, rng=2, backend=backend,
                  num_threads=num_threads)  # fmt: skip
        results = []
        for inputs in (x, indices):
            results += bits(*rnn.forward(inputs, h0, lengths=lengths))
            grad_x, grad_h0 = rnn.backward(grad_output, grad_h_n)
            results += bits(grad_h0, *rnn.grads.values())
            if inputs is x:
                results += bits(grad_x)
        return results

    wanted = run(1)
    assert set(threads_used) == {1}
    for num_threads in (2, 3, 5):
        threads_used.clear()
        assert run(num_threads) == wanted, f"{num_threads} threads"
        assert max(threads_used) >= min(num_threads, len(threads.parts(N)))
    assert run(None) == wanted


def test_the_same_call_gives_the_same_bits(dtype, backend):
    """Nothing of a call is left in the work space: other shapes in between, smaller and larger."""
    rng = np.random.default_rng(0)
    rnn = RNN(6, 10, 2, bidirectional=True, dtype=dtype, rng=0, backend=backend)

    def run(T, N):
        rng = np.random.default_rng(T + N)
        x = rng.normal(size=(T, N, 6)).astype(dtype)
        output, h_n = rnn.forward(x, lengths=rng.integers(1, T + 1, N))
        return bits(output, h_n, *rnn.backward(np.ones_like(output), np.ones_like(h_n)), *rnn.grads.values())

    shapes = [(5, 3), (1, 1), (30, 17), (5, 17), (30, 3)]
    first = [run(*shape) for shape in shapes]
    for _ in range(3):
        for i in rng.permutation(len(shapes)):
            assert run(*shapes[i]) == first[i]


def make(rnn, kind, array):
    """`array` in another form; what is returned beside it must not change."""
    if kind == "strided":
        wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 99, array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2], wide
    if kind == "reversed":
        backwards = array[::-1].copy()
        return backwards[::-1], backwards
    if kind == "Fortran":
        array = np.asfortranarray(array)
    elif kind == "swapped":
        array = array.astype(array.dtype.newbyteorder(">"))
    elif kind == "read-only":
        array = array.copy()
        array.flags.writeable = False
    elif kind == "unaligned":
        raw = np.zeros(array.nbytes + 1, np.uint8)
        view = raw[1:].view(array.dtype).reshape(array.shape)
        view[...] = array
        return view, raw
    elif kind == "list":
        return array.tolist(), None
    elif kind == "subclass":
        array = array.copy().view(type("Mine", (np.ndarray,), {}))
    return array, array


KINDS = ["plain", "strided", "reversed", "Fortran", "swapped", "read-only", "unaligned", "list", "subclass"]


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_every_kind(kind, dtype, backend):
    T, N, d, h = 5, 4, 6, 7
    rng = np.random.default_rng(0)
    rnn = RNN(d, h, 2, dtype=dtype, rng=0, backend=backend)
    vectors, h0 = rng.normal(size=(T, N, d)).astype(dtype), rng.normal(size=(2, N, h)).astype(dtype)
    grad_output = rng.normal(size=(T, N, h)).astype(dtype)
    grad_h_n = rng.normal(size=(2, N, h)).astype(dtype)
    lengths = rng.integers(1, T + 1, N)
    for x in (vectors, rng.integers(d, size=(T, N))):
        output = rnn.forward(x, h0, lengths=lengths)
        wanted = bits(*output, *[g for g in rnn.backward(grad_output, grad_h_n) if g is not None],
                      *rnn.grads.values())  # fmt: skip
        made = [make(rnn, kind, a) for a in (x, h0, lengths, grad_output, grad_h_n)]
        before = bits(*[kept for _, kept in made if kept is not None])
        (x_, _), (h0_, _), (lengths_, _), (grad_output_, _), (grad_h_n_, _) = made
        output = rnn.forward(x_, h0_, lengths=lengths_)
        got = bits(*output, *[g for g in rnn.backward(grad_output_, grad_h_n_) if g is not None],
                   *rnn.grads.values())  # fmt: skip
        assert got == wanted
        assert bits(*[kept for _, kept in made if kept is not None]) == before


@pytest.mark.parametrize("given_dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_real_arrays_of_other_precision(given_dtype, dtype, backend):
    rng = np.random.default_rng(0)
    rnn = RNN(3, 4, dtype=dtype, rng=0, backend=backend)
    x, h0, grad = (rng.normal(size=s).astype(np.float16) for s in ((5, 2, 3), (1, 2, 4), (5, 2, 4)))
    wanted = bits(*rnn.forward(x.astype(dtype), h0.astype(dtype)), *rnn.backward(grad.astype(dtype)))
    given = [a.astype(given_dtype) for a in (x, h0, grad)]
    before = bits(*given)
    assert bits(*rnn.forward(*given[:2]), *rnn.backward(given[2])) == wanted
    assert bits(*given) == before


@pytest.mark.parametrize(
    "given_dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64]
)
def test_indices_of_every_integer_type(given_dtype, dtype, backend):
    rnn = RNN(5, 4, dtype=dtype, rng=0, backend=backend)
    x = np.random.default_rng(0).integers(5, size=(6, 3))
    wanted = bits(*rnn.forward(x, lengths=[6, 2, 1]))
    given = x.astype(given_dtype)
    assert bits(*rnn.forward(given, lengths=np.array([6, 2, 1], given_dtype))) == wanted
    assert np.array_equal(given, x)
    if np.dtype(given_dtype).kind == "i":
        negative = np.where(x == 4, -1, x).astype(given_dtype)
        assert bits(*rnn.forward(negative, lengths=[6, 2, 1])) == wanted


def test_unbatched_is_a_batch_of_one(dtype, backend):
    rng = np.random.default_rng(0)
    rnn = RNN(3, 4, 2, bidirectional=True, dtype=dtype, rng=0, backend=backend)
    x, h0 = rng.normal(size=(6, 3)).astype(dtype), rng.normal(size=(4, 4)).astype(dtype)
    grad, grad_h_n = rng.normal(size=(6, 8)).astype(dtype), rng.normal(size=(4, 4)).astype(dtype)
    output, h_n = rnn.forward(x, h0)
    assert (output.shape, h_n.shape) == ((6, 8), (4, 4))
    grad_x, grad_h0 = rnn.backward(grad, grad_h_n)
    assert (grad_x.shape, grad_h0.shape) == ((6, 3), (4, 4))
    got = bits(*(a.ravel() for a in (output, h_n, grad_x, grad_h0)), *rnn.grads.values())
    results = (*rnn.forward(x[:, None], h0[:, None]), *rnn.backward(grad[:, None], grad_h_n[:, None]))
    assert bits(*(a.ravel() for a in results), *rnn.grads.values()) == got


def test_one_sequence_of_class_indices(dtype, backend):
    rnn = RNN(5, 4, batch_first=True, dtype=dtype, rng=0, backend=backend)
    x = np.array([0, 4, 2, -5, -1])
    output, h_n = rnn.forward(x)
    assert (output.shape, h_n.shape) == ((5, 4), (1, 4))
    grad_x, grad_h0 = rnn.backward(np.ones((5, 4)), np.ones((1, 4)))
    assert grad_x is None
    got = bits(output, h_n, grad_h0, *rnn.grads.values())
    output, h_n = rnn.forward(x[None])
    _, grad_h0 = rnn.backward(np.ones((1, 5, 4)), np.ones((1, 1, 4)))
    assert bits(output[0], h_n[:, 0], grad_h0[:, 0], *rnn.grads.values()) == got


def test_integers_with_an_axis_of_inputs_are_vectors(dtype, backend):
    rnn = RNN(3, 4, dtype=dtype, rng=0, backend=backend)
    x = np.random.default_rng(0).integers(-5, 9, size=(6, 2, 3))
    assert bits(*rnn.forward(x)) == bits(*rnn.forward(x.astype(dtype)))


def test_backward_without_a_gradient_of_the_output(dtype, backend):
    rnn = RNN(3, 4, 2, dtype=dtype, rng=0, backend=backend)
    x, grad_h_n = np.random.default_rng(0).normal(size=(6, 5, 3)), np.ones((2, 5, 4))
    rnn.forward(x)
    wanted = bits(*rnn.backward(np.zeros((6, 5, 4)), grad_h_n), *rnn.grads.values())
    assert bits(*rnn.backward(None, grad_h_n), *rnn.grads.values()) == wanted
    assert rnn.grads["weight_ih_l0"].any()
    rnn.backward(None)
    assert not any(g.any() for g in rnn.grads.values())


def test_backward_is_of_the_last_forward(dtype, backend):
    """Batches of other shapes and forward passes of other objects in between do not matter."""
    rnn, other = (RNN(3, 4, dtype=dtype, rng=0, backend=backend) for _ in range(2))
    x = np.random.default_rng(0).normal(size=(6, 5, 3))
    rnn.forward(x)
    wanted = bits(*rnn.backward(np.ones((6, 5, 4))), *rnn.grads.values())
    rnn.forward(x[:2])
    rnn.forward(-x)
    rnn.forward(np.zeros((6, 5), int))
    rnn.forward(x)
    other.forward(x * 2)
    x *= 3  # the caller may use the array again
    assert bits(*rnn.backward(np.ones((6, 5, 4))), *rnn.grads.values()) == wanted


def test_the_output_may_be_changed_before_backward(dtype, backend):
    rnn = RNN(3, 4, dtype=dtype, rng=0, backend=backend)
    x = np.random.default_rng(0).normal(size=(6, 5, 3))
    output, h_n = rnn.forward(x)
    wanted = bits(*rnn.backward(np.ones_like(output)), *rnn.grads.values())
    output, h_n = rnn.forward(x)
    output += 1
    h_n += 1
    assert bits(*rnn.backward(np.ones_like(output)), *rnn.grads.values()) == wanted


def test_batch_first_swaps_axes(dtype, backend):
    rng = np.random.default_rng(0)
    options = {"dtype": dtype, "rng": 0, "backend": backend}
    rnn, other = RNN(3, 4, **options), RNN(3, 4, batch_first=True, **options)
    x, grad = rng.normal(size=(6, 5, 3)).astype(dtype), rng.normal(size=(6, 5, 4)).astype(dtype)
    lengths = [6, 1, 3, 4, 2]
    output, h_n = rnn.forward(x, lengths=lengths)
    got, got_h_n = other.forward(x.swapaxes(0, 1), lengths=lengths)
    assert np.array_equal(got, output.swapaxes(0, 1))
    assert np.array_equal(got_h_n, h_n)
    grad_x, grad_h0 = rnn.backward(grad)
    got_x, got_h0 = other.backward(grad.swapaxes(0, 1))
    assert np.array_equal(got_x, grad_x.swapaxes(0, 1))
    assert np.array_equal(got_h0, grad_h0)
    assert bits(*other.grads.values()) == bits(*rnn.grads.values())


def test_backward_writes_and_does_not_add(dtype, backend):
    rnn = RNN(3, 4, 2, bidirectional=True, dtype=dtype, rng=0, backend=backend)
    x = np.random.default_rng(0).normal(size=(6, 5, 3))
    output, _ = rnn.forward(x)
    first = bits(*rnn.backward(np.ones_like(output)), *rnn.grads.values())
    assert bits(*rnn.backward(np.ones_like(output)), *rnn.grads.values()) == first
    assert rnn.grads["weight_ih_l0"].any()


def test_backward_writes_where_grads_were_replaced(dtype, backend):
    rnn = RNN(3, 4, dtype=dtype, rng=0, backend=backend)
    output, _ = rnn.forward(np.ones((6, 5, 3)))
    rnn.backward(np.ones_like(output))
    first = bits(*rnn.grads.values())
    rnn.grads["weight_hh_l0"] = np.zeros((4, 4), dtype)
    rnn.backward(np.ones_like(output))
    assert bits(*rnn.grads.values()) == first
    rnn.grads = {}
    rnn.backward(np.ones_like(output))
    assert bits(*rnn.grads.values()) == first


def test_results_are_the_callers(dtype, backend):
    """A later call does not write into what an earlier one returned."""
    rng = np.random.default_rng(0)
    rnn = RNN(3, 4, 2, dtype=dtype, rng=0, backend=backend)
    x = rng.normal(size=(6, 5, 3)).astype(dtype)
    results = [*rnn.forward(x), *rnn.backward(np.ones((6, 5, 4)))]
    before = bits(*results)
    rnn.forward(x + 1, np.ones((2, 5, 4)))
    rnn.backward(np.full((6, 5, 4), 3.0))
    assert bits(*results) == before


def test_h0_of_zeros_is_the_default(dtype, backend):
    rnn = RNN(3, 4, 2, bidirectional=True, dtype=dtype, rng=0, backend=backend)
    x = np.random.default_rng(0).normal(size=(6, 5, 3))
    assert bits(*rnn.forward(x)) == bits(*rnn.forward(x, np.zeros((4, 5, 4))))
    assert bits(*rnn.forward(x)) == bits(*rnn.forward(x, lengths=[6] * 5))


def test_state_carried_over_is_one_long_sequence(dtype, backend):
    rng = np.random.default_rng(0)
    rnn = filled(RNN(3, 9, 2, dtype=dtype, rng=0, backend=backend), 0)
    x = rng.normal(size=(12, 5, 3)).astype(dtype)
    whole, whole_h_n = rnn.forward(x)
    first, h = rnn.forward(x[:7])
    second, h = rnn.forward(x[7:], h)
    assert_close(np.concatenate([first, second]), whole)
    assert_close(h, whole_h_n)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["vectors", "integers", "classes"])
@pytest.mark.parametrize("lengths", [None, [], np.empty(0, int)])
def test_no_sequences(lengths, kind, bidirectional, batch_first, dtype, backend):
    """Results without elements; the gradients of the parameters are zero."""
    T, d, h, D = 4, 3, 5, 1 + bidirectional
    rnn = RNN(d, h, 2, dropout=0.2, bidirectional=bidirectional, batch_first=batch_first, dtype=dtype,
              rng=0, backend=backend)  # fmt: skip
    rnn.forward(np.ones((2, 2, d)))
    rnn.backward(np.ones((2, 2, D * h)))
    assert all(g.any() for g in rnn.grads.values())
    steps = (0, T) if batch_first else (T, 0)
    x = (
        np.empty(steps, int)
        if kind == "classes"
        else np.empty((*steps, d), int if kind == "integers" else dtype)
    )
    for h0 in (None, np.empty((2 * D, 0, h))):
        output, h_n = rnn.forward(x, h0, lengths=lengths)
        assert output.shape == (*steps, D * h)
        assert h_n.shape == (2 * D, 0, h)
        for grad_output, grad_h_n in ((output, None), (None, h_n), (output, h_n)):
            grad_x, grad_h0 = rnn.backward(grad_output, grad_h_n)
            assert (grad_x is None) if kind == "classes" else (grad_x.shape == (*steps, d))
            assert grad_h0.shape == h_n.shape
            assert {a.dtype for a in (output, h_n, grad_h0, *rnn.grads.values())} == {np.dtype(dtype)}
            assert list(rnn.grads) == list(rnn.parameters)
            assert not any(g.any() for g in rnn.grads.values())
    with pytest.raises(ValueError, match="grad_output must have shape"):
        rnn.backward(np.zeros((T, 1, D * h)))
    # What comes after is as ever.
    output, _ = rnn.eval().forward(np.ones((2, 2, d)))
    rnn.backward(np.ones_like(output))
    assert all(g.any() for g in rnn.grads.values())


@pytest.mark.parametrize("kind", [RNN, LanguageModel])
def test_a_call_is_forward(kind, dtype, backend):
    class Own(kind):
        def forward(self, *arguments, **options):
            self.seen = arguments, options
            return super().forward(*arguments, **options)

    net = Own(4, 5, 2, dtype=dtype, rng=0, backend=backend)
    x = np.array([[0, 3], [1, 2], [2, 0]])
    h0 = np.random.default_rng(0).normal(size=(2, 2, 5)).astype(dtype)
    assert bits(*net(x)) == bits(*net.forward(x))
    assert bits(*net(x, h0)) == bits(*net.forward(x, h0)) != bits(*net(x))
    assert bits(*net(x, h0=h0)) == bits(*net(x, h0))
    assert net.seen == ((x, h0), {})
    if kind is RNN:
        assert bits(*net(x, h0, lengths=[3, 1])) == bits(*net.forward(x, h0, lengths=[3, 1]))
        assert net.seen[1] == {"lengths": [3, 1]}


def test_the_first_state_under_the_other_name(dtype, backend):
    rnn = filled(RNN(3, 4, 2, dtype=dtype, rng=0, backend=backend), 1)
    x = np.ones((3, 2, 3))
    h0 = np.random.default_rng(0).normal(size=(2, 2, 4))
    assert bits(*rnn.forward(x, hx=h0)) == bits(*rnn(x, hx=h0)) == bits(*rnn.forward(x, h0))
    assert bits(*rnn.forward(x, hx=h0)) != bits(*rnn.forward(x, hx=None))
    assert bits(*rnn.forward(x[:, 0], hx=h0[:, 0])) == bits(*rnn.forward(x[:, 0], h0[:, 0]))


# Initial values and weights


@pytest.mark.parametrize("h", [1, 16, 100])
def test_initial_values_are_torchs(h, dtype):
    rnn = RNN(200, h, 2, bidirectional=True, dtype=dtype, rng=3)
    bound = 1 / math.sqrt(h)
    assert rnn.parameters["weight_ih_l1_reverse"].shape == (h, 2 * h)
    for name, W in rnn.parameters.items():
        assert W.dtype == dtype
        assert np.abs(W).max() <= bound * (1 + 1e-6), name
        if W.size >= 1000:  # the standard deviation of a uniform distribution, and its ends
            assert np.std(W) == pytest.approx(bound / math.sqrt(3), rel=0.1)
            assert abs(W.mean()) < 5 * bound / math.sqrt(3 * W.size)
            assert np.abs(W).max() > 0.98 * bound
    assert len({W.tobytes() for W in rnn.parameters.values()}) == len(rnn.parameters)


def test_seeds_and_generators():
    before = stream_state()
    a, b = RNN(3, 4, rng=7), RNN(3, 4, rng=np.random.default_rng(7))
    assert bits(*a.parameters.values()) == bits(*b.parameters.values())
    assert bits(*RNN(3, 4, rng=8).parameters.values()) != bits(*a.parameters.values())
    assert stream_state() == before
    rng = np.random.default_rng(7)
    assert bits(*RNN(3, 4, rng=rng).parameters.values()) == bits(*a.parameters.values())
    assert bits(*RNN(3, 4, rng=rng).parameters.values()) != bits(*a.parameters.values())


def test_without_a_seed_no_two_are_alike():
    assert bits(*RNN(3, 4).parameters.values()) != bits(*RNN(3, 4).parameters.values())


def test_float32_is_the_default():
    rnn = RNN(3, 4, rng=0)
    assert {W.dtype for W in rnn.parameters.values()} == {np.dtype(np.float32)}
    assert rnn.forward(np.zeros((2, 1, 3)))[0].dtype == np.float32


def test_parameters_may_be_changed_in_place(dtype, backend):
    rnn, other = (RNN(3, 4, 2, dtype=dtype, rng=seed, backend=backend) for seed in (0, 1))
    x = np.random.default_rng(0).normal(size=(6, 5, 3))
    rnn.forward(x)
    for name, W in rnn.parameters.items():
        W[...] = other.parameters[name]
    assert bits(*rnn.forward(x)) == bits(*other.forward(x))


def test_state_dict_is_a_copy(dtype, backend):
    rnn = RNN(3, 4, 2, dtype=dtype, rng=0, backend=backend)
    before = bits(*rnn.parameters.values())
    kept = rnn.state_dict()
    for W in kept.values():
        W += 1
    assert bits(*rnn.parameters.values()) == before
    held = dict(rnn.parameters)
    rnn.load_state_dict(kept)
    assert bits(*rnn.parameters.values()) == bits(*kept.values())
    for name, W in rnn.parameters.items():
        assert W is held[name], "load_state_dict writes in place: an optimizer may hold the arrays"
        assert not np.shares_memory(W, kept[name])


def test_load_state_dict_takes_any_order_and_lists(dtype, backend):
    rnn, other = (RNN(3, 4, dtype=dtype, rng=seed, backend=backend) for seed in (0, 1))
    rnn.load_state_dict({name: W.tolist() for name, W in reversed(other.state_dict().items())})
    assert list(rnn.parameters) == list(other.parameters)
    assert bits(*rnn.parameters.values()) == bits(*other.parameters.values())


@pytest.mark.parametrize("kind", [RNN, LanguageModel])
def test_load_state_dict_says_what_is_missing(kind, dtype):
    rnn, other = (kind(3, 4, 2, dtype=dtype, rng=seed, backend="numpy") for seed in (0, 1))
    names, held = list(rnn.parameters), dict(rnn.parameters)
    for strict in (True, False):
        result = rnn.load_state_dict(other.state_dict(), strict)
        assert result == ([], [])
        assert repr(result) == "<All keys matched successfully>"
    some = {name: W + 1 for name, W in other.state_dict().items() if "l0" in name}
    kept = {name: bits(W) for name, W in rnn.parameters.items()}
    with pytest.raises(ValueError, match=r"missing: weight_ih_l1, .*; unexpected: 'another'"):
        rnn.load_state_dict(some | {"another": None})
    result = rnn.load_state_dict(some | {"another": None}, strict=False)
    assert result.missing_keys == [name for name in names if "l0" not in name]
    assert result.unexpected_keys == ["another"]
    assert "missing_keys=['weight_ih_l1', " in repr(result)
    for name, W in rnn.parameters.items():
        assert W is held[name]
        assert bits(W) == (bits(some[name]) if name in some else kept[name])
    missing, unexpected = rnn.load_state_dict({}, strict=False)
    assert (missing, unexpected) == (names, [])


def test_backend_is_chosen_at_each_call(backend):
    rnn = RNN(3, 4, rng=0)
    fixed = RNN(3, 4, rng=0, backend=backend)
    x = np.random.default_rng(0).normal(size=(6, 5, 3))
    wanted = bits(*fixed.forward(x))
    with use_backend(backend):
        assert bits(*rnn.forward(x)) == wanted
    with use_backend("numpy"):
        assert bits(*fixed.forward(x)) == wanted


# Dropout


def ones_through(num_layers, h, dropout, *, backend, dtype=np.float64, rng=0, **options):
    """A ReLU layer of ones below layers that pass their input through: the output is the masks' product."""
    rnn = RNN(1, h, num_layers, "relu", dropout=dropout, dtype=dtype, rng=rng, backend=backend, **options)
    for W in rnn.parameters.values():
        W[...] = 0
    rnn.parameters["bias_ih_l0"][:] = 1
    for layer in range(1, num_layers):
        rnn.parameters[f"weight_ih_l{layer}"][...] = np.eye(h)
    return rnn


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("num_layers", [2, 3])
def test_dropout_keeps_the_right_share(num_layers, dropout, dtype, backend):
    """Bernoulli masks, scaled by 1/(1-p), between layers: in share, across steps, sequences and units."""
    h, T, N = 40, 30, 20
    rnn = ones_through(num_layers, h, dropout, backend=backend, dtype=dtype)
    assert rnn.training
    output, h_n = rnn.forward(np.zeros((T, N, 1)))
    masks = num_layers - 1
    kept = (1 - dropout) ** masks
    assert_close(np.unique(output), [0, 1 / kept], 1e-6)
    on = output > 0
    deviation = math.sqrt(kept * (1 - kept) / on.size)
    assert abs(on.mean() - kept) < 4.5 * deviation
    # Independent over each axis: the share of neighbours that are both kept is the square.
    for both in (on[1:] & on[:-1], on[:, 1:] & on[:, :-1], on[:, :, 1:] & on[:, :, :-1]):
        assert abs(both.mean() - kept**2) < 6 * math.sqrt(kept**2 / both.size) + 1e-12
    for axis in ((1, 2), (0, 2), (0, 1)):
        assert (
            np.abs(on.mean(axis=axis) - kept) < 6 * deviation * math.sqrt(on.size / on[0].size * 2)
        ).all() or (on.mean(axis=axis).std() < 0.1)
    # The last layer's output is not dropped, nor the input, nor the first layer's own states.
    assert_close(h_n[0], np.ones((N, h)))
    assert np.array_equal(h_n[-1], output[-1])


def test_no_two_masks_are_alike(dtype, backend):
    """Not those of two steps, of two sequences, or of two parts of a batch that threads share."""
    T, N = 4, 50
    output, _ = ones_through(2, 64, 0.5, backend=backend, dtype=dtype).forward(np.zeros((T, N, 1)))
    assert len(threads.parts(N)) > 2
    assert len({(output[t, n] > 0).tobytes() for t in range(T) for n in range(N)}) == T * N


def test_dropout_is_drawn_anew_and_from_the_generator(dtype, backend):
    rnn = ones_through(2, 30, 0.5, backend=backend, dtype=dtype)
    x = np.zeros((5, 4, 1))
    state = rnn.rng.bit_generator.state
    first, _ = rnn.forward(x)
    second, _ = rnn.forward(x)
    assert not np.array_equal(first, second)
    rnn.rng.bit_generator.state = state
    assert np.array_equal(rnn.forward(x)[0], first)
    assert np.array_equal(rnn.forward(x)[0], second)


def test_dropout_draws_the_same_on_every_backend(dtype, backend):
    for options in ({}, {"num_threads": 1}):
        mine, theirs = (
            ones_through(3, 30, 0.5, backend=name, dtype=dtype, rng=4, **options)
            for name in (backend, "numpy")
        )
        assert np.array_equal(mine.forward(np.zeros((5, 4, 1)))[0], theirs.forward(np.zeros((5, 4, 1)))[0])


def test_backward_uses_the_masks_of_forward(backend):
    """Where a unit was dropped no gradient comes back; elsewhere it is scaled as the value was."""
    rnn = ones_through(2, 30, 0.5, backend=backend)
    output, _ = rnn.forward(np.zeros((1, 4, 1)))
    _, grad_h0 = rnn.backward(np.ones_like(output))
    assert (output == 0).any()
    assert not grad_h0.any()  # both recurrent matrices are zero
    rnn.parameters["weight_hh_l0"][...] = np.eye(30)
    state = rnn.rng.bit_generator.state
    output, _ = rnn.forward(np.zeros((1, 4, 1)))
    _, grad_h0 = rnn.backward(np.ones_like(output))
    assert rnn.rng.bit_generator.state != state, "forward draws"
    assert np.array_equal(grad_h0[0], output[0])


def test_no_dropout_in_eval_mode_or_at_zero(dtype, backend):
    x = np.random.default_rng(0).normal(size=(6, 5, 3))
    plain = RNN(3, 8, 3, dtype=dtype, rng=2, backend=backend)
    dropped = RNN(3, 8, 3, dropout=0.5, dtype=dtype, rng=2, backend=backend)
    dropped.load_state_dict(plain.state_dict())
    wanted = bits(*plain.forward(x), *plain.backward(np.ones((6, 5, 8))), *plain.grads.values())
    dropped.forward(x)
    dropped.eval()
    assert not dropped.training
    state = copy.deepcopy(dropped.rng.bit_generator.state)
    got = bits(*dropped.forward(x), *dropped.backward(np.ones((6, 5, 8))), *dropped.grads.values())
    assert got == wanted
    assert dropped.rng.bit_generator.state == state, "eval draws nothing"
    dropped.train()
    assert dropped.training
    assert bits(*dropped.forward(x)) != wanted[:2]
    zero = RNN(3, 8, 3, dropout=0.0, dtype=dtype, rng=2, backend=backend)
    zero.load_state_dict(plain.state_dict())
    state = copy.deepcopy(zero.rng.bit_generator.state)
    assert bits(*zero.forward(x)) == wanted[:2]
    assert zero.rng.bit_generator.state == state


def test_train_and_eval_return_as_torchs():
    rnn = RNN(2, 3, rng=0)
    assert rnn.eval() is rnn
    assert rnn.train() is rnn
    assert rnn.train(False) is rnn
    assert not rnn.training


# Values that are not numbers


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_nan_and_infinity_stay_in_their_sequence(nonlinearity, bad, dtype, backend):
    N = 19
    rng = np.random.default_rng(0)
    rnn = filled(RNN(3, 9, 2, nonlinearity, dtype=dtype, rng=0, backend=backend), 2)
    x = rng.normal(size=(6, N, 3)).astype(dtype)
    clean, _ = rnn.forward(x)
    rnn.backward(np.ones_like(clean))
    x[2, 11, 1] = bad
    output, h_n = rnn.forward(x)
    others = np.arange(N) != 11
    assert bits(output[:, others]) == bits(clean[:, others])
    assert bits(output[:2]) == bits(clean[:2])
    want, want_h_n = naive(rnn.parameters, x, None, None, *options_of(rnn))
    assert np.array_equal(np.isnan(output), np.isnan(want))
    assert np.array_equal(np.isnan(h_n), np.isnan(want_h_n))
    rnn.backward(np.ones_like(output))
    if np.isnan(bad):
        assert np.isnan(rnn.grads["weight_ih_l0"]).any()


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_hh_l0", "weight_ih_l1"])
@pytest.mark.parametrize("one_hot", [False, True])
def test_nan_in_weights(one_hot, name, dtype, backend):
    """NumPy's result, no crash, no hang, no warning."""
    rng = np.random.default_rng(0)
    rnn = filled(RNN(3, 9, 2, dtype=dtype, rng=0, backend=backend), 2)
    rnn.parameters[name][...] = np.nan
    x = rng.integers(3, size=(6, 5)) if one_hot else rng.normal(size=(6, 5, 3))
    output, _ = rnn.forward(x)
    assert np.isnan(output).all()
    rnn.backward(np.ones_like(output))
    assert np.isnan(rnn.grads["weight_hh_l0"]).all()
