"""What was known of a caller when they said something: the turns before it, and the facts and profile of earlier calls.

Facts are learned when a call is over, so those of the same call were not known yet. What replaced a fact later is left
out, and the fact that it replaced counts again.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import select

from memoair_cloud.calls.corrected_turns import drop_corrected
from memoair_cloud.consolidation import Fact, merge_facts, summarize_facts
from memoair_cloud.database.models import CallEvent, EndUser, Memory
from memoair_cloud.errors import ConflictError, NotFoundError
from memoair_cloud.memories.reconcile import to_fact
from memoair_cloud.memories.states import RETAINED_STATES
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.callers import has_several_callers
from memoair_protocol.enums import EventType
from memoair_protocol.interruption import truncate_to_heard

# The latest ones. A caller with more turns has been talking to agents for years.
MAX_TURNS = 2_000


@attrs.frozen
class SaidTurn:
    """A turn, as the caller heard it.

    Attributes:
        event_id: Its event.
        session_id: Its call.
        turn_id: Its id, as the application calls it; empty if it has none.
        occurred_at: When it was spoken.
        user_text: What the caller said.
        assistant_text: What they heard of the answer.
        metadata: Its metadata.
    """

    event_id: str
    session_id: str
    turn_id: str
    occurred_at: datetime
    user_text: str
    assistant_text: str
    metadata: dict[str, Any]


@attrs.frozen
class KnownThen:
    """What was known of a caller when they said something.

    Attributes:
        turn: What they said then.
        talk: The turns of the same call before it.
        earlier: The turns of earlier calls, call by call.
        facts: The facts that held then.
        profile: ``name``, ``summary``, ``attributes`` and ``metadata``.
        left_out: How many of the oldest turns are missing, because there are too many.
    """

    turn: SaidTurn
    talk: Sequence[SaidTurn]
    earlier: Sequence[SaidTurn]
    facts: Sequence[Fact]
    profile: dict[str, Any]
    left_out: int


def load_known_then(session: ScopedSession, user_id: str, session_id: str, event_id: str) -> KnownThen:
    """Return what was known of a caller when they said something.

    Args:
        session: The session to read with.
        user_id: The caller.
        session_id: The call.
        event_id: The event of the turn.

    Raises:
        NotFoundError: If there is no such turn in such a call.
        ConflictError: If another event corrects the turn, so that its words no longer count.
    """
    user = session.get(EndUser, (session.scope.project_id, user_id))
    row = session.get(CallEvent, (session.scope.project_id, user_id, event_id))
    is_turn = row is not None and (row.session_id, row.type) == (session_id, EventType.TURN.value)
    if user is None or row is None or not is_turn:
        raise NotFoundError("unknown turn of this call", resource="turn")
    turns = select(CallEvent).where(CallEvent.user_id == user_id, CallEvent.type == EventType.TURN.value)
    of_call = turns.where(CallEvent.session_id == session_id)
    in_order = of_call.order_by(CallEvent.seq, CallEvent.occurred_at, CallEvent.id)
    call = drop_corrected(session.scalars(in_order).all())
    place = next((place for place, event in enumerate(call) if event.id == event_id), None)
    if place is None:
        raise ConflictError("another turn corrects this one: copy that one", resource="turn")
    before = turns.where(CallEvent.session_id != session_id, CallEvent.occurred_at < row.occurred_at)
    latest_first = before.order_by(CallEvent.occurred_at.desc(), CallEvent.id.desc())
    earlier = session.scalars(latest_first.limit(MAX_TURNS + 1)).all()
    facts = _load_facts(session, user, session_id, row.occurred_at)
    return KnownThen(
        turn=_to_turn(row),
        talk=[_to_turn(event) for event in call[:place][-MAX_TURNS:]],
        earlier=[_to_turn(event) for event in drop_corrected(_sort_by_call(earlier[:MAX_TURNS]))],
        facts=[fact for fact in facts if fact.is_current],
        profile=_make_profile(user, facts, row.occurred_at),
        left_out=max(0, place - MAX_TURNS) + (len(earlier) > MAX_TURNS),
    )


def _sort_by_call(events: Sequence[CallEvent]) -> list[CallEvent]:
    """Return events call by call, the call that began first before the others."""
    began_at: dict[str, datetime] = {}
    for event in events:
        began_at[event.session_id] = min(event.occurred_at, began_at.get(event.session_id, event.occurred_at))
    return sorted(events, key=lambda event: (began_at[event.session_id], event.session_id, event.seq, event.id))


def _load_facts(session: ScopedSession, user: EndUser, session_id: str, at: datetime) -> Sequence[Fact]:
    """Return the facts of a user that were learned from calls before the present one, merged again as they were then.

    A fact that was corrected by hand since has the corrected words.
    """
    statement = select(Memory).where(
        Memory.user_id == user.id,
        Memory.state.in_(RETAINED_STATES),
        Memory.said_at < at,
        Memory.session_id != session_id,
    )
    return merge_facts(map(to_fact, session.scalars(statement)), user.name or "")


def _make_profile(user: EndUser, facts: Sequence[Fact], at: datetime) -> dict[str, Any]:
    summary = summarize_facts(facts, at.date(), user.name or "")
    learned = summary.attributes.get("name")
    name = user.name or (learned if isinstance(learned, str) else None)
    return {
        "name": None if has_several_callers(summary.attributes) else name,
        "summary": summary.summary,
        "attributes": dict(summary.attributes),
        "metadata": user.details,
    }


def _to_turn(event: CallEvent) -> SaidTurn:
    payload = truncate_to_heard(event.payload)
    metadata = payload.get("metadata")
    return SaidTurn(
        event_id=event.id,
        session_id=event.session_id,
        turn_id=str(payload.get("turnId") or ""),
        occurred_at=event.occurred_at,
        user_text=str(payload.get("userText") or ""),
        assistant_text=str(payload.get("assistantText") or ""),
        metadata=metadata if isinstance(metadata, dict) else {},
    )
