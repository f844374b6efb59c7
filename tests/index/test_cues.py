"""Cues: what is detected in the wording of utterances and questions, with and without punctuation."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoair_index import Document, Index, Query
from memoair_index.cues import Cue, QuestionType, classify_question, detect_cues
from memoair_index.folding import fold


def cues(text: str) -> Cue:
    return detect_cues(fold(text))


@pytest.mark.parametrize("text", ["Yesterday.", "it was two weeks ago", "in the morning", "since 2019", "on TUESDAY"])
def test_a_word_for_a_time_is_a_time_cue(text: str) -> None:
    assert cues(text) & Cue.TIME


@pytest.mark.parametrize(
    "text",
    [
        "No, wait, nine",
        "no wait nine",
        "I meant to say, nine",
        "scratch that",
        "make it ten",
        "not nine but ten",
        "I no longer live there",
        "the red ones instead of blue",
        "I changed my mind",
        "That\N{RIGHT SINGLE QUOTATION MARK}s wrong",
    ],
)
def test_a_correction_is_a_correction_cue(text: str) -> None:
    assert cues(text) & Cue.CORRECTION


@pytest.mark.parametrize("text", ["", "red boots", "Boots", "I want boots", "notwithstanding", "weekly", "everlasting"])
def test_other_utterances_have_no_cue(text: str) -> None:
    assert cues(text) == Cue(0)


@pytest.mark.parametrize(
    ("question", "question_type"),
    [
        ("When did I go?", QuestionType.WHEN),
        ("which year was that", QuestionType.WHEN),
        ("how many boots", QuestionType.HOW_MUCH),
        ("how long did it take", QuestionType.HOW_MUCH),
        ("when, and how often", QuestionType.WHEN | QuestionType.HOW_MUCH),
        ("say when", QuestionType(0)),
        ("", QuestionType(0)),
        ("the boots", QuestionType(0)),
    ],
)
def test_questions_are_classified(question: str, question_type: QuestionType) -> None:
    assert classify_question(fold(question)) == question_type


@pytest.mark.parametrize(
    ("question", "answer", "other", "feature"),
    [
        ("when did the boots come", "boots came yesterday", "boots came blue", "time_word"),
        ("how long did the boots take", "boots took two weeks", "boots took too much", "amount"),
        ("what about the boots", "no wait boots", "a boots thing", "correction"),
    ],
)
def test_a_cue_contributes_to_the_score_of_an_answer(question: str, answer: str, other: str, feature: str) -> None:
    index = Index()
    index.add([Document("other", other, "1"), Document("answer", answer, "2")])
    hits = {hit.document.id: hit for hit in index.search(Query(question), 2)}
    assert hits["answer"].contributions[feature] > 0
    assert feature not in hits["other"].contributions


@given(st.text(st.characters(exclude_categories=())))
@settings(deadline=None)
def test_any_text_is_classified(text: str) -> None:
    assert cues(text) in Cue(7)
    assert classify_question(fold(text)) in QuestionType(7)


@pytest.mark.parametrize(
    "sign", ["not ", "no, ", "wait ", " ", "a", "A ", '"', "how ", "which ", "i mean", ",", "not a"]
)
def test_a_megabyte_is_classified_in_linear_time(sign: str) -> None:
    text = sign * ((1 << 20) // len(sign))
    began_at = time.process_time()
    cues(text)
    classify_question(text)
    assert time.process_time() - began_at < 5
