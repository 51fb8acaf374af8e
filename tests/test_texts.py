"""Texts of any length as class indices, what they may come as, and the vocabulary."""

import bz2
import codecs
import copy
import errno
import gzip
import hashlib
import io
import lzma
import pickle
import re
import tempfile
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from fastrnn.text import reading as texts
from fastrnn.text.reading import TextError, index_text, named_file, read_text
from fastrnn.text.vocabulary import Vocabulary

TEXTS = {
    "ascii": "hello, world\r\n" * 50,
    "latin": "naïve café ÿ\x80\x7f",
    "wide": "текст 世界 🐍 \U0010ffff\x00\x01" * 30,
    "mark": "a\ufeffb",
    "256": "".join(map(chr, range(256))),
    "257": "".join(map(chr, range(257))) * 2,
    "many": "".join(map(chr, range(0x4E00, 0x4E00 + 5000))) + "plain ascii at the end",
    "all": "".join(map(chr, [*range(0xD7FF), *range(0xE000, 0x11000)])),
}
ALL = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)


class Column:
    """As a Series of pandas or polars: of one dimension, and no `Sequence`."""

    def __init__(self, parts):
        self._parts = parts
        self.shape = (len(parts),)

    def __iter__(self):
        return iter(self._parts)


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
    check(index_text(text.encode()), text)


@ALL
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_chunks_that_cut_characters_and_a_small_store(tmp_path, monkeypatch, text, chunk):
    text = text[:400] + text[-400:]
    monkeypatch.setattr(texts, "CHUNK", 4 * chunk if chunk > 3 else chunk)
    monkeypatch.setattr(texts._Store, "_blocks", lambda self: whole_blocks(self, chunk))
    monkeypatch.setattr(texts, "SPILL", 100)
    monkeypatch.setattr(texts, "HEAD", 3)
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
        patch.setattr(texts, "HEAD", 3)
        patch.setattr(texts._Store, "_blocks", lambda self: whole_blocks(self, chunk))
        check(index_text(parts), whole)
        files = [io.BytesIO(codecs.BOM_UTF8 + part.encode()) for part in parts]
        check(index_text(files), whole)
        check(index_text(np.array(parts, object)), whole)
        check(index_text(Column(parts)), whole)


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
        ("äöü".encode() * 9 + b"\xf0\x9fabc", "byte 0xf0 at offset 54 "),
        (codecs.BOM_UTF8 + "ä".encode() * 9 + b"a\xffb", "byte 0xff at offset 22 "),
        (b"abcde\xe9 more", "byte 0xe9 at offset 5 "),
        ("äöü".encode() + b"\xf0\x9f\x90", "byte 0xf0 at offset 6 "),
        ("äöü".encode() + b"\xf0\x9fabc", "byte 0xf0 at offset 6 "),
        ("a text".encode("utf-16"), "byte 0xff at offset 0 "),
        (b"ab\xed\xa0\x80", "byte 0xed at offset 2 "),  # a surrogate in UTF-8
    ],
)
def test_the_offset_of_what_is_not_utf8(tmp_path, monkeypatch, content, said, chunk):
    monkeypatch.setattr(texts, "CHUNK", chunk)
    monkeypatch.setattr(texts, "HEAD", 3)
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
    ("text", "said"),
    [
        (3, "text must be .* or a sequence of these, got int"),
        (None, "text .* got NoneType"),
        ({"a": 1}, "text .* got dict"),
        ((part for part in "ab"), "text .* got generator"),
        (np.array("abc"), r"text .* got ndarray of shape \(\)"),
        (np.array([["a", "b"]]), r"text .* got ndarray of shape \(1, 2\)"),
        ([1, 2], r"text\[0\] .* got int 1"),
        (["a", None], r"text\[1\] .* got NoneType None"),
        (np.array(["a", "b", float("nan")], object), r"text\[2\] .* got float nan"),
        (np.frombuffer(b"abc", np.uint8), r"text\[0\] .* got uint8"),
    ],
)
def test_what_is_no_text(text, said):
    with pytest.raises(TypeError, match=said) as error:
        index_text(text)
    assert "must be a str, bytes, a pathlib.Path" in str(error.value)


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
        skip = 'unknown="skip" leaves such characters out$'
        with pytest.raises(
            TextError, match=rf"not in the vocabulary of 2 characters: '\\n', 'x', '世'; {skip}"
        ):
            encode("ax世b\nx")
        with pytest.raises(TextError, match=rf"'c', 'd', .* and 14 more; {skip}"):
            encode("abcdefghijklmnopqrstuvwxyz")
        with pytest.raises(TextError, match=rf"'\\n', '\\r'; {skip}"):
            encode("a\r\nb")


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


