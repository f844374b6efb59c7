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
_GROUPS = re.compile(rf"\d+(?:{_SEPARATOR}{{1,2}}\d+)*")
# A recogniser that hears a pause between groups writes a comma there.
_PAUSED_GROUPS = re.compile(rf"\d+(?:(?:,|{_SEPARATOR}){{1,2}}\d+)*")
_DIGITS = re.compile(r"\d+")
# From the first sign of a card's number: cards of payment begin so, and a count of milliseconds since 1970 does not.
_CARD_BEGINS = "23456"
_SHORTEST_CARD, _LONGEST_CARD = 13, 19

# Behind a country, two check digits and the account, as a rule in groups of four.
_IBAN = re.compile(r"(?<![A-Za-z])[A-Za-z]{2}\d{2}(?:[ \u00a0-]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])", re.ASCII)
_IBAN_GROUP = re.compile(r"[A-Za-z0-9]+", re.ASCII)
_SHORTEST_IBAN = 15
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

_NEXT = rf"(?:{_SEPARATOR}|[()/,]){{0,3}}\d"  # the next digit, and what may stand before it
# With the code of a country.
_FAR_PHONE = re.compile(rf"\+{_SEPARATOR}?(?:{_NEXT}){{7,15}}(?![0-9A-Za-z_])")
_DATE = r"\d{1,2}[-./]\d{1,2}[-./](?:\d{4}|\d{2})(?![-./]?\d)"
_AREA = rf"(?:\([2-9]\d\d\)|[2-9]\d\d){_SEPARATOR}?"
_PHONE = re.compile(
    rf"(?<![0-9A-Za-z_])(?!{_DATE})(?:"
    rf"(?:\(0\d{{1,5}}\)(?:{_NEXT}){{4,10}}|0(?:{_NEXT}){{8,15}})"  # with the 0 or 00 of a long-distance call
    rf"|(?:1{_SEPARATOR}?)?{_AREA}[2-9]\d\d{_SEPARATOR}?\d{{4}}"  # as in North America
    rf"|\d{{3}}-\d{{4}}"  # within a town
    rf"|\d(?:(?:,|{_SEPARATOR}){{1,2}}\d){{8,14}}"  # digit by digit
    rf")(?![0-9A-Za-z_])"
)
# Begins only where a word does: a long text without an "@" is read once.
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")

Places = Iterator[tuple[int, int]]


def _spans(pattern: re.Pattern[str]) -> Callable[[str], Places]:
    return lambda text: (match.span() for match in pattern.finditer(text))


def _cards(runs: re.Pattern[str], text: str) -> Places:
    """Where numbers stand that are long enough and whose last digit is right: whole groups of a run of digits."""
    for run in runs.finditer(text):
        groups = [group.span() for group in _DIGITS.finditer(text, run.start(), run.end())]
        place = 0
        while place < len(groups):
            is_call = text[max(0, groups[place][0] - 1)] == "+"  # a telephone number, whatever its last digit
            end = None if is_call else _end_of_card(text, groups, place)
            if end is not None:
                yield groups[place][0], groups[end][1]
                place = end
            place += 1


def _end_of_card(text: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """The last group of the longest card that begins with a group."""
    if text[groups[first][0]] not in _CARD_BEGINS:
        return None
    found, number = None, ""
    for last in range(first, len(groups)):
        begin, end = groups[last]
        if len(number) + end - begin > _LONGEST_CARD:
            break
        number += text[begin:end]
        if len(number) >= _SHORTEST_CARD and _passes_luhn(number):
            found = last
    return found


def _passes_luhn(number: str) -> bool:
    digits = [int(digit) for digit in reversed(number)]
    return not (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10


def _ibans(text: str) -> Places:
    """Yield the spans of account numbers whose check digits are right."""
    place = 0
    while match := _IBAN.search(text, place):
        end = _end_of_iban(match[0])
        place = match.end()
        if end is not None:
            yield match.start(), match.start() + end
            place = match.start() + end


def _end_of_iban(text: str) -> int | None:
    """Return where the account number at the start of ``text`` ends, or None if its check digits are wrong.

    The words behind a number look like more of it, and by chance (1 in 97) the check digits are right with them, too.
    A country whose numbers end there decides, then the usual way to write one (whole, or in groups of four). After
    that a number goes on only as far as it must: over digits, and over capitals in a number that is written in them.
    """
    groups = list(_IBAN_GROUP.finditer(text))
    ends = [
        count
        for count in range(1, len(groups) + 1)
        if _is_iban("".join(_IBAN_GROUP.findall(text[: groups[count - 1].end()])))
    ]
    usual = [count for count in ends if count == 1 or all(len(group[0]) == 4 for group in groups[: count - 1])]
    national = _IBAN_LENGTHS.get(text[:2].upper())
    found: int | None = None
    for count in usual or ends:
        end = groups[count - 1].end()
        if sum(len(group[0]) for group in groups[:count]) == national:
            return end
        added = text[found or 0 : end]
        if found is None or any(sign.isdigit() for sign in added) or (added.isupper() and text[:found].isupper()):
            found = end
    return found


def _is_iban(number: str) -> bool:
    turned = number[4:] + number[:4]
    return len(number) >= _SHORTEST_IBAN and int("".join(str(int(sign, 36)) for sign in turned)) % 97 == 1


def _taken_out(text: str, find: Callable[[str], Places], instead: str) -> str:
    parts, done = [], 0
    for begin, end in find(_in_western_digits(text)):
        parts += [text[done:begin], instead]
        done = end
    return "".join([*parts, text[done:]])


def _in_western_digits(text: str) -> str:
    """A text of the same length, whose digits are 0 to 9 in whatever script they are written."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in text)


# What is looked for one after another: of a long number, the surest first.
_STEPS: list[tuple[str, Callable[[str], Places]]] = [
    ("email", _spans(_EMAIL)),
    ("iban", _ibans),
    ("phone", _spans(_FAR_PHONE)),
    ("card", partial(_cards, _GROUPS)),
    ("card", partial(_cards, _PAUSED_GROUPS)),
    ("phone", _spans(_PHONE)),
]
_INSTEAD = {"iban": "[IBAN]", "card": "[card number]", "phone": "[phone number]", "email": "[e-mail address]"}
KINDS = tuple(_INSTEAD)


def redactor(*kinds: str) -> Callable[[str], str]:
    """A function that takes numbers of some `KINDS` out of a text: ``iban``, ``card``, ``phone``, ``email``.

    Safe to use from any thread; takes time in proportion to the text. Raises ValueError for a kind that is not known.
    """
    if not kinds or set(kinds) - set(KINDS):
        raise ValueError(f"kinds can be {', '.join(KINDS)}; at least one is wanted")
    chosen = [(find, _INSTEAD[kind]) for kind, find in _STEPS if kind in kinds]

    def without(text: str) -> str:
        for find, instead in chosen:
            text = _taken_out(text, find, instead)
        return text

    return without


_redact = redactor("iban", "card", "phone")


def redact(text: str) -> str:
    """A text without account numbers (IBAN), payment cards and telephone numbers; each leaves its name in brackets."""
    return _redact(text)
