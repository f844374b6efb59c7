"""The sentence of a suggested fact: the model's own, unless it says more than the caller did."""

import re
from collections.abc import Collection

from memoair_cloud.consolidation.answers import SuggestedFact
from memoair_cloud.consolidation.foreign_words import PRIVILEGE
from memoair_cloud.consolidation.quoting import SaidWords, tokenize
from memoair_cloud.consolidation.records import CallTurn, FactKind

# A sentence says a thing in the third person, so a few of its words may be new.
_MAX_NEW_WORDS = 2
_PREDICATES = frozenset(
    (
        "lives live living called name named works work working has have had owns own likes like loves "
        "dislikes hates prefers prefer wants want takes taking allergic allergy vegan vegetarian born "
        "birthday phone number email address home will promised promises agent caller reached reach contacted "
        "contact going plans plan flying moved visits visiting longer anymore used does doesn't speaks speaks "
        "avoids eat eats married job employer favourite favorite person people pet dog cat"
    ).split()
)
_CAPITALIZED = re.compile(r"(?<=[^.!?] )[^\W\d_a-z][\w'-]+")


def choose_text(suggested: SuggestedFact, said: SaidWords, turn: CallTurn) -> str:
    """Return the sentence of a fact.

    It is written from attribute and value if the model's has a number or a name that was not said, or many new words.
    """
    names = tokenize(f"{turn.caller} {turn.agent}")
    known: Collection[str] = {*_PREDICATES, *names, *(f"{name}'s" for name in names), *tokenize(suggested.attribute)}
    text = suggested.text
    missing = [word for word in said.missing_words(text) if word.casefold() not in known]
    is_named = any(token in missing for name in _CAPITALIZED.findall(text) for token in tokenize(name))
    has_number = any(char.isdigit() for word in missing for char in word)
    if not missing or not (is_named or has_number or len(missing) > _MAX_NEW_WORDS or PRIVILEGE.search(text)):
        return text
    if suggested.kind is FactKind.COMMITMENT:
        return f"{turn.agent or 'The agent'}: {said.text.strip(' .')}."
    caller = (turn.caller.split() or ["The caller"])[0]
    if not suggested.value:
        return f"{caller}'s {suggested.attribute}: no longer."
    return f"{caller}'s {suggested.attribute}: {suggested.value}."
