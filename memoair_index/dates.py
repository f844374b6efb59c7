"""Dates in questions: find the days that a question asks about."""

import calendar
import re
from collections.abc import Iterable
from datetime import date

import attrs
import numpy as np
from numpy.typing import NDArray

from memoair_index.date_forms import DAY_ALONE, day_of, find_dates, find_months, may_name_date

# `memoair_cloud.consolidation.date_expressions` uses these words, too. They are written out, because the names in the
# calendar module depend on the machine's locale.
MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
COUNTS = {word: count for count, word in enumerate("one two three four five six seven eight nine ten".split(), start=1)}
COUNTS |= {"a": 1, "an": 1}
UNIT_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}
YEAR = r"(?:19|20)\d\d"
EPOCH = date(1970, 1, 1)

_MONTH = "|".join(MONTHS)
_COUNTS = {**COUNTS, "couple of": 2, "few": 3}
_DAY = r"(?:3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?"
_NAMED_MONTH = re.compile(
    rf"\b(?:(?P<before>{_DAY})\s+(?:of\s+)?)?(?P<month>{_MONTH})\b(?:\s+(?P<after>{_DAY})\b(?!:))?(?:,?\s+(?P<year>{YEAR})\b)?"
)
_ISO_DATE = re.compile(rf"\b(?P<year>{YEAR})-(?P<month>0[1-9]|1[0-2])-(?P<day>0[1-9]|[12]\d|3[01])\b")
_TIME_AGO = re.compile(rf"\b(?P<count>\d{{1,3}}|{'|'.join(_COUNTS)})\s+(?P<unit>{'|'.join(UNIT_DAYS)})s?\s+ago\b")
_LAST_PERIOD = re.compile(rf"\b(?:last|past|previous)\s+(?P<period>week|month|year|weekend|{'|'.join(WEEKDAYS)})\b")
_DAYS_BACK = {"today": 0, "this morning": 0, "yesterday": 1, "last night": 1, "day before yesterday": 2}
_NEAR_DAY = re.compile(r"\b(?:the\s+)?(" + "|".join(sorted(_DAYS_BACK, key=len, reverse=True)) + r")\b")
# "may" and "march" are also verbs: they name a month only beside a number or after one of these words.
_BEFORE_MONTH = re.compile(
    r"\b(?:in|of|on|since|until|by|last|this|next|early|late|mid|during|for|and|before|after)\s+$"
)

# Enough text before a month to hold any of these words and the space after it.
_MAX_PREPOSITION_CHARS = 10
# A clock that shows a later time (some 1,600 years after 1970) is wrong.
_MAX_NOW_S = 5e10
# A question names fewer dates; only a pasted calendar names more.
_MAX_SPANS = 24

# A question without any of these names no date in the forms above.
_ANY_DATE = re.compile(rf"\b(?:{_MONTH}|{YEAR}-\d\d|ago|last|past|previous|today|yesterday|this morning)\b")
# Callers often mention an event some days after it, seldom before.
MENTIONED_BEFORE_DAYS = 2
MENTIONED_AFTER_DAYS = 10
_MAX_YEARS_BACK = 10


