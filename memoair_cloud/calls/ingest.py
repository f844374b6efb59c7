"""Events come in: each once, in any order, a batch in one transaction."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import attrs
import msgspec
from sqlalchemy import select

from memoair_cloud.calls.event_parsing import IncomingEvent, IncomingEventType, parse_event, told_id
from memoair_cloud.calls.users import forgotten, forgotten_sessions, locked_or_new_caller
from memoair_cloud.database.columns import EncodedJson
from memoair_cloud.database.models import CallEvent, CallSession, EndUser
from memoair_cloud.errors import ApiError, ConflictError, InvalidRequestError, UserErasedError
from memoair_cloud.identifiers import MAX_NAME_CHARS, sound_text
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_cloud.timeutil import utc_now

# So far ahead may a machine's clock be for its times to be believed.
MOST_AHEAD = timedelta(minutes=5)


@attrs.frozen
class EventRejection:
    """An event that was not kept, and why. ``event_id`` is None where it has none that can be told."""

    event_id: str | None
    code: str
    message: str


@attrs.define
class IngestResult:
    """What became of a batch; every event of it is in one of the three."""

    accepted: list[str] = attrs.field(factory=list)
    duplicate: list[str] = attrs.field(factory=list)
    rejected: list[EventRejection] = attrs.field(factory=list)
    has_ended_call: bool = False  # whether one of the calls is over, so that there is something to learn from

    def repeat(self, event_id: str) -> None:
        """Note that an event of the batch has come in it before, and became what that one did."""
        refused = next((each for each in self.rejected if each.event_id == event_id), None)
        if refused is None:
            self.duplicate.append(event_id)
        else:
            self.rejected.append(refused)

    def refuse(self, event_id: str | None, fault: ApiError) -> None:
        """Note an event that is not kept."""
        self.rejected.append(EventRejection(event_id, fault.code, fault.message))


def ingest(tenant: Tenant, batch: Iterable[bytes]) -> IngestResult:
    """Keep the events of one caller, each given as JSON. What is accepted is durable when this returns.

    An event that can't be kept is refused by itself. Raises `InvalidRequestError` where the request does not say whose they are.
    """
    user_id = tenant.scope.user_id
    if user_id is None:
        raise InvalidRequestError("X-User-Id is missing: whose events these are", field="X-User-Id")
    receipt = IngestResult()
    events, again = _sound_events(batch, user_id, receipt)
    with tenant.writing() as session:
        if events:
            _keep(session, user_id, events, receipt)
    for event_id in again:
        receipt.repeat(event_id)
    return receipt


def _sound_events(batch: Iterable[bytes], user_id: str, receipt: IngestResult) -> tuple[list[IncomingEvent], list[str]]:
    """The events that may be kept, each once, and the ids of those that came again; others go into the receipt."""
    seen: dict[str, IncomingEvent] = {}
    again: list[str] = []
    for content in batch:
        try:
            event = parse_event(content)
            if event.user.id not in (None, user_id):
                raise InvalidRequestError("payload.user.id: is another than the request's X-User-Id")
            known = seen.setdefault(event.event_id, event)
            if known.session_id != event.session_id:
                raise _elsewhere()
        except ApiError as fault:
            receipt.refuse(told_id(content), fault)
        else:
            if known is not event:
                again.append(event.event_id)
    return list(seen.values()), again


def _elsewhere() -> ConflictError:
    return ConflictError("the event id is that of an event in another session of this caller")


def _keep(session: ScopedSession, user_id: str, events: list[IncomingEvent], receipt: IngestResult) -> None:
    user = locked_or_new_caller(session, user_id, events[0].occurred_at)
    now = utc_now()
    fresh = [_by_our_clock(event, now) for event in _fresh(session, user_id, events, receipt)]
    if not fresh:
        if not user.session_count:  # it was made for nothing
            session.delete(user)
        return
    user.memory_version += 1
    calls = _calls(session, user, fresh, now)
    for session_id, of_call in _by_session(fresh).items():
        _tell(calls[session_id], user, of_call)
    receipt.has_ended_call = any(call.ended_at is not None for call in calls.values())
    session.flush()  # the sessions, which the events refer to
    session.insert(CallEvent, [_row(event, user, now) for event in fresh])
    receipt.accepted.extend(event.event_id for event in fresh)


def _by_our_clock(event: IncomingEvent, now: datetime) -> IncomingEvent:
    """An event of a machine whose clock is ahead, at the latest now: who is forgotten today said nothing tomorrow."""
    return event if event.occurred_at <= now + MOST_AHEAD else msgspec.structs.replace(event, occurred_at=now)


def _row(event: IncomingEvent, user: EndUser, now: datetime) -> dict[str, Any]:
    return {
        "user_id": user.id,
        "id": event.event_id,
        "session_id": event.session_id,
        "type": event.type.value,
        "seq": event.seq,
        "occurred_at": event.occurred_at,
        "received_at": now,
        "payload": EncodedJson(event.payload),
        "version": user.memory_version,
    }


def _by_session(events: Iterable[IncomingEvent]) -> dict[str, list[IncomingEvent]]:
    found: dict[str, list[IncomingEvent]] = {}
    for event in events:
        found.setdefault(event.session_id, []).append(event)
    return found


def _fresh(
    session: ScopedSession, user_id: str, events: list[IncomingEvent], receipt: IngestResult
) -> list[IncomingEvent]:
    """Those events that are to be kept; what becomes of the others goes into the receipt."""
    before = forgotten(session, user_id)
    over = forgotten_sessions(session, user_id, {event.session_id for event in events}) if before else set[str]()
    known = _known(session, user_id, events)
    fresh = []
    for event in events:
        if event.event_id in known:
            if known[event.event_id] == event.session_id:
                receipt.duplicate.append(event.event_id)
            else:
                receipt.refuse(event.event_id, _elsewhere())
        elif event.session_id in over or (before and event.occurred_at <= before.forgotten_at):
            receipt.refuse(event.event_id, UserErasedError("the caller was forgotten after this was said"))
        else:
            fresh.append(event)
    return fresh


def _known(session: ScopedSession, user_id: str, events: list[IncomingEvent]) -> dict[str, str]:
    ids = [event.event_id for event in events]
    # The type is not needed, but without it one of the indexes has all that is asked for, and SQLite goes through all
    # of the caller's events there instead of looking each up by the key.
    columns = (CallEvent.id, CallEvent.session_id, CallEvent.type)
    known = select(*columns).where(CallEvent.user_id == user_id, CallEvent.id.in_(ids))
    return {row.id: row.session_id for row in session.execute(known)}


def _calls(session: ScopedSession, user: EndUser, events: list[IncomingEvent], now: datetime) -> dict[str, CallSession]:
    ids = {event.session_id for event in events}
    wanted = select(CallSession).where(CallSession.user_id == user.id, CallSession.id.in_(ids))
    calls = {call.id: call for call in session.scalars(wanted)}
    for event in events:
        if event.session_id not in calls:
            calls[event.session_id] = CallSession(
                project_id=session.scope.project_id,
                user_id=user.id,
                id=event.session_id,
                agent_id=session.scope.agent_id,
                details={},
                start_seq=None,
                boundary_seq=None,
                started_at=event.occurred_at,
                ended_at=None,
                last_event_at=event.occurred_at,
                turn_count=0,
                event_count=0,
                received_at=now,
            )
            session.add(calls[event.session_id])
            user.session_count += 1
    for call in calls.values():
        call.received_at = now
        call.failures, call.retry_at = 0, None  # what could not be learned from is another call now
    return calls


def _tell(call: CallSession, user: EndUser, events: list[IncomingEvent]) -> None:
    """What new events tell of their session and caller, whatever has come before them."""
    first, last = min(event.occurred_at for event in events), max(event.occurred_at for event in events)
    call.started_at, call.last_event_at = min(call.started_at, first), max(call.last_event_at, last)
    user.first_seen_at, user.last_seen_at = min(user.first_seen_at, first), max(user.last_seen_at, last)
    call.event_count += len(events)
    call.turn_count += sum(event.type is IncomingEventType.TURN for event in events)
    for event in events:
        if event.type is not IncomingEventType.TURN:
            _bound(call, user, event)


def _bound(call: CallSession, user: EndUser, event: IncomingEvent) -> None:
    """What the start or the end of a session tells; the latest of them counts, and of two at once the end."""
    is_end = event.type is IncomingEventType.SESSION_END
    if call.boundary_seq is None or event.seq > call.boundary_seq or (is_end and event.seq == call.boundary_seq):
        call.boundary_seq = event.seq
        call.ended_at = event.occurred_at if is_end else None
    if event.start is None:
        return
    if call.start_seq is None or event.seq > call.start_seq:
        call.start_seq, call.details = event.seq, dict(event.start.metadata or {})
    told = event.user
    if (told.name or told.metadata) and (user.described_at is None or event.occurred_at >= user.described_at):
        name = None if told.name is None else sound_text(told.name)[:MAX_NAME_CHARS]
        details = dict(told.metadata or {})
        user.profile_version += (user.name, user.details) != (name, details)
        user.described_at, user.name, user.details = event.occurred_at, name, details
