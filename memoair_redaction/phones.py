"""Telephone numbers: with a country code, in national formats, named as such, or said digit by digit."""

import re
from collections.abc import Iterator
from itertools import pairwise

from memoair_redaction import cues
from memoair_redaction.national_formats import is_national_format, is_valid_anywhere
from memoair_redaction.spoken_text import Span, SpokenText

_SEPARATOR = r"[ \u00a0\u202f.\-\u2010-\u2013]"
_NEXT_DIGIT = rf"(?:{_SEPARATOR}|[()/,]){{0,3}}\d"  # the next digit, with the characters that may precede it
# With a country code.
_INTERNATIONAL = re.compile(rf"\+{_SEPARATOR}?(?:{_NEXT_DIGIT}){{7,15}}(?![0-9A-Za-z_])")
_DATE = (
    r"(?:\d{1,2}[-./] ?\d{1,2}[-./] ?(?:\d{4}|\d{2})|\d{4}[-./]\d{1,2}[-./]\d{1,2}|(?:0?[1-9]|1[0-2])/(?:19"
    r"|20)\d\d)(?![-./]?\d)"
)
# Not within a word, a date, a time, or a decimal number.
_START = rf"(?<![0-9A-Za-z_])(?<![0-9][.:/])(?<![A-Za-z]-)(?<![A-Za-z]/)(?<!\\)(?!{_DATE}|\d{{5}}-\d{{4}}(?!\d))"
_AREA_CODE = rf"(?:\([2-9]\d\d\)|[2-9]\d\d){_SEPARATOR}?"
_WRITTEN = re.compile(
    rf"{_START}(?:"
    rf"(?:\(0\d{{1,5}}\)(?:{_NEXT_DIGIT}){{4,10}}|(?:8[ -])?0(?!00|\."
    rf"|, ?\d\d)(?:{_NEXT_DIGIT}){{8,15}})"  # with the prefix 0 or 00
    rf"|(?:1{_SEPARATOR}?)?{_AREA_CODE}[2-9]\d\d{_SEPARATOR}?\d{{4}}"  # as in North America
    rf"|[2-9]\d\d-\d{{4}}(?![-./]\d)"  # a local number
    rf"|\d(?:(?:,|{_SEPARATOR}){{1,2}}\d){{8,14}}"  # digit by digit
    rf")(?![0-9A-Za-z_])"
)
_MIN_DIGITS, _MAX_DIGITS = 7, 15
# Groups of digits that may be one number.
_ROW = re.compile(rf"{_START}(?<![0-9],)\(?\d+\)?(?:(?:{_SEPARATOR}|[,/()]){{1,3}}\d+)*(?![0-9A-Za-z_]|[:,.]\d)")
# Said in words, with pauses where the speaker makes them.
_SPOKEN_ROW = re.compile(rf"\+?\d+(?:(?:{_SEPARATOR}|[,/\s…]){{1,5}}\d+)*")
_MIN_SPOKEN_DIGITS = 9  # without a word that names it
_MIN_SPOKEN_WORDS = 3  # otherwise, a word is beside a number in digits: "12-14, 1814. One of them"
_MIN_BARE_DIGITS = 9  # in a national format, without a word that names it
_SPOKEN_LOCAL = re.compile(r"(?:\d ?){3}[,.-]+ ?(?:\d ?){4}")
_ROW_BEFORE = re.compile(rf"(?:\d+{_SEPARATOR}{{1,2}})+$")
_ROW_FROM = re.compile(rf"\d+(?:{_SEPARATOR}{{1,2}}\d+)*")
_MAX_ROW_CHARS = 60
_NATIONAL_DIGITS = 10  # as in North America
# An answer that consists of a number of eight digits, as in Scandinavia and Singapore.
_MIN_ANSWER_DIGITS = 8
_BEFORE_ANSWER = re.compile(
    r"\W*(?:(?:it's|it is|its|that's|yes|yeah|yep|sure|ok|okay|um|uh|so|well|of course|ja|det er|jo)\W+)*",
    re.IGNORECASE,
)
_AFTER_ANSWER = re.compile(
    r"\W*(?:(?:thanks|thank you|please|ok|okay|and that's it|takk|tak|bitte|danke)\W*)*", re.IGNORECASE
)
_YEAR = re.compile(r"(?:19|20)\d\d")
_COUNTING_STEPS = (1, 2, 5, 10, 100)
_AMOUNT = re.compile(r"\d{1,3}(?:[ .,]000)+|\d{1,3}(?:,\d{3})+")  # a quantity, with separated thousands
_DECIMALS = re.compile(r"\d\s[.]\d")


def find_international_phones(text: str) -> Iterator[Span]:
    """Yield the spans of telephone numbers with a country code, with ``+`` before it.

    Args:
        text: The text with number words as digits, and with other findings masked.
    """
    for match in _INTERNATIONAL.finditer(text):
        yield match.span()


