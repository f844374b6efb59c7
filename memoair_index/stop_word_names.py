"""Stop words that are names: the IT department, the US, vitamin A, size S.

In writing, capitals tell the name from the stop word. A document that has the name gets a form for it, and one for the
name with the word beside it: those who ask aloud, or type without capitals, say "vitamin a" and "the it department".
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from memoair_index.folding import fold

# Others are capitals for emphasis as a rule ("do NOT").
_ACRONYMS = frozenset(["it", "us", "who"])
_ACRONYM = re.compile(r"(?<![\w'.-])(?P<name>IT|US|WHO)(?![\w'])(?:[ -](?P<beside>\w+))?")
# A single capital after a word. Before a word with a capital it is most often an article in a heading.
_CAPITAL = re.compile(
    r"(?<![\w'])(?P<beside>[^\W\d_]{2,})(?P<mark>[ -])(?P<name>[A-HJ-Z])(?![\w'\u2019])(?! [A-Z][^\W\d_A-Z])"
)
_LOWER = re.compile(r"[a-z]{2}")


def name_forms(text: str, stop_words: frozenset[str]) -> list[str]:
    """Return the forms of the stop words that are names in a document; none if it is all in capitals."""
    if not _LOWER.search(text):
        return []
    found = []
    for match in _ACRONYM.finditer(text):
        name, beside = fold(match["name"]), fold(match["beside"] or "")
        found += [_form(name), *([_form(name, beside)] if beside and beside not in stop_words else [])]
    for match in _CAPITAL.finditer(text):
        name, beside = fold(match["name"]), fold(match["beside"])
        if name in stop_words and beside not in stop_words:
            found.append(_form(beside, name))
    return list(dict.fromkeys(found))


def asked_name_forms(text: str, folded_words: Sequence[str], stop_words: frozenset[str]) -> Iterator[str]:
    """Yield the forms to look for in a question, however it is written: most of them no document has."""
    if _LOWER.search(text) or len(folded_words) == 1:
        yield from dict.fromkeys(_form(fold(match["name"])) for match in _ACRONYM.finditer(text))
    pairs = dict.fromkeys(pairwise(folded_words))
    for before, after in pairs:
        is_acronym = before in _ACRONYMS and after not in stop_words
        is_letter = len(after) == 1 and after in stop_words and before not in stop_words and len(before) > 1
        if is_acronym or is_letter:
            yield _form(before, after)


def _form(*words: str) -> str:
    return "^" + " ".join(words)
