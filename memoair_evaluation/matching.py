"""Phrases in texts: compared word by word, so that case, accents, punctuation and line breaks do not matter."""

import re

from memoair_index.analysis import split_words
from memoair_index.folding import fold

# Scripts that are written without spaces: a phrase may begin and end anywhere in a run of these.
_NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def to_words(text: str) -> str:
    """Return a text in the form in which `contains_phrase` searches it: its words, each between spaces."""
    return f" {' '.join(split_words(fold(text)))} "


def contains_phrase(words: str, phrase: str) -> bool:
    """Return whether a phrase is in a text, as whole words in the same order.

    Args:
        words: The text, from `to_words`.
        phrase: The phrase, as it is written. One without any word is in no text.
    """
    wanted = to_words(phrase).strip()
    if not wanted:
        return False
    begin = "" if _NO_SPACES.match(wanted[0]) else " "
    end = "" if _NO_SPACES.match(wanted[-1]) else " "
    return f"{begin}{wanted}{end}" in words
