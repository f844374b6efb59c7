"""Bodies of the call routes."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from memoair_cloud.http.schemas.base import DocumentedAs, Identifier, RequestBody, ResponseBody
from memoair_protocol.enums import EventType

MAX_EVENTS = 500


class EventIn(RequestBody):
    """One event of one session. `memoair_cloud.calls.event_parsing` parses it."""

    event_id: Identifier
    type: EventType
    session_id: Identifier
    seq: Annotated[int, Field(ge=0, le=2**53 - 1)]
    occurred_at: datetime
    payload: dict[str, Any]


class EventsIn(RequestBody):
    """A batch of one user's events. Each is validated by itself, so that an invalid event does not block the others."""

    events: Annotated[list[Annotated[Any, DocumentedAs(EventIn)]], Field(json_schema_extra={"maxItems": MAX_EVENTS})]


class RefusedOut(ResponseBody):
    """An event that was rejected."""

    event_id: str | None
    code: str
    message: str


class ReceiptOut(ResponseBody):
    """The outcome of a batch."""

    accepted: list[str]
    duplicate: list[str]
    # Of the accepted ones, those that were dropped because they are older than the project keeps turns.
    expired: list[str]
    rejected: list[RefusedOut]


class UserOut(ResponseBody):
    """A user."""

    user_id: str = Field(validation_alias="id")
    name: str | None
    metadata: dict[str, Any] = Field(validation_alias="details")
    session_count: int
    first_seen_at: datetime
    last_seen_at: datetime


class UserDetailOut(UserOut):
    """A user, with how much is kept of them, by table, and whether a legal hold covers them."""

    held: bool
    turns_dropped_until: datetime | None
    counts: dict[str, int]


class UsersOut(ResponseBody):
    """A page of users."""

    users: list[UserOut]
    next: str | None


class SessionOut(ResponseBody):
    """A session."""

    session_id: str = Field(validation_alias="id")
    user_id: str
    started_at: datetime
    ended_at: datetime | None
    turn_count: int
    agent_id: str | None
    prompt_version: int | None
    metadata: dict[str, Any] = Field(validation_alias="details")


class SessionsOut(ResponseBody):
    """A page of sessions."""

    sessions: list[SessionOut]
    next: str | None


class EventOut(ResponseBody):
    """An event as it was sent."""

    event_id: str = Field(validation_alias="id")
    type: str
    seq: int
    occurred_at: datetime
    payload: dict[str, Any]


class EventsOut(ResponseBody):
    """A page of events."""

    events: list[EventOut]
    next: str | None
