"""Events: what happened in a session, as it is logged and sent to the cloud."""

import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import attrs
import msgspec

from memoair_protocol.enums import EventType
from memoair_protocol.erasure_marks import DeviceTime


@attrs.define
class ErasureKnowledge:
    """What this machine has carried out of the erasures of its user. Thread-safe: there is one attribute.

    Attributes:
        mark: The mark of the last one in the cloud, see `memoair_protocol.erasure_marks`; empty if unknown.
    """

    mark: str = ""


@attrs.frozen
class EventOrigin:
    """Who logs events: it decides where they may be sent.

    Attributes:
        cloud: Id of the cloud that the events are meant for; None for a runtime without a cloud, whose events stay on
            this machine.
        agent_id: The agent that the caller talks to, if any.
        knowledge: The erasures that this machine knows of.
    """

    cloud: str | None = None
    agent_id: str | None = None
    knowledge: ErasureKnowledge = attrs.field(factory=ErasureKnowledge, eq=False)


class Event(msgspec.Struct, frozen=True, rename="camel"):
    """One event of a session. Its field names in camel case are the keys on disk and on the wire.

    ``cloud`` and ``agentId`` are on disk only. The cloud does not send back ``erasure`` and ``clock``.

    Attributes:
        event_id: Unique id.
        type: What happened.
        session_id: The session.
        seq: Position in the session, from 1.
        occurred_at: When it happened, with a time zone.
        payload: Depends on the type; see `EventType`.
        cloud: Id of the cloud that it is meant for; None if it is to stay on this machine. Unset in logs of versions
            that did not record it, and in events from the cloud.
        agent_id: The agent that logged it, if any.
        erasure: The mark of the erasures that were known when it was logged as it happened. Unset for an event of
            which only the application says when it happened.
        clock: When that was, by a clock that cannot be set; see `memoair_protocol.erasure_marks.DeviceTime`.
    """

    event_id: str
    type: EventType
    session_id: str
    seq: int
    occurred_at: datetime
    payload: Mapping[str, Any]
    cloud: str | msgspec.UnsetType | None = msgspec.UNSET
    agent_id: str | msgspec.UnsetType | None = msgspec.UNSET
    erasure: str | msgspec.UnsetType = msgspec.UNSET
    clock: str | msgspec.UnsetType = msgspec.UNSET


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def new_event(
    type_: EventType,
    session_id: str,
    seq: int,
    occurred_at: datetime,
    payload: Mapping[str, Any],
    origin: EventOrigin | None = None,
    *,
    is_live: bool = False,
) -> Event:
    """Create an event with a new id.

    Args:
        type_: The event's type.
        session_id: The session.
        seq: Position in the session, from 1.
        occurred_at: When it happened, with a time zone; stored in UTC.
        payload: The event's data.
        origin: Who logs it; unset if None.
        is_live: Whether it happens now, and is not only reported with a time.
    """
    event = Event(uuid.uuid4().hex, type_, session_id, seq, occurred_at.astimezone(timezone.utc), payload)
    if origin is None:
        return event
    event = msgspec.structs.replace(event, cloud=origin.cloud, agent_id=origin.agent_id or msgspec.UNSET)
    if not is_live:
        return event
    return msgspec.structs.replace(event, erasure=origin.knowledge.mark, clock=str(DeviceTime.now()))


def encode_line(event: Event) -> bytes:
    """Encode an event as one line of a log, including the line feed."""
    return _encoder.encode(event) + b"\n"


def decode_line(line: bytes) -> Event | None:
    """Decode a line of a log; return None if the line is damaged or does not have the shape of an event."""
    try:
        event = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return event if is_valid(event) else None


def is_valid(event: Event) -> bool:
    """Return whether an event from outside has the structure that readers rely on.

    Its time has a time zone; ``user`` and ``metadata`` in its payload are objects, if present.
    """
    objects = [event.payload.get(name) or {} for name in ("user", "metadata")]
    return event.occurred_at.tzinfo is not None and all(isinstance(part, dict) for part in objects)
