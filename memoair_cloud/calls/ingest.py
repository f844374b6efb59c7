"""Ingest events: each one once, in any order, a batch in one transaction."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import attrs
import msgspec
from sqlalchemy import select

from memoair_cloud.calls.erased_events import MAX_CLOCK_SKEW, ErasureOrder, EventOrder, Sender, correct_impossible_time
from memoair_cloud.calls.event_parsing import IncomingEvent, extract_event_id, parse_event
from memoair_cloud.calls.users import find_erased_sessions, find_erasure, lock_or_create_user
from memoair_cloud.database.columns import EncodedJson
from memoair_cloud.database.models import CallEvent, CallSession, EndUser, Project
from memoair_cloud.errors import ApiError, ConflictError, InvalidRequestError, UserErasedError
from memoair_cloud.identifiers import MAX_NAME_CHARS, sanitize_text
from memoair_cloud.outcomes.resolving import link_to_new_calls
from memoair_cloud.recall_traces.linking import link_new_turns
from memoair_cloud.retention.holds import is_held
from memoair_cloud.retention.policy import MIN_PERIOD, load_policy
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.grants import Action
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.enums import EventType
from memoair_protocol.erasure_marks import DeviceClock
from memoair_protocol.session_prompt import find_prompt_version
from memoair_protocol.timestamps import utc_now

_ERASED_MESSAGES = {
    EventOrder.BEFORE: "the user was erased after this event",
    EventOrder.UNKNOWN: "the user was erased, and it cannot be known whether this event is from before that",
}
_OTHER_WORDS = "the event id belongs to a turn with other words; send them as an event of its own that corrects it"


@attrs.frozen
class EventRejection:
    """An event that was rejected.

    Attributes:
        event_id: The id of the event; None if it has none that can be read.
        code: The error code.
        message: Why it was rejected.
    """

    event_id: str | None
    code: str
    message: str


@attrs.define
class IngestResult:
    """The outcome of a batch. Every event of the batch is in exactly one of ``accepted``, ``duplicate``, ``rejected``.

    Attributes:
        accepted: The ids of new events, which are now durable, and of expired ones.
        expired: The ids of events that are older than the project keeps them, and were dropped. To reject them would
            look like a loss, and to ask for them again would never end.
        duplicate: The ids of events that were saved before.
        rejected: The events that were not saved, with the reasons.
        undecided: The number of rejected events of which it cannot be known whether they are from before an erasure.
        has_ended_call: Whether one of the calls has ended, so that it can be consolidated.
    """

    accepted: list[str] = attrs.field(factory=list)
    expired: list[str] = attrs.field(factory=list)
    duplicate: list[str] = attrs.field(factory=list)
    rejected: list[EventRejection] = attrs.field(factory=list)
    undecided: int = 0
    has_ended_call: bool = False

    def record_repeat(self, event_id: str) -> None:
        """Record that an event occurs again in the batch: it shares the outcome of its first occurrence."""
        rejection = next((candidate for candidate in self.rejected if candidate.event_id == event_id), None)
        if rejection is None:
            self.duplicate.append(event_id)
        else:
            self.rejected.append(rejection)

    def record_rejection(self, event_id: str | None, error: ApiError) -> None:
        """Record a rejected event."""
        self.rejected.append(EventRejection(event_id, error.code, error.message))


def ingest(
    tenant: Tenant,
    batch: Iterable[bytes],
    *,
    now: datetime | None = None,
    device: DeviceClock | None = None,
    sent_at: datetime | None = None,
) -> IngestResult:
    """Save the events of one user. Accepted events are durable when this returns.

    Invalid events are rejected one by one; the others are saved.

    Args:
        tenant: The project and the user that the events belong to.
        batch: The events, each as JSON.
        now: When they arrive; by default the current time.
        device: The clocks of the machine that sends them, if it says.
        sent_at: When its request began to arrive, and with it the time of these clocks; by default ``now``.

    Raises:
        InvalidRequestError: If the request does not name the user.
    """
    user_id = tenant.scope.user_id
    if user_id is None:
        raise InvalidRequestError("X-User-Id is required: the user that the events belong to", field="X-User-Id")
    result = IngestResult()
    events, repeated_ids = _parse_batch(batch, user_id, result)
    with tenant.begin_write(Action.INGEST) as session:
        if events:
            now = now or utc_now()
            sender = None if device is None else Sender(device, sent_at or now)
            _store_events(session, user_id, events, result, now, sender)
    for event_id in repeated_ids:
        result.record_repeat(event_id)
    return result


def _parse_batch(batch: Iterable[bytes], user_id: str, result: IngestResult) -> tuple[list[IncomingEvent], list[str]]:
    """Return the valid events, each once, and the ids of repeated ones. Invalid events are recorded in the result."""
    seen: dict[str, IncomingEvent] = {}
    repeated_ids: list[str] = []
    for content in batch:
        try:
            event = parse_event(content)
            if event.user.id not in (None, user_id):
                raise InvalidRequestError("payload.user.id: differs from the request's X-User-Id")
            first = seen.setdefault(event.event_id, event)
            if first.session_id != event.session_id:
                raise _other_session_error()
            if first is not event and event.type is EventType.TURN and _have_other_words(first.payload, event.payload):
                raise ConflictError(_OTHER_WORDS)
        except ApiError as error:
            result.record_rejection(extract_event_id(content), error)
        else:
            if first is not event:
                repeated_ids.append(event.event_id)
    return list(seen.values()), repeated_ids


def _other_session_error() -> ConflictError:
    return ConflictError("the event id belongs to an event in another session of this user")


def _store_events(
    session: ScopedSession,
    user_id: str,
    events: list[IncomingEvent],
    result: IngestResult,
    now: datetime,
    sender: Sender | None,
) -> None:
    user = lock_or_create_user(session, user_id, events[0].occurred_at)
    order = _find_order(session, user_id, events, now, sender)
    selected_events = _select_new_events(session, user_id, events, order, result)
    new_events = [_clamp_clock_skew(event, now) for event in selected_events]
    new_events = _drop_expired(session, user, new_events, now, result)
    if not new_events:
        if (
            not user.session_count and user.turns_dropped_until is None
        ):  # the row was just created: nothing refers to it
            session.delete(user)
        return
    user.memory_version += 1
    calls = _load_or_create_calls(session, user, new_events, now)
    new_session_ids = [call.id for call in calls.values() if call in session.new]
    for session_id, call_events in _group_by_session(new_events).items():
        _apply_events(calls[session_id], user, call_events)
    result.has_ended_call = any(call.ended_at is not None for call in calls.values())
    session.flush()  # sessions first: the events refer to them
    if new_session_ids:
        link_to_new_calls(session, user_id, new_session_ids)
    session.bulk_insert(CallEvent, [_event_row(event, user, now) for event in new_events])
    link_new_turns(session, user_id, [event.turn_key for event in new_events if event.turn_key is not None])
    result.accepted.extend(event.event_id for event in new_events)


def _drop_expired(
    session: ScopedSession, user: EndUser, events: list[IncomingEvent], now: datetime, result: IngestResult
) -> list[IncomingEvent]:
    """Return the events that the project keeps; record the others, which arrive too late, in the result."""
    if all(event.occurred_at >= now - MIN_PERIOD for event in events):
        return events  # a live call costs nothing
    cutoff = load_policy(session).turns_cutoff(now)
    limits = [limit for limit in (cutoff, user.turns_dropped_until) if limit is not None]
    if not limits or is_held(session, user.id):
        return events
    expired = [event.event_id for event in events if event.occurred_at < max(limits)]
    result.expired += expired
    result.accepted += expired
    return [event for event in events if event.event_id not in set(expired)]


def _clamp_clock_skew(event: IncomingEvent, now: datetime) -> IncomingEvent:
    """Return the event; the timestamp of a clock that is far ahead becomes now.

    Otherwise an event from before an erasure could claim to be from after it.
    """
    return event if event.occurred_at <= now + MAX_CLOCK_SKEW else msgspec.structs.replace(event, occurred_at=now)


def _event_row(event: IncomingEvent, user: EndUser, now: datetime) -> dict[str, Any]:
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


def _group_by_session(events: Iterable[IncomingEvent]) -> dict[str, list[IncomingEvent]]:
    groups: dict[str, list[IncomingEvent]] = {}
    for event in events:
        groups.setdefault(event.session_id, []).append(event)
    return groups


def _find_order(
    session: ScopedSession, user_id: str, events: list[IncomingEvent], now: datetime, sender: Sender | None
) -> ErasureOrder | None:
    """Return what orders events against the erasures of their user; None if there were none."""
    erasure = find_erasure(session, user_id)
    if erasure is None:
        return None
    correct_impossible_time(erasure, now)
    epoch = session.scalars(select(Project.epoch).where(Project.id == session.scope.project_id)).one()
    erased_sessions = find_erased_sessions(session, user_id, {event.session_id for event in events})
    return ErasureOrder(erasure, epoch, erased_sessions, sender)


def _select_new_events(
    session: ScopedSession,
    user_id: str,
    events: list[IncomingEvent],
    order: ErasureOrder | None,
    result: IngestResult,
) -> list[IncomingEvent]:
    """Return the events to save; record the outcome of the others in the result."""
    stored_sessions = _find_stored_events(session, user_id, events)
    changed_ids = _find_changed_turns(
        session, user_id, [event for event in events if event.event_id in stored_sessions]
    )
    new_events = []
    for event in events:
        if event.event_id in stored_sessions:
            if stored_sessions[event.event_id] != event.session_id:
                result.record_rejection(event.event_id, _other_session_error())
            elif event.event_id in changed_ids:
                result.record_rejection(event.event_id, ConflictError(_OTHER_WORDS))
            else:
                result.duplicate.append(event.event_id)
            continue
        place = EventOrder.AFTER if order is None else order.of(event)
        if place is EventOrder.AFTER:
            new_events.append(event)
        else:
            result.undecided += place is EventOrder.UNKNOWN
            result.record_rejection(event.event_id, UserErasedError(_ERASED_MESSAGES[place]))
    return new_events


def _find_stored_events(session: ScopedSession, user_id: str, events: list[IncomingEvent]) -> dict[str, str]:
    event_ids = [event.event_id for event in events]
    # The type is not needed. But without it, one of the indexes covers the query, and SQLite scans all of the user's
    # events there instead of looking up each one by its key.
    columns = (CallEvent.id, CallEvent.session_id, CallEvent.type)
    statement = select(*columns).where(CallEvent.user_id == user_id, CallEvent.id.in_(event_ids))
    return {row.id: row.session_id for row in session.execute(statement)}


def _find_changed_turns(session: ScopedSession, user_id: str, events: list[IncomingEvent]) -> set[str]:
    """Return the ids of the turns that are stored with other words: they must not look like saved ones."""
    turns = {event.event_id: event for event in events if event.type is EventType.TURN}
    statement = select(CallEvent.id, CallEvent.payload).where(
        CallEvent.user_id == user_id, CallEvent.id.in_(turns), CallEvent.type == EventType.TURN.value
    )
    rows = session.execute(statement) if turns else ()
    return {row.id for row in rows if _words_of(row.payload) != _words_of(msgspec.json.decode(turns[row.id].payload))}


def _have_other_words(payload: str, other: str) -> bool:
    return payload != other and _words_of(msgspec.json.decode(payload)) != _words_of(msgspec.json.decode(other))


def _words_of(payload: Mapping[str, Any]) -> list[str]:
    return [str(payload.get(side)) for side in ("userText", "assistantText")]


def _load_or_create_calls(
    session: ScopedSession, user: EndUser, events: list[IncomingEvent], now: datetime
) -> dict[str, CallSession]:
    session_ids = {event.session_id for event in events}
    statement = select(CallSession).where(CallSession.user_id == user.id, CallSession.id.in_(session_ids))
    calls = {call.id: call for call in session.scalars(statement)}
    for event in events:
        if event.session_id not in calls:
            calls[event.session_id] = CallSession(
                project_id=session.scope.project_id,
                user_id=user.id,
                id=event.session_id,
                agent_id=session.scope.agent_id,
                details={},
                prompt_version=None,
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
        call.failures, call.retry_at = 0, None  # with new events, earlier failures no longer count
    return calls


def _apply_events(call: CallSession, user: EndUser, events: list[IncomingEvent]) -> None:
    """Update a session and its user from new events, in whatever order they arrive."""
    first, last = min(event.occurred_at for event in events), max(event.occurred_at for event in events)
    call.started_at, call.last_event_at = min(call.started_at, first), max(call.last_event_at, last)
    user.first_seen_at, user.last_seen_at = min(user.first_seen_at, first), max(user.last_seen_at, last)
    call.event_count += len(events)
    # A correction is another event of the same turn.
    call.turn_count += sum(event.type is EventType.TURN and event.corrects is None for event in events)
    for event in events:
        if event.type is not EventType.TURN:
            _update_boundaries(call, user, event)


def _update_boundaries(call: CallSession, user: EndUser, event: IncomingEvent) -> None:
    """Apply a session start or end. The one with the highest seq counts; at equal seq, the end wins over the start."""
    is_end = event.type is EventType.SESSION_END
    if call.boundary_seq is None or event.seq > call.boundary_seq or (is_end and event.seq == call.boundary_seq):
        call.boundary_seq = event.seq
        call.ended_at = event.occurred_at if is_end else None
    if event.start is None:
        return
    prompt_version = find_prompt_version(event.start.metadata)
    if call.start_seq is None or event.seq > call.start_seq:
        call.start_seq, call.details = event.seq, dict(event.start.metadata or {})
        # A later start, on another machine or after an eviction, may not know the prompt.
        call.prompt_version = prompt_version or call.prompt_version
    elif call.prompt_version is None:
        call.prompt_version = prompt_version
    user_part = event.user
    if (user_part.name or user_part.metadata) and (user.described_at is None or event.occurred_at >= user.described_at):
        name = None if user_part.name is None else sanitize_text(user_part.name)[:MAX_NAME_CHARS]
        details = dict(user_part.metadata or {})
        user.profile_version += (user.name, user.details) != (name, details)
        user.described_at, user.name, user.details = event.occurred_at, name, details