@attrs.frozen
class Days:
    """The days that a question asks about.

    Attributes:
        spans: Pairs of a first and a last day, both included, in days since 1970-01-01.
        months: Months (1 to 12) that are named without a year.
    """

    spans: tuple[tuple[int, int], ...] = ()
    months: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        """Return whether the question names any date."""
        return bool(self.spans or self.months)

    def match(self, days: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return a mask of the ``days`` (since 1970-01-01) that the question asks about."""
        matches = np.zeros(days.shape, bool)
        for first, last in self.spans:
            matches |= (first <= days) & (days <= last)
        if self.months:
            month = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1
            matches |= np.isin(month, list(self.months))
        return matches


_NO_DAYS = Days()


def find_days(question: str, now: float | None = None) -> Days:
    """Return the days that a folded question asks about.

    Args:
        question: The question, folded.
        now: When it is asked, in seconds since the epoch. "yesterday" and similar words are counted from it, and
            ignored without it.
    """
    if now is not None and not abs(now) < _MAX_NOW_S:  # the clock is wrong
        now = None
    spans, months, taken = _find_english(question, now) if _ANY_DATE.search(question) else ([], set(), [])
    if may_name_date(question):  # false of most questions
        other_spans, other_months = _find_others(question, now, taken)
        spans, months = spans + other_spans, months | other_months
    return Days(tuple(dict.fromkeys(spans))[:_MAX_SPANS], frozenset(months)) if spans or months else _NO_DAYS


def _find_english(question: str, now: float | None) -> tuple[list[tuple[int, int]], set[int], list[tuple[int, int]]]:
    """Find full English months, ISO dates and relative days; also return where the first two are."""
    spans = [
        _mention_span(_day_number(*map(int, match.group("year", "month", "day"))))
        for match in _ISO_DATE.finditer(question)
    ]
    months = set()
    taken = [match.span() for match in _ISO_DATE.finditer(question)]
    for match in _NAMED_MONTH.finditer(question):
        month, day = MONTHS.index(match["month"]) + 1, match["before"] or match["after"]
        year = int(match["year"]) if match["year"] else None
        preceding = question[max(0, match.start() - _MAX_PREPOSITION_CHARS) : match.start()]
        if match["month"] in ("may", "march") and not (day or year or _BEFORE_MONTH.search(preceding)):
            continue
        taken.append(match.span())
        if day:
            day_of_month = int(re.sub(r"\D", "", day))
            spans += [
                _mention_span(_day_number(candidate, month, day_of_month))
                for candidate in ([year] if year else _candidate_years(now))
            ]
        elif year:
            spans.append((_day_number(year, month, 1), _day_number(year, month, 31)))
        else:
            months.add(month)
    if now is not None:
        spans += _relative_spans(question, int(now // 86_400))
    return spans, months, taken


def _find_others(
    question: str, now: float | None, taken: list[tuple[int, int]]
) -> tuple[list[tuple[int, int]], set[int]]:
    """Find dates in the other forms and months in the other languages, where no date was found before."""
    spans: list[tuple[int, int]] = []
    rest = _blank(question, taken)
    found_dates = list(find_dates(rest))
    for found in found_dates:
        years = [found.year] if found.year else _candidate_years(now)
        spans += [_mention_span(_day_number(year, found.month, found.day)) for year in years]
        if len(spans) >= _MAX_SPANS:
            return spans, set()
    months = {month for _, month in find_months(_blank(rest, [found.place for found in found_dates]))}
    if now is not None and " the " in question:
        today = date.fromordinal(int(now // 86_400) + EPOCH.toordinal())
        spans += [_mention_span(_latest_day(today, day_of(match))) for match in DAY_ALONE.finditer(question)]
    return spans, months


def _blank(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return a text with what is in some spans replaced by something that is no part of a date."""
    pieces, end = [], 0
    for first, last in sorted(spans):
        pieces += [text[end:first], "\0" * (last - max(first, end))]
        end = max(end, last)
    return "".join([*pieces, text[end:]])


def _latest_day(today: date, day_of_month: int) -> int:
    """Return the last day with this number that is not in the future."""
    year, month = (
        (today.year, today.month) if day_of_month <= today.day else divmod(today.year * 12 + today.month - 2, 12)
    )
    if day_of_month > today.day:
        month += 1
    return _day_number(year, month, day_of_month)


def _relative_spans(question: str, today: int) -> list[tuple[int, int]]:
    spans = []
    for match in _NEAR_DAY.finditer(question):
        day = today - _DAYS_BACK[match[1]]
        spans.append((day, day))
    for match in _TIME_AGO.finditer(question):
        unit_days = UNIT_DAYS[match["unit"]]
        count = match["count"]
        day = today - unit_days * (int(count) if count.isdigit() else _COUNTS[count])
        spans.append((day - unit_days // 2 - 1, day + unit_days // 2 + 1))
    for match in _LAST_PERIOD.finditer(question):
        period = match["period"]
        if period in WEEKDAYS:
            days_back = (date.fromordinal(today + EPOCH.toordinal()).weekday() - WEEKDAYS.index(period) - 1) % 7 + 1
            spans.append((today - days_back, today - days_back))
        else:
            length = {"week": 7, "weekend": 7, "month": 31, "year": 365}[period]
            spans.append((today - 2 * length, today) if period != "year" else (today - 3 * length // 2, today))
    return spans


def _candidate_years(now: float | None) -> list[int]:
    """Return the years that a date without a year may belong to: this year and the ten before it."""
    this_year = date.fromordinal(int(now // 86_400) + EPOCH.toordinal()).year if now is not None else 2_030
    return list(range(this_year - _MAX_YEARS_BACK, this_year + 1))


def _day_number(year: int, month: int, day: int) -> int:
    """Return a date as days since 1970-01-01; a day past the end of its month counts as the month's last day."""
    last = calendar.monthrange(year, month)[1]
    return date(year, month, min(day, last)).toordinal() - EPOCH.toordinal()


def _mention_span(day: int) -> tuple[int, int]:
    return day - MENTIONED_BEFORE_DAYS, day + MENTIONED_AFTER_DAYS
