"""Files of models: what is written is read, and nothing else is."""

import copy
import errno
import json
import os
import pickle
import stat
import time

import hypothesis
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

import fastrnn
from fastrnn import BackendUnavailable, CharRNN, CheckpointError, backends
from fastrnn.checkpoint import FORMAT_VERSION, check_writable, read_checkpoint, write_checkpoint

TEXT = "hello world, it is warm. " * 30

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([np.nan, np.inf, -0.0, 5e-324]),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(2.5),
}
CONTENT = {
    "step": 3,
    "name": "naïve 🐍\n\0",
    "big": 2**127 + 1,
    "nan": float("nan"),
    "list": [None, True, 0.1],
}


@pytest.fixture(scope="module")
def fitted():
    return CharRNN(
        8, 2, seq_len=8, batch_size=2, epochs=2, random_state=0, verbose=0, backend="numpy", dropout=0.1
    ).fit(TEXT)


@pytest.fixture
def file(tmp_path):
    write_checkpoint(tmp_path / "model", CONTENT, ARRAYS)
    return tmp_path / "model"


def header_of(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


# -- the format ------------------------------------------------------------------------------------


def test_what_is_written_is_read(file):
    content, arrays = read_checkpoint(file)
    assert repr(content) == repr(CONTENT)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()


def test_any_safetensors_reader_opens_it(file):
    arrays = safetensors.numpy.load_file(file)
    np.testing.assert_array_equal(arrays["a"], ARRAYS["a"])
    with safetensors.safe_open(file, "numpy") as opened:
        metadata = opened.metadata()
    assert metadata["format"] == "fastrnn"
    assert json.loads(metadata["content"])["step"] == 3


def test_arrays_in_any_order_of_memory(tmp_path):
    wide = np.arange(24.0).reshape(4, 6)
    write_checkpoint(tmp_path / "f", {}, {"t": wide.T, "part": wide[::2, ::3]})
    _, arrays = read_checkpoint(tmp_path / "f")
    np.testing.assert_array_equal(arrays["t"], wide.T)
    np.testing.assert_array_equal(arrays["part"], wide[::2, ::3])


def test_the_one_before_is_kept(file):
    before = file.read_bytes()
    write_checkpoint(file, {"step": 4}, ARRAYS)
    assert read_checkpoint(file)[0] == {"step": 4}
    assert file.with_name("model.previous").read_bytes() == before
    assert sorted(f.name for f in file.parent.iterdir()) == ["model", "model.previous"]


def test_more_than_a_header_may_hold(file):
    before = file.read_bytes()
    with pytest.raises(OSError, match=r"cannot write checkpoint .* takes 100000014 characters") as error:
        write_checkpoint(file, {"history": "x" * 10**8}, {})
    assert error.value.errno == errno.EFBIG
    assert file.read_bytes() == before
    assert [f.name for f in file.parent.iterdir()] == ["model"]


def test_a_link_stays_a_link(file):
    link = file.parent / "link"
    link.symlink_to("model")
    write_checkpoint(link, {"step": 5}, {})
    assert link.is_symlink()
    assert read_checkpoint(file)[0] == {"step": 5}


def test_the_one_before_a_damaged_one_behind_a_link(file):
    link = file.parent / "sub" / "link"
    link.parent.mkdir()
    link.symlink_to(file)
    write_checkpoint(link, {}, {})
    file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"link' is empty; .* is '.*model\.previous'"):
        read_checkpoint(link)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name on this system")
