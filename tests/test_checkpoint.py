"""Files of models: what is written is read, and nothing else is."""

import copy
import dataclasses
import errno
import json
import os
import pickle
import random
import socket
import stat
import tempfile
import time
import tracemalloc
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import deep, header_of, mutate, signed, with_header
from hypothesis import strategies as st

import fastrnn
from fastrnn import BackendUnavailable, CharRNN, CheckpointError, backends
from fastrnn.checkpoint import (
    FORMAT_VERSION,
    MOST_ARRAYS,
    check_writable,
    is_finite,
    read_checkpoint,
    write_checkpoint,
)
from fastrnn.text.settings import DEFAULTS
from fastrnn.text.snapshot import pack

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


posix = pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")


def mode_of(file):
    return stat.S_IMODE(file.stat().st_mode)


@posix
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o664, 0o777])
def test_a_file_passes_its_permissions_on(file, monkeypatch, mode, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *a: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    file.chmod(mode)
    before = os.umask(0o027)
    try:
        for step in (4, 5):
            check_writable(file)
            write_checkpoint(file, {"step": step}, {})
    finally:
        os.umask(before)
    assert (mode_of(file), mode_of(file.with_name("model.previous"))) == (mode, mode)


@posix
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_no_moment_of_wider_permissions(file, monkeypatch, links):
    file.chmod(0o600)
    seen, fsync, replace = [], os.fsync, type(file).replace

    def looking(*arguments):
        seen.extend((f.name, mode_of(f)) for f in file.parent.iterdir())
        return fsync(*arguments)

    def looking_too(*arguments):
        seen.extend((f.name, mode_of(f)) for f in file.parent.iterdir())
        return replace(*arguments)

    def create(name, flags, mode=0o777, **more):
        descriptor = opened(name, flags, mode, **more)
        if flags & os.O_CREAT:
            seen.append((str(name), stat.S_IMODE(os.fstat(descriptor).st_mode)))
        return descriptor

    opened = os.open
    monkeypatch.setattr(os, "open", create)
    monkeypatch.setattr(os, "fsync", looking)
    monkeypatch.setattr(type(file), "replace", looking_too)
    if not links:
        monkeypatch.setattr(os, "link", lambda *a: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    before = os.umask(0)
    try:
        write_checkpoint(file, {"step": 4}, {})
        check_writable(file)
    finally:
        os.umask(before)
    assert len({name for name, _ in seen}) >= 4
    assert {mode for _, mode in seen} == {0o600}


@posix
def test_a_file_passes_its_owner_on(file):
    file.chmod(0o664)
    try:
        os.chown(file, 12345, 23456)
    except PermissionError:
        pytest.skip("only root may give files away")
    write_checkpoint(file, {"step": 4}, {})
    status = file.stat()
    assert (status.st_uid, status.st_gid, mode_of(file)) == (12345, 23456, 0o664)
    # Another user, who may not give files away: what the group might is not for another group.
    os.chown(file.parent, 54321, 54321)
    temporary = Path(tempfile.gettempdir())
    for folder in (parent for parent in file.parent.parents if temporary in parent.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgroups([])
            os.setgid(54321)
            os.setuid(54321)
            write_checkpoint(file, {"step": 5}, {})
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    status = file.stat()
    assert (status.st_uid, status.st_gid, mode_of(file)) == (54321, 54321, 0o644)
    assert read_checkpoint(file)[0] == {"step": 5}


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_place_that_cannot_be_moved_to(file, kind):
    before, previous = file.read_bytes(), file.with_name("model.previous")
    if kind == "pipe" and not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with a name on this system")
    previous.mkdir() if kind == "folder" else os.mkfifo(previous)
    said = "a directory" if kind == "folder" else "not a regular file"
    for call in (check_writable, lambda path: write_checkpoint(path, {}, {})):
        with pytest.raises(
            OSError, match=rf"cannot write checkpoint '.*model': .* '.*\.previous', which is {said}"
        ):
            call(file)
    assert file.read_bytes() == before
    file.unlink()
    with pytest.raises(OSError, match=f"which is {said}"):
        check_writable(file)  # which is for more than one
    write_checkpoint(file, {}, {})
    assert sorted(f.name for f in file.parent.iterdir()) == ["model", "model.previous"]


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
        ((0).to_bytes(8, "little") + b"{" + bytes(100), "not a safetensors file"),
        ((1).to_bytes(8, "little") + b"{" + bytes(100), "not a safetensors file"),
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name on this system")
def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)  # the name of a socket is short
        listening.bind("socket")
        for name in ("pipe", "socket", os.devnull):
            with pytest.raises(OSError, match=f"cannot read checkpoint '.*{name}': it is not a regular file"):
                read_checkpoint(name)
            with pytest.raises(OSError, match="it is not a regular file"):
                CharRNN.load(name)
            assert is_finite(name) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name on this system")
def test_a_pipe_that_comes_after_the_look_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    ordinary = Path(__file__).stat()
    monkeypatch.setattr(type(tmp_path), "stat", lambda self: ordinary)
    with pytest.raises(OSError, match="it is not a regular file"):
        read_checkpoint(tmp_path / "pipe")


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
    "huge and empty, at the bound": ({"shape": [0, 2**61], "data_offsets": [0, 0]}, ENTRY),
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


def test_more_arrays_than_a_model_has(tmp_path, monkeypatch):
    arrays = {f"a{i}": np.zeros(0, np.float32) for i in range(MOST_ARRAYS + 1)}
    with pytest.raises(OSError, match="20001 arrays, and a file takes 20000"):
        write_checkpoint(tmp_path / "m", {}, arrays)
    signed(tmp_path / "m", "{}", arrays)
    with pytest.raises(CheckpointError, match="its header names more than 20000 arrays"):
        read_checkpoint(tmp_path / "m")
    content = (tmp_path / "m").read_bytes().replace(b"data_offsets", b"data_offset\\u0073")
    (tmp_path / "m").write_bytes((len(content) - 8).to_bytes(8, "little") + content[8:])
    with pytest.raises(CheckpointError, match="its header names more than 20000 arrays"):
        read_checkpoint(tmp_path / "m")
    monkeypatch.setattr(json, "loads", lambda *a, **o: pytest.fail("made objects of all of them"))
    signed(tmp_path / "m", "{}", arrays)
    with pytest.raises(CheckpointError, match="its header names more than 20000 arrays"):
        read_checkpoint(tmp_path / "m")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a":"\\ud800"}', r"U\+D800, half of a surrogate pair"),
        ('{"a":["x\\udfffy"]}', r"U\+DFFF, half of a surrogate pair"),
        ('{"\\uDC80":1}', r"U\+DC80, half of a surrogate pair"),
        ('{"a":' + "[" * 70 + "]" * 70 + "}", "more than 64 lists within each other"),
        ('{"a":' + '{"b":' * 70 + "0" + "}" * 71, "more than 64 lists within each other"),
        ('{"a":' + "[" * 10**5 + "]" * 10**5 + "}", "not JSON"),
        ('{"a":' + "9" * 5000 + "}", "not JSON"),
        ("[]", "not a JSON object"),
        ("\x1b[31m", "not JSON"),
    ],
)  # fmt: skip
def test_content_that_would_be_stumbled_over_later(tmp_path, content, said):
    signed(tmp_path / "m", content, {})
    for read in (read_checkpoint, fastrnn.load):
        with pytest.raises(CheckpointError, match=said) as error:
            read(tmp_path / "m")
        assert str(error.value).isprintable()


