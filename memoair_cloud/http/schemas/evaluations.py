"""Bodies of the routes for suites and cases."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from memoair_cloud.evaluation.case_copying import CopiedCase
from memoair_cloud.evaluation.suites import SuiteDetail
from memoair_cloud.http.schemas.base import DocumentedAs, Identifier, Name, RequestBody, ResponseBody, SanitizedText
from memoair_cloud.identifiers import check_identifier
from memoair_protocol.enums import LaneName
from memoair_protocol.limits import MAX_CASES

SuiteName = Annotated[Name, AfterValidator(check_identifier)]
_Description = Annotated[SanitizedText, Field(max_length=2_000)]
_Items = Annotated[list[dict[str, Any]], Field(max_length=100)]


class SuiteIn(RequestBody):
    """A new suite."""

    name: SuiteName
    description: _Description = ""


class SuiteChangeIn(RequestBody):
    """A new name or description of a suite. What is absent stays."""

    name: SuiteName | None = None
    description: _Description | None = None


class SuiteOut(ResponseBody):
    """A suite. Its version is incremented by every change of its cases."""

    suite_id: str
    agent_id: str
    name: str
    description: str
    version: int
    case_count: int
    created_at: datetime
    created_by: str
    updated_at: datetime

    @classmethod
    def of(cls, detail: SuiteDetail) -> "SuiteOut":
        """Return the body for a suite."""
        suite = detail.suite
        names = ("agent_id", "name", "description", "version", "created_at", "created_by", "updated_at")
        values: dict[str, Any] = {name: getattr(suite, name) for name in names}
        return cls(suite_id=suite.id, case_count=detail.case_count, **values)


class SuitesOut(ResponseBody):
    """A page of the suites of an agent."""

    suites: list[SuiteOut]
    next: str | None


class CaseIn(RequestBody):
    """A case. `memoair_evaluation.case` parses it; unknown fields are rejected.

    Each item of `must` and `mustNot` has one of `fact`, `document` (with `index`), `turn` (with `session`) and `text`.
    """

    id: Identifier
    question: str
    given: dict[str, Any] | None = None
    talk: list[dict[str, Any]] = []
    at: datetime | None = None
    must: _Items = []
    must_not: _Items = []
    expected_answer: str = ""
    filter: dict[str, Any] | None = None
    lanes: list[LaneName] | None = None
    tags: list[str] = []
    notes: str = ""


RawCase = Annotated[dict[str, Any], DocumentedAs(CaseIn)]


class CasesIn(RequestBody):
    """Cases to add or to replace. `replaceAll` removes the other cases of the suite."""

    cases: Annotated[list[RawCase], Field(json_schema_extra={"maxItems": MAX_CASES})]
    replace_all: bool = False


class CaseChangesOut(ResponseBody):
    """What putting cases has changed, and the version of the suite after that."""

    added: int
    replaced: int
    kept: int
    removed: int
    version: int


class CaseOut(ResponseBody):
    """A case. `userId` and `source` say from which caller and turn it was copied; both are null for given text.

    `sha256` is of what may change its scores.
    """

    case_id: str = Field(validation_alias="id")
    position: int
    content: dict[str, Any]
    sha256: str
    user_id: str | None
    source: dict[str, Any] | None
    created_at: datetime
    created_by: str
    updated_at: datetime


class CasesOut(ResponseBody):
    """A page of the cases of a suite, in its order."""

    cases: list[CaseOut]
    next: str | None


class CaseFromTurnIn(RequestBody):
    """A turn to copy as a case, and what must be recalled for it. A turn is named by its event, or by its id.

    `keepText` keeps the case when the caller is erased: as given text, which names neither caller nor call.
    """

    user_id: Identifier
    session_id: Identifier
    event_id: Identifier
    case_id: Identifier | None = None
    must: _Items = []
    must_not: _Items = []
    expected_answer: Annotated[str, Field(max_length=10_000)] = ""
    tags: Annotated[list[str], Field(max_length=50)] = []
    notes: Annotated[str, Field(max_length=2_000)] = ""
    keep_text: bool = False


class CopiedCaseOut(CaseOut):
    """A case that was copied from a turn. `leftOut`: how many of the caller's oldest turns it does not have."""

    left_out: int

    @classmethod
    def of_copy(cls, copied: CopiedCase) -> "CopiedCaseOut":
        """Return the body for a copied case."""
        return cls.model_validate({**CaseOut.model_validate(copied.row).model_dump(), "left_out": copied.left_out})
