"""What `SimpleRNN` draws, and where it leaves the random streams."""

import numpy as np
import pytest
from support import assert_close, pair, parameters, stream_state

from fastrnn import ReferenceRNN, SimpleRNN

SIZES = [(1, 1, 1), (4, 100, 4), (5, 3, 2), (26, 100, 26), (7, 130, 65)]


@pytest.fixture(autouse=True)
def keep_the_global_stream():
    state = np.random.get_state()
    yield
    np.random.set_state(state)


@pytest.mark.parametrize(("d", "h", "q"), SIZES)
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_weights_are_the_notes_bit_for_bit(d, h, q, seed):
    np.random.seed(seed)
    Wxh = np.random.randn(h, d) * 0.01
    Whh = np.random.randn(h, h) * 0.01
    Why = np.random.randn(q, h) * 0.01
    left = stream_state()
    np.random.seed(seed)
    rnn = SimpleRNN(d, h, q)
    assert stream_state() == left
    for W, wanted in zip(parameters(rnn), (Wxh, Whh, Why, np.zeros((h, 1)), np.zeros((q, 1))), strict=True):
        assert type(W) is np.ndarray
        assert W.dtype == np.float64
        assert W.flags.carray
        assert W.shape == wanted.shape
        assert W.tobytes() == wanted.tobytes()


def test_float32_weights_are_the_same_draws_rounded():
    np.random.seed(3)
    rnn = SimpleRNN(5, 8, 6, dtype=np.float32)
    left = stream_state()
    np.random.seed(3)
    other = SimpleRNN(5, 8, 6)
    assert stream_state() == left
    for W, wanted in zip(parameters(rnn), parameters(other), strict=True):
        assert W.dtype == np.float32
        assert np.array_equal(W, wanted.astype(np.float32))


@pytest.mark.parametrize("kind", [int, np.int32, np.uint64, "generator", "pcg", "mt"])
def test_generators_and_seeds(kind):
    def make():
        if kind == "generator":
            return np.random.default_rng(9)
        if kind in ("pcg", "mt"):
            return np.random.Generator({"pcg": np.random.PCG64DXSM, "mt": np.random.MT19937}[kind](9))
        return kind(9)

    before = stream_state()
    rnn, reference = SimpleRNN(5, 8, 6, rng=make()), ReferenceRNN(5, 8, 6, rng=make())
    assert stream_state() == before
    for W, wanted in zip(parameters(rnn), parameters(reference), strict=True):
        assert W.tobytes() == wanted.tobytes()
    assert rnn.Wxh.any()


def test_a_generator_moves_on():
    rng, other = np.random.default_rng(2), np.random.default_rng(2)
    a, b = SimpleRNN(3, 4, 3, rng=rng), SimpleRNN(3, 4, 3, rng=rng)
    assert not np.array_equal(a.Wxh, b.Wxh)
    other.standard_normal(2 * (12 + 16 + 12))
    assert rng.bit_generator.state == other.bit_generator.state