def find_phones(text: str, spoken: SpokenText) -> Iterator[Span]:
    """Yield the spans of telephone numbers without a country code.

    Args:
        text: The text with number words as digits, and with other findings masked.
        spoken: What of it was number words.
    """
    masked = list(text)
    for find in (lambda rest: _find_spoken(rest, spoken), _find_written, _find_rows):
        for begin, end in find("".join(masked)):
            masked[begin:end] = "\0" * (end - begin)
            yield begin, end


def _find_spoken(text: str, spoken: SpokenText) -> Iterator[Span]:
    if not spoken.spoken:
        return
    for row in _SPOKEN_ROW.finditer(text):
        if not spoken.is_spoken(*row.span()):
            continue
        numbers = re.findall(r"\d+", row[0])
        count = sum(map(len, numbers))
        if not _MIN_DIGITS <= count <= _MAX_DIGITS or cues.is_measured(text, row.end()):
            continue
        if spoken.count_spoken(*row.span()) < _MIN_SPOKEN_WORDS or _has_large_spoken_number(spoken, row):
            continue
        if cues.names_other_number(text, row.start()):
            continue
        is_likely = count >= _MIN_SPOKEN_DIGITS or _SPOKEN_LOCAL.fullmatch(row[0])
        if cues.names_phone(text, row.span()) or (is_likely and not _is_counting(numbers)):
            yield row.span()


def _has_large_spoken_number(spoken: SpokenText, row: re.Match[str]) -> bool:
    """Return whether the row has a number of thousands in words, which is how quantities are said."""
    return any(end - begin > 3 for begin, end in spoken.spoken if row.start() <= begin and end <= row.end())


def _find_written(text: str) -> Iterator[Span]:
    for match in _WRITTEN.finditer(text):
        begin = _row_begin(text, match.start())
        is_list = begin < match.start() and match[0][0] not in "0(+" and _row_digits(text, begin) % _NATIONAL_DIGITS
        is_other = cues.names_other_number(text, begin) or cues.is_measured(text, match.end())
        is_other = is_other or bool(_DECIMALS.search(match[0]))
        if not is_list and not is_other and not _is_counting(re.findall(r"\d+", match[0])):
            yield match.span()


def _row_digits(text: str, begin: int) -> int:
    """Return the number of digits in groups that are separated by spaces and the like."""
    row = _ROW_FROM.match(text, begin, begin + _MAX_ROW_CHARS)
    return sum(char.isdigit() for char in row[0]) if row else 0


def _row_begin(text: str, begin: int) -> int:
    """Return where the groups of digits begin that a group of digits continues."""
    row = _ROW_BEFORE.search(text, max(0, begin - _MAX_ROW_CHARS), begin)
    return begin if row is None else row.start()


def _find_rows(text: str) -> Iterator[Span]:
    for row in _ROW.finditer(text):
        numbers = re.findall(r"\d+", row[0])
        count = sum(map(len, numbers))
        if not _MIN_DIGITS <= count <= _MAX_DIGITS or _AMOUNT.fullmatch(row[0]) or _DECIMALS.search(row[0]):
            continue
        if cues.is_measured(text, row.end()) or cues.names_other_number(text, row.start()):
            continue
        if cues.names_phone(text, row.span()):
            yield row.span()
        elif not _is_counting(numbers):
            has_name = count > _MIN_DIGITS and cues.may_name_phone(text, row.start())
            is_long = count >= _MIN_BARE_DIGITS or row[0][0] == "0" or _is_answer(text, row.span(), numbers)
            is_grouped = len(numbers) > 1 and count >= _MIN_ANSWER_DIGITS and is_long
            if (is_grouped and is_national_format(row[0])) or (has_name and is_valid_anywhere(row[0])):
                yield row.span()


def _is_answer(text: str, span: Span, numbers: list[str]) -> bool:
    """Return whether a text consists of a number of eight digits, as the answer to a question does."""
    is_date = bool(_YEAR.fullmatch(numbers[0]))
    is_spaced = set(text[slice(*span)]) <= set("0123456789 ")
    before, after = _BEFORE_ANSWER.fullmatch(text, 0, span[0]), _AFTER_ANSWER.fullmatch(text, span[1])
    return is_spaced and not is_date and before is not None and after is not None


def _is_counting(numbers: list[str]) -> bool:
    """Return whether numbers are counted off: one, two, three."""
    steps = {int(b) - int(a) for a, b in pairwise(numbers)}
    has_zeros = any(number[0] == "0" for number in numbers[:-1])
    return len(numbers) > 3 and len(steps) == 1 and not has_zeros and abs(steps.pop()) in _COUNTING_STEPS
