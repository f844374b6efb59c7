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
    if case.at is not None:
        return case.at
    times = _turn_times(case.given.turns if case.given else ())
    return max(times) + _QUESTION_DELAY if times else DEFAULT_TIME


def user_of(case: RecallCase) -> PreviewUser:
    """Return what is known of the caller of a case, with the talk before the question."""
    user = to_user(case.given or Given())
    start = time_of(case) - (len(case.talk) + 1) * _TURN_INTERVAL
    talk = [
        _to_event(_TALK_EVENT, turn, CURRENT_SESSION, number, start + number * _TURN_INTERVAL)
        for number, turn in enumerate(case.talk, 1)
    ]
    return PreviewUser(user.profile, [*user.events, *talk], user.facts)


def turn_keys_of(user: PreviewUser) -> dict[tuple[str, str], SourceKey]:
    """Return the sources of the turns of the caller of a case, by their session and turn ids."""
    return {(event["sessionId"], event["payload"]["turnId"]): ("turn", event["eventId"], None) for event in user.events}


def to_user(given: Given) -> PreviewUser:
    """Return what is known of a caller."""
    times = _turn_times(given.turns)
    events = [
        _to_event(_GIVEN_EVENT, turn, turn.session_id or _DEFAULT_SESSION, number, time)
        for number, (turn, time) in enumerate(zip(given.turns, times, strict=True), 1)
    ]
    said_at = min(times, default=DEFAULT_TIME - _QUESTION_DELAY)
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


def _turn_times(turns: Sequence[GivenTurn]) -> list[datetime]:
    times: list[datetime] = []
    for turn in turns:
        after = times[-1] + _TURN_INTERVAL if times else DEFAULT_TIME - _QUESTION_DELAY
        times.append(turn.occurred_at or after)
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
