"""Bodies of the routes for replays."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from memoair_cloud.evaluation.replay_accepting import MAX_ACCEPTED
from memoair_cloud.evaluation.replay_changes import ReplayChange
from memoair_cloud.evaluation.replays import DEFAULT_QUESTIONS, MAX_QUESTIONS
from memoair_cloud.http.schemas.base import DocumentedAs, Identifier, RequestBody, ResponseBody, UtcTime

ItemKind = Literal["document", "fact", "turn"]


class ReplayIn(RequestBody):
    """A replay of the questions that were asked from `from` until before `to`.

    The candidate says what differs from the present state: other documents, or other settings of recall. A prompt alone
    changes no context, and is rejected.
    """

    candidate: dict[str, Any]
    since: Annotated[UtcTime, Field(alias="from", strict=False)]
    until: Annotated[UtcTime, Field(alias="to", strict=False)]
    max_questions: Annotated[int, Field(ge=1, le=MAX_QUESTIONS)] = DEFAULT_QUESTIONS


class ReplayItemOut(ResponseBody):
    """Something that was recalled: a document with its index, a fact with its text, or a turn with its call.

    What does not apply is absent.
    """

    kind: ItemKind
    id: str | None = None
    document: str | None = None
    index: str | None = None
    fact: str | None = None
    turn: str | None = None
    session: str | None = None


_Item = Annotated[dict[str, str], DocumentedAs(ReplayItemOut)]


class ReplayChangeOut(ResponseBody):
    """A question whose context changes: by how much, from 0 to 1, and what only one side recalls."""

    case_id: str
    user_id: str
    session_id: str
    event_id: str
    occurred_at: datetime
    question: str
    change: float
    appeared: list[_Item]
    vanished: list[_Item]


class ReplayChangesOut(ResponseBody):
    """A page of changes, the largest first."""

    changes: list[ReplayChangeOut]
    next: str | None


class DiffSpanOut(ResponseBody):
    """A part of a line. `changed`: the other line does not have it."""

    text: str
    changed: bool = Field(validation_alias="is_changed")


class DiffRowOut(ResponseBody):
    """A line of both contexts side by side; null where a side has none."""

    kind: Literal["same", "changed", "removed", "added"]
    before: list[DiffSpanOut] | None
    after: list[DiffSpanOut] | None


class ReplayChangeDetailOut(ReplayChangeOut):
    """A change with both contexts, and both side by side."""

    before: str
    after: str
    diff: list[DiffRowOut]

    @classmethod
    def of(cls, change: ReplayChange) -> "ReplayChangeDetailOut":
        """Return the body for a change."""
        return cls.model_validate(change)


class AcceptIn(RequestBody):
    """Changes to copy to a suite as cases.

    `require`: what must be recalled then, of what only the candidate recalls. `keepText` keeps the cases when their
    callers are erased.
    """

    suite_id: Identifier
    case_ids: Annotated[list[Identifier], Field(min_length=1, max_length=MAX_ACCEPTED)]
    require: list[ItemKind] = ["document"]
    keep_text: bool = False


class AcceptanceOut(ResponseBody):
    """What became of a change: the id of its case in the suite, or why it was not copied."""

    case_id: str
    suite_case_id: str | None
    repeated: bool = Field(validation_alias="is_repeated")
    reason: str | None


class AcceptancesOut(ResponseBody):
    """What became of each change, in the order in which they were given."""

    cases: list[AcceptanceOut]
