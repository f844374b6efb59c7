"""Bodies of the routes for retention, legal holds and receipts."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from memoair_cloud.http.schemas.base import RequestBody, ResponseBody, SanitizedText
from memoair_protocol.retention import MAX_RETENTION_DAYS

Days = Annotated[int, Field(ge=1, le=MAX_RETENTION_DAYS)]


class RetentionIn(RequestBody):
    """For how many days a project keeps data; null for ever. Fields that are omitted do not change.

    `facts` says what happens to facts when the turns that they were learned from are dropped.
    """

    model_config = ConfigDict(**RequestBody.model_config, extra="forbid")

    turns_days: Days | None = None
    callers_days: Days | None = None
    traces_days: Days | None = None
    facts: Literal["keep", "drop"] = "keep"

    def changes(self) -> dict[str, Any]:
        """Return the given fields, under the names of `RetentionPolicy`."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if "facts" in given:
            given["drops_facts"] = given.pop("facts") == "drop"
        return given


class RetentionOut(ResponseBody):
    """For how many days a project keeps data; null for ever."""

    turns_days: int | None
    callers_days: int | None
    traces_days: int | None
    facts: Literal["keep", "drop"]

    @model_validator(mode="before")
    @classmethod
    def _name_facts(cls, policy: Any) -> Any:
        if isinstance(policy, dict):
            return policy
        names = ("turns_days", "callers_days", "traces_days")
        facts = "drop" if policy.drops_facts else "keep"
        return {**{name: getattr(policy, name) for name in names}, "facts": facts}


class PreviewOut(ResponseBody):
    """What would be dropped now, and the number of callers that legal holds keep."""

    retention: RetentionOut
    turns: int
    sessions: int
    callers: int
    traces: int
    held_callers: int


class HoldIn(RequestBody):
    """Why a legal hold is placed or lifted, and who says so."""

    reason: Annotated[SanitizedText, Field(min_length=1, max_length=1_000)]
    by: Annotated[SanitizedText, Field(min_length=1, max_length=200)] | None = None


class HoldOut(ResponseBody):
    """A legal hold. Without `userId` it is on all users of the project."""

    hold_id: str = Field(validation_alias="id")
    user_id: str | None
    reason: str
    placed_at: datetime
    placed_by: str
    lifted_at: datetime | None
    lifted_by: str | None
    lift_reason: str | None


class HoldsOut(ResponseBody):
    """The legal holds on a user, or on a whole project, earliest first."""

    holds: list[HoldOut]


class ForgettingOut(ResponseBody):
    """The receipt for an erased user: how many rows were removed, by kind.

    Machines erase their copies when they see the project's list of erasures at `version`. `digest` is the SHA-256 of
    the project's id, a NUL character and the user's id; without the user's id when the receipt is read again.
    """

    user_id: str | None
    digest: str
    forgotten_at: datetime
    erased_at: datetime
    version: int
    reason: Literal["request", "retention"]
    removed: dict[str, int]
    erasure: str | None = None
