"""Warnings of what is likely meant otherwise: one-hot vectors of integers, dropout that has no effect."""

import copy
import pickle
import warnings

import numpy as np
import pytest

from fastrnn import RNN, CharRNN, LanguageModel, SequenceModel, diagnostics
from fastrnn import functional as F

D = 4
ONE_HOTS = np.eye(D, dtype=int)[[2, 0, 3, 3, 1]]
PARAMETERS = {"weight_ih": np.ones((3, D)), "weight_hh": np.ones((3, 3))}


def layer(**options):
    return RNN(D, 3, rng=0, backend="numpy", **options)


def sequence_model(**options):
    return SequenceModel(D, 3, 2, head="last", rng=0, backend="numpy", **options)


#: Every function that reads the inputs of a layer.
READERS = {
    "SequenceModel.forward": lambda x: sequence_model().forward(x),
    "SequenceModel.loss": lambda x: sequence_model().loss(x, np.zeros((np.shape(x)[1], 2))),
    "SequenceModel, ragged": lambda x: sequence_model().forward(x, lengths=[2] * np.shape(x)[1]),
    "forward": lambda x: layer().forward(x),
    "call": lambda x: layer()(x),
    "batch_first": lambda x: layer(batch_first=True).forward(x),
    "rnn_forward": lambda x: F.rnn_forward(x, None, PARAMETERS, backend="numpy"),
    "saturation": lambda x: diagnostics.saturation(layer(), x),
    "gradient_flow": lambda x: diagnostics.gradient_flow(layer(), x, lambda output: output),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", [np.int64, np.uint8, list])
def test_one_hots_of_integers(kind, reader):
    """As `SimpleRNN` reads them they are T vectors; a layer reads T steps of D sequences."""
    x = ONE_HOTS.tolist() if kind is list else ONE_HOTS.astype(kind)
    with pytest.warns(UserWarning, match=r"looks like one-hot vectors: give those as floats") as caught:
        READERS[reader](x)
    (warning,) = caught
    name = "inputs" if reader in ("saturation", "gradient_flow") else "x"
    axes = "(N, T)" if reader == "batch_first" else "(T, N)"
    assert f"{name} of shape (5, 4) holds integers, so it is read as class indices {axes}" in str(
        warning.message
    )
    assert f"{name}.astype(float)" in str(warning.message)
    assert warning.filename == __file__


def test_it_is_what_the_warning_says():
    output, _ = layer().forward(ONE_HOTS.astype(float))
    assert output.shape == (5, 3)
    with pytest.warns(UserWarning, match="one-hot"):
        output, _ = layer().forward(ONE_HOTS)
    assert output.shape == (5, D, 3)


@pytest.mark.parametrize("reader", READERS)
def test_no_warning_of_other_integers(reader):
    rng = np.random.default_rng(0)
    read = READERS[reader]
    read(rng.integers(D, size=(7, D)))
    read(ONE_HOTS[:, :3])  # not of the input's size
    read(np.pad(ONE_HOTS, ((0, 0), (0, 1))))
    read(2 * ONE_HOTS)
    read(-ONE_HOTS)
    read(np.vstack([ONE_HOTS, np.zeros((1, D), int)]))
    read(np.vstack([ONE_HOTS, np.ones((1, D), int)]))
    read(ONE_HOTS[:, ::-1].cumsum(axis=1))
    if reader.startswith("SequenceModel"):
        read(ONE_HOTS[:, None].astype(np.float32))
    elif reader != "rnn_forward":
        read(ONE_HOTS.astype(np.float32))
        read(ONE_HOTS[:, 0])


def test_one_class_is_not_looked_at():
    """Ones are the classes of one sequence as well, wrapped; zeros are the usual ones."""
    rnn = RNN(1, 3, rng=0, backend="numpy")
    rnn.forward(np.zeros((4, 1), int))
    with pytest.raises(IndexError):
        rnn.forward(np.ones((4, 1), int))


# Dropout


def sizes_of(kind):
    return (3, 4, 2) if kind is SequenceModel else (3, 4)


@pytest.mark.parametrize("kind", [RNN, LanguageModel, SequenceModel])
def test_dropout_with_one_layer(kind):
    with pytest.warns(UserWarning, match=r"dropout=0\.5 has no effect with num_layers=1") as caught:
        kind(*sizes_of(kind), dropout=0.5)
    (warning,) = caught
    assert warning.filename == __file__
    kind(*sizes_of(kind), dropout=0.0)
    kind(*sizes_of(kind), 2, dropout=0.5)


@pytest.mark.parametrize("kind", [RNN, LanguageModel, SequenceModel])
def test_dropout_with_one_layer_in_a_subclass(kind):
    class Own(kind):
        def __init__(self):
            super().__init__(*sizes_of(kind), dropout=0.5)

    with pytest.warns(UserWarning, match="no effect") as caught:
        Own()
    assert [warning.filename for warning in caught] == [__file__]


def test_an_error_that_is_made_of_the_warning_draws_nothing():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    with pytest.raises(UserWarning, match="no effect"):
        RNN(3, 4, dropout=0.5, rng=rng)
    assert rng.bit_generator.state == before


def test_copies_and_what_was_saved_are_not_warned_of(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lm = LanguageModel(3, 4, dropout=0.5, rng=0)
        model = CharRNN(4, dropout=0.5, seq_len=4, batch_size=2, max_steps=2, verbose=0, backend="numpy")
        model.fit("abcdefgh" * 9)
        sm = SequenceModel(3, 4, 2, dropout=0.5, rng=0)
    for one in (lm, sm):
        assert copy.deepcopy(one).dropout == pickle.loads(pickle.dumps(one)).dropout == 0.5
    model.save(tmp_path / "model")
    assert CharRNN.load(tmp_path / "model").model_.dropout == 0.5
