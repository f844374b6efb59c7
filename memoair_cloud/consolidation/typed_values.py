"""Check that a value is one of its attribute: a phone number, a home, a name, something that is an allergen."""

import re
from collections.abc import Mapping

from memoair_cloud.consolidation.answers import SuggestedFact
from memoair_cloud.consolidation.quoting import tokenize
from memoair_cloud.consolidation.speech_gates import OpenClause

_PHONE = re.compile(r"\b(?:phone|telephone|mobile|cell|landline|fax|whatsapp|number)\b(?! of\b)", re.IGNORECASE)
_EMAIL = re.compile(r"\be-?mail\b", re.IGNORECASE)
_NAME = re.compile(r"^(?:name|full name|first name|last name|surname|called|nickname)$")
_ALLERGY = re.compile(r"\ballerg", re.IGNORECASE)
_LIKING = re.compile(r"\b(?:lik(?:es?|ing)|lov(?:es?|ing)|enjoy(?:s|ment)?|hobby|hobbies|pastime)\b", re.IGNORECASE)
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_HOME = re.compile(r"^(?:home|residence|city|address|place of residence)$")
_LIVES = re.compile(
    r"\b(?:lived?|lives|living|relocated|home|house|flat|moved|moving|based|reside|address|street|road|from here"
    r"|settled)\b",
    re.IGNORECASE,
)
_JOB = re.compile(r"^(?:job|occupation|profession|works? as)$")
# "I'm a customer", and what may follow a job: "a plumber in Leeds", but not "a big fan".
_NO_JOB = frozenset("bit lot fan customer client member user mess saint vegetarian vegan parent mum dad guest".split())
_AFTER_JOB = frozenset("in at for with on by and but here there now too so from of since".split())
_LONG_NUMBER = re.compile(r"\d(?:[\d ().-]*\d)?")
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b|\b\d{1,2}[./]\d{1,2}[./]\d{2,4}\b")
_MIN_PHONE_DIGITS = 6
_MAX_NAME_WORDS = 5
_LABEL = r"(?:(?:new|other|current|direct|home|work|office|mobile|cell|phone|telephone|contact) )*"
_PHONE_SAID = re.compile(
    rf"\b(?:my|our) {_LABEL}(?:number|mobile|phone|cell|cellphone|telephone|landline|whatsapp)(?: number)?(?: now"
    rf"| here| at \w+)? (?:is|has (?:changed|become)|changed)\b"
    r"|\b(?:call|reach|ring|phone|text|contact|message) (?:me|us) (?:back )?(?:at|on|under|via)\b|\b(?:mobile"
    r"|phone|telephone|landline) number\b",
    re.IGNORECASE,
)
_OTHER_NUMBER = re.compile(r"\b(?:old|former|previous|fax|plate|security|insurance|iban)\b", re.IGNORECASE)
_PHONE_ASKED = re.compile(
    r"\b(?:phone|telephone|mobile|cell|landline|contact) ?(?:number)?\b|\bnumber\b.*\b(?:reach|call|ring|text"
    r"|contact)\b|\byour number\b",
    re.IGNORECASE,
)


def fits_attribute(suggested: SuggestedFact, clause: OpenClause, lists: Mapping[str, Mapping[str, str]]) -> bool:
    """Return whether the value of a fact is one that its attribute can have.

    Args:
        suggested: The fact.
        clause: The clause that says so, in English.
        lists: The lists of words of English.
    """
    attribute, value = suggested.attribute, suggested.value
    if _ADDRESS.search(value):
        return bool(_EMAIL.search(attribute))
    digits = max((sum(map(str.isdigit, number)) for number in _LONG_NUMBER.findall(_DATE.sub("", value))), default=0)
    if digits >= _MIN_PHONE_DIGITS or (_PHONE.search(attribute) and not attribute.startswith("number of")):
        return digits >= _MIN_PHONE_DIGITS and _is_phone(attribute, clause)
    if _EMAIL.search(attribute):
        return False
    if _NAME.match(attribute):
        return _is_name(value, lists)
    if _HOME.match(attribute):
        return bool(_LIVES.search(f"{clause.question} {clause.text}"))
    if _JOB.match(attribute):
        return _is_job(value, clause)
    words = tokenize(f"{attribute} {value}")
    if _ALLERGY.search(attribute):
        phrases = (
            " ".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1)
        )
        return not lists["ALLERGEN"].keys().isdisjoint(phrases)
    if _LIKING.search(attribute):
        return all(word in lists["PASTIME"] for word in words[2:] if word.endswith("ing"))
    return True


def _is_phone(attribute: str, clause: OpenClause) -> bool:
    """Return whether a long number is said to be a phone number. No other long number is a fact."""
    if not _PHONE.search(attribute) or _OTHER_NUMBER.search(clause.text):
        return False
    if _PHONE_SAID.search(clause.text):
        return True
    return bool(_PHONE_ASKED.search(clause.question)) and not re.search(r"[a-z]{3,}", clause.text, re.IGNORECASE)


def _is_job(value: str, clause: OpenClause) -> bool:
    job, said = tokenize(value), tokenize(clause.text)
    if not job or not _NO_JOB.isdisjoint(job):
        return False
    ends = [start + len(job) for start in range(len(said)) if said[start : start + len(job)] == job]
    return all(end == len(said) or said[end] in _AFTER_JOB for end in ends)


def _is_name(value: str, lists: Mapping[str, Mapping[str, str]]) -> bool:
    words = [word.strip(".,") for word in value.split()]
    if not 0 < len(words) <= _MAX_NAME_WORDS or any(char.isdigit() for char in value):
        return False
    if value.casefold() in lists["INVENTED"] or all(word.casefold() in lists["NOT_A_NAME"] for word in words):
        return False
    is_cased = any(map(str.isupper, value))
    return all(word[:1].isupper() or not word[:1].islower() or word in lists["PARTICLE"] for word in words if is_cased)
