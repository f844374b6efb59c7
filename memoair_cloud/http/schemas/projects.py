"""Bodies of the project and agent routes."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from memoair_cloud.database.models import Project
from memoair_cloud.http.schemas.base import Name, RequestBody, ResponseBody, SanitizedText
from memoair_cloud.http.schemas.retention import RetentionIn, RetentionOut
from memoair_cloud.identifiers import MAX_SLUG_CHARS, SLUG
from memoair_cloud.retention.policy import RetentionPolicy
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

    model_config = ConfigDict(**RequestBody.model_config, extra="forbid")

    excluded_kinds: Annotated[list[ExcludableKind], Field(max_length=12)] | None = None
    # Strict values of an enumeration are members, which JSON has none of.
    recall_traces: Annotated[TraceMode | None, Field(strict=False)] = None
    retention: RetentionIn | None = None

    @model_validator(mode="after")
    def _require_a_change(self) -> "ProjectPatch":
        has_trace_mode = "recall_traces" in self.model_fields_set
        if self.excluded_kinds is None and self.retention is None and not has_trace_mode:
            raise ValueError("a change requires excludedKinds, recallTraces or retention")
        return self


class ProjectOut(ResponseBody):
    """A project."""

    id: str
    name: str
    slug: str
    description: str
    created_at: datetime
    excluded_kinds: list[str]
    recall_traces: TraceMode | None
    retention: RetentionOut

    @model_validator(mode="before")
    @classmethod
    def _add_retention(cls, project: object) -> object:
        if not isinstance(project, Project):
            return project
        names = ("id", "name", "slug", "description", "created_at", "excluded_kinds", "recall_traces")
        return {**{name: getattr(project, name) for name in names}, "retention": RetentionPolicy.of(project)}


class ProjectsOut(ResponseBody):
    """The account's projects."""

    projects: list[ProjectOut]


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
