"""Number words for functions that only know digits, such as an application's own."""

import re
from collections.abc import Callable, Iterator

from memoair_redaction.spoken_text import SpokenText, write_digits

_ROW = re.compile(r"\+?\d+(?:[\s,.;:/…-]{1,5}\d+)*")
# Less is a quantity more often than a number to redact.
_MIN_DIGITS, _MIN_WORDS = 5, 3
_BEFORE_CHARS, _AFTER_CHARS = 80, 40
_REMOVED = "[number]"


def redact_number_words(redact: Callable[[str], str], text: str) -> str:
    """Return a text without the number words that a function would remove if they were digits.

    The function sees them as digits, in groups and in one piece, with the words around them.

    Args:
        redact: The function. What it raises is raised.
        text: What was said.
    """
    spoken = write_digits(text)
    parts, done = list[str](), 0
    for row in _spoken_rows(spoken):
        before = spoken.text[max(0, row.start() - _BEFORE_CHARS) : row.start()]
        after = spoken.text[row.end() : row.end() + _AFTER_CHARS]
        replacement = _replacement(redact, before, row[0], after)
        if replacement is not None:
            begin, end = spoken.to_original(*row.span())
            parts += [text[done:begin], replacement]
            done = end
    return "".join([*parts, text[done:]])


def _spoken_rows(spoken: SpokenText) -> Iterator[re.Match[str]]:
    if spoken.spoken:
        for row in _ROW.finditer(spoken.text):
            is_long = sum(map(str.isdigit, row[0])) >= _MIN_DIGITS
            if is_long and spoken.count_spoken(*row.span()) >= _MIN_WORDS:
                yield row


def _replacement(redact: Callable[[str], str], before: str, row: str, after: str) -> str | None:
    """Return what the function puts in the place of a number, or None if it leaves it."""
    for digits in (re.sub(r"[^\d+]", "", row), row):
        redacted = redact(f"{before}{digits}{after}")
        if digits not in redacted:
            is_rest_kept = redacted.startswith(before) and redacted.endswith(after)
            replacement = redacted[len(before) : len(redacted) - len(after)] if is_rest_kept else _REMOVED
            return _REMOVED if re.search(r"\d", replacement) else replacement
    return None
