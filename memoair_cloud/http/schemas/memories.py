"""Bodies of the memory routes."""

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from memoair_cloud.http.schemas.base import RequestBody, ResponseBody, SanitizedText


def _require_text(value: object) -> object:
    # Pydantic would interpret numbers as seconds since 1970.
    if not isinstance(value, str):
        raise ValueError("a day must be a string: YYYY-MM-DD")
    return value


Day = Annotated[date, BeforeValidator(_require_text), Field(strict=False)]


class MemoryOut(ResponseBody):
    """A fact about a user and its source."""

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
    """A correction of a memory; at least one field is required. If `value` is omitted, the profile shows the text."""

    model_config = ConfigDict(**RequestBody.model_config, extra="forbid")

    text: Annotated[SanitizedText, Field(min_length=1, max_length=1_000)] | None = None
    value: Annotated[SanitizedText, Field(max_length=500)] | None = None
    holds_from: Day | None = None
    holds_until: Day | None = None

    @model_validator(mode="after")
    def _require_a_change(self) -> "CorrectionIn":
        given_fields = self.model_fields_set
        if not given_fields or any(getattr(self, name) is None for name in given_fields & {"text", "value"}):
            raise ValueError(
                "a correction requires text, value, holdsFrom or holdsUntil; text and value must not be null"
            )
        return self


class DeletedOut(ResponseBody):
    """Confirms that a memory was deleted."""

    memory_id: str
    deleted_at: datetime


class ChangeOut(ResponseBody):
    """A change of a memory; `text` and `value` are those before the change."""

    at: datetime
    action: Literal["learned", "closed", "reopened", "corrected", "deleted"]
    by: str
    text: str | None
    value: str | None


class HistoryOut(ResponseBody):
    """All changes of a memory."""

    changes: list[ChangeOut]
