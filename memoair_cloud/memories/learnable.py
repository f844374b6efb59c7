"""Which facts may be learned: none with a number that was redacted, and none of the kinds that a project excludes."""

import re
from collections.abc import Collection, Iterable

from memoair_cloud.consolidation import CallTurn, Fact
from memoair_redaction import KINDS, PLACEHOLDERS, Redactor

# An attribute that names its data, in whatever format the value is.
_ATTRIBUTES = {
    "phone": re.compile(r"\b(?:phone|telephone|mobile|cell|landline|fax|whatsapp|number)\b", re.IGNORECASE),
    "email": re.compile(r"\be-?mail\b", re.IGNORECASE),
    "birth_date": re.compile(r"\bbirth", re.IGNORECASE),
    "card": re.compile(r"\bcard number\b", re.IGNORECASE),
    "iban": re.compile(r"\biban\b", re.IGNORECASE),
    "security_code": re.compile(r"\b(?:security code|cvv|cvc)\b", re.IGNORECASE),
}
_MIN_PHONE_DIGITS = 6


def find_redacted_kinds(turns: Iterable[CallTurn]) -> frozenset[str]:
    """Return the kinds of data that were redacted in a call before it was sent.

    What was redacted in one turn must not be learned from another, where it was said in a way that was not recognized.
    """
    texts = [text for turn in turns for text in (turn.user_text, turn.assistant_text)]
    return frozenset(kind for kind, name in PLACEHOLDERS.items() if any(name in text for text in texts))


def is_learnable(fact: Fact, excluded: Collection[str]) -> bool:
    """Return whether a fact may be learned.

    Args:
        fact: The fact.
        excluded: The kinds that must not be learned, kinds of data (`KINDS`) and kinds of facts.
    """
    texts = [fact.text, fact.value, fact.corrects or "", fact.subject]
    if fact.kind.value in excluded or any(name in text for name in PLACEHOLDERS.values() for text in texts):
        return False
    kinds = set(excluded) & set(KINDS)
    if not kinds:
        return True
    if any(_names_data(kind, fact) for kind in kinds):
        return False
    redact = Redactor(kinds)
    return all(redact(text) == text for text in (*texts, f"{fact.attribute}: {fact.value}"))


def _names_data(kind: str, fact: Fact) -> bool:
    digits = sum(map(str.isdigit, fact.value))
    is_there = digits >= _MIN_PHONE_DIGITS if kind == "phone" else bool(fact.value)
    return is_there and bool(_ATTRIBUTES[kind].search(fact.attribute.replace("_", " ")))
