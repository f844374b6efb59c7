"""Dates in the forms that people use: "14 Jan", "the fourteenth of January", 01/14/2026, 14.1.2026, "14 de enero"."""

# ruff: noqa: RUF001 - the names of months in Russian and Turkish

import re
from collections.abc import Iterator
from typing import NamedTuple

_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth"
    " sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
DAY_BY_ORDINAL = (
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
# Month names and their abbreviations in the languages with Latin script that callers speak most, and in Russian.
# Abbreviations that are other words ("set", "out", "ago") are left out.
_MONTHS = (
    "jan(?:uary|uar|uari|vier|eiro)?|ene(?:ro)?|gen(?:naio)?|ianuarie|ocak|янв(?:аря|арь|аре)?",
    "feb(?:ruary|ruar|ruari|rero|braio|ruarie)?|fev(?:rier|ereiro)?|subat|фев(?:раля|раль|рале)?",
    "mar(?:ch|z|s|zo|co|tie|t)?|maart|maerz|mrz|март[ае]?",
    "apr(?:il|ile|ilie)?|avr(?:il)?|abr(?:il)?|nisan|апр(?:еля|ель|еле)?",
    "may|mai|mayo|maggio|maio|mei|may[iı]s|ма[яие]",
    "jun(?:e|i|io|ho)?|juin|giu(?:gno)?|iunie|haziran|июн[яье]",
    "jul(?:y|i|io|ho)?|juil(?:let)?|lug(?:lio)?|iulie|temmuz|июл[яье]",
    "aug(?:ust|usti|ustus)?|aout|agosto|agustos|авг(?:уста?|усте)?",
    "sep(?:t|tember|tembre|tiembre)?|set(?:tembre|embro|iembre)|septembrie|eylul|сен(?:тября|тябрь|тябре)?",
    "o[ck]t(?:ober|obre|ubre)?|outubro|ott(?:obre)?|octombrie|ekim|окт(?:ября|ябрь|ябре)?",
    "nov(?:ember|embre|iembre|embro)?|noiembrie|kas[iı]m|ноя(?:бря|брь|бре)?",
    "de[cz](?:ember|embre|embro|iembre)?|dic(?:iembre|embre)?|decembrie|aral[iı]k|дек(?:абря|абрь|абре)?",
)
# The names alone: those that are no other word in any of the languages.
_MONTHS_ALONE = (
    "januari?|janvier|janeiro|enero|gennaio|ianuarie|ocak|январ[яье]",
    "februari?|fevrier|fevereiro|febrero|febbraio|februarie|subat|феврал[яье]",
    "marzo|maerz|marz|martie|март[ае]?",
    "aprile|aprilie|avril|abril|nisan|апрел[яье]",
    "maggio|maio|may[iı]s",
    "juni|junio|junho|juin|giugno|iunie|haziran|июн[яье]",
    "juli|julio|julho|juillet|luglio|iulie|temmuz|июл[яье]",
    "aout|agosto|agustos|август[ае]?",
    "septembre|septiembre|settembre|setembro|septembrie|eylul|сентябр[яье]",
    "oktober|octobre|octubre|ottobre|outubro|octombrie|ekim|октябр[яье]",
    "novembre|noviembre|novembro|noiembrie|kas[iı]m|ноябр[яье]",
    "dezember|decembre|dicembre|diciembre|dezembro|decembrie|aral[iı]k|декабр[яье]",
)
_MONTH, _MONTH_ALONE = (
    "|".join(f"(?P<m{number}>{names})" for number, names in enumerate(months, 1)) for months in (_MONTHS, _MONTHS_ALONE)
)
_ORDINAL = "|".join(sorted(DAY_BY_ORDINAL, key=len, reverse=True))
_DAY = rf"(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th|er)?|(?P<ordinal>{_ORDINAL}))"
_YEAR = r"(?:,?\s+(?:de\s+|del\s+|of\s+)?(?:(?P<year>(?:19|20)\d\d)|'(?P<short_year>\d\d)))?"
_NAMED, _NUMERIC = (
    tuple(re.compile(rf"(?<![^\W_]){pattern}(?![^\W_])") for pattern in patterns)
    for patterns in (
        (
            rf"{_DAY}\.?[\s-]*(?:of\s+|de\s+)?(?:{_MONTH})\.?(?:-(?P<dashed_year>(?:19|20)\d\d)|{_YEAR})",
            rf"(?:{_MONTH})\.?\s+(?:the\s+)?{_DAY}(?!:\d){_YEAR}",
        ),
        (
            r"(?P<year>(?:19|20)\d\d)(?P<mark>[-/.])(?P<month>\d{1,2})(?P=mark)(?P<day>\d{1,2})",
            r"(?P<first>\d{1,2})(?P<mark>[./-])(?P<second>\d{1,2})(?P=mark)(?P<year>(?:19|20)\d\d|\d\d)",
        ),
    )
)
_UNSEPARATED = (  # Chinese, Japanese and Korean
    re.compile(r"(?:(?P<year>(?:19|20)\d\d)[年년]\s?)?(?<!\d)(?P<month>\d{1,2})[月월]\s?(?P<day>\d{1,2})[日号號일]"),
)
_WITHOUT_YEAR = (re.compile(r"(?<![\d.,])(?P<day>\d\d)\.(?P<month>\d\d)\.(?!\d)"),)  # 14.01.
# The patterns above are dear, and most texts have nothing of the kind.
_DIGIT = re.compile(r"\d")
_NUMERIC_HINT = re.compile(r"\d[-/.]\d")
_WORDS = re.compile(r"[^\W\d_]+")
_MONTH_BEGINNINGS = frozenset(
    "jan ene gen ian oca янв feb fev sub фев mar maa mae mrz мар apr avr abr nis апр may mai mag mei мая маи мае jun"
    " jui giu iun haz июн jul lug iul tem июл aug aou ago авг sep set eyl сен oct okt out ott eki окт nov noi kas ноя"
    " dec dez dic ara дек".split()
)
_NAMED_MONTH = re.compile(rf"(?<![^\W_])(?:{_MONTH_ALONE})(?![^\W_])")
_ORDINAL_WORD = re.compile(rf"(?<![^\W_])(?:{_ORDINAL})(?![^\W_])")
_ORDINAL_ENDINGS = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}


