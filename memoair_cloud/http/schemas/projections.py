"""What devices pull."""

from datetime import date, datetime
from typing import Any, Literal

from memoair_cloud.http.schemas.base import ResponseBody


class ProjectedOut(ResponseBody):
    """A document as devices hold it."""

    index_name: str
    id: str
    text: str
    metadata: dict[str, Any]


class RemovedOut(ResponseBody):
    """A document that devices must drop."""

    index_name: str
    id: str


class FileOut(ResponseBody):
    """The index file that was last built; it may be of an earlier version."""

    version: int
    sha256: str
    size: int


class OrgProjectionOut(ResponseBody):
    """A project's documents, all of them or what has changed.

    `contentHash` is the SHA-256 of `[[[indexName, id, text, metadata], ...], [[indexName, id], ...]]`, documents and
    removed ones in the order of the answer, as ASCII JSON with sorted keys and without spaces. All is told up to
    `version`; with `more`, ask again from there.
    """

    mode: Literal["snapshot", "delta"]
    version: int
    more: bool
    content_hash: str
    documents: list[ProjectedOut]
    removed: list[RemovedOut]
    file: FileOut | None


class BudgetsOut(ResponseBody):
    """What a recall gives where nobody says otherwise."""

    context_char_cap: int
    per_lane_char_cap: int
    top_k_permanent: int
    top_k_org: int
    top_k_working: int


class BootstrapOut(ResponseBody):
    """How far everything has come. Without X-User-Id, what is about a caller is null."""

    profile_version: int | None
    permanent_manifest_version: int | None
    org_manifest_version: int
    forgotten_version: int
    forgotten_at: datetime | None
    org_file: FileOut | None
    budgets: BudgetsOut
    sync_token: str


class ProfileOut(ResponseBody):
    """Who a caller is.

    `contentHash` is the SHA-256 of `[summary, attributes, name, metadata]` as ASCII JSON with sorted keys and without
    spaces.
    """

    mode: Literal["snapshot"]
    version: int
    content_hash: str
    summary: str
    attributes: dict[str, str | list[str]]
    name: str | None
    metadata: dict[str, Any]
    updated_at: datetime | None


class FactOut(ResponseBody):
    """A fact that holds."""

    id: str
    kind: str
    text: str
    subject: str
    attribute: str
    value: str
    event_id: str
    session_id: str
    said_at: datetime
    holds_from: date | None
    holds_until: date | None


class PastEventOut(ResponseBody):
    """The start of a session, or a turn."""

    event_id: str
    type: Literal["session_start", "turn"]
    session_id: str
    seq: int
    occurred_at: datetime
    payload: dict[str, Any]


class PermanentOut(ResponseBody):
    """What a caller has said and what was learned of him, up to `version`; with `more`, ask again from there.

    `contentHash` is the SHA-256 of `[events, facts, removed]` as they stand in the answer, as ASCII JSON with sorted
    keys and without spaces. A snapshot takes the place of all that the device holds.
    """

    mode: Literal["snapshot", "delta"]
    version: int
    more: bool
    content_hash: str
    events: list[PastEventOut]
    facts: list[FactOut]
    removed: list[str]


class ForgottenUserOut(ResponseBody):
    """That a caller was forgotten: `digest` is the SHA-256 of the project's id, the character 0 and the caller's id."""

    digest: str
    forgotten_at: datetime


class ForgottenOut(ResponseBody):
    """Callers who were forgotten, up to `version`; with `more`, ask again from there."""

    version: int
    more: bool
    users: list[ForgottenUserOut]
