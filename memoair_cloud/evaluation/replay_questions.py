"""Choose the questions of a replay: what callers said in a period, evenly over it, and the same ones each time."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import Select, and_, func, select, tuple_

from memoair_cloud.database.models import CallEvent, CallSession
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_evaluation.replay import split_evenly
from memoair_protocol.corrections import corrected_event_id
from memoair_protocol.enums import EventType
from memoair_protocol.limits import MAX_QUERY_CHARS

# Of each part of the period, so many turns are looked at to find one with words. A part without is a part of silence.
_MAX_TRIES = 16
_ROWS_AT_ONCE = 2_000
_KEYS_AT_ONCE = 200


@attrs.frozen
class PastQuestion:
    """A turn of a call in which the caller said something.

    Attributes:
        user_id: The caller.
        session_id: The call.
        event_id: The turn.
        occurred_at: When it was said.
    """

    user_id: str
    session_id: str
    event_id: str
    occurred_at: datetime


@attrs.frozen
class ChosenQuestions:
    """The questions of a replay.

    Attributes:
        questions: The questions, in time.
        turn_count: The number of turns of the period, of which they are a choice.
    """

    questions: Sequence[PastQuestion]
    turn_count: int


def choose_questions(
    session: ScopedSession, agent_id: str, since: datetime, until: datetime, max_questions: int
) -> ChosenQuestions:
    """Return the questions of an agent's calls in a period.

    The turns of the period, in time, are divided into as many equal parts as there may be questions. Each part gives
    its first turn in which the caller said something. So a busy day has more questions than a quiet one, and the same
    data gives the same questions.

    Args:
        session: The session to read with.
        agent_id: The agent.
        since: The first moment of the period.
        until: The first moment after it.
        max_questions: The maximum number of questions.
    """
    statement = _select_turns(agent_id, since, until)
    total = session.scalar(statement.with_only_columns(func.count())) or 0
    parts = split_evenly(total, max_questions)
    keys: list[list[tuple[str, str]]] = [[] for _ in parts]
    ordered = statement.order_by(CallEvent.occurred_at, CallEvent.user_id, CallEvent.id)
    part = 0
    for number, row in enumerate(session.execute(ordered.execution_options(yield_per=_ROWS_AT_ONCE))):
        while number >= parts[part].stop:
            part += 1
        if len(keys[part]) < _MAX_TRIES:
            keys[part].append((row.user_id, row.id))
    found: list[PastQuestion | None] = [None] * len(parts)
    for attempt in range(_MAX_TRIES):
        tried = {numbers[attempt]: place for place, numbers in enumerate(keys) if attempt < len(numbers)}
        wanted = [key for key, place in tried.items() if found[place] is None]
        for start in range(0, len(wanted), _KEYS_AT_ONCE):
            is_wanted = tuple_(CallEvent.user_id, CallEvent.id).in_(wanted[start : start + _KEYS_AT_ONCE])
            for event in session.scalars(select(CallEvent).where(is_wanted)):
                if is_question(event.payload):
                    question = PastQuestion(event.user_id, event.session_id, event.id, event.occurred_at)
                    found[tried[event.user_id, event.id]] = question
        session.expunge_all()  # or all their words would stay in memory
    return ChosenQuestions([question for question in found if question is not None], total)


def is_question(payload: Mapping[str, Any]) -> bool:
    """Return whether a caller said something in a turn: a word or a number. A correction is a part of another turn."""
    return corrected_event_id(payload) is None and bool(get_question(payload))


def get_question(payload: Mapping[str, Any]) -> str:
    """Return what a caller said in a turn, as far as a search takes it; empty without any word."""
    text = payload.get("userText")
    if not isinstance(text, str) or not any(char.isalnum() for char in text):
        return ""
    return text.strip()[:MAX_QUERY_CHARS]


def _select_turns(agent_id: str, since: datetime, until: datetime) -> "Select[str, str]":
    same_call = and_(CallEvent.user_id == CallSession.user_id, CallEvent.session_id == CallSession.id)
    return (
        select(CallEvent.user_id, CallEvent.id)
        .join_from(CallSession, CallEvent, same_call)
        .where(
            CallSession.agent_id == agent_id,
            # So that only the calls of the period are looked at; their turns may still be outside of it.
            CallSession.started_at < until,
            CallSession.last_event_at >= since,
            CallEvent.type == EventType.TURN.value,
            CallEvent.occurred_at >= since,
            CallEvent.occurred_at < until,
        )
    )
