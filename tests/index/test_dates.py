"""Dates in questions: which days they name, and which documents are found by them."""

# ruff: noqa: RUF001 - months in Turkish

import time
from datetime import date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoair_index import Document, Index, Query
from memoair_index.dates import find_days
from memoair_index.folding import fold

# A Sunday.
NOW = datetime(2023, 5, 21, 9, 30, tzinfo=timezone.utc)
EPOCH = date(1970, 1, 1)


def days_asked_about(question: str, now: datetime | None = NOW) -> set[str]:
    """Return the days of 2021 to 2023 that a question asks about."""
    days = [date(2021, 1, 1) + timedelta(days=offset) for offset in range(3 * 365)]
    found = find_days(fold(question), now.timestamp() if now else None)
    matches = found.match(np.array([(day - EPOCH).days for day in days]))
    return {day.isoformat() for day, is_match in zip(days, matches, strict=True) if is_match}


def days_around(day: str) -> set[str]:
    """Return the days on which an event of a day is mentioned: from two days before it to ten after it."""
    return {(date.fromisoformat(day) + timedelta(days=offset)).isoformat() for offset in range(-2, 11)}


@pytest.mark.parametrize(
    ("question", "day"),
    [
        ("what was on 2023-05-08", "2023-05-08"),
        ("On May 8, 2023?", "2023-05-08"),
        ("the 8th of May 2023", "2023-05-08"),
        ("may 8th, 2023", "2023-05-08"),
        ("February 31 2023", "2023-02-28"),
    ],
)
def test_a_day_is_found_in_every_notation(question: str, day: str) -> None:
    assert days_asked_about(question) == days_asked_about(question, None) == days_around(day)


def test_a_day_without_a_year_matches_recent_years() -> None:
    recent = days_around("2021-05-08") | days_around("2022-05-08") | days_around("2023-05-08")
    assert days_asked_about("on May 8") == recent


def test_a_month_matches_its_year_or_every_year() -> None:
    assert days_asked_about("in december 2022") == {f"2022-12-{day:02}" for day in range(1, 32)}
    assert days_asked_about("in February") == {
        f"{year}-02-{day:02}" for year in (2021, 2022, 2023) for day in range(1, 29)
    }


@pytest.mark.parametrize(
    ("question", "first", "last"),
    [
        ("today", "2023-05-21", "2023-05-21"),
        ("what did I say this morning", "2023-05-21", "2023-05-21"),
        ("yesterday", "2023-05-20", "2023-05-20"),
        ("last night", "2023-05-20", "2023-05-20"),
        ("the day before yesterday", "2023-05-19", "2023-05-19"),
        ("two weeks ago", "2023-05-03", "2023-05-11"),
        ("a couple of days ago", "2023-05-18", "2023-05-20"),
        ("10 days ago", "2023-05-10", "2023-05-12"),
        ("last Friday", "2023-05-19", "2023-05-19"),
        ("last sunday", "2023-05-14", "2023-05-14"),
        ("last week", "2023-05-07", "2023-05-21"),
    ],
)
def test_relative_days_count_from_now(question: str, first: str, last: str) -> None:
    days = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
    assert days_asked_about(question) == {
        (date.fromisoformat(first) + timedelta(days=offset)).isoformat() for offset in range(days)
    }
    assert days_asked_about(question, None) == set(), "without a clock there is no day to count from"


@pytest.mark.parametrize(
    "question",
    [
        "",
        "may I march in",
        "maybe",
        "the 5th of nothing",
        "2023",
        "1234-05-06",
        "2023-13-01",
        "decembers",
        "Augusta",
        "5 ago",
    ],
)
def test_other_texts_name_no_day(question: str) -> None:
    assert not find_days(fold(question), NOW.timestamp())


