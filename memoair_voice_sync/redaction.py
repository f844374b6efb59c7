"""Redaction of account, card and telephone numbers, for the ``redact=`` argument of a client.

Example:
    ```python
    from memoair_voice_sync.redaction import redact

    client = MemoAirVoiceClientSync(..., redact=redact)
    ```

A small set of patterns, not a product: it finds numbers that are written in digits, as speech recognizers write them.
It does not find names, addresses, or digits in words ("four two four two"). ``docs/calls.md`` lists what counts as a
number. An application that needs more passes a function of its own.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial

__all__ = ["KINDS", "redact", "redactor"]

_SEPARATOR = r"[ \u00a0\u202f.\-\u2010-\u2013]"
_DIGIT_GROUPS = re.compile(rf"\d+(?:{_SEPARATOR}{{1,2}}\d+)*")
# A recognizer writes a comma between groups where it hears a pause.
_COMMA_DIGIT_GROUPS = re.compile(rf"\d+(?:(?:,|{_SEPARATOR}){{1,2}}\d+)*")
_DIGITS = re.compile(r"\d+")
# The first digits of payment cards. A count of milliseconds since 1970 begins with another digit.
_CARD_FIRST_DIGITS = "23456"
_MIN_CARD_DIGITS, _MAX_CARD_DIGITS = 13, 19

# A country code, two check digits and the account, usually written in groups of four.
_IBAN = re.compile(r"(?<![A-Za-z])[A-Za-z]{2}\d{2}(?:[ \u00a0-]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])", re.ASCII)
_IBAN_GROUP = re.compile(r"[A-Za-z0-9]+", re.ASCII)
_MIN_IBAN_LENGTH = 15
# The length of account numbers by country (SWIFT's IBAN registry).
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH CR HR LI LV",
        22: "BG BH DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}

_NEXT_DIGIT = rf"(?:{_SEPARATOR}|[()/,]){{0,3}}\d"  # the next digit, with the characters that may precede it
# With a country code.
_INTERNATIONAL_PHONE = re.compile(rf"\+{_SEPARATOR}?(?:{_NEXT_DIGIT}){{7,15}}(?![0-9A-Za-z_])")
_DATE = r"\d{1,2}[-./]\d{1,2}[-./](?:\d{4}|\d{2})(?![-./]?\d)"
_AREA_CODE = rf"(?:\([2-9]\d\d\)|[2-9]\d\d){_SEPARATOR}?"
_PHONE = re.compile(
    rf"(?<![0-9A-Za-z_])(?!{_DATE})(?:"
    rf"(?:\(0\d{{1,5}}\)(?:{_NEXT_DIGIT}){{4,10}}|0(?:{_NEXT_DIGIT}){{8,15}})"  # with the prefix 0 or 00
    rf"|(?:1{_SEPARATOR}?)?{_AREA_CODE}[2-9]\d\d{_SEPARATOR}?\d{{4}}"  # as in North America
    rf"|\d{{3}}-\d{{4}}"  # a local number
    rf"|\d(?:(?:,|{_SEPARATOR}){{1,2}}\d){{8,14}}"  # digit by digit
    rf")(?![0-9A-Za-z_])"
)
# Matches begin only at the start of a word, so that a long text without an "@" is scanned once.
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")

Spans = Iterator[tuple[int, int]]


def _pattern_spans(pattern: re.Pattern[str]) -> Callable[[str], Spans]:
    return lambda text: (match.span() for match in pattern.finditer(text))


def _card_spans(digit_runs: re.Pattern[str], text: str) -> Spans:
    """Yield the spans of card numbers: whole groups of digits with a valid length and check digit."""
    for run in digit_runs.finditer(text):
        groups = [group.span() for group in _DIGITS.finditer(text, run.start(), run.end())]
        position = 0
        while position < len(groups):
            # A telephone number with its country code, even if the check digit of a card is valid.
            is_phone = text[max(0, groups[position][0] - 1)] == "+"
            last = None if is_phone else _last_card_group(text, groups, position)
            if last is not None:
                yield groups[position][0], groups[last][1]
                position = last
            position += 1


def _last_card_group(text: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """Return the index of the last group of the longest card number that begins with the group ``first``, or None."""
    if text[groups[first][0]] not in _CARD_FIRST_DIGITS:
        return None
    longest, number = None, ""
    for last in range(first, len(groups)):
        begin, end = groups[last]
        if len(number) + end - begin > _MAX_CARD_DIGITS:
            break
        number += text[begin:end]
        if len(number) >= _MIN_CARD_DIGITS and _passes_luhn(number):
            longest = last
    return longest


def _passes_luhn(number: str) -> bool:
    digits = [int(digit) for digit in reversed(number)]
    return not (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10


def _iban_spans(text: str) -> Spans:
    """Yield the spans of account numbers with valid check digits."""
    position = 0
    while match := _IBAN.search(text, position):
        end = _iban_end(match[0])
        position = match.end()
        if end is not None:
            yield match.start(), match.start() + end
            position = match.start() + end


def _iban_end(text: str) -> int | None:
    """Return where the account number at the start of ``text`` ends, or None if its check digits are wrong.

    Words after a number look like more of it, and by chance (1 in 97) the check digits are valid with them, too. The
    length of the country's numbers decides first, then the conventional spelling (in one piece, or in groups of four).
    Otherwise a number is extended only over digits, and over capitals if it is written in capitals.
    """
    groups = list(_IBAN_GROUP.finditer(text))
    candidates = [
        count
        for count in range(1, len(groups) + 1)
        if _is_iban("".join(_IBAN_GROUP.findall(text[: groups[count - 1].end()])))
    ]
    conventional = [
        count for count in candidates if count == 1 or all(len(group[0]) == 4 for group in groups[: count - 1])
    ]
    national_length = _IBAN_LENGTHS.get(text[:2].upper())
    found: int | None = None
    for count in conventional or candidates:
        end = groups[count - 1].end()
        if sum(len(group[0]) for group in groups[:count]) == national_length:
            return end
        added = text[found or 0 : end]
        if found is None or any(char.isdigit() for char in added) or (added.isupper() and text[:found].isupper()):
            found = end
    return found


def _is_iban(number: str) -> bool:
    rearranged = number[4:] + number[:4]
    return len(number) >= _MIN_IBAN_LENGTH and int("".join(str(int(char, 36)) for char in rearranged)) % 97 == 1


def _replace_spans(text: str, find_spans: Callable[[str], Spans], placeholder: str) -> str:
    parts, done = [], 0
    for begin, end in find_spans(_with_ascii_digits(text)):
        parts += [text[done:begin], placeholder]
        done = end
    return "".join([*parts, text[done:]])


def _with_ascii_digits(text: str) -> str:
    """Return a text of the same length with the digits of all scripts replaced by 0 to 9."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


