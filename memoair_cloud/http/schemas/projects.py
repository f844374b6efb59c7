"""Bodies of the project and agent routes."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from memoair_cloud.http.schemas.base import Name, RequestBody, ResponseBody, SanitizedText
from memoair_cloud.identifiers import MAX_SLUG_CHARS, SLUG
from memoair_protocol.enums import TraceMode


class ProjectIn(RequestBody):
    """A project to create."""

    name: Name
    slug: Annotated[str, Field(pattern=SLUG, max_length=MAX_SLUG_CHARS)]
    description: Annotated[SanitizedText, Field(max_length=2_000)] | None = None


# Data that a fact contains, and facts of a kind.
DataKind = Literal["iban", "card", "phone", "email", "birth_date", "security_code"]
ExcludableKind = DataKind | Literal["identity", "preference", "plan", "event", "commitment", "relation"]


class ProjectPatch(RequestBody):
    """Changes of a project; what is left out stays.

    `recallTraces` is for machines that set nothing themselves; null is their default, `ids`.
    """

    excluded_kinds: Annotated[list[ExcludableKind], Field(max_length=12)] | None = None
    # Strict values of an enumeration are members, which JSON has none of.
    recall_traces: Annotated[TraceMode | None, Field(strict=False)] = None
    recall_trace_days: Annotated[int, Field(ge=1, le=3_650)] | None = None


class ProjectOut(ResponseBody):
    """A project."""

    id: str
    name: str
    slug: str
    description: str
    created_at: datetime
    excluded_kinds: list[str]
    recall_traces: TraceMode | None
    recall_trace_days: int


class ProjectsOut(ResponseBody):
    """The account's projects."""

    projects: list[ProjectOut]


class ProjectRemovalOut(ResponseBody):
    """A deleted project, and how many rows were deleted with it, by kind."""

    project_id: str
    removed: dict[str, int]


class AgentIn(RequestBody):
    """An agent to create."""

    name: Name
    agent_type: Literal["voice"] = "voice"


class AgentOut(ResponseBody):
    """An agent."""

    id: str
    project_id: str
    name: str
    agent_type: str
    created_at: datetime


class AgentsOut(ResponseBody):
    """A project's agents."""

    agents: list[AgentOut]