def test_a_document_of_the_named_day_is_found_without_a_common_word() -> None:
    index = Index()
    times = {"then": NOW - timedelta(days=1), "soon after": NOW, "long ago": NOW - timedelta(days=400)}
    index.add(Document(name, "boots", name, occurred_at=time.timestamp()) for name, time in times.items())
    index.add([Document("never", "boots", "never"), Document("NaN", "boots", "NaN", occurred_at=float("nan"))])
    found = index.search(Query("what was yesterday", now=NOW.timestamp()), 5)
    assert [hit.document.id for hit in found] == ["then"]
    assert found[0].contributions["date"] > 0
    assert "around" not in found[0].contributions


@given(
    st.lists(
        st.sampled_from(
            "may march 31 31st 0 of , 2023 1900 2099 2000-02-30 february ago days years 999 a few last yesterday monday"
            " ٣".split()
        ),
        max_size=8,
    ).map(" ".join)
    | st.text(max_size=30),
    st.none() | st.floats(),
)
@settings(deadline=None, max_examples=300)
def test_no_question_and_no_clock_makes_the_parser_fail(question: str, now: float | None) -> None:
    days = find_days(fold(question), now)
    assert days.match(np.array([-(2**40), -1, 0, 1, 20_000, 2**40])).shape == (6,)


@given(st.none() | st.floats())
@settings(deadline=None)
def test_no_timestamp_of_a_document_makes_a_search_fail(occurred_at: float | None) -> None:
    index = Index()
    index.add(
        [Document("a", "red boots", occurred_at=occurred_at), Document("b", "boots", occurred_at=NOW.timestamp())]
    )
    for question in ("boots in may", "boots on may 8", "boots yesterday"):
        found = index.search(Query(question, now=NOW.timestamp()), 5)
        assert {hit.document.id for hit in found} == {"a", "b"}


@pytest.mark.parametrize(
    "words", ["may ", "in may ", "may", "1 ", "1 of ", "last ", "a week ago ", "march  ", "2023-05-08 "]
)
def test_a_hundred_thousand_characters_are_parsed_in_linear_time(words: str) -> None:
    text = words * (100_000 // len(words))
    began_at = time.process_time()
    find_days(text, NOW.timestamp())
    find_days("yesterday " + words.strip() + " " * 100_000, NOW.timestamp())
    assert time.process_time() - began_at < 2


@pytest.mark.parametrize(
    ("question", "day"),
    [
        ("on 14 Jan 2023", "2023-01-14"),
        ("on 01/14/2023", "2023-01-14"),
        ("am 14.1.2023", "2023-01-14"),
        ("2023/01/14", "2023-01-14"),
        ("Jan. 14, 2023", "2023-01-14"),
        ("14. Januar 2023", "2023-01-14"),
        ("el 14 de enero de 2023", "2023-01-14"),
        ("le 14 janvier 2023", "2023-01-14"),
        ("14 gennaio 2023", "2023-01-14"),
        ("14 de janeiro de 2023", "2023-01-14"),
        ("14 ianuarie 2023", "2023-01-14"),
        ("14 января 2023", "2023-01-14"),
        ("14 Ocak 2023", "2023-01-14"),
        ("2023年1月14日", "2023-01-14"),
        ("what did I say on the ninth?", "2023-05-09"),
        ("on the 31st", "2023-04-30"),
        ("since the twenty-second", "2023-04-22"),
    ],
)
def test_a_day_is_found_in_other_notations_and_languages(question: str, day: str) -> None:
    assert days_asked_about(question) == days_around(day)


def test_a_day_whose_order_is_unknown_is_either_of_two() -> None:
    assert days_asked_about("on 3/4/2023") == days_around("2023-03-04") | days_around("2023-04-03")


@pytest.mark.parametrize(
    "question",
    ["was im Dezember war", "en diciembre", "en décembre", "a dicembre", "em dezembro", "в декабре", "aralık"],
)
def test_a_month_is_found_in_other_languages(question: str) -> None:
    assert days_asked_about(question) == days_asked_about("in december")


@pytest.mark.parametrize(
    "question",
    [
        "on the ninth try",
        "2 out of 3",
        "version 1.2.3",
        "call 555-12-34",
        "the second one",
        "3 sets",
        "room 8:30",
        "May I",
    ],
)
def test_other_numbers_name_no_day(question: str) -> None:
    assert days_asked_about(question) == set()