def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for call in (check_writable, lambda path: write_checkpoint(path, {}, {})):
        with pytest.raises(OSError, match=r"cannot write checkpoint '.*pipe': .* not a regular file"):
            call(tmp_path / "pipe")
        with pytest.raises(IsADirectoryError, match="cannot write checkpoint '/'"):
            call("/")
    assert (tmp_path / "pipe").is_fifo()
    assert [f.name for f in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_that_cannot_force_a_folder_to_the_disk(file, monkeypatch, number):
    fsync = os.fsync

    def of_files_only(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", of_files_only)
    if number == errno.EIO:
        with pytest.raises(OSError, match="cannot write checkpoint"):
            write_checkpoint(file, {"step": 9}, {})
    else:
        write_checkpoint(file, {"step": 9}, {})
        assert read_checkpoint(file)[0] == {"step": 9}


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_the_file_has_the_usual_permissions(file):
    (file.parent / "usual").touch()
    usual = (file.parent / "usual").stat().st_mode
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(usual)


def test_what_killed_writers_left_is_removed_after_a_while(file):
    old, new, other = (
        file.with_name(name)
        for name in (".model.0123456789abcdef.tmp", ".model.fedcba9876543210.tmp", ".model.mine.tmp")
    )
    for left in (old, new, other):
        left.write_bytes(b"half")
    for left in (old, other):
        os.utime(left, (time.time() - 3600,) * 2)
    write_checkpoint(file, {}, {})
    assert not old.exists()
    assert new.exists()
    assert other.exists()


# -- files that are refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\x80\x04\x95", "not a safetensors file"),
        (pickle.dumps({"a": 1}), "not a safetensors file"),
        (b"PK\x03\x04" + bytes(100), "not a safetensors file"),
        (b"plain text, long enough to have a header", "not a safetensors file"),
        (bytes(200), "not a safetensors file"),
        ((2**63).to_bytes(8, "little") + b"{}", "not a safetensors file"),
        ((10**8).to_bytes(8, "little") + b"{}", "truncated: its header takes 100000000 bytes and 2 are there"),
        (with_header(b"{nonsense", b""), "not JSON"),
        (with_header(b"{" + b'"a":[' * 5000, b""), "not JSON"),
        (with_header(b'{"__metadata__":{"format":"fastrnn"},"__metadata__":{}}', b""), "comes twice"),
        (with_header(b'{"__metadata__":{"format":"fastrnn","a":' + b"9" * 5000 + b"}}", b""), "not JSON"),
        (safetensors.numpy.save({"a": np.ones(3)}), "not a checkpoint of fastrnn"),
        (safetensors.numpy.save({"a": np.ones(3)}, {"format": "pt"}), "not a checkpoint of fastrnn"),
        (safetensors.numpy.save({"a": np.ones(3)}, {"format": "fastrnn"}), "no format version"),
    ],
)  # fmt: skip
def test_files_that_are_none_of_ours(tmp_path, content, said):
    file = tmp_path / "model"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as error:
        read_checkpoint(file)
    assert repr(str(file)) in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot read checkpoint '.*missing': No such file"):
        read_checkpoint(tmp_path / "missing")
    with pytest.raises(IsADirectoryError, match=r"cannot read checkpoint"):
        CharRNN.load(tmp_path)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (str(FORMAT_VERSION + 1), f"has format {FORMAT_VERSION + 1}, and fastrnn {fastrnn.__version__} reads "
                                  f"up to {FORMAT_VERSION}: a newer fastrnn wrote it"),
        ("999999999", "a newer fastrnn"),
        ("0", "does not exist"),
        ("01", "does not exist"),
        ("x", "no format version"),
        ("", "no format version"),
        ("9" * 5000, "no format version"),
        ("²", "no format version"),
    ],
)  # fmt: skip
def test_other_formats(file, version, said):
    header, data = header_of(file.read_bytes())
    header["__metadata__"]["format_version"] = version
    file.write_bytes(with_header(header, data))
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(file)


