"""Resolve spoken time expressions to days: "on Thursday the twenty-sixth", "in two weeks", "last March"."""

import calendar
import re
from datetime import date, timedelta

import attrs

from memoair_index.dates import COUNTS, EPOCH, MONTHS, UNIT_DAYS, WEEKDAYS, YEAR, find_days

_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third twenty-fourth "
    "twenty-fifth twenty-sixth twenty-seventh twenty-eighth twenty-ninth thirtieth thirty-first"
).split()
_COUNTS = {"zero": 0, **COUNTS, "a couple of": 2}

_ORDINAL = "|".join(ordinal.replace("-", "[- ]") for ordinal in reversed(_ORDINALS)) + r"|\d{1,2}(?:st|nd|rd|th)"
_WEEKDAY, _MONTH = "|".join(WEEKDAYS), "|".join(MONTHS)
_COUNT = "|".join(sorted(_COUNTS, key=len, reverse=True)) + r"|\d{1,2}"
_UNIT = "|".join(UNIT_DAYS)
_TIME_EXPRESSION = re.compile(
    rf"\b(?P<often>(?:every|each|most|some)\s+|(?:(?:on\s+)?an?|ash|good|black|palm|cyber"
    rf"|easter)\s+(?=\w+day\b))?(?:(?:on|by|for"
    rf"|until|till|before|since|from)\s+)?(?:"
    r"(?P<near>(?:the\s+)?day\s+after\s+tomorrow|(?:the\s+)?day\s+before\s+yesterday|tomorrow|today|tonight|yesterday"
    r"|last\s+night|this\s+(?:morning|afternoon|evening))"
    rf"|(?:(?P<which>last|next|this|coming|the)\s+)?(?P<weekday>{_WEEKDAY})(?:,?\s+the\s+(?P<weekday_day>{_ORDINAL}))?"
    rf"|(?P<span>last|next|this)\s+(?P<unit>weekend|week|{_MONTH}|month|year)"
    rf"|in\s+(?P<ahead>{_COUNT})\s+(?P<ahead_unit>{_UNIT})s?(?:'?\s+time)?"
    rf"|(?P<back>(?:{_COUNT}|(?:a\s+)?few)\s+(?:{_UNIT})s?\s+ago)"
    rf"|(?P<month>{_MONTH})\s+(?:the\s+)?(?P<after>{_ORDINAL}|\d{{1,2}})\b(?!:)(?:,?\s+(?P<year>{YEAR}))?"
    rf"|(?:the\s+)?(?P<before>{_ORDINAL}"
    rf"|\d{{1,2}})\s+(?:of\s+)?(?P<month_after>{_MONTH})(?:,?\s+(?P<year_after>{YEAR}))?"
    rf"|in\s+(?P<in_month>{_MONTH})(?:,?\s+(?:of\s+)?(?P<in_month_year>{YEAR}))?"
    rf"|in\s+(?P<in_year>{YEAR})"
    rf"|(?<=on\s)the\s+(?P<day>{_ORDINAL})(?=\s*(?:[,.!;]|$|at\b|and\b|between\b))"
    r")\b(?!['-])(?:\s+(?:morning|afternoon|evening|night)\b(?=\s*(?:[,.!?;]|$|at\b|with\b|and\b|in\b|for\b"
    r"|to\b)))?(?!\s+(?:morning|afternoon|evening|night|rush|school))",
    re.IGNORECASE,
)
# "A busy Sunday" is a day, but an unknown one.
_INDEFINITE_DAY = re.compile(r"\b(?:an?|the|my|our)\s+\w+\s+$", re.IGNORECASE)
_DAY_OFFSETS = {"tomorrow": 1, "yesterday": -1, "last night": -1, "day after tomorrow": 2, "day before yesterday": -2}


