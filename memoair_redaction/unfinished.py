"""Card numbers that end with what was said, to be continued in the next turn."""

import re

from memoair_redaction import cues
from memoair_redaction.findings import RedactionSpan
from memoair_redaction.spoken_text import WEAK_SEPARATOR, write_digits

# The groups of digits at the end of a text.
_LAST_ROW = re.compile(
    rf"(?<![\w+])\d+(?:[\s,.{WEAK_SEPARATOR}-]{{1,3}}\d+)*(?=[\s,.…-]*(?:and|und|y)?[\s,.…-]*$)", re.IGNORECASE
)
_ENDING = re.compile(r"\b(?:end(?:s|ing|et)?|termina\w*|last|letzten?|últim\w+|finit)\b", re.IGNORECASE)
_MIN_DIGITS, _MAX_DIGITS = 8, 18
_MIN_DIGITS_WITHOUT_NAME = 12
_GROUP_DIGITS = 4
_YEAR = re.compile(r"(?:19|20)\d\d")


def find_unfinished_card(before: str, text: str, question: str) -> list[RedactionSpan]:
    """Return the beginning of a card number at the end of a text, as a list of one finding or none.

    Args:
        before: What the same person has said right before.
        text: What is said.
        question: What the other one has said right before.
    """
    joined = f"{before} {text}"
    spoken = write_digits(joined)
    row = _LAST_ROW.search(spoken.text)
    if row is None:
        return []
    groups = re.findall(r"\d+", row[0])
    count = sum(map(len, groups))
    is_named = cues.names_card(spoken.text, row.start()) or cues.asks_for_card(question)
    is_grouped = all(len(group) == _GROUP_DIGITS for group in groups) and count >= _MIN_DIGITS_WITHOUT_NAME
    if _ENDING.search(joined) or all(map(_YEAR.fullmatch, groups)):
        return []
    is_card = _MIN_DIGITS <= count <= _MAX_DIGITS and row[0][0] in "23456" and (is_named or is_grouped)
    if not is_card:
        return []
    begin, end = (max(0, offset - len(before) - 1) for offset in spoken.to_original(*row.span()))
    return [RedactionSpan(begin, end, "card")] if begin < end else []
