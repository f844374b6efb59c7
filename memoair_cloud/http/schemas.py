"""What goes in and comes out, as OpenAPI shows it. JSON is camelCase; moments are ISO 8601 in UTC."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from memoair_cloud.calls.wire import EventIn, Identifier
from memoair_cloud.names import MAX_SLUG_CHARS, SLUG, sound_text

MAX_EVENTS = 500
MAX_DOCUMENTS = 100
# Paths of the API's own, and what a client's URL library would shorten away.
_TAKEN_NAMES = ("create", "list")


class _In(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, strict=True)


class _Out(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, from_attributes=True)


def _index_name(name: str) -> str:
    if "/" in name or not name.strip(".") or name in _TAKEN_NAMES:
        raise ValueError("the name of an index has no slash, not only dots, and is neither create nor list")
    return name


SoundText = Annotated[str, AfterValidator(sound_text)]
Name = Annotated[SoundText, Field(min_length=1, max_length=200)]
IndexName = Annotated[Identifier, AfterValidator(_index_name)]


class ProjectIn(_In):
    """A project to make."""

    name: Name
    slug: Annotated[str, Field(pattern=SLUG, max_length=MAX_SLUG_CHARS)]
    description: Annotated[SoundText, Field(max_length=2_000)] | None = None


class ProjectOut(_Out):
    """A project."""

    id: str
    name: str
    slug: str
    description: str
    created_at: datetime


class ProjectsOut(_Out):
    """The account's projects."""

    projects: list[ProjectOut]


class AgentIn(_In):
    """An agent to make."""

    name: Name
    agent_type: Literal["voice"] = "voice"


class AgentOut(_Out):
    """An agent."""

    id: str
    project_id: str
    name: str
    agent_type: str
    created_at: datetime


class AgentsOut(_Out):
    """A project's agents."""

    agents: list[AgentOut]


class DocumentIn(_In):
    """A document: its id is the client's own, and known within the index."""

    id: Identifier
    text: SoundText
    metadata: dict[str, Any] | None = None


class IndexIn(_In):
    """Documents for an index, at most 100 and 1 MB of body in one call."""

    name: IndexName
    # The limit is told here and held in the route: what is over it has an error of its own.
    documents: Annotated[list[DocumentIn], Field(json_schema_extra={"maxItems": MAX_DOCUMENTS})]
    metadata: dict[str, Any] | None = None


class BuiltOut(_Out):
    """What the index has come to."""

    index_name: str
    chunk_count: int
    version: int


class IndexOut(_Out):
    """An index."""

    name: str
    version: int
    chunk_count: int
    document_count: int
    created_at: datetime
    updated_at: datetime
    metadata: dict[str, Any] = Field(validation_alias="details")


class IndexesOut(_Out):
    """The project's indexes."""

    indexes: list[IndexOut]


class EventsIn(_In):
    """A batch of one caller's events; each is checked by itself, so that one bad event does not hold up the others."""

    events: Annotated[
        list[Any],
        WithJsonSchema({"type": "array", "maxItems": MAX_EVENTS, "items": EventIn.model_json_schema()}),
    ]


class RefusedOut(_Out):
    """An event that was not kept."""

    event_id: str | None
    code: str
    message: str


class ReceiptOut(_Out):
    """What became of a batch."""

    accepted: list[str]
    duplicate: list[str]
    rejected: list[RefusedOut]


class UserOut(_Out):
    """A caller."""

    user_id: str = Field(validation_alias="id")
    name: str | None
    metadata: dict[str, Any] = Field(validation_alias="details")
    session_count: int
    last_seen_at: datetime


class UsersOut(_Out):
    """A page of callers."""

    users: list[UserOut]
    next: str | None


class SessionOut(_Out):
    """A call."""

    session_id: str = Field(validation_alias="id")
    user_id: str
    started_at: datetime
    ended_at: datetime | None
    turn_count: int
    agent_id: str | None
    metadata: dict[str, Any] = Field(validation_alias="details")


class SessionsOut(_Out):
    """A page of calls."""

    sessions: list[SessionOut]
    next: str | None


class EventOut(_Out):
    """An event, as it was sent."""

    event_id: str = Field(validation_alias="id")
    type: str
    seq: int
    occurred_at: datetime
    payload: dict[str, Any]


class EventsOut(_Out):
    """A page of events."""

    events: list[EventOut]
    next: str | None


class ProjectedOut(_Out):
    """A document as devices hold it."""

    index_name: str
    id: str
    text: str
    metadata: dict[str, Any] = Field(validation_alias="details")


class RemovedOut(_Out):
    """A document that devices must drop."""

    index_name: str
    id: str


class FileOut(_Out):
    """The index file that was last built; it may be of an earlier version."""

    version: int
    sha256: str
    size: int


class OrgProjectionOut(_Out):
    """A project's documents, all of them or what has changed.

    `contentHash` is the SHA-256 of `[[[indexName, id, text, metadata], ...], [[indexName, id], ...]]`, documents and
    removed ones in the order of the answer, as ASCII JSON with sorted keys and without spaces.
    """

    mode: Literal["snapshot", "delta"]
    version: int
    content_hash: str
    documents: list[ProjectedOut]
    removed: list[RemovedOut]
    file: FileOut | None


class StatusOut(_Out):
    """That the server is well."""

    status: Literal["ok"] = "ok"
