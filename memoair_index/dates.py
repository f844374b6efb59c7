"""Dates in a question: which days it asks about."""

import calendar
import re
from datetime import date

import attrs
import numpy as np
from numpy.typing import NDArray

# Written out: the calendar module speaks the language of the machine.
_MONTHS = {
    "january": 1,
    "february": 2,
    "march": 3,
    "april": 4,
    "may": 5,
    "june": 6,
    "july": 7,
    "august": 8,
    "september": 9,
    "october": 10,
    "november": 11,
    "december": 12,
}
_MONTH = "|".join(_MONTHS)
_WEEKDAYS = {"monday": 0, "tuesday": 1, "wednesday": 2, "thursday": 3, "friday": 4, "saturday": 5, "sunday": 6}
_YEAR = r"(?:19|20)\d\d"
_DAY = r"(?:3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?"
_NAMED_MONTH = re.compile(
    rf"\b(?:(?P<before>{_DAY})\s+(?:of\s+)?)?(?P<month>{_MONTH})\b(?:\s+(?P<after>{_DAY})\b(?!:))?(?:,?\s+(?P<year>{_YEAR})\b)?"
)
_ISO_DATE = re.compile(rf"\b(?P<year>{_YEAR})-(?P<month>0[1-9]|1[0-2])-(?P<day>0[1-9]|[12]\d|3[01])\b")
_TIME_AGO = re.compile(
    r"\b(?P<count>\d{1,3}|a|an|one|two|three|four|five|six|seven|eight|nine|ten|couple of|few)\s+"
    r"(?P<unit>day|week|month|year)s?\s+ago\b"
)
_LAST_PERIOD = re.compile(rf"\b(?:last|past|previous)\s+(?P<what>week|month|year|weekend|{'|'.join(_WEEKDAYS)})\b")
_DAYS_BACK = {"today": 0, "this morning": 0, "yesterday": 1, "last night": 1, "day before yesterday": 2}
_NEAR_DAY = re.compile(r"\b(?:the\s+)?(" + "|".join(sorted(_DAYS_BACK, key=len, reverse=True)) + r")\b")
_COUNTS = {
    "a": 1,
    "an": 1,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "couple of": 2,
    "few": 3,
}
_UNIT_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}
# These name a month only with a number beside them or a word before it: one may march, too.
_MONTH_CONTEXT = re.compile(
    r"\b(?:in|of|on|since|until|by|last|this|next|early|late|mid|during|for|and|before|after)\s+$"
)

_MAX_PREPOSITION_CHARS = 10
_MAX_NOW_S = 5e10
# Nobody asks about more dates at once; a pasted calendar does.
_MAX_SPANS = 24

# Without one of these there is no date.
_ANY_DATE = re.compile(rf"\b(?:{_MONTH}|{_YEAR}-\d\d|ago|last|past|previous|today|yesterday|this morning)\b")

# What happened on a day is often told some days later, seldom before.
MENTIONED_BEFORE_DAYS = 2
MENTIONED_AFTER_DAYS = 10
_MAX_YEARS_BACK = 10


@attrs.frozen
class Days:
    """The days that a question asks about, as numbers of days since 1970: each span with both its ends.

    ``months`` are months of no year in particular.
    """

    spans: tuple[tuple[int, int], ...] = ()
    months: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        """Whether the question names any."""
        return bool(self.spans or self.months)

    def match(self, days: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these days are meant."""
        matches = np.zeros(days.shape, bool)
        for first, last in self.spans:
            matches |= (first <= days) & (days <= last)
        if self.months:
            month = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1
            matches |= np.isin(month, list(self.months))
        return matches


_NO_DAYS = Days()


def find_days(question: str, now: float | None = None) -> Days:
    """Find the dates in a folded question; ``now`` (seconds since the epoch) is what "yesterday" is counted from."""
    if not _ANY_DATE.search(question):  # as nearly all are
        return _NO_DAYS
    if now is not None and not abs(now) < _MAX_NOW_S:  # from no clock that anybody lives by
        now = None
    spans = [
        _mention_span(_day_number(*map(int, match.group("year", "month", "day"))))
        for match in _ISO_DATE.finditer(question)
    ]
    months = set()
    for match in _NAMED_MONTH.finditer(question):
        month, day = _MONTHS[match["month"]], match["before"] or match["after"]
        year = int(match["year"]) if match["year"] else None
        preceding = question[max(0, match.start() - _MAX_PREPOSITION_CHARS) : match.start()]
        if match["month"] in ("may", "march") and not (day or year or _MONTH_CONTEXT.search(preceding)):
            continue
        if day:
            day_of_month = int(re.sub(r"\D", "", day))
            spans += [
                _mention_span(_day_number(each, month, day_of_month))
                for each in ([year] if year else _candidate_years(now))
            ]
        elif year:
            spans.append((_day_number(year, month, 1), _day_number(year, month, 31)))
        else:
            months.add(month)
    if now is not None:
        spans += _relative_spans(question, int(now // 86_400))
    return Days(tuple(dict.fromkeys(spans))[:_MAX_SPANS], frozenset(months))


def _relative_spans(question: str, today: int) -> list[tuple[int, int]]:
    spans = []
    for match in _NEAR_DAY.finditer(question):
        day = today - _DAYS_BACK[match[1]]
        spans.append((day, day))
    for match in _TIME_AGO.finditer(question):
        unit_days = _UNIT_DAYS[match["unit"]]
        count = match["count"]
        day = today - unit_days * (int(count) if count.isdigit() else _COUNTS[count])
        spans.append((day - unit_days // 2 - 1, day + unit_days // 2 + 1))
    for match in _LAST_PERIOD.finditer(question):
        period = match["what"]
        if period in _WEEKDAYS:
            days_back = (date.fromordinal(today + _EPOCH_ORDINAL).weekday() - _WEEKDAYS[period] - 1) % 7 + 1
            spans.append((today - days_back, today - days_back))
        else:
            length = {"week": 7, "weekend": 7, "month": 31, "year": 365}[period]
            spans.append((today - 2 * length, today) if period != "year" else (today - 3 * length // 2, today))
    return spans


_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


def _candidate_years(now: float | None) -> list[int]:
    """The years that a day without a year may be of: the last ones, the running one included."""
    this_year = date.fromordinal(int(now // 86_400) + _EPOCH_ORDINAL).year if now is not None else 2_030
    return list(range(this_year - _MAX_YEARS_BACK, this_year + 1))


def _day_number(year: int, month: int, day: int) -> int:
    """The number of a day; one that its month does not have is the month's last."""
    last = calendar.monthrange(year, month)[1]
    return date(year, month, min(day, last)).toordinal() - _EPOCH_ORDINAL


def _mention_span(day: int) -> tuple[int, int]:
    return day - MENTIONED_BEFORE_DAYS, day + MENTIONED_AFTER_DAYS
