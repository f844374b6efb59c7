"""Alternate forms: one form for what is said and written in many ways.

People write ``+1 415.555.2671`` and say "four one five, double five five", write ``BA-117`` and say "B A one one
seven", write ``3:30 pm`` and say "half past three". Each number, code, spelled word, clock time and date of a text gets
a few canonical forms beside its words, which are indexed and searched like words. Two texts that mean the same share
one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from memoair_index.date_forms import DAY_BY_ORDINAL, date_forms, find_dates
from memoair_index.numbers_in_text import (
    MAX_FORM_CHARS,
    NUMBER_GAP,
    REPEATS,
    NumberInText,
    Token,
    find_numbers,
    find_tokens,
)
from memoair_index.spoken_spelling import write_spelling

# Whether a text holds anything of the kind. Most do not, and for them this is all that it costs.
_HINT = re.compile(
    r"\d|(?<![^\W_])(?:one|two|three|four|five|six|seven|eight|nine|zero|nought|ten|eleven|twelve|\w+teen|twenty|thirty"
    r"|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|double|triple|treble|noon|midnight|o'?clock"
    rf"|\w+teenth|{'|'.join(name for name in DAY_BY_ORDINAL if not {' ', '-'} & {*name})})(?![^\W_])"
    r"|alpha|alfa|bravo|charlie|delta|(?<![^\W_])[^\W\d_],? (?:as in|for|like) \w"
    r"|(?<![^\W_])[^\W\d_](?:[ .,-]{1,3}[^\W\d_](?![^\W_])){2}"
)
# What separates two numbers of a list, an amount from its cents, two parts of one code, and two spelled letters.
_LIST_GAP = re.compile(r"[.,:]\s+")
_CURRENCY_GAP = re.compile(r"\s?(?:dollars?|euros?|pounds?|bucks?|francs?|usd|eur|gbp|chf|[$€£])\s(?:and\s)?")
_CODE_GAP = re.compile(r"[ \-\u2010-\u2015./]?")
_LETTER_GAP = re.compile(r"[ .,\-]{1,3}")
_PAST = re.compile(
    r"(?<![^\W_])(?P<part>half|quarter|five|ten|twenty|twenty[ -]five|\d{1,2})(?: minutes?)? "
    r"(?P<side>past|to|after|before) $"
)
# "half nine" is half past nine; where something follows that is counted, half of it is meant.
_HALF_BEFORE = re.compile(r"(?<![^\W_])half $")
_HOUR_END = re.compile(r"\s*(?:[,.?!;]|$|(?:a|p)\.?m\b|in the |on |at |for |please|today|to(?:morrow|night)|o'?clock)")
_PAST_MINUTES = {"half": 30, "quarter": 15, "five": 5, "ten": 10, "twenty": 20, "twenty five": 25}
_HALF_DAY = re.compile(
    r"\s*(?:(?P<early>a\.?\s?m\b|in the morning)|(?P<late>p\.?\s?m\b|in the (?:afternoon|evening)|at night))"
)
_OCLOCK = re.compile(r"\s*(?:o'?clock|uhr)\b")
_AFTER_POINT_TIME = re.compile(rf"{_HALF_DAY.pattern}|{_OCLOCK.pattern}")
_TIME_SEPARATORS = (":", ".", " ", "h", "", " uhr ")
_NAMED_TIME = re.compile(r"(?<![^\W_])(noon|midnight)(?![^\W_])")

_MAX_CURRENCY_CHARS = 16
_MAX_SPOKEN_PRICE = 10_000
_MAX_PARTS = 40  # of one number; longer ones are tables
_MAX_JOINED_PARTS = 6  # of which any run may be a number by itself: a country code in front, an extension behind
_MIN_JOINED_DIGITS = 3
# Telephone numbers are the same with and without country code: their last digits decide.
_PHONE_DIGITS, _LOCAL_PHONE_DIGITS = 9, 7
_MAX_CODE_WORD_CHARS = 3
_MAX_CODE_PARTS = 16
_MIN_SPELLED_LETTERS = 3


def alternate_forms(folded: str, stop_words: frozenset[str], *, is_question: bool = False) -> list[str]:
    """Return the canonical forms in a text, each once; those that are words of the text are left out.

    Args:
        folded: The text, folded.
        stop_words: Words that are no part of a code.
        is_question: A question about a day without its month ("on the ninth") has the form that the dates of documents
            have for their days.
    """
    if not _HINT.search(folded):
        return []
    folded = write_spelling(folded)
    tokens = find_tokens(folded)
    parts = find_numbers(folded, tokens)
    dates = list(find_dates(folded))
    date_ends = {date.start: date.end for date in dates if date.is_numeric}
    found = [
        *_number_forms(folded, parts, date_ends),
        *_code_forms(folded, tokens, parts, stop_words),
        *_spelled_words(folded, tokens),
        *_time_forms(folded, parts),
        *date_forms(folded, dates, is_question=is_question),
    ]
    words = {token.text for token in tokens}
    return [form for form in dict.fromkeys(found) if form not in words and 1 < len(form) <= MAX_FORM_CHARS]


# Numbers


def _number_forms(folded: str, parts: Sequence[NumberInText], date_ends: Mapping[int, int]) -> Iterator[str]:
    for part, cents in pairwise(parts):
        is_amount = len(cents.digits) == 2 and part.digits.isdigit()
        if is_amount and _CURRENCY_GAP.fullmatch(folded, part.end, min(cents.start, part.end + _MAX_CURRENCY_CHARS)):
            yield f"{part.digits}.{cents.digits}"  # nineteen dollars and ninety nine cents
    for run in _runs(folded, parts, date_ends):
        if len(run) == 2 and _is_price(folded, *run):
            yield f"{run[0].digits}.{run[1].digits}"
        for part in run:
            yield from _forms_of_number(part.digits)
        digits = [part.digits for part in run if "." not in part.digits]
        if len(digits) > 1:
            yield from _forms_of_number("".join(digits))
        if 2 < len(digits) <= _MAX_JOINED_PARTS:
            for first in range(len(digits)):
                for end in range(first + 2, len(digits) + 1):
                    joined = "".join(digits[first:end])
                    if len(joined) >= _MIN_JOINED_DIGITS:
                        yield from _forms_of_number(joined)


def _is_price(folded: str, whole: NumberInText, cents: NumberInText) -> bool:
    """Return whether two numbers may be an amount that is said without its currency: "ninety nine ninety nine"."""
    are_words = not (folded[whole.start].isdigit() or folded[cents.start].isdigit())
    return are_words and len(cents.digits) == 2 and whole.digits.isdigit() and int(whole.digits) < _MAX_SPOKEN_PRICE


def _runs(folded: str, parts: Sequence[NumberInText], date_ends: Mapping[int, int]) -> Iterator[list[NumberInText]]:
    """Yield the runs of numbers that may be one: with nothing but separators between them, and no date."""
    run: list[NumberInText] = []
    date_end = -1
    for part in parts:
        if run and (len(run) >= _MAX_PARTS or part.start < date_end or not _may_join(folded, run[-1], part)):
            yield run
            run = []
        date_end = max(date_end, date_ends.get(part.start, -1))
        run.append(part)
    if run:
        yield run


def _may_join(folded: str, before: NumberInText, part: NumberInText) -> bool:
    if not NUMBER_GAP.fullmatch(folded, before.end, part.start):
        return False
    # "200, 300" and "4. 5 more" are two numbers; "4, 1, 5" and "four one, double five" are one.
    is_list = _LIST_GAP.fullmatch(folded, before.end, part.start)
    are_written = folded[before.start].isdigit() and folded[part.start].isdigit()
    return not (is_list and are_written and (len(before.digits) > 1 or len(part.digits) > 1 or is_list[0] != ", "))


def _forms_of_number(digits: str) -> Iterator[str]:
    yield digits
    if "." in digits:
        whole, _, cents = digits.partition(".")
        yield f"{whole}.{cents:0<2}" if cents.strip("0") else whole
        return
    bare = digits.lstrip("0")
    if bare != digits:
        yield bare
    for length in (_PHONE_DIGITS, _LOCAL_PHONE_DIGITS):
        if len(bare) >= length:
            yield f"~{bare[-length:]}"


# Codes and spelled words


def _code_forms(
    folded: str, tokens: Sequence[Token], numbers: Sequence[NumberInText], stop_words: frozenset[str]
) -> Iterator[str]:
    """Yield codes of letters and digits without separators: AB-12, BA 117, "b a one one seven"."""
    run: list[NumberInText] = []
    for part in [*_merge_numbers(tokens, numbers), NumberInText("", -1, -1)]:
        is_number = part.digits[:1].isdigit()
        is_word = 0 < len(part.digits) <= _MAX_CODE_WORD_CHARS and (
            len(part.digits) == 1 or part.digits not in stop_words
        )
        fits = (is_number and "." not in part.digits) or is_word
        if run and not (fits and _CODE_GAP.fullmatch(folded, run[-1].end, part.start)):
            yield from _forms_of_code([each.digits for each in run])
            run = []
        if fits:
            run.append(part)


def _merge_numbers(tokens: Sequence[Token], numbers: Sequence[NumberInText]) -> Iterator[NumberInText]:
    """Yield the tokens of a text in order, those of a number as one part."""
    number_by_start = {part.start: part for part in numbers}
    end = -1
    for token in tokens:
        if token.start < end:
            continue
        part = number_by_start.get(token.start) or NumberInText(*token)
        end = part.end
        yield part


def _forms_of_code(parts: Sequence[str]) -> Iterator[str]:
    for first, part in enumerate(parts):
        is_inside_letters = first > 0 and len(parts[first - 1]) == 1 and parts[first - 1].isalpha()
        if part[0].isdigit() or is_inside_letters:
            continue  # a code begins with its first letter
        joined = ""
        for following in parts[first : first + _MAX_CODE_PARTS]:
            joined += following
            if len(joined) > MAX_FORM_CHARS:
                break
            if following[0].isdigit():
                yield joined
    for number, letter in pairwise(parts):
        if number[0].isdigit() and len(letter) == 1 and letter.isalpha():
            yield number + letter  # room 12 b


def _spelled_words(folded: str, tokens: Sequence[Token]) -> Iterator[str]:
    """Yield words that are spelled letter by letter, with "double" where it is said."""
    word, end, repeat = "", -1, 1
    for token in [*tokens, Token("", len(folded) + 9, -1)]:
        is_near = end < 0 or bool(_LETTER_GAP.fullmatch(folded, end, min(token.start, len(folded))))
        is_letter = len(token.text) == 1 and token.text.isalpha()
        if is_near and token.text in REPEATS:
            repeat, end = REPEATS[token.text], token.end
        elif is_near and is_letter:
            # What is longer than a form may be is left out anyway, and would take quadratic time.
            word = word + token.text * repeat if len(word) <= MAX_FORM_CHARS else word
            end, repeat = token.end, 1
        else:
            if len(word) >= _MIN_SPELLED_LETTERS:
                yield word
            word, end, repeat = (token.text, token.end, 1) if is_letter else ("", -1, 1)


# Clock times and dates


def _time_forms(folded: str, parts: Sequence[NumberInText]) -> Iterator[str]:
    for place, part in enumerate(parts):
        if "." in part.digits and _AFTER_POINT_TIME.match(folded, part.end):  # 3.30 pm, 15.30 Uhr
            whole, _, rest = part.digits.partition(".")
            if len(whole) <= 2 and int(whole) <= 24 and len(rest) == 2 and rest < "60":
                yield from _forms_of_time(int(whole), int(rest), _HALF_DAY.match(folded, part.end))
        if not part.digits.isdigit() or len(part.digits) > 2 or int(part.digits) > 24:
            continue
        hour, minute, end = int(part.digits), None, part.end
        past = _PAST.search(folded, max(0, part.start - 24), part.start)
        if past:
            offset = _PAST_MINUTES.get(past["part"].replace("-", " "))
            offset = int(past["part"]) if offset is None else offset
            minutes = hour * 60 + (offset if past["side"] in ("past", "after") else -offset)
            hour, minute = minutes // 60 % 24, minutes % 60
        elif (
            1 <= hour <= 12
            and _HALF_BEFORE.search(folded, max(0, part.start - 6), part.start)
            and _HOUR_END.match(folded, end)
        ):
            minute = 30
        elif place + 1 < len(parts):
            following = parts[place + 1]
            separator = folded[end : following.start]
            is_minute = len(following.digits) == 2 and following.digits < "60" and separator in _TIME_SEPARATORS
            if is_minute and (separator in (":", "h", " uhr ") or _HALF_DAY.match(folded, following.end)):
                minute, end = int(following.digits), following.end
        half = _HALF_DAY.match(folded, end)
        if minute is None and not half and not _OCLOCK.match(folded, end):
            continue
        yield from _forms_of_time(hour, minute or 0, half)
    for match in _NAMED_TIME.finditer(folded):
        yield "@12:00" if match[1] == "noon" else "@0:00"
        yield "@~12:00"


def _forms_of_time(hour: int, minute: int, half: "re.Match[str] | None") -> Iterator[str]:
    """Yield the time of a clock with twelve hours, and that of one with twenty-four where it is known."""
    yield f"@~{hour % 12 or 12}:{minute:02}"
    if hour > 12 or hour == 0:
        yield f"@{hour % 24}:{minute:02}"
    elif half:
        yield f"@{hour % 12 + (12 if half['late'] else 0)}:{minute:02}"
