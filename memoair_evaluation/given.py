"""What is known of the caller of a case, in the form in which the engine of the runtimes takes it."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from memoair_evaluation.case_records import CURRENT_SESSION, Given, GivenTurn, RecallCase
from memoair_protocol.enums import EventType
from memoair_protocol.timestamps import format_utc
from memoair_runtime.preview import PreviewUser, SourceKey

# When it is, for a case that does not say: so that no score depends on today.
DEFAULT_TIME = datetime(2026, 1, 5, 10, 0, tzinfo=timezone.utc)
_DEFAULT_SESSION = "earlier"
_GIVEN_EVENT, _TALK_EVENT = "given-", "talk-"
_TURN_INTERVAL = timedelta(minutes=1)
_QUESTION_DELAY = timedelta(days=1)


def time_of(case: RecallCase) -> datetime:
    """Return when the question of a case is asked."""
    return case.at or _default_time(case.given or Given())


def user_of(case: RecallCase) -> PreviewUser:
    """Return what is known of the caller of a case, with the talk before the question."""
    asked_at = time_of(case)
    user = to_user(case.given or Given(), asked_at)
    start = asked_at - (len(case.talk) + 1) * _TURN_INTERVAL
    talk = [
        _to_event(_TALK_EVENT, turn, CURRENT_SESSION, number, start + number * _TURN_INTERVAL)
        for number, turn in enumerate(case.talk, 1)
    ]
    return PreviewUser(user.profile, [*user.events, *talk], user.facts)


def turn_keys_of(user: PreviewUser) -> dict[tuple[str, str], SourceKey]:
    """Return the sources of the turns of the caller of a case, by their session and turn ids."""
    return {(event["sessionId"], event["payload"]["turnId"]): ("turn", event["eventId"], None) for event in user.events}


def to_user(given: Given, asked_at: datetime | None = None) -> PreviewUser:
    """Return what is known of a caller.

    Args:
        given: What a case says of them.
        asked_at: When the question is asked; None for the time that a case has which does not say.
    """
    times = _turn_times(given.turns, asked_at or _default_time(given))
    events = [
        _to_event(_GIVEN_EVENT, turn, turn.session_id or _DEFAULT_SESSION, number, time)
        for number, (turn, time) in enumerate(zip(given.turns, times, strict=True), 1)
    ]
    said_at = min(times, default=(asked_at or _default_time(given)) - _QUESTION_DELAY)
    facts = [
        {
            "id": f"fact-{number}",
            "kind": fact.kind or "statement",
            "text": fact.text,
            "saidAt": format_utc(fact.said_at or said_at),
            "subject": fact.subject,
        }
        for number, fact in enumerate(given.facts, 1)
    ]
    return PreviewUser({"version": 1, **given.profile} if given.profile else None, events, facts)


def _default_time(given: Given) -> datetime:
    """Return a day after the last that is given with a time."""
    times = [turn.occurred_at for turn in given.turns] + [fact.said_at for fact in given.facts]
    latest = max((time for time in times if time is not None), default=None)
    return DEFAULT_TIME if latest is None else latest + _QUESTION_DELAY


def _turn_times(turns: Sequence[GivenTurn], asked_at: datetime) -> list[datetime]:
    """Return when the turns were said: those without a time a minute after the turn before, none after the question.

    If none has a time, the last one is a day before the question; else those before the first that has one count back
    from it.
    """
    dated = next((number for number, turn in enumerate(turns) if turn.occurred_at is not None), None)
    if dated is None:
        return [asked_at - _QUESTION_DELAY - number * _TURN_INTERVAL for number in reversed(range(len(turns)))]
    first = turns[dated].occurred_at or asked_at
    times = [first - number * _TURN_INTERVAL for number in range(dated, 0, -1)]
    for turn in turns[dated:]:
        times.append(turn.occurred_at or min(times[-1] + _TURN_INTERVAL, asked_at))
    return times


def _to_event(prefix: str, turn: GivenTurn, session_id: str, number: int, at: datetime) -> dict[str, Any]:
    return {
        "eventId": f"{prefix}{number}",  # by its position, which is unique where the id of a turn need not be
        "type": EventType.TURN.value,
        "sessionId": session_id,
        "seq": number,
        "occurredAt": format_utc(at),
        "payload": {
            "turnId": turn.turn_id or f"{prefix}{number}",
            "userText": turn.user,
            "assistantText": turn.assistant,
            "metadata": dict(turn.metadata),
        },
    }
