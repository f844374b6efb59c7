"""Bodies of the outcome routes."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from memoair_cloud.http.schemas.base import DocumentedAs, Identifier, RequestBody, ResponseBody, UtcTime
from memoair_cloud.outcomes.reporting import ReportedOutcome
from memoair_protocol.limits import MAX_OUTCOMES
from memoair_protocol.outcomes import MAX_SCORE, OUTCOME_PATTERN


class OutcomeIn(RequestBody):
    """An outcome of a call. Without `outcomeId`, a call has one outcome of each name: the last one that is reported."""

    model_config = ConfigDict(**RequestBody.model_config, extra="forbid")

    session_id: Identifier
    user_id: Identifier | None = None
    outcome: Annotated[str, Field(pattern=OUTCOME_PATTERN)]
    score: Annotated[float, Field(allow_inf_nan=False, ge=-MAX_SCORE, le=MAX_SCORE)] | None = None
    occurred_at: Annotated[UtcTime, Field(strict=False)] | None = None
    outcome_id: Identifier | None = None

    def to_outcome(self, user_id: str | None) -> ReportedOutcome:
        """Return the outcome.

        Args:
            user_id: Whose session it is if the outcome does not say.
        """
        return ReportedOutcome(
            session_id=self.session_id,
            outcome=self.outcome,
            user_id=self.user_id or user_id,
            score=self.score,
            occurred_at=self.occurred_at,
            outcome_id=self.outcome_id,
        )


class OutcomesIn(RequestBody):
    """A batch of outcomes. Each is validated by itself, so that an invalid one does not block the others."""

    outcomes: Annotated[
        list[Annotated[Any, DocumentedAs(OutcomeIn)]],
        Field(min_length=1, json_schema_extra={"maxItems": MAX_OUTCOMES}),
    ]
    dry_run: bool = Field(False, description="save nothing, and tell what would become of each")


class RejectedOutcomeOut(ResponseBody):
    """An outcome that was not saved: its place in the batch, from 0, and why."""

    index: int
    reason: str


class OutcomeReceiptOut(ResponseBody):
    """What became of a batch. `unknownSessions` of the accepted ones are of sessions that have not arrived yet."""

    accepted: int
    unknown_sessions: int
    rejected: list[RejectedOutcomeOut]


class OutcomeOut(ResponseBody):
    """An outcome. `userId` is null until the call has arrived; `agentId` is the agent that reported it."""

    session_id: str
    user_id: str | None
    agent_id: str | None
    outcome: str
    outcome_id: str | None
    score: float | None
    occurred_at: datetime = Field(validation_alias="reported_at")
    received_at: datetime


class OutcomesOut(ResponseBody):
    """A page of outcomes."""

    outcomes: list[OutcomeOut]
    next: str | None
