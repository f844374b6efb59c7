"""Link traces to the events of their turns, whichever of the two arrives first.

Runtimes name the event themselves. Other clients know only what the application calls the turn.
"""

from collections.abc import Iterable, Mapping

from sqlalchemy import select, update

from memoair_cloud.database.models import CallEvent
from memoair_cloud.database.recall_trace_models import RecallTrace
from memoair_cloud.identifiers import sanitize_text
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.corrections import corrected_event_id
from memoair_protocol.enums import EventType

# A trace arrives soon after its turn: of a longer call, only the last turns are looked through.
_MAX_TURNS = 1_000


def link_to_stored_turns(session: ScopedSession, user_id: str, wanted: Mapping[str, set[str]]) -> None:
    """Link new traces to turns that are stored already.

    Args:
        session: The transaction that saves the traces.
        user_id: The user.
        wanted: The ids of turns by session, of traces that do not name an event.
    """
    for session_id, turn_ids in wanted.items():
        statement = select(CallEvent.id, CallEvent.payload).where(
            CallEvent.user_id == user_id, CallEvent.session_id == session_id, CallEvent.type == EventType.TURN.value
        )
        latest = statement.order_by(CallEvent.seq.desc(), CallEvent.id).limit(_MAX_TURNS)
        for row in session.execute(latest).all():
            turn_id = sanitize_text(str(row.payload.get("turnId")))
            if turn_id in turn_ids and corrected_event_id(row.payload) is None:
                _link(session, user_id, session_id, turn_id, row.id)


def link_new_turns(session: ScopedSession, user_id: str, turns: Iterable[tuple[str, str, str]]) -> None:
    """Link stored traces to new turns.

    Args:
        session: The transaction that saves the turns.
        user_id: The user.
        turns: The session, the turn's id and its event's id, of each turn.
    """
    events = {(session_id, turn_id): event_id for session_id, turn_id, event_id in turns}
    if not events:
        return
    unlinked = select(RecallTrace.session_id, RecallTrace.turn_id).where(
        RecallTrace.user_id == user_id,
        RecallTrace.session_id.in_({session_id for session_id, _ in events}),
        RecallTrace.turn_id.is_not(None),
        RecallTrace.turn_event_id.is_(None),
    )
    for session_id, turn_id in {(row.session_id, row.turn_id) for row in session.execute(unlinked)}:
        if (event_id := events.get((session_id, turn_id))) is not None:
            _link(session, user_id, session_id, turn_id, event_id)


def _link(session: ScopedSession, user_id: str, session_id: str, turn_id: str, event_id: str) -> None:
    statement = update(RecallTrace).where(
        RecallTrace.user_id == user_id,
        RecallTrace.session_id == session_id,
        RecallTrace.turn_id == turn_id,
        RecallTrace.turn_event_id.is_(None),
    )
    unsynchronized = {"synchronize_session": False}
    session.execute(statement.values(turn_event_id=event_id), execution_options=unsynchronized)
