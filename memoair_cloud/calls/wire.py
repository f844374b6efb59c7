"""An event as it comes over the wire, checked once."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from memoair_cloud.faults import Invalid
from memoair_cloud.moments import in_utc
from memoair_cloud.names import MAX_ID_BYTES, check_identifier

_MAX_SEQ = 2**53 - 1  # the largest whole number that every JSON reader keeps

Identifier = Annotated[str, AfterValidator(check_identifier), Field(min_length=1, max_length=MAX_ID_BYTES)]


class EventType(str, Enum):
    """What an event tells."""

    SESSION_START = "session_start"  # a call began, or who is calling became known
    TURN = "turn"  # the caller spoke and was answered
    SESSION_END = "session_end"  # the call is over


def _moment(value: Any) -> Any:
    # Pydantic would take numbers for seconds or milliseconds, by their size.
    if not isinstance(value, str):
        raise ValueError("a moment is an ISO 8601 text")
    return value if value[-1:] in "Zz" or "+" in value[10:] or "-" in value[10:] else f"{value}Z"


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, strict=True)


class EventIn(_Part):
    """One event of one session."""

    event_id: Identifier
    type: Annotated[EventType, Field(strict=False)]
    session_id: Identifier
    seq: int = Field(ge=0, le=_MAX_SEQ)
    occurred_at: Annotated[AwareDatetime, BeforeValidator(_moment), AfterValidator(in_utc), Field(strict=False)]
    payload: dict[str, Any]

    def user(self) -> "UserPart":
        """The caller, as a session's start tells."""
        return self.start().user or UserPart()

    def start(self) -> "StartPayload":
        """The payload of a session's start, typed as far as the cloud reads it."""
        return StartPayload.model_validate(self.payload)


class UserPart(_Part):
    """The caller in the payload of a session's start."""

    id: str | None = None
    name: str | None = None
    metadata: dict[str, Any] | None = None


class StartPayload(_Part):
    """The payload of a session's start."""

    user: UserPart | None = None
    metadata: dict[str, Any] | None = None


class TurnPayload(_Part):
    """The payload of a turn."""

    turn_id: str
    user_text: str
    assistant_text: str


_PAYLOADS: Mapping[EventType, type[_Part]] = {
    EventType.SESSION_START: StartPayload,
    EventType.TURN: TurnPayload,
    EventType.SESSION_END: _Part,
}


def parse_event(raw: object) -> EventIn:
    """Check an event; raises `Invalid` that names the fields and what is wrong with them, never what they hold."""
    try:
        event = EventIn.model_validate(raw)
    except ValidationError as error:
        raise Invalid(_reason(error)) from None
    try:
        _PAYLOADS[event.type].model_validate(event.payload)
    except ValidationError as error:
        raise Invalid(_reason(error, "payload.")) from None
    return event


def _reason(error: ValidationError, where: str = "") -> str:
    told = (
        f"{where}{'.'.join(map(str, each['loc']))}: {each['msg']}".lstrip(": ")
        for each in error.errors(include_input=False, include_context=False, include_url=False)
    )
    return "; ".join(list(told)[:5])


def told_id(raw: object) -> str | None:
    """The event id of what is no event, as far as it has one, so that a refusal can be told by it."""
    value = raw.get("eventId") if isinstance(raw, dict) else None
    return value if isinstance(value, str) else None


def later(one: datetime | None, other: datetime) -> bool:
    """Whether ``other`` is as late as ``one``, or later; everything is later than nothing."""
    return one is None or other >= one
