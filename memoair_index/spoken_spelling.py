"""Spelling aloud: "A as in alpha", "alpha bravo one two" and "AB dash 12" in the form in which they are written."""

import re

_ALPHABET = {
    word: word[0]
    for word in (
        "alpha alfa bravo charlie delta echo foxtrot golf hotel india juliet juliett kilo lima mike november oscar papa"
        " quebec romeo sierra tango uniform victor whiskey xray yankee zulu"
    ).split()
} | {"x-ray": "x"}
_WORD = "|".join(_ALPHABET)
_LETTER_AS_IN = re.compile(r"(?<![^\W_])([^\W\d_])(?:,? as in| for| like) \1[^\W\d_]+(?:,(?= ))?")
# One of these words alone is a word: November 14, Hotel 7.
_LETTER_WORDS = re.compile(rf"(?<![^\W_])(?:{_WORD})(?:[ ,-]{{1,2}}(?:{_WORD})(?![^\W_]))+")
_LETTER_WORD = re.compile(_WORD)
_MARK = re.compile(r"(?<=[^\W_]) (?:dash|hyphen|(?:forward )?slash|minus) (?=[^\W_])")


def write_spelling(folded: str) -> str:
    """Return a folded text in which letters and marks that are said as words are written."""
    written = _LETTER_AS_IN.sub(r"\1", folded)
    written = _LETTER_WORDS.sub(lambda run: _LETTER_WORD.sub(lambda word: _ALPHABET[word[0]], run[0]), written)
    return _MARK.sub("-", written)
