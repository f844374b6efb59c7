"""Bodies of the project and agent routes."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from memoair_cloud.database.models import Project
from memoair_cloud.http.schemas.base import Name, RequestBody, ResponseBody, SanitizedText
from memoair_cloud.http.schemas.retention import RetentionIn, RetentionOut
from memoair_cloud.identifiers import MAX_SLUG_CHARS, SLUG
from memoair_cloud.retention.policy import RetentionPolicy


class ProjectIn(RequestBody):
    """A project to create."""

    name: Name
    slug: Annotated[str, Field(pattern=SLUG, max_length=MAX_SLUG_CHARS)]
    description: Annotated[SanitizedText, Field(max_length=2_000)] | None = None


# Data that a fact contains, and facts of a kind.
DataKind = Literal["iban", "card", "phone", "email", "birth_date", "security_code"]
ExcludableKind = DataKind | Literal["identity", "preference", "plan", "event", "commitment", "relation"]


class ProjectPatch(RequestBody):
    """Changes of a project."""

    model_config = ConfigDict(**RequestBody.model_config, extra="forbid")

    excluded_kinds: Annotated[list[ExcludableKind], Field(max_length=12)] | None = None
    retention: RetentionIn | None = None

    @model_validator(mode="after")
    def _require_a_change(self) -> "ProjectPatch":
        if self.excluded_kinds is None and self.retention is None:
            raise ValueError("a change requires excludedKinds or retention")
        return self


class ProjectOut(ResponseBody):
    """A project."""

    id: str
    name: str
    slug: str
    description: str
    created_at: datetime
    excluded_kinds: list[str]
    retention: RetentionOut

    @model_validator(mode="before")
    @classmethod
    def _add_retention(cls, project: object) -> object:
        if not isinstance(project, Project):
            return project
        names = ("id", "name", "slug", "description", "created_at", "excluded_kinds")
        return {**{name: getattr(project, name) for name in names}, "retention": RetentionPolicy.of(project)}


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
