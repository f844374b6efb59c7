"""Account numbers (IBAN): a country code, two check digits and the account."""

import re
from collections.abc import Iterator

from memoair_redaction.spoken_text import WEAK_SEPARATOR, Span

# Usually written in groups of four.
_IBAN = re.compile(r"(?<![A-Za-z])[A-Za-z]{2}\d{2}(?:[ \u00a0-]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])", re.ASCII)
_GROUP = re.compile(r"[A-Za-z0-9]+", re.ASCII)
_MIN_LENGTH = 15
# Spoken, spelled, or split in another way: recognized by the exact length of the country's numbers.
_SEPARATORS = rf"[\s,.\"':\u2010-\u2014{WEAK_SEPARATOR}-]{{0,5}}"
_LOOSE_START = re.compile(rf"(?<![A-Za-z])[A-Za-z][ .-]{{0,2}}[A-Za-z]{_SEPARATORS}\d{_SEPARATORS}\d", re.ASCII)
_NEXT_CHAR = re.compile(rf"{_SEPARATORS}([A-Za-z0-9])", re.ASCII)
# The length of account numbers by country (SWIFT's IBAN registry).
_LENGTHS = {
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


def find_ibans(text: str) -> Iterator[Span]:
    """Yield the spans of account numbers with valid check digits.

    Args:
        text: The text with number words as digits, and with other findings masked.
    """
    position = 0
    while match := _LOOSE_START.search(text, position):
        end = _national_end(text, match.start())
        if end is None and (strict := _IBAN.match(text, match.start())):
            end = _strict_end(strict[0])
            end = None if end is None else match.start() + end
        if end is not None:
            yield match.start(), end
        position = match.end() if end is None else end


def _national_end(text: str, begin: int) -> int | None:
    """Return the end of the account number that has exactly the length of its country, or None."""
    country = "".join(_GROUP.findall(text[begin : begin + 4]))[:2].upper()
    length = _LENGTHS.get(country)
    number, position = "", begin
    while length is not None and len(number) < length and (match := _NEXT_CHAR.match(text, position)):
        number += match[1]
        position = match.end()
    is_ended = not re.match(r"[A-Za-z0-9]", text[position : position + 1])
    # By chance (1 in 97), the check digits are valid for the letters of words, too.
    has_words = 2 * sum(char.isdigit() for char in number) < len(number)
    return position if length == len(number) and is_ended and not has_words and _is_iban(number) else None


def _strict_end(text: str) -> int | None:
    """Return where the account number at the start of ``text`` ends, or None if its check digits are wrong.

    Words after a number look like more of it, and by chance (1 in 97) the check digits are valid with them, too. So
    only the conventional spelling counts (in one piece, or in groups of four), and a number is extended only over
    digits, and over capitals if it is written in capitals.
    """
    groups = list(_GROUP.finditer(text))
    found: int | None = None
    for count in range(1, len(groups) + 1):
        if count > 1 and len(groups[count - 2][0]) != 4:
            break
        end = groups[count - 1].end()
        added = text[found or 0 : end]
        is_longer = any(char.isdigit() for char in added) or (added.isupper() and text[:found].isupper())
        if (found is None or is_longer) and _is_iban("".join(_GROUP.findall(text[:end]))):
            found = end
    return found


def _is_iban(number: str) -> bool:
    rearranged = number[4:] + number[:4]
    return len(number) >= _MIN_LENGTH and int("".join(str(int(char, 36)) for char in rearranged)) % 97 == 1
