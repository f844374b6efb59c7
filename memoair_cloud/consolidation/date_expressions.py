"""Times that a speaker names, as days: "on Thursday the twenty-sixth", "in two weeks", "last March"."""

import calendar
import re
from datetime import date, timedelta

import attrs

from memoair_index.dates import find_days

_EPOCH = date(1970, 1, 1)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third twenty-fourth "
    "twenty-fifth twenty-sixth twenty-seventh twenty-eighth twenty-ninth thirtieth thirty-first"
).split()
_COUNTS = {word: count for count, word in enumerate("zero one two three four five six seven eight nine ten".split())}
_COUNTS |= {"a": 1, "an": 1, "a couple of": 2}
_UNIT_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}

_ORDINAL = "|".join(each.replace("-", "[- ]") for each in reversed(_ORDINALS)) + r"|\d{1,2}(?:st|nd|rd|th)"
_WEEKDAY, _MONTH = "|".join(_WEEKDAYS), "|".join(_MONTHS)
_COUNT = "|".join(sorted(_COUNTS, key=len, reverse=True)) + r"|\d{1,2}"
_UNIT = "|".join(_UNIT_DAYS)
_YEAR = r"(?:19|20)\d\d"
_TIME = re.compile(
    rf"\b(?P<often>(?:every|each|most|some)\s+|(?:(?:on\s+)?an?|ash|good|black|palm|cyber"
    rf"|easter)\s+(?=\w+day\b))?(?:(?:on|by|for"
    rf"|until|till|before|since|from)\s+)?(?:"
    r"(?P<near>(?:the\s+)?day\s+after\s+tomorrow|(?:the\s+)?day\s+before\s+yesterday|tomorrow|today|tonight|yesterday"
    r"|last\s+night|this\s+(?:morning|afternoon|evening))"
    rf"|(?:(?P<which>last|next|this|coming|the)\s+)?(?P<weekday>{_WEEKDAY})(?:,?\s+the\s+(?P<weekday_day>{_ORDINAL}))?"
    rf"|(?P<span>last|next|this)\s+(?P<unit>weekend|week|{_MONTH}|month|year)"
    rf"|in\s+(?P<ahead>{_COUNT})\s+(?P<ahead_unit>{_UNIT})s?(?:'?\s+time)?"
    rf"|(?P<back>(?:{_COUNT}|(?:a\s+)?few)\s+(?:{_UNIT})s?\s+ago)"
    rf"|(?P<month>{_MONTH})\s+(?:the\s+)?(?P<after>{_ORDINAL}|\d{{1,2}})\b(?!:)(?:,?\s+(?P<year>{_YEAR}))?"
    rf"|(?:the\s+)?(?P<before>{_ORDINAL}"
    rf"|\d{{1,2}})\s+(?:of\s+)?(?P<month_after>{_MONTH})(?:,?\s+(?P<year_after>{_YEAR}))?"
    rf"|in\s+(?P<in_month>{_MONTH})(?:,?\s+(?:of\s+)?(?P<in_month_year>{_YEAR}))?"
    rf"|in\s+(?P<in_year>{_YEAR})"
    rf"|(?<=on\s)the\s+(?P<day>{_ORDINAL})(?=\s*(?:[,.!;]|$|at\b|and\b|between\b))"
    r")\b(?!['-])(?:\s+(?:morning|afternoon|evening|night)\b(?=\s*(?:[,.!?;]|$|at\b|with\b|and\b|in\b|for\b"
    r"|to\b)))?(?!\s+(?:morning|afternoon|evening|night|rush|school))",
    re.IGNORECASE,
)
# "A busy Sunday" is a day, but nobody knows which.
_SORT_OF_DAY = re.compile(r"\b(?:an?|the|my|our)\s+\w+\s+$", re.IGNORECASE)
_NEAR_DAYS = {"tomorrow": 1, "yesterday": -1, "last night": -1, "day after tomorrow": 2, "day before yesterday": -2}


@attrs.frozen
class DateRange:
    """Days that a text names, both ends included, and where in the text it does."""

    start: int
    end: int
    first: date
    last: date

    @property
    def words(self) -> str:
        """The days, in words that stay true."""
        first, last = self.first, self.last
        if first == last:
            return f"on {_WEEKDAYS[first.weekday()].capitalize()} {day_words(first)}"
        if (first.day, first.month) == (1, 1) and last == date(first.year, 12, 31):
            return f"in {first.year}"
        if first.day == 1 and last == _month_end(first):
            return f"in {_MONTHS[first.month - 1].capitalize()} {first.year}"
        return f"between {day_words(first)} and {day_words(last)}"


def moment_in(text: str, said_on: date, *, is_past: bool) -> DateRange | None:
    """The first time that a text names; None where there is none, or it does not lie where the verb says.

    A time that comes again and again ("every Friday") is none.
    """
    for match in _TIME.finditer(text):
        try:
            is_a_thing = match["weekday"] and _SORT_OF_DAY.search(text[: match.start("weekday")])
            days = None if match["often"] or is_a_thing else _days(match, said_on, is_past=is_past)
        except (ValueError, OverflowError):  # a day that its month does not have, or beyond all calendars
            continue
        if days and (days[0] <= said_on if is_past else days[1] >= said_on):
            return DateRange(match.start(), match.end(), *days)
    return None


def names_a_time(text: str) -> re.Match[str] | None:
    """Where a text names a time, whichever way it lies."""
    return _TIME.search(text)