# A day without its month, where nothing after it is counted by the ordinal ("on the ninth try").
DAY_ALONE = re.compile(
    r"(?<![^\W_])(?:on|since|until|till|by|from|before|after)\s+the\s+"
    rf"(?:(?P<day>(?:3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?)|(?P<ordinal>{_ORDINAL}))"
    r"(?=\s*(?:[,.?!;]|$|at\b|and\b|between\b))"
)


def day_of(match: "re.Match[str]") -> int:
    """Return the day of a match of `DAY_ALONE`."""
    return DAY_BY_ORDINAL[match["ordinal"]] if match["ordinal"] else int(match["day"].rstrip("stndrh"))


class NamedDate(NamedTuple):
    """A date in a text: where it is, its month and day, and its year if it is given."""

    start: int
    end: int
    month: int
    day: int
    year: int | None
    is_numeric: bool  # written with digits and separators alone

    @property
    def place(self) -> tuple[int, int]:
        """Where it starts and ends."""
        return self.start, self.end


def find_dates(folded: str) -> Iterator[NamedDate]:
    """Yield the dates of a folded text that have a day. 3/4/2026 may be either of two days; both are given."""
    patterns: list[re.Pattern[str]] = []
    if _names_month(folded):
        patterns += _NAMED
    if _NUMERIC_HINT.search(folded):
        patterns += (*_NUMERIC, *_WITHOUT_YEAR)
    if "月" in folded or "월" in folded:
        patterns += _UNSEPARATED
    for pattern in patterns:
        for match in pattern.finditer(folded):
            groups = match.groupdict()
            year = groups.get("year") or groups.get("dashed_year") or groups.get("short_year")
            full_year = int(year) + (2_000 if len(year) == 2 else 0) if year else None
            is_numeric = groups.get("mark") is not None
            for month, day in dict.fromkeys(_days_of(groups)):
                if 1 <= month <= 12 and 1 <= day <= 31:
                    yield NamedDate(match.start(), match.end(), month, day, full_year, is_numeric)


def may_name_date(folded: str) -> bool:
    """Return whether a text holds any digit, ordinal or beginning of a month's name."""
    words = _WORDS.findall(folded)
    return (
        not DAY_BY_ORDINAL.keys().isdisjoint(words)
        or any(word[:3] in _MONTH_BEGINNINGS for word in words)
        or _DIGIT.search(folded) is not None
    )


def find_months(folded: str) -> Iterator[tuple[int, int]]:
    """Yield where a month is named in another language than English, and its number."""
    for match in _NAMED_MONTH.finditer(folded) if _names_month(folded) else ():
        yield match.start(), _month_of(match.groupdict())


def date_forms(folded: str, dates: list[NamedDate], *, is_question: bool) -> Iterator[str]:
    """Yield one form for each date of a text, one with its year, one of its day, and one of each ordinal in words.

    The form of a day is that of all dates in a document, and in a question that of days without a month.
    """
    for date in dates:
        yield f"@{date.month}/{date.day}"
        if not is_question:
            yield f"@d{date.day}"
        if date.year:
            yield f"@{date.year}/{date.month}/{date.day}"
    if is_question:
        yield from (f"@d{day_of(match)}" for match in DAY_ALONE.finditer(folded))
    if DAY_BY_ORDINAL.keys().isdisjoint(_WORDS.findall(folded)):
        return  # nearly always
    for match in _ORDINAL_WORD.finditer(folded):
        number = DAY_BY_ORDINAL[match[0]]
        if number > 2:  # "first" and "second" are more often other words
            yield f"{number}{_ORDINAL_ENDINGS.get(number, 'th')}"


def _names_month(folded: str) -> bool:
    return any(word[:3] in _MONTH_BEGINNINGS for word in _WORDS.findall(folded))


def _days_of(groups: dict[str, str | None]) -> Iterator[tuple[int, int]]:
    """Yield the month and day of a date."""
    first, second = groups.get("first"), groups.get("second")
    if first and second:
        yield int(second), int(first)
        if groups.get("mark") == "/":
            yield int(first), int(second)
        return
    day_text, ordinal, month_text = groups.get("day"), groups.get("ordinal"), groups.get("month")
    day = int(day_text) if day_text else DAY_BY_ORDINAL.get(ordinal or "", 0)
    yield (int(month_text) if month_text else _month_of(groups)), day


def _month_of(groups: dict[str, str | None]) -> int:
    return next((number for number in range(1, 13) if groups.get(f"m{number}")), 0)
