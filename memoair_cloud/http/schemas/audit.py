"""Bodies of the audit log."""

from datetime import datetime

from pydantic import Field

from memoair_cloud.http.schemas.base import ResponseBody


class AuditEntryOut(ResponseBody):
    """Who read or changed what about a caller. ``userId`` is null once the caller is erased."""

    entry_id: str = Field(validation_alias="id")
    at: datetime
    actor_kind: str
    actor_id: str
    actor_name: str
    action: str
    target: str | None
    user_id: str | None
    user_digest: str


class AuditOut(ResponseBody):
    """A page of the audit log."""

    entries: list[AuditEntryOut]
    next: str | None
