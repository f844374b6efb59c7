"""A call as it went: its turns in time, corrected ones in their place, page by page."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import Text, func, select, tuple_, type_coerce

from memoair_cloud.database.models import CallEvent, CallSession, EndUser
from memoair_cloud.errors import NotFoundError
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.corrections import corrected_event_id
from memoair_protocol.enums import EventType
from memoair_protocol.interruption import FULL_TEXT_KEY, truncate_to_heard


@attrs.frozen
class ReplayedTurn:
    """A turn of a call.

    Attributes:
        number: Its place in the call, from 1.
        event_id: Its event.
        turn_id: Its id, as the application calls it.
        occurred_at: When it was spoken.
        user_text: What the caller said.
        heard_text: What the caller heard of the answer.
        full_text: The whole answer, if the caller interrupted it; None otherwise.
        tool_calls: The tools that the agent called.
        metadata: The metadata of the turn.
        corrects: The event that it corrects, if it was delivered again with other words.
        corrected_by: The event that corrects it. What it says no longer counts.
    """

    number: int
    event_id: str
    turn_id: str
    occurred_at: datetime
    user_text: str
    heard_text: str
    full_text: str | None
    tool_calls: Sequence[Mapping[str, Any]]
    metadata: Mapping[str, Any]
    corrects: str | None
    corrected_by: str | None = None

    @property
    def unheard_text(self) -> str:
        """What was meant and not heard; empty unless the heard text begins the whole answer."""
        if self.full_text is None or not self.full_text.startswith(self.heard_text):
            return ""
        return self.full_text[len(self.heard_text) :]


@attrs.frozen
class Replay:
    """A part of a call.

    Attributes:
        call: The call.
        user: The caller.
        turns: The turns of this page, in time; those that match, if a text is searched.
        turn_count: The number of turns of the call, corrections included.
        match_count: The number of turns with the text; the number of turns without one.
        page: The number of this page, from 1.
        page_count: The number of pages.
    """

    call: CallSession
    user: EndUser
    turns: Sequence[ReplayedTurn]
    turn_count: int
    match_count: int
    page: int
    page_count: int


def load_replay(
    tenant: Tenant,
    user_id: str,
    session_id: str,
    *,
    page: int = 1,
    page_turns: int = 50,
    at_event: str | None = None,
    text: str = "",
) -> Replay:
    """Return a page of a call.

    Args:
        tenant: The project.
        user_id: The caller.
        session_id: The call.
        page: The number of the page, from 1; one beyond the last is the last.
        page_turns: The number of turns of a page.
        at_event: The page with this event instead.
        text: Only turns in which this was said, whatever its case.

    Raises:
        NotFoundError: If there is no such call.
    """
    with tenant.begin_read() as session:
        call = session.get(CallSession, (session.scope.project_id, user_id, session_id))
        user = session.get(EndUser, (session.scope.project_id, user_id))
        if call is None or user is None:
            raise NotFoundError("unknown call")
        is_turn = (
            CallEvent.user_id == user_id,
            CallEvent.session_id == session_id,
            CallEvent.type == EventType.TURN.value,
        )
        turn_count = session.scalar(select(func.count()).select_from(CallEvent).where(*is_turn)) or 0
        statement = select(CallEvent).where(*is_turn).order_by(CallEvent.seq, CallEvent.id)
        if text.strip():
            needle = text.strip().casefold()
            numbered = enumerate(session.scalars(statement).yield_per(500), 1)
            found = [(number, row) for number, row in numbered if _says(row, needle)]
            match_count = len(found)
            page, page_count = _clamp_page(page, match_count, page_turns)
            rows = found[(page - 1) * page_turns : page * page_turns]
        else:
            match_count = turn_count
            if at_event is not None:
                page = _find_number(session, is_turn, user_id, at_event) // page_turns + 1
            page, page_count = _clamp_page(page, turn_count, page_turns)
            start = (page - 1) * page_turns
            rows = list(enumerate(session.scalars(statement.offset(start).limit(page_turns)), start + 1))
        turns = [_to_turn(number, row) for number, row in rows]
        corrected_by = _find_corrections(session, is_turn)
    turns = [attrs.evolve(turn, corrected_by=corrected_by.get(turn.event_id)) for turn in turns]
    return Replay(call, user, turns, turn_count, match_count, page, page_count)


def find_neighbors(tenant: Tenant, user_id: str, session_id: str) -> tuple[str | None, str | None]:
    """Return the ids of the call before and the call after a call of a user; None at the ends."""
    with tenant.begin_read() as session:
        call = session.get(CallSession, (session.scope.project_id, user_id, session_id))
        if call is None:
            raise NotFoundError("unknown call")
        key, own = tuple_(CallSession.started_at, CallSession.id), (call.started_at, call.id)
        statement = select(CallSession.id).where(CallSession.user_id == user_id)
        before = statement.where(key < own).order_by(CallSession.started_at.desc(), CallSession.id.desc())
        after = statement.where(key > own).order_by(CallSession.started_at, CallSession.id)
        return session.scalar(before.limit(1)), session.scalar(after.limit(1))


def load_turn(tenant: Tenant, user_id: str, event_id: str) -> ReplayedTurn:
    """Return a turn without its place in the call (0); raise `NotFoundError` if it is unknown."""
    with tenant.begin_read() as session:
        row = session.get(CallEvent, (session.scope.project_id, user_id, event_id))
        if row is None or row.type != EventType.TURN.value:
            raise NotFoundError("unknown turn")
        return _to_turn(0, row)


def _find_number(session: ScopedSession, is_turn: tuple[Any, ...], user_id: str, event_id: str) -> int:
    """Return how many turns of a call are before an event; 0 if it is not in the call."""
    row = session.get(CallEvent, (session.scope.project_id, user_id, event_id))
    if row is None:
        return 0
    is_before = tuple_(CallEvent.seq, CallEvent.id) < (row.seq, row.id)
    return session.scalar(select(func.count()).select_from(CallEvent).where(*is_turn, is_before)) or 0


def _find_corrections(session: ScopedSession, is_turn: tuple[Any, ...]) -> dict[str, str]:
    """Return the events that correct others, by the event that they correct."""
    statement = select(CallEvent).where(*is_turn, _payload_text().contains('"corrects"'))
    corrections = {row.id: corrected_event_id(row.payload) for row in session.scalars(statement)}
    return {corrected: event_id for event_id, corrected in corrections.items() if corrected is not None}


def _payload_text() -> Any:
    return type_coerce(CallEvent.payload, Text)


def _clamp_page(page: int, count: int, page_turns: int) -> tuple[int, int]:
    page_count = max(1, -(-count // page_turns))
    return min(max(1, page), page_count), page_count


def _says(row: CallEvent, needle: str) -> bool:
    payload = row.payload
    texts = [payload.get("userText"), payload.get("assistantText"), payload.get(FULL_TEXT_KEY)]
    return any(isinstance(text, str) and needle in text.casefold() for text in texts)


def _to_turn(number: int, row: CallEvent) -> ReplayedTurn:
    payload = truncate_to_heard(row.payload)
    metadata = payload.get("metadata")
    tool_calls = payload.get("toolCalls")
    full_text = payload.get(FULL_TEXT_KEY)
    return ReplayedTurn(
        number=number,
        event_id=row.id,
        turn_id=str(payload.get("turnId") or ""),
        occurred_at=row.occurred_at,
        user_text=str(payload.get("userText") or ""),
        heard_text=str(payload.get("assistantText") or ""),
        full_text=full_text if isinstance(full_text, str) else None,
        tool_calls=[call for call in tool_calls if isinstance(call, dict)] if isinstance(tool_calls, list) else [],
        metadata=metadata if isinstance(metadata, dict) else {},
        corrects=corrected_event_id(row.payload),
    )
