"""Dates of birth: a whole date beside a word that says that someone was born on it."""

import re
from collections.abc import Iterator

from memoair_redaction.spoken_text import Span

_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
# "20-first": the tens of an ordinal are already digits.
_ENGLISH_ORDINAL = "|".join([*_ORDINALS, rf"(?:20|30)[ -](?:{'|'.join(_ORDINALS[:9])})"])
_GERMAN_ORDINAL = (
    r"(?:erst|zweit|dritt|viert|fünft|sechst|siebt|siebent|acht|neunt|zehnt|elft|zwölft|dreizehnt|vierzehnt|fünfzehnt"
    r"|sechzehnt|siebzehnt|achtzehnt|neunzehnt|(?:(?:ein|zwei|drei|vier|fünf|sechs|sieben|acht|neun)und)?(?:zwanzig"
    r"|dreißig|dreissig)st)"
    r"e[nrs]?"
)
_DAY = rf"(?:\d{{1,2}}(?!\d)(?:st|nd|rd|th|\.|º|er)?|{_ENGLISH_ORDINAL}|{_GERMAN_ORDINAL}|primero)"
_MONTH = (
    r"(?:january|february|march|april|may|june|july|august|september|october|november|december"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec"
    r"|januar|jänner|februar|feber|märz|maerz|mai|juni|juli|august|oktober|dezember|okt|dez"
    r"|enero|febrero|marzo|abril|mayo|junio|julio|agosto|se[p]?tiembre|octubre|noviembre|diciembre"
    r"|janvier|février|mars|avril|juin|juillet|août|septembre|octobre|novembre|décembre"
    r"|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre)\.?"
)
_YEAR = r"(?:(?:18|19|20) ?\d\d|(?:19|20) (?:0 )?\d|['\u2019]?\d\d)(?!\d)"
_SEP = r"(?:[ ,.]{0,3}(?:of|de|del|the|von|le)?[ ,.]{0,3})"
_NUMERIC_SEP = r" ?[-./,\u2013] ?"
_DIGIT_PAIR = r"(?:0 \d|\d{1,2})"
DATE = (
    rf"(?:{_DAY}{_SEP}{_MONTH}{_SEP}{_YEAR}"
    rf"|{_MONTH}{_SEP}(?:the )?{_DAY}{_SEP}{_YEAR}"
    rf"|\d{{4}}{_NUMERIC_SEP}\d{{1,2}}{_NUMERIC_SEP}\d{{1,2}}(?!\d)"
    rf"|{_DIGIT_PAIR}{_NUMERIC_SEP}{_DIGIT_PAIR}{_NUMERIC_SEP}{_YEAR}"
    rf"|{_DIGIT_PAIR} {_DIGIT_PAIR} (?:19|20) ?\d\d(?!\d)|{_GERMAN_ORDINAL} {_GERMAN_ORDINAL} {_YEAR}"
    # Behind a word that says what it is, also without separators.
    rf"|{_DIGIT_PAIR} {_DIGIT_PAIR} \d\d(?!\d)|(?:[0-3]\d[01]\d|[01]\d[0-3]\d)(?:19|20)\d\d(?!\d)"
    r"|(?:19|20)\d\d[01]\d[0-3]\d(?!\d)|(?:\d ){7}\d(?! ?\d)|(?:19|20)\d\d \d{1,2} \d{1,2}(?!\d))"
)
_CUE = (
    r"(?:(?:date of birth|birth ?dates?|birthdays?)(?:'s)?|d\.?o\.?b\.?|born|geburtsdatum|geburtstag|geboren|geb\."
    r"|fecha de nacimiento"
    r"|nacimiento|cumplea[ñn]os|nac[íi]|naci[óo]|nacid[oa]|n[ée]e? le|date de naissance|naissance|data di nascita"
    r"|nat[oa] il)"
)
_LINKS = (
    r"(?:\W{0,3}(?:is|was|on|in|the|it's|ist|war|am|der|den|im|es|fue|el|le|est|sono|bin|ich|wurde|and|und|y"
    r"|(?-i:[A-Z])\w{1,15})(?![^\W_])){0,6}?"
)
_CUE_WORD = re.compile(_CUE, re.IGNORECASE)
_BEFORE = re.compile(rf"(?<![^\W_]){_CUE}{_LINKS}\W{{0,4}}(?P<date>{DATE})", re.IGNORECASE)
_AFTER = re.compile(
    rf"(?<![^\W_])(?P<date>{DATE})[ ,]{{1,2}}(?:in [\w-]+ )?(?:geboren|born|nacid[oa])"
    # "4 July 1976 is my birthday"
    rf"|(?<![^\W_])(?P<first>{DATE}),?\W{{1,2}}(?:that's|that is|is|was|ist|das ist|es)"
    r"\W{1,2}(?:my|her|his|their|the|mein|mi|el)"
    rf"\W{{1,2}}{_CUE}",
    re.IGNORECASE,
)


def find_birth_dates(text: str) -> Iterator[Span]:
    """Yield the spans of dates of birth.

    Args:
        text: The text with number words as digits, and with other findings masked.
    """
    if not _CUE_WORD.search(text):  # most texts
        return
    for pattern in (_BEFORE, _AFTER):
        for match in pattern.finditer(text):
            yield match.span("first" if pattern is _AFTER and match["date"] is None else "date")