@attrs.frozen
class DateRange:
    """The days that a text names.

    Attributes:
        start: Where the expression starts in the text.
        end: Where it ends.
        first: The first day.
        last: The last day, included.
    """

    start: int
    end: int
    first: date
    last: date

    @property
    def description(self) -> str:
        """The days in words that stay true later."""
        first, last = self.first, self.last
        if first == last:
            return f"on {WEEKDAYS[first.weekday()].capitalize()} {format_day(first)}"
        if (first.day, first.month) == (1, 1) and last == date(first.year, 12, 31):
            return f"in {first.year}"
        if first.day == 1 and last == _month_end(first):
            return f"in {MONTHS[first.month - 1].capitalize()} {first.year}"
        return f"between {format_day(first)} and {format_day(last)}"


def find_date_range(text: str, today: date, *, is_past: bool) -> DateRange | None:
    """Return the first days that a text names; None if there are none, or if they do not fit the tense of the verb.

    A recurring time ("every Friday") is not one.

    Args:
        text: The text.
        today: The day on which it was said.
        is_past: Whether the verb is in the past tense.
    """
    for match in _TIME_EXPRESSION.finditer(text):
        try:
            is_indefinite = match["weekday"] and _INDEFINITE_DAY.search(text[: match.start("weekday")])
            dates = None if match["often"] or is_indefinite else _resolve_dates(match, today, is_past=is_past)
        except (ValueError, OverflowError):  # a day that its month does not have, or one beyond the calendar
            continue
        if dates and (dates[0] <= today if is_past else dates[1] >= today):
            return DateRange(match.start(), match.end(), *dates)
    return None


def find_time_expression(text: str) -> re.Match[str] | None:
    """Return the first time expression of a text, in the past or in the future."""
    return _TIME_EXPRESSION.search(text)


def find_day_of_year(text: str) -> str | None:
    """Return the day and month that a text names, for example of a birthday; with the year if it names one."""
    for match in _TIME_EXPRESSION.finditer(text):
        month, day = match["month"] or match["month_after"], match["after"] or match["before"]
        if month and day:
            number = _parse_ordinal(day)
            if not 1 <= number <= calendar.monthrange(2024, MONTHS.index(month.lower()) + 1)[1]:
                return None
            year = match["year"] or match["year_after"]
            return f"{number} {month.capitalize()}" + (f" {year}" if year else "")
    return None


