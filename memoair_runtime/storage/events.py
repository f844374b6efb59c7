"""The events of a call: what happened, in the form in which it is logged, and later sent to the cloud."""

import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from enum import Enum
from typing import Any

import msgspec


class EventType(str, Enum):
    """What an event tells."""

    SESSION_START = "session_start"  # a call began, or who is calling became known; payload: user, metadata
    # The caller spoke and was answered; payload: turnId, userText, assistantText, toolCalls, metadata, and, where the
    # answer was interrupted, assistantFullText, which was not heard.
    TURN = "turn"
    SESSION_END = "session_end"  # the call is over; payload: reason


class Event(msgspec.Struct, frozen=True, rename="camel"):
    """One event of one session. ``seq`` counts from 1 within the session."""

    event_id: str
    type: EventType
    session_id: str
    seq: int
    occurred_at: datetime
    payload: Mapping[str, Any]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def new_event(type_: EventType, session_id: str, seq: int, occurred_at: datetime, payload: Mapping[str, Any]) -> Event:
    """Make an event with a fresh id."""
    return Event(uuid.uuid4().hex, type_, session_id, seq, occurred_at.astimezone(timezone.utc), payload)


def encode_line(event: Event) -> bytes:
    """Encode an event as one line of the log, line feed included."""
    return _encoder.encode(event) + b"\n"


def decode_line(line: bytes) -> Event | None:
    """Decode a line of the log; None if it is damaged, or of a shape that nobody here writes."""
    try:
        event = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return event if is_valid(event) else None


def is_valid(event: Event) -> bool:
    """Whether an event from elsewhere has the parts that everybody inside reads without a look."""
    objects = [event.payload.get(name) or {} for name in ("user", "metadata")]
    return event.occurred_at.tzinfo is not None and all(isinstance(part, dict) for part in objects)