def notes_sample(rnn, h, start, n, choice):
    """The listing's sampling on float64 copies of the weights, with the given way to choose."""
    Wxh, Whh, Why, bh, by = (W.astype(np.float64) for W in parameters(rnn))
    drawn = []
    index = start
    for _ in range(n):
        h = np.tanh(Wxh[:, [index]] + Whh @ h + bh)
        y = Why @ h + by
        p = np.exp(y - y.max())
        index = int(choice(range(len(by)), p=(p / p.sum()).ravel()))
        drawn.append(index)
    return drawn


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 9, 64, 65, 500])
@pytest.mark.parametrize(("d", "h"), [(1, 1), (4, 100), (65, 33), (27, 17), (130, 64)])
def test_sample_makes_the_draws_of_choice(d, h, n, dtype, backend):
    rnn, _ = pair(d, h, d, backend=backend, dtype=dtype, seed=n + 1)
    state = np.random.default_rng(n).normal(size=(h, 1)).astype(dtype)
    kept = state.copy()
    np.random.seed(n)
    np.random.randn(n % 2)  # half of the time a second Gaussian waits in the stream
    wanted = notes_sample(rnn, state, d // 2, n, np.random.choice)
    left = stream_state()
    np.random.seed(n)
    np.random.randn(n % 2)
    drawn = rnn.sample(state, d // 2, n)
    assert stream_state() == left
    assert type(drawn) is list
    assert all(type(i) is int for i in drawn)
    assert drawn == wanted
    assert np.array_equal(state, kept)


@pytest.mark.parametrize("d", [4, 65])
def test_sample_from_a_generator(d, dtype, backend):
    rnn, _ = pair(d, 20, d, backend=backend, dtype=dtype)
    state = np.full((20, 1), 0.1, dtype)
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    before = stream_state()
    drawn = rnn.sample(state, 1, 100, rng=rng)
    assert stream_state() == before
    assert drawn == notes_sample(rnn, state, 1, 100, other.choice)
    assert rng.bit_generator.state == other.bit_generator.state
    assert drawn == rnn.sample(state, 1, 100, rng=5)
    assert len(set(drawn)) > 1


def test_sample_agrees_with_the_reference_class(backend):
    rnn, reference = pair(12, 30, 12, backend=backend)
    for seed in range(20):
        np.random.seed(seed)
        wanted = reference.sample(np.zeros((30, 1)), seed % 12, 25)
        left = stream_state()
        np.random.seed(seed)
        assert rnn.sample(np.zeros((30, 1)), seed % 12, 25) == wanted
        assert stream_state() == left


def test_start_index_wraps(backend):
    rnn, _ = pair(6, 8, 6, backend=backend)
    h = np.zeros((8, 1))
    for start in (np.int8(2), np.uint64(2), np.array(2)):
        assert rnn.sample(h, start, 9, rng=1) == rnn.sample(h, 2, 9, rng=1)
    assert rnn.sample(h, -4, 9, rng=1) == rnn.sample(h, 2, 9, rng=1)
    assert rnn.sample(h, -6, 9, rng=1) == rnn.sample(h, 0, 9, rng=1)


def test_fewer_outputs_than_inputs(backend):
    rnn, _ = pair(9, 8, 4, backend=backend)
    drawn = rnn.sample(np.zeros((8, 1)), 8, 200, rng=1)
    assert set(drawn) == {0, 1, 2, 3}
    assert drawn == notes_sample(rnn, np.zeros((8, 1)), 8, 200, np.random.default_rng(1).choice)


def test_certain_and_impossible_classes(dtype, backend):
    """A class of probability 0 is never drawn, not even by a uniform of 0."""

    class Uniforms(np.random.Generator):
        values = np.array([0.0, 0.5, 1 - 2.0**-53])

        def random(self, n):
            return np.resize(self.values, n)

    rnn = SimpleRNN(4, 3, 4, dtype=dtype, rng=0, backend=backend)
    rnn.by[:] = [[-2000.0], [0.0], [-2000.0], [-3000.0]]
    assert rnn.sample(np.zeros((3, 1)), 0, 12, rng=Uniforms(np.random.PCG64(0))) == [1] * 12


@pytest.mark.parametrize("name", ["Wxh", "Whh", "Why", "bh", "by"])
@pytest.mark.parametrize("n", [1, 5, 40])
def test_sample_on_nan_weights(name, n, dtype, backend):
    rnn, _ = pair(6, 10, 6, backend=backend, dtype=dtype)
    getattr(rnn, name)[...] = np.nan
    h, rng = np.ones((10, 1)), np.random.default_rng(4)
    before, state = stream_state(), rng.bit_generator.state
    with pytest.raises(ValueError, match=r"probabilities of index 0 of .* are not numbers"):
        rnn.sample(h, 0, n)
    with pytest.raises(ValueError, match="not numbers"):
        rnn.sample(h, 0, n, rng=rng)
    assert stream_state() == before
    assert rng.bit_generator.state == state
    assert rnn.sample(h, 0, 0) == []


def test_probabilities_that_turn_bad_on_the_way(backend):
    """NaN in one column is met only when its class is drawn or multiplied by zero: NumPy does both."""
    rnn, _ = pair(3, 5, 3, backend=backend)
    rnn.Wxh[2, 1] = np.nan
    before = stream_state()
    with pytest.raises(ValueError, match="index 0 of 30"):
        rnn.sample(np.zeros((5, 1)), 0, 30)
    assert stream_state() == before


def test_distribution(backend):
    """Frequencies of 20 000 draws are those of the probabilities, within four standard deviations."""
    rnn, _ = pair(5, 4, 5, backend=backend)
    rnn.Wxh[:] = rnn.Whh[:] = 0  # so that every draw has the same distribution
    _, _, ps = rnn.forward([0], np.zeros((4, 1)))
    n = 20_000
    counts = np.bincount(rnn.sample(np.zeros((4, 1)), 0, n, rng=11), minlength=5)
    p = ps.array[0]
    assert (np.abs(counts - n * p) < 4 * np.sqrt(n * p * (1 - p))).all()
    assert_close(p.sum(), 1.0, 1e-14)


def test_training_draws_nothing(backend):
    rnn, _ = pair(5, 4, 5, backend=backend)
    before = stream_state()
    rnn.train_step([0, 1], [1, 2], np.zeros((4, 1)))
    rnn.backward(*rnn.forward([0, 1], np.zeros((4, 1))), [1, 2])
    assert stream_state() == before
