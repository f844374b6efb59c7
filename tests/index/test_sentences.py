"""Sentences and passages: put together they are the text, whatever it is, and no text takes long."""

# ruff: noqa: RUF001 - the marks of other scripts look like ours

import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memoair_index import passages, sentences

ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.text(
    " \n\t.!?…\"')]。？।؟aé\N{NO-BREAK SPACE}\u2028", max_size=80
)


@given(ANY_TEXT)
@settings(deadline=None)
def test_the_sentences_of_a_text_put_together_are_the_text(text: str) -> None:
    assert "".join(sentences(text)) == text
    assert all(sentences(text))


@given(ANY_TEXT, st.integers(1, 40))
@example("a" * 41, 1)
@example(" " * 90, 7)
@settings(deadline=None)
def test_the_passages_of_a_text_put_together_are_the_text_and_none_is_too_long(text: str, size: int) -> None:
    pieces = passages(text, size)
    assert "".join(pieces) == text
    assert all(len(piece) <= size for piece in pieces)
    assert all(pieces) or text == ""
    assert pieces


@given(
    st.lists(st.sampled_from(["One.", "And two?", "Three more words!"]), min_size=1, max_size=12), st.integers(18, 60)
)
@settings(deadline=None)
def test_sentences_that_fit_are_never_cut(said: list[str], size: int) -> None:
    whole = [f"{each} " for each in said]
    assert sentences("".join(whole)) == whole
    pieces = passages("".join(whole), size)
    assert [sentence for piece in pieces for sentence in sentences(piece)] == whole
    # No passage could have taken the sentence behind it.
    assert all(len(one) + len(sentences(next_)[0]) > size for one, next_ in pairwise(pieces))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("No mark", ["No mark"]),
        ("It was 3.50, e.g. this", ["It was 3.50, e.g. ", "this"]),
        ('He said "no." Then he left...  Why?!', ['He said "no." ', "Then he left...  ", "Why?!"]),
        ("a line\n\n another", ["a line\n\n ", "another"]),
        ("你好。再见！", ["你好。", "再见！"]),
        ("क्या? नहीं। ठीक", ["क्या? ", "नहीं। ", "ठीक"]),
        ("هل هذا؟ نعم", ["هل هذا؟ ", "نعم"]),
    ],
)
def test_a_sentence_ends_at_its_mark(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_a_short_text_is_one_passage_and_a_long_word_is_cut() -> None:
    assert passages("") == [""]
    assert passages("One. Two.") == ["One. Two."]
    assert passages("b" * 10, 4) == ["bbbb", "bbbb", "bb"]
    assert passages("some longer words here", 12) == ["some longer ", "words here"]


@pytest.mark.parametrize(
    "sign", [" ", "\n", "\t", ".", "!?", ". ", '."', "'", ")", "。", "b", "é", "word ", "Word. ", "\ud800"]
)
def test_a_megabyte_of_anything_is_cut_in_little_time(sign: str) -> None:
    text = sign * ((1 << 20) // len(sign))
    begin = time.process_time()
    pieces = passages(text)
    # A thirtieth of it is what it takes; one that takes the square of the length would take minutes.
    assert time.process_time() - begin < 20
    assert "".join(pieces) == text
