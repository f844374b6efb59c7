"""Cues: what the form of an utterance tells, and what form of answer a question asks for.

All of it is read without punctuation and capitals where a speech recogniser leaves them out.
"""

import re
from enum import IntFlag


class Cue(IntFlag):
    """What an utterance holds."""

    TIME = 1  # a word for a time
    CORRECTION = 2  # the speaker takes back or puts right what he said


class QuestionType(IntFlag):
    """What a question asks for."""

    WHEN = 1
    HOW_MUCH = 2  # how many, how long, how often


_TIME_WORD = re.compile(
    r"\b(?:yesterday|today|tomorrow|tonight|last|next|ago|weeks?|weekend|months?|years?|(?:mon|tues|wednes|thurs|fri|satur"
    r"|sun)day|january|february|march|april|may|june|july|august|september|october|november|december|morning|evening"
    r"|night|recently|since|(?:19|20)\d\d)\b"
)
_CORRECTION_PHRASE = re.compile(
    r"\b(?:no,? wait|wait,? no|i mean(?:t)?(?: to say)?(?=,)|i said|scratch that|make (?:it|that)|correction|my mistake"
    r"|let me correct|not \w+,? but|no longer|not any ?more|instead of|changed (?:it|my mind)|that's wrong"
    r"|i misspoke)\b"
)
_ASKS_WHEN = re.compile(r"^\W*when\b|\b(?:what|which) (?:date|day|year|month)\b")
_ASKS_HOW_MUCH = re.compile(r"\bhow (?:many|long|much|often|old)\b")


def detect_cues(folded: str) -> Cue:
    """The cues of a folded utterance."""
    cues = Cue(0)
    if _TIME_WORD.search(folded):
        cues |= Cue.TIME
    if _CORRECTION_PHRASE.search(folded):
        cues |= Cue.CORRECTION
    return cues


def classify_question(question: str) -> QuestionType:
    """What a folded question asks for."""
    question_type = QuestionType(0)
    if _ASKS_WHEN.search(question):
        question_type |= QuestionType.WHEN
    if _ASKS_HOW_MUCH.search(question):
        question_type |= QuestionType.HOW_MUCH
    return question_type
