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


_TIME = re.compile(
    r"\b(?:yesterday|today|tomorrow|tonight|last|next|ago|weeks?|weekend|months?|years?|(?:mon|tues|wednes|thurs|fri|satur"
    r"|sun)day|january|february|march|april|may|june|july|august|september|october|november|december|morning|evening"
    r"|night|recently|since|(?:19|20)\d\d)\b"
)
_CORRECTION = re.compile(
    r"\b(?:no,? wait|wait,? no|i mean(?:t)?(?: to say)?(?=,)|i said|scratch that|make (?:it|that)|correction|my mistake"
    r"|let me correct|not \w+,? but|no longer|not any ?more|instead of|changed (?:it|my mind)|that's wrong"
    r"|i misspoke)\b"
)
_WHEN = re.compile(r"^\W*when\b|\b(?:what|which) (?:date|day|year|month)\b")
_HOW_MUCH = re.compile(r"\bhow (?:many|long|much|often|old)\b")


def cues_of(folded: str) -> Cue:
    """The cues of a folded utterance."""
    cues = Cue(0)
    if _TIME.search(folded):
        cues |= Cue.TIME
    if _CORRECTION.search(folded):
        cues |= Cue.CORRECTION
    return cues


def question_type(question: str) -> QuestionType:
    """What a folded question asks for."""
    asked = QuestionType(0)
    if _WHEN.search(question):
        asked |= QuestionType.WHEN
    if _HOW_MUCH.search(question):
        asked |= QuestionType.HOW_MUCH
    return asked
