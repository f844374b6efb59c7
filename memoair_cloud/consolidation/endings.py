"""Close facts that a sentence ends in words that no rule understands: "Rome's off, I'm afraid".

Such a sentence says that something is over, and names it. Which fact that is cannot be seen in the call itself, so
an end keeps the words that name it, and merging compares them with the facts. It closes only what they name completely.
"""

import re
from collections.abc import Mapping

from memoair_cloud.consolidation.language import Language
from memoair_cloud.consolidation.records import (
    DENIED,
    END_OF_FACT,
    NO_VALUE,
    OTHER_CALLER,
    CallTurn,
    Fact,
    FactKind,
)
from memoair_index.analysis import STOP_WORDS
from memoair_index.languages import stem

_MAX_PHRASE_WORDS = 7
_MIN_DIGITS, _MIN_PHONE_DIGITS = 3, 6
_MIN_FAMILY_CHARS = 4
# "The Hull move" names the plan to move to Hull.
_MAX_STRANGE_PLAN_WORDS = 1
# A possession is something else: "Ray's phone is dead".
_POSSESSION = re.compile(r"(?P<owner>\w+)'s (?P<thing>\w+)")
_WORD = re.compile(r"[\w.+-]+@[\w.-]+\w|[^\W_]+")
# A phrase ends with its clause, or where another one begins that says where, when or why.
_CLAUSE_END = re.compile(
    r"[,;:!?]|\.(?=\s|$)|\s(?:and|but|or|because|since|so|when|while|after|before|until|due|as|that|which|who)\s"
)
_PLACE = re.compile(r"\s(?:in|at|on|by)\s")
# The parts of attributes that name no thing, before the thing itself: "takes insulin", "allergy to eggs"
_NO_THINGS = frozenset(
    ("allergy", "to", "takes", "is", "avoids", "liking", "of", "speaks", "plan", "number", "favourite")
)
# Nothing takes these back.
_LASTING = frozenset(("name", OTHER_CALLER, "birthday", "birthplace", "age", "origin"))
# Values that say nothing but that the attribute holds
_HOLDS = frozenset(("yes", "likes", "dislikes", "planned"))


def find_endings(sentence: str, turn: CallTurn, language: Language) -> list[Fact]:
    """Return what a sentence ends, as facts that only close others; empty if it ends nothing, or is doubtful.

    Args:
        sentence: The sentence, its contractions written out.
        turn: Its turn.
        language: Its language.
    """
    speech = language.speech
    if speech.ended_object is None or speech.ended_subject is None or sentence.rstrip().endswith("?"):
        return []
    phrases = [_first_phrases(sentence[match.end() :]) for match in speech.ended_object.finditer(sentence)]
    phrases += [[_last_phrase(sentence[: match.start()])] for match in speech.ended_subject.finditer(sentence)]
    if not any(map(any, phrases)) or (speech.not_ended and speech.not_ended.search(sentence)):
        return []
    if speech.whole_sentence.search(sentence) or speech.reported.search(sentence):
        return []
    humans = language.lists.get("HUMAN", {})
    relatives = [humans[word] for word in re.findall(r"[^\W_]+", sentence.lower()) if word in humans]
    attribute = f"{END_OF_FACT}{relatives[0] if relatives else ''}"
    nouns = language.lists.get("ENDED_NOUN", {})
    named = set[str]()
    for parts in phrases:  # "the house in Leeds" is named by its place, because other things are houses, too
        of_parts = (" ".join(_name_words(part, nouns)) for part in parts)
        named |= {next(filter(None, of_parts), "")}
    return [_make_end(turn, attribute, words) for words in sorted(named) if words]


def is_closing(fact: Fact) -> bool:
    """Return whether a fact says that something does not hold."""
    return fact.is_denial or fact.value in (NO_VALUE, "no") or fact.value.startswith("not ")


