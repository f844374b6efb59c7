"""Objects in a statement, and the statement in the third person."""

import re

_THIRD_PERSON = {
    "i": "{}",
    "me": "them",
    "my": "their",
    "mine": "theirs",
    "myself": "themselves",
    "we": "they",
    "us": "them",
}
_THIRD_PERSON |= {"our": "their", "ours": "theirs", "ourselves": "themselves"}
_FIRST_PERSON = re.compile(
    r"\b(?:" + "|".join(sorted(_THIRD_PERSON, key=len, reverse=True)) + r")\b(?!')", re.IGNORECASE
)
# Words that refer to something said before or in view. A year later, their meaning is lost.
_CONTEXT_DEPENDENT = re.compile(
    r"\b(?:it|its|it's|this|that|that's|these|those|them|they|they're|him|her|his|he|she|their|here|there|one"
    r"|ones|some|stuff|things?"
    r"|something|anything|everything|nothing|all|such|same|so|too|either|you|your|yours|you're|what|how|when"
    r"|why|who|which|others?"
    r"|both|then|another|i|i'm|i've|i'll|not|n't|never|again)\b",
    re.IGNORECASE,
)
_MAX_OBJECT_WORDS = 8
_RELATIVE_CLAUSE = re.compile(r"[^,;.]*?[^,;.\s]\s(?:that|which|who|where|when|whose)\b", re.IGNORECASE)


def has_capitals(text: str) -> bool:
    """Return whether a text has capitals at all, so that a lowercase word in it is not a name."""
    return text != text.lower()  # in one step: a turn may have hundreds of sentences


def leading_object(text: str, *, may_be_definite: bool = False, is_whole: bool = False) -> str | None:
    """Return the thing that a text begins with, up to the next thought; None if it refers to something else.

    ``is_whole`` keeps "action and adventure films" together, and rejects things that are narrowed down ("stories that
    ...").
    """
    if is_whole:
        if _RELATIVE_CLAUSE.match(text):
            return None
        text = re.sub(r"(?<!,) and (?=[\w-]+(?: [\w-]+)?(?:[,.]|$))", "\N{AMPERSAND}", text)
    phrase = re.split(
        r"[,;.!?()]| - |\s(?:and|but|or|because|since|so|as|which|who|that|when|where|while|after|before|until"
        r"|than|especially|lately"
        r"|recently|anyway|though|as well|too|right now|at the moment|these days|now|please|instead"
        r"|for (?:years|a while|ages)|to be)\b",
        text,
        maxsplit=1,
        flags=re.IGNORECASE,
    )[0].strip(" '\"-")
    phrase = phrase.replace("\N{AMPERSAND}", " and ") if is_whole else phrase
    phrase = re.sub(
        r"\s+(?:a lot|so much|very much|in|at|on|to|of|for|with|from|by|the|a|my|more|most|better|together)$",
        "",
        phrase,
    )
    words = phrase.split()
    if not words or len(words) > _MAX_OBJECT_WORDS or _CONTEXT_DEPENDENT.search(phrase):
        return None
    if words[0].lower() in {"the", "to"} and not may_be_definite:
        return None
    if words[-1].lower() in {
        "the",
        "a",
        "an",
        "my",
        "our",
        "to",
        "of",
        "is",
        "are",
        "was",
        "were",
        "has",
        "have",
        "and",
    }:
        return None
    return phrase


def is_self_contained(text: str) -> bool:
    """Return whether a text can be understood without its context."""
    return not _CONTEXT_DEPENDENT.search(text)


def to_third_person(text: str) -> str:
    """Convert what a caller says about themselves, without its subject, to the third person."""
    return _FIRST_PERSON.sub(lambda match: _THIRD_PERSON[match[0].lower()], text)


def normalize_key(text: str) -> str:
    """Normalize a text as a part of a key. Texts with the same meaning mostly differ only in capitals and articles."""
    normalized = re.sub(r"^(?:a|an|the|my|our|their|some|any)\s+", "", text.strip().casefold())
    return re.sub(r"\s+", " ", re.sub(r"[^\w\s&'+-]", "", normalized))[:80]