def test_a_surrogate_in_the_header_itself(tmp_path):
    for old in ("content", "sha256", "a"):
        write_checkpoint(tmp_path / "m", {"b": 1}, {"a": ARRAYS["a"]})
        header, data = header_of((tmp_path / "m").read_bytes())
        if old == "a":
            header["\ud800"] = header.pop("a")
        else:
            header["__metadata__"][old] = '{"b":"\ud800"}'
        (tmp_path / "m").write_bytes(with_header(header, data))
        with pytest.raises(CheckpointError, match="is damaged") as error:
            read_checkpoint(tmp_path / "m")
        assert str(error.value).isprintable()


def test_names_of_arrays_are_shown_without_what_commands_a_terminal(tmp_path):
    name = "\x1b]0;title\x07\u202e" + "x" * 1000
    write_checkpoint(tmp_path / "m", {}, {name: ARRAYS["a"]})
    header, data = header_of((tmp_path / "m").read_bytes())
    header[name]["shape"] = [2, 2]
    (tmp_path / "m").write_bytes(with_header(header, data))
    with pytest.raises(CheckpointError, match="makes no sense") as error:
        read_checkpoint(tmp_path / "m")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600


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


@pytest.mark.parametrize("length", [0, 1, 500])
def test_a_header_that_is_none_takes_no_memory(tmp_path, length):
    """Of a length of zero the whole file was read as a header, and copied."""
    file = tmp_path / "model"
    write_checkpoint(file, {}, {"a": np.random.default_rng(0).normal(size=10**5)})
    content = file.read_bytes()
    file.write_bytes(length.to_bytes(8, "little") + content[8:])
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            read_checkpoint(file)
        assert tracemalloc.get_traced_memory()[1] < len(content) / 4
    finally:
        tracemalloc.stop()


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
    assert CharRNN.load(tmp_path / "a secret").checkpoint is None
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