# The order of the searches: the most certain kind first, since a long number may match several.
_STEPS: list[tuple[str, Callable[[str], Spans]]] = [
    ("email", _pattern_spans(_EMAIL)),
    ("iban", _iban_spans),
    ("phone", _pattern_spans(_INTERNATIONAL_PHONE)),
    ("card", partial(_card_spans, _DIGIT_GROUPS)),
    ("card", partial(_card_spans, _COMMA_DIGIT_GROUPS)),
    ("phone", _pattern_spans(_PHONE)),
]
_PLACEHOLDERS = {"iban": "[IBAN]", "card": "[card number]", "phone": "[phone number]", "email": "[e-mail address]"}
KINDS = tuple(_PLACEHOLDERS)


def redactor(*kinds: str) -> Callable[[str], str]:
    """Return a function that redacts some kinds of data, for the ``redact=`` argument of a client.

    Args:
        *kinds: What to redact, at least one of `KINDS`: ``iban``, ``card``, ``phone``, ``email``.

    Returns:
        A function from a text to the redacted text. It is safe to call from any thread, and takes time in proportion
            to the length of the text.

    Raises:
        ValueError: If no kind is given, or one is unknown.
    """
    if not kinds or set(kinds) - set(KINDS):
        raise ValueError(f"kinds must be at least one of {', '.join(KINDS)}")
    steps = [(find, _PLACEHOLDERS[kind]) for kind, find in _STEPS if kind in kinds]

    def redact_kinds(text: str) -> str:
        for find, instead in steps:
            text = _replace_spans(text, find, instead)
        return text

    return redact_kinds


_redact_default_kinds = redactor("iban", "card", "phone")


def redact(text: str) -> str:
    """Replace account numbers (IBAN), card numbers and telephone numbers in a text by their names in brackets.

    Args:
        text: What was said.

    Returns:
        The redacted text, such as "My card is [card number]."
    """
    return _redact_default_kinds(text)
