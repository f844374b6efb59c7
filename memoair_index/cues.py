"""Cues: what the wording of an utterance signals, and which kind of answer a question asks for.

All patterns match folded text and need no punctuation or capitals, because a speech recognizer leaves them out.
"""

import re
from enum import IntFlag


class Cue(IntFlag):
    """What an utterance contains."""

    TIME = 1  # a word for a time
    CORRECTION = 2  # the speaker takes back or corrects something


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
    """Return the cues in a folded utterance."""
    cues = Cue(0)
    if _TIME_WORD.search(folded):
        cues |= Cue.TIME
    if _CORRECTION_PHRASE.search(folded):
        cues |= Cue.CORRECTION
    return cues


def classify_question(folded: str) -> QuestionType:
    """Return what a folded question asks for."""
    question_type = QuestionType(0)
    if _ASKS_WHEN.search(folded):
        question_type |= QuestionType.WHEN
    if _ASKS_HOW_MUCH.search(folded):
        question_type |= QuestionType.HOW_MUCH
    return question_type
