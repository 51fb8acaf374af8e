"""Texts of any length as class indices, and the vocabulary."""

import copy
import errno
import hashlib
import io
import pickle
import tempfile
import tracemalloc
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from fastrnn import texts
from fastrnn.texts import TextError, index_text
from fastrnn.vocabulary import Vocabulary

TEXTS = {
    "ascii": "hello, world\r\n" * 50,
    "latin": "naïve café ÿ\x80\x7f",
    "wide": "текст 世界 🐍 \U0010ffff\x00\x01" * 30,
    "mark": "\ufeffab",
    "256": "".join(map(chr, range(256))),
    "257": "".join(map(chr, range(257))) * 2,
    "many": "".join(map(chr, range(0x4E00, 0x4E00 + 5000))) + "plain ascii at the end",
    "all": "".join(map(chr, [*range(0xD7FF), *range(0xE000, 0x11000)])),
}
ALL = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)

no_surrogates = st.characters(exclude_categories=["Cs"])


def check(indexed, text):
    assert list(indexed.vocabulary) == sorted(set(text))
    assert indexed.vocabulary.decode(indexed.indices) == text
    assert indexed.sha256 == hashlib.sha256(text.encode()).hexdigest()
    q = len(indexed.vocabulary)
    assert indexed.indices.dtype == (np.uint8 if q <= 256 else np.uint16 if q <= 65536 else np.uint32)
    assert not indexed.indices.flags.writeable


@ALL
def test_a_str_and_a_file_give_the_text_back(tmp_path, text):
    file = tmp_path / "text"
    file.write_bytes(text.encode())
    check(index_text(text), text)
    check(index_text(file), text)
    check(index_text(io.BytesIO(text.encode())), text)


@ALL
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_chunks_that_cut_characters_and_a_small_store(tmp_path, monkeypatch, text, chunk):
    text = text[:400] + text[-400:]
    monkeypatch.setattr(texts, "CHUNK", 4 * chunk if chunk > 3 else chunk)
    monkeypatch.setattr(texts._Store, "_blocks", lambda self: whole_blocks(self, chunk))
    monkeypatch.setattr(texts, "SPILL", 100)
    file = tmp_path / "text"
    file.write_bytes(text.encode())
    check(index_text(file), text)
    check(index_text(text), text)


def whole_blocks(store, chunk):
    """Blocks of the store whose size the items divide."""
    step = chunk * store.itemsize
    for position in range(0, store.size, step):
        store._file.seek(position)
        yield np.frombuffer(store._file.read(step), store.dtype)


def test_more_characters_than_two_bytes_count():
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x10000 + 5000)]))
    check(index_text(text), text)
    assert index_text(text).indices.dtype == np.uint32


@hypothesis.given(st.lists(st.text(no_surrogates, max_size=20), max_size=5), st.integers(1, 9))
def test_a_sequence_is_one_text(parts, chunk):
    whole = "".join(parts)
    hypothesis.assume(len(set(whole)) >= 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "CHUNK", chunk)
        patch.setattr(texts._Store, "_blocks", lambda self: whole_blocks(self, chunk))
        check(index_text(parts), whole)
        check(index_text([io.BytesIO(part.encode()) for part in parts]), whole)
        check(index_text(np.array(parts, object)), whole)


def test_each_file_of_a_sequence_is_whole_characters(tmp_path):
    whole = "aü".encode()
    (tmp_path / "1").write_bytes(whole[:2])
    (tmp_path / "2").write_bytes(whole[2:])
    with pytest.raises(TextError, match=r"1' is not UTF-8 text: byte 0xc3 at offset 1 .*unexpected end"):
        index_text([tmp_path / "1", tmp_path / "2"])


@pytest.mark.parametrize("chunk", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"ab\xffc", "byte 0xff at offset 2 "),
        (b"abcde\xe9 more", "byte 0xe9 at offset 5 "),
        ("äöü".encode() + b"\xf0\x9f\x90", "byte 0xf0 at offset 6 "),
        ("äöü".encode() + b"\xf0\x9fabc", "byte 0xf0 at offset 6 "),
        ("a text".encode("utf-16"), "byte 0xff at offset 0 "),
        (b"ab\xed\xa0\x80", "byte 0xed at offset 2 "),  # a surrogate in UTF-8
    ],
)
def test_the_offset_of_what_is_not_utf8(tmp_path, monkeypatch, content, said, chunk):
    monkeypatch.setattr(texts, "CHUNK", chunk)
    file = tmp_path / "text"
    file.write_bytes(content)
    with pytest.raises(TextError, match=said):
        index_text(file)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_half_of_a_surrogate_pair_is_refused(monkeypatch, chunk):
    monkeypatch.setattr(texts, "CHUNK", chunk)
    with pytest.raises(TextError, match=r"U\+D83D at position 4: half of a surrogate pair"):
        index_text("abcd\ud83dx")


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "empty"), ([], "empty"), (["", ""], "empty"), ("a", "only 'a', 1 times"), ("\n" * 9, r"'\\n', 9"),
     ("世" * 300, "'世', 300 times")],
)  # fmt: skip
def test_a_text_with_nothing_to_predict_is_refused(text, said):
    with pytest.raises(TextError, match=said):
        index_text(text)


