"""What a caller states of themselves in the turns of a call, for facts that a language model suggests.

What the rules do not learn from, a model's fact is refused for, too: the same expressions decide here. In languages
without rules, `foreign_words` takes their place.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache

import attrs

from memoair_cloud.consolidation.clauses import find_statements, is_announcement
from memoair_cloud.consolidation.foreign_words import (
    DOUBT,
    INSTRUCTION,
    NEGATION,
    QUESTION,
    QUOTATION,
    REPORT,
    THE_CALLER,
)
from memoair_cloud.consolidation.language import Language, available_languages, load_language
from memoair_cloud.consolidation.normalization import MAX_CHARS, parse_utterance, remove_sounds
from memoair_cloud.consolidation.quoting import words_in_order
from memoair_cloud.consolidation.records import CallTurn, Fact
from memoair_cloud.consolidation.speakers import CallVoices
from memoair_cloud.consolidation.turn_language import LanguageRecognizer, languages_of_turns
from memoair_index import split_sentences
from memoair_index.languages import ENGLISH

_MAX_ANSWER_WORDS = 10
_NEGATIVE = re.compile(
    r"\b(?:not|no|none|never|nobody|nothing|neither|nor|without|hardly|barely|cannot|longer|nope)\b|n't\b",
    re.IGNORECASE,
)
_ENDED = re.compile(
    r"\b(?:used to|stopped|quit|gave up|given up|gave (?:it|him|her|them) (?:up|away)|no longer|former(?:ly)?|ex"
    r"|broke up|broken up|split up|separated"
    r"|sold|died|passed away|cancel(?:l)?ed|called off|moved out)\b",
    re.IGNORECASE,
)
_UNCERTAIN = re.compile(
    r"\b(?:if|unless|would|could|might|may|can|once you|whether|should|try|when you|as soon as|maybe|perhaps)\b"
    r"|\?|[\"\u201c\u00ab]",
    re.IGNORECASE,
)
_COMMITS = re.compile(
    r"\b(?:will|shall|'ll|have|has|'ve|am going to|promise|booked|sent|arranged|scheduled)\b", re.IGNORECASE
)


@attrs.frozen
class OpenClause:
    """A clause that nothing casts doubt on.

    Attributes:
        text: The clause, with corrections applied and contractions written out.
        is_negative: Whether it denies or ends something.
        has_ended: Whether it says that something held before.
        question: The question of the agent that it answers; empty if it answers none.
        is_english: Whether the rules of English decided.
    """

    text: str
    is_negative: bool = False
    has_ended: bool = False
    question: str = ""
    is_english: bool = True

    @property
    def is_answer(self) -> bool:
        """Whether it answers a question."""
        return bool(self.question)


@attrs.frozen
class HeardTurn:
    """A turn and what may be learned from it.

    Attributes:
        turn: The turn.
        language: The language whose rules read it, or those of the turns before it if it is in one without rules.
        text: What the caller's side said, its contractions written out.
        clauses: What the caller states.
        promises: What the agent states, as far as it may be a commitment.
        said: The words of the caller in order, for quotes.
        answered: The words of the agent in order.
    """

    turn: CallTurn
    language: Language
    text: str
    clauses: tuple[OpenClause, ...]
    promises: tuple[OpenClause, ...]
    said: str
    answered: str


def says_end(text: str) -> bool:
    """Return whether a text has words for the end of something: "quit", "used to"."""
    return bool(_ENDED.search(text))


def read_turns(turns: Sequence[CallTurn]) -> list[HeardTurn]:
    """Return what may be learned from each turn of a call.

    Args:
        turns: All turns of the call in their order: another person may have taken the telephone in an earlier one.
    """
    recognizer = _recognizer()
    latest = load_language()
    voices = CallVoices(latest)
    found: list[HeardTurn] = []
    question = ""
    for turn, name in zip(turns, languages_of_turns(turns, recognizer), strict=True):
        language = load_language(name) if name in recognizer.languages else None
        latest = voices.language = language or latest
        text = latest.forms.expand_contractions(remove_sounds(turn.user_text))
        may_state = voices.follow(turn, text) and not latest.speech.whole_turn.search(text)
        asked = question if question.rstrip().endswith("?") else ""
        clauses = _read_caller(turn.user_text, language, asked) if may_state else []
        promises = tuple(_read_agent(turn.assistant_text))
        said, answered = words_in_order(turn.user_text), words_in_order(turn.assistant_text)
        found.append(HeardTurn(turn, latest, text, tuple(clauses), promises, said, answered))
        question = turn.assistant_text
    return found


def attribute_facts(heard: Sequence[HeardTurn], facts: Iterable[Fact], denials: Iterable[Fact]) -> CallVoices:
    """Return the speakers of a call, each with the facts and denials that come from what they said.

    Args:
        heard: All turns of the call.
        facts: Facts that the turns support.
        denials: Facts that only close others.
    """
    by_turn: defaultdict[tuple[str, bool], list[Fact]] = defaultdict(list)
    for found, are_denials in ((facts, False), (denials, True)):
        for fact in found:
            by_turn[fact.event_id, are_denials].append(fact)
    voices = CallVoices(load_language())
    for each in heard:
        voices.language = each.language
        voices.follow(each.turn, each.text)
        for are_denials in (False, True):
            voices.add(by_turn[each.turn.event_id, are_denials], each.turn, is_denial=are_denials)
    return voices


@cache
def _recognizer() -> LanguageRecognizer:
    return LanguageRecognizer(available_languages())


def _read_caller(text: str, language: Language | None, asked: str) -> list[OpenClause]:
    if len(text) > MAX_CHARS or THE_CALLER.search(text) or INSTRUCTION.search(text):
        return []
    if language is None:
        return [_judge_foreign(sentence, asked) for sentence in _open_sentences(text)]
    clauses: list[OpenClause] = []
    for sentence in parse_utterance(text, language).sentences:
        if is_announcement(sentence, language):
            break
        clauses += [
            _judge(clause, language, asked if len(clause.split()) <= _MAX_ANSWER_WORDS else "")
            for clause in find_statements(sentence, language)
        ]
    return clauses


def _judge(clause: str, language: Language, asked: str) -> OpenClause:
    denied = language.find_denied(clause)
    is_english = language.name == ENGLISH
    has_ended = (is_english and bool(_ENDED.search(clause))) or bool(denied and denied.held_before)
    negative = _NEGATIVE if is_english else NEGATION
    is_negative = has_ended or denied is not None or bool(negative.search(clause))
    return OpenClause(clause, is_negative, has_ended, asked, is_english)


def _judge_foreign(sentence: str, asked: str) -> OpenClause:
    return OpenClause(sentence, bool(NEGATION.search(sentence)), False, asked, is_english=False)


def _open_sentences(text: str) -> list[str]:
    gates = (QUESTION, QUOTATION, DOUBT, REPORT)
    return [sentence for sentence in split_sentences(text) if not any(gate.search(sentence) for gate in gates)]


def _read_agent(text: str) -> list[OpenClause]:
    if len(text) > 2 * MAX_CHARS:
        return []
    if _recognizer().recognize(text, ENGLISH) != ENGLISH:
        return [_judge_foreign(sentence, "") for sentence in _open_sentences(text)]
    english = load_language()
    sentences = map(english.forms.expand_contractions, parse_utterance(text, english).sentences)
    return [
        OpenClause(sentence, bool(_NEGATIVE.search(sentence)))
        for sentence in sentences
        if not _UNCERTAIN.search(sentence) and _COMMITS.search(sentence)
    ]
