"""When what a case gives was said: always before its question, whatever it says of times."""

from datetime import datetime
from typing import Any

import pytest

from memoair_evaluation.case import parse_case
from memoair_evaluation.given import time_of, user_of
from memoair_protocol.timestamps import parse_timestamp

BEFORE, AFTER = "2025-03-01T10:00:00Z", "2025-03-01T10:02:00Z"


def times_of(at: str | None, occurred_at: list[str | None], said_at: str | None = None) -> tuple[datetime, list[str]]:
    turns = [{"user": "a"} if time is None else {"user": "a", "occurredAt": time} for time in occurred_at]
    fact: dict[str, Any] = {"text": "likes tea"} if said_at is None else {"text": "likes tea", "saidAt": said_at}
    content = {"id": "a", "question": "?", "given": {"turns": turns, "facts": [fact]}}
    case = parse_case(content if at is None else {**content, "at": at})
    user = user_of(case)
    return time_of(case), [event["occurredAt"] for event in user.events] + [fact["saidAt"] for fact in user.facts]


@pytest.mark.parametrize("at", ["2025-03-10T10:00:00Z", "2031-01-01T00:00:00Z"])
def test_turns_without_a_time_are_a_day_before_the_question(at: str) -> None:
    asked_at, times = times_of(at, [None, None, None])
    assert [(asked_at - parse_timestamp(time)).total_seconds() for time in times[:3]] == [86_520, 86_460, 86_400]
    assert times[3] == times[0]


def test_a_turn_without_a_time_is_between_those_that_have_one() -> None:
    _, times = times_of(AFTER, [None, BEFORE, None, AFTER, None])
    assert times[:5] == ["2025-03-01T09:59:00Z", BEFORE, "2025-03-01T10:01:00Z", AFTER, AFTER]


def test_a_fact_without_a_time_was_said_before_the_question() -> None:
    _, times = times_of("2025-03-10T10:00:00Z", [])
    assert times == ["2025-03-09T10:00:00Z"]


@pytest.mark.parametrize("said_at", [None, "2026-06-01T10:00:00Z"])
def test_a_question_without_a_time_is_asked_after_all_that_is_given(said_at: str | None) -> None:
    asked_at, times = times_of(None, [BEFORE, None], said_at)
    assert all(parse_timestamp(time) < asked_at for time in times)
