"""Card numbers: digits with a valid check digit, alone or within a longer row of digits."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from memoair_redaction import cues
from memoair_redaction.spoken_text import WEAK_SEPARATOR, Span

_SEPARATORS = rf"[\s,._/|\"'\u2010-\u2014\u200b{WEAK_SEPARATOR}-]{{1,5}}"
_ROW = re.compile(rf"\d+(?:{_SEPARATORS}\d+)*")
_GROUP = re.compile(r"\d+")
# The first digits of payment cards. A count of milliseconds since 1970 begins with another digit.
_FIRST_DIGITS = "23456"
_MIN_DIGITS, _MAX_DIGITS = 13, 19
# The numbers that networks assign: first digits and length.
_NETWORKS = re.compile(
    r"4\d{12}(?:\d{3})?(?:\d{3})?"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12}"  # Discover
    r"|3(?:0[0-5]|[689]\d)\d{11}|3(?:0[0-59]|[689]\d)\d{13}"  # Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|62\d{14,17}"  # UnionPay
    r"|(?:50|5[6-9]|6[37])\d{11,17}"  # Maestro
)
# Shorter numbers are rare, and every tenth row of digits has a valid check digit.
_MIN_COMMON_DIGITS = 15
_MAX_ROW_DIGITS = 400  # a longer row is data, not speech
_POINT_BEFORE, _POINT_AFTER = re.compile(r"\d[.]$"), re.compile(r"[.]\d")
_YEAR = re.compile(r"(?:19|20)\d\d|\d0+")


def find_cards(text: str) -> Iterator[Span]:
    """Yield the spans of card numbers in a text.

    Args:
        text: The text with number words as digits, and with other findings masked.
    """
    for row in _ROW.finditer(text):
        groups = [group.span() for group in _GROUP.finditer(text, row.start(), row.end())]
        count = sum(end - begin for begin, end in groups)
        if count < _MIN_DIGITS or (count > _MAX_DIGITS and cues.names_other_number(text, row.start())):
            continue
        yield from _find_in_row(text, groups)


def _find_in_row(text: str, groups: Sequence[Span]) -> Iterator[Span]:
    first = 0
    while first < len(groups):
        last = _last_group(text, groups, first)
        if last is not None:
            yield groups[first][0], groups[last][1]
            first = last
        elif span := _find_within(text, groups, first):
            yield span
            first = next(place for place, group in enumerate(groups) if group[1] >= span[1])
        first += 1


def _last_group(text: str, groups: Sequence[Span], first: int) -> int | None:
    """Return the index of the last group of the longest card number that begins with the group ``first``, or None."""
    begin = groups[first][0]
    if text[begin] not in _FIRST_DIGITS:
        return None
    longest, number = None, ""
    for last in range(first, len(groups)):
        number += text[slice(*groups[last])]
        if len(number) > _MAX_DIGITS:
            break
        if len(number) >= _MIN_DIGITS and passes_luhn(number):
            candidate = groups[first : last + 1]
            if not _is_in_decimals(text, candidate) and (_NETWORKS.fullmatch(number) or _may_be_card(text, candidate)):
                longest = last
    return longest


def _may_be_card(text: str, groups: Sequence[Span]) -> bool:
    """Return whether a number that no network assigns may still be a card: it is no order number, and no list."""
    lengths = {end - begin for begin, end in groups[:-1]}
    is_list = len(groups) > 1 and all(_YEAR.fullmatch(text, *group) for group in groups)
    is_conventional = lengths <= {4} or lengths == {1}
    return is_conventional and not is_list and not cues.names_other_number(text, groups[0][0])


def _is_in_decimals(text: str, groups: Sequence[Span]) -> bool:
    """Return whether groups of digits are parts of decimal numbers: a point joins some of them and not the others."""
    gaps = [text[a[1] : b[0]] for a, b in pairwise(groups)]
    is_joined = bool(_POINT_BEFORE.search(text, max(0, groups[0][0] - 2), groups[0][0])) or bool(
        _POINT_AFTER.match(text, groups[-1][1])
    )
    return is_joined or ("." in gaps and set(gaps) != {"."}) or any(gap.endswith((" .", "\n.")) for gap in gaps)


def _find_within(text: str, groups: Sequence[Span], first: int) -> Span | None:
    """Return the span of a card number that is hidden in a group of digits, or that ends within a later group."""
    begin, end = groups[first]
    group = text[begin:end]
    if _MIN_DIGITS < len(group) <= _MAX_ROW_DIGITS:
        has_card = any(_card_length(group, start) for start in range(len(group) - _MIN_DIGITS + 1))
        # The digits around it may be its expiry date or security code.
        found = (begin, end) if has_card else None
    else:
        found = _ending_within(text, groups[first : first + _MAX_DIGITS])
    if found is None or cues.names_other_number(text, begin):
        return None
    return None if _is_in_decimals(text, [group for group in groups[first:] if group[1] <= found[1]]) else found


def _ending_within(text: str, groups: Sequence[Span]) -> Span | None:
    """Return the span of a card number that begins with the first group and ends within a later one, or None."""
    length = _card_length("".join(text[slice(*group)] for group in groups), 0)
    if length < _MIN_COMMON_DIGITS or len(groups) < 2:
        return None
    for begin, end in groups:
        length -= end - begin
        if length <= 0:
            return groups[0][0], end
    return None


def _card_length(digits: str, start: int) -> int:
    """Return the length of a card number of a network that begins at a digit, or 0."""
    for length in (16, 15, 14, 19, 18, 17, 13):
        number = digits[start : start + length]
        is_common = length >= _MIN_COMMON_DIGITS or start == 0
        if len(number) == length and is_common and _NETWORKS.fullmatch(number) and passes_luhn(number):
            return length
    return 0


def passes_luhn(number: str) -> bool:
    """Return whether the check digit of a number is valid."""
    digits = [int(digit) for digit in reversed(number)]
    return not (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10