# -- what a file begins with -----------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1000])
def test_a_byte_order_mark_is_no_letter(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(texts, "CHUNK", chunk)
    content = codecs.BOM_UTF8 + "naïve".encode()
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(content)
    two.write_bytes(content)
    for text in (one, io.BytesIO(content), content, bytearray(content), memoryview(content)):
        check(index_text(text), "naïve")
    check(index_text([one, two, content]), "naïve" * 3)
    assert read_text(str(one)) == ("naïve", True)
    assert [read_text(str(one), limit)[0] for limit in (0, 1, 2, 3, 4)] == ["", "", "", "", "n"]
    one.write_bytes(codecs.BOM_UTF8)
    check(index_text([one, b"ab"]), "ab")
    assert read_text(str(one)) == ("", True)


def test_only_the_first_mark_of_a_file_and_none_of_a_str_is_left_out():
    check(index_text("\ufeffab"), "\ufeffab")
    check(index_text(("\ufeff\ufeffa\ufeff").encode()), "\ufeffa\ufeff")


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("book.txt", "It was a dark and stormy night. " * 99)
    return file.getvalue()


TEXT_OF_A_BOOK = "Ein süßer Hund.\r\n" * 20
KINDS = {
    "utf-16": (TEXT_OF_A_BOOK.encode("utf-16"), "like UTF-16 text: .*iconv -f UTF-16 -t UTF-8 IN > OUT$"),
    "utf-16 big": (codecs.BOM_UTF16_BE + TEXT_OF_A_BOOK.encode("utf-16-be"), "like UTF-16 text: .*iconv -f UTF-16 "),
    "utf-32": (TEXT_OF_A_BOOK.encode("utf-32"), "like UTF-32 text: .*iconv -f UTF-32 -t UTF-8 IN > OUT$"),
    "utf-32 big": (codecs.BOM_UTF32_BE + TEXT_OF_A_BOOK.encode("utf-32-be"), "UTF-32 text: .*iconv -f UTF-32 "),
    "no mark": (TEXT_OF_A_BOOK.encode("utf-16-le"), "UTF-16LE text: .*iconv -f UTF-16LE -t UTF-8 IN > OUT$"),
    "no mark big": (TEXT_OF_A_BOOK.encode("utf-16-be"), "UTF-16BE text: .*iconv -f UTF-16BE -t UTF-8 IN > OUT$"),
    "gzip": (gzip.compress(b"text"), "like a gzip file: unpack it with: gunzip -c IN > OUT$"),
    "bzip2": (bz2.compress(b"text" * 99), "like a bzip2 file: unpack it with: bunzip2 -c"),
    "xz": (lzma.compress(b"text"), "like an xz file: unpack it with: xz -dc"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04\x58\x21\0\0text", "like a Zstandard file: unpack it with: zstd -dc"),
    "zip": (zipped(), "like a zip file "),
    "pdf": (b"%PDF-1.7\n%\xb5\xb5\xb5\xb5\n1 0 obj", "like a PDF document: .*pdftotext"),
    "latin-1": (TEXT_OF_A_BOOK.encode("latin-1"), "another encoding .*: iconv -f WINDOWS-1252 -t UTF-8 IN > OUT$"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "said"), KINDS.values(), ids=KINDS)
def test_files_that_are_not_utf8_are_recognised(tmp_path, monkeypatch, content, said):
    file = tmp_path / "text"
    file.write_bytes(content)
    calls = [lambda: read_text(str(file)), lambda: index_text(file)]
    for chunk in (2, 1 << 20):
        monkeypatch.setattr(texts, "CHUNK", chunk)
        for call in (*calls, lambda: index_text(content), lambda: index_text(["a", content])):
            with pytest.raises(TextError, match=said) as error:
                call()
            assert re.search(r"is not UTF-8 text: byte 0x\w\w at offset \d+ \(", str(error.value))


@pytest.mark.parametrize("begin", ["PK\x03\x04", "%PDF-", "BZh9", "\0", "a\0b\0", "\0" * 20])
def test_a_text_may_begin_as_it_likes(begin):
    text = begin + "and more"
    check(index_text(text.encode()), text)


@pytest.mark.parametrize(("encoding", "named"), [("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE")])
def test_utf16_of_ascii_without_a_mark_is_a_warning(tmp_path, encoding, named):
    text = "nothing but ASCII"
    file = tmp_path / "text"
    file.write_bytes(text.encode(encoding))
    for call in (lambda: index_text(file).vocabulary, lambda: read_text(str(file))):
        with pytest.warns(
            UserWarning, match=rf"text' is read as UTF-8, .* it looks like {named} text; .* -f {named} "
        ):
            assert "\0" in call()[0]


def test_which_element_is_not_utf8():
    with pytest.raises(TextError, match=r"^text\[1\] is not UTF-8 text: byte 0xff at offset 3 "):
        index_text(["ab", b"abc\xff"])
    with pytest.raises(
        TextError, match=r"^the text is not UTF-8 text: byte 0xc3 at offset 1 .*unexpected end"
    ):
        index_text(b"a\xc3")
    with pytest.raises(TextError, match=r"^text\[1\] holds U\+D83D at position 2: half"):
        index_text(["ab", "ab\ud83d"])


# -- line ends -------------------------------------------------------------------------------------


@hypothesis.given(
    st.lists(st.text(st.sampled_from("a\r\nü"), max_size=12), max_size=4), st.integers(1, 5), st.booleans()
)
def test_universal_line_ends_wherever_pieces_are_cut(parts, chunk, as_bytes):
    wanted = "xy" + io.StringIO("".join(parts), newline=None).read()
    parts = ["xy", *parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "CHUNK", chunk)
        patch.setattr(texts, "HEAD", 3)
        patch.setattr(texts._Store, "_blocks", lambda self: whole_blocks(self, chunk))
        check(index_text([p.encode() for p in parts] if as_bytes else parts, newline="universal"), wanted)
        check(index_text(io.BytesIO("".join(parts).encode()), newline="universal"), wanted)


def test_line_ends_are_kept_unless_it_is_asked_for(tmp_path):
    file = tmp_path / "text"
    file.write_bytes("eins\r\nzwei\rdrei\nfünf\r".encode())
    assert read_text(str(file))[0] == "eins\r\nzwei\rdrei\nfünf\r"
    assert read_text(str(file), newline="universal") == ("eins\nzwei\ndrei\nfünf\n", True)
    assert read_text(str(file), 5, newline="universal") == ("eins\n", False)
    check(index_text(file), "eins\r\nzwei\rdrei\nfünf\r")
    vocabulary = Vocabulary("ab\n")
    np.testing.assert_array_equal(
        vocabulary.encode("a\r\nb\r", newline="universal"), vocabulary.encode("a\nb\n")
    )
    for call in (lambda n: index_text("ab", newline=n), lambda n: read_text(str(file), newline=n),
                 lambda n: vocabulary.encode("ab", newline=n)):  # fmt: skip
        with pytest.raises(ValueError, match="newline must be one of 'universal', None, got 'unix'"):
            call("unix")


def test_the_offset_of_what_is_not_utf8_counts_every_byte(monkeypatch):
    monkeypatch.setattr(texts, "CHUNK", 3)
    with pytest.raises(TextError, match="byte 0xff at offset 24 "):
        index_text(b"a\r\nb\r\nc\r\n" * 2 + b"abcd\r\n\xff", newline="universal")


def test_an_unknown_carriage_return_names_the_setting_for_line_ends():
    vocabulary = Vocabulary("ab\n")
    for encode in (vocabulary.encode, lambda text: index_text(text, vocabulary=vocabulary)):
        with pytest.raises(TextError) as error:
            encode("a\r\nx")
        assert str(error.value) == (
            r"not in the vocabulary of 3 characters: '\r', 'x'; newline="
            r""""universal" reads '\r\n' and '\r' as '\n'; unknown="skip" leaves such characters out"""
        )
        assert error.value.with_options() == (
            r"not in the vocabulary of 3 characters: '\r', 'x'; --newline "
            r"universal reads '\r\n' and '\r' as '\n'; --unknown skip leaves such characters out"
        )
        for same in (copy.copy(error.value), pickle.loads(pickle.dumps(error.value))):
            assert (str(same), same.with_options()) == (str(error.value), error.value.with_options())


# -- columns of tables, and names of files ---------------------------------------------------------


def test_a_series_of_pandas():
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(["ab", "cü", "d"], index=[7, 7, 2])
    for column in (
        series,
        series.astype(object),
        series.astype("string"),
        series.astype("category"),
        series.index.map(str),
    ):
        check(index_text(column), "".join(column))
    check(index_text(pandas.Series([b"ab", "c"])), "abc")
    for missing in (None, float("nan"), pandas.NA):
        with pytest.raises(TypeError, match=r"text\[1\] must be a str, .* got "):
            index_text(pandas.Series(["ab", missing, "c"], dtype=object))
        with pytest.raises(TypeError, match=r"text\[1\] must be a str, .* got "):
            index_text(pandas.Series(["ab", missing, "c"], dtype="string"))
    with pytest.raises(TypeError, match=r"text must be .* got DataFrame of shape \(3, 1\)"):
        index_text(series.to_frame())


def test_named_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("abc", encoding="utf-8")
    Path("folder").mkdir()
    for text in ("book.txt", str(tmp_path / "book.txt"), ["book.txt", "more"], np.array(["book.txt"]),
                 Column(["book.txt"])):  # fmt: skip
        assert named_file(text) == (text if isinstance(text, str) else "book.txt")
    for text in ("folder", "other.txt", "", "book.txt\n", "book.txt\0", "x" * 300, "x" * 4096, "\ud800", "a" * 10**6,
                 "//machine/share/book.txt", r"\\machine\share\book.txt", Path("book.txt"), b"book.txt", [], [3], 3,
                 io.BytesIO(b"book.txt"), None, iter(["book.txt"])):  # fmt: skip
        assert named_file(text) is None


def test_no_long_text_is_taken_for_a_name(monkeypatch):
    def refuse(name):
        raise AssertionError(name)

    monkeypatch.setattr("os.path.isfile", refuse)
    for text in ("x" * 4096, "two\nlines", "nul\0", r"\\machine\share", "//machine/share"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert named_file(text) is None