@pytest.mark.parametrize(
    "text", [b"abc", bytearray(b"abc"), np.array("abc"), 3, None, {"a": 1}, [1, 2], ["a", None]]
)
def test_what_is_no_text(text):
    with pytest.raises(TypeError, match=r"must be a str, a pathlib\.Path"):
        index_text(text)


def test_a_file_in_text_mode_is_refused():
    with pytest.raises(TypeError, match="binary mode: it gave str"):
        index_text(io.StringIO("abc"))


@pytest.mark.parametrize("path", ["missing", ".", "nul\0character", "x" * 5000])
def test_which_file_cannot_be_read(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TextError, match=f"cannot read {path!r}: .".replace("\\", r"\\")):
        index_text(Path(path))


@pytest.mark.parametrize("file", [False, True], ids=["str", "file"])
@pytest.mark.parametrize(("unknown", "wanted"), [("skip", "abéba"), ("a", "aabaéaaba"), ("é", "éabééééba")])
def test_unknown_characters(file, unknown, wanted):
    text = "xab世éñyba"
    vocabulary = Vocabulary("abé")
    indexed = index_text(io.BytesIO(text.encode()) if file else text, vocabulary=vocabulary, unknown=unknown)
    assert vocabulary.decode(indexed.indices) == wanted
    np.testing.assert_array_equal(vocabulary.encode(text, unknown), indexed.indices)


def test_unknown_characters_are_named():
    vocabulary = Vocabulary("ab")
    for encode in (vocabulary.encode, lambda text: index_text(text, vocabulary=vocabulary)):
        with pytest.raises(TextError, match=r"not in the vocabulary of 2 characters: '\\n', 'x', '世'$"):
            encode("ax世b\nx")
        with pytest.raises(TextError, match=r"'c', 'd', .* and 14 more$"):
            encode("abcdefghijklmnopqrstuvwxyz")


@pytest.mark.parametrize("unknown", ["", "xy", 3, b"a"])
def test_a_wrong_policy(unknown):
    with pytest.raises(ValueError, match='unknown must be None, "skip" or one character, got'):
        index_text("ab", vocabulary=Vocabulary("ab"), unknown=unknown)
    with pytest.raises(ValueError, match='unknown must be None, "skip" or one character, got'):
        Vocabulary("ab").encode("abc", unknown)


def test_the_character_in_place_of_unknown_ones_must_be_known():
    with pytest.raises(ValueError, match="unknown must be a character of the vocabulary, and 'z' is not"):
        index_text("ab", vocabulary=Vocabulary("ab"), unknown="z")


def test_vocabulary():
    vocabulary = Vocabulary("世ba\n")
    assert vocabulary.characters == "\nab世"
    assert (len(vocabulary), vocabulary[3], list(vocabulary)) == (4, "世", ["\n", "a", "b", "世"])
    assert "a" in vocabulary
    assert all(other not in vocabulary for other in ("ab", "", "c", 1))
    assert vocabulary == Vocabulary("\nab世") != Vocabulary("ab")
    assert vocabulary != "\nab世"
    assert hash(vocabulary) == hash(Vocabulary("\nab世"))
    assert pickle.loads(pickle.dumps(vocabulary)) == copy.deepcopy(vocabulary) == vocabulary
    assert repr(vocabulary) == r"Vocabulary('\nab世')"
    assert vocabulary.encode("").shape == (0,)
    assert vocabulary.decode([]) == ""


@pytest.mark.parametrize(
    ("characters", "error", "said"),
    [
        ("aba", TextError, "'a' more than once"),
        ("a", TextError, "at least two characters"),
        ("", TextError, "at least two"),
        ("a\ud800", TextError, r"U\+D800"),
        (["a"], TypeError, "got list"),
    ],
)
def test_what_is_no_vocabulary(characters, error, said):
    with pytest.raises(error, match=said):
        Vocabulary(characters)


def test_decode_refuses_what_is_out_of_bounds():
    for index in (-1, 2):
        with pytest.raises(IndexError):
            Vocabulary("ab").decode([0, index])
    with pytest.raises(TypeError, match="text must be a str, got bytes"):
        Vocabulary("ab").encode(b"a")


def test_a_long_file_stays_out_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "SPILL", 1 << 20)
    file = tmp_path / "long"
    block = ("The quick brown fox jumps over the lazy dog. " * 2000).encode()
    with file.open("wb") as out:
        for _ in range(220):
            out.write(block)
    size = file.stat().st_size
    assert size > 19_000_000
    tracemalloc.start()
    indexed = index_text(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(indexed.indices) == size
    assert peak < 14_000_000  # the table over all code points, a few chunks, the small store
    assert indexed.vocabulary.decode(indexed.indices[-20:]) == "over the lazy dog. "[-19:].rjust(20)
    before = indexed.indices[:100].copy()
    file.unlink()
    np.testing.assert_array_equal(indexed.indices[:100], before)


def test_no_room_for_the_index(monkeypatch):
    class Full:
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(texts, "SPILL", 10)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: Full())
    with pytest.raises(OSError, match="TMPDIR names: No space left on device") as error:
        index_text("ab" * 10)
    assert error.value.errno == errno.ENOSPC
