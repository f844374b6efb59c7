"""Phrases in texts: compared word by word, so that case, accents, punctuation and line breaks do not matter."""

from memoair_index.analysis import NO_SPACE_RUN, split_words
from memoair_index.folding import fold


def to_words(text: str) -> str:
    """Return a text in the form in which `contains_phrase` searches it: its words, each between spaces."""
    return f" {' '.join(split_words(fold(text)))} "


def contains_phrase(words: str, phrase: str) -> bool:
    """Return whether a phrase is in a text, as whole words in the same order.

    In scripts without spaces between words, a phrase may begin and end at any character.

    Args:
        words: The text, from `to_words`.
        phrase: The phrase, as it is written. One without any word is in no text.
    """
    wanted = to_words(phrase).strip()
    start = words.find(wanted) if wanted else -1
    while start >= 0:
        end = start + len(wanted)
        if _is_boundary(words[start - 1], wanted[0]) and _is_boundary(words[end], wanted[-1]):
            return True
        start = words.find(wanted, start + 1)
    return False


def _is_boundary(outside: str, edge: str) -> bool:
    """Return whether a word may begin or end between two characters."""
    return outside == " " or NO_SPACE_RUN.match(outside) is not None or NO_SPACE_RUN.match(edge) is not None
