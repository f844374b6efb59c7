"""Bodies of the projections that machines pull."""

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from memoair_cloud.http.schemas.base import RequestBody, ResponseBody
from memoair_protocol.enums import TraceMode
from memoair_protocol.limits import MAX_ERASURES


class ProjectedOut(ResponseBody):
    """A document as machines store it."""

    index_name: str
    id: str
    text: str
    metadata: dict[str, Any]


class RemovedOut(ResponseBody):
    """A document that machines must delete."""

    index_name: str
    id: str


class FileOut(ResponseBody):
    """The latest index file. It may contain an earlier version of the documents."""

    version: int
    sha256: str
    size: int


class OrgProjectionOut(ResponseBody):
    """A project's documents: all of them, or what has changed.

    `contentHash` is the SHA-256 of `[[[indexName, id, text, metadata], ...], [[indexName, id], ...]]`, documents and
    removed ones in the order of the response, as ASCII JSON with sorted keys and without spaces. The response is
    complete
    up to `version`; if `more` is true, request the next page from there.
    """

    mode: Literal["snapshot", "delta"]
    version: int
    more: bool
    content_hash: str
    documents: list[ProjectedOut]
    removed: list[RemovedOut]
    file: FileOut | None


class BudgetsOut(ResponseBody):
    """The default limits of a recall."""

    context_char_cap: int
    per_lane_char_cap: int
    top_k_permanent: int
    top_k_org: int
    top_k_working: int


class BootstrapOut(ResponseBody):
    """The current versions. Without X-User-Id, the fields about a user are null.

    With another `epoch` than before, the data was restored from a backup: a machine requests everything again, sends
    its events again, and reports the erasures that it knows. Null means unknown, and changes nothing. A machine marks
    what it logs of the user with `erasure`, once it has carried out the erasure at `forgottenAt`.
    """

    profile_version: int | None
    permanent_manifest_version: int | None
    org_manifest_version: int
    epoch: str | None
    retention_version: int
    forgotten_version: int
    forgotten_at: datetime | None
    erasure: str | None
    org_file: FileOut | None
    budgets: BudgetsOut
    recall_traces: TraceMode | None
    sync_token: str


class RetentionProjectionOut(ResponseBody):
    """How long machines keep turns, in days; null for ever. They keep more of callers that a legal hold covers.

    `held` says that a hold covers all callers; `heldUsers` are digests, as in ForgottenUserOut, of single ones.
    """

    version: int
    turns_days: int | None
    held: bool
    held_users: list[str]


class ProfileOut(ResponseBody):
    """The profile of a user.

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
    """A current fact."""

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
    """A session start or a turn."""

    event_id: str
    type: Literal["session_start", "turn"]
    session_id: str
    seq: int
    occurred_at: datetime
    payload: dict[str, Any]


class PermanentOut(ResponseBody):
    """A user's turns and facts up to `version`; if `more` is true, request the next page from there.

    `contentHash` is the SHA-256 of `[events, facts, removed]` as they stand in the response, as ASCII JSON with sorted
    keys and without spaces. A snapshot replaces everything that the machine holds.
    """

    mode: Literal["snapshot", "delta"]
    version: int
    more: bool
    content_hash: str
    events: list[PastEventOut]
    facts: list[FactOut]
    removed: list[str]


class ForgottenUserOut(ResponseBody):
    """An erased user. `digest` is the SHA-256 of the project's id, a NUL character and the user's id."""

    digest: str
    forgotten_at: datetime


class ErasureIn(RequestBody):
    """A user who was erased, as a machine remembers it. `digest` as in ForgottenUserOut."""

    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    forgotten_at: Annotated[AwareDatetime, Field(strict=False)]


class ErasuresIn(RequestBody):
    """Users who were erased, as a machine remembers them."""

    users: Annotated[list[ErasureIn], Field(max_length=MAX_ERASURES)]


class ErasuresOut(ResponseBody):
    """How many of the erasures were not known."""

    recorded: int


class ForgottenOut(ResponseBody):
    """Erased users up to `version`; if `more` is true, request the next page from there."""

    version: int
    more: bool
    users: list[ForgottenUserOut]
