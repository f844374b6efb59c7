"""Numbers that no memory should hold, taken out of what was said: for the ``redact=`` of a client.

    from memoair_voice_sync.redaction import redact

    client = MemoAirVoiceClientSync(..., redact=redact)

A small set of patterns, not a product: it finds numbers that are written in digits, as speech recognisers write them,
and knows nothing of names, addresses, or digits in words ("four two four two"). What it takes for a number is in
``docs/calls.md``. Whoever needs more gives a function of his own.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial

__all__ = ["KINDS", "redact", "redactor"]

_SEPARATOR = r"[ \u00a0\u202f.\-\u2010-\u2013]"
_DIGIT_GROUPS = re.compile(rf"\d+(?:{_SEPARATOR}{{1,2}}\d+)*")
# A recogniser that hears a pause between groups writes a comma there.
_COMMA_DIGIT_GROUPS = re.compile(rf"\d+(?:(?:,|{_SEPARATOR}){{1,2}}\d+)*")
_DIGITS = re.compile(r"\d+")
# From the first sign of a card's number: cards of payment begin so, and a count of milliseconds since 1970 does not.
_CARD_FIRST_DIGITS = "23456"
_MIN_CARD_DIGITS, _MAX_CARD_DIGITS = 13, 19

# Behind a country, two check digits and the account, as a rule in groups of four.
_IBAN = re.compile(r"(?<![A-Za-z])[A-Za-z]{2}\d{2}(?:[ \u00a0-]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])", re.ASCII)
_IBAN_GROUP = re.compile(r"[A-Za-z0-9]+", re.ASCII)
_MIN_IBAN_LENGTH = 15
# How long the numbers of a country are (SWIFT's IBAN registry).
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

_NEXT_DIGIT = rf"(?:{_SEPARATOR}|[()/,]){{0,3}}\d"  # the next digit, and what may stand before it
# With the code of a country.
_INTERNATIONAL_PHONE = re.compile(rf"\+{_SEPARATOR}?(?:{_NEXT_DIGIT}){{7,15}}(?![0-9A-Za-z_])")
_DATE = r"\d{1,2}[-./]\d{1,2}[-./](?:\d{4}|\d{2})(?![-./]?\d)"
_AREA_CODE = rf"(?:\([2-9]\d\d\)|[2-9]\d\d){_SEPARATOR}?"
_PHONE = re.compile(
    rf"(?<![0-9A-Za-z_])(?!{_DATE})(?:"
    rf"(?:\(0\d{{1,5}}\)(?:{_NEXT_DIGIT}){{4,10}}|0(?:{_NEXT_DIGIT}){{8,15}})"  # with the 0 or 00 of a long-distance call
    rf"|(?:1{_SEPARATOR}?)?{_AREA_CODE}[2-9]\d\d{_SEPARATOR}?\d{{4}}"  # as in North America
    rf"|\d{{3}}-\d{{4}}"  # within a town
    rf"|\d(?:(?:,|{_SEPARATOR}){{1,2}}\d){{8,14}}"  # digit by digit
    rf")(?![0-9A-Za-z_])"
)
# Begins only where a word does: a long text without an "@" is read once.
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")

Spans = Iterator[tuple[int, int]]


def _pattern_spans(pattern: re.Pattern[str]) -> Callable[[str], Spans]:
    return lambda text: (match.span() for match in pattern.finditer(text))


def _card_spans(digit_runs: re.Pattern[str], text: str) -> Spans:
    """Where numbers stand that are long enough and whose last digit is right: whole groups of a run of digits."""
    for run in digit_runs.finditer(text):
        groups = [group.span() for group in _DIGITS.finditer(text, run.start(), run.end())]
        position = 0
        while position < len(groups):
            is_phone = text[max(0, groups[position][0] - 1)] == "+"  # a telephone number, whatever its last digit
            last = None if is_phone else _last_card_group(text, groups, position)
            if last is not None:
                yield groups[position][0], groups[last][1]
                position = last
            position += 1


def _last_card_group(text: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """The last group of the longest card that begins with a group."""
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
    """Yield the spans of account numbers whose check digits are right."""
    position = 0
    while match := _IBAN.search(text, position):
        end = _iban_end(match[0])
        position = match.end()
        if end is not None:
            yield match.start(), match.start() + end
            position = match.start() + end


def _iban_end(text: str) -> int | None:
    """Return where the account number at the start of ``text`` ends, or None if its check digits are wrong.

    The words behind a number look like more of it, and by chance (1 in 97) the check digits are right with them, too.
    A country whose numbers end there decides, then the usual way to write one (whole, or in groups of four). After
    that a number goes on only as far as it must: over digits, and over capitals in a number that is written in them.
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
    """A text of the same length, whose digits are 0 to 9 in whatever script they are written."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


# What is looked for one after another: of a long number, the surest first.
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
    """A function that takes numbers of some `KINDS` out of a text: ``iban``, ``card``, ``phone``, ``email``.

    Safe to use from any thread; takes time in proportion to the text. Raises ValueError for a kind that is not known.
    """
    if not kinds or set(kinds) - set(KINDS):
        raise ValueError(f"kinds can be {', '.join(KINDS)}; at least one is wanted")
    steps = [(find, _PLACEHOLDERS[kind]) for kind, find in _STEPS if kind in kinds]

    def redact_kinds(text: str) -> str:
        for find, instead in steps:
            text = _replace_spans(text, find, instead)
        return text

    return redact_kinds


_redact_default_kinds = redactor("iban", "card", "phone")


def redact(text: str) -> str:
    """A text without account numbers (IBAN), payment cards and telephone numbers; each leaves its name in brackets."""
    return _redact_default_kinds(text)
