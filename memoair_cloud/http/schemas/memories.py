"""What is known of callers."""

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from memoair_cloud.http.schemas.base import RequestBody, ResponseBody, SanitizedText


def _require_text(value: object) -> object:
    # Pydantic would take numbers for seconds since 1970.
    if not isinstance(value, str):
        raise ValueError("a day is a text, YYYY-MM-DD")
    return value


Day = Annotated[date, BeforeValidator(_require_text), Field(strict=False)]


class MemoryOut(ResponseBody):
    """A fact about a caller: what it says, and where it comes from."""

    memory_id: str = Field(validation_alias="id")
    kind: str
    text: str
    subject: str
    attribute: str
    value: str
    session_id: str
    event_id: str
    said_at: datetime
    holds_from: date | None
    holds_until: date | None
    extractor: str
    learned_at: datetime
    corrected_at: datetime | None
    closed_by: str | None


class MemoriesOut(ResponseBody):
    """A page of memories."""

    memories: list[MemoryOut]
    next: str | None


class CorrectionIn(RequestBody):
    """What is to be said instead; at least one of the fields. Without `value`, the profile tells the text."""

    model_config = ConfigDict(**RequestBody.model_config, extra="forbid")

    text: Annotated[SanitizedText, Field(min_length=1, max_length=1_000)] | None = None
    value: Annotated[SanitizedText, Field(max_length=500)] | None = None
    holds_from: Day | None = None
    holds_until: Day | None = None

    @model_validator(mode="after")
    def _require_a_change(self) -> "CorrectionIn":
        given_fields = self.model_fields_set
        if not given_fields or any(getattr(self, name) is None for name in given_fields & {"text", "value"}):
            raise ValueError("a correction says something: text, value, holdsFrom or holdsUntil")
        return self


class DeletedOut(ResponseBody):
    """That a memory was deleted."""

    memory_id: str
    deleted_at: datetime


class ChangeOut(ResponseBody):
    """What has happened to a memory; `text` and `value` are what it said until then."""

    at: datetime
    action: Literal["learned", "closed", "reopened", "corrected", "deleted"]
    by: str
    text: str | None
    value: str | None


class HistoryOut(ResponseBody):
    """All that has happened to a memory."""

    changes: list[ChangeOut]


class RemovedCountsOut(ResponseBody):
    """How many there were."""

    sessions: int
    events: int
    memories: int
    memory_changes: int
    profiles: int
    queued: int


class ForgettingOut(ResponseBody):
    """The receipt for a caller who was forgotten."""

    user_id: str
    forgotten_at: datetime
    removed: RemovedCountsOut
