"""The names that a caller uses, for speech recognizers that accept terms to listen for."""

import re

from memoair_protocol.names import clean_name
from memoair_voice import SearchResult

# Recognizers accept some hundred terms, and get worse with more of them.
_MAX_TERMS = 50
_MAX_TERM_CHARS = 50
_SENTENCE_SEPARATOR = re.compile(r"[.!?:;\n\N{HORIZONTAL ELLIPSIS}]+\s*|\s[-\N{EN DASH}\N{EM DASH}]\s")
_WORD_PATTERN = re.compile(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}-][^\W_]+)*")
_POSSESSIVE = re.compile(r"['\N{RIGHT SINGLE QUOTATION MARK}]s$")
# Words with a capital letter that every recognizer knows.
_COMMON_WORDS = frozenset(
    "i i'm i'd i'll i've ok okay mr mrs ms dr monday tuesday wednesday thursday friday saturday sunday january "
    "february march april may june july august september october november december english yes no".split()
)


def find_key_terms(found: SearchResult | None, caller_name: str | None = None) -> list[str]:
    """Return the names in what is known about a caller: words with a capital letter within a sentence.

    Args:
        found: What was found with an empty query, which brings the profile and what the caller said last; or None.
        caller_name: The caller's name, if the application knows it.

    Returns:
        The caller's own name and the other names, without repetitions, at most 50.
    """
    texts: list[str] = []
    names = [caller_name or ""]
    if found is not None:
        names.append(str((found.profile or {}).get("name") or ""))
        lines = (line.removeprefix("- ") for line in found.contextText.splitlines() if line.startswith("- "))
        texts = [said or line for line, _, said in (line.partition(": ") for line in lines)]
    terms: dict[str, str] = {}
    for term in [
        *names,
        *(word for name in names for word in name.split()),
        *(t for text in texts for t in _names_in(text)),
    ]:
        term = clean_name(term) if len(term) <= _MAX_TERM_CHARS else ""
        if term and len(term) <= _MAX_TERM_CHARS:
            terms.setdefault(term.casefold(), term)
    return list(terms.values())[:_MAX_TERMS]


def _names_in(text: str) -> list[str]:
    """Return the names in a text, each with all its words: "New York". The first word of a sentence is not one."""
    names = []
    for sentence in _SENTENCE_SEPARATOR.split(text):
        name: list[str] = []
        end = 0
        for index, match in enumerate(_WORD_PATTERN.finditer(sentence)):
            word = _POSSESSIVE.sub("", match[0])
            is_name = index > 0 and word[0].isupper() and word.casefold().replace("\u2019", "'") not in _COMMON_WORDS
            if name and (not is_name or sentence[end : match.start()] != " "):
                names.append(" ".join(name))
                name = []
            if is_name:
                name.append(word)
            end = match.end()
        if name:
            names.append(" ".join(name))
    return names