def is_ended(fact: Fact, end: Fact) -> bool:
    """Return whether an end closes a fact: its words name the fact completely, and little else."""
    if is_closing(fact) or fact.kind in (FactKind.EVENT, FactKind.COMMITMENT) or fact.attribute in _LASTING:
        return False
    relative = end.attribute.removeprefix(END_OF_FACT)
    if relative and relative not in fact.attribute:
        return False  # "My wife gave up meat"
    said = (end.corrects or "").split()
    stems = {_stem(word) for word in said}
    if fact.kind is FactKind.PLAN:
        things = {_stem(word) for word in _things(fact.attribute)}
        return bool(things & stems) and len(stems - things) <= _MAX_STRANGE_PLAN_WORDS
    if sum(map(str.isdigit, fact.value)) >= _MIN_PHONE_DIGITS or "@" in fact.value:
        return any(_is_written_like(word, fact.value) for word in said) or _names_label(stems, fact)
    holds = fact.value in _HOLDS or fact.attribute.startswith("number of")
    words = _things(fact.attribute) if holds else _words(fact.value) or fact.value.lower().split()
    value = {_stem(word) for word in words}
    is_named = all(any(_is_same_stem(one, other) for other in stems) for one in value)
    known = value | {_stem(word) for word in _words(fact.attribute)}  # "the window seat" is a seat
    return bool(value) and is_named and all(any(_is_same_stem(one, other) for other in known) for one in stems)


def _make_end(turn: CallTurn, attribute: str, words: str) -> Fact:
    return Fact(
        kind=FactKind.EVENT,
        text="",
        subject="caller",
        attribute=attribute,
        value=f"{DENIED}{words}",
        event_id=turn.event_id,
        session_id=turn.session_id,
        number=turn.number,
        said_at=turn.said_at,
        is_one_of_many=True,
        corrects=words,
    )


def _first_phrases(text: str) -> list[str]:
    """Return the thing that a text begins with, and where it is."""
    text = re.sub(r"^\W*(?:(?:in|at|on|by|as|with|for|to|of|from)\s+)?", " ", text)
    end = _CLAUSE_END.search(f"{text} ")
    clause = " ".join((text[: end.start()] if end else text).split()[:_MAX_PHRASE_WORDS])
    return _PLACE.split(clause)


def _last_phrase(text: str) -> str:
    """Return the thing that a text ends with."""
    clause = re.split(r"[,;:.!?]\s|\sbut\s", text)[-1]
    return " ".join(clause.split()[-_MAX_PHRASE_WORDS:])


def _name_words(phrase: str, nouns: Mapping[str, str]) -> list[str]:
    """Return the words of a phrase that name what has ended."""
    possessed = {
        match["thing"].lower() for match in _POSSESSION.finditer(phrase) if match["owner"].lower() not in nouns
    }
    return [word for word in _words(phrase) if word not in nouns or word in possessed]


def _things(attribute: str) -> list[str]:
    return [word for word in _words(attribute) if word not in _NO_THINGS]


def _words(text: str) -> list[str]:
    """Return the words of a text that carry meaning, in lower case."""
    lowered = [word.lower() for word in _WORD.findall(text.replace("'s", " "))]
    kept = [word for word in lowered if "@" in word or word.isdigit() or stem(word, "english") is not None]
    # The longer list of function words has some that may be all that there is: "the move", "texts".
    return kept or [word for word in lowered if word not in STOP_WORDS]


def _stem(word: str) -> str:
    return stem(word, "english") or word


def _names_label(stems: set[str], fact: Fact) -> bool:
    """Return whether words name what kind of number or address a fact gives: "the landline"."""
    return bool(stems) and stems <= {_stem(word) for word in _words(fact.attribute)}


def _is_same_stem(one: str, other: str) -> bool:
    """Return whether words are of one family: "plumber" and "plumbing"."""
    short, long = sorted((one, other), key=len)
    return one == other or (len(short) >= _MIN_FAMILY_CHARS and long.startswith(short))


def _is_written_like(word: str, value: str) -> bool:
    """Return whether a word is a mail address, or the end of a number, as a value has it."""
    if "@" in word:
        return word == value.lower()
    digits = re.sub(r"\D", "", value)
    if word.isdigit() and "@" not in value:
        return len(word) >= _MIN_DIGITS and digits.endswith(word)
    return False
