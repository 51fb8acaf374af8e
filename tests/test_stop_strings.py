"""Strings that end a sample, in pieces as they come, against a plain search after every character."""

import hypothesis
import pytest
from hypothesis import strategies as st

from fastrnn.text.stop_strings import StopStrings, check_stop

letters = st.sampled_from("ab")


def plain(text, strings):
    """The sample, and whether it was ended: look after every character for the longest one."""
    for end in range(1, len(text) + 1):
        complete = [string for string in strings if text[:end].endswith(string)]
        if complete:
            return text[: end - len(max(complete, key=len))], True
    return text, False


def held(text, strings):
    """How many characters may still belong to one of them."""
    return max(
        (k for s in strings for k in range(1, len(s)) if text.endswith(s[:k])),
        default=0,
    )


@hypothesis.given(
    st.lists(st.text(letters, max_size=5), max_size=12),
    st.lists(st.text(letters, min_size=1, max_size=6), max_size=3),
)
@hypothesis.settings(max_examples=200)
def test_it_is_the_plain_search_and_holds_back_no_more_than_it_must(pieces, strings):
    stop, got, read = StopStrings(tuple(strings)), "", ""
    for piece in pieces:
        got += stop.take(piece)
        read += piece
        sample, ended = plain(read, strings)
        assert stop.found == ended
        assert got == (sample if ended else read[: len(read) - held(read, strings)])
    assert got + stop.rest() == plain(read, strings)[0]
    assert "".join(StopStrings(tuple(strings)).cut(pieces)) == plain(read, strings)[0]


def test_no_piece_is_asked_for_after_the_end():
    asked = []

    def pieces():
        for piece in ("one ", "two. ", "three"):
            asked.append(piece)
            yield piece

    assert "".join(StopStrings((". ",)).cut(pieces())) == "one two"
    assert asked == ["one ", "two. "]


def test_a_long_string_of_one_letter():
    stop = StopStrings(("a" * 3000 + "b",))
    assert stop.take("a" * 5000) == "a" * 2000
    assert stop.take("b") == ""
    assert stop.found


@pytest.mark.parametrize(
    ("stop", "error", "said"),
    [
        ("", ValueError, "stop must not be empty"),
        (["a", ""], ValueError, r"stop\[1\] must not be empty"),
        (b"a", TypeError, "stop must be a str, a sequence of str or None, got bytes"),
        (3, TypeError, "stop must be .* got int"),
        ({"a"}, TypeError, "stop must be .* got set"),
        (["a", None], TypeError, r"stop\[1\] must be a str, got NoneType"),
    ],
)
def test_wrong_strings(stop, error, said):
    with pytest.raises(error, match=said):
        check_stop(stop)