def _resolve_dates(match: re.Match[str], today: date, *, is_past: bool) -> tuple[date, date] | None:
    if match["near"]:
        near = re.sub(r"\s+", " ", match["near"].lower()).removeprefix("the ")
        return _single_day(today + timedelta(days=_DAY_OFFSETS.get(near, 0)))
    if match["weekday"]:
        return _resolve_weekday(match, today, is_past=is_past)
    if match["unit"]:
        return _resolve_unit(match["span"].lower(), match["unit"].lower(), today)
    if match["ahead"]:
        unit = UNIT_DAYS[match["ahead_unit"].lower()]
        day = today + timedelta(days=unit * _parse_count(match["ahead"]))
        slack = timedelta(days=unit // 2)
        return max(day - slack, today), day + slack
    if match["back"]:
        return _resolve_ago(match["back"].lower(), today)
    if match["in_year"]:
        return date(int(match["in_year"]), 1, 1), date(int(match["in_year"]), 12, 31)
    if match["in_month"]:
        month = MONTHS.index(match["in_month"].lower()) + 1
        year = match["in_month_year"]
        first = date(int(year), month, 1) if year else _nearest_date(today, month, 1, is_past=is_past)
        return first, _month_end(first)
    if match["day"]:
        return _single_day(_nearest_day_of_month(_parse_ordinal(match["day"]), today, is_past=is_past))
    month = MONTHS.index((match["month"] or match["month_after"]).lower()) + 1
    day_number = _parse_ordinal(match["after"] or match["before"])
    year_text = match["year"] or match["year_after"]
    if year_text:
        return _single_day(date(int(year_text), month, day_number))
    return _single_day(_nearest_date(today, month, day_number, is_past=is_past))


def _resolve_weekday(match: re.Match[str], today: date, *, is_past: bool) -> tuple[date, date] | None:
    weekday, modifier = WEEKDAYS.index(match["weekday"].lower()), (match["which"] or "").lower()
    if match["weekday_day"]:
        day = _nearest_day_of_month(_parse_ordinal(match["weekday_day"]), today, is_past=is_past)
        return _single_day(day) if day.weekday() == weekday else None
    if is_past or modifier == "last":
        return _single_day(today - timedelta(days=(today.weekday() - weekday - 1) % 7 + 1))
    first = today + timedelta(days=(weekday - today.weekday() - 1) % 7 + 1)
    if modifier == "next" and first.isocalendar().week == today.isocalendar().week:
        # "Next Friday" is ambiguous: some people mean this week's, others the one after. Keep both; the agent can ask.
        return first, first + timedelta(days=7)
    return _single_day(first)


def _resolve_unit(modifier: str, unit: str, today: date) -> tuple[date, date]:
    step = {"last": -1, "this": 0, "next": 1}[modifier]
    if unit in ("week", "weekend"):
        monday = today + timedelta(days=7 * step - today.weekday())
        return monday + timedelta(days=5 if unit == "weekend" else 0), monday + timedelta(days=6)
    if unit == "year":
        return date(today.year + step, 1, 1), date(today.year + step, 12, 31)
    if unit == "month":
        months = today.year * 12 + today.month - 1 + step
        first = date(months // 12, months % 12 + 1, 1)
    else:
        first = _nearest_date(today, MONTHS.index(unit) + 1, 1, is_past=step < 0)
    return first, _month_end(first)


def _resolve_ago(text: str, today: date) -> tuple[date, date] | None:
    spans = find_days(text, (today - EPOCH).days * 86_400.0).spans
    if not spans:
        return None
    first, last = (EPOCH + timedelta(days=day) for day in spans[0])
    if "day" in text:  # precise to the day
        return _single_day(first + (last - first) // 2)
    return first, min(last, today)


def _nearest_date(today: date, month: int, day: int, *, is_past: bool) -> date:
    this_year = date(today.year, month, day)
    if is_past:
        return this_year if this_year <= today else date(today.year - 1, month, day)
    is_over = (this_year if day > 1 else _month_end(this_year)) < today
    return date(today.year + 1, month, day) if is_over else this_year


def _nearest_day_of_month(day: int, today: date, *, is_past: bool) -> date:
    """Return the next or the previous day with this number, skipping months that do not have it."""
    for months in range(12):
        month_index = today.year * 12 + today.month - 1 + (-months if is_past else months)
        year, month = month_index // 12, month_index % 12 + 1
        if 1 <= day <= calendar.monthrange(year, month)[1]:
            found = date(year, month, day)
            if (found <= today) if is_past else (found >= today):
                return found
    raise ValueError("no month has such a day")


def _parse_count(text: str) -> int:
    return int(text) if text.isdigit() else _COUNTS[re.sub(r"\s+", " ", text.lower())]


def _parse_ordinal(ordinal: str) -> int:
    digits = re.sub(r"\D", "", ordinal)
    return int(digits) if digits else _ORDINALS.index(re.sub(r"\s+", "-", ordinal.lower())) + 1


def _single_day(day: date) -> tuple[date, date]:
    return day, day


def _month_end(day: date) -> date:
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


def format_day(day: date) -> str:
    """Format a day as it is written in text."""
    return f"{day.day} {MONTHS[day.month - 1].capitalize()} {day.year}"


def remove_time(text: str, dates: DateRange | None) -> str:
    """Return a text without the time expression in it."""
    if not dates:
        return text
    before = re.sub(r"\s+(?:just|about|around|only|back)$", "", text[: dates.start].rstrip(" ,"))
    return re.sub(r"\s+", " ", f"{before} {text[dates.end :].lstrip()}").strip(" ,")
