"""`fastrnn.save` and `fastrnn.load`: what comes back is what was saved, and nothing else comes back."""

import base64
import copy
import json
import random
import sys
import threading
import tracemalloc
import types
import zlib
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import deep, header_of, mutate, signed, with_header
from hypothesis import strategies as st

import fastrnn
from fastrnn import (
    GRU,
    LSTM,
    RNN,
    BackendUnavailable,
    CharRNN,
    CheckpointError,
    LanguageModel,
    ReferenceGRU,
    ReferenceLSTM,
    ReferenceRNN,
    SimpleRNN,
    backends,
    sharing,
)
from fastrnn.checkpoint import is_finite, read_checkpoint, write_checkpoint
from fastrnn.contents import CLASSES, Misfit
from fastrnn.files import KINDS, OWN_FILES, pack_model, unpack_model
from fastrnn.sequence_model import SequenceModel

TEXT = "hello world, it is warm. " * 30

LAYER = {"num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.25, "bidirectional": True}
SEQUENCE = {"num_layers": 2, "dropout": 0.5, "recompute_every": 2}

#: A name for each case, its class, and its arguments.
CASES = {
    "SimpleRNN": (SimpleRNN, (4, 5, 3), {}),
    "ReferenceRNN": (ReferenceRNN, (4, 5, 3), {}),
    "ReferenceGRU": (ReferenceGRU, (3, 5), {}),
    "ReferenceLSTM": (ReferenceLSTM, (3, 5), {}),
    "RNN": (RNN, (3, 5), {}),
    "RNN relu": (RNN, (3, 5), {"nonlinearity": "relu", **LAYER}),
    "RNN threads": (RNN, (3, 5), {"num_threads": 2, "backend": "numpy", "bidirectional": True}),
    "GRU": (GRU, (3, 5), {"num_layers": 3}),
    "GRU options": (GRU, (3, 5), LAYER),
    "LSTM": (LSTM, (3, 5), {"bidirectional": True}),
    "LSTM options": (LSTM, (3, 5), LAYER),
    "LanguageModel": (LanguageModel, (4, 5), {}),
    "LanguageModel relu": (LanguageModel, (4, 5, 2), {"nonlinearity": "relu", "dropout": 0.5, "recompute_every": 2}),
    "LanguageModel gru": (LanguageModel, (4, 5, 2), {"cell": "gru", "dropout": 0.5, "num_threads": 1}),
    "LanguageModel lstm": (LanguageModel, (4, 5, 3), {"cell": "lstm", "dropout": 0.1, "backend": "numpy"}),
    "SequenceModel": (SequenceModel, (3, 5, 2), {}),
    "SequenceModel relu": (SequenceModel, (3, 5, 2), {"nonlinearity": "relu", "head": "last", **SEQUENCE}),
    "SequenceModel gru": (SequenceModel, (3, 5, 2), {"cell": "gru", "bidirectional": True, "head": "mean"}),
    "SequenceModel lstm": (SequenceModel, (3, 5, 2), {"cell": "lstm", "loss": "gaussian", "bidirectional": True}),
    "SequenceModel classes": (SequenceModel, (3, 5, 4), {"loss": "cross_entropy", "head": "last"}),
}  # fmt: skip

cases = pytest.mark.parametrize("case", CASES)


def made(case, dtype=np.float32, seed=0):
    cls, arguments, options = CASES[case]
    return cls(*arguments, **options, dtype=dtype, rng=seed)


def arrays_of(model):
    names = ("Wxh", "Whh", "Why", "bh", "by")
    return (
        model.parameters if hasattr(model, "parameters") else {name: getattr(model, name) for name in names}
    )


def flat(value):
    """What a call returned, as bytes."""
    if isinstance(value, (tuple, list)):
        return b"".join(map(flat, value))
    if isinstance(value, dict) or hasattr(value, "keys"):
        return b"".join(flat(value[key]) for key in value)
    return np.asarray(value).tobytes()


def done_with(model):
    """What it computes, draws and learns, as bytes; each call draws from the model's random stream."""
    if isinstance(model, (SimpleRNN, ReferenceRNN)):
        results = [*model.forward([0, 2, 1], np.zeros((5, 1)))]
        results.append(model.sample(np.zeros((5, 1)), 0, 9, rng=np.random.default_rng(0)))
        results.append(model.train_step([0, 3, 1], [1, 2, 0], np.zeros((5, 1))))
    elif isinstance(model, (ReferenceGRU, ReferenceLSTM)):
        results = [model.forward([0, 2, 1])]
        model.backward(np.ones((3, 5)))
        results.append(model.grads)
    elif isinstance(model, LanguageModel):
        x = np.array([[0, 1], [3, 2], [1, 1]])
        results = [model.forward(x), model.sample(None, [0, 1, 2], 6), model.loss_and_grads(x, x[::-1])]
        results.append(model.sample(None, [0, 1, 2], 6))
    elif isinstance(model, SequenceModel):
        x = np.random.default_rng(1).normal(size=(6, 2, 3))
        outputs, _ = model.forward(x)
        y = np.zeros(outputs.shape[:-1], int) if "cross_entropy" in repr(model) else outputs[..., :2] + 1
        results = [outputs, model.loss_and_grads(x, y), model.rng.random()]
    else:
        x = np.random.default_rng(1).normal(size=(6, 2, 3))
        output, h_n = model.forward(x)
        model.backward(np.ones_like(output))
        results = [output, h_n, model.grads, model.forward(x[:, :1]), model.rng.random()]
    return flat(results) + flat(arrays_of(model))


# -- there and back --------------------------------------------------------------------------------


@cases
@pytest.mark.parametrize("path", [str, Path], ids=["str", "Path"])
def test_what_is_saved_comes_back(case, dtype, path, tmp_path):
    model = made(case, dtype)
    done_with(model)  # the random stream is somewhere
    place = path(tmp_path / "m.safetensors")
    assert fastrnn.save(model, place) is None
    loaded = fastrnn.load(place)
    assert type(loaded) is type(model)
    assert pack_model(loaded)[0] == pack_model(model)[0]
    assert arrays_of(loaded).keys() == arrays_of(model).keys()
    for name, W in arrays_of(model).items():
        assert arrays_of(loaded)[name].dtype == W.dtype == dtype
        assert arrays_of(loaded)[name].flags.carray
        np.testing.assert_array_equal(arrays_of(loaded)[name], W)
    if not case.startswith("Reference"):
        assert repr(loaded) == repr(model)
    assert done_with(loaded) == done_with(model)


@cases
def test_on_every_backend(case, backend, tmp_path):
    if case.startswith("Reference") or CASES[case][2].get("backend"):
        pytest.skip("it has a backend of its own, or none")
    cls, arguments, options = CASES[case]
    model = cls(*arguments, **options, rng=0, backend=backend)
    fastrnn.save(model, tmp_path / "m")
    loaded = fastrnn.load(tmp_path / "m")
    assert loaded._backend == backend
    assert done_with(loaded) == done_with(model)


def test_every_class_that_a_file_can_hold_is_here():
    assert {cls.__name__ for cls, *_ in CASES.values()} == set(KINDS)
    assert set(KINDS) | set(OWN_FILES) == set(CLASSES)
    assert not set(KINDS) & set(OWN_FILES)


@pytest.mark.parametrize("case", ["RNN relu", "GRU options", "LanguageModel lstm"])
@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back(case, training, tmp_path):
    model = made(case).train(training)
    fastrnn.save(model, tmp_path / "m")
    loaded = fastrnn.load(tmp_path / "m")
    assert loaded.training is training
    assert done_with(loaded) == done_with(model)


@pytest.mark.parametrize("bit_generator", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_random_streams_of_any_kind_come_back(bit_generator, tmp_path):
    rng = np.random.Generator(getattr(np.random, bit_generator)(3))
    model = RNN(3, 5, 2, dropout=0.5, rng=rng)
    rng.integers(9, dtype=np.int32)  # half of a number is in store
    fastrnn.save(model, tmp_path / "m")
    loaded = fastrnn.load(tmp_path / "m")
    assert type(loaded.rng.bit_generator) is type(rng.bit_generator)
    assert done_with(loaded) == done_with(model)


def test_settings_of_numpy_types_come_back(tmp_path):
    model = RNN(
        np.int64(3),
        np.int32(5),
        np.int8(2),
        bias=np.bool_(True),
        dropout=np.float32(0.1),
        num_threads=np.int8(2),
    )
    fastrnn.save(model, tmp_path / "m")
    loaded = fastrnn.load(tmp_path / "m")
    assert (loaded.input_size, loaded.dropout, loaded.num_threads) == (3, float(np.float32(0.1)), 2)


def test_weights_that_were_replaced(tmp_path):
    rnn = SimpleRNN(4, 5, 3, rng=0)
    rnn.Wxh = np.arange(20).reshape(4, 5).T
    rnn.Whh = np.asfortranarray(rnn.Whh)
    vars(rnn)["by"] = np.full((3, 1), 2, np.float32)  # past the attributes
    layer = RNN(3, 5, rng=0)
    layer.parameters["weight_hh_l0"] = np.eye(5, dtype=np.float32)[::-1]
    slow = ReferenceRNN(4, 5, 3)
    slow.Whh = np.eye(5).astype(">f8")
    for model in (rnn, layer, slow):
        fastrnn.save(model, tmp_path / "m")
        loaded = fastrnn.load(tmp_path / "m")
        for name, W in arrays_of(model).items():
            np.testing.assert_array_equal(arrays_of(loaded)[name], W)
            assert arrays_of(loaded)[name].flags.carray
            assert arrays_of(loaded)[name].dtype.isnative


@pytest.mark.parametrize("case", ["SimpleRNN", "RNN", "ReferenceRNN", "ReferenceLSTM"])
def test_the_arrays_are_the_models_own(case, tmp_path):
    model = made(case)
    content, arrays = pack_model(model)
    loaded = unpack_model(content, arrays)
    for name, W in arrays_of(loaded).items():
        assert W.flags.writeable
        assert not np.shares_memory(W, arrays[name])


def test_numpys_global_stream_is_left_alone(tmp_path):
    for case in ("SimpleRNN", "ReferenceRNN", "RNN"):
        fastrnn.save(made(case), tmp_path / "m")
        before = np.random.get_state(legacy=False)
        fastrnn.load(tmp_path / "m", **({} if case == "ReferenceRNN" else {"backend": None}))
        after = np.random.get_state(legacy=False)
        assert repr(after) == repr(before)


def test_no_warning_of_dropout_without_effect(tmp_path):
    with pytest.warns(UserWarning, match="no effect"):
        model = RNN(3, 5, dropout=0.5)
    fastrnn.save(model, tmp_path / "m")
    assert fastrnn.load(tmp_path / "m").dropout == 0.5  # warnings are errors here


def test_any_safetensors_reader_finds_a_state_dict(tmp_path):
    lstm = made("LSTM")
    fastrnn.save(lstm, tmp_path / "m.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert arrays.keys() == lstm.state_dict().keys()
    LSTM(3, 5, bidirectional=True).load_state_dict(arrays)


def test_weights_of_nan_are_kept_but_never_replace_finite_ones(tmp_path):
    model = made("GRU")
    model.parameters["weight_hh_l0"][0, 0] = np.nan
    fastrnn.save(model, tmp_path / "nan")
    assert np.isnan(fastrnn.load(tmp_path / "nan").parameters["weight_hh_l0"][0, 0])
    fastrnn.save(made("RNN"), tmp_path / "m")
    before = (tmp_path / "m").read_bytes()
    with pytest.raises(CheckpointError, match="is not replaced by one that holds NaN"):
        fastrnn.save(model, tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == before


def test_the_one_before_is_kept(tmp_path):
    first, second = made("RNN"), made("SimpleRNN")
    fastrnn.save(first, tmp_path / "m")
    fastrnn.save(second, tmp_path / "m")
    assert isinstance(fastrnn.load(tmp_path / "m"), SimpleRNN)
    assert done_with(fastrnn.load(tmp_path / "m.previous")) == done_with(first)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["m", "m.previous"]


# -- settings that are replaced --------------------------------------------------------------------


def test_settings_may_be_replaced(tmp_path):
    fastrnn.save(LanguageModel(4, 5, 2, rng=0, backend="numpy", dropout=0.5), tmp_path / "m")
    loaded = fastrnn.load(tmp_path / "m", backend=None, num_threads=2, dropout=0.25, recompute_every=7)
    assert (loaded._backend, loaded.num_threads, loaded.dropout, loaded.recompute_every) == (None, 2, 0.25, 7)
    fastrnn.save(SimpleRNN(4, 5, 2), tmp_path / "m")
    assert fastrnn.load(tmp_path / "m", backend="numpy")._backend == "numpy"


@pytest.mark.parametrize(
    ("case", "settings", "error", "said"),
    [
        ("RNN", {"hidden_size": 5}, ValueError, "hidden_size is what the model was made with, and load cannot"),
        ("RNN", {"dtype": "float64"}, ValueError, "dtype is what the model was made with"),
        ("RNN", {"nonlinearity": "relu"}, ValueError, "nonlinearity is what"),
        ("RNN", {"rng": 0}, ValueError, "'rng' is no setting of RNN that load can change; they are backend, num"),
        ("RNN", {"recompute_every": 3}, ValueError, "'recompute_every' is no setting"),
        ("SequenceModel gru", {"recompute_every": 3}, ValueError, "recompute_every is for models of one direction"),
        ("ReferenceRNN", {"backend": "numpy"}, ValueError, "'backend' is no setting .*, which has none"),
        ("SimpleRNN", {"num_threads": 2}, ValueError, "they are backend$"),
        ("RNN", {"backend": "cuda"}, ValueError, "backend must be one of"),
        ("RNN", {"num_threads": 0}, ValueError, "num_threads must be at least 1"),
        ("RNN", {"num_threads": "2"}, TypeError, "num_threads must be an integer"),
        ("RNN", {"dropout": 2}, ValueError, "dropout must be a probability"),
        ("LanguageModel", {"recompute_every": 0.5}, TypeError, "recompute_every must be an integer"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_replaced(case, settings, error, said, tmp_path):
    fastrnn.save(made(case), tmp_path / "m")
    with pytest.raises(error, match=said) as told:
        fastrnn.load(tmp_path / "m", **settings)
    assert not isinstance(told.value, CheckpointError)


@pytest.mark.parametrize("case", ["SimpleRNN", "RNN", "LanguageModel"])
def test_a_model_whose_backend_is_missing(case, tmp_path, monkeypatch):
    model = made(case)
    content, arrays = pack_model(model)
    content["settings"]["backend"] = "numba"
    write_checkpoint(tmp_path / "m", content, arrays)
    monkeypatch.setitem(backends.BACKENDS, "numba", ("fastrnn.kernels.missing", "nowhere"))
    monkeypatch.delitem(backends._loaded, "numba", raising=False)
    with pytest.raises(BackendUnavailable, match="'numba' is not available"):
        fastrnn.load(tmp_path / "m")
    with pytest.raises(BackendUnavailable, match="'numba' is not available"):
        fastrnn.load(tmp_path / "m", backend="numba")
    assert done_with(fastrnn.load(tmp_path / "m", backend=None)) == done_with(model)


# -- what cannot be saved --------------------------------------------------------------------------


class OwnRNN(RNN):
    pass


class OwnSimple(SimpleRNN):
    pass


class OwnChar(CharRNN):
    pass


Namesake = type("GRU", (), {})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: OwnRNN(3, 5), r"OwnRNN, a class that is derived from RNN and would come back as that: give its"),
        (lambda: OwnSimple(3, 5, 4), "OwnSimple, a class that is derived from SimpleRNN"),
        (lambda: OwnChar(), "derived from CharRNN and would come back as that: its own methods save and load"),
        (lambda: Namesake(), "model must be one of CharRNN, GRU, .*, got GRU"),
        (lambda: "m", "model must be one of .*, got str"),
        (lambda: RNN, "model must be one of .*, got type"),
        (lambda: fastrnn.optim.Adam(), "model must be one of .*, got Adam"),
        (lambda: RNN(3, 5).state_dict(), "model must be one of .*, got dict"),
        (lambda: None, "model must be one of .*, got NoneType"),
    ],
)  # fmt: skip
def test_what_cannot_be_saved(make, said, tmp_path):
    with pytest.raises(TypeError, match=said):
        fastrnn.save(make(), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def replaced(model, **arrays):
    for name, W in arrays.items():
        if hasattr(model, "parameters"):
            model.parameters[name] = W
        else:
            vars(model)[name] = W
    return model


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: replaced(made("RNN"), weight_hh_l0=np.eye(4, dtype="f4")), ValueError, "must have shape"),
        (lambda: replaced(made("RNN"), more=np.eye(4)), ValueError, "unexpected: 'more'"),
        (lambda: replaced(made("RNN"), weight_hh_l0=[1.0]), TypeError, "must be an ndarray"),
        (lambda: replaced(made("SimpleRNN"), Whh=np.eye(4)), ValueError, "Whh must have shape"),
        (lambda: replaced(made("ReferenceRNN"), Whh=np.eye(4)), ValueError, "'Whh' must have shape"),
        (lambda: replaced(made("ReferenceRNN"), Whh=np.eye(5)), ValueError, "'Whh' is float64, and dtype = 'float32'"),
        (lambda: replaced(made("ReferenceRNN"), Wxh=np.eye(5, 4, dtype=int)), TypeError, "dtype must be float32"),
        (lambda: replaced(made("ReferenceRNN"), Whh=None), TypeError, "Whh must be an ndarray, got NoneType"),
        (lambda: replaced(made("ReferenceGRU"), x=np.eye(4, dtype="f4")), ValueError, "'x' is not one of this"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_not_saved(make, error, said, tmp_path):
    with pytest.raises(error, match=said):
        fastrnn.save(make(), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_random_streams_that_no_file_holds(tmp_path):
    own = type("Own", (np.random.PCG64,), {})
    for rng, said in (
        (np.random.Generator(own(0)), "rng must draw from one of PCG64, .* to be saved, not from Own"),
        (np.random.RandomState(0), "rng must be a numpy.random.Generator, got RandomState"),
        (None, "rng must be a numpy.random.Generator, got NoneType"),
    ):
        model = made("RNN")
        model.rng = rng
        with pytest.raises(TypeError, match=said):
            fastrnn.save(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_or_read(tmp_path):
    with pytest.raises(IsADirectoryError, match="cannot write checkpoint"):
        fastrnn.save(made("RNN"), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"cannot read checkpoint '.*missing'"):
        fastrnn.load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError, match="cannot read checkpoint"):
        fastrnn.load(tmp_path)
    for call in (fastrnn.load, lambda path: fastrnn.save(made("RNN"), path)):
        with pytest.raises(TypeError, match="NoneType"):
            call(None)


@pytest.mark.parametrize("case", ["SimpleRNN", "LSTM", "LanguageModel"])
def test_who_saves_a_model_reads_it(case, tmp_path):
    model = made(case)
    fails = []

    def save():
        try:
            fastrnn.save(model, tmp_path / "m")
        except RuntimeError as error:
            fails.append(str(error))

    with sharing.changed(model, "train_step"):
        thread = threading.Thread(target=save)
        thread.start()
        thread.join()
    assert len(fails) == 1
    assert f"this {type(model).__name__} is being changed by another thread, and save reads it" in fails[0]
    assert not (tmp_path / "m").exists()
    with sharing.being_read(model, "forward"):
        save()
    assert len(fails) == 1
    assert (tmp_path / "m").exists()


# -- files of CharRNN, and of estimators -----------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    return CharRNN(8, seq_len=8, batch_size=2, epochs=1, random_state=0, verbose=0, backend="numpy").fit(TEXT)


def test_a_char_rnn(fitted, tmp_path):
    fastrnn.save(fitted, tmp_path / "a")
    fitted.save(tmp_path / "b")
    for name in ("a", "b"):
        loaded = fastrnn.load(tmp_path / name)
        assert type(loaded) is CharRNN
        assert loaded.generate(20, random_state=1) == fitted.generate(20, random_state=1)
        assert loaded.get_params() == fitted.get_params()
    assert fastrnn.load(tmp_path / "a", lr=0.5).lr == 0.5
    with pytest.raises(ValueError, match="'foo' is not a hyper-parameter of CharRNN"):
        fastrnn.load(tmp_path / "a", foo=0.5)
    with pytest.raises(fastrnn.NotFittedError):
        fastrnn.save(CharRNN(), tmp_path / "c")


def test_a_char_rnn_that_does_not_fit(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    content, arrays = read_checkpoint(tmp_path / "m")
    content["vocabulary"] += "Z"
    write_checkpoint(tmp_path / "m", content, arrays)
    with pytest.raises(CheckpointError, match="is not a model of CharRNN: array"):
        fastrnn.load(tmp_path / "m")
    altered = (tmp_path / "m").read_bytes().replace(b'"CharRNN', b'"CharRNM')
    for content in (altered, altered.replace(b"RNM", b"RNN")[:-5]):
        (tmp_path / "m").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"was altered|is truncated"):
            fastrnn.load(tmp_path / "m")


#: A file that version 0.3 wrote before there was `fastrnn.load`, compressed.
OLD_CHAR_RNN = (
    "c-o~_3y>7W872juNCiZx@Cq*%A{4bO(=$CY-LsD|A}@)T0D4e*FwV~Q-VV1rv(C%{m*WV}f`XGWLV*uVV$KVeQ7H~0C%KzRB1IlRh!K-A1fw"
    "XR7&IUWQe`UXncaH=-l1D}RrCMd{rzA6|Mzz{8rUcJ)rJ%$M;tY!I;x_Cq}ov0v~sEwl0s?Kb}YjPg-b4FDY0zbH0ThZPCKKryg&`CX#^00K"
    "~iLKif~DsLW00@5b~)sL!gQ|H4T#_$uXL!rIKngt)@7@6He0vEhSPc%`_Zh_(5wcLt0j~?aGi;8Jd<+t$F3;m7#ED8=Jt-MA!%uc=M{I=KRT"
    "YT}Dr(h@sf}_X%}CI%*VhN>;6*w5bD7hfN+)vcv~L)Jm$3mT8;s51V;M&r#C~qR^aFS!ybXll5IpgyDm4B}Fu~#$Oa+!aiX=AFMEFo`UJVM{"
    "zP1u`_0tB1n8NF=d%~v)~k=s7>;wmhri9)X1sJ726?s-!=-_Y@3VF<fJ+|m#SHvR*M!wNn5JsfB1kMBSayzQZ*eb@^m&aG}7ToIW>6_P)=t}"
    ")#2EHwWS&<Ge=2Kj1r`uL4O}=X9h`Ct0qROxaC4FUsK$3hG^A!Q#YLM@l(25Wtg_3Yj*dcf>CXl%ZyIDBUaM1+rn!kn+?KLS%u0_oj-1BYO;"
    "`30}xuHWKjl|Sw)jw5<<0JBA3>k5;fJ&R8a@W2QG@Y2!T{4De{B|5c7~{G?t`6IxWIf8Zj(2HG)zq&tV8SjfWgTd^#;8(*ov2krz-9!Os)bC"
    "n<_CkQyx|{ba?qI+w~EeET`JoVMYtY1@ij$hGUj*HIV8GP)ykS=UubVmpeVI)1>}Mp`#?r>4za3hpnp%mS4URXG)a;t%@%x^7~pNi)<Oxk~o"
    "_9MdSJ^*TLJVo3C=jML5ObJEqUqH0<pM~mi|mO@2ZAe}lO$QPLc0#5BotGil`ltEH=lqzBn%SQ^xes9`L0R~h%O>6rE0%lo+5CeDyK`cN93%"
    "nrG50MjqAaFbuIZh0SYQ8c=zzLkl@<8MfixK8|9*PL?7&4rQI0T_62GlaDtrV!z{l*Eh>>H#i$YrpRjBZnkekLBOZQmB|Bn4k0j-~2GTM3y6"
    "4-p4Bh8GxLRuH#!blZ$lhxo-&iYE<S#6p&m<5|j@5dh|3x5LVpzOCemRXRxMh`>S^0X!=Jzyc143||-SAPJaGEZM7BQi3dE7zPRS2nQn9E0!"
    "F~(m&cm2muyi)C-a#W+Q^ghzw$BAwU<3=!+==9w8oZoPZdP#^ZaJNRELlpt%t-0tmxiaKtPYA`Ap9h8PMAk2{lOnQo2WjU+?0#{+@$WywPZ!"
    "d|hYTf=~%=Mv2i4JoiavjhM$R9pavECVr%fY^nm*aJ<0_6Y(Qa!_CezPB_1763!V#j}7BM79^I1Q4=(1VNE@DFh-Cg}O!U=SuN8K;H$$^IW%"
    ";j@yO~rPZuW>gfFtOo=3Q+Mbz=l4bn&OmNrHm&FW@ExuZO>mk4{3WtJ6kC{%}#IdQ52}87~3y6N>AXGS5=!!zG{Oe;}0|E<Sz`%Bl($U)EhQ"
    "jb_D2fwiJMk%D^|-I_HE2<sFo)UhSYN!mYmuTLVR~%&K<$@MgkE=Fx^NUM3`O=jfM2GFA{*ve<~o2kT2G2Z(a_asU!}4XFf3k+;#Vm#1q>q~"
    "To?4lYfaI@sMuD)>m}kpLB4=i7+e#Db`=s}2Z}Gi8%Ggfn7#%|C=R)C0Qz=BemB*Ps~1-$4Du~`)Xx5L-$6}@pB#PIJ9fv9+?^LkyY;(vwVs"
    "$?=Iy?6F;Ox8UU^nNDvz02pIGEBk{fPqOf;Pexx>!7?wP4mTPr@i*?r{7Q19QP-b$p#tZA)kEOR$pni3B$obBGd@uYO_Y?<7+_igvo=88nqn"
    "1wPqFi5_+{E4{U(vtZ3p=S~w{rY@-@{5uScWrWa)#MTlGjH);Zn5MS?G^H)o8EDkT==p36d3GXer>-yXYhFMkKQfr?rDE&EyKV&RCdVy-M!="
    "7z2d{}w&Ppe+g~pC{yXSy`P7Ql-Up+nd#_Bky|<q#^VYkfYz<zOSUgnlPGo<TfNMD~zTzHlbH5J~byJ>8?7XneJ%4_d_w2r${L=$dy{G5SNU"
    "Zz>%BfH9NX!~J#C?3&XYs#m8SAZi??0^vf3dao^x6u!=~N$igNfZY>(9B#&GTB9H{9<&_}Y5!(v=17eSJ21H;qZTLk`aHrXESi8-M?#d+zXX"
    "Z~42+65czy*O(g;Z+`4nx#jpiH#Mok`zEtW7Jr+Q=Py_guaAA4K&R(;ReLOV#7ZFd`}0S*x%L66eE3Q<`j;cbCtiOkw*QTA{PK5{*rWlgB}*"
    "SAHSgOkZCV+}3-eP@PxE)U)1u`^TB7xP2TCW(ROz#m{bCpCfAw!BN`E`>9=iXYZK(RLf8gbgfS>&K43XV)Qr!P)ne_bP<GAm<|Dj3Y(`e+JP"
    "f()&Ws&>g?c($e?+Rsm)`?4o4VLs>jreEtUywc@K0CH!dLKM%#}R45+^x}puRkAqu4V!{&^S?Ab@A_#@&3W+ykq6U3;!I1l9yja+h=aYd?kz"
    ">QC3GseEkQ}x6p^ul*7wn{m-;Sr#Cc5=d44~<*Ocx_I=~8(&qRv>Bx3dD%3uUA1oV&UpX}l&mDdr+V<Uj(#W%;qLcSG-~(&cOMhsdD7|@Nu~"
    "hkuuc1w2m!hFZABf)6)F<}-opWP_eS>4;KHU+$ZRFVKfHNOs<D~(3?W`^F$1haG|Fv*u{F(Z7@g}rA_Vk%0vEAEssj49oZ9Y6c@o3)-@%5WG"
    "#P9n2Xw0|kslATcGPV2k@S89>>@_8Tysf!hhL`S){~tHtt|<"
)


@pytest.mark.parametrize("load", [fastrnn.load, CharRNN.load], ids=["fastrnn", "CharRNN"])
def test_a_file_from_before(load, tmp_path):
    (tmp_path / "old").write_bytes(zlib.decompress(base64.b85decode(OLD_CHAR_RNN)))
    model = load(tmp_path / "old", verbose=0)
    assert (type(model), model.step_, model.cell) == (CharRNN, 27, "gru")
    assert model.score("abab") == pytest.approx(-0.08313649, rel=1e-5)
    assert model.generate(8, "a", temperature=0) == "babababa"
    assert model.generate(8, random_state=0) == "baaababa"
    with pytest.warns(UserWarning, match="checkpoint is None"):
        model.set_params(epochs=4).fit("ab" * 40, resume=True)
    assert model.step_ == 36


@pytest.mark.parametrize("case", ["SimpleRNN", "GRU", "LanguageModel", "ReferenceRNN"])
def test_char_rnn_says_what_another_models_file_is(case, tmp_path):
    fastrnn.save(made(case), tmp_path / "m")
    said = f"m' is not a model of CharRNN: it holds a model of {CASES[case][0].__name__}, which fastrnn.load reads"
    with pytest.raises(CheckpointError, match=said):
        CharRNN.load(tmp_path / "m")


@pytest.mark.parametrize("name", ["RNNRegressor", "RNNClassifier"])
def test_estimators_write_and_read_their_own_files(name, tmp_path, monkeypatch):
    def save(self, path):
        content, arrays = pack_model(self.model_, "model.")
        write_checkpoint(path, {"class": name, "model": content}, arrays | {"mean": np.zeros(3)})

    @classmethod
    def load(cls, path, **params):
        content, arrays = read_checkpoint(path)
        self = cls()
        self.model_ = unpack_model(content["model"], arrays, "model.", name="GRU", changes=params)
        return self

    module = types.ModuleType("fastrnn.estimators")
    estimator = type(name, (), {"save": save, "load": load, "__module__": "fastrnn.estimators"})
    setattr(module, name, estimator)
    monkeypatch.setitem(sys.modules, "fastrnn.estimators", module)
    fitted = estimator()
    fitted.model_ = made("GRU options")
    fastrnn.save(fitted, tmp_path / "m")
    loaded = fastrnn.load(tmp_path / "m", num_threads=2)
    assert type(loaded) is estimator
    assert loaded.model_.num_threads == 2
    assert done_with(loaded.model_) == done_with(fitted.model_)
    with pytest.raises(CheckpointError, match=f"it holds a model of {name}, which fastrnn.load reads"):
        CharRNN.load(tmp_path / "m")
    with pytest.raises(TypeError, match=f"Derived, a class that is derived from {name} .* its own methods"):
        fastrnn.save(type("Derived", (estimator,), {"__module__": "own"})(), tmp_path / "n")


def test_a_model_within_a_file_of_something_else():
    content, arrays = pack_model(made("LSTM"), "model.")
    arrays |= {"mean": np.zeros(3), "modelled": np.zeros(3)}
    assert done_with(unpack_model(content, arrays, "model.")) == done_with(made("LSTM"))
    for change, said in (
        ({"name": "GRU"}, "it holds a model of LSTM, which fastrnn.load reads"),
        ({"prefix": "m"}, "array 'weight_ih_l0' is missing"),
    ):
        with pytest.raises(Misfit, match=said):
            unpack_model(content, arrays, **{"prefix": "model.", **change})
    with pytest.raises(Misfit, match=r"array 'x' is not one of this model's"):
        unpack_model(content, arrays | {"model.x": np.zeros(3)}, "model.")
    for nonsense in (None, [], "LSTM", {}, {"class": 3}, {"class": ["LSTM"]}):
        for name in (None, "LSTM"):
            with pytest.raises(Misfit, match="does not say of which class"):
                unpack_model(nonsense, arrays, "model.", name=name)
    with pytest.raises(TypeError, match="a CharRNN has its own method save"):
        pack_model(CharRNN())


# -- files that are refused ------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["SimpleRNN", "RNN relu", "ReferenceLSTM"])
def written(request, tmp_path_factory):
    file = tmp_path_factory.mktemp("written") / "m"
    fastrnn.save(made(request.param), file)
    return made(request.param), file.read_bytes()


def test_truncated_files(written, tmp_path):
    file, content = tmp_path / "m", written[1]
    step = max(len(content) // 97, 1)
    for length in (*range(12), *range(12, len(content), step), len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"truncated|empty|not a safetensors") as error:
            fastrnn.load(file)
        assert str(error.value).isprintable()
    file.write_bytes(content + b"x")
    with pytest.raises(CheckpointError, match="1 bytes follow its arrays"):
        fastrnn.load(file)


@hypothesis.given(data=st.data())
def test_altered_files(written, tmp_path_factory, data):
    model, content = written[0], bytearray(written[1])
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    file = tmp_path_factory.mktemp("altered") / "m"
    file.write_bytes(content)
    try:
        loaded = fastrnn.load(file)
    except CheckpointError:
        return
    # What says nothing may change: blanks that fill the header up.
    assert 8 <= place < 8 + int.from_bytes(written[1][:8], "little")
    assert pack_model(loaded)[0] == pack_model(model)[0]


def test_every_region_of_a_file(written, tmp_path):
    """A byte in each of many places, and what comes of it is no other model."""
    file = tmp_path / "m"
    model, content = written
    before = {name: W.tobytes() for name, W in pack_model(model)[1].items()}
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        try:
            loaded = fastrnn.load(file)
        except CheckpointError:
            continue
        assert {name: W.tobytes() for name, W in pack_model(loaded)[1].items()} == before


@pytest.mark.parametrize("cls", [SimpleRNN, ReferenceLSTM, LSTM])
def test_what_loading_takes(cls, tmp_path):
    """The arrays of the file, those of the model, and one that is being copied."""
    sizes = (300, 300, 4) if cls is SimpleRNN else (300, 300)
    fastrnn.save(cls(*sizes, dtype=np.float64, rng=0), tmp_path / "m")
    size, largest = (tmp_path / "m").stat().st_size, 300 * 300 * 8 * (1 if cls is SimpleRNN else 4)
    fastrnn.load(tmp_path / "m", **({} if cls is ReferenceLSTM else {"backend": "numpy"}))
    tracemalloc.start()
    try:
        fastrnn.load(tmp_path / "m", **({} if cls is ReferenceLSTM else {"backend": "numpy"}))
        assert tracemalloc.get_traced_memory()[1] < 2 * size + 1.1 * largest
    finally:
        tracemalloc.stop()


def test_a_newer_format(tmp_path):
    fastrnn.save(made("RNN"), tmp_path / "m")
    header, data = header_of((tmp_path / "m").read_bytes())
    header["__metadata__"]["format_version"] = "7"
    (tmp_path / "m").write_bytes(with_header(header, data))
    with pytest.raises(CheckpointError, match=r"has format 7, and .* a newer fastrnn wrote it"):
        fastrnn.load(tmp_path / "m")


def test_safetensors_of_others(tmp_path):
    (tmp_path / "m").write_bytes(safetensors.numpy.save(made("RNN").state_dict()))
    with pytest.raises(CheckpointError, match="is a safetensors file, but not a checkpoint of fastrnn"):
        fastrnn.load(tmp_path / "m")


def settings(**changes):
    return lambda content, arrays: content["settings"].update(changes)


def without(part, name):
    def change(content, arrays):
        del {"content": content, "settings": content["settings"], "arrays": arrays}[part][name]

    return change


#: Of which model, what is changed in its file, under a digest that is right, and what is said of it.
CRAFTED = {
    "class": ("RNN", lambda c, a: c.update({"class": "Other"}), "not a model that is known here: it holds a 'Other' "),
    "class newer": ("RNN", lambda c, a: c.update({"class": "Other", "fastrnn": "99.1"}), r"\(fastrnn '99.1' wrote it"),
    "class escape": ("RNN", lambda c, a: c.update({"class": "\x1b[2J" * 99}), "it holds a '"),
    "class list": ("RNN", lambda c, a: c.update({"class": ["RNN"]}), "it holds a thing of no class"),
    "class none": ("RNN", without("content", "class"), "it holds a thing of no class"),
    "class module": ("RNN", lambda c, a: c.update({"class": "os.system"}), "it holds a 'os.system'"),
    "class Char": ("RNN", lambda c, a: c.update({"class": "CharRNN"}), "not a model of CharRNN: the file must have"),
    "class GRU": ("RNN", lambda c, a: c.update({"class": "GRU"}), "not a model of GRU: settings that are not known: 'no"),
    "class LSTM": ("GRU", lambda c, a: c.update({"class": "LSTM"}), "array 'weight_ih_l0' must have shape"),
    "version": ("RNN", lambda c, a: c.update(fastrnn="1.0\x1b[2J"), "is no version of fastrnn"),
    "version list": ("RNN", lambda c, a: c.update(fastrnn=[1]), "'fastrnn' of the model is a list"),
    "no settings": ("RNN", without("content", "settings"), "the model must have the members class, fastrnn, s"),
    "settings list": ("RNN", lambda c, a: c.update(settings=[]), "'settings' of the model is a list"),
    "no training": ("RNN", without("content", "training"), "must have the members"),
    "training": ("RNN", lambda c, a: c.update(training=1), "'training' of the model is a int"),
    "training of none": ("SimpleRNN", lambda c, a: c.update(training=True), "must have the members class, fastrnn, s"),
    "no size": ("RNN", without("settings", "hidden_size"), "settings must have hidden_size"),
    "no sizes": ("SimpleRNN", lambda c, a: c.update(settings={}), "have input_size, hidden_size, output_size"),
    "unknown": ("RNN", settings(x=1), "settings that are not known: 'x' "),
    "unknown self": ("RNN", settings(self=1), "settings that are not known: 'self' "),
    "unknown rng": ("RNN", settings(rng=1), "settings that are not known: 'rng' "),
    "unknown many": ("RNN", settings(**{f"\x1b{i:0900}": 1 for i in range(9)}), r"0'?\.\.\. and 4 more \("),
    "huge h": ("RNN", settings(hidden_size=2**40), "'weight_ih_l0' must have shape"),
    "huge d": ("LanguageModel", settings(vocab_size=2**47), "must have shape"),
    "huge layers": ("RNN", settings(num_layers=2**47), "array 'weight_ih_l1' is missing"),
    "beyond": ("SimpleRNN", settings(hidden_size=2**70), "settings: hidden_size must be at most"),
    "enormous": ("SimpleRNN", settings(hidden_size=10**4000), "settings: hidden_size must be at most"),
    "negative": ("SimpleRNN", settings(hidden_size=-5), "settings: hidden_size must be at least 1"),
    "zero": ("RNN", settings(num_layers=0), "settings: num_layers must be at least 1"),
    "text": ("RNN", settings(hidden_size="5"), "settings: hidden_size must be an integer"),
    "float": ("RNN", settings(hidden_size=5.0), "settings: hidden_size must be an integer"),
    "flag": ("RNN", settings(num_layers=True), "settings: num_layers must be an integer"),
    "null": ("RNN", settings(hidden_size=None), "settings: hidden_size must be an integer"),
    "deep": ("RNN", settings(hidden_size=deep(50)), "settings: hidden_size must be an integer"),
    "deeper": ("RNN", settings(hidden_size=deep(70)), "more than 64 lists within each other"),
    "bias": ("RNN", settings(bias=0), "settings: bias must be a bool"),
    "no bias": ("RNN", settings(bias=False), "array 'bias_.h_l0' is not one of this model's"),
    "directions": ("RNN", settings(bidirectional=True), "array 'weight_ih_l0_reverse' is missing"),
    "batch_first": ("RNN", settings(batch_first="x"), "settings: batch_first must be a bool"),
    "dropout": ("RNN", settings(dropout=-1), "settings: dropout must be a probability"),
    "dropout nan": ("RNN", settings(dropout=float("nan")), "settings: dropout must be a finite number"),
    "dropout huge": ("RNN", settings(dropout=10**400), "settings: dropout must be a real number"),
    "nonlinearity": ("RNN", settings(nonlinearity="\x1b[2J"), "settings: "),
    "cell": ("LanguageModel", settings(cell="x"), "settings: cell must be one of"),
    "cell list": ("LanguageModel", settings(cell=[["x"]]), "settings: cell must be one of"),
    "cell gru": ("LanguageModel", settings(cell="gru"), "array 'weight_ih_l0' must have shape"),
    "cell relu": ("LanguageModel gru", settings(nonlinearity="relu"), "settings: nonlinearity is for cell='rnn'"),
    "recompute": ("LanguageModel", settings(recompute_every=0), "settings: recompute_every must be at least 1"),
    "num_threads": ("RNN", settings(num_threads=0), "settings: num_threads must be at least 1"),
    "backend": ("RNN", settings(backend="cuda"), "settings: backend must be one of"),
    "backend list": ("SimpleRNN", settings(backend=[]), "settings: backend must be one of"),
    "backend of none": ("ReferenceRNN", settings(backend=None), "settings that are not known: 'backend'"),
    "dtype": ("RNN", settings(dtype="float64"), "is float32, and dtype = 'float64'"),
    "dtype other": ("RNN", settings(dtype="int8"), "settings: dtype must be one of"),
    "dtype odd": ("RNN", settings(dtype="(1,f4"), "settings: dtype must be one of"),
    "dtype null": ("SimpleRNN", settings(dtype=None), "settings: dtype must be one of"),
    "dtype dict": ("SimpleRNN", settings(dtype={"names": ["a"]}), "settings: dtype must be one of"),
    "missing": ("SimpleRNN", without("arrays", "by"), "array 'by' is missing"),
    "none": ("RNN", lambda c, a: a.clear(), "array 'weight_ih_l0' is missing"),
    "more": ("SimpleRNN", lambda c, a: a.update(bz=a["by"]), "array 'bz' is not one of this model's"),
    "more odd": ("SimpleRNN", lambda c, a: a.update({"\x1b[2J" * 50: a["by"]}), "is not one of this model's"),
    "transposed": ("SimpleRNN", lambda c, a: a.update(Wxh=a["Wxh"].T.copy()), "'Wxh' must have shape"),
    "column": ("SimpleRNN", lambda c, a: a.update(by=a["by"][:, 0].copy()), r"'by' must have shape \(3, 1\), got \(3,\)"),
    "empty": ("SimpleRNN", lambda c, a: a.update(by=a["by"][:0].copy()), "'by' must have shape"),
    "one wide": ("SimpleRNN", lambda c, a: a.update(by=a["by"].astype("f8")), "'by' is float64, and dtype"),
    "generator": ("RNN", lambda c, a: c["random_state"].update(bit_generator="os.system"), "the random state: bit_g"),
    "generator state": ("RNN", lambda c, a: c["random_state"].update(state={}), "the random state"),
    "generator none": ("RNN", lambda c, a: c.update(random_state=None), "'random_state' of the model is a NoneType"),
    "generator deep": ("RNN", lambda c, a: c["random_state"].update(state=deep(50)), "the random state"),
    "member": ("RNN", lambda c, a: c.update(more=1), "must have the members class, fastrnn, settings, training, r"),
}  # fmt: skip


@pytest.mark.few(100)
@pytest.mark.parametrize("name", CRAFTED)
def test_models_whose_parts_do_not_fit(name, tmp_path):
    case, change, said = CRAFTED[name]
    content, arrays = pack_model(made(case))
    change(content, arrays)
    signed(tmp_path / "m", json.dumps(content), arrays)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=said) as error:
            fastrnn.load(tmp_path / "m")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert repr(str(tmp_path / "m")) in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize("case", ["SimpleRNN", "RNN", "LanguageModel gru", "ReferenceGRU"])
@pytest.mark.parametrize("seed", range(4))
def test_signed_files_with_anything_in_them(case, seed, tmp_path):
    """A model, or one line about what is wrong; and a model that was taken can be used and saved."""
    rng = random.Random(seed)
    whole = pack_model(made(case))
    taken = 0
    for _ in range(60):
        content, arrays = copy.deepcopy(whole)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            mutate(rng, content, arrays)
        signed(tmp_path / "m", json.dumps(content), arrays)
        said = ""
        try:
            model = fastrnn.load(tmp_path / "m", **({} if case == "ReferenceGRU" else {"backend": "numpy"}))
        except CheckpointError as error:
            said = str(error)
        except ValueError as error:  # of another class by now, which has no backend
            if "that load can change" not in str(error):
                raise
            continue
        assert said.isprintable()
        assert len(said) < 1500
        if said:
            continue
        taken += 1
        fastrnn.save(model, tmp_path / f"again{taken}")
        assert pack_model(fastrnn.load(tmp_path / f"again{taken}"))[0] == pack_model(model)[0]
        if is_finite(tmp_path / "m"):
            done_with(model)
    assert 0 < taken < 40


def test_a_file_from_before_a_setting(tmp_path):
    """Settings that came later have their defaults."""
    content, arrays = pack_model(LanguageModel(4, 5, rng=0))
    content["settings"] = {"vocab_size": 4, "hidden_size": 5}
    write_checkpoint(tmp_path / "m", content, arrays)
    assert repr(fastrnn.load(tmp_path / "m")) == repr(LanguageModel(4, 5))


def test_odd_dtypes_in_the_file_of_a_char_rnn(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    content, arrays = read_checkpoint(tmp_path / "m")
    for dtype in ("(1,f4", "f4,("):  # of which NumPy says that they are no Python
        content["params"]["dtype"] = dtype
        write_checkpoint(tmp_path / "m", content, arrays)
        with pytest.raises(CheckpointError, match="is not a model of CharRNN: hyper-parameters"):
            fastrnn.load(tmp_path / "m")


# -- importing -------------------------------------------------------------------------------------


def test_save_and_load_are_imported_when_they_are_asked_for():
    import subprocess

    code = (
        "import sys, fastrnn\n"
        "heavy = {'fastrnn.files', 'safetensors', 'fastrnn.layers', 'fastrnn.char_rnn'}\n"
        "assert not heavy & set(sys.modules)\n"
        "fastrnn.save, fastrnn.load\n"
        "assert heavy & set(sys.modules) == {'fastrnn.files'}, heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
