"""Bodies of the routes for runs and document sets."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from memoair_cloud.database.evaluation_models import EvaluationResult, EvaluationRun
from memoair_cloud.evaluation.comparison import ComparedRuns
from memoair_cloud.evaluation.document_set_states import DocumentSetState
from memoair_cloud.evaluation.run_states import RunState
from memoair_cloud.http.schemas.base import DocumentedAs, Identifier, Name, RequestBody, ResponseBody, SanitizedText
from memoair_cloud.http.schemas.indexes import IndexName
from memoair_protocol.enums import LaneName

MAX_PART_DOCUMENTS = 1_000


class RecallSettingsIn(RequestBody):
    """Settings of the searches. What is absent is as in a runtime by default."""

    lanes: list[LaneName] | None = None
    top_k: dict[LaneName, int] | None = None
    context_chars: int | None = None
    lane_chars: int | None = None
    min_confidence: float | None = None
    timeout_ms: float | None = None


class CandidateIn(RequestBody):
    """What differs from the present state. `memoair_evaluation.candidate` parses it; unknown fields are rejected.

    `documents` has the `setId` of a document set; `prompt` has one of `version`, `label` and `text`.
    """

    recall: RecallSettingsIn | None = None
    documents: dict[str, str] | None = None
    prompt: dict[str, Any] | None = None


class RunIn(RequestBody):
    """A suite to run. `judge`: a model answers from prompt and context, and grades the answers.

    `accept`: later runs are compared with this one even if it is worse.
    """

    suite_id: Identifier
    candidate: Annotated[dict[str, Any], DocumentedAs(CandidateIn)] = {}
    judge: bool = False
    accept: bool = False


class RunOut(ResponseBody):
    """A run, and how far it is: `done` of `total` cases.

    `suiteVersion`, `promptVersion`, `orgVersion` and `engineVersion` say what it ran with, once it has begun. `scores`
    are those of all cases, once it is done; `settings.isWorse` says that it was worse than what `last` means.
    """

    run_id: str = Field(validation_alias="id")
    agent_id: str
    suite_id: str | None
    kind: str
    state: RunState
    candidate: dict[str, Any]
    settings: dict[str, Any]
    total: int
    done: int
    suite_version: int | None
    prompt_version: int | None
    org_version: int | None
    engine_version: str | None
    scores: dict[str, Any] | None
    failure: str | None
    created_at: datetime
    created_by: str
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, run: EvaluationRun) -> "RunOut":
        """Return the body for a run."""
        return cls.model_validate(run)


class RunsOut(ResponseBody):
    """A page of the runs of an agent, latest first."""

    runs: list[RunOut]
    next: str | None


class ResultOut(ResponseBody):
    """The result of a case. `scores` has no words; the case was copied from the caller `userId`."""

    case_id: str
    position: int
    case_sha256: str
    user_id: str | None
    scores: dict[str, Any]


class ResultsOut(ResponseBody):
    """A page of the results of a run, in the order of its suite."""

    results: list[ResultOut]
    next: str | None


class ResultDetailOut(ResultOut):
    """The result of a case, with the case as it was, the trace of the search and the context."""

    case: dict[str, Any] | None
    trace: dict[str, Any] | None
    context: str | None
    half_context: str | None
    answer: dict[str, Any] | None

    @classmethod
    def of(cls, row: EvaluationResult) -> "ResultDetailOut":
        """Return the body for a result."""
        names = ("case", "trace", "context", "halfContext", "answer")
        details = {name: row.details.get(name) for name in names}
        return cls.model_validate({**ResultOut.model_validate(row).model_dump(), **details})


class ComparisonOut(ResponseBody):
    """Two runs side by side. `counts` has the number of cases by outcome, `cases` those with another score.

    `scores` are those of the cases that both runs have unchanged, before and after.
    """

    before: RunOut
    after: RunOut
    is_worse: bool
    counts: dict[str, int]
    scores: dict[str, dict[str, Any]]
    cases: list[dict[str, Any]]

    @classmethod
    def of(cls, compared: ComparedRuns, *, with_same: bool) -> "ComparisonOut":
        """Return the body for a comparison."""
        wire = compared.comparison.to_wire(with_same=with_same)
        return cls(
            before=RunOut.of(compared.before),
            after=RunOut.of(compared.after),
            is_worse=wire["isWorse"],
            counts=wire["counts"],
            scores={name: wire[name] for name in ("before", "after")},
            cases=wire["cases"],
        )


class SetDocumentIn(RequestBody):
    """A document of a set. Its id is unique within its index."""

    id: Identifier
    text: SanitizedText
    metadata: dict[str, Any] = {}
    index_name: IndexName


_Documents = Annotated[list[SetDocumentIn], Field(json_schema_extra={"maxItems": MAX_PART_DOCUMENTS})]


class DocumentSetIn(RequestBody):
    """A document set: all of its documents, none yet, or a copy of the present ones of the project."""

    name: Name
    documents: _Documents | None = None
    copy_present: bool = False


class SetDocumentsIn(RequestBody):
    """More documents of a set."""

    documents: _Documents


class DocumentSetOut(ResponseBody):
    """A document set. `orgVersion` is the version of the project's documents that it is a copy of."""

    set_id: str = Field(validation_alias="id")
    name: str
    state: DocumentSetState
    document_count: int
    size: int
    org_version: int | None
    failure: str | None
    created_at: datetime
    created_by: str


class DocumentSetsOut(ResponseBody):
    """A page of the document sets of a project, latest first."""

    document_sets: list[DocumentSetOut]
    next: str | None
