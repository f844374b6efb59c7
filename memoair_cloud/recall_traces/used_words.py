"""What of a recalled text an answer used: the words that both have in common, but for those that say little."""

import re
from functools import lru_cache

from stop_words import get_stop_words

from memoair_protocol.enums import LaneName

_APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
_WORD = re.compile(rf"\w+(?:['{_APOSTROPHE}]\w+)?")
_MIN_CHARS = 3
# Numbers are what an answer is about, though the list of words that say little has them.
_NUMBERS = frozenset(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million first second "
    "third".split()
)
_NOT_SAID = frozenset({"caller", "agent", *(lane.value for lane in LaneName)})  # names of sides and sections


def find_used_words(text: str, answer: str) -> list[tuple[int, int]]:
    """Return the parts of a text that are words of an answer, too.

    Args:
        text: What was recalled.
        answer: What the agent answered.

    Returns:
        The start and the end of each word, in order.
    """
    words = {_normalize(match[0]) for match in _WORD.finditer(answer)}
    return [match.span() for match in _WORD.finditer(text) if _normalize(match[0]) in words and _counts(match[0])]


def shorten_around(text: str, spans: list[tuple[int, int]], max_chars: int) -> tuple[str, list[tuple[int, int]]]:
    """Return at most about so many characters of a text, around its first marked part, and the parts in it."""
    if len(text) <= max_chars:
        return text, spans
    start = max(0, min(spans[0][0] - max_chars // 4, len(text) - max_chars)) if spans else 0
    end = start + max_chars
    before, after = "…" if start else "", "…" if end < len(text) else ""
    shift = len(before) - start
    kept = [(first + shift, last + shift) for first, last in spans if first >= start and last <= end]
    return f"{before}{text[start:end]}{after}", kept


def _counts(word: str) -> bool:
    normalized = _normalize(word)
    if any(char.isdigit() for char in normalized):
        return True
    return len(normalized) >= _MIN_CHARS and normalized not in _stop_words() and normalized not in _NOT_SAID


def _normalize(word: str) -> str:
    folded = word.casefold().replace(_APOSTROPHE, "'")
    return folded.removesuffix("'s") if len(folded) > _MIN_CHARS else folded


@lru_cache(maxsize=1)
def _stop_words() -> frozenset[str]:
    return frozenset(get_stop_words("en")) - _NUMBERS
