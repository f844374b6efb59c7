"""Parse and validate a single event from the wire. An invalid event does not affect the others of its batch."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec

from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.identifiers import check_identifier, sanitize_text
from memoair_protocol.corrections import CORRECTS_KEY, corrected_event_id
from memoair_protocol.enums import EventType
from memoair_protocol.identifiers import MAX_ID_BYTES
from memoair_protocol.json_guards import is_deeper_than, strip_values
from memoair_protocol.limits import MAX_CLOUD_JSON_DEPTH, MAX_EVENT_BYTES
from memoair_protocol.timestamps import has_offset, parse_timestamp

_MAX_SEQ = 2**53 - 1  # the largest integer that every JSON parser preserves
_ENUM_VALUES = {"type": ", ".join(event_type.value for event_type in EventType)}

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]


class _WireStruct(msgspec.Struct, frozen=True, rename="camel"):
    pass


class UserPart(_WireStruct, frozen=True):
    """The user in the payload of a session start."""

    id: str | None = None
    name: str | None = None
    metadata: dict[str, Any] | None = None


class StartPayload(_WireStruct, frozen=True, rename="camel"):
    """The payload of a session start, as far as the cloud reads it."""

    user: UserPart | None = None
    metadata: dict[str, Any] | None = None


class _TurnPayload(_WireStruct, frozen=True, rename="camel"):
    turn_id: str
    user_text: str
    assistant_text: str
    corrects: Any = None


class _Event(_WireStruct, frozen=True, rename="camel"):
    event_id: Identifier
    type: EventType
    session_id: Identifier
    seq: Annotated[int, msgspec.Meta(ge=0, le=_MAX_SEQ)]
    occurred_at: str
    payload: msgspec.Raw
    erasure: Any = None
    clock: Any = None


class IncomingEvent(msgspec.Struct, frozen=True):
    """A validated event of one session.

    Attributes:
        event_id: The id of the event, unique per user.
        type: The type of the event.
        session_id: The session that it belongs to.
        seq: Its position in the session.
        occurred_at: When it happened, in UTC.
        payload: The payload as JSON, exactly as it was sent.
        start: The parsed payload of a session start; None for other events.
        corrects: The id of the event that a turn corrects; None if it corrects none.
        turn_id: The id of a turn, as the application calls it; None for other events.
        erasure: What the machine knew of erasures of the user when it logged the event as it happened; see
            `memoair_protocol.erasure_marks`. None for an event that only says when it happened.
        clock: When that was, by the machine's own clock.
    """

    event_id: str
    type: EventType
    session_id: str
    seq: int
    occurred_at: datetime
    payload: str
    start: StartPayload | None
    corrects: str | None = None
    turn_id: str | None = None
    erasure: str | None = None
    clock: str | None = None

    @property
    def turn_key(self) -> tuple[str, str, str] | None:
        """The session, the turn's id and the event's id of a turn; None for other events, and for corrections."""
        if self.turn_id is None or self.corrects is not None:
            return None
        return self.session_id, self.turn_id, self.event_id

    @property
    def user(self) -> UserPart:
        """The user as given by a session start; empty for other events."""
        return (self.start and self.start.user) or UserPart()


class _EventIdOnly(_WireStruct, frozen=True, rename="camel"):
    event_id: Any = None


_decode_event_id = msgspec.json.Decoder(_EventIdOnly).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_PAYLOAD_DECODERS: Mapping[EventType, msgspec.json.Decoder[Any]] = {
    EventType.SESSION_START: msgspec.json.Decoder(StartPayload),
    EventType.TURN: msgspec.json.Decoder(_TurnPayload),
    EventType.SESSION_END: msgspec.json.Decoder(dict[str, Any]),
}


def parse_event(content: bytes) -> IncomingEvent:
    """Parse and validate an event.

    Args:
        content: The event as JSON in UTF-8.

    Raises:
        InvalidRequestError: If it is invalid. The message names fields and what is wrong with them, never their values.
    """
    if len(content) > MAX_EVENT_BYTES:
        raise InvalidRequestError(f"larger than {MAX_EVENT_BYTES} bytes")
    if is_deeper_than(MAX_CLOUD_JSON_DEPTH, content):
        raise InvalidRequestError(f"nested deeper than {MAX_CLOUD_JSON_DEPTH} levels")
    try:
        msgspec.json.decode(content)  # parts that are not parsed below are saved, too, and must be readable later
        event = _decode_event(content)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(strip_values(str(error), _ENUM_VALUES)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequestError("invalid JSON, or not in UTF-8") from None
    try:
        payload = _PAYLOAD_DECODERS[event.type].decode(event.payload)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"payload: {strip_values(str(error), _ENUM_VALUES)}") from None
    try:
        occurred_at = parse_timestamp(event.occurred_at)
    except ValueError:
        raise InvalidRequestError("occurredAt: invalid ISO 8601 timestamp") from None
    return IncomingEvent(
        event_id=_check_identifier_field("eventId", event.event_id),
        type=event.type,
        session_id=_check_identifier_field("sessionId", event.session_id),
        seq=event.seq,
        occurred_at=occurred_at,
        payload=_keep_offset(bytes(event.payload), event).decode(),
        start=payload if isinstance(payload, StartPayload) else None,
        corrects=corrected_event_id({CORRECTS_KEY: payload.corrects}) if isinstance(payload, _TurnPayload) else None,
        turn_id=sanitize_text(payload.turn_id) if isinstance(payload, _TurnPayload) else None,
        erasure=event.erasure if isinstance(event.erasure, str) else None,
        clock=event.clock if isinstance(event.clock, str) else None,
    )


def _keep_offset(payload: bytes, event: "_Event") -> bytes:
    """Return a payload that still says in which time zone a turn was spoken: times are stored in UTC."""
    if event.type is not EventType.TURN or not has_offset(event.occurred_at):
        return payload
    fields = msgspec.json.decode(payload)
    metadata = fields.get("metadata")
    fields["metadata"] = {"occurredAt": event.occurred_at, **(metadata if isinstance(metadata, dict) else {})}
    return msgspec.json.encode(fields)


def extract_event_id(content: bytes) -> str | None:
    """Return the event id of an invalid event if it has one, so that its rejection can name it."""
    try:
        event_id = _decode_event_id(content).event_id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return event_id if isinstance(event_id, str) else None


def _check_identifier_field(field: str, value: str) -> str:
    try:
        return check_identifier(value)
    except ValueError as error:
        raise InvalidRequestError(f"{field}: {error}") from None