def yearly_day_in(text: str) -> str | None:
    """The day and month that a text names, as of a birthday; with its year where it tells one."""
    for match in _TIME.finditer(text):
        month, day = match["month"] or match["month_after"], match["after"] or match["before"]
        if month and day:
            number = _number(day)
            if not 1 <= number <= calendar.monthrange(2024, _MONTHS.index(month.lower()) + 1)[1]:
                return None
            year = match["year"] or match["year_after"]
            return f"{number} {month.capitalize()}" + (f" {year}" if year else "")
    return None


def _days(match: re.Match[str], today: date, *, is_past: bool) -> tuple[date, date] | None:
    if match["near"]:
        near = re.sub(r"\s+", " ", match["near"].lower()).removeprefix("the ")
        return _one(today + timedelta(days=_NEAR_DAYS.get(near, 0)))
    if match["weekday"]:
        return _weekday(match, today, is_past=is_past)
    if match["unit"]:
        return _unit(match["span"].lower(), match["unit"].lower(), today)
    if match["ahead"]:
        unit = _UNIT_DAYS[match["ahead_unit"].lower()]
        day = today + timedelta(days=unit * _count(match["ahead"]))
        slack = timedelta(days=unit // 2)
        return max(day - slack, today), day + slack
    if match["back"]:
        return _ago(match["back"].lower(), today)
    if match["in_year"]:
        return date(int(match["in_year"]), 1, 1), date(int(match["in_year"]), 12, 31)
    if match["in_month"]:
        month = _MONTHS.index(match["in_month"].lower()) + 1
        year = match["in_month_year"]
        first = date(int(year), month, 1) if year else _nearest(today, month, 1, is_past=is_past)
        return first, _month_end(first)
    if match["day"]:
        return _one(_day_of_month(_number(match["day"]), today, is_past=is_past))
    month = _MONTHS.index((match["month"] or match["month_after"]).lower()) + 1
    day_number = _number(match["after"] or match["before"])
    told_year = match["year"] or match["year_after"]
    if told_year:
        return _one(date(int(told_year), month, day_number))
    return _one(_nearest(today, month, day_number, is_past=is_past))


def _weekday(match: re.Match[str], today: date, *, is_past: bool) -> tuple[date, date] | None:
    weekday, which = _WEEKDAYS.index(match["weekday"].lower()), (match["which"] or "").lower()
    if match["weekday_day"]:
        day = _day_of_month(_number(match["weekday_day"]), today, is_past=is_past)
        return _one(day) if day.weekday() == weekday else None
    if is_past or which == "last":
        return _one(today - timedelta(days=(today.weekday() - weekday - 1) % 7 + 1))
    first = today + timedelta(days=(weekday - today.weekday() - 1) % 7 + 1)
    if which == "next" and first.isocalendar().week == today.isocalendar().week:
        # Some mean this week's by it and some the one after: whoever has to know asks.
        return first, first + timedelta(days=7)
    return _one(first)


def _unit(span: str, unit: str, today: date) -> tuple[date, date]:
    step = {"last": -1, "this": 0, "next": 1}[span]
    if unit in ("week", "weekend"):
        monday = today + timedelta(days=7 * step - today.weekday())
        return monday + timedelta(days=5 if unit == "weekend" else 0), monday + timedelta(days=6)
    if unit == "year":
        return date(today.year + step, 1, 1), date(today.year + step, 12, 31)
    if unit == "month":
        months = today.year * 12 + today.month - 1 + step
        first = date(months // 12, months % 12 + 1, 1)
    else:
        first = _nearest(today, _MONTHS.index(unit) + 1, 1, is_past=step < 0)
    return first, _month_end(first)


def _ago(text: str, today: date) -> tuple[date, date] | None:
    spans = find_days(text, (today - _EPOCH).days * 86_400.0).spans
    if not spans:
        return None
    first, last = (_EPOCH + timedelta(days=day) for day in spans[0])
    if "day" in text:  # told to the day
        return _one(first + (last - first) // 2)
    return first, min(last, today)


def _nearest(today: date, month: int, day: int, *, is_past: bool) -> date:
    this_year = date(today.year, month, day)
    if is_past:
        return this_year if this_year <= today else date(today.year - 1, month, day)
    is_over = (this_year if day > 1 else _month_end(this_year)) < today
    return date(today.year + 1, month, day) if is_over else this_year


def _day_of_month(day: int, today: date, *, is_past: bool) -> date:
    """The next day of this number, or the one before; months that do not have it are left out."""
    for months in range(12):
        at = today.year * 12 + today.month - 1 + (-months if is_past else months)
        year, month = at // 12, at % 12 + 1
        if 1 <= day <= calendar.monthrange(year, month)[1]:
            found = date(year, month, day)
            if (found <= today) if is_past else (found >= today):
                return found
    raise ValueError("no month has this day")


def _count(text: str) -> int:
    return int(text) if text.isdigit() else _COUNTS[re.sub(r"\s+", " ", text.lower())]


def _number(ordinal: str) -> int:
    digits = re.sub(r"\D", "", ordinal)
    return int(digits) if digits else _ORDINALS.index(re.sub(r"\s+", "-", ordinal.lower())) + 1


def _one(day: date) -> tuple[date, date]:
    return day, day


def _month_end(day: date) -> date:
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


def day_words(day: date) -> str:
    """A day, as it is written."""
    return f"{day.day} {_MONTHS[day.month - 1].capitalize()} {day.year}"
