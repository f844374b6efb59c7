"""Sentences and passages: joined they are the text, whatever it is, and splitting takes linear time."""

# ruff: noqa: RUF001 - some marks of other scripts look like ASCII ones

import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memoair_index import split_passages, split_sentences

ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.text(
    " \n\t.!?…\"')]。？।؟aé\N{NO-BREAK SPACE}\u2028", max_size=80
)


@given(ANY_TEXT)
@settings(deadline=None)
def test_joined_sentences_are_the_text(text: str) -> None:
    assert "".join(split_sentences(text)) == text
    assert all(split_sentences(text))


@given(ANY_TEXT, st.integers(1, 40))
@example("a" * 41, 1)
@example(" " * 90, 7)
@settings(deadline=None)
def test_joined_passages_are_the_text_and_none_is_too_long(text: str, size: int) -> None:
    passages = split_passages(text, size)
    assert "".join(passages) == text
    assert all(len(passage) <= size for passage in passages)
    assert all(passages) or text == ""
    assert passages


@given(
    st.lists(st.sampled_from(["One.", "And two?", "Three more words!"]), min_size=1, max_size=12), st.integers(18, 60)
)
@settings(deadline=None)
def test_sentences_that_fit_are_not_split(said: list[str], size: int) -> None:
    expected = [f"{sentence} " for sentence in said]
    assert split_sentences("".join(expected)) == expected
    passages = split_passages("".join(expected), size)
    assert [sentence for passage in passages for sentence in split_sentences(passage)] == expected
    # No passage has space for the sentence after it.
    assert all(len(passage) + len(split_sentences(next_)[0]) > size for passage, next_ in pairwise(passages))


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
def test_a_sentence_ends_after_its_end_mark(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


def test_a_short_text_is_one_passage_and_a_long_word_is_split() -> None:
    assert split_passages("") == [""]
    assert split_passages("One. Two.") == ["One. Two."]
    assert split_passages("b" * 10, 4) == ["bbbb", "bbbb", "bb"]
    assert split_passages("some longer words here", 12) == ["some longer ", "words here"]


@pytest.mark.parametrize(
    "sign", [" ", "\n", "\t", ".", "!?", ". ", '."', "'", ")", "。", "b", "é", "word ", "Word. ", "\ud800"]
)
def test_a_megabyte_is_split_in_linear_time(sign: str) -> None:
    text = sign * ((1 << 20) // len(sign))
    began_at = time.process_time()
    passages = split_passages(text)
    # It takes a thirtieth of this; an algorithm of quadratic time would take minutes.
    assert time.process_time() - began_at < 20
    assert "".join(passages) == text
