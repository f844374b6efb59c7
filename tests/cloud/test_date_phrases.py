"""What both readers of dates make of several hundred phrases, as recorded: no phrase changes its meaning unnoticed.

After a change that is wanted, write the file again: ``python tests/cloud/test_date_phrases.py``, and look at the diff.
"""

import json
import zlib
from collections.abc import Iterator
from datetime import date
from itertools import product
from pathlib import Path

from memoair_cloud.consolidation.date_expressions import find_date_range, find_day_of_year, find_time_expression
from memoair_index.analysis import fold
from memoair_index.dates import find_days

RECORDED = Path(__file__).with_name("date_phrases.json")
EPOCH = date(1970, 1, 1)
# A Sunday, a leap day, and the last day of a year.
TODAYS = (date(2023, 5, 21), date(2024, 2, 29), date(2025, 12, 31))
MONTHS = "January February March April May June July August September October November December".split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
COUNTS = (
    *"a an zero one two three four five six seven eight nine ten eleven few couple 0 3 12 100 1000".split(),
    *("a few", "a couple of", "couple of", "the"),
)
UNITS = "day week month year hour".split()
ORDINALS = (
    *"first third twelfth twentieth twenty-sixth thirty-first 1st 2nd 22nd 30th 31st 32nd 99th".split(),
    "twenty sixth",
)
NEAR = (
    *"today tomorrow yesterday tonight".split(),
    *("last night", "this morning", "this evening", "the day before yesterday", "day after tomorrow"),
    *(
        "a day",
        "the other day",
        "these days",
        "last weekend",
        "next weekend",
        "this week",
        "past year",
        "previous month",
    ),
)
OTHERS = (
    *("2023-05-08", "on 2023-13-08", "in 2022", "in 1899", "since 2020", "call 1999", "May I", "I may go", "march on"),
    *("in May", "by may 8", "may 8:30", "8 May at 9", "May 8, 2023", "May 8th of 2023", "8th of may, 2021", "8 may 21"),
    *("Good Friday", "Black Friday", "a busy Sunday", "on a Monday", "Sunday night", "Monday morning rush", "Friday's"),
    *("in two weeks' time", "in 2 weeks time", "from May 8 until June 9", "between 1 May and 3 May", "Ash Wednesday"),
    *("February 30", "the 29th of February", "February 29 2023", "31 April 2022", "0 May", "May 0", "May 32"),
)


def phrases() -> Iterator[str]:
    for pattern, month in product(
        (
            "{}",
            "in {}",
            "last {}",
            "next {}",
            "{} 8",
            "the 31st of {}",
            "{} 2021",
            "30 {} 2024",
            "in {}, 2022",
            "{} the first",
        ),
        MONTHS,
    ):
        yield pattern.format(month)
    for pattern, weekday in product(
        ("{}", "on {}", "last {}", "next {}", "this {}", "every {}", "past {}", "{} the twenty-sixth", "{} evening"),
        WEEKDAYS,
    ):
        yield pattern.format(weekday)
    for pattern, count, unit in product(("{} {}s ago", "{} {} ago", "in {} {}s"), COUNTS, UNITS):
        yield pattern.format(count, unit)
    for pattern, ordinal in product(("on the {}", "{} of March", "March the {}", "the {}", "Friday the {}"), ORDINALS):
        yield pattern.format(ordinal)
    yield from NEAR
    yield from OTHERS


def meaning(phrase: str) -> str:
    """Return a checksum of what both readers find in a phrase."""
    found: list[object] = [find_days(fold(phrase)).spans, sorted(find_days(fold(phrase)).months)]
    text = f"I see Bob {phrase}, I think."
    for today in TODAYS:
        days = find_days(fold(text), (today - EPOCH).days * 86_400.0 + 30_000)
        found += [days.spans, sorted(days.months)]
        for is_past in (True, False):
            days_named = find_date_range(text, today, is_past=is_past)
            found += [days_named, days_named and days_named.description]
    expression = find_time_expression(text)
    found += [expression and expression.span(), find_day_of_year(text)]
    return f"{zlib.crc32(repr(found).encode()):08x}"


def test_every_phrase_means_what_is_recorded() -> None:
    recorded = json.loads(RECORDED.read_text())
    found = {phrase: meaning(phrase) for phrase in phrases()}
    assert len(found) > 500
    assert {phrase for phrase in found if found[phrase] != recorded.get(phrase)} == set()
    assert found.keys() == recorded.keys()


if __name__ == "__main__":
    RECORDED.write_text(json.dumps({phrase: meaning(phrase) for phrase in phrases()}, indent=0) + "\n")