ENTRY = "makes no sense"
CLAIMS = {
    "type": ({"dtype": "F16"}, ENTRY),
    "no type": ({"dtype": 3}, ENTRY),
    "shape": ({"shape": [2, 4]}, ENTRY),
    "huge": ({"shape": [2**40, 2**40]}, ENTRY),
    "huge and in keeping": ({"shape": [2**60], "data_offsets": [0, 2**62]}, "overlap|truncated"),
    "negative": ({"shape": [-2, -3]}, ENTRY),
    "fraction": ({"shape": [2.0, 3]}, ENTRY),
    "huge and empty": ({"shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}, ENTRY),
    "dimensions": ({"shape": [2, 3] + [1] * 100}, ENTRY),
    "flag": ({"shape": [True, 6]}, ENTRY),
    "no list": ({"shape": "23"}, ENTRY),
    "offsets": ({"data_offsets": [0]}, ENTRY),
    "offset before the start": ({"data_offsets": [-24, 0]}, "gap or overlap"),
    "offset flag": ({"data_offsets": [False, 24]}, ENTRY),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_that_the_file_does_not_keep(tmp_path, claim):
    file = tmp_path / "model"
    write_checkpoint(file, CONTENT, {"a": ARRAYS["a"]})
    header, data = header_of(file.read_bytes())
    change, said = CLAIMS[claim]
    header["a"].update(change)
    file.write_bytes(with_header(header, data))
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(file)


def test_arrays_that_do_not_cover_the_file(file):
    header, data = header_of(file.read_bytes())
    for change, said in [
        (lambda h: h.pop("b"), "gap|follow"),
        (lambda h: h.update(b=h["a"]), "overlap"),
        (lambda h: h.update(c={"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}),
         "truncated: its arrays take"),
    ]:  # fmt: skip
        changed = copy.deepcopy(header)
        change(changed)
        file.write_bytes(with_header(changed, data))
        with pytest.raises(CheckpointError, match=said):
            read_checkpoint(file)
    file.write_bytes(with_header(header, data + b"more"))
    with pytest.raises(CheckpointError, match="4 bytes follow its arrays"):
        read_checkpoint(file)


def test_every_truncation_is_refused(file):
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(file)


@hypothesis.given(data=st.data())
def test_every_altered_byte_is_refused(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("altered") / "model"
    write_checkpoint(file, CONTENT, ARRAYS)
    content = bytearray(file.read_bytes())
    header_length = int.from_bytes(content[:8], "little")
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    try:
        after = read_checkpoint(file)
    except CheckpointError:
        return
    # What says nothing may change: blanks that fill the header up, or the key of an unused member.
    assert 8 <= place < 8 + header_length
    assert repr(after[0]) == repr(CONTENT)
    assert {name: a.tobytes() for name, a in after[1].items()} == {n: a.tobytes() for n, a in ARRAYS.items()}


def test_nothing_is_allocated_from_claims(tmp_path, monkeypatch):
    file = tmp_path / "model"
    write_checkpoint(file, {}, {"a": ARRAYS["a"]})
    header, data = header_of(file.read_bytes())
    header["a"] = {"dtype": "F64", "shape": [2**50], "data_offsets": [0, 2**53]}
    file.write_bytes(with_header(header, data))
    monkeypatch.setattr(safetensors.numpy, "load", lambda content: pytest.fail("went on to load it"))
    with pytest.raises(CheckpointError, match=f"truncated: its arrays take {2**53} bytes and 24 are there"):
        read_checkpoint(file)


# -- models ----------------------------------------------------------------------------------------


def test_a_model_is_the_same_after_save_and_load(fitted, tmp_path):
    file = tmp_path / "model.safetensors"
    fitted.save(file)
    loaded = CharRNN.load(file)
    assert loaded.get_params() == fitted.get_params()
    assert repr(loaded) == repr(fitted)
    assert loaded.vocabulary_ == fitted.vocabulary_
    assert loaded.history_ == fitted.history_
    for name in ("step_", "epoch_", "best_step_", "best_valid_nats_", "weights_"):
        assert getattr(loaded, name) == getattr(fitted, name)
    for mine, others in ((loaded.last_weights_, fitted.last_weights_),
                         (loaded.best_weights_, fitted.best_weights_)):  # fmt: skip
        assert mine.keys() == others.keys()
        for name, W in others.items():
            np.testing.assert_array_equal(mine[name], W)
            assert mine[name].dtype == W.dtype
    assert loaded.score(TEXT) == fitted.score(TEXT)
    assert loaded.generate(30, random_state=4) == fitted.generate(30, random_state=4)
    second = tmp_path / "second"
    loaded.save(second)
    (mine, arrays), (others, other_arrays) = read_checkpoint(second), read_checkpoint(file)
    assert mine == others
    assert {n: a.tobytes() for n, a in arrays.items()} == {n: a.tobytes() for n, a in other_arrays.items()}


def test_the_file_says_nothing_of_where_it_was(fitted, tmp_path):
    model = CharRNN(8, epochs=1, seq_len=4, batch_size=2, verbose=0, checkpoint=tmp_path / "a secret")
    model.fit(TEXT)
    assert b"secret" not in (tmp_path / "a secret").read_bytes()
    assert CharRNN.load(tmp_path / "a secret").checkpoint == tmp_path / "a secret"
    model.save(tmp_path / "b")
    assert CharRNN.load(tmp_path / "b").checkpoint is None


def test_hyper_parameters_may_be_changed_on_loading(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    loaded = CharRNN.load(tmp_path / "m", epochs=7, num_threads=2, unknown="skip", checkpoint=None)
    assert (loaded.epochs, loaded.num_threads, loaded.unknown) == (7, 2, "skip")
    with pytest.raises(
        ValueError, match="'hidden' is not a hyper-parameter of CharRNN; they are hidden_size"
    ):
        CharRNN.load(tmp_path / "m", hidden=3)
    with pytest.raises(ValueError, match="lr must be a finite positive number"):
        CharRNN.load(tmp_path / "m", lr=-1.0)


def test_a_file_from_before_a_hyper_parameter(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    content, arrays = read_checkpoint(tmp_path / "m")
    del content["params"]["patience"], content["params"]["lr"]
    content["history"][0]["more"] = 3.5
    write_checkpoint(tmp_path / "m", content, arrays)
    loaded = CharRNN.load(tmp_path / "m")
    assert (loaded.patience, loaded.lr) == (None, CharRNN().lr)
    assert loaded.history_[0]["more"] == 3.5


def test_a_model_whose_backend_is_missing(fitted, tmp_path, monkeypatch):
    fitted.save(tmp_path / "m")
    content, arrays = read_checkpoint(tmp_path / "m")
    content["params"]["backend"] = "numba"
    write_checkpoint(tmp_path / "m", content, arrays)
    monkeypatch.setitem(backends.BACKENDS, "numba", ("fastrnn.kernels.missing", "nowhere"))
    monkeypatch.delitem(backends._loaded, "numba", raising=False)
    with pytest.raises(BackendUnavailable, match="'numba' is not available"):
        CharRNN.load(tmp_path / "m")
    loaded = CharRNN.load(tmp_path / "m", backend="numpy")
    assert loaded.generate(9, random_state=0) == fitted.generate(9, random_state=0)


def test_a_model_whose_hyper_parameters_were_set_since(fitted, tmp_path):
    model = copy.deepcopy(fitted)
    model.set_params(hidden_size=9, num_layers=1, optimizer="sgd", dtype="float64", seq_len=5, batch_size=3,
                     validation_fraction=0.3, dropout=0.7, lr=0.5)  # fmt: skip
    model.save(tmp_path / "m")
    loaded = CharRNN.load(tmp_path / "m")
    assert loaded.get_params() == fitted.get_params() | {"lr": 0.5}
    assert loaded.generate(9, random_state=0) == fitted.generate(9, random_state=0)
    with pytest.raises(ValueError, match="lr must be"):
        model.set_params(lr=-1).save(tmp_path / "n")
    assert not (tmp_path / "n").exists()


def test_models_that_were_not_trained_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="not fitted yet"):
        CharRNN().save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def drop(d, key):
    del d[key]


def deep(n):
    nested = {}
    for _ in range(n):
        nested = {"a": nested}
    return nested


#: Changes to what a file of a model holds, under a digest that is right, and what is said of them.
CRAFTED = {
    "class": (lambda c, a: c.update({"class": "Other"}), "it holds a 'Other'"),
    "no params": (lambda c, a: drop(c, "params"), "must have the members class, "),
    "params list": (lambda c, a: c.update(params=[]), "'params' of the file is a list"),
    "place": (lambda c, a: c["params"].update(checkpoint="/etc/passwd"), "names a place to write"),
    "no place": (lambda c, a: c["params"].update(checkpoint=None), "names a place to write"),
    "backend": (lambda c, a: c["params"].update(backend="cuda"), "backend must be one of"),
    "backend list": (lambda c, a: c["params"].update(backend=[]), "backend must be one of"),
    "unknown param": (lambda c, a: c["params"].update(x=1), "hyper-parameters that are not known: 'x'"),
    "missing param": (lambda c, a: drop(c["params"], "hidden_size"), "is not one of this model's"),
    "hidden size": (lambda c, a: c["params"].update(hidden_size=2**40), "is not one of this model's"),
    "hidden size text": (lambda c, a: c["params"].update(hidden_size="8"), "hidden_size must be an integer"),
    "layers": (lambda c, a: c["params"].update(num_layers=2**47), "num_layers = 140737488355328"),
    "dtype": (lambda c, a: c["params"].update(dtype="float64"), "is float32, and dtype = 'float64'"),
    "dtype nonsense": (lambda c, a: c["params"].update(dtype="int8"), "dtype must be float32 or float64"),
    "optimizer": (lambda c, a: c["params"].update(optimizer="sgd"), "optimizer"),
    "optimizer nonsense": (lambda c, a: c["params"].update(optimizer="x"), "optimizer must be one of"),
    "lr": (lambda c, a: c["params"].update(lr=-1.0), "hyper-parameters: lr must be"),
    "seq_len": (lambda c, a: c["params"].update(seq_len=[8]), "hyper-parameters: seq_len must be"),
    "slots": (
        lambda c, a: a.update({n.replace("exp_avg.", "x."): a[n] for n in a if "exp_avg." in n}),
        "the optimizer",
    ),
    "optimizer state": (lambda c, a: c["optimizer"].update(step=-1), "the optimizer"),
    "optimizer options": (lambda c, a: c["optimizer"].update(options={}), "the optimizer"),
    "vocabulary": (lambda c, a: c.update(vocabulary=c["vocabulary"] + "Z"), "is not one of this model's"),
    "vocabulary twice": (lambda c, a: c.update(vocabulary="aa"), "holds 'a' more than once"),
    "progress": (lambda c, a: drop(c["progress"], "step"), "the progress must have the members"),
    "progress text": (lambda c, a: c["progress"].update(step="1"), "'step' of the progress is a str"),
    "progress flag": (lambda c, a: c["progress"].update(step=True), "'step' of the progress is a bool"),
    "progress back": (lambda c, a: c["progress"].update(step=-4), "the progress makes no sense"),
    "progress ahead": (lambda c, a: c["progress"].update(epoch_start=10**9), "the progress makes no sense"),
    "progress huge": (lambda c, a: c["progress"].update(epoch=10**400), "the progress makes no sense"),
    "kind": (lambda c, a: c["progress"].update(kind="x"), "the progress makes no sense"),
    "history": (lambda c, a: c["history"].append({}), "an entry of the history must have"),
    "history text": (lambda c, a: c["history"].append("x"), "an entry of the history must have"),
    "weights": (lambda c, a: c.update(weights="first"), "weights 'first' are not known"),
    "generator": (lambda c, a: c["random_state"].update(bit_generator="os.system"), "bit_generator must be"),
    "generator state": (lambda c, a: c["random_state"].update(state={}), "the random state"),
    "generator deep": (lambda c, a: c["random_state"].update(state=deep(900)), "the random state"),
    "last": (lambda c, a: drop(a, "last.weight_out"), "not those of so many layers"),
    "best": (lambda c, a: drop(a, "best.weight_out"), "arrays 'best' are not complete"),
    "slot": (lambda c, a: drop(a, "optimizer.exp_avg.weight_out"), "are not complete"),
    "state": (lambda c, a: drop(a, "state"), "hidden state is missing"),
    "state shape": (lambda c, a: a.update(state=np.zeros((2, 2, 9), np.float32)), "hidden state is missing"),
    "state streams": (lambda c, a: a.update(state=np.zeros((2, 5, 8), np.float32)), "hidden state"),
    "start": (lambda c, a: drop(a, "start.best"), "'start' are not complete"),
    "start shape": (lambda c, a: a.update({"start.last": a["state"]}), "is not one of this model's"),
    "start more": (lambda c, a: a.update({"start.x": a["start.last"]}), "is not one of this model's"),
    "more": (lambda c, a: a.update({"more.bias_out": a["last.bias_out"]}), "'more' are not expected"),
    "odd name": (lambda c, a: a.update({"x": a["last.bias_out"]}), "is not one of this model's"),
    "odd type": (lambda c, a: a.update({"last.bias_out": a["last.bias_out"].astype("f8")}), "is float64"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_models_whose_parts_do_not_fit(fitted, tmp_path, name):
    change, said = CRAFTED[name]
    file = tmp_path / "model"
    fitted.save(file)
    content, arrays = read_checkpoint(file)
    change(content, arrays)
    write_checkpoint(file, content, arrays)
    with pytest.raises(CheckpointError, match=said) as error:
        CharRNN.load(file)
    assert f"{str(file)!r} is not a model of CharRNN: " in str(error.value)


@pytest.mark.parametrize(
    ("bit_generator", "change"),
    [
        ("MT19937", lambda s: s["state"].update(pos=10**6)),  # NumPy would read there
        ("MT19937", lambda s: s["state"].update(pos=-1)),
        ("MT19937", lambda s: s["state"].update(pos=[])),
        ("MT19937", lambda s: s["state"]["key"].update(values=[1, 2])),
        ("MT19937", lambda s: s["state"]["key"].update(values=[0.5] * 624)),
        ("MT19937", lambda s: s["state"].update(key=3)),
        ("Philox", lambda s: s.update(buffer_pos=-(10**6))),
        ("Philox", lambda s: s.update(buffer_pos=5)),
        ("Philox", lambda s: s["buffer"].update(values=[1])),
        ("SFC64", lambda s: s["state"].update(state=[])),
        ("PCG64", lambda s: s["state"].update(inc=2**200)),
        ("PCG64", lambda s: s.update(has_uint32="x")),
        ("PCG64DXSM", lambda s: s.update(state=7)),
    ],
)
def test_states_of_generators_that_cannot_be(tmp_path, bit_generator, change):
    rng = np.random.Generator(getattr(np.random, bit_generator)(3))
    rng.random(5)
    model = CharRNN(8, seq_len=8, batch_size=2, epochs=1, random_state=rng, verbose=0, backend="numpy")
    model.fit(TEXT).save(tmp_path / "m")
    content, arrays = read_checkpoint(tmp_path / "m")
    assert CharRNN.load(tmp_path / "m").model_.rng.random() == model.model_.rng.random()
    change(content["random_state"])
    write_checkpoint(tmp_path / "m", content, arrays)
    with pytest.raises(CheckpointError, match="the random state"):
        CharRNN.load(tmp_path / "m")


def test_the_best_weights_in_use(fitted, tmp_path):
    model = copy.deepcopy(fitted).use_weights("best")
    model.save(tmp_path / "m")
    loaded = CharRNN.load(tmp_path / "m")
    assert loaded.weights_ == "best"
    assert loaded.score(TEXT) == model.score(TEXT)
    for name, W in fitted.last_weights_.items():
        np.testing.assert_array_equal(loaded.last_weights_[name], W)
    content, arrays = read_checkpoint(tmp_path / "m")
    write_checkpoint(tmp_path / "m", content, {n: a for n, a in arrays.items() if not n.startswith("best.")})
    with pytest.raises(CheckpointError, match="the best weights are in use, and are not there"):
        CharRNN.load(tmp_path / "m")


def test_a_model_before_its_first_step(tmp_path):
    model = CharRNN(8, seq_len=8, batch_size=2, verbose=0, backend="numpy", random_state=0, epochs=1)
    from fastrnn.language_model import LanguageModel

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageModel, "train_step", lambda *a, **o: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model.fit(TEXT)
    model.save(tmp_path / "m")
    loaded = CharRNN.load(tmp_path / "m").fit(TEXT, resume=True)
    model.fit(TEXT)
    assert loaded.generate(20, random_state=0) == model.generate(20, random_state=0)
