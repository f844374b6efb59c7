"""Mail addresses, written and spoken."""

import re
from collections.abc import Iterator

from memoair_redaction.spoken_text import Span

# Matches begin only at the start of a word, so that a long text without an "@" is scanned once.
_WRITTEN = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_DOT, _AT = r"dot|punkt|punto|point|ponto", r"at|ät|arroba|arobase|chiocciola|klammeraffe"
_JOINER = rf"{_DOT}|underscore|unterstrich|gui[oó]n(?: bajo)?|dash|hyphen|minus|bindestrich|plus|tiret|strich"
_AT_WORD = re.compile(rf"(?<![^\W_])(?:{_AT}|@)(?![^\W_])", re.IGNORECASE)
_DOMAIN = re.compile(
    rf"\s+(?!www\.)[\w-]{{1,63}}(?:\s+(?:dash|bindestrich|gui[oó]n)\s+[\w-]{{1,63}}){{0,3}}"
    rf"(?:(?:\s+(?:{_DOT})\s+|\.)[\w-]{{1,63}}){{0,3}}(?:\s+(?:{_DOT})\s+|\.)[a-z]{{2,12}}(?![^\W_])",
    re.IGNORECASE,
)
# The local part, read backwards from "at": words with a joiner between them, single letters, and numbers.
_LOCAL_WITH_JOINERS = re.compile(
    rf"(?<![^\W_])(?:[\w+%-]{{1,64}}\s+(?:{_JOINER})\s+){{1,6}}[\w+%-]{{1,64}}(?:\s+\d{{1,4}})?\s+$", re.IGNORECASE
)
_LOCAL = re.compile(r"(?<![^\W_])(?:[a-zA-Z]\s+){0,4}[\w.+%-]{1,64}(?:\s+\d{1,4}){0,3}\s+$")
_CUE = re.compile(
    r"e-?mail|mail (?:address|adresse|is)|mail(?:adresse)?\b|correo|mensaje|courriel|messagerie|posta|write (?:to|me)"
    r"|send (?:it|them|that|the \w+)? ?to|schreiben sie|schicken sie|escr[íi]b\w+|env[íi]\w+|address is",
    re.IGNORECASE,
)
# Words that are said before "at" a shop or a place.
_NO_LOCAL_PART = re.compile(
    r"(?:\s|^)(?:look|is|it|available|online|shop|us|me|them|working|work|order|bought|buy|ordered|find|sign up"
    r"|check|read"
    r"|visit|page|(?:web)?site|store|here|there|found|at|and|or|or|the|my|e-?mail|mail)\s+$",
    re.IGNORECASE,
)
_MAX_LOCAL_CHARS = 160


def may_contain_email(text: str) -> bool:
    """Return whether a text has an "@" or a word for it."""
    return bool(_AT_WORD.search(text)) or "@" in text


def find_emails(text: str) -> Iterator[Span]:
    """Yield the spans of mail addresses.

    Args:
        text: The text with number words as digits, and with other findings masked.
    """
    yield from (match.span() for match in _WRITTEN.finditer(text))
    for at_word in _AT_WORD.finditer(text):
        domain = _DOMAIN.match(text, at_word.end())
        begin = domain and _local_begin(text, at_word.start())
        if domain and begin is not None:
            yield begin, domain.end()


def _local_begin(text: str, end: int) -> int | None:
    offset = max(0, end - _MAX_LOCAL_CHARS)
    before = text[offset:end]
    if match := _LOCAL_WITH_JOINERS.search(before):
        return offset + match.start()
    match = _LOCAL.search(before)
    if match is None or _NO_LOCAL_PART.search(before):
        return None
    # "I found it at example dot com": only a sentence about mail makes of a word before "at" an address.
    is_alone = not before[: match.start()].strip(" .,:¿¡") or re.search(
        r"(?:it's|is|es|ist)\W+$", before[: match.start()]
    )
    return offset + match.start() if is_alone or _CUE.search(before[: match.start()]) else None
