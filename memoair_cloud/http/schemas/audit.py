"""Bodies of the audit log."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from memoair_cloud.http.schemas.base import ResponseBody


class AuditEntryOut(ResponseBody):
    """Who read or changed what about a caller, or changed of an agent.

    ``userId`` is null once the caller is erased; it and ``userDigest`` are null for an agent. The ``details`` of a
    change of its prompt say from which version to which (``from``, ``to``).
    """

    entry_id: str = Field(validation_alias="id")
    at: datetime
    actor_kind: str
    actor_id: str
    actor_name: str
    action: str
    target: str | None
    user_id: str | None
    user_digest: Annotated[str | None, BeforeValidator(lambda digest: digest or None)]
    agent_id: str | None
    details: dict[str, Any] | None


class AuditOut(ResponseBody):
    """A page of the audit log."""

    entries: list[AuditEntryOut]
    next: str | None
