"""Alternate forms: one form for what is said and written in many ways.

People write ``+1 415.555.2671`` and say "four one five, double five five", write ``BA-117`` and say "B A one one
seven", write ``3:30 pm`` and say "half past three". Each number, code, spelled word, clock time and date of a text gets
a few canonical forms beside its words, which are indexed and searched like words. Two texts that mean the same share
one.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

_DIGITS = {
    name: str(digit) for digit, name in enumerate("zero one two three four five six seven eight nine".split())
} | {"oh": "0", "o": "0", "nought": "0"}
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_NUMBERS = {name: number for number, name in enumerate(_TEENS, 10)} | {
    name: 10 * number for number, name in enumerate(_TENS, 2)
}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_REPEATS = {"double": 2, "triple": 3, "treble": 3}
# Digits that are also other words count only beside another digit.
_AMBIGUOUS_DIGITS = frozenset(["oh", "o"])
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth"
    " sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
_DAY_BY_ORDINAL = (
    {name: day for day, name in enumerate(_ORDINALS, 1)}
    | {
        f"{tens}{separator}{name}": base + day
        for tens, base in (("twenty", 20), ("thirty", 30))
        for day, name in enumerate(_ORDINALS[:9], 1)
        for separator in (" ", "-")
        if base + day <= 31
    }
    | {"thirtieth": 30}
)
# The beginnings of month names in the languages with Latin script that callers speak most, and in Russian.
_MONTHS = (
    "jan(?:uary|uar|vier|eiro)?|ene(?:ro)?|gen(?:naio)?|ianuarie|ocak|янв(?:аря|арь)?",
    "feb(?:ruary|ruar|rero|braio|ruarie)?|fev(?:rier|ereiro)?|subat|фев(?:раля|раль)?",
    "mar(?:ch|z|s|zo|co|tie)?|maerz|mrz|mart|марта?",
    "apr(?:il|ile|ilie)?|avr(?:il)?|abr(?:il)?|nisan|апр(?:еля|ель)?",
    "may|mai|mayo|maggio|maio|mayis|мая|маи",
    "jun(?:e|i|io|ho)?|juin|giu(?:gno)?|iunie|haziran|июн[яь]",
    "jul(?:y|i|io|ho)?|juil(?:let)?|lug(?:lio)?|iulie|temmuz|июл[яь]",
    "aug(?:ust)?|aout|ago(?:sto)?|agustos|авг(?:уста?)?",
    "sep(?:t|tember|tembre|tiembre)?|set(?:tembre|embro)?|septembrie|eylul|сен(?:тября|тябрь)?",
    "o[ck]t(?:ober|obre|ubre)?|out(?:ubro)?|ott(?:obre)?|octombrie|ekim|окт(?:ября|ябрь)?",
    "nov(?:ember|embre|iembre|embro)?|noiembrie|kasim|ноя(?:бря|брь)?",
    "de[cz](?:ember|embre|embro|iembre)?|dic(?:iembre|embre)?|decembrie|aralik|дек(?:абря|абрь)?",
)
_MONTH = "|".join(f"(?P<m{number}>{names})" for number, names in enumerate(_MONTHS, 1))
_ORDINAL = "|".join(sorted(_DAY_BY_ORDINAL, key=len, reverse=True))
_DAY = rf"(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th|er)?|(?P<ordinal>{_ORDINAL}))"
_YEAR = r"(?:,?\s+(?:de\s+)?(?P<year>(?:19|20)\d\d))?"
_DATE_PATTERNS = tuple(
    re.compile(rf"(?<![^\W_]){pattern}(?![^\W_])")
    for pattern in (
        rf"{_DAY}\.?\s*(?:of\s+|de\s+)?(?:{_MONTH})\.?{_YEAR}",
        rf"(?:{_MONTH})\.?\s+(?:the\s+)?{_DAY}{_YEAR}",
        r"(?P<year>(?:19|20)\d\d)-(?P<month>\d{1,2})-(?P<day>\d{1,2})",
        r"(?P<first>\d{1,2})(?P<mark>[./-])(?P<second>\d{1,2})(?P=mark)(?P<year>(?:19|20)\d\d|\d\d)",
    )
)

# Whether a text holds anything of the kind. Most do not, and for them this is all that it costs.
_HINT = re.compile(
    r"\d|(?<![^\W_])(?:one|two|three|four|five|six|seven|eight|nine|zero|nought|ten|eleven|twelve|\w+teen|twenty|thirty"
    r"|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|double|triple|treble|noon|midnight|o'?clock"
    rf"|\w+teenth|{'|'.join(_ORDINALS[:12])}|twentieth|thirtieth)(?![^\W_])"
    r"|(?<![^\W_])[^\W\d_](?:[ .,-]{1,3}[^\W\d_](?![^\W_])){2}"
)
_TOKEN = re.compile(
    r"\d+(?:[.,]\d{3})+(?:[.,]\d{1,2})?(?!\d)|\d+[.,]\d{1,2}(?!\d)(?![.,]\d)|\d+|[^\W\d_]+(?:'[^\W\d_]+)?"
)
# What may stand between two parts of one number, between two parts of one code, and between two spelled letters.
_NUMBER_GAP = re.compile(r"[\s\-\u2010-\u2015./()+,:#]{0,4}")
_CODE_GAP = re.compile(r"[ \-\u2010-\u2015./]?")
_LETTER_GAP = re.compile(r"[ .,\-]{1,3}")
_PAST = re.compile(
    r"(?<![^\W_])(?P<part>half|quarter|five|ten|twenty|twenty[ -]five|\d{1,2})(?: minutes?)? "
    r"(?P<side>past|to|after|before) $"
)
_PAST_MINUTES = {"half": 30, "quarter": 15, "five": 5, "ten": 10, "twenty": 20, "twenty five": 25}
_HALF_DAY = re.compile(
    r"\s*(?:(?P<early>a\.?\s?m\b|in the morning)|(?P<late>p\.?\s?m\b|in the (?:afternoon|evening)|at night))"
)
_OCLOCK = re.compile(r"\s*(?:o'?clock|uhr)\b")
_NAMED_TIME = re.compile(r"(?<![^\W_])(noon|midnight)(?![^\W_])")

_MAX_PARTS = 40  # of one number; longer ones are tables
_MAX_JOINED_PARTS = 6  # of which any run may be a number by itself: a country code in front, an extension behind
_MAX_FORM_CHARS = 24
_MIN_JOINED_DIGITS = 3
# Telephone numbers are the same with and without country code: their last digits decide.
_PHONE_DIGITS, _LOCAL_PHONE_DIGITS = 9, 7
_MAX_CODE_WORD_CHARS = 3
_MAX_CODE_PARTS = 16
_MIN_SPELLED_LETTERS = 3


class _Token(NamedTuple):
    text: str
    start: int
    end: int


class _Part(NamedTuple):
    """A number in a text, in digits, and where it is."""

    digits: str
    start: int
    end: int


def alternate_forms(folded: str, stop_words: frozenset[str]) -> list[str]:
    """Return the canonical forms in a text, each once; those that are words of the text are left out.

    Args:
        folded: The text, folded.
        stop_words: Words that are no part of a code.
    """
    if not _HINT.search(folded):
        return []
    tokens = [_Token(match[0], match.start(), match.end()) for match in _TOKEN.finditer(folded)]
    parts = _find_numbers(folded, tokens)
    found = [
        *_number_forms(folded, parts),
        *_code_forms(folded, tokens, parts, stop_words),
        *_spelled_words(folded, tokens),
        *_time_forms(folded, parts),
        *_date_forms(folded),
    ]
    words = {token.text for token in tokens}
    return [form for form in dict.fromkeys(found) if form not in words and 1 < len(form) <= _MAX_FORM_CHARS]


# Numbers


def _find_numbers(folded: str, tokens: Sequence[_Token]) -> list[_Part]:
    """Return the numbers of a text in order: digits, digits in words ("double five"), and cardinals ("forty two")."""
    parts = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token.text[0].isdigit():
            parts.append(_Part(_normalize_written(token.text), token.start, token.end))
            at += 1
            continue
        digits, count = _read_words(folded, tokens, at)
        if count:
            parts.append(_Part(digits, token.start, tokens[at + count - 1].end))
        at += max(1, count)
    return parts


def _normalize_written(number: str) -> str:
    """Return a written number without separators of thousands, and with a point before cents."""
    whole_parts = re.split(r"[.,]", number)
    if len(whole_parts) > 1 and len(whole_parts[-1]) < 3:
        return "".join(whole_parts[:-1]) + "." + whole_parts[-1]
    return "".join(whole_parts)


def _read_words(folded: str, tokens: Sequence[_Token], at: int) -> tuple[str, int]:
    """Return the digits of the number in words that begins at a token, and of how many tokens it is; 0 for none."""
    word = tokens[at].text
    following = tokens[at + 1].text if at + 1 < len(tokens) else ""
    if word in _REPEATS:
        digit = _DIGITS.get(following) or (following if len(following) == 1 and following.isdigit() else None)
        return (digit * _REPEATS[word], 2) if digit is not None else ("", 0)
    if word in _AMBIGUOUS_DIGITS:
        return (_DIGITS[word], 1) if _is_beside_digit(tokens, at) else ("", 0)
    if word in _DIGITS and following not in _SCALES:
        return _DIGITS[word], 1
    return _read_cardinal(folded, tokens, at)


def _is_beside_digit(tokens: Sequence[_Token], at: int) -> bool:
    neighbors = [tokens[place].text for place in (at - 1, at + 1) if 0 <= place < len(tokens)]
    return any(
        word[0].isdigit() or word in _REPEATS or (word in _DIGITS and word not in _AMBIGUOUS_DIGITS)
        for word in neighbors
    )


def _read_cardinal(folded: str, tokens: Sequence[_Token], at: int) -> tuple[str, int]:
    """Read a cardinal number in words: "two hundred and five", "forty two", "nineteen"."""
    total = current = count = 0
    limit = 10**12  # what follows must be below this: after "forty" only a unit
    while at + count < len(tokens):
        word = tokens[at + count].text
        if count and not _NUMBER_GAP.fullmatch(folded, tokens[at + count - 1].end, tokens[at + count].start):
            break
        unit = _unit(word)
        if unit is not None:
            if unit >= limit:
                break
            current += unit
            limit = 10 if unit >= 20 else 1
        elif word == "hundred" and 0 < current < 100:
            current *= 100
            limit = 100
        elif word in _SCALES and word != "hundred" and count:
            total += max(1, current) * _SCALES[word]
            current, limit = 0, _SCALES[word]
        elif not (word == "and" and _joins_unit(tokens, at + count)):
            break
        count += 1
    return (str(total + current), count) if count else ("", 0)


def _unit(word: str) -> int | None:
    if word in _DIGITS:
        return int(_DIGITS[word]) if _DIGITS[word] != "0" else None
    return _NUMBERS.get(word)


def _joins_unit(tokens: Sequence[_Token], at: int) -> bool:
    """Return whether an "and" is part of a number: after a scale, before a unit."""
    return 0 < at < len(tokens) - 1 and tokens[at - 1].text in _SCALES and _unit(tokens[at + 1].text) is not None


def _number_forms(folded: str, parts: Sequence[_Part]) -> Iterator[str]:
    for run in _runs(folded, parts):
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


def _runs(folded: str, parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """Yield the runs of numbers between which there is nothing but separators."""
    run: list[_Part] = []
    for part in parts:
        if run and (len(run) >= _MAX_PARTS or not _NUMBER_GAP.fullmatch(folded, run[-1].end, part.start)):
            yield run
            run = []
        run.append(part)
    if run:
        yield run


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
    folded: str, tokens: Sequence[_Token], numbers: Sequence[_Part], stop_words: frozenset[str]
) -> Iterator[str]:
    """Yield codes of letters and digits without separators: AB-12, BA 117, "b a one one seven"."""
    run: list[_Part] = []
    for part in [*_merge_numbers(tokens, numbers), _Part("", -1, -1)]:
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


def _merge_numbers(tokens: Sequence[_Token], numbers: Sequence[_Part]) -> Iterator[_Part]:
    """Yield the tokens of a text in order, those of a number as one part."""
    number_by_start = {part.start: part for part in numbers}
    end = -1
    for token in tokens:
        if token.start < end:
            continue
        part = number_by_start.get(token.start) or _Part(*token)
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
            if len(joined) > _MAX_FORM_CHARS:
                break
            if following[0].isdigit():
                yield joined
    for number, letter in pairwise(parts):
        if number[0].isdigit() and len(letter) == 1 and letter.isalpha():
            yield number + letter  # room 12 b


def _spelled_words(folded: str, tokens: Sequence[_Token]) -> Iterator[str]:
    """Yield words that are spelled letter by letter, with "double" where it is said."""
    word, end, repeat = "", -1, 1
    for token in [*tokens, _Token("", len(folded) + 9, -1)]:
        is_near = end < 0 or bool(_LETTER_GAP.fullmatch(folded, end, min(token.start, len(folded))))
        is_letter = len(token.text) == 1 and token.text.isalpha()
        if is_near and token.text in _REPEATS:
            repeat, end = _REPEATS[token.text], token.end
        elif is_near and is_letter:
            word, end, repeat = word + token.text * repeat, token.end, 1
        else:
            if len(word) >= _MIN_SPELLED_LETTERS:
                yield word
            word, end, repeat = (token.text, token.end, 1) if is_letter else ("", -1, 1)


# Clock times and dates


def _time_forms(folded: str, parts: Sequence[_Part]) -> Iterator[str]:
    for place, part in enumerate(parts):
        if not part.digits.isdigit() or len(part.digits) > 2 or int(part.digits) > 24:
            continue
        hour, minute, end = int(part.digits), None, part.end
        past = _PAST.search(folded, max(0, part.start - 24), part.start)
        if past:
            offset = _PAST_MINUTES.get(past["part"].replace("-", " "))
            offset = int(past["part"]) if offset is None else offset
            minutes = hour * 60 + (offset if past["side"] in ("past", "after") else -offset)
            hour, minute = minutes // 60 % 24, minutes % 60
        elif place + 1 < len(parts):
            following = parts[place + 1]
            separator = folded[end : following.start]
            is_minute = len(following.digits) == 2 and following.digits < "60" and separator in (":", ".", " ", "h", "")
            if is_minute and (separator in (":", "h") or _HALF_DAY.match(folded, following.end)):
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


def _date_forms(folded: str) -> Iterator[str]:
    """Yield the dates of a text: the day of the year, and with the year where it is given."""
    for pattern in _DATE_PATTERNS:
        for match in pattern.finditer(folded):
            groups = match.groupdict()
            year = groups.get("year")
            year = f"20{year}" if year and len(year) == 2 else year
            for month, day in _days_of(groups):
                if 1 <= month <= 12 and 1 <= day <= 31:
                    yield f"@{month}/{day}"
                    if year:
                        yield f"@{year}/{month}/{day}"


def _days_of(groups: dict[str, str | None]) -> Iterator[tuple[int, int]]:
    """Yield the month and day of a date; 3/4/2026 may be either of two."""
    first, second = groups.get("first"), groups.get("second")
    if first and second:
        yield int(second), int(first)
        if groups.get("mark") == "/" and first != second:
            yield int(first), int(second)
        return
    day_text, ordinal = groups.get("day"), groups.get("ordinal")
    day = int(day_text) if day_text else _DAY_BY_ORDINAL.get(ordinal or "", 0)
    month_text = groups.get("month")
    named = next((number for number in range(1, 13) if groups.get(f"m{number}")), 0)
    yield (int(month_text) if month_text else named), day