#: Changes to what a file of a model holds, under a digest that is right, and what is said of them.
CRAFTED = {
    "class": (lambda c, a: c.update({"class": "Other"}), "it holds a 'Other'"),
    "class of ours": (lambda c, a: c.update({"class": "GRU"}), "a model of GRU, which fastrnn.load reads"),
    "class list": (lambda c, a: c.update({"class": ["CharRNN"]}), "it does not say of which class it is"),
    "version": (lambda c, a: c.update(fastrnn="1.0\x1b[2J"), "is no version of fastrnn"),
    "long version": (lambda c, a: c.update(fastrnn="1" * 200), "is no version of fastrnn"),
    "unknown": (lambda c, a: c["params"].update(unknown="Z"), "unknown must be a character of the vocab"),
    "unknown escape": (lambda c, a: c["params"].update(unknown="\x1b"), "unknown must be a character of"),
    "unknown text": (lambda c, a: c["params"].update(unknown="\x1b[2J"), "unknown must be None"),
    "digest": (lambda c, a: c["progress"].update(sha256="\x1b[2J"), "the progress makes no sense"),
    "digest length": (lambda c, a: c["progress"].update(sha256="a" * 63), "the progress makes no sense"),
    "digest line": (lambda c, a: c["progress"].update(sha256="a" * 64 + "\n"), "the progress makes no"),
    "no params": (lambda c, a: drop(c, "params"), "must have the members class, "),
    "params list": (lambda c, a: c.update(params=[]), "'params' of the file is a list"),
    "place": (lambda c, a: c["params"].update(checkpoint="/etc/passwd"), "names a place to write"),
    "a comm": (lambda c, a: c["params"].update(comm=None), "names those who train it"),
    "no ranks": (lambda c, a: c["progress"].update(ranks=0), "the progress makes no sense"),
    "ranks without end": (lambda c, a: c["progress"].update(ranks=2**63), "the progress makes no sense"),
    "half a rank": (lambda c, a: c["progress"].update(ranks=1.5), "'ranks' of the progress is a float"),
    "no place": (lambda c, a: c["params"].update(checkpoint=None), "names a place to write"),
    "backend": (lambda c, a: c["params"].update(backend="cuda"), "backend must be one of"),
    "backend list": (lambda c, a: c["params"].update(backend=[]), "backend must be one of"),
    "unknown param": (
        lambda c, a: (c["params"].update(x=1), c.update(fastrnn="99.1.dev0")),
        r"not known: 'x' \(fastrnn 99\.1\.dev0 wrote it, this is ",
    ),
    "unknown params": (
        lambda c, a: c["params"].update({f"\x1b{i:0900}": i for i in range(9)}),
        r"0'?\.\.\. and 4 more \(",
    ),
    "missing param": (lambda c, a: drop(c["params"], "hidden_size"), "is not one of this model's"),
    "hidden size": (lambda c, a: c["params"].update(hidden_size=2**40), "is not one of this model's"),
    "hidden size text": (lambda c, a: c["params"].update(hidden_size="8"), "hidden_size must be an integer"),
    "layers": (lambda c, a: c["params"].update(num_layers=2**47), "num_layers = 140737488355328"),
    "dtype": (lambda c, a: c["params"].update(dtype="float64"), "is float32, and dtype = 'float64'"),
    "dtype no Python": (lambda c, a: c["params"].update(dtype="(1,f4"), "hyper-parameters: "),
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
    "generator deep": (lambda c, a: c["random_state"].update(state=deep(50)), "the random state"),
    "generator terminal": (
        lambda c, a: c["random_state"].update(bit_generator="\x1b[2J"),
        "bit_generator must",
    ),
    "last": (lambda c, a: drop(a, "last.weight_out"), "those of another number of layers"),
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
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1500


def test_an_unknown_character_that_older_files_hold_can_be_replaced(fitted, tmp_path):
    file = tmp_path / "m"
    fitted.save(file)
    content, arrays = read_checkpoint(file)
    content["params"]["unknown"] = "Z"
    write_checkpoint(file, content, arrays)
    with pytest.raises(CheckpointError, match="'Z' is not"):
        CharRNN.load(file)
    for unknown in (None, "skip"):
        loaded = CharRNN.load(file, unknown=unknown)
        assert loaded.unknown == unknown
        assert loaded.score(TEXT) == fitted.score(TEXT)


def test_an_unknown_character_that_no_file_may_hold(fitted, tmp_path):
    model = copy.deepcopy(fitted).set_params(unknown="Z")
    with pytest.raises(ValueError, match="unknown must be a character of the vocabulary, and 'Z' is not"):
        model.save(tmp_path / "m")
    with pytest.raises(ValueError, match="unknown must be a character of the vocabulary, and 'Z' is not"):
        model.set_params(checkpoint=tmp_path / "m", epochs=3).fit(TEXT, resume=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(8))
def test_signed_files_with_anything_in_them(fitted, tmp_path, seed):
    """A model, or one line about what is wrong; and a model that was taken can be used and saved."""
    rng = random.Random(seed)
    fitted.save(tmp_path / "whole")
    whole = read_checkpoint(tmp_path / "whole")
    taken = 0
    for _ in range(60):
        content, arrays = copy.deepcopy(whole)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            mutate(rng, content, arrays)
        signed(tmp_path / "m", json.dumps(content), arrays)
        said = ""
        try:
            model = CharRNN.load(tmp_path / "m")
        except CheckpointError as error:
            said = str(error)
        assert said.isprintable()
        assert len(said) < 1500
        if said:
            continue
        taken += 1
        assert repr(model).isprintable()
        model.save(tmp_path / f"again{taken}")
        assert CharRNN.load(tmp_path / f"again{taken}").step_ == model.step_
        if is_finite(tmp_path / "m"):
            assert len(model.generate(3)) == 3
    assert 0 < taken < 30


def test_hyper_parameters_that_came_later_are_in_a_file_only_where_they_matter(fitted, tmp_path):
    """Those who do not know them read all files that do without."""
    run, given = fitted._run, fitted._own_params()
    assert given["newline"] is None
    params = pack(run, given, DEFAULTS)[0]["params"]
    assert params == {name: value for name, value in params.items() if name != "newline"}
    run = dataclasses.replace(run, followed={k: v for k, v in run.followed.items() if k != "newline"})
    for value, there in (("universal", True), ("keep", False)):
        written = pack(run, given | {"newer": value}, DEFAULTS | {"newer": "keep"})[0]["params"]
        assert ("newer" in written) == there
        assert {name: v for name, v in written.items() if name != "newer"} == params


# -- a model that was loaded is nobody's but its user's ----------------------------------------------


def states(*files):
    """What would show that a file was replaced."""
    return [(f.read_bytes(), f.stat().st_mtime_ns, f.stat().st_ino) for f in files]


@pytest.fixture
def kept(tmp_path):
    """A checkpoint of `fit`, and the one before it."""
    file = tmp_path / "own.safetensors"
    CharRNN(
        8, seq_len=8, batch_size=2, epochs=1, random_state=0, verbose=0, backend="numpy", checkpoint=file,
        checkpoint_every=20, unknown="skip",
    ).fit(TEXT)  # fmt: skip
    return file, file.with_name(file.name + ".previous")


@pytest.mark.parametrize("how", ["loaded", "cloned", "copied", "pickled"])
def test_a_model_that_was_loaded_writes_to_no_file(kept, tmp_path, how):
    model = CharRNN.load(kept[0])
    if how == "cloned":
        model = pytest.importorskip("sklearn").base.clone(model)
    elif how == "copied":
        model = copy.deepcopy(model)
    elif how == "pickled":
        model = pickle.loads(pickle.dumps(model))
    assert model.checkpoint is None
    before = states(*kept)
    model.fit("another text, " * 40)
    model.partial_fit("another text. " * 40)
    assert states(*kept) == before
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_search_over_a_model_that_was_loaded_writes_to_no_file(kept, tmp_path):
    pytest.importorskip("sklearn")
    from sklearn.model_selection import GridSearchCV

    before = states(*kept)
    texts = [TEXT[i : i + 100] for i in range(0, 600, 100)]
    search = GridSearchCV(CharRNN.load(kept[0], validation_fraction=0), {"lr": [0.01, 0.001]}, cv=2).fit(
        texts
    )
    assert search.best_estimator_.checkpoint is None
    assert states(*kept) == before
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_run_that_goes_on_is_kept_where_it_is_told_to(kept):
    before = states(*kept)
    for verbose in (0, 1):
        model = CharRNN.load(kept[0], epochs=2, verbose=verbose)
        with pytest.warns(
            UserWarning, match=r"checkpoint is None: nothing .* kept .*, checkpoint=path\)"
        ) as told:
            model.fit(TEXT, resume=True)
        assert [w.filename for w in told] == [__file__]
        assert states(*kept) == before
    again = CharRNN.load(kept[0], epochs=2, checkpoint=kept[0]).fit(TEXT, resume=True)
    assert CharRNN.load(kept[0]).step_ == again.step_ == model.step_
    assert states(kept[1]) != before[1:]


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
    loaded = CharRNN.load(tmp_path / "m", checkpoint=tmp_path / "m").fit(TEXT, resume=True)
    model.fit(TEXT)
    assert loaded.generate(20, random_state=0) == model.generate(20, random_state=0)
